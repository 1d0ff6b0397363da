"""Differences and cubatures against closed forms, and against rules of lower order."""

import math

import pytest
import torch

from dynot_lite.companion.numerics import cubature, difference

F64 = torch.float64


def test_the_difference_is_exact_for_sixth_degree_and_of_sixth_order():
    for degree in range(7):
        found = difference(lambda h, degree=degree: (0.5 + h) ** degree, 0.5)
        assert found == pytest.approx(degree * 0.5 ** max(degree - 1, 0), abs=1e-13)
    errors = [abs(difference(lambda h: math.sin(1 + h), step) - math.cos(1)) for step in (0.4, 0.2)]
    assert errors[0] / errors[1] == pytest.approx(64, rel=0.05)
    assert errors[0] == pytest.approx(0.4**6 * math.cos(1) / 140, rel=0.1)
    assert abs(difference(lambda h: math.sin(1 + h)) - math.cos(1)) < 2e-12


def test_the_difference_takes_arrays():
    x = torch.tensor([[0.0, 1.0], [2.0, 3.0]], dtype=F64)
    torch.testing.assert_close(difference(lambda h: torch.exp(x * (1 + h))), x * x.exp(), rtol=1e-11, atol=1e-12)
    for step in (0.0, -1e-3, float("nan"), "small"):
        with pytest.raises(ValueError, match="step"):
            difference(math.sin, step)


@pytest.mark.parametrize("d", (1, 2, 5))
def test_the_points_have_mean_and_covariance(d):
    generator = torch.Generator().manual_seed(d)
    root = torch.randn(d, d, generator=generator, dtype=F64)
    mean, cov = torch.randn(d, generator=generator, dtype=F64), root @ root.T + 0.1 * torch.eye(d)
    x = cubature(mean, cov)
    assert x.shape == (2 * d, d)
    torch.testing.assert_close(x.mean(0), mean)
    torch.testing.assert_close((x - mean).T @ (x - mean) / len(x), cov)
    assert (x - mean).pow(3).mean(0).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("mean", "cov", "words"),
    [
        (0.0, [[1.0]], "mean must have shape"),
        ([[0.0]], [[1.0]], "mean must have shape"),
        ([0.0, 1.0], [[1.0]], r"cov must have shape \(2, 2\)"),
        ([0.0], [1.0], r"cov must have shape \(1, 1\)"),
        ([0.0, 1.0], [[1.0, 1.0], [1.0, 1.0]], "cov must be positive definite"),
        ([0.0, 1.0], [[1.0, 2.0], [2.0, 1.0]], "cov must be positive semi-definite"),
        ([0.0, 1.0], [[1.0, 0.5], [0.0, 1.0]], "cov must be symmetric"),
        ([float("nan")], [[1.0]], "mean must be finite"),
    ],
)
def test_what_is_no_covariance_is_refused(mean, cov, words):
    with pytest.raises(ValueError, match=words):
        cubature(mean, cov)
