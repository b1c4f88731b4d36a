"""minidet: how neural networks find things in images, small enough to read and fast enough to use.

    import minidet
    import minidet.functional as F
    from minidet import nn, optim

The engine is in minidet.autograd, layers in minidet.nn, the lecture's systems in minidet.models, one file each.
Subpackages are imported when first used: `import minidet` itself costs little more than NumPy.
"""

from importlib import import_module
from typing import Any

from .autograd import (
    AnomalyError,
    Function,
    Tensor,
    detect_anomaly,
    enable_grad,
    grad,
    is_grad_enabled,
    no_grad,
    tensor,
)
from .random import manual_seed
from .version import __version__

_SUBPACKAGES = (
    "autograd", "backbones", "boxes", "data", "drawing", "evaluation", "functional", "heatmaps", "models", "nn", "ops",
    "optim", "proposals", "training", "watch",
)  # fmt: skip
_LAZY = {"gradcheck": "minidet.autograd.gradcheck", "gradgradcheck": "minidet.autograd.gradcheck"}

__all__ = [
    "AnomalyError",
    "Function",
    "Tensor",
    "__version__",
    "detect_anomaly",
    "enable_grad",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "is_grad_enabled",
    "manual_seed",
    "no_grad",
    "tensor",
]


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return import_module(f"minidet.{name}")
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'minidet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBPACKAGES, *_LAZY})
