from dataclasses import replace

import numpy as np
import ot
import pytest
import torch
from scipy.optimize import minimize

from dynot_lite.couplings import amortized
from dynot_lite.couplings.amortized import (
    ObjectiveAmortization,
    Problem,
    RegressionAmortization,
    pair_sampler,
    predict_from,
    semidual,
)
from dynot_lite.couplings.sliced import directions, soft_c_transform

F64 = torch.float64
EPSILON = 0.2


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(seed=0, n=12, m=15, d=2, *, zeros=True):
    """Skew clouds with unequal weights, some of them zero."""
    gen = generator(seed)
    x = torch.randn(n, d, generator=gen, dtype=F64)
    y = torch.randn(m, d, generator=gen, dtype=F64) @ torch.randn(d, d, generator=gen, dtype=F64) + 1
    a, b = (torch.rand(k, generator=gen, dtype=F64) for k in (n, m))
    if zeros:
        a[:2], b[3] = 0, 0
    return Problem(x, y, weights0=a / a.sum(), weights1=b / b.sum())


def family(count, seed=0, **options):
    return [problem(100 * seed + k, n=10 + k % 4, **options) for k in range(count)]


def fitted(model, problems, **options):
    model.fit(problems, **options).require()
    return model


@pytest.fixture(scope="module")
def models():
    train = family(12)
    theta = directions(2, 6, generator=generator(1))
    return (train, *(fitted(kind(theta, epsilon=EPSILON), train) for kind in (RegressionAmortization, ObjectiveAmortization)))


def test_semidual_gradient_and_concavity():
    p = problem(1)
    gen = generator(2)
    f, h = (0.3 * torch.randn(len(p.x0), generator=gen, dtype=F64) for _ in range(2))
    value, gradient = semidual(p, f, EPSILON)
    g = soft_c_transform(p.cost, f, EPSILON, weights=p.weights0)
    assert float(value) == pytest.approx(float(p.weights0 @ f + p.weights1 @ g))
    difference = [float(semidual(p, f + s * h, EPSILON)[0]) for s in (-1e-5, 1e-5)]
    assert float(gradient @ h) == pytest.approx((difference[1] - difference[0]) / 2e-5, abs=1e-9)
    assert float(gradient.sum()) == pytest.approx(0, abs=1e-14)
    middle = semidual(p, 0.3 * f + 0.7 * h, EPSILON)[0]
    assert middle > 0.3 * value + 0.7 * semidual(p, h, EPSILON)[0]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sweeps", [0, 2])
def test_the_certificate_contains_the_true_gap(seed, sweeps):
    p = problem(seed)
    wrong = torch.randn(len(p.x0), generator=generator(seed), dtype=F64)
    found = predict_from(p, wrong, EPSILON, sweeps=sweeps)
    solved = p.entropic_plan(EPSILON, tol=1e-11).require()
    best = float(p.weights0 @ solved.potential0 + p.weights1 @ solved.potential1)
    # Strong duality, with the primal objective of POT's plan: the value that both bounds are about.
    keep, kept = (np.flatnonzero(w.numpy()) for w in (p.weights0, p.weights1))
    plan, block = np.zeros(tuple(p.cost.shape)), np.ix_(keep, kept)
    marginals = p.weights0[keep].numpy(), p.weights1[kept].numpy()
    options = {"method": "sinkhorn_log", "stopThr": 1e-12, "numItermax": 20000}
    plan[block] = ot.sinkhorn(*marginals, p.cost.numpy()[block], EPSILON, **options)
    product = (p.weights0[:, None] * p.weights1).numpy()
    inside = plan > 0
    primal = (plan * p.cost.numpy()).sum() + EPSILON * (plan[inside] * np.log(plan[inside] / product[inside])).sum()
    assert best == pytest.approx(primal, rel=1e-7)
    assert found.dual <= best <= found.dual + found.gap + 1e-12
    assert torch.allclose(found.plan.sum(0), p.weights1) and abs(float(p.weights0 @ found.potential0)) < 1e-12
    assert found.row_error == pytest.approx(float((found.plan.sum(1) - p.weights0).abs().sum()))


def test_sweeps_only_raise_the_dual(models):
    _, *both = models
    p = problem(50)
    for model in both:
        duals = [model.predict(p, sweeps=k).dual for k in (0, 1, 2, 50)]
        assert duals == sorted(duals)
        solved = p.entropic_plan(EPSILON, tol=1e-10).potential0
        assert duals[-1] == pytest.approx(float(semidual(p, solved, EPSILON)[0]), rel=1e-6)


def test_regression_solves_its_normal_equations(models):
    train, ra, _ = models
    targets = [p.entropic_plan(EPSILON).potential0 for p in train]
    rows = torch.cat([p.weights0.sqrt()[:, None] * ra.features(p) for p in train])
    response = torch.cat([p.weights0.sqrt() * f for p, f in zip(train, targets, strict=True)])
    # Ridge as least squares with one more row per feature.
    size = ra.ridge**0.5 * rows.norm(dim=0)
    stacked = torch.cat([rows, size.diag()]), torch.cat([response, torch.zeros(6, dtype=F64)])
    assert torch.allclose(ra.coefficients, torch.linalg.lstsq(*stacked[:1], stacked[1][:, None]).solution[:, 0], atol=1e-8)
    again = RegressionAmortization(ra.directions, epsilon=EPSILON).fit(train, potentials=[f + 7 for f in targets])
    assert torch.allclose(again.coefficients, ra.coefficients)


def test_objective_is_maximal(models):
    train, _, oa = models
    features = [oa.features(p) for p in train]

    def negative(alpha):
        values = [semidual(p, phi @ torch.from_numpy(alpha), EPSILON)[0] for p, phi in zip(train, features, strict=True)]
        return -float(sum(values)) / len(train)

    found = minimize(negative, np.full(6, 0.3), method="Powell", options={"xtol": 1e-8, "ftol": 1e-12})
    assert -negative(oa.coefficients.numpy()) >= -found.fun - 1e-8


@pytest.mark.parametrize("kind", ["translation", "scaling"])
def test_regression_is_exact_where_one_dimension_is(kind):
    """Potentials −⟨v, x⟩ of translations, and ½(1 − s)|x|² of scalings, are combinations of sliced ones: Σ α θθᵀ = I."""

    def made(seed):
        gen = generator(seed)
        x, v = torch.randn(9 + seed % 3, 3, generator=gen, dtype=F64), torch.randn(3, generator=gen, dtype=F64)
        s = 0.5 + torch.rand((), generator=gen, dtype=F64)
        y, f = (x + v, -x @ v) if kind == "translation" else (s * x, 0.5 * (1 - s) * x.square().sum(1))
        return Problem(x, y), f - f.mean()

    train = [made(k) for k in range(12)]
    model = RegressionAmortization(directions(3, 8, generator=generator()), epsilon=0.1, ridge=1e-13)
    model.fit([p for p, _ in train], potentials=[f for _, f in train])
    unseen, f = made(40)
    assert torch.allclose(model.features(unseen) @ model.coefficients, f, atol=1e-5)
    # In the plane equal angles give α = 2/L without any training.
    flat = directions(2, 5, generator=generator())
    assert torch.allclose(2 / 5 * flat.T @ flat, torch.eye(2, dtype=F64))


def test_the_model_does_not_depend_on_sizes_or_order(models):
    _, ra, _ = models
    p = problem(60, n=9, m=11)
    order = torch.randperm(9, generator=generator())
    shuffled = ra.predict(Problem(p.x0[order], p.x1, weights0=p.weights0[order], weights1=p.weights1))
    assert torch.allclose(shuffled.plan, ra.predict(p).plan[order], atol=1e-12)
    large = ra.predict(problem(61, n=80, m=30))
    assert large.plan.shape == (80, 30) and np.isfinite(large.gap)


def test_extrapolation_beats_its_sweeps_on_the_training_problems(models):
    train, ra, oa = models
    truth = [p.entropic_plan(EPSILON, tol=1e-9).potential0 for p in train]

    def error(found):
        return sum(float(p.weights0 @ (r.potential0 - f) ** 2) for p, r, f in zip(train, found, truth, strict=True))

    # Two sweeps are the point (1, 0, 0) of what the least squares choose from.
    assert error([ra.extrapolate(p) for p in train]) < error([ra.predict(p, sweeps=2) for p in train])
    gains = [oa.extrapolate(p).dual - oa.predict(p, sweeps=2).dual for p in train]
    assert sum(gains) > 0


def test_warm_starts(models):
    _, ra, _ = models
    p = problem(70, n=40, m=40, zeros=False)
    f = ra.predict(p).potential0
    warm, cold = (p.entropic_plan(EPSILON, start=start, tol=1e-3).require().iterations for start in (f, torch.zeros_like(f)))
    assert warm < cold
    exact = ot.emd2(p.weights0.numpy(), p.weights1.numpy(), p.cost.numpy())
    for start in (None, f):
        found = p.exact_plan(start=start).require()
        assert found.cost == pytest.approx(exact, rel=1e-12)
        assert torch.allclose(found.plan.sum(0), p.weights1) and torch.allclose(found.plan.sum(1), p.weights0)


def test_a_problem_is_solved_with_its_own_cost_and_weights():
    p = problem(71)
    turned = Problem(p.x0, p.x1, weights0=p.weights0, weights1=p.weights1, cost=-p.cost)
    exact = ot.emd2(p.weights0.numpy(), p.weights1.numpy(), -p.cost.numpy())
    assert turned.exact_plan().require().cost == pytest.approx(exact, rel=1e-12)
    entropic = turned.entropic_plan(1e-3).require()
    assert entropic.cost == pytest.approx(exact, rel=1e-2) and torch.allclose(entropic.plan.sum(1), p.weights0)


def test_save_and_load(models, tmp_path):
    for model in models[1:]:
        path = tmp_path / f"{type(model).__name__}.pt"
        model.save(path)
        back = type(model).load(path)
        p = problem(80)
        assert torch.equal(back.predict(p).plan, model.predict(p).plan)
        assert torch.equal(back.extrapolate(p).potential0, model.extrapolate(p).potential0) and back.epsilon == EPSILON
        assert back.result.reason == model.result.reason and back.result.converged
    with pytest.raises(ValueError, match="path must hold a saved RegressionAmortization"):
        RegressionAmortization.load(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged"):
        ObjectiveAmortization.load(path)


def test_a_fit_returns_its_result_and_keeps_it(models):
    train, ra, oa = models
    assert ra.result.converged and ra.result.iterations == 0 and oa.result.converged and oa.result.iterations > 2
    assert ra.coefficients is ra.result.coefficients
    short = ObjectiveAmortization(oa.directions, epsilon=EPSILON)
    found = short.fit(train, max_iterations=1)
    assert found is short.result and not found.converged and "L-BFGS stopped after 1 iterations" in found.reason
    with pytest.raises(RuntimeError, match="L-BFGS"):
        found.require()
    assert np.isfinite(short.predict(train[0]).gap)  # usable, with the certificate to judge it


def test_pair_sampler(models):
    _, ra, _ = models
    cloud = {name: torch.randn(64, 2, generator=generator(k), dtype=F64) + k for name, k in (("source", 0), ("target", 1))}
    pairs = pair_sampler(ra, *(lambda n, generator=None, z=z: z[:n] for z in cloud.values()))
    x0, x1 = pairs(50, generator=generator(7))
    assert torch.equal(x1, cloud["target"][:50])
    assert all((cloud["source"] == point).all(1).any() for point in x0)
    again = pairs(50, generator=generator(7))[0]
    assert torch.equal(again, x0) and not torch.equal(pairs(50, generator=generator(8))[0], x0)
    # Conditions ride with x1, and pairs do not leave the groups of equal labels.
    labels, number = torch.arange(64) % 2, torch.arange(64.0)
    source = lambda n, generator=None: cloud["source"][:n]
    target = lambda n, generator=None: (cloud["target"][:n], labels[:n], number[:n])
    found0, found1, found, order = pair_sampler(ra, source, target)(50, generator=generator(7))
    assert torch.equal(found1, cloud["target"][:50]) and torch.equal(found, labels[:50]) and torch.equal(order, number[:50])
    where = (found0.unsqueeze(1) == cloud["source"]).all(2).nonzero()[:, 1]
    assert torch.equal(labels[where], found) and not torch.equal(where, torch.arange(50))
    with pytest.raises(ValueError, match="source must return"):
        pair_sampler(ra, lambda n, generator=None: torch.zeros(n), target)(50)
    # Cheaper than pairs at random, and the expected cost is that of the plan.
    cost = torch.stack([(u - v).square().sum(1).mean() / 2 for u, v in (pairs(50, generator=generator(k)) for k in range(200))])
    plan = ra.predict(Problem(cloud["source"][:50], cloud["target"][:50]), sweeps=1).plan
    p = Problem(cloud["source"][:50], cloud["target"][:50])
    assert float(cost.mean()) == pytest.approx(float((plan * p.cost).sum()), rel=0.02)
    assert float(cost.mean()) < 0.8 * float(p.cost.mean())


def test_a_problem_unlike_any_other_shows_in_the_gap(models):
    _, ra, _ = models
    usual = [ra.predict(p) for p in family(6, seed=9)]
    strange = problem(90)
    turned = replace(strange, cost=-strange.cost)  # transport as far as possible
    found = ra.predict(turned)
    assert found.gap > 20 * max(r.gap for r in usual)
    assert found.row_error > 2 * max(r.row_error for r in usual)


def test_single_precision_and_far_away_clouds(models):
    _, ra, _ = models
    p = problem(91)
    weights = {"weights0": p.weights0.float(), "weights1": p.weights1.float()}
    single = ra.predict(Problem(p.x0.float(), p.x1.float(), **weights))
    assert single.plan.dtype == torch.float32
    assert torch.allclose(single.plan.double(), ra.predict(p).plan, atol=1e-4)
    far = ra.predict(Problem(p.x0, p.x1 + 1000, weights0=p.weights0, weights1=p.weights1))
    assert far.plan.isfinite().all() and far.gap >= 0 and np.isfinite(far.gap)


POINTS = torch.zeros(3, 2, dtype=F64)


@pytest.mark.parametrize(
    "call, name",
    [
        (lambda: Problem(torch.zeros(0, 2), POINTS), "x0"),
        (lambda: Problem(POINTS, torch.zeros(3, 3)), "x1 must have dimension"),
        (lambda: Problem(POINTS * float("nan"), POINTS), "x0 must be finite"),
        (lambda: Problem(POINTS, POINTS, weights0=torch.tensor([0.5, 0.5, 0.5])), "weights0 must sum"),
        (lambda: Problem(POINTS, POINTS, weights1=torch.tensor([2.0, -0.5, -0.5])), "weights1 must be non-negative"),
        (lambda: Problem(POINTS, POINTS, weights0=torch.zeros(3)), "weights0 must sum"),
        (lambda: Problem(POINTS, POINTS, cost=torch.zeros(3, 2)), "cost must have shape"),
        (lambda: Problem(POINTS, POINTS, cost=torch.full((3, 3), float("inf"))), "cost must be finite"),
        (lambda: RegressionAmortization(torch.zeros(0, 2), epsilon=0.1), "directions"),
        (lambda: RegressionAmortization(torch.ones(4, 2), epsilon=0.0), "epsilon"),
        (lambda: ObjectiveAmortization(torch.ones(4, 2), epsilon=float("nan")), "epsilon"),
        (lambda: RegressionAmortization(torch.ones(4, 2), epsilon=0.1, ridge=-1.0), "ridge"),
        (lambda: RegressionAmortization(torch.ones(4, 2), epsilon=0.1).fit([]), "problems"),
        (
            lambda: RegressionAmortization(torch.ones(4, 2), epsilon=0.1).fit(family(2), potentials=[torch.zeros(10)]),
            "one per problem",
        ),
        (lambda: RegressionAmortization(torch.ones(4, 2), epsilon=0.1).predict(problem()), "fitted"),
        (lambda: RegressionAmortization(torch.ones(4, 3), epsilon=0.1).fit(family(2)), "dimension 3"),
        (lambda: RegressionAmortization(torch.ones(4, 2), epsilon=0.1).coefficients, "fitted"),
        (lambda: RegressionAmortization(torch.ones(4, 2), epsilon=0.1).save("nowhere.pt"), "fitted"),
        (lambda: ObjectiveAmortization(torch.ones(4, 2), epsilon=0.1).fit(family(2), tol=0.0), "tol"),
        (lambda: ObjectiveAmortization(torch.ones(4, 2), epsilon=0.1).fit(family(2), max_iterations=0), "max_iterations"),
        (lambda: predict_from(problem(), torch.zeros(5), 0.1), "potential0 must have shape"),
        (lambda: semidual(problem(), torch.zeros(5), 0.1), "potential0 must have shape"),
        (lambda: semidual(problem(), torch.zeros(12), -0.1), "epsilon"),
        (lambda: predict_from(problem(), torch.zeros(12), 0.1, sweeps=-1), "sweeps"),
        (lambda: problem().entropic_plan(-0.1), "epsilon"),
        (lambda: problem().entropic_plan(0.1, start=torch.zeros(5)), "start"),
        (lambda: pair_sampler(None, None, None, sweeps=-1), "sweeps"),
    ],
)
def test_bad_input(call, name):
    with pytest.raises(ValueError, match=name):
        call()


def test_a_model_meets_another_dimension(models):
    with pytest.raises(ValueError, match="problem must have points of dimension 2"):
        models[1].predict(problem(d=3))


def objective(problem, plan):
    """⟨c, π⟩ + ε KL(π ‖ a⊗b), where the plan has mass."""
    product = problem.weights0.unsqueeze(1) * problem.weights1
    kept = plan > 0
    return (plan * problem.cost).sum() + EPSILON * (plan[kept] * (plan[kept] / product[kept]).log()).sum()


@pytest.mark.parametrize("sweeps", [0, 2])
def test_the_gap_is_that_of_the_coupling_which_its_documentation_makes(sweeps, monkeypatch):
    """After few sweeps a good part of the mass is filled by the product, and each term of the bound counts."""
    monkeypatch.setattr(amortized, "_CERTIFICATE_SWEEPS", sweeps)
    p = problem(4)
    a, b = p.weights0, p.weights1
    found = predict_from(p, torch.randn(len(a), generator=generator(6), dtype=F64), EPSILON)
    scaled, safe = found.plan.clone(), lambda wanted, sums: torch.where(wanted > 0, wanted / sums.clamp(min=1e-300), 1.0)
    for _ in range(sweeps):
        scaled = safe(a, scaled.sum(1)).unsqueeze(1) * scaled
        scaled = scaled * safe(b, scaled.sum(0))
    scaled = safe(a, scaled.sum(1)).clamp(max=1.0).unsqueeze(1) * scaled
    kept = scaled.sum()
    u, v = (a - scaled.sum(1)) / (1 - kept), (b - scaled.sum(0)) / (1 - kept)
    upper = kept * objective(p, scaled / kept) + (1 - kept) * objective(p, u.clamp(min=0).unsqueeze(1) * v.clamp(min=0))
    least = p.entropic_plan(EPSILON, tol=1e-10).require()
    assert 0.2 < kept < 0.97 and found.gap == pytest.approx((upper - found.dual).item(), rel=1e-9)
    assert found.dual < objective(p, least.plan) < found.dual + found.gap


@pytest.mark.parametrize("n, m", [(1, 5), (5, 1), (1, 1)])
def test_the_gap_of_one_atom_is_a_number(n, m):
    for seed in range(20):
        found = predict_from(problem(seed, n, m, zeros=False), torch.ones(n, dtype=F64), EPSILON)
        assert 0 <= found.gap < (1e-12 if n == 1 else 1e3)  # of one atom every potential is the best


def test_single_precision_is_that_of_the_potential_only():
    p, f = problem(7), torch.randn(12, generator=generator(8), dtype=torch.float32)
    assert torch.equal(predict_from(p, f, EPSILON).plan, predict_from(p, f.double(), EPSILON).plan)


def test_a_fit_has_converged_if_both_of_its_parts_have():
    theta, train = directions(2, 8, generator=generator(1)), family(2)
    fits = [
        ObjectiveAmortization(theta, epsilon=EPSILON).fit(train, max_iterations=most) for most in (1, 9, 10, 30)
    ]  # at 9 and 10 only the second
    assert fits[-1].converged and not fits[0].converged
    assert all(fit.converged == (fit.reason == "the optimality conditions hold") for fit in fits)
