"""The points of a grading as other systems read them: Canvas, Moodle, Gradescope and nbgrader.

What each format is, and where that is said: Canvas, ``lib/gradebook_importer.rb`` of canvas-lms; Moodle, ``grade/import/csv`` and
``mod/assign/feedback/offline`` of its source, and "Grade import" of its documentation; Gradescope, "Autograder specifications" of
gradescope-autograders.readthedocs.io; nbgrader, ``nbgrader/plugins/export.py``.
"""

import datetime
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.course.assignment import Assignment, load
from dynot_lite.course.reports import GRADED
from dynot_lite.course.roster import Person, matches
from dynot_lite.course.roster import read as read_roster
from dynot_lite.course.tables import AFTER
from dynot_lite.course.texts import distinct, file_name, key, read_table, write_table

__all__ = ["Exported", "export"]

NAMES = ("student", "login", "email", "identifier", "name")  # of points.csv, by which a person of the roster is found
STATUSES = {"graded", *GRADED}
CANVAS = ("Student", "ID", "SIS User ID", "SIS Login ID", "Section")
MOODLE = ("Username", "ID number", "Email address")
WORKSHEET = ("Identifier", "Grade")
NBGRADER = ("assignment", "duedate", "timestamp", "student_id", "last_name", "first_name", "email")
NBGRADER += ("raw_score", "late_submission_penalty", "score", "max_score")


@dataclass(frozen=True)
class Exported:
    """How many students were written, who was left out (and why), who still has parts that wait for a person, and a note."""

    written: int
    left: tuple[str, ...]
    pending: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class Row:
    """A student of ``points.csv``, with the person of the roster that the system exported."""

    entry: dict[str, str]
    person: Person

    @property
    def student(self) -> str:
        return self.entry["student"]

    @property
    def total(self) -> float:
        return float(self.entry["total"])


def export(folder: Path, system: str, to: Path, *, roster: Path | None = None) -> Exported:
    """Write the points of the grading in ``folder`` for ``system``: canvas, moodle, gradescope or nbgrader.

    ``roster`` is the table that the system itself exported (Canvas's gradebook, Moodle's grading worksheet or its participants):
    then its names and identifiers are used, and whom it does not name is left out. Who was not graded is left out too: an empty
    grade would overwrite one that is there.
    Raises NotebookError if there is no grading in ``folder``, or the roster does not fit it.
    """
    if to.exists() and to.is_dir() != (system == "gradescope"):
        raise NotebookError(
            f"{to} is a {'folder' if to.is_dir() else 'file'}: name a {'file' if to.is_dir() else 'folder'} to write"
        )
    assignment, entries = _grading(folder)
    people = read_roster(roster) if roster else []
    known = matches([entry[name] for entry in entries for name in NAMES], people)
    persons = [next((known[entry[name]] for name in NAMES if entry[name] in known), None) for entry in entries]
    several = Counter(id(person) for person in persons if person)
    rows, left, note = [], [], ""
    for entry, person in zip(entries, persons, strict=True):
        if not (entry["status"] in STATUSES and entry["total"]):
            left.append(f"{entry['student']}: {entry['status']}")
        elif several[id(person)] > 1:
            left.append(f"{entry['student']}: {person.shown if person else ''} in {roster}, and so is another")
        elif people and person is None:
            left.append(f"{entry['student']}: not in {roster}")
        else:
            own = {name: entry[name] for name in ("name", "identifier", "email")}
            rows.append(Row(entry, person or Person(login=entry["login"] or entry["student"], **own)))
    to.parent.mkdir(parents=True, exist_ok=True)
    if system == "canvas":
        note = _canvas(rows, assignment, to, roster)
    elif system == "moodle":
        _moodle(rows, assignment, to, roster)
    elif system == "gradescope":
        _gradescope(rows, assignment, to)
    elif system == "nbgrader":
        absent = [entry for entry in entries if entry["status"] == "missing"]
        _nbgrader(rows, absent, assignment, to)
        left = [one for one in left if not one.endswith(": missing")]
        note = f"with 0, as nbgrader does: {', '.join(entry['student'] for entry in absent)}" if absent else ""
    else:
        raise NotebookError(f"no export for {system!r}: there are canvas, moodle, gradescope and nbgrader")
    return Exported(len(rows), tuple(left), tuple(row.student for row in rows if row.entry["waiting"]), note)


def _grading(folder: Path) -> tuple[Assignment, list[dict[str, str]]]:
    """The problem set, and the rows of ``points.csv`` with times in UTC."""
    try:
        record = json.loads((folder / "grading.json").read_text(encoding="utf-8"))
        assignment = load(record["assignment"])
    except (OSError, ValueError, KeyError, TypeError):
        raise NotebookError(f"{folder} has no grading: it is the folder OUT of course grade DIR --to OUT") from None
    entries = read_table(folder / "points.csv")
    numbers = ("points", "total", "deduction", "seconds", *(part.id for part in assignment.parts))
    if missing := {*NAMES, *AFTER, "status", *numbers} - set(entries[0]):
        raise NotebookError(f"{folder / 'points.csv'} has no column {min(missing)}: grade again")
    for entry in entries:  # a spreadsheet may have saved it, with 7,5 or with times of its own
        try:
            entry |= {name: f"{float(entry[name].replace(',', '.')):g}" for name in numbers if entry[name]}
            entry |= {name: _utc(entry[name]) for name in ("submitted", "due")}
        except ValueError:
            problem = f"has numbers or times that cannot be read (of {entry['student']}): grade again"
            raise NotebookError(f"{folder / 'points.csv'} {problem}") from None
    return assignment, entries


def _canvas(rows: Sequence[Row], assignment: Assignment, to: Path, roster: Path | None) -> str:
    """The CSV of "Import" in Canvas's gradebook: who it is, up to the column Section, then a column per assignment.

    Canvas takes a column "PS1 (123)" for the assignment with this number, and another name for that of a new one. Gives a note
    if there is no such column in the roster.
    """
    table = read_table(roster) if roster else []
    head, title = list(CANVAS), assignment.name
    if table and "Section" in table[0] and "ID" in table[0]:
        columns = list(table[0])
        head = columns[: columns.index("Section") + 1]
        title = next((name for name in columns if re.match(rf"{assignment.name}\b", name)), title)
        possible = next((row.get(title, "") for row in table if "Points Possible" in row.get(head[0], "")), "")
        _fits(possible, assignment, "Canvas")
    first = ["Points Possible", *[""] * (len(head) - 1), f"{assignment.points:g}"]
    lines = [first]
    for row in rows:
        own = dict(zip(CANVAS, (row.person.name or row.student, "", row.person.identifier, row.person.login, ""), strict=True))
        lines.append([*((row.person.row or own).get(name, own.get(name, "")) for name in head), f"{row.total:.2f}"])
    write_table(to, [*head, title], lines, exact=bool(table))
    new = f"no column of {roster} begins with {assignment.name}: Canvas will make a new assignment"
    return new if table and title not in table[0] else ""


def _moodle(rows: Sequence[Row], assignment: Assignment, to: Path, roster: Path | None) -> None:
    """Moodle's grading worksheet filled in, if the roster is one; else the CSV of "Grades, Import", with a column of grades."""
    table = read_table(roster) if roster else []
    if not (table and all(name in table[0] for name in WORKSHEET)):
        lines = [[row.person.login, row.person.identifier, row.person.email, f"{row.total:g}"] for row in rows]
        return write_table(to, [*MOODLE, assignment.name], lines)
    most = next((name for name in table[0] if key(name) == "maximumgrade"), "")
    _fits(table[0].get(most, ""), assignment, "Moodle")
    totals = {row.person.row["Identifier"]: row.total for row in rows if row.person.row}
    filled = [line | {"Grade": f"{totals[line['Identifier']]:g}"} if line["Identifier"] in totals else line for line in table]
    write_table(to, list(table[0]), [list(line.values()) for line in filled], exact=True)


def _fits(possible: str, assignment: Assignment, system: str) -> None:
    if re.fullmatch(r"\d+([.,]\d+)?", possible) and float(possible.replace(",", ".")) != assignment.points:
        raise NotebookError(
            f"{assignment.name} has {possible} points in {system}, and {assignment.points:g} here: change them there"
        )


def _gradescope(rows: Sequence[Row], assignment: Assignment, to: Path) -> None:
    """A folder per student with the ``results.json`` that Gradescope's harness takes from an autograder."""
    names = [file_name(row.student) for row in rows]
    for row, name in zip(rows, distinct([row.student for row in rows], names, alike=str.casefold), strict=True):
        tests = []
        for part in assignment.parts:
            earned = row.entry[part.id]
            test = {"name": part.title, "number": part.id.split("-")[-1], "max_score": part.points}
            tests.append(test | ({"score": float(earned)} if earned else {"output": "Waits for a person."}))
        said = [
            row.entry["reason"],
            f"{row.entry['late']}, {row.entry['deduction']} points off" if row.entry["deduction"] else "",
        ]
        # The score overrides the sum of the tests: it is what lateness leaves of them.
        results = {"score": row.total, "execution_time": round(float(row.entry["seconds"] or 0)), "tests": tests}
        results |= {"output": output} if (output := "; ".join(filter(None, said))) else {}
        (to / name).mkdir(parents=True, exist_ok=True)
        (to / name / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def _nbgrader(rows: Sequence[Row], missing: Sequence[dict[str, str]], assignment: Assignment, to: Path) -> None:
    """The CSV of ``nbgrader export``; like nbgrader it gives 0 to who handed in nothing."""
    lines = []
    for row in rows:
        entry, person = row.entry, row.person
        family, given = person.last_name, person.first_name
        raw = float(entry["points"])
        points = [raw, round(raw - row.total, 2), row.total, float(assignment.points)]
        who = [person.login or row.student, family, given, person.email]
        lines.append([assignment.name, entry["due"], entry["submitted"], *who, *points])
    for entry in missing:
        who = [entry["login"] or entry["student"], "", "", entry["email"]]
        lines.append([assignment.name, entry["due"], "", *who, 0.0, 0.0, 0.0, float(assignment.points)])
    write_table(to, NBGRADER, lines)


def _utc(time: str) -> str:
    if not time:
        return ""
    return datetime.datetime.fromisoformat(time).astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
