"""The committed notebooks: pairs in step, executed, their claims registered and exercised; and the checks that say so."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import nbformat
import pytest

from dynot_lite.companion import ledger, notebooks, record, table
from dynot_lite.companion.ledger import Claim, registry
from dynot_lite.companion.notebooks import NotebookError, check, execute, read_executed, read_source

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    {
        path.with_suffix(".py")
        for ending in ("py", "ipynb")
        for path in (ROOT / "notebooks").rglob(f"*.{ending}")
        if ".ipynb_checkpoints" not in path.parts and not path.name.endswith(".partial.ipynb")
    }
)


# ------------------------------------------------------------------------------------------------ the committed ones


@pytest.mark.parametrize("source", SOURCES, ids=[notebooks.name_of(path) for path in SOURCES])
def test_the_pair_is_in_step_executed_and_makes_its_claims(source):
    assert check(source, registry()) == []


def test_every_claim_belongs_to_a_notebook():
    assert {entry.notebook for entry in registry().values()} <= {notebooks.name_of(path) for path in SOURCES}


def test_the_table_of_claims_is_current_and_its_links_lead_to_the_notebooks():
    text = (ROOT / "figures" / "claims.md").read_text(encoding="utf-8")
    assert text == table.markdown(registry(), record.read(ROOT / "figures")), "run: python -m dynot_lite claims --write"
    links = re.findall(r"^## \[[\w/]+\]\((.+)\)$", text, re.MULTILINE)
    assert {(ROOT / "figures" / link).resolve() for link in links} == {path.with_suffix(".ipynb") for path in SOURCES}


def test_the_repository_is_small():
    try:
        command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
        files = [ROOT / name for name in names if name]
    except (OSError, subprocess.CalledProcessError):  # an archive without git
        made = {".venv", "build", "__pycache__", ".pytest_cache", ".git"}
        files = [path for path in ROOT.rglob("*") if not made & set(path.relative_to(ROOT).parts)]
    assert sum(path.stat().st_size for path in files if path.is_file()) < 16e6


# ------------------------------------------------------------------------------------------------- the checks themselves

CLAIMS = {
    "T-1": Claim(id="T-1", notebook="tiny", statement="Small", source="nowhere", kind="identity", at_most=1e-9),
    "T-2": Claim(id="T-2", notebook="tiny", statement="Fast", source="nowhere", kind="benchmark", at_least=50),
    "U-1": Claim(id="U-1", notebook="other", statement="Not here", source="nowhere", kind="identity", at_most=1e-9),
}
LINES = "PASS T-1  Small  (≤ 1e-09)  measured 1e-12\nSEEN T-2  Fast  (≥ 50)  measured 3  [asserted in the full preset]\n"
PICTURE = nbformat.v4.new_output(
    "display_data", {"image/png": "iVBORw0=", "text/plain": "[figure]"}, metadata={"image/png": {"alt": "A line that rises"}}
)


@pytest.fixture
def pair(tmp_path, write_notebook):
    """A pair without fault: a function that changes the stored notebook, and returns the complaints about it."""
    source = write_notebook(tmp_path, "tiny", 'claim("T-1", 0)\nclaim("T-2", 3)', "figure", "")
    text = source.read_text(encoding="utf-8")
    source.write_text("# %% [markdown]\n# # Title\n\n" + text, encoding="utf-8")
    notebook = read_source(source)
    for count, cell in enumerate(notebook.cells[1:4], 1):
        cell.execution_count = count
    notebook.cells[2].outputs = [nbformat.v4.new_output("stream", name="stdout", text=LINES)]
    notebook.cells[3].outputs = [PICTURE.copy()]
    notebook.metadata[notebooks.RECORD] = {"preset": "full", "code": notebooks.code_hash(notebook)}

    def complaints(change) -> list[str]:
        change(notebook)
        nbformat.write(notebook, source.with_suffix(".ipynb"))
        return check(source, CLAIMS)

    return complaints


def test_a_pair_without_fault_passes(pair):
    assert pair(lambda notebook: None) == []


def set_output(cell: int, **fields):
    def change(notebook):
        notebook.cells[cell].outputs[0].update(fields)

    return change


def set_cell(cell: int, **fields):
    def change(notebook):
        notebook.cells[cell].update(fields)

    return change


def add_output(kind: str, **fields):
    def change(notebook):
        notebook.cells[3].outputs.append(nbformat.v4.new_output(kind, **fields))

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (set_cell(2, source='claim("T-1", 1)\nclaim("T-2", 3)'), "source of cell 3 differs"),
        (set_cell(0, source="# Another title"), "source of cell 1 differs"),
        (set_cell(1, metadata=nbformat.from_dict({"tags": []})), "tags of cell 2 differs"),
        (set_cell(0, cell_type="raw"), "type of cell 1 differs"),
        (lambda notebook: notebook.cells.pop(), "the .py has 5 cells, the .ipynb 4"),
        (set_cell(3, execution_count=5), "not executed once from top to bottom"),
        (set_cell(1, execution_count=None), "not executed once from top to bottom"),
        (add_output("error", ename="ValueError", evalue="", traceback=[]), "cell 4 raised ValueError"),
        (add_output("stream", name="stderr", text="UserWarning: beware\n"), "cell 4 wrote to the error stream: UserWarning"),
        (set_output(3, metadata={}), "cell 4 has a figure without alternative text"),
        (set_output(3, metadata=nbformat.from_dict({"image/png": {"alt": ""}})), "cell 4 has a figure without alternative"),
        (set_output(2, text=LINES.splitlines(keepends=True)[0]), "T-2 is registered, but its line is not"),
        (set_output(2, text=LINES.replace("1e-09", "1e-06")), "T-1 is registered, but its line is not"),
        (set_output(2, text=LINES.replace("  measured 1e-12", "")), "T-1 is registered, but its line is not"),
        (set_output(2, text=LINES.replace("Small", "Tiny")), "T-1 is registered, but its line is not"),
        (set_output(2, text=LINES.replace("PASS", "FAIL")), "T-1 failed"),
        (set_output(2, text=LINES + "PASS T-3  More  (≤ 1)  measured 0\n"), "T-3 is claimed, but not registered"),
        (set_output(2, text=LINES + "PASS U-1  Not here  (≤ 1e-09)  measured 0\n"), "U-1 is claimed, but not registered"),
        (set_output(2, text=LINES + f"{Path.home() / 'x'}\n"), "cell 3 names a path of one machine"),
        (set_output(2, text=LINES + "in /home/someone/x.py\n"), "cell 3 names a path of one machine: /home/someone"),
        (set_output(3, data={"text/html": r"C:\Users\someone"}), "cell 4 names a path of one machine"),
        (set_output(3, data={"text/plain": "x" * 1_600_000}), "has 1.6 MB"),
    ],
)
def test_each_fault_of_a_stored_notebook_is_found(pair, change, complaint):
    problems = pair(change)
    assert any(complaint in problem for problem in problems), problems


def test_stripped_outputs_are_found(pair):
    def strip(notebook):
        for cell in notebook.cells[1:]:
            cell.update(outputs=[], execution_count=None)

    problems = "\n".join(pair(strip))
    assert "not executed" in problems and "T-1 is registered" in problems and "T-2 is registered" in problems


def test_a_claim_that_is_never_registered_is_found(tmp_path, write_notebook):
    source = write_notebook(tmp_path, "tiny", 'claim(\n    "T-7", 0\n)')
    notebook = read_source(source)
    assert notebooks.claim_problems("tiny", notebook, {}) == ["T-7 is claimed, but not registered for this notebook"]


@pytest.mark.parametrize(
    "cell",
    [
        'preset = "full"\nseed = 0',
        'preset = "quick"',
        'preset = "quick"\nseed = 0\nn = 3',
        'preset = "quick"\nseeds = 0',
        'preset = "quick"\nseed = make()',
        'import os\npreset = "quick"\nseed = 0',
        'preset = "quick"\nseed = ',
    ],
)
def test_other_parameters_are_found(tmp_path, write_notebook, cell):
    source = write_notebook(tmp_path, "tiny", "1")
    notebook = read_source(source)
    assert notebooks.parameter_problems(notebook) == []
    notebook.cells[0].source = cell
    assert len(notebooks.parameter_problems(notebook)) == 1


def test_misplaced_parameters_are_found(tmp_path, write_notebook):
    notebook = read_source(write_notebook(tmp_path, "tiny", "1"))
    notebook.cells.reverse()
    assert "first code cell" in notebooks.parameter_problems(notebook)[0]
    notebook.cells[0].metadata["tags"] = ["parameters"]
    assert "no other" in notebooks.parameter_problems(notebook)[0]


def test_a_missing_half_is_found(pair, tmp_path):
    pair(lambda notebook: None)
    assert check(tmp_path / "absent.py", CLAIMS) == ["absent.py, absent.ipynb is missing"]
    (tmp_path / "tiny.py").unlink()
    assert check(tmp_path / "tiny.py", CLAIMS) == ["tiny.py is missing"]


# ------------------------------------------------------------------------------------------------ execution in place


NOT_OF_RECORD = "tiny: its stored outputs are of other code, or not of the full preset"


def test_execution_keeps_identifiers_and_a_failure_keeps_the_old_notebook(tmp_path, write_notebook, monkeypatch):
    monkeypatch.setenv(ledger.RUN_DIR, str(tmp_path / "not_for_this"))
    first = "import os\nprint(os.getenv('DYNOT_RUN_DIR'), os.environ['OMP_NUM_THREADS'], os.path.exists('tiny.py'))"
    source = write_notebook(tmp_path, "tiny", first, "print('one')")
    target = source.with_suffix(".ipynb")
    execute(source)
    old = read_executed(target)
    assert old.cells[1].outputs[0].text == "None 1 True\n"
    assert [problem.split(": record it")[0] for problem in check(source, {})] == [NOT_OF_RECORD]
    assert set(old.metadata) == {"jupytext", "kernelspec"}
    assert [dict(cell.metadata) for cell in old.cells] == [{"tags": ["parameters"]}, {}, {}]

    # Another kernel of the file, a cell edited, one inserted: what stayed keeps its identifier, and the new one has its own.
    old.cells[2].id = "from-jupyter"
    nbformat.write(old, target)
    text = source.read_text(encoding="utf-8")
    edited = text.replace("# %%\nprint('one')", "# %%\n'new'\n\n# %%\nprint('two')")
    assert edited != text
    source.write_text(edited, encoding="utf-8")
    execute(source)
    new = read_executed(target)
    assert [cell.id for cell in new.cells[:2]] == [cell.id for cell in old.cells[:2]]
    assert len({cell.id for cell in new.cells}) == 4
    assert new.cells[3].outputs[0].text == "two\n"
    assert [problem.split(": record it")[0] for problem in check(source, {})] == [NOT_OF_RECORD]
    assert source.read_text(encoding="utf-8") == edited

    before = target.read_bytes()
    execute(source)
    assert target.read_bytes() == before

    source.write_text(edited + "\n# %%\nvalues = {}\nvalues['absent']\n", encoding="utf-8")
    told = r"(?s)tiny\.py, cell 5 of 5: CellExecutionError.*values\['absent'\].*KeyError: 'absent'"
    with pytest.raises(NotebookError, match=told):
        execute(source)
    assert target.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.ipynb", "tiny.py"]


def test_a_cell_that_takes_too_long_or_ends_its_kernel_is_named(tmp_path, write_notebook):
    with pytest.raises(NotebookError, match=r"(?s)slow\.py, cell 2 of 2: CellTimeoutError"):
        execute(write_notebook(tmp_path, "slow", "import time\ntime.sleep(60)"), timeout=2)
    with pytest.raises(NotebookError, match=r"dead\.py, cell 2 of 2: DeadKernelError"):
        execute(write_notebook(tmp_path, "dead", "import os\nos._exit(0)"))
    assert not list(tmp_path.glob("*.ipynb"))


def test_identifiers_of_a_new_notebook_are_reproducible(tmp_path, write_notebook):
    source = write_notebook(tmp_path, "tiny", "1", "1", "2")
    identifiers = [cell.id for cell in read_source(source).cells]
    assert identifiers == [cell.id for cell in read_source(source).cells]
    assert len(set(identifiers)) == 4
