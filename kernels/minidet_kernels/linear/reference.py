"""The fully connected layer, one row of x, or of the weight's gradient, at a time."""

from __future__ import annotations

import numpy as np


def linear(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    y = np.empty((x.shape[0], weight.shape[0]), x.dtype)
    for n in range(x.shape[0]):
        y[n] = (weight * x[n]).sum(axis=1)
    return y


def linear_input_grad(grad: np.ndarray, weight: np.ndarray) -> np.ndarray:
    x_grad = np.zeros((grad.shape[0], weight.shape[1]), grad.dtype)
    for k in range(weight.shape[0]):
        x_grad += grad[:, k, None] * weight[k]
    return x_grad


def linear_weight_grad(x: np.ndarray, grad: np.ndarray) -> np.ndarray:
    weight_grad = np.zeros((grad.shape[1], x.shape[1]), x.dtype)
    for n in range(x.shape[0]):
        weight_grad += grad[n, :, None] * x[n]
    return weight_grad
