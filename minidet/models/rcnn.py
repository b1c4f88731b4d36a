"""R-CNN (Girshick et al. 2014): regions that may show something are cut out, and a network looks at each by itself.

    image + proposals (Selective Search, ~2000)
      -> each region warped to one size, because the network ends in fully connected layers
      -> CNN -> pool5, the last convolutional map -> features
      -> for each class a linear SVM on the features               (while fine-tuning: softmax with a background class)
      -> boxes moved by a linear regression on pool5, class by class
      -> of boxes that overlap, the best one stays, class by class

Only the network is trained by gradients: a pre-trained CNN, fine-tuned by placing a fully connected layer after it that
tells the K classes and the background apart. What comes after it is fitted post hoc: linear SVMs by hinge loss, box
regressors by least squares (the lecture's "ad-hoc training objectives"), on features that are computed once and kept on
disk: training/recipes/rcnn_stages.py. And no computation is shared: regions that overlap are looked at anew.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import minidet_kernels as kernels

from .. import functional as F
from .. import nn, watch
from ..autograd import Tensor, no_grad
from ..boxes import (
    BELOW,
    LEAST_SIDE,
    box_iou,
    clip_boxes_to_image,
    decode_boxes,
    filter_detections,
    inside_crowds,
    match_boxes,
    sample_balanced,
)
from ..device import on_device_of, to_numpy
from ..proposals import selective_search
from ..random import generator
from .image_batch import checked_targets, proposals_of, unchanged, with_targets

# Section 2.3: 32 positives and 96 background regions a step. Objects are rare among the proposals, so they are drawn
# more often than they are met; with a larger part the network sees too little of the background's variety.
REGIONS, POSITIVE_FRACTION = 128, 0.25
# Section 2.3: what overlaps by half counts as the object, which makes 30 times as many positives as the true boxes
# alone. They are not precise: one reason why SVMs, trained on true boxes, did better in the paper (appendix B).
POSITIVE_IOU = 0.5
REGIONS_AT_ONCE = 256  # that the network looks at where no gradient is wanted: memory, not results


class RCNN(nn.Module):
    """images and proposals -> detections.

    backbone     regions (P, 3, size, size) -> pool5 (P, C, h, w), of h x w cells. Around the image a region shows its
                 mean colour, 0 to a TinyBackbone
    num_classes  K + 1, with the background
    size         of warped regions, in pixels: 227 for AlexNet, whose pool5 has 6 x 6 cells then; a larger one shows
                 small objects no better and costs in proportion to its square
    context      pixels of the warped region around the box (16 of 227 in appendix A, so 3 of 48): what an object
                 stands on, and where it ends
    hidden       D, features of a region: fc7
    propose      an image (H, W, 3) uint8 -> regions (P, 4) in its pixels, for images whose targets have none
    normalize    what is done to warped regions in [0, 1] before the backbone sees them: nothing by default, because a
                 TinyBackbone centres them; backbones.normalize for torchvision's weights
    svm, box_regression   False leaves the stage out; it is left out, too, until it has been fitted
    score_threshold, nms_threshold, detections_per_image   of what is found; 0.3 is section 2.2's

    Training: model(images, targets) -> {"loss_classifier"}, over 128 regions of all images together. Evaluation:
    model(images), or with targets of which only the proposals are read, -> a dict an image with boxes (D, 4), labels
    (D,) and scores (D,), best first, on the CPU. Scores are probabilities of the softmax, or 1 / (1 + exp(-s)) of the
    SVMs' s: in [0, 1], 1/2 at the border between an object and none.
    images: a Tensor (N, 3, H, W) or a list of (3, H_i, W_i). targets: dicts with proposals (P, 4), for training boxes
    (R, 4), labels (R,) and iscrowd (R,), on the CPU, in pixels of their image.

    Buffers, 0 until they are fitted: svm_weights (K, D + 1) and box_weights (K, 4, C * h * w + 1); the last number of
    each row is the constant term.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        size: int = 48,
        context: int = 3,
        hidden: int = 256,
        propose: Callable[[np.ndarray], np.ndarray] = selective_search,
        normalize: Callable[[Any], Any] = unchanged,
        svm: bool = True,
        box_regression: bool = True,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.3,
        detections_per_image: int = 100,
    ) -> None:
        super().__init__()
        self.num_classes, self.size, self.context = num_classes, size, context
        self.propose, self.normalize = propose, normalize
        self.svm, self.box_regression = svm, box_regression
        self.score_threshold, self.nms_threshold = score_threshold, nms_threshold
        self.detections_per_image = detections_per_image
        self.backbone = backbone
        pool5 = pool5_length(backbone, size)
        self.fc = nn.Linear(pool5, hidden)
        self.classifier = nn.Linear(hidden, num_classes)
        nn.init.normal_(self.classifier.weight, std=0.01)  # at first all classes are about equally likely
        self.register_buffer("svm_weights", np.zeros((num_classes - 1, hidden + 1), np.float32))
        self.register_buffer("box_weights", np.zeros((num_classes - 1, 4, pool5 + 1), np.float32))

    def forward(self, images: Any, targets: list[dict] | None = None) -> Any:
        truth = checked_targets(targets, len(images), self.num_classes - 1) if self.training else []
        proposals = [proposals_of(target, image, self.propose) for image, target in with_targets(images, targets)]
        watch.emit("rcnn.proposals", proposals)
        if self.training:
            return self.losses(images, proposals, truth)
        return [self.detect(image, boxes) for image, boxes in zip(images, proposals, strict=True)]

    # ---- the network, on regions

    def warp(self, image: Any, boxes: np.ndarray) -> Any:
        """Regions of an image (3, H, W), a Tensor, warped: (P, 3, size, size)."""
        regions = kernels.region_warp(to_numpy(image.data), boxes, self.size, self.context)
        return Tensor(on_device_of(regions, image.data))

    def features(self, regions: Any) -> tuple[Any, Any]:
        """(P, 3, size, size) -> pool5 (P, C * cells) and the features (P, D) that classes are told apart by."""
        pool5 = self.backbone(self.normalize(regions)).flatten(1)
        return pool5, F.relu(self.fc(pool5))

    # ---- fine-tuning

    def losses(self, images: Any, proposals: list[np.ndarray], targets: list[dict]) -> dict[str, Any]:
        """Softmax cross-entropy over regions of all images together. targets: as checked_targets makes them."""
        chosen = sample_regions(proposals, targets)
        watch.emit("rcnn.sampled", chosen)
        labels = np.concatenate([labels for _, labels in chosen])
        if len(labels) == 0:  # neither objects nor proposals: nothing to learn, and batch norm has no statistics
            return {"loss_classifier": self.classifier.weight.sum() * 0}
        warped = [self.warp(image, boxes) for image, (boxes, _) in zip(images, chosen, strict=True) if len(boxes)]
        regions = F.concatenate(warped, 0)  # (128, 3, size, size)
        watch.emit("rcnn.regions", regions)
        _, features = self.features(regions)
        logits = self.classifier(features)  # (128, K + 1)
        watch.emit("rcnn.logits", logits)
        return {"loss_classifier": F.cross_entropy(logits, labels)}

    # ---- detection

    def detect(self, image: Any, proposals: np.ndarray) -> dict[str, np.ndarray]:
        """The detections among the proposals (P, 4) of one image (3, H, W)."""
        classes = self.num_classes - 1
        scores = np.zeros((len(proposals), classes), np.float32)
        deltas = np.zeros((len(proposals), classes, 4), np.float32)
        for part, pool5, features in self.describe(image, proposals):
            scores[part] = self.scores(features)
            if self.box_regression:
                deltas[part] = self.deltas(pool5)
            watch.emit("rcnn.judged", part)
        watch.emit("rcnn.scores", scores)
        watch.emit("rcnn.deltas", deltas)
        boxes = clip_boxes_to_image(decode_boxes(deltas, proposals), tuple(image.shape[1:]))  # applied once
        return filter_detections(
            boxes, scores, self.score_threshold, self.nms_threshold, self.detections_per_image, LEAST_SIDE
        )

    def describe(self, image: Any, boxes: np.ndarray) -> Iterator[tuple[slice, Any, Any]]:
        """pool5 and features of an image's regions, arrays on the model's device, REGIONS_AT_ONCE at a time, with the
        boxes that they are of."""
        for start in range(0, len(boxes), REGIONS_AT_ONCE):
            part = slice(start, min(start + REGIONS_AT_ONCE, len(boxes)))
            pool5, features = self.features(self.warp(image, boxes[part]))
            watch.emit("rcnn.features", features)
            yield part, pool5.data, features.data

    def scores(self, features: Any) -> np.ndarray:
        """(P, K) in [0, 1] of features (P, D): by the SVMs, or, where these are not wanted or not fitted, softmax."""
        if self.svm and self.svm_weights.any():
            return F.sigmoid(to_numpy(affine(features, self.svm_weights)))
        logits = features @ self.classifier.weight.data.T + self.classifier.bias.data
        return F.softmax(to_numpy(logits), dim=1)[:, 1:]

    def deltas(self, pool5: Any) -> np.ndarray:
        """(P, K, 4) of pool5 (P, C * cells): where a box of each class is, as the box coder says it."""
        classes = len(self.box_weights)
        return to_numpy(affine(pool5, self.box_weights.reshape(classes * 4, -1))).reshape(-1, classes, 4)


def pool5_length(backbone: nn.Module, size: int) -> int:
    """C * h * w, how many numbers the backbone makes of a region of size x size pixels: found by showing it a blank
    one. Raises ValueError for a size that it cannot take."""
    if size < 1:
        raise ValueError(f"RCNN: expected size, of warped regions, from 1 pixel on, got {size}")
    dtype = next((parameter.dtype for parameter in backbone.parameters()), np.dtype(np.float32))
    blank = Tensor(np.zeros((1, 3, size, size), dtype)).to(backbone.device)
    try:
        with nn.evaluating(backbone), no_grad():
            return backbone(blank).flatten(1).shape[1]
    except ValueError as error:
        raise ValueError(
            f"RCNN: expected size, of warped regions, that the backbone can look at, got {size}: {error}"
        ) from error


def affine(x: Any, weights: Any) -> Any:
    """x (P, D) by weights (K, D + 1), the constant term last -> (P, K); arrays."""
    return x @ weights[:, :-1].T + weights[:, -1]


def as_boxes(boxes: Any) -> np.ndarray:
    return np.asarray(boxes, np.float32).reshape(-1, 4)


def sample_regions(proposals: Sequence[np.ndarray], targets: Sequence[dict]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each image the boxes (S_i, 4) that a step looks at, and their labels (S_i,), 0 for background: REGIONS of all
    images together, a quarter of them objects where there are so many.

    proposals: (P_i, 4); the true boxes are regions, too. targets: as checked_targets makes them.
    """
    candidates, labels = [], []
    for boxes, target in zip(proposals, targets, strict=True):
        boxes = np.concatenate([boxes, target["boxes"]])
        matched = match_boxes(box_iou(target["boxes"], boxes), POSITIVE_IOU, POSITIVE_IOU)
        of_image = np.append(target["labels"], 0)[matched]  # BELOW, -1, is the 0
        of_image[(matched == BELOW) & inside_crowds(boxes, target["crowds"])] = -1  # neither
        candidates.append(boxes)
        labels.append(of_image)
    every = np.concatenate(labels)
    kept = np.concatenate(sample_balanced(every > 0, every == 0, REGIONS, POSITIVE_FRACTION, generator()))
    ends = np.cumsum([len(of_image) for of_image in labels])
    chosen = []
    for boxes, of_image, end in zip(candidates, labels, ends, strict=True):
        mine = kept[(kept >= end - len(boxes)) & (kept < end)] - (end - len(boxes))
        chosen.append((boxes[mine], of_image[mine]))
    return chosen
