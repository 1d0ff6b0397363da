"""Figures of the notebooks: shown with alternative text, and kept by the runner."""

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterable, Sequence

from IPython.display import Markdown, display
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image, ImageChops, ImageStat

from dynot_lite.companion.ledger import passing, run_dir

__all__ = ["show", "show_table", "slide"]

LARGEST_SLIDER = 200_000  # bytes in the notebook
# The script makes the control and hides the still picture before it: without scripts nothing is left of it, and the still stays.
# The sheet has the frames below one another; positions in percent make it scale.
SLIDER = """<!-- of this run --><script id="{key}">(() => {{
  const here = document.getElementById("{key}"), values = {values}, last = values.length - 1, alt = {alt}, label = {label};
  const [box, view, line, shown, bar] = ["div", "div", "label", "output", "input"].map(tag => document.createElement(tag));
  view.setAttribute("role", "img"); view.setAttribute("aria-label", alt);
  const sheet = "url(data:image/png;base64,{sheet})";
  view.style.cssText = "max-width:{width}px;aspect-ratio:{width}/{height};background:" + sheet + " 0 0/100% auto no-repeat";
  Object.assign(bar, {{type: "range", min: 0, max: last, value: {still}}}); bar.setAttribute("aria-label", label);
  bar.oninput = () => {{
    shown.value = values[bar.value]; bar.setAttribute("aria-valuetext", label + " = " + values[bar.value]);
    view.style.backgroundPositionY = 100 * bar.value / last + "%";
  }};
  for (const kind of ["keydown", "mousedown", "touchstart"])  // JupyterLab would take the arrow keys
    bar.addEventListener(kind, event => event.stopPropagation());
  line.append(label + " = ", shown, " ", bar); box.append(view, line); here.after(box); bar.oninput();
  for (let up = here; up && !/(^| )(cell|jp-Cell)( |$)/.test(up.className); up = up.parentElement) {{
    const before = up.previousElementSibling, picture = before?.tagName === "IMG" ? before : before?.querySelector("img");
    if (picture) {{ picture.style.display = "none"; break; }}
  }}
}})()</script>"""


def show(figure: Figure, name: str, *, alt: str, photograph: str = "") -> None:
    """Display ``figure`` with the alternative text ``alt`` and close it; under the runner also save it as ``name.png``.

    If it shows photographs, ``photograph`` is the line that names their authors and licence, which is shown under it; and the
    picture becomes a JPEG, ``name.jpg``, because 256 colours would show photographs in bands.
    Raises ValueError if ``name`` is not of the form ``lower_case_name`` or already taken in this run, or if ``alt`` is
    shorter than a sentence.
    """
    _check(name, alt)
    _display(_picture(figure), name, alt, photograph)


def show_table(lines: Iterable[str]) -> None:
    """Display the lines of a Markdown table whose numbers depend on the preset or the clock: the tests do not compare it."""
    display(Markdown("\n".join(["<!-- of this run -->", *lines])))


def slide(
    figures: Iterable[Figure], values: Sequence[float | str], *, name: str, label: str = "t", still: int = 0, alt: str
) -> None:
    """Display figures of one size, each closed once it is drawn, as one that a slider changes: it shows ``label = values[i]``.

    First comes the still picture, figure number ``still`` (from 0), as :func:`show` displays and saves it under ``name``; then
    a script that puts the slider in its place. Where scripts do not run, the still picture stays. ``alt`` describes all of them.
    A generator as ``figures`` has one figure in memory at a time. The frames together have 64 colours.
    Raises ValueError if figures and values are not of one number, two at least, if sizes differ, if ``still`` is none of them,
    if the slider has more than 200 kB, and where :func:`show` does.
    """
    _check(name, alt)
    try:
        shown = [value if isinstance(value, str) else f"{float(value):g}" for value in values]
    except (TypeError, ValueError):
        raise ValueError(f"values must be numbers or texts, got {values!r}") from None
    if len(shown) < 2:
        raise ValueError(f"values must be two at least, got {len(shown)}")
    if isinstance(still, bool) or not isinstance(still, int) or not 0 <= still < len(shown):
        raise ValueError(f"still must be the number of a figure, 0 to {len(shown) - 1}, got {still!r}")
    frames = [_picture(figure) for figure in figures]
    if len(frames) != len(shown):
        raise ValueError(f"values must be one for each figure, got {len(shown)} for {len(frames)} figures")
    if sizes := {frame.size for frame in frames[1:]} - {frames[0].size}:
        raise ValueError(f"figures must have one size, got {frames[0].size} and {sizes.pop()} pixels")
    width, height = frames[0].size
    sheet, buffer = Image.new("RGB", (width, height * len(frames))), io.BytesIO()
    for number, frame in enumerate(frames):
        sheet.paste(frame, (0, height * number))
    sheet.quantize(64, kmeans=1, dither=Image.Dither.NONE).save(buffer, format="PNG", optimize=True)
    key = "slide-" + hashlib.sha256(name.encode() + buffer.getvalue()).hexdigest()[:12]
    # Within a script "<" could end it.
    given = {"values": shown, "alt": alt, "label": label}
    texts = {name: json.dumps(value).replace("<", r"\u003c") for name, value in given.items()}
    encoded = base64.b64encode(buffer.getvalue()).decode()
    script = SLIDER.format(key=key, width=width, height=height, sheet=encoded, still=still, **texts)
    if len(script) > LARGEST_SLIDER:
        raise ValueError(f"figures have {len(script) / 1e3:.0f} kB, more than {LARGEST_SLIDER / 1e3:g}: fewer or smaller ones")
    _display(frames[still], name, alt)
    display({"text/html": script, "text/plain": f"[slider] {label}"}, raw=True)


def _check(name: str, alt: str) -> None:
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise ValueError(f"name must be lower_case_with_underscores, got {name!r}")
    if len(alt.split()) < 4:
        raise ValueError(f"alt must describe the figure in a sentence, got {alt!r}")


def _picture(figure: Figure) -> Image.Image:
    """The figure as a picture; it is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", pil_kwargs={"compress_level": 1})  # read again at once
    plt.close(figure)
    return Image.open(buffer).convert("RGB")


def _display(image: Image.Image, name: str, alt: str, photograph: str = "") -> None:
    kind, picture = _compact(image, bool(photograph))
    if folder := run_dir():
        path = folder / f"{name}.{'jpg' if photograph else 'png'}"
        if path.exists():
            raise ValueError(f"name must differ from figure to figure, got {name!r} twice")
        path.write_bytes(picture)
    display({kind: picture, "text/plain": f"[figure] {alt}"}, raw=True, metadata={kind: {"alt": alt}})
    if photograph:
        display(Markdown(f"*{photograph}*"))


def _compact(image: Image.Image, photograph: bool) -> tuple[str, bytes]:
    """The MIME type and the bytes of a picture that looks the same: of 64 or 256 colours, unless these can be told from all.

    In the quick preset, which keeps no picture, it is not made small, which takes longer than to draw it.
    """
    buffer = io.BytesIO()
    if photograph:
        image.save(buffer, format="JPEG", quality=80, optimize=True, progressive=True)
        return "image/jpeg", buffer.getvalue()
    if passing():
        image.save(buffer, format="PNG", compress_level=1)
        return "image/png", buffer.getvalue()
    # In grey levels, the mean over the picture: plots have 0.1, thin lines over a gradient more than 0.6.
    for colours, limit in ((64, 0.5), (256, 0.6)):
        few = image.quantize(colours, kmeans=3, dither=Image.Dither.NONE)
        if max(ImageStat.Stat(ImageChops.difference(image, few.convert("RGB"))).mean) <= limit:
            image = few
            break
    image.save(buffer, format="PNG", optimize=True)
    return "image/png", buffer.getvalue()
