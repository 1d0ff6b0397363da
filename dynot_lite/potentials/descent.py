"""The machinery of ``dual.fit``: streams of points in balanced coordinates, the state of a run, its checkpoints.

Coordinates. For an invertible L the change x' = L (x - m0), y' = s² L^-T (y - m1) keeps convex potentials convex and the
semi-dual the same up to s² and constants. L = s Qᵀ A^½, with A the matrix of the Gaussian map, makes that map the identity and
Cov(x') = Cov(y') diagonal of trace d: the fit starts at Ψ' = ½|x'|² and its conjugate problems are well conditioned.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base import randomness, samplers
from dynot_lite.couplings.batches import exact_pairs
from dynot_lite.laws.gaussian import Gaussian, monge_map
from dynot_lite.potentials.conjugates import Window, quasi_newton
from dynot_lite.potentials.convex import ConvexPotential, LogSumExp, Quadratic
from dynot_lite.potentials.revival import revive

__all__: list[str] = []

DECAY = 0.6  # share of the run in which the learning rate falls to zero
LOW = 4  # the dimension up to which fresh points have solved neighbours, and errors are so small that the tolerance counts
PAIRED = 4  # the dimension up to which a fit starts from exact pairs: the higher it is, the further they are from the truth
PAIRED_SHARE = 0.2  # of the run: the pairs are drawn and Ψ is regressed on them
PAIRED_DECAY = 0.9  # share of the rest in which the learning rate falls to zero
PAIRS, PAIRS_EVERY = 4096, 350  # points of each law paired at a time, and steps of regression between two times
FINE = 0.25  # the learning rate after the regression, in units of that before
WARM_UP = 50  # steps
SOURCE = 2  # points of the source for each target point of a step: they need no conjugate points, which cost the most
REVIVALS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6)  # shares of the run at which what is idle is given back
REVIVED = 2048  # points of the source that tell which are idle
HELD_OUT = 1024  # points of each law for the bound
START = 2**14  # points of each law for the Gaussian start
TOLERANCE = 0.02  # mean error of the conjugate points at the full learning rate, in the coordinates of the fit
FINEST = 0.1  # up to dimension LOW the tolerance falls with the learning rate, to this share of it
DENSE = 64  # the dimension up to which a point keeps an inverse Hessian, d² numbers, and above it MEMORY secants, 2d numbers each
MEMORY = 12
PART = 256  # points differentiated at a time: their scores stay in the processor's cache
CHUNK = 2**13  # points drawn from a sampler at a time: a call costs about as much as a thousand points


class Stream:
    """Points of one law, batch after batch, in the coordinates of the fit; from a sampler, or from an array with replacement.

    Args:
        law: an array (n, d), or a callable (n, generator=) -> (n, d).
        name: what error messages call it.
    """

    def __init__(self, law, name: str, generator: torch.Generator):
        self.law, self.name, self.generator, self.change, self.dim = law, name, generator, None, None
        self.points = None if callable(law) else check.points(law, name).detach()
        first = self.points[:1] if self.points is not None else self._draw(2)
        if first.ndim != 2:
            raise ValueError(f"{name} must have points of shape (n, d), got {tuple(first.shape)}")
        self.dim, self.dtype, self.buffer = first.shape[1], first.dtype, first[:0]

    def sample(self, n: int) -> Tensor:
        """For the Gaussian start and the held-out points: all of an array if it has no more than ``n`` points."""
        if self.points is not None and len(self.points) <= n:
            return self.points
        return self._draw(n)

    def start(self, change: Callable[[Tensor], Tensor]) -> None:
        """From here on the points are given in other coordinates."""
        self.change, self.buffer = change, change(self.buffer)

    def __call__(self, n: int) -> Tensor:
        if len(self.buffer) < n:
            self.buffer = torch.cat([self.buffer, self.change(self._draw(max(CHUNK, n)))])
        batch, self.buffer = self.buffer[:n], self.buffer[n:]
        return batch

    def _draw(self, n: int) -> Tensor:
        if self.points is not None:
            return self.points[randomness.integers(len(self.points), n, generator=self.generator, like=self.points)]
        shape = None if self.dim is None else (self.dim,)
        return samplers.draw(self.law, n, generator=self.generator, name=self.name, shape=shape).detach()


@dataclass(frozen=True, eq=False)
class Coordinates:
    """The change x' = (x - m0) forwardᵀ, y' = (y - m1) backwardᵀ, with forwardᵀ backward = square·I."""

    mean0: Tensor
    mean1: Tensor
    forward: Tensor
    backward: Tensor
    square: float

    def source(self, x: Tensor) -> Tensor:
        return (x.to(self.mean0) - self.mean0) @ self.forward.T

    def target(self, y: Tensor) -> Tensor:
        return (y.to(self.mean1) - self.mean1) @ self.backward.T

    @classmethod
    def identity(cls, like: Tensor) -> "Coordinates":
        """No change, for a potential that the caller brings."""
        zero, eye = torch.zeros_like(like[0]), torch.eye(like.shape[1]).to(like)
        return cls(zero, zero, eye, eye, 1.0)

    @classmethod
    def balancing(cls, x0: Tensor, x1: Tensor) -> "Coordinates":
        """From samples; raises ValueError where their covariances have no Gaussian map with an inverse."""
        laws = []
        for points, name in ((x0, "source"), (x1, "target")):
            points = check.squares(points.to(x0.device, torch.float64), name)
            n, d = points.shape
            if n <= d:
                raise ValueError(f"{name} must have at least {d + 1} points for the Gaussian start, got {n}")
            law = Gaussian(points.mean(0), torch.atleast_2d(points.T.cov()))
            eigenvalues = torch.linalg.eigvalsh(law.cov)
            # Below this the variance is rounding: that of the samples' own dtype as they were given.
            floor = 100 * d * (torch.finfo(points.dtype).eps * points.abs().max() ** 2 + 1e-14 * eigenvalues[-1])
            if eigenvalues[0] <= floor:
                raise ValueError(
                    f"{name} must vary in every direction for the Gaussian start, got a covariance with eigenvalues from "
                    f"{eigenvalues[0].item():.3g} to {eigenvalues[-1].item():.3g}"
                )
            laws.append(law)
        values, vectors = torch.linalg.eigh(monge_map(*laws).matrix)
        root, inverse_root = ((vectors * values**power) @ vectors.T for power in (0.5, -0.5))
        common, basis = torch.linalg.eigh(root @ laws[0].cov @ root)
        square = (len(values) / common.sum()).item()
        forward, backward = (square**0.5 * basis.T @ matrix for matrix in (root, inverse_root))
        return cls(*(tensor.float() for tensor in (laws[0].mean, laws[1].mean, forward, backward)), square)

    def restore(self, balanced: LogSumExp) -> LogSumExp:
        """Ψ(x) = Ψ'(x')/s² + <m1, x> as a LogSumExp in the original coordinates (up to a constant)."""
        with torch.no_grad():
            potential = copy.deepcopy(balanced).double()
            forward, shift = self.forward.double(), self.forward.double() @ self.mean0.double()
            scaled = forward.T @ potential.quadratic.matrix @ forward / self.square
            offset = potential.quadratic.offset - potential.quadratic.matrix @ shift
            potential.quadratic = Quadratic(
                potential.dim,
                matrix=0.5 * (scaled + scaled.T),
                offset=forward.T @ offset / self.square + self.mean1.double(),
                strength=0.5 * torch.linalg.eigvalsh(scaled)[0].item(),
            )
            potential.heights.sub_(potential.slopes @ shift).div_(self.square)
            potential.slopes.copy_(potential.slopes @ forward / self.square)
            potential.log_temperature.sub_(math.log(self.square))
        return potential.to(balanced.slopes)


class HeldOut:
    """Fixed points that training never draws again, with their conjugate points, for a bound of W₂².

    Args:
        x, y: the points in their original coordinates.
    """

    def __init__(self, x: Tensor, y: Tensor, change: Coordinates):
        x, y = (points.to(change.mean0.device, torch.float64) for points in (x, y))
        self.x, self.y = change.source(x), change.target(y)
        (n, d), self.z = y.shape, self.y.clone()
        self.inverse = torch.eye(d).to(self.y).repeat(n, 1, 1) if d <= DENSE else self.y.new_zeros(n, 2 * MEMORY, d)
        # E|x|² + E|y|² - 2 L_OT(Ψ) = constant - 2 L_OT(Ψ')/s², where Ψ(x) = Ψ'(x')/s² + <m1, x>
        m0, m1 = change.mean0.double(), change.mean1.double()
        self.constant = x.square().sum(1).mean() + y.square().sum(1).mean() - 2 * (x.mean(0) @ m1 + (y.mean(0) - m1) @ m0)
        self.square = x.new_tensor(change.square)

    def bound(self, potential) -> float:
        """The held-out value of E|x|² + E|y|² - 2 L_OT(Ψ), the conjugates solved to 1e-3 √d (a bias of about 1e-6 d)."""
        quasi_newton(potential._gradient, self.y, self.z, self.inverse, tol=1e-3, max_iterations=40)
        conjugate = (self.y * self.z).sum(1).double() - potential._value(self.z).double()
        loss = potential._value(self.x).double().mean() + conjugate.mean()
        return (self.constant - 2 * loss / self.square).item()

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {name: tensor.clone() for name, tensor in vars(self).items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        vars(self).update({name: tensor.to(self.x.device) for name, tensor in state.items()})


class Pairs:
    """Exact pairs of samples of the two laws, in the coordinates of the fit, which become more.

    Args:
        size: points of each law that are paired at a time.
    """

    def __init__(self, x: Stream, y: Stream, size: int, generator: torch.Generator):
        self.streams, self.size, self.generator = (x, y), size, generator
        self.found: tuple[Tensor, ...] = ()

    def more(self) -> None:
        """Pair ``size`` fresh points of each law."""
        x, y = (stream(self.size) for stream in self.streams)
        new = x, y[exact_pairs(x, y)]
        self.found = tuple(map(torch.cat, zip(self.found, new, strict=True))) if self.found else new

    def batch(self, n: int) -> tuple[Tensor, Tensor]:
        """``n`` of the pairs, with replacement."""
        x, y = self.found
        rows = randomness.integers(len(x), n, generator=self.generator, like=x)
        return x[rows], y[rows]


class Run:
    """All that changes from step to step; see ``dual.fit`` for the arguments.

    Up to dimension PAIRED the default potential is first regressed on exact pairs of samples, E|∇Ψ(x) - y|²/2: that finds the
    places of the pieces, which the semi-dual finds slowly, and is off by the pairs' bias, which the semi-dual then removes.

    Args:
        pairs: points of each law that are paired at a time; 0 for a run without pairs.
    """

    def __init__(
        self,
        source,
        target,
        *,
        potential: ConvexPotential | None,
        size,
        loss,
        batch,
        learning_rate,
        generator,
        pairs: int = PAIRS,
    ):
        self.generator, self.estimator, self.given = generator, loss, potential is not None
        self.x, self.y = Stream(source, "source", generator), Stream(target, "target", generator)
        dims = [law.dim for law in (self.x, self.y, potential) if law is not None]
        if len(set(dims)) > 1:
            raise ValueError(f"source, target and potential must have one dimension, got {' and '.join(map(str, dims))}")
        self.dim = dims[0]
        self.rate = (3e-3 if self.dim <= 8 else 5e-3) if learning_rate is None else check.positive(learning_rate, "learning_rate")
        self.paired = pairs > 0 and self.dim <= PAIRED and not self.given and loss is None
        usual = 4096 if self.paired else 1024 if self.dim <= LOW else 512
        self.batch = usual if batch is None else check.count(batch, "batch")
        samples = self.x.sample(START), self.y.sample(START)
        self.target_variance = samples[1].double().var(0, correction=0).sum().item()
        if potential is not None:
            like = next(potential.parameters(), None)
            if like is None:
                raise ValueError("potential must have parameters to learn")
            self.change, self.potential = Coordinates.identity(like.new_empty(1, self.dim)), copy.deepcopy(potential)
        else:
            self.change = Coordinates.balancing(*samples)
            self.potential = default_potential(self.change.source(samples[0]), size, generator)
        self.potential.requires_grad_(True)
        self.average = copy.deepcopy(self.potential).requires_grad_(False)
        self.held_out = HeldOut(self.x.sample(HELD_OUT), self.y.sample(HELD_OUT), self.change)
        self.x.start(self.change.source), self.y.start(self.change.target)
        self.pairs = Pairs(self.x, self.y, pairs, generator) if self.paired else None
        self.window = Window(
            self.y,
            self.change.mean0,
            groups=64 if self.paired else 32 if self.dim <= 32 else 16,
            batch=self.batch,
            visits=8 if self.dim <= LOW else 4,
            memory=None if self.dim <= DENSE else MEMORY,
            near=self.dim <= LOW,
        )
        self._start_optimiser()
        self.step, self.first, self.totals, self.since = 0, 0, torch.zeros(2, dtype=torch.float64), 0
        self.revivals = 0 if not self.given else len(REVIVALS)  # that are behind

    def _start_optimiser(self) -> None:
        self.optimiser = torch.optim.Adam(self.potential.parameters(), lr=self.rate, betas=(0.9, 0.99), fused=True)

    def advance(self, done: float) -> None:
        """One step; ``done`` in [0, 1) is the share of the run that is over."""
        if self.pairs is not None and done >= PAIRED_SHARE:  # the semi-dual from here on, with an optimiser of its own
            self.pairs, self.first, self.since = None, self.step, self.step
            self.totals.zero_()
            self._start_optimiser()
        if self.step > self.first + WARM_UP and done >= [*REVIVALS, math.inf][self.revivals]:
            self.revivals = sum(share <= done for share in REVIVALS)
            if revive(self.potential, self.x(REVIVED), self.optimiser.state, self.generator):
                self.average.load_state_dict(self.potential.state_dict())
        rate, decay = self.rate, DECAY
        if self.pairs is not None:
            done = done / PAIRED_SHARE
        elif self.paired:
            rate, decay, done = FINE * rate, PAIRED_DECAY, (done - PAIRED_SHARE) / (1 - PAIRED_SHARE)
        falling = min(1.0, (1 - done) / decay)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * min(falling, (self.step - self.first + 1) / WARM_UP)
        for parameter in self.potential.parameters():
            parameter.grad = torch.zeros_like(parameter)
        if self.estimator is not None:
            loss = self.estimator(self.potential, self.x(self.batch), self.y(self.batch), generator=self.generator)
            error = torch.nan
            loss.backward()
        elif self.pairs is not None:
            loss, error = self._regress(self.pairs), torch.nan
        else:
            loss, error = self._descend(TOLERANCE * (max(FINEST, falling) if self.dim <= LOW else 1))
        self.optimiser.step()
        self.step += 1
        with torch.no_grad():
            self.totals += torch.tensor([float(loss), float(error)])
            # A mean over about the last twentieth of the steps, whatever their number; at first over all of them.
            weight = max(1 / self.step, 1 / (1 + self.step / 20))
            torch._foreach_lerp_(list(self.average.parameters()), list(self.potential.parameters()), min(weight, 1.0))

    def _descend(self, tol: float) -> tuple[Tensor, Tensor]:
        """The gradients of the semi-dual, from conjugate points solved to ``tol``; its value and their error."""
        gradient = self.potential._gradient if self.given else self.potential._gradients()
        with torch.no_grad():
            y, z, residual = self.window.batch(self.step - self.first, gradient, tol)
            loss = (y * z).sum() / len(y)
        for sign, points in ((1, self.x(SOURCE * self.batch)), (-1, z)):  # z held fixed: the envelope theorem
            if not self.given:
                loss += self.potential._accumulate(points, sign / len(points))
                continue
            for part in points.split(PART):
                value = sign * self.potential._value(part).sum() / len(points)
                value.backward()
                loss += value.detach()
        return loss, residual.mean() / self.dim**0.5

    def _regress(self, pairs: Pairs) -> Tensor:
        """The gradients of E|∇Ψ(x) - y|²/2 over exact pairs, and its value."""
        if self.step % PAIRS_EVERY == 0:
            pairs.more()
        n, total = min(self.batch, 1024), torch.zeros(())
        x, y = pairs.batch(n)
        for part, images in zip(x.split(PART), y.split(PART), strict=True):
            value = 0.5 * (self.potential._gradient(part) - images).square().sum() / n
            value.backward()
            total += value.detach().cpu()
        return total

    def figures(self) -> tuple[float, float, float]:
        """Mean loss and residual since the last call, and the bound."""
        loss, residual = (self.totals / max(self.step - self.since, 1)).tolist()
        if not math.isfinite(loss):
            raise RuntimeError(f"the loss is not finite before step {self.step}: samples that are not finite, or too long steps")
        self.totals.zero_()
        self.since = self.step
        with torch.no_grad():
            return loss, residual, self.held_out.bound(self.average)

    def result(self) -> ConvexPotential:
        """The averaged potential in the original coordinates."""
        if self.given:
            return copy.deepcopy(self.average).eval()
        return self.change.restore(self.average).to(self.x.dtype).requires_grad_(False).eval()

    def state_dict(self) -> dict:
        """What a checkpoint keeps."""
        return {
            "potential": self.potential.state_dict(),
            "average": self.average.state_dict(),
            "step": self.step,
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "change": vars(self.change),
            "window": self.window.state_dict(),
            "pairs": None if self.pairs is None else self.pairs.found,
            "first": self.first,
            "revivals": self.revivals,
            "held_out": self.held_out.state_dict(),
            "buffers": (self.x.buffer.clone(), self.y.buffer.clone()),
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from what :meth:`state_dict` returned, just after a call of :meth:`figures`."""
        here, device = self.change, self.change.mean0.device
        there = Coordinates(**{name: v.to(device) if isinstance(v, Tensor) else v for name, v in state["change"].items()})
        moved = torch.cat([here.source(there.mean0[None]), here.target(there.mean1[None])]).abs().max().item()
        # Two samples of one law differ by far less (in the coordinates of the fit the laws have variance one).
        if not self.given and (moved > 0.3 or not 0.7 < there.square / here.square < 1.4):
            raise ValueError("checkpoint is of a fit between other laws")
        self.change, self.step, self.since = there, state["step"], state["step"]
        self.potential.load_state_dict(state["potential"]), self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"]), self.window.load_state_dict(state["window"])
        self.held_out.load_state_dict(state["held_out"])
        self.first, self.revivals = state["first"], state["revivals"]
        if state["pairs"] is None:
            self.pairs = None
        elif self.pairs is not None:
            self.pairs.found = tuple(points.to(device) for points in state["pairs"])
        self.x.start(there.source), self.y.start(there.target)
        self.x.buffer, self.y.buffer = (buffer.to(device) for buffer in state["buffers"])
        self.generator.set_state(state["generator"])


def default_potential(points: Tensor, size: tuple[int, int] | None, generator: torch.Generator) -> LogSumExp:
    """The identity map as a quadratic plus soft maxima that tile the source: every piece starts at a place of its own.

    A head is the soft maximum of tangents of share/(2 heads) |x|² at random source points, a smoothed tiling of the source into
    their nearest-point cells; each head has a tiling of its own. Least squares gives the quadratic what the heads lack of ½|x|².
    The share, and the blur in units that compare with the cells, were chosen by trial.

    Args:
        points: of the source, in the coordinates of the fit, shape (n, d).
        size: (heads, pieces); by default of a number that ten processor minutes can train.
    """
    dim = points.shape[1]
    if size is None:
        size = (16, 32) if dim <= 4 else (32, 32) if dim <= 8 else (64, 16) if dim <= 64 else (128, 16)
    heads, pieces = size
    eye = torch.eye(dim).to(points)
    potential = LogSumExp(dim, pieces, heads=heads, matrix=eye, generator=generator)
    rows = randomness.integers(len(points), heads, pieces, generator=generator, like=points)
    centres = points[rows] + 0.1 * randomness.normal(heads, pieces, dim, generator=generator, like=points)
    share, blur = 0.5 / heads, 3.0 if dim <= 16 else 0.3
    with torch.no_grad():
        potential.slopes.copy_(share * centres)
        potential.heights.copy_(-0.5 * share * centres.square().sum(-1))
        potential.log_temperature.copy_((0.5 * blur * share * _spacing(centres)).log())
        heads_only = potential._gradient(points) - potential.quadratic._gradient(points)
        x, y = ((values - values.mean(0)).double() for values in (points, heads_only))
        # The normal equations: torch's lstsq does not round in the same way each time, and a fit could not be repeated.
        slope = torch.linalg.solve(x.T @ x, x.T @ y).to(points)
        values, vectors = torch.linalg.eigh(eye - 0.5 * (slope + slope.T))
        matrix = (vectors * values.clamp(min=0.05)) @ vectors.T
        offset = points.mean(0) - heads_only.mean(0) - matrix @ points.mean(0)
    potential.quadratic = Quadratic(dim, matrix=matrix, offset=offset, strength=potential.quadratic.strength)
    return potential


def _spacing(centres: Tensor) -> Tensor:
    """The mean squared distance from a centre to the nearest other of its head, shape (heads,); 1 for a head of one piece."""
    pieces = centres.shape[1]
    if pieces == 1:
        return torch.ones_like(centres[:, 0, 0])
    return torch.cdist(centres, centres).topk(2, largest=False).values[..., 1].square().mean(-1)
