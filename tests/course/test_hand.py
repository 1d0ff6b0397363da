"""Grading by hand: rubrics, rendered answers, marks that belong to an answer, tables of spreadsheets, and the local page."""

from __future__ import annotations

import nbformat
import pytest

from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.course import assignment as assignments
from dynot_lite.course.assignment import load, names, solution, student_version

SETS = [load(name) for name in names()]
PS1 = SETS[0]


# ----------------------------------------------------------------------------------------------------------- the rubric


RUBRIC = """Proof.

### BEGIN RUBRIC
8: (a) the image: $\\mu_t=1:2$,
   with uniqueness
0.5: (b) symmetric

2.5: (c) rest
### END RUBRIC"""
IN_CODE = "### BEGIN SOLUTION\nf = 1\n    ### BEGIN RUBRIC\n    # 5: figure\n    # 3: text\n    ### END RUBRIC\n### END SOLUTION"


def with_source(monkeypatch, identifier, source, solved=True):
    """PS1 as it is loaded if the solution of one part has this source."""
    notebook = nbformat.from_dict(PS1.notebook)
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id") == identifier:
            cell.source = source
    monkeypatch.setattr(assignments.jupytext, "reads", lambda text, fmt: notebook)
    problems = load("PS1")
    monkeypatch.undo()
    return problems


def test_a_rubric_is_read_from_the_source_and_never_released(monkeypatch):
    for identifier, source, rubric, shown in (
        (
            "ps1-2",
            RUBRIC,
            ((8, "(a) the image: $\\mu_t=1:2$, with uniqueness"), (0.5, "(b) symmetric"), (2.5, "(c) rest")),
            "Proof.",
        ),
        ("ps1-12", IN_CODE, ((5, "figure"), (3, "text")), "f = 1"),
    ):
        problems = with_source(monkeypatch, identifier, source)
        part = next(part for part in problems.parts if part.id == identifier)
        assert part.rubric == rubric and solution(problems, part) == shown
        assert not any("RUBRIC" in cell.source or "rest" in cell.source for cell in student_version(problems.notebook).cells)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("### BEGIN RUBRIC\n5: a\n2: b\n### END RUBRIC", "does not add up to 11"),
        ("### BEGIN RUBRIC\nfirst\n8: a\n### END RUBRIC", "begins with 'first'"),
        ("### BEGIN RUBRIC\n8: a", "not closed"),
        ("### BEGIN RUBRIC\n4: a\n### BEGIN RUBRIC\n4: b\n### END RUBRIC", "inside another"),
    ],
)
def test_a_rubric_that_does_not_fit_is_refused(monkeypatch, source, told):
    with pytest.raises(NotebookError, match=told):
        with_source(monkeypatch, "ps1-2", source)


def test_a_rubric_that_nbgrader_would_hand_out_is_refused(monkeypatch):
    source = "### BEGIN SOLUTION\nf = 1\n### END SOLUTION\n### BEGIN RUBRIC\n# 8: all\n### END RUBRIC"
    with pytest.raises(NotebookError, match="rubric outside of its solution"):
        student_version(with_source(monkeypatch, "ps1-12", source).notebook)
