"""Segmentation and features of regions: small images by hand, the definition written out, SciPy and scikit-image."""

from __future__ import annotations

import numpy as np
import pytest

import minidet_kernels as mk
from minidet_kernels import emulator
from tests.kernels.cases.segmentation import random_image


@pytest.fixture(params=["reference", "cpu"], autouse=True)
def version(request):
    if mk.available()[request.param] is not None:
        pytest.skip(mk.available()[request.param])
    with mk.use(request.param):
        yield request.param


def drawn(text: str) -> np.ndarray:
    return np.array([[int(c) for c in row] for row in text.split()])


def grey(rows: list[list[float]], white: float, dtype=np.float32) -> np.ndarray:
    return (np.array(rows, dtype) / white)[None]


# ---- segmentation, by hand ---------------------------------------------------------------------------------------

# Six pixels in a row; the unit is 1/32, so k = 4 means scale = 255 * 4 / 32.
#
#     pixel        0   1   2      3    4    5
#     intensity    0   1   3     10   11   16
#     edge           1   2    7     1    5
#
# Bounds are 4 at first (Int = 0, k / 1 = 4). By ascending weight:
#     0-1, weight 1: 1 <= 4 and 1 <= 4, joined; bound of {0, 1} = 1 + 4 / 2 = 3
#     3-4, weight 1: joined; bound of {3, 4} = 3
#     1-2, weight 2: 2 <= 3 and 2 <= 4, joined; bound of {0, 1, 2} = 2 + 4 / 3 = 3.33
#     4-5, weight 5: 5 > 3, not joined
#     2-3, weight 7: not joined
# With min_size 2 pixel 5 is too small, and joined to {3, 4}. With min_size 4 there are then two regions of 3 pixels,
# both too small, and the last edge joins them.
SIX = [[0, 1, 3, 10, 11, 16]]


@pytest.mark.parametrize(("min_size", "expected"), [(1, "000112"), (2, "000111"), (3, "000111"), (4, "000000")])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("upright", [False, True])
def test_six_pixels(min_size: int, expected: str, dtype, upright: bool) -> None:
    image, labels = grey(SIX, 32, dtype), drawn(expected)
    if upright:
        image, labels = image.transpose(0, 2, 1), labels.T
    result = mk.felzenszwalb(image, 255 * 4 / 32, sigma=0, min_size=min_size)
    np.testing.assert_array_equal(result, labels)
    assert result.dtype == np.int64


def test_an_edge_as_heavy_as_the_bound_joins() -> None:
    image = grey([[0, 1, 4]], 32)  # {0, 1} has the bound 1 + 4 / 2 = 3, the edge to pixel 2 the weight 3
    assert mk.felzenszwalb(image, 255 * 4 / 32, sigma=0, min_size=1).tolist() == [[0, 0, 0]]
    image = grey([[0, 1, 4.0625]], 32)
    assert mk.felzenszwalb(image, 255 * 4 / 32, sigma=0, min_size=1).tolist() == [[0, 0, 1]]


def test_scale_is_for_intensities_up_to_255() -> None:
    image = grey([[100, 110]], 255, np.float64)
    assert mk.felzenszwalb(image, 9.99, sigma=0, min_size=1).tolist() == [[0, 1]]
    assert mk.felzenszwalb(image, 10.01, sigma=0, min_size=1).tolist() == [[0, 0]]


def test_the_weight_is_the_distance_of_colours() -> None:
    image = np.array([[[0, 30]], [[0, 0]], [[40, 0]]]) / 255  # 3-4-5
    assert mk.felzenszwalb(image, 49.99, sigma=0, min_size=1).tolist() == [[0, 1]]
    assert mk.felzenszwalb(image, 50.01, sigma=0, min_size=1).tolist() == [[0, 0]]


def test_pixels_join_across_a_corner() -> None:
    image = grey([[0, 1, 0], [1, 0, 1]], 1)
    assert mk.felzenszwalb(image, 0, sigma=0, min_size=1).tolist() == [[0, 1, 0], [1, 0, 1]]


def test_equal_weights_are_visited_pixel_by_pixel() -> None:
    """Sides of a square of colours: all straight edges weigh 1. Pixel 0's edges come first, to the right and down: it
    takes both neighbours. Were all edges to the right first, there would be two rows."""
    image = np.array([[[0, 1], [0, 1]], [[0, 0], [1, 1]]], np.float32)
    assert mk.felzenszwalb(image, 0, sigma=0, min_size=2).tolist() == [[0, 0], [0, 0]]


def test_of_one_pixels_equal_weights_the_one_to_the_right_comes_first() -> None:
    """The first pixel, too small, is as near to the bright region at its right as to the dark one below."""
    image = grey([[2, 3, 3], [1, 1, 3]], 4)
    assert mk.felzenszwalb(image, 0, sigma=0, min_size=2).tolist() == [[0, 0, 0], [1, 1, 0]]
    down_first = grey([[2, 3, 3], [1, 3, 3], [1, 3, 3]], 4)  # not right, whose region is to become the dark one
    assert mk.felzenszwalb(1 - down_first, 0, sigma=0, min_size=2).tolist() == [[0, 0, 0], [1, 0, 0], [1, 0, 0]]


def test_down_comes_before_down_and_right() -> None:
    image = grey(
        [[2, 4, 4], [1, 3, 4], [1, 3, 3]], 4
    )  # the first pixel: 1 from the dark below, 1 from the bright beyond
    assert mk.felzenszwalb(image, 0, sigma=0, min_size=2).tolist() == [[0, 1, 1], [0, 2, 1], [0, 2, 2]]


def test_three_rectangles_with_noise_are_three_regions() -> None:
    expected = np.zeros((30, 40), int)
    expected[:, 15:] = 1
    expected[18:, 22:] = 2
    rng = np.random.default_rng(0)
    colours = np.array([[0.2, 0.8, 0.5], [0.3, 0.3, 0.9], [0.9, 0.2, 0.1]])
    image = colours[:, expected] + rng.uniform(-0.02, 0.02, (3, 30, 40))
    labels = mk.felzenszwalb(image.astype(np.float32), 300, sigma=0, min_size=20)
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 7), (3, 7, 1), (4, 2, 2), (3, 9, 9)])
@pytest.mark.parametrize("sigma", [0, 0.8, 20])
def test_a_constant_image_is_one_region(shape: tuple[int, ...], sigma: float) -> None:
    labels = mk.felzenszwalb(np.full(shape, 0.3, np.float32), 0, sigma, min_size=1)
    np.testing.assert_array_equal(labels, np.zeros(shape[1:]))


@pytest.mark.parametrize("sigma", [0, 1e-300, 0.001])
def test_a_tiny_sigma_smooths_nothing(sigma: float) -> None:
    image = random_image(np.random.default_rng(0), (3, 8, 8), np.float32)
    np.testing.assert_array_equal(mk.felzenszwalb(image, 50, sigma, 1), mk.felzenszwalb(image, 50, 0, 1))


# ---- segmentation, against others --------------------------------------------------------------------------------


def patches(rng: np.random.Generator, height: int, width: int, dtype=np.float64) -> np.ndarray:
    """Rectangles of random colours with noise: large and small regions, and no two edges of the same weight."""
    image = np.empty((3, height, width))
    image[...] = rng.random((3, 1, 1))
    for _ in range(12):
        top, left = rng.integers(0, height), rng.integers(0, width)
        image[:, top : top + rng.integers(1, height + 1), left : left + rng.integers(1, width + 1)] = rng.random(
            (3, 1, 1)
        )
    return np.clip(image + rng.normal(0, 0.05, image.shape) + 1e-9 * rng.random(image.shape), 0.001, 0.999).astype(
        dtype
    )


def smoothed_by_scipy(image: np.ndarray, sigma: float) -> np.ndarray:
    ndimage = pytest.importorskip("scipy.ndimage", reason="scipy is an oracle")
    radius = int(np.ceil(4 * sigma))
    return ndimage.gaussian_filter(image, sigma, mode="nearest", radius=radius, axes=(1, 2)) if sigma else image


def assert_same_partition(labels: np.ndarray, expected: np.ndarray) -> None:
    pairs = np.unique(np.stack([labels.ravel(), expected.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(labels)) == len(np.unique(expected))
    firsts = [np.flatnonzero(labels.ravel() == label)[0] for label in range(labels.max() + 1)]
    assert firsts == sorted(firsts), "regions are not numbered by their first pixels"


@pytest.mark.parametrize("sigma", [0, 0.5, 0.8, 2])
@pytest.mark.parametrize(("scale", "min_size"), [(10, 1), (50, 1), (200, 1), (50, 10), (200, 100)])
def test_scikit_image_finds_the_same_regions(sigma: float, scale: float, min_size: int) -> None:
    """Given the smoothed image: its own smoothing has another border. No two numbers here are equal, so "<" is "<="."""
    segmentation = pytest.importorskip(
        "skimage.segmentation", reason="scikit-image is an oracle; pip install '.[test]'"
    )
    rng = np.random.default_rng(int(scale + min_size))
    for size in ((24, 33), (1, 40), (30, 2)):
        image = patches(rng, *size)
        labels = mk.felzenszwalb(image, scale, sigma, min_size)
        smooth = smoothed_by_scipy(image, sigma).transpose(1, 2, 0)
        assert_same_partition(labels, segmentation.felzenszwalb(smooth, scale, 0, min_size))


def by_definition(image: np.ndarray, k: float, min_size: int) -> np.ndarray:
    """The paper's words: Int(A) is the largest weight in the minimum spanning tree of A, found anew for every edge."""
    csgraph = pytest.importorskip("scipy.sparse.csgraph", reason="scipy is an oracle")
    _, height, width = image.shape
    pixels = [(r, c) for r in range(height) for c in range(width)]
    distance = np.zeros((len(pixels), len(pixels)))
    for i, p in enumerate(pixels):
        for j, q in enumerate(pixels):
            if i < j and max(abs(p[0] - q[0]), abs(p[1] - q[1])) == 1:
                distance[i, j] = np.linalg.norm(image[:, *p] - image[:, *q])

    def internal(region: frozenset[int]) -> float:
        at = sorted(region)
        return csgraph.minimum_spanning_tree(distance[np.ix_(at, at)]).toarray().max()

    region_of = {i: frozenset([i]) for i in range(len(pixels))}
    edges = sorted(zip(*np.nonzero(distance), strict=True), key=lambda edge: distance[edge])
    for joins in (
        lambda w, a, b: w <= min(internal(a) + k / len(a), internal(b) + k / len(b)),
        lambda w, a, b: min(len(a), len(b)) < min_size,
    ):
        for edge in edges:
            a, b = region_of[edge[0]], region_of[edge[1]]
            if a != b and joins(distance[edge], a, b):
                region_of |= dict.fromkeys(a | b, a | b)
    return np.array([min(region_of[i]) for i in range(len(pixels))]).reshape(height, width)


@pytest.mark.parametrize("seed", range(6))
def test_the_papers_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = patches(rng, *rng.integers(3, 9, 2))
    for scale, min_size in ((30, 1), (150, 1), (30, 4)):
        labels = mk.felzenszwalb(image, scale, 0, min_size)
        assert_same_partition(labels, by_definition(image, scale / 255, min_size))


def test_a_larger_image_in_float32(version: str) -> None:
    """More edges than the harness has, and thousands of the same weight, as an image of 8 bits has them."""
    if version == "reference":
        pytest.skip("the reference is what is compared with")
    image = (np.round(patches(np.random.default_rng(5), 40, 50) * 255) / 255).astype(np.float32)
    for sigma in (0, 0.8):
        labels = mk.felzenszwalb(image, 100, sigma, 5)
        with mk.use("reference"):
            np.testing.assert_array_equal(labels, mk.felzenszwalb(image, 100, sigma, 5))
        assert labels.max() > 3


@pytest.mark.parametrize("quantiles", [(), (0.5,), (0.01, 0.02, 0.9999), (0.3, 0.3)])
def test_the_edges_may_be_sorted_in_any_parts(quantiles: tuple[float, ...], version: str, monkeypatch) -> None:
    if version == "reference":
        pytest.skip("the reference sorts all at once")
    rng = np.random.default_rng(6)
    images = [patches(rng, 23, 31, np.float32), patches(rng, 23, 31), np.round(4 * patches(rng, 23, 31)) / 4]
    with mk.use("reference"):
        expected = [mk.felzenszwalb(image, 60, 0, 8) for image in images]
    monkeypatch.setattr("minidet_kernels.segmentation.cpu.QUANTILES", quantiles)
    monkeypatch.setattr("minidet_kernels.segmentation.cpu.SAMPLE", 1)
    for image, labels in zip(images, expected, strict=True):
        np.testing.assert_array_equal(mk.felzenszwalb(image, 60, 0, 8), labels)


# ---- features of regions -----------------------------------------------------------------------------------------

FOUR = "0011  0211  2231"


def test_neighbours_by_hand() -> None:
    """0 and 3 do not touch; 2 and 1 do, at corners and edges; 3 touches 1 and 2."""
    assert mk.region_adjacency(drawn(FOUR)).tolist() == [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]]


@pytest.mark.parametrize(
    ("picture", "pairs"), [("01  20", [[0, 1], [0, 2], [1, 2]]), ("0", []), ("0133", [[0, 1], [1, 3]])]
)
def test_a_corner_is_enough_to_touch(picture: str, pairs: list[list[int]]) -> None:
    result = mk.region_adjacency(drawn(picture))
    assert result.tolist() == pairs
    assert result.shape == (len(pairs), 2)
    assert result.dtype == np.int64


def test_very_many_neighbours() -> None:
    """Every pixel a region: more pairs than the table of the cpu version begins with."""
    labels = np.arange(40 * 50).reshape(40, 50)
    p = np.arange(2000)
    right, down = p[p % 50 < 49], p[p < 1950]
    both = down[down % 50 < 49]
    expected = np.concatenate(
        [
            np.stack([right, right + 1]),
            np.stack([down, down + 50]),
            np.stack([both, both + 51]),
            np.stack([both + 1, both + 50]),
        ],
        axis=1,
    ).T
    expected = expected[np.lexsort((expected[:, 1], expected[:, 0]))]
    np.testing.assert_array_equal(mk.region_adjacency(labels), expected)


def test_boxes_and_sizes_by_hand() -> None:
    boxes, sizes = mk.region_boxes(drawn(FOUR))
    assert boxes.tolist() == [[0, 0, 2, 2], [2, 0, 4, 3], [0, 1, 2, 3], [2, 2, 3, 3]]
    assert sizes.tolist() == [3, 5, 3, 1]
    assert boxes.dtype == np.float32
    assert sizes.dtype == np.int64


def test_a_number_without_pixels_has_zeros() -> None:
    labels = np.array([[0, 2, 2]])
    boxes, sizes = mk.region_boxes(labels)
    assert boxes.tolist() == [[0, 0, 1, 1], [0, 0, 0, 0], [1, 0, 3, 1]]
    assert sizes.tolist() == [1, 0, 2]
    assert mk.region_adjacency(labels).tolist() == [[0, 2]]
    image = np.full((3, 1, 3), 0.5)
    for histograms in (mk.color_histograms(image, labels), mk.texture_histograms(image, labels)):
        per_pixel = 3 if histograms.shape[1] == 75 else 24
        assert histograms.sum(axis=1).tolist() == [per_pixel, 0, 2 * per_pixel]


def test_colours_by_hand() -> None:
    """Two channels in four bins: [0, 1/4), [1/4, 1/2), [1/2, 3/4), [3/4, 1]."""
    image = np.array([[[0, 0.2, 0.25, 1]], [[0.5, 0.5, 0.74, 0.75]]], np.float32)
    histograms = mk.color_histograms(image, np.array([[0, 0, 0, 1]]), bins=4)
    assert histograms.tolist() == [[2, 1, 0, 0, 0, 0, 3, 0], [0, 0, 0, 1, 0, 0, 0, 1]]
    assert histograms.dtype == np.int64


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_even_ramp_fills_all_25_bins_evenly(dtype) -> None:
    """A histogram over the wrong range, 0 to 255 or that of another colour space, leaves most bins empty."""
    image = ((np.arange(100, dtype=dtype) + dtype(0.5)) / 100).reshape(1, 10, 10).repeat(3, axis=0)
    histograms = mk.color_histograms(image, np.zeros((10, 10), np.int64))
    assert (histograms == 4).all()


def regions_of(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return np.kron(rng.integers(0, 5, (4, 5)), np.ones((5, 5), int))[: shape[0], : shape[1]]


def literal_histograms(measurements: np.ndarray, labels: np.ndarray, bins: int, top: float) -> np.ndarray:
    """(M, H, W) -> NumPy's histogram of every measurement of every region, side by side."""
    rows = []
    for label in range(labels.max() + 1):
        row = [np.histogram(m[labels == label].clip(0, top), bins, (0, top))[0] for m in measurements]
        rows.append(np.concatenate(row))
    return np.array(rows)


def test_colours_are_numpys_histograms() -> None:
    rng = np.random.default_rng(1)
    image, labels = rng.random((3, 18, 23)), regions_of(rng, (18, 23))
    for bins in (1, 7, 25):
        np.testing.assert_array_equal(
            mk.color_histograms(image, labels, bins), literal_histograms(image, labels, bins, 1)
        )


def test_textures_are_histograms_of_scipys_derivatives() -> None:
    ndimage = pytest.importorskip("scipy.ndimage", reason="scipy is an oracle")
    rng = np.random.default_rng(2)
    image, labels = rng.random((3, 18, 23)), regions_of(rng, (18, 23))
    dx, dy = (
        ndimage.gaussian_filter(image, 1, order, mode="nearest", radius=4, axes=(1, 2)) for order in ((0, 1), (1, 0))
    )
    directions = np.arange(8) * np.pi / 4
    derivatives = np.stack([np.cos(o) * dx + np.sin(o) * dy for o in directions], axis=1).reshape(24, 18, 23)
    result = mk.texture_histograms(image, labels)
    assert result.shape == (5, 240)
    expected = literal_histograms(derivatives, labels, 10, 1 / np.sqrt(2 * np.pi))
    np.testing.assert_array_equal(result, expected)
    assert (expected.reshape(5, 3, 8, 10)[..., 1:4] > 0).any(axis=(0, 1)).all(), "an image that says something"


def test_a_step_from_black_to_white_reaches_the_last_bin() -> None:
    """Columns 0 to 5 black, 6 to 11 white: the derivative to the right is 0.36 at the step, of 0.399 at most, and 0 at
    the border; to the left it is negative, so 0; up and down there is none."""
    image = np.zeros((1, 8, 12))
    image[..., 6:] = 1
    at_step, far = np.zeros((8, 12), int), np.zeros((8, 12), int)
    at_step[:, 5:7] = 1
    far[:, 1:] = 1
    histogram = mk.texture_histograms(image, at_step)[1].reshape(8, 10)
    expected = np.zeros((8, 10))  # of each of the region's 16 pixels
    expected[2:7, 0] = 1  # down, down-left, left, up-left, up: 90 to 270 degrees
    expected[0, 9] = 1  # floor(10 * 0.3636 / 0.3989)
    expected[1, 6] = expected[7, 6] = 1  # 0.3636 / sqrt(2)
    np.testing.assert_array_equal(histogram, 16 * expected)
    np.testing.assert_allclose(mk.texture_histograms(image, far)[0].reshape(8, 10)[:, 0], 8)


def test_together_two_regions_have_the_sum_of_their_histograms() -> None:
    rng = np.random.default_rng(3)
    image, labels = rng.random((3, 18, 23)), regions_of(rng, (18, 23))
    for histograms in (mk.color_histograms, mk.texture_histograms):
        apart, together = histograms(image, labels), histograms(image, np.where(labels == 1, 0, labels))
        np.testing.assert_array_equal(together[0], apart[0] + apart[1])


# ---- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(emulator.why_not() is not None, reason=str(emulator.why_not()))
def test_an_image_on_the_gpu_is_sent_to_the_cpu() -> None:
    with emulator.emulated("forward"):
        import cupy

        with pytest.raises(RuntimeError, match=r"no cuda version; move its arrays to the CPU with cupy\.asnumpy"):
            mk.felzenszwalb(cupy.asarray(GOOD), 100)


GOOD, LABELS = np.zeros((3, 5, 6), np.float32), np.zeros((5, 6), np.int64)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mk.felzenszwalb(GOOD[0], 100), ValueError, r"expected image \(C, H, W\).*got \(5, 6\)"),
        (lambda: mk.felzenszwalb(np.zeros((5, 6, 3)), 100), ValueError, r"1 to 4 channels.*transpose\(2, 0, 1\)"),
        (lambda: mk.felzenszwalb(np.zeros((3, 0, 6)), 100), ValueError, r"1 to 536870912 pixels, got \(3, 0, 6\)"),
        (lambda: mk.felzenszwalb(GOOD.astype(np.uint8), 100), TypeError, "float32 or float64.*uint8"),
        (lambda: mk.felzenszwalb([[[0.0]]], 100), TypeError, "image to be an array, got list"),
        (lambda: mk.felzenszwalb(GOOD + 255, 100), ValueError, r"in \[0, 1\], got 255.*divide one of 0 to 255 by 255"),
        (lambda: mk.felzenszwalb(GOOD - 0.1, 100), ValueError, r"in \[0, 1\], got -0.1"),
        (lambda: mk.felzenszwalb(GOOD * np.nan, 100), ValueError, r"got nan to nan.*source of NaN"),
        (lambda: mk.felzenszwalb(GOOD, -1), ValueError, "finite scale >= 0, got -1"),
        (lambda: mk.felzenszwalb(GOOD, 100, np.inf), ValueError, "finite sigma >= 0, got inf"),
        (lambda: mk.felzenszwalb(GOOD, 100, min_size=0), ValueError, "integer min_size >= 1, got 0"),
        (lambda: mk.felzenszwalb(GOOD, 100, min_size=2.5), ValueError, "integer min_size >= 1, got 2.5"),
        (lambda: mk.region_adjacency(LABELS[0]), ValueError, r"expected labels \(H, W\).*got \(6,\)"),
        (lambda: mk.region_adjacency(LABELS[:0]), ValueError, r"pixels, got \(0, 6\)"),
        (lambda: mk.region_boxes(LABELS - 1), ValueError, "labels from 0 to at most 29 .*got -1 to -1"),
        (lambda: mk.region_boxes(LABELS + 30), ValueError, "labels from 0 to at most 29 .*got 30 to 30"),
        (lambda: mk.region_boxes(LABELS.astype(np.float32)), TypeError, "labels int32 or int64, got float32"),
        (lambda: mk.color_histograms(GOOD, LABELS[:4]), ValueError, r"labels \(H, W\) = \(5, 6\), got \(4, 6\)"),
        (lambda: mk.color_histograms(255 + GOOD, LABELS), ValueError, r"color_histograms: .*in \[0, 1\], got 255"),
        (lambda: mk.color_histograms(GOOD, LABELS, 0), ValueError, "integer bins >= 1, got 0"),
        (lambda: mk.texture_histograms(255 + GOOD, LABELS), ValueError, r"texture_histograms: .*in \[0, 1\], got 255"),
        (lambda: mk.texture_histograms(GOOD, LABELS, 1.5), ValueError, "integer bins >= 1, got 1.5"),
    ],
)
def test_bad_arguments_are_refused_by_name(call, error, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
