"""Detectors as they are trained: a few images by heart, settings, and no object at all."""

import math
from dataclasses import replace

import numpy as np
import pytest

import minidet
from minidet.boxes import shape_iou
from minidet.data import Dataset, make_dataset, open_dataset
from minidet.evaluation import read_results
from minidet.training import Training, load_system, try_settings
from minidet.training.fit import fit
from minidet.training.recipes import detection


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Dataset:
    """Four small scenes, whose proposals are near the objects and beside them."""
    folder = tmp_path_factory.mktemp("scenes")
    make_dataset(folder, task="detection", level="flat", seed=1, size=64, splits={"train": 4})
    dataset = open_dataset(folder, "train", masks=False)
    dataset.verify()
    rng = np.random.default_rng(0)
    for record in dataset.records:
        near = np.repeat(record.boxes, 8, axis=0) + np.tile(rng.uniform(-2, 2, (8 * len(record.boxes), 2)), 2)
        corners = rng.uniform(0, 40, (30, 2))
        beside = np.concatenate([corners, corners + rng.uniform(8, 24, (30, 2))], axis=1)
        record.proposals = np.concatenate([near, beside]).clip(0, 64)
    return dataset


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        # So few images have regions without any object that resemble one, and the paper's rule never shows them.
        ("fast_rcnn", {"epochs": 120, "hidden": 128, "background_iou": 0.0, "pooling": "align"}),
        ("faster_rcnn", {"epochs": 200, "hidden": 128}),
        ("yolo", {"epochs": 150, "channels": 32}),
        ("yolo_v1", {"epochs": 200, "channels": 32, "stride": 8}),
        # It drops half of its units: learns slowly.
        ("yolo_v1", {"epochs": 300, "channels": 32, "stride": 8, "fully_connected": True, "hidden": 128}),
        ("ssd", {"epochs": 150}),
    ],
)
def test_few_images_are_learned_by_heart(name, changes, few):
    system = load_system(name)
    settings = {"batch_size": 4, "size": 64, "learning_rate": 3e-3, "warmup": 10, "weight_decay": 0.0}
    model = fit(system, few, settings | changes | {"augment": False}, quiet=True)
    metrics, predictions = system.evaluate(model, few, 4)
    assert metrics["map_50"] >= 0.99
    assert len(predictions) == 4


@pytest.mark.parametrize(
    ("name", "metric", "changes"),
    [
        ("mask_rcnn", "mask_map_50", {"epochs": 200, "hidden": 128, "mask_channels": 32}),
        ("keypoint_rcnn", "keypoint_map_50", {"epochs": 150, "keypoint_channels": 16, "keypoint_convolutions": 2}),
        ("openpose", "keypoint_map_50", {"epochs": 150, "channels": 16}),
    ],
)
def test_masks_and_joints_are_learned_by_heart(name, metric, changes, tmp_path):
    system = load_system(name)
    make_dataset(tmp_path, task=system.task, level="flat", seed=1, size=64, splits={"train": 4})
    dataset = open_dataset(tmp_path, "train")
    dataset.verify()
    settings = {"batch_size": 4, "size": 64, "learning_rate": 3e-3, "warmup": 10, "weight_decay": 0.0}
    model = fit(system, dataset, settings | changes | {"augment": False}, quiet=True)
    metrics, predictions = system.evaluate(model, dataset, 4)
    assert metrics[metric] >= 0.99
    assert metrics.get("map_50", 1) >= 0.99
    paths = system.report(dataset, predictions, dataset.classes, tmp_path)
    assert all(path.stat().st_size > 0 for path in paths)
    kind = "masks" if name == "mask_rcnn" else "keypoints"
    read = read_results(tmp_path / f"{kind}.json", dataset)
    for mine, theirs in zip(predictions, read, strict=True):
        np.testing.assert_allclose(mine[kind], theirs[kind], atol=1e-4)
    assert system.draw([dataset[0]], predictions[:1], dataset.classes).ndim == 3


def test_the_four_steps_are_a_quarter_of_the_epochs_each(few):
    system = load_system("faster_rcnn_four_steps")
    settings = system.configure(["epochs=8", "size=64", "hidden=8"])
    training = Training(system, settings, few.classes, few, seed=0)
    steps = []
    for epoch in range(8):
        training.loader.epoch = epoch
        training.begin_epoch()
        steps.append(int(training.model.step))
        metrics, _ = system.evaluate(training.model, few.subset([0]), 1)
        assert math.isnan(metrics["map"]) == (epoch < 6)
    assert steps == [1, 1, 2, 2, 3, 3, 4, 4]
    with pytest.raises(ValueError, match="epochs: expected a multiple of 4"):
        system.build(few.classes, settings | {"epochs": 6}, np.random.default_rng(0))


@pytest.mark.parametrize(
    "name",
    [
        "fast_rcnn", "faster_rcnn", "faster_rcnn_four_steps", "yolo", "yolo_v1", "ssd", "mask_rcnn", "keypoint_rcnn",
        "openpose",
    ],
)  # fmt: skip
def test_settings_are_tried_before_anything_is_made(name):
    system = load_system(name)
    try_settings(system, system.configure(["size=32"]))


@pytest.mark.parametrize(
    ("name", "setting", "told"),
    [
        ("fast_rcnn", "proposals=fats", "proposals: expected one of single, fast, quality, got 'fats'"),
        ("rcnn", "proposals=fats", "proposals: expected one of single, fast, quality, got 'fats'"),
        ("fast_rcnn", "proposals_per_image=0", "proposals_per_image: expected 1 or more, got 0"),
        ("rcnn", "proposals_per_image=-1", "proposals_per_image: expected 1 or more, got -1"),
        ("rcnn", "stage_images=0", "stage_images: expected 1 or more, got 0"),
        ("faster_rcnn", "rpn_stride=6", "rpn_stride: expected a multiple of stride, 4, got 6"),
        ("faster_rcnn", "rpn_stride=-8", "rpn_stride: expected a multiple of stride, 4, got -8"),
        ("faster_rcnn", "rpn_stride=0", "rpn_stride: expected a multiple of stride, 4, got 0"),
        ("faster_rcnn", "regions=0", "regions: expected 1 or more, got 0"),
        ("faster_rcnn", "regions=3", r"0.25 of them are one or more, .* got batch_size_per_image .* 3"),
        ("keypoint_rcnn", "regions=1", r"0.5 of them are one or more, .* got batch_size_per_image .* 1"),
        ("openpose", "convolutions=1000000000", "convolutions: expected 100 or fewer, got 1000000000"),
        ("openpose", "stages=101", "stages: expected 100 or fewer, got 101"),
        ("mask_rcnn", "hidden=1000000", "hidden: expected 10000 or fewer, got 1000000"),
        ("keypoint_rcnn", "keypoint_cells=0", "keypoint_cells: expected 1 or more, got 0"),
        ("keypoint_rcnn", "keypoint_iou=1.5", "keypoint_iou: expected a number from fg_iou, 0.5, to 1, got 1.5"),
        ("keypoint_rcnn", "keypoint_iou=0.3", "keypoint_iou: expected a number from fg_iou, 0.5, to 1, got 0.3"),
        ("faster_rcnn", "stride=16", "rpn_stride: expected a multiple of stride, 16, got 8"),
        ("yolo", "anchors=0", "anchors: expected 1 or more, got 0"),
        (
            "yolo",
            "multi_scale=true size=15",
            "size: expected 16 or more, of which there are larger and smaller ones, got 15",
        ),
        ("yolo_v1", "size=100", "multiple of the backbone's stride 16, got 100"),
        ("ssd", "levels=4", "levels: expected 1 to 3, got 4"),
        ("mask_rcnn", "pooling=max", "expected method 'align' or 'pool', got 'max'"),
        ("keypoint_rcnn", "joints=hands", "joints: expected lsp, mpii, coco, got 'hands'"),
        ("openpose", "joints=hands", "joints: expected lsp, mpii, coco, got 'hands'"),
    ],
)
def test_what_would_fail_after_the_training_is_refused_before_it(name, setting, told, few):
    system = load_system(name)
    with pytest.raises(ValueError, match=told):
        system.build(few.classes, system.configure(setting.split()), np.random.default_rng(0))


@pytest.mark.parametrize("text", ["", "a", "8,,16", "0,8", "inf", "1e30", "1e-30"])
def test_anchors_that_cannot_be_are_refused(text):
    system = load_system("faster_rcnn")
    with pytest.raises(ValueError, match=r"anchor_sizes: expected numbers from 0\.01 to 10000 with commas"):
        try_settings(system, system.configure([f"anchor_sizes={text}"]))


def test_of_the_annotations_a_model_that_detects_sees_proposals_alone(few):
    class Spy(minidet.nn.Module):
        def forward(self, images, targets):
            assert [target.keys() for target in targets] == [{"proposals"}, set()]
            return ["found"] * len(images)

    samples = [few[0], replace(few[1], proposals=None)]
    assert detection.predict(Spy(), samples) == ["found", "found"]


def test_data_without_any_object_are_refused(few):
    empty = few.subset([])
    with pytest.raises(ValueError, match="expected objects to find, got none, or crowds alone, in any of 0 images"):
        detection.check(empty, {})
    none = few.subset([0])
    boxes = none.records[0].boxes
    none.records = [replace(none.records[0], iscrowd=np.ones(len(boxes), bool))]
    with pytest.raises(
        ValueError, match=r"train: expected objects to find, got none, or crowds alone, in any of 1 images"
    ):
        detection.check(none, {})
    none.records = [replace(none.records[0], boxes=boxes[:0], iscrowd=np.zeros(0, bool))]
    with pytest.raises(
        ValueError, match=r"train: expected objects to find, got none, or crowds alone, in any of 1 images"
    ):
        detection.check(none, {})
    detection.check(few, {})


def test_objects_without_masks_are_refused(few, tmp_path):
    """YOLO's files have boxes alone."""
    make_dataset(tmp_path, task="detection", size=64, splits={"train": 4})
    system = load_system("mask_rcnn")
    system.check(open_dataset(tmp_path, "train"), {})
    with pytest.raises(ValueError, match=r"000000.png: expected a mask for each object, got none of object 0"):
        system.check(open_dataset(tmp_path, "train", format="yolo"), {})


def test_a_crowd_may_lack_its_mask_beside_an_object_that_has_one(few):
    mask = np.ones((48, 64), bool)
    both = {"boxes": np.float64([[0, 0, 9, 9]] * 2), "labels": np.ones(2, np.int64)}
    one = few.subset([0])
    for segmentations, iscrowd, missing in (
        ([mask, None], [False, True], None),
        ([None, mask], [False, True], 0),
        ([None, None], [True, True], 0),
        ([mask, None], [True, False], 1),
    ):
        one.records = [replace(one.records[0], **both | {"segmentations": segmentations, "iscrowd": np.array(iscrowd)})]
        if missing is None:
            detection.check_kind(one, detection.MASKS)
        else:
            with pytest.raises(ValueError, match=f"expected a mask for each object, got none of object {missing};"):
                detection.check_kind(one, detection.MASKS)


@pytest.mark.parametrize("name", ["keypoint_rcnn", "openpose"])
def test_people_without_these_joints_are_refused(name, few, tmp_path):
    system = load_system(name)
    settings = system.configure()
    with pytest.raises(ValueError, match=r"expected the 14 joints of lsp \(right ankle, .*\), got no joints"):
        system.check(few, settings)
    make_dataset(tmp_path, task="people", size=64, splits={"train": 2})
    people = open_dataset(tmp_path, "train")
    system.check(people, settings)
    with pytest.raises(ValueError, match=r"expected the 17 joints of coco \(nose, .*\), got right ankle"):
        system.check(people, settings | {"joints": "coco"})
    first, second = people.records
    unlabelled = replace(first, keypoints=np.zeros_like(first.keypoints))
    people.records = [unlabelled, second]
    system.check(people, settings)
    people.records = [unlabelled, replace(second, iscrowd=np.ones(len(second.boxes), bool))]
    with pytest.raises(ValueError, match="train: expected labelled joints, got none in any image"):
        system.check(people, settings)


def test_pictures_of_errors_that_are_no_more_are_removed(few, tmp_path):
    right = [
        {"boxes": r.boxes[~r.iscrowd], "labels": r.labels[~r.iscrowd], "scores": np.ones((~r.iscrowd).sum())}
        for r in few.records
    ]
    wrong = [found | {"labels": found["labels"] % 6 + 1} for found in right]
    detection.report(few, wrong, few.classes, tmp_path)
    assert (tmp_path / "worst-detections.png").exists()
    assert (tmp_path / "missed-objects.png").exists()
    detection.report(few, right, few.classes, tmp_path)
    assert not (tmp_path / "worst-detections.png").exists()
    assert not (tmp_path / "missed-objects.png").exists()


def test_the_report_has_pictures_and_cocos_detections(few, tmp_path):
    predictions = [
        {"boxes": r.boxes.astype(np.float32), "labels": r.labels, "scores": np.full(len(r.labels), 0.9, np.float32)}
        for r in few.records
    ]
    predictions[0]["labels"] = predictions[0]["labels"] % 6 + 1  # confused
    paths = detection.report(few, predictions, few.classes, tmp_path)
    assert all(path.stat().st_size > 0 for path in paths)
    assert {"precision-recall.png", "confusion.png", "errors.png", "detections.json"} <= {p.name for p in paths}


def test_yolos_anchors_are_those_of_the_training_images_as_they_are_resized(few):
    """Images of 64 pixels become 128, and their boxes twice as large."""
    system = load_system("yolo")
    settings = system.configure(["anchors=2", "size=128"])
    training = Training(system, settings, few.classes, few, seed=0)
    boxes = np.concatenate([record.boxes for record in few.records])
    sizes = 2 * (boxes[:, 2:] - boxes[:, :2])
    iou = shape_iou(sizes, training.model.anchors)
    for i in range(2):
        mine = sizes[iou.argmax(axis=1) == i]
        np.testing.assert_allclose(training.model.anchors[i], mine.mean(axis=0), rtol=1e-5)
    restored = system.build(few.classes, settings, np.random.default_rng(0))
    restored.load_state_dict(training.model.state_dict())
    np.testing.assert_array_equal(restored.anchors, training.model.anchors)


@pytest.mark.parametrize(
    ("stride", "size", "expected"), [(4, 16, (12, 16, 20)), (16, 64, (48, 64, 80)), (4, 17, (12, 16, 20))]
)
def test_yolos_sizes_are_on_both_sides_of_the_usual_one(few, stride, size, expected):
    """From three quarters to five quarters, in steps of a cell."""
    system = load_system("yolo")
    settings = system.configure(["multi_scale=true", f"stride={stride}", f"size={size}"])
    assert system.build(few.classes, settings, np.random.default_rng(0)).sizes == expected


def test_yolo_has_as_many_anchors_as_wanted_also_of_few_boxes(few):
    one = few.subset([0])
    one.records = [replace(one.records[0], boxes=one.records[0].boxes[:1], iscrowd=np.zeros(1, bool))]
    system = load_system("yolo")
    model = Training(system, system.configure(["anchors=3", "size=64"]), few.classes, one, seed=0).model
    (box,) = one.records[0].boxes
    np.testing.assert_allclose(model.anchors, np.tile(box[2:] - box[:2], (3, 1)), rtol=1e-5)
