"""Data sets on disk: find the annotation files of a folder, read them at once, and each image when it is asked for."""

import copy
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minidet.data.files import AnnotationError, read_limited, read_lines
from minidet.data.formats.coco import read_coco
from minidet.data.formats.cub import SPLITS as CUB_SPLITS
from minidet.data.formats.cub import read_cub
from minidet.data.formats.lsp import read_lsp
from minidet.data.formats.mpii import SPLITS as MPII_SPLITS
from minidet.data.formats.mpii import read_mpii
from minidet.data.formats.record import (
    BACKGROUND,
    Annotations,
    OnProblem,
    Record,
    checked_proposals,
    raise_problem,
    refuse_again,
    set_size,
)
from minidet.data.formats.voc import read_voc
from minidet.data.formats.yolo import read_classes, read_yolo
from minidet.data.images import MAX_PIXELS, ImageError, read_image
from minidet.data.joints import COCO_JOINTS, COCO_SWAP, LSP_JOINTS, LSP_SWAP, MPII_JOINTS, MPII_SWAP
from minidet.data.masks import counts_to_mask, polygons_to_mask

FORMATS = ("coco", "coco-keypoints", "voc", "yolo", "lsp", "mpii", "cub")
MPII_FILE = "mpii_human_pose_v1_u12_1.mat"
SWAPS = {LSP_JOINTS: LSP_SWAP, MPII_JOINTS: MPII_SWAP, COCO_JOINTS: COCO_SWAP}
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg")
CACHE_BYTES = 256 << 20  # decoded images kept in memory by one data set: all of 20,000 at 64 x 64


@dataclass
class Sample:
    """One image and what is in it. R objects.

    image: (H, W, 3) uint8 RGB. boxes: (R, 4) float64 x1 y1 x2 y2, continuous pixel coordinates. labels: (R,) int64
    from 1. masks: (R, H, W) bool or None. keypoints: (R, J, 3) float64 x, y, v or None; a whole number is the centre
    of a pixel. iscrowd, difficult: (R,) bool. areas: (R,) float64. proposals: (P, 4) float64 as boxes, where something
    might be, or None. name: the image's name in the data set. flip_swap: of the data set, for transforms.flip.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None
    keypoints: np.ndarray | None = None
    iscrowd: np.ndarray | None = None
    difficult: np.ndarray | None = None
    areas: np.ndarray | None = None
    proposals: np.ndarray | None = None
    name: str = ""
    flip_swap: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        count = len(self.boxes)
        if self.iscrowd is None:
            self.iscrowd = np.zeros(count, bool)
        if self.difficult is None:
            self.difficult = np.zeros(count, bool)
        if self.areas is None:
            self.areas = (self.boxes[:, 2] - self.boxes[:, 0]) * (self.boxes[:, 3] - self.boxes[:, 1])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image, as a Record has it."""
        return self.image.shape[:2]


@dataclass
class ImageCache:
    """Decoded images by their file, until the room is used up. It is filled and never emptied: in shuffled epochs each
    image is as likely as any other to be next, so throwing one out for another would gain nothing."""

    room: int  # bytes
    images: dict[Path, np.ndarray] = field(default_factory=dict)

    def keep(self, path: Path, image: np.ndarray) -> None:
        if image.nbytes <= self.room:
            self.room -= image.nbytes
            self.images[path] = image


class Dataset:
    """A sequence of samples; `dataset[i]` reads the image from its file, once, while the cache has room.

    classes: names by label, classes[0] = "__background__". joint_names: of the keypoints, or None.
    flip_swap: the joint that each joint becomes in a mirrored image (an index array as LSP_SWAP), or None where
    mirroring changes no joint's name. category_ids: COCO's id of each label from 1 on, or None. format: the one of
    FORMATS that it was read from, "" if it was not.
    The arrays of a sample are the caller's to change, except the image, which is read-only.
    """

    def __init__(
        self,
        annotations: Annotations,
        masks: bool = True,
        cache_bytes: int = CACHE_BYTES,
        max_pixels: int = MAX_PIXELS,
        flip_swap: tuple[int, ...] | None = None,
        format: str = "",
    ):
        self.records = annotations.records
        self.classes = annotations.classes
        self.category_ids = annotations.category_ids
        self.joint_names = annotations.joint_names
        self.flip_swap = flip_swap
        self.format = format
        self._with_masks = masks
        self._max_pixels = max_pixels
        self._cache = ImageCache(cache_bytes)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"expected an index below the data set's {len(self)} samples, got {index}")
        record = self.records[index]
        image = self._image(record)
        return Sample(
            image=image,
            boxes=record.boxes.copy(),
            labels=record.labels.copy(),
            masks=_paint_masks(record, image.shape[:2]) if self._with_masks else None,
            keypoints=None if record.keypoints is None else record.keypoints.copy(),
            iscrowd=record.iscrowd.copy(),
            difficult=record.difficult.copy(),
            areas=record.areas.copy(),
            proposals=_proposals_of(record, image.shape[:2]),
            name=record.name,
            flip_swap=self.flip_swap,
        )

    def verify(self, on_problem: OnProblem = raise_problem) -> None:
        """Read every image now: a broken file is found before the training and not in the middle of an epoch.

        Fills the cache on the way, and the records' sizes where the annotations do not tell them (see _image).
        on_problem: called with every ImageError or AnnotationError; if it returns, the sample is taken out of the data
        set.
        """
        good = []
        for record in self.records:
            try:
                self._image(record)
                good.append(record)
            except (ImageError, AnnotationError) as error:
                on_problem(error)
        self.records = good

    def subset(self, indices: Sequence[int]) -> "Dataset":
        """Some of the samples, in the given order, as a data set of their own; the cache of images is shared."""
        part = copy.copy(self)
        part.records = [self.records[int(index)] for index in indices]
        return part

    def of_classes(self, names: Sequence[str], empty: bool = True) -> "Dataset":
        """The objects of some classes, which have the labels 1, 2, ... in the given order, as a data set of its own;
        the cache of images is shared.

        empty: keep the images without any of them, too. A measurement needs them, because what is detected there is
        wrong; a training on a few of COCO's 80 classes would see little else.
        Raises ValueError for names that are no classes of the data set, or twice, and for none at all.
        """
        names, known = tuple(names), self.classes[1:]
        if not names or len(set(names)) < len(names) or not set(names) <= set(known):
            wrong = [name for name in names if name not in known] or list(names)
            raise ValueError(f"expected some of the classes {', '.join(known)}, each once, got {wrong}")
        old = np.array([self.classes.index(name) for name in names])
        new = np.zeros(len(self.classes), np.int64)
        new[old] = np.arange(1, len(names) + 1)
        part = copy.copy(self)
        part.classes = (BACKGROUND, *names)
        ids = self.category_ids or range(1, len(self.classes))  # so that files of results say whose labels they have
        part.category_ids = tuple(ids[label - 1] for label in old.tolist())
        part.records = [record.select(new[record.labels] > 0) for record in self.records]
        for record in part.records:
            record.labels = new[record.labels]
        if not empty:
            part.records = [record for record in part.records if len(record.labels)]
        return part

    def digest(self) -> str:
        """SHA-256 over the classes, every annotation and every image file: equal for equal data, wherever they lie.
        Proposals do not count: they are made from the images."""
        digest = hashlib.sha256("\0".join(self.classes).encode())
        for record in self.records:
            digest.update(hashlib.sha256(record.path.read_bytes()).digest())
            objects = (record.boxes, record.labels, record.iscrowd, record.difficult, record.areas)
            heads = [] if record.head_boxes is None else [record.head_boxes]
            for part in (record.name, *objects, record.keypoints, heads, record.segmentations):
                digest.update(_as_bytes(part))
        return digest.hexdigest()

    def _image(self, record: Record) -> np.ndarray:
        """The decoded image, from the cache where it is there. Where the annotation does not tell its size, the boxes
        are checked against it and clipped."""
        if record.path in self._cache.images:
            return self._cache.images[record.path]
        image = read_image(record.path, self._max_pixels)
        if record.size is None:
            set_size(record, image.shape[:2])
        if image.shape[:2] != tuple(record.size):
            raise AnnotationError(
                f"{record.path}: expected {record.size[1]} x {record.size[0]} pixels as the annotation says, got "
                f"{image.shape[1]} x {image.shape[0]} (upright, as EXIF says); the boxes would be wrong, fix either"
            )
        image.flags.writeable = False
        self._cache.keep(record.path, image)
        return image


def _as_bytes(part: Any) -> bytes:
    """A part of an annotation, whole: the repr of an array would leave out its middle."""
    if isinstance(part, np.ndarray):
        return f"{part.dtype}{part.shape}".encode() + part.tobytes()
    if isinstance(part, Path):  # a mask in a file of its own
        return hashlib.sha256(part.read_bytes()).digest()
    return b"".join(map(_as_bytes, part)) if isinstance(part, list) else repr(part).encode()


def _proposals_of(record: Record, size: tuple[int, int]) -> np.ndarray | None:
    """(P, 4) float64, a copy, or None where the record has none."""
    if record.proposals is None:
        return None
    return checked_proposals(record.proposals, size, f"{record.path}: proposals")


def _paint_masks(record: Record, size: tuple[int, int]) -> np.ndarray | None:
    """(R, H, W) bool, or None when no object of the image has a mask."""
    if record.segmentations is None or all(s is None for s in record.segmentations):
        return None if record.segmentations is None or len(record.boxes) else np.zeros((0, *size), bool)
    masks = np.zeros((len(record.boxes), *size), bool)
    for mask, segmentation in zip(masks, record.segmentations, strict=True):
        if segmentation is None:
            continue
        if isinstance(segmentation, Path):
            mask[:] = _read_mask(segmentation, size)
        elif isinstance(segmentation, np.ndarray):
            mask[:] = segmentation
        elif isinstance(segmentation[0], np.ndarray):
            mask[:] = polygons_to_mask(segmentation, *size)
        else:
            mask[:] = counts_to_mask(segmentation, *size)
    return masks


def _read_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: the pixels of a picture that are at least half bright."""
    picture = read_image(path)
    if picture.shape[:2] != size:
        raise AnnotationError(
            f"{path}: expected a mask of {size[1]} x {size[0]} pixels as its image, got {picture.shape[1]} x "
            f"{picture.shape[0]}; fix or remove it"
        )
    return picture[..., 0] >= 128


# ---- which files make a data set ----------------------------------------------------------------------------------


def open_dataset(
    folder: Path | str,
    split: str = "train",
    format: str | None = None,
    masks: bool = True,
    on_problem: OnProblem = raise_problem,
    cache_bytes: int = CACHE_BYTES,
    max_pixels: int = MAX_PIXELS,
    joints: bool = False,
) -> Dataset:
    """Open one split of a data set folder. Annotations are read and checked now, images when asked for.

    split: its name. COCO's have a year behind it, which may be left out: "train" opens train2017 where there is no
    train, of several years the latest.

    format: one of FORMATS, or None for the first whose files are there:
      coco            annotations/instances_SPLIT.json, images in images/SPLIT/ or SPLIT/
      coco-keypoints  annotations/person_keypoints_SPLIT.json, images likewise
      voc             voc/SPLIT/*.xml with images/SPLIT/, or ImageSets/Main/SPLIT.txt, Annotations/, JPEGImages/;
                      classes.txt, one name a line, where the classes are not VOC's
      yolo            classes.txt, labels/SPLIT/*.txt, images/SPLIT/
      lsp             lsp/SPLIT/joints.mat with images/SPLIT/, or joints.mat and images/ (one split, any name)
      mpii            mpii_human_pose_v1_u12_1.mat and images/ (splits train, val and test)
      cub             train_test_split.txt, images.txt, image_class_labels.txt, bounding_boxes.txt, classes.txt, images/
                      of CUB-200-2011 (splits train and test); segmentations/ if it is there
    masks: paint the annotated masks into every sample; False saves the time.
    joints: where COCO has both, read person_keypoints and not instances, which know no joints.
    on_problem: called with every AnnotationError. It raises by default; if it returns, the faulty annotation is left
    out, so `on_problem=lambda e: print(e)` opens a data set with known faults.
    Raises FileNotFoundError naming what was looked for when nothing fits.
    """
    folder = Path(folder)
    if format is not None and format not in FORMATS:
        raise ValueError(f"open_dataset: expected format {', '.join(FORMATS)} or None, got {format!r}")
    if not split or "/" in split or "\\" in split or split in (".", ".."):
        raise ValueError(f"open_dataset: expected the name of a split such as 'train', got {split!r}")
    split, looked_for = find_split(folder, split) or split, []
    formats = sorted(FORMATS, key=lambda name: name != "coco-keypoints") if joints else FORMATS
    for name in formats if format is None else (format,):
        annotations = _READERS[name](folder, split, on_problem, looked_for)
        if annotations is not None:
            swap = None if _sides_are_colored(folder) else SWAPS.get(annotations.joint_names)
            return Dataset(annotations, masks, cache_bytes, max_pixels, swap, name)
    raise FileNotFoundError(
        f"open_dataset: no data set with a split {split!r} in {folder.resolve()}; looked for "
        f"{'; '.join(looked_for)}. Splits found: {', '.join(find_splits(folder)) or 'none'}"
    )


def find_splits(folder: Path | str) -> list[str]:
    """Names of all the splits whose annotation files are in the folder."""
    folder = Path(folder)
    names = {path.stem.removeprefix(kind) for kind in ("instances_", "person_keypoints_")
             for path in folder.glob(f"annotations/{kind}*.json")}  # fmt: skip
    names |= {path.name for parent in ("voc", "labels") for path in folder.glob(f"{parent}/*") if path.is_dir()}
    names |= {path.parent.name for path in folder.glob("lsp/*/joints.mat")}
    names |= {path.stem for path in folder.glob("ImageSets/Main/*.txt") if "_" not in path.stem}
    if (folder / "joints.mat").is_file():
        names.add("all")
    if (folder / MPII_FILE).is_file():
        names.update(MPII_SPLITS)
    if (folder / "train_test_split.txt").is_file():
        names |= CUB_SPLITS.keys()
    order = {"train": 0, "val": 1, "test": 2}
    return sorted(names, key=lambda name: (order.get(name, 3), name))


def find_split(folder: Path | str, name: str) -> str | None:
    """The split of that name; where there is none, the latest of that name and a year, as COCO's train2017, whose
    images are there; or None."""
    found = find_splits(folder)
    years = [split for split in found if re.fullmatch(rf"{re.escape(name)}\d{{4}}", split)]
    years = [split for split in years if _image_folder(Path(folder), split)]
    return name if name in found else max(years, default=None)


def list_images(folder: Path) -> list[Path]:
    """The PNG and JPEG files of a folder, by their names' endings, in the order of the names."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_ENDINGS)


def _sides_are_colored(folder: Path) -> bool:
    """Whether dataset.json says that figures wear their right and left as colours, which mirroring does not swap."""
    try:
        return json.loads(read_limited(folder / "dataset.json", 1 << 20)).get("sides_by_color") is True
    except (ValueError, AttributeError):  # none there (AnnotationError is a ValueError), or somebody else's
        return False


def _image_folder(folder: Path, split: str) -> Path | None:
    return next((path for path in (folder / "images" / split, folder / split) if path.is_dir()), None)


def _coco_reader(prefix: str) -> Callable:
    def read(folder: Path, split: str, on_problem: OnProblem, looked_for: list[str]) -> Annotations | None:
        path, images = folder / "annotations" / f"{prefix}_{split}.json", _image_folder(folder, split)
        looked_for.append(f"annotations/{path.name} with images/{split}/ or {split}/")
        return read_coco(path, images, on_problem) if path.is_file() and images else None

    return read


def _read_voc_folder(folder: Path, split: str, on_problem: OnProblem, looked_for: list[str]) -> Annotations | None:
    looked_for.append(f"voc/{split}/*.xml with images/{split}/, or ImageSets/Main/{split}.txt (VOC)")
    own, listing = folder / "voc" / split, folder / "ImageSets" / "Main" / f"{split}.txt"
    classes = read_classes(folder / "classes.txt") if (folder / "classes.txt").is_file() else None
    if own.is_dir() and (folder / "images" / split).is_dir():
        return read_voc(sorted(own.glob("*.xml")), folder / "images" / split, classes, on_problem)
    if not listing.is_file():
        return None
    files, seen = [], {}
    for number, line in enumerate(read_lines(listing, 64 << 20), start=1):
        for name in line.split()[:1]:  # none in an empty line
            try:
                if Path(name).name != name:
                    raise AnnotationError(f"{listing}: expected names of images, one a line, got {name!r}")
                refuse_again(name, seen, f"{listing}: line {number}")
                files.append(folder / "Annotations" / f"{name}.xml")
            except AnnotationError as error:
                on_problem(error)
    return read_voc(files, folder / "JPEGImages", classes, on_problem)


def _read_yolo_folder(folder: Path, split: str, on_problem: OnProblem, looked_for: list[str]) -> Annotations | None:
    looked_for.append(f"labels/{split}/ with images/{split}/ and classes.txt (YOLO)")
    labels, images = folder / "labels" / split, folder / "images" / split
    if not (labels.is_dir() and images.is_dir()):
        return None
    pictures = list_images(images)
    for orphan in sorted({p.stem for p in labels.glob("*.txt")} - {p.stem for p in pictures} - {"classes"}):
        on_problem(
            AnnotationError(f"{orphan}.txt: expected an image {orphan} in {images}, found none; remove the file")
        )
    return read_yolo(pictures, labels, read_classes(folder / "classes.txt"), on_problem)


def _read_lsp_folder(folder: Path, split: str, on_problem: OnProblem, looked_for: list[str]) -> Annotations | None:
    looked_for.append(f"lsp/{split}/joints.mat with images/{split}/, or joints.mat with images/ (LSP)")
    for path, images in (
        (folder / "lsp" / split / "joints.mat", folder / "images" / split),
        (folder / "joints.mat", folder / "images"),
    ):
        if path.is_file() and images.is_dir():
            return read_lsp(path, list_images(images), on_problem)
    return None


def _read_mpii_folder(folder: Path, split: str, on_problem: OnProblem, looked_for: list[str]) -> Annotations | None:
    looked_for.append(f"{MPII_FILE} with images/ (MPII)")
    if split not in MPII_SPLITS or not (folder / MPII_FILE).is_file() or not (folder / "images").is_dir():
        return None
    return read_mpii(folder / MPII_FILE, folder / "images", split, on_problem)


def _read_cub_folder(folder: Path, split: str, on_problem: OnProblem, looked_for: list[str]) -> Annotations | None:
    looked_for.append("train_test_split.txt with images/ (CUB-200-2011)")
    if split not in CUB_SPLITS or not (folder / "train_test_split.txt").is_file():
        return None
    return read_cub(folder, split, on_problem)


_READERS = {
    "coco": _coco_reader("instances"),
    "coco-keypoints": _coco_reader("person_keypoints"),
    "voc": _read_voc_folder,
    "yolo": _read_yolo_folder,
    "lsp": _read_lsp_folder,
    "mpii": _read_mpii_folder,
    "cub": _read_cub_folder,
}
