"""miniscene: generated pictures whose boxes, masks and joints are known exactly.

A scene is painted back to front: textured background, clutter lines, stick figures, objects, noise. Its numbers
make it small enough for a CPU and still hard: the background is uneven, colour says nothing about the class, and
objects are rotated, cut by the border and hide one another.
"""

from dataclasses import dataclass, field

import numpy as np

from minidet.data.background import COLOR_RANGE, blend, clip_window, paint_background, paint_cue
from minidet.data.figures import BODY, HEAD_RADIUS, LEFT, LEFT_COLOR, RIGHT, RIGHT_COLOR, make_joints, paint_layers
from minidet.data.joints import HIDDEN, NOT_LABELLED, VISIBLE
from minidet.data.masks import mask_boxes
from minidet.data.shapes import CLASSES, Coverage, shape_coverage

LEVELS = ("flat", "textured")

COLOR_DISTANCE = (45.0, 150.0)  # of an object from the background around it, Euclidean in RGB; lower is harder
NOISE_SIGMA = (3.0, 9.0)  # of 255, one value a scene; higher is harder
LEAST_VISIBLE = 0.6  # of each object's whole area, after hiding by others and cutting by the border
CROWD_MEMBERS = (6, 10)  # objects in a crowd
HEIGHTS = (0.45, 0.8)  # of the one figure in a picture
PLACEMENT_TRIES = 30  # an object that finds no room after so many tries is left out

# What each task's scenes are made of: keyword arguments of make_scene.
SCENES = {
    "detection": {"size": 128, "objects": (1, 5), "sides": (10, 40), "empty": 0.1, "crowd": 0.05, "truncated": 0.15},
    "localization": {"size": 64, "objects": (1, 1), "sides": (16, 48), "empty": 0.0, "crowd": 0.0, "truncated": 0.0},
    "pose": {
        "size": 128, "objects": (0, 2), "sides": (10, 30), "figures": (1, 1),
        "empty": 0.0, "crowd": 0.0, "truncated": 0.1,
    },
    "people": {
        "size": 128, "objects": (0, 2), "sides": (10, 30), "figures": (2, 4), "heights": (0.35, 0.6),
        "empty": 0.0, "crowd": 0.0, "truncated": 0.1,
    },
}  # fmt: skip


@dataclass
class Scene:
    """A picture and all that is in it. R objects and crowds, P figures.

    image: (H, W, 3) uint8 RGB.
    boxes: (R, 4) float64 x1 y1 x2 y2, continuous pixel coordinates: the tight box of the visible part, so x2 is
        the last column + 1. labels: (R,) int64, 1..6 = position in CLASSES + 1. masks: (R, H, W) bool, visible part.
    iscrowd: (R,) bool, one box around several objects. truncated: (R,) bool, cut by the border.
    visible: (R,) float64, the part of the whole thing's pixels that is not hidden or cut off.
    colors: (R, 3) float64 painted colours (a crowd's is that of its last member).
    keypoints: (P, 14, 3) float64 x, y, v; see minidet.data.joints. person_boxes (P, 4), person_masks (P, H, W),
    person_truncated (P,), person_visible (P,) as above.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray
    iscrowd: np.ndarray
    truncated: np.ndarray
    visible: np.ndarray
    colors: np.ndarray
    keypoints: np.ndarray
    person_boxes: np.ndarray
    person_masks: np.ndarray
    person_truncated: np.ndarray
    person_visible: np.ndarray


@dataclass
class _Item:
    """One annotated thing: layers to paint, and what of it can still be seen."""

    label: int  # 0 for a figure
    layers: list[tuple[Coverage, int]]  # painted in this order; the number picks the colour
    area: int  # pixels of the whole thing, hidden and outside parts included
    visible: np.ndarray  # (H, W) bool; shrinks when something is put in front
    whole: np.ndarray  # (H, W) bool: `visible` before anything was put in front
    joints: np.ndarray | None = None  # (14, 3) of a figure, x, y in continuous coordinates
    iscrowd: bool = False
    colors: list[np.ndarray] = field(default_factory=list)  # of the layers, once painted


def make_scene(
    rng: np.random.Generator,
    size: int = 128,
    level: str = "textured",
    objects: tuple[int, int] = (1, 5),
    sides: tuple[float, float] = (10, 40),
    empty: float = 0.1,
    figures: tuple[int, int] = (0, 0),
    heights: tuple[float, float] = HEIGHTS,
    crowd: float = 0.05,
    truncated: float = 0.15,
    cue: float | None = None,
) -> Scene:
    """Make one scene; equal generator states give equal scenes.

    size: H = W in pixels. level: "textured", or "flat": a plain background without texture, lines and noise.
    objects: fewest and most; a crowded picture may end with fewer. sides: shortest and longest, in pixels, of an
    object's longer side. empty: probability of a scene without objects. figures: fewest and most stick figures.
    heights: of a figure that stands upright, in fractions of the picture's.
    crowd: probability of a crowd region. truncated: probability that a thing may cross the border.
    cue: None, or paint a striped patch into the background, in the corner farthest from the first object: with
    this probability the patch that belongs to the object's class, else that of a random class. A network can learn
    the patch in place of the object; 0.0 makes the patch say nothing.
    """
    if level not in LEVELS:
        raise ValueError(f"make_scene: expected level {' or '.join(LEVELS)}, got {level!r}")
    if sides[1] > size:
        raise ValueError(f"make_scene: expected sides of at most the picture's {size} pixels, got {sides}")
    background = paint_background(rng, size, level)
    items: list[_Item] = []
    for _ in range(rng.integers(figures[0], figures[1] + 1)):
        _place(rng, items, size, lambda: _random_figure(rng, size, heights, truncated))
    if rng.random() >= empty:
        if rng.random() < crowd:
            _place(rng, items, size, lambda: _random_crowd(rng, size, sides))
        for _ in range(rng.integers(objects[0], objects[1] + 1)):
            _place(rng, items, size, lambda: _random_object(rng, size, sides, truncated))
    if cue is not None and items:
        right = rng.random() < cue
        shown = items[0].label - 1 if right else int(rng.integers(len(CLASSES)))
        paint_cue(background, shown, far_from=mask_boxes([items[0].whole])[0].reshape(2, 2).mean(axis=0))

    canvas = background.copy()
    for item in items:
        _paint(rng, canvas, background, item, items)
    if level == "textured":
        sigma = np.float32(rng.uniform(*NOISE_SIGMA))
        canvas += sigma * rng.standard_normal(canvas.shape, dtype=np.float32)
    return _to_scene(np.clip(canvas + 0.5, 0, 255).astype(np.uint8), items)


# ---- what there is to see ----------------------------------------------------------------------------------------


def _item(label: int, layers: list[tuple[Coverage, int]], size: int, **more) -> _Item:
    """Gather layers into one thing. A pixel belongs to it when some layer covers at least half of it."""
    top, left = min(c.top for c, _ in layers), min(c.left for c, _ in layers)
    bottom = max(c.top + c.fractions.shape[0] for c, _ in layers)
    right = max(c.left + c.fractions.shape[1] for c, _ in layers)
    whole = np.zeros((bottom - top, right - left), bool)
    for (row, column, fractions), _ in layers:
        height, width = fractions.shape
        whole[row - top : row - top + height, column - left : column - left + width] |= fractions >= 0.5
    visible = np.zeros((size, size), bool)
    window, inner = clip_window(Coverage(top, left, whole), size)
    visible[window] = inner
    return _Item(label, layers, int(whole.sum()), visible, visible, **more)


def _random_object(rng: np.random.Generator, size: int, sides: tuple[float, float], truncated: float) -> _Item | None:
    """One object of a random class; None if its pixels miss the range of sides or the border would cut it."""
    label, side, angle = int(rng.integers(1, len(CLASSES) + 1)), rng.uniform(*sides), rng.uniform(0, 2 * np.pi)
    if rng.random() < truncated:
        center = rng.uniform(0, size, 2)
    else:
        center = rng.uniform(side / 2, size - side / 2, 2)
    coverage = shape_coverage(CLASSES[label - 1], side, angle, center)
    whole = coverage.fractions >= 0.5
    if not whole.any():
        return None
    pixels = max(np.ptp(np.flatnonzero(whole.any(axis=axis))) + 1 for axis in (0, 1))
    if not sides[0] <= pixels <= sides[1]:
        return None
    return _item(label, [(coverage, 0)], size)


def _random_crowd(rng: np.random.Generator, size: int, sides: tuple[float, float]) -> _Item:
    """Several small objects of one class, close together: a region that is annotated as one, with iscrowd = 1."""
    label = int(rng.integers(1, len(CLASSES) + 1))
    side = sides[0] + 0.15 * (sides[1] - sides[0])
    spread = 1.6 * side
    center = rng.uniform(spread + side, size - spread - side, 2) if 2 * (spread + side) < size else size / 2
    layers = []
    for member in range(rng.integers(CROWD_MEMBERS[0], CROWD_MEMBERS[1] + 1)):
        place = np.clip(center + rng.uniform(-spread, spread, 2), side / 2, size - side / 2)
        angle, length = rng.uniform(0, 2 * np.pi), side * rng.uniform(0.8, 1.1)
        layers.append((shape_coverage(CLASSES[label - 1], length, angle, place), member))
    return _item(label, layers, size, iscrowd=True)


def _random_figure(rng: np.random.Generator, size: int, heights: tuple[float, float], truncated: float) -> _Item | None:
    """One stick figure in a random pose; None if the pose does not fit into the picture."""
    height, facing = rng.uniform(*heights) * size, int(rng.choice((1, -1)))
    joints = make_joints(rng, height, facing)
    margin = -0.2 * height if rng.random() < truncated else HEAD_RADIUS * height  # negative: may leave the picture
    low, high = margin - joints.min(axis=0), size - margin - joints.max(axis=0)
    if (low > high).any():
        return None
    joints = joints + rng.uniform(low, high)
    layers, hidden = paint_layers(joints, height, facing)
    flags = np.where(hidden, HIDDEN, VISIBLE)
    flags[((joints < 0) | (joints >= size)).any(axis=1)] = NOT_LABELLED
    return _item(0, layers, size, joints=np.column_stack([joints, flags]))


def _place(rng: np.random.Generator, items: list[_Item], size: int, candidate) -> None:
    """Put a random thing in front of the others where every one of them stays visible enough."""
    for _ in range(PLACEMENT_TRIES):
        item = candidate()
        if item is None or item.visible.sum() < max(1, LEAST_VISIBLE * item.area):  # 1: too thin to fill any pixel
            continue
        if all((other.visible & ~item.whole).sum() >= LEAST_VISIBLE * other.area for other in items):
            for other in items:
                other.visible = other.visible & ~item.whole
                _hide_joints(other, item)
            items.append(item)
            return


def _hide_joints(figure: _Item, front: _Item) -> None:
    if figure.joints is None:
        return
    labelled = figure.joints[:, 2] > NOT_LABELLED
    columns, rows = figure.joints[labelled, :2].astype(int).T
    figure.joints[labelled, 2] = np.where(front.whole[rows, columns], HIDDEN, figure.joints[labelled, 2])


# ---- colours ----------------------------------------------------------------------------------------------------


def _around(background: np.ndarray, item: _Item) -> np.ndarray:
    """(3,) mean colour of the background around a thing: its box and 3 pixels more, without the thing."""
    rows, columns = np.flatnonzero(item.whole.any(axis=1)), np.flatnonzero(item.whole.any(axis=0))
    window = (slice(max(rows[0] - 3, 0), rows[-1] + 4), slice(max(columns[0] - 3, 0), columns[-1] + 4))
    outside = ~item.whole[window]
    return background[window][outside].mean(axis=0) if outside.any() else background.mean(axis=(0, 1))


def _choose_color(rng: np.random.Generator, around: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(3,) a colour at COLOR_DISTANCE from the background around, and if there is one, so far from `others` (n, 3)."""
    while True:
        direction = rng.standard_normal((32, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        candidates = around + direction * rng.uniform(*COLOR_DISTANCE, (32, 1))
        candidates = candidates[((candidates >= COLOR_RANGE[0]) & (candidates <= COLOR_RANGE[1])).all(axis=1)]
        if len(candidates):
            distances = np.linalg.norm(candidates[:, None] - others[None], axis=2)  # (candidates, n)
            nearest = distances.min(axis=1, initial=COLOR_DISTANCE[0])  # more than enough counts as enough
            return candidates[nearest.argmax()]


def _figure_colors(rng: np.random.Generator, around: np.ndarray) -> dict[int, np.ndarray]:
    """Orange right, blue left, grey body, each at least 45 from the background around."""
    colors = {}
    for group, base in ((RIGHT, RIGHT_COLOR), (LEFT, LEFT_COLOR), (BODY, None)):
        while group not in colors:
            gray = np.full(3, rng.uniform(20, 235))
            color = (gray if base is None else np.array(base) * rng.uniform(0.6, 1.0)) + rng.uniform(-15, 15, 3)
            color = np.clip(color, *COLOR_RANGE)
            if np.linalg.norm(color - around) >= COLOR_DISTANCE[0]:
                colors[group] = color
    return colors


def _paint(rng: np.random.Generator, canvas: np.ndarray, background: np.ndarray, item: _Item, items: list) -> None:
    """Paint one thing over the canvas, in place, in colours that stand out from what it covers."""
    around = _around(background, item)
    if item.joints is not None:
        colors = _figure_colors(rng, around)
    else:
        behind = [color for other in items if (other.whole & item.whole).any() for color in other.colors]
        colors = {group: _choose_color(rng, around, np.reshape(behind, (-1, 3))) for _, group in item.layers}
    for coverage, group in item.layers:
        blend(canvas, coverage, colors[group])
        item.colors.append(colors[group])


# ---- from things to arrays --------------------------------------------------------------------------------------


def _to_scene(image: np.ndarray, items: list[_Item]) -> Scene:
    things, people = [i for i in items if i.joints is None], [i for i in items if i.joints is not None]

    def stack(arrays: list[np.ndarray], shape: tuple[int, ...], dtype) -> np.ndarray:
        return np.array(arrays, dtype).reshape(len(arrays), *shape)

    keypoints = stack([person.joints for person in people], (14, 3), np.float64)
    keypoints[..., :2] -= 0.5  # continuous coordinates -> whole numbers at pixel centres
    keypoints[keypoints[..., 2] == NOT_LABELLED] = 0
    height, width = image.shape[:2]
    return Scene(
        image=image,
        boxes=mask_boxes([i.visible for i in things]),
        labels=stack([i.label for i in things], (), np.int64),
        masks=stack([i.visible for i in things], (height, width), bool),
        iscrowd=stack([i.iscrowd for i in things], (), bool),
        truncated=stack([i.whole.sum() < i.area for i in things], (), bool),
        visible=stack([i.visible.sum() / i.area for i in things], (), np.float64),
        colors=stack([i.colors[-1] for i in things], (3,), np.float64),
        keypoints=keypoints,
        person_boxes=mask_boxes([i.visible for i in people]),
        person_masks=stack([i.visible for i in people], (height, width), bool),
        person_truncated=stack([i.whole.sum() < i.area for i in people], (), bool),
        person_visible=stack([i.visible.sum() / i.area for i in people], (), np.float64),
    )
