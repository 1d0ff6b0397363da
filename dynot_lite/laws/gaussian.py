"""Gaussian laws: everything about transport and flow matching between them that has a closed form.

A batch of Gaussians has a mean of shape (..., d) and a covariance of shape (..., d, d); points then have the shape (..., n, d).
A and B below are the covariances of p and q, C = Cov(X0, X1) is ``cross_cov``.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.integrate import quad_vec
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base import randomness
from dynot_lite._base.differentiation import refuse_graph
from dynot_lite.laws import linear_algebra as algebra
from dynot_lite.laws.linear_algebra import geometric_mean
from dynot_lite.paths.continuity import gauss_legendre
from dynot_lite.paths.flows import integrate_adaptive
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
    "geometric_mean",
    "monge_map",
    "random_gaussian",
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
        dim = mean.shape[-1]
        cov = check.covariance(self.cov, "cov", dim=dim, like=mean)
        batch = check.batch("mean and cov", mean.shape[:-1], cov.shape[:-2])
        mean, cov = mean.expand(*batch, dim), cov.expand(*batch, dim, dim)
        root, definite = algebra.square_root(cov)
        for name, value in (("mean", mean), ("cov", cov), ("factor", root), ("definite", definite)):
            object.__setattr__(self, name, value)

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
        return algebra.representable(algebra.log_normal(_points(x, self) - self.mean.unsqueeze(-2), self.cov))

    def quadrature(self, order: int = 20) -> tuple[Tensor, Tensor]:
        """Gauss–Hermite nodes (order**d, d) and weights (order**d,): exact for polynomials of degree < 2 order in each variable.

        Raises ValueError for a batch, an order above 320, or more than 10⁶ nodes.
        """
        check.count(order, "order")
        if self.mean.ndim > 1 or order > 320 or order**self.dim > 10**6:
            raise ValueError(f"quadrature needs one Gaussian, order ≤ 320, order**d ≤ 10**6, got {self.mean.shape}, {order}")
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

    def __post_init__(self):
        matrix = check.as_tensor(self.matrix, "matrix")
        offset = check.as_tensor(self.offset, "offset", like=matrix)
        if matrix.ndim < 2 or offset.ndim < 1 or matrix.shape[-2] != offset.shape[-1]:
            raise ValueError(f"matrix and offset must be (..., k, d) and (..., k), got {matrix.shape} and {offset.shape}")
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "offset", offset)

    def __call__(self, x) -> Tensor:
        x = check.points(x, "x", dim=self.matrix.shape[-1], like=self.matrix)
        check.batch("x and the map", x.shape[:-2], self.matrix.shape[:-2], self.offset.shape[:-1])
        return x @ self.matrix.mT + self.offset.unsqueeze(-2)

    def push_forward(self, p: Gaussian) -> Gaussian:
        """The image of the Gaussian ``p``."""
        if p.dim != self.matrix.shape[-1]:
            raise ValueError(f"p must have dimension {self.matrix.shape[-1]}, got {p.dim}")
        p = _cast(p, self.matrix)
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
    q = _beside(p, q)
    start, end = _optimal_factors(p, q)
    return algebra.representable(((p.mean - q.mean) ** 2).sum(-1) + ((start - end) ** 2).sum((-2, -1)))


def monge_map(p: Gaussian, q: Gaussian) -> Affine:
    """The optimal map T(x) = m1 + A^{-½}(A^½ B A^½)^½ A^{-½} (x − m0) for the quadratic cost: symmetric, and T_# p = q.

    The push-forward is exact to rounding at any condition number; the symmetry holds to the rounding of the entries.

    Raises:
        ValueError: p has a singular covariance, where a transport map need not exist (q may be singular).
    """
    q = _beside(p, q)
    _require_definite(p, "p")
    start, end = _optimal_factors(p, q)
    matrix = torch.linalg.solve_triangular(start.mT, end.mT, upper=True).mT  # from the left it is faster
    return Affine(matrix, q.mean - (matrix @ p.mean.unsqueeze(-1)).squeeze(-1))


def geodesic(p: Gaussian, q: Gaussian, t: float) -> Gaussian:
    """McCann's interpolation at time t: the law of (1 − t)X0 + tX1 for the optimal coupling; W₂(μ_s, μ_t) = |s − t| W₂(p, q)."""
    q = _beside(p, q)
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
            support of X_t, a covariance or time that requires a gradient where Σ_t is singular, shapes that do not fit.
    """
    q = _beside(p, q)
    x = _points(x, p, q)
    t = check.time(t, n=x.shape[-2], like=p.mean)
    cross_cov = algebra.cross_covariance(p.cov, q.cov, cross_cov)
    mean, d_mean, cov, cross = algebra.path_moments(t, interpolant, p.mean, q.mean, p.cov, q.cov, cross_cov)
    return algebra.regress(x, mean, d_mean, cov, cross, per_point=t.ndim > 0)


def fm_flow(p: Gaussian, q: Gaussian, t: float, *, cross_cov=None, interpolant: Interpolant = LINEAR) -> Affine:
    """The flow φ_t of :func:`fm_velocity` from time 0 to t.

    Independent ends: with A = GGᵀ and B = GDGᵀ (D diagonal), φ_t(x) = m_t + G (α² + β²D)^½ G⁻¹ (x − m0); in particular
    φ_1 = m1 + (BA⁻¹)^½ (x − m0), the optimal map if and only if A and B commute. A given ``cross_cov``: the linear
    differential equation of the matrix, solved in float64 by an eighth-order method to a relative tolerance of 1e-13 (1e-9 for
    laws in float32); not differentiable.

    Raises:
        ValueError: a singular source covariance, everything :func:`fm_velocity` raises, an input that requires a gradient
            together with a ``cross_cov``.
        RuntimeError: the differential equation could not be solved (X_t degenerates on the way).
    """
    q = _beside(p, q)
    _require_definite(p, "p")
    time = check.time(t, like=p.mean)
    alpha, beta, _, _ = interpolant.coefficients(time)
    if cross_cov is None:
        white = torch.linalg.solve_triangular(p.factor, q.factor, upper=False)
        if alpha == 0 and not q.definite:
            refuse_graph(time, "t = 1, where q is singular,")
            root = beta * algebra.root_of_product(white, definite=False)
        else:
            eye = torch.eye(p.dim).to(white).expand_as(white)
            root = algebra.root_of_product(torch.cat([alpha * eye, beta * white], -1), definite=True)
        # From the left triangular systems are solved faster.
        matrix = torch.linalg.solve_triangular(p.factor.mT, (p.factor @ root).mT, upper=True).mT
    else:
        matrix = _solve_flow(p, q, time, algebra.cross_covariance(p.cov, q.cov, cross_cov), interpolant)
    return Affine(matrix, alpha * p.mean + beta * q.mean - (matrix @ p.mean.unsqueeze(-1)).squeeze(-1))


def fm_kinetic_energy(p: Gaussian, q: Gaussian, *, cross_cov=None, interpolant: Interpolant = LINEAR) -> Tensor:
    """The kinetic energy ∫₀¹ E‖v_t(X_t)‖² dt (no ½) of :func:`fm_velocity`.

    Independent ends, A#B the geometric mean: ‖m1 − m0‖² + tr A + tr B − (π/2) tr A#B on the linear path,
    (π²/8)(‖m0‖² + ‖m1‖² + tr A + tr B − 2 tr A#B) − (π/2)⟨m0, m1⟩ on the trigonometric one. Otherwise adaptive
    Gauss–Kronrod quadrature in float64 to an error of 1e-10 relative to the scale of the laws; derivatives are integrated on the
    intervals that it finds.

    Returns:
        The batch shape of p and q.

    Raises:
        ValueError: a cross-covariance that makes the joint covariance indefinite.
        RuntimeError: the quadrature did not reach its tolerance (the energy may be infinite).
    """
    q = _beside(p, q)
    cross = algebra.cross_covariance(p.cov, q.cov, cross_cov)
    if cross_cov is None and interpolant in (LINEAR, TRIGONOMETRIC):
        apart, geometric = _commuting_distance(p, q)
        if interpolant is LINEAR:
            return algebra.representable(((q.mean - p.mean) ** 2).sum(-1) + apart + (2 - 0.5 * math.pi) * geometric)
        squares, product = (p.mean**2 + q.mean**2).sum(-1), (p.mean * q.mean).sum(-1)
        return algebra.representable(math.pi**2 / 8 * (squares + apart) - 0.5 * math.pi * product)
    ends = [a.to(torch.float64) for a in (p.mean, q.mean, p.cov, q.cov, cross)]

    def power(times: Tensor) -> Tensor:
        _, d_mean, cov, cross_t = algebra.path_moments(times, interpolant, *ends)
        return (d_mean**2).sum(-1) + (algebra.solve_on_range(cov, cross_t.mT)[0] * cross_t.mT).sum((-2, -1))

    with torch.no_grad():
        size = algebra.representable(power(ends[0].new_tensor(0.5)) + (p.cov + q.cov).diagonal(dim1=-2, dim2=-1).sum(-1))
        size = torch.where(size > 0, size, 1.0)
        share = lambda t: (power(ends[0].new_tensor(t)) / size).numpy(force=True)
        energy, error, info = quad_vec(share, 0.0, 1.0, epsabs=1e-13, epsrel=1e-11, limit=100, norm="max", full_output=True)
    if not error <= 1e-10 * max(1.0, float(np.abs(energy).max())):
        raise RuntimeError(f"the energy did not converge: {info.message} (estimated error {error:.1e})")
    energy = torch.as_tensor(energy).to(size) * size
    if torch.is_grad_enabled() and any(a.requires_grad for a in ends):
        for value in [law.cov for law in (p, q) if not law.definite] + [cross] * (not (p.definite and q.definite)):
            refuse_graph(value, "the covariance of a singular law, and cross_cov beside it,")
        low, high = torch.as_tensor(info.intervals).to(size).mT.unsqueeze(-1)
        nodes, weights = (a.to(size) for a in gauss_legendre(21))
        values = power((low + (high - low) * nodes).flatten())
        energy = (values * ((high - low) * weights).flatten()).sum(-1)
    return algebra.representable(energy.to(p.mean))


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
        ValueError: epsilon is not a positive number, or requires a gradient.
    """
    q = _beside(p, q)
    half = 0.5 * check.positive(epsilon, "epsilon")
    middle = p.factor.mT @ q.factor
    values = torch.linalg.svdvals(middle.detach())
    # An ε below rounding is raised to it: the plan changes by as much, and no inverse overflows.
    shift = (values[..., :1, None] * torch.finfo(values.dtype).eps).clamp_min(half) * torch.eye(p.dim).to(middle)
    root = algebra.root_of_product(torch.cat([shift, middle], -1), definite=True)  # (A^½BA^½ + ε²/4)^½ in the coordinates of F
    cross_cov = p.factor @ torch.linalg.solve(root + shift, middle) @ q.factor.mT
    # The value from singular values, without cancellation; its derivatives, where some coincide, from the root.
    excess = values * (values / (torch.hypot(values, values.new_tensor(half)) + half))
    gain = (half * torch.log1p(excess / (2 * half)) - excess).sum(-1)
    slope = half * torch.logdet(root + shift) - root.diagonal(dim1=-2, dim2=-1).sum(-1)
    traces = (p.cov + q.cov).diagonal(dim1=-2, dim2=-1).sum(-1)
    cost = 0.5 * (((p.mean - q.mean) ** 2).sum(-1) + traces) + gain + (slope - slope.detach())
    return EntropicPlan(cross_cov, algebra.representable(cost))


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
        p, q = self.p, self.q
        mean, d_mean, cov, cross = algebra.path_moments(t, LINEAR, p.mean, q.mean, p.cov, q.cov, self.cross_cov)
        eye = torch.eye(self.p.dim).to(cov)
        t = t.reshape(*t.shape, 1, 1)
        # A Brownian bridge of variance σ²t(1−t) rides on the line; half its rate of variance, σ²(1−2t)/2, enters the velocity.
        return mean, d_mean, cov + t * (1 - t) * self.sigma**2 * eye, cross + 0.5 * (1 - 2 * t) * self.sigma**2 * eye

    def _field(self, t, x, noise: float) -> Tensor:
        x = _points(x, self.p, self.q)
        t = check.time(t, n=x.shape[-2], like=self.p.mean)
        mean, d_mean, cov, cross = self._moments(t)
        return algebra.regress(x, mean, d_mean, cov, cross + noise * torch.eye(self.p.dim).to(cov), per_point=t.ndim > 0)


def schroedinger_bridge(p: Gaussian, q: Gaussian, sigma: float) -> SchroedingerBridge:
    """The Schrödinger bridge between two Gaussians: the static plan is :func:`entropic_plan` with ε = σ².

    Raises:
        ValueError: sigma is not a positive number, or requires a gradient; q has a singular covariance (the relative entropy is
            infinite).
    """
    variance = check.positive(sigma, "sigma") ** 2
    q = _beside(p, q)
    _require_definite(q, "q")
    plan = entropic_plan(p, q, variance)
    entropy = 0.5 * (torch.logdet(q.cov) + q.dim * math.log(2 * math.pi * math.e))
    energy = plan.cost - variance * entropy + 0.5 * variance * q.dim * math.log(2 * math.pi * variance)
    return SchroedingerBridge(p, q, float(sigma), plan.cross_cov, energy)


def random_gaussian(dim: int, *, generator: torch.Generator | None = None) -> Gaussian:
    """A Gaussian for tests, in float64: mean N(0, I), covariance GGᵀ/(2d) + 0.3 I ≥ 0.3 I with G of shape (d, 2d) normal, too."""
    check.count(dim, "dim")
    mean, *root = randomness.normal(1 + 2 * dim, dim, generator=generator, dtype=torch.float64)
    root = torch.stack(root, -1)
    return Gaussian(mean, root @ root.mT / (2 * dim) + 0.3 * torch.eye(dim).to(root))


def _optimal_factors(p: Gaussian, q: Gaussian) -> tuple[Tensor, Tensor]:
    """F and G such that X0 = m0 + FZ, X1 = m1 + GZ, Z standard normal, is the optimal coupling of p and q.

    F is the factor of p, and G = F_q R with the rotation R that maximises E⟨FZ, F_q RZ⟩ = tr(Fᵀ F_q R) (Procrustes).
    """
    return p.factor, q.factor @ algebra.polar(p.factor.mT @ q.factor, definite=p.definite and q.definite).mT


def _commuting_distance(p: Gaussian, q: Gaussian) -> tuple[Tensor, Tensor]:
    """tr A + tr B − 2 tr A#B, as a sum of squares, and tr A#B; by symmetry the definite one of the covariances is inverted."""
    if not p.definite:
        p, q = q, p
    if not p.definite:
        raise ValueError("p or q must have a definite covariance: two singular ones have no closed form here")
    turned = algebra.commuting_factor(p.factor, q.factor, definite=q.definite)
    return ((p.factor - turned) ** 2).sum((-2, -1)), (p.factor * turned).sum((-2, -1))


def _solve_flow(p: Gaussian, q: Gaussian, time: Tensor, cross_cov: Tensor, interpolant: Interpolant) -> Tensor:
    """The matrix M of dM/dt = Cov(dX_t/dt, X_t) Cov(X_t)⁻¹ M, M(0) = I."""
    for name, value in (("the covariance of p", p.cov), ("the covariance of q", q.cov), ("cross_cov", cross_cov), ("t", time)):
        refuse_graph(value, f"with a cross_cov, {name}")
    ends = [a.detach().to(torch.float64) for a in (p.mean, q.mean, p.cov, q.cov, cross_cov)]

    def right_side(s: float, matrix: Tensor) -> Tensor:
        _, _, cov, cross = algebra.path_moments(ends[0].new_tensor(s), interpolant, *ends)
        return cross @ torch.linalg.solve_ex(cov, matrix).result  # not finite where X_t degenerates: the integrator says so

    start = torch.eye(p.dim).to(ends[0]).expand(torch.broadcast_shapes(p.cov.shape, q.cov.shape, cross_cov.shape))
    if algebra.degenerates([a.expand_as(start) for a in ends[2:]], *interpolant.coefficients(time.to(torch.float64))[:2]):
        raise RuntimeError("the flow could not be integrated: Cov(X_t) is singular on the way")
    rtol = max(1e-13, 0.01 * torch.finfo(p.mean.dtype).eps)
    return integrate_adaptive(right_side, start, t1=float(time), rtol=rtol, atol=0.1 * rtol, max_iterations=20_000).to(p.mean)


def _cast(p: Gaussian, like: Tensor) -> Gaussian:
    """p in the dtype and on the device of ``like``: what its covariance is was judged in the precision it came in."""
    if p.mean.dtype == like.dtype and p.mean.device == like.device:
        return p
    cast = object.__new__(Gaussian)
    for name in ("mean", "cov", "factor"):
        object.__setattr__(cast, name, getattr(p, name).to(like))
    object.__setattr__(cast, "definite", p.definite)
    return cast


def _beside(p: Gaussian, q: Gaussian) -> Gaussian:
    """q in the dtype and on the device of p; refused where the two do not fit together."""
    if p.dim != q.dim:
        raise ValueError(f"p and q must have one dimension, got {p.dim} and {q.dim}")
    check.batch("p and q", p.mean.shape, q.mean.shape)
    return _cast(q, p.mean)


def _points(x, *laws: Gaussian) -> Tensor:
    x = check.points(x, "x", dim=laws[0].dim, like=laws[0].mean)
    check.batch("x and the laws", x.shape[:-2], *(p.mean.shape[:-1] for p in laws))
    return x


def _require_definite(p: Gaussian, name: str) -> None:
    if not p.definite:
        raise ValueError(f"{name} must have a positive definite covariance, got a singular one")
