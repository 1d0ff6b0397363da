"""Schrödinger bridges with mixture potentials against quadrature, the bridge of Gaussians, simulation, and known plans."""

import math

import pytest
import torch
from instances import generator

from dynot_lite.companion.numerics import cubature, difference, worst
from dynot_lite.laws.gaussian import Gaussian, random_gaussian, schroedinger_bridge
from dynot_lite.laws.mixtures import GaussianMixture
from dynot_lite.paths.continuity import gauss_legendre
from dynot_lite.potentials.action_matching import entropic_action_matching_loss, laplacian
from dynot_lite.potentials.schroedinger import SchroedingerAction, dual_loss, fit

F64 = torch.float64
CASES = ((1, 3, 0.5), (2, 5, 0.7), (3, 4, 1.0))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=F64)


def mixture_of(dim, components, seed=0):
    root = normal(components, dim, dim, seed=seed)
    shares = normal(components, seed=seed + 1).softmax(0)
    return GaussianMixture(shares, normal(components, dim, seed=seed + 2), 0.3 * root @ root.mT + 0.2 * torch.eye(dim).double())


def action_of(dim, components, sigma, seed=0):
    return SchroedingerAction(mixture_of(dim, components, seed), sigma)


@pytest.mark.parametrize("dim, components, sigma", CASES)
def test_the_viscous_equation_holds_and_fails_without_its_laplacian(dim, components, sigma):
    action, x = action_of(dim, components, sigma), normal(50, dim, seed=5)
    t = 0.02 + 0.96 * torch.rand(50, generator=generator(), dtype=F64)
    inviscid = action.time_derivative(t, x) + 0.5 * action.velocity(t, x).square().sum(1)
    assert worst(inviscid + 0.5 * sigma**2 * laplacian(action, t, x)) < 1e-12
    assert worst(inviscid) > 0.05


@pytest.mark.parametrize("dim, components, sigma", CASES)
def test_derivatives_are_those_of_the_value(dim, components, sigma):
    action, x, e = action_of(dim, components, sigma), normal(50, dim, seed=5), normal(50, dim, seed=6)
    t = 0.1 + 0.8 * torch.rand(50, generator=generator(), dtype=F64)
    assert worst(difference(lambda h: action.value(t + h, x)) - action.time_derivative(t, x)) < 1e-9
    assert worst(difference(lambda h: action.value(t, x + h * e)) - (action.velocity(t, x) * e).sum(1)) < 1e-9
    for time in (0.0, 0.3, 1.0):  # one time for all, or one for each
        for method in (action.value, action.velocity, action.time_derivative):
            assert worst(method(time, x) - method(torch.full((50,), time, dtype=F64), x)) < 1e-12


@pytest.mark.parametrize("dim, components, sigma", CASES[:2])
@pytest.mark.parametrize("t", (0.0, 0.4, 0.9, 1.0))
def test_the_value_is_the_expectation_that_defines_it(dim, components, sigma, t):
    action, x = action_of(dim, components, sigma), 0.5 * normal(5, dim, seed=5)
    nodes, weights = Gaussian(torch.zeros(dim).double(), torch.eye(dim).double()).quadrature(120 if dim == 1 else 60)
    y = x[:, None] + sigma * math.sqrt(1 - t) * nodes
    last = sigma**2 * action.mixture.log_prob(y.flatten(0, 1)).unflatten(0, y.shape[:2]) + 0.5 * y.square().sum(-1)
    expected = sigma**2 * torch.logsumexp(last / sigma**2 + weights.log(), 1)
    assert worst(action.value(t, x) - expected) < 1e-6


@pytest.mark.parametrize("sigma", (1.5, 1.0, 0.6, 0.3, 0.1))
def test_of_one_component_it_is_the_bridge_of_gaussians(sigma):
    p, q = (random_gaussian(2, generator=generator(seed)) for seed in (1, 2))
    bridge = schroedinger_bridge(p, q, sigma)
    matrix = torch.linalg.solve(p.cov, bridge.cross_cov).mT  # x1 given x0 has the mean m1 + matrix (x0 − m0)
    cov = sigma**2 * 0.5 * (matrix + matrix.mT)
    action = SchroedingerAction(GaussianMixture([1.0], (q.mean - matrix @ p.mean)[None], cov[None]), sigma)
    x = p.sample(20, generator=generator(3))
    for t in (0.0, 0.4, 0.9):
        assert worst(action.velocity(t, x) - bridge.drift(t, x)) < 1e-12
    # s is quadratic, so the points of the cubature have the expectations of the laws: the minimum is minus the energy.
    ends = cubature(p.mean, p.cov), cubature(q.mean, q.cov)
    assert abs(dual_loss(action, *ends) + bridge.energy) < 1e-12
    # What a wrong potential has more is ε KL of the plans: here both are Gaussian.
    wrong = SchroedingerAction(GaussianMixture([1.0], action.mixture.means + 0.3, 1.3 * cov), sigma)
    turned = 1.3 * matrix
    joint = [torch.cat([p.mean, q.mean]), torch.cat([p.mean, wrong.mixture.means[0] + turned @ p.mean])]
    covs = [
        torch.cat([torch.cat([p.cov, a], 1), torch.cat([a.mT, b], 1)])
        for a, b in ((bridge.cross_cov, q.cov), (p.cov @ turned.mT, 1.3 * cov + turned @ p.cov @ turned.mT))
    ]
    laws = [torch.distributions.MultivariateNormal(*law) for law in zip(joint, covs, strict=True)]
    excess = dual_loss(wrong, *ends) + bridge.energy
    assert excess == pytest.approx(sigma**2 * torch.distributions.kl_divergence(*laws).item(), rel=1e-9)


@pytest.mark.parametrize("dim, components, sigma", CASES)
def test_the_entropic_loss_is_the_dual_along_every_path(dim, components, sigma):
    action, x0, x1 = action_of(dim, components, sigma), normal(30, dim, seed=5), 2 + 0.5 * normal(30, dim, seed=6)
    times, quadrature = gauss_legendre(8)
    noise = normal(30, dim, seed=7)
    paths = {
        "straight": lambda t: (1 - t) * x0 + t * x1,
        "noisy": lambda t: (1 - t) * x0 + t * x1 + math.sqrt(t * (1 - t)) * noise,
        "bent": lambda t: (1 - t) * x0 + t * x1 + 3 * math.sin(math.pi * t),
        "a jump": lambda t: x0 if t < 0.5 else x1,
    }
    dual = dual_loss(action, x0, x1)
    assert (
        worst(
            *(
                entropic_action_matching_loss(action, x0, x1, path, times, sigma=sigma, quadrature=quadrature) - dual
                for path in paths.values()
            )
        )
        < 1e-11
    )


def test_samples_have_the_plan_and_its_mean():
    action, n = action_of(2, 3, 0.7), 40_000
    start = torch.tensor([[0.4, -0.8]], dtype=F64)
    x1 = action.sample(start.expand(n, 2), generator=generator(8))
    assert worst((x1.mean(0) - action.mean(start)[0]) / (x1.std(0) / n**0.5)) < 4
    # Its density is exp((s_1(y) − ½|x − y|² − s_0(x))/ε)/2πε, so a function's mean has two values; the reference is σ Brownian.
    y = start + 0.7 * normal(n, 2, seed=9)
    weight = ((action.value(1.0, y) - action.value(0.0, start)) / 0.49).exp()
    for function in (lambda z: z[:, 0].sin(), lambda z: z[:, 0] * z[:, 1], lambda z: torch.ones(n).double()):
        found, expected = function(x1), function(y) * weight
        error = (found.var() + expected.var()).sqrt() / n**0.5
        assert abs(found.mean() - expected.mean()) < 4 * error


def test_a_fit_finds_a_known_bridge_and_says_when_it_has_not():
    truth = action_of(2, 3, 0.8, seed=20)
    x0 = normal(4000, 2, seed=30)
    x1 = truth.sample(normal(4000, 2, seed=31), generator=generator(32))
    found = fit(x0, x1, sigma=0.8, components=6, tol=1e-4, generator=generator(33)).require()
    fresh = normal(4000, 2, seed=34)
    error = (found.action.velocity(0.5, fresh) - truth.velocity(0.5, fresh)).square().mean()
    assert error < 0.02 * truth.velocity(0.5, fresh).square().mean()
    assert found.loss == pytest.approx(dual_loss(found.action, x0, x1).item(), abs=1e-9)
    assert found.loss <= dual_loss(truth, x0, x1)
    short = fit(x0, x1, sigma=0.8, components=6, max_iterations=1, generator=generator(33))
    assert not short.converged and short.loss > found.loss
    with pytest.raises(RuntimeError, match="the largest derivative is"):
        short.require()


def test_a_fit_knows_no_unit():
    x0, x1 = normal(300, 2, seed=40), 2 * normal(300, 2, seed=41) + 1
    small, large = (fit(unit * x0, unit * x1, sigma=unit, components=2, generator=generator(0)) for unit in (1.0, 1024.0))
    assert large.loss == pytest.approx(1024**2 * small.loss, rel=1e-9)
    assert worst(large.action.mean(1024 * x0) / 1024 - small.action.mean(x0)) < 1e-6


def test_what_is_no_bridge_is_refused():
    mixture = mixture_of(2, 2)
    with pytest.raises(ValueError, match="definite"):
        SchroedingerAction(GaussianMixture([1.0], [[0.0, 0.0]], [[[1.0, 0.0], [0.0, 0.0]]]), 1.0)
    with pytest.raises(ValueError, match="sigma"):
        SchroedingerAction(mixture, 0.0)
    x = normal(5, 2)
    with pytest.raises(ValueError, match="components must be at most"):
        fit(x, x, sigma=1.0, components=6)
    with pytest.raises(ValueError, match="x0"):
        fit(normal(5, 3), x, sigma=1.0, components=2)
    with pytest.raises(ValueError, match="x"):
        SchroedingerAction(mixture, 1.0).value(0.5, normal(5, 3))
