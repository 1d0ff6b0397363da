"""The command ``python -m dynot_lite course``."""

import argparse
from collections.abc import Callable
from pathlib import Path

__all__ = ["add_parser", "at_least"]

COURSE = """\
Problem sets as course work.

  course release PS1 --to DIR      write the students' version of a problem set
  course grade DIR --to OUT        grade a folder of submissions: points, feedback
  course practice PS1 NOTEBOOK     for students: try your functions on random instances, here, without points

The pages for instructors and for students are in notebooks/assignments/."""

GRADE = """\
Grade the submissions in DIR: files STUDENT.ipynb, or folders STUDENT with a notebook in them. OUT takes points.csv (one row per
student), feedback/STUDENT.html, manual.csv (enter the points of proofs and figures there and run the command again) and
grading.json (the seed of the random instances, and the limits). Again, the same instances are taken, and changes.csv says
whose points have changed.

Each submission runs in a process without network, files of others or the answers, within limits of time, memory and disk; the
values it returns are compared here. That needs Linux with user namespaces. Elsewhere nothing is run unless --trust is given."""


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
    grade.add_argument("--jobs", type=at_least(1), default=2, help="submissions at a time (default: 2)")
    grade.add_argument("--seed", type=at_least(0), help="of the random instances (default: that of OUT/grading.json, or fresh)")
    grade.add_argument("--fresh", action="store_true", help="draw new instances where OUT has been graded into before")
    grade.add_argument("--seconds", type=at_least(0.1, float), default=120.0, help="for one submission (default: 120)")
    grade.add_argument("--memory", type=at_least(0.1, float), default=3.0, metavar="GB", help="for one submission (default: 3)")
    grade.add_argument("--trust", action="store_true", help="run submissions without isolation, where there is none")
    grade.set_defaults(run=_grade)

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
        jobs=options.jobs,
        seed=options.seed,
        fresh=options.fresh,
        limits=limits,
        trust=options.trust,
    )
    width = max(len(report.submission.student) for report in reports)
    for report in reports:
        waiting = f", {len(report.pending)} parts wait for a person" if report.pending else ""
        trouble = "" if report.status == "finished" else f"  {report.message.splitlines()[0]}"
        print(f"{report.submission.student:{width}}  {report.points:5g} points{waiting}{trouble}")
    for line in told(options.to):
        print(line)
    seconds = sum(report.seconds for report in reports) / len(reports)
    print(f"{len(reports)} submissions, {seconds:.1f} s each; points and feedback are in {options.to}")
    return 1 if any(report.status == "refused" for report in reports) else 0
