"""Connected components on the GPU: launches the kernels of components.cu, and has CuPy count the first pixels."""

from __future__ import annotations

from pathlib import Path

import cupy
import numpy as np

from minidet_kernels.cuda_source import CudaSource

# 256 threads, as cuda_source.THREADS; 32 columns, so that a warp reads a stretch of one row.
TILE_ROWS, TILE_COLUMNS = 8, 32

SOURCE = CudaSource(Path(__file__).with_name("components.cu"), TILE_ROWS=TILE_ROWS, TILE_COLUMNS=TILE_COLUMNS)
DTYPE = np.dtype(np.float32)  # of the file's `Real`, which these kernels do not use


def connected_components(masks: cupy.ndarray, connectivity: int) -> tuple[cupy.ndarray, cupy.ndarray]:
    n, h, w = masks.shape
    if masks.size == 0:
        return cupy.zeros(masks.shape, np.int32), cupy.zeros(n, np.int64)
    masks, parent = cupy.ascontiguousarray(masks), cupy.empty(masks.shape, np.int32)
    neighbours = connectivity // 2  # that come before a pixel; the others look back at it
    tiles = n * -(-h // TILE_ROWS) * -(-w // TILE_COLUMNS)
    SOURCE.launch("label_tiles", DTYPE, (tiles,), (TILE_COLUMNS, TILE_ROWS), masks, parent, neighbours, h, w)
    SOURCE.launch_for_each("join_tiles", DTYPE, masks.size, masks, parent, neighbours, h, w)
    roots, is_root = cupy.empty(masks.size, np.int32), cupy.empty(masks.size, np.int32)
    SOURCE.launch_for_each("find_roots", DTYPE, masks.size, parent, roots, is_root)
    numbers = cupy.cumsum(is_root, dtype=np.int32)  # through all images: one fast scan
    labels = cupy.empty(masks.shape, np.int32)
    SOURCE.launch_for_each("number", DTYPE, masks.size, roots, numbers, labels, h * w)
    ends = numbers[h * w - 1 :: h * w].astype(np.int64)  # after each image
    counts = ends.copy()
    counts[1:] -= ends[:-1]
    return labels, counts
