"""The linear SVM: by hand, against scikit-learn's LIBLINEAR, by its duality gap; warm starts; the contract's errors."""

from __future__ import annotations

import numpy as np
import pytest

import minidet_kernels as mk


@pytest.fixture(params=["reference", "cpu"])
def version(request):
    if mk.available()[request.param] is not None:
        pytest.skip(mk.available()[request.param])
    with mk.use(request.param):
        yield request.param


def clouds(rows: int, features: int, seed: int = 0, distance: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Two clouds that overlap, a quarter of the rows positive."""
    rng = np.random.default_rng(seed)
    positive = np.arange(rows) % 4 == 0
    return rng.standard_normal((rows, features)) + distance * positive[:, None], positive


def primal(x, positive, w, cost, weight, bias) -> float:
    margins = np.where(positive, 1, -1) * (x @ w[:-1] + bias * w[-1])
    return w @ w / 2 + (cost * np.where(positive, weight, 1) * np.maximum(0, 1 - margins)).sum()


def dual(x, positive, alphas, bias) -> float:
    w = (alphas * np.where(positive, 1, -1)) @ np.column_stack([x, np.full(len(x), bias)])
    return alphas.sum() - w @ w / 2


@pytest.mark.usefixtures("version")
class TestByHand:
    def test_two_points_have_the_border_halfway(self) -> None:
        # +1 at 3, -1 at 1: <w, 3> + b = 1 and <w, 1> + b = -1, so w = 1, b = -2; and 3 a1 - a2 = w, a1 - a2 = b
        x = np.array([[3.0], [1.0]])
        w, alphas = mk.linear_svm(x, np.array([True, False]), cost=10, bias=1, tolerance=1e-9, max_passes=10_000)
        np.testing.assert_allclose(w, [1, -2], atol=1e-6)
        np.testing.assert_allclose(alphas, [1.5, 3.5], atol=1e-6)

    def test_one_point_gets_the_shortest_w_with_margin_1(self) -> None:
        w, alphas = mk.linear_svm(np.array([[3.0, 4.0]]), np.array([True]), cost=1, bias=0)
        np.testing.assert_allclose(w, [3 / 25, 4 / 25, 0], rtol=1e-12)
        np.testing.assert_allclose(alphas, [1 / 25], rtol=1e-12)

    def test_a_small_cost_ends_every_alpha_at_its_own(self) -> None:
        # no margin reaches 1, so w is the sum of all rows, each with its cost and sign; by hand from here
        x = np.array([[1.0, 2], [3, 0], [0, 1]])
        w, alphas = mk.linear_svm(x, np.array([True, False, False]), cost=0.01, positive_weight=2, bias=10)
        np.testing.assert_allclose(alphas, [0.02, 0.01, 0.01], rtol=1e-12)
        np.testing.assert_allclose(w, [0.02 - 0.03, 0.04 - 0.01, 0.2 - 0.1 - 0.1], atol=1e-12)

    def test_without_rows_w_is_0(self) -> None:
        w, alphas = mk.linear_svm(np.zeros((0, 3)), np.zeros(0, bool))
        assert w.tolist() == [0, 0, 0, 0]
        assert alphas.shape == (0,)

    def test_rows_of_zeros_change_nothing(self) -> None:
        x, positive = clouds(40, 3)
        w, _ = mk.linear_svm(x, positive, bias=0, tolerance=1e-9)
        more = np.concatenate([x, np.zeros((2, 3))])
        with_zeros, alphas = mk.linear_svm(more, np.append(positive, [True, False]), bias=0, tolerance=1e-9)
        np.testing.assert_allclose(with_zeros, w, atol=1e-6)
        assert alphas[-2:].tolist() == [1, 1]


@pytest.mark.usefixtures("version")
@pytest.mark.parametrize("cost", [1e-3, 0.1])
def test_the_duality_gap_closes(cost: float) -> None:
    x, positive = clouds(120, 6)
    w, alphas = mk.linear_svm(x, positive, cost=cost, positive_weight=2, bias=10, tolerance=1e-8, max_passes=10_000)
    np.testing.assert_allclose(primal(x, positive, w, cost, 2, 10), dual(x, positive, alphas, 10), rtol=1e-7)
    assert ((alphas >= 0) & (alphas <= cost * np.where(positive, 2, 1))).all()


@pytest.mark.parametrize(("dtype", "close"), [(np.float32, 2e-4), (np.float64, 1e-5)])
@pytest.mark.parametrize(("cost", "norm"), [(1e-3, 20), (0.1, 3)])
def test_it_finds_what_liblinear_finds(dtype, close, cost, norm) -> None:
    svm = pytest.importorskip("sklearn.svm", reason="scikit-learn is the peer")
    x, positive = clouds(2000, 30, seed=3)
    x = (x * norm / np.linalg.norm(x, axis=1).mean()).astype(dtype)  # R-CNN's features have a mean norm of 20
    settings = {"loss": "hinge", "intercept_scaling": 10, "tol": 1e-7, "max_iter": 100_000}
    peer = svm.LinearSVC(C=cost, class_weight={True: 2, False: 1}, **settings).fit(x.astype(np.float64), positive)
    expected = np.append(peer.coef_[0], peer.intercept_[0] / 10)
    w, _ = mk.linear_svm(x, positive, cost=cost, positive_weight=2, bias=10, tolerance=1e-7, max_passes=100_000)
    np.testing.assert_allclose(w, expected, atol=close * np.abs(expected).max())
    objectives = [primal(x.astype(np.float64), positive, v, cost, 2, 10) for v in (w, expected)]
    np.testing.assert_allclose(*objectives, rtol=1e-7)


class TestWarmStart:
    def test_the_solution_is_left_at_once(self) -> None:
        x, positive = clouds(300, 5)
        w, alphas = mk.linear_svm(x, positive, cost=0.1, tolerance=1e-6)
        again, same = mk.linear_svm(x, positive, alphas, cost=0.1, tolerance=1e-5, max_passes=1)
        np.testing.assert_allclose(again, w, atol=1e-5)
        np.testing.assert_allclose(same, alphas, atol=1e-5)

    def test_with_rows_gone_and_rows_new_it_ends_where_a_cold_start_does(self) -> None:
        x, positive = clouds(400, 5)
        _, alphas = mk.linear_svm(x[:300], positive[:300], cost=0.1)
        begin = np.concatenate([alphas[100:], np.zeros(100)])
        warm, _ = mk.linear_svm(x[100:], positive[100:], begin, cost=0.1, tolerance=1e-8, max_passes=10_000)
        cold, _ = mk.linear_svm(x[100:], positive[100:], cost=0.1, tolerance=1e-8, max_passes=10_000)
        np.testing.assert_allclose(warm, cold, atol=1e-6)

    def test_the_alphas_given_stay_as_they_are(self) -> None:
        x, positive = clouds(50, 3)
        alphas = np.full(50, 0.05)
        mk.linear_svm(x, positive, alphas, cost=0.1)
        assert (alphas == 0.05).all()


def test_versions_give_the_same_bits_although_rows_are_left_out_by_the_last_one() -> None:
    if mk.available()["cpu"] is not None:
        pytest.skip(mk.available()["cpu"])
    x, positive = clouds(200, 11)
    results = []
    for name in ("reference", "cpu"):
        with mk.use(name):
            results.append(mk.linear_svm(x, positive, cost=1, bias=10, tolerance=1e-4, max_passes=200))
    for mine, theirs in zip(*results, strict=True):
        assert mine.tobytes() == theirs.tobytes()


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"x": np.zeros((4, 2), int)}, TypeError, "float32 or float64"),
        ({"x": np.zeros(4)}, ValueError, "x .N, D."),
        ({"positive": np.zeros(3, bool)}, ValueError, "positive"),
        ({"positive": np.zeros(4)}, TypeError, "of bool"),
        ({"x": np.full((4, 2), np.nan)}, ValueError, "finite numbers .* row 0"),
        ({"alphas": np.full(4, 2.0)}, ValueError, "alphas from 0 to each row's cost, got 2.0 at index 0"),
        ({"alphas": np.full(4, np.nan)}, ValueError, "alphas"),
        ({"cost": 0}, ValueError, "cost"),
        ({"bias": -1}, ValueError, "bias"),
        ({"max_passes": 0}, ValueError, "max_passes"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(change: dict, error: type, told: str) -> None:
    arguments = {"x": np.zeros((4, 2)), "positive": np.zeros(4, bool)} | change
    with pytest.raises(error, match=told):
        mk.linear_svm(**arguments)
