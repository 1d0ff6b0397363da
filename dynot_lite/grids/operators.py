"""Operators on a grid of cells, for both solvers: Poisson problems, c-transforms, particles, staggered fields.

The box is [0, 1]^d with N_1 × … × N_d cells; a density is the array of its cell averages, with mean 1 for a probability.
Walls (``periodic=False``, no flux) go with the cosine transform, the torus (``periodic=True``) with the Fourier transform.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import fft, sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import splu

# Cells along each axis of the coarsest grid.
COARSEST = 16
# Numbers in one block of a blocked loop: small enough for the second-level cache.
BLOCK = 32768


def densities(mu, nu, *, balanced: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return both densities in float64, or raise a ValueError that names the argument."""
    arrays = []
    for name, value in (("mu", mu), ("nu", nu)):
        try:
            array = np.array(value, dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError(f"{name} must be an array of cell averages, got {type(value).__name__}") from None
        if not 1 <= array.ndim <= 3 or min(array.shape) < 2:
            raise ValueError(f"{name} must have 1, 2 or 3 axes of at least 2 cells, got shape {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite, got NaN or inf")
        if array.min() < 0:
            raise ValueError(f"{name} must be non-negative, got a minimum of {array.min():.3g}")
        if array.sum() <= 0:
            raise ValueError(f"{name} must have positive mass, got zero")
        arrays.append(array)
    mu, nu = arrays
    if mu.shape != nu.shape:
        raise ValueError(f"mu and nu must have the same shape, got {mu.shape} and {nu.shape}")
    if balanced:
        for name, array in (("mu", mu), ("nu", nu)):
            if abs(array.mean() - 1) > 1e-6:
                raise ValueError(f"{name} must have mean 1 (a probability on the unit box), got {array.mean():.9g}")
        # Single precision input: equal masses to rounding, so that the continuity equation can hold to rounding.
        mu, nu = (a if abs(a.mean() - 1) <= 1e-13 else a / a.mean() for a in (mu, nu))
    return mu, nu


def is_periodic(boundary: str) -> bool:
    """Whether ``boundary`` names the torus; raises ValueError for an unknown name."""
    if boundary not in ("walls", "periodic"):
        raise ValueError(f"boundary must be 'walls' or 'periodic', got {boundary!r}")
    return boundary == "periodic"


def eigenvalues(n: int, *, periodic: bool = False) -> np.ndarray:
    """Return the n eigenvalues of the negative second difference on n cells of length 1/n."""
    return (2 * n * np.sin(np.pi * np.arange(n) / (n if periodic else 2 * n))) ** 2


def half_spectrum(shape: tuple[int, ...], *, periodic: bool) -> np.ndarray:
    """Return the symbol of the negative Laplacian, in the layout that :func:`transform` produces."""
    symbol = np.zeros(())
    for axis, n in enumerate(shape):
        values = eigenvalues(n, periodic=periodic)
        symbol = np.add.outer(symbol, values[: n // 2 + 1] if periodic and axis == len(shape) - 1 else values)
    return symbol


def poisson(rhs: np.ndarray, symbol: np.ndarray, *, periodic: bool, workers: int | None = None) -> np.ndarray:
    """Solve −Δφ = rhs on the cells; where the symbol vanishes (the constants) the solution has no component."""
    if periodic:
        spectrum = fft.rfftn(rhs, workers=workers)
    else:
        spectrum = fft.dctn(rhs, workers=workers, overwrite_x=True)
    spectrum *= inverse(symbol).astype(rhs.dtype)
    if periodic:
        return fft.irfftn(spectrum, rhs.shape, workers=workers)
    return fft.idctn(spectrum, workers=workers, overwrite_x=True)


def inverse(symbol: np.ndarray) -> np.ndarray:
    """Return 1/symbol, with 0 in place of 1/0."""
    return np.divide(1.0, symbol, out=np.zeros_like(symbol), where=symbol > 0)


def centres(n: int) -> np.ndarray:
    """Return the n cell centres of [0, 1]."""
    return (np.arange(n) + 0.5) / n


def half_square_cost(x: np.ndarray, y: np.ndarray, *, periodic: bool) -> np.ndarray:
    """Return ½ |x_i − y_j|² on the line or on the circle of length 1, shape (len(x), len(y))."""
    gap = np.abs(x[:, None] - y[None, :])
    return 0.5 * (np.minimum(gap, 1 - gap) if periodic else gap) ** 2


def costs(shape: tuple[int, ...], *, periodic: bool) -> list[np.ndarray]:
    """Return the half square cost between the cell centres along each axis."""
    return [half_square_cost(centres(n), centres(n), periodic=periodic) for n in shape]


def levels(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the grids from the coarsest to ``shape``, each about twice as fine as the one before."""
    grids = [shape]
    while max(grids[0]) > COARSEST:
        grids.insert(0, tuple(-(-n // 2) if n > COARSEST else n for n in grids[0]))
    return grids


def c_transform(values: np.ndarray, axis_costs: list[np.ndarray]) -> np.ndarray:
    """Return min_j Σ_a axis_costs[a][i_a, j_a] − values[j], one axis after the other (the cost is a sum over the axes)."""
    out = -values
    for axis, cost in enumerate(axis_costs):
        out = np.moveaxis(_min_plus(cost.astype(values.dtype, copy=False), np.moveaxis(out, axis, 0)), 0, axis)
    return np.ascontiguousarray(out)


def _min_plus(cost: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return min_j cost[i, j] + values[j, ...] for all i."""
    flat = np.ascontiguousarray(values).reshape(values.shape[0], -1)
    out = np.empty((cost.shape[0], flat.shape[1]), values.dtype)
    rows = max(1, BLOCK // flat.shape[1])
    if flat.shape[1] == 1:
        return (cost + flat[:, 0]).min(1).reshape((cost.shape[0],) + values.shape[1:])
    for start in range(0, cost.shape[0], rows):
        block = out[start : start + rows]
        columns = np.ascontiguousarray(cost[start : start + rows].T)[:, :, None]
        np.add(columns[0], flat[0], out=block)
        trial = np.empty_like(block)
        for column, row in zip(columns[1:], flat[1:], strict=True):
            np.add(column, row, out=trial)
            np.minimum(block, trial, out=block)
    return out.reshape((cost.shape[0],) + values.shape[1:])


def gradient(values: np.ndarray, *, periodic: bool) -> np.ndarray:
    """Return the centred differences of cell values, one-sided at walls, shape (d, *N)."""
    parts = []
    for axis, n in enumerate(values.shape):
        padded = pad(values, axis, periodic=periodic, extrapolate=True)
        parts.append((cut(padded, axis, 2, None) - cut(padded, axis, 0, -2)) * (n / 2))
    return np.stack(parts)


def cut(array: np.ndarray, axis: int, start: int | None, stop: int | None) -> np.ndarray:
    """Return ``array[start:stop]`` along one axis, as a view."""
    return array[(slice(None),) * (axis % array.ndim) + (slice(start, stop),)]


def pad(values: np.ndarray, axis: int, *, periodic: bool, extrapolate: bool = False) -> np.ndarray:
    """Add one ghost cell at both ends of an axis: wrapped, linearly extrapolated, or equal to its neighbour."""
    first, last = cut(values, axis, 0, 1), cut(values, axis, -1, None)
    if periodic:
        ghosts = last, first
    elif extrapolate:
        ghosts = 2 * first - cut(values, axis, 1, 2), 2 * last - cut(values, axis, -2, -1)
    else:
        ghosts = first, last
    return np.concatenate([ghosts[0], values, ghosts[1]], axis)


def interpolation(points: np.ndarray, nodes: int, *, offset: float, periodic: bool = False) -> np.ndarray:
    """Return the matrix of linear interpolation from nodes (j + offset)/n to points, constant beyond the last node.

    ``offset`` is 0.5 for cell centres (n = nodes) and 0 for faces (n = nodes − 1, or nodes on the circle).
    """
    intervals = nodes if periodic or offset else nodes - 1
    position = np.asarray(points) * intervals - offset
    if not periodic:
        position = np.clip(position, 0, nodes - 1)
    low = np.floor(position).astype(int)
    matrix = np.zeros((len(position), nodes))
    rows = np.arange(len(position))
    np.add.at(matrix, (rows, low % nodes), 1 - (position - low))
    np.add.at(matrix, (rows, (low + 1) % nodes if periodic else np.minimum(low + 1, nodes - 1)), position - low)
    return matrix


def along_axes(values: np.ndarray, matrices: list[np.ndarray]) -> np.ndarray:
    """Apply one matrix along each axis of an array."""
    for axis, matrix in enumerate(matrices):
        values = np.moveaxis(np.tensordot(matrix.astype(values.dtype, copy=False), values, (1, axis)), 0, axis)
    return np.ascontiguousarray(values)


def coarsen(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the averages of a piecewise constant function over the cells of another grid of the box."""
    matrices = []
    for n, m in zip(values.shape, shape, strict=True):
        edges, new = np.arange(n + 1) / n, np.arange(m + 1) / m
        overlap = np.minimum(edges[None, 1:], new[1:, None]) - np.maximum(edges[None, :-1], new[:-1, None])
        matrices.append(np.maximum(overlap, 0) * m)
    return along_axes(values, matrices)


def particles(density: np.ndarray, displacement: np.ndarray, *, per_axis: int, periodic: bool) -> tuple[np.ndarray, ...]:
    """Return positions (d, P), displacements (d, P) and masses (P,) of per_axis^d particles in each cell that holds mass."""
    shape = density.shape
    fine = [centres(n * per_axis) for n in shape]
    matrices = [interpolation(x, n, offset=0.5, periodic=periodic) for x, n in zip(fine, shape, strict=True)]
    mass = density / (density.size * per_axis**density.ndim)
    for axis in range(density.ndim):
        mass = np.repeat(mass, per_axis, axis)
    keep = np.flatnonzero(mass > 1e-9 * mass.max())
    index = np.unravel_index(keep, mass.shape)
    positions = np.stack([x[i] for x, i in zip(fine, index, strict=True)]).astype(displacement.dtype)
    moves = np.stack([along_axes(part, matrices).ravel()[keep] for part in displacement])
    return positions, moves, mass.ravel()[keep]


def deposit(points: np.ndarray, mass: np.ndarray, shape: tuple[int, ...], *, periodic: bool) -> np.ndarray:
    """Share out each particle's mass linearly among the 2^d nearest cell centres; returns a density."""
    lows, parts = [], []
    for x, n in zip(points, shape, strict=True):
        position = x * n - 0.5
        if not periodic:
            np.clip(position, 0, n - 1, out=position)
        low = np.floor(position)
        lows.append(low.astype(np.intp))
        parts.append(position - low)
    total = np.zeros(int(np.prod(shape)))
    for corner in product((0, 1), repeat=len(shape)):
        flat, weight = 0, mass
        for n, low, part, up in zip(shape, lows, parts, corner, strict=True):
            index = low + up
            flat = flat * n + (index % n if periodic else np.minimum(index, n - 1))
            weight = weight * (part if up else 1 - part)
        total += np.bincount(flat, weight, total.size)
    return total.reshape(shape) * total.size


def graph_laplacian(free: np.ndarray, periodic: bool) -> sparse.csc_array:
    """Return the negative Laplacian on the free cells (in the order of ``free.ravel()``) with no flux through all other faces."""
    number = np.full(free.shape, -1)
    number[free] = np.arange(free.sum())
    rows, columns, weights = [], [], []
    for axis, n in enumerate(free.shape):
        next_ = (
            np.roll(number, -1, axis)
            if periodic
            else np.concatenate([cut(number, axis, 1, None), np.full_like(cut(number, axis, 0, 1), -1)], axis)
        )
        pair = (number >= 0) & (next_ >= 0)
        rows.append(number[pair])
        columns.append(next_[pair])
        weights.append(np.full(pair.sum(), float(n) ** 2))
    rows, columns, weights = (np.concatenate(parts) for parts in (rows, columns, weights))
    links = sparse.coo_array((weights, (rows, columns)), shape=(free.sum(),) * 2).tocsc()
    links = links + links.T
    return (sparse.diags_array(links.sum(0)) - links).tocsc()


def mean(face: np.ndarray, axis: int) -> np.ndarray:
    """Return the mean of opposite faces in each cell."""
    out = cut(face, axis, 0, -1) + cut(face, axis, 1, None)
    out *= out.dtype.type(0.5)
    return out


@dataclass(frozen=True)
class Staggered:
    """The continuity equation on staggered cells, perhaps with a source.

    Component 0 is the density, 1 … d the momentum, and d + 1 (if there is growth) δ times the source.

    Component a ≤ d is staggered along axis a of the space-time array (K, *N); the source lives at the cell centres. The iteration
    runs on the time interval [0, horizon], where speeds are moderate: its momentum is that of [0, 1] divided by the horizon.
    """

    cells: tuple[int, ...]
    horizon: float
    periodic: bool
    growth: float | None
    free: np.ndarray | None
    free_faces: tuple[np.ndarray, ...] | None
    symbol: np.ndarray | None
    factors: tuple | None
    workers: int | None

    @classmethod
    def build(cls, shape, steps, horizon, periodic, growth, mask, workers) -> Staggered:
        time = eigenvalues(steps) / horizon**2 + (0.0 if growth is None else growth**-2)
        if mask is None:
            symbol = np.add.outer(time, half_spectrum(shape, periodic=periodic))
            return cls((steps, *shape), horizon, periodic, growth, None, None, inverse(symbol), None, workers)
        free = ~mask
        laplacian = graph_laplacian(free, periodic)
        parts, labels = csgraph.connected_components(laplacian, directed=False)
        factors = []
        for value in time:
            diagonal = np.full(laplacian.shape[0], value)
            if value == 0:
                # Constants on each connected part are undetermined; pinning one cell leaves a compatible problem as it was.
                diagonal[[np.argmax(labels == part) for part in range(parts)]] = 1.0
            matrix = (laplacian + sparse.diags_array(diagonal)).tocsc()
            factors.append(splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}))
        faces = [free]
        for axis in range(len(shape)):
            ghosts = pad(free, axis, periodic=periodic)
            faces.append(cut(ghosts, axis, 0, -1) & cut(ghosts, axis, 1, None))
        return cls((steps, *shape), horizon, periodic, growth, free, tuple(faces), None, tuple(factors), workers)

    @property
    def rates(self) -> tuple[float, ...]:
        """The factors of the differences along each axis, one over the length of a cell."""
        return (self.cells[0] / self.horizon, *self.cells[1:])

    @property
    def staggered(self) -> range:
        """The components that live on faces."""
        return range(len(self.cells))

    def face_shape(self, component: int) -> tuple[int, ...]:
        """The shape of the face values of one component."""
        return tuple(n + (axis == component) for axis, n in enumerate(self.cells))

    def poisson(self, rhs: np.ndarray) -> np.ndarray:
        """Solve A A* φ = rhs, the negative Laplacian in space and time (plus 1/δ² with growth)."""
        if self.factors is not None:
            spectrum = fft.dct(rhs.astype(np.float64), axis=0, workers=self.workers)
            solution = np.zeros_like(spectrum)
            for k, factor in enumerate(self.factors):
                solution[k, self.free] = factor.solve(spectrum[k, self.free])
            return fft.idct(solution, axis=0, workers=self.workers).astype(rhs.dtype)
        scale = self.symbol.astype(rhs.dtype)
        if not self.periodic:
            spectrum = fft.dctn(rhs, workers=self.workers, overwrite_x=True)
            spectrum *= scale
            return fft.idctn(spectrum, workers=self.workers, overwrite_x=True)
        axes = tuple(self.staggered)[1:]
        spectrum = fft.rfftn(fft.dct(rhs, axis=0, workers=self.workers), axes=axes, workers=self.workers)
        spectrum *= scale
        return fft.idct(fft.irfftn(spectrum, self.cells[1:], axes=axes, workers=self.workers), axis=0, workers=self.workers)

    def divergence(self, faces: list[np.ndarray]) -> np.ndarray:
        """Return ∂ₜρ + div m − s in each cell."""
        total = np.diff(faces[0], axis=0)
        total *= total.dtype.type(self.rates[0])
        for axis in self.staggered[1:]:
            part = np.diff(faces[axis], axis=axis)
            part *= self.cells[axis]
            total += part
        if self.growth is not None:
            total -= faces[-1] * total.dtype.type(1 / self.growth)
        return total

    def add_difference(self, face: np.ndarray, potential: np.ndarray, axis: int) -> None:
        """Add one component of −A*φ, the gradient of the potential, to the faces between two free cells."""
        step = potential.dtype.type(self.rates[axis])
        change = np.diff(potential, axis=axis)
        change *= step
        inner = cut(face, axis, 1, -1)
        inner += change
        if axis and self.periodic:
            wrap = (cut(potential, axis, 0, 1) - cut(potential, axis, -1, None)) * step
            for end in (cut(face, axis, 0, 1), cut(face, axis, -1, None)):
                end += wrap
        if self.free_faces is not None:
            face *= self.free_faces[axis]

    def project(self, faces: list[np.ndarray]) -> None:
        """Project face values, in place, onto the continuity equation with their end densities."""
        potential = self.poisson(self.divergence(faces))
        for axis in self.staggered:
            self.add_difference(faces[axis], potential, axis)
        if self.growth is not None:
            faces[-1] += potential * potential.dtype.type(1 / self.growth)

    def lift(self, faces: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return the means z and half differences w of opposite faces (the source has only z)."""
        means = [mean(faces[axis], axis) for axis in self.staggered]
        halves = [(cut(f, a, 1, None) - cut(f, a, 0, -1)) / 2 for a, f in zip(self.staggered, faces, strict=False)]
        return means + [faces[-1].copy()] * (self.growth is not None), halves

    def linear_path(self, mu: np.ndarray, nu: np.ndarray) -> list[np.ndarray]:
        """Return the admissible pair with density (1 − t)μ + tν (balanced case), and the projection of that path otherwise."""
        t = np.linspace(0, 1, self.cells[0] + 1).reshape((-1,) + (1,) * mu.ndim).astype(mu.dtype)
        faces = [(1 - t) * mu + t * nu]
        faces += [np.zeros(self.face_shape(axis), mu.dtype) for axis in self.staggered[1:]]
        if self.growth is not None:
            faces.append(np.zeros(self.cells, mu.dtype))
        self.project(faces)
        return faces
