import numpy as np
import ot
import pytest
import torch
from clouds import F64, cloud, fitted, unequal
from instances import generator

from dynot_lite.couplings import prepared
from dynot_lite.couplings.prepared import PairList, prepare


@pytest.mark.parametrize("epsilon", (0.0, 0.3))
def test_prepared_pairs_have_exact_counts(epsilon):
    base = cloud(50, 3)
    points = torch.cat([base, base[:4], torch.zeros(1, 3)])
    weights = torch.cat([unequal(54), torch.zeros(1, dtype=F64)])
    coupling, fit = fitted(points, weights, epsilon=epsilon, tol=0.02)
    pairs = prepare(coupling, 3001, generator=generator(1))
    counts = torch.bincount(pairs.index, minlength=55)
    assert (counts - 3001 * weights).abs().max() < 1 and counts.sum() == 3001 == len(pairs)
    x0, x1 = pairs.pair(3001, generator=generator(2))
    assert 0.5 * (x0 - x1).square().sum(1).mean() == pytest.approx(pairs.cost(), rel=1e-6)
    assert torch.unique(x0, dim=0).shape == (3001, 3) and abs(x0.mean()) < 0.05 and abs(x0.std() - 1) < 0.03
    # Most noises stay in their cell, and moving the others costs little.
    assert 0 < pairs.moved < 0.3
    assert pairs.cost() < 1.1 * fit.primal_cost
    if not epsilon:
        stay = coupling.points[coupling.assign(x0)] == x1
        assert 1 - stay.all(1).double().mean() == pytest.approx(pairs.moved, abs=1e-3)
    again = PairList(coupling, **pairs.state_dict())
    assert all(
        torch.equal(*both)
        for both in zip(again.pair(700, generator=generator(3)), pairs.pair(700, generator=generator(3)), strict=True)
    )
    assert len(pairs.pair(5000, generator=generator(4))[0]) == 5000
    with pytest.raises(ValueError, match="n must be at least"):
        prepare(coupling, 54)


def test_prepared_pairs_equal_weights():
    coupling, _ = fitted(cloud(100, 8))
    pairs = prepare(coupling, 700, generator=generator(1))
    assert (torch.bincount(pairs.index) == 7).all()
    # No noise is moved but those that are too many in their cell.
    noise = torch.cat([x for _, x in pairs.blocks()])
    alone = coupling.assign(noise)
    assert pairs.moved * 700 == pytest.approx((torch.bincount(alone, minlength=100) - 7).clamp(min=0).sum().item())
    # Those that lose the least go first: close to the cheapest way; in any other order it is 0.8 % above.
    cost = 0.5 * torch.cdist(noise.to(F64), coupling.points.to(F64)).square().numpy()
    assert pairs.cost() < 1.006 * ot.emd2(np.full(700, 1 / 700), np.full(100, 0.01), cost)


def test_several_blocks_at_a_time_give_the_same_list(monkeypatch):
    """As on a GPU, where a block of noise alone is too few."""
    coupling, _ = fitted(cloud(60, 3), tol=0.2)
    expected = prepare(coupling, 1000, generator=generator(1))
    for rows in (600, 10**9):
        monkeypatch.setattr(prepared, "room", lambda device, atoms, rows=rows: rows)
        found = prepare(coupling, 1000, generator=generator(1))
        assert found.seed == expected.seed and torch.equal(found.index, expected.index) and found.moved == expected.moved
