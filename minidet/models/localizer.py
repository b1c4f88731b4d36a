"""Single-object localization: one network that says what the object is and where.

The lecture's simplest solution. A backbone turns the image into a feature map; two heads of fully connected layers
read it: one gives K class scores, the other four numbers, the box. Training needs one scalar, so the two losses are
mixed (the lecture's multi-task loss):

    L(x) = alpha * S(x) + (1 - alpha) * R(x)

S is the softmax cross-entropy of the class, R the regression loss of the box. alpha is a hyper-parameter that changes
the very loss it would be judged by, so it is chosen by another measure: IoU on images that were not trained on.
"""

from typing import Any

import numpy as np

from .. import functional as F
from .. import nn, watch
from ..boxes import box_convert, paired_giou, paired_iou
from ..device import on_device_of, to_numpy

BOX_LOSSES = ("l1", "l2", "smooth_l1", "iou", "giou")

# Where smooth-l1 turns from a parabola into a line, in fractions of the image: 0.05 is 3 pixels of 64. Larger values
# forgive small errors, which are the ones that decide a high IoU.
SMOOTH_L1_BETA = 0.05


class Localizer(nn.Module):
    """images (N, 3, S, S) float32 in [0, 1] -> one class and one box an image.

    backbone    features (N, C, S/stride, S/stride); it says its out_channels and stride
    classes     K, the number of object classes (there is no background: every image shows an object)
    image_size  S: the heads read the whole map, so it is fixed
    alpha       weight of the class loss in (0, 1); 1 - alpha goes to the box
    box_loss    "l1", "l2", "smooth_l1", "iou" (1 - IoU) or "giou" (1 - generalized IoU, which also pulls a box that
                misses its target)

    Training: model(images, targets) -> {"class": alpha S, "box": (1 - alpha) R}; their sum is the lecture's loss.
    targets: dicts with boxes (1, 4) in pixels and labels (1,) in 1..K, arrays on the CPU as the data sets give them.
    Evaluation: model(images) -> dicts with boxes (1, 4), labels (1,), scores (1,) and class_scores (K,), on the CPU.
    """

    def __init__(
        self,
        backbone: nn.Module,
        classes: int,
        image_size: int = 64,
        alpha: float = 0.5,
        box_loss: str = "smooth_l1",
        hidden: int = 256,
    ) -> None:
        super().__init__()
        if not 0 < alpha < 1:
            raise ValueError(
                f"Localizer: expected alpha between 0 and 1, got {alpha}; at an end one head learns nothing"
            )
        if box_loss not in BOX_LOSSES:
            raise ValueError(f"Localizer: expected box_loss among {', '.join(BOX_LOSSES)}, got {box_loss!r}")
        if image_size < 1 or image_size % backbone.stride:
            raise ValueError(
                f"Localizer: expected image_size to be a multiple of the backbone's stride {backbone.stride}, "
                f"got {image_size}"
            )
        self.classes, self.image_size, self.alpha, self.box_loss = classes, image_size, alpha, box_loss
        self.backbone = backbone
        cells = (image_size // backbone.stride) ** 2
        self.class_head = head(backbone.out_channels * cells, hidden, classes)
        self.box_head = head(backbone.out_channels * cells, hidden, 4)
        # Start near the average box: a large first error would throw the backbone off before it has learned anything.
        nn.init.normal_(self.box_head[-1].weight, std=0.01)
        self.box_head[-1].bias.data[...] = (0.5, 0.5, 0.5, 0.5)  # cx, cy, w, h

    def features(self, images: Any) -> Any:
        """images (N, 3, S, S) -> (N, C * cells). Flattened, the map still knows where things are, which an average over
        it would not."""
        if tuple(images.shape[2:]) != (self.image_size, self.image_size):
            raise ValueError(
                f"Localizer: expected images (N, 3, {self.image_size}, {self.image_size}), got {images.shape}; "
                "resize them, or build the model with image_size"
            )
        features = self.backbone(images)  # (N, C, S/stride, S/stride)
        watch.emit("localizer.features", features)
        return features.flatten(1)  # (N, C, S/stride, S/stride) -> (N, C * cells)

    def logits(self, images: Any) -> Any:
        """(N, K), the class scores before the softmax: what heat maps are made of."""
        return self.class_head(self.features(images))

    def forward(self, images: Any, targets: list[dict] | None = None) -> Any:
        flat = self.features(images)
        logits = self.class_head(flat)  # (N, K)
        boxes = box_convert(self.box_head(flat), "cxcywh", "xyxy")  # (N, 4) in fractions of the image
        watch.emit("localizer.logits", logits)
        watch.emit("localizer.boxes", lambda: boxes.data * self.image_size)
        if targets is None:
            return self.predictions(logits, boxes)
        return self.losses(logits, boxes, targets)

    def losses(self, logits: Any, boxes: Any, targets: list[dict]) -> dict[str, Any]:
        """alpha S and (1 - alpha) R, each a mean over the batch."""
        labels, truth = one_object_each(targets, self.classes)
        truth = on_device_of((truth / self.image_size).astype(logits.dtype), logits.data)
        class_loss = F.cross_entropy(logits, labels)
        box_loss = self.regression(boxes, truth)
        return {"class": class_loss * self.alpha, "box": box_loss * (1 - self.alpha)}

    def regression(self, boxes: Any, truth: Any) -> Any:
        """R: how far boxes (N, 4) are from the truth (N, 4), both in fractions of the image."""
        if self.box_loss in ("iou", "giou"):
            overlap = paired_iou if self.box_loss == "iou" else paired_giou
            return 1 - overlap(boxes, truth).mean()
        if self.box_loss == "smooth_l1":
            return F.smooth_l1_loss(boxes, truth, beta=SMOOTH_L1_BETA)
        return F.l1_loss(boxes, truth) if self.box_loss == "l1" else F.mse_loss(boxes, truth)

    def predictions(self, logits: Any, boxes: Any) -> list[dict]:
        """The best class of each image with its probability, and the box in pixels, cut to the image."""
        pixels = np.clip(to_numpy(boxes.data), 0, 1) * self.image_size
        return [{"boxes": pixels[i : i + 1]} | best for i, best in enumerate(best_classes(logits))]


def head(features: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two fully connected layers."""
    return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def best_classes(logits: Any) -> list[dict]:
    """Of scores (N, K) before the softmax: for each image labels (1,) in 1..K, scores (1,), class_scores (K,)."""
    scores = F.softmax(to_numpy(logits.data), dim=1)
    best = scores.argmax(axis=1)
    return [
        {"labels": best[i : i + 1] + 1, "scores": row[best[i], None], "class_scores": row}
        for i, row in enumerate(scores)
    ]


def one_object_each(targets: list[dict], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes (N,) from 0 and boxes (N, 4) of targets with exactly one object each."""
    for position, target in enumerate(targets):
        if len(target["boxes"]) != 1:
            raise ValueError(
                f"Localizer: expected one object an image, got {len(target['boxes'])} in image {position} of a batch; "
                "for several objects use a detector"
            )
    return image_labels("Localizer", targets, classes), np.concatenate([target["boxes"] for target in targets])


def image_labels(model: str, targets: list[dict], classes: int) -> np.ndarray:
    """Classes (N,) from 0 of targets with one label each, in 1..K; nothing else of a target is read. Raises ValueError,
    naming the model, for others."""
    for position, target in enumerate(targets):
        if len(target["labels"]) != 1:
            raise ValueError(
                f"{model}: expected one label an image, got {len(target['labels'])} in image {position} of a batch"
            )
    labels = np.concatenate([target["labels"] for target in targets]) - 1
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"{model}: expected labels 1 to {classes}, got {labels.min() + 1} to {labels.max() + 1}")
    return labels
