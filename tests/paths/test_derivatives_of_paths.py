"""The table of derivatives in ``dynot_lite.paths``, row by row."""

import pytest
import torch
from derivatives import exact, has_graph, unnamed
from derivatives import rows as table
from instances import generator

import dynot_lite.paths
from dynot_lite.laws.gaussian import Gaussian
from dynot_lite.paths import continuity, flows, interpolants
from dynot_lite.paths.interpolants import LINEAR, TRIGONOMETRIC, VARIANCE_PRESERVING, Interpolant

F64 = torch.float64
CUBIC = Interpolant(lambda t: 1 - t**3, lambda t: t * (2 - t))  # derivatives by forward mode
PATHS = {"linear": LINEAR, "trigonometric": TRIGONOMETRIC, "preserving": VARIANCE_PRESERVING, "cubic": CUBIC}
T = torch.tensor([0.25, 0.5, 0.75], dtype=F64)
X0, X1 = torch.randn(2, 3, 2, generator=generator(), dtype=F64)
ROTATION, GROWTH = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=F64), torch.tensor([[0.5, 0.2], [0.1, -0.3]], dtype=F64)


def velocity(matrix):
    """A field that is not linear and depends on time; at the identity its Jacobian is symmetric, at zero it is constant."""
    return lambda t, x: torch.tanh(x @ matrix) * (1 + t) + x**2 / 4


def log_prob0(scale):
    return lambda x: -0.5 * (scale * x).square().sum(-1)


def path(x):
    return lambda t: (x * (1 + t), torch.full((3,), 1 / 3, dtype=F64))


MATRICES = {"generic": GROWTH, "skew": ROTATION, "identity": torch.eye(2, dtype=F64), "singular": ROTATION[:1].mT @ ROTATION[:1],
            "zero": torch.zeros(2, 2, dtype=F64)}  # fmt: skip
OF_VELOCITY = {
    **{
        f"integrate, {method}": (lambda a, x, method=method: flows.integrate(velocity(a), x, steps=3, method=method))
        for method in ("euler", "midpoint", "rk4")
    },
    "trajectory": lambda a, x: flows.trajectory(velocity(a), x, steps=2)[1],
    "divergence": lambda a, x: flows.divergence(velocity(a), 0.5, x),
    "hutchinson_divergence": lambda a, x: flows.hutchinson_divergence(velocity(a), 0.5, x, probes=2, generator=generator()),
    "log_prob": lambda a, x: flows.log_prob(velocity(a), x, log_prob0(1.0), steps=3),
    "log_prob, probes": lambda a, x: flows.log_prob(velocity(a), x, log_prob0(1.0), steps=2, probes=2, generator=generator()),
}
EXACT = {
    **{
        f"Interpolant.at, {name}": (lambda t, x0, x1, path=path: path.at(t, x0, x1), T, X0, X1)
        for name, path in PATHS.items()
    },
    "Interpolant.at, one time": (CUBIC.at, T[0], X0, X0),
    "Interpolant.coefficients": (CUBIC.coefficients, T),
    "divergence, time": (lambda t: flows.divergence(velocity(GROWTH), t, X0), T[0]),
    "hutchinson_divergence, time": (
        lambda t: flows.hutchinson_divergence(velocity(GROWTH), t, X0, generator=generator()), T[0],
    ),
    "log_prob, density": (lambda scale: flows.log_prob(velocity(GROWTH), X0, log_prob0(scale), steps=2), T[0]),
    "box_quadrature": (
        lambda c, m: continuity.box_quadrature(lambda t: Gaussian(m, GROWTH @ GROWTH.mT + t * torch.eye(2)), c, 1.5, 5)(0.5),
        torch.tensor([0.5, 0.1], dtype=F64), X0[0],
    ),
    "path_quadrature": (
        lambda m: continuity.path_quadrature(lambda t: Gaussian(m, t * torch.eye(2)), 3)(0.5), X0[0],
    ),
    "bump": (lambda c, t, x: continuity.bump(c, 2.0)(t, x), torch.tensor([0.5, 0.0, 0.1], dtype=F64), T, X0),
    "bump, outside": (lambda c, t, x: continuity.bump(c, 1e-3)(t, x), torch.tensor([0.5, 0.0, 0.1], dtype=F64), T, X0),
}  # fmt: skip


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("row", OF_VELOCITY)
def test_exact_of_points_and_of_what_the_velocity_depends_on(row, matrix):
    assert exact(OF_VELOCITY[row], MATRICES[matrix], X0)


@pytest.mark.parametrize("row", EXACT)
def test_exact(row):
    function, *points = EXACT[row]
    assert exact(function, *points)


def leaf(x):
    return x.clone().requires_grad_()


def psi(t, x):
    return continuity.bump([0.5, 0.0, 0.0], 3.0)(t, x)


NONE = {
    "integrate_adaptive, velocity": lambda: flows.integrate_adaptive(velocity(leaf(GROWTH)), X0, rtol=1e-4),
    "weak_residual": lambda: continuity.weak_residual(path(leaf(X0)), velocity(leaf(GROWTH)), psi, times=3),
    "kinetic_energy": lambda: continuity.kinetic_energy(path(leaf(X0)), velocity(leaf(GROWTH)), times=3),
    "strong_residual, velocity": lambda: continuity.strong_residual(
        lambda t, x: torch.exp(-x.square().sum(-1) - t), velocity(leaf(GROWTH)), 0.5, X0
    ),
    "gauss_legendre": lambda: continuity.gauss_legendre(3),
}


@pytest.mark.parametrize("row", NONE)
def test_none(row):
    assert not has_graph(NONE[row]())


NUMBER = torch.tensor(0.5, dtype=F64)
DENSITY = lambda t, x: torch.exp(-x.square().sum(-1) - t)
REFUSED = [
    ("integrate", "t0", NUMBER, lambda **z: flows.integrate(velocity(GROWTH), X0, steps=2, **z)),
    ("integrate", "t1", NUMBER, lambda **z: flows.integrate(velocity(GROWTH), X0, steps=2, **z)),
    ("trajectory", "t1", NUMBER, lambda **z: flows.trajectory(velocity(GROWTH), X0, steps=2, **z)),
    ("log_prob", "t0", NUMBER, lambda **z: flows.log_prob(velocity(GROWTH), X0, log_prob0(1.0), steps=2, **z)),
    ("integrate_adaptive", "x0", X0, lambda **z: flows.integrate_adaptive(velocity(GROWTH), **z)),
    ("integrate_adaptive", "t1", NUMBER, lambda **z: flows.integrate_adaptive(velocity(GROWTH), X0, **z)),
    ("strong_residual", "x", X0, lambda **z: continuity.strong_residual(DENSITY, velocity(GROWTH), 0.5, **z)),
    ("strong_residual", "t", NUMBER, lambda **z: continuity.strong_residual(DENSITY, velocity(GROWTH), x=X0, **z)),
    ("box_quadrature", "radius", NUMBER, lambda **z: continuity.box_quadrature(lambda t: None, [0.5], n=3, **z)),
    ("bump", "radius", NUMBER, lambda **z: continuity.bump([0.5, 0.0], **z)),
]


@pytest.mark.parametrize("row, name, value, use", REFUSED)
def test_refused(row, name, value, use):
    with pytest.raises(ValueError, match=rf"\b{name} must not require a gradient"):
        use(**{name: leaf(value)})
    with torch.no_grad():
        use(**{name: leaf(value)})


def test_the_table_names_every_function():
    assert unnamed(dynot_lite.paths, interpolants, flows, continuity) == []
    tested = " ".join((*OF_VELOCITY, *EXACT, *NONE, *(row for row, *_ in REFUSED)))
    assert [name for row in table(dynot_lite.paths) for name in row.split(", ") if name not in tested] == []
