"""The network as the heat maps see it: a function from images to scores, which is left as it was found."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .. import nn
from ..autograd import Tensor
from ..autograd.tensor import array_of
from ..device import on_device_of, to_device, to_numpy

looking = threading.RLock()  # two at once would find, and put back, each other's modes


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """Within it the model is in evaluation mode and its parameters want no gradient, so that a backward pass computes
    those of the activations only. Afterwards all is as it was, module by module, also after an error. One thread at a
    time: others wait."""
    with looking, nn.evaluating(model):
        wanting = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        try:
            model.requires_grad_(False)
            yield
        finally:
            for parameter, wanted in wanting:
                parameter.requires_grad = wanted


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """(N, K), the scores before the softmax: by the model's method `logits` where it has one, else model(images)."""
    has_method = hasattr(type(model), "logits")  # a layer of that name is none
    logits = model.logits(images) if has_method else model(images)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        got = f"a Tensor {logits.shape}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"{type(model).__name__}: expected the scores of classes (N, K), got {got}; give the model a method "
            "logits(images) -> (N, K), the scores before the softmax"
        )
    return logits


def as_images(model: nn.Module, images: Any) -> Tensor:
    """(N, 3, H, W) as a Tensor on the model's device, in its dtype. An array or a Tensor of floats is expected."""
    array = array_of(images)
    shape, dtype = getattr(array, "shape", None), getattr(array, "dtype", None)
    if shape is None or len(shape) != 4 or dtype.kind != "f" or min(shape[1:]) == 0:
        got = type(images).__name__ if shape is None else f"{shape} {dtype}"
        advice = "; looks like one image, use x[None]" if shape is not None and len(shape) == 3 else ""
        raise ValueError(f"images: expected floats (N, 3, H, W) in [0, 1], got {got}{advice}")
    floats = (p.dtype for p in model.parameters())
    return Tensor(to_device(array, model.device).astype(next(floats, np.dtype(np.float32)), copy=False))


def as_classes(class_index: Any, logits: Tensor) -> np.ndarray:
    """(N,) positions in the logits: the predicted classes for None, one class for all images or one an image.

    Raises ValueError for a class that the network does not have; there are no classes from the end, such as -1.
    """
    count, classes = logits.shape
    if class_index is None:
        return to_numpy(logits.data).argmax(axis=1)
    index = np.asarray(to_numpy(array_of(class_index)))
    if index.dtype.kind not in "iu" or index.shape not in ((), (count,)):
        raise ValueError(
            f"class_index: expected a whole number, ({count},) of them or None, got {index.dtype} of shape "
            f"{index.shape}"
        )
    wrong = index[(index < 0) | (index >= classes)]
    if wrong.size:
        raise ValueError(
            f"class_index: expected 0 to {classes - 1}, the positions of the network's {classes} scores, got "
            f"{wrong.flat[0]}; labels that count from 1 need label - 1"
        )
    return np.broadcast_to(index, (count,)).astype(np.int64)


def picked(logits: Tensor, classes: np.ndarray) -> Tensor:
    """y (N,): of each row the score of its class."""
    rows, classes = on_device_of(np.arange(len(classes)), logits.data), on_device_of(classes, logits.data)
    return logits[rows, classes]


def finite_scores(logits: Tensor, classes: np.ndarray) -> np.ndarray:
    """y (N,), float64 on the CPU. Raises ValueError where one is not finite: there is nothing to explain."""
    return check_finite("scores", to_numpy(picked(logits, classes).data).astype(np.float64))


def check_finite(what: str, values: np.ndarray) -> np.ndarray:
    """The values (N, ...). Raises ValueError, naming the images, where one is not finite: NaN explains nothing."""
    broken = np.flatnonzero(~np.isfinite(values).all(axis=tuple(range(1, values.ndim))))
    if broken.size:
        shown = ", ".join(map(str, broken[:8])) + ", ..." * (broken.size > 8)
        raise ValueError(
            f"expected finite {what}, got NaN or infinity for image {shown} of the batch; look at the image and at the "
            "weights (minidet.detect_anomaly() names the operation that made the first one)"
        )
    return values
