"""Losses, with torch.nn.functional's names, arguments and defaults.

`reduction` is "mean", "sum" or "none". The mean over an empty batch is 0, not NaN: an image without objects must not
spoil a training step.
"""

from typing import Any

import numpy as np

from ..autograd.operations import maximum, take_along_axis, where
from ..autograd.tensor import array_of
from ..device import on_device_of
from .activations import log_softmax, softplus


def _reduce(losses: Any, reduction: str) -> Any:
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if reduction == "mean":
        return losses.sum() * (1 / max(losses.size, 1))
    raise ValueError(f"reduction: expected 'mean', 'sum' or 'none', got {reduction!r}")


def _same_shape(name: str, x: Any, target: Any) -> None:
    if x.shape != target.shape:
        raise ValueError(f"{name}: expected input and target of one shape, got {x.shape} and {target.shape}")


def _array(x: Any) -> Any:
    """An array where it lies; lists become NumPy's."""
    x = array_of(x)
    return x if hasattr(x, "__array_function__") else np.asarray(x)


def _check_classes(name: str, classes: np.ndarray, count: int) -> None:
    if classes.size and (classes.min() < 0 or classes.max() >= count):
        least, most = int(classes.min()), int(classes.max())
        raise ValueError(f"{name}: expected classes 0 to {count - 1}, got {least} to {most}")


def cross_entropy(
    input: Any, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean"
) -> Any:
    """-log softmax(input)[target], the negative log-likelihood of the true class.

    input (N, K, ...) scores before the softmax; target (N, ...) integer classes; weight (K,) or None scales each class
    (the mean is then weighted too). Where target == ignore_index the loss is 0 and not counted.

    input on the GPU: classes and weight on the CPU are moved there after they were checked, which costs no wait.
    """
    target = _array(target)
    if target.dtype.kind not in "iu" or target.shape != (input.shape[0], *input.shape[2:]):
        expected = (input.shape[0], *input.shape[2:])
        raise ValueError(f"cross_entropy: expected integer targets {expected}, got {target.dtype} {target.shape}")
    counted = target != ignore_index
    classes = np.where(counted, target, 0)
    _check_classes("cross_entropy", classes, input.shape[1])
    log_likelihood = take_along_axis(log_softmax(input, 1), np.expand_dims(classes, 1), 1).reshape(target.shape)
    scale = counted.astype(input.dtype)
    if weight is not None:
        weight = on_device_of(_array(weight), target).astype(input.dtype, copy=False)
        if weight.shape != input.shape[1:2]:
            raise ValueError(f"cross_entropy: expected weight {input.shape[1:2]}, one a class, got {weight.shape}")
        scale = scale * weight[classes]
    # Not 0 * infinity, where a class is ruled out by -inf.
    losses = where(counted, -log_likelihood, 0.0) * on_device_of(scale, array_of(input))
    if reduction == "mean":
        return losses.sum() * (1 / max(float(scale.sum()), 1e-12))
    return _reduce(losses, reduction)


def binary_cross_entropy_with_logits(input: Any, target: Any, weight: Any = None, reduction: str = "mean") -> Any:
    """-t log sigmoid(x) - (1 - t) log(1 - sigmoid(x)) = softplus(x) - t x, for targets t in [0, 1]."""
    _same_shape("binary_cross_entropy_with_logits", input, target)
    losses = softplus(input) - input * target
    return _reduce(losses if weight is None else losses * weight, reduction)


def mse_loss(input: Any, target: Any, reduction: str = "mean") -> Any:
    """The squared error (input - target)^2: the l2 loss."""
    _same_shape("mse_loss", input, target)
    difference = input - target
    return _reduce(difference * difference, reduction)


def l1_loss(input: Any, target: Any, reduction: str = "mean") -> Any:
    """The absolute error |input - target|."""
    _same_shape("l1_loss", input, target)
    return _reduce(abs(input - target), reduction)


def smooth_l1_loss(input: Any, target: Any, reduction: str = "mean", beta: float = 1.0) -> Any:
    """0.5 d^2 / beta where |d| < beta, |d| - 0.5 beta elsewhere, d = input - target (Girshick 2015, equation 3).

    beta is where the parabola meets the line: smaller is closer to l1 (Faster R-CNN's RPN uses 1/9).
    """
    _same_shape("smooth_l1_loss", input, target)
    if beta == 0:
        return l1_loss(input, target, reduction)
    difference = input - target
    size = abs(difference)
    losses = where(size < beta, difference * difference * (0.5 / beta), size - 0.5 * beta)
    return _reduce(losses, reduction)


def hinge_loss(scores: Any, target: Any, margin: float = 1.0, reduction: str = "mean") -> Any:
    """max(0, margin - target * score), with targets -1 or +1: the linear SVM's loss (R-CNN)."""
    _same_shape("hinge_loss", scores, target)
    return _reduce(maximum(margin - scores * target, 0.0), reduction)


def multi_margin_loss(input: Any, target: Any, p: int = 1, margin: float = 1.0, reduction: str = "mean") -> Any:
    """sum over wrong classes k of max(0, margin - x[target] + x[k])^p / K: the hinge loss of several classes.

    input (N, K), target (N,) integer classes.
    """
    target = _array(target)
    if target.dtype.kind not in "iu" or target.shape != input.shape[:1]:
        raise ValueError(
            f"multi_margin_loss: expected integer targets {input.shape[:1]}, got {target.dtype} {target.shape}"
        )
    _check_classes("multi_margin_loss", target, input.shape[1])
    scores = array_of(input)
    rows, target = on_device_of(np.arange(len(target)), scores), on_device_of(target, scores)
    truth = input[rows, target].reshape((-1, 1))
    violations = maximum(margin - truth + input, 0.0) ** p
    wrong = np.ones_like(scores)
    wrong[rows, target] = 0
    return _reduce((violations * wrong).sum(axis=1) * (1 / input.shape[1]), reduction)
