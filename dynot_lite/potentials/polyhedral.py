"""The action of a Brenier potential with kinks, Ψ(z) = ½|z|² + max_k (<v_k, z> + b_k), in closed form.

The map cuts the source along power cells and shifts cell k by v_k, so it jumps. The action does not feel it: for t > 0 the
Hopf–Lax minimum is a concave maximum over the simplex, s_t(x) = max_λ <Vᵀλ, x> + <b, λ> − ½t|Vᵀλ|², once continuously
differentiable at every point, and its velocity u = Vᵀλ fills the gaps between the shifted cells with a fan.
"""

import itertools

import torch
from torch import Tensor

from dynot_lite._base import checks as check

__all__ = ["PolyhedralAction"]

PART = 2**22
"""So many weights λ are held at once."""


class PolyhedralAction:
    """The optimal action of Ψ(z) = ½|z|² + max_k (<v_k, z> + b_k), at all times from 0 to 1 inclusive.

    s_0 = Ψ − ½|·|² and s_1 = ½|·|² − Ψ*, both exact. λ is found by trying every face of the simplex that may hold it, those with
    at most d + 1 affinely independent slopes: exact to rounding, for few slopes (time and memory grow as K^(d+2) per point, the
    latter in parts). ``OptimalAction`` cannot take such a Ψ: its Newton steps need a Hessian. At t = 0 the velocity is that of
    one of the cells; for small t it has an error of eps/t. First derivatives in t (t > 0), x, slopes and heights are exact, but
    at the rims of the fans, where the velocity has none.

    Args:
        slopes: v_k, shape (K, d).
        heights: b_k, shape (K,).

    Raises:
        ValueError: shapes that do not fit.

    >>> huber = PolyhedralAction([[-1.5], [1.5]], [0.0, 0.0])  # Ψ(z) = ½z² + 1.5|z|
    >>> huber.velocity(0.5, [[0.3], [2.0]])  # x/t within the fan |x| ≤ 1.5 t
    tensor([[0.6000],
            [1.5000]], dtype=torch.float64)
    """

    def __init__(self, slopes, heights):
        self.slopes = check.squares(check.cloud(slopes, "slopes"), "slopes")
        self.heights = check.as_tensor(heights, "heights", like=self.slopes)
        if self.heights.shape != self.slopes.shape[:1]:
            raise ValueError(f"heights must have shape ({len(self.slopes)},), got {tuple(self.heights.shape)}")
        self._faces = self._make_faces()

    def value(self, t, x) -> Tensor:
        """s_t(x), shape (n,)."""
        t, x = self._arguments(t, x)
        return self._in_parts(lambda t, x: self._best(t, x)[0], t, x)

    def velocity(self, t, x) -> Tensor:
        """u_t(x) = ∇s_t(x) = Vᵀλ, shape (n, d)."""
        t, x = self._arguments(t, x)
        return self._in_parts(lambda t, x: self._best(t, x)[1] @ self.slopes, t, x)

    def time_derivative(self, t, x) -> Tensor:
        """∂_t s_t(x) at fixed x, shape (n,): -½|Vᵀλ|² by the envelope theorem, so not a check of Hamilton–Jacobi."""
        return -0.5 * self.velocity(t, x).square().sum(-1)

    def _arguments(self, t, x) -> tuple[Tensor, Tensor]:
        x = check.squares(check.cloud(x, "x", dim=self.slopes.shape[1], like=self.slopes), "x")
        return check.time(t, n=len(x), like=x).expand(len(x)), x

    def _in_parts(self, function, t: Tensor, x: Tensor) -> Tensor:
        rows = max(PART // (len(self._faces[0]) * len(self.slopes)), 1)
        found = torch.cat([function(*part) for part in zip(t.split(rows), x.split(rows), strict=True)])
        return check.representable(found, "slopes, heights and x")

    def _make_faces(self) -> tuple[Tensor, Tensor]:
        """P (F, K, K) and q (F, K): on face f of the simplex the stationary λ is P (Vx + b)/t + q, its entries of sum 1.

        With the differences D of the face's corners and E = D V it is e + Dᵀ(E Eᵀ)⁻¹D ((Vx + b)/t − V Vᵀ e), e a corner.
        """
        count, dim = self.slopes.shape
        eye = torch.eye(count).to(self.slopes)
        matrices, offsets = [], []
        for size in range(1, min(count, dim + 1) + 1):
            for corners in itertools.combinations(range(count), size):
                differences = eye[list(corners[1:])] - eye[corners[0]]
                edges = differences @ self.slopes
                gram = edges @ edges.T
                spectrum = torch.linalg.eigvalsh(gram.detach())
                if size > 1 and not spectrum[0] > 1e3 * torch.finfo(gram.dtype).eps * spectrum[-1]:
                    continue  # affinely dependent: a smaller face has the same points
                matrices.append(differences.T @ torch.linalg.solve(gram, differences))
                offsets.append(eye[corners[0]] - matrices[-1] @ self.slopes @ self.slopes[corners[0]])
        return torch.stack(matrices), torch.stack(offsets)

    def _best(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """s_t(x), shape (n,), and a maximiser λ, shape (n, K)."""
        matrices, offsets = self._faces
        heights, late = x @ self.slopes.T + self.heights, t[:, None] > 0
        # At t = 0 a corner is best, and only corners have the matrix P = 0.
        inner = torch.einsum("fkl,nl->nfk", matrices, heights / torch.where(late, t[:, None], 1))
        weights = torch.where(late[:, :, None], inner, 0) + offsets
        values = (weights * heights[:, None]).sum(-1) - 0.5 * t[:, None] * (weights @ self.slopes).square().sum(-1)
        corner = torch.arange(len(matrices), device=x.device) < len(self.slopes)
        allowed = corner | (late & (weights.detach().amin(-1) >= 0))
        chosen = values.detach().masked_fill(~allowed, -torch.inf).argmax(-1)
        rows = torch.arange(len(x), device=x.device)
        return values[rows, chosen], weights[rows, chosen]
