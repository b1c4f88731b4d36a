"""Boxes as arrays or Tensors (R, 4): conversions, areas, overlaps."""

from .geometry import box_area, box_convert, paired_giou, paired_iou

__all__ = ["box_area", "box_convert", "paired_giou", "paired_iou"]
