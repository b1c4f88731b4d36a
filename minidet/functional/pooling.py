"""Max and average pooling, on Tensors.

With its argmax fixed, max pooling only picks elements, which is linear: gather. Putting gradients back where the
elements came from is its adjoint: scatter. Average pooling is linear as it stands. Each is the other's backward.
"""

from typing import Any

import minidet_kernels as kernels
from minidet_kernels.arguments import as_size, check_array

from ..autograd import Function
from ..autograd.operations import stack

IntPair = int | tuple[int, int]


class MaxPool2d(Function):
    def forward(self, x, **window):
        values, self.indices = kernels.max_pool2d(x, **window)
        self.input_size = x.shape[2:]
        return values

    def backward(self, grad):
        return MaxScatter2d.apply(grad, indices=self.indices, input_size=self.input_size)


class MaxScatter2d(Function):
    def forward(self, grad, *, indices, input_size):
        self.indices = indices
        return kernels.max_pool2d_scatter(grad, indices, input_size)

    def backward(self, outer):
        return MaxGather2d.apply(outer, indices=self.indices)


class MaxGather2d(Function):
    def forward(self, x, *, indices):
        self.indices, self.input_size = indices, x.shape[2:]
        return kernels.max_pool2d_gather(x, indices)

    def backward(self, grad):
        return MaxScatter2d.apply(grad, indices=self.indices, input_size=self.input_size)


class AvgPool2d(Function):
    def forward(self, x, **window):
        self.window, self.input_size = window, x.shape[2:]
        return kernels.avg_pool2d(x, **window)

    def backward(self, grad):
        return AvgPool2dAdjoint.apply(grad, input_size=self.input_size, **self.window)


class AvgPool2dAdjoint(Function):
    def forward(self, grad, *, input_size, **window):
        self.window = window
        return kernels.avg_pool2d_adjoint(grad, input_size, **window)

    def backward(self, outer):
        return AvgPool2d.apply(outer, **self.window)


def max_pool2d(
    input: Any,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
) -> Any:
    """The maximum of each window, as torch.nn.functional.max_pool2d: input (N, C, H, W) -> (N, C, H', W').

    The gradient goes to the first maximum of a window, in reading order."""
    return MaxPool2d.apply(
        input, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode
    )


def avg_pool2d(
    input: Any,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: IntPair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    """The mean of each window, as torch.nn.functional.avg_pool2d: input (N, C, H, W) -> (N, C, H', W')."""
    return AvgPool2d.apply(
        input,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
    )


def adaptive_avg_pool2d(input: Any, output_size: IntPair) -> Any:
    """The mean of each of h x w bins that share the map: input (N, C, H, W) -> (N, C, h, w), output_size = (h, w).

    As torch.nn.functional.adaptive_avg_pool2d: bin i takes the rows floor(i H / h) to ceil((i + 1) H / h), the latter
    left out, and columns alike. Where h does not divide H, neighbours share a row; a map may also grow.
    """
    _check_maps("adaptive_avg_pool2d", input)
    sizes = as_size("adaptive_avg_pool2d", "output_size", output_size)
    height, width = input.shape[2:]
    if height % sizes[0] == 0 and width % sizes[1] == 0:
        return avg_pool2d(input, (height // sizes[0], width // sizes[1]))
    # A bin is a rectangle, so its mean is a mean over columns of means over rows.
    rows = stack([input[:, :, bin].mean(axis=2) for bin in _bins(height, sizes[0])], axis=2)  # (N, C, h, W)
    return stack([rows[:, :, :, bin].mean(axis=3) for bin in _bins(width, sizes[1])], axis=3)


def _bins(size: int, count: int) -> list[slice]:
    return [slice(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def global_avg_pool2d(input: Any) -> Any:
    """The mean of each map (GAP): (N, C, H, W) -> (N, C). Zhou et al. 2016, "Learning Deep Features"."""
    _check_maps("global_avg_pool2d", input)
    return input.mean(axis=(2, 3))


def global_max_pool2d(input: Any) -> Any:
    """The maximum of each map (GMP): (N, C, H, W) -> (N, C); the gradient goes to the first maximum."""
    _check_maps("global_max_pool2d", input)
    return max_pool2d(input, tuple(input.shape[2:])).reshape(input.shape[:2])


def _check_maps(name: str, x: Any) -> None:
    check_array(name, "input", x)
    if x.ndim != 4:
        raise ValueError(f"{name}: expected input (N, C, H, W), got {x.shape}")
    if min(x.shape[2:]) < 1:
        raise ValueError(f"{name}: expected input (N, C, H, W) with at least one pixel, got {x.shape}")
