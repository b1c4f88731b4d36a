"""Compiling ahead of time what would otherwise be compiled at its first use.

Numba compiles in one thread, so the parts are given to several processes; each leaves its code in the cache, from where
all later processes load it. Compiled code depends on the processor and on the kernels' source, not on shapes: one small
call compiles an operation for all sizes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import numpy as np

import minidet_kernels as mk


def _images(channels: int, size: int = 24) -> np.ndarray:
    return np.zeros((2, channels, size, size), np.float32)


def _direct_convolution() -> None:
    x, weight = _images(3), np.zeros((16, 3, 3, 3), np.float32)
    mk.conv2d_input_grad(mk.conv2d(x, weight), weight, x.shape[2:])


def _direct_weight_gradient() -> None:
    mk.conv2d_weight_grad(_images(3), _images(16), 3, padding=1)


def _winograd() -> None:
    mk.conv2d(_images(16), np.zeros((16, 16, 3, 3), np.float32), padding=1)


def _winograd_weight_gradient() -> None:
    mk.conv2d_weight_grad(_images(16), _images(16), 3, padding=1)


def _winograd_of_many_channels() -> None:
    mk.conv2d(_images(64), np.zeros((64, 64, 3, 3), np.float32), padding=1)


def _winograd_weight_gradient_of_many_channels() -> None:
    mk.conv2d_weight_grad(_images(64), _images(64), 3, padding=1)


def _batch_norm() -> None:
    x, channel = _images(16), np.ones(16, np.float32)
    mk.batch_norm(x, channel, channel)
    mk.batch_norm_backward(x, x, channel, channel, channel)


def _relu() -> None:
    mk.relu_backward(_images(16), mk.relu(_images(16)))


def _pooling() -> None:
    x = _images(16)
    values, indices = mk.max_pool2d(x, 2)
    mk.max_pool2d_scatter(values, indices, x.shape[2:])
    mk.max_pool2d_gather(x, indices)
    mk.avg_pool2d_adjoint(mk.avg_pool2d(x, 2), x.shape[2:], 2)


def _linear() -> None:
    weight = np.zeros((512, 512), np.float32)  # so large that it does not go to BLAS
    for rows in (1, 32):  # loops, and tiles
        x = np.zeros((rows, 512), np.float32)
        mk.linear_input_grad(mk.linear(x, weight), weight)
        mk.linear_weight_grad(x, x)


def _resize() -> None:
    x = _images(16)
    mk.resize_bilinear_adjoint(mk.resize_bilinear(x, 12), x.shape[2:])
    mk.resize_nearest_adjoint(mk.resize_nearest(x, 12), x.shape[2:])


def _warp() -> None:
    x, identity = _images(1), np.repeat(np.eye(2, 3, dtype=np.float32)[None], 2, axis=0)
    mk.affine_warp_adjoint(mk.affine_warp(x, identity, 12), identity, x.shape[2:])
    mk.gram_product(x, mk.affine_warp_gram(identity, x.shape[2:], 12).astype(np.float32))


def _total_variation() -> None:
    x = _images(1)
    p = mk.image_gradient(x)
    mk.image_gradient_adjoint(mk.project_anisotropic(p, 1) + mk.project_isotropic(p, 1))
    mk.tv_anisotropic(x + mk.tv_anisotropic_subgradient(x))
    mk.tv_isotropic(x + mk.tv_isotropic_subgradient(x))


def _rois() -> tuple[np.ndarray, np.ndarray]:
    return _images(64), np.array([[0, 2, 2, 20, 20]], np.float32)


def _roi_pool() -> None:
    x, boxes = _rois()
    values, argmax = mk.roi_pool(x, boxes, 2)
    mk.roi_pool_scatter(values, boxes, 0 * argmax, (2, 64, 1, 1))  # so small that threads have partial results
    mk.roi_pool_gather(x, boxes, argmax)
    mk.roi_pool(x[:, :16], boxes, 2)  # few channels have a path of their own


def _roi_align() -> None:
    x, boxes = _rois()
    mk.roi_align_adjoint(mk.roi_align(x, boxes, 2), boxes, x.shape)
    mk.roi_align(x[:, :16], boxes, 2)


def _boxes_and_scores() -> tuple[np.ndarray, np.ndarray]:
    return np.array([[0, 0, 2, 2], [1, 1, 3, 3]], np.float32), np.array([0.5, 0.25], np.float32)


def _box_iou() -> None:
    boxes, _ = _boxes_and_scores()
    mk.box_iou(boxes, boxes)
    mk.generalized_box_iou(boxes, boxes)


def _nms() -> None:
    boxes, scores = _boxes_and_scores()
    mk.nms(boxes, scores, 0.5)
    mk.batched_nms(boxes, scores, np.zeros(2, np.int64), 0.5)


def _soft_nms() -> None:
    boxes, scores = _boxes_and_scores()
    mk.soft_nms_linear(boxes, scores)
    mk.soft_nms_gaussian(boxes, scores)


def _region_warp() -> None:
    boxes, _ = _boxes_and_scores()
    mk.region_warp(_images(3)[0], boxes, 8, 1)


def _linear_svm() -> None:
    mk.linear_svm(np.eye(2, dtype=np.float32), np.array([True, False]))


def _components() -> None:
    mk.connected_components(np.ones((1, 4, 4), bool))


def _segmentation() -> None:
    mk.felzenszwalb(_images(3)[0], 100)


def _regions() -> None:
    image, labels = _images(3, 2)[0], np.array([[0, 1], [1, 1]])
    boxes, sizes = mk.region_boxes(labels)
    histograms = mk.color_histograms(image, labels), mk.texture_histograms(image, labels)
    mk.group_regions(boxes, sizes, mk.region_adjacency(labels), *histograms, np.ones((1, 4), bool))


def _detection_matching() -> None:
    one, is_small = np.ones(1, np.int64), np.zeros((1, 1), bool)
    mk.match_detections(np.ones(1, np.float32), one, one, is_small, is_small[0], (0.5,))
    mk.precision_at_recalls(np.ones((1, 1), np.int8), one, one[None], (0.5,))


# What a small network needs; the longest first, so that no process has to work alone at the end.
SMALL_NETWORK: dict[str, Callable[[], None]] = {
    "convolution, Winograd, many channels": _winograd_of_many_channels,
    "convolution's weight gradient, Winograd, many channels": _winograd_weight_gradient_of_many_channels,
    "convolution": _direct_convolution,
    "convolution, Winograd": _winograd,
    "convolution's weight gradient, Winograd": _winograd_weight_gradient,
    "convolution's weight gradient": _direct_weight_gradient,
    "batch norm": _batch_norm,
    "ReLU": _relu,
}
# What a small detector needs beside that.
SMALL_DETECTOR: dict[str, Callable[[], None]] = {
    **SMALL_NETWORK,
    "fully connected layers": _linear,
    "RoIAlign": _roi_align,
    "overlaps of boxes": _box_iou,
    "non-maximum suppression": _nms,
    "matching of detections": _detection_matching,
}
ALL: dict[str, Callable[[], None]] = {
    **SMALL_DETECTOR,
    "pooling": _pooling,
    "resizing": _resize,
    "warping": _warp,
    "total variation": _total_variation,
    "RoIPool": _roi_pool,
    "warped regions": _region_warp,
    "support vector machines": _linear_svm,
    "connected components": _components,
    "segmentation": _segmentation,
    "features of regions and their grouping": _regions,
    "non-maximum suppression, soft": _soft_nms,
}


def warm_up(parts: dict[str, Callable[[], None]] = ALL, processes: int = 2) -> Iterator[tuple[str, float]]:
    """Compiles the cpu version of the parts for float32 (gradient checks compile float64 when they need it).

    Gives (part, seconds it took) as each is ready; parts that were compiled before are only loaded. The calling script
    is imported by the processes: outside a module it must be guarded by `if __name__ == "__main__"`.
    """
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(_seconds, part): name for name, part in parts.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()


def _seconds(part: Callable[[], None]) -> float:
    start = time.perf_counter()
    with mk.use("cpu"):
        part()
    return time.perf_counter() - start
