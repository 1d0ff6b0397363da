"""Action matching: the loss of an action s along a path of laws, for any action and for the optimal ones.

L_AM(s) = E s_0(x0) - E s_1(x1) + ∫ E[∂_t s_t(x_t) + ½|∇s_t(x_t)|²] dt. An optimal action solves the Hamilton–Jacobi equation
∂_t s + ½|∇s|² = 0, so the integral vanishes whatever the path: L_AM(s_Ψ) = L_OT(Ψ) - ½(E|x0|² + E|x1|²) (arXiv 2510.27385).
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from dynot_lite._base import checks as check
from dynot_lite._base import randomness
from dynot_lite._base.differentiation import gradient, tangent
from dynot_lite._base.samplers import Velocity, evaluate, function, values
from dynot_lite.paths.flows import divergence
from dynot_lite.potentials.convex import ConvexPotential

__all__ = [
    "Action",
    "AutodiffAction",
    "OptimalAction",
    "action_gap",
    "action_matching_loss",
    "action_network",
    "endpoint_mismatch",
    "entropic_action_matching_loss",
    "laplacian",
    "snapshot_loss",
    "unbalanced_action_matching_loss",
]


class Action(Protocol):
    """A function s(t, x) with its derivatives; x is (n, d) and t a float or (n,)."""

    def value(self, t, x) -> Tensor:
        """s_t(x), shape (n,)."""

    def velocity(self, t, x) -> Tensor:
        """∇s_t(x), shape (n, d)."""

    def time_derivative(self, t, x) -> Tensor:
        """∂_t s_t(x) at fixed x, shape (n,)."""


class AutodiffAction(nn.Module):
    """Any scalar function s(t, x) as an action, its derivatives by automatic differentiation.

    Args:
        function: maps t of shape (n,) and x of shape (n, d) to (n,); a module's parameters become the action's.

    >>> action = AutodiffAction(lambda t, x: t * x.square().sum(-1))
    >>> action.velocity(0.5, torch.tensor([[1.0, 2.0]])), action.time_derivative(0.5, torch.tensor([[1.0, 2.0]]))
    (tensor([[1., 2.]]), tensor([5.]))
    """

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]):
        super().__init__()
        self.function = function

    def value(self, t, x) -> Tensor:
        """s_t(x), shape (n,)."""
        return check.representable(self._value(*_time_and_points(t, x)), "x, and what function returns there,")

    def velocity(self, t, x) -> Tensor:
        """∇s_t(x), shape (n, d)."""
        t, x = _time_and_points(t, x)
        return self._derivative(lambda points: self._value(t, points), x)

    def time_derivative(self, t, x) -> Tensor:
        """∂_t s_t(x) at fixed x, shape (n,)."""
        t, x = _time_and_points(t, x)
        return self._derivative(lambda times: self._value(times, x), t)

    def _derivative(self, function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
        value, found = gradient(function, at, name="function")
        check.representable(value, "x, and what function returns there,")
        return check.representable(found, "x, and the derivative of function there,")

    def _value(self, t: Tensor, x: Tensor) -> Tensor:
        return values(function(self.function, "function")(t.clone(), x.clone()), t, "function")


class OptimalAction:
    """The action of an optimal vector field: the Hopf–Lax evolution of s_0 = Ψ - ½|·|² for a convex potential Ψ.

    s_t(x) = min_z Ψ(z) - ½|z|² + |x - z|²/(2t), attained at the z with (1 - t) z + t ∇Ψ(z) = x, so s_1 = ½|·|² - Ψ*. All times
    from 0 to 1 inclusive; t = 1 needs a strongly convex Ψ. Every method raises RuntimeError if a point z is not solved and
    ValueError if the solve meets negative curvature. First derivatives in t, x and the parameters are exact (the derivative of
    ``value`` in t for t > 0 only: at t = 0 use ``time_derivative``).
    """

    def __init__(self, potential: ConvexPotential):
        self.potential = potential

    def value(self, t, x) -> Tensor:
        """s_t(x), shape (n,); differentiable by the envelope theorem (the minimiser z is held fixed)."""
        t, x = self._arguments(t, x)
        z = self.potential.solve(x, t=t).require().argmax
        z = torch.where(t[:, None] > 0, z, x)
        spread = (x - z).square().sum(-1) / (2 * torch.where(t > 0, t, 1))
        return self.potential(z) - 0.5 * z.square().sum(-1) + spread

    def velocity(self, t, x) -> Tensor:
        """u_t(x) = ∇s_t(x) = ∇Ψ(z) - z, shape (n, d)."""
        t, x = self._arguments(t, x)
        z = self.potential.inverse_flow(t, x)
        return self.potential.gradient(z) - z

    def time_derivative(self, t, x) -> Tensor:
        """∂_t s_t(x) at fixed x, shape (n,): -½|x - z|²/t², the derivative of the bracket at fixed z (envelope theorem).

        It equals -½|velocity|² only where z is the minimiser, so a loss sees a z that is not. (Of the chain rule through z(t)
        the terms in z cancel: -½|∇Ψ(z) - z|² would be left at any z.) Below t = √eps, where the quotient loses half of its
        digits, its limit ∇Ψ(z) - z takes its place. Exact first derivatives, too.
        """
        t, x = self._arguments(t, x)
        z, late = self.potential.inverse_flow(t, x), t[:, None] > torch.finfo(x.dtype).eps ** 0.5
        moved = torch.where(late, (x - z) / torch.where(late, t[:, None], 1), self.potential.gradient(z) - z)
        return -0.5 * moved.square().sum(-1)

    def _arguments(self, t, x) -> tuple[Tensor, Tensor]:
        t, x = _time_and_points(t, check.points(x, "x", dim=self.potential.dim, like=next(self.potential.parameters(), None)))
        return t, check.squares(x, "x")


def action_network(dim: int, widths: Sequence[int] = (64, 64), *, generator: torch.Generator | None = None) -> AutodiffAction:
    """An unrestricted action: a network s(t, x) with SiLU units, its weights uniform on ±1/√(inputs)."""
    sizes = [check.count(dim, "dim") + 1, *(check.count(width, "widths") for width in widths), 1]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [randomness.linear(before, after, generator=generator), nn.SiLU()]
    return AutodiffAction(_Network(nn.Sequential(*layers[:-1])))


class _Network(nn.Module):
    def __init__(self, layers: nn.Sequential):
        super().__init__()
        self.layers = layers

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.layers(torch.cat([t[:, None], x], dim=1))[:, 0]


def action_matching_loss(action: Action, x0, x1, path, times, *, quadrature=None, time_weight=None) -> Tensor:
    """The action matching loss E s_0(x0) - E s_1(x1) + ∫ E[∂_t s + ½|∇s|²] dt.

    It equals ½∫E|∇s - ∇s°|² dt - ½∫E|∇s°|² dt, s° being the action whose gradient field moves the path's laws. For an
    :class:`OptimalAction` it equals L_OT(Ψ) - ½(E|x0|² + E|x1|²) for every path.

    Args:
        action: s.
        x0, x1: samples of the two ends, (n, d) and (m, d).
        path: samples of the law at each time, (k, n, d) or (k, d), or a function from a time (a float) to samples (n, d).
        times: the k times in [0, 1], shape (k,).
        quadrature: weights of the times, of sum 1; equal ones (the mean) if left out.
        time_weight: differentiable w(t) of the weighted loss w(0) E s_0 - w(1) E s_1 + ∫ E[w (∂_t s + ½|∇s|²) + w' s] dt,
            which is ½∫w E|∇s - ∇s°|² dt up to a constant; 1 if left out. The equivalence needs w = 1.

    Returns:
        A scalar.

    Raises:
        ValueError: bad input, or a path that visibly does not end at x0 or x1 (:func:`endpoint_mismatch` above 8 with at least
            ten points; seen if ``path`` is a function, or if 0 or 1 is among the times).
    """
    x0, x1, t, x, quadrature = _arguments(x0, x1, path, times, quadrature)
    interior, first, last = _interior(action, t, x), 1.0, 1.0
    if time_weight is not None:
        weighting = lambda t: values(function(time_weight, "time_weight")(t.clone()), t, "time_weight")
        first, last = (weighting(x0.new_tensor(end)) for end in (0.0, 1.0))
        weight, slope = tangent(weighting, (t,), (torch.ones_like(t),), name="time_weight")
        for part in (first, last, weight, slope):
            check.as_tensor(part, "time_weight")
        interior = weight * interior + slope * values(action.value(t, x), t, "action.value")
    return first * action.value(0.0, x0).mean() - last * action.value(1.0, x1).mean() + _integral(interior, quadrature)


def entropic_action_matching_loss(action: Action, x0, x1, path, times, *, sigma: float, quadrature=None) -> Tensor:
    """The entropic loss E s_0 - E s_1 + ∫ E[∂_t s + ½|∇s|² + ½σ²Δs] dt, minimised by the drift ∇s of dX = ∇s dt + σ dW.

    Arguments, return value and errors as for :func:`action_matching_loss`; the Laplacian costs d differentiations.
    """
    sigma = check.positive(sigma, "sigma")
    x0, x1, t, x, quadrature = _arguments(x0, x1, path, times, quadrature)
    interior = _interior(action, t, x) + 0.5 * sigma**2 * laplacian(action, t, x)
    return action.value(0.0, x0).mean() - action.value(1.0, x1).mean() + _integral(interior, quadrature)


def unbalanced_action_matching_loss(
    action: Action, x0, x1, path, times, *, mass: Callable[[Tensor], Tensor], quadrature=None
) -> Tensor:
    """The unbalanced loss, with ½s² added to the integrand and every expectation multiplied by the mass m(t) of the path.

    Minimised by the s whose gradient moves and whose value grows the path: ∂_t ρ + div(ρ∇s) = ρs.

    ``mass`` maps times (k,) to masses (k,); the rest as for :func:`action_matching_loss`.
    """
    x0, x1, t, x, quadrature = _arguments(x0, x1, path, times, quadrature)
    interior = _interior(action, t, x) + 0.5 * values(action.value(t, x), t, "action.value").square()
    masses = check.as_tensor(function(mass, "mass")(torch.cat([t.new_tensor([0.0, 1.0]), t])), "mass", like=x0)
    if masses.shape != (len(t) + 2,) or (masses < 0).any():
        raise ValueError("mass must map times (k,) to non-negative masses (k,)")
    ends = masses[0] * action.value(0.0, x0).mean() - masses[1] * action.value(1.0, x1).mean()
    return ends + _integral(masses[2:] * interior, quadrature)


def snapshot_loss(action: Action, snapshots) -> Tensor:
    """The action matching loss of a path that is known at K equally spaced times only, from unpaired samples.

    With t_k = k/(K − 1) and E_k the mean over snapshot k, the trapezoidal rule of ∫E[∂_t s + ½|∇s|²] dt, differences of s between
    neighbouring snapshots in the place of ∂_t s:

    E_0 s_0 − E_{K−1} s_1 + Σ_k ½(E_k + E_{k+1})[s(t_{k+1}) − s(t_k)] + Σ_k w_k E_k ½|∇s(t_k)|²

    with w_k = 1/(K − 1), half of it at the ends. As :func:`action_matching_loss` it does not change under s → s + f(t): the first
    two parts are Σ_k ½(E_k − E_{k+1})[s(t_k) + s(t_{k+1})]. With derivatives at the snapshots instead, f(t) with f(0) = 0,
    f(1) = 1 and f'(t_k) = 0 makes the loss −c at s = c f: no lower bound. For a smooth path and action it is second order in
    1/(K − 1).

    Only s at the times t_k is seen, and each ∇s(t_k) for itself: at the minimum −div(μ_k ∇s(t_k)) is the central difference of
    the laws, (μ_{k+1} − μ_{k−1}) (K − 1)/2, one-sided at the ends. In between, the smoothness of the network is what there is. Of
    finitely many points this loss, too, has no lower bound over all smooth actions (notebook proofs/05, section 5): a network
    that can hide a gradient from the points of its own snapshot finds that out, so take fresh samples in every step.

    ``snapshots`` have the shape (K, n, d), K ≥ 2; point i of one has nothing to do with point i of the next. The result is a
    scalar. Raises ValueError for snapshots of another shape, and values of the action that do not fit or are not finite.

    >>> snapshots = torch.tensor([[[0.0], [1.0]], [[4.0], [3.0]]])  # a shift by 3; its action is 3x − 9t/2, its loss −9/2
    >>> snapshot_loss(AutodiffAction(lambda t, x: 3 * x[:, 0] - 4.5 * t), snapshots)
    tensor(-4.5000)
    """
    x = check.squares(check.points(snapshots, "snapshots"), "snapshots")
    if x.ndim != 3 or len(x) < 2:
        raise ValueError(f"snapshots must have shape (K, n, d) with K ≥ 2, got {tuple(x.shape)}")
    times, each = torch.linspace(0, 1, len(x), dtype=x.dtype, device=x.device), x.shape[1]
    flat, here = x.flatten(0, 1), times.repeat_interleave(each)
    later, earlier = (times[index].repeat_interleave(each) for index in (slice(1, None), slice(None, -1)))
    at = lambda t, points: values(action.value(t, points), t, "action.value").unflatten(0, (-1, each)).mean(1)
    # Σ ½(E_k − E_{k+1})[s(t_k) + s(t_{k+1})], where the values at their own times cancel but at the two ends
    ends = at(times[[0, -1]].repeat_interleave(each), x[[0, -1]].flatten(0, 1))
    moved = at(later, x[:-1].flatten(0, 1)) - at(earlier, x[1:].flatten(0, 1))
    half_squares = 0.5 * evaluate(action.velocity, here, flat, name="action.velocity").square().sum(-1)
    weights = torch.full_like(times, 1 / (len(x) - 1))
    weights[[0, -1]] *= 0.5
    kinetic = (weights * half_squares.unflatten(0, (-1, each)).mean(1)).sum()
    return check.representable(0.5 * (ends[0] - ends[1] + moved.sum()) + kinetic, "snapshots, and the values of action there,")


def action_gap(action: Action, velocity: Velocity, path, times, *, quadrature=None) -> Tensor:
    """The action gap ½∫E|∇s_t(x_t) - v_t(x_t)|² dt between an action and a velocity v(t, x) -> (n, d).

    With the gradient field v of the path itself, L_AM(s) = gap - ½∫E|v|² dt. Arguments as for :func:`action_matching_loss`.
    """
    t, x, quadrature = _samples(path, times, quadrature)
    difference = evaluate(action.velocity, t, x.clone(), name="action.velocity") - evaluate(velocity, t, x.clone())
    return check.representable(
        _integral(0.5 * difference.square().sum(-1), quadrature), "path, and the values of velocity there,"
    )


def laplacian(action: Action, t, x) -> Tensor:
    """Δs_t(x), shape (n,): the divergence of the action's velocity, by d reverse passes."""
    t, x = _time_and_points(t, x)
    return divergence(action.velocity, t, x)


def endpoint_mismatch(path_end, end) -> float:
    """How far apart two samples of one law look: the largest difference of a first or second moment, in standard errors.

    Zero for the same sample; a few for two samples of one law; it grows like √n otherwise.
    """
    ends = [check.points(points, name).detach().double() for name, points in (("path_end", path_end), ("end", end))]
    if ends[0].ndim != 2 or ends[0].shape[1:] != ends[1].shape[1:]:
        shapes = " and ".join(str(tuple(points.shape)) for points in ends)
        raise ValueError(f"path_end and end must be samples (n, d) and (m, d) of one dimension, got {shapes}")
    scale = max(points.abs().max().item() for points in ends) or 1.0  # in one unit, for the sake of the rounding below
    ends = [points / scale for points in ends]
    moments = [torch.cat([points, (points[:, :, None] * points[:, None, :]).flatten(1)], dim=1) for points in ends]
    means = [sample.mean(0) for sample in moments]
    errors = sum(sample.var(0, unbiased=False) / len(sample) for sample in moments).sqrt()
    # Rounding of the moments is no mismatch, not even where the law is a point mass and the standard error zero.
    rounding = 1e-9 * (1 + means[1].abs())
    return ((means[0] - means[1]).abs() / (errors + rounding)).max().item()


def _time_and_points(t, x) -> tuple[Tensor, Tensor]:
    x = check.cloud(x, "x")
    return check.time(t, n=len(x), like=x).expand(len(x)), x


def _interior(action: Action, t: Tensor, x: Tensor) -> Tensor:
    """∂_t s + ½|∇s|², shape (n,)."""
    velocity = evaluate(action.velocity, t, x, name="action.velocity")
    return values(action.time_derivative(t, x), t, "action.time_derivative") + 0.5 * velocity.square().sum(-1)


def _samples(path, times, quadrature) -> tuple[Tensor, Tensor, Tensor]:
    """One time, one point and one quadrature weight for each sample of the path."""
    times = torch.atleast_1d(check.as_tensor(times, "times"))
    times = check.time(times, "times", n=len(times))
    if callable(path):
        clouds = [check.points(path(t.item()), "path").clone() for t in times]  # it may return one buffer again and again
        if len({cloud.shape for cloud in clouds}) > 1:
            raise ValueError(f"path must return one shape (n, d) at all times, got {sorted({tuple(c.shape) for c in clouds})}")
        path = torch.stack(clouds)
    path = check.squares(check.points(path, "path"), "path")
    if path.ndim > 3 or len(path) != len(times):
        expected = f"({len(times)}, n, d) or ({len(times)}, d)"
        raise ValueError(f"path must hold samples at each of the times, shape {expected}, got {tuple(path.shape)}")
    path = path[:, None, :] if path.ndim == 2 else path
    if quadrature is None:
        quadrature = torch.full_like(times, 1 / len(times))
    weights = check.weights(quadrature, len(times), "quadrature")
    each_time, each_weight = (part.to(path).repeat_interleave(path.shape[1]) for part in (times, weights / path.shape[1]))
    return each_time, path.flatten(0, 1), each_weight


def _arguments(x0, x1, path, times, quadrature) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    t, x, quadrature = _samples(path, times, quadrature)
    x0, x1 = (check.squares(check.cloud(end, name, dim=x.shape[1], like=x), name) for end, name in ((x0, "x0"), (x1, "x1")))
    for time, end, name in ((0.0, x0, "x0"), (1.0, x1, "x1")):
        found = path(time) if callable(path) else x[t == time]
        # Fewer points give no standard error worth the name.
        if min(len(found), len(end)) >= 10 and (mismatch := endpoint_mismatch(found, end)) > 8:
            raise ValueError(f"path must end at {name} at time {time:g}: a moment is off by {mismatch:.3g} standard errors")
    return x0, x1, t, x, quadrature


def _integral(integrand: Tensor, quadrature: Tensor) -> Tensor:
    return (quadrature * integrand).sum()
