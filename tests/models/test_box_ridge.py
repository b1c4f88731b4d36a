"""Ridge regression of boxes: against scikit-learn's, and by hand."""

import numpy as np
import pytest

from minidet.models.box_ridge import fit_box_ridge


def data(count: int, features: int = 7, noise: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(count)
    x = rng.standard_normal((count, features))
    mixed = x @ rng.standard_normal((features, 4)) * [0.1, 0.2, 0.01, 1] + [1, 2, -3, 0.5]
    return x, mixed + noise * rng.standard_normal((count, 4))


@pytest.mark.parametrize(("count", "ridge"), [(200, 1000.0), (200, 1.0), (4, 10.0)])
def test_it_is_scikit_learns_ridge_on_targets_whitened_as_in_the_authors_code(count: int, ridge: float) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is the peer")
    from scipy.linalg import sqrtm

    x, targets = data(count)
    root = np.real(sqrtm(np.cov(targets.T, bias=True) + 1e-3 * np.eye(4)))
    mean = targets.mean(axis=0)
    with_ones = np.hstack([x, np.ones((count, 1))])
    peer = linear_model.Ridge(alpha=ridge, fit_intercept=False).fit(with_ones, (targets - mean) @ np.linalg.inv(root))
    expected = peer.predict(with_ones) @ root + mean
    weights = fit_box_ridge(x, targets, ridge)
    np.testing.assert_allclose(x @ weights[:, :-1].T + weights[:, -1], expected, atol=1e-8)


def test_without_a_ridge_a_linear_map_is_found_again() -> None:
    x, targets = data(100, noise=0)
    weights = fit_box_ridge(x, targets, ridge=1e-9)
    np.testing.assert_allclose(x @ weights[:, :-1].T + weights[:, -1], targets, atol=1e-6)


def test_with_a_very_large_ridge_only_the_mean_is_left() -> None:
    x, targets = data(100)
    weights = fit_box_ridge(x, targets, ridge=1e12)
    np.testing.assert_allclose(weights[:, :-1], 0, atol=1e-8)
    np.testing.assert_allclose(weights[:, -1], targets.mean(axis=0), atol=1e-8)


def test_one_region_is_said_by_its_own_deltas() -> None:
    weights = fit_box_ridge(np.float32([[1, 2]]), np.float32([[0.1, -0.2, 0.3, 0]]))
    np.testing.assert_allclose(weights, [[0, 0, 0.1], [0, 0, -0.2], [0, 0, 0.3], [0, 0, 0]], atol=1e-7)


def test_no_region_leaves_boxes_as_they_are() -> None:
    assert (fit_box_ridge(np.zeros((0, 3), np.float32), np.zeros((0, 4), np.float32)) == np.zeros((4, 4))).all()
