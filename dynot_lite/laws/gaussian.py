"""Gaussian laws: everything about transport and flow matching between them that has a closed form.

A batch of Gaussians has a mean of shape (..., d) and a covariance of shape (..., d, d); points then have the shape (..., n, d).
A and B below are the covariances of p and q, C = Cov(X0, X1) is ``cross_cov``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.integrate import quad_vec, solve_ivp
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base import randomness
from dynot_lite.laws.linear_algebra import log_normal, polar, regress, square_root
from dynot_lite.paths.interpolants import LINEAR, TRIGONOMETRIC, Interpolant

__all__ = [
    "Affine",
    "EntropicPlan",
    "Gaussian",
    "SchroedingerBridge",
    "entropic_plan",
    "fm_flow",
    "fm_kinetic_energy",
    "fm_velocity",
    "geodesic",
    "monge_map",
    "schroedinger_bridge",
    "w2_squared",
]


@dataclass(frozen=True, eq=False)
class Gaussian:
    """The law N(mean, cov), or a batch of such laws; the covariance may be singular.

    Args:
        mean: shape (..., d).
        cov: shape (..., d, d), symmetric positive semi-definite.

    Attributes:
        factor: a square root F of the covariance, F Fᵀ = cov, shape (..., d, d); lower triangular where cov is definite.
        definite: whether the covariance (all of the batch) is positive definite beyond rounding.

    Raises:
        ValueError: entries that are not finite, shapes that do not fit, a covariance that is not symmetric or not positive
            semi-definite.

    >>> Gaussian([0.0, 0.0], [[2.0, 0.6], [0.6, 1.0]]).log_prob([[0.0, 0.0]])
    tensor([-2.0852], dtype=torch.float64)
    """

    mean: Tensor
    cov: Tensor
    factor: Tensor = field(init=False, repr=False)
    definite: bool = field(init=False, repr=False)

    def __post_init__(self):
        mean = check.as_tensor(self.mean, "mean")
        if mean.ndim == 0 or 0 in mean.shape:
            raise ValueError(f"mean must have shape (..., d) with d > 0, got {tuple(mean.shape)}")
        cov = check.covariance(self.cov, "cov", dim=mean.shape[-1], like=mean)
        try:
            batch = torch.broadcast_shapes(mean.shape[:-1], cov.shape[:-2])
        except RuntimeError as error:
            raise ValueError(f"mean and cov must have compatible batches, got {tuple(mean.shape)}, {tuple(cov.shape)}") from error
        dim = mean.shape[-1]
        mean, cov = mean.expand(*batch, dim), cov.expand(*batch, dim, dim)
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "cov", cov)
        root, definite = square_root(cov)
        object.__setattr__(self, "factor", root)
        object.__setattr__(self, "definite", definite)

    @property
    def dim(self) -> int:
        """The dimension d."""
        return self.mean.shape[-1]

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``n`` independent points, shape (..., n, d)."""
        check.count(n, "n")
        noise = randomness.normal(*self.mean.shape[:-1], n, self.dim, generator=generator, like=self.mean)
        return self.mean.unsqueeze(-2) + noise @ self.factor.mT

    def log_prob(self, x) -> Tensor:
        """Log-density at x, shape (..., n, d) -> (..., n); raises ValueError if the covariance is singular."""
        x = check.points(x, "x", dim=self.dim, like=self.mean)
        return log_normal(x - self.mean.unsqueeze(-2), self.cov)

    def quadrature(self, order: int = 20) -> tuple[Tensor, Tensor]:
        """Gauss–Hermite nodes (order**d, d) and weights (order**d,): exact for polynomials of degree < 2 order in each variable.

        Raises ValueError for a batch, or for more than 10⁶ nodes.
        """
        check.count(order, "order")
        if self.mean.ndim > 1 or order**self.dim > 10**6:
            raise ValueError(f"quadrature needs one Gaussian and order**d ≤ 10**6, got {tuple(self.mean.shape)}, order {order}")
        nodes, weights = (torch.as_tensor(a).to(self.mean) for a in np.polynomial.hermite_e.hermegauss(order))
        weights = weights / weights.sum()
        grid = torch.cartesian_prod(*[nodes] * self.dim).reshape(-1, self.dim)
        product = torch.cartesian_prod(*[weights] * self.dim).reshape(-1, self.dim).prod(-1)
        return self.mean + grid @ self.factor.mT, product


@dataclass(frozen=True, eq=False)
class Affine:
    """The map x ↦ matrix x + offset on points of shape (..., n, d).

    >>> Affine(torch.tensor([[2.0]]), torch.tensor([1.0]))(torch.tensor([[3.0]]))
    tensor([[7.]])
    """

    matrix: Tensor
    offset: Tensor

    def __call__(self, x) -> Tensor:
        x = check.points(x, "x", dim=self.offset.shape[-1], like=self.offset)
        return x @ self.matrix.mT + self.offset.unsqueeze(-2)

    def push_forward(self, p: Gaussian) -> Gaussian:
        """The image of the Gaussian ``p``."""
        return Gaussian((self.matrix @ p.mean.unsqueeze(-1)).squeeze(-1) + self.offset, self.matrix @ p.cov @ self.matrix.mT)


def w2_squared(p: Gaussian, q: Gaussian) -> Tensor:
    """W₂²(p, q) = ‖m0 − m1‖² + tr A + tr B − 2 tr (A^½ B A^½)^½, without ½.

    Evaluated as the expected squared distance of the optimal coupling, a sum of squares: never negative, exact zero-distance
    behaviour, no cancellation, singular covariances included.

    Returns:
        The batch shape of p and q.

    >>> w2_squared(Gaussian([0.0], [[1.0]]), Gaussian([1.0], [[4.0]])).item()
    2.0
    """
    start, end = _optimal_factors(p, q)
    return ((p.mean - q.mean) ** 2).sum(-1) + ((start - end) ** 2).sum((-2, -1))


def monge_map(p: Gaussian, q: Gaussian) -> Affine:
    """The optimal map T(x) = m1 + A^{-½}(A^½ B A^½)^½ A^{-½} (x − m0) for the quadratic cost: symmetric, and T_# p = q.

    The push-forward is exact to rounding at any condition number; the symmetry holds to the rounding of the entries.

    Raises:
        ValueError: p has a singular covariance, where a transport map need not exist (q may be singular).
    """
    _require_definite(p, "p")
    start, end = _optimal_factors(p, q)
    matrix = torch.linalg.solve_triangular(start.mT, end.mT, upper=True).mT  # from the left it is faster
    return Affine(matrix, q.mean - (matrix @ p.mean.unsqueeze(-1)).squeeze(-1))


def geodesic(p: Gaussian, q: Gaussian, t: float) -> Gaussian:
    """McCann's interpolation at time t: the law of (1 − t)X0 + tX1 for the optimal coupling; W₂(μ_s, μ_t) = |s − t| W₂(p, q)."""
    time = check.time(t, like=p.mean)
    start, end = _optimal_factors(p, q)
    factor = (1 - time) * start + time * end
    return Gaussian((1 - time) * p.mean + time * q.mean, factor @ factor.mT)


def fm_velocity(p: Gaussian, q: Gaussian, t, x, *, cross_cov=None, interpolant: Interpolant = LINEAR) -> Tensor:
    """The flow-matching velocity v_t(x) = E[dX_t/dt | X_t = x] of jointly Gaussian ends, X_t = α X0 + β X1.

    With Σ_t = Cov(X_t), v_t(x) = ṁ_t + (αα'A + α'βC + αβ'Cᵀ + ββ'B) Σ_t⁻¹ (x − m_t): exercise 4(a) of the notes, in the
    form that holds at t = 1 too, for means, for any interpolant and any cross-covariance.

    Args:
        t: a time, or one per point, shape (n,).
        x: points, shape (..., n, d).
        cross_cov: Cov(X0, X1), shape (..., d, d), not symmetric in general; None for independent ends.

    Returns:
        Velocities of the shape of x. Where Σ_t is singular, x must lie on the support of X_t.

    Raises:
        ValueError: a time outside [0, 1], a cross-covariance that makes the joint covariance indefinite, a point off the
            support of X_t, shapes that do not fit.
    """
    _require_same_space(p, q)
    x = check.points(x, "x", dim=p.dim, like=p.mean)
    t = check.time(t, n=x.shape[-2], like=p.mean)
    mean, d_mean, cov, cross = path_moments(p, q, t, cross_covariance(p, q, cross_cov), interpolant)
    return regress(x, mean, d_mean, cov, cross, per_point=t.ndim > 0)


def fm_flow(p: Gaussian, q: Gaussian, t: float, *, cross_cov=None, interpolant: Interpolant = LINEAR) -> Affine:
    """The flow φ_t of :func:`fm_velocity` from time 0 to t.

    Independent ends: with A = GGᵀ and B = GDGᵀ (D diagonal), φ_t(x) = m_t + G (α² + β²D)^½ G⁻¹ (x − m0); in particular
    φ_1 = m1 + (BA⁻¹)^½ (x − m0), the optimal map if and only if A and B commute. A given ``cross_cov``: the linear
    differential equation of the matrix, solved by an eighth-order method to a relative tolerance of 1e-13.

    Raises:
        ValueError: a singular source covariance, and everything :func:`fm_velocity` raises.
        RuntimeError: the differential equation could not be solved (X_t degenerates on the way).
    """
    _require_same_space(p, q)
    _require_definite(p, "p")
    time = check.time(t, like=p.mean)
    if cross_cov is None:
        left, values, _ = torch.linalg.svd(torch.linalg.solve_triangular(p.factor, q.factor, upper=False))
        basis = p.factor @ left
        alpha, beta, _, _ = interpolant.coefficients(time)
        scale = torch.sqrt(alpha**2 + (beta * values) ** 2).unsqueeze(-2)
        matrix = (basis * scale) @ left.mT @ torch.linalg.inv(p.factor)
    else:
        matrix = _solve_flow(p, q, float(time), cross_covariance(p, q, cross_cov), interpolant)
        alpha, beta, _, _ = interpolant.coefficients(time)
    return Affine(matrix, alpha * p.mean + beta * q.mean - (matrix @ p.mean.unsqueeze(-1)).squeeze(-1))


def fm_kinetic_energy(p: Gaussian, q: Gaussian, *, cross_cov=None, interpolant: Interpolant = LINEAR) -> Tensor:
    """The kinetic energy ∫₀¹ E‖v_t(X_t)‖² dt (no ½) of :func:`fm_velocity`.

    Independent ends, A#B the geometric mean: ‖m1 − m0‖² + tr A + tr B − (π/2) tr A#B on the linear path,
    (π²/8)(‖m0‖² + ‖m1‖² + tr A + tr B − 2 tr A#B) − (π/2)⟨m0, m1⟩ on the trigonometric one. Otherwise adaptive
    Gauss–Kronrod quadrature to a relative error of 1e-10.

    Returns:
        The batch shape of p and q.

    Raises:
        ValueError: a cross-covariance that makes the joint covariance indefinite.
        RuntimeError: the quadrature did not reach its tolerance (the energy may be infinite).
    """
    _require_same_space(p, q)
    cross = cross_covariance(p, q, cross_cov)
    if cross_cov is None and interpolant in (LINEAR, TRIGONOMETRIC):
        traces = (p.cov + q.cov).diagonal(dim1=-2, dim2=-1).sum(-1)
        geometric = _trace_geometric_mean(p, q)
        if interpolant is LINEAR:
            return ((q.mean - p.mean) ** 2).sum(-1) + traces - 0.5 * math.pi * geometric
        squares, product = (p.mean**2 + q.mean**2).sum(-1), (p.mean * q.mean).sum(-1)
        return math.pi**2 / 8 * (squares + traces - 2 * geometric) - 0.5 * math.pi * product

    def power(t: float) -> np.ndarray:
        _, d_mean, cov, cross_t = path_moments(p, q, torch.tensor(t, dtype=torch.float64).to(p.mean), cross, interpolant)
        gain = cross_t @ torch.linalg.pinv(cov, hermitian=True)
        return ((d_mean**2).sum(-1) + (gain * cross_t).sum((-2, -1))).numpy(force=True)

    energy, error, info = quad_vec(power, 0.0, 1.0, epsabs=1e-13, epsrel=1e-11, limit=100, norm="max", full_output=True)
    if not error <= 1e-10 * max(1.0, float(np.abs(energy).max())):
        raise RuntimeError(f"the energy did not converge: {info.message} (estimated error {error:.1e})")
    return torch.as_tensor(energy).to(p.mean)


@dataclass(frozen=True, eq=False)
class EntropicPlan:
    """The entropic plan of two Gaussians: ``cross_cov`` = Cov(X0, X1), and ``cost`` = min E ½‖X0 − X1‖² + ε KL(π ‖ p⊗q)."""

    cross_cov: Tensor
    cost: Tensor


def entropic_plan(p: Gaussian, q: Gaussian, epsilon: float) -> EntropicPlan:
    """The Gaussian plan that minimises E_π ½‖x − y‖² + ε KL(π ‖ p⊗q), in closed form.

    Cov(X0, X1) = A^½ (A^½BA^½ + ε²/4)^½ A^{-½} − ε/2, here without inverses and without cancellation, so that singular
    covariances and small ε are fine; if both covariances are definite, the off-diagonal block of the joint precision is −I/ε.
    (Janati, Muzellec, Peyré, Cuturi 2020, with the cost ‖x − y‖² and σ² there; here the cost has the ½.)

    Raises:
        ValueError: epsilon is not a positive number.
    """
    _require_same_space(p, q)
    half = 0.5 * check.positive(epsilon, "epsilon")
    values, basis = torch.linalg.eigh(p.factor.mT @ q.cov @ p.factor)
    root = torch.sqrt(values.clamp_min(0) + half**2)
    inverse = (basis / (root + half).unsqueeze(-2)) @ basis.mT
    cross_cov = p.factor @ inverse @ p.factor.mT @ q.cov
    traces = (p.cov + q.cov).diagonal(dim1=-2, dim2=-1).sum(-1)
    transport = 0.5 * (((p.mean - q.mean) ** 2).sum(-1) + traces) - (root - half).sum(-1)
    information = 0.5 * torch.log((root + half) / (2 * half)).sum(-1)
    return EntropicPlan(cross_cov, transport + 2 * half * information)


@dataclass(frozen=True, eq=False)
class SchroedingerBridge:
    """The bridge from p to q of the reference σ × Brownian motion; ``cross_cov`` = Cov(X0, X1) of its static plan."""

    p: Gaussian
    q: Gaussian
    sigma: float
    cross_cov: Tensor
    energy: Tensor
    """½∫E‖u_t‖² dt of the drift u, equal to σ² KL(π ‖ R01), R01 the law of the ends of the reference started at p."""

    def marginal(self, t: float) -> Gaussian:
        """The law of X_t, of covariance (1−t)²A + t²B + t(1−t)(C + Cᵀ + σ²I)."""
        mean, _, cov, _ = self._moments(check.time(t, like=self.p.mean))
        return Gaussian(mean, cov)

    def drift(self, t, x) -> Tensor:
        """The drift u_t(x) of dX = u_t(X) dt + σ dW, (n, d) -> (n, d): a gradient field, valid at t = 0 and t = 1 too."""
        return self._field(t, x, -0.5 * self.sigma**2)

    def velocity(self, t, x) -> Tensor:
        """The current velocity v = u − (σ²/2)∇ log ρ_t, which solves the continuity equation of the marginals."""
        return self._field(t, x, 0.0)

    def _moments(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, d_mean, cov, cross = path_moments(self.p, self.q, t, self.cross_cov, LINEAR)
        eye = torch.eye(self.p.dim).to(cov)
        t = t.reshape(*t.shape, 1, 1)
        # A Brownian bridge of variance σ²t(1−t) rides on the line; half its rate of variance, σ²(1−2t)/2, enters the velocity.
        return mean, d_mean, cov + t * (1 - t) * self.sigma**2 * eye, cross + 0.5 * (1 - 2 * t) * self.sigma**2 * eye

    def _field(self, t, x, noise: float) -> Tensor:
        x = check.points(x, "x", dim=self.p.dim, like=self.p.mean)
        t = check.time(t, n=x.shape[-2], like=self.p.mean)
        mean, d_mean, cov, cross = self._moments(t)
        return regress(x, mean, d_mean, cov, cross + noise * torch.eye(self.p.dim).to(cov), per_point=t.ndim > 0)


def schroedinger_bridge(p: Gaussian, q: Gaussian, sigma: float) -> SchroedingerBridge:
    """The Schrödinger bridge between two Gaussians: the static plan is :func:`entropic_plan` with ε = σ².

    Raises:
        ValueError: sigma is not a positive number, or q has a singular covariance (the relative entropy is infinite).
    """
    variance = check.positive(sigma, "sigma") ** 2
    _require_definite(q, "q")
    plan = entropic_plan(p, q, variance)
    entropy = 0.5 * (torch.logdet(q.cov) + q.dim * math.log(2 * math.pi * math.e))
    energy = plan.cost - variance * entropy + 0.5 * variance * q.dim * math.log(2 * math.pi * variance)
    return SchroedingerBridge(p, q, float(sigma), plan.cross_cov, energy)


def path_moments(
    p: Gaussian, q: Gaussian, t: Tensor, cross_cov: Tensor, interpolant: Interpolant
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """E X_t, its derivative, Cov(X_t) and Cov(dX_t/dt, X_t); one leading entry per time if t has shape (n,)."""
    mean0, mean1, cov0, cov1 = p.mean, q.mean, p.cov, q.cov
    alpha, beta, d_alpha, d_beta = interpolant.coefficients(t)
    if t.ndim:
        mean0, mean1 = mean0.unsqueeze(-2), mean1.unsqueeze(-2)
        cov0, cov1, cross_cov = cov0.unsqueeze(-3), cov1.unsqueeze(-3), cross_cov.unsqueeze(-3)
    a, b, da, db = (c.unsqueeze(-1) for c in (alpha, beta, d_alpha, d_beta))
    mean, d_mean = a * mean0 + b * mean1, da * mean0 + db * mean1
    a, b, da, db = (c.unsqueeze(-1) for c in (a, b, da, db))
    cov = a**2 * cov0 + b**2 * cov1 + a * b * (cross_cov + cross_cov.mT)
    cross = a * da * cov0 + b * db * cov1 + da * b * cross_cov + a * db * cross_cov.mT
    return mean, d_mean, cov, cross


def _optimal_factors(p: Gaussian, q: Gaussian) -> tuple[Tensor, Tensor]:
    """F and G such that X0 = m0 + FZ, X1 = m1 + GZ, Z standard normal, is the optimal coupling of p and q.

    F is the factor of p, and G = F_q R with the rotation R that maximises E⟨FZ, F_q RZ⟩ = tr(Fᵀ F_q R) (Procrustes).
    """
    _require_same_space(p, q)
    return p.factor, q.factor @ polar(p.factor.mT @ q.factor, definite=p.definite and q.definite).mT


def _trace_geometric_mean(p: Gaussian, q: Gaussian) -> Tensor:
    """tr A#B, as tr F (F⁻¹ B F⁻ᵀ)^½ Fᵀ; by symmetry the definite one of the two covariances is inverted."""
    if not p.definite:
        p, q = q, p
    if not p.definite:
        raise ValueError(
            "p or q must have a definite covariance: the geometric mean of two singular ones has no closed form here"
        )
    left, values, _ = torch.linalg.svd(torch.linalg.solve_triangular(p.factor, q.factor, upper=False))
    basis = p.factor @ left
    return (basis**2 * values.unsqueeze(-2)).sum((-2, -1))


def _solve_flow(p: Gaussian, q: Gaussian, t: float, cross_cov: Tensor, interpolant: Interpolant) -> Tensor:
    """The matrix M of dM/dt = Cov(dX_t/dt, X_t) Cov(X_t)⁻¹ M, M(0) = I."""
    shape = torch.broadcast_shapes(p.cov.shape, q.cov.shape, cross_cov.shape)

    def right_side(s: float, flat: np.ndarray) -> np.ndarray:
        _, _, cov, cross = path_moments(p, q, torch.tensor(s, dtype=torch.float64).to(p.mean), cross_cov, interpolant)
        matrix = torch.as_tensor(flat.reshape(shape)).to(cov)
        return (cross @ torch.linalg.solve(cov, matrix)).numpy(force=True).ravel()

    eye = torch.eye(p.dim, dtype=torch.float64).expand(shape).numpy().ravel()
    if t == 0:
        return torch.as_tensor(eye.reshape(shape)).to(p.mean)
    try:
        solution = solve_ivp(right_side, (0.0, t), eye, method="DOP853", rtol=1e-13, atol=1e-14)
    except RuntimeError as error:
        raise RuntimeError("the flow could not be integrated: the covariance of X_t is singular on the way") from error
    if not solution.success:
        raise RuntimeError(f"the flow could not be integrated: {solution.message}")
    return torch.as_tensor(solution.y[:, -1].reshape(shape)).to(p.mean)


def cross_covariance(p: Gaussian, q: Gaussian, cross_cov) -> Tensor:
    """The checked ``cross_cov`` (None: zeros): with it, the joint covariance of (X0, X1) must be positive semi-definite."""
    if cross_cov is None:
        return torch.zeros_like(p.cov)
    cross_cov = check.as_tensor(cross_cov, "cross_cov", like=p.mean)
    if cross_cov.ndim < 2 or cross_cov.shape[-2:] != (p.dim, p.dim):
        raise ValueError(f"cross_cov must have shape (..., {p.dim}, {p.dim}), got {tuple(cross_cov.shape)}")
    blocks = torch.broadcast_tensors(p.cov, cross_cov, cross_cov.mT, q.cov)
    joint = torch.cat([torch.cat(blocks[:2], -1), torch.cat(blocks[2:], -1)], -2)
    check.semidefinite(joint.detach(), "cross_cov must leave the joint covariance of (X0, X1) positive semi-definite")
    return cross_cov


def _require_definite(p: Gaussian, name: str) -> None:
    if not p.definite:
        raise ValueError(f"{name} must have a positive definite covariance, got a singular one")


def _require_same_space(p: Gaussian, q: Gaussian) -> None:
    if p.dim != q.dim:
        raise ValueError(f"p and q must have one dimension, got {p.dim} and {q.dim}")
