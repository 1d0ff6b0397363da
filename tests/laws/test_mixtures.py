import math

import numpy as np
import pytest
import scipy.stats
import torch
from instances import conditional_velocity, cross_covariance, generator, pair
from torch.utils._python_dispatch import TorchDispatchMode

from dynot_lite.laws import mixtures
from dynot_lite.laws.gaussian import Gaussian
from dynot_lite.laws.mixtures import GaussianMixture, fm_velocity_diracs, fm_velocity_mixture
from dynot_lite.paths import continuity, flows
from dynot_lite.paths.interpolants import LINEAR, TRIGONOMETRIC

F64 = torch.float64


def close(a, b, tol):
    torch.testing.assert_close(a, b, rtol=tol, atol=tol)


def instance(d, k=3):
    """Weights, means, covariances and cross-covariances of k coupled components."""
    pairs = [pair(d, seed, condition=3.0) for seed in range(k)]
    weights = torch.softmax(torch.arange(k, dtype=F64), 0)
    first, second = ([g[i] for g in pairs] for i in (0, 1))
    cross = torch.stack([cross_covariance(p, q, seed) for seed, (p, q) in enumerate(pairs)])
    stack = lambda laws, name: torch.stack([getattr(g, name) for g in laws])
    return weights, stack(first, "mean"), stack(second, "mean"), stack(first, "cov"), stack(second, "cov"), cross


def test_samples_come_from_the_generator_alone():
    weights, means, _, covs, _, _ = instance(2)
    law, before = GaussianMixture(weights, means, covs), torch.get_rng_state()
    first, second = (law.sample(50, generator=generator(3)) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(torch.get_rng_state(), before)


def test_mixture_density_and_samples():
    weights, means, _, covs, _, _ = instance(2)
    law = GaussianMixture(weights, means, covs)
    x = torch.randn(6, 2, generator=generator(), dtype=F64)
    expected = sum(
        w * scipy.stats.multivariate_normal(m, c).pdf(x.numpy())
        for w, m, c in zip(*(a.numpy() for a in (weights, means, covs)), strict=True)
    )
    close(law.log_prob(x), torch.as_tensor(expected).log(), 1e-12)
    sample = law.sample(200_000, generator=generator())
    mean = (weights.unsqueeze(-1) * means).sum(0)
    second = (weights[:, None, None] * (covs + means.unsqueeze(-1) * means.unsqueeze(-2))).sum(0)
    assert (sample.mean(0) - mean).abs().max() < 0.02
    assert (sample.mT @ sample / len(sample) - second).abs().max() < 0.05


@pytest.mark.parametrize("interpolant", (LINEAR, TRIGONOMETRIC), ids=("linear", "trigonometric"))
@pytest.mark.parametrize("d", (1, 2))
def test_velocity_is_the_conditional_expectation(d, interpolant):
    weights, m0, m1, c0, c1, cross = instance(d)
    joint = GaussianMixture(
        weights, torch.cat([m0, m1], -1), torch.cat([torch.cat([c0, cross], -1), torch.cat([cross.mT, c1], -1)], -2)
    )
    x = torch.randn(4, d, generator=generator(), dtype=F64)
    for t in (0.2, 0.5, 0.85):
        expected = conditional_velocity(
            lambda a, b: joint.log_prob(torch.cat([a, b], -1)), interpolant, t, x, centre=m1.mean(0), radius=12.0, nodes=241
        )
        close(fm_velocity_mixture(weights, m0, m1, c0, c1, t, x, cross_cov=cross, interpolant=interpolant), expected, 1e-10)
    times = torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=F64)
    one_by_one = [
        fm_velocity_mixture(weights, m0, m1, c0, c1, t, x[i : i + 1], cross_cov=cross) for i, t in enumerate(times.tolist())
    ]
    close(fm_velocity_mixture(weights, m0, m1, c0, c1, times, x, cross_cov=cross), torch.cat(one_by_one), 1e-12)


def test_velocity_solves_the_continuity_equation():
    weights, m0, m1, c0, c1, cross = instance(2)

    def path(t):
        covs = (1 - t) ** 2 * c0 + t**2 * c1 + t * (1 - t) * (cross + cross.mT)
        nodes = [Gaussian((1 - t) * a + t * b, c).quadrature(64) for a, b, c in zip(m0, m1, covs, strict=True)]
        return torch.cat([x for x, _ in nodes]), torch.cat([w * v for w, (_, v) in zip(weights, nodes, strict=True)])

    def velocity(t, x):
        return fm_velocity_mixture(weights, m0, m1, c0, c1, t, x, cross_cov=cross)

    def prior_weights(t, x):  # a mistake of the catalogue: prior instead of posterior weights
        fields = [
            fm_velocity_mixture(torch.ones(1, dtype=F64), m0[k : k + 1], m1[k : k + 1], c0[k], c1[k], t, x, cross_cov=cross[k])
            for k in range(3)
        ]
        return sum(w * v for w, v in zip(weights, fields, strict=True))

    psi = lambda t, x: torch.sin(x[:, 0] - t) * torch.cos(0.5 * x[:, 1])
    assert continuity.weak_residual(path, velocity, psi, times=24) < 1e-8
    assert continuity.weak_residual(path, prior_weights, psi, times=24) > 1e-3


def test_velocity_is_finite_and_affine_in_the_tails():
    weights, m0, m1, c0, c1, cross = instance(2)
    x = torch.tensor([[1e6, -3e6], [-1e8, 1e8]], dtype=F64)
    v = fm_velocity_mixture(weights, m0, m1, c0, c1, 0.4, x, cross_cov=cross)
    assert torch.isfinite(v).all()
    close(fm_velocity_mixture(weights, m0, m1, c0, c1, 0.4, 2 * x, cross_cov=cross), 2 * v, 1e-5)


def test_diracs_are_the_limit_of_narrow_components():
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.5]], dtype=F64)
    weights = torch.tensor([0.5, 0.2, 0.3], dtype=F64)
    x = torch.tensor([[0.3, -0.2], [1.0, 1.0]], dtype=F64)
    eye, zero = torch.eye(2, dtype=F64), torch.zeros(3, 2, dtype=F64)
    for t in (0.0, 0.5, 0.9):
        limit = fm_velocity_diracs(points, t, x, weights=weights)
        close(fm_velocity_mixture(weights, zero, points, eye, 1e-11 * eye, t, x), limit, 1e-6)
        close(fm_velocity_mixture(weights, zero, points, eye, 0 * eye, t, x), limit, 1e-12)
    times = torch.tensor([0.2, 0.7], dtype=F64)
    close(
        fm_velocity_diracs(points, times, x),
        torch.cat([fm_velocity_diracs(points, t, x[i : i + 1]) for i, t in enumerate(times)]),
        1e-13,
    )


def test_diracs_jacobian_and_quantile_invariant():
    points = torch.tensor([[-1.0], [0.4], [2.0]], dtype=F64)
    t, x = 0.6, torch.tensor([[0.37]], dtype=F64)
    weight = torch.softmax(-((x - t * points) ** 2).squeeze(-1) / (2 * (1 - t) ** 2), 0)
    variance = (weight * points.squeeze(-1) ** 2).sum() - (weight * points.squeeze(-1)).sum() ** 2
    jacobian = flows.divergence(lambda t, x: fm_velocity_diracs(points, t, x), t, x)
    close(jacobian.detach(), (-1 / (1 - t) + t / (1 - t) ** 3 * variance).reshape(1), 1e-11)
    # One dimension: the distribution function is carried along, F_t(φ_t(x)) = Φ(x).
    start = torch.tensor([[-0.7], [0.1], [0.9]], dtype=F64)
    end = flows.integrate_adaptive(lambda t, x: fm_velocity_diracs(points, t, x), start, t1=t)
    carried = torch.special.ndtr((end - t * points.mT) / (1 - t)).mean(-1)
    close(carried, torch.special.ndtr(start).squeeze(-1), 1e-9)


GOOD = dict(weights=[0.5, 0.5], means0=[[0.0], [1.0]], means1=[[2.0], [3.0]], cov0=[[1.0]], cov1=[[1.0]], t=0.5, x=[[0.0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(weights=[0.7, 0.7]), "weights must sum to 1"),
        (dict(weights=[1.5, -0.5]), "weights must be non-negative"),
        (dict(weights=[1.0]), "weights must have shape"),
        (dict(means1=[[2.0]]), "means0 and means1"),
        (dict(means1=[[2.0, 1.0], [3.0, 1.0]]), "means1 must have dimension"),
        (dict(cov0=[[-1.0]]), "cov must be positive"),
        (dict(cross_cov=[[2.0]]), "joint covariance"),
        (dict(t=2.0), r"t must lie in \[0, 1\]"),
        (dict(t=1.0, cov1=[[0.0]]), "positive definite"),
        (dict(x=[[math.nan]]), "x must be finite"),
    ],
)
def test_bad_input_of_the_mixture_velocity(change, message):
    with pytest.raises(ValueError, match=message):
        fm_velocity_mixture(**(GOOD | change))


def test_bad_input_of_diracs_and_mixtures():
    points = [[0.0], [1.0]]
    for t in (1.0, [0.5, 1.0]):
        with pytest.raises(ValueError, match="t must be less than 1"):
            fm_velocity_diracs(points, t, [[0.0], [0.1]])
    with pytest.raises(ValueError, match="weights must sum"):
        fm_velocity_diracs(points, 0.5, [[0.0]], weights=[0.5, 0.4])
    with pytest.raises(ValueError, match="points must be a non-empty"):
        fm_velocity_diracs(torch.zeros(0, 2), 0.5, [[0.0, 0.0]])
    with pytest.raises(ValueError, match="means must have shape"):
        GaussianMixture([1.0], [[0.0, 0.0]], torch.eye(2).expand(4, 2, 2))
    with pytest.raises(ValueError, match="weights must have shape"):
        GaussianMixture([0.5, 0.5], [[0.0, 0.0]], torch.eye(2))


# --- precision, memory, shapes -----------------------------------------------------------------------------------------------


def test_weights_are_judged_in_the_precision_they_come_in():
    weights = torch.tensor([0.1, 0.2, 0.7])  # of sum 1 in float32, and 1e-8 beside it in float64
    means = torch.arange(6, dtype=F64).reshape(3, 2)
    law = GaussianMixture(weights, means, torch.eye(2))
    assert law.weights.dtype == F64 and abs(law.weights.sum().item() - 1) < 1e-15
    v = fm_velocity_diracs(means, 0.5, means, weights=weights)
    close(v, fm_velocity_diracs(means, 0.5, means, weights=[0.1, 0.2, 0.7]), 1e-6)
    eye = torch.eye(2)
    close(fm_velocity_mixture(weights, means, means + 1, eye, eye, 0.5, means), torch.ones(3, 2, dtype=F64), 1e-12)


def diracs_in_extended_precision(points, t, x, weights):
    y, x, t, w = (np.asarray(a, dtype=np.longdouble) for a in (points, x, t, weights))
    logits = np.log(w) - np.square(x[:, None] - t * y).sum(-1) / (2 * (1 - t) ** 2)
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return (shares / shares.sum(1, keepdims=True) @ y - x) / (1 - t)


@pytest.mark.parametrize("t", (0.0, 1e-9, 0.4, 0.99, 0.99999))
def test_diracs_keep_their_accuracy_late_and_far_out(t):
    gen = generator(4)
    centres, near, noise = (torch.randn(n, 1, 30, generator=gen, dtype=F64) for n in (8, 8, 8))
    # Neighbours that compete at time t, since they are 1 − t apart: squares of the size of the points would drown that.
    points = (3 * centres + (1 - t) * near * torch.linspace(0, 0.5, 5, dtype=F64)[:, None]).reshape(40, 30)
    weights = torch.softmax(torch.randn(40, generator=gen, dtype=F64), 0)
    x = (t * 3 * centres + (1 - t) * noise).squeeze(1)
    expected = diracs_in_extended_precision(points, t, x, weights)
    found = fm_velocity_diracs(points, t, x, weights=weights).numpy()
    assert np.abs(found - expected).max() < 1e-14 * points.abs().max().item() / (1 - t)
    # Far out, where ‖x‖² has no digits left for the differences, the rounding of x itself is what counts.
    far = 1e6 * noise.squeeze(1)
    expected = diracs_in_extended_precision(points, t, far, weights)
    found = fm_velocity_diracs(points, t, far, weights=weights).numpy()
    assert np.abs(found - expected).max() < 1e-5 / (1 - t)


class Largest(TorchDispatchMode):
    """The number of entries of the largest tensor made."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for part in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(part, torch.Tensor):
                self.numel = max(self.numel, part.untyped_storage().nbytes() // part.element_size())
        return made


@pytest.mark.parametrize("times", (0.7, torch.linspace(0, 0.9, 60)), ids=("one time", "times"))
def test_diracs_need_no_array_of_all_coordinates_of_all_pairs(times):
    points, x = torch.randn(70, 50, generator=generator()), torch.randn(60, 50, generator=generator(1))
    with Largest() as largest:
        fm_velocity_diracs(points, times, x.requires_grad_()).sum().backward()
    assert largest.numel <= 60 * 70


@pytest.mark.parametrize("times", (0.4, torch.linspace(0, 1, 9, dtype=F64)), ids=("one time", "times"))
def test_the_mixture_velocity_is_computed_in_parts(times, monkeypatch):
    weights, m0, m1, c0, c1, cross = instance(2)
    x = torch.randn(9, 2, generator=generator(), dtype=F64)
    whole = fm_velocity_mixture(weights, m0, m1, c0, c1, times, x, cross_cov=cross)
    monkeypatch.setattr(mixtures, "PART", 36)
    with Largest() as largest:
        close(fm_velocity_mixture(weights, m0, m1, c0, c1, times, x, cross_cov=cross), whole, 1e-13)
    assert largest.numel <= 48  # joint covariances of the components


def test_points_have_two_dimensions():
    weights, m0, m1, c0, c1, _ = instance(2)
    cube = torch.zeros(3, 4, 2, dtype=F64)  # with three components it would broadcast
    for call in (
        lambda: GaussianMixture(weights, m0, c0).log_prob(cube),
        lambda: fm_velocity_mixture(weights, m0, m1, c0, c1, 0.5, cube),
        lambda: fm_velocity_diracs(m0, 0.5, cube),
    ):
        with pytest.raises(ValueError, match=r"x must have shape \(n, d\)"):
            call()
    with pytest.raises(ValueError, match=r"points must have shape \(K, d\)"):
        fm_velocity_diracs(cube, 0.5, cube[0])
