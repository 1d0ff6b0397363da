"""Plans against linear programs, closed forms, optimality conditions and POT's other solvers; their certificates; draws."""

import math

import numpy as np
import ot
import pytest
import torch
from cloud_pairs import cloud, eight_gaussians_and_moons, half_squared, random_weights
from instances import generator
from scipy.optimize import linear_sum_assignment, linprog

from dynot_lite.couplings import batches, plans
from dynot_lite.laws import gaussian

# Exact plans


@pytest.mark.parametrize("d", [1, 2, 5])
def test_exact_plan_solves_the_linear_program(d):
    n, m = 11, 14
    x0, x1 = cloud(n, d, 9), cloud(m, d, 10, shift=0.5)
    a, b = (torch.rand(k, generator=generator(k), dtype=torch.float64) for k in (n, m))
    a[3] = 0.0
    a, b = a / a.sum(), b / b.sum()
    found = plans.exact_plan(x0, x1, weights0=a, weights1=b).require()
    plan, cost = found.plan, half_squared(x0, x1)
    marginals = np.concatenate([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    optimum = linprog(cost.flatten().numpy(), A_eq=marginals, b_eq=torch.cat([a, b]).numpy(), method="highs").fun
    assert plan.min() >= 0 and (plan > 0).sum() <= n + m - 1
    assert (plan.sum(1) - a).abs().max() < 1e-14 and (plan.sum(0) - b).abs().max() < 1e-14
    assert abs((plan * cost).sum().item() - optimum) < 1e-10 and abs(found.cost - optimum) < 1e-10


def test_exact_plan_of_equal_batches_is_the_permutation():
    x0, x1 = cloud(40, 2, 11), cloud(40, 2, 12)
    expected = torch.eye(40, dtype=torch.float64)[batches.exact_pairs(x0, x1)] / 40
    assert (plans.exact_plan(x0, x1).plan - expected).abs().max() < 1e-14


@pytest.mark.parametrize("n, m, d, zeros", [(1, 6, 3, 0), (30, 30, 2, 0), (40, 25, 2, 3), (25, 40, 20, 4)])
def test_the_certificate_is_one(n, m, d, zeros):
    """Feasible potentials bound the minimum from below, and the bound is met where the plan has mass."""
    x0, x1 = cloud(n, d, 1, shift=3.0), cloud(m, d, 2)
    a, b = random_weights(n, 3, zeros=zeros), random_weights(m, 4, zeros=zeros)
    found = plans.exact_plan(x0, x1, weights0=a, weights1=b).require()
    slack = half_squared(x0, x1) - found.potential0.unsqueeze(1) - found.potential1
    scale = found.cost
    assert slack.min() > -1e-12 * scale and slack[found.plan > 0].abs().max() < 1e-9 * scale
    assert abs(a @ found.potential0) < 1e-12 * scale
    dual = (a @ found.potential0 + b @ found.potential1).item()
    assert 0 <= found.error < 1e-9 * scale and abs(found.cost - dual - found.error) < 1e-12 * scale
    # Points without mass have the c-transform, the largest values that are feasible.
    assert slack.amin(0).abs().max() < 1e-9 * scale and slack[:, b > 0].amin(1).abs().max() < 1e-9 * scale


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n, m, d", [(40, 40, 2), (30, 45, 3), (40, 40, 40)])
def test_plans_know_no_unit_and_no_origin(n, m, d, weighted):
    """In units of 3e-7 and 1e-8 the network simplex alone gives plans that cost 1 % and 460 % too much, without a warning."""
    x0, x1 = cloud(n, d, 5), cloud(m, d, 6, shift=1.0)
    weights = {"weights0": random_weights(n, 7, zeros=2), "weights1": random_weights(m, 8, zeros=2)} if weighted else {}
    exact = plans.exact_plan(x0, x1, **weights).require()
    epsilon = 0.1 * exact.cost
    entropic = plans.entropic_plan(x0, x1, epsilon, **weights).require()
    for unit in (1e-12, 1e-8, 3e-7, 1.0, 1e6, 1e12):
        for move0, move1 in ((0.0, 0.0), (1e5, 1e5), (1e6, -1e6)):
            ends = unit * (x0 + move0), unit * (x1 + move1)
            found = plans.exact_plan(*ends, **weights).require()
            assert (found.plan - exact.plan).abs().sum() < 1e-12
            if move0 == move1:
                assert found.cost == pytest.approx(unit**2 * exact.cost, rel=1e-9)
            found = plans.entropic_plan(*ends, unit**2 * epsilon, **weights).require()
            assert (found.plan - entropic.plan).abs().sum() < 1e-5


def test_far_points_and_far_clusters_do_not_spoil_the_rest():
    """The solver sees the rest at the scale of its rounding: alone it pairs it up to 17 % too expensively, and says nothing."""
    x0, x1 = cloud(50, 2, 9), cloud(50, 2, 10)
    rest = torch.arange(50) != 7
    far = x0.clone()
    far[7] = torch.tensor([1e7, 0.0])
    found = plans.exact_plan(far, x1).require()
    partner = x1[:, 0].argmax()  # to first order the direction alone decides
    assert found.plan[7, partner] == 1 / 50
    left = torch.arange(50) != partner
    assert (50 * found.plan[rest][:, left] - 49 * plans.exact_plan(x0[rest], x1[left]).plan).abs().max() < 1e-12
    both = x1.clone()
    both[3] = torch.tensor([1e7, 1e7])
    found = plans.exact_plan(far, both).require()
    alone = plans.exact_plan(x0[rest], x1[torch.arange(50) != 3]).require()
    assert found.plan[7, 3] == 1 / 50  # each is worth more to the other than to anyone
    assert (50 * found.plan[rest][:, torch.arange(50) != 3] - 49 * alone.plan).abs().max() < 1e-12
    near = plans.exact_plan(x0, x1).require()
    apart = torch.tensor([1e6, 0.0], dtype=torch.float64)
    found = plans.exact_plan(torch.cat([x0, x1 + apart]), torch.cat([x1, x0 + apart])).require()
    blocks = torch.block_diag(near.plan, near.plan.T) / 2
    assert found.iterations > 1  # one run does not do
    assert (found.plan - blocks).abs().max() < 1e-12 and found.cost == pytest.approx(near.cost, rel=1e-9)


def test_equal_clouds_cost_nothing_and_lattices_tie():
    x = cloud(60, 20, 11)
    found = plans.exact_plan(x, x.flip(0)).require()
    assert found.cost == 0 and torch.equal(found.plan * 60, torch.eye(60, dtype=torch.float64).flip(0))
    lattice = torch.cartesian_prod(torch.arange(6.0), torch.arange(6.0))
    cost = half_squared(lattice, lattice.flip(0) + 0.5).numpy()
    found = plans.exact_plan(lattice, lattice.flip(0) + 0.5).require()
    assert found.cost == pytest.approx(cost[linear_sum_assignment(cost)].mean(), rel=1e-12)


def test_another_cost():
    cost = torch.rand(8, 9, generator=generator(12), dtype=torch.float64) - 0.7  # negative entries, too
    a, b = random_weights(8, 13), random_weights(9, 14)
    found = plans.exact_plan(None, None, cost=cost, weights0=a, weights1=b).require()
    assert found.cost == pytest.approx(ot.emd2(a.numpy(), b.numpy(), cost.numpy()), rel=1e-12)
    assert (cost - found.potential0.unsqueeze(1) - found.potential1).min() > -1e-14
    with_points = plans.exact_plan(torch.zeros(8, 3), torch.zeros(9, 3), cost=cost, weights0=a, weights1=b)
    assert torch.equal(with_points.plan, found.plan)
    x0, x1 = cloud(8, 2, 15), cloud(9, 2, 16, shift=50.0)
    for solve in (plans.exact_plan, lambda *points, **options: plans.entropic_plan(*points, 0.5, tol=1e-10, **options)):
        one, other = solve(x0, x1), solve(None, None, cost=half_squared(x0, x1))
        assert (one.plan - other.plan).abs().sum() < 1e-8 and one.cost == pytest.approx(other.cost, rel=1e-9)
    one, other = (
        plans.entropic_plan(p, q, 0.5, cost=c).require() for p, q, c in ((x0, x1, None), (x0, x1, half_squared(x0, x1)))
    )
    assert torch.allclose(one.potential0, other.potential0, atol=1e-5)
    assert torch.allclose(one.potential1, other.potential1, atol=1e-5)


def test_a_start_changes_the_way_and_not_the_plan():
    x0, x1 = cloud(50, 2, 17), cloud(50, 2, 18, shift=5.0)
    exact = plans.exact_plan(x0, x1).require()
    for start in (exact.potential0, torch.randn(50, generator=generator(19))):
        assert (plans.exact_plan(x0, x1, start=start).require().plan - exact.plan).abs().max() < 1e-15
    solved = plans.entropic_plan(x0, x1, 0.5).require()
    again = plans.entropic_plan(x0, x1, 0.5, start=solved.potential0).require()
    assert again.iterations == 0 and (again.plan - solved.plan).abs().sum() < 1e-5
    near, far = (plans.entropic_plan(x0, x1, 0.5, start=scale * solved.potential0).require() for scale in (0.999, 0.0))
    assert 0 < near.iterations < far.iterations


def test_an_exact_solver_that_is_stopped_says_so():
    found = plans.exact_plan(cloud(40, 2, 20), cloud(40, 2, 21), max_iterations=2)
    assert not found.converged and "network simplex" in found.reason
    with pytest.raises(RuntimeError, match="not converged: the network simplex stopped"):
        found.require()
    with pytest.raises(RuntimeError, match="not converged"):
        plans.sample_plan(found, 5)


@pytest.mark.parametrize("solve", [plans.exact_plan, lambda *points, **weights: plans.entropic_plan(*points, 0.5, **weights)])
def test_any_precision_comes_in_and_double_goes_out(solve):
    x0, x1, weights = cloud(4, 2, 22), cloud(3, 2, 23), [0.1, 0.2, 0.7]
    expected = solve(x0, x1, weights1=weights).require()
    for points in ((x0.float(), x1.float()), (x0.float().numpy(), x1.numpy())):
        for w in (torch.tensor(weights), np.array(weights)):
            found = solve(*points, weights1=w).require()
            for value, other in ((found.plan, expected.plan), (found.potential0, expected.potential0)):
                assert value.dtype == torch.float64 and torch.allclose(value, other, atol=1e-5)
    assert solve(x0.requires_grad_(), x1).require().plan.requires_grad is False


# Entropic plans


def kkt_residual(plan, x0, x1, a, b, epsilon):
    """How far log(π/(a⊗b)) + c/ε is from a sum f_i + g_j: zero, with the marginals, only for the entropic plan."""
    z = (plan / (a.unsqueeze(1) * b)).log() + half_squared(x0, x1) / epsilon
    return (z - z.mean(0) - z.mean(1, keepdim=True) + z.mean()).abs().max().item()


@pytest.mark.parametrize("epsilon", [0.3, 3.0, 300.0])
@pytest.mark.parametrize("n, m, d", [(1, 5, 2), (20, 20, 2), (30, 17, 3), (17, 30, 64)])
def test_entropic_plan_satisfies_its_optimality_conditions(n, m, d, epsilon):
    x0, x1 = cloud(n, d, 13) / (1 + 0.5 * d), cloud(m, d, 14, shift=2.0) / (1 + 0.5 * d)
    a, b = random_weights(n, n), random_weights(m, m)
    found = plans.entropic_plan(x0, x1, epsilon, weights0=a, weights1=b, tol=1e-9).require()
    plan, f, g = found.plan, found.potential0, found.potential1
    assert (plan.sum(1) - a).abs().sum() < 1e-12 and (plan.sum(0) - b).abs().sum() <= 1.01e-9
    assert found.error == pytest.approx((plan.sum(0) - b).abs().sum().item(), abs=1e-14)
    assert kkt_residual(plan, x0, x1, a, b, epsilon) < 1e-8
    cost = half_squared(x0, x1)
    assert torch.allclose(a.unsqueeze(1) * b * ((f.unsqueeze(1) + g - cost) / epsilon).exp(), plan, rtol=1e-9)
    assert abs(a @ f) < 1e-12 and found.cost == pytest.approx((plan * cost).sum().item(), rel=1e-12)


def test_entropic_plan_of_gaussians_is_the_closed_form():
    """Gauss–Hermite points as weighted clouds; without the ½, or with 2ε, the covariance would be 0.1 and more away."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    nodes, weights = torch.tensor(nodes), torch.tensor(weights / weights.sum())
    p, q = gaussian.Gaussian([0.3], [[1.0]]), gaussian.Gaussian([-1.0], [[2.5]])
    x0, x1 = p.mean + nodes.unsqueeze(1), q.mean + 2.5**0.5 * nodes.unsqueeze(1)
    epsilon = 0.9
    plan = plans.entropic_plan(x0, x1, epsilon, weights0=weights, weights1=weights, tol=1e-13).plan
    covariance = (x0 - p.mean).T @ plan @ (x1 - q.mean)
    assert abs(covariance.item() - gaussian.entropic_plan(p, q, epsilon).cross_cov.item()) < 1e-9
    cost, mass = half_squared(x0, x1), weights.unsqueeze(1) * weights
    value = (plan * cost).sum() + epsilon * torch.special.xlogy(plan, plan / mass).sum()
    assert abs(value.item() - gaussian.entropic_plan(p, q, epsilon).cost.item()) < 1e-9


@pytest.mark.parametrize("epsilon", [0.025, 0.003])
def test_small_epsilon_converges_where_the_plain_kernel_underflows(epsilon):
    """ε = 0.025 is the reg = 0.05 with which a peer returns a plan of mass 5e-4 on such data."""
    x0, x1 = eight_gaussians_and_moons(256)
    assert (torch.exp(-half_squared(x0, x1) / epsilon).sum(1) < 1e-30).sum() > 50
    plan = plans.entropic_plan(x0, x1, epsilon).require().plan
    assert abs(plan.sum().item() - 1) < 1e-12
    assert (plan.sum(1) - 1 / 256).abs().sum() < 1e-12 and (plan.sum(0) - 1 / 256).abs().sum() <= 1.01e-6
    small = x0[:40], x1[:33]
    plan, a, b = plans.entropic_plan(*small, 0.1).plan, torch.full((40,), 1 / 40), torch.full((33,), 1 / 33)
    assert kkt_residual(plan, *small, a.double(), b.double(), 0.1) < 1e-6


def test_entropic_plan_tends_to_the_exact_and_to_the_independent_one():
    x0, x1 = cloud(30, 2, 15), cloud(30, 2, 16)
    exact = plans.exact_plan(x0, x1).plan
    assert (plans.entropic_plan(x0, x1, 3e-4).plan - exact).abs().sum() < 0.05
    assert (plans.entropic_plan(x0, x1, 1e-9).plan - exact).abs().sum() < 1e-6
    assert (plans.entropic_plan(x0, x1, 1e7).plan - 1 / 900).abs().max() < 1e-8


@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("epsilon", [0.05, 0.5])
def test_entropic_plan_against_pot_with_points_that_have_no_mass(epsilon, start):
    x0, x1 = cloud(12, 2, 24), cloud(15, 2, 25, shift=1.0)
    a, b = random_weights(12, 26, zeros=2), random_weights(15, 27, zeros=1)
    f = 5 * torch.randn(12, generator=generator(28), dtype=torch.float64) if start else None
    found = plans.entropic_plan(x0, x1, epsilon, weights0=a, weights1=b, start=f, tol=1e-10).require()
    cost, block = half_squared(x0, x1), (slice(2, None), slice(1, None))
    theirs = torch.zeros(12, 15, dtype=torch.float64)
    options = {"method": "sinkhorn_log", "stopThr": 1e-12, "numItermax": 20000}
    theirs[block] = torch.tensor(ot.sinkhorn(a[2:].numpy(), b[1:].numpy(), cost[block].numpy(), epsilon, **options))
    assert (found.plan - theirs).abs().max() < 1e-8
    # Potentials everywhere: the soft c-transforms of each other.
    g = -epsilon * torch.logsumexp((found.potential0.unsqueeze(1) - cost) / epsilon + a.log().unsqueeze(1), 0)
    f = -epsilon * torch.logsumexp((found.potential1 - cost) / epsilon + b.log(), 1)
    assert torch.allclose(f, found.potential0, atol=1e-8) and torch.allclose(g, found.potential1, atol=1e-8)
    rest = plans.entropic_plan(x0[2:], x1[1:], epsilon, weights0=a[2:], weights1=b[1:]).plan
    assert (found.plan[:2] == 0).all() and (found.plan[:, 0] == 0).all() and (found.plan[block] - rest).abs().max() < 1e-6


def test_plain_iterations_with_a_tiny_epsilon_reach_the_exact_cost():
    """exp(−c/ε) underflows for most pairs; the scaling vectors would overflow if the kernel were not made anew."""
    x0, x1 = cloud(12, 2, 29), cloud(15, 2, 30)
    found = plans.entropic_plan(x0, x1, 2e-3, start=torch.zeros(12), tol=1e-3, max_iterations=100_000).require()
    assert (found.potential0.mean() + found.potential1.mean()).item() == pytest.approx(plans.exact_plan(x0, x1).cost, rel=0.02)


def test_a_start_runs_plain_sinkhorn_and_counts_it():
    """The same iteration written down, in the log domain."""
    x0, x1, epsilon = cloud(20, 2, 31), cloud(25, 2, 32), 0.4
    a, b, cost = random_weights(20, 33), random_weights(25, 34), half_squared(x0, x1)
    start = f = torch.randn(20, generator=generator(35), dtype=torch.float64)
    count, error = -1, math.inf
    while error > 1e-4:
        count += 1
        g = -epsilon * torch.logsumexp((f.unsqueeze(1) - cost) / epsilon + a.log().unsqueeze(1), 0)
        f = -epsilon * torch.logsumexp((g - cost) / epsilon + b.log(), 1)
        plan = a.unsqueeze(1) * b * ((f.unsqueeze(1) + g - cost) / epsilon).exp()
        error = (plan.sum(0) - b).abs().sum()
    found = plans.entropic_plan(x0, x1, epsilon, weights0=a, weights1=b, start=start, tol=1e-4).require()
    assert found.iterations == count > 5 and torch.allclose(found.plan, plan, atol=1e-12)


@pytest.mark.parametrize("start", [None, torch.zeros(64)])
def test_no_convergence_is_said_and_how_far_it_got(start):
    x0, x1 = eight_gaussians_and_moons(64)
    found = plans.entropic_plan(x0, x1, 0.01, start=start, max_iterations=3)
    assert not found.converged and found.error > 1e-6 and found.iterations == 3
    assert found.error == pytest.approx((found.plan.sum(0) - 1 / 64).abs().sum().item())
    way = r" at epsilon = .* to 0.01" if start is None else ""
    with pytest.raises(RuntimeError, match=r"marginal error .* after 3 iterations" + way):
        found.require()


# Draws


def test_sample_plan_has_the_frequencies_of_the_plan():
    plan = torch.rand(7, 5, generator=generator(22), dtype=torch.float64)
    plan[plan < 0.4] = 0.0
    plan = plan / plan.sum()
    n = 20000
    rows, columns = plans.sample_plan(plan, n, generator=generator(23))
    counts = torch.bincount(5 * rows + columns, minlength=35).reshape(7, 5)
    assert (counts - n * plan).abs().max() <= 2  # stratified: independent draws would be off by about 30
    assert (counts[plan == 0] == 0).all()


def test_sample_plan_takes_what_a_solver_returned():
    found = plans.exact_plan(cloud(9, 2, 36), cloud(9, 2, 37))
    one, other = (plans.sample_plan(plan, 9, generator=generator(38)) for plan in (found, found.plan))
    assert all(map(torch.equal, one, other))


# Bad input

GOOD, OTHER = np.zeros((3, 2)), np.ones((4, 2))


def entropic_plan(x0, x1, **weights):
    return plans.entropic_plan(x0, x1, 0.5, **weights)


@pytest.mark.parametrize("function", [plans.exact_plan, entropic_plan])
@pytest.mark.parametrize(
    "x0, x1, options, name",
    [
        (GOOD, np.zeros((3, 3)), {}, "x1"),
        (GOOD, np.zeros((0, 2)), {}, "x1"),
        (np.full((3, 2), np.nan), OTHER, {}, "x0"),
        (np.zeros((1, 3, 2)), OTHER, {}, "x0 and x1"),
        (GOOD, OTHER, {"weights0": [0.5, 0.5]}, "weights0"),
        (GOOD, OTHER, {"weights0": [0.5, 0.6, -0.1]}, "weights0"),
        (GOOD, OTHER, {"weights1": [0.25, 0.25, 0.25, 0.3]}, "weights1"),
        (GOOD, OTHER, {"weights1": [0.25, 0.25, 0.25, math.nan]}, "weights1"),
        (1e200 * OTHER, 1e200 * np.eye(4, 2), {}, "finite squared"),
        (1e300 * OTHER, -1e300 * np.eye(4, 2), {}, "finite squared"),
        (GOOD, OTHER, {"cost": np.zeros((4, 3))}, "cost must be"),
        (None, OTHER, {"cost": np.zeros((3, 3))}, "cost must be"),
        (None, None, {"cost": np.zeros((0, 3))}, "cost must be"),
        (None, None, {"cost": np.zeros(3)}, "cost must be"),
        (None, None, {"cost": [[0.0, math.inf]]}, "cost must be finite"),
        (None, None, {}, "x0 must be"),
        (GOOD, OTHER, {"start": np.zeros(4)}, "start"),
        (GOOD, OTHER, {"start": [0.0, 1.0, math.nan]}, "start"),
        (GOOD, OTHER, {"max_iterations": 0}, "max_iterations"),
    ],
)
def test_bad_weighted_clouds_are_named(function, x0, x1, options, name):
    with pytest.raises(ValueError, match=name):
        function(x0, x1, **options)


@pytest.mark.parametrize(
    "options, name",
    [
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"epsilon": math.nan}, "epsilon"),
        ({"epsilon": 1.0, "tol": 0.0}, "tol"),
        ({"epsilon": 1.0, "max_iterations": 0}, "max_iterations"),
    ],
)
def test_bad_options_are_named(options, name):
    with pytest.raises(ValueError, match=name):
        plans.entropic_plan(GOOD, OTHER, **options)


@pytest.mark.parametrize(
    "plan, n, name",
    [
        (np.zeros((3, 4)), 5, "plan"),
        (np.full((3, 4), 1 / 11), 5, "plan"),
        (np.array([[1.5, -0.5]]), 5, "plan"),
        (np.array([[1.0, np.nan]]), 5, "plan"),
        (np.zeros((0, 4)), 5, "plan"),
        (np.full(4, 0.25), 5, "plan"),
        (np.full((2, 2), 0.25), 0, "n must"),
    ],
)
def test_bad_plans_are_named(plan, n, name):
    with pytest.raises(ValueError, match=name):
        plans.sample_plan(plan, n)


def test_a_newton_step_counts_as_twenty_iterations(monkeypatch):
    calls = {"newton": 0, "plain": 0}

    def counted(name, function):
        def call(*args):
            calls[name] += 1
            return function(*args)

        return call

    monkeypatch.setattr(plans, "_newton_step", counted("newton", plans._newton_step))
    monkeypatch.setattr(torch, "aminmax", counted("plain", torch.aminmax))  # called once in every other iteration
    found = plans.entropic_plan(cloud(25, 2, 30), cloud(31, 2, 31, shift=1.0), 2e-3, tol=1e-10).require()
    assert calls["newton"] > 2 and found.iterations == 20 * calls["newton"] + calls["plain"]
