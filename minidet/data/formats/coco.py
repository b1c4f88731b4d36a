"""COCO's JSON (cocodataset.org, "Data format"): images, categories and annotations joined by ids.

COCO's box is x, y, width, height in continuous pixels; where there is none, it is inferred from the segmentation.
Category ids are arbitrary (1 to 90 with gaps, or 0); here they become labels 1..K in the order of the ids. Ids only
ever join tables: no id, 0 included, means "none".
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minidet.data.files import AnnotationError, read_limited, write_atomic
from minidet.data.formats.record import (
    BACKGROUND,
    Annotations,
    LabelError,
    OnProblem,
    Record,
    checked_box,
    checked_name,
    checked_path,
    checked_size,
    fill,
    finite_number,
    raise_problem,
    refuse_again,
)
from minidet.data.joints import JOINTS
from minidet.data.masks import counts_to_mask, mask_boxes, mask_to_counts, polygons_to_mask, unpack_counts

MAX_BYTES = 2 << 30  # the largest file of COCO 2017 has 0.45 GB
# Masks are painted before anybody has opened the picture, whose size may be a slip: not what would take gigabytes.
MOST_PIXELS = 200_000_000
LONGEST = 2_000_000  # pixels of an outline
FARTHEST = 4  # image sides from its corner: polygons beyond are errors


def read_coco(
    path: Path | str, image_folder: Path | str, on_problem: OnProblem = raise_problem, max_bytes: int = MAX_BYTES
) -> Annotations:
    """Read and check an instances or person_keypoints file.

    image_folder: where the images' file_name starts. on_problem: called with every AnnotationError; it raises
    (the default) or collects, and then the faulty image or annotation is left out.
    """
    path = Path(path)
    tables = _parse(path, max_bytes)
    labels, classes, joint_names = _read_categories(tables["categories"], path.name, on_problem)
    records, refused = _read_images(tables["images"], Path(image_folder), path.name, on_problem)
    objects: dict = {image_id: [] for image_id in records}
    seen = set()
    for index, annotation in enumerate(tables["annotations"]):
        where = f"{path.name}: annotations[{index}]"
        try:
            identity = _field(annotation, "id", int, where)
            if identity in seen:
                raise AnnotationError(f"{where}.id: expected every id once, got {identity} again; renumber it")
            seen.add(identity)
            image_id = _field(annotation, "image_id", int | str, where)
            if image_id in refused:
                continue  # with its image, which is a problem already
            if image_id not in records:
                raise AnnotationError(f"{where}.image_id: expected the id of an image, got {image_id!r}, unknown")
            objects[image_id].append(_read_object(annotation, records[image_id].size, labels, joint_names, where))
        except AnnotationError as error:
            on_problem(error)
    for image_id, record in records.items():
        fill(record, objects[image_id])
        record.segmentations = [o["segmentation"] for o in objects[image_id]]
        if joint_names is not None:
            joints = [o["keypoints"] for o in objects[image_id]]
            record.keypoints = np.array(joints, np.float64).reshape(len(joints), len(joint_names), 3)
    return Annotations(list(records.values()), classes, tuple(labels), joint_names)


def _parse(path: Path, max_bytes: int) -> dict:
    try:
        tables = json.loads(read_limited(path, max_bytes))
    except AnnotationError:
        raise
    except (ValueError, RecursionError) as error:  # ValueError covers bad JSON and bad UTF-8
        raise AnnotationError(f"{path}: expected a JSON file, but reading it failed: {error}") from error
    if not isinstance(tables, dict):
        raise AnnotationError(f"{path}: expected a JSON object with images, annotations and categories")
    for key in ("images", "annotations", "categories"):
        _field(tables, key, list, f"{path.name}")
    return tables


def _field(table, key: str, kind, where: str):
    """table[key], which must be there and of the given type."""
    if not isinstance(table, dict):
        raise AnnotationError(f"{where}: expected a JSON object, got {table!r:.40}")
    if key not in table:
        raise AnnotationError(f"{where}.{key}: expected this field, but it is missing; add it")
    value = table[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        wanted = " or ".join(k.__name__ for k in getattr(kind, "__args__", (kind,)))
        raise AnnotationError(f"{where}.{key}: expected {wanted}, got {value!r:.40}")
    if isinstance(value, str) and not value.isascii() and value.encode(errors="replace").decode() != value:
        raise AnnotationError(f"{where}.{key}: expected text, got half a character in {value[:40]!r}")  # \ud800
    return value


def _read_categories(table: list, file: str, on_problem: OnProblem):
    """({category id: label}, class names with the background first, names of the joints or None)."""
    names, joint_names = {}, None
    for index, category in enumerate(table):
        where = f"{file}: categories[{index}]"
        try:
            identity = _field(category, "id", int, where)
            name = checked_name(_field(category, "name", str, where), f"{where}.name")
            if identity in names or name in names.values():
                raise AnnotationError(f"{where}: expected every id and name once, got {identity} {name!r} again")
            joints = tuple(map(str, _field(category, "keypoints", list, where))) if "keypoints" in category else ()
            if joints and joint_names and joints != joint_names:
                raise AnnotationError(f"{where}.keypoints: expected the same joints in every category that has some")
            joint_names = joint_names or joints or None
            names[identity] = name
        except AnnotationError as error:
            on_problem(error)
    labels = {identity: label for label, identity in enumerate(sorted(names), start=1)}
    return labels, (BACKGROUND, *(names[identity] for identity in labels)), joint_names


def _read_images(table: list, folder: Path, file: str, on_problem: OnProblem) -> tuple[dict, set]:
    """({image id: Record without objects}, in the file's order, ids of the images that were refused)."""
    records, refused, seen = {}, set(), {}
    for index, image in enumerate(table):
        where, identity = f"{file}: images[{index}]", None
        try:
            identity = _field(image, "id", int | str, where)
            if identity in records:
                raise AnnotationError(f"{where}.id: expected every id once, got {identity!r} again; renumber it")
            size = checked_size(_field(image, "height", int, where), _field(image, "width", int, where), where)
            name = _field(image, "file_name", str, where)
            path = checked_path(folder, name, f"{where}.file_name")
            refuse_again(path, seen, f"{where}.file_name")
            records[identity] = Record(path, name, size, image_id=identity)
        except AnnotationError as error:
            refused.add(identity)
            on_problem(error)
    return records, refused - records.keys()


def _read_object(annotation: dict, size: tuple[int, int], labels: dict, joint_names, where: str) -> dict:
    category = _field(annotation, "category_id", int, where)
    if category not in labels:
        known = str(list(labels))[1:-1]
        raise LabelError(
            f"{where}.category_id: expected one of the ids in categories ({known}), got {category}", category
        )
    segmentation = _read_segmentation(annotation.get("segmentation"), size, f"{where}.segmentation")
    if "bbox" not in annotation and segmentation is not None:
        box = checked_box(_extent(segmentation, size), size, f"{where}.segmentation")
    else:
        numbers = _field(annotation, "bbox", list, where)
        if len(numbers) != 4:
            raise AnnotationError(f"{where}.bbox: expected x, y, width, height, got {len(numbers)} values")
        x, y, width, height = (finite_number(number, f"{where}.bbox") for number in numbers)
        box = checked_box((x, y, x + width, y + height), size, f"{where}.bbox")
    crowd = annotation.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise AnnotationError(f"{where}.iscrowd: expected 0 or 1, got {str(crowd)[:40]}")
    result = {"box": box, "label": labels[category], "iscrowd": crowd == 1, "segmentation": segmentation}
    if "area" in annotation:
        result["area"] = finite_number(annotation["area"], f"{where}.area")
        if result["area"] < 0:
            raise AnnotationError(f"{where}.area: expected an area >= 0, got {result['area']:g}; fix or remove it")
    elif segmentation is not None:
        result["area"] = float(_pixels(segmentation, size))
    if joint_names is not None:
        result["keypoints"] = _read_joints(annotation, len(joint_names), size, where)
    return result


def _read_segmentation(value, size: tuple[int, int], where: str):
    """None, polygons [(n, 2), ...] or a list of run lengths; checked, but not yet painted."""
    if value is None or value == []:
        return None
    if size[0] * size[1] > MOST_PIXELS:
        raise AnnotationError(
            f"{where}: expected a picture of at most {MOST_PIXELS:,} pixels to paint masks on, got {size[1]} x "
            f"{size[0]}; cut it into parts"
        )
    if isinstance(value, list):
        polygons = []
        for number, flat in enumerate(value):
            if not isinstance(flat, list) or len(flat) < 6 or len(flat) % 2:
                raise AnnotationError(
                    f"{where}[{number}]: expected a polygon x, y, x, y, ... of 3 or more points, got {flat!r:.60}"
                )
            points = np.array([finite_number(v, f"{where}[{number}]") for v in flat]).reshape(-1, 2)
            if np.abs(points).max() > FARTHEST * max(size):
                raise AnnotationError(
                    f"{where}[{number}]: expected a polygon near the {size[1]} x {size[0]} image, got {flat!r:.60}"
                )
            length = np.abs(np.diff(points, axis=0, append=points[:1])).sum()
            if length > LONGEST:
                raise AnnotationError(
                    f"{where}[{number}]: expected an outline of at most {LONGEST:,} pixels, got one of {length:,.0f}"
                )
            polygons.append(points)
        return polygons
    if not isinstance(value, dict):
        raise AnnotationError(f"{where}: expected polygons or a JSON object with size and counts, got {value!r:.40}")
    if list(_field(value, "size", list, where)) != list(size):
        raise AnnotationError(f"{where}.size: expected the image's [height, width] {list(size)}, got {value['size']}")
    counts = _field(value, "counts", list | str, where)
    try:
        counts = unpack_counts(counts) if isinstance(counts, str) else counts
    except ValueError as error:
        raise AnnotationError(f"{where}.counts: {error}") from error
    if not all(type(count) is int and count >= 0 for count in counts):
        raise AnnotationError(f"{where}.counts: expected run lengths, whole numbers >= 0, got {counts!r:.60}")
    if sum(counts) != size[0] * size[1]:
        raise AnnotationError(
            f"{where}.counts: expected run lengths that add up to {size[0]} x {size[1]}, got {sum(counts)}"
        )
    return counts


def _extent(segmentation: list, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The box x1 y1 x2 y2 around polygons' corners, or around the pixels of a mask; all 0 if it has none."""
    if isinstance(segmentation[0], np.ndarray):
        corners = np.concatenate(segmentation).clip(0, size[::-1])
        return *corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()
    return tuple(mask_boxes([counts_to_mask(segmentation, *size)])[0].tolist())


def _pixels(segmentation: list, size: tuple[int, int]) -> int:
    """How many a mask has."""
    if isinstance(segmentation[0], np.ndarray):
        return np.count_nonzero(polygons_to_mask(segmentation, *size))
    return sum(segmentation[1::2])


def _read_joints(annotation: dict, joints: int, size: tuple[int, int], where: str) -> np.ndarray:
    """(joints, 3) float64 x, y, v; zeros where v is 0 or the annotation has no keypoints."""
    if "keypoints" not in annotation:
        return np.zeros((joints, 3))
    numbers = _field(annotation, "keypoints", list, where)
    if len(numbers) != 3 * joints:
        raise AnnotationError(f"{where}.keypoints: expected {joints} x 3 numbers, got {len(numbers)}")
    keypoints = np.array([finite_number(n, f"{where}.keypoints") for n in numbers]).reshape(joints, 3)
    if not np.isin(keypoints[:, 2], (0, 1, 2)).all():
        raise AnnotationError(f"{where}.keypoints: expected every v to be 0, 1 or 2, got {keypoints[:, 2].tolist()}")
    labelled = keypoints[:, 2] > 0
    outside = labelled & ((keypoints[:, :2] < -1) | (keypoints[:, :2] > [size[1], size[0]])).any(axis=1)
    if outside.any():
        joint = int(outside.argmax())
        raise AnnotationError(
            f"{where}.keypoints: expected joints inside the {size[1]} x {size[0]} image, got joint {joint} at "
            f"x {keypoints[joint, 0]:g}, y {keypoints[joint, 1]:g}; v 0 says that one is not labelled"
        )
    return np.where(labelled[:, None], keypoints, 0.0)


def write_coco(
    path: Path | str,
    records: Sequence[Record],
    classes: Sequence[str],
    category_ids: Sequence[int] | None = None,
    joint_names: Sequence[str] | None = None,
) -> None:
    """Write records as COCO JSON. classes: names by label, the background first. Masks are written as run lengths.

    category_ids: of the labels from 1 on; 1..K by default. Image and annotation ids count from 1, because
    pycocotools reads annotation id 0 as "not matched".
    """
    ids = list(category_ids) if category_ids is not None else list(range(1, len(classes)))
    categories = [{"id": i, "name": n, "supercategory": ""} for i, n in zip(ids, classes[1:], strict=True)]
    if joint_names is not None:
        limbs = [[a + 1, b + 1] for a, b in dict(JOINTS.values()).get(tuple(joint_names), ())]
        categories = [c | {"keypoints": list(joint_names), "skeleton": limbs} for c in categories]
    images, annotations = [], []
    for image_id, record in enumerate(records, start=1):
        height, width = record.size
        images.append({"id": image_id, "file_name": record.name, "height": height, "width": width})
        for index in range(len(record.boxes)):
            annotation = _object_to_json(record, index)
            annotation["category_id"] = ids[annotation["category_id"] - 1]
            annotations.append({"id": len(annotations) + 1, "image_id": image_id} | annotation)
    tables = {"info": {"description": "minidet"}, "licenses": [], "images": images, "categories": categories}
    write_atomic(path, json.dumps(tables | {"annotations": annotations}))


def _object_to_json(record: Record, index: int) -> dict:
    x1, y1, x2, y2 = record.boxes[index].tolist()
    result = {
        "category_id": int(record.labels[index]),
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": float(record.areas[index]),
        "iscrowd": int(record.iscrowd[index]),
    }
    segmentation = record.segmentations[index] if record.segmentations is not None else None
    if isinstance(segmentation, np.ndarray):
        segmentation = mask_to_counts(segmentation)
    if segmentation is not None and isinstance(segmentation[0], int):
        segmentation = {"size": list(record.size), "counts": segmentation}
    elif segmentation is not None:
        segmentation = [polygon.ravel().tolist() for polygon in segmentation]
    if segmentation is not None:
        result["segmentation"] = segmentation
    if record.keypoints is not None:
        joints = record.keypoints[index]
        result["keypoints"] = joints.ravel().tolist()
        result["num_keypoints"] = int((joints[:, 2] > 0).sum())
    return result
