"""The table of derivatives in ``dynot_lite.couplings``, row by row."""

import pytest
import torch
from calls_couplings import DIRECTIONS, FLOW, HARD, POINTS, PROBLEMS, REGRESSION, SOFT, X0, X1, A, B, Y, Z, rows
from derivatives import exact, has_graph, unnamed
from derivatives import rows as table
from instances import generator

import dynot_lite.couplings
from dynot_lite.couplings import amortized, batches, conditional, exact_flow, maps, plans, prepared, semidiscrete, sliced

F64 = torch.float64
COST, F = sliced.squared_cost(X0, Y), torch.tensor([0.5, -0.25, 0.125], dtype=F64)
LINES = X0[:, 0], Y[:, 1]
SPHERE = sliced.sphere_points([10.0, -40.0, 75.0], [0.0, 120.0, -30.0])
LOGITS = torch.tensor([0.3, -0.5, 0.1], dtype=F64)


def pairs(make):
    """Pairs whose points are a graph away from the arguments: the same are drawn for all values near these."""

    def function(x0, x1):
        x0, x1, *_ = make(rows(x0), rows(x1))(4, generator=generator())
        return x0, x1

    return function


def on_simplex(logits):
    return torch.softmax(logits, 0)


# Rows with "exact" -> functions and points at which to look: generic, coincident, tied, of weight zero.
EXACT = {
    "independent": (pairs(batches.independent), X0, X1),
    "exact": (pairs(batches.exact), X0, X1),
    "in_blocks": (pairs(lambda *laws: batches.in_blocks(batches.exact(*laws), 2)), X0, X1),
    "entropic": (pairs(lambda *laws: batches.entropic(*laws, epsilon=0.5)), X0, X1),
    "from_plan": (
        lambda x0, x1, z: batches.from_plan(x0, x1, torch.eye(3, dtype=F64) / 3, z)(4, generator=generator()), X0, X1, Z[:3],
    ),
    "squared_cost": (sliced.squared_cost, X0, Y),
    "squared_cost, equal points": (sliced.squared_cost, X0, X0),
    "c_transform": (sliced.c_transform, COST, F),
    "soft_c_transform": (lambda c, f, z: sliced.soft_c_transform(c, f, 0.5, weights=on_simplex(z)), COST, F, LOGITS),
    "w2_squared_1d": (sliced.w2_squared_1d, *LINES),
    "w2_squared_1d, weights": (lambda x, y: sliced.w2_squared_1d(x, y, weights0=A, weights1=B), *LINES),
    "w2_squared_1d, equal samples": (sliced.w2_squared_1d, X0[:, 0], X0[:, 0]),
    "w2_squared_sliced": (sliced.w2_squared_sliced, X0, Y, DIRECTIONS),
    "sphere_points": (sliced.sphere_points, *torch.tensor([[10.0, -40.0, 75.0], [0.0, 9.0, 180.0]], dtype=F64)),
    "geodesic_cost": (sliced.geodesic_cost, SPHERE, SPHERE.flip(0).roll(1, 1)),
    "stereographic": (sliced.stereographic, SPHERE),
    "semidual": (lambda f, x0, x1: amortized.semidual(amortized.Problem(x0, x1, A, B), f, 0.5), F, X0, Y),
    "semidual, cost": (lambda c: amortized.semidual(amortized.Problem(X0, Y, A, B, c), F, 0.5), COST),
    "pair_sampler": (pairs(lambda *laws: amortized.pair_sampler(REGRESSION, *laws)), X0, X1),
    "predict_from": (lambda f: [getattr(amortized.predict_from(PROBLEMS[0], f, 0.5, sweeps=k), name)
                                for k in (0, 1) for name in ("potential0", "potential1", "plan")], F),
    "cell_map": (lambda x: maps.cell_map(X0, Y, epsilon=0.5)(x), X1),
    "entropic_map": (lambda x: maps.entropic_map(X0, Y, 0.5)(x), X1),
    "ExactFlow.velocity": (lambda t, x: FLOW.velocity(t, x), torch.tensor([0.25, 0.5, 0.75], dtype=F64), X0),
    "ExactFlow.score": (lambda t, x: FLOW.score(t, x), torch.tensor(0.5, dtype=F64), X0),
}  # fmt: skip


@pytest.mark.parametrize("row", EXACT)
def test_exact(row):
    function, *points = EXACT[row]
    assert exact(function, *points)


def test_exact_of_a_weight_that_is_zero():
    call = lambda s: sliced.soft_c_transform(COST, F, 0.5, weights=torch.stack([s, 0.3 - s, 0.7 + 0 * s]))
    start, h = torch.tensor(0.0, dtype=F64), 1e-7
    found = torch.autograd.functional.jacobian(call, start)
    torch.testing.assert_close(
        found, (4 * call(start + h) - call(start + 2 * h) - 3 * call(start)) / (2 * h), rtol=1e-6, atol=1e-6
    )


def leaf(x):
    return x.clone().requires_grad_()


UNIFORM = torch.full((3,), 1 / 3, dtype=F64)
# "none": the result has no graph, whatever it is called with.
NONE = {
    "sorted_pairs": lambda: batches.sorted_pairs(leaf(X0[:, :1]), leaf(X1[:, :1])),
    "exact_pairs": lambda: batches.exact_pairs(leaf(X0), leaf(X1)),
    "entropic_pairs": lambda: batches.entropic_pairs(leaf(X0), leaf(X1), 0.5, weights1=leaf(UNIFORM)),
    "exact_plan": lambda: plans.exact_plan(leaf(X0), leaf(X1), weights0=leaf(UNIFORM), start=leaf(F)),
    "exact_plan, cost": lambda: plans.exact_plan(None, None, cost=leaf(COST), weights0=leaf(UNIFORM)),
    "entropic_plan": lambda: plans.entropic_plan(leaf(X0), leaf(X1), 0.5, weights1=leaf(UNIFORM), start=leaf(F)),
    "entropic_plan, cost": lambda: plans.entropic_plan(None, None, 0.5, cost=leaf(COST), weights0=leaf(UNIFORM)),
    "nearest_map": lambda: maps.nearest_map(X0, Y)(leaf(X1)),
    "cell_map": lambda: maps.cell_map(X0, Y)(leaf(X1)),
    "sample_plan": lambda: plans.sample_plan(leaf(torch.eye(3, dtype=F64) / 3), 4),
    "SemidiscreteCoupling.assign": lambda: SOFT.assign(leaf(X0)),
    "prepare, PairList": lambda: prepared.prepare(HARD, 300).pair(4),
    "fit": lambda: (REGRESSION.fit(PROBLEMS, potentials=[leaf(F), leaf(Y[:, 0])]), REGRESSION.fit(PROBLEMS))[0],
    "dual, gap": lambda: (lambda found: (found.dual, found.gap, found.row_error))(
        amortized.predict_from(PROBLEMS[0], leaf(F), 0.5)),
}  # fmt: skip


@pytest.mark.parametrize("row", NONE)
def test_none(row):
    assert not has_graph(NONE[row]())


def law(name, **given):
    return {
        "SemidiscreteCoupling": lambda: semidiscrete.SemidiscreteCoupling(**{"points": POINTS} | given),
        "ClassCouplings": lambda: conditional.ClassCouplings(**{"points": POINTS, "labels": [0, 1, 1, 0, 0]} | given),
        "JointCoupling": lambda: conditional.JointCoupling(**{"points": POINTS, "conditions": Z, "beta": 1.0} | given),
        "c_transform": lambda: SOFT.c_transform(**given),
        "nearest_map": lambda: maps.nearest_map(**{"x0": X0, "x1": X1} | given),
        "cell_map": lambda: maps.cell_map(**{"x0": X0, "x1": X1} | given),
        "entropic_map": lambda: maps.entropic_map(**{"x0": X0, "x1": X1, "epsilon": 0.5} | given),
        "optimal_potentials": lambda: maps.optimal_potentials(**{"x0": X0, "x1": X1} | given),
        "potentials_1d": lambda: sliced.potentials_1d(**{"x0": X0, "x1": X1} | given),
        "w2_squared_1d": lambda: sliced.w2_squared_1d(**{"x0": LINES[0], "x1": LINES[1]} | given),
        "features": lambda: REGRESSION.features(amortized.Problem(**{"x0": X0, "x1": X1} | given)),
        "Problem": lambda: amortized.Problem(**{"x0": X0, "x1": X1} | given),
        "predict": lambda: REGRESSION.predict(amortized.Problem(**{"x0": X0, "x1": X1} | given)),
        "RegressionAmortization": lambda: amortized.RegressionAmortization(**{"directions": DIRECTIONS, "epsilon": 0.5} | given),
        "ObjectiveAmortization": lambda: amortized.ObjectiveAmortization(**{"directions": DIRECTIONS, "epsilon": 0.5} | given),
        "soft_c_transform": lambda: sliced.soft_c_transform(**{"cost": COST, "potential": F} | given),
        "semidual": lambda: amortized.semidual(**{"problem": PROBLEMS[0], "potential0": F} | given),
    }[name]()


# "refused": an argument that requires a gradient raises, by name; without a graph it is taken.
NUMBER = torch.tensor(0.5, dtype=F64)
REFUSED = [
    ("SemidiscreteCoupling", "points", POINTS),
    ("SemidiscreteCoupling", "weights", torch.full((5,), 0.2, dtype=F64)),
    ("SemidiscreteCoupling", "epsilon", NUMBER),
    ("ClassCouplings", "points", POINTS),
    ("JointCoupling", "points", POINTS),
    ("JointCoupling", "conditions", Z),
    ("JointCoupling", "beta", NUMBER),
    ("c_transform", "x", X0),
    *((row, name, x) for row in maps.__all__ for name, x in (("x0", X0), ("x1", X1))),
    ("cell_map", "epsilon", NUMBER),
    ("entropic_map", "epsilon", NUMBER),
    ("potentials_1d", "x0", X0),
    ("potentials_1d", "x1", X1),
    ("potentials_1d", "weights0", UNIFORM),
    ("potentials_1d", "weights1", UNIFORM),
    ("w2_squared_1d", "weights0", A),
    ("w2_squared_1d", "weights1", B),
    ("features", "x0", X0),
    ("predict", "x1", X1),
    ("Problem", "weights0", UNIFORM),
    ("Problem", "weights1", UNIFORM),
    ("RegressionAmortization", "directions", DIRECTIONS),
    ("ObjectiveAmortization", "directions", DIRECTIONS),
    ("soft_c_transform", "epsilon", NUMBER),
    ("semidual", "epsilon", NUMBER),
]


@pytest.mark.parametrize("row, name, value", REFUSED)
def test_refused(row, name, value):
    given = {"epsilon": 0.5} if row in ("soft_c_transform", "semidual") else {}
    with pytest.raises(ValueError, match=rf"\b{name} must not require a gradient"):
        law(row, **given | {name: leaf(value)})
    with torch.no_grad():
        law(row, **given | {name: leaf(value)})


def test_the_table_names_every_function():
    solver = ("Coefficients", "Prediction", "Problem", "TransportPlan", "SemidiscreteFit", "ClassFit", "directions")
    modules = batches, plans, maps, semidiscrete, exact_flow, prepared, conditional, sliced, amortized
    found = unnamed(dynot_lite.couplings, *modules)
    assert set(found) <= set(solver)
    tested = " ".join((*EXACT, *NONE, *(row for row, *_ in REFUSED)))
    assert [name for row in table(dynot_lite.couplings) for name in row.split(", ") if name not in tested] == []
