"""Weights and images for a Faster R-CNN that nobody trained, in NumPy: the same for every engine, and not trivial.

Values keep a moderate size in all layers, scores spread, boxes move, and objects of several classes are found.
"""

from __future__ import annotations

import numpy as np

# The size of the weights of the layers that end a stage, by what would keep the size of the values. Those of the heads
# are so large that scores spread and boxes move, as after training: scores of untrained heads are all alike, and their
# order is a matter of rounding.
GAINS = {
    "inner_blocks": 0.2,
    "layer_blocks": 0.7,
    "cls_logits": 1.0,
    "rpn.head.bbox_pred": 0.3,
    "cls_score": 2.0,
    "box_predictor.bbox_pred": 2.0,
}


def random_weights(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """Weights by key, float32 (counters int64), that keep the values of all layers at a moderate size."""
    rng, weights = np.random.default_rng(seed), {}
    for key, shape in shapes.items():
        name, kind = key.rpartition(".")[::2]
        if kind == "num_batches_tracked":
            values = np.zeros(shape)
        elif len(shape) > 1:  # of convolutions and linear layers; a ReLU before halves the squares of what comes in
            values = rng.standard_normal(shape, np.float32) * (2 / np.prod(shape[1:])) ** 0.5
            if len(shape) == 2:  # what all boxes have in common would give them all the same class
                values -= values.mean(axis=1, keepdims=True)
            values *= next((gain for part, gain in GAINS.items() if part in name), 1)
        elif kind == "running_var":
            values = rng.uniform(0.7, 1.4, shape)
        elif kind == "weight":  # of batch norm; what a block adds to its input is small, or values would grow and grow
            block, last = name.rpartition(".")[0], "bn3" if f"{name[:-1]}3.weight" in shapes else "bn2"
            values = rng.uniform(0.8, 1.2, shape) * (0.3 if block and name.endswith(last) else 1)
        else:
            values = rng.normal(0, 0.1, shape)
        weights[key] = values.astype(np.int64 if kind == "num_batches_tracked" else np.float32)
    return weights


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(3, height, width) float32 in [0, 1]: patches of colours, each of 16 x 16 pixels, and noise. Noise alone would
    look the same in all boxes."""
    rng = np.random.default_rng(seed)
    patches = rng.random((3, -(-height // 16), -(-width // 16)), np.float32).repeat(16, 1).repeat(16, 2)
    noise = rng.random((3, height, width), np.float32)
    return 0.8 * patches[:, :height, :width] + 0.2 * noise
