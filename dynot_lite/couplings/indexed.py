"""Pair samplers that know the index of the point each noise goes to: whatever belongs to the points goes along."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base.samplers import PairSampler

__all__ = ["IndexedPairs"]


class IndexedPairs(ABC):
    """Pairs of noise and ``points`` (N, ...); ``conditions``, if any, are what :meth:`pair` always returns with the points."""

    def __init__(self, points: Tensor, *conditions: Tensor):
        self.points, self._conditions = points, conditions

    @abstractmethod
    def pair_index(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """``n`` noises and the index of the point each one goes to, shapes (n, ...) and (n,)."""

    def pair(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """``n`` pairs (x0, x1) of shape (n, ...), then the conditions that the object was made with: a pair sampler."""
        return self.pairs()(n, generator=generator)

    def pairs(self, *conditions) -> PairSampler:
        """The pair sampler of (x0, x1, *conditions): what :meth:`pair` returns, then what belongs to the points x1 (labels, say).

        Each of ``conditions`` is an array of any kind with one row per point, (N, ...); a ValueError if it has not.
        """
        given = (check.rows(condition, len(self.points), "conditions", like=self.points) for condition in conditions)
        rows = [*self._conditions, *given]

        def sample(n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
            x0, index = self.pair_index(n, generator=generator)
            return (x0, *(values[index] for values in (self.points, *rows)))

        return sample
