import itertools
import math
import warnings

import pytest
import torch

from dynot_lite.paths import flows

F64 = torch.float64
A = torch.tensor([[0.3, -1.2], [0.9, -0.5]], dtype=F64)  # not symmetric
START = torch.tensor([[1.0, 2.0], [-0.5, 0.3]], dtype=F64)

# Problems with exact flows: (velocity, exact flow from 0 to t).
PROBLEMS = {
    "linear": (lambda t, x: x @ A.mT, lambda t, x: x @ torch.linalg.matrix_exp(t * A).mT),
    "clock": (lambda t, x: 3 * t**2 + 0 * x, lambda t, x: x + t**3),
    "logistic": (lambda t, x: -(x**2), lambda t, x: x / (1 + t * x)),
    "time and space": (lambda t, x: x * math.cos(t), lambda t, x: x * math.exp(math.sin(t))),
}


def error(method, steps, problem, x=START.abs()):
    velocity, exact = PROBLEMS[problem]
    return (flows.integrate(velocity, x, steps=steps, method=method) - exact(1.0, x)).abs().max().item()


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize(("method", "order"), (("euler", 1), ("midpoint", 2), ("rk4", 4)))
def test_order_of_convergence(method, order, problem):
    coarse, fine = error(method, 20, problem), error(method, 40, problem)
    if coarse < 1e-13:  # Simpson's rule is exact for the cubic clock
        assert (method, problem) == ("rk4", "clock")
    else:
        assert order - 0.35 < math.log2(coarse / fine) < order + 0.6


@pytest.mark.parametrize("problem", PROBLEMS)
def test_adaptive_is_exact_to_its_tolerance_and_runs_backwards(problem):
    velocity, exact = PROBLEMS[problem]
    x = START.abs()
    end = flows.integrate_adaptive(velocity, x, t1=0.8)
    torch.testing.assert_close(end, exact(0.8, x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(flows.integrate_adaptive(velocity, end, t0=0.8, t1=0.0), x, rtol=1e-9, atol=1e-9)
    back = flows.integrate(velocity, end, t0=0.8, t1=0.0, steps=200, method="rk4")
    torch.testing.assert_close(back, x, rtol=1e-8, atol=1e-8)


def test_trajectory_ends_where_integrate_does():
    velocity, _exact = PROBLEMS["linear"]
    times, positions = flows.trajectory(velocity, START, t0=0.2, t1=0.9, steps=7)
    assert times.shape == (8,) and positions.shape == (8, 2, 2)
    assert times[0] == 0.2 and times[-1] == 0.9
    assert torch.equal(positions[0], START)
    assert torch.equal(positions[-1], flows.integrate(velocity, START, t0=0.2, t1=0.9, steps=7))


def test_velocity_is_never_called_outside_the_interval():
    seen = []

    def velocity(t, x):
        seen.append(t)
        return 0 * x

    for method in flows.METHODS:
        flows.integrate(velocity, START, t0=0.1, t1=0.7, steps=13, method=method)
        flows.integrate(velocity, START, t0=0.7, t1=0.1, steps=13, method=method)
    assert min(seen) >= 0.1 and max(seen) <= 0.7


def test_gradient_reaches_parameters_and_start():
    rate = torch.tensor(0.5, dtype=F64, requires_grad=True)
    x = START.clone().requires_grad_()
    end = flows.integrate(lambda t, x: rate * x, x, steps=50, method="rk4")
    d_rate, d_x = torch.autograd.grad(end.sum(), (rate, x))
    torch.testing.assert_close(d_rate, (START * math.exp(0.5)).sum(), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(d_x, torch.full_like(START, math.exp(0.5)), rtol=1e-8, atol=1e-8)


def swirl(t, x):
    return torch.stack([torch.sin(x[:, 1]) * x[:, 0] ** 2, x[:, 0] * x[:, 1] ** 3 + t], -1)


def swirl_divergence(x):
    return 2 * x[:, 0] * torch.sin(x[:, 1]) + 3 * x[:, 0] * x[:, 1] ** 2


def test_divergence():
    torch.testing.assert_close(flows.divergence(swirl, 0.3, START).detach(), swirl_divergence(START))
    with torch.no_grad():
        assert not flows.divergence(swirl, 0.3, START).requires_grad
    assert torch.equal(flows.divergence(lambda t, x: torch.ones_like(x), 0.0, START), torch.zeros(2, dtype=F64))
    x = START.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(flows.divergence(swirl, 0.3, x).sum(), x)
    (expected,) = torch.autograd.grad(swirl_divergence(x).sum(), x)
    torch.testing.assert_close(gradient, expected)


def test_hutchinson_is_unbiased_within_its_error():
    gen = torch.Generator().manual_seed(0)
    exact = swirl_divergence(START)
    draws = torch.stack([flows.hutchinson_divergence(swirl, 0.3, START, probes=50, generator=gen).detach() for _ in range(200)])
    spread = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - exact).abs() < 4 * spread).all() and (spread > 0).all()
    # Signs have unit squares: a diagonal Jacobian is estimated without error by one probe.
    once = flows.hutchinson_divergence(lambda t, x: x**2, 0.0, START, generator=gen)
    torch.testing.assert_close(once.detach(), 2 * START.sum(-1))


@pytest.mark.parametrize("probes", (None, 3))
def test_log_prob_of_a_linear_flow(probes):
    normal = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64))
    flow = torch.linalg.matrix_exp(A)
    image = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=F64), flow @ flow.mT)
    gen = torch.Generator().manual_seed(1)
    velocity = PROBLEMS["linear"][0] if probes is None else (lambda t, x: x * torch.tensor([0.4, -1.1], dtype=F64))
    if probes:  # a diagonal field, for which the probes are exact too
        image = torch.distributions.MultivariateNormal(
            torch.zeros(2, dtype=F64), torch.diag(torch.tensor([0.4, -1.1], dtype=F64).mul(2).exp())
        )
    found = flows.log_prob(velocity, START, normal.log_prob, steps=60, method="rk4", probes=probes, generator=gen)
    torch.testing.assert_close(found.detach(), image.log_prob(START), rtol=1e-7, atol=1e-7)


def test_log_prob_integrates_to_one():
    normal = torch.distributions.Normal(0.0, 1.0)
    grid = torch.linspace(-12, 12, 2001, dtype=F64).unsqueeze(-1)
    with torch.no_grad():
        density = flows.log_prob(
            lambda t, x: torch.sin(x + t), grid, lambda x: normal.log_prob(x).sum(-1), steps=100, method="rk4"
        ).exp()
    assert torch.trapezoid(density, grid.squeeze(-1)).item() == pytest.approx(1, abs=1e-7)


def bounded(velocity, most=2000):
    """The velocity, with an error that nothing catches after ``most`` calls."""
    calls = itertools.count()

    def counted(t, x):
        assert next(calls) < most, "no end in sight"
        return velocity(t, x)

    return counted


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v: flows.integrate(v, START, steps=0), "steps must be an integer"),
        (lambda v: flows.integrate(v, START, steps=2.5), "steps must be an integer"),
        (lambda v: flows.integrate(v, START, method="magic"), "method must be one of"),
        (lambda v: flows.integrate(v, START, t1=math.inf), "t1 must be finite"),
        (lambda v: flows.integrate(v, START * math.nan), "x0 must be finite"),
        (lambda v: flows.integrate(v, START[0]), "x0 must be a non-empty array"),
        (lambda v: flows.trajectory(lambda t, x: x[:, :1], START), "velocity must return"),
        (lambda v: flows.integrate_adaptive(lambda t, x: 0.0, START), "velocity must return"),
        (lambda v: flows.divergence(lambda t, x: x.sum(-1), 0.0, START), "velocity must return"),
        (lambda v: flows.hutchinson_divergence(v, 0.0, START, probes=0), "probes must be an integer"),
        (lambda v: flows.log_prob(v, START[:0], lambda x: x.sum(-1)), "x1 must be a non-empty array"),
        (lambda v: flows.integrate(v, START, t0=[0.0, 0.1]), "t0 must be a number"),
        (lambda v: flows.integrate_adaptive(v, START, rtol=math.nan), "rtol must be finite"),
        (lambda v: flows.integrate_adaptive(v, START, rtol=0.0), "rtol must be a positive number"),
        (lambda v: flows.integrate_adaptive(v, START, atol=0.0), "atol must be a positive number"),
        (lambda v: flows.integrate_adaptive(v, START, atol=-1e-12), "atol must be a positive number"),
        (lambda v: flows.integrate_adaptive(v, START, atol=math.inf), "atol must be finite"),
        (lambda v: flows.integrate_adaptive(v, START, max_iterations=0), "max_iterations must be an integer"),
        (lambda v: flows.integrate_adaptive(bounded(lambda t, x: x * math.nan), START), "velocity must be finite at x0"),
        (lambda v: flows.integrate_adaptive(bounded(lambda t, x: x * math.inf), START), "velocity must be finite at x0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(lambda t, x: x)


def test_a_blow_up_is_an_error_not_a_number():
    with pytest.raises(RuntimeError, match="could not be integrated"):
        flows.integrate_adaptive(lambda t, x: x**2, torch.full((1, 1), 2.0, dtype=F64))


@pytest.mark.parametrize("bad", (math.nan, math.inf))
def test_a_velocity_that_ends_half_way_says_where(bad):
    velocity = bounded(lambda t, x: x * (bad if t > 0.4 else 1))
    with pytest.raises(RuntimeError, match=r"only to t = 0\.4, where the velocity is not finite"):
        flows.integrate_adaptive(velocity, START)
    with pytest.raises(ValueError, match="velocity must keep the points finite, got NaN or infinity at t = 1"):
        flows.integrate(velocity, START)


def test_evaluations_have_a_budget():
    with pytest.raises(RuntimeError, match=r"only to t = 0\.\d+: max_iterations = 500 evaluations are used up"):
        flows.integrate_adaptive(bounded(lambda t, x: -1e6 * (x - math.sin(50 * t)), most=501), START, max_iterations=500)
    calls = []
    flows.integrate_adaptive(lambda t, x: calls.append(t) or x, START)
    assert torch.isfinite(flows.integrate_adaptive(lambda t, x: x, START, max_iterations=len(calls))).all()
    with pytest.raises(RuntimeError, match="used up"):
        flows.integrate_adaptive(lambda t, x: x, START, max_iterations=len(calls) - 1)


def test_a_tolerance_below_rounding_is_not_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        end = flows.integrate_adaptive(lambda t, x: x, START, rtol=1e-300)
    torch.testing.assert_close(end, START * math.e, rtol=1e-13, atol=0)


@pytest.mark.parametrize("unit", (1e-300, 1e-12, 1e12, 1e300))
def test_the_unit_of_the_points_changes_nothing(unit):
    velocity, exact = PROBLEMS["linear"]
    for integrate in (flows.integrate_adaptive, flows.integrate):
        torch.testing.assert_close(integrate(velocity, unit * START) / unit, integrate(velocity, START), rtol=1e-12, atol=0)
    torch.testing.assert_close(flows.integrate_adaptive(velocity, unit * START) / unit, exact(1.0, START), rtol=1e-9, atol=0)
    # The first speed sets the scale where the points are at the origin.
    started = flows.integrate_adaptive(lambda t, x: unit * math.cos(9 * t) + 0 * x, 0 * START) / unit
    torch.testing.assert_close(started, torch.full_like(START, math.sin(9) / 9), rtol=1e-9, atol=0)
