"""Fields of a field: against closed forms of Gaussians and mixtures, automatic differentiation, and sampled laws."""

from __future__ import annotations

import math

import pytest
import torch

from dynot_lite.laws.coupled import MixtureCoupling
from dynot_lite.matching.fields import change_path, sample_sde, score
from dynot_lite.metrics import energy_distance
from dynot_lite.paths.flows import integrate
from dynot_lite.paths.interpolants import LINEAR, TRIGONOMETRIC, Interpolant

eye = torch.eye(2, dtype=torch.float64)
CORRELATED = MixtureCoupling(
    [0.6, 0.4], [[0.0, 0.5], [-1.0, 0.0]], [[3.0, 1.0], [-2.0, 2.0]], eye, 0.3 * eye, [[0.2, 0.3], [-0.3, 0.1]]
)
# The source is N(0, I), independent of the target: what the score and the SDE ask for.
INDEPENDENT = MixtureCoupling([0.6, 0.4], [[0.0, 0.0]] * 2, [[3.0, 1.0], [-2.0, 2.0]], eye, [[0.3, 0.1], [0.1, 0.2]])
BENT = Interpolant(lambda t: (1 - t) ** 2, lambda t: t**3)


def points(n=8, seed=0):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("path", [LINEAR, TRIGONOMETRIC, BENT])
@pytest.mark.parametrize("t", [0.0, 0.3, 0.8, 1.0])
def test_the_field_of_another_path_is_that_of_the_closed_form(path, t):
    field = change_path(CORRELATED.velocity, path)
    expected = CORRELATED.velocity(t, points(), interpolant=path)
    assert torch.allclose(field(t, points()), expected, atol=1e-10)


def test_all_paths_have_one_end_map():
    ends = [
        integrate(change_path(CORRELATED.velocity, path), points(), steps=200, method="rk4") for path in (TRIGONOMETRIC, BENT)
    ]
    direct = integrate(CORRELATED.velocity, points(), steps=200, method="rk4")
    assert all((end - direct).abs().max() < 1e-6 for end in ends)


def test_a_path_through_zero_is_refused():
    through = Interpolant(lambda t: 1 - t - 3 * t * (1 - t), lambda t: t - 3 * t * (1 - t))
    with pytest.raises(ValueError, match="alpha \\+ beta > 0"):
        change_path(CORRELATED.velocity, through)(0.5, points())


@pytest.mark.parametrize("t", [0.0, 0.4, 0.95])
def test_the_score_is_the_gradient_of_the_log_density(t):
    x = points().requires_grad_()
    (expected,) = torch.autograd.grad(INDEPENDENT.law(t).log_prob(x).sum(), x)
    assert torch.allclose(score(INDEPENDENT.velocity)(t, x.detach()), expected, atol=1e-9)
    # Of a correlated coupling it is not.
    (other,) = torch.autograd.grad(CORRELATED.law(0.4).log_prob(x).sum(), x)
    assert not torch.allclose(score(CORRELATED.velocity)(0.4, x.detach()), other, atol=0.1)
    with pytest.raises(ValueError, match="t must"):
        score(INDEPENDENT.velocity)(1.0, x)


@pytest.mark.parametrize("sigma", [0.0, 0.7, 2.0])
def test_the_law_of_the_sde_is_that_of_the_flow(sigma):
    generator = torch.Generator().manual_seed(0)
    x0, truth = points(2000, 1), INDEPENDENT.law(1.0).sample(2000, generator=generator)
    end = sample_sde(INDEPENDENT.velocity, x0, sigma, steps=150, generator=generator)
    other = INDEPENDENT.law(1.0).sample(2000, generator=generator)
    floor = energy_distance(other, truth)
    assert energy_distance(end, truth) < 4 * floor + 0.004
    mean = truth.mean(0)
    assert (end.mean(0) - mean).abs().max() < 0.2 and (end.T.cov() - truth.T.cov()).abs().max() < 0.5
    if sigma > 1:  # the noise without its drift widens the law
        half = 0.5 * sigma**2
        bare = lambda t, x: (INDEPENDENT.velocity(t, x) + half * x) / (1 + half * t)
        wrong = sample_sde(bare, x0, sigma, steps=150, generator=generator)
        assert energy_distance(wrong, truth) > 2 * (4 * floor + 0.004)
    if not sigma:
        assert torch.allclose(end, integrate(INDEPENDENT.velocity, x0, steps=150, method="euler"))


@pytest.mark.parametrize("make", [lambda v: change_path(v, TRIGONOMETRIC), score])
def test_what_is_no_function_no_point_or_no_path_is_refused_at_once(make):
    with pytest.raises(TypeError, match="velocity must be a function"):
        make(3)
    with pytest.raises(TypeError, match="interpolant must be"):
        change_path(INDEPENDENT.velocity, "linear")
    with pytest.raises(ValueError, match="x must"):
        make(INDEPENDENT.velocity)(0.5, points()[:0])
    with pytest.raises(ValueError, match="velocity must keep"):
        make(lambda t, x: x * math.inf)(0.5, points())


def test_bad_arguments_of_the_sde():
    for sigma in (-1.0, math.nan):
        with pytest.raises(ValueError, match="sigma"):
            sample_sde(INDEPENDENT.velocity, points(), sigma)
    with pytest.raises(ValueError, match="steps"):
        sample_sde(INDEPENDENT.velocity, points(), 1.0, steps=0)
    with pytest.raises(ValueError, match="velocity must return"):
        sample_sde(lambda t, x: x[:1], points(), 1.0)
