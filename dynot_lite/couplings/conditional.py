"""Semidiscrete couplings for conditional models: one per class, or one of a joint cost."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base import randomness, samplers
from dynot_lite._base.differentiation import refuse_graph
from dynot_lite._base.results import Result
from dynot_lite.couplings.atoms import Noise
from dynot_lite.couplings.indexed import IndexedPairs
from dynot_lite.couplings.semidiscrete import SemidiscreteCoupling, SemidiscreteFit

__all__ = ["ClassCouplings", "ClassFit", "JointCoupling"]


@dataclass(frozen=True, kw_only=True)
class ClassFit(Result):
    """The results of all classes, converged if each of them is.

    Attributes:
        results: label -> SemidiscreteFit.
    """

    results: dict[int, SemidiscreteFit]


class ClassCouplings(IndexedPairs):
    """One semidiscrete coupling per class: the limit β → ∞ of the joint cost with the class as condition.

    Each class is matched with all of the noise, so that the law of x0 given the label is the law of the noise: guidance and
    unconditional use of the model rely on that. ``pair`` gives (x0, x1, labels), classes with the frequencies of the data.

    Args:
        points: shape (N, ...).
        labels: shape (N,), integers; every class needs two distinct points.
        epsilon, precision: as in :class:`SemidiscreteCoupling`.

    Attributes:
        couplings: label -> SemidiscreteCoupling.
        result: what the last :meth:`fit` returned, None before.
    """

    def __init__(self, points, labels, *, epsilon: float = 0.0, precision: str = "float32"):
        points = check.points(points, "points")
        labels = check.rows(labels, len(points), "labels", like=points)
        if labels.shape != points.shape[:1] or labels.is_floating_point() or labels.dtype == torch.bool:
            raise ValueError(f"labels must be integers of shape ({len(points)},), got {labels.dtype} {tuple(labels.shape)}")
        super().__init__(points, labels.long())
        self.couplings: dict[int, SemidiscreteCoupling] = {}
        self._places: list[Tensor] = []
        self.result: ClassFit | None = None
        for label in torch.unique(labels).tolist():
            self._places.append(torch.nonzero(labels == label)[:, 0])
            if len(self._places[-1]) < 2:
                raise ValueError(
                    f"class {label} has one of the points, and needs two: leave out both, or count it to another class"
                )
            try:
                self.couplings[label] = SemidiscreteCoupling(points[self._places[-1]], epsilon=epsilon, precision=precision)
            except ValueError as error:
                raise ValueError(f"class {label}: {error}") from error

    def fit(self, noise: str | Callable = "normal", **options) -> ClassFit:
        """Fit every class with the options of :meth:`SemidiscreteCoupling.fit`; ``callback`` gets the coupling of the class."""
        results = {label: coupling.fit(noise, **options) for label, coupling in self.couplings.items()}
        failed = [f"class {label}: {fit.reason}" for label, fit in results.items() if not fit.converged]
        reason = "; ".join(failed) or f"the upper bound of chi2 is below the tolerance in each of {len(results)} classes"
        self.result = ClassFit(converged=not failed, reason=reason, results=results)
        return self.result

    def pair_index(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """``n`` independent noises and the index of the point each one goes to, shapes (n, ...) and (n,)."""
        frequency = torch.tensor([len(places) for places in self._places], dtype=torch.float64, device=self.points.device)
        chosen = randomness.choices(frequency, n, generator=generator)
        x0, index = self.points.new_empty(n, *self.points.shape[1:]), torch.empty_like(chosen)
        for k, (places, coupling) in enumerate(zip(self._places, self.couplings.values(), strict=True)):
            rows = torch.nonzero(chosen == k)[:, 0]
            if len(rows):
                x0[rows], own = coupling.pair_index(len(rows), generator=generator)
                index[rows] = places[own]
        return x0, index


class JointCoupling(IndexedPairs):
    """The coupling for a continuous condition z: the cost ½‖x − y‖² + (β/2)‖z − z'‖² between (noise, z) and (point, z').

    It is the semidiscrete coupling of the augmented points (y, √β z') with augmented noise (x, √β z), z drawn independently
    of x. β → 0 ignores the condition; the larger β, the closer the two conditions of a pair and the weaker the matching of x.
    ``pair`` gives (x0, x1, z), z the condition of the point x1.

    Args:
        points: shape (N, ...).
        conditions: shape (N, ...), of at least two axes and of comparable scale.
        beta: > 0.
        epsilon, precision: as in :class:`SemidiscreteCoupling`.

    Attributes:
        coupling: the SemidiscreteCoupling of the augmented points, flattened.
    """

    def __init__(self, points, conditions, *, beta: float, epsilon: float = 0.0, precision: str = "float32"):
        points = check.points(points, "points")
        refuse_graph(points, "points")
        conditions = check.points(conditions, "conditions", like=points)
        refuse_graph(conditions, "conditions")
        if len(conditions) != len(points):
            raise ValueError(f"conditions must have one row for each of the {len(points)} points, got {tuple(conditions.shape)}")
        super().__init__(points, conditions)
        self._root = check.positive(beta, "beta") ** 0.5
        try:
            augmented = self._augment(points, conditions)
            self.coupling = SemidiscreteCoupling(augmented, epsilon=epsilon, precision=precision)
        except ValueError as error:
            raise ValueError(f"points with their conditions: {error}") from error
        self._law: tuple | None = None

    @property
    def result(self) -> SemidiscreteFit | None:
        """What the last :meth:`fit` returned, None before."""
        return self.coupling.result

    def _augment(self, x: Tensor, z: Tensor) -> Tensor:
        return torch.cat([x.flatten(1), self._root * z.flatten(1)], 1)

    def fit(self, noise: str | Callable = "normal", *, conditions: Callable | None = None, **options) -> SemidiscreteFit:
        """Fit the potentials of the augmented points.

        Args:
            noise: the law of x, as in :meth:`SemidiscreteCoupling.fit`.
            conditions: a sampler ``(n, generator=) -> (n, ...)`` of the law of z; those of the data, resampled, if left out.
            options: the other options of :meth:`SemidiscreteCoupling.fit`.
        """
        if self._law is not None and self._law[1:] == (noise, conditions):
            return self.coupling.fit(self._law[0], **options)
        law, (own,) = Noise(noise, like=self.points), self._conditions

        def augmented(n: int, *, generator: torch.Generator | None = None) -> Tensor:
            x = law.draw(n, generator=generator)
            if conditions is None:
                z = own[randomness.integers(len(own), n, generator=generator, like=own)]
            else:
                z = samplers.draw(conditions, n, generator=generator, name="conditions", shape=tuple(own.shape[1:]))
            return self._augment(x.to(own.dtype), z.to(own))

        result = self.coupling.fit(augmented, **options)
        self._law = augmented, noise, conditions
        return result

    def pair_index(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """``n`` independent noises x and the index of the point each one goes to, shapes (n, ...) and (n,)."""
        x0, index = self.coupling.pair_index(n, generator=generator)
        return x0[:, : self.points[0].numel()].reshape(n, *self.points.shape[1:]), index
