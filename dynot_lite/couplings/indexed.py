"""Pair samplers that know the index of the point each noise goes to: whatever belongs to the points goes along."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base.samplers import PairSampler, function, values

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

    def loader(
        self, n: int, *, labels=None, augment: Callable | None = None, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, ...]]:
        """An endless iterator of batches (x0, x1, *conditions), for a training loop of one's own.

        Every batch is fresh noise and its points. ``training.fit`` takes :meth:`pair`, or :meth:`pairs` with labels, instead.

        Args:
            n: pairs in a batch.
            labels: what belongs to the points and comes last in each batch, (N, ...), as in :meth:`pairs`.
            augment: ``(x1, generator=) -> x1`` of the same shape: random flips, shifts and the like of the points that were
                chosen. The noise of a pair was chosen for the point as it is, so the coupling is that of the data without
                augmentation, whose marginal becomes the augmented law; small changes hardly spoil it. For a coupling that is
                optimal for the augmented law, too, put the changed copies among the points.
            generator: of all random numbers; ``augment`` gets it, too.

        Raises:
            ValueError: n < 1, labels of another length; in the iteration, ``augment`` that returns another shape or
                values that are not finite. TypeError: ``augment`` is no function.
        """
        check.count(n, "n")
        given = () if labels is None else (check.rows(labels, len(self.points), "labels", like=self.points),)
        sample, augment = self.pairs(*given), None if augment is None else function(augment, "augment")

        def batches() -> Iterator[tuple[Tensor, ...]]:
            while True:
                x0, x1, *conditions = sample(n, generator=generator)
                if augment is not None:
                    x1 = check.as_tensor(values(augment(x1, generator=generator), x1, "augment"), "what augment returns")
                yield x0, x1, *conditions

        return batches()
