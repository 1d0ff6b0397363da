"""Flow matching against closed forms of Gaussians, and its training loss against what a recording network sees of it."""

import itertools
import math

import pytest
import torch
from instances import cross_covariance, generator, pair
from scipy.linalg import sqrtm
from scipy.stats import kstest
from torch import nn

from dynot_lite.laws import gaussian
from dynot_lite.laws.gaussian import Gaussian, fm_flow, fm_kinetic_energy, fm_velocity
from dynot_lite.matching.flow_matching import FlowMatching, guided, loss, reflow, sample
from dynot_lite.matching.networks import VelocityNetwork
from dynot_lite.matching.training import fit
from dynot_lite.paths.continuity import gauss_legendre
from dynot_lite.paths.flows import log_prob
from dynot_lite.paths.interpolants import LINEAR, TRIGONOMETRIC, VARIANCE_PRESERVING, Interpolant

F64 = torch.float64
CUBIC = Interpolant(lambda t: (1 - t) ** 2, lambda t: t**3)


def sigma_pairs(p, q, cross):
    """Equally weighted pairs with exactly the means and covariances of the coupling: exact for quadratic functions."""
    joint = torch.cat([torch.cat([p.cov, cross], 1), torch.cat([cross.mT, q.cov], 1)])
    root = torch.linalg.cholesky(joint) * len(joint) ** 0.5
    points = torch.cat([p.mean, q.mean]) + torch.cat([root.mT, -root.mT])
    return points[:, : p.dim], points[:, p.dim :]


def integrated(velocity, x0, x1, interpolant, order=40):
    nodes, weights = gauss_legendre(order)
    return sum(w * loss(velocity, x0, x1, t, interpolant=interpolant) for t, w in zip(nodes, weights, strict=True)).item()


def field(p, q, cross, interpolant):
    return lambda t, x: fm_velocity(p, q, t, x, cross_cov=cross, interpolant=interpolant)


def speed(p, q, cross, interpolant):
    """∫E|dX_t/dt|² dt in closed form."""
    first, second = p.cov.trace() + p.mean.square().sum(), q.cov.trace() + q.mean.square().sum()
    product = cross.trace() + p.mean @ q.mean
    if interpolant is LINEAR:
        return (first + second - 2 * product).item()
    return (math.pi**2 / 8 * (first + second) - math.pi / 2 * product).item()


@pytest.mark.parametrize("d", (1, 2, 4))
@pytest.mark.parametrize("interpolant", (LINEAR, TRIGONOMETRIC), ids=("linear", "trigonometric"))
@pytest.mark.parametrize("correlated", (False, True))
def test_loss_of_the_true_field_is_the_minimum_in_closed_form(d, interpolant, correlated):
    p, q = pair(d)
    cross = cross_covariance(p, q) if correlated else torch.zeros(d, d, dtype=F64)
    x0, x1 = sigma_pairs(p, q, cross)
    found = integrated(field(p, q, cross, interpolant), x0, x1, interpolant)
    energy = fm_kinetic_energy(p, q, cross_cov=cross, interpolant=interpolant).item()
    assert found == pytest.approx(speed(p, q, cross, interpolant) - energy, rel=1e-8)
    if interpolant is LINEAR and not correlated:
        a = sqrtm(p.cov.numpy())
        inverse = torch.linalg.inv(torch.as_tensor(a)).numpy()
        geometric = (a @ sqrtm(inverse @ q.cov.numpy() @ inverse) @ a).trace().real
        assert found == pytest.approx(math.pi / 2 * geometric, rel=1e-8)


@pytest.mark.parametrize("interpolant", (LINEAR, TRIGONOMETRIC, CUBIC), ids=("linear", "trigonometric", "cubic"))
def test_loss_is_the_distance_to_the_conditional_expectation_plus_the_minimum(interpolant):
    p, q = pair(3)
    cross = cross_covariance(p, q)
    x0, x1 = sigma_pairs(p, q, cross)
    true = field(p, q, cross, interpolant)
    matrix = torch.randn(3, 3, generator=generator(), dtype=F64)
    other = lambda t, x: x @ matrix + t[:, None]
    for t in (0.0, 0.3, 1.0):
        x_t, _ = interpolant.at(t, x0, x1)
        times = torch.full((len(x_t),), t, dtype=F64)
        gap = (other(times, x_t) - true(times, x_t)).square().sum(1).mean()
        difference = loss(other, x0, x1, t, interpolant=interpolant) - loss(true, x0, x1, t, interpolant=interpolant)
        torch.testing.assert_close(difference, gap, rtol=1e-10, atol=1e-10)


def test_wrong_fields_have_a_larger_loss_and_a_gradient():
    """The transposed cross-covariance, and the trigonometric target without π/2, which regresses (2/π) v."""
    p, q = pair(2, condition=4.0)
    cross = cross_covariance(p, q, strength=0.3)  # so weak that its transpose is possible, too
    x0, x1 = sigma_pairs(p, q, cross)
    for interpolant in (LINEAR, TRIGONOMETRIC):
        least = integrated(field(p, q, cross, interpolant), x0, x1, interpolant)
        assert integrated(field(p, q, cross.mT, interpolant), x0, x1, interpolant) > least + 1e-3
    true = field(p, q, cross, TRIGONOMETRIC)
    factor = torch.tensor([1.0, 2 / math.pi], dtype=F64, requires_grad=True)
    values = [loss(lambda t, x, i=i: factor[i] * true(t, x), x0, x1, 0.4, interpolant=TRIGONOMETRIC) for i in range(2)]
    (gradient,) = torch.autograd.grad(sum(values), factor)
    assert abs(gradient[0]) < 1e-12 and gradient[1] < -0.1


def test_a_time_per_pair_belongs_to_its_pair():
    gen = generator()
    x0, x1, t = torch.randn(5, 3, generator=gen), torch.randn(5, 3, generator=gen), torch.rand(5, generator=gen)
    v = lambda t, x: torch.sin(3 * x) * t[:, None]
    single = [loss(v, x0[i : i + 1], x1[i : i + 1], t[i], interpolant=TRIGONOMETRIC) for i in range(5)]
    torch.testing.assert_close(loss(v, x0, x1, t, interpolant=TRIGONOMETRIC), torch.stack(single).mean())
    assert loss(lambda t, x: 0 * x, torch.zeros(4, 3), torch.ones(4, 3), 0.5).item() == 3  # squared norms, no ½
    assert loss(lambda t, x: 0 * x, torch.zeros(4, 3, 5, 2), torch.ones(4, 3, 5, 2), 0.5).item() == 30


def test_loss_hands_conditions_over():
    labels = torch.tensor([3, 1])
    v = lambda t, x, labels: labels[:, None].to(x).expand_as(x)
    assert loss(v, torch.zeros(2, 2), torch.full((2, 2), 3.0), 0.5, labels).item() == 4.0
    two = lambda t, x, labels, depth: labels[:, None] + depth + 0 * x
    assert loss(two, torch.zeros(2, 2), torch.full((2, 2), 3.0), 0.5, labels, torch.tensor([[0.0], [2.0]])).item() == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(2, 2), torch.zeros(2, 3), 0.5), "one shape"),
        ((torch.zeros(0, 2), torch.zeros(0, 2), 0.5), "one shape"),
        ((torch.zeros(2, 2), torch.full((2, 2), math.nan), 0.5), "x1 must be finite"),
        ((torch.zeros(2, 2), torch.zeros(2, 2), 1.5), r"t must lie in \[0, 1\]"),
        ((torch.zeros(2, 2), torch.zeros(2, 2), torch.zeros(2, 1)), "t must be a scalar or of shape"),
        ((torch.zeros(2, 2), torch.zeros(2, 2), torch.zeros(3)), "t must be a scalar or of shape"),
    ],
)
def test_loss_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        loss(lambda t, x: x, *arguments)


def test_loss_refuses_a_velocity_that_broadcasts():
    """t of shape (n,) against x of shape (n, d) without an axis gives (n, n) for d = n, or (n, n, d)."""
    x0 = torch.zeros(3, 1)
    with pytest.raises(ValueError, match="velocity must return a tensor of the shape of x"):
        loss(lambda t, x: t * x, x0, x0, 0.5)


class Recorder(nn.Module):
    """The zero field, which records what it is asked."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.calls = []

    def forward(self, t, x, labels=None):
        self.calls.append((t.clone(), x.detach().clone(), None if labels is None else labels.clone()))
        return 0 * x * self.weight


def from_zero_to_one(n, *, generator=None):
    return torch.zeros(n, 1), torch.ones(n, 1)


@pytest.mark.parametrize("interpolant", (LINEAR, TRIGONOMETRIC), ids=("linear", "trigonometric"))
def test_training_sees_the_path_and_its_velocity_at_uniform_times(interpolant):
    network = Recorder()
    losses = fit(network, FlowMatching(interpolant), from_zero_to_one, steps=300, batch=32, generator=generator(1)).losses
    times, points = (torch.stack(part).squeeze() for part in list(zip(*network.calls, strict=True))[:2])
    angle = 0.5 * math.pi * times
    place, target = (times, torch.ones_like(times)) if interpolant is LINEAR else (angle.sin(), 0.5 * math.pi * angle.cos())
    torch.testing.assert_close(points, place)
    torch.testing.assert_close(losses, target.square().mean(1))
    assert times.shape == (300, 32) and len(times.flatten().unique()) > 9500  # fresh times in every step
    assert kstest(times.flatten().numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("dropout", (0.0, 0.3, 1.0))
def test_label_dropout(dropout):
    def pairs(n, *, generator=None):
        return torch.zeros(n, 1), torch.ones(n, 1), torch.arange(n) % 5

    network = Recorder()
    fit(network, FlowMatching(label_dropout=dropout), pairs, steps=40, batch=50, generator=generator())
    labels = torch.stack([call[2] for call in network.calls])
    dropped = labels == -1
    assert torch.equal(labels[~dropped], (torch.arange(50) % 5).expand(40, -1)[~dropped])
    assert abs(dropped.double().mean() - dropout) < 4 * math.sqrt(dropout * (1 - dropout) / 2000) + 1e-9
    assert torch.equal(pairs(50)[2], torch.arange(50) % 5)


@pytest.mark.parametrize("label_dropout", (1.1, -0.1, math.nan))
def test_label_dropout_is_a_probability(label_dropout):
    with pytest.raises(ValueError, match="label_dropout"):
        FlowMatching(label_dropout=label_dropout)


@pytest.mark.parametrize(
    "x1", (torch.zeros(3, 1), torch.zeros(2, 2), torch.zeros(3, 2, dtype=F64)), ids=("flat", "short", "double")
)
def test_training_loss_refuses_pairs_that_broadcast(x1):
    with pytest.raises(ValueError, match="x0 and x1 of pairs must have one"):
        FlowMatching()(lambda t, x: x, torch.zeros(3, 2), x1)
    with pytest.raises(ValueError, match="velocity must return a tensor of the shape of x"):
        FlowMatching()(lambda t, x: t * x.T, torch.zeros(3, 2), torch.zeros(3, 2))


@pytest.mark.parametrize(("method", "order"), (("euler", 1), ("midpoint", 2), ("rk4", 4)))
def test_sample_takes_the_steps_it_is_given_and_converges(method, order):
    p, q = pair(2)
    cross = cross_covariance(p, q)
    calls = []

    def velocity(t, x):
        calls.append(t)
        return fm_velocity(p, q, t, x, cross_cov=cross)

    x0 = p.sample(10, generator=generator())
    exact = fm_flow(p, q, 1.0, cross_cov=cross)(x0)
    errors = []
    for evaluations in (32, 64, 128):
        calls.clear()
        per_step = {"euler": 1, "midpoint": 2, "rk4": 4}[method]
        errors.append((sample(velocity, x0, steps=evaluations // per_step, method=method) - exact).norm())
        assert len(calls) == evaluations and min(calls) >= 0 and max(calls) <= 1
    for coarse, fine in itertools.pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.35)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be an integer ≥ 1"),
        ({"steps": -2}, "steps"),
        ({"steps": 2.0}, "steps"),
        ({"steps": 4, "method": "heun"}, "method must be one of"),
    ],
)
def test_sample_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        sample(lambda t, x: x, torch.zeros(1, 1), **options)
    with pytest.raises(ValueError, match=message):
        reflow(lambda t, x: x, lambda n, generator=None: torch.zeros(n, 1), 3, **options)


def test_samples_carry_no_gradient():
    network = VelocityNetwork(2, generator=generator())
    assert not sample(network, torch.zeros(3, 2), steps=2).requires_grad


def test_images_are_sampled_and_reflowed():
    x0 = torch.randn(3, 1, 4, 5, generator=generator())
    torch.testing.assert_close(sample(lambda t, x: torch.ones_like(x), x0, steps=2), x0 + 1)
    pairs = reflow(lambda t, x: torch.ones_like(x), lambda n, generator=None: x0[:n], 3, steps=2)
    first, second = pairs(8, generator=generator())
    assert first.shape == (8, 1, 4, 5)
    torch.testing.assert_close(second, first + 1)


def test_guidance_is_affine_in_its_scale():
    shifts = torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    network = lambda t, x, labels=None: t * x if labels is None else t * x + shifts[labels]
    x, labels = torch.randn(3, 2, generator=generator()), torch.tensor([0, 1, 0])
    for scale in (-1.0, 0.0, 1.0, 2.5):
        torch.testing.assert_close(guided(network, labels, scale=scale)(0.3, x), 0.3 * x + scale * shifts[labels])
    with pytest.raises(ValueError, match="labels must have one entry"):
        guided(network, labels, scale=1.0)(0.3, x[:2])
    with pytest.raises(ValueError, match="scale"):
        guided(network, labels, scale=math.nan)


def test_likelihood_of_a_network_integrates_to_one():
    network = VelocityNetwork(1, width=16, generator=generator(3)).to(F64)
    base = Gaussian([0.0], [[1.0]])
    grid = torch.linspace(-9, 9, 1201, dtype=F64)[:, None]
    density = log_prob(network, grid, base.log_prob, steps=40).exp().detach()
    assert density.sum() * 18 / 1200 == pytest.approx(1, abs=2e-4)


def test_reflow_pairs_are_the_ends_of_the_flow():
    p, q = pair(3)
    cross = cross_covariance(p, q)
    pairs = reflow(field(p, q, cross, LINEAR), p.sample, 40, steps=100, method="rk4", generator=generator(5))
    x0, x1 = pairs(500, generator=generator(6))
    torch.testing.assert_close(x1, fm_flow(p, q, 1.0, cross_cov=cross)(x0), rtol=1e-7, atol=1e-7)
    pool = p.sample(40, generator=generator(5))
    assert torch.equal(x0.unique(dim=0), pool[pool[:, 0].argsort()])
    assert torch.equal(pairs(7, generator=generator(1))[0], pairs(7, generator=generator(1))[0])
    with pytest.raises(ValueError, match="size"):
        reflow(lambda t, x: x, p.sample, 0)


def test_all_paths_generate_the_same_samples():
    """One coupling, α + β > 0: the end map does not depend on the path. The flow winds if the path winds round the origin."""
    p = q = Gaussian(torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64))
    cross = 0.6 * torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=F64)
    x = torch.randn(5, 2, generator=generator(), dtype=F64)
    ends = {path: sample(field(p, q, cross, path), x, steps=50, method="rk4") for path in (LINEAR, TRIGONOMETRIC, CUBIC)}
    for path in (TRIGONOMETRIC, CUBIC):
        torch.testing.assert_close(ends[path], ends[LINEAR], rtol=1e-6, atol=1e-6)
    once_more = Interpolant(lambda t: torch.cos(2.5 * math.pi * t), lambda t: torch.sin(2.5 * math.pi * t))
    wound = sample(field(p, q, cross, once_more), x, steps=100, method="rk4")
    rotation = gaussian.fm_flow(p, q, 1.0, cross_cov=cross).matrix
    torch.testing.assert_close(wound, x @ torch.linalg.matrix_power(rotation, 5).mT, rtol=1e-6, atol=1e-6)
    assert (wound - ends[LINEAR]).norm(dim=1).min() > 0.1


def test_variance_preserving_path_reaches_the_same_end_but_has_no_finite_least_loss():
    p, q = Gaussian([0.0], [[1.0]]), Gaussian([0.0], [[4.0]])
    x = torch.tensor([[1.0]], dtype=F64)
    ends = sample(field(p, q, None, VARIANCE_PRESERVING), x, steps=200, method="midpoint")
    assert ends.item() == pytest.approx(2.0, abs=1e-3)
    x0, x1 = sigma_pairs(p, q, torch.zeros(1, 1, dtype=F64))
    losses = [loss(field(p, q, None, VARIANCE_PRESERVING), x0, x1, 1 - s, interpolant=VARIANCE_PRESERVING) for s in (1e-4, 1e-6)]
    assert (losses[1] / losses[0]).item() == pytest.approx(100, rel=1e-2)  # like 1/(1 − t): the integral over t diverges
