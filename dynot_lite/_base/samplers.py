"""Callables that users bring: samplers, pair samplers and velocities, and their checks on every call.

A comparison of shapes costs nothing beside the call, and catches what would broadcast: a batch x1 of shape (n, 1) beside x0 of
shape (n, d) gives a finite, wrong loss. Whether values are finite is looked at where it is asked for: on a GPU it waits for them.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from dynot_lite._base import checks as check


class Sampler(Protocol):
    """``n`` independent points of a law."""

    def __call__(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Shape (n, d), or (n, ...)."""
        ...


class PairSampler(Protocol):
    """``n`` pairs of a coupling, with whatever goes along with x1: labels, continuous conditions, any number of them."""

    def __call__(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """(x0, x1, *conditions): x0 and x1 of one shape (n, ...), each condition of shape (n, ...)."""
        ...


class Velocity(Protocol):
    """A field v(t, x)."""

    def __call__(self, t: float, x: Tensor, /) -> Tensor:
        """The shape of x."""
        ...


def draw(sampler: Callable, n: int, *, generator, name: str, shape: tuple[int, ...] | None = None, finite: bool = True) -> Tensor:
    """``sampler(n, generator=)``, refused unless it is a tensor of n points, of ``shape`` each if given, and finite if asked."""
    return _points(function(sampler, name)(n, generator=generator), n, name, shape, finite)


def draw_conditional(sampler: Callable, n: int, *, generator, name: str, finite: bool = True) -> tuple[Tensor, ...]:
    """As :func:`draw` for samplers that may return ``(x, *conditions)``; always a tuple, every entry with n rows."""
    found = function(sampler, name)(n, generator=generator)
    x, *conditions = found if isinstance(found, (tuple, list)) else (found,)
    return _points(x, n, name, None, finite), *_conditions(conditions, n, name)


def draw_batch(pairs: Callable, n: int, *, generator, like: tuple[Tensor, ...] | None = None) -> tuple[Tensor, ...]:
    """``pairs(n, generator=)``, refused unless it is a tuple of tensors of ``n`` rows, finite ones if of floating point.

    ``like``: an earlier draw, checked in full; the new one must then agree in number, shapes, dtypes and devices.
    """
    found = function(pairs, "pairs")(n, generator=generator)
    if not isinstance(found, (tuple, list)) or not found or not all(isinstance(part, Tensor) for part in found):
        raise ValueError(f"pairs must return a tuple of tensors (x0, x1, *conditions), got {_kinds(found)}")
    if like is None:
        for k, part in enumerate(found):
            if part.ndim < 1 or len(part) != n or 0 in part.shape:
                raise ValueError(f"pairs must return {_part(k)} with {n} rows, got shape {tuple(part.shape)}")
            if part.is_floating_point():
                check.as_tensor(part, f"{_part(k)} of pairs")
        return tuple(found)
    if len(found) != len(like):
        raise ValueError(f"pairs must return as many tensors on every call, got {len(like)} first and {len(found)} now")
    for k, (part, first) in enumerate(zip(found, like, strict=True)):
        if part.shape != first.shape or part.dtype != first.dtype or part.device != first.device:
            kinds = f"{_kinds(first)} first and {_kinds(part)} now"
            raise ValueError(f"pairs must return {_part(k)} of one kind on every call, got {kinds}")
    return tuple(found)


def evaluate(velocity: Callable, t, x: Tensor, *conditions, name: str = "velocity") -> Tensor:
    """v(t, x, *conditions) in the dtype of x, refused unless it is a real tensor of the shape of x."""
    return values(function(velocity, name)(t, x, *conditions), x, name, "the shape of x,")


def function(value: Callable, name: str) -> Callable:
    """``value``, refused unless it can be called."""
    if not callable(value):
        raise TypeError(f"{name} must be a function, got {type(value).__name__}")
    return value


def values(found, like: Tensor, name: str, shape: str = "shape") -> Tensor:
    """What the function called ``name`` returned, in the dtype of ``like``, refused unless it is a real tensor of its shape."""
    if not isinstance(found, Tensor) or found.shape != like.shape or not found.is_floating_point():
        raise ValueError(f"{name} must return a tensor of {shape} {tuple(like.shape)}, and real, got {_kinds(found)}")
    return found.to(like.dtype)


def _points(x, n: int, name: str, shape: tuple[int, ...] | None, finite: bool) -> Tensor:
    wanted = f"({n}, {', '.join(map(str, shape))})" if shape else f"({n}, d)"
    if not isinstance(x, Tensor) or x.ndim < 2 or len(x) != n or 0 in x.shape or (shape and tuple(x.shape[1:]) != shape):
        raise ValueError(f"{name} must return a tensor of shape {wanted}, got {_kinds(x)}")
    if not x.is_floating_point():
        raise ValueError(f"{name} must return floating-point numbers, got {x.dtype}")
    return check.as_tensor(x, f"what {name} returns") if finite else x


def _conditions(conditions, n: int, name: str) -> tuple[Tensor, ...]:
    for condition in conditions:
        if not isinstance(condition, Tensor) or condition.ndim < 1 or len(condition) != n:
            raise ValueError(
                f"{name} must return conditions (labels, say) as tensors with one row per point, got {_kinds(condition)}"
            )
    return tuple(conditions)


def _part(k: int) -> str:
    return f"x{k}" if k < 2 else f"condition {k - 1}"


def _kinds(found) -> str:
    if isinstance(found, Tensor):
        return f"shape {tuple(found.shape)} of {found.dtype} on {found.device}"
    if isinstance(found, (tuple, list)):
        return f"({', '.join(map(_kinds, found))})"
    return type(found).__name__
