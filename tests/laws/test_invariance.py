"""What may not matter to any function of Gaussian laws, beyond ``test_properties``: dimensions, precisions, sizes, order."""

import math

import pytest
import torch
from instances import cross_covariance, generator, pair

from dynot_lite.laws.gaussian import (
    Affine,
    Gaussian,
    entropic_plan,
    fm_flow,
    fm_kinetic_energy,
    fm_velocity,
    geodesic,
    monge_map,
    schroedinger_bridge,
    w2_squared,
)
from dynot_lite.laws.mixtures import GaussianMixture, fm_velocity_mixture
from dynot_lite.paths.interpolants import TRIGONOMETRIC, VARIANCE_PRESERVING, Interpolant

F64 = torch.float64
CUBIC = Interpolant(lambda t: 1 - t**3, lambda t: t * (2 - t))
HALVES = [0.4, 0.6]


def together(p, q):
    return torch.stack([p.mean, q.mean]), torch.stack([p.cov, q.cov])


def mixture_velocity(p, q, x, c, u):
    means, covs = together(p, q)
    return fm_velocity_mixture(HALVES, means, means.flip(0), covs, covs.flip(0), 0.4, x)


# f(p, q, x, c, u), points x, a cross-covariance c and the unit u: its value in the unit u is u**power times that in the unit 1.
VALUES = {
    "sample": (lambda p, q, x, c, u: p.sample(3, generator=generator()), 1),
    "quadrature": (lambda p, q, x, c, u: p.quadrature(3)[0], 1),
    "log_prob": (lambda p, q, x, c, u: p.log_prob(x) + p.dim * math.log(u), 0),
    "w2_squared": (lambda p, q, x, c, u: w2_squared(p, q), 2),
    "monge_map": (lambda p, q, x, c, u: monge_map(p, q)(x), 1),
    "geodesic": (lambda p, q, x, c, u: geodesic(p, q, 0.3).cov, 2),
    "push_forward": (lambda p, q, x, c, u: Affine(c / u**2, q.mean).push_forward(p).cov, 2),
    "fm_velocity": (lambda p, q, x, c, u: fm_velocity(p, q, 0.3, x), 1),
    "fm_velocity, cross_cov": (lambda p, q, x, c, u: fm_velocity(p, q, 0.3, x, cross_cov=c, interpolant=CUBIC), 1),
    "fm_flow": (lambda p, q, x, c, u: fm_flow(p, q, 0.7)(x), 1),
    "fm_flow, cross_cov": (lambda p, q, x, c, u: fm_flow(p, q, 0.7, cross_cov=c)(x), 1),
    "fm_kinetic_energy": (lambda p, q, x, c, u: fm_kinetic_energy(p, q), 2),
    "fm_kinetic_energy, trigonometric": (lambda p, q, x, c, u: fm_kinetic_energy(p, q, interpolant=TRIGONOMETRIC), 2),
    "fm_kinetic_energy, cross_cov": (lambda p, q, x, c, u: fm_kinetic_energy(p, q, cross_cov=c), 2),
    "entropic_plan": (lambda p, q, x, c, u: entropic_plan(p, q, 0.3 * u**2).cross_cov, 2),
    "its cost": (lambda p, q, x, c, u: entropic_plan(p, q, 0.3 * u**2).cost, 2),
    "bridge, drift": (lambda p, q, x, c, u: schroedinger_bridge(p, q, 0.8 * u).drift(0.4, x), 1),
    "bridge, energy": (lambda p, q, x, c, u: schroedinger_bridge(p, q, 0.8 * u).energy, 2),
    "mixture, log_prob": (lambda p, q, x, c, u: GaussianMixture(HALVES, *together(p, q)).log_prob(x) + p.dim * math.log(u), 0),
    "mixture, velocity": (mixture_velocity, 1),
}


def instance(d, unit=1.0, dtype=F64):
    p, q = pair(d, condition=6.0)
    c, x = cross_covariance(p, q), p.mean + torch.randn(4, d, generator=generator(2), dtype=F64)
    p, q = (Gaussian((unit * law.mean).to(dtype), (unit**2 * law.cov).to(dtype)) for law in (p, q))
    return p, q, (unit * x).to(dtype), (unit**2 * c).to(dtype)


@pytest.mark.parametrize(
    ("dtype", "unit"), [(torch.float32, 1e-12), (torch.float32, 1e12), (F64, 1e-150), (F64, 1e-75), (F64, 1e75), (F64, 1e150)]
)
@pytest.mark.parametrize("name", VALUES)
def test_units_whose_fourth_powers_are_no_floats(name, dtype, unit):
    function, power = VALUES[name]
    for d in (1, 2, 3):
        found, expected = (function(*instance(d, u, dtype), u).to(F64) for u in (unit, 1.0))
        tol = 1e-9 if dtype == F64 else 2e-4
        assert found.shape == expected.shape and (found / unit**power - expected).abs().max() < tol * expected.abs().max()


@pytest.mark.parametrize("name", [name for name in VALUES if name not in ("sample", "quadrature")])
def test_permutations_of_coordinates_and_points(name):
    function, _ = VALUES[name]
    p, q, x, c = instance(3)
    order, several = torch.tensor([2, 0, 1]), torch.tensor([3, 1, 0, 2])
    turned = lambda law: Gaussian(law.mean[order], law.cov[order][:, order])
    expected = function(p, q, x, c, 1.0)
    if expected.shape[:1] == x.shape[:1]:
        torch.testing.assert_close(function(p, q, x[several], c, 1.0), expected[several], rtol=1e-12, atol=1e-12)
    if expected.shape == (3, 3):
        expected = expected[order][:, order]
    elif expected.shape == x.shape:
        expected = expected[:, order]
    found = function(turned(p), turned(q), x[:, order], c[order][:, order], 1.0)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", VALUES)
def test_precisions_are_reconciled(name):
    function, _ = VALUES[name]
    p, q, x, c = instance(3)
    expected = function(p, q, x, c, 1.0)
    p32, q32 = (Gaussian(law.mean.float(), law.cov.float()) for law in (p, q))
    for given, dtype in (
        ((p32, q, x, c), torch.float32),
        ((p, q32, x.float(), c.float()), F64),
        ((p32, q32, x, c), torch.float32),
    ):
        found = function(*given, 1.0)
        assert found.dtype == dtype or "mixture" in name or name == "push_forward"  # whose first argument is another
        if name != "sample":
            torch.testing.assert_close(found.to(F64), expected, rtol=1e-4, atol=1e-4)


def test_a_covariance_is_judged_in_the_precision_it_comes_in():
    root = torch.tensor([[1.1, -0.7, 0.3], [0.2, 0.9, 1.3]]).mT
    singular = root @ root.mT  # its smallest eigenvalue is a rounding of float32, of either sign
    for sign in (1.0, -1.0):
        p = Gaussian(torch.zeros(3, dtype=F64), singular + sign * 1e-7 * torch.eye(3))
        assert p.cov.dtype == F64
        torch.testing.assert_close(w2_squared(p, p).item(), 0.0, rtol=0, atol=1e-6)
    p, q = (Gaussian(torch.zeros(3, dtype=F64), cov) for cov in (singular, 4 * singular))
    # X1 = 2 X0, whose cross-covariance in float32 leaves the joint one semi-definite up to its own rounding only.
    assert fm_velocity(p, q, 0.5, torch.zeros(1, 3), cross_cov=2 * singular).abs().max() == 0
    with pytest.raises(ValueError, match="positive semi-definite"):
        Gaussian(torch.zeros(3, dtype=F64), singular.to(F64) - 1e-6 * torch.eye(3))


def test_coordinates_may_have_units_of_their_own():
    p, q = (Gaussian([0.0, 0.0], torch.diag(torch.tensor(a, dtype=F64))) for a in ((1.0, 1e-24), (4.0, 1e-22)))
    assert p.definite and q.definite
    torch.testing.assert_close(monge_map(p, q).matrix, torch.diag(torch.tensor([2.0, 10.0], dtype=F64)), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fm_flow(p, q, 1.0).matrix, monge_map(p, q).matrix, rtol=1e-12, atol=1e-12)
    expected = -0.5 - 2.0 - math.log(2 * math.pi) + 12 * math.log(10)  # at one and two standard deviations
    torch.testing.assert_close(p.log_prob([[1.0, 2e-12]]).item(), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("unit", (1e-12, 1.0, 1e12))
@pytest.mark.parametrize("dtype", (F64, torch.float32))
def test_the_support_is_the_same_in_every_unit(unit, dtype):
    p = Gaussian(torch.zeros(2, dtype=dtype), unit**2 * torch.eye(2, dtype=dtype))
    for shift in (0.0, 3.0):
        mean = unit * torch.tensor([shift, shift], dtype=dtype)
        line = Gaussian(mean, unit**2 * torch.tensor([[1.0, 2.0], [2.0, 4.0]], dtype=dtype))
        on = mean + unit * torch.tensor([[0.1, 0.2], [3.0, 6.0], [0.0, 0.0]], dtype=dtype)
        torch.testing.assert_close(fm_velocity(p, line, 1.0, on), on, rtol=1e-5, atol=1e-5 * unit)
        off = on + unit * torch.tensor([0.0, 1e-3], dtype=dtype)
        for times in (1.0, torch.ones(3)):
            with pytest.raises(ValueError, match="support"):
                fm_velocity(p, line, times, off)
        with pytest.raises(ValueError, match="support"):  # nor does one far out on the support hide another off it
            fm_velocity(p, line, 1.0, torch.cat([off[:1], mean + 1e4 * (on[1:2] - mean)]))


def test_singular_laws_in_every_unit():
    for unit in (1e-150, 1e-12, 1e12, 1e150):
        line, other = (unit**2 * torch.tensor(a, dtype=F64) for a in ([[4.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 9.0]]))
        p, q = Gaussian([0.0, 0.0], line), Gaussian([0.0, 0.0], other)
        torch.testing.assert_close(w2_squared(p, q).item() / unit**2, 13.0, rtol=1e-12, atol=0)
        torch.testing.assert_close(w2_squared(p, geodesic(p, q, 0.5)).item() / unit**2, 13.0 / 4, rtol=1e-7, atol=0)
        assert entropic_plan(p, q, 0.1 * unit**2).cross_cov.abs().max() < 1e-12 * unit**2


# --- sizes that have no squares ----------------------------------------------------------------------------------------------

ONE = Gaussian([0.0], [[1.0]])
MIXED = GaussianMixture(HALVES, [[0.0], [1.0]], [[1.0]])


@pytest.mark.parametrize(
    "call",
    [
        lambda huge: ONE.log_prob([[huge]]),
        lambda huge: MIXED.log_prob([[huge]]),
        lambda huge: w2_squared(ONE, Gaussian([huge], [[1.0]])),
        lambda huge: fm_kinetic_energy(ONE, Gaussian([huge], [[1.0]])),
        lambda huge: fm_kinetic_energy(ONE, Gaussian([huge], [[1.0]]), interpolant=CUBIC),
        lambda huge: entropic_plan(ONE, Gaussian([huge], [[1.0]]), 0.1),
        lambda huge: fm_velocity_mixture(HALVES, [[0.0], [1.0]], [[0.0], [1.0]], [[1.0]], [[1.0]], 0.4, [[huge]]),
    ],
)
def test_an_overflow_is_refused(call):
    for huge in (1e160, 1e300, -1e300):
        with pytest.raises(ValueError, match="overflow"):
            call(huge)


def test_what_is_representable_is_right():
    torch.testing.assert_close(ONE.log_prob([[1e150]]).item(), -0.5e300)
    torch.testing.assert_close(MIXED.log_prob([[1e150]]).item(), -0.5e300)
    torch.testing.assert_close(ONE.log_prob([[1e-300]]).item(), -0.5 * math.log(2 * math.pi))
    assert fm_velocity(ONE, ONE, 1.0, [[1e300]]).item() == 1e300
    assert w2_squared(ONE, Gaussian([1e-300], [[1.0]])) == 0
    # One component out of reach, the other near.
    found = GaussianMixture([0.5, 0.5], [[0.0], [1e8]], [[[1e-300]], [[1.0]]]).log_prob([[1e8]]).item()
    torch.testing.assert_close(found, math.log(0.5) - 0.5 * math.log(2 * math.pi))
    # Independent ends are the limit of large ε, and nothing cancels there.
    torch.testing.assert_close(entropic_plan(ONE, ONE, 1e12).cost.item(), 1.0, rtol=1e-10, atol=0)


def test_quadrature_of_the_largest_order():
    x, w = ONE.quadrature(320)
    moments = [(w * x[:, 0] ** k).sum().item() for k in (0, 2, 4, 6)]
    torch.testing.assert_close(moments, [1.0, 1.0, 3.0, 15.0], rtol=1e-11, atol=0)


# --- ends in sight, and names ------------------------------------------------------------------------------------------------


def test_energy_in_float32_is_that_in_float64():
    (p, q, _, c), (p32, q32, _, c32) = instance(3), instance(3, dtype=torch.float32)
    for interpolant in (CUBIC, TRIGONOMETRIC):
        found = fm_kinetic_energy(p32, q32, cross_cov=c32, interpolant=interpolant)
        expected = fm_kinetic_energy(p, q, cross_cov=c, interpolant=interpolant)
        torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("d", (1, 2, 3))
@pytest.mark.parametrize("u", (1e-6, 1.0, 1e6))
def test_a_path_that_degenerates_is_an_error(d, u):
    """X1 = −uX0 meets at the origin at time 1/(1 + u): M = 1 − t − ut solves the equation, but is no flow beyond it."""
    p = pair(d)[0]
    q, c, meeting = Gaussian(p.mean, u**2 * p.cov), -u * p.cov, 1 / (1 + u)
    for t in (0.9 * meeting, min(1.0, 1.1 * meeting), 1.0):
        if t > meeting * (1 + 1e-9):
            with pytest.raises(RuntimeError, match="singular on the way"):
                fm_flow(p, q, t, cross_cov=c)
        else:
            expected = (1 - t - u * t) * torch.eye(d, dtype=F64)
            torch.testing.assert_close(fm_flow(p, q, t, cross_cov=c).matrix, expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(fm_flow(p, p, 1.0, cross_cov=p.cov).matrix, torch.eye(d, dtype=F64))  # X1 = X0 meets nowhere
    # What only nearly meets is integrated: Σ_½ = ½(1 − r)A for the correlation −r.
    half = fm_flow(p, p, 0.5, cross_cov=-0.9999 * p.cov).matrix
    torch.testing.assert_close(half, math.sqrt(0.5 * 0.0001) * torch.eye(d, dtype=F64), rtol=1e-8, atol=1e-9)


TWO, THREE = (Gaussian(torch.zeros(n, 2), torch.eye(2)) for n in (2, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: w2_squared(TWO, THREE), "p and q must have compatible batches"),
        (lambda: TWO.log_prob(torch.zeros(3, 1, 2)), "x and the laws must have compatible batches"),
        (lambda: fm_velocity(TWO, TWO, 0.5, torch.zeros(3, 1, 2)), "x and the laws must have compatible batches"),
        (lambda: schroedinger_bridge(TWO, TWO, 1.0).drift(0.5, torch.zeros(3, 1, 2)), "x and the laws must have compatible"),
        (lambda: fm_velocity(TWO, TWO, 0.5, torch.zeros(1, 2), cross_cov=torch.zeros(3, 2, 2)), "cross_cov must have compatible"),
        (lambda: monge_map(TWO, TWO)(torch.zeros(3, 1, 2)), "x and the map must have compatible batches"),
        (lambda: Affine([[1.0, 0.0]], [0.0, 0.0]), "matrix and offset must be"),
        (lambda: Affine([1.0], [0.0]), "matrix and offset must be"),
        (lambda: Affine([[math.nan]], [0.0]), "matrix must be finite"),
        (lambda: Affine([[1.0]], [0.0]).push_forward(TWO), "p must have dimension 1"),
        (lambda: Affine([[1.0]], [0.0])([[0.0, 1.0]]), "x must have dimension 1"),
        (lambda: ONE.quadrature(321), "order ≤ 320"),
        (lambda: fm_velocity(ONE, ONE, 1.0, [[0.1]], interpolant=VARIANCE_PRESERVING), "a time at which the path has a velocity"),
        (lambda: fm_velocity(ONE, ONE, [0.5, 1.0], [[0.1], [0.2]], interpolant=VARIANCE_PRESERVING), "a time at which the path"),
    ],
)
def test_what_does_not_fit_together_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_maps_between_spaces_take_lists():
    T = Affine([[1.0, 2.0]], [3.0])
    assert T([[1.0, 1.0]]).tolist() == [[6.0]]
    assert T.push_forward(Gaussian([1.0, 1.0], torch.eye(2))).cov.tolist() == [[5.0]]
