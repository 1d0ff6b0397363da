"""The one folder outside the package that data are read from."""

import os
from pathlib import Path

HERE = Path(__file__).resolve().parents[2] / "data"
"""``data`` beside this package, in a clone of the repository: where data are put unless DYNOT_DATA names another folder."""


def data_folder() -> Path | None:
    """The folder that DYNOT_DATA names; without it the ``data`` of a clone, if there is one; else None."""
    if named := os.environ.get("DYNOT_DATA"):
        return Path(named)
    return HERE if HERE.is_dir() and (HERE.parent / "pyproject.toml").is_file() else None
