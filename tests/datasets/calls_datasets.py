"""Calls of the room ``datasets``."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from calls import Call

from dynot_lite.datasets import toy, w2_benchmark
from dynot_lite.datasets.files import as_images, cities, countries, load_images, load_points
from dynot_lite.datasets.images import colour_sample, digit_density, digits, luminance, maze, patches, photographs
from dynot_lite.datasets.mnist import mnist
from dynot_lite.datasets.samplers import clusters, from_colours, from_points, normal

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


def array_file() -> Path:
    np.save(FOLDER / "points.npy", X.numpy())
    return FOLDER / "points.npy"


def image_file() -> Path:
    np.save(FOLDER / "images.npy", IMAGE.numpy()[None])
    return FOLDER / "images.npy"


def small(folder):
    found = mnist(folder=folder)
    return found.images[:20], found.labels, found.test_images[:20], found.test_labels


def toys(name) -> Call:
    sample = seeded(getattr(toy, name))
    return Call(f"datasets.toy.{name}", lambda n, generator: sample(n, generator=generator), {}, excused=DEFAULT, **SAMPLER)


CALLS = [
    *map(toys, toy.__all__),
    Call("datasets.files.cities", cities, {}),
    Call("datasets.files.countries", lambda: countries()[1:], {}),
    Call(
        "datasets.files.load_points",
        lambda path, size: load_points(path, size=size),
        {},
        options={"path": ("path", array_file()), "size": ("count", 2)},
    ),
    Call(
        "datasets.files.load_images",
        lambda path, size: load_images(path, size=size)[0],
        {},
        options={"path": ("path", image_file()), "size": ("count", 2)},
    ),
    Call(
        "datasets.files.as_images",
        lambda images, size: as_images(images, size=size),
        {"images": IMAGE[None]},
        options={"size": ("count", 2)},
        limits={"levels": ({"images": torch.full((1, 2, 2), 51.0)}, torch.full((1, 1, 2, 2), 0.2))},
        tolerance=1e-6,
        excused=dict.fromkeys(("short unsigned integers", "integers", "booleans"), "levels, tested by themselves"),
    ),
    Call("datasets.mnist.mnist", small, {}, options={"folder": ("path", FOLDER)}),
    Call("datasets.images.digits", digits, {}),
    Call("datasets.images.maze", lambda size: maze(size=size), {}, options={"size": ("count", 2)}),
    Call(
        "datasets.images.patches",
        lambda image: patches(image, size=2),
        {"image": IMAGE},
        excused={"image: a wrong length": "an image may have any number of channels"},
    ),
    Call("datasets.images.patches, size", lambda size: patches(IMAGE, size=size), {}, options={"size": ("count", 1)}),
    Call("datasets.images.photographs", lambda size: photographs(size=size), {}, options={"size": ("size", (5, 8))}),
    Call(
        "datasets.images.colour_sample",
        lambda image, n, generator: seeded(colour_sample)(image, n, generator=generator),
        {"image": IMAGE},
        limits={"every pixel": ({"image": IMAGE[:1, :1], "n": 1}, IMAGE[0, :1])},
        **SAMPLER,
    ),
    Call(
        "datasets.images.digit_density",
        lambda index, n, margin: digit_density(index, n, margin=margin),
        {},
        options={"index": ("count or none", 0), "n": ("count", 12), "margin": ("share", 0.125)},
        names={"n": r"\bn\b"},
    ),
    Call(
        "datasets.images.luminance",
        luminance,
        {"image": IMAGE},
        limits={"one pixel": ({"image": IMAGE[1:2, :1]}, torch.ones(1, 1)), "black": ({"image": 0 * IMAGE}, "image")},
    ),
    Call(
        "datasets.samplers.normal",
        lambda dim, n, generator: seeded(normal(dim))(n, generator=generator),
        {},
        options={"dim": ("count", 3)} | SAMPLER["options"],
        names=SAMPLER["names"],
        excused=DEFAULT,
    ),
    Call(
        "datasets.samplers.from_points",
        lambda points, n, generator: seeded(from_points(points))(n, generator=generator),
        {"points": X},
        units={"points": 1},
        result_units=(1,),
        moved=("points",),
        result_moved=(True,),
        limits={"one point": ({"points": X[:1], "n": 2}, X[[0, 0]])},
        excused={"a wrong length": "points of any dimension are valid"},
        **SAMPLER,
    ),
    Call(
        "datasets.samplers.from_points, labels",
        lambda labels, n, generator: seeded(from_points(X, labels))(n, generator=generator)[1],
        {"labels": torch.tensor([0.0, 2.0, 1.0], dtype=torch.float64)},
        **SAMPLER,
    ),
    Call(
        "datasets.samplers.from_colours",
        lambda image, n, generator, scale: seeded(from_colours(image, scale=scale))(n, generator=generator),
        {"image": IMAGE},
        options=SAMPLER["options"] | {"scale": ("number", 0.25)},
        names=SAMPLER["names"],
        limits={"one pixel": ({"image": IMAGE[:1, :1], "n": 2, "scale": 0}, IMAGE[0, [0, 0]])},
        single=None,
    ),
    Call(
        "datasets.samplers.clusters",
        lambda n, dim, generator: seeded(clusters)(n, dim, generator=generator),
        {},
        options={"dim": ("count", 3)} | SAMPLER["options"],
        names=SAMPLER["names"],
        limits={"one point": ({"n": 1}, torch.zeros(1, 3))},
        excused=DEFAULT,
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
