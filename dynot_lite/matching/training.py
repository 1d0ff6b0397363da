"""The one training loop: any network, any loss, any sampler of batches."""

import contextlib
import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from dynot_lite._base import checkpoints, randomness, ranks
from dynot_lite._base import checks as check
from dynot_lite._base.differentiation import recording
from dynot_lite._base.progress import bar
from dynot_lite._base.samplers import draw_batch, function

__all__ = ["Training", "cosine", "fit"]

BLOCK = 128  # steps between looks at the losses: a GPU is waited for as rarely
RECORDS = 25  # checkpoints, and calls of the callback, of a run


@dataclass(frozen=True, eq=False)
class Training:
    """A trained network.

    Attributes:
        network: the averaged network, in evaluation mode, its parameters frozen.
        losses: the loss of each step on its own batch, shape (steps,).
        seconds: wall time, that before an interruption included.
    """

    network: nn.Module
    losses: Tensor
    seconds: float

    @property
    def steps(self) -> int:
        """The number of steps taken."""
        return len(self.losses)


def cosine(*, warm_up: float = 0.0) -> Callable[[float], float]:
    """A schedule: a linear rise over the share ``warm_up`` of the run, then half a cosine from one to zero.

    >>> [round(cosine(warm_up=0.2)(done), 3) for done in (0.0, 0.1, 0.2, 0.6, 1.0)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    check.share(warm_up, "warm_up", below_one=True)
    return lambda done: done / warm_up if done < warm_up else (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up))) / 2


@recording()
def fit(
    network: nn.Module,
    loss: Callable[..., Tensor],
    pairs: Callable[..., tuple[Tensor, ...]],
    *,
    steps: int | None = None,
    seconds: float | None = None,
    batch: int = 256,
    learning_rate: float = 1e-3,
    schedule: Callable[[float], float] | None = None,
    clip: float | None = None,
    ema: float = 0.999,
    precision: torch.dtype | None = None,
    compile: bool = False,
    group=None,
    checkpoint=None,
    callback: Callable[[Training], object] | None = None,
    generator: torch.Generator | None = None,
    progress: bool | None = None,
) -> Training:
    """Train a network by Adam, and average its weights.

    The average moves towards the weights of step k = 1, 2, … by the share max(1 − ema, min(1, 10/k)): an exponential mean over
    the last 1/(1 − ema) steps, or over the last tenth of all steps while that is less, so that short runs forget their start.

    Args:
        network: trained in place, on the device and in the (floating-point) dtype of the pairs.
        loss: called as loss(network, x0, x1, *conditions, generator=) for a scalar: ``FlowMatching()``, ``MeanFlow()``, your own.
        pairs: callable (n, generator=) -> (x0, x1, *conditions), or whatever tensors of n rows the loss takes, of the same
            shapes, dtypes and devices on every call. One more batch than steps is drawn, to look at the values.
        steps, seconds: the budget; with both, what is spent first ends the run. Seconds are wall time, all of it.
        schedule: the factor of the learning rate as a function of the share of the budget that is spent, such as
            :func:`cosine`; None for the constant 1.
        clip: the greatest norm of a gradient; longer ones are scaled down to it.
        ema: in [0, 1); 0 for the last weights. Buffers (of batch norms, say) are the last ones.
        precision: torch.bfloat16 for mixed precision: parameters and the average keep their dtype.
        compile: call the loss, and the network within it, through torch.compile: a minute at first, faster steps then.
        group: a ``torch.distributed`` process group (``group.WORLD``, say), every rank of which calls this function. Each draws
            batches of its own, of ``batch`` rows, from a generator that must differ from the others'; gradients and losses are
            averaged over the ranks, so that all make the steps of one process with all the batches. The weights at the start
            are those of the first rank, which alone writes the checkpoint, calls the callback and shows the progress, and whose
            clock counts for ``seconds`` (one more exchange in each step).
        checkpoint: a file that holds the state at 25 moments of the run. If it is there, the run goes on from it, with the
            seconds already spent; with ``steps`` it ends on the CPU with the same bits as without the interruption, if the
            batches depend on their generator only and the network draws no numbers of its own (dropout).
        callback: called at these 25 moments, after the checkpoint is written, with a copy of the Training so far.
        generator: handed to ``pairs`` and to ``loss``.
        progress: show a progress bar; None shows it in a terminal only.

    Raises:
        ValueError: a bad option or batch, a batch unlike the first, a loss that is no scalar, a network without parameters, a
            damaged checkpoint or one of another run.
        RuntimeError: the loss is not finite, because later pairs are not or because the steps are too long.
    """
    if steps is None and seconds is None:
        raise ValueError("steps or seconds must be given")
    steps = None if steps is None else check.count(steps, "steps")
    seconds = None if seconds is None else check.positive(seconds, "seconds")
    check.count(batch, "batch")
    check.positive(learning_rate, "learning_rate")
    check.share(ema, "ema", below_one=True)
    function(loss, "loss")
    for name, given in (("schedule", schedule), ("callback", callback)):
        if given is not None:
            function(given, name)
    clip = None if clip is None else check.positive(clip, "clip")
    if precision not in (None, torch.bfloat16):
        raise ValueError(f"precision must be None or torch.bfloat16, got {precision!r}")
    first = draw_batch(pairs, batch, generator=generator)
    device, dtype = first[0].device, next((part.dtype for part in first if part.is_floating_point()), None)
    network.to(device=device, dtype=dtype).train()
    ranks.spread_((part.detach() for part in (*network.parameters(), *network.buffers())), group)
    average = copy.deepcopy(network).requires_grad_(False).eval()
    parameters, averages = list(network.parameters()), list(average.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        raise ValueError("network must have parameters that require a gradient")
    optimiser = torch.optim.Adam(parameters, lr=learning_rate, fused=True)
    measure: Callable[..., Tensor] = torch.compile(lambda *batch, **options: loss(*batch, **options)) if compile else loss
    context = contextlib.nullcontext() if precision is None else torch.autocast(device.type, dtype=precision)
    losses, recent, spent = [], [], 0.0
    kept = checkpoint is not None or callback is not None
    if checkpoint is not None or group is not None:
        generator = randomness.own(generator, first[0])
        if len({state.numpy().tobytes() for state in _states(generator, group)}) < ranks.count(group):
            raise ValueError("generator must be another one on each rank of the group, or all ranks draw the same batches")

    if checkpoint is not None and generator is not None:
        fingerprint = dict(
            steps=steps, learning_rate=learning_rate, clip=clip, ema=ema, precision=str(precision), device=str(device)
        )
        fingerprint["network"] = f"{type(network).__name__} of {sum(parameter.numel() for parameter in parameters)} parameters"
        fingerprint |= {
            name: getattr(f, "__qualname__", type(f).__qualname__) for name, f in (("loss", loss), ("schedule", schedule))
        }
        fingerprint["pairs"] = str([(*part.shape, str(part.dtype)) for part in first])
        if group is not None:
            fingerprint["ranks"] = ranks.count(group)
        if (state := ranks.told(lambda: checkpoints.resume(checkpoint, fingerprint), group)) is not None:
            try:
                network.load_state_dict(state["network"])
                average.load_state_dict(state["average"])
                optimiser.load_state_dict(state["optimiser"])
                generator.set_state(state["generator"] if group is None else state["generator"][distributed.get_rank(group)])
                losses, spent = [state["losses"].to(device)], state["seconds"]
            except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
                raise ValueError(f"checkpoint {checkpoint} is damaged, or of another network") from error
    step, begun = sum(map(len, losses)), time.perf_counter() - spent

    def clock() -> float:
        return time.perf_counter() - begun

    def budget() -> float:
        elapsed = clock()
        if seconds and group is not None:
            ranks.spread_([now := torch.tensor(elapsed, dtype=torch.float64, device=device)], group)
            elapsed = now.item()
        return max(step / steps if steps else 0.0, elapsed / seconds if seconds else 0.0)

    done = budget()
    with bar(steps, "training", progress if ranks.is_first(group) else False, initial=step) as shown:
        while done < 1:
            if schedule is not None:
                factor = float(schedule(done))
                if not 0 <= factor < math.inf:
                    raise ValueError(f"schedule must return a finite factor ≥ 0, got {factor} at {done}")
                optimiser.param_groups[0]["lr"] = learning_rate * factor
            parts = draw_batch(pairs, batch, generator=generator, like=first)
            for parameter in parameters:
                parameter.grad = None  # as optimiser.zero_grad(), which costs more than a step of a small network should
            with context:
                value = measure(network, *parts, generator=generator)
            if not isinstance(value, Tensor) or value.ndim or not value.requires_grad:
                raise ValueError(f"loss must return a scalar tensor that depends on the network, got {value!r}")
            value.backward()
            if group is not None:
                for parameter in trained:  # none at all where a batch does not reach it, which the batch of another rank may do
                    parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                ranks.average_([parameter.grad for parameter in trained if parameter.grad is not None], group)
            if clip is not None:
                nn.utils.clip_grad_norm_(parameters, clip)
            optimiser.step()
            step += 1
            with torch.no_grad():
                torch._foreach_lerp_(averages, parameters, max(1 - ema, min(1.0, 10 / step)))  # pyright: ignore
            recent.append(value.detach())
            shown.update()

            before, done = done, budget()
            record = done >= 1 or (kept and int(RECORDS * done) > int(RECORDS * before))
            if record or len(recent) == BLOCK:
                losses.append(torch.stack(recent))
                ranks.average_(losses[-1:], group)
                recent.clear()
                if not torch.isfinite(losses[-1]).all():
                    raise RuntimeError(f"the loss is not finite before step {step}: pairs that are not, or too large a rate")
            if record:
                for mean, buffer in zip(average.buffers(), network.buffers(), strict=True):
                    mean.copy_(buffer)
            if record and checkpoint is not None and generator is not None:
                generators = _states(generator, group)
                if ranks.is_first(group):
                    state = dict(network=network.state_dict(), average=average.state_dict(), optimiser=optimiser.state_dict())
                    state |= dict(losses=torch.cat(losses), seconds=clock(), fingerprint=fingerprint)
                    checkpoints.save(state | dict(generator=generators if group else generators[0]), checkpoint)
            if record and callback is not None and ranks.is_first(group):
                callback(Training(copy.deepcopy(average), torch.cat(losses), clock()))
    optimiser.zero_grad()
    network.eval()
    return Training(average, torch.cat(losses), clock())


def _states(generator: torch.Generator, group) -> list[Tensor]:
    return ranks.gathered(generator.get_state(), group)
