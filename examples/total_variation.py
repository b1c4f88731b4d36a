"""The lecture's super-resolution with total variation: how near do the methods come to the optimum?

A map of 64 x 64 pixels is known only by coarse, noisy copies of 8 x 8, each of the map rotated and shifted. Wanted is
the h of least energy E(h) = 1/2 |K h - g|^2 + lambda TV(h) + mu/2 |h|^2. E has kinks: a step against a subgradient may
go up, and nothing tells how far there is still to go. The primal-dual method does: with every look it has a number
below which no energy can be. So first the optimum is found, certified; then the others are measured against it.

    python examples/total_variation.py --out total-variation-example
    python examples/total_variation.py --quick       # a smaller map, seconds

The table is printed; the picture, total-variation.png, is in --out.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.arguments import parse_arguments
from minidet_kernels.resample import rotation_then_translation
from minidet_kernels.solvers import (
    Energy,
    Solution,
    adam,
    decimated_warps,
    diminishing_steps,
    polyak_steps,
    primal_dual,
    subgradient_descent,
)
from minidet_kernels.solvers.primal_dual import ITERATIONS_PER_LOOK

# Of the energy; far below what the methods without a certificate reach.
TOLERANCE = 1e-5
LONGEST = 50_000  # iterations for it

# Every step moves a pixel by about this much, of maps that go from 0 to 1. The recipe's 1e-3 would need thousands.
ADAM_LR = 1e-2


@dataclass
class Run:
    """A method's way to its solution."""

    solution: Solution
    iterations: np.ndarray  # at which its energies were taken
    seconds: float


def main() -> None:
    arguments = parse_arguments(__doc__, "total-variation-example")
    size, low_size, copies, iterations = (32, 8, 20, 300) if arguments.quick else (64, 8, 50, 2000)
    truth, energy = make_problem(size, low_size, copies, arguments.seed)
    runs = solve(energy, iterations)
    certified = runs["primal-dual, certified"].solution
    print(f"The optimum of E lies between {certified.lower_bound:.6g} and {certified.energy:.6g}.\n")
    print_table(runs, certified.lower_bound)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "total-variation.png"
    draw(path, truth, energy, runs)
    print(f"\nThe picture is {path}")


def make_problem(size: int, low_size: int, copies: int, seed: int) -> tuple[np.ndarray, Energy]:
    """A smooth hill and a disc; and the energy of all h, given their coarse copies. The first copy is not moved."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    truth = np.exp(-((x - 0.4) ** 2 + (y - 0.5) ** 2) / 0.02) + 0.6 * ((x - 0.7) ** 2 + (y - 0.3) ** 2 < 0.02)
    angles, shifts = rng.uniform(-0.5, 0.5, copies), rng.uniform(-0.13, 0.13, (copies, 2)) * size
    angles[0], shifts[0] = 0, 0
    operator = decimated_warps(rotation_then_translation(angles, shifts, (size, size)), size, low_size)
    seen = operator.forward(truth[None, None])
    seen = np.maximum(seen + 0.02 * rng.standard_normal(seen.shape), 0)
    return truth, Energy(operator, seen, tv_weight=0.001 * copies, l2_weight=0.0001 * copies)


def solve(energy: Energy, iterations: int) -> dict[str, Run]:
    first = 1 / energy.smoothness
    certified = timed(energy, lambda count: primal_dual(energy, count, TOLERANCE), LONGEST)
    optimum = certified.solution.lower_bound
    methods = {
        "subgradient, diminishing steps": lambda count: subgradient_descent(energy, count, diminishing_steps(first)),
        "subgradient, Polyak's steps": lambda count: subgradient_descent(energy, count, polyak_steps(optimum)),
        "subgradient, geometric steps": lambda count: subgradient_descent(energy, count),
        "Adam": lambda count: adam(energy, count, lr=ADAM_LR),
    }
    runs = {name: timed(energy, method, iterations) for name, method in methods.items()}
    return {**runs, "primal-dual, certified": certified}


def timed(energy: Energy, method, iterations: int) -> Run:
    method(1)  # compiles the kernels, if nobody has yet
    start = time.perf_counter()
    solution = method(iterations)
    seconds = time.perf_counter() - start
    every = 1 if len(solution.energies) > solution.iterations else ITERATIONS_PER_LOOK
    return Run(solution, every * np.arange(len(solution.energies)), seconds)


def print_table(runs: dict[str, Run], bound: float) -> None:
    print(f"{'':32s} {'best energy':>12s} {'above optimum':>15s} {'iterations':>11s} {'seconds':>8s}")
    for name, run in runs.items():
        found = run.solution
        above = f"<= {found.energy / bound - 1:.4%}"
        print(f"{name:32s} {found.energy:12.6f} {above:>15s} {found.iterations:11d} {run.seconds:8.2f}")


def draw(path: Path, truth: np.ndarray, energy: Energy, runs: dict[str, Run]) -> None:
    """Left the maps, right how far above the optimum the best iterate so far is."""
    import matplotlib.pyplot as plt

    certified, descended = (runs[name].solution for name in ("primal-dual, certified", "subgradient, geometric steps"))
    figure, axes = plt.subplot_mosaic(
        [["truth", "coarse", "way", "way"], ["subgradient", "certified", "way", "way"]],
        figsize=(13, 6),
        layout="constrained",
    )
    maps = {
        "truth": (truth, "the map"),
        "coarse": (energy.data[0, 0], f"one of {len(energy.data)} coarse copies"),
        "subgradient": (descended.h[0, 0], f"subgradient: {descended.energy / certified.lower_bound - 1:.1%} above"),
        "certified": (certified.h[0, 0], "certified optimum"),
    }
    for name, (image, title) in maps.items():
        axes[name].imshow(image, cmap="magma", vmin=0, vmax=truth.max())
        axes[name].set_title(title, fontsize=10)
        axes[name].axis("off")
    draw_ways(axes["way"], runs, certified)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_ways(axes, runs: dict[str, Run], certified: Solution) -> None:
    bound = certified.lower_bound
    for name, run in runs.items():
        best = np.minimum.accumulate(run.solution.energies)
        axes.plot(1 + run.iterations, best / bound - 1, label=name)
    looks = 1 + runs["primal-dual, certified"].iterations
    axes.plot(
        looks, certified.gaps / bound, color="black", linestyle=":", label="primal-dual: the distance it certifies"
    )
    known = certified.gap / bound
    axes.axhline(known, color="0.5", linestyle="--", label=f"the optimum, known to {known:.0e}")
    axes.set(xscale="log", yscale="log", xlabel="iteration + 1", ylabel="best energy so far / optimum - 1")
    axes.set_title("Distance to the certified optimum", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 0.08))  # above the line of the optimum


if __name__ == "__main__":
    main()
