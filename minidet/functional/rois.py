"""RoIPool and RoIAlign: boxes of any size on a map become grids of one size, on Tensors.

RoIAlign is linear in the map: a mean of pixels with weights that depend on the box alone. RoIPool is, once its argmax
is fixed: it picks pixels. So each comes with its adjoint, the one is the other's backward, and derivatives of every
order follow. The boxes have no gradient, as in Fast R-CNN and its successors: they are constants, also where a network
proposed them.
"""

from collections.abc import Sequence
from typing import Any

import minidet_kernels as kernels

from ..autograd import Function
from ..autograd.tensor import array_of
from ..device import on_device_of

IntPair = int | tuple[int, int]


class RoIPool(Function):
    def forward(self, x, *, boxes, output_size, spatial_scale):
        values, argmax = kernels.roi_pool(x, boxes, output_size, spatial_scale)
        self.bins, self.input_size = {"boxes": boxes, "argmax": argmax}, x.shape
        return values

    def backward(self, grad):
        return RoIPoolScatter.apply(grad, input_size=self.input_size, **self.bins)


class RoIPoolScatter(Function):
    def forward(self, grad, *, input_size, **bins):
        self.bins = bins
        return kernels.roi_pool_scatter(grad, input_size=input_size, **bins)

    def backward(self, outer):
        return RoIPoolGather.apply(outer, **self.bins)


class RoIPoolGather(Function):
    def forward(self, x, **bins):
        self.bins, self.input_size = bins, x.shape
        return kernels.roi_pool_gather(x, **bins)

    def backward(self, grad):
        return RoIPoolScatter.apply(grad, input_size=self.input_size, **self.bins)


class RoIAlign(Function):
    def forward(self, x, *, output_size, **sampling):
        self.sampling, self.output_size, self.input_size = sampling, output_size, x.shape
        return kernels.roi_align(x, output_size=output_size, **sampling)

    def backward(self, grad):
        return RoIAlignAdjoint.apply(grad, input_size=self.input_size, **self.sampling)


class RoIAlignAdjoint(Function):
    def forward(self, grad, *, input_size, **sampling):
        self.sampling, self.output_size = sampling, grad.shape[2:]
        return kernels.roi_align_adjoint(grad, input_size=input_size, **sampling)

    def backward(self, outer):
        return RoIAlign.apply(outer, output_size=self.output_size, **self.sampling)


def roi_pool(input: Any, boxes: Any, output_size: IntPair, spatial_scale: float = 1.0) -> Any:
    """The maximum of each bin of each box, as torchvision.ops.roi_pool: Girshick 2015, "Fast R-CNN", section 2.1.

    input (N, C, H, W); boxes (R, 5) with columns image, x1, y1, x2, y2, or a list with a (R_i, 4) for each image, of
    input's dtype, in pixels of the image: spatial_scale takes them to the map. Returns (R, C, Ho, Wo) with
    output_size = (Ho, Wo). Corners are rounded to pixels, halves away from 0; a bin outside the map gives 0. The
    gradient goes to the first maximum of a bin, in reading order, and adds up where boxes overlap; boxes have none.
    """
    return RoIPool.apply(input, boxes=_arrays(boxes, input), output_size=output_size, spatial_scale=spatial_scale)


def roi_align(
    input: Any,
    boxes: Any,
    output_size: IntPair,
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Any:
    """The mean of samples in each bin of each box, as torchvision.ops.roi_align: He et al. 2017, "Mask R-CNN".

    input, boxes, spatial_scale and the result as for `roi_pool`, but nothing is rounded. A bin has sampling_ratio x
    sampling_ratio samples, or if that is not positive about one a pixel. aligned=True is for continuous coordinates,
    where x1 = 0 is the left edge of pixel 0; aligned=False lies half a pixel off and makes boxes at least 1 pixel
    large.
    """
    return RoIAlign.apply(
        input,
        boxes=_arrays(boxes, input),
        output_size=output_size,
        spatial_scale=spatial_scale,
        sampling_ratio=sampling_ratio,
        aligned=aligned,
    )


def _arrays(boxes: Any, input: Any) -> Any:
    """Boxes may be Tensors, which are taken for constants, and go to where the input lies: they only say where."""
    if isinstance(boxes, Sequence):
        return [on_device_of(array_of(boxes_there), array_of(input)) for boxes_there in boxes]
    return on_device_of(array_of(boxes), array_of(input))
