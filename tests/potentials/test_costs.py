"""Costs h(y − x): closed forms, brute force on grids, an assignment solver, and maps that are known for another reason."""

import pytest
import torch
from instances import generator
from scipy.optimize import linear_sum_assignment

from dynot_lite.companion.numerics import difference, worst
from dynot_lite.couplings.plans import exact_plan
from dynot_lite.laws.gaussian import monge_map, random_gaussian
from dynot_lite.metrics import l2_uvp
from dynot_lite.potentials.action_matching import OptimalAction
from dynot_lite.potentials.convex import LogSumExp
from dynot_lite.potentials.costs import PowerCost, certificate, fit, optimal_map
from dynot_lite.potentials.hopf_lax import hopf_lax

F64 = torch.float64
TURNED = [[1.5, 0.5], [0.0, 0.7]]
COSTS = {"3/2": PowerCost(1.5), "2": PowerCost(2), "3": PowerCost(3), "4": PowerCost(4), "turned": PowerCost(3, matrix=TURNED)}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=F64)


def soft(x):
    """A convex function with four slopes."""
    return torch.logsumexp(x @ torch.tensor([[1.5, 0.3], [-1.0, 0.8], [0.2, -1.6], [0.1, 0.2]]).double().T, 1)


@pytest.mark.parametrize("name", COSTS)
def test_conjugate_and_slopes_are_those_of_the_values(name):
    cost, v, direction = COSTS[name], normal(40, 2), normal(40, 2, seed=1)
    q = cost.gradient(v)
    assert worst(difference(lambda e: cost.value(v + e * direction), step=1e-3) - (q * direction).sum(1)) < 1e-6
    assert worst(cost.displacement(q) - v) < 1e-12
    assert worst(cost.value(v) + cost.conjugate(q) - (q * v).sum(1)) < 1e-12  # Fenchel, with equality
    others = normal(400, 2, seed=2) * 2
    assert ((q @ others.T - cost.value(others)).amax(1) <= cost.conjugate(q) + 1e-12).all()
    assert worst(cost.pairwise(v, others) - torch.stack([cost.value(others - one) for one in v])) < 1e-11


def test_of_p_2_it_is_half_the_square_and_zero_stays_zero():
    v = normal(5, 3)
    cost = PowerCost(2)
    assert worst(cost.value(v) - 0.5 * v.square().sum(1), cost.gradient(v) - v, cost.displacement(v) - v) < 1e-14
    for cost in COSTS.values():
        nothing = torch.zeros(1, 2)
        assert worst(*(part(nothing) for part in (cost.value, cost.gradient, cost.conjugate, cost.displacement))) == 0
    assert COSTS["turned"].value([[1.0, 0.0]]).item() == pytest.approx(1.5**3 / 3)


@pytest.mark.parametrize("wrong, words", [(1.0, "greater than 1"), (0.5, "greater than 1")])
def test_a_power_that_has_no_map_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        PowerCost(wrong)
    with pytest.raises(ValueError, match="invertible"):
        PowerCost(3, matrix=[[1.0, 2.0], [2.0, 4.0]])


@pytest.mark.parametrize("name", COSTS)
def test_the_evolution_is_the_minimum_over_a_grid(name):
    cost, x = COSTS[name], normal(4, 2, seed=3)
    axis = torch.linspace(-6, 6, 481, dtype=F64)
    grid = torch.cartesian_prod(axis, axis)
    for t in (0.2, 1.0):
        found = hopf_lax(soft, cost, t, x).require()
        brute = torch.stack([(soft(grid) + t * cost.value((point - grid) / t)).amin() for point in x])
        assert (found.value <= brute + 1e-12).all() and worst(found.value - brute) < 6e-3


def test_of_half_the_square_it_is_the_optimal_action():
    potential = LogSumExp(2, 5, matrix=torch.eye(2).double(), scale=2, generator=generator(4)).double()
    action, x, t = OptimalAction(potential), normal(30, 2, seed=5), torch.linspace(0, 1, 30, dtype=F64)
    initial = lambda z: potential(z) - 0.5 * z.square().sum(1)
    found = hopf_lax(initial, PowerCost(2), t, x).require()
    assert worst(found.value - action.value(t, x)) < 1e-12
    assert worst(found.argmin - potential.inverse_flow(t, x)) < 1e-6
    assert worst(optimal_map(initial, PowerCost(2), x) - potential.gradient(x)) < 1e-12


@pytest.mark.parametrize("name", COSTS)
def test_the_equation_holds_with_h_conjugate_only(name):
    cost, x = COSTS[name], normal(20, 2, seed=6)
    t = torch.linspace(0.1, 0.9, 20, dtype=F64)
    s = lambda dt, dx: hopf_lax(soft, cost, t + dt, x + dx, tol=1e-10).value
    d_time = difference(lambda e: s(e, 0.0))
    slope = torch.stack([difference(lambda e: s(0.0, e * axis)) for axis in torch.eye(2).double()], 1)
    assert worst(d_time + cost.conjugate(slope)) < (1e-5 if name == "3/2" else 1e-8)
    if name != "2":
        assert (d_time + 0.5 * slope.square().sum(1)).abs().mean() > 0.05


@pytest.mark.parametrize("name", COSTS)
def test_a_convex_function_makes_an_optimal_map(name):
    cost, x = COSTS[name], normal(150, 2, seed=7)
    y = optimal_map(soft, cost, x)
    table = cost.pairwise(x, y)
    assert table.diagonal().mean() - table[linear_sum_assignment(table.numpy())].mean() < 1e-12
    found = certificate(soft, cost, x, y)
    assert abs(found.gap) < 1e-12 and found.upper == pytest.approx(table.diagonal().mean().item())


def test_bounds_hold_for_any_potential_and_pairing():
    x, y = normal(60, 2, seed=8), 2 * normal(60, 2, seed=9) + 1
    for cost in COSTS.values():
        least = exact_plan(None, None, cost=cost.pairwise(x, y)).require().cost
        for potential in (soft, lambda z: z.sin().sum(1), lambda z: 3 * z.square().sum(1)):
            found = certificate(potential, cost, x, y)
            assert found.lower <= least + 1e-12 and found.upper >= least - 1e-12 and found.gap > 0


def test_without_candidates_a_minimum_may_be_missed_and_with_them_it_is_not():
    wavy = lambda z: 3 * torch.cos(2 * z).sum(1)
    x, cost = 3 * normal(50, 2, seed=10), PowerCost(3)
    axis = torch.linspace(-9, 9, 181, dtype=F64)
    grid = torch.cartesian_prod(axis, axis)
    alone, found = hopf_lax(wavy, cost, 1.0, x).value, hopf_lax(wavy, cost, 1.0, x, start=grid).require().value
    brute = (wavy(grid)[:, None] + cost.pairwise(grid, x)).amin(0)
    assert (found <= brute + 1e-12).all() and (found <= alone + 1e-9).all()
    assert (alone - found).mean() > 0.1
    # one time for each point asks for the same minima
    t = torch.full((50,), 0.5, dtype=F64)
    each = hopf_lax(wavy, cost, torch.cat([t[:-1], t[-1:] + 1e-12]), x, start=grid).value
    assert worst(each - hopf_lax(wavy, cost, 0.5, x, start=grid).value) < 1e-9


def test_what_is_not_solved_is_said():
    stopped = hopf_lax(soft, PowerCost(4), 1.0, normal(10, 2), max_iterations=1)
    assert not stopped.converged and "of 10 points are not solved" in stopped.reason
    with pytest.raises(RuntimeError, match="not solved"):
        stopped.require()


def test_a_fit_in_one_dimension_finds_the_monotone_map_whatever_the_cost():
    law = lambda n, *, generator: torch.randn(n, 1, generator=generator)
    image = lambda z: 3 + 1.5 * z + z.sin()
    target = lambda n, *, generator: image(torch.randn(n, 1, generator=generator))
    x = normal(500, 1, seed=11)
    for p in (1.5, 4.0):
        found = fit(law, target, PowerCost(p), steps=150, batch=256, width=32, generator=generator(12))
        assert l2_uvp(found.transport(x), image(x), image(x).var().item()) < 1  # a translation has more than 30
        assert found.steps == 150 and found.slack < 0.01 and found.require() is found


def test_a_fit_for_the_quadratic_cost_is_the_map_of_gaussians_and_repeats():
    p, q = (random_gaussian(2, generator=generator(seed)) for seed in (13, 14))
    x = p.sample(500, generator=generator(15))
    one, other = (fit(p.sample, q.sample, PowerCost(2), steps=100, batch=256, generator=generator(16)) for _ in range(2))
    assert l2_uvp(one.transport(x), monge_map(p, q)(x), q.cov.trace().item()) < 2
    assert torch.equal(one.transport(x), other.transport(x)) and one.transport(x).dtype == F64


def test_a_fit_says_whether_its_dual_still_rises_and_stops_at_its_budget():
    laws = normal(300, 2), 3 * normal(300, 2, seed=1)
    found = fit(*laws, PowerCost(4), steps=6, tol=1e-9, generator=generator(0))
    assert not found.converged and "tol is 1e-09" in found.reason and found.steps == 6
    assert fit(*laws, PowerCost(4), steps=6, tol=1e3, generator=generator(0)).converged
    assert fit(*laws, PowerCost(4), steps=6, generator=generator(0)).dual == found.dual
    timed = fit(normal(300, 2), normal(300, 2, seed=1), PowerCost(3), seconds=1e-3, generator=generator(0))
    assert timed.steps == 1
    with pytest.raises(ValueError, match="steps or seconds"):
        fit(normal(300, 2), normal(300, 2), PowerCost(3))
    with pytest.raises(ValueError, match="vary in every coordinate"):
        fit(torch.ones(300, 2), normal(300, 2), PowerCost(3), steps=1)
    with pytest.raises(ValueError, match="parameters to learn"):
        fit(normal(300, 2), normal(300, 2), PowerCost(3), steps=1, potential=torch.nn.Flatten())
