"""Selective Search: an image of three stripes by hand, hierarchies on pixels, the ranking in plain loops."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

import minidet_kernels as mk
from minidet.data import make_scene
from minidet.proposals import MODES, Hierarchy, Mode, build_hierarchies, rank, selective_search

# Red, orange and blue, 40 x 10, 40 x 20 and 40 x 30 pixels.
STRIPES = np.repeat(
    np.array([[[200, 30, 30]] * 10 + [[210, 60, 30]] * 20 + [[30, 40, 200]] * 30], np.uint8), 40, axis=0
)
SMALL = replace(MODES["quality"], ks=(5, 20))  # for images of a few pixels


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    return make_scene(np.random.default_rng(3), size=64).image


def test_three_stripes_by_hand() -> None:
    """By colour red and orange have more in common than either has with blue; with the sizes alone, the two smaller."""
    for letters in ("CTSF", "S"):
        (hierarchy,) = build_hierarchies(STRIPES, Mode(("HSV",), (letters,), (50,)))
        assert hierarchy.labels[0].tolist() == [0] * 10 + [1] * 20 + [2] * 30
        assert hierarchy.merges.tolist() == [[0, 1], [2, 3]]
        assert hierarchy.sizes.tolist() == [400, 800, 1200, 1200, 2400]
        boxes = [[0, 0, 10, 40], [10, 0, 30, 40], [30, 0, 60, 40], [0, 0, 30, 40], [0, 0, 60, 40]]
        assert hierarchy.boxes.tolist() == boxes
    boxes = selective_search(STRIPES, Mode(("HSV",), ("S",), (50,)))
    assert sorted(boxes.tolist()) == sorted(hierarchy.boxes.tolist())
    assert boxes.dtype == np.float32


@pytest.mark.parametrize(("mode", "count"), [("single", 1), ("fast", 8), ("quality", 80)])
def test_the_papers_modes(mode: str, count: int) -> None:
    spaces = {"single": ["HSV"], "fast": ["HSV", "Lab"], "quality": ["HSV", "Lab", "rgI", "H", "I"]}[mode]
    ks = {"single": [100], "fast": [50, 100], "quality": [50, 100, 150, 300]}[mode]
    letters = {"single": ["CTSF"], "fast": ["CTSF", "TSF"], "quality": ["CTSF", "TSF", "F", "S"]}[mode]
    found = [(h.space, h.k, h.similarity) for h in build_hierarchies(STRIPES, mode)]
    assert found == list(product(spaces, ks, letters))
    assert len(found) == count


def test_segmentation_and_similarities_are_of_the_same_color_space(monkeypatch, scene) -> None:
    seen = {"felzenszwalb": [], "color_histograms": [], "texture_histograms": []}
    for name, calls in seen.items():
        kernel = getattr(mk, name)
        monkeypatch.setattr(
            mk, name, lambda *a, kernel=kernel, calls=calls, **o: calls.append((a, o)) or kernel(*a, **o)
        )
    list(build_hierarchies(scene, "fast"))
    for segmented, *measured in zip(*seen.values(), strict=True):
        for (image, _), _ in measured:
            assert image is segmented[0][0]
    assert [(a[1], a[2], o["min_size"]) for a, o in seen["felzenszwalb"]] == [(50, 0.8, 50), (100, 0.8, 100)] * 2


def test_references_and_fast_kernels_give_the_same_hierarchies() -> None:
    image = make_scene(np.random.default_rng(4), size=64).image[20:40, 20:44]
    found = list(build_hierarchies(image, SMALL))
    with mk.use("reference"):
        expected = list(build_hierarchies(image, SMALL))
    assert len(found) == 40
    assert sum(len(h.merges) for h in found) > 400
    for ours, reference in zip(found, expected, strict=True):
        assert (ours.space, ours.k, ours.similarity) == (reference.space, reference.k, reference.similarity)
        for name in ("labels", "merges", "similarities", "boxes", "sizes"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(reference, name))


def test_every_region_is_what_its_pixels_are(scene) -> None:
    for hierarchy in build_hierarchies(scene, "single"):
        members = [[number] for number in range(hierarchy.labels.max() + 1)]
        for merge, (a, b) in enumerate(hierarchy.merges):
            members.append(members[a] + members[b])
            left = hierarchy.labels_after(merge + 1)
            pixels = np.isin(hierarchy.labels, members[-1])
            np.testing.assert_array_equal(left == len(members) - 1, pixels)
            assert len(np.unique(left)) == len(hierarchy.merges) - merge
        for region, box, size in zip(members, hierarchy.boxes, hierarchy.sizes, strict=True):
            rows, columns = np.nonzero(np.isin(hierarchy.labels, region))
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert size == len(rows)
        np.testing.assert_array_equal(hierarchy.labels_after(0), hierarchy.labels)
        assert hierarchy.boxes[-1].tolist() == [0, 0, 64, 64]


def hierarchy_of(boxes: list[list[float]]) -> Hierarchy:
    nothing = np.zeros(0)
    return Hierarchy("HSV", 50, "S", nothing, nothing, nothing, np.array(boxes, np.float32), nothing)


@pytest.mark.parametrize("seed", range(5))
def test_ranking_in_plain_loops(seed: int) -> None:
    """RND * i, i = 1 for the region made last; of equal boxes the best stays. Five boxes, each in two hierarchies."""
    boxes = [[0, 0, i + 1, 1] for i in range(5)]
    hierarchies = [hierarchy_of(boxes), hierarchy_of(boxes[2:] + boxes[:2])]
    rng = np.random.default_rng(seed)
    ranked = []
    for hierarchy in hierarchies:
        for number, random in enumerate(rng.random(5)):
            ranked.append(((5 - number) * random, hierarchy.boxes[number].tolist()))
    expected = []
    for _, box in sorted(ranked):
        if box not in expected:
            expected.append(box)
    assert rank(hierarchies, seed).tolist() == expected


def test_the_whole_image_comes_early_and_crumbs_late() -> None:
    """Over many seeds: the mean place of a region follows its height in the hierarchy."""
    boxes = [[0, 0, i + 1, 1] for i in range(50)]
    places = np.zeros(50)
    for seed in range(200):
        places[rank([hierarchy_of(boxes)], seed)[:, 2].astype(int) - 1] += np.arange(50)
    assert places[-1] < places[-10] < places[-25] < places[0]


def test_a_box_that_many_hierarchies_found_has_many_chances() -> None:
    """The crumb 0 of one hierarchy against the crumb 0 that twenty others share: dropped before ranking, they would be
    equally early."""
    ladder = [[0, 0, 2, i + 2] for i in range(20)]
    hierarchies = [hierarchy_of([[0, 0, 1, 1], *ladder])] + [hierarchy_of([[5, 5, 6, 6], *ladder])] * 20
    first = 0
    for seed in range(50):
        ranked = rank(hierarchies, seed).tolist()
        first += ranked.index([5, 5, 6, 6]) < ranked.index([0, 0, 1, 1])
    assert first > 40


def test_a_seed_gives_the_same_boxes_and_a_limit_the_first_of_them(scene) -> None:
    boxes = selective_search(scene, "fast", seed=7)
    np.testing.assert_array_equal(boxes, selective_search(scene, seed=7))
    np.testing.assert_array_equal(boxes[:5], selective_search(scene, "fast", seed=7, limit=5))
    other = selective_search(scene, "fast", seed=8)
    assert other.tolist() != boxes.tolist()
    assert sorted(other.tolist()) == sorted(boxes.tolist())
    assert len(np.unique(boxes, axis=0)) == len(boxes)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (5, 5)])
@pytest.mark.parametrize("mode", MODES)
def test_an_even_image_is_one_box(shape: tuple[int, int], mode: str) -> None:
    boxes = selective_search(np.full((*shape, 3), 77, np.uint8), mode)
    assert boxes.tolist() == [[0, 0, shape[1], shape[0]]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: selective_search(STRIPES, "slow"), "a mode of single, fast, quality, or a Mode, got 'slow'"),
        (lambda: Mode(("RGB",), ("C",), (50,)), "colour spaces of HSV, Lab, rgI, H, I, got 'RGB'"),
        (lambda: Mode(("HSV",), ("CX",), (50,)), "letters CTSF, got 'CX'"),
        (lambda: Mode(("HSV",), ("",), (50,)), "letters CTSF, got ''"),
        (lambda: Mode(("HSV",), ("C",), (0,)), "every k >= 1, got 0"),
        (lambda: selective_search(STRIPES[..., :2]), r"an image \(H, W, 3\)"),
    ],
)
def test_wrong_arguments_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
