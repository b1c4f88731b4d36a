"""A convolution and what follows it as one pass over memory, where no gradient is wanted.

    relu(norm(conv(x)) + residual)

In evaluation batch norm multiplies each channel by a number and adds another: the first goes into the convolution's
weights, the second becomes its bias. The sum with a residual and the ReLU are done while the result is in the cache.
With gradients each step is an operation of its own, whose result the backward pass needs.

Fused, the last bits are others than step by step.
"""

from typing import Any

import minidet_kernels as kernels

from ..autograd import Tensor
from ..autograd.modes import modes
from .layers import BatchNorm2d, Conv2d, FrozenBatchNorm2d, ReLU, check_images
from .module import Module, Sequential


def conv_norm_relu(
    x: Any, conv: Module, norm: Module | None = None, relu: Module | None = None, residual: Any = None
) -> Any:
    """relu(norm(conv(x)) + residual), without those that are None: x (N, C, H, W), residual (N, K, Ho, Wo).

    In one pass under `no_grad` with batch norm in evaluation, unless a hook watches one of the modules.
    """
    if _can_fuse(x, conv, norm, relu, residual):
        return _fused(x, conv, norm, relu, residual)
    y = conv(x)
    y = y if norm is None else norm(y)
    y = y if residual is None else y + residual
    return y if relu is None else relu(y)


class ConvNormReLU(Sequential):
    """A convolution, perhaps a batch norm, perhaps a ReLU, in this order: as Sequential, see `conv_norm_relu`."""

    def forward(self, x: Any) -> Any:
        conv, *rest = self
        relu = rest.pop() if rest and isinstance(rest[-1], ReLU) else None
        if len(rest) > 1:  # somebody has put other layers in
            return super().forward(x)
        return conv_norm_relu(x, conv, *rest, relu=relu)


def _can_fuse(x: Any, conv: Module, norm: Module | None, relu: Module | None, residual: Any) -> bool:
    return (
        not (modes.recording or modes.detecting_anomalies)  # an anomaly has the name of the step that made it
        and isinstance(x, Tensor)
        and isinstance(residual, Tensor | None)
        and type(conv) is Conv2d
        and (norm is None or type(norm) is FrozenBatchNorm2d or (type(norm) is BatchNorm2d and not norm.training))
        and (relu is None or type(relu) is ReLU)
        and not any(module._hooks for module in (conv, norm, relu) if module is not None)
    )


def _fused(x: Tensor, conv: Conv2d, norm: Any, relu: Module | None, residual: Tensor | None) -> Tensor:
    check_images(conv, x, conv.in_channels)
    bias = None if conv.bias is None else conv.bias.data
    scale = None
    if norm is not None:
        scale, shift = norm.scale_and_shift()
        bias = shift if bias is None else scale * bias + shift
    return Tensor(
        kernels.conv2d(
            x.data,
            conv.weight.data,
            bias,
            **conv.geometry,
            scale=scale,
            residual=None if residual is None else residual.data,
            relu=relu is not None,
        )
    )
