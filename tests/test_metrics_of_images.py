"""Fréchet distance, coverage and memorisation, against closed forms, other formulas and brute force."""

import math

import numpy as np
import pytest
import torch
from instances import generator
from scipy.linalg import sqrtm

from dynot_lite.laws.gaussian import Gaussian, w2_squared
from dynot_lite.metrics import coverage, frechet_distance, memorisation

F64 = torch.float64


def cloud(n, d, seed):
    gen = generator(seed)
    return torch.randn(n, d, generator=gen, dtype=F64) @ torch.randn(d, d, generator=gen, dtype=F64) + seed


def test_the_frechet_distance_is_that_of_the_fitted_gaussians():
    x, y = cloud(50, 4, 1), cloud(30, 4, 2)
    fitted = [Gaussian(z.mean(0), torch.cov(z.T)) for z in (x, y)]
    assert frechet_distance(x, y) == pytest.approx(w2_squared(*fitted).item(), rel=1e-9)
    a, b = (np.cov(z.T.numpy()) for z in (x, y))
    matrix = np.trace(a + b - 2 * sqrtm(a @ b).real) + ((x.mean(0) - y.mean(0)) ** 2).sum().item()
    assert frechet_distance(x, y) == pytest.approx(matrix, rel=1e-7)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-12)


def test_singular_covariances_and_equal_samples():
    """Dead features, fewer points than dimensions: the square root of a product of covariances fails there."""
    x, y = cloud(50, 4, 1), cloud(30, 4, 2)
    dead = torch.zeros(50, 2, dtype=F64)
    assert frechet_distance(torch.cat([x, dead], 1), torch.cat([y, dead[:30]], 1)) == pytest.approx(frechet_distance(x, y))
    assert frechet_distance(x, x.flip(0)) == pytest.approx(0, abs=1e-10)
    few = cloud(3, 7, 3)
    assert frechet_distance(few, few + 2.0) == pytest.approx(28, rel=1e-9)


def test_the_floor_falls_like_one_over_n():
    values = [np.mean([frechet_distance(cloud_(n, k), cloud_(n, 99 + k)) for k in range(20)]) for n in (100, 400)]
    assert 3 < values[0] / values[1] < 5.5


def cloud_(n, seed):
    return torch.randn(n, 6, generator=generator(seed), dtype=F64)


def test_coverage_by_brute_force():
    x, y = cloud(20, 3, 1), cloud(25, 3, 2) - 1
    covered = 0
    for i, point in enumerate(y):
        to_others = sorted((y[j] - point).norm().item() for j in range(len(y)) if j != i)
        covered += any((sample - point).norm().item() < to_others[4] for sample in x)
    assert 0 < covered < 25 and coverage(x, y) == pytest.approx(covered / 25)


def test_coverage_of_one_law_and_of_a_lost_mode():
    x, y = torch.randn(2, 1500, 2, generator=generator(), dtype=F64)
    assert coverage(x, y) == pytest.approx(1 - 2**-5, abs=0.02)
    two = torch.cat([y[:750], y[750:] + 50.0])
    assert coverage(x, two) == pytest.approx(0.5, abs=0.03)


def test_memorisation_tells_copies_noise_and_fresh_points():
    train, kept, fresh = torch.randn(3, 600, 24, generator=generator(), dtype=F64) * torch.linspace(2, 0.1, 24)
    right = memorisation(fresh, train, kept)
    assert right.closer == pytest.approx(1, abs=0.12) and right.farther == pytest.approx(1, abs=0.05)
    copies = memorisation(train, train, kept)
    assert copies.closer == 2 and copies.farther == pytest.approx(0, abs=1e-6)
    level = torch.cdist(kept, train).amin(1).mean().item() / math.sqrt(24)
    trace = level * torch.randn(600, 24, generator=generator(5), dtype=F64)
    hidden = memorisation(train + trace, train, kept)
    assert hidden.closer > 1.7 and hidden.farther == pytest.approx(1, abs=0.2)  # the distance alone would not find them
    pure = memorisation(3 * torch.randn(600, 24, generator=generator(6), dtype=F64), train, kept)
    assert pure.closer == pytest.approx(1, abs=0.15) and pure.farther > 2


def test_memorisation_knows_no_size():
    """By chance the nearest of all is one of train in the proportion of the numbers: 1 with any of them."""
    x, train, kept = (torch.randn(n, 5, generator=generator(n), dtype=F64) for n in (3000, 400, 1200))
    assert memorisation(x, train, kept).closer == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (lambda: frechet_distance(torch.zeros(3, 2), torch.zeros(3, 3)), "features0 and features1 must be samples"),
        (lambda: frechet_distance(torch.zeros(1, 2), torch.zeros(3, 2)), "two points"),
        (lambda: frechet_distance(torch.full((3, 2), math.nan), torch.zeros(3, 2)), "features0 must be finite"),
        (lambda: coverage(torch.zeros(3, 2), torch.zeros(5, 2)), "six points"),
        (lambda: memorisation(torch.zeros(3, 2), torch.zeros(5, 3), torch.zeros(5, 2)), "x0 and train"),
        (lambda: memorisation(torch.zeros(3, 2), torch.zeros(5, 2), torch.zeros(5, 3)), "x0 and held_out"),
        (lambda: memorisation(torch.ones(3, 2), torch.zeros(5, 2), torch.zeros(5, 2)), "other points than train"),
    ],
)
def test_they_refuse(measure, message):
    with pytest.raises(ValueError, match=message):
        measure()
