"""What students hand in: files are found and read here, and nothing in them is trusted."""

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.course.outputs import attachments, printed

__all__ = ["Cell", "Submission", "collect", "program"]

LARGEST = 30 * 2**20
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Cell:
    """A cell of a submission: its ``kind``, nbgrader's identifier or "", the source, and the pictures it shows (PNG).

    ``attachments`` are pictures by name, ``printed`` is what its outputs say in words.
    """

    kind: str
    id: str
    source: str
    pictures: tuple[bytes, ...] = ()
    attachments: tuple[tuple[str, bytes], ...] = ()
    printed: str = ""


@dataclass(frozen=True)
class Submission:
    """The work of one student; ``problem`` says why there are no cells, if there are none."""

    student: str
    path: Path
    cells: tuple[Cell, ...] = ()
    problem: str = ""


def collect(folder: Path, prefix: str) -> list[Submission]:
    """The submissions in ``folder``: one file STUDENT.ipynb each, or one folder STUDENT each, with a notebook anywhere in it.

    A notebook may have any name: of several in a student's folder, the one with most cells of the problem set (identifiers that
    begin with ``prefix``) counts, the newest of equals. Links are not followed: they could lead to another student's work.
    Raises NotebookError if there is no folder, or nothing in it.
    """
    if not folder.is_dir():
        raise NotebookError(f"no folder {folder}")
    found = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_symlink():
            found.append(Submission(entry.stem, entry, problem="a link, not a file: not followed"))
        elif entry.is_dir():
            files = [path for path in sorted(entry.rglob("*.ipynb")) if not _hidden(path, entry)]
            read = [_read(path, entry.name) for path in files]
            best = max(read, key=lambda one: _rank(one, prefix), default=None)
            found.append(best or Submission(entry.name, entry, problem="no notebook (*.ipynb) in the folder"))
        elif entry.suffix == ".ipynb":
            found.append(_read(entry, entry.stem))
    if not found:
        raise NotebookError(f"no submissions in {folder}: expected STUDENT.ipynb or STUDENT/NOTEBOOK.ipynb")
    names = [one.student for one in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise NotebookError(f"{folder} has a file and a folder for {', '.join(sorted(twice))}")
    return found


def _hidden(path: Path, top: Path) -> bool:
    inner = path.relative_to(top).parts
    linked = any(Path(top, *inner[: k + 1]).is_symlink() for k in range(len(inner)))
    return linked or any(part.startswith(".") for part in inner)


def _rank(submission: Submission, prefix: str) -> tuple[int, float]:
    return sum(cell.id.startswith(prefix) for cell in submission.cells), submission.path.stat().st_mtime


def _read(path: Path, student: str) -> Submission:
    try:
        if path.stat().st_size > LARGEST:
            return Submission(student, path, problem=f"larger than {LARGEST >> 20} MB")
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["nbformat"] != 4:
            return Submission(student, path, problem=f"a notebook of format {content['nbformat']}, not 4")
        cells = tuple(_cell(cell) for cell in content["cells"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return Submission(student, path, problem=f"not a notebook: {type(error).__name__}"[:200])
    return Submission(student, path, cells)


def _cell(cell: dict[str, Any]) -> Cell:
    source, outputs = cell["source"], cell.get("outputs", [])
    text = source if isinstance(source, str) else "".join(source)
    marks = cell.get("metadata", {}).get("nbgrader", {})
    name = marks.get("grade_id", "") if isinstance(marks, dict) else ""
    return Cell(
        str(cell["cell_type"]),
        name if isinstance(name, str) else "",
        text,
        _pictures(outputs),
        attachments(cell),
        printed(outputs),
    )


def _pictures(outputs: Sequence[dict[str, Any]]) -> tuple[bytes, ...]:
    pictures = []
    for output in outputs if isinstance(outputs, list) else []:
        try:
            text = output["data"]["image/png"]
            data = base64.b64decode(text if isinstance(text, str) else "".join(text))
        except (KeyError, TypeError, ValueError, binascii.Error):
            continue
        if data.startswith(PNG) and len(data) < 4 * 2**20:
            pictures.append(data)
    return tuple(pictures[:4])


def program(submission: Submission, tests: dict[str, str]) -> list[list[str]]:
    """The code cells to run, as [name, source]: the student's, but the graded test cells as they were released.

    ``tests`` has the released sources by identifier. A test cell that the student deleted is run at the end.
    """
    cells, seen = [], set()
    for number, cell in enumerate(submission.cells, 1):
        if cell.kind != "code" or (cell.id in tests and cell.id in seen):
            continue
        seen.add(cell.id)
        cells.append([cell.id, tests[cell.id]] if cell.id in tests else [str(number), cell.source])
    return cells + [[name, source] for name, source in tests.items() if name not in seen]
