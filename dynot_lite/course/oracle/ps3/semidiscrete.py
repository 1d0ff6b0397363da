"""Problem set 3, parts 4, 5, 7 and 8: transport and flow matching to points, most of them on a line in space."""

import itertools
import math
from functools import partial

import numpy as np
import torch
from scipy.integrate import quad, solve_ivp
from scipy.stats import norm

from dynot_lite.course.oracle.closed_forms import NODES, WEIGHTS, form, integral, inverse, squares
from dynot_lite.course.oracle.compare import Check
from dynot_lite.course.oracle.draws import covariance, law, mean, points, weights
from dynot_lite.laws.mixtures import fm_velocity_diracs

__all__ = ["CHECKS"]


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
    offset = y - y.mean(0)
    direction = offset[squares(offset).argmax()]
    direction = direction / np.linalg.norm(direction)
    return direction, offset @ direction, np.argsort(offset @ direction)


def projected(w, m, S, y):
    direction, place, order = on_the_line(y)
    return (m - y.mean(0)) @ direction, np.sqrt(np.einsum("i,kij,j->k", direction, S, direction)), place, order


density = lambda w, mu, sd, r: norm.pdf(np.asarray(r)[..., None], mu, sd) @ w


def cuts(w, mu, sd, levels):
    """Quantiles of a mixture on the line: dq/ds = 1/density, from the level of the first mean."""
    start = float(norm.cdf(mu[0], mu, sd) @ w)
    found = []
    for level in levels:
        span, slope = (start, level), lambda s, q: 1 / density(w, mu, sd, q)
        path = solve_ivp(slope, span, [mu[0]], method="DOP853", rtol=1e-9, atol=1e-10)
        found.append(path.y[0, -1] if level != start else mu[0])
    return np.array(found)


def collinear_potentials(w, m, S, y, b, *, walls_of=cuts):
    """Equal scores ½|x − y_j|² − g_j on both sides of each wall, at a point of the line; ⟨b, g⟩ = 0."""
    mu, sd, _place, order = projected(w, m, S, y)
    walls, g = walls_of(w, mu, sd, np.cumsum(b[order])[:-1]), np.zeros(len(y))
    for one, other, wall in zip(order[:-1], order[1:], walls, strict=True):
        x = y.mean(0) + wall * on_the_line(y)[0]
        g[other] = g[one] + 0.5 * squares(x - y[other]) - 0.5 * squares(x - y[one])
    return g - b @ g


def cost_of_walls(w, m, S, y, walls, *, across=True):
    """E|x − y(x)|² when the slabs between the walls go to the points in their order, by quadrature."""
    mu, sd, place, order = projected(w, m, S, y)
    ends = [(mu - 10 * sd).min(), *walls, (mu + 10 * sd).max()]
    total = sum(
        quad(lambda r, s=s: (r - s) ** 2 * density(w, mu, sd, r), low, high, epsabs=1e-10, limit=200)[0]
        for s, low, high in zip(place[order], ends[:-1], ends[1:], strict=True)
    )
    direction = on_the_line(y)[0]
    off = np.eye(y.shape[1]) - np.outer(direction, direction)
    spread = np.einsum("k,ij,kij->", w, off, S) + w @ squares((m - y.mean(0)) @ off)
    return total + across * spread


def collinear_w2(w, m, S, y, b, **options):
    mu, sd, _, order = projected(w, m, S, y)
    return cost_of_walls(w, m, S, y, cuts(w, mu, sd, np.cumsum(b[order])[:-1]), **options)


def midpoints(y):
    place = np.sort(on_the_line(y)[1])
    return (place[1:] + place[:-1]) / 2


def independent_cost(w, m, S, y, b):
    return w @ (np.einsum("kii->k", S) + squares(m - b @ y)) + b @ squares(y - b @ y)


def of_one_gaussian(function):
    """The function for the Gaussian with the moments of the mixture."""

    def changed(w, m, S, y, b):
        offset = m - w @ m
        spread = np.einsum("k,kij->ij", w, S) + (w[:, None] * offset).T @ offset
        return function(np.ones(1), (w @ m)[None], spread[None], y, b)

    return changed


def of_gaussian(function):
    """A function of a mixture as one of a single Gaussian N(m, S)."""
    return lambda m, S, *rest, **options: function(np.ones(1), m[None], S[None], *rest, **options)


def draw_collinear(rng, d, *, mixture=True):
    w = weights(rng, 3) if mixture else np.ones(1)
    m = 1.5 * rng.standard_normal((len(w), d))
    S = np.stack([0.6 * covariance(rng, d) for _ in w])
    return w, m, S, *collinear(rng, d, int(rng.integers(4, 7)) if mixture else 2)


def bilinear(w, m, S, y, b):
    """The potentials of the cost −⟨x, y⟩."""
    g = collinear_potentials(w, m, S, y, b) - 0.5 * squares(y)
    return g - b @ g


WALL_TRAPS = {
    "the walls are half-way between the points": lambda w, m, S, y, b: 0 * b,
    "the potentials are twice ours: those of the cost |x − y|²": lambda *a: 2 * collinear_potentials(*a),
    "the potentials are those of the cost −⟨x, y⟩": bilinear,
    "the noise is taken to be standard normal": lambda w, m, S, *rest: of_gaussian(collinear_potentials)(
        0 * m[0], np.eye(m.shape[1]), *rest
    ),
    "the variance stands for the standard deviation": partial(
        collinear_potentials, walls_of=lambda w, mu, sd, levels: cuts(w, mu, sd**2, levels)
    ),
    "the order of the points is forgotten after sorting": lambda *a: collinear_potentials(*a)[on_the_line(a[3])[2]],
}
MIXTURE_TRAP = "the mixture is replaced by the Gaussian with its mean and covariance"
W2_TRAPS = {
    "the term with the walls has the wrong sign": lambda *a: 2 * independent_cost(*a) - collinear_w2(*a),
    "the walls are half-way between the points": lambda *a: cost_of_walls(*a[:4], midpoints(a[3])),
    "only the distance along the line is counted": partial(collinear_w2, across=False),
    "it is half of W₂²": lambda *a: 0.5 * collinear_w2(*a),
    "the pairs are independent": independent_cost,
    MIXTURE_TRAP: of_one_gaussian(collinear_w2),
}


# ------------------------------------------------------------------------------------ 5: flow matching to weighted points


def dirac_velocity(t, x, m, S, y, b):
    """By whitening: in the coordinates z = L⁻¹(x − m) the noise is N(0, I), and velocities are mapped by L."""
    x, m, S, y, b = map(torch.as_tensor, (x, m, S, y, b))
    root = torch.linalg.cholesky(S)
    white = lambda z: torch.linalg.solve_triangular(root, (z - m).mT, upper=False).mT
    # X_t − m = L((1 − t)Z + t L⁻¹(Y − m)).
    return fm_velocity_diracs(white(y), t, white(x), weights=b) @ root.mT


def dirac_jacobian(t, x, *data):
    jacobian = lambda z: torch.autograd.functional.jacobian(lambda z: dirac_velocity(t, z[None], *data)[0], z)
    return torch.stack([jacobian(z) for z in torch.as_tensor(x)])


def draw_diracs(rng, d):
    return rng.uniform(0.35, 0.65), points(rng, d), *law(rng, d), 1.5 * rng.standard_normal((4, d)), weights(rng, 4)


def posterior(t, x, m, S, y, b, *, centre=None):
    """Softmax weights, shape (n, K), with a place of the components that may be wrong."""
    offset = x[:, None] - (1 - t) * m - (t * y if centre is None else centre)
    score = np.log(b) - 0.5 * np.einsum("nki,ij,nkj->nk", offset, inverse(S), offset) / (1 - t) ** 2
    score = np.exp(score - score.max(1, keepdims=True))
    return score / score.sum(1, keepdims=True)


def posterior_jacobian(t, x, m, S, y, b, *, power=3, noise=inverse):
    p = posterior(t, x, m, S, y, b)
    spread = np.einsum("nk,ki,kj->nij", p, y, y) - np.einsum("nk,ki,nl,lj->nij", p, y, p, y)
    return -np.eye(len(S)) / (1 - t) + t / (1 - t) ** power * spread @ noise(S)


DIRAC_TRAPS = {
    name: lambda t, x, m, S, y, b, weights_of=weights_of: (weights_of(t, x, m, S, y, b) @ y - x) / (1 - t)
    for name, weights_of in {
        "the weights are those of the points, not conditional on X_t": lambda t, x, m, S, y, b: b,
        "the factor t of y is forgotten": lambda *a: posterior(*a, centre=a[4]),
        "the noise is taken to be N(0, I)": lambda t, x, m, S, y, b: posterior(t, x, 0 * m, np.eye(len(m)), y, b),
        "the points are taken to have equal weights": lambda t, x, m, S, y, b: posterior(
            t, x, m, S, y, np.full(len(b), 1 / len(b))
        ),
        "the mean of the noise is left out": lambda t, x, m, S, y, b: posterior(t, x, 0 * m, S, y, b),
        "X_t goes to the nearest point": lambda t, x, m, S, y, b: np.eye(len(y))[squares(x[:, None] - y).argmin(1)],
    }.items()
}
JACOBIAN_TRAPS = {
    "the conditional weights are not differentiated": lambda t, x, *_: np.tile(-np.eye(x.shape[1]) / (1 - t), (len(x), 1, 1)),
    "the Jacobian is transposed": lambda *a: dirac_jacobian(*a).mT,
    "the covariance of the noise is missing": partial(posterior_jacobian, noise=lambda S: np.eye(len(S))),
    "(1 − t)² stands for (1 − t)³": partial(posterior_jacobian, power=2),
}


# ------------------------------------------------------------------------------------- 7: where flow matching is not optimal


def flow_and_transport(m, S, y, b, *, across=np.linalg.solve):
    """(excess of E|x − y(x)|², share of the noise) of slabs across ``across(S, u)`` against those across the line, u.

    With r = ⟨u, x − m⟩ and ω = ⟨across(S, u), x − m⟩, both standardised: quadrature over r within each optimal slab, and the law
    of ω given r. The difference of the costs is 2 E⟨x, y_OT − y_FM⟩.
    """
    direction, place, order = on_the_line(y)
    normal = across(S, direction)
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


flow_excess = lambda *data, **options: flow_and_transport(*data, **options)[0]
flow_elsewhere = lambda *data, **options: flow_and_transport(*data, **options)[1]
draw_flow = lambda rng, d, *, n=None: (*law(rng, d), *collinear(rng, d, n or int(rng.integers(3, 6))))


def nearest_excess(m, S, y, b):
    return of_gaussian(cost_of_walls)(m, S, y, midpoints(y)) - of_gaussian(collinear_w2)(m, S, y, b)


def nearest_elsewhere(m, S, y, b):
    """The mass between the walls of two partitions of the line."""
    mu, sd, _place, order = of_gaussian(projected)(m, S, y)
    level = np.concatenate([[0], norm.cdf(midpoints(y), mu, sd), [1]])
    right = np.concatenate([[0], np.cumsum(b[order])])
    return 1 - np.maximum(np.minimum(level[1:], right[1:]) - np.maximum(level[:-1], right[:-1]), 0).sum()


# ------------------------------------------------------------------------------------------------------------ 8: loss floor


def scale_of(S, y):
    """√⟨u, S⁻¹u⟩."""
    return form(on_the_line(y)[0], inverse(S)) ** 0.5


def loss_floor(m, S, y, b, *, scale=scale_of):
    """∫₀¹ E Var(s | ω_t)/(1 − t)² dt, with ω_t = (1 − t)Z + t·scale·s, by nodes in time and in ω."""
    s = on_the_line(y)[1]
    centre, z = scale(S, y) * s, np.linspace(-9, 9, 361)
    mass = norm.pdf(z) * (z[1] - z[0])

    def variance(t):
        omega = t * centre[:, None] + (1 - t) * z
        score = np.log(b) - 0.5 * ((omega[..., None] - t * centre) / (1 - t)) ** 2
        p = np.exp(score - score.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        return b @ ((p @ s**2 - (p @ s) ** 2) @ mass) / (1 - t) ** 2

    return integral(variance)


mean_square = of_gaussian(independent_cost)
FLOOR_TRAPS = {
    "the minimum is taken to be 0": lambda *a: 0.0,
    "the difference X₁ − X₀ is not conditioned": mean_square,
    "the energy of v is taken to be W₂²": lambda *a: mean_square(*a) - of_gaussian(collinear_w2)(*a),
    "it is the energy, not the loss": lambda *a: mean_square(*a) - loss_floor(*a),
    "the integral is taken over γ², not over γ": lambda m, S, y, b: -2 * b @ np.log(b) / scale_of(S, y),
    "the noise is taken to be N(0, I)": partial(loss_floor, scale=lambda S, y: 1.0),
    "the conditional law is that of a Gaussian X₁": lambda m, S, y, b: (
        math.pi / 2 * math.sqrt(b @ squares(y - b @ y)) / scale_of(S, y)
    ),
    "the noise is projected on the line of the points": partial(
        loss_floor, scale=lambda S, y: form(on_the_line(y)[0], S) ** -0.5
    ),
}


SPACE = (2, 3, 5)
CHECKS = {
    "ps3-4": [
        Check("the potentials, Gaussian noise and two points", 1, "collinear_potentials", partial(draw_collinear, mixture=False),
              collinear_potentials, {name: trap for name, trap in WALL_TRAPS.items() if "order" not in name}),
        Check("the potentials, a mixture and more points", 3, "collinear_potentials", draw_collinear, collinear_potentials,
              WALL_TRAPS | {MIXTURE_TRAP: of_one_gaussian(collinear_potentials)}),
        Check("the squared distance", 3, "collinear_w2", draw_collinear, collinear_w2, W2_TRAPS),
    ],
    "ps3-5": [
        Check("the velocity", 2, "dirac_velocity", draw_diracs, dirac_velocity, DIRAC_TRAPS, rows=1),
        Check("its Jacobian", 3, "dirac_jacobian", draw_diracs, dirac_jacobian, JACOBIAN_TRAPS, rows=1),
    ],
    "ps3-7": [
        Check("the excess of the cost", 4, "flow_excess", draw_flow, flow_excess, {
            "the flow is taken to be optimal": lambda *a: 0.0,
            "the flow is taken to end in the nearest point": nearest_excess,
            "the slabs are across Su": partial(flow_excess, across=np.matmul),
            "it is half of the excess: the cost has a factor ½": lambda *a: 0.5 * flow_excess(*a),
        }, SPACE),
        Check("the share that goes elsewhere", 2, "flow_elsewhere", draw_flow, flow_elsewhere, {
            "the flow is taken to be optimal": lambda *a: 0.0,
            "the flow is taken to end in the nearest point": nearest_elsewhere,
            "the slabs are across Su": partial(flow_elsewhere, across=np.matmul),
        }, SPACE),
    ],
    "ps3-8": [
        Check("two points of equal weight", 2, "loss_floor", lambda rng, d: (*law(rng, d), *collinear(rng, d, 2, even=True)),
              loss_floor, FLOOR_TRAPS, SPACE),
        Check("more points of unequal weights", 4, "loss_floor", partial(draw_flow, n=4), loss_floor, FLOOR_TRAPS),
    ],
}  # fmt: skip
