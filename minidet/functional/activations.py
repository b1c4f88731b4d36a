"""Activations, element by element or along one axis, with torch.nn.functional's names and arguments."""

from typing import Any

import numpy as np

import minidet_kernels as kernels

from ..autograd import Function, Tensor
from ..autograd.operations import Elementwise, exp, where
from ..device import is_on_gpu
from ..random import generator

# Elements up to which NumPy's three passes take less time than starting a kernel. On the GPU each would start one.
SMALL = 1 << 13


class ReLU(Elementwise):
    """max(x, 0); the slope at 0 is 0."""

    def forward(self, x):
        large = x.size > SMALL or (x.__class__ is not np.ndarray and is_on_gpu(x))
        self.y = y = kernels.relu(x) if large else np.maximum(x, 0)
        return y

    def backward(self, grad):  # linear in grad: y only says where, so it is a constant to the second derivative
        if isinstance(grad, Tensor):
            return where(self.y > 0, grad, 0.0)
        y = self.y
        large = y.size > SMALL or (y.__class__ is not np.ndarray and is_on_gpu(y))
        return kernels.relu_backward(grad, y) if large else np.where(y > 0, grad, 0)


class LeakyReLU(Elementwise):
    """x where x > 0, slope * x elsewhere; the derivative at 0 is the slope."""

    def forward(self, x, *, slope):
        self.x, self.slope = x, x.dtype.type(slope)
        below = x * self.slope
        return np.maximum(x, below) if 0 <= slope <= 1 else np.where(x > 0, x, below)

    def backward(self, grad):  # linear in grad: x only says where
        return grad * np.where(self.x > 0, self.x.dtype.type(1), self.slope)


class Sigmoid(Elementwise):
    """1 / (1 + exp(-x)), computed from exp(-|x|) so that nothing overflows. y' = y (1 - y)."""

    def forward(self, x):
        decay = np.exp(-np.abs(x))
        y = np.where(x >= 0, 1, decay) / (1 + decay)
        self.save(y)
        return y

    def backward(self, grad, y):
        return grad * y * (1 - y)


class Tanh(Elementwise):
    """y' = 1 - y^2."""

    def forward(self, x):
        y = np.tanh(x)
        self.save(y)
        return y

    def backward(self, grad, y):
        return grad * (1 - y * y)


class Softplus(Elementwise):
    """log(1 + exp(x)), computed as max(x, 0) + log(1 + exp(-|x|)). Its derivative is the sigmoid."""

    def forward(self, x):
        self.save(x)
        return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))

    def backward(self, grad, x):
        return grad * sigmoid(x)


class Softmax(Function):
    """exp(x) / sum exp(x) along an axis, after subtracting the maximum, which changes nothing but cannot overflow."""

    def forward(self, x, *, axis):
        self.axis = axis
        y = np.exp(x - x.max(axis, keepdims=True))
        y /= y.sum(axis, keepdims=True)
        self.save(y)
        return y

    def backward(self, grad, y):
        return y * (grad - (grad * y).sum(axis=self.axis, keepdims=True))


class LogSoftmax(Function):
    """x - log sum exp(x) along an axis."""

    def forward(self, x, *, axis):
        self.axis = axis
        y = x - x.max(axis, keepdims=True)
        y -= np.log(np.exp(y).sum(axis, keepdims=True))
        self.save(y)
        return y

    def backward(self, grad, y):
        return grad - exp(y) * grad.sum(axis=self.axis, keepdims=True)


def relu(input: Any) -> Any:
    """max(input, 0)."""
    return ReLU.apply(input)


def leaky_relu(input: Any, negative_slope: float = 0.01) -> Any:
    """input where positive, negative_slope * input elsewhere. (YOLO uses 0.1.)"""
    return LeakyReLU.apply(input, slope=negative_slope)


def sigmoid(input: Any) -> Any:
    """1 / (1 + e^-input), in (0, 1)."""
    return Sigmoid.apply(input)


def tanh(input: Any) -> Any:
    """The hyperbolic tangent, in (-1, 1)."""
    return Tanh.apply(input)


def softplus(input: Any) -> Any:
    """log(1 + e^input), without overflow."""
    return Softplus.apply(input)


def softmax(input: Any, dim: int) -> Any:
    """Probabilities along one axis: e^input / sum e^input."""
    return Softmax.apply(input, axis=dim)


def log_softmax(input: Any, dim: int) -> Any:
    """The logarithm of softmax, without underflow."""
    return LogSoftmax.apply(input, axis=dim)


def dropout(input: Any, p: float = 0.5, training: bool = True, rng: np.random.Generator | None = None) -> Any:
    """In training, zeroes each element with probability p and divides the others by 1 - p, so that the mean stays
    (Srivastava et al. 2014, "inverted"). In evaluation, returns input. rng: the shared generator by default."""
    if not 0 <= p < 1:
        raise ValueError(f"dropout: expected a probability 0 <= p < 1, got {p}")
    if not training or p == 0:
        return input
    keep = (rng or generator()).random(input.shape, dtype=np.float32) >= p
    return where(keep, input * (1 / (1 - p)), 0.0)
