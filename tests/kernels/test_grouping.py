"""Grouping: four regions by hand, each similarity by itself, the paper's algorithm with averaged histograms."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import minidet_kernels as mk

COLOR, TEXTURE, SIZE, FILL = np.eye(4, dtype=bool)
ALL = np.ones(4, bool)


@pytest.fixture(params=["reference", "cpu"], autouse=True)
def version(request):
    if mk.available()[request.param] is not None:
        pytest.skip(mk.available()[request.param])
    with mk.use(request.param):
        yield request.param


def row_of_regions(sizes, colors=None, textures=None, boxes=None, pairs=None) -> list[np.ndarray]:
    """Regions side by side, each a row of pixels: box, size, neighbours left and right, counts in two bins."""
    sizes = np.array(sizes)
    ends = np.cumsum(sizes)
    if boxes is None:
        boxes = [[end - size, 0, end, 1] for end, size in zip(ends, sizes, strict=True)]
    if pairs is None:
        pairs = list(pairwise(range(len(sizes))))
    same = np.stack([sizes, 0 * sizes], axis=1)
    return [
        np.array(boxes, np.float32),
        sizes,
        np.array(pairs, np.int64).reshape(-1, 2),
        same if colors is None else np.array(colors),
        same if textures is None else np.array(textures),
    ]


# ---- by hand -----------------------------------------------------------------------------------------------------

# Of 2, 6 and 4 pixels; the histograms (1/2, 1/2), (1/3, 2/3), (1, 0).
COUNTS = [[1, 1], [2, 4], [4, 0]]


@pytest.mark.parametrize("which", ["colors", "textures"])
def test_intersection_of_histograms_by_hand(which: str) -> None:
    """0 and 1 have 1/3 + 1/2 = 5/6 in common, 1 and 2 only 1/3. Then {0, 1} is (3/8, 5/8), an average weighted by size,
    and has 3/8 in common with 2; the plain average (5/12, 7/12) would have 5/12."""
    strategy = COLOR if which == "colors" else TEXTURE
    merges, similarities, boxes, sizes = mk.group_regions(*row_of_regions([2, 6, 4], **{which: COUNTS}), strategy[None])
    assert merges.tolist() == [[[0, 1], [2, 3]]]
    np.testing.assert_allclose(similarities, [[5 / 6, 3 / 8]], rtol=1e-15)
    assert boxes.tolist() == [[[0, 0, 2, 1], [2, 0, 8, 1], [8, 0, 12, 1], [0, 0, 8, 1], [0, 0, 12, 1]]]
    assert sizes.tolist() == [[2, 6, 4, 8, 12]]
    assert merges.dtype == sizes.dtype == np.int64
    assert similarities.dtype == np.float64
    assert boxes.dtype == np.float32


def test_histograms_of_several_channels_are_divided_by_their_whole_sum() -> None:
    """Two channels with two bins: (1 0 | 1 0) and (0 1 | 1 0) have half of what they count in common, not all of it."""
    regions = row_of_regions([1, 1], colors=[[1, 0, 1, 0], [0, 1, 1, 0]])
    assert mk.group_regions(*regions, COLOR[None])[1].tolist() == [[0.5]]


def test_small_regions_become_one_first() -> None:
    """Sizes 5, 1, 2, 2 of 10: 1 - 6/10, 1 - 3/10, 1 - 4/10; then 1 - 8/10 and 1 - 5/10."""
    merges, similarities, *_ = mk.group_regions(*row_of_regions([5, 1, 2, 2]), SIZE[None])
    assert merges.tolist() == [[[1, 2], [3, 4], [0, 5]]]
    np.testing.assert_allclose(similarities, [[0.7, 0.5, 0]], atol=1e-15)


def test_a_region_in_anothers_gap_fills_it() -> None:
    """Region 0 is a frame of 8 pixels around 1; region 2, 3 x 1, lies below. Together 0 and 1 fill their box, and 0 and
    2 leave one pixel of theirs free: 1 - 0/12 and 1 - (12 - 8 - 3)/12."""
    boxes = [[0, 0, 3, 3], [1, 1, 2, 2], [0, 3, 3, 4]]
    regions = row_of_regions([8, 1, 3], boxes=boxes, pairs=[[0, 1], [0, 2]])
    merges, similarities, *_ = mk.group_regions(*regions, FILL[None])
    assert merges.tolist() == [[[0, 1], [2, 3]]]
    np.testing.assert_allclose(similarities, [[1, 1]], rtol=1e-15)
    only = row_of_regions([8, 1, 3], boxes=boxes, pairs=[[0, 2]])
    np.testing.assert_allclose(mk.group_regions(*only, FILL[None])[1], [[11 / 12]], rtol=1e-15)


def test_a_strategy_adds_up_its_similarities() -> None:
    regions = row_of_regions([2, 6], colors=COUNTS[:2], textures=[[2, 0], [0, 6]], boxes=[[0, 0, 1, 2], [1, 0, 5, 2]])
    every = mk.group_regions(*regions, np.stack([ALL, COLOR, TEXTURE, SIZE, FILL, COLOR ^ FILL, 0 * ALL > 0]))[1][:, 0]
    np.testing.assert_allclose(every[1:5], [5 / 6, 0, 0, 1 - 2 / 8], atol=1e-15)  # a box of 10, 8 of which are theirs
    np.testing.assert_allclose(every[[0, 5, 6]], [5 / 6 + 3 / 4, 5 / 6 + 3 / 4, 0], atol=1e-15)


def test_of_equally_similar_pairs_the_first_comes_first() -> None:
    """All sizes alike: 0 and 1 first, then, of (2, 3) and (2, 4) = ({0, 1}, 2), the pair of smaller regions; then the
    pair that was there before: by size all that are left are of the same size."""
    merges, similarities, *_ = mk.group_regions(*row_of_regions([1, 1, 1, 1]), COLOR[None])
    assert similarities.tolist() == [[1, 1, 1]]
    assert merges.tolist() == [[[0, 1], [2, 3], [4, 5]]]


def test_new_pairs_come_behind_old_ones_and_by_their_neighbours() -> None:
    """A star: 1 in the middle of 0, 2, 3, 4, all alike. The new region is 5, its pairs (2, 5), (3, 5), (4, 5)."""
    regions = row_of_regions([1] * 5, pairs=[[0, 1], [1, 2], [1, 3], [1, 4]])
    assert mk.group_regions(*regions, COLOR[None])[0].tolist() == [[[0, 1], [2, 5], [3, 6], [4, 7]]]


def test_only_neighbours_become_one() -> None:
    """0 and 2 are alike, but 1 lies between them and is like neither. Each of them has nothing in common with it."""
    regions = row_of_regions([4, 4, 4], colors=[[4, 0], [0, 4], [4, 0]])
    merges, similarities, *_ = mk.group_regions(*regions, COLOR[None])
    assert merges.tolist() == [[[0, 1], [2, 3]]]
    np.testing.assert_allclose(similarities, [[0, 0.5]])


def test_regions_that_do_not_touch_stay_apart() -> None:
    regions = row_of_regions([1, 2, 3, 4], pairs=[[0, 1], [2, 3]])
    merges, similarities, boxes, sizes = mk.group_regions(*regions, np.stack([ALL, COLOR]))
    assert merges.tolist() == [[[0, 1], [2, 3]], [[0, 1], [2, 3]]]
    assert sizes.tolist() == [[1, 2, 3, 4, 3, 7]] * 2
    assert boxes.shape == (2, 6, 4)
    assert similarities.shape == (2, 2)


@pytest.mark.parametrize("ways", [0, 1, 3])
def test_one_region_is_its_own_hierarchy(ways: int) -> None:
    merges, similarities, boxes, sizes = mk.group_regions(*row_of_regions([7]), np.ones((ways, 4), bool))
    assert merges.shape == (ways, 0, 2)
    assert similarities.shape == (ways, 0)
    assert boxes.tolist() == [[[0, 0, 7, 1]]] * ways
    assert sizes.tolist() == [[7]] * ways


# ---- against the paper's words, and on larger graphs ---------------------------------------------------------------


def features_of(image: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    return [
        *mk.region_boxes(labels),
        mk.region_adjacency(labels),
        mk.color_histograms(image, labels),
        mk.texture_histograms(image, labels),
    ]


def blocks(rng: np.random.Generator, rows: int, columns: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """An image (3, H, W) of noisy blocks, and which block each pixel is of."""
    labels = np.arange(rows * columns).reshape(rows, columns).repeat(side, axis=0).repeat(side, axis=1)
    colors = rng.random((3, rows * columns))
    return np.clip(colors[:, labels] + rng.normal(0, 0.1, (3, *labels.shape)), 0, 1), labels


def test_the_papers_algorithm_on_pixels() -> None:
    """Regions as sets of pixels, whose histograms of L1 norm 1, sizes, boxes and neighbours are taken from the pixels
    anew: no merging of features, no list of pairs."""
    image, labels = blocks(np.random.default_rng(0), 4, 5, 3)
    regions = features_of(image, labels)
    (merges,), (similarities,), (boxes,), (sizes,) = mk.group_regions(*regions, ALL[None])
    ndimage = pytest.importorskip("scipy.ndimage", reason="scipy is an oracle")

    def features(members: list[int]) -> tuple:
        pixels = np.isin(labels, members)
        color = regions[3][members].sum(axis=0) / regions[3][members].sum()
        texture = regions[4][members].sum(axis=0) / regions[4][members].sum()
        rows, columns = np.nonzero(pixels)
        return pixels, color, texture, (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)

    def similarity(a: list[int], b: list[int]) -> float:
        (pixels_a, color_a, texture_a, _), (pixels_b, color_b, texture_b, _) = features(a), features(b)
        total = pixels_a.sum() + pixels_b.sum()
        x1, y1, x2, y2 = features(a + b)[3]
        common = np.minimum(color_a, color_b).sum() + np.minimum(texture_a, texture_b).sum()
        return common + 1 - total / labels.size + 1 - ((x2 - x1) * (y2 - y1) - total) / labels.size

    def touch(a: list[int], b: list[int]) -> bool:
        grown = ndimage.binary_dilation(np.isin(labels, a), np.ones((3, 3)))
        return bool((grown & np.isin(labels, b)).any())

    members = {number: [number] for number in range(20)}
    for merge, (a, b) in enumerate(merges):
        numbers = sorted(members)
        pairs = {(p, q): similarity(members[p], members[q]) for p in numbers for q in numbers
                 if p < q and touch(members[p], members[q])}  # fmt: skip
        assert pairs[a, b] == pytest.approx(max(pairs.values()), rel=1e-12)
        assert similarities[merge] == pytest.approx(pairs[a, b], rel=1e-12)
        members[20 + merge] = members.pop(a) + members.pop(b)
        pixels, _, _, box = features(members[20 + merge])
        assert tuple(boxes[20 + merge]) == box
        assert sizes[20 + merge] == pixels.sum()
    assert list(members) == [38]


def test_a_hundred_regions_of_an_image(version: str) -> None:
    if version == "reference":
        pytest.skip("the reference is what is compared with")
    image, labels = blocks(np.random.default_rng(1), 10, 11, 4)
    regions, strategies = features_of(image, labels), np.stack([ALL, TEXTURE | SIZE | FILL, FILL, SIZE])
    with mk.use("reference"):
        expected = mk.group_regions(*regions, strategies)
    for part, of_reference in zip(mk.group_regions(*regions, strategies), expected, strict=True):
        np.testing.assert_array_equal(part, of_reference)


@pytest.mark.parametrize("strategy", [COLOR, SIZE, ALL])
def test_a_star_of_regions_needs_more_room_for_pairs(strategy: np.ndarray, version: str) -> None:
    """The middle keeps all its neighbours: 60 + 59 + 58 + ... pairs, far more than those given."""
    if version == "reference":
        pytest.skip("the reference is what is compared with")
    rng = np.random.default_rng(2)
    sizes = rng.integers(1, 20, 61)
    counts = rng.integers(0, sizes + 1)
    middle = [[number, 60] for number in range(60)]
    regions = row_of_regions(sizes, colors=np.stack([counts, sizes - counts], axis=1), pairs=middle)
    with mk.use("reference"):
        expected = mk.group_regions(*regions, strategy[None])
    for part, of_reference in zip(mk.group_regions(*regions, strategy[None]), expected, strict=True):
        np.testing.assert_array_equal(part, of_reference)


def test_counts_of_half_a_billion_pixels_do_not_overflow() -> None:
    half = 2**28
    regions = row_of_regions(
        [half, half], colors=[[half, 0] * 64, [half, 0] * 64], boxes=[[0, 0, half, 1], [half, 0, 2 * half, 1]]
    )
    assert mk.group_regions(*regions, COLOR[None])[1].tolist() == [[1]]


# ---- errors ------------------------------------------------------------------------------------------------------


def changed(position: int, array) -> list[np.ndarray]:
    regions = row_of_regions([1, 2, 3])
    regions[position] = np.asarray(array)
    return regions


@pytest.mark.parametrize(
    ("regions", "error", "message"),
    [
        (changed(0, np.zeros((3, 5), np.float32)), ValueError, r"boxes .*\(3, 5\)"),
        (changed(0, [[2.0, 0, 1, 1]] * 3), ValueError, "x1 <= x2"),
        (changed(1, [1, 2]), ValueError, r"sizes \(R\) = \(3\), got \(2,\)"),
        (changed(1, [1, 0, 3]), ValueError, "at least one pixel, got 0 in row 1; number the regions without gaps"),
        (changed(1, [1, 2**30, 3]), ValueError, "at most 536870912 pixels together"),
        (changed(1, [1.0, 2, 3]), TypeError, "sizes int64, got float64"),
        (changed(2, [[0, 3]]), ValueError, "numbers from 0 to 2, .*got others .*from 0 to 3"),
        (changed(2, [[1, 0]]), ValueError, "pairs a < b"),
        (changed(2, [[1, 1]]), ValueError, "pairs a < b"),
        (changed(2, [[0, 1], [0, 1]]), ValueError, "each once"),
        (changed(2, [[1, 2], [0, 1]]), ValueError, "sorted by a, then b"),
        (changed(3, [[1, 0], [2, 0]]), ValueError, r"colors \(R, K\) = \(3, K\), got \(2, 2\)"),
        (changed(3, [[1, 0], [2, 0], [1, 1]]), ValueError, "colors whose rows have the sums.*same multiple"),
        (changed(3, [[0, 0], [0, 0], [0, 0]]), ValueError, "colors whose rows have the sums.*got 0 for 1"),
        (changed(4, [[2, 0], [2, 2], [3, 3]]), ValueError, "textures from 0 to the region's size .* got 0 to 3"),
        (changed(4, [[1, 0], [3, -1], [3, 0]]), ValueError, "textures from 0 to the region's size .* got -1 to 3"),
        (changed(4, np.ones((3, 2)) / 2), TypeError, "textures int64, got float64"),
    ],
)
def test_bad_arguments_are_refused_by_name(regions, error, message: str) -> None:
    with pytest.raises(error, match=f"group_regions: expected .*{message}"):
        mk.group_regions(*regions, ALL[None])


@pytest.mark.parametrize(
    ("strategies", "error", "message"),
    [(ALL, ValueError, r"strategies \(S, 4\)"), (np.ones((1, 4)), TypeError, "strategies bool, got float64")],
)
def test_bad_strategies_are_refused(strategies, error, message: str) -> None:
    with pytest.raises(error, match=message):
        mk.group_regions(*row_of_regions([1, 2]), strategies)
