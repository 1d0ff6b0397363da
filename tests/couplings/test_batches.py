"""Pairs of batches against independent solvers and frequencies, and the samplers that draw them."""

import math

import numpy as np
import pytest
import torch
from cloud_pairs import cloud, eight_gaussians_and_moons, half_squared
from instances import generator
from scipy.optimize import linear_sum_assignment

from dynot_lite.couplings import batches, plans


def rows_to(x):
    """A sampler that returns the first n rows of x, and so ties a batch to its place."""
    return lambda n, generator=None: x[:n]


def normal(d):
    return lambda n, generator=None: torch.randn(n, d, generator=generator)


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


def test_exact_pairs_know_no_unit_and_no_origin():
    x0, x1 = cloud(100, 3, 48), cloud(100, 3, 49)
    index = batches.exact_pairs(x0, x1)
    for unit in (1e-12, 3e-7, 1e12):
        for move0, move1 in ((0.0, 0.0), (1e6, -1e6)):
            assert torch.equal(batches.exact_pairs(unit * (x0 + move0), unit * (x1 + move1)), index)
    far, rest = x0.clone(), torch.arange(100) != 7
    far[7] = torch.tensor([1e7, 0.0, 0.0])
    found, partner = batches.exact_pairs(far, x1), x1[:, 0].argmax()
    left = torch.arange(100)[torch.arange(100) != partner]
    assert found[7] == partner and torch.equal(found[rest], left[batches.exact_pairs(x0[rest], x1[left])])


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


# Draws


def test_entropic_pairs_follow_the_rows_of_the_plan():
    x0, x1 = cloud(3, 2, 19), cloud(4, 2, 20)
    plan = plans.entropic_plan(x0, x1, 0.7).plan
    gen, counts, repeats = generator(21), torch.zeros(3, 4), 1500
    for _ in range(repeats):
        counts[torch.arange(3), batches.entropic_pairs(x0, x1, 0.7, generator=gen)] += 1
    error = (counts / repeats - 3 * plan).abs()
    assert (error < 5 * (3 * plan * (1 - 3 * plan) / repeats).sqrt() + 1e-6).all()


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
    plan = plans.exact_plan(x0, x1).plan
    rows, columns = plans.sample_plan(plan, 300, generator=generator(27))
    assert torch.equal(rows.sort().values, torch.arange(300)) and not torch.equal(rows, torch.arange(300))
    assert torch.equal(columns, plan.argmax(1)[rows])
    labels, continuous = torch.arange(300) % 3, torch.randn(300, 2, 2, generator=generator(29))
    drawn = batches.from_plan(x0, x1, plan, labels, continuous)(50, generator=generator(28))
    where = (drawn[1].unsqueeze(1) == x1).all(2).nonzero()[:, 1]
    assert torch.equal(drawn[2], labels[where]) and torch.equal(drawn[3], continuous[where])
    assert torch.equal(drawn[0], x0[plan.argmax(0)[where]])
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


def carried(x1, *conditions):
    """A target of x1 with conditions, all tied to their places."""
    return lambda n, generator=None: (x1[:n], *(c[:n] for c in conditions))


MAKERS = [batches.independent, batches.exact, lambda s, t: batches.entropic(s, t, epsilon=1e-2)]


@pytest.mark.parametrize("make", MAKERS)
def test_whatever_is_beside_a_point_stays_beside_it(make):
    """A continuous condition that is not carried along with the pairing would tell the network about another point."""
    x0, x1 = cloud(90, 2, 36), cloud(90, 2, 37)
    number, angle, picture = torch.arange(90.0), x1.sum(1), torch.stack([x1, -x1], 1)
    found0, found1, *found = make(rows_to(x0), carried(x1, number, angle, picture))(90, generator=generator(38))
    place = found[0].long()
    assert torch.equal(found0, x0) and torch.equal(found1, x1[place])
    assert torch.equal(found[1], angle[place]) and torch.equal(found[2], picture[place])
    if make is batches.exact:  # continuous conditions are not seen: the pairs are those of the whole batch
        assert torch.equal(place, batches.exact_pairs(x0, x1))
    if make is not batches.independent:
        assert not torch.equal(place, torch.arange(90))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
@pytest.mark.parametrize("make", MAKERS[1:])
def test_groups_are_those_of_all_integers_together(make, dtype):
    x0, x1 = cloud(120, 2, 39), cloud(120, 2, 40)
    first, second = (torch.randint(0, 3, shape, generator=generator(k)) for k, shape in ((41, (120,)), (42, (120, 2))))
    number = torch.arange(120.0)
    drawn = make(rows_to(x0), carried(x1, first.to(dtype), number, second > 1))(120, generator=generator(43))
    place = drawn[3].long()
    assert torch.equal(drawn[0], x0) and torch.equal(drawn[1], x1[place])
    # The integers stand at their places, with their dtypes: no pair leaves its group, and the groups are drawn beside x0.
    assert torch.equal(drawn[2], first.to(dtype)) and torch.equal(drawn[4], second > 1)
    assert torch.equal(first[place], first) and torch.equal(second[place] > 1, second > 1)
    if make is batches.exact:
        for rows in (((first == c) & ((second > 1) == torch.tensor(pair)).all(1)) for c in range(3) for pair in ((0, 0), (1, 0))):
            assert rows.sum() > 3 and torch.equal(x1[place][rows], x1[rows][batches.exact_pairs(x0[rows], x1[rows])])


@pytest.mark.parametrize("make", MAKERS)
def test_images_stay_images(make):
    x0, x1 = (torch.randn(40, 3, 4, 5, generator=generator(k)) for k in (44, 45))
    labels = torch.arange(40) % 2
    found0, found1, _ = make(rows_to(x0), carried(x1, labels))(40, generator=generator(46))
    flat0, flat1, _ = make(rows_to(x0.flatten(1)), carried(x1.flatten(1), labels))(40, generator=generator(46))
    assert torch.equal(found0.flatten(1), flat0) and torch.equal(found1.flatten(1), flat1)
    plan = plans.exact_plan(x0.flatten(1), x1.flatten(1))
    pairs = batches.from_plan(x0, x1, plan, labels)(40, generator=generator(47))
    assert pairs[0].shape == pairs[1].shape == (40, 3, 4, 5)
    where = (pairs[1].unsqueeze(1) == x1).flatten(2).all(2).nonzero()[:, 1]
    assert torch.equal(pairs[2], labels[where]) and torch.equal(pairs[0], x0[plan.plan.argmax(0)[where]])


def test_samplers_are_checked_on_every_call():
    calls = iter([4, 2])
    pairs = batches.independent(normal(2), lambda n, generator=None: torch.zeros(n, next(calls) // 2))
    pairs(5)
    with pytest.raises(ValueError, match="one shape"):
        pairs(5)  # x1 of shape (5, 1) would broadcast


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


def test_bad_samplers_are_named():
    good = rows_to(torch.zeros(9, 2))
    for source, target, name in [
        (good, rows_to(torch.zeros(9, 3)), "one shape"),
        (rows_to(torch.zeros(4, 2)), rows_to(torch.zeros(4, 2)), r"source must return a tensor of shape \(9, d\)"),
        (good, rows_to(torch.zeros(4, 2)), r"target must return a tensor of shape \(9, d\)"),
        (good, lambda n, generator=None: (torch.zeros(n, 2), torch.zeros(n - 1).long()), "labels"),
        (good, lambda n, generator=None: (torch.zeros(n, 2), [0] * n), "labels"),
        (good, lambda n, generator=None: torch.zeros(n, 2).long(), "target must return floating-point"),
    ]:
        with pytest.raises(ValueError, match=name):
            batches.independent(source, target)(9)
    for make in (batches.exact, lambda *samplers: batches.entropic(*samplers, epsilon=1.0)):
        with pytest.raises(ValueError, match="what target returns must be finite"):
            make(good, rows_to(torch.full((9, 2), math.nan)))(9)
        with pytest.raises(ValueError, match="what source returns must be finite"):
            make(rows_to(torch.full((9, 2), math.inf)), good)(9)
    with pytest.raises(ValueError, match="n must"):
        batches.exact(good, good)(0)
    with pytest.raises(ValueError, match="epsilon"):
        batches.entropic(good, good, epsilon=0.0)
    with pytest.raises(ValueError, match="plan must have shape"):
        batches.from_plan(np.zeros((2, 1)), np.zeros((3, 1)), np.full((3, 2), 1 / 6))
    with pytest.raises(ValueError, match="plan must have shape"):
        batches.from_plan(np.zeros((2, 1)), np.zeros((3, 2)), np.full((2, 3), 1 / 6))
    with pytest.raises(ValueError, match="conditions"):
        batches.from_plan(np.zeros((2, 1)), np.zeros((3, 1)), np.full((2, 3), 1 / 6), [0, 1, 2], [0, 1])
    x0, x1 = eight_gaussians_and_moons(64)
    with pytest.raises(RuntimeError, match="marginal error"):
        batches.entropic(rows_to(x0), rows_to(x1), epsilon=0.01, max_iterations=1)(64)
    with pytest.raises(RuntimeError, match="not converged"):
        batches.from_plan(x0, x1, plans.exact_plan(x0, x1, max_iterations=2))


def test_blocks_are_handed_out_in_order_and_whole():
    """Counted rows with a label: nothing is lost, repeated or torn from what stands beside it, whatever is asked for."""
    calls = []

    def pairs(n, *, generator=None):
        start = sum(calls)
        calls.append(n)
        x = torch.arange(start, start + n, dtype=torch.float64)[:, None]
        return x, -x, torch.arange(start, start + n)

    draw = batches.in_blocks(pairs, 4)
    found = [draw(n) for n in (3, 1, 6, 1, 9)]
    assert [len(x0) for x0, _, _ in found] == [3, 1, 6, 1, 9] and calls == [4] * 5
    x0, x1, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    assert torch.equal(x0[:, 0], torch.arange(20.0).double()) and torch.equal(x1, -x0) and torch.equal(labels, torch.arange(20))


def test_blocks_are_of_the_pairs_of_their_size():
    """A batch of one in blocks of 64 is as cheap as a batch of 64, and much cheaper than pairs of one."""
    source, target = (lambda n, generator=None, at=at: at + torch.randn(n, 2, generator=generator) for at in (0.0, 1.0))
    cost = lambda pairs, n: (lambda x0, x1: (x0 - x1).square().sum(1).mean().item())(*pairs(n, generator=generator))
    generator, exact = torch.Generator().manual_seed(0), batches.exact(source, target)
    blocks = batches.in_blocks(exact, 64)
    one_by_one = np.mean([cost(blocks, 1) for _ in range(640)])
    assert one_by_one == pytest.approx(np.mean([cost(exact, 64) for _ in range(10)]), rel=0.1)
    assert one_by_one < 0.6 * np.mean([cost(exact, 1) for _ in range(640)])


def test_blocks_do_not_share_memory_with_what_a_sampler_returns_again():
    buffer = torch.zeros(2, 1)
    draw = batches.in_blocks(lambda n, generator=None: (buffer.add_(1), buffer), 2)
    assert draw(3)[0][:, 0].tolist() == [1, 1, 2] and draw(3)[0][:, 0].tolist() == [2, 3, 3]


def growing():
    """Of another dimension on every call."""
    calls = []
    return lambda n, generator=None: (torch.zeros(n, len(calls)),) * 2 if calls.append(0) is None else None


@pytest.mark.parametrize(
    ("pairs", "size", "words"),
    [
        (3, 2, "pairs must be a function"),
        (
            batches.independent(lambda n, generator=None: torch.zeros(n, 1), lambda n, generator=None: torch.zeros(n, 1)),
            0,
            "size",
        ),
        (lambda n, generator=None: torch.zeros(n, 1), 2, "pairs must return a tuple of tensors"),
        (lambda n, generator=None: (torch.zeros(n, 1), torch.zeros(n + 1, 1)), 2, "pairs must return x1 with 2 rows"),
        (lambda n, generator=None: (torch.zeros(n, 1), torch.zeros(n, 2)), 2, "pairs must return x0 and x1 of one kind, real"),
        (lambda n, generator=None: (torch.zeros(n, 1),), 2, "pairs must return x0 and x1 of one kind, real"),
        (lambda n, generator=None: (torch.zeros(n, 1).long(),) * 2, 2, "pairs must return x0 and x1 of one kind, real"),
        (growing(), 2, "the same on every call"),
        (lambda n, generator=None: (torch.full((n, 1), torch.nan),), 2, "x0 of pairs must be finite"),
    ],
)
def test_bad_blocks_are_refused(pairs, size, words):
    with pytest.raises((ValueError, TypeError), match=words):
        batches.in_blocks(pairs, size)(3)
