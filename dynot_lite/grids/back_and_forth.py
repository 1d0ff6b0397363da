"""Static optimal transport on a grid by the back-and-forth method, from coarse to fine, with a certified lower bound.

The cost is c(x, y) = ½|x − y|² on [0, 1]^d (or the torus) and the dual problem is

    ½ W₂²(μ, ν) = max ∫φ dμ + ∫ψ dν   subject to   φ(x) + ψ(y) ≤ c(x, y).

With ψ = φ^c the dual is concave in φ alone and in ψ alone, and its H¹ gradients are the Poisson solutions for the defects of the
push-forwards, μ − S_#ν and ν − T_#μ, where T = Id − ∇φ and S = Id − ∇ψ. The method climbs in ψ and in φ in turn.
Reference: Jacobs and Léger, A fast approach to optimal transport: the back-and-forth method (2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from dynot_lite.grids import operators as grid

__all__ = ["StaticTransport", "lower_bound", "solve"]

COARSE_ITERATIONS = (60, 60, 40, 20)


@dataclass(frozen=True)
class StaticTransport:
    """What :func:`solve` returns; all arrays are float64.

    Attributes:
        w2_squared: estimate of W₂² (no ½): the dual value of the potentials at the cell centres.
        lower: certified lower bound of W₂² between the piecewise constant densities, correct up to rounding.
        potential0: φ at the cell centres, shape (*N).
        potential1: ψ at the cell centres, shape (*N); φ(x) + ψ(y) ≤ ½|x − y|² for all pairs of centres, to float32 rounding.
        displacement: T(x) − x = −∇φ at the cell centres, shape (d, *N).
        push_error: L1 distance of the push-forward of μ by T from ν; the dual value can look right while the map is not.
        history: dual value and push-forward error of each iteration on the finest grid, shape (iterations, 2).
        converged: whether the dual value settled and the push-forward error stopped falling.
        reason: why the iteration stopped.
    """

    w2_squared: float
    lower: float
    potential0: np.ndarray
    potential1: np.ndarray
    displacement: np.ndarray
    push_error: float
    history: np.ndarray
    converged: bool
    reason: str


def solve(mu, nu, *, boundary="walls", tol=3e-6, max_iter=100, workers=None, progress=None) -> StaticTransport:
    """Solve the static problem between two densities on the same grid.

    Args:
        mu, nu: cell averages on the unit box, 1 to 3 axes, non-negative, of mean 1.
        boundary: ``"walls"`` or ``"periodic"`` (transport on the torus).
        tol: stop when the dual value changed by less than tol, relatively, in three iterations in a row on the finest grid.
        max_iter: number of iterations on the finest grid at most.
        workers: number of threads of the cosine and Fourier transforms.
        progress: show a bar; by default only in a terminal.

    Raises ValueError for densities that are negative, not finite, of different shapes or not of mean 1.

    >>> x = np.arange(64) / 64
    >>> mu, nu = np.where(x < 0.5, 2.0, 0.0), np.where(x < 0.5, 0.0, 2.0)   # a translation by ½
    >>> bool(abs(solve(mu, nu).w2_squared - 0.25) < 1e-3)
    True
    """
    periodic = grid.is_periodic(boundary)
    mu, nu = grid.densities(mu, nu)
    if not tol > 0:
        raise ValueError(f"tol must be positive, got {tol}")
    if not (isinstance(max_iter, int) and max_iter >= 1):
        raise ValueError(f"max_iter must be a positive integer, got {max_iter!r}")
    levels = grid.levels(mu.shape)
    psi = np.zeros(levels[0], np.float32)
    show = dict(leave=False, delay=1.0, disable=None if progress is None else not progress)
    with tqdm(total=len(levels), desc="back-and-forth", **show) as bar:
        for depth, shape in enumerate(levels):
            last = depth == len(levels) - 1
            ends = (mu, nu) if last else (grid.coarsen(mu, shape), grid.coarsen(nu, shape))
            matrices = [
                grid.interpolation(grid.centres(n), m, offset=0.5, periodic=periodic)
                for n, m in zip(shape, psi.shape, strict=True)
            ]
            budget = max_iter if last else COARSE_ITERATIONS[min(depth, len(COARSE_ITERATIONS) - 1)]
            psi, history, converged = _climb(
                *ends, grid.along_axes(psi, matrices), budget, tol, periodic=periodic, workers=workers
            )
            bar.update()
    costs = grid.costs(mu.shape, periodic=periodic)
    phi = grid.c_transform(psi.astype(np.float64), costs)
    psi = grid.c_transform(phi, costs)
    displacement = -grid.gradient(phi, periodic=periodic)
    return StaticTransport(
        w2_squared=2 * float(np.mean(phi * mu) + np.mean(psi * nu)),
        lower=lower_bound(psi, mu, nu, boundary=boundary),
        potential0=phi,
        potential1=psi,
        displacement=displacement,
        push_error=float(np.abs(nu - _push(mu, phi, periodic)).mean()),
        history=np.array(history),
        converged=converged,
        reason="the dual value settled" if converged else f"max_iter = {max_iter} reached",
    )


def lower_bound(potential, mu, nu, *, boundary="walls") -> float:
    """Return a lower bound of W₂²(μ, ν) that holds for every potential, good or bad: weak duality made exact on the grid.

    Let f and g be values at the corners of a grid with f_a + g_b ≤ c(x_a, y_b) for all pairs of corners. Then u = ½|x|² − f and
    v = ½|y|² − g satisfy u_a + v_b ≥ ⟨x_a, y_b⟩; the multilinear interpolants keep the inequality at all points, because ⟨x, y⟩
    is linear in each coordinate (on the torus the same holds for each shifted copy). The mean of an interpolant over a cell is
    the mean of its corners, and that of ½|x|² is the mean of its corners less h²/12 for each axis, so

        W₂² ≥ 2 Σ_cells [μ mean(f) + ν mean(g)] − Σ_axes h²/3,

    for the piecewise constant densities μ, ν, up to rounding. Here h is half the cell length.

    Args:
        potential: ψ at the cell centres, shape (*N); values far below the others are allowed.
        mu, nu: cell averages on the unit box, of mean 1.
        boundary: ``"walls"`` or ``"periodic"``.

    Raises ValueError if the potential has another shape than the densities or is not finite.
    """
    periodic = grid.is_periodic(boundary)
    mu, nu = grid.densities(mu, nu)
    potential = np.asarray(potential, dtype=np.float64)
    if potential.shape != mu.shape or not np.isfinite(potential).all():
        raise ValueError(f"potential must be finite and of shape {mu.shape}, got shape {potential.shape}")
    to_corners, between, averages = [], [], []
    for n in mu.shape:
        corners = np.arange(2 * n + 1) / (2 * n)
        to_corners.append(grid.half_square_cost(corners, grid.centres(n), periodic=periodic))
        between.append(grid.half_square_cost(corners, corners, periodic=periodic))
        # The mean over a cell of the interpolant on two half cells: weights ¼, ½, ¼.
        average = np.zeros((n, 2 * n + 1))
        for offset, weight in enumerate((0.25, 0.5, 0.25)):
            average[np.arange(n), 2 * np.arange(n) + offset] = weight
        averages.append(average)
    f = grid.c_transform(potential, to_corners)
    g = grid.c_transform(f, between)
    value = np.mean(mu * grid.along_axes(f, averages)) + np.mean(nu * grid.along_axes(g, averages))
    return float(2 * value - sum((0.5 / n) ** 2 for n in mu.shape) / 3)


def _push(density, potential, periodic) -> np.ndarray:
    """Return the push-forward of a density by Id − ∇(potential)."""
    moves = -grid.gradient(potential, periodic=periodic)
    points, moves, mass = grid.particles(density, moves, per_axis=2, periodic=periodic)
    return grid.deposit(points + moves, mass, density.shape, periodic=periodic)


def _climb(mu, nu, psi, budget, tol, *, periodic, workers):
    """Climb the dual on one grid with momentum; returns ψ, the history and whether the value settled."""
    mu, nu, psi = (a.astype(np.float32) for a in (mu, nu, psi))
    costs = [cost.astype(np.float32) for cost in grid.costs(mu.shape, periodic=periodic)]
    symbol = grid.half_spectrum(mu.shape, periodic=periodic)
    # A step of 2/max ρ is the largest that stays stable where the density is largest; 4/max ρ stalls.
    step = np.float32(2 / max(mu.max(), nu.max()))

    def ascent(defect):
        return step * grid.poisson(defect.astype(np.float32), symbol, periodic=periodic, workers=workers)

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
