"""Detections as COCO's result files, which its server and pycocotools read (cocodataset.org, "Results format").

A JSON list with one entry a detection: image_id, category_id, score, and what was detected,

    boxes      "bbox": [x, y, width, height] in continuous pixels
    masks      "segmentation": {"size": [height, width], "counts": run lengths down the columns}, packed into text as
               pycocotools wants them; plain numbers are read too
    keypoints  "keypoints": [x, y, v, x, y, v, ...], whatever number v is

each kind in a file of its own: in one with boxes pycocotools would take their areas for those of masks and people.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..data.files import AnnotationError, read_limited, write_atomic
from ..data.formats.record import finite_number
from ..data.masks import counts_to_mask, mask_to_counts, pack_counts, unpack_counts
from .overlaps import BOXES, KEYPOINTS, KINDS, MASKS

MAX_BYTES = 2 << 30  # a hundred boxes for each of the 40,000 images of COCO's test take 0.5 GB
FIELDS = {BOXES: "bbox", MASKS: "segmentation", KEYPOINTS: "keypoints"}


def write_results(
    path: Path | str,
    predictions: Sequence[Mapping[str, Any]],
    image_ids: Sequence[int | str],
    category_ids: Sequence[int],
    kind: str = BOXES,
) -> None:
    """predictions: one dictionary an image, as for `evaluate_coco`; image_ids: COCO's id of each image; category_ids:
    of each label from 1 on. Raises ValueError for other counts, labels without an id, and an unknown kind."""
    if kind not in KINDS:
        raise ValueError(f"write_results: expected kind {', '.join(KINDS)}, got {kind!r}")
    if len(image_ids) != len(predictions):
        raise ValueError(f"write_results: expected an id an image, got {len(image_ids)} for {len(predictions)}")
    entries = []
    for number, (image_id, found) in enumerate(zip(image_ids, predictions, strict=True)):
        identity = image_id if isinstance(image_id, str) else int(image_id)  # json takes none of NumPy's
        labels = np.asarray(found["labels"])
        if len(labels) and not 1 <= labels.min() <= labels.max() <= len(category_ids):
            raise ValueError(
                f"write_results: expected labels from 1 to {len(category_ids)}, the number of category_ids, got "
                f"{labels.min()} to {labels.max()} in predictions[{number}]"
            )
        if not np.isfinite(found["scores"]).all():
            raise ValueError(f"write_results: expected finite scores, got others in predictions[{number}]")
        for label, score, shape in zip(labels, found["scores"], found[kind], strict=True):
            entry = {"image_id": identity, "category_id": int(category_ids[label - 1]), "score": float(score)}
            entries.append(entry | {FIELDS[kind]: _to_json(kind, np.asarray(shape))})
    write_atomic(path, json.dumps(entries, allow_nan=False))


def _to_json(kind: str, shape: np.ndarray) -> Any:
    if kind == MASKS:
        return {"size": list(shape.shape), "counts": pack_counts(mask_to_counts(shape))}
    if kind == KEYPOINTS:
        return shape.astype(np.float64).ravel().tolist()
    x1, y1, x2, y2 = shape.astype(np.float64).tolist()
    return [x1, y1, x2 - x1, y2 - y1]


def ids_of(dataset: Dataset) -> list[int | str]:
    """The ids of the data set's images: COCO's where its file has them, else 1, 2, 3, ... in the data set's order."""
    return [
        number if record.image_id is None else record.image_id for number, record in enumerate(dataset.records, start=1)
    ]


def read_results(
    path: Path | str,
    dataset: Dataset,
    image_ids: Sequence[int | str] | None = None,
    max_bytes: int = MAX_BYTES,
    kind: str | None = None,
    passed_over: Collection[int] = (),
) -> list[dict[str, np.ndarray]]:
    """Predictions for `evaluate_coco`, one dictionary an image of the data set, detections in the file's order: labels
    (D,) int64, scores (D,) float64, and boxes (D, 4), masks (D, H, W) bool - a byte a pixel - or keypoints (D, J, 3).

    kind: what is read of entries that say several, "boxes", "masks" or "keypoints"; by default the last of these that
    the first entry has. image_ids: of each of the data set's images; by default ids_of(dataset). The data set's
    category_ids say which label is meant, by default 1, 2, 3, ...; entries of the ids passed_over are left out.

    Raises AnnotationError, a ValueError, with file, number of the entry and field: for what is no JSON list or larger
    than max_bytes, ids of other images or categories, scores and places that are no numbers, boxes turned inside out,
    masks of another size than their image, and entries of different kinds.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"read_results: expected kind {', '.join(KINDS)}, got {kind!r}")
    path, count = Path(path), len(dataset)
    ids = ids_of(dataset) if image_ids is None else image_ids
    if len(ids) != count:
        raise ValueError(f"read_results: expected an id an image, got {len(ids)} for {count}")
    places = {identity: place for place, identity in enumerate(ids)}
    categories = dataset.category_ids or range(1, len(dataset.classes))
    labels = {identity: label for label, identity in enumerate(categories, start=1)}
    entries = _parse(path, max_bytes)
    kind = kind or _kind(entries, path.name)
    found: list[list[tuple[int, float, Any]]] = [[] for _ in range(count)]
    for number, entry in enumerate(entries):
        where = f"{path.name}: entry {number}"
        place = _known(places, _field(entry, "image_id", where), f"{where}.image_id", "an image of the data set")
        category = _field(entry, "category_id", where)
        if type(category) is int and category in passed_over:
            continue
        label = _known(labels, category, f"{where}.category_id", "a class of the data set")
        score = finite_number(_field(entry, "score", where), f"{where}.score")
        shape = _SHAPES[kind](_field(entry, FIELDS[kind], where), dataset, place, f"{where}.{FIELDS[kind]}")
        found[place].append((label, score, shape))
    return [_as_arrays(of_image, kind, dataset, place) for place, of_image in enumerate(found)]


def _as_arrays(found: list[tuple[int, float, Any]], kind: str, dataset: Dataset, place: int) -> dict[str, np.ndarray]:
    joints = len(dataset.joint_names or ())
    empty = {BOXES: (0, 4), MASKS: (0, *(dataset.records[place].size or (0, 0))), KEYPOINTS: (0, joints, 3)}[kind]
    shapes = np.array([shape for _, _, shape in found]) if found else np.zeros(empty, bool if kind == MASKS else float)
    return {
        kind: shapes,
        "labels": np.array([label for label, _, _ in found], np.int64),
        "scores": np.array([score for _, score, _ in found], np.float64),
    }


def _parse(path: Path, max_bytes: int) -> list:
    data = read_limited(path, max_bytes)
    try:
        entries = json.loads(data)
    except (ValueError, RecursionError) as error:  # ValueError covers bad JSON and bad UTF-8
        raise AnnotationError(f"{path}: expected a JSON file, but reading it failed: {error}") from error
    if not isinstance(entries, list):
        raise AnnotationError(f"{path}: expected a JSON list of results, got {_short(entries)}")
    return entries


def _kind(entries: list, file: str) -> str:
    """That of the first entry; of none, boxes."""
    if not entries:
        return BOXES
    kinds = [kind for kind, field in FIELDS.items() if isinstance(entries[0], dict) and field in entries[0]]
    if not kinds:
        raise AnnotationError(
            f"{file}: entry 0: expected a JSON object with {', '.join(FIELDS.values())}, as COCO's results have "
            "them and `minidet eval RUN` writes them (eval-SPLIT/detections.json), got none"
        )
    return kinds[-1]  # people and masks may have a box, too


def _field(entry: Any, key: str, where: str) -> Any:
    if not isinstance(entry, dict):
        raise AnnotationError(f"{where}: expected a JSON object, got {_short(entry)}")
    if key not in entry:
        raise AnnotationError(f"{where}.{key}: expected this field, got none; are they results of another kind?")
    return entry[key]


def _known(table: dict, identity: Any, where: str, what: str) -> int:
    if isinstance(identity, bool) or not isinstance(identity, int | str) or identity not in table:
        raise AnnotationError(f"{where}: expected the id of {what}, got {_short(identity)}; is it the right data set?")
    return table[identity]


def _box(value: Any, dataset: Dataset, place: int, where: str) -> list[float]:
    if not isinstance(value, list) or len(value) != 4:
        raise AnnotationError(f"{where}: expected x, y, width, height, got {_short(value)}")
    x, y, width, height = (finite_number(number, where) for number in value)
    if width < 0 or height < 0:
        raise AnnotationError(f"{where}: expected width and height >= 0, got {width:g} and {height:g}; x1 y1 x2 y2?")
    return [x, y, x + width, y + height]


def _mask(value: Any, dataset: Dataset, place: int, where: str) -> np.ndarray:
    size = _field(value, "size", where)
    expected = dataset.records[place].size
    if not isinstance(size, list) or size != list(expected or size) or not all(type(side) is int for side in size):
        raise AnnotationError(
            f"{where}.size: expected the image's [height, width] {list(expected or ())}, got {_short(size)}"
        )
    counts = _field(value, "counts", where)
    try:
        counts = unpack_counts(counts) if isinstance(counts, str) else counts
        if not isinstance(counts, list) or not all(type(count) is int and 0 <= count < 2**31 for count in counts):
            raise ValueError(f"expected run lengths, whole numbers >= 0, got {_short(counts)}")
        return counts_to_mask(counts, *size)
    except (ValueError, TypeError) as error:
        raise AnnotationError(f"{where}.counts: {error}") from error


def _keypoints(value: Any, dataset: Dataset, place: int, where: str) -> np.ndarray:
    joints = len(dataset.joint_names or ())
    if not isinstance(value, list) or not value or len(value) != 3 * joints:
        raise AnnotationError(f"{where}: expected {joints} x 3 numbers, the data set's joints, got {_short(value)}")
    return np.array([finite_number(number, where) for number in value]).reshape(joints, 3)


_SHAPES = {BOXES: _box, MASKS: _mask, KEYPOINTS: _keypoints}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
