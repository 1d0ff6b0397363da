"""Calls of ``metrics``."""

import torch
from calls import Call

from dynot_lite.metrics import (
    cosine,
    coverage,
    energy_distance,
    frechet_distance,
    l2_uvp,
    memorisation,
    path_energy,
    sample_w2_squared,
)


def t(*rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


X0 = t([0.5, 1.0], [-1.0, 0.25], [2.0, -0.5])
X1 = t([1.5, 0.0], [-0.5, 1.25], [0.25, 2.0], [3.0, -1.0])
X = t([0.0, 0.5], [1.0, -1.0], [0.25, 0.75])
TRUTH = t([1.5, 0.0], [-0.5, 1.25], [0.25, 2.0])
MANY = torch.cat([X0 + 0.125, X1 - 0.25])
TIMES, WEIGHTS0, WEIGHTS1 = t(0.0, 0.25, 0.75, 1.0), t(0.25, 0.5, 0.25), t(0.25, 0.125, 0.375, 0.25)
POSITIONS = torch.stack([X0, X, TRUTH, X + 1])
BOTH = {"dims": {"x0": -1, "x1": -1, "result": None}, "units": {"x0": 1, "x1": 1}, "moved": ("x0", "x1")}
MAPS = [{"mapped": 0, "truth": 0, "result": None}]

CALLS = [
    Call(
        "metrics.path_energy",
        lambda times, positions: (lambda e: (e.energy, e.displacement, e.straightness))(path_energy(times, positions)),
        {"times": TIMES, "positions": POSITIONS},
        names={"positions": "positions|points"},
        excused={"positions: a wrong length": "points of any dimension"},
        rows=[{"positions": 1, "result": None}],
        dims={"positions": -1, "result": None},
        units={"positions": 1},
        result_units=(2, 2, 2),
        moved=("positions",),
        result_moved=(False, False, False),
        limits={"one point, one step": ({"times": [0, 1], "positions": [[[1.0]], [[4.0]]]}, (9.0, 9.0, 0.0))},
    ),
    Call(
        "metrics.sample_w2_squared",
        lambda x0, x1, weights0, weights1: sample_w2_squared(x0, x1, weights0=weights0, weights1=weights1),
        {"x0": X0, "x1": X1, "weights0": WEIGHTS0, "weights1": WEIGHTS1},
        names={"x0": "x0|x1"},
        rows=[{"x0": 0, "weights0": 0, "result": None}, {"x1": 0, "weights1": 0, "result": None}],
        result_units=(2,),
        limits={"points": ({"x0": [[1.0]], "x1": [[3.0]], "weights0": [1.0], "weights1": [1.0]}, 4.0)},
        **BOTH,
    ),
    Call(
        "metrics.energy_distance",
        energy_distance,
        {"x0": X0, "x1": X1},
        names={"x0": "x0|points", "x1": "x1|points"},
        rows=[{"x0": 0, "result": None}, {"x1": 0, "result": None}],
        result_units=(1,),
        # 2·E|X − Y| − 1 − 2 with distances 3, 5, 2, 4
        limits={
            "a line": ({"x0": [[0.0], [1.0]], "x1": [[3.0], [5.0]]}, 4.0),
            "one point": ({"x0": [[0.0, 1.0]]}, "x0.*two points"),
        },
        **BOTH,
    ),
    Call(
        "metrics.frechet_distance",
        frechet_distance,
        {"features0": X0, "features1": X1},
        names={"features0": "features0|points", "features1": "features1|points"},
        rows=[{"features0": 0, "result": None}, {"features1": 0, "result": None}],
        dims={"features0": -1, "features1": -1, "result": None},
        units={"features0": 1, "features1": 1},
        result_units=(2,),
        moved=("features0", "features1"),
        # means 0.5 and 4, standard deviations √½ and √2
        limits={
            "a line": ({"features0": [[0.0], [1.0]], "features1": [[3.0], [5.0]]}, 12.75),
            "one point": ({"features0": [[0.0, 1.0]]}, "features0.*two points"),
        },
    ),
    Call(
        "metrics.coverage",
        coverage,
        {"x0": X0, "x1": MANY},
        names={"x0": "x0|points", "x1": "x1|points"},
        rows=[{"x0": 0, "result": None}, {"x1": 0, "result": None}],
        limits={"one sample": ({"x0": [[1.0, 0.0]]}, 1.0), "five data": ({"x1": MANY[:5]}, "x1.*six points")},
        **BOTH,
    ),
    Call(
        "metrics.memorisation",
        lambda x0, train, held_out: (lambda found: (found.closer, found.farther))(memorisation(x0, train, held_out)),
        {"x0": X0, "train": X1, "held_out": MANY},
        names={"x0": "x0|points", "train": "train|points", "held_out": "held_out|points"},
        rows=[{"x0": 0, "result": None}, {"train": 0, "result": None}, {"held_out": 0, "result": None}],
        dims={"x0": -1, "train": -1, "held_out": -1, "result": None},
        units={"x0": 1, "train": 1, "held_out": 1},
        result_units=(0, 0),
        moved=("x0", "train", "held_out"),
        result_moved=(False, False),
        limits={
            "a line": ({"x0": [[0.5]], "train": [[0.0], [4.0]], "held_out": [[2.0]]}, (1.5, 0.25)),
            "copies": ({"held_out": X1}, "held_out.*other points"),
        },
    ),
    Call(
        "metrics.l2_uvp",
        lambda mapped, truth, target_variance: l2_uvp(mapped, truth, target_variance),
        {"mapped": X, "truth": TRUTH},
        names={"mapped": "mapped|points", "truth": "truth|points"},
        options={"target_variance": ("positive", 2.0)},
        rows=MAPS,
        dims={"mapped": -1, "truth": -1, "result": None},
        units={"mapped": 1, "truth": 1},
        result_units=(2,),
        moved=("mapped", "truth"),
        limits={"one point": ({"mapped": [[1.0]], "truth": [[3.0]]}, 200.0)},
    ),
    Call(
        "metrics.cosine",
        cosine,
        {"x": X0, "mapped": X, "truth": TRUTH},
        names={"x": r"\bx\b|mapped|points", "mapped": "mapped|points", "truth": "truth|points"},
        rows=[{"x": 0, "mapped": 0, "truth": 0, "result": None}],
        dims={"x": -1, "mapped": -1, "truth": -1, "result": None},
        units={"x": 1, "mapped": 1, "truth": 1},
        moved=("x", "mapped", "truth"),
        limits={"one point on a line": ({"x": [[1.0]], "mapped": [[3.0]], "truth": [[0.0]]}, -1.0)},
    ),
]
