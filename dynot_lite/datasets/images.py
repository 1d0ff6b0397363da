"""Images that need no download: two photographs and the colours in them, handwritten digits, and a maze; densities of them."""

import numpy as np
import torch
from sklearn.datasets import load_digits, load_sample_image
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base import randomness
from dynot_lite.datasets.samplers import colours_of
from dynot_lite.grids.operators import centres

__all__ = ["CREDIT", "colour_sample", "digit_density", "digits", "luminance", "maze", "patches", "photographs"]

CREDIT = "Photographs: danielbuechele (temple) and vultilion (flower), CC BY 2.0, changed."
"""Whose the photographs are, and under which licence: to stand under every picture that shows them."""


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
    images = [torch.tensor(load_sample_image(name)).to(torch.float64) / 255 for name in ("china.jpg", "flower.jpg")]
    if size is None:
        return images[0], images[1]
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
        Points of the colour cube, shape (n, 3), in the order of the runs. For a second sample call again: the halves ``[::2]``
        and ``[1::2]`` are not comparable for every n; with two runs to a row they are the left and the right of the image.

    Raises:
        ValueError: an image of another shape or with values outside [0, 1], or n not between 1 and the number of pixels.

    >>> colour_sample(photographs(size=(40, 60))[0], 100, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([100, 3])
    """
    colours = colours_of(image).reshape(-1, 3)
    pixels = len(colours)
    if check.count(n, "n") > pixels:
        raise ValueError(f"n must be at most the number of pixels, {pixels}, got {n}")
    bounds = torch.arange(n + 1, device=colours.device) * pixels // n
    cut = randomness.integers(pixels, 1, generator=generator, like=colours)
    place = randomness.uniform(n, generator=generator, like=colours, dtype=torch.float64)
    return colours[(cut + bounds[:-1] + (place * bounds.diff()).long()) % pixels]


def patches(image, *, size: int = 32) -> Tensor:
    """All windows of ``size`` × ``size`` pixels of an image (h, w, c): a view, shape (h − size + 1, w − size + 1, c, size, size).

    With ``.flatten(0, 1)``, which copies, they are points (N, c, size, size): those of the two photographs together are
    482 328 for 32 × 32 pixels, 5.5 GiB in float32. Every so many of them: index the view before.

    Raises:
        ValueError: an image of another shape, or smaller than a window.

    >>> sum(patches(image)[..., 0, 0, 0].numel() for image in photographs())
    482328
    """
    image = check.as_tensor(image, "image")
    if image.ndim != 3 or min(image.shape[:2]) < check.count(size, "size") or not image.shape[2]:
        raise ValueError(f"image must have shape (h, w, c) and {size} pixels on either side at least, got {tuple(image.shape)}")
    return image.unfold(0, size, 1).unfold(1, size, 1)


def digits() -> tuple[Tensor, Tensor]:
    """The 1797 handwritten digits that scikit-learn ships (the test part of the UCI set of optical digits).

    Returns:
        Images of 8 × 8 pixels in reading order, float32, shape (1797, 64), values k/16 with k = 0..16, 1 being ink; and their
        classes, int64, shape (1797,).

    >>> images, labels = digits()
    >>> images.shape, labels.bincount().min().item()
    (torch.Size([1797, 64]), 174)
    """
    levels, classes = load_digits(return_X_y=True)
    return torch.tensor(np.asarray(levels) / 16, dtype=torch.float32), torch.tensor(classes, dtype=torch.int64)


def digit_density(index: int, n: int, *, margin: float = 1 / 8) -> Tensor:
    """The digit ``index`` of :func:`digits` on an n × n grid: a density of mean 1, enlarged bilinearly, with an empty margin.

    Args:
        margin: the share of the side that stays empty, on every side.

    Raises:
        ValueError: an index outside the data, fewer than 8 pixels inside the margins.
    """
    images, _ = digits()
    if not 0 <= check.count(index, "index", least=0) < len(images):
        raise ValueError(f"index must be less than {len(images)}, got {index}")
    pad = round(check.share(margin, "margin") * check.count(n, "n"))
    if n - 2 * pad < 8:
        raise ValueError(f"n must leave at least 8 pixels inside the margins, got {n} with {pad} on every side")
    image = images[index].double().reshape(1, 1, 8, 8)
    inner = torch.nn.functional.interpolate(image, (n - 2 * pad,) * 2, mode="bilinear", align_corners=False)[0, 0]
    density = torch.nn.functional.pad(inner, (pad,) * 4)
    return density / density.mean()


def luminance(image) -> Tensor:
    """The relative luminance (linear light, ITU-R BT.709 weights) of an sRGB image (h, w, 3) as a density of mean 1.

    5 % of the mean is spread evenly, so that black pixels are positive.

    Raises:
        ValueError: an image of another shape, with values outside [0, 1], or black all over.
    """
    image = colours_of(image)
    linear = torch.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)
    values = linear @ torch.tensor([0.2126, 0.7152, 0.0722]).to(image)
    if not values.detach().mean() > 0:
        raise ValueError("image must not be black all over")
    return (values / values.mean() + 0.05) / 1.05


def maze(*, size: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """A maze of 9 × 9 squares of ``size`` × ``size`` cells: a heap in its upper left corner, one in its lower right, its walls.

    Two ways lead from one to the other. The heaps are normal laws of deviation 0.04 around (0.06, 0.06) and (0.94, 0.94), with
    the side of the maze as the unit of length, and vanish within walls: 0.88 √2 is the straight distance.

    Returns:
        start, goal: densities of mean 1, float64, shape (n, n) with n = 9 ``size``; walls: boolean, shape (n, n), a ``mask`` of
        :func:`dynot_lite.grids.benamou_brenier.solve`.

    Raises:
        ValueError: ``size`` is no positive integer.
    """
    plan = "...#..... .#.#.###. .#...#... .#####.#. .....#.#. ####.#.#. .....#.#. .#####.#. .......#."
    squares = torch.tensor([[square == "#" for square in line] for line in plan.split()])
    walls = squares.repeat_interleave(check.count(size, "size"), 0).repeat_interleave(size, 1)
    place = torch.from_numpy(centres(len(walls)))
    bumps = [torch.exp(-(place - at).square() / (2 * 0.04**2)) for at in (0.06, 0.94)]
    start, goal = (torch.outer(bump, bump) * ~walls for bump in bumps)
    return start / start.mean(), goal / goal.mean(), walls
