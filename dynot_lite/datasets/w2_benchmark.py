"""The continuous Wasserstein-2 benchmark (arXiv 2106.01954): pairs of laws whose transport map is known.

The source is a mixture of three Gaussians, the map T the gradient of the sum of two pretrained input-convex networks, scaled
and shifted so that the target T#p0 has mean 0 and mean coordinate variance 1. The networks are public checkpoints.
"""

import hashlib
import itertools
import math
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dynot_lite._base import checkpoints, randomness
from dynot_lite._base import checks as check
from dynot_lite._base.folder import data_folder
from dynot_lite.potentials.convex import ConvexPotential

__all__ = ["W2Benchmark", "download_w2_benchmark", "save_w2_pair", "synthetic_w2_pair", "w2_benchmark"]

REPOSITORY = "iamalexkorotin/Wasserstein2Benchmark"
REVISION = "f0158e7a4f59ff38313aeee084c9d2ed397e6a43"
STRENGTH = 1e-2  # of each network
STANDARDISATION = 2**16  # points that fix the shift and the scale
SHA256 = {
    "2_v1.pt": "12fbf72953af1371002cb4a0b67757bd63b335e923fc5f7d4076fbeb81ee72b5",
    "2_v2.pt": "28d161bf7b352d678fb77f512b51266574da06455d3eabf9173695813efc1716",
    "4_v1.pt": "edbe9ff24297c685d070811930f2d17b63f0fd299cba0f792617798211e1bbc2",
    "4_v2.pt": "ec2a061e00be682b5212cfd9801d6d874768bd8b7ba3c2a80e2dc48d5a473425",
    "8_v1.pt": "0ace0d609d39eac0cbbb0f1e26ca1cd2329a8c48da7122f3118389755ca5be16",
    "8_v2.pt": "f2ef690cf8f9c3c9aed9c15471a64c8dc9da68f5d565b1c091d8f2e7caec5cb5",
    "16_v1.pt": "d50a23710ca3b71a01007cd53c6b578de087c9879e0506866bac9196357e1891",
    "16_v2.pt": "722088932a1a0dbbf9cc1e90a6b9d86df0536f4520caf205b33161c74c0dd574",
    "32_v1.pt": "d843897886c9346c3a0d14c2a0824f5b235ca4cf7932dda77a8c8f5c1a3fc201",
    "32_v2.pt": "34e8fed6bc0c7cfc54fa607b2bfb17118b70a1c135be486f55299299062f767f",
    "64_v1.pt": "ea8778313115151315cdc4a60198fea41e18800295559391c97e9a49b5b8f56c",
    "64_v2.pt": "2bbc6d8e5c7f29a6e188e23ea10b811e1b07b1bd0f355cc8916356eed2e7428b",
    "128_v1.pt": "69146834f2b33b6f05accbc7d4d49ef43e9517f38d5a7ab71c50a936c0c613ab",
    "128_v2.pt": "d03ed8ab9b8bab886ecc7d69e1dba1173b154f4eae9378a295a7cbbc93d52321",
}


class DenseICNN(ConvexPotential):
    """The benchmark's network: z_0 = q_0(x), z_l = celu(C_l z_{l-1} + q_l(x)), Ψ(x) = <f, z_L> + ½ strength |x|².

    Each q_l(x) = Σ_r <a_lr, x>² + <w_l, x> + b_l is convex (one of them per unit), and C_l ≥ 0, f ≥ 0 keep the sum so.

    Args:
        state: the tensors of a checkpoint by their names there.
    """

    def __init__(self, state: Mapping[str, Tensor], *, strength: float = STRENGTH):
        super().__init__(state["quadratic_layers.0.weight"].shape[1])
        self.strength = strength
        depth = sum(name.endswith("bias") for name in state)
        layers = range(depth)
        squares = [state[f"quadratic_layers.{i}.quadratic_decomposed"] for i in layers]  # (d, rank, width)
        self.rank = squares[0].shape[1]
        self.squares = _frozen(square.flatten(1) for square in squares)
        self.weights = _frozen(state[f"quadratic_layers.{i}.weight"] for i in layers)
        self.biases = _frozen(state[f"quadratic_layers.{i}.bias"] for i in layers)
        self.couplings = _frozen(state[f"convex_layers.{i}.weight"] for i in range(depth - 1))
        self.final = torch.nn.Parameter(state["final_layer.weight"][0], requires_grad=False)

    def _layers(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """What each layer's activation is applied to, and <a_lr, x>, shape (n, rank, width), of each layer."""
        projections = [(x @ square).unflatten(1, (self.rank, -1)) for square in self.squares]
        inner: list[Tensor] = []
        for i, (projection, weight, bias) in enumerate(zip(projections, self.weights, self.biases, strict=True)):
            quadratic = projection.square().sum(1) + x @ weight.T + bias
            if i:
                quadratic = quadratic + (inner[0] if i == 1 else torch.celu(inner[-1])) @ self.couplings[i - 1].T
            inner.append(quadratic)
        return inner, projections

    def _value(self, x: Tensor) -> Tensor:
        return torch.celu(self._layers(x)[0][-1]) @ self.final + 0.5 * self.strength * x.square().sum(-1)

    def _gradient(self, x: Tensor) -> Tensor:
        inner, projections = self._layers(x)
        gradient, sensitivity = self.strength * x, self.final.expand_as(inner[-1])
        for i in reversed(range(len(inner))):
            if i:  # the first layer has no activation; celu' is exp(min(·, 0))
                sensitivity = sensitivity * inner[i].clamp(max=0).exp()
            gradient = gradient + sensitivity @ self.weights[i]
            gradient = gradient + 2 * (projections[i] * sensitivity[:, None]).flatten(1) @ self.squares[i].T
            if i:
                sensitivity = sensitivity @ self.couplings[i - 1]
        return gradient


def _frozen(tensors) -> torch.nn.ParameterList:
    return torch.nn.ParameterList(torch.nn.Parameter(tensor, requires_grad=False) for tensor in tensors)


class _StandardisedSum(ConvexPotential):
    """Ψ(x) = scale (Σ_i Ψ_i(x) + <shift, x>)."""

    shift: Tensor
    scale: Tensor

    def __init__(self, potentials: list[ConvexPotential]):
        super().__init__(potentials[0].dim)
        self.potentials = torch.nn.ModuleList(potentials)
        like = next(self.parameters())
        self.register_buffer("shift", torch.zeros(self.dim).to(like))
        self.register_buffer("scale", torch.ones(()).to(like))

    def _value(self, x: Tensor) -> Tensor:
        return self.scale * (sum(potential._value(x) for potential in self.potentials) + x @ self.shift)  # type: ignore[operator]

    def _gradient(self, x: Tensor) -> Tensor:
        return self.scale * (sum(potential._gradient(x) for potential in self.potentials) + self.shift)  # type: ignore[operator]


@dataclass(frozen=True, eq=False)
class W2Benchmark:
    """A pair of laws with its Brenier map.

    Attributes:
        centres, maps: the source is the uniform mixture of the laws of ``centres[k] + 0.4 maps[k] N(0, I)``, shapes (3, d) and
            (3, d, d).
        potential: the Brenier potential Ψ, ∇Ψ#source = target.
        target_variance: the total variance (trace of the covariance) of the target, by which L2-UVP divides, estimated on the
            2^16 points that also fix shift and scale.
    """

    centres: Tensor
    maps: Tensor
    potential: ConvexPotential
    target_variance: float

    @property
    def dim(self) -> int:
        """The dimension d."""
        return self.centres.shape[1]

    def source(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``n`` independent points of the source, shape (n, d)."""
        return _mixture(self.centres, self.maps, n, generator)

    def target(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``n`` independent points of the target, shape (n, d): images of fresh points of the source."""
        return self.transport(self.source(n, generator=generator))

    def transport(self, x) -> Tensor:
        """The Brenier map ∇Ψ(x), shape (n, d)."""
        x = check.points(x, "x", dim=self.dim, like=self.centres)
        with torch.no_grad():
            return torch.cat([self.potential.gradient(part) for part in x.split(2**12)])  # parts fit into the cache


def w2_benchmark(dim: int, directory=None, *, dtype: torch.dtype = torch.float32) -> W2Benchmark:
    """The pair of the Wasserstein-2 benchmark in dimension ``dim`` (source: 3 Gaussians), from its public checkpoints.

    The shift and the scale are estimated on 2^16 points with a fixed seed; in the original they are estimated on 2^14 points of
    the machine's generator, so that figures agree to about 1 %.

    Args:
        directory: the folder with the files ``{dim}_v1.pt`` and ``{dim}_v2.pt``; the one that DYNOT_DATA names, or ``data`` in a
            clone, if left out.

    Raises:
        ValueError: no folder, or a file that is missing, damaged, or of another dimension; the message says how to get it.
    """
    check.count(dim, "dim")
    directory = data_folder() if directory is None else directory
    if not directory:
        raise ValueError(f"directory must name the folder with {dim}_v1.pt and {dim}_v2.pt, or set DYNOT_DATA: {_how(dim)}")
    files = [check.path(directory, "directory") / f"{dim}_v{i}.pt" for i in (1, 2)]
    return _pair([DenseICNN(_read(file, dim)) for file in files], dtype)


def download_w2_benchmark(dim: int, directory) -> None:
    """Fetch the two checkpoints of a dimension from the public repository and keep them if their checksums are the known ones.

    Raises:
        ValueError: a dimension of no known checksum, or a file with another one. OSError: the network.
    """
    directory = check.path(directory, "directory")
    names = [f"{dim}_v{i}.pt" for i in (1, 2)]
    if not all(name in SHA256 for name in names):
        raise ValueError(f"dim must be one of {sorted({int(name.split('_')[0]) for name in SHA256})}, got {dim!r}")
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        with urllib.request.urlopen(_address(name), timeout=60) as response:
            content = response.read()
        if hashlib.sha256(content).hexdigest() != SHA256[name]:
            raise ValueError(f"{_address(name)} is not the known file: its SHA-256 differs")
        checkpoints.save(content, directory / name)


def synthetic_w2_pair(dim: int, *, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32) -> W2Benchmark:
    """A pair in the style of the benchmark in any dimension: the same source and networks, with random weights."""
    return _pair([DenseICNN(_random_state(check.count(dim, "dim"), generator)) for _ in range(2)], dtype)


def save_w2_pair(dim: int, directory, *, generator: torch.Generator | None = None) -> None:
    """Write a synthetic pair as checkpoints that :func:`w2_benchmark` reads."""
    for i in (1, 2):
        checkpoints.save(_random_state(check.count(dim, "dim"), generator), check.path(directory, "directory") / f"{dim}_v{i}.pt")


def _pair(potentials: list[ConvexPotential], dtype: torch.dtype) -> W2Benchmark:
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype!r}")
    potential = _StandardisedSum(potentials).to(dtype)
    centres, maps = (tensor.to(potential.shift) for tensor in _mixture_parameters(potential.dim))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        points = _mixture(centres, maps, STANDARDISATION, generator)
        y = torch.cat([potential.gradient(part) for part in points.split(2**12)]).double()  # parts fit into the cache
        potential.shift.copy_(-y.mean(0))
        potential.scale.copy_(y.var(0, correction=0).mean().rsqrt())
        variance = (y.var(0, correction=0).sum() * potential.scale.double() ** 2).item()
    return W2Benchmark(centres, maps, potential.eval(), variance)


def _mixture_parameters(dim: int) -> tuple[Tensor, Tensor]:
    """Centres and maps of the source, by the draws that the original makes after seeding with 0."""
    random = np.random.RandomState(0)
    centres = np.stack([random.choice(3, 3, replace=False) for _ in range(dim)], 1).astype(np.float32) - 1
    maps = random.normal(size=(3, dim, dim)).astype(np.float32)
    maps /= np.linalg.norm(maps, axis=2, keepdims=True)
    scale = math.sqrt(((centres**2).sum(1).mean() + dim * 0.4**2) / dim)
    return torch.tensor(centres / scale), torch.tensor(maps / scale)


def _mixture(centres: Tensor, maps: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
    component = randomness.integers(3, check.count(n, "n"), generator=generator, like=centres)
    noise = randomness.normal(n, centres.shape[1], generator=generator, like=centres)
    points = torch.empty_like(noise)
    for k in range(3):
        rows = component == k
        points[rows] = centres[k] + 0.4 * noise[rows] @ maps[k].T
    return points


def _random_state(dim: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    """Weights that bend the map on the scale of the source, so that no affine map comes close.

    In dimensions 2 to 64 the Gaussian map scores 7 to 26 % L2-UVP. The half space of each unit has a point of the source on its
    boundary and cuts through a cluster there. Few units dominate the output, the fewer the lower the dimension: the mean of many
    bends would be smooth.
    """
    widths = [max(2 * dim, 64), max(2 * dim, 64), max(dim, 32)]
    centres, maps = _mixture_parameters(dim)
    normal, uniform = (partial(draw, generator=generator, like=centres) for draw in (randomness.normal, randomness.uniform))
    state = {}
    for i, width in enumerate(widths):
        slopes = normal(width, dim)
        slopes *= 8 * i / slopes.norm(dim=1, keepdim=True)
        points = _mixture(centres, maps, width, generator)
        state[f"quadratic_layers.{i}.quadratic_decomposed"] = 0.1 * normal(dim, 1, width) / dim**0.5
        state[f"quadratic_layers.{i}.weight"] = slopes
        state[f"quadratic_layers.{i}.bias"] = -(slopes * points).sum(1)
    for i, (before, after) in enumerate(itertools.pairwise(widths)):
        state[f"convex_layers.{i}.weight"] = 0.5 * uniform(after, before) / before
    state["final_layer.weight"] = uniform(1, widths[-1]) ** (2 + 32 / dim) / widths[-1]
    return state


def _read(file: Path, dim: int) -> dict[str, Tensor]:
    if not file.is_file():
        raise ValueError(f"{file} is missing: {_how(dim)}")
    try:
        state = checkpoints.read(file)
        model = {name: tuple(tensor.shape) for name, tensor in _random_state(dim, torch.Generator().manual_seed(0)).items()}
        found = {name: tuple(tensor.shape) for name, tensor in state.items()}
        finite = all(torch.isfinite(tensor).all() for tensor in state.values())
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{file} is damaged or not a checkpoint: {_how(dim)}") from error
    if found != model or not finite:
        raise ValueError(f"{file} is not a checkpoint of the benchmark in dimension {dim}: {_how(dim)}")
    if any((state[name] < 0).any() for name in state if name.startswith(("convex", "final"))):
        raise ValueError(f"{file} must hold a convex network, but a weight that must be non-negative is not: {_how(dim)}")
    return state


def _address(name: str) -> str:
    return f"https://raw.githubusercontent.com/{REPOSITORY}/{REVISION}/benchmarks/Mix3toMix10/{name}"


def _how(dim: int) -> str:
    return (
        f"get {dim}_v1.pt and {dim}_v2.pt from the folder benchmarks/Mix3toMix10 of github.com/{REPOSITORY}, "
        f"or by download_w2_benchmark({dim}, directory)"
    )
