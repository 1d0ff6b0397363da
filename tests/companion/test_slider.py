"""The slider of a notebook: its two outputs, what a comparison makes of them, and the script in a browser."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from dynot_lite.companion import figures, notebooks, slide
from dynot_lite.companion.ledger import RUN_DIR

ALT = 'A dot that </script><b> moves "right", as time goes on'
CONFIG = Path(__file__).resolve().parents[1] / "nbval.cfg"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def dot(place, size=(2, 1)):
    """A figure that is a dot at ``place`` of [0, 1], white elsewhere."""
    figure = plt.figure(figsize=size, dpi=50)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.scatter([place], [0.5], s=200, color="black")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.axis("off")
    return figure


@pytest.fixture
def displayed(monkeypatch, tmp_path):
    """What is displayed, (data, metadata) in order; the folder of the run is ``tmp_path``."""
    found = []
    monkeypatch.setattr(figures, "display", lambda data, raw, metadata=None: found.append((data, metadata or {})))
    monkeypatch.setenv(RUN_DIR, str(tmp_path))
    monkeypatch.setattr("matplotlib.rcParams", plt.rcParams | {"savefig.dpi": 50})
    return found


def centre(picture):
    """Where the dark pixels are, as a share of the width."""
    columns = 255 - np.asarray(picture.convert("L"), dtype=float)
    return (columns.sum(0) @ np.arange(picture.width)) / columns.sum() / picture.width


def sheet_of(script):
    return Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([\w+/=]+)\)", script)[1])))


PLACES = (0.2, 0.5, 0.8)


def test_the_still_picture_comes_first_and_the_frames_stand_below_one_another(displayed, tmp_path):
    opened = []

    def frames():
        for place in PLACES:
            assert not plt.get_fignums(), "the figure before this one is closed"
            opened.append(place)
            yield dot(place)

    slide(frames(), np.array(PLACES), name="a_dot", label="place", still=1, alt=ALT)
    (picture, metadata), (second, _) = displayed
    assert opened == list(PLACES) and not plt.get_fignums()
    assert metadata == {"image/png": {"alt": ALT}} and picture["text/plain"] == f"[figure] {ALT}"
    assert (tmp_path / "a_dot.png").read_bytes() == picture["image/png"] and len(list(tmp_path.iterdir())) == 1
    assert centre(Image.open(io.BytesIO(picture["image/png"]))) == pytest.approx(0.5, abs=0.01)
    assert second.keys() == {"text/html", "text/plain"}
    sheet = sheet_of(second["text/html"])
    assert sheet.size == (100, 150) and len(sheet.getcolors()) <= 64
    found = [centre(sheet.crop((0, top, 100, top + 50))) for top in (0, 50, 100)]
    assert found == pytest.approx(PLACES, abs=0.01)


def test_the_output_is_one_script_that_texts_cannot_end(displayed):
    slide(map(dot, PLACES), ["0 %", "<b>", 0.1 + 0.2], name="a_dot", label='"τ</script>', alt=ALT)
    script = displayed[1][0]["text/html"]
    assert re.fullmatch(r'<!-- of this run --><script id="[\w-]+">[\s\S]*</script>', script)
    assert script.count("<") == 3 + script.count(" < ") and script.count("</script>") == 1
    assert json.loads(re.search(r"values = (\[.*?\]), last", script)[1]) == ["0 %", "<b>", "0.3"]
    assert json.loads(re.search(r"alt = (\".*\"), label", script)[1]) == ALT
    assert json.loads(re.search(r"label = (\".*\");", script)[1]) == '"τ</script>'


def test_notebook_comparisons_leave_it_out_and_checks_of_figures_accept_it(displayed):
    import configparser

    import nbformat

    slide(map(dot, PLACES), PLACES, name="a_dot", alt=ALT)
    rules = configparser.ConfigParser(interpolation=None)
    rules.read(CONFIG, encoding="ascii")
    text = displayed[1][0]["text/html"]
    for section in rules.sections():
        text = re.sub(rules[section]["regex"], rules[section]["replace"], text)
    assert text == "TABLE"
    data = [{**data, **{k: base64.b64encode(v).decode() for k, v in data.items() if k == "image/png"}} for data, _ in displayed]
    outputs = [
        nbformat.v4.new_output("display_data", each, metadata=metadata)
        for each, (_, metadata) in zip(data, displayed, strict=True)
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", outputs=outputs)])
    assert notebooks.figure_problems(notebook) == [] and notebooks.path_problems(notebook) == []


def test_the_same_frames_make_the_same_output_and_others_another(displayed):
    for number, places in enumerate([PLACES, PLACES, (0.2, 0.5, 0.7)]):
        slide(map(dot, places), PLACES, name=f"a_dot_{number}", alt=ALT)
    first, again, other = (re.sub(r"slide-\w+", "KEY", data["text/html"]) for data, _ in displayed[1::2])
    assert first == again != other
    assert len({re.search(r"slide-\w+", data["text/html"])[0] for data, _ in displayed[1::2]}) == 3  # two on one page


@pytest.mark.parametrize(
    ("given", "changed", "words"),
    [
        (PLACES, {"values": PLACES[:2]}, "values must be one for each figure, got 2 for 3"),
        (PLACES, {"values": [0.5]}, "values must be two at least, got 1"),
        (PLACES, {"values": ()}, "values must be two at least, got 0"),
        (PLACES, {"values": [0, "one", None]}, "values must be numbers or texts"),
        (PLACES, {"still": 3}, "still must be the number of a figure, 0 to 2, got 3"),
        (PLACES, {"still": -1}, "still must be"),
        (PLACES, {"still": True}, "still must be"),
        (PLACES, {"still": 0.5}, "still must be"),
        (PLACES, {"name": "A dot"}, "name must be"),
        (PLACES, {"alt": "A dot"}, "alt must describe"),
    ],
)
def test_bad_input_is_named_and_nothing_is_shown(displayed, given, changed, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        slide(map(dot, given), **{"values": PLACES, "name": "a_dot", "alt": ALT, **changed})
    assert displayed == []


def test_figures_of_two_sizes_and_too_many_bytes_are_refused(displayed, monkeypatch):
    with pytest.raises(ValueError, match=r"figures must have one size, got \(100, 50\) and \(150, 50\) pixels"):
        slide([dot(0.2), dot(0.5, (3, 1))], [0, 1], name="a_dot", alt=ALT)
    monkeypatch.setattr(figures, "LARGEST_SLIDER", 1000)
    with pytest.raises(ValueError, match="figures have . kB, more than 1: fewer or smaller"):
        slide(map(dot, PLACES), PLACES, name="a_dot", alt=ALT)
    assert displayed == []


PAGE = """<!doctype html><meta charset="utf-8">
<div class="cell"><img alt="of the cell before"></div>
<div class="{cell}"><div class="output"><img alt="the still picture"></div><div class="output">{script}</div></div>
<script>
  const bar = document.querySelector("input"), view = document.querySelector("[role=img]"), told = [];
  const tell = () => told.push([document.querySelector("output").value, view.style.backgroundPositionY,
                                bar.getAttribute("aria-valuetext")]);
  tell();
  for (const value of [0, 2, 7]) {{ bar.value = value; bar.dispatchEvent(new Event("input")); tell(); }}
  const hidden = [...document.querySelectorAll("img")].map(picture => picture.style.display);
  const box = view.getBoundingClientRect();
  document.body.innerHTML = "<pre></pre>";
  document.querySelector("pre").textContent = JSON.stringify({{told, hidden, box: [box.width, box.height],
    label: bar.ariaLabel, alt: view.ariaLabel, parent: bar.parentElement.textContent}});
</script>"""


@pytest.mark.parametrize("cell", ["cell docutils container", "lm-Widget jp-Cell jp-CodeCell"])
def test_the_script_moves_the_frames_and_hides_the_still_picture_alone(displayed, tmp_path, cell):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no browser: none of " + ", ".join(BROWSERS))
    slide(map(dot, PLACES), [0.0, 0.5, 1.0], name="a_dot", label="place", still=1, alt=ALT)
    page = tmp_path / "page.html"
    page.write_text(PAGE.format(cell=cell, script=displayed[1][0]["text/html"]), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, timeout=120, check=True)
    said = json.loads(html.unescape(re.search(r"<pre>(.*?)</pre>", done.stdout.decode(), re.DOTALL)[1]))
    expected = [["0.5", "50%"], ["0", "0%"], ["1", "100%"], ["1", "100%"]]
    assert said["told"] == [[value, place, f"place = {value}"] for value, place in expected]
    assert said["hidden"] == ["", "none"] and said["box"] == [100, 50]
    assert (said["label"], said["alt"]) == ("place", ALT) and said["parent"].startswith("place = ")
