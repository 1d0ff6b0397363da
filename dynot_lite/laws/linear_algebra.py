"""Matrices of Gaussian laws: square roots, polar factors, densities and regressions that hold for singular covariances, too."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def square_root(cov: Tensor) -> tuple[Tensor, bool]:
    """A square root F, F Fᵀ = cov, and whether all of the batch is definite.

    F is Cholesky's factor where its pivots stay above rounding, V diag(√λ) of the spectrum elsewhere.
    """
    factor, info = torch.linalg.cholesky_ex(cov)
    pivots = factor.detach().diagonal(dim1=-2, dim2=-1).square()
    singular = (info > 0) | ~(pivots.amin(-1) > rank_tolerance(cov) * pivots.amax(-1))
    if not singular.any():
        return factor, True
    values, vectors = torch.linalg.eigh(cov)
    spectral = vectors * values.clamp_min(0).sqrt().unsqueeze(-2)
    return torch.where(singular[..., None, None], spectral, factor), False


def polar(matrix: Tensor, *, definite: bool) -> Tensor:
    """The orthogonal factor U of the polar decomposition: U Vᵀ of the singular value decomposition.

    Nonsingular matrices: Newton's iteration X ← (γX + X⁻ᵀ/γ)/2 with scaling (Higham, Functions of Matrices, 8.6), faster than
    the decomposition for batches, and differentiable where singular values coincide. For 2×2 matrices one step is exact: with
    the matrix C of cofactors, M ± C = (σ₁ + σ₂) U Vᵀ, the sign being that of det M.
    """
    if definite and matrix.shape[-1] == 2:
        a, b, c, d = matrix.flatten(-2).unbind(-1)
        sign = (a * d - b * c).detach().sign()
        first, second = a + sign * d, c - sign * b
        length = torch.hypot(first, second)
        first, second = first / length, second / length
        return torch.stack([first, -sign * second, second, sign * first], -1).reshape(matrix.shape)
    if definite:
        x, eye = matrix, torch.eye(matrix.shape[-1]).to(matrix)
        for _ in range(30):
            x = x * (x.shape[-1] ** 0.5 / torch.linalg.matrix_norm(x)[..., None, None])
            square = x.mT @ x
            # Near orthogonality the last step needs no inverse (Newton–Schulz); its error is the square of this tolerance.
            if (square - eye).detach().abs().max() < 0.1 * torch.finfo(x.dtype).eps ** 0.5:
                return x @ (1.5 * eye - 0.5 * square)
            inverse, info = torch.linalg.inv_ex(x)
            if (info > 0).any():
                break
            gamma = (torch.linalg.matrix_norm(inverse) / torch.linalg.matrix_norm(x)).sqrt()[..., None, None]
            x = 0.5 * (gamma * x + inverse.mT / gamma)
    left, _, right = torch.linalg.svd(matrix)
    return left @ right


def rank_tolerance(cov: Tensor) -> float:
    return 10 * cov.shape[-1] * torch.finfo(cov.dtype).eps


def log_normal(centred: Tensor, cov: Tensor, *, per_point: bool = False) -> Tensor:
    """Log-density of N(0, cov) at points (..., n, d), with cov (..., d, d), or ``per_point`` (..., n, d, d)."""
    factor, info = torch.linalg.cholesky_ex(cov)
    if (info > 0).any():
        raise ValueError("cov must be positive definite: a singular Gaussian has no density")
    column = centred.unsqueeze(-1) if per_point else centred.mT
    white = torch.linalg.solve_triangular(factor, column, upper=False)
    distance = (white**2).sum((-2, -1) if per_point else -2)
    log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -0.5 * (distance + (log_det if per_point else log_det.unsqueeze(-1)) + centred.shape[-1] * math.log(2 * math.pi))


def regress(x: Tensor, mean: Tensor, d_mean: Tensor, cov: Tensor, cross: Tensor, *, per_point: bool) -> Tensor:
    """E[dX_t/dt | X_t = x] = ṁ + Cov(dX_t/dt, X_t) Cov(X_t)⁻¹ (x − m), for the moments of :func:`path_moments`.

    ``per_point``: the moments carry one entry per point of x (one time per point), not one for all.
    """
    if not per_point:
        mean, d_mean = mean.unsqueeze(-2), d_mean.unsqueeze(-2)
    centred = x - mean
    column = centred.unsqueeze(-1) if per_point else centred.mT
    values = torch.linalg.eigvalsh(cov.detach())
    if (values[..., 0] > rank_tolerance(cov) * values[..., -1]).all():
        solved = torch.cholesky_solve(column, torch.linalg.cholesky(cov))
    else:
        solved = torch.linalg.pinv(cov, rtol=rank_tolerance(cov), hermitian=True) @ column
        off = (cov @ solved - column).detach().abs().amax()
        if off > 1e-6 * (1 + column.detach().abs().amax()):
            raise ValueError(
                "x must lie on the support of X_t: its covariance is singular at this t, and the velocity is undefined"
            )
    slope = cross @ solved
    return d_mean + (slope.squeeze(-1) if per_point else slope.mT)
