"""Batch normalisation (Ioffe and Szegedy 2015) and local response normalisation (AlexNet)."""

from typing import Any

import numpy as np

import minidet_kernels as kernels
from minidet_kernels.arguments import check_floats

from ..autograd import Function, Tensor
from ..autograd.operations import exp, log, pad
from ..autograd.tensor import array_of

_SPATIAL = (0, 2, 3)


class BatchNorm(Function):
    """y = weight * (x - mean) / std + bias, mean and std over N, H, W of this very batch."""

    def forward(self, x, weight, bias, *, eps, running=None, momentum=0.0):
        self.save(x, weight)
        y, self.mean, self.variance = kernels.batch_norm(x, weight, bias, eps)
        self.eps = eps
        if running is not None:
            m = x.size // weight.size
            running[0][...] += momentum * (self.mean - running[0])
            running[1][...] += momentum * (self.variance * (m / (m - 1)) - running[1])
        return y

    def backward(self, grad, x, weight):
        if not isinstance(grad, Tensor):
            std = np.sqrt(self.variance + grad.dtype.type(self.eps))
            return kernels.batch_norm_backward(grad, x, weight, self.mean, std)
        # The same formula (see the kernel) on Tensors: for second derivatives mean and std are functions of x.
        mean = x.mean(axis=_SPATIAL, keepdims=True)
        centred = x - mean
        std = ((centred * centred).mean(axis=_SPATIAL, keepdims=True) + self.eps) ** 0.5
        z = centred / std
        mean_grad = grad.mean(axis=_SPATIAL, keepdims=True)
        mean_product = (grad * z).mean(axis=_SPATIAL, keepdims=True)
        m = grad.size // weight.size
        dx = (grad - mean_grad - z * mean_product) * (weight.reshape((1, -1, 1, 1)) / std)
        return dx, mean_product.reshape((-1,)) * m, mean_grad.reshape((-1,)) * m


def batch_norm(
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """Normalises each channel of input (N, C, H, W), then scales and shifts it by weight and bias, (C,) or None.

    In training with the batch's own statistics, and running_mean and running_var (arrays, or None) move towards them:
    new = (1 - momentum) * old + momentum * batch, with the unbiased variance, as in torch. In evaluation with the
    running ones. eps keeps a constant channel from dividing by zero.
    """
    if input.ndim != 4:
        raise ValueError(f"batch_norm: expected input (N, C, H, W), got {input.shape}")
    weight = np.ones_like(array_of(input), shape=input.shape[1]) if weight is None else weight
    bias = np.zeros_like(array_of(input), shape=input.shape[1]) if bias is None else bias
    if weight.shape != (input.shape[1],) or bias.shape != (input.shape[1],):
        raise ValueError(
            f"batch_norm: expected weight and bias (C,) for input {input.shape}, got {weight.shape} and {bias.shape}"
        )
    check_floats("batch_norm", input=input, weight=weight, bias=bias)
    if (running_mean is None) != (running_var is None) or (running_var is None and not training):
        raise ValueError("batch_norm: expected running_mean and running_var, or neither of them and training=True")
    if not training:
        scale, shift = scale_and_shift(running_mean, running_var, weight, bias, eps)
        return input * scale.reshape((1, -1, 1, 1)) + shift.reshape((1, -1, 1, 1))
    count = input.shape[0] * input.shape[2] * input.shape[3]
    if count == 0:  # nothing to normalise, as when an image has no proposals: empty, with gradients of zero
        return input * weight.reshape((1, -1, 1, 1)) + bias.reshape((1, -1, 1, 1))
    if count == 1:
        raise ValueError(f"batch_norm: expected more than one value a channel in training, got input {input.shape}")
    running = None if running_mean is None else (running_mean, running_var)
    return BatchNorm.apply(input, weight, bias, eps=eps, running=running, momentum=momentum)


def scale_and_shift(running_mean: Any, running_var: Any, weight: Any, bias: Any, eps: float) -> tuple[Any, Any]:
    """What batch_norm does to each channel in evaluation: y = scale * x + shift, both (C,), as weight and bias are."""
    mean, var = (array.astype(weight.dtype, copy=False) for array in (running_mean, running_var))
    scale = weight / np.sqrt(var + var.dtype.type(eps))
    return scale, bias - scale * mean


def local_response_norm(input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Any:
    """y[c] = input[c] / (k + alpha/size * sum of input[c']^2 over the `size` channels around c) ^ beta.

    Krizhevsky et al. 2012, section 3.3, where size = 5, alpha = 1e-4, beta = 0.75, k = 2. As in torch, alpha is divided
    by size; the paper's and Caffe's alpha differ by that factor.
    """
    channels = input.shape[1]
    before = size // 2
    squares = pad(input * input, [(0, 0), (before, size - 1 - before), (0, 0), (0, 0)])
    total = sum((squares[:, i : i + channels] for i in range(1, size)), squares[:, :channels])
    return input * exp(log(total * (alpha / size) + k) * -beta)
