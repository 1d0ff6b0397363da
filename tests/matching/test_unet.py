"""The U-Nets: what they must do with sizes, times, labels and images, at weights that are not those of the start."""

import itertools
from functools import partial

import pytest
import torch
from instances import generator

from dynot_lite.matching.flow_matching import FlowMatching, guided, sample
from dynot_lite.matching.mean_flow import MeanFlow
from dynot_lite.matching.training import fit
from dynot_lite.matching.unet import MeanUNet, UNet

F64 = torch.float64


def awake(network):
    """With random numbers in place of the zeros of the start: in float64, where derivatives can be told from rounding."""
    gen = generator(7)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=gen)
    return network.double().eval()


def make(kind=UNet, channels=1, **options):
    return awake(kind(channels, **{"width": 4, "generator": generator()} | options))


def images(n=3, channels=1, height=8, width=8, seed=1):
    return torch.randn(n, channels, height, width, generator=generator(seed), dtype=F64)


@pytest.mark.parametrize("shape", [(8, 8), (7, 5), (1, 1), (13, 8)])
@pytest.mark.parametrize("options", [{}, {"levels": 1}, {"levels": 3, "patch": 2}, {"patch": 3, "attention": True}, {"width": 3}])
def test_images_of_any_size_one_by_one(shape, options):
    x, t = images(3, 2, *shape), torch.tensor([0.1, 0.5, 0.9], dtype=F64)
    for network, times in ((make(UNet, 2, **options), (t,)), (make(MeanUNet, 2, **options), (t / 2, t))):
        found = network(*times, x)
        assert found.shape == x.shape and found.std() > 1e-3
        alone = torch.cat([network(*(time[i] for time in times), x[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(found, alone)
        assert not network(*times, x).isnan().any()


def test_all_pixels_see_all_pixels_and_times():
    for network, times in ((make(levels=3), [0.5]), (make(attention=True), [0.5]), (make(MeanUNet, levels=3), [0.2, 0.5])):
        x = images(1).requires_grad_()
        corner = network(*times, x)[0, 0, 0, 0]
        assert (torch.autograd.grad(corner, x)[0] != 0).all()
        for k in range(len(times)):
            other = [time + 0.1 * (i == k) for i, time in enumerate(times)]
            assert (network(*other, x) - network(*times, x)).abs().max() > 1e-4
    x = images(1)
    mean = make(MeanUNet)
    assert (mean(0.2, 0.5, x) - mean(0.3, 0.6, x)).abs().max() > 1e-4


def test_a_multiple_of_the_image_is_there_from_the_start():
    """What flow matching of one Gaussian law asks for: v(t, x) = a(t) x; of each colour by itself, whatever the padding."""
    network, x = UNet(2, width=4, patch=2, generator=generator()), images(3, 2, 7, 5).float()
    with torch.no_grad():
        network.gain.bias.copy_(torch.tensor([2.0, -1.0]))
    torch.testing.assert_close(network(0.3, x), x * torch.tensor([2.0, -1.0])[:, None, None])
    with torch.no_grad():
        network.gain.weight.fill_(1.0)
    factors = network(torch.tensor([0.3, 0.3, 0.6]), torch.ones_like(x))[:, 0, 0, 0]
    assert factors[0] == factors[1] != factors[2]


def test_labels():
    network, x, labels = make(classes=4), images(5), torch.tensor([0, 1, 2, 3, 2])
    torch.testing.assert_close(network(0.25, x), network(0.25, x, torch.full((5,), -1)))
    torch.testing.assert_close(network(0.25, x), network(0.25, x, None))
    torch.testing.assert_close(guided(network, labels, scale=1.0)(0.25, x), network(0.25, x, labels))
    assert (network(0.25, x, labels) - network(0.25, x)).flatten(1).abs().amax(1).min() > 1e-4
    torch.testing.assert_close(network(0.25, x, labels.to(torch.uint8)), network(0.25, x, labels))
    for bad in (torch.tensor([0, 1, 2, 3, 4]), torch.full((5,), -2), torch.zeros(4, dtype=torch.int64), torch.zeros(5)):
        with pytest.raises(ValueError, match="labels must"):
            network(0.25, x, bad)


def test_an_image_as_condition():
    """Of any size; a blurred one of the size of x is what the small one becomes."""
    small, x, labels = images(3, 2, 4, 4, seed=2), images(3), torch.tensor([0, 1, -1])
    large = torch.nn.functional.interpolate(small, (8, 8), mode="bilinear")
    network = make(conditions=2)
    torch.testing.assert_close(network(0.5, x, small), network(0.5, x, large))
    assert (network(0.5, x, small) - network(0.5, x, small.flip(0)))[0].abs().max() > 1e-4
    assert network(0.5, x, images(3, 2, 20, 11)).shape == x.shape
    both = make(conditions=2, classes=2)
    torch.testing.assert_close(both(0.5, x, labels, small)[2:], both(0.5, x[2:], None, small[2:]))
    assert (both(0.5, x, labels, small) - both(0.5, x, labels.flip(0), small))[0].abs().max() > 1e-4


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        ({}, (torch.zeros(3, dtype=torch.int64),), "no conditions"),
        ({"classes": 2}, (None, images(3)), "the conditions labels, got 2"),
        ({"conditions": 1}, (), "an image, got 0"),
        ({"conditions": 1, "classes": 2}, (torch.tensor([0, 1, 1]),), "labels and an image, got 1"),
        ({"conditions": 1}, (images(2),), r"shape \(3, 1, h, w\)"),
        ({"conditions": 1}, (images(3, 2),), r"shape \(3, 1, h, w\)"),
        ({"conditions": 1}, (torch.zeros(3, 1, 8, 8, dtype=torch.uint8),), "real numbers"),
        ({"conditions": 1}, (None,), "image"),
    ],
)
def test_conditions_of_a_wrong_form_are_refused(options, given, message):
    for network, times in ((make(**options), (0.5,)), (make(MeanUNet, **options), (0.2, 0.5))):
        with pytest.raises(ValueError, match=message):
            network(*times, images(3), *given)


def test_options_and_points_of_a_wrong_form_are_refused():
    for name in ("width", "levels", "patch", "classes"):
        for value in (0, 1.5):
            with pytest.raises(ValueError, match=name):
                UNet(1, **{name: value})
    for options in ({"channels": 0}, {"channels": 1, "conditions": -1}):
        with pytest.raises(ValueError, match=list(options)[-1]):
            UNet(**options)
    for bad in (torch.zeros(5, 64), torch.zeros(5, 3, 8, 8), torch.zeros(8, 8), torch.zeros(5, 1, 0, 8)):
        with pytest.raises(ValueError, match=r"x must be images of shape \(n, 1, h, w\)"):
            make()(0.5, bad)
    with pytest.raises(ValueError, match="t must be a number or"):
        make()(torch.zeros(2), images(3))


def test_weights_come_from_the_generator_alone():
    state = torch.random.get_rng_state()
    first, again, other = (UNet(1, width=4, classes=2, attention=True, generator=generator(k)) for k in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    for one, same, another in zip(first.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, same) and (one.unique().numel() == 1 or not torch.equal(one, another))
    assert (first(0.5, images().float()) == 0).all()


def test_forward_and_backward_derivatives_agree():
    """Along a direction, also by differences: the normalisation has a formula of its own in forward mode."""
    for kind, times in ((UNet, (0.4,)), (MeanUNet, (0.2, 0.7))):
        network = make(kind, attention=True, width=8, classes=2, conditions=1)
        x, direction, rest = images(2), images(2, seed=3), (torch.tensor([0, -1]), images(2, seed=4))
        times = tuple(torch.full((2,), time, dtype=F64) for time in times)
        function = lambda *inputs, network=network, rest=rest: network(*inputs, *rest)
        along = tuple(torch.ones_like(time) for time in times), direction
        value, forward = torch.func.jvp(function, (*times, x), (*along[0], along[1]))
        torch.testing.assert_close(value, function(*times, x))
        step = 1e-6
        ends = [function(*(time + sign * step for time in times), x + sign * step * direction) for sign in (1, -1)]
        torch.testing.assert_close(forward, (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-6)
        inputs = [part.clone().requires_grad_() for part in (*times, x)]
        cotangent = images(2, seed=5)
        gradients = torch.autograd.grad(function(*inputs), inputs, cotangent)
        found = sum((one * another).sum() for one, another in zip(gradients, (*along[0], along[1]), strict=True))
        torch.testing.assert_close(found, (forward * cotangent).sum())


@pytest.mark.parametrize(("loss", "kind"), [(FlowMatching(), UNet), (MeanFlow(), MeanUNet)])
def test_it_learns_two_pictures(loss, kind):
    """A circle's inside or outside, by label: what comes out is the picture of its label."""
    grid = torch.linspace(-1, 1, 8)
    disc = torch.where(grid[:, None] ** 2 + grid**2 < 0.6, 1.0, -1.0)
    pictures = torch.stack([disc, -disc])[:, None]

    def pairs(n, *, generator=None):
        labels = torch.randint(2, (n,), generator=generator)
        return torch.randn(n, 1, 8, 8, generator=generator), pictures[labels], labels

    gen = generator()
    network = kind(1, width=8, levels=1, patch=2, classes=2, generator=gen)
    result = fit(network, loss, pairs, steps=100, batch=16, learning_rate=5e-3, ema=0.9, clip=50.0, generator=gen)
    assert result.losses[-20:].median() < 0.5 * result.losses[:5].mean()
    x0, labels = torch.randn(20, 1, 8, 8, generator=gen), torch.arange(20) % 2
    if kind is UNet:
        found = sample(lambda t, x: result.network(t, x, labels), x0, steps=8)
    else:
        found = x0 + result.network(0.0, 1.0, x0, labels)
    right = (found - pictures[labels]).square().mean((1, 2, 3))
    wrong = (found - pictures[1 - labels]).square().mean((1, 2, 3))
    assert right.mean() < wrong.mean() / 4 and (right < wrong).all()


# In training.fit


def pairs(n, *, generator=None):
    """Noise, pictures of one colour, their labels, and what they look like from far."""
    labels = torch.randint(2, (n,), generator=generator)
    x1 = (2.0 * labels - 1).view(n, 1, 1, 1).expand(n, 1, 6, 6)
    return torch.randn(n, 1, 6, 6, generator=generator), x1, labels, x1[..., ::3, ::3]


def network(kind, **options):
    return kind(1, **{"width": 4, "levels": 1, "classes": 2, "conditions": 1, "generator": generator()} | options)


BOTH = pytest.mark.parametrize(("loss", "kind"), [(FlowMatching(), UNet), (MeanFlow(), MeanUNet)])


@BOTH
def test_mixed_precision(loss, kind):
    """Convolutions compute in bfloat16; parameters and average stay in float32; the loss is the same to its precision."""
    options, kinds = dict(steps=5, batch=16), set()
    exact = fit(network(kind), loss, pairs, generator=generator(1), **options)
    mixed = network(kind)
    for module in mixed.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda module, inputs, output: kinds.add(output.dtype))
    result = fit(mixed, loss, pairs, precision=torch.bfloat16, generator=generator(1), **options)
    assert kinds == {torch.bfloat16}
    assert {p.dtype for p in (*mixed.parameters(), *result.network.parameters())} == {torch.float32}
    assert not torch.equal(result.losses, exact.losses)
    torch.testing.assert_close(result.losses, exact.losses, rtol=0.05, atol=0.05)


@BOTH
def test_compiled_training_is_the_same_training(monkeypatch, loss, kind):
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    options = dict(steps=3, batch=4)
    plain = fit(network(kind), loss, pairs, generator=generator(1), **options)
    compiled = fit(network(kind), loss, pairs, compile=True, generator=generator(1), **options)
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0
    torch.testing.assert_close(compiled.losses, plain.losses, rtol=1e-4, atol=1e-4)


def test_the_network_is_one_graph():
    """Without labels, whose values are looked at (on a GPU they are not)."""
    torch.compiler.reset()
    for kind, times in ((UNet, (0.4,)), (MeanUNet, (0.2, 0.7))):
        network, x = make(kind, conditions=1, attention=True), images(2)
        times = tuple(torch.full((2,), time, dtype=F64) for time in times)
        whole = torch.compile(network, fullgraph=True, backend="eager")
        torch.testing.assert_close(whole(*times, x, x), network(*times, x, x))


class Killed(Exception):
    pass


@BOTH
@pytest.mark.parametrize("precision", (None, torch.bfloat16))
def test_a_killed_run_ends_with_the_same_bits(tmp_path, loss, kind, precision):
    options = dict(steps=8, batch=4, learning_rate=0.01, clip=10.0, ema=0.9, precision=precision)

    def killed(n, *, generator=None, count=itertools.count()):
        if next(count) == 5:
            raise Killed
        return pairs(n, generator=generator)

    whole = fit(network(kind), loss, pairs, generator=generator(5), **options)
    with pytest.raises(Killed):
        fit(network(kind), loss, killed, generator=generator(5), checkpoint=tmp_path / "run", **options)
    again = fit(network(kind), loss, pairs, generator=generator(6), checkpoint=tmp_path / "run", **options)
    assert torch.equal(whole.losses, again.losses)
    for one, another in zip(whole.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(one, another)
    for other in (network(kind, width=5), network(kind, patch=2)):
        with pytest.raises(ValueError, match=f"another run: network '{kind.__name__} of .* there and"):
            fit(other, loss, pairs, generator=generator(), checkpoint=tmp_path / "run", **options)
