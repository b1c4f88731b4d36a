"""The lecture's systems, one file each, in the lecture's order."""

from .classifier import Classifier
from .fast_rcnn import FastRCNN
from .faster_rcnn import FasterRCNN, small_faster_rcnn
from .faster_rcnn_fpn import fasterrcnn_resnet50_fpn
from .faster_rcnn_vgg16 import fasterrcnn_vgg16
from .four_steps import FourStepFasterRCNN
from .keypoint_rcnn import small_keypoint_rcnn
from .localizer import Localizer
from .mask_rcnn import small_mask_rcnn
from .mask_rcnn_fpn import keypointrcnn_resnet50_fpn, maskrcnn_resnet50_fpn
from .openpose import OpenPose
from .pose import DeepPose
from .rcnn import RCNN
from .sliding_window import SlidingWindow
from .ssd import SSD
from .ssd300_vgg16 import ssd300_vgg16
from .wsol import WeakLocalizer
from .yolo import YOLO
from .yolo_v1 import YOLOv1

__all__ = [
    "RCNN",
    "SSD",
    "YOLO",
    "Classifier",
    "DeepPose",
    "FastRCNN",
    "FasterRCNN",
    "FourStepFasterRCNN",
    "Localizer",
    "OpenPose",
    "SlidingWindow",
    "WeakLocalizer",
    "YOLOv1",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_vgg16",
    "keypointrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "small_faster_rcnn",
    "small_keypoint_rcnn",
    "small_mask_rcnn",
    "ssd300_vgg16",
]
