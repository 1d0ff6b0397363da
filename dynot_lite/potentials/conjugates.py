"""Conjugate points, the z with ∇Ψ_t(z) = y: Newton's method for one potential, and, for one that changes from step to step, a
quasi-Newton method and a rolling window of points.

A point of the window is drawn, its conjugate problem solved, and then visited a fixed number of times, a round of the window
apart, before a fresh one takes its place. It keeps its conjugate point and an estimate of the inverse Hessian there, so that
a visit costs few gradients, while the stream of fresh points leaves nothing to over-fit.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dynot_lite._base.results import Result

__all__ = ["ConjugateSolution"]

# Entries of the Hessians that are worked on at a time: few enough to stay in the processor's cache.
BLOCK = 2**19


@dataclass(frozen=True, eq=False, kw_only=True)
class ConjugateSolution(Result):
    """What the solver of ∇Ψ_t(z) = y found; ``converged`` if every point is solved.

    Attributes:
        argmax: the points z, shape (n, d), without gradients.
        residual: |∇Ψ_t(z) - y|, shape (n,).
        solved: whether the residual is within the tolerance, shape (n,).
        iterations: Newton steps taken by the slowest point.
    """

    argmax: Tensor
    residual: Tensor
    solved: Tensor
    iterations: int


@dataclass(frozen=True, eq=False)
class Equation:
    """(1 - t) z + t ∇Ψ(z) = y, that is ∇Ψ_t(z) = y, for the rows of y, shape (n, d), with times of shape (n,)."""

    gradient: Callable[[Tensor], Tensor]
    hessian: Callable[[Tensor], Tensor]
    t: Tensor
    y: Tensor

    def at(self, rows: Tensor) -> "Equation":
        """Some of the rows."""
        return Equation(self.gradient, self.hessian, self.t[rows], self.y[rows])

    def residual(self, z: Tensor) -> Tensor:
        """∇Ψ_t(z) - y."""
        return (1 - self.t)[:, None] * z + self.t[:, None] * self.gradient(z) - self.y

    def newton_step(self, z: Tensor, residual: Tensor) -> Tensor:
        """-(∇²Ψ_t(z))⁻¹ residual; a Hessian that is singular to rounding gets a small multiple of the identity.

        Raises ValueError where a Hessian has a negative eigenvalue.
        """
        if not len(z):
            return z
        with torch.no_grad():
            hessian = self.t[:, None, None] * self.hessian(z)
            hessian.diagonal(dim1=-2, dim2=-1).add_((1 - self.t)[:, None])
            factor, info = torch.linalg.cholesky_ex(hessian)
            if (info > 0).any():
                rounding = math.sqrt(torch.finfo(z.dtype).eps)
                eigenvalues = torch.linalg.eigvalsh(torch.nan_to_num(hessian, nan=-torch.inf, posinf=torch.finfo(z.dtype).max))
                scale = eigenvalues.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(z.dtype).tiny)
                if not (eigenvalues[:, :1] >= -rounding * scale).all():
                    lowest = eigenvalues.min().item()
                    raise ValueError(f"the potential must be convex: its Hessian has an eigenvalue {lowest:.3g}")
                hessian.diagonal(dim1=-2, dim2=-1).add_(torch.where(info > 0, 2 * rounding * scale[:, 0], 0)[:, None])
                factor = torch.linalg.cholesky(hessian)
        return -torch.cholesky_solve(residual[..., None], factor)[..., 0]


@torch.no_grad()
def newton(equation: Equation, start: Tensor, *, tol: float, max_iterations: int) -> ConjugateSolution:
    """Newton's method safeguarded by backtracking, from checked input; see ``ConvexPotential.solve``."""
    z, norm, target, iterations = start.clone(), torch.empty_like(start[:, 0]), tol * equation.y.norm(dim=-1).clamp(min=1), 0
    for block in torch.arange(len(z), device=z.device).split(max(BLOCK // z.shape[1] ** 2, 1)):
        z[block], norm[block], taken = _newton(equation.at(block), z[block], target[block], max_iterations)
        iterations = max(iterations, taken)
    solved = norm <= target
    converged, reason = bool(solved.all()), "every point is solved"
    if not converged:
        reason = (
            f"{int((~solved).sum())} of {len(solved)} conjugate problems are not solved after {iterations} Newton steps; "
            f"the largest residual is {norm.max().item():.3g}"
        )
    return ConjugateSolution(argmax=z, residual=norm, solved=solved, iterations=iterations, converged=converged, reason=reason)


def _newton(equation: Equation, z: Tensor, target: Tensor, max_iterations: int) -> tuple[Tensor, Tensor, int]:
    """The points, the norms of their residuals and the number of steps, from the start z, which is overwritten."""
    residual, steps = equation.residual(z), 0
    solved = residual.norm(dim=-1) <= target
    # A point that starts at its solution takes no step, so its curvature is looked at here.
    equation.at(solved).newton_step(z[solved], residual[solved])
    active = torch.nonzero(~solved)[:, 0]
    while active.numel() and steps < max_iterations:
        z[active], new, moved = _backtrack(equation.at(active), z[active], residual[active])
        residual[active] = new
        active = active[moved & (new.norm(dim=-1) > target[active])]
        steps += 1
    return z, residual.norm(dim=-1), steps


def _backtrack(equation: Equation, z: Tensor, residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Halve each point's step until it shortens its residual; ``moved`` is False where forty halvings do not."""
    direction, before = equation.newton_step(z, residual), residual.norm(dim=-1)
    trial = z + direction
    new = equation.residual(trial)
    # The linear model of the residual shrinks by the factor 1 - size; a small part of it is enough.
    pending, size = torch.nonzero(~(new.norm(dim=-1) <= (1 - 1e-3) * before))[:, 0], 1.0
    for _ in range(40):
        if not pending.numel():
            break
        size /= 2
        trial[pending] = z[pending] + size * direction[pending]
        new[pending] = equation.at(pending).residual(trial[pending])
        pending = pending[~(new[pending].norm(dim=-1) <= (1 - 1e-3 * size) * before[pending])]
    trial[pending], new[pending] = z[pending], residual[pending]
    moved = torch.ones(len(z), dtype=torch.bool, device=z.device)
    moved[pending] = False
    return trial, new, moved


def quasi_newton(gradient, y: Tensor, z: Tensor, inverse: Tensor, *, tol: float, max_iterations: int) -> Tensor:
    """BFGS for ∇Ψ(z) = y in each row, from z and the inverse Hessians, which are overwritten; the norms of the residuals.

    It looks at gradients only: values lose too many digits in float32. A step is taken unless its end is as steep, uphill, as its
    start was downhill; whether taken or not, it teaches the inverse Hessian its secant, which for a convex Ψ keeps it positive.
    """
    residual = gradient(z).sub_(y)
    threshold = tol * y.shape[1] ** 0.5
    norm = residual.norm(dim=1)
    for _ in range(max_iterations):
        if norm.mean() <= threshold:
            break
        step = -(inverse @ residual[:, :, None])[:, :, 0]
        new = gradient(z + step).sub_(y)
        change = new - residual
        before, curvature = (residual * step).sum(1), (change * step).sum(1)
        image = (inverse @ change[:, :, None])[:, :, 0]
        # (1 + <change, image>/curvature)/curvature · step stepᵀ - (image stepᵀ + step imageᵀ)/curvature
        valid = curvature > 1e-6 * step.norm(dim=1) * change.norm(dim=1)
        reciprocal = torch.where(valid, 1 / curvature, 0)
        half = 0.5 * (1 + (change * image).sum(1) * reciprocal) * reciprocal
        other = half[:, None] * step - reciprocal[:, None] * image
        inverse.baddbmm_(torch.stack((other, step), 2), torch.stack((step, other), 1))
        taken = (before + curvature <= -before)[:, None]
        z.add_(torch.where(taken, step, 0))
        residual = torch.where(taken, new, residual)
        norm = residual.norm(dim=1)
    return norm


class Window:
    """``groups`` batches of target points; each point lives for ``visits`` visits of its group.

    Args:
        draw: n -> fresh target points, shape (n, d).
        tol: mean |∇Ψ(z) - y|/√d up to which a batch is solved at a visit.
    """

    def __init__(self, draw: Callable[[int], Tensor], like: Tensor, *, groups: int, batch: int, visits: int, tol: float):
        dim = len(like)
        self.draw, self.visits, self.tol = draw, visits, tol
        self.y, self.z = (like.new_empty(groups, batch, dim) for _ in range(2))
        self.inverse = like.new_empty(groups, batch, dim, dim)

    def batch(self, step: int, gradient: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The points of the step, their conjugate points and the norms of the residuals."""
        (_, batch, dim), (rounds, group) = self.y.shape, divmod(step, len(self.y))
        y, z, inverse = self.y[group], self.z[group], self.inverse[group]
        size = -(-batch // self.visits)
        first = (rounds % self.visits) * size
        fresh = slice(first, min(first + size, batch)) if rounds else slice(0, batch)
        if first < batch:
            y[fresh] = self.draw(len(y[fresh]))
            z[fresh] = y[fresh]
            inverse[fresh] = torch.eye(dim).to(inverse)
            quasi_newton(gradient, y[fresh], z[fresh], inverse[fresh], tol=self.tol, max_iterations=20)
        return y, z, quasi_newton(gradient, y, z, inverse, tol=self.tol, max_iterations=6)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"y": self.y, "z": self.z, "inverse": self.inverse}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])
