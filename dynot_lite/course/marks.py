"""Marks that a person gives: each belongs to the answer it was given for. They live in ``marks.json``.

A mark of another answer than the one at hand does not count until it is confirmed: to count it would give points that nobody gave
for this answer, to drop it would lose work, and nobody would be told.
"""

import datetime
import hashlib
import hmac
import json
import locale
import secrets
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.course.answers import Answer
from dynot_lite.course.assignment import Assignment, Part
from dynot_lite.course.reports import Score
from dynot_lite.course.texts import decoded, plain, rows_of, write_table, write_whole

__all__ = ["CHANGED", "COLUMNS", "Mark", "Marks", "number", "read", "rubric"]

STORE, TABLE = "marks.json", "manual.csv"
COLUMNS = ("student", "part", "title", "points", "out of", "comment", "state", "answer")
CHANGED, EMPTY, GONE, WAITS = "answer changed since it was marked", "not answered", "not in this folder", "to be marked"
LONGEST = 20_000


@dataclass(frozen=True)
class Mark:
    """What a person gave for one answer: the points (None: only a comment), the items found, and the answer's hash."""

    points: float | None = None
    comment: str = ""
    items: tuple[str, ...] = ()
    answer: str = ""
    time: str = ""


class Marks:
    """The marks of one folder by student and part. :func:`read` makes it; its holder must hold the folder."""

    def __init__(self, folder: Path, assignment: Assignment):
        self.folder, self.name = folder, assignment.name
        self.parts = {part.id: part for part in assignment.parts if part.manual}
        self.given: dict[tuple[str, str], Mark] = {}
        self.exported: dict[tuple[str, str], dict[str, Any]] = {}  # the rows of the table as they were written
        self.key = secrets.token_hex(16)

    def score(self, student: str, part: Part, answer: Answer) -> Score:
        """The points of one answer. Without a mark an empty one has 0, and any other waits."""
        mark = self.given.get((student, part.id), Mark())
        if mark.points is None:
            return (
                Score(part.id, 0.0, comment=mark.comment or EMPTY) if answer.empty else Score(part.id, None, comment=mark.comment)
            )
        items = tuple((text, points, text in mark.items) for points, text in part.rubric) if mark.items else ()
        if mark.answer != answer.hash:
            return Score(part.id, None, comment=mark.comment, items=items, changed=True)
        return Score(part.id, mark.points, comment=mark.comment, items=items)

    def state(self, student: str, part: str, answer: Answer | None) -> str:
        """Where an answer stands, in words; empty if it is marked."""
        mark = self.given.get((student, part), Mark())
        if answer is None:
            return GONE
        if mark.points is not None:
            return "" if mark.answer == answer.hash else CHANGED
        return EMPTY if answer.empty else WAITS

    def give(self, student: str, part: str, mark: Mark) -> Mark:
        """Store a mark, and return it with its time. Raises NotebookError if its points are out of range."""
        possible = self.parts[part].points
        if mark.points is not None and not 0 <= mark.points <= possible:
            raise NotebookError(f"{mark.points:g} is not between 0 and {possible:g}")
        known = {text for _, text in rubric(self.parts[part])}
        kept = replace(
            mark, comment=_text(mark.comment)[:LONGEST], items=tuple(one for one in mark.items if one in known), time=_now()
        )
        self._put(student, part, kept)
        self.save()
        return kept

    def _put(self, student: str, part: str, mark: Mark) -> None:
        if mark.points is None and not mark.comment and not mark.items:
            self.given.pop((student, part), None)
        else:
            self.given[student, part] = mark

    def rename(self, before: str, after: str) -> None:
        """Give the marks of the student ``before`` to ``after``, who is the same person, where that one has none."""
        for student, part in [key for key in self.given if key[0] == before]:
            if (after, part) not in self.given:
                self.given[after, part] = self.given.pop((student, part))

    def pseudonym(self, student: str, length: int = 5) -> str:
        """A name for blind grading: the same each time in this folder, and nothing that others could work out."""
        digest = hmac.new(self.key.encode(), student.encode("utf-8", "replace"), hashlib.sha256).digest()
        return "".join("ABCDEFGHJKLMNPQRSTUVWXYZ23456789"[byte % 32] for byte in digest[:length])

    def save(self) -> None:
        """Write ``marks.json``."""
        record: dict[str, Any] = {"assignment": self.name, "key": self.key, "marks": {}, "exported": {}}
        for (student, part), mark in self.given.items():
            record["marks"].setdefault(student, {})[part] = asdict(mark)
        for (student, part), row in self.exported.items():
            record["exported"].setdefault(student, {})[part] = row
        write_whole(self.folder / STORE, json.dumps(record, indent=1, ensure_ascii=False))

    def write(self, answers: Mapping[str, Mapping[str, Answer]]) -> None:
        """Write the marks, and ``manual.csv``: a row for each of ``answers`` and for each mark of a student who is not there.

        Raises NotebookError if a spreadsheet holds the table; no mark is lost then.
        """
        keys = [(student, part) for student, parts in answers.items() for part in self.parts if part in parts]
        keys += sorted(set(self.given) - set(keys))
        rows, before, self.exported = [], self.exported, {}
        for student, part in keys:
            answer, mark = answers.get(student, {}).get(part), self.given.get((student, part), Mark())
            state, points = self.state(student, part, answer), mark.points
            row = {"points": 0.0 if state == EMPTY else points, "comment": mark.comment, "state": state}
            self.exported[student, part] = row | {"answer": answer.hash if answer else mark.answer}
            rows.append([student, part, self.parts[part].title, row["points"], self.parts[part].points, mark.comment, state])
            rows[-1].append(self.exported[student, part]["answer"])
        path = self.folder / TABLE
        separator = _separator(path)
        self.save()  # first: rows that look older than these are not taken for what a person entered
        entries = [[_entry(entry, separator) for entry in row] for row in rows]
        try:
            write_table(path, COLUMNS, entries, separator=separator, bom="\ufeff")
        except (NotebookError, OSError):  # the rows that stay are those of the table before, not what a person entered since
            self.exported = before
            self.save()
            raise

    def take(self, path: Path) -> None:
        """Take over what a person changed in a table since it was written; a mark that was given later stays.

        Raises NotebookError for a part that is not graded by hand, or points that are no number between 0 and the maximum.
        """
        saved = _iso(path.stat().st_mtime)
        by_answer: dict[tuple[str, str], set[str]] = {}
        for (student, part), row in self.exported.items():
            by_answer.setdefault((part, row["answer"]), set()).add(student)
        for line, row in _rows(path):
            part = row["part"]
            if part not in self.parts:
                raise NotebookError(f"{path}, line {line}: {part!r} is not a part of {self.name} that a person grades")
            points = number(row["points"], self.parts[part].points, f"{path}, line {line}")
            student = self._student(row["student"], part, by_answer.get((part, row.get("answer") or ""), set()))
            self._take(student, part, points, row, saved)

    def _student(self, name: str, part: str, others: Iterable[str]) -> str:
        """The student of a row: a spreadsheet makes 123 of 00123, and 1E+16 of a long number."""
        if (name, part) in self.exported:
            return name
        alike = [
            one for one, other in self.exported if other == part and name and _text(one).strip().lstrip("0") == name.lstrip("0")
        ]
        found = alike or (list(others) if name.replace(",", ".").replace("E+", "").replace(".", "").isdigit() else [])
        return found[0] if len(found) == 1 else name

    def _take(self, student: str, part: str, points: float | None, row: Mapping[str, str], saved: str) -> None:
        before, mark = self.exported.get((student, part)), self.given.get((student, part), Mark())
        state = row.get("state", before["state"] if before else "")
        comment = row["comment"]
        if before is None and EMPTY in (comment, state) and not points:
            return  # a row of an earlier version of this table
        same = before is not None and points == before["points"]
        if same and comment == before["comment"] and state == before["state"]:
            return
        if before and mark.time > saved and (mark.points, mark.comment) != (before["points"], before["comment"]):
            return
        # A row without a hash is of the answer that was there when the table was written, if there was one.
        answer = row.get("answer") or (before["answer"] if before else "")
        if state == CHANGED and points == mark.points:
            answer = mark.answer  # another comment does not confirm the points
        if before and state == EMPTY and same and not comment:
            points = None
        self._put(student, part, Mark(points, comment, mark.items if points == mark.points else (), answer, saved))


def rubric(part: Part) -> tuple[tuple[float, str], ...]:
    """What one can tick: the items of the part's rubric, or one for everything."""
    return part.rubric or ((part.points, "all"),)


def read(folder: Path, assignment: Assignment) -> Marks:
    """The marks in ``folder``, with what a person changed in its ``manual.csv``; none if nothing was graded there.

    Raises NotebookError if a file cannot be read, or :meth:`Marks.take` does.
    """
    marks, store = Marks(folder, assignment), folder / STORE
    if store.exists():
        try:
            record = json.loads(store.read_text(encoding="utf-8"))
            if record["assignment"] != assignment.name:
                raise NotebookError(f"{folder} has marks of {record['assignment']}, not of {assignment.name}: use another folder")
            marks.key = str(record["key"])
            for student, parts in record["marks"].items():
                marks.given |= {(student, part): Mark(**one | {"items": tuple(one["items"])}) for part, one in parts.items()}
            marks.exported = {(who, part): row for who, parts in record["exported"].items() for part, row in parts.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise NotebookError(f"{store} cannot be read ({type(error).__name__}): put an older copy in its place") from None
    if (folder / TABLE).exists():
        marks.take(folder / TABLE)
    return marks


def _rows(path: Path) -> Iterable[tuple[int, dict[str, str]]]:
    """The rows of a table with their line numbers, whatever separators and encoding a spreadsheet chose."""
    head, lines = rows_of(path)
    names = {name: _text(name).strip().lower() for name in head}
    if missing := [name for name in ("student", "part", "points") if name not in names.values()]:
        raise NotebookError(f"{path} has no column {missing[0]!r}: its first line must be {','.join(COLUMNS)}")
    for line, row in lines:
        entries = {names[name]: plain(_text(row[name])) for name in names}
        if entries["student"].strip() or entries["part"].strip():
            entries |= {name: entries[name].strip() for name in ("student", "part", "state", "answer") if name in entries}
            yield line, {"comment": ""} | entries


def number(text: str, possible: float, place: str) -> float | None:
    """Points as people write them: 7.5, 7,5 or 7½; None for nothing."""
    plain = text.strip().replace(",", ".").replace("\N{VULGAR FRACTION ONE HALF}", ".5")
    try:
        points = float(plain) if plain else None
        if points is not None and not 0 <= points <= possible:
            raise ValueError
    except ValueError:
        raise NotebookError(f"{place}: {text.strip()!r} is not between 0 and {possible:g}") from None
    return points


def _separator(path: Path) -> str:
    """As in the table that is there; else what spreadsheets of this country expect: semicolons where one writes 7,5."""
    if path.exists():
        head = decoded(path.read_bytes()[:1000], "replace")[0].split("\n")[0]
        return ";" if head.count(";") > head.count(",") else ","
    before = locale.setlocale(locale.LC_NUMERIC)
    try:
        locale.setlocale(locale.LC_NUMERIC, "")
        return ";" if locale.localeconv()["decimal_point"] == "," else ","
    except locale.Error:
        return ","
    finally:
        locale.setlocale(locale.LC_NUMERIC, before)


def _entry(entry: str | float | None, separator: str) -> str:
    if isinstance(entry, (int, float)):
        return f"{entry:g}".replace(".", "," if separator == ";" else ".")
    return entry or ""


def _text(text: str) -> str:
    """What was typed, in one form of Unicode and with one kind of line ends."""
    whole = text.encode("utf-8", "replace").decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", whole)


def _now() -> str:
    return _iso(datetime.datetime.now().timestamp())


def _iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="milliseconds")
