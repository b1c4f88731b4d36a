"""OpenPose: maps, fields and losses by literal loops; peaks, lines and people by hand."""

import math

import numpy as np
import pytest

from minidet import Tensor, no_grad
from minidet.data.joints import COCO_LIMBS, LSP_LIMBS
from minidet.models.image_batch import ImageBatch
from minidet.models.openpose import OpenPose, affinity_fields, cell_centers, confidence_maps, stage_losses
from minidet.models.people import Peaks, find_peaks, join_limbs, match_pairs, people_of, score_pairs, spanning_tree
from minidet.random import manual_seed
from tests.models.detector_helpers import TwoConvolutions, scene

CHAIN = ((0, 1), (1, 2), (2, 3))  # four joints
PEOPLE = np.array([  # two of them, side by side, of 4 joints x, y, v
    [[10, 5, 2], [10, 15, 2], [12, 25, 1], [14, 35, 2]],
    [[30, 6, 2], [28, 16, 2], [28, 26, 2], [0, 0, 0]],
], float)  # fmt: skip


def small(**options) -> OpenPose:
    manual_seed(0)
    return OpenPose(TwoConvolutions(), 4, CHAIN, channels=8, convolutions=1, **options)


def target_of(keypoints: np.ndarray, crowds=()) -> dict:
    boxes = np.array([[*p[p[:, 2] > 0, :2].min(axis=0), *p[p[:, 2] > 0, :2].max(axis=0)] if p[:, 2].any() else
                      [20, 20, 30, 30] for p in keypoints], np.float32).reshape(-1, 4)  # fmt: skip
    return {"boxes": boxes, "keypoints": keypoints, "crowds": np.array(crowds, np.float32).reshape(-1, 4)}


# ---------------------------------------------------------------------------------------- what the maps should be


def test_a_cells_centre_is_between_its_pixels():
    x, y = cell_centers((2, 3), 4)
    assert x.tolist() == [1.5, 5.5, 9.5]
    assert y.tolist() == [1.5, 5.5]


def test_confidence_by_a_loop():
    cells = cell_centers((10, 10), 4)
    found = confidence_maps(PEOPLE, cells, sigma=5.0)
    for j in range(4):
        for y in range(10):
            for x in range(10):
                best = 0.0
                for px, py, v in PEOPLE[:, j]:
                    distance = (px - (4 * x + 1.5)) ** 2 + (py - (4 * y + 1.5)) ** 2
                    best = max(best, math.exp(-distance / 25) if v > 0 else 0)
                np.testing.assert_allclose(found[j, y, x], best, atol=1e-6)


def test_fields_by_a_loop():
    """Two people whose limbs cross: there the mean of the vectors of those who are there, not of everybody."""
    people = np.array([[[5, 5, 2], [35, 35, 2], [35, 5, 2], [0, 0, 0]], [[35, 5, 2], [5, 35, 1], [5, 5, 2], [0, 0, 0]]])
    cells = cell_centers((20, 20), 2)
    found, both = affinity_fields(people.astype(float), CHAIN, cells, width=3.0), 0
    for limb, (a, b) in enumerate(CHAIN):
        for y in range(20):
            for x in range(20):
                total, count = np.zeros(2), 0
                for person in people.astype(float):
                    if person[a, 2] == 0 or person[b, 2] == 0:
                        continue
                    v = person[b, :2] - person[a, :2]
                    length = math.hypot(*v)
                    v = v / length
                    offset = np.array([2 * x + 0.5, 2 * y + 0.5]) - person[a, :2]
                    if 0 <= v @ offset <= length and abs(v[1] * offset[0] - v[0] * offset[1]) <= 3:
                        total, count = total + v, count + 1
                both += count == 2
                np.testing.assert_allclose(found[2 * limb : 2 * limb + 2, y, x], total / max(count, 1), atol=1e-6)
    assert both > 0


def test_the_losses_by_a_loop():
    rng = np.random.default_rng(0)
    said = [[rng.normal(size=(2, channels, 3, 4)) for channels in (4, 6)] for _ in range(2)]
    goals, counts = [rng.normal(size=(2, channels, 3, 4)) for channels in (4, 6)], rng.integers(0, 2, (2, 3, 4))
    found = stage_losses([tuple(map(Tensor, stage)) for stage in said], *goals, counts.astype(float))
    assert list(found) == ["loss_confidence_1", "loss_fields_1", "loss_confidence_2", "loss_fields_2"]
    for number, stage in enumerate(said, start=1):
        for name, maps, goal in zip(("confidence", "fields"), stage, goals, strict=True):
            total = 0.0
            for n in range(2):
                for c in range(maps.shape[1]):
                    for y in range(3):
                        for x in range(4):
                            total += counts[n, y, x] * (maps[n, c, y, x] - goal[n, c, y, x]) ** 2
            np.testing.assert_allclose(found[f"loss_{name}_{number}"].item(), total / 2, rtol=1e-12)


def test_crowds_and_people_without_joints_do_not_count():
    unknown = PEOPLE.copy()
    unknown[1] = 0
    confidence, fields, counts = small().goals(target_of(unknown, [[0, 0, 8, 8]]), (10, 10))
    alone = small().goals(target_of(unknown[:1]), (10, 10))
    np.testing.assert_array_equal(confidence, alone[0])
    np.testing.assert_array_equal(fields, alone[1])
    expected = np.ones((10, 10))
    expected[:2, :2] = 0  # the crowd's pixels 0 to 7
    expected[5:7, 5:7] = 0  # the centres 21.5 and 25.5 are within 20 to 30; 29.5 is the edge itself
    expected[5:8, 7] = expected[7, 5:8] = 0
    np.testing.assert_array_equal(counts, expected)


# ------------------------------------------------------------------------------------------ from maps to people


def test_peaks_are_higher_than_their_neighbours():
    confidence = np.zeros((6, 8))
    confidence[2, 3], confidence[2, 4], confidence[5, 7], confidence[0, 0], confidence[4, 1] = 0.9, 0.8, 0.5, 0.1, 0.11
    confidence[0, 5] = confidence[0, 6] = 0.3  # equal: the first
    peaks = find_peaks(confidence)
    assert peaks.places.tolist() == [[5, 0], [3, 2], [1, 4], [7, 5]]
    np.testing.assert_allclose(peaks.scores, [0.3, 0.9, 0.11, 0.5])
    assert len(find_peaks(np.zeros((4, 4))).scores) == 0


def test_a_line_along_the_field_scores_and_others_do_not():
    field = np.zeros((2, 40, 40))
    field[0, 10:13, 5:30] = 1  # to the right, in rows 10 to 12
    first, second = np.array([[5.0, 11]]), np.array([[25.0, 11], [25, 31], [5, 11], [8, 11]])
    (scores,) = score_pairs(field, first, second)
    np.testing.assert_allclose(scores[0], 1)  # 20 pixels long: no longer than half the image
    assert scores[1] == -np.inf  # leaves the field soon
    assert scores[2] == -np.inf  # the same place
    np.testing.assert_allclose(scores[3], 1)
    (backwards,) = score_pairs(field, second[:1], first)
    assert backwards[0] == -np.inf
    field[0, 10:13, 14:16] = 0  # hidden on the way, at one of ten places: still a limb
    np.testing.assert_allclose(score_pairs(field, first, second)[0, 0], 0.9)
    field[0, 10:13, 16] = 0  # at two
    np.testing.assert_allclose(score_pairs(field, first, second)[0, 0], 0.8)
    field[0, 10:13, 18] = 0  # at three: more than a fifth of the samples
    assert score_pairs(field, first, second)[0, 0] == -np.inf


def test_limbs_longer_than_half_the_image_cost():
    field = np.zeros((2, 40, 40))
    field[0] = 1
    (score,) = score_pairs(field, np.array([[2.0, 5]]), np.array([[34.0, 5]]))
    np.testing.assert_allclose(score, 1 + 40 / 64 - 1)


def test_the_best_pair_first_and_no_peak_twice():
    scores = np.array([[0.9, 0.8, -np.inf], [0.85, 0.1, 0.2]])
    limbs = match_pairs(scores)
    assert list(zip(limbs.first.tolist(), limbs.second.tolist(), limbs.scores.tolist(), strict=True)) == [
        (0, 0, 0.9),
        (1, 2, 0.2),
    ]
    assert len(match_pairs(np.zeros((0, 3))).scores) == 0
    assert len(match_pairs(np.full((2, 2), -np.inf)).scores) == 0


def test_limbs_with_a_joint_in_common_are_one_person():
    """Two chains of limbs, of which the last one of the first joins what had begun as somebody else."""
    tree = ((0, 1), (2, 3), (1, 2))
    peaks = [Peaks(np.zeros((2, 2)), np.array([0.5, 0.7])) for _ in range(4)]
    limbs = [match_pairs(np.diag([0.9, 0.8])), match_pairs(np.diag([0.6, 0.4])), match_pairs(np.diag([0.3, -np.inf]))]
    people = join_limbs(peaks, limbs, tree)
    assert [person["joints"] for person in people] == [
        {0: 0, 1: 0, 2: 0, 3: 0},
        {0: 1, 1: 1},
        {2: 1, 3: 1},
    ]
    np.testing.assert_allclose([p["total"] for p in people], [4 * 0.5 + 1.8, 2 * 0.7 + 0.8, 2 * 0.7 + 0.4])


def test_a_limb_within_a_person_makes_no_second_one_of_it():
    peaks = [Peaks(np.zeros((1, 2)), np.array([0.5])) for _ in range(2)]
    (person,) = join_limbs(peaks, [match_pairs(np.array([[0.9]]))] * 2, ((0, 1), (1, 0)))
    assert person["joints"] == {0: 0, 1: 0}
    assert person["total"] == pytest.approx(2 * 0.5 + 2 * 0.9)


def test_the_people_that_perfect_maps_show():
    """Two whose limbs cross, each with its own joints; and not the third, who has three joints only."""
    crossed = np.array([
        [[8, 5, 2], [10, 15, 2], [28, 25, 1], [30, 35, 2]],
        [[30, 6, 2], [28, 15, 2], [10, 25, 2], [8, 34, 2]],
        [[36, 2, 2], [38, 10, 2], [36, 18, 2], [0, 0, 0]],
    ], float)  # fmt: skip
    cells = cell_centers((40, 40), 1)
    maps, fields = confidence_maps(crossed, cells, 2.0), affinity_fields(crossed, CHAIN, cells, 1.5)
    found = people_of(maps, fields.reshape(3, 2, 40, 40), CHAIN)
    assert len(found["scores"]) == 2
    order = found["keypoints"][:, 0, 0].argsort()
    np.testing.assert_allclose(found["keypoints"][order, :, :2], crossed[:2, :, :2], atol=0.5)
    assert (found["keypoints"][..., 2] == 1).all()
    assert (found["scores"] > 0.8).all()


def test_nobody_on_empty_maps():
    found = people_of(np.zeros((4, 20, 20)), np.zeros((3, 2, 20, 20)), CHAIN)
    assert found["keypoints"].shape == (0, 4, 3)
    assert found["scores"].shape == (0,)


def test_a_tree_reaches_every_joint_once():
    assert spanning_tree(LSP_LIMBS, 14) == LSP_LIMBS
    assert len(spanning_tree(COCO_LIMBS, 17)) == 16
    with pytest.raises(ValueError, match="limbs that connect all 4 joints"):
        spanning_tree(((0, 1), (2, 3), (1, 0)), 4)
    for limb in ((0, 5), (0, -1)):
        with pytest.raises(ValueError, match=f"limbs of joints from 0 to 2, got .{limb[0]}, {limb[1]}."):
            spanning_tree((limb, (1, 2)), 3)


# ------------------------------------------------------------------------------------------------ the whole


def test_it_trains_and_finds_people_of_its_images():
    rng, model = np.random.default_rng(0), small()
    images = [scene(rng, *size, 0)[0] for size in ((40, 48), (32, 56))]
    whole = {"labels": np.ones(2, np.int64), "iscrowd": np.zeros(2, bool)}
    nobody = {"boxes": np.zeros((0, 4)), "labels": np.zeros(0, int), "keypoints": np.zeros((0, 4, 3))}
    losses = model(images, [target_of(PEOPLE) | whole, nobody])
    assert len(losses) == 4
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert np.isfinite(parameter.grad.data).all(), name
        assert parameter.grad.data.any(), name
    with no_grad():
        found = model.eval()(images)
    assert all(one["keypoints"].shape == (len(one["scores"]), 4, 3) for one in found)


def test_where_a_joint_that_is_not_labelled_is_means_nothing():
    """The second person's last: files have 0, or what is not a number."""
    image, _ = scene(np.random.default_rng(0), 40, 40, 0)
    losses = []
    for nowhere in (0, math.nan, math.inf):
        people = np.where(PEOPLE[..., 2:] == 0, [nowhere, nowhere, 0], PEOPLE)
        target = target_of(PEOPLE) | {"keypoints": people, "labels": np.array([1, 1])}
        losses.append({name: loss.item() for name, loss in small()([image], [target]).items()})
    assert losses[0] == losses[1] == losses[2]
    assert min(losses[0].values()) > 0


def test_people_are_read_from_the_stage_that_is_asked_for():
    heard, model = [], small(stages=3).eval()
    model.people = lambda confidence, fields, batch: heard.append(float(confidence.sum())) or [{"keypoints": PEOPLE}]
    image, _ = scene(np.random.default_rng(0), 40, 40, 0)
    with no_grad():
        for stage in range(3):
            model.read_stage = stage
            model([image])
    assert len(set(heard)) == 3


def test_maps_are_read_between_their_cells():
    """Joints from maps of stride 4, whose cells have centres at 1.5, 5.5, ..., of an image that was twice as high."""
    model = small()
    person = np.array([[[13, 9.5, 2], [13, 17.5, 2], [13, 25.5, 2], [13, 33.5, 2]]], float)
    confidence, fields, _ = model.goals(target_of(person), (10, 10))
    batch = ImageBatch(None, [(40, 40)], [(80, 20)], 4)
    (found,) = batch.to_original(model.people(confidence[None], fields[None], batch))
    np.testing.assert_allclose(found["keypoints"][0, :, 0], 6.5, atol=0.5)
    np.testing.assert_allclose(found["keypoints"][0, :, 1], [19, 35, 51, 67], atol=1.5)


@pytest.mark.parametrize("keypoints", [None, np.zeros((2, 5, 3))])
def test_other_joints_are_refused(keypoints):
    image, _ = scene(np.random.default_rng(0), 40, 40, 0)
    target = target_of(PEOPLE) | {"labels": np.ones(2, np.int64)}
    target = {k: v for k, v in target.items() if k != "keypoints"} if keypoints is None else target
    with pytest.raises(ValueError, match=r"expected keypoints \(R, 4, 3\) to train on, got"):
        small()([image], [target if keypoints is None else target | {"keypoints": keypoints}])
