"""Couplings against independent solvers, optimality conditions, closed forms and frequencies."""

import math

import numpy as np
import pytest
import torch
from instances import generator
from scipy.optimize import linear_sum_assignment, linprog

from dynot_lite.couplings import batches, plans
from dynot_lite.laws import gaussian


def cloud(n, d, seed=0, shift=0.0):
    return torch.randn(n, d, generator=generator(seed), dtype=torch.float64) * (1 + 0.5 * torch.arange(d)) + shift


def half_squared(x, y):
    """The cost by its definition."""
    return 0.5 * (x.unsqueeze(1) - y).square().sum(-1)


def rows_to(x):
    """A sampler that returns the first n rows of x, and so ties a batch to its place."""
    return lambda n, generator=None: x[:n]


def normal(d):
    return lambda n, generator=None: torch.randn(n, d, generator=generator)


def eight_gaussians_and_moons(n, seed=0):
    """Data like the peers': 8 Gaussians of radius 5 and standard deviation 0.56, and two moons three times their usual size."""
    rng = np.random.default_rng(seed)
    angle, arc = rng.integers(8, size=n) * np.pi / 4, rng.uniform(0, np.pi, n)
    upper = rng.integers(2, size=n)[:, None]
    arcs = np.where(upper, np.stack([np.cos(arc), np.sin(arc)], 1), np.stack([1 - np.cos(arc), 0.5 - np.sin(arc)], 1))
    x0 = 5 * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.1**0.25 * rng.normal(size=(n, 2))
    return torch.tensor(x0), torch.tensor(3 * (arcs + 0.2 * rng.uniform(size=(n, 1))) - 1)


# Exact pairs


@pytest.mark.parametrize("n", [1, 2, 33, 90, 257])
@pytest.mark.parametrize("d", [1, 2, 3, 8, 64])
def test_exact_pairs_cost_what_an_assignment_of_the_plain_costs_does(n, d):
    x0, x1 = cloud(n, d, 1), cloud(n, d, 2, shift=1.5) ** 3
    cost = half_squared(x0, x1)
    optimum = cost.numpy()[linear_sum_assignment(cost.numpy())].sum()
    index = batches.exact_pairs(x0, x1)
    assert torch.equal(index.sort().values, torch.arange(n))
    # The index is of x1; its inverse would be another pairing.
    assert abs(cost[torch.arange(n), index].sum().item() - optimum) < 1e-11 * cost.max() * n


def test_exact_pairs_of_hard_clouds():
    x = cloud(150, 2, 3)
    apart = torch.cat([1e-3 * x[:75], 1e6 + 1e-3 * x[75:]])  # two scales that float32 cannot hold together
    lattice = torch.cartesian_prod(torch.arange(12.0), torch.arange(12.0))  # ties everywhere
    for x0, x1 in [
        (apart, apart.flip(0) + 0.1 * x.abs()),
        (lattice, lattice.flip(0) + 0.5),
        (x, torch.ones(150, 2)),
        (torch.zeros(70, 2), torch.ones(70, 2)),
        (x + 1e9, cloud(150, 2, 4) - 1e9),
        (1e-150 * x, 1e-150 * cloud(150, 2, 4)),
        (1e150 * x, 1e150 * cloud(150, 2, 4)),
        (x.float(), cloud(150, 2, 4).float()),
        (x.repeat(2, 1), cloud(150, 2, 4).repeat(2, 1)),
    ]:
        index = batches.exact_pairs(x0, x1)
        assert torch.equal(index.sort().values, torch.arange(len(x0)))
        # The origin changes no optimal pair, but the rounding of the reference; nor does the unit.
        x0, x1 = ((x - x.mean(0)).double() for x in (x0, x1))
        unit = max(x0.abs().max().item(), x1.abs().max().item()) or 1.0
        cost = half_squared(x0 / unit, x1 / unit).numpy()
        optimum = cost[linear_sum_assignment(cost)].sum()
        assert abs(cost[np.arange(len(cost)), index].sum() - optimum) < 1e-12 * len(cost)


def test_monotone_maps_are_recovered():
    x = cloud(200, 3, 5)
    # Positive definite, so x ↦ x @ matrix is the gradient of a convex function.
    matrix = torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 0.7]], dtype=torch.float64)
    shuffle = torch.randperm(200, generator=generator(6))
    index = batches.exact_pairs(x, (x @ matrix + 7)[shuffle])
    assert torch.equal(shuffle[index], torch.arange(200))


def test_sorted_pairs_match_ranks_and_keep_the_order_of_equals():
    x0, x1 = cloud(101, 1, 7), cloud(101, 1, 8)
    index = batches.sorted_pairs(x0, x1)
    assert torch.equal(x0[:, 0].argsort().argsort(), x1[index, 0].argsort().argsort())
    assert batches.sorted_pairs([[1], [0], [1]], [[5], [4], [5]]).tolist() == [0, 1, 2]


# Plans


@pytest.mark.parametrize("d", [1, 2, 5])
def test_exact_plan_solves_the_linear_program(d):
    n, m = 11, 14
    x0, x1 = cloud(n, d, 9), cloud(m, d, 10, shift=0.5)
    a, b = (torch.rand(k, generator=generator(k), dtype=torch.float64) for k in (n, m))
    a[3] = 0.0
    a, b = a / a.sum(), b / b.sum()
    plan = plans.exact_plan(x0, x1, weights0=a, weights1=b)
    cost = half_squared(x0, x1)
    marginals = np.concatenate([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    optimum = linprog(cost.flatten().numpy(), A_eq=marginals, b_eq=torch.cat([a, b]).numpy(), method="highs").fun
    assert plan.min() >= 0 and (plan > 0).sum() <= n + m - 1
    assert (plan.sum(1) - a).abs().max() < 1e-14 and (plan.sum(0) - b).abs().max() < 1e-14
    assert abs((plan * cost).sum().item() - optimum) < 1e-10


def test_exact_plan_of_equal_batches_is_the_permutation():
    x0, x1 = cloud(40, 2, 11), cloud(40, 2, 12)
    expected = torch.eye(40, dtype=torch.float64)[batches.exact_pairs(x0, x1)] / 40
    assert (plans.exact_plan(x0, x1) - expected).abs().max() < 1e-14


def kkt_residual(plan, x0, x1, a, b, epsilon):
    """How far log(π/(a⊗b)) + c/ε is from a sum f_i + g_j: zero, with the marginals, only for the entropic plan."""
    z = (plan / (a.unsqueeze(1) * b)).log() + half_squared(x0, x1) / epsilon
    return (z - z.mean(0) - z.mean(1, keepdim=True) + z.mean()).abs().max().item()


@pytest.mark.parametrize("epsilon", [0.3, 3.0, 300.0])
@pytest.mark.parametrize("n, m, d", [(1, 5, 2), (20, 20, 2), (30, 17, 3), (17, 30, 64)])
def test_entropic_plan_satisfies_its_optimality_conditions(n, m, d, epsilon):
    x0, x1 = cloud(n, d, 13) / (1 + 0.5 * d), cloud(m, d, 14, shift=2.0) / (1 + 0.5 * d)
    a, b = (torch.rand(k, generator=generator(k), dtype=torch.float64) + 0.1 for k in (n, m))
    a, b = a / a.sum(), b / b.sum()
    plan = plans.entropic_plan(x0, x1, epsilon, weights0=a, weights1=b, tol=1e-9)
    assert (plan.sum(1) - a).abs().sum() < 1e-12 and (plan.sum(0) - b).abs().sum() <= 1.01e-9
    assert kkt_residual(plan, x0, x1, a, b, epsilon) < 1e-8


def test_entropic_plan_of_gaussians_is_the_closed_form():
    """Gauss–Hermite points as weighted clouds; without the ½, or with 2ε, the covariance would be 0.1 and more away."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    nodes, weights = torch.tensor(nodes), torch.tensor(weights / weights.sum())
    p, q = gaussian.Gaussian([0.3], [[1.0]]), gaussian.Gaussian([-1.0], [[2.5]])
    x0, x1 = p.mean + nodes.unsqueeze(1), q.mean + 2.5**0.5 * nodes.unsqueeze(1)
    epsilon = 0.9
    plan = plans.entropic_plan(x0, x1, epsilon, weights0=weights, weights1=weights, tol=1e-13)
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
    plan = plans.entropic_plan(x0, x1, epsilon)
    assert abs(plan.sum().item() - 1) < 1e-12
    assert (plan.sum(1) - 1 / 256).abs().sum() < 1e-12 and (plan.sum(0) - 1 / 256).abs().sum() <= 1.01e-6
    small = x0[:40], x1[:33]
    plan, a, b = plans.entropic_plan(*small, 0.1), torch.full((40,), 1 / 40), torch.full((33,), 1 / 33)
    assert kkt_residual(plan, *small, a.double(), b.double(), 0.1) < 1e-6


def test_entropic_plan_tends_to_the_exact_and_to_the_independent_one():
    x0, x1 = cloud(30, 2, 15), cloud(30, 2, 16)
    exact = plans.exact_plan(x0, x1)
    assert (plans.entropic_plan(x0, x1, 3e-4) - exact).abs().sum() < 0.05
    assert (plans.entropic_plan(x0, x1, 1e-9) - exact).abs().sum() < 1e-6
    assert (plans.entropic_plan(x0, x1, 1e7) - 1 / 900).abs().max() < 1e-8


def test_points_without_mass_have_no_pairs():
    x0, x1 = cloud(4, 2, 17), cloud(3, 2, 18)
    a, b = torch.tensor([0.5, 0.0, 0.2, 0.3], dtype=torch.float64), torch.tensor([0.4, 0.6, 0.0], dtype=torch.float64)
    plan = plans.entropic_plan(x0, x1, 0.5, weights0=a, weights1=b)
    rest = plans.entropic_plan(x0[[0, 2, 3]], x1[:2], 0.5, weights0=a[[0, 2, 3]], weights1=b[:2])
    assert (plan[1] == 0).all() and (plan[:, 2] == 0).all()
    assert (plan[[0, 2, 3]][:, :2] - rest).abs().max() < 1e-6


def test_no_convergence_raises_and_says_how_far_it_got():
    x0, x1 = eight_gaussians_and_moons(64)
    with pytest.raises(RuntimeError, match=r"marginal error .* after \d+ iterations at epsilon = .* to 0.01"):
        plans.entropic_plan(x0, x1, 0.01, max_iterations=3)
    with pytest.raises(RuntimeError, match="marginal error"):
        batches.entropic(rows_to(x0), rows_to(x1), epsilon=0.01, max_iterations=1)(64)


# Draws


def test_entropic_pairs_follow_the_rows_of_the_plan():
    x0, x1 = cloud(3, 2, 19), cloud(4, 2, 20)
    plan = plans.entropic_plan(x0, x1, 0.7)
    gen, counts, repeats = generator(21), torch.zeros(3, 4), 1500
    for _ in range(repeats):
        counts[torch.arange(3), batches.entropic_pairs(x0, x1, 0.7, generator=gen)] += 1
    error = (counts / repeats - 3 * plan).abs()
    assert (error < 5 * (3 * plan * (1 - 3 * plan) / repeats).sqrt() + 1e-6).all()


def test_sample_plan_has_the_frequencies_of_the_plan():
    plan = torch.rand(7, 5, generator=generator(22), dtype=torch.float64)
    plan[plan < 0.4] = 0.0
    plan = plan / plan.sum()
    n = 20000
    rows, columns = plans.sample_plan(plan, n, generator=generator(23))
    counts = torch.bincount(5 * rows + columns, minlength=35).reshape(7, 5)
    assert (counts - n * plan).abs().max() <= 2  # stratified: independent draws would be off by about 30
    assert (counts[plan == 0] == 0).all()


def test_every_place_of_a_batch_has_the_law_of_the_plan():
    plan = torch.tensor([[0.1, 0.2], [0.3, 0.4]], dtype=torch.float64)
    x0, x1 = torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0], [1.0]])
    pairs, gen, repeats = batches.from_plan(x0, x1, plan), generator(24), 4000
    drawn = torch.stack([torch.cat(pairs(3, generator=gen), 1).sum(1) for _ in range(repeats)]).long()
    for place in range(3):
        frequency = torch.bincount(drawn[:, place], minlength=4) / repeats
        assert (frequency - plan.flatten()).abs().max() < 5 * (0.25 / repeats) ** 0.5


def test_a_permutation_plan_is_drawn_whole():
    x0, x1 = cloud(300, 2, 25), cloud(300, 2, 26)
    plan = plans.exact_plan(x0, x1)
    rows, columns = plans.sample_plan(plan, 300, generator=generator(27))
    assert torch.equal(rows.sort().values, torch.arange(300)) and not torch.equal(rows, torch.arange(300))
    assert torch.equal(columns, plan.argmax(1)[rows])
    labels = torch.arange(300) % 3
    drawn = batches.from_plan(x0, x1, plan, labels=labels)(50, generator=generator(28))
    where = (drawn[1].unsqueeze(1) == x1).all(2).nonzero()[:, 1]
    assert torch.equal(drawn[2], labels[where]) and torch.equal(drawn[0], x0[plan.argmax(0)[where]])
    assert torch.equal(batches.from_plan(x0, x1, plan)(50, generator=generator(28))[0], drawn[0])


# Pair samplers


@pytest.mark.parametrize("make", [batches.independent, batches.exact, lambda s, t: batches.entropic(s, t, epsilon=0.5)])
def test_pair_samplers_are_reproducible_and_keep_both_laws(make):
    pairs = make(normal(2), lambda n, generator=None: 2 * torch.randn(n, 2, generator=generator) + 5)
    first, again, other = (pairs(96, generator=generator(seed)) for seed in (1, 1, 2))
    assert first[0].shape == first[1].shape == (96, 2) and first[0].dtype == torch.float32
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True)) and not torch.equal(first[1], other[1])
    assert first[0].mean() < 1 < first[1].mean()  # source and target are not exchanged


def test_exact_and_entropic_samplers_pair_what_they_drew():
    x0, x1 = cloud(80, 2, 29), cloud(80, 2, 30)
    found0, found1 = batches.exact(rows_to(x0), rows_to(x1))(80)
    assert torch.equal(found0, x0) and torch.equal(found1, x1[batches.exact_pairs(x0, x1)])
    index = batches.entropic_pairs(x0, x1, 0.2, generator=generator(31))
    assert torch.equal(batches.entropic(rows_to(x0), rows_to(x1), epsilon=0.2)(80, generator=generator(31))[1], x1[index])
    assert all(map(torch.equal, batches.independent(rows_to(x0), rows_to(x1))(80), (x0, x1)))


@pytest.mark.parametrize("make", [batches.independent, batches.exact, lambda s, t: batches.entropic(s, t, epsilon=1e-2)])
def test_classes_are_paired_within_themselves(make):
    """A target whose classes lie left and right: pairs over the whole batch would give each class its side of the source."""
    labels = torch.randint(0, 3, (150,), generator=generator(32))
    x1 = cloud(150, 2, 33) + 20.0 * torch.stack([labels, torch.zeros(150)], 1)
    x0 = cloud(150, 2, 34)
    found0, found1, found = make(rows_to(x0), lambda n, generator=None: (x1[:n], labels[:n]))(150, generator=generator(35))
    assert torch.equal(found0, x0) and torch.equal(found, labels)  # the labels are drawn beside x0, so independent of it
    assert torch.equal((found1[:, 0] / 20).round().long(), labels)
    if make is batches.exact:
        for c in range(3):
            cost = half_squared(x0[labels == c], x1[labels == c]).numpy()
            optimum = cost[linear_sum_assignment(cost)].sum()
            assert abs(0.5 * (found0 - found1)[labels == c].square().sum().item() - optimum) < 1e-9 * optimum


# Bad input

GOOD, OTHER = np.zeros((3, 2)), np.ones((4, 2))


@pytest.mark.parametrize("function", [batches.exact_pairs, batches.sorted_pairs])
@pytest.mark.parametrize(
    "x0, x1, name",
    [
        (GOOD, OTHER, "one shape"),
        (GOOD, np.zeros((3, 3)), "one shape"),
        (np.zeros((0, 2)), np.zeros((0, 2)), "x0"),
        (GOOD, np.full((3, 2), np.nan), "x1"),
        (np.full((3, 2), np.inf), GOOD, "x0"),
        (np.zeros(3), np.zeros(3), "x0"),
        (np.zeros((2, 3, 2)), np.zeros((2, 3, 2)), "one shape"),
    ],
)
def test_bad_batches_are_named(function, x0, x1, name):
    with pytest.raises(ValueError, match=name):
        function(x0, x1)


def test_sorted_pairs_want_dimension_one():
    with pytest.raises(ValueError, match="dimension 1"):
        batches.sorted_pairs(GOOD, GOOD)


def entropic_plan(x0, x1, **weights):
    return plans.entropic_plan(x0, x1, 0.5, **weights)


@pytest.mark.parametrize("function", [plans.exact_plan, entropic_plan])
@pytest.mark.parametrize(
    "x0, x1, weights, name",
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
    ],
)
def test_bad_weighted_clouds_are_named(function, x0, x1, weights, name):
    with pytest.raises(ValueError, match=name):
        function(x0, x1, **weights)


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


def test_bad_samplers_are_named():
    good = rows_to(torch.zeros(9, 2))
    for source, target, name in [
        (good, rows_to(torch.zeros(9, 3)), "one shape"),
        (rows_to(torch.zeros(4, 2)), rows_to(torch.zeros(4, 2)), "n = 9"),
        (good, lambda n, generator=None: (torch.zeros(n, 2), torch.zeros(n - 1).long()), "labels"),
        (good, lambda n, generator=None: (torch.zeros(n, 2), torch.zeros(n)), "labels"),
    ]:
        with pytest.raises(ValueError, match=name):
            batches.independent(source, target)(9)
    for make in (batches.exact, lambda *samplers: batches.entropic(*samplers, epsilon=1.0)):
        with pytest.raises(ValueError, match="x1"):
            make(good, rows_to(torch.full((9, 2), math.nan)))(9)
    with pytest.raises(ValueError, match="n must"):
        batches.exact(good, good)(0)
    with pytest.raises(ValueError, match="epsilon"):
        batches.entropic(good, good, epsilon=0.0)
    with pytest.raises(ValueError, match="plan must have shape"):
        batches.from_plan(np.zeros((2, 1)), np.zeros((3, 1)), np.full((3, 2), 1 / 6))
    with pytest.raises(ValueError, match="labels"):
        batches.from_plan(np.zeros((2, 1)), np.zeros((3, 1)), np.full((2, 3), 1 / 6), labels=[0, 1])
