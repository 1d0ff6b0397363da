import math

import pytest
import torch
from instances import generator

from dynot_lite.companion.numerics import largest
from dynot_lite.matching import flow_matching, mean_flow
from dynot_lite.matching.mean_flow import MeanFlow
from dynot_lite.matching.networks import MeanVelocityNetwork
from dynot_lite.matching.training import fit

F64 = torch.float64
MEAN, DEVIATION = 1.5, 0.4


def marginal_deviation(t):
    """Of X_t = (1 − t) X0 + t X1 for independent X0 ~ N(0, 1), X1 ~ N(MEAN, DEVIATION²)."""
    return ((1 - t) ** 2 + (t * DEVIATION) ** 2) ** 0.5


def exact(r, t, x):
    """The average velocity of that flow, x -> mean_t + (s_t/s_r)(x − mean_r), and its limit for t = r."""
    r, t = r.reshape(-1, 1), t.reshape(-1, 1)
    gap = torch.where(t > r, t - r, 1)
    end = t * MEAN + marginal_deviation(t) / marginal_deviation(r) * (x - r * MEAN)
    slope = (-(1 - r) + r * DEVIATION**2) / marginal_deviation(r) ** 2
    return torch.where(t > r, (end - x) / gap, MEAN + slope * (x - r * MEAN))


def wrong_sign(r, t, x):
    """The fixed point of u = v − (t − r) du/dr to first order in t − r: what a sign error would train."""
    start = exact(r, r, x)
    return start - (exact(r, t, x) - start)


def draw(n, seed=0):
    gen = generator(seed)
    return torch.randn(n, 1, generator=gen, dtype=F64), MEAN + DEVIATION * torch.randn(n, 1, generator=gen, dtype=F64)


@pytest.mark.parametrize(("field", "stationary"), ((exact, True), (wrong_sign, False)))
def test_the_average_velocity_is_the_stationary_point(field, stationary):
    """The gradient of the loss in the directions 1, x, x² about the exact u vanishes up to its standard error, and only there."""
    n = 200_000
    x0, x1 = draw(n)
    gen = generator(1)
    r = 0.7 * torch.rand(n, generator=gen, dtype=F64)
    t = r + 0.3 * torch.rand(n, generator=gen, dtype=F64)
    x = torch.lerp(x0, x1, r[:, None])
    error = mean_flow._error(field, x0, x1, r, t, ())
    deviations = []
    for direction in (torch.ones_like(x), x, x**2, (t - r)[:, None] * x):
        product = (error * direction)[:, 0]
        deviations.append(abs(product.mean() / (product.std() / n**0.5)).item())
    assert (largest(deviations) < 4) == stationary, deviations


def test_a_single_point_is_reached_by_straight_lines():
    """Towards one point y, u = (y − x)/(1 − r) whatever t: zero loss for every pair; and one evaluation lands on y."""
    y = torch.tensor([[0.3, -2.0]], dtype=F64)
    field = lambda r, t, x: (y - x) / (1 - torch.as_tensor(r, dtype=F64).reshape(-1, 1))
    x0 = torch.randn(50, 2, generator=generator(), dtype=F64)
    r = torch.rand(50, generator=generator(1), dtype=F64) * 0.9
    assert mean_flow.loss(field, x0, y.expand(50, 2), r, r + 0.1) < 1e-24
    torch.testing.assert_close(mean_flow.sample(field, x0), y.expand(50, 2))


def test_no_interval_is_flow_matching():
    network = MeanVelocityNetwork(2, generator=generator())
    x0, x1 = torch.randn(2, 100, 2, generator=generator(1))
    t = torch.rand(100, generator=generator(2))
    expected = flow_matching.loss(lambda t, x: network(t, t, x), x0, x1, t)
    torch.testing.assert_close(mean_flow.loss(network, x0, x1, t, t), expected)


def test_target_carries_no_gradient():
    network = MeanVelocityNetwork(1, width=8, generator=generator()).double()
    x0, x1 = draw(20)
    r, t = torch.full((20,), 0.2, dtype=F64), torch.full((20,), 0.9, dtype=F64)
    gradient = torch.autograd.grad(mean_flow.loss(network, x0, x1, r, t), network.field.last.weight)[0]
    u = network(r, t, torch.lerp(x0, x1, r[:, None]))
    error = mean_flow._error(network, x0, x1, r, t, ()).detach()
    expected = torch.autograd.grad((2 * error * u).sum() / 20, network.field.last.weight)[0]
    torch.testing.assert_close(gradient, expected)


def test_sampling_composes():
    """The exact average velocity gives the exact flow for every number of steps."""
    x0 = torch.linspace(-2, 2, 9, dtype=F64)[:, None]
    field = lambda r, t, x: exact(torch.tensor(r, dtype=F64).expand(len(x)), torch.tensor(t, dtype=F64).expand(len(x)), x)
    for steps in (1, 2, 5):
        torch.testing.assert_close(mean_flow.sample(field, x0, steps=steps), MEAN + DEVIATION * x0)


def test_training_reaches_the_target_in_one_evaluation():
    pairs = lambda n, *, generator=None: (
        torch.randn(n, 1, generator=generator),
        MEAN + DEVIATION * torch.randn(n, 1, generator=generator),
    )
    network = MeanVelocityNetwork(1, width=32, depth=2, generator=generator())
    fitted = fit(network, MeanFlow(), pairs, steps=500, ema=0.99, learning_rate=3e-3, generator=generator(1))
    x0 = torch.randn(20_000, 1, generator=generator(2))
    made = mean_flow.sample(fitted.network, x0)
    # So early the deviation is still growing; the instantaneous velocity in one step would give the constant MEAN, deviation 0.
    assert abs(made.mean().item() - MEAN) < 0.15
    assert 0.1 < made.std().item() < 0.6
    assert fitted.losses.shape == (500,)


def test_labels():
    network = MeanVelocityNetwork(1, width=16, depth=1, classes=2, generator=generator())

    def pairs(n, *, generator=None):
        labels = torch.randint(2, (n,), generator=generator)
        return torch.randn(n, 1, generator=generator), 4.0 * labels[:, None] - 2, labels

    fitted = fit(network, MeanFlow(), pairs, steps=300, ema=0.9, learning_rate=1e-2, generator=generator(1))
    labels = torch.tensor([0, 1]).repeat(100)
    made = mean_flow.sample(fitted.network, torch.randn(200, 1, generator=generator(2)), labels)
    assert (made[:, 0].sign() == 2 * labels - 1).all()
    assert math.isfinite(fitted.losses[-1])


@pytest.mark.parametrize(
    "arguments",
    (
        (torch.zeros(3, 1), torch.zeros(3, 1), 0.5, 0.4),
        (torch.zeros(3, 1), torch.zeros(2, 1), 0.1, 0.4),
        (torch.zeros(3, 1), torch.zeros(3, 1), -0.1, 0.4),
        (torch.zeros(3, 1), torch.zeros(3, 1), 0.1, 1.4),
        (torch.full((3, 1), torch.nan), torch.zeros(3, 1), 0.1, 0.4),
        (torch.zeros(3), torch.zeros(3), 0.1, 0.4),
    ),
)
def test_bad_input(arguments):
    with pytest.raises(ValueError, match="must"):
        mean_flow.loss(MeanVelocityNetwork(1), *arguments)


def test_training_sees_ordered_times_and_the_path():
    """r ≤ t; r = t in half of the pairs; otherwise two ordered uniform times; x at time r; dropped labels."""
    calls = []

    def field(r, t, x, labels):
        calls.append((r.detach(), t, x.detach(), labels))
        return 0 * x

    pairs = torch.zeros(400, 1), torch.ones(400, 1), torch.arange(400) % 5
    gen = generator()
    values = [MeanFlow(instantaneous=0.5, label_dropout=0.3)(field, *pairs, generator=gen) for _ in range(20)]
    r, t, x, labels = (torch.cat(part) for part in zip(*calls, strict=True))
    # In forward mode r and x carry tangents; their values are compared.
    assert (r <= t).all() and abs((r == t).double().mean() - 0.5) < 0.03 and abs((labels == -1).double().mean() - 0.3) < 0.03
    torch.testing.assert_close(torch.func.vmap(lambda a: a)(x[:, 0]), r)
    assert (t - r)[t > r].mean().item() == pytest.approx(1 / 3, abs=0.02)
    torch.testing.assert_close(torch.stack(values), torch.ones(20))  # u = 0 has no derivative, and the target is x1 − x0


def test_images_and_scalar_times():
    x0, x1 = torch.randn(2, 4, 2, 3, 3, generator=generator(), dtype=F64)
    field = lambda r, t, x, *scale: x.sin() * torch.as_tensor(r + t).view(-1, 1, 1, 1) * (scale[0] if scale else 1)
    one = lambda r, t, x: field(r, t, x.view(-1, 2, 3, 3)).flatten(1)
    found = mean_flow.loss(field, x0, x1, 0.2, 0.6)
    times = (torch.full((4,), time, dtype=F64) for time in (0.2, 0.6))
    torch.testing.assert_close(found, mean_flow.loss(one, x0.flatten(1), x1.flatten(1), *times))
    scale = torch.full((4, 1, 1, 1), 2.0)
    assert abs(mean_flow.loss(field, x0, x1, 0.2, 0.6, scale) - found) > 0.1
    assert mean_flow.sample(field, x0, scale, steps=1).shape == x0.shape


@pytest.mark.parametrize("options", ({"instantaneous": 2.0}, {"instantaneous": math.nan}, {"label_dropout": -1.0}))
def test_bad_options(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        MeanFlow(**options)
    with pytest.raises(ValueError, match="steps"):
        mean_flow.sample(MeanVelocityNetwork(1), torch.zeros(2, 1), steps=0)
    with pytest.raises(ValueError, match="network must return"):
        mean_flow.sample(lambda r, t, x: x[:, :1], torch.zeros(2, 2))
    with pytest.raises(ValueError, match="network must return"):
        MeanFlow()(lambda r, t, x: r * x, torch.zeros(3, 1), torch.zeros(3, 1))


def test_a_network_without_a_graph_is_no_network_of_derivative_zero():
    x0, x1 = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [4.0]])
    field = lambda r, t, x: (1 + r[:, None]) * x**2
    expected = mean_flow.loss(field, x0, x1, 0.2, 0.6)
    # forward mode sees through no_grad
    torch.testing.assert_close(mean_flow.loss(torch.no_grad()(field), x0, x1, 0.2, 0.6), expected)
    for cut in (lambda *given: field(*given).detach(), lambda *given: torch.from_numpy(field(*given).detach().numpy())):
        with pytest.raises(ValueError, match="network must be differentiable"):
            mean_flow.loss(cut, x0, x1, 0.2, 0.6)
