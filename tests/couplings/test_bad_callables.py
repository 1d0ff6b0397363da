"""Samplers that return something else on the first or on a later call, and options of a wrong kind, over all of ``couplings``."""

import importlib
import inspect
import re
import warnings

import numpy as np
import pytest
import torch
from bad_values import FUNCTIONS, RETURNED, Buffered, Turning, extreme, options
from calls_couplings import CALLS, CLOUDS, DIRECTIONS, HARD, LABELS, PLAN, POINTS, PROBLEMS, REGRESSION, SOFT, X0, Y, Z, rows
from instances import generator

from dynot_lite.couplings import amortized, ascent, atoms, batches, certificate, plans, prepared, sliced
from dynot_lite.couplings.conditional import ClassCouplings, JointCoupling
from dynot_lite.couplings.semidiscrete import SemidiscreteCoupling

MODULES = (
    "plans", "batches", "atoms", "search", "certificate", "ascent", "indexed", "semidiscrete", "exact_flow", "prepared",
    "conditional", "sliced", "amortized",
)  # fmt: skip
KINDS = [0, 1, 1, 0, 0]


def normal(n, *, generator=None):
    return torch.randn(n, 2, generator=generator, dtype=torch.float64)


def conditions(n, *, generator=None):
    return Z[torch.randint(5, (n,), generator=generator)]


def labelled(n, *, generator=None):
    return normal(n, generator=generator), torch.arange(n) % 2


def twice(pairs):
    return pairs(5, generator=generator(1)), pairs(5, generator=generator(2))


def fitted(coupling, **given):
    coupling.fit(**given, max_iterations=30, tol=1e-3, generator=generator())
    return coupling


# Every function that takes a sampler: name -> (the parameter, a good sampler, a use that calls it several times).
TAKERS = {
    "independent, source": ("source", normal, lambda s: twice(batches.independent(s, labelled))),
    "independent, target": ("target", labelled, lambda s: twice(batches.independent(normal, s))),
    "exact, source": ("source", normal, lambda s: twice(batches.exact(s, labelled))),
    "exact, target": ("target", labelled, lambda s: twice(batches.exact(normal, s))),
    "entropic, source": ("source", normal, lambda s: twice(batches.entropic(s, labelled, epsilon=1.0))),
    "entropic, target": ("target", labelled, lambda s: twice(batches.entropic(normal, s, epsilon=1.0))),
    "pair_sampler, source": ("source", normal, lambda s: twice(amortized.pair_sampler(REGRESSION, s, labelled))),
    "pair_sampler, target": ("target", labelled, lambda s: twice(amortized.pair_sampler(REGRESSION, normal, s))),
    "SemidiscreteCoupling": ("noise", normal, lambda s: fitted(SemidiscreteCoupling(POINTS), noise=s).potentials),
    "SemidiscreteCoupling, soft": (
        "noise",
        normal,
        lambda s: fitted(SemidiscreteCoupling(POINTS, epsilon=0.5), noise=s).potentials,
    ),
    "ClassCouplings": ("noise", normal, lambda s: twice(fitted(ClassCouplings(POINTS, KINDS), noise=s).pair)),
    "JointCoupling": ("noise", normal, lambda s: twice(fitted(JointCoupling(POINTS, Z, beta=1.0), noise=s).pair)),
    "JointCoupling, conditions": (
        "conditions",
        conditions,
        lambda s: twice(fitted(JointCoupling(POINTS, Z, beta=1.0), conditions=s).pair),
    ),
    "prepare": ("noise", normal, lambda s: twice(prepared.prepare(fitted(SemidiscreteCoupling(POINTS), noise=s), 300).pair)),
}


@pytest.mark.parametrize("taker", TAKERS)
def test_good_samplers_are_called_more_than_once(taker):
    _, good, use = TAKERS[taker]
    counted = Turning(good, lambda x: x, 1)
    use(counted)
    assert counted.calls > 1


@pytest.mark.parametrize("at", (1, 2))
@pytest.mark.parametrize("returned", RETURNED)
@pytest.mark.parametrize("taker", TAKERS)
def test_what_a_sampler_returns_is_checked_on_every_call(taker, returned, at):
    name, good, use = TAKERS[taker]
    if name == "conditions" and returned == "a column":
        pytest.skip("the conditions are a column")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((ValueError, TypeError), match=rf"\b{name}\b"):
            use(Turning(good, RETURNED[returned], at))


@pytest.mark.parametrize("value", FUNCTIONS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("taker", TAKERS)
def test_what_is_no_sampler_is_refused_by_name(taker, value):
    name, _, use = TAKERS[taker]
    with pytest.raises((ValueError, TypeError), match=rf"\b{name}\b"):
        use(value)


def flat(found):
    return [part for pair in found for part in pair] if isinstance(found, tuple) else [found]


@pytest.mark.parametrize("taker", [taker for taker in TAKERS if "target" not in taker])
def test_a_sampler_may_return_one_buffer_again_and_again(taker):
    _, good, use = TAKERS[taker]
    for found, expected in zip(flat(use(Buffered(good))), flat(use(good)), strict=True):
        assert torch.equal(found, expected) or "prepare" in taker  # its seeds are random here


def test_source_and_target_may_be_one_sampler_with_one_buffer():
    one = Buffered(normal)
    for make in (batches.independent, batches.exact, lambda s, t: batches.entropic(s, t, epsilon=1.0)):
        x0, x1 = make(one, one)(5, generator=generator(1))
        assert (x0 - x1).abs().max() > 0.1


@pytest.mark.parametrize("dtype", (torch.float64, torch.float32, torch.float16, torch.bfloat16))
@pytest.mark.parametrize("taker", TAKERS)
def test_samplers_of_any_precision(taker, dtype):
    _, good, use = TAKERS[taker]
    for part in flat(use(Turning(good, lambda x: x.to(dtype), 1))):
        assert not part.is_floating_point() or torch.isfinite(part).all()


# --- options -----------------------------------------------------------------------------------------------------------------


def started(**given):
    law = atoms.Atoms(POINTS)
    return ascent.start(
        **{"atoms": law, "noise": atoms.Noise("normal", like=law.points), "epsilon": 0.0, "generator": None} | given
    )


def certified():
    return HARD._fitted().certificate()


def loaded(**given):
    return next(HARD.loader(**given))


NOISE, PREPARED = atoms.Noise("normal", like=POINTS), prepared.prepare(HARD, 300, generator=generator())
OBJECTIVE = amortized.ObjectiveAmortization(DIRECTIONS, epsilon=0.5)
JOINT = fitted(JointCoupling(POINTS, Z, beta=1.0))
CLASSES = fitted(ClassCouplings(POINTS, KINDS))
N = {"n": 3}
LOADING = (
    "indexed.IndexedPairs",
    "semidiscrete.SemidiscreteCoupling",
    "conditional.ClassCouplings",
    "conditional.JointCoupling",
    "prepared.PairList",
)
# Every function with options, and valid arguments; what it gives is a function itself (a pair sampler), so it is called, too.
OPTIONS = {
    "batches.entropic": (batches.entropic, {"source": rows(X0), "target": rows(Y), "epsilon": 0.5}),
    "batches.entropic_pairs": (batches.entropic_pairs, {"x0": X0, "x1": Y, "epsilon": 0.5}),
    "batches.exact": (batches.exact, {"source": rows(X0), "target": rows(Y)}),
    "batches.in_blocks": (batches.in_blocks, {"pairs": batches.independent(rows(X0), rows(Y)), "size": 3}),
    "batches.independent": (batches.independent, {"source": rows(X0), "target": rows(Y)}),
    "plans.exact_plan": (plans.exact_plan, CLOUDS),
    "plans.entropic_plan": (plans.entropic_plan, CLOUDS | {"epsilon": 0.5}),
    "plans.sample_plan": (plans.sample_plan, {"plan": PLAN, "n": 3}),
    "atoms.Noise": (atoms.Noise, {"law": "normal", "like": POINTS}),
    "atoms.Noise.draw": (NOISE.draw, {"n": 3, "generator": None}),
    "atoms.Atoms.member": (atoms.Atoms(torch.cat([POINTS, POINTS])).member, {"atom": torch.tensor([0]), "generator": None}),
    "ascent.start": (started, {}),
    "ascent.Ascent.run": (lambda **given: list(started().run(**{"stop": 20.0, "generator": None} | given)), {}),
    "certificate.Estimate.upper": (certificate.Estimate(0.5, 0.25).upper, {}),
    "certificate.Estimate.lower": (certificate.Estimate(0.5, 0.25).lower, {}),
    "certificate.Certificate.add": (lambda **given: certified().add(**{"n": 3, "generator": None} | given), {}),
    "certificate.pooled_chi2": (certificate.pooled_chi2, {"counts": [3, 5, 4], "weights": [0.25, 0.25, 0.5]}),
    "search.Scores.assign": (SOFT.scores().assign, {"x": X0, "generator": None}),
    "semidiscrete.SemidiscreteCoupling": (SemidiscreteCoupling, {"points": POINTS}),
    "semidiscrete.SemidiscreteCoupling.fit": (lambda **given: SemidiscreteCoupling(POINTS).fit(**given), {"max_iterations": 5}),
    "semidiscrete.SemidiscreteCoupling.assign": (SOFT.assign, {"x": X0}),
    "semidiscrete.SemidiscreteCoupling.chi2": (HARD.chi2, N),
    "semidiscrete.SemidiscreteCoupling.pair_index": (HARD.pair_index, N),
    "semidiscrete.SemidiscreteCoupling.pair": (HARD.pair, N),
    "prepared.prepare": (prepared.prepare, {"coupling": HARD, "n": 300}),
    "prepared.PairList.pair": (PREPARED.pair, N),
    "prepared.PairList.pair_index": (PREPARED.pair_index, N),
    "conditional.ClassCouplings": (ClassCouplings, {"points": POINTS, "labels": KINDS}),
    "conditional.ClassCouplings.fit": (lambda **given: ClassCouplings(POINTS, KINDS).fit(**given), {"max_iterations": 5}),
    "conditional.ClassCouplings.pair": (CLASSES.pair, N),
    "conditional.ClassCouplings.pair_index": (CLASSES.pair_index, N),
    "conditional.JointCoupling": (JointCoupling, {"points": POINTS, "conditions": Z, "beta": 1.0}),
    "conditional.JointCoupling.fit": (lambda **given: JointCoupling(POINTS, Z, beta=1.0).fit(**given), {"max_iterations": 5}),
    "conditional.JointCoupling.pair": (JOINT.pair, N),
    "conditional.JointCoupling.pair_index": (JOINT.pair_index, N),
    "indexed.IndexedPairs.pair": (HARD.pair, N),
    "indexed.IndexedPairs.pair_index": (HARD.pair_index, N),
    "indexed.IndexedPairs.loader": (loaded, N),
    **{f"{name}.loader": (loaded, N) for name in LOADING},
    "sliced.directions": (sliced.directions, {"dim": 3, "count": 2}),
    "sliced.soft_c_transform": (sliced.soft_c_transform, {"cost": PLAN, "potential": LABELS[:2], "epsilon": 0.5}),
    "sliced.stereographic": (sliced.stereographic, {"x": [[1.0, 0.0, 0.0]]}),
    "amortized.RegressionAmortization": (amortized.RegressionAmortization, {"directions": DIRECTIONS, "epsilon": 0.5}),
    "amortized.ObjectiveAmortization": (amortized.ObjectiveAmortization, {"directions": DIRECTIONS, "epsilon": 0.5}),
    "amortized.ObjectiveAmortization.fit": (OBJECTIVE.fit, {"problems": PROBLEMS}),
    "amortized.RegressionAmortization.predict": (REGRESSION.predict, {"problem": PROBLEMS[0]}),
    "amortized.ObjectiveAmortization.predict": (REGRESSION.predict, {"problem": PROBLEMS[0]}),
    "amortized.Problem.entropic_plan": (PROBLEMS[0].entropic_plan, {"epsilon": 0.5}),
    "amortized.predict_from": (amortized.predict_from, {"problem": PROBLEMS[0], "potential0": X0[:, 0], "epsilon": 0.5}),
    "amortized.semidual": (amortized.semidual, {"problem": PROBLEMS[0], "potential0": X0[:, 0], "epsilon": 0.5}),
    "amortized.pair_sampler": (amortized.pair_sampler, {"model": REGRESSION, "source": rows(X0), "target": rows(Y)}),
}
FREE = {"deviations": -1.0, "sweeps": 0}  # what these options may be
UNGRADED = ("plans.entropic_plan", "batches.entropic_pairs", "amortized.Problem.entropic_plan")  # pass no gradient on at all
# Results of the package, which no user makes.
MADE = (
    "plans.TransportPlan", "certificate.Estimate", "semidiscrete.SemidiscreteFit", "amortized.Coefficients",
    "amortized.Prediction", "ascent.Ascent", "search.Scores", "search.Sums", "conditional.ClassFit", "prepared.PairList",
)  # fmt: skip


def public():
    """(name, function) of every function, class and method of the room."""
    for module in MODULES:
        here = importlib.import_module(f"dynot_lite.couplings.{module}")
        for name in here.__all__:
            found = getattr(here, name)
            yield f"{module}.{name}", found
            if inspect.isclass(found):
                for method, function in inspect.getmembers(found, inspect.isfunction):
                    if not method.startswith("_") and function.__module__.startswith("dynot_lite.couplings"):
                        yield f"{module}.{name}.{method}", function


READ = {name: options(function) for name, function in public() if name not in MADE}


def test_every_function_with_options_is_in_the_table():
    assert {name for name, found in READ.items() if found} <= set(OPTIONS)


def refused():
    for name, found in READ.items():
        for option, values in found.items():
            for k, value in enumerate(values):
                cut = isinstance(value, torch.Tensor) and value.requires_grad and name in UNGRADED
                if not cut and (option not in FREE or type(value) is bool or value != FREE[option]):
                    yield pytest.param(name, option, value, id=f"{name}-{option}-{k}")  # its words may have an address


@pytest.mark.parametrize("name, option, value", list(refused()))
def test_every_bad_option_is_refused_by_name(name, option, value):
    function, given = OPTIONS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((ValueError, TypeError), match=rf"\b({option}|{'law|noise' if option == 'law' else option})\b"):
            found = function(**given | {option: value})
            if callable(found):
                found(3)


@pytest.mark.parametrize(
    "name", [name for name, (_, given) in OPTIONS.items() if any(isinstance(v, int) for v in given.values())]
)
def test_counts_of_numpy_are_counts(name):
    function, given = OPTIONS[name]
    function(**{key: np.int64(value) if isinstance(value, int) else value for key, value in given.items()})


def test_a_misspelt_option_is_named():
    for function, given in OPTIONS.values():
        with pytest.raises(TypeError, match="tolerance"):
            found = function(**given, tolerance=1)
            if callable(found):
                found(3)


# --- limits ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", (0.0, 0.5))
@pytest.mark.parametrize("tol", (1e-300, 1e-30, 1e300))
def test_a_tolerance_out_of_reach_ends_and_says_how_far_it_came(tol, epsilon, monkeypatch):
    from dynot_lite.couplings import semidiscrete

    monkeypatch.setattr(semidiscrete, "LIMIT", 200)
    found = SemidiscreteCoupling(POINTS, epsilon=epsilon).fit(tol=tol, generator=generator())
    assert found.converged == (tol == 1e300) and re.search(r"upper bound of chi2 is .* after .* iterations", found.reason)
    assert found.iterations < 210


@pytest.mark.parametrize("epsilon", (1e300, 1e31, 1e-31, 1e-300))
def test_an_epsilon_that_single_precision_does_not_hold_is_refused(epsilon):
    for make in (
        lambda: SemidiscreteCoupling(POINTS, epsilon=epsilon),
        lambda: ClassCouplings(POINTS, KINDS, epsilon=epsilon),
        lambda: JointCoupling(POINTS, Z, beta=1.0, epsilon=epsilon),
    ):
        with pytest.raises(ValueError, match="epsilon must be 0, or between"):
            make()


@pytest.mark.parametrize("size", (1e300, 1e-300))
def test_points_and_noise_of_a_size_that_single_precision_does_not_hold_are_refused(size):
    with pytest.raises(ValueError, match="points must have"):
        SemidiscreteCoupling(POINTS * size)
    with pytest.raises(ValueError, match="noise must"):
        fitted(SemidiscreteCoupling(POINTS), noise=lambda n, generator=None: size * normal(n, generator=generator))


def test_a_class_of_one_point_and_labels_of_every_kind():
    with pytest.raises(ValueError, match="class 7 has one of the points, and needs two"):
        ClassCouplings(POINTS, [0, 0, 0, 0, 7])
    expected = CLASSES.pair(6, generator=generator())
    for labels in (torch.tensor(KINDS, dtype=torch.uint8), np.array(KINDS, dtype=">i2"), np.array(KINDS)[::-1][::-1]):
        found = fitted(ClassCouplings(POINTS, labels)).pair(6, generator=generator())
        assert all(map(torch.equal, found, expected))
    for labels in (KINDS[:4], [0.0] * 5, ["a"] * 5, [True] * 5, torch.zeros(5) + 0j, object()):
        with pytest.raises(ValueError, match="labels"):
            ClassCouplings(POINTS, labels)


@pytest.mark.parametrize("size", (1e300, 1e-300))
@pytest.mark.parametrize(
    "call, array", [pytest.param(call, array, id=f"{call.name}-{array}") for call in CALLS for array in call.arrays]
)
def test_arrays_of_extreme_size(call, array, size):
    extreme(call, array, size)


# One point in one dimension beside one, or beside four: what the functions of clouds give there is known.
ONE, FOUR = torch.tensor([[0.5]], dtype=torch.float64), torch.tensor([[1.0], [2.0], [-1.0], [0.0]], dtype=torch.float64)
SQUARES = 0.5 * (ONE - FOUR.mT).square()[0]
SMALL = {
    "sorted_pairs": lambda: (batches.sorted_pairs(ONE, ONE + 1), 0),
    "exact_pairs": lambda: (batches.exact_pairs(ONE, ONE + 1), 0),
    "exact_pairs, plane": lambda: (batches.exact_pairs(X0[:1], Y[:1]), 0),
    "entropic_pairs": lambda: (batches.entropic_pairs(ONE, ONE, 0.5), 0),
    "exact_plan": lambda: (plans.exact_plan(ONE, FOUR).require().cost, SQUARES.mean()),
    "exact_plan, equal points": lambda: (plans.exact_plan(ONE, ONE).require().cost, 0),
    "entropic_plan": lambda: (plans.entropic_plan(FOUR, ONE, 0.5).require().cost, SQUARES.mean()),
    "entropic_plan, equal points": lambda: (plans.entropic_plan(ONE, ONE, 0.5).require().plan, 1),
    "sample_plan": lambda: (plans.sample_plan(torch.ones(1, 1), 1)[0], 0),
    "from_plan": lambda: (batches.from_plan(ONE, ONE + 1, torch.ones(1, 1), [3])(1)[2], 3),
    "potentials_1d": lambda: (sliced.potentials_1d(ONE, FOUR), 0),
    "w2_squared_1d": lambda: (sliced.w2_squared_1d(ONE, FOUR), 2 * SQUARES.mean()),
    "w2_squared_sliced": lambda: (sliced.w2_squared_sliced(ONE, FOUR, [[1.0]]), 2 * SQUARES.mean()),
    "squared_cost": lambda: (sliced.squared_cost(ONE, FOUR), SQUARES),
    "c_transform": lambda: (sliced.c_transform([[2.0]], [0.5]), 1.5),
    "soft_c_transform": lambda: (sliced.soft_c_transform([[2.0]], [0.5], 0.25), 1.5),
    "directions": lambda: (sliced.directions(1, 1).abs(), 1),
    "semidual": lambda: (amortized.semidual(amortized.Problem(ONE, FOUR), [0.0], 0.5)[0], SQUARES.mean()),
    "predict_from": lambda: (amortized.predict_from(amortized.Problem(ONE, FOUR), [0.0], 0.5).gap, 0),
    "independent": lambda: (batches.independent(rows(ONE), rows(ONE))(1)[1], 0.5),
    "exact": lambda: (batches.exact(rows(ONE), rows(FOUR))(1)[1], 1),
    "entropic": lambda: (batches.entropic(rows(ONE), rows(FOUR), epsilon=0.5)(1)[1], 1),
    "a group of one": lambda: (batches.exact(rows(FOUR), lambda n, generator=None: (FOUR[:n], torch.arange(n)))(4)[1], FOUR),
    "SemidiscreteCoupling": lambda: (fitted(SemidiscreteCoupling([[-1.0], [1.0]])).pair(1)[1].abs(), 1),
}


@pytest.mark.parametrize("row", SMALL)
def test_one_point_in_one_dimension(row):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, expected = SMALL[row]()
    found = torch.as_tensor(found, dtype=torch.float64)
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.float64).expand(found.shape), rtol=0, atol=1e-9)


@pytest.mark.parametrize("unit", (1e-12, 1e-6, 1e6, 1e12))
def test_entropic_plans_know_no_unit_if_epsilon_is_given_in_its_square(unit):
    expected = plans.entropic_plan(**CLOUDS, epsilon=0.5)
    scaled = CLOUDS | {"x0": unit * CLOUDS["x0"], "x1": unit * CLOUDS["x1"]}
    found = plans.entropic_plan(**scaled, epsilon=0.5 * unit**2)
    torch.testing.assert_close(found.plan, expected.plan, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.potential0 / unit**2, expected.potential0, rtol=0, atol=1e-5)
    assert abs(found.cost / unit**2 - expected.cost) < 1e-5
    problem, other = amortized.Problem(**CLOUDS), amortized.Problem(**scaled)
    f = torch.tensor([0.5, -0.25, 0.0], dtype=torch.float64)
    one, two = (
        amortized.predict_from(problem, f, 0.5, sweeps=1),
        amortized.predict_from(other, unit**2 * f, 0.5 * unit**2, sweeps=1),
    )
    torch.testing.assert_close(two.plan, one.plan, rtol=1e-9, atol=1e-12)
    assert abs(two.gap / unit**2 - one.gap) < 1e-9 and abs(two.dual / unit**2 - one.dual) < 1e-9
