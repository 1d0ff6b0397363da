"""Couplings of two laws, as pairs of points: independent, exact, entropic, sorted; and samplers of pairs for training.

Pairs of two batches of one size are an ``index``: x0[i] goes with x1[index[i]]. Batches of other sizes or weights have a
*plan*, a matrix of shape (n, m) with the two weights as marginals, from which pairs are drawn.

A *pair sampler* is a callable ``pairs(n, generator=) -> (x0, x1, *conditions)``. It is made of two samplers
``(n, generator=) -> (n, d)``, or ``(n, ...)`` for images, whose distances are those of their pixels in a row. A target that
returns ``(x1, *conditions)`` has them carried along with x1: labels, continuous conditions, any number of tensors.

Conditions of integers (labels) make the pairs conditional: points are paired *within each group* of equal integers, all integer
conditions taken together. A velocity v(t, x, label) then carries p(x0 | label) to p(x1 | label), and generation starts every
class from all of p0. Pairing the whole batch would tie labels to regions of the source, so that training and generation would
start from different laws (the subject of many reports about minibatch transport with conditions). **Continuous conditions only
ride along: the pairing does not see them, and ties them to regions of the source in just that way.** With them, use
``independent``, or integers that bin them.

The cost is c(x, y) = ½‖x − y‖², the entropic problem E c + ε KL(π ‖ p0⊗p1). Where a peer writes ‖x − y‖² + reg KL, reg = 2ε.
"""

from collections.abc import Callable

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base import randomness, samplers
from dynot_lite._base.samplers import PairSampler, Sampler
from dynot_lite.couplings.plans import entropic_plan, half_square_cost, plan_sampler

__all__ = ["entropic", "entropic_pairs", "exact", "exact_pairs", "from_plan", "in_blocks", "independent", "sorted_pairs"]


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
    give potentials with which most paths are short; they change the time, never the cost. In dimension 1 it is sorting.

    Args:
        x0, x1: shape (n, d).

    Returns:
        A permutation, shape (n,), on the device of x0: x0[i] goes with x1[index[i]]. It is optimal up to the rounding of float64,
        so a permutation that is better than all others by more than that is found on every machine. Where several are equally
        good (points on a lattice, repeated points), which of them is returned can depend on the number of threads and on the
        machine, through the rounding of matrix products; on one machine with one number of threads it is always the same.

    Raises:
        ValueError: empty batches, unequal shapes (see ``exact_plan`` for those), values that are not finite.

    >>> exact_pairs([[0.0, 0.0], [3.0, 0.0]], [[2.0, 1.0], [1.0, -1.0]])
    tensor([1, 0])
    """
    x0, x1 = _batches(x0, x1)
    if x0.shape[1] == 1:
        return sorted_pairs(x0, x1)
    cost = half_square_cost(x0, x1)[0].cpu()
    if len(cost) > 64:  # below, the potentials cost more than they save
        cost -= _rough_potential(cost)
    cost -= cost.amin(1, keepdim=True)
    cost -= cost.amin(0)
    return torch.as_tensor(linear_sum_assignment(cost.numpy())[1], device=x0.device)


@torch.no_grad()
def entropic_pairs(x0, x1, epsilon: float, *, generator: torch.Generator | None = None, **options) -> Tensor:
    """For each x0[i] a partner drawn from row i of the entropic plan of the two uniform batches.

    Every x0[i] appears once; an x1[j] appears once on average, not always (a draw that used each exactly once would follow
    another plan). As ε → 0 the pairs become those of ``exact_pairs``, as ε → ∞ independent draws.

    Args:
        x0, x1: shapes (n, d) and (m, d).
        epsilon, options: as in ``entropic_plan`` (``weights1``, ``tol``, ``max_iterations``).

    Returns:
        Shape (n,): x0[i] goes with x1[index[i]].

    Raises:
        ValueError: as ``entropic_plan``. RuntimeError: it did not converge.
    """
    levels = entropic_plan(x0, x1, epsilon, **options).require().plan.cumsum(1)
    places = randomness.uniform(len(levels), 1, generator=generator, like=levels) * levels[:, -1:]
    return torch.searchsorted(levels, places, right=True).squeeze(1).clamp_max(levels.shape[1] - 1)


def independent(source: Sampler, target: Callable) -> PairSampler:
    """The pair sampler of the product coupling: what the two samplers give, side by side."""
    return paired(source, target, None)


def exact(source: Sampler, target: Callable) -> PairSampler:
    """The pair sampler that draws two batches and pairs them by ``exact_pairs``, within each group if there are labels.

    The law of the pairs depends on the size of the batch: optimal transport as n → ∞, the product coupling for n = 1.
    """
    return paired(source, target, lambda x0, x1, generator: (_all(x0), exact_pairs(x0, x1)))


def entropic(source: Sampler, target: Callable, *, epsilon: float, **options) -> PairSampler:
    """The pair sampler that draws two batches and pairs them by ``entropic_pairs``, within each group if there are labels.

    Raises:
        ValueError: ε ≤ 0. RuntimeError, on a draw: no convergence.
    """
    options["epsilon"] = check.positive(epsilon, "epsilon")
    return paired(source, target, lambda x0, x1, generator: (_all(x0), entropic_pairs(x0, x1, generator=generator, **options)))


def from_plan(x0, x1, plan, *conditions) -> PairSampler:
    """The pair sampler of a fixed plan between two clouds: ``sample_plan``, with its tables built once.

    Args:
        x0, x1: shapes (rows, d) and (columns, d), or (rows, ...) and (columns, ...).
        plan: shape (rows, columns), non-negative, of sum 1; or what a solver returned.
        conditions: of shapes (columns, ...), drawn with x1: labels, say.

    Raises:
        ValueError: empty clouds, shapes that do not fit, a plan that is not a probability matrix.
        RuntimeError: a plan that has not converged.
    """
    x0 = check.points(x0, "x0")
    x1 = check.points(x1, "x1", like=x0)
    draw, shape = plan_sampler(plan)
    if shape != (len(x0), len(x1)) or x0.shape[1:] != x1.shape[1:]:
        raise ValueError(
            f"plan must have shape {(len(x0), len(x1))}, and x0 and x1 points of one shape, got {shape}, "
            f"{tuple(x0.shape)} and {tuple(x1.shape)}"
        )
    conditions = [check.rows(condition, len(x1), "conditions", like=x0) for condition in conditions]

    def pairs(n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        rows, columns = (index.to(x0.device) for index in draw(n, generator))
        return x0[rows], x1[columns], *(condition[columns] for condition in conditions)

    return pairs


def in_blocks(pairs: PairSampler, size: int) -> PairSampler:
    """The pair sampler that asks ``pairs`` for ``size`` pairs at a time and hands them out, in order, as they are asked for.

    So the size of the batches that are coupled need not be that of training: for ``exact``, whose pairs depend on it.

    It keeps what is left of a block, drawn with the generator of the call that needed it: what a call returns depends on the
    calls before. Training that goes on from a checkpoint has other pairs than without the interruption.

    Raises:
        ValueError: ``size`` is no positive integer; on a draw, pairs that are no tensors of ``size`` rows, finite ones.
    """
    samplers.function(pairs, "pairs")
    check.count(size, "size")
    stock: list[tuple[Tensor, ...]] = []

    def draw(n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        check.count(n, "n")
        while sum(len(block[0]) for block in stock) < n:
            block = samplers.draw_batch(pairs, size, generator=generator)
            kinds = [[(tuple(x.shape[1:]), x.dtype) for x in some] for some in (block, *stock[-1:])]
            if len(block) < 2 or not block[0].is_floating_point() or kinds[0] != kinds[-1] or kinds[0][0] != kinds[0][1]:
                raise ValueError(f"pairs must return x0 and x1 of one kind, real, and the same on every call, got {kinds}")
            stock.append(tuple(part.clone() for part in block))  # it may return one buffer again and again
        joined = [torch.cat(parts) for parts in zip(*stock, strict=True)]
        stock[:] = [tuple(part[n:] for part in joined)]
        return tuple(part[:n] for part in joined)

    return draw


def paired(source: Sampler, target: Callable, match: Callable | None) -> PairSampler:
    """The sampler of pairs of two samplers: ``match(x0, x1, generator) -> (i, j)`` puts x0[i] beside x1[j], group by group.

    ``match`` gets a group of points (k, d), and its pairs stand where the points of the group stood in the batch.
    """

    def pairs(n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        x0 = samplers.draw(source, check.count(n, "n"), generator=generator, name="source").clone()
        x1, *conditions = samplers.draw_conditional(target, n, generator=generator, name="target")
        if x0.shape != x1.shape:
            raise ValueError(f"source and target must return points of one shape, got {tuple(x0.shape)} and {tuple(x1.shape)}")
        if match is None:
            return x0, x1, *conditions
        rows, columns = (torch.empty(n, dtype=torch.long, device=x.device) for x in (x0, x1))
        for group in _groups(n, conditions):
            at0, at1 = group.to(x0.device), group.to(x1.device)
            i, j = match(x0[at0].flatten(1), x1[at1].flatten(1), generator)
            rows[at0], columns[at1] = at0[i], at1[j]
        return x0[rows], x1[columns], *(condition[columns.to(condition.device)] for condition in conditions)

    return pairs


def _all(x: Tensor) -> Tensor:
    return torch.arange(len(x), device=x.device)


def _groups(n: int, conditions: list[Tensor]) -> tuple[Tensor, ...]:
    """The places of the points with equal integer conditions, group by group."""
    whole = [c.reshape(n, -1).to("cpu", torch.long) for c in conditions if not (c.is_floating_point() or c.is_complex())]
    if not whole:
        return (torch.arange(n),)
    _, group, sizes = torch.cat(whole, 1).unique(dim=0, return_inverse=True, return_counts=True)
    return group.argsort(stable=True).split(sizes.tolist())


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
