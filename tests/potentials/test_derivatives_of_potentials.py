"""The table of derivatives in ``dynot_lite.potentials``, row by row, for all three families."""

import pytest
import torch
from derivatives import exact, exact_in_parameters, has_graph, unnamed
from derivatives import rows as table
from instances import generator, potential_of

import dynot_lite.potentials
from dynot_lite.laws.mixtures import GaussianMixture
from dynot_lite.potentials import (
    action_matching,
    bounds,
    convex,
    costs,
    dual,
    hopf_lax,
    optimal_flow_matching,
    polyhedral,
    schroedinger,
    snapshots,
)
from dynot_lite.potentials.action_matching import AutodiffAction, OptimalAction

F64 = torch.float64
FAMILIES = ("quadratic", "log-sum-exp", "icnn")
POTENTIALS = {family: potential_of(family, 2) for family in FAMILIES}
# The matrix is a multiple of the identity: its eigenvalues coincide.
POTENTIALS["symmetric"] = convex.Quadratic(2, matrix=2 * torch.eye(2, dtype=F64))
X0, X1 = torch.randn(2, 3, 2, generator=generator(), dtype=F64)
T = torch.tensor([0.25, 0.5, 0.75], dtype=F64)
TIMES, WEIGHTS = torch.tensor([0.25, 0.75], dtype=F64), torch.tensor([0.375, 0.625], dtype=F64)
PATH = torch.stack([0.75 * X0 + 0.25 * X1, 0.25 * X0 + 0.75 * X1])
TIGHT = {"tol": 1e-13}


def action(potential):
    """A smooth action that depends on time."""
    return AutodiffAction(lambda t, x: (1 + t) * potential(x) + t**2 * x[:, 0])


# f(potential, t, x, y): exact in the points, the times and the parameters.
ROWS = {
    "forward": lambda p, t, x, y: p(x),
    "gradient": lambda p, t, x, y: p.gradient(x),
    "hessian": lambda p, t, x, y: p.hessian(x),
    "hessian_product": lambda p, t, x, y: p.hessian_product(x, y),
    "conjugate, value": lambda p, t, x, y: p.conjugate(x, **TIGHT)[0],
    "flow": lambda p, t, x, y: p.flow(t, x),
    "inverse_flow": lambda p, t, x, y: p.inverse_flow(t, x, **TIGHT),
    "OptimalAction.value": lambda p, t, x, y: OptimalAction(p).value(t, x),
    "OptimalAction.velocity": lambda p, t, x, y: OptimalAction(p).velocity(t, x),
    "OptimalAction.time_derivative": lambda p, t, x, y: OptimalAction(p).time_derivative(t, x),
    "AutodiffAction.value": lambda p, t, x, y: action(p).value(t, x),
    "AutodiffAction.velocity": lambda p, t, x, y: action(p).velocity(t, x),
    "AutodiffAction.time_derivative": lambda p, t, x, y: action(p).time_derivative(t, x),
    "laplacian": lambda p, t, x, y: action_matching.laplacian(action(p), t, x),
    "semidual_loss": lambda p, t, x, y: dual.semidual_loss(p, x, y, **TIGHT),
    "ofm_loss": lambda p, t, x, y: optimal_flow_matching.ofm_loss(p, x, y, t),
}


@pytest.mark.parametrize("family", POTENTIALS)
@pytest.mark.parametrize("row", ROWS)
def test_exact_of_points_and_times(row, family):
    potential = POTENTIALS[family]
    assert exact(lambda t, x, y: ROWS[row](potential, t, x, y), T, X0, X1)


@pytest.mark.parametrize("family", POTENTIALS)
@pytest.mark.parametrize("row", ROWS)
def test_exact_in_the_parameters(row, family):
    assert exact_in_parameters(POTENTIALS[family], lambda potential: ROWS[row](potential, T, X0, X1))


# f(action, x0, x1, path, times, quadrature)
LOSSES = {
    "action_matching_loss": lambda s, x0, x1, path, t, w: action_matching.action_matching_loss(s, x0, x1, path, t, quadrature=w),
    "entropic_action_matching_loss": lambda s, x0, x1, path, t, w: action_matching.entropic_action_matching_loss(
        s, x0, x1, path, t, sigma=0.5, quadrature=w
    ),
    "unbalanced_action_matching_loss": lambda s, x0, x1, path, t, w: action_matching.unbalanced_action_matching_loss(
        s, x0, x1, path, t, mass=torch.exp, quadrature=w
    ),
    "snapshot_loss": lambda s, x0, x1, path, t, w: action_matching.snapshot_loss(s, torch.cat([x0[None], path, x1[None]])),
    "action_gap": lambda s, x0, x1, path, t, w: action_matching.action_gap(
        s, lambda t, x: torch.tanh(x) * t[:, None], path, t, quadrature=w
    ),
}


@pytest.mark.parametrize("make", (action, OptimalAction), ids=("autodiff", "optimal"))
@pytest.mark.parametrize("row", LOSSES)
def test_exact_of_the_losses(row, make):
    potential = POTENTIALS["log-sum-exp"]
    given = lambda x0, x1, path, t, w: LOSSES[row](make(potential), x0, x1, path, t, torch.softmax(w, 0))
    if row.startswith("entropic") and make is OptimalAction:
        pytest.skip("its velocity has first derivatives only")
    assert exact(given, X0, X1, PATH, TIMES, WEIGHTS)
    assert exact_in_parameters(potential, lambda p: LOSSES[row](make(p), X0, X1, PATH, TIMES, WEIGHTS))


MIXTURE = (
    torch.tensor([0.3, -0.2], dtype=F64),
    X1[:2],
    torch.tensor([[[1.0, 0.3], [0.3, 0.7]], [[0.6, -0.1], [-0.1, 1.2]]], dtype=F64),
)
BRIDGE = {
    "SchroedingerAction.value": lambda action, t, x: action.value(t, x),
    "SchroedingerAction.velocity": lambda action, t, x: action.velocity(t, x),
    "SchroedingerAction.time_derivative": lambda action, t, x: action.time_derivative(t, x),
    "SchroedingerAction.mean": lambda action, t, x: action.mean(x),
    "dual_loss": lambda action, t, x: schroedinger.dual_loss(action, x, 2 * x + 1),
}


def bridge_of(logits, means, covs):
    return schroedinger.SchroedingerAction(GaussianMixture(logits.softmax(0), means, 0.5 * (covs + covs.mT)), 0.7)


@pytest.mark.parametrize("row", BRIDGE)
def test_exact_of_bridges(row):
    assert exact(lambda t, x, *mixture: BRIDGE[row](bridge_of(*mixture), t, x), T, X0, *MIXTURE)


KINKED = (torch.tensor([[-1.2, 0.4], [1.5, 0.9], [0.3, -1.6]], dtype=F64), torch.tensor([0.3, -0.2, 0.1], dtype=F64))
KINKS = {
    "PolyhedralAction.value": lambda action, t, x: action.value(t, x),
    "PolyhedralAction.velocity": lambda action, t, x: action.velocity(t, x),
    "PolyhedralAction.time_derivative": lambda action, t, x: action.time_derivative(t, x),
}


@pytest.mark.parametrize("row", KINKS)
@pytest.mark.parametrize("size", [0.3, 1.5], ids=["in the fans", "mostly outside"])
def test_exact_of_kinks(row, size):
    assert exact(lambda t, x, *kinked: KINKS[row](polyhedral.PolyhedralAction(*kinked), t, x), T, size * X0, *KINKED)


SEPARABLE = {
    f"SeparableAction.{method}": lambda action, t, x, method=method: getattr(action, method)(t, x)
    for method in ("value", "velocity", "time_derivative")
}


@pytest.mark.parametrize("row", SEPARABLE)
def test_exact_of_separable_actions(row):
    coefficients = torch.randn(4, 5, generator=generator(), dtype=F64)
    given = lambda t, x, centres, numbers: SEPARABLE[row](snapshots.SeparableAction(centres, 0.8, numbers), t, x)
    assert exact(given, T, X0, X1, coefficients)


COST = costs.PowerCost(3, matrix=[[1.5, 0.5], [0.0, 0.7]])
OF_COSTS = {
    "PowerCost.value": lambda t, x, y: COST.value(x),
    "PowerCost.gradient": lambda t, x, y: COST.gradient(x),
    "PowerCost.conjugate": lambda t, x, y: COST.conjugate(x),
    "PowerCost.displacement": lambda t, x, y: COST.displacement(x),
    "hopf_lax, value": lambda t, x, y: hopf_lax.hopf_lax(SOFT, COST, t, x, tol=1e-10).value,
    "optimal_map": lambda t, x, y: costs.optimal_map(SOFT, COST, x),
}


@pytest.mark.parametrize("row", OF_COSTS)
def test_exact_of_costs(row):
    assert exact(OF_COSTS[row], T, X0, X1)


@pytest.mark.parametrize("row", ("hopf_lax, value", "optimal_map"))
def test_exact_of_costs_in_the_parameters(row):
    use = {
        "hopf_lax, value": lambda potential: hopf_lax.hopf_lax(potential, COST, T, X0, tol=1e-10).value,
        "optimal_map": lambda potential: costs.optimal_map(potential, COST, X0),
    }
    assert exact_in_parameters(potential_of("log-sum-exp", 2), use[row])


def leaf(x):
    return x.clone().requires_grad_()


SOFT = POTENTIALS["log-sum-exp"]
NONE = {
    "SchroedingerAction.sample": lambda: bridge_of(*map(leaf, MIXTURE)).sample(leaf(X0)),
    "solve": lambda: SOFT.solve(leaf(X0), t=leaf(T), start=leaf(X1)),
    "conjugate, maximiser": lambda: SOFT.conjugate(leaf(X0))[1],
    "curvature": lambda: [potential.curvature() for potential in POTENTIALS.values()],
    "certificate": lambda: dual.certificate(SOFT, leaf(X0), leaf(X1)),
    "lower_bound": lambda: bounds.lower_bound(SOFT, leaf(X0), leaf(X1)).value,
    "endpoint_mismatch": lambda: action_matching.endpoint_mismatch(leaf(X0), leaf(X1)),
    "PowerCost.pairwise": lambda: COST.pairwise(leaf(X0), leaf(X1)),
    "hopf_lax, argmin": lambda: hopf_lax.hopf_lax(SOFT, COST, leaf(T), leaf(X0), start=leaf(X1)).argmin,
    "fit": lambda: dual.fit(leaf(LARGE), leaf(2 * LARGE), steps=2, batch=8, size=(1, 2)).transport(leaf(X0)),
}
LARGE = torch.randn(40, 2, generator=generator(), dtype=F64)


@pytest.mark.parametrize("row", NONE)
def test_none(row):
    assert not has_graph(NONE[row]())


REFUSED = [
    ("SchroedingerAction.value", "sigma", lambda z: schroedinger.SchroedingerAction(bridge_of(*MIXTURE).mixture, z)),
    ("LogSumExp", "temperature", lambda z: convex.LogSumExp(2, 3, temperature=z)),
    ("LogSumExp", "scale", lambda z: convex.LogSumExp(2, 3, scale=z)),
    ("ICNN", "strength", lambda z: convex.ICNN(2, strength=z)),
    ("Quadratic", "matrix", lambda z: convex.Quadratic(2, matrix=z * torch.eye(2))),
    ("PowerCost", "matrix", lambda z: costs.PowerCost(3, matrix=z * torch.eye(2))),
    ("PowerCost", "p", lambda z: costs.PowerCost(4 * z)),
    ("Quadratic", "offset", lambda z: convex.Quadratic(2, offset=z * torch.ones(2))),
    ("entropic_action_matching_loss", "sigma", lambda z: action_matching.entropic_action_matching_loss(
        action(SOFT), X0, X1, PATH, TIMES, sigma=z)),
    ("SeparableAction.value", "width", lambda z: snapshots.SeparableAction(X0, z, torch.ones(2, 5))),
    ("mixture_path, unrestricted_action", "times", lambda z: snapshots.mixture_path(PATH, times=torch.stack([0 * z, 2 * z]))),
    ("mixture_path, unrestricted_action", "snapshots", lambda z: snapshots.unrestricted_action(
        z * PATH, width=1.0, components=2, generator=generator())),
    ("held_out_loss", "snapshots", lambda z: snapshots.held_out_loss(
        z * PATH, width=1.0, components=2, folds=2, generator=generator())),
]  # fmt: skip


@pytest.mark.parametrize("row, name, use", REFUSED)
def test_refused(row, name, use):
    number = torch.tensor(0.5, dtype=F64, requires_grad=True)
    with pytest.raises(ValueError, match=rf"\b{name} must not require a gradient"):
        use(number)
    with torch.no_grad():
        use(number)


def test_the_table_names_every_function():
    modules = (action_matching, bounds, convex, costs, dual, hopf_lax, optimal_flow_matching, polyhedral, schroedinger, snapshots)
    found = set(unnamed(dynot_lite.potentials, *modules))
    results = {"DualFit", "DualRecord", "Certificate", "BridgeFit", "CostFit", "CostCertificate", "HopfLax"}
    assert found <= results | {"Action", "action_network", "ConvexPotential"}
    tested = " ".join((*ROWS, *LOSSES, *BRIDGE, *KINKS, *SEPARABLE, *OF_COSTS, *NONE, *(row for row, *_ in REFUSED)))
    assert [name for row in table(dynot_lite.potentials) for name in row.split(", ") if name not in tested] == []
