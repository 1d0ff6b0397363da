"""The pieces of the grid solvers against brute force, differences and minimisation."""

import numpy as np
import pytest
from grid_laws import centres
from scipy.optimize import minimize_scalar

from dynot_lite.grids import douglas_rachford
from dynot_lite.grids import operators as grid
from dynot_lite.grids.staggered import Staggered


def test_c_transform_against_brute_force():
    rng = np.random.default_rng(5)
    values, shape = rng.normal(size=(5, 6, 4)), (5, 6, 4)
    for periodic in (False, True):
        x = centres(shape)
        gap = np.abs(x[:, None] - x[None])
        gap = np.minimum(gap, 1 - gap) if periodic else gap
        expected = (0.5 * (gap**2).sum(-1) - values.ravel()[None]).min(1)
        found = grid.c_transform(values, grid.costs(shape, periodic=periodic))
        assert np.abs(found.ravel() - expected).max() < 1e-14


@pytest.mark.parametrize("periodic", [False, True])
def test_poisson_against_differences(periodic):
    rng = np.random.default_rng(6)
    rhs = rng.normal(size=(6, 9))
    rhs -= rhs.mean()
    scale = grid.inverse(grid.half_spectrum(rhs.shape, periodic=periodic))
    phi = grid.poisson(rhs.copy(), scale, periodic=periodic)
    laplacian = np.zeros_like(phi)
    for axis, n in enumerate(rhs.shape):
        padded = np.pad(phi, [(int(a == axis),) * 2 for a in range(2)], mode="wrap" if periodic else "edge")
        laplacian += np.diff(padded, 2, axis=axis) * n**2
    assert np.abs(laplacian + rhs).max() < 1e-11


def test_deposit_keeps_mass_and_centre_of_mass():
    rng = np.random.default_rng(7)
    points, mass = rng.uniform(0.2, 0.8, (2, 50)), rng.random(50)
    density = grid.deposit(points, mass, (11, 14), periodic=False)
    x = centres((11, 14))
    weights = density.ravel() / density.size
    assert abs(weights.sum() - mass.sum()) < 1e-12
    assert np.abs(weights @ x - points @ mass).max() < 1e-12


@pytest.mark.parametrize("step", [0.05, 3.0])
def test_proximal_map(step):
    rng = np.random.default_rng(9)
    density, m = rng.normal(size=40) * 3, rng.normal(size=(2, 40)) * rng.choice([1e-4, 1, 20], 40)
    found = douglas_rachford.proximal([density, *m], step)

    def price(rho, i):
        # The best momentum for a given density is m ρ/(ρ + γ).
        value = m[:, i] * rho / (rho + step)
        distance = (rho - density[i]) ** 2 + ((value - m[:, i]) ** 2).sum()
        return (value**2).sum() / (2 * rho) + distance / (2 * step)

    for i in range(40):
        best = minimize_scalar(price, bounds=(1e-12, 100), args=(i,), method="bounded", options={"xatol": 1e-10})
        assert price(max(found[0][i], 1e-12), i) <= best.fun + 1e-6 * (1 + abs(best.fun))
        assert abs(found[0][i] - best.x) < 1e-4 * (1 + best.x)
        assert np.allclose([v[i] for v in found[1:]], m[:, i] * found[0][i] / (found[0][i] + step), rtol=1e-6)


@pytest.mark.parametrize(
    ("boundary", "growth", "masked"),
    [("walls", None, False), ("periodic", 0.7, False), ("periodic", None, True), ("walls", 0.5, True)],
)
def test_lift_is_an_isometry_and_projection_is_orthogonal(boundary, growth, masked):
    rng = np.random.default_rng(10)
    shape, steps = (6, 7), 5
    mask = None
    if masked:
        mask = np.zeros(shape, bool)
        mask[2, 3] = mask[4:, 1] = True
    model = Staggered.build(shape, steps, 0.6, boundary == "periodic", growth, mask, None)

    def free_field():
        faces = [rng.normal(size=model.face_shape(axis)) for axis in range(3)]
        faces[0][[0, -1]] = 0
        for axis in (1, 2):
            view = np.moveaxis(faces[axis], axis, 0)
            view[-1] = view[0] if boundary == "periodic" else 0
            view[0] = view[-1]
        if masked:
            faces = [f * open_ for f, open_ in zip(faces, model.free_faces, strict=True)]
        return faces + ([rng.normal(size=model.cells) * (model.free if masked else 1)] if growth else [])

    def inner(a, b):
        za, wa = model.lift(a)
        zb, wb = model.lift(b)
        return sum((x * y).sum() for x, y in zip(za + wa, zb + wb, strict=True))

    def plain(a, b):
        # Every face once: on the torus the first and the last face are one.
        total = 0.0
        for axis, (x, y) in enumerate(zip(a, b, strict=True)):
            once = slice(None, -1) if 0 < axis < 3 else slice(None)
            total += (np.moveaxis(x, axis % 3, 0)[once] * np.moveaxis(y, axis % 3, 0)[once]).sum()
        return total

    u, v = free_field(), free_field()
    assert abs(inner(u, v) - plain(u, v)) < 1e-10
    projected = [f.copy() for f in u]
    model.project(projected)
    assert np.abs(model.divergence(projected)).max() < 1e-10
    other = [f.copy() for f in v]
    model.project(other)
    difference = [a - b for a, b in zip(u, projected, strict=True)]
    assert abs(plain(difference, other)) < 1e-9
