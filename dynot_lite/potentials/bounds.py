"""What a convex potential proves about W₂² of two laws, from points that its training has not seen."""

import copy
import math

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite.couplings.certificate import Estimate
from dynot_lite.potentials.conjugates import quasi_newton
from dynot_lite.potentials.convex import ConvexPotential

__all__ = ["lower_bound"]

FLOATS = 2**24  # in the inverse Hessians of the points worked on at a time
TOLERANCE = 1e-4  # mean |∇Ψ(z) - y|/√d
MOST = 60  # steps of a point
MIDDLE = 256  # points whose mean Hessian starts the search for the conjugate points


def lower_bound(potential: ConvexPotential, x0, x1) -> Estimate:
    """The lower bound E|x|² + E|y|² - 2 L_OT(Ψ) ≤ W₂² of Kantorovich duality, with the error that sampling gives it.

    It holds for every convex Ψ, with equality only at a Brenier potential, for points that Ψ does not depend on: give fresh ones.
    An inexact conjugate point z would make Ψ*(y) too small and the bound too large; so Ψ*(y) is replaced by the larger
    ⟨y, z⟩ - Ψ(z) + |∇Ψ(z) - y|²/(2α) with α I ≤ ∇²Ψ, its bound from above for a Ψ that is strongly convex.

    Args:
        potential: Ψ, with a ``curvature`` whose first value α is positive: Quadratic, LogSumExp, ICNN.
        x0, x1: samples of the source (n, d) and of the target (m, d); their numbers may differ, 2¹⁶ are a good number.

    Returns:
        An Estimate: the mean over the samples of what is at most W₂² for the laws themselves (no ½), and its standard error from
        both; W₂² exceeds its ``lower()`` at the level 99 % (one-sided, normal). Computed in float64; time
        about 30 gradients a point, memory 128 MiB beyond a few copies of the samples.

    Raises:
        ValueError: bad input, fewer than two points of a law, a potential without a positive curvature.
    """
    if not hasattr(potential, "curvature"):
        raise ValueError(f"potential must have a curvature, the bounds of its Hessian, got {type(potential).__name__}")
    x, y = (check.squares(check.cloud(points, name, dim=potential.dim), name) for points, name in ((x0, "x0"), (x1, "x1")))
    if min(len(x), len(y)) < 2:
        raise ValueError(f"x0 and x1 must have two points each, got {len(x)} and {len(y)}")
    potential = copy.deepcopy(potential).double().requires_grad_(False)
    x, y = x.detach().double(), y.detach().double()
    alpha = potential.curvature()[0]
    if not alpha > 0:
        raise ValueError(f"potential must be strongly convex, got the smallest eigenvalue {alpha:.3g}")
    rows = max(FLOATS // potential.dim**2, 1)
    with torch.no_grad():
        middle, slope, inverse = _middle(potential, x)
        source = torch.cat([part.square().sum(1) - 2 * potential._value(part) for part in x.split(rows)])
        target = []
        for part in y.split(rows):
            start = middle + (part - slope) @ inverse
            residual = quasi_newton(
                potential._gradient, part, start, inverse.repeat(len(part), 1, 1), tol=TOLERANCE, max_iterations=MOST
            )
            conjugate = (part * start).sum(1) - potential._value(start) + residual.square() / (2 * alpha)
            target.append(part.square().sum(1) - 2 * conjugate)
        target = torch.cat(target)
    value = (source.mean() + target.mean()).item()
    if not math.isfinite(value):
        raise ValueError("potential must have finite values at x0 and at the conjugate points of x1")
    std = (source.var() / len(source) + target.var() / len(target)).sqrt().item()
    return Estimate(value, std)


def _middle(potential: ConvexPotential, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The mean of some points, and the means of ∇Ψ and, inverted, of ∇²Ψ there: z ≈ middle + inverse (y - slope)."""
    some = x[torch.linspace(0, len(x) - 1, min(MIDDLE, len(x)), device=x.device).long()]
    hessian = torch.stack([potential._hessian(part).mean(0) for part in some.split(32)]).mean(0)
    return some.mean(0), potential._gradient(some).mean(0), torch.linalg.inv(0.5 * (hessian + hessian.mT))
