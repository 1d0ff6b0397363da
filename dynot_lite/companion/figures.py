"""Figures of the notebooks: shown with alternative text, and kept by the runner."""

import io
import re
from collections.abc import Iterable

from IPython.display import Markdown, display
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image, ImageChops, ImageStat

from dynot_lite.companion.ledger import run_dir

__all__ = ["show", "show_table"]


def show(figure: Figure, name: str, *, alt: str, photograph: str = "") -> None:
    """Display ``figure`` with the alternative text ``alt`` and close it; under the runner also save it as ``name.png``.

    If it shows photographs, ``photograph`` is the line that names their authors and licence, which is shown under it; and the
    picture becomes a JPEG, ``name.jpg``, because 256 colours would show photographs in bands.
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
    kind, picture = _compact(Image.open(buffer).convert("RGB"), bool(photograph))
    if folder := run_dir():
        path = folder / f"{name}.{'jpg' if photograph else 'png'}"
        if path.exists():
            raise ValueError(f"name must differ from figure to figure, got {name!r} twice")
        path.write_bytes(picture)
    display({kind: picture, "text/plain": f"[figure] {alt}"}, raw=True, metadata={kind: {"alt": alt}})
    if photograph:
        display(Markdown(f"*{photograph}*"))


def show_table(lines: Iterable[str]) -> None:
    """Display the lines of a Markdown table whose numbers depend on the preset or the clock: the tests do not compare it."""
    display(Markdown("\n".join(["<!-- of this run -->", *lines])))


def _compact(image: Image.Image, photograph: bool) -> tuple[str, bytes]:
    """The MIME type and the bytes of a picture that looks the same: of 256 colours, unless these can be told from all."""
    buffer = io.BytesIO()
    if photograph:
        image.save(buffer, format="JPEG", quality=90, subsampling=0, optimize=True, progressive=True)
        return "image/jpeg", buffer.getvalue()
    few = image.quantize(256, kmeans=3, dither=Image.Dither.NONE)
    # In grey levels, the mean over the picture: plots have 0.1, thin lines over a gradient more than 0.6.
    error = max(ImageStat.Stat(ImageChops.difference(image, few.convert("RGB"))).mean)
    (few if error <= 0.6 else image).save(buffer, format="PNG", optimize=True)
    return "image/png", buffer.getvalue()
