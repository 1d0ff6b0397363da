"""What is right, and what is known to go wrong, in problem set 3: couplings, semidiscrete and sliced transport.

Right values come from linear programs, ordinary differential equations, quadrature in other variables, whitening, or automatic
differentiation: never from the formula that a student is asked for.
"""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import ot
import torch
from scipy.integrate import quad, solve_ivp
from scipy.optimize import linprog
from scipy.stats import norm

from dynot_lite.course.oracle.compare import Check
from dynot_lite.course.oracle.ps1 import mean, option, points
from dynot_lite.laws.gaussian import Gaussian, monge_map, w2_squared
from dynot_lite.laws.mixtures import fm_velocity_diracs
from dynot_lite.paths.continuity import gauss_legendre

__all__ = ["CHECKS"]

NODES, WEIGHTS = (array.numpy() for array in gauss_legendre(80))


# ------------------------------------------------------------------------------------------------------- random instances


def covariance(rng, d):
    """A random basis and a spectrum between 1/4 and 4; the extremes are always far apart."""
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
    spectrum = rng.uniform(-1.4, 1.4, d)
    if d > 1:
        spectrum[0], spectrum[-1] = rng.uniform(-1.4, -0.6), rng.uniform(0.6, 1.4)
    return (basis * np.exp(spectrum)) @ basis.T


def law(rng, d):
    return mean(rng, d), covariance(rng, d)


def weights(rng, n):
    w = 0.4 + rng.random(n)
    return w / w.sum()


# ---------------------------------------------------------------------------------------------------------- 1: on the line


def line_plan(x, y, a, b):
    """The network simplex of POT; it does not know that the points lie on a line."""
    return ot.emd(a, b, (x[:, None] - y) ** 2)


def draw_line(rng, d, *, equal=False, levels=False):
    """Points in random order; ``levels``: weights k/24, so that the distribution functions have common levels."""
    n, m = (d + 3, d + 3) if equal else (d + 2, d + 5)
    x, y = rng.normal(0, 1.5, n), rng.normal(1, 1, m)
    a, b = (np.full(k, 1 / k) if equal else weights(rng, k) for k in (n, m))
    if levels:
        a, b = (1 / 24 + rng.multinomial(24 - k, np.full(k, 1 / k)) / 24 for k in (n, m))
        a, b = a - (a.sum() - 1) / n, b - (b.sum() - 1) / m
    return x, y, a, b


def in_order(x, y, a, b):
    """The plan of the sorted points, whose order is forgotten."""
    return line_plan(np.sort(x), np.sort(y), a, b)


def unsplit(x, y, a, b):
    """Each x goes, as a whole, to the quantile of the middle of its mass."""
    order, to = np.argsort(x), np.argsort(y)
    middle = np.cumsum(a[order]) - a[order] / 2
    plan = np.zeros((len(x), len(y)))
    plan[order, to[np.searchsorted(np.cumsum(b[to])[:-1], middle)]] = a[order]
    return plan


LINE_TRAPS = {
    "the order of the points is forgotten after sorting": in_order,
    "the two marginals are multiplied": lambda x, y, a, b: np.outer(a, b),
    "the largest points are paired with the smallest": lambda x, y, a, b: line_plan(-x, y, a, b),
    "each point goes to the nearest one": lambda x, y, a, b: (
        a[:, None] * (np.abs(x[:, None] - y).argmin(1)[:, None] == np.arange(len(y)))
    ),
}
UNSPLIT_TRAP = {"no mass is split: a point x has one partner": unsplit}


# ------------------------------------------------------------------------------------------------ 2: cyclical monotonicity


def monotone_shift(x, y):
    """The least λ with a convex function that has the slope y_i + λx_i at x_i, as a linear program in its values and λ."""
    n = len(x)
    i, j = np.nonzero(~np.eye(n, dtype=bool))
    rows = np.zeros((len(i), n + 1))
    step = x[j] - x[i]
    rows[np.arange(len(i)), i], rows[np.arange(len(i)), j], rows[:, n] = 1, -1, (x[i] * step).sum(1)
    found = linprog(np.eye(n + 1)[n], rows, -(y[i] * step).sum(1), bounds=[(None, None)] * n + [(0, None)])
    return found.x[n]


def draw_turned(rng, d, *, line=False):
    """Pairs that are far from monotone; except on the line, longer cycles count more than pairs."""
    if line:
        return rng.permutation(np.cumsum(rng.uniform(0.3, 1.0, d + 4)))[:, None], rng.standard_normal((d + 4, 1))
    x, turn = rng.standard_normal((d + 4, d)), rng.standard_normal((d, d))
    y = x @ (1.2 * (turn - turn.T) + 0.5 * np.eye(d)) + 0.3 * rng.standard_normal((d + 4, d))
    return x - x.mean(0) + mean(rng, d), y + mean(rng, d)


def pair_shift(x, y):
    step, move = x[:, None] - x, y[:, None] - y
    square = (step**2).sum(2) + np.eye(len(x))
    return max(0.0, (-(step * move).sum(2) / square).max())


def gain_and_price(x, y, order):
    return (x * (y[order] - y)).sum(), (x * (x - x[order])).sum()


def best_order(x, y):
    return ot.emd([], [], -x @ y.T).argmax(1)


def first_shift(x, y):
    gain, price = gain_and_price(x, y, best_order(x, y))
    return gain / price if price > 0 else 0.0


def next_shift(x, y):
    """Only the cycle x_1, x_2, …, x_n, in the order in which the pairs are given."""
    gain, price = gain_and_price(x, y, np.roll(np.arange(len(x)), -1))
    return max(0.0, gain / price)


SHIFT_TRAPS = {
    "the shift is only what the best permutation needs without a shift": first_shift,
    "the factor ½ in Σ½|x_i − x_σ(i)|² is forgotten": lambda x, y: 0.5 * monotone_shift(x, y),
    "only the cycle of all pairs in the given order is looked at": next_shift,
}
PAIR_TRAP = {"only exchanges of two partners are looked at": pair_shift}


# ------------------------------------------------------------------------------- 4, 7 and 8: points on a line in space


def collinear(rng, d, n, *, even=False):
    """n points on a line that misses the origin, in random order, and their weights."""
    direction = rng.standard_normal(d)
    place = np.cumsum(rng.uniform(0.6, 1.5, n))
    place -= place.mean() + rng.uniform(-0.5, 0.5)
    y = mean(rng, d) + place[:, None] * direction / np.linalg.norm(direction)
    order = rng.permutation(n)
    return y[order], np.full(n, 1 / n) if even else weights(rng, n)[order]


def on_the_line(y):
    """Direction, places, and their order."""
    far = np.abs(((y - y.mean(0)) ** 2).sum(1)).argmax()
    direction = y[far] - y.mean(0)
    direction = direction / np.linalg.norm(direction)
    place = (y - y.mean(0)) @ direction
    return direction, place, np.argsort(place)


def projected(w, m, S, y):
    direction, place, order = on_the_line(y)
    return (m - y.mean(0)) @ direction, np.sqrt(np.einsum("i,kij,j->k", direction, S, direction)), place, order


def density(w, mu, sd, r):
    return norm.pdf(np.asarray(r)[..., None], mu, sd) @ w


def cuts(w, mu, sd, levels):
    """Quantiles of a mixture on the line: dq/ds = 1/density, from the level of the first mean."""
    start = float(norm.cdf(mu[0], mu, sd) @ w)
    found = []
    for level in levels:
        span, slope = (start, level), lambda s, q: 1 / density(w, mu, sd, q)
        path = solve_ivp(slope, span, [mu[0]], method="DOP853", rtol=1e-9, atol=1e-10)
        found.append(path.y[0, -1] if level != start else mu[0])
    return np.array(found)


def potentials_of(y, b, order, direction, walls):
    """Equal scores ½|x − y_j|² − g_j on both sides of each wall, at a point of the line; ⟨b, g⟩ = 0."""
    g = np.zeros(len(y))
    for one, other, wall in zip(order[:-1], order[1:], walls, strict=True):
        x = y.mean(0) + wall * direction
        g[other] = g[one] + 0.5 * ((x - y[other]) ** 2).sum() - 0.5 * ((x - y[one]) ** 2).sum()
    return g - b @ g


def collinear_potentials(w, m, S, y, b, *, law_=None):
    mu, sd, _place, order = projected(w, m, S, y)
    walls = (law_ or cuts)(w, mu, sd, np.cumsum(b[order])[:-1])
    return potentials_of(y, b, order, on_the_line(y)[0], walls)


def cost_of_walls(w, m, S, y, walls, *, across=True):
    """E|x − y(x)|² when the slabs between the walls go to the points in their order, by quadrature."""
    mu, sd, place, order = projected(w, m, S, y)
    ends = [(mu - 10 * sd).min(), *walls, (mu + 10 * sd).max()]
    total = sum(
        quad(lambda r: (r - place[j]) ** 2 * density(w, mu, sd, r), low, high, epsabs=1e-10, limit=200)[0]
        for j, low, high in zip(order, ends[:-1], ends[1:], strict=True)
    )
    direction = on_the_line(y)[0]
    off = np.eye(y.shape[1]) - np.outer(direction, direction)
    spread = np.einsum("k,ij,kij->", w, off, S) + w @ (((m - y.mean(0)) @ off) ** 2).sum(1)
    return total + across * spread


def collinear_w2(w, m, S, y, b, **options):
    mu, sd, _, order = projected(w, m, S, y)
    return cost_of_walls(w, m, S, y, cuts(w, mu, sd, np.cumsum(b[order])[:-1]), **options)


def midpoints(y):
    _, place, order = on_the_line(y)
    return (place[order][1:] + place[order][:-1]) / 2


def independent_cost(w, m, S, y, b):
    return w @ (np.einsum("kii->k", S) + ((m - b @ y) ** 2).sum(1)) + b @ ((y - b @ y) ** 2).sum(1)


def one_gaussian(w, m, S):
    """The Gaussian with the moments of the mixture."""
    centre = w @ m
    spread = np.einsum("k,kij->ij", w, S) + (w[:, None] * (m - centre)).T @ (m - centre)
    return np.ones(1), centre[None], spread[None]


def draw_collinear(rng, d, *, mixture=True):
    w = weights(rng, 3) if mixture else np.ones(1)
    m = 1.5 * rng.standard_normal((len(w), d))
    S = np.stack([0.6 * covariance(rng, d) for _ in w])
    return w, m, S, *collinear(rng, d, int(rng.integers(4, 7)) if mixture else 2)


def centred(values, b):
    return values - b @ values


WALL_TRAPS = {
    "the walls are half-way between the points": lambda w, m, S, y, b: 0 * b,
    "the potentials are twice ours: those of the cost |x − y|²": lambda *a: 2 * collinear_potentials(*a),
    "the potentials are those of the cost −⟨x, y⟩": lambda w, m, S, y, b: (
        collinear_potentials(w, m, S, y, b) - centred(0.5 * (y**2).sum(1), b)
    ),
    "the noise is taken to be standard normal": lambda w, m, S, y, b: collinear_potentials(
        np.ones(1), np.zeros((1, y.shape[1])), np.eye(y.shape[1])[None], y, b
    ),
    "the variance stands for the standard deviation": option(
        collinear_potentials, law_=lambda w, mu, sd, levels: cuts(w, mu, sd**2, levels)
    ),
    "the order of the points is forgotten after sorting": lambda w, m, S, y, b: collinear_potentials(w, m, S, y, b)[
        on_the_line(y)[2]
    ],
}
MIXTURE_TRAP = "the mixture is replaced by the Gaussian with its mean and covariance"
W2_TRAPS = {
    "the term with the walls has the wrong sign": lambda *a: 2 * independent_cost(*a) - collinear_w2(*a),
    "the walls are half-way between the points": lambda w, m, S, y, b: cost_of_walls(w, m, S, y, midpoints(y)),
    "only the distance along the line is counted": option(collinear_w2, across=False),
    "it is half of W₂²": lambda *a: 0.5 * collinear_w2(*a),
    "the pairs are independent": independent_cost,
    MIXTURE_TRAP: lambda w, m, S, y, b: collinear_w2(*one_gaussian(w, m, S), y, b),
}


# ------------------------------------------------------------------------------------ 5: flow matching to weighted points


def dirac_velocity(t, x, m, S, y, b):
    """By whitening: in the coordinates z = L⁻¹(x − m) the noise is N(0, I), and velocities are mapped by L."""
    root = torch.linalg.cholesky(S)

    def white(z):
        return torch.linalg.solve_triangular(root, (z - m).mT, upper=False).mT

    # X_t − m = L((1 − t)Z + t L⁻¹(Y − m)).
    return fm_velocity_diracs(white(y), t, white(x), weights=b) @ root.mT


def in_numpy(function):
    """Arrays in and out of a function of tensors."""

    def changed(*arguments):
        return function(*(torch.from_numpy(a) if isinstance(a, np.ndarray) else a for a in arguments)).numpy()

    return changed


def dirac_jacobian(t, x, m, S, y, b):
    return torch.stack([torch.autograd.functional.jacobian(lambda z: dirac_velocity(t, z[None], m, S, y, b)[0], z) for z in x])


def draw_diracs(rng, d):
    m, S = law(rng, d)
    return rng.uniform(0.35, 0.65), points(rng, d), m, S, 1.5 * rng.standard_normal((4, d)), weights(rng, 4)


def posterior(t, x, m, S, y, b, *, centre=None):
    """Softmax weights, shape (n, K), with a place of the components that may be wrong."""
    offset = x[:, None] - (1 - t) * m - (t * y if centre is None else centre)
    score = np.log(b) - 0.5 * np.einsum("nki,ij,nkj->nk", offset, np.linalg.inv(S), offset) / (1 - t) ** 2
    score = np.exp(score - score.max(1, keepdims=True))
    return score / score.sum(1, keepdims=True)


def posterior_jacobian(p, t, S, y, *, power=3):
    spread = np.einsum("nk,ki,kj->nij", p, y, y) - np.einsum("nk,ki,nl,lj->nij", p, y, p, y)
    return -np.eye(len(S)) / (1 - t) + t / (1 - t) ** power * spread @ np.linalg.inv(S)


DIRAC_TRAPS = {
    "the weights are those of the points, not conditional on X_t": lambda t, x, m, S, y, b: (b @ y - x) / (1 - t),
    "the factor t of y is forgotten": lambda t, x, m, S, y, b: (posterior(t, x, m, S, y, b, centre=y) @ y - x) / (1 - t),
    "the noise is taken to be N(0, I)": lambda t, x, m, S, y, b: (posterior(t, x, 0 * m, np.eye(len(m)), y, b) @ y - x) / (1 - t),
    "the points are taken to have equal weights": lambda t, x, m, S, y, b: (
        (posterior(t, x, m, S, y, np.full(len(b), 1 / len(b))) @ y - x) / (1 - t)
    ),
    "the mean of the noise is left out": lambda t, x, m, S, y, b: (posterior(t, x, 0 * m, S, y, b) @ y - x) / (1 - t),
    "X_t goes to the nearest point": lambda t, x, m, S, y, b: (y[((x[:, None] - y) ** 2).sum(2).argmin(1)] - x) / (1 - t),
}
JACOBIAN_TRAPS = {
    "the conditional weights are not differentiated": lambda t, x, m, S, y, b: np.broadcast_to(
        -np.eye(len(m)) / (1 - t), (len(x), *S.shape)
    ),
    "the Jacobian is transposed": lambda *a: in_numpy(dirac_jacobian)(*a).swapaxes(1, 2),
    "the covariance of the noise is missing": lambda t, x, m, S, y, b: posterior_jacobian(
        posterior(t, x, m, S, y, b), t, np.eye(len(m)), y
    ),
    "(1 − t)² stands for (1 − t)³": lambda t, x, m, S, y, b: posterior_jacobian(posterior(t, x, m, S, y, b), t, S, y, power=2),
}


# ------------------------------------------------------------------------------------- 7: where flow matching is not optimal


def flow_and_transport(m, S, y, b, *, normal=None):
    """(excess of E|x − y(x)|², share of the noise) of slabs across ``normal`` against those across the line.

    With r = ⟨u, x − m⟩ and ω = ⟨normal, x − m⟩, both standardised: quadrature over r within each optimal slab, and the law of ω
    given r. The difference of the costs is 2 E⟨x, y_OT − y_FM⟩.
    """
    direction, place, order = on_the_line(y)
    normal = np.linalg.solve(S, direction) if normal is None else normal
    sd, other = math.sqrt(direction @ S @ direction), math.sqrt(normal @ S @ normal)
    correlation = min(1.0, normal @ S @ direction / (sd * other))
    s = place[order]
    walls = np.concatenate([[-9.0], norm.ppf(np.cumsum(b[order])[:-1]), [9.0]])
    outer = np.concatenate([[-np.inf], walls[1:-1], [np.inf]])
    excess = same = 0.0
    for k, (low, high) in enumerate(itertools.pairwise(walls)):
        for half in np.linspace(low, high, 5)[:-1]:  # in four panels
            r = half + (high - low) / 4 * NODES
            mass = (high - low) / 4 * WEIGHTS * norm.pdf(r)
            level = norm.cdf((outer - correlation * r[:, None]) / math.sqrt(1 - correlation**2))
            shares = np.diff(level, axis=1)
            excess += 2 * sd * mass @ (r * (s[k] - shares @ s))
            same += mass @ shares[:, k]
    return excess, 1 - same


def flow_excess(m, S, y, b):
    return flow_and_transport(m, S, y, b)[0]


def flow_elsewhere(m, S, y, b):
    return flow_and_transport(m, S, y, b)[1]


def draw_flow(rng, d, *, n=None):
    m, S = law(rng, d)
    return m, S, *collinear(rng, d, n or int(rng.integers(3, 6)))


def across_image(function):
    """The slabs are across Su instead of S⁻¹u."""

    def changed(m, S, y, b):
        return function(flow_and_transport(m, S, y, b, normal=S @ on_the_line(y)[0]))

    return changed


def nearest_excess(m, S, y, b):
    one = np.ones(1), m[None], S[None], y
    return cost_of_walls(*one, midpoints(y)) - collinear_w2(*one, b)


def nearest_elsewhere(m, S, y, b):
    """The mass between the walls of two partitions of the line."""
    mu, sd, _place, order = projected(np.ones(1), m[None], S[None], y)
    level = np.concatenate([[0], norm.cdf(midpoints(y), mu, sd), [1]])
    right = np.concatenate([[0], np.cumsum(b[order])])
    return 1 - np.maximum(np.minimum(level[1:], right[1:]) - np.maximum(level[:-1], right[:-1]), 0).sum()


# ------------------------------------------------------------------------------------------------------------ 8: loss floor


def scale_of(S, y):
    """√⟨u, S⁻¹u⟩."""
    direction = on_the_line(y)[0]
    return math.sqrt(direction @ np.linalg.solve(S, direction))


def loss_floor(m, S, y, b, *, scale=None):
    """∫₀¹ E Var(s | ω_t)/(1 − t)² dt, with ω_t = (1 − t)Z + t·scale·s, by nodes in time and in ω."""
    _, s, _ = on_the_line(y)
    scale = scale_of(S, y) if scale is None else scale
    z = np.linspace(-9, 9, 361)
    density_ = norm.pdf(z) * (z[1] - z[0])
    total = 0.0
    for t, weight in zip(NODES, WEIGHTS, strict=True):
        omega = t * scale * s[:, None] + (1 - t) * z
        score = np.log(b) - 0.5 * ((omega[..., None] - t * scale * s) / (1 - t)) ** 2
        p = np.exp(score - score.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        total += weight * b @ ((p @ s**2 - (p @ s) ** 2) @ density_) / (1 - t) ** 2
    return total


def mean_square(m, S, y, b):
    return independent_cost(np.ones(1), m[None], S[None], y, b)


FLOOR_TRAPS = {
    "the minimum is taken to be 0": lambda *a: 0.0,
    "the difference X₁ − X₀ is not conditioned": mean_square,
    "the energy of v is taken to be W₂²": lambda m, S, y, b: (
        mean_square(m, S, y, b) - collinear_w2(np.ones(1), m[None], S[None], y, b)
    ),
    "it is the energy, not the loss": lambda *a: mean_square(*a) - loss_floor(*a),
    "the integral is taken over γ², not over γ": lambda m, S, y, b: -2 * b @ np.log(b) / scale_of(S, y),
    "the noise is taken to be N(0, I)": option(loss_floor, scale=1.0),
    "the conditional law is that of a Gaussian X₁": lambda m, S, y, b: (
        math.pi / 2 * math.sqrt(b @ (on_the_line(y)[1] - b @ on_the_line(y)[1]) ** 2) / scale_of(S, y)
    ),
}
MARGINAL_TRAP = {
    "the noise is projected on the line of the points": lambda m, S, y, b: loss_floor(
        m, S, y, b, scale=1 / math.sqrt(on_the_line(y)[0] @ S @ on_the_line(y)[0])
    )
}


# -------------------------------------------------------------------------------------------------------------- 9: slices


@functools.cache
def sphere(d):
    """Directions on a half sphere and weights of sum 1, Gauss–Legendre in all angles, the pole being the first axis."""
    nodes, weights_ = (array.numpy() for array in gauss_legendre(60))
    if d == 2:
        return np.stack([np.cos(math.pi * nodes), np.sin(math.pi * nodes)], 1), weights_
    nodes, weights_ = nodes[:, None], weights_[:, None]
    polar, angle = math.pi * nodes, math.pi * nodes.T
    theta = np.stack([np.cos(polar) + 0 * angle, np.sin(polar) * np.cos(angle), np.sin(polar) * np.sin(angle)], -1)
    return theta.reshape(-1, 3), (0.5 * math.pi * np.sin(polar) * weights_ * weights_.T).ravel()


def as_laws(m0, S0, m1, S1):
    return Gaussian(*map(torch.from_numpy, (m0, S0))), Gaussian(*map(torch.from_numpy, (m1, S1)))


def projections(theta, m, S):
    """The projections of N(m, S), a batch of laws on the line."""
    variance = np.einsum("li,ij,lj->l", theta, S, theta)
    return Gaussian(torch.from_numpy((theta @ m)[:, None]), torch.from_numpy(variance[:, None, None]))


def slices(m0, S0, m1, S1):
    theta, weights_ = sphere(len(m0))
    return theta, weights_, projections(theta, m0, S0), projections(theta, m1, S1)


def sliced_map(x, m0, S0, m1, S1, *, factor=None, turned=False):
    """The displacements of the Monge maps of the projections, averaged over directions."""
    theta, weights_, p, q = slices(m0, S0, m1, S1)
    place = torch.from_numpy((theta @ x.T)[..., None])
    move = (monge_map(p, q)(place) - place)[..., 0].numpy() * (-1 if turned else 1)
    return x + (len(m0) if factor is None else factor) * np.einsum("l,ln,li->ni", weights_, move, theta)


def sliced_gap(m0, S0, m1, S1, *, factor=None):
    _, weights_, p, q = slices(m0, S0, m1, S1)
    sliced = weights_ @ w2_squared(p, q).numpy()
    return w2_squared(*as_laws(m0, S0, m1, S1)).item() - (len(m0) if factor is None else factor) * sliced


def draw_slices(rng, d, *, map_=False):
    laws = *law(rng, d), *law(rng, d)
    return (points(rng, d), *laws) if map_ else laws


# ---------------------------------------------------------------------------------------------------------- 10: sliced bound


def line_potential(x, y, a, b):
    """The dual variable of the network simplex: for weights without common levels unique up to a constant; cost ½(x − y)²."""
    return ot.emd(a, b, 0.5 * (x[:, None] - y) ** 2, log=True)[1]["u"]


def sliced_potential(x, y, a, b, theta):
    f = np.mean([line_potential(x @ e, y @ e, a, b) for e in theta], 0)
    return f - a @ f


def semidual(f, x, y, a, b):
    return a @ f + b @ (0.5 * ((x[:, None] - y) ** 2).sum(2) - f[:, None]).min(0)


def sliced_bound(x, y, a, b, theta):
    """A linear program in the factor s and the other potential g: s f_i + g_j ≤ c_ij."""
    f, (n, m) = sliced_potential(x, y, a, b, theta), (len(x), len(y))
    rows = np.concatenate([np.repeat(f, m)[:, None], np.tile(np.eye(m), (n, 1))], 1)
    cost = 0.5 * ((x[:, None] - y) ** 2).sum(2).ravel()
    found = linprog(-np.concatenate([[a @ f], b]), rows, cost, bounds=[(0, None)] + [(None, None)] * m)
    return -found.fun


def draw_clouds(rng, d):
    theta = rng.standard_normal((2 * d + 1, d))
    x, y = rng.standard_normal((7, d)), rng.standard_normal((9, d)) @ rng.standard_normal((d, d)) + mean(rng, d)
    return x, y, weights(rng, 7), weights(rng, 9), theta / np.linalg.norm(theta, axis=1, keepdims=True)


def scaled_bound(factor):
    return lambda x, y, a, b, theta: semidual(factor(len(x[0])) * sliced_potential(x, y, a, b, theta), x, y, a, b)


def uniform_bound(x, y, a, b, theta):
    """The potentials of the points without their weights, which are then ignored up to the dual value."""
    even = np.full(len(x), 1 / len(x)), np.full(len(y), 1 / len(y))
    f = sliced_potential(x, y, *even, theta)
    factors = np.linspace(0, 3 * len(x[0]), 400)
    return max(semidual(s * f, x, y, a, b) for s in factors)


BOUND_TRAPS = {
    "the factor is d, not the best one": scaled_bound(lambda d: d),
    "the factor is 1, not the best one": scaled_bound(lambda d: 1.0),
    "it is the cost of transport itself": lambda x, y, a, b, theta: ot.emd2(a, b, 0.5 * ((x[:, None] - y) ** 2).sum(2)),
    "it is half of the sliced distance": lambda x, y, a, b, theta: np.mean(
        [ot.emd2(a, b, 0.5 * (np.subtract.outer(x @ e, y @ e)) ** 2) for e in theta]
    ),
    "it is d/2 times the sliced distance": lambda x, y, a, b, theta: (
        len(x[0]) * np.mean([ot.emd2(a, b, 0.5 * (np.subtract.outer(x @ e, y @ e)) ** 2) for e in theta])
    ),
    "the potentials are those of equal weights": uniform_bound,
}


# ----------------------------------------------------------------------------------------------------- 11: pairs with labels


def labelled_pairs(x0, l0, x1, l1, beta, *, half=0.5, plan=None):
    """The linear program over plans, with the augmented cost."""
    cost, differ = half * ((x0[:, None] - x1) ** 2).sum(2), (l0[:, None] != l1).astype(float)
    n, m = cost.shape
    if plan is None:
        rows = np.concatenate([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
        found = linprog((cost + beta * differ).ravel(), A_eq=rows, b_eq=np.repeat([1 / n, 1 / m], [n, m]))
        plan = found.x.reshape(n, m)
    else:
        plan = plan(cost, differ)
    return (plan * cost).sum(), (plan * differ).sum()


def draw_labelled(rng, d, *, as_many=False):
    n, m = (9, 9) if as_many else (7, 10)
    l0, l1 = (rng.permutation(np.arange(k) % 3).astype(float) for k in (n, m))
    centres = 1.2 * rng.standard_normal((3, d))
    x0, x1 = (centres[labels.astype(int)] + rng.standard_normal((len(labels), d)) for labels in (l0, l1))
    return x0, l0, x1 + mean(rng, d), l1, rng.uniform(0.3, 1.5)


def nearest_plan(beta):
    def plan(cost, differ):
        hit = (cost + beta * differ).argmin(1)
        return (hit[:, None] == np.arange(cost.shape[1])) / len(cost)

    return plan


LABEL_TRAPS = {
    "the labels are ignored": lambda x0, l0, x1, l1, beta: labelled_pairs(x0, l0, x1, l1, 0.0),
    "the labels always come first": lambda x0, l0, x1, l1, beta: labelled_pairs(x0, l0, x1, l1, 1e3),
    "the cost lacks the ½": option(labelled_pairs, half=1.0),
    "the cost contains the price of the labels": lambda x0, l0, x1, l1, beta: (lambda cost, share: (cost + beta * share, share))(
        *labelled_pairs(x0, l0, x1, l1, beta)
    ),
    "each point goes to the nearest one, and points are dropped": lambda x0, l0, x1, l1, beta: labelled_pairs(
        x0, l0, x1, l1, beta, plan=nearest_plan(beta)
    ),
    "the pairs are independent": lambda x0, l0, x1, l1, beta: labelled_pairs(
        x0, l0, x1, l1, beta, plan=lambda cost, differ: np.full(cost.shape, 1 / cost.size)
    ),
}


def ascent(x, y, b, epsilon, rate, *, half=0.5, sign=1.0, weighted=True, last=False, gauge=True, even=False):
    """Gradients of one noise's semi-dual by automatic differentiation; the mean as a weighted sum of the steps."""
    x, y, b = (torch.from_numpy(a) for a in (x, y, b))
    g, n = torch.zeros(len(y), dtype=torch.float64), len(x)
    mean_ = torch.zeros_like(g)
    for k, point in enumerate(x):
        with torch.enable_grad():
            leaf = g.clone().requires_grad_(True)
            slack = half * (point - y).square().sum(1) - leaf
            if epsilon:
                value = -epsilon * torch.logsumexp(-slack / epsilon + (b.log() if weighted else 0), 0)
            else:
                value = slack.min()
            value = value + (torch.full_like(b, 1 / len(b)) if even else b) @ leaf
            (slope,) = torch.autograd.grad(value, leaf)
        step = sign * rate / math.sqrt(k + 1) * slope
        g = g + step
        mean_ = mean_ + step * (n - k) / n  # a step counts in all the iterates from its own on
    found = g if last else mean_
    return (found - b @ found if gauge else found).numpy()


def draw_ascent(rng, d, *, epsilon=True):
    y = 1.5 * rng.standard_normal((5, d)) + mean(rng, d)
    x = 1.3 * rng.standard_normal((41, d))
    return x, y, weights(rng, 5), rng.uniform(0.3, 1.0) if epsilon else 0.0, rng.uniform(0.5, 1.5)


ASCENT_TRAPS = {
    "the last potentials are returned, not their mean": option(ascent, last=True),
    "the step goes downhill": option(ascent, sign=-1.0),
    "the mean under b is not subtracted": option(ascent, gauge=False),
    "the points are taken to have equal weights": option(ascent, even=True),
    "the cost lacks the ½": option(ascent, half=1.0),
}


CHECKS = {
    "ps3-1": [
        Check("equal weights", 2, "line_plan", option(draw_line, equal=True), line_plan, LINE_TRAPS, dimensions=(2, 3, 5)),
        Check("unequal weights", 4, "line_plan", draw_line, line_plan, LINE_TRAPS | UNSPLIT_TRAP, dimensions=(2, 3, 5)),
        Check(
            "weights with common levels", 2, "line_plan", option(draw_line, levels=True), line_plan,
            LINE_TRAPS | UNSPLIT_TRAP, dimensions=(2, 3, 5),
        ),
    ],
    "ps3-2": [
        Check(
            "pairs on the line", 3, "monotone_shift", option(draw_turned, line=True), monotone_shift, SHIFT_TRAPS,
            dimensions=(2, 3, 5),
        ),
        Check(
            "pairs in the plane and in space", 5, "monotone_shift", draw_turned, monotone_shift, SHIFT_TRAPS | PAIR_TRAP,
            dimensions=(2, 3, 5),
        ),
    ],
    "ps3-4": [
        Check(
            "the potentials, Gaussian noise and two points", 2, "collinear_potentials", option(draw_collinear, mixture=False),
            collinear_potentials, {k: v for k, v in WALL_TRAPS.items() if "order" not in k},
        ),
        Check(
            "the potentials, a mixture and more points", 4, "collinear_potentials", draw_collinear, collinear_potentials,
            WALL_TRAPS | {MIXTURE_TRAP: lambda w, m, S, y, b: collinear_potentials(*one_gaussian(w, m, S), y, b)},
        ),
        Check("the squared distance", 4, "collinear_w2", draw_collinear, collinear_w2, W2_TRAPS),
    ],
    "ps3-5": [
        Check("the velocity", 4, "dirac_velocity", draw_diracs, in_numpy(dirac_velocity), DIRAC_TRAPS, rows=1),
        Check("its Jacobian", 4, "dirac_jacobian", draw_diracs, in_numpy(dirac_jacobian), JACOBIAN_TRAPS, rows=1),
    ],
    "ps3-7": [
        Check(
            "the excess of the cost", 5, "flow_excess", draw_flow, flow_excess,
            {
                "the flow is taken to be optimal": lambda *a: 0.0,
                "the flow is taken to end in the nearest point": nearest_excess,
                "the slabs are across Su": across_image(lambda pair: pair[0]),
                "it is half of the excess: the cost has a factor ½": lambda *a: 0.5 * flow_excess(*a),
            },
            dimensions=(2, 3, 5),
        ),
        Check(
            "the share that goes elsewhere", 3, "flow_elsewhere", draw_flow, flow_elsewhere,
            {
                "the flow is taken to be optimal": lambda *a: 0.0,
                "the flow is taken to end in the nearest point": nearest_elsewhere,
                "the slabs are across Su": across_image(lambda pair: pair[1]),
            },
            dimensions=(2, 3, 5),
        ),
    ],
    "ps3-8": [
        Check(
            "two points of equal weight", 3, "loss_floor", lambda rng, d: (*law(rng, d), *collinear(rng, d, 2, even=True)),
            loss_floor, FLOOR_TRAPS | MARGINAL_TRAP, dimensions=(2, 3, 5),
        ),
        Check(
            "more points of unequal weights", 5, "loss_floor", lambda rng, d: (*law(rng, d), *collinear(rng, d, 4)),
            loss_floor, FLOOR_TRAPS | MARGINAL_TRAP,
        ),
    ],
    "ps3-9": [
        Check(
            "the map", 5, "sliced_map", option(draw_slices, map_=True), sliced_map,
            {
                "the factor d is missing": option(sliced_map, factor=1),
                "it is Monge's map": lambda x, *laws: monge_map(*as_laws(*laws))(torch.from_numpy(x)).numpy(),
                "the gradient has the wrong sign": option(sliced_map, turned=True),
            },
            dimensions=(2, 3), rows=0,
        ),
        Check(
            "the gap", 3, "sliced_gap", draw_slices, sliced_gap,
            {
                "it is taken to be 0": lambda *a: 0.0,
                "the squared distance of the means is not divided by d": lambda m0, S0, m1, S1: (
                    sliced_gap(m0, S0, m1, S1) - (len(m0) - 1) * ((m1 - m0) ** 2).sum()
                ),
                "the sliced distance is not multiplied by d": option(sliced_gap, factor=1),
                "it is divided by d": lambda *a: sliced_gap(*a) / len(a[0]),
            },
            dimensions=(2, 3),
        ),
    ],
    "ps3-10": [Check("the bound", 8, "sliced_bound", draw_clouds, sliced_bound, BOUND_TRAPS, dimensions=(2, 3, 5))],
    "ps3-11": [
        Check(
            "pairs with labels, as many on both sides", 2, "labelled_pairs", option(draw_labelled, as_many=True),
            labelled_pairs, {name: trap for name, trap in LABEL_TRAPS.items() if "dropped" not in name}, dimensions=(2, 3, 5),
        ),
        Check(
            "pairs with labels, not as many on both sides", 3, "labelled_pairs", draw_labelled, labelled_pairs, LABEL_TRAPS,
            dimensions=(2, 3, 5),
        ),
        Check(
            "the ascent without entropy", 2, "ascent", option(draw_ascent, epsilon=False), ascent, ASCENT_TRAPS,
            dimensions=(2, 3, 5),
        ),
        Check(
            "the ascent with entropy", 3, "ascent", draw_ascent, ascent,
            ASCENT_TRAPS | {"the softmax does not contain b": option(ascent, weighted=False)}, dimensions=(2, 3, 5),
        ),
    ],
}  # fmt: skip
