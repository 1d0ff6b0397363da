"""A problem set: its solved notebook, its graded parts, and the version for students."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from dynot_lite.companion import notebooks
from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.course import oracle
from dynot_lite.course.oracle.compare import Check

__all__ = ["Assignment", "Part", "folder", "load", "names", "release", "solution", "student_version"]

# nbgrader's own stubs: what a released notebook contains does not depend on which of the two programs made it.
CODE_STUB, TEXT_STUB = "# YOUR CODE HERE\nraise NotImplementedError()", "YOUR ANSWER HERE"


@dataclass(frozen=True)
class Part:
    """A graded part: its identifier, title and points; ``checks`` is empty for a part that a person grades.

    ``rubric`` has what such a part gives points for, as pairs (points, what for) that add up to its points, if the source has
    a region BEGIN RUBRIC; otherwise it is empty.
    """

    id: str
    title: str
    points: float
    checks: Sequence[Check]
    code: bool
    rubric: tuple[tuple[float, str], ...] = ()

    @property
    def manual(self) -> bool:
        """Whether a person grades it."""
        return not self.checks

    @property
    def label(self) -> str:
        """Its number and title."""
        return f"{self.id.split('-')[-1]}. {self.title}"


@dataclass(frozen=True)
class Assignment:
    """A problem set: ``name`` such as PS1, the ``title``, the solved notebook, and the graded parts in order."""

    name: str
    title: str
    path: Path
    notebook: NotebookNode
    parts: tuple[Part, ...]

    @property
    def points(self) -> float:
        """The points of all parts together."""
        return sum(part.points for part in self.parts)


def folder() -> Path:
    """The folder of the solved notebooks."""
    return notebooks.root() / "notebooks" / "assignments"


def names() -> list[str]:
    """The problem sets there are: PS1, ..."""
    return sorted(path.stem.split("_")[0] for path in folder().glob("PS*.py"))


def load(name: str) -> Assignment:
    """Read the problem set ``name`` (PS1).

    Raises NotebookError if there is none of that name, or its notebook and its oracle do not fit together: a graded part without
    checks that is not graded by hand, points that differ (also those of a rubric), an identifier used twice.
    """
    found = sorted(folder().glob(f"{name}_*.py"))
    if len(found) != 1:
        raise NotebookError(f"no problem set named {name}; there are {', '.join(names()) or 'none'}")
    notebook = jupytext.reads(found[0].read_text(encoding="utf-8"), fmt="py:percent")
    checks = oracle.checks(name)
    parts, titles, seen = [], {}, set()
    for cell in notebook.cells:
        titles |= {match[1].lower(): match[2] for match in re.finditer(r"^#+ Part (\d+)\. (.+)$", cell.source, re.MULTILINE)}
        marks = cell.metadata.get("nbgrader", {})
        if marks and marks["grade_id"] in seen:
            raise NotebookError(f"{found[0].name}: the identifier {marks['grade_id']} is used twice")
        seen.add(marks.get("grade_id"))
        if marks.get("grade"):
            identifier, number = marks["grade_id"], marks["grade_id"].split("-")[-1]
            own = () if marks["solution"] else tuple(checks.get(identifier, ()))
            if not marks["solution"] and sum(check.points for check in own) != marks["points"]:
                raise NotebookError(f"{found[0].name}: the checks of {identifier} do not add up to {marks['points']} points")
            rubric = _rubric(cell.source) if marks["solution"] else ()
            if rubric and sum(points for points, _ in rubric) != marks["points"]:
                raise NotebookError(f"{found[0].name}: the rubric of {identifier} does not add up to {marks['points']} points")
            title = titles.get(number, identifier)
            parts.append(Part(identifier, title, marks["points"], own, cell.cell_type == "code", rubric))
    if unknown := set(checks) - {part.id for part in parts if part.checks}:
        raise NotebookError(f"{found[0].name} has no part {', '.join(sorted(unknown))}")
    title = re.search(r"^# (.+)$", notebook.cells[0].source, re.MULTILINE)
    return Assignment(name, title[1] if title else name, found[0], notebook, tuple(parts))


def student_version(notebook: NotebookNode) -> NotebookNode:
    """The notebook without solutions, hidden tests and outputs; the cells of the tests are locked.

    The same as nbgrader's ``generate_assignment`` makes, but for the checksums and the database.
    Raises NotebookError for a region that is not closed, or stands in a cell of the wrong kind.
    """
    cells = []
    for index, cell in enumerate(notebook.cells):
        marks = cell.metadata.get("nbgrader", {})
        stub = CODE_STUB if cell.cell_type == "code" else TEXT_STUB
        source, solved = _without(cell.source, "SOLUTION", stub)
        source, hidden = _without(source, "HIDDEN TESTS", None)
        if (solved and not marks.get("solution")) or (hidden and not marks.get("grade")):
            raise NotebookError(f"cell {index + 1} has a region that its nbgrader metadata does not announce")
        if marks.get("solution") and not solved:
            source = stub
        if "BEGIN RUBRIC" in source:  # nbgrader, which does not know this region, would hand it out
            raise NotebookError(f"cell {index + 1} has a rubric outside of its solution")
        kind = {"code": nbformat.v4.new_code_cell, "markdown": nbformat.v4.new_markdown_cell}[cell.cell_type]
        new = kind(source, id=cell.get("id") or f"cell-{index}")
        kept = {key: cell.metadata[key] for key in ("tags", "nbgrader") if key in cell.metadata}
        locks = {"deletable": False} if marks.get("solution") else {"deletable": False, "editable": False} if marks else {}
        new.metadata = nbformat.from_dict(kept | locks)
        cells.append(new)
    metadata = {key: notebooks.METADATA[key] for key in ("kernelspec",)}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def release(name: str, to: Path) -> Path:
    """Write the student's version of the problem set ``name`` into the folder ``to``, and return the file.

    Raises NotebookError as :func:`load`, or if the file exists and is another one: somebody may have worked in it.
    """
    assignment = load(name)
    target = to / f"{assignment.path.stem}.ipynb"
    for index, cell in enumerate(assignment.notebook.cells):
        cell.id = cell.metadata.get("nbgrader", {}).get("grade_id", f"{name.lower()}-cell-{index}")
    text = nbformat.writes(student_version(assignment.notebook)) + "\n"
    if target.exists() and target.read_text(encoding="utf-8") != text:
        raise NotebookError(f"{target} exists and differs: move it away first")
    to.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8", newline="\n")
    return target


def solution(assignment: Assignment, part: Part) -> str:
    """The source of the solved cell of a part that a person grades, without its rubric."""
    cells = [cell for cell in assignment.notebook.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == part.id]
    source = _without(cells[0].source, "RUBRIC", None)[0]
    return "\n".join(line for line in source.split("\n") if not re.fullmatch(r"\s*### (BEGIN|END) SOLUTION", line)).strip()


def _rubric(source: str) -> tuple[tuple[float, str], ...]:
    """The items of the regions RUBRIC: lines ``2: what for``, in code behind ``# ``; other lines go on with the item before."""
    _without(source, "RUBRIC", None)  # refuses a region that is not closed
    items: list[tuple[float, str]] = []
    for region in re.findall(r"BEGIN RUBRIC.*\n((?:.*\n)*?).*END RUBRIC", source):
        for text in filter(None, (re.sub(r"^\s*#?\s*", "", line).rstrip() for line in region.split("\n"))):
            if found := re.fullmatch(r"(\d+(?:\.\d+)?):\s+(.+)", text):
                items.append((float(found[1]), found[2]))
            elif items:
                items[-1] = items[-1][0], f"{items[-1][1]} {text}"
            else:
                raise NotebookError(f"a rubric begins with {text[:40]!r}: expected points, a colon, and what they are given for")
    return tuple(items)


def _without(source: str, region: str, stub: str | None) -> tuple[str, bool]:
    """The source without the regions between BEGIN and END, each replaced by the stub, and whether there was one."""
    lines, inside, found = [], False, False
    for line in source.split("\n"):
        if f"BEGIN {region}" in line:
            if inside:
                raise NotebookError(f"a region BEGIN {region} begins inside another one")
            inside = found = True
            indent = line[: len(line) - len(line.lstrip())]
            lines += [indent + part for part in stub.split("\n")] if stub is not None else []
        elif f"END {region}" in line:
            inside = False
        elif not inside:
            lines.append(line)
    if inside:
        raise NotebookError(f"a region BEGIN {region} is not closed")
    return "\n".join(lines), found
