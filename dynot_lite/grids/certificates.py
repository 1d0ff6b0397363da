"""Bounds of W₂² that are proved, not estimated: from below by a dual pair, from above by the exact energy of a competitor.

Both are bounds for the piecewise constant densities with the given cell averages, and hold up to rounding.
"""

import numpy as np

from dynot_lite.grids import operators as grid
from dynot_lite.grids.staggered import Staggered, filtered, on_faces

__all__ = ["lower_bound"]

SWEEPS = 50


def lower_bound(potential, mu, nu, *, boundary: str = "walls") -> float:
    """A lower bound of W₂²(μ, ν) that holds for every potential, good or bad: weak duality made exact on the grid.

    Let f and g be values at the corners of a grid with f_a + g_b ≤ c(x_a, y_b) for all pairs of corners. Then u = ½|x|² − f and
    v = ½|y|² − g satisfy u_a + v_b ≥ ⟨x_a, y_b⟩; the multilinear interpolants keep the inequality at all points, because ⟨x, y⟩
    is linear in each coordinate (on the torus the same holds for each shifted copy). The mean of an interpolant over a cell is
    the mean of its corners, and that of ½|x|² is the mean of its corners less h²/12 for each axis, so

        W₂² ≥ 2 Σ_cells [μ mean(f) + ν mean(g)] − Σ_axes h²/3,

    for the piecewise constant densities μ, ν, up to rounding. Here h is half the cell length. The bound is nearly tight: where
    all mass moves by h/2, the best potential loses h²/12 for each axis.

    Args:
        potential: ψ at the cell centres, shape (*N), an array or tensor; values far below the others are allowed.
        mu, nu: cell averages on the unit box, of mean 1.
        boundary: ``"walls"`` or ``"periodic"``.

    Raises:
        ValueError: a potential of another shape than the densities or not finite, densities as in :func:`back_and_forth.solve`.
    """
    periodic = grid.is_periodic(boundary)
    mu, nu, _ = grid.densities(mu, nu)
    psi = grid.constant(potential, "potential").numpy(force=True)
    if psi.shape != mu.shape:
        raise ValueError(f"potential must have the shape of the densities, {mu.shape}, got {psi.shape}")
    to_corners, between, averages = [], [], []
    for n in mu.shape:
        corners = np.arange(2 * n + 1) / (2 * n)
        to_corners.append(grid.half_square_cost(corners, grid.centres(n), periodic=periodic))
        between.append(grid.half_square_cost(corners, corners, periodic=periodic))
        # The mean over a half cell of the interpolant is its value in the middle; a cell has two of them.
        averages.append(grid.interpolation(grid.centres(2 * n), 2 * n + 1, offset=0.0).reshape(n, 2, -1).mean(1))
    f = grid.c_transform(psi, to_corners)
    g = grid.c_transform(f, between)
    value = np.mean(mu * grid.along_axes(f, averages)) + np.mean(nu * grid.along_axes(g, averages))
    return float(2 * value - sum((0.5 / n) ** 2 for n in mu.shape) / 3)


def dual_bound(mu: np.ndarray, nu: np.ndarray, potential: np.ndarray, *, boundary: str) -> float:
    """Return the better of the lower bounds that a dynamic potential (K, *N) gives at both ends of the time interval."""
    bounds = []
    for source, target, near, next_, sign in ((mu, nu, -1, -2, 1), (nu, mu, 0, 1, -1)):
        end = sign * (1.5 * potential[near] - 0.5 * potential[next_]).astype(np.float64)
        # The potential means nothing in vacuum: there the constraint with the other potential decides.
        end[target <= 1e-4 * target.max()] = end.min() - 10
        bounds.append(lower_bound(end, source, target, boundary=boundary))
    return max(bounds)


def restore_positivity(model: Staggered, mu, nu, faces: list[np.ndarray], times: np.ndarray, least: float) -> float:
    """Raise the density, in place, to ``least`` in the free cells and stay admissible; returns the weight of the linear path.

    Moving an amount Q_k of mass across faces at every time t_k, with Q = 0 at both ends, changes the momentum by ∂ₜQ. First mass
    diffuses from the neighbours into the cells that lack it; what a few sweeps leave is made up by blending in the linear path.
    """
    density, free = faces[0], True if model.free is None else model.free
    durations = np.diff(times).reshape((-1,) + (1,) * mu.ndim)
    for _ in range(SWEEPS):
        lacking = (density < least) & free
        lacking[[0, -1]] = False
        rows = np.flatnonzero(lacking.any(axis=tuple(range(1, density.ndim))))
        if not len(rows):
            return 0.0
        part, short = density[rows], lacking[rows]
        for axis, n in enumerate(mu.shape, start=1):
            exchange = on_faces(np.subtract, part, part, axis, periodic=model.periodic) / (4 * mu.ndim)
            exchange *= on_faces(np.logical_or, short, short, axis, periodic=model.periodic)
            if model.free_faces is not None:
                exchange *= model.free_faces[axis]
            density[rows] -= np.diff(exchange, axis=axis)
            # The amount moved per volume, times the cell length, is the momentum of one time unit.
            flux = np.zeros_like(faces[axis])
            flux[rows - 1] += exchange
            flux[rows] -= exchange
            faces[axis] += flux / (n * model.horizon * durations)
    lacking = (density < least) & free
    _, linear = filtered(model.linear_path(mu, nu))
    weight = float(np.max((least - density)[lacking] / (linear[0] - density)[lacking], initial=0.0))
    for face, other in zip(faces, linear, strict=True):
        face += weight * (other - face)
    return weight


def upper_bound(times: np.ndarray, density: np.ndarray, momentum: list[np.ndarray]) -> float:
    """Return the energy of an admissible pair of positive density after its corners in time are cut.

    The path t ↦ (ρ, ∫m) is polygonal. The one that joins its points at ¼ and ¾ of each slab (and both ends) is admissible and
    positive as well, and its kinks cost less.
    """
    early, late = (share * density[:-1] + (1 - share) * density[1:] for share in (0.75, 0.25))
    inner = np.stack([early, late], axis=1).reshape(-1, *density.shape[1:])
    durations = np.diff(times)
    pieces = np.empty(2 * len(durations) + 1)
    pieces[0], pieces[-1], pieces[1::2] = durations[0] / 4, durations[-1] / 4, durations / 2
    pieces[2:-1:2] = (durations[:-1] + durations[1:]) / 4
    cut = []
    for face in momentum:
        weights = (durations[:-1] / (durations[:-1] + durations[1:])).reshape((-1,) + (1,) * (face.ndim - 1))
        parts = np.empty((len(pieces), *face.shape[1:]))
        parts[0], parts[-1], parts[1::2] = face[0], face[-1], face
        parts[2:-1:2] = weights * face[:-1] + (1 - weights) * face[1:]
        cut.append(parts)
    return conforming_energy(pieces, np.concatenate([density[:1], inner, density[-1:]]), cut)


def conforming_energy(durations: np.ndarray, density: np.ndarray, momentum: list[np.ndarray]) -> float:
    """Return the exact ∫∫ |m|²/ρ of the field that is linear in time and constant in each cell (ρ), linear across each cell (m).

    The mean of m² over a cell with end values l, u is (l² + lu + u²)/3, that of 1/ρ over a slab log(ρ₁/ρ₀)/(ρ₁ − ρ₀).
    """
    total = 0.0
    for k, duration in enumerate(durations.tolist()):
        change = density[k + 1] / density[k] - 1
        near = np.abs(change) < 1e-6
        weight = np.where(near, 1 - change / 2, np.log1p(change) / np.where(near, 1, change)) / density[k]
        for axis, face in enumerate(momentum):
            low, high = grid.cut(face[k], axis, 0, -1), grid.cut(face[k], axis, 1, None)
            total += duration * float(((low**2 + low * high + high**2) * weight).mean()) / 3
    return total
