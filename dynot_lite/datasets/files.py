"""Data that come in files of this package: the cities of the world."""

from importlib import resources

import numpy as np
import torch
from torch import Tensor

__all__ = ["cities"]


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
