"""Dynamic optimal transport on a grid: the Benamou–Brenier problem on staggered cells, certified from both sides.

    W₂²(μ, ν) = min ∫∫ |m|²/ρ dx dt   subject to   ∂ₜρ + div m = 0,  ρ(0) = μ,  ρ(1) = ν.

References: Benamou and Brenier (2000); Papadakis, Peyré and Oudet (2014), Optimal transport with proximal splitting.
"""

import math
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import torch
from scipy.sparse import csgraph
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base import progress as show
from dynot_lite._base.results import Result
from dynot_lite.grids import back_and_forth, certificates
from dynot_lite.grids import operators as grid
from dynot_lite.grids.douglas_rachford import DECAY, VACUUM, Iterate, State, iterate, step_size
from dynot_lite.grids.staggered import Staggered, filtered, graph_laplacian, mean, on_faces

__all__ = ["DynamicTransport", "solve"]

# The root mean square speed at which the proximal steps work best.
SPEED = 0.45
COLD_ITERATIONS = (500, 300, 80)
# Over so many iterations the proximal step settles from the linear path.
LONG_DECAY = 60
# Below this fraction of the largest density the velocity is that of the dual potential instead of m/ρ.
VELOCITY_FLOOR = 1e-3
# The returned density is at least POSITIVITY times the smallest of positive data, and −NEGATIVITY times its maximum otherwise.
POSITIVITY, NEGATIVITY = 0.1, 0.005


@dataclass(frozen=True, eq=False, kw_only=True)
class DynamicTransport(Result):
    """An admissible pair (ρ, m), its velocity and its certificates; tensors are float64, on the device of ``mu``.

    Times 0, 1/2K, 3/2K, …, 1 − 1/2K, 1; there are S = K + 1 slabs between them, the first and the last of half length. In each
    slab the density is linear in time, the momentum constant in time and linear across each cell. It has converged if both
    energies agreed to ``tol`` and the densities to ``tol``/4 in L1.

    Attributes:
        times: shape (S + 1,).
        density: cell averages at the times, shape (S + 1, *N); the first is μ and the last ν.
        momentum: one tensor for each axis, component i on the faces across axis i, shape (S, …, N_i + 1, …).
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
        periodic: whether the box is a torus.
    """

    times: Tensor
    density: Tensor
    momentum: tuple[Tensor, ...]
    source: Tensor
    velocity: Tensor
    energy: float
    lower: float
    upper: float
    gap: float
    residual: float
    min_density: float
    blend: float
    history: Tensor
    iterations: int
    periodic: bool

    def measure(self, t: float) -> tuple[Tensor, Tensor]:
        """The cell centres (n, d) and their masses (n,) at time t, as :mod:`continuity` takes them.

        The density is linear in each slab; what vacuum data leave below zero is cut and the rest scaled to the same mass.
        """
        slab, part = self._slab(t)
        density = torch.lerp(self.density[slab], self.density[slab + 1], part)
        mass = density.clamp(min=0).flatten()
        axes = [(torch.arange(n).to(density) + 0.5) / n for n in density.shape]
        return torch.cartesian_prod(*axes).reshape(len(mass), -1), mass * (density.mean() / mass.sum())

    def velocity_at(self, t: float, x) -> Tensor:
        """The velocity (n, d) at time t and points x (n, d): constant in each slab, linear between cell centres.

        In the dtype and on the device of x, and differentiable in x.
        """
        field = self.velocity[self._slab(t)[0]]
        x, cells = check.points(x, "x", dim=len(field)), torch.tensor(field.shape[1:], device=field.device)
        place = x.to(field) * cells - 0.5
        if not self.periodic:
            place = place.clamp(min=0).minimum((cells - 1).to(place))
        low = place.detach().floor()
        values = torch.zeros((), dtype=field.dtype, device=field.device)
        for corner in product((0, 1), repeat=len(field)):
            up = torch.tensor(corner, device=field.device)
            index = (low.long() + up) % cells  # beyond the last centre at a wall the weight is zero
            weight = torch.where(up == 1, place - low, 1 - (place - low)).prod(-1)
            values = values + weight * field[(slice(None), *index.unbind(-1))]
        return values.movedim(0, -1).to(x)

    def flow(self, x) -> Tensor:
        """The trajectories of points x (n, d) at the times, shape (S + 1, n, d), float64, by a midpoint step in each slab."""
        path, times = [check.points(x, "x", dim=self.velocity.shape[1]).to(torch.float64)], self.times.tolist()
        for start, stop in pairwise(times):
            middle, step = (start + stop) / 2, stop - start
            half = path[-1] + step / 2 * self.velocity_at(middle, path[-1])
            path.append(path[-1] + step * self.velocity_at(middle, half))
        return torch.stack(path)

    def _slab(self, t: float) -> tuple[int, float]:
        """The slab that holds t and the position of t in it."""
        t, times = float(check.time(t)), self.times.tolist()
        slab = min(int(np.searchsorted(times, t, side="right")) - 1, len(times) - 2)
        return slab, (t - times[slab]) / (times[slab + 1] - times[slab])


def solve(
    mu,
    nu,
    *,
    steps: int = 32,
    method: str = "lifted",
    tol: float = 1e-3,
    max_iterations: int | None = None,
    boundary: str = "walls",
    mask=None,
    growth_length: float | None = None,
    workers: int | None = None,
    progress: bool | None = None,
) -> DynamicTransport:
    """Solve the dynamic problem between two densities on the same grid, on the CPU; results are cut from the graph of the data.

    Args:
        mu, nu: cell averages on the unit box, 1 to 3 axes, non-negative; of mean 1 unless ``growth_length`` is given.
        steps: number K of time slabs, at least 2.
        method: ``"lifted"`` starts from the static potential of :mod:`back_and_forth`; ``"cold"`` never sees a static solution
            and goes from coarse to fine instead.
        tol: stop when the energies of the admissible and of the proximal pair agree to tol, relatively, and their densities to
            tol/4 in L1.
        max_iterations: at most so many on the finest grid, one proximal map and one projection each; by default 300, and 2000
            with a mask.
        boundary: ``"walls"`` (no flux) or ``"periodic"``.
        mask: boolean array, True where there is an obstacle; needs ``method="cold"``.
        growth_length: length δ of the unbalanced (Wasserstein–Fisher–Rao) cost ∫∫ (|m|² + δ² s²)/ρ with ∂ₜρ + div m = s; needs
            ``method="cold"``. Pure growth from a to b costs 4δ²(√b − √a)², and no mass travels farther than πδ.
        workers: number of threads of the cosine and Fourier transforms.
        progress: show a bar; by default only in a terminal.

    Raises:
        ValueError: densities that are negative, complex, not finite, of different shapes, without mass or (balanced) not of mean
            1; fewer than 2 steps; a mask that covers mass or separates it from where it must go; options that do not go together.

    >>> x = (torch.arange(32) + 0.5) / 32
    >>> mu = torch.exp(-((x - 0.3) ** 2) / 0.02)
    >>> nu = mu.roll(8)                                # a translation by ¼ on the circle
    >>> result = solve(mu / mu.mean(), nu / nu.mean(), steps=8, boundary="periodic")
    >>> result.residual < 1e-10, result.converged
    (True, True)
    """
    periodic, workers = grid.is_periodic(boundary), grid.threads(workers)
    mu, nu, device = grid.densities(mu, nu, balanced=growth_length is None)
    steps, tol = check.count(steps, "steps", least=2), check.positive(tol, "tol")
    if check.choice(method, "method", ("lifted", "cold")) == "lifted" and (mask is not None or growth_length is not None):
        raise ValueError("method 'lifted' knows neither a mask nor growth_length: use method='cold'")
    if growth_length is not None:
        growth_length = check.positive(growth_length, "growth_length")
    default = 300 if mask is None else 2000
    max_iterations = check.count(default if max_iterations is None else max_iterations, "max_iterations")
    mask = _check_mask(mask, mu, nu, periodic, balanced=growth_length is None)
    # The unbalanced problem is homogeneous in the masses; the single precision of the iteration is not.
    unit = 1.0 if growth_length is None else max(mu.mean(), nu.mean())
    mu, nu = mu / unit, nu / unit
    levels = grid.levels(mu.shape) if mask is None else [mu.shape]
    with show.bar(max_iterations, "Benamou–Brenier", progress) as bar:
        options = {"boundary": boundary, "workers": workers, "progress": progress}
        static = back_and_forth.solve(mu, nu, **options) if method == "lifted" else None
        speed = _speed(mu, nu, growth_length, mask, periodic) if static is None else math.sqrt(max(static.w2_squared, 0))
        model = Staggered.build(mu.shape, steps, max(speed / SPEED, 1e-3), periodic, growth_length, mask, workers)
        state = _cold_start(model, mu, nu, levels) if static is None else _lifted_start(model, mu, nu, static)
        decay = LONG_DECAY if static is None and len(levels) == 1 else DECAY
        run = iterate(model, mu, nu, state, max_iterations, tol=tol, bar=bar, decay=decay)
    return _finish(model, mu, nu, run, static, device, unit)


def _check_mask(mask, mu, nu, periodic, *, balanced) -> np.ndarray | None:
    """Return the mask, or raise if it covers mass or leaves different masses in a connected part."""
    if mask is None:
        return None
    mask = mask.numpy(force=True) if isinstance(mask, Tensor) else np.asarray(mask)
    if mask.dtype != bool or mask.shape != mu.shape:
        raise ValueError(f"mask must be a boolean array of shape {mu.shape}, got {mask.dtype} of shape {mask.shape}")
    for name, density in (("mu", mu), ("nu", nu)):
        if density[mask].any():
            raise ValueError(f"{name} must vanish inside the mask, got mass {density[mask].sum() / density.size:.3g} there")
    _, labels = csgraph.connected_components(graph_laplacian(~mask, periodic), directed=False)
    masses = np.stack([np.bincount(labels, density[~mask]) / density.size for density in (mu, nu)])
    a, b = masses[:, np.abs(masses[0] - masses[1]).argmax()]
    if balanced and abs(a - b) > 1e-9:
        raise ValueError(f"mask separates the supports: a part holds mass {a:.6g} in mu and {b:.6g} in nu")
    return mask


def _lifted_start(model: Staggered, mu, nu, static: back_and_forth.StaticTransport) -> State:
    """Start from the McCann path of particles and, as multiplier, the Hamilton–Jacobi solution of the static potential.

    s_t is carried to the middle of each slab from the farther end of the interval, where the infimum over the grid is accurate:
    s_t(y) = min_x |x − y|²/2t − φ(x) for t ≥ ½ and max_x ψ(x) − |x − y|²/2(1 − t) for t < ½.
    """
    real, periodic, steps, shape = np.float32, model.periodic, model.cells[0], mu.shape
    costs = [c.astype(real) for c in grid.costs(shape, periodic=periodic)]
    phi, psi, moves = (a.numpy().astype(real) for a in (static.potential0, static.potential1, static.displacement))
    points, moves, mass = grid.particles(mu, moves, periodic=periodic)
    faces = [np.empty(model.face_shape(axis), real) for axis in model.staggered]
    faces[0][0], faces[0][-1] = mu, nu
    for k in range(1, steps):
        faces[0][k] = grid.deposit(points + real(k / steps) * moves, mass, shape, periodic=periodic)
    multiplier = [np.empty(model.cells, real) for _ in model.staggered]
    for k in range(steps):
        t = real((k + 0.5) / steps)
        s = grid.c_transform(t * phi, costs) / t if t >= 0.5 else grid.c_transform((1 - t) * psi, costs) / (t - 1)
        density = mean(faces[0][k : k + 2], 0)[0]
        for axis, n in enumerate(shape):
            slope = on_faces(np.subtract, s, s, axis, periodic=periodic) * real(-n / model.horizon)
            faces[axis + 1][k] = slope * on_faces(np.add, density, density, axis, periodic=periodic) / 2
            multiplier[axis + 1][k] = mean(slope, axis)
        multiplier[0][k] = -sum(m[k] ** 2 for m in multiplier[1:]) / 2
    model.project(faces)
    return _with_multiplier(model, mu, nu, faces, multiplier)


def _with_multiplier(model: Staggered, mu, nu, faces, multiplier) -> State:
    """Return the state of admissible faces and a multiplier, which it holds times the first proximal step."""
    z, w = model.lift(faces)
    step = step_size(max(mu.max(), nu.max()), 0)
    return State([a + step * b for a, b in zip(z, multiplier, strict=True)], w)


def _speed(mu, nu, growth, mask, periodic) -> float:
    """Return a guess of the root mean square speed: that of the linear path if the density were 1, within what the box allows."""
    path = Staggered.build(mu.shape, 2, 1.0, periodic, growth, mask, None)
    means, _ = path.lift(path.linear_path(mu, nu))
    guess = min(SPEED, math.sqrt(sum((m**2).mean() for m in means[1:])))
    # Growth costs at least 4δ²(√b − √a)² for the masses a and b.
    return max(guess, 0.0 if growth is None else 2 * growth * abs(math.sqrt(nu.mean()) - math.sqrt(mu.mean())))


def _cold_start(model: Staggered, mu, nu, levels: list[tuple[int, ...]]) -> State:
    """Start from the linear path on the coarsest grid, and from the solution of the grid before on each finer one."""
    ends = [(grid.coarsen(mu, shape).astype(np.float32), grid.coarsen(nu, shape).astype(np.float32)) for shape in levels]
    models = []
    for finer, shape in zip(range(len(levels) - 1, 0, -1), levels, strict=False):
        steps = max(min(8, model.cells[0]), -(-model.cells[0] // 2**finer))
        models.append(Staggered.build(shape, steps, model.horizon, model.periodic, model.growth, None, model.workers))
    models.append(model)
    state = State(*models[0].lift(models[0].linear_path(*ends[0])))
    for depth, (here, finer) in enumerate(pairwise(models)):
        budget = COLD_ITERATIONS[min(depth, len(COLD_ITERATIONS) - 1)]
        state = _refine(finer, *ends[depth + 1], iterate(here, *ends[depth], state, budget))
    return state


def _refine(model: Staggered, mu, nu, coarse: Iterate) -> State:
    """Interpolate the faces and the multiplier of a coarse solution linearly, and project onto the continuity equation."""

    def interpolated(values: np.ndarray, staggered: int | None) -> np.ndarray:
        matrices = [
            grid.interpolation(
                np.arange(n + 1) / n if axis == staggered else grid.centres(n),
                m,
                offset=0.0 if axis == staggered else 0.5,
                periodic=model.periodic and axis > 0 and axis != staggered,
            )
            for axis, (n, m) in enumerate(zip(model.cells, values.shape, strict=True))
        ]
        return grid.along_axes(values, matrices)

    faces = [interpolated(face, component) for component, face in enumerate(coarse.faces)]
    faces[0][0], faces[0][-1] = mu, nu
    model.project(faces)
    return _with_multiplier(model, mu, nu, faces, [interpolated(part, None) for part in coarse.multiplier])


def _finish(model: Staggered, mu, nu, run: Iterate, static, device, unit: float) -> DynamicTransport:
    """Project in float64, remove the staggering mode in time, restore positivity, certify, and give masses back their unit."""
    faces = [face.astype(np.float64) for face in run.faces]
    faces[0][0], faces[0][-1] = mu, nu
    model.project(faces)
    times, faces = filtered(faces)
    free = np.ones(mu.shape, bool) if model.free is None else model.free
    smallest = min(mu[free].min(), nu[free].min())
    positive = smallest > VACUUM * max(mu.max(), nu.max())
    least = POSITIVITY * smallest if positive else -NEGATIVITY * faces[0].max()
    blend = certificates.restore_positivity(model, mu, nu, faces, times, least)
    for face in faces[1:]:
        face *= model.horizon
    density, momentum = faces[0], faces[1 : mu.ndim + 1]
    source = faces[-1] / model.growth if model.growth is not None else np.zeros((len(times) - 1, *mu.shape))
    centred = [mean(face, axis) for axis, face in enumerate(faces[: mu.ndim + 1])]
    largest = density.max()
    carrier = np.maximum(centred[0], np.finfo(float).tiny if positive else VACUUM * largest)
    square = sum(m**2 for m in centred[1:]) + (0 if model.growth is None else faces[-1] ** 2)
    durations = np.diff(times).reshape((-1,) + (1,) * mu.ndim)
    defect = np.diff(density, axis=0) / durations - source
    for axis, component in enumerate(momentum):
        defect += np.diff(component, axis=axis + 1) * mu.shape[axis]
    dual = model.horizon * np.stack(run.multiplier[1 : mu.ndim + 1], axis=1).astype(np.float64)
    dual = np.concatenate([dual[:1], (dual[1:] + dual[:-1]) / 2, dual[-1:]])
    filled = (centred[0] > VELOCITY_FLOOR * largest)[:, None]
    velocity = np.where(filled, np.stack(centred[1:], axis=1) / carrier[:, None], dual)
    lower, upper, iterations = -np.inf, np.inf, int(run.history[-1][0])
    if model.growth is None and model.free is None:
        boundary = "periodic" if model.periodic else "walls"
        lower = certificates.dual_bound(mu, nu, run.potential, boundary=boundary) if static is None else static.lower
        if positive:
            upper = certificates.upper_bound(times, density, momentum)
    energy = unit * float((durations * square / carrier).sum(0).mean())
    if not math.isfinite(energy):
        raise ValueError("mu and nu must have an energy that float64 holds: the masses are too large")
    return DynamicTransport(
        times=grid.as_tensor(times, device),
        density=grid.as_tensor(unit * density, device),
        momentum=tuple(grid.as_tensor(unit * component, device) for component in momentum),
        source=grid.as_tensor(unit * source, device),
        velocity=grid.as_tensor(velocity, device),
        energy=energy,
        lower=lower,
        upper=upper,
        gap=(upper - lower) / upper if 0 < upper < np.inf else np.inf,
        residual=float(np.abs(defect).max() / (model.cells[0] * largest)),
        min_density=float(density.min() / largest),
        blend=blend,
        history=grid.as_tensor(np.array(run.history) * [1.0, unit, unit, unit], device),
        iterations=iterations,
        converged=run.converged,
        reason="both energies and both densities agree to tol" if run.converged else f"max_iterations = {iterations} reached",
        periodic=model.periodic,
    )
