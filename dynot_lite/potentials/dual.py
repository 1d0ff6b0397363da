"""The semi-dual of optimal transport, L_OT(Ψ) = E Ψ(x0) + E Ψ*(x1): what its value certifies, and Ψ learnt from samples."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from dynot_lite._base import checkpoints, randomness
from dynot_lite._base import checks as check
from dynot_lite._base.differentiation import recording
from dynot_lite._base.progress import bar
from dynot_lite._base.results import Result
from dynot_lite.potentials import descent as machinery
from dynot_lite.potentials.convex import ConvexPotential

__all__ = ["Certificate", "DualFit", "DualRecord", "certificate", "fit", "semidual_loss"]

RECORDS = 25  # records, and checkpoints, of a run
LOST = 10  # times the tolerance of the conjugate points: an error from which on the descent has lost them


def semidual_loss(potential: ConvexPotential, x0, x1, *, start=None, tol: float | None = None) -> Tensor:
    """The semi-dual loss L_OT(Ψ) = E Ψ(x0) + E Ψ*(x1); its minimum is ½(E|x0|² + E|x1|²) - ½W₂².

    The gradient in the parameters is exact by the envelope theorem, E ∂Ψ(x0) - E ∂Ψ(∇Ψ*(x1)), and does not depend on how
    x0 and x1 are paired; their numbers may differ.

    Args:
        potential: Ψ.
        x0, x1: samples of the source (n, d) and of the target (m, d).
        start, tol: first guess and tolerance of the conjugate points, as in ``ConvexPotential.solve``.

    Returns:
        A scalar.

    Raises:
        ValueError: bad input or a potential that is not convex. RuntimeError: a conjugate point is not solved.
    """
    x0, x1 = (check.squares(check.cloud(x, name, dim=potential.dim), name) for x, name in ((x0, "x0"), (x1, "x1")))
    value, _ = potential.conjugate(x1, start=start, tol=tol)
    return potential(x0).mean() + value.mean()


@dataclass(frozen=True)
class Certificate:
    """Two-sided bounds that one convex potential and one pairing of the samples prove.

    Attributes:
        lower, upper: lower ≤ W₂² ≤ upper for the two samples (no ½).
        gap: (upper - lower)/2, the mean of the Fenchel–Young gaps Ψ(x0) + Ψ*(x1) - <x0, x1> ≥ 0.
        map_error: E|∇Ψ(x0) - x1|² over the pairs.
        gap_bounds: (map_error/(2β), map_error/(2α)), which enclose ``gap`` if α I ≤ ∇²Ψ ≤ β I.
    """

    lower: float
    upper: float
    gap: float
    map_error: float
    gap_bounds: tuple[float, float]


def certificate(potential: ConvexPotential, x0, x1, *, tol: float | None = None) -> Certificate:
    """What a potential with a ``curvature`` and the pairs (x0[i], x1[i]) prove about W₂² and about the map ∇Ψ.

    Strong convexity and smoothness give |∇Ψ(x) - y|²/(2β) ≤ Ψ(x) + Ψ*(y) - <x, y> ≤ |∇Ψ(x) - y|²/(2α) for every pair. Over an
    optimal pairing the mean of the middle term is L_OT(Ψ) - min L_OT; over any other it is larger.

    Raises:
        ValueError: bad input, or x0 and x1 of different shapes. RuntimeError: a conjugate point is not solved.
    """
    x0, x1 = check.points(x0, "x0"), check.points(x1, "x1")
    if x0.shape != x1.shape:
        raise ValueError(f"x0 and x1 must be pairs of one shape, got {tuple(x0.shape)} and {tuple(x1.shape)}")
    with torch.no_grad():
        loss = semidual_loss(potential, x0, x1, tol=tol).item()
        map_error = (potential.gradient(x0) - x1).square().sum(-1).mean().item()
    lower = (x0.square().sum(-1).mean() + x1.square().sum(-1).mean()).item() - 2 * loss
    upper = (x0 - x1).square().sum(-1).mean().item()
    alpha, beta = potential.curvature()
    return Certificate(lower, upper, (upper - lower) / 2, map_error, (map_error / (2 * beta), map_error / (2 * alpha)))


@dataclass(frozen=True)
class DualRecord:
    """Where a fit stood.

    Attributes:
        step, seconds: steps taken, and processor seconds of the calling thread spent.
        loss: mean over the steps since the last record of the training loss, in the coordinates of the fit; over the first fifth
            of a run that starts from exact pairs it is half their mean squared error.
        residual: likewise of |∇Ψ(z) - y|/√d, the error of the conjugate points; NaN for another loss and over that first fifth.
        bound: the held-out value of E|x0|² + E|x1|² - 2 L_OT(Ψ) for the averaged Ψ, a lower bound of W₂² (no ½) up to the
            sampling error of the held-out points. Of an array they are points that training draws, too.
    """

    step: int
    seconds: float
    loss: float
    residual: float
    bound: float


@dataclass(frozen=True, eq=False, kw_only=True)
class DualFit(Result):
    """A learnt Brenier map.

    ``converged``: with a tolerance, whether the bound met it; without one the budget was all that was asked for. False where the
    conjugate points were lost, as with a given potential that is badly conditioned: its loss and its map mean nothing then.

    Attributes:
        potential: Ψ, the average over the last part of the run; ``potential.conjugate(y)`` is Ψ* with its maximiser.
        history: the records of the run.
    """

    potential: ConvexPotential
    history: tuple[DualRecord, ...]

    def transport(self, x) -> Tensor:
        """∇Ψ(x), shape (n, d)."""
        with torch.no_grad():
            return self.potential.gradient(x)

    def inverse(self, y) -> Tensor:
        """∇Ψ*(y), shape (n, d); raises RuntimeError if a point is not solved."""
        return self.potential.solve(y).require().argmax


def plateau(history: list[DualRecord], gain: float) -> bool:
    """Whether the bound rose by less than ``gain`` since half of the steps."""
    return len(history) >= 4 and history[-1].bound - history[(len(history) - 1) // 2].bound < gain


def pairing_size(steps: int | None, seconds: float | None) -> int:
    """How many points of each law are paired at a time: fewer in shorter runs, whose start should not take longer than the rest.

    None in runs of less than a thousand steps or half a minute: there the pairs cost more than they find.
    """
    share = min(1.0, steps / 1750 if steps else 1.0, seconds / 60 if seconds else 1.0)
    return int(machinery.PAIRS * share**0.4) if share > 0.55 else 0  # the pairing takes time like n^2.5


@recording()
def fit(
    source,
    target,
    *,
    potential: ConvexPotential | None = None,
    size: tuple[int, int] | None = None,
    loss: Callable[..., Tensor] | None = None,
    seconds: float | None = None,
    steps: int | None = None,
    batch: int | None = None,
    learning_rate: float | None = None,
    tol: float | None = None,
    checkpoint=None,
    callback: Callable[[DualRecord, ConvexPotential], None] | None = None,
    generator: torch.Generator | None = None,
    progress: bool | None = None,
) -> DualFit:
    """Learn the Brenier potential of two laws from samples, by stochastic descent of the semi-dual.

    The gradient of the semi-dual needs ∇Ψ*(y) for each target point y of a batch. The points of a rolling window keep their
    conjugate points from visit to visit, and are replaced by fresh ones after 8 visits (4 above dimension 4). The default Ψ is
    a quadratic plus soft maxima, which starts at the Gaussian map with its pieces spread over the source. Training lets many
    pieces go idle: at eight moments of the first three fifths of the run they are given back, each as half of an active one,
    which leaves Ψ as it is. Adam; the rate is constant, then falls linearly to zero, and with it, up to dimension 4, the
    tolerance of the conjugate points; the parameters are averaged over about the last twentieth of the steps.

    Up to dimension 4, and in runs of a thousand steps or half a minute at least, the default Ψ is regressed for the first fifth
    of the run on exact pairs of some 4096 points of each law: they are close to the pairs of the optimal map, and find the
    places of the pieces sooner. The semi-dual then removes their bias, at a quarter of the rate. An exact pairing takes a few
    seconds and some 0.4 GB for a moment.

    Args:
        source, target: arrays (n, d), or samplers (n, generator=) -> (n, d).
        potential: a convex potential to start from (it is copied), instead of the default one; it is trained as it stands,
            without the change of coordinates that balances the two laws.
        size: (heads, pieces) of the default potential; if left out, (16, 32) up to dimension 4, (32, 32) up to 8,
            (64, 16) up to 64 and (128, 16) above.
        loss: another estimator, ``loss(potential, x0, x1, generator=)`` on independent pairs (batch, d), instead of the
            semi-dual: half of ``ofm_loss`` at times drawn from the generator, say.
        seconds, steps: the budget; with both, what is spent first ends the run. Seconds are processor seconds of the calling
            thread (of a machine that does nothing else: seconds), callbacks not counted.
        batch: points of each law per step; if left out, 4096 after a start from exact pairs (of which a step sees 1024), else
            1024 up to dimension 4 and 512 above. Of the source a step of the semi-dual takes twice as many.
        learning_rate: of Adam; 0.003 up to dimension 8 and 0.005 above if left out.
        tol: stop early, without knowing the truth: once the bound of the last record exceeds the one half-way back by less than
            ``tol`` per cent of the target's variance, the rate starts to fall. That is looked for while the rate is constant,
            in the first 40 % of the budget. All of it is used if left out.
        checkpoint: a file that holds the state at the last record. If it is there, the run continues from it, with the seconds
            already spent; with ``steps`` it then ends where the uninterrupted run ends, to the last bit on a CPU with as many
            threads. The samplers must draw from their generator only.
        callback: called with each record and the averaged potential in the original coordinates.
        generator: for everything random, handed to the samplers, too.
        progress: show a progress bar; None shows it in a terminal only.

    Returns:
        A DualFit. It is computed in float32 (a given potential: in its dtype), its potential is in the dtype of the source.

    Raises:
        ValueError: bad input: laws of different dimensions, NaN, laws too few or too flat for the Gaussian start, no budget, a
            damaged checkpoint or one of another fit. RuntimeError: the loss is not finite.
    """
    if steps is None and seconds is None:
        raise ValueError("steps or seconds must be given")
    steps = None if steps is None else check.count(steps, "steps")
    seconds = None if seconds is None else check.positive(seconds, "seconds")
    if size is not None and (potential is not None or len(size) != 2):
        raise ValueError(f"size must be (heads, pieces) of the default potential, got {size!r} and potential {potential}")
    tol = None if tol is None else check.positive(tol, "tol")
    began, generator = time.thread_time(), randomness.own(generator)
    options = dict(potential=potential, size=size, loss=loss, batch=batch, learning_rate=learning_rate)
    run = machinery.Run(source, target, **options, generator=generator, pairs=pairing_size(steps, seconds))
    fingerprint = dict(
        dim=run.dim,
        batch=run.batch,
        steps=steps,
        learning_rate=run.rate,
        tol=tol,
        semidual=loss is None,
        paired=run.paired,
        generator=generator.device.type,
        potential=str([tuple(p.shape) for p in run.potential.parameters()]),
    )
    history: list[DualRecord] = []
    share, raw = 1.0, 0.0  # the run ends when raw, the spent share of the budget, reaches ``share``
    state = checkpoints.resume(checkpoint, fingerprint)
    if state is not None:
        run.load_state_dict(state["run"])
        history = [DualRecord(**record) for record in state["history"]]
        share, began = state["share"], began - state["seconds"]
    with bar(100, "dual fit", progress, unit="%") as shown:
        while True:
            spent = time.thread_time() - began
            raw = max(run.step / steps if steps else 0.0, spent / seconds if seconds else 0.0)
            done = min(raw / share, 1.0)
            if done >= 1 or raw * RECORDS >= len(history) + 1:
                if not history or history[-1].step < run.step:
                    history.append(DualRecord(run.step, spent, *run.figures()))
                record = history[-1]
                shown.update(int(100 * done) - shown.n)
                shown.set_postfix(loss=f"{record.loss:.4g}", residual=f"{record.residual:.2g}")
                steady = share == 1 and run.pairs is None and done < 1 - machinery.DECAY
                if tol is not None and steady and plateau(history, tol * run.target_variance / 100):
                    share = raw / (1 - machinery.DECAY)
                if checkpoint is not None:
                    records = [asdict(record) for record in history]
                    state = dict(fingerprint=fingerprint, run=run.state_dict(), share=share, seconds=spent, history=records)
                    checkpoints.save(state, checkpoint)
                if callback is not None:
                    paused = time.thread_time()
                    callback(record, run.result())
                    began += time.thread_time() - paused
            if done >= 1:
                break
            run.advance(done)
    reason = "the steps are spent" if steps and run.step >= steps else "the seconds are spent"
    if share < 1:
        reason = "the bound no longer rises"
    converged, residual = tol is None or share < 1, history[-1].residual
    if residual > LOST * machinery.TOLERANCE:
        wrong = f"the conjugate points are off by {residual:.2g}, not by {machinery.TOLERANCE:g}"
        converged, reason = False, f"{wrong}: take smaller steps, or the default potential"
    return DualFit(potential=run.result(), history=tuple(history), converged=converged, reason=reason)
