"""Problem set 2, parts 3 and 4: Hopf–Lax evolutions, with a metric, and of a convex potential."""

from functools import partial

import numpy as np
from scipy.linalg import eigh
from scipy.optimize import root

from dynot_lite.course.oracle.closed_forms import form, inverse, squares
from dynot_lite.course.oracle.compare import Check, altered, zero
from dynot_lite.course.oracle.draws import basis, covariance, mean, points, spectral

__all__ = ["CHECKS"]


# ------------------------------------------------------------------------------------------- 3: Hopf–Lax with a metric


def metric_action(t, x, Q, q, A):
    """By characteristics: x = z + tAp with p = ∇s_0(z), and s grows by ½⟨p, Ap⟩ per time along them."""
    z = np.linalg.solve(np.eye(len(q)) + t * A @ Q, (x - t * A @ q).T).T
    p = z @ Q + q
    return 0.5 * form(z, Q) + z @ q + 0.5 * t * form(p, A)


def lifespan(Q, A):
    """A⁻¹ + TQ is singular for the first time: the generalised eigenvalue problem Qx = λA⁻¹x."""
    return -1 / eigh(Q, inverse(A), eigvals_only=True)[0]


def swapped_metric_action(t, x, Q, q, A):
    """The closed form with the factors AQ in the wrong order."""
    B = inverse(np.eye(len(q)) + t * Q @ A)
    return 0.5 * form(x, Q @ B) + x @ B.T @ q - 0.5 * t * q @ B @ A @ q


def draw_quadratic(rng, d):
    """A symmetric Q with eigenvalues of both signs (in one dimension a negative one), so that the lifespan is finite."""
    values = rng.uniform(-0.5, 1.8, d)
    values[0] = rng.uniform(-1.2, -0.5)
    return spectral(basis(rng, d), values), covariance(rng, d)


def draw_metric(rng, d, *, at=None):
    Q, A = draw_quadratic(rng, d)
    return rng.uniform(0.25, 0.6) * lifespan(Q, A) if at is None else at, points(rng, d), Q, mean(rng, d), A


def late(function, end):
    """The function at twice the time, if that is before the end."""

    def changed(t, x, *data):
        if 2 * t >= end(*data):
            raise ValueError("this need not have a value")
        return function(2 * t, x, *data)

    return changed


# -------------------------------------------------------------------------- 4: the optimal action of a convex potential


def curved(z, M, c, kappa):
    """The potential and its gradient."""
    w = np.sqrt(1 + squares(z - c))
    return 0.5 * form(z, M) + kappa * w, z @ M + kappa * (z - c) / w[..., None]


def start(t, x, *data, keep=1.0):
    """The points z with (1 − keep t) z + t∇Ψ(z) = x, one root-finding problem each."""
    found = []
    for point in x:
        equation = lambda z, point=point: (1 - keep * t) * z + t * curved(z, *data)[1] - point
        solution = root(equation, point, tol=1e-13)
        if np.abs(equation(solution.x)).max() > 1e-9:
            raise ValueError("not solved")
        found.append(solution.x)
    return np.array(found)


def curved_velocity(t, x, *data):
    z = start(t, x, *data)
    return curved(z, *data)[1] - z


def curved_action(t, x, *data):
    z = start(t, x, *data)
    value, slope = curved(z, *data)
    return value - 0.5 * squares(z) + 0.5 * t * squares(slope - z)


def frozen_action(t, x, *data):
    value, slope = curved(x, *data)
    return value - 0.5 * squares(x) - 0.5 * t * squares(slope - x)


def envelope(t, x, *data):
    """The Hopf–Lax evolution of Ψ itself."""
    value, slope = curved(start(t, x, *data, keep=0.0), *data)
    return value + 0.5 * t * squares(slope)


def draw_curved(rng, d, *, at=None):
    return rng.uniform(0.25, 0.75) if at is None else at, points(rng, d), covariance(rng, d), mean(rng, d), rng.uniform(1, 3)


CHECKS = {
    "ps2-3": [
        Check("the action", 2, "metric_action", draw_metric, metric_action, {
            "the equation lacks its ½": late(metric_action, lambda Q, q, A: lifespan(Q, A)),
            "the metric is ignored": altered(metric_action, A=lambda A: np.eye(len(A))),
            "A and its inverse are exchanged": altered(metric_action, A=inverse),
            "A and Q are in the wrong order": swapped_metric_action,
            "the linear term is forgotten": altered(metric_action, q=zero),
        }, rows=1),
        Check("the action at time 0", 1, "metric_action", partial(draw_metric, at=0.0), metric_action, rows=1),
        Check("the lifespan", 2, "lifespan", draw_quadratic, lifespan, {
            "the metric is ignored": altered(lifespan, A=lambda A: np.eye(len(A))),
            "A and its inverse are exchanged": altered(lifespan, A=inverse),
            "the eigenvalue of largest modulus is taken": lambda Q, A: 1 / np.abs(eigh(Q, inverse(A), eigvals_only=True)).max(),
            "the equation lacks its ½": lambda Q, A: 0.5 * lifespan(Q, A),
        }),
    ],
    "ps2-4": [
        Check("the velocity", 4, "optimal_velocity", draw_curved, curved_velocity, {
            "the velocity is evaluated at x, not at the point where the line through x starts": altered(curved_velocity, t=zero),
            "Ψ evolves, not Ψ − ½|x|²": lambda t, x, *a: curved(start(t, x, *a, keep=0.0), *a)[1],
            "the equation lacks its ½": late(curved_velocity, lambda *_: 1.0),
            "the sign is wrong": lambda *a: -curved_velocity(*a),
            "the point z is returned": start,
        }, rows=1),
        Check("the action", 3, "optimal_action", draw_curved, curved_action, {
            "the value is expanded at x, not at the point where the line through x starts": frozen_action,
            "Ψ evolves, not Ψ − ½|x|²": envelope,
            "the equation lacks its ½": late(curved_action, lambda *_: 1.0),
            "the sign is wrong": lambda *a: -curved_action(*a),
        }, rows=1),
        *(
            Check(f"the action at time {t:g}", 1, "optimal_action", partial(draw_curved, at=t), curved_action, rows=1)
            for t in (0.0, 1.0)
        ),
    ],
}  # fmt: skip
