"""Calls of the room ``couplings``."""

import contextlib
import io
import os
import socket
import tempfile
from pathlib import Path

import numpy as np
import torch
from calls import Call
from instances import generator

from dynot_lite._base import checks as check
from dynot_lite.couplings import amortized, ascent, atoms, batches, certificate, distributed, maps, plans, rounding, sliced
from dynot_lite.couplings.conditional import ClassCouplings, JointCoupling
from dynot_lite.couplings.exact_flow import ExactFlow
from dynot_lite.couplings.indexed import IndexedPairs
from dynot_lite.couplings.prepared import PairList, prepare
from dynot_lite.couplings.semidiscrete import SemidiscreteCoupling


def t(*rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


ALL = ("x0", "x1", "weights0", "weights1", "cost", "start")
# Arrays of which the table in the documentation of the room says that there is no derivative.
NONE = {
    "plans.exact_plan": ALL, "plans.entropic_plan": ALL, "amortized.Problem.exact_plan": ALL,
    "amortized.Problem.entropic_plan": ALL, "batches.from_plan": ("plan",), "amortized.RegressionAmortization.fit": ("f", "g"),
    "semidiscrete.SemidiscreteCoupling.fit": ("noise",), "atoms.Noise.centred": ("x",),
    **{f"search.Scores.{name}": ("x",) for name in ("among", "at", "best", "gaps", "settle", "sums")},
}  # fmt: skip


def room(module, name, run, arrays=None, **options) -> Call:
    arrays, without = arrays or {}, NONE.get(f"{module}.{name.partition(',')[0]}", ())
    options["cut"] = dict.fromkeys(set(without) & arrays.keys(), "none, by the table of derivatives")
    known = {key: value for key, value in options.items() if key in Call.__dataclass_fields__}
    return Call(f"couplings.{module}.{name}", run, arrays, **known)


def fits(found, *shape):
    """What was found; where a longer array is a valid one, too, its length shows here."""
    if tuple(found.shape) != shape:
        raise ValueError(f"the result is longer: {tuple(found.shape)}")
    return found


LONGER = "the result is longer"
X0, X1 = t([0.5, 1.0], [-1.0, 0.25], [2.0, -0.5]), t([1.5, 0.0], [-0.5, 1.25], [0.25, 2.0])
Y = t([1.5, 0.125], [-0.5, 1.3125], [0.3125, 2.0], [-1.875, -1.0625])
A, B = t(0.25, 0.4375, 0.3125), t(0.125, 0.28125, 0.21875, 0.375)  # no partial sums are equal: one optimal plan
PLAN = t([0.25, 0.0, 0.125, 0.125], [0.0, 0.125, 0.25, 0.125])
COST = t([0.5, 2.0, 1.0, 0.25], [1.5, 0.75, 3.0, 1.0], [0.0, 1.25, 2.5, 4.0])
F = t(0.5, -0.25, 0.0)
LABELS = t(0.0, 1.0, 1.0, 0.0)
CLOUDS = {"x0": X0, "x1": Y, "weights0": A, "weights1": B}
CLOUD_NAMES = {"x0": "x0|x1|weights0", "x1": "x1|weights1"}
CLOUD_UNITS = {"units": {"x0": 1, "x1": 1, "cost": 2, "start": 2}, "moved": ("x0", "x1"), "names": CLOUD_NAMES}
COSTS = {"cost": COST, "start": F, "weights0": A, "weights1": B}
COST_NAMES = {"cost": "cost|weights1", "start": "start"}


def planned(found):
    return found.plan, found.potential0, torch.tensor(found.cost, dtype=torch.float64)


def rows(x):
    """A sampler that repeats the rows of x."""
    return lambda n, generator=None: x[torch.arange(n) % len(x)]


TARGET = lambda n, generator=None: (Y[torch.arange(n) % 4], torch.arange(n) % 2)

# --- semidiscrete: a few points, a few steps ---------------------------------------------------------------------------------

POINTS = t([0.0, 1.0], [2.0, -1.0], [-1.5, 0.5], [0.5, 0.25], [1.0, 2.0])
MASSES = t(0.25, 0.125, 0.25, 0.25, 0.125)
NOISES = torch.randint(-64, 65, (32, 2), generator=generator(5)).double() / 32
OF = {"points": POINTS, "weights": MASSES}


def drawn(noise):
    """A sampler of the rows of an array, as a user would write it."""
    noise = check.points(noise, "noise")
    return lambda n, generator=None: noise[torch.randint(len(noise), (n,), generator=generator)]


def made(points=POINTS, weights=None, **options):
    coupling = SemidiscreteCoupling(points, weights=weights, **options)
    fits(coupling.points, 5, 2)
    return coupling


def fitted(points=POINTS, weights=None, *, noise="normal", **options):
    coupling = made(points, weights, **options)
    coupling.fit(noise, max_iterations=20, generator=generator())
    return coupling


def cells(points=POINTS, weights=None):
    found = atoms.Atoms(points, weights=weights)
    fits(found.points, 5, 2)
    return found


def seeded(points=POINTS, weights=None, *, epsilon=0.0):
    """An ascent at its start."""
    law = cells(points, weights)
    return ascent.start(law, atoms.Noise("normal", like=law.points), epsilon, generator=generator())


HARD, SOFT, COARSE = fitted(), fitted(epsilon=0.5), fitted(precision="bfloat16")
FLOW = ExactFlow(SOFT)


def semi(module, name, run, arrays=OF, **options) -> Call:
    """Centred points are rounded to float32, where a weight of another precision moves a noise on the edge of its cell."""
    return room(
        module,
        name,
        run,
        arrays,
        **{"tolerance": 1e-6, "single": None, "names": {"points": f"points|weights|{LONGER}"}} | options,
    )


def moving(found):
    return {"moved": ("points",), "result_moved": found}


def counted():
    found = HARD._fitted().certificate()
    found.add(64, generator=generator())
    return found


class Fixed(IndexedPairs):
    """Every noise goes to the first points, one after the other."""

    def pair_index(self, n, *, generator=None):
        return torch.zeros(n, 2, dtype=self.points.dtype), torch.arange(n) % len(self.points)


def resumed(points, weights):
    coupling = made(points, weights)
    coupling.load_state_dict(fitted(points, weights).state_dict())
    return coupling.potentials


def classes(points, epsilon=0.0):
    couplings = ClassCouplings(points, [0, 1, 1, 0, 0], epsilon=epsilon)
    fits(couplings.points, 5, 2)
    couplings.fit(max_iterations=5, generator=generator())
    return couplings


def classwise(name, run, **options):
    return semi("conditional", name, run, {"points": POINTS}, names={"points": f"points|{LONGER}"}, **options)


def joint(points, conditions):
    coupling = JointCoupling(points, conditions, beta=2.0)
    fits(coupling.coupling.points, 5, 3)
    coupling.fit(max_iterations=5, generator=generator())
    return coupling


Z = t([0.0], [1.0], [0.5], [-1.0], [0.25])
JOINT = {"points": POINTS, "conditions": Z}
JOINT_NAMES = {"points": f"points|conditions|{LONGER}", "conditions": f"conditions|{LONGER}"}
X = {"x": X0}

# --- files and processes -----------------------------------------------------------------------------------------------------


def in_folder(use):
    with tempfile.TemporaryDirectory() as folder:
        return use(Path(folder))


def loaded(folder):
    np.savez(folder / "points.npz", points=POINTS.numpy(), weights=MASSES.numpy())
    return distributed.load_points(folder / "points.npz")


def alone(folder):
    """``main`` as torchrun would start it, one process."""
    np.save(folder / "points.npy", POINTS.numpy())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    before = {name: os.environ.get(name) for name in process}
    os.environ |= process
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            code = distributed.main([str(folder / "points.npy"), str(folder / "potentials.pt"), "--tol", "0.5"])
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    state = torch.load(folder / "potentials.pt", weights_only=True)
    return torch.tensor(code), state["average"]


# --- amortised ---------------------------------------------------------------------------------------------------------------

DIRECTIONS = t([1.0, 0.0], [0.0, 1.0], [0.6, 0.8])
PROBLEMS = [amortized.Problem(X0, Y, A, B), amortized.Problem(Y, X1)]


def model(kind=amortized.RegressionAmortization, directions=DIRECTIONS):
    made = kind(directions, epsilon=0.5)
    made.fit(PROBLEMS)
    return made


REGRESSION, OBJECTIVE = model(), model(amortized.ObjectiveAmortization)


def predicted(prediction):
    numbers = torch.tensor([prediction.dual, prediction.gap, prediction.row_error], dtype=torch.float64)
    return prediction.potential0, prediction.plan, *numbers


def stored(kind):
    def use(folder):
        model(kind).save(folder / "model.pt")
        return kind.load(folder / "model.pt").coefficients

    return lambda: in_folder(use)


def of_model(name, kind, run):
    """Of both models: by default on a problem of the arrays."""
    of_class = amortized.RegressionAmortization if kind is REGRESSION else amortized.ObjectiveAmortization
    return room(
        "amortized",
        f"{of_class.__name__}.fit, {name}",
        lambda **clouds: run(kind, amortized.Problem(**clouds)),
        CLOUDS,
        names=CLOUD_NAMES | {"x0": "x0|x1|weights0|problem"},
        moved=("x0", "x1"),
        result_moved=(None,) * 5 if name in ("predict", "extrapolate") else (None,),
        tolerance=1e-7,
    )


CALLS = [
    # batches
    room(
        "batches",
        "sorted_pairs",
        batches.sorted_pairs,
        {"x0": X0[:, :1], "x1": X1[:, :1]},
        units={"x0": 1, "x1": 1},
        moved=("x0", "x1"),
        names={"x0": "x0"},
    ),
    room("batches", "exact_pairs", batches.exact_pairs, {"x0": X0, "x1": X1}, units={"x0": 1, "x1": 1}, moved=("x0", "x1")),
    room(
        "batches",
        "entropic_pairs",
        lambda x0, x1, weights1: batches.entropic_pairs(x0, x1, 0.5, weights1=weights1, generator=generator()),
        {"x0": X0, "x1": Y, "weights1": B},
        moved=("x0", "x1"),
        names=CLOUD_NAMES,
    ),
    room("batches", "independent", lambda: batches.independent(rows(X0), TARGET)(5)),
    room("batches", "exact", lambda: batches.exact(rows(X0), TARGET)(5)),
    room(
        "batches",
        "in_blocks",
        lambda pairs, size, n: batches.in_blocks(pairs, size)(n),
        options={"size": ("count", 3), "n": ("count", 5)},
        callables={"pairs": batches.exact(rows(X0), rows(X1))},
        names={"n": r"\bn\b"},
        excused={"pairs: a wrong count": "a batch may hold any number of tensors", "precision": "that of the pairs"},
    ),
    room("batches", "entropic", lambda: batches.entropic(rows(X0), TARGET, epsilon=0.5)(5, generator=generator())),
    room(
        "batches",
        "from_plan",
        lambda x0, x1, plan, conditions: batches.from_plan(x0, x1, plan, conditions)(5, generator=generator()),
        {"x0": X0[:2], "x1": Y, "plan": PLAN, "conditions": LABELS},
        names={"x0": "x0", "x1": "x1", "conditions": "condition"},
    ),
    # plans
    room("plans", "exact_plan", lambda **z: planned(plans.exact_plan(**z)), CLOUDS, **CLOUD_UNITS, result_units=(0, 2, 2),
         result_moved=(False, False, False)),
    room("plans", "exact_plan, cost", lambda **z: plans.exact_plan(None, None, **z).require().plan, COSTS, names=COST_NAMES,
         units={"cost": 2, "start": 2}),
    room("plans", "entropic_plan", lambda **z: planned(plans.entropic_plan(epsilon=0.5, **z)), CLOUDS, names=CLOUD_NAMES,
         moved=("x0", "x1"), result_moved=(False, False, False), tolerance=1e-6),
    room("plans", "entropic_plan", lambda **z: planned(plans.entropic_plan(None, None, 0.5, **z)), COSTS, names=COST_NAMES,
         tolerance=1e-5),
    room("plans", "sample_plan", lambda plan: plans.sample_plan(plan, 6, generator=generator()), {"plan": PLAN}),
    # maps
    *(
        room("maps", name, lambda x, make=make, **clouds: make(**clouds)(x), {"x0": X0, "x1": Y, "x": t([0.5, 0.5], [-2.0, 1.0],
             [1.0, -3.0])}, names=CLOUD_NAMES | {"x1": "x1|x must have dimension"}, rows=[{"x": 0, "result": 0},
             {"x0": 0, "result": None}, {"x1": 0, "result": None}], dims={"x0": 1, "x1": 1, "x": 1, "result": 1},
             moved=("x0", "x1", "x"), result_moved=(True,), tolerance=tolerance,
             **{"units": {"x0": 1, "x1": 1, "x": 1}, "result_units": (1,)} if units else {})
        for name, make, units, tolerance in (
            ("nearest_map", maps.nearest_map, True, 1e-9),
            ("cell_map", maps.cell_map, True, 1e-9),
            ("cell_map, softened", lambda x0, x1: maps.cell_map(x0, x1, epsilon=0.5), False, 1e-9),
            ("entropic_map", lambda x0, x1: maps.entropic_map(x0, x1, 0.5, tol=1e-9), False, 1e-6),
        )
    ),
    room("maps", "cell_map, epsilon", lambda epsilon: maps.cell_map(X0, Y, epsilon=epsilon)(X1),
         options={"epsilon": ("number", 0.5)}),
    room("maps", "entropic_map, epsilon", lambda epsilon, tol: maps.entropic_map(X0, Y, epsilon, tol=tol)(X1),
         options={"epsilon": ("positive", 0.5), "tol": ("positive", 1e-6)}),
    *(
        room("maps", name, maps.optimal_potentials, {"x0": X0, "x1": other}, units={"x0": 1, "x1": 1}, result_units=(2, 2),
             moved=("x0", "x1"), result_moved=(False, False), names=CLOUD_NAMES, rows=rows,
             dims={"x0": 1, "x1": 1, "result": None})
        for name, other, rows in (
            ("optimal_potentials", X1, ()),  # which of the inner ones depends on the order of the points
            ("optimal_potentials, sizes", Y, ({"x0": 0, "result": [0, None]}, {"x1": 0, "result": [None, 0]})),
        )
    ),
    # the parts of the semidiscrete solver
    semi("atoms", "Atoms", lambda **z: (lambda a: (a.centred, a.mass, a.of_point))(cells(**z)), **moving((False,) * 3)),
    semi("atoms", "Atoms.constants", lambda **z: cells(**z).constants(t(0.5, 1.0))),
    semi("atoms", "Atoms.member", lambda **z: cells(**z).member(torch.tensor([0, 2, 1]), generator=generator())),
    semi("atoms", "Atoms.to_points", lambda values: atoms.Atoms(POINTS).to_points(values), {"values": t(1, 2, 3, 4, 5)}),
    semi("atoms", "Atoms.from_points", lambda values: atoms.Atoms(POINTS).from_points(values), {"values": t(1, 2, 3, 4, 5)}),
    semi("atoms", "Atoms.fingerprint", lambda **z: int(cells(**z).fingerprint()[:6], 16)),
    semi("atoms", "Noise", lambda: atoms.Noise("normal", like=POINTS).centre, {}),
    semi("atoms", "Noise.draw", lambda: atoms.Noise("normal", like=POINTS).draw(3, generator=generator()), {}),
    semi("atoms", "Noise.centred", lambda x: atoms.Noise("normal", like=POINTS).centred(x), X, names={}),
    semi("atoms", "Noise.flat", lambda: atoms.Noise("normal", like=POINTS).flat(torch.ones(3, 2)), {}),
    semi("rounding", "Rounded", lambda: rounding.Rounded(POINTS.float(), "tf32").noise(X0.float(), POINTS[:, 0].float()), {}),
    semi("rounding", "Rounded.noise", lambda: COARSE.atoms.rounded.noise(X0.float(), POINTS[:, 0].float())[1], {}),
    semi("rounding", "Rounded.scores", lambda: COARSE.atoms.rounded.scores(X0.bfloat16(), slice(1, 4), POINTS[:, 0].float(),
         torch.empty(3, 3, dtype=torch.float32)), {}),
    room("rounding", "matmul", lambda: float(rounding.matmul(torch.device("cpu")).__enter__() is None)),
    semi("atoms", "batch", lambda x: atoms.batch(x, "x", like=POINTS), X, names={}),
    semi("ascent", "start", lambda **z: (lambda a: (a.iterate, a.scale))(seeded(**z))),
    semi("ascent", "Ascent.run", lambda **z: (lambda a: sum(a.run(20, generator=generator(1))))(seeded(**z))),
    semi("ascent", "start, iterations", lambda **z: seeded(**z).iterations),
    semi("ascent", "Ascent.potentials", lambda **z: seeded(**z).potentials()),
    semi("ascent", "Ascent.scores", lambda **z: seeded(**z).scores().offsets, **moving((False,))),
    semi("ascent", "Ascent.certificate", lambda **z: len(seeded(**z).certificate().__dict__)),
    semi("certificate", "Certificate", lambda: len(vars(HARD._fitted().certificate())), {}),
    semi("certificate", "Certificate.add", lambda: HARD._fitted().certificate().add(64, generator=generator()) or 0.0, {}),
    *(
        semi("certificate", f"Certificate.{name}", lambda use=use: use(counted()), {})
        for name, use in (("chi2", lambda c: c.chi2()), ("report", lambda c: tuple(c.report().values())))
    ),
    room(
        "certificate",
        "pooled_chi2",
        lambda counts, weights, squares: certificate.pooled_chi2(counts, weights, squares=squares),
        {"counts": t(3, 5, 4, 2), "weights": B, "squares": t(3, 5, 4, 2)},
        names={"counts": "counts|weights|samples"},
        result_units=(0, 0),
    ),
    *(
        room("certificate", f"Estimate.{name}", lambda name=name: getattr(certificate.Estimate(0.5, 0.25), name)())
        for name in ("upper", "lower")
    ),
    semi("search", "Scores.among", lambda x: HARD.scores().among(torch.tensor([0, 2])).best(x), X, names={}),
    semi("search", "Scores.at", lambda x: HARD.scores().at(x, torch.tensor([0, 2, 1])), X, names={}),
    semi("search", "Scores.best", lambda x: HARD.scores().best(x), X, names={}),
    semi("search", "Scores.gaps", lambda x: HARD.scores().gaps(x), X, names={}),
    semi("search", "Scores.sums", lambda x: tuple(SOFT.scores().sums(x, product=True)), X, names={}),
    semi("search", "Scores.hits", lambda: HARD.scores().hits(HARD.scores().noise.centred(NOISES)), {}),
    semi("search", "Scores.settle", lambda: COARSE.scores().settle(COARSE.scores().noise.centred(NOISES)), {}),
    semi("search", "Scores.assign", lambda x: SOFT.scores().assign(x, generator=generator()), X, names={}),
    # semidiscrete
    semi(
        "semidiscrete",
        "SemidiscreteCoupling.fit",
        lambda points, weights, noise: (
            lambda c: (c.potentials, c.result.primal_cost, c.result.chi2, c.assign(noise))
        )(fitted(points, weights, noise=drawn(noise))),
        OF | {"noise": NOISES},
        names={"points": f"points|weights|noise|{LONGER}"},
        units={"points": 1, "noise": 1},
        result_units=(2, 2, 0, 0),
        tolerance=1e-5,
    ),
    semi("semidiscrete", "SemidiscreteCoupling.fit, require", lambda **z: made(**z).fit(tol=0.5, generator=generator())
         .require().iterations),
    semi("semidiscrete", "SemidiscreteCoupling, epsilon", lambda **z: made(**z, epsilon=0.5).epsilon),
    semi("semidiscrete", "SemidiscreteCoupling, iterations", lambda **z: fitted(**z).iterations),
    semi("semidiscrete", "SemidiscreteCoupling, potentials", lambda **z: fitted(**z).potentials),
    semi("semidiscrete", "SemidiscreteCoupling.scores", lambda **z: fitted(**z).scores().offsets, **moving((False,))),
    semi("semidiscrete", "SemidiscreteCoupling.assign", lambda x: SOFT.assign(x, generator=generator()), X, names={}),
    semi("semidiscrete", "SemidiscreteCoupling.c_transform", lambda x: (HARD.c_transform(x), SOFT.c_transform(x)), X, names={}),
    semi("semidiscrete", "SemidiscreteCoupling.chi2", lambda **z: fitted(**z).chi2(64, generator=generator())),
    semi("semidiscrete", "SemidiscreteCoupling, pair", lambda **z: fitted(**z).pair(6, generator=generator()),
         **moving((False, True))),
    semi("semidiscrete", "SemidiscreteCoupling.pair_index", lambda **z: fitted(**z).pair_index(6, generator=generator()),
         **moving((False, False))),
    semi("semidiscrete", "SemidiscreteCoupling, pairs", lambda labels: HARD.pairs(labels)(6, generator=generator()),
         {"labels": t(0, 1, 1, 0, 2)}, names={"labels": "condition"}),
    semi("semidiscrete", "SemidiscreteCoupling.state_dict", lambda **z: fitted(**z).state_dict()["average"], **moving((False,))),
    semi("semidiscrete", "SemidiscreteCoupling.load_state_dict", resumed),
    # what is made of it
    semi("indexed", "IndexedPairs", lambda: Fixed(POINTS, LABELS).points, {}),
    semi("indexed", "IndexedPairs.pair", lambda: Fixed(POINTS, LABELS).pair(4), {}),
    semi("indexed", "IndexedPairs.pair_index", lambda: Fixed(POINTS).pair_index(4), {}),
    semi("indexed", "IndexedPairs.pairs", lambda labels: Fixed(POINTS).pairs(labels)(4), {"labels": t(0, 1, 1, 0, 2)},
         names={"labels": "condition"}),
    semi("indexed", "IndexedPairs.loader", lambda labels: next(Fixed(POINTS).loader(4, labels=labels)),
         {"labels": t(0, 1, 1, 0, 2)}),
    semi("exact_flow", "ExactFlow", lambda **z: ExactFlow(fitted(**z, epsilon=0.5)).velocity(0.5, X0), **moving((None,))),
    room("exact_flow", "ExactFlow.velocity", lambda t, x: FLOW.velocity(t, x), {"t": t(0.25, 0.5, 0.0), "x": X0},
         names={"t": r"\bt\b", "x": r"x|\bt\b"}),
    room("exact_flow", "ExactFlow.score", lambda t, x: FLOW.score(t, x), {"t": t(0.25, 0.5, 0.0), "x": X0},
         names={"t": r"\bt\b", "x": r"x|\bt\b"}),
    *(
        semi("prepared", name, lambda use=use: use(prepare(HARD, 300, generator=generator())), {})
        for name, use in (
            ("prepare", lambda found: found.index),
            ("PairList.blocks", lambda found: tuple(x for _, x in found.blocks())),
            ("PairList.cost", lambda found: found.cost()),
            ("PairList, pair", lambda found: found.pair(6, generator=generator())),
            ("PairList.pair_index", lambda found: found.pair_index(6, generator=generator())),
            ("PairList, pairs", lambda found: found.pairs([0, 1, 1, 0, 2])(6, generator=generator())),
            ("PairList.state_dict", lambda found: PairList(HARD, **found.state_dict()).index),
        )
    ),
    classwise("ClassCouplings.fit", lambda points: classes(points).couplings[0].potentials),
    classwise("ClassCouplings, pair", lambda points: classes(points).pair(6, generator=generator()),
         **moving((False, True, False))),
    classwise("ClassCouplings.pair_index", lambda points: classes(points).pair_index(6, generator=generator())),
    classwise("ClassCouplings, pairs", lambda points: classes(points).pairs(Z)(6, generator=generator())),
    classwise("ClassCouplings.fit, require", lambda points: classes(points).fit(tol=0.5, generator=generator())
         .require().results[1].iterations),
    semi("conditional", "JointCoupling.fit", lambda **z: joint(**z).coupling.potentials, JOINT, names=JOINT_NAMES),
    semi("conditional", "JointCoupling, pair", lambda **z: joint(**z).pair(6, generator=generator()), JOINT, names=JOINT_NAMES),
    semi("conditional", "JointCoupling.pair_index", lambda **z: joint(**z).pair_index(6, generator=generator()), JOINT,
         names=JOINT_NAMES),
    semi("conditional", "JointCoupling, pairs",
         lambda **z: joint(**z).pairs(LABELS.new_zeros(5))(6, generator=generator()), JOINT,
         names=JOINT_NAMES),
    semi("conditional", "JointCoupling.fit, result", lambda **z: joint(**z).result.iterations, JOINT, names=JOINT_NAMES),
    room("distributed", "load_points", lambda: in_folder(loaded)),
    room("distributed", "main", lambda: in_folder(alone)),
    # on lines
    room(
        "sliced",
        "potentials_1d",
        lambda **z: sliced.potentials_1d(**z),
        CLOUDS | {"x0": X0[:, 0], "x1": Y[:, 1]},
        **CLOUD_UNITS,
        result_units=(2,),
    ),
    room(
        "sliced",
        "w2_squared_1d",
        lambda **z: sliced.w2_squared_1d(**z),
        CLOUDS | {"x0": X0[:, 0], "x1": Y[:, 1]},
        **CLOUD_UNITS,
        result_units=(2,),
    ),
    room(
        "sliced",
        "w2_squared_sliced",
        lambda x0, x1, directions, **z: sliced.w2_squared_sliced(x0, x1, directions, **z),
        CLOUDS | {"directions": DIRECTIONS},
        **CLOUD_UNITS,
        result_units=(2,),
    ),
    room("sliced", "directions", lambda: (sliced.directions(2, 3, generator=generator()),
                                          sliced.directions(3, 2, generator=generator()))),
    room("sliced", "squared_cost", sliced.squared_cost, {"x0": X0, "x1": Y}, units={"x0": 1, "x1": 1}, result_units=(2,),
         moved=("x0", "x1"), names=CLOUD_NAMES),
    room("sliced", "c_transform", lambda **z: fits(sliced.c_transform(**z), 4), {"cost": COST, "potential": F},
         names={"cost": f"cost|{LONGER}"}, units={"cost": 2, "potential": 2}, result_units=(2,)),
    room("sliced", "soft_c_transform", lambda weights, **z: fits(sliced.soft_c_transform(**z, epsilon=0.5, weights=weights), 4),
         {"cost": COST, "potential": F, "weights": A}, names={"cost": f"cost|{LONGER}"}),
    room("sliced", "sphere_points", sliced.sphere_points, {"latitude": t(10, -45, 80), "longitude": t(0, 120, -30)},
         names={"longitude": "longitude|latitude"}),
    room("sliced", "geodesic_cost", sliced.geodesic_cost, {"x0": t([0.6, 0.8, 0.0], [0.0, 0.0, 1.0]), "x1": t([0.0, 1.0, 0.0])}),
    room("sliced", "stereographic", sliced.stereographic, {"x": t([0.6, 0.0, 0.8], [0.0, -1.0, 0.0])}),
    # amortised
    room("amortized", "Problem.exact_plan", lambda **z: planned(amortized.Problem(**z).exact_plan()), CLOUDS, **CLOUD_UNITS,
         result_units=(0, 2, 2), result_moved=(False,) * 3),
    room("amortized", "Problem.entropic_plan", lambda **z: planned(amortized.Problem(**z).entropic_plan(0.5)), CLOUDS,
         names=CLOUD_NAMES, moved=("x0", "x1"), result_moved=(False,) * 3, tolerance=1e-6),
    room("amortized", "Problem", lambda cost: amortized.Problem(X0, Y, cost=cost).cost, {"cost": COST}),
    room("amortized", "predict_from, numbers", lambda potential0: predicted(amortized.predict_from(PROBLEMS[0], potential0, 0.5)),
         {"potential0": F}),
    room("amortized", "predict_from", lambda potential0: amortized.predict_from(PROBLEMS[0], potential0, 0.5, sweeps=2).plan,
         {"potential0": F}),
    room("amortized", "semidual", lambda potential0: amortized.semidual(PROBLEMS[0], potential0, 0.5), {"potential0": F}),
    room("amortized", "RegressionAmortization.fit, require",
         lambda directions: model(directions=directions).result.require().coefficients,
         {"directions": DIRECTIONS}, names={"directions": "directions|problem"}, tolerance=1e-6),
    *(
        call
        for kind in (REGRESSION, OBJECTIVE)
        for call in (
            of_model("features", kind, lambda kind, problem: kind.features(problem)),
            of_model("predict", kind, lambda kind, problem: predicted(kind.predict(problem, sweeps=1))),
            of_model("extrapolate", kind, lambda kind, problem: predicted(kind.extrapolate(problem))),
        )
    ),
    room(
        "amortized",
        "RegressionAmortization.fit",
        lambda f, g: amortized.RegressionAmortization(DIRECTIONS, epsilon=0.5).fit(PROBLEMS, potentials=[f, g]).coefficients,
        {"f": F, "g": t(0.5, 0.25, -0.25, 0.0)},
        names={"f": "potential", "g": "potential"},
    ),
    room("amortized", "ObjectiveAmortization.fit",
         lambda directions: model(amortized.ObjectiveAmortization, directions).coefficients,
         {"directions": DIRECTIONS}, names={"directions": "directions|problem"}, tolerance=1e-3, single=None),
    *(
        room("amortized", f"{kind.__name__}.fit, {name}", run)
        for kind, model in ((amortized.RegressionAmortization, REGRESSION), (amortized.ObjectiveAmortization, OBJECTIVE))
        for name, run in (
            ("coefficients", lambda model=model: model.coefficients),
            ("save", stored(kind)),
            ("load", stored(kind)),
        )
    ),
    room("amortized", "pair_sampler", lambda: amortized.pair_sampler(REGRESSION, rows(X0), TARGET)(5, generator=generator())),
]  # fmt: skip
