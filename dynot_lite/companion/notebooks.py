"""The paired notebooks: reading, in-place execution of the committed ones, and the checks that the tests run on them."""

import ast
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import jupytext
import matplotlib
import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupytext.combine import combine_inputs_with_outputs
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError
from nbformat import NotebookNode

from dynot_lite.companion.ledger import PACKAGE, Claim

__all__ = [
    "NotebookError",
    "check",
    "code_hash",
    "execute",
    "find_notebooks",
    "keep_identifiers",
    "kernel_environment",
    "name_of",
    "plain",
    "read_executed",
    "read_source",
    "root",
    "source_path",
    "take_text",
    "write",
]

KERNEL = "python3"
METADATA = {
    "jupytext": {"formats": "ipynb,py:percent"},
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": KERNEL},
}
# What a kernel has of its caller's environment: where programs, files and the language are (Windows starts nothing without
# its own), and what can change a number, on purpose or not.
INHERITED = (
    *("PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "TMP", "TEMP", "DYNOT_DATA"),
    *("SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "PROGRAMDATA"),
)
NUMERICAL = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "ATEN_CPU_CAPABILITY", "OPENBLAS_CORETYPE")
# One thread, because two notebooks run at a time, and sums then have one order on a machine; no bars.
FIXED = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTHONNOUSERSITE"), "1"),
    **dict.fromkeys(("PYTHONUTF8", "TQDM_DISABLE"), "1"),
}
PARAMETERS = {"preset": "quick", "seed": 0}
RECORD = "dynot_lite"  # the metadata of a notebook whose outputs are of record
LARGEST_NOTEBOOK = 1_500_000


class NotebookError(Exception):
    """A notebook is missing, malformed, or failed to execute; the message says which and why."""


def root() -> Path:
    """The folder that holds ``notebooks/``: the one above the package, or else the working directory.

    Raises NotebookError if neither has a folder of notebooks.
    """
    for folder in (PACKAGE.parent, Path.cwd()):
        if (folder / "notebooks").is_dir():
            return folder
    raise NotebookError(f"no folder notebooks/ in {PACKAGE.parent} or {Path.cwd()}: run this inside a clone of the repository")


def name_of(path: Path) -> str:
    """The name of the notebook in ``path``: its file's, and of the proofs beside a story, which has the same, ``proofs/NAME``."""
    return f"proofs/{path.stem}" if path.parent.name == "proofs" else path.stem


def source_path(folder: Path, name: str) -> Path:
    """The source of the notebook ``name``: in ``folder``, or, of a problem set, in ``folder/assignments``."""
    inner = folder / "assignments" / f"{name}.py"
    return inner if inner.exists() else folder / f"{name}.py"


def find_notebooks(folder: Path, names: list[str] | None = None) -> list[str]:
    """The names of the notebooks in ``folder``, its ``proofs`` and ``assignments``, all in order, or those asked for.

    One may be asked for by its file, and by its ending. Raises NotebookError if it does not exist, or there are none at all.
    """
    known = sorted(name_of(path) for inner in (".", "proofs", "assignments") for path in (folder / inner).glob("*.py"))
    if not known:
        raise NotebookError(f"no notebooks (NAME.py) in {folder}")
    wanted = [name_of(Path(re.sub(r"\.(py|ipynb)$", "", name.replace("\\", "/")) + ".py")) for name in names or known]
    if unknown := [name for name in wanted if name not in known]:
        raise NotebookError(f"no notebook named {', '.join(unknown)}; there are {', '.join(known)}")
    return list(dict.fromkeys(wanted))


def kernel_environment(folder: Path) -> dict[str, str]:
    """The environment in which every notebook runs, whoever starts it: of the caller's own, what :data:`INHERITED` names.

    ``folder`` takes what a kernel reads and writes besides: the definition of the kernel, which is this interpreter's
    whatever else is installed under that name, and the profile of IPython, which begins empty.
    """
    kernel = folder / "kernels" / KERNEL
    kernel.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    definition = {"argv": argv, "display_name": "Python 3 (ipykernel)", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(definition), encoding="utf-8")
    environment = {name: os.environ[name] for name in (*INHERITED, *NUMERICAL) if name in os.environ}
    environment |= dict.fromkeys(("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_PATH"), str(folder))
    # The notebook must import the package that started it, also where another clone is installed.
    return environment | FIXED | {"PYTHONPATH": str(PACKAGE.parent), "MATPLOTLIBRC": matplotlib.get_data_path()}


def plain(text: str) -> str:
    """``text`` without the escape sequences that colour a traceback."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


# ---------------------------------------------------------------------------------------------- reading and executing


def read_source(path: Path) -> NotebookNode:
    """The notebook of ``path`` (py:percent), without outputs; of the cells' metadata the tags and nbgrader's are kept."""
    notebook = jupytext.reads(path.read_text(encoding="utf-8"), fmt="py:percent")
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for index, cell in enumerate(notebook.cells):
        kept = {key: cell.metadata[key] for key in ("tags", "nbgrader") if cell.metadata.get(key)}
        cell.metadata = nbformat.from_dict(kept)
        cell.id = _identifier(path.stem, index, cell.source)
    return notebook


def read_executed(path: Path) -> NotebookNode:
    """The notebook stored in ``path`` (ipynb)."""
    return nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)


def _identifier(name: str, index: int, source: str) -> str:
    # Not random: building the same notebook twice must not change the file.
    return hashlib.sha256(f"{name}\0{index}\0{source}".encode()).hexdigest()[:12]


def code_hash(notebook: NotebookNode) -> str:
    """The SHA-256 of the code that outputs are of."""
    return hashlib.sha256("\0".join(cell.source for cell in _code_cells(notebook)).encode()).hexdigest()


def keep_identifiers(notebook: NotebookNode, old: NotebookNode) -> None:
    """Give the cells of ``notebook`` the identifiers of the cells of ``old`` that Jupytext takes them to come from."""
    matched = [cell.get("id") for cell in combine_inputs_with_outputs(notebook, old, fmt="py:percent").cells]
    kept = {cell.get("id") for cell in old.cells} & set(matched)
    for cell, identifier in zip(notebook.cells, matched, strict=True):
        if identifier in kept:
            cell.id = identifier
        while identifier not in kept and cell.id in kept:
            cell.id = _identifier(cell.id, 0, cell.source)


def write(notebook: NotebookNode, path: Path) -> None:
    """Write ``notebook`` to ``path`` in one step: a reader sees the old file or the new one."""
    temporary = path.with_suffix(".partial.ipynb")
    try:
        temporary.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def execute(path: Path, *, timeout: int = 600) -> NotebookNode:
    """Run the notebook whose source is ``path`` (``NAME.py``) from the top and write ``NAME.ipynb`` beside it.

    The source is only read. Cells keep the identifiers they have in an older ``NAME.ipynb``, and of what varies from run to
    run nothing is stored but what the notebook prints. ``timeout`` is in seconds per cell.
    Raises NotebookError with the failing cell and its traceback; the older ``NAME.ipynb`` is then left as it was.
    """
    target = path.with_suffix(".ipynb")
    notebook = read_source(path)
    if target.exists():
        keep_identifiers(notebook, read_executed(target))
    started = [0]
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name=KERNEL,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_start=lambda cell, cell_index: started.append(cell_index + 1),
    )
    # The kernel writes here what is no cell's output: remarks about its connection, and its last words if it crashes.
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as kernel_log,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own,
    ):
        environment = kernel_environment(Path(own))
        # It is the client that looks up the kernel's definition, in this process.
        client.create_kernel_manager().kernel_spec_manager = KernelSpecManager(kernel_dirs=[f"{own}/kernels"])
        try:
            client.execute(env=environment, stderr=kernel_log)
        except (CellControlSignal, DeadKernelError) as error:  # a cell raised or took too long; the kernel died
            message = f"{path.name}, cell {started[-1]} of {len(notebook.cells)}: {type(error).__name__}\n{plain(str(error))}"
            if isinstance(error, DeadKernelError):
                kernel_log.seek(0)
                message += f"\n{kernel_log.read()[-2000:]}"
            raise NotebookError(message) from None
    notebook.metadata.pop("language_info", None)
    write(notebook, target)
    return notebook


def take_text(path: Path) -> None:
    """Take the text of ``NAME.py`` into ``NAME.ipynb``, whose outputs stay. Raises NotebookError if the code differs."""
    target = path.with_suffix(".ipynb")
    if not target.exists():
        raise NotebookError(f"{target.name} does not exist: execute the notebook")
    notebook, old = read_source(path), read_executed(target)
    if code_hash(notebook) != code_hash(old):
        raise NotebookError(f"the code of {path.name} differs from {target.name}, too: execute the notebook, or record it")
    keep_identifiers(notebook, old)
    for cell, before in zip(_code_cells(notebook), _code_cells(old), strict=True):
        cell.update(outputs=before.outputs, execution_count=before.execution_count)
    if RECORD in old.metadata:
        notebook.metadata[RECORD] = old.metadata[RECORD]
    write(notebook, target)


# ------------------------------------------------------------------------------------------------------------ checks
# Each returns a list of complaints, empty if all is well.


def check(path: Path, claims: Mapping[str, Claim]) -> list[str]:
    """What is wrong with the committed pair ``NAME.py``, ``NAME.ipynb`` of the notebook whose source is ``path``."""
    target = path.with_suffix(".ipynb")
    if missing := [half.name for half in (path, target) if not half.exists()]:
        return [f"{', '.join(missing)} is missing"]
    source, executed = read_source(path), read_executed(target)
    problems = [
        *pair_problems(source, executed),
        *record_problems(executed),
        *parameter_problems(source),
        *execution_problems(executed),
        *figure_problems(executed),
        *claim_problems(name_of(path), executed, claims),
        *path_problems(executed),
    ]
    if target.stat().st_size > LARGEST_NOTEBOOK:
        problems.append(f"{target.name} has {target.stat().st_size / 1e6:.1f} MB, more than {LARGEST_NOTEBOOK / 1e6:g} MB")
    return [f"{name_of(path)}: {problem}" for problem in problems]


def pair_problems(source: NotebookNode, executed: NotebookNode) -> list[str]:
    """Both halves must have the same cells: type, source, tags and nbgrader's metadata."""
    if len(source.cells) != len(executed.cells):
        return [f"the .py has {len(source.cells)} cells, the .ipynb {len(executed.cells)}: execute the notebook again"]
    problems = []
    for name, of in ASPECTS.items():
        pairs = enumerate(zip(source.cells, executed.cells, strict=True), 1)
        if numbers := [str(number) for number, (cell, other) in pairs if of(cell) != of(other)]:
            problems.append(f"{name} of cell {', '.join(numbers)} differs between .py and .ipynb: execute the notebook again")
    return problems


def record_problems(executed: NotebookNode) -> list[str]:
    """The stored outputs are of record: of the full preset, and of the code beside them."""
    made = executed.metadata.get(RECORD, {})
    if (made.get("preset"), made.get("code")) == ("full", code_hash(executed)):
        return []
    name = "its stored outputs are of other code, or not of the full preset"
    return [f"{name}: record it (python3 run.py reproduce --preset full --record NAME)"]


def parameter_problems(notebook: NotebookNode) -> list[str]:
    """The first code cell, and it alone, is tagged ``parameters`` and sets ``preset = "quick"`` and ``seed = 0``, no more."""
    # papermill injects any name without a complaint, so that a misspelt one would leave the run with the defaults.
    code = _code_cells(notebook)
    if [index for index, cell in enumerate(code) if "parameters" in ASPECTS["tags"](cell)] != [0]:
        return ["the first code cell, and no other, must have the tag parameters"]
    try:
        statements = ast.parse(code[0].source).body
        found = {ast.unparse(target): ast.literal_eval(line.value) for line in statements for target in line.targets}
    except (AttributeError, SyntaxError, ValueError):  # not a plain assignment of a constant
        found = None
    return [] if found == PARAMETERS else ['the parameters cell must be exactly: preset = "quick" and seed = 0']


def execution_problems(executed: NotebookNode) -> list[str]:
    """The code cells that are not empty were executed in order, once, without an error or a warning."""
    code = [cell for cell in _code_cells(executed) if cell.source.strip()]
    problems = []
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        problems.append(f"its {len(code)} code cells were not executed once from top to bottom")
    for number, output in _outputs(executed):
        if output.output_type == "error":
            problems.append(f"cell {number} raised {output.ename}")
        if output.output_type == "stream" and output.name == "stderr":
            problems.append(f"cell {number} wrote to the error stream: {output.text.splitlines()[0][:100]}")
    return problems


def figure_problems(executed: NotebookNode) -> list[str]:
    """Every picture has a text for those who do not see it."""
    return [
        f"cell {number} has a figure without alternative text: show it with dynot_lite.companion.show"
        for number, output in _outputs(executed)
        for kind in output.get("data", {})
        if kind.startswith("image/") and not output.metadata.get(kind, {}).get("alt")
    ]


def claim_problems(name: str, executed: NotebookNode, claims: Mapping[str, Claim]) -> list[str]:
    """The notebook exercises the claims registered for it, with the statement and bound of the registry, and no others."""
    source = "\n".join(cell.source for cell in _code_cells(executed))
    streams = [output.text for _, output in _outputs(executed) if output.output_type == "stream"]
    lines = [line.rstrip() for text in streams for line in text.splitlines()]
    own = {identifier: entry for identifier, entry in claims.items() if entry.notebook == name}
    called = set(re.findall(r"""\bclaim\(\s*["']([^"']+)["']""", source))
    pattern = r"(PASS|FAIL|SEEN) (([A-Z][A-Z0-9]*-\d+[a-z]?)  .*?)  measured \S+(?:  \[[^\]]*\])?"
    verdicts = [found for line in lines if (found := re.fullmatch(pattern, line))]
    said = {found[2] for found in verdicts}
    called |= {found[3] for found in verdicts}
    return [
        *(f"{identifier} is claimed, but not registered for this notebook" for identifier in sorted(called - set(own))),
        *(f"{found[3]} failed" for found in verdicts if found[1] == "FAIL"),
        *(
            f"{identifier} is registered, but its line is not among the outputs: {expected}"
            for identifier, entry in own.items()
            if (expected := entry.line("PASS"))[5:] not in said
        ),
    ]


def path_problems(executed: NotebookNode) -> list[str]:
    """Nothing in the notebook depends on where it was executed."""
    here = {str(folder) for folder in (root(), Path.home(), Path(tempfile.gettempdir())) if len(folder.parts) > 1}
    pattern = "|".join([r"/(?:home|Users)/\w+", r"[A-Z]:\\+Users", r"ipykernel_\d+", *map(re.escape, sorted(here))])
    texts = [(number, cell.source) for number, cell in enumerate(executed.cells, 1)]
    for number, output in _outputs(executed):
        texts.append((number, output.get("text", "")))
        texts += [(number, str(value)) for kind, value in output.get("data", {}).items() if not kind.startswith("image/")]
    return [
        f"cell {number} names a path of one machine: {found[0]}"
        for number, text in texts
        if (found := re.search(rf"(?<![\w.])(?:{pattern})\b", text))
    ]


ASPECTS = {
    "type": lambda cell: cell.cell_type,
    "source": lambda cell: cell.source,
    "tags": lambda cell: list(cell.metadata.get("tags", [])),
    "grading": lambda cell: dict(cell.metadata.get("nbgrader", {})),
}


def _code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _outputs(notebook: NotebookNode) -> list[tuple[int, NotebookNode]]:
    """The outputs of all code cells, with the number of the cell among all cells, from 1."""
    return [(number, out) for number, cell in enumerate(notebook.cells, 1) for out in cell.get("outputs", [])]
