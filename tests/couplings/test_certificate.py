import numpy as np
import pytest
import torch
from clouds import F64, cloud, fitted, unequal
from instances import generator

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
