"""Certified bounds: they hold for every potential and every pair, and where they are nearly tight nothing may be missing."""

import numpy as np
import pytest
import torch
from grid_laws import gaussian_1d, product, rough_1d, w2_squared_1d

from dynot_lite.grids import back_and_forth, benamou_brenier, certificates
from dynot_lite.grids import operators as grid
from dynot_lite.grids.staggered import Staggered, filtered

# From below


@pytest.mark.parametrize("boundary", ["walls", "periodic"])
@pytest.mark.parametrize("signs", [(1,), (-1,), (1, -1), (1, 1, -1)])
def test_lower_bound_is_nearly_tight_where_all_mass_moves_by_a_quarter_of_a_cell(signs, boundary):
    """Corners lie h apart. Of the mass at a corner one half moves on by h, at a cost of h²/2 for W₂² = h²/4: with the potential
    of this plan the sum over the corners exceeds W₂² by h²/4, so that of the h²/3 taken off only h²/12 is not needed.
    """
    cells = (64, 48, 40)[: len(signs)]
    shifts = [sign * 0.25 / n for sign, n in zip(signs, cells, strict=True)]
    axes = [(gaussian_1d(n, 0.5, 0.06), gaussian_1d(n, 0.5 + s, 0.06)) for n, s in zip(cells, shifts, strict=True)]
    mu, nu = (product(*(axis[k] for axis in axes)) for k in (0, 1))
    exact = sum(w2_squared_1d(*axis) for axis in axes)
    psi = sum(np.meshgrid(*(s * grid.centres(n) for s, n in zip(shifts, cells, strict=True)), indexing="ij"))
    missing = exact - certificates.lower_bound(psi, mu, nu, boundary=boundary)
    assert 0.95 < missing / sum((0.5 / n) ** 2 / 12 for n in cells) < 1.05


@pytest.mark.parametrize("seed", range(5))
def test_lower_bound_holds_for_any_potential_and_is_second_order(seed):
    rng = np.random.default_rng(seed)
    axes = [(rough_1d(n, rng), rough_1d(n, rng)) for n in (14, 9)]
    mu, nu = (product(axes[0][k], axes[1][k]) for k in (0, 1))
    exact = sum(w2_squared_1d(*axis) for axis in axes)
    static = back_and_forth.solve(mu, nu)
    near = static.potential1 + 0.01 * torch.tensor(rng.normal(size=mu.shape))
    for potential in (np.zeros(mu.shape), rng.normal(size=mu.shape), near):
        assert certificates.lower_bound(potential, mu, nu) <= exact
    assert static.lower <= exact


def test_lower_bound_is_second_order():
    defects = []
    for n in (32, 64, 128):
        mu, nu = gaussian_1d(n, 0.35, 0.08), gaussian_1d(n, 0.6, 0.12)
        exact = w2_squared_1d(mu, nu)
        x = grid.centres(n)
        # ψ = ½|y|² − Ψ*(y), with the Legendre dual of Ψ' = the increasing map x ↦ 0.6 + 1.5(x − 0.35).
        psi = 0.5 * x**2 - (0.35 * x + (x - 0.6) ** 2 / 3)
        defects.append(exact - certificates.lower_bound(psi, mu, nu))
    assert all(d > 0 for d in defects)
    assert 1.7 < np.log2(defects[0] / defects[2]) / 2 < 2.3


def test_bad_potential():
    with pytest.raises(ValueError, match="potential"):
        certificates.lower_bound(np.full((4, 5), np.inf), np.ones((4, 5)), np.ones((4, 5)))


# From above


def random_pair(rng, cells, slabs):
    """Times, positive densities and momenta, admissible or not."""
    times = np.concatenate([[0], np.sort(rng.random(slabs - 1)), [1]])
    density = 0.05 + rng.random((slabs + 1, *cells)) ** 3
    faces = [tuple(n + (a == axis) for a, n in enumerate(cells)) for axis in range(len(cells))]
    return times, density, [rng.normal(size=(slabs, *shape)) for shape in faces]


@pytest.mark.parametrize("cells", [(5,), (3, 4), (2, 3, 2)])
def test_conforming_energy_against_quadrature(cells):
    times, density, momentum = random_pair(np.random.default_rng(len(cells)), cells, 3)
    density[1] = density[0] * (1 + 1e-8)  # where log(ρ₁/ρ₀)/(ρ₁ − ρ₀) cancels
    nodes, weights = np.polynomial.legendre.leggauss(60)
    nodes, weights = (nodes + 1) / 2, weights / 2
    expected = 0.0
    for k, duration in enumerate(np.diff(times)):
        for axis, face in enumerate(momentum):
            m = np.moveaxis(face[k], axis, 0)
            square = sum(w * ((1 - s) * m[:-1] + s * m[1:]) ** 2 for s, w in zip(nodes, weights, strict=True))
            inverse = sum(w / ((1 - s) * density[k] + s * density[k + 1]) for s, w in zip(nodes, weights, strict=True))
            expected += duration * (np.moveaxis(square, 0, axis) * inverse).mean()
    assert abs(certificates.conforming_energy(np.diff(times), density, momentum) / expected - 1) < 1e-12


def test_cut_corners_are_the_path_through_quarters_of_the_slabs():
    times, density, momentum = random_pair(np.random.default_rng(4), (3, 4), 5)
    durations = np.diff(times)
    knots = np.sort(np.concatenate([[0, 1], times[:-1] + durations / 4, times[:-1] + 3 * durations / 4]))

    def through(points):
        """A polygonal path with vertices at the times, at the knots."""
        flat = points.reshape(len(points), -1)
        return np.stack([np.interp(knots, times, column) for column in flat.T], 1).reshape(-1, *points.shape[1:])

    moved = [np.concatenate([0 * m[:1], np.cumsum(m * durations[:, None, None], 0)]) for m in momentum]
    pieces = [np.diff(through(m), axis=0) / np.diff(knots)[:, None, None] for m in moved]
    expected = certificates.conforming_energy(np.diff(knots), through(density), pieces)
    assert abs(certificates.upper_bound(times, density, momentum) / expected - 1) < 1e-12


@pytest.mark.parametrize("method", ["lifted", "cold"])
@pytest.mark.parametrize("cells", [8, 16])
def test_upper_bound_is_nearly_tight_for_small_perturbations(cells, method):
    """Between rough densities near 1 the best momentum is nearly that with the divergence μ − ν: linear across each cell."""
    rng = np.random.default_rng(0)
    mu, nu = (a / a.mean() for a in 1 + 0.1 * rng.uniform(-1, 1, (2, cells)))
    exact = w2_squared_1d(mu, nu)
    result = benamou_brenier.solve(mu, nu, steps=4, method=method)
    assert 0 <= result.upper / exact - 1 < 4e-3
    # The midpoint rule takes the square of the mean for the mean square: no bound.
    assert result.energy < 0.99 * exact


# Positivity


@pytest.mark.parametrize("boundary", ["walls", "periodic"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sweeps", [0, 1, 50])
def test_positivity_is_restored_by_the_least_blend_and_stays_admissible(sweeps, masked, boundary, monkeypatch):
    monkeypatch.setattr(certificates, "SWEEPS", sweeps)
    rng, shape, horizon, periodic = np.random.default_rng(3), (5, 4), 0.7, boundary == "periodic"
    mask = np.zeros(shape, bool)
    mask[2, 1:3] = masked
    mu, nu = (np.where(mask, 0, 0.7 + rng.random(shape)) for _ in range(2))
    mu, nu = mu / mu.mean(), nu / nu.mean()
    model = Staggered.build(shape, 6, horizon, periodic, None, mask if masked else None, None)
    faces = model.linear_path(mu, nu)
    for axis, face in enumerate(faces):
        inner = grid.cut(face, axis, 1, -1)
        inner += (0.9 if sweeps == 50 else 3.0) * rng.normal(size=inner.shape)
        face *= 1 if model.free_faces is None else model.free_faces[axis]
    model.project(faces)
    times, faces = filtered(faces)
    least, lowest = 0.2, faces[0][:, ~mask].min()
    weight = certificates.restore_positivity(model, mu, nu, faces, times, least)
    density = faces[0][:, ~mask]
    assert lowest < least / 2 and density.min() > least - 1e-12
    assert weight == 0 if sweeps == 50 else 0 < weight < 1 and abs(density.min() - least) < 1e-12
    assert np.array_equal(faces[0][0], mu) and np.allclose(faces[0][-1], nu, rtol=1e-15)
    defect = np.diff(faces[0], axis=0) / np.diff(times)[:, None, None]
    for axis, n in enumerate(shape):
        defect += np.diff(faces[axis + 1], axis=axis + 1) * n * horizon
    assert np.abs(defect[:, ~mask]).max() < 1e-10
