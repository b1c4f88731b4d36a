"""The balanced sampler: of very many candidates, nearly all of them background, a few to learn from."""

import numpy as np


def sample_balanced(
    positive: np.ndarray, negative: np.ndarray, count: int, positive_fraction: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of at most count candidates, drawn without replacement: (positives, negatives), each int64, ascending.

    positive, negative: (A,) bool; what is neither is not drawn. At most positive_fraction * count, rounded down, are
    positives; negatives fill up the rest (Ren et al. 2015, section 3.1.3: 128 of 256; Girshick 2015, section 2.3: a
    quarter of 64 RoIs). A larger fraction finds more and makes more of background, too.
    """
    if positive.shape != negative.shape or positive.ndim != 1 or positive.dtype != bool or negative.dtype != bool:
        raise ValueError(
            f"sample_balanced: expected positive and negative (A,) of bool, got {positive.shape} {positive.dtype} and "
            f"{negative.shape} {negative.dtype}"
        )
    if count < 0 or not 0 <= positive_fraction <= 1:
        raise ValueError(
            f"sample_balanced: expected count >= 0 and positive_fraction in [0, 1], got {count} and {positive_fraction}"
        )
    positives = _draw(np.flatnonzero(positive), int(count * positive_fraction), rng)
    return positives, _draw(np.flatnonzero(negative), count - len(positives), rng)


def _draw(candidates: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    if len(candidates) <= count:
        return candidates
    return np.sort(rng.choice(candidates, count, replace=False, shuffle=False))
