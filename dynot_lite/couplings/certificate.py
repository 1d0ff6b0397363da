"""Sums over fresh noise, shared among processes, and what they certify: χ² of the cell masses, the dual value, the cost."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base import ranks
from dynot_lite.couplings.atoms import Atoms
from dynot_lite.couplings.search import Scores

__all__ = ["Certificate", "Estimate", "pooled_chi2"]


class Estimate(NamedTuple):
    """An estimate and its standard deviation."""

    value: float
    std: float

    def upper(self, deviations: float = 2.326) -> float:
        """value + deviations·std: with the default, an upper confidence bound at the level 99 % (one-sided, normal)."""
        return self.value + check.number(deviations, "deviations") * self.std

    def lower(self, deviations: float = 2.326) -> float:
        """value − deviations·std."""
        return self.value - check.number(deviations, "deviations") * self.std


def pooled_chi2(counts, weights, *, squares=None, samples: float | None = None) -> Estimate:
    """The unbiased estimate of χ²(m ‖ b) = Σ_j m_j²/b_j − 1 from one pooled histogram of M samples of m, and its deviation.

    Eq. (3.5) of arXiv 2509.25519 with all samples in one batch: Σ_j (c_j² − q_j)/(b_j M(M−1)) − 1. It is a U-statistic, so
    that its variance is 4(M−2)/(M(M−1)) Var(m_J/b_J) + 2/(M(M−1)) (Σ_j m_j²/b_j² − (Σ_j m_j²/b_j)²) with J ~ m; both terms
    are estimated, too (at m = b the deviation may come out a fifth too large, on the safe side). At m = b the variance is
    2(N−1)/(M(M−1)): R batches of size B whose estimates are averaged have √R times the deviation of one pooled batch of RB.

    Args:
        counts: c_j, the number of samples in cell j, or the sum Σ_i s_ij of their shares, shape (N,).
        weights: b, shape (N,), positive, of sum 1.
        squares: q_j = Σ_i s_ij², for shares; ``counts`` if left out. The deviation is then an upper bound (the shares are a
            conditional expectation of one-hot rows, and conditioning does not increase a variance).
        samples: M, at least 2; the sum of ``counts`` if left out.

    Raises:
        ValueError: negative counts, shapes that differ, weights that are not positive or not of sum 1, less than two samples.
    """
    c = check.as_tensor(counts, "counts").detach().double()
    if c.ndim != 1 or (c < 0).any():
        raise ValueError(f"counts must be non-negative, of shape (N,), got shape {tuple(c.shape)}")
    b = check.weights(weights, len(c)).detach().to(c)
    if not (b > 0).all():
        raise ValueError("weights must be positive: leave out the cells of weight zero")
    q = c if squares is None else check.as_tensor(squares, "squares", like=c).detach()
    if q.shape != c.shape:
        raise ValueError(f"squares must have the shape of counts, {tuple(c.shape)}, got {tuple(q.shape)}")
    m = c.sum().item() if samples is None else check.positive(samples, "samples")
    if m < 2:
        raise ValueError(f"samples must be 2 at least: an unbiased estimate needs 2 samples at least, got {m:g}")
    if max(c.max().item(), q.abs().max().item(), m) > 1e100:
        raise ValueError("counts, squares and samples must be numbers whose cubes are finite")
    pairs = m * (m - 1)
    second = (c.square() - q) / pairs  # unbiased for m_j²
    value = float((second / b).sum()) - 1
    third = c * (c - 1).clamp(min=0) * (c - 2).clamp(min=0) / (pairs * max(m - 2, 1))  # for one-hot rows unbiased for m_j³
    first_order = float((third / b.square()).sum()) - (value + 1) ** 2
    second_order = float((second / b.square()).sum()) - (value + 1) ** 2
    # An estimated variance may be too small, or negative; it is not taken to be less than its value at m = b.
    variance = max(4 * (m - 2) / pairs * first_order + 2 / pairs * second_order, 2 / pairs * (len(b) - 1))
    return Estimate(value, variance**0.5)


class Certificate:
    """Sums over fresh noise in bounded memory, at ``potentials`` of the atoms for ½‖x − y‖² in the gauge of their ``scores``."""

    def __init__(self, atoms: Atoms, potentials: Tensor, scores: Scores):
        self._atoms, self._potentials, self._scores = atoms, potentials, scores
        self._counts, self._squares = torch.zeros_like(atoms.mass), torch.zeros_like(atoms.mass)
        self._scalars = atoms.mass.new_zeros(4)  # noises, sum of c-transforms, of their squares, of costs but ½|y|²

    def add(self, n: int, *, generator: torch.Generator | None, group=None) -> None:
        """Add n noises, shared among the ranks of the group."""
        totals = self._counts, self._squares, self._scalars
        counts, squares, scalars = map(torch.zeros_like, totals)
        remaining = math.ceil(check.count(n, "n") / ranks.count(group))
        while remaining:
            x = self._scores.noise.draw(min(remaining, 8192), generator=generator)
            part, wide = self._scores.sums(x, product=True), x.flatten(1).double()
            counts += part.shares
            squares += part.squares
            rest = 0.5 * wide.square().sum(1) - wide @ self._atoms.mean  # ½|x|² − ⟨x, mean⟩
            transform = rest - part.value
            scalars[0] += len(x)
            scalars[1:] += torch.stack([transform.sum(), transform.square().sum(), rest.sum() - part.product])
            remaining -= len(x)
        for sums, part in zip(totals, (counts, squares, scalars), strict=True):
            sums += ranks.total(part, group)

    def chi2(self) -> Estimate:
        """The pooled estimate of χ²(cell masses ‖ weights)."""
        return pooled_chi2(self._counts, self._atoms.mass, squares=self._squares, samples=float(self._scalars[0]))

    def report(self) -> dict:
        """What a fit reports beside χ², by the names of its fields."""
        n, transform, square, cost = self._scalars.tolist()
        mean, constants = transform / n, self._atoms.constants(self._scores.noise.centre)
        return {
            "dual_value": mean + float(self._atoms.mass @ self._potentials),
            "dual_std": (max(square / n - mean**2, 0) / n) ** 0.5,
            "primal_cost": cost / n + float(self._counts / n @ constants),
            "empty_cells": int((self._counts < 0.5).sum()),
        }
