"""Dynamic transport on grids: admissibility, certificates, closed forms, and independent solvers."""

from itertools import product as pairs

import numpy as np
import ot
import pytest
import torch
from grid_laws import centres, correlated, gaussian_1d, product, rough_1d, w2_squared_1d

from dynot_lite.grids import back_and_forth, benamou_brenier, douglas_rachford
from dynot_lite.laws.gaussian import Gaussian, geodesic, monge_map, w2_squared
from dynot_lite.paths import continuity

METHODS = ("lifted", "cold")
COVS = np.array([[0.0055, 0.0015], [0.0015, 0.0040]]), np.array([[0.0040, -0.0012], [-0.0012, 0.0060]])
MEANS = np.array([0.36, 0.4]), np.array([0.62, 0.58])


def defect(result, shape):
    """∂ₜρ + div m − s from the arrays alone, relative to the largest density over one step of time."""
    slab = (slice(None),) + (None,) * len(shape)
    total = result.density.diff(dim=0) / result.times.diff()[slab] - result.source
    for axis, n in enumerate(shape):
        total += result.momentum[axis].diff(dim=axis + 1) * n
    return total.abs().max() / (result.density.max() * (len(result.times) - 2))


def check_admissible(result, mu, nu):
    mu, nu = torch.as_tensor(mu), torch.as_tensor(nu)
    assert torch.equal(result.density[0], mu) and torch.equal(result.density[-1], nu)
    assert defect(result, mu.shape) < 1e-12 and result.residual < 1e-12
    assert result.min_density >= -0.01 and abs(result.density.min() / result.density.max() - result.min_density) < 1e-12
    assert (result.density.flatten(1).mean(1) - mu.mean()).abs().max() < 1e-12


@pytest.fixture(scope="module")
def gaussians():
    shape = (48, 53)
    mu, nu = (correlated(shape, m, s) for m, s in zip(MEANS, COVS, strict=True))
    laws = [Gaussian(torch.tensor(m), torch.tensor(s)) for m, s in zip(MEANS, COVS, strict=True)]
    return mu, nu, laws, {method: benamou_brenier.solve(mu, nu, steps=20, method=method) for method in METHODS}


@pytest.mark.parametrize("method", METHODS)
def test_gaussians_that_do_not_commute(gaussians, method):
    mu, nu, laws, results = gaussians
    result, exact = results[method], w2_squared(*laws).item()
    assert result.converged
    check_admissible(result, mu, nu)
    assert abs(result.energy / exact - 1) < 2e-3
    assert result.lower <= exact and result.lower > 0.99 * exact
    path = [geodesic(*laws, float(t)) for t in result.times]
    mccann = np.stack([correlated(mu.shape, p.mean.numpy(), p.cov.numpy()) for p in path])
    assert (result.density - torch.tensor(mccann)).abs().mean() < {"lifted": 0.03, "cold": 0.05}[method]


@pytest.mark.parametrize("method", METHODS)
def test_converged_means_that_energies_and_densities_agree(gaussians, method):
    """At the last check and, once the proximal step has settled, at none before."""
    mu, nu, _, results = gaussians
    for tol, result in ((1e-3, results[method]), (1e-2, benamou_brenier.solve(mu, nu, steps=6, method=method, tol=1e-2))):
        iterations, admissible, proximal, apart = result.history.T
        agree = ((admissible - proximal).abs() <= tol * (admissible + 1e-6)) & (apart <= tol / 4)
        settled = iterations >= douglas_rachford.DECAY
        assert result.converged and agree[-1] and settled[-1] and not (agree & settled)[:-1].any()
        assert result.iterations == iterations[-1] and (iterations.diff()[:-1] == 5).all()
        assert abs(admissible[-1] / result.energy - 1) < 0.1 and apart[0] < 2
        assert 0.5 < result.residual / defect(result, mu.shape) < 2  # the same rounding


def test_the_lower_bound_is_that_of_the_potential_in_use(gaussians):
    mu, nu, _, results = gaussians
    assert results["lifted"].lower == back_and_forth.solve(mu, nu).lower


@pytest.mark.parametrize("method", METHODS)
def test_flow_is_the_brenier_map(gaussians, method):
    _, _, laws, results = gaussians
    x = laws[0].sample(500, generator=torch.Generator().manual_seed(0))
    x = x[((x > 0.05) & (x < 0.95)).all(1)]
    path = results[method].flow(x)
    assert path.shape == (len(results[method].times), len(x), 2)
    error = (path[-1] - monge_map(*laws)(x)).square().sum(1).mean().sqrt()
    assert error < 0.05 * w2_squared(*laws).sqrt()


@pytest.mark.parametrize("method", METHODS)
def test_weak_form(gaussians, method):
    result = gaussians[3][method]
    nodes = (result.times[1:] + result.times[:-1]) / 2, result.times.diff()

    def psi(t, x):
        return torch.cos(np.pi * x[:, 0]) * torch.cos(2 * np.pi * x[:, 1]) * (1 + t)

    assert continuity.weak_residual(result.measure, result.velocity_at, psi, times=nodes) < 3e-3

    def backwards(t, x):
        return -result.velocity_at(t, x)

    assert continuity.weak_residual(result.measure, backwards, psi, times=nodes) > 0.1


def test_velocity_carries_the_momentum(gaussians):
    result = gaussians[3]["lifted"]
    density = (result.density[1:] + result.density[:-1]) / 2
    heavy = density > 0.05 * density.max()
    for axis, m in enumerate(result.momentum):
        m = m.movedim(axis + 1, 0)
        mean = ((m[1:] + m[:-1]) / 2).movedim(0, axis + 1)
        assert (result.velocity[:, axis] * density - mean).abs()[heavy].max() < 1e-10


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("method", METHODS)
def test_certificates_bracket_the_quantile_formula(seed, method):
    rng = np.random.default_rng(seed)
    if seed % 5 == 4:
        factors = [(rough_1d(n, rng), rough_1d(n, rng)) for n in rng.integers(8, 15, 2)]
    else:
        n = int(rng.integers(15, 60))
        factors = [(rough_1d(n, rng), rough_1d(n, rng))]
    mu, nu = (product(*(f[k] for f in factors)) for k in (0, 1))
    exact = sum(w2_squared_1d(*f) for f in factors)
    result = benamou_brenier.solve(mu, nu, steps=int(rng.integers(3, 12)), method=method, max_iterations=60)
    assert result.lower <= exact <= result.upper < np.inf
    assert abs(result.gap - (result.upper - result.lower) / result.upper) < 1e-14
    assert result.density.min() > 0 and result.min_density > 0
    check_admissible(result, mu, nu)


@pytest.mark.parametrize("seed", range(6))
def test_lower_bound_with_vacuum(seed):
    rng = np.random.default_rng(100 + seed)
    mu, nu = rough_1d(45, rng, positive=False), rough_1d(45, rng, positive=False)
    for method in METHODS:
        result = benamou_brenier.solve(mu, nu, steps=9, method=method)
        assert result.lower <= w2_squared_1d(mu, nu)
        assert result.upper == np.inf and result.gap == np.inf
        check_admissible(result, mu, nu)


def test_lower_bound_below_linear_program():
    rng = np.random.default_rng(8)
    for method, shape in pairs(METHODS, ((7, 9), (5, 4, 6))):
        mu, nu = (a / a.mean() for a in rng.random((2, *shape)) ** 2)
        x = centres(shape)
        plan = ot.emd2(mu.ravel() / mu.sum(), nu.ravel() / nu.sum(), ot.dist(x, x))
        result = benamou_brenier.solve(mu, nu, steps=6, method=method)
        assert result.lower <= plan
        check_admissible(result, mu, nu)


def test_gap_closes_with_the_grid():
    gaps = []
    for n in (32, 64):
        mu, nu = (0.2 + 0.8 * product(gaussian_1d(n, a, 0.1), gaussian_1d(n, b, 0.12)) for a, b in ((0.3, 0.6), (0.7, 0.4)))
        gaps.append(benamou_brenier.solve(mu, nu, steps=n // 2).gap)
    assert gaps[1] < 0.5 * gaps[0] and gaps[1] < 0.01


@pytest.mark.parametrize("method", METHODS)
def test_time_reversal(method):
    mu = product(gaussian_1d(25, 0.35, 0.1), gaussian_1d(31, 0.6, 0.12))
    nu = product(gaussian_1d(25, 0.6, 0.07), gaussian_1d(31, 0.45, 0.1))
    there = benamou_brenier.solve(mu, nu, steps=10, method=method)
    back = benamou_brenier.solve(nu, mu, steps=10, method=method)
    assert abs(there.energy / back.energy - 1) < 2e-3
    assert (there.density - back.density.flip(0)).abs().mean() < 0.03


@pytest.mark.parametrize("method", METHODS)
def test_one_dimension_inside_two(method):
    a, b = gaussian_1d(40, 0.3, 0.08), gaussian_1d(40, 0.65, 0.1)
    line = benamou_brenier.solve(a, b, steps=12, method=method)
    strip = benamou_brenier.solve(*(np.repeat(v[:, None], 5, 1) for v in (a, b)), steps=12, method=method)
    assert abs(line.energy / strip.energy - 1) < 2e-3
    assert strip.momentum[1].abs().max() < 1e-4 * strip.momentum[0].abs().max()
    assert (strip.density.mean(2) - line.density).abs().mean() < 0.02


def test_one_dimension_of_record():
    a, b = gaussian_1d(1024, 0.35, 0.06), gaussian_1d(1024, 0.6, 0.08)
    exact = 0.25**2 + 0.02**2
    for method in METHODS:
        assert abs(benamou_brenier.solve(a, b, steps=64, method=method).energy / exact - 1) < 2e-4


@pytest.mark.parametrize("method", METHODS)
def test_three_dimensions(method):
    axes = [((0.38, 0.09), (0.6, 0.11)), ((0.4, 0.1), (0.6, 0.09)), ((0.55, 0.09), (0.45, 0.1))]
    mu, nu = (product(*(gaussian_1d(n, *axis[k]) for n, axis in zip((18, 21, 20), axes, strict=True))) for k in (0, 1))
    exact = sum((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 for a, b in axes)
    result = benamou_brenier.solve(mu, nu, steps=8, method=method)
    check_admissible(result, mu, nu)
    assert result.converged
    assert abs(result.energy / exact - 1) < 1e-2
    assert result.lower <= exact


@pytest.mark.parametrize("method", METHODS)
def test_torus(method):
    shape = (36, 29)
    x, y = ((np.arange(n) + 0.5) / n for n in shape)

    def bump(cx, cy, floor):
        values = np.exp(-30 * np.sin(np.pi * (x - cx))[:, None] ** 2 - 25 * np.sin(np.pi * (y - cy)) ** 2)
        return (values / values.mean() + floor) / (1 + floor)

    exact = 0.25**2 + 0.15**2
    mu, nu = bump(0.9, 0.2, 0), bump(0.15, 0.05, 0)
    result = benamou_brenier.solve(mu, nu, steps=12, method=method, boundary="periodic")
    assert result.converged
    check_admissible(result, mu, nu)
    assert abs(result.energy / exact - 1) < 1e-2 and result.lower <= exact
    assert torch.equal(result.momentum[0][:, 0], result.momentum[0][:, -1])
    moved = benamou_brenier.solve(*(np.roll(a, (5, -7), (0, 1)) for a in (mu, nu)), steps=12, method=method, boundary="periodic")
    assert abs(moved.energy / result.energy - 1) < 1e-3
    positive = benamou_brenier.solve(bump(0.9, 0.2, 0.2), bump(0.15, 0.05, 0.2), steps=12, method=method, boundary="periodic")
    assert positive.lower <= positive.upper and positive.gap < 0.08
    static = ot.emd2(*(bump(*c, 0.2).ravel() / 1044 for c in ((0.9, 0.2), (0.15, 0.05))), torus_cost(shape))
    assert positive.lower <= static


def torus_cost(shape):
    x = centres(shape)
    gap = np.abs(x[:, None] - x[None])
    return (np.minimum(gap, 1 - gap) ** 2).sum(-1)


def test_equal_densities_do_not_move():
    mu = product(gaussian_1d(20, 0.4, 0.1), gaussian_1d(17, 0.6, 0.1))
    for method in METHODS:
        result = benamou_brenier.solve(mu, mu, steps=8, method=method)
        assert result.converged and result.energy < 1e-5 and result.lower <= 0
        assert (result.density - torch.tensor(mu)).abs().max() < 1e-2 * mu.max()


# The unbalanced problem


@pytest.mark.parametrize(("start", "stop", "length"), [(0.5, 3.0, 0.3), (2.0, 0.7, 0.05), (1.0, 4.0, 2.0)])
def test_pure_growth(start, stop, length):
    """Constants, and proportional densities, only grow: 4δ²(√b − √a)² times the mass."""
    exact = 4 * length**2 * (np.sqrt(stop) - np.sqrt(start)) ** 2
    shape = (0.3 + product(gaussian_1d(14, 0.4, 0.2), gaussian_1d(11, 0.5, 0.2))) / 1.3
    for profile in (np.ones((6, 7)), shape):
        mu, nu = start * profile, stop * profile
        result = benamou_brenier.solve(mu, nu, steps=24, method="cold", growth_length=length)
        assert abs(result.energy / exact - 1) < 3e-3
        assert defect(result, mu.shape) < 1e-12
        assert result.density.min() > 0
        assert result.lower == -np.inf and result.upper == np.inf
        if length > 1:
            # Moving mass is cheap beside growing it: the energy hardly sees where it grows.
            continue
        middle = (np.sqrt(start) + np.sqrt(stop)) ** 2 / 4
        at_half = result.density[len(result.times) // 2 - 1 : len(result.times) // 2 + 1].mean(0)
        assert (at_half / torch.tensor(middle * profile) - 1).abs().max() < 0.02


@pytest.mark.parametrize("length", [0.08, 0.2, 0.6])
def test_growth_against_the_static_formulation(length):
    """WFR² = 4δ² min Σ c γ + KL(γ₁|μ) + KL(γ₂|ν), c = −2 log cos(min(|x − y|/2δ, π/2)), by POT's own solver."""
    n = 64
    mu, nu = gaussian_1d(n, 0.4, 0.06) + 0.1, 1.7 * gaussian_1d(n, 0.6, 0.05) + 0.2
    x = centres((n,))[:, 0]
    angle = np.minimum(np.abs(x[:, None] - x[None]) / (2 * length), np.pi / 2 - 1e-9)
    cost = -2 * np.log(np.cos(angle))
    a, b = mu / n, nu / n
    plan = ot.unbalanced.mm_unbalanced(a, b, cost, reg_m=1.0, div="kl", numItermax=20000, stopThr=1e-14)

    def entropy(p, q):
        return np.sum(p * np.log(np.maximum(p, 1e-300) / q) - p + q)

    static = 4 * length**2 * ((plan * cost).sum() + entropy(plan.sum(1), a) + entropy(plan.sum(0), b))
    result = benamou_brenier.solve(mu, nu, steps=32, method="cold", growth_length=length)
    assert result.converged
    assert abs(result.energy / static - 1) < 1e-2
    assert defect(result, mu.shape) < 1e-12


def test_long_growth_length_is_balanced_transport():
    mu, nu = gaussian_1d(64, 0.35, 0.1), gaussian_1d(64, 0.6, 0.07)
    result = benamou_brenier.solve(mu, nu, steps=16, method="cold", growth_length=20.0)
    assert abs(result.energy / w2_squared_1d(mu, nu) - 1) < 5e-3
    assert result.source.abs().max() < 0.05


# Obstacles


def test_corridor_is_one_dimensional():
    a, b = gaussian_1d(40, 0.3, 0.08), gaussian_1d(40, 0.65, 0.1)
    line = benamou_brenier.solve(a, b, steps=12)
    mask = np.ones((40, 3), bool)
    mask[:, 1] = False
    mu, nu = (np.where(mask, 0, 3 * v[:, None]) for v in (a, b))
    result = benamou_brenier.solve(mu, nu, steps=12, method="cold", mask=mask)
    assert result.converged
    assert abs(result.energy / line.energy - 1) < 3e-3
    check_admissible(result, mu, nu)
    assert not result.density[:, mask].any()
    assert not result.momentum[1].any() and not result.momentum[0][:, :, ::2].any()


def test_wall_with_a_gap():
    n = 24
    mask = np.zeros((n, n), bool)
    mask[11:13, :15] = True
    mu, nu = (product(gaussian_1d(n, place, 0.07), gaussian_1d(n, 0.3, 0.07)) for place in (0.22, 0.78))
    mu[mask] = nu[mask] = 0
    mu, nu = mu / mu.mean(), nu / nu.mean()
    around = benamou_brenier.solve(mu, nu, steps=12, method="cold", mask=mask)
    assert around.converged
    check_admissible(around, mu, nu)
    assert not around.density[:, mask].any()
    # Wherever a cell is blocked, no face of it carries momentum.
    for axis, m in enumerate(around.momentum):
        m = m.movedim(axis + 1, 1)
        blocked = np.moveaxis(mask, axis, 0)
        assert not m[:, :-1][:, blocked].any() and not m[:, 1:][:, blocked].any()
    # Round the corner at (0.458, 0.625) the way from centre to centre is at least this long.
    detour = np.hypot(0.458 - 0.22, 0.325) + (0.542 - 0.458) + np.hypot(0.78 - 0.542, 0.325)
    straight = benamou_brenier.solve(mu, nu, steps=12)
    assert straight.energy < 0.35 < 0.9 * detour**2 < around.energy < 1.6 * detour**2
    assert around.lower == -np.inf and around.upper == np.inf


def test_empty_mask_changes_nothing():
    mu, nu = (0.2 + product(gaussian_1d(16, a, 0.12), gaussian_1d(14, b, 0.12)) for a, b in ((0.35, 0.6), (0.6, 0.4)))
    mu, nu = mu / mu.mean(), nu / nu.mean()
    for boundary in ("walls", "periodic"):
        options = {"steps": 8, "method": "cold", "boundary": boundary, "tol": 5e-4, "max_iterations": 400}
        bare = benamou_brenier.solve(mu, nu, **options)
        masked = benamou_brenier.solve(mu, nu, mask=np.zeros(mu.shape, bool), **options)
        assert abs(masked.energy / bare.energy - 1) < 1e-3
        assert (masked.density - bare.density).abs().mean() < 0.02


def test_mask_with_growth():
    mask = np.zeros((12, 12), bool)
    mask[5:7] = True
    mu, nu = np.where(mask, 0, 1.0), np.where(mask, 0, 2.0)
    result = benamou_brenier.solve(mu, nu, steps=16, method="cold", mask=mask, growth_length=0.5)
    assert abs(result.energy / (4 * 0.25 * (np.sqrt(2) - 1) ** 2 * mu.mean()) - 1) < 3e-3
    assert not result.density[:, mask].any()


# What is refused, and what is reported


def test_says_when_it_did_not_converge():
    mu, nu = gaussian_1d(40, 0.3, 0.05), gaussian_1d(40, 0.7, 0.1)
    result = benamou_brenier.solve(mu, nu, steps=8, max_iterations=3)
    assert not result.converged and "max_iterations" in result.reason and result.iterations == 3
    check_admissible(result, mu, nu)


def test_threads_and_single_precision_input():
    mu, nu = (product(gaussian_1d(24, a, 0.1), gaussian_1d(21, b, 0.1)) for a, b in ((0.35, 0.6), (0.6, 0.4)))
    one = benamou_brenier.solve(mu, nu, steps=6, max_iterations=20)
    two = benamou_brenier.solve(mu, nu, steps=6, max_iterations=20, workers=2, progress=False)
    assert (one.density - two.density).abs().max() < 1e-10
    rounded = benamou_brenier.solve(mu.astype(np.float32), nu.astype(np.float32), steps=6, max_iterations=20)
    assert rounded.density.dtype == torch.float64 and defect(rounded, mu.shape) < 1e-12
    assert abs(rounded.energy / one.energy - 1) < 1e-4


GOOD = np.ones((4, 5))
SPLIT = np.zeros((4, 5), bool)
SPLIT[:, 2] = True
LEFT, RIGHT = np.zeros((4, 5)), np.zeros((4, 5))
LEFT[:, :2], RIGHT[:, 3:] = 2.5, 2.5


@pytest.mark.parametrize(
    ("mu", "nu", "options", "message"),
    [
        (-GOOD, GOOD, {}, "mu must be non-negative"),
        (GOOD, 0 * GOOD, {}, "nu must have positive mass"),
        (GOOD, 2 * GOOD, {}, "nu must have mean 1"),
        (GOOD, np.ones((5, 4)), {}, "same shape"),
        (GOOD, GOOD * np.inf, {}, "nu must be finite"),
        (GOOD, GOOD, {"steps": 1}, "steps"),
        (GOOD, GOOD, {"steps": 2.5}, "steps"),
        (GOOD, GOOD, {"method": "warm"}, "method"),
        (GOOD, GOOD, {"tol": -1.0}, "tol"),
        (GOOD, GOOD, {"max_iterations": 0}, "max_iterations"),
        (GOOD, GOOD, {"boundary": "open"}, "boundary"),
        (GOOD, GOOD, {"growth_length": 0.3}, "lifted"),
        (GOOD, GOOD, {"mask": ~SPLIT}, "lifted"),
        (GOOD, GOOD, {"method": "cold", "growth_length": -1.0}, "growth_length"),
        (GOOD, GOOD, {"method": "cold", "mask": SPLIT[:2]}, "mask must be a boolean array"),
        (GOOD, GOOD, {"method": "cold", "mask": SPLIT}, "mu must vanish inside the mask"),
        (LEFT, RIGHT, {"method": "cold", "mask": SPLIT}, "mask separates"),
    ],
)
def test_bad_input(mu, nu, options, message):
    with pytest.raises(ValueError, match=message):
        benamou_brenier.solve(mu, nu, **options)


def test_queries_of_the_result_are_checked():
    result = benamou_brenier.solve(GOOD, GOOD, steps=2)
    with pytest.raises(ValueError, match="t must lie"):
        result.velocity_at(1.5, np.zeros((1, 2)))
    with pytest.raises(ValueError, match="x must"):
        result.flow(np.zeros((3, 1)))
