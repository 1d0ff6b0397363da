"""Calls of the room ``paths``."""

import math

import torch
from calls import Call

from dynot_lite.laws.gaussian import Gaussian
from dynot_lite.paths.continuity import (
    box_quadrature,
    bump,
    gauss_legendre,
    kinetic_energy,
    path_quadrature,
    strong_residual,
    weak_residual,
)
from dynot_lite.paths.flows import divergence, hutchinson_divergence, integrate, integrate_adaptive, log_prob, trajectory
from dynot_lite.paths.interpolants import Interpolant


def t(*rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


X = t([0.5, 1.0], [-1.0, 0.25], [2.0, -0.5])
X1 = t([1.5, 0.0], [-0.5, 1.25], [0.25, 2.0])
MATRIX = t([0.5, -1.0], [1.0, 0.25])
NORMAL = Gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]])
WEIGHTS = t(0.25, 0.375, 0.375)


def linear(t, x):
    """Of the unit of x, and no matter which: v = (1 + t) M x."""
    return (1 + t) * (x @ MATRIX.T.to(x))


def curved(t, x):
    """Its divergence depends on the point, coordinate by coordinate: v_i = (1 + t) x_i² / 4."""
    return (1 + t) * x.square() / 4


def moving(t):
    """A cloud of three points of unequal weights that moves with the velocity (1, 2)."""
    return X + t * torch.tensor([1.0, 2.0]).double(), WEIGHTS


def drift(t, x):
    return torch.tensor([1.0, 2.0]).to(x).expand_as(x)


def wave(t, x):
    return torch.sin(t + x[:, 0]) * torch.cos(2 * x[:, 1])


def density(t, x):
    return torch.exp(-0.5 * (x[:, 0] - t).square() - x[:, 1].square())


def alpha(t):
    return (1 - t) * (1 + t / 2)


def beta(t):
    return t.square()


def path(**changed) -> Interpolant:
    return Interpolant(**{"alpha": alpha, "beta": beta} | changed)


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def room(module, name, run, arrays, **options) -> Call:
    return Call(f"paths.{module}.{name}", run, arrays, **options)


FAR = "the logarithm of a density that is zero in float64 is −∞"
ANY_DIMENSION = {"a wrong length": "points of any dimension are valid; only the velocity knows its own"}
STEPS = {"steps": ("count", 3), "t0": ("number", 0.25), "t1": ("number", 1.0), "method": ("choice", "rk4")}
FLOW = {
    "options": STEPS,
    "callables": {"velocity": linear},
    "units": {"x0": 1},
    "result_units": (1,),
    "rows": [{"x0": 0, "result": 0}],
    "excused": ANY_DIMENSION,
}
TIMES = t(0.25, 0.5, 0.75)
MEASURE = {"path": moving, "velocity": drift}
INTERPOLANT = {
    "callables": {"alpha": alpha, "beta": beta},
    "differentiated": ("alpha", "beta"),
    "excused": {"inputs": "of moved times both have other ends"},
}

CALLS = [
    room(
        "interpolants",
        "Interpolant",
        lambda **changed: path(**changed).at(TIMES, X, X1),
        {},
        names={"alpha": "alpha", "beta": "beta"},
        callables=INTERPOLANT["callables"] | {"d_alpha": lambda t: -0.5 - t, "d_beta": lambda t: 2 * t},
    ),
    room(
        "interpolants", "Interpolant, derivatives by torch", lambda **changed: path(**changed).at(TIMES, X, X1), {}, **INTERPOLANT
    ),
    room(
        "interpolants",
        "Interpolant.coefficients",
        lambda t: path().coefficients(t),
        {"t": TIMES},
        names={"t": r"\bt\b"},
        rows=[{"t": 0, "result": 0}],
        limits={"one time": ({"t": t(0.5)}, (t(0.625), t(0.25), t(-1.0), t(1.0)))},
        excused={"bad": "times of any shape have coefficients", "extreme": "beyond [0, 1] a path may be anything"},
    ),
    room(
        "interpolants",
        "Interpolant.at",
        lambda t, x0, x1: path().at(t, x0, x1),
        {"t": TIMES, "x0": X, "x1": X1},
        rows=[{"t": 0, "x0": 0, "x1": 0, "result": 0}],
        dims={"x0": -1, "x1": -1, "result": -1},
        units={"x0": 1, "x1": 1},
        result_units=(1, 1),
        names={"t": r"\bt\b", "x0": "x0", "x1": "x1"},
        limits={
            "one point on a line, at the end": ({"t": 1.0, "x0": [[2.0]], "x1": [[4.0]]}, (t([4.0]), t([5.0]))),
            "images": (
                {"t": 0.0, "x0": torch.ones(1, 2, 2), "x1": torch.zeros(1, 2, 2)},
                (torch.ones(1, 2, 2), -torch.ones(1, 2, 2) / 2),
            ),
        },
    ),
    room(
        "flows",
        "integrate",
        lambda x0, velocity, **o: integrate(velocity, x0, **o),
        {"x0": X},
        **FLOW
        | {
            "limits": {
                "no time": ({"t0": 1.0}, X),
                "one point on a line": ({"velocity": lambda t, x: 0 * x + 2, "x0": [[1.0]]}, t([2.5])),
            }
        },
    ),
    room(
        "flows",
        "trajectory",
        lambda x0, velocity, **o: trajectory(velocity, x0, **o),
        {"x0": X},
        **FLOW | {"result_units": (0, 1), "rows": [{"x0": 0, "result": [None, 1]}]},
    ),
    room(
        "flows",
        "integrate_adaptive",
        lambda x0, velocity, **o: integrate_adaptive(velocity, x0, **o),
        {"x0": X},
        **FLOW
        | {
            "options": {
                "t0": ("number", 0.25),
                "t1": ("number", 1.0),
                "rtol": ("positive", 1e-8),
                "atol": ("positive", 1e-14),
                "max_iterations": ("count", 1000),
            },
            "units": None,
            "alone": False,  # the step control looks at all points
            "tolerance": 1e-6,
            "refusals": (ValueError, TypeError, RuntimeError),
        },
    ),
    room(
        "flows",
        "divergence",
        lambda x, t, velocity: divergence(velocity, t, x),
        {"x": X},
        names={"t": r"\bt\b", "x": r"\bx\b|velocity"},
        options={"t": ("number", 0.25)},
        callables={"velocity": curved},
        differentiated=("velocity",),
        excused=ANY_DIMENSION,
        rows=[{"x": 0, "result": 0}],
        dims={"x": -1, "result": None},
        limits={"a constant": ({"velocity": drift}, t(0.0, 0.0, 0.0)), "one point on a line": ({"x": [[2.0]]}, t(1.25))},
    ),
    room(
        "flows",
        "hutchinson_divergence",
        lambda x, t, velocity, probes, generator=None: hutchinson_divergence(
            velocity, t, x, probes=probes, generator=torch.Generator().manual_seed(0) if generator is None else generator
        ),
        {"x": X},
        names={"t": r"\bt\b"},
        options={"t": ("number", 0.25), "probes": ("count", 2)},
        callables={"velocity": linear},
        differentiated=("velocity",),
        excused=ANY_DIMENSION,
        # In one dimension, and for a velocity of coordinates apart, every probe gives the divergence itself.
        limits={
            "one point on a line": ({"x": [[2.0]], "velocity": curved}, t(1.25)),
            "apart": ({"velocity": curved}, 0.625 * X.sum(1)),
        },
        cut={"x": "the divergence of a linear velocity is constant"},
    ),
    room(
        "flows",
        "log_prob",
        lambda x1, velocity, log_prob0, **o: log_prob(velocity, x1, log_prob0, **o),
        {"x1": X},
        options=STEPS | {"probes": ("count", 2)},
        callables={"velocity": curved, "log_prob0": NORMAL.log_prob},
        differentiated=("velocity",),
        excused=ANY_DIMENSION | {"1e300": FAR, "-1e300": FAR, "all times 1e300": FAR},
        rows=[{"x1": 0, "result": 0}],
        alone=True,
        # dx/dt = 0 moves nothing
        limits={
            "no velocity": ({"velocity": lambda t, x: 0 * x}, NORMAL.log_prob(X)),
            "one point on a line": (
                {"x1": [[1.0]], "velocity": lambda t, x: 0 * x, "log_prob0": lambda x: -x.square().sum(-1)},
                t(-1.0),
            ),
        },
    ),
    room("continuity", "gauss_legendre", lambda order: gauss_legendre(order), {}, options={"order": ("count", 3)}),
    room(
        "continuity",
        "path_quadrature",
        lambda order: path_quadrature(lambda t: Gaussian([t, 0.0], MATRIX @ MATRIX.T), order)(0.25),
        {},
        options={"order": ("count", 3)},
    ),
    room(
        "continuity",
        "box_quadrature",
        lambda centre, radius, n: box_quadrature(lambda t: NORMAL, centre, radius, n)(0.25),
        {"centre": t(0.25, 0.5)},
        options={"radius": ("positive", 2.0), "n": ("count", 7)},
        names={"centre": "centre|x|n must be", "n": r"\bn\b", "radius": "radius"},
        limits={
            "one cell": (
                {"centre": [0.0, 0.0], "radius": 0.5, "n": 1},
                (t([0.0, 0.0], [1.5, 1.5]), t(0.5 / math.pi, 1 - 0.5 / math.pi)),
            )
        },
    ),
    room(
        "continuity",
        "bump",
        lambda centre, radius, x: bump(centre, radius)(torch.full_like(torch.as_tensor(x)[:, 0], 0.5), x),
        {"centre": t(0.25, 0.5, 0.5), "x": X},
        options={"radius": ("positive", 2.0)},
        names={"x": "centre"},
        rows=[{"x": 0, "result": 0}],
        limits={"on a line": ({"centre": [0.5, 0.5], "x": t([0.5], [9.0])}, t(math.exp(-1), 0.0))},
        excused=dict.fromkeys(
            ("makes", "coarse", "bad", "extreme", "gradient"), "x comes from the residual, which has checked it"
        ),
    ),
    room(
        "continuity",
        "bump, centre",
        lambda centre: bump(centre, 2.0)(torch.full_like(X[:, 0], 0.5), X),
        {"centre": t(0.25, 0.5, 0.5)},
    ),
    room(
        "continuity",
        "weak_residual",
        lambda path, velocity, test_function, times: weak_residual(path, velocity, test_function, times=times),
        {},
        options={"times": ("count", 5)},
        callables=MEASURE | {"test_function": wave},
        differentiated=("test_function",),
        excused={"path: a list": "a path may return arrays of any make"},
    ),
    room(
        "continuity",
        "weak_residual, nodes",
        lambda nodes, weights: weak_residual(moving, linear, wave, times=(nodes, weights)),
        {"nodes": TIMES, "weights": WEIGHTS},
        names={"nodes": "times", "weights": "times|path"},
        rows=[{"nodes": 0, "weights": 0, "result": None}],
    ),
    room(
        "continuity",
        "weak_residual, path",
        lambda x, w: weak_residual(lambda t: (x if t else X, w if t else WEIGHTS), linear, wave, times=3),
        {"x": X, "w": WEIGHTS},
        names={"x": "path", "w": "path weights"},
        excused=ANY_DIMENSION,
    ),
    room(
        "continuity",
        "kinetic_energy",
        lambda path, velocity, times: kinetic_energy(path, velocity, times=times),
        {},
        options={"times": ("count", 5)},
        callables=MEASURE,
        excused={"path: a list": "a path may return arrays of any make"},
        limits={"constant velocity": ({}, 5.0), "one point": ({"path": lambda t: ([[0.0, t]], [1.0])}, 5.0)},
    ),
    room(
        "continuity",
        "kinetic_energy, nodes",
        lambda nodes, weights: kinetic_energy(moving, linear, times=(nodes, weights)),
        {"nodes": TIMES, "weights": WEIGHTS},
        names={"nodes": "times|path", "weights": "times|path"},
        rows=[{"nodes": 0, "weights": 0, "result": None}],
    ),
    room(
        "continuity",
        "strong_residual",
        lambda x, t, density, velocity: strong_residual(density, velocity, t, x),
        {"x": X},
        names={"t": r"\bt\b", "density": "density", "x": "x|density"},
        options={"t": ("number", 0.25)},
        callables={"density": density, "velocity": curved},
        differentiated=("density", "velocity"),
        excused=ANY_DIMENSION,
        rows=[{"x": 0, "result": 0}],
        limits={"moving along": ({"velocity": lambda t, x: torch.stack([0 * x[:, 0] + 1, 0 * x[:, 1]], 1)}, t(0.0, 0.0, 0.0))},
    ),
]
