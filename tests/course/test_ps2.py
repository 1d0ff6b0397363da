"""Problem set 2: its catalogue of wrong answers, other right answers, and its oracle."""

from __future__ import annotations

import math

import numpy as np
import torch
from course_grading import ProblemSetTests
from scipy.optimize import minimize

from dynot_lite.course.assignment import load
from dynot_lite.course.oracle import closed_forms, draws
from dynot_lite.course.oracle.closed_forms import as_laws, distance_squared
from dynot_lite.course.oracle.ps2 import action_matching, duality, entropy, hopf_lax
from dynot_lite.laws.gaussian import Gaussian, entropic_plan, schroedinger_bridge
from dynot_lite.paths.continuity import gauss_legendre
from dynot_lite.potentials.action_matching import AutodiffAction, action_matching_loss

# The square roots of a matrix, and a bridge over a plan that is wrong.
ROOTS = """
    values, basis = torch.linalg.eigh(G)
    root, inverse = basis * values.sqrt() @ basis.T, basis / values.sqrt() @ basis.T
    first, second = inverse @ S0 @ inverse, inverse @ S1 @ inverse"""
BRIDGE = """
    cov = (1 - t) ** 2 * S0 + t**2 * S1 + t * (1 - t) * (C + C.T + G)
    gain = t * S1 - (1 - t) * S0 + (1 - t) * C.T - t * C - t * G
    return m1 - m0 + (x - (1 - t) * m0 - t * m1) @ torch.linalg.solve(cov, gain.T)"""

# error: (part, points lost, function with the error)
WRONG = {
    "the matrix ½Σ'Σ⁻¹ of flow matching (E1 B)": (
        "ps2-1", 5, """
def true_action(t, x, m0, S0, m1, S1, C):
    cov = (1 - t) ** 2 * S0 + t**2 * S1 + t * (1 - t) * (C + C.T)
    gain = t * S1 - (1 - t) * S0 + (1 - t) * C.T - t * C
    y, B = x - (1 - t) * m0 - t * m1, gain @ torch.linalg.inv(cov)
    return y @ (m1 - m0) + 0.5 * ((y @ B) * y).sum(1) - 0.5 * torch.trace(B @ cov)""",
    ),
    "the action is not centred": (
        "ps2-1", 5, """
def true_action(t, x, m0, S0, m1, S1, C):
    from scipy.linalg import solve_continuous_lyapunov
    cov = (1 - t) ** 2 * S0 + t**2 * S1 + t * (1 - t) * (C + C.T)
    d_cov = 2 * t * S1 - 2 * (1 - t) * S0 + (1 - 2 * t) * (C + C.T)
    y, B = x - (1 - t) * m0 - t * m1, torch.from_numpy(solve_continuous_lyapunov(cov.numpy(), d_cov.numpy()))
    return y @ (m1 - m0) + 0.5 * ((y @ B) * y).sum(1)""",
    ),
    "−K is forgotten (E1 A)": ("ps2-1", 3, "def least_loss(m0, S0, m1, S1, C):\n    return 0.0"),
    "the least loss is −½W₂² (E3 A)": (
        "ps2-1", 3, "def least_loss(m0, S0, m1, S1, C):\n    return -0.5 * w2_squared(Gaussian(m0, S0), Gaussian(m1, S1))",
    ),
    "no conditioning in the energy (E3 B)": (
        "ps2-1", 3, """
def least_loss(m0, S0, m1, S1, C):
    return -0.5 * ((m1 - m0).square().sum() + torch.trace(S0 + S1 - 2 * C))""",
    ),
    "the energy of flow matching (E1 B)": (
        "ps2-1", 3, """
def least_loss(m0, S0, m1, S1, C):
    return -0.5 * fm_kinetic_energy(Gaussian(m0, S0), Gaussian(m1, S1), cross_cov=C)""",
    ),
    "the equation lacks its ½ (E2 A)": (
        "ps2-3", 2, """
def metric_action(t, x, Q, q, A):
    R = torch.linalg.inv(torch.eye(len(q)) + 2 * t * A @ Q)
    return 0.5 * ((x @ Q @ R) * x).sum(1) + x @ R.T @ q - t * q @ R @ A @ q""",
    ),
    "A and Q are in the wrong order": (
        "ps2-3", 2, """
def metric_action(t, x, Q, q, A):
    R = torch.linalg.inv(torch.eye(len(q)) + t * Q @ A)
    return 0.5 * ((x @ Q @ R) * x).sum(1) + x @ R.T @ q - 0.5 * t * q @ R @ A @ q""",
    ),
    "a form that divides by t": (
        "ps2-3", 1, """
def metric_action(t, x, Q, q, A):
    W = torch.linalg.inv(A) / torch.tensor(t)
    z = torch.linalg.solve(W + Q, (x @ W - q).T).T
    return 0.5 * ((z @ Q) * z).sum(1) + z @ q + 0.5 * (((x - z) @ W) * (x - z)).sum(1)""",
    ),
    "the eigenvalue of largest modulus": (
        "ps2-3", 2, "def lifespan(Q, A):\n    return 1 / torch.linalg.eigvals(A @ Q).abs().max()",
    ),
    "the displacement is taken at x": (
        "ps2-4", 8, """
def optimal_velocity(t, x, M, c, kappa):
    return x @ M + kappa * (x - c) / (1 + (x - c).square().sum(1, keepdim=True)).sqrt() - x""",
    ),
    "Ψ evolves, not Ψ less half a square": (
        "ps2-4", 5, """
def optimal_action(t, x, M, c, kappa):
    # The flow of Ψ + ½|x|², whose velocity is ∇Ψ.
    u = optimal_velocity(t, x, M + torch.eye(len(c)), c, kappa)
    z = x - t * u
    return 0.5 * ((z @ M) * z).sum(1) + kappa * (1 + (z - c).square().sum(1)).sqrt() + 0.5 * t * u.square().sum(1)""",
    ),
    "the value divides by t": (
        "ps2-4", 1, """
def optimal_action(t, x, M, c, kappa):
    z = x - t * optimal_velocity(t, x, M, c, kappa)
    start = 0.5 * ((z @ M) * z).sum(1) + kappa * (1 + (z - c).square().sum(1)).sqrt() - 0.5 * z.square().sum(1)
    return start + (x - z).square().sum(1) / (2 * torch.tensor(t))""",
    ),
    "the moments without their ½ (T1)": (
        "ps2-6", 3, """
def am_loss(x0, x1, M, b, h):
    dual = 0.5 * ((x0 @ M) * x0).sum(1) + x0 @ b + 0.5 * (((x1 - b) @ torch.linalg.inv(M)) * (x1 - b)).sum(1)
    return (dual - x0.square().sum(1) - x1.square().sum(1)).mean()""",
    ),
    "L_OT for L_AM (T1)": (
        "ps2-6", 3, """
def am_loss(x0, x1, M, b, h):
    return (0.5 * ((x0 @ M) * x0).sum(1) + x0 @ b + 0.5 * (((x1 - b) @ torch.linalg.inv(M)) * (x1 - b)).sum(1)).mean()""",
    ),
    "no factor 2 (T2)": (
        "ps2-6", 3, """
def bent_loss(x0, x1, M, b, h):
    dual = 0.5 * ((x0 @ M) * x0).sum(1) + x0 @ b + 0.5 * (((x1 - b) @ torch.linalg.inv(M)) * (x1 - b)).sum(1)
    return (dual - (x0 * x1).sum(1)).mean() + 0.25 * math.pi**2 * h.square().sum()""",
    ),
    "the sign of the inner product (T2)": (
        "ps2-6", 3, """
def bent_loss(x0, x1, M, b, h):
    dual = 0.5 * ((x0 @ M) * x0).sum(1) + x0 @ b + 0.5 * (((x1 - b) @ torch.linalg.inv(M)) * (x1 - b)).sum(1)
    return 2 * (dual + (x0 * x1).sum(1)).mean() + 0.5 * math.pi**2 * h.square().sum()""",
    ),
    "the bend costs nothing (T3)": (
        "ps2-6", 2, """
def bent_loss(x0, x1, M, b, h):
    dual = 0.5 * ((x0 @ M) * x0).sum(1) + x0 @ b + 0.5 * (((x1 - b) @ torch.linalg.inv(M)) * (x1 - b)).sum(1)
    return 2 * (dual - (x0 * x1).sum(1)).mean()""",
    ),
    "variances for standard deviations": (
        "ps2-7", 3, """
def basis_potential(U, m0, S0, m1, S1):
    first, second = ((U.T @ S @ U).diagonal() for S in (S0, S1))
    M = U * (second / first) @ U.T
    return M, m1 - M @ m0""",
    ),
    "the optimal matrix cut down to the basis": (
        "ps2-7", 3, """
def basis_potential(U, m0, S0, m1, S1):
    from dynot_lite.laws.gaussian import monge_map
    M = U * (U.T @ monge_map(Gaussian(m0, S0), Gaussian(m1, S1)).matrix @ U).diagonal() @ U.T
    return M, m1 - M @ m0""",
    ),
    "half the bound (E2 B)": (
        "ps2-7", 2, """
def basis_bound(U, m0, S0, m1, S1):
    first, second = ((U.T @ S @ U).diagonal().sqrt() for S in (S0, S1))
    return 0.5 * ((m1 - m0).square().sum() + (second - first).square().sum())""",
    ),
    "a field that is no gradient (E1 B)": (
        "ps2-8", 9, """
def best_stationary(kappa, m0, S0, m1, S1, C):
    # E[X1 − X0 | X_t] regressed on X_t over time, without asking for symmetry.
    total, mu, drift, P, R = 1 - 0.5 * kappa, 0.0, m1 - m0, 0.0, 0.0
    for node, weight in zip(*gauss_legendre(20)):
        t = node.item()
        w, m = weight * (1 - kappa * t), (1 - t) * m0 + t * m1
        P = P + w * ((1 - t) ** 2 * S0 + t**2 * S1 + t * (1 - t) * (C + C.T) + torch.outer(m, m))
        R = R + w * (t * S1 - (1 - t) * S0 + (1 - t) * C.T - t * C + torch.outer(drift, m))
        mu = mu + w * m
    Q = (R - torch.outer(drift, mu)) @ torch.linalg.inv(P - torch.outer(mu, mu) / total)
    return Q, drift - Q @ mu / total""",
    ),
    "the weight is ignored": (
        "ps2-8", 5, """
def best_stationary(kappa, m0, S0, m1, S1, C):
    from scipy.linalg import solve_continuous_lyapunov
    d, mu = m1 - m0, 0.5 * (m0 + m1)
    V = (S0 + S1) / 3 + (C + C.T) / 6 + torch.outer(d, d) / 12
    right = S1 + torch.outer(m1, m1) - S0 - torch.outer(m0, m0) - torch.outer(d, mu) - torch.outer(mu, d)
    Q = torch.from_numpy(solve_continuous_lyapunov(V.numpy(), right.numpy()))
    return Q, d - Q @ mu""",
    ),
    "log(T) x is optimal (E8 A)": (
        "ps2-9", 3, """
def autonomous_energy(T, m, S):
    move = T - torch.eye(len(m))
    return torch.trace(move @ (S + torch.outer(m, m)) @ move)""",
    ),
    "the clock does not matter (E8 B)": (
        "ps2-9", 2, "def weighted_energy(kappa, m0, S0, m1, S1):\n    return w2_squared(Gaussian(m0, S0), Gaussian(m1, S1))",
    ),
    "constant speed under a weight": (
        "ps2-9", 2, """
def best_law(t, kappa, m0, S0, m1, S1):
    found = geodesic(Gaussian(m0, S0), Gaussian(m1, S1), t)
    return found.mean, found.cov""",
    ),
    "the ε of the cost without ½ (E6 A)": (
        "ps2-10", 3, f"""
def entropic_cross(S0, S1, G, epsilon):{ROOTS}
    mean = torch.zeros(len(S0))
    plan = entropic_plan(Gaussian(mean, root @ S0 @ root), Gaussian(mean, root @ S1 @ root), epsilon / 2)
    return inverse @ plan.cross_cov @ inverse""",
    ),
    "the metric is inverted": (
        "ps2-10", 3, f"""
def entropic_cross(S0, S1, G, epsilon):{ROOTS}
    mean = torch.zeros(len(S0))
    return root @ entropic_plan(Gaussian(mean, first), Gaussian(mean, second), epsilon).cross_cov @ root""",
    ),
    "the cost is that without entropy (E6 B)": (
        "ps2-10", 2, f"""
def entropic_cost(m0, S0, m1, S1, G, epsilon):{ROOTS}
    return 0.5 * w2_squared(Gaussian(root @ m0, root @ S0 @ root), Gaussian(root @ m1, root @ S1 @ root))""",
    ),
    "the ε of the cost without ½, in the bridge (E7 A)": (
        "ps2-11", 4, f"""
def bridge_drift(t, x, m0, S0, m1, S1, G):{ROOTS}
    C = root @ entropic_plan(Gaussian(m0, first), Gaussian(m1, second), 0.5).cross_cov @ root{BRIDGE}""",
    ),
    "bridges over the plan without entropy (E7 B)": (
        "ps2-11", 4, f"""
def bridge_drift(t, x, m0, S0, m1, S1, G):{ROOTS}
    from dynot_lite.laws.gaussian import monge_map
    C = root @ first @ monge_map(Gaussian(m0, first), Gaussian(m1, second)).matrix @ root{BRIDGE}""",
    ),
    "the current velocity for the drift": (
        "ps2-11", 4, "def bridge_drift(t, x, m0, S0, m1, S1, G):\n    return bridge_velocity(t, x, m0, S0, m1, S1, G)",
    ),
}  # fmt: skip

NUMPY = {
    "ps2-1": """
from scipy.integrate import quad
from scipy.linalg import solve_continuous_lyapunov
def parts(t, S0, S1, C):
    P, D = np.array([1 - t, t]), np.array([-1, 1])
    mix = lambda a, b: a[0] * b[0] * S0 + a[1] * b[1] * S1 + a[0] * b[1] * C + a[1] * b[0] * C.T
    S, half = mix(P, P), mix(D, P)
    return S, solve_continuous_lyapunov(S, half + half.T)
def true_action(t, x, m0, S0, m1, S1, C):
    x, m0, S0, m1, S1, C = map(np.asarray, (x, m0, S0, m1, S1, C))
    S, B = parts(t, S0, S1, C)
    y = x - (1 - t) * m0 - t * m1
    return y @ (m1 - m0) + 0.5 * np.einsum("ni,ij,nj->n", y, B, y) - 0.5 * np.einsum("ij,ji", B, S)
def least_loss(m0, S0, m1, S1, C):
    m0, S0, m1, S1, C = map(np.asarray, (m0, S0, m1, S1, C))
    def power(t):
        S, B = parts(t, S0, S1, C)
        return ((m1 - m0) ** 2).sum() + np.trace(B @ S @ B)
    return -quad(power, 0, 1, epsabs=1e-9)[0] / 2""",
    "ps2-3": """
from scipy.linalg import eigvals
def metric_action(t, x, Q, q, A):
    x, Q, q, A = map(np.asarray, (x, Q, q, A))
    z = np.linalg.solve(np.eye(len(q)) + t * A @ Q, (x - t * A @ q).T).T
    p = z @ Q + q
    return 0.5 * (z * (p + q)).sum(1) + 0.5 * t * ((p @ A) * p).sum(1)
def lifespan(Q, A):
    return -1 / eigvals(np.asarray(A) @ np.asarray(Q)).real.min()""",
    "ps2-4": """
def place(t, x, M, c, kappa):
    # Least squares, reweighted: the root lies below the parabola that touches it at the last point.
    z = x
    for _ in range(400):
        w = np.sqrt(1 + ((z - c) ** 2).sum(1))[:, None, None]
        matrix = (1 - t) * np.eye(len(c)) + t * (M + kappa / w * np.eye(len(c)))
        z = np.linalg.solve(matrix, (x + t * kappa * c / w[:, :, 0])[:, :, None])[:, :, 0]
    return z
def optimal_velocity(t, x, M, c, kappa):
    x, M, c = map(np.asarray, (x, M, c))
    z = place(t, x, M, c, kappa)
    return z @ M + kappa * (z - c) / np.sqrt(1 + ((z - c) ** 2).sum(1))[:, None] - z
def optimal_action(t, x, M, c, kappa):
    x, M, c = map(np.asarray, (x, M, c))
    z = place(t, x, M, c, kappa)
    value = 0.5 * ((z @ M) * z).sum(1) + kappa * np.sqrt(1 + ((z - c) ** 2).sum(1)) - 0.5 * (z**2).sum(1)
    return value if t == 0 else value + ((x - z) ** 2).sum(1) / (2 * t)""",
    "ps2-7": """
def basis_potential(U, m0, S0, m1, S1):
    U, m0, S0, m1, S1 = map(np.asarray, (U, m0, S0, m1, S1))
    M = sum(np.sqrt((u @ S1 @ u) / (u @ S0 @ u)) * np.outer(u, u) for u in U.T)
    return [M, (m1 - M @ m0)[:, None]]
def basis_bound(U, m0, S0, m1, S1):
    M, b = (np.squeeze(part) for part in basis_potential(U, m0, S0, m1, S1))
    m0, S0, m1, S1 = map(np.asarray, (m0, S0, m1, S1))
    M, b = M.reshape(S0.shape), b.reshape(m0.shape)
    first, second = S0 + np.outer(m0, m0), S1 + np.outer(m1 - b, m1 - b)
    dual = 0.5 * np.trace(M @ first) + b @ m0 + 0.5 * np.trace(np.linalg.inv(M) @ second)
    return np.trace(first) + np.trace(S1) + m1 @ m1 - 2 * dual""",
    "ps2-9": """
from scipy.linalg import expm, logm, sqrtm
def autonomous_energy(T, m, S):
    T, m, S = map(np.asarray, (T, m, S))
    L = logm(T).real
    P = S + np.outer(m, m)
    a, b = np.polynomial.legendre.leggauss(20)
    return sum(0.5 * w * np.trace(L @ expm((s + 1) * L) @ L @ P) for s, w in zip(a, b))
def weighted_energy(kappa, m0, S0, m1, S1):
    m0, S0, m1, S1 = map(np.asarray, (m0, S0, m1, S1))
    w2 = ((m0 - m1) ** 2).sum() + np.trace(S0 + S1 - 2 * sqrtm(S0 @ S1).real)
    return kappa * w2 / np.log(1 + kappa)
def best_law(t, kappa, m0, S0, m1, S1):
    m0, S0, m1, S1 = map(np.asarray, (m0, S0, m1, S1))
    s = np.log(1 + kappa * t) / np.log(1 + kappa)
    cross = sqrtm(S0 @ S1).real
    return [(1 - s) * m0 + s * m1, (1 - s) ** 2 * S0 + s**2 * S1 + s * (1 - s) * (cross + cross.T)]""",
    "ps2-10": """
from scipy.linalg import sqrtm
def entropic_cross(S0, S1, A, epsilon):
    S0, S1, A = map(np.asarray, (S0, S1, A))
    # Off the diagonal the joint precision is −A/ε: with K = CA this is K² + εK = S0 A S1 A.
    return (sqrtm(S0 @ A @ S1 @ A + epsilon**2 / 4 * np.eye(len(S0))) - epsilon / 2 * np.eye(len(S0))).real @ np.linalg.inv(A)
def entropic_cost(m0, S0, m1, S1, A, epsilon):
    m0, S0, m1, S1, A = map(np.asarray, (m0, S0, m1, S1, A))
    C = entropic_cross(S0, S1, A, epsilon)
    left = np.linalg.det(np.eye(len(S0)) - np.linalg.solve(S0, C) @ np.linalg.solve(S1, C.T))
    cost = 0.5 * ((m0 - m1) @ A @ (m0 - m1) + np.trace(A @ (S0 + S1 - C - C.T)))
    return cost - epsilon / 2 * np.log(left)""",
    "ps2-11": """
from scipy.linalg import sqrtm
def gain(t, x, m0, S0, m1, S1, G, noise):
    x, m0, S0, m1, S1, G = map(np.asarray, (x, m0, S0, m1, S1, G))
    C = (sqrtm(S0 @ np.linalg.inv(G) @ S1 @ np.linalg.inv(G) + np.eye(len(G)) / 4).real - np.eye(len(G)) / 2) @ G
    S = (1 - t) ** 2 * S0 + t**2 * S1 + t * (1 - t) * (C + C.T + G)
    y = np.linalg.solve(S, (x - (1 - t) * m0 - t * m1).T)
    return m1 - m0 + ((t * S1 - (1 - t) * S0 + (1 - t) * C.T - t * C + noise * G) @ y).T
def bridge_drift(t, x, m0, S0, m1, S1, G):
    return gain(t, x, m0, S0, m1, S1, G, -t)
def bridge_velocity(t, x, m0, S0, m1, S1, G):
    return gain(t, x, m0, S0, m1, S1, G, 0.5 - t)""",
}
# One point at a time, with products of matrices and vectors that fail for a batch.
SINGLE = {
    "ps2-1": """
def slope(t, S0, S1, C):
    S = (1 - t) ** 2 * S0 + t**2 * S1 + t * (1 - t) * (C + C.T)
    right = 2 * t * S1 - 2 * (1 - t) * S0 + (1 - 2 * t) * (C + C.T)
    eye = torch.eye(len(S))
    return torch.linalg.solve(torch.kron(S, eye) + torch.kron(eye, S), right.reshape(-1)).reshape(S.shape), S
def true_action(t, x, m0, S0, m1, S1, C):
    B, S = slope(t, S0, S1, C)
    y = x - (1 - t) * m0 - t * m1
    return y.dot(m1 - m0) + 0.5 * y.dot(B.mv(y)) - 0.5 * torch.trace(B @ S)
def least_loss(m0, S0, m1, S1, C):
    total = (m1 - m0).dot(m1 - m0)
    for t, weight in zip(*gauss_legendre(30)):
        B, S = slope(t, S0, S1, C)
        total = total + weight * torch.trace(B @ S @ B)
    return -0.5 * total""",
    "ps2-3": """
def metric_action(t, x, Q, q, A):
    if t == 0:
        return 0.5 * x.dot(Q.mv(x)) + q.dot(x)
    W = torch.linalg.inv(A) / t
    z = torch.linalg.solve(W + Q, W.mv(x) - q)
    return 0.5 * z.dot(Q.mv(z)) + q.dot(z) + 0.5 * (x - z).dot(W.mv(x - z))
def lifespan(Q, A):
    L = torch.linalg.cholesky(A)
    return -1 / torch.linalg.eigvalsh(L.T @ Q @ L).min()""",
    "ps2-4": """
from scipy.optimize import minimize
def foot(t, x, M, c, kappa):
    x, M, c = map(np.asarray, (x, M, c))
    psi = lambda z: 0.5 * z.dot(M.dot(z)) + kappa * np.sqrt(1 + (z - c).dot(z - c))
    value = lambda z: 0.5 * (1 - t) * z.dot(z) + t * psi(z) - z.dot(x)
    slope = lambda z: (1 - t) * z + t * (M.dot(z) + kappa * (z - c) / np.sqrt(1 + (z - c).dot(z - c))) - x
    return minimize(value, x, jac=slope, method="BFGS", options={"gtol": 1e-9}).x
def optimal_velocity(t, x, M, c, kappa):
    z = foot(t, x, M, c, kappa)
    M, c = np.asarray(M), np.asarray(c)
    return M.dot(z) + kappa * (z - c) / np.sqrt(1 + (z - c).dot(z - c)) - z
def optimal_action(t, x, M, c, kappa):
    z, u = foot(t, x, M, c, kappa), optimal_velocity(t, x, M, c, kappa)
    M, c = np.asarray(M), np.asarray(c)
    return 0.5 * z.dot(M.dot(z)) + kappa * np.sqrt(1 + (z - c).dot(z - c)) - 0.5 * z.dot(z) + 0.5 * t * u.dot(u)""",
}
# By quadrature, by minimisation, and by differentiation of the loss.
NUMERICAL = {
    "ps2-6": """
from dynot_lite.potentials.action_matching import action_matching_loss
from dynot_lite.potentials.optimal_flow_matching import ofm_loss
from dynot_lite.potentials.convex import Quadratic
def am_loss(x0, x1, M, b, h):
    times, weights = gauss_legendre(8)
    path = lambda t: (1 - t) * x0 + t * x1 + math.sin(math.pi * t) * h
    action = OptimalAction(Quadratic(len(b), matrix=M, offset=b))
    return action_matching_loss(action, x0, x1, path, times, quadrature=weights / weights.sum())
def bent_loss(x0, x1, M, b, h):
    total, eye = 0.0, torch.eye(len(b))
    for t, weight in zip(*gauss_legendre(40)):
        x = (1 - t) * x0 + t * x1 + torch.sin(math.pi * t) * h
        z = (x - t * b) @ torch.linalg.inv((1 - t) * eye + t * M)
        total += weight * (z @ M + b - z - (x1 - x0 + math.pi * torch.cos(math.pi * t) * h)).square().sum(1).mean()
    return total""",
    "ps2-7": """
from scipy.optimize import minimize
def fitted(U, m0, S0, m1, S1):
    U, m0, S0, m1, S1 = map(np.asarray, (U, m0, S0, m1, S1))
    first, second = (np.diag(U.T @ S @ U) for S in (S0, S1))
    found = minimize(lambda r: (np.exp(r) * first + np.exp(-r) * second).sum(), 0 * first, options={"gtol": 1e-10})
    M = (U * np.exp(found.x)) @ U.T
    return M, m1 - M @ m0, ((m1 - m0) ** 2).sum() + np.trace(S0) + np.trace(S1) - found.fun
def basis_potential(U, m0, S0, m1, S1):
    return fitted(U, m0, S0, m1, S1)[:2]
def basis_bound(U, m0, S0, m1, S1):
    return fitted(U, m0, S0, m1, S1)[2]""",
    "ps2-8": """
def best_stationary(kappa, m0, S0, m1, S1, C):
    # The weighted loss is quadratic in (Q, q): its gradient at 0 and its Hessian give the minimiser.
    d = len(m0)
    nodes, weights = gauss_legendre(12)
    def second(t):
        m = (1 - t) * m0 + t * m1
        return (1 - t) ** 2 * S0 + t**2 * S1 + t * (1 - t) * (C + C.T) + torch.outer(m, m), m
    def loss(parameters):
        Q, q = parameters[: d * d].reshape(d, d), parameters[d * d :]
        Q = 0.5 * (Q + Q.T)
        mean = lambda P, m: 0.5 * (Q * P).sum() + q @ m
        total = mean(*second(0.0)) - (1 - kappa) * mean(*second(1.0))
        for t, weight in zip(nodes, weights):
            P, m = second(t)
            power = ((Q @ P) * Q).sum() + 2 * q @ Q @ m + q @ q
            total = total + weight * (0.5 * (1 - kappa * t) * power - kappa * mean(P, m))
        return total
    start = torch.zeros(d * d + d)
    gradient, hessian = torch.func.grad(loss)(start), torch.func.hessian(loss)(start)
    found = -torch.linalg.pinv(hessian, hermitian=True) @ gradient
    Q = found[: d * d].reshape(d, d)
    return 0.5 * (Q + Q.T), found[d * d :]""",
}
EQUIVALENT = {
    name: {f"{part}-code": source for part, source in sources.items()}
    for name, sources in {"numpy": NUMPY, "one_point_at_a_time": SINGLE, "numerical": NUMERICAL}.items()
}


class TestPS2(ProblemSetTests):
    problems, wrong, equivalent = load("PS2"), WRONG, EQUIVALENT


# -------------------------------------------------------------------------------------------------- the oracle itself


def slopes(function, x, step=1e-4):
    """Central differences of a function of points in each coordinate, along a last axis."""
    shifts = step * np.eye(x.shape[1])
    return np.stack([(function(x + shift) - function(x - shift)) / (2 * step) for shift in shifts], -1)


def rate(function, t, step=1e-4):
    return (function(t + step) - function(t - step)) / (2 * step)


def nodes_of(mean, cov, order=3):
    return (a.numpy() for a in Gaussian(torch.from_numpy(mean), torch.from_numpy(cov)).quadrature(order))


def test_the_action_of_the_path_moves_its_moments_and_attains_the_least_loss():
    rng = np.random.default_rng(0)
    data = draws.coupled(rng, 3)
    action = lambda t, x: action_matching.true_action(t, x, *data)

    def law_at(t):  # as the image of the joint law
        joint = np.block([[data[1], data[4]], [data[4].T, data[3]]])
        image = np.hstack([(1 - t) * np.eye(3), t * np.eye(3)])
        return image @ np.concatenate([data[0], data[2]]), image @ joint @ image.T

    (mean, cov), x = law_at(0.3), rng.standard_normal((4, 3))
    field = lambda x: slopes(lambda y: action(0.3, y), x)
    slope, at_mean = slopes(field, mean[None], 1e-2)[0], field(mean[None])[0]
    assert np.abs(slope - slope.T).max() < 1e-7 and np.abs(at_mean - rate(lambda t: law_at(t)[0], 0.3)).max() < 1e-7
    assert np.abs(slope @ cov + cov @ slope.T - rate(lambda t: law_at(t)[1], 0.3)).max() < 1e-6
    x, weights = nodes_of(mean, cov)
    assert abs(weights @ action(0.3, x)) < 1e-12

    def expected(values, t):
        x, weights = nodes_of(*law_at(t))
        return weights @ values(x)

    loss = expected(lambda x: action(0.0, x), 0.0) - expected(lambda x: action(1.0, x), 1.0)
    for t, weight in zip(*(a.tolist() for a in gauss_legendre(24)), strict=True):
        interior = lambda x, t=t: rate(lambda s: action(s, x), t) + 0.5 * (slopes(lambda y: action(t, y), x) ** 2).sum(1)
        loss += weight * expected(interior, t)
    assert abs(loss - action_matching.least_loss(*data)) < 1e-6


def test_hopf_lax_with_a_metric_is_the_infimum_solves_its_equation_and_ends_with_its_lifespan():
    rng = np.random.default_rng(1)
    t, x, Q, q, A = hopf_lax.draw_metric(rng, 3)
    W = np.linalg.inv(A) / t
    bracket = lambda z, y: 0.5 * z @ Q @ z + q @ z + 0.5 * (y - z) @ W @ (y - z)
    least = [minimize(bracket, y, args=(y,), options={"gtol": 1e-8}).fun for y in x]
    assert np.abs(hopf_lax.metric_action(t, x, Q, q, A) - least).max() < 1e-7
    p = slopes(lambda y: hopf_lax.metric_action(t, y, Q, q, A), x)
    power = 0.5 * closed_forms.form(p, A)
    assert np.abs(rate(lambda s: hopf_lax.metric_action(s, x, Q, q, A), t) / power + 1).max() < 1e-5
    T = hopf_lax.lifespan(Q, A)
    before, after = (np.linalg.eigvalsh(np.linalg.inv(A) / (T * factor) + Q)[0] for factor in (1 - 1e-6, 1 + 1e-6))
    assert before > 0 > after


def test_the_curved_action_is_the_minimum_and_solves_the_equation():
    rng = np.random.default_rng(2)
    t, x, *data = hopf_lax.draw_curved(rng, 3)
    bracket = lambda z, y: hopf_lax.curved(z, *data)[0] - 0.5 * z @ z + (y - z) @ (y - z) / (2 * t)
    least = [minimize(bracket, y, args=(y,), options={"gtol": 1e-8}).fun for y in x]
    assert np.abs(hopf_lax.curved_action(t, x, *data) - least).max() < 1e-7
    u = hopf_lax.curved_velocity(t, x, *data)
    assert np.abs(slopes(lambda y: hopf_lax.curved_action(t, y, *data), x) - u).max() < 1e-6
    assert np.abs(rate(lambda s: hopf_lax.curved_action(s, x, *data), t) + 0.5 * (u**2).sum(1)).max() < 1e-5
    ends = [hopf_lax.curved(x, *data)[0] - 0.5 * (x**2).sum(1), []]
    for y in x:  # at time 1: ½|y|² − Ψ*(y)
        ends[1].append(0.5 * y @ y + minimize(lambda z, y=y: hopf_lax.curved(z, *data)[0] - y @ z, y, options={"gtol": 1e-8}).fun)
    for time, end in zip((0.0, 1.0), ends, strict=True):
        assert np.abs(hopf_lax.curved_action(time, x, *data) - end).max() < 1e-7


def test_the_losses_along_bent_paths_are_those_of_the_pathwise_identity():
    x0, x1, M, b, h = duality.draw_bent(np.random.default_rng(3), 3)
    dual = duality.half_loss(x0, x1, M, b, h)
    assert abs(duality.am_loss(x0, x1, M, b, h) - dual + duality.half_moments(x0, x1)) < 1e-10
    identity = 2 * dual - 2 * (x0 * x1).sum(1).mean() + 0.5 * math.pi**2 * h @ h
    assert abs(duality.bent_loss(x0, x1, M, b, h) - identity) < 1e-10


def test_the_best_potential_in_a_basis_has_the_ratios_of_deviations_and_a_valid_bound():
    U, m0, S0, m1, S1 = duality.draw_basis(np.random.default_rng(4), 4)
    M, b = duality.basis_potential(U, m0, S0, m1, S1)
    first, second = (np.sqrt(np.diag(U.T @ S @ U)) for S in (S0, S1))
    assert np.abs(U.T @ M @ U - np.diag(second / first)).max() < 1e-8 and np.abs(b - m1 + M @ m0).max() < 1e-8
    bound = duality.basis_bound(U, m0, S0, m1, S1)
    assert abs(bound - ((m1 - m0) ** 2).sum() - ((second - first) ** 2).sum()) < 1e-9
    assert bound < distance_squared(m0, S0, m1, S1)


def test_the_stationary_action_is_a_critical_point_of_the_weighted_loss():
    rng = np.random.default_rng(5)
    kappa, *data = action_matching.draw_stationary(rng, 3)
    Q, q = (torch.from_numpy(part).requires_grad_() for part in action_matching.stationary(kappa, *data))
    times, weights = gauss_legendre(12)

    def path(t):  # points with the right first and second moments
        mean, cov, _, _ = closed_forms.path_moments(t, *data)
        spread = math.sqrt(3) * np.linalg.cholesky(cov).T
        return torch.from_numpy(np.concatenate([mean + spread, mean - spread]))

    action = AutodiffAction(lambda t, x: 0.5 * ((x @ (0.5 * (Q + Q.T))) * x).sum(1) + x @ q)
    loss = action_matching_loss(
        action, path(0.0), path(1.0), path, times, quadrature=weights / weights.sum(), time_weight=lambda t: 1 - kappa * t
    )
    assert max(part.abs().max() for part in torch.autograd.grad(loss, (Q, q))) < 1e-9
    for one, other in zip(action_matching.stationary(0.0, *data), action_matching.no_slope_term(0.0, *data), strict=True):
        assert np.abs(one - other).max() < 1e-9


def test_the_autonomous_energy_and_the_best_clock():
    rng = np.random.default_rng(6)
    T, m, S = action_matching.draw_dilation(rng, 3)
    values, basis = np.linalg.eigh(T)
    kernel = (basis * (0.5 * np.log(values) * (values**2 - 1))) @ basis.T
    assert abs(action_matching.autonomous_energy(T, m, S) - np.trace(kernel @ (S + np.outer(m, m)))) < 1e-9
    laws, kappa, count = draws.laws(rng, 3), 2.5, 400
    weight = 1 + kappa * (np.arange(count) + 0.5) / count
    # Steps of a clock that minimise the sum of weight · step² · count: the linear system of the Lagrange multiplier.
    system = np.block([[np.diag(2 * count * weight), np.ones((count, 1))], [np.ones((1, count)), np.zeros((1, 1))]])
    steps = np.linalg.solve(system, np.concatenate([np.zeros(count), [1.0]]))[:count]
    energy = count * weight @ steps**2 * distance_squared(*laws)
    assert abs(energy - action_matching.weighted_energy(kappa, *laws)) < 1e-4 * energy
    mean, cov = action_matching.law_at(0.5, kappa, *laws)
    at = steps[: count // 2].sum()
    assert np.abs(mean - (1 - at) * laws[0] - at * laws[2]).max() < 1e-4
    assert abs(math.sqrt(distance_squared(*laws[:2], mean, cov) / distance_squared(*laws)) - at) < 1e-4


def test_the_entropic_plan_is_stationary_and_is_that_of_the_package_without_a_metric():
    rng = np.random.default_rng(7)
    m0, S0, m1, S1, A, epsilon = entropy.draw_entropic(rng, 3, means=True)
    C = entropy.entropic_cross(S0, S1, A, epsilon)
    precision = np.linalg.inv(np.block([[S0, C], [C.T, S1]]))
    assert np.abs(precision[:3, 3:] + A / epsilon).max() < 1e-9
    cost = lambda C: entropy.plain_cost(m0, S0, m1, S1, C, A) + epsilon * entropy.information(S0, S1, C)
    assert abs(cost(C) - entropy.entropic_cost(m0, S0, m1, S1, A, epsilon)) < 1e-12
    for _ in range(4):
        change = rng.standard_normal((3, 3))
        assert abs(rate(lambda h, change=change: cost(C + h * change), 0.0)) < 1e-5 and cost(C + 1e-2 * change) > cost(C)
    plan = entropic_plan(*as_laws(m0, S0, m1, S1), epsilon)
    assert np.abs(entropy.entropic_cross(S0, S1, np.eye(3), epsilon) - plan.cross_cov.numpy()).max() < 1e-9
    assert abs(entropy.entropic_cost(m0, S0, m1, S1, np.eye(3), epsilon) - plan.cost.item()) < 1e-9


def test_the_bridge_solves_the_fokker_planck_equation_with_a_drift_that_is_a_gradient_in_its_metric():
    rng = np.random.default_rng(8)
    t, x, *laws, G = entropy.draw_bridge(rng, 3)
    C = entropy.entropic_cross(laws[1], laws[3], np.linalg.inv(G), 1.0)
    cov_at = lambda t: closed_forms.path_moments(t, *laws, C)[1] + t * (1 - t) * G
    U, V = (slopes(lambda y, f=f: f(t, y, *laws, G), x, 1e-2)[0] for f in (entropy.bridge_drift, entropy.bridge_velocity))
    S, dS = cov_at(t), rate(cov_at, t)
    assert np.abs(U @ S + S @ U.T + G - dS).max() < 1e-7 and np.abs(V @ S + S @ V.T - dS).max() < 1e-7
    lifted = np.linalg.solve(G, U)
    assert np.abs(lifted - lifted.T).max() < 1e-9
    mean = (1 - t) * laws[0] + t * laws[2]
    score = -np.linalg.solve(S, (x - mean).T).T
    gap = entropy.bridge_drift(t, x, *laws, G) - 0.5 * score @ G - entropy.bridge_velocity(t, x, *laws, G)
    assert np.abs(gap).max() < 1e-10
    known, points, plain = schroedinger_bridge(*as_laws(*laws), 0.7), torch.from_numpy(x), 0.49 * np.eye(3)
    for time in (0.0, t, 1.0):
        assert np.abs(entropy.bridge_drift(time, x, *laws, plain) - known.drift(time, points).numpy()).max() < 1e-9
        assert np.abs(entropy.bridge_velocity(time, x, *laws, plain) - known.velocity(time, points).numpy()).max() < 1e-9
