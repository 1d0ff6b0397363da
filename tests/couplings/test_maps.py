"""Maps of samples: against what a linear program says at the samples, closed forms beside them, and each other."""

from __future__ import annotations

import math

import pytest
import torch

from dynot_lite.couplings.batches import exact_pairs
from dynot_lite.couplings.maps import cell_map, entropic_map, nearest_map, optimal_potentials
from dynot_lite.couplings.plans import entropic_plan, exact_plan


def clouds(n=40, m=40, dim=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    mixing = draw(dim, dim)
    return draw(n, dim) + 5, draw(m, dim) @ mixing - 100


def test_at_the_samples_each_map_is_what_the_plan_says():
    x0, x1 = clouds()
    partner = x1[exact_pairs(x0, x1)]
    assert (nearest_map(x0, x1)(x0) - partner).abs().max() < 1e-12
    assert torch.equal(cell_map(x0, x1)(x0), partner)  # not so with the potentials of a corner
    plan = entropic_plan(x0, x1, 0.3, tol=1e-9).require().plan
    expected = plan @ x1 / plan.sum(1, keepdim=True)
    assert (entropic_map(x0, x1, 0.3, tol=1e-9)(x0) - expected).abs().max() < 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_potentials_from_inside_are_optimal_and_leave_every_sample_inside_its_cell(seed):
    x0, x1 = clouds(dim=2, seed=seed)
    cost, index = 0.5 * torch.cdist(x0, x1, compute_mode="donot_use_mm_for_euclid_dist").square(), exact_pairs(x0, x1)
    f, g = optimal_potentials(x0, x1)
    slack = cost - f[:, None] - g
    partners = torch.zeros_like(slack, dtype=torch.bool)
    partners[torch.arange(len(x0)), index] = True
    assert slack.min() > -1e-10 and slack[partners].max() < 1e-9 and abs(f.mean()) < 1e-10
    assert slack[~partners].min() > 1e-7
    corner = exact_plan(x0, x1).require()
    tight = (cost - corner.potential0[:, None] - corner.potential1) < 1e-9
    assert tight.sum() >= 2 * len(x0) - 1  # a corner has n − 1 further equalities


def test_clouds_of_other_sizes_have_the_potentials_of_the_solver():
    x0, x1 = clouds(n=10, m=15)
    found = exact_plan(x0, x1)
    assert all(torch.equal(*pair) for pair in zip(optimal_potentials(x0, x1), (found.potential0, found.potential1), strict=True))


@pytest.mark.parametrize("epsilon", [0.0, 0.02])
def test_cells_are_gradients_of_one_convex_function(epsilon):
    x0, x1 = clouds(n=50, m=50, dim=2, seed=2)
    transport = cell_map(x0, x1, epsilon=epsilon)
    x = x0.mean(0) + torch.randn(200, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    images = transport(x)
    # Cyclical monotonicity: on any points, the identity is an optimal pairing of points and images.
    best = images[exact_pairs(x, images)]
    assert abs((x * images).sum() - (x * best).sum()) <= 1e-9 * (x * images).sum().abs()
    wrong = nearest_map(x0, x1)(x)
    assert (x * wrong).sum() < (x * wrong[exact_pairs(x, wrong)]).sum() - 1e-3  # the nearest sample's partner is none
    if epsilon:  # softened, of the same potentials, it comes to the cells
        assert (cell_map(x0, x1, epsilon=1e-9)(x) - cell_map(x0, x1)(x)).abs().max() < 1e-6


def test_on_the_line_cells_end_between_the_samples():
    x0, x1 = torch.arange(5.0)[:, None], torch.tensor([[3.0], [0.0], [1.0], [7.0], [-2.0]])
    order = x1.sort(0).values.double()
    for shift in (-0.3, 0.3):
        inner = slice(None) if shift == 0 else slice(1, -1)
        assert torch.equal(cell_map(x0, x1)(x0 + shift)[inner], order[inner])
        assert (nearest_map(x0, x1)(x0 + shift) - order).abs().max() < 1e-12
    assert cell_map(x0, x1)(torch.tensor([[-9.0], [9.0]])).flatten().tolist() == [-2.0, 7.0]


def test_a_split_sample_goes_to_the_mean_of_its_partners():
    found = nearest_map([[0.0]], [[1.0], [5.0], [6.0]])(torch.tensor([[2.0], [-1.0]]))
    assert torch.allclose(found, torch.tensor(4.0, dtype=torch.float64))


@pytest.mark.parametrize("make", [nearest_map, cell_map, lambda x0, x1: entropic_map(x0, x1, 0.5)])
def test_blocks_shapes_and_bad_points(make, monkeypatch):
    x0, x1 = clouds(n=20, m=25, dim=2)
    x = torch.randn(101, 2, generator=torch.Generator().manual_seed(0))
    whole = make(x0, x1)(x)
    monkeypatch.setattr("dynot_lite.couplings.maps.BLOCK", 60)
    assert torch.equal(make(x0, x1)(x), whole) or (make(x0, x1)(x) - whole).abs().max() < 1e-9
    assert whole.shape == (101, 2) and whole.dtype == torch.float64
    for bad in (x[:, :1], x[None], x[:0], x * math.nan):
        with pytest.raises(ValueError, match="x must"):
            make(x0, x1)(bad)
    with pytest.raises(ValueError, match="x1"):
        make(x0, x1[:, :1])


def test_a_long_way_between_the_clouds_costs_no_digits():
    x0, x1 = clouds(n=60, m=60)
    partner = exact_pairs(x0, x1)
    far0, far1 = x0 + 2.0**20, x1 - 2.0**20
    assert torch.equal(cell_map(far0, far1)(far0), far1[partner])
    near, far = entropic_map(x0, x1, 0.5, tol=1e-9)(x0), entropic_map(far0, far1, 0.5, tol=1e-9)(far0)
    assert (far + 2.0**20 - near).abs().max() < 1e-5


@pytest.mark.parametrize("make", [nearest_map, cell_map, lambda x0, x1: entropic_map(x0, x1, 0.5)])
def test_a_map_stays_what_it_is_when_the_clouds_change(make):
    x0, x1 = clouds(n=20, m=20, dim=2)
    transport = make(x0, x1)
    before = transport(x0 + 0.1)
    x = x0 + 0.1
    x0.zero_(), x1.zero_()
    assert torch.equal(transport(x), before)


def test_a_point_too_far_to_be_squared_is_refused_by_name():
    for make in (nearest_map, cell_map):
        with pytest.raises(ValueError, match="^x must be of a size"):
            make(*clouds(dim=2))(torch.full((1, 2), 1e200, dtype=torch.float64))


@pytest.mark.parametrize("epsilon", [-1.0, math.nan, "a"])
def test_bad_epsilon(epsilon):
    with pytest.raises(ValueError, match="epsilon"):
        cell_map([[0.0]], [[1.0]], epsilon=epsilon)
    with pytest.raises(ValueError, match="epsilon"):
        entropic_map([[0.0]], [[1.0]], epsilon)
