"""The tables of a grading: ``points.csv``, a row per student, and ``intake.csv``, a row per entry of the folder."""

from collections.abc import Sequence
from pathlib import Path

from dynot_lite.course.assignment import Assignment
from dynot_lite.course.reports import Report
from dynot_lite.course.roster import Person
from dynot_lite.course.submissions import Submission
from dynot_lite.course.texts import write_table

__all__ = ["write_intake", "write_points"]

PERSON = ("name", "identifier", "email")
AFTER = ("points", "of", "late", "deduction", "total", "waiting", "submitted", "time of", "due", "seconds", "file")


def write_points(reports: Sequence[Report], assignment: Assignment, folder: Path) -> set[str]:
    """Write ``points.csv``, and give the students whose row could not be written.

    Points that are not known are empty: those of a part that waits, or of what was not graded.
    """
    head = ["student", *PERSON, "status", "reason", *(part.id for part in assignment.parts), *AFTER]
    rows, failed = [], set()
    for report in reports:
        try:
            rows.append(_row(report, assignment))
        except Exception as error:  # the rows of the others are written
            rows.append(
                [report.submission.student, "", "", "", "error", f"this row could not be written: {type(error).__name__}"]
            )
            rows[-1] += [""] * (len(head) - len(rows[-1]))
            failed.add(report.submission.student)
    write_table(folder / "points.csv", head, rows)
    return failed


def _row(report: Report, assignment: Assignment) -> list[str]:
    person, late = report.person or Person(), report.late
    known = report.graded or any(score.earned is not None for score in report.scores)
    reason = "; ".join(one for one in (report.message.split("\n")[0], *report.notes) if one)
    earned = ["" if score.earned is None else f"{score.earned:g}" for score in report.scores]
    time = ["", "", ""]
    if late:
        time = [late.submitted.isoformat(sep=" ", timespec="seconds"), late.source]
        time.append(late.due.isoformat(sep=" ", timespec="seconds") if late.due else "")
    return [
        *(report.submission.student, person.name, person.identifier, person.email),
        *("graded" if report.status == "finished" else report.status, reason, *earned),
        *(f"{report.points:g}" if known else "", f"{assignment.points:g}", late.words if late else ""),
        *(f"{report.points - report.total:g}" if known and late and late.percent else "", f"{report.total:g}" if known else ""),
        *(" ".join(report.pending), *time, f"{report.seconds:.1f}", report.submission.file),
    ]


def write_intake(submissions: Sequence[Submission], reports: Sequence[Report], folder: Path) -> None:
    """Write ``intake.csv``: every entry of the folder of submissions, what became of it and why, and who is missing."""
    known = {id(report.submission): report for report in reports}
    rows = []
    for one in submissions:
        report = known.get(id(one))
        status = "graded" if report and report.graded else report.status if report else one.status
        reason = [report.message.split("\n")[0], *report.notes] if report else [one.problem]
        rows.append([one.file, one.student, status, "; ".join(filter(None, reason))])
    write_table(folder / "intake.csv", ["entry", "student", "status", "reason"], rows)
