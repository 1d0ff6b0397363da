"""What grading writes for a student: a page of feedback."""

import html
from pathlib import Path

from dynot_lite.course import rendering
from dynot_lite.course.assignment import Assignment, Part
from dynot_lite.course.reports import Report, Score

__all__ = ["write_page"]

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
img {{ max-width: 100% }} .answer {{ border-left: 3px solid #ddd; padding-left: 1rem }}
h2 {{ font-size: 1.1rem; margin-top: 2rem }}
{style}</style></head><body>
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
        lines = "\n".join(f"cell {name}: {_words(error)}" for name, error in report.cells[:20])
        notes.append(f"<p>Cells that ended with an error, counted from the top, texts included:</p><pre>{_text(lines)}</pre>")
    page = PAGE.format(
        style=rendering.STYLE,
        title=_text(assignment.title),
        student=_text(_name(report)),
        summary=_text(_summary(report, assignment)),
        notes="\n".join(notes),
        rows="\n".join(rows),
        sections="\n".join(sections),
    )
    path = folder / f"{report.submission.page or report.submission.student}.html"
    path.write_text(page, encoding="utf-8", newline="\n")
    return path


def _name(report: Report) -> str:
    """The name that the roster gives, and that of the submission, unless the one is in the other."""
    student, name = report.submission.student, report.person.name if report.person else ""
    return name if name and name in student else f"{name} ({student})" if name else student


def _words(error: str) -> str:
    """What went wrong, in words for a student: a stub raises an error that has none."""
    return "not solved" if error == "unsolved" else error


def _summary(report: Report, assignment: Assignment) -> str:
    if not report.graded:
        return "not graded"
    count = len(report.pending)
    pending = f" so far; {count} part{'s wait' if count > 1 else ' waits'} for a person" if count else ""
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
    visible = (
        f"<p>The tests in the notebook (they carry no points): {_text(_words(score.visible))}.</p>" if score.findings else ""
    )
    return [f"<ul>{''.join(lines)}</ul>", visible]


def _by_hand(report: Report, part: Part, score: Score) -> list[str]:
    lines = []
    if score.changed:
        lines.append('<p class="wait">Was graded, but the answer changed since then: waits to be looked at again.</p>')
    elif score.earned is None and report.graded:
        lines.append('<p class="wait">Waits to be graded.</p>')
    if score.items:
        found = [(text, points, "all" if had else "none", "✓" if had else "–") for text, points, had in score.items]
        items = [f'<li class="{style}">{sign} {rendering.inline(text)} ({points:g})</li>' for text, points, style, sign in found]
        lines.append(f'<ul class="rubric">{"".join(items)}</ul>')
    lines += [f"<p>{_text(line)}</p>" for line in score.comment.split("\n") if line.strip()]
    if answer := report.answers.get(part.id):
        urls = {name: rendering.data_url(content) for name, content in answer.files.items()}
        lines.append(rendering.answer(answer.pieces, urls.get))
    return lines


def _style(score: Score, part: Part) -> str:
    if score.earned is None:
        return "wait"
    return "all" if score.earned == part.points else "some" if score.earned else "none"


def _text(text: str) -> str:
    return html.escape(str(text))
