"""Linear support vector machine: the hyperplane between two sets of rows.

    minimise over w    1/2 |w|^2  +  sum over i of  c_i max(0, 1 - y_i <w, x_i>)          (the hinge)

where y_i is +1 or -1, x_i a row of features with the number `bias` behind it, so that the last number of w is what the
others call b / bias, and is kept small like the others; c_i = cost, times positive_weight where y_i is +1. Solved by
dual coordinate descent. The dual problem has one number a row,

    minimise over a    1/2 |w|^2 - sum a_i      with  w = sum a_i y_i x_i,  0 <= a_i <= c_i

and a step takes one row and puts its a_i where that is least, with the others as they are:

    gradient = y_i <w, x_i> - 1
    a_i <- a_i - gradient / |x_i|^2, cut to [0, c_i];      w <- w + (what a_i has changed by) y_i x_i

A pass visits all rows in a new random order. A row whose a_i is at an end of its interval, and whose gradient presses
it there harder than any row was pressed inwards in the last pass, is left out of the passes that follow (shrinking).
When the gradients, 0 where an end of the interval stops the step, lie within `tolerance` of each other, the rows that
were left out come back; when all of them do, it is solved.

Source: Hsieh, Chang, Lin, Keerthi and Sundararajan, ICML 2008 (L1-SVM; algorithm 3 has the shrinking), LIBLINEAR's
solver 3. As LIBLINEAR, rows whose gradient is below 1e-12 are not moved.

x (N, D), float32 or float64, any memory, N may be 0; w and a are float64 whatever x is: they are sums of thousands of
small steps. The order is drawn from `seed`. Whether a row is left out can hang on the last bit, so all versions add in
the same order: LANES sums side by side, then these. The same call gives the same bits, in all versions. There is no
CUDA version: each step needs the w of the step before. Cost: 4 D operations a row and pass, and a copy of x.

TypeError: other dtypes. ValueError: other shapes, features that are not finite, numbers outside their range.
"""

from __future__ import annotations

import numpy as np

from minidet_kernels.arguments import check_array, check_count, check_floats, check_number, check_shape
from minidet_kernels.linear_svm.lanes import LANES
from minidet_kernels.versions import choose

__all__ = ["linear_svm"]


def linear_svm(
    x: np.ndarray,
    positive: np.ndarray,
    alphas: np.ndarray | None = None,
    cost: float = 1.0,
    positive_weight: float = 1.0,
    bias: float = 1.0,
    tolerance: float = 1e-3,
    max_passes: int = 1000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """x (N, D), positive (N,) bool -> w (D + 1,) and alphas (N,), float64. A row's score: x @ w[:-1] + bias * w[-1].

    alphas: where to begin, 0 without: those of a similar problem (with rows gone, and new ones, at 0) save passes.
    cost: larger fits the rows better, smaller keeps w shorter; > 0. positive_weight: what a positive row on the wrong
    side costs, in costs of a negative one; > 0. bias: 0 for a hyperplane through the origin; larger leaves it freer.
    tolerance: >= 0; 1e-3 gives w to about 3 digits. max_passes: it stops there, solved or not.
    """
    check_shape("linear_svm", "x", x, "N D", (None, None))
    check_floats("linear_svm", x=x)
    check_shape("linear_svm", "positive", positive, "N", (len(x),))
    if positive.dtype != np.bool_:
        raise TypeError(f"linear_svm: expected positive {positive.shape} of bool, got {positive.dtype}")
    check_number("linear_svm", positive=True, cost=cost, positive_weight=positive_weight)
    check_number("linear_svm", bias=bias, tolerance=tolerance)
    check_count("linear_svm", max_passes=max_passes)
    version = choose(__name__, x, positive)
    rows = np.zeros((len(x), -(-(x.shape[1] + 1) // LANES) * LANES), x.dtype)  # zeros behind the bias
    rows[:, : x.shape[1]], rows[:, x.shape[1]] = x, bias
    squares = np.einsum("nd,nd->n", rows, rows, dtype=np.float64)
    if not np.isfinite(squares).all():
        raise ValueError(
            f"linear_svm: expected x {x.shape} of finite numbers whose squares are, got others in row "
            f"{int(np.isfinite(squares).argmin())}; look for where they were made before this call"
        )
    squares[squares == 0] = 1  # a row of zeros: its gradient is always -1, and a step of any size leads to its end
    signs = np.where(positive, 1.0, -1.0)
    costs = np.where(positive, cost * positive_weight, cost)
    alphas = _checked_alphas(alphas, costs)
    weights = (alphas * signs) @ rows
    _descend(version.one_pass, (rows, signs, costs, squares), alphas, weights, tolerance, max_passes, seed)
    return weights[: x.shape[1] + 1].copy(), alphas


def _descend(one_pass, problem, alphas, weights, tolerance, max_passes, seed) -> None:
    """Passes over the rows that matter, until the gradients of all rows agree. Changes alphas and weights."""
    everybody, rng = np.arange(len(alphas)), np.random.default_rng(seed)
    rows, lowest, highest = everybody, -np.inf, np.inf
    for _ in range(max_passes):
        least, most, stays = one_pass(*problem, rng.permutation(rows), lowest, highest, alphas, weights)
        rows = np.sort(stays)  # one order, so that the next permutation depends on nothing but who stays
        lowest, highest = (least if least < 0 else -np.inf), (most if most > 0 else np.inf)
        if most - least <= tolerance:
            if len(rows) == len(everybody):
                return
            rows, lowest, highest = everybody, -np.inf, np.inf


def _checked_alphas(alphas: np.ndarray | None, costs: np.ndarray) -> np.ndarray:
    """A copy of them, or zeros."""
    if alphas is None:
        return np.zeros(len(costs))
    check_array("linear_svm", "alphas", alphas)
    check_shape("linear_svm", "alphas", alphas, "N", costs.shape)
    bad = ~((alphas >= 0) & (alphas <= costs))
    if bad.any():
        at = int(bad.argmax())
        raise ValueError(
            f"linear_svm: expected alphas from 0 to each row's cost, got {float(alphas[at])} at index {at}, whose cost "
            f"is {float(costs[at])}; are they another problem's?"
        )
    return alphas.astype(np.float64)
