"""What grading writes: a page of feedback per student, and the table in which a person enters points."""

import base64
import csv
import html
from collections.abc import Sequence
from pathlib import Path

from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.course.assignment import Assignment, Part
from dynot_lite.course.reports import Report, Score
from dynot_lite.course.texts import plain, write_table

__all__ = ["read_marks", "write_page", "write_tables"]

COLUMNS = ("student", "part", "title", "points", "out of", "comment")

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}: {student}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; width: 100%; margin: 1rem 0 }} th, td {{ text-align: left; vertical-align: top;
padding: .35rem .6rem; border-bottom: 1px solid #ddd }} td.n {{ text-align: right; white-space: nowrap }}
.all {{ color: #00664a }} .some {{ color: #8a5a00 }} .none {{ color: #a33000 }} .wait {{ color: #555 }}
.note {{ background: #fff4e0; padding: .6rem .9rem }} pre {{ white-space: pre-wrap; background: #f6f6f6; padding: .6rem }}
img {{ max-width: 100% }} h2 {{ font-size: 1.1rem; margin-top: 2rem }}
</style></head><body>
<h1>{title}</h1>
<p><strong>{student}</strong>: {summary}.</p>
{notes}
<table><tr><th>part</th><th>points</th></tr>
{rows}
</table>
{sections}
</body></html>
"""


def write_page(report: Report, assignment: Assignment, folder: Path) -> Path:
    """Write the feedback of one student; everything that comes from the submission is escaped."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, sections = [], []
    for part, score in zip(assignment.parts, report.scores, strict=True):
        style = _style(score, part)
        earned = "–" if score.earned is None else f"{score.earned:g}"
        title = f"{part.id.split('-')[-1]}. {part.title}"
        rows.append(f'<tr><td>{_text(title)}</td><td class="n {style}">{earned} / {part.points:g}</td></tr>')
        sections.append(f'<h2>{_text(title)} <span class="{style}">{earned} / {part.points:g}</span></h2>')
        sections += _by_oracle(score) if not part.manual else _by_hand(report, part, score)
    notes = [f'<p class="note">{_text(note)}</p>' for note in (report.message, *report.notes) if note]
    if report.cells:
        lines = "\n".join(f"cell {name}: {error}" for name, error in report.cells[:20])
        notes.append(f"<p>Cells that ended with an error:</p><pre>{_text(lines)}</pre>")
    page = PAGE.format(
        title=_text(assignment.title),
        student=_text(report.submission.student),
        summary=_text(_summary(report, assignment)),
        notes="\n".join(notes),
        rows="\n".join(rows),
        sections="\n".join(sections),
    )
    path = folder / f"{report.submission.page or report.submission.student}.html"
    path.write_text(page, encoding="utf-8", newline="\n")
    return path


def _summary(report: Report, assignment: Assignment) -> str:
    if not report.graded:
        return "not graded"
    pending = f" so far; {len(report.pending)} parts wait for a person" if report.pending else ""
    late = (
        f", {report.late.percent:g} % less because {report.late.words}: {report.total:g}"
        if report.late and report.late.words
        else ""
    )
    return f"{report.points:g} of {assignment.points:g} points{late}{pending}"


def _by_oracle(score: Score) -> list[str]:
    lines = []
    for finding in score.findings:
        style = "all" if finding.earned else "none"
        count = f"{finding.right} of {finding.asked} instances right"
        remark = f": {finding.remark}" if finding.remark else ""
        text = f"{finding.check} ({finding.earned:g} / {finding.possible:g}): {count}{remark}"
        lines.append(f'<li class="{style}">{_text(text)}</li>')
    visible = f"<p>The tests in the notebook (they carry no points): {_text(score.visible)}.</p>" if score.findings else ""
    return [f"<ul>{''.join(lines)}</ul>", visible]


def _by_hand(report: Report, part: Part, score: Score) -> list[str]:
    lines = []
    if score.earned is None and report.graded:
        lines.append('<p class="wait">Waits to be graded.</p>')
    if score.comment:
        lines.append(f"<p>{_text(score.comment)}</p>")
    for cell in report.submission.cells:
        if cell.id == part.id:
            lines.append(f"<pre>{_text(cell.source[:20000])}</pre>")
            for picture in cell.pictures:
                data = base64.b64encode(picture).decode("ascii")
                lines.append(f'<img alt="figure of this answer" src="data:image/png;base64,{data}">')
    return lines


def _style(score: Score, part: Part) -> str:
    if score.earned is None:
        return "wait"
    return "all" if score.earned == part.points else "some" if score.earned else "none"


def _text(text: str) -> str:
    return html.escape(str(text))


def write_tables(reports: Sequence[Report], assignment: Assignment, marks: dict, folder: Path) -> None:
    """Write ``manual.csv``, one row per answer that a person grades."""
    by_hand, kept = {part.id: part for part in assignment.parts if part.manual}, {}
    for report in reports:
        for score in (score for score in report.scores if score.part in by_hand):
            if not report.graded and (report.submission.student, score.part) not in marks:
                continue
            points, comment = marks.get((report.submission.student, score.part), (None, ""))
            if score.earned == 0 and not comment:
                points, comment = points or 0.0, score.comment or report.message
            kept[report.submission.student, score.part] = points, comment
    kept |= {key: value for key, value in sorted(marks.items()) if key not in kept}  # of students who are not in this folder
    rows = [
        [student, part, by_hand[part].title, "" if points is None else f"{points:g}", f"{by_hand[part].points:g}", comment]
        for (student, part), (points, comment) in kept.items()
    ]
    write_table(folder / "manual.csv", COLUMNS, rows)


def read_marks(path: Path, assignment: Assignment) -> dict[tuple[str, str], tuple[float | None, str]]:
    """The points and comments of ``manual.csv`` by student and part; empty if there is no such file.

    Raises NotebookError for a part that is not graded by hand, or points that are no number between 0 and the maximum.
    """
    if not path.exists():
        return {}
    possible = {part.id: part.points for part in assignment.parts if part.manual}
    marks = {}
    with open(path, encoding="utf-8-sig", newline="") as stream:
        for number, row in enumerate(csv.DictReader(stream), 2):
            part, text = row.get("part"), (row.get("points") or "").strip()
            if part not in possible:
                raise NotebookError(f"{path}, line {number}: {part!r} is not a part of {assignment.name} that a person grades")
            try:
                points = float(text) if text else None
                if points is not None and not 0 <= points <= possible[part]:
                    raise ValueError
            except ValueError:
                raise NotebookError(f"{path}, line {number}: {text!r} is not between 0 and {possible[part]:g}") from None
            student = plain(row.get("student") or "")
            comment = row.get("comment") or ""
            marks[student, part] = points, "" if comment == "not answered" else plain(comment)
            if comment == "not answered" and points == 0:
                del marks[student, part]
    return marks
