"""The engine. Read tensor.py, then backward.py, then operations.py; methods.py hangs the operations on Tensor."""

from . import methods  # noqa: F401  (gives Tensor its operators)
from .anomaly import AnomalyError
from .backward import backward, grad
from .graph import graph_svg
from .modes import detect_anomaly, enable_grad, is_grad_enabled, no_grad
from .tensor import Function, Tensor, tensor

__all__ = [
    "AnomalyError",
    "Function",
    "Tensor",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "grad",
    "graph_svg",
    "is_grad_enabled",
    "no_grad",
    "tensor",
]
