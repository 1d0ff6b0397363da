"""Due dates and what lateness costs: one small table for the course, with exceptions for single students.

timezone = "Europe/Zurich"     # of all times that do not give an offset of their own

[PS1]
due = 2026-11-20T23:59:00
grace = 15                     # minutes that cost nothing
percent = 10                   # of the points earned, for each day begun
days = 5                       # later than that there are no points

[PS1.students]                 # who may hand in later
ann = 2026-11-27T23:59:00
"""

import datetime
import math
import tomllib
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.course.texts import decoded, key

__all__ = ["Deadline", "Lateness", "moment", "read"]

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Lateness:
    """When a submission was handed in, and what that costs: ``percent`` of its points; ``days`` begun after the due date.

    ``source`` says where the time is from: "roster" or "file" (when the file was last changed).
    """

    submitted: datetime.datetime
    source: str
    due: datetime.datetime | None = None
    days: int = 0
    percent: float = 0.0

    @property
    def words(self) -> str:
        """How late it is, in words; empty if it is not."""
        return f"{self.days} day{'s' if self.days > 1 else ''} late" if self.days else ""


@dataclass(frozen=True)
class Deadline:
    """The due date of a problem set and the rule for what comes later; without a ``due`` date nothing is late."""

    zone: datetime.tzinfo | None = None
    due: datetime.datetime | None = None
    grace: float = 0.0
    percent: float = 0.0
    days: float = math.inf
    students: Mapping[str, datetime.datetime] = field(default_factory=dict)

    def lateness(self, submitted: datetime.datetime, source: str, names: tuple[str, ...]) -> Lateness:
        """What ``submitted`` (with its offset) costs the student who goes by any of these ``names``.

        Late is what comes after the due date and the minutes of grace. Days are counted on the clock of the due date: the same
        time of the next day is one day later, also in the nights in which clocks are changed.
        """
        extended = [due for name, due in self.students.items() if key(name) in {key(one) for one in names if one}]
        due = max(extended, default=self.due)
        shown = submitted.astimezone(self.zone or (due.tzinfo if due else None))
        if due is None or submitted <= due + datetime.timedelta(minutes=self.grace):
            return Lateness(shown, source, due)
        on_the_clock = submitted.astimezone(due.tzinfo).replace(tzinfo=None) - due.replace(tzinfo=None)
        days = max(1, math.ceil(on_the_clock / DAY))
        return Lateness(shown, source, due, days, 100.0 if days > self.days else min(100.0, self.percent * days))


def read(path: Path, name: str) -> Deadline:
    """The deadline of the problem set ``name`` (PS1) from the table in ``path``.

    Raises NotebookError for a table that is not of the form above: a word that is not one of its own, a time without a zone.
    """
    try:
        table = tomllib.loads(decoded(path.read_bytes())[0])
    except OSError as error:
        raise NotebookError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise NotebookError(f"{path} is not a table in TOML: {error}") from None
    zone = _zone(path, table.pop("timezone", None))
    rule = table.get(name)
    if not isinstance(rule, dict) or "due" not in rule:
        raise NotebookError(f"{path} has no due date for {name}: expected a table [{name}] with due = 2026-11-20T23:59:00")
    known = ("due", "grace", "percent", "days", "students")
    if unknown := sorted(set(rule) - set(known)):
        raise NotebookError(f"{path}: [{name}] has {unknown[0]!r}, which is none of {', '.join(known)}")
    numbers = {word: rule[word] for word in ("grace", "percent", "days") if word in rule}
    for word, value in numbers.items():
        most = 100 if word == "percent" else math.inf
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            raise NotebookError(f"{path}: {word} of [{name}] must be a number, not negative{' and at most 100' * (most == 100)}")
    students = rule.get("students", {})
    if not isinstance(students, dict):
        raise NotebookError(f"{path}: [{name}.students] must be a table of students and their due dates")
    later = {student: _due(path, f"[{name}.students] {student}", time, zone) for student, time in students.items()}
    return Deadline(zone, _due(path, f"due of [{name}]", rule["due"], zone), students=later, **numbers)


def moment(text: str, zone: datetime.tzinfo | None) -> datetime.datetime:
    """The time that an entry such as 2026-11-20 23:59 or 2026-11-20T22:59:00Z names; without an offset it is in ``zone``.

    Raises ValueError for any other text, or if there is neither an offset nor a zone.
    """
    return _with_zone(datetime.datetime.fromisoformat(text.strip()), zone)


def _due(path: Path, where: str, value: Any, zone) -> datetime.datetime:
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        value = datetime.datetime.combine(value, datetime.time(23, 59, 59))  # a day ends when it ends
    if not isinstance(value, datetime.datetime):
        raise NotebookError(f"{path}: {where} must be a date and a time such as 2026-11-20T23:59:00, without quotes")
    try:
        return _with_zone(value, zone)
    except ValueError as error:
        raise NotebookError(f"{path}: {where}: {error}") from None


def _with_zone(time: datetime.datetime, zone) -> datetime.datetime:
    if time.tzinfo:
        return time
    if zone is None:
        raise ValueError(
            'whose time is this? Give timezone = "Europe/Zurich" or the like in the table of due dates, or an offset'
        )
    # In the night in which clocks go back an hour comes twice: a due date means the second, which is kinder.
    return max((time.replace(tzinfo=zone, fold=fold) for fold in (0, 1)), key=datetime.datetime.timestamp)


def _zone(path: Path, name: Any) -> datetime.tzinfo | None:
    if name is None:
        return None
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise NotebookError(
            f"{path}: {name!r} is no time zone known here; names are such as Europe/Zurich (on Windows: pip install tzdata)"
        ) from None
