"""Dynamic optimal transport on a grid: the Benamou–Brenier problem on staggered cells, certified from both sides.

    W₂²(μ, ν) = min ∫∫ |m|²/ρ dx dt   subject to   ∂ₜρ + div m = 0,  ρ(0) = μ,  ρ(1) = ν.

The time interval has K slabs and the box N_1 × … × N_d cells. Densities live on the time faces of the space-time cells and the
momentum component i on the faces across axis i, so the divergence of (ρ, m) is exact in every space-time cell. In a cell with
opposite face values a and b put z = (a + b)/2 and w = (b − a)/2. With the metric z² + w² every face between two cells has weight
1; the lift I of face values to (z, w) is then an isometry, and the projection onto {lifted fields of zero divergence} is I P I*,
P being the projection of face values, one Poisson problem in space and time. Douglas–Rachford alternates it with the proximal map
of Σ ½|m|²/ρ at the cell centres, one cubic equation in each cell.
References: Benamou and Brenier (2000); Papadakis, Peyré and
Oudet (2014), Optimal transport with proximal splitting.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from scipy.sparse import csgraph
from torch import Tensor
from tqdm import tqdm

from dynot_lite._base import checks as check
from dynot_lite.grids import back_and_forth
from dynot_lite.grids import operators as grid

__all__ = ["DynamicTransport", "solve"]

RELAXATION = 1.8
# The proximal step, relative to the largest density: a large one moves the density fast, a small one settles the energy.
FIRST_STEP, LAST_STEP = 0.4, 0.06
# The root mean square speed at which these steps work best.
SPEED = 0.45
COLD_ITERATIONS = (500, 300, 80)
# Over so many iterations the step settles: from a good start, and from the linear path.
DECAY, LONG_DECAY = 15, 60
CHECK_EVERY = 5
# Data are strictly positive if they stay above this fraction of their maximum; otherwise densities below it count as vacuum.
VACUUM = 1e-5
# Below this fraction the velocity is that of the dual potential instead of m/ρ.
VELOCITY_FLOOR = 1e-3
# The returned density is at least POSITIVITY times the smallest of positive data, and −NEGATIVITY times its maximum otherwise.
POSITIVITY, NEGATIVITY = 0.1, 0.005
SWEEPS = 50


@dataclass(frozen=True)
class DynamicTransport:
    """What :func:`solve` returns: an admissible pair (ρ, m), its velocity and its certificates; arrays are float64.

    Times 0, 1/2K, 3/2K, …, 1 − 1/2K, 1; there are S = K + 1 slabs between them, the first and the last of half length. In each
    slab the density is linear in time, the momentum constant in time and linear across each cell.

    Attributes:
        times: shape (S + 1,).
        density: cell averages at the times, shape (S + 1, *N); the first is μ and the last ν.
        momentum: one array for each axis, component i on the faces across axis i, shape (S, …, N_i + 1, …).
        source: mass created per time and volume, shape (S, *N); zero in the balanced problem.
        velocity: m/ρ at the cell centres, and the gradient of the dual potential in vacuum, shape (S, d, *N).
        energy: ∫∫ |m|²/ρ (+ δ² source²/ρ) of the pair by the midpoint rule in each space-time cell, no ½. Densities below 1e-5 of
            the maximum are raised to it in the quotient, unless both data are strictly positive (above 1e-5 of their maximum).
        lower: certified lower bound of W₂² between the piecewise constant data; −inf for an unbalanced problem or obstacles.
        upper: certified upper bound of the same: the exact energy of the pair, its kinks in time rounded, as a conforming field;
            inf unless the data are strictly positive and the problem is balanced and without obstacles.
        gap: (upper − lower)/upper, or inf.
        residual: largest defect of the continuity equation, relative to the largest density moved in one time step.
        min_density: the smallest density, relative to the largest; positive for strictly positive data, never below −0.5 %.
        blend: weight of the linear interpolation path that was mixed in to keep the density from being negative.
        history: one row for each check on the finest grid: iteration, energy of the admissible pair, energy of the proximal pair,
            L1 distance of their densities; shape (checks, 4).
        iterations: number of iterations on the finest grid.
        converged: whether both energies agreed to ``tol`` and the densities to ``tol``/4 in L1.
        reason: why the iteration stopped.
        periodic: whether the box is a torus.
    """

    times: np.ndarray
    density: np.ndarray
    momentum: tuple[np.ndarray, ...]
    source: np.ndarray
    velocity: np.ndarray
    energy: float
    lower: float
    upper: float
    gap: float
    residual: float
    min_density: float
    blend: float
    history: np.ndarray
    iterations: int
    converged: bool
    reason: str
    periodic: bool

    def measure(self, t: float) -> tuple[Tensor, Tensor]:
        """Return the cell centres (n, d) and their masses (n,) at time t, as :mod:`continuity` takes them.

        The density is linear in each slab; what vacuum data leave below zero is cut and the rest scaled to the same mass.
        """
        slab, part = self._slab(t)
        density = (1 - part) * self.density[slab] + part * self.density[slab + 1]
        mass = np.maximum(density, 0).ravel()
        mass *= density.mean() / mass.sum()
        axes = np.meshgrid(*(grid.centres(n) for n in density.shape), indexing="ij")
        return torch.as_tensor(np.stack(axes, axis=-1).reshape(len(mass), -1)), torch.as_tensor(mass)

    def velocity_at(self, t: float, x) -> Tensor:
        """Return the velocity (n, d) at time t and points x (n, d): constant in each slab, linear between cell centres."""
        slab, _ = self._slab(t)
        shape = self.density.shape[1:]
        x = check.points(x, "x", dim=len(shape))
        index = x.detach().numpy().T * np.array(shape)[:, None] - 0.5
        mode = "grid-wrap" if self.periodic else "nearest"
        values = [ndimage.map_coordinates(v, index, order=1, mode=mode) for v in self.velocity[slab]]
        return torch.as_tensor(np.stack(values, axis=1)).to(x)

    def flow(self, x) -> Tensor:
        """Return the trajectories of points x (n, d) at the times, shape (S + 1, n, d), by one midpoint step in each slab."""
        path = [check.points(x, "x", dim=self.density.ndim - 1).to(torch.float64)]
        for start, stop in zip(self.times[:-1], self.times[1:], strict=True):
            middle, step = (start + stop) / 2, stop - start
            half = path[-1] + step / 2 * self.velocity_at(middle, path[-1])
            path.append(path[-1] + step * self.velocity_at(middle, half))
        return torch.stack(path)

    def _slab(self, t: float) -> tuple[int, float]:
        """Return the slab that holds t and the position of t in it."""
        t = float(check.time(t))
        slab = min(int(np.searchsorted(self.times, t, side="right")) - 1, len(self.times) - 2)
        return slab, (t - self.times[slab]) / (self.times[slab + 1] - self.times[slab])


def solve(
    mu,
    nu,
    *,
    steps=32,
    method="lifted",
    tol=1e-3,
    max_iter=None,
    boundary="walls",
    mask=None,
    growth_length=None,
    workers=None,
    progress=None,
) -> DynamicTransport:
    """Solve the dynamic problem between two densities on the same grid.

    Args:
        mu, nu: cell averages on the unit box, 1 to 3 axes, non-negative; of mean 1 unless ``growth_length`` is given.
        steps: number K of time slabs, at least 2.
        method: ``"lifted"`` starts from the static potential of :mod:`back_and_forth`; ``"cold"`` never sees a static solution
            and goes from coarse to fine instead.
        tol: stop when the energies of the admissible and of the proximal pair agree to tol, relatively, and their densities to
            tol/4 in L1.
        max_iter: number of iterations on the finest grid at most; by default 300, and 2000 with a mask.
        boundary: ``"walls"`` (no flux) or ``"periodic"``.
        mask: boolean array, True where there is an obstacle; needs ``method="cold"``.
        growth_length: length δ of the unbalanced (Wasserstein–Fisher–Rao) cost ∫∫ (|m|² + δ² s²)/ρ with ∂ₜρ + div m = s; needs
            ``method="cold"``. Pure growth from a to b costs 4δ²(√b − √a)², and no mass travels farther than πδ.
        workers: number of threads of the cosine and Fourier transforms.
        progress: show a bar; by default only in a terminal.

    Raises ValueError for densities that are negative, not finite, of different shapes, without mass or (balanced) not of mean 1,
    for fewer than 2 steps, for a mask that covers mass or separates it from where it must go, and for options that do not go
    together.

    >>> x = (np.arange(32) + 0.5) / 32
    >>> mu = np.exp(-((x - 0.3) ** 2) / 0.02)
    >>> nu = np.roll(mu, 8)                            # a translation by ¼ on the circle
    >>> result = solve(mu / mu.mean(), nu / nu.mean(), steps=8, boundary="periodic")
    >>> result.residual < 1e-10, result.converged
    (True, True)
    """
    periodic = grid.is_periodic(boundary)
    mu, nu = grid.densities(mu, nu, balanced=growth_length is None)
    _check_options(steps, method, tol, max_iter, mask, growth_length)
    mask = _check_mask(mask, mu, nu, periodic, balanced=growth_length is None)
    if max_iter is None:
        max_iter = 300 if mask is None else 2000
    show = dict(leave=False, delay=1.0, disable=None if progress is None else not progress)
    with tqdm(total=max_iter, desc="Benamou–Brenier", **show) as bar:
        if method == "lifted":
            static = back_and_forth.solve(mu, nu, boundary=boundary, workers=workers, progress=progress)
            speed = np.sqrt(max(static.w2_squared, 0))
        else:
            static, speed = None, _speed(mu, nu, growth_length, mask, periodic)
        horizon = max(speed / SPEED, 1e-3)
        model = grid.Staggered.build(mu.shape, int(steps), horizon, periodic, growth_length, mask, workers)
        if static is not None:
            state = _lifted_start(model, mu, nu, static)
        else:
            state = _cold_start(model, mu, nu)
        decay = LONG_DECAY if static is None and len(_cold_levels(model)) == 1 else DECAY
        run = _douglas_rachford(model, mu, nu, state, max_iter, tol, bar, decay)
    return _finish(model, mu, nu, run, static, max_iter)


def _check_options(steps, method, tol, max_iter, mask, growth_length) -> None:
    if not (isinstance(steps, (int, np.integer)) and steps >= 2):
        raise ValueError(f"steps must be an integer of at least 2, got {steps!r}")
    if method not in ("lifted", "cold"):
        raise ValueError(f"method must be 'lifted' or 'cold', got {method!r}")
    if not tol > 0:
        raise ValueError(f"tol must be positive, got {tol}")
    if max_iter is not None and not (isinstance(max_iter, (int, np.integer)) and max_iter >= 1):
        raise ValueError(f"max_iter must be a positive integer, got {max_iter!r}")
    if growth_length is not None and not (np.isfinite(growth_length) and growth_length > 0):
        raise ValueError(f"growth_length must be positive and finite, got {growth_length}")
    if method == "lifted" and (mask is not None or growth_length is not None):
        raise ValueError("method 'lifted' knows neither a mask nor growth_length: use method='cold'")


def _check_mask(mask, mu, nu, periodic, *, balanced) -> np.ndarray | None:
    """Return the mask, or raise if it covers mass or leaves different masses in a connected part."""
    if mask is None:
        return None
    mask = np.asarray(mask)
    if mask.dtype != bool or mask.shape != mu.shape:
        raise ValueError(f"mask must be a boolean array of shape {mu.shape}, got {mask.dtype} of shape {mask.shape}")
    for name, density in (("mu", mu), ("nu", nu)):
        if density[mask].any():
            raise ValueError(f"{name} must vanish inside the mask, got mass {density[mask].sum() / density.size:.3g} there")
    _, labels = csgraph.connected_components(grid.graph_laplacian(~mask, periodic), directed=False)
    for label in range(labels.max() + 1) if balanced else ():
        here = labels == label
        masses = [density[~mask][here].sum() / density.size for density in (mu, nu)]
        if abs(masses[0] - masses[1]) > 1e-9:
            raise ValueError(f"mask separates the supports: a part holds mass {masses[0]:.6g} in mu and {masses[1]:.6g} in nu")
    return mask


@dataclass(frozen=True)
class _State:
    """The lifted variable of the iteration, changed in place: means z and half differences w of opposite faces."""

    z: list[np.ndarray]
    w: list[np.ndarray]


@dataclass(frozen=True)
class _Iterate:
    """What the iteration leaves: admissible faces, the dual potential, its gradient at the cell centres, and how it went."""

    faces: list[np.ndarray]
    potential: np.ndarray
    multiplier: list[np.ndarray]
    history: list[tuple[float, float, float, float]]
    converged: bool


def _proximal(parts: list[np.ndarray], step) -> list[np.ndarray]:
    """Minimise ½|m|²/ρ + (|ρ − ρ₀|² + |m − m₀|²)/2γ in each cell.

    With s = ρ + γ this is s³ − (ρ₀ + γ)s² − γ|m₀|²/2 = 0 and m = m₀ρ/s. The start is above the largest root, where the cubic is
    convex, so that Newton descends monotonically; four steps are exact to 1e-5.
    """
    density, *momenta = parts
    a = density + step
    c = momenta[0] * momenta[0]
    for m in momenta[1:]:
        c += m * m
    c *= step / 2
    # A cube root by exp and log, which numpy vectorises; the shift keeps the logarithm finite.
    s = np.log(c + density.dtype.type(1e-30))
    s *= density.dtype.type(1 / 3)
    np.exp(s, out=s)
    s *= density.dtype.type(1.0001)
    s += np.maximum(a, 0)
    for _ in range(4):
        excess = s - a
        value = s * s
        value *= excess
        value -= c
        excess *= 2
        excess += s
        excess *= s
        value /= excess
        s -= value
    s -= step
    np.maximum(s, 0, out=s)
    ratio = s / (s + step)
    return [s, *(m * ratio for m in momenta)]


def _step_size(largest: float, progress: float) -> float:
    """Return γ, which goes from FIRST_STEP to LAST_STEP in geometric progression while progress goes from 0 to 1."""
    return float(largest * FIRST_STEP * (LAST_STEP / FIRST_STEP) ** min(1.0, progress))


def _douglas_rachford(model, mu, nu, state, max_iter, tol, bar=None, decay=DECAY) -> _Iterate:
    """Iterate Z ← Z + α(I P I*(2V − Z) − V) with V = prox(Z) on one grid, in place.

    One pass over the time slabs applies the proximal map, subtracts αV and gathers I*(2V − Z) on the faces; after the projection
    a second pass adds the lifted faces. Nothing of the size of V is stored.
    """
    real = state.z[0].dtype.type
    mu, nu = mu.astype(real), nu.astype(real)
    faces = [np.zeros(model.face_shape(axis), real) for axis in model.staggered]
    if model.growth is not None:
        faces.append(np.zeros(model.cells, real))
    block = max(1, grid.BLOCK // mu.size)
    slabs = [slice(k, min(model.cells[0], k + block)) for k in range(0, model.cells[0], block)]
    largest = float(max(mu.max(), nu.max()))
    # Coarse grids, which have no bar, hand on a good density; only the finest settles the energy, and looks whether it has.
    finest = bar is not None
    step = _step_size(largest, 0)
    history, converged = [], False
    for iteration in range(1, max_iter + 1):
        looked_at = finest and (iteration % CHECK_EVERY == 0 or iteration == max_iter)
        following = _step_size(largest, iteration / decay if finest else 0)
        proximal, densities = 0.0, []
        faces[0][...] = 0
        for slab in slabs:
            values = _proximal([z[slab] for z in state.z], real(step))
            if model.free is not None:
                values = [v * model.free for v in values]
            if looked_at:
                proximal += _kinetic(values, VACUUM * largest)
                densities.append(values[0].copy())
            _reflect(model, state, faces, slab, values, real(following / step))
        step = following
        if model.free_faces is not None:
            for axis in model.staggered[1:]:
                faces[axis] *= model.free_faces[axis]
        faces[0][0], faces[0][-1] = mu, nu
        potential = model.poisson(model.divergence(faces))
        model.add_difference(faces[0], potential, 0)
        admissible, distance = 0.0, 0.0
        for index, slab in enumerate(slabs):
            means = _correct(model, state, faces, slab, potential)
            if looked_at:
                admissible += _kinetic(means, VACUUM * largest)
                distance += float(np.abs(means[0] - densities[index]).sum(dtype=np.float64))
        if finest:
            bar.update()
        if looked_at:
            unit = model.horizon**2 / potential.size
            distance /= potential.size
            history.append((iteration, admissible * unit, proximal * unit, distance))
            # Equal data have no energy to be relative to; 1e-6 is the square of a thousandth of the box.
            agree = abs(admissible - proximal) * unit <= tol * (admissible * unit + 1e-6)
            if iteration >= decay and agree and distance <= tol / 4:
                converged = True
                break
    values = _proximal(state.z, real(step))
    multiplier = [(z - v) / real(step) for z, v in zip(state.z, values, strict=True)]
    return _Iterate(faces, potential * real(model.horizon / step), multiplier, history, converged)


def _reflect(model, state, faces, slab, values, ratio) -> None:
    """Subtract αV from Z in one slab of cells and add I*(2V − Z) to the faces; first scale the multiplier Z − V by ``ratio``.

    The half differences have no price, so that they are equal in V and Z.
    """
    real = type(ratio)
    for component, value in enumerate(values):
        z = state.z[component][slab]
        if ratio != 1:
            # The step changes: V stays what it is, and Z − V is γ times the multiplier.
            z -= value
            z *= ratio
            z += value
        reflected = value + value
        reflected -= z
        z -= real(RELAXATION) * value
        if component not in model.staggered:
            faces[component][slab] = reflected
            continue
        w = state.w[component][slab]
        high, low = reflected + w, reflected - w
        high *= real(0.5)
        low *= real(0.5)
        w *= real(1 - RELAXATION)
        if component == 0:
            faces[0][slab.start + 1 : slab.stop + 1] += high
            faces[0][slab] += low
        else:
            _gather(faces[component][slab], low, high, component, model.periodic)


def _correct(model, state, faces, slab, potential) -> list[np.ndarray]:
    """Complete the projection of the faces in one slab and add α times their lift to Z; returns the means of the faces."""
    real, means = potential.dtype.type, []
    for component, face in enumerate(faces):
        z, face = state.z[component][slab], face[slab]
        if component not in model.staggered:
            face += potential[slab] * real(1 / model.growth)
            z += real(RELAXATION) * face
            means.append(face)
            continue
        if component == 0:
            low, high = face, faces[0][slab.start + 1 : slab.stop + 1]
        else:
            model.add_difference(face, potential[slab], component)
            low, high = grid.cut(face, component, 0, -1), grid.cut(face, component, 1, None)
        middle = low + high
        middle *= real(0.5)
        means.append(middle)
        z += real(RELAXATION) * middle
        change = high - low
        change *= real(RELAXATION / 2)
        state.w[component][slab] += change
    return means


def _gather(face: np.ndarray, low: np.ndarray, high: np.ndarray, axis: int, periodic: bool) -> None:
    """Write to each face the sum of what its two cells give it; no flux crosses a wall."""
    np.add(grid.cut(high, axis, 0, -1), grid.cut(low, axis, 1, None), out=grid.cut(face, axis, 1, -1))
    if periodic:
        wrap = grid.cut(high, axis, -1, None) + grid.cut(low, axis, 0, 1)
        grid.cut(face, axis, 0, 1)[...] = wrap
        grid.cut(face, axis, -1, None)[...] = wrap


def _kinetic(values: list[np.ndarray], floor: float) -> float:
    """Return Σ |m|²/max(ρ, floor) over cells."""
    square = values[1] * values[1]
    for m in values[2:]:
        square += m * m
    square /= np.maximum(values[0], square.dtype.type(floor))
    return float(square.sum(dtype=np.float64))


def _lifted_start(model, mu, nu, static) -> _State:
    """Start from the McCann path of particles and, as multiplier, the Hamilton–Jacobi solution of the static potential.

    s_t is carried to the middle of each slab from the farther end of the interval, where the infimum over the grid is accurate:
    s_t(y) = min_x |x − y|²/2t − φ(x) for t ≥ ½ and max_x ψ(x) − |x − y|²/2(1 − t) for t < ½.
    """
    real, periodic = np.float32, model.periodic
    steps, shape = model.cells[0], mu.shape
    costs = [c.astype(real) for c in grid.costs(shape, periodic=periodic)]
    phi, psi = static.potential0.astype(real), static.potential1.astype(real)
    points, moves, mass = grid.particles(mu, static.displacement.astype(real), per_axis=2, periodic=periodic)
    faces = [np.empty(model.face_shape(axis), real) for axis in model.staggered]
    faces[0][0], faces[0][-1] = mu, nu
    for k in range(1, steps):
        faces[0][k] = grid.deposit(points + real(k / steps) * moves, mass, shape, periodic=periodic)
    multiplier = [np.empty(model.cells, real) for _ in model.staggered]
    for k in range(steps):
        t = real((k + 0.5) / steps)
        s = grid.c_transform(t * phi, costs) / t if t >= 0.5 else grid.c_transform((1 - t) * psi, costs) / (t - 1)
        density = (faces[0][k] + faces[0][k + 1]) / 2
        for axis, n in enumerate(shape):
            slope = _face_values(s, axis, periodic, lambda low, high, n=n: n * (high - low))
            slope /= real(model.horizon)
            faces[axis + 1][k] = slope * _face_values(density, axis, periodic, lambda low, high: (low + high) / 2)
            multiplier[axis + 1][k] = grid.mean(slope, axis)
        multiplier[0][k] = -sum(m[k] ** 2 for m in multiplier[1:]) / 2
    model.project(faces)
    z, w = model.lift(faces)
    step = _step_size(max(mu.max(), nu.max()), 0)
    return _State([a + real(step) * b for a, b in zip(z, multiplier, strict=True)], w)


def _face_values(values: np.ndarray, axis: int, periodic: bool, combine) -> np.ndarray:
    """Return combine(low, high) on the faces across an axis; zero at walls."""
    face = np.zeros(tuple(n + (a == axis) for a, n in enumerate(values.shape)), values.dtype)
    grid.cut(face, axis, 1, -1)[...] = combine(grid.cut(values, axis, 0, -1), grid.cut(values, axis, 1, None))
    if periodic:
        wrap = combine(grid.cut(values, axis, -1, None), grid.cut(values, axis, 0, 1))
        grid.cut(face, axis, 0, 1)[...] = wrap
        grid.cut(face, axis, -1, None)[...] = wrap
    return face


def _speed(mu, nu, growth, mask, periodic) -> float:
    """Return a guess of the root mean square speed: that of the linear path if the density were 1, within what the box allows.

    Growth costs at least 4δ²(√b − √a)² for the masses a and b.
    """
    path = grid.Staggered.build(mu.shape, 2, 1.0, periodic, growth, mask, None)
    faces = path.linear_path(mu, nu)
    means, _ = path.lift(faces)
    guess = min(SPEED, float(np.sqrt(sum((m**2).mean() for m in means[1:]))))
    least = 0.0 if growth is None else 2 * growth * abs(np.sqrt(nu.mean()) - np.sqrt(mu.mean()))
    return max(guess, least)


def _cold_levels(model) -> list[tuple[int, ...]]:
    """Return the grids of a cold start from coarse to fine; one with obstacles has no coarser one."""
    return grid.levels(model.cells[1:]) if model.free is None else [model.cells[1:]]


def _cold_start(model, mu, nu) -> _State:
    """Start from the linear path on the coarsest grid, and from the solution of the grid before on each finer one."""
    levels, state = _cold_levels(model), None
    for depth, shape in enumerate(levels):
        finer = len(levels) - 1 - depth
        ends = [grid.coarsen(a, shape).astype(np.float32) for a in (mu, nu)]
        if finer:
            steps = max(min(8, model.cells[0]), -(-model.cells[0] // 2**finer))
            here = grid.Staggered.build(shape, steps, model.horizon, model.periodic, model.growth, None, model.workers)
        else:
            here = model
        if state is None:
            z, w = here.lift(here.linear_path(*ends))
            state = _State(z, w)
        else:
            state = _refine(here, *ends, result)
        if finer:
            budget = COLD_ITERATIONS[min(depth, len(COLD_ITERATIONS) - 1)]
            _douglas_rachford(here, *ends, state, budget, 0.0)
    return state


def _refine(model, mu, nu, coarse: _Iterate) -> _State:
    """Interpolate the faces and the multiplier of a coarse solution linearly, and project onto the continuity equation."""

    def matrices(sizes, staggered):
        return [
            grid.interpolation(
                np.arange(n + 1) / n if axis == staggered else grid.centres(n),
                m,
                offset=0.0 if axis == staggered else 0.5,
                periodic=model.periodic and axis > 0 and axis != staggered,
            )
            for axis, (n, m) in enumerate(zip(model.cells, sizes, strict=True))
        ]

    faces = [grid.along_axes(face, matrices(face.shape, component)) for component, face in enumerate(coarse.faces)]
    faces[0][0], faces[0][-1] = mu, nu
    model.project(faces)
    z, w = model.lift(faces)
    step = _step_size(max(mu.max(), nu.max()), 0)
    for mean, part in zip(z, coarse.multiplier, strict=True):
        mean += mean.dtype.type(step) * grid.along_axes(part, matrices(part.shape, None))
    return _State(z, w)


def _finish(model, mu, nu, run: _Iterate, static, max_iter) -> DynamicTransport:
    """Project in float64, remove the staggering mode in time, restore positivity, and certify."""
    faces = [face.astype(np.float64) for face in run.faces]
    faces[0][0], faces[0][-1] = mu, nu
    model.project(faces)
    times, faces = _filtered(faces)
    free = np.ones(mu.shape, bool) if model.free is None else model.free
    positive = min(mu[free].min(), nu[free].min()) > VACUUM * max(mu.max(), nu.max())
    least = POSITIVITY * min(mu[free].min(), nu[free].min()) if positive else -NEGATIVITY * faces[0].max()
    blend = _restore_positivity(model, mu, nu, faces, times, least)
    for face in faces[1:]:
        face *= model.horizon
    density, momentum = faces[0], tuple(faces[1 : mu.ndim + 1])
    source = faces[-1] / model.growth if model.growth is not None else np.zeros((len(times) - 1, *mu.shape))
    means = [grid.mean(face, axis) for axis, face in enumerate(faces[: mu.ndim + 1])]
    largest = density.max()
    floor = np.finfo(float).tiny if positive else VACUUM * largest
    square = sum(m**2 for m in means[1:]) + (0 if model.growth is None else faces[-1] ** 2)
    durations = np.diff(times).reshape((-1,) + (1,) * mu.ndim)
    defect = np.diff(density, axis=0) / durations - source
    for axis, component in enumerate(momentum):
        defect += np.diff(component, axis=axis + 1) * mu.shape[axis]
    dual = model.horizon * np.stack(run.multiplier[1 : mu.ndim + 1], axis=1).astype(np.float64)
    dual = np.concatenate([dual[:1], (dual[1:] + dual[:-1]) / 2, dual[-1:]])
    filled = (means[0] > VELOCITY_FLOOR * largest)[:, None]
    velocity = np.where(filled, np.stack(means[1:], axis=1) / np.maximum(means[0], floor)[:, None], dual)
    lower, upper = -np.inf, np.inf
    if model.growth is None and model.free is None:
        lower = static.lower if static is not None else _dual_bound(mu, nu, run.potential, model.periodic)
        if positive:
            upper = _conforming_energy(*_cut_corners(times, density, momentum))
    return DynamicTransport(
        times=times,
        density=density,
        momentum=momentum,
        source=source,
        velocity=velocity,
        energy=float((durations * square / np.maximum(means[0], floor)).sum(0).mean()),
        lower=lower,
        upper=upper,
        gap=float((upper - lower) / upper) if np.isfinite(upper) and upper > 0 else np.inf,
        residual=float(np.abs(defect).max() / (model.cells[0] * largest)),
        min_density=float(density.min() / largest),
        blend=blend,
        history=np.array(run.history),
        iterations=int(run.history[-1][0]),
        converged=run.converged,
        reason="both energies and both densities agree to tol" if run.converged else f"max_iter = {max_iter} reached",
        periodic=model.periodic,
    )


def _filtered(faces: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Average neighbouring times: the result is admissible with the same ends and free of the mode that alternates in time.

    Only (ρ^k + ρ^(k+1))/2 has a price, so ρ^k may oscillate. The density is therefore given at the middle of each slab, as that
    mean, and the momentum between two middles is the mean of two slabs; a half slab at both ends keeps its own.
    """
    steps = len(faces[0]) - 1
    times = np.concatenate([[0.0], (np.arange(steps) + 0.5) / steps, [1.0]])
    density = np.concatenate([faces[0][:1], grid.mean(faces[0], 0), faces[0][-1:]])
    return times, [density] + [np.concatenate([f[:1], grid.mean(f, 0), f[-1:]]) for f in faces[1:]]


def _restore_positivity(model, mu, nu, faces, times, least) -> float:
    """Raise the density, in place, to ``least`` in the free cells and stay admissible; returns the weight of the linear path.

    Moving an amount Q_k of mass across faces at every time t_k, with Q = 0 at both ends, changes the momentum by ∂ₜQ. First mass
    diffuses from the neighbours into the cells that lack it; what a few sweeps leave is made up by blending in the linear path.
    """
    density, free = faces[0], np.ones(mu.shape, bool) if model.free is None else model.free
    shape = (-1,) + (1,) * mu.ndim
    for _ in range(SWEEPS):
        lacking = (density < least) & free
        lacking[[0, -1]] = False
        rows = np.flatnonzero(lacking.any(axis=tuple(range(1, density.ndim))))
        if not len(rows):
            return 0.0
        part, short = density[rows], lacking[rows]
        for axis, n in enumerate(mu.shape, start=1):
            exchange = _face_values(part, axis, model.periodic, lambda low, high: low - high) / (4 * mu.ndim)
            exchange *= _face_values(short, axis, model.periodic, np.logical_or)
            if model.free is not None:
                exchange *= model.free_faces[axis]
            density[rows] -= np.diff(exchange, axis=axis)
            # The amount moved per volume, times the cell length, is the momentum of one time unit.
            flux = np.zeros_like(faces[axis])
            flux[rows - 1] += exchange
            flux[rows] -= exchange
            faces[axis] += flux / (n * model.horizon * np.diff(times).reshape(shape))
    lacking = (density < least) & free
    _, linear = _filtered(model.linear_path(mu, nu))
    weight = float(np.max((least - density)[lacking] / (linear[0] - density)[lacking], initial=0.0))
    for face, other in zip(faces, linear, strict=True):
        face += weight * (other - face)
    return weight


def _cut_corners(times, density, momentum) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
    """Return durations, densities and momenta of the path that joins the points at ¼ and ¾ of each slab (and both ends).

    The path t ↦ (ρ, ∫m) is polygonal; cutting its corners leaves it admissible and positive and lowers the energy of the kinks.
    """
    early, late = (0.75 * a[:-1] + 0.25 * a[1:] for a in (density, density[::-1]))
    inner = np.stack([early, late[::-1]], axis=1).reshape(-1, *density.shape[1:])
    durations = np.diff(times)
    momenta = []
    for face in momentum:
        weights = (durations[:-1] / (durations[:-1] + durations[1:])).reshape((-1,) + (1,) * (face.ndim - 1))
        cut = np.empty((2 * len(face) + 1, *face.shape[1:]))
        cut[0], cut[-1], cut[1::2] = face[0], face[-1], face
        cut[2:-1:2] = weights * face[:-1] + (1 - weights) * face[1:]
        momenta.append(cut)
    pieces = np.empty(2 * len(durations) + 1)
    pieces[0], pieces[-1], pieces[1::2] = durations[0] / 4, durations[-1] / 4, durations / 2
    pieces[2:-1:2] = (durations[:-1] + durations[1:]) / 4
    return pieces, np.concatenate([density[:1], inner, density[-1:]]), tuple(momenta)


def _conforming_energy(durations: np.ndarray, density: np.ndarray, momentum: tuple[np.ndarray, ...]) -> float:
    """Return the exact ∫∫ |m|²/ρ of the field that is linear in time and constant in each cell (ρ), linear across each cell (m).

    The mean of m² over a cell with end values l, u is (l² + lu + u²)/3, that of 1/ρ over a slab log(ρ₁/ρ₀)/(ρ₁ − ρ₀).
    """
    total = 0.0
    for k, duration in enumerate(durations):
        change = density[k + 1] / density[k] - 1
        near = np.abs(change) < 1e-6
        weight = np.where(near, 1 - change / 2, np.log1p(change) / np.where(near, 1, change)) / density[k]
        for axis, face in enumerate(momentum):
            low, high = grid.cut(face[k], axis, 0, -1), grid.cut(face[k], axis, 1, None)
            total += duration * float(((low**2 + low * high + high**2) * weight).mean()) / 3
    return total


def _dual_bound(mu, nu, potential, periodic) -> float:
    """Return the better of the certified lower bounds that the dynamic potential gives at both ends of the time interval."""
    boundary = "periodic" if periodic else "walls"
    bounds = []
    for source, target, near, next_, sign in ((mu, nu, -1, -2, 1), (nu, mu, 0, 1, -1)):
        end = sign * (1.5 * potential[near] - 0.5 * potential[next_]).astype(np.float64)
        # The potential means nothing in vacuum: there the constraint with the other potential decides.
        end[target <= 1e-4 * target.max()] = end.min() - 10
        bounds.append(back_and_forth.lower_bound(end, source, target, boundary=boundary))
    return max(bounds)
