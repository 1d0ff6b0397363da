"""Optimal flow matching: flow matching restricted to the straight-line fields of convex potentials (arXiv 2403.13117)."""

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite.potentials.convex import ConvexPotential

__all__ = ["ofm_loss"]


def ofm_loss(potential: ConvexPotential, x0, x1, times, *, quadrature=None) -> Tensor:
    """The loss E|u_t(x_t) - (x1 - x0)|² over pairs and times, with x_t = (1 - t) x0 + t x1 (no ½).

    u_t(x) = ∇Ψ(z) - z, z being the point whose flow passes through x at time t. Integrated over t in [0, 1] the loss is
    2 L_OT(Ψ) - 2 E<x0, x1> for every coupling of the pairs, so for uniform times its gradient is an unbiased, noisier estimate
    of twice the gradient of ``dual.semidual_loss``. The gradient in the parameters is exact, by the implicit function theorem.

    Args:
        potential: Ψ.
        x0, x1: pairs of points, shape (n, d).
        times: in [0, 1]; one for all pairs, one for each pair, shape (n,), or k times for every pair, shape (k, 1) or (k, n).
        quadrature: weights of the k times, of sum 1; equal ones (the mean) if left out.

    Returns:
        The mean over pairs and times, a scalar.

    Raises:
        ValueError: bad input or a potential that is not convex. RuntimeError: a point z is not solved.
    """
    x0 = check.squares(check.cloud(x0, "x0", dim=potential.dim, like=next(potential.parameters(), None)), "x0")
    x1 = check.squares(check.cloud(x1, "x1", like=x0), "x1")
    if x0.shape != x1.shape:
        raise ValueError(f"x0 and x1 must be pairs of one shape (n, d), got {tuple(x0.shape)} and {tuple(x1.shape)}")
    times = check.as_tensor(times, "times", like=x0)
    if times.ndim > 2 or 0 in times.shape or times.shape[-1:] not in ((), (1,), (len(x0),)):
        raise ValueError(f"times must be a scalar or of shape ({len(x0)},), (k, 1) or (k, {len(x0)}), got {tuple(times.shape)}")
    check.time(times.flatten(), "times", n=times.numel())
    times = torch.broadcast_to(times, (*times.shape[:-1], len(x0)) if times.ndim else (len(x0),))
    x_t = x0 + times[..., None] * (x1 - x0)
    z = potential.inverse_flow(times.flatten(), x_t.flatten(0, -2)).reshape(x_t.shape)
    errors = (potential.gradient(z.flatten(0, -2)).reshape(x_t.shape) - z - (x1 - x0)).square().sum(-1)
    if quadrature is None:
        return errors.mean()
    if times.ndim != 2:
        raise ValueError(f"quadrature needs times of shape (k, 1) or (k, n), got {tuple(times.shape)}")
    return check.weights(quadrature, len(times), "quadrature", like=x0) @ errors.mean(-1)
