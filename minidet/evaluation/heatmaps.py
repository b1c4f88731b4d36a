"""Whether heat maps can be trusted. None of these numbers needs a true heat map, which nobody has.

deletion, insertion     pixels go, or come, in the order of the map: the score should fall, or rise, fast
average drop, increase  what the map lights up should be enough for the score
pointing game           the largest value should lie on the object
randomization           the map should change when the network forgets what it has learned

`model`: as for the heat maps, logits by a method `logits` or by itself; left as it was found. images (N, 3, H, W),
floats, arrays or Tensors. maps (N, h, w): resized to the images where they are smaller. class_index: a position in the
logits, (N,) of them, or None for the classes predicted. The score is the probability of the class, after the softmax.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .. import functional as F
from .. import nn
from ..autograd import Tensor, no_grad
from ..device import on_device_of, to_numpy
from ..heatmaps import resize_map
from ..heatmaps.formulas import quotient, relu
from ..heatmaps.scores import as_classes, as_images, at_rest, check_finite, logits_of

STEPS = 64  # of a curve. RISE takes one row's pixels a step, 224 of them; the area differs in the third digit
BLUR = 5 / 224  # of the longer side: the sigma of the blurred image. RISE: 5 at 224, in a kernel of 11 x 11
TOLERANCE = 15 / 224  # of the longer side. Zhang et al.: 15 pixels
BASELINES = ("mean", "blur")


def deletion_curve(
    model: nn.Module,
    images: Any,
    maps: Any,
    class_index: Any = None,
    baseline: str = "mean",
    steps: int = STEPS,
    batch_size: int = 32,
) -> tuple[np.ndarray, np.ndarray]:
    """The score while the pixels of the image give way to the baseline, the largest value of the map first.

    Petsiuk et al. 2018, "RISE", the deletion metric. baseline: "mean", the image's mean colour, or "blur", the blurred
    image (`BLUR`). Of equal values the first in reading order goes first. Returns the fractions of pixels that are gone
    (steps + 1,), 0 to 1, and the scores (N, steps + 1). `area` sums up: small is good. Cost: steps + 1 forward passes
    an image.
    """
    return _curve(model, images, maps, class_index, baseline, steps, batch_size, inserting=False)


def insertion_curve(
    model: nn.Module,
    images: Any,
    maps: Any,
    class_index: Any = None,
    baseline: str = "blur",
    steps: int = STEPS,
    batch_size: int = 32,
) -> tuple[np.ndarray, np.ndarray]:
    """The score while the pixels of the image come into the baseline; else as `deletion_curve`. A large area is good.

    Where objects are large, "blur" leaves them to be recognised from the start: the curve then says little.
    """
    return _curve(model, images, maps, class_index, baseline, steps, batch_size, inserting=True)


def area(fractions: np.ndarray, curves: np.ndarray) -> np.ndarray:
    """The area under each curve (..., S), by the trapezoidal rule; fractions (S,) run from 0 to 1."""
    return np.trapezoid(curves, fractions, axis=-1)


def average_drop(
    model: nn.Module, images: Any, maps: Any, class_index: Any = None, batch_size: int = 32
) -> dict[str, float]:
    """How the score changes, from Y to O, when the image is multiplied by its map. Chattopadhay et al. 2018,
    "Grad-CAM++", section 4.1, as fractions:

        average_drop            mean of max(0, Y - O) / Y, small is good (0 where Y = 0)
        increase_in_confidence  the fraction of images with O > Y, large is good

    The map is cut off at 0 and divided by its maximum; a map of zeros leaves a black image.
    """
    images, maps, classes = _inputs(model, images, maps, class_index)
    positive = relu(maps)
    masks = quotient(positive, positive.max(axis=(1, 2), keepdims=True))
    before = _scores(model, images, classes, batch_size)
    after = _scores(model, images * masks[:, None].astype(images.dtype), classes, batch_size)
    return {
        "average_drop": float(quotient(relu(before - after), before).mean()),
        "increase_in_confidence": float((after > before).mean()),
    }


def pointing_game(maps: Any, boxes: Sequence[Any], tolerance: float = TOLERANCE) -> float:
    """The fraction of maps whose largest value lies on an object, or next to it.

    maps (N, H, W) of the images' size; boxes: of each image those of the class in question, (R, 4) x1 y1 x2 y2 in
    pixels. A hit is a pixel whose centre is within `tolerance` times the longer side of a box (Zhang et al. 2016,
    "Top-down Neural Attention by Excitation Backprop", section 4.1). Of equal values the first in reading order counts;
    a constant map, or one with NaN or infinity, points nowhere and misses.
    """
    maps = np.asarray(maps)
    if maps.ndim != 3 or len(maps) != len(boxes) or len(maps) == 0:
        raise ValueError(
            f"pointing_game: expected maps (N, H, W) and boxes of each of the N images, got {maps.shape} and "
            f"{len(boxes)}"
        )
    return float(np.mean([_points_at(*pair, tolerance) for pair in zip(maps, boxes, strict=True)]))


def _points_at(heat: np.ndarray, boxes: Any, tolerance: float) -> bool:
    if not -np.inf < heat.min() < heat.max() < np.inf:
        return False
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    point = np.array([column, row]) + 0.5
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    outside = np.maximum(np.maximum(boxes[:, :2] - point, point - boxes[:, 2:]), 0)  # (R, 2)
    return bool((np.hypot(*outside.T) <= tolerance * max(heat.shape)).any())


def parameter_randomization(
    method: Any, images: Any, class_index: Any = None, seed: int = 0
) -> list[tuple[str, float]]:
    """How alike the maps remain while the network forgets, layer by layer from the top: Adebayo et al. 2018, "Sanity
    Checks for Saliency Maps", section 3.1, cascading randomization.

    method: a heat map of `minidet.heatmaps`, or anything called as it that has the `model`. class_index: as there; the
    classes predicted before anything is forgotten. Returns (path of the layer, rank correlation of Spearman with the
    first maps, mean over the images) after each layer; a constant map is like nothing, 0. A method whose correlation
    stays near 1 does not look at what was learned.

    Each parameter is drawn from the normal distribution of its own mean and standard deviation, so that activations
    keep their size; running averages of batch norm stay. The weights are put back at the end, also after an error.
    """
    model, rng = method.model, np.random.default_rng(seed)
    images = to_numpy(as_images(model, images).data)
    if not len(images):
        raise ValueError("parameter_randomization: expected at least one image, got none")
    classes = as_classes(class_index, Tensor(_logits(model, images)))
    expected, result = method(images, classes), []
    with _weights_put_back(model):
        for path, layer in reversed(_layers_that_run(model, images)):
            for parameter in layer._parameters.values():
                values = to_numpy(parameter.data)
                drawn = rng.normal(values.mean(), values.std(), values.shape).astype(values.dtype)
                parameter.data[...] = on_device_of(drawn, parameter.data)
            result.append((path, rank_correlation(expected, method(images, classes))))
    return result


def rank_correlation(maps: Any, others: Any) -> float:
    """Spearman's correlation of the values of two maps of an image, the mean over the images; maps, others (N, h, w).
    1: the same order of places. A constant map has no order and is like nothing: 0."""
    from scipy.stats import spearmanr

    pairs = [(a.ravel(), b.ravel()) for a, b in zip(np.asarray(maps), np.asarray(others), strict=True)]
    return float(np.mean([spearmanr(a, b).statistic if np.ptp(a) and np.ptp(b) else 0.0 for a, b in pairs]))


def _layers_that_run(model: nn.Module, images: np.ndarray) -> list[tuple[str, nn.Module]]:
    """(path, Module) of the layers with parameters of their own, in the order in which they first run."""
    seen: dict[str, nn.Module] = {}

    def keep(path: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            seen.setdefault(path, module)

        return hook

    owners = [(path, module) for path, module in model.named_modules() if module._parameters]
    with nn.forward_hooks((module, keep(path)) for path, module in owners):
        _logits(model, images[:1])
    return list(seen.items())


@contextmanager
def _weights_put_back(model: nn.Module) -> Iterator[None]:
    before = [(parameter, parameter.data.copy()) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, values in before:
            parameter.data[...] = values


def _curve(
    model: nn.Module,
    images: Any,
    maps: Any,
    class_index: Any,
    baseline: str,
    steps: int,
    batch_size: int,
    inserting: bool,
) -> tuple[np.ndarray, np.ndarray]:
    if baseline not in BASELINES or steps < 1:
        raise ValueError(
            f"expected a baseline of {', '.join(BASELINES)} and 1 step or more, got {baseline!r} and {steps}"
        )
    images, maps, classes = _inputs(model, images, maps, class_index)
    count, _, height, width = images.shape
    fractions = np.arange(steps + 1) / steps
    changed = np.rint(fractions * height * width)
    scores = np.empty((count, steps + 1))
    for n, image in enumerate(images):
        rank = np.empty(height * width, np.int64)
        rank[np.argsort(-maps[n].ravel(), kind="stable")] = np.arange(height * width)
        rank = rank.reshape(height, width)
        start, end = image, _baseline(image, baseline)
        if inserting:
            start, end = end, start
        for first in range(0, steps + 1, batch_size):
            part = slice(first, min(first + batch_size, steps + 1))
            gone = rank < changed[part, None, None, None]  # (B, 1, H, W)
            mixed = np.where(gone, end, start)
            scores[n, part] = _scores(model, mixed, np.full(len(mixed), classes[n]), batch_size)
    return fractions, scores


def _baseline(image: np.ndarray, baseline: str) -> np.ndarray:
    """(3, H, W) without what the image (3, H, W) shows."""
    if baseline == "mean":
        return np.broadcast_to(image.mean(axis=(1, 2), keepdims=True), image.shape)
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(image, BLUR * max(image.shape[1:]), axes=(1, 2))


def _inputs(model: nn.Module, images: Any, maps: Any, class_index: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (N, 3, H, W), maps (N, H, W) and classes (N,), checked, on the CPU."""
    images, maps = to_numpy(as_images(model, images).data), np.asarray(maps, np.float64)  # -1 of a uint8 is 255
    if maps.ndim != 3 or len(maps) != len(images) or len(maps) == 0:
        raise ValueError(f"expected a map an image, not 0, (N, h, w), got {maps.shape} for images {images.shape}")
    if not np.isfinite(maps).all():
        raise ValueError("expected maps that are finite, got NaN or infinity, for which there is no order of pixels")
    if maps.shape[1:] != images.shape[2:]:
        maps = resize_map(maps.astype(np.float32), images.shape[2:])
    return images, maps, as_classes(class_index, Tensor(_logits(model, images)))


def _scores(model: nn.Module, images: np.ndarray, classes: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """(N,), float64: the probability of each image's class."""
    return F.softmax(_logits(model, images, batch_size), 1)[np.arange(len(images)), classes]


def _logits(model: nn.Module, images: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """(N, K), float64 on the CPU."""
    parts = []
    with at_rest(model), no_grad():
        for start in range(0, len(images), batch_size):
            logits = logits_of(model, as_images(model, images[start : start + batch_size]))
            parts.append(to_numpy(logits.data).astype(np.float64))
    return check_finite("scores", np.concatenate(parts))
