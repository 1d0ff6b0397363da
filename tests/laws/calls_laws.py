"""Calls of the room ``laws``."""

import torch
from calls import Call

from dynot_lite.laws.coupled import MixtureCoupling, fm_law, mccann_velocity
from dynot_lite.laws.gaussian import (
    Affine,
    Gaussian,
    entropic_plan,
    fm_flow,
    fm_kinetic_energy,
    fm_velocity,
    geodesic,
    geometric_mean,
    monge_map,
    random_gaussian,
    schroedinger_bridge,
    w2_squared,
)
from dynot_lite.laws.mixtures import GaussianMixture, fm_velocity_diracs, fm_velocity_mixture


def t(*rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


M0, A = t(0.5, -1.0), t([2.0, 0.5], [0.5, 1.0])
M1, B = t(1.5, 0.75), t([1.0, -0.5], [-0.5, 3.0])
C = t([0.5, 0.25], [-0.25, 0.5])  # Cov(X0, X1), not symmetric
X = t([0.5, 1.0], [-1.0, 0.25], [2.0, -0.5])
ENDS = {"m0": M0, "cov0": A, "m1": M1, "cov1": B}
LAWS = "mean|cov|one Gaussian|the laws"
NAMES = {"m0": LAWS, "m1": LAWS, "cov0": "cov|one Gaussian|the laws", "cov1": "cov|the laws", "t": r"\bt\b", "n": r"\bn\b"}
UNITS = {"m0": 1, "cov0": 2, "m1": 1, "cov1": 2, "c": 2, "x": 1}


DIMS = {"m0": -1, "cov0": (-2, -1), "m1": -1, "cov1": (-2, -1)}


def laws(m0, cov0, m1, cov1):
    return Gaussian(m0, cov0), Gaussian(m1, cov1)


def pair(name, function, *, arrays=ENDS, module="gaussian", **options):
    options = {"names": NAMES, "units": UNITS, "moved": tuple(key for key in ("m0", "m1", "x") if key in arrays)} | options
    return Call(f"laws.{module}.{name}", function, arrays, **options)


W, MEANS = t(0.25, 0.75), t([0.0, 1.0], [2.0, -1.0])
COVS = torch.stack([A, B])
LINE = {"weights": W, "means": t([0.0], [2.0]), "covs": t([[0.25]], [[4.0]])}
LINE_NAMES = {"covs": "cov", "means": "means|cov", "n": r"\bn\b"}


def mixed(run, name, *, x=True, **options):
    """A call of a method of a coupling."""
    arrays = {"weights": W, "means0": MEANS, "means1": MEANS.flip(0) + 0.5, "cov0": COVS, "cov1": COVS.flip(0), "c": 0.5 * C}
    shared = {
        "names": {
            "means0": "means0|means1|the laws",
            "means1": "means1|the laws",
            "cov0": "cov",
            "cov1": "cov",
            "c": "cross_cov",
            "t": r"\bt\b",
            "n": r"\bn\b",
        },
        "units": {"means0": 1, "means1": 1, "cov0": 2, "cov1": 2, "c": 2, "x": 1},
        "moved": ("means0", "means1", *(["x"] if x else [])),
    }
    return Call(
        f"laws.coupled.MixtureCoupling{name}",
        lambda weights, means0, means1, cov0, cov1, c, **more: run(
            MixtureCoupling(weights, means0, means1, cov0, cov1, c), **more
        ),
        arrays | ({"x": X} if x else {}),
        **shared | options,
    )


def parts(law):
    """The numbers of a mixture or a coupling."""
    if isinstance(law, GaussianMixture):
        return law.weights, law.means, law.covs
    return law.weights, law.means0, law.means1, law.cov0, law.cov1, law.cross_cov


CALLS = [
    Call(
        "laws.gaussian.Gaussian.log_prob",
        lambda m0, cov0, x: Gaussian(m0, cov0).log_prob(x).diff(),
        {"m0": M0, "cov0": A, "x": X},
        names=NAMES,
        units=UNITS,
        moved=("m0", "x"),
    ),
    Call(
        "laws.gaussian.Gaussian.sample",
        lambda m0, cov0, n, generator: Gaussian(m0, cov0).sample(
            n, generator=torch.Generator().manual_seed(0) if generator is None else generator
        ),
        {"m0": M0, "cov0": A},
        names=NAMES,
        options={"n": ("count", 5), "generator": ("generator", None)},
        units=UNITS,
        result_units=(1,),
        moved=("m0",),
        result_moved=(True,),
        single=None,
    ),
    Call(
        "laws.gaussian.Gaussian.quadrature",
        lambda m0, cov0, order: Gaussian(m0, cov0).quadrature(order),
        {"m0": M0, "cov0": A},
        options={"order": ("count", 3)},
        names=NAMES,
        units=UNITS,
        result_units=(1, 0),
        moved=("m0",),
        result_moved=(True, False),
    ),
    Call("laws.gaussian.Affine", lambda x: Affine(C, M0)(x), {"x": X}, rows=[{"x": 0, "result": 0}]),
    Call(
        "laws.gaussian.Affine, constructed",
        lambda matrix, offset: Affine(matrix, offset)(X),
        {"matrix": C, "offset": M0},
        names={"offset": "offset|matrix", "matrix": "matrix|offset|x must have dimension"},
    ),
    Call(
        "laws.gaussian.Gaussian",
        lambda mean, cov: (lambda p: (p.mean, p.cov))(Gaussian(mean, cov)),
        {"mean": M0, "cov": A},
        names={"mean": "mean|cov"},
    ),
    Call(
        "laws.mixtures.GaussianMixture",
        lambda weights, means, covs: (lambda p: (p.weights, p.means, p.covs))(GaussianMixture(weights, means, covs)),
        {"weights": W, "means": MEANS, "covs": COVS},
        names={"covs": "cov", "means": "means|cov"},
    ),
    Call(
        "laws.gaussian.Affine.push_forward",
        lambda m0, cov0: Affine(C, M1).push_forward(Gaussian(m0, cov0)).cov,
        {"m0": M0, "cov0": A},
        names=NAMES,
    ),
    pair("w2_squared", lambda **ends: w2_squared(*laws(**ends)), result_units=(2,), dims=DIMS | {"result": None}),
    pair(
        "monge_map",
        lambda **ends: (lambda a: (a.matrix, a(X)))(monge_map(*laws(**ends))),
        result_units=(0, 0),
        units=None,
        moved=(),
    ),
    pair(
        "geodesic",
        lambda t, **ends: (lambda g: (g.mean, g.cov))(geodesic(*laws(**ends), t)),
        options={"t": ("time", 0.25)},
        result_units=(1, 2),
        result_moved=(True, False),
    ),
    Call(
        "laws.gaussian.geometric_mean",
        geometric_mean,
        {"cov0": A, "cov1": B},
        names={"cov0": "cov0|cov1", "cov1": "cov1|cov0"},
        units={"cov0": 2, "cov1": 2},
        result_units=(2,),
        dims={"cov0": (-2, -1), "cov1": (-2, -1), "result": (-2, -1)},
        limits={
            "a line": ({"cov0": [[4.0]], "cov1": [[9.0]]}, t([6.0])),
            "a point": ({"cov0": [[0.0]], "cov1": [[9.0]]}, t([0.0])),
            "two points": ({"cov0": [[0.0]], "cov1": [[0.0]]}, "cov0 or cov1 must be definite"),
        },
    ),
    Call(
        "laws.gaussian.random_gaussian",
        lambda dim, generator: (lambda p: (p.mean, p.cov))(
            random_gaussian(dim, generator=torch.Generator().manual_seed(0) if generator is None else generator)
        ),
        {},
        options={"dim": ("count", 3), "generator": ("generator", None)},
    ),
    pair(
        "fm_velocity",
        lambda x, c, t, **ends: fm_velocity(*laws(**ends), t, x, cross_cov=c),
        options={"t": ("time", 0.25)},
        rows=[{"x": 0, "result": 0}],
        dims=DIMS | {"x": -1, "c": (-2, -1), "result": -1},
        arrays=ENDS | {"x": X, "c": C},
        names=NAMES | {"c": "cross_cov"},
        result_units=(1,),
    ),
    pair(
        "fm_flow",
        lambda t, **ends: fm_flow(*laws(**ends), t).matrix,
        options={"t": ("time", 0.5)},
        dims=DIMS | {"result": (-2, -1)},
    ),
    pair("fm_kinetic_energy", lambda **ends: fm_kinetic_energy(*laws(**ends)), result_units=(2,), dims=DIMS | {"result": None}),
    pair(
        "entropic_plan",
        lambda epsilon, **ends: (lambda e: (e.cross_cov, e.cost))(entropic_plan(*laws(**ends), epsilon)),
        options={"epsilon": ("positive", 0.5)},
        dims=DIMS | {"result": [(-2, -1), None]},
        units=None,
        result_moved=(False, False),
    ),
    pair(
        "schroedinger_bridge",
        lambda sigma, **ends: (lambda s: (s.cross_cov, s.energy))(schroedinger_bridge(*laws(**ends), sigma)),
        options={"sigma": ("positive", 0.5)},
        dims=DIMS | {"result": [(-2, -1), None]},
        units=None,
        result_moved=(False, False),
    ),
    pair(
        "SchroedingerBridge.drift",
        lambda x, t, **ends: schroedinger_bridge(*laws(**ends), 0.5).drift(t, x),
        arrays=ENDS | {"x": X},
        options={"t": ("time", 0.25)},
        rows=[{"x": 0, "result": 0}],
        dims=DIMS | {"x": -1, "result": -1},
        units=None,
    ),
    pair(
        "SchroedingerBridge.velocity",
        lambda x, t, **ends: schroedinger_bridge(*laws(**ends), 0.5).velocity(t, x),
        arrays=ENDS | {"x": X},
        options={"t": ("time", 0.25)},
        rows=[{"x": 0, "result": 0}],
        dims=DIMS | {"x": -1, "result": -1},
        units=None,
    ),
    pair(
        "SchroedingerBridge.marginal",
        lambda t, **ends: schroedinger_bridge(*laws(**ends), 0.5).marginal(t).cov,
        options={"t": ("time", 0.25)},
        units=None,
    ),
    Call(
        "laws.mixtures.GaussianMixture.log_prob",
        lambda weights, means, covs, x: GaussianMixture(weights, means, covs).log_prob(x).diff(),
        {"weights": W, "means": MEANS, "covs": COVS, "x": X},
        names={"covs": "cov|the laws", "means": "means|cov|the laws", "n": r"\bn\b"},
        units={"means": 1, "covs": 2, "x": 1},
        moved=("means", "x"),
    ),
    Call(
        "laws.mixtures.GaussianMixture.sample",
        lambda weights, means, covs, n, generator: GaussianMixture(weights, means, covs).sample(
            n, generator=torch.Generator().manual_seed(0) if generator is None else generator
        ),
        {"weights": W, "means": MEANS, "covs": COVS},
        options={"n": ("count", 5), "generator": ("generator", None)},
        names={"covs": "cov|the laws", "means": "means|cov|the laws", "n": r"\bn\b"},
        units={"means": 1, "covs": 2},
        result_units=(1,),
        moved=("means",),
        result_moved=(True,),
        single=None,
    ),
    Call(
        "laws.mixtures.fm_velocity_mixture",
        lambda weights, means0, means1, cov0, cov1, x, t: fm_velocity_mixture(weights, means0, means1, cov0, cov1, t, x),
        {"weights": W, "means0": MEANS, "means1": MEANS.flip(0) + 0.5, "cov0": COVS, "cov1": COVS.flip(0), "x": X},
        names={"means0": "mean|the laws", "means1": "mean|the laws", "cov0": "cov", "cov1": "cov", "t": r"\bt\b"},
        options={"t": ("time", 0.25)},
        rows=[{"x": 0, "result": 0}],
        units={"means0": 1, "means1": 1, "cov0": 2, "cov1": 2, "x": 1},
        result_units=(1,),
        moved=("means0", "means1", "x"),
    ),
    Call(
        "laws.mixtures.fm_velocity_diracs",
        lambda points, x, weights, t: fm_velocity_diracs(points, t, x, weights=weights),
        {"points": MEANS, "x": X, "weights": W},
        names={"points": "points|x|the laws", "x": "x|the laws", "t": r"\bt\b"},
        options={"t": ("time", 0.5)},
        rows=[{"x": 0, "result": 0}],
        dims={"points": -1, "x": -1, "result": -1},
    ),
    Call(
        "laws.mixtures.GaussianMixture.cdf",
        lambda x, **law: GaussianMixture(**law).cdf(x),
        LINE | {"x": t([0.5], [-1.0], [3.0])},
        names=LINE_NAMES,
        rows=[{"x": 0, "result": 0}],
        units={"means": 1, "covs": 2, "x": 1},
        moved=("means", "x"),
        limits={"atoms": ({"covs": t([[0.0]], [[0.0]]), "x": t([-0.5], [0.0], [1.0], [2.0])}, t(0.0, 0.25, 0.25, 1.0))},
    ),
    Call(
        "laws.mixtures.GaussianMixture.quantile",
        lambda levels, **law: GaussianMixture(**law).quantile(levels),
        LINE | {"levels": t(0.5, 0.125, 0.875)},
        names=LINE_NAMES,
        rows=[{"levels": 0, "result": 0}],
        excused={"levels: a wrong length": "there may be any number of levels"},
        units={"means": 1, "covs": 2},
        result_units=(1,),
        moved=("means",),
        result_moved=(True,),
        limits={"atoms": ({"covs": t([[0.0]], [[0.0]]), "levels": t(0.125, 0.25, 0.5)}, t([0.0], [0.0], [2.0]))},
    ),
    pair(
        "fm_law",
        lambda c, t, **ends: (lambda p: (p.mean, p.cov))(fm_law(*laws(**ends), t, cross_cov=c)),
        arrays=ENDS | {"c": C},
        module="coupled",
        names=NAMES | {"c": "cross_cov"},
        options={"t": ("time", 0.25)},
        dims=DIMS | {"c": (-2, -1), "result": [-1, (-2, -1)]},
        result_units=(1, 2),
        result_moved=(True, False),
    ),
    pair(
        "mccann_velocity",
        lambda x, t, **ends: mccann_velocity(*laws(**ends))(t, x),
        arrays=ENDS | {"x": X},
        module="coupled",
        names=NAMES,
        options={"t": ("time", 0.25)},
        rows=[{"x": 0, "result": 0}],
        dims=DIMS | {"x": -1, "result": -1},
        result_units=(1,),
    ),
    mixed(parts, "", x=False, result_units=(0, 1, 1, 2, 2, 2), result_moved=(False, True, True, False, False, False)),
    mixed(
        lambda found, t, x: found.velocity(t, x),
        ".velocity",
        options={"t": ("time", 0.25)},
        rows=[{"x": 0, "result": 0}],
        result_units=(1,),
    ),
    mixed(
        lambda found, t: parts(found.law(t)),
        ".law",
        x=False,
        options={"t": ("time", 0.25)},
        result_units=(0, 1, 2),
        result_moved=(False, True, False),
    ),
    mixed(
        lambda found: parts(found.product()),
        ".product",
        x=False,
        result_units=(0, 1, 1, 2, 2, 2),
        result_moved=(False, True, True, False, False, False),
    ),
    mixed(
        lambda found, n, generator: found.sample(
            n, generator=torch.Generator().manual_seed(0) if generator is None else generator
        ),
        ".sample",
        x=False,
        options={"n": ("count", 5), "generator": ("generator", None)},
        result_units=(1, 1),
        result_moved=(True, True),
        single=None,
    ),
]
