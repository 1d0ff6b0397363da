import math

import numpy as np
import ot
import pytest
import scipy.linalg
import scipy.stats
import torch
from instances import DIMENSIONS, conditional_velocity, cross_covariance, generator, pair, spd

from dynot_lite.laws.gaussian import (
    Affine,
    Gaussian,
    entropic_plan,
    fm_flow,
    fm_kinetic_energy,
    fm_velocity,
    geodesic,
    geometric_mean,
    monge_map,
    random_gaussian,
    schroedinger_bridge,
    w2_squared,
)
from dynot_lite.paths import continuity, flows
from dynot_lite.paths.interpolants import LINEAR, TRIGONOMETRIC, Interpolant

F64 = torch.float64
CUBIC = Interpolant(lambda t: 1 - t**3, lambda t: t * (2 - t))


def close(a, b, tol):
    torch.testing.assert_close(torch.as_tensor(a, dtype=F64), torch.as_tensor(b, dtype=F64), rtol=tol, atol=tol)


def sqrtm(matrix):
    return torch.as_tensor(np.real(scipy.linalg.sqrtm(matrix.numpy())))


def block(p, q, c):
    return Gaussian(torch.cat([p.mean, q.mean]), torch.cat([torch.cat([p.cov, c], 1), torch.cat([c.mT, q.cov], 1)]))


# --- the law -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", DIMENSIONS)
def test_log_prob_is_scipys(d):
    p, _ = pair(d)
    x = torch.randn(5, d, generator=generator(), dtype=F64)
    close(p.log_prob(x), scipy.stats.multivariate_normal(p.mean, p.cov).logpdf(x.numpy()).reshape(-1), 1e-12)


def test_samples_have_the_moments():
    p, _ = pair(3)
    x = p.sample(200_000, generator=generator())
    assert (x.mean(0) - p.mean).abs().max() < 0.02
    assert (torch.cov(x.mT) - p.cov).abs().max() < 0.05
    close(p.sample(4, generator=generator(1)), p.sample(4, generator=generator(1)), 0)


def test_singular_gaussian_samples_on_its_support_and_has_no_density():
    direction = torch.tensor([1.0, 2.0], dtype=F64)
    p = Gaussian([0.0, 1.0], torch.outer(direction, direction))
    x = p.sample(50, generator=generator()) - p.mean
    assert (2 * x[:, 0] - x[:, 1]).abs().max() < 1e-12
    with pytest.raises(ValueError, match="no density"):
        p.log_prob([[0.0, 1.0]])


@pytest.mark.parametrize("d", (1, 2, 3))
def test_quadrature_is_exact_for_moments(d):
    p, _ = pair(d)
    x, w = p.quadrature(6)
    close(w.sum(), 1.0, 1e-13)
    close((w.unsqueeze(-1) * x).sum(0), p.mean, 1e-12)
    close(torch.einsum("n,ni,nj->ij", w, x - p.mean, x - p.mean), p.cov, 1e-12)
    close((w * ((x - p.mean) ** 4)[:, 0]).sum(), 3 * p.cov[0, 0] ** 2, 1e-12)


# --- static transport --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", DIMENSIONS)
def test_w2_is_the_bures_formula(d):
    p, q = pair(d)
    root = sqrtm(p.cov)
    bures = torch.trace(p.cov + q.cov - 2 * sqrtm(root @ q.cov @ root))
    close(w2_squared(p, q), (p.mean - q.mean).square().sum() + bures, 1e-12)
    close(w2_squared(q, p), w2_squared(p, q), 1e-13)


def test_w2_does_not_cancel_between_close_laws():
    variances = torch.tensor([1.0, 3.0, 10.0], dtype=F64)
    delta = 1e-7
    p, q = (
        Gaussian(torch.zeros(3, dtype=F64), torch.diag(variances)),
        Gaussian([0.0] * 3, torch.diag(variances * (1 + delta) ** 2)),
    )
    # Commuting covariances: Σ(√a − √b)² = δ² Σa, far below the rounding of the traces.
    close(w2_squared(p, q) / delta**2, variances.sum(), 1e-6)
    assert w2_squared(p, p) == 0


def test_w2_of_point_masses_and_singular_laws():
    zero = torch.zeros(2, 2, dtype=F64)
    close(w2_squared(Gaussian([0.0, 0.0], zero), Gaussian([3.0, 4.0], zero)), 25.0, 1e-14)
    # Lines at right angles: every coupling has E⟨X0, X1⟩ = 0.
    close(w2_squared(Gaussian([0.0, 0.0], [[4, 0], [0, 0]]), Gaussian([0.0, 0.0], [[0, 0], [0, 9]])), 13.0, 1e-14)


@pytest.mark.parametrize("d", DIMENSIONS)
def test_monge_map_is_symmetric_pushes_forward_and_costs_w2(d):
    p, q = pair(d)
    T = monge_map(p, q)
    image = T.push_forward(p)
    close(image.mean, q.mean, 1e-13)
    close(image.cov, q.cov, 1e-12)
    close(T.matrix, T.matrix.mT, 1e-13)
    assert torch.linalg.eigvalsh(T.matrix).min() > 0
    moved = T.matrix - torch.eye(d, dtype=F64)
    close(torch.trace(moved @ p.cov @ moved.mT) + (q.mean - p.mean).square().sum(), w2_squared(p, q), 1e-12)
    reference = ot.gaussian.bures_wasserstein_mapping(p.mean.numpy(), q.mean.numpy(), p.cov.numpy(), q.cov.numpy())
    close(T.matrix, reference[0], 1e-8)


@pytest.mark.parametrize("seed", range(5))
def test_monge_map_at_condition_number_1e10(seed):
    p, q = pair(10, seed, condition=1e10)
    p, q = (Gaussian(g.mean, g.cov / torch.linalg.matrix_norm(g.cov, 2)) for g in (p, q))
    matrix = monge_map(p, q).matrix
    image = matrix @ torch.linalg.cholesky(p.cov)  # T A Tᵀ itself would round at the size of ‖T‖² = 1e10
    assert (image @ image.mT - q.cov).abs().max() < 1e-12
    assert (matrix - matrix.mT).abs().max() < 1e-12 * matrix.abs().max()


def test_monge_map_to_a_singular_law_and_from_one():
    p, _ = pair(3)
    direction = torch.tensor([[1.0], [-2.0], [0.5]], dtype=F64)
    line = Gaussian(torch.ones(3, dtype=F64), direction @ direction.mT)
    close(monge_map(p, line).push_forward(p).cov, line.cov, 1e-12)
    with pytest.raises(ValueError, match="p must have a positive definite"):
        monge_map(line, p)


@pytest.mark.parametrize("d", DIMENSIONS)
def test_geodesic_has_constant_speed(d):
    p, q = pair(d)
    distance = w2_squared(p, q).sqrt()
    for s, t in ((0.0, 0.5), (0.1, 0.35), (0.4, 1.0), (0.6, 0.9), (0.0, 1.0)):
        close(w2_squared(geodesic(p, q, s), geodesic(p, q, t)).sqrt(), (t - s) * distance, 1e-12)
    T = monge_map(p, q)
    half = Affine(0.5 * (torch.eye(d, dtype=F64) + T.matrix), 0.5 * T.offset)
    close(geodesic(p, q, 0.5).cov, half.push_forward(p).cov, 1e-12)


# --- flow matching -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolant", (LINEAR, TRIGONOMETRIC, CUBIC), ids=("linear", "trigonometric", "cubic"))
@pytest.mark.parametrize("d", (1, 2))
def test_velocity_is_the_conditional_expectation(d, interpolant):
    p, q = pair(d, condition=4.0)
    c = cross_covariance(p, q, strength=0.3)  # small, so that its transpose is admissible too
    x = p.mean + torch.randn(3, d, generator=generator(), dtype=F64)
    joint = block(p, q, c)
    for t in (0.15, 0.5, 0.8):
        expected = conditional_velocity(
            lambda x0, x1: joint.log_prob(torch.cat([x0, x1], -1)), interpolant, t, x, centre=q.mean, radius=12.0
        )
        close(fm_velocity(p, q, t, x, cross_cov=c, interpolant=interpolant), expected, 1e-11)
        if d > 1:  # the transposed block solves the same continuity equation; only the conditional expectation tells
            transposed = fm_velocity(p, q, t, x, cross_cov=c.mT, interpolant=interpolant)
            assert (transposed - expected).abs().max() > 1e-2


@pytest.mark.parametrize("d", DIMENSIONS)
def test_velocity_solves_the_moment_equations(d):
    p, q = pair(d)
    c = cross_covariance(p, q)
    t, h = 0.37, 1e-5

    def law(t):
        alpha, beta = (float(a) for a in TRIGONOMETRIC.coefficients(t)[:2])
        joined = torch.cat([alpha * torch.eye(d, dtype=F64), beta * torch.eye(d, dtype=F64)], 1)
        return Affine(joined, torch.zeros(d, dtype=F64)).push_forward(block(p, q, c))

    now, before, after = law(t), law(t - h), law(t + h)
    basis = torch.cat([now.mean.unsqueeze(0), now.mean + torch.eye(d, dtype=F64)])
    v = fm_velocity(p, q, t, basis, cross_cov=c, interpolant=TRIGONOMETRIC)
    B = (v[1:] - v[:1]).mT
    close(v[0], (after.mean - before.mean) / (2 * h), 1e-7)
    close(B @ now.cov + now.cov @ B.mT, (after.cov - before.cov) / (2 * h), 1e-6)


def test_velocity_at_the_ends_for_times_per_point_and_for_batches():
    p, q = pair(3)
    c = cross_covariance(p, q)
    x = torch.randn(4, 3, generator=generator(), dtype=F64)
    near, at = fm_velocity(p, q, 1 - 1e-9, x, cross_cov=c), fm_velocity(p, q, 1.0, x, cross_cov=c)
    close(near, at, 1e-6)
    times = torch.tensor([0.0, 0.3, 0.9, 1.0], dtype=F64)
    together = fm_velocity(p, q, times, x, cross_cov=c)
    close(together, torch.cat([fm_velocity(p, q, t, x[i : i + 1], cross_cov=c) for i, t in enumerate(times)]), 1e-13)
    p2, q2 = pair(3, 1)
    batch_p = Gaussian(torch.stack([p.mean, p2.mean]), torch.stack([p.cov, p2.cov]))
    batch_q = Gaussian(torch.stack([q.mean, q2.mean]), torch.stack([q.cov, q2.cov]))
    for t in (0.4, times):
        both = fm_velocity(batch_p, batch_q, t, x)
        close(both, torch.stack([fm_velocity(p, q, t, x), fm_velocity(p2, q2, t, x)]), 1e-13)
    for function in (w2_squared, fm_kinetic_energy):
        close(function(batch_p, batch_q), torch.stack([function(p, q), function(p2, q2)]), 1e-13)
    for function in (monge_map, lambda p, q: fm_flow(p, q, 0.7)):
        close(function(batch_p, batch_q)(x), torch.stack([function(p, q)(x), function(p2, q2)(x)]), 1e-12)
    c2 = cross_covariance(p2, q2)
    general = fm_flow(batch_p, batch_q, 0.7, cross_cov=torch.stack([c, c2]))
    close(general(x)[1], fm_flow(p2, q2, 0.7, cross_cov=c2)(x), 1e-11)
    close(geodesic(batch_p, batch_q, 0.3).cov[1], geodesic(p2, q2, 0.3).cov, 1e-13)
    close(schroedinger_bridge(batch_p, batch_q, 0.5).energy[1], schroedinger_bridge(p2, q2, 0.5).energy, 1e-12)


def test_velocity_towards_a_singular_law_lives_on_its_support_at_the_end():
    p, _ = pair(2)
    line = Gaussian([1.0, 1.0], [[1.0, 2.0], [2.0, 4.0]])
    on, off = torch.tensor([[2.0, 3.0]], dtype=F64), torch.tensor([[2.0, 2.0]], dtype=F64)
    # Independent ends: E[X1 − X0 | X1 = x] = x − m0 on the support.
    close(fm_velocity(p, line, 1.0, on), on - p.mean, 1e-12)
    with pytest.raises(ValueError, match="support"):
        fm_velocity(p, line, 1.0, off)
    with pytest.raises(ValueError, match="support"):  # X1 = −X0 meets at the origin at t = 1/2
        fm_velocity(Gaussian([0.0], [[1.0]]), Gaussian([0.0], [[1.0]]), 0.5, [[0.3]], cross_cov=[[-1.0]])


@pytest.mark.parametrize("interpolant", (LINEAR, TRIGONOMETRIC, CUBIC), ids=("linear", "trigonometric", "cubic"))
@pytest.mark.parametrize("d", DIMENSIONS)
def test_flow_is_the_integral_of_the_velocity(d, interpolant):
    p, q = pair(d)
    x = p.sample(3, generator=generator())
    for c in (None, cross_covariance(p, q)):
        t = 0.7
        expected = flows.integrate_adaptive(
            lambda s, x: fm_velocity(p, q, s, x, cross_cov=c, interpolant=interpolant), x, t1=t, rtol=1e-12, atol=1e-13
        )
        close(fm_flow(p, q, t, cross_cov=c, interpolant=interpolant)(x), expected, 1e-9)
    close(fm_flow(p, q, 0.0, cross_cov=c, interpolant=interpolant)(x), x, 1e-13)


@pytest.mark.parametrize("d", DIMENSIONS)
def test_end_map_of_independent_ends(d):
    p, q = pair(d)
    phi = fm_flow(p, q, 1.0)
    close(phi.matrix, sqrtm(q.cov @ torch.linalg.inv(p.cov)), 1e-10)
    close(phi.push_forward(p).cov, q.cov, 1e-11)
    close(fm_flow(p, q, 1.0, cross_cov=torch.zeros(d, d, dtype=F64)).matrix, phi.matrix, 1e-10)
    commuting = Gaussian(q.mean, 0.3 * torch.linalg.matrix_power(p.cov, 2) + p.cov)
    close(fm_flow(p, commuting, 1.0).matrix, monge_map(p, commuting).matrix, 1e-11)
    if d > 1:
        assert (phi.matrix - monge_map(p, q).matrix).abs().max() > 1e-3
        c = cross_covariance(p, q)
        linear, cubic = fm_flow(p, q, 1.0, cross_cov=c), fm_flow(p, q, 1.0, cross_cov=c, interpolant=CUBIC)
        close(linear.matrix, cubic.matrix, 1e-9)  # the end map depends on the coupling, not on the path


def test_rotation_by_a_correlated_coupling():
    J, k = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=F64), 0.6
    p = Gaussian(torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64))
    # The notes' block Σ01 = Cov(X1, X0) is kJ, so cross_cov is its transpose.
    phi = fm_flow(p, p, 1.0, cross_cov=k * J.mT)
    close(phi.matrix, torch.linalg.matrix_exp(k * math.pi / 2 * J), 1e-10)


@pytest.mark.parametrize("interpolant", (LINEAR, TRIGONOMETRIC, CUBIC), ids=("linear", "trigonometric", "cubic"))
@pytest.mark.parametrize("d", (1, 2, 3))
def test_energy_is_the_integral_of_the_squared_velocity(d, interpolant):
    p, q = pair(d)
    for c in (None, cross_covariance(p, q)):
        joint = torch.zeros(d, d, dtype=F64) if c is None else c

        def path(t, joint=joint):
            alpha, beta = (float(a) for a in interpolant.coefficients(t)[:2])
            joined = torch.cat([alpha * torch.eye(d, dtype=F64), beta * torch.eye(d, dtype=F64)], 1)
            return Affine(joined, torch.zeros(d, dtype=F64)).push_forward(block(p, q, joint)).quadrature(3)

        expected = continuity.kinetic_energy(
            path, lambda t, x, c=c: fm_velocity(p, q, t, x, cross_cov=c, interpolant=interpolant), times=120
        )
        close(fm_kinetic_energy(p, q, cross_cov=c, interpolant=interpolant), expected, 1e-10)


@pytest.mark.parametrize("r", (0.0, 0.5, -0.9, 0.99))
def test_energy_of_a_correlated_pair_in_one_dimension(r):
    p = Gaussian([0.0], [[1.0]])
    close(fm_kinetic_energy(p, p, cross_cov=[[r]]), 2 * (1 - r) - math.sqrt(1 - r * r) * math.acos(r), 1e-10)


def test_energy_orders_and_the_singular_target():
    p, q = pair(4)
    phi = fm_flow(p, q, 1.0)
    moved = phi.matrix - torch.eye(4, dtype=F64)
    cost = torch.trace(moved @ p.cov @ moved.mT) + (q.mean - p.mean).square().sum()
    second = (q.mean - p.mean).square().sum() + torch.trace(p.cov + q.cov)
    assert w2_squared(p, q) < cost < fm_kinetic_energy(p, q) < second
    point = Gaussian(q.mean, torch.zeros(4, 4, dtype=F64))  # v = m1 − x0: the energy is the second moment about m1
    close(fm_kinetic_energy(p, point), (q.mean - p.mean).square().sum() + torch.trace(p.cov), 1e-12)
    close(fm_kinetic_energy(point, p), fm_kinetic_energy(p, point), 1e-12)
    with pytest.raises(RuntimeError, match="did not converge"):  # a clock t ↦ t^¼ of infinite energy at t = 0
        fm_kinetic_energy(
            Gaussian([0.0], [[1.0]]),
            Gaussian([0.0], [[1.0]]),
            cross_cov=[[-0.5]],
            interpolant=Interpolant(lambda t: 1 - t**0.25, lambda t: t**0.25),
        )


# --- entropic plans and bridges ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("epsilon", (0.05, 0.8))
def test_entropic_plan_is_characterised_by_its_precision(d, epsilon):
    p, q = pair(d)
    plan = entropic_plan(p, q, epsilon)
    joint = block(p, q, plan.cross_cov)
    close(torch.linalg.inv(joint.cov)[:d, d:], -torch.eye(d, dtype=F64) / epsilon, 1e-9)
    product = block(p, q, torch.zeros(d, d, dtype=F64))
    laws = [torch.distributions.MultivariateNormal(g.mean, g.cov) for g in (joint, product)]
    second = (p.mean - q.mean).square().sum() + torch.trace(p.cov + q.cov - 2 * plan.cross_cov)
    close(plan.cost, 0.5 * second + epsilon * torch.distributions.kl_divergence(*laws), 1e-11)


def test_entropic_plan_is_sinkhorns_with_the_half_in_the_cost():
    p, q, epsilon = Gaussian([0.2], [[0.7]]), Gaussian([-0.5], [[1.6]]), 0.5
    grid = torch.linspace(-9, 9, 400, dtype=F64)
    a, b = (torch.softmax(g.log_prob(grid.unsqueeze(-1)), 0).numpy() for g in (p, q))
    cost = 0.5 * (grid.unsqueeze(-1) - grid).square()
    plan = torch.as_tensor(ot.sinkhorn(a, b, cost.numpy(), epsilon, method="sinkhorn_log", stopThr=1e-12))
    cross = (plan * torch.outer(grid, grid)).sum() - p.mean * q.mean
    close(entropic_plan(p, q, epsilon).cross_cov.squeeze(), cross.squeeze(), 1e-8)
    entropy = (plan * (plan / torch.as_tensor(np.outer(a, b))).clamp_min(1e-300).log()).sum()
    close(entropic_plan(p, q, epsilon).cost, (plan * cost).sum() + epsilon * entropy, 1e-8)


def test_entropic_plan_tends_to_the_optimal_one():
    p, q = pair(3)
    plan = entropic_plan(p, q, 1e-9)
    close(plan.cross_cov, p.cov @ monge_map(p, q).matrix, 1e-7)
    singular = Gaussian([0.0, 0.0, 0.0], torch.diag(torch.tensor([1.0, 0.0, 0.0], dtype=F64)))
    assert torch.isfinite(entropic_plan(singular, q, 0.3).cost)


@pytest.mark.parametrize("d", (1, 2, 3))
def test_bridge(d):
    p, q = pair(d)
    bridge = schroedinger_bridge(p, q, 0.8)
    for t, end in ((0.0, p), (1.0, q)):
        close(bridge.marginal(t).cov, end.cov, 1e-12)
    x = torch.randn(4, d, generator=generator(), dtype=F64)
    t = 0.4
    jacobian = torch.autograd.functional.jacobian(lambda y: bridge.drift(t, y.unsqueeze(0))[0], x[0])
    close(jacobian, jacobian.mT, 1e-11)  # the drift is a gradient only with ε = σ²
    close(bridge.drift(1.0, x), bridge.drift(1 - 1e-8, x), 1e-6)
    score = torch.autograd.functional.jacobian(lambda y: bridge.marginal(t).log_prob(y).sum(), x)
    close(bridge.drift(t, x) - bridge.velocity(t, x), 0.5 * 0.8**2 * score, 1e-11)

    def psi(t, x):
        return torch.sin(1.3 * t + x.sum(-1)) * torch.cos(0.4 * x[:, 0])

    path = lambda t: bridge.marginal(t).quadrature(24)
    assert continuity.weak_residual(path, bridge.velocity, psi, times=40) < 1e-10
    # ½E∫|u|² by quadrature against the closed form through the static relative entropy.
    close(bridge.energy, 0.5 * continuity.kinetic_energy(path, bridge.drift, times=80), 1e-10)


def test_bridge_needs_its_own_epsilon():
    p, q = pair(2)
    bridge = schroedinger_bridge(p, q, 0.8)
    wrong = type(bridge)(p, q, 0.8, entropic_plan(p, q, 2 * 0.8**2).cross_cov, bridge.energy)
    x = torch.zeros(2, dtype=F64)
    jacobian = torch.autograd.functional.jacobian(lambda y: wrong.drift(0.4, y.unsqueeze(0))[0], x)
    assert (jacobian - jacobian.mT).abs().max() > 1e-3


# --- what users get wrong ----------------------------------------------------------------------------------------------------

GOOD = Gaussian([0.0, 0.0], [[2.0, 0.6], [0.6, 1.0]])
SINGULAR = Gaussian([0.0, 0.0], [[1.0, 1.0], [1.0, 1.0]])
ORIGIN = [[0.0, 0.0]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Gaussian([0.0, math.nan], torch.eye(2)), "mean must be finite"),
        (lambda: Gaussian([0.0, 0.0], [[1.0, math.inf], [0.0, 1.0]]), "cov must be finite"),
        (lambda: Gaussian([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]]), "cov must be symmetric"),
        (lambda: Gaussian([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]), "cov must be positive semi-definite"),
        (lambda: Gaussian([0.0, 0.0], torch.eye(3)), "cov must have shape"),
        (lambda: Gaussian([], torch.zeros(0, 0)), "mean must have shape"),
        (lambda: Gaussian(0.0, [[1.0]]), "mean must have shape"),
        (lambda: Gaussian(torch.zeros(3, 2), torch.eye(2).expand(4, 2, 2)), "compatible batches"),
        (lambda: Gaussian(["a"], [[1.0]]), "mean must be an array of numbers"),
        (lambda: Gaussian([1j], [[1.0]]), "mean must be real"),
        (lambda: GOOD.sample(0), "n must be an integer"),
        (lambda: GOOD.log_prob([[0.0, 0.0, 0.0]]), "x must have dimension 2"),
        (lambda: GOOD.log_prob([0.0, 0.0]), "x must be a non-empty array"),
        (lambda: Gaussian(torch.zeros(8), torch.eye(8)).quadrature(20), "quadrature needs"),
        (lambda: w2_squared(GOOD, Gaussian([0.0], [[1.0]])), "one dimension"),
        (lambda: monge_map(SINGULAR, GOOD), "p must have a positive definite covariance"),
        (lambda: fm_flow(SINGULAR, GOOD, 1.0), "p must have a positive definite covariance"),
        (lambda: geodesic(GOOD, GOOD, 1.5), r"t must lie in \[0, 1\]"),
        (lambda: geodesic(GOOD, GOOD, math.nan), "t must be finite"),
        (lambda: fm_velocity(GOOD, GOOD, -0.1, ORIGIN), r"t must lie in \[0, 1\]"),
        (lambda: fm_velocity(GOOD, GOOD, [0.1, 0.2], ORIGIN), "t must be a scalar or of shape"),
        (lambda: fm_velocity(GOOD, GOOD, 0.5, [[math.nan, 0.0]]), "x must be finite"),
        (lambda: fm_velocity(GOOD, GOOD, 0.5, ORIGIN, cross_cov=[[2.0, 0.0], [0.0, 2.0]]), "joint covariance"),
        (lambda: fm_velocity(GOOD, GOOD, 0.5, ORIGIN, cross_cov=[1.0, 2.0]), "cross_cov must have shape"),
        (lambda: fm_kinetic_energy(GOOD, GOOD, cross_cov=3 * torch.eye(2)), "joint covariance"),
        (lambda: fm_kinetic_energy(SINGULAR, SINGULAR), "definite covariance"),
        (lambda: entropic_plan(GOOD, GOOD, 0.0), "epsilon must be a positive number"),
        (lambda: entropic_plan(GOOD, GOOD, math.nan), "epsilon must be finite"),
        (lambda: schroedinger_bridge(GOOD, GOOD, -1.0), "sigma must be a positive number"),
        (lambda: schroedinger_bridge(GOOD, SINGULAR, 1.0), "q must have a positive definite covariance"),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_singular_source_is_met_where_it_makes_sense():
    close(w2_squared(SINGULAR, GOOD), w2_squared(GOOD, SINGULAR), 1e-13)
    close(geodesic(SINGULAR, GOOD, 0.25).cov, geodesic(GOOD, SINGULAR, 0.75).cov, 1e-12)


def test_float32_and_spd_instances():
    p = Gaussian(torch.zeros(2), torch.eye(2))
    assert fm_velocity(p, p, 0.5, torch.ones(3, 2)).dtype == torch.float32
    a, b = spd(4, generator(1)), spd(4, generator(2))
    assert (a @ b - b @ a).abs().max() > 0.1  # the instances do not commute, or the tests above prove little


# --- the geometric mean ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", DIMENSIONS)
def test_geometric_mean_is_that_of_roots_and_solves_riccatis_equation(d):
    p, q = pair(d, condition=100.0)
    found, root = geometric_mean(p.cov, q.cov), sqrtm(p.cov)
    inverse = torch.linalg.inv(root)
    close(found, root @ sqrtm(inverse @ q.cov @ inverse) @ root, 1e-10)
    close(found @ torch.linalg.solve(p.cov, found), q.cov, 1e-10)
    close(found, geometric_mean(q.cov, p.cov), 1e-12)
    assert torch.equal(found, found.mT) and torch.linalg.eigvalsh(found).min() > 0
    if d > 1:  # what it is taken for: the root in W2, the root of the product, the mean of logarithms, of which none is it
        logarithms = [torch.as_tensor(scipy.linalg.logm(cov.numpy())) for cov in (p.cov, q.cov)]
        for wrong in (sqrtm(root @ q.cov @ root), sqrtm(p.cov @ q.cov), torch.matrix_exp(sum(logarithms) / 2)):
            assert (found - wrong).abs().max() > 1e-3
        assert found.trace() < sqrtm(root @ q.cov @ root).trace()


def test_geometric_mean_moves_with_a_change_of_coordinates_and_joins_batches():
    p, q = pair(4)
    moves = torch.randn(3, 4, 4, generator=generator(), dtype=F64)
    found = geometric_mean(moves @ p.cov @ moves.mT, moves @ q.cov @ moves.mT)
    close(found, moves @ geometric_mean(p.cov, q.cov) @ moves.mT, 1e-9)
    stacked = geometric_mean(torch.stack([p.cov, q.cov])[:, None], torch.stack([p.cov, 2 * q.cov, q.cov]))
    assert stacked.shape == (2, 3, 4, 4)
    close(stacked[1, 0], geometric_mean(p.cov, q.cov), 1e-12)
    close(stacked[1, 1], 2**0.5 * q.cov, 1e-12)


@pytest.mark.parametrize("rank", (0, 1, 2))
def test_geometric_mean_with_a_singular_covariance_is_the_limit(rank):
    p, _ = pair(3)
    root = torch.randn(3, rank, generator=generator(), dtype=F64)
    singular = root @ root.mT
    found = geometric_mean(p.cov, singular)
    close(found, geometric_mean(singular, p.cov), 1e-12)
    close(found @ torch.linalg.solve(p.cov, found), singular, 1e-10)
    assert torch.linalg.matrix_rank(found, atol=1e-8) == rank
    close(found, geometric_mean(p.cov, singular + 1e-14 * torch.eye(3)), 1e-5)


def test_geometric_mean_gives_the_floor_of_the_loss():
    """E|X1 − X0|² is the energy of the field and the floor of its loss, (π/2) tr A#B."""
    p, q = pair(3)
    total = (p.mean - q.mean).square().sum() + p.cov.trace() + q.cov.trace()
    close(
        total - fm_kinetic_energy(p, q, cross_cov=torch.zeros(3, 3)), 0.5 * math.pi * geometric_mean(p.cov, q.cov).trace(), 1e-9
    )


@pytest.mark.parametrize(
    ("cov0", "cov1", "words"),
    [
        (1.0, [[1.0]], "cov0 must have shape"),
        ([1.0], [[1.0]], "cov0 must have shape"),
        ([[1.0, 0.0]], [[1.0]], "cov0 must have shape"),
        (torch.zeros(0, 0), [[1.0]], "cov0 must have shape"),
        ([[1.0]], torch.eye(2), r"cov1 must have shape \(..., 1, 1\)"),
        ([[1.0, 2.0], [0.0, 1.0]], torch.eye(2), "cov0 must be symmetric"),
        (torch.eye(2), -torch.eye(2), "cov1 must be positive semi-definite"),
        (torch.eye(2).expand(2, 2, 2), torch.eye(2).expand(3, 2, 2), "cov0 and cov1 must have compatible batches"),
        ([[1.0, 1.0], [1.0, 1.0]], [[1.0, 0.0], [0.0, 0.0]], "cov0 or cov1 must be definite"),
        ([[float("nan")]], [[1.0]], "cov0 must be finite"),
    ],
)
def test_geometric_mean_refuses_what_is_no_covariance(cov0, cov1, words):
    with pytest.raises(ValueError, match=words):
        geometric_mean(cov0, cov1)


def test_random_gaussians_are_definite_do_not_commute_and_come_from_the_generator():
    for d in DIMENSIONS:
        p, q = (random_gaussian(d, generator=generator(seed)) for seed in (0, 1))
        assert p.mean.shape == (d,) and p.mean.dtype == F64 and torch.linalg.eigvalsh(p.cov).min() >= 0.3
        assert d == 1 or (p.cov @ q.cov - q.cov @ p.cov).abs().max() > 1e-3
        assert torch.equal(random_gaussian(d, generator=generator(0)).cov, p.cov)
    laws = [random_gaussian(2, generator=generator(seed)) for seed in range(3000)]
    means, covs = torch.stack([p.mean for p in laws]), torch.stack([p.cov for p in laws])
    close(torch.cov(means.mT), torch.eye(2), 0.08)
    close(covs.mean(0), 1.3 * torch.eye(2), 0.05)
    close(covs[:, 0, 0].var(), 2 / 4, 0.05)  # of χ² with 4 degrees over 4
