"""Proposals on pictures: how a hierarchy of regions grows, and recall against the number of boxes."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

import minidet_kernels as mk
from minidet.drawing.boxes import draw_boxes, draw_rectangle
from minidet.drawing.canvas import LEAST_SIDE, PALETTE, enlarge, enlargement
from minidet.drawing.grid import grid
from minidet.proposals import Hierarchy

OUTLINE = (255, 255, 255)  # of regions
INCHES, DOTS_PER_INCH = (11.0, 4.2), 100  # 1100 x 420 pixels, as the curves of a training


def draw_hierarchy(
    image: np.ndarray, hierarchy: Hierarchy, truth: np.ndarray | None = None, stages: int = 5, title: str = ""
) -> np.ndarray:
    """A strip: the image, its segmentation, and how the regions become fewer; under each picture how many there are.

    image: (H, W, 3) uint8. A region has the mean colour of its pixels, a white outline, and, if a merge made it, the
    box that it proposes. truth: (T, 4), drawn dashed into the first picture; then the last one shows, of the boxes of
    all regions, the one that fits each true box best. stages: pictures with regions, from 1 on. Returns (height, width,
    3) uint8.
    """
    crumbs, factor = len(hierarchy.merges) + 1, enlargement(*image.shape[:2], LEAST_SIDE // 2)
    truth = np.zeros((0, 4)) if truth is None else np.asarray(truth, np.float64)
    with_truth = draw_boxes(image, np.zeros((0, 4)), truth=truth, factor=factor)
    pictures, captions = [with_truth], ["the image"]
    # By equal factors: of a hundred merges the first fifty change nothing that anybody would notice.
    for left in sorted({round(count) for count in np.geomspace(min(2, crumbs), crumbs, stages)}, reverse=True):
        labels = hierarchy.labels_after(crumbs - left)
        present = np.unique(labels)
        pictures.append(_with_boxes(_paint(image, labels, factor), hierarchy.boxes[present[present >= crumbs]], factor))
        captions.append(f"{left} regions")
    if len(truth):
        best = mk.box_iou(truth, hierarchy.boxes.astype(np.float64)).argmax(axis=1)
        pictures.append(_with_boxes(with_truth, hierarchy.boxes[best], factor))
        captions.append(f"the best of {len(hierarchy.boxes)} boxes")
    return grid(pictures, columns=len(pictures), captions=captions, title=title)


def _paint(image: np.ndarray, labels: np.ndarray, factor: float) -> np.ndarray:
    """(factor * H, factor * W, 3) uint8: each region in its mean colour, outlined."""
    sizes = np.maximum(np.bincount(labels.ravel()), 1)
    means = [np.bincount(labels.ravel(), channel.ravel()) / sizes for channel in image.transpose(2, 0, 1)]
    picture = np.array(enlarge(np.stack(means, axis=1)[labels].astype(np.uint8), factor))
    if factor < 1:
        labels = labels[:: round(1 / factor), :: round(1 / factor)]
    else:
        labels = labels.repeat(factor, axis=0).repeat(factor, axis=1)
    picture[:, 1:][labels[:, 1:] != labels[:, :-1]] = OUTLINE
    picture[1:][labels[1:] != labels[:-1]] = OUTLINE
    return picture


def _with_boxes(picture: np.ndarray, boxes: np.ndarray, factor: float) -> np.ndarray:
    drawn = Image.fromarray(picture)
    draw = ImageDraw.Draw(drawn)
    for index, box in enumerate(boxes):
        draw_rectangle(draw, box * factor, PALETTE[index % len(PALETTE)], width=2)
    return np.array(drawn)


def draw_recall(
    counts: Sequence[int],
    by_count: Mapping[str, Sequence[float]],
    ious: Sequence[float],
    by_iou: Mapping[str, Sequence[float]],
    iou: float = 0.5,
) -> np.ndarray:
    """Recall as (H, W, 3) uint8: left against the number of boxes, right against the overlap that is asked for.

    by_count: of each method the recall (N,) within the first counts (N,) boxes at the overlap `iou`. by_iou: the recall
    (T,) within the last of counts at the overlaps ious (T,).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(INCHES, DOTS_PER_INCH, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    for name, recall in by_count.items():
        left.plot(counts, recall, marker=".", label=name)
    for name, recall in by_iou.items():
        right.plot(ious, recall, marker=".", label=name)
    left.set(xscale="log", xlabel="boxes of an image", ylabel="recall", title=f"objects found with IoU >= {iou:g}")
    right.set(xlabel="IoU that counts as found", title=f"objects found by the first {counts[-1]} boxes", ylim=(0, 1.02))
    for axes, corner in ((left, "lower right"), (right, "lower left")):  # where no curve is
        axes.grid(alpha=0.3)
        axes.legend(loc=corner)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
