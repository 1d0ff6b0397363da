"""The table of derivatives in ``dynot_lite.laws``, row by row."""

import re

import pytest
import torch
from instances import cross_covariance, generator, spd
from torch.autograd import gradcheck, gradgradcheck

import dynot_lite.laws
from dynot_lite.laws import coupled, gaussian, mixtures
from dynot_lite.laws.coupled import MixtureCoupling, fm_law, mccann_velocity
from dynot_lite.laws.gaussian import (
    Affine,
    Gaussian,
    entropic_plan,
    fm_flow,
    fm_kinetic_energy,
    fm_velocity,
    geodesic,
    geometric_mean,
    monge_map,
    schroedinger_bridge,
    w2_squared,
)
from dynot_lite.laws.mixtures import GaussianMixture, fm_velocity_diracs, fm_velocity_mixture
from dynot_lite.paths.interpolants import TRIGONOMETRIC, Interpolant

F64 = torch.float64
CUBIC = Interpolant(lambda t: 1 - t**3, lambda t: t * (2 - t))


def random(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=F64)


def law(mean, cov):
    """A covariance that perturbations of single entries leave symmetric."""
    return Gaussian(mean, 0.5 * (cov + cov.mT))


def parts(found):
    """The tensors of a result."""
    if isinstance(found, Affine):
        return found.matrix, found.offset
    if isinstance(found, Gaussian):
        return found.mean, found.cov
    return found


def plan(p, q):
    found = entropic_plan(p, q, 0.3)
    return found.cross_cov, found.cost


def bridge(p, q, x, t):
    found = schroedinger_bridge(p, q, 0.7)
    return found.energy, found.cross_cov, found.drift(t, x), found.velocity(t, x), found.marginal(t).cov


# Rows of two laws: f(p, q, x, c, t), with points x, a cross-covariance c and a time t.
ROWS = {
    "Gaussian.log_prob": lambda p, q, x, c, t: p.log_prob(x),
    "Gaussian.sample": lambda p, q, x, c, t: p.sample(3, generator=generator(1)),
    "Gaussian.quadrature": lambda p, q, x, c, t: p.quadrature(2)[0],
    "Affine": lambda p, q, x, c, t: (Affine(c, p.mean)(x), *parts(Affine(c, p.mean).push_forward(q))),
    "w2_squared": lambda p, q, x, c, t: w2_squared(p, q),
    "monge_map": lambda p, q, x, c, t: parts(monge_map(p, q)),
    "geodesic": lambda p, q, x, c, t: parts(geodesic(p, q, t)),
    "geometric_mean": lambda p, q, x, c, t: geometric_mean(p.cov, q.cov),
    "fm_velocity": lambda p, q, x, c, t: fm_velocity(p, q, t, x),
    "fm_velocity, cross_cov": lambda p, q, x, c, t: fm_velocity(p, q, t, x, cross_cov=c, interpolant=CUBIC),
    "fm_flow": lambda p, q, x, c, t: parts(fm_flow(p, q, t)),
    "fm_flow, t = 1": lambda p, q, x, c, t: parts(fm_flow(p, q, 1.0, interpolant=TRIGONOMETRIC)),
    "fm_kinetic_energy": lambda p, q, x, c, t: fm_kinetic_energy(p, q),
    "fm_kinetic_energy, trigonometric": lambda p, q, x, c, t: fm_kinetic_energy(p, q, interpolant=TRIGONOMETRIC),
    "fm_kinetic_energy, cubic": lambda p, q, x, c, t: fm_kinetic_energy(p, q, interpolant=CUBIC),
    "fm_kinetic_energy, cross_cov": lambda p, q, x, c, t: fm_kinetic_energy(p, q, cross_cov=c),
    "entropic_plan": lambda p, q, x, c, t: plan(p, q),
    "schroedinger_bridge": lambda p, q, x, c, t: bridge(p, q, x, t),
    "fm_law": lambda p, q, x, c, t: parts(fm_law(p, q, t, cross_cov=c, interpolant=CUBIC)),
    "mccann_velocity": lambda p, q, x, c, t: mccann_velocity(p, q)(t, x),
}
SLOW = ("fm_kinetic_energy, cubic", "fm_kinetic_energy, cross_cov")  # quadratures
KINDS = ("symmetric", "equal", "commuting", "generic")


def covariances(d, kind):
    eye, a = torch.eye(d, dtype=F64), spd(d, generator(d), condition=4.0)
    return {
        "symmetric": (eye, 2 * eye),
        "equal": (a, a.clone()),
        "commuting": (a, 0.3 * a @ a + 0.5 * eye),
        "generic": (a, spd(d, generator(d + 7), condition=4.0)),
    }[kind]


def arguments(d, kind):
    cov0, cov1 = covariances(d, kind)
    means = random(2, d, seed=d)
    c = cross_covariance(Gaussian(means[0], cov0), Gaussian(means[1], cov1), strength=0.4)
    given = (*means, cov0, cov1, random(3, d, seed=9), c, torch.tensor(0.3, dtype=F64))
    return [a.clone().requires_grad_() for a in given]


def of_laws(row):
    return lambda m0, m1, cov0, cov1, x, c, t: ROWS[row](law(m0, cov0), law(m1, cov1), x, c, t)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("d", (2, 3))
def test_exact(d, row, kind):
    assert gradcheck(of_laws(row), arguments(d, kind), atol=1e-7, rtol=1e-5, fast_mode=d == 3 or row in SLOW)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("row", [row for row in ROWS if row not in SLOW])
def test_exact_twice(row, kind):
    assert gradgradcheck(of_laws(row), arguments(3, kind), atol=1e-6, rtol=1e-4, fast_mode=True)


def singular(d, rank):
    root = random(d, rank, seed=5) if rank else torch.zeros(d, 1, dtype=F64)
    return root @ root.mT


# Of a definite law beside a singular one.
BESIDE = [
    "w2_squared",
    "geodesic",
    "geometric_mean",
    "entropic_plan",
    *(row for row in ROWS if "energy" in row and "cross" not in row),
]


@pytest.mark.parametrize("rank", (0, 1, 2))
@pytest.mark.parametrize("row", [*BESIDE, "monge_map", "mccann_velocity", "fm_flow", "fm_flow, t = 1", "fm_velocity"])
@pytest.mark.parametrize("first", (True, False), ids=("of p", "of q"))
def test_exact_beside_a_singular_law(row, rank, first):
    if not first and row not in BESIDE:
        row = "fm_velocity"  # the others need a definite p
    other = Gaussian(random(3, seed=4), singular(3, rank))
    m0, _, cov0, _, x, c, t = arguments(3, "generic")
    time = t.detach() if row == "fm_flow, t = 1" else t

    def function(m0, cov0, x):
        laws = (law(m0, cov0), other)
        return ROWS[row](*(laws if first else laws[::-1]), x, c.detach(), time.detach())

    assert gradcheck(function, (m0, cov0, x), atol=1e-6, rtol=1e-4, fast_mode=row in SLOW)


@pytest.mark.parametrize(
    ("row", "first"),
    [
        (row, first)
        for row in ROWS
        for first in (True, False)
        if row not in ("Affine", "fm_velocity", "fm_velocity, cross_cov", "fm_law") and (first or not row.startswith("Gaussian"))
    ],
)
def test_none_of_a_singular_law(row, first):
    cov = singular(3, 1).requires_grad_()
    m0, m1, definite, _, x, _, t = (a.detach() for a in arguments(3, "generic"))
    laws = [Gaussian(m0, cov), Gaussian(m1, definite)]
    c = torch.zeros(3, 3, dtype=F64)
    with pytest.raises(ValueError, match="requires? a gradient|singular|definite"):
        found = ROWS[row](*(laws if first else laws[::-1]), x, c, t)
        found = found if isinstance(found, tuple) else (found,)
        sum(
            (part * torch.arange(1, part.numel() + 1).reshape(part.shape)).sum() for part in found if part.requires_grad
        ).backward()


def test_none_where_the_path_is_singular():
    line = singular(2, 1)
    x, p = torch.zeros(1, 2, dtype=F64), Gaussian([0.0, 0.0], torch.eye(2))
    with pytest.raises(ValueError, match=r"where Cov\(X_t\) is singular.* must not require a gradient"):
        fm_velocity(p, Gaussian([0.0, 0.0], line.requires_grad_()), 1.0, x)
    with pytest.raises(ValueError, match="t = 1, where q is singular, must not require a gradient"):
        fm_flow(p, Gaussian([0.0, 0.0], line.detach()), torch.tensor(1.0, requires_grad=True))
    # Within the path it is definite again, and on the support the derivative in x exists.
    root = random(2, 1, seed=5).requires_grad_()
    assert gradcheck(lambda root: fm_velocity(p, Gaussian(p.mean, root @ root.mT), 0.6, x), root)
    direction = root.detach().mT
    moved = lambda s: fm_velocity(p, Gaussian([0.0, 0.0], line.detach()), 1.0, s * direction)
    assert gradcheck(moved, torch.tensor([[0.7]], dtype=F64, requires_grad=True))


def test_what_would_be_cut_is_refused():
    m0, m1, cov0, cov1, _, c, t = arguments(2, "generic")
    p, q = Gaussian(m0.detach(), cov0.detach()), Gaussian(m1.detach(), cov1.detach())
    number = torch.tensor(0.5, dtype=F64, requires_grad=True)
    flow = lambda p, q, t, c: fm_flow(p, q, t, cross_cov=c)
    for call, name in (
        (lambda: entropic_plan(p, q, number), "epsilon"),
        (lambda: schroedinger_bridge(p, q, number), "sigma"),
        (lambda: flow(law(m0, cov0), q, 0.5, c.detach()), "with a cross_cov, the covariance of p"),
        (lambda: flow(p, law(m1, cov1), 0.5, c.detach()), "with a cross_cov, the covariance of q"),
        (lambda: flow(p, q, 0.5, c), "with a cross_cov, cross_cov"),
        (lambda: flow(p, q, t, c.detach()), "with a cross_cov, t"),
        (lambda: GaussianMixture(number.reshape(1) * 2, m0.detach()[None], cov0.detach()).sample(3), "weights"),
        (lambda: GaussianMixture([1.0], [[0.0]], number.reshape(1, 1)).quantile([0.5]), "covs"),
        (lambda: GaussianMixture([1.0], number.reshape(1, 1), [[1.0]]).quantile([0.5]), "means"),
        (lambda: GaussianMixture(number.reshape(1) * 2, [[0.0]], [[1.0]]).quantile([0.5]), "weights"),
        (lambda: GaussianMixture([1.0], [[0.0]], [[1.0]]).quantile(number.reshape(1)), "levels"),
        (lambda: GaussianMixture([1.0], [[0.0]], (number - 0.5).reshape(1, 1)).cdf([[0.5]]), "where a variance is zero, covs"),
        *((lambda name=name: drawn(name, number), name) for name in COUPLING),
    ):
        with pytest.raises(ValueError, match=f"^{name} must not require a gradient"):
            call()
        with torch.no_grad():
            call()
    offset = lambda m0, m1: flow(Gaussian(m0, p.cov), Gaussian(m1, q.cov), 0.5, c.detach()).offset
    assert gradcheck(offset, (m0, m1))


@pytest.mark.parametrize("first", (True, False))
def test_a_cross_covariance_beside_a_singular_law_is_refused(first):
    laws = Gaussian(random(3, seed=4), singular(3, 2)), Gaussian(random(3, seed=6), spd(3, generator(2)))
    cross_cov = torch.zeros(3, 3, dtype=F64, requires_grad=True)
    with pytest.raises(ValueError, match="cross_cov beside it, must not require a gradient"):
        fm_kinetic_energy(*(laws if first else laws[::-1]), cross_cov=cross_cov)


def test_a_definite_law_in_a_batch_with_a_singular_one():
    covs = torch.stack([torch.eye(3, dtype=F64), singular(3, 1)]).requires_grad_()
    target = Gaussian(torch.zeros(3, dtype=F64), 2 * torch.eye(3, dtype=F64))
    w2_squared(Gaussian(torch.zeros(3, dtype=F64), covs), target)[0].backward()
    # d/dA tr (A + 2I − 2 (2A)^½) at A = I
    torch.testing.assert_close(covs.grad[0], (1 - 2**0.5) * torch.eye(3, dtype=F64), rtol=1e-12, atol=1e-12)
    assert torch.equal(covs.grad[1], torch.zeros(3, 3, dtype=F64))


def test_energy_at_the_point_of_the_catalogue():
    """At A = aI, B = bI the energy is d (a + b − (π/2) √(ab))."""
    cov0, cov1 = (torch.eye(2, dtype=F64).mul(s).requires_grad_() for s in (1, 2))
    fm_kinetic_energy(Gaussian([0.0, 0.0], cov0), Gaussian([0.0, 0.0], cov1)).backward()
    torch.testing.assert_close(cov0.grad, (1 - torch.pi / 4 * 2**0.5) * torch.eye(2, dtype=F64), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(cov1.grad, (1 - torch.pi / 4 * 0.5**0.5) * torch.eye(2, dtype=F64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("transform", (torch.func.jacrev, torch.func.jacfwd))
@pytest.mark.parametrize("row", [row for row in ROWS if row not in ("Gaussian.sample",) and "energy," not in row])
def test_transforms_of_torch_func_agree(row, transform):
    m0, m1, cov0, cov1, x, c, t = (a.detach() for a in arguments(3, "generic"))

    def function(cov0):
        found = of_laws(row)(m0, m1, cov0, cov1, x, c, t)
        return found[0] if isinstance(found, tuple) else found

    torch.testing.assert_close(transform(function)(cov0), torch.autograd.functional.jacobian(function, cov0))


# --- mixtures ----------------------------------------------------------------------------------------------------------------


# Of one component, each argument with a graph in turn.
COUPLING = {"weights": [1.0], "means0": [[0.0]], "means1": [[1.0]], "cov0": [[1.0]], "cov1": [[2.0]], "cross_cov": [[0.5]]}


def drawn(name, number):
    given = {key: torch.tensor(value, dtype=F64) for key, value in COUPLING.items()}
    return MixtureCoupling(**given | {name: given[name] + 0 * number}).sample(3)


def mixture(d=2, k=3):
    cov = torch.stack([spd(d, generator(seed), condition=3.0) for seed in range(k)])
    return random(k, seed=1), random(k, d, seed=2), random(k, d, seed=3), cov, cov.flip(0), 0.1 * random(k, d, d, seed=4)


def of_mixture(law, x):
    """The weights, means and covariances of a mixture, each of the components seen by every point."""
    return law.log_prob(x) + law.weights @ (law.means.square().sum(1) + law.covs.sum((1, 2)))


MIXTURES = {
    "GaussianMixture.log_prob": lambda w, m0, m1, c0, c1, c, x, t: GaussianMixture(w, m0, c0).log_prob(x),
    "fm_velocity_mixture": lambda w, m0, m1, c0, c1, c, x, t: fm_velocity_mixture(w, m0, m1, c0, c1, t, x, cross_cov=c),
    "fm_velocity_diracs": lambda w, m0, m1, c0, c1, c, x, t: fm_velocity_diracs(m1, t, x, weights=w),
    "MixtureCoupling.velocity": lambda w, m0, m1, c0, c1, c, x, t: MixtureCoupling(w, m0, m1, c0, c1, c).velocity(t, x),
    "GaussianMixture.cdf": lambda w, m0, m1, c0, c1, c, x, t: GaussianMixture(w, m0[:, :1], c0[:, :1, :1]).cdf(x[:, :1]),
    "MixtureCoupling.law": lambda w, m0, m1, c0, c1, c, x, t: of_mixture(
        MixtureCoupling(w, m0, m1, c0, c1, c).law(t if t.ndim == 0 else t[1]), x
    ),
    "MixtureCoupling.product": lambda w, m0, m1, c0, c1, c, x, t: MixtureCoupling(w, m0, m1, c0, c1).product().velocity(t, x),
}


@pytest.mark.parametrize("times", (0.3, (0.0, 0.2, 0.6, 0.9)), ids=("one time", "times"))
@pytest.mark.parametrize("row", MIXTURES)
def test_exact_of_mixtures(row, times):
    t = torch.tensor(times, dtype=F64)
    t.requires_grad_(0.0 not in times if t.ndim else True)  # differences cannot leave [0, 1]

    def function(logits, m0, m1, c0, c1, c, x, t):
        c0, c1 = (0.5 * (a + a.mT) for a in (c0, c1))
        return MIXTURES[row](torch.softmax(logits, 0), m0, m1, c0, c1, c, x, t)

    given = [a.clone().requires_grad_() for a in (*mixture(), random(4, 2, seed=6))]
    assert gradcheck(function, (*given, t), atol=1e-7, rtol=1e-5, fast_mode=t.ndim > 0)
    assert gradgradcheck(function, (*given, t), atol=1e-5, rtol=1e-3, fast_mode=True)


@pytest.mark.parametrize("row", MIXTURES)
def test_exact_of_a_weight_that_is_zero(row):
    _, m0, m1, c0, c1, c = mixture()
    x, t = random(4, 2, seed=6), torch.tensor(0.4, dtype=F64)
    call = lambda s: MIXTURES[row](torch.stack([s, 0.3 - s, 0.7 + 0 * s]), m0, m1, c0, c1, c, x, t)
    start, h = torch.tensor(0.0, dtype=F64), 1e-5
    found = torch.autograd.functional.jacobian(call, start)
    one_sided = (4 * call(start + h) - call(start + 2 * h) - 3 * call(start)) / (2 * h)  # to the right, of order two
    torch.testing.assert_close(found, one_sided, rtol=1e-6, atol=1e-6)
    assert found.abs().min() > 1e-3


def test_the_table_names_every_function():
    table = dynot_lite.laws.__doc__
    for name in (*gaussian.__all__, *mixtures.__all__, *coupled.__all__):
        assert name in ("EntropicPlan", "random_gaussian") or re.search(rf"\b{name}\b", table), name
    tested = " ".join((*ROWS, *MIXTURES))
    for name in re.findall(r"^([a-z_0-9]+)\b", table.split("=\n")[2], flags=re.M):
        assert name in tested, name
