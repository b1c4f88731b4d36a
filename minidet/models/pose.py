"""Human pose by regression: DeepPose (Toshev and Szegedy, CVPR 2014), which reads the joints' places off the picture.

A pose is a vector of J joints. A network looks at a person's box and gives 2 J numbers, the joints' places relative to
that box (stage 1). It sees the whole person, so it knows roughly where a hidden wrist must be; but at its resolution it
cannot say so to the pixel. The cascade can: each further stage looks at a small box around every joint that the stage
before has found, at higher resolution, and says how far it is off.

    stage 1     y_i  <-  N^-1( psi_i(N(x; b); theta_1); b )                        b: the person's box
    stage s     y_i  <-  y_i + sigma diam(y) psi_i(N(x; b_i); theta_s)             b_i = (y_i, sigma diam(y))

N normalises a place, or cuts out and resamples a picture, by a box. Section numbers are the paper's.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import functional as F
from .. import nn, watch
from ..backbones.tiny import ConvBlock, centred
from ..data.joints import LSP_JOINTS, NOT_LABELLED, torso_diagonals
from ..device import on_device_of, to_numpy
from ..random import generator

POSE_LOSSES = ("l2", "l1", "smooth_l1")

# Where smooth-l1 turns from a parabola into a line, in fractions of the box: 0.02 is 1.3 pixels of 64.
SMOOTH_L1_BETA = 0.02

# diam(y) where it cannot be measured, in fractions of the longer side of the person's box: a standing figure's torso
# diagonal is about 0.3 of its height (minidet/data/figures.py), and its box leaves a margin around it.
TORSO_FRACTION = 0.25
# A torso that is predicted smaller than this is a mistake: its sub-images would show nothing.
LEAST_TORSO_FRACTION = 0.1

# Of the refiners, which only have to find one joint nearby: fourteen sub-images of 24 pixels cost a third of stage 1's
# multiplications.
REFINER_CHANNELS = (16, 32, 64)
REFINER_HIDDEN = 32  # numbers that each joint's own two layers pass on

# Pixels, outside of any picture. A network that diverges points further, and RoIAlign takes numbers up to 2^20.
FAR = 1e6

# Weight of one batch in the running mean of the displacements: the last hundred batches count. More would follow a
# network that learns too slowly, fewer would not measure a covariance.
MOMENTUM = 0.01


# ---- N(y; b) and N(x; b): section 3 ---------------------------------------------------------------------------------


def normalize(y: Any, center: Any, size: Any) -> Any:
    """N(y; b) = diag(1/bw, 1/bh) (y - bc): places relative to a box, whose inside becomes [-1/2, 1/2].

    y (..., 2) in pixels; the box's center bc (..., 2) and its size (bw, bh) or one side for both.
    """
    return (y - center) / size


def denormalize(z: Any, center: Any, size: Any) -> Any:
    """N^-1(z; b) = diag(bw, bh) z + bc: back to pixels."""
    return linear_part(z, size) + center


def linear_part(z: Any, size: Any) -> Any:
    """The linear part of N^-1, diag(bw, bh) z: what a displacement becomes, which knows no centre."""
    return z * size


def sub_images(images: Any, center: np.ndarray, size: np.ndarray, pixels: int) -> Any:
    """N(x; b): each picture inside each of its boxes, resampled. The same for all stages.

    images (N, C, H, W); center and size (N, B, 2), continuous pixel coordinates -> (N * B, C, pixels, pixels).
    One bilinear sample in the middle of each new pixel, which is RoIAlign with one sample a bin; what lies outside the
    picture is black, and so is a box without a place (NaN), where a network that diverges looks: it shall come to its
    loss, which tells.
    """
    count, boxes = center.shape[:2]
    half = np.broadcast_to(size, center.shape) / 2
    corners = np.concatenate([center - half, center + half], axis=2).reshape(-1, 4)
    picture = np.repeat(np.arange(count), boxes)[:, None]
    corners = np.clip(np.nan_to_num(corners, nan=FAR), -FAR, FAR)
    rois = np.concatenate([picture, corners], axis=1).astype(images.dtype)
    return F.roi_align(images, rois, pixels, sampling_ratio=1, aligned=True)


# ---- the networks ----------------------------------------------------------------------------------------------------


class DeepPose(nn.Module):
    """images (N, 3, H, H) float32 in [0, 1], each a person's box cut out of a picture -> J joints each.

    backbone      of stage 1: features (N, C, S/stride, S/stride); it says its out_channels and stride. A pretrained one
                  (transfer) is handed over here
    joints        the joints' names; they tell which of them make the torso
    image_size    H
    input_size    S, pixels of stage 1's input, H or less: the later stages see more of the detail
    stages        networks of the cascade, 1 for none
    sigma         side of a refiner's box in torso diagonals. Smaller sees more detail and cannot reach as far
    refiner_size  pixels of a refiner's input
    loss          "l2" (the paper's and the lecture's), "l1" or "smooth_l1", over labelled joints only. l2 looks at
                  the largest errors most, l1 at all alike: joints that are nearly right become exact
    hidden        units of stage 1's hidden layer

    Training: model(images, targets) -> {"stage1": ..., "stage2": ...}, every stage's loss; their sum is minimised, and
    as the stages share no parameter and the boxes are constants, each is trained as if it were alone.
    targets: dicts with keypoints (1, J, 3), x, y, v in pixels of the image, whole numbers at pixel centres; joints with
    v = 0 are left out. Joints outside the image are learned like others. A person without any labelled joint adds
    nothing.
    Evaluation: model(images) -> dicts with keypoints (1, J, 3), v = 2, and stage_keypoints (stages, J, 2).

    On a GPU the host waits for each stage but the last, to know where the next one has to look.
    """

    def __init__(
        self,
        backbone: nn.Module,
        joints: Sequence[str] = LSP_JOINTS,
        image_size: int = 96,
        input_size: int = 64,
        stages: int = 2,
        sigma: float = 1.0,
        refiner_size: int = 24,
        loss: str = "l1",
        hidden: int = 512,
    ) -> None:
        super().__init__()
        if loss not in POSE_LOSSES:
            raise ValueError(f"DeepPose: expected loss among {', '.join(POSE_LOSSES)}, got {loss!r}")
        if input_size < 1 or input_size % backbone.stride:
            raise ValueError(
                f"DeepPose: expected input_size to be a multiple of the backbone's stride {backbone.stride}, "
                f"got {input_size}"
            )
        if image_size < input_size:
            raise ValueError(
                f"DeepPose: expected image_size to be input_size, {input_size}, or more, got {image_size}; stage 1 "
                "would see invented pixels"
            )
        if stages < 1 or not sigma > 0:
            raise ValueError(f"DeepPose: expected at least 1 stage and sigma above 0, got {stages} and {sigma}")
        self.joints, self.sigma, self.loss = tuple(joints), sigma, loss
        self.image_size, self.input_size, self.refiner_size = image_size, input_size, refiner_size
        self.torso = torso_diagonals(self.joints)
        # Stage 1. Flattened, the map still knows where things are, which an average over it would not.
        self.backbone = backbone
        features = backbone.out_channels * (input_size // backbone.stride) ** 2
        self.head = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, 2 * len(joints)))
        # Start with all joints near the middle: a large first error would throw the backbone off.
        nn.init.normal_(self.head[-1].weight, std=0.01)
        nn.init.zeros_(self.head[-1].bias)
        # Stages 2, 3, ...
        self.refiners = nn.ModuleList(Refiner(len(joints), refiner_size) for _ in range(stages - 1))

    def forward(self, images: Any, targets: list[dict] | None = None) -> Any:
        if tuple(images.shape[1:]) != (3, self.image_size, self.image_size):
            raise ValueError(
                f"DeepPose: expected images (N, 3, {self.image_size}, {self.image_size}), got {images.shape}; cut the "
                "people out and resample them, as crop_person does"
            )
        return self.predictions(images) if targets is None else self.losses(images, targets)

    def first_stage(self, images: Any) -> tuple[Any, np.ndarray, np.ndarray]:
        """psi(N(x; b)) (N, J, 2), and the box b that it is relative to: all of the image."""
        count, side = images.shape[0], self.image_size
        center, size = np.full((count, 1, 2), side / 2, np.float32), np.full((count, 1, 2), side, np.float32)
        features = self.backbone(sub_images(images, center, size, self.input_size))
        watch.emit("pose.features", features)
        return self.head(features.flatten(1)).reshape((count, len(self.joints), 2)), center, size

    # ---- training: section 3.1, and the augmented training set of section 3.2

    def losses(self, images: Any, targets: list[dict]) -> dict[str, Any]:
        """The loss of every stage. Stage s >= 2 is trained on boxes around the *true* joints, displaced as stage s - 1
        displaces them."""
        y, labelled = self.truth(targets)  # (N, J, 2) in continuous coordinates, (N, J)
        z, center, size = self.first_stage(images)
        losses = {"stage1": self.regression(z, normalize(y, center, size), labelled)}
        diameter = self.diameter(y, labelled, size)  # (N, 1, 1)
        for stage, refiner in enumerate(self.refiners, start=2):
            found = denormalize(to_numpy(z.data), center, size)  # by the stage before
            refiner.measure((found - y) / diameter, labelled)
            center, size = y + refiner.draw(len(y)) * diameter, self.sigma * diameter
            z = refiner(sub_images(images, center, size, self.refiner_size))
            losses[f"stage{stage}"] = self.regression(z, normalize(y, center, size), labelled)
        return losses

    def regression(self, z: Any, target: np.ndarray, labelled: np.ndarray) -> Any:
        """The loss over labelled joints only, divided by the number of labelled coordinates; 0 if there are none.

        z, target: (N, J, 2) relative to the boxes. labelled: (N, J) bool. An unlabelled joint's target is no place: it
        says nothing, and teaching it would pull all predictions there.
        """
        target = on_device_of(target.astype(z.dtype), z.data)
        if self.loss == "smooth_l1":
            errors = F.smooth_l1_loss(z, target, "none", beta=SMOOTH_L1_BETA)
        else:
            errors = F.l1_loss(z, target, "none") if self.loss == "l1" else F.mse_loss(z, target, "none")
        weight = labelled[..., None] / max(2 * labelled.sum(), 1)
        return (errors * on_device_of(weight.astype(z.dtype), z.data)).sum()

    def truth(self, targets: list[dict]) -> tuple[np.ndarray, np.ndarray]:
        """Continuous places (N, J, 2) and which of them are labelled (N, J), of targets with one person each."""
        for position, target in enumerate(targets):
            shape = np.shape(target.get("keypoints", ()))
            if shape != (1, len(self.joints), 3):
                raise ValueError(
                    f"DeepPose: expected keypoints (1, {len(self.joints)}, 3), one person an image, got {shape} in "
                    f"image {position} of a batch; cut each person out with crop_person"
                )
        keypoints = np.concatenate([target["keypoints"] for target in targets]).astype(np.float32)
        labelled = keypoints[..., 2] > NOT_LABELLED
        return np.where(labelled[..., None], keypoints[..., :2] + 0.5, 0), labelled

    def diameter(self, y: np.ndarray, labelled: np.ndarray, size: np.ndarray) -> np.ndarray:
        """diam(y) (N, 1, 1) in pixels: the torso's diagonal, shoulder to opposite hip. See TORSO_FRACTION.

        The mean of the two diagonals; of one, where the other has an unlabelled end.
        """
        side = size.max(axis=(1, 2))  # (N,) of the person's box
        diameter = torso_diameter(y, labelled, self.torso)
        diameter = np.where(np.isnan(diameter), TORSO_FRACTION * side, diameter)
        return np.maximum(diameter, LEAST_TORSO_FRACTION * side)[:, None, None].astype(np.float32)

    # ---- evaluation: the two lines at the top of this file

    def predictions(self, images: Any) -> list[dict]:
        """The cascade: each stage looks where the one before has pointed."""
        z, center, size = self.first_stage(images)
        y = denormalize(to_numpy(z.data), center, size)  # (N, J, 2)
        stages, box_size, everywhere = [y], size, np.ones(y.shape[:2], bool)
        for refiner in self.refiners:
            size = self.sigma * self.diameter(y, everywhere, box_size)
            z = refiner(sub_images(images, y, size, self.refiner_size))
            y = y + linear_part(to_numpy(z.data), size)  # the centre is in y already
            stages.append(y)
        watch.emit("pose.stages", lambda: np.stack(stages))
        visible = np.full((*y.shape[:2], 1), 2, y.dtype)
        keypoints = np.concatenate([y - 0.5, visible], axis=2)  # continuous coordinates -> centres of pixels
        by_stage = np.stack(stages, axis=1) - 0.5  # (N, stages, J, 2)
        return [{"keypoints": k[None], "stage_keypoints": s} for k, s in zip(keypoints, by_stage, strict=True)]


def torso_diameter(y: np.ndarray, labelled: np.ndarray, diagonals: Sequence[tuple[int, int]]) -> np.ndarray:
    """diam(y) (N,): the mean length of the torso's diagonals whose ends are both labelled, NaN where there is none.

    y (N, J, 2), labelled (N, J); diagonals: pairs of joints, as minidet.data.joints.torso_diagonals finds them.
    """
    lengths = [np.linalg.norm(y[:, a] - y[:, b], axis=1) for a, b in diagonals]
    known = np.array([labelled[:, a] & labelled[:, b] for a, b in diagonals]).reshape(len(diagonals), len(y))
    total = (np.array(lengths).reshape(known.shape) * known).sum(axis=0)
    return np.divide(total, known.sum(axis=0), out=np.full(len(y), np.nan), where=known.any(axis=0))


class Refiner(nn.Module):
    """psi(.; theta_s), s >= 2: sub-images (N * J, 3, S, S), person by person -> displacements (N, J, 2) in their size.

    One refiner a joint: each joint has two layers of its own, psi_i. Below them all joints share the convolutions, as
    the paper's one theta_s says; edges and ends of limbs look alike, and shared filters learn from J times as many.

    displacement_mean (J, 2), displacement_square (J, 2, 2): running means of d and d d' for d = the previous stage's
    place minus the true one, in torso diagonals. They make the Gaussian that training boxes are displaced by.
    """

    def __init__(self, joints: int, size: int) -> None:
        super().__init__()
        if size < 8 or size % 8:
            raise ValueError(f"Refiner: expected a size that can be halved three times, such as 24, got {size}")
        low, middle, high = REFINER_CHANNELS
        self.joints = joints
        self.trunk = nn.Sequential(
            ConvBlock(3, low, stride=2), ConvBlock(low, middle, stride=2), ConvBlock(middle, middle),
            ConvBlock(middle, high, stride=2),
        )  # fmt: skip
        self.hidden = PerJointLinear(joints, high * (size // 8) ** 2, REFINER_HIDDEN)
        self.output = PerJointLinear(joints, REFINER_HIDDEN, 2)
        nn.init.normal_(self.output.weight, std=0.01)  # a new refiner leaves the joints where they are
        # float64: a covariance is a small difference of these, and the draws go with its root.
        self.register_buffer("displacement_mean", np.zeros((joints, 2)))
        self.register_buffer("displacement_square", np.zeros((joints, 2, 2)))
        self.register_buffer("num_batches_tracked", np.zeros(joints, np.int64))

    def forward(self, x: Any) -> Any:
        features = self.trunk(centred(x)).flatten(1)  # (N * J, F)
        by_joint = features.reshape((-1, self.joints, features.shape[1])).transpose(1, 0, 2)  # (J, N, F)
        return self.output(F.relu(self.hidden(by_joint))).transpose(1, 0, 2)  # (N, J, 2)

    def measure(self, displacement: np.ndarray, labelled: np.ndarray) -> None:
        """Takes the displacements (N, J, 2) of one batch into the running means; those of labelled joints (N, J)."""
        count = labelled.sum(axis=0)
        seen = count > 0
        d = np.where(labelled[..., None], displacement, 0).astype(np.float64)
        mean = d.sum(axis=0)[seen] / count[seen, None]
        square = np.einsum("nji,njk->jik", d, d)[seen] / count[seen, None, None]
        batches = to_numpy(self.num_batches_tracked) + seen
        weight = np.maximum(1 / np.maximum(batches, 1), MOMENTUM)[seen]  # a plain mean of the first hundred
        for buffer, new in ((self.displacement_mean, mean), (self.displacement_square, square)):
            old = to_numpy(buffer).copy()
            share = weight.reshape(-1, *[1] * (old.ndim - 1))
            old[seen] += share * (new - old[seen])
            buffer[...] = on_device_of(old, buffer)
        self.num_batches_tracked[...] = on_device_of(batches, self.num_batches_tracked)

    def displacements(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (J, 2) and covariance (J, 2, 2) of the previous stage's displacements, in torso diagonals."""
        mean, square = to_numpy(self.displacement_mean), to_numpy(self.displacement_square)
        return mean, square - mean[:, :, None] * mean[:, None, :]

    def draw(self, count: int) -> np.ndarray:
        """(count, J, 2) displacements from each joint's Gaussian."""
        mean, covariance = self.displacements()
        # The symmetric root of the covariance: a singular matrix has one too, and it is continuous, so that other last
        # bits on another device do not become different boxes.
        values, vectors = np.linalg.eigh(covariance)
        root = np.einsum("jia,ja,jka->jik", vectors, np.sqrt(np.maximum(values, 0)), vectors)
        noise = generator().standard_normal((count, self.joints, 2))
        return (mean + np.einsum("jik,njk->nji", root, noise)).astype(np.float32)


class PerJointLinear(nn.Module):
    """A fully connected layer for each joint: x (J, N, in) -> (J, N, out)."""

    def __init__(self, joints: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(np.empty((joints, in_features, out_features), np.float32))
        self.bias = nn.Parameter(np.zeros((joints, 1, out_features), np.float32))
        bound = np.sqrt(6 / in_features)  # He et al. 2015 for the ReLU behind it
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Any) -> Any:
        return x @ self.weight + self.bias
