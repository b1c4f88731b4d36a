"""R-CNN's recipe: the stages' data and files, and eight images by heart. Proposals are jittered objects and noise."""

import json
from dataclasses import replace

import numpy as np
import pytest

from minidet import Tensor
from minidet.data import make_dataset, open_dataset
from minidet.data.dataset import Sample
from minidet.evaluation import evaluate_coco
from minidet.models.hard_negatives import train_svms
from minidet.models.rcnn import RCNN
from minidet.training import load_system
from minidet.training.fit import fit
from minidet.training.recipes import detection, rcnn, rcnn_stages
from minidet.training.recipes.rcnn_stages import FeatureFiles, key_of, regions_of
from tests.models.test_rcnn import MeanColour


def attach_proposals(dataset) -> None:
    for number, record in enumerate(dataset.records):
        rng = np.random.default_rng(number)
        height, width = record.size
        near = np.repeat(record.boxes, 12, axis=0)
        near += rng.normal(0, 0.12, near.shape) * np.tile(near[:, 2:] - near[:, :2], 2)
        centers, sides = rng.uniform(0, [width, height], (40, 2)), rng.uniform(8, 60, (40, 2))
        boxes = np.concatenate([near, np.concatenate([centers - sides / 2, centers + sides / 2], axis=1)])
        boxes = np.clip(boxes.round(), 0, [width, height, width, height])
        record.proposals = boxes[(boxes[:, 2:] - boxes[:, :2] >= 2).all(axis=1)]


@pytest.fixture(scope="session")
def eight(tmp_path_factory):
    folder = make_dataset(tmp_path_factory.mktemp("rcnn"), task="detection", splits={"train": 8}, progress=False)
    dataset = open_dataset(folder, "train", masks=False)
    dataset.verify()
    attach_proposals(dataset)
    return dataset


@pytest.fixture
def model():
    return RCNN(MeanColour(), 7, size=8, context=1, hidden=5).eval()


def sample(boxes, labels, proposals, crowd=None) -> Sample:
    boxes = np.float64(boxes).reshape(-1, 4)
    return Sample(
        np.zeros((40, 40, 3), np.uint8),
        boxes,
        np.array(labels, np.int64),
        iscrowd=None if crowd is None else np.array(crowd),
        proposals=np.float64(proposals).reshape(-1, 4),
    )


class TestRegions:
    def test_positives_are_the_true_boxes_alone(self) -> None:
        found = regions_of(sample([[0, 0, 10, 10]], [2], [[0, 0, 10, 10], [0, 0, 10, 12]]), classes=2)
        assert found.true.tolist() == [2, 0, 0]

    def test_negatives_overlap_with_no_object_of_the_class_by_three_tenths(self) -> None:
        # IoU with class 1's object: 1, 0 (the other object), 2/8 = 0.25, 3/7, and with class 2's: 0, 1, 0, 0
        one = sample([[0, 0, 10, 10], [20, 20, 30, 30]], [1, 2], [[6, 0, 16, 10], [4, 0, 14, 10]])
        assert regions_of(one, classes=3).negative.tolist() == [
            [False, True, True],
            [True, False, True],
            [True, True, True],
            [False, True, True],
        ]

    def test_three_tenths_itself_is_the_grey_zone(self) -> None:
        found = regions_of(sample([[0, 0, 13, 10]], [1], [[7, 0, 20, 10]]), classes=1)  # 60 / 200
        assert found.negative.tolist() == [[False], [False]]

    def test_what_lies_in_a_crowd_is_no_negative_and_a_crowd_no_object(self) -> None:
        found = regions_of(sample([[0, 0, 20, 20]], [1], [[2, 2, 9, 9], [19, 19, 30, 30]], [True]), classes=1)
        assert found.true.tolist() == [0, 0]
        assert found.negative.tolist() == [[False], [True]]
        assert found.near.tolist() == [-1, -1]

    def test_the_box_regression_learns_from_what_is_near_its_best_object(self) -> None:
        proposals = [[0, 0, 10, 15], [0, 0, 10, 20], [21, 20, 31, 30], [5, 5, 5, 5]]  # IoU 2/3, 1/2, 9/11
        found = regions_of(sample([[0, 0, 10, 10], [20, 20, 30, 30]], [1, 2], proposals), classes=2)
        assert found.near.tolist() == [-1, -1, 0, -1, 1, -1]  # and no true box

    def test_an_image_without_objects_or_proposals(self) -> None:
        found = regions_of(sample([], [], []), classes=2)
        assert found.negative.shape == (0, 2)
        assert regions_of(sample([], [], [[1, 1, 5, 5]]), classes=2).negative.tolist() == [[True, True]]


class TestFiles:
    def written(self, model, dataset, folder) -> tuple[FeatureFiles, str, list]:
        files, key = FeatureFiles(folder / "features"), key_of(model, dataset)
        regions = [regions_of(one, 6) for one in dataset]
        files.write(key, model, dataset, regions)
        return files, key, regions

    def test_the_rows_are_the_features_of_the_regions_in_order(self, model, eight, tmp_path) -> None:
        files, _, regions = self.written(model, eight, tmp_path)
        fc7, pool5 = [], []
        for number, of_image in enumerate(regions):
            image = np.float32(eight[number].image.transpose(2, 0, 1)) / 255
            maps, features = model.features(model.warp(Tensor(image), of_image.boxes))
            pool5.append(maps.numpy()[of_image.near >= 0])
            fc7.append(features.numpy())
        for name, expected in (("fc7", fc7), ("pool5", pool5)):
            assert files.read(name).dtype == np.float16
            np.testing.assert_allclose(files.read(name), np.concatenate(expected), atol=2e-3)

    def test_whole_files_of_the_key_are_taken_up_and_no_others(self, model, eight, tmp_path) -> None:
        files, key, _ = self.written(model, eight, tmp_path)
        assert files.are_of(key)
        assert not files.are_of("another")
        content = bytearray(files.paths["pool5"].read_bytes())
        content[-1] ^= 1
        files.paths["pool5"].write_bytes(content)
        assert not files.are_of(key)
        files.index.write_text("{")
        assert not files.are_of(key)

    def test_unfinished_files_do_not_count_and_do_not_hinder(self, model, eight, tmp_path) -> None:
        (tmp_path / "features").mkdir()
        (tmp_path / "features" / "fc7.unfinished").write_bytes(b"half")
        files, key, _ = self.written(model, eight, tmp_path)
        assert files.are_of(key)
        assert sorted(path.name for path in files.folder.iterdir()) == ["fc7.npy", "pool5.npy", "regions.json"]

    def test_the_key_knows_weights_proposals_and_warping(self, model, eight) -> None:
        keys = [key_of(model, eight)]
        model.box_weights[...] = 1  # fitted later, on the features
        assert key_of(model, eight) == keys[0]
        model.fc.bias.data[0] += 1
        keys.append(key_of(model, eight))
        model.context = 2
        keys.append(key_of(model, eight))
        moved = eight.subset(range(8))
        moved.records[0] = replace(moved.records[0], proposals=moved.records[0].proposals + 1)
        keys.append(key_of(model, moved))
        assert len(set(keys)) == 4

    def test_a_second_completion_after_a_crash_reads_the_files(self, model, eight, tmp_path, monkeypatch) -> None:
        def crash(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(rcnn_stages, "fit_boxes", crash)
            with pytest.raises(KeyboardInterrupt):
                rcnn_stages.complete(model, eight, tmp_path)
        assert json.loads((tmp_path / "features" / "regions.json").read_text())["key"] == key_of(model, eight)
        monkeypatch.setattr(FeatureFiles, "write", crash)
        told = rcnn_stages.complete(model, eight, tmp_path)
        assert told["regions"] == sum(len(one.boxes) + len(one.proposals) for one in eight)
        assert model.box_weights.any()
        assert not (tmp_path / "features").exists()


class TestStages:
    def test_svm_weights_on_raw_features_are_the_svms_on_scaled_ones(self, model) -> None:
        rng = np.random.default_rng(0)
        samples = [sample([[0, 0, 10, 10]], [1], [[20, 20, 30, 30]]), sample([[0, 0, 10, 10]], [2], [])]
        regions = [regions_of(one, 6) for one in samples]
        stored = rng.random((4 - 1, 5)).astype(np.float16) * 7
        rcnn_stages.fit_svms(model, stored, regions)
        scaled = stored.astype(np.float64) * 20 / np.linalg.norm(stored.astype(np.float64), axis=1).mean()
        images = [rcnn_stages.ImageRegions(rows.astype(np.float32), of_image.negative)
                  for rows, of_image in zip((scaled[:2], scaled[2:]), regions, strict=True)]  # fmt: skip
        positives = [scaled[rows].astype(np.float32) for rows in ([0], [2], [], [], [], [])]
        svms = train_svms(positives, images)
        expected = np.stack([scaled @ svm.weights[:-1] + 10 * svm.weights[-1] for svm in svms], axis=1)
        weights = model.svm_weights
        np.testing.assert_allclose(stored.astype(np.float32) @ weights[:, :-1].T + weights[:, -1], expected, atol=1e-4)
        assert expected[0, 0] > expected[1, 0]

    def test_each_class_learns_how_its_own_boxes_are_missed(self, model) -> None:
        # class 1 is always a tenth to the right of its proposals, class 4 higher by a fifth of its height
        samples = [
            sample([[1, 0, 11, 10]], [1], [[0, 0, 10, 10]]),
            sample([[0, 2, 10, 12]], [4], [[0, 4, 10, 14]]),
        ]
        regions = [regions_of(one, 6) for one in samples]
        rcnn_stages.fit_boxes(model, np.zeros((2, 12), np.float16), regions)
        constant = model.box_weights[:, :, -1]
        np.testing.assert_allclose(constant[0], [0.1, 0, 0, 0], atol=1e-6)
        np.testing.assert_allclose(constant[3], [0, -0.2, 0, 0], atol=1e-6)
        assert (constant[[1, 2, 4, 5]] == 0).all()

    def test_images_without_any_object_complete_without_detections_of_high_score(self, model, tmp_path) -> None:
        nothing = [sample([], [], [[1, 1, 20, 20]]), sample([], [], [])]
        rcnn_stages.complete(model, nothing, tmp_path)
        assert np.isfinite(model.svm_weights).all()
        assert (model.box_weights == 0).all()
        (found,) = detection.predict(model, nothing[:1])
        assert (found["scores"] < 0.5).all()  # on the negative side of every border


class TestRecipe:
    def test_it_is_a_system_with_an_aim_that_it_measures(self, eight) -> None:
        system = load_system("rcnn")
        settings = system.configure(["hidden=16", "svm=false", "box_regression=false"])
        model = system.build(eight.classes, settings, np.random.default_rng(0))
        assert (model.num_classes, model.svm, model.box_regression) == (7, False, False)
        metrics, predictions = system.evaluate(model.eval(), eight.subset([0, 1]), 2)
        assert system.metric in metrics
        assert len(predictions) == 2

    def test_eight_images_are_learned_by_heart(self, eight, tmp_path, capsys) -> None:
        changes = {"epochs": 60, "batch_size": 8, "augment": False, "warmup": 5, "learning_rate": 2e-3}
        changes |= {"region_size": 32, "context": 2}  # half as many pixels
        model = fit(rcnn.SYSTEM, eight, changes, quiet=True, folder=tmp_path)
        assert "MB of features" in capsys.readouterr().out
        predictions = detection.predict(model, eight)
        targets = [
            {"boxes": r.boxes, "labels": r.labels, "iscrowd": r.iscrowd, "areas": r.areas} for r in eight.records
        ]
        with_all = evaluate_coco(predictions, targets, 6)
        assert with_all["map_50"] >= 0.99
        model.box_regression = False
        assert evaluate_coco(detection.predict(model, eight), targets, 6)["map_75"] < with_all["map_75"]
        model.svm = False
        assert evaluate_coco(detection.predict(model, eight), targets, 6)["map_50"] >= 0.99
