"""What is right, and what is known to go wrong, in problem set 1: continuity equation, Benamou–Brenier, Gaussian flow matching.

Right values come from the package's closed forms, from automatic differentiation, from SciPy, or from regression in the
joint law of all variables: never from the formula that a student is asked for.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.linalg import solve_continuous_lyapunov

from dynot_lite.course.oracle.compare import Check
from dynot_lite.laws.gaussian import Gaussian, fm_flow, fm_kinetic_energy, fm_velocity, monge_map, w2_squared
from dynot_lite.paths.continuity import gauss_legendre

__all__ = ["CHECKS"]

inverse = np.linalg.inv
NODES, WEIGHTS = (array.numpy() for array in gauss_legendre(60))


# ------------------------------------------------------------------------------------------------------- random instances


def points(rng, d):
    """A number of points that is no dimension, so that a batch is not taken for a matrix."""
    return 1.5 * rng.standard_normal((7, d))


def mean(rng, d):
    return rng.standard_normal(d)


def covariance(rng, d):
    """A random basis and a spectrum between 1/4 and 4."""
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
    return (basis * np.exp(rng.uniform(-1.4, 1.4, d))) @ basis.T


def law(rng, d):
    return mean(rng, d), covariance(rng, d)


def cross(rng, cov0, cov1):
    """A non-symmetric Cov(X0, X1) with a definite joint covariance."""
    kernel = rng.standard_normal(cov0.shape)
    kernel *= 0.7 / np.linalg.norm(kernel, 2)
    return np.linalg.cholesky(cov0) @ kernel @ np.linalg.cholesky(cov1).T


# ------------------------------------------------------------------------------------------- 1 and 3: heat flow as a path


def heat_law(t, m, S, c, G):
    return c + math.exp(-t) * (m - c), math.exp(-2 * t) * S + (1 - math.exp(-2 * t)) * G


def heat_velocity(t, x, m, S, c, G):
    """The score by automatic differentiation of the log-density."""
    place = torch.tensor(x, requires_grad=True)
    (score,) = torch.autograd.grad(Gaussian(*map(torch.from_numpy, heat_law(t, m, S, c, G))).log_prob(place).sum(), place)
    return -(x - c) - score.numpy() @ G


def draw_heat(rng, d, *, isotropic=False):
    noise = rng.uniform(0.4, 2.0) * np.eye(d) if isotropic else covariance(rng, d)
    return rng.uniform(0.2, 1.0), points(rng, d), *law(rng, d), mean(rng, d), noise


def with_heat(formula):
    """A trap from a formula in y = x − m_t, Σ_t and the data."""

    def trap(t, x, m, S, c, G):
        m_t, S_t = heat_law(t, m, S, c, G)
        return -(x - c) + formula(x, x - m_t, S_t, m, S, G)

    return trap


HEAT_TRAPS = {
    "the diffusion is left out": with_heat(lambda x, y, S_t, m, S, G: 0 * x),
    "the score has the wrong sign": with_heat(lambda x, y, S_t, m, S, G: -y @ inverse(S_t) @ G),
    "the law at time 0 stands for the law at time t": with_heat(lambda x, y, S_t, m, S, G: (x - m) @ inverse(S) @ G),
    "the score is halved": with_heat(lambda x, y, S_t, m, S, G: 0.5 * y @ inverse(S_t) @ G),
}
ORDER_TRAP = {"Γ and the inverse covariance are exchanged": with_heat(lambda x, y, S_t, m, S, G: y @ G @ inverse(S_t))}


def heat_power(t, m, S, c, G):
    """E‖v_t(X_t)‖² by Gauss–Hermite nodes, which are exact for quadratic functions."""
    x, weights = (a.numpy() for a in Gaussian(*map(torch.from_numpy, heat_law(t, m, S, c, G))).quadrature(2))
    return weights @ (heat_velocity(t, x, m, S, c, G) ** 2).sum(1)


def over_time(power, T):
    nodes, weights = (array.tolist() for array in gauss_legendre(24))
    return T * sum(w * power(T * s) for s, w in zip(nodes, weights, strict=True))


def heat_energy(m, S, c, G, T):
    return T * over_time(lambda t: heat_power(t, m, S, c, G), T)


def no_score_energy(m, S, c, G, T):
    def power(t):
        m_t, S_t = heat_law(t, m, S, c, G)
        return ((m_t - c) ** 2).sum() + np.trace(S_t)

    return T * over_time(power, T)


def heat_w2(m, S, c, G, T):
    return distance_squared(m, S, *heat_law(T, m, S, c, G))


def draw_heat_energy(rng, d, *, centred=False):
    m, S = law(rng, d)
    return m, S, m.copy() if centred else mean(rng, d), covariance(rng, d), rng.uniform(0.3, 0.7)


ENERGY_TRAPS = {
    "the path is not run through in unit time (a factor T is missing)": lambda m, S, c, G, T: heat_energy(m, S, c, G, T) / T,
    "the energy is taken to be W₂²": heat_w2,
    "the diffusion is left out": no_score_energy,
}


# ----------------------------------------------------------------------------------------------- 4: what the equation sees


def gradient_part(A, S):
    return solve_continuous_lyapunov(S, A @ S + S @ A.T)


def rotation_part(A, S):
    return (A - gradient_part(A, S)) @ S


def draw_slope(rng, d):
    return rng.standard_normal((d, d)), covariance(rng, d)


SYMMETRIC_TRAP, CONGRUENCE_TRAP = "the symmetric part of A is taken", "half the derivative of Σ times Σ⁻¹ is taken: not symmetric"


# -------------------------------------------------------------------------------------------------------- 6: a stopover


def distance_squared(m, S, n, R):
    return w2_squared(Gaussian(*map(torch.from_numpy, (m, S))), Gaussian(*map(torch.from_numpy, (n, R)))).item()


def legs(m0, S0, m, S, m1, S1):
    return distance_squared(m0, S0, m, S), distance_squared(m, S, m1, S1)


def stopover_energy(m0, S0, m, S, m1, S1, s):
    first, second = legs(m0, S0, m, S, m1, S1)
    return first / s + second / (1 - s)


def best_stopover(m0, S0, m, S, m1, S1):
    first, second = (math.sqrt(leg) for leg in legs(m0, S0, m, S, m1, S1))
    return first / (first + second), (first + second) ** 2


def draw_legs(rng, d, *, time=False):
    return *law(rng, d), *law(rng, d), *law(rng, d), *([rng.uniform(0.2, 0.8)] if time else [])


def squared_stop(*laws):
    first, second = legs(*laws)
    return first / (first + second), stopover_energy(*laws, first / (first + second))


# ---------------------------------------------------------------------------------------- 7 and 8: an interpolant with noise


def noisy_joint(t, m0, S0, m1, S1, C, sigma):
    """Mean and covariance of (X_t, dX_t/dt), as the image of the law of (X0, X1, Z)."""
    d, eye = len(m0), np.eye(len(m0))
    zero = np.zeros((d, d))
    joint = np.block([[S0, C, zero], [C.T, S1, zero], [zero, zero, eye]])
    image = np.block([[(1 - t) * eye, t * eye, sigma * t * (1 - t) * eye], [-eye, eye, sigma * (1 - 2 * t) * eye]])
    return image @ np.concatenate([m0, m1, 0 * m0]), image @ joint @ image.T


def noisy_velocity(t, x, m0, S0, m1, S1, C, sigma):
    d = len(m0)
    mean_, cov = noisy_joint(t, m0, S0, m1, S1, C, sigma)
    return mean_[d:] + (x - mean_[:d]) @ np.linalg.solve(cov[:d, :d], cov[:d, d:])


def wrong_noise(t, x, m0, S0, m1, S1, C, sigma, *, in_cov, in_cross):
    d, noise = len(m0), sigma**2 * t * (1 - t) * np.eye(len(m0))
    mean_, cov = noisy_joint(t, m0, S0, m1, S1, C, 0.0)
    slope = np.linalg.solve(cov[:d, :d] + in_cov * t * (1 - t) * noise, cov[:d, d:] + in_cross * (1 - 2 * t) * noise)
    return mean_[d:] + (x - mean_[:d]) @ slope


def draw_noisy(rng, d, *, correlated=True, at=None):
    (m0, S0), (m1, S1) = law(rng, d), law(rng, d)
    C = cross(rng, S0, S1) if correlated else np.zeros((d, d))
    # Away from 1/2, where the derivative of the noise vanishes.
    t = rng.choice([rng.uniform(0.12, 0.3), rng.uniform(0.7, 0.88)]) if at is None else at
    return float(t), points(rng, d), m0, S0, m1, S1, C, rng.uniform(1.5, 3.0)


NOISE_TRAPS = {
    "the noise is missing in the covariance": lambda *a: wrong_noise(*a, in_cov=0, in_cross=1),
    "the derivative of the noise is missing": lambda *a: wrong_noise(*a, in_cov=1, in_cross=0),
    "the noise is left out": lambda *a: wrong_noise(*a, in_cov=0, in_cross=0),
    "the derivative is averaged without conditioning": lambda t, x, m0, S0, m1, *_: np.broadcast_to(m1 - m0, x.shape),
}
CORRELATION_TRAPS = {
    "Cov(X0, X1) and its transpose are exchanged": lambda t, x, m0, S0, m1, S1, C, s: noisy_velocity(
        t, x, m0, S0, m1, S1, C.T, s
    ),
    "the ends are taken to be independent": lambda t, x, m0, S0, m1, S1, C, s: noisy_velocity(t, x, m0, S0, m1, S1, 0 * C, s),
}


def loss_floor(m0, S0, m1, S1, C, sigma):
    """The trace of the conditional covariance of dX_t/dt, a Schur complement, integrated over time."""
    d, total = len(m0), 0.0
    for t, weight in zip(NODES, WEIGHTS, strict=True):
        cov = noisy_joint(t, m0, S0, m1, S1, C, sigma)[1]
        total += weight * np.trace(cov[d:, d:] - cov[d:, :d] @ np.linalg.solve(cov[:d, :d], cov[:d, d:]))
    return total


def mean_square(m0, S0, m1, S1, C, sigma):
    return ((m1 - m0) ** 2).sum() + np.trace(S0 + S1 - C - C.T) + sigma**2 * len(m0) / 3


def draw_floor(rng, d, *, correlated=True):
    return draw_noisy(rng, d, correlated=correlated)[2:]


FLOOR_TRAPS = {
    "the minimum is taken to be 0": lambda *a: 0.0,
    "the derivative is not conditioned": mean_square,
    "the energy of v is taken to be W₂²": lambda m0, S0, m1, S1, C, s: (
        mean_square(m0, S0, m1, S1, C, s) - distance_squared(m0, S0, m1, S1)
    ),
    "the noise is left out": lambda m0, S0, m1, S1, C, s: loss_floor(m0, S0, m1, S1, C, 0.0),
    "the squared distance of the means is added": lambda m0, S0, m1, S1, C, s: (
        loss_floor(m0, S0, m1, S1, C, s) + ((m1 - m0) ** 2).sum()
    ),
}
FLOOR_CORRELATION_TRAPS = {
    "Cov(X0, X1) and its transpose are exchanged in the velocity": lambda m0, S0, m1, S1, C, s: loss_floor(
        m0, S0, m1, S1, C.T, s
    ),
    "the ends are taken to be independent": lambda m0, S0, m1, S1, C, s: loss_floor(m0, S0, m1, S1, 0 * C, s),
}


# ------------------------------------------------------------------------------------------------------- 9: rectification


def as_laws(m0, S0, m1, S1):
    return Gaussian(*map(torch.from_numpy, (m0, S0))), Gaussian(*map(torch.from_numpy, (m1, S1)))


def straight_velocity(matrix, t, x, m0, m1):
    d = len(m0)
    start = np.linalg.solve((1 - t) * np.eye(d) + t * matrix, (x - (1 - t) * m0 - t * m1).T).T
    return m1 - m0 + start @ (matrix - np.eye(d)).T


def rectified_velocity(t, x, m0, S0, m1, S1):
    return straight_velocity(fm_flow(*as_laws(m0, S0, m1, S1), 1.0).matrix.numpy(), t, x, m0, m1)


def rectified_energy(m0, S0, m1, S1):
    move = fm_flow(*as_laws(m0, S0, m1, S1), 1.0).matrix.numpy() - np.eye(len(m0))
    return ((m1 - m0) ** 2).sum() + np.trace(move @ S0 @ move.T)


def frozen_velocity(t, x, m0, S0, m1, S1):
    return m1 - m0 + (x - m0) @ (fm_flow(*as_laws(m0, S0, m1, S1), 1.0).matrix.numpy() - np.eye(len(m0))).T


def draw_ends(rng, d):
    return *law(rng, d), *law(rng, d)


# ------------------------------------------------------------------------------------------------ 11: regression on samples


def regress(x0, x1, t, *, factor=math.pi / 2, intercept=True, linear=False):
    """Least squares by the normal equations of the centred data."""
    c, s = math.cos(math.pi * t / 2), math.sin(math.pi * t / 2)
    place, target = c * x0 + s * x1, factor * (c * x1 - s * x0)
    if linear:
        place, target = (1 - t) * x0 + t * x1, x1 - x0
    centre, goal = (place.mean(0), target.mean(0)) if intercept else (0.0, 0.0)
    y = place - centre
    matrix = np.linalg.solve(y.T @ y, y.T @ (target - goal)).T
    return matrix, goal - matrix @ centre if intercept else np.zeros(x0.shape[1])


def push(x, x0, x1, steps, *, late=False, **options):
    for k in range(int(steps)):
        matrix, offset = regress(x0, x1, (k + late) / steps, **options)
        x = x + (x @ matrix.T + offset) / steps
    return x


def draw_pairs(rng, d):
    noise = rng.standard_normal((41, d))
    return noise + mean(rng, d), mean(rng, d) + rng.standard_normal((41, d)) @ rng.standard_normal((d, d)) + 0.5 * noise**2


REGRESSION_TRAPS = {
    "the derivative lacks the factor π/2": {"factor": 1.0},
    "the regression has no constant": {"intercept": False},
    "the path is the linear one": {"linear": True},
}


def option(function, **options):
    return lambda *arguments: function(*arguments, **options)


CHECKS = {
    "ps1-1": [
        Check("isotropic noise", 3, "heat_velocity", option(draw_heat, isotropic=True), heat_velocity, HEAT_TRAPS, rows=1),
        Check("any noise", 5, "heat_velocity", draw_heat, heat_velocity, HEAT_TRAPS | ORDER_TRAP, rows=1),
    ],
    "ps1-3": [
        Check("centred laws", 4, "heat_energy", option(draw_heat_energy, centred=True), heat_energy, ENERGY_TRAPS),
        Check(
            "laws with means", 4, "heat_energy", draw_heat_energy, heat_energy,
            ENERGY_TRAPS | {"the means are left out": lambda m, S, c, G, T: heat_energy(m, S, m, G, T)},
        ),
    ],
    "ps1-4": [
        Check(
            "the gradient part", 6, "gradient_part", draw_slope, gradient_part,
            {
                SYMMETRIC_TRAP: lambda A, S: 0.5 * (A + A.T),
                CONGRUENCE_TRAP: lambda A, S: 0.5 * (A @ S + S @ A.T) @ inverse(S),
            },
        ),
        Check(
            "the invisible part", 4, "rotation_part", draw_slope, rotation_part,
            {
                "the factor Σ⁻¹ is forgotten": lambda A, S: A - gradient_part(A, S),
                SYMMETRIC_TRAP: lambda A, S: 0.5 * (A - A.T) @ S,
                CONGRUENCE_TRAP: lambda A, S: 0.5 * (A @ S - S @ A.T),
            },
            dimensions=(2, 3, 5),
        ),
    ],
    "ps1-6": [
        Check(
            "the energy with a stopover", 4, "stopover_energy", option(draw_legs, time=True), stopover_energy,
            {
                "the two squared distances are added without their clocks": lambda *a: sum(legs(*a[:-1])),
                "the squared distances are multiplied by the durations": lambda *a: (
                    np.dot(legs(*a[:-1]), (a[-1], 1 - a[-1]))
                ),
                "the stopover is ignored": lambda *a: distance_squared(*a[:2], *a[4:6]),
            },
        ),
        Check(
            "the best moment", 4, "best_stopover", draw_legs, best_stopover,
            {
                "time is split in proportion to the squared distances": squared_stop,
                "half of the time goes to each leg": lambda *a: (0.5, stopover_energy(*a, 0.5)),
            },
        ),
    ],
    "ps1-7": [
        Check(
            "independent ends", 3, "noisy_velocity", option(draw_noisy, correlated=False), noisy_velocity, NOISE_TRAPS, rows=1
        ),
        Check(
            "correlated ends", 5, "noisy_velocity", draw_noisy, noisy_velocity, NOISE_TRAPS | CORRELATION_TRAPS, rows=1
        ),
        *(
            Check(
                f"at time {t:g}", 1, "noisy_velocity", option(draw_noisy, at=t), noisy_velocity, CORRELATION_TRAPS, rows=1
            )
            for t in (0.0, 1.0)
        ),
    ],
    "ps1-8": [
        Check("independent ends", 3, "loss_floor", option(draw_floor, correlated=False), loss_floor, FLOOR_TRAPS),
        Check("correlated ends", 5, "loss_floor", draw_floor, loss_floor, FLOOR_TRAPS | FLOOR_CORRELATION_TRAPS),
    ],
    "ps1-9": [
        Check(
            "the velocity", 6, "rectified_velocity",
            lambda rng, d: (rng.uniform(0.2, 0.8), points(rng, d), *draw_ends(rng, d)), rectified_velocity,
            {
                "the optimal map is taken for the end of the flow": lambda t, x, *laws: straight_velocity(
                    monge_map(*as_laws(*laws)).matrix.numpy(), t, x, laws[0], laws[2]
                ),
                "the displacement is evaluated at x, not at the point where the line through x starts": frozen_velocity,
                "the coupling is still the independent one": lambda t, x, *laws: fm_velocity(*as_laws(*laws), t, x).numpy(),
            },
            rows=1,
        ),
        Check(
            "the energy", 4, "rectified_energy", draw_ends, rectified_energy,
            {
                "the energy is taken to be W₂²": distance_squared,
                "the energy of the independent coupling is taken": lambda *a: fm_kinetic_energy(*as_laws(*a)).item(),
                "the means are left out": lambda m0, S0, m1, S1: rectified_energy(m0, S0, m0, S1),
            },
        ),
    ],
    "ps1-11": [
        Check(
            "the regression", 5, "fit_field", lambda rng, d: (*draw_pairs(rng, d), rng.uniform(0.2, 0.8)), regress,
            {name: option(regress, **options) for name, options in REGRESSION_TRAPS.items()},
            dimensions=(2, 3, 5),
        ),
        Check(
            "the transport", 5, "push", lambda rng, d: (points(rng, d), *draw_pairs(rng, d), int(rng.integers(5, 9))), push,
            {name: option(push, **options) for name, options in REGRESSION_TRAPS.items()}
            | {"the steps use the time of their end": option(push, late=True)},
            rows=0,
            dimensions=(2, 3, 5),
        ),
    ],
}  # fmt: skip
