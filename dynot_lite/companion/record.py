"""What is kept of a run: its outcome, and the record of the full preset in ``notebooks/`` and ``figures/``."""

import base64
import importlib.metadata
import io
import json
import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from PIL import Image, ImageChops, ImageStat

from dynot_lite.companion import notebooks
from dynot_lite.companion.ledger import changes, git, run_line
from dynot_lite.companion.notebooks import RECORD, NotebookError

__all__ = ["Outcome", "as_json", "check_tree", "fill", "objection", "read", "record"]

RESULTS = "results.json"
# Lines whose numbers may move a little without saying anything else.
VARIES = re.compile(r"(?:PASS|SEEN) [A-Z][A-Z0-9]*-\d+[a-z]?  |· ")
NUMBER = re.compile(r"(?<![\w.-])[-−+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.-])")


@dataclass(frozen=True)
class Outcome:
    """How one notebook ended: ``results`` has, per claim that was reached, its value and verdict."""

    notebook: str
    status: str  # "done", "unchanged" or "failed"
    path: Path
    seconds: float
    results: dict[str, dict[str, Any]]
    error: str = ""
    seed: int = 0


def read(figures: Path) -> dict[str, dict[str, Any]]:
    """The results of record, ``{claim: {"value", "verdict"}}``, of all notebooks in ``figures/results.json``."""
    return {identifier: result for notebook in _load(figures).values() for identifier, result in notebook["claims"].items()}


def check_tree(home: Path) -> None:
    """Raise NotebookError unless the results of ``home`` have a revision: git, and no changes but of outputs."""
    changed = changes(home)
    if changed is None:
        raise NotebookError(f"nothing can be recorded: {home} has no git revision that the results would belong to")
    if changed:
        raise NotebookError(f"nothing can be recorded before these changes are committed or undone:\n{changed}")


def objection(outcome: Outcome, home: Path) -> str:
    """Why the results of a notebook cannot be recorded in ``home``; empty if they can."""
    if outcome.status == "failed":
        return "it failed"
    if skipped := [identifier for identifier, result in outcome.results.items() if result["verdict"] == "SKIP"]:
        needed = "need the peers (python3 run.py peers), or the data of notebook 06 (DYNOT_DATA)"
        return f"{', '.join(skipped)} {needed}"
    if wrong := [identifier for identifier, result in outcome.results.items() if result["verdict"] != "PASS"]:
        return f"{', '.join(wrong)} did not pass"
    made = _made(outcome)
    if made["preset"] != "full" or made["uncommitted_changes"] is not False:
        return "it ran with changes that were not committed (--force runs it again)"
    if git(home, "merge-base", "--is-ancestor", made["revision"], "HEAD") is None:
        return f"it ran at revision {made['revision'][:7]}, which HEAD does not come from (--force runs it again)"
    return ""


def record(outcome: Outcome, home: Path) -> bool:
    """Make the results of a finished notebook those of record; returns whether its stored outputs changed.

    Its outputs go into ``notebooks/NAME.ipynb``; its animations, its tables, and the pictures that a page or a notebook's text
    shows to ``figures/NAME`` (every other picture has its one copy in the notebook); the seconds it took, the provenance of its
    run (of the packages those that dynot_lite names itself) and the value and verdict of each of its claims to
    ``figures/results.json``. What is recorded of other notebooks stays.
    Raises NotebookError if the notebook has changed since.
    """
    figures, made = home / "figures", _made(outcome)
    changed = _store(notebooks.source_path(home / "notebooks", outcome.notebook), outcome, made)
    recorded = _load(figures)
    folder = figures / outcome.notebook
    shown = _shown(home)
    results = {
        path.name: path
        for path in _results(outcome).iterdir()
        if path.suffix in (".gif", ".csv") or f"figures/{outcome.notebook}/{path.name}" in shown
    }
    for old in folder.glob("*"):
        if old.name not in results:
            old.unlink()
    for name, path in sorted(results.items()):
        folder.mkdir(parents=True, exist_ok=True)
        alike = path.suffix in (".png", ".jpg") and (folder / name).exists()
        if not (alike and _same_picture((folder / name).read_bytes(), path.read_bytes())):
            shutil.copyfile(path, folder / name)
    named = {re.split(r"[^\w.-]", line)[0].lower() for line in importlib.metadata.requires("dynot_lite") or []}
    made["packages"] = {name: version for name, version in made["packages"].items() if name.lower() in named}
    recorded[outcome.notebook] = {"seconds": round(outcome.seconds, 1), "provenance": made, "claims": outcome.results}
    figures.mkdir(exist_ok=True)
    (figures / RESULTS).write_text(as_json(dict(sorted(recorded.items()))), encoding="utf-8")
    return changed


def _shown(home: Path) -> set[str]:
    """The files of ``figures/`` that a page or the text of a notebook shows: any other picture has its place in a notebook."""
    pages = [*home.glob("*.md"), *(home / "notebooks").rglob("*.py")]
    return {name for page in pages for name in re.findall(r"figures/[\w./-]+", page.read_text(encoding="utf-8"))}


def _results(outcome: Outcome) -> Path:
    return outcome.path.parents[1 + outcome.notebook.count("/")] / "results" / outcome.notebook


def _made(outcome: Outcome) -> dict[str, Any]:
    """The provenance of the run."""
    return json.loads((_results(outcome) / "provenance.json").read_text(encoding="utf-8"))


def _load(figures: Path) -> dict[str, dict[str, Any]]:
    path = figures / RESULTS
    try:
        recorded = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if all(isinstance(entry["claims"], dict) for entry in recorded.values()):
            return recorded
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    raise NotebookError(f"{path} is damaged: restore it (git checkout figures/{RESULTS})")


def as_json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


# ------------------------------------------------------------------------------------------------ the stored outputs


def _store(source: Path, outcome: Outcome, made: dict[str, Any]) -> bool:
    """Put the outputs of a run into ``NAME.ipynb``: the old ones where they say the same, so that a diff shows what changed."""
    from nbval.plugin import coalesce_streams  # comes with the tests; papermill stores a stream in pieces

    target = source.with_suffix(".ipynb")
    notebook, executed = notebooks.read_source(source), notebooks.read_executed(outcome.path)
    executed.cells = [cell for cell in executed.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    if [cell.source for cell in executed.cells] != [cell.source for cell in notebook.cells]:
        raise NotebookError(f"{source.name} has changed since it ran")
    old = notebooks.read_executed(target) if target.exists() else nbformat.v4.new_notebook()
    notebooks.keep_identifiers(notebook, old)
    # Outputs of the quick preset are not kept even where they look the same.
    stored = {cell.id: cell.outputs for cell in old.cells if cell.cell_type == "code" and RECORD in old.metadata}
    code = {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}
    made = made | {"revision": made["revision"][:7]}
    changed = stored.keys() != code.keys() or old.metadata[RECORD].get("code") != notebooks.code_hash(notebook)
    count = 0
    for cell, ran in zip(notebook.cells, executed.cells, strict=True):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        count += 1
        cell.execution_count, cell.outputs, last = count, coalesce_streams(ran.outputs), cell
        before = without_record(stored.get(cell.id, []))
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
        same = [_same(*pair) for pair in zip(before, cell.outputs, strict=False)]
        changed |= len(before) != len(cell.outputs) or not all(same)
        # The line that says what the outputs are of is as new as the newest of them.
        keep = [yes and "run: preset " not in output.get("text", "") for yes, output in zip(same, before, strict=False)]
        cell.outputs[: len(keep)] = [pair[not yes] for yes, *pair in zip(keep, before, cell.outputs, strict=False)]
    if changed:
        line = f"recorded: {run_line(made)}, {outcome.seconds:.0f} s"
        last.outputs.append(nbformat.v4.new_output("display_data", {"text/plain": line}, metadata={RECORD: "record"}))
        versions = {"python": made["python"], "torch": made["packages"]["torch"], "numpy": made["packages"]["numpy"]}
        kept = {"preset": made["preset"], "seed": made["seed"], "revision": made["revision"], "date": made["time"][:10]}
        kept |= {"seconds": round(outcome.seconds), "versions": versions, "code": notebooks.code_hash(notebook)}
        notebook.metadata[RECORD] = kept
    else:
        notebook.metadata[RECORD] = old.metadata[RECORD]
        for identifier, cell in code.items():
            cell.outputs = stored[identifier]
    notebooks.write(notebook, target)
    return changed


def without_record(outputs: Sequence[NotebookNode]) -> list[NotebookNode]:
    """``outputs`` without the line that a recording adds at the end of a notebook."""
    return [output for output in outputs if RECORD not in output.get("metadata", {})]


def fill(folder: Path, target: Path) -> None:
    """Fill ``target`` anew with the stored notebooks of ``folder``, as the tests compare them: to be run in the quick preset."""
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in notebooks.find_notebooks(folder):
        path = notebooks.source_path(folder, name).with_suffix(".ipynb")
        if path.exists():
            notebook = parameterize_notebook(load_notebook_node(str(path)), {"preset": "quick"})
            for cell in notebook.cells:
                if cell.cell_type == "code":
                    cell.outputs = without_record(cell.outputs)
            (target / name).parent.mkdir(exist_ok=True)
            nbformat.write(notebook, target / f"{name}.ipynb")


def _same(old: NotebookNode, new: NotebookNode) -> bool:
    """Whether two outputs say the same to a reader."""
    if (old.output_type, old.get("name"), old.get("metadata")) != (new.output_type, new.get("name"), new.get("metadata")):
        return False
    texts, others = (old.get("data", {"text": old.get("text")}), new.get("data", {"text": new.get("text")}))
    if texts.keys() != others.keys():
        return False
    return all(
        _same_picture(base64.b64decode(text), base64.b64decode(others[kind]))
        if kind in ("image/png", "image/jpeg")
        else text == others[kind] or (isinstance(text, str) and _same_text(text, others[kind]))
        for kind, text in texts.items()
    )


def _same_text(old: str, new: str) -> bool:
    """Whether only numbers moved, where they may (claims, marked lines and tables), and by less than a tenth."""
    lines, others = old.split("\n"), new.split("\n")
    table = old.startswith("<!-- of this run -->")
    for line, other in zip(lines, others, strict=False):
        if line == other or (line.startswith("run: preset ") and other.startswith("run: preset ")):
            continue
        numbers, moved = ([float(number) for number in NUMBER.findall(text)] for text in (line, other))
        if not (table or VARIES.match(line)) or NUMBER.sub("#", line) != NUMBER.sub("#", other):
            return False
        if not all(
            abs(a - b) <= 0.1 * max(abs(a), abs(b)) or max(abs(a), abs(b)) < 1e-8 for a, b in zip(numbers, moved, strict=True)
        ):
            return False
    return len(lines) == len(others)


def _same_picture(old: bytes, new: bytes) -> bool:
    """Whether two pictures differ by what one does not see: rounding moves the edges of lines by a grey level."""
    if old == new:
        return True
    pictures = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in (old, new)]
    if pictures[0].size != pictures[1].size:
        return False
    difference = ImageChops.difference(*pictures)
    coarse = max(sum(band.histogram()[33:]) for band in difference.split()) / math.prod(difference.size)
    return max(ImageStat.Stat(difference).mean) < 0.5 and coarse < 1e-3
