import math

import numpy as np
import ot
import pytest
import torch
from instances import generator
from scipy.stats import norm

from dynot_lite._base import checkpoints, progress
from dynot_lite.couplings import search, semidiscrete
from dynot_lite.couplings.certificate import pooled_chi2
from dynot_lite.couplings.conditional import ClassCouplings, JointCoupling
from dynot_lite.couplings.exact_flow import ExactFlow
from dynot_lite.couplings.prepared import PairList, prepare
from dynot_lite.couplings.semidiscrete import SemidiscreteCoupling

F64 = torch.float64


def cloud(n, d, seed=0):
    """Three clusters off the origin, with unequal spread."""
    gen = generator(seed)
    centres = 2 * torch.randn(3, d, generator=gen) + 1
    return centres[torch.randint(3, (n,), generator=gen)] + torch.linspace(0.3, 1, d) * torch.randn(n, d, generator=gen)


def unequal(n, seed=0, low=0.4):
    b = low + torch.rand(n, generator=generator(seed), dtype=F64)
    return b / b.sum()


def fitted(points, weights=None, *, seed=0, epsilon=0.0, **options):
    coupling = SemidiscreteCoupling(points, weights, epsilon=epsilon)
    return coupling, coupling.fit(generator=generator(seed), **options).require()


def exact_1d(y, b):
    """Potentials for ½(x − y)² with ⟨b, g⟩ = 0 and the optimal cost, for sorted y and normal noise: cells end at quantiles."""
    cuts = norm.ppf(np.cumsum(b)[:-1])
    g = np.concatenate([[0.0], np.cumsum(-cuts * np.diff(y))]) + 0.5 * y**2
    ends = norm.pdf(np.concatenate([[-np.inf], cuts, [np.inf]]))
    cost = 0.5 + 0.5 * (b * y**2).sum() - (y * (ends[:-1] - ends[1:])).sum()
    return g - (b * g).sum(), cost


def with_potentials(coupling, g):
    """A coupling that has the potentials g, for ½‖x − y‖²."""
    state = coupling.state_dict()
    other = SemidiscreteCoupling(coupling.points, coupling.weights, epsilon=coupling.epsilon)
    state["average"] = g - 0.5 * coupling.points.to(F64).square().sum(1)
    other.load_state_dict(state)
    return other


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


# The estimate of χ².


@pytest.mark.parametrize("shifted", (False, True))
def test_pooled_estimate_is_unbiased_and_its_deviation_right(shifted):
    n, samples, repeats = 8, 60, 4000
    b = unequal(n, low=0.3)
    m = torch.softmax(b.log() + shifted * torch.linspace(-0.4, 0.4, n, dtype=F64), 0)
    truth = (m**2 / b).sum().item() - 1
    draws = torch.multinomial(m, samples * repeats, replacement=True, generator=generator()).reshape(repeats, samples)
    counts = torch.stack([torch.bincount(row, minlength=n) for row in draws]).to(F64)
    estimates = [pooled_chi2(row, b) for row in counts]
    values = np.array([e.value for e in estimates])
    deviation = values.std()
    assert abs(values.mean() - truth) < 4 * deviation / repeats**0.5
    # On the safe side at m = b, where an estimate of the first-order term, which is zero, adds to the other one.
    assert 0.93 < np.mean([e.std for e in estimates]) / deviation < (1.12 if shifted else 1.25)
    # The plug-in estimate is biased by about (n − 1)/samples; batches of ten, averaged, have a larger deviation.
    plug_in = ((counts / samples) ** 2 / b).sum(1).mean().item() - 1
    assert plug_in - truth > 0.8 * (n - 1) / samples
    small = torch.nn.functional.one_hot(draws.reshape(repeats, 6, 10), n).sum(2).to(F64)
    unpooled = ((small**2 - small) / b).sum((1, 2)) / (6 * 10 * 9) - 1
    assert unpooled.std() > (1.3 if shifted else 1.8) * deviation


def test_shares_have_a_smaller_deviation_than_the_bound():
    """For soft shares the estimate is unbiased, too, and its deviation is below the stated one."""
    coupling, _ = fitted(cloud(10, 2), unequal(10), epsilon=0.3, tol=0.05)
    estimates = [coupling.chi2(300, generator=generator(seed)) for seed in range(200)]
    values = np.array([e.value for e in estimates])
    truth = coupling.chi2(200_000, generator=generator(999))
    assert abs(values.mean() - truth.value) < 4 * values.std() / 200**0.5 + 4 * truth.std
    assert values.std() < 1.1 * np.mean([e.std for e in estimates])


def test_converged_means_below_the_tolerance():
    """Also where an estimate minus its deviation would have stopped too early: checked on fresh noise, many seeds."""
    points, late = cloud(120, 6), 0
    for seed in range(12):
        coupling, fit = fitted(points, seed=seed, tol=0.1)
        assert fit.chi2_upper <= 0.1 and fit.chi2 < fit.chi2_upper
        late += coupling.chi2(40_000, generator=generator(100 + seed)).value > 0.1
    assert late <= 1


def test_chi2_follows_the_law_of_the_number_of_samples():
    """χ² is about N/n after n noises."""
    points, ratios = cloud(200, 16), []
    for seed in range(3):
        coupling = SemidiscreteCoupling(points)
        for iterations in (15, 60):
            coupling.fit(tol=1e-3, max_iterations=iterations, generator=generator(10 * seed + iterations))
            ratios.append(coupling.chi2(100_000, generator=generator(7)).value * coupling.iterations)
    for values in (ratios[::2], ratios[1::2]):
        assert 0.7 < sorted(values)[1] < 2.0


def test_not_converged_is_said():
    coupling = SemidiscreteCoupling(cloud(100, 2))
    fit = coupling.fit(max_iterations=1, generator=generator())
    assert not fit.converged and "max_iterations" in fit.reason and fit.chi2_upper > 0.05
    with pytest.raises(RuntimeError, match="not converged: the upper bound"):
        fit.require()


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
    coupling = SemidiscreteCoupling(y, b)
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
    coupling = SemidiscreteCoupling(points, b, epsilon=epsilon)
    assert coupling.fit(max_iterations=5, generator=generator(0)) is coupling.result
    checkpoints.save(coupling.state_dict(), tmp_path / "state.pt")
    other = SemidiscreteCoupling(points, b, epsilon=epsilon)
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
        (SemidiscreteCoupling(points, unequal(20), epsilon=0.1), "other points"),
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


# The exact flow.


@pytest.mark.parametrize("t", (0.3, 0.7))
@pytest.mark.parametrize("epsilon", (0.3, 2.0))
def test_velocity_and_score_on_the_line(t, epsilon):
    """Against derivatives of the distribution function P(X_t ≤ x), by quadrature over the noise."""
    y, b = torch.tensor([[-1.0], [0.5], [2.0]], dtype=F64), torch.tensor([0.2, 0.5, 0.3], dtype=F64)
    coupling, _ = fitted(y, b, epsilon=epsilon, tol=0.01)
    nodes = torch.linspace(-9, 9, 20_001, dtype=F64)
    shares = torch.softmax((coupling.potentials - 0.5 * (nodes[:, None] - y[:, 0]) ** 2) / epsilon + b.log(), 1)
    density = shares * torch.exp(-0.5 * nodes**2)[:, None] / math.sqrt(2 * math.pi)
    masses = torch.cumsum(density, 0) * (nodes[1] - nodes[0])

    def distribution(t, x):
        total = 0.0
        for j in range(3):
            u = (x - t * y[j].item()) / (1 - t)
            total = total + np.interp(u, (nodes + 0.5 * (nodes[1] - nodes[0])).numpy(), masses[:, j].numpy())
        return total

    x, h = np.linspace(-1.5, 2.0, 8), 0.004
    rho = lambda x: (distribution(t, x + h) - distribution(t, x - h)) / (2 * h)
    velocity = -(distribution(t + 1e-4, x) - distribution(t - 1e-4, x)) / 2e-4 / rho(x)
    score = (np.log(rho(x + h)) - np.log(rho(x - h))) / (2 * h)
    points = torch.tensor(x)[:, None]
    flow = ExactFlow(coupling)
    v, ours = flow.velocity(t, points)[:, 0].numpy(), flow.score(t, points)[:, 0].numpy()
    np.testing.assert_allclose(v, velocity, atol=0.02, rtol=0.02)
    np.testing.assert_allclose(ours, score, atol=0.05, rtol=0.02)
    # The quoted form (t v − x + (1−t)δ)/(1−t)² is another function.
    delta = (1 - t) * ours - t * v + x
    quoted = (t * v - x + (1 - t) * delta) / (1 - t) ** 2
    assert np.abs(quoted - score).max() > 10 * np.abs(ours - score).max()


def test_score_in_the_plane_is_a_gradient():
    """Curl zero and Tweedie's formula as ε → ∞; times per point; copies and points of weight zero change nothing."""
    base, b = cloud(5, 2), unequal(5)
    coupling, _ = fitted(base, b, epsilon=0.5)
    flow = ExactFlow(coupling)
    x, h = torch.randn(6, 2, generator=generator(1), dtype=F64), 1e-5
    step = h * torch.eye(2, dtype=F64)
    jacobian = torch.stack([(flow.score(0.4, x + e) - flow.score(0.4, x - e)) / (2 * h) for e in step], 2)
    torch.testing.assert_close(jacobian, jacobian.mT, rtol=1e-5, atol=1e-6)
    wide = ExactFlow(fitted(base, b, epsilon=1e6)[0])
    times = torch.tensor([0.0, 0.2, 0.4, 0.5, 0.7, 0.9], dtype=F64)
    torch.testing.assert_close(
        wide.score(times, x), (times[:, None] * wide.velocity(times, x) - x) / (1 - times[:, None]), rtol=1e-3, atol=1e-3
    )
    split = torch.cat([b, torch.zeros(1, dtype=F64), 0.25 * b[:1]])
    split[0] *= 0.75
    copies = with_potentials(
        fitted(torch.cat([base, base[:1] + 9, base[:1]]), split, epsilon=0.5)[0], coupling.potentials[[*range(5), 0, 0]]
    )
    torch.testing.assert_close(ExactFlow(copies).score(times, x), flow.score(times, x), rtol=1e-5, atol=1e-5)
    uniform = lambda n, *, generator=None: torch.rand(n, 2, generator=generator)
    other = SemidiscreteCoupling(base, epsilon=0.5)
    other.fit(uniform, max_iterations=1, generator=generator())
    for bad in (lambda: flow.velocity(1.0, x), lambda: ExactFlow(fitted(base)[0]), lambda: ExactFlow(other)):
        with pytest.raises(ValueError, match="t must be less|epsilon > 0 and normal noise"):
            bad()


# Lists, classes, conditions.


@pytest.mark.parametrize("epsilon", (0.0, 0.3))
def test_prepared_pairs_have_exact_counts(epsilon):
    base = cloud(50, 3)
    points = torch.cat([base, base[:4], torch.zeros(1, 3)])
    weights = torch.cat([unequal(54), torch.zeros(1, dtype=F64)])
    coupling, fit = fitted(points, weights, epsilon=epsilon, tol=0.02)
    pairs = prepare(coupling, 3001, generator=generator(1))
    counts = torch.bincount(pairs.index, minlength=55)
    assert (counts - 3001 * weights).abs().max() < 1 and counts.sum() == 3001 == len(pairs)
    x0, x1 = pairs.pair(3001, generator=generator(2))
    assert 0.5 * (x0 - x1).square().sum(1).mean() == pytest.approx(pairs.cost(), rel=1e-6)
    assert torch.unique(x0, dim=0).shape == (3001, 3) and abs(x0.mean()) < 0.05 and abs(x0.std() - 1) < 0.03
    # Most noises stay in their cell, and moving the others costs little.
    assert 0 < pairs.moved < 0.3
    assert pairs.cost() < 1.1 * fit.primal_cost
    if not epsilon:
        stay = coupling.points[coupling.assign(x0)] == x1
        assert 1 - stay.all(1).double().mean() == pytest.approx(pairs.moved, abs=1e-3)
    again = PairList(coupling, **pairs.state_dict())
    assert all(
        torch.equal(*both)
        for both in zip(again.pair(700, generator=generator(3)), pairs.pair(700, generator=generator(3)), strict=True)
    )
    assert len(pairs.pair(5000, generator=generator(4))[0]) == 5000
    with pytest.raises(ValueError, match="n must be at least"):
        prepare(coupling, 54)


def test_prepared_pairs_equal_weights():
    coupling, _ = fitted(cloud(100, 8))
    pairs = prepare(coupling, 700, generator=generator(1))
    assert (torch.bincount(pairs.index) == 7).all()
    # No noise is moved but those that are too many in their cell.
    alone = coupling.assign(torch.cat([x for _, x in pairs.blocks()]))
    assert pairs.moved * 700 == pytest.approx((torch.bincount(alone, minlength=100) - 7).clamp(min=0).sum().item())


def test_classes():
    points, labels = torch.cat([cloud(40, 2), cloud(20, 2, seed=1) + 4]), torch.tensor([7] * 40 + [-2] * 20)
    couplings = ClassCouplings(points, labels)
    fit = couplings.fit(tol=0.05, generator=generator()).require()
    assert set(fit.results) == {7, -2} and fit is couplings.result
    assert all(fit.results[label] is coupling.result for label, coupling in couplings.couplings.items())
    x0, x1, drawn = couplings.pair(6000, generator=generator(1))
    assert abs((drawn == 7).double().mean() - 2 / 3) < 0.03
    for label in (7, -2):
        own = {tuple(row) for row in points[labels == label].tolist()}
        assert {tuple(row) for row in x1[drawn == label].tolist()} <= own
        assert abs(x0[drawn == label].mean()) < 0.1  # all of the noise in every class
        assert torch.equal(
            couplings.couplings[label].points[couplings.couplings[label].assign(x0[drawn == label])], x1[drawn == label]
        )
    # One class that is not solved is enough for the whole not to be.
    easy = ClassCouplings(torch.cat([torch.tensor([[-1.0, 0], [1, 0]]), cloud(40, 2)]), [0] * 2 + [1] * 40)
    partly = easy.fit(tol=0.2, max_iterations=6, generator=generator())
    assert partly.results[0].converged and not partly.results[1].converged and not partly.converged
    with pytest.raises(RuntimeError, match=r"not converged: class 1: the upper bound"):
        partly.require()
    for bad in ((points, labels[:5]), (points, labels.double()), (points, torch.tensor([0] * 59 + [1]))):
        with pytest.raises(ValueError, match="labels|class 1"):
            ClassCouplings(*bad)


def test_joint_cost():
    """A large β makes the conditions of a pair agree, a small one gives the coupling without conditions."""
    points = cloud(150, 2)
    z = points[:, :1] + 0.1 * torch.randn(150, 1, generator=generator(3))
    gaps, costs = [], []
    for beta in (1e-3, 1.0, 1e3):
        coupling = JointCoupling(points, z, beta=beta)
        assert coupling.fit(tol=0.1, generator=generator()).require() is coupling.result
        x0, index = coupling.coupling.pair_index(4000, generator=generator(1))
        gaps.append((x0[:, 2] / beta**0.5 - z[index, 0]).square().mean().item())
        x0, x1, condition = coupling.pair(4000, generator=generator(1))
        assert x0.shape == x1.shape == (4000, 2) and torch.equal(condition, z[index])
        costs.append(0.5 * (x0 - x1).square().sum(1).mean().item())
    assert gaps[0] > 2 * gaps[1] > 20 * gaps[2] and costs[0] < costs[1] < costs[2]
    plain = fitted(points, tol=0.1)[1].primal_cost
    assert costs[0] == pytest.approx(plain, rel=0.05)
    given = JointCoupling(points, z, beta=1.0)
    given.fit(conditions=lambda n, *, generator=None: torch.zeros(n, 1), tol=0.1, max_iterations=2, generator=generator())
    assert (given.coupling.pair(10, generator=generator())[0][:, 2] == 0).all()


# What belongs to the points, and points of any shape.


def test_conditions_go_with_their_points():
    """Any number of them, of any shape, by every kind of pairs; the pairs themselves are those of ``pair``."""
    base = cloud(40, 2)
    points = torch.cat([base, base[:6]])
    labels = torch.arange(46) % 2
    coupling, _ = fitted(points, unequal(46), epsilon=0.2)
    by_class, joint = ClassCouplings(points, labels), JointCoupling(points, 3 * points, beta=0.5)
    for other in (by_class, joint):
        other.fit(tol=0.2, generator=generator())
    number, image = np.arange(46), points[:, :, None] * torch.ones(3)
    for source, own in (
        (coupling, None),
        (prepare(coupling, 300, generator=generator()), None),
        (by_class, labels),
        (joint, 3 * points),
    ):
        x0, x1, *conditions = source.pairs(number, image, labels)(500, generator=generator(1))
        found = conditions[-3]
        assert torch.equal(points[found], x1) and torch.equal(image[found], conditions[-2])
        assert torch.equal(labels[found], conditions[-1]) and len(found.unique()) > 30
        plain = source.pair(500, generator=generator(1))
        assert torch.equal(plain[0], x0) and torch.equal(plain[1], x1) and len(plain) == len(conditions) - 1
        assert own is None or torch.equal(plain[2], own[found])
        for bad in (labels[:-1], torch.tensor(1.0)):
            with pytest.raises(ValueError, match="one row for each of the 46 points"):
                source.pairs(labels, bad)


@pytest.mark.parametrize("epsilon", (0.0, 0.4))
def test_images(epsilon):
    """Images are their flattened points, bit by bit, and come back as images."""
    flat = cloud(60, 12)
    images, z, labels = flat.reshape(60, 3, 2, 2), torch.linspace(0, 1, 60)[:, None, None], torch.arange(60) % 2
    coupling, fit = fitted(images, epsilon=epsilon)
    plain, fit_plain = fitted(flat, epsilon=epsilon)
    assert torch.equal(coupling.potentials, plain.potentials) and fit == fit_plain

    def same(found, expected):
        assert found.shape[1:] == (3, 2, 2) and torch.equal(found.flatten(1), expected)

    for one, two in (
        (coupling, plain),
        (prepare(coupling, 90, generator=generator(2)), prepare(plain, 90, generator=generator(2))),
    ):
        for found, expected in zip(one.pair(70, generator=generator(1)), two.pair(70, generator=generator(1)), strict=True):
            same(found, expected)
    x = torch.randn(5, 3, 2, 2, generator=generator(3))
    assert torch.equal(coupling.assign(x, generator=generator()), plain.assign(x.flatten(1), generator=generator()))
    assert torch.equal(coupling.c_transform(x), plain.c_transform(x.flatten(1)))
    if epsilon:
        same(ExactFlow(coupling).velocity(0.3, x), ExactFlow(plain).velocity(0.3, x.flatten(1)))
        same(ExactFlow(coupling).score(0.3, x), ExactFlow(plain).score(0.3, x.flatten(1)))
    plain.load_state_dict(coupling.state_dict())  # the same points in another shape
    pairs = [(ClassCouplings(p, labels, epsilon=epsilon), JointCoupling(p, z, beta=0.5, epsilon=epsilon)) for p in (images, flat)]
    for one, two in zip(*pairs, strict=True):
        for each in (one, two):
            each.fit(max_iterations=3, generator=generator())
        x0, x1, condition = one.pair(40, generator=generator(1))
        y0, y1, other = two.pair(40, generator=generator(1))
        same(x0, y0)
        same(x1, y1)
        assert torch.equal(condition, other) and condition.shape[1:] == (() if isinstance(one, ClassCouplings) else (1, 1))
    sampler = lambda n, *, generator=None: torch.rand(n, 3, 2, 2, generator=generator)
    coupling = SemidiscreteCoupling(images)
    coupling.fit(sampler, max_iterations=2, generator=generator())
    x0, x1 = coupling.pair(20, generator=generator(1))
    assert x0.shape == x1.shape == (20, 3, 2, 2) and (x0 >= 0).all() and torch.equal(x1, images[coupling.assign(x0)])
    for bad in (lambda: coupling.assign(x.flatten(1)), lambda: coupling.c_transform(x[0])):
        with pytest.raises(ValueError, match=r"x must be a non-empty array of shape \(n, 3, 2, 2\)"):
            bad()


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
        ((torch.eye(3), [0.5, 0.6, -0.1]), {}, "weights"),
        ((torch.eye(3), [0.5, 0.6, 0.1]), {}, "weights"),
        ((torch.eye(3), [0.5, 0.5]), {}, "weights"),
        ((torch.eye(3), [1.0, 0.0, 0.0]), {}, "distinct"),
        ((torch.eye(3), [torch.nan, 0.5, 0.5]), {}, "weights"),
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
    ("counts", "weights", "options", "message"),
    (
        ([3.0, 1.0], [1.0, 1.0], {}, "weights must sum to 1"),
        ([3.0, 1.0], [1.0, 0.0], {}, "weights must be positive"),
        ([3.0, 1.0], [0.2, 0.3, 0.5], {}, "weights must have shape"),
        ([3.0, -1.0], [0.5, 0.5], {}, "counts"),
        ([[3.0, 1.0]], [0.5, 0.5], {}, "counts"),
        ([1.0, 0.0], [0.5, 0.5], {}, "2 samples"),
        ([3.0, 1.0], [0.5, 0.5], {"samples": 1}, "2 samples"),
        ([3.0, 1.0], [0.5, 0.5], {"squares": [3.0]}, "squares"),
    ),
)
def test_bad_histograms(counts, weights, options, message):
    with pytest.raises(ValueError, match=message):
        pooled_chi2(counts, weights, **options)


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
