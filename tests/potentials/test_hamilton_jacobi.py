"""The checks of the Hamilton–Jacobi equation pass for optimal actions, and fail for a wrong minimiser and for a wrong Hessian."""

import itertools
from dataclasses import replace

import pytest
import torch
from instances import potential_of

from dynot_lite.companion.numerics import difference, largest
from dynot_lite.potentials.action_matching import OptimalAction, action_matching_loss
from dynot_lite.potentials.conjugates import Equation
from dynot_lite.potentials.dual import semidual_loss

CASES = list(itertools.product(("quadratic", "log-sum-exp", "icnn"), (1, 2, 3, 10)))
N, STEP = 40, 2e-3
T = torch.linspace(3 * STEP, 1 - 3 * STEP, N, dtype=torch.float64)


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def differences_of_values(action, t, x):
    return difference(lambda h: action.value(t + h, x))


def derivative_of_the_infimum(action, t, x):
    t = t.clone().requires_grad_()
    return torch.autograd.grad(action.value(t, x).sum(), t)[0]


def envelope(action, t, x):
    return action.time_derivative(t, x)


def chain_rule(action, t, x):
    """The derivative of Ψ(z) - ½|z|² + ½t|w|² through z(t): what this file says is no check."""
    potential, eye = action.potential, torch.eye(x.shape[1], dtype=x.dtype)
    z = potential.inverse_flow(t, x)
    w, excess = potential.gradient(z) - z, potential.hessian(z) - eye
    dz = -torch.linalg.solve(eye + t[:, None, None] * excess, w)
    return (w * dz).sum(-1) + 0.5 * w.square().sum(-1) + t * (w * (excess @ dz[:, :, None])[:, :, 0]).sum(-1)


def residual(d_time, action, x):
    u = action.velocity(T, x)
    return ((d_time(action, T, x) + 0.5 * u.square().sum(1)) / (1 + u.square().sum(1))).abs().max().item()


def interior_gradient(d_time, action, x):
    """The parameter gradient of the mean of ∂_t s + ½|∇s|², through the points z by the implicit function theorem."""
    interior = d_time(action, T, x) + 0.5 * action.velocity(T, x).square().sum(1)
    gradients = torch.autograd.grad(interior.mean(), list(action.potential.parameters()))
    return max(gradient.abs().max().item() for gradient in gradients)


def with_points(potential, wrong):
    """The potential with points z replaced by wrong(z, t, y), in what it solves and in the inverse of its flow."""
    solve, inverse_flow = potential.solve, potential.inverse_flow

    def wrong_solve(y, *, t=1.0, **options):
        solution = solve(y, t=t, **options)
        return replace(solution, argmax=wrong(solution.argmax, torch.as_tensor(t).expand(len(y)), y.detach()))

    def wrong_inverse_flow(t, x, **options):
        z = inverse_flow(t, x, **options)
        return z + (wrong(z, t, x) - z).detach()

    potential.solve, potential.inverse_flow = wrong_solve, wrong_inverse_flow
    return potential


def with_hessian(potential, wrong):
    """The potential with points solved as before, but derived with the Hessian wrong(H)."""
    solve, hessian = potential.solve, potential._hessian

    def wrong_inverse_flow(t, x):
        z, t = solve(x, t=t).require().argmax, torch.as_tensor(t, dtype=x.dtype).expand(len(x))
        equation = Equation(potential._gradient, lambda points: wrong(hessian(points)), t, x)
        return z + equation.newton_step(z, equation.residual(z))

    potential.inverse_flow = wrong_inverse_flow
    return potential


def random_symmetric(hessian):
    root = randn(hessian.shape[-1], hessian.shape[-1], seed=5)
    return (root @ root.T + 0.1 * torch.eye(hessian.shape[-1])).expand_as(hessian).clone()


POINTS = {
    "shifted": lambda z, t, x: z + 1e-4,
    "not solved": lambda z, t, x: x.clone(),
    "unrelated": lambda z, t, x: torch.sin(7 * x) + t[:, None],
}
HESSIANS = {
    "plus 1e-6": lambda hessian: hessian + 1e-6 * torch.eye(hessian.shape[-1], dtype=hessian.dtype),
    "times 1.01": lambda hessian: 1.01 * hessian,
    "identity": lambda hessian: torch.eye(hessian.shape[-1], dtype=hessian.dtype).expand_as(hessian).clone(),
    "random symmetric": random_symmetric,
}
CHECKS = {differences_of_values: 1e-8, derivative_of_the_infimum: 1e-9, envelope: 1e-9}


@pytest.mark.parametrize("family, dim", CASES)
@pytest.mark.parametrize("check, tolerance", CHECKS.items())
def test_hamilton_jacobi_holds_and_fails_at_points_that_do_not_minimise(check, tolerance, family, dim):
    x = 1.5 * randn(N, dim, seed=dim)
    right = OptimalAction(potential_of(family, dim))
    assert residual(check, right, x) < tolerance and interior_gradient(envelope, right, x) < 1e-9
    for wrong in POINTS.values():
        action = OptimalAction(with_points(potential_of(family, dim), wrong))
        assert residual(check, action, x) > 10 * tolerance
        assert interior_gradient(envelope, action, x) > 1e-7


@pytest.mark.parametrize("family, dim", CASES)
@pytest.mark.parametrize("check", [derivative_of_the_infimum, envelope])
def test_the_sharper_checks_see_a_shift_of_a_millionth(check, family, dim):
    x = 1.5 * randn(N, dim, seed=dim)
    action = OptimalAction(with_points(potential_of(family, dim), lambda z, t, x: z + 1e-6))
    assert residual(check, action, x) > 10 * CHECKS[check]


@pytest.mark.parametrize("family, dim", CASES)
def test_derivatives_of_the_points_fail_for_a_wrong_hessian(family, dim):
    x, direction = 1.5 * randn(N, dim, seed=dim), randn(N, dim, seed=dim + 100)

    solved = potential_of(family, dim).inverse_flow

    def deviations(potential):
        """In t, along a direction, and in the parameters (where the interior of the loss must have no gradient)."""
        flow = potential.inverse_flow
        in_time = torch.func.jvp(lambda t: flow(t, x), (T,), (torch.ones_like(T),))[1]
        in_space = torch.func.jvp(lambda x: flow(T, x), (x,), (direction,))[1]
        yield (in_time - difference(lambda h: solved(T + h, x))).abs().max().item()
        yield (in_space - difference(lambda h: solved(T, x + h * direction))).abs().max().item()
        yield interior_gradient(differences_of_values, OptimalAction(potential), x)

    in_time, in_space, in_parameters = deviations(potential_of(family, dim))
    assert largest(in_time, in_space) < 1e-9 and in_parameters < 1e-8
    for wrong in HESSIANS.values():
        assert min(deviations(with_hessian(potential_of(family, dim), wrong))) > 1e-7


@pytest.mark.parametrize("wrong", POINTS.values(), ids=POINTS)
def test_the_chain_rule_through_the_points_is_no_check(wrong):
    x, action = randn(N, 3, seed=1), OptimalAction(with_points(potential_of("icnn", 3), wrong))
    action.potential.hessian = lambda z: random_symmetric(torch.empty(N, 3, 3, dtype=z.dtype))
    assert residual(chain_rule, action, x) < 1e-12  # by algebra, whatever the points and the matrix are


@pytest.mark.parametrize("family", ["quadratic", "log-sum-exp", "icnn"])
def test_the_loss_and_its_gradient_see_wrong_points(family):
    x0, x1 = randn(N, 3, seed=2), 0.5 + randn(N, 3, seed=3) ** 2
    path = torch.stack([(1 - t) * x0 + t * x1 for t in (0.3, 0.8)])

    def gaps(potential):
        loss = action_matching_loss(OptimalAction(potential), x0, x1, path, [0.3, 0.8])
        gap = loss - semidual_loss(potential, x0, x1) + 0.5 * (x0.square() + x1.square()).sum(1).mean()
        gradients = torch.autograd.grad(gap, list(potential.parameters()))
        return abs(gap.item()), max(gradient.abs().max().item() for gradient in gradients)

    assert largest(gaps(potential_of(family, 3))) < 1e-9
    for wrong in POINTS.values():
        assert min(gaps(with_points(potential_of(family, 3), wrong))) > 1e-7


def test_the_time_derivative_is_accurate_down_to_time_zero():
    for family in ("quadratic", "log-sum-exp", "icnn"):
        action, x = OptimalAction(potential_of(family, 2)), randn(6, 2, seed=4)
        start = action.time_derivative(0.0, x)
        for t in (1e-15, 1e-12, 1e-9, 1e-7):
            assert torch.allclose(action.time_derivative(t, x), start, rtol=1e-5, atol=1e-5)
