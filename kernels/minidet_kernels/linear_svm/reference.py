"""One pass of dual coordinate descent, row by row."""

from __future__ import annotations

import numpy as np

from minidet_kernels.linear_svm.lanes import LANES


def one_pass(
    x: np.ndarray,
    signs: np.ndarray,
    costs: np.ndarray,
    squares: np.ndarray,
    order: np.ndarray,
    lowest: float,
    highest: float,
    alphas: np.ndarray,
    weights: np.ndarray,
) -> tuple[float, float, np.ndarray]:
    """One step for each row of x (N, D) in `order`; changes alphas (N,) and weights (D,).

    lowest, highest: of the gradients of the last pass. Returns those of this one, and the rows that stay.
    """
    least, most, stays = np.inf, -np.inf, []
    for i in order:
        row = x[i].astype(np.float64)
        gradient = signs[i] * _dot(row, weights) - 1
        projected = gradient
        if alphas[i] == 0:  # can only grow, that is, move against a negative gradient
            if gradient > highest:
                continue
            projected = min(gradient, 0.0)
        elif alphas[i] == costs[i]:  # can only shrink
            if gradient < lowest:
                continue
            projected = max(gradient, 0.0)
        stays.append(i)
        least, most = min(least, projected), max(most, projected)
        if abs(projected) > 1e-12:
            before = alphas[i]
            alphas[i] = min(max(before - gradient / squares[i], 0.0), costs[i])
            weights += (alphas[i] - before) * signs[i] * row
    return least, most, np.array(stays, np.int64)


def _dot(row: np.ndarray, weights: np.ndarray) -> float:
    """<row, weights>, in the order that is the contract's."""
    sums = np.zeros(LANES)
    for products in (row * weights).reshape(-1, LANES):
        sums += products
    return sum(sums)
