"""Every kernel in every version through the harness; and the harness itself against kernels broken on purpose."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, Phase, given, settings

import minidet_kernels
from tests.kernels.cases import CASES
from tests.kernels.harness import Case, check

FAST_VERSIONS = [version for version in ("cpu", "cuda") if minidet_kernels.available()[version] is None]
KERNELS = Path(minidet_kernels.__file__).parent
NOT_KERNELS = {"available", "current", "use"}
SLOW_START = [HealthCheck.too_slow, HealthCheck.filter_too_much]  # the first call compiles; some geometries do not fit

by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@by_name
@pytest.mark.parametrize("version", ["reference", *FAST_VERSIONS])
def test_a_version_has_all_properties_of_its_kernel(case: Case, version: str) -> None:
    examples = 60 if version == "reference" else 200

    @settings(max_examples=examples, deadline=None, suppress_health_check=SLOW_START)
    @given(case.calls)
    def properties(call):
        check(case, call, version)

    properties()


def test_every_exported_kernel_is_in_the_harness() -> None:
    assert {case.name for case in CASES} == set(minidet_kernels.__all__) - NOT_KERNELS


# Each is the text of a reference, one place changed: (folder, kernel it spoils, what stands there, what is put there).
MUTANTS = {
    "slope 1 at 0": ("relu", "relu_backward", "y > 0", "y >= 0"),
    "negatives kept": ("relu", "relu", "np.maximum(x, 0)", "np.maximum(x, -1)"),
    "mean not subtracted": ("batch_norm", "batch_norm", "z = (x - _per_channel(mean))", "z = x"),
    "eps outside the root": (
        "batch_norm",
        "batch_norm",
        "np.sqrt(variance + np.asarray(eps, x.dtype))",
        "np.sqrt(variance) + eps",
    ),
    "term of the variance dropped": ("batch_norm", "batch_norm_backward", " - z * _per_channel(mean_product)", ""),
    "term of the mean dropped": ("batch_norm", "batch_norm_backward", "(grad - _per_channel(mean_grad)", "(grad"),
    "kernel shifted by one column": (
        "convolution",
        "conv2d",
        "slice(s * dw, s",
        "slice(max(s - 1, 0) * dw, max(s - 1, 0)",
    ),
    "kernel upside down": (
        "convolution",
        "conv2d",
        "weight[..., r, s] @ seen",
        "weight[..., r_size - 1 - r, s] @ seen",
    ),
    "first tap dropped": ("convolution", "conv2d", "y += weight", "y += ((r, s) != (0, 0)) * weight"),
    "bias dropped": ("convolution", "conv2d", "y + bias[:, None, None]", "y"),
    "padding only above": ("convolution", "conv2d", "(ph, ph), (pw, pw)", "(ph, ph), (2 * pw, 0)"),
    "shares overwrite": ("convolution", "conv2d_input_grad", "dilation)] += share", "dilation)] = share"),
    "margin not cut off": ("convolution", "conv2d_input_grad", "ph : ph + h, pw : pw + w", ":h, :w"),
    "one image only": ("convolution", "conv2d_weight_grad", ".sum(axis=0)", "[:1].sum(axis=0)"),
    "0.1 % too large": ("convolution", "conv2d_weight_grad", "= (grad @", "= 1.001 * (grad @"),
    "random rounding": (
        "convolution",
        "conv2d",
        "y = np.zeros((n, groups, k // groups, ho * wo), x.dtype)",
        "y = np.random.default_rng().normal(0, 1e-12, (n, groups, k // groups, ho * wo)).astype(x.dtype)",
    ),
    "last of equal values wins": ("pooling", "max_pool2d", "value > best", "value >= best"),
    "NaN loses": ("pooling", "max_pool2d", " | np.isnan(value)", ""),
    "index by height": ("pooling", "max_pool2d", "row * w + column", "row * h + column"),
    "-inf never wins": ("pooling", "max_pool2d", " | (indices == -1)", ""),
    "repeated index adds once": (
        "pooling",
        "max_pool2d_scatter",
        "np.add.at(x_grad, (batch, channel, indices[batch, channel, i, j]), grad[batch, channel, i, j])",
        "x_grad[batch, channel, indices[batch, channel, i, j]] += grad[batch, channel, i, j]",
    ),
    "-1 is the last pixel": (
        "pooling",
        "max_pool2d_gather",
        "np.where(chosen == -1, x.dtype.type(0), values)",
        "values",
    ),
    "indices changed": ("pooling", "max_pool2d_gather", "chosen.clip(0)", "chosen.clip(0, out=chosen)"),
    "sum for average": ("pooling", "avg_pool2d", "total / count", "total"),
    "last row dropped": ("pooling", "avg_pool2d", "total += padded", "total += (r == 0) * padded"),
    "shares undivided": ("pooling", "avg_pool2d_adjoint", "+= grad / count", "+= grad"),
}


def _module_from(text: str, name: str, folder: Path) -> ModuleType:
    path = folder / "mutant.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _check_often(case: Case) -> None:
    @settings(
        max_examples=150,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=SLOW_START,
    )
    @given(case.calls)
    def properties(call):
        check(case, call, "cpu")

    properties()


@pytest.mark.skipif("cpu" not in FAST_VERSIONS, reason="mutants take the place of the cpu version, which needs numba")
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_kernel_broken_on_purpose_is_caught(mutant: str, monkeypatch, tmp_path: Path) -> None:
    folder, kernel, old, new = MUTANTS[mutant]
    text = (KERNELS / folder / "reference.py").read_text()
    assert old in text, "the mutant no longer fits the reference; write it anew"
    name = f"minidet_kernels.{folder}.cpu"
    monkeypatch.setitem(sys.modules, name, _module_from(text.replace(old, new), name, tmp_path))
    case = next(case for case in CASES if case.name == kernel)
    with pytest.raises(AssertionError, match=r"differs from the reference|adjoint|changed its input|other bits"):
        _check_often(case)


@by_name
@pytest.mark.skipif("cpu" not in FAST_VERSIONS, reason="as above")
def test_the_same_check_lets_an_unbroken_copy_pass(case: Case, monkeypatch, tmp_path: Path) -> None:
    """So that the mutants above are caught for their mutation, and for nothing else."""
    folder = getattr(minidet_kernels, case.name).__module__.rpartition(".")[2]
    name = f"minidet_kernels.{folder}.cpu"
    text = (KERNELS / folder / "reference.py").read_text()
    monkeypatch.setitem(sys.modules, name, _module_from(text, name, tmp_path))
    _check_often(case)
