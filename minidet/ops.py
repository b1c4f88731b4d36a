"""Operations on boxes and regions, under the names and arguments of torchvision.ops."""

from .functional.rois import roi_align, roi_pool

__all__ = ["roi_align", "roi_pool"]
