"""The leaderboard of the Wasserstein-2 benchmark: the score that every row has, and the rows that we did not run."""

import math
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite.datasets.w2_benchmark import W2Benchmark, w2_benchmark
from dynot_lite.metrics import TEST_SIZE, cosine, l2_uvp

__all__ = ["DIMENSIONS", "KINDS", "Row", "Score", "score", "submitted"]

DIMENSIONS = (2, 4, 8, 16, 32, 64, 128, 256)
KINDS = ("measured here", "submitted", "reported", "recalled")
"""What stands behind a figure: our own run, a submitter's, a publication that was read, or memory and third parties."""
SEED = 999  # of the test points: a training that draws from this seed has seen them
ROWS = Path(__file__).with_name("leaderboard.toml")


@dataclass(frozen=True)
class Score:
    """The error of a map on the test points.

    Attributes:
        dim: the dimension of the pair.
        uvp: L2-UVP in per cent, 100 E|T̂(x) - T(x)|²/Var(p1), where Var is the trace of the covariance.
        error: the standard error of ``uvp`` that 2¹⁴ test points leave.
        cosine: of the displacements T̂(x) - x and T(x) - x in L²(p0); NaN for the identity, which has none.
    """

    dim: int
    uvp: float
    error: float
    cosine: float


def score(transport: Callable[[Tensor], Tensor], pair: int | W2Benchmark) -> Score:
    """Score a forward map on the benchmark's pair: what a row of the leaderboard shows.

    The test points are 2¹⁴ of the source, of a generator with the seed 999, in float32: the same for everybody. The map is
    called with all of them at once and may answer with a tensor or a numpy array.

    Args:
        transport: x (n, d) -> T̂(x) (n, d).
        pair: a pair that is at hand, or the dimension of one whose checkpoints
            :func:`~dynot_lite.datasets.w2_benchmark.w2_benchmark` reads from the folder that DYNOT_DATA names.

    Raises:
        ValueError: missing checkpoints, no callable, another shape, or values that are not finite.

    >>> from dynot_lite.datasets.w2_benchmark import synthetic_w2_pair
    >>> pair = synthetic_w2_pair(2, generator=torch.Generator().manual_seed(0))
    >>> score(pair.transport, pair).uvp
    0.0
    """
    if not callable(transport):
        raise ValueError(f"transport must be a map x -> T(x), got {type(transport).__name__}")
    pair = pair if isinstance(pair, W2Benchmark) else w2_benchmark(pair)
    x = pair.source(TEST_SIZE, generator=torch.Generator().manual_seed(SEED))
    truth = pair.transport(x)
    with torch.no_grad():
        mapped = transport(x.clone())
    mapped = torch.from_numpy(np.array(mapped)) if not isinstance(mapped, Tensor) else mapped.detach()
    if mapped.shape != x.shape:
        raise ValueError(f"transport must return points of shape {tuple(x.shape)}, got {tuple(mapped.shape)}")
    mapped = check.points(mapped.to(x), "transport(x)", dim=pair.dim)
    squares = 100 * (mapped.double() - truth.double()).square().sum(1) / pair.target_variance
    error = squares.std().item() / math.sqrt(len(squares))
    aligned = math.nan if torch.equal(mapped, x) else cosine(x, mapped, truth)
    return Score(pair.dim, l2_uvp(mapped, truth, pair.target_variance), error, aligned)


@dataclass(frozen=True)
class Row:
    """A row of the leaderboard that was not measured here.

    Attributes:
        method: its name.
        kind: of :data:`KINDS`, for all its figures.
        source: where they come from.
        uvp: L2-UVP in per cent by dimension.
        budget, hardware: as the source states them.
    """

    method: str
    kind: str
    source: str
    uvp: dict[int, float]
    budget: str = ""
    hardware: str = ""


def submitted(path: Path = ROWS) -> list[Row]:
    """The rows of ``leaderboard.toml``: published ones, and those that readers add.

    Raises:
        ValueError: a row without a source, of an unknown kind, or with a figure that is not a positive number.
    """
    rows = []
    for fields in tomllib.loads(path.read_text(encoding="utf-8"))["row"]:
        uvp = {int(dim): float(value) for dim, value in fields.get("uvp", {}).items()}
        row = Row(**{"method": "a row", "kind": "", "source": ""} | fields | {"uvp": uvp})
        positive = bool(row.uvp) and set(row.uvp) <= set(DIMENSIONS) and all(value > 0 for value in row.uvp.values())
        if not row.source or row.kind not in KINDS[1:] or not positive:
            raise ValueError(f"{row.method} must have a source, a kind of {KINDS[1:]} and positive figures, got {fields}")
        rows.append(row)
    return rows
