"""Calls of the room ``grids``."""

import functools

import torch
from calls import Call

from dynot_lite.grids import back_and_forth, benamou_brenier
from dynot_lite.grids.certificates import lower_bound


def t(*rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


MU, NU = t(0.5, 1.5, 2.0, 1.0, 0.5, 0.5), t(0.5, 0.5, 1.0, 0.5, 1.5, 2.0)
SQUARE0 = t([1.5, 0.5, 1.0], [2.0, 0.5, 0.5])
SQUARE1 = t([0.5, 1.0, 1.0], [0.5, 2.5, 0.5])
POTENTIAL = t(0.25, 0.125, 0.0, -0.125, 0.0, 0.5)
X = t([0.3125], [0.5625], [0.875])
CUT = dict.fromkeys(("mu", "nu"), "results are cut from the graph of the data")
# A density that is half of what the other is, in half precision or as integers, has no longer mean 1, and is refused.
SOLVE = {
    "cut": CUT,
    "options": {
        "tol": ("positive", 1e-3),
        "max_iterations": ("count", 30),
        "boundary": ("choice", "walls"),
        "workers": ("workers", None),
    },
    "alone": False,
}
MIRROR = {"mu": 0, "nu": 0, "orders": ("flip",)}
BLOCKED = torch.tensor([False] * 6 + [True])


def static(mu, nu, **options):
    found = back_and_forth.solve(mu, nu, **options)
    return found.w2_squared, found.lower, found.potential0, found.displacement[0]


def dynamic(mu, nu, **options):
    found = benamou_brenier.solve(mu, nu, **options)
    return found.energy, found.density, found.velocity[:, 0]


@functools.cache
def solved() -> benamou_brenier.DynamicTransport:
    return benamou_brenier.solve(MU, NU, steps=3)


CALLS = [
    Call(
        "grids.back_and_forth.solve",
        static,
        {"mu": MU, "nu": NU},
        rows=[MIRROR | {"result": [None, None, 0, "free"]}],
        tolerance=1e-6,
        **SOLVE,
    ),
    Call(
        "grids.back_and_forth.solve, a torus of two axes",
        functools.partial(static, boundary="periodic"),
        {"mu": SQUARE0, "nu": SQUARE1},
        dims={"mu": 1, "nu": 1, "result": [None, None, "free", "free"], "orders": ("flip", "roll"), "one": False},
        cut=CUT,
        tolerance=1e-5,
    ),
    Call(
        "grids.benamou_brenier.solve",
        dynamic,
        {"mu": MU, "nu": NU},
        rows=[MIRROR | {"result": [None, 1, "free"]}],
        tolerance=1e-4,
        **SOLVE | {"options": SOLVE["options"] | {"steps": ("count", 3), "method": ("choice", "lifted")}},
    ),
    Call(
        "grids.benamou_brenier.solve, growth",
        functools.partial(dynamic, method="cold", steps=3, max_iterations=60),
        {"mu": 0.5 * MU, "nu": NU},
        options={"growth_length": ("positive", 0.5)},
        units={"mu": 1, "nu": 1},  # of mass
        result_units=(1, 1, 0),
        rows=[MIRROR | {"result": [None, 1, "free"]}],
        alone=False,
        cut=CUT,
        tolerance=1e-4,
    ),
    Call(
        "grids.benamou_brenier.solve, an obstacle",
        functools.partial(dynamic, method="cold", steps=3, max_iterations=60),
        {"mu": torch.cat([MU * 7 / 6, t(0.0)]), "nu": torch.cat([NU * 7 / 6, t(0.0)])},
        options={"mask": ("mask", BLOCKED)},
        alone=False,
        cut=CUT,
        tolerance=1e-4,
    ),
    Call(
        "grids.benamou_brenier.DynamicTransport.measure",
        lambda t: solved().measure(t),
        {},
        names={"t": r"\bt\b"},
        options={"t": ("time", 0.25)},
    ),
    Call(
        "grids.benamou_brenier.DynamicTransport.velocity_at",
        lambda t, x: solved().velocity_at(t, x),
        {"x": X},
        names={"t": r"\bt\b"},
        options={"t": ("time", 0.25)},
        rows=[{"x": 0, "result": 0}],
    ),
    Call("grids.benamou_brenier.DynamicTransport.flow", lambda x: solved().flow(x), {"x": X}, rows=[{"x": 0, "result": 1}]),
    Call(
        "grids.certificates.lower_bound",
        lambda potential, mu, nu, boundary: lower_bound(potential, mu, nu, boundary=boundary),
        {"potential": POTENTIAL, "mu": MU, "nu": NU},
        options={"boundary": ("choice", "walls")},
        rows=[{"potential": 0, "mu": 0, "nu": 0, "result": None, "orders": ("flip",)}],
    ),
]
