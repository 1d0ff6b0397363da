"""The search of the semidiscrete coupling, in blocks: it never holds more than a block of the scores of noise and atoms.

On a CPU a block fits the cache. On a GPU it has all atoms, or as many as a share of the card's memory holds, and enough rows to
keep the card busy; nothing waits for the card but what must: a user's own law of noise, the reading of a certificate, and, in
reduced precision, the last look at the few noises that rounding may have misled.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from dynot_lite._base import randomness
from dynot_lite.couplings.atoms import Noise
from dynot_lite.couplings.rounding import Rounded, matmul

__all__ = ["Scores", "Sums"]

ROWS, COLUMNS = 512, 2048  # 4 MiB of scores: large enough for the matrix product, small enough for the cache
SOFT = 2**21  # entries of a block that must hold whole rows
LEAST = 1024  # rows of a block on a GPU: with fewer, reading the atoms takes longer than multiplying them
CANDIDATES = 16  # the best scores of reduced precision that are looked at again
GROUP = 64  # scores whose maximum is found at once


@functools.cache
def entries(device: torch.device) -> int:
    """Scores of a block on a GPU: 1 GiB, or a sixteenth of its memory."""
    if device.type != "cuda":
        return 2**26
    return max(min(2**28, torch.cuda.get_device_properties(device).total_memory // 64), 2**20)


def shape(device: torch.device, atoms: int) -> tuple[int, int]:
    """Rows and columns of a block."""
    if device.type == "cpu":
        return ROWS, COLUMNS
    rows = max(entries(device) // atoms, LEAST)
    return rows, min(max(entries(device) // rows, GROUP), atoms)


def room(device: torch.device, atoms: int) -> int:
    """Noises that are searched for at no more than the cost of fewer ones: 0 on a CPU, where no number is too few."""
    return 0 if device.type == "cpu" else shape(device, atoms)[0]


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

    With ``rounded`` atoms the search of ε = 0 runs in their precision first. The candidates, the 16 best scores of a noise, are
    computed again in float32; if the best of them exceeds the last candidate by more than the bound of the rounding error, no
    other atom can be better, and the noise is settled. The others are searched for in float32 among all atoms. So the assignment
    is that of float32, but for gaps that float32 itself cannot see.
    """

    noise: Noise
    atoms: Tensor
    offsets: Tensor
    log_mass: Tensor
    epsilon: float
    rounded: Rounded | None = None

    def among(self, atoms: Tensor) -> "Scores":
        """The scores of some atoms only, given by their indices, in float32."""
        some = {name: getattr(self, name)[atoms] for name in ("atoms", "offsets", "log_mass")}
        return replace(self, **some, rounded=None)

    def at(self, x: Tensor, atom: Tensor) -> Tensor:
        """The score of each noise with an atom of its own, shape (n,)."""
        return (self.noise.centred(x) * self.atoms[atom]).sum(1) + self.offsets[atom]

    def best(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """max_j and argmax_j of the scores, both of shape (n,); the first index wins a tie."""
        return self._best(self.noise.centred(x))

    def _best(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.rounded is None:
            return self._search(x)
        value, index, settled = self.settle(x)
        open_ = torch.nonzero(~settled)[:, 0]
        if len(open_):
            value[open_], index[open_] = self._search(x[open_])
        return value, index

    def _search(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value, index = x.new_empty(len(x)), torch.empty(len(x), dtype=torch.int64, device=x.device)
        for rows, blocks in _blocks(x, self.atoms, self.offsets):
            for first, scores in blocks:
                top, place = _row_max(scores)
                if first:
                    better = top > value[rows]
                    value[rows] = torch.where(better, top, value[rows])
                    index[rows] = torch.where(better, place + first, index[rows])
                else:
                    value[rows], index[rows] = top, place
        return value, index

    def settle(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best of the candidates of centred noise (n, d), its index, and where rounding cannot have hidden a better atom."""
        assert self.rounded is not None
        parts = []
        height, width = shape(x.device, len(self.atoms))
        height = min(height, max(entries(x.device) // (CANDIDATES * x.shape[1]), 1))
        width = max(width // GROUP, 1) * GROUP
        buffer = x.new_empty(min(height, len(x)) * min(width, len(self.atoms)))
        for part in x.split(height):
            rounded, bound = self.rounded.noise(part, self.offsets)
            value, index = part.new_empty(len(part), 0), torch.empty(len(part), 0, dtype=torch.int64, device=x.device)
            for first in range(0, len(self.atoms), width):
                columns = slice(first, min(first + width, len(self.atoms)))
                out = buffer[: len(part) * (columns.stop - first)].view(len(part), -1)
                top, place = _row_top(self.rounded.scores(rounded, columns, self.offsets, out), CANDIDATES)
                value, index = torch.cat([value, top], 1), torch.cat([index, place + first], 1)
            value, place = value.topk(min(CANDIDATES, value.shape[1]), 1)
            index = index.gather(1, place).sort(1).values  # the first index wins a tie
            exact = (part[:, None] * self.atoms[index]).sum(2) + self.offsets[index]
            best, place = exact.max(1)
            settled = best - value[:, -1] >= bound
            parts.append((best, index.gather(1, place[:, None])[:, 0], settled | (index.shape[1] == len(self.atoms))))
        best, index, settled = (torch.cat(column) for column in zip(*parts, strict=True))
        return best, index, settled

    def hits(self, x: Tensor) -> Tensor:
        """Σ_i s_ij of a batch of centred noise (n, d), shape (K,): what a step of the ascent needs, without waiting for a GPU.

        In reduced precision of the candidates only: the few noises that are not settled have the best of these.
        """
        if self.epsilon:
            return self._soft_sums(x, False).shares
        return self._counts(self._search(x)[1] if self.rounded is None else self.settle(x)[1])

    def _counts(self, index: Tensor) -> Tensor:
        if index.device.type == "cpu":
            return torch.bincount(index, minlength=len(self.atoms)).double()
        # On a GPU bincount asks for the largest index first, and waits for it.
        counts = torch.zeros(len(self.atoms), dtype=torch.float64, device=index.device)
        return counts.index_add_(0, index, counts.new_ones(1).expand(len(index)))

    def gaps(self, x: Tensor) -> Tensor:
        """The difference of the largest and the second largest score of each noise, shape (n,)."""
        gaps, x = [], self.noise.centred(x)
        for _, blocks in _blocks(x, self.atoms, self.offsets):
            top = torch.cat([scores.topk(min(2, scores.shape[1]), 1).values for _, scores in blocks], 1).topk(2, 1).values
            gaps.append(top[:, 0] - top[:, 1])
        return torch.cat(gaps)

    def sums(self, x: Tensor, *, product: bool = False) -> Sums:
        """The sums of a batch; the last one is zero unless ``product``."""
        x = self.noise.centred(x)
        if self.epsilon:
            return self._soft_sums(x, product)
        value, index = self._best(x)
        shares = self._counts(index)
        return Sums(shares, shares, value, float(value.double().sum() - shares @ self.offsets.double()) if product else 0.0)

    def _soft_sums(self, x: Tensor, product: bool) -> Sums:
        bias = self.offsets / self.epsilon + self.log_mass
        shares, squares, values, inner = torch.zeros_like(bias), torch.zeros_like(bias), [], 0.0
        most = (
            min(ROWS, max(SOFT // len(self.atoms), 8)) if x.device.type == "cpu" else max(entries(x.device) // len(self.atoms), 8)
        )
        buffer = x.new_empty(min(most, len(x)), len(self.atoms))
        for rows in x.split(len(buffer)):
            with matmul(x.device):
                scores = torch.addmm(bias, rows, self.atoms.T, alpha=1 / self.epsilon, out=buffer[: len(rows)])
            top = scores.amax(1, keepdim=True)
            part = scores.sub_(top).exp_()
            total = part.sum(1, keepdim=True)
            values.append(self.epsilon * (top + total.log())[:, 0])
            part.div_(total)
            shares += part.sum(0)
            if product:
                with matmul(x.device):
                    mean = torch.mm(part, self.atoms, out=torch.empty_like(rows))
                inner += float((rows * mean).double().sum())
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
    height, width = shape(x.device, len(atoms))
    buffer = x.new_empty(min(height, len(x)) * min(width, len(atoms)))

    def columns(rows: slice) -> Iterator[tuple[int, Tensor]]:
        n = rows.stop - rows.start
        for first in range(0, len(atoms), width):
            block, bias = atoms[first : first + width], offsets[first : first + width]
            with matmul(x.device):
                scores = torch.addmm(bias, x[rows], block.T, out=buffer[: n * len(block)].view(n, len(block)))
            yield first, scores

    for start in range(0, len(x), height):
        rows = slice(start, min(start + height, len(x)))
        yield rows, columns(rows)


def _row_max(scores: Tensor) -> tuple[Tensor, Tensor]:
    if scores.device.type != "cpu":
        return scores.max(1)
    # NumPy's argmax over rows is several times faster than torch's on a CPU.
    place = torch.from_numpy(scores.numpy().argmax(1))
    return scores.gather(1, place[:, None])[:, 0], place


def _row_top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest scores of each row and their places, after one pass: they are within the k groups of the largest maxima."""
    n, width = scores.shape
    whole = width // GROUP * GROUP
    tail = torch.arange(whole, width, device=scores.device).expand(n, -1)
    if whole <= k * GROUP:
        return scores.topk(min(k, width), 1)
    groups = scores[:, :whole].unflatten(1, (-1, GROUP)).amax(2).topk(k, 1).indices
    places = (groups[:, :, None] * GROUP + torch.arange(GROUP, device=scores.device)).flatten(1)
    places = torch.cat([places, tail], 1)
    value, place = scores.gather(1, places).topk(k, 1)
    return value, places.gather(1, place)
