"""The record: outputs of the full preset in the notebooks, what is refused, what is kept, and what the comparison finds."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbval.plugin import get_sanitize_patterns
from PIL import Image, ImageDraw

from dynot_lite import cli
from dynot_lite.companion import notebooks, origin, record, runner
from dynot_lite.companion.ledger import read_registry
from dynot_lite.companion.notebooks import NotebookError

RULES = Path(__file__).resolve().parents[1] / "nbval.cfg"
CLAIMS = """
[T-1]
statement = "Small"
source = "nowhere"
catches = "a wrong version"
kind = "identity"
at_most = 1e-9

[T-2]
statement = "Fast"
source = "nowhere"
catches = "a wrong version"
kind = "benchmark"
at_least = 50
"""
# Everything that a notebook prints, with what depends on the preset marked as such.
CELLS = (
    'n = 3 if preset == "quick" else 5\nclaim("T-1", 1e-12 / n)\nclaim("T-2", 60 if preset == "full" else 3)',
    """
    from dynot_lite.companion import say
    for i in range(n):
        say(i, "of", n)
    print("two is", 2)
    """,
    'from IPython.display import Markdown\nMarkdown(f"<!-- of this run -->\\n| n |\\n|---|\\n| {n} |")',
    """
    from matplotlib import pyplot as plt
    figure, axes = plt.subplots()
    axes.plot([0, n])
    show(figure, "line", alt="A line that rises slowly")
    """,
)


def git(home: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", "-C", str(home), *who, *arguments], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def ran(tmp_path_factory, write_notebook):
    """A repository with one notebook, and the outcome of its full run, in another folder."""
    base = tmp_path_factory.mktemp("record")
    home, folder = base / "home", base / "home" / "notebooks"
    write_notebook(folder, "tiny", *CELLS, ledger=True)
    (folder / "claims").mkdir()
    (folder / "claims" / "tiny.toml").write_text(CLAIMS, encoding="utf-8")
    git(base, "init", "-q", "home")
    git(home, "add", ".")
    git(home, "commit", "-qm", "one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(origin, "PACKAGE", home / "dynot_lite")
        (outcome,) = runner.reproduce(folder, base / "build", read_registry(folder / "claims"), preset="full", seed=3)
    assert outcome.status == "done", outcome.error
    return home, outcome


@pytest.fixture
def copy(ran, tmp_path):
    """A copy of both, to be changed."""
    home, outcome = ran
    shutil.copytree(home, tmp_path / "home")
    shutil.copytree(outcome.path.parents[1], tmp_path / "run")
    return tmp_path / "home", dataclasses.replace(outcome, path=tmp_path / "run" / "notebooks" / "tiny.ipynb")


def edit(path: Path, change) -> None:
    notebook = notebooks.read_executed(path)
    change(notebook)
    nbformat.write(notebook, path)


def replacing(old: str, new: str):
    """A change of a stored notebook that replaces ``old`` in its texts."""

    def change(notebook) -> None:
        before = nbformat.writes(notebook)
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                if "text" in output:
                    output.text = output.text.replace(old, new)
                for kind in ("text/plain", "text/markdown"):
                    if kind in output.get("data", {}):
                        output.data[kind] = output.data[kind].replace(old, new)
        assert nbformat.writes(notebook) != before

    return change


def test_a_record_is_the_full_run_and_says_so_at_its_beginning_and_end(copy):
    home, outcome = copy
    assert record.objection(outcome, home) == ""
    assert record.record(outcome, home)
    assert not (home / "figures" / "tiny").exists()  # its picture is in the notebook, and no page shows it
    (home / "README.md").write_text("![A line.](figures/tiny/line.png)\n", encoding="utf-8")
    record.record(outcome, home)
    (home / "README.md").unlink()
    source = home / "notebooks" / "tiny.py"
    assert notebooks.check(source, read_registry(home / "notebooks" / "claims")) == []
    stored = notebooks.read_executed(source.with_suffix(".ipynb"))
    assert [cell.source for cell in stored.cells] == [cell.source for cell in notebooks.read_source(source).cells]
    revision = git(home, "rev-parse", "HEAD")[:7]
    first, last = stored.cells[1].outputs[0].text, stored.cells[-1].outputs[-1].data["text/plain"]
    assert re.fullmatch(r"run: preset full, seed 3, .+\n", first)
    assert re.fullmatch(
        rf"recorded: preset full, seed 3, revision {revision}, 20.+, Python 3.+, torch 2.+, numpy .+, \d+ s", last
    )
    lines = stored.cells[2].outputs[0].text.splitlines()
    assert lines == ["PASS T-1  Small  (≤ 1e-09)  measured 2e-13", "PASS T-2  Fast  (≥ 50)  measured 60"]
    assert stored.cells[3].outputs[0].text.splitlines() == [*(f"· {i} of 5" for i in range(5)), "two is 2"]
    made = stored.metadata["dynot_lite"]
    assert (made.preset, made.seed, made.revision, made.code) == ("full", 3, revision, notebooks.code_hash(stored))
    assert (home / "figures" / "tiny" / "line.png").exists()
    results = json.loads((home / "figures" / "results.json").read_text(encoding="utf-8"))
    assert results["tiny"]["claims"]["T-1"]["value"] == 2e-13 and "numpy" in results["tiny"]["provenance"]["packages"]
    assert not record.changes(home)


def test_what_says_the_same_is_kept_and_what_does_not_is_new(copy):
    home, outcome = copy
    target = home / "notebooks" / "tiny.ipynb"
    record.record(outcome, home)
    before = target.read_bytes()
    # Another run, a little later, on a machine that rounds otherwise.
    for change in (replacing("measured 2e-13", "measured 9e-14"), replacing("measured 60", "measured 58")):
        edit(outcome.path, change)
    slower = dataclasses.replace(outcome, seconds=500.0)
    assert not record.record(slower, home) and target.read_bytes() == before
    # Text between the cells alone.
    source = home / "notebooks" / "tiny.py"
    text = source.read_text(encoding="utf-8")
    source.write_text(text.replace("two is", "2 is"), encoding="utf-8")
    with pytest.raises(NotebookError, match=r"tiny\.py has changed since it ran"):
        record.record(outcome, home)
    source.write_text(text, encoding="utf-8")
    old = notebooks.read_executed(target)
    edit(outcome.path, replacing("measured 58", "measured 99"))
    assert record.record(slower, home)
    new = notebooks.read_executed(target)
    changed = [
        number for number, (one, other) in enumerate(zip(old.cells, new.cells, strict=True)) if one.outputs != other.outputs
    ]
    assert changed == [2, 5] and new.cells[-1].outputs[-1].data["text/plain"].endswith(", 500 s")
    assert new.cells[2].outputs[0].text.count("measured 9e-14") == 1


def test_outputs_of_the_quick_preset_are_not_kept(copy):
    home, outcome = copy
    record.record(outcome, home)
    target = home / "notebooks" / "tiny.ipynb"
    edit(target, lambda notebook: notebook.metadata.pop("dynot_lite"))
    assert record.record(outcome, home) and "dynot_lite" in notebooks.read_executed(target).metadata


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("PASS T-1  Small  (≤ 1e-09)  measured 6e-13", "PASS T-1  Small  (≤ 1e-09)  measured 2e-10", True),
        ("PASS T-1  Small  (≤ 1e-06)  measured 6e-7", "PASS T-1  Small  (≤ 1e-06)  measured 2e-7", False),
        ("PASS T-1  Small  (≤ 1e-09)  measured 6e-13", "FAIL T-1  Small  (≤ 1e-09)  measured 6e-13", False),
        ("PASS T-1  Small  (≤ 1e-09)  measured 6e-13", "PASS T-1  Small  (≤ 1e-09)", False),
        ("· 1.00 s for 20", "· 1.05 s for 20", True),
        ("· 1.00 s for 20", "· 1.20 s for 20", False),
        ("· 1.00 s for 20", "· 1.00 s\n· 1.00 s", False),
        ("two is 2.00", "two is 2.01", False),
        ("<!-- of this run -->\n| 1.00 |", "<!-- of this run -->\n| 1.01 |", True),
        ("| 1.00 |", "| 1.01 |", False),
    ],
)
def test_numbers_may_move_by_less_than_a_tenth_where_they_are_marked(old, new, same):
    outputs = [nbformat.v4.new_output("stream", text=text) for text in (old, new)]
    assert record._same(*outputs) is same


def picture(width: int, shade: int) -> nbformat.NotebookNode:
    image = Image.new("RGB", (100, 80), "white")
    ImageDraw.Draw(image).rectangle((10, 10, 10 + width, 20), fill=(shade, 0, 0))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return nbformat.v4.new_output("display_data", {"image/png": base64.b64encode(buffer.getvalue()).decode()})


def test_a_picture_is_the_same_if_nobody_sees_the_difference():
    assert record._same(picture(30, 100), picture(30, 103))
    assert not record._same(picture(30, 100), picture(33, 100))
    assert not record._same(picture(30, 100), picture(30, 200))


def test_edited_text_is_taken_over_and_outputs_stay(copy):
    home, outcome = copy
    record.record(outcome, home)
    source = home / "notebooks" / "tiny.py"
    target, claims = source.with_suffix(".ipynb"), read_registry(home / "notebooks" / "claims")
    old, text = notebooks.read_executed(target), source.read_text(encoding="utf-8")
    source.write_text("# %% [markdown]\n# # A title\n\n" + text, encoding="utf-8")
    notebooks.take_text(source)
    new = notebooks.read_executed(target)
    assert new.cells[0].source == "# A title" and new.cells[1:] == old.cells and new.metadata == old.metadata
    assert notebooks.check(source, claims) == []
    before = target.read_bytes()
    source.write_text(text.replace("two is", "2 is"), encoding="utf-8")
    with pytest.raises(NotebookError, match=r"code of tiny\.py differs"):
        notebooks.take_text(source)
    assert target.read_bytes() == before


# -------------------------------------------------------------------------------------------------------- refusals


def test_an_uncommitted_change_and_a_folder_without_git_are_refused(copy, tmp_path):
    home, _ = copy
    record.check_tree(home)
    for name in ("figures/a.png", "notebooks/tiny.ipynb"):
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text("", encoding="utf-8")
    record.check_tree(home)
    (home / "notebooks" / "tiny.py").write_text("", encoding="utf-8")
    with pytest.raises(NotebookError, match=r"(?s)committed or undone:.*tiny\.py"):
        record.check_tree(home)
    with pytest.raises(NotebookError, match="no git revision"):
        record.check_tree(tmp_path)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"status": "failed"}, "failed"),
        ({"results": {"T-2": {"value": None, "verdict": "SKIP"}}}, "T-2 need the peers"),
        ({"results": {"T-2": {"value": 3.0, "verdict": "SEEN"}}}, "T-2 did not pass"),
    ],
)
def test_results_that_did_not_all_pass_are_refused(copy, fields, words):
    home, outcome = copy
    assert words in record.objection(dataclasses.replace(outcome, **fields), home)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"uncommitted_changes": True}, "not committed"),
        ({"uncommitted_changes": None}, "not committed"),
        ({"preset": "quick"}, "not committed"),
        ({"revision": "0" * 40}, "0000000, which HEAD does not come from"),
    ],
)
def test_results_of_another_tree_are_refused(copy, fields, words):
    home, outcome = copy
    path = outcome.path.parents[1] / "results" / "tiny" / "provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | fields), encoding="utf-8")
    assert words in record.objection(outcome, home)


def test_a_later_commit_does_not_hinder_and_another_branch_does(copy):
    home, outcome = copy
    git(home, "commit", "-q", "--allow-empty", "-m", "two")
    assert record.objection(outcome, home) == ""
    git(home, "checkout", "-q", "--orphan", "other")
    git(home, "commit", "-qm", "three")
    assert "HEAD does not come from" in record.objection(outcome, home)


@pytest.mark.parametrize("text", ["", "[]", '{"tiny": []}', '{"tiny": {}}'])
def test_a_damaged_record_is_named(tmp_path, text, monkeypatch, capsys):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "results.json").write_text(text, encoding="utf-8")
    monkeypatch.setattr(notebooks, "root", lambda: tmp_path)
    assert text == "[]" or (cli.main(["claims"]) == 1 and "results.json is damaged" in capsys.readouterr().err)


def test_outputs_of_other_code_or_of_the_quick_preset_are_found(copy):
    home, outcome = copy
    record.record(outcome, home)
    source = home / "notebooks" / "tiny.py"
    target = source.with_suffix(".ipynb")
    claims = read_registry(home / "notebooks" / "claims")
    before = target.read_bytes()
    edit(target, lambda notebook: notebook.metadata["dynot_lite"].update(preset="quick"))
    assert any("record it" in problem for problem in notebooks.check(source, claims))
    target.write_bytes(before)
    edit(target, lambda notebook: notebook.metadata.pop("dynot_lite"))
    assert any("record it" in problem for problem in notebooks.check(source, claims))
    target.write_bytes(before)
    source.write_text(source.read_text(encoding="utf-8").replace("two is", "2 is"), encoding="utf-8")
    edit(target, lambda notebook: notebook.cells[3].update(source=notebook.cells[3].source.replace("two is", "2 is")))
    assert any("record it" in problem for problem in notebooks.check(source, claims))


def test_the_proofs_beside_a_story_have_its_file_name_and_everything_apart(tmp_path, write_notebook):
    home, figure = (
        tmp_path / "home",
        "from dynot_lite.companion import show\nfrom matplotlib import pyplot as plt\nplt.plot([0, {0}])",
    )
    for folder, size in (("notebooks", 1), ("notebooks/proofs", 2)):
        write_notebook(home / folder, "one", figure.format(size) + '\nshow(plt.gcf(), "line", alt="A line that rises slowly")')
    git(tmp_path, "init", "-q", "home")
    git(home, "add", ".")
    git(home, "commit", "-qm", "A story and its proofs")
    ways = ["one", "notebooks/proofs/one.py", "proofs/one"]
    assert notebooks.find_notebooks(home / "notebooks", ways) == ["one", "proofs/one"]
    outcomes = runner.reproduce(home / "notebooks", tmp_path / "build", {}, preset="full")
    assert [(outcome.notebook, outcome.status) for outcome in outcomes] == [("one", "done"), ("proofs/one", "done")]
    again = runner.reproduce(home / "notebooks", tmp_path / "build", {}, preset="full")
    assert [outcome.status for outcome in again] == ["unchanged", "unchanged"]
    (home / "README.md").write_text("![](figures/one/line.png) ![](figures/proofs/one/line.png)\n", encoding="utf-8")
    for outcome in outcomes:
        assert record.record(outcome, home)
    pictures = [(home / "figures" / name / "line.png").read_bytes() for name in ("one", "proofs/one")]
    assert pictures[0] != pictures[1] and sorted(record._load(home / "figures")) == ["one", "proofs/one"]
    record.fill(home / "notebooks", tmp_path / "compare")
    for name in ("one.ipynb", "proofs/one.ipynb"):
        stored, filled = (notebooks.read_executed(folder / name) for folder in (home / "notebooks", tmp_path / "compare"))
        assert [cell.source for cell in stored.cells if "plot" in cell.source] == [
            cell.source for cell in filled.cells if "plot" in cell.source
        ]


# ------------------------------------------------------------------------------------------------------ comparison


def test_the_quick_preset_is_compared_with_the_stored_outputs_of_the_full_one(copy, tmp_path):
    home, outcome = copy
    record.record(outcome, home)
    folder = tmp_path / "compare"
    record.fill(home / "notebooks", folder)
    shutil.copytree(home / "notebooks" / "claims", folder / "claims")
    changes = {
        "statement": replacing("Small", "Tiny"),
        "number": replacing("two is 2", "two is 3"),
        "marked": replacing("· ", ""),
    }
    for name, change in changes.items():
        shutil.copy(folder / "tiny.ipynb", folder / f"{name}.ipynb")
        edit(folder / f"{name}.ipynb", change)
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", f"--nbval-sanitize-with={RULES}", "-rA"]
    environment = notebooks.kernel_environment(tmp_path / "jupyter")
    done = subprocess.run([*command, "--color=no", "."], cwd=folder, env=environment, capture_output=True, text=True)
    failed = set(re.findall(r"(?m)^FAILED (\w+)\.ipynb::Cell (\d)", done.stdout))
    assert failed == {("statement", "3"), ("number", "4"), ("marked", "4")}, done.stdout
    assert len(re.findall(r"(?m)^PASSED tiny\.ipynb::Cell \d", done.stdout)) == 7


@pytest.mark.parametrize(
    ("full", "quick", "same"),
    [
        ("PASS A-1  x (y)  (≤ 1)  measured 0.5", "SEEN A-1  x (y)  (≤ 1)  measured 7  [asserted in the full preset]", True),
        ("PASS A-1  x  (≤ 1)  measured 0.5\nPASS A-2  z  (≥ 1)", "PASS A-1  x  (≤ 1)\nPASS A-2  z  (≥ 1)  measured 3", True),
        ("PASS A-1  x  (≤ 1)  measured 0.5", "SKIP A-1  x  (≤ 1)  [the peer is not installed]", True),
        ("PASS A-1  x  (≤ 1)  measured 0.5", "PASS A-1  x  (≤ 2)  measured 0.5", False),
        ("PASS A-1  x  (≤ 1)  measured 0.5", "FAIL A-1  x  (≤ 1)  measured 5", False),
        ("PASS A-1  x  (≤ 1)  measured 0.5", "PASS A-2  x  (≤ 1)  measured 0.5", False),
        ("PASS A-1  x  (≤ 1)  measured 0.5\n", "", False),
        ("· 1\n· 2\n· 3\nthe end", "· 7\nthe end", True),
        ("PASS A-1  x  (≤ 1)  measured 0.5\n· 1\n· 2\n", "PASS A-1  x  (≤ 1)  measured 0.6\n· 2\n", True),
        ("· 1\nthe end", "the end", False),
        ("· 1\nthe end is 1", "· 1\nthe end is 2", False),
        ("run: preset full, seed 0, revision a", "run: preset quick, seed 0, revision b", True),
        ("<!-- of this run -->\n| 1 |\n| 2 |", "<!-- of this run -->\n| 3 |", True),
        ("| 1 |", "| 2 |", False),
        ("· ott is not installed: see\n1", "· ott 0.6.0\n1", True),
    ],
)  # fmt: skip
def test_the_rules_of_the_comparison(full, quick, same):
    text = RULES.read_bytes().decode("ascii")  # nbval opens it in the encoding of the platform
    for pattern, replacement in get_sanitize_patterns(text):
        full, quick = re.sub(pattern, replacement, full), re.sub(pattern, replacement, quick)
    assert (full == quick) is same
