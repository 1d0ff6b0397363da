"""Unrestricted actions from snapshots: the linear system against brute force, known actions, and what it must not see."""

import itertools
import math

import pytest
import torch
from instances import generator

from dynot_lite.companion.numerics import difference, worst
from dynot_lite.laws.gaussian import Gaussian
from dynot_lite.laws.mixtures import GaussianMixture
from dynot_lite.paths.continuity import gauss_legendre
from dynot_lite.potentials.action_matching import AutodiffAction, action_matching_loss
from dynot_lite.potentials.snapshots import SeparableAction, held_out_loss, mixture_path, unrestricted_action

F64 = torch.float64
TIMES = torch.tensor([0.0, 0.2, 0.7, 1.0], dtype=F64)
OPTIONS = {"width": 1.2, "components": 6, "degree": 3}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=F64)


def film(n=40, dim=2):
    """Four unpaired snapshots of a crowd that moves and grows."""
    return torch.stack([(1 + t) * normal(n, dim, seed=k) + 2 * t**2 for k, t in enumerate(TIMES)])


def loss_of(action, snapshots, *, times=TIMES, order=8):
    path, at, quadrature = mixture_path(snapshots, times=times, order=order)
    return action_matching_loss(action, snapshots[0], snapshots[-1], path, at, quadrature=quadrature)


@pytest.mark.parametrize("dim, degree", [(1, 0), (2, 1), (3, 4)])
def test_derivatives_are_those_of_the_value(dim, degree):
    action = SeparableAction(normal(5, dim), 0.8, normal(degree + 1, dim + 5, seed=1))
    x, e, t = normal(30, dim, seed=2), normal(30, dim, seed=3), 0.1 + 0.8 * torch.rand(30, generator=generator(), dtype=F64)
    assert worst(difference(lambda h: action.value(t + h, x)) - action.time_derivative(t, x)) < 1e-8
    assert worst(difference(lambda h: action.value(t, x + h * e)) - (action.velocity(t, x) * e).sum(1)) < 1e-9
    assert worst(action.value(0.3, x) - action.value(torch.full((30,), 0.3, dtype=F64), x)) < 1e-13


def test_the_value_is_the_sum_that_defines_it():
    centres, numbers, x = normal(2, 2), normal(3, 4, seed=1), normal(7, 2, seed=2)
    t = 0.3
    bumps = [0.5 * (-(x - c).square().sum(1) / (2 * 0.25)).exp() for c in centres]
    features = torch.stack([x[:, 0], x[:, 1], *bumps], 1)
    polynomials = torch.tensor([math.cos(k * math.acos(2 * t - 1)) for k in range(3)], dtype=F64)
    assert worst(SeparableAction(centres, 0.5, numbers).value(t, x) - features @ (polynomials @ numbers)) < 1e-13


def test_the_path_is_the_mixture_of_neighbours():
    snapshots = film()
    path, at, quadrature = mixture_path(snapshots, times=TIMES, order=4)
    assert path.shape == (24, 40, 2) and quadrature.sum().item() == pytest.approx(1)
    square = path.square().sum(-1).mean(-1)
    for power in (0, 1, 3):  # ∫ t^p E|x|² dt, in closed form on each piece
        exact = 0.0
        for k, (a, b) in enumerate(itertools.pairwise(TIMES)):
            nodes, weights = gauss_legendre(10)
            t = a + (b - a) * nodes
            first, second = (snapshots[j].square().sum(1).mean() for j in (k, k + 1))
            exact += ((b - a) * weights * t**power * ((1 - nodes) * first + nodes * second)).sum()
        assert (quadrature * at**power * square).sum().item() == pytest.approx(exact.item(), rel=1e-12)
    assert mixture_path(snapshots)[1].max() < 1 and torch.equal(path[0], snapshots[0]) and torch.equal(path[-1], snapshots[-1])


def test_no_function_of_time_alone_lowers_the_loss_along_the_mixtures():
    clock = AutodiffAction(lambda t, x: t - torch.sin(6 * math.pi * t) / (6 * math.pi) + 0 * x[:, 0])  # at rest at four times
    even = torch.linspace(0, 1, 4, dtype=F64)
    assert loss_of(clock, film(), times=even, order=12).abs() < 1e-9
    at_rest = action_matching_loss(clock, film()[0], film()[-1], film(), even, quadrature=[0.25] * 4)
    assert at_rest.item() == pytest.approx(-1)  # as the derivative at the snapshots themselves does not see it


def test_the_solution_has_the_least_loss_of_its_class():
    snapshots, ridge = film(), 1e-5
    action = unrestricted_action(snapshots, times=TIMES, ridge=ridge, generator=generator(), **OPTIONS)
    numbers = action.coefficients.clone().requires_grad_()
    moving = SeparableAction(action.centres, action.width, numbers)
    loss = loss_of(moving, snapshots)
    (gradient,) = torch.autograd.grad(loss, numbers)
    # The ridge is ½ ridge · mean diagonal of G · |a|²; along a line the diagonal of G is twice the loss's quadratic part.
    flat = torch.eye(numbers.numel(), dtype=F64).unflatten(1, numbers.shape)
    at = lambda a: loss_of(SeparableAction(action.centres, action.width, a), snapshots)
    diagonal = torch.stack([at(row) + at(-row) for row in flat])
    assert worst(gradient + ridge * diagonal.mean() * action.coefficients) < 1e-9 * gradient.abs().max().clamp(min=1)
    # For the minimiser ⟨b, a⟩ = −⟨a, (G + ridge) a⟩, so the loss is half its linear part, to the ridge.
    linear = 0.5 * (at(numbers) - at(-numbers))
    assert loss.item() == pytest.approx(0.5 * linear.item(), rel=1e-3) and loss < -0.5
    # Four nodes are exact for degree 3; by brute force on a fine grid, an expectation at a time, it is the same number.
    assert loss_of(action, snapshots, order=4).item() == pytest.approx(loss.item(), rel=1e-12)
    total = action.value(0.0, snapshots[0]).mean() - action.value(1.0, snapshots[-1]).mean()
    for k, (a, b) in enumerate(itertools.pairwise(TIMES.tolist())):
        for share in (torch.arange(200) + 0.5) / 200:
            t, both = a + (b - a) * share.item(), 0.0
            for cloud, weight in ((snapshots[k], 1 - share), (snapshots[k + 1], share)):
                inside = action.time_derivative(t, cloud) + 0.5 * action.velocity(t, cloud).square().sum(1)
                both = both + weight * inside.mean()
            total = total + (b - a) / 200 * both
    assert total.item() == pytest.approx(loss.item(), rel=1e-4)


def test_no_loss_along_the_mixtures_knows_who_is_who():
    snapshots = film()
    shuffled = torch.stack([cloud[torch.randperm(40, generator=generator(k))] for k, cloud in enumerate(snapshots)])
    for k in range(3):
        action = SeparableAction(normal(6, 2, seed=k), 1.2, normal(4, 8, seed=k + 10))
        assert loss_of(action, snapshots).item() == pytest.approx(loss_of(action, shuffled).item(), rel=1e-12)
        scrambled = snapshots[[0, 2, 1, 3]]
        assert abs(loss_of(action, snapshots) - loss_of(action, scrambled)) > 0.01


def test_a_mixture_of_two_normal_laws_on_the_line():
    """Its velocity is (F_0 − F_1)/ρ_t: ∂_t F = F_1 − F_0 is minus the flux."""
    ends = [GaussianMixture([1.0], [[m]], [[[1.0]]]) for m in (-0.5, 0.5)]
    levels = (torch.arange(2000, dtype=F64) + 0.5) / 2000
    snapshots = torch.stack([end.quantile(levels).reshape(-1, 1) for end in ends])
    action = unrestricted_action(snapshots, width=0.8, components=25, degree=4, ridge=1e-9, generator=generator())
    x = torch.linspace(-2.5, 2.5, 201, dtype=F64)[:, None]
    (f0, f1), (r0, r1) = ([end.cdf(x).flatten() for end in ends], [end.log_prob(x).exp() for end in ends])
    for t in (0.1, 0.5, 0.9):
        density = (1 - t) * r0 + t * r1
        truth, found = (f0 - f1) / density, action.velocity(t, x)[:, 0]
        error = (density * (found - truth).square()).sum() / (density * truth.square()).sum()
        assert error < 1e-3
    grid = torch.linspace(-9, 9, 4001, dtype=F64)[:, None]
    flux = ends[0].cdf(grid).flatten() - ends[1].cdf(grid).flatten()
    nodes, weights = gauss_legendre(20)
    densities = [(1 - t) * ends[0].log_prob(grid).exp() + t * ends[1].log_prob(grid).exp() for t in nodes]
    energy = sum(w * (flux.square() / density).sum() * 18 / 4000 for w, density in zip(weights, densities, strict=True))
    assert loss_of(action, snapshots, times=None).item() == pytest.approx(-0.5 * energy.item(), rel=2e-2)


def test_a_turning_gaussian_film():
    """The symmetric A with A Σ + Σ A = Σ' is its field; many snapshots bring the mixtures near the film."""
    spread = torch.tensor([1.5, 0.75], dtype=F64)
    corners = Gaussian(torch.zeros(2).double(), torch.eye(2).double()).sample(1500, generator=generator(3))
    corners = torch.cat([corners, -corners])  # of mean zero

    def frame(t):
        c, s = math.cos(math.pi * t / 2), math.sin(math.pi * t / 2)
        return torch.tensor([[c, -s], [s, c]], dtype=F64) * spread

    snapshots = torch.stack([corners @ frame(t).T for t in torch.linspace(0, 1, 17).tolist()])
    action = unrestricted_action(snapshots, width=3.0, components=15, degree=5, ridge=1e-8, generator=generator())
    for t in (0.25, 0.5, 0.75):
        x, (a, b) = corners @ frame(t).T, spread.square().tolist()
        turned = frame(t) / spread
        rate = math.pi / 2 * (a - b) / (a + b)
        field = x @ (turned @ torch.tensor([[0.0, rate], [rate, 0.0]], dtype=F64) @ turned.T)
        error = (action.velocity(t, x) - field).square().mean() / field.square().mean()
        assert error < 0.02


def test_the_held_out_loss_is_that_of_the_rows_that_were_not_seen():
    snapshots = film()
    found = held_out_loss(snapshots, times=TIMES, folds=3, generator=generator(4), **OPTIONS)
    draws = generator(4)
    fold = torch.randperm(40, generator=draws) % 3
    expected = 0.0
    for k in range(3):
        action = unrestricted_action(snapshots[:, fold != k], times=TIMES, generator=draws, **OPTIONS)
        expected += loss_of(action, snapshots[:, fold == k]).item() * (fold == k).sum().item() / 40
    assert found == pytest.approx(expected, rel=1e-10)
    # Too rich a class sees in its own rows what is not there.
    rich = {"width": 0.4, "components": 30, "degree": 3, "ridge": 1e-9}
    seen = loss_of(unrestricted_action(snapshots, times=TIMES, generator=generator(), **rich), snapshots)
    assert held_out_loss(snapshots, times=TIMES, generator=generator(), **rich) > found > seen


def test_a_unit_of_length_is_none_of_its_business():
    snapshots = film()
    small, large = (
        unrestricted_action(unit * snapshots, times=TIMES, generator=generator(), **OPTIONS | {"width": 1.2 * unit})
        for unit in (1.0, 1024.0)
    )
    x = normal(10, 2, seed=5)
    assert worst(large.velocity(0.3, 1024 * x) / 1024 - small.velocity(0.3, x)) < 1e-9


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"snapshots must have shape \(K, n, d\)"):
        mixture_path(normal(4, 2))
    for times in ([0.0, 0.5, 0.4, 1.0], [0.1, 0.2, 0.4, 1.0], [0.0, 0.5, 1.0], [0.0, 0.2, 0.4, 0.9]):
        with pytest.raises(ValueError, match="times must increase from 0 to 1"):
            mixture_path(film(), times=times)
    with pytest.raises(ValueError, match="snapshots must have as many different points as there are components, 3, got 2"):
        unrestricted_action(torch.tensor([[[0.0], [1.0]], [[1.0], [0.0]]]), width=1.0, components=3)
    with pytest.raises(ValueError, match="folds must be at most"):
        held_out_loss(film(4), width=1.0, folds=5)
    with pytest.raises(ValueError, match="coefficients"):
        SeparableAction(normal(3, 2), 1.0, normal(2, 4))
    with pytest.raises(RuntimeError, match="take a larger one"):
        unrestricted_action(film(), width=1e7, components=6, ridge=1e-30)
