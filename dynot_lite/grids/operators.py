"""Operators on a grid of cells, for both solvers: data in and out, Poisson problems, c-transforms, interpolation, particles.

The box is [0, 1]^d with N_1 × … × N_d cells; a density is the array of its cell averages, with mean 1 for a probability.
Walls (``periodic=False``, no flux) go with the cosine transform, the torus (``periodic=True``) with the Fourier transform.
"""

from itertools import product

import numpy as np
import torch
from scipy import fft
from torch import Tensor

from dynot_lite._base import checks as check

# Cells along each axis of the coarsest grid.
COARSEST = 16
# Numbers in one block of a blocked loop: small enough for the second-level cache.
BLOCK = 32768


def densities(mu, nu, *, balanced: bool = True) -> tuple[np.ndarray, np.ndarray, torch.device]:
    """Return both densities as float64 arrays and the device of ``mu``, or raise a ValueError that names the argument."""
    pair = constant(mu, "mu"), constant(nu, "nu")
    for name, tensor in zip(("mu", "nu"), pair, strict=True):
        if not 1 <= tensor.ndim <= 3 or min(tensor.shape) < 2:
            raise ValueError(f"{name} must have 1, 2 or 3 axes of at least 2 cells, got shape {tuple(tensor.shape)}")
        if tensor.min() < 0:
            raise ValueError(f"{name} must be non-negative, got a minimum of {tensor.min().item():.3g}")
        if not 0 < tensor.sum() < torch.inf:
            raise ValueError(f"{name} must have positive mass (and finite), got {tensor.sum().item():.3g}")
        if balanced and abs(tensor.mean().item() - 1) > 1e-6:
            raise ValueError(f"{name} must have mean 1 (a probability on the unit box), got {tensor.mean().item():.9g}")
    if pair[0].shape != pair[1].shape:
        raise ValueError(f"mu and nu must have the same shape, got {tuple(pair[0].shape)} and {tuple(pair[1].shape)}")
    mu, nu = (tensor.numpy(force=True) for tensor in pair)
    if balanced:
        # Single precision input: equal masses to rounding, so that the continuity equation can hold to rounding.
        mu, nu = (a if abs(a.mean() - 1) <= 1e-13 else a / a.mean() for a in (mu, nu))
    return mu, nu, pair[0].device


def constant(value, name: str) -> Tensor:
    """``value`` in float64, cut from the graph: NumPy passes no gradients on."""
    return check.as_tensor(value, name).detach().to(torch.float64)


def as_tensor(array: np.ndarray, device: torch.device) -> Tensor:
    """Return the array in float64 as a tensor on the device."""
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float64)).to(device)


def is_periodic(boundary: str) -> bool:
    """Whether ``boundary`` names the torus; raises ValueError for an unknown name."""
    return check.choice(boundary, "boundary", ("walls", "periodic")) == "periodic"


def threads(workers: int | None) -> int | None:
    """The number of threads of a transform, or None for SciPy's default."""
    return None if workers is None else check.count(workers, "workers")


def eigenvalues(n: int, *, periodic: bool = False) -> np.ndarray:
    """Return the n eigenvalues of the negative second difference on n cells of length 1/n."""
    return (2 * n * np.sin(np.pi * np.arange(n) / (n if periodic else 2 * n))) ** 2


def half_spectrum(shape: tuple[int, ...], *, periodic: bool) -> np.ndarray:
    """Return the symbol of the negative Laplacian in the layout of the transforms of :func:`poisson`."""
    symbol = np.zeros(())
    for axis, n in enumerate(shape):
        values = eigenvalues(n, periodic=periodic)
        symbol = np.add.outer(symbol, values[: n // 2 + 1] if periodic and axis == len(shape) - 1 else values)
    return symbol


def poisson(rhs: np.ndarray, scale: np.ndarray, *, periodic: bool, time: bool = False, workers: int | None = None) -> np.ndarray:
    """Solve −Δφ = rhs on the cells, ``scale`` being the :func:`inverse` of the symbol; it may overwrite rhs.

    With ``time`` the first axis is an interval between walls also where the others are periodic.
    """
    scale = scale.astype(rhs.dtype, copy=False)
    if not periodic:
        spectrum = fft.dctn(rhs, workers=workers, overwrite_x=True)
        spectrum *= scale
        return np.asarray(fft.idctn(spectrum, workers=workers, overwrite_x=True))
    axes = tuple(range(time, rhs.ndim))
    spectrum = fft.rfftn(fft.dct(rhs, axis=0, workers=workers) if time else rhs, axes=axes, workers=workers)
    spectrum *= scale
    solution = fft.irfftn(spectrum, rhs.shape[time:], axes=axes, workers=workers)
    return np.asarray(fft.idct(solution, axis=0, workers=workers) if time else solution)


def inverse(symbol: np.ndarray) -> np.ndarray:
    """Return 1/symbol, with 0 in place of 1/0: where the symbol vanishes (the constants) a solution has no component."""
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
        first, last = cut(values, axis, 0, 1), cut(values, axis, -1, None)
        ghosts = (last, first) if periodic else (2 * first - cut(values, axis, 1, 2), 2 * last - cut(values, axis, -2, -1))
        padded = np.concatenate([ghosts[0], values, ghosts[1]], axis)
        parts.append((cut(padded, axis, 2, None) - cut(padded, axis, 0, -2)) * (n / 2))
    return np.stack(parts)


def cut(array: np.ndarray, axis: int, start: int | None, stop: int | None) -> np.ndarray:
    """Return ``array[start:stop]`` along one axis, as a view."""
    return array[(slice(None),) * (axis % array.ndim) + (slice(start, stop),)]


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
    np.add.at(matrix, (rows, (low + 1) % nodes), position - low)  # beyond the last node at a wall the weight is zero
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


def particles(density: np.ndarray, displacement: np.ndarray, *, periodic: bool) -> tuple[np.ndarray, ...]:
    """Return positions (d, P), displacements (d, P) and masses (P,) of 2^d particles in each cell that holds mass."""
    fine = [centres(2 * n) for n in density.shape]
    matrices = [interpolation(x, n, offset=0.5, periodic=periodic) for x, n in zip(fine, density.shape, strict=True)]
    mass = density / (density.size * 2**density.ndim)
    for axis in range(density.ndim):
        mass = np.repeat(mass, 2, axis)
    keep = np.flatnonzero(mass > 1e-9 * mass.max())
    index = np.unravel_index(keep, mass.shape)
    positions = np.stack([x[i] for x, i in zip(fine, index, strict=True)]).astype(displacement.dtype)
    moves = np.stack([along_axes(part, matrices).ravel()[keep] for part in displacement])
    return positions, moves, mass.ravel()[keep]


def deposit(points: np.ndarray, mass: np.ndarray, shape: tuple[int, ...], *, periodic: bool) -> np.ndarray:
    """Share out each particle's mass linearly among the 2^d nearest cell centres; returns a density."""
    ends, shares = [], []
    for x, n in zip(points, shape, strict=True):
        place = x * n - 0.5
        if not periodic:
            np.clip(place, 0, n - 1, out=place)
        low = np.floor(place)
        index = low.astype(np.intp)
        ends.append((index % n, (index + 1) % n) if periodic else (index, np.minimum(index + 1, n - 1)))
        shares.append((1 - (place - low), place - low))
    total = np.zeros(int(np.prod(shape)))
    for corner in product((0, 1), repeat=len(shape)):
        flat, weight = 0, mass
        for axis, up in enumerate(corner):
            flat = flat * shape[axis] + ends[axis][up]
            weight = weight * shares[axis][up]
        total += np.bincount(flat, weight, total.size)
    return total.reshape(shape) * total.size
