"""The ledger of intake: every entry of a folder of submissions, whose it is, when it was handed in, and who is missing."""

import datetime
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.course.assignment import Assignment, names
from dynot_lite.course.deadlines import Deadline, Lateness, moment
from dynot_lite.course.deadlines import read as read_deadline
from dynot_lite.course.recovery import recovered, release_of
from dynot_lite.course.roster import Person, matches
from dynot_lite.course.roster import read as read_roster
from dynot_lite.course.submissions import Submission, better, collect
from dynot_lite.course.texts import key, printable

__all__ = ["Entry", "guess", "ledger"]


@dataclass(frozen=True)
class Entry:
    """A submission with the ``person`` of the roster and the time it was handed in, where these are known."""

    submission: Submission
    person: Person | None = None
    late: Lateness | None = None


def ledger(folder: Path, assignment: Assignment, roster: Path | None = None, deadlines: Path | None = None) -> list[Entry]:
    """Every entry of ``folder``, and one for each person of the table ``roster`` and of the exceptions in ``deadlines`` without.

    Raises NotebookError if there is nothing in the folder, or a table cannot be read.
    """
    people = read_roster(roster) if roster else []
    deadline = read_deadline(deadlines, assignment.name) if deadlines else Deadline(datetime.datetime.now().astimezone().tzinfo)
    prefix, release = f"{assignment.name.lower()}-", release_of(assignment)
    submissions = [_recovered(one, release) for one in collect(folder, prefix)]
    known = matches([one.student for one in submissions], people)
    submissions = [_noted(one, known, bool(people)) for one in _one_each(submissions, known, prefix)]
    entries = [_timed(one, known.get(one.student), deadline, roster) for one in submissions]
    present = {id(person) for person in known.values()}
    absent = [Entry(_missing(person.shown, "nothing in the folder"), person) for person in people if id(person) not in present]
    called = {key(name) for entry in [*entries, *absent] for name in _names(entry.submission, entry.person)}
    absent += [
        Entry(_missing(one, "named in the table of due dates, but neither in the folder nor in a roster: misspelt?"))
        for one in deadline.students
        if key(one) not in called
    ]
    taken, unlike = {one.student for one in submissions}, []
    for entry in absent:
        name = entry.submission.student
        while name in taken:
            name += " (roster)"
        taken.add(name)
        unlike.append(replace(entry, submission=replace(entry.submission, student=name)))
    return entries + unlike


def guess(folder: Path) -> str:
    """The problem set that most students in the folder handed in.

    Raises NotebookError if no notebook names one, or two are named equally often.
    """
    found = Counter(name for one in collect(folder, "ps") for name in one.sets if name in names())
    if not found:
        known = ", ".join(names())
        raise NotebookError(f"no notebook in {folder} names its problem set: choose one with --assignment ({known})")
    best = max(found.values())
    if len(first := sorted(name for name, count in found.items() if count == best)) > 1:
        raise NotebookError(f"{folder} has {best} of {' and of '.join(first)}: choose one with --assignment")
    return first[0]


def _recovered(submission: Submission, release) -> Submission:
    try:
        return recovered(submission, release)
    except Exception as error:  # it is read as it stands, and the others are not concerned
        return replace(submission, notes=(*submission.notes, f"its cells could not be told apart: {type(error).__name__}"))


def _one_each(submissions: Sequence[Submission], known: dict[str, Person], prefix: str) -> list[Submission]:
    """The same, but of several by one person of the roster only the best counts."""
    groups: dict[int, list[Submission]] = {}
    for one in submissions:
        if one.student in known and one.status not in ("ignored", "not used"):
            groups.setdefault(id(known[one.student]), []).append(one)
    counts = {id(one): better(group, prefix) for group in groups.values() for one in group}
    result = []
    for one in submissions:
        best = counts.get(id(one), one)
        if best is not one:
            one = replace(one, status="not used", cells=(), problem=f"{best.file} of the same person of the roster counts")
        result.append(one)
    return result


def _noted(one: Submission, known: dict[str, Person], roster: bool) -> Submission:
    stranger = roster and not one.status and one.student not in known
    return replace(one, notes=(*one.notes, "not in the roster")) if stranger else one


def _names(submission: Submission, person: Person | None) -> tuple[str, ...]:
    return (submission.student, *(person.names if person else ()))


def _timed(one: Submission, person: Person | None, deadline: Deadline, roster: Path | None) -> Entry:
    """The submission with its time: that of the roster's column "submitted", or else when its file was last changed."""
    zone = deadline.zone or (deadline.due.tzinfo if deadline.due else None)
    if person and person.submitted:
        try:
            return Entry(one, person, deadline.lateness(moment(person.submitted, zone), "roster", _names(one, person)))
        except (ValueError, OverflowError) as error:
            raise NotebookError(f"{roster}: {person.shown} submitted {person.submitted!r}: {error}") from None
    if one.modified is None:
        return Entry(one, person)
    try:
        time = datetime.datetime.fromtimestamp(one.modified, datetime.UTC)
        return Entry(one, person, deadline.lateness(time, "file", _names(one, person)))
    except (ValueError, OverflowError, OSError):
        return Entry(replace(one, notes=(*one.notes, "the time of its file makes no sense")), person)


def _missing(student: str, problem: str) -> Submission:
    return Submission(printable(student), Path(), status="missing", problem=problem)
