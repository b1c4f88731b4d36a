"""Pictures for people: boxes, masks and skeletons on images, and many of them on one sheet."""

from minidet.drawing.boxes import draw_boxes, draw_masks, save_png
from minidet.drawing.grid import grid
from minidet.drawing.skeletons import draw_skeleton

__all__ = ["draw_boxes", "draw_masks", "draw_skeleton", "grid", "save_png"]
