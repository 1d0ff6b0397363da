"""The continuity equation ∂_t μ + div(μ v) = 0: residuals in weak and strong form, and the kinetic energy.

A path of measures is given by quadrature: a callable t -> (points (n, d), weights (n,)) such that Σ_i w_i f(x_i) is ∫ f dμ_t, be
it Gauss–Hermite nodes, the cells of a grid, or samples of equal weight.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base import samplers
from dynot_lite._base.differentiation import elsewhere, gradients, leaf, recording, refuse_graph
from dynot_lite._base.samplers import Velocity, evaluate
from dynot_lite.paths.flows import velocity_and_divergence

__all__ = ["bump", "box_quadrature", "gauss_legendre", "kinetic_energy", "path_quadrature", "strong_residual", "weak_residual"]

Path = Callable[[float], tuple[Tensor, Tensor]]


def gauss_legendre(order: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights, shape (order,), of Gauss–Legendre quadrature on [0, 1]."""
    if check.count(order, "order") > 2000:
        raise ValueError(f"order must be at most 2000 (its nodes, the times, are eigenvalues), got {order}")
    nodes, weights = np.polynomial.legendre.leggauss(order)
    return torch.as_tensor(0.5 * (nodes + 1)), torch.as_tensor(0.5 * weights)


def path_quadrature(law_at: Callable, order: int = 20) -> Path:
    """The path of measures of a path of laws ``law_at(t)`` that have a ``quadrature(order)``: t -> (points, weights).

    Of Gaussians, order**d nodes that integrate polynomials of degree < 2 order in each variable exactly. Raises ValueError, on a
    call, for a law without quadrature, and what its quadrature raises.
    """
    samplers.function(law_at, "law_at")
    check.count(order, "order")

    def path(t: float) -> tuple[Tensor, Tensor]:
        law = law_at(t)
        if not callable(getattr(law, "quadrature", None)):
            raise ValueError(f"law_at must return laws with a quadrature(order), got {type(law).__name__}")
        return law.quadrature(order)

    return path


def box_quadrature(law_at: Callable, centre, radius: float, n: int) -> Path:
    """The path of measures of a path of laws that have a density: the midpoint rule on a fixed box, and one point outside.

    t -> (points (n**d + 1, d), weights): the density at the centre of each cell times its volume, and at the last point,
    centre + 3 radius, the mass that is left. So weights sum to 1, and integrals are right to the error of the midpoint rule of
    functions that vanish outside the box, such as :func:`bump`, and of others if the box holds all but rounding of the mass.

    Args:
        law_at: t -> a law with ``log_prob``, (m, d) -> (m,).
        centre: shape (d,).
        radius: half the side of the box.
        n: cells per axis; n**d ≤ 4·10⁶, all of them in memory.

    Raises:
        ValueError: bad input; on a call, a log-density of another shape or that is NaN, and cells that see a mass above 1.01:
            they are too wide for the law.
    """
    samplers.function(law_at, "law_at")
    centre, radius = check.as_tensor(centre, "centre"), check.positive(radius, "radius")
    if centre.ndim != 1 or not len(centre):
        raise ValueError(f"centre must have shape (d,), got {tuple(centre.shape)}")
    dim = len(centre)
    if check.count(n, "n") ** dim > 4e6:
        raise ValueError(f"n must have n**d ≤ 4e6 cells, got {n}**{dim}")
    axis = radius * (2 * torch.arange(n).to(centre) + 1 - n) / n
    grid = centre + torch.cartesian_prod(*[axis] * dim).reshape(-1, dim)
    points = check.as_tensor(torch.cat([grid, (centre + 3 * radius)[None]]), "the box of centre and radius")

    def path(t: float) -> tuple[Tensor, Tensor]:
        log_density = samplers.values(law_at(t).log_prob(grid), grid[:, 0], "law_at(t).log_prob")
        mass = torch.exp(log_density + dim * math.log(2 * radius / n))
        total = mass.sum(0, keepdim=True)
        if not total <= 1.01:
            raise ValueError(f"n must be larger for this law: the cells of the box see a mass of {total.item():.3g}")
        # What the rule sees beyond 1 is its error: it is taken from all cells.
        return points, torch.cat([mass / total.clamp_min(1), (1 - total).clamp_min(0)])

    return path


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
        ValueError: a test function that vanishes identically on the path, or that depends on t or x and has no graph, shapes
            that do not fit, values that are not finite.
    """
    balance = scale = 0.0
    for t, weight in _time_nodes(times):
        x, w = _measure(path, t)
        v = evaluate(velocity, t, x.clone()).detach()
        _, d_time, d_space = _derivatives(test_function, torch.full_like(x[:, 0], t), x, "test_function")
        transport = (d_space * v).sum(-1)
        balance += weight * (w * (d_time + transport)).sum().item()
        scale += weight * (w * (d_time.abs() + transport.abs())).sum().item()
    for t, sign in ((0.0, 1.0), (1.0, -1.0)):
        x, w = _measure(path, t)
        balance += sign * (w * _values(test_function, torch.full_like(x[:, 0], t), x, "test_function")).sum().item()
    if scale == 0:
        raise ValueError("test_function must not be constant on the path at the times: it tests nothing")
    return _finite(abs(balance) / scale, "path, velocity and test_function")


def strong_residual(density: Callable[[Tensor, Tensor], Tensor], velocity: Velocity, t: float, x) -> Tensor:
    """The pointwise residual ∂_tρ + div(ρ v) of a smooth density ρ(t, x), shape (n, d) -> (n,), by automatic differentiation.

    Args:
        density: ρ(t, x) with t of shape () and x (n, d) -> (n,), by torch operations in both arguments.
        velocity: callable (t, x) -> (n, d), by torch operations in x.

    Raises:
        ValueError: a density or velocity that depends on an argument and has no graph there, shapes that do not fit, values that
            are not finite, a t or x that requires a gradient (none is passed on).
    """
    x, t = check.cloud(x, "x"), check.number(t, "t")
    refuse_graph(x, "x")
    rho, d_time, d_space = _derivatives(density, torch.tensor(t, dtype=torch.float64).to(x), x, "density")
    with torch.no_grad():
        v, rate = velocity_and_divergence(velocity, t, x)
    return _finite(d_time + (d_space * v).sum(-1) + rho * rate, "density and velocity")


def kinetic_energy(path: Path, velocity: Velocity, *, times: int | tuple = 64) -> float:
    """The kinetic energy ∫₀¹∫‖v_t‖² dμ_t dt, without ½; arguments and errors as in :func:`weak_residual`."""
    energy = 0.0
    for t, weight in _time_nodes(times):
        x, w = _measure(path, t)
        energy += weight * (w * evaluate(velocity, t, x.clone()).detach().square().sum(-1)).sum().item()
    return _finite(energy, "path and velocity")


def bump(centre, radius: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The test function exp(−1/(1 − r²)), r = ‖(t, x) − centre‖/radius, zero for r ≥ 1: smooth, with compact support.

    Args:
        centre: (t, x_1, …, x_d), shape (d + 1,).
        radius: of the supporting ball in space-time.
    """
    centre, radius = check.as_tensor(centre, "centre"), check.positive(radius, "radius")
    if centre.ndim != 1:
        raise ValueError(f"centre must have shape (d + 1,), got {tuple(centre.shape)}")

    def psi(t: Tensor, x: Tensor) -> Tensor:
        if x.shape[-1] + 1 != len(centre):
            raise ValueError(f"centre must hold a time and the {x.shape[-1]} coordinates of x, got {len(centre)} numbers")
        place = torch.cat([t.unsqueeze(-1), x], -1)
        inside = 1 - ((place - centre.to(place)) / radius).square().sum(-1)
        # The double where keeps the gradient finite (zero) outside the ball.
        safe = torch.where(inside > 0, inside, 1.0)
        return torch.where(inside > 0, torch.exp(-1 / safe), 0.0)

    return psi


def _values(function: Callable[[Tensor, Tensor], Tensor], t: Tensor, x: Tensor, name: str) -> Tensor:
    return samplers.values(samplers.function(function, name)(t.clone(), x.clone()), x[:, 0], name)


def _derivatives(function: Callable[[Tensor, Tensor], Tensor], t: Tensor, x: Tensor, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """f(t, x), ∂_t f and ∇f at the points, for one time, shape (), or one per point."""
    with recording():
        s, y = leaf(t), leaf(x)
        value = _values(function, s, y, name)
        each = torch.ones_like(value).requires_grad_()
        later = lambda: _values(function, (s + 0.382) % 1, y, name)
        (d_time,) = gradients(value, s, [each], again=later, name=name, create_graph=not s.ndim)
        if d_time.requires_grad:  # Σ each · ∂_t f, since the time is one for all
            (d_time,) = torch.autograd.grad(d_time, each, retain_graph=True)
        (d_space,) = gradients(value, y, [each.detach()], again=lambda: _values(function, s, elsewhere(y), name), name=name)
    return value.detach(), d_time, d_space


def _finite(found, whose: str):
    if not check.finite(torch.as_tensor(found)):
        raise ValueError(f"{whose} must have finite values on the path, got a residual or an energy that is not finite")
    return found


def _time_nodes(times: int | tuple):
    if not isinstance(times, (tuple, list)):
        times = gauss_legendre(check.count(times, "times"))
    if len(times) != 2:
        raise ValueError(f"times must be an order or (nodes, weights), got {len(times)} entries")
    nodes, weights = check.as_tensor(times[0], "times"), check.as_tensor(times[1], "times")
    if nodes.ndim != 1 or nodes.shape != weights.shape or ((nodes < 0) | (nodes > 1)).any():
        raise ValueError(f"times must be nodes in [0, 1] and weights of one shape (k,), got {nodes.shape}, {weights.shape}")
    return zip(nodes.tolist(), weights.tolist(), strict=True)


def _measure(path: Path, t: float) -> tuple[Tensor, Tensor]:
    found = samplers.function(path, "path")(t)
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        raise ValueError(f"path must return (points, weights), got {type(found).__name__}")
    x = check.cloud(found[0], "path points")
    return x, check.weights(found[1], x.shape[0], "path weights", like=x)
