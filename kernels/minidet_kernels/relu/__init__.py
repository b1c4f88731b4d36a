"""The rectified linear unit, on arrays of any shape.

    y = max(x, 0)        d x = g where y > 0, 0 elsewhere, for the cotangent g of y

The backward needs y and not x, so that x can be freed. At 0 the slope is 0; NaN stays NaN, and its gradient is 0.
Source: Nair and Hinton 2010. A kernel of its own because the work is all memory traffic: NumPy makes one pass for
the maximum and another for the mask, in one thread.

float32 or float64, no input is changed; the result of the CPU version lies in memory as the input does where that is
contiguous in any order of its axes.
"""

from __future__ import annotations

import numpy as np

from minidet_kernels.arguments import check_floats
from minidet_kernels.versions import choose

__all__ = ["relu", "relu_backward"]


def relu(x: np.ndarray) -> np.ndarray:
    """x of any shape -> y of the same shape. Raises TypeError for other dtypes."""
    check_floats("relu", x=x)
    return choose(__name__, x).relu(x)


def relu_backward(grad: np.ndarray, y: np.ndarray) -> np.ndarray:
    """grad and y, the result of relu, of one shape -> d x. Raises ValueError for other shapes, TypeError for dtypes."""
    check_floats("relu_backward", grad=grad, y=y)
    if grad.shape != y.shape:
        raise ValueError(f"relu_backward: expected grad and y of one shape, got {grad.shape} and {y.shape}")
    return choose(__name__, grad, y).relu_backward(grad, y)
