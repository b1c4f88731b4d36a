"""Faster R-CNN: losses against literal loops, and images of any size, with none or odd objects."""

import numpy as np
import pytest

import minidet
from minidet import functional as F
from minidet import no_grad, watch
from minidet.backbones import alexnet, cut
from minidet.backbones.tiny import centred
from minidet.boxes import base_anchors, grid_anchors
from minidet.models.faster_rcnn import RPN_BETA, RegionProposalNetwork, RPNHead, rpn_losses
from minidet.models.image_batch import ImageBatch, as_pixels, batch_images
from minidet.random import manual_seed
from tests.models.detector_helpers import scene, small_detector

LOSSES = ["loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"]


def batch_of(size: tuple[int, int], count: int = 1) -> ImageBatch:
    return ImageBatch(minidet.Tensor(np.zeros((count, 3, *size), np.float32)), [size] * count, [size] * count, 4)


def smooth_l1(difference: float, beta: float) -> float:
    size = abs(difference)
    return 0.5 * size * size / beta if size < beta else size - 0.5 * beta


def test_two_scores_an_anchor_are_trained_as_a_softmax_would_be():
    manual_seed(0)
    head = RPNHead(4, anchors=3, channels=5, scores=2)
    maps = minidet.Tensor(np.random.default_rng(0).normal(size=(2, 4, 3, 2)).astype(np.float32))
    (objectness,), (deltas,) = head([maps])
    assert objectness.shape == (2, 18)
    assert deltas.shape == (2, 18, 4)
    scores = head.cls_logits(head.conv(maps)).data  # (2, 6, 3, 2): first those of no object
    offsets = head.bbox_pred(head.conv(maps)).data  # (2, 12, 3, 2)
    is_object = np.random.default_rng(1).integers(0, 2, (2, 18))
    expected = 0.0
    for n in range(2):
        for row in range(3):
            for column in range(2):
                for a in range(3):
                    place = (row * 2 + column) * 3 + a
                    no, yes = scores[n, a, row, column], scores[n, 3 + a, row, column]
                    expected -= np.log(np.exp((no, yes)[is_object[n, place]]) / (np.exp(no) + np.exp(yes)))
                    np.testing.assert_array_equal(deltas.data[n, place], offsets[n, 4 * a : 4 * a + 4, row, column])
    loss = F.binary_cross_entropy_with_logits(objectness, is_object.astype(np.float32), reduction="sum")
    np.testing.assert_allclose(loss.item(), expected, rtol=1e-5)


def test_the_rpns_losses_by_a_loop():
    rng = np.random.default_rng(0)
    objectness, deltas = rng.normal(size=(2, 6)), rng.normal(size=(2, 6, 4))
    chosen = [
        (np.array([1, 4]), rng.normal(size=(2, 4)), np.array([0, 2, 3])),
        (np.array([], int), np.zeros((0, 4)), np.array([5])),
    ]
    class_loss = box_loss = 0.0
    for n, (positives, goals, negatives) in enumerate(chosen):
        for index, goal in zip(positives, goals, strict=True):
            class_loss += np.log1p(np.exp(-objectness[n, index]))
            box_loss += sum(smooth_l1(d, RPN_BETA) for d in deltas[n, index] - goal)
        class_loss += sum(np.log1p(np.exp(objectness[n, index])) for index in negatives)
    losses = rpn_losses(minidet.Tensor(objectness), minidet.Tensor(deltas), chosen)
    np.testing.assert_allclose(losses["loss_objectness"].item(), class_loss / 6, rtol=1e-12)
    np.testing.assert_allclose(losses["loss_rpn_box_reg"].item(), box_loss / 6, rtol=1e-12)


def rpn(**options) -> RegionProposalNetwork:
    manual_seed(0)
    return RegionProposalNetwork(RPNHead(4, 1, 4), [base_anchors((8,), (1,))], **options)


def test_an_rpn_with_a_stride_looks_at_every_second_cell():
    """A map of 5 x 6 cells, 4 pixels apart: it looks at 3 x 3 of them, 8 pixels apart, at what a convolution with all
    cells finds there."""
    x = minidet.Tensor(np.random.default_rng(0).normal(size=(2, 4, 5, 6)).astype(np.float32))
    batch = ImageBatch(minidet.Tensor(np.zeros((2, 3, 20, 24), np.float32)), [(20, 24)] * 2, [(20, 24)] * 2, 4)
    coarse, fine = rpn(), rpn()
    coarse.head = RPNHead(4, 1, 4, stride=2)
    coarse.head.load_state_dict(fine.head.state_dict())
    heard = {}
    with no_grad(), watch.listen(lambda event: heard.setdefault(event.name, event.value)):
        coarse.eval()([x], batch)
        scores, deltas = fine.head([x])
    (anchors,) = heard["rpn.anchors"]
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    np.testing.assert_array_equal(centres, [(x, y) for y in (0, 8, 16) for x in (0, 8, 16)])
    every_second = scores[0].data.reshape(2, 5, 6)[:, ::2, ::2].reshape(2, -1)
    np.testing.assert_allclose(heard["rpn.objectness"][0].data, every_second, atol=1e-5)
    every_second = deltas[0].data.reshape(2, 5, 6, 4)[:, ::2, ::2].reshape(2, -1, 4)
    np.testing.assert_allclose(heard["rpn.deltas"][0].data, every_second, atol=1e-5)


def test_anchors_are_sampled_as_the_paper_says():
    # Anchors of 8 x 8 pixels around (0, 0), (8, 0), (16, 0), ...: those of the first row and column cross the border.
    anchors = grid_anchors(base_anchors((8,), (1,)), (4, 4), (8, 8))
    target = {"boxes": np.float32([[4, 4, 12, 12], [13, 20, 20, 27]]), "labels": None, "crowds": np.zeros((0, 4))}
    positives, deltas, negatives = rpn().sample(anchors, (32, 32), target)
    # The first object is the anchor at (8, 8); the second's best one, IoU 0.47, is at (16, 24).
    np.testing.assert_array_equal(positives, [1 * 4 + 1, 3 * 4 + 2])
    np.testing.assert_allclose(deltas, [[0, 0, 0, 0], [0.5 / 8, -0.5 / 8, np.log(7 / 8), np.log(7 / 8)]], atol=1e-6)
    inside = [row * 4 + column for row in (1, 2, 3) for column in (1, 2, 3)]
    np.testing.assert_array_equal(negatives, [index for index in inside if index not in (5, 14)])
    _, _, everywhere = rpn(inside_only=False).sample(anchors, (32, 32), target)
    assert {0, 1, 2, 3, 4} <= set(everywhere)


def test_in_an_image_that_is_smaller_than_every_anchor_all_are_trained_on():
    """Anchors of 8 x 8 pixels, 4 apart, in 6 x 6: none lies inside. The one around (4, 4) covers most of the object."""
    anchors = grid_anchors(base_anchors((8,), (1,)), (2, 2), (4, 4))
    target = {"boxes": np.float32([[1, 1, 6, 6]]), "labels": None, "crowds": np.zeros((0, 4))}
    positives, _, negatives = rpn().sample(anchors, (6, 6), target)
    assert positives.tolist() == [3]
    assert set(negatives) <= {0, 1, 2}


def test_background_inside_a_crowd_is_not_trained_on():
    anchors = grid_anchors(base_anchors((8,), (1,)), (4, 4), (8, 8))
    target = {"boxes": np.zeros((0, 4), np.float32), "labels": None, "crowds": np.float32([[0, 0, 22, 14]])}
    positives, _, negatives = rpn().sample(anchors, (32, 32), target)
    assert len(positives) == 0
    # The anchors at (8, 8) and (16, 8) lie in it by more than half, (24, 8) by 2 of 8 columns only.
    np.testing.assert_array_equal(negatives, [7, 9, 10, 11, 13, 14, 15])


def test_the_four_losses_and_every_parameters_gradient():
    model, rng = small_detector(), np.random.default_rng(0)
    images, targets = zip(*(scene(rng, 40, 48, objects) for objects in (2, 0, 3)), strict=True)
    losses = model(list(images), list(targets))
    assert list(losses) == LOSSES
    assert all(np.isfinite(loss.item()) and loss.item() > 0 for loss in losses.values())
    sum(losses.values(), start=minidet.Tensor(np.float32(0))).backward()
    for name, parameter in model.named_parameters():
        assert np.abs(parameter.grad.data).max() > 0, name


def test_no_objects_at_all_teach_background_alone():
    model, rng = small_detector(), np.random.default_rng(0)
    images, targets = zip(*(scene(rng, 32, 32, 0) for _ in range(2)), strict=True)
    losses = model(list(images), list(targets))
    assert losses["loss_rpn_box_reg"].item() == losses["loss_box_reg"].item() == 0
    assert losses["loss_objectness"].item() > 0
    sum(losses.values(), start=minidet.Tensor(np.float32(0))).backward()
    assert all(np.isfinite(p.grad.data).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (64, 5)])
def test_tiny_and_long_images(size):
    model, image = small_detector(), minidet.Tensor(np.random.default_rng(0).random((3, *size), np.float32))
    target = {"boxes": np.float32([[0, 0, 1, 1]]), "labels": np.array([1])}
    assert all(np.isfinite(loss.item()) for loss in model([image], [target]).values())
    (found,) = model.eval()([image])
    assert found["boxes"].shape == (len(found["scores"]), 4)


def test_two_hundred_objects_and_boxes_at_the_border():
    model, rng = small_detector(), np.random.default_rng(0)
    image, target = scene(rng, 64, 64, 200)
    target["boxes"][0] = 0, 0, 64, 64
    target["boxes"][1] = 60, 0, 64, 64
    assert all(np.isfinite(loss.item()) for loss in model([image], [target]).values())


def test_what_is_no_number_is_not_proposed_and_makes_the_losses_none():
    model = small_detector()
    model.rpn.pre_nms = model.rpn.post_nms = (20, 20)
    images, targets = zip(*(scene(np.random.default_rng(0), 40, 48, count) for count in (2, 1)), strict=True)

    def spoiled(images):
        pixels = images.data.copy()
        pixels[1, :, :20] = np.nan
        return minidet.Tensor(pixels)

    model.normalize, heard = spoiled, {}
    with np.errstate(invalid="ignore"), watch.listen(lambda event: heard.setdefault(event.name, event.value)):
        losses = model(list(images), list(targets))
    assert all(np.isfinite(boxes).all() for boxes in heard["rpn.proposals"])
    assert len(heard["rpn.proposals"][0]) > 0
    assert np.isnan(losses["loss_objectness"].item())


def test_targets_are_asked_for_in_training_and_not_looked_at_in_evaluation():
    model = small_detector()
    image, _ = scene(np.random.default_rng(0), 40, 48, 1)
    with pytest.raises(ValueError, match=r"expected targets to train on, got None; call model.eval\(\) first"):
        model([image])
    assert model.eval()([image], [{}])[0].keys() == {"boxes", "labels", "scores"}


def test_a_smaller_image_of_a_batch_gives_what_it_gives_alone():
    """Zeros lie around it in any case, so only cells that look beyond its border see that it is not alone."""
    model, rng = small_detector().eval(), np.random.default_rng(0)
    images = [scene(rng, *size, 0)[0] for size in ((40, 48), (64, 40))]
    names = ("rpn.objectness", "rpn.deltas")

    def heard_of(batch):
        heard = {}
        with no_grad(), watch.listen(lambda event: heard.setdefault(event.name, event.value)):
            found = model(batch)
        rows, columns = heard["backbone.maps"][0].shape[2:]
        return [heard[name][0].data.reshape(len(batch), rows, columns, -1) for name in names], found

    together, detections = heard_of(images)
    for place, image in enumerate(images):
        alone, _ = heard_of([image])
        rows, columns = (side // model.backbone.stride - 2 for side in image.shape[1:])
        for values, expected in zip(together, alone, strict=True):
            assert np.ptp(expected) > 0.1
            inner = values[place, :rows, :columns]
            np.testing.assert_allclose(inner, expected[0, :rows, :columns], rtol=0, atol=1e-5)
        boxes = detections[place]["boxes"]
        assert len(boxes) > 5
        assert (boxes[:, 2:] <= np.array(image.shape[:0:-1])).all()


def test_detections_come_back_in_the_pixels_of_the_image():
    model, rng = small_detector(min_size=64, max_size=128).eval(), np.random.default_rng(0)
    image = scene(rng, 32, 40, 0)[0]
    heard = {}
    with no_grad(), watch.listen(lambda event: heard.setdefault(event.name, event.value)):
        (found,) = model([image])
    assert heard["backbone.maps"][0].shape[2:] == (64 // 4, 80 // 4)
    (proposals,) = heard["rpn.proposals"]
    assert proposals[:, 2].max() > 40  # in pixels of the batch, twice as many
    assert len(found["boxes"]) > 1
    assert (found["boxes"][:, 2:] <= (40, 32)).all()
    order = np.lexsort((np.arange(len(found["scores"])), -found["scores"]))
    np.testing.assert_array_equal(order, np.arange(len(order)))


def test_a_single_map_has_its_backbones_stride_also_without_padding():
    """AlexNet up to its fifth convolution: 11 x 11 pixels by 4, 3 x 3 pooled by 2 twice. Of 48 x 64 pixels there are
    2 x 3 cells, as if a cell were 24 or 21 pixels; but their centres are 16 apart."""
    backbone = cut(alexnet(), "features.11")
    batch = batch_images([minidet.Tensor(np.zeros((3, 48, 64), np.float32))], lambda x: x, None, None, backbone.stride)
    maps = [backbone(batch.tensor)]
    assert maps[0].shape[2:] == (2, 3)
    assert batch.strides(maps) == [(16, 16)]
    assert batch.strides([*maps, *maps]) == [(24, 21), (24, 21)]  # of several maps their sizes tell


def test_crowds_are_said_of_every_box():
    model, (image, target) = small_detector(), scene(np.random.default_rng(0), 32, 32, 2)
    with pytest.raises(ValueError, match="iscrowd for each of 2 boxes, got 3 in image 0"):
        model([image], [target | {"iscrowd": np.zeros(3, bool)}])


@pytest.mark.parametrize("labels", [np.array([1.0, 1.7]), np.array([True, True])])
def test_labels_are_integers(labels):
    model, (image, target) = small_detector(), scene(np.random.default_rng(0), 32, 32, 2)
    with pytest.raises(ValueError, match=f"labels as integers, got {labels.dtype} in image 0"):
        model([image], [target | {"labels": labels}])


def test_no_image_at_all_is_refused():
    with pytest.raises(ValueError, match="at least one image, got none"):
        small_detector().eval()([])


def test_regions_are_proposed_in_a_picture_that_is_cut_to_its_range():
    pixels = as_pixels(minidet.Tensor(np.float32([1.2, 1, 0.5, -0.1]).reshape(1, 2, 2).repeat(3, axis=0)))
    assert pixels[..., 0].tolist() == [[255, 255], [128, 0]]


def test_what_a_watcher_hears():
    model, rng = small_detector().eval(), np.random.default_rng(0)
    names = []
    with no_grad(), watch.listen(lambda event: names.append(event.name)):
        model([scene(rng, 32, 32, 0)[0]])
    assert names == [
        "image_batch.images", "backbone.maps", "rpn.objectness", "rpn.deltas", "rpn.anchors", "rpn.proposals",
        "roi.boxes", "roi.regions", "roi.logits", "roi.deltas", "roi.found",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"boxes": np.float32([[5, 5, 5, 9]])}, r"expected boxes x1 < x2, y1 < y2, got .*box 0 of image 0"),
        ({"boxes": np.float32([[5, 5, np.nan, 9]])}, r"expected boxes x1 < x2"),
        ({"labels": np.array([4])}, r"expected a label from 1 to 3 .* got \[4\] in image 0"),
        ({"labels": np.array([0])}, r"expected a label from 1 to 3"),
        ({"labels": np.array([1, 1])}, r"expected a label from 1 to 3 for each of 1 boxes"),
        ({"boxes": np.float32([[5, 5, 9, 9, 1]])}, r"expected boxes \(R, 4\), got \(1, 5\) in image 0 of a batch"),
        ({"boxes": np.float32([5, 5, 9, 9])}, r"expected boxes \(R, 4\), got \(4,\) in image 0 of a batch"),
        ({"boxes": np.float32([[32, 5, 40, 9]])}, r"boxes in pixels of their image, 32 wide and 32 high, got \[32"),
        ({"boxes": np.float32([[5, -9, 9, 0]])}, r"boxes in pixels of their image"),
    ],
)
def test_targets_that_cannot_be_are_refused(change, told):
    image, target = scene(np.random.default_rng(0), 32, 32, 1)
    with pytest.raises(ValueError, match=told):
        small_detector()([image], [target | change])


def test_boxes_and_labels_are_both_needed():
    image, target = scene(np.random.default_rng(0), 32, 32, 1)
    with pytest.raises(ValueError, match="expected boxes and labels, got boxes in image 1 of a batch"):
        small_detector()([image, image], [target, {"boxes": target["boxes"]}])
    with pytest.raises(ValueError, match="expected boxes and labels, got neither in image 0 of a batch"):
        small_detector()([image], [{}])


def test_images_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"expected images \(3, H, W\) of floats.*at position 1"):
        small_detector().eval()([minidet.Tensor(np.zeros((3, 8, 8), np.float32)), minidet.Tensor(np.zeros((8, 8, 3)))])
    with pytest.raises(ValueError, match=r"expected images in \[0, 1\], got numbers up to 200 at position 0"):
        small_detector().eval()([minidet.Tensor(np.full((3, 8, 8), 200, np.float32))])
    with pytest.raises(ValueError, match=r"got numbers up to nan at position 0; look for what is not finite"):
        small_detector().eval()([minidet.Tensor(np.where(np.arange(8) == 3, np.nan, np.zeros((3, 8, 8), np.float32)))])
    image = minidet.Tensor(np.zeros((3, 8, 8), np.float32))
    with pytest.raises(ValueError, match="expected a target for each of 2 images, got 1"):
        small_detector()([image, image], [{"boxes": np.zeros((0, 4)), "labels": np.zeros(0, int)}])


def test_images_of_one_size_are_the_same_as_a_list_as_one_array_and_beside_a_larger_one():
    rng = np.random.default_rng(0)
    images = [scene(rng, 16, 24, 0)[0] for _ in range(3)]
    expected = np.stack([image.numpy() - image.numpy().mean(axis=(1, 2), keepdims=True) for image in images])
    as_list = batch_images(images, centred, None, None, 8)
    as_array = batch_images(minidet.Tensor(np.stack([image.numpy() for image in images])), centred, None, None, 8)
    padded = batch_images([*images, scene(rng, 24, 24, 0)[0]], centred, None, None, 8)
    for batch in (as_list, as_array, padded):
        np.testing.assert_allclose(batch.tensor.numpy()[:3, :, :16], expected, atol=1e-6)
        assert batch.sizes[:3] == [(16, 24)] * 3
    assert as_list.padded_size == as_array.padded_size == (16, 24)
    assert padded.padded_size == (24, 24)
    assert not padded.tensor.numpy()[:3, :, 16:].any()
