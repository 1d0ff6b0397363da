import math

import numpy as np
import ot
import pytest
import torch
from clouds import F64, cloud, fitted, unequal, with_potentials
from instances import generator
from scipy.stats import norm

from dynot_lite._base import checkpoints, progress
from dynot_lite.couplings import search, semidiscrete
from dynot_lite.couplings.certificate import pooled_chi2
from dynot_lite.couplings.conditional import JointCoupling
from dynot_lite.couplings.exact_flow import ExactFlow
from dynot_lite.couplings.prepared import prepare
from dynot_lite.couplings.semidiscrete import SemidiscreteCoupling


def exact_1d(y, b):
    """Potentials for ½(x − y)² with ⟨b, g⟩ = 0 and the optimal cost, for sorted y and normal noise: cells end at quantiles."""
    cuts = norm.ppf(np.cumsum(b)[:-1])
    g = np.concatenate([[0.0], np.cumsum(-cuts * np.diff(y))]) + 0.5 * y**2
    ends = norm.pdf(np.concatenate([[-np.inf], cuts, [np.inf]]))
    cost = 0.5 + 0.5 * (b * y**2).sum() - (y * (ends[:-1] - ends[1:])).sum()
    return g - (b * g).sum(), cost


# Exact potentials.


@pytest.mark.parametrize("weights", ([0.25] * 4, [0.1, 0.4, 0.2, 0.3]))
def test_line(weights):
    y, b = np.array([-1.0, 0.2, 0.5, 3.0]), np.array(weights)
    coupling, fit = fitted(torch.tensor(y)[:, None], torch.tensor(b), tol=2e-4)
    g, cost = exact_1d(y, b)
    samples = fit.iterations * len(y)
    # Five deviations (F(1−F)/n)^½/φ(q) of a sampled quantile: the ascent is not quite as good as the optimum of the sample.
    cuts, mass = norm.ppf(np.cumsum(b)[:-1]), np.cumsum(b)[:-1]
    bar = 5 * np.sqrt(mass * (1 - mass) / samples) / norm.pdf(cuts) * np.diff(y)
    assert (np.abs(np.diff(coupling.potentials.numpy() - g)) < bar).all()
    assert abs(b @ coupling.potentials.numpy()) < 1e-12
    assert abs(fit.dual_value - cost) < 4 * fit.dual_std + 1e-3
    assert abs(fit.primal_cost - cost) < 4 * fit.dual_std + 2e-2


def test_two_atoms_in_high_dimension():
    """The cell of y1 is a half-space: g1 − g2 = ½(|y1|² − |y2|²) + |y2 − y1| q with Φ(q) = b1, and E⟨x, y⟩ = |y2 − y1| φ(q)."""
    y = torch.stack([torch.full((30,), 0.4), torch.linspace(-1, 1, 30)]).to(F64)
    b1 = 0.3
    coupling, fit = fitted(y, [b1, 1 - b1], tol=2e-4)
    length, q = (y[1] - y[0]).norm().item(), norm.ppf(b1)
    g = coupling.potentials
    expected = 0.5 * (y[0].square().sum() - y[1].square().sum()).item() + length * q
    bar = 5 * length * math.sqrt(b1 * (1 - b1) / (2 * fit.iterations)) / norm.pdf(q)
    assert abs((g[0] - g[1]).item() - expected) < bar
    cost = 15 + 0.5 * (b1 * y[0].square().sum() + (1 - b1) * y[1].square().sum()).item() - length * norm.pdf(q)
    assert abs(fit.dual_value - cost) < 4 * fit.dual_std + 1e-3


def test_product_grid():
    """On a product of weighted grids the potentials are sums of the one-dimensional ones."""
    axes = [
        (np.array([-1.5, 0.0, 0.4, 1.1, 2.0]), np.array([0.1, 0.3, 0.2, 0.25, 0.15])),
        (np.array([-1.0, 0.3, 1.2]), np.array([0.5, 0.2, 0.3])),
    ]
    (g0, cost0), (g1, cost1) = (exact_1d(*axis) for axis in axes)
    points = torch.tensor(np.stack(np.meshgrid(axes[0][0], axes[1][0], indexing="ij"), -1).reshape(-1, 2))
    weights = torch.tensor(np.outer(axes[0][1], axes[1][1]).ravel())
    coupling, fit = fitted(points, weights, tol=3e-3)
    exact = torch.tensor((g0[:, None] + g1[None]).ravel())
    assert (coupling.potentials - exact).abs().max() < 0.1
    assert abs(fit.dual_value - cost0 - cost1) < 4 * fit.dual_std + 2e-3
    # With the exact potentials the masses are exact: the estimate is zero up to its deviation.
    estimate = with_potentials(coupling, exact).chi2(50_000, generator=generator(1))
    assert abs(estimate.value) < 4 * estimate.std
    # The wrong conversion between the costs (no ½, or none at all) is far off.
    for factor in (1.0, -0.5):
        assert with_potentials(coupling, exact + factor * points.square().sum(1)).chi2(2000, generator=generator(1)).value > 0.5


@pytest.mark.parametrize("epsilon", (0.0, 0.4))
def test_gradient_of_the_semidual_is_weights_minus_masses(epsilon):
    """Finite differences of the mean c-transform of fixed noise, against the shares of a search in float64."""
    points, b = cloud(6, 2).to(F64), unequal(6)
    coupling, _ = fitted(points, b, epsilon=epsilon, tol=0.05)
    g = coupling.potentials
    direction = torch.randn(6, generator=generator(2), dtype=F64)
    x = torch.randn(40_000, 2, generator=generator(3))
    size = 0.02
    # c_transform is in the gauge ⟨b, g⟩ = 0, where its mean is the value of the semi-dual.
    up, down = (with_potentials(coupling, g + sign * size * direction).c_transform(x).mean() for sign in (1, -1))
    cost = 0.5 * torch.cdist(x.to(F64), points).square()
    shares = (
        torch.softmax((g - cost) / epsilon + b.log(), 1)
        if epsilon
        else torch.nn.functional.one_hot((g - cost).argmax(1), 6).to(F64)
    )
    assert abs((up - down) / (2 * size) - (b - shares.mean(0)) @ direction) < 5e-3


def test_semidual_bounds_the_cost_of_a_sample():
    """Weak duality against the exact plan of POT on a sample: never above, and close once χ² is small."""
    points, b = cloud(40, 3).to(F64), unequal(40)
    coupling, _ = fitted(points, b, tol=5e-3)
    x = torch.randn(1500, 3, generator=generator(5))
    cost = 0.5 * torch.cdist(x.to(F64), points).square().numpy()
    exact = ot.emd2(np.full(1500, 1 / 1500), b.numpy(), cost)
    value = coupling.c_transform(x).mean().item()
    assert exact * 0.985 < value <= exact + 1e-5
    # A potential of the opposite sign, or one for twice the cost, loses much more.
    assert with_potentials(coupling, -coupling.potentials).c_transform(x).mean() < 0.9 * exact
    assert with_potentials(coupling, 2 * coupling.potentials).c_transform(x).mean() < 0.985 * exact


def test_entropic_potentials_are_those_of_sinkhorn():
    points, b, epsilon = cloud(20, 2).to(F64), unequal(20, low=0.1), 0.5
    coupling, fit = fitted(points, b, epsilon=epsilon, tol=1e-3)
    x = torch.randn(4000, 2, generator=generator(1), dtype=F64)
    cost = 0.5 * torch.cdist(x, points).square().numpy()
    a = np.full(4000, 1 / 4000)
    plan, log = ot.sinkhorn(a, b.numpy(), cost, epsilon, log=True, stopThr=1e-9, method="sinkhorn_log")
    g = epsilon * (log["log_v"] - np.log(b.numpy()))
    g -= (b.numpy() * g).sum()
    assert np.abs(coupling.potentials.numpy() - g).max() < 0.15  # both have a sampling error; without the weights b it is 0.7
    kl = (plan * np.log(plan / np.outer(a, b.numpy()) + 1e-300)).sum()
    assert abs((plan * cost).sum() + epsilon * kl - fit.dual_value) < 4 * (fit.dual_std + 0.02)
    assert abs((plan * cost).sum() - fit.primal_cost) < 4 * (fit.dual_std + 0.02)
    # Sampling: the empirical shares of one noise against the b-weighted softmax.
    point = x[:1]
    shares = torch.softmax((coupling.potentials - 0.5 * torch.cdist(point, points).square()[0]) / epsilon + b.log(), 0)
    drawn = torch.bincount(coupling.assign(point.expand(40_000, 2), generator=generator(4)), minlength=20)
    assert (drawn / 40_000 - shares).abs().max() < 0.012


def test_small_epsilon_is_the_exact_coupling():
    points = cloud(60, 4)
    hard, fit = fitted(points, tol=0.02)
    soft, fit_soft = fitted(points, tol=0.02, epsilon=1e-4)
    assert abs(fit.dual_value - fit_soft.dual_value) < 5 * fit.dual_std + 0.01
    twin = with_potentials(soft, hard.potentials)
    x = torch.randn(3000, 4, generator=generator(2))
    assert (twin.assign(x, generator=generator()) == hard.assign(x)).double().mean() > 0.999


# Blocks, copies, weights, shifts, seeds.


@pytest.mark.parametrize("epsilon", (0.0, 0.3))
def test_blocks_change_nothing(epsilon, monkeypatch):
    points, b = cloud(37, 3), unequal(37)
    coupling, _ = fitted(points, b, epsilon=epsilon)
    x = torch.randn(101, 3, generator=generator(1))
    values, masses = coupling.c_transform(x), coupling.chi2(5000, generator=generator(2))
    best = coupling.scores().best(x)[1]
    monkeypatch.setattr(search, "ROWS", 13)
    monkeypatch.setattr(search, "COLUMNS", 5)
    monkeypatch.setattr(search, "SOFT", 64)
    torch.testing.assert_close(coupling.c_transform(x), values, rtol=1e-6, atol=1e-6)
    assert torch.equal(coupling.scores().best(x)[1], best)
    assert coupling.chi2(5000, generator=generator(2)).value == pytest.approx(masses.value, abs=1e-4)
    if epsilon:
        shares = torch.softmax(
            (coupling.potentials - 0.5 * torch.cdist(x[:1].to(F64), points.to(F64)).square()[0]) / epsilon + b.log(), 0
        )
        drawn = torch.bincount(coupling.assign(x[:1].expand(10_000, 3), generator=generator(4)), minlength=37)
        assert (drawn / 10_000 - shares).abs().max() < 0.024


def test_assignment_is_the_exact_search():
    """Against a search in float64; the score given away by float32 is of the order of its rounding."""
    points = cloud(3000, 20).to(F64) + 100  # uncentred data would lose two more digits
    coupling, _ = fitted(points, tol=0.5)
    x = torch.randn(500, 20, generator=generator(1))
    score = coupling.potentials - 0.5 * torch.cdist(x.to(F64), points, compute_mode="donot_use_mm_for_euclid_dist").square()
    chosen = score.gather(1, coupling.assign(x)[:, None])[:, 0]
    assert (score.amax(1) - chosen).max() < 1e-4
    torch.testing.assert_close(coupling.c_transform(x), -score.amax(1), rtol=0, atol=1e-3)


def test_copies_share_their_mass_and_zero_weights_are_dropped():
    base = cloud(30, 3)
    points = torch.cat([base, base[:5], base[:5], torch.full((2, 3), 9.0)])
    weights = torch.cat([unequal(40), torch.zeros(2, dtype=F64)])
    coupling, fit = fitted(points, weights, tol=0.01)
    g = coupling.potentials
    assert torch.equal(g[:5], g[30:35]) and torch.equal(g[:5], g[35:40]) and (g[40:] == -torch.inf).all()
    _, index = coupling.pair_index(200_000, generator=generator(1))
    counts = torch.bincount(index, minlength=42)
    assert (counts[40:] == 0).all()
    estimate = pooled_chi2(counts[:40], weights[:40])
    assert estimate.value < 0.01 + 4 * estimate.std
    assert fit.empty_cells == 0


def test_unequal_weights_over_two_decades():
    b = torch.logspace(-2, 0, 50, dtype=F64)
    b = b / b.sum()
    coupling, _fit = fitted(cloud(50, 8), b, tol=0.05)
    assert coupling.chi2(100_000, generator=generator(3)).value < 0.05


def test_shift_of_data_and_noise():
    """Neither a shift of the data nor one of the noise changes the pairing, and float32 does not feel them."""
    points = cloud(50, 4)
    reference, fit = fitted(points, tol=0.05)
    moved = SemidiscreteCoupling(points.to(F64) + 1000)
    noise = lambda n, *, generator=None: torch.randn(n, 4, generator=generator).to(F64) - 500
    fit_moved = moved.fit(noise, generator=generator(0)).require()
    x = torch.randn(2000, 4, generator=generator(1))
    assert (reference.assign(x) == moved.assign(x.to(F64) - 500)).double().mean() > 0.8  # up to the sampling error
    score = moved.potentials - 0.5 * (x.to(F64)[:, None] - 500 - moved.points).square().sum(2)
    assert (score.argmax(1) == moved.assign(x.to(F64) - 500)).double().mean() > 0.999
    x0, x1 = moved.pair(1000, generator=generator(2))
    assert x0.dtype == F64 and x0.mean() < -499 and x1.mean() > 990
    # ½|x − y|² changes by ½|shift|² + <shift, mean difference>
    shift = 1500.0
    expected = fit.dual_value + 0.5 * 4 * shift**2 + shift * points.to(F64).mean(0).sum().item()
    assert fit_moved.dual_value == pytest.approx(expected, rel=1e-4)


def test_noise_of_another_law():
    """Uniform noise on the line: cells end at its quantiles."""
    y, b = torch.tensor([[0.1], [0.4], [2.0]], dtype=F64), [0.5, 0.3, 0.2]
    uniform = lambda n, *, generator=None: torch.rand(n, 1, generator=generator)
    coupling = SemidiscreteCoupling(y, weights=b)
    coupling.fit(uniform, tol=1e-3, generator=generator()).require()
    g = coupling.potentials - 0.5 * y[:, 0] ** 2
    assert -(g[1] - g[0]) / 0.3 == pytest.approx(0.5, abs=0.03) and -(g[2] - g[1]) / 1.6 == pytest.approx(0.8, abs=0.03)
    x0, _x1 = coupling.pair(1000, generator=generator(1))
    assert x0.min() >= 0 and x0.max() <= 1
    assert coupling.chi2(50_000, generator=generator(2)).value < 2e-3
    with pytest.raises(ValueError, match="noise must be the law"):
        coupling.fit("normal", generator=generator())


@pytest.mark.parametrize(("dtype", "kept"), ((torch.float64, torch.float64), (torch.bfloat16, torch.float32)))
def test_degenerate_clouds(dtype, kept):
    """Fewer points than dimensions, a dimension without spread: nothing is singular; pairs keep all but half precision."""
    points = torch.cat([5 * torch.randn(6, 40, generator=generator()), torch.full((6, 1), 300.0)], 1).to(dtype)
    coupling, fit = fitted(points, tol=0.05)
    x0, x1 = coupling.pair(20, generator=generator(1))
    assert x0.dtype == x1.dtype == kept and fit.chi2_upper <= 0.05


def test_seeds():
    points = cloud(50, 3)
    first, second, third = (fitted(points, seed=seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first.potentials, second.potentials) and not torch.equal(first.potentials, third.potentials)
    assert all(
        torch.equal(*both)
        for both in zip(first.pair(20, generator=generator(5)), second.pair(20, generator=generator(5)), strict=True)
    )
    x0, x1 = first.pair(300, generator=generator(6))
    assert torch.equal(first.points[first.assign(x0)], x1)


# Saving and resuming.


@pytest.mark.parametrize("epsilon", (0.0, 0.2))
def test_resuming_from_a_file_is_going_on(epsilon, tmp_path):
    base = cloud(40, 3)
    points, b = torch.cat([base, base[:3]]), torch.cat([unequal(42), torch.zeros(1, dtype=F64)])
    coupling = SemidiscreteCoupling(points, weights=b, epsilon=epsilon)
    assert coupling.fit(max_iterations=5, generator=generator(0)) is coupling.result
    checkpoints.save(coupling.state_dict(), tmp_path / "state.pt")
    other = SemidiscreteCoupling(points, weights=b, epsilon=epsilon)
    other.fit(max_iterations=1, generator=generator(7))
    other.load_state_dict(checkpoints.read(tmp_path / "state.pt"))
    assert other.result is None and torch.equal(other.potentials, coupling.potentials) and other.iterations == coupling.iterations
    results = [c.fit(tol=0.03, generator=generator(1)) for c in (coupling, other)]
    assert results[0] == results[1] == other.result and results[0].iterations > 5 and results[0].history[0][0] <= 6
    assert torch.equal(other.potentials, coupling.potentials)


def test_states_that_do_not_fit_are_refused():
    points = cloud(20, 2)
    coupling, _ = fitted(points, epsilon=0.1)
    state = coupling.state_dict()
    for other, message in (
        (SemidiscreteCoupling(points, epsilon=0.2), "epsilon"),
        (SemidiscreteCoupling(points), "epsilon"),
        (SemidiscreteCoupling(points + 1, epsilon=0.1), "other points"),
        (SemidiscreteCoupling(points, weights=unequal(20), epsilon=0.1), "other points"),
    ):
        with pytest.raises(ValueError, match=message):
            other.load_state_dict(state)
    same = SemidiscreteCoupling(points, epsilon=0.1)
    with pytest.raises(ValueError, match="law of the fit"):
        same.load_state_dict(state, noise=lambda n, *, generator=None: torch.zeros(n, 2))
    with pytest.raises(ValueError, match="state_dict"):
        same.load_state_dict({"average": torch.zeros(20)})
    with pytest.raises(AttributeError):
        same.epsilon = 0.2


# The course of a fit.


def test_noise_is_checked_on_every_call():
    """A sampler that changes its mind would broadcast, or poison the potentials."""
    for late in (lambda n: torch.zeros(n, 1), lambda n: torch.full((n, 2), torch.nan)):
        calls = []

        def noise(n, *, generator=None, late=late, calls=calls):
            calls.append(n)
            return torch.randn(n, 2, generator=generator) if len(calls) < 20 else late(n)

        with pytest.raises(ValueError, match="noise"):
            SemidiscreteCoupling(cloud(100, 2)).fit(noise, generator=generator())
        assert len(calls) == 20


def test_noise_does_not_depend_on_the_default_dtype():
    coupling, _ = fitted(cloud(20, 2))
    expected = coupling.pair(10, generator=generator(1))
    torch.set_default_dtype(torch.float64)
    try:
        found = coupling.pair(10, generator=generator(1))
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(*both) for both in zip(found, expected, strict=True))


def test_callback_and_progress(monkeypatch):
    """Once for every full iteration; the bar counts all noises, those of an earlier call included."""
    seen, bars = [], []

    def recording(*arguments, **options):
        bars.append(progress.bar(*arguments, **options))
        return bars[-1]

    monkeypatch.setattr(semidiscrete, "bar", recording)
    coupling = SemidiscreteCoupling(cloud(100, 2))
    for limit in (4, 7):
        fit = coupling.fit(
            tol=1e-3,
            max_iterations=limit,
            callback=lambda c: seen.append(c.iterations),
            generator=generator(limit),
            progress=True,
        )
        assert fit.iterations == limit and bars[-1].n == bars[-1].total == 100 * limit
    assert [int(value) for value in seen] == [1, 2, 3, 4, 5, 6, 7]


# Bad input.


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    (
        ((torch.zeros(0, 2),), {}, "points"),
        ((torch.zeros(1, 2),), {}, "points"),
        ((torch.zeros(5, 2),), {}, "distinct"),
        ((torch.zeros(5),), {}, "points"),
        ((torch.zeros(2, 5, 2),), {}, "distinct"),
        ((torch.tensor([[0.0], [torch.nan]]),), {}, "points"),
        ((torch.tensor([[0.0], [torch.inf]]),), {}, "points"),
        ((torch.eye(3),), {"weights": [0.5, 0.6, -0.1]}, "weights"),
        ((torch.eye(3),), {"weights": [0.5, 0.6, 0.1]}, "weights"),
        ((torch.eye(3),), {"weights": [0.5, 0.5]}, "weights"),
        ((torch.eye(3),), {"weights": [1.0, 0.0, 0.0]}, "distinct"),
        ((torch.eye(3),), {"weights": [torch.nan, 0.5, 0.5]}, "weights"),
        ((torch.eye(3),), {"epsilon": -0.1}, "epsilon"),
        ((torch.eye(3),), {"epsilon": math.nan}, "epsilon"),
        ((torch.eye(3),), {"epsilon": "big"}, "epsilon"),
        ((torch.eye(3),), {"epsilon": [0.1, 0.2]}, "epsilon"),
    ),
)
def test_bad_construction(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        SemidiscreteCoupling(*arguments, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"noise": "uniform"}, "noise"),
        ({"noise": lambda n, *, generator=None: torch.randn(n, 3)}, "noise"),
        ({"noise": lambda n, *, generator=None: torch.randn(n + 1, 2)}, "noise"),
        ({"noise": lambda n, *, generator=None: torch.full((n, 2), torch.nan)}, "noise"),
        ({"noise": lambda n, *, generator=None: torch.zeros(n, 2)}, "noise"),
        ({"tol": 0.0}, "tol"),
        ({"tol": math.nan}, "tol"),
        ({"max_iterations": 0}, "max_iterations"),
        ({"max_iterations": -3}, "max_iterations"),
    ),
)
def test_bad_fit(options, message):
    coupling = SemidiscreteCoupling(cloud(10, 2))
    with pytest.raises(ValueError, match=message):
        coupling.fit(**options)
    with pytest.raises(RuntimeError, match="call fit"):  # and it is not half fitted
        coupling.pair(3)


def test_use_before_fit_and_bad_arguments():
    coupling = SemidiscreteCoupling(cloud(10, 2))
    for use in (
        lambda: coupling.pair(3),
        lambda: coupling.pair_index(3),
        lambda: coupling.assign(torch.zeros(1, 2)),
        lambda: coupling.chi2(10),
        lambda: coupling.potentials,
        lambda: coupling.c_transform(torch.zeros(1, 2)),
        lambda: prepare(coupling, 10),
        coupling.state_dict,
        lambda: ExactFlow(coupling),
    ):
        with pytest.raises(RuntimeError, match="call fit"):
            use()
    coupling.fit(max_iterations=1, generator=generator())
    for use in (
        lambda: coupling.pair(0),
        lambda: coupling.pair(2.5),
        lambda: coupling.chi2(1),
        lambda: coupling.assign(torch.zeros(1, 3)),
        lambda: coupling.assign(torch.full((1, 2), torch.nan)),
        lambda: JointCoupling(cloud(10, 2), torch.zeros(9, 1), beta=1.0),
        lambda: JointCoupling(cloud(10, 2), torch.zeros(10, 1), beta=-1.0),
    ):
        with pytest.raises(ValueError):
            use()
