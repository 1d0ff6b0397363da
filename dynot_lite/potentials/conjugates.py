"""Conjugate points ∇Ψ*(y) of a potential that changes from step to step: a quasi-Newton solver and a rolling window of points.

A target point is drawn, its conjugate problem solved, and then visited a fixed number of times, a round of the window
apart, before a fresh one takes its place. It keeps its conjugate point and an estimate of the inverse Hessian there, so that
a visit costs few gradients, while the stream of fresh points leaves nothing to over-fit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Window:
    """``groups`` batches of target points; each point lives for ``visits`` visits of its group.

    Args:
        draw: n -> fresh target points, shape (n, d).
        tolerance: mean |∇Ψ(z) - y|/√d up to which a batch is solved at a visit.
    """

    def __init__(self, draw: Callable[[int], Tensor], like: Tensor, *, groups: int, batch: int, visits: int, tolerance: float):
        dim = len(like)
        self.draw, self.visits, self.tolerance = draw, visits, tolerance
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
            quasi_newton(gradient, y[fresh], z[fresh], inverse[fresh], tolerance=self.tolerance, max_steps=20)
        return y, z, quasi_newton(gradient, y, z, inverse, tolerance=self.tolerance, max_steps=6)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"y": self.y, "z": self.z, "inverse": self.inverse}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])


def quasi_newton(gradient, y: Tensor, z: Tensor, inverse: Tensor, *, tolerance: float, max_steps: int) -> Tensor:
    """BFGS for ∇Ψ(z) = y in each row, from z and the inverse Hessians, which are overwritten; the norms of the residuals.

    It looks at gradients only: values lose too many digits in float32. A step is taken unless its end is as steep, uphill, as its
    start was downhill; whether taken or not, it teaches the inverse Hessian its secant, which for a convex Ψ keeps it positive.
    """
    residual = gradient(z).sub_(y)
    threshold = tolerance * y.shape[1] ** 0.5
    norm = residual.norm(dim=1)
    for _ in range(max_steps):
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
