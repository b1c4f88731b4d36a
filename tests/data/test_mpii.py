"""MPII's annotation file, made by hand with scipy in the published structure: what is read, left out and refused."""

import copy

import numpy as np
import pytest
from scipy.io import savemat

from minidet.data.dataset import find_splits, open_dataset
from minidet.data.files import AnnotationError
from minidet.data.formats.mpii import read_mpii
from minidet.data.images import write_image
from minidet.data.joints import MPII_JOINTS, MPII_LIMBS, MPII_SWAP
from minidet.evaluation.pose import head_box_sizes

FILE = "mpii_human_pose_v1_u12_1.mat"


def struct_array(entries: list[dict]) -> np.ndarray:
    """MATLAB's 1 x n array of structs: every entry has all fields, empty where it says nothing."""
    names = list(dict.fromkeys(name for entry in entries for name in entry)) or ["nothing"]
    array = np.zeros((1, len(entries)), [(name, object) for name in names])
    for index, entry in enumerate(entries):
        for name in names:
            array[0, index][name] = entry.get(name, np.zeros((0, 0)))
    return array


def joint(identity: int, x: float, y: float, **more) -> dict:
    return {"x": x, "y": y, "id": identity} | more


def whole_person() -> dict:
    """All 16 joints, at x = 11 + id, y = 21 + id; even ones visible, odd ones not; the head's without a flag."""
    flags = {k: {"is_visible": 1 - k % 2} for k in range(16) if k not in (8, 9)}
    return {
        "x1": 15, "y1": 10, "x2": 18, "y2": 14,
        "points": [joint(k, 11 + k, 21 + k, **flags.get(k, {})) for k in range(16)],
        "scale": 0.1, "objpos": (21.0, 31.0),
    }  # fmt: skip


def a_file() -> list[tuple[str, int, list[dict]]]:
    """(image, img_train, people): two people; one among others; nobody; the test split, where little is told."""
    few = {
        "points": [joint(9, 5.5, 4, is_visible="1"), joint(0, 7, 28, is_visible="0")],
        "scale": 0.125,
        "objpos": (9, 16),
    }
    untold = {"scale": 0.1, "objpos": (3, 3)}
    return [
        ("a.png", 1, [whole_person(), few]),
        ("b.png", 1, [untold, few, {"points": few["points"]}, {}]),
        ("c.png", 1, []),
        ("d.png", 0, [untold]),
        ("e.png", 0, [few]),
    ]


def write(path, images, extra=None) -> None:
    entries = []
    for name, _, people in images:
        rects = []
        for person in people:
            rect = {key: value for key, value in person.items() if key not in ("points", "objpos")}
            if "points" in person:
                rect["annopoints"] = struct_array([{"point": struct_array(person["points"])}])
            if "objpos" in person:
                rect["objpos"] = struct_array([dict(zip("xy", person["objpos"], strict=True))])
            rects.append(rect)
        entry = {"image": struct_array([{"name": name}])}
        if rects:
            entry["annorect"] = struct_array(rects)
        entries.append(entry)
    flags = np.array([flag for _, flag, _ in images])[None]
    release = {"annolist": struct_array(entries), "img_train": flags, "version": "12"}
    savemat(path, {"RELEASE": struct_array([release | (extra or {})])}, do_compression=True)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for name in "abcde":
        write_image(tmp_path / "images" / f"{name}.png", np.zeros((40, 50, 3), np.uint8))
    write(tmp_path / FILE, a_file())
    return tmp_path


def test_people_come_with_their_joints_heads_and_places(folder) -> None:
    read = read_mpii(folder / FILE, folder / "images")
    assert read.classes == ("__background__", "person")
    assert read.joint_names == MPII_JOINTS
    assert [record.name for record in read.records] == ["a.png", "b.png"]
    first = read.records[0]
    assert first.size == (40, 50)
    assert first.keypoints.shape == (2, 16, 3)
    for k in range(16):  # the file counts from 1; a head's flag is not told
        assert first.keypoints[0, k].tolist() == [10 + k, 20 + k, 2 if k % 2 == 0 and k != 8 else 1]
    labelled = [k for k in range(16) if first.keypoints[1, k, 2]]
    assert labelled == [0, 9]
    assert first.keypoints[1, 9].tolist() == [4.5, 3, 2]
    assert first.keypoints[1, 0].tolist() == [6, 27, 1]
    # Squares of 200 * scale pixels around objpos, with the joints, inside the 50 x 40 image.
    assert first.boxes[0].tolist() == [10, 20, 30.5, 40]
    assert first.boxes[1].tolist() == [0, 3, 21, 28]
    assert read.records[1].boxes.tolist() == [[0, 3, 21, 28]]
    assert first.head_boxes[0].tolist() == [14.5, 9.5, 17.5, 13.5]
    assert np.isnan(first.head_boxes[1]).all()
    # As MPII's program: 0.6 times the length of (x2 - x1, y2 - y1), here (3, 4).
    assert head_box_sizes(first.head_boxes).tolist() == pytest.approx([0.6 * 5, np.nan], nan_ok=True)
    assert read.centers["a.png"].tolist() == [[20, 30], [8, 15]]
    assert read.scales["b.png"].tolist() == [0.125]


def test_the_test_split_is_the_rest(folder) -> None:
    assert [record.name for record in read_mpii(folder / FILE, folder / "images", "test").records] == ["e.png"]
    with pytest.raises(ValueError, match="expected split train, val, test, got 'all'"):
        read_mpii(folder / FILE, folder / "images", "all")


def test_every_tenth_training_image_is_kept_to_validate_on(folder) -> None:
    (person,) = a_file()[4][2]
    images = []
    for number in range(24):
        write_image(folder / "images" / f"{number}.png", np.zeros((40, 50, 3), np.uint8))
        images.append((f"{number}.png", int(number not in (0, 5)), [person]))
    write(folder / FILE, images)
    names = {
        split: [record.name for record in read_mpii(folder / FILE, folder / "images", split).records]
        for split in ("train", "val", "test")
    }
    assert names["test"] == ["0.png", "5.png"]
    assert names["val"] == ["11.png", "21.png"]
    assert len(names["train"]) == 20
    assert not set(names["train"]) & {*names["val"], *names["test"]}


def test_it_is_found_in_its_folder_and_mirrored_with_its_sides_swapped(folder) -> None:
    assert find_splits(folder) == ["train", "val", "test"]
    dataset = open_dataset(folder, "train")
    assert len(dataset) == 2
    assert dataset.flip_swap == MPII_SWAP
    assert dataset[0].keypoints.shape == (2, 16, 3)
    before = dataset.digest()
    dataset.records[0].head_boxes[0, 0] -= 1
    assert dataset.digest() != before
    for new, old in enumerate(MPII_SWAP):
        sides = {"right": "left", "left": "right"}
        side, _, rest = MPII_JOINTS[old].partition(" ")
        assert MPII_JOINTS[new] == (f"{sides[side]} {rest}" if side in sides else MPII_JOINTS[old])
    assert {joint for limb in MPII_LIMBS for joint in limb} == set(range(16))
    with pytest.raises(FileNotFoundError, match=r"mpii_human_pose_v1_u12_1\.mat with images/ \(MPII\)"):
        open_dataset(folder, "all")


def _first(images) -> dict:
    return images[0][2][0]


BAD = {
    "a joint twice": (
        lambda f: _first(f)["points"].append(joint(3, 5, 5)),
        r"annolist\[0\]\.annorect\[0\]\.annopoints\.point\[16\]\.id: expected every joint once, got 3 again",
    ),
    "a joint that is none": (
        lambda f: _first(f)["points"][0].update(id=16),
        r"annolist\[0\]\.annorect\[0\]\.annopoints\.point\[0\]\.id: expected a joint 0 to 15, got 16",
    ),
    "half a joint": (
        lambda f: _first(f)["points"][0].update(id=1.5),
        r"point\[0\]\.id: expected a joint 0 to 15, got 1\.5",
    ),
    "no number": (
        lambda f: _first(f)["points"][2].update(x=np.nan),
        r"annopoints\.point\[2\]\.x: expected a finite number, got nan; fix or remove it",
    ),
    "two numbers": (
        lambda f: _first(f)["points"][2].update(y=[1, 2]),
        r"point\[2\]\.y: expected a finite number, got array\(\[1, 2\]\)",
    ),
    "a scale of 0": (lambda f: _first(f).update(scale=0), r"annorect\[0\]\.scale: expected a scale > 0, got 0"),
    "far outside": (
        lambda f: _first(f)["points"][0].update(x=500),
        r"annorect\[0\]: expected a person inside the 50 x 40 image, got joints at",
    ),
    "beside the image": (
        lambda f: _first(f).update(points=[joint(0, -6, 5)], objpos=(-12.0, 5.0)),
        r"annorect\[0\]: expected a person inside the 50 x 40 image",
    ),
    "a missing image": (
        lambda f: f.__setitem__(0, ("z.png", *f[0][1:])),
        r"annolist\[0\]\.image\.name: expected the image .*z\.png, but there is no such file",
    ),
    "an image elsewhere": (
        lambda f: f.__setitem__(0, ("../a.png", *f[0][1:])),
        r"annolist\[0\]\.image\.name: expected a file below",
    ),
    "an image twice": (
        lambda f: f.__setitem__(1, ("a.png", *f[1][1:])),
        r"annolist\[1\]\.image\.name: expected every image once",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_people_are_refused_with_file_and_field_or_left_out(case, folder) -> None:
    spoil, message = BAD[case]
    images = copy.deepcopy(a_file())
    spoil(images)
    write(folder / FILE, images)
    with pytest.raises(AnnotationError, match=message):
        read_mpii(folder / FILE, folder / "images")
    problems = []
    rest = read_mpii(folder / FILE, folder / "images", on_problem=problems.append)
    assert len(problems) == 1
    assert len(rest.records) == 1


def test_files_that_are_not_mpiis_are_refused(folder) -> None:
    good = (folder / FILE).read_bytes()
    for content in (b"", b"MATLAB", good[:150], good[: len(good) // 2], bytes(500)):
        (folder / FILE).write_bytes(content)
        with pytest.raises(AnnotationError, match=r"mpii_human_pose_v1_u12_1\.mat: expected"):
            read_mpii(folder / FILE, folder / "images")
    for variables, message in (
        ({"joints": np.zeros(3)}, "expected the variable RELEASE, found none"),
        ({"RELEASE": np.zeros(3)}, r"RELEASE\.annolist: expected this field, but it is missing"),
        (
            {"RELEASE": struct_array([{"annolist": struct_array([{}, {}]), "img_train": [1]}])},
            "one flag an image, got 1 for 2",
        ),
        ({"RELEASE": struct_array([{"annolist": np.ones((1, 2)), "img_train": [1, 1]}])}, None),
    ):
        savemat(folder / FILE, variables)
        if message is None:  # images without people
            assert read_mpii(folder / FILE, folder / "images").records == []
            continue
        with pytest.raises(AnnotationError, match=message):
            read_mpii(folder / FILE, folder / "images")


def test_a_small_file_that_expands_enormously_is_refused(folder) -> None:
    savemat(folder / FILE, {"RELEASE": np.zeros((3, 14, 5000))}, do_compression=True)
    with pytest.raises(AnnotationError, match="expected at most 100,000 bytes, but decompressed it has more"):
        read_mpii(folder / FILE, folder / "images", max_bytes=100_000)


def test_one_image_with_one_person_of_one_joint_is_read_though_scipy_squeezes_it(folder) -> None:
    write(folder / FILE, [("a.png", 1, [{"points": [joint(4, 8, 9)], "scale": 0.05, "objpos": (8, 9)}])])
    (record,) = read_mpii(folder / FILE, folder / "images").records
    assert record.keypoints[0, 4].tolist() == [7, 8, 1]
