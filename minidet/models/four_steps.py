"""Faster R-CNN's four-step training (Ren et al. 2015, section 3.2), which lets two networks grow into one.

    1  the RPN is trained, and its backbone with it
    2  Fast R-CNN is trained on the proposals of step 1, with a backbone of its own: nothing is shared yet
    3  the RPN is trained on Fast R-CNN's backbone, which stays as it is: now both share it
    4  Fast R-CNN's own layers are trained on, with the proposals of step 3

Both backbones start from the classifier's weights. The lecture's slide freezes the backbone in step 1; the paper and
its code do not. Afterwards the model is a FasterRCNN like any other, with a backbone to spare.
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

    rpn_backbone: the RPN's own one, of steps 1 and 2, like `backbone`. Other arguments: FasterRCNN's. In steps 1 and 3
    model(images, targets) gives the RPN's losses, in 2 and 4 Fast R-CNN's. The step is part of the state_dict.
    """

    def __init__(
        self,
        backbone: nn.Module,
        rpn_backbone: nn.Module,
        rpn: RegionProposalNetwork,
        roi_heads: RoIHeads,
        **options: Any,
    ) -> None:
        super().__init__(backbone, rpn, roi_heads, **options)
        self.rpn_backbone = rpn_backbone
        self.register_buffer("step", np.ones((), np.int64))
        self.enter(1)

    def enter(self, step: int) -> None:
        """Begins a step: what it does not train is frozen."""
        if not 1 <= step <= STEPS:
            raise ValueError(f"FourStepFasterRCNN: expected a step from 1 to {STEPS}, got {step}")
        self.step[...] = step
        learns = {
            1: (self.rpn_backbone, self.rpn),
            2: (self.backbone, self.roi_heads),
            3: (self.rpn,),
            4: (self.roi_heads,),
        }[step]
        for part in (self.rpn_backbone, self.backbone, self.rpn, self.roi_heads):
            part.requires_grad_(part in learns)

    def forward(self, images: Any, targets: list[dict] | None = None) -> Any:
        batch = batch_images(images, self.normalize, self.min_size, self.max_size, self.backbone.stride)
        if targets is not None:
            targets = detection_targets(targets, batch, self.roi_heads.num_classes - 1)
        step = int(self.step)
        shared = step >= 3
        maps = as_levels(self.backbone(batch.tensor)) if shared or step == 2 or targets is None else []
        rpn_maps = maps if shared else as_levels(self.rpn_backbone(batch.tensor))
        watch.emit("backbone.maps", maps or rpn_maps)
        if targets is not None and step in (1, 3):
            return self.rpn(rpn_maps, batch, targets)[1]
        with no_grad():  # proposals are data, as if they came from a file
            proposals, _ = self.rpn(rpn_maps, batch)
        return self.roi_heads(maps, proposals, batch, targets)
