"""The grouping of regions."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tests.kernels.cases.drawing import DTYPES
from tests.kernels.harness import Call, Case, in_memory


def random_counts(rng: np.random.Generator, sizes: np.ndarray, measurements: int, bins: int) -> np.ndarray:
    """(R, measurements * bins), int64: of each measurement every pixel is in one of the bins."""
    favourite = rng.dirichlet(np.full(bins, 0.5), (len(sizes), measurements))
    counts = [[rng.multinomial(size, p) for p in of_region] for size, of_region in zip(sizes, favourite, strict=True)]
    return np.array(counts, np.int64).reshape(len(sizes), measurements * bins)


@st.composite
def regions(draw: st.DrawFn) -> Call:
    """Any graph of neighbours, connected or not; features of few values, so that many pairs are equally similar."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(1, 8))
    corners = rng.integers(0, 6, (count, 2, 2))
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1) + 1], axis=1).astype(draw(DTYPES))
    if draw(st.booleans()):
        boxes += rng.random(boxes.shape) * [0, 0, 1, 1]
        boxes = boxes.astype(boxes.dtype)
    sizes = rng.integers(1, draw(st.sampled_from([2, 4, 50])), count)
    share = draw(st.sampled_from([0, 0.2, 0.5, 1]))
    pairs = np.argwhere(np.triu(rng.random((count, count)) < share, 1))
    arrays = [
        boxes,
        sizes,
        pairs,
        random_counts(rng, sizes, draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 25]))),
        random_counts(rng, sizes, draw(st.sampled_from([1, 8])), draw(st.sampled_from([1, 3, 10]))),
        rng.random((draw(st.integers(1, 3)), 4)) < 0.6,
    ]
    memory = st.sampled_from(["contiguous", "sliced", "reversed", "read-only"])
    return Call(tuple(in_memory(array, draw(memory)) for array in arrays))


CASES = [Case("group_regions", regions())]

MUTANTS = {
    told: ("grouping", "group_regions", old, new)
    for told, old, new in [
        ("the least similar first", "max(similar,", "min(similar,"),
        ("of equals the last", "max(similar, key=similar.get)", "max(reversed(similar), key=similar.get)"),
        ("of equals the lowest regions", "max(similar, key", "max(sorted(similar), key"),
        ("neighbours of one side only", "if a in pair or b in pair for", "if a in pair for"),
        ("everything touches", "touching = {", "touching = set(range(new)) - {r for m in merges for r in m} | {"),
        ("neighbours not sorted", "sorted(touching)", "sorted(touching, reverse=True)"),
        ("no colour", "    if color:\n", "    if False:\n"),
        (
            "colour for texture",
            "_intersection(a.texture, a.size, b.texture, b.size)",
            "_intersection(a.color, a.size, b.color, b.size)",
        ),
        ("size alone", "(a.size + b.size) / image_size\n    if fill", "a.size / image_size\n    if fill"),
        ("size of the largest", "sum(region.size for region in regions)", "max(region.size for region in regions)"),
        ("fill without the second", " - a.size - b.size) / image_size", " - a.size) / image_size"),
        ("fill of one box", "_box_around(a.box, b.box).astype", "a.box.astype"),
        ("histograms not weighted by size", "counts_a * size_b, counts_b * size_a", "counts_a, counts_b"),
        ("each channel has sum 1", "(measurements * size_a * size_b)", "(size_a * size_b)"),
        ("histogram of one side", "a.color + b.color", "2 * a.color"),
        ("box of one side", "Region(_box_around(a.box, b.box),", "Region(a.box,"),
    ]
}
