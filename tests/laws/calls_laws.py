"""Calls of the room ``laws``."""

import torch
from calls import Call

from dynot_lite.laws.gaussian import (
    Affine,
    Gaussian,
    entropic_plan,
    fm_flow,
    fm_kinetic_energy,
    fm_velocity,
    geodesic,
    monge_map,
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
NAMES = {"m0": "mean|cov", "m1": "mean|cov", "cov0": "cov", "cov1": "cov"}
UNITS = {"m0": 1, "cov0": 2, "m1": 1, "cov1": 2, "c": 2, "x": 1}


def laws(m0, cov0, m1, cov1):
    return Gaussian(m0, cov0), Gaussian(m1, cov1)


def pair(name, function, *, arrays=ENDS, **options):
    options = {"names": NAMES, "units": UNITS, "moved": tuple(key for key in ("m0", "m1", "x") if key in arrays)} | options
    return Call(f"laws.gaussian.{name}", function, arrays, **options)


W, MEANS = t(0.25, 0.75), t([0.0, 1.0], [2.0, -1.0])
COVS = torch.stack([A, B])

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
        lambda m0, cov0: Gaussian(m0, cov0).sample(5, generator=torch.Generator().manual_seed(0)),
        {"m0": M0, "cov0": A},
        names=NAMES,
        units=UNITS,
        result_units=(1,),
        moved=("m0",),
        result_moved=(True,),
        single=None,
    ),
    Call(
        "laws.gaussian.Gaussian.quadrature",
        lambda m0, cov0: Gaussian(m0, cov0).quadrature(3),
        {"m0": M0, "cov0": A},
        names=NAMES,
        units=UNITS,
        result_units=(1, 0),
        moved=("m0",),
        result_moved=(True, False),
    ),
    Call("laws.gaussian.Affine", lambda x: Affine(C, M0)(x), {"x": X}),
    Call(
        "laws.gaussian.Affine.push_forward",
        lambda m0, cov0: Affine(C, M1).push_forward(Gaussian(m0, cov0)).cov,
        {"m0": M0, "cov0": A},
        names=NAMES,
    ),
    pair("w2_squared", lambda **ends: w2_squared(*laws(**ends)), result_units=(2,)),
    pair(
        "monge_map",
        lambda **ends: (lambda a: (a.matrix, a(X)))(monge_map(*laws(**ends))),
        result_units=(0, 0),
        units=None,
        moved=(),
    ),
    pair(
        "geodesic",
        lambda **ends: (lambda g: (g.mean, g.cov))(geodesic(*laws(**ends), 0.25)),
        result_units=(1, 2),
        result_moved=(True, False),
    ),
    pair(
        "fm_velocity",
        lambda x, c, **ends: fm_velocity(*laws(**ends), 0.25, x, cross_cov=c),
        arrays=ENDS | {"x": X, "c": C},
        names=NAMES | {"c": "cross_cov"},
        result_units=(1,),
    ),
    pair("fm_flow", lambda **ends: fm_flow(*laws(**ends), 0.5).matrix),
    pair("fm_kinetic_energy", lambda **ends: fm_kinetic_energy(*laws(**ends)), result_units=(2,)),
    pair(
        "entropic_plan",
        lambda **ends: (lambda e: (e.cross_cov, e.cost))(entropic_plan(*laws(**ends), 0.5)),
        units=None,
        result_moved=(False, False),
    ),
    pair(
        "schroedinger_bridge",
        lambda **ends: (lambda s: (s.cross_cov, s.energy))(schroedinger_bridge(*laws(**ends), 0.5)),
        units=None,
        result_moved=(False, False),
    ),
    pair(
        "SchroedingerBridge.drift",
        lambda x, **ends: schroedinger_bridge(*laws(**ends), 0.5).drift(0.25, x),
        arrays=ENDS | {"x": X},
        units=None,
    ),
    pair(
        "SchroedingerBridge.velocity",
        lambda x, **ends: schroedinger_bridge(*laws(**ends), 0.5).velocity(0.25, x),
        arrays=ENDS | {"x": X},
        units=None,
    ),
    pair("SchroedingerBridge.marginal", lambda **ends: schroedinger_bridge(*laws(**ends), 0.5).marginal(0.25).cov, units=None),
    Call(
        "laws.mixtures.GaussianMixture.log_prob",
        lambda weights, means, covs, x: GaussianMixture(weights, means, covs).log_prob(x).diff(),
        {"weights": W, "means": MEANS, "covs": COVS, "x": X},
        names={"covs": "cov", "means": "means|cov"},
        units={"means": 1, "covs": 2, "x": 1},
        moved=("means", "x"),
    ),
    Call(
        "laws.mixtures.GaussianMixture.sample",
        lambda weights, means, covs: GaussianMixture(weights, means, covs).sample(5, generator=torch.Generator().manual_seed(0)),
        {"weights": W, "means": MEANS, "covs": COVS},
        names={"covs": "cov", "means": "means|cov"},
        units={"means": 1, "covs": 2},
        result_units=(1,),
        moved=("means",),
        result_moved=(True,),
        single=None,
    ),
    Call(
        "laws.mixtures.fm_velocity_mixture",
        lambda weights, means0, means1, cov0, cov1, x: fm_velocity_mixture(weights, means0, means1, cov0, cov1, 0.25, x),
        {"weights": W, "means0": MEANS, "means1": MEANS.flip(0) + 0.5, "cov0": COVS, "cov1": COVS.flip(0), "x": X},
        names={"means0": "mean", "means1": "mean", "cov0": "cov", "cov1": "cov"},
        units={"means0": 1, "means1": 1, "cov0": 2, "cov1": 2, "x": 1},
        result_units=(1,),
        moved=("means0", "means1", "x"),
    ),
    Call(
        "laws.mixtures.fm_velocity_diracs",
        lambda points, x, weights: fm_velocity_diracs(points, 0.5, x, weights=weights),
        {"points": MEANS, "x": X, "weights": W},
        names={"points": "points|x"},
    ),
]
