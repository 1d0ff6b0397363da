"""Laws in the plane: samplers ``(n, generator=) -> (n, 2)`` in torch's default dtype, on the device of the generator."""

import functools
import math

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base.randomness import integers, normal, uniform

__all__ = ["checkerboard", "eight_gaussians", "moons", "torchcfm_eight_gaussians", "torchcfm_moons"]


def eight_gaussians(n: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Independent points of Σ_k ⅛ N(5 (cos kπ/4, sin kπ/4), 0.1 I), k = 0..7: eight modes of variance 0.1 in each coordinate."""
    return _eight_gaussians(n, 0.1, generator)


def torchcfm_eight_gaussians(n: int, *, generator: torch.Generator | None = None) -> Tensor:
    """The law of torchcfm's ``sample_8gaussians``: :func:`eight_gaussians` with the variance √0.1 = 0.316 in each coordinate.

    There a "variance" of 0.1 enters as its square root where a covariance is expected. For comparisons with published figures.
    """
    return _eight_gaussians(n, 0.1**0.5, generator)


def _eight_gaussians(n: int, variance: float, generator: torch.Generator | None) -> Tensor:
    check.count(n, "n")
    angle = integers(8, n, generator=generator) * (math.pi / 4)
    return 5 * torch.stack([angle.cos(), angle.sin()], 1) + variance**0.5 * normal(n, 2, generator=generator)


def moons(n: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Independent points of two interlocking half circles of radius 3, with noise of the law N(0, 0.09 I).

    With an angle s uniform in [0, π], one half of the mass is at 3 (cos s, sin s) − 1 and the other at
    3 (1 − cos s, ½ − sin s) − 1, before the noise.
    """
    check.count(n, "n")
    angle = math.pi * uniform(n, generator=generator)
    upper = integers(2, n, generator=generator).bool()
    return _moons(angle, upper) + 0.3 * normal(n, 2, generator=generator)


def torchcfm_moons(n: int, *, generator: torch.Generator | None = None) -> Tensor:
    """The law of torchcfm's ``sample_moons``, n points at once: fixed places on the half circles of :func:`moons`, shifted.

    The angles are equally spaced, ends included: ⌊n/2⌋ on the upper half circle come first, the others on the lower one follow.
    Each point is moved by (u, u), with one u uniform in [0, 0.6] for both coordinates. So the points are neither independent
    nor in random order. For comparisons with published figures.
    """
    check.count(n, "n")
    shift = 0.6 * uniform(n, 1, generator=generator)
    return _even_moons(n, shift.device, shift.dtype) + shift


@functools.lru_cache(maxsize=8)
def _even_moons(n: int, device, dtype: torch.dtype) -> Tensor:
    """Equally spaced points on the half circles; kept, because training asks for the same ones in every step."""
    angle = torch.cat([torch.linspace(0, math.pi, k, device=device, dtype=dtype) for k in (n // 2, n - n // 2)])
    return _moons(angle, torch.arange(n, device=device) < n // 2)


def _moons(angle: Tensor, upper: Tensor) -> Tensor:
    x, y = angle.cos(), angle.sin()
    return 3 * torch.stack([torch.where(upper, x, 1 - x), torch.where(upper, y, 0.5 - y)], 1) - 1


def checkerboard(n: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Independent points, uniform on the squares of side 2 of the board [−4, 4]² with ⌊x/2⌋ + ⌊y/2⌋ even: density 1/32 there."""
    check.count(n, "n")
    row, column = integers(4, n, generator=generator), integers(2, n, generator=generator)
    corner = torch.stack([2 * column + row % 2, row], 1) - 2
    return 2 * (corner + uniform(n, 2, generator=generator))
