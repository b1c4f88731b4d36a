"""Hard-negative mining, by what is in the cache after each step."""

import numpy as np
import pytest

import minidet_kernels as kernels
from minidet.models import hard_negatives
from minidet.models.hard_negatives import BIAS, ClassSVM, ImageRegions, train_svms


def given_border(one: ClassSVM, *weights: float) -> ClassSVM:
    """The SVM as if it had been trained: score = <weights, x> + bias, the last of weights."""
    one.weights = np.array([*weights[:-1], weights[-1] / BIAS])
    return one


def one_class(features: list, negative: list) -> ImageRegions:
    return ImageRegions(np.float32(features), np.array(negative)[:, None])


def column(*values: float) -> list[float]:
    """As float32 has them."""
    return np.float32(values).tolist()


def negatives(one: ClassSVM) -> list[float]:
    """The first feature of each in the cache, in its order."""
    return one.features[one.count :, 0].tolist()


@pytest.fixture
def trainings(monkeypatch):
    """Each training as (positives, negatives before, negatives after); no border moves: the score is the first
    feature."""
    calls = []

    def train(self):
        before = negatives(self)
        original(self)
        calls.append((self.count, before, negatives(self)))

    def leave_the_border(features, positive, alphas, *settings):
        return np.eye(1, features.shape[1] + 1)[0], alphas

    original = ClassSVM.train
    monkeypatch.setattr(ClassSVM, "train", train)
    monkeypatch.setattr(kernels, "linear_svm", leave_the_border)
    return calls


def test_scores_are_those_of_the_features_and_the_bias() -> None:
    one = given_border(ClassSVM(np.zeros((0, 2), np.float32)), 2, -1, 0.5)
    np.testing.assert_allclose(one.scores(np.float32([[1, 1], [0, 3]])), [1.5, -2.5])


def test_of_the_first_image_all_negatives_come_in_and_the_svm_is_trained(trainings) -> None:
    first = one_class([[5], [-1], [-1.1], [9]], [True, True, True, False])
    (one,) = train_svms([np.ones((2, 1), np.float32)], [first])
    assert trainings == [(2, column(5, -1, -1.1), column(5, -1, -1.1))]
    np.testing.assert_array_equal(one.features, np.float32([[1], [1], [5], [-1], [-1.1]]))


def test_of_later_images_only_those_that_score_more_than_the_margin(trainings) -> None:
    first = one_class([[0]], [True])
    later = one_class([[-1], [-1.00005], [-1.0002], [3], [2]], [True, True, True, False, True])
    (one,) = train_svms([np.ones((1, 1), np.float32)], [first, later])
    assert negatives(one) == column(0, -1, -1.00005, 2)  # -1.0002 is beyond -1.0001, 3 is in the grey zone
    assert len(trainings) == 2  # the first image's, and the last one


def test_easy_ones_leave_after_a_training_and_not_before(trainings) -> None:
    first = one_class([[-1.19], [-1.21], [0]], [True, True, True])
    (one,) = train_svms([np.ones((1, 1), np.float32)], [first])
    assert trainings == [(1, column(-1.19, -1.21, 0), column(-1.19, 0))]
    np.testing.assert_allclose(one.features, [[1], [-1.19], [0]], rtol=1e-6)
    assert one.alphas.shape == (3,)


def test_positives_stay_however_they_score(trainings) -> None:
    (one,) = train_svms([np.full((3, 1), -7, np.float32)], [one_class([[0]], [True])])
    assert one.count == 3
    assert len(one.features) == 4


def test_more_than_2000_new_ones_train_at_once(trainings) -> None:
    first = one_class([[0]], [True])
    images = [first, *(one_class([[1]] * 1000, [True] * 1000) for _ in range(3))]
    train_svms([np.ones((1, 1), np.float32)], images)
    assert [len(before) for _, before, _ in trainings] == [1, 3001]  # 2000 are not more than 2000; nothing is left over
    trainings.clear()
    train_svms([np.ones((1, 1), np.float32)], [*images, one_class([[1]] * 5, [True] * 5)])
    assert [len(before) for _, before, _ in trainings] == [1, 3001, 3006]


def test_the_cache_is_what_came_in_as_it_came_and_a_new_one_has_no_multiplier_yet() -> None:
    one = ClassSVM(np.ones((1, 2), np.float32))
    one.alphas[:] = 0.5
    one.add(np.float32([[1, 8], [3, 7]]))
    one.add(np.zeros((0, 2), np.float32))
    one.add(np.float32([[2, 6]]))
    np.testing.assert_array_equal(one.features, np.float32([[1, 1], [1, 8], [3, 7], [2, 6]]))
    assert one.alphas.tolist() == [0.5, 0, 0, 0]
    assert (one.count, one.added) == (1, 3)


def test_each_class_has_its_own_negatives(trainings) -> None:
    regions = ImageRegions(np.float32([[0], [1], [2]]), np.array([[True, False], [True, True], [False, True]]))
    one, other = train_svms([np.ones((1, 1), np.float32)] * 2, [regions])
    assert negatives(one) == [0, 1]
    assert negatives(other) == [1, 2]


def test_without_positives_or_negatives_the_scores_are_finite() -> None:
    nothing = ImageRegions(np.zeros((0, 2), np.float32), np.zeros((0, 1), bool))
    (one,) = train_svms([np.zeros((0, 2), np.float32)], [nothing])
    assert one.scores(np.float32([[3, 4]])).tolist() == [0]
    (one,) = train_svms([np.zeros((0, 2), np.float32)], [one_class(np.ones((9, 2)), [True] * 9)])
    assert one.scores(np.ones((1, 2), np.float32))[0] < 0


def test_it_ends_near_the_svm_of_all_negatives_with_few_of_them() -> None:
    """Two clouds; most negatives are so far off that no border needs them."""
    rng = np.random.default_rng(0)
    positives = rng.normal(12, 3, (300, 2)).astype(np.float32)
    images = [
        one_class(rng.normal(np.where(rng.random((200, 1)) < 0.1, 6, -8), 2, (200, 2)), [True] * 200) for _ in range(30)
    ]
    (one,) = train_svms([positives], images)
    everything = np.concatenate([positives, *(image.features for image in images)])
    expected, _ = kernels.linear_svm(
        everything, np.arange(len(everything)) < 300, None, hard_negatives.COST, 2, 10, 1e-6, 10_000
    )
    np.testing.assert_allclose(one.weights, expected, atol=0.03 * np.abs(expected).max())
    assert len(negatives(one)) < len(everything) / 4
