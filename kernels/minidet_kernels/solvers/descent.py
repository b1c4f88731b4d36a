"""Subgradient descent, and Adam: both only ask the energy for its value and a subgradient."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from minidet_kernels.arguments import check_count, check_number, is_finite
from minidet_kernels.solvers.energy import Energy, Number, Solution, lesser, number, on_host, product

# (number of the step, energy, subgradient) -> how far to go against the subgradient. On the GPU the energy is an array
# without axes; a rule that computes with it there, and asks for no float, makes nobody wait.
StepRule = Callable[[int, Number, np.ndarray], Number]

# The last of the default's steps over the first, which is 1 / smoothness: a length that surely goes down on the
# quadratic terms. The zigzag over the kinks of TV that is left at the end is proportional to the last step; but the
# shorter the steps become, the sooner h stands still. In 500 iterations on problems of 64 x 64 and 224 x 224 pixels,
# 1e-2 left 2 to 11 times more above the optimum; from 1e-3 to 3e-5 there was little difference.
LAST_STEP = 1e-4


def constant_steps(size: float) -> StepRule:
    """Comes as near to the optimum as the zigzag of its step allows, and no nearer."""
    check_number("constant_steps", positive=True, size=size)
    return lambda k, value, subgradient: size


def diminishing_steps(first: float) -> StepRule:
    """first / sqrt(1 + k): converges for every convex energy, as it goes on forever, and slowly.

    Source: Nesterov 2004, chapter 3.
    """
    check_number("diminishing_steps", positive=True, first=first)
    return lambda k, value, subgradient: first / math.sqrt(1 + k)


def geometric_steps(first: float, last: float, iterations: int) -> StepRule:
    """From `first` to `last`, each shorter than the one before by the same factor. Source: Goffin 1977.

    For a given number of iterations this comes much nearer than `diminishing_steps`, which must be able to go on
    forever and still takes long steps at the end: on the tests' problems of 64 x 64, in 500 iterations, 0.1 to 2.6 %
    above the optimum in place of 3 to 35 %.
    """
    check_number("geometric_steps", positive=True, first=first, last=last)
    check_count("geometric_steps", iterations=iterations)
    factor = (last / first) ** (1 / max(iterations - 1, 1))
    return lambda k, value, subgradient: first * factor**k


def polyak_steps(optimum: float) -> StepRule:
    """(E(h) - optimum) / |subgradient|^2, the best step if the optimum, or a little less, is known: from `primal_dual`.

    Source: Polyak 1969.
    """
    if not is_finite(optimum):
        raise ValueError(f"polyak_steps: expected a finite optimum, got {optimum!r}")

    def step(k: int, value: Number, subgradient: np.ndarray) -> Number:
        square = product(subgradient, subgradient)
        return number(np.maximum(value - optimum, 0.0) / (square + (square == 0)))  # any step against 0 leads nowhere

    return step


def subgradient_descent(
    energy: Energy, iterations: int = 500, step: StepRule | None = None, start: np.ndarray | None = None
) -> Solution:
    """h <- h - step * subgradient, from `start` or 0; the best iterate is kept. Source: Shor 1985.

    step None means geometric ones, from 1 / smoothness down. Deterministic. Raises ValueError for iterations
    below 1, ValueError or TypeError for a start that does not fit.
    """
    check_count("subgradient_descent", iterations=iterations)
    h = energy.start_from(start)
    if step is None:
        first = 1 / energy.smoothness if energy.smoothness > 0 else 1.0
        step = geometric_steps(first, LAST_STEP * first, iterations)
    best, least, energies = h, math.inf, []
    for k in range(iterations):
        value, subgradient = energy.value_and_subgradient(h)
        energies.append(value)
        least, best = lesser(value, h, least, best)
        subgradient *= step(k, value, subgradient)
        h = h - subgradient  # a new array, so that `best` keeps its own
    return _solution(energy, [best, h], energies, iterations)


def adam(
    energy: Energy,
    iterations: int = 200,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    start: np.ndarray | None = None,
) -> Solution:
    """Adam's steps along the subgradients; the best iterate is kept. Source: Kingma and Ba 2015, algorithm 1.

    The defaults are the recipe released with Augmented Grad-CAM. As each step changes a pixel by about lr, 200 of them
    reach 0.2: far from the optimum where the maps go up to 1.
    """
    check_count("adam", iterations=iterations)
    check_number("adam", positive=True, lr=lr, eps=eps)
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"adam: expected two betas in [0, 1), got {betas!r}")
    lr, eps, betas = float(lr), float(eps), (float(betas[0]), float(betas[1]))  # as in Energy, for float32's sake
    h = energy.start_from(start)
    mean, square = np.zeros_like(h), np.zeros_like(h)
    best, least, energies = h, math.inf, []
    for k in range(iterations):
        value, subgradient = energy.value_and_subgradient(h)
        energies.append(value)
        least, best = lesser(value, h, least, best)
        mean = betas[0] * mean + (1 - betas[0]) * subgradient
        square = betas[1] * square + (1 - betas[1]) * subgradient**2
        unbiased_mean = mean / (1 - betas[0] ** (k + 1))
        unbiased_square = square / (1 - betas[1] ** (k + 1))
        h = h - lr * unbiased_mean / (np.sqrt(unbiased_square) + eps)
    return _solution(energy, [best, h], energies, iterations)


def _solution(energy: Energy, candidates: list[np.ndarray], energies: list[Number], iterations: int) -> Solution:
    """The better of the best iterate and the last, which no iteration has looked at; by the energy taken exactly."""
    *energies, kept, last = on_host(*energies, *(energy.value(h) for h in candidates))
    best, least = (candidates[1], last) if last < kept else (candidates[0], kept)  # a last that ran away may be NaN
    return Solution(best, least, 0.0, np.array([*energies, last]), np.empty(0), iterations)
