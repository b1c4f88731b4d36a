"""OpenPose (Cao et al. 2017): the joints of everybody at once, and fields that say which belong together.

    image -> backbone -> maps F -> stage 1 -> confidence maps S, one a joint, and part affinity fields L, two a limb
                                F, S, L -> stage 2 -> better S and L -> ... -> people (models/people.py)

No people are detected first, so that the time does not grow with their number. A confidence map is high where a joint
of its kind is, of anybody. A field is a vector at each pixel: along its limb where one lies, 0 elsewhere. Every stage
sees what the one before has said, all of the image, and so tells a left hand by the shoulder; each has losses of its
own, so that gradients do not vanish on their way to the first.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import functional as F
from .. import nn, watch
from ..backbones.tiny import ConvBlock, centred
from ..boxes.keypoints import cubic_weights
from ..device import on_device_of, to_numpy
from .image_batch import ImageBatch, batch_images, detection_targets, with_keypoints
from .people import people_of, spanning_tree

# In pixels of the batch. How far a peak reaches: its height is 1/e so far from the joint (equation 6). Smaller is more
# exact, until between two cells nothing is seen of it.
SIGMA = 4.0
# Half the width of the band around a limb in which the field points along it (equation 8).
LIMB_WIDTH = 3.0
LEAST_WIDTH, MOST_WIDTH = 0.1, 1e4  # of both: nothing is seen of less, and the squares of much more are infinite


class OpenPoseStage(nn.Module):
    """Maps (N, C, H, W) -> confidence (N, J, H, W) and fields (N, 2 L, H, W), by two branches of 3 x 3 convolutions."""

    def __init__(self, in_channels: int, joints: int, limbs: int, channels: int, convolutions: int) -> None:
        super().__init__()
        self.confidence = branch(in_channels, channels, convolutions, joints)
        self.fields = branch(in_channels, channels, convolutions, 2 * limbs)

    def forward(self, maps: Any) -> tuple[Any, Any]:
        return self.confidence(maps), self.fields(maps)


def branch(in_channels: int, channels: int, convolutions: int, outputs: int) -> nn.Sequential:
    """3 x 3 convolutions, then what they found is read at each pixel by a 1 x 1 convolution."""
    blocks = [ConvBlock(channels if number else in_channels, channels) for number in range(convolutions)]
    return nn.Sequential(*blocks, nn.Conv2d(channels, outputs, 1))


class OpenPose(nn.Module):
    """images -> people.

    backbone     images (N, 3, H, W) -> maps, with out_channels and stride
    joints       J, how many a person has
    limbs        pairs of joints, that connect all of them
    stages       how many; each one makes the maps of the one before better
    channels, convolutions   of each branch of each stage. The authors' have 128 and 5, of 7 x 7
    sigma, limb_width        see SIGMA and LIMB_WIDTH
    normalize, min_size, max_size   how images are prepared: batch_images

    `read_stage`: the stage whose maps people are read from, the last by default.
    Training: model(images, targets) -> two losses a stage. targets: dicts with boxes (R, 4), labels (R,), iscrowd (R,)
    and keypoints (R, J, 3), on the CPU, in pixels of their image. Crowds, and people without a labelled joint, are
    not trained on: neither are the pixels of their boxes. Evaluation: model(images) -> a dict an image with keypoints
    (P, J, 3), labels (P,), all 1, and scores (P,), on the CPU.
    """

    def __init__(
        self,
        backbone: nn.Module,
        joints: int,
        limbs: Sequence[tuple[int, int]],
        stages: int = 2,
        channels: int = 64,
        convolutions: int = 3,
        sigma: float = SIGMA,
        limb_width: float = LIMB_WIDTH,
        normalize: Callable[[Any], Any] = centred,
        min_size: int | None = None,
        max_size: int | None = None,
    ) -> None:
        super().__init__()
        if not (LEAST_WIDTH <= sigma <= MOST_WIDTH and LEAST_WIDTH <= limb_width <= MOST_WIDTH):
            limits = f"from {LEAST_WIDTH} to {MOST_WIDTH:.0f} pixels"
            raise ValueError(f"OpenPose: expected sigma and limb_width {limits}, got {sigma} and {limb_width}")
        self.tree = spanning_tree(limbs, joints)
        self.sigma, self.limb_width = sigma, limb_width
        self.normalize, self.min_size, self.max_size = normalize, min_size, max_size
        self.backbone = backbone
        maps, said = backbone.out_channels, joints + 2 * len(self.tree)
        self.stages = nn.ModuleList(
            OpenPoseStage(maps + said * (number > 0), joints, len(self.tree), channels, convolutions)
            for number in range(stages)
        )
        self.read_stage = stages - 1

    def forward(self, images: Any, targets: list[dict] | None = None) -> Any:
        batch = batch_images(images, self.normalize, self.min_size, self.max_size, self.backbone.stride)
        truth = detection_targets(targets, batch, 1) if self.training else []
        maps = self.backbone(batch.tensor)
        watch.emit("backbone.maps", maps)
        said: list[tuple[Any, Any]] = []
        for stage in self.stages:
            said.append(stage(F.concatenate([maps, *said[-1]], 1) if said else maps))
            watch.emit("openpose.confidence", said[-1][0])
            watch.emit("openpose.fields", said[-1][1])
        if not self.training:
            confidence, fields = (to_numpy(x.data) for x in said[self.read_stage])
            return batch.to_original(self.people(confidence, fields, batch))
        truth = with_keypoints(truth, len(self.tree) + 1)
        goals = [np.stack(part) for part in zip(*(self.goals(one, maps.shape[2:]) for one in truth), strict=True)]
        return stage_losses(said, *goals)

    def people(self, confidence: np.ndarray, fields: np.ndarray, batch: ImageBatch) -> list[dict]:
        """The people of each image, in pixels of the batch. Maps are resized to these first, cubically: the maximum may
        lie between cells."""
        found = []
        for image, size in enumerate(batch.sizes):
            fine = [enlarged(x[image], self.backbone.stride, size) for x in (confidence, fields)]
            one = people_of(fine[0], fine[1].reshape(len(self.tree), 2, *size), self.tree)
            found.append(one | {"labels": np.ones(len(one["scores"]), np.int64)})
        return found

    def goals(self, target: dict, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What a stage should say of one image: confidence (J, H, W), fields (2 L, H, W); and where, counts (H, W)."""
        keypoints, stride = target["keypoints"], self.backbone.stride
        labelled = (keypoints[..., 2] > 0).any(axis=1)
        cells = x, y = cell_centers(grid, stride)
        counts = np.ones(grid, np.float32)
        for x1, y1, x2, y2 in [*target["crowds"], *target["boxes"][~labelled]]:
            columns, rows = (x >= x1 - 0.5) & (x <= x2 - 0.5), (y >= y1 - 0.5) & (y <= y2 - 0.5)
            counts[rows[:, None] & columns] = 0
        confidence = confidence_maps(keypoints, cells, self.sigma)
        return confidence, affinity_fields(keypoints, self.tree, cells, self.limb_width), counts


def cell_centers(grid: tuple[int, int], stride: int) -> tuple[np.ndarray, np.ndarray]:
    """x (W,) and y (H,) of the cells' centres in pixels, whole numbers at pixel centres."""
    y, x = ((np.arange(count, dtype=np.float32) + 0.5) * stride - 0.5 for count in grid)
    return x, y


def enlarged(maps: np.ndarray, stride: int, size: tuple[int, int]) -> np.ndarray:
    """Maps (C, H, W) at each pixel of an image of that size, which is the upper left part of what they show."""
    height, width = maps.shape[1:]
    rows, columns = (cubic_weights(side, side * stride) for side in (height, width))
    return rows[: size[0]] @ maps @ columns[: size[1]].T


def confidence_maps(keypoints: np.ndarray, cells: tuple[np.ndarray, np.ndarray], sigma: float) -> np.ndarray:
    """(J, H, W) float32: exp(-d^2 / sigma^2) of the distance d to the nearest labelled joint of each kind (equations 6
    and 7). The highest peak counts, not the sum: close ones stay apart. keypoints (P, J, 3); cells: cell_centers."""
    # A Gaussian is one along x times one along y, which takes far fewer exponentials.
    across, down = (
        np.exp(-((centers - keypoints[:, :, axis, None]) ** 2) / sigma**2) for axis, centers in enumerate(cells)
    )  # (P, J, W), (P, J, H)
    labelled = keypoints[:, :, 2, None, None] > 0
    peaks = np.where(labelled, down[..., None] * across[:, :, None], 0)  # (P, J, H, W)
    return peaks.max(axis=0, initial=0).astype(np.float32)


def affinity_fields(
    keypoints: np.ndarray, tree: Sequence[tuple[int, int]], cells: tuple[np.ndarray, np.ndarray], width: float
) -> np.ndarray:
    """(2 L, H, W) float32, x and y of each limb: its unit vector on the pixels that lie beside it, not farther than
    `width` (equation 8); where several people's limbs do, the mean of theirs (equation 9)."""
    first, second = (keypoints[:, [limb[side] for limb in tree]] for side in (0, 1))  # (P, L, 3)
    between = second[..., :2] - first[..., :2]
    length = np.linalg.norm(between, axis=-1, keepdims=True)
    unit = between / np.maximum(length, 1e-6)
    x, y = (centers - first[..., axis, None] for axis, centers in enumerate(cells))  # (P, L, W), (P, L, H)
    u, v = unit[..., :1], unit[..., 1:]
    along = (u * x)[:, :, None] + (v * y)[..., None]  # (P, L, H, W)
    across = np.abs((v * x)[:, :, None] - (u * y)[..., None])
    seen = (first[..., 2] > 0) & (second[..., 2] > 0) & (length[..., 0] > 0)
    on = (along >= 0) & (along <= length[..., None]) & (across <= width) & seen[:, :, None, None]
    total = (on[:, :, None] * unit[..., None, None]).sum(axis=0)  # (L, 2, H, W)
    mean = total / np.maximum(on.sum(axis=0), 1)[:, None]
    return mean.reshape(-1, *mean.shape[2:]).astype(np.float32)


def stage_losses(
    said: list[tuple[Any, Any]], confidence: np.ndarray, fields: np.ndarray, counts: np.ndarray
) -> dict[str, Any]:
    """The sums of squared errors of each stage, of an image (equation 5). said: of each stage S and L; confidence,
    fields: what they should be; counts (N, H, W): where."""
    losses = {}
    where = on_device_of(counts[:, None], said[0][0].data)
    goals = [on_device_of(goal, said[0][0].data) for goal in (confidence, fields)]
    for number, maps in enumerate(said, start=1):
        for name, of_stage, goal in zip(("confidence", "fields"), maps, goals, strict=True):
            losses[f"loss_{name}_{number}"] = ((of_stage - goal) ** 2 * where).sum() / len(counts)
    return losses
