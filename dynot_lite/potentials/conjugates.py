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
LOST = 10_000  # times the tolerance: the residual from which on a point is lost
NEAR = 1024  # solved points among which that nearest to a fresh one is looked for


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


class Dense:
    """BFGS estimates of inverse Hessians, matrices (n, d, d), which are overwritten; the identity at first."""

    def __init__(self, matrices: Tensor):
        self.matrices = matrices

    def times(self, vectors: Tensor) -> Tensor:
        """Each estimate times its vector, shape (n, d)."""
        return (vectors[:, None, :] @ self.matrices)[:, 0]  # a row from the left, of symmetric matrices: up to ten times faster

    def learn(self, step: Tensor, change: Tensor, reciprocal: Tensor, image: Tensor, taken: Tensor, residual: Tensor) -> Tensor:
        """Teach the secants (step, change), of reciprocal 1/<step, change>, or 0 for none; the new estimates times ``residual``.

        ``image`` is the old estimates' product with the old residual, and ``taken`` says where that residual has changed by
        ``change``: so that one product with the matrices is enough.
        """
        of_change = self.times(change)
        # (1 + <change, of_change>/curvature)/curvature · step stepᵀ - (of_change stepᵀ + step of_changeᵀ)/curvature
        half = 0.5 * (1 + (change * of_change).sum(1) * reciprocal) * reciprocal
        other = half[:, None] * step - reciprocal[:, None] * of_change
        self.matrices.baddbmm_(torch.stack((other, step), 2), torch.stack((step, other), 1))
        image = image + torch.where(taken[:, None], of_change, 0)
        return image + other * (step * residual).sum(1, keepdim=True) + step * (other * residual).sum(1, keepdim=True)


class Limited:
    """The same with limited memory: the last m secants (step, change)·√reciprocal, shape (n, 2m, d); zeros for none."""

    def __init__(self, secants: Tensor):
        self.secants = secants

    def times(self, vectors: Tensor) -> Tensor:
        """Each estimate times its vector, shape (n, d), by the two loops over the secants."""
        steps, changes = self.secants.chunk(2, 1)
        products = []
        for step, change in zip(reversed(steps.unbind(1)), reversed(changes.unbind(1)), strict=True):
            products.append((step * vectors).sum(1, keepdim=True))
            vectors = torch.addcmul(vectors, products[-1], change, value=-1)
        for step, change in zip(steps.unbind(1), changes.unbind(1), strict=True):
            vectors = torch.addcmul(vectors, products.pop() - (change * vectors).sum(1, keepdim=True), step)
        return vectors

    def learn(self, step: Tensor, change: Tensor, reciprocal: Tensor, image: Tensor, taken: Tensor, residual: Tensor) -> Tensor:
        """As of :class:`Dense`."""
        memory = self.secants.shape[1] // 2
        # The oldest is forgotten; a row that has nothing to learn keeps what it has.
        rows, root = (reciprocal > 0)[:, None, None], reciprocal.sqrt()[:, None]
        new = torch.stack((root * step, root * change), 1)
        parts = [part for k in (0, 1) for part in (self.secants[:, k * memory + 1 : (k + 1) * memory], new[:, k : k + 1])]
        self.secants.copy_(torch.where(rows, torch.cat(parts, 1), self.secants))
        return self.times(residual)


def quasi_newton(gradient, y: Tensor, z: Tensor, inverse: Tensor, *, tol: float, max_iterations: int) -> Tensor:
    """BFGS for ∇Ψ(z) = y in each row, from z and the inverse Hessians, which are overwritten; the norms of the residuals.

    It looks at gradients only: values lose too many digits in float32. A step is taken unless its end is as steep, uphill, as its
    start was downhill; whether taken or not, it teaches the inverse Hessian its secant, which for a convex Ψ keeps it positive.

    Args:
        inverse: matrices (n, d, d), or the secants of :class:`Limited`, of a number 2m other than d.
        tol: mean of |∇Ψ(z) - y|/√d at which the rows are solved.
    """
    residual = gradient(z).sub_(y)
    threshold = tol * y.shape[1] ** 0.5
    norm = residual.norm(dim=1)
    if norm.mean() <= threshold:
        return norm
    estimates = Dense(inverse) if inverse.shape[1] == y.shape[1] else Limited(inverse)
    image = estimates.times(residual)
    for _ in range(max_iterations):
        step = -image
        change = gradient(z + step).sub_(y).sub_(residual)
        before, curvature = (residual * step).sum(1), (change * step).sum(1)
        valid = curvature > 1e-6 * step.norm(dim=1) * change.norm(dim=1)
        reciprocal = torch.where(valid, 1 / curvature, 0)
        taken = before + curvature <= -before
        z.add_(torch.where(taken[:, None], step, 0))
        residual = residual + torch.where(taken[:, None], change, 0)
        image = estimates.learn(step, change, reciprocal, image, taken, residual)
        norm = residual.norm(dim=1)
        if norm.mean() <= threshold:
            break
    return norm


class Window:
    """``groups`` batches of target points; each point lives for ``visits`` visits of its group.

    Args:
        draw: n -> fresh target points, shape (n, d).
        memory: secants kept for each point, less than d/2; None for dense inverse Hessians, d² numbers a point.
        near: whether a fresh point starts from the solved point that is nearest, of the first ``NEAR`` of the batch before.
    """

    def __init__(
        self, draw: Callable[[int], Tensor], like: Tensor, *, groups: int, batch: int, visits: int, memory: int | None, near: bool
    ):
        dim = len(like)
        self.draw, self.visits, self.near = draw, visits, near
        self.y, self.z = (like.new_zeros(groups, batch, dim) for _ in range(2))
        self.inverse = like.new_zeros(groups, batch, 2 * memory if memory else dim, dim)

    def batch(self, step: int, gradient: Callable[[Tensor], Tensor], tol: float) -> tuple[Tensor, Tensor, Tensor]:
        """The points of the step, their conjugate points and the norms of the residuals.

        Args:
            tol: mean |∇Ψ(z) - y|/√d up to which a batch is solved at a visit.
        """
        (groups, batch, dim), (rounds, group) = self.y.shape, divmod(step, len(self.y))
        y, z, inverse = self.y[group], self.z[group], self.inverse[group]
        size = -(-batch // self.visits)
        first = (rounds % self.visits) * size
        fresh = slice(first, min(first + size, batch)) if rounds else slice(0, batch)
        start = torch.eye(dim).to(inverse) if inverse.shape[1] == dim else inverse.new_zeros(())
        if first < batch:
            new = self.draw(len(y[fresh]))
            if self.near and step:
                last = (step - 1) % groups
                solved = self.y[last, :NEAR]
                nearest = torch.cdist(new, solved).argmin(1)
                estimates = self.inverse[last, nearest]
                z[fresh] = self.z[last, nearest] + Dense(estimates).times(new - solved[nearest])
                inverse[fresh] = estimates
            else:
                z[fresh] = new
                inverse[fresh] = start
            y[fresh] = new
            quasi_newton(gradient, y[fresh], z[fresh], inverse[fresh], tol=tol, max_iterations=20)
        norm = quasi_newton(gradient, y, z, inverse, tol=tol, max_iterations=6)
        limit = LOST * tol * dim**0.5
        lost = ~(norm <= limit)  # NaN too: it starts anew, without the estimates, which it may have inherited
        if lost.any():
            z[lost], inverse[lost], norm[lost] = y[lost], start, limit
        return y, z, norm

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"y": self.y, "z": self.z, "inverse": self.inverse}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])
