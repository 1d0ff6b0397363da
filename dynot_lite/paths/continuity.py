"""The continuity equation ∂_t μ + div(μ v) = 0: residuals in weak and strong form, and the kinetic energy.

A path of measures is given by quadrature: a callable t -> (points (n, d), weights (n,)) such that Σ_i w_i f(x_i) is ∫ f dμ_t, be
it Gauss–Hermite nodes, the cells of a grid, or samples of equal weight.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base.samplers import Velocity, evaluate
from dynot_lite.paths.flows import divergence

__all__ = ["bump", "gauss_legendre", "kinetic_energy", "strong_residual", "weak_residual"]

Path = Callable[[float], tuple[Tensor, Tensor]]


def gauss_legendre(order: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights, shape (order,), of Gauss–Legendre quadrature on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(check.count(order, "order"))
    return torch.as_tensor(0.5 * (nodes + 1)), torch.as_tensor(0.5 * weights)


def weak_residual(
    path: Path, velocity: Velocity, test_function: Callable[[Tensor, Tensor], Tensor], *, times: int | tuple = 64
) -> float:
    """How far (μ, v) is from the continuity equation tested with ψ, end points included, relative to the size of its terms.

    |∫∫(∂_tψ + ⟨∇ψ, v⟩) dμ_t dt − ∫ψ_1 dμ_1 + ∫ψ_0 dμ_0| / ∫∫(|∂_tψ| + |⟨∇ψ, v⟩|) dμ_t dt. It vanishes for all smooth ψ if
    and only if the pair solves the equation with the end measures μ_0 and μ_1.

    Args:
        path: t -> (points (n, d), weights (n,)), at the quadrature times and at 0 and 1.
        velocity: callable (t, x) -> (n, d), evaluated at the quadrature times only (never at 0 and 1 with the default times).
        test_function: ψ(t, x) with t (n,) and x (n, d) -> (n,), smooth, by torch operations.
        times: the order of Gauss–Legendre quadrature, or nodes and weights, two tensors of shape (k,).

    Returns:
        The relative residual, a float.

    Raises:
        ValueError: a test function that vanishes identically on the path, shapes that do not fit, values that are not finite.
    """
    balance = scale = 0.0
    for t, weight in _time_nodes(times):
        x, w = _measure(path, t)
        with torch.enable_grad():
            s = torch.full_like(x[:, 0], t).requires_grad_()
            x = x.detach().requires_grad_()
            value = test_function(s, x).sum()
            d_time, d_space = torch.autograd.grad(value, (s, x), materialize_grads=True)
        v = evaluate(velocity, t, x.detach()).detach()
        transport = (d_space * v).sum(-1)
        balance += weight * (w * (d_time + transport)).sum().item()
        scale += weight * (w * (d_time.abs() + transport.abs())).sum().item()
    for t, sign in ((0.0, 1.0), (1.0, -1.0)):
        x, w = _measure(path, t)
        balance += sign * (w * test_function(torch.full_like(x[:, 0], t), x)).sum().item()
    if not scale > 0:
        raise ValueError("test_function must not be constant on the path: it tests nothing")
    return abs(balance) / scale


def strong_residual(density: Callable[[Tensor, Tensor], Tensor], velocity: Velocity, t: float, x) -> Tensor:
    """The pointwise residual ∂_tρ + div(ρ v) of a smooth density ρ(t, x), shape (n, d) -> (n,), by automatic differentiation.

    Args:
        density: ρ(t, x) with t of shape () and x (n, d) -> (n,), by torch operations in both arguments.
        velocity: callable (t, x) -> (n, d), by torch operations in x.
    """
    x = check.points(x, "x").detach()
    time = torch.tensor(float(t), dtype=torch.float64).to(x)
    d_time = torch.func.jvp(lambda s: density(s, x), (time,), (torch.ones_like(time),))[1]
    flux = divergence(lambda s, x: density(time, x).unsqueeze(-1) * velocity(t, x), t, x)
    return (d_time + flux).detach()


def kinetic_energy(path: Path, velocity: Velocity, *, times: int | tuple = 64) -> float:
    """The kinetic energy ∫₀¹∫‖v_t‖² dμ_t dt, without ½; arguments as in :func:`weak_residual`."""
    energy = 0.0
    for t, weight in _time_nodes(times):
        x, w = _measure(path, t)
        energy += weight * (w * evaluate(velocity, t, x).detach().square().sum(-1)).sum().item()
    return energy


def bump(centre, radius: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The test function exp(−1/(1 − r²)), r = ‖(t, x) − centre‖/radius, zero for r ≥ 1: smooth, with compact support.

    Args:
        centre: (t, x_1, …, x_d), shape (d + 1,).
        radius: of the supporting ball in space-time.
    """
    centre = check.as_tensor(centre, "centre")
    check.positive(radius, "radius")

    def psi(t: Tensor, x: Tensor) -> Tensor:
        place = torch.cat([t.unsqueeze(-1), x], -1)
        inside = 1 - ((place - centre.to(place)) / radius).square().sum(-1)
        # The double where keeps the gradient finite (zero) outside the ball.
        safe = torch.where(inside > 0, inside, 1.0)
        return torch.where(inside > 0, torch.exp(-1 / safe), 0.0)

    return psi


def _time_nodes(times: int | tuple):
    nodes, weights = gauss_legendre(times) if isinstance(times, int) else times
    nodes, weights = check.as_tensor(nodes, "times"), check.as_tensor(weights, "times")
    if nodes.ndim != 1 or nodes.shape != weights.shape or ((nodes < 0) | (nodes > 1)).any():
        raise ValueError(f"times must be nodes in [0, 1] and weights of one shape (k,), got {nodes.shape}, {weights.shape}")
    return zip(nodes.tolist(), weights.tolist(), strict=True)


def _measure(path: Path, t: float) -> tuple[Tensor, Tensor]:
    x, w = path(t)
    x = check.points(x, "path points")
    return x, check.weights(w, x.shape[0], "path weights", like=x)
