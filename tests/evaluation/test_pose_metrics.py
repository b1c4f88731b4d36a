"""Pose metrics on people whose errors are known."""

import numpy as np
import pytest

from minidet.data.joints import LSP_JOINTS, MPII_JOINTS
from minidet.evaluation.pose import (
    fraction_within,
    head_box_sizes,
    head_segments,
    joint_errors,
    joint_table,
    pcp,
    pdj_curve,
    pose_metrics,
    torso_diameters,
)

J = {name: number for number, name in enumerate(LSP_JOINTS)}


def figure() -> np.ndarray:
    """(14, 3): a person 100 pixels high, all joints labelled. Head 20, torso diagonals 50, upper arms 16, lower arms
    10, thighs and shins 20."""
    joints = np.zeros((14, 3))
    joints[:, 2] = 2
    for side, x in (("right", 0), ("left", 30)):
        joints[J[f"{side} shoulder"], :2] = x, 20
        joints[J[f"{side} elbow"], :2] = x, 36
        joints[J[f"{side} wrist"], :2] = x, 46
        joints[J[f"{side} hip"], :2] = x, 60
        joints[J[f"{side} knee"], :2] = x, 80
        joints[J[f"{side} ankle"], :2] = x, 100
    joints[J["neck"], :2], joints[J["head top"], :2] = (15, 20), (15, 0)
    return joints


def test_the_sizes_that_errors_are_measured_by() -> None:
    people = np.stack([figure()] * 4)
    people[1, J["head top"], 2] = 0
    people[2, J["left hip"], 2] = 0
    people[3, [J["left hip"], J["right shoulder"], J["right hip"]], 2] = 0
    assert head_segments(people).tolist() == pytest.approx([20, np.nan, 20, 20], nan_ok=True)
    assert torso_diameters(people).tolist() == pytest.approx([50, 50, 50, np.nan], nan_ok=True)
    assert head_box_sizes([[10, 10, 40, 50]]).tolist() == [30]  # 0.6 of a diagonal of 50
    assert np.isnan(head_segments(people, [f"joint {k}" for k in range(14)])).all()


def test_perfect_predictions_have_perfect_metrics() -> None:
    people = np.stack([figure()] * 2)
    assert pose_metrics(people, people) == {"pckh_50": 1, "pdj_20": 1, "pcp_50": 1, "mean_error": 0}


def test_one_person_by_hand() -> None:
    """Errors of exactly half a head (10), a fifth of a torso (10), and a little more."""
    truth, predicted = figure()[None], figure()[None].copy()
    predicted[0, J["right ankle"], 0] += 10
    predicted[0, J["left ankle"], 0] += 10.5
    predicted[0, J["right wrist"], :2] += (3, 4)  # 5: half the lower arm
    predicted[0, J["left wrist"], :2] += (0, 5.25)
    metrics = pose_metrics(predicted, truth, scale=2.0)
    assert metrics["pckh_50"] == pytest.approx(13 / 14)
    assert metrics["pdj_20"] == pytest.approx(13 / 14)
    assert metrics["mean_error"] == pytest.approx(2 * (10 + 10.5 + 5 + 5.25) / 14)
    assert metrics["pcp_50"] == pytest.approx((1 + 0.5 + 1 + 0.5) / 4)
    assert pcp(predicted, truth) == {"upper arm": 1, "lower arm": 0.5, "upper leg": 1, "lower leg": 0.5}
    assert pdj_curve(predicted, truth, [0.05, 0.1, 0.2, 0.21]).tolist() == pytest.approx([
        10 / 14, 11 / 14, 13 / 14, 1
    ])  # fmt: skip


def test_pcp_is_strict_both_ends_have_to_be_near() -> None:
    """One end at its place and the other 0.6 of the limb away: the mean, 0.3, would pass the lenient rule."""
    truth, predicted = figure()[None], figure()[None].copy()
    predicted[0, J["right knee"], 0] += 12
    assert pcp(predicted, truth) == {"upper arm": 1, "lower arm": 1, "upper leg": 0.5, "lower leg": 0.5}


def test_joints_that_are_not_labelled_count_nowhere() -> None:
    truth, predicted = np.stack([figure()] * 2), np.stack([figure()] * 2)
    for joint in (J["right ankle"], J["left knee"]):
        truth[0, joint] = 0
        predicted[0, joint, :2] = 1e6
    predicted[1, J["right ankle"], 0] += 50
    errors = joint_errors(predicted, truth)
    assert np.isnan(errors).sum() == 2
    metrics = pose_metrics(predicted, truth)
    assert metrics["mean_error"] == pytest.approx(50 / 26)
    assert metrics["pckh_50"] == pytest.approx(25 / 26)
    # Lower legs: none of the first person's counts, one of the second's two is right.
    assert pcp(predicted, truth)["lower leg"] == 0.5
    table = joint_table(predicted, truth, scale=[1.0, 0.5])
    assert table["ankle"] == {"pckh_50": pytest.approx(2 / 3), "pdj_20": pytest.approx(2 / 3),
                              "mean_error": pytest.approx(25 / 3), "labelled": 3}  # fmt: skip
    assert table["knee"]["labelled"] == 3
    assert table["neck"] == {"pckh_50": 1, "pdj_20": 1, "mean_error": 0, "labelled": 2}
    assert list(table) == ["ankle", "knee", "hip", "wrist", "elbow", "shoulder", "neck", "head top"]


def test_people_without_a_head_or_torso_are_left_out_of_what_is_measured_by_them() -> None:
    truth, predicted = np.stack([figure()] * 2), np.stack([figure()] * 2)
    truth[0, J["head top"], 2] = 0
    truth[1, [J["right hip"], J["left hip"]], 2] = 0
    predicted[0, J["right wrist"], 0] += 30
    predicted[1, J["left wrist"], 0] += 30
    metrics = pose_metrics(predicted, truth)
    assert metrics["pckh_50"] == pytest.approx(11 / 12)  # the second person's
    assert metrics["pdj_20"] == pytest.approx(12 / 13)  # the first one's


def test_a_prediction_that_is_no_number_is_wrong() -> None:
    """Left out, as joints that are not labelled are, it would make the others' metrics the network's."""
    truth, predicted = figure()[None], figure()[None].copy()
    predicted[0, J["right wrist"], 0] = np.nan
    metrics = pose_metrics(predicted, truth)
    assert metrics["pckh_50"] == metrics["pdj_20"] == pytest.approx(13 / 14)
    assert metrics["pcp_50"] == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    assert metrics["mean_error"] == np.inf


def test_nothing_labelled_is_no_number_and_no_warning(recwarn) -> None:
    truth, predicted = np.zeros((2, 14, 3)), np.ones((2, 14, 2))
    for people in (truth, truth[:0]):
        metrics = pose_metrics(predicted[: len(people)], people)
        assert all(np.isnan(value) for value in metrics.values())
        assert np.isnan(pdj_curve(predicted[: len(people)], people, [0.2])).all()
        assert joint_table(predicted[: len(people)], people)["knee"]["labelled"] == 0
    assert not recwarn.list


def test_heads_may_be_measured_by_their_boxes_as_mpii_does() -> None:
    truth, predicted = figure()[None], figure()[None].copy()
    predicted[0, J["neck"], 0] += 12
    assert pose_metrics(predicted, truth)["pckh_50"] == pytest.approx(13 / 14)
    sizes = head_box_sizes([[0, 0, 24, 32]])  # 0.6 * 40 = 24, and half of that is 12
    assert pose_metrics(predicted, truth, head_sizes=sizes)["pckh_50"] == 1
    assert np.isnan(pose_metrics(predicted, truth, head_sizes=[np.nan])["pckh_50"])


def test_people_of_no_size_count_nowhere_and_other_joints_have_metrics_too() -> None:
    assert np.isnan(fraction_within(np.ones((1, 3)), np.zeros(1), 0.5))
    mpii = np.zeros((1, 16, 3))
    for name, joint in zip(LSP_JOINTS, figure(), strict=True):
        mpii[0, MPII_JOINTS.index(name)] = joint
    shifted = mpii.copy()
    shifted[0, MPII_JOINTS.index("right ankle"), 0] += 11
    expected = figure()[None].copy()
    expected[0, J["right ankle"], 0] += 11
    assert pose_metrics(shifted, mpii, MPII_JOINTS) == pose_metrics(expected, figure()[None])


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"truth \(P, J, 3\), got \(1, 14, 2\) and \(1, 14, 2\)"):
        joint_errors(np.zeros((1, 14, 2)), np.zeros((1, 14, 2)))
    with pytest.raises(ValueError, match=r"and \(1, 14, 2\); add v to the truth: 2 = visible$"):
        pose_metrics(np.zeros((1, 14, 2)), np.zeros((1, 14, 2)))
    with pytest.raises(ValueError, match=r"got \(2, 14, 3\) and \(1, 14, 3\)$"):
        joint_errors(np.zeros((2, 14, 3)), np.zeros((1, 14, 3)))


@pytest.mark.parametrize("measure", [pose_metrics, joint_table])
@pytest.mark.parametrize("name", ["scale", "head_sizes"])
def test_numbers_of_other_people_are_refused(measure, name) -> None:
    people = np.stack([figure()] * 2)
    for numbers in (np.ones(3), np.ones(1), np.ones((2, 1))):
        expected = rf"{name}: expected a number for each of 2 people, or one for all, got \({numbers.shape[0]},"
        with pytest.raises(ValueError, match=expected):
            measure(people, people, **{name: numbers})
    assert measure(people, people, **{name: 3.0}) == measure(people, people, **{name: [3.0, 3.0]})


@pytest.mark.parametrize("measure", [pose_metrics, pcp, joint_table, lambda *pair: pdj_curve(*pair, [0.2])])
def test_joints_that_the_names_do_not_list_are_refused(measure) -> None:
    with pytest.raises(ValueError, match=r"truth \(P, 14, 3\), the joints that names=.*got \(2, 16, 3\); MPII's have"):
        measure(np.zeros((2, 16, 3)), np.zeros((2, 16, 3)))
