"""Where a detector's time goes, told by a clock that only the parts of the model advance."""

from types import SimpleNamespace

import numpy as np
import pytest

from minidet import Tensor, nn
from minidet.boxes import base_anchors
from minidet.evaluation import mean_stage_seconds, stage_seconds, stage_times
from minidet.models import fast_rcnn, faster_rcnn, keypoint_rcnn, mask_rcnn, rcnn, sliding_window, ssd, yolo, yolo_v1
from minidet.models.fast_rcnn import FastRCNN
from minidet.models.faster_rcnn import small_faster_rcnn
from minidet.models.openpose import OpenPose
from minidet.models.rcnn import RCNN
from minidet.models.sliding_window import SlidingWindow


class Clock:
    """Seconds that pass where the test says so."""

    def __init__(self, monkeypatch):
        self.now, self.monkeypatch = 100.0, monkeypatch
        monkeypatch.setattr(stage_times.time, "perf_counter", lambda: self.now)

    def slow(self, owner, name, seconds):
        """Calls of owner.name take so long."""
        function = getattr(owner, name)

        def slower(*args, **options):
            self.now += seconds
            return function(*args, **options)

        self.monkeypatch.setattr(owner, name, slower)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def backbone():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4, padding=1), nn.ReLU())
    network.out_channels, network.stride = 4, 4
    return network


def proposals(image):
    assert image.shape == (32, 40, 3)
    assert image.dtype == np.uint8
    corners = np.random.default_rng(0).integers(0, 20, (300, 2)).astype(np.float32)
    return np.concatenate([corners, corners + 9], axis=1)


IMAGE = Tensor(np.random.default_rng(0).random((3, 32, 40), np.float32))


def test_of_a_sliding_window_each_level_has_its_features_and_heads(clock):
    model = SlidingWindow(backbone(), 3, [(8, 8), (12, 12), (16, 16)], context=2, cells=3).eval()
    clock.slow(model, "level", 2)
    clock.slow(model.backbone, "forward", 3)
    clock.monkeypatch.setattr(sliding_window, "F", SimpleNamespace(**vars(sliding_window.F)))  # not the backbone's
    clock.slow(sliding_window.F, "conv2d", 5)  # the two fully connected layers
    clock.slow(sliding_window, "filter_detections", 7)
    assert stage_seconds(model, IMAGE) == {"proposals": 6, "features": 9, "heads": 30, "rest": 7}


def test_rcnn_looks_at_all_its_regions_in_several_parts(clock):
    model = RCNN(backbone(), 3, size=8, context=1, hidden=5, propose=proposals).eval()
    clock.slow(model, "propose", 11)
    clock.slow(model, "warp", 2)
    clock.slow(model.backbone, "forward", 3)
    clock.slow(model, "scores", 5)
    clock.slow(rcnn, "decode_boxes", 7)
    expected = {"proposals": 11, "features": 2 * (2 + 3), "heads": 2 * 5, "rest": 7}  # of 300 regions 256, and 44
    assert stage_seconds(model, IMAGE) == expected


def test_fast_rcnn_proposes_before_it_looks(clock):
    model = FastRCNN(backbone(), 3, hidden=5, propose=proposals).eval()
    clock.slow(model, "normalize", 2)
    clock.slow(model, "propose", 11)
    clock.slow(model.backbone, "forward", 3)
    clock.slow(model.roi_heads, "pooling", 5)
    clock.slow(model.roi_heads.box_head, "forward", 6)
    clock.slow(fast_rcnn, "filter_detections", 7)
    assert stage_seconds(model, IMAGE) == {"proposals": 11, "features": 3, "heads": 11, "rest": 9}


def test_faster_rcnn_proposes_on_its_features(clock):
    model = small_faster_rcnn(backbone(), 3, base_anchors([8.0], [1.0]), 5, min_size=48, max_size=100).eval()
    clock.slow(model, "normalize", 2)
    clock.slow(model.backbone, "forward", 3)
    clock.slow(model.rpn.head, "forward", 4)
    clock.slow(faster_rcnn, "filter_proposals", 8)
    clock.slow(model.roi_heads.box_predictor, "forward", 6)
    clock.slow(fast_rcnn, "filter_detections", 7)
    assert stage_seconds(model, IMAGE) == {"proposals": 12, "features": 3, "heads": 6, "rest": 9}


def test_a_closer_look_at_the_chosen_boxes_is_heads_and_choosing_them_is_not(clock):
    sizes, anchors = {"min_size": 48, "max_size": 100}, base_anchors([8.0], [1.0])
    masks = mask_rcnn.small_mask_rcnn(backbone(), 3, anchors, channels=5, convolutions=1, **sizes)
    joints = keypoint_rcnn.small_keypoint_rcnn(backbone(), 2, 4, anchors, 4, 5, 1, **sizes)
    clock.slow(fast_rcnn, "filter_detections", 7)
    clock.slow(mask_rcnn, "paste_masks", 2)
    for model in (masks, joints):
        clock.slow(model.eval().roi_heads.box_predictor, "forward", 6)
    clock.slow(masks.roi_heads.mask_predictor, "forward", 5)
    clock.slow(joints.roi_heads.keypoint_predictor, "forward", 5)
    assert stage_seconds(masks, IMAGE) == {"proposals": 0, "features": 0, "heads": 11, "rest": 9}
    assert stage_seconds(joints, IMAGE) == {"proposals": 0, "features": 0, "heads": 11, "rest": 7}


class OneMap(nn.Module):
    """The backbone's map, as a pyramid of one level."""

    def __init__(self):
        super().__init__()
        self.body, self.out_channels = backbone(), [4]

    def forward(self, images):
        return [self.body(images)]


@pytest.mark.parametrize(
    ("make", "choose", "head"),
    [
        (
            lambda: yolo.YOLO(backbone(), 3, np.float32([[8, 8]]), 5),
            (yolo, "filter_detections"),
            lambda model: model.outputs,
        ),
        (
            lambda: yolo_v1.YOLOv1(backbone(), 3, 32, 1, 5, convolutions=0),
            (yolo_v1, "filter_detections"),
            lambda model: model.outputs,
        ),
        (
            lambda: ssd.SSD(OneMap(), 3, 32, ssd.DefaultBoxes([4], [0.2, 0.4], [(2.0,)])),
            (ssd, "batched_nms"),
            lambda model: model.head.regression_head,
        ),
    ],
)
def test_single_shot_detectors_propose_nothing(clock, make, choose, head):
    model = make().eval()
    clock.slow(model, "normalize", 2)
    clock.slow(model.backbone, "forward", 3)
    clock.slow(head(model), "forward", 5)
    clock.slow(*choose, 7)
    assert stage_seconds(model, IMAGE) == {"proposals": 0, "features": 3, "heads": 5, "rest": 9}


def test_of_openpose_all_stages_are_heads(clock):
    model = OpenPose(backbone(), 3, [(0, 1), (1, 2)], stages=3, channels=5, convolutions=1).eval()
    clock.slow(model.backbone, "forward", 3)
    for stage in model.stages:
        clock.slow(stage, "forward", 2)
    clock.slow(model, "people", 7)
    assert stage_seconds(model, IMAGE) == {"proposals": 0, "features": 3, "heads": 6, "rest": 7}


def test_the_parts_are_those_of_the_whole_call(clock):
    """Whatever takes time, before the first result or after the last, counts somewhere."""
    model = FastRCNN(backbone(), 3, hidden=5, propose=proposals).eval()
    clock.slow(model, "forward", 0.5)
    for name in ("batch_images", "clip_boxes_to_image", "remove_small_boxes", "decode_boxes", "to_numpy"):
        clock.slow(fast_rcnn, name, 0.25)
    before = clock.now
    seconds = stage_seconds(model, IMAGE)
    assert sum(seconds.values()) == clock.now - before > 2
    assert list(seconds) == ["proposals", "features", "heads", "rest"]


def test_the_mean_is_that_of_the_middle_half_of_the_images(monkeypatch):
    """Which half: by the whole time of an image. Of seven images one in four is left out at each end, rounded down."""
    by_image = {"a": (1, 2, 3, 4), "b": (9, 9, 9, 9), "c": (2, 3, 4, 5), "d": (0, 0, 0, 1), "e": (5, 4, 3, 2)}
    by_image |= {"f": (1, 1, 1, 2), "g": (3, 3, 3, 3)}
    shown = []

    def measured(model, image):
        shown.append(image)
        return dict(zip(("proposals", "features", "heads", "rest"), map(float, by_image[image]), strict=True))

    monkeypatch.setattr(stage_times, "stage_seconds", measured)
    mean = mean_stage_seconds(None, list(by_image))
    middle = np.array([by_image[image] for image in "aceg"] + [by_image["f"]])  # all but b, the slowest, and d
    assert mean == dict(zip(("proposals", "features", "heads", "rest"), middle.mean(axis=0), strict=True))
    assert shown == ["a", *by_image]  # the first one once to warm up, which is not counted
    assert mean_stage_seconds(None, ["g"])["rest"] == 3
