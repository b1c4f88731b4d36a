"""Overlaps, suppression and components against other ways to compute them.

torchvision itself is not needed. Its algorithms, as it publishes them, are written here anew, in two ways:

    torch    in torch: the formula of box_iou; for suppression, one kept box at a time with all that are left
    loops    suppression as its C++ does it, two nested loops over the sorted boxes, compiled by Numba for one thread

and scipy.ndimage.label is what components are compared with.

Boxes: centres uniform in a square of 1000 pixels, sides log-uniform from 10 to 200, scores uniform; "around objects":
100 such boxes, each many times, shifted and scaled by about a tenth, as a detector's are.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.engines import Row, to_gpu

Functions = dict[str, Callable[[], object]]


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    centres, sides = rng.uniform(0, 1000, (count, 2)), np.exp(rng.uniform(np.log(10), np.log(200), (count, 2)))
    return np.concatenate([centres - sides / 2, centres + sides / 2], axis=1).astype(np.float32)


def around_objects(rng: np.random.Generator, count: int) -> np.ndarray:
    objects = random_boxes(rng, 100)[rng.integers(0, 100, count)]
    sides = np.tile(objects[:, 2:] - objects[:, :2], 2)
    boxes = objects + sides * rng.normal(0, 0.1, (count, 4))
    return np.concatenate([boxes[:, :2], np.maximum(boxes[:, :2] + 1, boxes[:, 2:])], axis=1).astype(np.float32)


def pairs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    return {f"{a} x {b}": (random_boxes(rng, a), random_boxes(rng, b)) for a, b in ((1000, 1000), (10000, 1000))}


def sets() -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
    """boxes, scores, threshold."""
    rng, result = np.random.default_rng(1), {}
    for count in (1000, 10000, 50000):
        boxes, scores = random_boxes(rng, count), rng.random(count, dtype=np.float32)
        result |= {f"{count} boxes, threshold {t}": (boxes, scores, t) for t in (0.3, 0.5, 0.7)}
    boxes = around_objects(rng, 10000)
    result["10000 boxes around objects, threshold 0.5"] = boxes, rng.random(10000, dtype=np.float32), 0.5
    return result


def mask() -> np.ndarray:
    """Blobs of all sizes, as a thresholded heat map has them: 512 x 512, half of it in the mask."""
    rng = np.random.default_rng(2)
    noise = sum(np.kron(rng.standard_normal((512 // size,) * 2), np.ones((size, size))) for size in (4, 8, 16, 32))
    return noise > 0


def minidet_functions(to_device: Callable = np.asarray) -> Functions:
    import minidet_kernels as mk

    functions: Functions = {}
    for name, two in pairs().items():
        two = tuple(map(to_device, two))
        functions[f"box_iou, {name}"] = lambda two=two: mk.box_iou(*two)
        functions[f"generalized_box_iou, {name}"] = lambda two=two: mk.generalized_box_iou(*two)
    for name, (boxes, scores, threshold) in sets().items():
        call = to_device(boxes), to_device(scores), threshold
        functions[f"nms, {name}"] = lambda call=call: mk.nms(*call)
    boxes, scores = map(to_device, sets()["10000 boxes, threshold 0.5"][:2])
    idxs = to_device(np.random.default_rng(3).integers(0, 80, len(boxes)))
    functions["batched_nms, 10000 boxes, 80 classes"] = lambda: mk.batched_nms(boxes, scores, idxs, 0.5)
    functions["soft_nms_linear, 1000 boxes"] = lambda: mk.soft_nms_linear(boxes[:1000], scores[:1000])
    image = to_device(mask()[None])
    functions["connected_components, 512 x 512"] = lambda: mk.connected_components(image)
    return functions


def torch_functions(device: str = "cpu") -> Functions:
    import torch

    def area(x):
        return (x[..., 2] - x[..., 0]) * (x[..., 3] - x[..., 1])

    def intersection_and_union(a, b):
        sides = (torch.min(a[:, None, 2:], b[None, :, 2:]) - torch.max(a[:, None, :2], b[None, :, :2])).clamp(min=0)
        intersection = sides[..., 0] * sides[..., 1]
        return intersection, area(a)[:, None] + area(b)[None] - intersection

    def box_iou(a, b):
        intersection, union = intersection_and_union(a, b)
        return intersection / union

    def generalized_box_iou(a, b):
        intersection, union = intersection_and_union(a, b)
        sides = torch.max(a[:, None, 2:], b[None, :, 2:]) - torch.min(a[:, None, :2], b[None, :, :2])
        hull = sides[..., 0] * sides[..., 1]
        return intersection / union - (hull - union) / hull

    def nms(boxes, scores, threshold):
        order, keep = scores.argsort(descending=True, stable=True), []
        while len(order):
            keep.append(order[0])
            overlap = box_iou(boxes[order[:1]], boxes[order[1:]])[0]
            order = order[1:][overlap <= threshold]
        return torch.stack(keep)

    functions: Functions = {}
    for name, two in pairs().items():
        a, b = (torch.from_numpy(boxes).to(device) for boxes in two)
        functions[f"box_iou, {name}"] = lambda a=a, b=b: box_iou(a, b)
        functions[f"generalized_box_iou, {name}"] = lambda a=a, b=b: generalized_box_iou(a, b)
    for name, (boxes, scores, threshold) in sets().items():
        if len(boxes) == 1000:  # 10,000 would take a minute
            arguments = torch.from_numpy(boxes).to(device), torch.from_numpy(scores).to(device), threshold
            functions[f"nms, {name}"] = lambda arguments=arguments: nms(*arguments)
    return functions


def loops_functions() -> Functions:
    import numba

    @numba.njit(nogil=True, error_model="numpy")
    def suppress(x1, y1, x2, y2, areas, order, threshold, suppressed):
        keep = []
        zero = np.float32(0)
        for a in range(len(order)):
            i = order[a]
            if suppressed[i]:
                continue
            keep.append(i)
            for b in range(a + 1, len(order)):
                j = order[b]
                if suppressed[j]:
                    continue
                width = max(min(x2[i], x2[j]) - max(x1[i], x1[j]), zero)
                height = max(min(y2[i], y2[j]) - max(y1[i], y1[j]), zero)
                overlap = width * height
                suppressed[j] = overlap / (areas[i] + areas[j] - overlap) > threshold
        return keep

    def nms(boxes, scores, threshold):
        x1, y1, x2, y2 = np.ascontiguousarray(boxes.T)
        order = np.argsort(-scores, kind="stable")
        areas = (x2 - x1) * (y2 - y1)
        return suppress(x1, y1, x2, y2, areas, order, np.float32(threshold), np.zeros(len(boxes), bool))

    return {f"nms, {name}": lambda call=call: nms(*call) for name, call in sets().items()}


def scipy_functions() -> Functions:
    from scipy import ndimage

    image = mask()
    return {"connected_components, 512 x 512": lambda: ndimage.label(image, np.ones((3, 3)))}


def rows() -> dict[str, Row]:
    found = {}
    for (name, (a, b)), gate, stretch in zip(pairs().items(), (30, 40), (40, 120), strict=True):
        found[f"box_iou, {name}"] = Row("torch", gate, stretch, moved=4.0 * len(a) * len(b), quick=len(a) == 1000)
        found[f"generalized_box_iou, {name}"] = Row("torch", moved=4.0 * len(a) * len(b))
    for name, (boxes, _, threshold) in sets().items():
        gate, stretch = {1000: (10, 20), 10000: (50, 100), 50000: (100, 200)}[len(boxes)]
        demanded = threshold == 0.5 and "around" not in name  # there the gates were measured
        found[f"nms, {name}"] = Row(
            "loops", gate if demanded else None, stretch if demanded else None, quick=demanded and len(boxes) <= 10000
        )
    return found | {
        "batched_nms, 10000 boxes, 80 classes": Row("loops"),
        "soft_nms_linear, 1000 boxes": Row("loops"),
        "connected_components, 512 x 512": Row("scipy", quick=True),
    }


ROWS = rows()
ENGINES = {
    "minidet": minidet_functions,
    "torch": torch_functions,
    "loops": loops_functions,
    "scipy": scipy_functions,
}
ON_GPU = {"minidet": lambda: minidet_functions(to_gpu), "torch": lambda: torch_functions("cuda")}
