"""Samplers ``(n, generator=) -> (n, d)`` of simple laws and of data that one has."""

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base import randomness
from dynot_lite._base.samplers import Sampler

__all__ = ["clusters", "from_colours", "from_points", "normal"]


def normal(dim: int) -> Sampler:
    """The sampler of N(0, I) in ``dim`` dimensions, in torch's default dtype, on the device of the generator."""
    check.count(dim, "dim")
    return lambda n, *, generator=None: randomness.normal(check.count(n, "n"), dim, generator=generator)


def from_points(points, labels=None):
    """The sampler of a data set: its points, shape (N, d) or (N, ...), with their ``labels`` if there are any, with replacement.

    Returns:
        ``(n, generator=) -> x``, or ``-> (x, labels)``: what the functions of :mod:`dynot_lite.couplings.batches` take.

    Raises:
        ValueError: no points, values that are not finite, labels of another length.
    """
    points = check.points(points, "points")
    labels = None if labels is None else check.rows(labels, len(points), "labels", like=points)

    def draw(n: int, *, generator: torch.Generator | None = None):
        rows = randomness.integers(len(points), check.count(n, "n"), generator=generator, like=points)
        return points[rows] if labels is None else (points[rows], labels[rows])

    return draw


def from_colours(image, *, scale: float = 1 / 255) -> Sampler:
    """The sampler of the colours of an image, shape (h, w, 3) with values in [0, 1]: those of random pixels.

    Args:
        scale: each colour is moved by uniform noise on a cube of this side, one level of 255: so the law has a density, as
            Brenier's theorem asks, and is at most scale/2 away in W₂. Zero for the colours as they are.

    Raises:
        ValueError: an image of another shape or with values outside [0, 1], scale < 0.
    """
    scale = check.positive(scale, "scale", or_zero=True)
    points = colours_of(image).reshape(-1, 3)

    def sample(n: int, *, generator: torch.Generator | None = None) -> Tensor:
        colours = points[randomness.integers(len(points), check.count(n, "n"), generator=generator, like=points)]
        if scale:
            colours = colours + scale * (randomness.uniform(n, 3, generator=generator, like=colours) - 0.5)
        return colours

    return sample


def colours_of(image) -> Tensor:
    """A checked image, shape (height, width, 3), values in [0, 1]."""
    image = check.as_tensor(image, "image")
    if image.ndim != 3 or image.shape[-1] != 3 or image.numel() == 0:
        raise ValueError(f"image must have shape (height, width, 3), got {tuple(image.shape)}")
    if image.min() < 0 or image.max() > 1:
        raise ValueError(f"image must have values in [0, 1], got {image.min().item():g} to {image.max().item():g}")
    return image


def clusters(n: int, dim: int, *, generator: torch.Generator | None = None) -> Tensor:
    """``n`` points of ten clusters whose standard deviations decay like 1/√k, of mean 0 and mean variance 1, shape (n, dim).

    Easier than noise and harder than a few modes: what data with a decaying spectrum look like to a nearest-neighbour search.
    """
    scale = torch.arange(1.0, check.count(dim, "dim") + 1) ** -0.5
    centres = randomness.normal(10, dim, generator=generator)[randomness.integers(10, check.count(n, "n"), generator=generator)]
    points = (centres + 0.7 * randomness.normal(n, dim, generator=generator)) * scale.to(centres)
    points = points - points.mean(0)
    return points / points.square().mean().sqrt() if n > 1 else points
