"""Problem set 2, parts 1, 8 and 9: the action of a Gaussian path, the best one that stands still, and clocks."""

import math
from functools import partial

import numpy as np
from scipy.integrate import quad
from scipy.linalg import expm, logm

from dynot_lite.course.oracle.closed_forms import (
    NODES,
    WEIGHTS,
    as_laws,
    distance_squared,
    form,
    integral,
    inverse,
    path_moments,
    second_moment,
    squares,
    straight_energy,
)
from dynot_lite.course.oracle.compare import Check, altered, zero
from dynot_lite.course.oracle.draws import basis, coupled, law, laws, points, spectral
from dynot_lite.laws.gaussian import fm_kinetic_energy, geodesic

__all__ = ["CHECKS"]


# ------------------------------------------------------------------------------------- 1: the action of a Gaussian path


def lyapunov(S, right):
    """The solution of BS + SB = right as a linear system for the entries of B."""
    eye = np.eye(len(S))
    return np.linalg.solve(np.kron(eye, S) + np.kron(S, eye), right.ravel()).reshape(S.shape)


def true_slope(t, *data):
    _, S, _, gain = path_moments(t, *data)
    return lyapunov(S, gain + gain.T)


def regression_slope(t, *data):
    """The slope of E[X1 − X0 | X_t], which is not symmetric."""
    _, S, _, gain = path_moments(t, *data)
    return gain @ inverse(S)


def true_action(t, x, m0, S0, m1, S1, C, *, slope=true_slope, half=0.5, centred=True, sign=1.0):
    data = m0, S0, m1, S1, C
    m, S, dm, _ = path_moments(t, *data)
    B = slope(t, *data)
    return sign * ((x - m) @ dm + half * (form(x - m, B) - centred * np.trace(B @ S)))


def least_loss(m0, S0, m1, S1, C):
    """−½∫E|v_t|²dt."""

    def power(t):
        _, S, dm, _ = path_moments(t, m0, S0, m1, S1, C)
        return squares(dm) + second_moment(true_slope(t, m0, S0, m1, S1, C), 0 * m0, S)

    return -0.5 * integral(power)


draw_action = lambda rng, d, **options: (rng.uniform(0.2, 0.8), points(rng, d), *coupled(rng, d, **options))
ACTION_TRAPS = {
    "the slope of the velocity of flow matching is taken, which is not symmetric": partial(true_action, slope=regression_slope),
    "the mean of the action is not zero": partial(true_action, centred=False),
    "the quadratic part lacks its ½": partial(true_action, half=1.0),
    "the sign is wrong": partial(true_action, sign=-1.0),
}
NO_COUPLING = "the ends are taken to be independent"


# ---------------------------------------------------------------------------------------- 8: the best action that stands still


def stationary(kappa, m0, S0, m1, S1, C, *, slope=true_slope, symmetric=True):
    """Least squares, on nodes that are exact for the moments: a field Qx + q for the gradient field of the path."""
    d, data = len(m0), (m0, S0, m1, S1, C)
    pairs = [(i, j) for i in range(d) for j in range(i if symmetric else 0, d)]
    units = np.zeros((len(pairs), d, d))
    for k, (i, j) in enumerate(pairs):
        units[k, i, j] = 1
        if symmetric:
            units[k, j, i] = 1
    rows, right = [], []
    for t, weight in zip(NODES, WEIGHTS, strict=True):
        m, S, dm, _ = path_moments(t, *data)
        spread = math.sqrt(d) * np.linalg.cholesky(S).T
        x, root_weight = np.concatenate([m + spread, m - spread]), math.sqrt(weight * (1 - kappa * t))
        fields = np.concatenate([np.einsum("kij,nj->nik", units, x), np.broadcast_to(np.eye(d), (2 * d, d, d))], axis=2)
        rows.append(root_weight * fields.reshape(2 * d * d, -1))
        right.append(root_weight * (dm + (x - m) @ slope(t, *data).T).ravel())
    found = np.linalg.lstsq(np.concatenate(rows), np.concatenate(right), rcond=None)[0]
    return np.einsum("k,kij->ij", found[: len(pairs)], units), found[len(pairs) :]


def averaged(kappa, *data):
    """The mean in time of the slopes and offsets of the true fields."""

    def field(t):
        m, _, dm, _ = path_moments(t, *data)
        B = true_slope(t, *data)
        return (1 - kappa * t) / (1 - 0.5 * kappa) * np.column_stack([B, dm - B @ m])

    found = integral(field)
    return found[:, :-1], found[:, -1]


def no_slope_term(kappa, m0, S0, m1, S1, C):
    """The normal equations of the weighted loss without its term E w's: right if the weight is constant."""

    def moments(t):
        m, S, _, _ = path_moments(t, m0, S0, m1, S1, C)
        return (1 - kappa * t) * np.column_stack([S + np.outer(m, m), m])

    found, total = integral(moments), 1 - 0.5 * kappa
    P, mu = found[:, :-1], found[:, -1]
    linear = m0 - (1 - kappa) * m1
    quadratic = S0 + np.outer(m0, m0) - (1 - kappa) * (S1 + np.outer(m1, m1))
    mixed = np.outer(linear, mu) / total
    Q = lyapunov(P - np.outer(mu, mu) / total, mixed + mixed.T - quadratic)
    return Q, -(Q @ mu + linear) / total


def draw_stationary(rng, d, *, weighted=True):
    return float(rng.uniform(0.5, 1.0)) if weighted else 0.0, *coupled(rng, d)


STATIONARY_TRAPS = {
    "a field that is no gradient is fitted to X1 − X0": partial(stationary, slope=regression_slope, symmetric=False),
    "the fields of all times are averaged": averaged,
    NO_COUPLING: altered(stationary, C=zero),
}


# ------------------------------------------------------------------------------------------------- 9: dilations and clocks


def autonomous_energy(T, m, S):
    """Quadrature of E|v(X_t)|² along the flow exp(tA), A = log T."""
    A = logm(T).real
    return integral(lambda t: second_moment(A @ expm(t * A), m, S))


def draw_dilation(rng, d):
    return spectral(basis(rng, d), np.exp(rng.choice([-1.0, 1.0], d) * rng.uniform(0.6, 1.3, d))), *law(rng, d)


def slowness(kappa, t=1.0):
    """∫₀ᵗ ds/w(s) for w(s) = 1 + κs."""
    return quad(lambda s: 1 / (1 + kappa * s), 0, t)[0]


# The best clock has the speed 1/(w∫1/w), and its weighted energy is W₂²/∫1/w.
best_clock = lambda t, kappa: slowness(kappa, t) / slowness(kappa)
weighted_energy = lambda kappa, *ends: distance_squared(*ends) / slowness(kappa)


def law_at(t, kappa, *ends, clock=best_clock):
    """The mean and covariance on the geodesic at the time that a clock shows."""
    p = geodesic(*as_laws(*ends), clock(t, kappa))
    return p.mean.numpy(), p.cov.numpy()


def mixed_law(t, kappa, m0, S0, m1, S1):
    """Covariances are interpolated linearly."""
    s = best_clock(t, kappa)
    return (1 - s) * m0 + s * m1, (1 - s) * S0 + s * S1


CLOCK_TRAPS = {
    name: partial(law_at, clock=clock)
    for name, clock in {
        "the speed is constant": lambda t, kappa: t,
        "the clock goes in proportion to the weight": lambda t, kappa: (t + 0.5 * kappa * t**2) / (1 + 0.5 * kappa),
        "the clock goes in proportion to the inverse root of the weight": lambda t, kappa: (
            (math.sqrt(1 + kappa * t) - 1) / (math.sqrt(1 + kappa) - 1)
        ),
    }.items()
}


CHECKS = {
    "ps2-1": [
        Check("independent ends", 2, "true_action", partial(draw_action, correlated=False), true_action, ACTION_TRAPS, rows=1),
        Check("correlated ends", 3, "true_action", draw_action, true_action,
              ACTION_TRAPS | {NO_COUPLING: altered(true_action, C=zero)}, rows=1),
        Check("the least loss", 3, "least_loss", coupled, least_loss, {
            "the term −K is forgotten": lambda *a: 0.0,
            "the ½ is forgotten": lambda *a: 2 * least_loss(*a),
            "the minimum over optimal actions is taken": lambda *a: -0.5 * distance_squared(*a[:4]),
            "the velocity is X1 − X0 without conditioning": lambda *a: -0.5 * straight_energy(*a),
            "the velocity of flow matching is taken, which is no gradient": lambda *a: (
                -0.5 * fm_kinetic_energy(*as_laws(*a[:4]), cross_cov=a[4]).item()
            ),
            NO_COUPLING: altered(least_loss, C=zero),
        }),
    ],
    "ps2-8": [
        Check("without weights", 4, "best_stationary", partial(draw_stationary, weighted=False), stationary, STATIONARY_TRAPS),
        Check("with weights", 5, "best_stationary", draw_stationary, stationary, STATIONARY_TRAPS | {
            "the weights are ignored": altered(stationary, kappa=zero),
            "the derivative of the weight is forgotten": no_slope_term,
        }),
    ],
    "ps2-9": [
        Check("the autonomous field", 3, "autonomous_energy", draw_dilation, autonomous_energy, {
            "the field is taken to be optimal": lambda T, m, S: second_moment(T - np.eye(len(m)), m, S),
            "the law is taken to stand still": lambda T, m, S: second_moment(logm(T).real, m, S),
            "the mean is left out": altered(autonomous_energy, m=zero),
        }),
        Check("the least weighted energy", 2, "weighted_energy",
              lambda rng, d: (rng.uniform(1.0, 4.0), *laws(rng, d)), weighted_energy, {
            "the weight is taken not to matter": lambda kappa, *a: distance_squared(*a),
            "the speed is constant": lambda kappa, *a: (1 + 0.5 * kappa) * distance_squared(*a),
            "the mean of the inverse weight is multiplied": lambda kappa, *a: slowness(kappa) * distance_squared(*a),
        }),
        Check("the law on the way", 2, "best_law",
              lambda rng, d: (rng.uniform(0.3, 0.6), rng.uniform(1.5, 4.0), *laws(rng, d)), law_at,
              CLOCK_TRAPS | {"covariances are interpolated linearly": mixed_law}),
    ],
}  # fmt: skip
