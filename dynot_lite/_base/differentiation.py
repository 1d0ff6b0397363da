"""Derivatives of functions that users bring: no graph is not a derivative of zero.

A function that detaches, runs under ``no_grad`` or computes through NumPy leaves no graph; so does one that does not depend on
its argument. A second evaluation elsewhere tells them apart. (A function that cuts off only a part of what it depends on has a
graph: that is not seen.)
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def recording():
    """Within it a graph is recorded, even where the caller is under ``torch.no_grad`` or ``torch.inference_mode``."""
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    except RuntimeError as error:
        if "nference tensor" in str(error):
            raise ValueError(
                "a function made of inference tensors has no derivative: clone them outside inference_mode"
            ) from error
        raise


def leaf(x: Tensor) -> Tensor:
    """A copy of x, also of an inference tensor, from which a graph starts."""
    return x.detach().clone().requires_grad_()


def elsewhere(x: Tensor) -> Tensor:
    """Points around x, each moved by another amount of the size of x, without random numbers."""
    irregular = torch.sin(torch.arange(1, x.numel() + 1, dtype=x.dtype, device=x.device)).reshape(x.shape)
    size = x.detach().abs().amax()
    return x.detach() + irregular * torch.where(size > 0, size, 1.0)


def gradients(
    value: Tensor, x: Tensor, directions: Iterable[Tensor], *, again: Callable[[], Tensor], name: str, create_graph: bool = False
) -> Iterator[Tensor]:
    """⟨direction, ∂value/∂x⟩ for each of the directions, tensors of the shape of ``value``, one after the other.

    ``again`` evaluates the function called ``name`` once more, at other values of x. Where the graph does not reach x, the
    derivative is zero if nothing changes, and a ValueError if something does.
    """
    found = None
    for k, direction in enumerate(directions):
        if value.requires_grad and (found is not None or k == 0):
            (found,) = torch.autograd.grad(value, x, direction, create_graph=create_graph, retain_graph=True, allow_unused=True)
        if found is None and k == 0:
            _demand_constant(again(), value, name)
        yield torch.zeros_like(x) if found is None else found


def gradient(function: Callable[[Tensor], Tensor], x: Tensor, *, name: str) -> tuple[Tensor, Tensor]:
    """The value and ∇ Σ function(x), by ``torch.func.grad``; no graph is treated as in :func:`gradients`."""
    linked = True

    def total(x: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal linked
        value = function(x)
        linked = value.requires_grad
        return value.sum(), value

    with _transforming(name):
        found, value = torch.func.grad(total, has_aux=True)(x)
    if not linked:
        _demand_constant(function(elsewhere(x)), value, name)
    return value, found


def tangent(function: Callable[..., Tensor], primals: tuple, tangents: tuple, *, name: str) -> tuple[Tensor, Tensor]:
    """The value and the derivative along ``tangents``, by ``torch.func.jvp``; no graph is treated as in :func:`gradients`."""
    linked = True

    def watched(*given: Tensor) -> Tensor:
        nonlocal linked
        value = function(*given)
        linked = torch.autograd.forward_ad.unpack_dual(value).tangent is not None
        return value

    with _transforming(name):
        value, derivative = torch.func.jvp(watched, primals, tangents)[:2]
    if not linked:
        _demand_constant(function(*map(elsewhere, primals)), value, name)
    return value, derivative


def _demand_constant(value: Tensor, before: Tensor, name: str) -> None:
    if not torch.equal(value, before):
        raise ValueError(
            f"{name} must be differentiable by torch: it depends on its argument, but no graph leads there"
            " (it detaches, computes through NumPy, or runs under no_grad or inference_mode)"
        )


@contextmanager
def _transforming(name: str):
    """What torch says of a function that leaves torch, or is in the way of its transforms, in words."""
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error) for words in ("data pointer", "nference", "numpy()")):
            raise
        raise ValueError(
            f"{name} must be differentiable by torch: it computes through NumPy, or runs under inference_mode"
        ) from error


def refuse_graph(value, name: str) -> None:
    """Raise a ValueError where ``value`` requires a gradient that the function called would cut off without a word."""
    if isinstance(value, Tensor) and value.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{name} must not require a gradient, which is not passed on here: detach it")
