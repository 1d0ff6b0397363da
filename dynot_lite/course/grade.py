"""Grading: submissions run in isolation, what they return is compared here, and the points and feedback are written."""

import contextlib
import json
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dynot_lite._base import progress
from dynot_lite.companion import notebooks
from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.companion.processes import holding
from dynot_lite.course import answers, feedback, regrade, sandbox, tables
from dynot_lite.course import marks as by_hand
from dynot_lite.course.assignment import Assignment, Part, load, student_version
from dynot_lite.course.intake import Entry, guess, ledger
from dynot_lite.course.oracle.compare import Case, Check, cases, judge
from dynot_lite.course.recovery import release_of
from dynot_lite.course.reports import Report, Score
from dynot_lite.course.roster import matches
from dynot_lite.course.submissions import Submission, program
from dynot_lite.course.texts import printable, words, write_whole

__all__ = ["answered", "calls", "grade", "parse"]

DRIVER = Path(__file__).with_name("_driver.py")
LIMITS, CELL_SECONDS, CALL_SECONDS = sandbox.Limits(), 30.0, 10.0
PRELOAD = ("scipy.linalg", "torch", "dynot_lite.laws.mixtures", "dynot_lite.companion", "dynot_lite.plots")
STATUS = {
    "finished": "graded",
    "failed": "its process ended before the end",
    "time": "stopped: it took too long",
    "memory": "stopped: it used too much memory",
    "output": "stopped: it returned too much",
    "refused": "not run: the sandbox refused to start",
}


def grade(
    folder: Path,
    to: Path,
    *,
    assignment: str | None = None,
    roster: Path | None = None,
    deadlines: Path | None = None,
    jobs: int = 2,
    seed: int | None = None,
    fresh: bool = False,
    limits: sandbox.Limits = LIMITS,
    cell_seconds: float = CELL_SECONDS,
    call_seconds: float = CALL_SECONDS,
    trust: bool = False,
) -> list[Report]:
    """Grade the submissions in ``folder``; ``to`` takes the tables, ``grading.json`` and the pages of feedback.

    A second grading into the same folder takes the same instances, and lists what changed in ``changes.csv``.

    Args:
        assignment: the problem set; None: the one that most submissions name.
        roster: a table of the people of the course; who has no submission is reported as missing.
        deadlines: the table of due dates; None: nothing is late.
        jobs: submissions at a time.
        seed: of the random instances; None: the one recorded in ``grading.json`` if this problem set was graded into ``to``
            before, otherwise a fresh one. ``fresh``: a fresh one in any case.
        limits, cell_seconds, call_seconds: what a submission may use, in all, in one cell, and in one call of a function.
        trust: run the submissions without isolation.

    Points that a person gave, on the page of ``course mark`` or in ``manual.csv``, are kept. Gives a report of every entry of the
    folder but what systems leave there, and of who is missing. Whatever is wrong with one, to read, to run, to judge or to write
    it, is said in its own report, and the others are graded.
    Raises NotebookError if the submissions cannot be isolated here and ``trust`` is False, if there are none, if ``to`` is
    inside ``folder`` or another process grades into it, or if a table cannot be read or has points out of range.
    """
    if to.resolve().is_relative_to(folder.resolve()):
        raise NotebookError(f"{to} is inside {folder}: it would be taken for a submission")
    chosen = load(assignment or guess(folder))
    entries = ledger(folder, chosen, roster, deadlines)
    if not trust and (reason := sandbox.unavailable()):
        raise NotebookError(
            f"submissions cannot be isolated here: {reason}\nNothing was run. With --trust they are run without isolation: they "
            "can then read and change your files, use the network, and see the answers"
        )
    with holding(to):  # two gradings at once would each lose what the other wrote
        seed, known = regrade.seed_for(to, chosen.name, seed, fresh)
        marks, before = by_hand.read(to, chosen), regrade.read(to / "points.csv")
        _renamed(marks, entries)
        work = _Work(chosen, seed, cell_seconds, call_seconds, limits, trust, (folder, to, notebooks.root() / "notebooks"))
        begin, reports = time.monotonic(), {}
        pool = ThreadPoolExecutor(jobs)
        try:
            waiting = {
                pool.submit(work.report, one, marks): k for k, one in enumerate(entries) if one.submission.status != "ignored"
            }
            with progress.bar(len(waiting), "grading", None, unit="submission") as bar:
                for future in as_completed(waiting):
                    reports[waiting[future]] = _with_page(future.result(), chosen, to / "feedback")
                    bar.update()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            work.close()
        ordered = [reports[k] for k in sorted(reports)]
        students = [report for report in ordered if report.status != "not used"]
        record = {"assignment": chosen.name, "seed": seed, "trust": trust, "submissions": len(ordered)}
        options = [word for word, path in (("roster", roster), ("deadlines", deadlines)) if path]
        record |= {"tables": options, "without": regrade.without(to, options)}
        record |= {"graded": sum(report.graded for report in ordered)}
        record["instances"] = regrade.digest(cases for _, cases in work.asked.values())
        record["same_instances"] = None if known is None else known == record["instances"]
        record |= {"seconds": round(time.monotonic() - begin, 1), "jobs": jobs, "limits": vars(limits)}
        # First: if a table cannot be written, the next grading must take the same instances.
        write_whole(to / "grading.json", json.dumps(record, indent=2) + "\n")
        failed = tables.write_points(students, chosen, to)
        tables.write_intake([one.submission for one in entries], ordered, to)
        handed_in = {report.submission.student: report.answers for report in students if report.graded}
        answers.write(to, chosen.name, handed_in)
        marks.write(handed_in)
        regrade.compare(to, before, [part.id for part in chosen.parts])
        return [_unwritten(one, "its row of points.csv") if one.submission.student in failed else one for one in ordered]


def _renamed(marks: by_hand.Marks, entries: Sequence[Entry]) -> None:
    """Marks follow a person of the roster whose work that counts has another name now."""
    counting = [one for one in entries if one.submission.status not in ("ignored", "not used")]
    absent = {student for student, _ in marks.given} - {one.submission.student for one in counting}
    now = {id(one.person): one for one in counting if one.person}
    for student, person in matches(sorted(absent), [one.person for one in now.values()]).items():
        marks.rename(student, now[id(person)].submission.student)


def _with_page(report: Report, assignment: Assignment, folder: Path) -> Report:
    """The report, whose page of feedback is written; if that fails, the points stand and a note says so."""
    if report.status in ("missing", "not used"):
        return report
    try:
        feedback.write_page(report, assignment, folder)
    except Exception as error:
        return _unwritten(report, f"its page of feedback ({words(error)})")
    return report


def _unwritten(report: Report, what: str) -> Report:
    return replace(report, notes=(*report.notes, f"{what} could not be written"), unwritten=True)


class _Work:
    """What is the same for all submissions: the questions with their right values, and the request that is sent."""

    def __init__(self, assignment: Assignment, seed, cell_seconds, call_seconds, limits, trust, masked):
        self.assignment, self.limits = assignment, limits
        rng = np.random.default_rng(seed)
        self.asked: dict[tuple[str, int], tuple[Check, list[Case]]] = {
            (part.id, k): (check, cases(check, rng)) for part in assignment.parts for k, check in enumerate(part.checks)
        }
        self.release = release_of(assignment)
        marked = [(cell.metadata.get("nbgrader", {}), cell) for cell in student_version(assignment.notebook).cells]
        self.tests = {marks["grade_id"]: cell.source for marks, cell in marked if marks.get("grade") and not marks["solution"]}
        path = [str(Path(__file__).resolve().parents[2])]
        self.request = {"path": path, "calls": calls(self.asked), "cell_seconds": cell_seconds, "call_seconds": call_seconds}
        self.driver = DRIVER.read_text(encoding="utf-8")
        files = {} if trust else _font_cache()
        self.options = {"masked": masked, "files": files, "preload": PRELOAD, "path": path, "trust": trust}
        self.sandboxes: list[sandbox.Sandbox] = []
        self.local = threading.local()  # a sandbox serves one thread

    def close(self) -> None:
        for box in self.sandboxes:
            box.close()

    def _sandbox(self) -> sandbox.Sandbox:
        if not hasattr(self.local, "sandbox"):
            self.local.sandbox = sandbox.Sandbox(**self.options)
            self.sandboxes.append(self.local.sandbox)
        return self.local.sandbox

    def _forget_sandbox(self) -> None:
        """After a fault of ours, the next submission gets a fresh one."""
        if hasattr(self.local, "sandbox"):
            self.local.sandbox.close()
            del self.local.sandbox

    def report(self, entry: Entry, marks: by_hand.Marks) -> Report:
        """Run and judge one submission. Never raises, for anything that a submission does or a fault of ours."""
        submission = entry.submission
        if submission.status:
            return self._ungraded(entry, submission.status, submission.problem, marks)
        step = "run"
        try:
            request = json.dumps(self.request | {"cells": program(submission, self.tests)}).encode()
            outcome = self._sandbox().run(self.driver, request, limits=self.limits)
            if outcome.status == "refused":
                return self._ungraded(entry, "refused", f"{STATUS['refused']}. {_lines(outcome.message)}", marks)
            step = "judged"
            return self._judged(entry, outcome, marks)
        except Exception as error:
            with contextlib.suppress(Exception):
                self._forget_sandbox()
            problem = f"it could not be {step}, which is a fault of the grading: {words(error)}"
            return self._ungraded(entry, "error", problem, marks)

    def _judged(self, entry: Entry, outcome: sandbox.Outcome, marks: by_hand.Marks) -> Report:
        submission = entry.submission
        given = answers.answers_of(submission, self.assignment.parts, self.release.sources)
        manual = {part.id: self._by_hand(part, submission, given, marks) for part in self.assignment.parts if part.manual}
        returned, cells, ended = parse(outcome.output)
        status = "failed" if outcome.status == "finished" and not ended else outcome.status
        scores = tuple(
            manual[part.id] if part.manual else self._by_oracle(part, returned, cells, status) for part in self.assignment.parts
        )
        errors = tuple((name, error) for name, error in cells.items() if error and name not in self.tests)
        message = "" if status == "finished" else f"{STATUS[status]}. {_lines(outcome.message)}".strip()
        about = {"person": entry.person, "late": entry.late, "notes": submission.notes, "answers": given}
        return Report(submission, status, message, scores, errors, outcome.seconds, **about)

    def _ungraded(self, entry: Entry, status: str, problem: str, marks: by_hand.Marks) -> Report:
        """A report without a verdict; points that a person gave all the same, perhaps for a proof on paper, count."""
        given = [(part, marks.given.get((entry.submission.student, part.id), by_hand.Mark())) for part in self.assignment.parts]
        scores = tuple(Score(part.id, mark.points, comment=mark.comment) for part, mark in given)
        return Report(entry.submission, status, problem, scores, (), 0.0, entry.person, entry.late, entry.submission.notes)

    def _by_oracle(self, part, returned, cells, status) -> Score:
        findings = []
        for k, check in enumerate(part.checks):
            asked = self.asked[part.id, k][1]
            findings.append(judge(check, asked, *answered(returned, part.id, k, len(asked), f"no answer: {STATUS[status]}")))
        visible = cells.get(part.id, "not reached") or "passed"
        return Score(part.id, sum(finding.earned for finding in findings), tuple(findings), visible)

    def _by_hand(self, part: Part, submission: Submission, given: dict[str, answers.Answer], marks: by_hand.Marks) -> Score:
        """The points that a person gave; an empty answer in ``given`` that may stand in another cell is no longer called so."""
        elsewhere = self._elsewhere(part, submission) if given[part.id].empty else ""
        if elsewhere:
            given[part.id] = replace(given[part.id], empty=False)
        score = marks.score(submission.student, part, given[part.id])
        return replace(score, comment=score.comment or elsewhere)

    def _elsewhere(self, part: Part, submission: Submission) -> str:
        """Why an answer that is not in its cell may be in another one; empty if the student wrote no such cell."""
        mine = [k for k, cell in enumerate(submission.cells) if cell.id == part.id]
        kind = "code" if part.code else "markdown"
        new = {k for k, one in enumerate(submission.cells) if one.kind == kind and not one.id and self.release.written(one)}
        if not mine:
            return "its cell is missing: the answer may be in another one" if new else ""
        # Beside an untouched figure, code is a trial; beside an untouched proof, text is the proof.
        return "its cell is empty, the next one is not" if not part.code and any(k + 1 in new for k in mine) else ""


def _lines(message: str) -> str:
    return printable(message, most=600, lines=True).strip()


def calls(asked: Mapping[tuple[str, int], tuple[Check, list[Case]]]) -> list[dict[str, Any]]:
    """What the driver is asked to call, for the checks by part and number with their instances."""
    return [
        {"part": part, "check": number, "case": k, "function": check.function, "rows": check.rows}
        | {"arguments": [["array", a.tolist()] if isinstance(a, np.ndarray) else ["value", a] for a in case.arguments]}
        for (part, number), (check, several) in asked.items()
        for k, case in enumerate(several)
    ]


def answered(returned: dict, part: str, check: int, count: int, absent: str) -> tuple[list[Any], list[str | None]]:
    """The values for the ``count`` instances of a check, and the errors in place of those that are None."""
    given = [returned.get((part, check, case), {"error": absent}) for case in range(count)]
    errors = [one.get("error") for one in given]
    return [None if error else one.get("value") for one, error in zip(given, errors, strict=True)], errors


def parse(output: bytes) -> tuple[dict[tuple[str, int, int], dict], dict[str, str | None], bool]:
    """The answers, the errors of cells, and whether the end was reached; lines that are not of the agreed form are ignored."""
    answers, cells, ended = {}, {}, False
    for line in output.split(b"\n"):
        try:
            record = json.loads(line)
            if "cell" in record:
                error = record["error"]
                cells.setdefault(printable(record["cell"]), None if error is None else _lines(str(error)))
            elif "part" in record:
                key = str(record["part"]), int(record["check"]), int(record["case"])
                error = record.get("error")
                answer = {"value": record.get("value")} if error is None else {"error": _lines(str(error))}
                answers.setdefault(key, answer)
            elif "ended" in record:
                ended = True
        except (ValueError, TypeError, KeyError, RecursionError, AttributeError, OverflowError):
            continue
    return answers, cells, ended


def _font_cache() -> dict[str, str]:
    """matplotlib's list of fonts, which every process would otherwise spend seconds to make again."""
    with contextlib.suppress(Exception):
        import matplotlib
        from matplotlib import font_manager

        path = Path(matplotlib.get_cachedir(), f"fontlist-v{font_manager.FontManager.__version__}.json")
        return {f"/tmp/matplotlib/{path.name}": path.read_text(encoding="utf-8")}
    return {}
