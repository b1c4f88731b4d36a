"""Layers: functions of minidet.functional that keep their parameters, with torch.nn's names, arguments and keys."""

import math
from typing import Any

import numpy as np

from minidet_kernels.arguments import as_size

from .. import functional as F
from ..autograd import Tensor
from ..functional.normalization import scale_and_shift
from . import init
from .module import Module, Parameter

IntPair = int | tuple[int, int]


def _default_init(layer: Module, fan_in: int) -> None:
    """torch's default: weights and biases uniform in +-1/sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
    init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        init.uniform_(layer.bias, -bound, bound)


def _check_dtype(layer: Module, dtype: Any) -> None:
    """Refuses what would silently change the dtype of everything behind the layer."""
    if isinstance(getattr(layer, "weight", None), Tensor) and dtype != layer.weight.dtype:
        raise TypeError(
            f"{layer.title}: expected x in the layer's {layer.weight.dtype}, got {dtype}; "
            f"use x.astype(np.{layer.weight.dtype}) or layer.to(np.{dtype})"
        )


def check_images(layer: Module, x: Any, channels: int) -> None:
    """Refuses what is not (N, channels, H, W) in the layer's dtype, with a guess at the mistake."""
    shape, dtype = getattr(x, "shape", None), getattr(x, "dtype", None)
    if shape is not None and len(shape) == 4 and shape[1] == channels:
        _check_dtype(layer, dtype)
        return
    advice = ""
    if shape is None:
        shape = type(x).__name__
    elif len(shape) == 3 and shape[0] == channels:
        advice = "; looks like one image, use x[None]"
    elif len(shape) == 4 and shape[3] == channels:
        advice = "; looks channels-last, use x.transpose(0, 3, 1, 2)"
    raise ValueError(f"{layer.title}: expected x (N, {channels}, H, W), got {shape}{advice}")


class Linear(Module):
    """y = x weight' + bias, x (..., in_features) to (..., out_features)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(np.empty((out_features, in_features), np.float32))
        self.bias = Parameter(np.empty(out_features, np.float32)) if bias else None
        _default_init(self, in_features)

    def forward(self, x: Any) -> Any:
        if x.ndim < 1 or x.shape[-1] != self.in_features:
            raise ValueError(
                f"{self.title}: expected x (..., {self.in_features}), got {x.shape}; "
                "flatten maps with x.flatten(1) or nn.Flatten() first"
            )
        _check_dtype(self, x.dtype)
        return F.linear(x, self.weight, self.bias)

    def describe(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class Conv2d(Module):
    """2-D convolution; weight (out_channels, in_channels/groups, R, S)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: IntPair = 0,
        dilation: IntPair = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"Conv2d: expected channels divisible by groups={groups}, got {in_channels}, {out_channels}"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = as_size("Conv2d", "kernel_size", kernel_size)
        self.geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight = Parameter(np.empty(shape, np.float32))
        self.bias = Parameter(np.empty(out_channels, np.float32)) if bias else None
        _default_init(self, math.prod(shape[1:]))

    def forward(self, x: Any) -> Any:
        check_images(self, x, self.in_channels)
        return F.conv2d(x, self.weight, self.bias, **self.geometry)

    def describe(self) -> str:
        usual = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
        geometry = ", ".join(f"{name}={value}" for name, value in self.geometry.items() if value != usual[name])
        return f"{self.in_channels}, {self.out_channels}, {self.kernel_size}" + (f", {geometry}" if geometry else "")


class ConvTranspose2d(Module):
    """Transposed convolution; weight (in_channels, out_channels/groups, R, S)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: IntPair = 0,
        output_padding: IntPair = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: IntPair = 1,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = as_size("ConvTranspose2d", "kernel_size", kernel_size)
        self.geometry = {"stride": stride, "padding": padding, "output_padding": output_padding}
        self.geometry |= {"groups": groups, "dilation": dilation}
        shape = (in_channels, out_channels // groups, *self.kernel_size)
        self.weight = Parameter(np.empty(shape, np.float32))
        self.bias = Parameter(np.empty(out_channels, np.float32)) if bias else None
        _default_init(self, math.prod(shape[1:]))

    def forward(self, x: Any) -> Any:
        check_images(self, x, self.in_channels)
        return F.conv_transpose2d(x, self.weight, self.bias, **self.geometry)

    def describe(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, {self.kernel_size}, stride={self.geometry['stride']}"


class BatchNorm2d(Module):
    """Normalises each channel by the batch in training, by running averages in evaluation (Ioffe and Szegedy 2015)."""

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight = Parameter(np.ones(num_features, np.float32))
        self.bias = Parameter(np.zeros(num_features, np.float32))
        self.register_buffer("running_mean", np.zeros(num_features, np.float32))
        self.register_buffer("running_var", np.ones(num_features, np.float32))
        self.register_buffer("num_batches_tracked", np.zeros((), np.int64))

    def forward(self, x: Any) -> Any:
        check_images(self, x, self.num_features)
        if self.training:
            self.num_batches_tracked += 1
        running = (self.running_mean, self.running_var)
        return F.batch_norm(x, *running, self.weight, self.bias, self.training, self.momentum, self.eps)

    def scale_and_shift(self) -> tuple[Any, Any]:
        """What it does in evaluation, y = scale * x + shift: two arrays (C,)."""
        running = (self.running_mean, self.running_var)
        return scale_and_shift(*running, self.weight.data, self.bias.data, self.eps)

    def describe(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


class FrozenBatchNorm2d(Module):
    """Batch norm that never learns: y = weight * (x - running_mean) / sqrt(running_var + eps) + bias, (N, C, H, W).

    A detector trains on one or two images at a time, too few for the statistics of a batch: those of the classifier's
    training stay. All four are buffers, and there is no num_batches_tracked, as in the files of torchvision's trained
    detectors. (For its COCO weights of Faster R-CNN torchvision sets eps to 0, with which they were trained.)
    """

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_features, self.eps = num_features, eps
        self.register_buffer("weight", np.ones(num_features, np.float32))
        self.register_buffer("bias", np.zeros(num_features, np.float32))
        self.register_buffer("running_mean", np.zeros(num_features, np.float32))
        self.register_buffer("running_var", np.ones(num_features, np.float32))

    def forward(self, x: Any) -> Any:
        check_images(self, x, self.num_features)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)

    def scale_and_shift(self) -> tuple[Any, Any]:
        """y = scale * x + shift: two arrays (C,)."""
        return scale_and_shift(self.running_mean, self.running_var, self.weight, self.bias, self.eps)

    def describe(self) -> str:
        return f"{self.num_features}, eps={self.eps}"


class MaxPool2d(Module):
    """The maximum of each window."""

    def __init__(
        self,
        kernel_size: IntPair,
        stride: IntPair | None = None,
        padding: IntPair = 0,
        dilation: IntPair = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.window = {"kernel_size": kernel_size, "stride": stride, "padding": padding}
        self.window |= {"dilation": dilation, "ceil_mode": ceil_mode}

    def forward(self, x: Any) -> Any:
        return F.max_pool2d(x, **self.window)

    def describe(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.window.items())


class AvgPool2d(Module):
    """The mean of each window."""

    def __init__(
        self,
        kernel_size: IntPair,
        stride: IntPair | None = None,
        padding: IntPair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        self.window = {"kernel_size": kernel_size, "stride": stride, "padding": padding}
        self.window |= {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad}

    def forward(self, x: Any) -> Any:
        return F.avg_pool2d(x, **self.window)

    def describe(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.window.items())


class AdaptiveAvgPool2d(Module):
    """The means of h x w bins that share the map, whatever its size: (N, C, H, W) to (N, C, h, w) = output_size."""

    def __init__(self, output_size: IntPair) -> None:
        super().__init__()
        self.output_size = as_size("AdaptiveAvgPool2d", "output_size", output_size)

    def forward(self, x: Any) -> Any:
        return F.adaptive_avg_pool2d(x, self.output_size)

    def describe(self) -> str:
        return f"{self.output_size}"


class GlobalAvgPool2d(Module):
    """The mean of each map: (N, C, H, W) to (N, C)."""

    def forward(self, x: Any) -> Any:
        return F.global_avg_pool2d(x)


class GlobalMaxPool2d(Module):
    """The maximum of each map: (N, C, H, W) to (N, C)."""

    def forward(self, x: Any) -> Any:
        return F.global_max_pool2d(x)


class LocalResponseNorm(Module):
    """AlexNet's normalisation across neighbouring channels."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: Any) -> Any:
        return F.local_response_norm(x, self.size, self.alpha, self.beta, self.k)

    def describe(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class Dropout(Module):
    """Zeroes elements at random in training; see functional.dropout."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Any) -> Any:
        return F.dropout(x, self.p, self.training)

    def describe(self) -> str:
        return f"p={self.p}"


class Flatten(Module):
    """All axes from start_dim on as one: (N, C, H, W) to (N, C*H*W)."""

    def __init__(self, start_dim: int = 1) -> None:
        super().__init__()
        self.start_dim = start_dim

    def forward(self, x: Any) -> Any:
        return x.flatten(self.start_dim)


class Identity(Module):
    """Its input, unchanged."""

    def forward(self, x: Any) -> Any:
        return x


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Any) -> Any:
        return F.relu(x)


class LeakyReLU(Module):
    """x where positive, negative_slope * x elsewhere."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = negative_slope

    def forward(self, x: Any) -> Any:
        return F.leaky_relu(x, self.negative_slope)

    def describe(self) -> str:
        return f"{self.negative_slope}"


class Sigmoid(Module):
    """1 / (1 + e^-x)."""

    def forward(self, x: Any) -> Any:
        return F.sigmoid(x)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x: Any) -> Any:
        return F.tanh(x)


class Softmax(Module):
    """Probabilities along one axis."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Any) -> Any:
        return F.softmax(x, self.dim)

    def describe(self) -> str:
        return f"dim={self.dim}"
