"""Total variation of images: its value, a subgradient, and the parts of its dual form.

The discrete gradient D takes differences to the right and to the lower neighbour; where there is none, at the last
column and the last row, they are 0:

    dx[n, c, h, w] = x[n, c, h, w + 1] - x[n, c, h, w]         dy[n, c, h, w] = x[n, c, h + 1, w] - x[n, c, h, w]

    anisotropic:  TV(x) = sum of |dx| + |dy|                   (TV_l1 of the lecture)
    isotropic:    TV(x) = sum of sqrt(dx^2 + dy^2)

for each channel by itself. The anisotropic one is cheaper and likes edges along the axes; the isotropic one treats all
directions (nearly) alike. Source: Rudin, Osher and Fatemi 1992.

TV is convex, and not smooth where a difference is 0. A **subgradient** is D' q, where q is the sign of the differences,
or (dx, dy) / |(dx, dy)|, and 0 at 0. As TV is a maximum over q,

    TV(x) = max of <D x, q>  over all q that are |q| <= 1, in each component or in each pair,

its dual form needs the projection of a field p onto that ball, times a radius: `project_anisotropic` and
`project_isotropic`. What a projection takes away is the **proximal map** of the norm that TV sums up (Moreau's
decomposition): p - project(p, r) brings components, or pairs, nearer to 0 by r, and those shorter than r to 0. Source:
Chambolle 2004. D' is minus the divergence.

A field p is (2, N, C, H, W): p[0] belongs to dx, p[1] to dy. All functions: float32 or float64, any memory layout, an
empty batch gives an empty result, no input is changed; NaN stays NaN. The values are computed and summed up in float64,
for they are sums of very many terms. The CPU versions return channels-last memory under the public shape, those on the
GPU plain (N, C, H, W); there the values stay on the GPU too, and nobody waits. Cost: some operations a pixel, so the
traffic of memory decides.
"""

from __future__ import annotations

import numpy as np

from minidet_kernels.arguments import check_floats, check_number, check_shape
from minidet_kernels.versions import choose

__all__ = [
    "image_gradient",
    "image_gradient_adjoint",
    "project_anisotropic",
    "project_isotropic",
    "tv_anisotropic",
    "tv_anisotropic_subgradient",
    "tv_isotropic",
    "tv_isotropic_subgradient",
]


def tv_anisotropic(x: np.ndarray) -> np.ndarray:
    """x (N, C, H, W) -> (N, C) float64. Raises ValueError for other shapes, TypeError for other dtypes."""
    _check_image("tv_anisotropic", x)
    return choose(__name__, x).tv_anisotropic(x)


def tv_isotropic(x: np.ndarray) -> np.ndarray:
    """x (N, C, H, W) -> (N, C) float64. Raises as `tv_anisotropic`."""
    _check_image("tv_isotropic", x)
    return choose(__name__, x).tv_isotropic(x)


def tv_anisotropic_subgradient(x: np.ndarray) -> np.ndarray:
    """x (N, C, H, W) -> s (N, C, H, W), integers from -4 to 4; TV(x) = <x, s>. Raises as `tv_anisotropic`."""
    _check_image("tv_anisotropic_subgradient", x)
    return choose(__name__, x).tv_anisotropic_subgradient(x)


def tv_isotropic_subgradient(x: np.ndarray) -> np.ndarray:
    """x (N, C, H, W) -> s (N, C, H, W); TV(x) = <x, s>. Raises as `tv_anisotropic`."""
    _check_image("tv_isotropic_subgradient", x)
    return choose(__name__, x).tv_isotropic_subgradient(x)


def image_gradient(x: np.ndarray) -> np.ndarray:
    """x (N, C, H, W) -> D x (2, N, C, H, W). Raises as `tv_anisotropic`."""
    _check_image("image_gradient", x)
    return choose(__name__, x).image_gradient(x)


def image_gradient_adjoint(p: np.ndarray) -> np.ndarray:
    """p (2, N, C, H, W) -> D' p (N, C, H, W), minus the divergence. p[0] in the last column and p[1] in the last row
    belong to no difference and are not read. Raises as `tv_anisotropic`."""
    _check_field("image_gradient_adjoint", p)
    return choose(__name__, p).image_gradient_adjoint(p)


def project_anisotropic(p: np.ndarray, radius: float) -> np.ndarray:
    """p (2, N, C, H, W) -> the nearest field whose components are at most `radius` in size.

    Raises as `tv_anisotropic`; ValueError unless radius >= 0 is finite.
    """
    _check_field("project_anisotropic", p)
    check_number("project_anisotropic", radius=radius)
    return choose(__name__, p).project_anisotropic(p, p.dtype.type(radius))


def project_isotropic(p: np.ndarray, radius: float) -> np.ndarray:
    """p (2, N, C, H, W) -> the nearest field whose pairs (p[0], p[1]) are at most `radius` long. Raises as
    `project_anisotropic`."""
    _check_field("project_isotropic", p)
    check_number("project_isotropic", radius=radius)
    return choose(__name__, p).project_isotropic(p, p.dtype.type(radius))


def _check_image(operation: str, x: np.ndarray) -> None:
    check_shape(operation, "x", x, "N C H W", (None, None, None, None))
    check_floats(operation, x=x)


def _check_field(operation: str, p: np.ndarray) -> None:
    check_shape(operation, "p", p, "2 N C H W", (2, None, None, None, None))
    check_floats(operation, p=p)
