"""The semi-dual of optimal transport, L_OT(Ψ) = E Ψ(x0) + E Ψ*(x1), and what its value certifies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dynot_lite import _validation as check
from dynot_lite.potentials import ConvexPotential

__all__ = ["Certificate", "certificate", "semidual_loss"]


def semidual_loss(potential: ConvexPotential, x0, x1, *, start=None, tol: float | None = None) -> Tensor:
    """The semi-dual loss L_OT(Ψ) = E Ψ(x0) + E Ψ*(x1); its minimum is ½(E|x0|² + E|x1|²) - ½W₂².

    The gradient in the parameters is exact by the envelope theorem, E ∂Ψ(x0) - E ∂Ψ(∇Ψ*(x1)), and does not depend on how
    x0 and x1 are paired; their numbers may differ.

    Args:
        potential: Ψ.
        x0, x1: samples of the source (n, d) and of the target (m, d).
        start, tol: first guess and tolerance of the conjugate points, as in ``ConvexPotential.solve``.

    Returns:
        A scalar.

    Raises:
        ValueError: bad input or a potential that is not convex. RuntimeError: a conjugate point is not solved.
    """
    x0, x1 = (check.points(x, name, dim=potential.dim) for x, name in ((x0, "x0"), (x1, "x1")))
    value, _ = potential.conjugate(x1, start=start, tol=tol)
    return potential(x0).mean() + value.mean()


@dataclass(frozen=True)
class Certificate:
    """Two-sided bounds that one convex potential and one pairing of the samples prove.

    Attributes:
        lower, upper: lower ≤ W₂² ≤ upper for the two samples (no ½).
        gap: (upper - lower)/2, the mean of the Fenchel–Young gaps Ψ(x0) + Ψ*(x1) - <x0, x1> ≥ 0.
        map_error: E|∇Ψ(x0) - x1|² over the pairs.
        gap_bounds: (map_error/(2β), map_error/(2α)), which enclose ``gap`` if α I ≤ ∇²Ψ ≤ β I.
    """

    lower: float
    upper: float
    gap: float
    map_error: float
    gap_bounds: tuple[float, float]


def certificate(potential: ConvexPotential, x0, x1, *, tol: float | None = None) -> Certificate:
    """What a potential with a ``curvature`` and the pairs (x0[i], x1[i]) prove about W₂² and about the map ∇Ψ.

    Strong convexity and smoothness give |∇Ψ(x) - y|²/(2β) ≤ Ψ(x) + Ψ*(y) - <x, y> ≤ |∇Ψ(x) - y|²/(2α) for every pair. Over an
    optimal pairing the mean of the middle term is L_OT(Ψ) - min L_OT; over any other it is larger.

    Raises:
        ValueError: bad input, or x0 and x1 of different shapes. RuntimeError: a conjugate point is not solved.
    """
    x0, x1 = check.points(x0, "x0"), check.points(x1, "x1")
    if x0.shape != x1.shape:
        raise ValueError(f"x0 and x1 must be pairs of one shape, got {tuple(x0.shape)} and {tuple(x1.shape)}")
    with torch.no_grad():
        loss = semidual_loss(potential, x0, x1, tol=tol).item()
        map_error = (potential.gradient(x0) - x1).square().sum(-1).mean().item()
    lower = (x0.square().sum(-1).mean() + x1.square().sum(-1).mean()).item() - 2 * loss
    upper = (x0 - x1).square().sum(-1).mean().item()
    alpha, beta = potential.curvature()
    return Certificate(lower, upper, (upper - lower) / 2, map_error, (map_error / (2 * beta), map_error / (2 * alpha)))
