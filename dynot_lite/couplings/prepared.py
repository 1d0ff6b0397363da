"""Pairs of a semidiscrete coupling drawn in advance, every point exactly as often as its weight says."""

from collections.abc import Iterator

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base.randomness import integers, permutation
from dynot_lite.couplings.indexed import IndexedPairs
from dynot_lite.couplings.search import room
from dynot_lite.couplings.semidiscrete import SemidiscreteCoupling

__all__ = ["PairList", "prepare"]

BLOCK = 256  # noises that one seed stands for
MOST = 8192  # noises that are searched for at a time on a GPU


class PairList(IndexedPairs):
    """Pairs drawn in advance, as seeds of blocks of noise and indices: 8 bytes a pair, and no search when they are used.

    Attributes:
        coupling: the coupling the pairs are of.
        seed: block b is the noise that a generator seeded with seed + b gives.
        device: the kind of device whose generator that is, "cpu" or "cuda": the others give other numbers.
        index: the point each noise goes to, shape (n,). Point i occurs n b_i times (rounded to add up to n): exactly.
        moved: the fraction of noises that are not in the cell of their point; that is the price of exact counts.
    """

    def __init__(self, coupling: SemidiscreteCoupling, seed: int, device: str, index: Tensor, moved: float):
        super().__init__(coupling.points)
        self._law = coupling.scores().noise
        self.coupling, self.seed, self.device, self.index, self.moved = coupling, seed, device, index, moved

    def __len__(self) -> int:
        return len(self.index)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Places in the list and their noise, block by block; the last block may be short."""
        return self._stretches(1)

    def _stretches(self, blocks: int) -> Iterator[tuple[slice, Tensor]]:
        """The same, so many blocks at a time."""
        for start in range(0, len(self), blocks * BLOCK):
            place = slice(start, min(start + blocks * BLOCK, len(self)))
            x = torch.cat([self._noise(block) for block in range(start // BLOCK, -(-place.stop // BLOCK))])
            yield place, x[: place.stop - start]

    def _noise(self, block: int) -> Tensor:
        return self._law.draw(BLOCK, generator=torch.Generator(self.device).manual_seed(self.seed + block))

    def pair_index(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """``n`` noises and the index of their points: whole blocks in random order, all of them before any comes again.

        Fastest for multiples of 256. Every call starts a new order.
        """
        check.count(n, "n")
        x0, places, missing = [], [], n
        while missing > 0:
            for block in permutation(-(-len(self) // BLOCK), generator=generator, like=self.points).tolist():
                start = block * BLOCK
                size = min(BLOCK, len(self) - start, missing)
                x0.append(self._noise(block)[:size])
                places.append(torch.arange(start, start + size))
                missing -= size
                if not missing:
                    break
        index = self.index[torch.cat(places).to(self.index.device)]
        return torch.cat(x0).to(self.points.dtype), index.to(self.points.device)

    def cost(self) -> float:
        """The mean of ½‖x0 − x1‖² over the list."""
        total = 0.0
        for place, x in self.blocks():
            total += 0.5 * float((x.double() - self.points[self.index[place].to(x.device)].double()).square().sum())
        return total / len(self)

    def state_dict(self) -> dict:
        """The list without the coupling, for ``torch.save``; ``PairList(coupling, **state)`` restores it."""
        return {"seed": self.seed, "device": self.device, "index": self.index.cpu(), "moved": self.moved}


def prepare(coupling: SemidiscreteCoupling, n: int, *, generator: torch.Generator | None = None) -> PairList:
    """Draw ``n`` pairs in advance and rebalance them, so that every point has its share exactly.

    The search among N points is made once per noise. Then cells with too many noises pass on those that lose the least score
    with another point that has too few, the least losses first, until the counts are exact. Where the search is slower than
    the training step (large N), the pairs are used in several epochs.

    Args:
        coupling: a fitted coupling.
        n: at least the number of points.
        generator: gives the seed of the noise, and the choices for ε > 0 and among copies.

    Raises:
        ValueError: n less than the number of points. RuntimeError: a coupling that is not fitted.
    """
    scores, atoms, device = coupling.scores(), coupling.atoms, coupling.points.device
    if check.count(n, "n") < len(coupling.points):
        raise ValueError(f"n must be at least the number of points, {len(coupling.points)}, got {n}")
    seed = int(integers(2**62, 1, generator=generator, like=coupling.points))
    share = n * coupling.weights
    capacity = (share + 1e-9).long()  # rounding of n b_i must not lose a unit where it is an integer
    rest = n - int(capacity.sum())
    capacity[torch.topk(share - capacity, rest).indices] += 1  # largest remainders
    used = atoms.of_point >= 0
    free = torch.zeros(len(atoms), dtype=torch.int64, device=device).index_add_(0, atoms.of_point[used], capacity[used])
    empty = PairList(coupling, seed, device.type, torch.zeros(n, dtype=torch.int64, device=device), 0.0)
    together = max(min(room(device, len(atoms)), MOST) // BLOCK, 1)
    index, own = empty.index, torch.zeros(n, dtype=torch.float32, device=device)
    for place, x in empty._stretches(together):
        index[place] = atom = scores.assign(x, generator=generator)
        own[place] = scores.at(x, atom)
    first = index.clone()
    while True:
        counts = torch.bincount(index, minlength=len(atoms))
        open_ = torch.nonzero(counts < free)[:, 0]
        if not len(open_):
            break
        candidates, among = (counts > free)[index], scores.among(open_)
        score, to = torch.full_like(own, -torch.inf), torch.zeros_like(index)
        for place, x in empty._stretches(together):
            some = candidates[place]
            if some.any():
                value, where = among.best(x[some])
                score[place][some], to[place][some] = value, open_[where]
        order = torch.nonzero(candidates)[:, 0]
        order = order[torch.argsort(own[order] - score[order], stable=True)]
        order = order[_rank(index[order]) < (counts - free)[index[order]]]
        order = order[_rank(to[order]) < (free - counts)[to[order]]]
        index[order], own[order] = to[order], score[order]
    moved = float((index != first).double().mean())
    # From atoms to points: within an atom the places are handed out at random, as many as each copy's capacity.
    shuffled = permutation(n, generator=generator, like=coupling.points)
    by_atom = shuffled[torch.argsort(index[shuffled], stable=True)]
    index[by_atom] = torch.repeat_interleave(atoms.members, capacity[atoms.members])
    return PairList(coupling, seed, device.type, index, moved)


def _rank(groups: Tensor) -> Tensor:
    """How many earlier entries are equal to each entry."""
    order = torch.argsort(groups, stable=True)
    ordered = groups[order]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(groups), device=groups.device) - torch.searchsorted(ordered, ordered)
    return rank
