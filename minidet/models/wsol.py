"""Weakly supervised localization: where the object is, learned from labels that say what it is, and nothing else.

Zhou, Khosla, Lapedriza, Oliva, Torralba: Learning Deep Features for Discriminative Localization, CVPR 2016. Below, f_k
is the k-th map of the last convolution, w_k^c the weight of the only fully connected layer from map k to class c.

    F_k = mean over x, y of f_k(x, y)                        global average pooling (GAP)
                                                             (the lecture sums: a factor h w)
    S_c = sum_k w_k^c F_k + b_c                              the class's score, before the softmax
    M_c(x, y) = sum_k w_k^c f_k(x, y)                        the class activation map (CAM)

Sums can be exchanged: S_c = b_c + mean over x, y of M_c(x, y). So the map says how much each place adds to the score,
and the network that classifies has localized all the while. The box is drawn around what is above 20 % of the map's
maximum (section 3.2).
"""

from typing import Any

import numpy as np

from .. import functional as F
from .. import nn, watch
from ..autograd import no_grad
from ..backbones.tiny import ConvBlock
from ..device import to_numpy
from ..heatmaps.boxes import MODES, ZHOU_THRESHOLD, map_boxes
from ..heatmaps.scores import as_classes
from .localizer import image_labels

# What makes one number of a map. With the mean every place counts, so that the network gains by finding the whole
# object; with the maximum one place is enough, so that it gains nothing beyond the object's most telling part.
POOLINGS = {"gap": F.global_avg_pool2d, "gmp": F.global_max_pool2d}

CAM_CHANNELS = 192  # of the convolution before the pooling; the paper's networks have 1024 for a thousand classes


class WeakLocalizer(nn.Module):
    """images (N, 3, H, W) float32 in [0, 1] -> the class of each image, its map, and a box around where it is high.

    The paper's surgery (section 3): of a classification network the fully connected layers go, and the last stages
    too, so that the map is larger; a convolution of 3x3 follows, the pooling, one fully connected layer.

    backbone      features (N, C, H/stride, W/stride); it says its out_channels and stride
    classes       K, the number of object classes (there is no background: every image shows an object)
    image_size    height and width of the images that it is trained and evaluated on; it computes any
    pooling       "gap", the mean of each map, or "gmp", its maximum
    cam_channels  units of the convolution
    threshold, mode  what of the map is inside the box: see heatmaps.map_boxes

    Training: model(images, targets) -> {"class": softmax cross-entropy}. targets: dicts with labels (1,) in 1..K, on
    the CPU; boxes that they may have are not read.
    Evaluation: model(images) -> as `localize` says, for the class that has the best score.
    """

    def __init__(
        self,
        backbone: nn.Module,
        classes: int,
        image_size: int = 64,
        pooling: str = "gap",
        cam_channels: int = CAM_CHANNELS,
        threshold: float = ZHOU_THRESHOLD,
        mode: str = "fraction_of_max",
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"WeakLocalizer: expected pooling among {', '.join(POOLINGS)}, got {pooling!r}")
        if mode not in MODES:
            raise ValueError(f"WeakLocalizer: expected mode among {', '.join(MODES)}, got {mode!r}")
        if not 0 <= threshold < 1:
            raise ValueError(f"WeakLocalizer: expected a threshold of at least 0 and below 1, got {threshold}")
        self.classes, self.image_size, self.pooling = classes, image_size, pooling
        self.threshold, self.mode = threshold, mode
        self.backbone = backbone
        self.convolution = ConvBlock(backbone.out_channels, cam_channels)
        self.fc = nn.Linear(cam_channels, classes)

    def features(self, images: Any) -> Any:
        """f: the maps (N, cam_channels, H/stride, W/stride) that are pooled, none below 0."""
        return self.convolution(self.backbone(images))

    def scores(self, features: Any) -> Any:
        """S: scores (N, K) of the classes, of features."""
        logits = self.fc(POOLINGS[self.pooling](features))
        watch.emit("wsol.logits", logits)
        return logits

    def logits(self, images: Any) -> Any:
        """S: scores (N, K) of the classes, before the softmax."""
        return self.scores(self.features(images))

    def forward(self, images: Any, targets: list[dict] | None = None) -> Any:
        if targets is None:
            return self.localize(images)
        logits = self.logits(images)
        return {"class": F.cross_entropy(logits, image_labels("WeakLocalizer", targets, self.classes))}

    def class_maps(self, features: Any, class_index: np.ndarray) -> Any:
        """M: of features (N, C, h, w), the maps (N, n, h, w) of n classes an image, class_index (N, n) from 0. No ReLU
        and no bias: places that speak against a class are below 0."""
        weights = self.fc.weight[class_index]  # (N, n, C)
        return (weights @ features.flatten(2)).reshape(*class_index.shape, *features.shape[2:])

    def localize(self, images: Any, class_index: Any = None) -> list[dict]:
        """Localizes in each image the class class_index, an int or (N,), counted from 0; by default the one with the
        best score. A dict an image, as `predictions` says."""
        with no_grad():
            features = self.features(images)
            logits = self.scores(features)
        classes = as_classes(class_index, logits)[:, None]  # (N, 1)
        return self.predictions(features, logits, classes, tuple(images.shape[2:]))

    def predictions(self, features: Any, logits: Any, class_index: np.ndarray, size: tuple[int, int]) -> list[dict]:
        """Of features (N, C, h, w) and scores (N, K), for classes (N, n) from 0 and images of size (H, W), a dict an
        image with arrays on the CPU:

        labels (n,) in 1..K, the classes; scores (n,), their probabilities; class_scores (K,), all of them;
        maps (n, H, W) float32, their activation maps, resized; boxes (n, 4) in pixels, zeros where a map has
        nothing above the threshold.
        """
        with no_grad():
            maps = F.interpolate(self.class_maps(features, class_index), size, mode="bilinear")  # (N, n, H, W)
        maps = to_numpy(maps.data)
        boxes = map_boxes(maps.reshape(-1, *size), self.threshold, self.mode).reshape(*class_index.shape, 4)
        watch.emit("wsol.maps", maps)
        watch.emit("wsol.boxes", boxes)
        scores = F.softmax(to_numpy(logits.data), dim=1)
        return [
            {"labels": c + 1, "scores": row[c], "class_scores": row, "maps": of_image, "boxes": around}
            for c, row, of_image, around in zip(class_index, scores, maps, boxes, strict=True)
        ]
