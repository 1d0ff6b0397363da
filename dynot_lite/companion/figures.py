"""Figures of the notebooks: shown with alternative text, and kept by the runner."""

from __future__ import annotations

import io
import re

from IPython.display import display
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

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
    # No software version in the file: the same picture is the same bytes after an update of matplotlib's patch level.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    plt.close(figure)
    if folder := run_dir():
        if (folder / f"{name}.png").exists():
            raise ValueError(f"name must differ from figure to figure, got {name!r} twice")
        (folder / f"{name}.png").write_bytes(buffer.getvalue())
    display({"image/png": buffer.getvalue(), "text/plain": f"[figure] {alt}"}, raw=True, metadata={"image/png": {"alt": alt}})
