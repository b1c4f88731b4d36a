"""Segmentation and Selective Search against OpenCV's, segmentation against scikit-image's too.

Images of 300 x 400 pixels, float32 in [0, 1] for minidet, uint8 for OpenCV, float64 for scikit-image:

    scene        the upper part of a generated scene of 400 x 400: uneven background, objects, noise
    photograph   part of scikit-image's picture of an astronaut; only where scikit-image is installed
    noise        every number random: hardly an edge lies within a region

scale = k = min_size = 100 and sigma = 0.8, as Selective Search has them. The three do not do the same work: minidet and
scikit-image have eight neighbours and each edge once, OpenCV four neighbours and each edge twice, which is as many.

Selective Search in the paper's modes, OpenCV's with base_k = inc_k = 50: fast has the same 2 x 2 segmentations and 8
hierarchies; quality as many, 20 and 80, with k up to 200 where the paper has 300. Theirs uses as many threads as ours.

    python -m benchmarks.segmentation         the stages of minidet's, in milliseconds
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from benchmarks.engines import Missing, Row

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
CALLS = 15  # of which the stages' medians are taken
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


def searched() -> dict[str, np.ndarray]:
    """Those for Selective Search, of which one call takes seconds: all but the noise."""
    return {name: image for name, image in images().items() if name != "noise"}


def channels_first() -> dict[str, np.ndarray]:
    """(3, 300, 400), float32."""
    return {
        name: np.ascontiguousarray(image.transpose(2, 0, 1), np.float32) / np.float32(255)
        for name, image in images().items()
    }


def minidet_functions() -> Functions:
    import minidet_kernels as mk
    from minidet.proposals import selective_search

    functions: Functions = {}
    for name, image in searched().items():
        for mode in ("fast", "quality"):
            functions[f"Selective Search {mode}, {name}"] = lambda image=image, mode=mode: selective_search(image, mode)
    for name, image in channels_first().items():
        functions[f"felzenszwalb, {name}"] = lambda image=image: mk.felzenszwalb(image, SCALE, SIGMA, SCALE)
    image = channels_first()["noise"]
    labels = mk.felzenszwalb(image, SCALE, SIGMA, SCALE)
    functions["region_adjacency, noise"] = lambda: mk.region_adjacency(labels)
    functions["region_boxes, noise"] = lambda: mk.region_boxes(labels)
    functions["color_histograms, noise"] = lambda: mk.color_histograms(image, labels)
    functions["texture_histograms, noise"] = lambda: mk.texture_histograms(image, labels)
    features = *mk.region_boxes(labels), mk.region_adjacency(labels)
    histograms = mk.color_histograms(image, labels), mk.texture_histograms(image, labels)
    functions["group_regions, noise"] = lambda: mk.group_regions(*features, *histograms, np.ones((1, 4), bool))
    return functions


def opencv_functions() -> Functions:
    import cv2

    if not hasattr(cv2, "ximgproc"):
        raise Missing("opencv-contrib-python")
    segmentation = cv2.ximgproc.segmentation.createGraphSegmentation(SIGMA, SCALE, SCALE)

    def search(image: np.ndarray, mode: str) -> None:
        search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
        search.setBaseImage(image)
        getattr(search, f"switchToSelectiveSearch{mode.capitalize()}")(50, 50, SIGMA)
        search.process()

    functions: Functions = {}
    for name, image in images().items():
        functions[f"felzenszwalb, {name}"] = lambda image=image: segmentation.processImage(image)
    for name, image in searched().items():
        blue_first = np.ascontiguousarray(image[..., ::-1])
        for mode in ("fast", "quality"):
            functions[f"Selective Search {mode}, {name}"] = lambda i=blue_first, mode=mode: search(i, mode)
    return functions


def scikit_image_functions() -> Functions:
    from skimage.segmentation import felzenszwalb

    return {
        f"felzenszwalb, {name}": lambda image=image / 255: felzenszwalb(image, SCALE, SIGMA, SCALE)
        for name, image in images().items()
    }


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


def main() -> None:
    table = stages()
    print(f"| stage, ms | {' | '.join(table)} |\n|---|{'---|' * len(table)}")
    for name in STAGES:
        print(f"| {STAGES[name]} | {' | '.join(f'{of_image[name]:.2f}' for of_image in table.values())} |")


ROWS = {
    "felzenszwalb, scene": Row("OpenCV", 1.1, 1.8, agree=False, quick=True),
    "felzenszwalb, photograph": Row("OpenCV", 1.1, 1.8, agree=False),
    "felzenszwalb, noise": Row("OpenCV", 1.1, 1.8, agree=False),
    "region_adjacency, noise": Row("-"),
    "region_boxes, noise": Row("-"),
    "color_histograms, noise": Row("-"),
    "texture_histograms, noise": Row("-"),
    "group_regions, noise": Row("-"),
    "Selective Search fast, scene": Row("OpenCV", 1.3, 2, agree=False, quick=True),
    "Selective Search fast, photograph": Row("OpenCV", 1.3, 2, agree=False),
    "Selective Search quality, scene": Row("OpenCV", 1.3, 2, agree=False),
    "Selective Search quality, photograph": Row("OpenCV", 1.3, 2, agree=False),
}
ENGINES = {"minidet": minidet_functions, "OpenCV": opencv_functions, "scikit-image": scikit_image_functions}

if __name__ == "__main__":
    main()
