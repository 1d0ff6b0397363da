"""Two laws at once: couplings that are Gaussian mixtures, the laws on their way, and the field of McCann's interpolation."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base import randomness
from dynot_lite._base.differentiation import refuse_graph
from dynot_lite.laws.gaussian import Gaussian, monge_map
from dynot_lite.laws.linear_algebra import cross_covariance, path_moments, representable
from dynot_lite.laws.mixtures import GaussianMixture, fm_velocity_mixture
from dynot_lite.paths.interpolants import LINEAR, Interpolant

__all__ = ["MixtureCoupling", "fm_law", "mccann_velocity"]


def fm_law(p: Gaussian, q: Gaussian, t: float, *, cross_cov=None, interpolant: Interpolant = LINEAR) -> Gaussian:
    """The law of X_t = α X0 + β X1 for jointly Gaussian ends: N(α m0 + β m1, α² A + αβ (C + Cᵀ) + β² B).

    Args:
        t: a time in [0, 1].
        cross_cov: C = Cov(X0, X1), shape (..., d, d), not symmetric in general; None for independent ends.

    Raises:
        ValueError: a time outside [0, 1], a cross-covariance that makes the joint covariance indefinite, other dimensions.

    >>> fm_law(Gaussian([0.0], [[1.0]]), Gaussian([2.0], [[4.0]]), 0.5).cov
    tensor([[1.2500]], dtype=torch.float64)
    """
    if p.dim != q.dim:
        raise ValueError(f"p and q must have one dimension, got {p.dim} and {q.dim}")
    check.batch("p and q", p.mean.shape, q.mean.shape)
    time = check.time(t, like=p.mean)
    cross_cov = cross_covariance(p.cov, q.cov.to(p.cov), cross_cov)
    mean, _, cov, _ = path_moments(time, interpolant, p.mean, q.mean.to(p.mean), p.cov, q.cov.to(p.cov), cross_cov)
    return Gaussian(mean, cov)


def mccann_velocity(p: Gaussian, q: Gaussian) -> Callable[[float, Tensor], Tensor]:
    """The velocity v(t, x) of McCann's interpolation: v_t(T_t(x)) = T(x) − x with T_t = (1 − t) Id + t T, T optimal.

    Affine in x: the field of least energy ∫E|v_t|² dt = W₂² that moves p to q. For t < 1 if q is singular.

    Raises:
        ValueError: laws without an affine optimal map (p singular where q is not); from the field, a time outside [0, 1], or
            one at which T_t cannot be inverted.
    """
    transport = monge_map(p, q)

    def velocity(t: float, x: Tensor) -> Tensor:
        time = check.time(t, like=p.mean)
        if time == 1 and not q.definite:
            raise ValueError("t must be a time at which the interpolation can be inverted: less than 1, where q is singular")
        eye = torch.eye(p.dim).to(transport.matrix)
        way = (1 - time) * eye + time * transport.matrix
        x = check.points(x, "x", dim=p.dim, like=p.mean)
        check.batch("x and the laws", x.shape[:-2], way.shape[:-2])
        start = torch.linalg.solve(way, (x - time * transport.offset.unsqueeze(-2)).mT).mT
        return representable(transport(start) - start)

    return velocity


@dataclass(frozen=True, eq=False)
class MixtureCoupling:
    """The coupling (X0, X1) ~ Σ_k w_k N((m0_k, m1_k), [[A_k, C_k], [C_kᵀ, B_k]]): flow matching in closed form for every path.

    Args:
        weights: shape (K,), non-negative, of sum 1.
        means0, means1: shape (K, d).
        cov0, cov1: A and B, shape (K, d, d), or (d, d) for all components.
        cross_cov: C_k = Cov(X0, X1) within a component, (K, d, d) or (d, d); None for zero (independent within a component).

    Raises:
        ValueError: weights that are not a probability vector, a joint covariance that is not positive semi-definite, shapes that
            do not fit.

    >>> crossing = MixtureCoupling([0.5, 0.5], [[-1.0], [1.0]], [[1.0], [-1.0]], [[0.01]], [[0.01]])
    >>> crossing.velocity(0.5, torch.zeros(1, 1)).abs().item() < 1e-12
    True
    """

    weights: Tensor
    means0: Tensor
    means1: Tensor
    cov0: Tensor
    cov1: Tensor
    cross_cov: Tensor | None = None

    def __post_init__(self):
        means0 = check.cloud(self.means0, "means0")
        means1 = check.cloud(self.means1, "means1", dim=means0.shape[1], like=means0)
        if means1.shape != means0.shape:
            raise ValueError(f"means0 and means1 must have one shape, got {tuple(means0.shape)} and {tuple(means1.shape)}")
        start, end = (GaussianMixture(self.weights, m, c) for m, c in ((means0, self.cov0), (means1, self.cov1)))
        cross = cross_covariance(start.covs, end.covs, self.cross_cov)
        if cross.ndim > 3:
            raise ValueError(f"cross_cov must have shape (K, d, d) or (d, d), got {tuple(cross.shape)}")
        cross = cross.expand_as(start.covs)
        values = {"weights": start.weights, "means0": start.means, "means1": end.means, "cov0": start.covs, "cov1": end.covs}
        for name, value in (values | {"cross_cov": cross}).items():
            object.__setattr__(self, name, value)

    def velocity(self, t, x, *, interpolant: Interpolant = LINEAR) -> Tensor:
        """E[dX_t/dt | X_t = x], shape (n, d): :func:`dynot_lite.laws.mixtures.fm_velocity_mixture`."""
        ends = (self.weights, self.means0, self.means1, self.cov0, self.cov1)
        return fm_velocity_mixture(*ends, t, x, cross_cov=self.cross_cov, interpolant=interpolant)

    def law(self, t: float, *, interpolant: Interpolant = LINEAR) -> GaussianMixture:
        """The law of X_t, a mixture of K components."""
        components = fm_law(
            Gaussian(self.means0, self.cov0),
            Gaussian(self.means1, self.cov1),
            t,
            cross_cov=self.cross_cov,
            interpolant=interpolant,
        )
        return GaussianMixture(self.weights, components.mean, components.cov)

    def product(self) -> "MixtureCoupling":
        """The independent coupling of the same two laws: K² components."""
        first, second = (index.flatten() for index in torch.meshgrid(*[torch.arange(len(self.weights))] * 2, indexing="ij"))
        weights = self.weights[first] * self.weights[second]
        return MixtureCoupling(weights, self.means0[first], self.means1[second], self.cov0[first], self.cov1[second])

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """``n`` independent pairs x0, x1, shape (n, d): a pair sampler. ValueError for parameters that require a gradient."""
        for name in ("weights", "means0", "means1", "cov0", "cov1", "cross_cov"):
            refuse_graph(getattr(self, name), name)
        cross = cross_covariance(self.cov0, self.cov1, self.cross_cov)
        upper, lower = torch.cat([self.cov0, cross], -1), torch.cat([cross.mT, self.cov1], -1)
        joint = Gaussian(torch.cat([self.means0, self.means1], -1), torch.cat([upper, lower], -2))
        k = randomness.choices(self.weights, check.count(n, "n"), generator=generator)
        noise = randomness.normal(n, joint.dim, generator=generator, like=joint.mean)
        pairs = joint.mean[k] + (joint.factor[k] @ noise.unsqueeze(-1)).squeeze(-1)
        return pairs[:, : joint.dim // 2].contiguous(), pairs[:, joint.dim // 2 :].contiguous()
