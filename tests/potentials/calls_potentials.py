"""Calls of the room ``potentials``."""

from functools import partial

import torch
from calls import Call

from dynot_lite.potentials.action_matching import (
    AutodiffAction,
    OptimalAction,
    action_gap,
    action_matching_loss,
    endpoint_mismatch,
    entropic_action_matching_loss,
    laplacian,
    unbalanced_action_matching_loss,
)
from dynot_lite.potentials.convex import ICNN, LogSumExp, Quadratic
from dynot_lite.potentials.dual import certificate, fit, semidual_loss
from dynot_lite.potentials.optimal_flow_matching import ofm_loss


def t(*rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


MATRIX, OFFSET = t([2.0, 0.5], [0.5, 1.0]), t(0.5, -1.0)
X0, X1 = t([0.5, 1.0], [-1.0, 0.25], [2.0, -0.5]), t([1.5, 0.0], [-0.5, 1.25], [0.25, 2.0])
TIMES, WEIGHTS = t(0.25, 0.75), t(0.375, 0.625)
PATH = torch.stack([0.75 * X0 + 0.25 * X1, 0.25 * X0 + 0.75 * X1])
Y = 4 * torch.randn(40, 2, generator=torch.Generator().manual_seed(0)).double()


def soft(**options) -> LogSumExp:
    generator = torch.Generator().manual_seed(0)
    return LogSumExp(2, 5, heads=2, **{"matrix": MATRIX, "offset": OFFSET, "generator": generator} | options)


def network(**options) -> ICNN:
    return ICNN(2, (6, 5), **{"matrix": MATRIX, "offset": OFFSET, "generator": torch.Generator().manual_seed(0)} | options)


def learnt(source, target):
    found = fit(source, target, steps=3, batch=8, size=(2, 3), generator=torch.Generator().manual_seed(0))
    return found.transport(source[:3])


def room(module, name, run, arrays, **options) -> Call:
    return Call(f"potentials.{module}.{name}", run, arrays, **options)


SOFT, ACTION = soft(), OptimalAction(soft())
ANY = AutodiffAction(lambda t, x: (1 + t) * SOFT(x) + t**2 * x[:, 0])
NAMES = {"times": "times|path", "path": "path|dimension", "x0": "x0|pairs", "x1": "x1|pairs", "weights": "quadrature"}
AT, AT_NAMES = {"t": t(0.25, 0.5, 1.0), "x": X0}, {"x": r"x|\bt\b", "t": r"\bt\b"}
PATHS = {"x0": X0, "x1": X1, "path": PATH, "times": TIMES, "weights": WEIGHTS}

CALLS = [
    room(
        "convex",
        "Quadratic",
        lambda matrix, offset, x: (lambda p: (p(x), p.gradient(x)))(Quadratic(2, matrix=matrix, offset=offset)),
        {"matrix": MATRIX, "offset": OFFSET, "x": X0},
        units={"offset": 1, "x": 1},
        result_units=(2, 1),
        names={"offset": "offset|matrix"},
    ),
    room("convex", "Quadratic.curvature", lambda matrix: Quadratic(2, matrix=matrix).curvature(), {"matrix": MATRIX}),
    room("convex", "LogSumExp", lambda x: (SOFT(x), SOFT.gradient(x)), {"x": X0}),
    room("convex", "LogSumExp.curvature", lambda matrix: soft(matrix=matrix).curvature(), {"matrix": MATRIX}, single=None),
    room("convex", "ICNN", lambda x: (lambda p: (p(x), p.gradient(x)))(network()), {"x": X0}),
    room("convex", "ICNN.curvature", lambda matrix: network(matrix=matrix).curvature(), {"matrix": MATRIX}, single=None),
    room("convex", "ConvexPotential.forward", SOFT.forward, {"x": X0}),
    room("convex", "ConvexPotential.gradient", SOFT.gradient, {"x": X0}),
    room("convex", "ConvexPotential.hessian", SOFT.hessian, {"x": X0}),
    room(
        "convex", "ConvexPotential.hessian_product", SOFT.hessian_product, {"x": X0, "direction": X1}, names={"x": "x|direction"}
    ),
    room(
        "convex",
        "ConvexPotential.solve",
        lambda y, start, times: SOFT.solve(y, t=times, start=start).argmax,
        {"y": X0, "start": X1, "times": t(0.25, 0.5, 1.0)},
        names={"y": "y|start|t", "times": "t"},
        tolerance=1e-8,
    ),
    room("convex", "ConvexPotential.conjugate", SOFT.conjugate, {"y": X0}, tolerance=1e-8),
    room("convex", "ConvexPotential.flow", SOFT.flow, AT, names=AT_NAMES),
    room("convex", "ConvexPotential.inverse_flow", SOFT.inverse_flow, AT, names=AT_NAMES, tolerance=1e-8),
    room("dual", "semidual_loss", partial(semidual_loss, SOFT), {"x0": X0, "x1": X1}),
    room(
        "dual",
        "certificate",
        lambda x0, x1: (lambda c: (c.lower, c.upper, c.gap, c.map_error))(certificate(SOFT, x0, x1)),
        {"x0": X0, "x1": X1},
        names=NAMES,
    ),
    room(
        "dual",
        "fit",
        learnt,
        {"source": Y, "target": Y @ MATRIX},
        names={"source": "source|dimension", "target": "target|dimension"},
        units={"source": 1, "target": 1},
        result_units=(1,),
        moved=("source", "target"),
        result_moved=(True,),
        single=2e-2,
        exact=False,
        tolerance=1e-4,
    ),
    room(
        "optimal_flow_matching",
        "ofm_loss",
        lambda x0, x1, times, weights: ofm_loss(SOFT, x0, x1, times, quadrature=weights),
        {"x0": X0, "x1": X1, "times": TIMES[:, None], "weights": WEIGHTS},
        names=NAMES | {"times": "times|quadrature"},
    ),
    room("action_matching", "OptimalAction.value", ACTION.value, AT, names=AT_NAMES),
    room("action_matching", "OptimalAction.velocity", ACTION.velocity, AT, names=AT_NAMES),
    room("action_matching", "OptimalAction.time_derivative", ACTION.time_derivative, AT, names=AT_NAMES),
    room("action_matching", "AutodiffAction.value", ANY.value, AT, names=AT_NAMES),
    room("action_matching", "AutodiffAction.velocity", ANY.velocity, AT, names=AT_NAMES),
    room("action_matching", "AutodiffAction.time_derivative", ANY.time_derivative, AT, names=AT_NAMES),
    room(
        "action_matching",
        "action_matching_loss",
        lambda x0, x1, path, times, weights: action_matching_loss(ANY, x0, x1, path, times, quadrature=weights),
        PATHS,
        names=NAMES,
    ),
    room(
        "action_matching",
        "entropic_action_matching_loss",
        lambda x0, x1, path, times, weights: entropic_action_matching_loss(
            ANY, x0, x1, path, times, sigma=0.5, quadrature=weights
        ),
        PATHS,
        names=NAMES,
    ),
    room(
        "action_matching",
        "unbalanced_action_matching_loss",
        lambda x0, x1, path, times, weights: unbalanced_action_matching_loss(
            ANY, x0, x1, path, times, mass=torch.exp, quadrature=weights
        ),
        PATHS,
        names=NAMES,
    ),
    room(
        "action_matching",
        "action_gap",
        lambda path, times, weights: action_gap(ANY, ACTION.velocity, path, times, quadrature=weights),
        {name: PATHS[name] for name in ("path", "times", "weights")},
        names=NAMES | {"path": "path|x"},
    ),
    room("action_matching", "laplacian", partial(laplacian, ANY), AT, names=AT_NAMES),
    room("action_matching", "endpoint_mismatch", endpoint_mismatch, {"path_end": X0, "end": X1}, units={"path_end": 1, "end": 1}),
]
