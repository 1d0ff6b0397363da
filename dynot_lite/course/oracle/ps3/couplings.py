"""Problem set 3, parts 1, 2 and 11: plans on the line, cyclical monotonicity, pairs with labels, and stochastic ascent."""

import math
from functools import partial

import numpy as np
import ot
import torch
from scipy.optimize import linprog

from dynot_lite.course.oracle.closed_forms import squares
from dynot_lite.course.oracle.compare import Check, altered, zero
from dynot_lite.course.oracle.draws import mean, weights

__all__ = ["CHECKS"]


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


def unsplit(x, y, a, b):
    """Each x goes, as a whole, to the quantile of the middle of its mass."""
    order, to = np.argsort(x), np.argsort(y)
    middle = np.cumsum(a[order]) - a[order] / 2
    plan = np.zeros((len(x), len(y)))
    plan[order, to[np.searchsorted(np.cumsum(b[to])[:-1], middle)]] = a[order]
    return plan


LINE_TRAPS = {
    "the order of the points is forgotten after sorting": altered(line_plan, x=np.sort, y=np.sort),
    "the two marginals are multiplied": lambda x, y, a, b: np.outer(a, b),
    "the largest points are paired with the smallest": altered(line_plan, x=np.negative),
    "each point goes to the nearest one": lambda x, y, a, b: a[:, None] * np.eye(len(y))[np.abs(x[:, None] - y).argmin(1)],
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
    return max(0.0, (-(step * move).sum(2) / (squares(step) + np.eye(len(x)))).max())


gain_and_price = lambda x, y, order: ((x * (y[order] - y)).sum(), (x * (x - x[order])).sum())


def first_shift(x, y):
    gain, price = gain_and_price(x, y, ot.emd([], [], -x @ y.T).argmax(1))
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


# ----------------------------------------------------------------------------------------------------- 11: pairs with labels


def best_plan(cost, differ, beta):
    """The linear program over plans, with the augmented cost."""
    n, m = cost.shape
    rows = np.concatenate([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    found = linprog((cost + beta * differ).ravel(), A_eq=rows, b_eq=np.repeat([1 / n, 1 / m], [n, m]))
    return found.x.reshape(n, m)


def nearest_plan(cost, differ, beta):
    return np.eye(cost.shape[1])[(cost + beta * differ).argmin(1)] / len(cost)


def labelled_pairs(x0, l0, x1, l1, beta, *, half=0.5, plan=best_plan):
    cost, differ = half * squares(x0[:, None] - x1), (l0[:, None] != l1).astype(float)
    found = plan(cost, differ, beta)
    return (found * cost).sum(), (found * differ).sum()


def draw_labelled(rng, d, *, as_many=False):
    n, m = (9, 9) if as_many else (7, 10)
    l0, l1 = (rng.permutation(np.arange(k) % 3).astype(float) for k in (n, m))
    centres = 1.2 * rng.standard_normal((3, d))
    x0, x1 = (centres[labels.astype(int)] + rng.standard_normal((len(labels), d)) for labels in (l0, l1))
    return x0, l0, x1 + mean(rng, d), l1, rng.uniform(0.3, 1.5)


def with_price(x0, l0, x1, l1, beta):
    cost, share = labelled_pairs(x0, l0, x1, l1, beta)
    return cost + beta * share, share


LABEL_TRAPS = {
    "the labels are ignored": altered(labelled_pairs, beta=zero),
    "the labels always come first": altered(labelled_pairs, beta=lambda beta: 1e3),
    "the cost lacks the ½": partial(labelled_pairs, half=1.0),
    "the cost contains the price of the labels": with_price,
    "each point goes to the nearest one, and points are dropped": partial(labelled_pairs, plan=nearest_plan),
    "the pairs are independent": partial(labelled_pairs, plan=lambda cost, *_: np.full(cost.shape, 1 / cost.size)),
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
    "the last potentials are returned, not their mean": partial(ascent, last=True),
    "the step goes downhill": partial(ascent, sign=-1.0),
    "the mean under b is not subtracted": partial(ascent, gauge=False),
    "the points are taken to have equal weights": partial(ascent, even=True),
    "the cost lacks the ½": partial(ascent, half=1.0),
}


SPACE = (2, 3, 5)
CHECKS = {
    "ps3-1": [
        Check("equal weights", 1, "line_plan", partial(draw_line, equal=True), line_plan, LINE_TRAPS, SPACE),
        Check("unequal weights", 2, "line_plan", draw_line, line_plan, LINE_TRAPS | UNSPLIT_TRAP, SPACE),
        Check("weights with common levels", 1, "line_plan", partial(draw_line, levels=True), line_plan,
              LINE_TRAPS | UNSPLIT_TRAP, SPACE),
    ],
    "ps3-2": [
        Check("pairs on the line", 2, "monotone_shift", partial(draw_turned, line=True), monotone_shift, SHIFT_TRAPS, SPACE),
        Check("pairs in the plane and in space", 4, "monotone_shift", draw_turned, monotone_shift,
              SHIFT_TRAPS | PAIR_TRAP, SPACE),
    ],
    "ps3-11": [
        Check("pairs with labels, as many on both sides", 1, "labelled_pairs", partial(draw_labelled, as_many=True),
              labelled_pairs, {name: trap for name, trap in LABEL_TRAPS.items() if "dropped" not in name}, SPACE),
        Check("pairs with labels, not as many on both sides", 2, "labelled_pairs", draw_labelled,
              labelled_pairs, LABEL_TRAPS, SPACE),
        Check("the ascent without entropy", 1, "ascent", partial(draw_ascent, epsilon=False), ascent, ASCENT_TRAPS, SPACE),
        Check("the ascent with entropy", 1, "ascent", draw_ascent, ascent,
              ASCENT_TRAPS | {"the softmax does not contain b": partial(ascent, weighted=False)}, SPACE),
    ],
}  # fmt: skip
