"""R-CNN: what is sampled, what the stages change, edge cases; the network's own learning is in the recipe's test."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidet_kernels as kernels
from minidet import Tensor, backbones, nn, no_grad, watch
from minidet.backbones import TinyBackbone
from minidet.boxes import box_iou
from minidet.device import to_numpy
from minidet.models.rcnn import RCNN, sample_regions
from minidet.random import manual_seed
from minidet_kernels import emulator
from tests.test_device import assert_close, needs_emulator


class MeanColour(nn.Module):
    """A backbone whose map says each half's mean colour: what it sees can be worked out by hand."""

    out_channels, stride = 3, 4

    def forward(self, regions):
        n, c, h, w = regions.shape
        return regions.reshape(n, c, 2, h // 2, 2, w // 2).mean(axis=(3, 5))


def small(classes: int = 3, **options) -> RCNN:
    manual_seed(0)
    return RCNN(MeanColour(), classes, size=8, context=1, hidden=5, **options)


def target(boxes=(), labels=(), crowd=None, proposals=()) -> dict:
    boxes = np.float32(boxes).reshape(-1, 4)
    return {
        "boxes": boxes,
        "labels": np.array(labels, np.int64),
        "iscrowd": np.zeros(len(boxes), bool) if crowd is None else np.array(crowd),
        "proposals": np.float32(proposals).reshape(-1, 4),
    }


def images(*sizes: tuple[int, int], seed: int = 0) -> list:
    rng = np.random.default_rng(seed)
    return [Tensor(rng.random((3, *size)).astype(np.float32)) for size in sizes]


def prepared(boxes=(), labels=(), crowds=()) -> dict:
    boxes, crowds = (np.float32(some).reshape(-1, 4) for some in (boxes, crowds))
    return {"boxes": boxes, "labels": np.array(labels, np.int64), "crowds": crowds}


class TestSampling:
    def test_half_an_object_is_the_object_and_less_is_background(self) -> None:
        proposals = np.float32([[0, 0, 10, 10], [0, 0, 10, 20], [0, 0, 10, 21], [50, 50, 60, 60]])  # IoU 1, .5, .476, 0
        ((boxes, labels),) = sample_regions([proposals], [prepared([[0, 0, 10, 10]], [2])])
        by_box = {tuple(map(int, box)): label for box, label in zip(boxes, labels, strict=True)}
        assert by_box == {(0, 0, 10, 10): 2, (0, 0, 10, 20): 2, (0, 0, 10, 21): 0, (50, 50, 60, 60): 0}
        assert labels.tolist().count(2) == 3  # the true box is a region, too

    def test_the_best_object_gives_the_label(self) -> None:
        objects = prepared([[0, 0, 10, 10], [3, 0, 13, 10]], [1, 2])
        ((boxes, labels),) = sample_regions([np.float32([[2, 0, 12, 10]])], [objects])
        assert labels[(boxes == [2, 0, 12, 10]).all(axis=1)].tolist() == [2]

    def test_128_of_all_images_together_32_of_them_objects(self) -> None:
        near = np.tile(np.float32([[0, 0, 10, 10]]), (100, 1))
        far = np.tile(np.float32([[50, 50, 60, 60]]), (300, 1))
        objects = prepared([[0, 0, 10, 10]], [1])
        chosen = sample_regions([near, far, np.concatenate([near, far])], [objects, prepared(), objects])
        labels = np.concatenate([labels for _, labels in chosen])
        assert (len(labels), (labels > 0).sum()) == (128, 32)
        assert all((labels > 0).any() for _, labels in (chosen[0], chosen[2]))
        assert (chosen[1][1] == 0).all()
        for boxes, labels in chosen:
            np.testing.assert_array_equal(boxes[:, 0] == 0, labels > 0)

    def test_where_objects_are_few_background_fills_up(self) -> None:
        far = np.tile(np.float32([[50, 50, 60, 60]]), (300, 1))
        ((_, labels),) = sample_regions([far], [prepared([[0, 0, 10, 10]], [1])])
        assert (len(labels), (labels > 0).sum()) == (128, 1)

    def test_what_lies_in_a_crowd_is_neither_object_nor_background(self) -> None:
        objects = prepared([[0, 0, 10, 10]], [1], crowds=[[40, 40, 80, 80]])
        proposals = np.float32([[45, 45, 55, 55], [70, 40, 95, 80], [0, 0, 10, 10]])  # inside, two fifths inside
        ((boxes, _),) = sample_regions([proposals], [objects])
        assert sorted(boxes[:, 0].tolist()) == [0, 0, 70]

    @settings(max_examples=50, deadline=None)
    @given(st.integers(0, 2**32 - 1))
    def test_every_box_keeps_its_image_and_its_label(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        manual_seed(seed)
        targets, proposals = [], []
        for _ in range(rng.integers(1, 5)):
            corners = rng.uniform(0, 30, (rng.integers(0, 4), 2))
            boxes = np.concatenate([corners, corners + rng.uniform(5, 20, corners.shape)], axis=1)
            targets.append(prepared(boxes, rng.integers(1, 4, len(boxes))))
            corners = rng.uniform(0, 30, (rng.integers(0, 80), 2))
            proposals.append(np.float32(np.concatenate([corners, corners + rng.uniform(0, 20, corners.shape)], axis=1)))
        chosen = sample_regions(proposals, targets)
        assert sum(len(labels) for _, labels in chosen) <= 128
        for (boxes, labels), given_boxes, objects in zip(chosen, proposals, targets, strict=True):
            pool = {row.tobytes() for row in np.concatenate([given_boxes, objects["boxes"]])}
            assert {row.tobytes() for row in boxes} <= pool
            iou = box_iou(objects["boxes"], boxes)
            for j, label in enumerate(labels):
                best = iou[:, j].max(initial=0)
                assert label == (objects["labels"][iou[:, j].argmax()] if best >= 0.5 else 0)


class TestTraining:
    def test_the_loss_is_the_mean_cross_entropy_of_the_sampled_regions(self) -> None:
        model = small()
        seen = {}
        with watch.listen(lambda event: seen.update({event.name: event.value})):
            first = target([[2, 2, 12, 12]], [2], proposals=[[3, 2, 12, 12], [15, 5, 28, 18]])
            losses = model(images((20, 30), (25, 20)), [first, target(proposals=[[1, 1, 9, 9]])])
        logits = seen["rcnn.logits"].numpy().astype(np.float64)
        labels = np.concatenate([labels for _, labels in seen["rcnn.sampled"]])
        assert sorted(labels.tolist()) == [0, 0, 2, 2]
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        np.testing.assert_allclose(losses["loss_classifier"].item(), -log_p[np.arange(4), labels].mean(), rtol=1e-5)
        assert list(losses) == ["loss_classifier"]

    def test_the_regions_are_warped_out_of_their_own_images(self) -> None:
        model, (first, second) = small(), images((20, 30), (25, 20))
        seen = {}
        with watch.listen(lambda event: seen.update({event.name: event.value})):
            model([first, second], [target(proposals=[[15, 5, 28, 18]]), target(proposals=[[1, 1, 9, 9]])])
        boxes = np.float32([[15, 5, 28, 18], [1, 1, 9, 9]])
        expected = [kernels.region_warp(image.numpy(), boxes[i, None], 8, 1) for i, image in enumerate((first, second))]
        np.testing.assert_array_equal(seen["rcnn.regions"].numpy(), np.concatenate(expected))

    def test_no_objects_and_no_proposals_are_a_loss_of_0_with_a_gradient(self) -> None:
        model = small()
        loss = model(images((20, 20)), [target()])["loss_classifier"]
        loss.backward()
        assert loss.item() == 0
        assert (model.classifier.weight.grad.numpy() == 0).all()

    def test_objects_without_proposals_are_learned(self) -> None:
        loss = small()(images((20, 20)), [target([[2, 2, 9, 9]], [1])])["loss_classifier"]
        assert 0 < loss.item() < np.inf

    def test_only_crowds_teach_nothing(self) -> None:
        assert small()(images((20, 20)), [target([[2, 2, 9, 9]], [1], [True])])["loss_classifier"].item() == 0

    def test_the_buffers_are_no_parameters_and_are_saved(self) -> None:
        model = small()
        names = {name for name, _ in model.named_parameters()}
        assert not names & {"svm_weights", "box_weights"}
        assert model.state_dict()["svm_weights"].shape == (2, 6)
        assert model.state_dict()["box_weights"].shape == (2, 4, 13)


def detect(model: RCNN, image, proposals) -> dict:
    model.eval()
    with no_grad():
        (found,) = model([image], [{"proposals": np.float32(proposals).reshape(-1, 4)}])
    return found


class TestDetection:
    """A red object on black: class 1 is red, class 2 is green."""

    @pytest.fixture
    def image(self):
        picture = np.zeros((3, 40, 40), np.float32)
        picture[0, 10:20, 10:20] = 1
        picture[1, 25:35, 22:36] = 1
        return Tensor(picture)

    @pytest.fixture
    def model(self):
        """Features: the mean red, and the mean green, of the region's upper left quarter."""
        model = small(score_threshold=0.6)
        model.fc.weight.data[...] = 0
        model.fc.bias.data[...] = 0
        model.fc.weight.data[0, 0] = model.fc.weight.data[1, 4] = 1
        model.classifier.weight.data[...] = 0
        model.classifier.weight.data[1, 0] = model.classifier.weight.data[2, 1] = 10
        model.classifier.bias.data[...] = [5, 0, 0]
        return model

    def test_before_svms_are_fitted_softmax_scores(self, model, image) -> None:
        found = detect(model, image, [[10, 10, 20, 20], [22, 25, 36, 35], [0, 25, 10, 35]])
        quarter = kernels.region_warp(image.numpy(), np.float32([[10, 10, 20, 20]]), 8, 1)[0, 0, :4, :4].mean()
        expected = np.exp(10 * quarter) / (np.exp(10 * quarter) + np.exp(5) + 1)
        assert found["labels"].tolist() == [1, 2] or found["labels"].tolist() == [2, 1]
        np.testing.assert_allclose(found["scores"][found["labels"] == 1], expected, rtol=1e-5)
        np.testing.assert_array_equal(found["boxes"][found["labels"] == 1], [[10, 10, 20, 20]])

    def test_fitted_svms_score_instead_unless_they_are_left_out(self, model, image) -> None:
        model.svm_weights[0, 1], model.svm_weights[0, -1] = 8, -2  # class 1 is green now
        model.svm_weights[1, -1] = -9
        proposals = [[10, 10, 20, 20], [22, 25, 36, 35]]
        found = detect(model, image, proposals)
        quarter = kernels.region_warp(image.numpy(), np.float32(proposals[1:]), 8, 1)[0, 1, :4, :4].mean()
        assert found["labels"].tolist() == [1]
        np.testing.assert_array_equal(found["boxes"], proposals[1:])
        np.testing.assert_allclose(found["scores"], [1 / (1 + np.exp(2 - 8 * quarter))], rtol=1e-5)
        model.svm = False
        assert sorted(detect(model, image, proposals)["labels"].tolist()) == [1, 2]

    def test_boxes_are_moved_once_by_the_deltas_of_their_class(self, model, image) -> None:
        model.box_weights[0, 0, -1] = 0.2  # class 1: to the right by a fifth of its width
        model.box_weights[0, 3, -1] = np.log(2)  # and twice as high
        model.box_weights[1, 1, -1] = -0.5
        found = detect(model, image, [[10, 10, 20, 20]])
        np.testing.assert_allclose(found["boxes"], [[12, 5, 22, 25]], atol=1e-5)
        model.box_regression = False
        np.testing.assert_array_equal(detect(model, image, [[10, 10, 20, 20]])["boxes"], [[10, 10, 20, 20]])

    def test_deltas_depend_on_pool5(self, model, image) -> None:
        model.box_weights[0, 0, 0] = 1  # dx = the mean red of the upper left quarter
        quarter = kernels.region_warp(image.numpy(), np.float32([[10, 10, 20, 20]]), 8, 1)[0, 0, :4, :4].mean()
        found = detect(model, image, [[10, 10, 20, 20]])
        np.testing.assert_allclose(found["boxes"], [[10 + 10 * quarter, 10, 20 + 10 * quarter, 20]], rtol=1e-5)

    def test_of_those_that_overlap_by_more_than_three_tenths_the_first_stays(self, model, image) -> None:
        model.svm_weights[:, -1] = [3, -9]  # every region is class 1, all equally
        proposals = [[10, 10, 23, 20], [11, 10, 24, 20], [17, 10, 30, 20]]  # the last's IoU with the first: 60 / 200
        np.testing.assert_array_equal(detect(model, image, proposals)["boxes"], [proposals[0], proposals[2]])

    def test_boxes_end_at_the_image(self, model, image) -> None:
        model.box_weights[0, 2, -1] = np.log(9)
        np.testing.assert_allclose(detect(model, image, [[10, 10, 20, 20]])["boxes"], [[0, 10, 40, 20]])

    def test_proposals_outside_the_image_or_without_area_find_nothing_and_break_nothing(self, model, image) -> None:
        found = detect(model, image, [[-20, -20, -5, -5], [50, 50, 60, 70], [15, 15, 15, 15], [10, 10, 20, 20]])
        np.testing.assert_array_equal(found["boxes"], [[10, 10, 20, 20]])

    def test_without_proposals_nothing_is_found(self, model, image) -> None:
        found = detect(model, image, [])
        assert found["boxes"].shape == (0, 4)
        assert found["labels"].dtype == np.int64
        assert found["scores"].dtype == found["boxes"].dtype == np.float32

    def test_many_proposals_are_looked_at_in_parts_with_the_same_result(self, model, image, monkeypatch) -> None:
        rng = np.random.default_rng(0)
        corners = rng.uniform(0, 30, (50, 2))
        proposals = np.concatenate([corners, corners + rng.uniform(3, 10, (50, 2))], axis=1)
        model.score_threshold = 0.0
        model.box_weights[...] = rng.normal(0, 0.1, model.box_weights.shape)
        whole = detect(model, image, proposals)
        monkeypatch.setattr("minidet.models.rcnn.REGIONS_AT_ONCE", 7)
        for name, value in detect(model, image, proposals).items():
            np.testing.assert_allclose(value, whole[name], rtol=1e-5, atol=1e-5)


def test_targets_are_checked_before_regions_are_searched() -> None:
    def propose(image):
        raise AssertionError("regions were searched")

    image = Tensor(np.zeros((3, 32, 32), np.float32))
    model = RCNN(TinyBackbone((4, 8)), 3, 16, propose=propose)
    for targets, told in ((None, "got None"), ([{}], "a target for each of 2 images, got 1")):
        with pytest.raises(ValueError, match=told):
            model([image, image], targets)
    with pytest.raises(ValueError, match="a target for each of 2 images, got 1"):
        model.eval()([image, image], [{}])


def test_an_image_without_objects_may_have_lists_without_anything() -> None:
    image = Tensor(np.zeros((3, 32, 32), np.float32))
    model = RCNN(TinyBackbone((4, 8)), 3, 16)
    target = {"boxes": [], "labels": [], "proposals": [[0, 0, 9, 9], [4, 4, 30, 30]]}
    assert np.isfinite(model([image], [target])["loss_classifier"].item())


@pytest.mark.parametrize("shape", [(4, 5), (3, 5), (8,)])
def test_proposals_have_four_coordinates(shape) -> None:
    model = RCNN(TinyBackbone((4, 8)), 3, 16).eval()
    with pytest.raises(ValueError, match=r"expected proposals \(P, 4\), x1 y1 x2 y2 in pixels, got"):
        model([Tensor(np.zeros((3, 32, 32), np.float32))], [{"proposals": np.zeros(shape)}])


def test_one_class() -> None:
    model = small(classes=2, score_threshold=0.0)
    loss = model(images((20, 20)), [target([[2, 2, 9, 9]], [1], proposals=[[12, 12, 18, 19]])])["loss_classifier"]
    assert np.isfinite(loss.item())
    assert detect(model, *images((20, 20)), [[2, 2, 9, 9]])["labels"].tolist() == [1]


# ---- the backbone


@pytest.mark.parametrize(
    ("backbone", "size", "numbers"),
    [
        (MeanColour(), 10, 3 * 2 * 2),  # its stride does not divide 10
        (TinyBackbone((4, 8)), 16, 8 * 4 * 4),
        (TinyBackbone((4, 8)), 10, 8 * 3 * 3),  # 10, 5, 3
        (nn.Sequential(nn.Conv2d(3, 2, 5)), 8, 2 * 4 * 4),  # it says neither out_channels nor stride
    ],
)
def test_pool5_is_what_the_backbone_makes_of_a_region(backbone, size, numbers) -> None:
    model = RCNN(backbone, 3, size=size, context=1, hidden=5)
    assert model.fc.weight.shape == (5, numbers)
    assert model.box_weights.shape == (2, 4, numbers + 1)
    assert detect(model, *images((20, 20)), [[2, 2, 9, 9]]).keys() == {"boxes", "labels", "scores"}


def test_alexnet_looks_at_227_pixels_as_in_the_paper() -> None:
    backbone = backbones.cut(backbones.AlexNet(num_classes=1), "features")  # before its fully connected layers
    model = RCNN(backbone, 3, 227, 16, hidden=4, normalize=backbones.normalize, score_threshold=0)
    assert model.fc.weight.shape == (4, 256 * 6 * 6)
    assert model.box_weights.shape == (2, 4, 256 * 6 * 6 + 1)
    assert 0 < model(images((40, 40)), [target([[2, 2, 30, 20]], [1])])["loss_classifier"].item() < np.inf
    assert sorted(detect(model, *images((40, 40)), [[2, 2, 30, 20]])["labels"].tolist()) == [1, 2]


def test_measuring_it_changes_nothing() -> None:
    backbone = TinyBackbone((4, 8, 8))
    backbone.stages[0].eval()  # frozen, perhaps
    modes = [module.training for module in backbone.modules()]
    before = {name: to_numpy(array).copy() for name, array in backbone.state_dict().items()}
    RCNN(backbone, 3, size=16)
    assert True in modes
    assert False in modes
    assert [module.training for module in backbone.modules()] == modes
    for name, array in backbone.state_dict().items():
        np.testing.assert_array_equal(to_numpy(array), before[name])


@pytest.mark.parametrize("size", [0, -8])
def test_a_size_without_pixels_is_refused(size) -> None:
    with pytest.raises(ValueError, match=f"of warped regions, from 1 pixel on, got {size}"):
        RCNN(MeanColour(), 3, size=size)


def test_a_size_that_is_too_small_for_the_backbone_is_refused_and_its_modes_come_back() -> None:
    backbone = nn.Sequential(nn.Conv2d(3, 4, 5), nn.MaxPool2d(3))
    for size, reason in ((4, "conv2d: the kernel spans 5 x 5"), (6, "max_pool2d: no window of kernel_size")):
        with pytest.raises(ValueError, match=f"that the backbone can look at, got {size}: {reason}"):
            RCNN(backbone, 3, size=size)
    assert all(module.training for module in backbone.modules())
    RCNN(backbone, 3, size=7)


@pytest.mark.parametrize("normalize", [None, backbones.normalize])
def test_the_backbone_sees_regions_as_normalize_makes_them(normalize) -> None:
    model, (image,) = small(**({} if normalize is None else {"normalize": normalize})), images((20, 30))
    seen, boxes = [], np.float32([[3, 2, 12, 12], [15, 5, 28, 18]])
    model.backbone.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].numpy()))
    expected = kernels.region_warp(image.numpy(), boxes, 8, 1)
    if normalize is not None:
        mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])  # torchvision's
        expected = (expected - mean[:, None, None]) / std[:, None, None]
    model([image], [target(proposals=boxes)])
    detect(model, image, boxes)
    for regions in seen:
        order = np.argsort(regions[:, 0, 0, 0]), np.argsort(expected[:, 0, 0, 0])  # training draws them
        np.testing.assert_allclose(regions[order[0]], expected[order[1]], rtol=1e-5, atol=1e-6)
    assert len(seen) == 2


@needs_emulator
def test_on_the_gpu_which_is_the_emulator_everything_is_the_cpus() -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.random((3, 20, 24), dtype=np.float32) for _ in range(2)]
    targets = [target([[2, 2, 12, 12]], [2], proposals=[[3, 2, 12, 12], [12, 5, 22, 18]]), target()]
    fitted = {"svm_weights": rng.normal(0, 1, (2, 9)), "box_weights": rng.normal(0, 0.1, (2, 4, 8 * 16 + 1))}
    found = {}
    with emulator.emulated():
        for device in ("cpu", "cuda"):
            manual_seed(0)
            model = RCNN(TinyBackbone((4, 8)), 3, size=16, context=1, hidden=8, score_threshold=0)
            for name, array in fitted.items():
                getattr(model, name)[...] = array
            model.to(device)
            images = [Tensor(picture).to(device) for picture in pictures]
            loss = model(images, targets)["loss_classifier"]
            loss.backward()
            gradients = {name: to_numpy(p.grad.data) for name, p in model.named_parameters()}
            with no_grad():
                found[device] = loss.item(), gradients, model.eval()(images, targets)
    (loss, gradients, detections), (loss_there, gradients_there, detections_there) = found["cpu"], found["cuda"]
    np.testing.assert_allclose(loss_there, loss, rtol=1e-5)
    for name, array in gradients.items():
        assert_close(gradients_there[name], array)
    assert len(detections[0]["boxes"])
    for here, there in zip(detections, detections_there, strict=True):
        for name, array in here.items():
            assert isinstance(there[name], np.ndarray)
            np.testing.assert_allclose(there[name], array, rtol=1e-3, atol=1e-3)
