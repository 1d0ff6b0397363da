import math

import pytest
import torch
from scipy.stats import norm

from dynot_lite.laws.gaussian import Gaussian, monge_map, w2_squared
from dynot_lite.potentials.bounds import lower_bound
from dynot_lite.potentials.convex import ICNN, ConvexPotential, LogSumExp, Quadratic


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def laws():
    """Two Gaussians in the plane whose covariances do not commute, and the matrix and offset of their Monge map."""
    source = Gaussian(torch.tensor([0.5, -1.0]).double(), torch.tensor([[1.0, 0.3], [0.3, 0.5]]).double())
    target = Gaussian(torch.tensor([-0.2, 0.4]).double(), torch.tensor([[0.6, -0.4], [-0.4, 1.4]]).double())
    return source, target, monge_map(source, target)


def loss(source, target, matrix, offset):
    """L_OT of the quadratic potential in closed form: E of a quadratic under a Gaussian, twice."""
    inverse = torch.linalg.inv(matrix)
    second = [law.cov + law.mean.outer(law.mean) for law in (source, target)]
    value = 0.5 * (matrix * second[0]).sum() + offset @ source.mean
    moment = second[1] - target.mean.outer(offset) - offset.outer(target.mean) + offset.outer(offset)
    return (value + 0.5 * (inverse * moment).sum()).item()


def exact_bound(source, target, matrix, offset):
    squares = sum((law.cov.trace() + law.mean.square().sum()).item() for law in (source, target))
    return squares - 2 * loss(source, target, matrix, offset)


def test_the_true_potential_gives_w2_squared():
    source, target, best = laws()
    truth = exact_bound(source, target, best.matrix, best.offset)
    assert truth == pytest.approx(w2_squared(source, target).item(), rel=1e-12)
    potential = Quadratic(2, matrix=best.matrix, offset=best.offset)
    found = lower_bound(potential, source.sample(2**15, generator=generator(1)), target.sample(2**15, generator=generator(2)))
    assert abs(found.value - truth) < 4 * found.std
    assert found.lower() == pytest.approx(found.value - norm.ppf(0.99) * found.std, rel=1e-5)


def test_a_potential_wrong_by_a_known_amount_gives_a_bound_too_low_by_that_amount():
    source, target, best = laws()
    matrix = best.matrix + torch.tensor([[0.6, 0.2], [0.2, 0.4]]).double()
    offset = best.offset + torch.tensor([0.6, -0.3]).double()
    known = exact_bound(source, target, matrix, offset)
    x, y = source.sample(2**16, generator=generator(1)), target.sample(2**16, generator=generator(2))
    found = lower_bound(Quadratic(2, matrix=matrix, offset=offset), x, y)
    truth = w2_squared(source, target).item()
    assert truth - known > 20 * found.std
    assert abs(found.value - known) < 4 * found.std
    assert found.lower() < truth


def test_the_standard_error_is_that_of_repetitions_and_the_limit_covers_as_often_as_it_says():
    source, target, best = laws()
    potential, truth = Quadratic(2, matrix=best.matrix, offset=best.offset), w2_squared(source, target).item()
    # Of different sizes, and so that either law alone would give less than nine tenths of the error.
    found = [
        lower_bound(potential, source.sample(300, generator=generator(2 * k)), target.sample(150, generator=generator(2 * k + 1)))
        for k in range(400)
    ]
    values = torch.tensor([one.value for one in found])
    assert values.std().item() == pytest.approx(sum(one.std for one in found) / 400, rel=0.1)
    covered = sum(one.lower(0.8416) <= truth for one in found) / 400
    assert 0.8 - 4 * 0.02 < covered < 0.8 + 4 * 0.02


def mixed(seed):
    potential = LogSumExp(3, 5, heads=2, temperature=0.2, generator=generator(seed))
    return potential.double().requires_grad_(False)


@pytest.mark.parametrize("potential", [mixed(0), ICNN(3, (8, 8), generator=generator(3)).double()], ids=["LogSumExp", "ICNN"])
def test_points_paired_by_the_map_itself_give_their_own_squared_distance(potential):
    x = torch.randn(500, 3, generator=generator(4)).double()
    y = potential.gradient(x).detach()
    found = lower_bound(potential, x, y)
    assert found.value == pytest.approx((x - y).square().sum(1).mean().item(), abs=1e-5)
    # never above: the conjugates are bounded from above
    assert found.value <= (x - y).square().sum(1).mean().item() + 1e-12


def test_an_unfinished_search_lowers_the_bound_and_never_raises_it(monkeypatch):
    potential = mixed(1)
    x, y = torch.randn(400, 3, generator=generator(5)).double(), torch.randn(400, 3, generator=generator(6)).double()
    exact = lower_bound(potential, x, y)
    monkeypatch.setattr("dynot_lite.potentials.bounds.MOST", 0)
    lazy = lower_bound(potential, x, y)
    assert lazy.value < exact.value - 1e-3


def test_float32_potentials_and_blocks_change_nothing(monkeypatch):
    potential = mixed(2).float()
    x, y = torch.randn(100, 3, generator=generator(7)), torch.randn(90, 3, generator=generator(8))
    found = lower_bound(potential, x, y)
    monkeypatch.setattr("dynot_lite.potentials.bounds.FLOATS", 7 * 9)
    assert lower_bound(potential, x, y).value == pytest.approx(found.value, abs=1e-6)
    assert math.isfinite(found.lower())
    assert next(potential.parameters()).dtype == torch.float32


def test_bad_input_is_named():
    potential, x = Quadratic(2), torch.randn(5, 2).double()
    with pytest.raises(ValueError, match="must have a curvature"):
        lower_bound(ConvexPotential(2), x, x)
    with pytest.raises(ValueError, match="two points each"):
        lower_bound(potential, x[:1], x)
    with pytest.raises(ValueError, match="x1 must"):
        lower_bound(potential, x, torch.randn(5, 3))
