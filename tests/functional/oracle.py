"""torch as the oracle: the same function in both, values and gradients of first and second order compared.

Cotangents are random, never ones: with ones a transposed or permuted gradient can pass.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

import minidet
from minidet import Tensor

TOLERANCES = {"float32": 1e-5, "float64": 1e-10}
DTYPES = tuple(TOLERANCES)
LAYOUTS = ("contiguous", "channels-last", "strided")


def assert_close(got: Any, expected: Any, what: str) -> None:
    """Equal in shape and dtype, and in value to the tolerance of the dtype, relative to the largest value (or 1);
    integers exactly."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, expected {expected.shape}"
    assert got.dtype == expected.dtype, f"{what}: dtype {got.dtype}, expected {expected.dtype}"
    if expected.dtype.kind in "iu":
        np.testing.assert_array_equal(got, expected, err_msg=what)
        return
    scale = max(1.0, float(np.abs(expected[np.isfinite(expected)]).max(initial=0)))
    tolerance = TOLERANCES[expected.dtype.name] * scale
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance, err_msg=what)


def laid_out(array: np.ndarray, layout: str) -> np.ndarray:
    """The same values in another memory layout: channels last, or as every second element of a larger array."""
    if layout == "channels-last":
        return np.ascontiguousarray(np.moveaxis(array, 1, -1)).transpose(0, array.ndim - 1, *range(1, array.ndim - 1))
    if layout == "strided":
        larger = np.full([2 * n for n in array.shape], 7, array.dtype)
        every_second = (slice(None, None, 2),) * array.ndim
        larger[every_second] = array
        return larger[every_second]
    return array


def check(ours: Callable, theirs: Callable, *arrays: np.ndarray, seed: int = 0, second: bool = True) -> None:
    """Compares ours(*Tensors) with theirs(*torch tensors): the result, the gradient of every input, and with `second`
    the gradients of those gradients, also with respect to the cotangent."""
    import torch

    rng = np.random.default_rng(seed)
    mine = [Tensor(array, requires_grad=True) for array in arrays]
    # torch gets the plain layout: its batch norm has wrong gradients for some channels-last inputs (2.13, (1, 2, 1, 2))
    other = [torch.tensor(array.copy(), requires_grad=True) for array in arrays]
    y, expected = ours(*mine), theirs(*other)
    assert_close(y.data, expected.detach().numpy(), "value")
    if not expected.requires_grad:
        assert not y.requires_grad
        return

    cotangent = rng.normal(size=y.shape).astype(y.dtype)
    v, w = Tensor(cotangent, requires_grad=True), torch.tensor(cotangent, requires_grad=True)
    plain = minidet.grad(y, mine, cotangent, retain_graph=True, allow_unused=True)
    recorded = minidet.grad(y, mine, v, create_graph=True, allow_unused=True)
    wanted = torch.autograd.grad(expected, other, w, create_graph=True, allow_unused=True)
    for i, (a, b, c) in enumerate(zip(plain, recorded, wanted, strict=True)):
        c = torch.zeros_like(other[i]) if c is None else c
        for kind, gradient in (("gradient", a), ("recorded gradient", b)):
            got = np.zeros(mine[i].shape, mine[i].dtype) if gradient is None else gradient.data
            assert_close(got, c.detach().numpy(), f"{kind} of input {i}")
    if second:
        _check_second([*mine, v], recorded, [*other, w], wanted, rng)


def _check_second(mine: list, first: Any, other: list, wanted: Any, rng: np.random.Generator) -> None:
    import torch

    total, expected_total = 0.0, 0.0
    for gradient, expected in zip(first, wanted, strict=True):
        if expected is None or gradient is None:
            continue
        u = rng.normal(size=gradient.shape).astype(gradient.dtype)
        total, expected_total = total + (gradient * u).sum(), expected_total + (expected * torch.tensor(u)).sum()
    results = minidet.grad(total, mine, allow_unused=True)
    expecteds = torch.autograd.grad(expected_total, other, allow_unused=True)
    for i, (got, expected) in enumerate(zip(results, expecteds, strict=True)):
        got = np.zeros(mine[i].shape, mine[i].dtype) if got is None else got.data
        expected = np.zeros(mine[i].shape, mine[i].dtype) if expected is None else expected.numpy(force=True)
        assert_close(got, expected, f"second derivative, by {'the cotangent' if i == len(mine) - 1 else f'input {i}'}")
