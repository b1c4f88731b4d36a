"""minidet's kernels: every operation as a definition in NumPy and as fast versions of it, side by side.

Each folder holds one operation: the contract (`__init__.py`), `reference.py` (NumPy, to be read), `cpu.py` (Numba) and
`cuda.py` with a .cu file (CUDA, through CuPy). `use("reference")` runs everything in plain NumPy. Numba is imported
when a CPU version first runs, CuPy when a GPU array comes.
"""

from minidet_kernels.batch_norm import batch_norm, batch_norm_backward
from minidet_kernels.box_iou import box_iou, box_iou_blocks, generalized_box_iou
from minidet_kernels.components import connected_components
from minidet_kernels.convolution import conv2d, conv2d_input_grad, conv2d_weight_grad, exact
from minidet_kernels.detection_matching import match_detections, precision_at_recalls
from minidet_kernels.grouping import group_regions
from minidet_kernels.linear import linear, linear_input_grad, linear_weight_grad
from minidet_kernels.linear_svm import linear_svm
from minidet_kernels.nms import batched_nms, nms, soft_nms_gaussian, soft_nms_linear
from minidet_kernels.pooling import (
    avg_pool2d,
    avg_pool2d_adjoint,
    max_pool2d,
    max_pool2d_gather,
    max_pool2d_scatter,
)
from minidet_kernels.region_warp import region_warp
from minidet_kernels.relu import relu, relu_backward
from minidet_kernels.resample import (
    affine_warp,
    affine_warp_adjoint,
    affine_warp_gram,
    gram_product,
    resize_bilinear,
    resize_bilinear_adjoint,
    resize_nearest,
    resize_nearest_adjoint,
)
from minidet_kernels.roi_align import roi_align, roi_align_adjoint
from minidet_kernels.roi_pool import roi_pool, roi_pool_gather, roi_pool_scatter
from minidet_kernels.segmentation import (
    color_histograms,
    felzenszwalb,
    region_adjacency,
    region_boxes,
    texture_histograms,
)
from minidet_kernels.total_variation import (
    image_gradient,
    image_gradient_adjoint,
    project_anisotropic,
    project_isotropic,
    tv_anisotropic,
    tv_anisotropic_subgradient,
    tv_isotropic,
    tv_isotropic_subgradient,
)
from minidet_kernels.versions import available, current, use

__all__ = [
    "affine_warp",
    "affine_warp_adjoint",
    "affine_warp_gram",
    "available",
    "avg_pool2d",
    "avg_pool2d_adjoint",
    "batch_norm",
    "batch_norm_backward",
    "batched_nms",
    "box_iou",
    "box_iou_blocks",
    "color_histograms",
    "connected_components",
    "conv2d",
    "conv2d_input_grad",
    "conv2d_weight_grad",
    "current",
    "exact",
    "felzenszwalb",
    "generalized_box_iou",
    "gram_product",
    "group_regions",
    "image_gradient",
    "image_gradient_adjoint",
    "linear",
    "linear_input_grad",
    "linear_svm",
    "linear_weight_grad",
    "match_detections",
    "max_pool2d",
    "max_pool2d_gather",
    "max_pool2d_scatter",
    "nms",
    "precision_at_recalls",
    "project_anisotropic",
    "project_isotropic",
    "region_adjacency",
    "region_boxes",
    "region_warp",
    "relu",
    "relu_backward",
    "resize_bilinear",
    "resize_bilinear_adjoint",
    "resize_nearest",
    "resize_nearest_adjoint",
    "roi_align",
    "roi_align_adjoint",
    "roi_pool",
    "roi_pool_gather",
    "roi_pool_scatter",
    "soft_nms_gaussian",
    "soft_nms_linear",
    "texture_histograms",
    "tv_anisotropic",
    "tv_anisotropic_subgradient",
    "tv_isotropic",
    "tv_isotropic_subgradient",
    "use",
]
