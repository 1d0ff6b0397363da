"""Mean flow (arXiv 2505.13447): learn the average velocity of a flow between two times, and generate in one evaluation.

Along the trajectories dX_t/dt = v_t(X_t) of a velocity, the average velocity is u(r, t, x) = (X_t − x)/(t − r) for X_r = x, and
u(r, r, ·) = v_r. Differentiating (t − r) u(r, t, X_r) = X_t − X_r in r along the trajectory gives the identity

    u = v_r + (t − r) (∂_r u + (v_r · ∇_x) u),

which determines u: the brackets are the derivative of u in the direction (1, 0, v_r) of (r, t, x), one forward-mode product.
Time runs from the source (0) to the data (1) as everywhere here, and r ≤ t; the paper's time runs the other way. Nothing but
the pairs changes with the coupling: any pair sampler of this package will do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base import randomness
from dynot_lite._base.differentiation import tangent
from dynot_lite._base.samplers import evaluate, function
from dynot_lite.matching.flow_matching import drop_labels, finite, require_pairs

__all__ = ["MeanFlow", "loss", "sample"]


def loss(network: Callable, x0, x1, r, t, *conditions) -> Tensor:
    """The mean-flow loss E|u(r, t, X_r) − target|², target = v + (t − r) d u/dr with v = x1 − x0 (no ½), on the linear path.

    The target is held fixed in the gradient. It is linear in v, so that given X_r it has the mean
    v_r + (t − r)(∂_r u + v_r·∇u), v_r the marginal velocity: the average velocity of the flow of v_r is the fixed point.

    Args:
        network: callable (r, t, x, *conditions) -> the shape of x, on times of shape (n,), differentiable in forward mode.
        x0, x1: pairs, shape (n, d) or (n, ...).
        r, t: times 0 ≤ r ≤ t ≤ 1, scalar or shape (n,). Where r = t this is the flow-matching loss.
        conditions: handed to the network: labels of shape (n,), say.

    Returns:
        A scalar.

    Raises:
        ValueError: pairs of different shapes, r > t, times outside [0, 1], values that are not finite (of the network, too).

    >>> x0, x1 = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [4.0]])
    >>> loss(lambda r, t, x: 2.5 + 0 * x, x0, x1, 0.2, 0.6).item()
    0.25
    """
    x0 = check.points(x0, "x0")
    x1 = check.as_tensor(x1, "x1", like=x0)
    require_pairs(x0, x1)
    # Forward mode refuses expanded tensors.
    r, t = (check.time(time, name, n=len(x0), like=x0).expand(len(x0)).contiguous() for time, name in ((r, "r"), (t, "t")))
    if (r > t).any():
        raise ValueError(f"r must not exceed t, got r − t up to {(r - t).max().item():g}")
    return finite(_error(network, x0, x1, r, t, conditions).square().sum() / len(x0), "network")


def _error(network: Callable, x0: Tensor, x1: Tensor, r: Tensor, t: Tensor, conditions: tuple) -> Tensor:
    rows = (-1, *[1] * (x0.ndim - 1))
    v, x = x1 - x0, torch.lerp(x0, x1, r.view(rows))
    network = function(network, "network")
    # A copy, since the network may change its input, and with it the tangent v.
    field = lambda r, x: evaluate(partial(network, r), t, x.clone(), *conditions, name="network")
    u, derivative = tangent(field, (r, x), (torch.ones_like(r), v), name="network")
    return u - (v + (t - r).view(rows) * derivative).detach()


@dataclass(frozen=True)
class MeanFlow:
    """:func:`loss` at random times, for ``training.fit``.

    Args:
        instantaneous: the probability of r = t; otherwise r and t are two uniform times in order.
        label_dropout: as of :class:`~dynot_lite.matching.flow_matching.FlowMatching`.
    """

    instantaneous: float = 0.5
    label_dropout: float = 0.1

    def __post_init__(self):
        check.share(self.instantaneous, "instantaneous")
        check.share(self.label_dropout, "label_dropout")

    def __call__(
        self, network: Callable, x0: Tensor, x1: Tensor, *conditions: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """The loss of a batch, a scalar; shapes are checked, values are not."""
        require_pairs(x0, x1)
        times = randomness.uniform(3, len(x0), generator=generator, like=x0)
        r, t = times[:2].amin(0), times[:2].amax(0)
        t = torch.where(times[2] < self.instantaneous, r, t)
        conditions = drop_labels(conditions, self.label_dropout, generator)
        return _error(network, x0, x1, r, t, conditions).square().sum() / len(x0)


@torch.no_grad()
def sample(network: Callable, x0, *conditions, steps: int = 1) -> Tensor:
    """Generate from points of the source: x ← x + (t − r) u(r, t, x) over equal intervals; one step jumps from 0 to 1.

    Args:
        network: callable (r, t, x, *conditions) -> the shape of x.
        x0: shape (n, d) or (n, ...).
        conditions: handed to the network.
        steps: number of intervals, each one evaluation.

    Returns:
        Points of the shape of x0.

    Raises:
        ValueError: points that are not finite, at the end neither, fewer than one step, a network that returns another shape
            than that of x.
    """
    x = check.points(x0, "x0")
    check.count(steps, "steps")
    network = function(network, "network")
    for k in range(steps):
        x = x + evaluate(partial(network, k / steps), (k + 1) / steps, x.clone(), *conditions, name="network") / steps
    if not check.finite(x):
        raise ValueError("network must keep the points finite, got NaN or infinity at t = 1")
    return x
