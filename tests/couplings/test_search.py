"""The search on a GPU, as far as a CPU can show it: blocks, steps, rounding and its bound. The last test needs a GPU."""

import pytest
import torch
from clouds import cloud, fitted, unequal
from instances import generator

from dynot_lite.couplings import ascent, search
from dynot_lite.couplings.atoms import Atoms, Noise
from dynot_lite.couplings.rounding import Rounded
from dynot_lite.couplings.search import Scores
from dynot_lite.couplings.semidiscrete import SemidiscreteCoupling

REDUCED = ("tf32", "bfloat16")
# A mixture with a decaying spectrum; the plane, where gaps are small; and far more dimensions than points.
CLOUDS = {"mixture": (3000, 48), "plane": (3000, 2), "wide": (300, 700)}


def scores(name, precision, epsilon=0.0, seed=0):
    """Scores of a cloud at random potentials near those of its start."""
    points = cloud(*CLOUDS[name], seed=seed)
    atoms = Atoms(points, precision=precision)
    noise = Noise("normal", like=points)
    begun = ascent.start(atoms, noise, epsilon, generator=generator(seed))
    return begun.scores()


# Blocks.


@pytest.mark.parametrize("atoms", (1000, 10_000, 100_000, 1_281_167))
@pytest.mark.parametrize("memory", (4, 80))
def test_blocks_of_a_gpu_keep_it_busy_and_fit_its_memory(atoms, memory, monkeypatch):
    """All atoms, or columns of a thousand rows; at least 10⁸ scores where the card has the memory, never more than 1 GiB."""
    budget = min(2**28, memory * 2**30 // 64)
    monkeypatch.setattr(search, "entries", lambda device: budget)
    rows, columns = search.shape(torch.device("cuda"), atoms)
    assert rows >= 1024 and columns <= atoms and (columns == atoms or rows == 1024)
    assert 0.9 * budget < rows * columns <= budget
    assert rows * columns >= (1e8 if memory == 80 else 5e7)
    assert search.room(torch.device("cuda"), atoms) == rows
    assert (
        search.shape(torch.device("cpu"), atoms) == (search.ROWS, search.COLUMNS) and search.room(torch.device("cpu"), atoms) == 0
    )


@pytest.mark.parametrize("shape", ((7, 130), (40, 3000), (1024, 1000)))
@pytest.mark.parametrize("precision", ("float32", *REDUCED))
def test_blocks_of_any_shape_give_the_same_assignment(shape, precision, monkeypatch):
    found, x = scores("mixture", precision), torch.randn(300, 48, generator=generator(1))
    expected = found.best(x)
    monkeypatch.setattr(search, "shape", lambda device, atoms: (shape[0], min(shape[1], atoms)))
    value, index = found.best(x)
    assert torch.equal(index, expected[1])
    torch.testing.assert_close(value, expected[0], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("width", (10, 16, 1000, 1024, 1100, 5000))
def test_the_largest_of_a_row_are_found_in_one_pass(width):
    """Also where they share a group, and where the last group is not full."""
    x = torch.randn(50, width, generator=generator())
    x[:25] = x[:25].sort(1).values  # the largest are neighbours, in the tail
    value, place = search._row_top(x, 16)
    expected = x.topk(min(16, width), 1).values
    assert torch.equal(value.sort(1, descending=True).values, expected) and torch.equal(x.gather(1, place), value)


# Reduced precision.


@pytest.mark.parametrize("precision", REDUCED)
@pytest.mark.parametrize("name", CLOUDS)
def test_no_score_is_wrong_by_more_than_the_bound(name, precision):
    """Against scores in float64; in the plane the bound is nearly attained."""
    found, x = scores(name, precision), torch.randn(400, CLOUDS[name][1], generator=generator(1))
    rounded, bound = found.rounded.noise(x, found.offsets)
    everything = slice(0, len(found.atoms))
    coarse = found.rounded.scores(rounded, everything, found.offsets, torch.empty(400, len(found.atoms)))
    exact = x.double() @ found.atoms.double().T + found.offsets.double()
    ratio = (coarse - exact).abs().amax(1) / bound
    assert 0.02 < ratio.max() <= 1 and (name != "plane" or ratio.max() > 0.8)


@pytest.mark.parametrize("precision", REDUCED)
@pytest.mark.parametrize("name", CLOUDS)
def test_what_is_settled_is_settled(name, precision):
    """The same atom as in float64, wherever float32 can tell; the best of the rounded scores is another one now and then."""
    found, x = scores(name, precision), torch.randn(2000, CLOUDS[name][1], generator=generator(1))
    exact = x.double() @ found.atoms.double().T + found.offsets.double()
    best = exact.amax(1)
    value, index, settled = found.settle(x)
    tolerance = 1e-6 * x.norm(dim=1) * found.atoms.norm(dim=1).max()
    assert (best - exact.gather(1, index[:, None])[:, 0] < tolerance)[settled].all()
    assert ((value - best).abs() < tolerance)[settled].all()
    assert settled.double().mean() > {"mixture": 0.95, "plane": 0.02, "wide": 0.9}[name]
    # And all of them, once those that are not settled are searched for in float32.
    value, index = found.best(x)
    assert (best - exact.gather(1, index[:, None])[:, 0] < tolerance).all() and ((value - best).abs() < tolerance).all()
    rounded, _ = found.rounded.noise(x, found.offsets)
    coarse = found.rounded.scores(rounded, slice(0, len(found.atoms)), found.offsets, torch.empty(2000, len(found.atoms)))
    lost = best - exact.gather(1, coarse.argmax(1)[:, None])[:, 0]
    assert name == "wide" or (lost > tolerance).sum() >= 2


def test_candidates_alone_would_not_do():
    """Many atoms within the rounding error of the best: nothing is settled, and the search in float32 finds it."""
    gen = generator(3)
    points = torch.cat([torch.randn(1, 8, generator=gen) + 1e-3 * torch.randn(400, 8, generator=gen), torch.zeros(1, 8)])
    plain, coarse = (
        Scores(Noise("normal", like=points), points, torch.zeros(401), torch.zeros(401), 0.0, rounded)
        for rounded in (None, Rounded(points, "bfloat16"))
    )
    x = torch.randn(200, 8, generator=gen)
    expected, found = plain.best(x)[1], coarse.best(x)[1]
    _, candidates, settled = coarse.settle(x)
    assert (candidates != expected)[~settled].any() and torch.equal(found, expected) and not settled.all()


@pytest.mark.parametrize("precision", REDUCED)
def test_a_fit_in_reduced_precision_is_one_in_float32(precision):
    """χ², the dual value, the pairs: the same up to rounding, and equal for what is assigned."""
    points, b = cloud(400, 24), unequal(400)
    plain, fit = fitted(points, b, tol=0.05)
    coarse, fit_coarse = fitted(points, b, tol=0.05, precision=precision)
    assert fit_coarse.iterations == fit.iterations and fit_coarse.chi2 == pytest.approx(fit.chi2, abs=2e-3)
    assert fit_coarse.dual_value == pytest.approx(fit.dual_value, rel=1e-4)
    coarse.load_state_dict(plain.state_dict())  # and precision is no part of a state
    x = torch.randn(3000, 24, generator=generator(5))
    assert (coarse.assign(x) == plain.assign(x)).all()
    assert coarse.chi2(20_000, generator=generator(6)) == plain.chi2(20_000, generator=generator(6))


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"precision": "half"}, "precision must be one of 'float32', 'tf32', 'bfloat16'"),
        ({"precision": torch.bfloat16}, "precision must be one of"),
        ({"precision": "tf32", "epsilon": 0.1}, "for epsilon > 0"),
    ),
)
def test_precisions_that_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SemidiscreteCoupling(cloud(20, 2), **options)


def test_mixed_precision_around_it_does_not_reach_the_search():
    for epsilon in (0.0, 0.5):
        coupling, _ = fitted(cloud(300, 16), epsilon=epsilon, tol=0.2)
        x = torch.randn(500, 16, generator=generator(1))
        expected = coupling.scores().sums(x, product=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = coupling.scores().sums(x, product=True)
        assert torch.equal(found.shares, expected.shares) and found.product == expected.product


# Steps.


def ascended(points, iterations, room, monkeypatch, seed=0, **options):
    monkeypatch.setattr(ascent, "room", lambda device, atoms: room)
    coupling = SemidiscreteCoupling(points, **options)
    coupling.fit(tol=1e-9, max_iterations=1e-9, generator=generator(seed))
    state = coupling._ascent
    sizes = list(state.run(iterations, generator=generator(seed + 1)))
    return sizes, coupling.chi2(60_000, generator=generator(9)).value


def test_batches_grow_where_that_costs_nothing(monkeypatch):
    """In 32 dimensions to many times the first one, with χ² as before; in the plane, where steps of all cells overshoot, less."""
    points = cloud(600, 32)
    fixed, chi2 = ascended(points, 30, 0, monkeypatch)
    grown, chi2_grown = ascended(points, 30, 10**9, monkeypatch)
    assert set(fixed[:-1]) == {300} and max(grown) > 3 * 300 and len(grown) < 0.6 * len(fixed)
    assert sum(grown) == pytest.approx(sum(fixed), abs=300)  # the last one is cut where the budget ends
    assert chi2_grown < 1.15 * chi2
    limited, _ = ascended(points, 10, 500, monkeypatch)
    assert max(limited) == 500
    plane = cloud(600, 2)
    fixed, chi2 = ascended(plane, 30, 0, monkeypatch)
    grown, chi2_grown = ascended(plane, 30, 10**9, monkeypatch)
    assert chi2_grown < 1.3 * chi2


def test_averages_weight_iterates_by_their_noises(monkeypatch):
    """Σ n B g / Σ n B over the steps, n noises so far and B in the step, by hand; B grows, and weights by steps are others."""
    monkeypatch.setattr(ascent, "room", lambda device, atoms: 10**9)
    points = cloud(300, 32)
    begun = ascent.start(Atoms(points), Noise("normal", like=points), 0.0, generator=generator())
    steps = [(batch, begun.noises, begun.iterate.clone()) for batch in begun.run(30, generator=generator(1))]
    batches, noises, iterates = (
        torch.stack([torch.as_tensor(v).double() for v in column]) for column in zip(*steps, strict=True)
    )

    def distance(weights):
        return (weights @ iterates / weights.sum() - begun.average).norm() / (iterates[-1] - iterates[0]).norm()

    assert batches.max() > 2 * batches[0] and distance(noises * batches) < 0.01
    assert distance(torch.arange(1.0, len(steps) + 1, dtype=torch.float64)) > 3 * distance(noises * batches)


@pytest.mark.parametrize("precision", ("float32", *REDUCED))
def test_a_step_looks_at_nothing_on_the_host(precision, monkeypatch):
    """What would wait for a GPU: item, nonzero, a truth value, a copy to the CPU, and bincount (which asks for the maximum)."""
    points = cloud(300, 8)
    atoms = Atoms(points, precision=precision)
    begun = ascent.start(atoms, Noise("normal", like=points), 0.0, generator=generator())
    plain = begun.scores().hits(torch.ones(3, 8))

    steps = begun.run(3, generator=generator(1))
    next(steps)

    def refuse(*_, **__):
        raise AssertionError("this waits for the device")

    monkeypatch.setattr(search, "_row_max", lambda s: s.max(1))  # the way of a GPU
    monkeypatch.setattr(
        Scores,
        "_counts",
        lambda self, index: torch.zeros(300, dtype=torch.float64).index_add_(
            0, index, torch.ones(1, dtype=torch.float64).expand(len(index))
        ),
    )
    for name in ("item", "__bool__", "__float__", "__int__", "nonzero", "cpu", "numpy", "tolist"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    for name in ("nonzero", "bincount", "isfinite"):
        monkeypatch.setattr(torch, name, refuse)
    taken = sum(1 for _ in steps)
    monkeypatch.undo()
    assert taken == 5 and plain.sum() == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ("float32", *REDUCED))
def test_a_gpu_gives_the_assignment_of_a_cpu(precision):
    points = cloud(5000, 64)
    plain, _ = fitted(points, tol=0.1)
    there = SemidiscreteCoupling(points.cuda(), precision=precision)
    there.load_state_dict(plain.state_dict())
    x = torch.randn(4000, 64, generator=generator(1))
    assert (there.assign(x.cuda()).cpu() == plain.assign(x)).double().mean() > 0.9995
    fit = SemidiscreteCoupling(points.cuda(), precision=precision).fit(tol=0.05, generator=generator(2)).require()
    assert fit.dual_value == pytest.approx(plain.result.dual_value, rel=1e-2)


def test_batches_of_soft_shares_do_not_grow(monkeypatch):
    sizes, _ = ascended(torch.randn(200, 16, generator=generator(3)), 20, 10**9, monkeypatch, epsilon=0.5)
    assert len(set(sizes[:-1])) == 1
