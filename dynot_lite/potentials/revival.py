"""What training has let go idle in a LogSumExp is given back to it, by splitting what works, without changing Ψ.

Three exact statements make that possible. A head whose pieces have equal shares everywhere is affine, so its slope can go to the
quadratic's offset, and the head is free. A head τ log Σ_k exp(s_k/τ) is the sum of two with half the slopes, heights and
temperature. A piece s is as good as two of height less by τ log 2. Two halves are then moved apart by plus and minus the same
change, so that Ψ differs by second order only.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dynot_lite._base import randomness
from dynot_lite.potentials.convex import LogSumExp

__all__: list[str] = []

IDLE = 0.02  # of the mean over the heads or pieces: the variance of a head's gradient, or the share of a piece, that does nothing
APART = 0.1  # how far two heads are moved apart, in units of the spread of the slopes
PIECES_APART = 1.0  # how far two pieces are: their scores, across the deviation of the points that they share, in temperatures
TURNS = 5  # of the power method that finds the direction in which a piece is longest


@torch.no_grad()
def revive(potential: LogSumExp, x: Tensor, moments: dict, generator: torch.Generator) -> int:
    """Replace idle heads and pieces by halves of the most active ones; returns how many.

    Args:
        potential: Ψ, changed in place.
        x: points (n, d) where it matters, of the source.
        moments: Adam's state by parameter; those of a half are what its derivatives are of those of the whole.
        generator: for the directions in which two halves part.
    """
    normal = lambda *shape: randomness.normal(*shape, generator=generator, like=x)
    return _heads(potential, x, moments, normal) + _pieces(potential, x, moments, normal)


def _heads(potential: LogSumExp, x: Tensor, moments: dict, normal: Callable[..., Tensor]) -> int:
    slopes, heights, temperatures = potential.slopes, potential.heights, potential.log_temperature
    shares = potential._scores(x).softmax(-1)
    gradients = torch.einsum("nhk,hkd->nhd", shares, slopes)
    activity = gradients.var(0).sum(1)
    order = activity.argsort()
    idle = min(int((activity < IDLE * activity.mean()).sum()), len(order) // 2)
    free, split = order[:idle], order.flip(0)[:idle]
    potential.quadratic.offset.add_(gradients[:, free].mean(0).sum(0))
    means = (shares[:, split].permute(1, 2, 0) @ x) / shares[:, split].sum(0)[:, :, None].clamp(min=1e-6)
    spread = (slopes[split] - slopes[split].mean(1, keepdim=True)).square().mean((1, 2), keepdim=True).sqrt()
    apart = APART / 2 * spread * normal(*means.shape)
    turn = (apart * means).sum(2)  # each piece turns about the mean of the points that it has
    halves = slopes[split] / 2, heights[split] / 2
    slopes[free], slopes[split] = halves[0] + apart, halves[0] - apart
    heights[free], heights[split] = halves[1] - turn, halves[1] + turn
    temperatures[split] -= math.log(2)
    temperatures[free] = temperatures[split]
    for power, name in ((1, "exp_avg"), (2, "exp_avg_sq")):  # the derivative in the logarithm of the temperature is halved
        moments[temperatures][name][split] /= 2**power
        for parameter in (slopes, heights, temperatures):
            moments[parameter][name][free] = moments[parameter][name][split]
    return idle


def _pieces(potential: LogSumExp, x: Tensor, moments: dict, normal: Callable[..., Tensor]) -> int:
    slopes, heights = potential.slopes, potential.heights
    shares, pieces = potential._scores(x).softmax(-1), heights.shape[1]
    mean = shares.mean(0)
    order, idle = mean.argsort(1, descending=True), (mean < IDLE / pieces).sum(1)
    # The r-th idle piece of a head takes half of its r-th most active one, if that is not idle itself.
    head, rank = (torch.arange(pieces, device=x.device) < torch.minimum(idle, pieces - idle)[:, None]).nonzero().unbind(1)
    free, split = order[head, pieces - 1 - rank], order[head, rank]
    weights = shares[:, head, split].T
    weights = weights / weights.sum(1, keepdim=True)
    centres, direction, width = weights @ x, normal(len(head), x.shape[1]), x.new_ones(len(head))
    for _ in range(TURNS):
        direction = direction / direction.norm(dim=1, keepdim=True).clamp(min=1e-12)
        along = (direction @ x.T - (direction * centres).sum(1, keepdim=True)) * weights
        direction = along @ x  # the covariance of the points of the piece times the direction
        width = direction.norm(dim=1).sqrt()
    direction = direction / direction.norm(dim=1, keepdim=True).clamp(min=1e-12)
    temperature = potential.log_temperature.exp()[head]
    apart = (PIECES_APART / 2 * temperature / width.clamp(min=1e-3))[:, None] * direction
    turn, lower = (apart * centres).sum(1), heights[head, split] - math.log(2) * temperature
    slopes[head, free], slopes[head, split] = slopes[head, split] + apart, slopes[head, split] - apart
    heights[head, free], heights[head, split] = lower - turn, lower + turn
    for power, name in ((1, "exp_avg"), (2, "exp_avg_sq")):  # the derivatives are halved
        for parameter in (slopes, heights):
            moment = moments[parameter][name]
            moment[head, free] = moment[head, split] = moment[head, split] / 2**power
    return len(head)
