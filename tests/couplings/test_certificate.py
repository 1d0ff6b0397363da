import math

import numpy as np
import pytest
import torch
from clouds import F64, cloud, fitted, unequal
from instances import generator
from scipy.special import ndtri

from dynot_lite.couplings.ascent import Ascent
from dynot_lite.couplings.atoms import Atoms, Noise
from dynot_lite.couplings.certificate import pooled_chi2
from dynot_lite.couplings.semidiscrete import SemidiscreteCoupling


@pytest.mark.parametrize("shifted", (False, True))
def test_pooled_estimate_is_unbiased_and_its_deviation_right(shifted):
    n, samples, repeats = 8, 60, 4000
    b = unequal(n, low=0.3)
    m = torch.softmax(b.log() + shifted * torch.linspace(-0.4, 0.4, n, dtype=F64), 0)
    truth = (m**2 / b).sum().item() - 1
    draws = torch.multinomial(m, samples * repeats, replacement=True, generator=generator()).reshape(repeats, samples)
    counts = torch.stack([torch.bincount(row, minlength=n) for row in draws]).to(F64)
    estimates = [pooled_chi2(row, b) for row in counts]
    values = np.array([e.value for e in estimates])
    deviation = values.std()
    assert abs(values.mean() - truth) < 4 * deviation / repeats**0.5
    # On the safe side at m = b, where an estimate of the first-order term, which is zero, adds to the other one.
    assert 0.93 < np.mean([e.std for e in estimates]) / deviation < (1.12 if shifted else 1.25)
    # The plug-in estimate is biased by about (n − 1)/samples; batches of ten, averaged, have a larger deviation.
    plug_in = ((counts / samples) ** 2 / b).sum(1).mean().item() - 1
    assert plug_in - truth > 0.8 * (n - 1) / samples
    small = torch.nn.functional.one_hot(draws.reshape(repeats, 6, 10), n).sum(2).to(F64)
    unpooled = ((small**2 - small) / b).sum((1, 2)) / (6 * 10 * 9) - 1
    assert unpooled.std() > (1.3 if shifted else 1.8) * deviation


@pytest.mark.parametrize("counts", [(5, 2, 1), (7, 1, 2), (1, 1, 0), (3, 3, 4)])
def test_pooled_estimate_counts_pairs_and_triples_of_samples(counts):
    """The U-statistics by their definition; the deviation where it comes from them, and where it is the one at m = b."""
    b, m = (0.2, 0.3, 0.5), sum(counts)
    pairs, triples = ([math.comb(c, k) / max(math.comb(m, k), 1) for c in counts] for k in (2, 3))
    value = sum(p / w for p, w in zip(pairs, b, strict=True)) - 1
    first = sum(t / w**2 for t, w in zip(triples, b, strict=True)) - (value + 1) ** 2
    second = sum(p / w**2 for p, w in zip(pairs, b, strict=True)) - (value + 1) ** 2
    least = 2 * (len(b) - 1) / (m * (m - 1))
    variance = max((4 * (m - 2) * first + 2 * second) / (m * (m - 1)), least)
    assert (variance > least) == (counts in [(5, 2, 1), (7, 1, 2)])
    found = pooled_chi2(counts, b)
    assert found.value == pytest.approx(value, rel=1e-12) and found.std == pytest.approx(variance**0.5, rel=1e-12)
    assert (found.upper() - value) / found.std == pytest.approx(ndtri(0.99), rel=1e-3)
    assert (value - found.lower()) / found.std == pytest.approx(ndtri(0.99), rel=1e-3)
    assert found.upper(1.5) == pytest.approx(value + 1.5 * found.std) and found.lower(1.5) == pytest.approx(
        value - 1.5 * found.std
    )


def test_pooled_estimate_of_shares_is_the_mean_over_pairs_of_samples():
    shares = torch.rand(6, 4, generator=generator(3), dtype=F64).softmax(1)
    b = unequal(4)
    pairs = [(shares[i] * shares[k] / b).sum().item() for i in range(6) for k in range(6) if i != k]
    found = pooled_chi2(shares.sum(0), b, squares=shares.square().sum(0), samples=6)
    assert found.value == pytest.approx(np.mean(pairs) - 1, rel=1e-12)


@pytest.mark.parametrize("epsilon", [0.0, 0.4])
@pytest.mark.parametrize("law", ["normal", "another"])
def test_a_certificate_holds_the_sums_over_its_noise(law, epsilon):
    """Dual value, its deviation, cost, χ² and empty cells against the cost matrix of the same noise."""
    points, n = cloud(9, 2, seed=4), 9500
    points[5] = points[2]
    other = lambda n, *, generator: torch.randn(n, 2, generator=generator) * torch.tensor([0.5, 2.0]) + torch.tensor([4.0, -1.0])
    atoms = Atoms(points, weights=unequal(9))
    noise = Noise("normal" if law == "normal" else other, like=points)
    if law != "normal":
        noise.centre = torch.tensor([3.5, -0.5], dtype=F64)
    average = 0.7 + torch.randn(len(atoms), generator=generator(8), dtype=F64) - 0.5 * atoms.centred.double().square().sum(1)
    average[3] -= 100  # an empty cell
    ascent = Ascent(atoms, noise, epsilon, iterate=average, average=average, scale=1.0)
    certificate = ascent.certificate()
    for part in (1000, 8500):
        certificate.add(part, generator=generator(part))
    draws = [(1000, [1000]), (8500, [8192, 308])]  # in blocks of 8192
    gens = {seed: generator(seed) for seed, _ in draws}
    x = torch.cat([noise.draw(part, generator=gens[seed]) for seed, parts in draws for part in parts]).double()
    y, g = atoms.centred.double() + atoms.mean, ascent.potentials()
    cost = 0.5 * torch.cdist(x, y).square()
    scores = g - cost
    if epsilon:
        transform = -epsilon * torch.logsumexp(scores / epsilon + atoms.mass.log(), 1)
        shares = torch.softmax(scores / epsilon + atoms.mass.log(), 1)
    else:
        transform, shares = -scores.amax(1), torch.nn.functional.one_hot(scores.argmax(1), len(y)).double()
    report = certificate.report()
    assert report["dual_value"] == pytest.approx((transform.mean() + atoms.mass @ g).item(), rel=1e-5)
    assert report["dual_std"] == pytest.approx((transform.std() / n**0.5).item(), rel=1e-3)
    assert report["primal_cost"] == pytest.approx((shares * cost).sum(1).mean().item(), rel=1e-4)
    assert report["empty_cells"] == (shares.sum(0) < 0.5).sum() > 0
    expected = pooled_chi2(shares.sum(0), atoms.mass, squares=shares.square().sum(0), samples=n)
    assert certificate.chi2() == pytest.approx(expected, rel=1e-3)


def test_noise_that_never_varies_has_the_deviation_zero():
    """Where rounding may leave a negative variance."""
    points = cloud(5, 2)
    for seed in range(8):
        place = torch.randn(2, generator=generator(seed))
        noise = Noise(lambda n, *, generator, place=place: place.expand(n, 2), like=points)
        zero = torch.zeros(5, dtype=F64)
        certificate = Ascent(Atoms(points), noise, 0.0, iterate=zero, average=zero, scale=1.0).certificate()
        certificate.add(777, generator=None)
        deviation = certificate.report()["dual_std"]
        assert isinstance(deviation, float) and 0 <= deviation < 1e-6


def test_shares_have_a_smaller_deviation_than_the_bound():
    """For soft shares the estimate is unbiased, too, and its deviation is below the stated one."""
    coupling, _ = fitted(cloud(10, 2), unequal(10), epsilon=0.3, tol=0.05)
    estimates = [coupling.chi2(300, generator=generator(seed)) for seed in range(200)]
    values = np.array([e.value for e in estimates])
    truth = coupling.chi2(200_000, generator=generator(999))
    assert abs(values.mean() - truth.value) < 4 * values.std() / 200**0.5 + 4 * truth.std
    assert values.std() < 1.1 * np.mean([e.std for e in estimates])


def test_converged_means_below_the_tolerance():
    """Also where an estimate minus its deviation would have stopped too early: checked on fresh noise, many seeds."""
    points, late = cloud(120, 6), 0
    for seed in range(12):
        coupling, fit = fitted(points, seed=seed, tol=0.1)
        assert fit.chi2_upper <= 0.1 and fit.chi2 < fit.chi2_upper
        late += coupling.chi2(40_000, generator=generator(100 + seed)).value > 0.1
    assert late <= 1


def test_chi2_follows_the_law_of_the_number_of_samples():
    """χ² is about N/n after n noises."""
    points, ratios = cloud(200, 16), []
    for seed in range(3):
        coupling = SemidiscreteCoupling(points)
        for iterations in (15, 60):
            coupling.fit(tol=1e-3, max_iterations=iterations, generator=generator(10 * seed + iterations))
            ratios.append(coupling.chi2(100_000, generator=generator(7)).value * coupling.iterations)
    for values in (ratios[::2], ratios[1::2]):
        assert 0.7 < sorted(values)[1] < 2.0


def test_not_converged_is_said():
    coupling = SemidiscreteCoupling(cloud(100, 2))
    fit = coupling.fit(max_iterations=1, generator=generator())
    assert not fit.converged and "max_iterations" in fit.reason and fit.chi2_upper > 0.05
    with pytest.raises(RuntimeError, match="not converged: the upper bound"):
        fit.require()


@pytest.mark.parametrize(
    ("counts", "weights", "options", "message"),
    (
        ([3.0, 1.0], [1.0, 1.0], {}, "weights must sum to 1"),
        ([3.0, 1.0], [1.0, 0.0], {}, "weights must be positive"),
        ([3.0, 1.0], [0.2, 0.3, 0.5], {}, "weights must have shape"),
        ([3.0, -1.0], [0.5, 0.5], {}, "counts"),
        ([[3.0, 1.0]], [0.5, 0.5], {}, "counts"),
        ([1.0, 0.0], [0.5, 0.5], {}, "2 samples"),
        ([3.0, 1.0], [0.5, 0.5], {"samples": 1}, "2 samples"),
        ([3.0, 1.0], [0.5, 0.5], {"squares": [3.0]}, "squares"),
    ),
)
def test_bad_histograms(counts, weights, options, message):
    with pytest.raises(ValueError, match=message):
        pooled_chi2(counts, weights, **options)
