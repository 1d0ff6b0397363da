"""Problem set 2, parts 6 and 7: the losses of a potential along bent paths, and the best potential of a family."""

import math
from functools import partial

import numpy as np
import torch
from scipy.optimize import minimize, root

from dynot_lite.course.oracle.closed_forms import NODES, distance_squared, form, integral, inverse, monge_matrix, squares
from dynot_lite.course.oracle.compare import Check, altered, zero
from dynot_lite.course.oracle.draws import basis, covariance, laws, mean, spectral
from dynot_lite.potentials.action_matching import OptimalAction, action_matching_loss
from dynot_lite.potentials.convex import Quadratic

__all__ = ["CHECKS"]


# --------------------------------------------------------------------------------------------------- 6: along bent paths


def half_loss(x0, x1, M, b, h):
    """L_OT for the quadratic potential."""
    return (0.5 * form(x0, M) + x0 @ b + 0.5 * form(x1 - b, inverse(M))).mean()


def bent_path(t, x0, x1, h):
    place = (1 - t) * x0 + t * x1 + math.sin(math.pi * t) * h
    return place, x1 - x0 + math.pi * math.cos(math.pi * t) * h


def am_loss(x0, x1, M, b, h):
    """The loss taken literally, by the package, along the bent path."""
    with torch.no_grad():
        potential = Quadratic(len(b), matrix=torch.from_numpy(M), offset=torch.from_numpy(b))
        ends = torch.from_numpy(x0), torch.from_numpy(x1)
        path = torch.stack([torch.from_numpy(bent_path(t, x0, x1, h)[0]) for t in NODES[::6]])
        times = torch.from_numpy(NODES[::6].copy())
        return action_matching_loss(OptimalAction(potential), *ends, path, times).item()


def bent_loss(x0, x1, M, b, h):
    """Quadrature in time of the squared distance of the two velocities."""

    def gap(t):
        place, velocity = bent_path(t, x0, x1, h)
        z = np.linalg.solve((1 - t) * np.eye(len(b)) + t * M, (place - t * b).T).T
        return squares(z @ M + b - z - velocity).mean()

    return integral(gap)


def draw_bent(rng, d, *, bent=True):
    x0 = rng.standard_normal((9, d)) + mean(rng, d)
    x1 = 0.5 * x0 @ rng.standard_normal((d, d)) + rng.standard_normal((9, d)) + mean(rng, d)
    h = mean(rng, d)
    return x0, x1, covariance(rng, d), mean(rng, d), h / max(0.7, float(np.linalg.norm(h))) if bent else 0 * h


half_moments = lambda x0, x1: 0.5 * (squares(x0) + squares(x1)).mean()
inner = lambda x0, x1: (x0 * x1).sum(1).mean()
BENT_TRAPS = {
    "the loss lacks a factor 2": lambda *a: 0.5 * bent_loss(*a),
    "the pairs are taken to be independent": lambda x0, x1, *a: (
        bent_loss(x0, x1, *a) + 2 * inner(x0, x1) - 2 * x0.mean(0) @ x1.mean(0)
    ),
    "the inner product has the wrong sign": lambda *a: bent_loss(*a) + 4 * inner(*a[:2]),
    "the inner product is left out": lambda *a: bent_loss(*a) + 2 * inner(*a[:2]),
    "the offset is forgotten": altered(bent_loss, b=zero),
}


# ----------------------------------------------------------------------------------------- 7: the best potential of a family


def basis_loss(parameters, U, m0, S0, m1, S1):
    """L_OT over M = U diag(exp(logs)) Uᵀ and b, and its gradient."""
    d = len(m0)
    values, b = np.exp(parameters[:d]), parameters[d:]
    first = np.diag(U.T @ (S0 + np.outer(m0, m0)) @ U)
    rest = U.T @ (m1 - b)
    second = np.diag(U.T @ S1 @ U) + rest**2
    loss = 0.5 * values @ first + b @ m0 + 0.5 * (second / values).sum()
    return loss, np.concatenate([0.5 * values * first - 0.5 * second / values, m0 - U @ (rest / values)])


def basis_minimum(U, *ends):
    """By minimisation: a quasi-Newton method, and a few steps of Newton's to finish."""
    d = len(U)
    found = minimize(basis_loss, np.zeros(2 * d), args=(U, *ends), jac=True, method="BFGS", options={"gtol": 1e-9}).x
    found = root(lambda p: basis_loss(p, U, *ends)[1], found, tol=1e-13).x
    return spectral(U, np.exp(found[:d])), found[d:], basis_loss(found, U, *ends)[0]


def basis_potential(U, m0, S0, m1, S1):
    return basis_minimum(U, m0, S0, m1, S1)[:2]


def basis_bound(U, m0, S0, m1, S1):
    return np.trace(S0 + S1) + squares(m0) + squares(m1) - 2 * basis_minimum(U, m0, S0, m1, S1)[2]


def with_values(values):
    """A trap from a formula for the eigenvalues of M, of three matrices in the basis: both covariances and the optimal one."""

    def trap(U, m0, S0, m1, S1):
        M = spectral(U, values(*(np.diag(U.T @ A @ U) for A in (S0, S1, monge_matrix(m0, S0, m1, S1)))))
        return M, m1 - M @ m0

    return trap


def draw_basis(rng, d):
    """A basis that is a rotation: in the plane a reflection is its own transpose."""
    U = basis(rng, d)
    U[:, 0] *= np.linalg.det(U)
    return U, *laws(rng, d)


CHECKS = {
    "ps2-6": [
        Check("the loss of action matching", 3, "am_loss", draw_bent, am_loss, {
            "the moments are subtracted without their ½": lambda *a: am_loss(*a) - half_moments(*a[:2]),
            "the moments are not subtracted": half_loss,
            "the loss is counted twice": lambda *a: 2 * am_loss(*a),
            "the offset is forgotten": altered(am_loss, b=zero),
        }),
        Check("straight paths", 1, "bent_loss", partial(draw_bent, bent=False), bent_loss, BENT_TRAPS),
        Check("bent paths", 2, "bent_loss", draw_bent, bent_loss, BENT_TRAPS | {
            "the bend is left out": altered(bent_loss, h=zero),
            "the mean of cos² is taken to be 1": lambda *a: bent_loss(*a) + 0.5 * math.pi**2 * squares(a[-1]),
            "the kinetic energy is left out": lambda *a: 2 * am_loss(*a),
        }),
    ],
    "ps2-7": [
        Check("the potential", 3, "basis_potential", draw_basis, basis_potential, {
            "variances are taken for standard deviations": with_values(lambda first, second, _: second / first),
            "the ratio is turned round": with_values(lambda first, second, _: np.sqrt(first / second)),
            "the optimal matrix is cut down to the basis": with_values(lambda first, second, optimal: optimal),
            "U and its transpose are exchanged": altered(basis_potential, U=np.transpose),
            "the offset does not know M": lambda U, *a: (basis_potential(U, *a)[0], a[2] - a[0]),
        }),
        Check("the bound", 2, "basis_bound", draw_basis, basis_bound, {
            "the factor 2 of W₂² is forgotten": lambda *a: 0.5 * basis_bound(*a),
            "W₂² itself is returned": lambda U, *a: distance_squared(*a),
            "the means are left out": lambda U, m0, S0, m1, S1: basis_bound(U, m0, S0, m0, S1),
            "U and its transpose are exchanged": altered(basis_bound, U=np.transpose),
        }),
    ],
}  # fmt: skip
