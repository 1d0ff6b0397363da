"""Which cell of a submission is which, where an editor lost nbgrader's metadata."""

import json
import re
from collections import Counter
from dataclasses import dataclass, replace

from dynot_lite.course.assignment import CODE_STUB, TEXT_STUB, Assignment, student_version
from dynot_lite.course.submissions import Cell, Submission, set_of
from dynot_lite.course.texts import squeezed

__all__ = ["Release", "recovered", "release_of"]


@dataclass(frozen=True)
class Release:
    """What the students of a problem set were given.

    Attributes:
        name: the problem set.
        cells: in order, as (kind, nbgrader's identifier or "", source).
        own: nbgrader's identifier by the identifiers of cells, as the released notebook and the committed one give them.
        functions: the names of the functions that are asked for.
    """

    name: str
    cells: tuple[tuple[str, str, str], ...]
    own: dict[str, str]
    functions: frozenset[str]

    @property
    def sources(self) -> dict[str, str]:
        """The released sources by nbgrader's identifier."""
        return {name: source for _, name, source in self.cells if name}

    def written(self, cell: Cell) -> bool:
        """Whether a student wrote anything into ``cell``, which may be one of the released ones or a new one."""
        given = {squeezed(source) for _, name, source in self.cells if not cell.id or name == cell.id}
        return squeezed(cell.source) not in given | {"", squeezed(TEXT_STUB)}


def release_of(assignment: Assignment) -> Release:
    """What the students of ``assignment`` were given."""
    student = student_version(assignment.notebook)
    cells = [(cell.cell_type, cell.metadata.get("nbgrader", {}).get("grade_id", ""), cell.source) for cell in student.cells]
    own = {name: name for _, name, _ in cells if name}  # our own release gives both the same
    committed = assignment.path.with_suffix(".ipynb")
    if committed.exists():  # nbgrader's release keeps what this one has
        for cell in json.loads(committed.read_text(encoding="utf-8"))["cells"]:
            if "id" in cell and (name := cell["metadata"].get("nbgrader", {}).get("grade_id")):
                own[cell["id"]] = name
    functions = frozenset(check.function for part in assignment.parts for check in part.checks)
    return Release(assignment.name, tuple(cells), own, functions)


def recovered(submission: Submission, release: Release) -> Submission:
    """The submission with nbgrader's identifiers where they are lost but the cells can still be told, and a note that says so.

    A cell is known by the identifier that the notebook itself gives it; or else because its text is the released one, and no
    other's; or else because it stands right behind a cell whose text is the one before it in the release. A notebook that has
    no cell of the problem set and defines none of its functions is of another set.
    """
    if submission.status:
        return submission
    lost = set(release.sources) - {cell.id for cell in submission.cells}
    cells, by_own, by_place = list(submission.cells), 0, 0
    for k, cell in enumerate(cells):
        name = release.own.get(cell.own)
        if not cell.id and name in lost:
            lost.discard(name)
            cells[k], by_own = replace(cell, id=name), by_own + 1
    for k, name in _by_text(cells, release, lost):
        cells[k], by_place = replace(cells[k], id=name), by_place + 1
    if not any(cell.id in release.sources or set_of(cell) == release.name.lower() for cell in cells):
        code = "\n".join(cell.source for cell in cells if cell.kind == "code")
        defined = {match[1] or match[2] for match in re.finditer(r"^def (\w+)|^(\w+) *=", code, re.MULTILINE)}
        if not defined & release.functions:
            problem = f"it has no cell of {release.name} and defines none of its functions"
            return replace(submission, status="other set", cells=(), problem=problem)
    ways = ((by_own, "the identifiers of the cells"), (by_place, "the text around them"))
    how = " and ".join(f"{count} found by {way}" for count, way in ways if count)
    notes = (f"nbgrader's metadata is lost: {how}",) if how else ()
    return replace(submission, cells=tuple(cells), notes=submission.notes + notes)


def _by_text(cells: list[Cell], release: Release, lost: set[str]) -> list[tuple[int, str]]:
    """(number of the cell, identifier) of lost ones that their own text or the text before them tells."""
    found = []
    places = Counter(squeezed(cell.source) for cell in cells)
    where = {squeezed(cell.source): k for k, cell in enumerate(cells)}
    once = Counter(squeezed(source) for _, _, source in release.cells)
    taken: set[int] = set()
    # Every set has the stubs: only the text before one tells which it is.
    unique = lambda text: once[text] == 1 and places[text] == 1 and text not in (squeezed(CODE_STUB), squeezed(TEXT_STUB))
    for before, (kind, name, source) in zip((None, *release.cells), release.cells, strict=False):
        if name not in lost:
            continue
        own, previous = squeezed(source), squeezed(before[2]) if before else ""
        k = where[own] if unique(own) else where[previous] + 1 if previous and unique(previous) else len(cells)
        if k >= len(cells) or k in taken or cells[k].kind != kind or cells[k].id:
            continue
        text = squeezed(cells[k].source)
        if text == own or not once[text]:  # the next question is no answer to this one
            taken.add(k)
            found.append((k, name))
    return found
