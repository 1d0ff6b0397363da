"""The table of derivatives in ``dynot_lite.matching``, row by row."""

import pytest
import torch
from calls_matching import IMAGES, LABELS, X0, X1, field, network, painter, pairs, source
from derivatives import exact, exact_in_parameters, has_graph, unnamed
from derivatives import rows as table
from instances import generator

import dynot_lite.matching
from dynot_lite.matching import classifier, fields, flow_matching, mean_flow, networks, standardize, training, unet
from dynot_lite.paths.interpolants import TRIGONOMETRIC, VARIANCE_PRESERVING, Interpolant

F64 = torch.float64
CUBIC = Interpolant(lambda t: 1 - t**3, lambda t: t * (2 - t))  # derivatives by forward mode
INNER = torch.tensor([0.25, 0.5, 0.75], dtype=F64)  # differences do not leave [0, 1]
VELOCITY, AVERAGE = (network(kind).double() for kind in (networks.VelocityNetwork, networks.MeanVelocityNetwork))
PAINTER, AVERAGE_PAINTER = (painter(kind).double() for kind in (unet.UNet, unet.MeanUNet))
JUDGE = classifier.Classifier(1, classes=3, generator=generator()).double()
PATHS = {"linear": flow_matching.LINEAR, "trigonometric": TRIGONOMETRIC, "preserving": VARIANCE_PRESERVING, "cubic": CUBIC}


def of_path(path):
    return lambda x0, x1, t: flow_matching.loss(VELOCITY, x0, x1, t, LABELS, interpolant=PATHS[path])


def of_training(loss, net):
    return lambda x0, x1: loss(net, x0, x1, LABELS, generator=generator())


EXACT = {
    **{f"flow_matching.loss, {path}": (of_path(path), X0, X1, INNER) for path in PATHS},
    "flow_matching.loss, one pair": (lambda x0, x1, t: flow_matching.loss(field, x0, x1, t), X0[:1], X0[:1], INNER[0]),
    "FlowMatching": (of_training(flow_matching.FlowMatching(), VELOCITY), X0, X1),
    "guided": (lambda t, x: flow_matching.guided(VELOCITY, LABELS, scale=2.0)(t, x), INNER, X0),
    "change_path": (lambda x: fields.change_path(VELOCITY, CUBIC)(0.25, x), X0),
    "score": (lambda x: fields.score(VELOCITY)(0.25, x), X0),
    "VelocityNetwork": (lambda t, x: VELOCITY(t, x, LABELS), INNER, X0),
    "Standardize": (standardize.Standardize(mean=0.5, scale=2.0), X0),
    "Standardize, inverse": (standardize.Standardize(mean=0.5, scale=2.0).inverse, X0),
    "MeanVelocityNetwork": (lambda r, t, x: AVERAGE(r, t, x, LABELS), INNER / 2, INNER, X0),
    "Classifier": (JUDGE, IMAGES),
    "Classifier, features": (JUDGE.features, IMAGES),
    "UNet": (lambda t, x: PAINTER(t, x, LABELS), INNER, IMAGES),
    "MeanUNet": (lambda r, t, x: AVERAGE_PAINTER(r, t, x, LABELS), INNER / 2, INNER, IMAGES),
}
PARAMETERS = {
    "flow_matching.loss": (VELOCITY, lambda net: flow_matching.loss(net, X0, X1, INNER, LABELS)),
    "FlowMatching": (VELOCITY, lambda net: flow_matching.FlowMatching()(net, X0, X1, LABELS, generator=generator())),
    "guided": (VELOCITY, lambda net: flow_matching.guided(net, LABELS, scale=2.0)(INNER, X0)),
    "change_path": (VELOCITY, lambda net: fields.change_path(net, CUBIC)(0.25, X0)),
    "score": (VELOCITY, lambda net: fields.score(net)(0.25, X0)),
    "VelocityNetwork": (VELOCITY, lambda net: net(INNER, X0, LABELS)),
    "MeanVelocityNetwork": (AVERAGE, lambda net: net(INNER / 2, INNER, X0, LABELS)),
    "Classifier": (JUDGE, lambda net: net(IMAGES)),
    "UNet": (PAINTER, lambda net: net(INNER, IMAGES, LABELS)),
    "MeanUNet": (AVERAGE_PAINTER, lambda net: net(INNER / 2, INNER, IMAGES, LABELS)),
}


@pytest.mark.parametrize("row", EXACT)
def test_exact(row):
    function, *points = EXACT[row]
    assert exact(function, *points)


@pytest.mark.parametrize("row", PARAMETERS)
def test_exact_in_the_parameters(row):
    assert exact_in_parameters(*PARAMETERS[row])


@pytest.mark.parametrize("name", ("mean_flow.loss", "MeanFlow"))
def test_the_target_of_mean_flow_is_held_fixed(name):
    """The derivative is that of E|u − target|² with the numbers of the target; the full one is another."""
    loss = mean_flow.MeanFlow(label_dropout=0.0)
    times = torch.rand(3, 3, generator=generator(), dtype=F64)  # as the loss draws them
    r, t = times[:2].amin(0), times[:2].amax(0)
    t = torch.where(times[2] < loss.instantaneous, r, t)
    if name == "mean_flow.loss":
        r, t = INNER / 2, INNER
    x, v = torch.lerp(X0, X1, r[:, None]), X1 - X0

    def target(net):
        return v + (t - r)[:, None] * torch.func.jvp(lambda r, x: net(r, t, x, LABELS), (r, x), (torch.ones_like(r), v))[1]

    def gradients(value):
        return torch.autograd.grad(value, list(AVERAGE.parameters()))

    value = mean_flow.loss(AVERAGE, X0, X1, r, t, LABELS) if name == "mean_flow.loss" else loss(
        AVERAGE, X0, X1, LABELS, generator=generator())  # fmt: skip
    held = (AVERAGE(r, t, x, LABELS) - target(AVERAGE).detach()).square().sum() / 3
    full = (AVERAGE(r, t, x, LABELS) - target(AVERAGE)).square().sum() / 3
    torch.testing.assert_close(value, held)
    found, expected, other = map(gradients, (value, held, full))
    torch.testing.assert_close(found, expected)
    assert any(not torch.allclose(one, another, rtol=1e-3) for one, another in zip(expected, other, strict=True))


def leaf(x):
    return x.clone().requires_grad_()


NONE = {
    "flow_matching.sample": lambda: flow_matching.sample(VELOCITY, leaf(X0), steps=2),
    "mean_flow.sample": lambda: mean_flow.sample(AVERAGE, leaf(X0), steps=2),
    "sample_sde": lambda: fields.sample_sde(VELOCITY, leaf(X0), 0.5, steps=2),
    "reflow": lambda: flow_matching.reflow(VELOCITY, source, 5, steps=2)(4),
    "classifier.fit": lambda: (lambda found: (found.losses, list(found.network.parameters())))(
        classifier.fit(leaf(IMAGES), LABELS, steps=2, batch=4)
    ),
    "training.fit": lambda: (lambda found: (found.losses, list(found.network.parameters())))(
        training.fit(network(), flow_matching.FlowMatching(), pairs, steps=2, batch=4)
    ),
}


@pytest.mark.parametrize("row", NONE)
def test_none(row):
    assert not has_graph(NONE[row]())


def test_refused():
    with pytest.raises(ValueError, match="scale must not require a gradient"):
        flow_matching.guided(VELOCITY, LABELS, scale=torch.tensor(1.0, requires_grad=True))
    with pytest.raises(ValueError, match="x must not require a gradient"):
        standardize.Standardize.fit(leaf(X0))
    number = torch.tensor(0.5, requires_grad=True)
    with pytest.raises(ValueError, match="t must not require a gradient"):
        fields.change_path(VELOCITY, CUBIC)(number, X0)
    with pytest.raises(ValueError, match="t must not require a gradient"):
        fields.score(VELOCITY)(number, X0)


def test_the_table_names_every_function():
    rooms = (training, flow_matching, mean_flow, networks, unet, fields, standardize, classifier)
    assert set(unnamed(dynot_lite.matching, *rooms)) <= {"Training", "cosine"}
    tested = " ".join((*EXACT, *NONE, "mean_flow.loss", "MeanFlow"))
    assert [name for row in table(dynot_lite.matching) for name in row.split(", ") if name not in tested] == []
