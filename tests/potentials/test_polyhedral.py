"""Actions of potentials with kinks, against grids, projected gradient and an assignment; no Hamilton–Jacobi without the fan."""

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from dynot_lite.potentials.action_matching import OptimalAction
from dynot_lite.potentials.convex import LogSumExp
from dynot_lite.potentials.polyhedral import PolyhedralAction

STEP = 1e-5


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kinks(dim, count=5):
    return 1.5 * randn(count, dim, seed=dim), 0.5 * randn(count, seed=dim + 10)


def points(dim, n=300):
    """Times and points, a third of which are near the kinks."""
    x = 1.5 * randn(n, dim, seed=dim + 20)
    x[::3] *= 0.1
    return torch.linspace(0.02, 0.98, n, dtype=torch.float64), x


def simplex(values):
    """The nearest points of the simplex."""
    ordered = values.sort(1, descending=True).values
    shifts = (ordered.cumsum(1) - 1) / torch.arange(1, values.shape[1] + 1)
    return (values - shifts.gather(1, (ordered > shifts).sum(1, keepdim=True) - 1)).clamp(min=0)


def maximum_by_ascent(slopes, heights, t, x, steps=20_000):
    """The maximum over the simplex by projected gradient."""
    rate = 1 / torch.linalg.matrix_norm(slopes, 2) ** 2 / t[:, None]
    weights = torch.full((len(x), len(slopes)), 1 / len(slopes), dtype=x.dtype)
    for _ in range(steps):
        moved = simplex(weights + rate * (x @ slopes.T + heights - t[:, None] * (weights @ slopes) @ slopes.T))
        if (moved - weights).abs().max() < 1e-14:
            break
        weights = moved
    linear = (weights * (x @ slopes.T + heights)).sum(1)
    return linear - 0.5 * t * (weights @ slopes).square().sum(1), weights @ slopes


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_value_and_velocity_are_those_of_projected_gradient(dim):
    slopes, heights = kinks(dim, count=3 if dim == 3 else 5)
    t, x = points(dim, n=40)
    value, velocity = maximum_by_ascent(slopes, heights, t, x)
    action = PolyhedralAction(slopes, heights)
    assert torch.allclose(action.value(t, x), value, rtol=0, atol=1e-8)
    assert torch.allclose(action.velocity(t, x), velocity, rtol=0, atol=1e-4)


def test_value_is_the_hopf_lax_minimum_on_a_grid():
    slopes, heights = kinks(2)
    t, x = points(2, n=6)
    axis = torch.linspace(-5, 5, 1001, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    least = torch.stack(
        [((z @ slopes.T + heights).amax(1) + (p - z).square().sum(1) / (2 * s)).min() for s, p in zip(t, x, strict=True)]
    )
    excess = least - PolyhedralAction(slopes, heights).value(t, x)
    assert excess.min() > -1e-12 and excess.max() < 0.01  # at a kink the grid, 0.007 off at most, sees a slope


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_hamilton_jacobi_at_every_point_and_not_without_the_fan(dim):
    slopes, heights = kinks(dim)
    t, x = points(dim)
    action = PolyhedralAction(slopes, heights)
    d_time = (action.value(t + STEP, x) - action.value(t - STEP, x)) / (2 * STEP)
    axes = STEP * torch.eye(dim, dtype=x.dtype)
    d_space = torch.stack([(action.value(t, x + h) - action.value(t, x - h)) / (2 * STEP) for h in axes], dim=1)
    tolerance = STEP / t**2 + 1e-8  # at the rim of a fan second differences of values are of first order
    assert ((d_space - action.velocity(t, x)).norm(dim=1) < 10 * tolerance).all()
    assert ((d_time - action.time_derivative(t, x)).abs() < 100 * tolerance).all()
    assert ((d_time + 0.5 * d_space.square().sum(1)).abs() < 100 * tolerance).all()
    cell = (x @ slopes.T + heights - 0.5 * t[:, None] * slopes.square().sum(1)).argmax(1)
    assert (d_time + 0.5 * slopes[cell].square().sum(1)).abs().max() > 0.1


def test_ends_are_the_potential_and_its_conjugate():
    slopes, heights = kinks(2)
    x, action = 2 * randn(30, 2, seed=3), PolyhedralAction(slopes, heights)
    assert torch.equal(action.value(0.0, x), (x @ slopes.T + heights).amax(1))
    assert torch.equal(action.velocity(0.0, x), slopes[(x @ slopes.T + heights).argmax(1)])
    conjugate = 0.5 * x.square().sum(1) - action.value(1.0, x)
    z = x - action.velocity(1.0, x)  # the point where the conjugate is attained
    psi = lambda z: 0.5 * z.square().sum(-1) + (z @ slopes.T + heights).amax(-1)
    assert torch.allclose(conjugate, (x * z).sum(1) - psi(z), rtol=0, atol=1e-12)
    others = z + torch.logspace(-3, 1, 9, dtype=x.dtype)[:, None, None] * randn(9, 30, 2, seed=4)
    assert (conjugate >= (x * others).sum(2) - psi(others) - 1e-12).all()


def test_the_shift_of_the_cells_is_the_optimal_map():
    slopes, heights = kinks(2)
    x, action = randn(200, 2, seed=5), PolyhedralAction(slopes, heights)
    image = x + action.velocity(0.0, x)
    cost = 0.5 * torch.cdist(x, image).square().numpy()
    best = cost[linear_sum_assignment(cost)].mean()
    assert abs(action.value(1.0, image).mean() - action.value(0.0, x).mean() - best) < 1e-12


def test_it_is_the_limit_of_soft_maxima():
    slopes, heights = kinks(2)
    t, x = points(2, n=50)
    errors = []
    for temperature in (1e-1, 1e-2):
        soft = LogSumExp(2, len(slopes), matrix=torch.eye(2, dtype=x.dtype), temperature=temperature)
        with torch.no_grad():
            soft.slopes.copy_(slopes[None]), soft.heights.copy_(heights[None])
            errors.append((OptimalAction(soft).value(t, x) - PolyhedralAction(slopes, heights).value(t, x)).abs().max().item())
        assert errors[-1] <= temperature * torch.log(torch.tensor(5.0)) + 1e-12  # of the soft maximum, hence of the minimum
    assert errors[1] < 0.3 * errors[0]


def test_repeated_and_aligned_slopes_change_nothing():
    slopes = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    heights = torch.tensor([0.0, 0.2, -1.0, 0.0], dtype=torch.float64)
    t, x = points(2)
    lean = PolyhedralAction(slopes[[0, 1, 3]], heights[[0, 1, 3]])
    assert torch.allclose(PolyhedralAction(slopes, heights).value(t, x), lean.value(t, x), rtol=0, atol=1e-12)
    assert torch.allclose(lean.velocity(t, x)[:, 1], torch.zeros_like(t))


def test_parts_do_not_show(monkeypatch):
    slopes, heights = kinks(2)
    t, x = points(2)
    whole = PolyhedralAction(slopes, heights).velocity(t, x)
    monkeypatch.setattr("dynot_lite.potentials.polyhedral.PART", 1000)
    assert torch.equal(PolyhedralAction(slopes, heights).velocity(t, x), whole)


NAN = float("nan")
BAD = [([1.0, 2.0], [0.0], "slopes"), ([[1.0]], [1.0, 2.0], "heights"), ([[1.0]], [[1.0]], "heights"), ([[NAN]], [0.0], "slopes")]


@pytest.mark.parametrize(("slopes", "heights", "message"), BAD)
def test_bad_shapes(slopes, heights, message):
    with pytest.raises(ValueError, match=message):
        PolyhedralAction(slopes, heights)
    with pytest.raises(ValueError, match="x"):
        PolyhedralAction([[1.0, 0.0]], [0.0]).value(0.5, [[1.0]])
