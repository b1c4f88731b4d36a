"""Batch normalisation (Ioffe and Szegedy 2015) and local response normalisation (AlexNet)."""

from typing import Any

import numpy as np

from ..autograd import Function, Tensor
from ..autograd.operations import exp, log, pad
from ..autograd.tensor import array_of

_SPATIAL = (0, 2, 3)


class BatchNorm(Function):
    """y = weight * (x - mean) / sqrt(var + eps) + bias, mean and var over N, H, W of this very batch.

    With x^ the normalised x and m = N H W:  dx = weight / std * (g - mean(g) - x^ mean(g x^)).
    """

    def forward(self, x, weight, bias, *, eps):
        self.eps = eps
        self.mean, self.std = _statistics(x, eps)
        self.save(x, weight)
        scale = weight.reshape(1, -1, 1, 1) / self.std
        y = x * scale
        y += bias.reshape(1, -1, 1, 1) - self.mean * scale
        return y

    def backward(self, grad, x, weight):
        # For second derivatives the statistics must be functions of x; otherwise those of the forward pass serve.
        mean, std = _statistics(x, self.eps) if isinstance(x, Tensor) else (self.mean, self.std)
        normalised = (x - mean) / std
        mean_grad = grad.mean(axis=_SPATIAL, keepdims=True)
        mean_grad_normalised = (grad * normalised).mean(axis=_SPATIAL, keepdims=True)
        count = grad.shape[0] * grad.shape[2] * grad.shape[3]
        needs_x = self.needs[0]
        centred = grad - mean_grad - normalised * mean_grad_normalised if needs_x else None
        return (
            centred * (weight.reshape((1, -1, 1, 1)) / std) if needs_x else None,
            mean_grad_normalised.reshape((-1,)) * count,
            mean_grad.reshape((-1,)) * count,
        )


def _statistics(x: Any, eps: float) -> tuple[Any, Any]:
    """The mean and standard deviation of each channel, shaped (1, C, 1, 1)."""
    mean = x.mean(axis=_SPATIAL, keepdims=True)
    centred = x - mean
    return mean, ((centred * centred).mean(axis=_SPATIAL, keepdims=True) + eps) ** 0.5


def batch_norm(
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any,
    bias: Any,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """Normalises each channel of x (N, C, H, W), then scales and shifts it by weight and bias (C,).

    In training with the batch's own statistics, and running_mean and running_var (arrays, or None) move towards them:
    new = (1 - momentum) * old + momentum * batch, with the unbiased variance, as in torch. In evaluation with the
    running ones. eps keeps a constant channel from dividing by zero.
    """
    if x.ndim != 4 or weight.shape != (x.shape[1],) or bias.shape != (x.shape[1],):
        raise ValueError(
            f"batch_norm: expected x (N, C, H, W), weight and bias (C,), got {x.shape}, {weight.shape}, {bias.shape}"
        )
    if not training:
        scale = weight / np.sqrt(running_var + np.asarray(eps, running_var.dtype))
        shift = bias - scale * running_mean
        return x * scale.reshape((1, -1, 1, 1)) + shift.reshape((1, -1, 1, 1))
    count = x.shape[0] * x.shape[2] * x.shape[3]
    if count < 2:
        raise ValueError(f"batch_norm: expected more than one value a channel in training, got x {x.shape}")
    y = BatchNorm.apply(x, weight, bias, eps=eps)
    if running_mean is not None:
        values = array_of(x)
        running_mean += momentum * (values.mean(axis=_SPATIAL) - running_mean)
        running_var += momentum * (values.var(axis=_SPATIAL) * (count / (count - 1)) - running_var)
    return y


def local_response_norm(x: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Any:
    """y[c] = x[c] / (k + alpha/size * sum of x[c']^2 over the `size` channels around c) ^ beta.

    Krizhevsky et al. 2012, section 3.3, where size = 5, alpha = 1e-4, beta = 0.75, k = 2. As in torch, alpha is divided
    by size; the paper's and Caffe's alpha differ by that factor.
    """
    channels = x.shape[1]
    before = size // 2
    squares = pad(x * x, [(0, 0), (before, size - 1 - before), (0, 0), (0, 0)])
    total = sum((squares[:, i : i + channels] for i in range(1, size)), squares[:, :channels])
    return x * exp(log(total * (alpha / size) + k) * -beta)
