"""How DeepPose is trained: people cut out of pictures, moved and mirrored; all stages of the cascade at once."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from minidet import Tensor, no_grad
from minidet.backbones import TinyBackbone, load_weights
from minidet.backbones.tiny import CHANNELS
from minidet.backbones.weights import read_weights
from minidet.data import transforms
from minidet.data.dataset import Dataset, Sample
from minidet.data.joints import JOINTS as ALL_JOINTS
from minidet.data.joints import NOT_LABELLED
from minidet.data.loader import collate
from minidet.drawing import draw_pose_errors, error_legend, grid, side_legend
from minidet.evaluation.pose import head_box_sizes, pose_metrics, torso_diameters
from minidet.models.pose import DeepPose
from minidet.training.system import System

DEFAULTS = {
    "epochs": 14,
    "batch_size": 32,
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "weight_decay": 1e-2,
    "warmup": 100,
    "size": 128,  # of the generated pictures, which show one person somewhere
    "images": 5000,
    "joints": "lsp",  # which joints the data have: lsp or mpii
    "crop_size": 96,  # a person's box is resampled to so many pixels a side
    "input_size": 64,  # and stage 1 looks at it in so many; the other stages see the detail
    "refiner_size": 24,  # pixels of the refiners' sub-images
    "stages": 2,
    "sigma": 1.0,  # side of the sub-images in torso diagonals
    "pose_loss": "l1",  # l2 (the paper's), l1, smooth_l1: see DeepPose
    "backbone": "",  # a file with the weights that stage 1's backbone starts from; none: random ones
    "augment": True,
}

JOINTS = {name: ALL_JOINTS[name] for name in ("lsp", "mpii")}

# Around a person's box, in fractions of its longer side: hands that something hides lie outside the visible part's box,
# and a joint at the edge wants to be seen with what is around it. More costs resolution.
MARGIN = 0.1
# Augmentation moves the box by up to this fraction of its side, three pixels of 64. Twice as much makes boxes that the
# test split does not have (there only hidden hands and feet change them), and learning slower: after an epoch the mean
# error is 3.5 pixels and not 3.1.
SHIFT = 0.05


# ---- people as pictures of their own ---------------------------------------------------------------------------------


def person_region(box: np.ndarray) -> np.ndarray:
    """(x, y, side): centre and side of the square, in continuous pixels, that a person with this box is looked at in.

    Raises ValueError for a box without an area: there is nothing to look at.
    """
    x1, y1, x2, y2 = np.asarray(box, np.float64)
    if not (x2 > x1 and y2 > y1):
        raise ValueError(
            f"expected a person's box x1 < x2, y1 < y2, got {[float(v) for v in box]}; leave the person out, or take "
            "the whole picture's"
        )
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2, (1 + 2 * MARGIN) * max(x2 - x1, y2 - y1)])


def crop_person(sample: Sample, person: int, pixels: int, region: np.ndarray | None = None) -> Sample:
    """The square region around one of a sample's people, person_region's by default, resampled to pixels x pixels.

    Joints move along; those outside the crop stay labelled. What lies outside the picture gets its mean colour.
    A sample whose people have no joints stays without.
    """
    x, y, side = person_region(sample.boxes[person]) if region is None else region
    left, top, scale = x - side / 2, y - side / 2, pixels / side
    keypoints = None
    if sample.keypoints is not None:
        keypoints = sample.keypoints[person : person + 1].copy()
        labelled = keypoints[..., 2] > NOT_LABELLED
        moved = (keypoints[..., :2] + 0.5 - (left, top)) * scale - 0.5
        keypoints[..., :2] = np.where(labelled[..., None], moved, 0)
    one = slice(person, person + 1)
    return Sample(
        image=resample(sample.image, left, top, side, pixels),
        boxes=(sample.boxes[one] - (left, top, left, top)) * scale,
        labels=sample.labels[one],
        keypoints=keypoints,
        name=sample.name,
        flip_swap=sample.flip_swap,
    )


def resample(image: np.ndarray, left: float, top: float, side: float, pixels: int) -> np.ndarray:
    """The square with these edges and side, in pixels of the image, as (pixels, pixels, 3) uint8. Bilinear; where it
    shrinks, neighbours are averaged."""
    height, width = image.shape[:2]
    first_row, first_column = math.floor(top), math.floor(left)
    count = math.ceil(side) + 2  # pixels that the square touches, in each direction
    canvas = np.empty((count, count, 3), np.uint8)
    canvas[:] = transforms.mean_color(image)
    rows = slice(max(first_row, 0), min(first_row + count, height))
    columns = slice(max(first_column, 0), min(first_column + count, width))
    if rows.start < rows.stop and columns.start < columns.stop:
        canvas[
            rows.start - first_row : rows.stop - first_row, columns.start - first_column : columns.stop - first_column
        ] = image[rows, columns]
    x, y = left - first_column, top - first_row
    box = (x, y, x + side, y + side)
    return np.asarray(Image.fromarray(canvas).resize((pixels, pixels), Image.Resampling.BILINEAR, box))


def augmentation(config: dict[str, Any]) -> Any:
    """One person of the picture, another one each time where there are several, moved and mirrored.

    A mirrored right hand is a left hand, and flip_swap says so; only pictures in which colours tell the sides apart
    have none. People without a labelled joint are passed over where there are others.
    """
    joints = len(JOINTS[config["joints"]][0])

    def transform(sample: Sample, rng: np.random.Generator) -> Sample:
        if sample.keypoints is None:  # trying the settings: nothing is labelled
            sample = replace(sample, keypoints=np.zeros((len(sample.boxes), joints, 3)))
        labelled = np.flatnonzero((sample.keypoints[..., 2] > NOT_LABELLED).any(axis=1))
        person = int(rng.choice(labelled if len(labelled) else len(sample.boxes)))
        region = person_region(sample.boxes[person])
        if not config["augment"]:
            return crop_person(sample, person, config["crop_size"], region)
        region[:2] += rng.uniform(-SHIFT, SHIFT, 2) * region[2]
        cropped = crop_person(sample, person, config["crop_size"], region)
        return transforms.flip(cropped, cropped.flip_swap) if rng.random() < 0.5 else cropped

    return transform


# ---- the system ------------------------------------------------------------------------------------------------------


def build(classes: tuple[str, ...], config: dict[str, Any], rng: np.random.Generator) -> DeepPose:
    """A cascade for people: the classes do not matter."""
    if config["joints"] not in JOINTS:
        raise ValueError(f"joints: expected {' or '.join(JOINTS)}, got {config['joints']!r}")
    return DeepPose(
        TinyBackbone(),
        JOINTS[config["joints"]][0],
        config["crop_size"],
        config["input_size"],
        config["stages"],
        config["sigma"],
        config["refiner_size"],
        config["pose_loss"],
    )


def start(model: DeepPose, config: dict[str, Any], dataset: Any) -> None:
    """Transfer: the weights that `backbone` names, a file of a backbone or of a run that has one (best.safetensors)."""
    path, prefix = config["backbone"], "backbone."
    if not path:
        return
    if Path(path).is_dir():
        raise ValueError(
            f"backbone: expected a file, got the folder {path}; a run's weights are {Path(path) / 'best.safetensors'}"
        )
    try:
        of_a_run = any(key.startswith(prefix) for key in read_weights(path))
        load_weights(model.backbone, path, prefix=prefix if of_a_run else "")
    except ValueError as error:
        channels = ", ".join(map(str, CHANNELS))
        raise ValueError(
            f"backbone: {error}; expected a TinyBackbone of channels {channels}, as `minidet train classifier` trains; "
            "after `minidet train classifier --out RUN` it is --set backbone=RUN/best.safetensors"
        ) from error


def check(dataset: Dataset, config: dict[str, Any]) -> None:
    """Every picture shows at least one person with a labelled joint, and the joints are those that the run is for."""
    expected = JOINTS[config["joints"]][0]
    for record in dataset.records:
        if record.keypoints is None or dataset.joint_names != expected:
            names = ", ".join(dataset.joint_names or ()) or "no joints"
            raise ValueError(
                f"{record.path}: expected the {len(expected)} joints of {config['joints']} ({', '.join(expected)}), "
                f"got {names}; other joints: --set joints=..., `minidet data make --task pose` makes such pictures"
            )
        if not len(record.boxes) or not (record.keypoints[..., 2] > NOT_LABELLED).any():
            raise ValueError(
                f"{record.path}: expected at least one person with a labelled joint, got {len(record.boxes)} people "
                "without; leave the picture out"
            )


def people(samples: Sequence[Sample]) -> Iterator[tuple[int, Sample, int]]:
    """(number of the sample, the sample, which of its people) for all people in order.

    A picture without boxes is one person's, whole: somebody's picture to look at comes without any.
    """
    for number in range(len(samples)):
        sample = samples[number]
        if not len(sample.boxes):
            height, width = sample.image.shape[:2]
            whole = np.array([[0.0, 0, width, height]])
            sample = replace(sample, boxes=whole, labels=np.ones(1, np.int64), keypoints=None)
        for person in range(len(sample.boxes)):
            yield number, sample, person


def predict(model: DeepPose, samples: Sequence[Sample], batch_size: int = 64) -> list[dict]:
    """One prediction a sample, of its P people: keypoints (P, J, 3), stage_keypoints (stages, P, J, 2) in its pixels.

    boxes: the people's. regions (P, 3): centre and side of what was looked at. DeepPose finds no people and gives no
    scores. The model is left in evaluation mode.
    """
    model.eval()
    found: list[list[dict]] = [[] for _ in range(len(samples))]
    everybody = people(samples)
    while batch := list(islice(everybody, batch_size)):
        regions = [person_region(sample.boxes[person]) for _, sample, person in batch]
        crops = [
            crop_person(sample, person, model.image_size, region)
            for (_, sample, person), region in zip(batch, regions, strict=True)
        ]
        with no_grad():
            results = model(Tensor(collate(crops, np.arange(len(crops))).images).to(model.device))
        for (number, sample, person), region, result in zip(batch, regions, results, strict=True):
            places = {name: in_picture(array, region, model.image_size) for name, array in result.items()}
            found[number].append(places | {"box": sample.boxes[person], "region": region})
    return [gather(of_sample) for of_sample in found]


def in_picture(joints: np.ndarray, region: np.ndarray, pixels: int) -> np.ndarray:
    """Joints (..., 2 or more), x, y first, from a crop of pixels x pixels back to the picture that it was cut from."""
    joints = joints.astype(np.float64)
    joints[..., :2] = (joints[..., :2] + 0.5) * region[2] / pixels + region[:2] - region[2] / 2 - 0.5
    return joints


def gather(found: list[dict]) -> dict:
    """What was found of each person of one picture, as one prediction."""
    return {
        "keypoints": np.concatenate([person["keypoints"] for person in found]),
        "stage_keypoints": np.stack([person["stage_keypoints"] for person in found], axis=1),
        "boxes": np.stack([person["box"] for person in found]),
        "regions": np.stack([person["region"] for person in found]),
        "labels": np.ones(len(found), np.int64),
    }


def evaluate(model: DeepPose, dataset: Dataset, batch_size: int = 64) -> tuple[dict[str, float], list[dict]]:
    """Metrics over all people of a data set, NaN where there are none, and the predictions. Pictures without people do
    not count.

    mean_error is in pixels of stage 1's input, input_size a side, so that people of all sizes count alike. pckh_50 goes
    by head boxes as MPII does, where the data set has them: people without one are left out of it. Else by the segment
    from neck to head top.
    """
    predictions = predict(model, dataset, batch_size)
    nobody = np.zeros((0, len(model.joints), 3))
    shown = [(record, found) for record, found in zip(dataset.records, predictions, strict=True) if len(record.boxes)]
    truth = np.concatenate([nobody, *(record.keypoints for record, _ in shown)])
    predicted = np.concatenate([nobody, *(found["keypoints"] for _, found in shown)])
    head_boxes = [record.head_boxes for record, _ in shown if record.head_boxes is not None]
    head_sizes = head_box_sizes(np.concatenate(head_boxes)) if head_boxes else None
    regions = np.concatenate([np.zeros((0, 3)), *(found["regions"] for _, found in shown)])
    scale = model.input_size / regions[:, 2]  # pixels of the network's input in one pixel of the picture
    return pose_metrics(predicted, truth, model.joints, scale, head_sizes), predictions


def draw(samples: Sequence[Sample], predictions: list[dict], classes: tuple[str, ...]) -> np.ndarray:
    """Skeletons with joints coloured by their error, the true skeleton dashed beside them; by their side, where no
    truth is known."""
    joints = predictions[0]["keypoints"].shape[1]
    names, limbs = next(pair for pair in JOINTS.values() if len(pair[0]) == joints)
    pictures = []
    for number, prediction in enumerate(predictions):
        sample = samples[number]
        truth = sample.keypoints if len(sample.boxes) else None
        sizes = None if truth is None else torso_diameters(truth, names)
        pictures.append(draw_pose_errors(sample.image, prediction["keypoints"], truth, sizes, limbs, names))
    sheet = grid(pictures)
    legend = (error_legend if any(len(sample.boxes) for sample in samples) else side_legend)(sheet.shape[1])
    wider = legend.shape[1] - sheet.shape[1]
    return np.concatenate([np.pad(sheet, ((0, 0), (0, wider), (0, 0)), constant_values=255), legend])


SYSTEM = System(
    name="pose",
    build=build,
    transform=augmentation,
    evaluate=evaluate,
    draw=draw,
    check=check,
    predict=predict,
    start=start,
    task="pose",
    joints=True,
    predict_note="DeepPose finds no people: the whole picture is taken as a person's box, so cut it to one person",
    metric="pdj_20",  # PCKh@0.5 hardly moves in the last epochs, while joints are still hit closer
    metrics_note="mean_error is in pixels of the network's input, which has input_size a side, 64 by default",
    defaults=DEFAULTS,
)
