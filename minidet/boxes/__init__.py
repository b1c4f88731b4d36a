"""Boxes as arrays or Tensors (R, 4): conversions, areas, overlaps, suppression; and as arrays all that detectors choose
with: anchors, the box coder, the matcher, the balanced sampler, proposals and detections."""

from .anchors import base_anchors, classic_base_anchors, default_boxes, grid_anchors
from .clusters import kmeans_anchors, shape_iou
from .coder import decode_boxes, encode_boxes
from .components import component_boxes, largest_component_box
from .geometry import (
    LEAST_SIDE,
    box_area,
    box_convert,
    clip_boxes_to_image,
    paired_giou,
    paired_iou,
    remove_small_boxes,
)
from .masks import paste_masks
from .matching import BELOW, BETWEEN, inside_crowds, match_bipartite, match_boxes
from .overlaps import batched_nms, box_iou, generalized_box_iou, nms
from .sampling import sample_balanced
from .selection import best_first, filter_detections, filter_proposals

__all__ = [
    "BELOW",
    "BETWEEN",
    "LEAST_SIDE",
    "base_anchors",
    "batched_nms",
    "best_first",
    "box_area",
    "box_convert",
    "box_iou",
    "classic_base_anchors",
    "clip_boxes_to_image",
    "component_boxes",
    "decode_boxes",
    "default_boxes",
    "encode_boxes",
    "filter_detections",
    "filter_proposals",
    "generalized_box_iou",
    "grid_anchors",
    "inside_crowds",
    "kmeans_anchors",
    "largest_component_box",
    "match_bipartite",
    "match_boxes",
    "nms",
    "paired_giou",
    "paired_iou",
    "paste_masks",
    "remove_small_boxes",
    "sample_balanced",
    "shape_iou",
]
