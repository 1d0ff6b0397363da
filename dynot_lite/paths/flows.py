"""Flows of a velocity field v(t, x): points, trajectories, divergence and likelihood.

The velocity is any callable v(t, x) with a float t and points x of shape (n, d), or (n, ...) where no divergence is asked for;
what it returns is compared with x on every call. It gets a copy of x, which it may change.
"""

from collections import deque
from collections.abc import Callable

import numpy as np
import torch
from scipy.integrate import DOP853
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base import randomness
from dynot_lite._base.differentiation import elsewhere, gradients, leaf, recording, refuse_graph
from dynot_lite._base.samplers import Velocity, evaluate, function, values

__all__ = ["divergence", "hutchinson_divergence", "integrate", "integrate_adaptive", "log_prob", "trajectory"]


def _euler(v: Velocity, t: float, x: Tensor, h: float) -> Tensor:
    return torch.add(x, v(t, x), alpha=h)


def _midpoint(v: Velocity, t: float, x: Tensor, h: float) -> Tensor:
    return torch.add(x, v(t + h / 2, torch.add(x, v(t, x), alpha=h / 2)), alpha=h)


def _rk4(v: Velocity, t: float, x: Tensor, h: float) -> Tensor:
    k = v(t, x)
    end = torch.add(x, k, alpha=h / 6)  # each slope is used before the next: the velocity may return one buffer again and again
    for ahead, weight in ((h / 2, h / 3), (h / 2, h / 3), (h, h / 6)):
        k = v(t + ahead, torch.add(x, k, alpha=ahead))
        end = torch.add(end, k, alpha=weight)
    return end


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
        ValueError: an unknown method, steps < 1, points or times that are not finite (or require a gradient: times), a velocity
            of another shape than x, an end that is not finite.

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
    velocity: Velocity,
    x0,
    *,
    t0: float = 0.0,
    t1: float = 1.0,
    rtol: float = 1e-10,
    atol: float | None = None,
    max_iterations: int = 100_000,
) -> Tensor:
    """The flow map by SciPy's eighth-order method with step control: for oracles and stiff ends, in float64, not differentiable.

    Args:
        rtol: relative error of a step; below 2.2e-14, rounding, it has no more effect.
        atol: absolute error of a step; None for ``rtol``/100 times the median size of x0 and of the way it would go at its
            first speed.
        max_iterations: the largest number of evaluations of the velocity.

    Returns:
        Points at time t1, shape (n, d).

    Raises:
        ValueError: as :func:`integrate`; tolerances that are not positive; an x0 that requires a gradient.
        RuntimeError: the step control failed before t1, or needs more evaluations; the message says how far it came.
    """
    x0 = check.points(x0, "x0")
    refuse_graph(x0, "x0")
    t0, t1 = check.number(t0, "t0"), check.number(t1, "t1")
    rtol = max(check.positive(rtol, "rtol"), 100 * np.finfo(float).eps)
    check.count(max_iterations, "max_iterations")
    calls, sound, reached = 0, True, t0

    def failure(reason: str) -> RuntimeError:
        where = "" if sound else ", where the velocity is not finite"
        reason = reason.rstrip(".").lower()
        return RuntimeError(f"the flow could not be integrated to t = {t1:g}, only to t = {reached:.6g}{where}: {reason}")

    def right_side(t: float, flat: np.ndarray) -> np.ndarray:
        nonlocal calls, sound
        calls += 1
        if calls > max_iterations:
            raise failure(f"max_iterations = {max_iterations} evaluations are used up")
        v = evaluate(velocity, t, torch.tensor(flat.reshape(x0.shape)).to(x0.device))
        found = v.detach().to("cpu", torch.float64, copy=True).numpy().ravel()
        sound = bool(np.isfinite(found).all())
        return found

    x = x0.to(torch.float64).numpy(force=True).ravel()
    first = right_side(t0, x)
    if not sound:
        raise ValueError(f"velocity must be finite at x0, got NaN or infinity at t = {t0:g}")
    sizes = np.abs(x) + abs(t1 - t0) * np.abs(first)
    size = float(np.median(sizes) or sizes.max() or 1.0)
    absolute = 0.01 * rtol * size if atol is None else check.positive(atol, "atol")
    with np.errstate(all="ignore"):  # a trial step may overflow, and is then made shorter
        solver = DOP853(right_side, t0, x, t1, rtol=rtol, atol=absolute)
        while solver.status == "running":
            message = solver.step()
            reached = solver.t
            if message is not None:
                raise failure(message)
    if not np.isfinite(solver.y).all():
        raise failure("the points are not finite")
    return torch.tensor(solver.y.reshape(x0.shape)).to(x0.device)


def divergence(velocity: Velocity, t: float, x) -> Tensor:
    """The exact divergence Σ_i ∂v_i/∂x_i at each point, shape (n, d) -> (n,), by d reverse passes.

    Differentiable where gradients are enabled. The velocity at a point may depend on that point only.

    Raises:
        ValueError: a velocity of another shape than x, or one that depends on x and has no graph, which is no divergence of zero.

    >>> divergence(lambda t, x: x**2, 0.0, torch.tensor([[1.0, 2.0]]))
    tensor([6.], grad_fn=<SumBackward1>)
    """
    return _rate(velocity, t, check.cloud(x, "x"))


def hutchinson_divergence(
    velocity: Velocity, t: float, x, *, probes: int = 1, generator: torch.Generator | None = None
) -> Tensor:
    """Hutchinson's unbiased estimate E⟨ε, (∇v) ε⟩ of the divergence, (n, d) -> (n,), with Rademacher ``probes`` per point.

    Errors as for :func:`divergence`.
    """
    x = check.cloud(x, "x")
    signs = randomness.signs(check.count(probes, "probes"), *x.shape, generator=generator, like=x)
    return _rate(velocity, t, x, signs)


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
        ValueError: as :func:`integrate` and :func:`divergence`; a log_prob0 of another shape, or that is NaN.
    """
    x1, signs = check.cloud(x1, "x1"), None
    t0, t1 = check.number(t0, "t0"), check.number(t1, "t1")
    if probes is not None:
        signs = randomness.signs(check.count(probes, "probes"), *x1.shape, generator=generator, like=x1)

    def augmented(t: float, state: Tensor) -> Tensor:
        v, rate = velocity_and_divergence(velocity, t, state[:, :-1], signs)
        return torch.cat([v, rate.unsqueeze(-1)], -1)

    start = torch.cat([x1, torch.zeros_like(x1[:, :1])], -1)
    end = integrate(augmented, start, t0=t1, t1=t0, steps=steps, method=method)
    density = values(function(log_prob0, "log_prob0")(end[:, :-1].clone()), end[:, -1], "log_prob0")
    if not (density < torch.inf).all():
        raise ValueError("log_prob0 must return numbers below infinity, got NaN or infinity")
    return density + end[:, -1]


def velocity_and_divergence(velocity: Velocity, t, x: Tensor, signs: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """v(t, x) and its divergence, by one evaluation: exact, or the mean of ⟨ε, (∇v) ε⟩ over ``signs`` ε of shape (k, n, d)."""
    differentiable = torch.is_grad_enabled()
    with recording():
        y = x if x.requires_grad else leaf(x)
        v = evaluate(velocity, t, y.clone())
        directions = torch.eye(y.shape[-1]).to(y).unsqueeze(1).expand(-1, *y.shape) if signs is None else signs
        again = lambda: evaluate(velocity, t, elsewhere(y))
        found = gradients(v, y, directions, again=again, name="velocity", create_graph=differentiable)
        terms = torch.stack([(product * direction).sum(-1) for product, direction in zip(found, directions, strict=True)])
        rate = terms.sum(0) if signs is None else terms.mean(0)
    return (v, rate) if differentiable else (v.detach(), rate.detach())


def _rate(velocity: Velocity, t: float, x: Tensor, signs: Tensor | None = None) -> Tensor:
    """The divergence, finite; t is handed on as it is, a finite number or one per point."""
    kept = isinstance(t, Tensor) and check.as_tensor(t, "t").shape in ((), x.shape[:1])
    v, rate = velocity_and_divergence(velocity, t if kept else check.number(t, "t"), x, signs)
    if not (check.finite(v) and check.finite(rate)):
        raise ValueError("velocity must be finite, with a finite divergence, got NaN or infinity")
    return rate


def _march(velocity: Velocity, x0, t0: float, t1: float, steps: int, method: str):
    x = check.points(x0, "x0")
    t0, t1 = check.number(t0, "t0"), check.number(t1, "t1")
    check.count(steps, "steps")
    step, h = METHODS[check.choice(method, "method", METHODS)], (t1 - t0) / steps
    # The last stage of the last step ends at t1 exactly, not one rounding beyond it.
    low, high = min(t0, t1), max(t0, t1)

    def field(t: float, x: Tensor) -> Tensor:
        return evaluate(velocity, min(max(t, low), high), x.clone())

    yield t0, x
    for i in range(steps):
        x = step(field, t0 + i * h, x, h)
        if i == steps - 1 and not check.finite(x):
            raise ValueError(f"velocity must keep the points finite, got NaN or infinity at t = {t1:g}")
        yield (t1 if i == steps - 1 else t0 + (i + 1) * h), x
