"""The Hopf–Lax evolution s_t(x) = min_z s_0(z) + t h((x − z)/t) for a cost h(y − x), point by point to a stated tolerance.

A *cost* is any object with the methods of :class:`~dynot_lite.potentials.costs.PowerCost`; ``conjugate`` is H = h*, and
``displacement`` its gradient. Where s is differentiable, ∂_t s + H(∇s) = 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base.differentiation import gradient, leaf, recording
from dynot_lite._base.results import Result
from dynot_lite._base.samplers import function, values

__all__ = ["HopfLax", "hopf_lax"]

PART = 2**21  # entries of a table of costs that are held at once


class Cost(Protocol):
    """What a cost h(y − x) can do; see ``PowerCost``."""

    def value(self, v, /) -> Tensor: ...
    def gradient(self, v, /) -> Tensor: ...
    def conjugate(self, q, /) -> Tensor: ...
    def displacement(self, q, /) -> Tensor: ...
    def pairwise(self, x0, x1, /) -> Tensor: ...


@dataclass(frozen=True, eq=False, kw_only=True)
class HopfLax(Result):
    """An inf-convolution s_t(x) = min_z s_0(z) + t h((x − z)/t); ``converged`` if every point is solved.

    Attributes:
        value: s_t(x), shape (n,); at a z that is not the minimiser it is too large.
        argmin: z, shape (n, d), without gradients; the characteristic through (t, x) has the velocity (x − z)/t.
        residual: |∇s_0(z) − ∇h((x − z)/t)|, shape (n,).
    """

    value: Tensor
    argmin: Tensor
    residual: Tensor


def hopf_lax(
    potential: Callable[[Tensor], Tensor], cost: Cost, t, x, *, start=None, tol: float | None = None, max_iterations: int = 100
) -> HopfLax:
    """The Hopf–Lax evolution s_t(x) = min_z s_0(z) + t h((x − z)/t); at t = 1 the c-transform of s_0.

    BFGS for each point, halving steps until they lower the value. For a convex s_0 there is one minimum. For another it is sought
    from the best of the points ``start``: with too few of them values are too large, and a dual value E s_1(x1) − E s_0(x0) looks
    better than the truth. First derivatives of the value in t > 0, in x and in what ``potential`` holds are exact at a solved z,
    by the envelope theorem. They satisfy ∂_t s + H(∇s) = 0 whatever z is: to test the equation, take differences of values.

    Args:
        potential: s_0, points (n, d) to values (n,), differentiable by torch.
        cost: h.
        t: a time in [0, 1], or one per point, shape (n,).
        x: points, shape (n, d).
        start: candidates for z, shape (m, d); nm costs are looked at, in parts. If left out, the z that a linear s_0 would have.
        tol: the residual that is accepted, relative to 1 + |∇h|; 1e-7 in float64 and 1e-3 in float32 if left out.
        max_iterations: of BFGS.

    Raises:
        ValueError: bad input.

    >>> from dynot_lite.potentials.costs import PowerCost
    >>> hopf_lax(lambda x: x.square().sum(1) / 2, PowerCost(2), 1.0, [[2.0, 0.0]]).require().value
    tensor([1.], dtype=torch.float64)
    """
    x = check.cloud(x, "x")
    t = check.time(t, n=len(x), like=x).expand(len(x))
    start = None if start is None else check.cloud(start, "start", dim=x.shape[1], like=x).detach()
    tol = (1e-7 if x.dtype == torch.float64 else 1e-3) if tol is None else check.positive(tol, "tol")
    max_iterations = check.count(max_iterations, "max_iterations", least=0)
    moving = t.detach() > 0  # at t = 0 there is nothing to solve
    after = torch.where(moving, t, 1.0)
    with torch.no_grad():
        problem = Problem(potential, cost, after.detach(), x.detach())
        z, residual, size = descend(problem, problem.guess(start), tol=tol, max_iterations=max_iterations)
        z, residual = torch.where(moving[:, None], z, x), torch.where(moving, residual, 0.0)
    lifted = t * values(cost.value((x - z) / after[:, None]), x[:, 0], "cost.value")
    value = check.representable(evaluate(potential, z) + lifted, "x")
    solved = residual <= tol * (1 + size)
    reason = "every point is solved"
    if not solved.all():
        reason = f"{int((~solved).sum())} of {len(x)} points are not solved, the largest residual is {residual.max().item():.3g}"
    return HopfLax(value=value, argmin=z, residual=residual, converged=bool(solved.all()), reason=reason)


def evaluate(potential: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The values of what a user brings, of a copy of the points, in their dtype."""
    found = values(function(potential, "potential")(x.clone()), x[:, 0], "potential")
    if not check.finite(found):
        raise ValueError("potential must return finite values, got NaN or infinity")
    return found


def value_and_slope(potential: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Values and gradients, with their graph."""
    value, slope = gradient(lambda x: evaluate(potential, x), x, name="potential")
    return value, check.representable(slope, "the points of potential")


def detached(potential: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The same without a graph, at half the time."""
    with recording():
        point = leaf(x)
        value = evaluate(potential, point)
        slope = torch.autograd.grad(value.sum(), point, allow_unused=True)[0] if value.requires_grad else None
    if slope is None:  # it does not depend on the points, or hides that it does
        value, slope = value_and_slope(potential, x)
    return value.detach(), check.representable(slope.detach(), "the points of potential")


@dataclass(frozen=True, eq=False)
class Problem:
    """To minimise s_0(z) + t h((x − z)/t) over z for the rows of x, with times t > 0 of shape (n,)."""

    potential: Callable[[Tensor], Tensor]
    cost: Cost
    t: Tensor
    x: Tensor

    def guess(self, candidates: Tensor | None) -> Tensor:
        """The best candidate for each row; without candidates the minimiser for a linear s_0."""
        if candidates is None:
            slope = value_and_slope(self.potential, self.x)[1]
            step = values(self.cost.displacement(slope), slope, "cost.displacement")
            return check.representable(self.x - self.t[:, None] * step, "x and potential")
        heights, dim = evaluate(self.potential, candidates)[:, None], self.x.shape[1]
        same, first = bool((self.t == self.t[0]).all()), self.t[0]
        best = []
        for rows in torch.arange(len(self.x), device=self.x.device).split(
            max(1, PART // (len(candidates) * (1 if same else dim)))
        ):
            t, x = self.t[rows], self.x[rows]
            if same:
                table = self.cost.pairwise(candidates / first, x / first).mul(first)
            else:
                v = (x - candidates[:, None]) / t[:, None]
                table = t * self.cost.value(v.reshape(-1, dim)).reshape(v.shape[:2])
            best.append((table + heights).argmin(0))
        return candidates[torch.cat(best)]

    def at(self, rows: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Values, their slopes in z, the rounding of the values, and ∇h((x − z)/t)."""
        t = self.t[rows]
        v = (self.x[rows] - z) / t[:, None]
        height, slope = detached(self.potential, z)
        lifted, pull = t * self.cost.value(v), self.cost.gradient(v)
        return height + lifted, slope - pull, 4 * torch.finfo(z.dtype).eps * (height.abs() + lifted.abs()), pull


def descend(problem: Problem, z: Tensor, *, tol: float, max_iterations: int, halvings: int = 30) -> tuple[Tensor, Tensor, Tensor]:
    """BFGS in each row, from z: the end points, the norms of their slopes and of ∇h there.

    The first inverse Hessian is t |v|/|∇h(v)|, that of the cost up to its anisotropy. A step is halved until it lowers the value,
    up to rounding: near the end, steps that rounding cannot judge go on to the zero of the slope.
    """
    z, active = z.clone(), torch.arange(len(z), device=z.device)
    value, slope, _, pull = problem.at(active, z)
    size, speed = pull.norm(dim=1), ((problem.x - z) / problem.t[:, None]).norm(dim=1)
    scale = problem.t * torch.where((size > 0) & (speed > 0), speed / torch.where(size > 0, size, 1.0), 1.0)
    inverse = scale[:, None, None] * torch.eye(z.shape[1]).to(z)
    for _ in range(max_iterations):
        active = active[slope[active].norm(dim=1) > tol * (1 + size[active])]
        if not active.numel():
            break
        before, old, here = value[active], slope[active], z[active]
        step = -(inverse[active] @ old[:, :, None])[:, :, 0]
        fall = (old * step).sum(1)
        new, length = problem.at(active, here + step), torch.ones_like(fall)
        pending = torch.arange(len(active), device=z.device)
        for _ in range(halvings):
            pending = pending[~(new[0] <= before + 1e-4 * length * fall + new[2])[pending]]
            if not pending.numel():
                break
            length[pending] /= 2
            shorter = problem.at(active[pending], here[pending] + length[pending, None] * step[pending])
            for whole, part in zip(new, shorter, strict=True):
                whole[pending] = part
        length[pending] = 0
        step, change = length[:, None] * step, new[1] - old
        curvature, image = (change * step).sum(1), (inverse[active] @ change[:, :, None])[:, :, 0]
        # (1 + <change, image>/curvature)/curvature · step stepᵀ - (image stepᵀ + step imageᵀ)/curvature
        valid = curvature > 1e-6 * step.norm(dim=1) * change.norm(dim=1)
        reciprocal = torch.where(valid, 1 / torch.where(valid, curvature, 1.0), 0.0)
        half = 0.5 * (1 + (change * image).sum(1) * reciprocal) * reciprocal
        other = half[:, None] * step - reciprocal[:, None] * image
        update = other[:, :, None] * step[:, None, :]
        inverse[active] += update + update.mT
        z[active] += step
        moved = length > 0
        active = active[moved]
        value[active], slope[active], size[active] = new[0][moved], new[1][moved], new[3][moved].norm(dim=1)
    return z, slope.norm(dim=1), size
