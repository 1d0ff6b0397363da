"""Data that come in files: of this package, cities of the world and countries over the years; of yours, arrays and images."""

from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dynot_lite._base import checks as check

__all__ = ["cities", "countries", "load_points"]

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")


def cities() -> tuple[Tensor, Tensor, Tensor]:
    """The 33,961 cities of the world with at least 15,000 inhabitants, from GeoNames (CC BY 4.0; see ``data/cities.md``).

    Returns:
        Latitude and longitude in degrees north and east, and population; each float64 of shape (33961,).

    >>> latitude, longitude, population = cities()
    >>> len(latitude), population.max().item()
    (33961, 24874500.0)
    """
    with resources.files("dynot_lite.datasets").joinpath("data/cities.npz").open("rb") as stream, np.load(stream) as columns:
        return tuple(torch.from_numpy(columns[name].astype(np.float64)) for name in ("latitude", "longitude", "population"))


def countries() -> tuple[list[str], Tensor, Tensor]:
    """202 countries in the years from 1964 to 2013, from Gapminder (CC BY 2.0 as declared; see ``data/countries.md``).

    Fifty snapshots of a law in the plane, for which it is known who is who.

    Returns:
        Names; years, float64 of shape (50,); and children per woman and life expectancy in years, float64 of shape (202, 50, 2).

    >>> names, years, values = countries()
    >>> names[0], years[[0, -1]].tolist(), values[0, 0]
    ('Afghanistan', [1964.0, 2013.0], tensor([ 7.6710, 33.6390], dtype=torch.float64))
    """
    with resources.files("dynot_lite.datasets").joinpath("data/countries.npz").open("rb") as stream, np.load(stream) as columns:
        years, values = (torch.from_numpy(columns[name].astype(np.float64)) for name in ("years", "values"))
        return columns["names"].tobytes().decode("utf-8").split("\n"), years, values


def load_points(path: str | Path, *, size: int = 16) -> Tensor:
    """Points of a file or folder, float32 of shape (n, d), of mean 0, and divided by one number to a mean variance of 1.

    Args:
        path: a ``.npy`` or ``.npz`` file (of the latter the first array) of shape (n, ...); or a folder of images, taken in the
            order of their names, in grey from 0 to 1; or "" for :func:`dynot_lite.datasets.images.digits`, to have some.
        size: images become size × size pixels.

    Raises:
        ValueError: an array of fewer than two axes or rows, values that are not finite numbers or all equal, a folder without
            images. OSError: there is no such file, or it cannot be read.
    """
    size = check.count(size, "size")
    if path == "":
        from dynot_lite.datasets.images import digits

        array = digits()[0].numpy()
    elif (path := check.path(path, "path")).is_dir():
        from PIL import Image

        files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGES)
        if not files:
            raise ValueError(f"path must be a folder with images ({', '.join(IMAGES)}), got none in {path}")
        array = np.stack([np.asarray(Image.open(file).convert("L").resize((size, size))) / 255 for file in files])
    else:
        try:
            loaded = np.load(path, allow_pickle=False)
            array = np.asarray(loaded[loaded.files[0]] if hasattr(loaded, "files") else loaded)
        except (ValueError, IndexError) as error:
            raise ValueError(f"path must be an array of numbers (.npy, .npz), got {path}: {error}") from error
    points = check.as_tensor(array, "path").float()
    if points.ndim < 2 or len(points) < 2 or not points.numel():
        raise ValueError(f"path must hold an array of shape (n, ...) with n ≥ 2, got {tuple(points.shape)}")
    points = points.flatten(1)
    points = points - points.mean(0)
    if not points.std() > 0:
        raise ValueError("path must hold points that are not all equal")
    return points / points.std()
