"""The continuity equation on staggered cells of space and time, and the projection onto it.

Time has K slabs and the box N_1 × … × N_d cells. Densities live on the time faces of the space-time cells and the momentum
component i on the faces across axis i, so the divergence of (ρ, m) is exact in every cell.
"""

from dataclasses import dataclass

import numpy as np
from scipy import fft, sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import splu

from dynot_lite.grids import operators as grid
from dynot_lite.grids.operators import cut


def on_faces(combine: np.ufunc, low: np.ndarray, high: np.ndarray, axis: int, *, periodic: bool, out=None) -> np.ndarray:
    """Return combine(low of the cell before, high of the cell behind) on the faces across an axis; walls keep ``out``, or 0."""
    if out is None:
        out = np.zeros(tuple(n + (a == axis) for a, n in enumerate(low.shape)), low.dtype)
    combine(cut(low, axis, 0, -1), cut(high, axis, 1, None), out=cut(out, axis, 1, -1))
    if periodic:
        wrap = combine(cut(low, axis, -1, None), cut(high, axis, 0, 1))
        cut(out, axis, 0, 1)[...] = wrap
        cut(out, axis, -1, None)[...] = wrap
    return out


def graph_laplacian(free: np.ndarray, periodic: bool) -> sparse.csc_array:
    """Return the negative Laplacian on the free cells (in the order of ``free.ravel()``) with no flux through all other faces."""
    number = np.full(free.shape, -1)
    number[free] = np.arange(free.sum())
    rows, columns, weights = [], [], []
    for axis, n in enumerate(free.shape):
        next_ = np.roll(number, -1, axis)
        if not periodic:
            cut(next_, axis, -1, None)[...] = -1
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
    return (cut(face, axis, 0, -1) + cut(face, axis, 1, None)) / 2


def filtered(faces: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Average neighbouring times: the result is admissible with the same ends and free of the mode that alternates in time.

    Only (ρ^k + ρ^(k+1))/2 has a price, so ρ^k may oscillate. The density is therefore given at the middle of each slab, as that
    mean, and the momentum between two middles is the mean of two slabs; a half slab at both ends keeps its own.
    """
    times = np.concatenate([[0.0], grid.centres(len(faces[0]) - 1), [1.0]])
    return times, [np.concatenate([face[:1], mean(face, 0), face[-1:]]) for face in faces]


@dataclass(frozen=True)
class Staggered:
    """The continuity equation on staggered cells, perhaps with a source.

    Component 0 is the density, 1 … d the momentum, and d + 1 (if there is growth) δ times the source. Component a ≤ d is
    staggered along axis a of the space-time array (K, *N); the source lives at the cell centres. The iteration runs on the time
    interval [0, horizon], where speeds are moderate: its momentum is that of [0, 1] divided by the horizon.
    """

    cells: tuple[int, ...]
    horizon: float
    periodic: bool
    growth: float | None
    free: np.ndarray | None
    free_faces: tuple[np.ndarray, ...] | None
    scale: np.ndarray | None
    factors: tuple
    workers: int | None

    @classmethod
    def build(cls, shape, steps, horizon, periodic, growth, mask, workers) -> "Staggered":
        time = grid.eigenvalues(steps) / horizon**2 + (0.0 if growth is None else growth**-2)
        if mask is None:
            scale = grid.inverse(np.add.outer(time, grid.half_spectrum(shape, periodic=periodic)))
            return cls((steps, *shape), horizon, periodic, growth, None, None, scale, (), workers)
        free = ~mask
        laplacian = graph_laplacian(free, periodic)
        parts, labels = csgraph.connected_components(laplacian, directed=False)
        factors = []
        for value in time:
            diagonal = np.full(free.sum(), value)
            if value == 0:
                # Constants on each connected part are undetermined; pinning one cell leaves a compatible problem as it was.
                diagonal[[np.argmax(labels == part) for part in range(parts)]] = 1.0
            matrix = (laplacian + sparse.diags_array(diagonal)).tocsc()
            factors.append(splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}))
        faces = [on_faces(np.logical_and, free, free, axis, periodic=periodic) for axis in range(len(shape))]
        return cls((steps, *shape), horizon, periodic, growth, free, (free, *faces), None, tuple(factors), workers)

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
        if self.scale is not None:
            return grid.poisson(rhs, self.scale, periodic=self.periodic, time=True, workers=self.workers)
        spectrum = np.asarray(fft.dct(rhs.astype(np.float64), axis=0, workers=self.workers))
        solution = np.zeros_like(spectrum)
        for slab, values, factor in zip(solution, spectrum, self.factors, strict=True):
            slab[self.free] = factor.solve(values[self.free])
        return np.asarray(fft.idct(solution, axis=0, workers=self.workers)).astype(rhs.dtype)

    def divergence(self, faces: list[np.ndarray]) -> np.ndarray:
        """Return ∂ₜρ + div m − s in each cell."""
        total = np.diff(faces[0], axis=0)
        total *= self.rates[0]
        for axis in self.staggered[1:]:
            part = np.diff(faces[axis], axis=axis)
            part *= self.cells[axis]
            total += part
        if self.growth is not None:
            total -= faces[-1] * (1 / self.growth)
        return total

    def add_difference(self, face: np.ndarray, potential: np.ndarray, axis: int) -> None:
        """Add one component of −A*φ, the gradient of the potential, to the faces between two free cells."""
        change = np.diff(potential, axis=axis)
        change *= self.rates[axis]
        inner = cut(face, axis, 1, -1)
        inner += change
        if axis and self.periodic:
            wrap = (cut(potential, axis, 0, 1) - cut(potential, axis, -1, None)) * self.rates[axis]
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
            faces[-1] += potential * (1 / self.growth)

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
