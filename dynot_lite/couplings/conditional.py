"""Pair samplers made of semidiscrete couplings: lists of pairs drawn in advance, one potential per class, a joint cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite.couplings import search as kernels
from dynot_lite.couplings.semidiscrete import SemidiscreteCoupling, SemidiscreteFit

__all__ = ["ClassCouplings", "JointCoupling", "PairList", "prepare"]

_BLOCK = 256  # noises that one seed stands for


@dataclass(frozen=True, eq=False)
class PairList:
    """Pairs drawn in advance, as seeds of blocks of noise and indices: 8 bytes a pair, and no search when they are used.

    Attributes:
        coupling: the coupling the pairs are of.
        seed: block b is the noise that a generator seeded with seed + b gives.
        device: the kind of device whose generator that is, "cpu" or "cuda": the others give other numbers.
        index: the point each noise goes to, shape (n,). Point i occurs n b_i times (rounded to add up to n): exactly.
        moved: the fraction of noises that are not in the cell of their point; that is the price of exact counts.
    """

    coupling: SemidiscreteCoupling = field(repr=False)
    seed: int
    device: str
    index: Tensor = field(repr=False)
    moved: float

    def __len__(self) -> int:
        return len(self.index)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Places in the list and their noise, block by block; the last block may be short."""
        for start in range(0, len(self), _BLOCK):
            place = slice(start, min(start + _BLOCK, len(self)))
            yield place, self._noise(start // _BLOCK)[: place.stop - start]

    def _noise(self, block: int) -> Tensor:
        return self.coupling._draw(_BLOCK, torch.Generator(self.device).manual_seed(self.seed + block))

    def pair(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """``n`` pairs (x0, x1): whole blocks of the list in random order, all of it before any block comes again.

        A pair sampler, and fastest for multiples of 256. Every call starts a new order.
        """
        check.count(n, "n")
        blocks, points = -(-len(self) // _BLOCK), self.coupling.points
        x0, places, missing = [], [], n
        while missing > 0:
            for block in torch.randperm(blocks, generator=generator, device=kernels.device(generator, points)).tolist():
                start = block * _BLOCK
                size = min(_BLOCK, len(self) - start, missing)
                x0.append(self._noise(block)[:size])
                places.append(torch.arange(start, start + size))
                missing -= size
                if not missing:
                    break
        index = self.index[torch.cat(places).to(self.index.device)]
        return torch.cat(x0).to(points.dtype), points[index.to(points.device)]

    def cost(self) -> float:
        """The mean of ½‖x0 − x1‖² over the list."""
        points, total = self.coupling.points, 0.0
        for place, x in self.blocks():
            total += 0.5 * float((x.double() - points[self.index[place].to(points.device)].double()).square().sum())
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
    offsets, atoms = coupling._offsets(), coupling._atoms
    points, device = len(coupling.points), coupling.points.device
    if check.count(n, "n") < points:
        raise ValueError(f"n must be at least the number of points, {points}, got {n}")
    home = kernels.device(generator, coupling.points)
    seed = int(torch.randint(2**62, (1,), generator=generator, device=home))
    share = n * coupling.weights
    capacity = (share + 1e-9).long()  # rounding of n b_i must not lose a unit where it is an integer
    rest = n - int(capacity.sum())
    capacity[torch.topk(share - capacity, rest).indices] += 1  # largest remainders
    used = coupling._atom_of >= 0
    room = torch.zeros(len(atoms), dtype=torch.int64, device=device).index_add_(0, coupling._atom_of[used], capacity[used])
    empty = PairList(coupling, seed, device.type, torch.zeros(n, dtype=torch.int64, device=device), 0.0)
    index, own = empty.index, torch.zeros(n, device=device)
    for place, x in empty.blocks():
        index[place] = atom = coupling._assign_atoms(x, generator)
        own[place] = (coupling._centred(x) * atoms[atom]).sum(1) + offsets[atom]
    first = index.clone()
    while True:
        counts = torch.bincount(index, minlength=len(atoms))
        open_ = torch.nonzero(counts < room)[:, 0]
        if not len(open_):
            break
        candidates = (counts > room)[index]
        score, to = torch.full_like(own, -torch.inf), torch.zeros_like(index)
        for place, x in empty.blocks():
            some = candidates[place]
            if some.any():
                value, where = kernels.best(coupling._centred(x[some]), atoms[open_], offsets[open_])
                score[place][some], to[place][some] = value, open_[where]
        order = torch.nonzero(candidates)[:, 0]
        order = order[torch.argsort(own[order] - score[order], stable=True)]
        order = order[_rank(index[order]) < (counts - room)[index[order]]]
        order = order[_rank(to[order]) < (room - counts)[to[order]]]
        index[order], own[order] = to[order], score[order]
    moved = float((index != first).double().mean())
    # From atoms to points: within an atom the places are handed out at random, as many as each copy's capacity.
    shuffled = torch.randperm(n, generator=generator, device=home).to(device)
    by_atom = shuffled[torch.argsort(index[shuffled], stable=True)]
    index[by_atom] = torch.repeat_interleave(coupling._members, capacity[coupling._members])
    return PairList(coupling, seed, device.type, index, moved)


def _rank(groups: Tensor) -> Tensor:
    """How many earlier entries are equal to each entry."""
    order = torch.argsort(groups, stable=True)
    ordered = groups[order]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(groups), device=groups.device) - torch.searchsorted(ordered, ordered)
    return rank


class ClassCouplings:
    """One semidiscrete coupling per class: the limit β → ∞ of the joint cost with the class as condition.

    Each class is matched with all of the noise, so that the law of x0 given the label is the law of the noise: guidance and
    unconditional use of the model rely on that.

    Args:
        points: shape (N, d).
        labels: shape (N,), integers; every class needs two distinct points.
        epsilon: as in :class:`SemidiscreteCoupling`.

    Attributes:
        couplings: label -> SemidiscreteCoupling.
    """

    def __init__(self, points, labels, *, epsilon: float = 0.0):
        points = check.points(points, "points").detach()
        labels = torch.as_tensor(labels, device=points.device)
        if points.ndim != 2 or labels.shape != points.shape[:1] or labels.is_floating_point() or labels.dtype == torch.bool:
            raise ValueError(f"labels must be integers of shape (N,) for points (N, d), got {labels.dtype} {tuple(labels.shape)}")
        self.couplings: dict[int, SemidiscreteCoupling] = {}
        for label in torch.unique(labels).tolist():
            try:
                self.couplings[label] = SemidiscreteCoupling(points[labels == label], epsilon=epsilon)
            except ValueError as error:
                raise ValueError(f"class {label}: {error}") from error
        self._labels = torch.tensor(list(self.couplings), device=points.device)
        self._frequency = torch.stack([(labels == label).sum() for label in self.couplings]).double()

    def fit(self, noise="normal", **options) -> dict[int, SemidiscreteFit]:
        """Fit every class with the options of :meth:`SemidiscreteCoupling.fit`; label -> result."""
        return {label: coupling.fit(noise, **options) for label, coupling in self.couplings.items()}

    def pair(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """``n`` independent triples (x0, x1, labels), classes with the frequencies of the data."""
        frequency = self._frequency.to(kernels.device(generator, self._frequency))
        chosen = torch.multinomial(frequency, check.count(n, "n"), replacement=True, generator=generator).to(self._labels.device)
        like = next(iter(self.couplings.values())).points
        x0, x1 = like.new_empty(n, like.shape[1]), like.new_empty(n, like.shape[1])
        for k, coupling in enumerate(self.couplings.values()):
            places = torch.nonzero(chosen == k)[:, 0]
            if len(places):
                x0[places], x1[places] = coupling.pair(len(places), generator=generator)
        return x0, x1, self._labels[chosen]


class JointCoupling:
    """The coupling for a continuous condition z: the cost ½‖x − y‖² + (β/2)‖z − z'‖² between (noise, z) and (point, z').

    It is the semidiscrete coupling of the augmented points (y, √β z') with augmented noise (x, √β z), z drawn independently
    of x. β → 0 ignores the condition; the larger β, the closer the two conditions of a pair and the weaker the matching of x.

    Args:
        points: shape (N, d).
        conditions: shape (N, k), of comparable scale.
        beta: > 0.
        epsilon: as in :class:`SemidiscreteCoupling`.

    Attributes:
        coupling: the SemidiscreteCoupling of the augmented points.
    """

    def __init__(self, points, conditions, *, beta: float, epsilon: float = 0.0):
        points = check.points(points, "points").detach()
        conditions = check.points(conditions, "conditions", like=points).detach()
        if points.ndim != 2 or conditions.ndim != 2 or len(conditions) != len(points):
            raise ValueError(f"conditions must be (N, k) for points (N, d), got {tuple(conditions.shape)}, {tuple(points.shape)}")
        self._root, self._dim, self._conditions = check.positive(beta, "beta") ** 0.5, points.shape[1], conditions
        self.coupling = SemidiscreteCoupling(torch.cat([points, self._root * conditions], 1), epsilon=epsilon)
        self._law: tuple | None = None

    def fit(self, noise="normal", *, conditions=None, **options) -> SemidiscreteFit:
        """Fit the potentials of the augmented points.

        Args:
            noise: the law of x, as in :meth:`SemidiscreteCoupling.fit`.
            conditions: a sampler ``(n, generator=) -> (n, k)`` of the law of z; those of the data, resampled, if left out.
            options: the other options of :meth:`SemidiscreteCoupling.fit`.
        """
        if self._law is not None and self._law[1:] == (noise, conditions):
            return self.coupling.fit(self._law[0], **options)
        device, dtype = self._conditions.device, self._conditions.dtype

        def resample(n: int, *, generator: torch.Generator | None = None) -> Tensor:
            home = kernels.device(generator, self._conditions)
            return self._conditions[torch.randint(len(self._conditions), (n,), generator=generator, device=home).to(device)]

        def augmented(n: int, *, generator: torch.Generator | None = None) -> Tensor:
            if noise == "normal":
                x = torch.randn(n, self._dim, generator=generator, device=kernels.device(generator, self._conditions))
            else:
                x = noise(n, generator=generator)
            x = check.points(x, "noise(n)", dim=self._dim).to(device, dtype)
            z = check.points((conditions or resample)(n, generator=generator), "conditions(n)", dim=self._conditions.shape[1])
            return torch.cat([x, self._root * z.to(x)], 1)

        if noise != "normal" and not callable(noise):
            raise ValueError(f'noise must be "normal" or a sampler (n, generator=) -> (n, d), got {noise!r}')
        result = self.coupling.fit(augmented, **options)
        self._law = augmented, noise, conditions
        return result

    def pair(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """``n`` independent triples (x0, x1, z), z the condition of the point x1, shapes (n, d), (n, d), (n, k)."""
        x0, index = self.coupling.pair_index(n, generator=generator)
        return x0[:, : self._dim], self.coupling.points[index, : self._dim], self._conditions[index]
