import numpy as np
import ot
import pytest
import torch
from scipy.optimize import minimize

from dynot_lite.couplings.amortized import (
    ObjectiveAmortization,
    Problem,
    RegressionAmortization,
    pair_sampler,
    predict_from,
    semidual,
    sinkhorn,
    solve_exact,
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
    return Problem(x, y, a / a.sum(), b / b.sum())


def family(count, seed=0, **options):
    return [problem(100 * seed + k, n=10 + k % 4, **options) for k in range(count)]


@pytest.fixture(scope="module")
def models():
    train = family(12)
    theta = directions(2, 6, generator=generator(1))
    return (
        train,
        RegressionAmortization(theta, epsilon=EPSILON).fit(train),
        ObjectiveAmortization(theta, epsilon=EPSILON).fit(train),
    )


def pot_plan(p, epsilon):
    """POT's entropic plan by its own log-domain solver."""
    keep, kept = p.a > 0, p.b > 0
    plan = np.zeros(tuple(p.cost.shape))
    block = np.ix_(keep.numpy(), kept.numpy())
    plan[block] = ot.sinkhorn(
        p.a[keep].numpy(),
        p.b[kept].numpy(),
        p.cost.numpy()[block],
        epsilon,
        method="sinkhorn_log",
        stopThr=1e-12,
        numItermax=20000,
    )
    return plan


@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("epsilon", [0.05, 0.5])
def test_sinkhorn_against_pot(epsilon, start):
    p = problem(3)
    f = 5 * torch.randn(len(p.x), generator=generator(), dtype=F64) if start else None
    found = sinkhorn(p, epsilon, start=f, tol=1e-10)
    plan = predict_from(p, found.f, epsilon)
    assert np.abs(plan.plan.numpy() - pot_plan(p, epsilon)).max() < 1e-8
    assert abs(float(p.a @ found.f)) < 1e-12 and torch.allclose(plan.g, found.g, atol=1e-8)
    assert plan.row_error < 1e-9 and plan.gap < 1e-7
    # A warm start at the solution needs no iteration.
    assert sinkhorn(p, epsilon, start=found.f, tol=1e-8).iterations == 0


def test_sinkhorn_with_a_tiny_epsilon_reaches_the_exact_cost():
    # exp(−c/ε) underflows for most pairs; the scaling vectors would overflow without absorption.
    p = problem(5, zeros=False)
    found = sinkhorn(p, 2e-3, tol=1e-3, max_iterations=100_000)
    exact = ot.emd2(p.a.numpy(), p.b.numpy(), p.cost.numpy())
    assert predict_from(p, found.f, 2e-3).dual == pytest.approx(exact, rel=0.02)


def test_sinkhorn_that_does_not_converge_raises():
    with pytest.raises(RuntimeError, match="after 3 iterations"):
        sinkhorn(problem(), 0.05, tol=1e-9, max_iterations=3)


def test_semidual_gradient_and_concavity():
    p = problem(1)
    gen = generator(2)
    f, h = (0.3 * torch.randn(len(p.x), generator=gen, dtype=F64) for _ in range(2))
    value, gradient = semidual(p, f, EPSILON)
    g = soft_c_transform(p.cost, f, p.a, EPSILON)
    assert float(value) == pytest.approx(float(p.a @ f + p.b @ g))
    difference = [float(semidual(p, f + s * h, EPSILON)[0]) for s in (-1e-5, 1e-5)]
    assert float(gradient @ h) == pytest.approx((difference[1] - difference[0]) / 2e-5, abs=1e-9)
    assert float(gradient.sum()) == pytest.approx(0, abs=1e-14)
    middle = semidual(p, 0.3 * f + 0.7 * h, EPSILON)[0]
    assert middle > 0.3 * value + 0.7 * semidual(p, h, EPSILON)[0]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sweeps", [0, 2])
def test_the_certificate_contains_the_true_gap(seed, sweeps):
    p = problem(seed)
    wrong = torch.randn(len(p.x), generator=generator(seed), dtype=F64)
    found = predict_from(p, wrong, EPSILON, sweeps=sweeps)
    solved = sinkhorn(p, EPSILON, tol=1e-11)
    best = float(p.a @ solved.f + p.b @ solved.g)
    # Strong duality, with the primal objective of POT's plan: the value that both bounds are about.
    plan = pot_plan(p, EPSILON)
    product = (p.a[:, None] * p.b).numpy()
    inside = plan > 0
    primal = (plan * p.cost.numpy()).sum() + EPSILON * (plan[inside] * np.log(plan[inside] / product[inside])).sum()
    assert best == pytest.approx(primal, rel=1e-7)
    assert found.dual <= best <= found.dual + found.gap + 1e-12
    assert torch.allclose(found.plan.sum(0), p.b) and abs(float(p.a @ found.f)) < 1e-12
    assert found.row_error == pytest.approx(float((found.plan.sum(1) - p.a).abs().sum()))


def test_sweeps_only_raise_the_dual(models):
    _, *both = models
    p = problem(50)
    for model in both:
        duals = [model.predict(p, sweeps=k).dual for k in (0, 1, 2, 50)]
        assert duals == sorted(duals)
        assert duals[-1] == pytest.approx(float(semidual(p, sinkhorn(p, EPSILON, tol=1e-10).f, EPSILON)[0]), rel=1e-6)


def test_regression_solves_its_normal_equations(models):
    train, ra, _ = models
    targets = [sinkhorn(p, EPSILON).f for p in train]
    rows = torch.cat([p.a.sqrt()[:, None] * ra.features(p) for p in train])
    response = torch.cat([p.a.sqrt() * f for p, f in zip(train, targets, strict=True)])
    # Ridge as least squares with one more row per feature.
    size = ra.ridge**0.5 * rows.norm(dim=0)
    stacked = torch.cat([rows, size.diag()]), torch.cat([response, torch.zeros(6, dtype=F64)])
    assert torch.allclose(ra.coefficients, torch.linalg.lstsq(*stacked[:1], stacked[1][:, None]).solution[:, 0], atol=1e-8)
    assert torch.allclose(ra.fit(train, potentials=[f + 7 for f in targets]).coefficients, ra.coefficients)


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
    shuffled = ra.predict(Problem(p.x[order], p.y, p.a[order], p.b))
    assert torch.allclose(shuffled.plan, ra.predict(p).plan[order], atol=1e-12)
    large = ra.predict(problem(61, n=80, m=30))
    assert large.plan.shape == (80, 30) and np.isfinite(large.gap)


def test_extrapolation_beats_its_sweeps_on_the_training_problems(models):
    train, ra, oa = models
    truth = [sinkhorn(p, EPSILON, tol=1e-9).f for p in train]

    def error(found):
        return sum(float(p.a @ (r.f - f) ** 2) for p, r, f in zip(train, found, truth, strict=True))

    # Two sweeps are the point (1, 0, 0) of what the least squares choose from.
    assert error([ra.extrapolate(p) for p in train]) < error([ra.predict(p, sweeps=2) for p in train])
    gains = [oa.extrapolate(p).dual - oa.predict(p, sweeps=2).dual for p in train]
    assert sum(gains) > 0


def test_warm_starts(models):
    _, ra, _ = models
    p = problem(70, n=40, m=40, zeros=False)
    f = ra.predict(p).f
    assert sinkhorn(p, EPSILON, start=f, tol=1e-3).iterations < sinkhorn(p, EPSILON, tol=1e-3).iterations
    exact = ot.emd2(p.a.numpy(), p.b.numpy(), p.cost.numpy())
    for start in (None, f):
        plan, value = solve_exact(p, start=start)
        assert value == pytest.approx(exact, rel=1e-12)
        assert torch.allclose(plan.sum(0), p.b) and torch.allclose(plan.sum(1), p.a)
    with pytest.raises(RuntimeError, match="did not finish"):
        solve_exact(p, max_iterations=2)


def test_save_and_load(models, tmp_path):
    for model in models[1:]:
        path = tmp_path / f"{type(model).__name__}.pt"
        model.save(path)
        back = type(model).load(path)
        p = problem(80)
        assert torch.equal(back.predict(p).plan, model.predict(p).plan)
        assert torch.equal(back.extrapolate(p).f, model.extrapolate(p).f) and back.epsilon == EPSILON
    with pytest.raises(ValueError, match="path must hold a saved RegressionAmortization"):
        RegressionAmortization.load(path)


def test_pair_sampler(models):
    _, ra, _ = models
    cloud = {name: torch.randn(64, 2, generator=generator(k), dtype=F64) + k for name, k in (("source", 0), ("target", 1))}
    pairs = pair_sampler(ra, *(lambda n, generator=None, z=z: z[:n] for z in cloud.values()))
    x0, x1 = pairs(50, generator=generator(7))
    assert torch.equal(x1, cloud["target"][:50])
    assert all((cloud["source"] == point).all(1).any() for point in x0)
    again = pairs(50, generator=generator(7))[0]
    assert torch.equal(again, x0) and not torch.equal(pairs(50, generator=generator(8))[0], x0)
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
    turned = Problem(strange.x, strange.y, strange.a, strange.b, -strange.cost)  # transport as far as possible
    found = ra.predict(turned)
    assert found.gap > 20 * max(r.gap for r in usual)
    assert found.row_error > 2 * max(r.row_error for r in usual)


def test_single_precision_and_far_away_clouds(models):
    _, ra, _ = models
    p = problem(91)
    single = ra.predict(Problem(p.x.float(), p.y.float(), p.a.float() / p.a.float().sum(), p.b.float() / p.b.float().sum()))
    assert single.plan.dtype == torch.float32
    assert torch.allclose(single.plan.double(), ra.predict(p).plan, atol=1e-4)
    far = ra.predict(Problem(p.x, p.y + 1000, p.a, p.b))
    assert far.plan.isfinite().all() and far.gap >= 0 and np.isfinite(far.gap)


POINTS = torch.zeros(3, 2, dtype=F64)


@pytest.mark.parametrize(
    "call, name",
    [
        (lambda: Problem(torch.zeros(0, 2), POINTS), "x"),
        (lambda: Problem(POINTS, torch.zeros(3, 3)), "y must have dimension"),
        (lambda: Problem(POINTS * float("nan"), POINTS), "x must be finite"),
        (lambda: Problem(POINTS, POINTS, torch.tensor([0.5, 0.5, 0.5])), "a must sum"),
        (lambda: Problem(POINTS, POINTS, None, torch.tensor([2.0, -0.5, -0.5])), "b must be non-negative"),
        (lambda: Problem(POINTS, POINTS, torch.zeros(3)), "a must sum"),
        (lambda: Problem(POINTS, POINTS, None, None, torch.zeros(3, 2)), "cost must have shape"),
        (lambda: Problem(POINTS, POINTS, None, None, torch.full((3, 3), float("inf"))), "cost must be finite"),
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
        (lambda: predict_from(problem(), torch.zeros(5), 0.1), "f must have shape"),
        (lambda: predict_from(problem(), torch.zeros(12), 0.1, sweeps=-1), "sweeps"),
        (lambda: sinkhorn(problem(), -0.1), "epsilon"),
        (lambda: sinkhorn(problem(), 0.1, start=torch.zeros(5)), "start"),
    ],
)
def test_bad_input(call, name):
    with pytest.raises(ValueError, match=name):
        call()


def test_a_model_meets_another_dimension(models):
    with pytest.raises(ValueError, match="problem must have points of dimension 2"):
        models[1].predict(problem(d=3))
