"""The localizer: its losses by hand, its errors, and the same numbers in the reference version."""

import numpy as np
import pytest

import minidet
import minidet_kernels
from minidet import Tensor, optim, watch
from minidet.backbones import TinyBackbone
from minidet.boxes import paired_iou
from minidet.models.classifier import Classifier
from minidet.models.localizer import BOX_LOSSES, SMOOTH_L1_BETA, Localizer

SMALL = (4, 8, 8)  # channels of a backbone that tests can afford


def make(**options) -> Localizer:
    minidet.manual_seed(0)
    return Localizer(TinyBackbone(SMALL), classes=3, image_size=16, **{"hidden": 8} | options)


def batch(count: int = 4, seed: int = 0) -> tuple[Tensor, list[dict]]:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 8, (count, 1, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(2, 8, (count, 1, 2))], axis=-1).astype(np.float32)
    targets = [{"boxes": boxes[i], "labels": np.array([i % 3 + 1])} for i in range(count)]
    return Tensor(rng.random((count, 3, 16, 16), dtype=np.float32)), targets


@pytest.mark.parametrize("box_loss", BOX_LOSSES)
@pytest.mark.parametrize("alpha", [0.2, 0.7])
def test_the_loss_is_the_lectures(box_loss: str, alpha: float) -> None:
    model = make(alpha=alpha, box_loss=box_loss)
    logits = Tensor(np.array([[2.0, 0.0, -1.0]]))
    boxes = Tensor(np.array([[0.125, 0.25, 0.5, 0.75]]))  # fractions of 16 pixels
    targets = [{"boxes": np.array([[2.0, 4.0, 12.0, 12.0]]), "labels": np.array([2])}]  # 0.125, 0.25, 0.75, 0.75
    losses = model.losses(logits, boxes, targets)
    class_loss = -np.log(1 / (np.exp(2) + 1 + np.exp(-1)))
    d = 0.25  # only x2 differs
    box_loss_by_hand = {
        "l1": d / 4,
        "l2": d * d / 4,
        "smooth_l1": (d - SMOOTH_L1_BETA / 2) / 4,
        "iou": 1 - (0.375 * 0.5) / (0.625 * 0.5),
        "giou": 1 - (0.375 * 0.5) / (0.625 * 0.5),  # the hull is the larger box: nothing to subtract
    }[box_loss]
    assert losses["class"].item() == pytest.approx(alpha * class_loss, rel=1e-12)
    assert losses["box"].item() == pytest.approx((1 - alpha) * box_loss_by_hand, rel=1e-12)


def test_it_learns_eight_images_by_heart() -> None:
    model = make(box_loss="giou", hidden=64)
    images, targets = batch(8)
    optimizer = optim.Adam(model.named_parameters(), 3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        losses = model(images, targets)
        (losses["class"] + losses["box"]).backward()
        optimizer.step()
    model.eval()
    for result, target in zip(model(images), targets, strict=True):
        assert result["labels"][0] == target["labels"][0]
        assert paired_iou(result["boxes"], target["boxes"])[0] > 0.7


def test_predictions_are_boxes_in_pixels_inside_the_image() -> None:
    model = make().eval()
    model.box_head[-1].bias.data[...] = (0.9, 0.1, 0.6, 0.4)  # reaches over the right and the upper edge
    images, _ = batch(2)
    for result in model(images):
        assert result["boxes"].shape == (1, 4)
        assert result["boxes"].min() >= 0
        assert result["boxes"].max() <= 16
        assert 1 <= result["labels"][0] <= 3
        assert result["scores"][0] == result["class_scores"].max()
        assert result["class_scores"].sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.skipif(minidet_kernels.available()["cpu"] is not None, reason="Numba is not installed")
def test_the_reference_version_gives_the_same_losses_and_gradients() -> None:
    found = {}
    images, targets = batch()
    for version in ("reference", "cpu"):
        with minidet_kernels.use(version):
            model = make()
            losses = model(images, targets)
            (losses["class"] + losses["box"]).backward()
            found[version] = [loss.item() for loss in losses.values()], [p.grad.data for p in model.parameters()]
    assert found["cpu"][0] == pytest.approx(found["reference"][0], rel=1e-5)
    for fast, slow in zip(found["cpu"][1], found["reference"][1], strict=True):
        assert np.abs(fast - slow).max() <= 1e-5 * max(1, np.abs(slow).max())


def test_its_intermediate_results_can_be_watched() -> None:
    heard = []
    images, _ = batch(2)
    with watch.listen(heard.append), watch.pictures(["a", "b"]):
        make().eval()(images)
    assert {event.name: event.shape for event in heard} == {
        "localizer.features": (2, 8, 2, 2),
        "localizer.logits": (2, 3),
        "localizer.boxes": (2, 4),
    }


def test_mistakes_are_told_apart() -> None:
    images, targets = batch(2)
    model = make()
    with pytest.raises(ValueError, match="alpha between 0 and 1"):
        make(alpha=1.0)
    with pytest.raises(ValueError, match="box_loss among l1, l2, smooth_l1, iou, giou"):
        make(box_loss="ciou")
    with pytest.raises(ValueError, match=r"expected images \(N, 3, 16, 16\)"):
        model(Tensor(np.zeros((2, 3, 32, 32), np.float32)))
    with pytest.raises(ValueError, match="expected labels 1 to 3"):
        model(images, [targets[0], targets[1] | {"labels": np.array([4])}])
    two = {"boxes": np.zeros((2, 4)), "labels": np.array([1, 2])}
    with pytest.raises(ValueError, match="one object an image, got 2 in image 1"):
        model(images, [targets[0], two])


def test_the_classifier_shares_the_backbone_with_the_localizer() -> None:
    minidet.manual_seed(0)
    classifier = Classifier(TinyBackbone(SMALL), classes=3)
    images, targets = batch(3)
    losses = classifier(images, targets)
    assert set(losses) == {"class"}
    losses["class"].backward()
    assert all(parameter.grad is not None for parameter in classifier.parameters())
    results = classifier.eval()(images)
    assert [set(result) for result in results] == [{"labels", "scores", "class_scores"}] * 3
    localizer = Localizer(classifier.backbone, classes=3, image_size=16)
    assert localizer.backbone is classifier.backbone
