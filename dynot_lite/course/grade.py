"""Grading: submissions run in isolation, what they return is compared here, and the points and feedback are written."""

import contextlib
import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from dynot_lite._base import progress
from dynot_lite.companion import notebooks
from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.companion.processes import holding
from dynot_lite.course import feedback, regrade, sandbox
from dynot_lite.course.assignment import TEXT_STUB, Assignment, load, names, student_version
from dynot_lite.course.oracle.compare import Case, Check, cases, judge
from dynot_lite.course.reports import Report, Score
from dynot_lite.course.submissions import Submission, collect, program

__all__ = ["grade"]

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
    jobs: int = 2,
    seed: int | None = None,
    fresh: bool = False,
    limits: sandbox.Limits = LIMITS,
    cell_seconds: float = CELL_SECONDS,
    call_seconds: float = CALL_SECONDS,
    trust: bool = False,
) -> list[Report]:
    """Grade the submissions in ``folder``; ``to`` takes ``points.csv``, ``manual.csv``, ``grading.json`` and ``feedback/``.

    A second grading into the same folder takes the same instances, and lists what changed in ``changes.csv``.

    Args:
        assignment: the problem set; None: the one that the cells of the submissions name.
        jobs: submissions at a time.
        seed: of the random instances; None: the one recorded in ``grading.json`` if this problem set was graded into ``to``
            before, otherwise a fresh one. ``fresh``: a fresh one in any case.
        limits, cell_seconds, call_seconds: what a submission may use, in all, in one cell, and in one call of a function.
        trust: run the submissions without isolation.

    Points that a person entered in ``manual.csv`` of an earlier grading are kept.
    Raises NotebookError if the submissions cannot be isolated here and ``trust`` is False, if there are none, if ``to`` is
    inside ``folder`` or another process grades into it, or if ``manual.csv`` has points out of range.
    """
    if to.resolve().is_relative_to(folder.resolve()):
        raise NotebookError(f"{to} is inside {folder}: it would be taken for a submission")
    chosen = load(assignment or _guess(folder))
    submissions = collect(folder, f"{chosen.name.lower()}-")
    if not trust and (reason := sandbox.unavailable()):
        raise NotebookError(
            f"submissions cannot be isolated here: {reason}\nNothing was run. With --trust they are run without isolation: they "
            "can then read and change your files, use the network, and see the answers"
        )
    with holding(to):  # two gradings at once would each lose what the other wrote
        seed, known = regrade.seed_for(to, chosen.name, seed, fresh)
        marks, before = feedback.read_marks(to / "manual.csv", chosen), regrade.read(to / "points.csv")
        work = _Work(chosen, seed, cell_seconds, call_seconds, limits, trust, (folder, to, notebooks.root() / "notebooks"))
        begin, reports = time.monotonic(), {}
        pool = ThreadPoolExecutor(jobs)
        try:
            waiting = {pool.submit(work.report, one, marks): one.student for one in submissions}
            with progress.bar(len(waiting), "grading", None, unit="submission") as bar:
                for future in as_completed(waiting):
                    reports[waiting[future]] = report = future.result()
                    bar.update()
                    feedback.write_page(report, chosen, to / "feedback")
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            work.close()
        ordered = [reports[one.student] for one in submissions]
        feedback.write_tables(ordered, chosen, marks, to)
        regrade.compare(to, before, [part.id for part in chosen.parts])
        record = {"assignment": chosen.name, "seed": seed, "trust": trust, "submissions": len(ordered)}
        record["instances"] = regrade.digest(cases for _, cases in work.asked.values())
        record["same_instances"] = None if known is None else known == record["instances"]
        record |= {"seconds": round(time.monotonic() - begin, 1), "jobs": jobs, "limits": vars(limits)}
        (to / "grading.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        return ordered


def _guess(folder: Path) -> str:
    """The problem set that most cells in the folder belong to."""
    found = dict.fromkeys(names(), 0)
    for submission in collect(folder, "ps"):
        for cell in submission.cells:
            name = cell.id.split("-")[0].upper()
            if name in found:
                found[name] += 1
    best = max(found, key=found.__getitem__, default=None)
    if best is None or not found[best]:
        raise NotebookError(f"no notebook in {folder} names its problem set: choose one with --assignment ({', '.join(found)})")
    return best


class _Work:
    """What is the same for all submissions: the questions with their right values, and the request that is sent."""

    def __init__(self, assignment: Assignment, seed, cell_seconds, call_seconds, limits, trust, masked):
        self.assignment, self.limits = assignment, limits
        rng = np.random.default_rng(seed)
        self.asked: dict[tuple[str, int], tuple[Check, list[Case]]] = {
            (part.id, k): (check, cases(check, rng)) for part in assignment.parts for k, check in enumerate(part.checks)
        }
        student = student_version(assignment.notebook)
        marked = [(cell.metadata.get("nbgrader", {}), cell) for cell in student.cells]
        self.released = {marks["grade_id"]: cell.source for marks, cell in marked if marks}
        self.tests = {marks["grade_id"]: cell.source for marks, cell in marked if marks.get("grade") and not marks["solution"]}
        path = [str(Path(__file__).resolve().parents[2])]
        self.request = {
            "path": path,
            "calls": [_call(*key, k, *self.asked[key]) for key in self.asked for k in range(len(self.asked[key][1]))],
            "cell_seconds": cell_seconds,
            "call_seconds": call_seconds,
        }
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

    def report(self, submission: Submission, marks: dict) -> Report:
        """Run and judge one submission. Never raises for anything that a submission does."""
        if submission.problem:
            scores = tuple(
                self._by_hand(part, submission, marks) if part.manual else Score(part.id, 0.0) for part in self.assignment.parts
            )
            return Report(submission, "unreadable", submission.problem, scores)
        request = json.dumps(self.request | {"cells": program(submission, self.tests)}).encode()
        outcome = self._sandbox().run(self.driver, request, limits=self.limits)
        answers, cells, ended = _parse(outcome.output)
        status = "failed" if outcome.status == "finished" and not ended else outcome.status
        scores = tuple(
            self._by_hand(part, submission, marks) if part.manual else self._by_oracle(part, answers, cells, status)
            for part in self.assignment.parts
        )
        errors = tuple((name, error) for name, error in cells.items() if error and name not in self.tests)
        message = "" if status == "finished" else f"{STATUS[status]}. {outcome.message[:600]}".strip()
        return Report(submission, status, message, scores, errors, outcome.seconds)

    def _by_oracle(self, part, answers, cells, status) -> Score:
        findings = []
        for k, check in enumerate(part.checks):
            asked = self.asked[part.id, k][1]
            given = [answers.get((part.id, k, case), {"error": f"no answer: {STATUS[status]}"}) for case in range(len(asked))]
            errors = [one.get("error") for one in given]
            values = [None if error else one.get("value") for one, error in zip(given, errors, strict=True)]
            findings.append(judge(check, asked, values, errors))
        visible = cells.get(part.id, "not reached") or "passed"
        return Score(part.id, sum(finding.earned for finding in findings), tuple(findings), visible)

    def _by_hand(self, part, submission: Submission, marks) -> Score:
        points, comment = marks.get((submission.student, part.id), (None, ""))
        mine = [cell.source for cell in submission.cells if cell.id == part.id]
        if points is None and not any(_written(source, self.released[part.id]) for source in mine):
            return Score(part.id, 0.0, comment=comment or "not answered")
        return Score(part.id, points, comment=comment)


def _written(source: str, released: str) -> bool:
    """Whether a student wrote anything into an answer cell."""
    plain = [" ".join(text.split()) for text in (source, released, TEXT_STUB)]
    return plain[0] not in ("", plain[1], plain[2])


def _call(part: str, check_number: int, case: int, check: Check, asked: Sequence[Case]) -> dict[str, Any]:
    arguments = [["array", a.tolist()] if isinstance(a, np.ndarray) else ["value", a] for a in asked[case].arguments]
    place = {"part": part, "check": check_number, "case": case}
    return place | {"function": check.function, "arguments": arguments, "rows": check.rows}


def _parse(output: bytes) -> tuple[dict[tuple[str, int, int], dict], dict[str, str | None], bool]:
    """The answers, the errors of cells, and whether the end was reached; lines that are not of the agreed form are ignored."""
    answers, cells, ended = {}, {}, False
    for line in output.split(b"\n"):
        try:
            record = json.loads(line)
            if "cell" in record:
                error = record["error"]
                cells.setdefault(str(record["cell"])[:100], None if error is None else str(error)[:600])
            elif "part" in record:
                key = str(record["part"]), int(record["check"]), int(record["case"])
                error = record.get("error")
                answer = {"value": record.get("value")} if error is None else {"error": str(error)[:600]}
                answers.setdefault(key, answer)
            elif "ended" in record:
                ended = True
        except (ValueError, TypeError, KeyError, RecursionError, AttributeError):
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
