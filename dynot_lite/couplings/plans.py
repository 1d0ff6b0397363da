"""Plans between two weighted clouds of points: exact and entropic transport, and draws from a plan.

A plan is a matrix (n, m) with the two weights as marginals. The cost is c(x, y) = ½‖x − y‖², the entropic problem
E c + ε KL(π ‖ p0⊗p1). Where a peer writes ‖x − y‖² + reg KL, reg = 2ε.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import ot
import torch
from torch import Tensor

from dynot_lite._base import checks as check

__all__ = ["entropic_plan", "exact_plan", "sample_plan"]


def exact_plan(x0, x1, *, weights0=None, weights1=None) -> Tensor:
    """A plan that minimises Σ_ij π_ij ½‖x0[i] − x1[j]‖² under the marginals ``weights0`` and ``weights1``.

    It is a vertex of the polytope of plans: at most n + m − 1 entries are positive. ``sample_plan`` and ``from_plan`` draw pairs.

    Args:
        x0, x1: shapes (n, d) and (m, d).
        weights0, weights1: probability weights, shapes (n,) and (m,); uniform if None.

    Returns:
        The plan, shape (n, m), float64, on the device of x0.

    Raises:
        ValueError: empty batches, dimensions that differ, values that are not finite, weights that are not a probability vector.
        RuntimeError: the network simplex of POT did not finish.

    >>> exact_plan([[0.0], [1.0]], [[0.0], [1.0], [2.0]], weights1=[0.5, 0.25, 0.25])
    tensor([[0.5000, 0.0000, 0.0000],
            [0.0000, 0.2500, 0.2500]], dtype=torch.float64)
    """
    x0, x1, a, b = _weighted(x0, x1, weights0, weights1)
    plan, log = ot.emd(a.numpy(), b.numpy(), half_square_cost(x0, x1).numpy(), numItermax=10**8, log=True)
    if log["warning"] is not None:
        raise RuntimeError(f"the exact plan of {len(x0)} and {len(x1)} points was not found: {log['warning']}")
    return torch.as_tensor(plan, device=x0.device)


def entropic_plan(
    x0, x1, epsilon: float, *, weights0=None, weights1=None, tol: float = 1e-6, max_iterations: int = 5000
) -> Tensor:
    """The plan that minimises Σ_ij π_ij ½‖x0[i] − x1[j]‖² + ε KL(π ‖ a⊗b), to a stated marginal error.

    It is π_ij = a_i b_j exp((f_i + g_j − c_ij)/ε). Eliminating f leaves the concave semi-dual F(g) = Σ a_i f_i(g) + Σ b_j g_j,
    f_i(g) = −ε log Σ_j b_j exp((g_j − c_ij)/ε); its gradient is b minus the second marginal, and the first marginal is exact
    for every g. F is maximised by over-relaxed Sinkhorn iterations, whose kernel is the current plan, so that nothing
    underflows, while ε falls from a large value by halves; where they stall (small ε), by Newton steps with a line search on F.

    Args:
        x0, x1: shapes (n, d) and (m, d).
        epsilon: ε > 0, in the units of c; half of the ``reg`` of those who leave out the ½.
        weights0, weights1: probability weights, shapes (n,) and (m,); uniform if None.
        tol: the largest Σ_j |Σ_i π_ij − b_j| that is accepted.
        max_iterations: of Sinkhorn, a Newton step counted as 20.

    Returns:
        The plan, shape (n, m), float64, on the device of x0.

    Raises:
        ValueError: empty batches, dimensions that differ, values that are not finite, bad weights, ε ≤ 0.
        RuntimeError: no convergence; the message gives the error that was reached.

    >>> entropic_plan([[0.0], [1.0]], [[0.0], [1.0]], 0.5)
    tensor([[0.3655, 0.1345],
            [0.1345, 0.3655]], dtype=torch.float64)
    """
    epsilon, tol = check.positive(epsilon, "epsilon"), check.positive(tol, "tol")
    check.count(max_iterations, "max_iterations")
    x0, x1, a, b = _weighted(x0, x1, weights0, weights1)
    kept0, kept1 = a > 0, b > 0  # a point without mass has an empty row or column, and no potential
    plan = torch.zeros(len(a), len(b), dtype=torch.float64)
    cost = half_square_cost(x0[kept0.to(x0.device)], x1[kept1.to(x1.device)])
    plan[kept0.unsqueeze(1) & kept1] = _sinkhorn_newton(cost, a[kept0], b[kept1], epsilon, tol, max_iterations).flatten()
    return plan.to(x0.device)


def sample_plan(plan, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """``n`` pairs (i, j) of a plan: a stratified sample in random order.

    One draw falls in each of n equal parts of the mass, read row by row. So a pair has its probability at every place of the
    batch, and the batch varies less than independent draws would; n draws of a permutation plan of n points are all its pairs.

    Args:
        plan: shape (rows, columns), non-negative, of sum 1.

    Returns:
        Row and column indices, each of shape (n,).

    Raises:
        ValueError: a plan that is not a probability matrix, n < 1.
    """
    draw, _ = plan_sampler(plan)
    return draw(n, generator)


def _weighted(x0, x1, weights0, weights1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two clouds of one dimension, and their weights in float64 on the CPU, of sum 1 to rounding."""
    x0 = check.points(x0, "x0")
    x1 = check.points(x1, "x1", dim=x0.shape[-1])
    if x0.ndim != 2 or x1.ndim != 2:
        raise ValueError(f"x0 and x1 must have shapes (n, d) and (m, d), got {tuple(x0.shape)} and {tuple(x1.shape)}")
    weights = []
    for x, given, name in ((x0, weights0, "weights0"), (x1, weights1, "weights1")):
        w = torch.ones(len(x)) if given is None else check.weights(given, len(x), name)
        w = w.detach().to("cpu", torch.float64)
        weights.append(w / w.sum())
    return x0, x1, *weights


def half_square_cost(x0: Tensor, x1: Tensor) -> Tensor:
    """½‖x − y‖² up to a function of x and one of y, in float64 on the CPU; such functions change no optimal or entropic plan."""
    x0, x1 = (x.detach().to("cpu", torch.float64) for x in (x0, x1))
    x0, x1 = x0 - x0.mean(0), x1 - x1.mean(0)  # less to cancel in the product below
    cost = 0.5 * (x0.square().sum(1, keepdim=True) + x1.square().sum(1)) - x0 @ x1.mT
    if not torch.isfinite(cost).all():
        raise ValueError("x0 and x1 must have finite squared distances")
    return cost


def _sinkhorn_newton(cost: Tensor, a: Tensor, b: Tensor, epsilon: float, tol: float, max_iterations: int) -> Tensor:
    """The plan of ``entropic_plan`` for positive weights; its rows sum to a to rounding."""
    inner = 20
    log_a, log_b = a.log(), b.log()

    def semidual(g: Tensor) -> float:
        return (b @ g - current * (a @ torch.logsumexp((g - cost) / current + log_b, 1))).item()

    g = torch.zeros_like(b)
    current = max(epsilon, 0.05 * (cost.max() - cost.min()).item())
    iterations, previous, stalled = 0, math.inf, False
    while True:
        # One iteration in the log domain, after which every row and column of the plan has mass, then the plan itself.
        f = -current * torch.logsumexp((g - cost) / current + log_b, 1)
        g = -current * torch.logsumexp((f.unsqueeze(1) - cost) / current + log_a.unsqueeze(1), 0)
        kernel = torch.softmax((g - cost) / current + log_b, 1)
        marginal = a @ kernel
        error = (marginal - b).abs().sum().item()
        iterations += 1
        if error <= (tol if current == epsilon else 0.05):
            if current == epsilon:
                return a.unsqueeze(1) * kernel
            current, previous, stalled = max(epsilon, 0.5 * current), math.inf, False
            continue
        if iterations >= max_iterations or not math.isfinite(error):
            raise RuntimeError(
                f"the entropic plan did not converge: marginal error {error:.1e} (tol {tol:g}) after {iterations} iterations "
                f"at epsilon = {current:g} on the way to {epsilon:g}; a larger epsilon or exact_pairs would do"
            )
        stalled, previous = stalled or error > 0.5 * previous, error
        iterations += inner
        if stalled:
            # The negative Hessian of F, times ε: a Laplacian. The constant makes it definite, since F does not see constants.
            laplacian = torch.diag(marginal * (1 + 1e-10)) - kernel.mT @ (a.unsqueeze(1) * kernel) + 1 / len(b) ** 2
            gradient = b - marginal
            step = torch.linalg.solve(laplacian, current * gradient)
            # Beyond a few ε the quadratic model says nothing; clusters that hardly exchange mass ask for steps far beyond.
            step = step * min(1.0, 60 * current / step.abs().max().item())
            value, slope, size = semidual(g), (gradient @ step).item(), 1.0
            while semidual(g + size * step) < value + 1e-4 * size * slope - 1e-14 * abs(value) and size > 1e-6:
                size *= 0.5
            g = g + size * step
        else:
            v = torch.ones_like(b)
            for _ in range(inner):
                v = v * (b / (v * ((a / (kernel @ v)) @ kernel))) ** 1.5
            if torch.isfinite(v).all():
                g = g + current * v.log()


def plan_sampler(plan) -> tuple[Callable, tuple[int, int]]:
    """``draw(n, generator) -> (rows, columns)``, and the shape of the plan; the tables of its positive entries are built once."""
    plan = check.as_tensor(plan, "plan")
    if plan.ndim != 2 or plan.numel() == 0:
        raise ValueError(f"plan must be a non-empty matrix, got shape {tuple(plan.shape)}")
    check.weights(plan.flatten(), plan.numel(), "plan")
    rows, columns = plan.nonzero(as_tuple=True)
    levels = plan[rows, columns].to(torch.float64).cumsum(0)
    levels = levels / levels[-1].clone()
    levels[-1] = math.inf  # a place may round to 1

    def draw(n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        check.count(n, "n")
        device = generator.device if generator else None
        places = (torch.arange(n, device=device) + uniform(n, generator)) / n
        chosen = torch.searchsorted(levels, places.to(levels.device), right=True)
        # In random order: times that are stratified along the batch must not meet pairs that are stratified along it too.
        chosen = chosen[torch.randperm(n, generator=generator, device=device).to(levels.device)]
        return rows[chosen], columns[chosen]

    return draw, tuple(plan.shape)


def uniform(n: int, generator: torch.Generator | None) -> Tensor:
    return torch.rand(n, generator=generator, dtype=torch.float64, device=generator.device if generator else None)
