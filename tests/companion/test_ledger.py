"""The ledger: what a registry may contain, what a claim accepts, prints, records and raises."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image, ImageChops, ImageStat

from dynot_lite.companion import claim, figures, ledger, say, show, skip, start
from dynot_lite.companion.record import read
from dynot_lite.companion.table import markdown, terminal, write

REGISTRY = """
[T-1]
statement = "A residual vanishes"
source = "nowhere"
catches = "a wrong version"
kind = "identity"
at_most = 1e-9

[T-2]
statement = "The wrong statement fails by this much"
source = "nowhere"
catches = "a wrong version"
kind = "counter-example"
at_least = 0.5

[T-3]
statement = "A slope is about two"
source = "nowhere"
catches = "a wrong version"
kind = "rate"
at_least = 1.9
at_most = 2.1

[T-4]
statement = "Faster by a factor"
source = "nowhere"
catches = "a wrong version"
kind = "benchmark"
at_least = 50
"""


def write_registry(folder: Path, text: str, name: str = "tiny") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def claims(tmp_path, monkeypatch):
    """The registry above in place of the package's, and no notebook started."""
    entries = ledger.read_registry(write_registry(tmp_path / "claims", REGISTRY))
    monkeypatch.setattr(ledger, "registry", lambda: entries)
    monkeypatch.setattr(ledger, "_session", {"notebook": None, "preset": None, "seed": None})
    monkeypatch.delenv(ledger.RUN_DIR, raising=False)
    return entries


def test_registry_keeps_the_order_and_names_the_notebook(claims):
    assert list(claims) == ["T-1", "T-2", "T-3", "T-4"]
    assert {entry.notebook for entry in claims.values()} == {"tiny"}
    assert [entry.bound for entry in claims.values()] == ["≤ 1e-09", "≥ 0.5", "≥ 1.9, ≤ 2.1", "≥ 50"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[T-1]", "[t1]"), "identifier"),
        (("[T-2]", "[T-1]"), "T-1"),
        (("at_most = 1e-9\n", ""), "no bound"),
        (("at_most = 1e-9", 'at_most = "1e-9"'), "finite number as at_most"),
        (("at_most = 1e-9", "at_most = nan"), "finite number as at_most"),
        (("at_most = 1e-9", "at_most = true"), "finite number as at_most"),
        (("at_most = 1e-9", "at_mots = 1e-9"), "at_mots"),
        (('"A residual vanishes"', '""'), "one line of text as statement"),
        (('"A residual vanishes"', '"two\\nlines"'), "one line of text as statement"),
        (('catches = "a wrong version"', 'catches = " "'), "one line of text as catches"),
        (('catches = "a wrong version"\n', ""), "lacks ['catches']"),
        (('"identity"', '"theorem"'), "theorem"),
        (("at_least = 0.5", "at_least = 0.0"), "counter-example"),
        (("at_least = 0.5", "at_most = 0.5"), "counter-example"),
        (("at_least = 1.9", "at_least = 2.2"), "never hold"),
        (('source = "nowhere"\n', ""), "lacks ['source']"),
    ],
)
def test_malformed_registries_are_refused(tmp_path, change, message):
    text = REGISTRY.replace(*change, 1)
    assert text != REGISTRY
    with pytest.raises(ValueError, match=r"^tiny\.toml: ") as error:
        ledger.read_registry(write_registry(tmp_path / "claims", text))
    assert message in str(error.value)


def test_an_identifier_belongs_to_one_notebook(tmp_path):
    folder = write_registry(tmp_path / "claims", REGISTRY)
    write_registry(folder, REGISTRY, "zother")
    with pytest.raises(ValueError, match="zother.toml: T-1 is already registered for tiny"):
        ledger.read_registry(folder)


@pytest.mark.parametrize(
    ("identifier", "inside", "outside"),
    [
        ("T-1", [0.0, 1e-9, -5.0], [1.001e-9, math.nan, math.inf, -math.inf]),
        ("T-2", [0.5, 3.0], [0.499, 0.0, math.nan, math.inf]),
        ("T-3", [1.9, 2.1], [1.89, 2.11, math.nan]),
    ],
)
def test_bounds_are_inclusive_and_what_is_not_finite_fails(claims, capsys, identifier, inside, outside):
    start("tiny", preset="quick", seed=0)
    capsys.readouterr()
    for value in inside:
        claim(identifier, value)
        assert capsys.readouterr().out == f"{claims[identifier].line('PASS')}  measured {claims[identifier].rounded(value)}\n"
    for value in outside:
        with pytest.raises(AssertionError, match=f"{identifier}: measured"):
            claim(identifier, value)
        assert capsys.readouterr().out == f"{claims[identifier].line('FAIL')}  measured {claims[identifier].rounded(value)}\n"


def test_the_value_has_the_digits_that_show_on_which_side_of_the_bounds_it_is(claims):
    assert claims["T-3"].rounded(2.0999) == "2.1"
    assert claims["T-3"].rounded(1.899) == "1.899"  # "1.9" would look accepted
    assert claims["T-1"].rounded(1.04e-9) == "1.04e-09"
    narrow = ledger.Claim("T-9", "tiny", "One third", "ours", "identity", at_least=1.3333, at_most=1.3334)
    assert narrow.rounded(4 / 3) == "1.3333"
    tight = ledger.Claim("T-9", "tiny", "A root", "ours", "identity", at_least=0.2462112, at_most=0.2462113)
    assert tight.bound == "≥ 0.2462112, ≤ 0.2462113"


def test_the_line_shows_verdict_statement_bound_and_two_digits_of_the_value(claims):
    assert claims["T-1"].line("PASS", 6.04e-13) == "PASS T-1  A residual vanishes  (≤ 1e-09)  measured 6e-13"
    assert claims["T-3"].line("FAIL", math.nan) == "FAIL T-3  A slope is about two  (≥ 1.9, ≤ 2.1)  measured nan"


def test_start_says_once_what_the_outputs_are_of(claims, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv(ledger.RUN_DIR, str(tmp_path))
    for _ in range(2):
        start("tiny", preset="quick", seed=3)
    pattern = (
        r"run: preset quick, seed 3, revision (unknown|[0-9a-f]{7,}\+?), 20\d\d-\d\d-\d\d, Python 3\.\S+, torch 2\S+, numpy \S+\n"
    )
    assert re.fullmatch(pattern, capsys.readouterr().out)
    assert json.loads((tmp_path / ledger.KERNEL_FILE).read_text()) == [sys.executable, str(ledger.PACKAGE)]


def test_the_revision_shows_changes_but_not_of_outputs(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "PACKAGE", tmp_path / "package")
    assert ledger.revision() is None
    for name in ("notebooks/assignments/one.ipynb", "figures/one.png", "one.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1", encoding="utf-8")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "one"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    clean = ledger.revision()
    for name in ("notebooks/assignments/one.ipynb", "figures/two.png"):
        (tmp_path / name).write_text("2", encoding="utf-8")
    assert ledger.revision() == clean and "+" not in clean
    (tmp_path / "two.py").write_text("2", encoding="utf-8")
    assert ledger.revision() == clean + "+"


def test_what_is_said_is_marked_line_by_line(capsys):
    say("after", 3, "steps:\n  0.5")
    assert capsys.readouterr().out == "· after 3 steps:\n·   0.5\n"


@pytest.mark.parametrize(
    "value", [2, 2.0, np.float64(2), np.array([[2.0]]), torch.tensor(2.0).double(), torch.tensor([2.0], requires_grad=True)]
)
def test_numbers_and_arrays_of_one_element_are_values(claims, value):
    start("tiny", preset="quick", seed=0)
    claim("T-3", value)


@pytest.mark.parametrize("value", [np.ones(2), torch.ones(2), np.ones(0), None, "two", 1j])
def test_other_values_raise(claims, value):
    start("tiny", preset="quick", seed=0)
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        claim("T-3", value)


def test_a_benchmark_is_asserted_in_the_full_preset_only(claims, capsys):
    start("tiny", preset="quick", seed=0)
    capsys.readouterr()
    claim("T-4", 3.0)
    assert capsys.readouterr().out == "SEEN T-4  Faster by a factor  (≥ 50)  measured 3  [asserted in the full preset]\n"
    start("tiny", preset="full", seed=0)
    with pytest.raises(AssertionError):
        claim("T-4", 3.0)
    claim("T-4", 51.0)


def test_a_benchmark_without_its_peer_is_skipped_and_nothing_else_is(claims, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv(ledger.RUN_DIR, str(tmp_path))
    with pytest.raises(ValueError, match="start"):
        skip("T-4")
    start("tiny", preset="full", seed=0)
    capsys.readouterr()
    skip("T-4")
    assert capsys.readouterr().out == "SKIP T-4  Faster by a factor  (≥ 50)  [the peer is not installed]\n"
    assert json.loads((tmp_path / ledger.CLAIMS_FILE).read_text()) == {"id": "T-4", "value": None, "verdict": "SKIP"}
    assert markdown(claims, {"T-4": {"value": None, "verdict": "SKIP"}}).splitlines()[-2].endswith("| – |")
    with pytest.raises(ValueError, match="T-1 is of kind 'identity'; only a benchmark"):
        skip("T-1")


def test_a_claim_must_be_registered_for_the_notebook_that_was_started(claims):
    with pytest.raises(ValueError, match="start"):
        claim("T-1", 0.0)
    start("tiny", preset="quick", seed=0)
    with pytest.raises(KeyError, match="T-9"):
        claim("T-9", 0.0)
    start("other", preset="quick", seed=0)
    with pytest.raises(ValueError, match="registered for tiny, not for other"):
        claim("T-1", 0.0)


@pytest.mark.parametrize(("preset", "seed"), [("medium", 0), ("quick", -1), ("quick", 0.5), ("quick", True), ("full", "0")])
def test_wrong_parameters_are_refused(claims, preset, seed):
    with pytest.raises(ValueError, match="preset|seed"):
        start("tiny", preset=preset, seed=seed)


def test_a_run_records_raw_values(claims, tmp_path, monkeypatch):
    monkeypatch.setenv(ledger.RUN_DIR, str(tmp_path))
    start("tiny", preset="quick", seed=0)
    claim("T-1", 2.5e-10)
    with pytest.raises(AssertionError):
        claim("T-2", math.nan)
    lines = (tmp_path / ledger.CLAIMS_FILE).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line, parse_constant=pytest.fail) for line in lines] == [
        {"id": "T-1", "value": 2.5e-10, "verdict": "PASS"},
        {"id": "T-2", "value": None, "verdict": "FAIL"},
    ]


def drawn(folder: Path) -> Path:
    """A figure as matplotlib saves it; ``show`` keeps it as a_line.png."""
    figure, axes = plt.subplots()
    axes.plot([0, 1])
    figure.savefig(folder / "as_drawn", format="png")
    show(figure, "a_line", alt="A straight line that rises")
    assert not plt.fignum_exists(figure.number)
    return folder / "as_drawn"


def test_pictures_of_record_are_small(claims, tmp_path, monkeypatch):
    monkeypatch.setenv(ledger.RUN_DIR, str(tmp_path))
    start("tiny", preset="full", seed=0)
    original, kept = Image.open(path := drawn(tmp_path)), Image.open(tmp_path / "a_line.png")
    assert kept.format == "PNG" and kept.mode == "P" and error(original, kept) < 0.6
    assert "Software" not in kept.info  # the same picture is the same bytes after an update of matplotlib
    assert (tmp_path / "a_line.png").stat().st_size < 0.6 * path.stat().st_size
    with pytest.raises(ValueError, match="twice"):
        show(plt.figure(), "a_line", alt="Another figure of the same name")


def test_pictures_of_a_quick_run_are_as_drawn(claims, tmp_path, monkeypatch):
    monkeypatch.setenv(ledger.RUN_DIR, str(tmp_path))
    start("tiny", preset="quick", seed=0)
    original, kept = Image.open(drawn(tmp_path)), Image.open(tmp_path / "a_line.png")
    assert kept.format == "PNG" and error(original, kept) == 0


def error(one: Image.Image, other: Image.Image) -> float:
    return max(ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).mean)


@pytest.mark.parametrize("photograph", ["", "Photographs: A. Uthor, CC BY 2.0"])
def test_a_picture_of_many_colours_keeps_them_and_names_its_authors(tmp_path, monkeypatch, photograph):
    monkeypatch.setenv(ledger.RUN_DIR, str(tmp_path))
    figure = plt.figure(figsize=(3, 3))
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    smooth = np.linspace(0, 1, 300)
    axes.imshow(np.stack(np.broadcast_arrays(smooth[:, None], smooth, smooth[::-1]), axis=-1))
    axes.set_axis_off()
    figure.savefig(tmp_path / "as_drawn", format="png")
    displayed = []
    monkeypatch.setattr(figures, "display", lambda *shown, **options: displayed.append((shown, options)))
    show(figure, "colours", alt="A square of many smooth colours", photograph=photograph)
    assert [shown[0].data for shown, _ in displayed[1:]] == [f"*{photograph}*"] * bool(photograph)
    (kept,) = tmp_path.glob("colours.*")
    assert Image.open(kept).format == ("JPEG" if photograph else "PNG") and Image.open(kept).mode == "RGB"
    assert error(Image.open(tmp_path / "as_drawn"), Image.open(kept)) < 1.5 * bool(photograph) + 0.01
    with pytest.raises(ValueError, match="twice"):
        show(plt.figure(), "colours", alt="Another figure of the same name", photograph=photograph)


@pytest.mark.parametrize(("name", "alt"), [("With Space", "A line that rises slowly"), ("line", ""), ("line", "a line")])
def test_figures_need_a_plain_name_and_a_sentence(name, alt):
    with pytest.raises(ValueError, match="name|alt"):
        show(plt.figure(), name, alt=alt)


def test_the_package_registry_is_well_formed():
    assert ledger.read_registry(Path(ledger.__file__).parent / "claims") == ledger.registry()


def test_the_tables_show_every_claim_once(claims):
    results = {"T-1": {"value": 2.5e-16, "verdict": "PASS"}, "T-2": {"value": None, "verdict": "FAIL"}}
    text = terminal(claims, results)
    assert "4 claims: 1 PASS, 0 SEEN, 0 SKIP, 1 FAIL, 2 NOT REACHED" in text
    rows = [line.split() for line in text.splitlines() if " T-" in line]
    assert [row[0] for row in rows] == ["PASS", "FAIL", "NOT", "NOT"]
    assert rows[0][2] == "2.5e-16"
    table = [line for line in markdown(claims, results).splitlines() if line.startswith("| T-")]
    assert table[0] == "| T-1 | A residual vanishes | identity | ≤ 1e-09 | 2.5e-16 |"
    assert table[3].endswith("| – |")
    assert all(line.count("|") == 6 for line in table)


def test_markup_in_statements_is_escaped(tmp_path):
    text = REGISTRY.replace("A residual vanishes", "E|X_t| = Ψ*(y) <b>")
    entries = ledger.read_registry(write_registry(tmp_path / "claims", text))
    assert r"| E\|X\_t\| = Ψ\*(y) \<b> |" in markdown(entries, {})


def test_the_table_is_written_with_the_values_of_record(claims, tmp_path):
    figures = tmp_path / "figures"
    assert write(claims, figures).read_text(encoding="utf-8") == markdown(claims, {})
    recorded = {"tiny": {"claims": {"T-1": {"value": 2.5e-16, "verdict": "PASS"}}}}
    (figures / "results.json").write_text(json.dumps(recorded), encoding="utf-8")
    text = write(claims, figures).read_text(encoding="utf-8")
    assert text == markdown(claims, recorded["tiny"]["claims"]) != markdown(claims, {})
    assert text.startswith("# Claims\n") and text.endswith("|\n") and "\n## [tiny](../notebooks/tiny.ipynb)\n" in text


def test_without_a_record_nothing_is_measured(tmp_path):
    assert read(tmp_path) == {}


def test_without_the_libraries_of_the_notebooks_the_extra_is_named():
    code = "import sys; sys.modules['matplotlib'] = None; import dynot_lite.companion"
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = failed.stderr.splitlines()[-1]
    assert last == "ImportError: dynot_lite.companion needs matplotlib: install dynot_lite[notebooks]"
