"""The formulas of the heat maps, each as its paper has it, before the last ReLU.

All are functions of arrays of NumPy:

    A   activations (N, C, h, w), the maps of the layer that is looked at; the sums over k run over its channels
    G   gradients (N, C, h, w), d y / d A, where y is the score of a class before the softmax

and give maps (N, h, w) in the dtype of A. A weight whose denominator is 0 is 0: its channel or place is left out, and
activations of zero give a map of zeros. Values that are not finite are passed on; the classes of this package
refuse them before.
"""

import numpy as np


def weighted_sum(weights: np.ndarray, A: np.ndarray) -> np.ndarray:
    """sum_k w_k A_k, with weights (N, C): what most methods differ in is w."""
    return np.einsum("nk,nkij->nij", weights, A)


def cam(A: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """M_c = sum_k w_k^c A_k, weights (N, C) being the row of class c in the layer after the global pooling.

    Zhou et al. 2016, "Learning Deep Features for Discriminative Localization", equation (2). With global average
    pooling the sum of M_c over all places is h w (y - bias).
    """
    return weighted_sum(weights, A)


def grad_cam(A: np.ndarray, G: np.ndarray) -> np.ndarray:
    """sum_k w_k A_k with w_k = mean_ij G_kij: Selvaraju et al. 2017, "Grad-CAM", equations (1) and (2)."""
    return weighted_sum(G.mean(axis=(2, 3)), A)


def grad_cam_plus_plus(A: np.ndarray, G: np.ndarray, normalization: str = "none") -> np.ndarray:
    """sum_k w_k A_k with w_k = sum_ij alpha_kij relu(G_kij): Chattopadhay et al. 2018, "Grad-CAM++".

    alpha is their equation (19), for Y = exp(y), whose derivatives are powers of G:

        alpha_kij = G_kij^2 / (2 G_kij^2 + (sum_ab A_kab) G_kij^3)

    relu(dY/dA) = exp(y) relu(G): the factor, one for the whole map, is left out.

    normalization   "none": alpha as above. "positive": as in the authors' program, each channel's alpha divided by its
                    sum over the places with G > 0 (0 where that sum is 0)
    """
    # G^2 is cancelled, for gradients so small that it vanishes. Where G = 0 any alpha will do: relu(G) is 0 there.
    alpha = quotient(1, 2 + A.sum(axis=(2, 3), keepdims=True) * G)
    if normalization == "positive":
        alpha = quotient(alpha, np.where(G > 0, alpha, 0).sum(axis=(2, 3), keepdims=True))
    elif normalization != "none":
        raise ValueError(f"grad_cam_plus_plus: expected normalization 'none' or 'positive', got {normalization!r}")
    return weighted_sum((alpha * relu(G)).sum(axis=(2, 3)), A)


def xgrad_cam(A: np.ndarray, G: np.ndarray) -> np.ndarray:
    """sum_k w_k A_k with w_k = sum_ij G_kij A_kij / sum_ij A_kij (0 where the sum is 0): Fu et al. 2020, "Axiom-based
    Grad-CAM", section 3. The map then sums up to sum_kij G_kij A_kij (their axiom of conservation)."""
    return weighted_sum(quotient((G * A).sum(axis=(2, 3)), A.sum(axis=(2, 3))), A)


def hires_cam(A: np.ndarray, G: np.ndarray) -> np.ndarray:
    """sum_k G_k A_k, element by element: Draelos and Carin 2020, "Use HiResCAM instead of Grad-CAM", section 3."""
    return (G * A).sum(axis=1)


def layer_cam(A: np.ndarray, G: np.ndarray) -> np.ndarray:
    """sum_k relu(G_k) A_k, element by element: Jiang et al. 2021, "LayerCAM", section III."""
    return (relu(G) * A).sum(axis=1)


def score_cam(A: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """sum_k w_k A_k, w = softmax over k of scores (N, C): Wang et al. 2020, "Score-CAM", section 3.

    scores[n, k]: y of the image times the mask that channel k makes (`channel_masks`). The paper subtracts the score
    of a baseline image from all of them, which the softmax cancels.
    """
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weighted_sum(exponentials / exponentials.sum(axis=1, keepdims=True), A)


def channel_masks(upsampled: np.ndarray) -> np.ndarray:
    """(U - min U) / (max U - min U) of each map U of (..., H, W), in [0, 1]; zeros where U is constant (0/0)."""
    least, most = upsampled.min(axis=(-2, -1), keepdims=True), upsampled.max(axis=(-2, -1), keepdims=True)
    return quotient(upsampled - least, most - least)


def ablation_cam(A: np.ndarray, y: np.ndarray, y_without: np.ndarray) -> np.ndarray:
    """sum_k w_k A_k with w_k = (y - y_without_k) / y (0 where y = 0): Desai and Ramaswamy 2020, "Ablation-CAM",
    section 3.

    y (N,): the score. y_without (N, C): with channel k set to zero. A negative y turns the map's sign around, as the
    paper's equation does.
    """
    return weighted_sum(quotient(y[:, None] - y_without, y[:, None]), A)


def eigen_cam(A: np.ndarray) -> np.ndarray:
    """The first principal component of the places: Muhammad and Yeasin 2020, "Eigen-CAM", section III.

    With the rows of X (h w, C) the places of A, less their mean, and its singular value decomposition X = U S V', the
    map is X V_1. No class is asked for. A singular vector's sign is arbitrary: the map is turned so that its largest
    number in size is positive. Zeros where all places are alike.
    """
    n, c, h, w = A.shape
    X = A.reshape(n, c, h * w).swapaxes(1, 2)
    X = X - X.mean(axis=1, keepdims=True)
    first = np.linalg.svd(X, full_matrices=False)[2][:, 0]  # V_1: (N, C)
    maps = (X @ first[:, :, None]).reshape(n, h, w)
    least, most = maps.min(axis=(1, 2)), maps.max(axis=(1, 2))
    return np.where(-least > most, -1, 1)[:, None, None].astype(A.dtype) * maps


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def quotient(a: np.ndarray | float, b: np.ndarray) -> np.ndarray:
    """a / b, 0 where b = 0."""
    zero = b == 0
    return np.where(zero, 0, a / np.where(zero, 1, b))
