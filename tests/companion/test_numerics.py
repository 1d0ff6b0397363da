"""Differences and cubatures against closed forms, and against rules of lower order."""

import math

import numpy as np
import pytest
import torch

from dynot_lite.companion.numerics import cubature, difference, largest, smallest, worst

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


SHAPES = {
    "numbers": lambda numbers: numbers,
    "a list": lambda numbers: [numbers],
    "a generator": lambda numbers: [(number for number in numbers)],
    "an array": lambda numbers: [np.array(numbers)],
    "float32 and nested": lambda numbers: [torch.tensor(numbers[:2], dtype=torch.float32), [np.float64(numbers[2])]],
    "a tensor that needs gradients": lambda numbers: [torch.tensor(numbers, requires_grad=True)],
    "the values of a dictionary": lambda numbers: [dict(enumerate(numbers)).values()],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_extremes_see_every_number_and_no_nan_gets_lost(shape):
    of = SHAPES[shape]
    numbers = [0.25, -2.0, 1.5]
    assert (largest(*of(numbers)), smallest(*of(numbers)), worst(*of(numbers))) == (1.5, -2.0, 2.0)
    for place in range(3):  # Python's max and min lose a NaN at the second and at the third place
        spoiled = [math.nan if k == place else number for k, number in enumerate(numbers)]
        assert all(math.isnan(function(*of(spoiled))) for function in (largest, smallest, worst))
        endless = [-math.inf if k == place else number for k, number in enumerate(numbers)]
        assert (smallest(*of(endless)), worst(*of(endless))) == (-math.inf, math.inf)


@pytest.mark.parametrize("function", (largest, smallest, worst))
def test_extremes_of_nothing_or_of_words_are_refused(function):
    for nothing in ((), ([],), (torch.zeros(0),)):
        with pytest.raises(ValueError, match="at least one number"):
            function(*nothing)
    with pytest.raises(ValueError, match="could not convert"):
        function(["many"])
