"""Numbers from outside for the notebooks' claims: derivatives by differences, expectations of quadratics by a few points.

And the extremes of several numbers. Python's ``max`` and ``min`` pass over a NaN that is not the first: a claim about the
largest of ten deviations would hold although the third one is no number. Those here return NaN, which no claim accepts.
"""

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from dynot_lite._base import checks as check

__all__ = ["cubature", "difference", "largest", "smallest", "worst"]


def largest(*values) -> float:
    """The largest of numbers, arrays, tensors, and iterables of them (units: theirs); NaN if one of them is NaN.

    Raises ValueError if there is no number among them.

    >>> largest([0.1, 0.3], 0.2)
    0.3
    >>> largest([0.1, float("nan")]), max([0.1, float("nan")])
    (nan, 0.1)
    """
    return _extreme(max, values)


def smallest(*values) -> float:
    """The smallest of numbers, arrays, tensors, and iterables of them; NaN and errors as for :func:`largest`."""
    return _extreme(min, values)


def worst(*deviations) -> float:
    """The largest absolute value among numbers, arrays, tensors, and iterables of them; NaN and errors as for :func:`largest`.

    >>> worst([0.1, -0.3], torch.zeros(2))
    0.3
    """
    return _extreme(max, deviations, size=abs)


def _extreme(best: Callable, values: Iterable, size: Callable = float) -> float:
    numbers = [size(number) for number in _numbers(values)]
    if not numbers:
        raise ValueError("expected at least one number, got none")
    return math.nan if any(map(math.isnan, numbers)) else best(numbers)


def _numbers(values) -> Iterator[float]:
    """All numbers in nested iterables; arrays and tensors are read at once."""
    if isinstance(values, Tensor):
        yield from values.detach().double().flatten().tolist()
    elif isinstance(values, (np.ndarray, np.generic)):
        yield from np.asarray(values, dtype=np.float64).ravel().tolist()
    elif isinstance(values, Iterable) and not isinstance(values, (str, bytes)):
        for value in values:
            yield from _numbers(value)
    else:
        yield float(values)


def difference(function: Callable, step: float = 2e-3):
    """The derivative at 0 of a function of one number, by the central difference of sixth order in ``step``.

    The error is step⁶ f⁽⁷⁾/140 and of rounding about 1.8 eps |f| / step: 5e-19 and 2e-13 at the default where all is of order 1.
    ``function`` may return numbers or arrays of any shape; it is called at ±step, ±2 step and ±3 step.

    >>> abs(difference(lambda h: (1 + h) ** 3) - 3) < 1e-12
    True
    """
    step = check.positive(step, "step")
    return sum(c * (function(k * step) - function(-k * step)) for k, c in {1: 45, 2: -9, 3: 1}.items()) / (60 * step)


def cubature(mean, cov) -> Tensor:
    """2d points of equal weight with this mean and covariance, shape (2d, d): exact for quadratics (and for odd cubics).

    They are mean ± √d f_i, with the columns f_i of Cholesky's factor. Raises ValueError for a ``cov`` that is not definite, and
    for shapes other than (d,) and (d, d).
    """
    mean = check.as_tensor(mean, "mean")
    if mean.ndim != 1 or not len(mean):
        raise ValueError(f"mean must have shape (d,), got {tuple(mean.shape)}")
    cov = check.as_tensor(cov, "cov", like=mean)
    if cov.shape != (len(mean),) * 2:
        raise ValueError(f"cov must have shape {(len(mean),) * 2}, got {tuple(cov.shape)}")
    factor, info = torch.linalg.cholesky_ex(check.covariance(cov, "cov", dim=len(mean)))
    if info:
        raise ValueError("cov must be positive definite, got a singular one")
    factor = len(mean) ** 0.5 * factor.T
    return torch.cat([mean + factor, mean - factor])
