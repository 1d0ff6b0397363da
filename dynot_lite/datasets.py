"""Data of the notebooks: laws in the plane, real images and cities that need no download, and the Wasserstein-2 benchmark.

The laws in the plane are samplers ``(n, generator=) -> (n, 2)`` in torch's default dtype, on the device of the generator.
"""

from __future__ import annotations

import functools
import math
from importlib import resources

import numpy as np
import torch
from sklearn.datasets import load_digits, load_sample_image
from torch import Tensor

from dynot_lite import _validation as check
from dynot_lite._w2_benchmark import W2Benchmark, download_w2_benchmark, save_w2_pair, synthetic_w2_pair, w2_benchmark

__all__ = [
    "W2Benchmark",
    "checkerboard",
    "cities",
    "colour_sample",
    "digits",
    "download_w2_benchmark",
    "eight_gaussians",
    "moons",
    "photographs",
    "save_w2_pair",
    "synthetic_w2_pair",
    "torchcfm_eight_gaussians",
    "torchcfm_moons",
    "w2_benchmark",
]


def photographs(*, size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
    """The two photographs that scikit-learn ships: a Chinese temple (``china.jpg``) and a flower (``flower.jpg``).

    The values are the encoded sRGB levels divided by 255: proportional to what is stored, not to the intensity of light.

    Args:
        size: (height, width) to reduce to, at most the original (427, 640); every new pixel is a weighted mean of the old
            ones around it (a triangular filter as wide as the reduction needs), so that fine detail is averaged, not aliased.

    Returns:
        Two float64 tensors of shape (height, width, 3) with values in [0, 1].

    Raises:
        ValueError: a size that is not a pair of positive integers, or that exceeds the original.

    >>> china, flower = photographs(size=(40, 60))
    >>> china.shape, flower.dtype
    (torch.Size([40, 60, 3]), torch.float64)
    """
    images = tuple(torch.tensor(load_sample_image(name)).to(torch.float64) / 255 for name in ("china.jpg", "flower.jpg"))
    if size is None:
        return images
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise ValueError(f"size must be a pair (height, width), got {size!r}")
    full = tuple(images[0].shape[:2])
    if any(check.count(new, "size") > old for new, old in zip(size, full, strict=True)):
        raise ValueError(f"size must be at most {full}, the size of the photographs, got {tuple(size)}")
    batch = torch.stack(images).movedim(-1, 1)
    reduced = torch.nn.functional.interpolate(batch, tuple(size), mode="bilinear", antialias=True)
    china, flower = reduced.movedim(1, -1).clamp(0, 1).contiguous()  # weights sum to 1 up to rounding only
    return china, flower


def colour_sample(image, n: int, *, generator: torch.Generator | None = None) -> Tensor:
    """The colours of ``n`` different pixels: a stratified sample of the colour law of the image.

    The pixels in reading order, closed to a circle and cut at a random place, are divided into n runs of equal length (to one
    pixel), and one pixel is drawn uniformly from each. So every pixel has the probability n / (height × width), and the
    sample varies far less than independent draws, since neighbours have similar colours.

    Args:
        image: shape (height, width, 3), values in [0, 1].
        n: at most height × width.

    Returns:
        Points of the colour cube, shape (n, 3), in the order of the runs: ``[::2]`` and ``[1::2]`` are stratified samples, too.

    Raises:
        ValueError: an image of another shape or with values outside [0, 1], or n not between 1 and the number of pixels.

    >>> colour_sample(photographs(size=(40, 60))[0], 100, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([100, 3])
    """
    image = check.as_tensor(image, "image")
    if image.ndim != 3 or image.shape[-1] != 3 or image.numel() == 0:
        raise ValueError(f"image must have shape (height, width, 3), got {tuple(image.shape)}")
    if image.min() < 0 or image.max() > 1:
        raise ValueError(f"image must have values in [0, 1], got {image.min().item():g} to {image.max().item():g}")
    colours = image.reshape(-1, 3)
    pixels = len(colours)
    if check.count(n, "n") > pixels:
        raise ValueError(f"n must be at most the number of pixels, {pixels}, got {n}")
    device = generator.device if generator else None
    bounds = torch.arange(n + 1, device=device) * pixels // n
    cut = torch.randint(pixels, (1,), generator=generator, device=device)
    place = torch.rand(n, generator=generator, dtype=torch.float64, device=device)
    chosen = cut + bounds[:-1] + (place * bounds.diff()).long()
    return colours[(chosen % pixels).to(colours.device)]


def digits() -> tuple[Tensor, Tensor]:
    """The 1797 handwritten digits that scikit-learn ships (the test part of the UCI set of optical digits).

    Returns:
        Images of 8 × 8 pixels in reading order, float32, shape (1797, 64), values k/16 with k = 0..16, 1 being ink; and their
        classes, int64, shape (1797,).

    >>> images, labels = digits()
    >>> images.shape, labels.bincount().min().item()
    (torch.Size([1797, 64]), 174)
    """
    bunch = load_digits()
    return torch.tensor(bunch.data / 16, dtype=torch.float32), torch.tensor(bunch.target, dtype=torch.int64)


def eight_gaussians(n: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Independent points of Σ_k ⅛ N(5 (cos kπ/4, sin kπ/4), 0.1 I), k = 0..7: eight modes of variance 0.1 in each coordinate."""
    return _eight_gaussians(n, 0.1, generator)


def torchcfm_eight_gaussians(n: int, *, generator: torch.Generator | None = None) -> Tensor:
    """The law of torchcfm's ``sample_8gaussians``: :func:`eight_gaussians` with the variance √0.1 = 0.316 in each coordinate.

    There a "variance" of 0.1 enters as its square root where a covariance is expected. For comparisons with published figures.
    """
    return _eight_gaussians(n, 0.1**0.5, generator)


def _eight_gaussians(n: int, variance: float, generator: torch.Generator | None) -> Tensor:
    where = _where(n, generator)
    angle = torch.randint(8, (n,), **where) * (math.pi / 4)
    return 5 * torch.stack([angle.cos(), angle.sin()], 1) + variance**0.5 * torch.randn(n, 2, **where)


def moons(n: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Independent points of two interlocking half circles of radius 3, with noise of the law N(0, 0.09 I).

    With an angle s uniform in [0, π], one half of the mass is at 3 (cos s, sin s) − 1 and the other at
    3 (1 − cos s, ½ − sin s) − 1, before the noise.
    """
    where = _where(n, generator)
    angle = math.pi * torch.rand(n, **where)
    upper = torch.randint(2, (n,), **where).bool()
    return _moons(angle, upper) + 0.3 * torch.randn(n, 2, **where)


def torchcfm_moons(n: int, *, generator: torch.Generator | None = None) -> Tensor:
    """The law of torchcfm's ``sample_moons``, n points at once: fixed places on the half circles of :func:`moons`, shifted.

    The angles are equally spaced, ends included: ⌊n/2⌋ on the upper half circle come first, the others on the lower one follow.
    Each point is moved by (u, u), with one u uniform in [0, 0.6] for both coordinates. So the points are neither independent
    nor in random order. For comparisons with published figures.
    """
    where = _where(n, generator)
    return _even_moons(n, where["device"], torch.get_default_dtype()) + 0.6 * torch.rand(n, 1, **where)


@functools.lru_cache(maxsize=8)
def _even_moons(n: int, device, dtype: torch.dtype) -> Tensor:
    """Equally spaced points on the half circles; kept, because training asks for the same ones in every step."""
    angle = torch.cat([torch.linspace(0, math.pi, k, device=device, dtype=dtype) for k in (n // 2, n - n // 2)])
    return _moons(angle, torch.arange(n, device=device) < n // 2)


def _moons(angle: Tensor, upper: Tensor) -> Tensor:
    x, y = angle.cos(), angle.sin()
    return 3 * torch.stack([torch.where(upper, x, 1 - x), torch.where(upper, y, 0.5 - y)], 1) - 1


def checkerboard(n: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Independent points, uniform on the squares of side 2 of the board [−4, 4]² with ⌊x/2⌋ + ⌊y/2⌋ even: density 1/32 there."""
    where = _where(n, generator)
    row, column = torch.randint(4, (n,), **where), torch.randint(2, (n,), **where)
    corner = torch.stack([2 * column + row % 2, row], 1) - 2
    return 2 * (corner + torch.rand(n, 2, **where))


def cities() -> tuple[Tensor, Tensor, Tensor]:
    """The 33,961 cities of the world with at least 15,000 inhabitants, from GeoNames (CC BY 4.0; see ``data/cities.md``).

    Returns:
        Latitude and longitude in degrees north and east, and population; each float64 of shape (33961,).

    >>> latitude, longitude, population = cities()
    >>> len(latitude), population.max().item()
    (33961, 24874500.0)
    """
    with resources.files("dynot_lite").joinpath("data/cities.npz").open("rb") as stream, np.load(stream) as columns:
        return tuple(torch.from_numpy(columns[name].astype(np.float64)) for name in ("latitude", "longitude", "population"))


def _where(n: int, generator: torch.Generator | None) -> dict:
    check.count(n, "n")
    return {"generator": generator, "device": generator.device if generator else None}
