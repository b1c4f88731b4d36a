"""Connected components of masks."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tests.kernels.harness import Call, Case, in_memory


def random_mask(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Noise of any density, walls with gaps (long winding components), or combs (labels that are joined late)."""
    mask = rng.random(shape) < rng.choice([0.05, 0.3, 0.5, 0.6, 0.8, 1])
    kind = rng.integers(4)
    if kind == 0:
        mask[..., ::2, :] = rng.random(mask[..., ::2, :].shape) < 0.9
        mask[..., 1::2, :] = rng.random(mask[..., 1::2, :].shape) < 0.2
    if kind == 1:
        mask[..., ::2] = True
        mask[..., 1::2] = rng.random(mask[..., 1::2].shape) < 0.1
    return mask


@st.composite
def masks(draw: st.DrawFn) -> Call:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = st.one_of(st.integers(0, 12), st.sampled_from([31, 33, 70]))  # the CUDA version's tiles are 8 x 32
    shape = (draw(st.integers(0, 3)), draw(sizes), draw(sizes))
    memory = draw(st.sampled_from(["contiguous", "sliced", "reversed", "read-only"]))
    return Call((in_memory(random_mask(rng, shape), memory),), {"connectivity": draw(st.sampled_from([4, 8]))})


CASES = [Case("connected_components", masks())]

MUTANTS = {
    "4 for 8": ("components", "connected_components", "EDGES + CORNERS", "EDGES"),
    "8 for 4": ("components", "connected_components", "connectivity == 4", "connectivity == 0"),
    "columns first": ("components", "connected_components", "np.argwhere(mask)", "np.argwhere(mask.T)[:, ::-1]"),
    "one number for all images": (
        "components",
        "connected_components",
        "labels[n], int(row), int(column), counts[n]",
        "labels[n], int(row), int(column), counts.sum()",
    ),
    "around the edge": (
        "components",
        "connected_components",
        "if 0 <= r < height and 0 <= c < width and mask[r, c]",
        "r, c = r % height, c % width\n            if mask[r, c]",
    ),
}

CUDA_MUTANTS = {
    "tiles not joined to the right": (
        "components",
        "connected_components",
        "aside / TILE_COLUMNS == column / TILE_COLUMNS",
        "true",
    ),
    "tiles not joined downwards": ("components", "connected_components", "up / TILE_ROWS == row / TILE_ROWS", "true"),
    "diagonal to the right forgotten": ("components", "connected_components", "{-1, 0, -1, 1}", "{-1, 0, -1, 0}"),
    "later root for earlier": (
        "components",
        "connected_components",
        "const int earlier = min(a, b), later = max(a, b);",
        "const int earlier = max(a, b), later = min(a, b);",
    ),
    "the pixel's number for its root's": ("components", "connected_components", "numbers[roots[at]]", "numbers[at]"),
    "counts on through the images": ("components", "connected_components", "image > 0 ? numbers[image - 1] : 0", "0"),
    "parent for root": (
        "components",
        "connected_components",
        "while (root >= 0 && parent[root] != root)",
        "if (false)",
    ),
    "around the edge of the tile": ("components", "connected_components", " && aside < TILE_COLUMNS", ""),
}
