"""Segmentation, and the features of its regions."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.kernels.cases.drawing import DTYPES
from tests.kernels.harness import Call, Case, in_memory

SIDES = st.one_of(st.integers(1, 3), st.integers(4, 12), st.integers(8, 12))


def random_image(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """In [0, 1]: noise, few values, flat patches with a little noise, steps, or, most often, noise of few grey values,
    where the order of edges of the same weight now and then decides to which neighbour a small region goes."""
    kind = rng.integers(8)
    if kind == 0:
        image = rng.random(shape)
    elif kind == 1:
        image = rng.integers(0, rng.integers(1, 6), shape) / 4
    elif kind == 2:
        rows, columns = np.sort(rng.integers(0, 3, shape[1])), np.sort(rng.integers(0, 3, shape[2]))
        image = rng.random((shape[0], 3, 3))[:, rows][:, :, columns] * 0.9 + 0.1 * rng.random(shape)
    elif kind == 3:
        image = np.broadcast_to(rng.random(shape[-1]) > 0.5, shape)
    else:
        levels = rng.choice([2, 5, 9])
        image = np.broadcast_to(rng.integers(0, levels, shape[1:]) / (levels - 1), shape)
    return image.astype(dtype)


@st.composite
def arrays(draw: st.DrawFn, image: bool, labels: bool) -> list[np.ndarray]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    height, width = draw(SIDES), draw(SIDES)
    memory = st.sampled_from(["contiguous", "sliced", "reversed", "read-only"])
    result = []
    if image:
        shape = (draw(st.integers(1, 4)), height, width)
        result.append(in_memory(random_image(rng, shape, draw(DTYPES)), draw(memory)))
    if labels:
        numbers = rng.integers(0, min(height * width, draw(st.sampled_from([1, 3, 10, 100]))), (height, width))
        if draw(st.booleans()):
            numbers = numbers.max(axis=0, keepdims=True).repeat(height, axis=0)  # stripes
        result.append(in_memory(numbers.astype(draw(st.sampled_from([np.int32, np.int64]))), draw(memory)))
    return result


@st.composite
def images(draw: st.DrawFn) -> Call:
    options = {
        "scale": draw(st.sampled_from([0, 0, 20, 100, 1000])),
        "sigma": draw(st.sampled_from([0, 0, 0, 0.1, 0.8, 3])),
        "min_size": draw(st.sampled_from([1, 2, 2, 2, 20])),
    }
    return Call(tuple(draw(arrays(image=True, labels=False))), options)


@st.composite
def regions(draw: st.DrawFn) -> Call:
    return Call(tuple(draw(arrays(image=False, labels=True))))


@st.composite
def images_with_regions(draw: st.DrawFn) -> Call:
    return Call(tuple(draw(arrays(image=True, labels=True))), {"bins": draw(st.sampled_from([1, 2, 10, 25]))})


CASES = [
    Case("felzenszwalb", images()),
    Case("region_adjacency", regions()),
    Case("region_boxes", regions()),
    Case("color_histograms", images_with_regions()),
    Case("texture_histograms", images_with_regions()),
]

MUTANTS = {
    "only lighter edges join": ("segmentation", "felzenszwalb", "weight <= bound[a]", "weight < bound[a]"),
    "one side decides": ("segmentation", "felzenszwalb", " and weight <= bound[b]", ""),
    "k by itself": ("segmentation", "felzenszwalb", "k / image.dtype.type(size[a])", "k"),
    "the last weight forgotten": ("segmentation", "felzenszwalb", "weight + k / ", "k / "),
    "sizes stay 1": ("segmentation", "felzenszwalb", "size[a] += size[b]", "size[a] += 0"),
    "both must be small": ("segmentation", "felzenszwalb", "< min_size or", "< min_size and"),
    "edges not sorted": ("segmentation", "felzenszwalb", "key=lambda edge: edge[0]", "key=lambda edge: 0"),
    "equal weights by the second pixel": (
        "segmentation",
        "felzenszwalb",
        "key=lambda edge: edge[0]",
        "key=lambda edge: (edge[0], edge[2])",
    ),
    "four neighbours": ("segmentation", "felzenszwalb", ", (1, 1), (-1, 1)]", "]"),
    "a pixel's last edge first": ("segmentation", "felzenszwalb", "right in EDGES:", "right in EDGES[::-1]:"),
    "dark beyond the border": (
        "segmentation",
        "felzenszwalb",
        "return image.take(at, axis)",
        "inside = at == np.arange(image.shape[axis]) + distance\n"
        "    return image.take(at, axis) * (inside[:, None] if axis == ROWS else inside).astype(image.dtype)",
    ),
    "smoothed along rows only": (
        "segmentation",
        "felzenszwalb",
        "_smoothed(_smoothed(image, weights, COLUMNS), weights, ROWS)",
        "_smoothed(image, weights, COLUMNS)",
    ),
    "sum of differences": ("segmentation", "felzenszwalb", "difference * difference", "abs(difference)"),
    "numbered from 1": ("segmentation", "felzenszwalb", "len(numbers))", "len(numbers) + 1)"),
    "neighbours along rows only": ("segmentation", "region_adjacency", "[(0, 1), (1, 0), (1, 1), (-1, 1)]", "[(0, 1)]"),
    "corners do not touch": ("segmentation", "region_adjacency", ", (1, 1), (-1, 1)]", "]"),
    "pairs both ways": (
        "segmentation",
        "region_adjacency",
        "pairs.add(tuple(sorted((int(labels[row, column]), int(labels[r, c])))))",
        "pairs.add((int(labels[row, column]), int(labels[r, c])))",
    ),
    "box ends at the last pixel": ("segmentation", "region_boxes", "columns.max() + 1", "columns.max()"),
    "y before x": ("segmentation", "region_boxes", "columns.min(), rows.min()", "rows.min(), columns.min()"),
    "range of the brightest pixel": (
        "segmentation",
        "color_histograms",
        "image * image.dtype.type(bins)",
        "image / max(image.max(), image.dtype.type(1e-3)) * image.dtype.type(bins)",
    ),
    "bins rounded": ("segmentation", "color_histograms", "image * image.dtype.type(bins)", "image * (bins - 1) + 0.5"),
    "bins of 0 to 255": (
        "segmentation",
        "color_histograms",
        "image.dtype.type(bins))",
        "image.dtype.type(bins / 255))",
    ),
    "x and y exchanged": ("segmentation", "texture_histograms", "[dx, half", "[dy, half"),
    "diagonals too long": ("segmentation", "texture_histograms", "math.sqrt(0.5)", "1"),
    "opposite directions alike": (
        "segmentation",
        "texture_histograms",
        "np.maximum(derivatives, 0)",
        "np.abs(derivatives)",
    ),
    "derivative not smoothed across": (
        "segmentation",
        "texture_histograms",
        "_smoothed(_slope(image, slope, COLUMNS), smoothing, ROWS)",
        "_slope(image, slope, COLUMNS)",
    ),
    "range of 1": ("segmentation", "texture_histograms", "* bins_per_unit", "* image.dtype.type(bins)"),
}
