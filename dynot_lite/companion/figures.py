"""Figures of the notebooks: shown with alternative text, and kept by the runner."""

from __future__ import annotations

import io
import re

from IPython.display import display
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from dynot_lite.companion.ledger import run_dir

__all__ = ["show"]


def show(figure: Figure, name: str, *, alt: str) -> None:
    """Display ``figure`` with the alternative text ``alt`` and close it; under the runner also save ``name.png``.

    Raises ValueError if ``name`` is not of the form ``lower_case_name`` or already taken in this run, or if ``alt`` is
    shorter than a sentence.
    """
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise ValueError(f"name must be lower_case_with_underscores, got {name!r}")
    if len(alt.split()) < 4:
        raise ValueError(f"alt must describe the figure in a sentence, got {alt!r}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    picture = _small(buffer.getvalue())
    if folder := run_dir():
        if (folder / f"{name}.png").exists():
            raise ValueError(f"name must differ from figure to figure, got {name!r} twice")
        (folder / f"{name}.png").write_bytes(picture)
    display({"image/png": picture, "text/plain": f"[figure] {alt}"}, raw=True, metadata={"image/png": {"alt": alt}})


def _small(picture: bytes) -> bytes:
    """The same opaque PNG in fewer bytes: without its alpha channel, and without the version of the software that drew it."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
