"""The solvers: problems whose solution is worked out by hand, SciPy, torch, bounds that must hold; the errors."""

from __future__ import annotations

import numpy as np
import pytest

import minidet_kernels as mk
from minidet_kernels.resample import rotation_then_translation
from minidet_kernels.solvers import (
    IDENTITY,
    Energy,
    LinearOperator,
    adam,
    constant_steps,
    decimated_warps,
    diminishing_steps,
    geometric_steps,
    polyak_steps,
    primal_dual,
    subgradient_descent,
)

SLOW = {"tolerance": 1e-13, "iterations": 20_000}  # of primal_dual, for solutions exact to 1e-6


@pytest.fixture(params=["reference", "cpu"], autouse=True)
def version(request):
    if mk.available()[request.param] is not None:
        pytest.skip(mk.available()[request.param])
    with mk.use(request.param):
        yield request.param


# --- denoising of a row: solutions worked out by hand


def step(mu: float = 0.0) -> tuple[list[float], list[float], float, float]:
    """Two levels of 4 and 6 pixels stay two levels u < v. E = 4/2 u^2 + 6/2 (v - 1)^2 + 3/2 (v - u) + mu/2 (4 u^2 +
    6 v^2), lambda = 3/2; by its derivatives (1 + mu) u = 3/8, (1 + mu) v = 1 - 1/4."""
    return [0] * 4 + [1] * 6, [0.375 / (1 + mu)] * 4 + [0.75 / (1 + mu)] * 6, 1.5, mu


def merged() -> tuple[list[float], list[float], float, float]:
    """With lambda = 3 the levels would pass each other (3/4 > 1/2): they meet, at the mean."""
    return [0] * 4 + [1] * 6, [0.6] * 10, 3.0, 0.0


def bump() -> tuple[list[float], list[float], float, float]:
    """A level between lower ones is pulled down from both sides, to 1 - 2 lambda / 5; they rise by lambda / 3, / 4."""
    return [0] * 3 + [1] * 5 + [0] * 4, [0.1] * 3 + [0.88] * 5 + [0.075] * 4, 0.3, 0.0


def ramp() -> tuple[list[float], list[float], float, float]:
    """TV of a rising row is last - first: only the ends flatten, until lambda = 3 is spent: (2 - 0) + (2 - 1) = 3."""
    return list(range(10)), [2, 2, 2, 3, 4, 5, 6, 7, 7, 7], 3.0, 0.0


@pytest.mark.parametrize("case", [step(), step(mu=0.5), merged(), bump(), ramp()])
@pytest.mark.parametrize("variation", ["anisotropic", "isotropic"])
@pytest.mark.parametrize("axis", [2, 3])
def test_the_certified_solver_finds_the_solution_worked_out_by_hand(case, variation: str, axis: int) -> None:
    data, expected, tv_weight, l2_weight = case
    shape = (1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1)
    noisy, expected = np.array(data, float).reshape(shape), np.array(expected, float).reshape(shape)
    energy = Energy(IDENTITY, noisy, tv_weight, l2_weight, variation)
    solution = primal_dual(energy, **SLOW)
    np.testing.assert_allclose(solution.h, expected, atol=1e-6)
    assert solution.lower_bound - 1e-12 <= energy(expected) <= solution.energy + 1e-12
    assert solution.gap <= 1e-13 * solution.energy + 1e-15


# h (1, 1, 3, 4) -> its mean
MEAN = LinearOperator(
    lambda h: h.mean(axis=(2, 3), keepdims=True), lambda y: np.broadcast_to(y / 12, (*y.shape[:2], 3, 4))
)


def test_only_the_mean_is_known_so_the_image_is_flat() -> None:
    """K h = mean of 3 x 4 pixels, g = 1: of all h with the mean m the flat one is cheapest in both other terms, and
    1/2 (m - 1)^2 + 12 mu/2 m^2 is least at m = 1 / (1 + 12 mu)."""
    solution = primal_dual(Energy(MEAN, np.ones((1, 1, 1, 1)), tv_weight=0.2, l2_weight=0.05), **SLOW)
    np.testing.assert_allclose(solution.h, np.full((1, 1, 3, 4), 1 / 1.6), atol=1e-6)


def test_extrapolation_leads_inwards_where_there_is_hardly_any_convexity() -> None:
    far = 10 * np.random.default_rng(0).standard_normal((1, 1, 3, 4))
    energy = Energy(MEAN, np.ones((1, 1, 1, 1)), tv_weight=2, l2_weight=1e-3)
    assert primal_dual(energy, iterations=3000, tolerance=1e-6, start=far).iterations < 2000  # without it: 12,821


# --- super-resolution


def super_resolution(size: int, low_size: int, copies: int, dtype=np.float64, samples: int = 1) -> Energy:
    """A smooth hill and a disc, seen by `copies` rotated and shifted copies with noise, with the lecture's weights."""
    rng = np.random.default_rng(0)
    angles, shifts = rng.uniform(-0.5, 0.5, copies), rng.uniform(-0.13, 0.13, (copies, 2)) * size
    matrices = rotation_then_translation(angles, shifts, (size, size))
    operator = decimated_warps(matrices, size, low_size, samples)
    y, x = np.mgrid[:size, :size] / size
    truth = np.exp(-((x - 0.4) ** 2 + (y - 0.5) ** 2) / 0.02) + 0.6 * ((x - 0.7) ** 2 + (y - 0.3) ** 2 < 0.02)
    seen = operator.forward(truth[None, None].astype(dtype))
    noisy = np.maximum(seen + 0.02 * rng.standard_normal(seen.shape).astype(dtype), 0)
    return Energy(operator, noisy, tv_weight=0.001 * copies, l2_weight=0.0001 * copies)


@pytest.mark.parametrize(("low_size", "copies"), [(16, 20), (8, 50), (4, 100)])
def test_subgradient_descent_comes_within_a_hundredth_of_the_certified_optimum(low_size: int, copies: int) -> None:
    energy = super_resolution(64, low_size, copies)
    certified = primal_dual(energy, tolerance=1e-3)
    assert certified.gap <= 1e-3 * certified.energy
    descended = subgradient_descent(energy, iterations=2000)
    assert certified.lower_bound <= descended.energy <= 1.01 * certified.lower_bound
    recipe = adam(energy)
    assert recipe.energy >= certified.lower_bound
    by_polyak = subgradient_descent(energy, 500, polyak_steps(certified.lower_bound))
    assert certified.lower_bound <= by_polyak.energy <= 1.2 * certified.lower_bound


@pytest.mark.parametrize("variation", ["anisotropic", "isotropic"])
def test_no_energy_is_below_the_bound_not_even_after_few_iterations(variation: str) -> None:
    energy = super_resolution(12, 6, 5)
    energy = Energy(energy.operator, energy.data, 0.05, 0.01, variation)
    optimum = primal_dual(energy, tolerance=1e-6)
    assert optimum.gap <= 1e-6 * optimum.energy
    for iterations in (1, 5, 30, 200):
        early = primal_dual(energy, iterations, tolerance=0)
        assert early.lower_bound <= optimum.energy * (1 + 1e-12)
        assert early.energy >= optimum.lower_bound * (1 - 1e-12)
        assert early.iterations == iterations
    assert (np.diff(early.gaps) <= 0).all()


def test_scipy_finds_the_same_optimum(version) -> None:
    """min over h of L(h, p) can be solved for h; what is left is smooth in p, in a box: a problem for L-BFGS-B."""
    optimize = pytest.importorskip("scipy.optimize", reason="SciPy is the oracle; minidet itself installs it")
    energy = super_resolution(8, 4, 6)
    energy = Energy(energy.operator, energy.data, 0.05, 0.02)
    pixels = np.eye(64).reshape(64, 1, 1, 8, 8)
    quadratic = np.stack([energy.operator.gram_of(pixel).ravel() for pixel in pixels]) + 0.02 * np.eye(64)
    back = energy.operator.adjoint(energy.data).ravel()

    def minus_dual(p: np.ndarray) -> tuple[float, np.ndarray]:
        rest = back - mk.image_gradient_adjoint(p.reshape(2, 1, 1, 8, 8)).ravel()
        h = np.linalg.solve(quadratic, rest)
        return 0.5 * rest @ h, -mk.image_gradient(h.reshape(1, 1, 8, 8)).ravel()

    options = {"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-9}
    found = optimize.minimize(minus_dual, np.zeros(128), jac=True, bounds=[(-0.05, 0.05)] * 128, options=options)
    optimum = 0.5 * (energy.data**2).sum() - found.fun
    solution = primal_dual(energy, tolerance=1e-10, iterations=20_000)
    assert solution.energy == pytest.approx(optimum, rel=1e-7)
    assert solution.lower_bound == pytest.approx(optimum, rel=1e-7)


def test_all_samples_of_a_cell_are_its_average_and_one_is_its_centre() -> None:
    rng = np.random.default_rng(0)
    h = rng.standard_normal((1, 2, 12, 8))
    matrices = rotation_then_translation(rng.uniform(-1, 1, 3), rng.uniform(-3, 3, (3, 2)), (12, 8))
    average = decimated_warps(matrices, (12, 8), (3, 2), samples=4)
    np.testing.assert_allclose(average.forward(h), mk.avg_pool2d(mk.affine_warp(h, matrices), 4), atol=1e-12)
    centre = decimated_warps(np.eye(2, 3)[None], (12, 8), (3, 2))
    np.testing.assert_allclose(centre.forward(h), mk.resize_bilinear(h, (3, 2)), atol=1e-12)


@pytest.mark.parametrize("samples", [1, 2, 4])
def test_the_operator_is_an_adjoint_pair_with_its_gram(samples: int) -> None:
    rng = np.random.default_rng(0)
    operator = super_resolution(16, 4, 7, samples=samples).operator
    h, y = rng.standard_normal((1, 1, 16, 16)), rng.standard_normal((7, 1, 4, 4))
    assert (operator.forward(h) * y).sum() == pytest.approx((h * operator.adjoint(y)).sum(), rel=1e-12)
    np.testing.assert_allclose(operator.gram_of(h), operator.adjoint(operator.forward(h)), atol=1e-12)


# --- the energy, and the solvers' manners


@pytest.mark.parametrize("variation", ["anisotropic", "isotropic"])
def test_value_and_subgradient_agree_with_the_energy_term_by_term(variation: str) -> None:
    energy = super_resolution(10, 5, 4)
    energy = Energy(energy.operator, energy.data, 0.3, 0.2, variation)
    rng = np.random.default_rng(0)
    for _ in range(20):
        h, z = rng.integers(-2, 3, (2, 1, 1, 10, 10)).astype(float)
        value, subgradient = energy.value_and_subgradient(h)
        assert value == pytest.approx(energy(h), rel=1e-12)
        assert energy(z) >= value + (subgradient * (z - h)).sum() - 1e-9  # convex: above each of its tangents


def test_smoothness_bounds_the_largest_eigenvalue() -> None:
    energy = super_resolution(10, 5, 8)
    pixels = np.eye(100).reshape(100, 1, 1, 10, 10)
    largest = np.linalg.eigvalsh(np.stack([energy.operator.gram_of(p).ravel() for p in pixels]))[-1] + energy.l2_weight
    assert largest <= energy.smoothness <= 1.06 * largest


def test_adam_steps_as_torch_does() -> None:
    torch = pytest.importorskip("torch", reason="torch is the oracle; pip install '.[oracle]'")
    data = np.random.default_rng(0).standard_normal((1, 1, 3, 4))
    h = torch.zeros(data.shape, dtype=torch.float64, requires_grad=True)
    theirs = torch.optim.Adam([h], lr=0.1)
    for _ in range(5):
        theirs.zero_grad()
        (0.5 * (h - torch.from_numpy(data)) ** 2).sum().backward()
        theirs.step()
    ours = adam(Energy(IDENTITY, data, tv_weight=0), iterations=5, lr=0.1)
    np.testing.assert_allclose(ours.h, h.detach().numpy(), atol=1e-12)


def test_step_lengths_by_hand() -> None:
    def lengths(rule, steps):
        return [rule(k, 3.0, np.array([1.0, 2.0])) for k in steps]

    assert lengths(constant_steps(0.2), range(3)) == [0.2, 0.2, 0.2]
    assert lengths(diminishing_steps(6), (0, 3, 8)) == [6, 3, 2]
    assert lengths(geometric_steps(1, 1e-4, 5), range(5)) == pytest.approx([1, 0.1, 0.01, 1e-3, 1e-4])
    assert lengths(geometric_steps(2, 1, 1), range(1)) == [2]
    assert lengths(polyak_steps(1.0), range(2)) == [0.4, 0.4]  # (3 - 1) / (1 + 4)
    assert lengths(polyak_steps(4.0), range(1)) == [0]  # never uphill, where the optimum is overestimated


def test_the_best_iterate_is_kept_when_the_steps_are_far_too_long() -> None:
    energy = Energy(IDENTITY, np.ones((1, 1, 2, 2)), tv_weight=0)
    solution = subgradient_descent(energy, 6, constant_steps(2.5))  # 1 - h grows by -1.5 at each step
    assert solution.energy == 2.0  # that of the start
    assert solution.energies[-1] == pytest.approx(2 * 1.5**12)
    half = subgradient_descent(energy, 6, constant_steps(0.5))
    np.testing.assert_allclose(half.h, 1 - 0.5**6)
    assert subgradient_descent(energy, 50, polyak_steps(0)).energy == pytest.approx(0, abs=1e-12)


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_steps_that_run_away_to_infinity_leave_the_start() -> None:
    energy = Energy(IDENTITY, np.ones((1, 1, 2, 2), np.float32), tv_weight=0)
    solution = subgradient_descent(energy, 60, constant_steps(1e3))
    assert np.isnan(solution.energies[-1])
    assert solution.energy == 2.0
    assert not solution.h.any()


@pytest.mark.parametrize("solver", [subgradient_descent, adam, primal_dual])
def test_float32_stays_float32_and_runs_repeat_bit_for_bit(solver) -> None:
    energy = super_resolution(24, 6, 10, np.float32)
    before = energy.data.tobytes()
    first, second = solver(energy, iterations=40), solver(energy, iterations=40)
    assert first.h.dtype == np.float32
    assert first.h.tobytes() == second.h.tobytes()
    assert first.energy == second.energy <= first.energies.min() * (1 + 1e-5)
    assert energy.data.tobytes() == before
    assert solver(energy, 1, start=first.h).energy <= first.energy


@pytest.mark.parametrize("solver", [subgradient_descent, adam, primal_dual])
def test_a_start_at_the_optimum_is_not_lost_on_the_way(solver) -> None:
    """The first steps lead away from it, as they are long, or as the second unknown starts at 0."""
    energy = super_resolution(24, 6, 10)
    optimum = primal_dual(energy, tolerance=1e-6)
    solution = solver(energy, 25, start=optimum.h)
    assert solution.energies[-1] > 1.0001 * optimum.energy
    assert solution.energy <= optimum.energy * (1 + 1e-12)
    assert solution.energy == energy(solution.h)
    assert not np.shares_memory(solution.h, optimum.h)


DATA = np.ones((1, 1, 2, 2))
FINE = Energy(IDENTITY, DATA, 1.0)
BLACK = LinearOperator(lambda h: 0 * h, lambda y: 0 * y)


def test_an_operator_that_sees_nothing_gives_nothing() -> None:
    energy = Energy(BLACK, DATA, 1.0, 1.0)
    assert subgradient_descent(energy).energy == primal_dual(energy).energy == energy(0 * DATA)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Energy(IDENTITY, DATA, -1.0), ValueError, "tv_weight >= 0, got -1.0"),
        (lambda: Energy(IDENTITY, DATA, 1.0, np.inf), ValueError, "l2_weight"),
        (lambda: Energy(IDENTITY, DATA, 1.0, variation="l1"), ValueError, "anisotropic, isotropic, got 'l1'"),
        (lambda: Energy(IDENTITY, DATA * np.nan, 1.0), ValueError, "finite data"),
        (lambda: Energy(IDENTITY, DATA[0], 1.0), ValueError, "data"),
        (lambda: Energy(IDENTITY, DATA.astype(int), 1.0), TypeError, "data int64"),
        (lambda: primal_dual(Energy(BLACK, DATA, 1.0)), ValueError, "l2_weight > 0, or .* smallest_eigenvalue > 0"),
        (lambda: primal_dual(FINE, tolerance=-1), ValueError, "tolerance >= 0, got -1"),
        (lambda: primal_dual(FINE, start=DATA * np.inf), ValueError, "finite start"),
        (lambda: LinearOperator(abs, abs, smallest_eigenvalue=-1), ValueError, "smallest_eigenvalue >= 0"),
        (lambda: Energy(IDENTITY, DATA.tolist(), 1.0), TypeError, "data to be an array"),
        (lambda: Energy(IDENTITY, DATA, "1"), ValueError, "tv_weight"),
        (lambda: subgradient_descent(FINE, 2.5), ValueError, "integer iterations >= 1, got 2.5"),
        (lambda: polyak_steps(np.nan), ValueError, "optimum"),
        (lambda: geometric_steps(0, 1, 5), ValueError, "first > 0"),
        (lambda: geometric_steps(1, 1, 0), ValueError, "iterations"),
        (lambda: primal_dual(Energy(IDENTITY, DATA, 1.0, 1.0), 0), ValueError, "iterations >= 1, got 0"),
        (lambda: subgradient_descent(FINE, 0), ValueError, "iterations >= 1, got 0"),
        (lambda: subgradient_descent(FINE, start=DATA[:, :, :1]), ValueError, "start"),
        (lambda: subgradient_descent(FINE, start=DATA.astype(np.float32)), TypeError, "start float32"),
        (lambda: constant_steps(0), ValueError, "size > 0, got 0"),
        (lambda: diminishing_steps(np.inf), ValueError, "first > 0, got inf"),
        (lambda: geometric_steps(1, -1, 5), ValueError, "last > 0"),
        (lambda: adam(FINE, lr=np.nan), ValueError, "lr"),
        (lambda: adam(FINE, betas=(0.9, 1.0)), ValueError, "betas"),
        (lambda: decimated_warps(np.zeros((1, 2, 3)), 8, 4), ValueError, "decimated_warps.*invertible"),
        (lambda: decimated_warps(np.eye(2, 3)[None], 4, 8), ValueError, "low_size within size"),
        (lambda: decimated_warps(np.eye(2, 3)[None], 8, 4, samples=0), ValueError, "samples >= 1"),
        (lambda: decimated_warps(np.eye(2, 3)[None], 8, 4, samples=1.5), ValueError, "samples >= 1, got 1.5"),
    ],
)
def test_bad_arguments_are_refused_by_name(call, error, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
