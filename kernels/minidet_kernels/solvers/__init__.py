"""Solvers of inverse problems with total variation: an image h is wanted, and only K h, blurred or decimated, is known.

    E(h) = 1/2 |K h - g|^2  +  lambda TV(h)  +  mu/2 |h|^2          -> min        (eq. 1 of Augmented Grad-CAM)

`Energy` is that function, of a `LinearOperator` K, given as the pair (forward, adjoint), and the data g. E is convex
and not smooth. Three ways down, each returns a `Solution`:

- `subgradient_descent`: the lecture's. Steps against a subgradient; a step may go up, so the best iterate is kept.
- `adam`: the recipe that the authors of Augmented Grad-CAM released.
- `primal_dual`: the method of Chambolle and Pock. It has a second unknown, and with it, in every step, a number below
  which no E(h) can be: the solution is *certified* to lie within `gap` of the optimum.

`decimated_warps` makes the K of super-resolution: the copies of an image, rotated and shifted, seen in low resolution.
`IDENTITY` makes the problem one of denoising (Rudin, Osher, Fatemi).

These are plain loops over the kernels of this package: the choice of `minidet_kernels.use` applies, and a debugger can
walk through them.

With data on the GPU everything happens there, and the solution's h is there too. The host waits once where `Energy`
looks at its data, once where its `smoothness` is first asked for, and once for a start. Then `subgradient_descent` and
`adam` wait once, at their end, however many iterations they make, and `primal_dual` once in ten iterations, to see
whether it may stop.
"""

from minidet_kernels.solvers.descent import (
    adam,
    constant_steps,
    diminishing_steps,
    geometric_steps,
    polyak_steps,
    subgradient_descent,
)
from minidet_kernels.solvers.energy import IDENTITY, Energy, LinearOperator, Solution
from minidet_kernels.solvers.primal_dual import primal_dual
from minidet_kernels.solvers.super_resolution import decimated_warps

__all__ = [
    "IDENTITY",
    "Energy",
    "LinearOperator",
    "Solution",
    "adam",
    "constant_steps",
    "decimated_warps",
    "diminishing_steps",
    "geometric_steps",
    "polyak_steps",
    "primal_dual",
    "subgradient_descent",
]
