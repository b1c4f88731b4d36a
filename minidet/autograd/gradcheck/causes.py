"""From a wrong gradient to its likely cause: the mistakes that people make leave patterns."""

from itertools import combinations

import numpy as np

# Two numbers that agree to this are taken for equal when a pattern is sought: looser than the check itself.
ALIKE = 1e-5


def likely_cause(analytic: np.ndarray, numeric: np.ndarray, shape: tuple[int, ...], lengths: dict[int, str]) -> str:
    """A sentence.

    analytic, numeric  (k, n): row j is the gradient of the j-th output (or combination of outputs), with respect
                       to all elements of the variable or to some
    shape              of the variable
    lengths            numbers that a factor may stem from, and what each is: {8: "the batch size"}
    """
    if not analytic.size:
        return "no entry is finite"
    right = _alike(analytic, numeric)
    if not analytic.any():
        return "the gradient is zero: the rule returns None or zeros, or the function leaves the graph (.data, detach)"
    factor = _common_factor(analytic, numeric)
    if factor is not None:
        return _about_factor(factor, lengths)
    rearranged = _rearranged(analytic, numeric, shape)
    if rearranged:
        return rearranged
    if not numeric.any():
        return "the function does not depend on it, but the rule gives it a gradient: another input's?"
    missing = (analytic == 0) & ~right
    if (missing | right).all():
        return _about_missing(missing, analytic, shape)
    for axis, name in ((1, "element"), (0, "output")):
        ratio = _per_line(analytic, numeric, axis)
        if ratio is not None:
            return f"each {name} has a factor of its own ({ratio}): a weight or a count taken for another's"
    if right.any():
        return f"right in {right.sum()} of {right.size} entries: the rule misses a case or a term"
    difference = numeric - analytic
    if (np.abs(difference - difference.mean()) <= ALIKE * np.abs(difference).max()).all():
        return f"a constant term is missing: {difference.mean():.6g} everywhere"
    return "no entry is right: a term is missing or the formula is another function's"


def _alike(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a - b) <= ALIKE * np.maximum(np.abs(a), np.abs(b)) + 1e-9 * np.abs(b).max(initial=0.0)


def _common_factor(analytic: np.ndarray, numeric: np.ndarray) -> float | None:
    """c with analytic = c numeric, if there is one; estimated by least squares."""
    energy = float((numeric * numeric).sum())
    if energy == 0:
        return None
    factor = float((analytic * numeric).sum()) / energy
    return factor if factor and _alike(analytic, factor * numeric).all() else None


def _about_factor(factor: float, lengths: dict[int, str]) -> str:
    if abs(factor + 1) < ALIKE:
        return "the sign is wrong"
    sign = "the sign is wrong, and " if factor < 0 else ""
    size = abs(factor)
    for length, name in lengths.items():
        if length > 1 and abs(size * length - 1) < ALIKE:
            return f"{sign}the gradient is 1/{length} of what it should be; {length} is {name}: a mean taken for a sum?"
        if length > 1 and abs(size / length - 1) < ALIKE:
            return f"{sign}the gradient is {length} times too large; {length} is {name}: a sum taken for a mean?"
    return f"{sign}everything has the factor {size:.6g}: a constant is missing or wrong"


def _rearranged(analytic: np.ndarray, numeric: np.ndarray, shape: tuple[int, ...]) -> str:
    """Whether the right values stand at other places of the variable."""
    if analytic.shape[1] != np.prod(shape):
        return ""  # only some elements are known
    got, expected = (a.reshape(-1, *shape) for a in (analytic, numeric))
    for i, j in combinations(range(len(shape)), 2):
        if shape[i] == shape[j] > 1 and _alike(got, expected.swapaxes(i + 1, j + 1)).all():
            return f"transposed: right with axes {i} and {j} exchanged"
        swapped = expected.swapaxes(i + 1, j + 1).reshape(got.shape)
        if min(shape[i], shape[j]) > 1 and _alike(got, swapped).all():
            return f"transposed, then reshaped: axes {i} and {j} are exchanged in memory"
    for axis, length in enumerate(shape):
        if length > 1 and _alike(got, np.flip(expected, axis + 1)).all():
            return f"reversed along axis {axis}"
        for shift in range(1, length):
            if _alike(got, np.roll(expected, shift, axis + 1)).all():
                return f"shifted by {shift} along axis {axis}"
    if _alike(np.sort(analytic, axis=1), np.sort(numeric, axis=1)).all():
        return "the right values at wrong places: an index or a reshape mixes up the order"
    return ""


def _about_missing(missing: np.ndarray, analytic: np.ndarray, shape: tuple[int, ...]) -> str:
    """Entries are missing or right: whole columns (elements of the variable), whole rows (outputs), or neither?"""
    columns, rows = missing.any(0), missing.any(1)
    if not columns.all() and not analytic[:, columns].any():
        return (
            f"zero for {columns.sum()} of {columns.size} elements of the variable {shape}, right for the others: "
            "an index or a mask leaves them out"
        )
    if not rows.all() and not analytic[rows].any():
        return (
            f"what comes from {rows.sum()} of {rows.size} outputs is lost, the others are right: a sum over a "
            "broadcast axis, or one use of several, is missing"
        )
    return f"zero in {missing.sum()} of {missing.size} entries, right in the others: a term is missing"


def _per_line(analytic: np.ndarray, numeric: np.ndarray, axis: int) -> str | None:
    """Factors that are the same all along `axis` of (k, n): "0.5, 2, 1, ..."; needs two entries a line to tell."""
    if analytic.shape[1 - axis] < 2:
        return None
    energy = (numeric * numeric).sum(1 - axis, keepdims=True)
    factors = (analytic * numeric).sum(1 - axis, keepdims=True) / np.where(energy == 0, 1, energy)
    several = (np.abs(numeric) > ALIKE * np.abs(numeric).max()).sum(1 - axis)
    if several.max() < 2 or not _alike(analytic, factors * numeric).all():
        return None
    return ", ".join(f"{factor:.4g}" for factor in factors.ravel()[:4]) + (", ..." if factors.size > 4 else "")
