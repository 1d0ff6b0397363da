"""Calls of the room ``matching``."""

import torch
from calls import Call
from calls_couplings import LONGER, fits
from instances import generator

from dynot_lite.matching import classifier, fields, flow_matching, mean_flow, networks, training, unet
from dynot_lite.matching.standardize import Standardize
from dynot_lite.paths.interpolants import TRIGONOMETRIC


def t(*rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def room(module, name, run, arrays=None, **options) -> Call:
    place = f"{module}.{name}"
    if "networks" in place or "unet" in place or "training.fit" in place:
        options["excused"] = {
            "default dtype": "the one of the parameters",
            "modes": "parameters of inference mode cannot be trained",
        }
    if place == "mean_flow.loss":
        options["excused"] = {"gradient": "the target is held fixed"}
    if "sample" in place:
        options["cut"] = {"x0": "none, by the table of derivatives"}
    known = {key: value for key, value in options.items() if key in Call.__dataclass_fields__}
    return Call(f"matching.{place}", run, arrays or {}, **known)


X0, X1 = t([0.5, 1.0], [-1.0, 0.25], [2.0, -0.5]), t([1.5, 0.0], [-0.5, 1.25], [0.25, 2.0])
LABELS = torch.tensor([0, 2, 1])
IMAGES = X0.reshape(3, 1, 1, 2)
R, T = t(0.0, 0.25, 0.5), t(0.25, 0.5, 1.0)
PAIRS = {"x0": X0, "x1": X1}
POINTS = {"names": {"x0": f"x0|{LONGER}"}, "units": {"x0": 1}, "result_units": (1,)}
ANY = {"a wrong length": "points of any dimension are valid; only the velocity knows its own"}
NONE = {"empty": "no points are a batch, too"}
STANDARD = Standardize(mean=0.5, scale=2.0)
FIELD = {"names": {"t": r"\bt\b"}, "units": {"x": 1}, "result_units": (1,), "rows": [{"x": 0, "result": 0}], "excused": ANY}
NAMES = {"x0": "x0|x1", "t": r"\bt\b", "r": r"\br\b"}


def field(t, x, labels=None):
    """A linear field; times come as numbers or one per point, labels shift it."""
    t = torch.as_tensor(t, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    shift = 0 if labels is None else labels.to(x.dtype)[:, None]
    return (x.flip(-1) - 0.5 * x) * (1 + t) + shift


def average(r, t, x, labels=None):
    r = torch.as_tensor(r, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    return field(t, x, labels) - r * x


def source(n, generator=None):
    return X0[torch.randint(3, (n,), generator=generator)]


def pairs(n, generator=None):
    rows = torch.randint(3, (n,), generator=generator)
    return X0[rows], X1[rows], LABELS[rows]


def network(kind=networks.VelocityNetwork, **options):
    return kind(2, width=4, depth=2, classes=3, generator=generator(), **options)


def painter(kind=unet.UNet):
    """Of pictures of two pixels, with other weights than the zeros of the start."""
    made = kind(1, width=4, classes=3, generator=generator())
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator(1), dtype=torch.float32)
    return made


def judge():
    return classifier.Classifier(1, classes=3, generator=generator())


def trained(loss, kind):
    options = {"steps": 3, "batch": 4, "generator": generator()}
    return training.fit(network(kind), loss, pairs, **options)


mean_flow.loss(average, X0, X1, 0.0, 1.0)  # torch warns of its own when forward mode is first used
FLOW = training.fit(network(), flow_matching.FlowMatching(), pairs, steps=2, batch=4, generator=generator())

CALLS = [
    room("training", "cosine", lambda: tuple(training.cosine(warm_up=0.25)(done) for done in (0.0, 0.125, 0.5, 1.0))),
    room("training", "fit", lambda: trained(flow_matching.FlowMatching(), networks.VelocityNetwork).losses),
    room("training", "fit", lambda: trained(mean_flow.MeanFlow(), networks.MeanVelocityNetwork).losses),
    room("training", "fit, steps", lambda: FLOW.steps),
    room(
        "flow_matching",
        "loss",
        lambda x0, x1, t: flow_matching.loss(field, x0, x1, t, interpolant=TRIGONOMETRIC),
        PAIRS | {"t": T},
        names=NAMES,
        units={"x0": 1, "x1": 1},
        result_units=(2,),
    ),
    room("flow_matching", "FlowMatching", lambda: flow_matching.FlowMatching()(field, X0, X1, LABELS, generator=generator())),
    room("flow_matching", "sample", lambda x0: fits(flow_matching.sample(field, x0, steps=3), 3, 2), {"x0": X0}, **POINTS),
    room("flow_matching", "guided", lambda labels: flow_matching.guided(field, labels, scale=2.0)(0.25, X0),
         {"labels": LABELS.double()}),
    room("flow_matching", "reflow",
         lambda: flow_matching.reflow(field, source, 5, steps=2, generator=generator())(4, generator=generator())),
    room(
        "mean_flow",
        "loss",
        lambda x0, x1, r, t: mean_flow.loss(average, x0, x1, r, t),
        PAIRS | {"r": R, "t": T},
        names=NAMES,
        units={"x0": 1, "x1": 1},
        result_units=(2,),
    ),
    room("mean_flow", "MeanFlow", lambda: mean_flow.MeanFlow()(average, X0, X1, LABELS, generator=generator())),
    room("mean_flow", "sample", lambda x0: fits(mean_flow.sample(average, x0, steps=3), 3, 2), {"x0": X0}, **POINTS),
    room(
        "fields",
        "change_path",
        lambda x, t, velocity: fields.change_path(velocity, TRIGONOMETRIC)(t, x),
        {"x": X0},
        options={"t": ("time", 0.25)},
        callables={"velocity": field},
        **FIELD,
    ),
    room(
        "fields",
        "score",
        lambda x, t, velocity: fields.score(velocity)(t, x),
        {"x": X0},
        options={"t": ("time", 0.25)},
        callables={"velocity": field},
        **FIELD,
    ),
    room(
        "fields",
        "sample_sde",
        lambda x0, sigma, steps, velocity: fields.sample_sde(velocity, x0, sigma, steps=steps, generator=generator()),
        {"x0": X0},
        options={"sigma": ("number", 0.5), "steps": ("count", 3)},
        callables={"velocity": field},
        excused=ANY,
        single=None,
    ),
    room(
        "fields",
        "sample_sde, without noise",
        lambda x0, velocity, generator: fields.sample_sde(velocity, x0, 0.0, steps=3, generator=generator),
        {"x0": X0},
        options={"generator": ("generator", None)},
        callables={"velocity": field},
        units={"x0": 1},
        result_units=(1,),
        rows=[{"x0": 0, "result": 0}],
        excused=ANY,
    ),
    room(
        "standardize",
        "Standardize.fit",
        lambda x: (lambda found: (found.mean, found.scale))(Standardize.fit(x)),
        {"x": X0},
        units={"x": 1},
        result_units=(1, 1),
        moved=("x",),
        result_moved=(True, False),
        rows=[{"x": 0, "result": None}],
        dims={"x": 1, "result": None},
        limits={"two numbers": ({"x": t([1.0, 3.0])}, (2.0, 1.0)), "one value": ({"x": t([2.0, 2.0])}, "x must hold numbers")},
        excused=ANY,
    ),
    room(
        "standardize",
        "Standardize.forward",
        lambda x: STANDARD(x),
        {"x": X0},
        rows=[{"x": 0, "result": 0}],
        limits={"the mean": ({"x": t([0.5])}, t([0.0])), "one scale above": ({"x": t([2.5])}, t([1.0]))},
        excused=ANY | NONE,
    ),
    room(
        "standardize",
        "Standardize.inverse",
        lambda z: STANDARD.inverse(z),
        {"z": X0},
        names={"z": r"\bz\b"},
        rows=[{"z": 0, "result": 0}],
        limits={"zero": ({"z": t([0.0])}, t([0.5])), "one": ({"z": t([1.0])}, t([2.5]))},
        excused=ANY | NONE,
    ),
    room("standardize", "Standardize.extra_repr", lambda: float(STANDARD.extra_repr().partition("scale=")[2])),
    *(
        room("networks", f"{kind.__name__}{name}", lambda kind=kind, times=times: network(kind)(*times, X0.float(), LABELS))
        for name in ("", ".forward")
        for kind, times in ((networks.VelocityNetwork, (0.25,)), (networks.MeanVelocityNetwork, (0.25, 0.5)))
    ),
    *(
        room("unet", f"{kind.__name__}{name}", lambda kind=kind, times=times: painter(kind).double()(*times, IMAGES, LABELS))
        for name in ("", ".forward")
        for kind, times in ((unet.UNet, (0.25,)), (unet.MeanUNet, (0.25, 0.5)))
    ),
    *(
        room("classifier", f"Classifier{name}", lambda name=name: getattr(judge(), name[1:] or "forward")(IMAGES.float()))
        for name in ("", ".forward", ".features")
    ),
    room("classifier", "fit", lambda: classifier.fit(IMAGES, LABELS, steps=3, batch=4, generator=generator()).losses),
]  # fmt: skip
