"""Max and average pooling, with their adjoints.

A window of kernel_size = (R, S) slides over the image in steps of `stride` (default: kernel_size, no overlap):

    maximum:  values[n, c, i, j] = max of x[n, c] over the window's pixels inside the image
              indices[n, c, i, j] = row * W + column of that pixel
    average:  y[n, c, i, j] = sum of x[n, c] over the window's pixels inside the image / count

Max pooling is not linear, but once the indices are fixed it is: `max_pool2d_gather` picks the values at the
indices, and `max_pool2d_scatter` is its adjoint, the backward. Average pooling is linear;
`avg_pool2d_adjoint` is its backward.

The rules are PyTorch's:
- padding <= kernel_size / 2 on each axis; padded pixels never win a maximum.
- Output size: (H + 2*padding - dilation*(R-1) - 1) / stride + 1, rounded down, or up with ceil_mode; the last
  window must then still start inside the image or its leading padding.
- Ties: the first pixel in row-major order wins. A NaN wins over every number, the last NaN of a window over
  earlier ones.
- count of the average: the pixels of the window inside the image, plus those in the padding if
  count_include_pad (never those that ceil_mode adds beyond it).
- A dilated window can miss the image altogether: its value is -inf and its index -1, which gather and scatter
  skip.

Global pooling is kernel_size = (H, W). All functions: float32 or float64, any memory layout, an empty batch
gives an empty result, no input is changed; the CPU version returns channels-last memory under the public
shape. Cost: N*C*Ho*Wo * R*S operations; gather and scatter N*C*Ho*Wo.

The CUDA version returns (N, C, H, W) memory. It would have to wait for the GPU to look at indices: those outside
[-1, H*W) raise nothing there and are skipped like -1. Its scatter adds in whatever order the threads come, so that the
last bits can differ from run to run.
"""

from __future__ import annotations

import numpy as np

from minidet_kernels.arguments import Pair, as_pair, as_size, check_floats, check_shape
from minidet_kernels.versions import choose, is_on_gpu

__all__ = [
    "avg_pool2d",
    "avg_pool2d_adjoint",
    "max_pool2d",
    "max_pool2d_gather",
    "max_pool2d_scatter",
    "pool2d_output_size",
]


def max_pool2d(
    x: np.ndarray,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    ceil_mode: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """x (N, C, H, W) -> values (N, C, Ho, Wo) and indices (N, C, Ho, Wo), int64 into the flattened H*W.

    Raises ValueError for a geometry that breaks the rules above, TypeError for other dtypes.
    """
    kernel_size, stride, padding = _geometry("max_pool2d", kernel_size, stride, padding)
    dilation = as_pair("max_pool2d", "dilation", dilation, minimum=1)
    check_shape("max_pool2d", "x", x, "N C H W", (None, None, None, None))
    check_floats("max_pool2d", x=x)
    output_size = pool2d_output_size("max_pool2d", x.shape[2:], kernel_size, stride, padding, dilation, ceil_mode)
    return choose(__name__, x).max_pool2d(x, output_size, kernel_size, stride, padding, dilation)


def max_pool2d_gather(x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """x (N, C, H, W), indices (N, C, Ho, Wo) -> the values of x at the indices (N, C, Ho, Wo), 0 where the index is -1.

    Raises IndexError for an index outside [-1, H*W), ValueError and TypeError for shapes and dtypes.
    """
    check_shape("max_pool2d_gather", "x", x, "N C H W", (None, None, None, None))
    check_shape("max_pool2d_gather", "indices", indices, "N C Ho Wo", (*x.shape[:2], None, None))
    check_floats("max_pool2d_gather", x=x)
    _check_indices("max_pool2d_gather", indices, x.shape[2:])
    return choose(__name__, x, indices).max_pool2d_gather(x, indices)


def max_pool2d_scatter(grad: np.ndarray, indices: np.ndarray, input_size: Pair) -> np.ndarray:
    """grad, indices (N, C, Ho, Wo), input_size (H, W) -> (N, C, H, W): each grad added to its index, zeros elsewhere.

    Windows that overlap may share an index: their values add up. An index of -1 is skipped. Raises as
    `max_pool2d_gather`.
    """
    size = as_size("max_pool2d_scatter", "input_size", input_size)
    check_shape("max_pool2d_scatter", "grad", grad, "N C Ho Wo", (None, None, None, None))
    check_shape("max_pool2d_scatter", "indices", indices, "N C Ho Wo", grad.shape)
    check_floats("max_pool2d_scatter", grad=grad)
    _check_indices("max_pool2d_scatter", indices, size)
    return choose(__name__, grad, indices).max_pool2d_scatter(grad, indices, size)


def avg_pool2d(
    x: np.ndarray,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> np.ndarray:
    """x (N, C, H, W) -> (N, C, Ho, Wo). Raises as `max_pool2d`."""
    kernel_size, stride, padding = _geometry("avg_pool2d", kernel_size, stride, padding)
    check_shape("avg_pool2d", "x", x, "N C H W", (None, None, None, None))
    check_floats("avg_pool2d", x=x)
    output_size = pool2d_output_size("avg_pool2d", x.shape[2:], kernel_size, stride, padding, (1, 1), ceil_mode)
    count = _window_counts(x.shape[2:], output_size, kernel_size, stride, padding, count_include_pad)
    return choose(__name__, x).avg_pool2d(x, count.astype(x.dtype), kernel_size, stride, padding)


def avg_pool2d_adjoint(
    grad: np.ndarray,
    input_size: Pair,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> np.ndarray:
    """grad (N, C, Ho, Wo), input_size (H, W) -> (N, C, H, W): each grad / count added to all pixels of its window.

    Raises as `max_pool2d`; (Ho, Wo) must be what `avg_pool2d` makes of (H, W).
    """
    operation = "avg_pool2d_adjoint"
    kernel_size, stride, padding = _geometry(operation, kernel_size, stride, padding)
    size = as_size(operation, "input_size", input_size)
    output_size = pool2d_output_size(operation, size, kernel_size, stride, padding, (1, 1), ceil_mode)
    check_shape(operation, "grad", grad, "N C Ho Wo", (None, None, *output_size))
    check_floats(operation, grad=grad)
    count = _window_counts(size, output_size, kernel_size, stride, padding, count_include_pad)
    return choose(__name__, grad).avg_pool2d_adjoint(grad, count.astype(grad.dtype), size, kernel_size, stride, padding)


def pool2d_output_size(
    operation: str,
    input_size: Pair,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair = (1, 1),
    ceil_mode: bool = False,
) -> Pair:
    """(H, W) -> (Ho, Wo) by the rules above; ValueError, in the name of `operation`, if no window fits."""
    sizes = []
    for size, kernel, step, pad, spread in zip(input_size, kernel_size, stride, padding, dilation, strict=True):
        room = size + 2 * pad - spread * (kernel - 1) - 1  # how far the first window can slide
        count = (-(-room // step) if ceil_mode else room // step) + 1
        if ceil_mode and (count - 1) * step >= size + pad:
            count -= 1
        sizes.append(count)
    if min(*input_size, *sizes) < 1:
        raise ValueError(
            f"{operation}: no window of kernel_size {kernel_size}, dilation {dilation} fits into an image of "
            f"{tuple(input_size)} with padding {padding}; use a smaller kernel_size"
        )
    return sizes[0], sizes[1]


def _geometry(
    operation: str, kernel_size: int | Pair, stride: int | Pair | None, padding: int | Pair
) -> tuple[Pair, Pair, Pair]:
    kernel_size = as_size(operation, "kernel_size", kernel_size)
    stride = kernel_size if stride is None else as_pair(operation, "stride", stride, minimum=1)
    padding = as_pair(operation, "padding", padding, minimum=0)
    if 2 * padding[0] > kernel_size[0] or 2 * padding[1] > kernel_size[1]:
        raise ValueError(f"{operation}: expected padding <= kernel_size / 2 = {kernel_size} / 2, got {padding}")
    return kernel_size, stride, padding


def _window_counts(
    input_size: Pair, output_size: Pair, kernel_size: Pair, stride: Pair, padding: Pair, count_include_pad: bool
) -> np.ndarray:
    """What the sum of each window is divided by: (Ho, Wo) integers."""
    counts = []
    for size, outputs, kernel, step, pad in zip(input_size, output_size, kernel_size, stride, padding, strict=True):
        start = np.arange(outputs) * step - pad
        first, last = (-pad, size + pad) if count_include_pad else (0, size)  # the range of pixels that count
        counts.append(np.minimum(start + kernel, last) - np.maximum(start, first))
    return counts[0][:, None] * counts[1]


def _check_indices(operation: str, indices: np.ndarray, input_size: Pair) -> None:
    if indices.dtype != np.int64:
        raise TypeError(f"{operation}: expected indices int64, as max_pool2d returns them, got {indices.dtype}")
    pixels = input_size[0] * input_size[1]
    if is_on_gpu(indices):
        return  # a look at the values would make the host wait; the kernels skip what is outside
    if indices.size and not (indices.min() >= -1 and indices.max() < pixels):
        raise IndexError(
            f"{operation}: expected indices in [-1, {pixels}) for an image of {tuple(input_size)}, "
            f"got {indices.min()} to {indices.max()}"
        )
