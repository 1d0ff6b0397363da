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
  course practice PS1 NOTEBOOK     for students: try your functions on random instances, here, without points

The pages for instructors and for students are in notebooks/assignments/."""

GRADE = """\
Grade the submissions in DIR: files STUDENT.ipynb, or folders STUDENT with a notebook in them. OUT takes points.csv (one row per
student), intake.csv (one row per file of DIR, with the reason if it was not graded), feedback/STUDENT.html, manual.csv (points of
proofs and figures: enter them there, or with course mark, and run the command again) and grading.json (the seed of the random
instances, and the limits). Again, the same instances are taken, and changes.csv says whose points have changed. The exit code is
0 only if everything in DIR was graded and nobody of the roster is missing.

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


PRACTICE = """\
Run your notebook on this machine and call its functions on random instances, fresh ones each time: for each check, whether
all came out right, and the known mistake behind what is wrong. There are no points, and the right values are not printed.
It compares with the oracles of this package, which are public; graded work has other instances, and may have other checks."""


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
    grade.add_argument("--seed", type=at_least(0), help="of the random instances (default: that of OUT/grading.json, or fresh)")
    grade.add_argument("--fresh", action="store_true", help="draw new instances where OUT has been graded into before")
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

    practice = verbs.add_parser("practice", help="try your functions", description=PRACTICE, formatter_class=layout)
    practice.add_argument("assignment", metavar="PS1", help="the problem set")
    practice.add_argument("notebook", type=Path, metavar="NOTEBOOK", help="your notebook, as saved (.ipynb)")
    practice.add_argument("--part", type=at_least(1), action="append", help="only this part; may be given several times")
    practice.add_argument("--seed", type=at_least(0), help="of the random instances, to repeat them (default: a fresh one)")
    practice.add_argument("--show", action="store_true", help="print a call that went wrong, and what came back")
    practice.set_defaults(run=_practice)


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


def _practice(options: argparse.Namespace) -> int:
    from dynot_lite.course.practice import practice

    tried = practice(options.assignment, options.notebook, parts=options.part, seed=options.seed)
    print("\n".join(tried.lines(show=options.show)))
    return 0 if tried.right else 1


def _grade(options: argparse.Namespace) -> int:
    from dynot_lite.course.grade import grade
    from dynot_lite.course.regrade import told
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
        fresh=options.fresh,
        limits=limits,
        trust=options.trust,
    )
    name = json.loads((options.to / "grading.json").read_text(encoding="utf-8"))["assignment"]
    there = [report for report in reports if report.status != "missing"]
    entries = f"{len(there)} entr{'y' if len(there) == 1 else 'ies'}"
    print(f"{name}: {entries} in {options.folder}")
    width = max(len(report.submission.student) for report in reports)
    for report in reports:
        print(f"{report.submission.student:{width}}  {_line(report)}")
    for line in told(options.to):
        print(line)
    seconds = sum(report.seconds for report in there) / max(1, len(there))
    print(f"{name}: {entries}, {seconds:.1f} s each; points and feedback are in {options.to}")
    if waiting := sum(len(report.pending) for report in reports):
        answers = f"{waiting} answer{'s wait' if waiting > 1 else ' waits'} for a person"
        print(f"{answers}: python -m dynot_lite course mark {options.to}, or enter points in {options.to / 'manual.csv'}")
    if left := [report.submission.student for report in reports if not report.graded]:
        shown = ", ".join(left[:5]) + (", ..." if len(left) > 5 else "")
        print(f"{len(left)} not graded ({shown}): {options.to / 'intake.csv'} says why")
    return 1 if left or any(report.unwritten for report in reports) else 0


def _line(report) -> str:
    """What there is to say of one submission, in a line of the terminal."""
    said = [] if report.status == "finished" else [report.message.split("\n")[0]]
    if not report.graded:
        return f"    –         {report.status}: {'; '.join([*said, *report.notes])}"
    count, changed = len(report.pending), sum(score.changed for score in report.scores)
    waiting = f", {count} part{'s wait' if count > 1 else ' waits'} for a person" if count else ""
    waiting += f" ({changed} changed since {'they were' if changed > 1 else 'it was'} marked)" if changed and count else ""
    late = f", {report.late.words}: {report.total:g}" if report.late and report.late.words else ""
    remarks = "; ".join([*said, *report.notes])
    return f"{report.points:5g} points{late}{waiting}{'  ' if remarks else ''}{remarks}"


def _export(options: argparse.Namespace) -> int:
    from dynot_lite.course.exports import export

    done = export(options.folder, options.system, options.to, roster=options.roster)
    print(f"{done.written} students in {options.to}")
    if done.pending:
        print(f"for {len(done.pending)} of them parts wait for a person: their points are those so far")
    if done.note:
        print(done.note)
    if done.left:
        print(f"left out: {', '.join(done.left)}")
    return 0 if done.written else 1
