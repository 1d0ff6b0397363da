"""Optimal transport on lines: Kantorovich potentials in closed form, c-transforms, directions, sliced distances, and the sphere.

On the line the optimal plan matches quantiles whatever the convex cost. The potential of the cost ½(x − y)² is therefore an
integral, f' = x − T(x), of any monotone T that lies between the smallest and the largest point to which mass at x may go.
"""

import math

import numpy as np
import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base import randomness
from dynot_lite._base.differentiation import refuse_graph

__all__ = [
    "c_transform",
    "directions",
    "geodesic_cost",
    "potentials_1d",
    "soft_c_transform",
    "sphere_points",
    "squared_cost",
    "stereographic",
    "w2_squared_1d",
    "w2_squared_sliced",
]


def potentials_1d(x0, x1, *, weights0=None, weights1=None) -> Tensor:
    """A Kantorovich potential f of one-dimensional transport for the cost c = ½(x − y)², in closed form.

    Along the sorted atoms x of the source, with A_i = a_(1) + … + a_(i) and the quantiles y_lo = Q_b(A_i), y_hi = Q_b(A_i+) of
    the target,

        f_(i+1) − f_(i) = ½ (x_(i+1) − x_(i)) (x_(i+1) + x_(i) − y_lo − y_hi).

    y_lo and y_hi differ exactly where the two distribution functions have a common level (always, for uniform weights and
    n = m). The dual is then not unique, and this formula takes the middle of its interval. With g = ``c_transform(cost, f)``
    the pair is optimal: f ⊕ g ≤ c everywhere and a·f + b·g = min E c = ½W₂². Atoms without mass get the extension that keeps
    this true, and atoms of the target without mass change nothing.

    Args:
        x0: (n,), or (n, L) for L independent problems (projections on L directions), sorted or not.
        x1: (m,) or (m, L).
        weights0, weights1: probability weights a and b, (n,) and (m,), the same in all problems; uniform if None.

    Returns:
        f in the shape and order of x0, with a·f = 0 in every problem.

    Raises:
        ValueError: empty or non-finite input, L differs, weights that are negative or do not sum to 1, squares that overflow.

    >>> potentials_1d([0.0, 1.0], [3.0, 4.0]).tolist()    # a translation by v: f = −vx + const
    [1.5, -1.5]
    """
    refuse_graph(x0, "x0")
    refuse_graph(x1, "x1")
    x0, x1, a, b = _lines(x0, x1, weights0, weights1)
    lines = [z.reshape(len(z), -1).mT.numpy(force=True) for z in (x0, x1)]
    f = _potentials(*lines, *(w if w is None else w.numpy(force=True) for w in (a, b)))
    return torch.from_numpy(f).to(x0.device).mT.reshape(x0.shape)


def w2_squared_1d(x0, x1, *, weights0=None, weights1=None) -> Tensor:
    """W₂² (no ½) on the line, ∫₀¹ (Q_a(s) − Q_b(s))² ds, in each of L problems; arguments as in :func:`potentials_1d`.

    Returns:
        Shape (L,), or a scalar if x0 is (n,).

    >>> w2_squared_1d([0.0, 1.0], [3.0]).item()
    6.5
    """
    x0, x1, a, b = _lines(x0, x1, weights0, weights1)
    (xs, order), (ys, order_y) = (z.reshape(len(z), -1).mT.sort(dim=-1) for z in (x0, x1))
    above, below = (
        torch.from_numpy(_levels(w if w is None else w.numpy(force=True), i.numpy(force=True))).to(x0.device)
        for w, i in ((a, order), (b, order_y))
    )
    # Between two neighbours of the merged levels both quantile functions are constant.
    levels = torch.cat([above, below], -1).sort(dim=-1).values
    i, j = (torch.searchsorted(w, levels).clamp(max=w.shape[-1] - 1) for w in (above, below))
    squares = (xs.gather(-1, i) - ys.gather(-1, j)).square()
    return (torch.nn.functional.pad(levels, (1, 0)).diff(dim=-1).to(x0.dtype) * squares).sum(-1).reshape(x0.shape[1:])


def w2_squared_sliced(x0, x1, directions, *, weights0=None, weights1=None) -> Tensor:
    """The sliced distance: the mean over ``directions`` (L, d) of W₂² (no ½) of the projections of x0 (n, d) and x1 (m, d).

    For uniformly distributed directions its expectation is at most W₂²/d, with equality for translations.
    """
    x0 = check.points(x0, "x0")
    x1 = check.points(x1, "x1", dim=x0.shape[-1], like=x0)
    turned = check.squares(check.cloud(directions, "directions", dim=x0.shape[-1], like=x0), "directions").mT
    return w2_squared_1d(x0 @ turned, x1 @ turned, weights0=weights0, weights1=weights1).mean()


def directions(dim: int, count: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Unit vectors to project on, shape (count, dim), float64, where the generator lives.

    In the plane they are stratified: equal angles on a half circle (θ and −θ give the same potentials) with one random
    rotation. In other dimensions they are normalised Gaussian vectors, independent and uniform on the sphere.

    Raises:
        ValueError: dim or count is not a positive integer.
    """
    check.count(dim, "dim")
    check.count(count, "count")
    if dim == 2:
        first = randomness.uniform(1, generator=generator, dtype=torch.float64)
        angles = math.pi * (torch.arange(count, device=first.device) + first) / count
        return torch.stack([angles.cos(), angles.sin()], -1)
    return torch.nn.functional.normalize(randomness.normal(count, dim, generator=generator, dtype=torch.float64), dim=-1)


def squared_cost(x0, x1) -> Tensor:
    """The matrix ½‖x0[i] − x1[j]‖², (n, d), (m, d) -> (n, m), by differences: nothing cancels; a ValueError if it overflows."""
    x0 = check.points(x0, "x0")
    x1 = check.points(x1, "x1", dim=x0.shape[-1], like=x0)
    cost = 0.5 * torch.cdist(x0, x1, compute_mode="donot_use_mm_for_euclid_dist").square()
    if not check.finite(cost):
        raise ValueError("x0 and x1 must have finite squared distances")
    return cost


def c_transform(cost, potential) -> Tensor:
    """The c-transform g_j = min_i c_ij − f_i of a potential f, (n, m), (n,) -> (m,): the largest g with f ⊕ g ≤ c.

    ``c_transform(cost.mT, g)`` goes the other way. Raises ValueError for shapes that do not fit and values that are not finite.
    """
    cost, potential = _cost_and_potential(cost, potential)
    return (cost - potential.unsqueeze(1)).amin(0)


def soft_c_transform(cost, potential, epsilon: float, *, weights=None) -> Tensor:
    """The entropic c-transform g_j = −ε log Σ_i a_i exp((f_i − c_ij)/ε) of a potential f, (n, m), (n,) -> (m,).

    It makes the columns of the plan a_i b_j exp((f_i + g_j − c_ij)/ε) sum to b. The ``weights`` a (n,) are uniform if None; atoms
    with a_i = 0 do not count. Raises ValueError as :func:`c_transform`, for ε ≤ 0, and for weights of another sum than 1.
    """
    cost, potential = _cost_and_potential(cost, potential)
    epsilon, n = check.positive(epsilon, "epsilon"), len(potential)
    a = torch.full_like(potential, 1 / n) if weights is None else check.weights(weights, n, "weights", like=potential)
    scores, a = (potential.unsqueeze(1) - cost) / epsilon, a.unsqueeze(1)
    # Not in the log domain for the weights: the derivative in a weight exists where the weight is zero.
    peak = scores.detach().masked_fill(a == 0, -math.inf).amax(0)
    parts = a * (scores - peak).clamp_max(math.log(torch.finfo(a.dtype).max) - 1).exp()
    return -epsilon * (peak + parts.sum(0).log())


def sphere_points(latitude, longitude) -> Tensor:
    """Points of the unit sphere in R³ from degrees north and degrees east, (n,), (n,) -> (n, 3)."""
    latitude = check.as_tensor(latitude, "latitude")
    longitude = check.as_tensor(longitude, "longitude", like=latitude)
    if latitude.shape != longitude.shape or (latitude.abs() > 90).any():
        raise ValueError(f"latitude must lie in [-90, 90] and have the shape of longitude, got shape {tuple(latitude.shape)}")
    latitude, longitude = latitude.deg2rad(), longitude.deg2rad()
    return torch.stack([latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()], -1)


def geodesic_cost(x0, x1) -> Tensor:
    """The matrix ½ d(x0[i], x1[j])² of great-circle distances on the unit sphere, (n, 3), (m, 3) -> (n, m)."""
    x0 = check.points(x0, "x0", dim=3)
    x1 = check.points(x1, "x1", dim=3, like=x0)
    for name, points in (("x0", x0), ("x1", x1)):
        if ((points.norm(dim=-1) - 1).abs() > 1e-5).any():
            raise ValueError(f"{name} must lie on the unit sphere, got norms up to {points.norm(dim=-1).max().item():g}")
    # From the chord, accurate for neighbours, where arccos of a product near 1 is not.
    chord = torch.cdist(x0, x1, compute_mode="donot_use_mm_for_euclid_dist")
    return 0.5 * (2 * torch.asin((0.5 * chord).clamp(max=1))).square()


def stereographic(x, *, pole: float = 1e-6) -> Tensor:
    """The stereographic projection from the north pole, (n, 3) -> (n, 2): 2 (x₁, x₂)/(1 − x₃), the denominator at least ``pole``.

    It maps circles to circles but no distances, and neighbours of the pole to infinity: slicing there is a counter-example.
    """
    x = check.points(x, "x", dim=3)
    return 2 * x[..., :2] / (1 - x[..., 2:]).clamp(min=check.positive(pole, "pole"))


def _cost_and_potential(cost, potential) -> tuple[Tensor, Tensor]:
    cost = check.as_tensor(cost, "cost")
    potential = check.as_tensor(potential, "potential", like=cost)
    if cost.ndim != 2 or 0 in cost.shape or potential.shape != cost.shape[:1]:
        shapes = f"{tuple(cost.shape)} and {tuple(potential.shape)}"
        raise ValueError(f"cost and potential must have shapes (n, m) and (n,), got {shapes}")
    return cost, potential


def _lines(x0, x1, weights0, weights1) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    x0 = check.as_tensor(x0, "x0")
    x1 = check.as_tensor(x1, "x1", like=x0)
    for name, points in (("x0", x0), ("x1", x1)):
        if points.ndim not in (1, 2) or 0 in points.shape:
            raise ValueError(f"{name} must be a non-empty array of shape (n,) or (n, L), got shape {tuple(points.shape)}")
    if x0.shape[1:] != x1.shape[1:]:
        raise ValueError(f"x1 must have as many columns as x0, got shapes {tuple(x0.shape)} and {tuple(x1.shape)}")
    if not torch.isfinite((x0.abs().amax() + x1.abs().amax()).square()):
        raise ValueError("x0 and x1 must have finite squared distances")
    given = (weights0, x0, "weights0"), (weights1, x1, "weights1")
    for weights, _, name in given:
        refuse_graph(weights, name)
    a, b = (w if w is None else check.weights(w, len(z), name, like=x0) for w, z, name in given)
    return x0, x1, a, b


def _potentials(x: np.ndarray, y: np.ndarray, a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray:
    """:func:`potentials_1d` of checked rows, (L, n), (L, m) -> (L, n)."""
    # In NumPy, whose sort uses vector instructions and whose calls cost less: several times faster than torch on such sizes.
    x, y, n = np.ascontiguousarray(x), np.ascontiguousarray(y), x.shape[-1]
    if b is not None and not b.all():
        y, b = y[:, b > 0], b[b > 0]
    m = y.shape[-1]
    order = x.argsort(-1)
    starts = np.arange(0, x.size, n)[:, None]
    xs = x.take(order + starts)
    if a is None and b is None:  # the levels are exact, and the same in all problems
        level, ys = np.arange(1, n) * m, np.sort(y, -1)
        sum_y = ys[:, (level - 1) // n] + ys[:, level // n]
    else:
        order_y = y.argsort(-1)
        levels, cumulative = _levels(a, order)[:, :-1], _levels(b, order_y)
        # Equal up to rounding counts as equal: then y_hi is the next atom, for all have mass.
        tolerance = 4 * (n + m) * np.finfo(levels.dtype).eps
        lower = torch.searchsorted(torch.from_numpy(cumulative), torch.from_numpy(levels - tolerance)).numpy()
        lower = np.minimum(lower, m - 1)
        first = np.arange(0, y.size, m)[:, None]
        upper = np.minimum(lower + (cumulative.take(lower + first) <= levels + tolerance), m - 1)
        ys = y.take(order_y + first)
        sum_y = ys.take(lower + first) + ys.take(upper + first)
    left, right = xs[:, :-1], xs[:, 1:]
    f = np.zeros_like(x)
    f.ravel()[(order + starts)[:, 1:]] = np.cumsum(0.5 * (right - left) * (right + left - sum_y), -1)
    return f - (f.mean(-1) if a is None else f @ a)[:, None]


def _levels(weights: np.ndarray | None, order: np.ndarray) -> np.ndarray:
    """The distribution functions at the sorted atoms, (L, n), of last value 1."""
    rows, n = order.shape
    if weights is None:
        return np.broadcast_to(np.arange(1, n + 1) / n, (rows, n)).copy()
    # In double precision also for single weights: a sum of many of them must not blur the levels.
    sums = weights.astype(np.float64).take(order).cumsum(-1)
    return sums / sums[:, -1:]
