"""Flow matching: regress the velocity of an interpolated coupling, then integrate it to generate.

For a coupling (X0, X1) ~ π and a path X_t = α(t) X0 + β(t) X1 the field v_t(x) = E_π[dX_t/dt | X_t = x] solves the continuity
equation of the laws of X_t, and it is the minimiser of L(u) = ∫E_π|u(t, X_t) − dX_t/dt|² dt (no ½). The minimum is not zero:
L(u) = ∫E|u(t, X_t) − v_t(X_t)|² dt + ∫E|dX_t/dt|² dt − ∫E|v_t(X_t)|² dt.

A sampler is a callable ``(n, generator=) -> (n, d)``; a pair sampler, ``(n, generator=) -> (x0, x1)`` or, with classes,
``(x0, x1, labels)``. The likelihood of a fitted velocity is :func:`dynot_lite.paths.flows.log_prob`.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from dynot_lite._base import checks as check
from dynot_lite.paths.flows import METHODS, Velocity, evaluate, integrate
from dynot_lite.paths.interpolants import LINEAR, Interpolant

__all__ = ["Fit", "VelocityNetwork", "fit", "guided", "loss", "reflow", "sample"]

EVALUATIONS_PER_STEP = {"euler": 1, "midpoint": 2, "rk4": 4}

# So many steps share one evaluation of the interpolant's coefficients: automatic differentiation costs as much for many times
# as for few.
BLOCK = 128


class VelocityNetwork(nn.Module):
    """A time-conditioned velocity v(t, x): a perceptron with SELU units on (t, x), with an optional class label.

    Args:
        dim: the dimension d.
        width: units per hidden layer.
        depth: number of hidden layers.
        classes: the number of classes K, or None. The label -1 stands for "none", whose field is the unconditional one.
        generator: for the initial weights, uniform on ±1/√(inputs).

    >>> network = VelocityNetwork(2, classes=10, generator=torch.Generator().manual_seed(0))
    >>> network(0.5, torch.zeros(3, 2), torch.tensor([4, 9, -1])).shape
    torch.Size([3, 2])
    """

    def __init__(
        self, dim: int, *, width: int = 64, depth: int = 3, classes: int | None = None, generator: torch.Generator | None = None
    ):
        super().__init__()
        sizes = [check.count(dim, "dim") + 1, *[check.count(width, "width")] * check.count(depth, "depth")]
        self.hidden = nn.ModuleList(_linear(*pair, generator) for pair in itertools.pairwise(sizes))
        self.last = _linear(width, dim, generator)
        self.dim, self.classes = dim, classes
        if classes is not None:
            # One more row, for "none": it starts at zero, so that the labels are shifts from the unconditional field.
            self.embedding = nn.utils.skip_init(nn.Embedding, check.count(classes, "classes") + 1, width)
            with torch.no_grad():
                self.embedding.weight.normal_(generator=generator)[-1] = 0

    def forward(self, t, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The velocity at points x, shape (n, d), at a time or one time per point, (n,), for labels of shape (n,) if given."""
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"x must have shape (n, {self.dim}), got {tuple(x.shape)}")
        t = torch.as_tensor(t, dtype=x.dtype, device=x.device).expand(x.shape[0])
        first, *rest = self.hidden
        h = first(torch.cat([t[:, None], x], 1))
        if self.classes is not None:
            h = h + self._shift(labels, x)
        elif labels is not None:
            raise ValueError("labels need a network with classes, got a network without")
        h = nn.functional.selu(h)
        for layer in rest:
            h = nn.functional.selu(layer(h))
        return self.last(h)

    def _shift(self, labels: Tensor | None, x: Tensor) -> Tensor:
        if labels is None:
            return self.embedding.weight[-1]
        if labels.shape != x.shape[:1] or labels.is_floating_point():
            raise ValueError(f"labels must be integers of shape ({x.shape[0]},), got {labels.dtype} {tuple(labels.shape)}")
        if labels.min() < -1 or labels.max() >= self.classes:
            raise ValueError(f"labels must lie in -1..{self.classes - 1}, got {labels.min()} to {labels.max()}")
        return self.embedding(torch.where(labels < 0, self.classes, labels))


def loss(velocity: Callable, x0, x1, t, *, interpolant: Interpolant = LINEAR, labels: Tensor | None = None) -> Tensor:
    """The flow-matching loss E|v(t, X_t) − dX_t/dt|² (no ½): squared norms, averaged over the pairs.

    Args:
        velocity: callable (t, x) -> (n, d), with t of shape (n,); with labels, callable (t, x, labels).
        x0, x1: pairs, shape (n, d).
        t: a time in [0, 1], or one per pair, shape (n,); uniform and independent of the pairs in training.
        labels: classes of the pairs, shape (n,).

    Returns:
        A scalar.

    Raises:
        ValueError: pairs of different shapes, values that are not finite, times outside [0, 1], a velocity of another shape
            than x.

    >>> x0, x1 = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [4.0]])
    >>> loss(lambda t, x: torch.full_like(x, 2.0), x0, x1, 0.5).item()
    0.5
    """
    x_t, dx_t = interpolant.at(t, x0, x1)
    t = check.time(t, n=len(x_t), like=x_t).expand(len(x_t))
    field = velocity if labels is None else lambda t, x: velocity(t, x, labels)
    return (evaluate(field, t, x_t) - dx_t).square().flatten(1).sum(1).mean()


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted velocity.

    Attributes:
        velocity: the averaged network, in evaluation mode, its parameters frozen.
        losses: the loss of each step on its own batch, shape (steps,).
    """

    velocity: nn.Module
    losses: Tensor


def fit(
    network: nn.Module,
    pairs: Callable,
    *,
    steps: int,
    batch: int = 256,
    interpolant: Interpolant = LINEAR,
    learning_rate: float = 1e-3,
    ema: float = 0.999,
    label_dropout: float = 0.1,
    generator: torch.Generator | None = None,
    progress: bool | None = None,
) -> Fit:
    """Train a velocity on pairs by Adam at uniform times, and average its weights.

    The average moves towards the weights of step k = 1, 2, … by the share max(1 − ema, min(1, 10/k)): an exponential mean over
    the last 1/(1 − ema) steps, or over the last tenth of all steps while that is less, so that short runs forget their start.

    Args:
        network: trained in place, on the device and in the dtype of the pairs; called as network(t, x), or
            network(t, x, labels) if ``pairs`` returns labels.
        pairs: pair sampler; one more batch than ``steps`` is drawn, to check what it returns.
        ema: in [0, 1); 0 for the last weights.
        label_dropout: the probability that a label is replaced by -1 in training, so that the unconditional field is learnt too.
        generator: for the times and the dropped labels, and handed to ``pairs``.
        progress: show a progress bar; None shows it in a terminal only.

    Raises:
        ValueError: pairs of a wrong form or with values that are not finite, a count below 1, a rate out of range.
        RuntimeError: the loss is not finite, because later pairs are not or because the steps are too long.
    """
    check.count(steps, "steps")
    check.count(batch, "batch")
    check.positive(learning_rate, "learning_rate")
    if not 0 <= ema < 1:
        raise ValueError(f"ema must lie in [0, 1), got {ema!r}")
    if not 0 <= label_dropout <= 1:
        raise ValueError(f"label_dropout must lie in [0, 1], got {label_dropout!r}")
    like = _check_pairs(pairs(batch, generator=generator), batch)
    network.to(like).train()
    average = copy.deepcopy(network).requires_grad_(False).eval()
    parameters, averages = list(network.parameters()), list(average.parameters())
    optimiser = torch.optim.Adam(parameters, lr=learning_rate, fused=True)
    optimiser.zero_grad()
    losses = torch.empty(steps, dtype=like.dtype, device=like.device)
    show = dict(desc="flow matching", leave=False, delay=1.0, disable=None if progress is None else not progress)
    for step in tqdm(range(steps), **show):
        if step % BLOCK == 0:
            _require_finite(losses[max(0, step - BLOCK) : step], step)
            times = _uniform(generator, min(BLOCK, steps - step), batch, like=like)
            coefficients = torch.stack(interpolant.coefficients(times), 1).unsqueeze(-1)
        t, (alpha, beta, d_alpha, d_beta) = times[step % BLOCK], coefficients[step % BLOCK]
        x0, x1, *labels = pairs(batch, generator=generator)
        if labels:
            labels = [labels[0].masked_fill(_uniform(generator, batch, like=like) < label_dropout, -1)]
        error = network(t, alpha * x0 + beta * x1, *labels) - (d_alpha * x0 + d_beta * x1)
        value = error.square().sum() / batch
        value.backward()
        optimiser.step()
        share = max(1 - ema, min(1.0, 10 / (step + 1)))
        with torch.no_grad():
            for mean, parameter in zip(averages, parameters, strict=True):
                mean.lerp_(parameter, share)
                parameter.grad = None  # as optimiser.zero_grad(), which costs more than this step of a small network should
        losses[step] = value.detach()
    _require_finite(losses, steps)
    network.eval()
    return Fit(average, losses)


@torch.no_grad()
def sample(velocity: Velocity, x0, *, evaluations: int, method: str = "midpoint") -> Tensor:
    """The end φ_1(x0) of the flow, without gradients, by a fixed number of evaluations of the velocity.

    Args:
        velocity: callable (t, x) -> (n, d) with a float t.
        x0: points of the source, shape (n, d).
        evaluations: a multiple of what one step of the method takes: 1 for "euler", 2 for "midpoint", 4 for "rk4".

    Returns:
        Points, shape (n, d).

    Raises:
        ValueError: an unknown method, evaluations < 1 or not a multiple, points that are not finite.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {sorted(METHODS)}, got {method!r}")
    per_step = EVALUATIONS_PER_STEP[method]
    if check.count(evaluations, "evaluations") % per_step:
        raise ValueError(f"evaluations must be a multiple of {per_step} for the method {method!r}, got {evaluations}")
    return integrate(velocity, x0, steps=evaluations // per_step, method=method)


def guided(network: Callable, labels: Tensor, scale: float) -> Velocity:
    """The classifier-free guidance v(t, x, none) + scale (v(t, x, labels) − v(t, x, none)) as a velocity (t, x) -> (n, d).

    scale = 0 is the unconditional field and scale = 1 the conditional one; both are flow-matching fields. For any other scale the
    field is no longer the velocity of a path between the two laws: guidance trades the law for clearer classes.

    Args:
        network: callable (t, x, labels), with labels=None for the unconditional field.
        labels: the class of each point, shape (n,).
    """
    scale, labels = float(check.as_tensor(scale, "scale")), torch.as_tensor(labels)

    def velocity(t, x: Tensor) -> Tensor:
        if len(labels) != len(x):
            raise ValueError(f"labels must have one entry for each of the {len(x)} points, got {len(labels)}")
        free = network(t, x, None)
        return free + scale * (network(t, x, labels) - free)

    return velocity


def reflow(
    velocity: Velocity,
    source: Callable,
    size: int,
    *,
    evaluations: int = 100,
    method: str = "midpoint",
    generator: torch.Generator | None = None,
) -> Callable:
    """The coupling (X0, φ_1(X0)) of rectified flow, as a pair sampler.

    ``size`` points of the source are integrated once; the sampler draws from these pairs with replacement.

    Args:
        velocity, evaluations, method: as in :func:`sample`.
        source: sampler.
        generator: for the draws from the source.
    """
    x0 = source(check.count(size, "size"), generator=generator)
    x1 = sample(velocity, x0, evaluations=evaluations, method=method)

    def pairs(n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        device = x0.device if generator is None else generator.device
        rows = torch.randint(size, (check.count(n, "n"),), generator=generator, device=device).to(x0.device)
        return x0[rows], x1[rows]

    return pairs


def _linear(inputs: int, outputs: int, generator: torch.Generator | None) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)
    return layer


def _uniform(generator: torch.Generator | None, *shape: int, like: Tensor) -> Tensor:
    """Uniform numbers in [0, 1), drawn where the generator lives, on the device and in the dtype of ``like``."""
    device = like.device if generator is None else generator.device
    return torch.rand(shape, generator=generator, dtype=like.dtype, device=device).to(like.device)


def _check_pairs(drawn, batch: int) -> Tensor:
    """x0 of a batch that a pair sampler returned, if it has the form that training needs."""
    if not isinstance(drawn, (tuple, list)) or len(drawn) not in (2, 3) or not all(isinstance(part, Tensor) for part in drawn):
        raise ValueError(f"pairs must return tensors (x0, x1) or (x0, x1, labels), got {type(drawn).__name__}")
    x0, x1, *labels = drawn
    if x0.ndim != 2 or x0.shape != x1.shape or len(x0) != batch or (labels and labels[0].shape != (batch,)):
        shapes = ", ".join(str(tuple(part.shape)) for part in drawn)
        raise ValueError(f"pairs must return x0 and x1 of one shape ({batch}, d) and labels of shape ({batch},), got {shapes}")
    if x0.dtype != x1.dtype or x0.device != x1.device:
        raise ValueError(f"pairs must return one dtype and device, got {x0.dtype} on {x0.device} and {x1.dtype} on {x1.device}")
    check.points(x1, "x1 of pairs")
    return check.points(x0, "x0 of pairs")


def _require_finite(losses: Tensor, step: int) -> None:
    if not torch.isfinite(losses).all():
        raise RuntimeError(f"the loss is not finite before step {step}: pairs that are not finite, or too large a learning rate")
