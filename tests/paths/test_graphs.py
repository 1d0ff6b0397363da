"""No graph is not a derivative of zero: a property of every function here that differentiates what a user brings."""

import math

import numpy as np
import pytest
import torch
from instances import generator

from dynot_lite.paths import continuity, flows

F64 = torch.float64
A = torch.tensor([[0.3, -1.2], [0.9, -0.5]], dtype=F64)
X = torch.tensor([[1.0, 2.0], [-0.5, 0.3], [0.2, -0.4]], dtype=F64)
PATH = (X, torch.tensor([0.5, 0.3, 0.2], dtype=F64))


def velocity(t, x):
    return x @ A.mT + t * torch.sin(x)


def test_function(t, x):
    return torch.sin(1.3 * t + x[:, 0]) * torch.cos(0.4 * x.sum(-1))


test_function.__test__ = False  # ψ, and no test


def density(t, x):
    return torch.exp(-0.5 * (1 + t) * x.square().sum(-1))


def normal(x):
    return -0.5 * x.square().sum(-1)


def fixed():
    return generator(3)


# What is differentiated, and in which place of which function: (the function with that place open, what belongs there).
PLACES = {
    "divergence": (lambda v: flows.divergence(v, 0.3, X), velocity),
    "hutchinson_divergence": (lambda v: flows.hutchinson_divergence(v, 0.3, X, probes=2, generator=fixed()), velocity),
    "log_prob": (lambda v: flows.log_prob(v, X, normal, steps=3), velocity),
    "log_prob, probes": (lambda v: flows.log_prob(v, X, normal, steps=3, probes=2, generator=fixed()), velocity),
    "weak_residual": (lambda f: continuity.weak_residual(lambda t: PATH, velocity, f, times=3), test_function),
    "strong_residual, velocity": (lambda v: continuity.strong_residual(density, v, 0.3, X), velocity),
    "strong_residual, density": (lambda f: continuity.strong_residual(f, velocity, 0.3, X), density),
}
PARAMETER = torch.ones((), dtype=F64, requires_grad=True)
CUTS = {
    "no_grad": lambda f: torch.no_grad()(f),
    "inference_mode": lambda f: torch.inference_mode()(f),
    "detach": lambda f: lambda t, x: f(t, x).detach(),
    "NumPy": lambda f: lambda t, x: torch.from_numpy(np.array(f(t, x).tolist())),
    "detach beside a parameter": lambda f: lambda t, x: PARAMETER * f(t, x).detach(),
}
MODES = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}


def value(found):
    return torch.as_tensor(found, dtype=F64).detach()


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("place", PLACES)
def test_what_is_cut_off_is_refused(place, cut):
    call, what = PLACES[place]
    with pytest.raises(ValueError, match="must be differentiable by torch"):
        call(CUTS[cut](what))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("place", PLACES)
def test_the_callers_mode_changes_no_value(place, mode):
    call, what = PLACES[place]
    expected = value(call(what))
    with MODES[mode]():
        found = call(what)
        assert not torch.as_tensor(found).requires_grad
    assert torch.equal(value(found), expected) and expected.abs().max() > 1e-3


@pytest.mark.parametrize("cut", CUTS)
def test_what_does_not_depend_has_the_derivative_zero(cut):
    constant = CUTS[cut](lambda t, x: torch.full_like(x, 0.7) * (1 + t))
    assert torch.equal(value(flows.divergence(constant, 0.3, X)), torch.zeros(3, dtype=F64))
    assert torch.equal(value(flows.hutchinson_divergence(constant, 0.3, X)), torch.zeros(3, dtype=F64))
    end = flows.integrate(constant, X, t0=1.0, t1=0.0, steps=3)
    assert torch.equal(value(flows.log_prob(constant, X, normal, steps=3)), normal(end).detach())
    still = continuity.strong_residual(lambda t, x: density(0.5, x), constant, 0.3, X)
    moving = continuity.strong_residual(lambda t, x: density(0.5, x) + 0 * t, lambda t, x: 0 * x + 0.7 * (1 + t), 0.3, X)
    assert torch.equal(still, moving)


def test_one_argument_that_is_cut_off_is_refused_too():
    for part in (lambda t, x: density(t.detach(), x), lambda t, x: density(t, x.detach())):
        with pytest.raises(ValueError, match="density must be differentiable"):
            continuity.strong_residual(part, velocity, 0.3, X)
    for part in (lambda t, x: test_function(t.detach(), x), lambda t, x: test_function(t, x.detach())):
        with pytest.raises(ValueError, match="test_function must be differentiable"):
            continuity.weak_residual(lambda t: PATH, velocity, part, times=3)


def test_functions_made_of_inference_tensors_are_refused():
    with torch.inference_mode():
        inner = A.clone()
        with pytest.raises(ValueError, match="clone them outside inference_mode"):
            flows.divergence(lambda t, x: x @ inner.mT, 0.0, X)


def test_nothing_random_is_drawn_to_tell_them_apart():
    state = torch.get_rng_state()
    flows.divergence(lambda t, x: torch.ones_like(x), 0.0, X)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_would_be_cut_off_in_the_arguments_is_refused():
    x, t = X.clone().requires_grad_(), torch.tensor(0.3, dtype=F64, requires_grad=True)
    for call, name in (
        (lambda: flows.integrate_adaptive(velocity, x), "x0"),
        (lambda: flows.integrate(velocity, X, t1=t), "t1"),
        (lambda: flows.trajectory(velocity, X, t0=t), "t0"),
        (lambda: continuity.strong_residual(density, velocity, 0.3, x), "x"),
        (lambda: continuity.strong_residual(density, velocity, t, X), "t"),
        (lambda: continuity.bump([0.5, 0.0], t), "radius"),
    ):
        with pytest.raises(ValueError, match=rf"^{name} must not require a gradient"):
            call()
        with torch.no_grad():
            call()


def test_log_prob_passes_gradients_on():
    rate, x = torch.tensor(0.5, dtype=F64, requires_grad=True), X.clone().requires_grad_()

    def density(rate, x):
        return flows.log_prob(lambda t, x: rate * torch.sin(x), x, normal, steps=4)

    assert torch.autograd.gradcheck(density, (rate, x))


# --- velocities that misbehave -----------------------------------------------------------------------------------------------

BUFFER = torch.empty_like(X)


def numpy_in_place(t, x):
    array = x.numpy()
    array *= 2 + t
    return torch.from_numpy(array)


IN_PLACE = {
    "torch": lambda t, x: x.mul_(2 + t),
    "NumPy": numpy_in_place,
    "one buffer": lambda t, x: torch.mul(x, 2 + t, out=BUFFER),
}
USES = {
    **{
        f"integrate, {method}": lambda v, method=method: flows.integrate(v, X, steps=3, method=method) for method in flows.METHODS
    },
    "trajectory": lambda v: flows.trajectory(v, X, steps=3, method="rk4")[1],
    "integrate_adaptive": lambda v: flows.integrate_adaptive(v, X),
    "divergence": lambda v: flows.divergence(v, 0.3, X),
    "log_prob": lambda v: flows.log_prob(v, X, normal, steps=3),
    "weak_residual": lambda v: continuity.weak_residual(lambda t: PATH, v, test_function, times=3),
    "kinetic_energy": lambda v: continuity.kinetic_energy(lambda t: PATH, v, times=3),
    "strong_residual": lambda v: continuity.strong_residual(density, v, 0.3, X),
}
DIFFERENTIATED = ("divergence", "log_prob", "strong_residual")  # what comes from NumPy has no graph


@pytest.mark.parametrize(
    ("use", "kind"), [(use, kind) for use in USES for kind in IN_PLACE if kind == "torch" or use not in DIFFERENTIATED]
)
def test_a_velocity_may_change_what_it_gets(use, kind):
    before = X.clone()
    found = value(USES[use](IN_PLACE[kind]))
    torch.testing.assert_close(found, value(USES[use](lambda t, x: (2 + t) * x)), rtol=1e-12, atol=1e-12)
    assert torch.equal(X, before)


@pytest.mark.parametrize("use", [use for use in USES if use not in ("divergence", "strong_residual")])
@pytest.mark.parametrize(
    ("later", "message"),
    [
        (lambda x: x[:, :1], "velocity must return"),
        (lambda x: x.sum(), "velocity must return"),
        (lambda x: math.nan * x, "finite"),
    ],
    ids=("columns", "scalar", "NaN"),
)
def test_a_velocity_that_goes_wrong_later_is_refused(use, later, message):
    calls = 0

    def velocity(t, x):
        nonlocal calls
        calls += 1
        if calls > 100_000:
            raise AssertionError("no end in sight")
        return later(x) if calls > 2 else x

    with pytest.raises((ValueError, RuntimeError) if message == "finite" else ValueError, match=message):
        USES[use](velocity)


def test_what_a_test_function_or_density_returns_is_compared_with_the_points():
    for wrong in (lambda t, x: x, lambda t, x: x[:, :1] + t.reshape(-1, 1), lambda t, x: (x.sum(-1) + t).sum(), lambda t, x: 1.0):
        with pytest.raises(ValueError, match="test_function must return a tensor of shape"):
            continuity.weak_residual(lambda t: PATH, velocity, wrong, times=3)
        with pytest.raises(ValueError, match="density must return a tensor of shape"):
            continuity.strong_residual(wrong, velocity, 0.3, X)
    for wrong in (lambda x: x, lambda x: x[:, :1], lambda x: 1.0, lambda x: math.nan * x[:, 0]):
        with pytest.raises(ValueError, match="log_prob0 must return"):
            flows.log_prob(velocity, X, wrong, steps=2)
