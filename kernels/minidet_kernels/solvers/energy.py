"""What is minimised, and what a solver returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from minidet_kernels.arguments import check_floats, check_number, check_shape
from minidet_kernels.total_variation import (
    project_anisotropic,
    project_isotropic,
    tv_anisotropic,
    tv_anisotropic_subgradient,
    tv_isotropic,
    tv_isotropic_subgradient,
)
from minidet_kernels.versions import array_module, is_on_gpu, to_host

Function = Callable[[np.ndarray], np.ndarray]

# A float; of arrays on the GPU an array without axes that stays there: the host need not wait until it asks for it.
Number = float | np.ndarray

# For each kind of total variation: its value, a subgradient, and the projection that its dual form needs.
VARIATIONS = {
    "anisotropic": (tv_anisotropic, tv_anisotropic_subgradient, project_anisotropic),
    "isotropic": (tv_isotropic, tv_isotropic_subgradient, project_isotropic),
}

# Steps of the power iteration for |K'K|, and the reserve for what it has not found yet: it comes from below, and 30
# steps leave 1 or 2 %. A norm that is too small lets the solvers diverge; one that is too large slows them as much.
POWER_STEPS = 30
POWER_RESERVE = 1.05


@dataclass(frozen=True)
class LinearOperator:
    """K as the pair of functions h -> K h and y -> K' y, both on arrays of four axes.

    `gram`, h -> K'K h, may be given where it is cheaper than one after the other. `smallest_eigenvalue` is that of K'K,
    or any number from 0 to it: what it promises, `primal_dual` builds its certificate on.
    """

    forward: Function
    adjoint: Function
    gram: Function | None = None
    smallest_eigenvalue: float = 0.0

    def __post_init__(self) -> None:
        check_number("LinearOperator", smallest_eigenvalue=self.smallest_eigenvalue)

    def gram_of(self, h: np.ndarray) -> np.ndarray:
        return self.adjoint(self.forward(h)) if self.gram is None else self.gram(h)


IDENTITY = LinearOperator(lambda h: h, lambda y: y, lambda h: h, smallest_eigenvalue=1.0)


@dataclass(frozen=True, eq=False)  # two arrays have no single answer to ==
class Energy:
    """E(h) = 1/2 |K h - g|^2 + lambda TV(h) + mu/2 |h|^2, with g = `data`, lambda = `tv_weight`, mu = `l2_weight`.

    data has four axes and is float32 or float64, as everything will be; h (N, C, H, W) has the shape of K' g. All
    images and channels of h add up to one number. A call, energy(h), costs K once and some operations a pixel.

    Raises ValueError for weights that are negative or not finite, data that is not finite, and an unknown variation;
    TypeError for other dtypes.
    """

    operator: LinearOperator
    data: np.ndarray
    tv_weight: float
    l2_weight: float = 0.0
    variation: str = "anisotropic"

    def __post_init__(self) -> None:
        check_number("Energy", tv_weight=self.tv_weight, l2_weight=self.l2_weight)
        for name in ("tv_weight", "l2_weight"):  # NumPy's float64 would turn float32 arrays into float64
            object.__setattr__(self, name, float(getattr(self, name)))
        if self.variation not in VARIATIONS:
            raise ValueError(f"Energy: expected variation to be one of {', '.join(VARIATIONS)}, got {self.variation!r}")
        check_shape("Energy", "data", self.data, "N C H W", (None, None, None, None))
        check_floats("Energy", data=self.data)
        if not np.isfinite(self.data).all():
            raise ValueError("Energy: expected finite data, got NaN or infinity; a map divided by its maximum 0?")
        check_shape("Energy", "K' data", self.back_projection, "N C H W", (None, None, None, None))
        check_floats("Energy", data=self.data, **{"K' data": self.back_projection})

    def __call__(self, h: np.ndarray) -> float:
        """E(h), term by term as it is written. On the GPU the host waits for it."""
        return float(self.value(h))

    def value(self, h: np.ndarray) -> Number:
        misfit = self.operator.forward(h) - self.data
        return 0.5 * square(misfit) + self.tv_weight * self.total_variation(h) + 0.5 * self.l2_weight * square(h)

    def total_variation(self, h: np.ndarray) -> Number:
        value, _, _ = VARIATIONS[self.variation]
        return number(value(h).sum())

    def smooth_gradient(self, h: np.ndarray) -> np.ndarray:
        """The gradient of the two quadratic terms, K'K h - K'g + mu h."""
        gradient = self.operator.gram_of(h) - self.back_projection
        gradient += self.l2_weight * h
        return gradient

    def value_and_subgradient(self, h: np.ndarray) -> tuple[Number, np.ndarray]:
        """E(h) and a subgradient there, for little more than the subgradient alone.

        Of a quadratic, 1/2 <h, A h> - <h, b>, the value is half of <h, gradient> - <h, b>; and TV(h) = <h, s> for its
        subgradient s, as TV(c h) = c TV(h). In float32 the value is exact to 1e-6 of |g|^2: enough to choose the best
        of many iterates, and to tell how far a step should go.
        """
        _, subgradient, _ = VARIATIONS[self.variation]
        smooth, s = self.smooth_gradient(h), subgradient(h)
        quadratic = 0.5 * (product(h, smooth) - product(h, self.back_projection) + self._data_square)
        value = quadratic + self.tv_weight * product(h, s)
        s *= self.tv_weight
        smooth += s
        return value, smooth

    @cached_property
    def back_projection(self) -> np.ndarray:
        """K' g."""
        return self.operator.adjoint(self.data)

    @cached_property
    def _data_square(self) -> Number:
        return square(self.data)

    @cached_property
    def smoothness(self) -> float:
        """A bound on |K'K| + mu, found by power iteration: no gradient of the quadratic terms changes faster."""
        h = np.random.default_rng(0).random(self.back_projection.shape).astype(self.data.dtype)
        h = array_module(self.data).asarray(h)
        length = np.sqrt(square(h))
        for _ in range(POWER_STEPS):
            length = length + (length == 0)  # of K = 0: h is 0, and 0 / 1 is, too
            h = self.operator.gram_of(h / length.astype(h.dtype))
            length = np.sqrt(square(h))
        return POWER_RESERVE * float(length) + self.l2_weight

    @property
    def convexity(self) -> float:
        """m > 0 such that E(h) - m/2 |h|^2 is still convex, or 0 if none is known."""
        return self.l2_weight + self.operator.smallest_eigenvalue

    def start_from(self, h: np.ndarray | None) -> np.ndarray:
        """A copy of h, checked, or zeros."""
        if h is None:
            return np.zeros_like(self.back_projection)
        check_shape("Energy", "start", h, "N C H W", self.back_projection.shape)
        check_floats("Energy", data=self.data, start=h)
        if not np.isfinite(h).all():
            raise ValueError("Energy: expected a finite start, got NaN or infinity")
        return h.copy()


@dataclass(frozen=True, eq=False)
class Solution:
    """The best h that a solver found, and the way there."""

    h: np.ndarray  # (N, C, H, W)
    energy: float  # E(h)
    lower_bound: float  # no h has less energy; 0, which is always true, from solvers that certify nothing
    energies: np.ndarray  # of the iterates at which it was taken, in order
    gaps: np.ndarray  # of primal_dual: the certified distance to the optimum at the same iterates; else empty
    iterations: int

    @property
    def gap(self) -> float:
        """The optimum is at most so much lower than `energy`."""
        return self.energy - self.lower_bound


def square(a: np.ndarray) -> Number:
    """|a|^2, summed up in float64."""
    return number((a * a).sum(dtype=np.float64))


def product(a: np.ndarray, b: np.ndarray) -> Number:
    """<a, b>, for the loops."""
    return number(np.vdot(a, b))


def number(value: np.ndarray) -> Number:
    return value.astype(np.float64) if is_on_gpu(value) else float(value)


def lesser(value: Number, h: np.ndarray, least: Number, best: np.ndarray) -> tuple[Number, np.ndarray]:
    """The smaller of two energies, with its h; NaN is never smaller. On the GPU it is chosen there."""
    better = value < least
    if is_on_gpu(better):
        return np.where(better, value, least), np.where(better, h, best)
    return (value, h) if better else (least, best)


def on_host(*values: Number) -> list[float]:
    """All together, so that the host waits for the GPU once."""
    return to_host(np.stack(values)).tolist()
