"""Annotation files: COCO JSON, VOC XML, YOLO text, joints of LSP and MPII, CUB-200-2011's text. Each module reads (and
validates) one, and writes it too where minidet makes such files."""
