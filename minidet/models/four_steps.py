"""Faster R-CNN's four-step training (Ren et al. 2015, section 3.2), which lets two networks grow into one.

    1  the RPN is trained, and its backbone with it
    2  Fast R-CNN is trained on the proposals of step 1, with a backbone of its own: nothing is shared yet
    3  the RPN is trained on Fast R-CNN's backbone, which stays as it is: now both share it
    4  Fast R-CNN's own layers are trained on, with the proposals of step 3

Both backbones start from the classifier's weights. The lecture's slide freezes the backbone in step 1, which
`freeze_first` does; the paper and its code do not. Afterwards the model is a FasterRCNN like any other; rpn_backbone is
no longer used.
"""

from typing import Any

import numpy as np

from .. import nn, watch
from ..autograd import no_grad
from .fast_rcnn import RoIHeads, as_levels
from .faster_rcnn import FasterRCNN, RegionProposalNetwork
from .image_batch import batch_images, detection_targets

STEPS = 4


class FourStepFasterRCNN(FasterRCNN):
    """A FasterRCNN whose training goes through the four steps: `enter(step)` begins one.

    rpn_backbone: the RPN's own one, of steps 1 and 2, built like `backbone`. freeze_first: it stays as it is in step 1,
    so that only the RPN's layers learn, as on the lecture's slide. Other arguments: FasterRCNN's. In steps 1 and 3
    model(images, targets) gives the RPN's losses, in 2 and 4 Fast R-CNN's. The step is part of the state_dict.
    """

    def __init__(
        self,
        backbone: nn.Module,
        rpn_backbone: nn.Module,
        rpn: RegionProposalNetwork,
        roi_heads: RoIHeads,
        freeze_first: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(backbone, rpn, roi_heads, **options)
        self.rpn_backbone, self.freeze_first = rpn_backbone, freeze_first
        self.register_buffer("step", np.ones((), np.int64))
        self.enter(1)

    def enter(self, step: int) -> None:
        """Begins a step: what it does not train is frozen."""
        if not 1 <= step <= STEPS:
            raise ValueError(f"FourStepFasterRCNN: expected a step from 1 to {STEPS}, got {step}")
        self.step[...] = step
        learns = {
            1: (self.rpn,) if self.freeze_first else (self.rpn_backbone, self.rpn),
            2: (self.backbone, self.roi_heads),
            3: (self.rpn,),
            4: (self.roi_heads,),
        }[step]
        for part in (self.rpn_backbone, self.backbone, self.rpn, self.roi_heads):
            part.requires_grad_(part in learns)
        self.train(self.training)

    def train(self, mode: bool = True) -> nn.Module:
        """Training behaviour, but not for what the step does not train: a frozen batch norm keeps its averages."""
        super().train(mode)
        for part in (self.rpn_backbone, self.backbone, self.rpn, self.roi_heads):
            if not any(parameter.requires_grad for parameter in part.parameters()):
                part.eval()
        return self

    def load_state_dict(self, state: dict[str, Any], strict: bool = True) -> None:
        """As of every Module; and enters the state's step."""
        super().load_state_dict(state, strict)
        self.enter(int(self.step))

    def forward(self, images: Any, targets: list[dict] | None = None) -> Any:
        batch = batch_images(images, self.normalize, self.min_size, self.max_size, self.backbone.stride)
        truth = detection_targets(targets, batch, self.roi_heads.num_classes - 1) if self.training else None
        step = int(self.step)
        shared, rpn_learns = step >= 3, self.training and step in (1, 3)
        maps = as_levels(self.backbone(batch.tensor)) if shared or not rpn_learns else []
        rpn_maps = maps if shared else as_levels(self.rpn_backbone(batch.tensor))
        watch.emit("backbone.maps", maps or rpn_maps)
        if rpn_learns:
            return self.rpn(rpn_maps, batch, truth)[1]
        self.rpn.training = self.training  # it learns nothing now, but gives as many proposals as training wants
        with no_grad():  # they are data, as if they came from a file
            proposals, _ = self.rpn(rpn_maps, batch)
        return self.roi_heads(maps, proposals, batch, truth)
