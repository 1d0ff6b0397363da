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

from collections.abc import Callable

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite.couplings.plans import entropic_plan, half_square_cost, plan_sampler, uniform

__all__ = ["entropic", "entropic_pairs", "exact", "exact_pairs", "from_plan", "independent", "sorted_pairs"]


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
    cost = half_square_cost(x0, x1)
    if len(cost) > 64:  # below, the potentials cost more than they save
        cost -= _rough_potential(cost)
    cost -= cost.amin(1, keepdim=True)
    cost -= cost.amin(0)
    return torch.as_tensor(linear_sum_assignment(cost.numpy())[1], device=x0.device)


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
    places = uniform(len(levels), generator).to(levels.device).unsqueeze(1) * levels[:, -1:]
    return torch.searchsorted(levels, places, right=True).squeeze(1).clamp_max(levels.shape[1] - 1)


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
    draw, shape = plan_sampler(plan)
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
