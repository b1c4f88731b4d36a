"""The methods that ask the network again: Score-CAM shows it parts of the image, Ablation-CAM takes channels away."""

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np

import minidet_kernels as kernels

from .. import nn
from ..autograd import Tensor
from ..device import on_device_of, to_numpy
from . import formulas
from .base import LayerMap, Look
from .scores import check_finite


class ChannelwiseMap(LayerMap):
    """A LayerMap that runs the network once for every channel of every image, in batches of at most batch_size."""

    def __init__(self, model: nn.Module, layer: nn.Module | str | None = None, batch_size: int = 32) -> None:
        super().__init__(model, layer)
        if batch_size < 1:
            raise ValueError(f"{type(self).__name__}: expected a batch_size of 1 or more, got {batch_size}")
        self.batch_size = batch_size

    def channel_scores(self, look: Look, ask: Callable[[Any, Any, slice], Tensor]) -> np.ndarray:
        """(N, C): the score of each image's class with something done to each channel.

        ask(image (1, 3, H, W), its activations A (1, C, h, w), which channels: B of them) -> scores (B, K).
        """
        images, channels = look.leaf.shape[:2]
        scores = np.empty((images, channels))
        for n in range(images):
            image, A = look.images.data[n : n + 1], look.leaf.data[n : n + 1]
            for start in range(0, channels, self.batch_size):
                part = slice(start, min(start + self.batch_size, channels))
                logits = ask(image, A, part)
                scores[n, part] = to_numpy(logits.data[:, int(look.classes[n])])
        return check_finite(f"scores in {self.title}", scores)


class ScoreCAM(ChannelwiseMap):
    """sum_k w_k A_k, w from the scores of the image seen through each channel: see `formulas.score_cam`.

    Needs no gradient, and C forward passes an image. A constant channel lets nothing through: its score is that of the
    black image.
    """

    def maps(self, look: Look) -> np.ndarray:
        return formulas.score_cam(look.activations(), self.channel_scores(look, self.logits_of_masked))

    def logits_of_masked(self, image: Any, A: Any, channels: slice) -> Tensor:
        """Of the image seen through each of the channels."""
        above_least = A[0, channels, None] - A[0, channels, None].min(axis=(2, 3), keepdims=True)  # the same mask
        # Zeros stay zeros, but a constant enlarged differs in its last digits, of which a mask would be made.
        upsampled = kernels.resize_bilinear(above_least, image.shape[2:])  # (B, 1, H, W)
        return self.score(Tensor(image * formulas.channel_masks(upsampled)))


class AblationCAM(ChannelwiseMap):
    """sum_k w_k A_k, w_k = (y - y without channel k) / y: see `formulas.ablation_cam`.

    Needs no gradient, and C passes an image through what lies above the layer; below it each image is computed once a
    batch of channels, except where a way leads around the layer and does not broadcast (a concatenation).
    """

    def maps(self, look: Look) -> np.ndarray:
        broadcasts = self.broadcasts(look)

        def ask(image: Any, A: Any, channels: slice) -> Tensor:
            keep = 1 - np.eye(A.shape[1], dtype=A.dtype)[channels]  # (B, C): row b without its channel
            ablated = A * on_device_of(keep, A)[:, :, None, None]
            images = image if broadcasts else np.repeat(image, len(ablated), axis=0)
            return self.logits_above(images, ablated, look.runs)

        return formulas.ablation_cam(look.activations(), look.scores(), self.channel_scores(look, ask))

    def logits_above(self, images: Any, maps: Any, runs: int) -> Tensor:
        """The scores with maps (B, C, h, w) in place of the layer's own, those of the last of its runs."""
        run = count(1)

        def replace(module: nn.Module, inputs: Any, output: Any) -> Tensor | None:
            return Tensor(maps) if next(run) == runs else None

        with nn.forward_hooks([(self.layer, replace)]):
            return self.score(Tensor(images))

    def broadcasts(self, look: Look) -> bool:
        """Whether the network takes one image and then, in the layer's place, the maps of two."""
        try:
            two = np.repeat(look.leaf.data[:1], 2, axis=0)
            return self.logits_above(look.images.data[:1], two, look.runs).shape[0] == len(two)
        except (ValueError, TypeError):
            return False
