"""Matrices of Gaussian laws: square roots, polar factors, densities and regressions that hold for singular covariances, too.

Derivatives are those of the functions, not of the decompositions that compute them: they exist where singular values coincide.
"""

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dynot_lite._base import checks as check
from dynot_lite._base.differentiation import refuse_graph
from dynot_lite.paths.interpolants import Interpolant


def cholesky(cov: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky's factor, and which of the batch are singular: what is left of a variance given the earlier ones is rounding."""
    factor, info = torch.linalg.cholesky_ex(cov)
    left, variances = (a.detach().diagonal(dim1=-2, dim2=-1) for a in (factor, cov))
    return factor, (info > 0) | ~(left.square() > rank_tolerance(cov) * variances).all(-1)


def square_root(cov: Tensor) -> tuple[Tensor, bool]:
    """A square root F, F Fᵀ = cov, and whether all of the batch is definite.

    F is Cholesky's factor where cov is definite, V diag(√λ) of the spectrum elsewhere. The latter has no derivative: to ask for
    one raises ValueError when it is asked for.
    """
    factor, singular = cholesky(cov)
    if not singular.any():
        return factor, True
    values, vectors = torch.linalg.eigh(cov.detach())
    spectral = vectors * values.clamp_min(0).sqrt().unsqueeze(-2)
    singular = singular[..., None, None]
    # The double where keeps derivatives of the definite ones finite.
    factor = torch.linalg.cholesky(torch.where(singular, torch.eye(cov.shape[-1]).to(cov), cov))
    return torch.where(singular, _Singular.apply(cov, spectral), factor), False


class _Singular(torch.autograd.Function):
    """The root of a singular covariance, with an error in the place of its derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(cov: Tensor, root: Tensor) -> Tensor:
        return root.clone()

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        """Nothing to keep."""

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        if (gradient != 0).any():
            raise ValueError("cov must be positive definite where it requires a gradient: its root has none at a singular one")
        return gradient, None


def polar(matrix: Tensor, *, definite: bool) -> Tensor:
    """The orthogonal factor U of the polar decomposition: U Vᵀ of the singular value decomposition.

    ``definite`` matrices, nonsingular and of positive determinant, in large batches, or where derivatives are recorded: Newton's
    iteration X ← (γX + X⁻ᵀ/γ)/2 with scaling (Higham, Functions of Matrices, 8.6), then faster than the decomposition, and
    differentiable more than once. For 2×2 matrices one step is exact: with the matrix C of cofactors, M + C = (σ₁ + σ₂) U Vᵀ.
    """
    if definite and matrix.shape[-1] == 2:
        a, b, c, d = matrix.flatten(-2).unbind(-1)
        first, second = a + d, c - b
        length = torch.hypot(first, second)
        first, second = first / length, second / length
        return torch.stack([first, -second, second, first], -1).reshape(matrix.shape)
    size = matrix.detach().abs().amax((-2, -1), keepdim=True)
    matrix = matrix / size.clamp_min(torch.finfo(matrix.dtype).tiny)  # U stays, and no square over- or underflows
    if definite and (matrix.requires_grad or matrix.shape[:-2].numel() > 32):
        x, eye = matrix, torch.eye(matrix.shape[-1]).to(matrix)
        for k in range(30):
            x = x * (x.shape[-1] ** 0.5 / torch.linalg.matrix_norm(x)[..., None, None])
            square = x.mT @ x
            # Near orthogonality the last step needs no inverse (Newton–Schulz); its error is the square of this tolerance. Each
            # step doubles the order of derivatives that are exact, so where they are recorded there are three at least.
            close = (square - eye).detach().abs().max() < 0.1 * torch.finfo(x.dtype).eps ** 0.5
            if close and (k > 1 or not x.requires_grad):
                return x @ (1.5 * eye - 0.5 * square)
            inverse, info = torch.linalg.inv_ex(x)
            if (info > 0).any():
                break
            gamma = (torch.linalg.matrix_norm(inverse) / torch.linalg.matrix_norm(x)).sqrt()[..., None, None]
            x = 0.5 * (gamma * x + inverse.mT / gamma)
    return _Polar.apply(matrix)


class _Polar(torch.autograd.Function):
    """U Vᵀ of the singular value decomposition; with M = UH, dU = UZ, HZ + ZH = UᵀdM − dMᵀU."""

    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor) -> Tensor:
        left, _, right = torch.linalg.svd(matrix)
        return left @ right

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs, output)
        ctx.save_for_forward(*inputs, output)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        matrix, unitary = ctx.saved_tensors
        return _turn(matrix, unitary, gradient)

    @staticmethod
    def jvp(ctx, tangent: Tensor) -> Tensor:
        matrix, unitary = ctx.saved_tensors
        return _turn(matrix, unitary, tangent)


def _turn(matrix: Tensor, unitary: Tensor, change: Tensor) -> Tensor:
    """UZ for a change of M = UH (a linear map that is its own adjoint).

    Z = 0 within the kernel of H, which no change leaves: it is due to the definite one of two laws.
    """
    product, turned = unitary.mT @ matrix, unitary.mT @ change
    values, basis = torch.linalg.eigh(0.5 * (product + product.mT))
    sums = values.unsqueeze(-1) + values.unsqueeze(-2)
    kernel = sums <= rank_tolerance(matrix) * values[..., -1:, None]
    spin = basis.mT @ (turned - turned.mT) @ basis / torch.where(kernel, 1.0, sums)
    return unitary @ basis @ torch.where(kernel, 0.0, spin) @ basis.mT


def root_of_product(factor: Tensor, *, definite: bool) -> Tensor:
    """The symmetric root (ZZᵀ)^½ of Z, shape (..., d, k) with k ≥ d, without the rounding of the product."""
    if factor.shape[-1] > factor.shape[-2]:
        factor = torch.linalg.qr(factor.mT).R.mT
        factor = factor * factor.detach().diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)  # of positive determinant
    return factor @ polar(factor, definite=definite).mT


def commuting_factor(first: Tensor, second: Tensor, *, definite: bool) -> Tensor:
    """The root G of B = GGᵀ with FGᵀ = A#B, from a triangular root F = ``first`` of a definite A, and any root of B.

    With Y = F⁻¹F_q, A#B = F (YYᵀ)^½ Fᵀ = F polar(Y) F_qᵀ. ``definite``: whether B is.
    """
    return second @ polar(torch.linalg.solve_triangular(first, second, upper=False), definite=definite).mT


def geometric_mean(cov0, cov1) -> Tensor:
    """The geometric mean A#B = A^½ (A^{-½} B A^{-½})^½ A^½ of covariances: the only positive G with G A⁻¹ G = B.

    A#B = B#A, (MAMᵀ)#(MBMᵀ) = M (A#B) Mᵀ, and A#B = (AB)^½ where A and B commute; tr A#B ≤ tr (A^½ B A^½)^½, the trace in W₂².
    The least loss of flow matching between independent N(m0, A), N(m1, B) on the linear path is (π/2) tr A#B (no ½).

    Args:
        cov0, cov1: shape (..., d, d), symmetric positive semi-definite; one of them definite.

    Returns:
        Shape (..., d, d), symmetric, in the unit of a covariance.

    Raises:
        ValueError: two singular covariances (their mean is a limit, which is not computed here), and what is no covariance.

    Source: Pusz and Woronowicz 1975; Bhatia, Positive Definite Matrices (2007), chapter 4.

    >>> geometric_mean([[1.0, 0.0], [0.0, 4.0]], [[4.0, 0.0], [0.0, 9.0]])
    tensor([[2., 0.],
            [0., 6.]], dtype=torch.float64)
    """
    cov0, cov1 = check.as_tensor(cov0, "cov0"), check.as_tensor(cov1, "cov1")
    if not (0 < cov0.shape[-1:].numel() == cov0.shape[-2:-1].numel() and cov0.ndim > 1):
        raise ValueError(f"cov0 must have shape (..., d, d), got {tuple(cov0.shape)}")
    cov0 = check.covariance(cov0, "cov0", dim=cov0.shape[-1])
    cov1 = check.covariance(cov1, "cov1", dim=cov0.shape[-1], like=cov0)
    check.batch("cov0 and cov1", cov0.shape, cov1.shape)
    (first, sound), (second, definite) = square_root(cov0), square_root(cov1)
    if not sound:
        first, sound, second, definite = second, definite, first, sound
    if not sound:
        raise ValueError("cov0 or cov1 must be definite: the mean of two singular ones has no closed form here")
    mean = first @ commuting_factor(first, second, definite=definite).mT
    return check.representable(0.5 * (mean + mean.mT), "cov0 and cov1")


def rank_tolerance(cov: Tensor) -> float:
    return 10 * cov.shape[-1] * torch.finfo(cov.dtype).eps


def solve_on_range(cov: Tensor, column: Tensor) -> tuple[Tensor, bool]:
    """cov⁺ column, and whether all of the batch is definite; if not, covariances that require a gradient are refused."""
    factor, singular = cholesky(cov)
    if not singular.any():
        return torch.cholesky_solve(column, factor), True
    refuse_graph(cov, "where Cov(X_t) is singular, the covariances and t")
    return torch.linalg.pinv(cov, rtol=rank_tolerance(cov), hermitian=True) @ column, False


def log_normal(centred: Tensor, cov: Tensor, *, per_point: bool = False) -> Tensor:
    """Log-density of N(0, cov) at points (..., n, d), with cov (..., d, d), or ``per_point`` (..., n, d, d)."""
    factor, singular = cholesky(cov)
    if singular.any():
        raise ValueError("cov must be positive definite: a singular Gaussian has no density")
    column = centred.unsqueeze(-1) if per_point else centred.mT
    white = torch.linalg.solve_triangular(factor, column, upper=False)
    distance = (white**2).sum((-2, -1) if per_point else -2)
    log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -0.5 * (distance + (log_det if per_point else log_det.unsqueeze(-1)) + centred.shape[-1] * math.log(2 * math.pi))


def posterior(weights: Tensor, log_densities: Tensor) -> tuple[Tensor, Tensor]:
    """The shares w_k p_k / Σ_j w_j p_j of K densities, (K,) and (K, n) -> (K, n), and log Σ_j w_j p_j, (n,).

    In the log domain for the densities, but not for the weights: the derivative in a weight exists where the weight is zero.
    """
    weights = weights.unsqueeze(-1)
    peak = log_densities.detach().masked_fill(weights == 0, -math.inf).amax(0)
    largest = math.log(torch.finfo(log_densities.dtype).max) - 1
    parts = weights * (log_densities - peak).clamp_max(largest).exp()
    total = parts.sum(0)
    return parts / total, peak + total.log()


def path_moments(
    t: Tensor, interpolant: Interpolant, mean0: Tensor, mean1: Tensor, cov0: Tensor, cov1: Tensor, cross_cov: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """E X_t, its derivative, Cov(X_t) and Cov(dX_t/dt, X_t); one leading entry per time if t has shape (n,)."""
    coefficients = interpolant.coefficients(t)
    if not all(map(check.finite, coefficients)):
        raise ValueError("t must be a time at which the path has a velocity: the derivative of alpha or beta is not finite")
    if t.ndim:
        mean0, mean1 = mean0.unsqueeze(-2), mean1.unsqueeze(-2)
        cov0, cov1, cross_cov = cov0.unsqueeze(-3), cov1.unsqueeze(-3), cross_cov.unsqueeze(-3)
    a, b, da, db = (c.unsqueeze(-1) for c in coefficients)
    mean, d_mean = a * mean0 + b * mean1, da * mean0 + db * mean1
    a, b, da, db = (c.unsqueeze(-1) for c in (a, b, da, db))
    cov = a**2 * cov0 + b**2 * cov1 + a * b * (cross_cov + cross_cov.mT)
    cross = a * da * cov0 + b * db * cov1 + da * b * cross_cov + a * db * cross_cov.mT
    return mean, d_mean, cov, cross


def cross_covariance(cov0: Tensor, cov1: Tensor, cross_cov) -> Tensor:
    """The checked ``cross_cov`` (None: zeros): with it, the joint covariance of (X0, X1) must be positive semi-definite."""
    if cross_cov is None:
        return torch.zeros_like(cov0)
    given, dim = check.as_tensor(cross_cov, "cross_cov"), cov0.shape[-1]
    if given.ndim < 2 or given.shape[-2:] != (dim, dim):
        raise ValueError(f"cross_cov must have shape (..., {dim}, {dim}), got {tuple(given.shape)}")
    check.batch("the covariances and cross_cov", cov0.shape, cov1.shape, given.shape)
    cross_cov = given.to(cov0)
    blocks = torch.broadcast_tensors(cov0, cross_cov, cross_cov.mT, cov1)
    joint = torch.cat([torch.cat(blocks[:2], -1), torch.cat(blocks[2:], -1)], -2).detach()
    joint = joint.to(min(given.dtype, joint.dtype, key=lambda dtype: torch.finfo(dtype).bits))  # as precise as it came in
    check.semidefinite(joint, "cross_cov must leave the joint covariance of (X0, X1) positive semi-definite")
    return cross_cov


def degenerates(covariances: list[Tensor], alpha: Tensor, beta: Tensor) -> bool:
    """Whether a²A + ab(C + Cᵀ) + b²B, of A, B, C with A definite, is singular for a ratio a/b above ``alpha``/``beta``."""
    cov0, cov1, cross_cov = covariances
    eye = torch.eye(cov0.shape[-1]).to(cov0).expand_as(cov0)
    above = -torch.linalg.solve(cov0, torch.cat([cross_cov + cross_cov.mT, cov1], -1))
    # Such ratios are positive eigenvalues of a companion matrix, double ones, since no sign changes there: imaginary by rounding.
    ratios = torch.linalg.eigvals(torch.cat([above, torch.cat([eye, 0 * eye], -1)], -2))
    positive = (ratios.imag.abs() < 1e-6 * ratios.real) & (ratios.abs() > 1e-6 * ratios.abs().amax(-1, keepdim=True))
    return bool((positive & (ratios.real * beta > alpha)).any())


def regress(x: Tensor, mean: Tensor, d_mean: Tensor, cov: Tensor, cross: Tensor, *, per_point: bool) -> Tensor:
    """E[dX_t/dt | X_t = x] = ṁ + Cov(dX_t/dt, X_t) Cov(X_t)⁻¹ (x − m), for the moments of :func:`path_moments`.

    ``per_point``: the moments carry one entry per point of x (one time per point), not one for all.
    """
    if not per_point:
        mean, d_mean = mean.unsqueeze(-2), d_mean.unsqueeze(-2)
    centred = x - mean
    column = centred.unsqueeze(-1) if per_point else centred.mT
    solved, definite = solve_on_range(cov, column)
    if not definite:
        eps = torch.finfo(x.dtype).eps
        off = (cov @ solved - column).detach().abs().amax(-2)
        spread = column.detach().abs().amax(-2) + cov.detach().diagonal(dim1=-2, dim2=-1).amax(-1, keepdim=True).sqrt()
        rounding = x.detach().abs().amax(-1) + mean.detach().abs().amax(-1)
        rounding = rounding.unsqueeze(-1) if per_point else rounding
        if (off > max(1e-6, 100 * eps) * spread + 100 * eps * rounding).any():
            raise ValueError("x must lie on the support of X_t, whose covariance is singular: the velocity is undefined off it")
    slope = cross @ solved
    return representable(d_mean + (slope.squeeze(-1) if per_point else slope.mT))


def representable(found: Tensor) -> Tensor:
    """``found``, refused if it overflows."""
    return check.representable(found, "the laws and x")
