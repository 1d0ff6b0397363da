"""Problem set 1: its catalogue of wrong answers, other right answers, and its oracle."""

from __future__ import annotations

import numpy as np
import torch
from course_grading import ProblemSetTests

from dynot_lite.course.assignment import load
from dynot_lite.course.oracle import closed_forms, draws, ps1
from dynot_lite.laws.gaussian import Gaussian, fm_velocity
from dynot_lite.paths.continuity import gauss_legendre

# error: (part, points lost, function with the error)
WRONG = {
    "the score is left out": ("ps1-1", 5, "def heat_velocity(t, x, m, S, c, G):\n    return -(x - c)"),
    "Γ and Σ⁻¹ are exchanged": (
        "ps1-1", 3, """
def heat_velocity(t, x, m, S, c, G):
    mean, cov = c + math.exp(-t) * (m - c), math.exp(-2 * t) * S + (1 - math.exp(-2 * t)) * G
    return -(x - c) + (x - mean) @ G @ torch.linalg.inv(cov)""",
    ),
    "the covariance of time 0": (
        "ps1-1", 5, "def heat_velocity(t, x, m, S, c, G):\n    return -(x - c) + (x - m) @ torch.linalg.inv(S) @ G",
    ),
    "the energy does not depend on the clock (E8 B)": (
        "ps1-3", 6, """
def heat_energy(m, S, c, G, T):
    total = 0.0
    for node, weight in zip(*gauss_legendre(40)):
        t = T * node.item()
        cov = math.exp(-2 * t) * S + (1 - math.exp(-2 * t)) * G
        total += weight * (math.exp(-2 * t) * (m - c).square().sum() + torch.trace(cov - 2 * G + G @ torch.linalg.solve(cov, G)))
    return T * total""",
    ),
    "the energy is W₂² because the pair solves the equation (§4 A)": (
        "ps1-3", 6, """
def heat_energy(m, S, c, G, T):
    end = Gaussian(c + math.exp(-T) * (m - c), math.exp(-2 * T) * S + (1 - math.exp(-2 * T)) * G)
    return w2_squared(Gaussian(m, S), end)""",
    ),
    "the means are left out of the energy": (
        "ps1-3", 3, """
def heat_energy(m, S, c, G, T):
    total = 0.0
    for node, weight in zip(*gauss_legendre(40)):
        t = T * node.item()
        cov = math.exp(-2 * t) * S + (1 - math.exp(-2 * t)) * G
        total += weight * torch.trace(cov - 2 * G + G @ torch.linalg.solve(cov, G))
    return T**2 * total""",
    ),
    "the symmetric part of A": ("ps1-4", 7, "def gradient_part(A, S):\n    return 0.5 * (A + A.T)"),
    "half the derivative times Σ⁻¹ (E1 B)": (
        "ps1-4", 7, "def gradient_part(A, S):\n    return 0.5 * (A @ S + S @ A.T) @ torch.linalg.inv(S)",
    ),
    "a rotation instead of K (§2 A)": ("ps1-4", 3, "def rotation_part(A, S):\n    return A - gradient_part(A, S)"),
    "the legs without clocks": (
        "ps1-6", 2, """
def stopover_energy(m0, S0, m, S, m1, S1, s):
    stop = Gaussian(m, S)
    return w2_squared(Gaussian(m0, S0), stop) + w2_squared(stop, Gaussian(m1, S1))""",
    ),
    "time in proportion to W₂²": (
        "ps1-6", 2, """
def best_stopover(m0, S0, m, S, m1, S1):
    stop = Gaussian(m, S)
    first, second = w2_squared(Gaussian(m0, S0), stop), w2_squared(stop, Gaussian(m1, S1))
    return first / (first + second), first + second""",
    ),
    "the block is transposed (§10 A)": (
        "ps1-7", 6, """
def noisy_velocity(t, x, m0, S0, m1, S1, C, sigma):
    C = C.T
    noise = sigma**2 * t * (1 - t) * torch.eye(len(m0))
    cov = (1 - t) ** 2 * S0 + t**2 * S1 + t * (1 - t) * (C + C.T) + t * (1 - t) * noise
    cross = t * S1 - (1 - t) * S0 + (1 - t) * C.T - t * C + (1 - 2 * t) * noise
    return m1 - m0 + (x - (1 - t) * m0 - t * m1) @ torch.linalg.solve(cov, cross.T)""",
    ),
    "the noise is not differentiated": (
        "ps1-7", 6, """
def noisy_velocity(t, x, m0, S0, m1, S1, C, sigma):
    noise = sigma**2 * t * (1 - t) * torch.eye(len(m0))
    cov = (1 - t) ** 2 * S0 + t**2 * S1 + t * (1 - t) * (C + C.T) + t * (1 - t) * noise
    cross = t * S1 - (1 - t) * S0 + (1 - t) * C.T - t * C
    return m1 - m0 + (x - (1 - t) * m0 - t * m1) @ torch.linalg.solve(cov, cross.T)""",
    ),
    "no conditioning (§5 B)": (
        "ps1-7", 8, "def noisy_velocity(t, x, m0, S0, m1, S1, C, sigma):\n    return (m1 - m0).expand(x.shape)",
    ),
    "the form that divides by 1 − t": (
        "ps1-7", 1, """
def noisy_velocity(t, x, m0, S0, m1, S1, C, sigma):
    noise = sigma**2 * t * (1 - t) * torch.eye(len(m0))
    cov = (1 - t) ** 2 * S0 + t**2 * S1 + t * (1 - t) * (C + C.T) + t * (1 - t) * noise
    y = (x - (1 - t) * m0 - t * m1) @ torch.linalg.inv(cov)
    end, z = m1 + y @ ((1 - t) * C.T + t * S1).T, sigma * t * (1 - t) * y
    return (end - x + sigma * t * (1 - t) * z) / (1 - t) + sigma * (1 - 2 * t) * z""",
    ),
    "the least loss is 0 (§5 A)": ("ps1-8", 7, "def loss_floor(m0, S0, m1, S1, C, sigma):\n    return 0.0"),
    "no conditional expectation (§4 B)": (
        "ps1-8", 7, """
def loss_floor(m0, S0, m1, S1, C, sigma):
    return (m1 - m0).square().sum() + torch.trace(S0 + S1 - 2 * C) + sigma**2 * len(m0) / 3""",
    ),
    "the end map is the optimal map (§10 B)": (
        "ps1-9", 5, """
def rectified_velocity(t, x, m0, S0, m1, S1):
    from dynot_lite.laws.gaussian import monge_map
    end, eye = monge_map(Gaussian(m0, S0), Gaussian(m1, S1)), torch.eye(len(m0))
    start = torch.linalg.solve((1 - t) * eye + t * end.matrix, (x - t * end.offset).T).T
    return end(start) - start""",
    ),
    "T − Id without the inverse (§1 B)": (
        "ps1-9", 5, """
def rectified_velocity(t, x, m0, S0, m1, S1):
    return fm_flow(Gaussian(m0, S0), Gaussian(m1, S1), 1.0)(x) - x""",
    ),
    "the rectified energy is W₂² (§9 B)": (
        "ps1-9", 4, "def rectified_energy(m0, S0, m1, S1):\n    return w2_squared(Gaussian(m0, S0), Gaussian(m1, S1))",
    ),
    "no π/2 (§6 A)": (
        "ps1-11", 7, """
def fit_field(x0, x1, t):
    c, s = math.cos(math.pi * t / 2), math.sin(math.pi * t / 2)
    design = torch.cat([c * x0 + s * x1, torch.ones(len(x0), 1)], 1)
    solution = torch.linalg.lstsq(design, c * x1 - s * x0).solution
    return solution[:-1].T, solution[-1]""",
    ),
    "no constant in the regression": (
        "ps1-11", 7, """
def fit_field(x0, x1, t):
    c, s = math.cos(math.pi * t / 2), math.sin(math.pi * t / 2)
    matrix = torch.linalg.lstsq(c * x0 + s * x1, math.pi / 2 * (c * x1 - s * x0)).solution.T
    return matrix, torch.zeros(x0.shape[1])""",
    ),
    "the field of the end of the step": (
        "ps1-11", 3, """
def push(x, x0, x1, steps):
    for k in range(steps):
        matrix, offset = fit_field(x0, x1, (k + 1) / steps)
        x = x + (x @ matrix.T + offset) / steps
    return x""",
    ),
}  # fmt: skip

NUMPY = {
    "ps1-1": """
def heat_velocity(t, x, m, S, c, G):
    x, m, S, c, G = map(np.asarray, (x, m, S, c, G))
    cov = np.exp(-2 * t) * S + (1 - np.exp(-2 * t)) * G
    return -(x - c) + (G @ np.linalg.solve(cov, (x - c - np.exp(-t) * (m - c)).T)).T""",
    "ps1-3": """
def heat_energy(m, S, c, G, T):
    from scipy.integrate import quad
    m, S, c, G = map(np.asarray, (m, S, c, G))
    def power(s):
        cov = np.exp(-2 * s * T) * S + (1 - np.exp(-2 * s * T)) * G
        A = T * (G @ np.linalg.inv(cov) - np.eye(len(m)))
        return T**2 * np.exp(-2 * s * T) * ((m - c) ** 2).sum() + np.einsum("ij,jk,ik", A, cov, A)
    return quad(power, 0, 1)[0]""",
    "ps1-4": """
from scipy.linalg import solve_sylvester
def gradient_part(A, S):
    A, S = np.asarray(A), np.asarray(S)
    return solve_sylvester(S, S, A @ S + S @ A.T)
def rotation_part(A, S):
    return (np.asarray(A) - gradient_part(A, S)) @ np.asarray(S)""",
    "ps1-6": """
from scipy.linalg import sqrtm
def distance(m, S, n, R):
    m, S, n, R = map(np.asarray, (m, S, n, R))
    root = sqrtm(S).real
    return ((m - n) ** 2).sum() + np.trace(S + R - 2 * sqrtm(root @ R @ root).real)
def stopover_energy(m0, S0, m, S, m1, S1, s):
    return distance(m0, S0, m, S) / s + distance(m, S, m1, S1) / (1 - s)
def best_stopover(m0, S0, m, S, m1, S1):
    a, b = distance(m0, S0, m, S) ** 0.5, distance(m, S, m1, S1) ** 0.5
    return [np.array([a / (a + b)]), (a + b) ** 2]""",
    "ps1-8": """
def loss_floor(m0, S0, m1, S1, C, sigma):
    # E|dX|² − E|v|², with the energy of the velocity from its second moments
    from scipy.integrate import quad
    S0, S1, C = map(np.asarray, (S0, S1, C))
    eye = np.eye(len(S0))
    def gap(t):
        P = np.hstack([(1 - t) * eye, t * eye, sigma * t * (1 - t) * eye])
        Q = np.hstack([-eye, eye, sigma * (1 - 2 * t) * eye])
        J = np.block([[S0, C, 0 * eye], [C.T, S1, 0 * eye], [0 * eye, 0 * eye, eye]])
        V = Q @ J @ P.T
        return np.trace(Q @ J @ Q.T) - np.trace(V @ np.linalg.inv(P @ J @ P.T) @ V.T)
    return np.array([[quad(gap, 0, 1, epsabs=1e-9)[0]]])""",
    "ps1-9": """
from scipy.linalg import sqrtm
def rectified_velocity(t, x, m0, S0, m1, S1):
    x, m0, S0, m1, S1 = map(np.asarray, (x, m0, S0, m1, S1))
    M = sqrtm(S1 @ np.linalg.inv(S0)).real
    A = (M - np.eye(len(m0))) @ np.linalg.inv((1 - t) * np.eye(len(m0)) + t * M)
    return m1 - m0 + (x - (1 - t) * m0 - t * m1) @ A.T
def rectified_energy(m0, S0, m1, S1):
    m0, S0, m1, S1 = map(np.asarray, (m0, S0, m1, S1))
    root = np.linalg.cholesky(S0)
    inner = sqrtm(np.linalg.inv(root) @ S1 @ np.linalg.inv(root).T).real
    return ((m0 - m1) ** 2).sum() + np.trace(S0) + np.trace(S1) - 2 * np.trace(root @ inner @ root.T)""",
    "ps1-11": """
def fit_field(x0, x1, t):
    x0, x1 = np.asarray(x0), np.asarray(x1)
    c, s = np.cos(np.pi * t / 2), np.sin(np.pi * t / 2)
    x, y = c * x0 + s * x1, np.pi / 2 * (c * x1 - s * x0)
    both = np.cov(x.T, y.T)
    d = x0.shape[1]
    M = both[d:, :d] @ np.linalg.pinv(both[:d, :d])
    return M, y.mean(0) - M @ x.mean(0)
def push(x, x0, x1, steps):
    x = np.array(x)
    for t in np.arange(steps) / steps:
        M, c = fit_field(x0, x1, t)
        x = x + (x @ M.T + c) / steps
    return x""",
}
# One point at a time, with products of matrices and vectors that fail for a batch; arrays only.
SINGLE = {
    "ps1-1": """
def heat_velocity(t, x, m, S, c, G):
    cov = math.exp(-2 * t) * S + (1 - math.exp(-2 * t)) * G
    return -(x - c) + G.dot(np.linalg.solve(cov, x - c - math.exp(-t) * (m - c)))""",
    "ps1-7": """
def noisy_velocity(t, x, m0, S0, m1, S1, C, sigma):
    a, b, e = 1 - t, t, sigma * t * (1 - t)
    da, db, de = -1, 1, sigma * (1 - 2 * t)
    cov = a * a * S0 + b * b * S1 + a * b * (C + C.T) + e * e * np.eye(len(m0))
    cross = a * da * S0 + b * db * S1 + da * b * C + a * db * C.T + e * de * np.eye(len(m0))
    return m1 - m0 + cross.dot(np.linalg.solve(cov, x - a * m0 - b * m1))""",
}
EQUIVALENT = {
    "numpy": {f"{part}-code": source for part, source in NUMPY.items()},
    "one_point_at_a_time": {f"{part}-code": source for part, source in SINGLE.items()},
}


class TestPS1(ProblemSetTests):
    problems, wrong, equivalent = load("PS1"), WRONG, EQUIVALENT

    def test_feedback_names_the_first_error(self, honest):
        page = (honest[1] / "feedback" / "wrong0.html").read_text(encoding="utf-8")
        assert "these are the values one gets when the diffusion is left out" in page


# -------------------------------------------------------------------------------------------------- the oracle itself


def test_the_heat_velocity_solves_the_continuity_equation():
    _, x, *data = ps1.draw_heat(np.random.default_rng(0), 3)
    step = 1e-5

    def log_density(t, x):
        return Gaussian(*map(torch.from_numpy, ps1.heat_law(t, *data))).log_prob(torch.from_numpy(x)).numpy()

    for t in (0.2, 0.7):  # ∂_t log ρ + div v + ⟨v, ∇log ρ⟩ = 0, by central differences
        rate = (log_density(t + step, x) - log_density(t - step, x)) / (2 * step)
        for i, shift in enumerate(step * np.eye(3)):
            ahead, back = (ps1.heat_velocity(t, x + s * shift, *data)[:, i] for s in (1, -1))
            slope = (log_density(t, x + shift) - log_density(t, x - shift)) / (2 * step)
            rate += (ahead - back) / (2 * step) + ps1.heat_velocity(t, x, *data)[:, i] * slope
        assert np.abs(rate).max() < 1e-7


def noisy_ends(t, arguments):
    """Nodes and weights that integrate quadratic functions of (X_t, dX_t/dt) exactly, from the definition of the interpolant."""
    m0, S0, m1, S1, C, sigma = arguments
    d = len(m0)
    joint = np.block([[S0, C], [C.T, S1]])
    mean, cov = np.concatenate([m0, m1, 0 * m0]), np.zeros((3 * d, 3 * d))
    cov[: 2 * d, : 2 * d], cov[2 * d :, 2 * d :] = joint, np.eye(d)
    ends, weights = (a.numpy() for a in Gaussian(torch.from_numpy(mean), torch.from_numpy(cov)).quadrature(3))
    x0, x1, z = ends[:, :d], ends[:, d : 2 * d], ends[:, 2 * d :]
    return (1 - t) * x0 + t * x1 + sigma * t * (1 - t) * z, x1 - x0 + sigma * (1 - 2 * t) * z, weights


def test_the_noisy_velocity_is_the_conditional_expectation_and_the_floor_its_loss():
    rng = np.random.default_rng(1)
    t, _, *data = ps1.draw_noisy(rng, 2)
    for time in (0.0, t, 1.0):
        x, dx, weights = noisy_ends(time, data)
        error = dx - ps1.noisy_velocity(time, x, *data)  # orthogonal to constants and to linear functions of X_t
        assert np.abs(weights @ error).max() < 1e-12 and np.abs((weights * error.T) @ x).max() < 1e-12
    loss = 0.0
    for time, weight in zip(*(a.tolist() for a in gauss_legendre(40)), strict=True):
        x, dx, weights = noisy_ends(time, data)
        loss += weight * (weights @ ((dx - ps1.noisy_velocity(time, x, *data)) ** 2).sum(1))
    assert abs(loss - ps1.loss_floor(*data)) < 1e-10
    p, q = closed_forms.as_laws(*data[:4])
    plain = fm_velocity(p, q, t, torch.ones(1, 2, dtype=torch.float64), cross_cov=torch.from_numpy(data[4]))
    assert np.abs(ps1.noisy_velocity(t, np.ones((1, 2)), *data[:5], 0.0) - plain.numpy()).max() < 1e-12


def test_the_rectified_velocity_is_straight_and_arrives():
    rng = np.random.default_rng(2)
    laws, x = draws.laws(rng, 3), draws.points(rng, 3)
    move = ps1.rectified_velocity(0.0, x, *laws)
    for t in (0.3, 1.0):
        assert np.abs(ps1.rectified_velocity(t, x + t * move, *laws) - move).max() < 1e-11
    x, weights = (a.numpy() for a in closed_forms.as_laws(*laws)[0].quadrature(2))
    end = x + ps1.rectified_velocity(0.0, x, *laws)
    assert np.abs(weights @ end - laws[2]).max() < 1e-11
    assert np.abs((weights * (end - laws[2]).T) @ (end - laws[2]) - laws[3]).max() < 1e-11
    assert abs(weights @ ((end - x) ** 2).sum(1) - ps1.rectified_energy(*laws)) < 1e-11


def test_the_split_and_the_best_stopover():
    rng = np.random.default_rng(3)
    A, S = ps1.draw_slope(rng, 4)
    B, K = ps1.gradient_part(A, S), ps1.rotation_part(A, S)
    assert np.abs(B - B.T).max() < 1e-12 and np.abs(K + K.T).max() < 1e-12
    assert np.abs(B + K @ np.linalg.inv(S) - A).max() < 1e-11
    laws = ps1.draw_legs(rng, 3)
    s, energy = ps1.best_stopover(*laws)
    around = [ps1.stopover_energy(*laws, s + shift) for shift in (-1e-3, 0.0, 1e-3)]
    assert abs(around[1] - energy) < 1e-11 and min(around) == around[1]
