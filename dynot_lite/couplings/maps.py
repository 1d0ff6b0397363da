"""Maps made of samples: what two clouds of points say about where every other point goes.

Transport of two clouds couples points. A map T: R^d -> R^d takes one more decision, where to send a point that is no sample. Each
function solves the transport of x0 to x1 once and returns T, a callable x (k, d) -> (k, d) that works in blocks. The cost is
c(x, y) = ½‖x − y‖²; clouds may have different sizes, and computations are in float64. A map keeps copies of what it needs.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base.differentiation import refuse_graph
from dynot_lite.couplings.plans import entropic_plan, exact_plan, half_square_cost

__all__ = ["cell_map", "entropic_map", "nearest_map", "optimal_potentials"]

BLOCK = 2**22
"""So many numbers are held at once where points and samples are paired."""
SWEEPS = 60
"""How often potentials move towards the middle of their room."""


def nearest_map(x0, x1) -> Callable[[Tensor], Tensor]:
    """T(x): where the sample of x0 that is nearest to x goes (the mean of its partners, if an optimal plan splits its mass).

    Piecewise constant, and not the gradient of a convex function: its error has that of the nearest neighbour, n^(−1/d).

    Raises:
        ValueError: clouds that are empty, of different dimension, not finite, or that require a gradient.
    """
    x0, x1 = _clouds(x0, x1)
    found = exact_plan(x0, x1).require().plan
    images = found @ x1 / found.sum(1, keepdim=True)

    def block(x: Tensor) -> Tensor:
        cost, _, shift = half_square_cost(x, x0)
        return images[(cost + shift).argmin(1)]

    return _blocked(block, x0)


def cell_map(x0, x1, *, epsilon: float = 0.0) -> Callable[[Tensor], Tensor]:
    """T(x): the point of x1 whose cell x is in, argmax_j g_j − c(x, x1[j]), for optimal potentials g of the two clouds.

    T is the gradient of the convex function max_j ⟨x, x1[j]⟩ + g_j − ½‖x1[j]‖², so it is optimal between any law and its image.
    For ``epsilon`` > 0 the maximum is softened: T(x) = Σ_j p_j x1[j] with p = softmax((g − c(x, x1))/ε), smooth, within the
    convex hull of x1.

    Raises:
        ValueError: as :func:`nearest_map`, and ε < 0.

    >>> T = cell_map([[0.0], [1.0]], [[10.0], [20.0]])
    >>> T(torch.tensor([[-5.0], [0.9]]))
    tensor([[10.],
            [20.]], dtype=torch.float64)
    """
    epsilon = check.positive(epsilon, "epsilon", or_zero=True)
    return _soft(x0, x1, epsilon, lambda x0, x1: optimal_potentials(x0, x1)[1])


def entropic_map(x0, x1, epsilon: float, *, tol: float = 1e-6) -> Callable[[Tensor], Tensor]:
    """T(x) = Σ_j p_j x1[j], p = softmax((g − c(x, x1))/ε), with the entropic potentials g of the two clouds.

    The entropic map of Pooladian and Niles-Weed (arXiv 2109.12004): the gradient of a smooth convex function, at the samples the
    mean of the partners under the entropic plan.

    Raises:
        ValueError: as :func:`nearest_map`, and ε ≤ 0.
    """
    epsilon = check.positive(epsilon, "epsilon")
    return _soft(x0, x1, epsilon, lambda x0, x1: entropic_plan(x0, x1, epsilon, tol=tol).require().potential1)


def optimal_potentials(x0, x1) -> tuple[Tensor, Tensor]:
    """Optimal potentials f (n,) and g (m,) of two uniform clouds: f_i + g_j ≤ c_ij, with equality for partners.

    A solver returns a corner of the set of optimal potentials, at which samples lie on the borders of cells. For clouds of one
    size, whose optimal plan is a permutation, these are from its inside, where every sample is inside the cell of its partner:
    from the corner each g_j moves, all at once and again and again, by a quarter of the difference of the room above it and that
    below. So no slack c_ij − f_i − g_j loses more than half; which potentials these are depends on the corner, and so on the
    order of the points. For other sizes they are the solver's. Memory: some matrices (n, m).

    Raises:
        ValueError: as :func:`nearest_map`.

    >>> f, g = optimal_potentials([[0.0], [1.0]], [[1.0], [0.0]])
    >>> f[0] + g[1], f[1] + g[0], f[0] + g[0] < 0.5
    (tensor(0., dtype=torch.float64), tensor(0., dtype=torch.float64), tensor(True))
    """
    x0, x1 = _clouds(x0, x1)
    found = exact_plan(x0, x1).require()
    f, g, partner = found.potential0, found.potential1, found.plan.argmax(1)
    if len(f) == len(g) and len(partner.unique()) == len(g):
        cost, shift0, shift1 = half_square_cost(x0, x1[partner])
        slack = (cost + shift0.unsqueeze(1) + shift1 - f.unsqueeze(1) - g[partner]).clamp_(min=0).fill_diagonal_(math.inf)
        moved = torch.zeros_like(g)
        for _ in range(SWEEPS if len(g) > 1 else 0):
            move = 0.25 * (slack.amin(0) - slack.amin(1))  # raising g_j uses up column j, lowering it (f_j rises) row j
            slack += move.unsqueeze(1) - move
            moved += move
        g = g.index_add(0, partner, moved)
        f = (cost + shift0.unsqueeze(1) + shift1 - g[partner]).amin(1)
        f, g = f - f.mean(), g + f.mean()
    return f, g


def _clouds(x0, x1) -> tuple[Tensor, Tensor]:
    """Both checked, as copies in float64: of the precision of x0, as for a plan."""
    for x, name in ((x0, "x0"), (x1, "x1")):
        refuse_graph(x, name)
    x0 = check.cloud(x0, "x0")
    x1 = check.cloud(x1, "x1", dim=x0.shape[1], like=x0)
    return x0.to(torch.float64, copy=True), x1.to(torch.float64, copy=True)


def _soft(x0, x1, epsilon: float, potential1: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    x0, x1 = _clouds(x0, x1)
    # Both clouds around their middles, which changes no partner: no digits of a long way are lost, in the potentials neither.
    middle = x0.median(0).values
    y = x1 - x1.median(0).values
    offsets = potential1(x0 - middle, y) - 0.5 * y.square().sum(1)

    def block(x: Tensor) -> Tensor:
        scores = offsets + (x - middle) @ y.mT  # g_j − c(x, y_j), up to what does not depend on j
        if not epsilon:
            return x1[scores.argmax(1)]
        # The largest comes to zero before it is divided by ε, which may be so small that it would overflow.
        return torch.softmax((scores - scores.detach().amax(1, keepdim=True)) / epsilon, 1) @ x1

    return _blocked(block, x0)


def _blocked(block: Callable[[Tensor], Tensor], x0: Tensor) -> Callable[[Tensor], Tensor]:
    """A map of points, checked, in blocks of bounded memory."""

    def transport(x) -> Tensor:
        x = check.squares(check.cloud(x, "x", dim=x0.shape[1], like=x0), "x")
        return torch.cat([block(part) for part in x.split(max(1, BLOCK // len(x0)))])

    return transport
