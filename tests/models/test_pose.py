"""DeepPose: normalisation, losses and cascade by hand, the Gaussian of its training boxes, and its errors."""

import numpy as np
import pytest

import minidet
import minidet_kernels
from minidet import Tensor, nn, optim, watch
from minidet.backbones import TinyBackbone
from minidet.data.joints import LSP_JOINTS, MPII_JOINTS, torso_diagonals
from minidet.models.pose import (
    LEAST_TORSO_FRACTION,
    POSE_LOSSES,
    SMOOTH_L1_BETA,
    TORSO_FRACTION,
    DeepPose,
    Refiner,
    denormalize,
    linear_part,
    normalize,
    sub_images,
    torso_diameter,
)

SMALL = (4, 8, 8)  # channels of a backbone that tests can afford
RIGHT_HIP, LEFT_HIP, RIGHT_SHOULDER, LEFT_SHOULDER = 2, 3, 8, 9


def make(**options) -> DeepPose:
    minidet.manual_seed(0)
    return DeepPose(
        TinyBackbone(SMALL), **{"image_size": 32, "input_size": 16, "refiner_size": 8, "hidden": 8} | options
    )


def batch(count: int = 4, seed: int = 0, unlabelled: float = 0.0) -> tuple[Tensor, list[dict]]:
    rng = np.random.default_rng(seed)
    keypoints = np.concatenate([rng.uniform(4, 27, (count, 1, 14, 2)), np.full((count, 1, 14, 1), 2)], axis=3)
    keypoints[rng.random((count, 1, 14)) < unlabelled] = 0
    images = Tensor(rng.random((count, 3, 32, 32), dtype=np.float32))
    return images, [{"keypoints": person.astype(np.float32)} for person in keypoints]


# ---- N(y; b) and N(x; b)


def test_a_place_is_normalised_to_its_box_and_back() -> None:
    center, size = np.array([30.0, 40.0]), np.array([20.0, 80.0])  # x 20 to 40, y 0 to 80
    corners = np.array([[20.0, 0.0], [40.0, 80.0], [30.0, 60.0]])
    z = normalize(corners, center, size)
    assert z.tolist() == [[-0.5, -0.5], [0.5, 0.5], [0, 0.25]]
    np.testing.assert_array_equal(denormalize(z, center, size), corners)
    assert linear_part(np.array([0.5, 0.25]), size).tolist() == [10, 20]  # a displacement has no centre


def test_a_sub_image_shows_what_is_in_its_box() -> None:
    """A picture whose red is the column and whose green is the row, in continuous coordinates."""
    places = np.arange(32, dtype=np.float32) + 0.5
    picture = np.stack([np.tile(places, (32, 1)), np.tile(places[:, None], (1, 32)), np.ones((32, 32), np.float32)])
    images = np.stack([picture, 2 * picture])
    center = np.array([[[10.0, 12.0], [16.0, 8.5]], [[10.0, 12.0], [16.0, 8.5]]])
    result = sub_images(images, center, np.full((2, 2, 1), 6.0), 4)  # pixels of 1.5 x 1.5
    assert result.shape == (4, 3, 4, 4)
    steps = np.array([-2.25, -0.75, 0.75, 2.25])
    for image, (x, y) in enumerate(center[0]):
        np.testing.assert_allclose(result[image, 0], np.tile(x + steps, (4, 1)), atol=1e-5)
        np.testing.assert_allclose(result[image, 1], np.tile((y + steps)[:, None], (1, 4)), atol=1e-5)
        np.testing.assert_allclose(result[image + 2], 2 * result[image], atol=1e-5)


def test_outside_the_picture_a_sub_image_is_black() -> None:
    result = sub_images(
        np.ones((1, 3, 8, 8), np.float32), np.array([[[-20.0, 4.0], [0.0, 4.0]]]), np.full((1, 1, 1), 8.0), 4
    )
    assert (result[0] == 0).all()
    assert result[1, 0, 0].tolist() == [0, 0, 1, 1]  # the box's left half is outside


# ---- the torso


def test_the_diameter_is_the_torsos_diagonal() -> None:
    y = np.zeros((1, 14, 2))
    y[0, RIGHT_SHOULDER], y[0, LEFT_SHOULDER], y[0, RIGHT_HIP], y[0, LEFT_HIP] = (0, 0), (6, 0), (0, 8), (3, 4)
    labelled = np.ones((1, 14), bool)
    torso = torso_diagonals(LSP_JOINTS)
    assert torso_diameter(y, labelled, torso).tolist() == [(10 + 5) / 2]
    labelled[0, LEFT_HIP] = False
    assert torso_diameter(y, labelled, torso).tolist() == [10]
    labelled[0, RIGHT_HIP] = False
    assert np.isnan(torso_diameter(y, labelled, torso)).all()
    model, side = make(), np.full((1, 1, 2), 32.0)
    assert model.diameter(y, labelled, side).item() == TORSO_FRACTION * 32
    assert model.diameter(y * 0, np.ones((1, 14), bool), side).item() == pytest.approx(LEAST_TORSO_FRACTION * 32)
    assert torso_diagonals(("nose", "tail")) == ()
    assert np.isnan(torso_diameter(y, labelled, ())).all()
    assert [[MPII_JOINTS[k] for k in pair] for pair in torso_diagonals(MPII_JOINTS)] == [
        ["left shoulder", "right hip"], ["right shoulder", "left hip"]
    ]  # fmt: skip


# ---- losses


@pytest.mark.parametrize("loss", POSE_LOSSES)
def test_the_loss_is_a_mean_over_labelled_coordinates_only(loss: str) -> None:
    model = make(loss=loss)
    z, target = np.zeros((2, 14, 2), np.float32), np.zeros((2, 14, 2), np.float32)
    labelled = np.zeros((2, 14), bool)
    labelled[0, 3] = labelled[1, 5] = labelled[1, 6] = True
    target[0, 3], target[1, 5] = (0.5, 0.25), (-0.125, 0.0)
    target[~labelled] = 77.0  # garbage, which must not be looked at
    differences = np.array([0.5, 0.25, 0.125, 0, 0, 0])  # of the 6 labelled coordinates
    by_hand = {
        "l2": differences**2,
        "l1": differences,
        "smooth_l1": np.maximum(differences - SMOOTH_L1_BETA / 2, 0),
    }[loss].sum() / 6
    assert model.regression(Tensor(z), target, labelled).item() == pytest.approx(by_hand, rel=1e-6)


def test_unlabelled_joints_teach_nothing() -> None:
    """Neither their coordinates nor their number change losses and gradients of the others."""
    images, targets = batch(3, unlabelled=0.4)
    found = []
    for garbage in (0.0, 5000.0, np.nan):
        model = make()
        spoiled = [{"keypoints": t["keypoints"].copy()} for t in targets]
        for target in spoiled:
            target["keypoints"][target["keypoints"][..., 2] == 0, :2] = garbage
        losses = model(images, spoiled)
        (losses["stage1"] + losses["stage2"]).backward()
        found.append(([v.item() for v in losses.values()], [p.grad.data for p in model.parameters()]))
    for losses, gradients in found[1:]:
        assert losses == found[0][0]
        assert all(np.array_equal(a, b) for a, b in zip(gradients, found[0][1], strict=True))


def test_people_without_a_labelled_joint_have_no_loss_and_no_gradient() -> None:
    images, targets = batch(2, unlabelled=1.0)
    model = make(stages=3)
    losses = model(images, targets)
    assert {name: loss.item() for name, loss in losses.items()} == {"stage1": 0, "stage2": 0, "stage3": 0}
    sum(losses.values(), start=Tensor(np.float32(0))).backward()
    assert all((p.grad.data == 0).all() for p in model.parameters())
    assert all((refiner.num_batches_tracked == 0).all() for refiner in model.refiners)


def test_joints_outside_the_image_are_learned_like_others() -> None:
    model = make(stages=1)
    images, targets = batch(1)
    targets[0]["keypoints"][0, 0] = (-17.0, 40.0, 1)  # -16.5, 40.5 in continuous coordinates, of 32
    model.head[-1].weight.data[...] = 0
    z = (targets[0]["keypoints"][0, :, :2] + 0.5 - 16) / 32
    assert z[0].tolist() == [-1.015625, 0.765625]
    model.head[-1].bias.data[...] = z.ravel()
    assert model(images, targets)["stage1"].item() == 0
    np.testing.assert_allclose(model.eval()(images)[0]["keypoints"][0, 0], (-17, 40, 2), atol=1e-5)


# ---- the cascade


class Found(nn.Module):
    """Stands in for a refiner's convolutions and layers: always says the same, in fractions of the sub-image."""

    def __init__(self, answer: tuple[float, float]) -> None:
        super().__init__()
        self.answer = np.array(answer, np.float32)

    def forward(self, x) -> Tensor:
        return Tensor(np.tile(self.answer, (len(x.data) // 14, 14, 1)))


def test_a_refiner_moves_a_joint_by_its_displacement_alone() -> None:
    """The centre of the box is in the joint's place already; N^-1 would add it a second time."""
    model = make(sigma=2.0).eval()
    model.head[-1].weight.data[...] = 0
    pose = np.tile([16.0, 16.0], (14, 1))
    pose[RIGHT_SHOULDER], pose[LEFT_SHOULDER], pose[RIGHT_HIP], pose[LEFT_HIP] = (10, 8), (16, 8), (10, 16), (16, 16)
    model.head[-1].bias.data[...] = ((pose - 16) / 32).ravel()  # diam = 10, so the boxes have 20 pixels
    model.refiners[0].forward = Found((0.25, -0.1)).forward
    images, _ = batch(2)
    for result in model(images):
        np.testing.assert_allclose(result["stage_keypoints"][0], pose - 0.5, atol=1e-5)  # pixel centres
        np.testing.assert_allclose(result["stage_keypoints"][1], pose - 0.5 + (5, -2), atol=1e-5)
        np.testing.assert_array_equal(result["keypoints"][0, :, :2], result["stage_keypoints"][1])
        assert (result["keypoints"][0, :, 2] == 2).all()


def test_each_stage_measures_the_torso_that_the_one_before_has_found() -> None:
    """Stage 2 makes the torso of 6 x 8 pixels one of 6 x 18, and stage 3 looks at boxes in proportion."""
    model = make(stages=3).eval()
    model.head[-1].weight.data[...] = 0
    pose = np.tile([16.0, 16.0], (14, 1))
    pose[RIGHT_SHOULDER], pose[LEFT_SHOULDER], pose[RIGHT_HIP], pose[LEFT_HIP] = (10, 8), (16, 8), (10, 16), (16, 16)
    model.head[-1].bias.data[...] = ((pose - 16) / 32).ravel()
    hips = np.zeros((14, 2), np.float32)
    hips[[RIGHT_HIP, LEFT_HIP]] = 0, 1  # of boxes of 10 pixels
    model.refiners[0].forward = lambda x: Tensor(np.tile(hips, (len(x.data) // 14, 1, 1)))
    model.refiners[1].forward = Found((0.1, 0.0)).forward
    _, second, third = model(batch(1)[0])[0]["stage_keypoints"]
    np.testing.assert_allclose(third - second, np.tile([0.1 * np.hypot(6, 18), 0], (14, 1)), atol=1e-5)


def test_training_boxes_lie_where_the_stage_before_would_put_them() -> None:
    """Stage 1 always misses by (3, -6) pixels of a torso of 10: all boxes are displaced so, and stage 2 has to learn
    the way back, in fractions of its boxes."""
    model = make(sigma=1.5)
    model.head[-1].weight.data[...] = 0
    pose = np.random.default_rng(1).uniform(10, 20, (14, 2))
    pose[RIGHT_SHOULDER], pose[LEFT_SHOULDER], pose[RIGHT_HIP], pose[LEFT_HIP] = (10, 8), (16, 8), (10, 16), (16, 16)
    model.head[-1].bias.data[...] = ((np.add(pose, (3, -6)) - 16) / 32).ravel()
    asked = []
    model.refiners[0].forward = Found((0.0, 0.0)).forward
    images, targets = batch(2)
    for target in targets:
        target["keypoints"][0, :, :2] = pose - 0.5
    target_z = -np.array([3, -6]) / 15
    model.regression = lambda z, target, labelled: asked.append(target) or (z * 0).sum()
    for _ in range(2):
        model(images, targets)
        mean, covariance = model.refiners[0].displacements()
        np.testing.assert_allclose(mean, np.tile([0.3, -0.6], (14, 1)), atol=1e-5)
        np.testing.assert_allclose(covariance, 0, atol=1e-5)
        np.testing.assert_allclose(asked[-1], np.broadcast_to(target_z, (2, 14, 2)), atol=2e-2)


def test_the_gaussian_is_fitted_to_the_residuals_and_drawn_from() -> None:
    minidet.manual_seed(0)
    refiner, rng = Refiner(2, 8), np.random.default_rng(0)
    true_mean, root = (
        np.array([[0.1, -0.2], [0.0, 0.3]]),
        np.array([[[0.2, 0.0], [0.1, 0.05]], [[0.3, 0.0], [0.0, 0.1]]]),
    )
    for _ in range(100):
        labelled = rng.random((200, 2)) < [1.0, 0.5]
        d = true_mean + np.einsum("jik,njk->nji", root, rng.standard_normal((200, 2, 2)))
        d[~labelled] = 1e6
        refiner.measure(d.astype(np.float32), labelled)
    mean, covariance = refiner.displacements()
    expected = np.einsum("jik,jlk->jil", root, root)
    np.testing.assert_allclose(mean, true_mean, atol=5e-3)
    np.testing.assert_allclose(covariance, expected, atol=3e-3)
    drawn = refiner.draw(20000)
    for joint in range(2):
        np.testing.assert_allclose(drawn[:, joint].mean(axis=0), mean[joint], atol=1e-2)
        np.testing.assert_allclose(np.cov(drawn[:, joint].T), covariance[joint], atol=3e-3)


def test_the_gaussian_follows_a_network_that_learns() -> None:
    refiner = Refiner(1, 8)
    for size in (4.0, 0.5):  # far off at first, then near
        for _ in range(600):
            refiner.measure(np.full((3, 1, 2), size, np.float32), np.ones((3, 1), bool))
    np.testing.assert_allclose(refiner.displacements()[0], 0.5, atol=0.01)


def test_every_joint_has_a_refiner_of_its_own() -> None:
    """The same sub-image for all joints, and different answers; one joint's layers do not feel another one's loss."""
    minidet.manual_seed(0)
    refiner = Refiner(3, 8).eval()
    refiner.output.weight.data[...] = np.random.default_rng(0).normal(size=refiner.output.weight.shape)
    image = np.random.default_rng(0).random((1, 3, 8, 8), dtype=np.float32)
    answers = refiner(Tensor(np.tile(image, (6, 1, 1, 1))))
    assert answers.shape == (2, 3, 2)
    np.testing.assert_allclose(answers.data[0], answers.data[1], atol=1e-6)
    assert len(np.unique(answers.data[0].round(4), axis=0)) == 3
    answers[:, 1].sum().backward()
    assert [bool(refiner.output.weight.grad.data[k].any()) for k in range(3)] == [False, True, False]


def test_the_mean_colour_of_a_sub_image_says_nothing() -> None:
    minidet.manual_seed(0)
    refiner = Refiner(3, 8).eval()
    refiner.output.weight.data[...] = np.random.default_rng(0).normal(size=refiner.output.weight.shape)
    images = np.random.default_rng(0).random((3, 3, 8, 8), dtype=np.float32)
    tint = np.float32([0.3, -0.2, 0.1]).reshape(3, 1, 1)
    expected = refiner(Tensor(images)).data
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(refiner(Tensor(images + tint)).data, expected, atol=1e-5)


def test_a_sub_image_moves_its_own_joint_of_its_own_person_only() -> None:
    minidet.manual_seed(0)
    refiner = Refiner(3, 8).eval()
    images = np.random.default_rng(0).random((6, 3, 8, 8), dtype=np.float32)  # two people's, person by person
    before = refiner(Tensor(images)).data.copy()
    images[3] = images[3, :, ::-1]  # the second person's first joint
    changed = (refiner(Tensor(images)).data != before).any(axis=2)
    assert changed.tolist() == [[False, False, False], [True, False, False]]


def test_the_stages_share_no_parameter_and_feel_only_their_own_loss() -> None:
    model = make()
    images, targets = batch()
    model(images, targets)["stage2"].backward()
    assert all(p.grad is None for p in model.backbone.parameters())
    assert all(p.grad is None for p in model.head.parameters())
    assert all(p.grad is not None for p in model.refiners.parameters())


def test_both_stages_learn_eight_people_by_heart() -> None:
    model = make(hidden=64, loss="l1")
    images, targets = batch(8)
    optimizer = optim.Adam(model.named_parameters(), 3e-3)
    for _ in range(250):
        optimizer.zero_grad()
        losses = model(images, targets)
        (losses["stage1"] + losses["stage2"]).backward()
        optimizer.step()
    model.eval()
    errors = np.array([
        np.linalg.norm(result["stage_keypoints"] - target["keypoints"][..., :2], axis=2).mean(axis=1)
        for result, target in zip(model(images), targets, strict=True)
    ])  # fmt: skip
    assert (errors.mean(axis=0) < 1).all()  # of 32 pixels; the mean place is 8 pixels off


@pytest.mark.skipif(minidet_kernels.available()["cpu"] is not None, reason="Numba is not installed")
def test_the_reference_version_gives_the_same_losses_and_gradients() -> None:
    found = {}
    images, targets = batch(unlabelled=0.2)
    for version in ("reference", "cpu"):
        with minidet_kernels.use(version):
            model = make()
            losses = model(images, targets)
            (losses["stage1"] + losses["stage2"]).backward()
            found[version] = [loss.item() for loss in losses.values()], [p.grad.data for p in model.parameters()]
    assert found["cpu"][0] == pytest.approx(found["reference"][0], rel=1e-5)
    for fast, slow in zip(found["cpu"][1], found["reference"][1], strict=True):
        assert np.abs(fast - slow).max() <= 1e-5 * max(1, np.abs(slow).max())


def test_its_intermediate_results_can_be_watched() -> None:
    heard = []
    images, _ = batch(2)
    with watch.listen(heard.append), watch.pictures(["a", "b"]):
        make().eval()(images)
    assert {event.name: event.shape for event in heard} == {"pose.features": (2, 8, 2, 2), "pose.stages": (2, 2, 14, 2)}


@pytest.mark.parametrize("bias", [np.nan, np.inf, 1e30])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_network_that_diverges_comes_to_its_loss_and_is_refused_by_that(bias: float) -> None:
    model, (images, targets) = make(), batch()
    model.head[-1].bias.data[...] = bias
    losses = model(images, targets)
    assert not losses["stage1"].item() < 1e29
    predictions = model.eval()(images)
    assert not (np.abs(predictions[0]["keypoints"][..., :2]) < 1e29).any()


def test_a_model_of_float64_computes_in_float64() -> None:
    (images, targets), single = batch(), make()
    double = make().to(np.float64)
    found = {}
    for model, x in ((single, images), (double, Tensor(images.data.astype(np.float64)))):
        minidet.manual_seed(1)
        losses = model.train()(x, targets)
        assert {loss.dtype for loss in losses.values()} == {x.dtype}
        found[x.dtype] = [loss.item() for loss in losses.values()] + model.eval()(x)[0]["keypoints"].ravel().tolist()
    np.testing.assert_allclose(*found.values(), rtol=1e-3, atol=1e-3)


def test_mistakes_are_told_apart() -> None:
    images, targets = batch(2)
    model = make()
    for options, message in (
        ({"loss": "huber"}, "loss among l2, l1, smooth_l1, got 'huber'"),
        ({"input_size": 12}, "multiple of the backbone's stride 8, got 12"),
        ({"image_size": 8}, "image_size to be input_size, 16, or more, got 8"),
        ({"stages": 0}, "at least 1 stage and sigma above 0, got 0"),
        ({"sigma": 0.0}, "at least 1 stage and sigma above 0, got 2 and 0"),
        ({"sigma": float("nan")}, "sigma above 0"),
        ({"refiner_size": 12}, "halved three times, such as 24, got 12"),
    ):
        with pytest.raises(ValueError, match=message):
            make(**options)
    with pytest.raises(ValueError, match=r"expected images \(N, 3, 32, 32\), got \(2, 3, 16, 16\)"):
        model(Tensor(np.zeros((2, 3, 16, 16), np.float32)))
    two = {"keypoints": np.zeros((2, 14, 3), np.float32)}
    with pytest.raises(ValueError, match=r"one person an image, got \(2, 14, 3\) in image 1"):
        model(images, [targets[0], two])
    with pytest.raises(ValueError, match=r"keypoints \(1, 14, 3\), one person an image, got \(0,\) in image 0"):
        model(images, [{"boxes": np.zeros((1, 4))}, targets[0]])
