"""Data in files of the package: what they hold, to the byte."""

import hashlib
from importlib import resources

import torch

from dynot_lite.datasets.files import countries

SHA256 = "88983fadb03b21cb70e952cb98b8f916f7c161c0b6f2279a3709d2627b92bd7f"


def test_the_table_of_the_countries_is_the_one_that_was_made():
    content = resources.files("dynot_lite.datasets").joinpath("data/countries.npz").read_bytes()
    assert hashlib.sha256(content).hexdigest() == SHA256 and len(content) < 80_000


def test_countries():
    names, years, values = countries()
    assert len(names) == len(set(names)) == 202
    assert years.tolist() == list(range(1964, 2014))
    assert values.shape == (202, 50, 2) and values.dtype == torch.float64 and values.isfinite().all()
    children, life = values.unbind(-1)
    assert children.min() > 0.5 and children.max() < 10 and life.max() < 90
    # In half a century children became fewer and lives longer, nearly everywhere.
    assert (children[:, -1] < children[:, 0]).float().mean() > 0.95 and (life[:, -1] > life[:, 0]).float().mean() > 0.95
    row = values[names.index("Rwanda"), :, 1]
    assert life.min() == row[years == 1994] == 6 and (life == 6).sum() == 1
