"""Mixtures: Gaussian mixtures and point clouds, and the flow-matching velocities between them, in the log domain.

The velocity of a mixture of couplings is the posterior mean of the velocities of its components. Posterior weights are
computed as differences of log-densities, so they stay finite arbitrarily far in the tails.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base import randomness
from dynot_lite.laws.gaussian import Gaussian, cross_covariance, path_moments
from dynot_lite.laws.linear_algebra import log_normal, regress
from dynot_lite.paths.interpolants import LINEAR, Interpolant

__all__ = ["GaussianMixture", "fm_velocity_diracs", "fm_velocity_mixture"]


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """The law Σ_k w_k N(mean_k, cov_k).

    Args:
        weights: shape (K,), non-negative, of sum 1.
        means: shape (K, d).
        covs: shape (K, d, d), or (d, d) for all components.

    Raises:
        ValueError: weights that are not a probability vector, and everything :class:`~dynot_lite.laws.gaussian.Gaussian` raises.
    """

    weights: Tensor
    means: Tensor
    covs: Tensor

    def __post_init__(self):
        means = check.points(self.means, "means")
        components = Gaussian(means, check.as_tensor(self.covs, "covs", like=means))
        if components.mean.ndim != 2 or components.mean.shape != means.shape:
            raise ValueError(f"means must have shape (K, d) and covs (K, d, d), got {tuple(means.shape)}, {components.cov.shape}")
        object.__setattr__(self, "weights", check.weights(self.weights, means.shape[0], like=means))
        object.__setattr__(self, "means", means)
        object.__setattr__(self, "covs", components.cov)

    @property
    def components(self) -> Gaussian:
        """The K components as one batch."""
        return Gaussian(self.means, self.covs)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``n`` independent points, shape (n, d)."""
        component = randomness.choices(self.weights, n, generator=generator)
        noise = randomness.normal(n, self.means.shape[1], generator=generator, like=self.means)
        return self.means[component] + (self.components.factor[component] @ noise.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, x) -> Tensor:
        """Log-density at x, shape (n, d) -> (n,)."""
        return torch.logsumexp(self.weights.log().unsqueeze(-1) + self.components.log_prob(x), 0)


def fm_velocity_mixture(
    weights, means0, means1, cov0, cov1, t, x, *, cross_cov=None, interpolant: Interpolant = LINEAR
) -> Tensor:
    """The velocity E[dX_t/dt | X_t = x] for (X0, X1) ~ Σ_k w_k N((m0_k, m1_k), [[cov0_k, cross_k], [cross_kᵀ, cov1_k]]).

    Exercise 5 of the notes: Σ_k P(k | X_t = x) v_k(t, x), with the posterior P(k | X_t = x) ∝ w_k N(x; m_t_k, Σ_t_k), which
    depends on t, and v_k the velocity of component k (:func:`dynot_lite.laws.gaussian.fm_velocity`).

    Args:
        weights: shape (K,).
        means0, means1: shape (K, d).
        cov0, cov1: shape (K, d, d), or (d, d) for all components.
        t: a time, or one per point, shape (n,).
        x: points, shape (n, d).
        cross_cov: Cov(X0, X1) within each component, shape (K, d, d) or (d, d); None for zero.

    Returns:
        Velocities, shape (n, d).

    Raises:
        ValueError: bad weights, a joint covariance that is not positive semi-definite, a time at which some Cov(X_t) within a
            component is singular (then X_t has no density), shapes that do not fit.
    """
    means0 = check.points(means0, "means0")
    means1 = check.points(means1, "means1", dim=means0.shape[-1], like=means0)
    if means0.ndim != 2 or means1.shape != means0.shape:
        raise ValueError(f"means0 and means1 must have one shape (K, d), got {tuple(means0.shape)}, {tuple(means1.shape)}")
    weights = check.weights(weights, means0.shape[0], like=means0)
    p, q = Gaussian(means0, cov0), Gaussian(means1, cov1)
    x = check.points(x, "x", dim=p.dim, like=means0)
    t = check.time(t, n=x.shape[-2], like=means0)
    mean, d_mean, cov, cross = path_moments(p, q, t, cross_covariance(p, q, cross_cov), interpolant)
    per_point = t.ndim > 0
    centred = x - (mean if per_point else mean.unsqueeze(-2))
    posterior = torch.softmax(weights.log().unsqueeze(-1) + log_normal(centred, cov, per_point=per_point), 0)
    return (posterior.unsqueeze(-1) * regress(x, mean, d_mean, cov, cross, per_point=per_point)).sum(0)


def fm_velocity_diracs(points, t, x, *, weights=None) -> Tensor:
    """The velocity from N(0, I) to the point cloud Σ_k w_k δ_{y_k}, independent ends, linear path, t < 1.

    v_t(x) = Σ_k softmax_k(log w_k − ‖x − t y_k‖² / (2(1−t)²)) (y_k − x)/(1−t): the closing question of the notes. Its flow
    collapses on the points; its Lipschitz constant grows like (1−t)⁻³, so it has no value at t = 1.

    Args:
        points: shape (K, d).
        t: a time in [0, 1), or one per point x, shape (n,).
        x: shape (n, d).
        weights: shape (K,); None for equal weights.

    Returns:
        Velocities, shape (n, d).

    Raises:
        ValueError: t = 1, weights that are not a probability vector, shapes that do not fit.
    """
    points = check.points(points, "points")
    x = check.points(x, "x", dim=points.shape[-1], like=points)
    t = check.time(t, n=x.shape[-2], like=points)
    if (t == 1).any():
        raise ValueError("t must be less than 1: the velocity towards point masses is unbounded at t = 1")
    k = points.shape[0]
    weights = torch.full((k,), 1 / k).to(points) if weights is None else check.weights(weights, k, like=points)
    t = t.reshape(-1, 1)
    distance = (x.unsqueeze(-2) - t.unsqueeze(-1) * points).square().sum(-1)
    posterior = torch.softmax(weights.log() - distance / (2 * (1 - t) ** 2), -1)
    return (posterior @ points - x) / (1 - t)
