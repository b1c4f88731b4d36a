"""The solvers with their data on an emulated GPU: the CPU's iterates, and hardly a wait."""

from __future__ import annotations

import numpy as np
import pytest

import minidet_kernels as mk
from minidet_kernels import emulator
from minidet_kernels.emulator import counted, emulated
from minidet_kernels.resample import rotation_then_translation
from minidet_kernels.solvers import (
    Energy,
    LinearOperator,
    Solution,
    adam,
    decimated_warps,
    polyak_steps,
    primal_dual,
    subgradient_descent,
)

pytestmark = pytest.mark.skipif(emulator.why_not() is not None, reason=str(emulator.why_not()))

TOLERANCE = {np.float32: 1e-4, np.float64: 1e-10}
SOLVERS = {
    "subgradient descent": lambda energy: subgradient_descent(energy, 60),
    "Polyak's steps": lambda energy: subgradient_descent(energy, 60, polyak_steps(0.5)),
    # Where a gradient is 0 but for rounding, Adam makes a step of it that grows with 1 / eps. So eps is large here and
    # the way short: after 60 iterations the CPU is 0.01 away from its own reference too.
    "Adam": lambda energy: adam(energy, 10, lr=0.02, eps=1e-3),
    "primal-dual": lambda energy: primal_dual(energy, 60, tolerance=0),
}


def problem(dtype: type, samples: int) -> tuple[LinearOperator, np.ndarray]:
    """16 x 16 pixels from 6 noisy copies of 4 x 4."""
    rng = np.random.default_rng(0)
    matrices = rotation_then_translation(rng.uniform(-0.5, 0.5, 6), rng.uniform(-2, 2, (6, 2)), (16, 16))
    operator = decimated_warps(matrices, 16, 4, samples)
    y, x = np.mgrid[:16, :16] / 16
    truth = np.exp(-((x - 0.4) ** 2 + (y - 0.5) ** 2) / 0.05)[None, None].astype(dtype)
    seen = operator.forward(truth)
    return operator, seen + 0.02 * rng.standard_normal(seen.shape).astype(dtype)


def on_gpu(solve, operator: LinearOperator, data: np.ndarray, order: str, **weights) -> Solution:
    """The solution with data on the emulated GPU; its h brought to the host."""
    with emulated(order):
        import cupy

        solution = solve(Energy(operator, cupy.asarray(data), **weights))
        assert isinstance(solution.h, cupy.ndarray)
        return Solution(**{**vars(solution), "h": solution.h.get()})


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("variation", ["anisotropic", "isotropic"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_gpu_takes_the_same_way_as_the_cpu(name: str, samples: int, variation: str, dtype: type) -> None:
    operator, data = problem(dtype, samples)
    weights = {"tv_weight": 0.01, "l2_weight": 0.01, "variation": variation}
    there = on_gpu(SOLVERS[name], operator, data, "random", **weights)
    here = SOLVERS[name](Energy(operator, data, **weights))
    assert there.h.dtype == dtype
    assert there.iterations == here.iterations
    np.testing.assert_allclose(there.h, here.h, atol=TOLERANCE[dtype])
    np.testing.assert_allclose(there.energies, here.energies, rtol=TOLERANCE[dtype])
    np.testing.assert_allclose(there.gaps, here.gaps, rtol=100 * TOLERANCE[dtype], atol=TOLERANCE[dtype])
    assert there.energy == pytest.approx(here.energy, rel=TOLERANCE[dtype])
    assert there.lower_bound == pytest.approx(here.lower_bound, rel=TOLERANCE[dtype])


@pytest.mark.parametrize("name", SOLVERS)
def test_runs_repeat_bit_for_bit_in_whatever_order_the_threads_come(name: str) -> None:
    operator, data = problem(np.float32, samples=1)
    first, *others = (
        on_gpu(SOLVERS[name], operator, data, order, tv_weight=0.01, l2_weight=0.01) for order in emulator.ORDERS
    )
    for other in others:
        assert first.h.tobytes() == other.h.tobytes()
        assert first.energies.tobytes() == other.energies.tobytes()


@pytest.mark.parametrize(
    ("solve", "waits"),
    [
        (lambda energy: subgradient_descent(energy, 30), 1),
        (lambda energy: subgradient_descent(energy, 30, polyak_steps(0.5)), 1),
        (lambda energy: adam(energy, 30), 1),
        (lambda energy: primal_dual(energy, 30, tolerance=0), 4),  # at iterations 0, 10, 20 and the last
        (lambda energy: energy.value_and_subgradient(energy.back_projection), 0),
        (lambda energy: energy(energy.back_projection), 1),
    ],
    ids=["subgradient descent", "Polyak's steps", "Adam", "primal-dual", "value and subgradient", "energy"],
)
def test_how_often_the_host_waits(solve, waits: int) -> None:
    operator, data = problem(np.float32, samples=1)
    with emulated():
        import cupy

        with counted() as counts:
            energy = Energy(operator, cupy.asarray(data), tv_weight=0.01, l2_weight=0.01)
        assert counts.waits == 1  # is the data finite?
        operator.gram_of(energy.back_projection)  # the first time, its matrices are checked
        with counted() as counts:
            assert energy.smoothness > 0
        assert counts.waits == 1
        with counted() as counts:
            solve(energy)
        assert counts.waits == waits


def test_matrices_on_the_host_make_nobody_wait() -> None:
    matrices = rotation_then_translation([0.3, -0.2], [[1, 2], [0, 0.5]], (5, 6))
    x = np.random.default_rng(0).standard_normal((1, 2, 5, 6))
    with emulated():
        import cupy

        with counted() as counts:
            y = mk.affine_warp(cupy.asarray(x), matrices)
            back = mk.affine_warp_adjoint(y, matrices, (5, 6), images=1)
        assert counts.waits == 0
        y, back = y.get(), back.get()
        with pytest.raises(TypeError, match="all arrays on one device"):
            mk.affine_warp(x, cupy.asarray(matrices))
    np.testing.assert_allclose(y, mk.affine_warp(x, matrices), atol=1e-12)
    np.testing.assert_allclose(back, mk.affine_warp_adjoint(y, matrices, (5, 6), images=1), atol=1e-12)


def test_nearly_singular_matrices_lose_no_result() -> None:
    """The inverse is useless here; the exact weights decide. 1e9 is the largest entry that the contract allows."""
    made = np.array(
        [
            [[1, 1, 0.5], [1, 1 + 2**-52, 0.25]],
            [[1e-9, 0, 1.5], [0, 1e-9, 2.5]],  # all results look at one place
            [[0.1, 0.3, -1], [0.3, 0.9 + 1e-15, 2]],
            [[9e8, 1, -9e8], [1, 9e8, -1.8e9 / 2]],
            [[1e-160, 0, 3], [0, 1e-160, 3]],  # the inverse is beyond what an index can reach
        ]
    )
    grad = np.random.default_rng(0).standard_normal((5, 2, 6, 7))
    with emulated():
        import cupy

        result = mk.affine_warp_adjoint(cupy.asarray(grad), made, (5, 6)).get()
        gram = mk.affine_warp_gram(cupy.asarray(made), (5, 6), (6, 7)).get()
    with mk.use("reference"):
        np.testing.assert_allclose(result, mk.affine_warp_adjoint(grad, made, (5, 6)), atol=1e-10)
        np.testing.assert_allclose(gram, mk.affine_warp_gram(made, (5, 6), (6, 7)), atol=1e-10)


def test_the_length_of_a_tiny_pair_of_float32_is_not_0() -> None:
    """Squared in float32 1e-25 is 0, and the subgradient would be the difference itself."""
    x = np.array([[0, 3e-25], [4e-25, 0]], np.float32)[None, None]
    with emulated():
        import cupy

        s = mk.tv_isotropic_subgradient(cupy.asarray(x)).get()
    with mk.use("reference"):
        np.testing.assert_allclose(s, mk.tv_isotropic_subgradient(x), rtol=1e-6)
    assert s[0, 0, 0, 0] == pytest.approx(-1.4)  # -(3 + 4) / 5


def test_a_snake_through_many_tiles_is_one_component() -> None:
    """A path that visits all tiles of 8 x 32 pixels, back and forth: the longest way that a label can have to go."""
    mask = np.zeros((1, 40, 100), bool)
    mask[:, ::2] = True
    mask[:, 1::4, -1] = mask[:, 3::4, 0] = True
    for order in emulator.ORDERS:
        with emulated(order):
            import cupy

            labels, count = mk.connected_components(cupy.asarray(mask), 4)
            assert count.get().tolist() == [1]
            np.testing.assert_array_equal(labels.get(), mask)
            labels, count = mk.connected_components(cupy.asarray(~mask), 4)
            assert count.get().tolist() == [20]
