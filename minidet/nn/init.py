"""Initial weights, by their names. Each fills a Tensor in place, from the shared generator unless rng is given.

fan_in is the number of inputs that one output sums over, C * R * S for a convolution (groups counted in the shape).
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..device import on_device_of
from ..random import generator

# Numbers in a piece of a large weight: it is drawn on all cores, in float32, each piece from a generator of its own, so
# that the result is the same on any number of cores. VGG16's 138 million weights take a second, not ten.
PIECE = 1 << 20


def uniform_(x: Tensor, low: float = 0.0, high: float = 1.0, rng: np.random.Generator | None = None) -> Tensor:
    """Uniform in [low, high)."""
    if x.size > PIECE:
        return _draw_pieces(x, rng, lambda pieces, out: pieces.random(out=out, dtype=out.dtype), high - low, low)
    return _fill(x, (rng or generator()).uniform(low, high, x.shape))


def normal_(x: Tensor, mean: float = 0.0, std: float = 1.0, rng: np.random.Generator | None = None) -> Tensor:
    """Gaussian with a mean and a standard deviation."""
    if x.size > PIECE:
        return _draw_pieces(x, rng, lambda pieces, out: pieces.standard_normal(out=out, dtype=out.dtype), std, mean)
    return _fill(x, (rng or generator()).normal(mean, std, x.shape))


def constant_(x: Tensor, value: float) -> Tensor:
    """One value everywhere."""
    return _fill(x, value)


def zeros_(x: Tensor) -> Tensor:
    """0 everywhere."""
    return _fill(x, 0)


def ones_(x: Tensor) -> Tensor:
    """1 everywhere."""
    return _fill(x, 1)


def xavier_uniform_(x: Tensor, gain: float = 1.0, rng: np.random.Generator | None = None) -> Tensor:
    """Glorot and Bengio 2010, equation 16: uniform with variance gain^2 * 2 / (fan_in + fan_out)."""
    bound = gain * math.sqrt(6 / sum(_fans(x)))
    return uniform_(x, -bound, bound, rng)


def xavier_normal_(x: Tensor, gain: float = 1.0, rng: np.random.Generator | None = None) -> Tensor:
    """Glorot and Bengio 2010, Gaussian: variance gain^2 * 2 / (fan_in + fan_out)."""
    return normal_(x, 0, gain * math.sqrt(2 / sum(_fans(x))), rng)


def kaiming_uniform_(x: Tensor, a: float = 0.0, mode: str = "fan_in", rng: np.random.Generator | None = None) -> Tensor:
    """He et al. 2015, section 2.2: uniform with variance 2 / ((1 + a^2) fan), for ReLU with slope a below zero."""
    bound = math.sqrt(6 / ((1 + a * a) * _fan(x, mode)))
    return uniform_(x, -bound, bound, rng)


def kaiming_normal_(x: Tensor, a: float = 0.0, mode: str = "fan_in", rng: np.random.Generator | None = None) -> Tensor:
    """He et al. 2015, equations 10 and 15: Gaussian with variance 2 / ((1 + a^2) fan)."""
    return normal_(x, 0, math.sqrt(2 / ((1 + a * a) * _fan(x, mode))), rng)


def _fill(x: Tensor, values: Any) -> Tensor:
    x.data[...] = on_device_of(values, x.data)  # drawn on the CPU, so that the weights are the same on every device
    return x


def _draw_pieces(
    x: Tensor, rng: np.random.Generator | None, draw: Callable[[np.random.Generator, np.ndarray], Any], factor, offset
) -> Tensor:
    """x = factor * (numbers that `draw` writes into an array) + offset, piece by piece."""
    in_place = isinstance(x.data, np.ndarray) and x.dtype == np.float32 and x.data.flags.c_contiguous
    flat = x.data.reshape(-1) if in_place else np.empty(x.size, np.float32)

    def fill(start: int, seed: int) -> None:
        piece = flat[start : start + PIECE]
        draw(np.random.default_rng(seed), piece)
        piece *= np.float32(factor)
        piece += np.float32(offset)

    starts = range(0, x.size, PIECE)
    seeds = (rng or generator()).integers(2**63, size=len(starts))
    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, starts, seeds))  # list: an error in a thread is raised here
    return x if in_place else _fill(x, flat.reshape(x.shape))


def _fans(x: Tensor) -> tuple[int, int]:
    if x.ndim < 2:
        raise ValueError(f"initialisation: expected a weight of at least two axes (K, C, ...), got shape {x.shape}")
    receptive = math.prod(x.shape[2:])
    return x.shape[1] * receptive, x.shape[0] * receptive


def _fan(x: Tensor, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"initialisation: expected mode 'fan_in' or 'fan_out', got {mode!r}")
    return _fans(x)[mode == "fan_out"]
