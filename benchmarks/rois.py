"""RoIAlign and RoIPool: 512 boxes on a map of 256 channels, 7 x 7 bins, float32; forward, and forward with backward.

torchvision itself is not needed, and is not what is measured. There are two stand-ins for it:

C++    torchvision's published CPU algorithm, written anew below and compiled with `g++ -O3`, like its wheels for any
       x86-64. What was kept, because it decides the speed: (N, C, H, W) memory; forward, the pixels and weights of a
       box's samples are computed once, for all its channels; backward, they are computed again for every number of the
       gradient; RoIPool compares one channel after the other; and one thread does everything. Python, the dispatcher
       and the graph of torch are left out, in its favour.
torch  the formula in torch's own operations, on all cores. RoIAlign: the four neighbours of all samples by one index
       each. RoIPool: one adaptive_max_pool2d a box, which has the same bins for boxes inside the map. Channels-last
       memory, which both like better. (Adaptive sampling would need masks, as boxes have different numbers of samples.)
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.engines import Missing, Row, to_gpu

BOXES, CHANNELS, BINS, SCALE = 512, 256, 7, 1 / 16
MAP = 50  # pixels of a side: an image of 800 x 800 behind VGG16

# (name, operation, sampling_ratio)
WORK = [("RoIAlign, 2 x 2 samples", "align", 2), ("RoIAlign, adaptive", "align", -1), ("RoIPool", "pool", 0)]

Pair = tuple[Callable, Callable]  # forward() and forward_backward(), which return the result and the gradient of x
Functions = dict[str, Callable]


def by_row(pairs: dict[str, Pair]) -> Functions:
    """The functions by the names of the table's rows."""
    named = {name: forward for name, (forward, _) in pairs.items()}
    return named | {f"{name}, + backward": both for name, (_, both) in pairs.items()}


PEER = r"""
#include <algorithm>
#include <cmath>
#include <vector>

struct Map { int channels, height, width; };

// A box in pixels of the map, and how its bins are sampled.
struct Grid { float top, left, bin_height, bin_width; int rows, columns; };

static Grid grid_of(const float* box, float scale, int bins, int sampling_ratio) {
    Grid g;
    g.left = box[1] * scale;
    g.top = box[2] * scale;
    float width = std::max(box[3] * scale - g.left, 1.f), height = std::max(box[4] * scale - g.top, 1.f);
    g.bin_height = height / bins;
    g.bin_width = width / bins;
    g.rows = sampling_ratio > 0 ? sampling_ratio : (int)std::ceil(g.bin_height);
    g.columns = sampling_ratio > 0 ? sampling_ratio : (int)std::ceil(g.bin_width);
    return g;
}

struct Sample { int at[4]; float weight[4]; };

static bool sample_at(float y, float x, const Map& map, Sample& sample) {
    if (y < -1 || y > map.height || x < -1 || x > map.width) {
        sample = Sample{};
        return false;
    }
    y = std::max(y, 0.f);
    x = std::max(x, 0.f);
    int top = (int)y, left = (int)x, bottom = top + 1, right = left + 1;
    if (top >= map.height - 1) { top = bottom = map.height - 1; y = top; }
    if (left >= map.width - 1) { left = right = map.width - 1; x = left; }
    float down = y - top, over = x - left, up = 1 - down, back = 1 - over;
    sample = {{top * map.width + left, top * map.width + right, bottom * map.width + left, bottom * map.width + right},
              {up * back, up * over, down * back, down * over}};
    return true;
}

static float position(float start, float bin_size, int bin, int sample, int samples) {
    return start + bin * bin_size + (sample + .5f) * bin_size / samples;
}

extern "C" void align(const float* x, const float* boxes, float* y, int count, Map map, int bins, float scale,
                      int sampling_ratio) {
    for (int r = 0; r < count; r++) {
        Grid g = grid_of(boxes + 5 * r, scale, bins, sampling_ratio);
        int a_bin = g.rows * g.columns;
        std::vector<Sample> samples(bins * bins * a_bin);
        Sample* next = samples.data();
        for (int i = 0; i < bins; i++)
            for (int j = 0; j < bins; j++)
                for (int s = 0; s < g.rows; s++)
                    for (int t = 0; t < g.columns; t++)
                        sample_at(position(g.top, g.bin_height, i, s, g.rows),
                                  position(g.left, g.bin_width, j, t, g.columns), map, *next++);
        const float* image = x + (long)boxes[5 * r] * map.channels * map.height * map.width;
        for (int c = 0; c < map.channels; c++) {
            const float* plane = image + (long)c * map.height * map.width;
            float* result = y + ((long)r * map.channels + c) * bins * bins;
            const Sample* sample = samples.data();
            for (int bin = 0; bin < bins * bins; bin++) {
                float sum = 0;
                for (int s = 0; s < a_bin; s++, sample++)
                    sum += sample->weight[0] * plane[sample->at[0]] + sample->weight[1] * plane[sample->at[1]] +
                           sample->weight[2] * plane[sample->at[2]] + sample->weight[3] * plane[sample->at[3]];
                result[bin] = sum / std::max(a_bin, 1);
            }
        }
    }
}

extern "C" void align_backward(const float* grad, const float* boxes, float* x_grad, int count, Map map, int bins,
                               float scale, int sampling_ratio) {
    int numbers = count * map.channels * bins * bins;
    for (int number = 0; number < numbers; number++) {
        int j = number % bins, i = number / bins % bins, c = number / bins / bins % map.channels;
        int r = number / bins / bins / map.channels;
        Grid g = grid_of(boxes + 5 * r, scale, bins, sampling_ratio);
        float* plane = x_grad + ((long)boxes[5 * r] * map.channels + c) * map.height * map.width;
        float samples = g.rows * g.columns;
        for (int s = 0; s < g.rows; s++) {
            float y = position(g.top, g.bin_height, i, s, g.rows);
            for (int t = 0; t < g.columns; t++) {
                Sample sample;
                if (sample_at(y, position(g.left, g.bin_width, j, t, g.columns), map, sample))
                    for (int k = 0; k < 4; k++)
                        plane[sample.at[k]] += grad[number] * sample.weight[k] / samples;
            }
        }
    }
}

static void pool_range(int bin, float bin_size, int start, int size, int& first, int& last) {
    first = std::min(std::max((int)std::floor(bin * bin_size) + start, 0), size);
    last = std::min(std::max((int)std::ceil((bin + 1) * bin_size) + start, 0), size);
}

extern "C" void pool(const float* x, const float* boxes, float* y, int* argmax, int count, Map map, int bins,
                     float scale) {
    for (int r = 0; r < count; r++) {
        const float* box = boxes + 5 * r;
        int left = std::round(box[1] * scale), top = std::round(box[2] * scale);
        int right = std::round(box[3] * scale), bottom = std::round(box[4] * scale);
        float bin_width = (float)std::max(right - left + 1, 1) / bins;
        float bin_height = (float)std::max(bottom - top + 1, 1) / bins;
        const float* image = x + (long)box[0] * map.channels * map.height * map.width;
        for (int i = 0; i < bins; i++)
            for (int j = 0; j < bins; j++) {
                int row, rows_end, column, columns_end;
                pool_range(i, bin_height, top, map.height, row, rows_end);
                pool_range(j, bin_width, left, map.width, column, columns_end);
                bool empty = rows_end <= row || columns_end <= column;
                for (int c = 0; c < map.channels; c++) {
                    const float* plane = image + (long)c * map.height * map.width;
                    float best = empty ? 0 : -3.4028235e38f;
                    int at = -1;
                    for (int h = row; h < rows_end; h++)
                        for (int w = column; w < columns_end; w++)
                            if (plane[h * map.width + w] > best) {
                                best = plane[h * map.width + w];
                                at = h * map.width + w;
                            }
                    long result = (((long)r * map.channels + c) * bins + i) * bins + j;
                    y[result] = best;
                    argmax[result] = at;
                }
            }
    }
}

extern "C" void pool_backward(const float* grad, const int* argmax, const float* boxes, float* x_grad, int count,
                              Map map, int bins) {
    for (int r = 0; r < count; r++)
        for (int c = 0; c < map.channels; c++) {
            float* plane = x_grad + ((long)boxes[5 * r] * map.channels + c) * map.height * map.width;
            long first = ((long)r * map.channels + c) * bins * bins;
            for (int bin = 0; bin < bins * bins; bin++)
                if (argmax[first + bin] != -1) plane[argmax[first + bin]] += grad[first + bin];
        }
}
"""


class _Map(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in ("channels", "height", "width")]


def problem() -> tuple[np.ndarray, np.ndarray]:
    """A map (1, C, H, W), and boxes (R, 5) as proposals are: of 32 to 400 pixels a side, clipped to the image."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, CHANNELS, MAP, MAP), dtype=np.float32)
    last = (MAP - 1) / SCALE
    centre, size = rng.uniform(0, last, (BOXES, 2)), rng.uniform(32, 400, (BOXES, 2))
    corners = np.concatenate([centre - size / 2, centre + size / 2], axis=1).clip(0, last)
    return x, np.concatenate([np.zeros((BOXES, 1)), corners], axis=1).astype(np.float32)


def channels_last(x: np.ndarray) -> np.ndarray:
    """A map; boxes stay as they are."""
    if x.ndim == 2:
        return x
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def minidet_functions(to_device: Callable = channels_last) -> Functions:
    """On the CPU the map is channels-last, as minidet's convolutions return it."""
    import minidet_kernels as mk

    x, boxes = map(to_device, problem())

    def align(samples: int) -> Pair:
        def forward() -> np.ndarray:
            return mk.roi_align(x, boxes, BINS, SCALE, samples)

        return forward, lambda: mk.roi_align_adjoint(forward(), boxes, x.shape, SCALE, samples)

    def pool() -> np.ndarray:
        return mk.roi_pool(x, boxes, BINS, SCALE)[0]

    def pool_backward() -> np.ndarray:
        values, argmax = mk.roi_pool(x, boxes, BINS, SCALE)
        return mk.roi_pool_scatter(values, boxes, argmax, x.shape)

    return by_row(
        {n: align(samples) if operation == "align" else (pool, pool_backward) for n, operation, samples in WORK}
    )


def cpp_functions() -> Functions:
    if shutil.which("g++") is None:
        raise Missing("g++")
    x, boxes = problem()
    shape, scale = _Map(CHANNELS, MAP, MAP), ctypes.c_float(SCALE)
    result_shape = (BOXES, CHANNELS, BINS, BINS)
    with tempfile.TemporaryDirectory() as folder:
        library = str(Path(folder) / "peer.so")
        command = ["g++", "-O3", "-shared", "-fPIC", "-x", "c++", "-", "-o", library]
        subprocess.run(command, input=PEER, text=True, check=True)
        peer = ctypes.CDLL(library)

    def data(array: np.ndarray) -> ctypes.c_void_p:
        return array.ctypes.data_as(ctypes.c_void_p)

    def align(samples: int) -> Pair:
        def forward() -> np.ndarray:
            y = np.empty(result_shape, np.float32)
            peer.align(data(x), data(boxes), data(y), BOXES, shape, BINS, scale, samples)
            return y

        def backward() -> np.ndarray:
            y, x_grad = forward(), np.zeros_like(x)
            peer.align_backward(data(y), data(boxes), data(x_grad), BOXES, shape, BINS, scale, samples)
            return x_grad

        return forward, backward

    def pool_with_argmax() -> tuple[np.ndarray, np.ndarray]:
        y, argmax = np.empty(result_shape, np.float32), np.empty(result_shape, np.int32)
        peer.pool(data(x), data(boxes), data(y), data(argmax), BOXES, shape, BINS, scale)
        return y, argmax

    def pool_backward() -> np.ndarray:
        (y, argmax), x_grad = pool_with_argmax(), np.zeros_like(x)
        peer.pool_backward(data(y), data(argmax), data(boxes), data(x_grad), BOXES, shape, BINS)
        return x_grad

    pool = (lambda: pool_with_argmax()[0], pool_backward)
    return by_row({n: align(samples) if operation == "align" else pool for n, operation, samples in WORK})


def torch_functions(device: str = "cpu") -> Functions:
    import torch

    array, boxes = problem()
    x, rois = (torch.from_numpy(a).to(device) for a in (channels_last(array), boxes))

    def along(low: torch.Tensor, high: torch.Tensor, samples: int) -> list[torch.Tensor]:
        """The two neighbours (R, P*S) of all samples along one axis, and the weight of the second."""
        size = (high - low).clamp(min=1)
        steps = (torch.arange(BINS * samples, device=device) + 0.5) / (BINS * samples)
        place = (low[:, None] + size[:, None] * steps).clamp(0, MAP - 1)  # these boxes have none outside [-1, MAP]
        first = place.long()
        return [first, (first + 1).clamp(max=MAP - 1), place - first]

    def align(x: torch.Tensor, samples: int) -> torch.Tensor:
        x1, y1, x2, y2 = (rois[:, 1:] * SCALE).T
        top, bottom, down = (v[:, :, None] for v in along(y1, y2, samples))
        left, right, over = (v[:, None, :] for v in along(x1, x2, samples))
        image, down, over = rois[:, 0].long()[:, None, None], down[..., None], over[..., None]
        pixels = x.permute(0, 2, 3, 1)
        upper = pixels[image, top, left] * (1 - over) + pixels[image, top, right] * over
        lower = pixels[image, bottom, left] * (1 - over) + pixels[image, bottom, right] * over
        between = upper * (1 - down) + lower * down  # (R, P*S, P*S, C)
        return between.reshape(BOXES, BINS, samples, BINS, samples, -1).mean((2, 4)).permute(0, 3, 1, 2)

    corners = torch.sign(rois[:, 1:]) * torch.floor((rois[:, 1:] * SCALE).abs() + 0.5)

    def pool(x: torch.Tensor, _: int) -> torch.Tensor:
        return torch.cat(
            [
                torch.nn.functional.adaptive_max_pool2d(x[image, None, :, y1 : y2 + 1, x1 : x2 + 1], BINS)
                for image, (x1, y1, x2, y2) in zip(rois[:, 0].int().tolist(), corners.int().tolist(), strict=True)
            ]
        )

    def both(function: Callable, samples: int) -> Pair:
        def forward() -> torch.Tensor:
            with torch.no_grad():
                return function(x, samples)

        def backward() -> torch.Tensor:
            leaf = x.detach().requires_grad_()
            y = function(leaf, samples)
            y.backward(y.detach())
            return leaf.grad

        return forward, backward

    operations = {"align": align, "pool": pool}
    return by_row({n: both(operations[operation], samples) for n, operation, samples in WORK if samples >= 0})


RESULT = 4.0 * BOXES * CHANNELS * BINS**2  # bytes

ROWS = {
    "RoIAlign, 2 x 2 samples": Row("C++", 18, 25, moved=RESULT, quick=True),
    "RoIAlign, 2 x 2 samples, + backward": Row("C++", 35, 50, moved=2 * RESULT, quick=True),
    "RoIAlign, adaptive": Row("C++", moved=RESULT),
    "RoIAlign, adaptive, + backward": Row("C++", moved=2 * RESULT),
    "RoIPool": Row("C++", 15, 25, moved=2 * RESULT, quick=True),  # values, and where they were found
    "RoIPool, + backward": Row("C++", 6, 10, moved=4 * RESULT, quick=True),
}
ENGINES = {"minidet": minidet_functions, "C++": cpp_functions, "torch": torch_functions}
ON_GPU = {"minidet": lambda: minidet_functions(to_gpu), "torch": lambda: torch_functions("cuda")}
