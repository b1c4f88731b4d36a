"""The lecture's systems, one file each, in the lecture's order."""

from .classifier import Classifier
from .fast_rcnn import FastRCNN
from .faster_rcnn import FasterRCNN, small_faster_rcnn
from .faster_rcnn_fpn import fasterrcnn_resnet50_fpn
from .faster_rcnn_vgg16 import fasterrcnn_vgg16
from .four_steps import FourStepFasterRCNN
from .localizer import Localizer
from .pose import DeepPose
from .rcnn import RCNN
from .sliding_window import SlidingWindow
from .wsol import WeakLocalizer

__all__ = [
    "RCNN",
    "Classifier",
    "DeepPose",
    "FastRCNN",
    "FasterRCNN",
    "FourStepFasterRCNN",
    "Localizer",
    "SlidingWindow",
    "WeakLocalizer",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_vgg16",
    "small_faster_rcnn",
]
