"""Greedy suppression that looks only at boxes nearby: exact, because of what an overlap says about centres.

Claim. Let a box have the width w and another box the width w', let their centres be d apart in x, and IoU > t > 0. Then

    d < w * (1 - t) / (2 t)                                                                              (1)

and the same holds in y. So the boxes that can suppress a candidate have their centres in a rectangle around its own.

Proof. Let the two overlap by o in x and by p in y: I = o * p. In each of the p rows that both cover, their union is
w + w' - o wide, so U >= p * (w + w' - o), and

    t < IoU = I / U <= o / (w + w' - o).                                                                 (2)

(The IoU in one dimension bounds the one in two.) Hence o > t / (1 + t) * (w + w'). On the other hand two intervals of
widths w and w' whose centres are d apart overlap by no more than o <= (w + w') / 2 - d. Together

    d < (w + w') * (1/2 - t / (1 + t)) = (w + w') * (1 - t) / (2 (1 + t)).                               (3)

At last, o <= w in (2) gives t < w / w', that is w' < w / t and w + w' < w * (1 + t) / t; put into (3) it gives (1).
QED

(1) is infinite at t = 0. But boxes that overlap at all have

    d < (w + w') / 2 <= (w + the largest width of all) / 2.                                              (4)

The smaller of (1) and (4) is called the reach of a box.

Rounding. Decisions are taken with the IoU as it is computed in the boxes' dtype, so (1) must hold for boxes whose
rounded IoU is > t. With u = eps / 2 every side is off by at most u of itself, every area by 3 u, U (whose terms are
at most 2 U) by no more than 15 u, I / U by 20 u altogether; where I is so small that it loses digits, U >= the
smallest normal number bounds what is lost by another u. So the true IoU is > t - 16 eps, and that is put in place of
t. The sides' signs are never rounded: (4) holds as it stands. Centres and reaches are computed in double from numbers
of magnitude M or less: a reach of at most 2 M and its ends are off by less than 32 times 2^-53 of M, and 64 eps M,
called slack, is added to every reach.

The grid divides the plane of the centres into cells about as wide as the average reach; a candidate looks into the
cells that its rectangle touches, and a kept box is entered into the cell of its centre. The function from a centre to
its cell is made of steps that never decrease, rounding included, so a centre between the rectangle's ends is in a
cell between theirs. There are at most about as many cells as boxes.
"""

from __future__ import annotations

import math

import numpy as np

from minidet_kernels.box_iou.cpu import intersection_and_union, ratio
from minidet_kernels.compiler import strict_inlined, strict_serial

DOUBLE_EPS = float(np.finfo(np.float64).eps)
DOUBLE_TINY = float(np.finfo(np.float64).tiny)


@strict_serial
def keep_best(boxes, iou_threshold, smallest, eps, kept):
    """boxes (n, 4), best first -> kept (n,): whether each one stays. `smallest` and `eps`: of the boxes' dtype."""
    n = len(boxes)
    reach_of_sides = _reach_of_sides(iou_threshold, eps)
    x_axis, y_axis = _divide(boxes, 0, reach_of_sides), _divide(boxes, 1, reach_of_sides)
    columns = x_axis[4]
    place = _first_places(boxes, reach_of_sides, x_axis, y_axis)
    filled = place[:-1].copy()  # the kept boxes of a cell are near[place[cell] : filled[cell]]
    near = np.empty_like(boxes)
    for i in range(n):
        left, column, right = _cells(boxes, i, 0, reach_of_sides, x_axis)
        top, row, bottom = _cells(boxes, i, 1, reach_of_sides, y_axis)
        suppressed = False
        for r in range(top, bottom + 1):
            for cell in range(r * columns + left, r * columns + right + 1):
                for other in range(place[cell], filled[cell]):
                    if _iou(boxes, i, near, other, smallest) > iou_threshold:
                        suppressed = True
                        break
                if suppressed:
                    break
            if suppressed:
                break
        kept[i] = not suppressed
        if not suppressed:
            cell = row * columns + column
            near[filled[cell]] = boxes[i]
            filled[cell] += 1


@strict_inlined
def _reach_of_sides(iou_threshold, eps):
    """The factor of (1), with the margin for rounding."""
    threshold = np.float64(iou_threshold) - 16 * eps
    return (1 - threshold) / (2 * threshold) if threshold > 0 else math.inf


@strict_serial
def _first_places(boxes, reach_of_sides, x_axis, y_axis):
    """(cells + 1,): cell c has room for all boxes with their centres in it, from place[c] to place[c + 1]."""
    columns, rows = x_axis[4], y_axis[4]
    place = np.zeros(rows * columns + 1, np.int64)
    for i in range(len(boxes)):
        column, row = _cells(boxes, i, 0, reach_of_sides, x_axis)[1], _cells(boxes, i, 1, reach_of_sides, y_axis)[1]
        place[row * columns + column + 1] += 1
    for cell in range(rows * columns):
        place[cell + 1] += place[cell]
    return place


@strict_serial
def _divide(boxes, axis, reach_of_sides):
    """How an axis is cut into cells: (least centre, cells per pixel, largest side, slack, number of cells)."""
    n = len(boxes)
    low, high = math.inf, -math.inf
    largest_side, magnitude = 0.0, 0.0
    for i in range(n):
        centre, side = _centre_and_side(boxes, i, axis)
        low, high = min(low, centre), max(high, centre)
        largest_side = max(largest_side, side)
        magnitude = max(magnitude, abs(np.float64(boxes[i, axis])), abs(np.float64(boxes[i, axis + 2])))
    slack = 64 * DOUBLE_EPS * magnitude + DOUBLE_TINY  # above 0, because the sum below is a divisor

    average = 0.0
    for i in range(n):
        side = _centre_and_side(boxes, i, axis)[1]
        average += _reach(side, reach_of_sides, largest_side, slack) / n

    most = int(math.sqrt(n)) + 1  # most * most cells: about as many as boxes
    span = high - low
    cells = most if span > most * average else int(span / average) + 1
    per_pixel = cells / span if cells > 1 else 0.0
    return low, per_pixel, largest_side, slack, cells


@strict_inlined
def _cells(boxes, i, axis, reach_of_sides, division):
    """The cells along an axis: first of box i's rectangle, that of its centre, last of the rectangle."""
    low, per_pixel, largest_side, slack, cells = division
    centre, side = _centre_and_side(boxes, i, axis)
    reach = _reach(side, reach_of_sides, largest_side, slack)
    first, last = int((centre - reach - low) * per_pixel), int((centre + reach - low) * per_pixel)
    return max(first, 0), min(int((centre - low) * per_pixel), cells - 1), min(last, cells - 1)


@strict_inlined
def _reach(side, reach_of_sides, largest_side, slack):
    return min(side * reach_of_sides if side > 0 else 0.0, (side + largest_side) / 2) + slack


@strict_inlined
def _centre_and_side(boxes, i, axis):
    start, end = np.float64(boxes[i, axis]), np.float64(boxes[i, axis + 2])
    return (start + end) / 2, end - start


@strict_inlined
def _iou(boxes, i, others, j, smallest):
    intersection, union = intersection_and_union(
        boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3], others[j, 0], others[j, 1], others[j, 2], others[j, 3]
    )
    return ratio(intersection, union, smallest)
