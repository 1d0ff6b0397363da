"""Flow matching against closed forms of Gaussians, and the training loop against what a recording network sees of it."""

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
from dynot_lite.matching.flow_matching import EVALUATIONS_PER_STEP, VelocityNetwork, fit, guided, loss, reflow, sample
from dynot_lite.paths.continuity import gauss_legendre
from dynot_lite.paths.flows import METHODS, log_prob
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


def test_loss_hands_labels_over():
    labels = torch.tensor([3, 1])
    v = lambda t, x, labels: labels[:, None].to(x).expand_as(x)
    assert loss(v, torch.zeros(2, 2), torch.full((2, 2), 3.0), 0.5, labels=labels).item() == 4.0


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
def test_fit_sees_the_path_and_its_velocity_at_uniform_times(interpolant):
    network = Recorder()
    losses = fit(network, from_zero_to_one, steps=300, batch=32, interpolant=interpolant, generator=generator(1)).losses
    times, points = (torch.stack(part).squeeze() for part in list(zip(*network.calls, strict=True))[:2])
    angle = 0.5 * math.pi * times
    place, target = (times, torch.ones_like(times)) if interpolant is LINEAR else (angle.sin(), 0.5 * math.pi * angle.cos())
    torch.testing.assert_close(points, place)
    torch.testing.assert_close(losses, target.square().mean(1))
    assert times.shape == (300, 32) and len(times.flatten().unique()) > 9500  # fresh times in every step
    assert kstest(times.flatten().numpy(), "uniform").pvalue > 1e-3


def test_fit_learns_a_translation():
    """X1 = X0 + c: the minimum of the loss is zero, at v = c."""
    shift = torch.tensor([1.0, -2.0])

    def pairs(n, *, generator=None):
        x0 = torch.randn(n, 2, generator=generator)
        return x0, x0 + shift

    gen = generator()
    network = VelocityNetwork(2, width=16, depth=2, generator=gen)
    result = fit(network, pairs, steps=800, batch=64, learning_rate=3e-3, ema=0.99, generator=gen)
    assert result.losses[-1] < 1e-3 < 1 < result.losses[0]
    x = torch.randn(50, 2, generator=gen)
    assert (sample(result.velocity, x, evaluations=2) - x - shift).norm(dim=1).mean() < 0.05
    assert not result.velocity.training and not any(p.requires_grad for p in result.velocity.parameters())
    assert not network.training and all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("decay", (0.0, 0.5, 0.97))
def test_average_is_the_weighted_mean_of_the_iterates(decay):
    """Iterate i has the weight γ_i Π_{j>i} (1 − γ_j): γ = 1 up to step 10, then 10/k, then 1 − ema."""
    network = VelocityNetwork(1, width=4, depth=1, generator=generator())
    iterates = []

    def pairs(n, *, generator=None):
        iterates.append([p.detach().clone() for p in network.parameters()])
        return torch.randn(n, 1, generator=generator), torch.randn(n, 1, generator=generator)

    average = fit(network, pairs, steps=400, batch=8, ema=decay, learning_rate=0.1, generator=generator(1)).velocity
    # The pairs are drawn before each step, once more at the start: what comes after the start are the iterates 1 to 399.
    iterates = [*iterates[2:], list(network.parameters())]
    share = [1.0 if k <= 10 or decay == 0 else max(10 / k, 1 - decay) for k in range(1, 401)]
    weights = torch.tensor([share[i] * math.prod(1 - g for g in share[i + 1 :]) for i in range(400)])
    assert weights.sum().item() == pytest.approx(1, abs=1e-6)
    for k, mean in enumerate(average.parameters()):
        stack = torch.stack([iterate[k] for iterate in iterates])
        torch.testing.assert_close(mean, torch.tensordot(weights, stack, 1), rtol=1e-4, atol=1e-5)


def test_randomness_comes_from_the_generator_alone():
    def pairs(n, *, generator=None):
        return torch.randn(n, 2, generator=generator), torch.randn(n, 2, generator=generator)

    def run(seed):
        gen = generator(seed)
        network = VelocityNetwork(2, width=8, classes=3, generator=gen)
        labelled = lambda n, *, generator=None: (*pairs(n, generator=generator), torch.arange(n) % 3)
        return fit(network, labelled, steps=5, batch=6, generator=gen)

    state = torch.random.get_rng_state()
    first, again, other = run(0), run(0), run(1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.losses, again.losses) and not torch.equal(first.losses, other.losses)
    x = torch.randn(4, 2, generator=generator())
    assert torch.equal(first.velocity(0.3, x), again.velocity(0.3, x))


@pytest.mark.parametrize("dropout", (0.0, 0.3, 1.0))
def test_label_dropout(dropout):
    def pairs(n, *, generator=None):
        return torch.zeros(n, 1), torch.ones(n, 1), torch.arange(n) % 5

    network = Recorder()
    fit(network, pairs, steps=40, batch=50, label_dropout=dropout, generator=generator())
    labels = torch.stack([call[2] for call in network.calls])
    dropped = labels == -1
    assert torch.equal(labels[~dropped], (torch.arange(50) % 5).expand(40, -1)[~dropped])
    assert abs(dropped.double().mean() - dropout) < 4 * math.sqrt(dropout * (1 - dropout) / 2000) + 1e-9
    assert torch.equal(pairs(50)[2], torch.arange(50) % 5)


def test_dtype_follows_the_pairs():
    def pairs(n, *, generator=None):
        return tuple(torch.randn(2, n, 1, generator=generator, dtype=F64))

    result = fit(VelocityNetwork(1, width=4, generator=generator()), pairs, steps=2, batch=4, generator=generator())
    assert result.losses.dtype == F64 and result.velocity(0.5, torch.zeros(1, 1, dtype=F64)).dtype == F64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_device_follows_the_pairs():
    def pairs(n, *, generator=None):
        return (*torch.randn(2, n, 2, generator=generator).cuda(), torch.arange(n).cuda() % 3)

    result = fit(VelocityNetwork(2, classes=3, generator=generator()), pairs, steps=150, batch=32, generator=generator())
    x = torch.randn(8, 2).cuda()
    ends = sample(guided(result.velocity, torch.arange(8).cuda() % 3, 2.0), x, evaluations=4)
    assert result.losses.is_cuda and ends.is_cuda and torch.isfinite(ends).all()


def stuck(*parts):
    return lambda n, *, generator=None: parts


NET = VelocityNetwork(1, width=2, depth=1)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (stuck(torch.zeros(4, 1), torch.zeros(4, 2)), "one shape"),
        (stuck(torch.zeros(3, 1), torch.zeros(3, 1)), r"one shape \(4, d\)"),
        (stuck(torch.zeros(4), torch.zeros(4)), "one shape"),
        (stuck(torch.zeros(4, 1), torch.zeros(4, 1), torch.zeros(4, 1)), "labels of shape"),
        (stuck(torch.zeros(4, 1)), "must return tensors"),
        (lambda n, *, generator=None: torch.zeros(4, 1), "must return tensors"),
        (stuck([0.0], [1.0]), "must return tensors"),
        (stuck(torch.zeros(4, 1), torch.full((4, 1), math.nan)), "x1 of pairs must be finite"),
        (stuck(torch.zeros(4, 1), torch.zeros(4, 1, dtype=F64)), "one dtype"),
        (stuck(torch.zeros(4, 1), torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64)), "network with classes"),
    ],
)
def test_fit_refuses_pairs_of_a_wrong_form(pairs, message):
    with pytest.raises(ValueError, match=message):
        fit(NET, pairs, steps=2, batch=4)


@pytest.mark.parametrize(
    "options",
    [{"steps": 0}, {"batch": 0}, {"learning_rate": 0.0}, {"learning_rate": math.nan}, {"ema": 1.0}, {"ema": math.nan},
     {"ema": -0.1}, {"label_dropout": 1.1}, {"label_dropout": math.nan}],
)  # fmt: skip
def test_fit_refuses_options(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        fit(NET, from_zero_to_one, **{"steps": 2, "batch": 4} | options)


@pytest.mark.parametrize("bad", (3, 140))
def test_fit_reports_a_loss_that_is_not_finite(bad):
    calls = itertools.count()

    def pairs(n, *, generator=None):
        return torch.zeros(n, 1), torch.full((n, 1), math.inf if next(calls) > bad else 1.0)

    with pytest.raises(RuntimeError, match="loss is not finite"):
        fit(VelocityNetwork(1, width=2, depth=1), pairs, steps=200, batch=4)


@pytest.mark.parametrize(("method", "order"), (("euler", 1), ("midpoint", 2), ("rk4", 4)))
def test_sample_spends_the_evaluations_it_is_given_and_converges(method, order):
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
        errors.append((sample(velocity, x0, evaluations=evaluations, method=method) - exact).norm())
        assert len(calls) == evaluations and min(calls) >= 0 and max(calls) <= 1
    for coarse, fine in itertools.pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.35)
    assert set(EVALUATIONS_PER_STEP) == set(METHODS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"evaluations": 0}, "evaluations must be an integer ≥ 1"),
        ({"evaluations": -2}, "evaluations"),
        ({"evaluations": 2.0}, "evaluations"),
        ({"evaluations": 3}, "multiple of 2"),
        ({"evaluations": 6, "method": "rk4"}, "multiple of 4"),
        ({"evaluations": 4, "method": "heun"}, "method must be one of"),
    ],
)
def test_sample_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        sample(lambda t, x: x, torch.zeros(1, 1), **options)
    with pytest.raises(ValueError, match=message):
        reflow(lambda t, x: x, lambda n, generator=None: torch.zeros(n, 1), 3, **options)


def test_samples_carry_no_gradient():
    network = VelocityNetwork(2, generator=generator())
    assert not sample(network, torch.zeros(3, 2), evaluations=4).requires_grad


def test_guidance_is_affine_in_its_scale():
    shifts = torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    network = lambda t, x, labels=None: t * x if labels is None else t * x + shifts[labels]
    x, labels = torch.randn(3, 2, generator=generator()), torch.tensor([0, 1, 0])
    for scale in (-1.0, 0.0, 1.0, 2.5):
        torch.testing.assert_close(guided(network, labels, scale)(0.3, x), 0.3 * x + scale * shifts[labels])
    with pytest.raises(ValueError, match="labels must have one entry"):
        guided(network, labels, 1.0)(0.3, x[:2])
    with pytest.raises(ValueError, match="scale"):
        guided(network, labels, math.nan)


def test_network_times_and_labels():
    gen = generator()
    network, x = VelocityNetwork(3, classes=4, generator=gen), torch.randn(5, 3, generator=gen)
    labels = torch.tensor([0, 1, 2, 3, 2])
    torch.testing.assert_close(network(0.25, x, labels), network(torch.full((5,), 0.25), x, labels))
    torch.testing.assert_close(network(0.25, x), network(0.25, x, torch.full((5,), -1)))
    torch.testing.assert_close(guided(network, labels.tolist(), 1.0)(0.25, x), network(0.25, x, labels))
    rows = torch.cat([network(0.25, x[i : i + 1], labels[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(network(0.25, x, labels), rows)
    assert (network(0.25, x) - network(0.75, x)).abs().max() > 1e-3
    assert (network(0.25, x, labels) - network(0.25, x)).abs().amax(1).min() > 1e-3
    for bad in (torch.tensor([0, 1, 2, 3, 4]), torch.full((5,), -2), torch.zeros(4, dtype=torch.int64), torch.zeros(5)):
        with pytest.raises(ValueError, match="labels must"):
            network(0.25, x, bad)
    for bad in (torch.zeros(5, 2), torch.zeros(3), torch.zeros(1, 5, 3)):
        with pytest.raises(ValueError, match=r"x must have shape \(n, 3\)"):
            network(0.25, bad)
    for options in ({"dim": 0}, {"width": 0}, {"depth": 0}, {"classes": 0}, {"width": 1.5}):
        with pytest.raises(ValueError, match=next(iter(options))):
            VelocityNetwork(**{"dim": 2} | options)


def test_network_is_that_of_plain_layers():
    """Three hidden layers of SELU units on (x, t): as torchcfm's multi-layer perceptron, up to the place of t."""
    network, x = VelocityNetwork(2, width=5, generator=generator()), torch.randn(4, 2, generator=generator(1))
    plain = nn.Sequential(nn.Linear(3, 5), nn.SELU(), nn.Linear(5, 5), nn.SELU(), nn.Linear(5, 5), nn.SELU(), nn.Linear(5, 2))
    plain.load_state_dict(dict(zip(plain.state_dict(), network.state_dict().values(), strict=True)))
    torch.testing.assert_close(network(0.7, x), plain(torch.cat([torch.full((4, 1), 0.7), x], 1)))
    for layer in (*network.hidden, network.last):
        bound = layer.in_features**-0.5
        assert layer.weight.abs().max() <= bound and layer.weight.abs().max() > 0.5 * bound


def test_likelihood_of_a_network_integrates_to_one():
    network = VelocityNetwork(1, width=16, generator=generator(3)).to(F64)
    base = Gaussian([0.0], [[1.0]])
    grid = torch.linspace(-9, 9, 1201, dtype=F64)[:, None]
    density = log_prob(network, grid, base.log_prob, steps=40).exp().detach()
    assert density.sum() * 18 / 1200 == pytest.approx(1, abs=2e-4)


def test_reflow_pairs_are_the_ends_of_the_flow():
    p, q = pair(3)
    cross = cross_covariance(p, q)
    pairs = reflow(field(p, q, cross, LINEAR), p.sample, 40, evaluations=400, method="rk4", generator=generator(5))
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
    ends = {path: sample(field(p, q, cross, path), x, evaluations=200, method="rk4") for path in (LINEAR, TRIGONOMETRIC, CUBIC)}
    for path in (TRIGONOMETRIC, CUBIC):
        torch.testing.assert_close(ends[path], ends[LINEAR], rtol=1e-6, atol=1e-6)
    once_more = Interpolant(lambda t: torch.cos(2.5 * math.pi * t), lambda t: torch.sin(2.5 * math.pi * t))
    wound = sample(field(p, q, cross, once_more), x, evaluations=400, method="rk4")
    rotation = gaussian.fm_flow(p, q, 1.0, cross_cov=cross).matrix
    torch.testing.assert_close(wound, x @ torch.linalg.matrix_power(rotation, 5).mT, rtol=1e-6, atol=1e-6)
    assert (wound - ends[LINEAR]).norm(dim=1).min() > 0.1


def test_variance_preserving_path_reaches_the_same_end_but_has_no_finite_least_loss():
    p, q = Gaussian([0.0], [[1.0]]), Gaussian([0.0], [[4.0]])
    x = torch.tensor([[1.0]], dtype=F64)
    ends = sample(field(p, q, None, VARIANCE_PRESERVING), x, evaluations=400, method="midpoint")
    assert ends.item() == pytest.approx(2.0, abs=1e-3)
    x0, x1 = sigma_pairs(p, q, torch.zeros(1, 1, dtype=F64))
    losses = [loss(field(p, q, None, VARIANCE_PRESERVING), x0, x1, 1 - s, interpolant=VARIANCE_PRESERVING) for s in (1e-4, 1e-6)]
    assert (losses[1] / losses[0]).item() == pytest.approx(100, rel=1e-2)  # like 1/(1 − t): the integral over t diverges
