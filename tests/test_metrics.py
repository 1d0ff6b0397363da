"""Costs of flows and distances of samples, against independent solvers and closed forms."""

import itertools
import math

import numpy as np
import pytest
import torch
from instances import cross_covariance, generator, pair
from scipy.optimize import linear_sum_assignment, linprog
from scipy.stats import energy_distance as scipy_energy_distance

from dynot_lite.laws.gaussian import fm_flow, fm_kinetic_energy, fm_velocity
from dynot_lite.metrics import energy_distance, path_energy, sample_w2_squared
from dynot_lite.paths.flows import trajectory

F64 = torch.float64


def test_energy_of_a_gaussian_flow_converges_to_the_closed_form():
    p, q = pair(2)
    cross = cross_covariance(p, q)
    x0 = torch.cat([p.factor.mT, -p.factor.mT]) * 2**0.5 + p.mean  # exact means and covariances
    flow = trajectory(lambda t, x: fm_velocity(p, q, t, x, cross_cov=cross), x0, steps=400, method="rk4")
    found = path_energy(*flow)
    assert found.energy == pytest.approx(fm_kinetic_energy(p, q, cross_cov=cross).item(), rel=1e-4)
    end = fm_flow(p, q, 1.0, cross_cov=cross)(x0)
    assert found.displacement == pytest.approx((end - x0).square().sum(1).mean().item(), rel=1e-6)


@pytest.mark.parametrize("steps", (1, 2, 7))
def test_order_of_the_energies_holds_for_every_polygon(steps):
    gen = generator(steps)
    times = torch.cat([torch.zeros(1), torch.rand(steps, generator=gen).cumsum(0)])
    positions = torch.randn(steps + 1, 20, 3, generator=gen)
    found = path_energy(times / times[-1], positions)
    w2 = sample_w2_squared(positions[0], positions[-1])
    assert w2 <= found.displacement <= found.energy + 1e-9
    velocity = positions.diff(dim=0) / (times / times[-1]).diff()[:, None, None]
    spread = (velocity - (positions[-1] - positions[0])).square().sum(-1).mean(-1)
    assert found.straightness == pytest.approx(((times / times[-1]).diff() * spread).sum().item(), rel=1e-4, abs=1e-9)


def test_straight_lines_at_constant_speed():
    x0, x1 = torch.randn(2, 5, 4, generator=generator(), dtype=F64)
    times = torch.tensor([0, 0.1, 0.6, 1.0], dtype=F64)
    found = path_energy(times, torch.stack([(1 - t) * x0 + t * x1 for t in times]))
    assert abs(found.straightness) < 1e-12 and found.energy == pytest.approx((x1 - x0).square().sum(1).mean().item())


@pytest.mark.parametrize(
    ("times", "positions", "message"),
    [
        ([0, 1], torch.zeros(3, 1, 1), "positions and times"),
        ([0, 1], torch.zeros(2, 1), "positions and times"),
        ([0.0], torch.zeros(1, 1, 1), "positions and times"),
        ([0, 0.5], torch.zeros(2, 1, 1), "increase from 0 to 1"),
        ([0, 0.7, 0.6, 1], torch.zeros(4, 1, 1), "increase from 0 to 1"),
        ([0, 1], torch.full((2, 1, 1), math.nan), "positions must be finite"),
        ([0, 1], torch.zeros(2, 0, 1), "positions must be"),
        ([0, 1], [[[0.0]], [[1e300]]], "finite squared"),
    ],
)
def test_path_energy_refuses(times, positions, message):
    with pytest.raises(ValueError, match=message):
        path_energy(times, positions)


def test_w2_of_samples_is_that_of_other_solvers():
    gen = generator()
    x, y = torch.randn(2, 40, 3, generator=gen, dtype=F64)
    y = y @ torch.diag(torch.tensor([2.0, 0.3, 1.0], dtype=F64)) + 1
    cost = ((x[:, None] - y[None]) ** 2).sum(-1).numpy()
    assert sample_w2_squared(x, y) == pytest.approx(cost[linear_sum_assignment(cost)].mean(), rel=1e-12)
    small = cost[:5, :7]
    rows, columns = np.kron(np.eye(5), np.ones(7)), np.kron(np.ones(5), np.eye(7))
    program = linprog(small.ravel(), A_eq=np.vstack([rows, columns]), b_eq=[1 / 5] * 5 + [1 / 7] * 7)
    assert sample_w2_squared(x[:5], y[:7]) == pytest.approx(program.fun, rel=1e-9)
    assert sample_w2_squared(x, x[torch.randperm(40, generator=gen)]) == 0
    a, b = (torch.rand(k, generator=gen, dtype=F64) for k in (5, 7))
    a, b = a / a.sum(), b / b.sum()
    program = linprog(small.ravel(), A_eq=np.vstack([rows, columns]), b_eq=torch.cat([a, b]).numpy())
    assert sample_w2_squared(x[:5], y[:7], weights0=a, weights1=b) == pytest.approx(program.fun, rel=1e-9)
    far = x + 1e4  # a small distance far from the origin, where |x|² − 2⟨x, y⟩ + |y|² would lose all digits
    assert sample_w2_squared(far, far + 1) == pytest.approx(3, rel=1e-6)


def test_energy_distance_of_normals():
    """E|N(μ, 2)| in closed form: for N(0, 1) and N(1, 1) the distance is 2E|N(1, 2)| − 2E|N(0, 2)|."""

    def folded(mean, variance):
        bulk = math.sqrt(2 * variance / math.pi) * math.exp(-(mean**2) / (2 * variance))
        return bulk + mean * math.erf(mean / math.sqrt(2 * variance))

    gen = generator()
    x, y = torch.randn(3000, 1, generator=gen), torch.randn(2500, 1, generator=gen) + 1
    assert energy_distance(x, y) == pytest.approx(2 * (folded(1, 2) - folded(0, 2)), abs=0.04)


def test_energy_distance_is_the_unbiased_version_of_scipys():
    """SciPy averages over all pairs, those of a point with itself included, and takes the root."""
    gen = generator()
    x, y = torch.randn(6, 1, generator=gen, dtype=F64), torch.randn(9, 1, generator=gen, dtype=F64) + 0.3
    biased = scipy_energy_distance(x[:, 0], y[:, 0]) ** 2
    within = [torch.cdist(z, z).mean().item() for z in (x, y)]
    assert energy_distance(x, y) == pytest.approx(biased - within[0] / 5 - within[1] / 8, rel=1e-10)


def test_energy_distance_is_zero_on_average_over_all_splits():
    pool = torch.randn(7, 2, generator=generator(), dtype=F64)
    values = []
    for chosen in itertools.combinations(range(7), 3):
        rest = [i for i in range(7) if i not in chosen]
        values.append(energy_distance(pool[list(chosen)], pool[rest]))
    assert np.mean(values) == pytest.approx(0, abs=1e-12) and min(values) < 0 < max(values)


@pytest.mark.parametrize(("metric", "power"), ((sample_w2_squared, 2), (energy_distance, 1)))
@pytest.mark.parametrize("d", (2, 40))
def test_metrics_of_samples_know_no_unit_and_no_origin(metric, power, d):
    gen = generator(d)
    x, y = torch.randn(50, d, generator=gen, dtype=F64), 2 * torch.randn(60, d, generator=gen, dtype=F64) + 1
    value = metric(x, y)
    for unit in (1e-12, 3e-7, 1e12):
        for move in (0, 1e5):
            assert metric(unit * (x + move), unit * (y + move)) == pytest.approx(unit**power * value, rel=1e-8)


def test_energy_distance_sums_in_blocks():
    """More pairs than one block holds, against the sum by the definition on the line: sorted points in place of pairs."""

    def within(z):
        z, n = z[:, 0].sort().values, len(z)
        return (2 * (2 * torch.arange(n) - n + 1) * z).sum().item()

    gen = generator()
    x, y = torch.randn(3001, 1, generator=gen, dtype=F64), torch.randn(1500, 1, generator=gen, dtype=F64) + 0.5
    cross = (within(torch.cat([x, y])) - within(x) - within(y)) / 2
    expected = 2 * cross / (3001 * 1500) - within(x) / (3001 * 3000) - within(y) / (1500 * 1499)
    assert energy_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_energy_distance_of_many_points_needs_little_memory():
    """The matrix of all distances would take 128 MB."""
    x = torch.zeros(4000, 1)
    with torch.profiler.profile(profile_memory=True) as profile:
        energy_distance(x, x)
    assert max(event.cpu_memory_usage for event in profile.events()) < 3e7


@pytest.mark.parametrize("metric", (sample_w2_squared, energy_distance))
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 1), "dimension"),
        (torch.zeros(0, 2), torch.zeros(3, 2), "x0 must be"),
        (torch.zeros(3, 2), torch.full((3, 2), math.inf), "x1 must be finite"),
        (torch.zeros(3), torch.zeros(3), "x0 must be"),
        (torch.zeros(2, 3, 1), torch.zeros(2, 3, 1), "x0 and x1 must"),
        (torch.eye(2, dtype=F64) * 1e300, -torch.eye(2, dtype=F64) * 1e300, "finite squared"),
        (torch.eye(3, 50, dtype=F64) * 1e300, torch.zeros(40, 50, dtype=F64), "finite squared"),
    ],
)
def test_metrics_refuse(metric, x, y, message):
    with pytest.raises(ValueError, match=message):
        metric(x, y)


def test_energy_distance_needs_two_points():
    with pytest.raises(ValueError, match="two points"):
        energy_distance(torch.zeros(1, 2), torch.zeros(3, 2))
