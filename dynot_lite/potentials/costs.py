"""Costs h(y − x) with a convex h: what they need, maps that are optimal by construction, and maps learnt from samples.

With H = h* and the Hopf–Lax evolution s_t(x) = min_z s_0(z) + t h((x − z)/t) the action matching loss, with H(∇s) for ½|∇s|², is
E s_0(x0) − E s_1(x1) along every path: minus the Kantorovich dual of s_0 and its c-transform s_1, at least −min_π E h(x1 − x0).
Where z attains s_1(y), the map x ↦ x + ∇H(∇s_0(x)) takes z to y. For h = ½|·|² these are the optimal action, the semi-dual less
second moments, and the Brenier map of Ψ = s_0 + ½|·|².
"""

import copy
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dynot_lite._base import checks as check
from dynot_lite._base import randomness
from dynot_lite._base.differentiation import recording, refuse_graph
from dynot_lite._base.progress import bar
from dynot_lite._base.results import Result
from dynot_lite._base.samplers import values
from dynot_lite.potentials.descent import Stream
from dynot_lite.potentials.hopf_lax import PART, Cost, Problem, descend, evaluate, hopf_lax, value_and_slope

__all__ = ["CostCertificate", "CostFit", "PowerCost", "certificate", "fit", "optimal_map"]

BANK = 512  # candidates for the inner minimum while a potential is learnt
RENEWED = 5  # steps after which they are drawn afresh
INNER, HALVINGS = 4, 2  # steps of descent from the best of them, and how often one is halved
DECAY = 0.6  # share of the run in which the rate falls to zero
HELD_OUT = 1024


class PowerCost:
    """h(v) = |Rv|^p/p for p > 1 and an invertible R; H(q) = |R⁻ᵀq|^p'/p' with 1/p + 1/p' = 1. For p = 2, R = I it is ½|v|².

    Displacements v and slopes q have shape (n, d). Values are differentiable; so are gradients, where they are not at zero.

    Args:
        p: the power.
        matrix: R, shape (d, d), not differentiated; the identity of any dimension if left out.

    Raises:
        ValueError: p ≤ 1, a matrix that is not square or is singular.

    >>> PowerCost(3).gradient([[2.0, 0.0]]), PowerCost(3).displacement([[4.0, 0.0]])
    (tensor([[4., 0.]], dtype=torch.float64), tensor([[2., 0.]], dtype=torch.float64))
    """

    def __init__(self, p: float, *, matrix=None):
        self.p = check.positive(p, "p")
        if self.p <= 1:
            raise ValueError(f"p must be greater than 1, got {p!r}")
        self.matrix = self._inverse = None
        if matrix is not None:
            refuse_graph(matrix, "matrix")
            self.matrix = check.cloud(matrix, "matrix")
            if self.matrix.shape[0] != self.matrix.shape[1]:
                raise ValueError(f"matrix must be square, got shape {tuple(self.matrix.shape)}")
            singular = torch.linalg.svdvals(self.matrix.double())
            if not singular[-1] > len(singular) * torch.finfo(self.matrix.dtype).eps * singular[0]:
                raise ValueError(f"matrix must be invertible, got singular values from {singular[-1]:.3g} to {singular[0]:.3g}")
            self._inverse = check.representable(torch.linalg.inv(self.matrix), "matrix")

    def value(self, v) -> Tensor:
        """h(v), shape (n,)."""
        return check.representable(_length(self._turned(v, "v")[0]) ** self.p / self.p, "v")

    def gradient(self, v) -> Tensor:
        """∇h(v) = |Rv|^(p−2) RᵀRv, shape (n, d)."""
        turned, matrix = self._turned(v, "v")
        slope = _power(turned, self.p - 1)
        return check.representable(slope if matrix is None else slope @ matrix, "v")

    def conjugate(self, q) -> Tensor:
        """H(q) = max_v ⟨q, v⟩ − h(v), shape (n,)."""
        power = self.p / (self.p - 1)
        return check.representable(_length(self._turned_slope(q)[0]) ** power / power, "q")

    def displacement(self, q) -> Tensor:
        """∇H(q), shape (n, d): the v with ∇h(v) = q, by which mass moves where the action has the gradient q."""
        turned, inverse = self._turned_slope(q)
        step = _power(turned, 1 / (self.p - 1))
        return check.representable(step if inverse is None else step @ inverse.T, "q")

    def pairwise(self, x0, x1) -> Tensor:
        """h(x1[j] − x0[i]), shape (n, m), for ``exact_plan(cost=)``; without gradients."""
        turned0, turned1 = self._turned(x0, "x0")[0].detach(), self._turned(x1, "x1")[0].detach()
        if turned0.shape[1] != turned1.shape[1]:
            raise ValueError(f"x0 and x1 must have one dimension, got {turned0.shape[1]} and {turned1.shape[1]}")
        turned1 = turned1.to(turned0)
        lengths = torch.cdist(turned0, turned1, compute_mode="donot_use_mm_for_euclid_dist")
        return check.representable(lengths.pow_(self.p).div_(self.p), "x0 and x1")

    def _turned(self, v, name: str) -> tuple[Tensor, Tensor | None]:
        """Rv, and R as the points are."""
        v = check.cloud(v, name, dim=None if self.matrix is None else len(self.matrix))
        matrix = None if self.matrix is None else self.matrix.to(v)
        return (v if matrix is None else v @ matrix.T), matrix

    def _turned_slope(self, q) -> tuple[Tensor, Tensor | None]:
        """R⁻ᵀq and R⁻¹."""
        q = check.cloud(q, "q", dim=None if self.matrix is None else len(self.matrix))
        inverse = None if self._inverse is None else self._inverse.to(q)
        return (q if inverse is None else q @ inverse), inverse


def _length(v: Tensor) -> Tensor:
    return torch.linalg.vector_norm(v, dim=-1)


def _power(v: Tensor, power: float) -> Tensor:
    """|v|^(power − 1) v, zero at zero."""
    length = _length(v)
    factor = torch.where(length > 0, torch.where(length > 0, length, 1.0) ** (power - 1), 0.0)
    return factor.unsqueeze(-1) * v


def optimal_map(potential: Callable[[Tensor], Tensor], cost: Cost, x) -> Tensor:
    """x + ∇H(∇s_0(x)), shape (n, d): for a convex s_0 the optimal map for the cost from every law to its image.

    So a convex function and a law make an instance whose solution is known: no other plan is cheaper. With source and image
    exchanged it is one for the cost h(x − y). (For h = ½|·|² it is enough that s_0 + ½|·|² is convex; for another s_0 see
    ``CostFit.slack``.)

    Args:
        potential: s_0, points (n, d) to values (n,), differentiable by torch.
        cost: h.
        x: points, shape (n, d).

    >>> optimal_map(lambda x: x.square().sum(1) / 2, PowerCost(3), [[4.0, 0.0]])  # ∇H(q) = q/√|q|
    tensor([[6., 0.]], dtype=torch.float64)
    """
    x = check.cloud(x, "x")
    slope = value_and_slope(potential, x)[1]
    return check.representable(x + values(cost.displacement(slope), x, "cost.displacement"), "x")


@dataclass(frozen=True)
class CostCertificate:
    """What a potential and a pairing prove about the least cost E h(x1 − x0) between two samples.

    Attributes:
        lower, upper: lower ≤ the least cost of pairing the samples ≤ upper, that of the given pairs.
        gap: upper − lower.
    """

    lower: float
    upper: float
    gap: float


@torch.no_grad()
def certificate(potential: Callable[[Tensor], Tensor], cost: Cost, x0, x1) -> CostCertificate:
    """Two-sided bounds for the samples of the pairs (x0[i], x1[i]), shapes (n, d): a proof, whatever the potential and h.

    The lower bound is the Kantorovich dual of the samples, E_j min_i [s_0(x0[i]) + h(x1[j] − x0[i])] − E s_0(x0): a minimum over
    n points, which needs no solver; n² costs are looked at, in parts.

    Raises:
        ValueError: bad input, or x0 and x1 of different shapes.
    """
    x0 = check.cloud(x0, "x0")
    x1 = check.cloud(x1, "x1", like=x0)
    if x0.shape != x1.shape:
        raise ValueError(f"x0 and x1 must be pairs of one shape, got {tuple(x0.shape)} and {tuple(x1.shape)}")
    heights = evaluate(potential, x0)[:, None]
    parts = x1.split(max(1, PART // len(x0)))
    transform = torch.cat([(heights + cost.pairwise(x0, part)).amin(0) for part in parts])
    lower = (transform.mean() - heights.mean()).item()
    upper = values(cost.value(x1 - x0), x0[:, 0], "cost.value").mean().item()
    return CostCertificate(lower, upper, upper - lower)


class FreePotential(nn.Module):
    """⟨slope, x⟩ + unit · network((x − centre)/spread): no constraint, SiLU units, so that the map is smooth."""

    def __init__(self, slope: Tensor, centre: Tensor, spread: Tensor, unit: Tensor, *, width: int, depth: int, generator):
        super().__init__()
        for name, tensor in (("slope", slope), ("centre", centre), ("spread", spread), ("unit", unit)):
            self.register_buffer(name, tensor)
        pairs = list(itertools.pairwise([len(slope), *[width] * depth, 1]))
        uniform = lambda *shape: 2 * randomness.uniform(*shape, generator=generator, like=slope) - 1
        self.weights = nn.ParameterList(nn.Parameter(uniform(*pair) / pair[0] ** 0.5) for pair in pairs)
        self.biases = nn.ParameterList(nn.Parameter(uniform(pair[1]) / pair[0] ** 0.5) for pair in pairs)

    def forward(self, x: Tensor) -> Tensor:
        x = check.cloud(x, "x", dim=len(self.slope), like=self.slope)
        h = (x - self.centre) / self.spread
        *hidden, last = zip(self.weights, self.biases, strict=True)
        for weight, bias in hidden:
            h = nn.functional.silu(torch.addmm(bias, h, weight))
        return x @ self.slope + self.unit * torch.addmm(last[1], h, last[0])[:, 0]


@dataclass(frozen=True, eq=False, kw_only=True)
class CostFit(Result):
    """A learnt optimal map for a cost.

    ``converged``: with a tolerance, whether the dual met it; without one, True: the budget was all that was asked for.

    Attributes:
        potential: s_0, the average over the last part of the run.
        cost: h.
        slack: E[h(T(x) − x) − s_1(T(x)) + s_0(x)]/E h(T(x) − x) ≥ 0 on held-out points x, T the map; zero if and only if T is
            optimal from the source to its image. How near the image is to the target it does not say.
        dual: the held-out value of E s_1(x1) − E s_0(x0), at most the optimal cost up to the sampling error of two independent
            samples, and as far as the minima in s_1 are found.
        steps: taken.
    """

    potential: nn.Module
    cost: Cost
    slack: float
    dual: float
    steps: int

    def transport(self, x) -> Tensor:
        """x + ∇H(∇s_0(x)), shape (n, d)."""
        with torch.no_grad():
            return optimal_map(self.potential, self.cost, x)


@recording()
def fit(
    source,
    target,
    cost: Cost,
    *,
    potential: nn.Module | None = None,
    width: int = 64,
    depth: int = 2,
    seconds: float | None = None,
    steps: int | None = None,
    batch: int = 512,
    learning_rate: float = 2e-2,
    tol: float | None = None,
    generator: torch.Generator | None = None,
    progress: bool | None = None,
) -> CostFit:
    """Learn the optimal map for a cost from unpaired samples, by stochastic descent of the dual E s_0(x0) − E s_1(x1).

    s_0 is a network without constraint, s_1 its c-transform: for each target point of a batch the best of a bank of candidates
    (source points, half of them jittered, redrawn as the run goes on), then a few steps of BFGS. The bank makes the minimum
    global. The gradient in the parameters is exact by the envelope theorem. Adam; the rate falls linearly over the last part
    of the run, and the parameters are averaged over about the last twentieth.

    Args:
        source, target: arrays (n, d), or samplers (n, generator=) -> (n, d).
        cost: h; for the map it must be strictly convex.
        potential: s_0 to start from (it is copied): a module, points (n, d) to values (n,). The default moves the mean of the
            source to that of the target.
        width, depth: units and hidden layers of the default.
        seconds, steps: the budget; with both, what is spent first ends the run. Seconds are processor seconds of the thread.
        batch: points of each law per step.
        learning_rate: of Adam.
        tol: the rise of the held-out dual over the second half of the run that is accepted, as a share of it.
        generator: for everything random, handed to the samplers, too.
        progress: show a progress bar; None shows it in a terminal only.

    Returns:
        A CostFit. It is computed in float32 (a given potential: in its dtype); its potential is in the dtype of the source.

    Raises:
        ValueError: bad input: laws of different dimensions, NaN, no budget. RuntimeError: the loss is not finite.
    """
    if steps is None and seconds is None:
        raise ValueError("steps or seconds must be given")
    steps = None if steps is None else check.count(steps, "steps")
    seconds = None if seconds is None else check.positive(seconds, "seconds")
    batch, rate = check.count(batch, "batch"), check.positive(learning_rate, "learning_rate")
    tol = None if tol is None else check.positive(tol, "tol")
    size = {"width": check.count(width, "width"), "depth": check.count(depth, "depth")}
    began, generator = time.thread_time(), randomness.own(generator)
    draw_source, draw_target = Stream(source, "source", generator), Stream(target, "target", generator)
    if draw_source.dim != draw_target.dim:
        raise ValueError(f"source and target must have one dimension, got {draw_source.dim} and {draw_target.dim}")
    x, y = check.squares(draw_source.sample(HELD_OUT), "source"), check.squares(draw_target.sample(HELD_OUT), "target")
    learnt = default_potential(x, y, cost, generator=generator, **size) if potential is None else copy.deepcopy(potential)
    parameters = list(learnt.requires_grad_(True).parameters())
    if not parameters:
        raise ValueError("potential must have parameters to learn")
    average = copy.deepcopy(learnt).requires_grad_(False)
    like = parameters[0].detach()
    draw_source.start(lambda points: points.to(like)), draw_target.start(lambda points: points.to(like))
    bank, once, spread = x.to(like), like.new_ones(batch), x.to(like).std(0, correction=0)
    optimiser = torch.optim.Adam(parameters, lr=rate, fused=True)
    step, done, half = 0, 0.0, -math.inf
    with bar(100, "cost fit", progress, unit="%") as shown:
        while done < 1:
            if tol is not None and done >= 0.5 and half == -math.inf:
                half = held_out_dual(average, cost, x, y)
            if step % RENEWED == 0:
                drawn = draw_source(BANK)
                jitter = randomness.normal(BANK // 2, len(spread), generator=generator, like=like)
                bank = torch.cat([drawn[: BANK // 2], drawn[BANK // 2 :] + 0.5 * spread * jitter])
            points, ends = draw_source(batch), draw_target(batch)
            with torch.no_grad():
                problem = Problem(learnt, cost, once, ends)
                z = descend(problem, problem.guess(bank), tol=1e-4, max_iterations=INNER, halvings=HALVINGS)[0]
            optimiser.param_groups[0]["lr"] = rate * min(1.0, (1 - done) / DECAY)
            optimiser.zero_grad()
            loss = evaluate(learnt, points).mean() - learnt(z).mean()  # z is held fixed, and h(y − z) with it
            loss.backward()
            optimiser.step()
            step += 1
            if not math.isfinite(loss.item()):
                raise RuntimeError(f"the loss is not finite at step {step}: samples that are not finite, or too large a rate")
            with torch.no_grad():
                weight = max(1 / step, 1 / (1 + step / 20))
                torch._foreach_lerp_(list(average.parameters()), parameters, min(weight, 1.0))  # pyright: ignore
            spent = time.thread_time() - began
            done = max(step / steps if steps else 0.0, spent / seconds if seconds else 0.0)
            shown.update(int(100 * min(done, 1.0)) - shown.n)
    average = average.eval() if potential is not None else average.to(x).eval()
    dual, x = held_out_dual(average, cost, x, y), x.to(next(average.parameters()))
    with torch.no_grad():
        image = optimal_map(average, cost, x)
        paid = cost.value(image - x)
        moved = hopf_lax(average, cost, 1.0, image, start=x, max_iterations=30).value
        slack = ((paid - moved + average(x)).mean() / paid.mean()).item()
    reason = "the steps are spent" if steps and step >= steps else "the seconds are spent"
    if tol is not None:
        reason = f"the dual rose by {(dual - half) / abs(dual):.2g} of itself over the second half, tol is {tol:g}"
    converged = tol is None or dual - half <= tol * abs(dual)
    return CostFit(potential=average, cost=cost, slack=slack, dual=dual, steps=step, converged=converged, reason=reason)


@torch.no_grad()
def held_out_dual(potential: nn.Module, cost: Cost, x: Tensor, y: Tensor) -> float:
    """E s_1(y) − E s_0(x), the minima of s_1 sought from the points x."""
    x, y = (points.to(next(potential.parameters())) for points in (x, y))
    transform = hopf_lax(potential, cost, 1.0, y, start=x, max_iterations=30).value
    return (transform.mean() - evaluate(potential, x).mean()).item()


def default_potential(x: Tensor, y: Tensor, cost: Cost, *, width: int, depth: int, generator) -> FreePotential:
    """The translation of the mean, plus a network in units of the samples and of the slopes of the cost between them."""
    x, y = x.double(), y.to(x.device).double()
    n = min(len(x), len(y))
    slopes = cost.gradient(torch.cat([(y.mean(0) - x.mean(0))[None], y[:n] - x[:n]]))
    spread = x.std(0, correction=0)
    unit = slopes[1:].norm(dim=1).mean() * spread.square().mean().sqrt()
    numbers = [part.float() for part in (slopes[0], x.mean(0), spread, unit)]
    if not (check.finite(torch.cat([part.flatten() for part in numbers])) and bool((numbers[2] > 0).all())):
        raise ValueError("source must vary in every coordinate, and source and target be of a size that float32 can hold")
    return FreePotential(*numbers, width=width, depth=depth, generator=generator)
