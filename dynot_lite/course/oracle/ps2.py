"""What is right, and what is known to go wrong, in problem set 2: action matching, Hopf–Lax and duality.

Right values come from characteristics, root finding, quadrature, Riccati equations and regression on exact quadrature nodes:
never from the formula that a student is asked for.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.integrate import quad
from scipy.linalg import eigh, expm, logm, solve_continuous_are, sqrtm
from scipy.optimize import minimize, root

from dynot_lite.course.oracle.compare import Check
from dynot_lite.course.oracle.ps1 import (
    NODES,
    WEIGHTS,
    as_laws,
    covariance,
    cross,
    distance_squared,
    draw_ends,
    inverse,
    law,
    mean,
    option,
    points,
)
from dynot_lite.laws.gaussian import fm_kinetic_energy, geodesic, monge_map
from dynot_lite.potentials.action_matching import OptimalAction, action_matching_loss
from dynot_lite.potentials.convex import Quadratic

__all__ = ["CHECKS"]


def squares(x):
    return (x**2).sum(-1)


def form(x, matrix):
    """⟨x, matrix x⟩ for each row of x."""
    return np.einsum("...i,ij,...j", x, matrix, x)


# ------------------------------------------------------------------------------------- 1: the action of a Gaussian path


def moments(t, m0, S0, m1, S1, C):
    """Mean, covariance, and their derivatives, of X_t = (1 − t)X0 + tX1."""
    cov = (1 - t) ** 2 * S0 + t**2 * S1 + t * (1 - t) * (C + C.T)
    return (1 - t) * m0 + t * m1, cov, m1 - m0, 2 * t * S1 - 2 * (1 - t) * S0 + (1 - 2 * t) * (C + C.T)


def lyapunov(S, right):
    """The solution of BS + SB = right as a linear system for the entries of B."""
    eye = np.eye(len(S))
    return np.linalg.solve(np.kron(eye, S) + np.kron(S, eye), right.ravel()).reshape(S.shape)


def regression_slope(t, m0, S0, m1, S1, C):
    """The slope of E[X1 − X0 | X_t], which is not symmetric."""
    gain = t * S1 - (1 - t) * S0 + (1 - t) * C.T - t * C
    return gain @ inverse(moments(t, m0, S0, m1, S1, C)[1])


def true_slope(t, *data):
    _, S, _, dS = moments(t, *data)
    return lyapunov(S, dS)


def true_action(t, x, *data, slope=true_slope, half=0.5, centred=True, sign=1.0):
    m, S, dm, _ = moments(t, *data)
    B = slope(t, *data)
    return sign * ((x - m) @ dm + half * (form(x - m, B) - centred * np.trace(B @ S)))


def path_energy(*data, slope=true_slope):
    """∫E|v_t|²dt of the field with this slope."""
    total = 0.0
    for t, weight in zip(NODES, WEIGHTS, strict=True):
        _, S, dm, _ = moments(t, *data)
        B = slope(t, *data)
        total += weight * (squares(dm) + np.trace(B @ S @ B.T))
    return total


def least_loss(*data):
    return -0.5 * path_energy(*data)


def straight_energy(m0, S0, m1, S1, C):
    return squares(m1 - m0) + np.trace(S0 + S1 - C - C.T)


def draw_coupled(rng, d, *, correlated=True):
    (m0, S0), (m1, S1) = law(rng, d), law(rng, d)
    return m0, S0, m1, S1, cross(rng, S0, S1) if correlated else np.zeros((d, d))


def draw_action(rng, d, *, correlated=True):
    return rng.uniform(0.2, 0.8), points(rng, d), *draw_coupled(rng, d, correlated=correlated)


ACTION_TRAPS = {
    "the slope of the velocity of flow matching is taken, which is not symmetric": option(true_action, slope=regression_slope),
    "the mean of the action is not zero": option(true_action, centred=False),
    "the quadratic part lacks its ½": option(true_action, half=1.0),
    "the sign is wrong": option(true_action, sign=-1.0),
}
NO_COUPLING = "the ends are taken to be independent"


# ------------------------------------------------------------------------------------------- 3: Hopf–Lax with a metric


def metric_action(t, x, Q, q, A):
    """By characteristics: x = z + tAp with p = ∇s_0(z), and s grows by ½⟨p, Ap⟩ per time along them."""
    z = np.linalg.solve(np.eye(len(q)) + t * A @ Q, (x - t * A @ q).T).T
    p = z @ Q + q
    return 0.5 * form(z, Q) + z @ q + 0.5 * t * form(p, A)


def lifespan(Q, A):
    """A⁻¹ + TQ is singular for the first time: the generalised eigenvalue problem Qx = λA⁻¹x."""
    return -1 / eigh(Q, inverse(A), eigvals_only=True)[0]


def wrong_lifespan(Q, A):
    """The eigenvalue of largest modulus, whatever its sign."""
    return 1 / np.abs(eigh(Q, inverse(A), eigvals_only=True)).max()


def swapped_metric_action(t, x, Q, q, A):
    """The closed form with the factors AQ in the wrong order."""
    B = inverse(np.eye(len(q)) + t * Q @ A)
    return 0.5 * form(x, Q @ B) + x @ B.T @ q - 0.5 * t * q @ B @ A @ q


def draw_quadratic(rng, d):
    """A symmetric Q with eigenvalues of both signs (in one dimension a negative one), so that the lifespan is finite."""
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
    values = rng.uniform(-0.5, 1.8, d)
    values[0] = rng.uniform(-1.2, -0.5)
    return (basis * values) @ basis.T, covariance(rng, d)


def draw_metric(rng, d, *, at=None):
    Q, A = draw_quadratic(rng, d)
    return rng.uniform(0.25, 0.6) * lifespan(Q, A) if at is None else at, points(rng, d), Q, mean(rng, d), A


def early(t, x, Q, q, A):
    if 2 * t >= lifespan(Q, A):
        raise ValueError("this has no value")
    return metric_action(2 * t, x, Q, q, A)


# -------------------------------------------------------------------------- 4: the optimal action of a convex potential


def curved(z, M, c, kappa):
    """The potential and its gradient."""
    w = np.sqrt(1 + squares(z - c))
    return 0.5 * form(z, M) + kappa * w, z @ M + kappa * (z - c) / w[..., None]


def start(t, x, M, c, kappa, *, keep=1.0):
    """The points z with (1 − keep t) z + t∇Ψ(z) = x, one root-finding problem each."""
    found = []
    for point in x:
        equation = lambda z, point=point: (1 - keep * t) * z + t * curved(z, M, c, kappa)[1] - point
        solution = root(equation, point, tol=1e-13)
        if np.abs(equation(solution.x)).max() > 1e-9:
            raise ValueError("not solved")
        found.append(solution.x)
    return np.array(found)


def curved_velocity(t, x, M, c, kappa):
    z = start(t, x, M, c, kappa)
    return curved(z, M, c, kappa)[1] - z


def curved_action(t, x, M, c, kappa):
    z = start(t, x, M, c, kappa)
    value, slope = curved(z, M, c, kappa)
    return value - 0.5 * squares(z) + 0.5 * t * squares(slope - z)


def frozen_action(t, x, M, c, kappa):
    value, slope = curved(x, M, c, kappa)
    return value - 0.5 * squares(x) - 0.5 * t * squares(slope - x)


def envelope(t, x, M, c, kappa):
    """The Hopf–Lax evolution of Ψ itself."""
    z = start(t, x, M, c, kappa, keep=0.0)
    value, slope = curved(z, M, c, kappa)
    return value + 0.5 * t * squares(slope)


def late_action(t, x, M, c, kappa):
    if 2 * t > 1:
        raise ValueError("this need not have a value")
    return curved_action(2 * t, x, M, c, kappa)


def draw_curved(rng, d, *, at=None):
    return rng.uniform(0.25, 0.75) if at is None else at, points(rng, d), covariance(rng, d), mean(rng, d), rng.uniform(1, 3)


VALUE_TRAPS = {
    "the value is expanded at x, not at the point where the line through x starts": frozen_action,
    "Ψ evolves, not Ψ − ½|x|²": envelope,
    "the equation lacks its ½": late_action,
    "the sign is wrong": lambda *a: -curved_action(*a),
}


# --------------------------------------------------------------------------------------------------- 6: along bent paths


def half_loss(x0, x1, M, b):
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
    total, eye = 0.0, np.eye(len(b))
    for t, weight in zip(NODES, WEIGHTS, strict=True):
        place, velocity = bent_path(t, x0, x1, h)
        z = np.linalg.solve((1 - t) * eye + t * M, (place - t * b).T).T
        total += weight * squares(z @ M + b - z - velocity).mean()
    return total


def draw_bent(rng, d, *, bent=True):
    x0 = rng.standard_normal((9, d)) + mean(rng, d)
    x1 = 0.5 * x0 @ rng.standard_normal((d, d)) + rng.standard_normal((9, d)) + mean(rng, d)
    h = mean(rng, d)
    return x0, x1, covariance(rng, d), mean(rng, d), h / max(0.7, float(np.linalg.norm(h))) if bent else 0 * h


def half_moments(x0, x1):
    return 0.5 * (squares(x0) + squares(x1)).mean()


BENT_TRAPS = {
    "the loss lacks a factor 2": lambda x0, x1, M, b, h: 0.5 * bent_loss(x0, x1, M, b, h),
    "the pairs are taken to be independent": lambda x0, x1, M, b, h: (
        bent_loss(x0, x1, M, b, h) + 2 * (x0 * x1).sum(1).mean() - 2 * x0.mean(0) @ x1.mean(0)
    ),
    "the inner product has the wrong sign": lambda x0, x1, M, b, h: bent_loss(x0, x1, M, b, h) + 4 * (x0 * x1).sum(1).mean(),
    "the inner product is left out": lambda x0, x1, M, b, h: bent_loss(x0, x1, M, b, h) + 2 * (x0 * x1).sum(1).mean(),
    "the offset is forgotten": lambda x0, x1, M, b, h: bent_loss(x0, x1, M, 0 * b, h),
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


def basis_minimum(U, *laws):
    """By minimisation: a quasi-Newton method, and a few steps of Newton's to finish."""
    d = len(U)
    found = minimize(basis_loss, np.zeros(2 * d), args=(U, *laws), jac=True, method="BFGS", options={"gtol": 1e-9}).x
    found = root(lambda p: basis_loss(p, U, *laws)[1], found, tol=1e-13).x
    return (U * np.exp(found[:d])) @ U.T, found[d:], basis_loss(found, U, *laws)[0]


def basis_potential(U, *laws):
    return basis_minimum(U, *laws)[:2]


def basis_bound(U, m0, S0, m1, S1):
    return np.trace(S0 + S1) + squares(m0) + squares(m1) - 2 * basis_minimum(U, m0, S0, m1, S1)[2]


def with_values(values):
    """A trap from a formula for the eigenvalues of M."""

    def trap(U, m0, S0, m1, S1):
        first, second = (np.diag(U.T @ S @ U) for S in (S0, S1))
        M = (U * values(first, second)) @ U.T
        return M, m1 - M @ m0

    return trap


def optimal_in_basis(U, m0, S0, m1, S1):
    M = monge_map(*as_laws(m0, S0, m1, S1)).matrix.numpy()
    M = (U * np.diag(U.T @ M @ U)) @ U.T
    return M, m1 - M @ m0


def draw_basis(rng, d):
    """A basis that is a rotation: in the plane a reflection is its own transpose."""
    U = np.linalg.qr(rng.standard_normal((d, d)))[0]
    U[:, 0] *= np.linalg.det(U)
    return U, *draw_ends(rng, d)


# ---------------------------------------------------------------------------------------- 8: the best action that stands still


def stationary(kappa, *data, slope=true_slope, symmetric=True):
    """Least squares, on nodes that are exact for the moments: a field Qx + q for the gradient field of the path."""
    d = len(data[0])
    pairs = [(i, j) for i in range(d) for j in range(i if symmetric else 0, d)]
    units = np.zeros((len(pairs), d, d))
    for k, (i, j) in enumerate(pairs):
        units[k, i, j] = 1
        if symmetric:
            units[k, j, i] = 1
    rows, right = [], []
    for t, weight in zip(NODES, WEIGHTS, strict=True):
        m, S, dm, _ = moments(t, *data)
        spread = math.sqrt(d) * np.linalg.cholesky(S).T
        x, root_weight = np.concatenate([m + spread, m - spread]), math.sqrt(weight * (1 - kappa * t))
        fields = np.concatenate([np.einsum("kij,nj->nik", units, x), np.broadcast_to(np.eye(d), (2 * d, d, d))], axis=2)
        rows.append(root_weight * fields.reshape(2 * d * d, -1))
        right.append(root_weight * (dm + (x - m) @ slope(t, *data).T).ravel())
    found = np.linalg.lstsq(np.concatenate(rows), np.concatenate(right), rcond=None)[0]
    return np.einsum("k,kij->ij", found[: len(pairs)], units), found[len(pairs) :]


def averaged(kappa, *data):
    """The mean in time of the slopes and offsets of the true fields."""
    Q, q = np.zeros_like(data[1]), np.zeros_like(data[0])
    for t, weight in zip(NODES, WEIGHTS * (1 - kappa * NODES), strict=True):
        B = true_slope(t, *data)
        m, _, dm, _ = moments(t, *data)
        Q, q = Q + weight * B, q + weight * (dm - B @ m)
    return Q / (1 - 0.5 * kappa), q / (1 - 0.5 * kappa)


def no_slope_term(kappa, m0, S0, m1, S1, C):
    """The normal equations of the weighted loss without its term E w's: right if the weight is constant."""
    P, mu, total = 0 * S0, 0 * m0, 1 - 0.5 * kappa
    for t, weight in zip(NODES, WEIGHTS * (1 - kappa * NODES), strict=True):
        m, S, _, _ = moments(t, m0, S0, m1, S1, C)
        P, mu = P + weight * (S + np.outer(m, m)), mu + weight * m
    linear = m0 - (1 - kappa) * m1
    quadratic = S0 + np.outer(m0, m0) - (1 - kappa) * (S1 + np.outer(m1, m1))
    mixed = np.outer(linear, mu) / total
    Q = lyapunov(P - np.outer(mu, mu) / total, mixed + mixed.T - quadratic)
    return Q, -(Q @ mu + linear) / total


def draw_stationary(rng, d, *, weighted=True):
    return float(rng.uniform(0.5, 1.0)) if weighted else 0.0, *draw_coupled(rng, d)


STATIONARY_TRAPS = {
    "a field that is no gradient is fitted to X1 − X0": option(stationary, slope=regression_slope, symmetric=False),
    "the fields of all times are averaged": averaged,
    NO_COUPLING: lambda kappa, m0, S0, m1, S1, C: stationary(kappa, m0, S0, m1, S1, 0 * C),
}


# ------------------------------------------------------------------------------------------------- 9: dilations and clocks


def autonomous_energy(T, m, S):
    """Quadrature of E|v(X_t)|² along the flow exp(tA), A = log T."""
    A = logm(T).real
    P = S + np.outer(m, m)
    nodes, weights = np.polynomial.legendre.leggauss(24)
    flows = [A @ expm(0.5 * (t + 1) * A) for t in nodes]
    return sum(0.5 * w * np.trace(F @ P @ F.T) for w, F in zip(weights, flows, strict=True))


def draw_dilation(rng, d):
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
    return (basis * np.exp(rng.choice([-1.0, 1.0], d) * rng.uniform(0.6, 1.3, d))) @ basis.T, *law(rng, d)


def slowness(kappa, t=1.0):
    """∫₀ᵗ ds/w(s) for w(s) = 1 + κs."""
    return quad(lambda s: 1 / (1 + kappa * s), 0, t)[0]


def weighted_energy(kappa, *laws):
    """The best clock has the speed 1/(w∫1/w), and its weighted energy is W₂²/∫1/w."""
    return distance_squared(*laws) / slowness(kappa)


def at_clock(clock):
    """The mean and covariance on the geodesic at the time that a clock shows."""

    def value(t, kappa, *laws):
        p = geodesic(*as_laws(*laws), clock(t, kappa))
        return p.mean.numpy(), p.cov.numpy()

    return value


best_law = at_clock(lambda t, kappa: slowness(kappa, t) / slowness(kappa))
CLOCK_TRAPS = {
    "the speed is constant": at_clock(lambda t, kappa: t),
    "the clock goes in proportion to the weight": at_clock(lambda t, kappa: (t + 0.5 * kappa * t**2) / (1 + 0.5 * kappa)),
    "the clock goes in proportion to the inverse root of the weight": at_clock(
        lambda t, kappa: (math.sqrt(1 + kappa * t) - 1) / (math.sqrt(1 + kappa) - 1)
    ),
}


def mixed_law(t, kappa, m0, S0, m1, S1):
    """Covariances are interpolated linearly."""
    s = slowness(kappa, t) / slowness(kappa)
    return (1 - s) * m0 + s * m1, (1 - s) * S0 + s * S1


# -------------------------------------------------------------------------------------- 10 and 11: entropy, with a metric


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


def entropic_cost(m0, S0, m1, S1, A, epsilon):
    C = entropic_cross(S0, S1, A, epsilon)
    return plain_cost(m0, S0, m1, S1, C, A) + epsilon * information(S0, S1, C)


def sharp_cross(S0, S1, A):
    """The optimal plan without entropy."""
    R = sqrtm(A).real
    zero = np.zeros(len(S0))
    T = monge_map(*as_laws(zero, R @ S0 @ R, zero, R @ S1 @ R)).matrix.numpy()
    return S0 @ (inverse(R) @ T @ R).T


def draw_entropic(rng, d, *, isotropic=False, means=False):
    (m0, S0), (m1, S1) = law(rng, d), law(rng, d)
    A = rng.choice([rng.uniform(0.4, 0.7), rng.uniform(1.6, 2.5)]) * np.eye(d) if isotropic else covariance(rng, d)
    return (*((m0, S0, m1, S1) if means else (S0, S1)), A, rng.uniform(0.5, 1.5))


CROSS_TRAPS = {
    "ε belongs to the cost without its ½": lambda S0, S1, A, e: entropic_cross(S0, S1, A, 0.5 * e),
    "the ½ of the cost is counted twice": lambda S0, S1, A, e: entropic_cross(S0, S1, A, 2 * e),
    "the metric is ignored": lambda S0, S1, A, e: entropic_cross(S0, S1, np.eye(len(S0)), e),
    "A and its inverse are exchanged": lambda S0, S1, A, e: entropic_cross(S0, S1, inverse(A), e),
    "the plan without entropy is taken": lambda S0, S1, A, e: sharp_cross(S0, S1, A),
}
TRANSPOSE_TRAP = {"Cov(X1, X0) is returned": lambda S0, S1, A, e: entropic_cross(S0, S1, A, e).T}


def bridge_plan(S0, S1, G):
    return entropic_cross(S0, S1, inverse(G), 1.0)


def bridge_field(t, x, m0, S0, m1, S1, G, *, noise, plan=bridge_plan, width=1.0):
    """Regression, in the joint law of (X0, X1, Z), on X_t = (1 − t)X0 + tX1 + √(t(1 − t)) Γ^½ Z.

    Regressed is X1 − X0 plus a multiple of Γ^½ Z, whose covariance with X_t is ``noise(t)`` Γ.
    """
    C = plan(S0, S1, G)
    S = moments(t, m0, S0, m1, S1, C)[1] + width * t * (1 - t) * G
    gain = t * S1 - (1 - t) * S0 + (1 - t) * C.T - t * C + noise(t) * G
    return m1 - m0 + (x - (1 - t) * m0 - t * m1) @ np.linalg.solve(S, gain.T)


# (X1 − X_t)/(1 − t) = X1 − X0 − √(t/(1 − t)) Γ^½ Z for the drift; for the current velocity, the derivative of √(t(1 − t)).
bridge_drift = option(bridge_field, noise=lambda t: -t)
bridge_velocity = option(bridge_field, noise=lambda t: 0.5 - t)
OTHER_PLANS = {
    "ε is that of the cost without its ½": lambda S0, S1, G: entropic_cross(S0, S1, inverse(G), 0.5),
    "ε is twice the right one": lambda S0, S1, G: entropic_cross(S0, S1, inverse(G), 2.0),
    "the bridges are put over the plan without entropy": lambda S0, S1, G: sharp_cross(S0, S1, inverse(G)),
    "the metric of the cost is Γ, not its inverse": lambda S0, S1, G: entropic_cross(S0, S1, G, 1.0),
}


def draw_bridge(rng, d, *, at=None):
    return rng.uniform(0.25, 0.75) if at is None else at, points(rng, d), *draw_ends(rng, d), covariance(rng, d)


def plan_traps(noise):
    """The field with this noise over other plans."""
    return {name: option(bridge_field, noise=noise, plan=plan) for name, plan in OTHER_PLANS.items()}


def width_trap(noise):
    return {"the variance of the Brownian bridges is left out": option(bridge_field, noise=noise, width=0.0)}


CHECKS = {
    "ps2-1": [
        Check("independent ends", 3, "true_action", option(draw_action, correlated=False), true_action, ACTION_TRAPS, rows=1),
        Check(
            "correlated ends", 3, "true_action", draw_action, true_action,
            ACTION_TRAPS | {NO_COUPLING: lambda t, x, m0, S0, m1, S1, C: true_action(t, x, m0, S0, m1, S1, 0 * C)},
            rows=1,
        ),
        Check(
            "the least loss", 4, "least_loss", draw_coupled, least_loss,
            {
                "the term −K is forgotten": lambda *a: 0.0,
                "the ½ is forgotten": lambda *a: 2 * least_loss(*a),
                "the minimum over optimal actions is taken": lambda *a: -0.5 * distance_squared(*a[:4]),
                "the velocity is X1 − X0 without conditioning": lambda *a: -0.5 * straight_energy(*a),
                "the velocity of flow matching is taken, which is no gradient": lambda *a: -0.5 * fm_kinetic_energy(
                    *as_laws(*a[:4]), cross_cov=torch.from_numpy(a[4])
                ).item(),
                NO_COUPLING: lambda *a: least_loss(*a[:4], 0 * a[4]),
            },
        ),
    ],
    "ps2-3": [
        Check(
            "the action", 4, "metric_action", draw_metric, metric_action,
            {
                "the equation lacks its ½": early,
                "the metric is ignored": lambda t, x, Q, q, A: metric_action(t, x, Q, q, np.eye(len(q))),
                "A and its inverse are exchanged": lambda t, x, Q, q, A: metric_action(t, x, Q, q, inverse(A)),
                "A and Q are in the wrong order": swapped_metric_action,
                "the linear term is forgotten": lambda t, x, Q, q, A: metric_action(t, x, Q, 0 * q, A),
            },
            rows=1,
        ),
        Check("the action at time 0", 1, "metric_action", option(draw_metric, at=0.0), metric_action, rows=1),
        Check(
            "the lifespan", 3, "lifespan", draw_quadratic, lifespan,
            {
                "the metric is ignored": lambda Q, A: lifespan(Q, np.eye(len(Q))),
                "A and its inverse are exchanged": lambda Q, A: lifespan(Q, inverse(A)),
                "the eigenvalue of largest modulus is taken": wrong_lifespan,
                "the equation lacks its ½": lambda Q, A: 0.5 * lifespan(Q, A),
            },
        ),
    ],
    "ps2-4": [
        Check(
            "the velocity", 4, "optimal_velocity", draw_curved, curved_velocity,
            {
                "the velocity is evaluated at x, not at the point where the line through x starts": lambda t, x, *a: (
                    curved(x, *a)[1] - x
                ),
                "Ψ evolves, not Ψ − ½|x|²": lambda t, x, *a: curved(start(t, x, *a, keep=0.0), *a)[1],
                "the equation lacks its ½": lambda t, x, *a: (
                    curved_velocity(2 * t, x, *a) if 2 * t <= 1 else np.full(x.shape, np.inf)
                ),
                "the sign is wrong": lambda *a: -curved_velocity(*a),
                "the point z is returned": start,
            },
            rows=1,
        ),
        Check("the action", 4, "optimal_action", draw_curved, curved_action, VALUE_TRAPS, rows=1),
        *(
            Check(f"the action at time {t:g}", 1, "optimal_action", option(draw_curved, at=t), curved_action, rows=1)
            for t in (0.0, 1.0)
        ),
    ],
    "ps2-6": [
        Check(
            "the loss of action matching", 4, "am_loss", draw_bent, am_loss,
            {
                "the moments are subtracted without their ½": lambda x0, x1, M, b, h: (
                    am_loss(x0, x1, M, b, h) - half_moments(x0, x1)
                ),
                "the moments are not subtracted": lambda x0, x1, M, b, h: half_loss(x0, x1, M, b),
                "the loss is counted twice": lambda *a: 2 * am_loss(*a),
                "the offset is forgotten": lambda x0, x1, M, b, h: am_loss(x0, x1, M, 0 * b, h),
            },
        ),
        Check("straight paths", 2, "bent_loss", option(draw_bent, bent=False), bent_loss, BENT_TRAPS),
        Check(
            "bent paths", 2, "bent_loss", draw_bent, bent_loss,
            BENT_TRAPS | {
                "the bend is left out": lambda x0, x1, M, b, h: bent_loss(x0, x1, M, b, 0 * h),
                "the mean of cos² is taken to be 1": lambda x0, x1, M, b, h: (
                    bent_loss(x0, x1, M, b, h) + 0.5 * math.pi**2 * squares(h)
                ),
                "the kinetic energy is left out": lambda x0, x1, M, b, h: (
                    2 * am_loss(x0, x1, M, b, h)
                ),
            },
        ),
    ],
    "ps2-7": [
        Check(
            "the potential", 4, "basis_potential", draw_basis, basis_potential,
            {
                "variances are taken for standard deviations": with_values(lambda first, second: second / first),
                "the ratio is turned round": with_values(lambda first, second: np.sqrt(first / second)),
                "the optimal matrix is cut down to the basis": optimal_in_basis,
                "U and its transpose are exchanged": lambda U, *a: basis_potential(U.T, *a),
                "the offset does not know M": lambda U, *a: (basis_potential(U, *a)[0], a[2] - a[0]),
            },
        ),
        Check(
            "the bound", 4, "basis_bound", draw_basis, basis_bound,
            {
                "the factor 2 of W₂² is forgotten": lambda *a: 0.5 * basis_bound(*a),
                "W₂² itself is returned": lambda U, *a: distance_squared(*a),
                "the means are left out": lambda U, m0, S0, m1, S1: basis_bound(U, m0, S0, m0, S1),
                "U and its transpose are exchanged": lambda U, *a: basis_bound(U.T, *a),
            },
        ),
    ],
    "ps2-8": [
        Check(
            "without weights", 5, "best_stationary", option(draw_stationary, weighted=False), stationary, STATIONARY_TRAPS
        ),
        Check(
            "with weights", 5, "best_stationary", draw_stationary, stationary,
            STATIONARY_TRAPS | {
                "the weights are ignored": lambda kappa, *a: stationary(0.0, *a),
                "the derivative of the weight is forgotten": no_slope_term,
            },
        ),
    ],
    "ps2-9": [
        Check(
            "the autonomous field", 3, "autonomous_energy", draw_dilation, autonomous_energy,
            {
                "the field is taken to be optimal": lambda T, m, S: form(m, (T - np.eye(len(m))) @ (T - np.eye(len(m))))
                + np.trace((T - np.eye(len(m))) @ S @ (T - np.eye(len(m)))),
                "the law is taken to stand still": lambda T, m, S: np.trace(logm(T).real @ (S + np.outer(m, m)) @ logm(T).real),
                "the mean is left out": lambda T, m, S: autonomous_energy(T, 0 * m, S),
            },
        ),
        Check(
            "the least weighted energy", 2, "weighted_energy",
            lambda rng, d: (rng.uniform(1.0, 4.0), *draw_ends(rng, d)), weighted_energy,
            {
                "the weight is taken not to matter": lambda kappa, *a: distance_squared(*a),
                "the speed is constant": lambda kappa, *a: (1 + 0.5 * kappa) * distance_squared(*a),
                "the mean of the inverse weight is multiplied": lambda kappa, *a: slowness(kappa) * distance_squared(*a),
            },
        ),
        Check(
            "the law on the way", 3, "best_law",
            lambda rng, d: (rng.uniform(0.3, 0.6), rng.uniform(1.5, 4.0), *draw_ends(rng, d)), best_law,
            CLOCK_TRAPS | {"covariances are interpolated linearly": mixed_law},
        ),
    ],
    "ps2-10": [
        Check(
            "a multiple of the identity", 2, "entropic_cross", option(draw_entropic, isotropic=True), entropic_cross,
            CROSS_TRAPS,
        ),
        Check("any metric", 3, "entropic_cross", draw_entropic, entropic_cross, CROSS_TRAPS | TRANSPOSE_TRAP),
        Check(
            "the cost", 3, "entropic_cost", option(draw_entropic, means=True), entropic_cost,
            {
                "the entropy is left out": lambda m0, S0, m1, S1, A, e: plain_cost(
                    m0, S0, m1, S1, entropic_cross(S0, S1, A, e), A
                ),
                "the cost without entropy is taken": lambda m0, S0, m1, S1, A, e: plain_cost(
                    m0, S0, m1, S1, sharp_cross(S0, S1, A), A
                ),
                "the cost lacks its ½": lambda *a: 2 * entropic_cost(*a[:5], 0.5 * a[5]),
                "the means are left out": lambda m0, S0, m1, S1, A, e: entropic_cost(m0, S0, m0, S1, A, e),
            },
        ),
    ],
    "ps2-11": [
        Check(
            "the drift", 4, "bridge_drift", draw_bridge, bridge_drift,
            plan_traps(lambda t: -t) | width_trap(lambda t: -t) | {
                "the current velocity is taken for the drift": bridge_velocity,
                "the score has the wrong sign": option(bridge_field, noise=lambda t: 1 - t),
            },
            rows=1,
        ),
        Check(
            "the drift at time 1", 1, "bridge_drift", option(draw_bridge, at=1.0), bridge_drift,
            plan_traps(lambda t: -t) | {"the current velocity is taken for the drift": bridge_velocity},
            rows=1,
        ),
        Check(
            "the current velocity", 3, "bridge_velocity", draw_bridge, bridge_velocity,
            plan_traps(lambda t: 0.5 - t) | width_trap(lambda t: 0.5 - t) | {
                "the drift is taken for the current velocity": bridge_drift,
                "the score has the wrong sign": option(bridge_field, noise=lambda t: -0.5 - t),
                "the score lacks its ½": option(bridge_field, noise=lambda t: 1 - t),
                "the bridges are not differentiated": option(bridge_field, noise=lambda t: 0.0),
            },
            rows=1,
        ),
    ],
}  # fmt: skip
