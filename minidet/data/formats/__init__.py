"""Annotation files: COCO JSON, VOC XML, YOLO text, LSP joints. Each module reads (and validates) and writes one."""
