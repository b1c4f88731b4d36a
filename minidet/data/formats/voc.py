"""PASCAL VOC's XML, one file an image (Everingham et al., devkit).

VOC counts pixels from 1 and includes both ends: a box over the first pixel alone is 1, 1, 1, 1. In the continuous
coordinates of this project it is 0, 0, 1, 1; so x1 = xmin - 1 and x2 = xmax.
"""

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat
from xml.sax.saxutils import escape

from minidet.data.files import AnnotationError, read_limited
from minidet.data.formats.record import (
    BACKGROUND,
    Annotations,
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
    refuse_equal_stems,
)

MAX_BYTES = 4 << 20  # of one image's file; the largest of VOC has 15 kB

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def read_voc(
    paths: Sequence[Path],
    image_folder: Path | str,
    classes: Sequence[str] | None = None,
    on_problem: OnProblem = raise_problem,
    max_bytes: int = MAX_BYTES,
) -> Annotations:
    """Read and check the given XML files.

    image_folder: holds each file's <filename>. classes: names without the background; None takes VOC's twenty where
    they suffice, else all names found, sorted. on_problem: as in read_coco.
    """
    found: list[tuple[Record, list[dict]]] = []
    seen: dict[Path, str] = {}
    for path in map(Path, paths):
        try:
            record, objects = _read_file(path, Path(image_folder), on_problem, max_bytes)
            refuse_again(record.path, seen, f"{path.name}: filename")
            found.append((record, objects))
        except AnnotationError as error:
            on_problem(error)
    if classes is None:
        names = {o["name"] for _, objects in found for o in objects}
        classes = VOC_CLASSES if names <= set(VOC_CLASSES) else sorted(names)
    labels = {name: label for label, name in enumerate(classes, start=1)}
    for record, objects in found:
        known = []
        for o in objects:
            if o["name"] in labels:
                known.append(o | {"label": labels[o["name"]]})
            else:
                on_problem(
                    AnnotationError(
                        f"{o['where']}.name: expected one of {', '.join(classes)}, got {o['name']!r}; "
                        "fix it or add the class"
                    )
                )
        fill(record, known)
    return Annotations([record for record, _ in found], (BACKGROUND, *classes))


def parse_xml(data: bytes, where: str) -> ElementTree.Element:
    """Parse XML that came from anywhere. Document types, and with them entities and their expansion, are refused."""

    def refuse(*_) -> None:
        raise AnnotationError(f"{where}: expected XML without <!DOCTYPE>, which could define entities; remove it")

    try:
        guard = expat.ParserCreate()
        guard.StartDoctypeDeclHandler = refuse
        guard.Parse(data, True)
        return ElementTree.fromstring(data)
    except (expat.ExpatError, ElementTree.ParseError, LookupError, ValueError) as error:
        if isinstance(error, AnnotationError):
            raise
        raise AnnotationError(f"{where}: expected well-formed XML, but reading it failed: {error}") from error


def _text(element: ElementTree.Element, tag: str, where: str) -> str:
    text = element.findtext(tag)
    if text is None or not text.strip():
        raise AnnotationError(f"{where}.{tag}: expected this element with some text, but it is missing; add it")
    return text.strip()


def _number(element: ElementTree.Element, tag: str, where: str) -> float:
    text = _text(element, tag, where)
    try:
        return finite_number(float(text), f"{where}.{tag}")
    except AnnotationError:
        raise
    except ValueError as error:
        raise AnnotationError(f"{where}.{tag}: expected a number, got {text[:40]!r}") from error


def _read_file(path: Path, image_folder: Path, on_problem: OnProblem, max_bytes: int) -> tuple[Record, list[dict]]:
    root = parse_xml(read_limited(path, max_bytes), path.name)
    if root.tag != "annotation":
        raise AnnotationError(f"{path.name}: expected the element <annotation>, got <{root.tag[:40]}>")
    name = _text(root, "filename", path.name)
    image = checked_path(image_folder, name, f"{path.name}: filename")
    size = None
    if root.find("size") is not None:
        sides = (_number(root, f"size/{side}", path.name) for side in ("height", "width"))
        size = checked_size(*sides, f"{path.name}: size")
    objects = []
    for index, element in enumerate(root.findall("object")):
        where = f"{path.name}: object[{index}]"
        try:
            xmin, ymin, xmax, ymax = (_number(element, f"bndbox/{t}", where) for t in ("xmin", "ymin", "xmax", "ymax"))
            difficult = (element.findtext("difficult") or "").strip() or "0"
            if difficult not in ("0", "1"):
                raise AnnotationError(f"{where}.difficult: expected 0 or 1, got {difficult[:40]!r}; fix or remove it")
            objects.append({
                "name": checked_name(_text(element, "name", where), f"{where}.name"),
                "box": checked_box((xmin - 1, ymin - 1, xmax, ymax), size, f"{where}.bndbox"),
                "difficult": difficult == "1",
                "where": where,
            })  # fmt: skip
        except AnnotationError as error:
            on_problem(error)
    return Record(image, name, size), objects


def write_voc(folder: Path | str, records: Sequence[Record], classes: Sequence[str]) -> None:
    """Write one XML file a record into `folder`, named after its image. classes: by label, background first.

    Raises ValueError when two images' names differ in folder or ending only.
    """
    refuse_equal_stems(records, "write_voc")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for record in records:
        height, width = record.size
        lines = [
            "<annotation>",
            f"  <filename>{escape(record.name)}</filename>",
            f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
        ]
        for box, label, difficult in zip(record.boxes, record.labels, record.difficult, strict=True):
            xmin, ymin, xmax, ymax = (f"{value:.12g}" for value in (box[0] + 1, box[1] + 1, box[2], box[3]))
            lines += [
                "  <object>",
                f"    <name>{escape(classes[label])}</name><difficult>{int(difficult)}</difficult>",
                f"    <bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox>",
                "  </object>",
            ]
        text = "\n".join([*lines, "</annotation>", ""])
        (folder / f"{Path(record.name).stem}.xml").write_text(text, encoding="utf-8")
