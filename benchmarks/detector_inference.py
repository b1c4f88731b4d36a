"""Detecting in one image with Faster R-CNN, ResNet-50 and a feature pyramid, against the same network in torch.

One image of 600 x 800, which is not resized, 91 classes, float32, evaluation, no gradients; random weights that find
100 objects among 1000 proposals (`tests/models/random_weights.py`). torch's network is the oracle of our tests, with
non-maximum suppression and RoIAlign as matrix operations; "torch" has its memory channels_last, "torch NCHW" not.

    python -m benchmarks detector_inference          the times
    python -m benchmarks.detector_inference          the most memory that each engine's process ever held
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engines import Row
from benchmarks.memory import MIB, status
from tests.models.random_weights import random_image, random_weights

SIZE = (600, 800)
MAPS, WHOLE = "ResNet-50 and pyramid, 600 x 800", "Faster R-CNN, ResNet-50 and pyramid, 600 x 800"


def minidet() -> dict[str, Callable]:
    from minidet import Tensor, no_grad
    from minidet.models.faster_rcnn_fpn import fasterrcnn_resnet50_fpn

    model = fasterrcnn_resnet50_fpn(min_size=SIZE[0]).eval()
    model.load_state_dict(random_weights({key: array.shape for key, array in model.state_dict().items()}))
    image, batch = Tensor(random_image(*SIZE)), Tensor(random_image(608, 800)[None])

    def maps() -> list[np.ndarray]:
        with no_grad():
            return [level.data for level in model.backbone(batch)]

    def whole() -> np.ndarray:
        with no_grad():
            return model([image])[0]["scores"]

    return {MAPS: maps, WHOLE: whole}


def torch(channels_last: bool) -> dict[str, Callable]:
    import torch

    from tests.models.torch_faster_rcnn import TorchFasterRCNN, with_random_weights

    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = with_random_weights(TorchFasterRCNN(min_size=SIZE[0])).to(memory_format=layout)
    image = torch.from_numpy(random_image(*SIZE))
    batch = torch.from_numpy(random_image(608, 800)[None]).contiguous(memory_format=layout)

    def maps() -> Any:
        with torch.no_grad():
            return model.backbone(batch)

    def whole() -> Any:
        with torch.no_grad():
            return model([image])[0]["scores"]

    return {MAPS: maps, WHOLE: whole}


ROWS = {MAPS: Row("torch", 1.0, 1.5), WHOLE: Row("torch", 1.0, 1.5, quick=True)}
ENGINES = {
    "minidet": minidet,
    "torch": partial(torch, channels_last=True),
    "torch NCHW": partial(torch, channels_last=False),
}


def peak_memory(engine: str) -> dict[str, float]:
    """In a process of its own: MiB before the first image, and at most while there are five of them."""
    detect = ENGINES[engine]()[WHOLE]
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak until now: making the network is another matter
    before = status("VmRSS")
    for _ in range(5):
        detect()
    return {"before": before / MIB, "peak": status("VmHWM") / MIB}


def main() -> None:
    print("| engine | before the first image, MiB | at the peak, MiB |\n|---|---|---|")
    for engine in ENGINES:
        command = [sys.executable, "-m", "benchmarks.detector_inference", engine]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(f"| {engine} | {found['before']:.0f} | {found['peak']:.0f} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(peak_memory(sys.argv[1])))
    else:
        main()
