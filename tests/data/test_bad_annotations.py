"""Every kind of bad annotation is refused with file and field; a collector gets them all and keeps the rest."""

import copy
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from minidet.data.files import AnnotationError
from minidet.data.formats.coco import read_coco
from minidet.data.formats.lsp import read_lsp
from minidet.data.formats.record import LEAST_SIDE, OVERHANG, checked_box
from minidet.data.formats.voc import read_voc
from minidet.data.formats.yolo import read_classes, read_yolo

HUGE = 10**400


def change(*path, to):
    def apply(tables):
        *parents, last = path
        target = tables
        for key in parents:
            target = target[key]
        target[last] = to

    return apply


def remove(*path):
    def apply(tables):
        *parents, last = path
        target = tables
        for key in parents:
            target = target[key]
        del target[last]

    return apply


BAD_COCO = {
    "width negative": (
        change("annotations", 0, "bbox", 2, to=-3),
        r"instances_train\.json: annotations\[0\]\.bbox: expected width > 0, got -3; fix or remove it",
    ),
    "height zero": (change("annotations", 0, "bbox", 3, to=0), r"annotations\[0\]\.bbox: expected height > 0, got 0"),
    "outside": (
        change("annotations", 0, "bbox", 0, to=38),
        r"annotations\[0\]\.bbox: expected a box inside the 40 x 30 image, got x 38 to 41\.5",
    ),
    "far outside": (
        change("annotations", 2, "bbox", to=[100, 100, 5, 5]),
        r"annotations\[2\]\.bbox: expected a box inside",
    ),
    "left of it": (
        change("annotations", 2, "bbox", to=[-0.9, 0, 0.5, 5]),
        r"annotations\[2\]\.bbox: expected a box inside",
    ),
    "NaN": (
        change("annotations", 0, "bbox", 1, to=float("nan")),
        r"annotations\[0\]\.bbox: expected a finite number, got nan",
    ),
    "infinite": (change("annotations", 0, "bbox", 1, to=float("inf")), r"expected a finite number, got inf"),
    "astronomical": (change("annotations", 0, "bbox", 1, to=HUGE), r"expected a finite number, got 1000"),
    "text": (change("annotations", 0, "bbox", 1, to="2"), r"annotations\[0\]\.bbox: expected a finite number, got '2'"),
    "boolean": (change("annotations", 0, "bbox", 1, to=True), r"expected a finite number, got True"),
    "three numbers": (
        change("annotations", 0, "bbox", to=[1, 2, 3]),
        r"annotations\[0\]\.bbox: expected x, y, width, height, got 3",
    ),
    "no box": (remove("annotations", 0, "bbox"), r"annotations\[0\]\.bbox: expected this field, but it is missing"),
    "no box, and an empty mask": (
        change(
            "annotations",
            0,
            to={"id": 0, "image_id": 0, "category_id": 90, "segmentation": {"size": [30, 40], "counts": [1200]}},
        ),
        r"annotations\[0\]\.segmentation: expected width > 0, got 0",
    ),
    "box no list": (change("annotations", 0, "bbox", to={}), r"annotations\[0\]\.bbox: expected list, got"),
    "unknown category": (
        change("annotations", 0, "category_id", to=3),
        r"annotations\[0\]\.category_id: expected one of the ids in categories \(0, 18, 90\), got 3",
    ),
    "category as text": (change("annotations", 0, "category_id", to="90"), r"category_id: expected int"),
    "unknown image": (
        change("annotations", 0, "image_id", to=99),
        r"annotations\[0\]\.image_id: expected the id of an image, got 99",
    ),
    "image id a list": (
        change("annotations", 0, "image_id", to=[7]),
        r"annotations\[0\]\.image_id: expected int or str",
    ),
    "annotation id twice": (
        change("annotations", 2, "id", to=5),
        r"annotations\[2\]\.id: expected every id once, got 5 again",
    ),
    "annotation no object": (change("annotations", 0, to=[1]), r"annotations\[0\]: expected a JSON object"),
    "crowd": (change("annotations", 0, "iscrowd", to=2), r"annotations\[0\]\.iscrowd: expected 0 or 1, got 2"),
    "area negative": (
        change("annotations", 0, "area", to=-1),
        r"annotations\[0\]\.area: expected an area >= 0, got -1",
    ),
    "area": (change("annotations", 0, "area", to=None), r"annotations\[0\]\.area: expected a finite number, got None"),
    "short polygon": (
        change("annotations", 0, "segmentation", to=[[1, 2, 3, 4]]),
        r"annotations\[0\]\.segmentation\[0\]: expected a polygon",
    ),
    "polygon with an endless outline": (
        change("annotations", 0, "segmentation", to=[[0, 60, 9, -60] * 9000]),
        r"annotations\[0\]\.segmentation\[0\]: expected an outline of at most 2,000,000 pixels, got one of 2,3",
    ),
    "polygon with NaN": (
        change("annotations", 0, "segmentation", to=[[1, 2, 3, float("nan"), 5, 6]]),
        r"segmentation\[0\]: expected a finite",
    ),
    "mask of another size": (
        change("annotations", 0, "segmentation", to={"size": [40, 30], "counts": [1200]}),
        r"segmentation\.size: expected the image's",
    ),
    "mask too short": (
        change("annotations", 0, "segmentation", to={"size": [30, 40], "counts": [5]}),
        r"segmentation\.counts: expected run lengths",
    ),
    "mask negative": (
        change("annotations", 0, "segmentation", to={"size": [30, 40], "counts": [1300, -100]}),
        r"segmentation\.counts: expected run",
    ),
    "mask garbage": (
        change("annotations", 0, "segmentation", to={"size": [30, 40], "counts": "\u00e9"}),
        r"segmentation\.counts: expected packed",
    ),
    "mask with fractions": (
        change("annotations", 0, "segmentation", to={"size": [30, 40], "counts": [0.5, 1199.5]}),
        r"segmentation\.counts: expected run lengths, whole numbers >= 0, got \[0\.5",
    ),
    "mask infinite": (
        change("annotations", 0, "segmentation", to={"size": [30, 40], "counts": [float("inf")]}),
        r"segmentation\.counts: expected run lengths, whole numbers >= 0, got \[inf",
    ),
    "image missing": (
        change("images", 0, "file_name", to="gone.png"),
        r"images\[0\]\.file_name: expected the image .*gone\.png, but there is no such file",
    ),
    "image elsewhere": (
        change("images", 0, "file_name", to="../../secret.png"),
        r"images\[0\]\.file_name: expected a file below",
    ),
    "image absolute": (
        change("images", 0, "file_name", to="/etc/passwd"),
        r"images\[0\]\.file_name: expected a file below",
    ),
    "image name with a zero": (
        change("images", 0, "file_name", to="a\0b"),
        r"images\[0\]\.file_name: expected the name",
    ),
    "image name too long": (
        change("images", 0, "file_name", to="a" * 5000),
        r"images\[0\]\.file_name: expected the name of an image file, got 'aaaa",
    ),
    "image name half a character": (
        change("images", 0, "file_name", to="\ud800.png"),
        r"images\[0\]\.file_name: expected text, got half a character",
    ),
    "image id twice": (change("images", 1, "id", to=7), r"images\[1\]\.id: expected every id once, got 7 again"),
    "image twice": (
        change("images", 1, "file_name", to="./000000.png"),
        r"images\[1\]\.file_name: expected every image once, got .*000000\.png again, as in .*images\[0\]\.file_name",
    ),
    "image without width": (remove("images", 0, "width"), r"images\[0\]\.width: expected this field"),
    "image height 0": (change("images", 0, "height", to=0), r"images\[0\]: expected height and width > 0"),
    "image astronomical": (
        change("images", 0, "width", to=10**300),
        r"images\[0\]: expected height and width > 0, whole and at most 1e9, got 30 and 1000",
    ),
    "category id twice": (change("categories", 1, "id", to=90), r"categories\[1\]: expected every id and name once"),
    "category name twice": (
        change("categories", 1, "name", to="dog"),
        r"categories\[2\]: expected every id and name once",
    ),
    "category without letters": (
        change("categories", 1, "name", to=" "),
        r"categories\[1\]\.name: expected the name of a class, got ' '",
    ),
    "category named as the background": (
        change("categories", 1, "name", to="__background__"),
        r"categories\[1\]\.name: expected the name of a class, got '__background__'",
    ),
    "joints that differ": (
        lambda tables: [c.update(keypoints=[c["name"]]) for c in tables["categories"]],
        r"categories\[1\]\.keypoints: expected the same joints",
    ),
    "category without name": (remove("categories", 0, "name"), r"categories\[0\]\.name: expected this field"),
}


@pytest.mark.parametrize("case", BAD_COCO)
def test_bad_coco_is_refused_with_file_and_field(case, coco_tables, write_coco_tables, image_folder):
    spoil, message = BAD_COCO[case]
    read_coco(write_coco_tables(coco_tables), image_folder)  # it was good before
    spoil(coco_tables)
    path = write_coco_tables(coco_tables)
    with pytest.raises(AnnotationError, match=message):
        read_coco(path, image_folder)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_a_coco_file_without_a_table_is_refused(key, coco_tables, write_coco_tables, image_folder):
    del coco_tables[key]
    with pytest.raises(AnnotationError, match=rf"instances_train\.json\.{key}: expected this field"):
        read_coco(write_coco_tables(coco_tables), image_folder)


@pytest.mark.parametrize("text", ["", "{", '{"images": [}', "[]", "\ufeff\0", "[" * 100_000, '{"a": ' * 100_000])
def test_bad_json_is_refused_with_the_files_name(text, write_coco_tables, image_folder):
    with pytest.raises(AnnotationError, match=r"instances_train\.json: expected a JSON"):
        read_coco(write_coco_tables(text), image_folder)


def test_json_that_is_not_utf8_missing_or_too_large_is_refused(tmp_path, coco_tables, write_coco_tables, image_folder):
    path = write_coco_tables(coco_tables)
    with pytest.raises(AnnotationError, match=r"expected at most 100 bytes, got \d+"):
        read_coco(path, image_folder, max_bytes=100)
    path.write_bytes(b'{"images": "\xff\xfe"}')
    with pytest.raises(AnnotationError, match="expected a JSON file"):
        read_coco(path, image_folder)
    with pytest.raises(AnnotationError, match=r"gone\.json: expected a file, found nothing"):
        read_coco(tmp_path / "gone.json", image_folder)


def test_a_collector_gets_every_problem_and_the_good_annotations_stay(coco_tables, write_coco_tables, image_folder):
    coco_tables["annotations"][0]["bbox"][2] = -1
    coco_tables["annotations"][1]["category_id"] = 3
    problems = []
    read = read_coco(write_coco_tables(coco_tables), image_folder, on_problem=problems.append)
    assert [str(p).split(": ")[1] for p in problems] == ["annotations[0].bbox", "annotations[1].category_id"]
    assert [len(record.boxes) for record in read.records] == [0, 1]


def test_objects_of_a_refused_image_are_no_problems_of_their_own(coco_tables, write_coco_tables, image_folder):
    coco_tables["images"][0]["file_name"] = "gone.png"  # it has id 7
    coco_tables["images"].append(coco_tables["images"][1] | {"height": 0})  # id 0 again: the first one stays
    coco_tables["annotations"].append(coco_tables["annotations"][0] | {"id": 6, "image_id": 8})
    problems = []
    read = read_coco(write_coco_tables(coco_tables), image_folder, on_problem=problems.append)
    assert [str(p).split(": ")[1] for p in problems] == [
        "images[0].file_name",
        "images[2].id",
        "annotations[3].image_id",
    ]
    assert [len(record.boxes) for record in read.records] == [2]


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-100, 100) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(
    table=st.sampled_from(["images", "annotations", "categories"]),
    row=st.integers(0, 1),
    field=st.sampled_from(["id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation", "keypoints",
                           "file_name", "height", "width", "name"]),
    junk=JUNK,
)  # fmt: skip
def test_no_value_in_a_coco_file_causes_another_error(tmp_path_factory, table, row, field, junk):
    import json

    from minidet.data.images import write_image

    folder = tmp_path_factory.getbasetemp() / "junk"
    if not folder.exists():
        folder.mkdir()
        for name in ("a.png", "b.png"):
            write_image(folder / name, np.zeros((30, 40, 3), np.uint8))
    tables = {
        "images": [{"id": k, "file_name": f"{'ab'[k]}.png", "height": 30, "width": 40} for k in range(2)],
        "categories": [{"id": k, "name": "ab"[k], "keypoints": ["x"]} for k in range(2)],
        "annotations": [{"id": k, "image_id": k, "category_id": k, "bbox": [1, 1, 2, 2]} for k in range(2)],
    }
    tables[table][row][field] = junk
    (folder / "a.json").write_text(json.dumps(tables))
    try:
        read = read_coco(folder / "a.json", folder)
    except AnnotationError as error:
        assert "a.json" in str(error)  # noqa: PT017 - both outcomes are allowed, other exceptions are not
    else:
        for record in read.records:
            assert np.isfinite(record.boxes).all()
            assert (record.boxes[:, 2:] > record.boxes[:, :2]).all()


def test_a_box_without_area_in_single_precision_is_called_so():
    assert LEAST_SIDE == 0.01
    assert checked_box((5, 5, 5.0100001, 9), (30, 40), "here").tolist() == [5, 5, 5.0100001, 9]
    for size in ((30, 40), None):
        with pytest.raises(AnnotationError, match=r"here: expected width at least 0\.01 pixels, got 0\.009"):
            checked_box((0, 5, 0.009, 9), size, "here")


def test_a_box_may_stick_out_by_rounding_only():
    assert OVERHANG == 1.0
    assert checked_box((-0.9, 0, 41, 30.5), (30, 40), "here").tolist() == [0, 0, 40, 30]
    for box in [(-1.1, 0, 5, 5), (0, -1.1, 5, 5), (0, 0, 41.1, 5), (0, 0, 5, 31.1)]:
        with pytest.raises(AnnotationError, match="here: expected a box inside the 40 x 30 image"):
            checked_box(box, (30, 40), "here")


# ---- VOC ---------------------------------------------------------------------------------------------------------

GOOD_XML = (
    "<annotation><filename>000000.png</filename><size><width>40</width><height>30</height></size>"
    "<object><name>dog</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>20</xmax><ymax>30</ymax></bndbox></object>"
    "</annotation>"
)
BAD_VOC = {
    "not XML": (lambda x: "hello", r"a\.xml: expected well-formed XML"),
    "empty": (lambda x: "", r"a\.xml: expected well-formed XML"),
    "cut": (lambda x: x[:100], r"a\.xml: expected well-formed XML"),
    "another root": (lambda x: "<html></html>", r"a\.xml: expected the element <annotation>, got <html>"),
    "entities": (lambda x: '<!DOCTYPE a [<!ENTITY x "y">]>' + x, r"a\.xml: expected XML without <!DOCTYPE>"),
    "external": (lambda x: '<!DOCTYPE a SYSTEM "file:///etc/passwd">' + x, r"expected XML without <!DOCTYPE>"),
    "no file name": (lambda x: x.replace("filename", "file"), r"a\.xml\.filename: expected this element"),
    "image missing": (lambda x: x.replace("000000", "gone"), r"a\.xml: filename: expected the image .*gone\.png"),
    "image elsewhere": (lambda x: x.replace("000000.png", "../x.png"), r"a\.xml: filename: expected a file below"),
    "size text": (lambda x: x.replace(">40<", ">wide<"), r"size/width: expected a number, got 'wide'"),
    "size zero": (lambda x: x.replace(">40<", ">0<"), r"size: expected height and width > 0"),
    "size fraction": (lambda x: x.replace(">40<", ">40.5<"), r"size: expected height and width > 0, whole .* 40\.5"),
    "no name": (lambda x: x.replace("name>dog</name", "n>dog</n"), r"object\[0\]\.name: expected this element"),
    "no corner": (lambda x: x.replace("xmax", "xend"), r"object\[0\]\.bndbox/xmax: expected this element"),
    "inside out": (lambda x: x.replace(">20<", ">1<"), r"object\[0\]\.bndbox: expected width > 0, got 0"),
    "outside": (lambda x: x.replace("<ymax>30", "<ymax>35"), r"object\[0\]\.bndbox: expected a box inside the 40 x 30"),
    "difficult": (
        lambda x: x.replace("<bndbox>", "<difficult>maybe</difficult><bndbox>"),
        r"object\[0\]\.difficult: expected 0 or 1, got 'maybe'",
    ),
    "background": (
        lambda x: x.replace("dog", "__background__"),
        r"object\[0\]\.name: expected the name of a class, got '__background__'",
    ),
    "NaN": (lambda x: x.replace(">20<", ">nan<"), r"object\[0\]\.bndbox/xmax: expected a finite number, got nan"),
    "unknown class": (
        lambda x: x.replace("dog", "unicorn"),
        r"a\.xml: object\[0\]\.name: expected one of dog, cat, got 'unicorn'",
    ),
}


@pytest.mark.parametrize("case", BAD_VOC)
def test_bad_voc_is_refused_with_file_and_field(case, tmp_path, image_folder):
    spoil, message = BAD_VOC[case]
    path = tmp_path / "a.xml"
    path.write_text(GOOD_XML)
    assert read_voc([path], image_folder, ("dog", "cat")).records[0].boxes.tolist() == [[1, 2, 20, 30]]
    path.write_text(spoil(GOOD_XML))
    with pytest.raises(AnnotationError, match=message):
        read_voc([path], image_folder, ("dog", "cat"))


def test_a_billion_laughs_are_refused_at_once_in_any_encoding(tmp_path, image_folder):
    entities = "".join(f'<!ENTITY l{k} "{f"&l{k - 1};" * 10}">' for k in range(1, 10))
    text = f'<!DOCTYPE annotation [<!ENTITY l0 "lol">{entities}]><annotation><filename>&l9;</filename></annotation>'
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "a.xml").write_bytes(text.encode(encoding))
        with pytest.raises(AnnotationError, match="without <!DOCTYPE>"):
            read_voc([tmp_path / "a.xml"], image_folder)


def test_too_large_voc_files_are_refused(tmp_path, image_folder):
    (tmp_path / "a.xml").write_text(GOOD_XML)
    with pytest.raises(AnnotationError, match="at most 10 bytes"):
        read_voc([tmp_path / "a.xml"], image_folder, max_bytes=10)


def test_an_image_that_two_voc_files_describe_is_refused_the_second_time(tmp_path, image_folder):
    for name in ("a.xml", "b.xml"):
        (tmp_path / name).write_text(GOOD_XML)
    problems = []
    read = read_voc([tmp_path / "a.xml", tmp_path / "b.xml"], image_folder, ("dog",), problems.append)
    assert len(read.records) == 1
    (problem,) = map(str, problems)
    assert re.search(r"b\.xml: filename: expected every image once, got .*0\.png again, as in a\.xml: file", problem)


# ---- YOLO --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 0.5 0.5 0.2", r"expected 5 numbers \(class cx cy w h\), got 4"),
        ("1 0.5 0.5 0.2 0.2 0.9", "expected 5 numbers"),
        ("3 0.5 0.5 0.2 0.2", r"line 2\.class: expected a whole number from 0 to 2, got '3'"),
        ("-1 0.5 0.5 0.2 0.2", r"line 2\.class: expected a whole number"),
        ("1.0 0.5 0.5 0.2 0.2", r"line 2\.class: expected a whole number"),
        ("² 0.5 0.5 0.2 0.2", r"line 2\.class: expected a whole number"),
        ("1" * 5000 + " 0.5 0.5 0.2 0.2", r"line 2\.class: expected a whole number from 0 to 2, got '1111"),
        ("1 0.5 x 0.2 0.2", "line 2: expected numbers"),
        ("1 0.5 nan 0.2 0.2", "line 2: expected fractions"),
        ("1 20 15 4 4", "line 2: expected fractions of the image between 0 and 1"),
        ("1 0.5 0.5 0 0.2", "line 2: expected width > 0, got 0"),
        ("1 0.5 0.5 -0.1 0.2", "line 2: expected width > 0, got -4"),
        ("1 0.95 0.5 0.3 0.2", "line 2: expected a box inside the 40 x 30 image"),
    ],
)
def test_bad_yolo_lines_are_refused_with_file_and_line(line, message, tmp_path, image_folder):
    (tmp_path / "000000.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n", encoding="utf-8")
    with pytest.raises(AnnotationError, match=r"000000\.txt: .*" + message):
        read_yolo([image_folder / "000000.png"], tmp_path, ("a", "b", "c"))


def test_yolo_files_that_are_not_text_or_belong_to_a_broken_image_are_refused(tmp_path, image_folder):
    (tmp_path / "000000.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AnnotationError, match=r"000000\.txt: "):
        read_yolo([image_folder / "000000.png"], tmp_path, ("a",))
    (image_folder / "000001.png").write_bytes(b"nonsense")
    with pytest.raises(AnnotationError, match=r"000001\.txt: .*000001\.png: expected a PNG or JPEG"):
        read_yolo([image_folder / "000001.png"], tmp_path, ("a",))


def test_yolo_images_that_would_share_a_label_file_are_refused(tmp_path, image_folder):
    (image_folder / "000000.jpg").write_bytes((image_folder / "000000.png").read_bytes())
    (tmp_path / "000000.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    problems = []
    read = read_yolo([image_folder / f"000000.{e}" for e in ("jpg", "png")], tmp_path, ("a",), problems.append)
    assert [record.name for record in read.records] == ["000000.jpg"]
    (problem,) = map(str, problems)
    assert "000000.png: expected a label file for every image, got 000000.txt again, as in 000000.jpg" in problem


@pytest.mark.parametrize("text", [b"", b"a\na\n", b"\xff\xff", b"a\n\nb\n", b"a\n__background__\n"])
def test_bad_class_lists_are_refused(text, tmp_path):
    (tmp_path / "classes.txt").write_bytes(text)
    with pytest.raises(AnnotationError, match=r"classes\.txt: (line 2: )?expected"):
        read_classes(tmp_path / "classes.txt")


# ---- LSP ---------------------------------------------------------------------------------------------------------


def test_text_files_may_begin_with_a_byte_order_mark(tmp_path, image_folder):
    (tmp_path / "classes.txt").write_text("dog\ncat\n", encoding="utf-8-sig")
    assert read_classes(tmp_path / "classes.txt") == ("dog", "cat")
    (tmp_path / "000000.txt").write_text("1 0.5 0.5 0.1 0.1\n", encoding="utf-8-sig")
    assert read_yolo([image_folder / "000000.png"], tmp_path, ("a", "b")).records[0].labels.tolist() == [2]


def lsp_matrix() -> np.ndarray:
    joints = np.random.default_rng(0).uniform(5, 25, (3, 14, 1))
    joints[2] = 0
    return joints


BAD_LSP = {
    "another name": (lambda j: {"points": j}, r"joints\.mat: expected the variable joints, 3 x 14 x N or 14 x 3 x N"),
    "another shape": (lambda j: {"joints": j[:, :13]}, r"expected the variable joints"),
    "two dimensions": (lambda j: {"joints": j[:, :, 0]}, r"expected the variable joints"),
    "two people, one image": (
        lambda j: {"joints": np.repeat(j, 2, axis=2)},
        r"one column of joints an image, got 2 for 1",
    ),
    "all unlabelled": (
        lambda j: {"joints": j * np.nan},
        r"joints\[:, :, 0\]: expected at least 2 labelled joints, got 0",
    ),
    "outside": (
        lambda j: {"joints": j + np.reshape([1000, 0, 0], (3, 1, 1))},
        r"joints\[:, :, 0\]: expected joints in the 40 x 30",
    ),
}


@pytest.mark.parametrize("case", BAD_LSP)
def test_bad_lsp_matrices_are_refused_with_file_and_field(case, tmp_path, image_folder):
    spoil, message = BAD_LSP[case]
    savemat(tmp_path / "joints.mat", {"joints": lsp_matrix()})
    assert len(read_lsp(tmp_path / "joints.mat", [image_folder / "000000.png"]).records) == 1
    savemat(tmp_path / "joints.mat", spoil(copy.deepcopy(lsp_matrix())))
    with pytest.raises(AnnotationError, match=message):
        read_lsp(tmp_path / "joints.mat", [image_folder / "000000.png"])


def test_files_that_are_not_matlab_files_are_refused(tmp_path, image_folder):
    savemat(tmp_path / "joints.mat", {"joints": lsp_matrix()})
    good = (tmp_path / "joints.mat").read_bytes()
    for content in (b"", b"MATLAB", good[:150], bytes(500)):
        (tmp_path / "joints.mat").write_bytes(content)
        with pytest.raises(AnnotationError, match=r"joints\.mat: expected"):
            read_lsp(tmp_path / "joints.mat", [image_folder / "000000.png"])


def test_a_small_file_that_expands_enormously_is_refused(tmp_path, image_folder):
    savemat(tmp_path / "joints.mat", {"joints": np.zeros((3, 14, 5000))}, do_compression=True)
    assert (tmp_path / "joints.mat").stat().st_size < 10_000
    with pytest.raises(AnnotationError, match="expected at most 100,000 bytes, but decompressed it has more"):
        read_lsp(tmp_path / "joints.mat", [image_folder / "000000.png"], max_bytes=100_000)


def test_masks_of_pictures_larger_than_any_are_not_painted(coco_tables, write_coco_tables, image_folder):
    """Boxes alone are read: the picture is refused when it is opened."""
    coco_tables["images"][0]["width"] = 10_000_000
    read_coco(write_coco_tables(coco_tables), image_folder)
    coco_tables["annotations"][1]["segmentation"] = [[0, 0, 9, 0, 9, 9]]
    told = r"annotations\[1\]\.segmentation: expected a picture of at most 200,000,000 pixels .*, got 10000000 x 30"
    with pytest.raises(AnnotationError, match=told):
        read_coco(write_coco_tables(coco_tables), image_folder)
