import math

import numpy as np
import pytest
import torch
from instances import cross_covariance, generator, pair

from dynot_lite.laws.gaussian import Affine, Gaussian, fm_velocity, geodesic, monge_map, w2_squared
from dynot_lite.paths import continuity

F64 = torch.float64


def smooth(t, x):
    return torch.sin(1.3 * t + x[:, 0]) * torch.cos(0.4 * x.sum(-1))


def mccann(p, q):
    """McCann's pair between two Gaussians: quadrature path, velocity (T − id)∘T_t⁻¹, and the wrong velocity T − id."""
    T, eye = monge_map(p, q), torch.eye(p.dim, dtype=F64)

    def back(t, x):
        return torch.linalg.solve((1 - t) * eye + t * T.matrix, (x - t * T.offset).mT).mT

    return lambda t: geodesic(p, q, t).quadrature(26), lambda t, x: T(back(t, x)) - back(t, x), lambda t, x: T(x) - x


@pytest.mark.parametrize("d", (1, 2, 3))
def test_weak_residual_tells_mccann_from_its_wrong_versions(d):
    p, q = pair(d, condition=4.0)
    path, velocity, uninverted = mccann(p, q)
    assert continuity.weak_residual(path, velocity, smooth, times=20) < 1e-10
    assert continuity.weak_residual(path, uninverted, smooth, times=20) > 1e-3
    assert continuity.kinetic_energy(path, velocity, times=10) == pytest.approx(w2_squared(p, q).item(), rel=1e-12)
    # The end points count: a path that starts elsewhere violates the equation even if its interior is right.
    elsewhere = lambda t: path(t) if t > 0 else geodesic(p, q, 0.1).quadrature(26)
    assert continuity.weak_residual(elsewhere, velocity, smooth, times=20) > 1e-3


def test_weak_residual_is_the_quotient_that_its_documentation_gives():
    """Points at rest, with a velocity −1 and ψ = 3t + 2x: the terms are 3 and −2, and 3 − 2 − ψ_1 + ψ_0 = −2 of 5."""
    rest = torch.tensor([[0.5], [2.0]], dtype=F64), torch.tensor([0.25, 0.75], dtype=F64)
    found = continuity.weak_residual(lambda t: rest, lambda t, x: -torch.ones_like(x), lambda t, x: 3 * t + 2 * x[:, 0])
    assert found == pytest.approx(0.4, rel=1e-12)


def test_weak_residual_with_a_compact_test_function_converges():
    p, q = pair(1, condition=4.0)
    _path, velocity, uninverted = mccann(p, q)
    grid = torch.linspace(-15, 15, 4001, dtype=F64).unsqueeze(-1)

    def on_grid(t):
        weight = torch.softmax(geodesic(p, q, t).log_prob(grid), 0)
        return grid, weight

    psi = continuity.bump([0.5, float(0.5 * (p.mean + q.mean))], 0.45)
    assert psi(torch.tensor([0.0, 0.99], dtype=F64), torch.zeros(2, 1, dtype=F64)).abs().max() == 0
    assert continuity.weak_residual(on_grid, velocity, psi, times=200) < 1e-8
    assert continuity.weak_residual(on_grid, uninverted, psi, times=200) > 1e-3


def test_weak_residual_does_not_see_a_divergence_free_change():
    p, q = pair(2, condition=4.0)
    c = cross_covariance(p, q, strength=0.3)

    def path(t):
        return Gaussian((1 - t) * p.mean + t * q.mean, cov(t)).quadrature(26)

    def cov(t):
        return (1 - t) ** 2 * p.cov + t**2 * q.cov + t * (1 - t) * (c + c.mT)

    for cross in (c, c.mT):
        v = lambda t, x, cross=cross: fm_velocity(p, q, t, x, cross_cov=cross)
        assert continuity.weak_residual(path, v, smooth, times=24) < 1e-10
    gap = fm_velocity(p, q, 0.5, p.mean.unsqueeze(0) + 1, cross_cov=c) - fm_velocity(
        p, q, 0.5, p.mean.unsqueeze(0) + 1, cross_cov=c.mT
    )
    assert gap.abs().max() > 1e-2


def test_weak_residual_of_samples_falls_like_the_root_of_their_number():
    p, q = pair(2)
    residuals = []
    for n in (200, 20_000):
        runs = []
        for seed in range(20):
            gen = generator(seed)
            x0, x1 = p.sample(n, generator=gen), q.sample(n, generator=gen)
            path = lambda t: ((1 - t) * x0 + t * x1, torch.full((n,), 1 / n, dtype=F64))
            runs.append(continuity.weak_residual(path, lambda t, x: fm_velocity(p, q, t, x), smooth, times=12) ** 2)
        residuals.append(math.sqrt(sum(runs) / len(runs)))
    assert 5 < residuals[0] / residuals[1] < 20


def test_strong_residual_of_the_rotation_and_of_gaussians():
    R, Q = (
        torch.tensor([[0.0, -0.9], [0.9, 0.0]], dtype=F64),
        torch.linalg.matrix_exp(torch.tensor([[0.0, -0.9], [0.9, 0.0]], dtype=F64)),
    )
    normal = Gaussian([0.0, 0.0], torch.eye(2, dtype=F64))
    density = lambda t, x: normal.log_prob(x).exp()
    x = torch.tensor([[0.7, -0.3], [1.0, 2.0]], dtype=F64)
    assert continuity.strong_residual(density, lambda t, x: x @ R.mT, 0.2, x).abs().max() < 1e-15
    # "Any rotation" as the notes have it: the map Qx is not a solution; its divergence at (.7, −.3) is known in closed form.
    expected = density(0, x[:1]) * (torch.trace(Q) - x[0] @ Q @ x[0])
    torch.testing.assert_close(continuity.strong_residual(density, lambda t, x: x @ Q.mT, 0.2, x)[:1], expected)
    assert expected.item() == pytest.approx(0.105, abs=1e-3)
    p, q = pair(2)
    T, eye = monge_map(p, q), torch.eye(2, dtype=F64)

    def moving(t, x):
        A = (1 - t) * eye + t * T.matrix
        return Affine(A, t * T.offset).push_forward(p).log_prob(x).exp()

    velocity = mccann(p, q)[1]
    assert continuity.strong_residual(moving, velocity, 0.3, x).abs().max() < 1e-13
    assert continuity.strong_residual(moving, mccann(p, q)[2], 0.3, x).abs().max() > 1e-3


def test_bump_is_smooth_up_to_its_edge():
    psi = continuity.bump([0.5, 0.0], 0.4)
    x = torch.tensor([[0.4], [0.39], [0.0], [0.41]], dtype=F64, requires_grad=True)
    value = psi(torch.full((4,), 0.5, dtype=F64), x)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    assert torch.isfinite(gradient).all() and gradient[0] == gradient[3] == 0
    assert value[2].item() == pytest.approx(math.exp(-1))


ONE = (torch.zeros(1, 1, dtype=F64), torch.ones(1, dtype=F64))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: continuity.weak_residual(lambda t: ONE, lambda t, x: x, lambda t, x: 0 * t),
            "test_function must not be constant",
        ),
        (lambda: continuity.weak_residual(lambda t: (ONE[0], 2 * ONE[1]), lambda t, x: x, smooth), "path weights must sum to 1"),
        (
            lambda: continuity.weak_residual(lambda t: (ONE[0] * math.nan, ONE[1]), lambda t, x: x, smooth),
            "path points must be finite",
        ),
        (lambda: continuity.weak_residual(lambda t: ONE, lambda t, x: x.sum(-1), smooth), "velocity must return"),
        (lambda: continuity.kinetic_energy(lambda t: ONE, lambda t, x: x, times=0), "times must be an integer"),
        (lambda: continuity.kinetic_energy(lambda t: ONE, lambda t, x: x, times=([2.0], [1.0])), r"nodes in \[0, 1\]"),
        (lambda: continuity.kinetic_energy(lambda t: ONE, lambda t, x: x, times=10_000), "order must be at most 2000"),
        (lambda: continuity.kinetic_energy(lambda t: ONE, lambda t, x: x, times=([0.5], [1.0, 1.0])), "of one shape"),
        (lambda: continuity.kinetic_energy(lambda t: ONE[0], lambda t, x: x), r"path must return \(points, weights\)"),
        (
            lambda: continuity.kinetic_energy(lambda t: (torch.zeros(1, 1, 2), ONE[1]), lambda t, x: x),
            "path points must have shape",
        ),
        (lambda: continuity.kinetic_energy(lambda t: ONE, lambda t, x: x * math.nan), "finite values"),
        (lambda: continuity.kinetic_energy(lambda t: ONE, lambda t, x: x + 1e300), "finite values"),
        (lambda: continuity.weak_residual(lambda t: ONE, lambda t, x: x * math.nan, smooth), "finite values"),
        (lambda: continuity.weak_residual(lambda t: ONE, lambda t, x: x, lambda t, x: x[:, 0] + t * math.nan), "finite values"),
        (lambda: continuity.strong_residual(smooth, lambda t, x: x * math.nan, 0.3, ONE[0]), "finite values"),
        (lambda: continuity.bump([0.5, 0.0], 0.0), "radius must be a positive number"),
        (lambda: continuity.bump(0.5, 1.0), "centre must have shape"),
        (lambda: continuity.bump([0.5], 1.0)(torch.zeros(3), torch.zeros(3, 2)), "centre must hold a time and the 2 coordinates"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_number_of_times_may_come_from_numpy():
    energy = continuity.kinetic_energy(lambda t: ONE, lambda t, x: x + t, times=np.int64(3))
    assert energy == pytest.approx(1 / 3)


@pytest.mark.parametrize("unit", (1e-12, 1e12))
def test_the_unit_of_the_points_changes_no_residual(unit):
    p, q = pair(2, condition=4.0)
    path, velocity, uninverted = mccann(p, q)
    scaled = lambda t: (unit * path(t)[0], path(t)[1])
    for field, psi in ((velocity, smooth), (uninverted, smooth)):
        there = continuity.weak_residual(scaled, lambda t, x: unit * field(t, x / unit), lambda t, x: psi(t, x / unit), times=8)
        assert there == pytest.approx(continuity.weak_residual(path, field, psi, times=8), rel=1e-9, abs=1e-12)
    energy = continuity.kinetic_energy(scaled, lambda t, x: unit * velocity(t, x / unit), times=8)
    assert energy == pytest.approx(unit**2 * w2_squared(p, q).item(), rel=1e-12, abs=0)


# --- quadratures of paths of laws --------------------------------------------------------------------------------------------


class Triangle:
    """The law of density 1 − |x − shift| on the line: without tails, so that quadratures can be done by hand."""

    def __init__(self, shift):
        self.shift = shift

    def log_prob(self, x):
        return (1 - (x[:, 0] - self.shift).abs()).clamp_min(0).log()


def test_path_quadrature_is_the_laws():
    p, q = pair(2)
    x, weights = continuity.path_quadrature(lambda t: geodesic(p, q, t), 7)(0.3)
    expected = geodesic(p, q, 0.3).quadrature(7)
    assert torch.equal(x, expected[0]) and torch.equal(weights, expected[1])
    assert len(continuity.path_quadrature(lambda t: p)(0.3)[0]) == 400
    with pytest.raises(ValueError, match=r"law_at must return laws with a quadrature\(order\), got Triangle"):
        continuity.path_quadrature(Triangle)(0.3)
    with pytest.raises(TypeError, match="law_at must be a function"):
        continuity.path_quadrature(p)


def test_box_quadrature_by_hand():
    x, weights = continuity.box_quadrature(Triangle, [0.0], 1.0, 4)(0.25)
    assert x[:, 0].tolist() == [-0.75, -0.25, 0.25, 0.75, 3.0]
    assert torch.allclose(weights, torch.tensor([0, 0.25, 0.5, 0.25, 0.0], dtype=F64))
    _, weights = continuity.box_quadrature(Triangle, [2.0], 1.5, 3)(0.5)  # the cells around 1, 2 and 3, of width 1
    assert torch.allclose(weights, torch.tensor([0.5, 0, 0, 0.5], dtype=F64))
    # An odd side, another width on each axis and a law that is no product: cells are (i, j) in the order of a product.
    law = Gaussian([0.2, -0.1], [[1.0, 0.6], [0.6, 2.0]])
    x, weights = continuity.box_quadrature(lambda t: law, [0.5, -1.0], 0.9, 3)(0.0)
    side = 0.6
    for k, (i, j) in enumerate((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)):
        point = torch.tensor([[0.5 + side * i, -1.0 + side * j]], dtype=F64)
        assert torch.allclose(x[k], point[0]) and torch.allclose(weights[k], law.log_prob(point).exp()[0] * side**2)
    assert torch.allclose(x[-1], torch.tensor([3.2, 1.7], dtype=F64)) and weights.sum().item() == pytest.approx(1, abs=1e-15)


def test_box_quadrature_integrates_what_vanishes_outside():
    p, q = pair(2, condition=4.0)
    path = continuity.box_quadrature(lambda t: geodesic(p, q, t), geodesic(p, q, 0.5).mean, 1.5, 80)
    hermite = continuity.path_quadrature(lambda t: geodesic(p, q, t), 60)
    psi = continuity.bump([0.5, *geodesic(p, q, 0.5).mean.tolist()], 1.4)
    _, velocity, uninverted = mccann(p, q)
    assert continuity.weak_residual(path, velocity, psi, times=60) < 1e-6
    assert continuity.weak_residual(path, uninverted, psi, times=60) > 1e-2
    # and with the whole law in the box all integrals
    wide = continuity.box_quadrature(lambda t: geodesic(p, q, t), geodesic(p, q, 0.5).mean, 16.0, 200)
    assert continuity.kinetic_energy(wide, velocity, times=8) == pytest.approx(
        continuity.kinetic_energy(hermite, velocity, times=8), rel=1e-9
    )


def test_cells_that_are_too_wide_are_refused_and_the_error_of_others_is_spread():
    narrow = Gaussian([0.0], [[1e-4]])
    with pytest.raises(ValueError, match="n must be larger for this law: the cells of the box see a mass of 26.6"):
        continuity.box_quadrature(lambda t: narrow, [0.0], 1.0, 3)(0.5)
    _, weights = continuity.box_quadrature(Triangle, [0.0], 1.0, 21)(0.0)  # 1 + 1/441 by the rule
    assert weights.sum().item() == pytest.approx(1, abs=1e-15) and weights[-1] == 0
    assert weights[10].item() == pytest.approx((2 / 21) / (1 + 1 / 441), rel=1e-12)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"centre": [[0.0]]}, "centre must have shape"),
        ({"centre": []}, "centre must have shape"),
        ({"centre": [math.inf]}, "centre must be finite"),
        ({"radius": 0.0}, "radius must be a positive number"),
        ({"n": 0}, "n must be an integer"),
        ({"centre": [0.0] * 4, "n": 50}, r"n must have n\*\*d ≤ 4e6 cells, got 50\*\*4"),
        ({"law_at": lambda t: Gaussian([0.0, 0.0], torch.eye(2))}, "x must have dimension 2"),
        ({"law_at": 3}, "law_at must be a function"),
    ],
)
def test_bad_boxes_are_refused(changed, words):
    with pytest.raises((ValueError, TypeError), match=words):
        continuity.box_quadrature(**{"law_at": Triangle, "centre": [0.0], "radius": 1.0, "n": 4} | changed)(0.5)
