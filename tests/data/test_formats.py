"""Writing and reading back in all four formats, and COCO files against pycocotools."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from scipy.io import loadmat, savemat

from minidet.data.dataset import Dataset
from minidet.data.formats.coco import read_coco, write_coco
from minidet.data.formats.lsp import read_lsp, write_lsp
from minidet.data.formats.record import Annotations
from minidet.data.formats.voc import read_voc, write_voc
from minidet.data.formats.yolo import read_classes, read_yolo, write_yolo
from minidet.data.joints import COCO_JOINTS, LSP_JOINTS, MPII_JOINTS
from minidet.data.masks import RunLengths, counts_to_mask, mask_to_counts, polygons_to_mask, unpack_counts

# pycocotools 2.0 converts its masks in a way that NumPy 2 warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CLASSES = ("__background__", "cat", "dog", "R&D <car>")  # a name that XML has to escape
MASKS = hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def assert_same(read, written, boxes_to: float = 0.0) -> None:
    assert [record.name for record in read] == [record.name for record in written]
    for a, b in zip(read, written, strict=True):
        np.testing.assert_allclose(a.boxes, b.boxes, atol=boxes_to, rtol=0)
        np.testing.assert_array_equal(a.labels, b.labels)
        assert a.boxes.dtype == np.float64
        assert a.labels.dtype == np.int64
        assert a.size == b.size
        assert a.path.is_file()


def test_coco_comes_back_as_written(tmp_path, records, image_folder):
    write_coco(tmp_path / "a.json", records, CLASSES, category_ids=[5, 17, 90])
    read = read_coco(tmp_path / "a.json", image_folder)
    assert_same(read.records, records)
    assert read.classes == CLASSES
    assert read.category_ids == (5, 17, 90)
    for a, b in zip(read.records, records, strict=True):
        np.testing.assert_array_equal(a.iscrowd, b.iscrowd)
        np.testing.assert_array_equal(a.areas, b.areas)
    masks = Dataset(read)[0].masks
    np.testing.assert_array_equal(masks, records[0].segmentations)


def test_pycocotools_reads_what_we_write(tmp_path, records):
    write_coco(tmp_path / "a.json", records, CLASSES)
    coco = COCO(str(tmp_path / "a.json"))
    assert {c["id"]: c["name"] for c in coco.loadCats(coco.getCatIds())} == dict(enumerate(CLASSES[1:], start=1))
    assert min(coco.getAnnIds()) >= 1
    for image_id, record in zip(coco.getImgIds(), records, strict=True):
        assert coco.loadImgs(image_id)[0]["file_name"] == record.name
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image_id))
        for index, annotation in enumerate(annotations):
            x, y, width, height = annotation["bbox"]
            np.testing.assert_array_equal([x, y, x + width, y + height], record.boxes[index])
            assert annotation["category_id"] == record.labels[index]
            assert annotation["iscrowd"] == record.iscrowd[index]
            np.testing.assert_array_equal(coco.annToMask(annotation), record.segmentations[index])


@pytest.mark.parametrize("names", [LSP_JOINTS, MPII_JOINTS, COCO_JOINTS, ("left", "right")])
def test_joints_are_written_with_their_limbs(tmp_path, names):
    """Each is a joint's name twice; other joints have none."""
    write_coco(tmp_path / "a.json", [], ("__background__", "person"), joint_names=names)
    (category,) = json.loads((tmp_path / "a.json").read_text())["categories"]
    assert category["keypoints"] == list(names)
    limbs = {frozenset(names[number - 1] for number in limb) for limb in category["skeleton"]}
    shin = {frozenset(("left knee", "left ankle")), frozenset(("left_knee", "left_ankle"))}
    assert len(limbs & shin) == (len(names) > 2)
    assert len(limbs) == {14: 13, 16: 15, 17: 19, 2: 0}[len(names)]


def test_arbitrary_coco_ids_become_labels_from_1_and_id_0_means_nothing_special(
    coco_tables, write_coco_tables, image_folder
):
    read = read_coco(write_coco_tables(coco_tables), image_folder)
    assert read.classes == ("__background__", "thing", "dog", "toothbrush")
    assert read.category_ids == (0, 18, 90)
    first, second = read.records
    assert (first.name, second.name) == ("000000.png", "000001.png")
    assert first.boxes.tolist() == [[0, 0, 40, 30]]
    assert first.iscrowd.tolist() == [True]
    assert second.boxes.tolist() == [[1, 2, 4.5, 6], [10, 10, 15, 15]]
    assert second.labels.tolist() == [3, 2]
    assert second.areas.tolist() == [14.0, 25.0]


@settings(max_examples=60, deadline=None)
@given(mask=MASKS)
def test_run_lengths_are_pycocotools_run_lengths(mask):
    counts = mask_to_counts(mask)
    packed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert counts == unpack_counts(packed["counts"].decode())
    np.testing.assert_array_equal(
        coco_mask.decode(coco_mask.frPyObjects({"size": list(mask.shape), "counts": counts}, *mask.shape)), mask
    )
    np.testing.assert_array_equal(counts_to_mask(counts, *mask.shape), mask)


@given(hnp.arrays(bool, st.tuples(st.integers(0, 4), st.integers(1, 12), st.integers(1, 12))), st.data())
def test_masks_kept_as_run_lengths_are_the_masks(masks, data):
    kept = RunLengths(masks)
    assert kept.shape == masks.shape
    assert len(kept) == len(masks)
    np.testing.assert_array_equal(np.asarray(kept), masks)
    assert np.asarray(kept).dtype == bool
    assert np.asarray(kept, np.uint8).dtype == np.uint8
    some = data.draw(hnp.arrays(bool, len(masks)))
    for which in (some, slice(1, None), np.flatnonzero(some)[::-1]):
        np.testing.assert_array_equal(np.asarray(kept[which]), masks[which])
    assert len(list(kept)) == len(masks)
    for mask, painted in zip(masks, kept, strict=True):
        np.testing.assert_array_equal(painted, mask)


def test_long_and_shrinking_run_lengths_are_unpacked():
    mask = np.zeros((400, 300), bool)
    mask[:, 100:] = True
    mask[7, 120] = False
    packed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    np.testing.assert_array_equal(counts_to_mask(unpack_counts(packed), 400, 300), mask)


@pytest.mark.parametrize("text", ["\x00", "é", "o", "ooooooooooooo"])
def test_bad_packed_run_lengths_are_refused(text):
    with pytest.raises(ValueError, match="packed run lengths"):
        unpack_counts(text)


@settings(max_examples=1000, deadline=None)
@given(seed=st.integers(0, 10**6), corners=st.integers(3, 12), whole=st.booleans(), outside=st.booleans())
def test_a_polygons_pixels_are_pycocotools(seed, corners, whole, outside):
    """Also of polygons that cross themselves, leave the image, or go through a corner twice."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 50, 2).tolist()
    points = rng.uniform(-10, 60, (corners, 2)) if outside else rng.uniform(0, 1, (corners, 2)) * (width, height)
    points = np.round(points) if whole else points
    points = points[rng.permutation(np.repeat(np.arange(corners), 1 + (rng.random(corners) < 0.2)))]
    theirs = coco_mask.decode(coco_mask.frPyObjects([points.ravel().tolist()], height, width))[..., 0]
    np.testing.assert_array_equal(polygons_to_mask([points], height, width), theirs)


def test_a_polygons_pixels_by_hand():
    """Those whose middle it contains, and a crossing in between at the nearest fifth of a pixel."""
    found = polygons_to_mask([np.array([[1.0, 1], [4, 1], [4, 3], [1, 3]])], 5, 6)
    expected = np.zeros((5, 6), bool)
    expected[1:3, 1:4] = True
    np.testing.assert_array_equal(found, expected)
    triangle = polygons_to_mask([np.array([[0.0, 0], [6, 0], [0, 6]])], 6, 6)
    assert triangle.sum(axis=0).tolist() == [5, 4, 3, 2, 1, 0]  # middles on the line are outside


def test_several_polygons_are_united():
    polygons = [np.array([[2.0, 2], [20, 4], [11, 25]]), np.array([[15.0, 2], [38, 2], [38, 28], [15, 28]])]
    theirs = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([p.ravel().tolist() for p in polygons], 30, 40)))
    np.testing.assert_array_equal(polygons_to_mask(polygons, 30, 40), theirs)


def test_polygons_and_packed_masks_of_a_coco_file_are_painted(coco_tables, write_coco_tables, image_folder):
    square = np.zeros((30, 40), np.uint8, order="F")
    square[10:15, 10:15] = 1
    packed = coco_mask.encode(square)["counts"].decode()
    coco_tables["annotations"][0]["segmentation"] = [[1, 2, 4, 2, 4, 6, 1, 6]]
    coco_tables["annotations"][2]["segmentation"] = {"size": [30, 40], "counts": packed}
    masks = Dataset(read_coco(write_coco_tables(coco_tables), image_folder))[1].masks
    expected = np.zeros((30, 40), bool)
    expected[2:6, 1:4] = True
    np.testing.assert_array_equal(masks, [expected, square])


def test_a_box_that_is_missing_is_inferred_from_the_mask(coco_tables, write_coco_tables, image_folder):
    """Of polygons their corners, held in the image; of run lengths what pycocotools' toBbox says."""
    corner = np.zeros((30, 40), np.uint8, order="F")
    corner[3:7, 20:29] = corner[26:, 33] = 1
    packed = coco_mask.encode(corner)
    polygons, run_lengths = coco_tables["annotations"][0], coco_tables["annotations"][2]
    polygons["segmentation"] = [[1.5, 2, 4, 2, 4, 6.25], [30, 10, 41, 12, 30, 20]]
    run_lengths["segmentation"] = {"size": [30, 40], "counts": packed["counts"].decode()}
    del polygons["bbox"], run_lengths["bbox"]
    boxes = read_coco(write_coco_tables(coco_tables), image_folder).records[1].boxes
    x, y, width, height = coco_mask.toBbox(packed)
    np.testing.assert_array_equal(boxes, [[1.5, 2, 40, 20], [x, y, x + width, y + height]])


def test_an_area_that_is_missing_is_that_of_the_mask(coco_tables, write_coco_tables, image_folder):
    """A triangle is half of its box, which is the area of what has no mask."""
    polygons, box, run_lengths = coco_tables["annotations"]
    for annotation in (polygons, box, run_lengths):
        annotation.pop("area", None)
    polygons["segmentation"] = [[0, 0, 20, 0, 0, 20]]
    run_lengths["segmentation"] = {"size": [30, 40], "counts": [3, 5, 100, 7, 1200 - 115]}
    records = read_coco(write_coco_tables(coco_tables), image_folder).records
    triangle = coco_mask.decode(coco_mask.frPyObjects(polygons["segmentation"], 30, 40)).sum()
    assert 150 < triangle < 250
    np.testing.assert_array_equal(records[1].areas, [triangle, 12])
    (area,) = np.concatenate([record.areas for number, record in enumerate(records) if number != 1])
    assert area == box["bbox"][2] * box["bbox"][3]


def test_voc_comes_back_as_written(tmp_path, records, image_folder):
    write_voc(tmp_path / "voc", records, CLASSES)
    read = read_voc(sorted((tmp_path / "voc").glob("*.xml")), image_folder, CLASSES[1:])
    assert_same(read.records, records, boxes_to=1e-9)
    assert read.records[2].difficult.tolist() == [True]
    assert read.classes == CLASSES


def test_vocs_pixels_count_from_1_and_include_both_ends(tmp_path, image_folder):
    (tmp_path / "a.xml").write_text(
        "<annotation><filename>000000.png</filename><size><width>40</width><height>30</height></size>"
        "<object><name>dog</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>1</xmax><ymax>30</ymax></bndbox></object>"
        "</annotation>"
    )
    read = read_voc([tmp_path / "a.xml"], image_folder)
    assert read.records[0].boxes.tolist() == [[0, 0, 1, 30]]
    assert read.classes[12] == "dog"  # VOC's own list of twenty
    assert read.records[0].labels.tolist() == [12]


def test_yolo_comes_back_as_written_without_its_crowds(tmp_path, records, image_folder):
    write_yolo(tmp_path / "labels", records)
    read = read_yolo(sorted(image_folder.iterdir()), tmp_path / "labels", CLASSES[1:])
    assert read.classes == CLASSES
    assert_same(read.records[:2], records[:2], boxes_to=1e-7)
    assert len(read.records[2].boxes) == 0


def test_yolos_numbers_are_centre_and_size_in_fractions_and_classes_from_0(tmp_path, image_folder):
    (tmp_path / "000000.txt").write_text("2 0.5 0.5 0.25 0.2\n\n")
    read = read_yolo([image_folder / "000000.png", image_folder / "000001.png"], tmp_path, ("a", "b", "c"))
    np.testing.assert_allclose(read.records[0].boxes, [[15, 12, 25, 18]])
    assert read.records[0].labels.tolist() == [3]
    assert len(read.records[1].boxes) == 0  # no file, no objects
    (tmp_path / "classes.txt").write_text("a\nb\n\n")
    assert read_classes(tmp_path / "classes.txt") == ("a", "b")


def person_records(records):
    rng = np.random.default_rng(5)
    for record in records:
        joints = np.column_stack([rng.uniform(5, 25, (14, 2)), rng.integers(1, 3, 14)])
        joints[4] = 0
        record.keypoints = joints[None]
        record.boxes, record.labels = np.array([[4.0, 4, 27, 27]]), np.array([1])
        record.iscrowd = record.difficult = np.zeros(1, bool)
        record.areas, record.segmentations = np.array([100.0]), None
    return records


def test_lsp_comes_back_as_written_and_scipy_sees_lsps_layout(tmp_path, records):
    people = person_records(records)
    write_lsp(tmp_path / "joints.mat", people)
    matrix = loadmat(tmp_path / "joints.mat")["joints"]
    assert matrix.shape == (3, 14, 3)
    assert matrix[0, 1, 2] == people[2].keypoints[0, 1, 0]
    np.testing.assert_array_equal(matrix[2, :, 0] == 1, people[0].keypoints[0, :, 2] == 1)  # row 3: occluded
    read = read_lsp(tmp_path / "joints.mat", [record.path for record in people])
    assert read.classes == ("__background__", "person")
    for a, b in zip(read.records, people, strict=True):
        np.testing.assert_array_equal(a.keypoints, b.keypoints)
        labelled = b.keypoints[0, b.keypoints[0, :, 2] > 0, :2]
        assert (a.boxes[0, :2] <= labelled.min(axis=0)).all()
        assert (a.boxes[0, 2:] >= labelled.max(axis=0)).all()


def test_the_extended_lsp_layout_has_visible_in_its_third_column(tmp_path, image_folder):
    joints = np.random.default_rng(0).uniform(5, 25, (14, 3, 1))
    joints[:, 2, 0] = [1, 0] * 7
    savemat(tmp_path / "joints.mat", {"joints": joints})
    read = read_lsp(tmp_path / "joints.mat", [image_folder / "000000.png"]).records[0].keypoints[0]
    assert read[:, 2].tolist() == [2, 0] * 7
    np.testing.assert_array_equal(read[::2, :2], joints[::2, :2, 0])


def test_lsps_boxes_are_the_joints_extent_and_a_margin(tmp_path, image_folder):
    joints = np.full((3, 14, 1), np.nan)
    joints[:, 0, 0], joints[:, 5, 0] = (10, 8, 0), (19, 27, 1)  # pixels 10 to 19 and 8 to 27: 10 x 20, and 5 % of 20
    savemat(tmp_path / "joints.mat", {"joints": joints})
    (record,) = read_lsp(tmp_path / "joints.mat", [image_folder / "000000.png"]).records
    assert record.boxes.tolist() == [[9, 7, 21, 29]]


def test_lsp_holds_one_person_an_image(tmp_path, records):
    with pytest.raises(ValueError, match=r"exactly one person in 000000\.png, got 0"):
        write_lsp(tmp_path / "joints.mat", records)


def test_coco_keypoints_come_back_and_pycocotools_sees_them(tmp_path, records, image_folder):
    people = person_records(records)
    write_coco(tmp_path / "a.json", people, ("__background__", "person"), joint_names=LSP_JOINTS)
    read = read_coco(tmp_path / "a.json", image_folder)
    assert isinstance(read, Annotations)
    assert read.joint_names == LSP_JOINTS
    coco = COCO(str(tmp_path / "a.json"))
    assert len(coco.loadCats(1)[0]["skeleton"]) == 13
    for image_id, (a, b) in enumerate(zip(read.records, people, strict=True), start=1):
        np.testing.assert_array_equal(a.keypoints, b.keypoints)
        annotation = coco.loadAnns(coco.getAnnIds(imgIds=image_id))[0]
        assert annotation["num_keypoints"] == 13
        np.testing.assert_array_equal(np.reshape(annotation["keypoints"], (14, 3)), b.keypoints[0])


def test_a_file_that_is_written_again_is_never_half_written(tmp_path, records, monkeypatch):
    write_coco(tmp_path / "a.json", records, CLASSES)
    before = (tmp_path / "a.json").read_bytes()

    def fail(*_) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("minidet.data.files.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_coco(tmp_path / "a.json", records[:1], CLASSES)
    assert (tmp_path / "a.json").read_bytes() == before
    assert json.loads(before)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["a.json"]


@pytest.mark.parametrize("name", ["a/x.png", "x.jpg"])
def test_images_that_would_share_an_annotation_file_are_refused_before_anything_is_written(tmp_path, records, name):
    records[0].name, records[1].name = "x.png", name
    for write in (lambda: write_voc(tmp_path / "out", records, "bcde"), lambda: write_yolo(tmp_path / "out", records)):
        with pytest.raises(ValueError, match=f"whose names differ, got x.png and {name}"):
            write()
    assert not (tmp_path / "out").exists()
