"""Total-variation super-resolution against torch: python -m benchmarks.kernels_total_variation

An image of 224 x 224 from 100 rotated and shifted copies of 14 x 14, 500 iterations of subgradient descent, float32.
torch has K as a sparse matrix and iterates by hand, without autograd, and without the energies that minidet takes at
every iterate to keep the best; its matrices are made before the clock starts. Of minidet both is told: the iterations,
and all, from matrices and maps to the solution; and the optimum, certified by the primal-dual method.

Every engine runs in a process of its own, because two thread pools in one process fight; the engines take turns, and
the median of all their runs counts. A ratio above 1 means that minidet is faster.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

ENGINES = ("minidet", "torch")
ROUNDS = 3  # of every engine
RUNS = 5  # of a round
SIZE, LOW_SIZE, COPIES, ITERATIONS = 224, 14, 100, 500
TV_WEIGHT, L2_WEIGHT = 0.001 * COPIES, 0.0001 * COPIES


def warps() -> np.ndarray:
    from minidet_kernels.resample import rotation_then_translation

    rng = np.random.default_rng(0)
    angles, shifts = rng.uniform(-0.5, 0.5, COPIES), rng.uniform(-30, 30, (COPIES, 2))
    angles[0], shifts[0] = 0, 0
    return rotation_then_translation(angles, shifts, (SIZE, SIZE))


def truth_and_noise() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    truth = np.exp(-((x - 0.4) ** 2 + (y - 0.5) ** 2) / 0.02) + 0.6 * ((x - 0.7) ** 2 + (y - 0.3) ** 2 < 0.02)
    noise = 0.02 * np.random.default_rng(1).standard_normal((COPIES, 1, LOW_SIZE, LOW_SIZE))
    return truth.astype(np.float32), noise.astype(np.float32)


def seconds(function: Callable[[], object]) -> list[float]:
    """Of each run, after one to warm up."""
    function()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return times


def run_minidet() -> dict[str, object]:
    from minidet_kernels.solvers import Energy, decimated_warps, primal_dual, subgradient_descent

    matrices, (truth, noise) = warps(), truth_and_noise()
    seen = decimated_warps(matrices, SIZE, LOW_SIZE).forward(truth[None, None]) + noise

    def problem() -> Energy:
        energy = Energy(decimated_warps(matrices, SIZE, LOW_SIZE), seen, TV_WEIGHT, L2_WEIGHT)
        _ = energy.smoothness  # computed once, and kept
        return energy

    energy = problem()
    primal_dual(energy, iterations=20)  # to warm up
    start = time.perf_counter()
    certified = primal_dual(energy, tolerance=1e-3)
    certified_seconds = time.perf_counter() - start
    return {
        "iterations": seconds(lambda: subgradient_descent(energy, ITERATIONS)),
        "all": seconds(lambda: subgradient_descent(problem(), ITERATIONS)),
        "energy": subgradient_descent(energy, ITERATIONS).energy,
        "certified": [certified_seconds],
        "bound": certified.lower_bound,
    }


def sparse_matrix() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """K, entry by entry: row, column, value."""
    scale = SIZE / LOW_SIZE
    i, j = (index.ravel() for index in np.indices((LOW_SIZE, LOW_SIZE)))
    rows, columns, values = [], [], []
    for copy, matrix in enumerate(warps()):
        u, v = matrix @ np.stack([(j + 0.5) * scale - 0.5, (i + 0.5) * scale - 0.5, np.ones(i.size)])
        left, top = np.floor(u).astype(int), np.floor(v).astype(int)
        for r, s in np.ndindex(2, 2):
            w, h = left + s, top + r
            inside = (w >= 0) & (w < SIZE) & (h >= 0) & (h < SIZE)
            rows.append((copy * i.size + np.arange(i.size))[inside])
            columns.append((h * SIZE + w)[inside])
            values.append(((1 - abs(u - w)) * (1 - abs(v - h)))[inside])
    return np.concatenate(rows), np.concatenate(columns), np.concatenate(values).astype(np.float32)


def run_torch() -> dict[str, object]:
    import torch

    rows, columns, values = sparse_matrix()
    shape = (COPIES * LOW_SIZE**2, SIZE**2)
    entries = torch.sparse_coo_tensor(torch.from_numpy(np.stack([rows, columns])), torch.from_numpy(values), shape)
    forward, adjoint = entries.coalesce().to_sparse_csr(), entries.t().coalesce().to_sparse_csr()
    truth, noise = (torch.from_numpy(array).reshape(-1) for array in truth_and_noise())
    seen = forward @ truth + noise
    first = 1 / 2.3  # 1 / smoothness, as minidet finds it

    def descend() -> torch.Tensor:
        h = torch.zeros(SIZE, SIZE)
        with torch.no_grad():
            for k in range(ITERATIONS):
                gradient = (adjoint @ (forward @ h.view(-1) - seen)).view(SIZE, SIZE)
                signs = torch.sign(h[:, 1:] - h[:, :-1])
                gradient[:, 1:] += TV_WEIGHT * signs
                gradient[:, :-1] -= TV_WEIGHT * signs
                signs = torch.sign(h[1:] - h[:-1])
                gradient[1:] += TV_WEIGHT * signs
                gradient[:-1] -= TV_WEIGHT * signs
                gradient += L2_WEIGHT * h
                h -= first * 1e-4 ** (k / (ITERATIONS - 1)) * gradient
        return h

    h = descend()
    misfit = forward @ h.view(-1) - seen
    variation = (h[:, 1:] - h[:, :-1]).abs().sum() + (h[1:] - h[:-1]).abs().sum()
    energy = 0.5 * (misfit**2).sum() + TV_WEIGHT * variation + 0.5 * L2_WEIGHT * (h**2).sum()
    return {"iterations": seconds(descend), "energy": energy.item()}


def run_in_a_process(engine: str) -> dict | None:
    """None where the engine is not installed."""
    command = [sys.executable, "-m", "benchmarks.kernels_total_variation", engine]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        if "No module named 'torch'" in done.stderr:
            return None
        raise RuntimeError(f"{engine} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def main() -> None:
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > 0.5:
        print(f"The machine is busy (load average {os.getloadavg()[0]:.1f}): expect wrong ratios.")
    results: dict[str, list[dict]] = {engine: [] for engine in ENGINES}
    for _ in range(ROUNDS):
        for engine in ENGINES:
            result = run_in_a_process(engine)
            if result is not None:
                results[engine].append(result)

    def median(engine: str, what: str) -> float:
        return statistics.median(time for result in results[engine] for time in result[what])

    print(f"minidet: {median('minidet', 'iterations'):.3f} s, all {median('minidet', 'all'):.3f} s, ", end="")
    energy, bound = (results["minidet"][0][what] for what in ("energy", "bound"))
    print(f"energy {energy:.3f}, at most {energy / bound - 1:.1%} above the optimum")
    print(f"         the optimum to 0.1 %: {median('minidet', 'certified'):.3f} s, not below {bound:.3f}")
    if not results["torch"]:
        print("torch not installed: pip install '.[oracle]' to compare")
        return
    theirs = median("torch", "iterations")
    print(f"torch:   {theirs:.3f} s, energy {results['torch'][0]['energy']:.3f}")
    ratios = [f"{theirs / median('minidet', what):.2f}" for what in ("iterations", "all")]
    print(f"ratio:   {ratios[0]} for the iterations, {ratios[1]} for all")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps({"minidet": run_minidet, "torch": run_torch}[sys.argv[1]]()))
    else:
        main()
