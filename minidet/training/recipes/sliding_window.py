"""How a sliding window is trained: as a classifier of crops, on a backbone that knows the classes already.

The crops are windows of the very pyramid that it slides over afterwards, so that it learns from what it will see: some
that fit an object, and a few of the many that do not, each image's anew in each epoch.
"""

from typing import Any

import numpy as np

from minidet.backbones import TinyBackbone, cut
from minidet.models.sliding_window import SlidingWindow
from minidet.training.recipes import detection

DEFAULTS = detection.DEFAULTS | {
    "epochs": 3,
    "batch_size": 16,
    "learning_rate": 2e-3,
    "weight_decay": 1e-2,
    "images": 2000,
    "smallest": 11.0,  # sides of the objects that fill a window, in pixels: the pyramid goes from the smallest
    "largest": 36.0,  # to the largest
    "levels": 4,  # in so many steps, each larger than the one before by the same factor
    "aspect": 1.0,  # height by width of objects; windows of people stand upright
    "windows": 32,  # of each image that are trained on at a time
}

# The backbone's stem and two stages, the second without halving the map: a cell sees 31 pixels and is 4 from the next,
# a window has 39. After the third stage a cell would see 47, twice as many as the objects have.
STRIDE, LAST_STAGE = 4, "stages.1"


def build(classes: tuple[str, ...], config: dict[str, Any], rng: np.random.Generator) -> SlidingWindow:
    """A sliding window on the first stages of the backbone that comes with minidet, with their weights."""
    backbone = cut(TinyBackbone.pretrained(STRIDE), LAST_STAGE)
    sizes, windows = object_sizes(config), config["windows"]
    if windows < 4:
        raise ValueError(f"windows: expected 4 or more, of which a quarter may show objects, got {windows}")
    return SlidingWindow(backbone, len(classes), sizes, batch_size_per_image=windows, **detection.sizes(config))


def object_sizes(config: dict[str, Any]) -> list[tuple[float, float]]:
    """(height, width) of the objects that fill a window, a level each; width times height is the side squared."""
    smallest, largest, aspect = (config[key] for key in ("smallest", "largest", "aspect"))
    if not 0 < smallest <= largest:
        raise ValueError(f"smallest, largest: expected 0 < smallest <= largest, got {smallest} and {largest}")
    if config["levels"] < 1 or aspect <= 0:
        raise ValueError(
            f"levels, aspect: expected one level or more and an aspect above 0, got {config['levels']} and {aspect}"
        )
    sides = np.geomspace(smallest, largest, config["levels"])
    return [(float(side * aspect**0.5), float(side / aspect**0.5)) for side in sides]


SYSTEM = detection.detector(
    name="sliding_window",
    build=build,
    doctor=("epochs=300",),
    defaults=DEFAULTS,
)
