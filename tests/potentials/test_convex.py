"""Convex potentials: derivatives against automatic differentiation, conjugates against SciPy, and what is not solved."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp

from dynot_lite.potentials.convex import ICNN, ConvexPotential, LogSumExp, Quadratic

DIMENSIONS = [1, 2, 3, 10]
FAMILIES = ["quadratic", "log-sum-exp", "structured", "icnn"]


def positive_matrix(dim, generator):
    root = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    return root @ root.T / dim + 0.2 * torch.eye(dim, dtype=torch.float64)


def make(family, dim, seed=0):
    generator = torch.Generator().manual_seed(seed)
    matrix = positive_matrix(dim, generator)
    offset = torch.randn(dim, generator=generator, dtype=torch.float64)
    if family == "quadratic":
        return Quadratic(dim, matrix=matrix, offset=offset)
    if family == "log-sum-exp":
        return LogSumExp(dim, 12, matrix=matrix, offset=offset, scale=3, temperature=0.5, generator=generator)
    if family == "structured":
        potential = LogSumExp(dim, 5, heads=3, matrix=matrix, offset=offset, scale=4, generator=generator)
        with torch.no_grad():  # unequal temperatures
            potential.log_temperature.copy_(torch.tensor([-1.5, 0.0, 0.7], dtype=torch.float64))
        return potential
    return ICNN(dim, (9, 8, 5), matrix=matrix, offset=offset, scale=2, generator=generator)


def sample(n, dim, seed=1):
    return 1.5 * torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.3


@pytest.mark.parametrize("dim", DIMENSIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_hessian_and_product_are_the_derivatives_of_the_value(family, dim):
    potential, x = make(family, dim), sample(7, dim).requires_grad_()
    gradient = torch.autograd.grad(potential(x).sum(), x, create_graph=True)[0]
    hessian = torch.stack([torch.autograd.grad(g.sum(), x, retain_graph=True)[0] for g in gradient.unbind(1)], dim=1)
    direction = sample(7, dim, seed=3)
    assert torch.allclose(potential.gradient(x), gradient, rtol=0, atol=1e-12)
    assert torch.allclose(potential.hessian(x), hessian, rtol=0, atol=1e-12)
    assert torch.allclose(potential.hessian_product(x, direction), (hessian @ direction[:, :, None])[:, :, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_default_derivatives_of_a_subclass_agree(family):
    potential, x = make(family, 3), sample(5, 3)
    assert torch.allclose(ConvexPotential._gradient(potential, x), potential.gradient(x), rtol=0, atol=1e-12)
    assert torch.allclose(ConvexPotential._hessian(potential, x), potential.hessian(x), rtol=0, atol=1e-12)


def test_log_sum_exp_is_the_formula_of_its_docstring():
    potential, x = make("structured", 3), sample(6, 3).numpy()
    slopes, heights = potential.slopes.detach().numpy(), potential.heights.detach().numpy()
    matrix, offset = potential.quadratic.matrix.detach().numpy(), potential.quadratic.offset.detach().numpy()
    expected = 0.5 * np.einsum("ni,ij,nj->n", x, matrix, x) + x @ offset
    for w, c, tau in zip(slopes, heights, np.exp([-1.5, 0.0, 0.7]), strict=True):
        expected += tau * logsumexp((x @ w.T + c) / tau, axis=1)
    assert np.allclose(potential(x).detach().numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_convex_for_arbitrary_parameter_values(family):
    potential, generator = make(family, 3), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in potential.parameters():
            parameter.copy_(2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    x, y = sample(400, 3, seed=6), sample(400, 3, seed=7)
    share = torch.rand(400, generator=generator, dtype=torch.float64)
    chord = share * potential(x) + (1 - share) * potential(y)
    assert (potential(share[:, None] * x + (1 - share)[:, None] * y) <= chord + 1e-9 * (1 + chord.abs())).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_curvature_encloses_every_secant(family):
    potential, x, y = make(family, 3), sample(500, 3, seed=8), sample(500, 3, seed=9)
    alpha, beta = potential.curvature()
    y[:250] = x[:250] + 1e-3 * y[:250]
    secant = ((potential.gradient(x) - potential.gradient(y)) * (x - y)).sum(1) / (x - y).square().sum(1)
    assert 0 < alpha <= secant.min() + 1e-9 and secant.max() <= beta + 1e-9


def test_curvature_of_a_quadratic_is_its_spectrum():
    potential = make("quadratic", 4)
    spectrum = np.linalg.eigvalsh(potential.hessian(sample(1, 4))[0].detach().numpy())
    assert potential.curvature() == pytest.approx((spectrum[0], spectrum[-1]), rel=1e-12)


def extreme(potential, point):
    """The largest eigenvalue of the Hessian at a point."""
    return np.linalg.eigvalsh(potential.hessian(torch.tensor([point], dtype=torch.float64))[0].detach().numpy())[-1]


def test_the_largest_curvature_of_soft_maxima_is_attained():
    """At a point where in each head the two farthest slopes tie, all along one axis, and A is isotropic."""
    point, axis = torch.tensor([0.3, -0.7], dtype=torch.float64), torch.tensor([0.6, 0.8], dtype=torch.float64)
    potential = LogSumExp(2, 3, heads=2, matrix=0.7 * torch.eye(2, dtype=torch.float64))
    with torch.no_grad():
        lengths = torch.tensor([[-1.0, 2.0, 0.5], [3.0, 1.0, 4.5]], dtype=torch.float64)
        potential.slopes.copy_(lengths[:, :, None] * axis + torch.tensor([0.4, 0.1], dtype=torch.float64))
        potential.heights.copy_(-potential.slopes @ point)
        potential.heights[0, 2] -= 60  # the pieces between the two take no part
        potential.heights[1, 0] -= 60
        potential.log_temperature.copy_(torch.tensor([-0.5, 0.3], dtype=torch.float64))
    low, high = potential.curvature()
    assert low == pytest.approx(0.7) and high == pytest.approx(extreme(potential, point.tolist()), rel=1e-9)


@pytest.mark.parametrize("curved", [0, 1])
def test_the_largest_curvature_of_a_network_is_nearly_attained(curved):
    """One layer at its bend and the other where it is steep and straight, all inputs along one axis, and A isotropic."""
    small = 1e-4
    potential = ICNN(2, (2, 3), matrix=0.3 * torch.eye(2, dtype=torch.float64))
    axis = torch.tensor([0.6, 0.8], dtype=torch.float64)
    with torch.no_grad():
        potential.inputs[0].copy_((small if curved else 1.0) * torch.tensor([[1.5], [2.0]], dtype=torch.float64) * axis)
        potential.inputs[1].copy_((1.0 if curved else small) * torch.tensor([[0.4], [1.0], [0.7]], dtype=torch.float64) * axis)
        weights = torch.tensor([[1.0, 2.0], [0.5, 1.5], [0.3, 0.8]], dtype=torch.float64)
        potential.log_weights[0].copy_((weights / small if curved else small * weights).log())
        potential.log_output.copy_((torch.tensor([0.2, 0.9, 1.4], dtype=torch.float64) / (1 if curved else small)).log())
        potential.biases[0].fill_(40.0 if curved else 0.0)
        potential.biases[1].fill_(40.0)
        if curved:  # at the origin what enters the second layer is zero
            potential.biases[1].copy_(-potential.log_weights[0].exp() @ potential.biases[0])
    low, high = potential.curvature()
    assert low == pytest.approx(0.3) and high == pytest.approx(extreme(potential, [0.0, 0.0]), rel=1e-3)


@pytest.mark.parametrize("dim", DIMENSIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_conjugate_inverts_the_gradient_and_attains_fenchel_young(family, dim):
    potential, x = make(family, dim), sample(9, dim)
    y = potential.gradient(x).detach()
    value, argmax = potential.conjugate(y)
    assert torch.allclose(argmax, x, rtol=0, atol=1e-9)
    assert torch.allclose(potential(x) + value, (x * y).sum(1), rtol=0, atol=1e-11)


@pytest.mark.parametrize("family", FAMILIES)
def test_conjugate_against_scipy(family):
    potential, y = make(family, 3), 3 * sample(4, 3)
    value, _ = potential.conjugate(y)
    for point, found in zip(y, value, strict=True):

        def objective(z, point=point):
            return (potential(torch.as_tensor(z)[None])[0] - point @ torch.as_tensor(z)).item()

        best = minimize(objective, np.zeros(3), method="BFGS", options={"gtol": 1e-6})
        assert abs(found.item() + best.fun) < 1e-9


def test_quadratic_conjugate_in_closed_form():
    potential, y = make("quadratic", 4), sample(6, 4)
    inverse = torch.linalg.inv(potential.matrix)
    shifted = y - potential.offset
    value, argmax = potential.conjugate(y)
    assert torch.allclose(argmax, shifted @ inverse, rtol=0, atol=1e-11)
    assert torch.allclose(value, 0.5 * ((shifted @ inverse) * shifted).sum(1), rtol=0, atol=1e-11)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_inverse_flow_inverts_the_flow(family, t):
    potential, x = make(family, 3), sample(8, 3)
    assert torch.allclose(potential.inverse_flow(t, potential.flow(t, x)), x, rtol=0, atol=1e-10)
    assert torch.allclose(potential.flow(t, x), (1 - t) * x + t * potential.gradient(x), rtol=0, atol=1e-12)


def directional_difference(function, parameters, directions, step=1e-5):
    """Central difference of a function of no arguments along a direction in the parameters."""
    values = []
    for sign in (1, -2):
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter += sign * step * direction
        values.append(function().detach())
    with torch.no_grad():
        for parameter, direction in zip(parameters, directions, strict=True):
            parameter += step * direction
    return (values[0] - values[1]) / (2 * step)


@pytest.mark.parametrize("family", FAMILIES)
def test_conjugate_derivatives_against_differences(family):
    potential, y = make(family, 3), sample(5, 3).requires_grad_()
    generator = torch.Generator().manual_seed(11)
    parameters = [y, *potential.parameters()]
    directions = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
    expected = directional_difference(lambda: potential.conjugate(y)[0].sum(), parameters, directions)
    gradients = torch.autograd.grad(potential.conjugate(y)[0].sum(), parameters)
    found = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    assert abs(found - expected) < 1e-7 * (1 + abs(expected))


@pytest.mark.parametrize("family", FAMILIES)
def test_inverse_flow_derivatives_against_differences(family):
    potential, x = make(family, 3), sample(5, 3).requires_grad_()
    t = torch.tensor([0.1, 0.4, 0.5, 0.8, 0.99], dtype=torch.float64, requires_grad=True)
    generator = torch.Generator().manual_seed(12)
    parameters = [t, x, *potential.parameters()]
    directions = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
    weight = torch.randn(5, 3, generator=generator, dtype=torch.float64)

    def scalar():
        return (weight * potential.inverse_flow(t, x)).sum()

    expected = directional_difference(scalar, parameters, directions)
    gradients = torch.autograd.grad(scalar(), parameters)
    found = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    assert abs(found - expected) < 1e-6 * (1 + abs(expected))


def test_stiff_structured_potential_in_sixteen_dimensions():
    generator = torch.Generator().manual_seed(13)
    potential = LogSumExp(16, 32, heads=4, matrix=positive_matrix(16, generator), scale=10, temperature=0.1, generator=generator)
    y = 2 * torch.randn(500, 16, generator=generator, dtype=torch.float64)
    solution = potential.solve(y)
    residual = (potential.gradient(solution.argmax) - y).norm(dim=1)
    assert solution.solved.all() and residual.max() < 2e-10
    assert torch.allclose(solution.residual, residual, rtol=0, atol=1e-12)


def test_what_is_not_solved_is_reported_and_not_returned():
    potential, y = make("structured", 3), 20 * sample(6, 3)
    y[0] = potential.gradient(y[:1])[0].detach()
    start = y.clone()
    start[0] = 20 * sample(6, 3)[0]
    solution = potential.solve(y, start=start, max_iterations=1)
    assert solution.solved[0] and not solution.solved.all() and not solution.converged
    with pytest.raises(RuntimeError, match=f"{6 - int(solution.solved.sum())} of 6 .*not solved after 1 Newton"):
        solution.require()
    found = potential.solve(y)
    assert found.converged and found.require() is found
    residual = (potential.gradient(solution.argmax) - y).norm(dim=1)
    assert torch.allclose(solution.residual, residual, rtol=0, atol=1e-10)
    with pytest.raises(RuntimeError, match="not solved"):
        potential.conjugate(y, max_iterations=1)
    with pytest.raises(RuntimeError, match="not solved"):
        potential.inverse_flow(1.0, y, max_iterations=1)


def test_no_steps_returns_the_start_with_its_residual():
    potential, y = make("icnn", 2), sample(3, 2)
    solution = potential.solve(y, max_iterations=0)
    assert solution.iterations == 0 and torch.equal(solution.argmax, y) and not solution.solved.any()


class Saddle(ConvexPotential):
    """½x² - y² + ¼y⁴: convex in x only."""

    def _value(self, x):
        return 0.5 * x[:, 0].square() - x[:, 1].square() + 0.25 * x[:, 1] ** 4


class Quartic(ConvexPotential):
    """¼ Σ x⁴: convex, and its Hessian is singular at the origin."""

    def _value(self, x):
        return 0.25 * (x**4).sum(1)


def test_negative_curvature_is_an_error():
    with pytest.raises(ValueError, match="convex"):
        Saddle(2).conjugate([[0.3, 0.2]])
    with pytest.raises(ValueError, match="convex"):  # the start is stationary: no step would be taken
        Saddle(2).conjugate([[0.0, 0.0]])
    with pytest.raises(ValueError, match="convex"):
        Saddle(2).inverse_flow(0.9, [[0.1, 0.05]])


def test_singular_hessian_of_a_convex_potential_is_no_error():
    z = Quartic(2).inverse_flow(0.5, torch.tensor([[0.0, 1.0]], dtype=torch.float64))
    assert torch.allclose(z, torch.tensor([[0.0, 1.0]], dtype=torch.float64), atol=1e-10)
    value, argmax = Quartic(2).conjugate(torch.tensor([[8.0, 0.027]], dtype=torch.float64))
    assert torch.allclose(argmax, torch.tensor([[2.0, 0.3]], dtype=torch.float64), atol=1e-8)
    assert abs(value.item() - 0.75 * (16 + 0.0081)) < 1e-10


def test_same_generator_same_potential_and_dtype_follows_the_parameters():
    one, two = (LogSumExp(2, 4, heads=2, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    x = sample(3, 2)
    assert one(x).dtype == torch.float32 and one.double()(x).dtype == torch.float64
    _, argmax = two.conjugate(x)
    assert torch.allclose(two.gradient(argmax), x.float(), atol=1e-3)
    # Any make of array for the matrix; numbers without a dtype are float64.
    matrix = [[2.0, 0.5], [0.5, 1.0]]
    for given in (matrix, np.array(matrix[::-1])[::-1], np.array(matrix).astype(">f8")):
        found = Quadratic(2, matrix=given).matrix
        assert found.dtype == torch.float64 and torch.allclose(found, torch.tensor(matrix, dtype=torch.float64), atol=1e-12)


def test_random_parameters_are_drawn_in_the_precision_of_the_matrix():
    eye = torch.eye(2, dtype=torch.float64)
    for drawn in (LogSumExp(2, 4, matrix=eye).heights, ICNN(2, matrix=eye).biases[0]):  # numbers as they are drawn
        assert drawn.dtype == torch.float64 and (drawn.float().double() != drawn).all()


class Column(ConvexPotential):
    """½|x|², of shape (n, 1): beside shape (n,) it would broadcast."""

    def _value(self, x):
        return 0.5 * x.square().sum(1, keepdim=True)


def test_values_of_a_wrong_shape_are_an_error():
    with pytest.raises(ValueError, match=r"_value must return a tensor of shape \(3,\), .* got shape \(3, 1\)"):
        Column(2)(torch.zeros(3, 2))


@pytest.mark.parametrize(
    "bad, name",
    [
        (lambda p: p(torch.zeros(3, 4)), "x"),
        (lambda p: p([[np.nan, 0.0, 0.0]]), "x"),
        (lambda p: p(torch.zeros(0, 3)), "x"),
        (lambda p: p.conjugate(torch.zeros(2, 2, 3)), "y"),
        (lambda p: p.conjugate([[np.inf, 0.0, 0.0]]), "y"),
        (lambda p: p.conjugate(torch.zeros(2, 3), tol=0.0), "tol"),
        (lambda p: p.conjugate(torch.zeros(2, 3), max_iterations=-1), "max_iterations"),
        (lambda p: p.conjugate(torch.zeros(2, 3), start=torch.zeros(3, 3)), "start"),
        (lambda p: p.inverse_flow(1.1, torch.zeros(2, 3)), "t"),
        (lambda p: p.inverse_flow(-0.1, torch.zeros(2, 3)), "t"),
        (lambda p: p.flow([0.1, 0.2, 0.3], torch.zeros(2, 3)), "t"),
        (lambda p: p.hessian_product(torch.zeros(2, 3), torch.zeros(1, 3)), "direction"),
    ],
)
def test_bad_input_is_named(bad, name):
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        bad(make("structured", 3))


@pytest.mark.parametrize(
    "bad, name",
    [
        (lambda: Quadratic(0), "dim"),
        (lambda: Quadratic(2, matrix=[[1.0, 2.0], [0.0, 1.0]]), "matrix"),
        (lambda: Quadratic(2, matrix=-torch.eye(2)), "matrix"),
        (lambda: Quadratic(2, matrix=torch.eye(3)), "matrix"),
        (lambda: Quadratic(2, offset=[1.0]), "offset"),
        (lambda: Quadratic(2, strength=0.0), "strength"),
        (lambda: LogSumExp(2, 3, strength=2.0), "matrix"),
        (lambda: LogSumExp(2, 0), "pieces"),
        (lambda: LogSumExp(2, 3, heads=0), "heads"),
        (lambda: LogSumExp(2, 3, temperature=-1.0), "temperature"),
        (lambda: ICNN(2, ()), "widths"),
        (lambda: ICNN(2, (3, 0)), "widths"),
        (lambda: ICNN(2, scale=float("nan")), "scale"),
    ],
)
def test_bad_options_are_named(bad, name):
    with pytest.raises(ValueError, match=name):
        bad()


def test_a_flat_direction_is_convex():
    class Flat(ConvexPotential):
        def _value(self, x):
            return 0.5 * x[:, 0].square()

    found = Flat(2).solve(torch.tensor([[3.0, 0.0]], dtype=torch.float64)).require().argmax
    assert found[0, 0].item() == pytest.approx(3.0, abs=1e-6)
