"""The data doctor: goes through a whole data set, collects every problem, counts, and draws samples to look at.
What many problems have in common comes first (diagnose.py).

report = check_dataset("scenes", out="check")
print(report); report.ok
"""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from minidet.data.dataset import IMAGE_ENDINGS, Dataset, Sample, find_splits, open_dataset
from minidet.data.diagnose import diagnose
from minidet.data.files import AnnotationError, write_atomic
from minidet.data.formats.record import Record
from minidet.data.images import ImageError
from minidet.data.joints import LSP_JOINTS, LSP_LIMBS
from minidet.data.make import content_digest

SAMPLES_DRAWN = 24  # of each split
TINY_SIDE = 4.0  # boxes with a shorter side, in pixels, are counted in a warning: hardly anything can be learned
MASK_TOLERANCE = 3.0  # pixels between an edge of a box and its mask's; polygons drawn by hand are that exact
PROBLEMS_PRINTED = 30


@dataclass
class SplitReport:
    """What one split holds. box_sides: (R, 2) float64 widths and heights."""

    images: int = 0
    empty: int = 0
    objects: Counter = field(default_factory=Counter)  # by class name, classes without objects included
    crowds: int = 0
    box_sides: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    image_sizes: Counter = field(default_factory=Counter)  # (height, width) -> images


@dataclass
class Report:
    """The result of check_dataset; print it. problems make a data set unfit, warnings are worth a look."""

    folder: Path
    splits: dict[str, SplitReport] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        lines = [f"{self.folder}: {'no problems' if self.ok else _counted(len(self.problems), 'problem')}"]
        for name, split in self.splits.items():
            lines += ["", *_describe(name, split)]
        for title, messages in (("problems", self.problems), ("warnings", self.warnings)):
            if messages:
                lines += ["", f"{title}:", *(f"  {message}" for message in messages[:PROBLEMS_PRINTED])]
            if len(messages) > PROBLEMS_PRINTED:
                lines.append(f"  ... and {len(messages) - PROBLEMS_PRINTED} more")
        lines += [f"picture: {path}" for path in self.pictures]
        return "\n".join(lines)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _describe(name: str, split: SplitReport) -> list[str]:
    total = sum(split.objects.values())
    sizes = ", ".join(f"{w} x {h} ({count})" for (h, w), count in split.image_sizes.most_common(3))
    lines = [
        f"{name}: {split.images} images ({split.empty} without objects), {_counted(total - split.crowds, 'object')}"
    ]
    if split.crowds:
        lines[0] += f", {_counted(split.crowds, 'crowd')}"
    lines.append(f"  image sizes: {sizes}{', ...' if len(split.image_sizes) > 3 else ''}")
    if len(split.box_sides):
        low, middle, high = np.percentile(split.box_sides, [0, 50, 100], axis=0)
        lines.append(
            f"  box width {low[0]:g} to {high[0]:g} (median {middle[0]:g}), "
            f"height {low[1]:g} to {high[1]:g} (median {middle[1]:g})"
        )
    most = max(split.objects.values(), default=0)
    for class_name, count in split.objects.items():
        bar = "#" * round(30 * count / max(most, 1))
        lines.append(f"  {class_name:<14} {count:>7}  {bar}")
    return lines


def check_dataset(folder: Path | str, out: Path | str | None = None, format: str | None = None) -> Report:
    """Check all splits of a data set: annotations, every image, duplicates, and the digest of a generated set.

    Reads everything and stops at nothing; the report lists all problems. out: a folder (made if missing) for report.txt
    and pictures of samples with their boxes or skeletons, one PNG a split; None writes nothing. format: as in
    open_dataset.
    """
    folder = Path(folder)
    report = Report(folder)
    if not folder.is_dir():
        report.problems.append(f"{folder}: expected the folder of a data set, found nothing there")
        return report
    splits = find_splits(folder)
    if not splits:
        report.problems.append(f"{folder}: expected annotation files of COCO, VOC, YOLO, LSP, MPII or CUB, found none")
    seen: dict[str, str] = {}  # digest of an image file -> where it was seen first
    causes, named = [], set()  # paths of the images that annotations name
    for split in splits:
        errors: list[ValueError] = []
        try:
            dataset = open_dataset(folder, split, format, cache_bytes=0, on_problem=errors.append)
        except (AnnotationError, OSError) as error:
            report.problems.extend([*map(str, errors), f"{split}: {error}"])
            continue
        report.problems.extend(map(str, errors))
        causes += [f"{split}: {cause}" for cause in diagnose(folder, split, dataset, errors)]
        report.warnings.extend(_doubtful_labels(folder, split))
        named.update(record.path.resolve() for record in dataset.records)
        drawable = _check_split(report, split, dataset, seen)
        if out is not None and drawable:
            report.pictures.append(_draw(Path(out), split, dataset, drawable))
    report.warnings.extend(_unnamed_images(named))
    _check_classes(report)
    _check_digest(folder, report)
    report.problems[:0] = causes
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        write_atomic(Path(out) / "report.txt", f"{report}\n")
    return report


def _check_split(report: Report, split: str, dataset: Dataset, seen: dict[str, str]) -> list[int]:
    """Read every sample of a split; returns up to SAMPLES_DRAWN indices that can be drawn, evenly spread."""
    result = SplitReport(objects=Counter(dict.fromkeys(dataset.classes[1:], 0)))
    report.splits[split] = result
    if not dataset.records:
        report.problems.append(f"{split}: expected at least one image, found none; add some or remove the split")
    sides, good = [np.zeros((0, 2))], []
    for index, record in enumerate(dataset.records):
        result.images += 1
        where = f"{split}/{record.name}"
        try:
            sample = dataset[index]
        except (ImageError, AnnotationError) as error:
            report.problems.append(str(error))
            continue
        good.append(index)
        digest = hashlib.sha256(record.path.read_bytes()).hexdigest()
        if seen.setdefault(digest, where) != where:
            report.warnings.append(f"{where}: the same picture as {seen[digest]}")
        result.image_sizes[sample.image.shape[:2]] += 1
        result.empty += len(sample.boxes) == 0
        result.crowds += int(sample.iscrowd.sum())
        result.objects.update(dataset.classes[label] for label in sample.labels)
        sides.append(sample.boxes[:, 2:] - sample.boxes[:, :2])
        report.warnings.extend(_doubtful_boxes(where, sample) + _doubtful_masks(where, sample, record))
    result.box_sides = np.concatenate(sides)
    for name, count in result.objects.items():
        if count == 0:
            report.warnings.append(f"{split}: no object of the class {name!r}")
    return [good[i] for i in np.unique(np.linspace(0, len(good) - 1, min(SAMPLES_DRAWN, len(good))).astype(int))]


def _doubtful_boxes(where: str, sample: Sample) -> list[str]:
    messages = []
    sides = sample.boxes[:, 2:] - sample.boxes[:, :2]
    tiny = sides[(sides < TINY_SIDE).any(axis=1)]
    if len(tiny):
        width, height = tiny[tiny.prod(axis=1).argmin()]
        what = "a tiny box," if len(tiny) == 1 else f"{len(tiny)} tiny boxes, the smallest"
        messages.append(f"{where}: {what} {width:g} x {height:g} pixels")
    for box, label in zip(sample.boxes, sample.labels, strict=True):
        if ((sample.boxes == box).all(axis=1) & (sample.labels == label)).sum() > 1:
            messages.append(f"{where}: the same box and label more than once: {box.tolist()}")
    return messages


def _doubtful_masks(where: str, sample: Sample, record: Record) -> list[str]:
    messages = []
    for index, mask in enumerate(sample.masks if sample.masks is not None else ()):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = sample.boxes[index]
        if record.segmentations[index] is not None and not len(rows):
            messages.append(f"{where}: a mask without any pixel; its box is {box.tolist()}")
        if len(rows) and np.abs(box - [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).max() > MASK_TOLERANCE:
            messages.append(f"{where}: box and mask disagree: the box is {box.tolist()}")
    return messages


def _doubtful_labels(folder: Path, split: str) -> list[str]:
    """YOLO takes an image without a label file for one without objects: what may be a mistake instead."""
    labels, images = folder / "labels" / split, folder / "images" / split
    if not (labels.is_dir() and images.is_dir()):
        return []
    names = [path.name for path in sorted(labels.glob("*"))]
    shouted = [name for name in names if name.lower().endswith(".txt") and not name.endswith(".txt")]
    messages = []
    if shouted:
        told = ", ".join(shouted[:3]) + (", ..." if len(shouted) > 3 else "")
        messages.append(f"{labels}: expected the ending .txt, got {told}: not read so, rename what ends like this")
    pictures = {path.stem for path in images.glob("*") if path.suffix.lower() in IMAGE_ENDINGS}
    without = len(pictures - {Path(name).stem for name in names if name.endswith(".txt")})
    if without:
        part = f"{without} of {len(pictures)} images have "
        how_many = f"{'' if without == len(pictures) else part}no label file"
        messages.append(f"{labels}: {how_many}; in YOLO's format an image of {split} without one has no object")
    return messages


def _unnamed_images(named: set[Path]) -> list[str]:
    """COCO's and VOC's annotations name their images; what lies beside these and has no name is not read at all."""
    messages = []
    for folder in sorted({path.parent for path in named}):
        others = sorted(
            path.name for path in folder.iterdir() if path.suffix.lower() in IMAGE_ENDINGS and path not in named
        )
        if others:
            told = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
            messages.append(f"{folder}: no annotation names {_counted(len(others), 'image')}, {told}: not read")
    return messages


def _check_classes(report: Report) -> None:
    classes = {split: ", ".join(result.objects) for split, result in report.splits.items()}
    first = next(iter(classes), None)
    for split, names in classes.items():
        if names != classes[first]:
            report.problems.append(
                f"{split}: expected the classes of {first}, {classes[first]}, got {names}; list them all in "
                "classes.txt, one a line, or in every COCO file"
            )


def _check_digest(folder: Path, report: Report) -> None:
    """A data set of make_dataset says in dataset.json what its files' digest was."""
    if (folder / "unfinished.json").is_file():
        report.problems.append(f"{folder}: making this data set was interrupted; make it again")
    try:
        expected = json.loads((folder / "dataset.json").read_bytes())["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # not one of make_dataset's
    try:
        if expected != content_digest(folder):
            report.problems.append(f"{folder}: the files have changed since the data set was made (sha256 differs)")
    except OSError as error:
        report.problems.append(f"{folder}: expected files that can all be read, as when it was made, but: {error}")


def _draw(out: Path, split: str, dataset: Dataset, indices: list[int]) -> Path:
    from minidet.drawing import draw_boxes, draw_skeleton, grid, save_png, with_crowds

    limbs = LSP_LIMBS if dataset.joint_names == LSP_JOINTS else ()  # what others' joints are connected to is unknown
    pictures = []
    for index in indices:
        sample = dataset[index]
        if sample.keypoints is not None:
            pictures.append(draw_skeleton(sample.image, sample.keypoints, limbs=limbs, names=dataset.joint_names))
        else:
            labels, names = with_crowds(sample.labels, sample.iscrowd, dataset.classes)
            pictures.append(draw_boxes(sample.image, sample.boxes, labels, names=names))
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{split}.png"
    names = [dataset.records[index].name for index in indices]
    save_png(path, grid(pictures, columns=6, captions=names, title=f"{split}: {len(dataset)} images"))
    return path
