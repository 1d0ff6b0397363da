"""What students hand in: files are found and read here, nothing in them is trusted, and none of them can stop the others."""

import base64
import binascii
import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.course.outputs import attachments, printed
from dynot_lite.course.texts import decoded, distinct, file_name, printable, words

__all__ = ["Cell", "Submission", "better", "collect", "program", "set_of"]

LARGEST = 30 * 2**20
LONGEST_CELL, MOST_CELLS, MOST_FILES, DEEPEST = 200_000, 2000, 2000, 12
PNG = b"\x89PNG\r\n\x1a\n"
# What systems and editors leave in a folder: no student's work.
LITTER = {".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX", ".ipynb_checkpoints", ".git", ".gitkeep", ".localized"}
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
SUFFIXES = (*ARCHIVES, ".ipynb", ".txt", ".json", ".py", ".pdf", ".html", ".htm", ".md", ".doc", ".docx", ".part", ".crdownload")
KINDS = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"))


@dataclass(frozen=True)
class Cell:
    """A cell of a submission: its ``kind``, nbgrader's identifier or "", the source, and the pictures it shows (PNG).

    ``own`` is the identifier that the notebook itself gives it, which editors keep that drop nbgrader's; ``attachments`` are
    pictures by name, ``printed`` is what its outputs say in words.
    """

    kind: str
    id: str
    source: str
    pictures: tuple[bytes, ...] = ()
    own: str = ""
    attachments: tuple[tuple[str, bytes], ...] = ()
    printed: str = ""


@dataclass(frozen=True)
class Submission:
    """The work of one student, or an entry of the folder that is none.

    Attributes:
        student: the name, printable and unlike every other.
        path: the file or folder.
        cells: of the notebook.
        problem: why there are no cells, if there are none.
        status: "" for a notebook that can be graded; "unreadable", "not recognised", "other set", "not used" (another file of
            the student counts), "missing" (a person of the roster) or "ignored" (left by a system or an editor).
        notes: what was remarkable about a notebook that can be graded.
        sets: the problem sets that the student's notebooks name: ("PS1",).
        page: the name of the student's files in the output, without suffix.
        modified: when the file was last changed, in seconds since 1970.
    """

    student: str
    path: Path
    cells: tuple[Cell, ...] = ()
    problem: str = ""
    status: str = ""
    notes: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    page: str = ""
    modified: float | None = None

    @property
    def file(self) -> str:
        """The name of the file, printable."""
        return printable(self.path.name)


def collect(folder: Path, prefix: str) -> list[Submission]:
    """Every entry of ``folder``: one file STUDENT.ipynb each, or one folder STUDENT each, with a notebook anywhere in it.

    A notebook may have any name: of several of a student, the one with most cells of the problem set (identifiers that begin with
    ``prefix``) counts, the newest of equals. Links are not followed: they could lead to another student's work. What is no
    submission has a ``status`` that says so, and whatever is wrong with an entry is its own problem.
    Raises NotebookError if there is no folder, or nothing in it.
    """
    if not folder.is_dir():
        raise NotebookError(f"no folder {folder}")
    entries = sorted(folder.iterdir())
    found = [_guarded(entry, prefix) for entry in entries]
    if not any(one.status != "ignored" for one in found):
        raise NotebookError(f"no submissions in {folder}: expected STUDENT.ipynb or STUDENT/NOTEBOOK.ipynb")
    groups: dict[str, list[Submission]] = {}
    for one in found:
        groups.setdefault(one.student, []).append(one)
    origins = list(groups)
    names = distinct(origins, [printable(origin) or "unnamed" for origin in origins])
    pages = distinct(origins, [file_name(name) for name in names], alike=str.casefold)
    collected = []
    for origin, name, page in zip(origins, names, pages, strict=True):
        best = better(groups[origin], prefix)
        for one in groups[origin]:
            named = replace(one, student=name, page=page)
            if one is not best and one.status != "ignored":
                also = f": {one.problem}" if one.problem else ""
                named = replace(named, status="not used", cells=(), problem=f"{best.file} of the same student counts{also}")
            collected.append(named)
    return collected


def set_of(cell: Cell) -> str:
    """The problem set that the identifiers of a cell name, such as "ps1"; empty if they name none."""
    found = re.match(r"ps\d+(?=-)", cell.id) or re.match(r"ps\d+(?=-)", cell.own)
    return found[0] if found else ""


def _guarded(entry: Path, prefix: str) -> Submission:
    name = _student(entry.name)
    try:
        mode = entry.lstat().st_mode
        if entry.name in LITTER or entry.name.startswith("._"):
            return Submission(entry.name, entry, status="ignored", problem="a file of the system or of an editor")
        if stat.S_ISDIR(mode):
            return _of_folder(entry, prefix)
        if stat.S_ISREG(mode) and (entry.suffix != ".ipynb" or entry.name.startswith(".")):
            return Submission(name, entry, status="not recognised", problem=_what(entry))
        return _of_set(_read(entry, name), prefix)
    except Exception as error:  # whatever a file is, the others are read
        return Submission(name, entry, status="unreadable", problem=f"cannot be read: {words(error)}")


def _student(name: str) -> str:
    """The student whom the name of an entry names: what looks like a suffix of a file goes."""
    while (stem := Path(name).stem) != name and Path(name).suffix.lower() in SUFFIXES:
        name = stem
    return name


def _what(path: Path) -> str:
    """What a file is that is no notebook by its name."""
    name = path.name.lower()
    if path.is_symlink():
        return "a link: not followed"
    if path.name.startswith("."):
        return "a hidden file"
    if name.endswith(ARCHIVES):
        return f"an archive ({path.suffix}): unpack it"
    if name.endswith(".ipynb"):
        return f"a notebook whose name ends in {printable(path.suffix)}: rename it to end in .ipynb"
    if ".ipynb" in name:
        return f"a notebook whose name has something after .ipynb ({printable(path.suffix)}): rename it to end in .ipynb"
    if name.endswith(".py"):
        return "a Python file: ask for the notebook"
    return f"not a notebook ({printable(path.suffix) or 'a name without suffix'})"


def _of_folder(folder: Path, prefix: str) -> Submission:
    """The notebook that counts in a student's folder, or why there is none."""
    notebooks, others = [], []
    for number, path in enumerate(_files(folder, DEEPEST)):
        if number >= MOST_FILES:
            return Submission(folder.name, folder, status="unreadable", problem=f"more than {MOST_FILES} files in the folder")
        (notebooks if path.suffix == ".ipynb" and not path.is_symlink() else others).append(path)
    read = [_of_set(_read(path, folder.name), prefix) for path in sorted(notebooks)[:50]]
    if read:
        return replace(better(read, prefix), sets=tuple(sorted({name for one in read for name in one.sets})))
    seen = f", but {_what(sorted(others)[0])}" if others else ""
    status = "not recognised" if others else "unreadable"
    return Submission(folder.name, folder, status=status, problem=f"no notebook (*.ipynb) in the folder{seen}")


def _files(folder: Path, depth: int) -> Iterator[Path]:
    """What is in a folder and the folders in it, hidden ones and those behind links not, down to a depth where nobody works."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name in LITTER:
                continue
            if not entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)
            elif depth:
                yield from _files(Path(entry.path), depth - 1)


def better(several: Sequence[Submission], prefix: str) -> Submission:
    """The one that counts: a notebook that can be graded, with most cells of the problem set, the newest of equals."""

    def rank(one: Submission) -> tuple[bool, int, float]:
        mine = sum(cell.id.startswith(prefix) or cell.own.startswith(prefix) for cell in one.cells)
        return not one.status, mine, one.modified or 0.0

    return max(several, key=rank)


def _of_set(one: Submission, prefix: str) -> Submission:
    """The same with the sets it names, and with the status "other set" if this is none of them."""
    found = [name.upper() for name in map(set_of, one.cells) if name]
    one, wanted = replace(one, sets=tuple(sorted(set(found)))), prefix.upper()
    if one.status or not found or any(f"{name}-".startswith(wanted) for name in found):
        return one
    other = max(one.sets, key=found.count)
    return replace(one, status="other set", cells=(), problem=f"this is {other}, not {wanted.rstrip('-')}")


def _read(path: Path, student: str) -> Submission:
    """Read a notebook. Only regular files are opened, none is waited for, and no more than ``LARGEST`` bytes are read."""
    modified = None

    def unreadable(problem: str) -> Submission:
        return Submission(student, path, problem=problem, status="unreadable", modified=modified)

    try:
        if path.is_symlink():
            return unreadable("a link, not a file: not followed")
        flags = (getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOFOLLOW", "O_CLOEXEC", "O_BINARY"))
        if kind := _not_regular(path.lstat().st_mode):
            return unreadable(f"{kind}, not a file: not opened")
        with open(os.open(path, os.O_RDONLY | sum(flags)), "rb") as stream:
            about = os.fstat(stream.fileno())
            modified = about.st_mtime
            if kind := _not_regular(about.st_mode):
                return unreadable(f"{kind}, not a file: not read")
            content = stream.read(LARGEST + 1)
        if len(content) > LARGEST:
            return unreadable(f"larger than {LARGEST >> 20} MB")
        if not content.strip():
            return unreadable("an empty file")
        cells, notes = _cells(content)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated")
        return unreadable("not a notebook: the file is cut off" if cut else f"not a notebook: not in JSON (line {error.lineno})")
    except RecursionError:
        return unreadable("not a notebook: nested too deeply")
    except _NotANotebook as error:
        return unreadable(f"not a notebook: {error}")
    except Exception as error:
        return unreadable(f"not a notebook: {words(error)}")
    return Submission(student, path, cells, notes=notes, modified=modified)


class _NotANotebook(ValueError):
    """The file is JSON, but no notebook; the message says what is wrong."""


def _not_regular(mode: int) -> str:
    """What a file is that is not a regular one; empty for a regular one."""
    return "" if stat.S_ISREG(mode) else next((name for test, name in KINDS if test(mode)), "a folder")


def _cells(content: bytes) -> tuple[tuple[Cell, ...], tuple[str, ...]]:
    text, note = decoded(content)
    notebook = json.loads(text)
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells", notebook.get("worksheets")), list):
        raise _NotANotebook("it has no cells")
    if notebook.get("nbformat") != 4 or "cells" not in notebook:
        raise _NotANotebook(
            f"its format is {printable(notebook.get('nbformat'), most=20)}, not 4: open it in Jupyter and save it"
        )
    if len(notebook["cells"]) > MOST_CELLS:
        raise _NotANotebook(f"it has more than {MOST_CELLS} cells")
    return tuple(_cell(cell) for cell in notebook["cells"]), (note,) if note else ()


def _cell(cell: dict[str, Any]) -> Cell:
    source = cell["source"]
    text = printable(source if isinstance(source, str) else "".join(source), most=LONGEST_CELL, lines=True)
    metadata = cell.get("metadata")
    marks = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    name, own = marks.get("grade_id") if isinstance(marks, dict) else "", cell.get("id")
    name, own = (printable(one, most=64) if isinstance(one, str) else "" for one in (name, own))
    kind, outputs = printable(cell["cell_type"], most=16), cell.get("outputs", [])
    # The names of attachments change as the text does that refers to them.
    attached = tuple((printable(one, most=LONGEST_CELL, lines=True), content) for one, content in attachments(cell))
    return Cell(kind, name, text, _pictures(outputs), own, attached, printable(printed(outputs), most=LONGEST_CELL, lines=True))


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
