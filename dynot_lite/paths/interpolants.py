"""Interpolants X_t = α(t) X0 + β(t) X1 between the two ends of a coupling."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base import samplers
from dynot_lite._base.differentiation import leaf, recording

__all__ = ["LINEAR", "TRIGONOMETRIC", "VARIANCE_PRESERVING", "Interpolant"]


@dataclass(frozen=True)
class Interpolant:
    """The path X_t = α(t) X0 + β(t) X1, with α(0) = β(1) = 1 and α(1) = β(0) = 0.

    ``alpha`` and ``beta`` map a tensor of times to a tensor of the same shape, elementwise, by torch operations. So do their
    derivatives ``d_alpha`` and ``d_beta``, if given; else they come from automatic differentiation, which costs a training step
    as much as a small network. They are checked once against central differences.

    Raises:
        ValueError: wrong end points, a value that is not a finite tensor of the shape of t, a wrong derivative, or one that
            automatic differentiation does not see (a function that leaves torch or detaches).

    >>> path = Interpolant(lambda t: 1 - t**2, lambda t: t**2)
    >>> x_t, dx_t = path.at(0.5, torch.tensor([[0.0]]), torch.tensor([[4.0]]))
    >>> x_t.item(), dx_t.item()
    (1.0, 4.0)
    """

    alpha: Callable[[Tensor], Tensor]
    beta: Callable[[Tensor], Tensor]
    d_alpha: Callable[[Tensor], Tensor] | None = None
    d_beta: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self):
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
        inner = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
        step = 1e-5
        functions = (("alpha", self.alpha, self.d_alpha, [1.0, 0.0]), ("beta", self.beta, self.d_beta, [0.0, 1.0]))
        for name, function, given, expected in functions:
            found = _evaluate(function, ends, name)
            if not torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6):
                raise ValueError(f"{name} must be {expected} at t = 0 and 1, got {found.tolist()}")
            difference = (_evaluate(function, inner + step, name) - _evaluate(function, inner - step, name)) / (2 * step)
            if given is not None:
                derivative = _evaluate(given, inner, f"d_{name}")
            else:
                # By plain reverse mode: torch.func takes a second to import, and every program imports this module.
                with recording():
                    t = leaf(inner)
                    total = _evaluate(function, t, name).sum() + 0 * t.sum()  # a constant or detached function has derivative 0
                    (derivative,) = torch.autograd.grad(total, t)
            if not torch.allclose(derivative, difference, rtol=1e-4, atol=1e-4):
                required = f"{name} must be differentiable by torch" if given is None else f"d_{name} must be the derivative"
                raise ValueError(f"{required}: finite differences of {name} differ by {(derivative - difference).abs().max():g}")

    def coefficients(self, t) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """α(t), β(t), α'(t), β'(t), each of the shape of t."""
        return self._coefficients(check.as_tensor(t, "t"))

    def _coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if self.d_alpha is not None and self.d_beta is not None:
            found = [function(t.clone()) for function in (self.alpha, self.beta, self.d_alpha, self.d_beta)]
        else:
            t = t.contiguous()  # forward mode refuses expanded tensors
            # In forward mode, so that both stay differentiable; together, because the set-up is what costs.
            both = lambda t: (
                samplers.values(self.alpha(t.clone()), t, "alpha"),
                samplers.values(self.beta(t.clone()), t, "beta"),
            )
            found = sum(torch.func.jvp(both, (t,), (torch.ones_like(t),))[:2], ())
        alpha, beta, d_alpha, d_beta = map(samplers.values, found, [t] * 4, ("alpha", "beta", "d_alpha", "d_beta"))
        return alpha, beta, d_alpha, d_beta

    def at(self, t, x0, x1) -> tuple[Tensor, Tensor]:
        """The point X_t and its velocity dX_t/dt.

        Args:
            t: a time in [0, 1], or one per pair, shape (n,).
            x0, x1: pairs of points, shape (n, d) (or (n, ...), for instance images).

        Returns:
            x_t and dx_t, each of the shape of x0.

        Raises:
            ValueError: shapes that differ, values that are not finite, a time outside [0, 1] or without a finite velocity.
        """
        x0 = check.as_tensor(x0, "x0")
        x1 = check.as_tensor(x1, "x1", like=x0)
        if x0.shape != x1.shape or x0.ndim < 2 or x0.shape[0] == 0:
            raise ValueError(f"x0 and x1 must have one shape (n, d), n > 0, got {tuple(x0.shape)} and {tuple(x1.shape)}")
        t = check.time(t, n=x0.shape[0], like=x0)
        x_t, dx_t = self.unchecked(t, x0, x1)
        if not (check.finite(x_t) and check.finite(dx_t)):
            raise ValueError("t must be a time at which the path has a velocity: alpha, beta, d_alpha or d_beta is not finite")
        return x_t, dx_t

    def unchecked(self, t: Tensor, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`at` for tensors that fit together, without its checks: on a GPU they wait for the values in every step."""
        alpha, beta, d_alpha, d_beta = self._coefficients(t.reshape(-1, *[1] * (x0.ndim - 1)))
        return torch.addcmul(alpha * x0, beta, x1), torch.addcmul(d_alpha * x0, d_beta, x1)


def _evaluate(function: Callable[[Tensor], Tensor], t: Tensor, name: str) -> Tensor:
    value = samplers.function(function, name)(t.clone())
    if not isinstance(value, Tensor) or value.shape != t.shape or value.is_complex() or not check.finite(value):
        raise ValueError(f"{name} must map a tensor of times to a finite tensor of the same shape")
    return value.to(t, copy=True)  # the function may return one buffer again and again


class _Linear(Interpolant):
    """The default path, whose points and velocities need no coefficients: a third of the operations in every training step."""

    def unchecked(self, t: Tensor, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
        return torch.lerp(x0, x1, t.reshape(-1, *[1] * (x0.ndim - 1))), x1 - x0


LINEAR = _Linear(lambda t: 1 - t, lambda t: t, lambda t: -torch.ones_like(t), torch.ones_like)
"""The linear path (1 − t) X0 + t X1."""

TRIGONOMETRIC = Interpolant(
    lambda t: torch.cos(0.5 * math.pi * t),
    lambda t: torch.sin(0.5 * math.pi * t),
    lambda t: -0.5 * math.pi * torch.sin(0.5 * math.pi * t),
    lambda t: 0.5 * math.pi * torch.cos(0.5 * math.pi * t),
)
"""The trigonometric path cos(πt/2) X0 + sin(πt/2) X1; its derivative carries the factor π/2 that the notes lose."""

VARIANCE_PRESERVING = Interpolant(
    lambda t: torch.sqrt(1 - t**2), lambda t: t, lambda t: -t / torch.sqrt(1 - t**2), torch.ones_like
)
"""The path √(1 − t²) X0 + t X1: the trigonometric one with another clock, so that the share of X1 grows evenly.

It preserves the covariance where the trigonometric path does. Its derivative is unbounded: there is no velocity at t = 1, and
E‖dX_t/dt‖² grows like E‖X0‖² / (2(1 − t)), so that the flow-matching loss has no finite minimum over [0, 1].
"""
