"""Image classification: what a backbone is trained on before it is asked where things are.

A backbone, global average pooling, one fully connected layer. The lecture's systems take the trained backbone over and
put heads of their own on it.
"""

from typing import Any

from .. import functional as F
from .. import nn, watch
from .localizer import best_classes, image_labels


class Classifier(nn.Module):
    """images (N, 3, H, W) float32 in [0, 1] -> one of K classes an image.

    image_size: height and width of the images that it is trained and evaluated on; it computes any.

    Training: model(images, targets) -> {"class": softmax cross-entropy}. targets: dicts with labels (1,) in 1..K, on
    the CPU; boxes that they may have are not read.
    Evaluation: model(images) -> dicts with labels (1,) in 1..K, scores (1,) and class_scores (K,).
    logits(images) -> (N, K), the scores before the softmax: what heat maps are made of.
    """

    def __init__(self, backbone: nn.Module, classes: int, image_size: int = 64) -> None:
        super().__init__()
        self.classes, self.image_size = classes, image_size
        self.backbone = backbone
        self.fc = nn.Linear(backbone.out_channels, classes)

    def logits(self, images: Any) -> Any:
        features = self.backbone(images)  # (N, C, H/stride, W/stride)
        return self.fc(F.global_avg_pool2d(features))  # (N, C) -> (N, K)

    def forward(self, images: Any, targets: list[dict] | None = None) -> Any:
        logits = self.logits(images)
        watch.emit("classifier.logits", logits)
        if targets is not None:
            return {"class": F.cross_entropy(logits, image_labels("Classifier", targets, self.classes))}
        return best_classes(logits)
