"""Resizing images, on Tensors.

Both ways of resizing are linear in the image: the backward of each is its adjoint, whose backward is the resizing.
"""

import math
from typing import Any

import minidet_kernels as kernels
from minidet_kernels.arguments import MOST_PIXELS, as_size, check_shape
from minidet_kernels.resample import as_scale_factors

from ..autograd import Function

IntPair = int | tuple[int, int]


class ResizeNearest(Function):
    def forward(self, x, *, size, scale_factor):
        self.input_size, self.scale_factor = x.shape[2:], scale_factor
        return kernels.resize_nearest(x, size, scale_factor)

    def backward(self, grad):
        return ResizeNearestAdjoint.apply(grad, input_size=self.input_size, scale_factor=self.scale_factor)


class ResizeNearestAdjoint(Function):
    def forward(self, grad, *, input_size, scale_factor):
        self.size, self.scale_factor = grad.shape[2:], scale_factor
        return kernels.resize_nearest_adjoint(grad, input_size, scale_factor)

    def backward(self, outer):
        return ResizeNearest.apply(outer, size=self.size, scale_factor=self.scale_factor)


class ResizeBilinear(Function):
    def forward(self, x, *, size, **positions):
        self.input_size, self.positions = x.shape[2:], positions
        return kernels.resize_bilinear(x, size, **positions)

    def backward(self, grad):
        return ResizeBilinearAdjoint.apply(grad, input_size=self.input_size, **self.positions)


class ResizeBilinearAdjoint(Function):
    def forward(self, grad, *, input_size, **positions):
        self.size, self.positions = grad.shape[2:], positions
        return kernels.resize_bilinear_adjoint(grad, input_size, **positions)

    def backward(self, outer):
        return ResizeBilinear.apply(outer, size=self.size, **self.positions)


def interpolate(
    input: Any,
    size: IntPair | None = None,
    scale_factor: float | tuple[float, float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Any:
    """Images of another size, as torch.nn.functional.interpolate: input (N, C, H, W) -> (N, C, H', W').

    (H', W') is `size`, or (H, W) times `scale_factor`, rounded down. Along a row, output pixel j looks at the place
    u = (j + 1/2) * W/W' - 1/2 of the input, held inside it; with align_corners at j * (W - 1)/(W' - 1), so that the
    corners fall on the corners. "bilinear" takes the mean of the pixels around u, weighted by nearness, without
    smoothing first where the image shrinks; "nearest" copies pixel floor(j * W/W'). Given a scale_factor, its inverse
    stands for W/W', unless W' = W.

    Raises ValueError unless one of size and scale_factor is given and leaves a pixel, for align_corners with
    "nearest", and for other modes.
    """
    if mode not in ("nearest", "bilinear"):
        raise ValueError(f"interpolate: expected mode 'nearest' or 'bilinear', got {mode!r}")
    if mode == "nearest" and align_corners is not None:
        raise ValueError(f"interpolate: expected align_corners only with mode 'bilinear', got {align_corners!r}")
    if (size is None) == (scale_factor is None):
        got = "neither" if size is None else "both"
        raise ValueError(f"interpolate: expected either size or scale_factor, got {got}")
    check_shape("interpolate", "input", input, "N C H W", (None, None, None, None))
    if scale_factor is None:
        size = as_size("interpolate", "size", size)
    else:
        scale_factor = as_scale_factors("interpolate", scale_factor)
        size = [pixels * factor for pixels, factor in zip(input.shape[2:], scale_factor, strict=True)]
        if not 1 <= min(size) <= max(size) <= MOST_PIXELS:
            raise ValueError(
                f"interpolate: expected a scale_factor that leaves a pixel, and at most {MOST_PIXELS}, got "
                f"{scale_factor} for an input of {tuple(input.shape[2:])}"
            )
        size = tuple(map(math.floor, size))
    if mode == "nearest":
        return ResizeNearest.apply(input, size=size, scale_factor=scale_factor)
    return ResizeBilinear.apply(input, size=size, align_corners=bool(align_corners), scale_factor=scale_factor)
