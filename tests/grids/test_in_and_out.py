"""What the grid solvers take and give: arrays and tensors in, tensors where the data are out."""

import itertools

import numpy as np
import pytest
import torch
from grid_laws import gaussian_1d, product
from scipy import ndimage

from dynot_lite.grids import back_and_forth, benamou_brenier, certificates

MU = product(gaussian_1d(12, 0.35, 0.15), gaussian_1d(10, 0.6, 0.2))
NU = product(gaussian_1d(12, 0.6, 0.2), gaussian_1d(10, 0.4, 0.15))
MASK = np.zeros(MU.shape, bool)


def dynamic(mu, nu, **options):
    return benamou_brenier.solve(mu, nu, steps=3, max_iterations=10, **options)


def bound(mu, nu):
    return certificates.lower_bound(np.zeros(np.shape(mu)), mu, nu)


def potential_bound(potential, mu):
    return certificates.lower_bound(potential, mu, mu)


def tensors(result):
    """All tensors of a result, those in tuples included."""
    for value in vars(result).values():
        yield from (part for part in (value if isinstance(value, tuple) else (value,)) if isinstance(part, torch.Tensor))


def same(a, b):
    return all(torch.equal(x, y.cpu()) for x, y in zip(tensors(a), tensors(b), strict=True))


@pytest.mark.parametrize("solve", [back_and_forth.solve, dynamic])
def test_every_container_gives_the_same(solve):
    expected = solve(MU, NU)
    strided = torch.tensor(np.stack([MU.T, NU.T], -1))
    frozen = NU.astype(">f8")
    frozen.flags.writeable = False
    for mu, nu in ((MU.tolist(), torch.tensor(NU)), (strided[..., 0].T, strided[..., 1].T), (MU[::-1][::-1], frozen)):
        assert same(expected, solve(mu, nu))
    whole = np.zeros((4, 6), int), np.zeros((4, 6), int)
    whole[0][:, :3] = whole[1][:, 3:] = 2
    assert same(solve(*(a.astype(float) for a in whole)), solve(whole[0], torch.tensor(whole[1], dtype=torch.int32)))


@pytest.mark.parametrize("solve", [back_and_forth.solve, dynamic])
def test_results_are_float64_tensors_and_plain_numbers(solve):
    mu, nu = (0.8 * a + 0.2 for a in (MU, NU))  # positive, so that there are bounds from both sides
    result = solve(torch.tensor(mu, dtype=torch.float32), nu)
    assert all(t.dtype == torch.float64 and t.device.type == "cpu" for t in tensors(result))
    for name, value in vars(result).items():
        assert type(value) in (float, int, bool, str, tuple, torch.Tensor), name
    if result.converged:
        assert result.require() is result
    else:
        with pytest.raises(RuntimeError, match="max_iterations = 10 reached"):
            result.require()


def test_the_data_are_left_alone():
    mu, nu, potential = torch.tensor(MU), torch.tensor(NU), torch.tensor(MU - NU)
    result = dynamic(mu, nu)
    result.density.zero_()
    back_and_forth.solve(mu, nu).potential0.zero_()
    certificates.lower_bound(potential, mu, nu)
    assert (mu.numpy() == MU).all() and (nu.numpy() == NU).all() and (potential.numpy() == MU - NU).all()


@pytest.mark.parametrize("solve", [back_and_forth.solve, dynamic, bound, potential_bound])
def test_complex_numbers_are_refused_by_name(solve):
    first, second = {potential_bound: ("potential", "mu")}.get(solve, ("mu", "nu"))
    for array in (MU + 1e-3j, torch.tensor(MU + 0j)):
        with pytest.raises(ValueError, match=f"{first} must be real"):
            solve(array, NU)
        with pytest.raises(ValueError, match=f"{second} must be real"):
            solve(NU, array)


@pytest.mark.parametrize("solve", [back_and_forth.solve, dynamic])
def test_results_are_cut_from_the_graph(solve):
    wanted = torch.tensor(MU, requires_grad=True)
    result = solve(wanted, wanted.flip(0))
    assert same(solve(MU, MU[::-1]), result) and not any(t.requires_grad for t in tensors(result))
    assert bound(wanted, NU) == bound(MU, NU) and potential_bound(wanted, NU) == potential_bound(MU, NU)


def test_mask_as_tensor():
    a, b = (dynamic(MU, NU, method="cold", mask=mask) for mask in (MASK, torch.tensor(MASK)))
    assert same(a, b)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("solve", [back_and_forth.solve, dynamic])
def test_results_are_where_mu_is(solve):
    result = solve(torch.tensor(MU, device="cuda"), NU)
    assert all(t.device.type == "cuda" for t in tensors(result))
    assert same(solve(MU, NU), result)
    assert all(t.device.type == "cpu" for t in tensors(solve(MU, torch.tensor(NU, device="cuda"))))
    if solve is dynamic:
        x = torch.rand(6, 2, dtype=torch.float64)
        assert torch.allclose(result.velocity_at(0.3, x.cuda()).cpu(), result.velocity_at(0.3, x))
        assert result.flow(x.cuda()).is_cuda and result.measure(0.3)[0].is_cuda
        dynamic(MU, NU, method="cold", mask=torch.tensor(MASK, device="cuda"))


# Queries of a dynamic result


@pytest.mark.parametrize("boundary", ["walls", "periodic"])
@pytest.mark.parametrize("shape", [(9,), (7, 6), (4, 5, 6)])
def test_velocity_between_cells(shape, boundary):
    rng = np.random.default_rng(0)
    mu, nu = (a / a.mean() for a in 0.5 + rng.random((2, *shape)))
    result = dynamic(mu, nu, boundary=boundary)
    x = torch.tensor(rng.uniform(-0.2, 1.2, (50, len(shape))))
    x[0], x[1] = 0.0, 1.0
    for slab, t in ((0, 0.0), (0, 0.1), (1, 0.2), (3, 1.0)):
        index = (x.numpy() * shape - 0.5).T
        mode = "nearest" if boundary == "walls" else "grid-wrap"
        expected = [ndimage.map_coordinates(v.numpy(), index, order=1, mode=mode) for v in result.velocity[slab]]
        assert np.abs(result.velocity_at(t, x).T.numpy() - expected).max() < 1e-12
    single = result.velocity_at(0.3, x.float())
    assert single.dtype == torch.float32 and torch.allclose(single, result.velocity_at(0.3, x).float(), atol=1e-4)


@pytest.mark.parametrize("boundary", ["walls", "periodic"])
def test_velocity_and_flow_are_differentiable_in_the_points(boundary):
    result = dynamic(MU, NU, boundary=boundary)
    x = torch.tensor([[0.31, 0.52], [0.67, 0.22], [0.95, 0.98]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: result.velocity_at(0.4, x), x)
    assert torch.autograd.gradcheck(lambda x: result.flow(x)[-1], x)


def test_measure_is_the_density_between_its_times():
    result = dynamic(MU, NU)
    for slab, part in itertools.product(range(4), (0.0, 0.25)):
        t = result.times[slab] + part * (result.times[slab + 1] - result.times[slab])
        x, mass = result.measure(t)
        density = ((1 - part) * result.density[slab] + part * result.density[slab + 1]).clamp(min=0).flatten()
        assert torch.allclose(mass, density / density.sum(), rtol=1e-12, atol=0)
        assert torch.allclose(x.reshape(12, 10, 2)[3, 7], torch.tensor([3.5 / 12, 7.5 / 10], dtype=torch.float64))
