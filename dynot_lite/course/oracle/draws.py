"""Random instances for several problem sets: points, laws, couplings and weights from a NumPy generator."""

import numpy as np


def points(rng, d):
    """A number of points that is no dimension, so that a batch is not taken for a matrix."""
    return 1.5 * rng.standard_normal((7, d))


def weights(rng, n):
    w = 0.4 + rng.random(n)
    return w / w.sum()


basis = lambda rng, d: np.linalg.qr(rng.standard_normal((d, d)))[0]


def spectral(vectors, values):
    """The symmetric matrix with this basis of eigenvectors."""
    return (vectors * values) @ vectors.T


def covariance(rng, d):
    """A random basis and a spectrum between 1/4 and 4; the extremes are always far apart."""
    spectrum = rng.uniform(-1.4, 1.4, d)
    if d > 1:
        spectrum[0], spectrum[-1] = rng.uniform(-1.4, -0.6), rng.uniform(0.6, 1.4)
    return spectral(basis(rng, d), np.exp(spectrum))


mean = lambda rng, d: rng.standard_normal(d)
law = lambda rng, d: (mean(rng, d), covariance(rng, d))
laws = lambda rng, d: (*law(rng, d), *law(rng, d))


def cross(rng, cov0, cov1):
    """A non-symmetric Cov(X0, X1) with a definite joint covariance."""
    kernel = rng.standard_normal(cov0.shape)
    kernel *= 0.7 / np.linalg.norm(kernel, 2)
    return np.linalg.cholesky(cov0) @ kernel @ np.linalg.cholesky(cov1).T


def coupled(rng, d, *, correlated=True):
    """The means and covariances of two laws, and Cov(X0, X1)."""
    m0, S0, m1, S1 = laws(rng, d)
    return m0, S0, m1, S1, cross(rng, S0, S1) if correlated else 0 * S0
