"""The two laws of a semidiscrete problem as its solver sees them: distinct weighted points, and noise.

Points and noise may have any shape (n, ...). Here they are flattened, centred and rounded to float32, and nowhere else.
"""

import functools
import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base import randomness, samplers
from dynot_lite._base.differentiation import refuse_graph
from dynot_lite.couplings.rounding import PRECISIONS, Rounded

__all__ = ["Atoms", "Noise", "batch"]


def batch(x, name: str, *, like: Tensor) -> Tensor:
    """``x`` as a batch (n, ...) of points of the shape of those in ``like``, on their device."""
    x = check.as_tensor(x, name).to(like.device)
    if x.ndim != like.ndim or x.shape[1:] != like.shape[1:] or not len(x):
        shape = ", ".join(map(str, like.shape[1:]))
        raise ValueError(f"{name} must be a non-empty array of shape (n, {shape}), got {tuple(x.shape)}")
    return x


class Atoms:
    """The K distinct points of positive weight, and which points each of them stands for.

    Attributes:
        points, weights: as given, shapes (N, ...) and (N,), the weights in float64.
        centred: the atoms less ``mean`` (d,), shape (K, d), float32.
        mass, log_mass: b, shape (K,), the weights of all copies together, in float64, and their logarithms in float32.
        squares: the squared lengths of ``centred``, shape (K,), float32.
        of_point: the atom of every point, shape (N,), −1 where the weight is zero.
        members: the points of positive weight, ordered by atom.
        rounded: the atoms in a reduced ``precision``, None in float32.
    """

    def __init__(self, points, *, weights=None, precision: str = "float32"):
        self.points = points = check.points(points, "points")
        refuse_graph(points, "points")
        refuse_graph(weights, "weights")
        n = len(points)
        if n < 2:
            raise ValueError(f"points must have shape (N, ...) with N at least 2, got {tuple(points.shape)}")
        weights = torch.full((n,), 1 / n, dtype=torch.float64) if weights is None else check.weights(weights, n).detach().double()
        self.weights = weights = weights.to(points.device)
        kept = torch.nonzero(weights > 0)[:, 0]
        given = (points if len(kept) == n else points[kept]).flatten(1)
        mean = weights[kept].to(given) @ given  # a point near the mean will do, as long as it is the same everywhere
        self.mean = mean.double()
        self.centred, inverse = torch.unique((given - mean).float().add_(0.0), dim=0, return_inverse=True)
        self.squares = torch.cat([block.square().sum(1) for block in self.centred.split(2**16)])
        if not check.finite(self.squares):
            raise ValueError("points must have squared distances that fit single precision")
        if len(self) < 2:
            raise ValueError(f"points must have at least two distinct points of positive weight, got {len(self)}")
        order = torch.argsort(inverse, stable=True)
        self.members, self.of_point = kept[order], torch.full((n,), -1, device=kept.device)
        self.of_point[kept] = inverse
        self._first = torch.searchsorted(inverse[order], torch.arange(len(self) + 1, device=kept.device))
        self.mass = torch.zeros(len(self), dtype=torch.float64, device=kept.device).index_add_(0, inverse, weights[kept])
        self.mass /= self.mass.sum()
        self.log_mass = self.mass.log().float()
        self._cumulative = torch.cat([weights.new_zeros(1), weights[self.members].cumsum(0)])
        self.rounded = None if check.choice(precision, "precision", PRECISIONS) == "float32" else Rounded(self.centred, precision)

    def __len__(self) -> int:
        return len(self.centred)

    def member(self, atom: Tensor, *, generator: torch.Generator | None) -> Tensor:
        """A point for each atom: where several coincide, one of them with probabilities in proportion to their weights."""
        if len(self.members) == len(self):
            return self.members[atom]
        low, high = self._cumulative[self._first[atom]], self._cumulative[self._first[atom + 1]]
        u = randomness.uniform(len(atom), generator=generator, like=low)
        place = torch.searchsorted(self._cumulative, low + u * (high - low), right=True) - 1
        return self.members[torch.minimum(torch.maximum(place, self._first[atom]), self._first[atom + 1] - 1)]

    def to_points(self, values: Tensor) -> Tensor:
        """A value per atom as one per point (that of some atom, where the weight is zero)."""
        return check.rows(values, len(self), "values", like=self.points)[self.of_point.clamp(min=0)]

    def from_points(self, values: Tensor) -> Tensor:
        """The reverse of :meth:`to_points`."""
        return check.rows(values, len(self.points), "values", like=self.points)[self.members[self._first[:-1]]]

    def constants(self, centre: Tensor) -> Tensor:
        """½|y|² − ⟨y − mean, centre⟩: what potentials for ½‖x − y‖² have beyond those for −⟨x − centre, y − mean⟩."""
        centre = check.as_tensor(centre, "centre", like=self.mean)
        if centre.shape != self.mean.shape:
            raise ValueError(f"centre must have shape {tuple(self.mean.shape)}, got {tuple(centre.shape)}")
        blocks = (block.double() for block in self.centred.split(2**16))
        return torch.cat([0.5 * (block + self.mean).square().sum(1) - block @ centre for block in blocks])

    @functools.cached_property
    def _digest(self) -> str:
        flat = self.points.flatten(1)
        digest = hashlib.sha256(str((tuple(flat.shape), flat.dtype)).encode())
        for tensor in (flat, self.weights):
            digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """A digest of points, as (N, d), and weights."""
        return self._digest


class Noise:
    """A ``law`` of noise, "normal" or a sampler, and the ``centre`` (d,) near its mean that it is scored relative to."""

    def __init__(self, law: str | Callable, *, like: Tensor):
        if not (law == "normal" or callable(law)):
            raise ValueError(f'noise must be "normal" or a sampler (n, generator=) -> (n, ...), got {law!r}')
        self.law, self._like = law, like
        self.centre = torch.zeros(like[0].numel(), dtype=torch.float64, device=like.device)

    def draw(self, n: int, *, generator: torch.Generator | None) -> Tensor:
        """``n`` noises of the shape of the points, on their device; normal ones in float32, as the search is."""
        check.count(n, "n")
        shape = tuple(self._like.shape[1:])
        if callable(self.law):
            return samplers.draw(self.law, n, generator=generator, name="noise", shape=shape).detach().to(self._like.device)
        return randomness.normal(n, *shape, generator=generator, like=self._like, dtype=torch.float32)

    def flat(self, x: Tensor) -> Tensor:
        """What the search works on, for noise x that :meth:`draw` gave: :meth:`centred` without another check of normal noise."""
        return self.centred(x) if callable(self.law) else x.flatten(1)

    def centred(self, x: Tensor) -> Tensor:
        """x − centre, flattened, in float32, without a gradient: what the search works on."""
        x = batch(x, "x", like=self._like).detach().flatten(1)
        single = (x - self.centre.to(x)).float() if callable(self.law) else x.float()
        if single is not x and not check.finite(single):
            raise ValueError(f"noise x must fit single precision, got numbers up to {x.abs().max().item():.3g}")
        return single
