"""Flows of a velocity field v(t, x): points, trajectories, divergence and likelihood.

The velocity is any callable v(t, x) with a float t and points x of shape (n, d), or (n, ...) where no divergence is asked for;
what it returns is compared with x on every call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base import randomness
from dynot_lite._base.samplers import Velocity, evaluate

__all__ = ["divergence", "hutchinson_divergence", "integrate", "integrate_adaptive", "log_prob", "trajectory"]


def _euler(v: Velocity, t: float, x: Tensor, h: float) -> Tensor:
    return x + h * v(t, x)


def _midpoint(v: Velocity, t: float, x: Tensor, h: float) -> Tensor:
    return x + h * v(t + h / 2, x + h / 2 * v(t, x))


def _rk4(v: Velocity, t: float, x: Tensor, h: float) -> Tensor:
    k1 = v(t, x)
    k2 = v(t + h / 2, x + h / 2 * k1)
    k3 = v(t + h / 2, x + h / 2 * k2)
    k4 = v(t + h, x + h * k3)
    return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


METHODS = {"euler": _euler, "midpoint": _midpoint, "rk4": _rk4}
"""One step of each method: orders 1, 2 and 4, with 1, 2 and 4 evaluations."""


def integrate(velocity: Velocity, x0, *, t0: float = 0.0, t1: float = 1.0, steps: int = 100, method: str = "midpoint") -> Tensor:
    """The flow map φ of dx/dt = v(t, x) from time t0 to t1 (t1 < t0 runs backwards), by equal steps.

    Args:
        velocity: callable (t, x) -> (n, d).
        x0: points at time t0, shape (n, d).
        steps: number of steps.
        method: "euler", "midpoint" or "rk4".

    Returns:
        Points at time t1, shape (n, d); differentiable with respect to x0 and to what the velocity depends on.

    Raises:
        ValueError: an unknown method, steps < 1, points or times that are not finite, a velocity of another shape than x.

    >>> integrate(lambda t, x: 3 * t**2 + 0 * x, torch.tensor([[1.0]])).round(decimals=3)
    tensor([[2.]])
    """
    return deque(_march(velocity, x0, t0, t1, steps, method), maxlen=1)[0][1]


def trajectory(
    velocity: Velocity, x0, *, t0: float = 0.0, t1: float = 1.0, steps: int = 100, method: str = "midpoint"
) -> tuple[Tensor, Tensor]:
    """All points of :func:`integrate`: the times, shape (steps + 1,), and the positions, shape (steps + 1, n, d)."""
    times, positions = zip(*_march(velocity, x0, t0, t1, steps, method), strict=True)
    return torch.tensor(times, dtype=torch.float64).to(positions[0]), torch.stack(positions)


def integrate_adaptive(
    velocity: Velocity, x0, *, t0: float = 0.0, t1: float = 1.0, rtol: float = 1e-10, atol: float = 1e-12
) -> Tensor:
    """The flow map by SciPy's eighth-order method with step control: for oracles and stiff ends, in float64, not differentiable.

    Returns:
        Points at time t1, shape (n, d).

    Raises:
        ValueError: as :func:`integrate`.
        RuntimeError: the step control failed before t1.
    """
    x0 = check.points(x0, "x0")
    t0, t1 = _interval(t0, t1)

    def right_side(t: float, flat):
        return evaluate(velocity, t, torch.as_tensor(flat.reshape(x0.shape)).to(x0.device)).numpy(force=True).ravel()

    start = x0.to(torch.float64).numpy(force=True).ravel()
    solution = solve_ivp(right_side, (t0, t1), start, method="DOP853", rtol=rtol, atol=atol)
    if not solution.success:
        raise RuntimeError(f"the flow could not be integrated to t = {t1:g}: {solution.message}")
    return torch.as_tensor(solution.y[:, -1].reshape(x0.shape)).to(x0.device)


def divergence(velocity: Velocity, t: float, x) -> Tensor:
    """The exact divergence Σ_i ∂v_i/∂x_i at each point, shape (n, d) -> (n,), by d reverse passes.

    Differentiable where gradients are enabled. The velocity at a point may depend on that point only.

    >>> divergence(lambda t, x: x**2, 0.0, torch.tensor([[1.0, 2.0]]))
    tensor([6.], grad_fn=<SumBackward1>)
    """
    return _contract(velocity, t, x, lambda x: torch.eye(x.shape[-1]).to(x).unsqueeze(1).expand(-1, *x.shape), torch.sum)


def hutchinson_divergence(
    velocity: Velocity, t: float, x, *, probes: int = 1, generator: torch.Generator | None = None
) -> Tensor:
    """Hutchinson's unbiased estimate E⟨ε, (∇v) ε⟩ of the divergence, (n, d) -> (n,), with Rademacher ``probes`` per point."""
    check.count(probes, "probes")
    return _contract(velocity, t, x, lambda x: randomness.signs(probes, *x.shape, generator=generator, like=x), torch.mean)


def log_prob(
    velocity: Velocity,
    x1,
    log_prob0: Callable[[Tensor], Tensor],
    *,
    t0: float = 0.0,
    t1: float = 1.0,
    steps: int = 100,
    method: str = "midpoint",
    probes: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The log-density at x1 of the law transported by the flow from time t0 to t1.

    log p_1(φ(x)) = log p_0(x) − ∫ div v(t, φ_t(x)) dt along the flow, integrated backwards from x1.

    Args:
        velocity: callable (t, x) -> (n, d).
        x1: points at time t1, shape (n, d).
        log_prob0: log-density at time t0, (n, d) -> (n,).
        probes: None for the exact divergence (d reverse passes), else the number of Hutchinson probes per point, which are
            kept fixed along a trajectory.

    Returns:
        Log-densities, shape (n,).

    Raises:
        ValueError: as :func:`integrate`.
    """
    x1 = check.points(x1, "x1")
    fixed = None
    if probes is not None:
        fixed = randomness.signs(check.count(probes, "probes"), *x1.shape, generator=generator, like=x1)

    def augmented(t: float, state: Tensor) -> Tensor:
        x = state[:, :-1]
        if fixed is None:
            rate = divergence(velocity, t, x)
        else:
            rate = _contract(velocity, t, x, lambda x: fixed, torch.mean)
        return torch.cat([evaluate(velocity, t, x), rate.unsqueeze(-1)], -1)

    start = torch.cat([x1, torch.zeros_like(x1[:, :1])], -1)
    end = integrate(augmented, start, t0=t1, t1=t0, steps=steps, method=method)
    return log_prob0(end[:, :-1]) + end[:, -1]


def _contract(velocity: Velocity, t: float, x, directions: Callable, reduce: Callable) -> Tensor:
    """⟨ε, (∇v) ε⟩ for each of the directions ε, shape (k, n, d), reduced over them."""
    differentiable = torch.is_grad_enabled()
    x = check.points(x, "x")
    with torch.enable_grad():
        if not x.requires_grad:
            x = x.detach().requires_grad_()
        v = evaluate(velocity, t, x)
        terms = []
        for direction in directions(x):
            if not v.requires_grad:  # a field that does not depend on x
                terms.append(torch.zeros_like(x[..., 0]))
                continue
            (product,) = torch.autograd.grad(
                v, x, direction, create_graph=differentiable, retain_graph=True, materialize_grads=True
            )
            terms.append((product * direction).sum(-1))
        return reduce(torch.stack(terms), 0)


def _march(velocity: Velocity, x0, t0: float, t1: float, steps: int, method: str):
    x = check.points(x0, "x0")
    t0, t1 = _interval(t0, t1)
    check.count(steps, "steps")
    if method not in METHODS:
        raise ValueError(f"method must be one of {sorted(METHODS)}, got {method!r}")
    h = (t1 - t0) / steps
    # The last stage of the last step ends at t1 exactly, not one rounding beyond it.
    low, high = min(t0, t1), max(t0, t1)

    def field(t: float, x: Tensor) -> Tensor:
        return evaluate(velocity, min(max(t, low), high), x)

    yield t0, x
    for i in range(steps):
        x = METHODS[method](field, t0 + i * h, x, h)
        yield (t1 if i == steps - 1 else t0 + (i + 1) * h), x


def _interval(t0: float, t1: float) -> tuple[float, float]:
    return float(check.as_tensor(t0, "t0")), float(check.as_tensor(t1, "t1"))
