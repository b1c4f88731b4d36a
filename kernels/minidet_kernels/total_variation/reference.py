"""Total variation in plain NumPy, formula by formula."""

from __future__ import annotations

import numpy as np


def tv_anisotropic(x: np.ndarray) -> np.ndarray:
    dx, dy = image_gradient(x.astype(np.float64))
    return (np.abs(dx) + np.abs(dy)).sum(axis=(2, 3))


def tv_isotropic(x: np.ndarray) -> np.ndarray:
    dx, dy = image_gradient(x.astype(np.float64))
    return np.sqrt(dx**2 + dy**2).sum(axis=(2, 3))


def tv_anisotropic_subgradient(x: np.ndarray) -> np.ndarray:
    return image_gradient_adjoint(np.sign(image_gradient(x)))


def tv_isotropic_subgradient(x: np.ndarray) -> np.ndarray:
    p = image_gradient(x)
    length = _length(p)
    length[length == 0] = 1  # where both differences are 0: 0 / 1 = 0
    return image_gradient_adjoint((p / length).astype(p.dtype))


def image_gradient(x: np.ndarray) -> np.ndarray:
    p = np.zeros((2, *x.shape), x.dtype)
    p[0, :, :, :, :-1] = x[:, :, :, 1:] - x[:, :, :, :-1]
    p[1, :, :, :-1, :] = x[:, :, 1:, :] - x[:, :, :-1, :]
    return p


def image_gradient_adjoint(p: np.ndarray) -> np.ndarray:
    x = np.zeros(p.shape[1:], p.dtype)
    x[:, :, :, 1:] += p[0, :, :, :, :-1]  # each difference was taken from two pixels, and goes back to both
    x[:, :, :, :-1] -= p[0, :, :, :, :-1]
    x[:, :, 1:, :] += p[1, :, :, :-1, :]
    x[:, :, :-1, :] -= p[1, :, :, :-1, :]
    return x


def project_anisotropic(p: np.ndarray, radius: np.floating) -> np.ndarray:
    return np.clip(p, -radius, radius)


def project_isotropic(p: np.ndarray, radius: np.floating) -> np.ndarray:
    length = _length(p)
    shrink = np.divide(radius, length, out=np.ones_like(length), where=length > radius)
    return (p * shrink).astype(p.dtype)


def _length(p: np.ndarray) -> np.ndarray:
    """(2, N, C, H, W) -> (N, C, H, W), float64: in float32 the square of a small difference would be 0, and the length
    of a pair of large ones infinite."""
    return np.sqrt((p.astype(np.float64) ** 2).sum(axis=0))
