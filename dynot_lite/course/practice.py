"""Practice: a student's own notebook on random instances, on their own machine. No points are given, no right value is shown.

It uses the public oracles of this package. The notebook runs as it would in Jupyter, without isolation: it is the student's own.
"""

import json
import re
import secrets
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from nbformat import NotebookNode

from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.course import oracle
from dynot_lite.course.grade import DRIVER, answered, calls, parse
from dynot_lite.course.oracle.compare import Case, Check, Finding, cases, judge
from dynot_lite.course.sandbox import Limits, Sandbox

__all__ = ["Practice", "Trial", "practice"]

CELL_SECONDS, CALL_SECONDS = 120.0, 30.0
SAID = ("not solved", "wrong in")


@dataclass(frozen=True)
class Trial:
    """One check: the part, the title of the part if the notebook has one, the finding, and a call that went wrong, if one did."""

    part: str
    title: str
    function: str
    finding: Finding
    wrong: str = ""

    @property
    def right(self) -> bool:
        """Whether every instance was right."""
        return self.finding.right == self.finding.asked


@dataclass(frozen=True)
class Practice:
    """What came of it: a trial per check, the cells that ended with an error, why the process ended early, and the seed."""

    trials: tuple[Trial, ...]
    cells: tuple[tuple[str, str], ...]
    problem: str
    seed: int

    @property
    def right(self) -> bool:
        """Whether every check is right."""
        return all(trial.right for trial in self.trials)

    def lines(self, *, show: bool = False) -> list[str]:
        """The outcome in words; ``show`` adds a call that went wrong, with what came back."""
        found = [f"cell {name} ended with an error: {error}" for name, error in self.cells]
        found += [self.problem] if self.problem else []
        part = None
        for trial in self.trials:
            if trial.part != part:
                part = trial.part
                found.append(f"Part {part.split('-')[-1]}. {trial.title}".removesuffix(". "))
            one = trial.finding
            verdict = "right" if trial.right else one.remark if one.remark.startswith(SAID) else f"wrong: {one.remark}"
            found.append(f"  {trial.function}, {one.check}: {verdict}")
            if show and trial.wrong:
                found += [f"    {line}" for line in trial.wrong.splitlines()]
        good = sum(trial.right for trial in self.trials)
        return [*found, f"{good} of {len(self.trials)} checks right; the same instances again: --seed {self.seed}"]


def practice(name: str, notebook: Path, *, parts: Sequence[int] | None = None, seed: int | None = None) -> Practice:
    """Run the ``notebook`` and compare its functions with the oracle of the problem set ``name`` (PS1).

    Args:
        parts: numbers of the parts to try; None: all that can be tried.
        seed: of the random instances; None: a fresh one.

    Raises NotebookError for an unknown problem set or part, and for a file that is not a notebook.
    """
    checks = oracle.checks(name) if re.fullmatch(r"PS\d+", name) else {}
    if not checks:
        raise NotebookError(f"there are no checks for a problem set {name!r}: give its name, such as PS1")
    chosen = {f"{name.lower()}-{number}" for number in parts} if parts else set(checks)
    if missing := sorted(chosen - set(checks)):
        numbers = ", ".join(part.split("-")[-1] for part in checks)
        raise NotebookError(f"{', '.join(missing)} cannot be tried: the parts of {name} with functions are {numbers}")
    cells = _cells(notebook)
    seed = secrets.randbits(31) if seed is None else seed
    asked = {
        (part, k): (check, cases(check, np.random.default_rng([seed, number, k])))  # whatever other parts are tried
        for number, part in enumerate(checks)
        for k, check in enumerate(checks[part])
        if part in chosen
    }
    answers, errors, problem = _run(cells, asked)
    titles = _titles(cells)
    trials = tuple(_trial(part, titles, *asked[part, k], k, answers, problem) for part, k in asked)
    told = tuple((cell, error) for cell, error in errors.items() if error not in (None, "unsolved"))
    return Practice(trials, told, problem, seed)


def _cells(path: Path) -> list[NotebookNode]:
    """The cells of a notebook of any format."""
    if not path.is_file():
        raise NotebookError(f"no file {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # identifiers that cells lack do not matter here
            return nbformat.read(path, as_version=4).cells
    except Exception as error:  # its kind depends on what is wrong, and on the version of nbformat
        raise NotebookError(f"{path} is not a notebook: give the .ipynb that you work in, saved") from error


def _run(cells: Sequence[NotebookNode], asked: dict[tuple[str, int], tuple[Check, list[Case]]]):
    """The answers and the errors of cells, and why the process ended before its end, if it did."""
    path = [str(Path(__file__).resolve().parents[2])]
    request = {"path": path, "calls": calls(asked), "cell_seconds": CELL_SECONDS, "call_seconds": CALL_SECONDS}
    request["cells"] = [[_name(cell, number), cell.source] for number, cell in enumerate(cells, 1) if cell.cell_type == "code"]
    with Sandbox(trust=True) as box:
        outcome = box.run(DRIVER.read_text(encoding="utf-8"), json.dumps(request).encode(), limits=Limits(seconds=1800.0))
    answers, errors, ended = parse(outcome.output)
    problem = "" if ended else f"the notebook's process ended early ({outcome.status}). {outcome.message[:600]}".strip()
    return answers, errors, problem


def _name(cell: NotebookNode, number: int) -> str:
    """The identifier of a cell of tests, the number of another one."""
    marks = cell.metadata.get("nbgrader", {})
    return marks["grade_id"] if marks.get("grade") and not marks.get("solution") and marks.get("grade_id") else str(number)


def _titles(cells: Sequence[NotebookNode]) -> dict[str, str]:
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return {match[1]: match[2].strip() for match in re.finditer(r"^#+ Part (\d+)\. (.+)$", text, re.MULTILINE)}


def _trial(part, titles, check, asked, number, answers, problem) -> Trial:
    values, errors = answered(answers, part, number, len(asked), problem or "no answer")
    finding = judge(check, asked, values, errors)
    wrong = ""
    size = lambda one: sum(np.size(argument) for argument in one[0].arguments)
    for case, value, error in sorted(zip(asked, values, errors, strict=True), key=size):  # the smallest that goes wrong
        if error != "unsolved" and judge(check, [case], [value], [error]).right == 0:
            arguments = ",\n".join(f"    {_literal(one)}" for one in case.arguments)
            wrong = f"{check.function}(\n{arguments},\n)\n# gave {error or value}"
            break
    return Trial(part, titles.get(part.split("-")[-1], ""), check.function, finding, wrong)


def _literal(value: Any) -> str:
    """An argument as Python that can be pasted into the notebook."""
    return f"torch.tensor({value.tolist()})" if isinstance(value, np.ndarray) else repr(value)
