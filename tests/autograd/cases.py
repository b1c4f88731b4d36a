"""The registry: at least one case for every differentiable function of minidet, which gradcheck must accept.

A case names what it covers (Function classes by name, functions as "F.relu", methods as "Tensor.sum"), how to call it,
and how to draw its inputs, away from kinks. `missing()` lists what has no case: a new function needs one line here.

    case("F.tanh Tanh", F.tanh, normal(2, 3))
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import minidet
import minidet.functional as F
from minidet import Function, Tensor
from minidet.autograd import operations as ops
from minidet.functional.convolution import Conv2dInputGrad, Conv2dWeightGrad, LinearInputGrad, LinearWeightGrad
from minidet.functional.pooling import AvgPool2dAdjoint, MaxGather2d, MaxScatter2d
from minidet.functional.resample import ResizeBilinearAdjoint, ResizeNearestAdjoint
from minidet.functional.rois import RoIAlignAdjoint, RoIPoolGather, RoIPoolScatter

Draw = Callable[[np.random.Generator], Any]


@dataclass(frozen=True)
class Case:
    covers: tuple[str, ...]
    call: Callable
    draws: tuple[Draw, ...]
    name: str

    def inputs(self, seed: int = 0) -> list[Any]:
        """Fresh inputs: float64 arrays are differentiated, all others are constants."""
        rng = np.random.default_rng(seed)
        return [draw(rng) for draw in self.draws]


CASES: list[Case] = []


def case(covers: str, call: Callable, *draws: Draw, name: str = "") -> None:
    CASES.append(Case(tuple(covers.split()), call, draws, f"{covers.split()[0]}{name and ' '}{name}"))


# ------------------------------------------------------------------------------------------------------ inputs


def normal(*shape: int) -> Draw:
    return lambda rng: rng.standard_normal(shape)


def positive(*shape: int) -> Draw:
    return lambda rng: rng.uniform(0.5, 2.0, shape)


def away(*shape: int, kinks: tuple[float, ...] = (0.0,), gap: float = 0.1) -> Draw:
    """Normal numbers, those nearer than `gap` to a kink moved to its either side."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        x = rng.standard_normal(shape)
        for kink in kinks:
            near = np.abs(x - kink) < gap
            x[near] = kink + gap * np.where(x[near] < kink, -1, 1) * rng.uniform(1, 2, int(near.sum()))
        return x

    return draw


def distinct(*shape: int) -> Draw:
    """No two closer than 0.1: no ties for a maximum."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        size = int(np.prod(shape))
        return ((rng.permutation(size) + rng.uniform(0.2, 0.8, size)) * 0.25 - size * 0.125).reshape(shape)

    return draw


def apart(*shape: int) -> Draw:
    """-9 or 9: further from normal numbers than any kink of their difference."""
    return lambda rng: rng.choice([-9.0, 9.0], shape)


def given(value: Any) -> Draw:
    """A constant."""
    return lambda rng: np.asarray(value) if isinstance(value, list) else value


# --------------------------------------------------------------------------------------- element by element

case("Add Tensor.__add__", lambda a, b: a + b, normal(2, 3), normal(3))
case("Add", lambda a, b: a + b, normal(2, 1, 3), normal(4, 1), name="broadcasting both")
case("Add Tensor.__radd__", lambda a: 2 + a, normal(3), name="a number")
case("Add Tensor.clone", lambda a: a.clone(), normal(2, 3), name="as a copy")
case("Add", lambda a: a + a, normal(2, 3), name="one Tensor twice")
case("Add", lambda a, b: a + b, normal(0, 3), normal(3), name="empty batch")
case("Subtract Tensor.__sub__", lambda a, b: a - b, normal(2, 3), normal(3))
case("Subtract Tensor.__rsub__", lambda a: 2 - a, normal(3), name="from a number")
case("Multiply Tensor.__mul__", lambda a, b: a * b, normal(2, 3), normal(3))
case("Multiply Tensor.__rmul__", lambda a: 2.5 * a, normal(3), name="by a number")
case("Multiply", lambda a, b: a * b, normal(), normal(2, 2), name="by a scalar Tensor")
case("Multiply", lambda a: a * a, normal(2, 3), name="one Tensor twice")
case("Divide Tensor.__truediv__", lambda a, b: a / b, normal(2, 3), positive(3))
case("Divide Tensor.__rtruediv__", lambda b: 3 / b, away(3, gap=0.5), name="a number by a Tensor")
case("Negative Tensor.__neg__", lambda a: -a, normal(2, 3))
case("Power Tensor.__pow__", lambda a: a**3, normal(2, 3))
for exponent in (2, 1, 0):
    case("Power", partial(lambda a, exponent: a**exponent, exponent=exponent), normal(3), name=f"to {exponent}")
for exponent in (0.5, -1.5):
    case("Power", partial(lambda a, exponent: a**exponent, exponent=exponent), positive(3), name=f"to {exponent}")
case("F.exp Exp", lambda a: F.exp(a), normal(2, 3))
case("Tensor.exp Exp", lambda a: a.exp(), normal(2, 3))
case("F.log Log", lambda a: F.log(a), positive(2, 3))
case("Tensor.log Log", lambda a: a.log(), positive(2, 3))
case("F.sqrt Sqrt", lambda a: F.sqrt(a), positive(2, 3))
case("Tensor.sqrt Sqrt", lambda a: a.sqrt(), positive(2, 3))
case("F.sin Sin", lambda a: F.sin(a), normal(2, 3))
case("F.cos Cos", lambda a: F.cos(a), normal(2, 3))
case("F.arctan Arctan", lambda a: F.arctan(a), normal(2, 3))
case("Abs Tensor.__abs__", lambda a: abs(a), away(2, 3))
case("Tensor.abs Abs", lambda a: a.abs(), away(2, 3))
case("F.maximum Maximum", lambda a, b: F.maximum(a, b), distinct(2, 4), given(0.05))
case("F.maximum", lambda a: F.maximum(a[:2], a[2]), distinct(3, 4), name="of two Tensors, broadcasting")
case("Maximum", lambda a, b: F.maximum(a, b), normal(2, 3), apart(3), name="of two")
case("F.minimum Minimum", lambda a: F.minimum(a[:2], a[2]), distinct(3, 4))
case("F.minimum", lambda a, b: F.minimum(a, b), normal(2, 3), apart(3), name="of two")
mask = np.array([[True, False, True], [False, False, True]])
case("F.where Where", lambda a, b: F.where(mask, a, b), normal(2, 3), normal(3))
case("F.clip Clip", lambda a: F.clip(a, -0.5, 0.8), away(3, 4, kinks=(-0.5, 0.8)))
case("Tensor.clip Clip", lambda a: a.clip(low=0.2), away(3, 4, kinks=(0.2,)), name="from below")
case("Cast Tensor.astype", lambda a: a.astype(np.float64), normal(2, 3))
# Here to where it is; to the GPU and back: tests/test_device.py.
case("ToDevice", lambda a: ops.ToDevice.apply(a, device="cpu"), normal(2, 3))
case("Tensor.to", lambda a: a.to(np.float64) * 2, normal(2, 3))

# ------------------------------------------------------------------------------------------------ reductions

case("Sum Tensor.sum", lambda a: a.sum(axis=0), normal(2, 3))
case("Sum", lambda a: a.sum(), normal(2, 3), name="of everything")
case("Sum", lambda a: a.sum(axis=(-1, 0), keepdims=True), normal(2, 3, 2), name="over two axes")
case("Sum", lambda a: a.sum(axis=0), normal(0, 3), name="empty batch")
case("Tensor.mean", lambda a: a.mean(axis=1), normal(2, 3))
case("Tensor.mean", lambda a: a.mean(), normal(2, 3), name="of everything")
case("Tensor.var", lambda a: a.var(axis=(0, 2), keepdims=True), normal(2, 3, 2))
case("Tensor.max", lambda a: a.max(axis=1), distinct(2, 4))
case("Tensor.max", lambda a: a.max(keepdims=True), distinct(2, 4), name="of everything")
case("Tensor.min", lambda a: a.min(axis=0, keepdims=True), distinct(3, 2))
case("BroadcastTo", lambda a: ops.broadcast_to(a, (4, 2, 3)), normal(2, 1))
case("BroadcastTo", lambda a: ops.broadcast_to(a, (0, 3)), normal(3), name="to nothing")
case("Sum", lambda a: ops.sum_to(a, (1, 3)), normal(2, 4, 3), name="sum_to")
indices = given([[0, 3, 3], [1, 0, 2]])
case("F.take_along_axis TakeAlongAxis", lambda a, i: F.take_along_axis(a, i, 1), normal(2, 4), indices)
case("PutAlongAxis", lambda a, i: ops.PutAlongAxis.apply(a, indices=i, axis=-1, length=5), normal(2, 3), indices)

# ---------------------------------------------------------------------------------------------------- shapes

case("Reshape Tensor.reshape", lambda a: a.reshape(3, -1), normal(2, 3))
case("Reshape Tensor.flatten", lambda a: a.flatten(1), normal(2, 3, 2), name="flatten")
case("Transpose Tensor.transpose", lambda a: a.transpose(2, 0, 1), normal(2, 3, 2))
case("Transpose Tensor.permute", lambda a: a.permute(1, 2, 0), normal(2, 3, 2), name="permute")
case("Transpose Tensor.swapaxes", lambda a: a.swapaxes(-1, 0), normal(2, 3, 2), name="swapaxes")
case("Transpose Tensor.T", lambda a: a.T, normal(2, 3), name="T")
case("F.concatenate Concatenate", lambda a, b: F.concatenate([a, b], axis=-1), normal(2, 3), normal(2, 2))
case("Concatenate", lambda a, b: F.concatenate([a, b, a]), normal(0, 2), normal(3, 2), name="with an empty one")
case("F.stack", lambda a, b: F.stack([a, b], axis=1), normal(2, 3), normal(2, 3))
case("Index Tensor.__getitem__", lambda a: a[1:, ::-2], normal(3, 4))
case("Index", lambda a: a[..., None, 0], normal(2, 3), name="Ellipsis and None")
case("Index", lambda a, i: a[i], normal(4, 2), given([3, 0, 3]), name="integers, some twice")
case("Index", lambda a: a[np.arange(4), [0, 1, 1, 0]], normal(4, 2), name="pairs of integers")
case("Index", lambda a, m: a[m], normal(2, 2), given([[True, False], [True, True]]), name="a mask")
case("Scatter", lambda a: ops.Scatter.apply(a, key=(slice(1, 3),), shape=(4, 2)), normal(2, 2))
case(
    "Scatter", lambda a, i: ops.Scatter.apply(a, key=i, shape=(4, 2)), normal(3, 2), given([3, 0, 3]), name="adding up"
)
case("F.pad Pad", lambda a: F.pad(a, [(1, 0), (0, 2)]), normal(2, 3))

# -------------------------------------------------------------------------------------------------- products

case("MatMul Tensor.__matmul__", lambda a, b: a @ b, normal(2, 3), normal(3, 4))
case("MatMul Tensor.__rmatmul__", lambda b: np.arange(6.0).reshape(2, 3) @ b, normal(3, 2), name="an array by a Tensor")
case("MatMul", lambda a, b: a @ b, normal(2, 1, 2, 3), normal(3, 3, 1), name="broadcasting stacks")
case("MatMul", lambda a, b: a @ b, normal(0, 3), normal(3, 2), name="empty batch")
case("F.linear Linear", lambda *a: F.linear(*a), normal(2, 3), normal(4, 3), normal(4))
case("F.linear", lambda *a: F.linear(*a), normal(2, 2, 3), normal(2, 3), name="of three axes, without bias")
case("LinearInputGrad", lambda *a: LinearInputGrad.apply(*a), normal(2, 4), normal(4, 3))
case("LinearWeightGrad", lambda *a: LinearWeightGrad.apply(*a), normal(2, 3), normal(2, 4))

CONVOLUTIONS = {
    "": ((2, 2, 4, 4), (3, 2, 3, 3), {}),
    "stride and padding": ((1, 2, 5, 4), (2, 2, 3, 2), {"stride": (2, 1), "padding": (1, 0)}),
    "dilation": ((1, 1, 5, 6), (2, 1, 2, 3), {"dilation": 2, "padding": 1}),
    "groups": ((1, 4, 3, 3), (4, 2, 2, 2), {"groups": 2}),
    "depthwise": ((1, 3, 3, 3), (3, 1, 2, 2), {"groups": 3, "stride": 2, "padding": 1}),
    "1x1": ((2, 3, 2, 2), (2, 3, 1, 1), {}),
    "empty batch": ((0, 2, 3, 3), (2, 2, 2, 2), {}),
}
for name, (x, weight, options) in CONVOLUTIONS.items():
    inputs = [normal(*x), normal(*weight), normal(weight[0])]
    case("F.conv2d Conv2d", lambda *a, o=options: F.conv2d(*a, **o), *inputs, name=name)
case("F.conv2d Conv2d", lambda *a: F.conv2d(*a), normal(1, 1, 3, 3), normal(2, 1, 2, 2), name="without bias")
geometry = {"stride": 2, "padding": 1, "dilation": 1, "groups": 1}
case("Conv2dInputGrad", lambda *a: Conv2dInputGrad.apply(*a, input_size=(5, 4), **geometry),
     normal(1, 2, 3, 2), normal(2, 2, 3, 3))  # fmt: skip
case("Conv2dWeightGrad", lambda *a: Conv2dWeightGrad.apply(*a, kernel_size=(3, 2), **geometry),
     normal(2, 1, 5, 4), normal(2, 2, 3, 3))  # fmt: skip
TRANSPOSED = {
    "": ((2, 2, 2, 3), (2, 3, 3, 3), {}),
    "stride, padding, output_padding": (
        (1, 2, 2, 3), (2, 1, 3, 3), {"stride": 2, "padding": 1, "output_padding": (1, 0)},
    ),
    "groups and dilation": ((1, 4, 2, 2), (4, 1, 2, 2), {"groups": 2, "dilation": 2}),
}  # fmt: skip
for name, (x, weight, options) in TRANSPOSED.items():
    channels = weight[1] * options.get("groups", 1)
    inputs = [normal(*x), normal(*weight), normal(channels)]
    case("F.conv_transpose2d Conv2dInputGrad", lambda *a, o=options: F.conv_transpose2d(*a, **o), *inputs, name=name)

# --------------------------------------------------------------------------------------------------- pooling

POOLS = {
    "": ((2, 1, 4, 4), {"kernel_size": 2}),
    "overlapping, padded": ((1, 2, 5, 4), {"kernel_size": 3, "stride": (2, 1), "padding": 1}),
    "ceil_mode": ((1, 1, 5, 5), {"kernel_size": 2, "ceil_mode": True}),
    "empty batch": ((0, 1, 4, 4), {"kernel_size": 2}),
}
for name, (shape, options) in POOLS.items():
    case("F.max_pool2d MaxPool2d", lambda a, o=options: F.max_pool2d(a, **o), distinct(*shape), name=name)
    case("F.avg_pool2d AvgPool2d", lambda a, o=options: F.avg_pool2d(a, **o), normal(*shape), name=name)
case("F.max_pool2d MaxPool2d", lambda a: F.max_pool2d(a, 2, 1, dilation=2), distinct(1, 1, 4, 4), name="dilation")
case("F.avg_pool2d AvgPool2d", lambda a: F.avg_pool2d(a, 3, 2, 1, count_include_pad=False), normal(1, 1, 4, 4),
     name="without the padding")  # fmt: skip
argmax = given([[[[0, 5], [5, -1]]]])  # two windows share a pixel, one has none
case("MaxScatter2d", lambda a, i: MaxScatter2d.apply(a, indices=i, input_size=(2, 3)), normal(1, 1, 2, 2), argmax)
case("MaxGather2d", lambda a, i: MaxGather2d.apply(a, indices=i), normal(1, 1, 2, 3), argmax)
case("AvgPool2dAdjoint", lambda a: AvgPool2dAdjoint.apply(
    a, input_size=(5, 4), kernel_size=(3, 2), stride=(2, 2), padding=(1, 0), ceil_mode=False, count_include_pad=True,
), normal(1, 2, 3, 2))  # fmt: skip
for name, size in {"": (2, 1), "shared rows": 3, "a map that grows": (5, 4)}.items():
    case("F.adaptive_avg_pool2d", lambda a, size=size: F.adaptive_avg_pool2d(a, size), normal(1, 2, 4, 2), name=name)
case("F.global_avg_pool2d", lambda a: F.global_avg_pool2d(a), normal(2, 2, 3, 2))
case("F.global_max_pool2d", lambda a: F.global_max_pool2d(a), distinct(2, 2, 3, 2))

# -------------------------------------------------------------------------------------------------- resizing

NEAREST = {"": {"size": (5, 4)}, "smaller": {"size": 2}, "by factors": {"scale_factor": (1.5, 2)}}
for name, options in NEAREST.items():
    case("F.interpolate ResizeNearest", lambda a, o=options: F.interpolate(a, **o), normal(1, 2, 3, 3), name=name)
BILINEAR = {
    "bilinear": {"size": (5, 4)},
    "bilinear, corners aligned": {"size": (4, 5), "align_corners": True},
    "bilinear, smaller": {"size": 2},
    "bilinear by factors": {"scale_factor": (1.5, 0.7)},
}
for name, options in BILINEAR.items():
    case("F.interpolate ResizeBilinear", lambda a, o=options: F.interpolate(a, **o, mode="bilinear"),
         normal(1, 2, 3, 3), name=name)  # fmt: skip
case("F.interpolate ResizeBilinear", lambda a: F.interpolate(a, 2, mode="bilinear"), normal(0, 1, 3, 3),
     name="empty batch")  # fmt: skip
case("ResizeNearestAdjoint", lambda a: ResizeNearestAdjoint.apply(a, input_size=(3, 2), scale_factor=None),
     normal(1, 2, 4, 5))  # fmt: skip
case("ResizeBilinearAdjoint", lambda a: ResizeBilinearAdjoint.apply(
    a, input_size=(3, 2), align_corners=False, scale_factor=None,
), normal(1, 2, 4, 5))  # fmt: skip
# ------------------------------------------------------------------------------------------ regions of interest

# Two that overlap, one on the other image, one beyond the border, one outside.
ROIS = np.array([[0, 0, 0, 5, 7], [0, 2, 1, 7.5, 6], [1, 3, 2, 4, 3], [1, 6, 5, 12, 9], [0, 20, 20, 24, 22]])
for name, options in {
    "": {"output_size": (2, 3), "spatial_scale": 0.5},
    "one bin": {"output_size": 1},
}.items():
    case("F.roi_pool RoIPool", lambda a, o=options: F.roi_pool(a, ROIS, **o), distinct(2, 2, 4, 5), name=name)
for name, options in {
    "": {"output_size": (2, 3), "spatial_scale": 0.5},
    "aligned": {"output_size": 2, "spatial_scale": 0.5, "sampling_ratio": 2, "aligned": True},
    "one bin": {"output_size": 1, "sampling_ratio": 3},
}.items():
    case("F.roi_align RoIAlign", lambda a, o=options: F.roi_align(a, ROIS, **o), normal(2, 2, 4, 5), name=name)
per_image = [ROIS[:2, 1:], np.zeros((0, 4))]
case("F.roi_pool", lambda a: F.roi_pool(a, per_image, 2), distinct(2, 1, 3, 4), name="boxes in a list")
case("F.roi_align", lambda a: F.roi_align(a, per_image, 2), normal(2, 1, 3, 4), name="boxes in a list")
case("F.roi_pool", lambda a: F.roi_pool(a, ROIS[:0], 2), normal(2, 1, 3, 4), name="no boxes")
case("F.roi_align", lambda a: F.roi_align(a, ROIS[:0], 2), normal(2, 1, 3, 4), name="no boxes")
argmax = np.array([[[[0, 5]]], [[[5, -1]]]], np.int32)  # two bins share a pixel, one has none
bins = {"boxes": ROIS[:2], "argmax": argmax}
case("RoIPoolScatter", lambda a: RoIPoolScatter.apply(a, input_size=(2, 1, 2, 3), **bins), normal(2, 1, 1, 2))
case("RoIPoolGather", lambda a: RoIPoolGather.apply(a, **bins), normal(2, 1, 2, 3))
case("RoIAlignAdjoint", lambda a: RoIAlignAdjoint.apply(
    a, input_size=(2, 1, 4, 5), boxes=ROIS, spatial_scale=0.5, sampling_ratio=2, aligned=True,
), normal(5, 1, 2, 3))  # fmt: skip

# ------------------------------------------------------------------------------ activations, normalisation

case("F.relu ReLU", lambda a: F.relu(a), away(3, 4))
case("F.leaky_relu LeakyReLU", lambda a: F.leaky_relu(a, 0.1), away(3, 4))
case("F.sigmoid Sigmoid", lambda a: F.sigmoid(a), normal(2, 3))
case("F.tanh Tanh", lambda a: F.tanh(a), normal(2, 3))
case("F.softplus Softplus", lambda a: F.softplus(a), normal(2, 3))
case("F.softmax Softmax", lambda a: F.softmax(a, 1), normal(2, 3, 2))
case("F.log_softmax LogSoftmax", lambda a: F.log_softmax(a, -1), normal(2, 3))
case("F.dropout", lambda a: F.dropout(a, 0.4, rng=np.random.default_rng(3)), normal(3, 4))
case("F.dropout", lambda a: F.dropout(a, training=False), normal(3, 4), name="evaluation")
case("F.batch_norm BatchNorm", lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
     normal(2, 2, 2, 3), normal(2), normal(2))  # fmt: skip
case("F.batch_norm", lambda x, w, b: F.batch_norm(x, np.array([0.3, -1]), np.array([0.5, 2]), w, b),
     normal(2, 2, 2, 1), normal(2), normal(2), name="evaluation")  # fmt: skip
case("F.local_response_norm", lambda x: F.local_response_norm(x, 3, alpha=0.5, k=2.0), normal(1, 4, 2, 1))
case("F.local_response_norm", lambda x: F.local_response_norm(x, 4, alpha=0.1), normal(1, 5, 1, 1), name="even size")

# ---------------------------------------------------------------------------------------------------- losses

classes = given([2, 0])
for reduction in ("mean", "sum", "none"):
    case("F.cross_entropy", lambda x, t, r=reduction: F.cross_entropy(x, t, reduction=r), normal(2, 3), classes,
         name=reduction)  # fmt: skip
case("F.cross_entropy", lambda x, t: F.cross_entropy(x, t, weight=[0.5, 1.0, 2.0], ignore_index=1), normal(2, 3, 2),
     given([[2, 1], [0, 2]]), name="of maps, weighted, some ignored")  # fmt: skip
case("F.cross_entropy", lambda x, t: F.cross_entropy(x, t), normal(0, 3), lambda rng: np.zeros(0, int), name="empty")
case("F.binary_cross_entropy_with_logits", lambda x, t: F.binary_cross_entropy_with_logits(x, t), normal(2, 3),
     positive(2, 3))  # fmt: skip
case("F.mse_loss", lambda x, t: F.mse_loss(x, t), normal(2, 3), normal(2, 3))
case("F.mse_loss", lambda x, t: F.mse_loss(x, t, reduction="none"), normal(2, 3), normal(2, 3), name="none")
case("F.l1_loss", lambda x, t: F.l1_loss(x, t), normal(2, 3), apart(2, 3))
case("F.smooth_l1_loss", lambda x, t: F.smooth_l1_loss(x, t), normal(2, 3), apart(2, 3))
case("F.smooth_l1_loss", lambda x: F.smooth_l1_loss(x, np.zeros((3, 4)), "sum", 0.7), away(3, 4, kinks=(-0.7, 0.7)),
     name="beta 0.7")  # fmt: skip
case("F.smooth_l1_loss", lambda x, t: F.smooth_l1_loss(x, t, beta=0), normal(2, 3), apart(2, 3), name="beta 0")
signs = given([[1, -1, 1], [-1, 1, 1]])
case("F.hinge_loss", lambda x, t: F.hinge_loss(x, t), away(2, 3, kinks=(-1.0, 1.0)), signs)
case("F.multi_margin_loss", lambda x, t: F.multi_margin_loss(x, t), distinct(2, 3), classes)


# -------------------------------------------------------------------------------------------------- coverage

# Attributes of Tensor that are not differentiable operations; any other needs a case.
NOT_OPERATIONS = {
    "__array__", "__array_ufunc__", "__bool__", "__doc__", "__eq__", "__float__", "__ge__", "__gt__", "__hash__",
    "__init__", "__int__", "__le__", "__len__", "__lt__", "__module__", "__ne__", "__repr__", "__setitem__",
    "__slots__", "__weakref__", "_check_on_cpu", "backward", "cpu", "cuda", "data", "detach", "device", "dtype",
    "grad", "hooks", "is_leaf", "item", "ndim", "node", "numpy", "register_hook", "requires_grad", "requires_grad_",
    "retain_grad", "shape", "size",
}  # fmt: skip


def function_classes() -> dict[str, type[Function]]:
    """Every Function of minidet by name, after importing all of its modules."""
    for module in pkgutil.walk_packages(minidet.__path__, "minidet."):
        if not module.name.endswith("__main__"):  # importing that one runs the command line
            importlib.import_module(module.name)
    return {cls.__name__: cls for cls in _subclasses(Function) if cls.__module__.startswith("minidet.")}


def _subclasses(cls: type) -> Iterator[type]:
    """All below cls that define a forward: the others only group them."""
    for child in cls.__subclasses__():
        if child.forward is not Function.forward:
            yield child
        yield from _subclasses(child)


def everything() -> set[str]:
    """The names of all differentiable functions: classes, functions of minidet.functional, methods of Tensor."""
    methods = {f"Tensor.{name}" for name in vars(Tensor) if name not in NOT_OPERATIONS}
    return {*function_classes(), *(f"F.{name}" for name in F.__all__), *methods}


def missing(names: set[str], cases: list[Case]) -> list[str]:
    """Those that no case covers."""
    return sorted(names - {name for case in cases for name in case.covers})
