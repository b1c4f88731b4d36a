"""The taps of the Gaussian and of its derivative, the same for all versions."""

from __future__ import annotations

import math

import numpy as np

TRUNCATE = 4  # in units of sigma, as the paper's program does; beyond it lies 1/16,000 of the Gaussian


def smoothing_weights(sigma: float, dtype: np.dtype) -> np.ndarray:
    """The taps (r + 1,) at distance 0, 1, ..., r = ceil(4 sigma): with those at -1, ..., -r their sum is 1.

    smooth[x] = weights[0] * image[x] + sum over i >= 1 of weights[i] * (image[x - i] + image[x + i])
    """
    return _gaussian(sigma).astype(dtype)


def derivative_weights(sigma: float, dtype: np.dtype) -> np.ndarray:
    """The taps (r + 1,), the first of which is 0: minus the derivative of the Gaussian, i / sigma^2 times its tap.

    slope[x] = sum over i >= 1 of weights[i] * (image[x + i] - image[x - i])
    """
    gaussian = _gaussian(sigma)
    return (np.arange(len(gaussian)) / sigma**2 * gaussian).astype(dtype)


def _gaussian(sigma: float) -> np.ndarray:
    distances = np.arange(math.ceil(TRUNCATE * sigma) + 1)
    if sigma == 0:
        return np.ones(1)
    with np.errstate(over="ignore"):  # a tiny sigma: exp(-infinity) is 0, as it should be
        taps = np.exp(-0.5 * (distances / float(sigma)) ** 2)
    return taps / (taps[0] + 2 * taps[1:].sum())
