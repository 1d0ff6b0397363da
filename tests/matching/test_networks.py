"""The perceptrons, against plain layers."""

import pytest
import torch
from instances import generator
from torch import nn

from dynot_lite.matching.flow_matching import guided
from dynot_lite.matching.networks import MeanVelocityNetwork, VelocityNetwork


def test_network_times_and_labels():
    gen = generator()
    network, x = VelocityNetwork(3, classes=4, generator=gen), torch.randn(5, 3, generator=gen)
    labels = torch.tensor([0, 1, 2, 3, 2])
    torch.testing.assert_close(network(0.25, x, labels), network(torch.full((5,), 0.25), x, labels))
    torch.testing.assert_close(network(0.25, x), network(0.25, x, torch.full((5,), -1)))
    torch.testing.assert_close(guided(network, labels.tolist(), scale=1.0)(0.25, x), network(0.25, x, labels))
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


@pytest.mark.parametrize("dtype", (torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64))
def test_labels_of_any_integer_type(dtype):
    labels, x = torch.tensor([0, 1, 2]), torch.randn(3, 2, generator=generator())
    for network in (
        VelocityNetwork(2, classes=3, generator=generator()),
        MeanVelocityNetwork(2, classes=3, generator=generator()),
    ):
        times = (0.25,) if isinstance(network, VelocityNetwork) else (0.25, 0.5)
        assert torch.equal(network(*times, x, labels.to(dtype)), network(*times, x, labels))
        with pytest.raises(ValueError, match=r"labels must lie in -1..2, got 0 to 3"):
            network(*times, x, torch.tensor([0, 3, 0]).to(dtype))


def test_average_velocity_sees_both_times():
    network, x = MeanVelocityNetwork(2, generator=generator()), torch.randn(3, 2, generator=generator(1))
    columns = torch.tensor([0.3, 0.3, 0.3])
    torch.testing.assert_close(network(0.2, 0.5, x), network.field(0.2, torch.cat([columns[:, None], x], 1))[:, 1:])
    assert (network(0.2, 0.5, x) - network(0.2, 0.6, x)).abs().max() > 1e-3
    assert (network(0.2, 0.5, x) - network(0.3, 0.6, x)).abs().max() > 1e-3
