"""COCO's result files: written and read back, read by pycocotools, and refused with file, entry and field."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest

from minidet.data.dataset import Dataset
from minidet.data.files import AnnotationError
from minidet.data.formats.record import Annotations, Record
from minidet.data.masks import mask_to_counts, pack_counts, unpack_counts
from minidet.evaluation import coco_curves, read_results, write_results

HEIGHT, WIDTH, JOINTS = 20, 30, 5
IDS, CATEGORIES = [42, 7, 100], (3, 90)
KINDS = ("boxes", "masks", "keypoints")


@pytest.fixture
def dataset() -> Dataset:
    records = [Record(Path(f"{name}.png"), name, (HEIGHT, WIDTH)) for name in "abc"]
    names = tuple(f"joint {i}" for i in range(JOINTS))
    return Dataset(Annotations(records, ("__background__", "cat", "dog"), CATEGORIES, names))


def random_predictions(seed: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    predictions = []
    for count in (3, 0, 2):
        corners = np.sort(rng.random((count, 2, 2)).astype(np.float32) * HEIGHT, axis=1)
        predictions.append({
            "boxes": corners.reshape(count, 4),
            "labels": rng.integers(1, 3, count),
            "scores": rng.random(count).astype(np.float32),
            "masks": rng.random((count, HEIGHT, WIDTH)) < 0.3,
            "keypoints": rng.random((count, JOINTS, 3)).astype(np.float32) * HEIGHT,
        })  # fmt: skip
    return predictions


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_back_to_the_bit(kind: str, dataset: Dataset, tmp_path: Path) -> None:
    predictions = random_predictions(0)
    write_results(tmp_path / "results.json", predictions, IDS, CATEGORIES, kind)
    back = read_results(tmp_path / "results.json", dataset, IDS)
    assert len(back) == 3
    for found, expected in zip(back, predictions, strict=True):
        assert set(found) == {kind, "labels", "scores"}
        for key, values in found.items():
            np.testing.assert_array_equal(values, expected[key])
        assert found["labels"].dtype == np.int64


def test_ids_may_be_numpys(dataset: Dataset, tmp_path: Path) -> None:
    for ids in (np.array([3, 5, 8]), [3, 5, 8]):
        write_results(tmp_path / f"{type(ids).__name__}.json", random_predictions(0), ids, CATEGORIES)
    assert (tmp_path / "ndarray.json").read_bytes() == (tmp_path / "list.json").read_bytes()


def test_an_entry_is_as_coco_wants_it(tmp_path: Path) -> None:
    found = {"boxes": np.array([[1, 2, 4, 6.5]], np.float32), "labels": np.array([2]), "scores": np.array([0.5])}
    write_results(tmp_path / "results.json", [found], [7], CATEGORIES)
    assert json.loads((tmp_path / "results.json").read_text()) == [
        {"image_id": 7, "category_id": 90, "score": 0.5, "bbox": [1, 2, 3, 4.5]}
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_pycocotools_reads_the_same(kind: str, tmp_path: Path) -> None:
    """The results of its evaluation, with other predictions as the truth, are ours."""
    module = pytest.importorskip("pycocotools.cocoeval", reason="pycocotools is the oracle; pip install '.[test]'")
    from pycocotools import mask as rle
    from pycocotools.coco import COCO

    predictions, truth = random_predictions(1), random_predictions(1)
    for found in predictions:
        found["masks"][:, :5] = False
        found["keypoints"][..., :2] += 0.5
        found["boxes"][:, 2:] += 0.5
    for target in truth:
        del target["scores"]
        target["keypoints"][..., 2] = 2
    write_results(tmp_path / "results.json", predictions, IDS, CATEGORIES, kind)
    coco = COCO()
    coco.dataset = {"images": [{"id": i, "height": HEIGHT, "width": WIDTH} for i in IDS], "annotations": [],
                    "categories": [{"id": i} for i in CATEGORIES]}  # fmt: skip
    for image_id, target in zip(IDS, truth, strict=True):
        for row, (x1, y1, x2, y2) in enumerate(target["boxes"].astype(float)):
            coco.dataset["annotations"].append({
                "id": 1 + len(coco.dataset["annotations"]), "image_id": image_id, "iscrowd": 0, "num_keypoints": JOINTS,
                "category_id": CATEGORIES[target["labels"][row] - 1], "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1), "keypoints": target["keypoints"][row].ravel().tolist(),
                "segmentation": rle.encode(np.asfortranarray(target["masks"][row].astype(np.uint8))),
            })  # fmt: skip
        target["areas"] = np.prod(target["boxes"][:, 2:].astype(float) - target["boxes"][:, :2], axis=1)
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        types = {"boxes": "bbox", "masks": "segm", "keypoints": "keypoints"}
        evaluation = module.COCOeval(coco, coco.loadRes(str(tmp_path / "results.json")), types[kind])
        evaluation.params.kpt_oks_sigmas = np.full(JOINTS, 0.067)
        evaluation.evaluate()
        evaluation.accumulate()
    by_id = np.argsort(IDS)  # pycocotools' order of images
    curves = coco_curves([predictions[i] for i in by_id], [truth[i] for i in by_id], 2, kind)
    np.testing.assert_allclose(curves.precision, evaluation.eval["precision"], atol=1e-12)
    assert 0 < curves.average_precision() < 1


def test_run_lengths_are_packed_as_pycocotools_packs_them() -> None:
    rle = pytest.importorskip("pycocotools.mask", reason="pycocotools is the oracle; pip install '.[test]'")
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (7, 9), (200, 300), (500, 400)):
        for fraction in (0, 0.001, 0.5, 0.999, 1):
            mask = rng.random(shape) < fraction
            packed = rle.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
            assert pack_counts(mask_to_counts(mask)) == packed
            assert unpack_counts(packed) == mask_to_counts(mask)


def test_plain_run_lengths_are_read_too(dataset: Dataset, tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[3:9, 4] = True
    entry = {
        "image_id": 2,
        "category_id": 3,
        "score": 1,
        "segmentation": {"size": [HEIGHT, WIDTH], "counts": [83, 6, 511]},
    }
    (tmp_path / "results.json").write_text(json.dumps([entry]))
    found = read_results(tmp_path / "results.json", dataset)
    np.testing.assert_array_equal(found[1]["masks"], mask[None])
    assert found[0]["masks"].shape == (0, HEIGHT, WIDTH)


def test_of_entries_that_say_several_kinds_the_wanted_one_is_read(dataset: Dataset, tmp_path: Path) -> None:
    path, entry = tmp_path / "results.json", {"image_id": 2, "category_id": 3, "score": 1}
    empty = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}
    path.write_text(json.dumps([entry | {"bbox": [1, 2, 3, 4], "segmentation": empty}]))
    assert read_results(path, dataset, kind="boxes")[1]["boxes"].tolist() == [[1, 2, 4, 6]]
    assert read_results(path, dataset)[1].keys() == {"masks", "labels", "scores"}
    path.write_text(json.dumps([entry | {"segmentation": empty}]))
    with pytest.raises(ValueError, match=r"entry 0.bbox: expected this field"):
        read_results(path, dataset, kind="boxes")


def test_a_file_without_results_has_none(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("[]")
    assert [len(found["labels"]) for found in read_results(tmp_path / "results.json", dataset)] == [0, 0, 0]


GOOD = {"image_id": 1, "category_id": 3, "score": 0.5}
BOX, MASK = [1, 2, 3, 4], {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"bbox": BOX, "image_id": 4}, r"entry 1.image_id: expected the id of an image of the data set, got 4"),
        ({"bbox": BOX, "image_id": True}, r"entry 1.image_id: .*got True"),
        ({"bbox": BOX, "image_id": [1]}, r"entry 1.image_id: .*got \[1\]"),
        ({"bbox": BOX, "category_id": 1}, r"entry 1.category_id: expected the id of a class of the data set, got 1"),
        ({"bbox": BOX, "score": float("nan")}, r"entry 1.score: expected a finite number, got nan"),
        ({"bbox": BOX, "score": "0.5"}, r"entry 1.score: expected a finite number, got '0.5'"),
        ({"bbox": BOX, "score": None}, r"entry 1.score: expected a finite number, got None"),
        ({"bbox": [1, 2, -3, 4]}, r"entry 1.bbox: expected width and height >= 0, got -3 and 4"),
        ({"bbox": [1, 2, 3]}, r"entry 1.bbox: expected x, y, width, height, got \[1, 2, 3\]"),
        ({"bbox": [1, 2, 3, float("inf")]}, r"entry 1.bbox: expected a finite number, got inf"),
        ({"bbox": [1, 2, 3, 10**400]}, r"entry 1.bbox: expected a finite number, got 1000"),
        ({"bbox": {"x": 1}}, r"entry 1.bbox: expected x, y, width, height, got \{'x': 1\}"),
        ({}, r"entry 1.bbox: expected this field, got none; are they results of another kind\?"),
        ({"segmentation": MASK | {"size": [WIDTH, HEIGHT]}}, r"segmentation.size: .*\[20, 30\], got \[30, 20\]"),
        ({"segmentation": MASK | {"counts": [5]}}, r"entry 1.segmentation.counts: .*add up to 20 x 30 = 600"),
        ({"segmentation": MASK | {"counts": [-1, 601]}}, r"entry 1.segmentation.counts: .*whole numbers >= 0"),
        ({"segmentation": MASK | {"counts": [600.0]}}, r"entry 1.segmentation.counts: .*whole numbers >= 0"),
        ({"segmentation": MASK | {"counts": "\x7f"}}, r"entry 1.segmentation.counts: expected packed run lengths"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6]]}, r"entry 1.segmentation: expected a JSON object"),
        ({"keypoints": [1, 2, 3]}, r"entry 1.keypoints: expected 5 x 3 numbers, the data.*got \[1, 2, 3\]"),
        ({"keypoints": [None] * 15}, r"entry 1.keypoints: expected a finite number, got None"),
        (5, r"entry 1: expected a JSON object, got 5"),
    ],
)  # fmt: skip
def test_bad_entries_are_refused_with_their_place(entry, message: str, dataset: Dataset, tmp_path: Path) -> None:
    good = {"bbox": BOX}
    if isinstance(entry, dict) and {"segmentation", "keypoints"} & set(entry):
        good = {"segmentation": MASK} if "segmentation" in entry else {"keypoints": [1.0] * 15}
    path = tmp_path / "results.json"
    path.write_text(json.dumps([GOOD | good, GOOD | entry if isinstance(entry, dict) else entry]))
    with pytest.raises(AnnotationError, match=rf"results\.json: .*{message}"):
        read_results(path, dataset)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "expected a JSON list of results, got {}"),
        ("[", "expected a JSON file, but reading it failed"),
        ("[" * 100_000, "expected a JSON file, but reading it failed"),
        ("[{}]", "entry 0: expected a JSON object with bbox, segmentation, keypoints, as COCO.s results have them"),
        (" " * 2000, "expected at most 1,000 bytes, got 2,000"),
    ],
)
def test_files_that_hold_no_results_are_refused(text: str, message: str, dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(AnnotationError, match=rf"results\.json: .*{message}"):
        read_results(path, dataset, max_bytes=1000 if text.isspace() else 1 << 20)
    with pytest.raises(AnnotationError, match="found nothing there"):
        read_results(tmp_path / "none.json", dataset)


def test_what_cannot_be_written_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    path, found = tmp_path / "results.json", random_predictions(0)
    with pytest.raises(ValueError, match="expected an id an image, got 2 for 3"):
        write_results(path, found, IDS[:2], CATEGORIES)
    with pytest.raises(
        ValueError, match=r"labels from 1 to 1, the number of category_ids, got . to 2 in predictions\[0\]"
    ):
        write_results(path, found, IDS, CATEGORIES[:1])
    with pytest.raises(ValueError, match="kind boxes, masks, keypoints, got 'polygons'"):
        write_results(path, found, IDS, CATEGORIES, "polygons")
    found[0]["scores"][1] = np.nan
    with pytest.raises(ValueError, match=r"finite scores, got others in predictions\[0\]"):
        write_results(path, found, IDS, CATEGORIES)
    assert not path.exists()
    with pytest.raises(ValueError, match="kind boxes, masks, keypoints, got 'bbox'"):
        read_results(path, dataset, kind="bbox")
    with pytest.raises(ValueError, match="expected an id an image, got 1 for 3"):
        read_results(path, dataset, [1])
