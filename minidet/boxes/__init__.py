"""Boxes as arrays or Tensors (R, 4): conversions, areas, overlaps, suppression."""

from .components import component_boxes, largest_component_box
from .geometry import box_area, box_convert, clip_boxes_to_image, paired_giou, paired_iou, remove_small_boxes
from .overlaps import batched_nms, box_iou, generalized_box_iou, nms

__all__ = [
    "batched_nms",
    "box_area",
    "box_convert",
    "box_iou",
    "clip_boxes_to_image",
    "component_boxes",
    "generalized_box_iou",
    "largest_component_box",
    "nms",
    "paired_giou",
    "paired_iou",
    "remove_small_boxes",
]
