"""Couplings of two laws: against sampling, single Gaussians, quadrature, and the continuity equation."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from dynot_lite.laws.coupled import MixtureCoupling, fm_law, mccann_velocity
from dynot_lite.laws.gaussian import Gaussian, fm_velocity, geodesic, monge_map, w2_squared
from dynot_lite.laws.mixtures import GaussianMixture
from dynot_lite.paths.interpolants import LINEAR, TRIGONOMETRIC

P = Gaussian([0.3, -1.0], [[2.0, 0.6], [0.6, 1.0]])
Q = Gaussian([1.5, 0.7], [[1.0, -0.5], [-0.5, 3.0]])
CROSS = [[0.5, -0.4], [0.3, 0.2]]


def coupling(dim=2, components=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
    roots = 0.4 * draw(components, 2 * dim, 2 * dim) + torch.eye(2 * dim, dtype=torch.float64)
    joint = roots @ roots.mT
    blocks = joint[:, :dim, :dim], joint[:, dim:, dim:], joint[:, :dim, dim:]
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)[:components]
    return MixtureCoupling(weights / weights.sum(), 2 * draw(components, dim), 3 * draw(components, dim), *blocks)


@pytest.mark.parametrize("path", [LINEAR, TRIGONOMETRIC])
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_the_law_on_the_way_is_that_of_samples(path, t):
    pairs = coupling()
    x0, x1 = pairs.sample(200_000, generator=torch.Generator().manual_seed(1))
    x_t, _ = path.at(t, x0, x1)
    law = pairs.law(t, interpolant=path)
    mean = law.weights @ law.means
    spread = law.means - mean
    cov = torch.einsum("k,kij->ij", law.weights, law.covs + spread[:, :, None] * spread[:, None])
    assert (x_t.mean(0) - mean).abs().max() < 0.04 and (x_t.T.cov() - cov).abs().max() < 0.15
    single = fm_law(P, Q, t, cross_cov=CROSS, interpolant=path)
    a, b, _, _ = path.coefficients(torch.tensor(t, dtype=torch.float64))
    cross = torch.tensor(CROSS, dtype=torch.float64)
    assert torch.allclose(single.cov, a**2 * P.cov + b**2 * Q.cov + a * b * (cross + cross.T))
    assert torch.allclose(single.mean, a * P.mean + b * Q.mean)


def test_one_component_is_the_gaussian_case():
    one = MixtureCoupling([1.0], P.mean[None], Q.mean[None], P.cov, Q.cov, torch.tensor(CROSS))
    x = torch.randn(7, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = fm_velocity(P, Q, 0.4, x, cross_cov=CROSS)
    assert torch.allclose(one.velocity(0.4, x), expected)
    wrong = fm_velocity(P, Q, 0.4, x, cross_cov=torch.tensor(CROSS).T)
    assert not torch.allclose(one.velocity(0.4, x), wrong)


def test_the_law_and_the_velocity_solve_the_continuity_equation():
    pairs, t, h = coupling(), 0.37, 1e-4
    x = torch.randn(9, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    density = lambda t, x: pairs.law(t).log_prob(x).exp()
    rate = (density(t + h, x) - density(t - h, x)) / (2 * h)
    flux = lambda x, i: density(t, x) * pairs.velocity(t, x)[:, i]
    steps = h * torch.eye(2, dtype=torch.float64)
    divergence = sum((flux(x + step, i) - flux(x - step, i)) / (2 * h) for i, step in enumerate(steps))
    assert (rate + divergence).abs().max() < 1e-6 < rate.abs().max()


def test_the_product_has_the_same_ends_and_another_field():
    pairs = coupling()
    product = pairs.product()
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    for t in (0.0, 1.0):
        assert torch.allclose(product.law(t).log_prob(x), pairs.law(t).log_prob(x))
    assert (product.velocity(0.5, x) - pairs.velocity(0.5, x)).abs().max() > 0.1
    x0, x1 = product.sample(100_000, generator=torch.Generator().manual_seed(5))
    assert (torch.cat([x0, x1], 1).T.cov()[:2, 2:]).abs().max() < 0.2


def test_mccanns_field_moves_along_the_geodesic_with_constant_speed_at_least_cost():
    velocity, transport = mccann_velocity(P, Q), monge_map(P, Q)
    x = P.sample(50, generator=torch.Generator().manual_seed(6))
    for t in (0.0, 0.4, 1.0):
        assert torch.allclose(velocity(t, (1 - t) * x + t * transport(x)), transport(x) - x)
    nodes, weights = geodesic(P, Q, 0.6).quadrature()
    assert torch.allclose(weights @ velocity(0.6, nodes).square().sum(1), w2_squared(P, Q))
    flat = Gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, 0.0]])
    with pytest.raises(ValueError, match="t must be a time at which"):
        mccann_velocity(P, flat)(1.0, x)


def test_mccanns_field_of_a_batch_is_that_of_each_law():
    means = torch.randn(3, 2, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    found = mccann_velocity(Gaussian(means, P.cov), Q)(0.3, torch.ones(1, 2))
    each = [mccann_velocity(Gaussian(mean, P.cov), Q)(0.3, torch.ones(1, 2)) for mean in means]
    assert found.shape == (3, 1, 2) and torch.allclose(found, torch.stack(each))
    for seed in range(5):  # singular at t = 1 beyond rounding, whatever the numbers
        root = torch.randn(2, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        line = Gaussian([0.0, 0.0], root @ root.mT)
        with pytest.raises(ValueError, match="t must be a time at which"):
            mccann_velocity(P, line)(1.0, torch.ones(1, 2))


@pytest.mark.parametrize("levels", [[0.5], [1e-12, 1e-3, 0.3, 0.8, 1 - 1e-3, 1 - 2**-50]])
def test_quantiles_in_both_tails(levels):
    mixture = GaussianMixture([0.2, 0.5, 0.3], [[-3.0], [0.0], [4.0]], [[[0.25]], [[1.0]], [[4.0]]])
    found = mixture.quantile(levels)
    tail = sum(w * stats.norm.sf(found[:, 0].numpy(), m, s) for w, m, s in ((0.2, -3, 0.5), (0.5, 0, 1), (0.3, 4, 2)))
    for level, q, above in zip(levels, found[:, 0].tolist(), tail.tolist(), strict=True):
        assert math.isclose(mixture.cdf([[q]]).item(), level, rel_tol=1e-12)
        assert math.isclose(above, 1 - level, rel_tol=1e-12)


def test_quantiles_of_components_of_very_different_size():
    """Half of the mass far away: the others have the quantiles of twice the level."""
    for far in (1e6, 1e150, 1e300):
        mixture = GaussianMixture([0.5, 0.5], [[0.0], [far]], [[1.0]])
        assert mixture.quantile([0.25, 0.4]).flatten().tolist() == pytest.approx([0, stats.norm.ppf(0.8)], abs=1e-14)
    narrow = GaussianMixture([0.5, 0.5], [[0.0], [1.0]], [[[1e-40]], [[1e-40]]])
    assert narrow.quantile([0.4]).item() == pytest.approx(1e-20 * stats.norm.ppf(0.8), rel=1e-12)


def test_quantiles_at_atoms_and_one_component():
    atoms = GaussianMixture([0.25, 0.75], [[1.0], [2.0]], [[0.0]])
    assert atoms.quantile([0.1, 0.25, 0.3, 0.9]).flatten().tolist() == pytest.approx([1, 1, 2, 2], abs=1e-12)
    assert atoms.cdf([[0.9], [1.0], [1.5], [2.0]]).tolist() == [0, 0.25, 0.25, 1]
    one = GaussianMixture([1.0], [[3.0]], [[4.0]])
    assert one.quantile([0.975]).item() == pytest.approx(stats.norm.ppf(0.975, 3, 2), abs=1e-12)
    assert math.isclose(
        GaussianMixture([1.0], torch.tensor([[3.0]]), torch.tensor([[4.0]])).quantile([0.3]).item(),
        stats.norm.ppf(0.3, 3, 2),
        rel_tol=1e-6,
    )


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: GaussianMixture([1.0], [[0.0]], [[1.0]]).quantile([0.0]), "levels"),
        (lambda: GaussianMixture([1.0], [[0.0]], [[1.0]]).quantile(0.5), "levels"),
        (lambda: GaussianMixture([1.0], [[0.0, 1.0]], torch.eye(2)).cdf([[0.0, 0.0]]), "dimension 1"),
        (lambda: GaussianMixture([1.0], [[0.0]], [[1.0]]).quantile(torch.tensor([0.5], requires_grad=True)), "levels"),
        (lambda: MixtureCoupling([1.0], [[0.0]], [[0.0]], [[1.0]], [[1.0]], [[1.5]]), "cross_cov"),
        (lambda: MixtureCoupling([1.0], [[0.0]], [[0.0], [1.0]], [[1.0]], [[1.0]]), "weights|means"),
        (lambda: MixtureCoupling([0.5, 0.4], [[0.0]] * 2, [[0.0]] * 2, [[1.0]], [[1.0]]), "weights"),
        (lambda: fm_law(P, Gaussian([0.0], [[1.0]]), 0.5), "dimension"),
        (lambda: GaussianMixture([1.0], [[0.0]], [[1.0]]).quantile([]), "levels"),
        (lambda: fm_law(Gaussian(torch.zeros(3, 2), P.cov), Gaussian(torch.zeros(4, 2), P.cov), 0.5), "p and q"),
        (lambda: MixtureCoupling([1.0], [[0.0]], [[0.0]], [[1.0]], [[1.0]], [[[[0.5]]]]), "cross_cov"),
        (lambda: fm_law(P, Q, 1.5), "t must"),
        (lambda: fm_law(P, Q, [0.1, 0.2]), "t must"),
        (lambda: coupling().sample(0), "n must"),
    ],
)
def test_what_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()
