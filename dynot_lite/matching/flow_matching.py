"""Flow matching: regress the velocity of an interpolated coupling, then integrate it to generate.

For a coupling (X0, X1) ~ π and a path X_t = α(t) X0 + β(t) X1 the field v_t(x) = E_π[dX_t/dt | X_t = x] solves the continuity
equation of the laws of X_t, and it is the minimiser of L(u) = ∫E_π|u(t, X_t) − dX_t/dt|² dt (no ½). The minimum is not zero:
L(u) = ∫E|u(t, X_t) − v_t(X_t)|² dt + ∫E|dX_t/dt|² dt − ∫E|v_t(X_t)|² dt.

Points are (n, d), or images (n, c, h, w). Conditions are whatever goes along with x1, one row per pair. A velocity is trained by
``training.fit(network, FlowMatching(), pairs, steps=...)``; its likelihood is :func:`dynot_lite.paths.flows.log_prob`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base import randomness
from dynot_lite._base.samplers import PairSampler, Sampler, Velocity, draw, evaluate
from dynot_lite.paths.flows import integrate
from dynot_lite.paths.interpolants import LINEAR, Interpolant

__all__ = ["FlowMatching", "guided", "loss", "reflow", "sample"]


def loss(velocity: Callable, x0, x1, t, *conditions, interpolant: Interpolant = LINEAR) -> Tensor:
    """The flow-matching loss E|v(t, X_t) − dX_t/dt|² (no ½): squared norms, averaged over the pairs.

    Args:
        velocity: callable (t, x, *conditions) -> the shape of x, with t of shape (n,).
        x0, x1: pairs, shape (n, d) or (n, ...).
        t: a time in [0, 1], or one per pair, shape (n,); uniform and independent of the pairs in training.
        conditions: handed to the velocity: labels of shape (n,), say.

    Returns:
        A scalar.

    Raises:
        ValueError: pairs of different shapes, values that are not finite (of the velocity, too), times outside [0, 1], a
            velocity of another shape than x.

    >>> x0, x1 = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [4.0]])
    >>> loss(lambda t, x: torch.full_like(x, 2.0), x0, x1, 0.5).item()
    0.5
    """
    x_t, dx_t = require_path(interpolant).at(t, x0, x1)
    t = check.time(t, n=len(x_t), like=x_t).expand(len(x_t)).clone()
    return finite((evaluate(velocity, t, x_t, *conditions) - dx_t).square().sum() / len(x_t), "velocity")


@dataclass(frozen=True)
class FlowMatching:
    """:func:`loss` at uniform times, for ``training.fit``.

    Args:
        interpolant: the path.
        label_dropout: the probability that the integer conditions of a pair are replaced by -1, so that the unconditional field
            is learnt, too. Other conditions stay.
    """

    interpolant: Interpolant = LINEAR
    label_dropout: float = 0.1

    def __post_init__(self):
        require_path(self.interpolant)
        check.share(self.label_dropout, "label_dropout")

    def __call__(
        self, velocity: Callable, x0: Tensor, x1: Tensor, *conditions: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """The loss of a batch, a scalar; shapes are checked, values are not."""
        require_pairs(x0, x1)
        t = randomness.uniform(len(x0), generator=generator, like=x0)
        conditions = drop_labels(conditions, self.label_dropout, generator)
        x_t, dx_t = self.interpolant.unchecked(t, x0, x1)
        return (evaluate(velocity, t, x_t, *conditions) - dx_t).square().sum() / len(x0)


@torch.no_grad()
def sample(velocity: Velocity, x0, *, steps: int, method: str = "midpoint") -> Tensor:
    """The end φ_1(x0) of the flow, without gradients, by equal steps.

    Args:
        velocity: callable (t, x) -> the shape of x, with a float t.
        x0: points of the source, shape (n, d) or (n, ...).
        steps: number of steps; one takes one evaluation of the velocity with "euler", two with "midpoint", four with "rk4".

    Returns:
        Points of the shape of x0.

    Raises:
        ValueError: an unknown method, steps < 1, points that are not finite.
    """
    return integrate(velocity, x0, steps=steps, method=method)


def guided(network: Callable, labels: Tensor, *, scale: float) -> Velocity:
    """The classifier-free guidance v(t, x, none) + scale (v(t, x, labels) − v(t, x, none)) as a velocity (t, x).

    scale = 0 is the unconditional field and scale = 1 the conditional one; both are flow-matching fields. For any other scale the
    field is no longer the velocity of a path between the two laws: guidance trades the law for clearer classes.

    Args:
        network: callable (t, x, labels), with labels=None for the unconditional field.
        labels: the class of each point, shape (n,).
        scale: a finite number.
    """
    scale = check.number(scale, "scale")
    labels = check.rows(labels, None, "labels", like=torch.empty(0))

    def velocity(t, x: Tensor) -> Tensor:
        if len(labels) != len(x):
            raise ValueError(f"labels must have one entry for each of the {len(x)} points, got {len(labels)}")
        # Copies: the network may change its input, and return one buffer again and again.
        free = evaluate(network, t, x.clone(), None, name="network").clone()
        return free + scale * (evaluate(network, t, x, labels.to(x.device), name="network") - free)

    return velocity


def reflow(
    velocity: Velocity,
    source: Sampler,
    size: int,
    *,
    steps: int = 50,
    method: str = "midpoint",
    generator: torch.Generator | None = None,
) -> PairSampler:
    """The coupling (X0, φ_1(X0)) of rectified flow: a sampler that draws from ``size`` integrated points with replacement.

    Args:
        velocity, steps, method: as in :func:`sample`.
        source: sampler.
        generator: for the draws from the source.
    """
    x0 = draw(source, check.count(size, "size"), generator=generator, name="source").clone()
    x1 = sample(velocity, x0, steps=steps, method=method)

    def pairs(n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        rows = randomness.integers(size, check.count(n, "n"), generator=generator, like=x0)
        return x0[rows], x1[rows]

    return pairs


def require_path(interpolant) -> Interpolant:
    if not isinstance(interpolant, Interpolant):
        raise TypeError(f"interpolant must be an Interpolant, got {interpolant!r}")
    return interpolant


def finite(value: Tensor, whose: str) -> Tensor:
    """The value of a loss; a ValueError if it is not finite."""
    if not check.finite(value):
        raise ValueError(f"{whose}, x0 and x1 must keep the loss finite, got {value.item():g}")
    return value


def require_pairs(x0: Tensor, x1: Tensor) -> None:
    """Raise a ValueError unless x0 and x1 have one shape (n, ...), dtype and device."""
    if x0.ndim < 2 or x0.shape != x1.shape:
        raise ValueError(
            f"x0 and x1 of pairs must have one shape (n, d) or (n, ...), got {tuple(x0.shape)} and {tuple(x1.shape)}"
        )
    if x0.dtype != x1.dtype or x0.device != x1.device:
        raise ValueError(
            f"x0 and x1 of pairs must have one dtype and device, got {x0.dtype} on {x0.device} and {x1.dtype} on {x1.device}"
        )


def drop_labels(conditions: tuple[Tensor, ...], share: float, generator: torch.Generator | None) -> tuple[Tensor, ...]:
    """The conditions, the integers among them replaced by -1 for a ``share`` of the pairs, drawn once for all of them."""
    integer = [not (part.is_floating_point() or part.is_complex() or part.dtype == torch.bool) for part in conditions]
    if not any(integer):
        return conditions
    first = conditions[integer.index(True)]
    numbers = randomness.uniform(len(first), generator=generator, like=first, dtype=torch.get_default_dtype())
    dropped = numbers < share
    return tuple(
        part.long().masked_fill(dropped.view(-1, *[1] * (part.ndim - 1)), -1) if is_integer else part
        for part, is_integer in zip(conditions, integer, strict=True)
    )
