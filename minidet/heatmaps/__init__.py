"""Heat maps: where in the image the score of a class comes from.

    heatmaps.GradCAM(model)(images)                     (N, h, w), of the predicted classes, in the last map found
    heatmaps.LayerCAM(model, "backbone.stages.1")(images, class_index=3)

Read formulas.py, one equation a function; then base.py, how the activations and gradients are had. AugmentedCAM in
augmented.py makes any of them sharp.
"""

from . import formulas
from .augmented import AugmentedCAM
from .base import LayerMap
from .boxes import map_box, map_boxes
from .cam import CAM
from .gradcam import EigenCAM, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from .inputs import Gradient, GuidedBackpropagation, SmoothGrad
from .perturbation import AblationCAM, ScoreCAM
from .resize import resize_map

# By the names that the command line takes.
METHODS = {
    "cam": CAM,
    "gradcam": GradCAM,
    "gradcam++": GradCAMPlusPlus,
    "xgradcam": XGradCAM,
    "hirescam": HiResCAM,
    "layercam": LayerCAM,
    "scorecam": ScoreCAM,
    "eigencam": EigenCAM,
    "ablationcam": AblationCAM,
    "gradient": Gradient,
    "guided": GuidedBackpropagation,
    "smoothgrad": SmoothGrad,
}

__all__ = [
    "CAM",
    "METHODS",
    "AblationCAM",
    "AugmentedCAM",
    "EigenCAM",
    "GradCAM",
    "GradCAMPlusPlus",
    "Gradient",
    "GuidedBackpropagation",
    "HiResCAM",
    "LayerCAM",
    "LayerMap",
    "ScoreCAM",
    "SmoothGrad",
    "XGradCAM",
    "formulas",
    "map_box",
    "map_boxes",
    "resize_map",
]
