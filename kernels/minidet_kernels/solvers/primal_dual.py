"""The primal-dual method, which knows how far it still has to go.

TV(h) is a maximum over fields p (see total_variation): so the minimum of E is a saddle point,

    min over h, max over |p| <= lambda of   L(h, p) = f(h) + <D h, p>,        f(h) = 1/2 |K h - g|^2 + mu/2 |h|^2

f is smooth, and the kinks have become the edges of the ball of p. The method climbs in p and descends in h:

    p <- projection of  p + sigma D (2 h - former h)                          onto |p| <= lambda
    h <- h - tau r,     r = gradient of f at h + D' p

(the extrapolated 2 h - former h makes the spiral around the saddle point run inwards). It converges if
1/tau >= |K'K| + mu + sigma |D|^2. Source: Chambolle and Pock 2011, and 2016 for the explicit step in f.

**The certificate.** For every p in the ball, min over h of L(h, p) is a lower bound of E. f is strongly convex with
some m > 0 (mu, or more), so L(h, p) can go down from where we are by at most |r|^2 / (2 m). Hence no E is lower than

    E(h) - gap,       gap = lambda TV(h) - <h, D' p>  +  |r|^2 / (2 m)

Both parts are >= 0, and at the saddle point both are 0. The energy and the bound come from different iterates,
whichever are best. The bound holds up to rounding: in float32 do not ask for less than 1e-5.
"""

from __future__ import annotations

import math

import numpy as np

from minidet_kernels.arguments import check_count, check_number
from minidet_kernels.solvers.energy import VARIATIONS, Energy, Solution, number, on_host, square
from minidet_kernels.total_variation import image_gradient, image_gradient_adjoint

# |D|^2: a difference of two pixels is at most twice the larger, and each pixel is in four differences.
GRADIENT_NORM_SQUARE = 8.0

# sigma |D|^2 over |K'K| + mu. The two unknowns share the allowed speed: more makes p faster and h slower. From 1 to 4
# all problems tried took about the same number of iterations; at 0.3 or 10 they took three times as many, or more.
DUAL_SHARE = 2.0

# Iterations from one look at the gap to the next: a look costs about as much as an iteration, and on the GPU a wait.
ITERATIONS_PER_LOOK = 10


def primal_dual(
    energy: Energy, iterations: int = 5000, tolerance: float = 1e-4, start: np.ndarray | None = None
) -> Solution:
    """Iterate until gap <= tolerance * energy, or to the end of `iterations`: look at the solution's `gap`.

    Deterministic. Raises ValueError where E is not known to be strongly convex (l2_weight and the operator's
    smallest_eigenvalue both 0), for a start that does not fit, and for a negative tolerance; TypeError for a start of
    another dtype.
    """
    check_count("primal_dual", iterations=iterations)
    check_number("primal_dual", tolerance=tolerance)
    if not energy.convexity > 0:
        raise ValueError(
            "primal_dual: expected l2_weight > 0, or an operator with smallest_eigenvalue > 0, got 0 for both: without "
            "strong convexity there is no certificate; a small l2_weight changes the solution little"
        )
    _, _, project = VARIATIONS[energy.variation]
    sigma = DUAL_SHARE * energy.smoothness / GRADIENT_NORM_SQUARE
    tau = 1 / (energy.smoothness + sigma * GRADIENT_NORM_SQUARE)

    h = former = best = energy.start_from(start)
    p = np.zeros_like(image_gradient(h))
    least, bound, energies, gaps = math.inf, 0.0, [], []
    for k in range(iterations):
        ahead = 2 * h - former
        p = project(p + sigma * image_gradient(ahead), energy.tv_weight)
        divergence = image_gradient_adjoint(p)
        residual = energy.smooth_gradient(h) + divergence
        if k % ITERATIONS_PER_LOOK == 0 or k == iterations - 1:
            slack = energy.tv_weight * energy.total_variation(h) - number((h * divergence).sum(dtype=np.float64))
            value, gap = on_host(energy.value(h), slack + square(residual) / (2 * energy.convexity))
            if value < least:
                best, least = h, value
            bound = max(bound, value - gap)
            energies.append(value)
            gaps.append(least - bound)
            if least - bound <= tolerance * least:
                break
        h, former = h - tau * residual, h
    return Solution(best, least, bound, np.array(energies), np.array(gaps), k + 1)
