"""What the cases of several kernels draw."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

DTYPES = st.sampled_from([np.float32, np.float64])
# Around the 16 lanes of the vector type, and the blocks of 16, 32 and 64 channels that the CPU's convolution works on.
CHANNELS = st.sampled_from([1, 2, 3, 5, 16, 17, 32, 48, 64, 70])


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


def without(options: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != name}
