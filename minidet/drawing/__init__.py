"""Pictures for people: boxes, masks, skeletons and heat maps on images, and many of them on one sheet."""

from minidet.drawing.boxes import draw_boxes, draw_masks, save_png, with_crowds
from minidet.drawing.cells import draw_cells, draw_confidences
from minidet.drawing.comparison import draw_comparison, draw_speed_and_accuracy
from minidet.drawing.detections import draw_confusion, draw_error_counts, draw_precision_recall, draw_worst_errors
from minidet.drawing.fields import draw_field
from minidet.drawing.grid import grid
from minidet.drawing.heatmaps import compare_heatmaps, draw_heatmap, overlay
from minidet.drawing.localization import draw_localization
from minidet.drawing.proposals import draw_hierarchy, draw_recall
from minidet.drawing.skeletons import draw_pose_errors, draw_skeleton, error_legend, side_legend

__all__ = [
    "compare_heatmaps",
    "draw_boxes",
    "draw_cells",
    "draw_comparison",
    "draw_confidences",
    "draw_confusion",
    "draw_error_counts",
    "draw_field",
    "draw_heatmap",
    "draw_hierarchy",
    "draw_localization",
    "draw_masks",
    "draw_pose_errors",
    "draw_precision_recall",
    "draw_recall",
    "draw_skeleton",
    "draw_speed_and_accuracy",
    "draw_worst_errors",
    "error_legend",
    "grid",
    "overlay",
    "save_png",
    "side_legend",
    "with_crowds",
]  # fmt: skip
