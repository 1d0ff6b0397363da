"""Calls of the room ``potentials``."""

import functools
from functools import partial

import torch
from calls import Call

from dynot_lite.laws.mixtures import GaussianMixture
from dynot_lite.potentials.action_matching import (
    AutodiffAction,
    OptimalAction,
    action_gap,
    action_matching_loss,
    action_network,
    endpoint_mismatch,
    entropic_action_matching_loss,
    laplacian,
    snapshot_loss,
    unbalanced_action_matching_loss,
)
from dynot_lite.potentials.bounds import lower_bound
from dynot_lite.potentials.convex import ICNN, ConvexPotential, LogSumExp, Quadratic
from dynot_lite.potentials.costs import PowerCost, optimal_map
from dynot_lite.potentials.costs import certificate as certify
from dynot_lite.potentials.costs import fit as fit_costs
from dynot_lite.potentials.dual import certificate, fit, semidual_loss
from dynot_lite.potentials.hopf_lax import hopf_lax
from dynot_lite.potentials.optimal_flow_matching import ofm_loss
from dynot_lite.potentials.polyhedral import PolyhedralAction
from dynot_lite.potentials.schroedinger import SchroedingerAction, dual_loss
from dynot_lite.potentials.schroedinger import fit as fit_bridge
from dynot_lite.potentials.snapshots import SeparableAction, held_out_loss, mixture_path, unrestricted_action


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


def seeded(generator):
    return torch.Generator().manual_seed(0) if generator is None else generator


def learnt(source, target, generator=None, steps=3, batch=8, size=(2, 3), learning_rate=0.003, **options):
    options |= {"steps": steps, "batch": batch, "size": size, "learning_rate": learning_rate}
    found = fit(source, target, generator=seeded(generator), **options)
    return found.transport(Y[:3] if callable(source) else source[:3])


@functools.cache
def fitted():
    return fit(Y, Y @ MATRIX, steps=3, batch=8, size=(2, 3), generator=torch.Generator().manual_seed(0))


def cloud(n, *, generator=None):
    return torch.randn(n, 2, generator=generator).double()


def wide(n, *, generator=None):
    return 2 * torch.randn(n, 2, generator=generator).double() + 1


MIXTURE = {
    "shares": t(0.25, 0.75),
    "means": t([0.5, 1.0], [-1.0, 0.25]),
    "covs": t([[1.0, 0.25], [0.25, 0.5]], [[0.5, 0.0], [0.0, 1.5]]),
}


def bridge(shares, means, covs, sigma=0.75) -> SchroedingerAction:
    return SchroedingerAction(GaussianMixture(shares, means, covs), sigma)


def bridged(x0, x1, generator=None, **options):
    return fit_bridge(x0, x1, generator=seeded(generator), **options).action.velocity(0.5, X0)


SEPARABLE = {"centres": t([0.5, 0.0], [-1.0, 1.5]), "coefficients": t([0.5, -1.0, 2.0, 0.25], [1.5, 0.5, -0.75, 1.0])}
SHOTS, SHOT_TIMES = torch.stack([X0, X1, X1 + 0.5 * X0]), t(0.0, 0.375, 1.0)


def separable(centres, coefficients, width=0.75) -> SeparableAction:
    return SeparableAction(centres, width, coefficients)


def from_snapshots(snapshots, generator=None, **options):
    return unrestricted_action(snapshots, generator=seeded(generator), **options).velocity(0.5, X0)


CUBIC = PowerCost(3, matrix=MATRIX)


def moved(source, target, generator=None, steps=3, **options):
    options = {"batch": 8, "width": 4, "depth": 1, "learning_rate": 0.005} | options
    found = fit_costs(source, target, CUBIC, steps=steps, generator=seeded(generator), **options)
    return found.transport(Y[:3] if callable(source) else source[:3])


@functools.cache
def fitted_to_cost():
    return fit_costs(Y, Y @ MATRIX, CUBIC, steps=3, batch=8, width=4, generator=torch.Generator().manual_seed(0))


def scalar(t, x):
    return (1 + t) * SOFT(x) + t**2 * x[:, 0]


def between(t):
    """The path of the pairs, as a function of the time."""
    return (1 - t) * X0 + t * X1


def quadratic(t):
    return 1 + t**2 / 2


class Own(ConvexPotential):
    """A potential of a user, who writes a value only."""

    def __init__(self, value):
        super().__init__(2)
        self.value = value

    def _value(self, x):
        return self.value(x)


class OwnGradient(Own):
    """One who writes a gradient, too."""

    def _gradient(self, x):
        return self.value(x)


def bowl(x):
    return x.square().sum(-1) + 0.25 * x[:, 0] ** 4


def slope(x):
    return x**3 + x


SOLVER = {"tol": ("positive", 1e-9), "max_iterations": ("count or none", 50)}


def room(module, name, run, arrays, **options) -> Call:
    return Call(f"potentials.{module}.{name}", run, arrays, **options)


SOFT, ACTION = soft(), OptimalAction(soft())
ANY = AutodiffAction(scalar)
NAMES = {"times": "times|path", "path": "path|dimension", "x0": "x0|pairs", "x1": "x1|pairs", "weights": "quadrature"}
AT, AT_NAMES = {"t": t(0.25, 0.5, 1.0), "x": X0}, {"x": r"x|\bt\b", "t": r"\bt\b"}
AT_ROWS = {"t": 0, "x": 0, "result": 0}
ACT = {"names": AT_NAMES, "rows": [AT_ROWS], "callables": {"function": scalar}}
OF_MIXTURE = {"shares": "weights", "means": "mean|cov|mixture|dimension", "covs": "cov|mixture"}
KINKED = {"slopes": t([-1.25, 0.5], [1.5, 1.0], [0.25, -1.5], [2.0, 0.75]), "heights": t(0.25, -0.5, 0.0, 0.125)}
AT_KINKED = {
    "names": AT_NAMES | {"slopes": "slopes|dimension", "heights": "heights|slopes"},
    "units": {"slopes": 1, "heights": 2, "x": 1, "t": 0},
}
AT_SEPARABLE = {"names": AT_NAMES | {"centres": "centres|coefficients"}, "rows": [AT_ROWS]}
FROM_SNAPSHOTS = {
    "width": ("positive", 1.5),
    "components": ("count", 2),
    "ridge": ("positive", 1e-3),
    "generator": ("generator", None),
}
OF_SNAPSHOTS = {
    "names": {"snapshots": "snapshots|times"},
    "cut": {"snapshots": "a solve passes no gradient on"},
    "excused": {"snapshots: a wrong length": "points of any dimension"},
}
AT_BRIDGE = {"names": AT_NAMES | OF_MIXTURE, "rows": [AT_ROWS], "single": 5e-3}
ANY_PATH = "a path may return arrays of any make, and any number of points"
START = "a parameter starts there, as a copy"
FIT = "a fit is data"
SUBCLASS = {
    "inputs": "a potential that changes its points is no function",
    "buffers": "results are read before the next call",
    "no callables": "a method of a class",
    "precision": "a method of a class",
    "wrong callables": "methods that a class writes are not callers' functions; their shapes are compared",
}
PATHS = {"x0": X0, "x1": X1, "path": PATH, "times": TIMES, "weights": WEIGHTS}

CALLS = [
    room(
        "convex",
        "Quadratic",
        lambda matrix, offset, x, dim, strength: (lambda p: (p(x), p.gradient(x)))(
            Quadratic(dim, matrix=matrix, offset=offset, strength=strength)
        ),
        {"matrix": MATRIX, "offset": OFFSET, "x": X0},
        options={"dim": ("count", 2), "strength": ("positive", 1e-6)},
        units={"offset": 1, "x": 1},
        result_units=(2, 1),
        names={"offset": "offset|matrix"},
        cut={"matrix": START, "offset": START},
        rows=[{"x": 0, "result": 0}],
        dims={"matrix": (-2, -1), "offset": -1, "x": -1, "result": [None, -1], "one": False},
    ),
    room("convex", "Quadratic.curvature", lambda matrix: Quadratic(2, matrix=matrix).curvature(), {"matrix": MATRIX}),
    room("convex", "LogSumExp", lambda x: (SOFT(x), SOFT.gradient(x)), {"x": X0}, rows=[{"x": 0, "result": 0}]),
    room(
        "convex",
        "LogSumExp, constructed",
        lambda dim, pieces, generator, **o: LogSumExp(dim, pieces, generator=seeded(generator), **o)(X0),
        {},
        options={
            "dim": ("count", 2),
            "pieces": ("count", 3),
            "heads": ("count", 2),
            "temperature": ("positive", 0.5),
            "scale": ("positive", 2.0),
            "strength": ("positive", 0.01),
            "generator": ("generator", None),
        },
        excused={"default dtype": "the one of the parameters, where there is no matrix"},
    ),
    room("convex", "LogSumExp.curvature", lambda matrix: soft(matrix=matrix).curvature(), {"matrix": MATRIX}, single=None),
    room("convex", "ICNN", lambda x: (lambda p: (p(x), p.gradient(x)))(network()), {"x": X0}, rows=[{"x": 0, "result": 0}]),
    room(
        "convex",
        "ICNN, constructed",
        lambda dim, generator, **o: ICNN(dim, (3, 2), generator=seeded(generator), **o)(X0),
        {},
        options={
            "dim": ("count", 2),
            "scale": ("positive", 2.0),
            "strength": ("positive", 0.01),
            "generator": ("generator", None),
        },
        excused={"default dtype": "the one of the parameters, where there is no matrix"},
    ),
    room(
        "convex",
        "ConvexPotential",
        lambda x, direction, _value: (lambda p: (p(x), p.gradient(x), p.hessian(x), p.hessian_product(x, direction)))(
            Own(_value)
        ),
        {"x": X0, "direction": X1},
        names={"x": "x|direction"},
        callables={"_value": bowl},
        differentiated=("_value",),
        rows=[{"x": 0, "direction": 0, "result": 0}],
        excused=SUBCLASS,
    ),
    room(
        "convex",
        "ConvexPotential, a Hessian from values",
        lambda x, _value: Own(_value).hessian(x),
        {"x": X0},
        callables={"_value": bowl},
        differentiated=("_value",),
        rows=[{"x": 0, "result": 0}],
        excused=SUBCLASS,
    ),
    room(
        "convex",
        "ConvexPotential, a product from gradients",
        lambda _gradient: OwnGradient(_gradient).hessian_product(X0, X1),
        {},
        callables={"_gradient": slope},
        differentiated=("_gradient",),
        excused=SUBCLASS,
    ),
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
        lambda y, start, times, **o: SOFT.solve(y, t=times, start=start, **o).argmax,
        {"y": X0, "start": X1, "times": t(0.25, 0.5, 1.0)},
        names={"y": "y|start|t", "times": "t"},
        options=SOLVER,
        rows=[{"y": 0, "start": 0, "times": 0, "result": 0}],
        cut=dict.fromkeys(("y", "start", "times"), "argmax is without gradients"),
        tolerance=1e-8,
    ),
    room(
        "convex",
        "ConvexPotential.conjugate",
        SOFT.conjugate,
        {"y": X0},
        tolerance=1e-8,
        options=SOLVER,
        rows=[{"y": 0, "result": 0}],
        cut={"result 1": "the maximiser is held fixed"},
    ),
    room("convex", "ConvexPotential.flow", SOFT.flow, AT, names=AT_NAMES, rows=[AT_ROWS]),
    room(
        "convex",
        "ConvexPotential.inverse_flow",
        SOFT.inverse_flow,
        AT,
        names=AT_NAMES,
        tolerance=1e-8,
        options=SOLVER,
        rows=[AT_ROWS],
    ),
    room(
        "dual",
        "semidual_loss",
        partial(semidual_loss, SOFT),
        {"x0": X0, "x1": X1},
        options={"tol": ("positive", 1e-9)},
        rows=[{"x0": 0, "result": None}, {"x1": 0, "result": None}],
        tolerance=1e-8,
    ),
    room(
        "dual",
        "certificate",
        lambda x0, x1, tol: (lambda c: (c.lower, c.upper, c.gap, c.map_error))(certificate(SOFT, x0, x1, tol=tol)),
        {"x0": X0, "x1": X1},
        names=NAMES,
        options={"tol": ("positive", 1e-9)},
        rows=[{"x0": 0, "x1": 0, "result": None}],
    ),
    room(
        "bounds",
        "lower_bound",
        lambda x0, x1: (lambda bound: (bound.value, bound.std))(lower_bound(SOFT, x0, x1)),
        {"x0": X0, "x1": X1},
        rows=[{"x0": 0, "result": None}, {"x1": 0, "result": None}],
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
        options={
            "steps": ("count", 3),
            "batch": ("count", 8),
            "learning_rate": ("positive", 0.003),
            "generator": ("generator", None),
        },
        cut=dict.fromkeys(("source", "target"), "a fit passes no gradient on"),
        excused={"coarse": "what rounding does to three steps is not tested"},
    ),
    room(
        "dual",
        "fit, samplers",
        learnt,
        {},
        callables={"source": cloud, "target": wide},
        names={"source": "source|dimension", "target": "target|dimension"},
        refusals=(ValueError, TypeError, RuntimeError),
        exact=False,
        tolerance=1e-4,
        excused={"default dtype": "that of the numbers drawn", "precision": "a fit is as precise as its data"},
    ),
    room("dual", "DualFit.transport", lambda x: fitted().transport(x), {"x": X0}, rows=[{"x": 0, "result": 0}], cut={"x": FIT}),
    room("dual", "DualFit.inverse", lambda y: fitted().inverse(y), {"y": X0}, cut={"y": FIT}, tolerance=1e-6),
    room(
        "costs",
        "PowerCost",
        lambda p, matrix, v: (lambda cost: (cost.value(v), cost.gradient(v)))(PowerCost(p, matrix=matrix)),
        {"matrix": MATRIX, "v": X0},
        names={"matrix": r"matrix|\bv\b"},
        options={"p": ("positive", 3.0)},
        rows=[{"v": 0, "result": 0}],
    ),
    room("costs", "PowerCost.value", CUBIC.value, {"v": X0}, rows=[{"v": 0, "result": 0}]),
    room(
        "costs",
        "PowerCost.value, no matrix",
        PowerCost(3).value,
        {"v": X0},
        units={"v": 1},
        result_units=(3,),
        excused={"a wrong length": "points of another dimension"},
        dims={"v": -1, "result": None},
        limits={"by hand": ({"v": t([3.0, 4.0])}, t(125 / 3))},
    ),
    room("costs", "PowerCost.gradient", CUBIC.gradient, {"v": X0}, rows=[{"v": 0, "result": 0}]),
    room("costs", "PowerCost.conjugate", CUBIC.conjugate, {"q": X0}, rows=[{"q": 0, "result": 0}]),
    room("costs", "PowerCost.displacement", CUBIC.displacement, {"q": X0}, rows=[{"q": 0, "result": 0}]),
    room(
        "costs",
        "PowerCost.pairwise",
        CUBIC.pairwise,
        {"x0": X0, "x1": X1},
        names={"x0": "x0|x1", "x1": "x0|x1"},
        moved=("x0", "x1"),
        rows=[{"x0": 0, "result": 0}, {"x1": 0, "result": 1}],
        cut=dict.fromkeys(("x0", "x1"), "a table for a solver"),
    ),
    room(
        "costs",
        "optimal_map",
        lambda x, potential: optimal_map(potential, CUBIC, x),
        {"x": X0},
        names={"x": r"x|potential|\bq\b"},
        callables={"potential": bowl},
        differentiated=("potential",),
        rows=[{"x": 0, "result": 0}],
    ),
    room(
        "costs",
        "certificate",
        lambda x0, x1, potential: (lambda c: (c.lower, c.upper, c.gap))(certify(potential, CUBIC, x0, x1)),
        {"x0": X0, "x1": X1},
        names={"x0": r"x|\bv\b|potential", "x1": r"x|\bv\b"},
        callables={"potential": bowl},
        rows=[{"x0": 0, "x1": 0, "result": None}],
    ),
    room(
        "costs",
        "fit",
        moved,
        {"source": Y, "target": Y @ MATRIX},
        names={"source": "source|dimension", "target": "target|dimension"},
        single=2e-2,
        exact=False,
        tolerance=1e-4,
        options={
            "steps": ("count", 3),
            "batch": ("count", 8),
            "width": ("count", 4),
            "depth": ("count", 1),
            "learning_rate": ("positive", 0.005),
            "tol": ("positive", 0.01),
            "generator": ("generator", None),
        },
        cut=dict.fromkeys(("source", "target"), "a fit passes no gradient on"),
        excused={"coarse": "what rounding does to three steps is not tested"},
    ),
    room(
        "costs",
        "fit, samplers",
        moved,
        {},
        callables={"source": cloud, "target": wide},
        names={"source": "source|dimension", "target": "target|dimension"},
        refusals=(ValueError, TypeError, RuntimeError),
        exact=False,
        tolerance=1e-4,
        excused={"default dtype": "that of the numbers drawn", "precision": "a fit is as precise as its data"},
    ),
    room(
        "costs",
        "CostFit.transport",
        lambda x: fitted_to_cost().transport(x),
        {"x": X0},
        names={"x": "x|potential"},
        rows=[{"x": 0, "result": 0}],
        cut={"x": FIT},
    ),
    room(
        "hopf_lax",
        "hopf_lax",
        lambda t, x, start, potential, **options: hopf_lax(potential, CUBIC, t, x, start=start, **options).value,
        AT | {"start": X1},
        names={"x": r"x|\bt\b|\bv\b|start", "t": r"\bt\b|\bv\b|x", "start": "start|x0|potential"},
        callables={"potential": bowl},
        differentiated=("potential",),
        options={"tol": ("positive", 1e-9), "max_iterations": ("count or none", 60)},
        rows=[AT_ROWS, {"start": 0, "result": None}],
        alone=False,
        tolerance=1e-8,
    ),
    room(
        "optimal_flow_matching",
        "ofm_loss",
        lambda x0, x1, times, weights: ofm_loss(SOFT, x0, x1, times, quadrature=weights),
        {"x0": X0, "x1": X1, "times": TIMES[:, None], "weights": WEIGHTS},
        names=NAMES | {"times": "times|quadrature"},
        rows=[{"x0": 0, "x1": 0, "result": None}],
    ),
    room(
        "action_matching", "OptimalAction", lambda x: OptimalAction(SOFT).value(0.5, x), {"x": X0}, rows=[{"x": 0, "result": 0}]
    ),
    room("action_matching", "OptimalAction.value", ACTION.value, AT, names=AT_NAMES, rows=[AT_ROWS]),
    room("action_matching", "OptimalAction.velocity", ACTION.velocity, AT, names=AT_NAMES, rows=[AT_ROWS]),
    room("action_matching", "OptimalAction.time_derivative", ACTION.time_derivative, AT, names=AT_NAMES, rows=[AT_ROWS]),
    room("action_matching", "AutodiffAction", lambda x, t, function: AutodiffAction(function).value(t, x), AT, **ACT),
    room("action_matching", "AutodiffAction.value", lambda x, t, function: AutodiffAction(function).value(t, x), AT, **ACT),
    room(
        "action_matching",
        "AutodiffAction.velocity",
        lambda x, t, function: AutodiffAction(function).velocity(t, x),
        AT,
        differentiated=("function",),
        **ACT,
    ),
    room(
        "action_matching",
        "AutodiffAction.time_derivative",
        lambda x, t, function: AutodiffAction(function).time_derivative(t, x),
        AT,
        differentiated=("function",),
        **ACT,
    ),
    room(
        "action_matching",
        "action_network",
        lambda dim, generator: action_network(dim, (3, 2), generator=seeded(generator)).velocity(0.5, X0.float()),
        {},
        options={"dim": ("count", 2), "generator": ("generator", None)},
        excused={"default dtype": "the one of the parameters"},
    ),
    room(
        "action_matching",
        "action_matching_loss, functions",
        lambda path, time_weight: action_matching_loss(ANY, X0, X1, path, [0.25, 0.75], time_weight=time_weight),
        {},
        callables={"path": between, "time_weight": quadratic},
        differentiated=("time_weight",),
        excused={"path: a list": ANY_PATH, "path: a wrong count": ANY_PATH, "precision": "that of the path"},
    ),
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
        lambda x0, x1, path, times, weights, sigma: entropic_action_matching_loss(
            ANY, x0, x1, path, times, sigma=sigma, quadrature=weights
        ),
        PATHS,
        options={"sigma": ("positive", 0.5)},
        names=NAMES,
    ),
    room(
        "action_matching",
        "unbalanced_action_matching_loss",
        lambda x0, x1, path, times, weights, mass: unbalanced_action_matching_loss(
            ANY, x0, x1, path, times, mass=mass, quadrature=weights
        ),
        PATHS,
        callables={"mass": torch.exp},
        excused={"mass: a list": "masses may be arrays of any make", "precision": "that of the path"},
        names=NAMES,
    ),
    room(
        "action_matching",
        "snapshot_loss",
        lambda snapshots: snapshot_loss(ANY, snapshots),
        {"snapshots": torch.stack([X0, *PATH, X1])},
        names={"snapshots": "snapshots|x|function"},
        rows=[{"snapshots": 1, "result": None}],
    ),
    room(
        "action_matching",
        "action_gap",
        lambda path, times, weights, velocity: action_gap(ANY, velocity, path, times, quadrature=weights),
        {name: PATHS[name] for name in ("path", "times", "weights")},
        names=NAMES | {"path": "path|x"},
        callables={"velocity": ACTION.velocity},
        rows=[{"path": 1, "result": None}],
    ),
    room(
        "action_matching", "laplacian", partial(laplacian, ANY), AT, names=AT_NAMES | {"x": r"x|\bt\b|velocity"}, rows=[AT_ROWS]
    ),
    room(
        "action_matching",
        "endpoint_mismatch",
        endpoint_mismatch,
        {"path_end": X0, "end": X1},
        units={"path_end": 1, "end": 1},
        rows=[{"path_end": 0, "result": None}, {"end": 0, "result": None}],
        dims={"path_end": -1, "end": -1, "result": None},
        alone=False,
    ),
    room(
        "polyhedral",
        "PolyhedralAction",
        lambda slopes, heights, x: PolyhedralAction(slopes, heights).value(0.5, x),
        KINKED | {"x": X0},
        names={"slopes": "slopes|dimension", "heights": "heights|slopes"},
        units={"slopes": 1, "heights": 2, "x": 1},
        result_units=(2,),
        rows=[{"x": 0, "result": 0}, {"slopes": 0, "heights": 0, "result": None}],
        dims={"slopes": -1, "x": -1, "result": None},
    ),
    room(
        "polyhedral",
        "PolyhedralAction.value",
        lambda t, x, **kinked: PolyhedralAction(**kinked).value(t, x),
        KINKED | AT,
        rows=[AT_ROWS, {"slopes": 0, "heights": 0, "result": None}],
        result_units=(2,),
        **AT_KINKED,
    ),
    room(
        "polyhedral",
        "PolyhedralAction.velocity",
        lambda t, x, **kinked: PolyhedralAction(**kinked).velocity(t, x),
        KINKED | AT,
        rows=[AT_ROWS, {"slopes": 0, "heights": 0, "result": None}],
        result_units=(1,),
        dims={"slopes": -1, "x": -1, "result": -1},
        **AT_KINKED,
    ),
    room(
        "polyhedral",
        "PolyhedralAction.time_derivative",
        lambda t, x, **kinked: PolyhedralAction(**kinked).time_derivative(t, x),
        KINKED | AT,
        rows=[AT_ROWS],
        result_units=(2,),
        **AT_KINKED,
    ),
    room(
        "schroedinger",
        "SchroedingerAction",
        lambda x, sigma, **mixture: bridge(sigma=sigma, **mixture).value(0.5, x),
        MIXTURE | {"x": X0},
        names=OF_MIXTURE,
        options={"sigma": ("positive", 0.75)},
        rows=[{"x": 0, "result": 0}],
    ),
    room("schroedinger", "SchroedingerAction.value", lambda t, x, **m: bridge(**m).value(t, x), MIXTURE | AT, **AT_BRIDGE),
    room("schroedinger", "SchroedingerAction.velocity", lambda t, x, **m: bridge(**m).velocity(t, x), MIXTURE | AT, **AT_BRIDGE),
    room(
        "schroedinger",
        "SchroedingerAction.time_derivative",
        lambda t, x, **m: bridge(**m).time_derivative(t, x),
        MIXTURE | AT,
        **AT_BRIDGE,
    ),
    room(
        "schroedinger",
        "SchroedingerAction.mean",
        lambda x0, **mixture: bridge(**mixture).mean(x0),
        MIXTURE | {"x0": X0},
        names=OF_MIXTURE,
        rows=[{"x0": 0, "result": 0}],
    ),
    room(
        "schroedinger",
        "SchroedingerAction.sample",
        lambda x0, generator: bridge(**MIXTURE).sample(x0, generator=seeded(generator)),
        {"x0": X0},
        options={"generator": ("generator", None)},
        cut={"x0": "a sample has no gradient"},
    ),
    room(
        "schroedinger",
        "dual_loss",
        lambda x0, x1, **mixture: dual_loss(bridge(**mixture), x0, x1),
        MIXTURE | {"x0": X0, "x1": X1},
        names=OF_MIXTURE | {"x0": "x", "x1": "x"},
        rows=[{"x0": 0, "result": None}, {"x1": 0, "result": None}],
    ),
    room(
        "schroedinger",
        "fit",
        bridged,
        {"x0": Y, "x1": Y @ MATRIX},
        names={"x0": "x0|dimension|x1", "x1": "x1|dimension|components"},
        units=None,
        single=5e-2,
        exact=False,
        tolerance=1e-3,
        options={
            "sigma": ("positive", 2.0),
            "components": ("count", 2),
            "tol": ("positive", 1e-6),
            "max_iterations": ("count", 30),
            "generator": ("generator", None),
        },
        cut=dict.fromkeys(("x0", "x1"), "a fit passes no gradient on"),
        excused={"coarse": "what rounding does to an optimiser is not tested"},
    ),
    room(
        "snapshots",
        "SeparableAction",
        lambda x, width, **a: separable(width=width, **a).value(0.5, x),
        SEPARABLE | {"x": X0},
        names={"centres": "centres|coefficients", "x": "x"},
        options={"width": ("positive", 0.75)},
        rows=[{"x": 0, "result": 0}],
    ),
    *(
        room(
            "snapshots",
            f"SeparableAction.{method}",
            lambda t, x, m=method, **a: getattr(separable(**a), m)(t, x),
            SEPARABLE | AT,
            **AT_SEPARABLE,
        )
        for method in ("value", "velocity", "time_derivative")
    ),
    room(
        "snapshots",
        "mixture_path",
        lambda snapshots, times, order: mixture_path(snapshots, times=times, order=order),
        {"snapshots": SHOTS, "times": SHOT_TIMES},
        options={"order": ("count", 2)},
        **OF_SNAPSHOTS,
    ),
    room(
        "snapshots",
        "unrestricted_action",
        lambda snapshots, times, **o: from_snapshots(snapshots, times=times, **o),
        {"snapshots": SHOTS, "times": SHOT_TIMES},
        options=FROM_SNAPSHOTS | {"degree": ("count or none", 2)},
        single=2e-2,
        **OF_SNAPSHOTS,
    ),
    room(
        "snapshots",
        "held_out_loss",
        lambda snapshots, times, generator, **o: held_out_loss(snapshots, times=times, generator=seeded(generator), **o),
        {"snapshots": SHOTS, "times": SHOT_TIMES},
        options=FROM_SNAPSHOTS | {"degree": ("count or none", 2), "folds": ("count", 3)},
        single=5e-2,
        **OF_SNAPSHOTS,
    ),
]
