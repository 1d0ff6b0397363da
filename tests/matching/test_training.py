"""The one training loop, against what a recording network and a recording sampler see of it."""

import itertools
import math
from functools import partial

import pytest
import torch
from instances import generator
from torch import nn

from dynot_lite._base import checkpoints
from dynot_lite.matching import training
from dynot_lite.matching.flow_matching import FlowMatching, sample
from dynot_lite.matching.mean_flow import MeanFlow
from dynot_lite.matching.networks import MeanVelocityNetwork, VelocityNetwork
from dynot_lite.matching.training import cosine, fit

F64 = torch.float64
LOSSES = {"flow matching": (FlowMatching(), VelocityNetwork), "mean flow": (MeanFlow(), MeanVelocityNetwork)}


def normal(n, *, generator=None):
    return torch.randn(n, 2, generator=generator), torch.randn(n, 2, generator=generator)


def labelled(n, *, generator=None):
    return *normal(n, generator=generator), torch.randint(3, (n,), generator=generator)


def line(n, *, generator=None):
    """Rows (input, target) of the function 3 z − 1."""
    z = torch.rand(n, 1, generator=generator)
    return z, 3 * z - 1


def regression(network, inputs, targets, *, generator=None):
    return (network(inputs) - targets).square().mean()


def affine():
    return nn.Linear(1, 1).requires_grad_(True)


def small(name, **options):
    loss, kind = LOSSES[name]
    return loss, kind(2, width=8, depth=2, generator=generator(), **options)


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))


# What it learns


def test_it_learns_a_translation():
    """X1 = X0 + c: the minimum of the loss is zero, at v = c."""
    shift = torch.tensor([1.0, -2.0])

    def pairs(n, *, generator=None):
        x0 = torch.randn(n, 2, generator=generator)
        return x0, x0 + shift

    gen = generator()
    network = VelocityNetwork(2, width=16, depth=2, generator=gen)
    result = fit(network, FlowMatching(), pairs, steps=800, batch=64, learning_rate=3e-3, ema=0.99, generator=gen)
    assert result.losses[-1] < 1e-3 < 1 < result.losses[0]
    x = torch.randn(50, 2, generator=gen)
    assert (sample(result.network, x, steps=1) - x - shift).norm(dim=1).mean() < 0.05
    assert not result.network.training and not any(p.requires_grad for p in result.network.parameters())
    assert not network.training and all(p.requires_grad and p.grad is None for p in network.parameters())


def test_any_loss_on_any_rows():
    """Regression on (inputs, targets), in a program that has switched gradients off."""
    with torch.no_grad():
        result = fit(affine(), regression, line, steps=600, batch=32, learning_rate=0.05, ema=0.9, generator=generator())
    assert result.network.weight.item() == pytest.approx(3, abs=1e-2) and result.network.bias.item() == pytest.approx(
        -1, abs=1e-2
    )
    assert result.steps == len(result.losses) == 600 and result.seconds > 0


class Painter(nn.Module):
    """A velocity, or average velocity, of images: one convolution."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(2, 2, 3, padding=1)
        self.shapes = set()

    def forward(self, *arguments):
        *_, t, x = arguments
        self.shapes.add(tuple(x.shape))
        return self.layer(x) + t.reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("name", LOSSES)
def test_images_stay_images(name):
    def pairs(n, *, generator=None):
        return torch.randn(n, 2, 5, 4, generator=generator), torch.ones(n, 2, 5, 4)

    network = Painter()
    result = fit(network, LOSSES[name][0], pairs, steps=3, batch=6, generator=generator())
    assert network.shapes == {(6, 2, 5, 4)} and result.losses.shape == (3,)
    # Squared norms, not means over pixels.
    assert result.losses[0] > 40


@pytest.mark.parametrize("name", LOSSES)
def test_several_conditions_travel_with_their_pairs(name):
    """A label in bytes, attributes, and a continuous condition: only integers are dropped, all of a pair at once."""
    seen = []

    class Conditioned(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, *arguments):
            *_, x, label, attributes, depth = arguments
            seen.append((label, attributes, depth))
            return self.weight * x

    def pairs(n, *, generator=None):
        number = torch.arange(n)
        return (
            *normal(n, generator=generator),
            number.to(torch.uint8),
            torch.stack([number, 2 * number], 1),
            number[:, None] / 7,
        )

    fit(Conditioned(), LOSSES[name][0], pairs, steps=20, batch=50, generator=generator(1))
    dropped = 0
    for label, attributes, depth in seen:
        torch.testing.assert_close(depth, torch.arange(50)[:, None] / 7)
        none = label == -1
        assert torch.equal(label[~none], torch.arange(50)[~none])
        assert torch.equal(attributes[~none, 1], 2 * label[~none]) and (attributes[none] == -1).all()
        dropped += none.sum().item()
    assert 50 < dropped < 150  # a tenth of a thousand


# The average


@pytest.mark.parametrize("decay", (0.0, 0.5, 0.97))
def test_average_is_the_weighted_mean_of_the_iterates(decay):
    """Iterate i has the weight γ_i Π_{j>i} (1 − γ_j): γ = 1 up to step 10, then 10/k, then 1 − ema."""
    network = VelocityNetwork(1, width=4, depth=1, generator=generator())
    iterates = []

    def pairs(n, *, generator=None):
        iterates.append([p.detach().clone() for p in network.parameters()])
        return torch.randn(n, 1, generator=generator), torch.randn(n, 1, generator=generator)

    options = dict(steps=400, batch=8, ema=decay, learning_rate=0.1, generator=generator(1))
    average = fit(network, FlowMatching(), pairs, **options).network
    # The pairs are drawn before each step, once more at the start: what comes after the start are the iterates 1 to 399.
    iterates = [*iterates[2:], list(network.parameters())]
    share = [1.0 if k <= 10 or decay == 0 else max(10 / k, 1 - decay) for k in range(1, 401)]
    weights = torch.tensor([share[i] * math.prod(1 - g for g in share[i + 1 :]) for i in range(400)])
    assert weights.sum().item() == pytest.approx(1, abs=1e-6)
    for k, mean in enumerate(average.parameters()):
        stack = torch.stack([iterate[k] for iterate in iterates])
        torch.testing.assert_close(mean, torch.tensordot(weights, stack, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_short_run_forgets_its_first_half(name):
    """One step in the middle, none before and after: the average is W a + (1 − W) b, with W = Π_{k>500} (1 − 10/k), 0.09 %."""
    loss, network = small(name)
    before = [p.detach().double() for p in network.parameters()]
    pairs = lambda n, *, generator=None: tuple(part.double() for part in normal(n, generator=generator))
    schedule = lambda done: float(done == 0.5)
    result = fit(network, loss, pairs, steps=1000, batch=4, learning_rate=1.0, schedule=schedule, generator=generator())
    expected = math.prod(1 - 10 / k for k in range(501, 1001))
    assert expected == pytest.approx(0.0009, abs=1e-4)
    for a, b, mean in zip(before, network.parameters(), result.network.parameters(), strict=True):
        assert (b - a).abs().max() > 0.05
        torch.testing.assert_close(mean, expected * a + (1 - expected) * b.detach(), rtol=0, atol=1e-9)


def test_buffers_are_the_last_ones():
    network = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1))
    result = fit(network, regression, line, steps=30, batch=16, generator=generator())
    assert torch.equal(result.network[0].running_mean, network[0].running_mean)
    assert result.network[0].num_batches_tracked == 30 and network[0].running_mean.abs().item() > 0.1


# Options


def test_schedule_sets_the_rate_of_each_step():
    """The first steps of Adam have the length of the rate."""
    network, seen, places = affine(), [], []

    def schedule(done):
        seen.append(done)
        return 1 + 10 * done

    def pairs(n, *, generator=None):
        places.append(network.weight.item())
        return torch.ones(n, 1), torch.full((n, 1), 1e4)  # far away: the gradient hardly changes

    fit(network, regression, pairs, steps=5, batch=4, learning_rate=0.01, schedule=schedule, generator=generator())
    assert seen == [0.0, 0.2, 0.4, 0.6, 0.8]
    places = [*places[1:], network.weight.item()]
    moves = [b - a for a, b in itertools.pairwise(places)]
    assert moves == pytest.approx([0.01 * (1 + 10 * done) for done in seen], rel=1e-3)


def test_cosine():
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    peer, rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 40), []
    for _ in range(40):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step(), peer.step()
    assert rates == pytest.approx([cosine()(k / 40) for k in range(40)])
    rise = cosine(warm_up=0.25)
    assert [rise(done) for done in (0.0, 0.125, 0.25, 1.0)] == pytest.approx([0, 0.5, 1, 0])
    with pytest.raises(ValueError, match="warm_up"):
        cosine(warm_up=1.0)


def test_clip_bounds_the_gradient():
    """Of all parameters together, in the direction it had; a gradient below the bound stays."""
    found = {}
    for clip in (None, 0.5, 1e9):
        network, norms = affine(), []
        with torch.no_grad():
            network.weight.fill_(1.0), network.bias.fill_(0.0)
        hooked = torch.optim.Adam.step

        def step(self, *arguments, norms=norms, hooked=hooked, **options):
            norms.append(torch.cat([p.grad.flatten() for p in self.param_groups[0]["params"]]))
            return hooked(self, *arguments, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.optim.Adam, "step", step)
            fit(network, regression, lambda n, generator=None: (torch.ones(n, 1), torch.full((n, 1), 9.0)), steps=1, clip=clip)
        found[clip] = norms[0]
    assert found[None].norm() > 10 and torch.equal(found[None], found[1e9])
    torch.testing.assert_close(found[0.5], 0.5 * found[None] / found[None].norm(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_mixed_precision(name):
    """Layers compute in bfloat16; parameters, average and data stay in float32; the loss is the same to its precision."""
    loss, network = small(name, classes=3)
    kinds = set()
    for module in network.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda module, inputs, output: kinds.add(output.dtype))
    exact = fit(small(name, classes=3)[1], loss, labelled, steps=20, batch=16, generator=generator(1))
    mixed = fit(network, loss, labelled, steps=20, batch=16, precision=torch.bfloat16, generator=generator(1))
    assert kinds == {torch.bfloat16}
    assert {p.dtype for p in (*network.parameters(), *mixed.network.parameters())} == {torch.float32}
    assert not torch.equal(mixed.losses, exact.losses)
    torch.testing.assert_close(mixed.losses.float(), exact.losses, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", LOSSES)
def test_compiled_training_is_the_same_training(monkeypatch, name):
    """Traced, but not turned into C++, which takes a minute."""
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    loss, network = small(name)
    plain = fit(small(name)[1], loss, normal, steps=20, batch=8, generator=generator(1))
    assert torch._dynamo.utils.counters["frames"]["ok"] == 0
    compiled = fit(network, loss, normal, steps=20, batch=8, compile=True, generator=generator(1))
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0
    torch.testing.assert_close(compiled.losses, plain.losses, rtol=1e-4, atol=1e-5)
    assert type(compiled.network) is type(network)
    for found, expected in zip(compiled.network.parameters(), plain.network.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_dtype_follows_the_pairs():
    def pairs(n, *, generator=None):
        return tuple(torch.randn(2, n, 1, generator=generator, dtype=F64))

    network = VelocityNetwork(1, width=4, generator=generator())
    result = fit(network, FlowMatching(), pairs, steps=2, batch=4, generator=generator())
    assert result.losses.dtype == F64 and result.network(0.5, torch.zeros(1, 1, dtype=F64)).dtype == F64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("home", ("cpu", "cuda"))
@pytest.mark.parametrize("options", ({}, {"precision": torch.bfloat16, "clip": 1.0}))
def test_device_follows_the_pairs(tmp_path, home, options):
    def pairs(n, *, generator=None):
        return tuple(part.cuda() for part in (*torch.randn(2, n, 2, generator=generator, device=home), torch.arange(n) % 3))

    loss, network = small("flow matching", classes=3)
    options |= dict(steps=150, batch=32, checkpoint=tmp_path / "run", generator=torch.Generator(home).manual_seed(0))
    result = fit(network, loss, pairs, **options)
    assert result.losses.is_cuda and torch.isfinite(result.losses).all() and next(result.network.parameters()).is_cuda
    again = fit(small("flow matching", classes=3)[1], loss, pairs, **options)
    assert torch.equal(again.losses, result.losses) and same(again.network, result.network)


def test_randomness_comes_from_the_generator_alone():
    def run(seed):
        gen = generator(seed)
        network = VelocityNetwork(2, width=8, classes=3, generator=gen)
        return fit(network, FlowMatching(), labelled, steps=5, batch=6, generator=gen)

    state = torch.random.get_rng_state()
    first, again, other = run(0), run(0), run(1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.losses, again.losses) and not torch.equal(first.losses, other.losses)
    assert same(first.network, again.network)


# Budgets, callbacks and checkpoints


class Killed(Exception):
    pass


def killed(pairs, calls):
    count = itertools.count()

    def draw(n, *, generator=None):
        if next(count) == calls:
            raise Killed
        return pairs(n, generator=generator)

    return draw


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("precision", (None, torch.bfloat16))
def test_a_killed_run_ends_with_the_same_bits(tmp_path, name, precision):
    """Killed twice, after one step and after a block of the losses: weights, average, losses and generator agree."""
    loss, _ = LOSSES[name]
    options = dict(steps=160, batch=8, learning_rate=0.01, schedule=cosine(warm_up=0.1), clip=1.0, precision=precision)

    def run(pairs, checkpoint, gen):
        network = small(name, classes=3)[1]
        return fit(network, loss, pairs, checkpoint=checkpoint, generator=gen, **options), network

    one = generator(5)
    whole, network = run(labelled, None, one)
    for calls in (9, 120):
        with pytest.raises(Killed):
            run(killed(labelled, calls), tmp_path / "run", generator(5))
    two = generator(99)  # its state comes from the checkpoint
    resumed, again = run(killed(labelled, 160), tmp_path / "run", two)
    assert torch.equal(whole.losses, resumed.losses) and resumed.steps == 160
    assert same(whole.network, resumed.network) and same(network, again) and not same(network, whole.network)
    assert torch.equal(one.get_state(), two.get_state())
    # A finished run is not run again: only the batch that is looked at is drawn.
    finished, _ = run(killed(labelled, 1), tmp_path / "run", generator())
    assert torch.equal(finished.losses, whole.losses) and same(finished.network, whole.network)
    assert finished.seconds >= checkpoints.read(tmp_path / "run")["seconds"] > 0
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_without_a_generator_a_run_is_resumed_too(tmp_path):
    for calls in (30, 60):
        with pytest.raises(Killed):
            fit(small("flow matching")[1], FlowMatching(), killed(normal, calls), steps=100, batch=4, checkpoint=tmp_path / "run")
    result = fit(small("flow matching")[1], FlowMatching(), normal, steps=100, batch=4, checkpoint=tmp_path / "run")
    assert result.steps == 100 and len(result.losses.unique()) == 100


def test_checkpoints_of_other_runs_and_damaged_ones_are_refused(tmp_path):
    path = tmp_path / "run"

    def run(loss=None, network=None, pairs=normal, **options):
        network = network or small("flow matching")[1]
        options = {"steps": 50, "batch": 4, "checkpoint": path} | options
        return fit(network, loss or FlowMatching(), pairs, generator=generator(), **options)

    run()
    for options, name in (
        ({"steps": 60}, "steps 50 there and 60 here"),
        ({"batch": 5}, "pairs"),
        ({"learning_rate": 0.1}, "learning_rate"),
        ({"ema": 0.5}, "ema"),
        ({"clip": 1.0}, "clip"),
        ({"schedule": cosine()}, "schedule"),
        ({"precision": torch.bfloat16}, "precision"),
        ({"pairs": labelled, "network": small("flow matching", classes=3)[1]}, "network.*pairs"),
        ({"network": VelocityNetwork(2, width=9)}, "network"),
        ({"network": MeanVelocityNetwork(2), "loss": MeanFlow()}, "loss.*network"),
    ):
        with pytest.raises(ValueError, match=f"another run: .*{name}"):
            run(**options)
    state = checkpoints.read(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        run()
    for damage in ({"average": {}}, {"generator": torch.zeros(3)}, {"losses": None}, {"optimiser": {"state": {}}}):
        checkpoints.save(state | damage, path)
        with pytest.raises(ValueError, match="damaged"):
            run()
    state.pop("network")
    checkpoints.save(state, path)
    with pytest.raises(ValueError, match="damaged"):
        run()
    path.unlink()
    assert run().steps == 50


def test_callback_sees_copies_of_the_training_at_even_moments(tmp_path):
    seen, path = [], tmp_path / "run"

    def callback(so_far):
        assert len(checkpoints.read(path)["losses"]) == so_far.steps  # what it sees is safe already
        seen.append(so_far)

    loss, network = small("flow matching")
    options = dict(batch=4, checkpoint=path, callback=callback, generator=generator())
    result = fit(network, loss, normal, steps=500, **options)
    assert [so_far.steps for so_far in seen] == list(range(20, 501, 20))
    assert same(seen[-1].network, result.network) and not same(seen[0].network, result.network)
    assert all(not so_far.network.training for so_far in seen)
    assert all(torch.equal(so_far.losses, result.losses[: so_far.steps]) for so_far in seen)
    assert [so_far.seconds for so_far in seen] == sorted(so_far.seconds for so_far in seen)
    seen.clear()
    path.unlink()
    fit(network, loss, normal, steps=3, **options)
    assert [so_far.steps for so_far in seen] == [1, 2, 3]


@pytest.fixture
def clock(monkeypatch):
    """Time passes with the drawing of pairs only, a second per batch."""
    now = [0.0]
    monkeypatch.setattr(training.time, "perf_counter", lambda: now[0])

    def pairs(n, *, generator=None):
        now[0] += 1.0
        return line(n, generator=generator)

    return pairs


def test_seconds_are_wall_time_and_what_is_spent_first_ends_the_run(clock, tmp_path):
    run = lambda pairs, **options: fit(affine(), regression, pairs, batch=4, generator=generator(), **options)
    assert run(clock, seconds=7.0).steps == 7
    assert run(clock, seconds=7.0, steps=3).steps == 3
    assert run(clock, seconds=3.0, steps=7).seconds == 3.0
    shares = []
    run(clock, seconds=4.0, steps=100, schedule=lambda done: shares.append(done) or 1.0)
    assert shares == [0.0, 0.25, 0.5, 0.75]
    with pytest.raises(Killed):
        run(killed(clock, 6), seconds=10.0, checkpoint=tmp_path / "run")
    resumed = run(clock, seconds=10.0, checkpoint=tmp_path / "run")
    assert resumed.steps == 10 and resumed.seconds == 10.0


# Bad input


def stuck(*parts):
    return lambda n, *, generator=None: parts


NET = VelocityNetwork(1, width=2, depth=1)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (stuck(torch.zeros(4, 1), torch.zeros(4, 2)), "one shape"),
        (stuck(torch.zeros(3, 1), torch.zeros(3, 1)), "x0 with 4 rows"),
        (stuck(torch.zeros(4), torch.zeros(4)), "one shape"),
        (stuck(torch.zeros(4, 1), torch.zeros(4, 1), torch.zeros(3)), "condition 1 with 4 rows"),
        (stuck(torch.zeros(4, 1), torch.zeros(4, 0)), "x1 with 4 rows"),
        (stuck(torch.zeros(4, 1), torch.tensor(1.0)), "x1 with 4 rows"),
        (stuck(), "must return a tuple of tensors"),
        (lambda n, *, generator=None: torch.zeros(4, 1), "must return a tuple of tensors"),
        (stuck([0.0], [1.0]), "must return a tuple of tensors"),
        (stuck(torch.zeros(4, 1), torch.full((4, 1), math.nan)), "x1 of pairs must be finite"),
        (stuck(torch.zeros(4, 1), torch.zeros(4, 1, dtype=F64)), "one dtype"),
        (stuck(torch.zeros(4, 1), torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64)), "network with classes"),
    ],
)
def test_pairs_of_a_wrong_form_are_refused(pairs, message):
    for loss, network in ((FlowMatching(), NET), (MeanFlow(), MeanVelocityNetwork(1, width=2, depth=1))):
        with pytest.raises(ValueError, match=message):
            fit(network, loss, pairs, steps=2, batch=4)


GOOD = torch.zeros(4, 2), torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize("call", (2, 140))
@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((GOOD[0], torch.zeros(4, 1), GOOD[2]), r"x1 of one kind on every call, got shape \(4, 2\).* first and shape \(4, 1\)"),
        ((torch.zeros(5, 2), torch.zeros(5, 2), GOOD[2]), "x0 of one kind"),
        ((GOOD[0], GOOD[1].double(), GOOD[2]), "x1 of one kind.*float64"),
        ((GOOD[0], GOOD[1], GOOD[2][:1]), "condition 1 of one kind"),
        (GOOD[:2], "as many tensors on every call, got 3 first and 2 now"),
        (GOOD[0], "must return a tuple of tensors"),
    ],
)
@pytest.mark.parametrize("name", LOSSES)
def test_a_later_batch_of_another_kind_is_refused(name, call, batch, message):
    """Most of these would broadcast, to a finite loss of another problem."""
    calls = itertools.count(1)
    pairs = lambda n, *, generator=None: batch if next(calls) == call else GOOD
    loss, network = small(name, classes=2)
    with pytest.raises(ValueError, match=message):
        fit(network, loss, pairs, steps=200, batch=4)
    assert next(calls) == call + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": None}, "steps or seconds must be given"),
        ({"seconds": 0.0}, "seconds"),
        ({"seconds": math.nan}, "seconds"),
        ({"batch": 0}, "batch"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"clip": 0.0}, "clip"),
        ({"ema": 1.0}, "ema"),
        ({"ema": math.nan}, "ema"),
        ({"ema": -0.1}, "ema"),
        ({"precision": torch.float64}, "precision"),
        ({"schedule": lambda done: -1.0}, "schedule must return"),
        ({"schedule": lambda done: math.nan}, "schedule must return"),
    ],
)
def test_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fit(affine(), regression, line, **{"steps": 2, "batch": 4} | options)


def test_losses_and_networks_are_refused():
    for loss in (
        lambda network, x, y, generator=None: network(x) - y,
        lambda network, x, y, generator=None: 1.0,
        lambda network, x, y, generator=None: (network(x) - y).detach().mean(),
    ):
        with pytest.raises(ValueError, match="loss must return a scalar tensor"):
            fit(affine(), loss, line, steps=2)
    for network in (nn.Identity(), affine().requires_grad_(False)):
        with pytest.raises(ValueError, match="network must have parameters"):
            fit(network, regression, line, steps=2)


@pytest.mark.parametrize("bad", (3, 140, 200))
def test_a_loss_that_is_not_finite_is_reported_and_never_saved(bad, tmp_path):
    calls = itertools.count()

    def pairs(n, *, generator=None):
        return torch.zeros(n, 1), torch.full((n, 1), math.inf if next(calls) >= bad else 1.0)

    network = VelocityNetwork(1, width=2, depth=1)
    with pytest.raises(RuntimeError, match="loss is not finite"):
        fit(network, FlowMatching(), pairs, steps=200, batch=4, checkpoint=tmp_path / "run")
    if bad > 8:
        state = checkpoints.read(tmp_path / "run")
        assert torch.isfinite(state["losses"]).all() and all(torch.isfinite(p).all() for p in state["network"].values())
