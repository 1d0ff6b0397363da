"""Static optimal transport on a grid by the back-and-forth method, from coarse to fine, with a certified lower bound.

The cost is c(x, y) = ½|x − y|² on [0, 1]^d (or the torus) and the dual problem is

    ½ W₂²(μ, ν) = max ∫φ dμ + ∫ψ dν   subject to   φ(x) + ψ(y) ≤ c(x, y).

With ψ = φ^c the dual is concave in φ alone and in ψ alone, and its H¹ gradients are the Poisson solutions for the defects of the
push-forwards, μ − S_#ν and ν − T_#μ, where T = Id − ∇φ and S = Id − ∇ψ. The method climbs in ψ and in φ in turn.
Reference: Jacobs and Léger, A fast approach to optimal transport: the back-and-forth method (2020).
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base import progress as show
from dynot_lite._base.results import Result
from dynot_lite.grids import operators as grid
from dynot_lite.grids.certificates import lower_bound

__all__ = ["StaticTransport", "solve"]

COARSE_ITERATIONS = (60, 60, 40, 20)


@dataclass(frozen=True, eq=False, kw_only=True)
class StaticTransport(Result):
    """The potentials and the map, converged if the dual value settled; tensors are float64, on the device of ``mu``.

    Attributes:
        w2_squared: estimate of W₂² (no ½): the dual value of the potentials at the cell centres.
        lower: certified lower bound of W₂² between the piecewise constant densities, correct up to rounding.
        potential0: φ at the cell centres, shape (*N).
        potential1: ψ at the cell centres, shape (*N); φ(x) + ψ(y) ≤ ½|x − y|² for all pairs of centres, to rounding.
        displacement: T(x) − x = −∇φ at the cell centres, shape (d, *N).
        push_error: L1 distance of the push-forward of μ by T from ν; the dual value can look right while the map is not.
        history: dual value and push-forward error of each iteration on the finest grid, shape (iterations, 2).
    """

    w2_squared: float
    lower: float
    potential0: Tensor
    potential1: Tensor
    displacement: Tensor
    push_error: float
    history: Tensor


def solve(
    mu,
    nu,
    *,
    boundary: str = "walls",
    tol: float = 3e-6,
    max_iterations: int = 100,
    workers: int | None = None,
    progress: bool | None = None,
) -> StaticTransport:
    """Solve the static problem between two densities on the same grid, on the CPU; results are cut from the graph of the data.

    Args:
        mu, nu: cell averages on the unit box, 1 to 3 axes, non-negative, of mean 1.
        boundary: ``"walls"`` or ``"periodic"`` (transport on the torus).
        tol: stop when the dual value changed by less than tol, relatively, in three iterations in a row on the finest grid.
        max_iterations: at most so many on the finest grid, one ascent in ψ and one in φ each.
        workers: number of threads of the cosine and Fourier transforms.
        progress: show a bar; by default only in a terminal.

    Raises:
        ValueError: densities that are negative, complex, not finite, of different shapes or not of mean 1.

    >>> import torch
    >>> x = torch.arange(64) / 64
    >>> mu, nu = torch.where(x < 0.5, 2.0, 0.0), torch.where(x < 0.5, 0.0, 2.0)   # a translation by ½
    >>> abs(solve(mu, nu).w2_squared - 0.25) < 1e-3
    True
    """
    periodic, workers = grid.is_periodic(boundary), grid.threads(workers)
    mu, nu, device = grid.densities(mu, nu)
    tol, max_iterations = check.positive(tol, "tol"), check.count(max_iterations, "max_iterations")
    levels = grid.levels(mu.shape)
    psi = np.zeros(levels[0], np.float32)
    with show.bar(len(levels), "back-and-forth", progress) as bar:
        for depth, shape in enumerate(levels):
            last = depth == len(levels) - 1
            ends = (mu, nu) if last else (grid.coarsen(mu, shape), grid.coarsen(nu, shape))
            matrices = [
                grid.interpolation(grid.centres(n), m, offset=0.5, periodic=periodic)
                for n, m in zip(shape, psi.shape, strict=True)
            ]
            budget = max_iterations if last else COARSE_ITERATIONS[min(depth, len(COARSE_ITERATIONS) - 1)]
            psi, history, converged = _climb(
                *ends, grid.along_axes(psi, matrices), budget, tol, periodic=periodic, workers=workers
            )
            bar.update()
    costs = grid.costs(mu.shape, periodic=periodic)
    phi = grid.c_transform(psi.astype(np.float64), costs)
    psi = grid.c_transform(phi, costs)
    return StaticTransport(
        w2_squared=2 * float(np.mean(phi * mu) + np.mean(psi * nu)),
        lower=lower_bound(psi, mu, nu, boundary=boundary),
        potential0=grid.as_tensor(phi, device),
        potential1=grid.as_tensor(psi, device),
        displacement=grid.as_tensor(-grid.gradient(phi, periodic=periodic), device),
        push_error=float(np.abs(nu - _push(mu, phi, periodic)).mean()),
        history=grid.as_tensor(np.array(history), device),
        converged=converged,
        reason="the dual value settled" if converged else f"max_iterations = {max_iterations} reached",
    )


def _push(density, potential, periodic) -> np.ndarray:
    """Return the push-forward of a density by Id − ∇(potential)."""
    moves = -grid.gradient(potential, periodic=periodic)
    points, moves, mass = grid.particles(density, moves, periodic=periodic)
    return grid.deposit(points + moves, mass, density.shape, periodic=periodic)


def _climb(mu, nu, psi, budget, tol, *, periodic, workers):
    """Climb the dual on one grid with momentum; returns ψ, the history and whether the value settled."""
    mu, nu, psi = (a.astype(np.float32) for a in (mu, nu, psi))
    costs = [cost.astype(np.float32) for cost in grid.costs(mu.shape, periodic=periodic)]
    scale = grid.inverse(grid.half_spectrum(mu.shape, periodic=periodic)).astype(np.float32)
    # A step of 2/max ρ is the largest that stays stable where the density is largest; 4/max ρ stalls.
    step = np.float32(2 / max(mu.max(), nu.max()))

    def ascent(defect):
        return step * grid.poisson(defect.astype(np.float32), scale, periodic=periodic, workers=workers)

    history: list[tuple[float, float]] = []
    old, momentum, settled = psi, 0, 0
    for _ in range(budget):
        trial = psi + np.float32(momentum / (momentum + 3)) * (psi - old)
        phi = grid.c_transform(trial, costs)
        value = 2 * float(np.mean(phi * mu, dtype=np.float64) + np.mean(trial * nu, dtype=np.float64))
        defect = nu - _push(mu, phi, periodic)
        phi = grid.c_transform(trial + ascent(defect), costs)
        back = grid.c_transform(phi, costs)
        phi = phi + ascent(mu - _push(nu, back, periodic))
        old, psi = psi, grid.c_transform(phi, costs)
        # Momentum restarts when it overshoots.
        momentum = momentum + 1 if not history or value >= history[-1][0] else 0
        settled = settled + 1 if history and abs(value - history[-1][0]) <= tol * abs(value) else 0
        history.append((value, float(np.abs(defect).mean())))
        if settled >= 3:
            return psi, history, True
    return psi, history, False
