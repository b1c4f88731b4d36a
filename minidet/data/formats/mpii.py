"""MPII Human Pose's annotation file, mpii_human_pose_v1_u12_1.mat: many people an image, 16 joints each.

Its one variable RELEASE holds annolist and img_train, an entry an image. annolist(n).image.name is the file's name, and
annolist(n).annorect(p) a person: annopoints.point(k) with id (0 to 15, see joints.MPII_JOINTS), x, y and is_visible;
the head's box x1, y1, x2, y2; objpos, roughly the middle of the person, and scale, the person's height in 200 pixels.
Coordinates count from 1, as MATLAB does; here the first pixel's centre is 0.

In images of the test split, and for some people in the background, there is less: people without joints, place or scale
are left out, and so are images without any people.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minidet.data.files import AnnotationError
from minidet.data.formats.matlab import open_matlab
from minidet.data.formats.record import (
    BACKGROUND,
    LARGEST_NUMBER,
    Annotations,
    OnProblem,
    Record,
    checked_path,
    fill,
    raise_problem,
    refuse_again,
)
from minidet.data.images import ImageError, image_size
from minidet.data.joints import HIDDEN, MPII_JOINTS, NOT_LABELLED, VISIBLE

MAX_BYTES = 512 << 20  # the published file has 13 MB, and 120 MB decompressed

SCALE_PIXELS = 200  # a person of scale 1 is so high (the data set's own definition)

# The joints of the test split (img_train 0) are not published, and a split to validate on is not either: every tenth
# training image.
SPLITS = ("train", "val", "test")
VALIDATION_STEP = 10


@dataclass
class MpiiAnnotations(Annotations):
    """centers (P, 2) and scales (P,) by the image's name, as the file has them but for the counting from 1."""

    centers: dict[str, np.ndarray] = field(default_factory=dict)
    scales: dict[str, np.ndarray] = field(default_factory=dict)


def read_mpii(
    path: Path | str,
    image_folder: Path | str,
    split: str = "train",
    on_problem: OnProblem = raise_problem,
    max_bytes: int = MAX_BYTES,
) -> MpiiAnnotations:
    """Read and check the people of the split "train", "val" or "test". on_problem: as in read_coco.

    A person's box, which the file has not, is the square of 200 * scale pixels around objpos, together with the
    labelled joints, clipped to the image. An is_visible of 0 means a hidden joint, and so does none at all, which the
    file has for heads.
    """
    if split not in SPLITS:
        raise ValueError(f"read_mpii: expected split {', '.join(SPLITS)}, got {split!r}")
    path, image_folder = Path(path), Path(image_folder)
    images, in_training = _load(path, max_bytes)
    result = MpiiAnnotations([], (BACKGROUND, "person"), joint_names=MPII_JOINTS)
    seen: dict[Any, str] = {}
    in_order = 0  # training images so far
    for number, (image, flag) in enumerate(zip(images, in_training, strict=True)):
        where = f"{path.name}: annolist[{number}]"
        try:
            training = _number(flag, f"{path.name}: img_train[{number}]") == 1
            in_order += training
            if split != ("test" if not training else "train" if in_order % VALIDATION_STEP else "val"):
                continue
            people = list(_people(image, where))
            if people:
                _add(
                    result,
                    _field(_field(image, "image", where), "name", f"{where}.image"),
                    image_folder,
                    people,
                    where,
                    seen,
                )
        except (AnnotationError, ImageError) as error:
            on_problem(error if isinstance(error, AnnotationError) else AnnotationError(f"{where}.image.name: {error}"))
    return result


def _load(path: Path, max_bytes: int) -> tuple[list, list]:
    """annolist and img_train, an entry an image. scipy makes plain objects of MATLAB's structs, and runs nothing."""
    from scipy.io import loadmat

    with open_matlab(path, max_bytes) as file:
        release = loadmat(file, variable_names=["RELEASE"], struct_as_record=False, squeeze_me=True).get("RELEASE")
    if release is None:
        raise AnnotationError(f"{path}: expected the variable RELEASE, found none; is it MPII's annotation file?")
    images, in_training = (
        _entries(_field(release, name, f"{path.name}: RELEASE")) for name in ("annolist", "img_train")
    )
    if len(images) != len(in_training):
        raise AnnotationError(
            f"{path.name}: RELEASE.img_train: expected one flag an image, got {len(in_training)} for {len(images)}"
        )
    return images, in_training


def _people(image: Any, where: str) -> Iterator[dict]:
    """The people of one image who have joints, a place and a scale, checked."""
    for number, person in enumerate(_entries(getattr(image, "annorect", None))):
        here = f"{where}.annorect[{number}]"
        points = _entries(getattr(getattr(person, "annopoints", None), "point", None))
        position, scale = getattr(person, "objpos", None), getattr(person, "scale", ())
        if not points or not hasattr(position, "_fieldnames") or np.size(scale) == 0:
            continue
        scale = _number(scale, f"{here}.scale")
        if not scale > 0:
            raise AnnotationError(f"{here}.scale: expected a scale > 0, got {scale:g}; fix or remove the person")
        center = [_coordinate(position, axis, f"{here}.objpos") for axis in "xy"]
        has_head = all(np.size(getattr(person, corner, ())) for corner in ("x1", "y1", "x2", "y2"))
        # From pixel centre to pixel centre: x2 - x1 wide, as MPII's own evaluation measures heads, and not one more.
        head = [_coordinate(person, corner, here) for corner in ("x1", "y1", "x2", "y2")] if has_head else [np.nan] * 4
        yield {
            "keypoints": _joints(points, f"{here}.annopoints"),
            "center": np.array(center),
            "scale": scale,
            "head": np.add(head, 0.5),
        }


def _joints(points: Sequence[Any], where: str) -> np.ndarray:
    """(16, 3) x, y, v of the listed points; a joint that is not among them is not labelled."""
    joints, seen = np.zeros((len(MPII_JOINTS), 3)), {}
    for number, point in enumerate(points):
        here = f"{where}.point[{number}]"
        identity = _number(_field(point, "id", here), f"{here}.id")
        if identity not in range(len(MPII_JOINTS)):
            raise AnnotationError(f"{here}.id: expected a joint 0 to {len(MPII_JOINTS) - 1}, got {identity:g}")
        refuse_again(int(identity), seen, f"{here}.id", "every joint once")
        seen[int(identity)] = here
        flag = getattr(point, "is_visible", ())
        visible = np.size(flag) == 1 and _number(flag, f"{here}.is_visible") == 1
        joints[int(identity)] = (*(_coordinate(point, axis, here) for axis in "xy"), VISIBLE if visible else HIDDEN)
    return joints


def _add(result: MpiiAnnotations, name: Any, folder: Path, people: list[dict], where: str, seen: dict) -> None:
    """One image's people, as a record."""
    path = checked_path(folder, name, f"{where}.image.name")
    refuse_again(path, seen, f"{where}.image.name")
    height, width = size = image_size(path)
    boxes = []
    for number, person in enumerate(people):
        labelled = person["keypoints"][person["keypoints"][:, 2] > NOT_LABELLED, :2]
        half = person["scale"] * SCALE_PIXELS / 2
        low = np.minimum(person["center"] + 0.5 - half, labelled.min(axis=0))
        high = np.maximum(person["center"] + 0.5 + half, labelled.max(axis=0) + 1)
        box = np.clip([*low, *high], 0, [width, height, width, height])
        outside = (labelled < -half).any() or (labelled > [width + half, height + half]).any()
        if outside or (box[2:] <= box[:2]).any():
            raise AnnotationError(
                f"{where}.annorect[{number}]: expected a person inside the {width} x {height} image, got joints at "
                f"x, y {labelled.min(axis=0)} to {labelled.max(axis=0)}, objpos {person['center']}; fix or remove it"
            )
        boxes.append(box)
    record = fill(Record(path, name, size), [{"box": box, "label": 1} for box in boxes])
    record.keypoints = np.stack([person["keypoints"] for person in people])
    record.head_boxes = np.stack([person["head"] for person in people])
    result.records.append(record)
    result.centers[name] = np.stack([person["center"] for person in people])
    result.scales[name] = np.array([person["scale"] for person in people])


def _entries(value: Any) -> list:
    """A MATLAB array of structs as a list: squeezed, scipy gives one entry as itself, and none as an empty array."""
    if value is None:
        return []
    if isinstance(value, np.ndarray):
        return list(value.ravel())
    return [value]


def _field(struct: Any, name: str, where: str) -> Any:
    if not hasattr(struct, name):
        raise AnnotationError(f"{where}.{name}: expected this field, but it is missing; is it MPII's annotation file?")
    return getattr(struct, name)


def _number(value: Any, where: str) -> float:
    """One finite number; the file writes some of them as text."""
    try:
        number = float(np.asarray(value).item())
    except (TypeError, ValueError):
        number = np.nan
    if not abs(number) <= LARGEST_NUMBER:
        raise AnnotationError(f"{where}: expected a finite number, got {value!r:.40}; fix or remove it")
    return number


def _coordinate(struct: Any, name: str, where: str) -> float:
    """A coordinate, counted from 0."""
    return _number(_field(struct, name, where), f"{where}.{name}") - 1
