"""Velocities, networks, pair samplers and options that are not what they should be, over all functions of ``matching``."""

import inspect
import warnings

import numpy as np
import pytest
import torch
from bad_values import FUNCTIONS, RETURNED, Buffered, Turning, careless, extreme, options
from calls_matching import CALLS, LABELS, X0, X1, R, T, average, field, network, pairs, source
from instances import generator
from torch import nn

from dynot_lite.matching import flow_matching, mean_flow, networks, training

# Every function that takes a velocity or a network: name -> (the parameter, a good one, a use).
TAKERS = {
    "flow_matching.loss": ("velocity", field, lambda v: flow_matching.loss(v, X0, X1, T)),
    "FlowMatching": ("velocity", field, lambda v: flow_matching.FlowMatching()(v, X0, X1, generator=generator())),
    "flow_matching.sample": ("velocity", field, lambda v: flow_matching.sample(v, X0, steps=2)),
    "guided": (
        "network|velocity",
        field,
        lambda v: flow_matching.sample(flow_matching.guided(v, LABELS, scale=2.0), X0, steps=1),
    ),
    "reflow": (
        "velocity",
        field,
        lambda v: flow_matching.reflow(v, source, 5, steps=2, generator=generator())(6, generator=generator())[1],
    ),
    "mean_flow.loss": ("network", average, lambda v: mean_flow.loss(v, X0, X1, R, T)),
    "MeanFlow": ("network", average, lambda v: mean_flow.MeanFlow()(v, X0, X1, generator=generator())),
    "mean_flow.sample": ("network", average, lambda v: mean_flow.sample(v, X0, steps=3)),
}
TRAINING = ("FlowMatching", "MeanFlow")  # values are looked at by the loop
ONCE = ("flow_matching.loss", "mean_flow.loss", *TRAINING)
SHAPES = {name: change for name, change in RETURNED.items() if name not in ("NaN", "infinity", "integers")}


def trained(loss):
    """Values of the losses of four steps, by the loop."""
    rows = lambda n, generator=None: pairs(n, generator)[:2]
    return training.fit(network(), lambda net, *rows, generator: loss(net, *rows), rows, steps=4, batch=4, generator=generator())


@pytest.mark.parametrize("at", (1, 2))
@pytest.mark.parametrize("returned", SHAPES)
@pytest.mark.parametrize("taker", TAKERS)
def test_what_a_velocity_returns_is_checked_on_every_call(taker, returned, at):
    name, good, use = TAKERS[taker]
    if (at > 1 and taker in ONCE) or (returned == "an array" and taker in ("mean_flow.loss", "MeanFlow")):
        return  # it is called once; forward mode does not go through NumPy
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((ValueError, TypeError), match=name):
            use(Turning(good, SHAPES[returned], at))


@pytest.mark.parametrize("at", (1, 2))
@pytest.mark.parametrize("returned", ("NaN", "infinity"))
@pytest.mark.parametrize("taker", TAKERS)
def test_values_that_are_not_finite_end_in_an_error(taker, returned, at):
    name, good, use = TAKERS[taker]
    change = RETURNED[returned]
    if taker in TRAINING:
        spoilt = Turning(lambda net, x0, x1: flow_matching.FlowMatching()(net, x0, x1), lambda value: value * torch.nan, at)
        with pytest.raises(RuntimeError, match="the loss is not finite before step"):
            trained(spoilt)
    elif at == 1 or taker not in ONCE:
        with pytest.raises(ValueError, match=name):
            use(Turning(good, change, at))


@pytest.mark.parametrize("taker", TAKERS)
def test_a_velocity_may_have_another_precision(taker):
    _, good, use = TAKERS[taker]
    torch.testing.assert_close(
        use(lambda *arguments: good(*arguments).float()), use(good), rtol=1e-6, atol=1e-6, check_dtype=False
    )


@pytest.mark.parametrize("change", (careless, Buffered), ids=("changes its input", "returns one buffer"))
@pytest.mark.parametrize("taker", TAKERS)
def test_careless_velocities_change_nothing(taker, change):
    _, good, use = TAKERS[taker]
    if change is Buffered and "ean" in taker and taker != "mean_flow.sample":
        pytest.skip("forward mode does not go through a buffer")
    expected, given = use(good), [x.clone() for x in (X0, X1, LABELS)]
    assert torch.equal(use(change(good)), expected)
    assert all(map(torch.equal, (X0, X1, LABELS), given))


@pytest.mark.parametrize("value", (*FUNCTIONS, None), ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("taker", TAKERS)
def test_what_is_no_velocity_is_refused_by_name(taker, value):
    name, _, use = TAKERS[taker]
    with pytest.raises((ValueError, TypeError), match=name):
        use(value)


# --- pair samplers -----------------------------------------------------------------------------------------------------------

# Of (x0, x1, labels) one part is another; ``None`` for the whole.
PAIRS = {
    **{f"x0: {name}": (0, change) for name, change in RETURNED.items()},
    **{f"x1: {name}": (1, change) for name, change in RETURNED.items()},
    "labels: a row less": (2, lambda x: x[1:]),
    "labels: NaN": (2, lambda x: torch.full_like(x, torch.nan, dtype=torch.float64)),
    "labels: numbers": (2, lambda x: x.double() + 0.5),
    "labels: too large": (2, lambda x: x + 3),
    "labels: none": (2, None),
    "x0 of another precision": (0, lambda x: x.float()),
    "x1 of another precision": (1, lambda x: x.float()),
}


@pytest.mark.parametrize("at", (1, 3))
@pytest.mark.parametrize("bad", PAIRS)
@pytest.mark.parametrize("loss", (flow_matching.FlowMatching(), mean_flow.MeanFlow()), ids=("flow matching", "mean flow"))
def test_what_a_pair_sampler_returns_is_checked_on_every_call(loss, bad, at):
    place, change = PAIRS[bad]
    calls = []

    def other(n, *, generator=None):
        found = list(pairs(n, generator))
        calls.append(n)
        if len(calls) >= at:
            found[place : place + 1] = [] if change is None else [change(found[place])]
        return tuple(found)

    if bad == "labels: none" and at == 1:
        return  # pairs without labels are pairs
    kind = networks.MeanVelocityNetwork if isinstance(loss, mean_flow.MeanFlow) else networks.VelocityNetwork
    late = "NaN" in bad or "infinity" in bad
    with pytest.raises((ValueError, RuntimeError) if late else ValueError, match="pairs|labels must"):
        training.fit(network(kind), loss, other, steps=6, batch=4, generator=generator())


@pytest.mark.parametrize("whole", (None, 3, [], (), X0, [X0.tolist(), X1.tolist()]), ids=lambda value: f"{type(value).__name__}")
def test_a_pair_sampler_returns_a_tuple_of_tensors(whole):
    with pytest.raises(ValueError, match="pairs must return"):
        training.fit(network(), flow_matching.FlowMatching(), lambda n, generator=None: whole, steps=2, batch=3)


# --- networks ----------------------------------------------------------------------------------------------------------------

NETWORKS = {networks.VelocityNetwork: (0.25,), networks.MeanVelocityNetwork: (0.25, 0.5)}
MAKES = {
    "float64": lambda x: x,
    "integers": lambda x: x.long(),
    "a list": lambda x: x.tolist(),
    "an array": lambda x: x.numpy(),
    "another byte order": lambda x: x.numpy().astype(">f8"),
    "half precision": lambda x: x.half(),
}


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("kind", NETWORKS)
def test_networks_take_points_and_labels_of_any_make(kind, make):
    net, times = network(kind), NETWORKS[kind]
    x = MAKES[make](X0)
    expected = net(*times, torch.as_tensor(np.asarray(x, dtype=np.float32)), LABELS)
    assert torch.equal(net(*times, x, LABELS), expected) and expected.dtype == torch.float32
    for labels in (
        LABELS.tolist(),
        LABELS.numpy(),
        LABELS.to(torch.uint8),
        LABELS.numpy().astype(">i2"),
        LABELS.numpy()[::-1][::-1],
    ):
        assert torch.equal(net(*times, x, labels), expected)
    # Points in double precision can be moved by a network in single precision.
    moved = flow_matching.sample(lambda t, x: net(*times, x, LABELS), X0, steps=2)
    assert moved.dtype == torch.float64 and torch.isfinite(moved).all()


@pytest.mark.parametrize("kind", NETWORKS)
def test_networks_refuse_by_name(kind):
    net, times = network(kind), NETWORKS[kind]
    for x in (X0[:, :1], X0[0], "a", object(), X0[None], [[float("nan"), 1.0]]):
        with pytest.raises(ValueError, match=r"\bx\b"):
            net(*times, x, None)
    for labels in (LABELS[:2], LABELS + 0.5, LABELS - 5, LABELS + 3, ["a"] * 3, object(), LABELS + 0j):
        with pytest.raises(ValueError, match="labels"):
            net(*times, X0, labels)
    for place, name in enumerate(("t",) if kind is networks.VelocityNetwork else ("r", "t")):
        bad = list(times)
        bad[place] = torch.zeros(2)
        with pytest.raises(ValueError, match=rf"\b{name} must be a number or of shape"):
            net(*bad, X0, LABELS)
    one = kind(1, width=1, depth=1, classes=1, generator=generator())
    assert one(*times, torch.zeros(1, 1), torch.tensor([-1])).shape == (1, 1)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_batch_of_one_in_one_dimension_trains(kind):
    loss = mean_flow.MeanFlow() if kind is networks.MeanVelocityNetwork else flow_matching.FlowMatching()
    one = lambda n, generator=None: (torch.zeros(n, 1), torch.ones(n, 1))
    found = training.fit(kind(1, width=2, depth=1), loss, one, steps=2, batch=1, generator=generator())
    assert torch.isfinite(found.losses).all() and found.steps == 2


# --- options -----------------------------------------------------------------------------------------------------------------

OPTIONS = {
    "training.cosine": (training.cosine, {}),
    "training.fit": (
        training.fit,
        {"network": network(), "loss": flow_matching.FlowMatching(), "pairs": pairs, "steps": 2, "batch": 4},
    ),
    "flow_matching.loss": (flow_matching.loss, {"velocity": field, "x0": X0, "x1": X1, "t": T}),
    "flow_matching.FlowMatching": (flow_matching.FlowMatching, {}),
    "flow_matching.sample": (flow_matching.sample, {"velocity": field, "x0": X0, "steps": 2}),
    "flow_matching.guided": (flow_matching.guided, {"network": field, "labels": LABELS, "scale": 1.0}),
    "flow_matching.reflow": (flow_matching.reflow, {"velocity": field, "source": source, "size": 5}),
    "mean_flow.loss": (mean_flow.loss, {"network": average, "x0": X0, "x1": X1, "r": R, "t": T}),
    "mean_flow.MeanFlow": (mean_flow.MeanFlow, {}),
    "mean_flow.sample": (mean_flow.sample, {"network": average, "x0": X0}),
    "networks.VelocityNetwork": (networks.VelocityNetwork, {"dim": 2}),
    "networks.MeanVelocityNetwork": (networks.MeanVelocityNetwork, {"dim": 2}),
}
FREE = {"scale": -1.0}


def public():
    for module in (training, flow_matching, mean_flow, networks):
        for name in module.__all__:
            if name != "Training":  # a result
                yield f"{module.__name__.rsplit('.', 1)[-1]}.{name}", getattr(module, name)


def test_every_function_with_options_is_in_the_table():
    assert {name for name, function in public() if options(function)} <= set(OPTIONS)


def refused():
    for name, function in public():
        found = options(function) | (options(networks.VelocityNetwork) if inspect.isclass(function) and "MeanV" in name else {})
        for option, values in found.items():
            for value in values:
                if option not in FREE or type(value) is bool or value != FREE[option]:
                    yield pytest.param(name, option, value, id=f"{name}-{option}-{value!r:.30}")
    for name in ("flow_matching.loss", "flow_matching.FlowMatching"):
        yield from (pytest.param(name, "interpolant", value) for value in (None, 3, "linear"))
    for name in ("flow_matching.sample", "flow_matching.reflow"):
        yield from (pytest.param(name, "method", value) for value in (None, 3, "heun"))


@pytest.mark.parametrize("name, option, value", list(refused()))
def test_every_bad_option_is_refused_by_name(name, option, value):
    function, given = OPTIONS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((ValueError, TypeError), match=rf"\b{option}\b"):
            found = function(**given | {option: value})
            if callable(found) and not isinstance(found, nn.Module):
                found(0.5, X0)


@pytest.mark.parametrize("name", ("training.fit", "flow_matching.sample", "flow_matching.reflow", "networks.VelocityNetwork"))
def test_counts_of_numpy_are_counts(name):
    function, given = OPTIONS[name]
    function(**{key: np.int64(value) if isinstance(value, int) else value for key, value in given.items()})


def test_a_misspelt_option_is_named():
    for function, given in OPTIONS.values():
        with pytest.raises(TypeError, match="speed"):
            function(**given, speed=1)


@pytest.mark.parametrize("size", (1e300, 1e-300))
@pytest.mark.parametrize(
    "call, array", [pytest.param(call, array, id=f"{call.name}-{array}") for call in CALLS for array in call.arrays]
)
def test_arrays_of_extreme_size(call, array, size):
    extreme(call, array, size)
