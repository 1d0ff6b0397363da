"""Action matching: Hamilton–Jacobi by finite differences, the equivalence for many paths, Gaussian action gaps, bad paths."""

import math

import numpy as np
import pytest
import torch
from instances import potential_of
from scipy.linalg import solve_continuous_lyapunov

from dynot_lite.companion.numerics import cubature, difference
from dynot_lite.potentials.action_matching import (
    AutodiffAction,
    OptimalAction,
    action_gap,
    action_matching_loss,
    action_network,
    endpoint_mismatch,
    entropic_action_matching_loss,
    laplacian,
    snapshot_loss,
    unbalanced_action_matching_loss,
)
from dynot_lite.potentials.convex import ConvexPotential
from dynot_lite.potentials.dual import semidual_loss

FAMILIES = ["quadratic", "log-sum-exp", "icnn"]
DIMENSIONS = [1, 2, 3, 10]


def ends(n, dim, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x0 = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    return x0, 0.7 * torch.randn(n, dim, generator=generator, dtype=torch.float64) ** 2 + 0.5


class DifferencedAction:
    """An action whose derivatives are sixth-order differences of its values at fixed x (or fixed t)."""

    def __init__(self, action):
        self.value = action.value

    def time_derivative(self, t, x):
        return difference(lambda h: self.value(t + h, x))

    def velocity(self, t, x):
        axes = torch.eye(x.shape[1], dtype=x.dtype)
        return torch.stack([difference(lambda h, axis=axis: self.value(t, x + h * axis)) for axis in axes], dim=1)


def paths(x0, x1, potential):
    """Five families of paths with the ends x0, x1 (McCann's: with the ends x0 and ∇Ψ(x0))."""
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    skew = torch.randn(x0.shape[1], x0.shape[1], generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    image = potential.gradient(x0).detach()

    def turned(t):
        return ((1 - t) * x0 + t * x1) @ torch.linalg.matrix_exp(4 * t * (1 - t) * (skew - skew.T))

    return {
        "independent": (x1, lambda t: (1 - t) * x0 + t * x1),
        "trigonometric": (x1, lambda t: math.cos(math.pi * t / 2) * x0 + math.sin(math.pi * t / 2) * x1),
        "rotating": (x1, turned),
        "bridge": (x1, lambda t: (1 - t) * x0 + t * x1 + math.sqrt(t * (1 - t)) * noise),
        "McCann": (image, lambda t: (1 - t) * x0 + t * image),
    }


@pytest.mark.parametrize("dim", DIMENSIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_derivatives_and_hamilton_jacobi_against_differences(family, dim):
    potential, (x, _) = potential_of(family, dim), ends(6, dim)
    action, differenced = OptimalAction(potential), DifferencedAction(OptimalAction(potential))
    t = torch.tensor([0.02, 0.1, 0.3, 0.5, 0.8, 0.98], dtype=torch.float64)
    with torch.no_grad():
        d_time, velocity = differenced.time_derivative(t, x), action.velocity(t, x)
        assert torch.allclose(velocity, differenced.velocity(t, x), rtol=0, atol=1e-8)
        assert torch.allclose(action.time_derivative(t, x), d_time, rtol=0, atol=1e-8)
        assert torch.allclose(d_time, -0.5 * velocity.square().sum(1), rtol=0, atol=1e-8)


@pytest.mark.parametrize("family", FAMILIES)
def test_automatic_differentiation_of_the_value_agrees(family):
    action, (x, _) = OptimalAction(potential_of(family, 3)), ends(4, 3)
    t = torch.tensor([0.0, 0.2, 0.7, 1.0], dtype=torch.float64, requires_grad=True)
    x.requires_grad_()
    d_time, d_space = torch.autograd.grad(action.value(t, x).sum(), (t, x))
    assert torch.allclose(d_space, action.velocity(t, x), rtol=0, atol=1e-9)
    # At t = 0 itself the value is s_0, which holds no t.
    assert torch.allclose(d_time[1:], action.time_derivative(t, x)[1:], rtol=0, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_hopf_lax_value_is_a_global_minimum(family):
    potential, (x, _) = potential_of(family, 2), ends(5, 2)
    candidates = 3 * torch.randn(20000, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    initial = potential(candidates) - 0.5 * candidates.square().sum(1)
    for t in (0.1, 0.6, 1.0):
        value = OptimalAction(potential).value(t, x)
        objective = initial + torch.cdist(x, candidates).square() / (2 * t)
        assert (value <= objective.amin(1) + 1e-11).all() and (objective.amin(1) - value < 0.1).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_both_ends_in_closed_form(family):
    potential, (x, y) = potential_of(family, 3), ends(5, 3)
    action = OptimalAction(potential)
    assert torch.allclose(action.value(0.0, x), potential(x) - 0.5 * x.square().sum(1), rtol=0, atol=1e-12)
    assert torch.allclose(action.velocity(0.0, x), potential.gradient(x) - x, rtol=0, atol=1e-12)
    conjugate, argmax = potential.conjugate(y)
    assert torch.allclose(action.value(1.0, y), 0.5 * y.square().sum(1) - conjugate, rtol=0, atol=1e-11)
    assert torch.allclose(action.velocity(1.0, y), y - argmax, rtol=0, atol=1e-9)
    small = action.value(1e-9, x) - action.value(0.0, x)
    assert torch.allclose(small, 1e-9 * action.time_derivative(0.0, x), rtol=0, atol=1e-13)


def test_quadratic_action_in_closed_form():
    potential, (x, _) = potential_of("quadratic", 3), ends(5, 3)
    slope, offset = potential.matrix.detach() - torch.eye(3), potential.offset.detach()
    for t in (0.0, 0.4, 1.0):
        inner = torch.linalg.inv(torch.eye(3) + t * slope)
        expected = 0.5 * ((x @ slope @ inner) * x).sum(1) + x @ inner @ offset - 0.5 * t * offset @ inner @ offset
        assert torch.allclose(OptimalAction(potential).value(t, x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dim", DIMENSIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_equivalence_with_the_semidual_for_every_path(family, dim):
    potential, (x0, x1) = potential_of(family, dim, seed=dim), ends(15, dim)
    action = OptimalAction(potential)
    action.time_derivative = DifferencedAction(action).time_derivative  # independent of Hamilton–Jacobi
    times = torch.tensor([0.013, 0.2, 0.45, 0.7, 0.985], dtype=torch.float64)
    with torch.no_grad():
        for end, path in paths(x0, x1, potential).values():
            moments = x0.square().sum(1).mean() + end.square().sum(1).mean()
            expected = semidual_loss(potential, x0, end) - 0.5 * moments
            assert abs(action_matching_loss(action, x0, end, path, times) - expected) < 1e-9 * (1 + moments)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_is_that_of_the_semidual_and_the_interior_adds_nothing(family):
    potential, (x0, x1) = potential_of(family, 3), ends(8, 3)
    parameters = list(potential.parameters())
    path = torch.stack([(1 - t) * x0.flip(0) + t * x1 for t in (0.2, 0.7)])
    loss = action_matching_loss(OptimalAction(potential), x0, x1, path, [0.2, 0.7])
    ours = torch.autograd.grad(loss, parameters)
    dual = torch.autograd.grad(semidual_loss(potential, x0, x1), parameters)
    assert all(torch.allclose(a, b, rtol=0, atol=1e-9) for a, b in zip(ours, dual, strict=True))


# Gaussian paths: expectations of quadratics are exact on 2d points, integrals in time by Gauss–Legendre quadrature.

NODES, WEIGHTS = (torch.as_tensor(a) for a in np.polynomial.legendre.leggauss(60))
NODES, WEIGHTS = (NODES + 1) / 2, WEIGHTS / WEIGHTS.sum()
S0, S1 = (torch.tensor(a, dtype=torch.float64) for a in ([[2.0, 0.6], [0.6, 1.0]], [[1.0, -0.5], [-0.5, 3.0]]))
M0, M1 = (torch.tensor(a, dtype=torch.float64) for a in ([0.3, -1.0], [1.5, 0.7]))


def gaussian_path(t):
    return cubature((1 - t) * M0 + t * M1, (1 - t) ** 2 * S0 + t**2 * S1)


def gradient_field(t, x):
    """The gradient field of the independent path: symmetric B with BΣ + ΣB = Σ', by SciPy's Lyapunov solver."""
    rows = []
    for s, point in zip(t.tolist(), x, strict=True):
        cov, d_cov = (1 - s) ** 2 * S0 + s**2 * S1, -2 * (1 - s) * S0 + 2 * s * S1
        slope = torch.as_tensor(solve_continuous_lyapunov(cov.numpy(), d_cov.numpy()))
        rows.append(M1 - M0 + slope @ (point - (1 - s) * M0 - s * M1))
    return torch.stack(rows)


def quadratic_action(t, x):
    off, a, b = 0.2 * t, 0.5 + t, -0.3 + t**2
    quadratic = 0.5 * (a * x[:, 0] ** 2 + b * x[:, 1] ** 2) + off * x[:, 0] * x[:, 1]
    return quadratic + t * x[:, 0] + (1 - t**2) * x[:, 1]


def test_action_gap_and_published_numbers_of_a_gaussian_path():
    action = AutodiffAction(quadratic_action)
    loss = action_matching_loss(action, cubature(M0, S0), cubature(M1, S1), gaussian_path, NODES, quadrature=WEIGHTS)
    gap = action_gap(action, gradient_field, gaussian_path, NODES, quadrature=WEIGHTS)
    still = AutodiffAction(lambda t, x: 0 * x.sum(1))
    energy = action_gap(still, gradient_field, gaussian_path, NODES, quadrature=WEIGHTS)
    assert abs(loss - (gap - energy)) < 1e-9
    assert abs(loss + 0.8109371429) < 1e-9 and abs(energy - 3.3558807353) < 1e-9


@pytest.mark.parametrize("weight", [lambda t: 1 - t, lambda t: 0.2 + torch.sin(2 * t)])
def test_time_weight_weights_the_action_gap(weight):
    arguments = (cubature(M0, S0), cubature(M1, S1), gaussian_path, NODES)
    losses, gaps = [], []
    for scale in (1.0, -0.6):
        action = AutodiffAction(lambda t, x, scale=scale: scale * quadratic_action(t, x))
        losses.append(action_matching_loss(action, *arguments, quadrature=WEIGHTS, time_weight=weight))
        each = [action_gap(action, gradient_field, gaussian_path(t.item())[None], t[None]) for t in NODES]
        gaps.append((WEIGHTS * weight(NODES) * torch.stack(each)).sum())
    assert abs((losses[0] - losses[1]) - (gaps[0] - gaps[1])) < 1e-9


def test_laplacian_of_any_action():
    (x, _), t = ends(5, 3), torch.linspace(0, 1, 5, dtype=torch.float64)
    cubic = AutodiffAction(lambda t, x: (1 + t) * x[:, 0] ** 3 + x[:, 1] ** 2 * x[:, 2])
    assert torch.allclose(laplacian(cubic, t, x), (1 + t) * 6 * x[:, 0] + 2 * x[:, 2], rtol=0, atol=1e-12)
    slope = potential_of("quadratic", 3).matrix.detach() - torch.eye(3)
    expected = (slope @ torch.linalg.inv(torch.eye(3) + 0.3 * slope)).trace()
    assert torch.allclose(laplacian(OptimalAction(potential_of("quadratic", 3)), 0.3, x), expected.expand(5), rtol=0, atol=1e-11)


def test_entropic_loss_is_minimised_by_the_drift_that_moves_the_path():
    # X_t = √(1 + t) Z follows dX = drift dt + σ dW with drift slope (1 - σ²)/(2(1 + t)).
    sigma = 0.6

    def loss(factor):
        action = AutodiffAction(lambda t, x: factor * (1 - sigma**2) / (4 * (1 + t)) * x.square().sum(1))
        unit = cubature(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
        path = lambda t: math.sqrt(1 + t) * unit
        return entropic_action_matching_loss(action, unit, path(1.0), path, NODES, sigma=sigma, quadrature=WEIGHTS).item()

    # -½∫E|drift|² = -½ (1 - σ²)²/4 · 2 · log 2 at the minimum, a parabola of the same curvature around it.
    energy = 0.25 * (1 - sigma**2) ** 2 * math.log(2)
    assert abs(loss(1.0) + energy) < 1e-10
    assert abs(loss(1.5) - loss(1.0) - 0.25 * energy) < 1e-10 and abs(loss(0.5) - loss(1.0) - 0.25 * energy) < 1e-10


def test_unbalanced_loss_of_pure_growth():
    # A fixed law of mass exp(t): s = 1 grows it, with loss -½∫s² dm = -½(e - 1).
    (x, _), mass = ends(4, 2), torch.exp
    for level, expected in ((1.0, -0.5), (0.0, 0.0), (2.0, 0.0)):
        action = AutodiffAction(lambda t, x, level=level: level + 0 * x[:, 0] + 0 * t)
        loss = unbalanced_action_matching_loss(action, x, x, lambda t: x, NODES, mass=mass, quadrature=WEIGHTS)
        assert abs(loss - expected * (math.e - 1)) < 1e-12


def test_unrestricted_network_trains_towards_the_field_of_its_path():
    generator = torch.Generator().manual_seed(5)
    action, x0 = action_network(2, (32,), generator=generator), torch.randn(256, 2, generator=generator)
    twin = action_network(2, (32,), generator=torch.Generator().manual_seed(5))
    assert all(torch.equal(a, b) for a, b in zip(action.parameters(), twin.parameters(), strict=True))
    x1 = x0 + torch.tensor([1.0, -0.5])
    optimiser = torch.optim.Adam(action.parameters(), lr=1e-2)
    times = torch.linspace(0.05, 0.95, 4)

    def gap():
        return action_gap(action, lambda t, x: torch.tensor([1.0, -0.5]).expand_as(x), lambda t: x0 + t * (x1 - x0), times).item()

    before = gap()
    for _ in range(60):
        optimiser.zero_grad()
        action_matching_loss(action, x0, x1, lambda t: x0 + t * (x1 - x0), times).backward()
        optimiser.step()
    assert gap() < 0.2 * before


def test_paths_as_arrays_and_functions_agree():
    potential, (x0, x1) = potential_of("log-sum-exp", 2), ends(5, 2)
    action, times = AutodiffAction(quadratic_action), torch.tensor([0.3, 0.8], dtype=torch.float64)
    stacked = torch.stack([(1 - t) * x0 + t * x1 for t in times])
    one = action_matching_loss(action, x0, x1, stacked, times)
    assert abs(one - action_matching_loss(action, x0, x1, lambda t: (1 - t) * x0 + t * x1, times)) < 1e-12
    single = action_matching_loss(OptimalAction(potential), x0, x1, stacked[:, 0], times)
    assert abs(single - action_matching_loss(OptimalAction(potential), x0, x1, stacked, times)) < 1e-9


def test_wrong_end_points_are_an_error():
    (x0, x1), action = ends(400, 2), AutodiffAction(quadratic_action)
    with pytest.raises(ValueError, match="end at x1"):
        action_matching_loss(action, x0, x1, lambda t: x0, [0.5])
    with pytest.raises(ValueError, match="end at x0"):
        action_matching_loss(action, x0, x1, lambda t: x1, [0.5])
    with pytest.raises(ValueError, match="end at x0"):
        action_matching_loss(action, x0, x1, torch.stack([x0 + 1, x1]), [0.0, 1.0])
    other, _ = ends(300, 2, seed=9)
    assert endpoint_mismatch(x0, x0) == 0 and endpoint_mismatch(x0, other) < 6 and endpoint_mismatch(x0, other + 1) > 8
    for unit in (1e-12, 1e12):
        assert math.isclose(endpoint_mismatch(unit * x0, unit * other), endpoint_mismatch(x0, other), rel_tol=1e-9)
    assert endpoint_mismatch(torch.zeros(3, 2), torch.zeros(4, 2)) == 0


def test_what_would_broadcast_is_an_error():
    column = AutodiffAction(lambda t, x: t[:, None] * x[:, :1])
    for loss in (
        lambda a, **o: action_matching_loss(a, X, X, lambda t: X, NODES, **o),
        lambda a, **o: unbalanced_action_matching_loss(a, X, X, lambda t: X, NODES, mass=torch.exp, **o),
        lambda a, **o: action_matching_loss(a, X, X, lambda t: X, NODES, time_weight=lambda t: 1 - t, **o),
    ):
        with pytest.raises(ValueError, match=r"function must return a tensor of shape"):
            loss(column)
    action = AutodiffAction(quadratic_action)
    with pytest.raises(ValueError, match="velocity must return"):
        action_gap(action, lambda t, x: x[:, :1], lambda t: X, NODES)
    with pytest.raises(ValueError, match="path must return one shape"):
        action_matching_loss(action, X, X, lambda t: X[: 1 + (t > 0.5)], NODES)
    action.time_derivative = lambda t, x: t[:, None]
    with pytest.raises(ValueError, match="time_derivative must return"):
        action_matching_loss(action, X, X, lambda t: X, NODES)
    with pytest.raises(ValueError, match="one dimension"):
        endpoint_mismatch([[0.0, 1.0]], [[0.0]])


class Concave(ConvexPotential):
    def _value(self, x):
        return -x.square().sum(1)


def test_an_optimal_action_names_points_of_another_dimension():
    with pytest.raises(ValueError, match="x must have dimension 2"):
        OptimalAction(potential_of("quadratic", 2)).value(0.5, torch.ones(1, 3))


def test_a_potential_that_is_not_convex_is_an_error():
    with pytest.raises(ValueError, match="convex"):
        OptimalAction(Concave(2)).value(0.9, torch.ones(1, 2, dtype=torch.float64))


X, LOSS = torch.ones(3, 2, dtype=torch.float64), action_matching_loss


@pytest.mark.parametrize(
    "bad, name",
    [
        (lambda a: LOSS(a, X, X, lambda t: X, [0.5, 1.5]), "times"),
        (lambda a: LOSS(a, X, X, lambda t: X, [float("nan")]), "times"),
        (lambda a: LOSS(a, X, X, X.expand(2, 3, 2), [0.5]), "path"),
        (lambda a: LOSS(a, X, X, X.expand(1, 1, 3, 2), [0.5]), "path"),
        (lambda a: LOSS(a, X, X, X * math.inf, [0.1, 0.2, 0.3]), "path"),
        (lambda a: LOSS(a, X[:, :1], X, X, [0.1, 0.2, 0.3]), "x0"),
        (lambda a: LOSS(a, X, X[:0], X, [0.1, 0.2, 0.3]), "x1"),
        (lambda a: LOSS(a, X, X, X, [0.1, 0.2, 0.3], quadrature=[0.5, 0.6, 0.1]), "quadrature"),
        (lambda a: entropic_action_matching_loss(a, X, X, lambda t: X, [0.5], sigma=-1.0), "sigma"),
        (lambda a: a.value(1.5, X), "t must"),
        (lambda a: a.value([0.1, 0.2], X), "t must"),
        (lambda a: a.velocity(0.5, X[0]), "x must"),
        (lambda a: a.time_derivative(-0.1, X), "t must"),
    ],
)
@pytest.mark.parametrize("action", [AutodiffAction(quadratic_action), OptimalAction(potential_of("quadratic", 2))])
def test_bad_input_is_named(action, bad, name):
    with pytest.raises(ValueError, match=name):
        bad(action)


def test_the_mismatch_of_two_samples_is_in_standard_errors_of_their_means():
    # Mean of squares 4 against 1; the squares 0, 0, 0, 16 have variance 48 with divisor 4, so the error is √(48/4).
    path_end, end = torch.tensor([[0.0], [0.0], [0.0], [4.0]]), torch.ones(4, 1)
    assert endpoint_mismatch(path_end, end) == pytest.approx(3 / math.sqrt(12), rel=1e-6)


# --- snapshots ---------------------------------------------------------------------------------------------------------------


def snapshots_of(path, k):
    return torch.stack([path(t) for t in torch.linspace(0, 1, k, dtype=torch.float64).tolist()])


@pytest.mark.parametrize("k", (2, 3, 6))
def test_snapshot_loss_is_the_trapezoidal_rule_with_differences(k):
    action, x = AutodiffAction(quadratic_action), torch.randn(k, 7, 2, generator=torch.Generator().manual_seed(k)).double()
    h, expected = 1 / (k - 1), action.value(0.0, x[0]).mean() - action.value(1.0, x[-1]).mean()
    for j in range(k - 1):
        low, high = j * h, (j + 1) * h
        for cloud in (x[j], x[j + 1]):
            expected += 0.5 * (action.value(high, cloud) - action.value(low, cloud)).mean()
        for t, cloud in ((low, x[j]), (high, x[j + 1])):
            expected += 0.5 * h * 0.5 * action.velocity(t, cloud).square().sum(1).mean()
    assert abs(snapshot_loss(action, x) - expected) < 1e-12
    shuffled = torch.stack([cloud[torch.randperm(7, generator=torch.Generator().manual_seed(j))] for j, cloud in enumerate(x)])
    assert abs(snapshot_loss(action, shuffled) - expected) < 1e-12  # nothing is paired


def test_snapshot_loss_does_not_see_a_function_of_time_where_derivatives_at_the_snapshots_have_no_lower_bound():
    x, times = snapshots_of(gaussian_path, 5), torch.linspace(0, 1, 5, dtype=torch.float64)
    f = lambda t: t - torch.sin(8 * math.pi * t) / (8 * math.pi)  # f(0) = 0, f(1) = 1, f' = 0 at the snapshots
    for c in (3.0, 1000.0):
        added = AutodiffAction(lambda t, x, c=c: quadratic_action(t, x) + c * f(t))
        plain = AutodiffAction(quadratic_action)
        assert abs(snapshot_loss(added, x) - snapshot_loss(plain, x)) < 1e-10
        losses = [action_matching_loss(action, x[0], x[-1], x, times) for action in (added, plain)]
        assert abs(losses[0] - losses[1] + c) < 1e-9


def test_snapshot_loss_tends_to_the_loss_with_second_order():
    action = AutodiffAction(quadratic_action)
    exact = action_matching_loss(action, cubature(M0, S0), cubature(M1, S1), gaussian_path, NODES, quadrature=WEIGHTS)
    errors = [abs(snapshot_loss(action, snapshots_of(gaussian_path, k)) - exact).item() for k in (9, 17, 33)]
    assert 3.8 < errors[0] / errors[1] < 4.2 and 3.9 < errors[1] / errors[2] < 4.1 and errors[2] < 2e-2


def test_each_snapshot_has_its_own_minimum_a_central_difference():
    """Of N(0, v(t)) and s = ½ b x²: b = (v_{k+1} − v_{k−1})/(4 w v_k), with a weight w that is half as large at the ends."""
    k, variance = 5, lambda t: 1 + 3 * t**2
    unit = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    x = snapshots_of(lambda t: math.sqrt(variance(t)) * unit, k)
    v = torch.tensor([variance(j / 4) for j in range(k)], dtype=torch.float64)
    around = torch.cat([v[:1], v, v[-1:]])
    w = torch.full((k,), 0.25, dtype=torch.float64)
    w[[0, -1]] *= 0.5
    slope = (around[2:] - around[:-2]) / (4 * w * v)

    def loss(slope):
        action = AutodiffAction(lambda t, x: 0.5 * slope[(4 * t).round().long()] * x[:, 0] ** 2)
        action.time_derivative = None  # it is not asked for
        return snapshot_loss(action, x)

    found = slope.clone().requires_grad_()
    loss(found).backward()
    assert found.grad.abs().max() < 1e-12
    assert abs(loss(slope) + 0.5 * (w * v * slope**2).sum()) < 1e-12
    for j in range(k):
        moved = slope.clone()
        moved[j] += 0.1
        assert loss(moved) > loss(slope) + 1e-4


@pytest.mark.parametrize(
    ("snapshots", "words"),
    [
        (torch.zeros(4, 2), r"snapshots must have shape \(K, n, d\) with K ≥ 2, got \(4, 2\)"),
        (torch.zeros(1, 4, 2), "K ≥ 2"),
        (torch.zeros(2, 0, 2), "snapshots must be a non-empty"),
        (torch.zeros(2, 2, 4, 2), "snapshots must have shape"),
        (torch.full((2, 4, 2), math.nan), "snapshots must be finite"),
    ],
)
def test_snapshots_of_another_shape_are_refused(snapshots, words):
    with pytest.raises(ValueError, match=words):
        snapshot_loss(AutodiffAction(quadratic_action), snapshots)


def test_snapshot_loss_checks_what_the_action_returns():
    action = AutodiffAction(quadratic_action)
    action.value = lambda t, x: x
    with pytest.raises(ValueError, match="action.value must return a tensor of shape"):
        snapshot_loss(action, torch.zeros(2, 4, 2))
    action.velocity = lambda t, x: x[:, :1]
    action.value = lambda t, x: x[:, 0]
    with pytest.raises(ValueError, match="action.velocity must return"):
        snapshot_loss(action, torch.zeros(2, 4, 2))
