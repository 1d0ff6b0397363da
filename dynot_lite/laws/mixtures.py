"""Mixtures: Gaussian mixtures and point clouds, and the flow-matching velocities between them, in the log domain.

The velocity of a mixture of couplings is the posterior mean of the velocities of its components. Posterior weights are
computed as differences of log-densities, so they stay finite arbitrarily far in the tails.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base import randomness
from dynot_lite._base.differentiation import refuse_graph
from dynot_lite.laws.gaussian import Gaussian
from dynot_lite.laws.linear_algebra import cross_covariance, log_normal, path_moments, posterior, regress, representable
from dynot_lite.paths.interpolants import LINEAR, Interpolant

__all__ = ["GaussianMixture", "fm_velocity_diracs", "fm_velocity_mixture"]

PART = 2**22
"""So many numbers are held at once where components and points are paired."""


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
        """``n`` independent points, shape (n, d); ValueError for weights that require a gradient, of which a sample has none."""
        refuse_graph(self.weights, "weights")
        component = randomness.choices(self.weights, n, generator=generator)
        noise = randomness.normal(n, self.means.shape[1], generator=generator, like=self.means)
        return self.means[component] + (self.components.factor[component] @ noise.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, x) -> Tensor:
        """Log-density at x, shape (n, d) -> (n,)."""
        x = _points(x, self.means)
        return representable(posterior(self.weights, log_normal(x - self.means.unsqueeze(-2), self.covs))[1])

    def cdf(self, x) -> Tensor:
        """P(X ≤ x) on the line (d = 1), shape (n, 1) -> (n,); far to the right 1 − cdf loses digits: use that of −X.

        Variances may be zero; then covs that require a gradient are refused.
        """
        x, deviations = _points(x, self.means), self._deviations()
        if not (deviations > 0).all():
            refuse_graph(self.covs, "where a variance is zero, covs")
        z = (x - self.means[:, 0]) / torch.where(deviations > 0, deviations, 1.0)
        # Not torch.special.ndtr, which has absolute accuracy only.
        return torch.where(deviations > 0, 0.5 * torch.special.erfc(-z / 2**0.5), (z >= 0).to(z)) @ self.weights

    def quantile(self, levels) -> Tensor:
        """The points q with P(X ≤ q) = level on the line (d = 1), shape (n,) -> (n, 1), to rounding, in both tails.

        By bisection between the quantiles of the components. Raises ValueError for levels outside ]0, 1[, or that require a
        gradient, as the parameters must not.
        """
        levels = check.as_tensor(levels, "levels", like=self.means)
        for value, name in ((levels, "levels"), (self.weights, "weights"), (self.means, "means"), (self.covs, "covs")):
            refuse_graph(value, name)
        if levels.ndim != 1 or not len(levels) or ((levels <= 0) | (levels >= 1)).any():
            raise ValueError(f"levels must have shape (n,) and lie in ]0, 1[, got {tuple(levels.shape)}, {levels.tolist()}")
        deviations = self._deviations()
        ends = self.means[:, 0] + deviations * torch.special.ndtri(levels)[:, None]
        low, high = ends.amin(1), ends.amax(1)
        mirrored, upper = GaussianMixture(self.weights, -self.means, self.covs), levels > 0.5
        unit = torch.finfo(low.dtype).eps * deviations.amin()
        # Until the ends are neighbours, or closer than any component can tell.
        while ((low < (middle := 0.5 * low + 0.5 * high)) & (middle < high) & (high - low > unit)).any():
            short = torch.where(upper, mirrored.cdf(-middle[:, None]) > 1 - levels, self.cdf(middle[:, None]) < levels)
            low, high = torch.where(short, middle, low), torch.where(short, high, middle)
        return high[:, None]

    def _deviations(self) -> Tensor:
        if self.means.shape[1] != 1:
            raise ValueError(f"means must have dimension 1 for this, got {self.means.shape[1]}")
        return self.covs[:, 0, 0].sqrt()


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
        Velocities, shape (n, d); computed in parts of the points, since K n d numbers are needed (K n d² with a time per point).

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
    x = _points(x, means0)
    times = check.time(t, n=x.shape[-2], like=means0)
    cross_cov = cross_covariance(p.cov, q.cov, cross_cov)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        per_point = t.ndim > 0
        mean, d_mean, cov, cross = path_moments(t, interpolant, p.mean, q.mean, p.cov, q.cov, cross_cov)
        centred = x - (mean if per_point else mean.unsqueeze(-2))
        shares, _ = posterior(weights, log_normal(centred, cov, per_point=per_point))
        return (shares.unsqueeze(-1) * regress(x, mean, d_mean, cov, cross, per_point=per_point)).sum(0)

    rows = max(1, PART // (means0.numel() * (p.dim if times.ndim else 1)))
    parts = zip(x.split(rows), times.split(rows) if times.ndim else itertools.repeat(times), strict=False)
    return representable(torch.cat([velocity(*part) for part in parts]))


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
        Velocities, shape (n, d). Memory: a few arrays of n K numbers, none of n K d.

    Raises:
        ValueError: t = 1, weights that are not a probability vector, shapes that do not fit.
    """
    points = check.points(points, "points")
    if points.ndim != 2:
        raise ValueError(f"points must have shape (K, d), got {tuple(points.shape)}")
    x = _points(x, points)
    t = check.time(t, n=x.shape[-2], like=points)
    if (t == 1).any():
        raise ValueError("t must be less than 1: the velocity towards point masses is unbounded at t = 1")
    k = points.shape[0]
    weights = torch.full((k,), 1 / k).to(points) if weights is None else check.weights(weights, k, like=points)
    t = t.reshape(-1, 1)
    shares, _ = posterior(weights, -(_squared_distances(points, t, x) / (2 * (1 - t) ** 2)).mT)
    return representable((shares.mT @ points - x) / (1 - t))


def _squared_distances(points: Tensor, t: Tensor, x: Tensor) -> Tensor:
    """‖x_i − t_i y_k‖², (n, K), up to a number for each i.

    Close to the points by differences, since squares of size ‖y‖² leave an error that (1−t)² magnifies; far from all of them by
    products, since ‖x‖² would. Derivatives are those of the products: no array of n K d numbers.
    """
    centre = points.mean(0)
    y, z = points - centre, x - t * centre
    products = t**2 * y.square().sum(-1) - 2 * t * (z @ y.mT)
    value, y, z, t = products.detach(), y.detach(), z.detach(), t.detach()
    near = torch.linalg.vector_norm(z, dim=-1, keepdim=True) < 2 * t * torch.linalg.vector_norm(y, dim=-1).amax()
    apart = torch.cdist(z / torch.where(near, t, 1.0), y, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.where(near, (t * apart).square(), value) + (products - value)


def _points(x, means: Tensor) -> Tensor:
    x = check.points(x, "x", dim=means.shape[-1], like=means)
    if x.ndim != 2:
        raise ValueError(f"x must have shape (n, d), got {tuple(x.shape)}")
    return x
