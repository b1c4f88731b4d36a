"""Functions on Tensors, with torch.nn.functional's names, order and defaults (`import minidet.functional as F`).

Given arrays instead of Tensors, each is a plain array function.
"""

from ..autograd.operations import (
    arctan,
    clip,
    concatenate,
    cos,
    exp,
    log,
    maximum,
    minimum,
    pad,
    sin,
    sqrt,
    stack,
    take_along_axis,
    where,
)
from .activations import dropout, leaky_relu, log_softmax, relu, sigmoid, softmax, softplus, tanh
from .convolution import conv2d, conv_transpose2d, linear
from .losses import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    hinge_loss,
    l1_loss,
    mse_loss,
    multi_margin_loss,
    smooth_l1_loss,
)
from .normalization import batch_norm, local_response_norm
from .pooling import adaptive_avg_pool2d, avg_pool2d, global_avg_pool2d, global_max_pool2d, max_pool2d
from .resample import interpolate
from .rois import roi_align, roi_pool

__all__ = [
    "adaptive_avg_pool2d",
    "arctan",
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy_with_logits",
    "clip",
    "concatenate",
    "conv2d",
    "conv_transpose2d",
    "cos",
    "cross_entropy",
    "dropout",
    "exp",
    "global_avg_pool2d",
    "global_max_pool2d",
    "hinge_loss",
    "interpolate",
    "l1_loss",
    "leaky_relu",
    "linear",
    "local_response_norm",
    "log",
    "log_softmax",
    "max_pool2d",
    "maximum",
    "minimum",
    "mse_loss",
    "multi_margin_loss",
    "pad",
    "relu",
    "roi_align",
    "roi_pool",
    "sigmoid",
    "sin",
    "smooth_l1_loss",
    "softmax",
    "softplus",
    "sqrt",
    "stack",
    "take_along_axis",
    "tanh",
    "where",
]
