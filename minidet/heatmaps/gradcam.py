"""The methods that weigh activations with gradients, Grad-CAM and its relatives; and Eigen-CAM, which needs none."""

import numpy as np

from .. import nn
from . import formulas
from .base import LayerMap, Look


class GradCAM(LayerMap):
    """sum_k mean(G_k) A_k: see `formulas.grad_cam`, and `LayerMap` for how it is called."""

    def maps(self, look: Look) -> np.ndarray:
        return formulas.grad_cam(look.activations(), look.gradients())


class GradCAMPlusPlus(LayerMap):
    """Grad-CAM with weights that count small objects as much as large ones: see `formulas.grad_cam_plus_plus`.

    normalization: "none", the paper's equation, or "positive", the authors' program.
    """

    def __init__(self, model: nn.Module, layer: nn.Module | str | None = None, normalization: str = "none") -> None:
        super().__init__(model, layer)
        if normalization not in ("none", "positive"):
            raise ValueError(f"GradCAMPlusPlus: expected normalization 'none' or 'positive', got {normalization!r}")
        self.normalization = normalization

    def maps(self, look: Look) -> np.ndarray:
        return formulas.grad_cam_plus_plus(look.activations(), look.gradients(), self.normalization)


class XGradCAM(LayerMap):
    """sum_k (sum G_k A_k / sum A_k) A_k: see `formulas.xgrad_cam`."""

    def maps(self, look: Look) -> np.ndarray:
        return formulas.xgrad_cam(look.activations(), look.gradients())


class HiResCAM(LayerMap):
    """sum_k G_k A_k: see `formulas.hires_cam`."""

    def maps(self, look: Look) -> np.ndarray:
        return formulas.hires_cam(look.activations(), look.gradients())


class LayerCAM(LayerMap):
    """sum_k relu(G_k) A_k: see `formulas.layer_cam`."""

    def maps(self, look: Look) -> np.ndarray:
        return formulas.layer_cam(look.activations(), look.gradients())


class EigenCAM(LayerMap):
    """The first principal component of the activations, whatever the class: see `formulas.eigen_cam`."""

    def maps(self, look: Look) -> np.ndarray:
        return formulas.eigen_cam(look.activations())
