"""What users hand over by mistake: bad options, by the annotation of a parameter, and callables that return something else.

``options`` reads a signature, so that a new option of a function is tried without a word in a test.
"""

import collections.abc
import inspect
import re
import types
import typing
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

NUMBERS = (
    float("nan"),
    float("inf"),
    -float("inf"),
    -1.0,
    True,
    "a",
    [0.1, 0.2],
    1j,
    object(),
    torch.tensor(0.5, requires_grad=True),
)
COUNTS = (0, -1, 1.5, 2.0, True, float("nan"), "3", [3], object())
GENERATORS = (0, "a", np.random.default_rng(0))
FUNCTIONS = (3, "a", torch.zeros(3, 2))


def bad(annotation, default) -> tuple:
    """Values that an option with this annotation does not have."""
    wanted = typing.get_args(annotation) if isinstance(annotation, types.UnionType | typing._UnionGenericAlias) else (annotation,)
    if str in wanted or bool in wanted:
        return ()
    found = ()
    if int in wanted:
        found = COUNTS
    elif float in wanted:
        found = NUMBERS
    elif torch.Generator in wanted:
        found = GENERATORS
    elif any(kind is collections.abc.Callable or typing.get_origin(kind) is collections.abc.Callable for kind in wanted):
        found = FUNCTIONS
    return found if types.NoneType in wanted or default is None or not found else (*found, None)


def options(function) -> dict[str, tuple]:
    """The bad values of each option of a function or class, those of any sign excepted (``signed``)."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: bad(p.annotation, p.default) for p in parameters if bad(p.annotation, p.default)}


# --- what a sampler returns in place of points x of shape (n, d) --------------------------------------------------------------

RETURNED = {
    "a row more": lambda x: torch.cat([x, x[:1]]),
    "a row less": lambda x: x[1:],
    "a column": lambda x: x[:, :1],
    "a column more": lambda x: torch.cat([x, x[:, :1]], 1),
    "no columns": lambda x: x[:, :0],
    "one axis": lambda x: x[:, 0],
    "integers": lambda x: x.long(),
    "complex numbers": lambda x: x + 0j,
    "a list": lambda x: x.tolist(),
    "an array": lambda x: x.numpy(),
    "nothing": lambda x: None,
    "a number": lambda x: 0.5,
    "NaN": lambda x: torch.where(torch.arange(len(x))[:, None] == len(x) - 1, torch.nan, x),
    "infinity": lambda x: torch.where(torch.arange(len(x))[:, None] == 0, torch.inf, x),
}


class Turning:
    """A callable that does as ``good`` until call ``at``, and returns ``change`` of it from then on."""

    def __init__(self, good, change, at: int):
        self.good, self.change, self.at, self.calls = good, change, at, 0

    def __call__(self, *arguments, **options):
        found = self.good(*arguments, **options)
        self.calls += 1
        if self.calls < self.at:
            return found
        return (self.change(found[0]), *found[1:]) if isinstance(found, tuple) else self.change(found)


class Buffered:
    """A callable that writes what ``good`` gives into one buffer, and returns that, call after call."""

    def __init__(self, good):
        self.good, self.buffer = good, None

    def __call__(self, *arguments, **options):
        found = self.good(*arguments, **options)
        if self.buffer is None or self.buffer.shape != found.shape:
            self.buffer = torch.empty_like(found)
        return self.buffer.copy_(found)


def careless(good):
    """The velocity ``good`` (of one time or two), which leaves other numbers in the points that it was given."""

    def velocity(*arguments):
        place = next(k for k, argument in enumerate(arguments) if isinstance(argument, Tensor) and argument.ndim > 1)
        x = arguments[place].clone()
        arguments[place].mul_(-3.0)
        return good(*arguments[:place], x, *arguments[place + 1 :])

    return velocity


def arrays(calls) -> list:
    """(call, array) for every array of some calls."""
    return [pytest.param(call, array, id=f"{call.name}-{array}") for call in calls for array in call.arrays]


def extreme(call, array: str, size: float) -> None:
    """An array of extreme size: an answer that is finite, or an error that names an argument, and no warning."""
    given = call.arrays[array] * size
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            found = call.results(**{array: given})
        except (ValueError, TypeError, RuntimeError) as error:
            names = "|".join(call.called(name) for name in call.arrays)
            assert re.search(rf"\b({names})\b|not converged|not integrated", str(error)), error
        else:
            assert all(torch.isfinite(part[~part.isneginf()]).all() for part in found)
