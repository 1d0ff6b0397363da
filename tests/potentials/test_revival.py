"""Idle heads and pieces given back: what leaves Ψ as it is, what parts two halves, what an optimiser must know of it."""

import pytest
import torch
from instances import generator

from dynot_lite.datasets.w2_benchmark import synthetic_w2_pair
from dynot_lite.potentials import descent as machinery
from dynot_lite.potentials import revival
from dynot_lite.potentials.convex import LogSumExp


def with_idle(kind, number=2):
    """A potential of five heads of six pieces, of which a number of heads, or pieces of each head, is idle; and points."""
    potential = LogSumExp(3, 6, heads=5, scale=2, generator=generator(1)).double()
    with torch.no_grad():
        potential.log_temperature.copy_(torch.linspace(-0.5, 0.5, 5))
        for k in range(number):
            if kind == "heads":  # equal pieces: the head is affine
                potential.slopes[k], potential.heights[k] = potential.slopes[k, :1], potential.heights[k, :1]
            else:
                potential.heights[:, k] -= 1000
    return potential, torch.randn(400, 3, generator=generator(2), dtype=torch.float64)


def trained_once(potential, x):
    optimiser = torch.optim.Adam(potential.parameters(), lr=0.0)
    potential(x).mean().backward()  # whose derivatives do not depend on the constant that a freed head leaves
    optimiser.step()
    return optimiser


def change(kind, apart, monkeypatch):
    monkeypatch.setattr(revival, "APART", 0.1 * apart)
    monkeypatch.setattr(revival, "PIECES_APART", apart)
    potential, x = with_idle(kind)
    optimiser, before = trained_once(potential, x), potential.gradient(x).detach()
    revived = revival.revive(potential, x, optimiser.state, generator(3))
    assert revived >= 2
    return (potential.gradient(x).detach() - before).norm(dim=1).max().item(), potential, x


@pytest.mark.parametrize("kind", ["heads", "pieces"])
def test_halves_in_the_place_of_what_is_idle_leave_the_map_as_it_is(kind, monkeypatch):
    assert change(kind, 0.0, monkeypatch)[0] < 1e-12


@pytest.mark.parametrize("kind", ["heads", "pieces"])
def test_parting_the_halves_changes_the_map_by_second_order_only(kind, monkeypatch):
    large, small = change(kind, 0.1, monkeypatch)[0], change(kind, 0.05, monkeypatch)[0]
    assert small > 1e-6 and 3.5 < large / small < 4.5


@pytest.mark.parametrize("kind", ["heads", "pieces"])
def test_what_was_idle_works_afterwards(kind, monkeypatch):
    _, potential, x = change(kind, 1.0, monkeypatch)
    shares = potential._scores(x).softmax(-1).mean(0)
    activity = torch.einsum("nhk,hkd->nhd", potential._scores(x).softmax(-1), potential.slopes).var(0).sum(1)
    assert (activity > revival.IDLE * activity.mean()).all()
    if kind == "pieces":
        assert (shares[:, :2] > revival.IDLE / 6).all()


def test_two_pieces_part_along_the_longest_direction_of_the_points_that_they_have(monkeypatch):
    potential, x = with_idle("pieces", number=5)  # one piece has all points, in every head
    x = x * torch.tensor([1.0, 2.0, 1.0])
    before = potential.slopes.detach().clone()
    assert revival.revive(potential, x, trained_once(potential, x).state, generator(3)) >= 5
    parted = (potential.slopes[:, 5] - before[:, 5]).detach()
    assert (parted[:, 1].abs() > 0.98 * parted.norm(dim=1)).all()


def test_without_idle_ones_nothing_changes():
    potential, x = with_idle("heads", number=0)
    before = [parameter.detach().clone() for parameter in potential.parameters()]
    assert (potential._scores(x).softmax(-1).mean(0) > revival.IDLE / 6).all()
    assert revival.revive(potential, x, trained_once(potential, x).state, generator(3)) == 0
    assert all(torch.equal(a, b) for a, b in zip(before, potential.parameters(), strict=True))


@torch.no_grad()
def test_no_more_are_revived_than_there_are_to_split():
    potential, x = with_idle("heads", number=4)
    with torch.enable_grad():
        state = trained_once(potential, x).state
    assert revival._heads(potential, x, state, lambda *shape: torch.zeros(shape).double()) == 2
    potential, x = with_idle("pieces", number=5)
    with torch.enable_grad():
        state = trained_once(potential, x).state
    assert revival._pieces(potential, x, state, lambda *shape: torch.ones(shape).double()) == 5


@pytest.mark.parametrize("kind", ["heads", "pieces"])
def test_the_moments_of_halves_are_those_of_their_derivatives(kind, monkeypatch):
    monkeypatch.setattr(revival, "APART", 0.0)
    monkeypatch.setattr(revival, "PIECES_APART", 0.0)
    potential, x = with_idle(kind)
    optimiser = trained_once(potential, x)
    revival.revive(potential, x, optimiser.state, generator(3))
    potential.zero_grad()
    new = trained_once(potential, x)
    # The derivative in a temperature also depends on the heights of pieces, which a split lowers: Adam soon has it.
    for parameter in (potential.slopes, potential.heights, potential.log_temperature)[: 3 if kind == "heads" else 2]:
        for moment in ("exp_avg", "exp_avg_sq"):
            assert torch.allclose(optimiser.state[parameter][moment], new.state[parameter][moment], rtol=1e-9, atol=1e-20)


@pytest.mark.parametrize("given", [False, True])
def test_a_fit_revives_its_own_potential_only(given, monkeypatch):
    calls = []
    monkeypatch.setattr(machinery, "revive", lambda *arguments: calls.append(arguments) or 0)
    pair = synthetic_w2_pair(5, generator=generator(0))
    potential = LogSumExp(5, 4, heads=2, generator=generator(1)) if given else None
    options = dict(potential=potential, size=None, loss=None, batch=16, learning_rate=None)
    run = machinery.Run(pair.source, pair.target, **options, generator=generator(2))
    for step in range(500):
        run.advance(step / 500)
    assert len(calls) == (0 if given else 7)  # the first of the eight shares falls into the steps of the warm-up
