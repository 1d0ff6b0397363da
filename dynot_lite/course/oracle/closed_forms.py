"""What the oracles of several problem sets compute with: Gaussian laws given as arrays, quadratic forms, integrals over time."""

from functools import partial

import numpy as np

from dynot_lite.laws.gaussian import Gaussian, monge_map, w2_squared
from dynot_lite.paths.continuity import gauss_legendre

inverse = np.linalg.inv
NODES, WEIGHTS = (array.numpy() for array in gauss_legendre(60))


def integral(function, order=60, rule=None):
    """∫₀¹ function(t) dt, of a function whose values are numbers or arrays; ``rule``: other nodes and weights."""
    nodes, weights = rule or (array.tolist() for array in gauss_legendre(order))
    return sum(weight * function(t) for t, weight in zip(nodes, weights, strict=True))


def trapezoid(n):
    """Nodes and weights of the trapezoid rule with n intervals; the midpoint rule errs half as much."""
    return np.linspace(0, 1, n + 1).tolist(), [0.5 / n, *[1 / n] * (n - 1), 0.5 / n]


def rectangles(n):
    """Left rectangles, n of them, by the first term of Euler and Maclaurin: the integral and (f(0) − f(1))/2n."""
    return [*NODES.tolist(), 0.0, 1.0], [*WEIGHTS.tolist(), 0.5 / n, -0.5 / n]


def by_sums(function, *others):
    """The approximations of a ``function`` of a ``rule`` that count as right: a common one, and ``others`` by name."""
    rules = {"by the trapezoid rule with 100 intervals": trapezoid(100), "by 1000 rectangles": rectangles(1000)}
    return {name: partial(function, rule=rules[name]) for name in ("by the trapezoid rule with 100 intervals", *others)}


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
