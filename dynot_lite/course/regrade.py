"""A second grading of the same folder: the same instances, and what has changed in the points.

The seed of ``grading.json`` is kept, so that a regrade gives the same points to the same work; what has changed nevertheless (a
late submission, a mark, a corrected oracle) is listed in ``changes.csv``.
"""

import hashlib
import json
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path

from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.course.oracle.compare import Case
from dynot_lite.course.texts import plain, read_table, rows_of, write_table

__all__ = ["Change", "changes", "compare", "digest", "read", "seed_for", "told", "without"]

COLUMNS = ("student", "part", "before", "after")
Change = tuple[str, str, str, str]


def seed_for(folder: Path, name: str, seed: int | None, fresh: bool) -> tuple[int, str | None]:
    """The seed for grading the problem set ``name`` into ``folder``, and the digest of the instances of the last grading.

    It is ``seed`` if that is given, a new one if asked for (``fresh``) or if nothing of this problem set was graded into the
    folder, and otherwise the one in its ``grading.json``. The digest is None unless the seed is that of the last grading.
    Raises NotebookError for both ``seed`` and ``fresh``, and if ``grading.json`` has no seed that can be read.
    """
    if fresh and seed is not None:
        raise NotebookError("a seed and a fresh one: choose one of --seed and --fresh")
    path = folder / "grading.json"
    if fresh or not path.exists():
        return secrets.randbits(63) if seed is None else seed, None
    try:
        record = json.loads(path.read_text(encoding="utf-8-sig"))
        kept, known = record["seed"], record.get("instances")
        if not isinstance(kept, int) or isinstance(kept, bool) or kept < 0:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        if seed is not None:
            return seed, None
        raise NotebookError(f"{path} has no seed: give one with --seed, or draw new instances with --fresh") from None
    if record.get("assignment") != name:
        return secrets.randbits(63) if seed is None else seed, None
    return (kept, known) if seed in (None, kept) else (seed, None)


def without(folder: Path, options: Sequence[str]) -> list[str]:
    """The tables that the last grading into ``folder`` had, roster or deadlines, and that are not in ``options``."""
    try:
        before = json.loads((folder / "grading.json").read_text(encoding="utf-8-sig"))["tables"]
        return [one for one in ("roster", "deadlines") if one in before and one not in options]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def digest(asked: Iterable[Sequence[Case]]) -> str:
    """Identifies the instances and their right values, to eight digits: equal for equal seeds as long as no oracle changes."""
    found = hashlib.sha256()
    for one in asked:
        for case in one:
            for value in (*case.arguments, *case.expected):
                rows = value.ravel().tolist() if hasattr(value, "ravel") else [value]
                found.update(" ".join(f"{float(entry) + 0.0:.8g}" for entry in rows).encode())
    return found.hexdigest()[:16]


def read(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a ``points.csv`` by student, also as a spreadsheet saved it; empty if there is none, or it is not one."""
    try:
        rows = read_table(path)
    except NotebookError:
        return {}
    return {row["student"]: row for row in rows if row.get("student")}


def changes(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]], parts: Sequence[str]) -> list[Change]:
    """What differs between two tables of points: (student, part, before, after) for the status, each part, the
    sum, and the total after deductions where that is not the sum.

    A student who is in one table only has one row, for the sum. There are none if ``before`` is empty or of other ``parts``.
    """
    if not _comparable(before, parts):
        return []
    found = []
    for student in sorted(before.keys() | after.keys()):
        one, other = before.get(student, {}), after.get(student, {})
        columns = ("status", *parts, "points", "total") if one and other else ("points",)
        told = [(student, column, _entry(one.get(column)), _entry(other.get(column))) for column in columns]
        steps = [change for change in told if change[2] != change[3]]
        found += [one for one in steps if one[1] != "total" or not any(o[1] == "points" and o[2:] == one[2:] for o in steps)]
    return found


def _entry(text: str | None) -> str:
    return (text or "").replace(",", ".")  # as some spreadsheets write 7.5


def _comparable(before: dict[str, dict[str, str]], parts: Sequence[str]) -> bool:
    return any(part in row for part in parts for row in before.values())


def compare(folder: Path, before: dict[str, dict[str, str]], parts: Sequence[str]) -> None:
    """Write ``changes.csv`` for the new ``points.csv`` in ``folder``; after a first grading there is none."""
    if not _comparable(before, parts):
        (folder / "changes.csv").unlink(missing_ok=True)
        return
    write_table(folder / "changes.csv", COLUMNS, changes(before, read(folder / "points.csv"), parts))


def told(folder: Path) -> list[str]:
    """What the last grading into ``folder`` changed, in words: one line per student; none after a first grading."""
    lines: dict[str, list[str]] = {}
    try:
        for _, row in rows_of(folder / "changes.csv")[1]:
            step = f"{row['part']} {row['before'] or '–'} → {row['after'] or '–'}"
            lines.setdefault(plain(row["student"]), []).append(step)
        record = json.loads((folder / "grading.json").read_text(encoding="utf-8"))
    except (NotebookError, FileNotFoundError):
        return []
    found = [f"{student}: {', '.join(steps)}" for student, steps in lines.items()]
    head = "changed since the last grading:" if found else "no points have changed since the last grading"
    lost = " and ".join(f"--{one}" for one in record.get("without", ()))
    note = [f"without {lost}, which the last grading had: give the same options again"] if lost else []
    if record.get("same_instances") is False:
        note.append("the seed is that of the last grading, but the instances are not: an oracle or a library has changed")
    return [*note, head, *(f"  {line}" for line in found)]
