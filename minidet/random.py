"""The generator behind initial weights and dropout. One call, `manual_seed(seed)`, makes a run repeatable.

Data order and augmentation do not draw from it: they are functions of the loader's own seed, so that a run resumed in
the middle of an epoch sees the same images.
"""

import numpy as np

_generator = np.random.default_rng(0)


def manual_seed(seed: int) -> np.random.Generator:
    """Starts the shared generator anew and returns it."""
    global _generator
    _generator = np.random.default_rng(seed)
    return _generator


def generator() -> np.random.Generator:
    """The shared generator. Its state, `generator().bit_generator.state`, is part of every checkpoint."""
    return _generator
