"""Static transport on grids against quantile functions, closed forms and linear programming."""

import numpy as np
import ot
import pytest
import torch
from grid_laws import centres, correlated, gaussian_1d, product, rough_1d, w2_squared_1d

from dynot_lite.grids import back_and_forth
from dynot_lite.grids import operators as grid
from dynot_lite.laws.gaussian import Gaussian, monge_map, w2_squared

COVS = np.array([[0.0040, 0.0015], [0.0015, 0.0025]]), np.array([[0.0020, -0.0012], [-0.0012, 0.0050]])
MEANS = np.array([0.35, 0.4]), np.array([0.62, 0.58])


def exact_plan(mu, nu):
    """The linear program between the cell centres: it bounds W₂² from above, since each cell can be translated rigidly."""
    x = centres(mu.shape)
    return ot.emd2(mu.ravel() / mu.sum(), nu.ravel() / nu.sum(), ot.dist(x, x), numItermax=10**6)


def test_quantile_oracle_against_quadrature():
    rng = np.random.default_rng(0)
    mu, nu = rough_1d(7, rng), rough_1d(7, rng)
    q = (np.arange(200_000) + 0.5) / 200_000
    edges = np.arange(8) / 7
    inverse = [np.interp(q, np.concatenate([[0], np.cumsum(a)]) / a.sum(), edges) for a in (mu, nu)]
    assert abs(np.mean((inverse[0] - inverse[1]) ** 2) - w2_squared_1d(mu, nu)) < 1e-9


@pytest.mark.parametrize("seed", range(8))
def test_one_dimension(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(150, 260))
    mu, nu = rough_1d(n, rng, positive=seed % 2 == 0), rough_1d(n, rng, positive=seed % 3 == 0)
    exact = w2_squared_1d(mu, nu)
    result = back_and_forth.solve(mu, nu)
    assert result.lower <= exact
    assert exact - result.lower < 0.02 * exact + 1e-4
    assert abs(result.w2_squared - exact) < 0.02 * exact + 1e-4


def test_converged_means_three_small_changes_in_a_row():
    mu, nu = gaussian_1d(80, 0.3, 0.07), gaussian_1d(80, 0.6, 0.11)
    result = back_and_forth.solve(mu, nu, tol=1e-4)
    values = result.history[:, 0]
    small = (values.diff().abs() <= 1e-4 * values[1:].abs()).tolist()
    assert result.converged and result.reason == "the dual value settled"
    assert small[-3:] == [True] * 3 and [True] * 3 not in [small[k : k + 3] for k in range(len(small) - 3)]
    early = back_and_forth.solve(mu, nu, tol=1e-4, max_iterations=len(values) - 1)
    assert not early.converged and early.reason == f"max_iterations = {len(values) - 1} reached"


@pytest.mark.parametrize("shape", [(64, 64), (51, 70)])
def test_gaussians_that_do_not_commute(shape):
    mu, nu = (correlated(shape, m, s) for m, s in zip(MEANS, COVS, strict=True))
    p, q = (Gaussian(torch.tensor(m), torch.tensor(s)) for m, s in zip(MEANS, COVS, strict=True))
    exact = w2_squared(p, q).item()
    result = back_and_forth.solve(mu, nu)
    assert result.converged
    assert abs(result.w2_squared / exact - 1) < 5e-4
    assert 0 < 1 - result.lower / exact < 3e-3
    x = torch.tensor(centres(shape))
    exact_move = (monge_map(p, q)(x) - x).T.reshape(2, *shape)
    error = ((result.displacement - exact_move).square().sum(0) * torch.tensor(mu)).mean().sqrt()
    assert error < 0.03 * np.sqrt(exact)
    assert result.push_error < 0.15


def test_value_at_128():
    axes = [((0.3, 0.05), (0.6, 0.07)), ((0.35, 0.07), (0.7, 0.05))]
    mu, nu = (product(*(gaussian_1d(128, *axis[k]) for axis in axes)) for k in (0, 1))
    exact = sum((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 for a, b in axes)
    result = back_and_forth.solve(mu, nu)
    assert abs(result.w2_squared / exact - 1) < 1e-4


@pytest.mark.parametrize("shape", [(12, 15), (9, 9), (5, 6, 7)])
def test_lower_bound_below_linear_program(shape):
    rng = np.random.default_rng(1)
    for _ in range(4):
        mu, nu = (a / a.mean() for a in rng.random((2, *shape)) ** 3)
        assert back_and_forth.solve(mu, nu).lower <= exact_plan(mu, nu)


def test_torus_goes_round():
    shape = (40, 33)
    x, y = (grid.centres(n) for n in shape)

    def bump(cx, cy):
        values = np.exp(-25 * np.sin(np.pi * (x - cx))[:, None] ** 2 - 20 * np.sin(np.pi * (y - cy)) ** 2)
        return values / values.mean()

    mu, nu = bump(0.9, 0.2), bump(0.15, 0.05)
    exact = 0.25**2 + 0.15**2
    torus = back_and_forth.solve(mu, nu, boundary="periodic")
    assert abs(torus.w2_squared / exact - 1) < 3e-3
    assert exact * 0.98 < torus.lower <= exact
    assert back_and_forth.solve(mu, nu).w2_squared > 2 * exact
    rolled = back_and_forth.solve(np.roll(mu, (7, 5), (0, 1)), np.roll(nu, (7, 5), (0, 1)), boundary="periodic")
    assert abs(rolled.w2_squared / torus.w2_squared - 1) < 1e-4


def test_exchange_of_the_densities_and_three_dimensions():
    axes = [((0.35, 0.1), (0.6, 0.08)), ((0.5, 0.07), (0.4, 0.1)), ((0.45, 0.09), (0.55, 0.09))]
    mu, nu = (product(*(gaussian_1d(n, *axis[k]) for n, axis in zip((20, 17, 22), axes, strict=True))) for k in (0, 1))
    exact = sum(w2_squared_1d(gaussian_1d(n, *a), gaussian_1d(n, *b)) for n, (a, b) in zip((20, 17, 22), axes, strict=True))
    there, back = back_and_forth.solve(mu, nu), back_and_forth.solve(nu, mu)
    # The value at the centres of 20 cells is that of a linear program, too large by O(h²).
    assert abs(there.w2_squared / exact - 1) < 1.5e-2
    assert abs(there.w2_squared / back.w2_squared - 1) < 2e-3
    assert there.lower <= exact and back.lower <= exact


def test_potentials_are_admissible():
    rng = np.random.default_rng(3)
    mu, nu = (a / a.mean() for a in rng.random((2, 10, 11)))
    result = back_and_forth.solve(mu, nu)
    x = centres(mu.shape)
    cost = 0.5 * ((x[:, None] - x[None]) ** 2).sum(-1)
    assert (result.potential0.ravel()[:, None] + result.potential1.ravel()[None] - torch.tensor(cost)).max() < 1e-12


def test_says_when_it_did_not_converge():
    mu, nu = gaussian_1d(64, 0.3, 0.05), gaussian_1d(64, 0.7, 0.1)
    result = back_and_forth.solve(mu, nu, max_iterations=1)
    assert not result.converged and "max_iterations" in result.reason
    assert result.history.shape == (1, 2)


GOOD = np.ones((4, 5))


@pytest.mark.parametrize(
    ("mu", "nu", "options", "message"),
    [
        (-GOOD, GOOD, {}, "mu must be non-negative"),
        (GOOD, 0 * GOOD, {}, "nu must have positive mass"),
        (GOOD, 2 * GOOD, {}, "nu must have mean 1"),
        (GOOD, np.ones((5, 4)), {}, "same shape"),
        (GOOD * np.nan, GOOD, {}, "mu must be finite"),
        (np.ones(1), np.ones(1), {}, "mu must have 1, 2 or 3 axes"),
        (np.zeros((0, 3)), GOOD, {}, "mu must have 1, 2 or 3 axes"),
        ("density", GOOD, {}, "mu must be an array"),
        (GOOD, GOOD, {"boundary": "open"}, "boundary"),
        (GOOD, GOOD, {"tol": 0}, "tol"),
        (GOOD, GOOD, {"max_iterations": 0}, "max_iterations"),
    ],
)
def test_bad_input(mu, nu, options, message):
    with pytest.raises(ValueError, match=message):
        back_and_forth.solve(mu, nu, **options)
