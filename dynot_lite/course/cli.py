"""The command ``python -m dynot_lite course``."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

__all__ = ["add_parser", "at_least"]

COURSE = """\
Problem sets as course work.

  course release PS1 --to DIR      write the students' version of a problem set
  course grade DIR --to OUT        grade a folder of submissions: points, feedback
  course export OUT --to FILE      points for Canvas, Moodle, Gradescope or nbgrader
  course mark OUT                  grade proofs and figures by hand, on a page in your browser

The pages for instructors and for students are in notebooks/assignments/."""

GRADE = """\
Grade the submissions in DIR: files STUDENT.ipynb, or folders STUDENT with a notebook in them. OUT takes points.csv (one row per
student), intake.csv (one row per file of DIR, with the reason if it was not graded), feedback/STUDENT.html, manual.csv (points of
proofs and figures: enter them there, or with course mark, and run the command again) and grading.json (the seed of the random
instances, and the limits). The exit code is 0 only if everything in DIR was graded and nobody of the roster is missing.

Each submission runs in a process without network, files of others or the answers, within limits of time, memory and disk; the
values it returns are compared here. That needs Linux with user namespaces. Elsewhere nothing is run unless --trust is given."""

EXPORT = """\
Write the points of a grading, the folder OUT of "course grade", as another system reads them. Canvas: the CSV of its gradebook.
Moodle: the CSV of its grade import, or its grading worksheet filled in. Gradescope: a folder with a results.json per student.
nbgrader: the CSV of "nbgrader export". With --roster, students are named as in the table that the system itself exported. Who was
not graded is left out, so that no point in the other system is overwritten by nothing."""

MARK = """\
Grade proofs and figures by hand: a page in your browser shows the answers that the last grading into OUT found, one question
after the other, with typeset formulas, figures, the rubric to tick, and a comment. It is served by this machine to this machine
only, and needs no network. Each mark is stored at once in OUT/marks.json; afterwards run course grade again.

A mark belongs to the answer it was given for: if a student hands in another one, it waits until you have looked again."""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command ``course`` to the parser of the command line."""
    layout = argparse.RawDescriptionHelpFormatter
    course = commands.add_parser("course", help="release and grade problem sets", description=COURSE, formatter_class=layout)
    verbs = course.add_subparsers(required=True, metavar="VERB")

    release = verbs.add_parser("release", help="write the students' version of a problem set")
    release.add_argument("assignment", metavar="PS1", help="the problem set")
    release.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder to write to")
    release.set_defaults(run=_release)

    grade = verbs.add_parser("grade", help="grade a folder of submissions", description=GRADE, formatter_class=layout)
    grade.add_argument("folder", type=Path, metavar="DIR", help="the submissions")
    grade.add_argument("--to", type=Path, required=True, metavar="OUT", help="folder to write to")
    grade.add_argument("--assignment", metavar="PS1", help="the problem set (default: the one the submissions name)")
    grade.add_argument(
        "--roster", type=Path, metavar="CSV", help="who takes the course: names the missing (columns: login, email, ...)"
    )
    grade.add_argument("--deadlines", type=Path, metavar="TOML", help="due dates and what lateness costs")
    grade.add_argument("--jobs", type=at_least(1), default=2, help="submissions at a time (default: 2)")
    grade.add_argument("--seed", type=at_least(0), help="of the random instances (default: a fresh one, written to grading.json)")
    grade.add_argument("--seconds", type=at_least(0.1, float), default=120.0, help="for one submission (default: 120)")
    grade.add_argument("--memory", type=at_least(0.1, float), default=3.0, metavar="GB", help="for one submission (default: 3)")
    grade.add_argument("--trust", action="store_true", help="run submissions without isolation, where there is none")
    grade.set_defaults(run=_grade)

    export = verbs.add_parser("export", help="points for other systems", description=EXPORT, formatter_class=layout)
    export.add_argument("folder", type=Path, metavar="OUT", help="what course grade wrote")
    export.add_argument(
        "--as", dest="system", required=True, choices=("canvas", "moodle", "gradescope", "nbgrader"), help="for which"
    )
    export.add_argument("--to", type=Path, required=True, metavar="FILE", help="file to write (gradescope: folder)")
    export.add_argument("--roster", type=Path, metavar="CSV", help="the table of students that this system exported")
    export.set_defaults(run=_export)

    mark = verbs.add_parser("mark", help="grade proofs and figures by hand", description=MARK, formatter_class=layout)
    mark.add_argument("folder", type=Path, metavar="OUT", help="the folder that course grade wrote to")
    mark.add_argument("--blind", action="store_true", help="replace names, and show each question in an order of its own")
    mark.add_argument("--port", type=at_least(0), default=0, help="of the page (default: any that is free)")
    mark.add_argument("--no-browser", action="store_true", help="only print the address of the page")
    mark.set_defaults(run=_mark)


def at_least(least: float, kind: type = int) -> Callable[[str], float]:
    """The type of an option that is a number of this kind, finite and not smaller than ``least``."""

    def number(text: str):
        value = kind(text)
        if not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {value}")
        return value

    return number


def _release(options: argparse.Namespace) -> int:
    from dynot_lite.course.assignment import release

    print(release(options.assignment, options.to))
    return 0


def _mark(options: argparse.Namespace) -> int:
    from dynot_lite.course.byhand import mark

    count = mark(options.folder, blind=options.blind, port=options.port, browser=not options.no_browser)
    print(f"{count} marks are stored in {options.folder}; run course grade again to have them in points and feedback")
    return 0


def _grade(options: argparse.Namespace) -> int:
    from dynot_lite.course.grade import grade
    from dynot_lite.course.sandbox import Limits

    limits = Limits(seconds=options.seconds, memory=int(options.memory * 2**30))
    reports = grade(
        options.folder,
        options.to,
        assignment=options.assignment,
        roster=options.roster,
        deadlines=options.deadlines,
        jobs=options.jobs,
        seed=options.seed,
        limits=limits,
        trust=options.trust,
    )
    name = json.loads((options.to / "grading.json").read_text(encoding="utf-8"))["assignment"]
    print(f"{name}: {len(reports)} entries in {options.folder}")
    width = max(len(report.submission.student) for report in reports)
    for report in reports:
        print(f"{report.submission.student:{width}}  {_line(report)}")
    seconds = sum(report.seconds for report in reports) / len(reports)
    print(f"{name}: {len(reports)} entries, {seconds:.1f} s each; points and feedback are in {options.to}")
    if left := [report.submission.student for report in reports if not report.graded]:
        shown = ", ".join(left[:5]) + (", ..." if len(left) > 5 else "")
        print(f"{len(left)} not graded ({shown}): {options.to / 'intake.csv'} says why")
    return 1 if left or any(report.unwritten for report in reports) else 0


def _line(report) -> str:
    """What there is to say of one submission, in a line of the terminal."""
    said = [] if report.status == "finished" else [report.message.split("\n")[0]]
    if not report.graded:
        return f"    –         {report.status}: {'; '.join([*said, *report.notes])}"
    count = len(report.pending)
    waiting = f", {count} part{'s wait' if count > 1 else ' waits'} for a person" if count else ""
    late = f", {report.late.words}: {report.total:g}" if report.late and report.late.words else ""
    remarks = "; ".join([*said, *report.notes])
    return f"{report.points:5g} points{late}{waiting}{'  ' if remarks else ''}{remarks}"


def _export(options: argparse.Namespace) -> int:
    from dynot_lite.course.exports import export

    done = export(options.folder, options.system, options.to, roster=options.roster)
    print(f"{done.written} students in {options.to}")
    if done.pending:
        print(f"{len(done.pending)} of them have parts that wait for a person: their points are those so far")
    if done.left:
        print(f"left out: {', '.join(done.left)}")
    return 0 if done.written else 1
