"""The same pass with Numba. The steps follow one another, so one thread does them."""

from __future__ import annotations

import numpy as np

from minidet_kernels.compiler import strict_inlined, strict_serial
from minidet_kernels.linear_svm.lanes import LANES


@strict_serial
def one_pass(x, signs, costs, squares, order, lowest, highest, alphas, weights):
    least, most, staying = np.inf, -np.inf, 0
    stays, sums = np.empty(len(order), np.int64), np.empty(LANES)
    for i in order:
        row = x[i]
        gradient = signs[i] * _dot(row, weights, sums) - 1
        projected = gradient
        if alphas[i] == 0:
            if gradient > highest:
                continue
            projected = min(gradient, 0.0)
        elif alphas[i] == costs[i]:
            if gradient < lowest:
                continue
            projected = max(gradient, 0.0)
        stays[staying] = i
        staying += 1
        least, most = min(least, projected), max(most, projected)
        if abs(projected) > 1e-12:
            before = alphas[i]
            alphas[i] = min(max(before - gradient / squares[i], 0.0), costs[i])
            step = (alphas[i] - before) * signs[i]
            for d in range(len(row)):
                weights[d] += step * row[d]
    return least, most, stays[:staying]


@strict_inlined
def _dot(row, weights, sums):
    sums[:] = 0
    for start in range(0, len(row), LANES):
        for lane in range(LANES):
            sums[lane] += row[start + lane] * weights[start + lane]
    total = 0.0
    for lane in range(LANES):
        total += sums[lane]
    return total
