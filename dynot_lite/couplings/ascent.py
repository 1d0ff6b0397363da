"""Averaged stochastic ascent of the semi-dual of noise and atoms: where it starts, its steps, and what can be saved of it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base import ranks
from dynot_lite.couplings.atoms import Atoms, Noise
from dynot_lite.couplings.certificate import Certificate
from dynot_lite.couplings.search import Scores, room
from dynot_lite.laws.gaussian import Gaussian, monge_map

__all__ = ["Ascent", "start"]

DECAY, AVERAGING = 0.6, 1  # exponents of the steps and of the weights of the averaged iterates
HOLD, LOOK = 0.25, 0.25  # on a GPU: the χ² of an iterate in units of that of its batch, looked at every quarter of an iteration
WIDE = 512  # dimensions from which on the Gaussian start, the dearest, is never the best for normal noise
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
        count, size, stop = len(self.atoms), ranks.count(group), check.positive(stop, "stop")
        least = min(max(count // 2, 32), 1024)
        # With ε > 0 the shares of a noise vary less than hits, and the estimate of χ² below is not that of theirs.
        most = 0 if self.epsilon else int(ranks.total(self.iterate.new_tensor(room(self.iterate.device, count)), group))
        rate = self.scale / (count * self.atoms.mass).clamp(min=1)
        wanted, seen, excess = least, 0, torch.zeros_like(rate[0])
        while self.noises < stop * count:
            share = max(max(min(wanted, math.ceil(stop * count) - self.noises), least) // size, 1)
            batch, slow = share * size, (1 + self.iterations) ** -DECAY
            scores = _scores(self.atoms, self.noise, self.epsilon, self.iterate)
            hits = ranks.total(scores.hits(self.noise.flat(self.noise.draw(share, generator=generator))), group)
            self.iterate.addcmul_(rate, batch * self.atoms.mass - hits, value=min(slow, count / batch))
            self.noises, self.steps = self.noises + batch, self.steps + 1
            self.average.lerp_(self.iterate, (AVERAGING + 1) * batch / (self.noises + AVERAGING * batch))
            if most > least:
                # A batch of B shows the χ² of its iterate, and N/B of its own: it may grow while the latter is four times as
                # large. Were only the step decisive, cells that answer faster than the mean one (in the plane) would swing.
                excess += (hits * (hits - 1) / self.atoms.mass).sum() / (batch - 1) - batch
                seen += batch
                if seen >= LOOK * count:
                    chi2 = ranks.total(excess, group).item() / (seen * size)  # one number on all cards
                    wanted = int(min(HOLD * count / max(chi2, slow), 2 * wanted, most))
                    seen = 0
                    excess.zero_()
            yield batch


def start(atoms: Atoms, noise: Noise, epsilon: float, *, generator: torch.Generator | None, group=None) -> Ascent:
    """The moments of the noise, the best of three initial potentials, and the mean gap there."""
    epsilon = check.positive(epsilon, "epsilon", or_zero=True)
    x, size = noise.draw(CALIBRATION, generator=generator).double(), ranks.count(group)
    flat, y, count = x.flatten(1), atoms.centred, len(atoms)
    dim = flat.shape[1]
    wide = dim >= WIDE and noise.law == "normal"
    if noise.law == "normal":
        centre, cov_noise = torch.zeros_like(flat[0]), torch.eye(dim).to(flat)
    else:
        moments = ranks.total(torch.cat([flat.mean(0)[None], flat.mT @ flat / len(x)]), group) / size
        noise.centre = centre = moments[0]
        cov_noise = moments[1:] - centre.outer(centre)
        if not cov_noise.trace() > 0:
            raise ValueError("noise must vary: all the points it gave are the same")
    size_noise = cov_noise.trace()  # so that nothing of the fourth power of the unit is in single precision
    unit = cov_noise / size_noise
    # Of N normal variables of variance v the largest is about (2 v ln N)^½.
    spread = atoms.squares / dim if wide else (y @ unit.float() * y).sum(1).clamp(min=0)
    starts = [torch.zeros_like(atoms.mass), -(2 * math.log(count) * size_noise * spread.double()).sqrt()]
    if not wide:
        blocks = (root[:, None] * block for root, block in zip(atoms.mass.sqrt().split(2**16), y.split(2**16), strict=True))
        cov = sum((block.mT @ block for block in blocks), torch.zeros_like(cov_noise))  # float64: rounding makes it indefinite
        cov = 0.5 * (cov + cov.mT)
        ridge = 1e-6 * torch.eye(dim).to(cov)
        data, source = (Gaussian(torch.zeros_like(centre), c + ridge * c.trace() / dim) for c in (cov, cov_noise))
        starts.insert(1, -0.5 * (y @ monge_map(data, source).matrix.float() * y).sum(1).double())

    def mean(values: Tensor) -> float:
        return float(ranks.total(values.double().mean(), group)) / size

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
    h = (potentials - potentials.mean()).float()
    return Scores(noise, atoms.centred, h, atoms.log_mass, epsilon, atoms.rounded)
