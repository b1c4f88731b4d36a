"""The first YOLO (Redmon et al. 2016, "You Only Look Once"): detection as one regression, straight from pixels.

    image, resized to a square -> backbone -> S x S cells -> convolutions -> two fully connected layers
          -> S x S x (5 B + C)

There are no anchors. In each cell B predictors say where a box is and how confident they are, and all of them share one
vector of C class probabilities. Of cell (row, column) the numbers x, y, u, v, p of a predictor mean the box

    centre ((column + x) / S, (row + y) / S)     width u^2     height v^2                    parts of the image's sides

so that u and v are the roots that the loss compares, and no negative number is ever under a root; and p is its
confidence: how much the box overlaps with an object, if there is one.

An object belongs to the cell that its centre lies in. Of that cell's predictors one is responsible: whose box overlaps
with the object most. With 1_obj for those, 1_cell for cells with an object, 1_noobj for all other predictors, and IoU
for the overlap, the loss of an image is (equation 3)

      5   sum 1_obj  ((x - x')^2 + (y - y')^2)             loss_xy
    + 5   sum 1_obj  ((u - sqrt w')^2 + (v - sqrt h')^2)   loss_wh
    +     sum 1_obj  (p - IoU)^2                           loss_objectness
    + 0.5 sum 1_noobj p^2                                  loss_noobj
    +     sum 1_cell sum over classes (P(c) - P'(c))^2     loss_classifier
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from .. import nn, watch
from ..boxes import LEAST_SIDE, box_convert, clip_boxes_to_image, filter_detections, inside_crowds, paired_iou
from ..device import on_device_of, to_numpy
from .image_batch import ImageBatch, batch_images, detection_targets, unchanged
from .yolo import SLOPE, centers_and_cells, unit

# Section 2.2. COORD: an error of place counts more than one of class. NOOBJ: most cells have no object; if they counted
# as much, they would push all confidences to 0 and training could diverge.
COORD, NOOBJ = 5.0, 0.5
DROPOUT = 0.5  # between the fully connected layers (section 2.2)


class Responsible(NamedTuple):
    """What one image teaches, for each of its P cells with an object: the cell's index, that of its responsible
    predictor, the targets (P, 4) of x, y, u, v, its confidence, and the label; and which boxes (S S, B) lie in a crowd,
    which teach nothing."""

    cells: np.ndarray
    predictors: np.ndarray
    targets: np.ndarray
    confidences: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray


class YOLOv1(nn.Module):
    """images -> detections.

    backbone      images (N, 3, H, W) -> a feature map, with out_channels and stride
    num_classes   C + 1, with the background: it has a number, 0, but no output
    size          pixels of the square that each image is resized to, whatever its shape: S = size / backbone.stride
    predictors    B, boxes of a cell
    hidden        units of the first fully connected layer
    convolutions  how many of 3 x 3 behind the backbone, with batch norm, which came with the next YOLO; channels: of
                  each (section 2.2)
    fully_connected   on: two fully connected layers at the end, as in the paper, which learn each cell by itself, from
                  the objects that have lain in it; off: a 1 x 1 convolution, the same for all cells, learns sooner
    normalize     what is done to images (1, 3, h, w) first; a TinyBackbone centres them itself
    score_threshold, nms_threshold, detections_per_image   of what is found

    Training: model(images, targets) -> the five losses. targets: dicts with boxes (R, 4), labels (R,) in 1..C and
    iscrowd (R,), on the CPU, in pixels of their image; R may be 0. Evaluation: model(images) -> a dict an image with
    boxes (D, 4), labels (D,) and scores (D,), on the CPU.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        size: int = 448,
        predictors: int = 2,
        hidden: int = 4096,
        convolutions: int = 4,
        channels: int = 1024,
        fully_connected: bool = True,
        normalize: Callable[[Any], Any] = unchanged,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        detections_per_image: int = 100,
    ) -> None:
        super().__init__()
        if size < 1 or size % backbone.stride:
            raise ValueError(
                f"YOLOv1: expected a size that is a multiple of the backbone's stride {backbone.stride}, got {size}"
            )
        self.num_classes, self.size, self.predictors = num_classes, size, predictors
        self.cells = size // backbone.stride  # S
        self.corners = np.float32([[(x, y)] for y, x in np.ndindex(self.cells, self.cells)])  # (S S, 1, 2), in cells
        self.normalize = normalize
        self.score_threshold, self.nms_threshold = score_threshold, nms_threshold
        self.detections_per_image = detections_per_image
        self.backbone = backbone
        widths = [backbone.out_channels, *[channels] * convolutions]
        outputs = 5 * predictors + num_classes - 1
        self.head = nn.Sequential(*(unit(*pair) for pair in pairwise(widths)))
        self.fully_connected = fully_connected
        if fully_connected:
            self.outputs = nn.Sequential(
                nn.Flatten(),
                nn.Linear(widths[-1] * self.cells**2, hidden),
                nn.LeakyReLU(SLOPE),
                nn.Dropout(DROPOUT),
                nn.Linear(hidden, outputs * self.cells**2),
            )
        else:
            self.outputs = nn.Conv2d(widths[-1], outputs, 1)

    def forward(self, images: Any, targets: list[dict] | None = None) -> Any:
        square = self.size, self.size
        batch = batch_images(images, self.normalize, None, None, self.backbone.stride, fixed_size=square)
        truth = detection_targets(targets, batch, self.num_classes - 1) if self.training else []
        maps = self.backbone(batch.tensor)
        watch.emit("backbone.maps", maps)
        outputs = self.outputs(self.head(maps))
        if not self.fully_connected:
            outputs = outputs.transpose(0, 2, 3, 1)  # a cell's numbers side by side
        outputs = outputs.reshape(len(batch), self.cells**2, -1)
        predicted = outputs[..., : 5 * self.predictors].reshape(len(batch), self.cells**2, self.predictors, 5)
        classes = outputs[..., 5 * self.predictors :]  # (N, S S, C)
        watch.emit("yolo.predicted", predicted)
        watch.emit("yolo.classes", classes)
        boxes = self.decode(to_numpy(predicted.data))  # (N, S S, B, 4)
        watch.emit("yolo.boxes", boxes)
        if not self.training:
            return self.detections(to_numpy(predicted.data), to_numpy(classes.data), boxes, batch)
        responsible = [self.assign(*of_image) for of_image in zip(boxes, truth, strict=True)]
        watch.emit("yolo.responsible", responsible)
        return yolo_v1_losses(predicted, classes, responsible)

    def decode(self, predicted: np.ndarray) -> np.ndarray:
        """Boxes (N, S S, B, 4), in pixels of the square, that predicted (N, S S, B, 5) say."""
        centers = (self.corners + predicted[..., :2]) * (self.size / self.cells)
        half_sides = predicted[..., 2:4] ** 2 * (self.size / 2)
        return np.concatenate([centers - half_sides, centers + half_sides], axis=-1).astype(np.float32)

    def detections(
        self, predicted: np.ndarray, classes: np.ndarray, boxes: np.ndarray, batch: ImageBatch
    ) -> list[dict]:
        """Of each image boxes (D, 4) in its own pixels, labels (D,) and scores (D,), best first. A score is the
        confidence times the class's probability (equation 1); both may leave [0, 1], and are held in it."""
        scores = predicted[..., 4:].clip(0, 1) * classes[:, :, None].clip(0, 1)  # (N, S S, B, C)
        found = []
        for image, (of_image, its_scores) in enumerate(zip(boxes, scores, strict=True)):
            clipped = clip_boxes_to_image(of_image.reshape(-1, 4), batch.sizes[image]).astype(scores.dtype, copy=False)
            limits = self.score_threshold, self.nms_threshold, self.detections_per_image
            found.append(filter_detections(clipped, its_scores.reshape(len(clipped), -1), *limits, LEAST_SIDE))
        return batch.to_original(found)

    def assign(self, boxes: np.ndarray, target: dict) -> Responsible:
        """boxes (S S, B, 4): what is predicted now. Of several objects with their centre in one cell the first is
        taken: a cell has one vector of classes."""
        truth = target["boxes"]
        centers, corners = centers_and_cells(truth, self.backbone.stride, (self.size, self.size))
        cells, first = np.unique(corners[:, 1] * self.cells + corners[:, 0], return_index=True)
        truth, candidates = truth[first], boxes[cells]  # (P, 4), (P, B, 4)
        # In pixels of the image: x and y of cells, beside sides of the image, would overlap by chance.
        repeated = np.repeat(truth[:, None], self.predictors, axis=1)
        iou = paired_iou(candidates.reshape(-1, 4), repeated.reshape(-1, 4)).reshape(repeated.shape[:2])
        apart = ((box_convert(candidates, "xyxy", "cxcywh") - box_convert(repeated, "xyxy", "cxcywh")) ** 2).sum(axis=2)
        # Where none overlaps at all, the one whose centre and sides are least wrong (the authors' code).
        predictors = np.where(iou.max(axis=1, initial=0) > 0, iou.argmax(axis=1), apart.argmin(axis=1))
        roots = np.sqrt((truth[:, 2:] - truth[:, :2]) / self.size)
        return Responsible(
            cells,
            predictors,
            np.concatenate([(centers - corners)[first], roots], axis=1).astype(np.float32),
            iou[np.arange(len(cells)), predictors].astype(np.float32),
            target["labels"][first],
            inside_crowds(boxes.reshape(-1, 4), target["crowds"]).reshape(boxes.shape[:2]),
        )


def yolo_v1_losses(predicted: Any, classes: Any, responsible: Sequence[Responsible]) -> dict[str, Any]:
    """Equation 3, the mean over the images. predicted (N, S S, B, 5), classes (N, S S, C)."""
    images, _, _, _ = predicted.shape
    of_image = np.concatenate([np.full(len(one.cells), n) for n, one in enumerate(responsible)])
    *parts, ignored = zip(*responsible, strict=True)
    cells, predictors, targets, confidences, labels = (np.concatenate(part) for part in parts)
    found = predicted[of_image, cells, predictors]  # (P, 5)
    targets, confidences = on_device_of(targets, predicted.data), on_device_of(confidences, predicted.data)
    others = ~np.stack(ignored)
    others[of_image, cells, predictors] = False
    wanted = np.zeros((len(labels), classes.shape[2]), np.float32)
    wanted[np.arange(len(labels)), labels - 1] = 1
    squares = (found[:, :4] - targets) ** 2
    return {
        "loss_xy": squares[:, :2].sum() * (COORD / images),
        "loss_wh": squares[:, 2:].sum() * (COORD / images),
        "loss_objectness": ((found[:, 4] - confidences) ** 2).sum() / images,
        "loss_noobj": (predicted[..., 4][np.nonzero(others)] ** 2).sum() * (NOOBJ / images),
        "loss_classifier": ((classes[of_image, cells] - on_device_of(wanted, classes.data)) ** 2).sum() / images,
    }
