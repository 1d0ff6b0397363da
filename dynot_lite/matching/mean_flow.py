"""Mean flow (arXiv 2505.13447): learn the average velocity of a flow between two times, and generate in one evaluation.

Along the trajectories dX_t/dt = v_t(X_t) of a velocity, the average velocity is u(r, t, x) = (X_t − x)/(t − r) for X_r = x, and
u(r, r, ·) = v_r. Differentiating (t − r) u(r, t, X_r) = X_t − X_r in r along the trajectory gives the identity

    u = v_r + (t − r) (∂_r u + (v_r · ∇_x) u),

which determines u: the brackets are the derivative of u in the direction (1, 0, v_r) of (r, t, x), one forward-mode product.
Time runs from the source (0) to the data (1) as everywhere here, and r ≤ t; the paper's time runs the other way. Nothing but
the pairs changes with the coupling: any pair sampler of this package will do.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from dynot_lite._base import checks as check
from dynot_lite.matching.flow_matching import Fit, VelocityNetwork, _check_pairs, _require_finite, _uniform

__all__ = ["MeanVelocityNetwork", "fit", "loss", "sample"]


class MeanVelocityNetwork(nn.Module):
    """An average velocity u(r, t, x): a :class:`~dynot_lite.matching.flow_matching.VelocityNetwork` at time r on the points (t − r, x).

    The options are those of the velocity network.

    >>> network = MeanVelocityNetwork(2, generator=torch.Generator().manual_seed(0))
    >>> network(0.0, 1.0, torch.zeros(3, 2)).shape
    torch.Size([3, 2])
    """

    def __init__(self, dim: int, **options):
        super().__init__()
        self.field = VelocityNetwork(check.count(dim, "dim") + 1, **options)

    def forward(self, r, t, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The average velocity over [r, t] from points x at time r, shape (n, d); times scalar or (n,)."""
        r, t = (torch.as_tensor(time, dtype=x.dtype, device=x.device).expand(len(x)) for time in (r, t))
        return self.field(r, torch.cat([(t - r)[:, None], x], 1), labels)[:, 1:]  # the component of t − r has no meaning


def loss(network: Callable, x0, x1, r, t, *, labels: Tensor | None = None) -> Tensor:
    """The mean-flow loss E|u(r, t, X_r) − target|², target = v + (t − r) d u/dr with v = x1 − x0 (no ½), on the linear path.

    The target is held fixed in the gradient. It is linear in v, so that given X_r it has the mean
    v_r + (t − r)(∂_r u + v_r·∇u), v_r the marginal velocity: the average velocity of the flow of v_r is the fixed point.

    Args:
        network: callable (r, t, x) or, with labels, (r, t, x, labels), on times of shape (n,).
        x0, x1: pairs, shape (n, d).
        r, t: times 0 ≤ r ≤ t ≤ 1, scalar or shape (n,). Where r = t this is the flow-matching loss.
        labels: classes, shape (n,).

    Returns:
        A scalar.

    Raises:
        ValueError: pairs of different shapes, r > t, times outside [0, 1], values that are not finite.
    """
    x0 = check.points(x0, "x0")
    x1 = check.points(x1, "x1", dim=x0.shape[-1], like=x0)
    if x0.ndim != 2 or x0.shape != x1.shape:
        raise ValueError(f"x0 and x1 must have one shape (n, d), got {tuple(x0.shape)} and {tuple(x1.shape)}")
    r, t = (check.time(time, name, n=len(x0), like=x0).expand(len(x0)) for time, name in ((r, "r"), (t, "t")))
    if (r > t).any():
        raise ValueError(f"r must not exceed t, got r − t up to {(r - t).max().item():g}")
    return _error(network, x0, x1, r, t, () if labels is None else (labels,)).square().sum(1).mean()


def _error(network: Callable, x0: Tensor, x1: Tensor, r: Tensor, t: Tensor, labels: tuple) -> Tensor:
    v, x = x1 - x0, torch.lerp(x0, x1, r[:, None])
    u, derivative = torch.func.jvp(lambda r, x: network(r, t, x, *labels), (r, x), (torch.ones_like(r), v))
    return u - (v + (t - r)[:, None] * derivative).detach()


def fit(
    network: nn.Module,
    pairs: Callable,
    *,
    steps: int,
    batch: int = 256,
    instantaneous: float = 0.5,
    learning_rate: float = 1e-3,
    ema: float = 0.999,
    label_dropout: float = 0.1,
    generator: torch.Generator | None = None,
    progress: bool | None = None,
) -> Fit:
    """Train an average velocity on pairs by Adam and average its weights, as :func:`dynot_lite.matching.flow_matching.fit` does.

    Args:
        network: trained in place; called as network(r, t, x), or network(r, t, x, labels) if ``pairs`` returns labels.
        pairs: pair sampler; one more batch than ``steps`` is drawn, to check what it returns.
        instantaneous: the probability of r = t; otherwise r and t are two uniform times in order.
        ema, label_dropout, generator, progress: as for flow matching.

    Returns:
        A Fit: ``velocity`` is the averaged network u(r, t, x), ``losses`` has shape (steps,).

    Raises:
        ValueError: pairs of a wrong form, a count below 1, a rate out of range. RuntimeError: the loss is not finite.
    """
    check.count(steps, "steps"), check.count(batch, "batch"), check.positive(learning_rate, "learning_rate")
    if not 0 <= ema < 1:
        raise ValueError(f"ema must lie in [0, 1), got {ema!r}")
    for name, value in (("label_dropout", label_dropout), ("instantaneous", instantaneous)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must lie in [0, 1], got {value!r}")
    like = _check_pairs(pairs(batch, generator=generator), batch)
    network.to(like).train()
    average = copy.deepcopy(network).requires_grad_(False).eval()
    optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate)
    losses, weight = torch.empty(steps, dtype=like.dtype, device=like.device), 0.0
    for step in tqdm(range(steps), desc="mean flow", leave=False, delay=1.0, disable=None if progress is None else not progress):
        if step % 128 == 0:
            _require_finite(losses[max(0, step - 128) : step], step)
        x0, x1, *labels = pairs(batch, generator=generator)
        times = _uniform(generator, 3, batch, like=like)
        r, t = times[:2].amin(0), times[:2].amax(0)
        t = torch.where(times[2] < instantaneous, r, t)
        if labels:
            labels = [labels[0].masked_fill(_uniform(generator, batch, like=like) < label_dropout, -1)]
        value = _error(network, x0, x1, r, t, tuple(labels)).square().sum() / batch
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        weight = ema * weight + 1
        with torch.no_grad():
            for mean, parameter in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(parameter, 1 / weight)
        losses[step] = value.detach()
    _require_finite(losses, steps)
    network.eval()
    return Fit(average, losses)


@torch.no_grad()
def sample(network: Callable, x0, *, evaluations: int = 1, labels: Tensor | None = None) -> Tensor:
    """Generate from points of the source: x ← x + (t − r) u(r, t, x) over equal intervals; one evaluation jumps from 0 to 1.

    Args:
        network: callable (r, t, x), or (r, t, x, labels) with labels.
        x0: shape (n, d).
        evaluations: number of intervals.
        labels: shape (n,).

    Returns:
        Points, shape (n, d).

    Raises:
        ValueError: points that are not finite, fewer than one evaluation.
    """
    x = check.points(x0, "x0")
    number = check.count(evaluations, "evaluations")
    more = () if labels is None else (labels,)
    for k in range(number):
        x = x + network(k / number, (k + 1) / number, x, *more) / number
    return x
