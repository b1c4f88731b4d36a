"""Augmented Grad-CAM: one sharp heat map out of many coarse ones (Morbidelli et al. 2020, the lecture's eq. 1).

A map is as coarse as the layer it was made at: 14 x 14 for an image of 224 x 224. But a network that looks at the same
image rotated and shifted makes another 14 x 14 map, of other cells, and says something new. L such maps g_1 ... g_L are
known, and with them how each copy was moved: A_l. If there is a sharp map h of the image, then g_l is what is left of
it after moving it by A_l and decimating it by D. So the sharp map is the solution of an inverse problem,

    h = argmin  1/2 sum over l of |D A_l h - g_l|^2  +  lambda TV(h)  +  mu/2 |h|^2                             (1)

in which total variation keeps edges where the maps agree on them, and the last term makes the solution unique. It is
convex and not smooth. D A_l and its adjoint, TV and the solvers are kernels: see minidet_kernels.solvers.

Nothing here knows what kind of heat map it is given: "our SR framework can be combined with any visualization tool".
"""

from typing import Any

import numpy as np

import minidet_kernels as kernels
from minidet_kernels.resample import invert_affine, rotation_then_translation
from minidet_kernels.solvers import Energy, adam, decimated_warps, primal_dual, subgradient_descent

from ..autograd import Tensor, no_grad
from .formulas import quotient, relu
from .resize import resize_map
from .scores import as_classes, as_images, at_rest, check_finite, logits_of

# Angles U(-0.5, 0.5) rad and shifts U(-30, 30) pixels at 224 x 224 (section 3 of the paper). Larger ones see the object
# from more places, until it leaves the picture or lies as the network has never seen it.
MAX_ANGLE, MAX_SHIFT = 0.5, 30 / 224

# lambda = 0.001 L and mu = 0.0001 L: they grow with L, as the first term does. More lambda makes the map flatter in
# larger pieces, more mu lower where few copies look.
TV_WEIGHT, L2_WEIGHT = 0.001, 0.0001


class AugmentedCAM:
    """A heat-map method, made sharp: AugmentedCAM(GradCAM(model))(images, class_index) -> (N, H, W), as the images.

    method      any of minidet.heatmaps; one whose maps are smaller than the image gains
    copies      L >= 1, the first of which is the image itself. Cost: L/batch_size times the method, and the solver
    max_angle   in radians; max_shift in pixels, None for 30/224 of the shorter side
    tv_weight, l2_weight   lambda and mu per copy
    combine     how the copies' maps become one: a solver of eq. (1), "subgradient", "adam" or "primal_dual", or
                without it "single" (the image's own map, enlarged), "average" or "max" (of the maps moved back)
    iterations  of the solver; None for its own default
    seed        of the augmentations: the same for each image

    Raises ValueError for copies, batch_size and iterations below 1, negative angles, shifts and weights, an unknown
    `combine`, and images that are not larger than the shift.
    """

    def __init__(
        self,
        method: Any,
        copies: int = 100,
        max_angle: float = MAX_ANGLE,
        max_shift: float | None = None,
        tv_weight: float = TV_WEIGHT,
        l2_weight: float = L2_WEIGHT,
        combine: str = "subgradient",
        iterations: int | None = None,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        if combine not in COMBINE:
            raise ValueError(f"AugmentedCAM: expected combine among {', '.join(COMBINE)}, got {combine!r}")
        for name, number in (("copies", copies), ("batch_size", batch_size), ("iterations", iterations)):
            if number is not None and not (isinstance(number, int | np.integer) and number >= 1):
                raise ValueError(f"AugmentedCAM: expected {name} as an integer of 1 or more, got {number!r}")
        for name, weight in (("tv_weight", tv_weight), ("l2_weight", l2_weight)):
            if not 0 <= weight < np.inf:
                raise ValueError(f"AugmentedCAM: expected {name} of 0 or more, and finite, got {weight}")
        self.method, self.copies, self.max_angle, self.max_shift = method, copies, max_angle, max_shift
        self.tv_weight, self.l2_weight = tv_weight, l2_weight
        self.combine, self.iterations, self.batch_size, self.seed = combine, iterations, batch_size, seed

    def __call__(self, images: Any, class_index: Any = None) -> np.ndarray:
        """images (N, C, H, W), class_index an int, (N,), or None for each image's predicted class -> float32."""
        model = self.method.model
        images = as_images(model, images)
        with at_rest(model), no_grad():
            classes = as_classes(class_index, logits_of(model, images))
        size = images.shape[2:]
        matrices = random_augmentations(self.copies, size, self.max_angle, self.max_shift, self.seed)
        results = np.zeros((len(images), *size), np.float32)
        for image, label, result in zip(images.data, classes, results, strict=True):
            maps = maps_of_copies(self.method, image, matrices, int(label), self.batch_size)
            result[...] = self.combined(maps, matrices, size)
        return results

    @property
    def layer_name(self) -> str | None:
        """Of the method's layer."""
        return self.method.layer_name

    def combined(self, maps: np.ndarray, matrices: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The maps (L, h, w) of `maps_of_copies`, moved by matrices (L, 2, 3), as one of that size, float32.

        Maps of zeros are left out: that a copy shows the class nowhere says nothing of where it is.
        """
        if self.combine == "single":
            return single_map(maps, size)
        seen = maps.any(axis=(1, 2))
        maps, matrices = maps[seen], matrices[seen]
        if not len(maps):
            return np.zeros(size, np.float32)
        if self.combine in BASELINES:
            return BASELINES[self.combine](maps, matrices, size)
        energy = super_resolution(maps, matrices, size, self.tv_weight, self.l2_weight)
        options = {} if self.iterations is None else {"iterations": self.iterations}
        return SOLVERS[self.combine](energy, **options).h[0, 0]


def random_augmentations(
    copies: int, size: tuple[int, int], max_angle: float = MAX_ANGLE, max_shift: float | None = None, seed: int = 0
) -> np.ndarray:
    """Matrices (L, 2, 3) for `affine_warp`: rotated, then shifted, by uniform random numbers; the first not at all."""
    if max_shift is None:
        max_shift = MAX_SHIFT * min(size)
    if not (0 <= max_angle <= np.pi and 0 <= max_shift < min(size)):
        raise ValueError(
            f"random_augmentations: expected max_angle from 0 to pi and max_shift from 0 to less than the image's "
            f"{size[0]} x {size[1]} pixels, got {max_angle} and {max_shift}"
        )
    # One row a copy: more copies leave the first ones as they are.
    angle, *shift = np.random.default_rng(seed).uniform(-1, 1, (copies, 3)).T
    angle[0], shift[0][0], shift[1][0] = 0, 0, 0
    return rotation_then_translation(max_angle * angle, max_shift * np.stack(shift, axis=1), size)


def augment(image: Any, matrices: np.ndarray) -> Any:
    """image (C, H, W), matrices (L, 2, 3) -> its copies (L, C, H, W), on the image's device.

    What is not in the picture gets the picture's mean colour: a black corner would be an edge that no training image
    has, and many networks look at edges.
    """
    mean = image.mean(axis=(1, 2), keepdims=True)
    copies = kernels.affine_warp((image - mean)[None], matrices)
    copies += mean
    return copies


def maps_of_copies(method: Any, image: Any, matrices: np.ndarray, label: int, batch_size: int = 32) -> np.ndarray:
    """Of an image (C, H, W) the heat maps (L, h, w) of its copies, float32, each divided by its own maximum; zeros
    where a map has nothing positive. Raises ValueError for maps that are not finite."""
    parts = [
        method(Tensor(augment(image, matrices[start : start + batch_size])), label)
        for start in range(0, len(matrices), batch_size)
    ]
    maps = check_finite("heat maps", np.concatenate(parts))
    return quotient(maps, relu(maps.max(axis=(1, 2), keepdims=True)))


def super_resolution(
    maps: np.ndarray,
    matrices: np.ndarray,
    size: tuple[int, int],
    tv_weight: float = TV_WEIGHT,
    l2_weight: float = L2_WEIGHT,
) -> Energy:
    """Eq. (1) for maps (L, h, w): a function of h (1, 1, H, W). tv_weight and l2_weight are lambda/L and mu/L."""
    copies = len(maps)
    operator = decimated_warps(matrices, size, maps.shape[1:])
    return Energy(operator, maps[:, None], tv_weight * copies, l2_weight * copies)


def moved_back(maps: np.ndarray, matrices: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Maps (L, h, w) enlarged to the image's size and moved back, first the shift and then the rotation: (L, H, W); and
    how much of each pixel the copy saw, (L, H, W) from 0 to 1."""
    back = invert_affine(matrices)
    enlarged, everything = resize_map(maps, size)[:, None], np.ones((1, 1, *size), maps.dtype)
    return kernels.affine_warp(enlarged, back)[:, 0], kernels.affine_warp(everything, back)[:, 0]


def single_map(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The first copy's, which is the image itself, enlarged: Grad-CAM as everybody shows it."""
    return resize_map(maps[:1], size)[0]


def average_map(maps: np.ndarray, matrices: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """In each pixel the mean over the copies that saw it; 0 where none did."""
    back, seen = moved_back(maps, matrices, size)
    seen = seen.sum(axis=0)
    return np.divide(back.sum(axis=0), seen, out=np.zeros_like(seen), where=seen > 0)


def max_map(maps: np.ndarray, matrices: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """In each pixel the maximum over the copies."""
    return moved_back(maps, matrices, size)[0].max(axis=0)


SOLVERS = {"subgradient": subgradient_descent, "adam": adam, "primal_dual": primal_dual}
BASELINES = {"average": average_map, "max": max_map}
COMBINE = (*SOLVERS, "single", *BASELINES)
