"""The six classes of miniscene as inequalities, and how they become pixels with smooth edges.

Each shape is a test "is the point (x, y) inside?" in its own coordinates, where it fits the unit circle. To draw
one, the test is asked at 4 x 4 points in every pixel; the fraction of yes is the pixel's coverage.
"""

from typing import NamedTuple

import numpy as np

CLASSES = ("circle", "square", "triangle", "star", "ring", "cross")

# Sub-samples along each axis of a pixel. 4 gives 17 levels of edge softness; 1 would give jagged edges.
SUPERSAMPLING = 4

RING_HOLE = 0.55  # inner radius of the ring over its outer radius
CROSS_ARM = 0.32  # half the width of the cross's arms over half its length


class Coverage(NamedTuple):
    """What a shape covers: fractions (h, w) float32 of the pixels from row `top` and column `left` on.

    The window may lie partly outside the picture.
    """

    top: int
    left: int
    fractions: np.ndarray


def regular_polygon(corners: int, first_angle: float) -> np.ndarray:
    """(corners, 2) float64: corners x, y on the unit circle, y pointing down, angles in radians."""
    angles = first_angle + 2 * np.pi * np.arange(corners) / corners
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _cross_corners() -> np.ndarray:
    arm = CROSS_ARM / np.hypot(1, CROSS_ARM)  # the arms' outer corners lie on the unit circle
    reach = 1 / np.hypot(1, CROSS_ARM)
    return np.array([(sx * x, sy * y) for x, y in ((reach, arm), (arm, reach)) for sx in (-1, 1) for sy in (-1, 1)])


# The outermost points of each shape: they decide how large it is once it is rotated. Round shapes have none.
OUTLINES = {
    "square": regular_polygon(4, np.pi / 4),
    "triangle": regular_polygon(3, -np.pi / 2),
    "star": regular_polygon(5, -np.pi / 2),
    "cross": _cross_corners(),
}


def inside_shape(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether the points (x, y), in the shape's own coordinates, lie inside it: a bool array of their common shape."""
    if name == "circle":
        return x * x + y * y <= 1
    if name == "ring":
        squared_radius = x * x + y * y
        return (squared_radius <= 1) & (squared_radius >= RING_HOLE**2)
    if name == "square":
        return np.maximum(np.abs(x), np.abs(y)) <= np.sqrt(0.5)
    if name == "cross":
        reach = 1 / np.hypot(1, CROSS_ARM)
        across, along = np.minimum(np.abs(x), np.abs(y)), np.maximum(np.abs(x), np.abs(y))
        return (along <= reach) & (across <= reach * CROSS_ARM)
    if name == "triangle":
        return _edges_kept(x, y, regular_polygon(3, np.pi / 2), np.cos(np.pi / 3)) == 3
    if name == "star":
        # The five lines of a pentagram: a tip is cut off by one of them, the outside by two or more.
        return _edges_kept(x, y, regular_polygon(5, -np.pi / 2), np.cos(2 * np.pi / 5)) >= 4
    raise ValueError(f"inside_shape: expected one of {', '.join(CLASSES)}, got {name!r}")


def _edges_kept(x: np.ndarray, y: np.ndarray, normals: np.ndarray, distance: float) -> np.ndarray:
    """How many of the half-planes n.p <= distance, one for each normal n, hold each point."""
    count = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.uint8)
    for normal_x, normal_y in normals.astype(np.float32):
        count += x * normal_x + y * normal_y <= np.float32(distance)
    return count


def shape_coverage(name: str, side: float, angle: float, center: tuple[float, float]) -> Coverage:
    """Draw one shape.

    name: one of CLASSES. side: the longer side, in pixels, of the upright box around the rotated shape.
    angle: radians. center: x, y of the middle of that box in continuous pixel coordinates.
    """
    cosine, sine = np.cos(angle), np.sin(angle)
    if name in OUTLINES:
        corners = OUTLINES[name] @ np.array([[cosine, sine], [-sine, cosine]])
        low, high = corners.min(axis=0), corners.max(axis=0)
    else:
        low, high = np.array([-1.0, -1.0]), np.array([1.0, 1.0])
    scale = side / (high - low).max()  # pixels per unit
    origin = np.asarray(center) - scale * (low + high) / 2  # where the shape's own (0, 0) goes
    left, top = np.floor(origin + scale * low).astype(int)
    right, bottom = np.ceil(origin + scale * high).astype(int)

    def sample_points(start: int, stop: int, zero: float) -> np.ndarray:
        pixels = start + (np.arange((stop - start) * SUPERSAMPLING) + 0.5) / SUPERSAMPLING
        return ((pixels - zero) / scale).astype(np.float32)

    x, y = sample_points(left, right, origin[0])[None, :], sample_points(top, bottom, origin[1])[:, None]
    cosine, sine = np.float32(cosine), np.float32(sine)
    inside = inside_shape(name, cosine * x + sine * y, cosine * y - sine * x)  # rotated back
    return Coverage(int(top), int(left), _average(inside))


def _average(inside: np.ndarray) -> np.ndarray:
    """Mean over each pixel's sub-samples: (4 h, 4 w) bool -> (h, w) float32. Strided sums: 10 x faster than mean."""
    step = SUPERSAMPLING
    rows = sum(inside[k::step].view(np.uint8) for k in range(step))
    count = sum(rows[:, k::step] for k in range(step))
    return count.astype(np.float32) / step**2


def capsule_coverage(start, end, radius: float, top: int, left: int, height: int, width: int) -> np.ndarray:
    """A thick line with round ends, as coverage (height, width) float32 of the window at (top, left).

    start, end: x, y in continuous pixel coordinates. The edge is softened over one pixel by the distance to it,
    which is as smooth as sub-samples and cheap for long lines.
    """
    x = (left + 0.5 - start[0]) + np.arange(width, dtype=np.float32)[None, :]
    y = (top + 0.5 - start[1]) + np.arange(height, dtype=np.float32)[:, None]
    direction_x, direction_y = np.float32(end[0] - start[0]), np.float32(end[1] - start[1])
    length_squared = max(direction_x**2 + direction_y**2, np.float32(1e-12))
    along = np.clip((x * direction_x + y * direction_y) / length_squared, 0, 1)  # 0 at start, 1 at end
    distance = np.hypot(x - along * direction_x, y - along * direction_y)
    return np.clip(np.float32(radius + 0.5) - distance, 0, 1)
