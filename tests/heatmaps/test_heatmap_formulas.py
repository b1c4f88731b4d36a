"""The formulas: by hand, against loops that spell the equations out, and where they are 0/0."""

import numpy as np
import pytest

from minidet.heatmaps import formulas

# One image, two channels of 2 x 2.
A = np.array([[[[1.0, 2], [0, 3]], [[0, 1], [1, 0]]]])
G = np.array([[[[1.0, 1], [1, 1]], [[2, -2], [0, 4]]]])

BY_HAND = {
    "cam": (lambda: formulas.cam(A, np.array([[2.0, -1]])), [[2, 3], [-1, 6]]),
    "grad_cam": (lambda: formulas.grad_cam(A, G), [[1, 3], [1, 3]]),  # w = 1, 1
    # alpha_1 = 1/8; alpha_2 = 1/6, -1/2 (not counted), 0, 1/10: w = 4/8, 2/6 + 4/10
    "grad_cam_plus_plus": (lambda: formulas.grad_cam_plus_plus(A, G), [[0.5, 1 + 11 / 15], [11 / 15, 1.5]]),
    # alpha_1 = 1/4; alpha_2 = (1/6, 1/10) / (4/15) = 5/8, 3/8: w = 1, 11/4
    "the authors'": (lambda: formulas.grad_cam_plus_plus(A, G, "positive"), [[1, 4.75], [2.75, 3]]),
    "xgrad_cam": (lambda: formulas.xgrad_cam(A, G), [[1, 1], [-1, 3]]),  # w = 6/6, -2/2
    "hires_cam": (lambda: formulas.hires_cam(A, G), [[1, 0], [0, 3]]),
    "layer_cam": (lambda: formulas.layer_cam(A, G), [[1, 2], [0, 3]]),
    "score_cam": (lambda: formulas.score_cam(A, np.array([[np.log(3.0), 0]])), [[0.75, 1.75], [0.25, 2.25]]),
    "ablation_cam": (
        lambda: formulas.ablation_cam(A, np.array([4.0]), np.array([[2.0, 5]])),  # w = 1/2, -1/4
        [[0.5, 0.75], [-0.25, 1.5]],
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_formula_gives_the_numbers_computed_by_hand(name: str) -> None:
    got, expected = BY_HAND[name]
    np.testing.assert_allclose(got(), [expected], rtol=1e-12, atol=1e-15)


# -------------------------------------------------------------------------------------------- literal loops


def loop(weight):
    """The map of a rule for one image: sum over k, place by place, of weight(A, G, k, i, j) A_kij."""

    def maps(A, G):
        n, c, h, w = A.shape
        result = np.zeros((n, h, w))
        for m in range(n):
            for k in range(c):
                for i in range(h):
                    for j in range(w):
                        result[m, i, j] += weight(A[m], G[m], k, i, j) * A[m, k, i, j]
        return result

    return maps


def grad_cam_weight(A, G, k, i, j):
    total, places = 0.0, 0
    for row in G[k]:
        for g in row:
            total, places = total + g, places + 1
    return total / places


def alphas(A, G, k):
    total = A[k].sum()
    return [
        [0.0 if g == 0 else g**2 / (2 * g**2 + total * g**3) for g in row]
        for row in G[k]
    ]  # fmt: skip


def plus_plus_weight(A, G, k, i, j):
    alpha = alphas(A, G, k)
    return sum(alpha[a][b] * max(G[k, a, b], 0) for a in range(G.shape[1]) for b in range(G.shape[2]))


def authors_weight(A, G, k, i, j):
    alpha = alphas(A, G, k)
    places = [(a, b) for a in range(G.shape[1]) for b in range(G.shape[2]) if G[k, a, b] > 0]
    total = sum(alpha[a][b] for a, b in places)
    return sum(alpha[a][b] / total * G[k, a, b] for a, b in places) if total else 0.0


def xgrad_weight(A, G, k, i, j):
    over, under = 0.0, 0.0
    for a in range(A.shape[1]):
        for b in range(A.shape[2]):
            over, under = over + G[k, a, b] * A[k, a, b], under + A[k, a, b]
    return over / under if under else 0.0


LOOPS = {
    "grad_cam": (formulas.grad_cam, grad_cam_weight),
    "grad_cam_plus_plus": (formulas.grad_cam_plus_plus, plus_plus_weight),
    "the authors'": (lambda A, G: formulas.grad_cam_plus_plus(A, G, "positive"), authors_weight),
    "xgrad_cam": (formulas.xgrad_cam, xgrad_weight),
    "hires_cam": (formulas.hires_cam, lambda A, G, k, i, j: G[k, i, j]),
    "layer_cam": (formulas.layer_cam, lambda A, G, k, i, j: max(G[k, i, j], 0)),
}


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("rectified", [True, False])
def test_the_formula_equals_a_literal_loop(name: str, rectified: bool) -> None:
    rng = np.random.default_rng(4)
    A, G = rng.standard_normal((2, 3, 5, 4, 6))
    A[0, 2] = 0  # a dead channel
    G[1, 3] = 0  # and one without influence
    G[0, 0, 1] = 0
    A = np.maximum(A, 0) if rectified else A
    formula, weight = LOOPS[name]
    expected = loop(weight)(A, G)
    np.testing.assert_allclose(formula(A, G), expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    channels_last = np.ascontiguousarray(A.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(formula(channels_last, G), formula(A, G), rtol=1e-12, atol=1e-13)


def test_score_cam_equals_a_literal_loop() -> None:
    rng = np.random.default_rng(5)
    A, scores = rng.random((2, 3, 4, 5)), 50 * rng.standard_normal((2, 3))
    expected = np.zeros((2, 4, 5))
    for n in range(2):
        for k in range(3):
            softmax = 1 / sum(np.exp(other - scores[n, k]) for other in scores[n])
            expected[n] += softmax * A[n, k]
    np.testing.assert_allclose(formulas.score_cam(A, scores), expected, rtol=1e-6)
    np.testing.assert_allclose(formulas.score_cam(A, scores - 7), expected, rtol=1e-6)  # the baseline cancels
    np.testing.assert_allclose(formulas.score_cam(A, scores + 1e4), expected, rtol=1e-6)  # and nothing overflows


def test_ablation_cam_equals_a_literal_loop() -> None:
    rng = np.random.default_rng(6)
    A, y, without = rng.random((2, 3, 4, 5)), np.array([2.0, -3.0]), rng.standard_normal((2, 3))
    expected = np.zeros((2, 4, 5))
    for n in range(2):
        for k in range(3):
            expected[n] += (y[n] - without[n, k]) / y[n] * A[n, k]
    np.testing.assert_allclose(formulas.ablation_cam(A, y, without), expected, rtol=1e-6)


# ------------------------------------------------------------------------------------------------ Eigen-CAM


def test_eigen_cam_is_the_first_principal_component_of_scipy() -> None:
    from scipy.linalg import svd

    A = np.random.default_rng(7).random((4, 6, 3, 5))
    for heat, maps in zip(formulas.eigen_cam(A), A, strict=True):
        X = np.array([[maps[k, i, j] for k in range(6)] for i in range(3) for j in range(5)])
        X -= X.mean(axis=0)
        expected = (X @ svd(X)[2][0]).reshape(3, 5)
        if abs(expected.min()) > expected.max():
            expected = -expected
        np.testing.assert_allclose(heat, expected, rtol=1e-6, atol=1e-9)


def test_eigen_cam_is_turned_so_that_its_largest_number_is_positive() -> None:
    bump = np.zeros((1, 2, 4, 4))
    bump[0, :, 1, 2] = 5, 3
    for sign in (1, -1):
        heat = formulas.eigen_cam(sign * bump)
        assert np.unravel_index(heat[0].argmax(), (4, 4)) == (1, 2)
        assert heat.max() == pytest.approx(np.hypot(5, 3) * 15 / 16)  # less the mean over 16 places
        assert heat.min() == pytest.approx(-np.hypot(5, 3) / 16)


# ------------------------------------------------------------------------------------------- 0/0 and zeros


def all_formulas(A, G):
    n, c = A.shape[:2]
    ones = np.ones((n, c))
    return {
        "cam": formulas.cam(A, ones),
        "score_cam": formulas.score_cam(A, ones),
        "ablation_cam": formulas.ablation_cam(A, np.zeros(n), np.zeros((n, c))),
        "eigen_cam": formulas.eigen_cam(A),
    } | {name: formula(A, G) for name, (formula, _) in LOOPS.items()}


@pytest.mark.parametrize("gradient", [0.0, 2.0, -1.0])
def test_activations_of_zero_give_maps_of_zero(gradient: float) -> None:
    with np.errstate(all="raise"):
        maps = all_formulas(np.zeros((2, 3, 4, 4)), np.full((2, 3, 4, 4), gradient))
    for name, heat in maps.items():
        assert (heat == 0).all(), name


def test_constant_activations_give_constant_maps() -> None:
    with np.errstate(all="raise"):
        maps = all_formulas(np.full((2, 3, 4, 4), 0.3), np.full((2, 3, 4, 4), 0.7))
    for name, heat in maps.items():
        assert np.ptp(heat) <= 1e-15, name
        assert (heat != 0).all() == (name not in ("eigen_cam", "ablation_cam")), name  # y = 0: no weight


def test_quotients_by_zero_are_zero() -> None:
    with np.errstate(all="raise"):
        # sum A = 0 in xgrad_cam though A is not 0
        assert (formulas.xgrad_cam(np.array([[[[1.0, -1]]]]), np.ones((1, 1, 1, 2))) == 0).all()
        # 2 + (sum A) G = 0
        heat = formulas.grad_cam_plus_plus(np.array([[[[-1.0, -1]]]]), np.array([[[[1.0, 3]]]]))
        np.testing.assert_allclose(heat, -np.array([[[1, 1]]]) * (3 / (2 - 6)))
        assert formulas.channel_masks(np.array([[3.0, 3], [3, 3]])).tolist() == [[0, 0], [0, 0]]
    assert formulas.channel_masks(np.array([[1.0, 3], [2, 5]])).tolist() == [[0, 0.5], [0.25, 1]]


def test_grad_cam_plus_plus_survives_gradients_whose_powers_vanish() -> None:
    A, G = np.random.default_rng(8).random((2, 1, 3, 4, 4))
    tiny = formulas.grad_cam_plus_plus(A, G * 1e-200)  # alpha -> 1/2
    np.testing.assert_allclose(tiny * 1e200, formulas.weighted_sum(G.sum(axis=(2, 3)) / 2, A), rtol=1e-12)


def test_an_unknown_normalization_is_refused() -> None:
    with pytest.raises(ValueError, match="expected normalization 'none' or 'positive', got 'authors'"):
        formulas.grad_cam_plus_plus(A, G, "authors")
