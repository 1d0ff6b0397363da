"""The semi-dual loss and its certificates, against exact discrete and Gaussian transport."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from dynot_lite.companion.numerics import cubature
from dynot_lite.laws import gaussian
from dynot_lite.potentials.convex import ICNN, LogSumExp, Quadratic
from dynot_lite.potentials.dual import certificate, semidual_loss


def random_potential(family, dim, generator):
    root = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    matrix = root @ root.T / dim + 0.3 * torch.eye(dim, dtype=torch.float64)
    offset = torch.randn(dim, generator=generator, dtype=torch.float64)
    if family is Quadratic:
        return Quadratic(dim, matrix=matrix, offset=offset)
    if family is LogSumExp:
        return LogSumExp(dim, 6, heads=2, matrix=matrix, offset=offset, scale=4, temperature=0.4, generator=generator)
    return ICNN(dim, (7, 6), matrix=matrix, offset=offset, scale=2, generator=generator)


def points(n, dim, generator, shift=0.0):
    return torch.randn(n, dim, generator=generator, dtype=torch.float64) * (1 + torch.arange(dim)) + shift


def exact_assignment(x0, x1):
    cost = torch.cdist(x0, x1).square().numpy()
    rows, columns = linear_sum_assignment(cost)
    return torch.as_tensor(columns), cost[rows, columns].mean()


FAMILIES = pytest.mark.parametrize("family", [Quadratic, LogSumExp, ICNN])


@FAMILIES
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_certified_bounds_enclose_the_exact_cost(family, dim):
    generator = torch.Generator().manual_seed(20 + dim)
    potential = random_potential(family, dim, generator)
    x0, x1 = points(33, dim, generator), points(33, dim, generator, shift=1.5)
    pairing, exact = exact_assignment(x0, x1)
    found = certificate(potential, x0, x1)
    assert found.lower < exact < found.upper
    assert abs(found.upper - (x0 - x1).square().sum(1).mean().item()) < 1e-11
    assert found.gap_bounds[0] <= found.gap + 1e-12 and found.gap <= found.gap_bounds[1] + 1e-12
    # Over the optimal pairs the gap is the sub-optimality of the loss.
    optimal = certificate(potential, x0, x1[pairing])
    assert abs(optimal.lower - found.lower) < 1e-9 and abs(optimal.upper - exact) < 1e-9
    assert optimal.gap_bounds[0] - 1e-12 <= optimal.gap <= optimal.gap_bounds[1] + 1e-12


@pytest.mark.parametrize("end", [0, 1])
def test_the_bounds_of_the_gap_are_attained(end):
    """Where the map misses its targets along the axis of the least or of the largest curvature; both forms of the gap."""
    generator = torch.Generator().manual_seed(30)
    potential = random_potential(Quadratic, 3, generator)
    axis = torch.linalg.eigh(potential.matrix.detach()).eigenvectors[:, [0, -1][end]]
    x0 = points(17, 3, generator)
    x1 = potential.gradient(x0).detach() + torch.randn(17, 1, generator=generator, dtype=torch.float64) * axis
    found = certificate(potential, x0, x1)
    assert found.gap == pytest.approx(found.gap_bounds[1 - end], rel=1e-9) and found.map_error > 0.1
    assert found.map_error == pytest.approx((potential.gradient(x0) - x1).square().sum(1).mean().item(), rel=1e-12)
    inverse = torch.linalg.inv(potential.matrix.detach())  # Ψ* in closed form
    shifted = x1 - potential.offset.detach()
    conjugate = 0.5 * (shifted @ inverse * shifted).sum(1)
    value = potential(x0).detach() + conjugate - (x0 * x1).sum(1)
    assert found.gap == pytest.approx(value.mean().item(), rel=1e-9)
    assert found.upper - found.lower == pytest.approx(2 * found.gap, rel=1e-12)


@FAMILIES
def test_the_gradient_map_is_certified_exactly(family):
    generator = torch.Generator().manual_seed(31)
    potential = random_potential(family, 3, generator)
    x0 = points(41, 3, generator)
    x1 = potential.gradient(x0).detach()
    found = certificate(potential, x0, x1)
    pairing, exact = exact_assignment(x0, x1)
    assert abs(found.gap) < 1e-10 and found.map_error == 0.0
    assert torch.equal(pairing, torch.arange(41)) and abs(found.lower - exact) < 1e-10


@FAMILIES
def test_loss_is_the_mean_of_a_maximum_over_a_fine_grid(family):
    generator = torch.Generator().manual_seed(32)
    potential = random_potential(family, 1, generator)
    x0, x1 = points(5, 1, generator), points(7, 1, generator)
    grid = torch.linspace(-30, 30, 600001, dtype=torch.float64)[:, None]
    values = potential(grid).detach()
    conjugate = torch.stack([(y * grid[:, 0] - values).max() for y in x1[:, 0]])
    expected = potential(x0).detach().mean() + conjugate.mean()
    assert abs(semidual_loss(potential, x0, x1).item() - expected.item()) < 1e-7


def test_gaussian_minimum_is_half_the_moments_minus_half_w2():
    generator = torch.Generator().manual_seed(33)
    p = gaussian.Gaussian([0.3, -1.0], [[2.0, 0.6], [0.6, 1.0]])
    q = gaussian.Gaussian([1.5, 0.7], [[1.0, -0.5], [-0.5, 3.0]])
    monge = gaussian.monge_map(p, q)

    x0, x1 = cubature(p.mean, p.cov), cubature(q.mean, q.cov)  # exact for quadratic integrands
    moments = sum((law.mean.square().sum() + law.cov.trace()).item() for law in (p, q))
    potential = Quadratic(2, matrix=monge.matrix, offset=monge.offset)
    assert abs(2 * semidual_loss(potential, x0, x1).item() - moments + gaussian.w2_squared(p, q).item()) < 1e-11
    for _ in range(20):
        with torch.no_grad():
            other = Quadratic(2, matrix=monge.matrix, offset=monge.offset)
            other.root += 0.1 * torch.randn(2, 2, generator=generator, dtype=torch.float64)
            other.offset += 0.1 * torch.randn(2, generator=generator, dtype=torch.float64)
        assert semidual_loss(other, x0, x1) > semidual_loss(potential, x0, x1)


@FAMILIES
def test_gradient_against_differences_and_independent_of_the_pairing(family):
    generator = torch.Generator().manual_seed(34)
    potential = random_potential(family, 3, generator)
    x0, x1 = points(9, 3, generator), points(11, 3, generator)
    parameters = list(potential.parameters())
    gradients = torch.autograd.grad(semidual_loss(potential, x0, x1), parameters)
    shuffled = torch.autograd.grad(semidual_loss(potential, x0, x1.flip(0)), parameters)
    directions = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
    losses = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter += step * direction
            losses.append(semidual_loss(potential, x0, x1).item())
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter -= step * direction
    expected = (losses[0] - losses[1]) / 2e-5
    found = sum((g * d).sum().item() for g, d in zip(gradients, directions, strict=True))
    assert abs(found - expected) < 1e-7 * (1 + abs(expected))
    assert all(torch.allclose(a, b, rtol=0, atol=1e-9) for a, b in zip(gradients, shuffled, strict=True))


@pytest.mark.parametrize(
    "x0, x1, name",
    [
        (np.zeros((0, 2)), np.zeros((3, 2)), "x0"),
        (np.zeros((3, 2)), np.full((3, 2), np.nan), "x1"),
        (np.zeros((3, 3)), np.zeros((3, 3)), "dimension"),
        (np.zeros((3, 2)), np.zeros((4, 2)), "pairs"),
    ],
)
def test_bad_pairs_are_named(x0, x1, name):
    with pytest.raises(ValueError, match=name):
        certificate(Quadratic(2), x0, x1)


@pytest.mark.parametrize(
    "x0, x1, name",
    [
        (np.zeros((3, 2)), np.full((3, 2), np.inf), "x1"),
        (np.zeros((3, 1)), np.zeros((3, 2)), "x0"),
        (np.zeros((3, 2)), np.zeros(2), "x1"),
    ],
)
def test_bad_samples_are_named(x0, x1, name):
    with pytest.raises(ValueError, match=name):
        semidual_loss(Quadratic(2), x0, x1)
