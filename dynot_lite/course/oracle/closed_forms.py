"""What the oracles of several problem sets compute with: Gaussian laws given as arrays, quadratic forms, integrals over time."""

import numpy as np

from dynot_lite.laws.gaussian import Gaussian, monge_map, w2_squared
from dynot_lite.paths.continuity import gauss_legendre

inverse = np.linalg.inv
NODES, WEIGHTS = (array.numpy() for array in gauss_legendre(60))


def integral(function, order=60):
    """∫₀¹ function(t) dt, of a function whose values are numbers or arrays."""
    nodes, weights = (array.tolist() for array in gauss_legendre(order))
    return sum(weight * function(t) for t, weight in zip(nodes, weights, strict=True))


def squares(x):
    return (x**2).sum(-1)


def form(x, matrix):
    """⟨x, matrix x⟩ for each row of x."""
    return np.einsum("...i,ij,...j", x, matrix, x)


def as_laws(m0, S0, m1, S1):
    return Gaussian(m0, S0), Gaussian(m1, S1)


def distance_squared(*laws):
    """W₂² of N(m0, S0) and N(m1, S1)."""
    return w2_squared(*as_laws(*laws)).item()


def monge_matrix(*laws):
    """The matrix of the optimal map."""
    return monge_map(*as_laws(*laws)).matrix.numpy()


def second_moment(A, m, S):
    """E|AX|² for X of law N(m, S)."""
    return squares(A @ m) + np.trace(A @ S @ A.T)


def straight_energy(m0, S0, m1, S1, C):
    """E|X1 − X0|²."""
    return squares(m1 - m0) + np.trace(S0 + S1 - C - C.T)


def path_moments(t, m0, S0, m1, S1, C):
    """Mean and covariance of X_t = (1 − t)X0 + tX1, the derivative of the mean, and Cov(X1 − X0, X_t)."""
    cov = (1 - t) ** 2 * S0 + t**2 * S1 + t * (1 - t) * (C + C.T)
    return (1 - t) * m0 + t * m1, cov, m1 - m0, t * S1 - (1 - t) * S0 + (1 - t) * C.T - t * C
