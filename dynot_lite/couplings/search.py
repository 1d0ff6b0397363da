"""The search of the semidiscrete coupling, in blocks: it never holds more than a block of the scores of noise and atoms."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from dynot_lite._base import randomness
from dynot_lite.couplings.atoms import Noise

__all__ = ["Scores", "Sums"]

ROWS, COLUMNS = 512, 2048  # 4 MiB of scores: large enough for the matrix product, small enough for the cache
SOFT = 2**21  # entries of a block that must hold whole rows


class Sums(NamedTuple):
    """Of the shares s_ij (one-hot rows for ε = 0): Σ_i s_ij and Σ_i s_ij² (K,), the maxima (n,), and Σ_ij s_ij ⟨x_i, y_j⟩."""

    shares: Tensor
    squares: Tensor
    value: Tensor
    product: float


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores ⟨x_i, y_j⟩ + h_j of noise and atoms (K, d), in float32; for ε > 0 maxima are soft, ε log Σ_j b_j exp(·/ε).

    Noise x is passed as it was drawn, (n, ...), and centred here, as the atoms are, without gradients. The offsets h have mean
    zero before they are rounded: scores then have the size of the data's spread, and rounding is far below the gaps between them.
    """

    noise: Noise
    atoms: Tensor
    offsets: Tensor
    log_mass: Tensor
    epsilon: float

    def among(self, atoms: Tensor) -> "Scores":
        """The scores of some atoms only, given by their indices."""
        return replace(self, atoms=self.atoms[atoms], offsets=self.offsets[atoms], log_mass=self.log_mass[atoms])

    def at(self, x: Tensor, atom: Tensor) -> Tensor:
        """The score of each noise with an atom of its own, shape (n,)."""
        return (self.noise.centred(x) * self.atoms[atom]).sum(1) + self.offsets[atom]

    def best(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """max_j and argmax_j of the scores, both of shape (n,); the first index wins a tie."""
        x = self.noise.centred(x)
        value, index = x.new_empty(len(x)), torch.empty(len(x), dtype=torch.int64, device=x.device)
        for rows, blocks in _blocks(x, self.atoms, self.offsets):
            for first, scores in blocks:
                place = _row_argmax(scores)
                top = scores.gather(1, place[:, None])[:, 0]
                if first:
                    better = top > value[rows]
                    value[rows] = torch.where(better, top, value[rows])
                    index[rows] = torch.where(better, place + first, index[rows])
                else:
                    value[rows], index[rows] = top, place
        return value, index

    def gaps(self, x: Tensor) -> Tensor:
        """The difference of the largest and the second largest score of each noise, shape (n,)."""
        gaps = []
        for _, blocks in _blocks(self.noise.centred(x), self.atoms, self.offsets):
            top = torch.cat([scores.topk(min(2, scores.shape[1]), 1).values for _, scores in blocks], 1).topk(2, 1).values
            gaps.append(top[:, 0] - top[:, 1])
        return torch.cat(gaps)

    def sums(self, x: Tensor, *, product: bool = False) -> Sums:
        """The sums of a batch; the last one is zero unless ``product``."""
        if self.epsilon:
            return self._soft_sums(x, product)
        value, index = self.best(x)
        shares = torch.bincount(index, minlength=len(self.atoms)).double()
        return Sums(shares, shares, value, float(value.double().sum() - shares @ self.offsets.double()) if product else 0.0)

    def _soft_sums(self, x: Tensor, product: bool) -> Sums:
        x, bias = self.noise.centred(x), self.offsets / self.epsilon + self.log_mass
        shares, squares, values, inner = torch.zeros_like(bias), torch.zeros_like(bias), [], 0.0
        height = min(ROWS, max(SOFT // len(self.atoms), 8), len(x))
        buffer = x.new_empty(height, len(self.atoms))
        for rows in x.split(height):
            scores = torch.addmm(bias, rows, self.atoms.T, alpha=1 / self.epsilon, out=buffer[: len(rows)])
            top = scores.amax(1, keepdim=True)
            part = scores.sub_(top).exp_()
            total = part.sum(1, keepdim=True)
            values.append(self.epsilon * (top + total.log())[:, 0])
            part.div_(total)
            shares += part.sum(0)
            if product:
                inner += float((rows * (part @ self.atoms)).double().sum())
            squares += part.square_().sum(0)
        return Sums(shares.double(), squares.double(), torch.cat(values), inner)

    def assign(self, x: Tensor, *, generator: torch.Generator | None) -> Tensor:
        """The atom of the best score of each noise, for ε > 0 one drawn from the b-weighted softmax, shape (n,).

        The draw is exact without holding more than a block: a block's own choice, made by inverting its distribution function,
        replaces the choice made so far with the probability that the block has among the blocks seen; so each row needs two
        uniform numbers per block instead of one Gumbel variable per atom.
        """
        if not self.epsilon:
            return self.best(x)[1]
        x, bias = self.noise.centred(x) / self.epsilon, self.offsets / self.epsilon + self.log_mass
        index = torch.empty(len(x), dtype=torch.int64, device=x.device)
        for rows, blocks in _blocks(x, self.atoms, bias):
            seen = None
            for first, scores in blocks:
                top = scores.amax(1, keepdim=True)
                cumulative = scores.sub_(top).exp_().cumsum(1)
                total = cumulative[:, -1:]
                u = randomness.uniform(2, len(total), 1, generator=generator, like=x)
                place = torch.searchsorted(cumulative, u[0] * total, right=True).clamp(max=scores.shape[1] - 1)[:, 0]
                mass = (top + total.log())[:, 0]
                if seen is None:
                    seen, index[rows] = mass, place
                else:
                    seen = torch.logaddexp(seen, mass)
                    index[rows] = torch.where(u[1, :, 0] < (mass - seen).exp(), place + first, index[rows])
        return index


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
