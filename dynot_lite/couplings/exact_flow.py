"""The exact flow of the pairs of a semidiscrete coupling with ε > 0 and normal noise: its velocity and its score."""

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite.couplings.atoms import batch
from dynot_lite.couplings.semidiscrete import SemidiscreteCoupling

__all__ = ["ExactFlow"]


class ExactFlow:
    """The flow of X_t = (1−t)x0 + t x1 in closed form, (x0, x1) the pairs of a fitted coupling as it is now, in float64.

    X_t = x leaves N cases: x1 = y_j and x0 = u_j = (x − t y_j)/(1−t), with probabilities in proportion to φ(u_j) s_j(u_j),
    φ the normal density and s the softmax that assigns. For n points work and memory are n N²: for small N. Differentiable in x.

    Raises:
        ValueError: ε = 0 (X_t then has no density between the images of the cells, and inside them the velocity is
            y_j − u_j), noise that is not normal. RuntimeError: a coupling that is not fitted.
    """

    def __init__(self, coupling: SemidiscreteCoupling):
        if coupling.scores().noise.law != "normal" or not coupling.epsilon:
            raise ValueError("the closed form of the flow needs epsilon > 0 and normal noise")
        y, b = coupling.points.flatten(1).double(), coupling.weights
        self._like, self._epsilon, self._y, self._log_b = coupling.points, coupling.epsilon, y, b.log()
        self._centred, self._heights = y - b @ y, coupling.potentials - 0.5 * y.square().sum(1)

    def _posterior(self, t, x) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """t as (1 or n, 1), x − t y_j over 1−t (n, N, d), P(x1 = y_j | X_t = x) (n, N, 1), log s_k(u_j) (n, N, N)."""
        x = batch(x, "x", like=self._like).flatten(1).double()
        t = check.time(t, n=len(x), like=x).reshape(-1, 1)
        if (t == 1).any():
            raise ValueError("t must be less than 1: the velocity towards point masses is unbounded at t = 1")
        u = (x[:, None] - t[..., None] * self._y) / (1 - t[..., None])
        if not check.finite(squares := u.square().sum(-1)):
            raise ValueError("x must have finite squared distances from the points")
        log_shares = torch.log_softmax((u @ self._centred.T + self._heights) / self._epsilon + self._log_b, -1)
        own = log_shares.diagonal(dim1=1, dim2=2)  # log s_j(u_j)
        return t, u, torch.softmax(own - 0.5 * squares, 1)[..., None], log_shares

    def velocity(self, t, x) -> Tensor:
        """E[x1 − x0 | X_t = x] for t < 1, a scalar or (n,), and x of the shape of the points, (n, ...)."""
        _, u, posterior, _ = self._posterior(t, x)
        return (posterior * (self._y - u)).sum(1).reshape(-1, *self._like.shape[1:])

    def score(self, t, x) -> Tensor:
        """∇ log ρ_t(x) = (t v_t(x) − x + δ(x))/(1−t), with δ(x) = E[x1 − Σ_k s_k(x0) y_k | X_t = x]/ε; arguments of ``velocity``.

        From ρ_t(x) ∝ Σ_j φ(u_j) s_j(u_j): the gradient of log φ(u_j) is −u_j/(1−t), whose mean is (t v_t − x)/(1−t), and that
        of log s_j is δ. For independent pairs (ε → ∞) it is Tweedie's formula. The form quoted in notes on arXiv 2509.25519,
        (t v_t − x + (1−t)δ)/(1−t)², differs from this by factors of 1−t and is not the score.
        """
        t, u, posterior, log_shares = self._posterior(t, x)
        delta = (posterior * (self._y - log_shares.exp() @ self._y)).sum(1) / self._epsilon
        return ((delta - (posterior * u).sum(1)) / (1 - t)).reshape(-1, *self._like.shape[1:])
