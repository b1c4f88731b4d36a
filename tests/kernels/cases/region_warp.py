"""R-CNN's warped regions."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tests.kernels.cases.drawing import DTYPES
from tests.kernels.harness import Call, Case, images, in_memory


@st.composite
def regions(draw: st.DrawFn) -> Call:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    channels, height, width = draw(st.integers(1, 4)), draw(st.integers(1, 12)), draw(st.integers(1, 12))
    image = draw(images((1, channels, height, width), draw(DTYPES)))[0]
    corners = rng.uniform(-0.4, 1.2, (draw(st.integers(0, 4)), 2)) * [width, height]
    boxes = np.concatenate([corners, corners + rng.uniform(0, 1, corners.shape) * [width, height]], axis=1)
    if draw(st.booleans()):
        boxes = np.floor(boxes)  # some without area
    boxes = in_memory(boxes.astype(draw(DTYPES)), draw(st.sampled_from(["contiguous", "sliced", "read-only"])))
    size = draw(st.integers(1, 12))
    options = {
        "size": size,
        "context": draw(st.integers(0, (size - 1) // 2)),
        "fill": draw(st.sampled_from([None, [0.25] * channels, list(range(channels))])),
    }
    return Call((image, boxes), options)


CASES = [Case("region_warp", regions())]

MUTANTS = {
    "mirrored": ("region_warp", "region_warp", "across] = shown", "across] = shown[:, :, ::-1]"),
    "no fill": ("region_warp", "region_warp", "warped[...] = fill[:, None, None]", "pass"),
    "mean of all channels": (
        "region_warp",
        "region_warp",
        "axis=(1, 2), dtype=np.float64)[:, None, None]",
        "dtype=np.float64)",
    ),
    "not put into its place": ("region_warp", "region_warp", "i : i + down, j : j + across", ":down, :across"),
    "cut off a pixel early": (
        "region_warp",
        "region_warp",
        "        region = image[None",
        "        width = max(width - 1, 1)\n        region = image[None",
    ),
    "the image around the window shines in": (
        "region_warp",
        "region_warp",
        "        region = image[None",
        "        top, height = max(top - 1, 0), height + (top > 0)\n        region = image[None",
    ),
}
