"""Anchors that suit the data: the sizes of its boxes in clusters (Redmon and Farhadi 2017, "YOLO9000", section 2).

Euclid's distance would be ruled by the large boxes. What matters is how much a box overlaps with its anchor, both
centred on the same point, so the distance is 1 - IoU.
"""

import numpy as np

RESTARTS = 10  # from other boxes: k-means ends where it cannot improve, which may be a bad place
ITERATIONS = 100  # far more than it takes


def shape_iou(sizes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """IoU of boxes (R, 2) with anchors (B, 2), width and height each, all centred on one point: (R, B)."""
    common = np.minimum(sizes[:, None], anchors).prod(axis=2)
    return common / (sizes.prod(axis=1)[:, None] + anchors.prod(axis=1) - common)


def kmeans_anchors(sizes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """The centres of `count` clusters of boxes (R, 2), width and height: (count, 2) of sizes' dtype, by area.

    k-means with the distance 1 - IoU; a centre is the mean of its boxes. More clusters fit better, and cost in
    proportion. It begins with boxes that are far from each other (Arthur and Vassilvitskii 2007, "k-means++"): from one
    drawn by chance, each next is drawn with a probability in proportion to its squared distance from the nearest. Of
    RESTARTS results that with the largest mean IoU is taken.

    Raises ValueError for sizes that are not above 0, and for fewer different ones than `count`.
    """
    sizes = np.asarray(sizes)
    if sizes.ndim != 2 or sizes.shape[1] != 2 or not (np.isfinite(sizes) & (sizes > 0)).all():
        raise ValueError(f"kmeans_anchors: expected widths and heights (R, 2) above 0, got {sizes.shape}")
    different = len(np.unique(sizes.astype(np.float32), axis=0))  # of two that differ in the last bit IoU is 1
    if not 1 <= count <= different:
        raise ValueError(f"kmeans_anchors: expected 1 to {different} anchors, for as many different sizes, got {count}")
    every = [_cluster(sizes.astype(np.float64), count, rng) for _ in range(RESTARTS)]
    centers = max(every, key=lambda found: shape_iou(sizes, found).max(axis=1).mean())
    centers = centers[np.argsort(centers.prod(axis=1), kind="stable")]
    return centers.astype(sizes.dtype) if sizes.dtype.kind == "f" else centers


def _cluster(sizes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    centers, nearest = _far_apart(sizes, count, rng), np.full(len(sizes), -1)
    for _ in range(ITERATIONS):
        before, nearest = nearest, shape_iou(sizes, centers).argmax(axis=1)
        if (nearest == before).all():
            break
        for i in np.unique(nearest):  # a centre without boxes stays where it is
            centers[i] = sizes[nearest == i].mean(axis=0)
    return centers


def _far_apart(sizes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    centers = sizes[[rng.integers(len(sizes))]]
    while len(centers) < count:
        distance = (1 - shape_iou(sizes, centers).max(axis=1)).clip(0) ** 2
        centers = np.concatenate([centers, sizes[[rng.choice(len(sizes), p=distance / distance.sum())]]])
    return centers
