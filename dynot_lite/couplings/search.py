"""Blocked kernels of the semidiscrete coupling: they never hold more than a block of the scores ⟨x_i, y_j⟩ + h_j.

Everything here works on merged atoms y (N, d) in float32, centred, with offsets h (N,) in float64 whose mean is taken off
before they are rounded: scores then have the size of the data's spread, and rounding is far below the gaps between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Estimate", "best", "categorical", "device", "pooled_chi2", "runner_up_gap", "soft_sums"]

ROWS, COLUMNS = 512, 2048  # 4 MiB of scores: large enough for the matrix product, small enough for the cache
_SOFT = 2**21  # entries of a block that must hold whole rows


def device(generator: torch.Generator | None, like: Tensor) -> torch.device:
    """Where random numbers are drawn: where the generator lives, or on the device of ``like``."""
    return like.device if generator is None else generator.device


class Estimate(NamedTuple):
    """An estimate and its standard deviation."""

    value: float
    std: float

    def upper(self, deviations: float = 2.326) -> float:
        """value + deviations·std: with the default, an upper confidence bound at the level 99 % (one-sided, normal)."""
        return self.value + deviations * self.std

    def lower(self, deviations: float = 2.326) -> float:
        """value − deviations·std."""
        return self.value - deviations * self.std


def pooled_chi2(counts: Tensor, weights: Tensor, *, squares: Tensor | None = None, samples: float | None = None) -> Estimate:
    """The unbiased estimate of χ²(m ‖ b) = Σ_j m_j²/b_j − 1 from one pooled histogram of M samples of m, and its deviation.

    Eq. (3.5) of arXiv 2509.25519 with all samples in one batch: Σ_j (c_j² − q_j)/(b_j M(M−1)) − 1. It is a U-statistic, so
    that its variance is 4(M−2)/(M(M−1)) Var(m_J/b_J) + 2/(M(M−1)) (Σ_j m_j²/b_j² − (Σ_j m_j²/b_j)²) with J ~ m; both terms
    are estimated, too (at m = b the deviation may come out a fifth too large, on the safe side). At m = b the variance is
    2(N−1)/(M(M−1)): R batches of size B whose estimates are averaged have √R times the deviation of one pooled batch of RB.

    Args:
        counts: c_j, the number of samples in cell j, or the sum Σ_i s_ij of their shares, shape (N,).
        weights: b, shape (N,), positive.
        squares: q_j = Σ_i s_ij², for shares; ``counts`` if left out. The deviation is then an upper bound (the shares are a
            conditional expectation of one-hot rows, and conditioning does not increase a variance).
        samples: M, the sum of ``counts`` if left out.
    """
    c, b = counts.double(), weights.double()
    q = c if squares is None else squares.double()
    m = float(c.sum()) if samples is None else float(samples)
    pairs = m * (m - 1)
    second = (c.square() - q) / pairs  # unbiased for m_j²
    value = float((second / b).sum()) - 1
    third = c * (c - 1).clamp(min=0) * (c - 2).clamp(min=0) / (pairs * max(m - 2, 1))  # for one-hot rows unbiased for m_j³
    first_order = float((third / b.square()).sum()) - (value + 1) ** 2
    second_order = float((second / b.square()).sum()) - (value + 1) ** 2
    # An estimated variance may be too small, or negative; it is not taken to be less than its value at m = b.
    variance = max(4 * (m - 2) / pairs * first_order + 2 / pairs * second_order, 2 / pairs * (len(b) - 1))
    return Estimate(value, variance**0.5)


def _blocks(x: Tensor, atoms: Tensor, offsets: Tensor) -> Iterator[tuple[slice, Iterator[tuple[int, Tensor]]]]:
    """Rows of x, and for each an iterator over (first column, scores of the block); the next block overwrites them."""
    # One buffer: fresh memory for every block costs as much time as the product itself.
    buffer = x.new_empty(min(ROWS, len(x)) * min(COLUMNS, len(atoms)))

    def columns(rows: slice) -> Iterator[tuple[int, Tensor]]:
        for first in range(0, len(atoms), COLUMNS):
            block, bias = atoms[first : first + COLUMNS], offsets[first : first + COLUMNS]
            shape = (rows.stop - rows.start, len(block))
            yield first, torch.addmm(bias, x[rows], block.T, out=buffer[: shape[0] * shape[1]].view(shape))

    for start in range(0, len(x), ROWS):
        rows = slice(start, min(start + ROWS, len(x)))
        yield rows, columns(rows)


def _row_argmax(scores: Tensor) -> Tensor:
    # NumPy's argmax over rows is several times faster than torch's on a CPU.
    return torch.from_numpy(scores.numpy().argmax(1)) if scores.device.type == "cpu" else scores.argmax(1)


def best(x: Tensor, atoms: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """max_j and argmax_j of ⟨x_i, y_j⟩ + h_j, both of shape (n,); the first index wins a tie."""
    value, index = x.new_empty(len(x)), torch.empty(len(x), dtype=torch.int64, device=x.device)
    for rows, blocks in _blocks(x, atoms, offsets):
        for first, scores in blocks:
            place = _row_argmax(scores)
            top = scores.gather(1, place[:, None])[:, 0]
            if first:
                better = top > value[rows]
                value[rows], index[rows] = torch.where(better, top, value[rows]), torch.where(better, place + first, index[rows])
            else:
                value[rows], index[rows] = top, place
    return value, index


def runner_up_gap(x: Tensor, atoms: Tensor, offsets: Tensor) -> Tensor:
    """The difference of the largest and the second largest score of each row, shape (n,)."""
    gaps = []
    for _, blocks in _blocks(x, atoms, offsets):
        top = torch.cat([scores.topk(min(2, scores.shape[1]), 1).values for _, scores in blocks], 1).topk(2, 1).values
        gaps.append(top[:, 0] - top[:, 1])
    return torch.cat(gaps)


class SoftSums(NamedTuple):
    """Of the shares s_ij: Σ_i s_ij and Σ_i s_ij² (N,), ε log Σ_j b_j exp(score_ij/ε) for each row, and Σ_ij s_ij ⟨x_i, y_j⟩."""

    shares: Tensor
    squares: Tensor
    value: Tensor
    product: float


def soft_sums(
    x: Tensor, atoms: Tensor, offsets: Tensor, log_weights: Tensor, epsilon: float, *, product: bool = False
) -> SoftSums:
    """Sums of the b-weighted softmax s_ij ∝ b_j exp((⟨x_i, y_j⟩ + h_j)/ε); the last one is zero unless ``product``."""
    shares, squares, values, inner = torch.zeros_like(offsets), torch.zeros_like(offsets), [], 0.0
    bias = offsets / epsilon + log_weights
    height = min(ROWS, max(_SOFT // len(atoms), 8), len(x))
    buffer = x.new_empty(height, len(atoms))
    for rows in x.split(height):
        scores = torch.addmm(bias, rows, atoms.T, alpha=1 / epsilon, out=buffer[: len(rows)])
        top = scores.amax(1, keepdim=True)
        part = scores.sub_(top).exp_()
        total = part.sum(1, keepdim=True)
        values.append(epsilon * (top + total.log())[:, 0])
        part.div_(total)
        shares += part.sum(0)
        if product:
            inner += float((rows * (part @ atoms)).double().sum())
        squares += part.square_().sum(0)
    return SoftSums(shares, squares, torch.cat(values), inner)


def categorical(
    x: Tensor, atoms: Tensor, offsets: Tensor, log_weights: Tensor, epsilon: float, generator: torch.Generator | None
) -> Tensor:
    """One index per row from the b-weighted softmax, shape (n,), exact and without holding more than a block.

    A block's own choice, drawn by inverting its distribution function, replaces the choice made so far with the probability
    that the block has among the blocks seen; so each row needs two uniform numbers per block instead of one Gumbel variable
    per atom.
    """
    bias = offsets / epsilon + log_weights
    index = torch.empty(len(x), dtype=torch.int64, device=x.device)
    for rows, blocks in _blocks(x / epsilon, atoms, bias):
        seen = None
        for first, scores in blocks:
            top = scores.amax(1, keepdim=True)
            cumulative = scores.sub_(top).exp_().cumsum(1)
            total = cumulative[:, -1:]
            u = torch.rand(2, len(total), 1, generator=generator, device=device(generator, x)).to(x.device)
            place = torch.searchsorted(cumulative, u[0] * total, right=True).clamp(max=scores.shape[1] - 1)[:, 0]
            mass = (top + total.log())[:, 0]
            if seen is None:
                seen, index[rows] = mass, place
            else:
                seen = torch.logaddexp(seen, mass)
                index[rows] = torch.where(u[1, :, 0] < (mass - seen).exp(), place + first, index[rows])
    return index
