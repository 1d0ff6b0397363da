"""What is right, and what is known to go wrong, in problem set 1: continuity equation, Benamou–Brenier, Gaussian flow matching.

Right values come from automatic differentiation, and from particles: a few points that have the mean and covariance of the law,
moved by their definition, differenced in time, and fitted by least squares. No formula that a student is asked for is used, nor a
covariance of an interpolant; closed forms are here for the traps only. A test measures how far both agree.
"""

import math
from functools import partial

import numpy as np
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import solve_continuous_are
from scipy.optimize import minimize_scalar

from dynot_lite.companion.numerics import cubature, difference
from dynot_lite.course.oracle.closed_forms import (
    as_laws,
    by_sums,
    distance_squared,
    integral,
    inverse,
    monge_matrix,
    path_moments,
    squares,
    straight_energy,
)
from dynot_lite.course.oracle.compare import Check, altered, zero
from dynot_lite.course.oracle.draws import coupled, covariance, law, laws, mean, points
from dynot_lite.laws.gaussian import Gaussian, fm_kinetic_energy, fm_velocity

__all__ = ["CHECKS"]


# ----------------------------------------------------------------------------------------------------------- particles


def particles(m, S):
    """Points of equal weight, one per row, that have this mean and covariance."""
    return cubature(torch.from_numpy(m), torch.from_numpy(S)).numpy()


def affine_fit(place, target):
    """The matrix and offset of least squares for target ≈ place Aᵀ + b, and what is left over at each particle."""
    design = np.column_stack([place, np.ones(len(place))])
    found = np.linalg.lstsq(design, target, rcond=None)[0]
    return found[:-1].T, found[-1], target - design @ found


def rate(path, t, h=1e-2):
    """The derivative at t of a path that is a polynomial of degree two at most: for it this difference has no error."""
    return (path(t + h) - path(t - h)) / (2 * h)


# ------------------------------------------------------------------------------------------- 1 and 3: heat flow as a path


def heat_law(t, m, S, c, G):
    return c + math.exp(-t) * (m - c), math.exp(-2 * t) * S + (1 - math.exp(-2 * t)) * G


def heat_velocity(t, x, m, S, c, G):
    """The score by automatic differentiation of the log-density."""
    place = torch.tensor(x, requires_grad=True)
    (score,) = torch.autograd.grad(Gaussian(*heat_law(t, m, S, c, G)).log_prob(place).sum(), place)
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


NO_DIFFUSION = "the diffusion is left out"
HEAT_TRAPS = {
    NO_DIFFUSION: with_heat(lambda x, y, S_t, m, S, G: 0 * x),
    "the score has the wrong sign": with_heat(lambda x, y, S_t, m, S, G: -y @ inverse(S_t) @ G),
    "the law at time 0 stands for the law at time t": with_heat(lambda x, y, S_t, m, S, G: (x - m) @ inverse(S) @ G),
    "the score is halved": with_heat(lambda x, y, S_t, m, S, G: 0.5 * y @ inverse(S_t) @ G),
}
ORDER_TRAP = {"Γ and the inverse covariance are exchanged": with_heat(lambda x, y, S_t, m, S, G: y @ G @ inverse(S_t))}


def heat_energy(m, S, c, G, T, *, velocity=heat_velocity, rule=None):
    """E‖v_t(X_t)‖² by Gauss–Hermite nodes, which are exact for quadratic functions."""

    def power(t):
        x, weights = (a.numpy() for a in Gaussian(*heat_law(t, m, S, c, G)).quadrature(2))
        return weights @ squares(velocity(t, x, m, S, c, G))

    return T**2 * integral(lambda s: power(T * s), 24, rule)


def draw_heat_energy(rng, d, *, centred=False):
    m, S = law(rng, d)
    return m, S, m.copy() if centred else mean(rng, d), covariance(rng, d), rng.uniform(0.3, 0.7)


ENERGY_TRAPS = {
    "the path is not run through in unit time (a factor T is missing)": lambda m, S, c, G, T: heat_energy(m, S, c, G, T) / T,
    "the energy is taken to be W₂²": lambda m, S, c, G, T: distance_squared(m, S, *heat_law(T, m, S, c, G)),
    NO_DIFFUSION: partial(heat_energy, velocity=HEAT_TRAPS[NO_DIFFUSION]),
}


# ----------------------------------------------------------------------------------------------- 4: what the equation sees


def gradient_part(A, S):
    """The gradient field nearest to x ↦ Ax in the mean square: least squares over symmetric matrices, with no equation solved."""
    x, d = particles(np.zeros(len(S)), S), len(S)
    units = np.zeros((d, d, d, d))
    for i in range(d):
        for j in range(i, d):
            units[i, j, i, j] = units[i, j, j, i] = 1
    units = units[np.triu_indices(d)]
    fields = np.einsum("kij,nj->nik", units, x).reshape(-1, len(units))
    return np.einsum("k,kij->ij", np.linalg.lstsq(fields, (x @ A.T).ravel(), rcond=None)[0], units)


def rotation_part(A, S):
    """E[w Xᵀ] of the rest w = Ax − Bx = KΣ⁻¹x."""
    x = particles(np.zeros(len(S)), S)
    return (x @ (A - gradient_part(A, S)).T).T @ x / len(x)


draw_slope = lambda rng, d: (rng.standard_normal((d, d)), covariance(rng, d))
SYMMETRIC_TRAP, CONGRUENCE_TRAP = "the symmetric part of A is taken", "half the derivative of Σ times Σ⁻¹ is taken: not symmetric"


# -------------------------------------------------------------------------------------------------------- 6: a stopover


def legs(m0, S0, m, S, m1, S1):
    return distance_squared(m0, S0, m, S), distance_squared(m, S, m1, S1)


def two_legs(m0, S0, m, S, m1, S1):
    """The particles at the times 0, s and 1. The slope of a leg is the definite solution T of a Riccati equation, TS₀T = S."""

    def slope(start, end):
        return solve_continuous_are(0 * start, np.linalg.cholesky(start), end, np.eye(len(start)))

    first = particles(m0, S0)
    middle = m + (first - m0) @ slope(S0, S).T
    return first, middle, m1 + (middle - m) @ slope(S, S1).T


def travel(t, s, first, middle, last):
    """Where the particles are at time t, with the stopover at time s."""
    return first + (middle - first) * t / s if t <= s else middle + (last - middle) * (t - s) / (1 - s)


def travel_energy(s, *places):
    """The mean square speed of the particles, differenced in each leg and summed over both. No distance of laws is used."""
    speed = lambda t: squares(rate(lambda r: travel(r, s, *places), t, h=1e-3 * min(s, 1 - s))).mean()
    return s * speed(0.5 * s) + (1 - s) * speed(0.5 * (1 + s))


def stopover_energy(*data):
    return travel_energy(data[-1], *two_legs(*data[:-1]))


def best_stopover(*three):
    """By minimisation over the moment."""
    options = {"bounds": (1e-3, 1 - 1e-3), "method": "bounded", "options": {"xatol": 1e-10}}
    best = minimize_scalar(travel_energy, args=two_legs(*three), **options)
    return best.x, best.fun


def two_leg_energy(first, second, s):
    return first / s + second / (1 - s)


def squared_stop(*three):
    first, second = legs(*three)
    return first / (first + second), two_leg_energy(first, second, first / (first + second))


draw_legs = lambda rng, d: (*laws(rng, d), *law(rng, d))


# ---------------------------------------------------------------------------------------- 7 and 8: an interpolant with noise


def noisy_ends(m0, S0, m1, S1, C, sigma):
    """Particles of (X_0, X_1, σZ), jointly."""
    d, zero = len(m0), 0 * S0
    joint = np.block([[S0, C, zero], [C.T, S1, zero], [zero, zero, np.eye(d)]])
    x0, x1, z = np.split(particles(np.concatenate([m0, m1, 0 * m0]), joint), 3, axis=1)
    return x0, x1, sigma * z


def noisy_regression(t, x0, x1, noise):
    """Least squares for dX_t/dt, affine in X_t, over the particles."""
    path = lambda r: (1 - r) * x0 + r * x1 + r * (1 - r) * noise
    return affine_fit(path(t), rate(path, t))


def noisy_velocity(t, x, *data):
    matrix, offset, _ = noisy_regression(t, *noisy_ends(*data))
    return x @ matrix.T + offset


def wrong_noise(t, x, m0, S0, m1, S1, C, sigma, *, in_cov, in_cross):
    noise = sigma**2 * t * (1 - t) * np.eye(len(m0))
    centre, cov, speed, gain = path_moments(t, m0, S0, m1, S1, C)
    slope = np.linalg.solve(cov + in_cov * t * (1 - t) * noise, (gain + in_cross * (1 - 2 * t) * noise).T)
    return speed + (x - centre) @ slope


def draw_noisy(rng, d, *, correlated=True, at=None):
    # Away from 1/2, where the derivative of the noise vanishes.
    t = rng.choice([rng.uniform(0.12, 0.3), rng.uniform(0.7, 0.88)]) if at is None else at
    return float(t), points(rng, d), *coupled(rng, d, correlated=correlated), rng.uniform(1.5, 3.0)


NOISE_TRAPS = {
    "the noise is missing in the covariance": partial(wrong_noise, in_cov=0, in_cross=1),
    "the derivative of the noise is missing": partial(wrong_noise, in_cov=1, in_cross=0),
    "the noise is left out": partial(wrong_noise, in_cov=0, in_cross=0),
    "the derivative is averaged without conditioning": lambda t, x, m0, S0, m1, *_: np.broadcast_to(m1 - m0, x.shape),
}
INDEPENDENT_TRAP = "the ends are taken to be independent"
CORRELATION_TRAPS = {
    "Cov(X0, X1) and its transpose are exchanged": lambda *a: noisy_velocity(*a[:6], a[6].T, a[7]),
    INDEPENDENT_TRAP: lambda *a: noisy_velocity(*a[:6], 0 * a[6], a[7]),
}


def loss_floor(*data, rule=None):
    """What least squares leaves over, in the mean over the particles, integrated over time."""
    ends = noisy_ends(*data)
    return integral(lambda t: squares(noisy_regression(t, *ends)[2]).mean(), rule=rule)


def mean_square(*data):
    """E|dX_t/dt|², averaged over time."""
    return straight_energy(*data[:-1]) + data[-1] ** 2 * len(data[0]) / 3


draw_floor = lambda rng, d, **options: draw_noisy(rng, d, **options)[2:]
FLOOR_TRAPS = {
    "the minimum is taken to be 0": lambda *a: 0.0,
    "the derivative is not conditioned": mean_square,
    "the energy of v is taken to be W₂²": lambda *a: mean_square(*a) - distance_squared(*a[:4]),
    "the noise is left out": lambda *a: loss_floor(*a[:-1], 0.0),
    "the squared distance of the means is added": lambda *a: loss_floor(*a) + squares(a[2] - a[0]),
}
FLOOR_CORRELATION_TRAPS = {
    "Cov(X0, X1) and its transpose are exchanged in the velocity": lambda *a: loss_floor(*a[:4], a[4].T, a[5]),
    INDEPENDENT_TRAP: lambda *a: loss_floor(*a[:4], 0 * a[4], a[5]),
}


# ------------------------------------------------------------------------------------------------------- 9: rectification


def rectified_ends(m0, S0, m1, S1):
    """Particles at the start and at the end of the flow, by integrating the velocity that regression gives at each time."""
    ends, start = noisy_ends(m0, S0, m1, S1, 0 * S0, 0.0), particles(m0, S0)

    def slope(t, x):
        matrix, offset, _ = noisy_regression(t, *ends)
        return (x.reshape(start.shape) @ matrix.T + offset).ravel()

    path = solve_ivp(slope, (0, 1), start.ravel(), method="DOP853", rtol=1e-12, atol=1e-13)
    return start, path.y[:, -1].reshape(start.shape)


def monge_ends(m0, S0, m1, S1):
    """The same for the optimal map."""
    start = particles(m0, S0)
    return start, m1 + (start - m0) @ monge_matrix(m0, S0, m1, S1).T


def rectified_velocity(t, x, m0, S0, m1, S1, *, ends=rectified_ends):
    """Least squares for X_1' − X_0, affine in (1 − t)X_0 + tX_1', over the particles."""
    first, last = ends(m0, S0, m1, S1)
    matrix, offset, _ = affine_fit((1 - t) * first + t * last, last - first)
    return x @ matrix.T + offset


def rectified_energy(*laws, ends=rectified_ends):
    first, last = ends(*laws)
    return squares(last - first).mean()


def stepped_ends(m0, S0, m1, S1, steps=100):
    """The same for the end of the flow by Heun's method."""
    slope = lambda t: (t * S1 - (1 - t) * S0) @ inverse((1 - t) ** 2 * S0 + t**2 * S1)
    M, start = np.eye(len(m0)), particles(m0, S0)
    for k in range(steps):
        first = slope(k / steps) @ M
        M = M + (first + slope((k + 1) / steps) @ (M + first / steps)) / (2 * steps)
    return start, m1 + (start - m0) @ M.T


by_steps = lambda function: {"by Heun's method with 100 steps": partial(function, ends=stepped_ends)}


# ------------------------------------------------------------------------------------------------ 11: regression on samples


def fit_field(x0, x1, t):
    """The path is differenced, not differentiated."""
    path = lambda r: math.cos(math.pi * r / 2) * x0 + math.sin(math.pi * r / 2) * x1
    return affine_fit(path(t), difference(lambda h: path(t + h)))[:2]


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


def push(x, x0, x1, steps, *, late=False, field=fit_field):
    for k in range(int(steps)):
        matrix, offset = field(x0, x1, (k + late) / steps)
        x = x + (x @ matrix.T + offset) / steps
    return x


def draw_pairs(rng, d):
    noise = rng.standard_normal((41, d))
    return noise + mean(rng, d), mean(rng, d) + rng.standard_normal((41, d)) @ rng.standard_normal((d, d)) + 0.5 * noise**2


REGRESSION_TRAPS = {
    "the derivative lacks the factor π/2": partial(regress, factor=1.0),
    "the regression has no constant": partial(regress, intercept=False),
    "the path is the linear one": partial(regress, linear=True),
}


CHECKS = {
    "ps1-1": [
        Check("isotropic noise", 2, "heat_velocity", partial(draw_heat, isotropic=True), heat_velocity, HEAT_TRAPS, rows=1),
        Check("any noise", 3, "heat_velocity", draw_heat, heat_velocity, HEAT_TRAPS | ORDER_TRAP, rows=1),
    ],
    "ps1-3": [
        Check("centred laws", 3, "heat_energy", partial(draw_heat_energy, centred=True), heat_energy, ENERGY_TRAPS,
              approximations=by_sums(heat_energy)),
        Check("laws with means", 3, "heat_energy", draw_heat_energy, heat_energy,
              ENERGY_TRAPS | {"the means are left out": lambda m, S, c, G, T: heat_energy(m, S, m, G, T)},
              approximations=by_sums(heat_energy)),
    ],
    "ps1-4": [
        Check("the gradient part", 4, "gradient_part", draw_slope, gradient_part, {
            SYMMETRIC_TRAP: lambda A, S: 0.5 * (A + A.T),
            CONGRUENCE_TRAP: lambda A, S: 0.5 * (A @ S + S @ A.T) @ inverse(S),
        }),
        Check("the invisible part", 3, "rotation_part", draw_slope, rotation_part, {
            "the factor Σ⁻¹ is forgotten": lambda A, S: A - gradient_part(A, S),
            SYMMETRIC_TRAP: lambda A, S: 0.5 * (A - A.T) @ S,
            CONGRUENCE_TRAP: lambda A, S: 0.5 * (A @ S - S @ A.T),
        }, dimensions=(2, 3, 5)),
    ],
    "ps1-6": [
        Check("the energy with a stopover", 2, "stopover_energy",
              lambda rng, d: (*draw_legs(rng, d), rng.uniform(0.2, 0.8)), stopover_energy, {
            "the two squared distances are added without their clocks": lambda *a: sum(legs(*a[:-1])),
            "the squared distances are multiplied by the durations": lambda *a: np.dot(legs(*a[:-1]), (a[-1], 1 - a[-1])),
            "the stopover is ignored": lambda *a: distance_squared(*a[:2], *a[4:6]),
        }),
        Check("the best moment", 2, "best_stopover", draw_legs, best_stopover, {
            "time is split in proportion to the squared distances": squared_stop,
            "half of the time goes to each leg": lambda *a: (0.5, two_leg_energy(*legs(*a), 0.5)),
        }),
    ],
    "ps1-7": [
        Check("independent ends", 2, "noisy_velocity", partial(draw_noisy, correlated=False), noisy_velocity, NOISE_TRAPS,
              rows=1),
        Check("correlated ends", 4, "noisy_velocity", draw_noisy, noisy_velocity, NOISE_TRAPS | CORRELATION_TRAPS, rows=1),
        *(
            Check(f"at time {t:g}", 1, "noisy_velocity", partial(draw_noisy, at=t), noisy_velocity, CORRELATION_TRAPS, rows=1)
            for t in (0.0, 1.0)
        ),
    ],
    "ps1-8": [
        Check("independent ends", 3, "loss_floor", partial(draw_floor, correlated=False), loss_floor, FLOOR_TRAPS,
              approximations=by_sums(loss_floor, "by 1000 rectangles")),
        Check("correlated ends", 4, "loss_floor", draw_floor, loss_floor, FLOOR_TRAPS | FLOOR_CORRELATION_TRAPS,
              approximations=by_sums(loss_floor, "by 1000 rectangles")),
    ],
    "ps1-9": [
        Check("the velocity", 5, "rectified_velocity",
              lambda rng, d: (rng.uniform(0.2, 0.8), points(rng, d), *laws(rng, d)), rectified_velocity, {
            "the optimal map is taken for the end of the flow": partial(rectified_velocity, ends=monge_ends),
            "the displacement is evaluated at x, not at the point where the line through x starts": (
                altered(rectified_velocity, t=zero)
            ),
            "the coupling is still the independent one": lambda t, x, *ends: fm_velocity(*as_laws(*ends), t, x),
        }, rows=1, approximations=by_steps(rectified_velocity)),
        Check("the energy", 4, "rectified_energy", laws, rectified_energy, {
            "the energy is taken to be W₂²": distance_squared,
            "the energy of the independent coupling is taken": lambda *a: fm_kinetic_energy(*as_laws(*a)).item(),
            "the means are left out": lambda m0, S0, m1, S1: rectified_energy(m0, S0, m0, S1),
        }, approximations=by_steps(rectified_energy)),
    ],
    "ps1-11": [
        Check("the regression", 4, "fit_field", lambda rng, d: (*draw_pairs(rng, d), rng.uniform(0.2, 0.8)), fit_field,
              REGRESSION_TRAPS, dimensions=(2, 3, 5)),
        Check("the transport", 3, "push", lambda rng, d: (points(rng, d), *draw_pairs(rng, d), int(rng.integers(5, 9))), push,
              {name: partial(push, field=field) for name, field in REGRESSION_TRAPS.items()}
              | {"the steps use the time of their end": partial(push, late=True)}, rows=0, dimensions=(2, 3, 5)),
    ],
}  # fmt: skip
