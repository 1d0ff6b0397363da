"""Calls of the room ``datasets``."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import torch
from calls import Call

from dynot_lite.datasets import toy, w2_benchmark
from dynot_lite.datasets.files import cities
from dynot_lite.datasets.images import colour_sample, digits, photographs

FOLDER = Path(tempfile.mkdtemp())
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
X = torch.tensor([[0.5, 1.0], [-1.0, 0.25], [2.0, -0.5]], dtype=torch.float64)
IMAGE = torch.arange(24, dtype=torch.float64).reshape(4, 2, 3) / 32
SAMPLER = {"options": {"n": ("count", 4), "generator": ("generator", None)}, "names": {"n": r"\bn\b"}}
DEFAULT = {"default dtype": "it is the one of the numbers drawn"}


def seeded(function):
    """The sampler with a generator of its own, if none is given."""

    @functools.wraps(function)
    def drawn(*arguments, generator=None, **options):
        return function(*arguments, generator=torch.Generator().manual_seed(0) if generator is None else generator, **options)

    return drawn


def quickly(function):
    """With fewer points for the standardisation: what they are for is tested elsewhere."""

    @functools.wraps(function)
    def patched(*arguments, **options):
        with mock.patch.object(w2_benchmark, "STANDARDISATION", 2**8):
            return function(*arguments, **options)

    return patched


@functools.cache
@quickly
def pair() -> w2_benchmark.W2Benchmark:
    return w2_benchmark.synthetic_w2_pair(2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@quickly
def made(dim, dtype, generator):
    return seeded(w2_benchmark.synthetic_w2_pair)(dim, dtype=dtype, generator=generator).target_variance


def saved(dim, directory, generator=None):
    seeded(w2_benchmark.save_w2_pair)(dim, directory, generator=generator)
    return len(list(Path(directory).glob(f"{dim}_v*.pt")))


@quickly
def read(dim, directory, dtype):
    if not list(FOLDER.glob("1_v*.pt")):
        w2_benchmark.save_w2_pair(1, FOLDER, generator=torch.Generator().manual_seed(0))
    return w2_benchmark.w2_benchmark(dim, directory, dtype=dtype).target_variance


def toys(name) -> Call:
    sample = seeded(getattr(toy, name))
    return Call(f"datasets.toy.{name}", lambda n, generator: sample(n, generator=generator), {}, excused=DEFAULT, **SAMPLER)


CALLS = [
    *map(toys, toy.__all__),
    Call("datasets.files.cities", cities, {}),
    Call("datasets.images.digits", digits, {}),
    Call("datasets.images.photographs", lambda size: photographs(size=size), {}, options={"size": ("size", (5, 8))}),
    Call(
        "datasets.images.colour_sample",
        lambda image, n, generator: seeded(colour_sample)(image, n, generator=generator),
        {"image": IMAGE},
        limits={"every pixel": ({"image": IMAGE[:1, :1], "n": 1}, IMAGE[0, :1])},
        **SAMPLER,
    ),
    Call(
        "datasets.w2_benchmark.W2Benchmark.source",
        lambda n, generator: seeded(pair().source)(n, generator=generator),
        {},
        **SAMPLER,
    ),
    Call(
        "datasets.w2_benchmark.W2Benchmark.target",
        lambda n, generator: seeded(pair().target)(n, generator=generator),
        {},
        **SAMPLER,
    ),
    Call(
        "datasets.w2_benchmark.W2Benchmark.transport",
        lambda x: pair().transport(x),
        {"x": X},
        rows=[{"x": 0, "result": 0}],
        cut={"x": "a benchmark's map is data"},
    ),
    Call(
        "datasets.w2_benchmark.synthetic_w2_pair",
        made,
        {},
        options={"dim": ("count", 1), "dtype": ("dtype", torch.float64), "generator": ("generator", None)},
    ),
    Call(
        "datasets.w2_benchmark.save_w2_pair",
        saved,
        {},
        options={"dim": ("count", 2), "directory": ("path", FOLDER), "generator": ("generator", None)},
    ),
    Call(
        "datasets.w2_benchmark.w2_benchmark",
        read,
        {},
        options={"dim": ("count", 1), "directory": ("path", FOLDER), "dtype": ("dtype", torch.float64)},
    ),
]
