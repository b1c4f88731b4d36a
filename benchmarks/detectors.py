"""Detecting in one image with each small detector, against the same network in torch: python -m benchmarks detectors

One image of 128 x 128 with objects, float32, evaluation, no gradients. The networks are the recipes', on the backbone
that knows the classes; their last layers have random weights, so large that most find dozens of boxes to suppress, and
OpenPose hundreds of joints. All have the same backbone, so the rows say, too, what one look and what two looks at an
image take.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.engines import Row

SYSTEMS = {
    "yolo": "YOLO",
    "yolo_v1": "YOLO v1",
    "ssd": "SSD",
    "faster_rcnn": "Faster R-CNN",
    "mask_rcnn": "Mask R-CNN",
    "keypoint_rcnn": "Keypoint R-CNN",
    "openpose": "OpenPose",
}
CLASSES = 7
# Of the weights of the last layers: as after training scores spread, boxes move a little, and maps have peaks.
SPREAD = {"outputs": 0.5, "classification_head": 0.1, "cls_score": 0.3, "cls_logits": 0.1, "mask_fcn_logits": 0.1,
          "confidence.3": 0.1, "fields.3": 2.0}  # fmt: skip


def networks() -> dict[str, Any]:
    """Our detectors in evaluation mode, by name."""
    from minidet.random import manual_seed
    from minidet.training import load_system

    models = {}
    for name in SYSTEMS:
        rng = manual_seed(0)
        system = load_system(name)
        model = system.build(("__background__", *map(str, range(1, CLASSES))), system.configure(), rng)
        if name == "yolo":
            model.anchors[...] = np.float32([[12, 12], [18, 26], [26, 18], [27, 27], [37, 37]])
        for key, parameter in model.named_parameters():
            for part, spread in SPREAD.items():
                if part in key and key.endswith("weight"):
                    parameter.data[...] = rng.normal(0, spread, parameter.shape)
        models[name] = model.eval()
    return models


def image() -> np.ndarray:
    from minidet.data import make_scene

    scene = make_scene(np.random.default_rng(0), 128, objects=(4, 5), empty=0.0)
    return (scene.image.transpose(2, 0, 1) / 255).astype(np.float32)


def minidet() -> dict[str, Callable]:
    from minidet import Tensor, no_grad

    shown = Tensor(image())

    def detect(model: Any) -> np.ndarray:
        with no_grad():
            return model([shown])[0]["scores"]

    return {row_of(name): partial(detect, model) for name, model in networks().items()}


def torch(channels_last: bool) -> dict[str, Callable]:
    import torch

    from benchmarks.torch_detectors import TorchSmallKeypointRCNN, TorchSmallMaskRCNN, TorchSSD, TorchYOLO, TorchYOLOv1
    from benchmarks.torch_faster_rcnn import TorchSmallFasterRCNN, nms
    from benchmarks.torch_openpose import TorchOpenPose

    nms(torch.zeros(1, 4), 0.5)  # compiles
    layout = torch.channels_last if channels_last else torch.contiguous_format
    ours = networks()
    shown = torch.from_numpy(image()[None]).contiguous(memory_format=layout)
    yolo, first, ssd, two, people = (ours[name] for name in ("yolo", "yolo_v1", "ssd", "faster_rcnn", "keypoint_rcnn"))
    maps = [np.zeros((1, 1, 128 // step, 128 // step)) for step in ssd.boxes.steps]
    stages, of_people = (
        (model.rpn.base_anchors[0], CLASSES, model.roi_heads.box_head.fc7.weight.shape[0], 4, model.rpn.head.stride)
        for model in (two, people)
    )
    joints = people.roi_heads.keypoint_predictor.kps_score_lowres.weight
    channels_of_joints, number_of_joints = joints.shape[:2]
    channels = len(ours["mask_rcnn"].roi_heads.mask_predictor.conv5_mask.weight)
    pose = ours["openpose"]
    branch = pose.stages[0].fields
    models = {
        "yolo": TorchYOLO(yolo.anchors, CLASSES, yolo.outputs.weight.shape[1], yolo.backbone.stride),
        "yolo_v1": TorchYOLOv1(
            CLASSES, first.size, first.predictors, first.outputs.weight.shape[1], len(first.head), stride=16
        ),
        "ssd": TorchSSD(ssd.boxes.over(maps, 128), CLASSES, len(maps), ssd.boxes.counts()[0], 4),
        "faster_rcnn": TorchSmallFasterRCNN(*stages),
        "mask_rcnn": TorchSmallMaskRCNN(
            *stages, channels=channels, convolutions=len(ours["mask_rcnn"].roi_heads.mask_head)
        ),
        "keypoint_rcnn": TorchSmallKeypointRCNN(
            *of_people,
            joints=number_of_joints,
            cells=people.roi_heads.keypoint_pooling.output_size,
            channels=channels_of_joints,
            convolutions=len(people.roi_heads.keypoint_head) // 2,
            detection_iou=people.roi_heads.nms_threshold,
        ),
        "openpose": TorchOpenPose(
            len(pose.tree) + 1, pose.tree, len(pose.stages), branch[-1].weight.shape[1], len(branch) - 1, stride=4
        ),
    }

    def detect(model: Any) -> Any:
        with torch.no_grad():
            return np.asarray(model(shown)[0]["scores"])

    for name, model in models.items():
        state = {key: torch.from_numpy(np.array(array)) for key, array in ours[name].state_dict().items()}
        missing, extra = model.load_state_dict(state, strict=False)  # torch's batch norm counts batches, too
        if extra or any("num_batches" not in key for key in missing):
            raise AssertionError(f"{name}: {missing} {extra}")
        model.eval().to(memory_format=layout)
    return {row_of(name): partial(detect, model) for name, model in models.items()}


def row_of(name: str) -> str:
    return f"small {SYSTEMS[name]}, one image of 128 x 128"


ROWS = {row_of(name): Row("torch", 1.0, quick=True) for name in SYSTEMS}
ENGINES = {
    "minidet": minidet,
    "torch": partial(torch, channels_last=True),
    "torch NCHW": partial(torch, channels_last=False),
}
