"""Segmentation against OpenCV's and scikit-image's: python -m benchmarks.kernels_segmentation

Images of 300 x 400 pixels, float32 in [0, 1] for minidet, uint8 for OpenCV, float64 for scikit-image:

    scene        the upper part of a generated scene of 400 x 400: uneven background, objects, noise
    photograph   part of scikit-image's picture of an astronaut; only where scikit-image is installed
    noise        every number random: hardly an edge lies within a region

scale = k = min_size = 100 and sigma = 0.8, as Selective Search has them. The three do not do the same work: minidet and
scikit-image have eight neighbours and each edge once, OpenCV four neighbours and each edge twice, which is as many.

Every engine runs in a process of its own; the engines take turns. A ratio is another engine's median time of a round
divided by minidet's of the same round: the median of the rounds, and the least and largest in brackets. Above 1 means
that minidet is faster.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

PEERS = {"opencv": "cv2", "scikit-image": "skimage"}  # and the modules that they need
# The functions of cpu.py that `felzenszwalb` calls, and what they do.
STAGES = {
    "smoothed": "smoothing",
    "_weigh": "weights",
    "_quantiles": "which edges are light",
    "_find_regions": "the regions so far",
    "_edges_between": "edges between regions",
    "sorted_edges": "sorting",
    "_join": "joining",
    "_join_small": "joining small regions",
    "_number": "numbering",
}
ROUNDS = 3  # of every engine
CALLS = 15  # in a round, after one to warm up
SCALE, SIGMA = 100, 0.8

Functions = dict[str, Callable[[], object]]


def images() -> dict[str, np.ndarray]:
    """(300, 400, 3), uint8."""
    from minidet.data.miniscene import make_scene

    rng = np.random.default_rng(0)
    result = {"scene": make_scene(rng, size=400, sides=(30, 120)).image[:300]}
    try:
        from skimage import data
    except ImportError:
        pass
    else:
        result["photograph"] = data.astronaut()[100:400, 60:460]
    result["noise"] = rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    return {name: np.ascontiguousarray(image) for name, image in result.items()}


def channels_first() -> dict[str, np.ndarray]:
    """(3, 300, 400), float32."""
    return {
        name: np.ascontiguousarray(image.transpose(2, 0, 1), np.float32) / np.float32(255)
        for name, image in images().items()
    }


def minidet_functions() -> Functions:
    import minidet_kernels as mk

    functions: Functions = {}
    for name, image in channels_first().items():
        functions[f"felzenszwalb, {name}"] = lambda image=image: mk.felzenszwalb(image, SCALE, SIGMA, SCALE)
    image = channels_first()["noise"]
    labels = mk.felzenszwalb(image, SCALE, SIGMA, SCALE)
    of_regions = f"noise, {labels.max() + 1} regions"
    functions[f"region_adjacency, {of_regions}"] = lambda: mk.region_adjacency(labels)
    functions[f"region_boxes, {of_regions}"] = lambda: mk.region_boxes(labels)
    functions[f"color_histograms, {of_regions}"] = lambda: mk.color_histograms(image, labels)
    functions[f"texture_histograms, {of_regions}"] = lambda: mk.texture_histograms(image, labels)
    return functions


def opencv_functions() -> Functions:
    import cv2

    segmentation = cv2.ximgproc.segmentation.createGraphSegmentation(SIGMA, SCALE, SCALE)
    return {f"felzenszwalb, {n}": lambda image=i: segmentation.processImage(image) for n, i in images().items()}


def scikit_image_functions() -> Functions:
    from skimage.segmentation import felzenszwalb

    return {
        f"felzenszwalb, {name}": lambda image=image / 255: felzenszwalb(image, SCALE, SIGMA, SCALE)
        for name, image in images().items()
    }


def measure(function: Callable[[], object]) -> float:
    """The median in milliseconds; a few calls are enough where one takes long."""
    function()
    times: list[float] = []
    while len(times) < 3 or (len(times) < CALLS and sum(times) < 500):
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def stages() -> dict[str, dict[str, float]]:
    """{image: {stage: milliseconds in one call of felzenszwalb}}; the stages are timed where they are called."""
    import minidet_kernels as mk
    from minidet_kernels.segmentation import cpu

    spent = dict.fromkeys(STAGES, 0.0)

    def timed(name: str, function: Callable) -> Callable:
        def call(*arguments):
            start = time.perf_counter()
            result = function(*arguments)
            spent[name] += 1e3 * (time.perf_counter() - start)
            return result

        return call

    for name in STAGES:
        setattr(cpu, name, timed(name, getattr(cpu, name)))
    table = {}
    for image_name, image in channels_first().items():
        runs = []
        for _ in range(1 + CALLS):
            spent.update(dict.fromkeys(STAGES, 0.0))
            mk.felzenszwalb(image, SCALE, SIGMA, SCALE)
            runs.append(dict(spent))
        table[image_name] = {name: statistics.median(run[name] for run in runs[1:]) for name in STAGES}
    return table


def run_engine(engine: str) -> dict:
    if engine == "stages":
        return stages()
    functions = {"minidet": minidet_functions, "opencv": opencv_functions, "scikit-image": scikit_image_functions}
    return {name: measure(function) for name, function in functions[engine]().items()}


def run_in_a_process(engine: str) -> dict | None:
    """None, and the reason printed, where the engine is not installed."""
    command = [sys.executable, "-m", "benchmarks.kernels_segmentation", engine]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout)
    reason = done.stderr.strip().rpartition("\n")[2]
    if f"No module named '{PEERS.get(engine)}'" in reason or "has no attribute 'ximgproc'" in reason:
        print(f"without {engine}: {reason}")
        return None
    raise RuntimeError(f"{engine} failed:\n{done.stderr}")


def ratio_with_spread(ours: list[float], theirs: list[float]) -> str:
    if not theirs:
        return "-"
    ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.3g} ({min(ratios):.3g} to {max(ratios):.3g})"


def main() -> None:
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > 0.5:
        print(f"The machine is busy (load average {os.getloadavg()[0]:.1f}): expect wrong ratios.")
    rounds: dict[str, list[dict[str, float]]] = {engine: [] for engine in ("minidet", *PEERS)}
    left_out: set[str] = set()
    for _ in range(ROUNDS):
        for engine in rounds:
            if engine in left_out:
                continue
            result = run_in_a_process(engine)
            if result is None:
                left_out.add(engine)
            else:
                rounds[engine].append(result)
    print("| function | minidet ms | opencv / minidet | scikit-image / minidet |")
    print("|---|---|---|---|")
    for name in rounds["minidet"][0]:
        times = {engine: [r[name] for r in results if name in r] for engine, results in rounds.items()}
        ratios = [ratio_with_spread(times["minidet"], times[engine]) for engine in PEERS]
        print(f"| {name} | {statistics.median(times['minidet']):.3g} | {' | '.join(ratios)} |")
    table = run_in_a_process("stages")
    print(f"\n| stage, ms | {' | '.join(table)} |\n|---|{'---|' * len(table)}")
    for name in STAGES:
        print(f"| {STAGES[name]} | {' | '.join(f'{of_image[name]:.2f}' for of_image in table.values())} |")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(run_engine(sys.argv[1])))
    else:
        main()
