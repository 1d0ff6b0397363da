import math

import pytest
import torch
from instances import generator

from dynot_lite.matching import flow_matching, mean_flow
from dynot_lite.matching.mean_flow import MeanVelocityNetwork

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
    assert (max(deviations) < 4) == stationary, deviations


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
    """The exact average velocity gives the exact flow for every number of evaluations."""
    x0 = torch.linspace(-2, 2, 9, dtype=F64)[:, None]
    field = lambda r, t, x: exact(torch.tensor(r, dtype=F64).expand(len(x)), torch.tensor(t, dtype=F64).expand(len(x)), x)
    for evaluations in (1, 2, 5):
        torch.testing.assert_close(mean_flow.sample(field, x0, evaluations=evaluations), MEAN + DEVIATION * x0)


def test_training_reaches_the_target_in_one_evaluation():
    pairs = lambda n, *, generator=None: (
        torch.randn(n, 1, generator=generator),
        MEAN + DEVIATION * torch.randn(n, 1, generator=generator),
    )
    network = MeanVelocityNetwork(1, width=32, depth=2, generator=generator())
    fitted = mean_flow.fit(network, pairs, steps=500, ema=0.99, learning_rate=3e-3, generator=generator(1))
    x0 = torch.randn(20_000, 1, generator=generator(2))
    made = mean_flow.sample(fitted.velocity, x0)
    # So early the deviation is still growing; the instantaneous velocity in one step would give the constant MEAN, deviation 0.
    assert abs(made.mean().item() - MEAN) < 0.15
    assert 0.1 < made.std().item() < 0.6
    assert fitted.losses.shape == (500,)


def test_labels():
    network = MeanVelocityNetwork(1, width=16, depth=1, classes=2, generator=generator())

    def pairs(n, *, generator=None):
        labels = torch.randint(2, (n,), generator=generator)
        return torch.randn(n, 1, generator=generator), 4.0 * labels[:, None] - 2, labels

    fitted = mean_flow.fit(network, pairs, steps=300, ema=0.9, learning_rate=1e-2, generator=generator(1))
    labels = torch.tensor([0, 1]).repeat(100)
    made = mean_flow.sample(fitted.velocity, torch.randn(200, 1, generator=generator(2)), labels=labels)
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


@pytest.mark.parametrize(
    "options", ({"steps": 0}, {"ema": 1.0}, {"instantaneous": 2.0}, {"label_dropout": -1.0}, {"learning_rate": 0.0})
)
def test_bad_options(options):
    with pytest.raises(ValueError):
        mean_flow.fit(MeanVelocityNetwork(1), lambda n, *, generator=None: draw(n), **{"steps": 1, **options})
    with pytest.raises(ValueError, match="evaluations"):
        mean_flow.sample(MeanVelocityNetwork(1), torch.zeros(2, 1), evaluations=0)
