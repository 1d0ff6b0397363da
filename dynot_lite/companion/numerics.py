"""Numerical derivatives and quadrature with which the notebooks check closed forms."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["cubature", "difference"]


def difference(function: Callable[[float], Tensor], step: float = 2e-3) -> Tensor:
    """The derivative at 0 of a function of one number, by sixth-order central differences."""
    return sum(c * (function(k * step) - function(-k * step)) for k, c in {1: 45, 2: -9, 3: 1}.items()) / (60 * step)


def cubature(mean: Tensor, cov: Tensor) -> Tensor:
    """The 2d points, shape (2d, d), of equal weights that have exactly this mean and covariance."""
    factor = math.sqrt(len(mean)) * torch.linalg.cholesky(cov).T
    return torch.cat([mean + factor, mean - factor])
