"""Total variation: numbers worked out by hand, literal loops, torch; subgradients by what defines them; the errors."""

from __future__ import annotations

import numpy as np
import pytest

import minidet_kernels as mk

X = np.array([[0.0, 3.0, 3.0], [4.0, 3.0, 5.0]])[None, None]  # dx: 3 0 / -1 2     dy: 4 0 2


@pytest.fixture(params=["reference", "cpu"], autouse=True)
def version(request):
    if mk.available()[request.param] is not None:
        pytest.skip(mk.available()[request.param])
    with mk.use(request.param):
        yield request.param


def test_variations_by_hand() -> None:
    assert mk.tv_anisotropic(X).item() == 3 + 0 + 1 + 2 + 4 + 0 + 2
    assert mk.tv_isotropic(X).item() == 5 + 0 + 2 + 1 + 2  # (3, 4), (0, 0), (-, 2) / (-1, -), (2, -)


def test_subgradients_by_hand() -> None:
    np.testing.assert_array_equal(mk.tv_anisotropic_subgradient(X)[0, 0], [[-2, 1, -1], [2, -2, 2]])
    np.testing.assert_allclose(mk.tv_isotropic_subgradient(X)[0, 0], [[-1.4, 0.6, -1], [1.8, -2, 2]])


def test_a_pair_is_shortened_and_a_component_is_cut() -> None:
    p = np.array([3.0, 4.0]).reshape(2, 1, 1, 1, 1)
    np.testing.assert_allclose(mk.project_isotropic(p, 1).ravel(), [0.6, 0.8])
    np.testing.assert_allclose(mk.project_anisotropic(p, 3.5).ravel(), [3, 3.5])
    np.testing.assert_allclose(mk.project_isotropic(p, 5).ravel(), [3, 4])
    assert not mk.project_isotropic(p, 0).any()
    assert not mk.project_isotropic(0 * p, 0).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pairs_longer_than_the_largest_float_are_shortened_and_not_lost(dtype) -> None:
    """(2.4, 3.2) * 1e38 are numbers of float32; their length, 4e38, is none."""
    large = np.array([2.4, 3.2], dtype) * dtype(1e38)
    np.testing.assert_allclose(mk.project_isotropic(large.reshape(2, 1, 1, 1, 1), 5).ravel(), [3, 4], rtol=1e-6)
    x = np.zeros((1, 1, 2, 2), dtype)
    x[0, 0, 0, 1], x[0, 0, 1, 0] = large
    np.testing.assert_allclose(mk.tv_isotropic_subgradient(x)[0, 0, 0, 0], -0.6 - 0.8, rtol=1e-6)


def test_what_a_projection_takes_away_is_the_proximal_map() -> None:
    """By its definition: q = p - project(p, r) minimises 1/2 |q - p|^2 + r |q|, for any other q costs more."""
    rng = np.random.default_rng(0)
    norms = {mk.project_anisotropic: lambda q: np.abs(q).sum(), mk.project_isotropic: lambda q: np.hypot(*q).sum()}
    for project, norm in norms.items():
        p = rng.standard_normal((2, 1, 1, 4, 5))
        q = p - project(p, 0.7)
        assert (q == 0).any()
        least = 0.5 * ((q - p) ** 2).sum() + 0.7 * norm(q)
        for other in (*(q + 0.1 * rng.standard_normal((50, *p.shape))), p, 0 * p):
            assert 0.5 * ((other - p) ** 2).sum() + 0.7 * norm(other) > least


def test_literal_loops_find_the_same_variation() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 18, 7))
    anisotropic, isotropic = np.zeros((2, 3)), np.zeros((2, 3))
    for n, c, h, w in np.ndindex(x.shape):
        dx = x[n, c, h, w + 1] - x[n, c, h, w] if w + 1 < 7 else 0
        dy = x[n, c, h + 1, w] - x[n, c, h, w] if h + 1 < 18 else 0
        anisotropic[n, c] += abs(dx) + abs(dy)
        isotropic[n, c] += (dx**2 + dy**2) ** 0.5
    np.testing.assert_allclose(mk.tv_anisotropic(x), anisotropic, rtol=1e-12)
    np.testing.assert_allclose(mk.tv_isotropic(x), isotropic, rtol=1e-12)


def test_torch_differentiates_the_variation_alike() -> None:
    """At ties too: torch's derivative of |d| at 0 is 0. Of the root there it has none, so 1e-300 keeps it from 0."""
    torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")
    x = np.random.default_rng(0).integers(-2, 3, (2, 3, 17, 5)).astype(float)
    image = torch.from_numpy(x).requires_grad_()
    dx = torch.nn.functional.pad(image.diff(dim=3), (0, 1))
    dy = torch.nn.functional.pad(image.diff(dim=2), (0, 0, 0, 1))
    for kind, value in (("anisotropic", dx.abs() + dy.abs()), ("isotropic", (dx**2 + dy**2 + 1e-300).sqrt())):
        (expected,) = torch.autograd.grad(value.sum(), image, retain_graph=True)
        subgradient = getattr(mk, f"tv_{kind}_subgradient")(x)
        np.testing.assert_allclose(subgradient, expected.numpy(), atol=1e-12)
        np.testing.assert_allclose(getattr(mk, f"tv_{kind}")(x), value.detach().sum(dim=(2, 3)).numpy(), rtol=1e-12)


@pytest.mark.parametrize("kind", ["tv_anisotropic", "tv_isotropic"])
def test_a_subgradient_lies_below_the_variation_and_touches_it(kind: str) -> None:
    value, subgradient = getattr(mk, kind), getattr(mk, f"{kind}_subgradient")
    rng = np.random.default_rng(0)
    for _ in range(50):
        x, z = rng.integers(-2, 3, (2, 1, 1, 5, 6)).astype(float)  # integers, so that many differences are 0
        s = subgradient(x)
        assert (x * s).sum() == pytest.approx(value(x).item(), abs=1e-12)
        assert (z * s).sum() <= value(z).item() + 1e-12


def test_long_sums_of_float32_lose_nothing() -> None:
    board = (np.indices((1500, 1500)).sum(axis=0) % 2).astype(np.float32)[None, None]
    board *= np.float32(0.1)
    assert mk.tv_anisotropic(board).item() == pytest.approx(2 * 1500 * 1499 * float(np.float32(0.1)), rel=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mk.tv_anisotropic(X[0]), ValueError, "tv_anisotropic.*batch axis is missing"),
        (lambda: mk.tv_isotropic(X.astype(int)), TypeError, "tv_isotropic.*float32 or float64"),
        (lambda: mk.image_gradient_adjoint(np.zeros((3, 1, 1, 2, 2))), ValueError, "p "),
        (lambda: mk.project_anisotropic(np.zeros((2, 1, 1, 2, 2)), -1), ValueError, "radius >= 0, got -1"),
        (lambda: mk.project_isotropic(np.zeros((2, 1, 1, 2, 2)), np.nan), ValueError, "radius"),
        (lambda: mk.project_isotropic(np.zeros((2, 1, 1, 2, 2)), "1"), ValueError, "radius >= 0, got '1'"),
        (lambda: mk.tv_anisotropic_subgradient(X.tolist()), TypeError, "x to be an array, got list"),
    ],
)
def test_bad_arguments_are_refused_by_name(call, error, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
