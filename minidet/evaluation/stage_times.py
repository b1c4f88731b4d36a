"""Where a detector's seconds go, for one image at a time: to proposals, features, heads, and the rest.

A model tells of its intermediate results as it makes them (minidet.watch). Whoever listens with a clock knows how long
each took, and nothing is slower while nobody does.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import watch
from ..autograd import no_grad
from ..device import to_numpy

# Where to look; the convolutional network; what is said of each place; and preparing the image, choosing the boxes.
STAGES = ("proposals", "features", "heads", "rest")

# The stage that a result ends: the time since the one before it, or since the image was given, counts there. What comes
# after the last of them is rest; results that are not listed end nothing. Windows of a pyramid are proposals that cost
# nothing but the pyramid, and single-shot detectors have none; R-CNN's features include cutting the regions out, the
# heads of the others RoI pooling.
ENDS = {
    "image_batch.images": "rest",
    "sliding_window.levels": "proposals",
    "rcnn.proposals": "proposals",
    "fast_rcnn.proposals": "proposals",
    "rpn.proposals": "proposals",
    "backbone.maps": "features",
    "rcnn.features": "features",
    "sliding_window.scores": "heads",
    "rcnn.judged": "heads",
    "roi.deltas": "heads",
    "roi.found": "rest",
    "mask.logits": "heads",
    "keypoint.logits": "heads",
    "yolo.outputs": "heads",
    "yolo.classes": "heads",
    "ssd.deltas": "heads",
    "openpose.fields": "heads",
}


def stage_seconds(model: Any, image: Any) -> dict[str, float]:
    """How long each of STAGES takes on one image, a Tensor (3, H, W) on the model's device: seconds that add up to
    those of the whole call. The model, in evaluation mode, gets no proposals: it makes those that it needs."""
    seconds = dict.fromkeys(STAGES, 0.0)

    def count(stage: str) -> None:
        nonlocal last
        to_numpy(image.data[0, 0, :1])  # waits until the GPU has done what it was given
        now = time.perf_counter()
        seconds[stage] += now - last
        last = now

    def heard(event: watch.Event) -> None:
        if event.name in ENDS:
            count(ENDS[event.name])

    with no_grad(), watch.listen(heard):
        last = time.perf_counter()
        model([image])
        count("rest")
    return seconds


def mean_stage_seconds(model: Any, images: Sequence[Any]) -> dict[str, float]:
    """The mean of stage_seconds over the middle half of the images by their time: a median whose parts still add up.
    The first image is shown once before: it compiles kernels and fills caches."""
    stage_seconds(model, images[0])
    measured = np.array([list(stage_seconds(model, image).values()) for image in images])  # (N, 4)
    order = np.argsort(measured.sum(axis=1), kind="stable")
    quarter = len(images) // 4
    return dict(zip(STAGES, measured[order[quarter : len(images) - quarter]].mean(axis=0).tolist(), strict=True))
