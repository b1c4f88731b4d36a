"""What R-CNN fits after fine-tuning, on features of all regions of the training images: SVMs and box regressors.

The network looks at each region once. Its features go to files, because of all images together they need not fit into
memory: the paper's took hundreds of gigabytes, at 128 x 128 pixels some hundred megabytes do. Both stages then read
them from there, image by image.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from tqdm import tqdm

from minidet.array_file import sync_folder
from minidet.boxes import BELOW, box_iou, encode_boxes, inside_crowds, match_boxes
from minidet.data.dataset import Dataset, Sample
from minidet.data.files import read_limited, write_atomic
from minidet.data.loader import collate_list
from minidet.device import on_device_of, to_numpy
from minidet.models.box_ridge import MIN_IOU, fit_box_ridge
from minidet.models.hard_negatives import BIAS, MEAN_NORM, ImageRegions, train_svms
from minidet.models.rcnn import RCNN, as_boxes
from minidet.training.step import as_tensors

# Girshick et al. 2014, section 2.3: found by a search over 0 to 0.5 on the validation set; at 0.5 mAP fell by 5 points.
# Regions from here on are no negatives of the class; positives are the true boxes alone, so they are nothing at all.
NEGATIVE_IOU = 0.3

# Numbers on disk. What 11 bits round away, 5e-4 of a number, is far below what a margin is.
STORED = np.float16

ROWS = 4096  # that are in memory at once where all are looked at

MAX_INDEX_BYTES = 1 << 20


@dataclass(frozen=True)
class Regions:
    """What one image gives: boxes (P, 4), the true ones first; true (P,), the label of a true box, else 0; negative
    (P, K), of which classes it is no object; near (P,), the object that a proposal near it learns the box of, or
    BELOW; and the objects' boxes and labels."""

    boxes: np.ndarray
    true: np.ndarray
    negative: np.ndarray
    near: np.ndarray
    objects: np.ndarray
    labels: np.ndarray


def regions_of(sample: Sample, classes: int) -> Regions:
    """By its annotations and proposals. classes: K."""
    crowd = sample.iscrowd
    objects, labels = as_boxes(sample.boxes[~crowd]), sample.labels[~crowd]
    proposals = as_boxes(sample.proposals)
    boxes = np.concatenate([objects, proposals])
    iou = box_iou(objects, boxes)  # (R, P)
    overlap = np.zeros((len(boxes), classes), np.float32)  # with the best object of each class
    for k in range(classes):
        overlap[:, k] = iou[labels == k + 1].max(axis=0, initial=0)
    negative = (overlap < NEGATIVE_IOU) & ~inside_crowds(boxes, as_boxes(sample.boxes[crowd]))[:, None]
    near = match_boxes(iou, MIN_IOU, MIN_IOU)
    near[: len(objects)] = BELOW  # proposals alone: a true box would teach that boxes are right already
    true = np.zeros(len(boxes), np.int64)
    true[: len(objects)] = labels
    return Regions(boxes, true, negative, near, objects, labels)


# ---- features on disk


class FeatureFiles:
    """Features of all regions, in files of a folder: fc7.npy (regions, D), and pool5.npy (regions near an object, D'),
    one image after the other. regions.json, written last, says what they are of and their SHA-256."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = {name: folder / f"{name}.npy" for name in ("fc7", "pool5")}
        self.index = folder / "regions.json"

    def are_of(self, key: str) -> bool:
        """Whether they are there, of that key, and every byte as it was written."""
        if not self.index.is_file() or not all(path.is_file() for path in self.paths.values()):
            return False
        try:
            return json.loads(read_limited(self.index, MAX_INDEX_BYTES)) == {"key": key, "sha256": self.digests()}
        except ValueError:
            return False

    def write(self, key: str, model: RCNN, samples: Dataset, regions: list[Regions]) -> None:
        """Computes and writes them. The files have other names until they are whole."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.index.unlink(missing_ok=True)
        rows = {"fc7": sum(len(r.boxes) for r in regions), "pool5": sum(int((r.near >= 0).sum()) for r in regions)}
        width = {"fc7": model.fc.weight.shape[0], "pool5": model.fc.weight.shape[1]}
        unfinished = {name: self.folder / f"{name}.unfinished" for name in rows}
        files = {
            name: open_memmap(path, mode="w+", dtype=STORED, shape=(rows[name], width[name]))
            for name, path in unfinished.items()
        }
        filled = dict.fromkeys(rows, 0)
        for number, of_image in enumerate(tqdm(regions, "features of regions", disable=None, leave=False)):
            (image,) = as_tensors(collate_list([samples[number]], np.arange(1)).images, model.device)
            for part, pool5, fc7 in model.describe(image, of_image.boxes):
                near = on_device_of(np.flatnonzero(of_image.near[part] >= 0), pool5)
                for name, found in (("fc7", fc7), ("pool5", pool5[near])):
                    files[name][filled[name] : filled[name] + len(found)] = to_numpy(found).astype(STORED)
                    filled[name] += len(found)
        for name, file in files.items():
            file.flush()
            unfinished[name].replace(self.paths[name])
        write_atomic(self.index, json.dumps({"key": key, "sha256": self.digests()}, indent=1) + "\n")
        sync_folder(self.folder)

    def digests(self) -> dict[str, str]:
        digests = {}
        for name, path in self.paths.items():
            with path.open("rb") as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
        return digests

    def read(self, name: str) -> np.ndarray:
        """The rows of one of the files; they stay on disk until they are looked at."""
        return np.load(self.paths[name], mmap_mode="r", allow_pickle=False)

    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.paths.values())

    def remove(self) -> None:
        shutil.rmtree(self.folder)  # with what a crash may have left


def key_of(model: RCNN, samples: Dataset) -> str:
    """A digest of all that features depend on but code, as model.normalize is: weights, images, and boxes."""
    digest = hashlib.sha256(repr((model.size, model.context, STORED.__name__)).encode())
    for name, array in model.state_dict().items():
        if not name.endswith(("svm_weights", "box_weights")):
            digest.update(name.encode() + np.ascontiguousarray(to_numpy(array)).tobytes())
    for sample in samples:
        for array in (sample.image, sample.boxes, sample.labels, sample.iscrowd, sample.proposals):
            digest.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


# ---- the stages


def complete(model: RCNN, samples: Dataset, folder: Path) -> dict[str, int]:
    """Fills the model's svm_weights and box_weights, those that it wants, of samples with proposals; the model is in
    evaluation mode.

    The features' files are below `folder` while it works: after a crash they are taken up again. Returns how many
    bytes and regions there were, and the negatives that were hard, of all classes together.
    """
    classes = model.num_classes - 1
    regions = [regions_of(sample, classes) for sample in samples]
    files, key = FeatureFiles(folder / "features"), key_of(model, samples)
    if not files.are_of(key):
        files.write(key, model, samples, regions)
    told = {"bytes": files.bytes(), "regions": sum(len(of_image.boxes) for of_image in regions)}
    told["hard_negatives"] = fit_svms(model, files.read("fc7"), regions) if model.svm else 0
    if model.box_regression:
        fit_boxes(model, files.read("pool5"), regions)
    files.remove()
    return told


def fit_svms(model: RCNN, stored: np.ndarray, regions: list[Regions]) -> int:
    """One SVM a class, on features scaled to a mean length of 20; the scale goes into the weights. Returns how many
    negatives are in the caches."""
    scale = scale_of(stored)
    true = np.concatenate([of_image.true for of_image in regions])
    positives = [stored[true == k + 1].astype(np.float32) * scale for k in range(model.num_classes - 1)]
    svms = train_svms(positives, _by_image(stored, scale, regions))
    weights = np.stack([svm.weights for svm in svms])
    weights[:, :-1] *= scale
    weights[:, -1] *= BIAS
    model.svm_weights[...] = on_device_of(weights.astype(np.float32), model.svm_weights)
    return sum(len(svm.features) - svm.count for svm in svms)


def fit_boxes(model: RCNN, stored: np.ndarray, regions: list[Regions]) -> None:
    """One ridge regression a class, on regions that overlap with an object of it by at least MIN_IOU."""
    scale = scale_of(stored)
    near = [of_image.near >= 0 for of_image in regions]
    objects = [of_image.near[mine] for of_image, mine in zip(regions, near, strict=True)]
    labels = np.concatenate([r.labels[found] for r, found in zip(regions, objects, strict=True)])
    goals = np.concatenate([r.objects[found] for r, found in zip(regions, objects, strict=True)])
    targets = encode_boxes(goals, np.concatenate([r.boxes[mine] for r, mine in zip(regions, near, strict=True)]))
    for k in range(model.num_classes - 1):
        mine = labels == k + 1
        weights = fit_box_ridge(stored[mine].astype(np.float32) * scale, targets[mine])
        weights[:, :-1] *= scale
        model.box_weights[k] = on_device_of(weights.astype(np.float32), model.box_weights)


def scale_of(stored: np.ndarray) -> np.float32:
    """What rows (N, D) are multiplied by, so that their mean length is MEAN_NORM."""
    blocks = (stored[start : start + ROWS].astype(np.float32) for start in range(0, len(stored), ROWS))
    total = sum(float(np.linalg.norm(block, axis=1).sum()) for block in blocks)
    return np.float32(MEAN_NORM * len(stored) / total if total else 1)


def _by_image(stored: np.ndarray, scale: np.float32, regions: list[Regions]) -> Iterator[ImageRegions]:
    start = 0
    for of_image in regions:
        rows = stored[start : (start := start + len(of_image.boxes))]
        yield ImageRegions(rows.astype(np.float32) * scale, of_image.negative)
