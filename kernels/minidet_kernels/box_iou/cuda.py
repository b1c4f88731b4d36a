"""Overlaps on the GPU: launches the kernels of box_iou.cu."""

from __future__ import annotations

from pathlib import Path

import cupy
import numpy as np

from minidet_kernels.cuda_source import CudaSource

SOURCE = CudaSource(Path(__file__).with_name("box_iou.cu"))


def box_iou(boxes1: cupy.ndarray, boxes2: cupy.ndarray) -> cupy.ndarray:
    return _all_pairs("box_iou", boxes1, boxes2)


def generalized_box_iou(boxes1: cupy.ndarray, boxes2: cupy.ndarray) -> cupy.ndarray:
    return _all_pairs("generalized_box_iou", boxes1, boxes2)


def _all_pairs(kernel: str, boxes1: cupy.ndarray, boxes2: cupy.ndarray) -> cupy.ndarray:
    boxes1, boxes2 = cupy.ascontiguousarray(boxes1), cupy.ascontiguousarray(boxes2)
    result = cupy.empty((len(boxes1), len(boxes2)), boxes1.dtype)
    smallest = np.finfo(boxes1.dtype).tiny  # a NumPy number of the boxes' own dtype
    SOURCE.launch_for_each(kernel, boxes1.dtype, result.size, boxes1, boxes2, smallest, result, len(boxes2))
    return result
