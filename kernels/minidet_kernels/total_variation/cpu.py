"""Total variation with Numba, for images (N, H, W, C) of which a row is one vector of W*C numbers.

The right neighbour of number k of such a row is number k + C: so one loop serves grey and coloured images, and becomes
vector instructions for both. The threads share the rows.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from minidet_kernels.compiler import parallel, serial
from minidet_kernels.memory import contiguous

# Rows that are summed up together: enough for a thread to be worth starting, and a number that does not depend on the
# threads, so that the sum has the same bits on every machine.
ROWS_PER_SUM = 16


def tv_anisotropic(x: np.ndarray) -> np.ndarray:
    return _total(x, _sum_absolute)


def tv_isotropic(x: np.ndarray) -> np.ndarray:
    return _total(x, _sum_lengths)


def _total(x: np.ndarray, kernel) -> np.ndarray:
    n, c, h, w = x.shape
    sums = np.zeros((n, -(-h // ROWS_PER_SUM), w * c))
    kernel(_to_rows(x), c, sums)
    return sums.reshape(n, -1, c).sum(axis=1) if sums.size else np.zeros((n, c))


def tv_anisotropic_subgradient(x: np.ndarray) -> np.ndarray:
    rows = _to_rows(x)
    s = np.empty_like(rows)
    _signs(rows, x.shape[1], s)
    return _to_images(s, x.shape)


def tv_isotropic_subgradient(x: np.ndarray) -> np.ndarray:
    p, s = _gradient_rows(x), np.empty_like(_to_rows(x))
    _normalize(p, p)
    _adjoint(p, x.shape[1], s)
    return _to_images(s, x.shape)


def image_gradient(x: np.ndarray) -> np.ndarray:
    return _to_fields(_gradient_rows(x), x.shape)


def image_gradient_adjoint(p: np.ndarray) -> np.ndarray:
    rows = _field_to_rows(p)
    x = np.empty_like(rows[0])
    _adjoint(rows, p.shape[2], x)
    return _to_images(x, p.shape[1:])


def project_anisotropic(p: np.ndarray, radius: np.floating) -> np.ndarray:
    rows = _field_to_rows(p)
    result = np.empty_like(rows)
    _clip(rows, radius, result)
    return _to_fields(result, p.shape[1:])


def project_isotropic(p: np.ndarray, radius: np.floating) -> np.ndarray:
    rows = _field_to_rows(p)
    result = np.empty_like(rows)
    _shorten(rows, radius, result)
    return _to_fields(result, p.shape[1:])


def _gradient_rows(x: np.ndarray) -> np.ndarray:
    rows = _to_rows(x)
    p = np.empty((2, *rows.shape), x.dtype)
    _gradient(rows, x.shape[1], p)
    return p


def _to_rows(x: np.ndarray) -> np.ndarray:
    """(N, C, H, W) -> (N, H, W*C); a view if it can be."""
    n, c, h, w = x.shape
    return contiguous(x.transpose(0, 2, 3, 1)).reshape(n, h, w * c)


def _field_to_rows(p: np.ndarray) -> np.ndarray:
    """(2, N, C, H, W) -> (2, N, H, W*C); a view if it can be."""
    _, n, c, h, w = p.shape
    return contiguous(p.transpose(0, 1, 3, 4, 2)).reshape(2, n, h, w * c)


def _to_images(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(N, H, W*C) -> the view (N, C, H, W)."""
    n, c, h, w = shape
    return rows.reshape(n, h, w, c).transpose(0, 3, 1, 2)


def _to_fields(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(2, N, H, W*C) -> the view (2, N, C, H, W)."""
    n, c, h, w = shape
    return rows.reshape(2, n, h, w, c).transpose(0, 1, 4, 2, 3)


@parallel
def _sum_absolute(x, channels, sums):
    n, h, _ = x.shape
    strips = sums.shape[1]
    for task in prange(n * strips):
        b, strip = task // strips, task % strips
        for i in range(strip * ROWS_PER_SUM, min((strip + 1) * ROWS_PER_SUM, h)):
            _add_absolute(x[b, i, :-channels], x[b, i, channels:], sums[b, strip])
            if i + 1 < h:
                _add_absolute(x[b, i], x[b, i + 1], sums[b, strip])


@serial
def _add_absolute(here, there, total):
    """total += |there - here|, in float64."""
    for k in range(len(here)):
        total[k] += abs(np.float64(there[k]) - np.float64(here[k]))


@parallel
def _sum_lengths(x, channels, sums):
    n, h, w = x.shape
    strips = sums.shape[1]
    for task in prange(n * strips):
        b, strip = task // strips, task % strips
        for i in range(strip * ROWS_PER_SUM, min((strip + 1) * ROWS_PER_SUM, h)):
            if i + 1 == h:
                _add_absolute(x[b, i, :-channels], x[b, i, channels:], sums[b, strip])
            else:
                last = w - channels  # the last pixel has only a lower neighbour
                _add_lengths(x[b, i, :last], x[b, i, channels:], x[b, i + 1, :last], sums[b, strip])
                _add_absolute(x[b, i, last:], x[b, i + 1, last:], sums[b, strip, last:])


@serial
def _add_lengths(here, right, below, total):
    """total += the lengths of (right - here, below - here), in float64."""
    for k in range(len(here)):
        dx, dy = np.float64(right[k]) - np.float64(here[k]), np.float64(below[k]) - np.float64(here[k])
        total[k] += math.sqrt(dx * dx + dy * dy)


@parallel
def _signs(x, channels, s):
    n, h, _ = x.shape
    for task in prange(n * h):
        b, i = task // h, task % h
        s[b, i] = 0
        _add_signs(x[b, i, :-channels], x[b, i, channels:], s[b, i, channels:])
        _subtract_signs(x[b, i, :-channels], x[b, i, channels:], s[b, i])
        if i > 0:
            _add_signs(x[b, i - 1], x[b, i], s[b, i])
        if i + 1 < h:
            _subtract_signs(x[b, i], x[b, i + 1], s[b, i])


@serial
def _add_signs(here, there, s):
    """s += sign(there - here)."""
    for k in range(len(here)):
        s[k] += np.sign(there[k] - here[k])


@serial
def _subtract_signs(here, there, s):
    """s -= sign(there - here)."""
    for k in range(len(here)):
        s[k] -= np.sign(there[k] - here[k])


@parallel
def _gradient(x, channels, p):
    n, h, _ = x.shape
    for task in prange(n * h):
        b, i = task // h, task % h
        p[0, b, i, -channels:] = 0
        _subtract(x[b, i, channels:], x[b, i, :-channels], p[0, b, i])
        if i + 1 < h:
            _subtract(x[b, i + 1], x[b, i], p[1, b, i])
        else:
            p[1, b, i] = 0


@serial
def _subtract(a, b, difference):
    """The difference a - b, in the first numbers of `difference`."""
    for k in range(len(a)):
        difference[k] = a[k] - b[k]


@parallel
def _adjoint(p, channels, x):
    n, h, _ = x.shape
    for task in prange(n * h):
        b, i = task // h, task % h
        x[b, i] = 0
        _add(p[0, b, i, :-channels], x[b, i, channels:])
        _take(p[0, b, i, :-channels], x[b, i])
        if i > 0:
            _add(p[1, b, i - 1], x[b, i])
        if i + 1 < h:
            _take(p[1, b, i], x[b, i])


@serial
def _add(a, total):
    """total += a."""
    for k in range(len(a)):
        total[k] += a[k]


@serial
def _take(a, total):
    """total -= a."""
    for k in range(len(a)):
        total[k] -= a[k]


@parallel
def _normalize(p, result):
    _, n, h, w = p.shape
    for task in prange(n * h):
        b, i = task // h, task % h
        for k in range(w):
            px, py = p[0, b, i, k], p[1, b, i, k]
            length = _length(px, py)
            result[0, b, i, k] = px / length if length != 0 else px
            result[1, b, i, k] = py / length if length != 0 else py


@parallel
def _clip(p, radius, result):
    _, n, h, w = p.shape
    for task in prange(2 * n * h):
        part, b, i = task // (n * h), task // h % n, task % h
        for k in range(w):
            value = p[part, b, i, k]
            result[part, b, i, k] = radius if value > radius else -radius if value < -radius else value


@parallel
def _shorten(p, radius, result):
    _, n, h, w = p.shape
    for task in prange(n * h):
        b, i = task // h, task % h
        for k in range(w):
            px, py = p[0, b, i, k], p[1, b, i, k]
            length = _length(px, py)
            shrink = radius / length if length > radius else 1
            result[0, b, i, k] = px * shrink
            result[1, b, i, k] = py * shrink


@serial
def _length(px, py):
    """By way of float64, in which the square of a small float32 number is not 0."""
    return math.sqrt(np.float64(px) ** 2 + np.float64(py) ** 2)
