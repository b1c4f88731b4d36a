"""Derivatives by finite differences, to the last digits that float64 can give, and what is wrong where there is none.

The central difference (f(t) - f(-t)) / 2t errs by a t^2 + b t^4 + ...: from three steps t, t/2, t/4 two rounds of
Richardson's extrapolation remove a and b (Richardson 1911). The step is halved on until two orders agree, so a function
that bends sharply, or has a kink a little way off, is measured from close by (Ridders 1982 stops in the same way).

The same values give the derivatives from the left and from the right. Where these stay apart while the step shrinks
there is no derivative to compare with.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

# The first step. 2^-6 leaves an error of order 2^-42 after extrapolation when the function changes on the scale of 1,
# and being a power of two it is added to x (nearly) without rounding. Larger: fewer digits lost to rounding, more
# halvings where the function bends.
FIRST_STEP = 2.0**-6
# The smallest step is FIRST_STEP / 2^14: below 1e-6, rounding leaves fewer than nine digits.
LEVELS = 15
# A difference of rounded values, divided by the step, errs by a few units in the last place / step.
ROUNDING = 16 * np.finfo(np.float64).eps


@dataclass
class Derivative:
    """df/dt at t = 0 of a function from a number to (k,) values. Fields have shape (k,), or (k, p) for p of them."""

    value: np.ndarray  # the best estimate
    noise: np.ndarray  # what rounding alone may have added to it
    left: np.ndarray  # from t < 0
    right: np.ndarray  # from t > 0
    fault: np.ndarray  # "" where there is a derivative; else "kink", "jump", "steep", "border" or "unsettled"

    @classmethod
    def stacked(cls, derivatives: list["Derivative"]) -> "Derivative":
        """Several derivatives as columns."""
        names = [field.name for field in fields(cls)]
        return cls(*(np.stack([getattr(d, name) for d in derivatives], axis=1) for name in names))


def derivative(
    along: Callable[[float], np.ndarray], here: np.ndarray, size: float, first_step: float, rtol: float
) -> Derivative:
    """The derivative of `along` at 0, where it is `here`. size: the largest |x| that the step is added to, which
    bounds the rounding."""
    found = Derivative(*(np.full(here.shape, np.nan) for _ in range(4)), np.full(here.shape, "unsettled", object))
    settled = np.zeros(here.shape, dtype=bool)
    best_error = np.full(here.shape, np.inf)
    central, forward, backward, gaps, sizes = [], [], [], [], []
    for level in range(LEVELS):
        step = first_step / 2**level
        with np.errstate(all="ignore"):  # beyond a border the function may be infinite or undefined: that is examined
            up, down = along(step), along(-step)
            central.append((up - down) / (2 * step))
            forward.append((up - here) / step)
            backward.append((here - down) / step)
            if level < 2:
                continue
            value, error = _extrapolated(central[-3:])
            right, left = _extrapolated_one_sided(forward[-3:]), _extrapolated_one_sided(backward[-3:])
            noise = _noise(here, value, size, step)
            gaps.append(np.abs(right - left))
            sizes.append(np.maximum(np.abs(left), np.abs(right)))
            # The one-sided estimates are an order worse: they may differ by ten times the tolerance.
            clean = (error <= 0.1 * rtol * np.abs(value) + noise) & (gaps[-1] <= 10 * rtol * sizes[-1] + 4 * noise)
            better = ~settled & (clean | (error < best_error))
        found.value[better], found.noise[better] = value[better], noise[better]
        best_error[better] = error[better]
        found.left[~settled], found.right[~settled] = left[~settled], right[~settled]
        settled |= clean
        found.fault[settled] = ""
        if settled.all():
            return found
    with np.errstate(all="ignore"):
        gap_growth, size_growth = gaps[-1] / gaps[-4], sizes[-1] / sizes[-4]
    for i in np.flatnonzero(~settled):
        found.fault[i] = _fault(found.left[i], found.right[i], gap_growth[i], size_growth[i])
    return found


def _extrapolated(differences: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Central differences with steps t, t/2, t/4 -> the value of order t^6 and its distance from that of order t^4."""
    coarse, middle, fine = differences
    fourth = (4 * middle - coarse) / 3, (4 * fine - middle) / 3
    sixth = (16 * fourth[1] - fourth[0]) / 15
    return sixth, np.abs(sixth - fourth[1])


def _extrapolated_one_sided(differences: list[np.ndarray]) -> np.ndarray:
    """Differences to one side with steps t, t/2, t/4, which err by a t + b t^2 + ... -> the value of order t^3."""
    coarse, middle, fine = differences
    return (4 * (2 * fine - middle) - (2 * middle - coarse)) / 3


def _noise(here: np.ndarray, value: np.ndarray, size: float, step: float) -> np.ndarray:
    """The rounding of f and, through the derivative, of x: relative to the largest of each, since the function may
    have computed with numbers as large as these and cancelled them."""
    finite = np.abs(value[np.isfinite(value)])
    scale = np.abs(here[np.isfinite(here)]).max(initial=0.0) + size * finite.max(initial=0.0)
    return np.full(here.shape, ROUNDING * scale / step)


def _fault(left: float, right: float, gap_growth: float, size_growth: float) -> str:
    """Why no step gave a derivative. Over three halvings of the step, the gap between the one-sided derivatives falls
    by 2^3 or more where the function is smooth and stays at a kink; the derivatives themselves grow by 2^3 at a jump,
    and by less at an infinite slope."""
    if not (np.isfinite(left) and np.isfinite(right)):
        return "border"
    if size_growth > 6:
        return "jump"
    if size_growth > 2:
        return "steep"
    return "kink" if gap_growth > 0.5 else "unsettled"
