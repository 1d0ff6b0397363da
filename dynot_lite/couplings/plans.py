"""Plans between two weighted clouds of points: the exact solver, Sinkhorn's, and draws from a plan.

A plan is a matrix (n, m) with the two weights as marginals. The cost is c(x, y) = ½‖x − y‖², the entropic problem
E c + ε KL(π ‖ p0⊗p1). Where a peer writes ‖x − y‖² + reg KL, reg = 2ε. Both solvers compute in float64, and pass no gradient on.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import ot
import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base import randomness
from dynot_lite._base.results import Result

__all__ = ["TransportPlan", "entropic_plan", "exact_plan", "sample_plan"]


@dataclass(frozen=True, eq=False, kw_only=True)
class TransportPlan(Result):
    """A plan between two clouds, and the potentials that show how good it is; float64, on the device of the data.

    Attributes:
        plan: π, shape (n, m).
        potential0, potential1: f (n,) and g (m,), with weights0·f = 0. Exact: f ⊕ g ≤ c, with equality where π has mass.
            Entropic: π_ij = a_i b_j exp((f_i + g_j − c_ij)/ε). Points without mass have their (soft) c-transform.
        cost: Σ_ij π_ij c_ij, with the ½, without the entropy.
        error: the duality gap Σ c π − a·f − b·g ≥ 0 of an exact plan, Σ_j |Σ_i π_ij − b_j| of an entropic one.
        iterations: runs of the network simplex, or updates of both potentials.
    """

    plan: Tensor
    potential0: Tensor
    potential1: Tensor
    cost: float
    error: float
    iterations: int


@torch.no_grad()
def exact_plan(x0, x1, *, weights0=None, weights1=None, cost=None, start=None, max_iterations: int = 10**8) -> TransportPlan:
    """A plan that minimises Σ_ij π_ij ½‖x0[i] − x1[j]‖² under the marginals ``weights0`` and ``weights1``, with its certificate.

    It is a vertex of the polytope of plans: at most n + m − 1 entries are positive. The network simplex of POT works to
    absolute tolerances, so it gets costs that are reduced by the minima of rows and columns and divided by the largest. Its
    potentials, made feasible by c-transforms, bound the minimum from below. Where the gap to the plan is more than rounding
    (costs of very different size), those far above the ones that the plan uses are cut, which can only lower the bound, and
    the solver runs again. Time about n²m, memory a few matrices (n, m).

    Args:
        x0, x1: shapes (n, d) and (m, d). With ``cost`` only their lengths count, and None will do.
        weights0, weights1: probability weights, shapes (n,) and (m,); uniform if None. Zeros are fine.
        cost: another cost than ½‖x0[i] − x1[j]‖², shape (n, m).
        start: a potential (n,) to start from.
        max_iterations: pivots of one run of the network simplex.

    Returns:
        The plan, not converged if the solver stopped early or the gap stayed above rounding.

    Raises:
        ValueError: empty batches, dimensions that differ, values that are not finite, weights that are not a probability vector.

    >>> exact_plan([[0.0], [1.0]], [[0.0], [1.0], [2.0]], weights1=[0.5, 0.25, 0.25]).require().plan
    tensor([[0.5000, 0.0000, 0.0000],
            [0.0000, 0.2500, 0.2500]], dtype=torch.float64)
    """
    check.count(max_iterations, "max_iterations")
    given, shift0, shift1, a, b, start = _problem(x0, x1, weights0, weights1, cost, start)
    device = given.device
    given, shift0, shift1, a, b = (z.cpu() for z in (given, shift0, shift1, a, b))
    low0 = given.amin(1)
    reduced = given - low0.unsqueeze(1)
    del given
    low1 = reduced.amin(0)
    reduced -= low1  # for all f and g, c_ij and c_ij − f_i − g_j have the same optimal plans
    largest = ceiling = reduced.max().item() or 1.0
    if start is not None:
        start = start.cpu() - low0
        start = tuple((z / ceiling).numpy() for z in (start, (reduced - start.unsqueeze(1)).amin(0)))
    options, runs = {"numItermax": max_iterations, "check_marginals": False, "log": True}, 0
    while True:
        runs += 1
        with warnings.catch_warnings():  # what it warns of is in the result
            warnings.simplefilter("ignore")
            scaled = reduced.clamp(max=ceiling) / ceiling
            plan, log = ot.emd(a.numpy(), b.numpy(), scaled.numpy(), potentials_init=start, **options)
        plan, stopped, start = torch.from_numpy(plan), log["warning"], None
        g = torch.where(b > 0, ceiling * torch.from_numpy(log["v"]), -math.inf)
        f = (reduced - g).amin(1)
        g = (reduced - f.unsqueeze(1)).amin(0)
        rows, columns = plan.nonzero(as_tuple=True)
        mass, used = plan[rows, columns], reduced[rows, columns]
        gap, above = (mass @ (used - f[rows] - g[columns])).item(), (mass @ used).item()
        if gap > above:  # zero potentials are better
            f, g, gap = torch.zeros_like(f), torch.zeros_like(g), above
        costs = used + low0[rows] + low1[columns]
        rounding = 1e-9 * above + 2e-15 * (mass @ costs.abs()).item()
        if stopped or gap <= rounding or runs == 6:  # three do for clusters 10⁶ times their size apart
            break
        floor = 1e-6 * ceiling if runs < 5 else 0.0  # at last without a floor: one cost may be anything above the others
        ceiling = min(max(100 * used.max().item(), floor) or 1e-6 * ceiling, largest)
    lost = ((plan.sum(1) - a).abs().sum() + (plan.sum(0) - b).abs().sum()).item()
    reason = f"the duality gap is {gap:.1e} (rounding {rounding:.1e}), the error of the marginals {lost:.1e}"
    if cost is None:  # differences: nothing cancels, and equal clouds have the cost zero
        x0, x1 = (check.as_tensor(x, "points").detach().to("cpu", torch.float64) for x in (x0, x1))
        costs = 0.5 * (x0[rows] - x1[columns]).square().sum(1)
    f, g = f + low0 + shift0, g + low1 + shift1
    return TransportPlan(
        plan=plan.to(device),
        potential0=(f - a @ f).to(device),
        potential1=(g + a @ f).to(device),
        cost=(mass @ costs).item(),
        error=gap,
        iterations=runs,
        converged=not stopped and gap <= rounding and lost <= 1e-11,
        reason=f"the network simplex stopped: {stopped}" if stopped else reason,
    )


@torch.no_grad()
def entropic_plan(
    x0, x1, epsilon: float, *, weights0=None, weights1=None, cost=None, start=None, tol: float = 1e-6, max_iterations: int = 20000
) -> TransportPlan:
    """The plan that minimises Σ_ij π_ij ½‖x0[i] − x1[j]‖² + ε KL(π ‖ a⊗b), to a stated marginal error.

    It is π_ij = a_i b_j exp((f_i + g_j − c_ij)/ε). Eliminating f leaves the concave semi-dual F(g) = Σ a_i f_i(g) + Σ b_j g_j,
    f_i(g) = −ε log Σ_j b_j exp((g_j − c_ij)/ε); its gradient is b minus the second marginal, and the first marginal is exact
    for every g. An iteration updates f and g by scaling a kernel, the plan of the last potentials, so that nothing underflows;
    before a scaling could, an iteration in the log domain takes its place and the kernel is made anew: every ε > 0 is safe.

    Without ``start`` ε falls from a large value by halves, the iterations are over-relaxed, and where they stall (small ε),
    Newton steps with a line search on F take over. From a ``start`` there are plain Sinkhorn iterations at ε only, so that
    their number tells how good the start is.

    Args:
        x0, x1, weights0, weights1, cost: as in :func:`exact_plan`.
        epsilon: ε > 0, in the units of c; half of the ``reg`` of those who leave out the ½.
        start: a potential f (n,) to start from; its first c-transform is not counted as an iteration.
        tol: the largest Σ_j |Σ_i π_ij − b_j| that is accepted.
        max_iterations: of Sinkhorn, a Newton step counted as 20.

    Returns:
        The plan, whose rows sum to a to rounding; not converged if the error is above ``tol``. Memory: a few matrices (n, m).

    Raises:
        ValueError: as :func:`exact_plan`, and ε ≤ 0.

    >>> entropic_plan([[0.0], [1.0]], [[0.0], [1.0]], 0.5).require().plan
    tensor([[0.3655, 0.1345],
            [0.1345, 0.3655]], dtype=torch.float64)
    """
    epsilon, tol = check.positive(epsilon, "epsilon"), check.positive(tol, "tol")
    check.count(max_iterations, "max_iterations")
    cost, shift0, shift1, a, b, start = _problem(x0, x1, weights0, weights1, cost, start)
    kept, g = b > 0, torch.zeros_like(b)  # a point without mass has an empty column, and its potential from the c-transform
    some = cost if kept.all() else cost[:, kept]
    g[kept], iterations, reached = _sinkhorn(some, a, b[kept], epsilon, start, tol, max_iterations)
    logits = (g - cost) / epsilon + b.log()
    sums = torch.logsumexp(logits, 1)
    f, plan = -epsilon * sums, a.unsqueeze(1) * torch.exp(logits.sub_(sums.unsqueeze(1)))
    if not kept.all():
        g = torch.where(kept, g, _transform(f, cost.mT, a.log(), epsilon))
    columns = plan.sum(0)
    error, value = (columns - b).abs().sum().item(), (plan * cost).sum() + a @ shift0 + columns @ shift1
    f, g = f + shift0, g + shift1
    reason = f"marginal error {error:.1e} (tol {tol:g}) after {iterations} iterations"
    if reached > epsilon:
        reason += f" at epsilon = {reached:g} on the way to {epsilon:g}; a larger epsilon or an exact plan would do"
    return TransportPlan(
        plan=plan,
        potential0=f - a @ f,
        potential1=g + a @ f,
        cost=value.item(),
        error=error,
        iterations=iterations,
        converged=error <= 1.01 * tol,  # the sums of the plan round in another order than those of the iteration
        reason=reason,
    )


def sample_plan(plan, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """``n`` pairs (i, j) of a plan: a stratified sample in random order.

    One draw falls in each of n equal parts of the mass, read row by row. So a pair has its probability at every place of the
    batch, and the batch varies less than independent draws would; n draws of a permutation plan of n points are all its pairs.

    Args:
        plan: shape (rows, columns), non-negative, of sum 1; or what a solver returned.

    Returns:
        Row and column indices, each of shape (n,).

    Raises:
        ValueError: a plan that is not a probability matrix, n < 1. RuntimeError: a plan that has not converged.
    """
    draw, _ = plan_sampler(plan)
    return draw(n, generator)


def plan_sampler(plan) -> tuple[Callable, tuple[int, int]]:
    """``draw(n, generator) -> (rows, columns)``, and the shape of the plan; the tables of its positive entries are built once."""
    plan = plan.require().plan if isinstance(plan, TransportPlan) else check.as_tensor(plan, "plan")
    if plan.ndim != 2 or plan.numel() == 0:
        raise ValueError(f"plan must be a non-empty matrix, got shape {tuple(plan.shape)}")
    check.weights(plan.flatten(), plan.numel(), "plan")
    rows, columns = plan.nonzero(as_tuple=True)
    levels = plan[rows, columns].to(torch.float64).cumsum(0)
    levels = levels / levels[-1].clone()
    levels[-1] = math.inf  # a place may round to 1

    def draw(n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        check.count(n, "n")
        uniform = randomness.uniform(n, generator=generator, like=levels)
        places = (torch.arange(n, device=levels.device) + uniform) / n
        chosen = torch.searchsorted(levels, places, right=True)
        # In random order: times that are stratified along the batch must not meet pairs that are stratified along it too.
        chosen = chosen[randomness.permutation(n, generator=generator, like=levels)]
        return rows[chosen], columns[chosen]

    return draw, (plan.shape[0], plan.shape[1])


def half_square_cost(x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """c (n, m), u (n,), v (m,) in float64 with ½‖x0[i] − x1[j]‖² = c_ij + u_i + v_j; u and v change no plan.

    c is that of clouds brought together, which are solved faster, and in which no digits of a long way are lost. The centres
    are points of the clouds, the nearest to the means: one point that lies far from all others must not move these.
    """
    x0, x1 = (x.detach().to(torch.float64) for x in (x0, x1))
    centre0, centre1 = (x[(x - x.mean(0)).square().sum(1).argmin()] for x in (x0, x1))
    x0, x1, shift = x0 - centre0, x1 - centre1, centre0 - centre1
    if x0.shape[1] <= 16:  # about as fast as the product, and nothing cancels
        cost = 0.5 * torch.cdist(x0, x1, compute_mode="donot_use_mm_for_euclid_dist").square()
    else:
        cost = 0.5 * (x0.square().sum(1, keepdim=True) + x1.square().sum(1)) - x0 @ x1.mT
    if not math.isfinite(cost.max().item()):
        raise ValueError("x0 and x1 must have finite squared distances")
    return cost, x0 @ shift + 0.5 * shift.square().sum(), -x1 @ shift


def _problem(x0, x1, weights0, weights1, cost, start):
    """The cost as from :func:`half_square_cost`, the weights, of sum 1, the start for c; float64 on the device of the data."""
    if cost is None:
        x0 = check.points(x0, "x0")
        x1 = check.points(x1, "x1", dim=x0.shape[-1], like=x0)
        if x0.ndim != 2 or x1.ndim != 2:
            raise ValueError(f"x0 and x1 must have shapes (n, d) and (m, d), got {tuple(x0.shape)} and {tuple(x1.shape)}")
        cost, shift0, shift1 = half_square_cost(x0, x1)
    else:
        cost = check.as_tensor(cost, "cost").to(torch.float64)
        fits = all(x is None or len(x) == size for x, size in zip((x0, x1), cost.shape, strict=False))
        if cost.ndim != 2 or 0 in cost.shape or not fits:
            raise ValueError(f"cost must be a matrix with a row per x0 and a column per x1, got shape {tuple(cost.shape)}")
        shift0, shift1 = torch.zeros_like(cost[:, 0]), torch.zeros_like(cost[0])
    weights = []
    for given, shift, name in ((weights0, shift0, "weights0"), (weights1, shift1, "weights1")):
        uniform = torch.full_like(shift, 1 / len(shift))
        weights.append(uniform if given is None else check.weights(given, len(shift), name, like=shift))
    if start is not None:
        start = check.as_tensor(start, "start", like=cost)
        if start.shape != shift0.shape:
            raise ValueError(f"start must be a potential of shape {tuple(shift0.shape)}, got {tuple(start.shape)}")
        start = start - shift0
    return cost, shift0, shift1, *weights, start


def _transform(potential: Tensor, cost: Tensor, log_weights: Tensor, epsilon: float) -> Tensor:
    """The entropic c-transform, (m,), (n, m), (m,) -> (n,)."""
    return -epsilon * torch.logsumexp((potential - cost) / epsilon + log_weights, 1)


def _sinkhorn(cost: Tensor, a: Tensor, b: Tensor, epsilon: float, start: Tensor | None, tol: float, max_iterations: int):
    """The potential g of ``entropic_plan`` for positive b, the iterations, and the ε at which they ended."""
    log_a, log_b = a.log(), b.log()

    def sweep(g: Tensor) -> Tensor:
        return _transform(_transform(g, cost, log_b, current), cost.mT, log_a, current)

    def semidual(g: Tensor) -> float:
        return (b @ g + a @ _transform(g, cost, log_b, current)).item()

    if start is None:
        current, g = max(epsilon, 0.05 * (cost.max() - cost.min()).item()), torch.zeros_like(b)
    else:
        current, g = epsilon, _transform(start, cost.mT, log_a, epsilon)
    kernel, iterations, checked, before, newton = None, 0, -20, math.inf, False
    while True:
        if kernel is None:
            kernel, v = torch.softmax((g - cost) / current + log_b, 1), torch.ones_like(b)
            turned = kernel.mT.contiguous()
        rows = kernel @ v
        marginal = v * (turned @ (a / rows))
        error = torch.dist(marginal, b, 1).item()
        if error <= (tol if current == epsilon else 0.005):
            g = g + current * v.log()
            if current == epsilon:
                return g, iterations, current
            current, kernel, checked, before, newton = max(epsilon, 0.5 * current), None, iterations - 20, math.inf, False
            continue
        if iterations >= max_iterations:
            return g + current * v.log(), iterations, current
        if start is None and iterations >= checked + 20:
            newton, checked, before = newton or error > 0.5 * before, iterations, error
        if newton:
            g, kernel = g + current * v.log(), kernel * v / rows.unsqueeze(1)
            g = sweep(g + _newton_step(kernel, a, b, marginal, current, lambda h, g=g: semidual(g + h)))
            kernel, iterations = None, iterations + 20
            continue
        ratio = b / marginal
        scaled = v * (ratio * ratio.sqrt() if start is None else ratio)  # over-relaxed by 3/2, or plain
        smallest, largest = (end.item() for end in torch.aminmax(scaled))
        if smallest > 1e-30 and largest < 1e30:
            v = scaled
        else:
            g, kernel = sweep(g + current * v.log()), None
        iterations += 1


def _newton_step(kernel: Tensor, a: Tensor, b: Tensor, marginal: Tensor, epsilon: float, semidual: Callable) -> Tensor:
    """A step of Newton's method on the semi-dual, shortened until it rises; ``kernel`` a is the plan."""
    # The negative Hessian times ε: a Laplacian. The constant makes it definite, since the semi-dual does not see constants.
    laplacian = torch.diag(marginal * (1 + 1e-10)) - kernel.mT @ (a.unsqueeze(1) * kernel) + 1 / len(b) ** 2
    gradient = b - marginal
    step = torch.linalg.solve(laplacian, epsilon * gradient)
    # Beyond a few ε the quadratic model says nothing; clusters that hardly exchange mass ask for steps far beyond.
    step = step * min(1.0, 60 * epsilon / step.abs().max().item())
    value, slope, size = semidual(torch.zeros_like(b)), (gradient @ step).item(), 1.0
    while semidual(size * step) < value + 1e-4 * size * slope - 1e-14 * abs(value) and size > 1e-6:
        size *= 0.5
    return size * step
