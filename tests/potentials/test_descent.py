"""Learning a Brenier potential: the machinery against exact solves, Gaussians recovered, interrupted fits, bad input."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from instances import generator, pair, potential_of

from dynot_lite._base import randomness
from dynot_lite._base.checkpoints import read, save
from dynot_lite.couplings.batches import exact_pairs
from dynot_lite.datasets.w2_benchmark import synthetic_w2_pair
from dynot_lite.laws import gaussian
from dynot_lite.metrics import l2_uvp
from dynot_lite.potentials import convex
from dynot_lite.potentials import descent as machinery
from dynot_lite.potentials.action_matching import OptimalAction, action_matching_loss
from dynot_lite.potentials.conjugates import Dense, Limited, Window, quasi_newton
from dynot_lite.potentials.convex import ICNN, LogSumExp, Quadratic
from dynot_lite.potentials.dual import DualRecord, fit, pairing_size, plateau, semidual_loss
from dynot_lite.potentials.optimal_flow_matching import ofm_loss

OPTIONS = dict(size=None, loss=None, batch=64)


def stiff(dim, seed=0, dtype=torch.float64):
    gen = generator(seed)
    matrix = torch.randn(dim, dim, generator=gen, dtype=torch.float64)
    matrix = matrix @ matrix.T / dim + 0.1 * torch.eye(dim, dtype=torch.float64)
    potential = LogSumExp(dim, 12, heads=3, matrix=matrix, scale=6, temperature=0.3, generator=gen)
    return potential.to(dtype)


def empty(n, dim, memory=None):
    return torch.zeros(n, 2 * memory, dim).double() if memory else torch.eye(dim, dtype=torch.float64).repeat(n, 1, 1)


@pytest.mark.parametrize("dim", [1, 2, 5, 16])
def test_quasi_newton_finds_the_conjugate_points(dim):
    potential, y = stiff(dim), 2 * torch.randn(50, dim, generator=generator(1), dtype=torch.float64)
    z, inverse = y.clone(), torch.eye(dim, dtype=torch.float64).repeat(50, 1, 1)
    with torch.no_grad():
        norm = quasi_newton(potential._gradient, y, z, inverse, tol=1e-10, max_iterations=300)
    assert torch.allclose(norm, (potential.gradient(z) - y).norm(dim=1), rtol=0, atol=1e-12)
    assert norm.mean() <= 1e-10 * dim**0.5
    assert torch.allclose(z, potential.solve(y).require().argmax, rtol=0, atol=1e-7)
    assert (inverse - inverse.mT).abs().max() < 1e-8 * inverse.abs().max()
    assert (torch.linalg.eigvalsh(inverse) > 0).all()


def test_quasi_newton_is_exact_on_a_quadratic_after_as_many_steps_as_dimensions():
    # BFGS with exact line searches would end after d steps; with secants only it needs a few more, and learns the Hessian.
    potential, y = potential_of("quadratic", 3), torch.randn(9, 3, generator=generator(2), dtype=torch.float64)
    z, inverse = torch.zeros_like(y), torch.eye(3, dtype=torch.float64).repeat(9, 1, 1)
    with torch.no_grad():
        norm = quasi_newton(potential._gradient, y, z, inverse, tol=1e-12, max_iterations=40)
    assert norm.max() < 1e-10
    assert torch.allclose(z, torch.linalg.solve(potential.matrix, (y - potential.offset).T).T, atol=1e-9)


@pytest.mark.parametrize("dim, memory", [(16, 7), (16, 10)])
def test_limited_memory_finds_the_conjugate_points_with_the_last_secants_only(dim, memory):
    potential, y = stiff(dim), 2 * torch.randn(50, dim, generator=generator(1), dtype=torch.float64)
    z, secants = y.clone(), empty(50, dim, memory)
    with torch.no_grad():
        norm = quasi_newton(potential._gradient, y, z, secants, tol=1e-6, max_iterations=300)
    assert norm.mean() <= 1e-6 * dim**0.5
    assert (z - potential.solve(y).require().argmax).norm(dim=1).mean() < 1e-3
    steps, changes = secants.chunk(2, 1)
    assert torch.allclose((steps * changes).sum(2), torch.ones(50, memory, dtype=torch.float64))


def test_dense_and_limited_estimates_agree_while_nothing_is_forgotten():
    potential, y, found = stiff(16), torch.randn(20, 16, generator=generator(4), dtype=torch.float64), []
    vector = torch.randn(20, 16, generator=generator(5), dtype=torch.float64)
    for memory in (None, 5, 4):
        z, estimates = y.clone(), empty(20, 16, memory)
        with torch.no_grad():
            quasi_newton(potential._gradient, y, z, estimates, tol=1e-12, max_iterations=5)
        found.append((z, (Limited(estimates) if memory else Dense(estimates)).times(vector)))
    # The fifth secant is taught after the last step: only the product shows that it is forgotten.
    assert all(torch.allclose(found[0][0], z, rtol=0, atol=1e-12) for z, _ in found)
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-9, atol=1e-9)
    assert not torch.allclose(found[0][1], found[2][1], rtol=0.01, atol=0.01)


@pytest.mark.parametrize("heads", [3, 32])
def test_closed_derivatives_of_the_default_potential_are_those_of_its_values(heads, monkeypatch):
    monkeypatch.setattr(convex, "ROWS", 7)
    potential = LogSumExp(3, 5, heads=heads, scale=6, temperature=0.3, generator=generator(4)).double()
    x = 2 * torch.randn(20, 3, generator=generator(6), dtype=torch.float64)
    expected = torch.autograd.grad(0.3 * potential._value(x).sum(), list(potential.parameters()))
    for parameter in potential.parameters():
        parameter.grad = torch.ones_like(parameter)
    value = potential._accumulate(x, 0.3)
    assert value.item() == pytest.approx(0.3 * potential._value(x).sum().item(), rel=1e-12)
    for parameter, wanted in zip(potential.parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad - 1, wanted, rtol=1e-10, atol=1e-10)
    assert torch.allclose(potential._gradients()(x), potential._gradient(x), rtol=1e-12)


def test_a_fit_in_low_dimension_starts_from_exact_pairs_and_then_descends_with_an_optimiser_of_its_own(monkeypatch):
    monkeypatch.setattr(machinery, "PAIRS_EVERY", 4)
    p, q = pair(2, seed=6, condition=3.0)
    run = machinery.Run(p.sample, q.sample, potential=None, **OPTIONS, learning_rate=0.02, pairs=50, generator=generator(1))
    for k in range(10):
        run.advance(0.2 * k / 10)
        assert run.optimiser.param_groups[0]["lr"] == pytest.approx(0.02 * min((k + 1) / 50, (10 - k) / 6, 1))
    x, y = run.pairs.found
    assert len(x) == 150 and np.isnan(run.figures()[1])
    for one, other in zip(x.split(50), y.split(50), strict=True):  # in the coordinates of the fit they are optimal, too
        assert torch.equal(exact_pairs(one, other), torch.arange(50))
    for k in range(60):
        run.advance(0.2 + 0.8 * k / 60)
        rate = 0.02 * 0.25 * min((k + 1) / 50, (60 - k) / 54, 1)
        assert run.optimiser.param_groups[0]["lr"] == pytest.approx(rate)
    assert run.pairs is None and run.figures()[1] < 0.02
    above = machinery.Run(
        torch.randn(99, 5), torch.randn(99, 5), potential=None, **OPTIONS, learning_rate=0.02, generator=generator()
    )
    assert above.pairs is None and not above.paired
    assert [pairing_size(*budget) for budget in ((1750, None), (None, 60), (1400, 1e3), (10**6, 20), (900, None))] == [
        4096,
        4096,
        3746,
        0,
        0,
    ]


@pytest.mark.parametrize("memory", [None, 2])
def test_a_point_that_is_lost_starts_anew(memory):
    potential, y = potential_of("quadratic", 5), torch.randn(40, 5, generator=generator(1), dtype=torch.float64)
    draws = iter([y, *([y[:20]] * 9)])
    window = Window(lambda n: next(draws)[:n], y[0], groups=1, batch=40, visits=2, memory=memory, near=False)
    with torch.no_grad():
        window.batch(0, potential._gradient, 1e-3)
        window.z[0, 5:10] = torch.tensor([torch.nan, torch.inf, 1e9, -1e12, 1e300])[:, None]
        window.inverse[0, 5:10] = 1e9
        window.batch(1, potential._gradient, 1e-3)  # the twenty fresh ones are the last
        assert window.z.isfinite().all() and window.inverse.isfinite().all()
        for step in range(2, 8):
            y, z, norm = window.batch(step, potential._gradient, 1e-3)
        assert norm.max() < 0.1 and torch.allclose((potential._gradient(z) - y).norm(dim=1), norm)


def test_a_fresh_point_starts_at_the_nearest_that_is_solved():
    potential, evaluated = stiff(2), []

    def gradient(points):
        evaluated.append(len(points))
        return potential._gradient(points)

    counts = []
    for near in (False, True):
        gen = generator(3)
        window = Window(
            lambda n, gen=gen: torch.randn(n, 2, generator=gen, dtype=torch.float64),
            torch.zeros(2, dtype=torch.float64),
            groups=4,
            batch=800,
            visits=4,
            memory=None,
            near=near,
        )
        del evaluated[:]
        with torch.no_grad():
            for step in range(12):
                y, z, residual = window.batch(step, gradient, 1e-3)
                assert torch.allclose((potential._gradient(z) - y).norm(dim=1), residual) and residual.mean() < 2e-3
        counts.append(sum(evaluated))
    assert counts[1] < 0.8 * counts[0]


def test_rate_average_and_records_follow_their_schedule():
    """The rate rises over the first steps, stays, and falls linearly to zero; records are means over the steps since the last."""
    potential, x, losses, total = potential_of("quadratic", 2), torch.randn(40, 2, generator=generator(3)).double(), [], 120

    def estimator(potential, x0, x1, *, generator):
        losses.append(len(losses) ** 2)
        return potential(x0).mean() * 0 + potential.offset.sum() - potential.offset.sum().detach() + losses[-1]

    options = dict(size=None, loss=estimator, batch=8, learning_rate=0.02, generator=generator())
    run = machinery.Run(x, x + 1, potential=potential, **options)
    average = [p.clone() for p in run.average.parameters()]
    for k in range(total):
        run.advance(k / total)
        rate = 0.02 * min((k + 1) / 50, 1, (total - k) / (0.6 * total))
        assert run.optimiser.param_groups[0]["lr"] == pytest.approx(rate, rel=1e-12)
        share = 1 if k == 0 else 20 / (21 + k)
        average = [a + share * (p.detach() - a) for a, p in zip(average, run.potential.parameters(), strict=True)]
        assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(average, run.average.parameters(), strict=True))
        if k + 1 in (1, 50, 110):
            assert run.figures()[0] == pytest.approx(np.mean(losses)) and losses
            losses[:] = []
    assert (average[-1] - list(run.potential.parameters())[-1]).abs().max() > 1e-3


def test_a_bound_that_no_longer_rises_is_a_plateau():
    history = [DualRecord(k, 0.0, 0.0, 0.0, bound) for k, bound in enumerate((0.0, 1.0, 1.5, 2.0, 2.25))]
    assert plateau(history[:4], 1.5) and not plateau(history[:4], 1.0) and not plateau(history[:3], 9.0)
    assert plateau(history, 1.0) and not plateau(history, 0.75)


def test_window_replaces_each_point_after_its_visits_and_keeps_the_rest():
    drawn = iter(range(10**6))
    window = Window(
        lambda n: torch.tensor([[float(next(drawn))] for _ in range(n)]),
        torch.zeros(1),
        groups=3,
        batch=6,
        visits=4,
        memory=None,
        near=False,
    )
    seen = {}
    for step in range(3 * 40):
        y, z, residual = window.batch(step, lambda points: 2 * points, 1e-3)
        assert torch.allclose(2 * z, y, atol=1e-2 * (1 + y.abs().max().item())) and residual.shape == (6,)
        for value in y[:, 0].tolist():
            seen.setdefault(value, []).append(step)
    gone = [steps for value, steps in seen.items() if max(steps) < 3 * 30 and value >= 18]
    assert len(gone) > 50 and all(len(steps) == 4 for steps in gone)
    assert all((np.diff(steps) == 3).all() for steps in seen.values())


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_balancing_makes_the_gaussian_map_the_identity_and_restore_inverts_it(dim):
    p, q = pair(dim, seed=3)
    x0, x1 = 7 + 30 * p.sample(500, generator=generator(1)), 0.01 * q.sample(400, generator=generator(2))
    change = machinery.Coordinates.balancing(x0, x1)
    assert torch.allclose(change.forward.T @ change.backward / change.square, torch.eye(dim), rtol=1e-4, atol=1e-4)
    u0, u1 = change.source(x0), change.target(x1)
    assert torch.allclose(torch.atleast_2d(u0.T.cov()), torch.atleast_2d(u1.T.cov()), atol=1e-3)
    assert u0.mean(0).norm() < 1e-3 and abs(u0.var(0).sum() - dim) < 1e-2 * dim
    balanced = LogSumExp(dim, 5, heads=3, matrix=torch.eye(dim), scale=2, generator=generator(4))
    original = change.restore(balanced).double()
    # ∇Ψ(x) - m1 = Lᵀ ∇Ψ'(x')/s², by the chain rule
    expected = change.mean1 + balanced.gradient(u0).detach() @ change.forward / change.square
    assert torch.allclose(original.gradient(x0).float(), expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


@pytest.mark.parametrize("dim, size", [(1, None), (2, None), (2, (3, 1)), (5, (2, 7)), (16, None)])
def test_default_potential_starts_at_the_identity_and_every_piece_has_points(dim, size):
    # Two clusters, one of them small and far.
    points = torch.randn(8192, dim, generator=generator(1))
    points[:400] = 5 + 0.1 * points[:400]
    potential = machinery.default_potential(points, size, generator(2))
    with torch.no_grad():
        assert l2_uvp(potential.gradient(points), points, points.var(0).sum().item()) < 3
        heads, pieces = potential.heights.shape
        largest = potential._scores(points).argmax(-1)
        used = [len(largest[:, head].unique()) for head in range(heads)]
    assert sum(used) >= 0.9 * heads * pieces
    assert size is None or (heads, pieces) == size


def test_held_out_bound_is_the_semi_dual_in_the_original_coordinates():
    p, q = pair(3, seed=5)
    x, y = 2 + p.sample(300, generator=generator(1)), 3 * q.sample(200, generator=generator(2))
    change = machinery.Coordinates.balancing(x, y)
    balanced = LogSumExp(3, 5, heads=3, matrix=torch.eye(3), scale=2, generator=generator(4))
    with torch.no_grad():
        found = machinery.HeldOut(x, y, change).bound(balanced)
        loss = semidual_loss(change.restore(balanced).double(), x, y)
    expected = x.square().sum(1).mean() + y.square().sum(1).mean() - 2 * loss
    assert abs(found - expected.item()) < 1e-4 * abs(expected.item())


@pytest.mark.parametrize("batch_size", [32, 300])
def test_step_uses_the_gradient_of_the_semi_dual(batch_size, monkeypatch):
    """One step from solved conjugates, against central differences of the exactly solved loss (envelope theorem).

    The larger batch is differentiated in two parts of different sizes.
    """
    monkeypatch.setattr(machinery, "TOLERANCE", 1e-9)
    potential = stiff(2)
    x0, x1 = (torch.randn(batch_size, 2, generator=generator(s), dtype=torch.float64) for s in (1, 2))
    options = dict(potential=potential, size=None, loss=None, batch=batch_size, learning_rate=1e-2)
    run = machinery.Run(x0, x1, **options, generator=generator(3))
    run.x, run.window.draw = (lambda n: x0[:n]), (lambda n: x1[:n])
    run.optimiser = torch.optim.SGD(run.potential.parameters(), lr=1e-2)  # step = - rate · gradient
    before = [p.detach().clone() for p in run.potential.parameters()]
    loss = semidual_loss(potential, x0, x1).item()
    run.advance(0.0)
    assert abs(run.totals[0].item() - loss) < 1e-6 * abs(loss)
    rate = 1e-2 / machinery.WARM_UP
    gradients = [(old - new.detach()) / rate for old, new in zip(before, run.potential.parameters(), strict=True)]
    directions = [torch.randn(p.shape, generator=generator(6), dtype=torch.float64) for p in before]
    losses = []
    for sign in (1e-5, -1e-5):
        with torch.no_grad():
            for parameter, old, direction in zip(potential.parameters(), before, directions, strict=True):
                parameter.copy_(old + sign * direction)
            losses.append(semidual_loss(potential, x0, x1).item())
    expected = (losses[0] - losses[1]) / 2e-5
    found = sum((g * d).sum().item() for g, d in zip(gradients, directions, strict=True))
    assert abs(found - expected) < 1e-5 * (1 + abs(expected))


@pytest.mark.parametrize("dim, kind", [(1, "samplers"), (2, "samplers"), (3, "arrays")])
def test_gaussian_to_gaussian_recovers_the_monge_map(dim, kind):
    p, q = pair(dim, seed=6, condition=10.0)
    source, target = p.sample, q.sample
    if kind == "arrays":
        source, target = p.sample(20000, generator=generator(7)), q.sample(20000, generator=generator(8))
    found = fit(source, target, steps=150, batch=256, generator=generator(9))
    x = p.sample(4000, generator=generator(10))
    truth = gaussian.monge_map(p, q)(x)
    assert found.potential.slopes.dtype == torch.float64
    assert found.reason == "the steps are spent" and found.converged
    assert l2_uvp(found.transport(x), truth, q.cov.trace().item()) < 0.5
    assert torch.allclose(found.inverse(found.transport(x)), x, atol=1e-8)
    value, argmax = found.potential.conjugate(truth)
    assert torch.allclose(found.potential(x) + value, (x * truth).sum(1), atol=0.3) and argmax.shape == x.shape
    exact = gaussian.w2_squared(p, q).item()
    assert abs(found.history[-1].bound - exact) < 0.2 * exact + 0.1


@pytest.mark.parametrize("steps, paired", [(900, 0), (1000, 5)])
def test_pairs_come_first_in_a_run_that_is_long_enough(steps, paired, monkeypatch):
    monkeypatch.setattr(machinery, "PAIRS", 64)
    p, q = pair(2, seed=6, condition=3.0)
    found = fit(p.sample, q.sample, steps=steps, batch=8, size=(2, 4), generator=generator(1))
    # While it regresses on pairs, a fifth of the steps, there are no conjugate points.
    assert [np.isnan(record.residual) for record in found.history] == paired * [True] + (25 - paired) * [False]


def test_a_fit_beats_the_gaussian_map_and_says_what_it_did():
    benchmark = synthetic_w2_pair(2, generator=generator(0))
    records = []
    found = fit(
        benchmark.source,
        benchmark.target,
        steps=250,
        batch=512,
        generator=generator(1),
        callback=lambda record, potential: records.append((record, potential(torch.zeros(1, 2)).item())),
    )
    x = benchmark.source(4096, generator=generator(2))
    truth = benchmark.transport(x)
    sample = benchmark.source(2**14, generator=generator(3)).double(), benchmark.target(2**14, generator=generator(4)).double()
    linear = gaussian.monge_map(*(gaussian.Gaussian(points.mean(0), points.T.cov()) for points in sample))
    achieved = l2_uvp(found.transport(x), truth, benchmark.target_variance)
    assert achieved < 0.5 * l2_uvp(linear(x.double()), truth, benchmark.target_variance)
    assert [record for record, _ in records] == list(found.history)
    assert [record.step for record in found.history] == list(range(10, 251, 10))
    assert not any(np.isnan(record.residual) for record in found.history)
    assert all(0 <= record.residual < 0.05 for record in found.history[5:])
    seconds = [record.seconds for record in found.history]
    assert seconds == sorted(seconds) and found.history[-1].bound > found.history[0].bound


def test_the_input_potential_is_copied_and_any_family_can_be_trained():
    p, q = pair(2, seed=6, condition=3.0)
    x0, x1 = p.sample(500, generator=generator(1)), q.sample(400, generator=generator(2))
    for start in (Quadratic(2).double(), ICNN(2, (8, 8), generator=generator(3)).double()):
        before = [parameter.clone() for parameter in start.parameters()]
        found = fit(x0, x1, potential=start, steps=100, batch=128, learning_rate=3e-2, generator=generator(4))
        assert all(torch.equal(a, b) for a, b in zip(before, start.parameters(), strict=True))
        assert type(found.potential) is type(start)
        loss = [semidual_loss(potential, x0, x1).item() for potential in (start, found.potential)]
        assert loss[1] < loss[0] - 0.01


def ofm(potential, x0, x1, *, generator):
    return 0.5 * ofm_loss(potential, x0, x1, torch.rand(len(x0), generator=generator))


def am(potential, x0, x1, *, generator):
    times = torch.rand(len(x0), generator=generator)
    path = x0 + times[:, None] * (x1 - x0)
    return action_matching_loss(OptimalAction(potential), x0, x1, path, times)


@pytest.mark.parametrize("loss", [ofm, am])
def test_other_estimators_descend_the_same_objective(loss):
    benchmark = synthetic_w2_pair(2, generator=generator(0))
    found = fit(benchmark.source, benchmark.target, loss=loss, steps=60, batch=128, generator=generator(1))
    bounds = [record.bound for record in found.history]
    assert bounds[-1] > bounds[0] and np.isnan(found.history[-1].residual)


def test_neither_the_global_generator_nor_the_default_dtype_matters():
    benchmark = synthetic_w2_pair(2, generator=generator(0))
    state = torch.get_rng_state()
    options = dict(steps=20, batch=32)
    one = fit(benchmark.source, benchmark.target, **options, generator=generator(1)).potential
    assert torch.equal(torch.get_rng_state(), state)
    torch.set_default_dtype(torch.float64)
    try:
        other = fit(benchmark.source, benchmark.target, **options, generator=generator(1)).potential
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_what_a_sampler_returns_is_checked_on_every_call():
    for wrong, message in ((lambda x: x * torch.nan, "finite"), (lambda x: x[:, :1], "shape"), (lambda x: x[1:], "shape")):
        calls = []

        def late(n, *, generator, wrong=wrong, calls=calls):
            calls.append(n)
            x = torch.randn(n, 2, generator=generator)
            return wrong(x) if len(calls) > 3 else x

        with pytest.raises(ValueError, match=f"target.*{message}"):
            fit(GOOD, late, steps=40, generator=generator(0))
        assert calls[-1] == machinery.CHUNK


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("home, device", [("cpu", "cuda"), ("cuda", "cpu"), ("cuda", "cuda")])
@pytest.mark.parametrize("kind", ["default", "log-sum-exp", "ofm"])
def test_any_generator_serves_any_device(home, device, kind, tmp_path):
    x, y = (torch.randn(3000, 2, generator=generator(s)).to(device) for s in (1, 2))
    options = dict(steps=30, batch=64, checkpoint=tmp_path / "fit.pt", loss=ofm_anywhere if kind == "ofm" else None)
    if kind == "log-sum-exp":
        law = torch.Generator(home).manual_seed(3)
        options["potential"] = LogSumExp(2, 4, matrix=torch.eye(2, device=device), generator=law)

    def kill(record, potential):
        if record.step >= 12:
            raise Killed

    with pytest.raises(Killed):
        fit(x, 2 * y + 1, **options, generator=torch.Generator(home).manual_seed(0), callback=kill)
    found = fit(x, 2 * y + 1, **options, generator=torch.Generator(home).manual_seed(0))
    assert found.history[-1].step == 30 and found.transport(x).device.type == device
    if kind != "log-sum-exp":  # which starts far away
        assert l2_uvp(found.transport(x), 2 * x + 1, 8.0) < 20
    if home == "cpu" and kind != "ofm":  # the same numbers are drawn: the map is that of a run on the CPU alone
        options |= dict(checkpoint=None)
        if kind == "log-sum-exp":
            options["potential"] = LogSumExp(2, 4, matrix=torch.eye(2), generator=torch.Generator().manual_seed(3))
        alone = fit(x.cpu(), 2 * y.cpu() + 1, **options, generator=torch.Generator().manual_seed(0))
        assert l2_uvp(found.transport(x).cpu(), alone.transport(x.cpu()), 8.0) < 0.1


def ofm_anywhere(potential, x0, x1, *, generator):
    return 0.5 * ofm_loss(potential, x0, x1, randomness.uniform(len(x0), generator=generator, like=x0))


class Killed(Exception):
    pass


@pytest.mark.parametrize("kind", ["samplers", "arrays", "ofm"])
def test_a_resumed_fit_ends_where_the_uninterrupted_one_does(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(machinery, "CHUNK", 100)  # so that points are drawn before the interruption and after it
    benchmark = synthetic_w2_pair(2, generator=generator(0))
    laws = benchmark.source, benchmark.target
    if kind == "arrays":
        laws = tuple(law(3000, generator=generator(5)) for law in laws)
    options = dict(steps=60, batch=64, loss=ofm if kind == "ofm" else None)
    whole = fit(*laws, **options, generator=generator(1))
    for limit in (17, 43):

        def kill(record, potential, limit=limit):
            if record.step >= limit:
                raise Killed

        with pytest.raises(Killed):
            fit(*laws, **options, generator=generator(1), checkpoint=tmp_path / "fit.pt", callback=kill)
    # The generator's own state comes from the checkpoint, so any seed will do here.
    resumed = fit(*laws, **options, generator=generator(2), checkpoint=tmp_path / "fit.pt")
    for one, other in zip(whole.potential.parameters(), resumed.potential.parameters(), strict=True):
        assert torch.equal(one, other)
    assert [record.step for record in resumed.history] == [record.step for record in whole.history]
    again = fit(*laws, **options, generator=generator(3), checkpoint=tmp_path / "fit.pt")  # nothing is left to do
    assert len(again.history) == len(resumed.history)
    assert torch.equal(again.potential.slopes, resumed.potential.slopes)


def test_seconds_already_spent_count(tmp_path):
    benchmark = synthetic_w2_pair(2, generator=generator(0))
    options = dict(seconds=1.5, batch=64, checkpoint=tmp_path / "fit.pt")

    def kill(record, potential):
        if record.seconds > 0.9:
            raise Killed

    with pytest.raises(Killed):
        fit(benchmark.source, benchmark.target, **options, generator=generator(1), callback=kill)
    began = time.thread_time()
    found = fit(benchmark.source, benchmark.target, **options, generator=generator(1))
    assert time.thread_time() - began < 1.2 and found.reason == "the seconds are spent"
    assert 1.5 <= found.history[-1].seconds < 2


SCRIPT = """
import sys, torch
from dynot_lite.datasets.w2_benchmark import synthetic_w2_pair
from dynot_lite.potentials.dual import fit
torch.set_num_threads(int(sys.argv[2]))  # other threads sum in another order, and the run would drift away
pair = synthetic_w2_pair(2, generator=torch.Generator().manual_seed(0))
fit(pair.source, pair.target, steps=400, batch=64, generator=torch.Generator().manual_seed(1), checkpoint=sys.argv[1],
    callback=lambda record, potential: print(record.step, flush=True))
"""


def test_a_killed_process_continues_from_its_checkpoint(tmp_path):
    file = tmp_path / "fit.pt"
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(file), str(torch.get_num_threads())], stdout=subprocess.PIPE, text=True
    )
    step = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
    process.wait()
    assert 0 < step < 400 and file.exists()
    benchmark = synthetic_w2_pair(2, generator=generator(0))
    whole, resumed = (
        fit(benchmark.source, benchmark.target, steps=400, batch=64, generator=generator(1), checkpoint=checkpoint)
        for checkpoint in (None, file)
    )
    x = benchmark.source(500, generator=generator(2))
    difference = (resumed.transport(x) - whole.transport(x)).abs().max().item()
    assert difference < 1e-3, f"continued after step {step} or later, the map differs by {difference}"


def test_a_fit_that_has_lost_its_conjugate_points_says_so():
    basis = torch.linalg.qr(torch.randn(64, 64, generator=generator(0)))[0].double()
    matrix = basis @ torch.diag(torch.logspace(-1.5, 1.5, 64).double()) @ basis.T
    start = LogSumExp(64, 16, matrix=0.5 * (matrix + matrix.T), scale=2, generator=generator(0)).float()
    source = lambda n, generator: torch.randn(n, 64, generator=generator)
    target = lambda n, generator: start.gradient(source(n, generator)).detach()
    found = fit(source, target, potential=start, steps=3, batch=16, generator=generator(1))
    assert found.history[-1].residual > 0.2 and not found.converged
    with pytest.raises(RuntimeError, match="conjugate points are off by .*: take smaller steps"):
        found.require()


def test_plateau_stops_early_and_the_rate_still_falls():
    records = [DualRecord(step, 0.0, 0.0, 0.0, bound) for step, bound in enumerate([0.0, 0.5, 0.9, 0.95, 0.96])]
    assert not plateau(records, 0.05) and plateau(records, 0.07) and not plateau(records[:3], 10.0)
    p, q = pair(2, seed=6, condition=3.0)
    found = fit(p.sample, q.sample, steps=400, batch=128, tol=5.0, generator=generator(1))
    assert found.require() is found and found.reason == "the bound no longer rises" and found.history[-1].step < 300
    benchmark = synthetic_w2_pair(2, generator=generator(0))
    found = fit(benchmark.source, benchmark.target, steps=60, batch=64, tol=1e-6, generator=generator(1))
    assert not found.converged
    with pytest.raises(RuntimeError, match="not converged: the steps are spent"):
        found.require()


@pytest.mark.parametrize(
    "change, message",
    [(dict(steps=70), "steps 60 there and 70 here"), (dict(batch=32), "batch"), (dict(learning_rate=0.1), "learning_rate")],
)
def test_a_checkpoint_of_another_fit_is_refused(change, message, tmp_path):
    p, q = pair(2, seed=6, condition=3.0)
    options = dict(steps=60, batch=64, checkpoint=tmp_path / "fit.pt")
    fit(p.sample, q.sample, **options, generator=generator(1))
    with pytest.raises(ValueError, match=f"checkpoint.*another run.*{message}"):
        fit(p.sample, q.sample, **options | change, generator=generator(1))


def test_a_checkpoint_that_breaks_off_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "fit.pt"
    save({"fingerprint": {"dim": 2}, "step": 1}, path)

    def break_off(state, file):
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", break_off)
    with pytest.raises(OSError, match="no space"):
        save({"fingerprint": {"dim": 2}, "step": 2}, path)
    assert read(path)["step"] == 1


def test_damaged_checkpoints_and_other_laws_are_refused(tmp_path):
    p, q = pair(2, seed=6, condition=3.0)
    file = tmp_path / "fit.pt"
    options = dict(steps=30, batch=32, checkpoint=file)
    fit(p.sample, q.sample, **options, generator=generator(1))
    with pytest.raises(ValueError, match="other laws"):
        fit(lambda n, generator: 5 + 3 * p.sample(n, generator=generator), q.sample, **options, generator=generator(1))
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not a checkpoint"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="is damaged"):
            fit(p.sample, q.sample, **options, generator=generator(1))
    torch.save({"fingerprint": {}, "run": Path}, file)  # what is no tensor and no plain value is not loaded: it could be code
    with pytest.raises(ValueError, match="is damaged"):
        fit(p.sample, q.sample, **options, generator=generator(1))


GOOD = np.random.RandomState(0).normal(size=(50, 2))


@pytest.mark.parametrize(
    "source, target, options, message",
    [
        (GOOD, GOOD[:, :1], {}, "one dimension, got 2 and 1"),
        (GOOD, GOOD, dict(potential=Quadratic(3)), "dimension"),
        (np.where(GOOD > 2, np.nan, GOOD), GOOD, {}, "source must be finite"),
        (GOOD, lambda n, generator: torch.full((n, 2), torch.nan), {}, "target.* must be finite"),
        (np.ones((50, 2)), GOOD, {}, "source must vary"),
        (GOOD, np.ones((50, 2)), {}, "target must (vary|not be constant)"),
        (GOOD, GOOD[:, :1] @ np.ones((1, 2)) + 1e3, {}, "target must vary"),
        (GOOD[:2], GOOD, {}, "source must have at least 3 points"),
        (GOOD, GOOD[:1], {}, "target must"),
        (GOOD[:, 0], GOOD, {}, "source"),
        (GOOD[:0], GOOD, {}, "source"),
        (GOOD, lambda n, generator: torch.zeros(n + 1, 2), {}, "target must return"),
        (GOOD, lambda n, generator: torch.randn(n, 2 if n == 2 else 3), {}, "target"),
        (GOOD, GOOD, dict(steps=0), "steps"),
        (GOOD, GOOD, dict(steps=None), "steps or seconds"),
        (GOOD, GOOD, dict(seconds=-1.0), "seconds"),
        (GOOD, GOOD, dict(batch=0), "batch"),
        (GOOD, GOOD, dict(size=(0, 3)), "heads"),
        (GOOD, GOOD, dict(size=(3, 3), potential=Quadratic(2)), "size"),
        (GOOD, GOOD, dict(learning_rate=0.0), "learning_rate"),
        (GOOD, GOOD, dict(tol=float("nan")), "tol"),
    ],
)
def test_bad_input_is_named(source, target, options, message):
    with pytest.raises(ValueError, match=message):
        fit(source, target, generator=generator(0), **{"steps": 5, **options})


def test_a_loss_that_is_not_finite_raises():
    with pytest.raises(RuntimeError, match="not finite"):
        fit(
            GOOD,
            GOOD,
            steps=30,
            generator=generator(0),
            loss=lambda potential, x0, x1, generator: potential(x0).mean() * torch.nan,
        )
