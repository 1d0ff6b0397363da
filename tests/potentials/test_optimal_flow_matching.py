"""The optimal flow matching loss: a literal evaluation, the exact constant, the gradient, and the Rao–Blackwell bound."""

import numpy as np
import pytest
import torch
from instances import potential_of
from scipy.optimize import linear_sum_assignment, root

from dynot_lite.potentials.dual import semidual_loss
from dynot_lite.potentials.optimal_flow_matching import ofm_loss

NODES, WEIGHTS = (torch.as_tensor(a) for a in np.polynomial.legendre.leggauss(80))
NODES, WEIGHTS = (NODES + 1) / 2, WEIGHTS / 2
FAMILIES = pytest.mark.parametrize("family", ["quadratic", "log-sum-exp", "icnn"])


def pairs(n, dim, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x0 = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    x1 = 0.7 * torch.randn(n, dim, generator=generator, dtype=torch.float64) ** 2 + 0.5
    return x0, x1


def integrated(potential, x0, x1):
    return ofm_loss(potential, x0, x1, NODES[:, None], quadrature=WEIGHTS / WEIGHTS.sum())


@FAMILIES
def test_each_term_against_a_root_found_by_scipy(family):
    potential, (x0, x1), times = potential_of(family, 2), pairs(4, 2), torch.tensor([0.0, 0.2, 0.9, 1.0], dtype=torch.float64)
    total = 0.0
    for start, end, t in zip(x0, x1, times.tolist(), strict=True):
        x_t = ((1 - t) * start + t * end).numpy()

        def flow(z, t=t, x_t=x_t):
            return (1 - t) * z + t * potential.gradient(z[None])[0].detach().numpy() - x_t

        z = root(flow, x_t, tol=1e-13).x
        field = potential.gradient(z[None])[0].detach().numpy() - z
        total += ((field - (end - start).numpy()) ** 2).sum()
    assert abs(ofm_loss(potential, x0, x1, times).item() - total / 4) < 1e-9


@FAMILIES
@pytest.mark.parametrize("dim", [1, 2, 3, 10])
@pytest.mark.parametrize("coupling", ["independent", "optimal", "anti"])
def test_twice_the_semidual_for_every_coupling(family, dim, coupling):
    potential, (x0, x1) = potential_of(family, dim), pairs(17, dim)
    if coupling != "independent":
        sign = 1 if coupling == "optimal" else -1
        x1 = x1[linear_sum_assignment(-sign * (x0 @ x1.T).numpy())[1]]
    with torch.no_grad():
        expected = 2 * semidual_loss(potential, x0, x1) - 2 * (x0 * x1).sum(1).mean()
        assert abs(integrated(potential, x0, x1) - expected) < 1e-9 * (1 + expected.abs())


@FAMILIES
def test_gradient_is_twice_the_semidual_gradient_pair_by_pair(family):
    potential, (x0, x1) = potential_of(family, 3), pairs(3, 3)
    parameters = list(potential.parameters())
    for i in range(3):
        ours = torch.autograd.grad(integrated(potential, x0[i : i + 1], x1[i : i + 1]), parameters)
        dual = torch.autograd.grad(semidual_loss(potential, x0[i : i + 1], x1[i : i + 1]), parameters)
        assert all(torch.allclose(a, 2 * b, rtol=1e-9, atol=1e-9) for a, b in zip(ours, dual, strict=True))


@FAMILIES
def test_gradient_at_fixed_times_against_differences(family):
    potential, (x0, x1) = potential_of(family, 3), pairs(5, 3)
    times = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(4)
    parameters = list(potential.parameters())
    directions = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
    gradients = torch.autograd.grad(ofm_loss(potential, x0, x1, times), parameters)
    losses = []
    with torch.no_grad():
        for step in (1e-5, -2e-5):
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter += step * direction
            losses.append(ofm_loss(potential, x0, x1, times).item())
    expected = (losses[0] - losses[1]) / 2e-5
    found = sum((g * d).sum().item() for g, d in zip(gradients, directions, strict=True))
    assert abs(found - expected) < 1e-6 * (1 + abs(expected))


def test_shapes_of_times():
    potential, (x0, x1) = potential_of("log-sum-exp", 2), pairs(5, 2)
    nodes = torch.tensor([0.25, 0.75], dtype=torch.float64)
    each = [ofm_loss(potential, x0, x1, node) for node in nodes]
    assert abs(ofm_loss(potential, x0, x1, nodes[:, None]) - sum(each) / 2) < 1e-12
    assert abs(ofm_loss(potential, x0, x1, nodes[:, None].expand(2, 5)) - sum(each) / 2) < 1e-12
    assert abs(ofm_loss(potential, x0, x1, nodes[0].expand(5)) - each[0]) < 1e-12
    assert abs(ofm_loss(potential, x0, x1, nodes[:, None], quadrature=[0.3, 0.7]) - 0.3 * each[0] - 0.7 * each[1]) < 1e-12


@pytest.mark.parametrize(
    "bad, name",
    [
        (lambda p, x: ofm_loss(p, x, x[:2], 0.5), "pairs"),
        (lambda p, x: ofm_loss(p, x, x, [0.1, 0.2]), "times"),
        (lambda p, x: ofm_loss(p, x, x, [0.1, 0.2, 1.2]), "lie in"),
        (lambda p, x: ofm_loss(p, x, x, float("nan")), "times"),
        (lambda p, x: ofm_loss(p, x, x, torch.zeros(0, 1)), "times"),
        (lambda p, x: ofm_loss(p, x, x, [0.1, 0.2, 0.3], quadrature=[0.2, 0.3, 0.5]), "quadrature"),
        (lambda p, x: ofm_loss(p, x, x, [[0.1], [0.2]], quadrature=[0.2, 0.9]), "quadrature"),
        (lambda p, x: ofm_loss(p, x[:, :1], x[:, :1], 0.5), "x0"),
        (lambda p, x: ofm_loss(p, x, x * torch.inf, 0.5), "x1"),
    ],
)
def test_bad_input_is_named(bad, name):
    with pytest.raises(ValueError, match=name):
        bad(potential_of("quadratic", 2), torch.ones(3, 2, dtype=torch.float64))
