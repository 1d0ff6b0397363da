"""Averaged stochastic ascent of the semi-dual of noise and atoms: where it starts, its steps, and what can be saved of it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite.couplings.atoms import Atoms, Noise
from dynot_lite.couplings.certificate import Certificate, ranks, total
from dynot_lite.couplings.search import Scores
from dynot_lite.laws.gaussian import Gaussian, monge_map

__all__ = ["Ascent", "start"]

DECAY, AVERAGING = 0.6, 1  # exponents of the steps and of the weights of the averaged iterates
CALIBRATION = 1024  # noises that choose the start; a quarter of them measure the gap


@dataclass(eq=False)
class Ascent:
    """The state of an ascent: ``iterate`` and ``average`` are potentials (K,) for −⟨x − centre, y − mean⟩, in float64.

    ``scale`` is the unit of the steps, ``history`` has (iterations, χ², upper bound) of every evaluation.
    """

    atoms: Atoms
    noise: Noise
    epsilon: float
    iterate: Tensor
    average: Tensor
    scale: float
    noises: int = 0
    steps: int = 0
    history: list[tuple[float, float, float]] = field(default_factory=list)

    @property
    def iterations(self) -> float:
        """Noises used, divided by the number of atoms."""
        return self.noises / len(self.atoms)

    def scores(self) -> Scores:
        """The scores of the averaged potentials."""
        return _scores(self.atoms, self.noise, self.epsilon, self.average)

    def potentials(self) -> Tensor:
        """The averaged potentials as those for ½‖x − y‖², in the gauge of :meth:`scores`."""
        return self.average - self.average.mean() + self.atoms.constants(self.noise.centre)

    def certificate(self) -> Certificate:
        """An empty certificate of the averaged potentials."""
        return Certificate(self.atoms, self.potentials(), self.scores())

    def run(self, stop: float, *, generator: torch.Generator | None, group=None) -> Iterator[int]:
        """Ascend until ``stop`` iterations; each step yields the number of its noises."""
        count, size, stop = len(self.atoms), ranks(group), check.positive(stop, "stop")
        share = max(min(max(count // 2, 32), 1024) // size, 1)
        batch = share * size
        rate = self.scale / (count * self.atoms.mass).clamp(min=1)
        while self.noises < stop * count:
            scores = _scores(self.atoms, self.noise, self.epsilon, self.iterate)
            hits = total(scores.sums(self.noise.draw(share, generator=generator)).shares, group)
            gain = min((1 + self.iterations) ** -DECAY, count / batch)
            self.iterate.addcmul_(rate, batch * self.atoms.mass - hits, value=gain)
            self.noises, self.steps = self.noises + batch, self.steps + 1
            self.average.lerp_(self.iterate, (AVERAGING + 1) / (self.steps + AVERAGING))
            yield batch


def start(atoms: Atoms, noise: Noise, epsilon: float, *, generator: torch.Generator | None, group=None) -> Ascent:
    """The moments of the noise, the best of three initial potentials, and the mean gap there."""
    epsilon = check.positive(epsilon, "epsilon", or_zero=True)
    x, size = noise.draw(CALIBRATION, generator=generator).double(), ranks(group)
    flat, y, count = x.flatten(1), atoms.centred, len(atoms)
    moments = total(torch.cat([flat.mean(0)[None], flat.mT @ flat / len(x)]), group) / size
    centre, cov_noise = moments[0], moments[1:] - moments[0].outer(moments[0])
    if noise.law == "normal":
        cov_noise = torch.eye(len(centre)).to(centre)
    elif not cov_noise.trace() > 0:
        raise ValueError("noise must vary: all the points it gave are the same")
    else:
        noise.centre = centre
    blocks = (root[:, None] * block for root, block in zip(atoms.mass.sqrt().split(2**16), y.split(2**16), strict=True))
    cov = sum((block.mT @ block for block in blocks), torch.zeros_like(cov_noise))  # in float64, or rounding makes it indefinite
    cov = 0.5 * (cov + cov.mT)
    ridge = 1e-6 * torch.eye(len(centre)).to(cov)
    data, source = (Gaussian(torch.zeros_like(centre), c + ridge * c.trace() / len(centre)) for c in (cov, cov_noise))
    size_noise = cov_noise.trace()  # so that nothing of the fourth power of the unit is in single precision
    starts = [
        torch.zeros_like(atoms.mass),
        -0.5 * (y @ monge_map(data, source).matrix.float() * y).sum(1).double(),
        # Of N normal variables of variance v the largest is about (2 v ln N)^½.
        -(2 * math.log(count) * size_noise * (y @ (cov_noise / size_noise).float() * y).sum(1).clamp(min=0).double()).sqrt(),
    ]

    def mean(values: Tensor) -> float:
        return float(total(values.double().mean(), group)) / size

    found = []
    for h in starts:
        gap = mean(_scores(atoms, noise, epsilon, h).gaps(x[: len(x) // 4]))
        h = h + gap * (count * atoms.mass).log()  # what sets the masses right to first order where the weights differ
        value = mean(_scores(atoms, noise, epsilon, h).sums(x).value)
        found.append((float(atoms.mass @ (h - h.mean())) - value, gap, h))
    if not math.isfinite(sum(value + gap for value, gap, _ in found)):
        raise ValueError(
            "points, noise and epsilon must be of a size that single precision holds, got scores that are not finite"
        )
    _, gap, h = max(found, key=lambda candidate: candidate[0])
    # The scale on which the mass of a cell responds: the gap without regularisation, ε where that is larger.
    return Ascent(atoms, noise, epsilon, iterate=h, average=h.clone(), scale=gap + epsilon)


def _scores(atoms: Atoms, noise: Noise, epsilon: float, potentials: Tensor) -> Scores:
    return Scores(noise, atoms.centred, (potentials - potentials.mean()).float(), atoms.log_mass, epsilon)
