"""Random instances that tell right answers from wrong ones: non-commuting covariances, non-symmetric cross-covariances, means."""

import torch

from dynot_lite.laws.gaussian import Gaussian
from dynot_lite.potentials.convex import ICNN, LogSumExp, Quadratic

DIMENSIONS = (1, 2, 3, 4, 5, 6)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def spd(d, gen, *, condition=20.0):
    """A covariance with a random basis and a spectrum spread evenly, in logarithm, over the condition number."""
    basis = torch.linalg.qr(torch.randn(d, d, generator=gen, dtype=torch.float64)).Q
    spread = torch.linspace(-0.5, 0.5, d) if d > 1 else torch.rand(1, generator=gen) - 0.5
    spectrum = condition ** spread.to(torch.float64)
    return (basis * spectrum.to(basis)) @ basis.mT


def pair(d, seed=0, **options):
    """Two Gaussians with means and (for d > 1) covariances that do not commute."""
    gen = generator(1000 * d + seed)
    return tuple(Gaussian(torch.randn(d, generator=gen, dtype=torch.float64), spd(d, gen, **options)) for _ in range(2))


def cross_covariance(p, q, seed=0, strength=0.7):
    """A non-symmetric Cov(X0, X1) with a definite joint covariance: F_p K F_qᵀ with a contraction K."""
    gen = generator(77 + seed)
    kernel = torch.randn(p.dim, p.dim, generator=gen, dtype=torch.float64)
    kernel = strength * kernel / torch.linalg.matrix_norm(kernel, 2)
    return torch.linalg.cholesky(p.cov) @ kernel @ torch.linalg.cholesky(q.cov).mT


def conditional_velocity(log_joint, interpolant, t, x, *, centre, radius, nodes=161):
    """E[dX_t/dt | X_t = x] by brute force: the trapezoidal rule over x1, in d ≤ 2, of the joint density on αx0 + βx1 = x.

    Uses nothing but the joint log-density ``log_joint(x0, x1)`` of the coupling.
    """
    alpha, beta, d_alpha, d_beta = (float(c) for c in interpolant.coefficients(t))
    d = x.shape[-1]
    axes = [torch.linspace(c - radius, c + radius, nodes, dtype=torch.float64) for c in centre.tolist()]
    x1 = torch.cartesian_prod(*axes).reshape(-1, d)
    rows = []
    for point in x:
        x0 = (point - beta * x1) / alpha
        weight = torch.softmax(log_joint(x0, x1), 0).unsqueeze(-1)
        rows.append((weight * (d_alpha * x0 + d_beta * x1)).sum(0))
    return torch.stack(rows)


def potential_of(family, dim, seed=0):
    """A potential of one of the three families with random parameters, in float64."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    matrix = matrix @ matrix.T / dim + 0.3 * torch.eye(dim, dtype=torch.float64)
    offset = torch.randn(dim, generator=generator, dtype=torch.float64)
    if family == "quadratic":
        return Quadratic(dim, matrix=matrix, offset=offset)
    if family == "log-sum-exp":
        return LogSumExp(dim, 12, matrix=matrix, offset=offset, generator=generator)
    return ICNN(dim, (8, 6), matrix=matrix, offset=offset, generator=generator)
