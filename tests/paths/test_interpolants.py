import math

import pytest
import torch

from dynot_lite.paths.interpolants import LINEAR, TRIGONOMETRIC, VARIANCE_PRESERVING, Interpolant

F64 = torch.float64


@pytest.mark.parametrize("path", (LINEAR, TRIGONOMETRIC, VARIANCE_PRESERVING), ids=("linear", "trigonometric", "vp"))
def test_velocity_is_the_time_derivative(path):
    gen = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(2, 5, 3, generator=gen, dtype=F64)
    t, h = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=F64), 1e-6
    _, velocity = path.at(t, x0, x1)
    difference = (path.at(t + h, x0, x1)[0] - path.at(t - h, x0, x1)[0]) / (2 * h)
    torch.testing.assert_close(velocity, difference, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("path", (LINEAR, TRIGONOMETRIC, VARIANCE_PRESERVING), ids=("linear", "trigonometric", "vp"))
def test_given_derivatives_are_those_of_automatic_differentiation(path):
    t = torch.linspace(0, 0.99, 34, dtype=F64)
    for given, derived in zip(path.coefficients(t), Interpolant(path.alpha, path.beta).coefficients(t), strict=True):
        torch.testing.assert_close(given, derived, rtol=1e-14, atol=1e-14)


def test_the_linear_path_is_that_of_its_coefficients():
    x0, x1 = torch.randn(2, 6, 2, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    t = torch.linspace(0, 1, 6, dtype=F64)
    for found, expected in zip(LINEAR.at(t, x0, x1), Interpolant(LINEAR.alpha, LINEAR.beta).at(t, x0, x1), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)


def test_a_given_derivative_is_used_and_a_wrong_one_refused():
    square = (lambda t: 1 - t**2, lambda t: t**2)
    calls = []
    path = Interpolant(*square, lambda t: calls.append(t) or -2 * t, lambda t: 2 * t)
    calls.clear()
    assert path.at(0.5, torch.tensor([[0.0]]), torch.tensor([[4.0]]))[1].item() == 4.0 and len(calls) == 1
    for d_alpha, d_beta, message in (
        (lambda t: 2 * t, lambda t: 2 * t, "d_alpha must be the derivative"),
        (lambda t: -2 * t, lambda t: 2 * t + 0.001, "d_beta must be the derivative"),
        (None, lambda t: 2.0, "d_beta must map"),
    ):
        with pytest.raises(ValueError, match=message):
            Interpolant(*square, d_alpha, d_beta)


def test_notes_formulas():
    x0, x1 = torch.tensor([[2.0]], dtype=F64), torch.tensor([[-1.0]], dtype=F64)
    for t in (0.0, 0.25, 1.0):
        x_t, dx_t = LINEAR.at(t, x0, x1)
        assert x_t.item() == pytest.approx(t * -1.0 + (1 - t) * 2.0) and dx_t.item() == pytest.approx(-3.0)
        x_t, dx_t = TRIGONOMETRIC.at(t, x0, x1)
        angle = math.pi * t / 2
        assert x_t.item() == pytest.approx(2 * math.cos(angle) - math.sin(angle))
        # The derivative carries π/2, which the notes' target lacks.
        assert dx_t.item() == pytest.approx(math.pi / 2 * (-math.cos(angle) - 2 * math.sin(angle)))


def test_one_time_expanded_to_all_pairs():
    x0, x1 = torch.zeros(3, 2), torch.ones(3, 2)
    for found, expected in zip(LINEAR.at(torch.tensor(0.25).expand(3), x0, x1), LINEAR.at(0.25, x0, x1), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shape", [(4, 3), (4, 1, 2, 2)])
@pytest.mark.parametrize("path", (LINEAR, TRIGONOMETRIC), ids=("linear", "trigonometric"))
def test_points_and_velocities_have_the_shape_of_the_pairs(path, shape):
    x0, x1 = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1), dtype=F64)
    times = torch.tensor([0.1, 0.4, 0.5, 0.9], dtype=F64)
    for found, rows in zip(path.at(times, x0, x1), zip(*map(path.at, times, x0[:, None], x1[:, None]), strict=True), strict=True):
        assert found.shape == shape and path.at(0.3, x0, x1)[0].shape == shape
        torch.testing.assert_close(found, torch.cat(rows))


def test_variance_preserving_paths_are_one_path_with_two_clocks():
    t = torch.linspace(0, 0.99, 12, dtype=F64)
    alpha, beta, d_alpha, _d_beta = VARIANCE_PRESERVING.coefficients(t)
    torch.testing.assert_close(alpha**2 + beta**2, torch.ones_like(t))
    clock = 2 / math.pi * torch.asin(t)  # the time at which the trigonometric path is at the same place
    for value, expected in zip((alpha, beta), TRIGONOMETRIC.coefficients(clock)[:2], strict=True):
        torch.testing.assert_close(value, expected)
    torch.testing.assert_close(d_alpha, -t / torch.sqrt(1 - t**2))
    with pytest.raises(ValueError, match="has a velocity"):
        VARIANCE_PRESERVING.at(1.0, torch.zeros(2, 1), torch.ones(2, 1))


def test_times_per_pair_images_dtype_and_gradient():
    x0, x1 = torch.zeros(3, 1, 4, 4), torch.ones(3, 1, 4, 4)
    t = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
    x_t, dx_t = LINEAR.at(t, x0, x1)
    assert x_t.dtype == torch.float32 and x_t.shape == dx_t.shape == x0.shape
    torch.testing.assert_close(x_t[:, 0, 0, 0], t)
    (gradient,) = torch.autograd.grad(x_t.sum(), t)
    torch.testing.assert_close(gradient, torch.full((3,), 16.0))


@pytest.mark.parametrize(
    ("alpha", "beta", "message"),
    [
        (lambda t: 1 - t, lambda t: 2 * t, "beta must be"),
        (lambda t: 1 + 0 * t, lambda t: t, "alpha must be"),
        (lambda t: 1 - t, lambda t: 1.0, "beta must map"),
        (lambda t: (1 - t).sum(), lambda t: t, "alpha must map"),
        (lambda t: torch.log(t), lambda t: t, "alpha must map"),
        (lambda t: 1 - t, lambda t: t.detach() ** 2, "beta must be differentiable"),
    ],
)
def test_bad_interpolants_are_refused(alpha, beta, message):
    with pytest.raises(ValueError, match=message):
        Interpolant(alpha, beta)


@pytest.mark.parametrize(
    ("t", "x0", "x1", "message"),
    [
        (1.1, torch.zeros(2, 1), torch.zeros(2, 1), r"t must lie in \[0, 1\]"),
        (math.nan, torch.zeros(2, 1), torch.zeros(2, 1), "t must be finite"),
        ([0.1, 0.2, 0.3], torch.zeros(2, 1), torch.zeros(2, 1), "t must be a scalar or of shape"),
        (0.5, torch.zeros(2, 1), torch.zeros(3, 1), "one shape"),
        (0.5, torch.zeros(0, 1), torch.zeros(0, 1), "one shape"),
        (0.5, torch.full((2, 1), math.nan), torch.zeros(2, 1), "x0 must be finite"),
    ],
)
def test_bad_pairs_are_refused(t, x0, x1, message):
    with pytest.raises(ValueError, match=message):
        LINEAR.at(t, x0, x1)
