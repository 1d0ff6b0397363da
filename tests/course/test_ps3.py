"""Problem set 3: its catalogue of wrong answers, other right answers, and its oracle."""

from __future__ import annotations

import itertools
import math

import numpy as np
import ot
import torch
from course_grading import ProblemSetTests
from scipy.optimize import linear_sum_assignment
from scipy.stats import norm

from dynot_lite.couplings.sliced import c_transform, squared_cost, w2_squared_1d
from dynot_lite.course.assignment import load
from dynot_lite.course.oracle import closed_forms, draws
from dynot_lite.course.oracle.ps3 import couplings, semidiscrete, sliced
from dynot_lite.laws.gaussian import Gaussian, monge_map
from dynot_lite.laws.mixtures import GaussianMixture, fm_velocity_mixture
from dynot_lite.paths.continuity import gauss_legendre
from dynot_lite.paths.flows import integrate

# error: (part, points lost, function with the error)
WRONG = {
    "the order of the points is forgotten": (
        "ps3-1", 4, """
def line_plan(x, y, a, b):
    order, to = torch.argsort(x), torch.argsort(y)
    below = torch.minimum(torch.cumsum(a[order], 0)[:, None], torch.cumsum(b[to], 0))
    return torch.nn.functional.pad(below, (1, 0, 1, 0)).diff(dim=0).diff(dim=1)""",
    ),
    "no mass is split: every point has one partner": (
        "ps3-1", 3, """
def line_plan(x, y, a, b):
    order, to = torch.argsort(x), torch.argsort(y)
    middle = torch.cumsum(a[order], 0) - a[order] / 2
    plan = torch.zeros(len(x), len(y))
    plan[order, to[torch.searchsorted(torch.cumsum(b[to], 0)[:-1], middle)]] = a[order]
    return plan""",
    ),
    "each point goes to the nearest one, and points are dropped": (
        "ps3-1", 4, """
def line_plan(x, y, a, b):
    return a[:, None] * torch.nn.functional.one_hot((x[:, None] - y).abs().argmin(1), len(y))""",
    ),
    "an entropic plan that has not converged": (
        "ps3-1", 4, """
def line_plan(x, y, a, b):
    return ot.sinkhorn(a, b, 0.5 * (x[:, None] - y) ** 2, 0.05, method="sinkhorn_log", numItermax=50, warn=False)""",
    ),
    "only exchanges of two partners": (
        "ps3-2", 4, """
def monotone_shift(x, y):
    step, move = x[:, None] - x, y[:, None] - y
    ratio = -(step * move).sum(2) / (step.square().sum(2) + torch.eye(len(x)))
    return max(0.0, float(ratio.max()))""",
    ),
    "one exchange is repaired, not all": (
        "ps3-2", 6, """
def monotone_shift(x, y):
    order = exact_pairs(x, y)
    return (x * (y[order] - y)).sum() / (x * (x - x[order])).sum()""",
    ),
    "the walls half-way between the points (E4 A)": (
        "ps3-4", 4, "def collinear_potentials(w, m, S, y, b):\n    return torch.zeros(len(y))",
    ),
    "the potentials of the cost without ½": (
        "ps3-4", 4, """
def collinear_potentials(w, m, S, y, b):
    s, order, _, _, walls = reduced(w, m, S, y, b)
    g = np.zeros(len(s))
    g[order[1:]] = np.cumsum(np.diff(s**2) - 2 * walls * np.diff(s))
    return g - np.asarray(b) @ g""",
    ),
    "the mixture as one Gaussian": (
        "ps3-4", 3, """
def collinear_potentials(w, m, S, y, b):
    centre = w @ m
    S = torch.einsum("k,kij->ij", w, S) + (m - centre).T @ (w[:, None] * (m - centre))
    s, order, _, _, walls = reduced(torch.ones(1), centre[None], S[None], y, b)
    g = np.zeros(len(s))
    g[order[1:]] = np.cumsum(0.5 * np.diff(s**2) - walls * np.diff(s))
    return g - np.asarray(b) @ g""",
    ),
    "the sign of the term with the walls (E4 B)": (
        "ps3-4", 3, """
def collinear_w2(w, m, S, y, b):
    s, order, mean, std, walls = reduced(w, m, S, y, b)
    w, m, S, y, b = (np.asarray(value) for value in (w, m, S, y, b))
    z = (walls[:, None] - mean) / std
    beyond, place = (mean * norm.sf(z) + std * norm.pdf(z)) @ w, w @ mean
    plain = w @ (np.einsum("kii->k", S) + ((m - y[0]) ** 2).sum(1)) + b[order] @ s**2
    correlation = s[0] * place + np.diff(s) @ beyond - place * (b[order] @ s)
    return plain - 2 * place * (b[order] @ s) + 2 * correlation""",
    ),
    "only the distance along the line": (
        "ps3-4", 3, """
def collinear_w2(w, m, S, y, b):
    s, order, mean, std, walls = reduced(w, m, S, y, b)
    w, b = np.asarray(w), np.asarray(b)
    z = (walls[:, None] - mean) / std
    beyond = (mean * norm.sf(z) + std * norm.pdf(z)) @ w
    return w @ (std**2 + mean**2) + b[order] @ s**2 - 2 * (s[0] * (w @ mean) + np.diff(s) @ beyond)""",
    ),
    "prior weights, so that the flow goes to the mean of the points (§11 A, B)": (
        "ps3-5", 2, "def dirac_velocity(t, x, m, S, y, b):\n    return (b @ y - x) / (1 - t)",
    ),
    "the factor t of the points is forgotten (§11)": (
        "ps3-5", 2, """
def dirac_velocity(t, x, m, S, y, b):
    offset = (x - (1 - t) * m)[:, None] - y
    square = (offset @ torch.linalg.inv(S) * offset).sum(2) / (1 - t) ** 2
    return (torch.softmax(torch.log(b) - 0.5 * square, 1) @ y - x) / (1 - t)""",
    ),
    "the noise is standard normal": (
        "ps3-5", 2, """
def dirac_velocity(t, x, m, S, y, b):
    return (conditional_weights(t, x, 0 * m, torch.eye(len(m)), y, b) @ y - x) / (1 - t)""",
    ),
    "the Jacobian is transposed": (
        "ps3-5", 3, """
def dirac_jacobian(t, x, m, S, y, b):
    p = conditional_weights(t, x, m, S, y, b)
    centred = y - (p @ y)[:, None]
    spread = centred.mT @ (p[:, :, None] * centred)
    return t / (1 - t) ** 3 * torch.linalg.inv(S) @ spread - torch.eye(len(m)) / (1 - t)""",
    ),
    "the conditional weights are not differentiated": (
        "ps3-5", 3, """
def dirac_jacobian(t, x, m, S, y, b):
    return (-torch.eye(len(m)) / (1 - t)).expand(len(x), -1, -1)""",
    ),
    "the same cells: the flow is optimal (E9 A)": ("ps3-7", 4, "def flow_excess(m, S, y, b):\n    return 0.0"),
    "the cells of the nearest point (E9 B)": (
        "ps3-7", 2, """
def flow_elsewhere(m, S, y, b):
    m, S, y, b = (np.asarray(value) for value in (m, S, y, b))
    u = (y[1] - y[0]) / np.linalg.norm(y[1] - y[0])
    order = np.argsort(y @ u)
    s = (y @ u)[order]
    near = norm.cdf((s[1:] + s[:-1]) / 2, m @ u, math.sqrt(u @ S @ u))
    near, right = (np.concatenate([[0], level, [1]]) for level in (near, np.cumsum(b[order])[:-1]))
    return 1 - np.maximum(np.minimum(near[1:], right[1:]) - np.maximum(near[:-1], right[:-1]), 0).sum()""",
    ),
    "slabs across the image of the line under the covariance": (
        "ps3-7", 4, """
def flow_excess(m, S, y, b):
    s, walls, best, _ = slabs(S, y, b)
    S, y = np.asarray(S), np.asarray(y)
    u = (y[1] - y[0]) / np.linalg.norm(y[1] - y[0])
    flow = u @ S @ S @ u / math.sqrt(u @ S @ S @ S @ u)
    return 2 * (best - flow) * (np.diff(s) @ norm.pdf(walls))""",
    ),
    "the energy is W₂² (E10 A)": (
        "ps3-8", 6, """
def loss_floor(m, S, y, b):
    m, S, y, b = (np.asarray(value) for value in (m, S, y, b))
    u = (y[1] - y[0]) / np.linalg.norm(y[1] - y[0])
    order = np.argsort(y @ u)
    # E|X1 − X0|² − W₂² is twice the covariance of ⟨u, X0⟩ and s in the optimal plan.
    return 2 * math.sqrt(u @ S @ u) * (np.diff((y @ u)[order]) @ norm.pdf(norm.ppf(np.cumsum(b[order])[:-1])))""",
    ),
    "γ² as the variable of the integral (E10 B)": (
        "ps3-8", 6, """
def loss_floor(m, S, y, b):
    # ∫ mmse dγ² is twice the entropy of the points.
    u = (y[1] - y[0]) / torch.linalg.norm(y[1] - y[0])
    return -2 * (b * b.log()).sum() / torch.sqrt(u @ torch.linalg.solve(S, u))""",
    ),
    "the noise is projected on the line": (
        "ps3-8", 6, """
def loss_floor(m, S, y, b):
    S, y, b = (np.asarray(value) for value in (S, y, b))
    u = (y[1] - y[0]) / np.linalg.norm(y[1] - y[0])
    scale = 1 / math.sqrt(u @ S @ u)
    s, z, total = scale * (y @ u), np.linspace(-8, 8, 161), 0.0
    gamma = np.linspace(0, 18 / np.diff(np.sort(s)).min(), 241)
    for value in gamma:
        seen = (value * s[:, None] + z)[..., None]
        score = np.log(b) - 0.5 * (seen - value * s) ** 2
        p = np.exp(score - score.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        half = 0.5 if value == 0 else 1.0
        total += half * b @ ((p @ s**2 - (p @ s) ** 2) @ norm.pdf(z))
    return total * (z[1] - z[0]) * gamma[1] / scale**2""",
    ),
    "no conditional expectation": (
        "ps3-8", 6, """
def loss_floor(m, S, y, b):
    return torch.trace(S) + (m - b @ y).square().sum() + b @ (y - b @ y).square().sum(1)""",
    ),
    "SW₂² is W₂²/d (E5 A)": ("ps3-9", 2, "def sliced_gap(m0, S0, m1, S1):\n    return 0.0"),
    "no 1/d on the means (E5 B)": (
        "ps3-9", 2, """
def sliced_gap(m0, S0, m1, S1):
    theta, weight = sphere_rule(len(m0))
    sliced = weight @ (deviations(S1, theta) - deviations(S0, theta)) ** 2 + float((m1 - m0).square().sum())
    return float(w2_squared(Gaussian(m0, S0), Gaussian(m1, S1))) - len(m0) * sliced""",
    ),
    "the gradient without d": (
        "ps3-9", 4, """
def sliced_map(x, m0, S0, m1, S1):
    x, m0, m1 = (np.asarray(value) for value in (x, m0, m1))
    theta, weight = sphere_rule(len(m0))
    ratio = weight * (1 - deviations(S1, theta) / deviations(S0, theta))
    return x - (x - m0) @ ((theta.T * ratio) @ theta) + (m1 - m0) / len(m0)""",
    ),
    "the sliced map is Monge's": (
        "ps3-9", 4, """
def sliced_map(x, m0, S0, m1, S1):
    from dynot_lite.laws.gaussian import monge_map
    return monge_map(Gaussian(m0, S0), Gaussian(m1, S1))(x)""",
    ),
    "d times the mean, not the best multiple": (
        "ps3-10", 5, """
def sliced_bound(x, y, a, b, theta):
    f = x.shape[1] * potentials_1d(x @ theta.T, y @ theta.T, weights0=a, weights1=b).mean(1)
    return a @ f + b @ (0.5 * (x[:, None] - y).square().sum(2) - f[:, None]).amin(0)""",
    ),
    "the sliced distance instead of a dual value": (
        "ps3-10", 5, """
def sliced_bound(x, y, a, b, theta):
    from dynot_lite.couplings.sliced import w2_squared_sliced
    return 0.5 * w2_squared_sliced(x, y, theta, weights0=a, weights1=b)""",
    ),
    "labels first, whatever they cost": (
        "ps3-11", 3, """
def labelled_pairs(x0, l0, x1, l1, beta):
    differ = (l0[:, None] != l1).double()
    cost = 0.5 * (x0[:, None] - x1).square().sum(2)
    plan = ot.emd(torch.full((len(x0),), 1 / len(x0)), torch.full((len(x1),), 1 / len(x1)), cost + 1e4 * differ)
    return (plan * cost).sum(), (plan * differ).sum()""",
    ),
    "every point takes the nearest, points are dropped": (
        "ps3-11", 3, """
def labelled_pairs(x0, l0, x1, l1, beta):
    differ = (l0[:, None] != l1).double()
    cost = 0.5 * (x0[:, None] - x1).square().sum(2)
    best = (cost + beta * differ).argmin(1, keepdim=True)
    return cost.gather(1, best).mean(), differ.gather(1, best).mean()""",
    ),
    "the last iterate instead of the mean": (
        "ps3-11", 2, """
def ascent(x, y, b, epsilon, rate):
    g, cost = torch.zeros(len(y)), 0.5 * (x[:, None] - y).square().sum(2)
    for k in range(len(x)):
        if epsilon > 0:
            p = torch.softmax((g - cost[k]) / epsilon + b.log(), 0)
        else:
            p = torch.nn.functional.one_hot((cost[k] - g).argmin(), len(y))
        g = g + rate / math.sqrt(k + 1) * (b - p)
    return g - b @ g""",
    ),
    "the softmax without the weights": (
        "ps3-11", 1, """
def ascent(x, y, b, epsilon, rate):
    g, total, cost = torch.zeros(len(y)), 0, 0.5 * (x[:, None] - y).square().sum(2)
    for k in range(len(x)):
        if epsilon > 0:
            p = torch.softmax((g - cost[k]) / epsilon, 0)
        else:
            p = torch.nn.functional.one_hot((cost[k] - g).argmin(), len(y))
        g = g + rate / math.sqrt(k + 1) * (b - p)
        total = total + g / len(x)
    return total - b @ total""",
    ),
    "ε in the convention without ½": (
        "ps3-11", 2, """
def ascent(x, y, b, epsilon, rate):
    g, total, cost = torch.zeros(len(y)), 0, (x[:, None] - y).square().sum(2)
    for k in range(len(x)):
        if epsilon > 0:
            p = torch.softmax((g - cost[k]) / epsilon + b.log(), 0)
        else:
            p = torch.nn.functional.one_hot((cost[k] - g).argmin(), len(y))
        g = g + rate / math.sqrt(k + 1) * (b - p)
        total = total + g / len(x)
    return total - b @ total""",
    ),
}  # fmt: skip

# Arrays, and another algorithm where there is one.
NUMPY = {
    "ps3-1": """
def line_plan(x, y, a, b):
    # The north-west-corner rule.
    x, y, a, b = (np.array(value, dtype=float) for value in (x, y, a, b))
    rows, columns = list(np.argsort(x)), list(np.argsort(y))
    plan = np.zeros((len(x), len(y)))
    while rows and columns:
        i, j = rows[0], columns[0]
        moved = min(a[i], b[j])
        plan[i, j] += moved
        a[i] -= moved
        b[j] -= moved
        if a[i] <= b[j]:
            rows.pop(0)
        else:
            columns.pop(0)
    return plan""",
    "ps3-2": """
def monotone_shift(x, y):
    # Bisection; the shortest paths of all lengths say whether a cycle is negative.
    x, y = np.asarray(x), np.asarray(y)
    def fails(shift):
        z = y + shift * x
        distance = (x * z).sum(1)[:, None] - x @ z.T
        for k in range(len(x)):
            distance = np.minimum(distance, distance[:, k, None] + distance[k])
        return np.diag(distance).min() < -1e-10
    low, high = 0.0, 1.0
    while fails(high):
        high *= 2
    while high - low > 1e-7 * (1 + high):
        middle = (low + high) / 2
        low, high = (middle, high) if fails(middle) else (low, middle)
    return high""",
    "ps3-4": """
def cut(w, m, S, y, b):
    w, m, S, y, b = map(np.asarray, (w, m, S, y, b))
    u = np.linalg.svd(y - y.mean(0))[2][0]
    order = np.argsort(y @ u)
    mu, sd = m @ u, np.sqrt([u @ s @ u for s in S])
    tail = [(mu - 15 * sd).min(), (mu + 15 * sd).max()]
    walls = []
    for level in np.cumsum(b[order])[:-1]:
        low, high = tail
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if w @ norm.cdf(middle, mu, sd) < level else (low, middle)
        walls.append(low)
    return u, order, mu, sd, walls
def collinear_potentials(w, m, S, y, b):
    u, order, mu, sd, walls = cut(w, m, S, y, b)
    y, b, g = np.asarray(y), np.asarray(b), np.zeros(len(y))
    for one, other, wall in zip(order, order[1:], walls):
        x = y[one] + (wall - y[one] @ u) * u
        g[other] = g[one] + ((x - y[other]) ** 2).sum() / 2 - ((x - y[one]) ** 2).sum() / 2
    return list(g - b @ g)
def collinear_w2(w, m, S, y, b):
    # Twice the dual value, whose integral runs along the line; across it there is only a mean.
    u, order, mu, sd, walls = cut(w, m, S, y, b)
    w, m, S, y, b = map(np.asarray, (w, m, S, y, b))
    ends = [(mu - 10 * sd).min(), *walls, (mu + 10 * sd).max()]
    along = 0.0
    for j, low, high in zip(order, ends[:-1], ends[1:]):
        r, weight = np.polynomial.legendre.leggauss(120)
        r = (low + high) / 2 + (high - low) / 2 * r
        along += (high - low) / 2 * weight @ ((r - y[j] @ u) ** 2 * (norm.pdf(r[:, None], mu, sd) @ w))
    P = np.eye(len(u)) - np.outer(u, u)
    return np.array([along + sum(v * (np.trace(P @ s) + ((P @ (c - y[0])) ** 2).sum()) for v, c, s in zip(w, m, S))])""",
    "ps3-5": """
def dirac_velocity(t, x, m, S, y, b):
    from dynot_lite.laws.mixtures import fm_velocity_mixture
    return fm_velocity_mixture(b, m.expand(len(y), -1), y, S, 0 * S, t, x)
def dirac_jacobian(t, x, m, S, y, b):
    x = x.clone().requires_grad_(True)
    v = dirac_velocity(t, x, m, S, y, b)
    return torch.stack([torch.autograd.grad(v[:, i].sum(), x, retain_graph=True)[0] for i in range(x.shape[1])], 1)""",
    "ps3-7": """
from scipy.stats import multivariate_normal
def both(m, S, y, b):
    m, S, y, b = map(np.asarray, (m, S, y, b))
    u = np.linalg.svd(y - y.mean(0))[2][0]
    order = np.argsort(y @ u)
    return u, np.linalg.solve(S, u), S, (y @ u)[order], b[order], np.r_[-9, norm.ppf(np.cumsum(b[order])[:-1]), 9]
def flow_excess(m, S, y, b):
    u, n, S, s, b, q = both(m, S, y, b)
    # E⟨u, X⟩s(X) by the mean of the normal law in each slab
    part = norm.pdf(q[:-1]) - norm.pdf(q[1:])
    return 2 * (s @ part) * (np.sqrt(u @ S @ u) - (u @ S @ n) / np.sqrt(n @ S @ n))
def flow_elsewhere(m, S, y, b):
    u, n, S, s, b, q = both(m, S, y, b)
    r = (u @ S @ n) / np.sqrt((u @ S @ u) * (n @ S @ n))
    law = multivariate_normal([0, 0], [[1, r], [r, 1]], allow_singular=True)
    return 1 - sum(law.cdf([high, high], lower_limit=[low, low]) for low, high in zip(q[:-1], q[1:]))""",
    "ps3-8": """
def loss_floor(m, S, y, b):
    # In time: E Var(s | ω_t)/(1 − t)², with the substitution t = 1 − e^{−τ}.
    S, y, b = map(np.asarray, (S, y, b))
    u = np.linalg.svd(y - y.mean(0))[2][0]
    k = u @ np.linalg.inv(S) @ u
    s, z = y @ u, np.linspace(-8, 8, 201)
    def rate(tau):
        t = -np.expm1(-tau)
        c = t * np.sqrt(k) * s
        w = c[:, None] + (1 - t) * z
        p = b * np.exp(-((w[..., None] - c) ** 2 - (w - c[:, None])[..., None] ** 2) / (2 * (1 - t) ** 2))
        p /= p.sum(-1, keepdims=True)
        return (b @ (p @ s**2 - (p @ s) ** 2) @ norm.pdf(z)) * (z[1] - z[0]) / (1 - t)
    tau, weight = np.polynomial.legendre.leggauss(120)
    return sum(3.5 * v * rate(3.5 * (r + 1)) for r, v in zip(tau, weight))""",
    "ps3-9": """
def nodes(d):
    if d == 2:
        a, w = np.polynomial.legendre.leggauss(100)
        return np.c_[np.cos(np.pi * a), np.sin(np.pi * a)], w / 2
    a, w = np.polynomial.legendre.leggauss(50)
    polar, turn = np.meshgrid(np.pi * (a + 1) / 2, np.pi * a, indexing="ij")
    theta = np.stack([np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), np.cos(polar)], -1)
    return theta.reshape(-1, 3), (np.outer(w, w) * np.sin(polar) * np.pi / 8).ravel()
def sliced_map(x, m0, S0, m1, S1):
    x, m0, S0, m1, S1 = map(np.asarray, (x, m0, S0, m1, S1))
    theta, w = nodes(len(m0))
    s0, s1 = (np.sqrt(((theta @ S) * theta).sum(1)) for S in (S0, S1))
    place = (x - m0) @ theta.T
    return x + len(m0) * ((w * (place * (s1 / s0 - 1) + theta @ (m1 - m0))) @ theta)
def sliced_gap(m0, S0, m1, S1):
    from scipy.linalg import sqrtm
    m0, S0, m1, S1 = map(np.asarray, (m0, S0, m1, S1))
    theta, w = nodes(len(m0))
    s0, s1 = (np.sqrt(((theta @ S) * theta).sum(1)) for S in (S0, S1))
    root = sqrtm(S0).real
    return 2 * len(m0) * w @ (s0 * s1) - 2 * np.trace(sqrtm(root @ S1 @ root).real)""",
    "ps3-10": """
from scipy.optimize import linprog
def sliced_bound(x, y, a, b, theta):
    # The dual variables of the sorted plan on each direction, from neighbours that share a point; then a linear program.
    x, y, a, b, theta = map(np.asarray, (x, y, a, b, theta))
    f = np.zeros(len(x))
    for e in theta:
        p, q = x @ e, y @ e
        i, j = np.argsort(p), np.argsort(q)
        hit = q[j][np.searchsorted(np.cumsum(b[j]), np.cumsum(a[i])[:-1])]
        f[i[1:]] += np.cumsum((p[i[1:]] ** 2 - p[i[:-1]] ** 2) / 2 - hit * (p[i[1:]] - p[i[:-1]]))
    n, m = len(x), len(y)
    rows = np.c_[np.repeat(f, m), np.tile(np.eye(m), (n, 1))]
    cost = ((x[:, None] - y) ** 2).sum(2).ravel() / 2
    found = linprog(-np.r_[a @ f, b], rows, cost, bounds=[(0, None)] + m * [(None, None)])
    return -found.fun""",
    "ps3-11": """
def labelled_pairs(x0, l0, x1, l1, beta):
    x0, l0, x1, l1 = map(np.asarray, (x0, l0, x1, l1))
    cost, differ = ((x0[:, None] - x1) ** 2).sum(2) / 2, l0[:, None] != l1
    plan = ot.emd([], [], cost + beta * differ)
    return [[(plan * cost).sum()], [plan[differ].sum()]]
def ascent(x, y, b, epsilon, rate):
    x, y, b = map(np.asarray, (x, y, b))
    path = [np.zeros(len(y))]
    for k, point in enumerate(x):
        slack = ((point - y) ** 2).sum(1) / 2 - path[-1]
        p = 1.0 * (slack == slack.min()) if epsilon == 0 else b * np.exp((slack.min() - slack) / epsilon)
        path.append(path[-1] + rate * (k + 1) ** -0.5 * (b - p / p.sum()))
    g = np.mean(path[1:], 0)
    return torch.as_tensor(g - np.average(g, weights=b))""",
}
# One point at a time, with products of matrices and vectors that fail for a batch; arrays only.
SINGLE = {
    "ps3-5": """
def dirac_velocity(t, x, m, S, y, b):
    score = np.array([np.log(w) - (x - (1 - t) * m - t * z).dot(np.linalg.solve(S, x - (1 - t) * m - t * z)) / 2 / (1 - t) ** 2
                      for z, w in zip(y, b)])
    p = np.exp(score - score.max())
    return (p.dot(y) / p.sum() - x) / (1 - t)
def dirac_jacobian(t, x, m, S, y, b):
    step = 1e-5 * np.eye(len(x))
    return np.stack([(dirac_velocity(t, x + h, m, S, y, b) - dirac_velocity(t, x - h, m, S, y, b)) / 2e-5 for h in step], 1)""",
    "ps3-9": """
def sliced_map(x, m0, S0, m1, S1):
    theta, weight = sphere_rule(len(m0))
    image = np.array(m1) * 1.0
    for e, w in zip(theta, weight):
        image += len(m0) * w * e * np.sqrt(e.dot(S1).dot(e) / e.dot(S0).dot(e)) * e.dot(x - m0)
    return image
def sphere_rule(d):
    angle = np.pi * (np.arange(40) + 0.5) / 40
    if d == 2:
        return np.c_[np.cos(angle), np.sin(angle)], np.full(40, 1 / 40)
    z, w = np.polynomial.legendre.leggauss(32)
    theta = [(np.sqrt(1 - h * h) * np.cos(2 * t), np.sqrt(1 - h * h) * np.sin(2 * t), h) for h in z for t in angle]
    return np.array(theta), np.repeat(w, 40) / 80
def sliced_gap(m0, S0, m1, S1):
    theta, weight = sphere_rule(len(m0))
    s0, s1 = (np.sqrt([e @ S.numpy() @ e for e in theta]) for S in (S0, S1))
    return w2_squared(Gaussian(m0, S0), Gaussian(m1, S1)) - len(m0) * (weight @ (s0 - s1) ** 2) - (m1 - m0) @ (m1 - m0)""",
}
EQUIVALENT = {
    "numpy": {f"{part}-code": source for part, source in NUMPY.items()},
    "one_point_at_a_time": {f"{part}-code": source for part, source in SINGLE.items()},
}


class TestPS3(ProblemSetTests):
    problems, wrong, equivalent = load("PS3"), WRONG, EQUIVALENT


# -------------------------------------------------------------------------------------------------- the oracle itself


def test_the_plan_on_the_line_is_that_of_the_quantiles():
    for levels in (False, True):
        x, y, a, b = couplings.draw_line(np.random.default_rng(0), 4, levels=levels)
        plan = couplings.line_plan(x, y, a, b)
        assert np.abs(plan.sum(1) - a).max() < 1e-12 and np.abs(plan.sum(0) - b).max() < 1e-12
        cost = (plan * (x[:, None] - y) ** 2).sum()
        assert abs(cost - w2_squared_1d(x, y, weights0=a, weights1=b).item()) < 1e-12
        rows, columns = np.nonzero(plan > 1e-12)
        assert ((x[rows] - x[rows][:, None]) * (y[columns] - y[columns][:, None])).min() > -1e-12  # monotone, so unique


def test_the_shift_is_the_largest_ratio_over_all_permutations():
    for line in (False, True):
        x, y = couplings.draw_turned(np.random.default_rng(1), 2, line=line)
        ratios = [gain / price for order in itertools.permutations(range(len(x)))
                  for gain, price in [couplings.gain_and_price(x, y, np.array(order))] if price > 1e-12]  # fmt: skip
        assert len(ratios) == math.factorial(6) - 1 and abs(max(0.0, *ratios) - couplings.monotone_shift(x, y)) < 1e-7


def test_the_potentials_of_points_on_a_line_have_no_duality_gap():
    w, m, S, y, b = arguments = semidiscrete.draw_collinear(np.random.default_rng(2), 3)
    g = semidiscrete.collinear_potentials(*arguments)
    # The semi-dual depends on x through ⟨u, x⟩, up to a quadratic whose mean is known: a sum over a fine grid on the line.
    mu, sd, place, _ = semidiscrete.projected(w, m, S, y)
    r = np.linspace((mu - 9 * sd).min(), (mu + 9 * sd).max(), 400_001)
    mass = semidiscrete.density(w, mu, sd, r) * (r[1] - r[0])
    slack = 0.5 * (r[:, None] - place) ** 2 - g
    law = arguments[:4]
    walls = semidiscrete.midpoints(y)
    across = semidiscrete.cost_of_walls(*law, walls) - semidiscrete.cost_of_walls(*law, walls, across=False)
    assert np.abs(np.bincount(slack.argmin(1), mass, len(y)) - b).max() < 1e-4
    assert abs(2 * (mass @ slack.min(1) + b @ g) + across - semidiscrete.collinear_w2(*arguments)) < 1e-7
    x = GaussianMixture(*map(torch.from_numpy, (w, m, S))).sample(200_000, generator=torch.Generator().manual_seed(0)).numpy()
    paired = (0.5 * ((x[:, None] - y) ** 2).sum(2) - g).argmin(1)
    assert abs(((x - y[paired]) ** 2).sum(1).mean() / semidiscrete.collinear_w2(*arguments) - 1) < 0.02
    # The number of exercise E4.
    two = np.ones(1), np.array([[0.3, -1.0]]), np.array([[[2.0, 0.6], [0.6, 1.0]]]), np.array([[1.0, -0.5], [-0.7, 1.2]])
    assert abs(semidiscrete.collinear_w2(*two, np.array([0.3, 0.7])) - 5.7239727859) < 1e-8
    g = semidiscrete.collinear_potentials(*two, np.array([0.3, 0.7]))
    assert abs(2 * (g[0] - g[1]) + 7.4920941955) < 1e-8


def test_the_velocity_to_points_is_that_of_a_mixture_without_spread():
    t, x, m, S, y, b = semidiscrete.draw_diracs(np.random.default_rng(3), 3)
    tensors = [torch.from_numpy(a) for a in (x, m, S, y, b)]
    x_, m_, S_, y_, b_ = tensors
    plain = fm_velocity_mixture(b_, m_.expand(len(y), -1), y_, S_, 0 * S_, t, x_)
    assert (semidiscrete.dirac_velocity(t, *tensors) - plain).abs().max() < 1e-12
    step = torch.eye(3, dtype=torch.float64) * 1e-5
    shifted = lambda h: semidiscrete.dirac_velocity(t, x_ + h, *tensors[1:])
    columns = [(shifted(h) - shifted(-h)) / 2e-5 for h in step]
    assert (torch.stack(columns, -1) - semidiscrete.dirac_jacobian(t, *tensors)).abs().max() < 1e-6


def test_the_flow_ends_in_the_slabs_and_pays_the_excess():
    m, S, y, b = semidiscrete.draw_flow(np.random.default_rng(4), 2, n=3)
    m_, S_, y_, b_ = map(torch.from_numpy, (m, S, y, b))
    direction, _place, order = semidiscrete.on_the_line(y)
    x, _weights = Gaussian(m_, S_).quadrature(60)

    def velocity(tau, z):  # in τ = −log(1 − t), whose right side is bounded near the points
        return math.exp(-tau) * semidiscrete.dirac_velocity(-math.expm1(-tau), z, m_, S_, y_, b_)

    end = integrate(velocity, x, t1=5.0, steps=400, method="midpoint")
    hit = torch.cdist(end, y_).argmin(1).numpy()
    normal = np.linalg.solve(S, direction)
    level = norm.cdf((x.numpy() - m) @ normal / math.sqrt(normal @ S @ normal))
    walls = np.cumsum(b[order])[:-1]
    sure = np.abs(level[:, None] - walls).min(1) > 0.02
    assert sure.mean() > 0.9 and (order[np.searchsorted(walls, level[sure])] == hit[sure]).all()
    # Excess and share by a sum over a fine grid of the plane, with these slabs and with those of the optimal plan.
    root, line = np.linalg.cholesky(S), np.linspace(-7, 7, 1401)
    z = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    mass, x = norm.pdf(z).prod(1) * (line[1] - line[0]) ** 2, m + z @ root.T

    def assigned(vector):
        return order[np.searchsorted(walls, norm.cdf((x - m) @ vector / math.sqrt(vector @ S @ vector)))]

    flow, best = assigned(normal), assigned(direction)
    cost = ((x - y[flow]) ** 2).sum(1) - ((x - y[best]) ** 2).sum(1)
    assert abs(mass @ cost - semidiscrete.flow_excess(m, S, y, b)) < 2e-3
    assert abs(mass @ (flow != best) - semidiscrete.flow_elsewhere(m, S, y, b)) < 2e-3


def test_the_loss_floor_is_what_the_velocity_leaves():
    rng = np.random.default_rng(5)
    (m, S), (y, b) = draws.law(rng, 2), semidiscrete.collinear(rng, 2, 3)
    m_, S_, y_, b_ = map(torch.from_numpy, (m, S, y, b))
    z, weights = Gaussian(0 * m_, torch.eye(2, dtype=torch.float64)).quadrature(80)
    root, energy = torch.linalg.cholesky(S_), 0.0
    for t, weight in zip(*(a.tolist() for a in gauss_legendre(60)), strict=True):
        for point, share in zip(y_, b_, strict=True):  # X_t given its end is Gaussian
            x = (1 - t) * (m_ + z @ root.T) + t * point
            energy += weight * share * (weights @ semidiscrete.dirac_velocity(t, x, m_, S_, y_, b_).square().sum(1))
    assert abs(semidiscrete.mean_square(m, S, y, b) - energy - semidiscrete.loss_floor(m, S, y, b)) < 1e-5
    ends = np.array([[1.4], [-1.4]]), np.full(2, 0.5)  # the number of exercise E10
    assert abs(semidiscrete.loss_floor(np.zeros(1), np.eye(1), *ends) - 1.4246423196) < 1e-8


def test_the_slices_agree_with_random_directions_and_with_the_closed_cases():
    rng = np.random.default_rng(6)
    for d in (2, 3):
        laws, x = draws.laws(rng, d), draws.points(rng, d)
        m0, S0, m1, S1 = laws
        theta = rng.standard_normal((400_000, d))
        theta /= np.linalg.norm(theta, axis=1, keepdims=True)
        s0, s1 = (np.sqrt(np.einsum("li,ij,lj->l", theta, S, theta)) for S in (S0, S1))
        matrix = d * (theta.T * (s1 / s0)) @ theta / len(theta)
        scale = np.abs(x - m0).max()
        assert np.abs(m1 + (x - m0) @ matrix.T - sliced.sliced_map(x, *laws)).max() < 0.02 * scale
        p, q = closed_forms.as_laws(*laws)
        distance = ((m1 - m0) ** 2).sum() + np.trace(S0 + S1) - 2 * np.trace(monge_map(p, q).matrix.numpy() @ S0)
        assert abs(distance - ((m1 - m0) ** 2).sum() - d * ((s1 - s0) ** 2).mean() - sliced.sliced_gap(*laws)) < 0.02
        # Isotropic covariances: the sliced map is Monge's, and the gap is 0.
        plain = m0, np.eye(d), m1, 4 * np.eye(d)
        assert np.abs(sliced.sliced_map(x, *plain) - m1 - 2 * (x - m0)).max() < 1e-10 and abs(sliced.sliced_gap(*plain)) < 1e-10
    first = np.array([0.3, -1.0]), np.array([[2.0, 0.6], [0.6, 1.0]])
    second = np.array([1.5, 0.7]), np.array([[1.0, -0.5], [-0.5, 3.0]])
    assert abs(sliced.sliced_gap(*first, *second) - 2 * (2.7243619542 - 2.4581804230)) < 1e-9  # exercise E5


def test_the_sliced_bound_is_the_best_of_its_ray_and_below_the_cost():
    x, y, a, b, theta = sliced.draw_clouds(np.random.default_rng(7), 3)
    f, cost = sliced.sliced_potential(x, y, a, b, theta), squared_cost(*map(torch.from_numpy, (x, y)))
    values = [a @ (s * f) + b @ c_transform(cost, torch.from_numpy(s * f)).numpy() for s in np.linspace(0, 9, 9001)]
    bound = sliced.sliced_bound(x, y, a, b, theta)
    assert -1e-9 < bound - max(values) < 1e-2 and bound < ot.emd2(a, b, cost.numpy())


def test_labelled_plans_are_optimal_and_the_ascent_is_its_recursion():
    x0, l0, x1, l1, beta = couplings.draw_labelled(np.random.default_rng(8), 2, as_many=True)
    cost, share = couplings.labelled_pairs(x0, l0, x1, l1, beta)
    c = 0.5 * ((x0[:, None] - x1) ** 2).sum(2) + beta * (l0[:, None] != l1)
    assert abs(cost + beta * share - c[linear_sum_assignment(c)].mean()) < 1e-9
    for epsilon in (False, True):
        x, y, b, strength, rate = couplings.draw_ascent(np.random.default_rng(9), 2, epsilon=epsilon)
        g, path = np.zeros(len(y)), []
        for k, point in enumerate(x):
            score = g - 0.5 * ((point - y) ** 2).sum(1)
            p = b * np.exp((score - score.max()) / strength) if epsilon else 1.0 * (score == score.max())
            g = g + rate / math.sqrt(k + 1) * (b - p / p.sum())
            path.append(g)
        mean = np.mean(path, 0)
        assert np.abs(mean - b @ mean - couplings.ascent(x, y, b, strength, rate)).max() < 1e-12
