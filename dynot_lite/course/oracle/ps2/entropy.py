"""Problem set 2, parts 10 and 11: entropic plans and Schrödinger bridges with a metric."""

from functools import partial

import numpy as np
from scipy.linalg import solve_continuous_are, sqrtm

from dynot_lite.course.oracle.closed_forms import form, inverse, monge_matrix, path_moments
from dynot_lite.course.oracle.compare import Check, altered
from dynot_lite.course.oracle.draws import covariance, laws, points

__all__ = ["CHECKS"]


def entropic_cross(S0, S1, A, epsilon):
    """The conditional law X1 | X0 has slope GA and covariance εG, and G(AS0A)G + εG = S1: a Riccati equation."""
    half = -0.5 * epsilon * np.eye(len(S0))
    G = solve_continuous_are(half, A @ np.linalg.cholesky(S0), S1, np.eye(len(S0)))
    return S0 @ A @ G


def plain_cost(m0, S0, m1, S1, C, A):
    return 0.5 * (form(m1 - m0, A) + np.trace(A @ (S0 + S1 - C - C.T)))


def information(S0, S1, C):
    """KL of the plan and the product of its marginals."""
    joint = np.block([[S0, C], [C.T, S1]])
    return 0.5 * (np.linalg.slogdet(S0)[1] + np.linalg.slogdet(S1)[1] - np.linalg.slogdet(joint)[1])


def entropic_cost(m0, S0, m1, S1, A, epsilon, *, plan=entropic_cross, entropy=True):
    C = plan(S0, S1, A, epsilon)
    return plain_cost(m0, S0, m1, S1, C, A) + (epsilon * information(S0, S1, C) if entropy else 0)


def sharp_cross(S0, S1, A, epsilon=0.0):
    """The optimal plan without entropy."""
    R = sqrtm(A).real
    zero = np.zeros(len(S0))
    return S0 @ (inverse(R) @ monge_matrix(zero, R @ S0 @ R, zero, R @ S1 @ R) @ R).T


def draw_entropic(rng, d, *, isotropic=False, means=False):
    m0, S0, m1, S1 = laws(rng, d)
    A = rng.choice([rng.uniform(0.4, 0.7), rng.uniform(1.6, 2.5)]) * np.eye(d) if isotropic else covariance(rng, d)
    return (*((m0, S0, m1, S1) if means else (S0, S1)), A, rng.uniform(0.5, 1.5))


CROSS_TRAPS = {
    "ε belongs to the cost without its ½": altered(entropic_cross, epsilon=lambda e: 0.5 * e),
    "the ½ of the cost is counted twice": altered(entropic_cross, epsilon=lambda e: 2 * e),
    "the metric is ignored": altered(entropic_cross, A=lambda A: np.eye(len(A))),
    "A and its inverse are exchanged": altered(entropic_cross, A=inverse),
    "the plan without entropy is taken": sharp_cross,
}
TRANSPOSE_TRAP = {"Cov(X1, X0) is returned": lambda *a: entropic_cross(*a).T}


def bridge_field(t, x, m0, S0, m1, S1, G, *, noise, plan=entropic_cross, metric=inverse, epsilon=1.0, width=1.0):
    """Regression, in the joint law of (X0, X1, Z), on X_t = (1 − t)X0 + tX1 + √(t(1 − t)) Γ^½ Z.

    Regressed is X1 − X0 plus a multiple of Γ^½ Z, whose covariance with X_t is ``noise(t)`` Γ.
    """
    mean, cov, velocity, gain = path_moments(t, m0, S0, m1, S1, plan(S0, S1, metric(G), epsilon))
    return velocity + (x - mean) @ np.linalg.solve(cov + width * t * (1 - t) * G, (gain + noise(t) * G).T)


# (X1 − X_t)/(1 − t) = X1 − X0 − √(t/(1 − t)) Γ^½ Z for the drift; for the current velocity, the derivative of √(t(1 − t)).
bridge_drift = partial(bridge_field, noise=lambda t: -t)
bridge_velocity = partial(bridge_field, noise=lambda t: 0.5 - t)
OTHER_PLANS = {
    "ε is that of the cost without its ½": {"epsilon": 0.5},
    "ε is twice the right one": {"epsilon": 2.0},
    "the bridges are put over the plan without entropy": {"plan": sharp_cross},
    "the metric of the cost is Γ, not its inverse": {"metric": np.copy},
}
NO_WIDTH = {"the variance of the Brownian bridges is left out": {"width": 0.0}}


def draw_bridge(rng, d, *, at=None):
    return rng.uniform(0.25, 0.75) if at is None else at, points(rng, d), *laws(rng, d), covariance(rng, d)


def traps_of(field, mistakes):
    return {name: partial(field, **options) for name, options in mistakes.items()}


CHECKS = {
    "ps2-10": [
        Check("a multiple of the identity", 1, "entropic_cross", partial(draw_entropic, isotropic=True), entropic_cross,
              CROSS_TRAPS),
        Check("any metric", 2, "entropic_cross", draw_entropic, entropic_cross, CROSS_TRAPS | TRANSPOSE_TRAP),
        Check("the cost", 2, "entropic_cost", partial(draw_entropic, means=True), entropic_cost, {
            "the entropy is left out": partial(entropic_cost, entropy=False),
            "the cost without entropy is taken": partial(entropic_cost, plan=sharp_cross, entropy=False),
            "the cost lacks its ½": lambda *a: 2 * entropic_cost(*a[:5], 0.5 * a[5]),
            "the means are left out": lambda m0, S0, m1, *a: entropic_cost(m0, S0, m0, *a),
        }),
    ],
    "ps2-11": [
        Check("the drift", 3, "bridge_drift", draw_bridge, bridge_drift, traps_of(bridge_drift, OTHER_PLANS | NO_WIDTH) | {
            "the current velocity is taken for the drift": bridge_velocity,
            "the score has the wrong sign": partial(bridge_field, noise=lambda t: 1 - t),
        }, rows=1),
        Check("the drift at time 1", 1, "bridge_drift", partial(draw_bridge, at=1.0), bridge_drift,
              traps_of(bridge_drift, OTHER_PLANS) | {"the current velocity is taken for the drift": bridge_velocity}, rows=1),
        Check("the current velocity", 2, "bridge_velocity", draw_bridge, bridge_velocity,
              traps_of(bridge_velocity, OTHER_PLANS | NO_WIDTH) | {
            "the drift is taken for the current velocity": bridge_drift,
            "the score has the wrong sign": partial(bridge_field, noise=lambda t: -0.5 - t),
            "the score lacks its ½": partial(bridge_field, noise=lambda t: 1 - t),
            "the bridges are not differentiated": partial(bridge_field, noise=lambda t: 0.0),
        }, rows=1),
    ],
}  # fmt: skip
