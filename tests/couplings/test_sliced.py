import numpy as np
import ot
import pytest
import torch

from dynot_lite.couplings.sliced import (
    c_transform,
    directions,
    geodesic_cost,
    potentials_1d,
    soft_c_transform,
    sphere_points,
    squared_cost,
    stereographic,
    w2_squared_1d,
    w2_squared_sliced,
)
from dynot_lite.datasets.files import cities

F64 = torch.float64


def rand(*shape, gen):
    return torch.randn(*shape, generator=gen, dtype=F64)


def instance(seed):
    """Unequal sizes, tied positions, tied levels and zero weights, in turn."""
    gen = torch.Generator().manual_seed(seed)
    n, m = torch.randint(1, 40, (2,), generator=gen).tolist()
    if seed % 5 == 0:
        m = n
    x, y = rand(n, gen=gen), 2 * rand(m, gen=gen) + 1
    if seed % 3 == 0:
        x, y = (3 * x).round() / 3, (3 * y).round() / 3
    if seed % 2:
        return x, y, None, None
    weights = []
    for k in (n, m):
        w = torch.randint(0, 4, (k,), generator=gen).to(F64)
        w[torch.randint(k, (1,), generator=gen)] += 1
        weights.append(w / w.sum())
    return x, y, *weights


def uniform(n):
    return torch.full((n,), 1 / n, dtype=F64)


def gap_and_violation(x, y, a, b):
    """|dual − primal| with the g that f allows, relative to the cost and the potentials; the primal value is POT's."""
    a, b = (uniform(len(z)) if w is None else w for z, w in ((x, a), (y, b)))
    cost = 0.5 * (x[:, None] - y) ** 2
    f = potentials_1d(x, y, weights0=a, weights1=b)
    g = (cost - f[:, None]).min(0).values  # feasible by definition: the value tells whether f is optimal
    primal = ot.emd2(a.numpy(), b.numpy(), cost.numpy())
    line = 0.5 * ot.emd2_1d(x.numpy(), y.numpy(), a.numpy(), b.numpy())
    assert abs(line - primal) <= 1e-12 * max(primal, 1e-2)
    return abs(float(a @ f + b @ g) - primal) / max(primal, 1e-2), float((f[:, None] + g - cost).max())


def test_primal_is_dual_and_the_pair_is_feasible():
    found = np.array([gap_and_violation(*instance(seed)) for seed in range(1000)])
    assert found[:, 0].max() < 1e-12
    assert found[:, 1].max() < 1e-13


def test_autodiff_potentials_are_infeasible_where_levels_tie():
    gen = torch.Generator().manual_seed(0)
    x, y = rand(50, 8, gen=gen), rand(50, 8, gen=gen) + 1
    f, g, value = ot.lp.emd_1d_dual_backprop(x, y, p=2)
    excess = (f[:, None] + g[None] - (x[:, None] - y[None]) ** 2).amax((0, 1))
    assert torch.allclose(f.mean(0) + g.mean(0), value)  # the value is right ...
    assert (excess > 0.1 * value).all()  # ... the potentials are not
    ours = potentials_1d(x, y)
    ours_g = torch.stack([c_transform(0.5 * (u[:, None] - v) ** 2, h) for u, v, h in zip(x.T, y.T, ours.T, strict=True)], 1)
    assert torch.allclose(2 * (ours.mean(0) + ours_g.mean(0)), value, rtol=1e-12)


def test_without_ties_the_potentials_are_those_of_autodiff():
    gen = torch.Generator().manual_seed(1)
    x, y = rand(17, 5, gen=gen), rand(23, 5, gen=gen)
    a, b = (torch.rand(k, generator=gen, dtype=F64) + 0.1 for k in (17, 23))
    a, b = a / a.sum(), b / b.sum()
    theirs = ot.lp.emd_1d_dual_backprop(x, y, a, b, p=2)[0]
    assert torch.allclose(2 * potentials_1d(x, y, weights0=a, weights1=b), theirs - a @ theirs, atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_equivariance(seed):
    x, y, a, b = instance(seed)
    gen = torch.Generator().manual_seed(seed)
    f = potentials_1d(x, y, weights0=a, weights1=b)
    p, q = (torch.randperm(len(z), generator=gen) for z in (x, y))
    weights = {name: w if w is None else w[i] for name, w, i in (("weights0", a, p), ("weights1", b, q))}
    moved = potentials_1d(x[p], y[q], **weights)
    assert torch.allclose(moved, f[p], atol=1e-12)
    assert torch.allclose(potentials_1d(x + 2.5, y + 2.5, weights0=a, weights1=b), f, atol=1e-12)
    assert torch.allclose(potentials_1d(-x, -y, weights0=a, weights1=b), f, atol=1e-12)
    assert torch.allclose(potentials_1d(3 * x, 3 * y, weights0=a, weights1=b), 9 * f, atol=1e-11)
    # A translation of y by v adds −vx, up to a constant.
    shifted = potentials_1d(x, y + 0.7, weights0=a, weights1=b) - f + 0.7 * x
    assert torch.allclose(shifted, shifted[:1].expand_as(shifted), atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_atoms_without_mass_and_split_atoms_change_nothing(seed):
    x, y, a, b = instance(2 * seed)
    f = potentials_1d(x, y, weights0=a, weights1=b)
    extra = torch.tensor([-9.0, 0.1, 9.0], dtype=F64)
    more = potentials_1d(x, torch.cat([y, extra]), weights0=a, weights1=torch.cat([b, torch.zeros(3, dtype=F64)]))
    assert torch.allclose(more, f, atol=1e-12)
    more = potentials_1d(torch.cat([x, extra]), y, weights0=torch.cat([a, torch.zeros(3, dtype=F64)]), weights1=b)
    assert torch.allclose(more[:-3][a > 0], f[a > 0], atol=1e-12)
    halves = {"weights0": torch.cat([0.25 * a, 0.75 * a]), "weights1": torch.cat([0.5 * b, 0.5 * b])}
    split = potentials_1d(torch.cat([x, x]), torch.cat([y, y]), **halves)
    assert torch.allclose(split[: len(x)][a > 0], split[len(x) :][a > 0], atol=1e-12)
    cost = 0.5 * (x[:, None] - y) ** 2
    assert (
        abs(float(a @ split[: len(x)] + b @ c_transform(cost, split[: len(x)])) - float(a @ f + b @ c_transform(cost, f))) < 1e-12
    )


def test_columns_are_separate_problems():
    x, y, a, b = instance(4)
    scale = torch.tensor([1.0, -2.0, 0.3], dtype=F64)
    together = potentials_1d(x[:, None] * scale, y[:, None] * scale + scale, weights0=a, weights1=b)
    alone = torch.stack([potentials_1d(x * s, y * s + s, weights0=a, weights1=b) for s in scale], 1)
    assert together.shape == (len(x), 3)
    assert torch.allclose(together, alone, atol=1e-13)


@pytest.mark.parametrize("n, m", [(50, 50), (7, 13), (1, 9), (9, 1), (60, 20)])
def test_uniform_weights_given_or_left_out(n, m):
    gen = torch.Generator().manual_seed(n)
    x, y = rand(n, 3, gen=gen), rand(m, 3, gen=gen)
    assert torch.allclose(potentials_1d(x, y), potentials_1d(x, y, weights0=uniform(n), weights1=uniform(m)), atol=1e-13)
    single = potentials_1d(x.float(), y.float())
    assert single.dtype == torch.float32 and torch.allclose(single.double(), potentials_1d(x, y), atol=1e-4)


def test_c_transforms_against_their_definitions():
    gen = torch.Generator().manual_seed(2)
    cost, f = torch.rand(6, 9, generator=gen, dtype=F64), rand(6, gen=gen)
    a = torch.tensor([0.3, 0.0, 0.2, 0.1, 0.4, 0.0], dtype=F64)
    hard = [min(float(cost[i, j] - f[i]) for i in range(6)) for j in range(9)]
    assert np.allclose(c_transform(cost, f), hard)
    soft = [-0.1 * np.log(sum(float(a[i]) * np.exp(float(f[i] - cost[i, j]) / 0.1) for i in range(6))) for j in range(9)]
    assert np.allclose(soft_c_transform(cost, f, 0.1, weights=a), soft)
    # Twice the transform gives back a c-concave function, and no more.
    once = c_transform(cost, f)
    assert torch.allclose(c_transform(cost, c_transform(cost.T, once)), once)


@pytest.mark.parametrize("seed", range(8))
def test_w2_on_the_line_against_pot(seed):
    x, y, a, b = instance(seed)
    pot = ot.emd2_1d(x.numpy(), y.numpy(), *(None if w is None else w.numpy() for w in (a, b)))
    assert float(w2_squared_1d(x, y, weights0=a, weights1=b)) == pytest.approx(pot, rel=1e-12)
    both = w2_squared_1d(*(torch.stack([z, 2 * z], 1) for z in (x, y)), weights0=a, weights1=b)
    assert both.tolist() == pytest.approx([pot, 4 * pot])


def test_sliced_distance_against_pot_and_for_translations():
    gen = torch.Generator().manual_seed(3)
    x, y = rand(20, 3, gen=gen), rand(31, 3, gen=gen)
    theta = directions(3, 40, generator=gen)
    pot = ot.sliced_wasserstein_distance(x, y, projections=theta.T) ** 2
    assert float(w2_squared_sliced(x, y, theta)) == pytest.approx(float(pot))
    shift = torch.tensor([1.0, 2.0, -1.0], dtype=F64)
    expected = (theta @ shift).square().mean()
    assert float(w2_squared_sliced(x, x + shift, theta)) == pytest.approx(float(expected))


def test_directions():
    theta = directions(2, 8, generator=torch.Generator().manual_seed(0))
    # Equal angles on a half circle: Σ θθᵀ = (L/2) I exactly, which normalised Gaussians have in the mean only.
    assert torch.allclose(theta.T @ theta, 4 * torch.eye(2, dtype=F64), atol=1e-14)
    other = directions(2, 8, generator=torch.Generator().manual_seed(1))
    assert not torch.allclose(theta, other)
    for d in (1, 3, 7):
        theta = directions(d, 2000, generator=torch.Generator().manual_seed(0))
        assert torch.allclose(theta.norm(dim=1), torch.ones(2000, dtype=F64))
        assert (theta.T @ theta / 2000 - torch.eye(d) / d).abs().max() < 0.03


def test_the_sphere():
    x = sphere_points([0.0, 0.0, 90.0, 48.0, -90.0], [0.0, 90.0, 17.0, 11.0, 0.0])
    assert torch.allclose(x[:3], torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=F64), atol=1e-15)
    cost = geodesic_cost(x, x)
    assert cost[0, 1].item() == pytest.approx(np.pi**2 / 8)
    assert cost[2, 4].item() == pytest.approx(np.pi**2 / 2, rel=1e-6)
    assert cost[2, 3].item() == pytest.approx(np.radians(42) ** 2 / 2)
    near = sphere_points([0.0, 1e-7], [0.0, 0.0])  # arccos of the scalar product would see no distance
    assert geodesic_cost(near, near)[0, 1].item() == pytest.approx(0.5 * np.radians(1e-7) ** 2, rel=1e-6)
    flat = stereographic(x[[0, 1, 3]])
    # The inverse of the projection, (4u, 4v, r² − 4)/(r² + 4), is its oracle.
    r2 = flat.square().sum(1, keepdim=True)
    assert torch.allclose(torch.cat([4 * flat, r2 - 4], 1) / (r2 + 4), x[[0, 1, 3]])
    assert stereographic(x[2:3]).isfinite().all()


def test_cities():
    latitude, longitude, population = cities()
    assert latitude.shape == longitude.shape == population.shape == (33961,)
    assert latitude.abs().max() <= 90 and longitude.abs().max() <= 180 and population.min() >= 15000
    assert 3.9e9 < population.sum() < 4e9
    # Tokyo stands where it is: 35.69 N, 139.69 E.
    near = (latitude - 35.69).hypot(longitude - 139.69) < 0.02
    assert population[near].max() > 5e6


COST = torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 5.0]], dtype=F64)


@pytest.mark.parametrize(
    "call, name",
    [
        (lambda: potentials_1d([], [1.0]), "x0"),
        (lambda: potentials_1d([1.0], torch.zeros(0, 1)), "x1"),
        (lambda: potentials_1d([1.0, float("nan")], [1.0]), "x0"),
        (lambda: potentials_1d([1.0], [float("inf")]), "x1"),
        (lambda: potentials_1d([1e300, -1e300], [1.0]), "finite squared"),
        (lambda: w2_squared_1d([1e300, -1e300], [1.0]), "finite squared"),
        (lambda: w2_squared_sliced([[1e200, 0.0]], [[0.0, 0.0]], [[1.0, 0.0]]), "finite squared"),
        (lambda: potentials_1d(torch.zeros(3, 2), torch.zeros(3, 1)), "columns"),
        (lambda: potentials_1d(torch.zeros(3, 2, 2), torch.zeros(3, 2, 2)), "x0"),
        (lambda: potentials_1d([1.0, 2.0], [1.0], weights0=[0.5, 0.6]), "weights0 must sum"),
        (lambda: potentials_1d([1.0, 2.0], [1.0], weights0=[1.5, -0.5]), "weights0 must be non-negative"),
        (lambda: potentials_1d([1.0], [1.0, 2.0], weights1=[0.0, 0.0]), "weights1 must sum"),
        (lambda: directions(3, 0), "count"),
        (lambda: directions(0, 3), "dim"),
        (lambda: w2_squared_sliced(torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(4, 3)), "directions must have dimension"),
        (lambda: w2_squared_sliced(torch.zeros(3, 2), torch.zeros(3, 3), torch.zeros(4, 2)), "x1 must have dimension"),
        (lambda: squared_cost(torch.zeros(3, 2), torch.zeros(3, 3)), "x1"),
        (lambda: c_transform(COST, torch.zeros(1)), "cost and potential"),  # it would broadcast
        (lambda: c_transform(COST, torch.zeros(3)), "cost and potential"),
        (lambda: c_transform(COST, torch.tensor([0.0, float("nan")])), "potential must be finite"),
        (lambda: c_transform(COST[0], torch.zeros(3)), "cost and potential"),
        (lambda: soft_c_transform(COST, torch.zeros(2), 0.5, weights=[1.0, 1.0]), "weights must sum"),
        (lambda: soft_c_transform(COST, torch.zeros(2), 0.5, weights=[1.0]), "weights must have shape"),
        (lambda: soft_c_transform(COST, torch.zeros(2), -0.5), "epsilon"),
        (lambda: soft_c_transform(COST, torch.zeros(1), 0.5), "cost and potential"),
        (lambda: stereographic(torch.ones(2, 3), pole=0.0), "pole"),
        (lambda: geodesic_cost(torch.ones(2, 3), torch.ones(2, 3)), "unit sphere"),
        (lambda: sphere_points([91.0], [0.0]), "latitude"),
        (lambda: sphere_points([10.0], [0.0, 1.0]), "latitude"),
    ],
)
def test_bad_input(call, name):
    with pytest.raises(ValueError, match=name):
        call()


@pytest.mark.parametrize("which", ["x0", "x1"])
def test_potentials_refuse_points_whose_gradient_they_would_cut(which):
    x0, x1 = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    points = {"x0": x0, "x1": x1}
    points[which] = points[which].requires_grad_()
    with pytest.raises(ValueError, match=f"{which} must not require a gradient"):
        potentials_1d(**points)
