"""Problem set 3, parts 9 and 10: slices of Gaussian laws, and the bound that averaged potentials give."""

import functools
import math
from functools import partial

import numpy as np
import ot
from scipy.optimize import linprog

from dynot_lite.course.oracle.closed_forms import NODES, WEIGHTS, as_laws, distance_squared, form, squares
from dynot_lite.course.oracle.compare import Check
from dynot_lite.course.oracle.draws import laws, mean, points, weights
from dynot_lite.laws.gaussian import Gaussian, monge_map, w2_squared

__all__ = ["CHECKS"]


# -------------------------------------------------------------------------------------------------------------- 9: slices


@functools.cache
def sphere(d):
    """Directions on a half sphere and weights of sum 1, Gauss–Legendre in all angles, the pole being the first axis."""
    if d == 2:
        return np.stack([np.cos(math.pi * NODES), np.sin(math.pi * NODES)], 1), WEIGHTS
    polar, angle = np.meshgrid(math.pi * NODES, math.pi * NODES, indexing="ij")
    theta = np.stack([np.cos(polar), np.sin(polar) * np.cos(angle), np.sin(polar) * np.sin(angle)], -1)
    return theta.reshape(-1, 3), (0.5 * math.pi * np.sin(polar) * np.outer(WEIGHTS, WEIGHTS)).ravel()


def slices(m0, S0, m1, S1):
    """Directions, their weights, and the projections of both laws, each a batch of laws on the line."""
    theta, weights_ = sphere(len(m0))
    return theta, weights_, *(Gaussian((theta @ m)[:, None], form(theta, S)[:, None, None]) for m, S in ((m0, S0), (m1, S1)))


def sliced_map(x, m0, S0, m1, S1, *, factor=None, turned=False):
    """The displacements of the Monge maps of the projections, averaged over directions."""
    theta, weights_, p, q = slices(m0, S0, m1, S1)
    place = (theta @ x.T)[..., None]
    move = (monge_map(p, q)(place).numpy() - place)[..., 0] * (-1 if turned else 1)
    return x + (factor or len(m0)) * np.einsum("l,ln,li->ni", weights_, move, theta)


def sliced_gap(m0, S0, m1, S1, *, factor=None):
    _, weights_, p, q = slices(m0, S0, m1, S1)
    return distance_squared(m0, S0, m1, S1) - (factor or len(m0)) * weights_ @ w2_squared(p, q).numpy()


# ---------------------------------------------------------------------------------------------------------- 10: sliced bound


costs = lambda x, y: 0.5 * squares(x[:, None] - y)
semidual = lambda f, x, y, a, b: a @ f + b @ (costs(x, y) - f[:, None]).min(0)
on_lines = lambda x, y, theta: [costs((x @ e)[:, None], (y @ e)[:, None]) for e in theta]


def sliced_potential(x, y, a, b, theta):
    """The dual variable of the network simplex, for weights without common levels unique up to a constant; averaged."""
    f = np.mean([ot.emd(a, b, cost, log=True)[1]["u"] for cost in on_lines(x, y, theta)], 0)
    return f - a @ f


def sliced_bound(x, y, a, b, theta):
    """A linear program in the factor s and the other potential g: s f_i + g_j ≤ c_ij."""
    f, (n, m) = sliced_potential(x, y, a, b, theta), (len(x), len(y))
    rows = np.concatenate([np.repeat(f, m)[:, None], np.tile(np.eye(m), (n, 1))], 1)
    found = linprog(-np.concatenate([[a @ f], b]), rows, costs(x, y).ravel(), bounds=[(0, None)] + [(None, None)] * m)
    return -found.fun


def draw_clouds(rng, d):
    theta = rng.standard_normal((2 * d + 1, d))
    x, y = rng.standard_normal((7, d)), rng.standard_normal((9, d)) @ rng.standard_normal((d, d)) + mean(rng, d)
    return x, y, weights(rng, 7), weights(rng, 9), theta / np.linalg.norm(theta, axis=1, keepdims=True)


def scaled_bound(factor):
    return lambda x, y, a, b, theta: semidual(factor(len(x[0])) * sliced_potential(x, y, a, b, theta), x, y, a, b)


def sliced_cost(x, y, a, b, theta):
    """Half of the sliced squared distance."""
    return np.mean([ot.emd2(a, b, cost) for cost in on_lines(x, y, theta)])


def uniform_bound(x, y, a, b, theta):
    """The potentials of the points without their weights, which are then ignored up to the dual value."""
    even = np.full(len(x), 1 / len(x)), np.full(len(y), 1 / len(y))
    f = sliced_potential(x, y, *even, theta)
    return max(semidual(s * f, x, y, a, b) for s in np.linspace(0, 3 * len(x[0]), 400))


CHECKS = {
    "ps3-9": [
        Check("the map", 4, "sliced_map", lambda rng, d: (points(rng, d), *laws(rng, d)), sliced_map, {
            "the factor d is missing": partial(sliced_map, factor=1),
            "it is Monge's map": lambda x, *ends: monge_map(*as_laws(*ends))(x),
            "the gradient has the wrong sign": partial(sliced_map, turned=True),
        }, (2, 3), rows=0),
        Check("the gap", 2, "sliced_gap", laws, sliced_gap, {
            "it is taken to be 0": lambda *a: 0.0,
            "the squared distance of the means is not divided by d": lambda *a: (
                sliced_gap(*a) - (len(a[0]) - 1) * squares(a[2] - a[0])
            ),
            "the sliced distance is not multiplied by d": partial(sliced_gap, factor=1),
            "it is divided by d": lambda *a: sliced_gap(*a) / len(a[0]),
        }, (2, 3)),
    ],
    "ps3-10": [
        Check("the bound", 5, "sliced_bound", draw_clouds, sliced_bound, {
            "the factor is d, not the best one": scaled_bound(lambda d: d),
            "the factor is 1, not the best one": scaled_bound(lambda d: 1.0),
            "it is the cost of transport itself": lambda x, y, a, b, theta: ot.emd2(a, b, costs(x, y)),
            "it is half of the sliced distance": sliced_cost,
            "it is d/2 times the sliced distance": lambda x, *rest: len(x[0]) * sliced_cost(x, *rest),
            "the potentials are those of equal weights": uniform_bound,
        }, (2, 3, 5)),
    ],
}  # fmt: skip
