"""Densities on grids with known transport: the oracles of the grid solvers' tests."""

import numpy as np
from scipy.special import ndtr


def gaussian_1d(n, mean, std):
    """Cell averages of a normal density on [0, 1], of mean 1."""
    cells = np.diff(ndtr((np.arange(n + 1) / n - mean) / std))
    return cells / cells.mean()


def product(*factors):
    """The tensor product of one-dimensional densities."""
    out = np.ones(())
    for factor in factors:
        out = np.multiply.outer(out, factor)
    return out


def rough_1d(n, rng, *, positive=True):
    """A random density of sharp blocks, bounded below by 0.1 if positive and with empty cells otherwise."""
    density = np.repeat(rng.random(-(-n // 3)) ** 2, 3)[:n] + 0.2 * rng.random(n)
    density[rng.random(n) < 0.3] = 0
    density[rng.integers(n)] += 1
    density /= density.mean()
    return 0.1 + 0.9 * density if positive else density


def w2_squared_1d(mu, nu):
    """W₂² between piecewise constant densities on [0, 1], exactly: ∫₀¹ |F⁻¹ − G⁻¹|² with both quantile functions piecewise
    affine.
    """
    breaks = [np.concatenate([[0], np.cumsum(a)]) / a.sum() for a in (mu, nu)]
    levels = np.unique(np.concatenate(breaks))
    levels = levels[np.concatenate([[True], np.diff(levels) > 1e-15])]
    middle, lengths = (levels[1:] + levels[:-1]) / 2, np.diff(levels)
    ends = []
    for density, cdf in zip((mu, nu), breaks, strict=True):
        n = len(density)
        cell = np.clip(np.searchsorted(cdf, middle, side="right") - 1, 0, n - 1)
        slope = density.sum() / (n * density[cell])
        ends.append([cell / n + slope * (q - cdf[cell]) for q in (levels[:-1], levels[1:])])
    low, high = ends[0][0] - ends[1][0], ends[0][1] - ends[1][1]
    return float(lengths @ (low**2 + low * high + high**2) / 3)


def centres(shape):
    """Cell centres, shape (prod(shape), d), in C order."""
    axes = np.meshgrid(*((np.arange(n) + 0.5) / n for n in shape), indexing="ij")
    return np.stack(axes, -1).reshape(-1, len(shape))


def correlated(shape, mean, cov, *, sub=4):
    """Cell averages of a Gaussian density with a full covariance, by sub-sampling each cell."""
    x = centres(tuple(n * sub for n in shape)) - np.asarray(mean)
    values = np.exp(-0.5 * np.einsum("ni,ij,nj->n", x, np.linalg.inv(cov), x))
    split = [size for n in shape for size in (n, sub)]
    density = values.reshape(split).mean(axis=tuple(range(1, 2 * len(shape), 2)))
    return density / density.mean()
