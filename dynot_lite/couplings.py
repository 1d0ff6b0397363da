"""Couplings of two laws, as pairs of points: independent, exact, entropic, sorted; and samplers of pairs for training.

Pairs of two batches of one size are an ``index``: x0[i] goes with x1[index[i]]. Batches of other sizes or weights have a
*plan*, a matrix of shape (n, m) with the two weights as marginals, from which pairs are drawn.

A *pair sampler* is a callable ``pairs(n, generator=) -> (x0, x1)`` with two arrays of shape (n, d). It is made of two samplers
``(n, generator=) -> (n, d)``. A target that returns ``(x1, labels)`` makes the pairs class-conditional, ``(x0, x1, labels)``, and
the points are then paired *within each class*: a velocity v(t, x, label) carries p(x0 | label) to p(x1 | label), and generation
starts every class from all of p0. Pairing the whole batch would tie labels to regions of the source, so that training and
generation would start from different laws (the subject of many reports about minibatch transport with conditions).

The cost is c(x, y) = ½‖x − y‖², the entropic problem E c + ε KL(π ‖ p0⊗p1). Where a peer writes ‖x − y‖² + reg KL, reg = 2ε.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import ot
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from dynot_lite import _validation as check

__all__ = [
    "entropic",
    "entropic_pairs",
    "entropic_plan",
    "exact",
    "exact_pairs",
    "exact_plan",
    "from_plan",
    "independent",
    "sample_plan",
    "sorted_pairs",
]


def sorted_pairs(x0, x1) -> Tensor:
    """The optimal pairs on the line: the k-th smallest point goes to the k-th smallest, for every convex cost of x − y.

    Args:
        x0, x1: shape (n, 1).

    Returns:
        A permutation, shape (n,): x0[i] goes with x1[index[i]]. Equal points keep their order.

    Raises:
        ValueError: empty batches, unequal shapes, another dimension, values that are not finite.

    >>> sorted_pairs([[3.0], [1.0], [2.0]], [[20.0], [10.0], [30.0]])
    tensor([2, 1, 0])
    """
    x0, x1 = _batches(x0, x1)
    if x0.shape[1] != 1:
        raise ValueError(f"x0 and x1 must have dimension 1, got shape {tuple(x0.shape)}")
    index = torch.empty(len(x0), dtype=torch.long, device=x0.device)
    index[x0[:, 0].argsort(stable=True)] = x1[:, 0].argsort(stable=True)
    return index


def exact_pairs(x0, x1) -> Tensor:
    """The permutation that minimises Σ_i ½‖x0[i] − x1[index[i]]‖²: exact transport of two uniform batches of one size.

    A minimum over couplings is attained at a permutation (Birkhoff), so no point is dropped or repeated. The assignment is solved
    by SciPy's shortest augmenting paths, after the cost is reduced by approximate potentials: for *any* f and g the costs c_ij
    and c_ij − f_i − g_j have the same optimal permutations, since Σ_i f_i + Σ_j g_j is a constant. A few Sinkhorn iterations
    give potentials with which most paths are short; they change the time, never the result. In dimension 1 it is sorting.

    Args:
        x0, x1: shape (n, d).

    Returns:
        A permutation, shape (n,), on the device of x0: x0[i] goes with x1[index[i]]. It is optimal up to the rounding of float64.

    Raises:
        ValueError: empty batches, unequal shapes (see ``exact_plan`` for those), values that are not finite.

    >>> exact_pairs([[0.0, 0.0], [3.0, 0.0]], [[2.0, 1.0], [1.0, -1.0]])
    tensor([1, 0])
    """
    x0, x1 = _batches(x0, x1)
    if x0.shape[1] == 1:
        return sorted_pairs(x0, x1)
    cost = _cost(x0, x1)
    if len(cost) > 64:  # below, the potentials cost more than they save
        cost -= _rough_potential(cost)
    cost -= cost.amin(1, keepdim=True)
    cost -= cost.amin(0)
    return torch.as_tensor(linear_sum_assignment(cost.numpy())[1], device=x0.device)


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
    plan, log = ot.emd(a.numpy(), b.numpy(), _cost(x0, x1).numpy(), numItermax=10**8, log=True)
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
    cost = _cost(x0[kept0.to(x0.device)], x1[kept1.to(x1.device)])
    plan[kept0.unsqueeze(1) & kept1] = _sinkhorn_newton(cost, a[kept0], b[kept1], epsilon, tol, max_iterations).flatten()
    return plan.to(x0.device)


def entropic_pairs(x0, x1, epsilon: float, *, generator: torch.Generator | None = None, **options) -> Tensor:
    """For each x0[i] a partner drawn from row i of the entropic plan of the two uniform batches.

    Every x0[i] appears once; an x1[j] appears once on average, not always (a draw that used each exactly once would follow
    another plan). As ε → 0 the pairs become those of ``exact_pairs``, as ε → ∞ independent draws.

    Args:
        x0, x1: shapes (n, d) and (m, d).
        epsilon, options: as in ``entropic_plan`` (``tol``, ``max_iterations``).

    Returns:
        Shape (n,): x0[i] goes with x1[index[i]].

    Raises:
        ValueError, RuntimeError: as ``entropic_plan``.
    """
    levels = entropic_plan(x0, x1, epsilon, **options).cumsum(1)
    places = _uniform(len(levels), generator).to(levels.device).unsqueeze(1) * levels[:, -1:]
    return torch.searchsorted(levels, places, right=True).squeeze(1).clamp_max(levels.shape[1] - 1)


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
    draw, _ = _plan_sampler(plan)
    return draw(n, generator)


def independent(source: Callable, target: Callable) -> Callable:
    """The pair sampler of the product coupling: what the two samplers give, side by side."""
    return _pair_sampler(source, target, None)


def exact(source: Callable, target: Callable) -> Callable:
    """The pair sampler that draws two batches and pairs them by ``exact_pairs``, within each class if there are labels.

    The law of the pairs depends on the size of the batch: optimal transport as n → ∞, the product coupling for n = 1.
    """
    return _pair_sampler(source, target, lambda x0, x1, generator: exact_pairs(x0, x1))


def entropic(source: Callable, target: Callable, *, epsilon: float, **options) -> Callable:
    """The pair sampler that draws two batches and pairs them by ``entropic_pairs``, within each class if there are labels.

    Raises:
        ValueError: ε ≤ 0. RuntimeError, on a draw: no convergence.
    """
    options["epsilon"] = check.positive(epsilon, "epsilon")
    return _pair_sampler(source, target, lambda x0, x1, generator: entropic_pairs(x0, x1, generator=generator, **options))


def from_plan(x0, x1, plan, *, labels=None) -> Callable:
    """The pair sampler of a fixed plan between two clouds: ``sample_plan``, with its tables built once.

    Args:
        x0, x1: shapes (rows, d) and (columns, d).
        plan: shape (rows, columns), non-negative, of sum 1.
        labels: integers, shape (columns,), returned with x1.

    Raises:
        ValueError: empty clouds, shapes that do not fit, a plan that is not a probability matrix.
    """
    x0 = check.points(x0, "x0")
    x1 = check.points(x1, "x1", dim=x0.shape[-1], like=x0)
    draw, shape = _plan_sampler(plan)
    if shape != (len(x0), len(x1)):
        raise ValueError(f"plan must have shape {(len(x0), len(x1))}, got {shape}")
    if labels is not None:
        labels = _labels(labels, len(x1)).to(x1.device)

    def pairs(n: int, *, generator: torch.Generator | None = None):
        rows, columns = (index.to(x0.device) for index in draw(n, generator))
        return (x0[rows], x1[columns]) if labels is None else (x0[rows], x1[columns], labels[columns])

    return pairs


def _batches(x0, x1) -> tuple[Tensor, Tensor]:
    x0, x1 = check.points(x0, "x0"), check.points(x1, "x1")
    if x0.ndim != 2 or x0.shape != x1.shape:
        raise ValueError(f"x0 and x1 must have one shape (n, d), got {tuple(x0.shape)} and {tuple(x1.shape)}")
    return x0, x1


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


def _cost(x0: Tensor, x1: Tensor) -> Tensor:
    """½‖x − y‖² up to a function of x and one of y, in float64 on the CPU; such functions change no optimal or entropic plan."""
    x0, x1 = (x.detach().to("cpu", torch.float64) for x in (x0, x1))
    x0, x1 = x0 - x0.mean(0), x1 - x1.mean(0)  # less to cancel in the product below
    cost = 0.5 * (x0.square().sum(1, keepdim=True) + x1.square().sum(1)) - x0 @ x1.mT
    if not torch.isfinite(cost).all():
        raise ValueError("x0 and x1 must have finite squared distances")
    return cost


def _rough_potential(cost: Tensor) -> Tensor:
    """A cheap approximation of the optimal potential g: over-relaxed Sinkhorn iterations in float32 at two values of ε."""
    scale = cost.mean()
    if not scale > 0:
        return torch.zeros(len(cost), dtype=cost.dtype)
    cost = (cost / scale).float()
    g = torch.zeros(len(cost))
    for epsilon, iterations in ((0.1, 5), (0.02, 10)):
        kernel = cost - g
        kernel -= kernel.amin(1, keepdim=True)
        floor = kernel.amin(0)  # with it, every row and every column has an entry exp(0)
        kernel.sub_(floor).mul_(-1 / epsilon).exp_()
        v = torch.ones(len(cost))
        for _ in range(iterations):
            v = v * (1 / (v * ((1 / (kernel @ v)) @ kernel))) ** 1.5
        g = g + floor + epsilon * v.log()
    # Any potential is admissible: where float32 was not enough, none.
    return g.to(torch.float64) * scale if torch.isfinite(g).all() else torch.zeros(len(cost), dtype=torch.float64)


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


def _uniform(n: int, generator: torch.Generator | None) -> Tensor:
    return torch.rand(n, generator=generator, dtype=torch.float64, device=generator.device if generator else None)


def _plan_sampler(plan) -> tuple[Callable, tuple[int, int]]:
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
        places = (torch.arange(n, device=device) + _uniform(n, generator)) / n
        chosen = torch.searchsorted(levels, places.to(levels.device), right=True)
        # In random order: times that are stratified along the batch must not meet pairs that are stratified along it too.
        chosen = chosen[torch.randperm(n, generator=generator, device=device).to(levels.device)]
        return rows[chosen], columns[chosen]

    return draw, tuple(plan.shape)


def _labels(value, n: int) -> Tensor:
    labels = torch.as_tensor(value)
    if labels.shape != (n,) or labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"labels must be integers of shape ({n},), got {labels.dtype} of shape {tuple(labels.shape)}")
    return labels.long()


def _pair_sampler(source: Callable, target: Callable, pair: Callable | None) -> Callable:
    """The sampler of pairs of two samplers, the second batch reordered by ``pair(x0, x1, generator)``, class by class."""

    def pairs(n: int, *, generator: torch.Generator | None = None):
        check.count(n, "n")
        x0, found = source(n, generator=generator), target(n, generator=generator)
        labelled = isinstance(found, tuple)
        x1, labels = found if labelled else (found, None)
        if x0.ndim != 2 or x0.shape != x1.shape or len(x0) != n:
            shapes = f"{tuple(x0.shape)} and {tuple(x1.shape)}"
            raise ValueError(f"source and target must return points of one shape (n, d) with n = {n}, got {shapes}")
        if labelled:
            labels = _labels(labels, n)
        if pair is not None:
            classes = [torch.arange(n)] if labels is None else [(labels == c).nonzero()[:, 0] for c in labels.unique()]
            x1 = x1.clone()
            for rows in classes:
                rows = rows.to(x1.device)
                x1[rows] = x1[rows[pair(x0[rows], x1[rows], generator)]]
        return (x0, x1, labels) if labelled else (x0, x1)

    return pairs
