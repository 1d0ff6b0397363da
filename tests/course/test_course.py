"""The machinery of the course: the student's version, submissions, tables, refusals, and the command line."""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import nbformat
import numpy as np
import psutil
import pytest
import torch
from course_bank import solutions, write

from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.companion.processes import holding
from dynot_lite.course import assignment as assignments
from dynot_lite.course import cli, feedback, sandbox, tables
from dynot_lite.course import grade as grading
from dynot_lite.course import marks as by_hand
from dynot_lite.course.assignment import load, names, release, student_version
from dynot_lite.course.oracle.compare import Case, Check, cases, distance, judge
from dynot_lite.course.submissions import collect, program

SETS = [load(name) for name in names()]
PS1 = SETS[0]


# ------------------------------------------------------------------------------------------------ the student's version


def notebook_of(*cells):
    """A notebook of (type, source, nbgrader metadata)."""
    made = []
    for kind, source, marks in cells:
        cell = nbformat.v4.new_code_cell(source) if kind == "code" else nbformat.v4.new_markdown_cell(source)
        cell.metadata = nbformat.from_dict({"nbgrader": marks} if marks else {})
        made.append(cell)
    return nbformat.v4.new_notebook(cells=made)


SOLUTION = {"grade": False, "solution": True, "grade_id": "a"}
TEST = {"grade": True, "solution": False, "grade_id": "b", "points": 1}


def test_solutions_and_hidden_tests_are_removed():
    notebook = notebook_of(
        ("code", "def f(x):\n    ### BEGIN SOLUTION\n    return x\n    ### END SOLUTION\n\nf", SOLUTION),
        ("code", "assert f(1)\n### BEGIN HIDDEN TESTS\nassert f(2)\n### END HIDDEN TESTS\nassert f(3)", TEST),
        ("markdown", "The proof.", SOLUTION | {"grade": True}),
        ("code", "1 + 1", None),
    )
    notebook.cells[3].outputs = [nbformat.v4.new_output("stream", text="2")]
    student = student_version(notebook)
    assert [cell.source for cell in student.cells] == [
        "def f(x):\n    # YOUR CODE HERE\n    raise NotImplementedError()\n\nf",
        "assert f(1)\nassert f(3)",
        "YOUR ANSWER HERE",
        "1 + 1",
    ]
    assert student.cells[1].metadata.editable is False and "editable" not in student.cells[0].metadata
    assert student.cells[3].outputs == []


@pytest.mark.parametrize(
    ("source", "marks"),
    [
        ("### BEGIN SOLUTION\n1", SOLUTION),
        ("### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION", SOLUTION),
        ("### BEGIN SOLUTION\n1\n### END SOLUTION", TEST),
        ("### BEGIN SOLUTION\n1\n### END SOLUTION", None),
        ("### BEGIN HIDDEN TESTS\n1\n### END HIDDEN TESTS", SOLUTION),
    ],
)
def test_a_region_that_would_leak_is_refused(source, marks):
    with pytest.raises(NotebookError):
        student_version(notebook_of(("code", source, marks)))


@pytest.mark.parametrize("problems", SETS, ids=lambda problems: problems.name)
def test_a_released_problem_set_has_no_answers(problems, tmp_path):
    path = release(problems.name, tmp_path)
    text = path.read_text(encoding="utf-8")
    assert "SOLUTION" not in text and "HIDDEN" not in text and "claim" not in text and "Rubric" not in text
    assert len(json.loads(text)["cells"]) == len(problems.notebook.cells)
    assert release(problems.name, tmp_path) == path  # again: nothing changes
    path.write_text(text + " ", encoding="utf-8")
    with pytest.raises(NotebookError, match="exists and differs"):
        release(problems.name, tmp_path)


@pytest.mark.parametrize("problems", SETS, ids=lambda problems: problems.name)
def test_nbgrader_makes_the_same_release_and_accepts_the_source(problems, tmp_path):
    command = shutil.which("nbgrader")
    if not command or not importlib.util.find_spec("nbgrader"):
        pytest.skip("nbgrader is not installed (pip install dynot_lite[course])")
    place = tmp_path / "source" / problems.name
    place.mkdir(parents=True)
    shutil.copy(problems.path.with_suffix(".ipynb"), place)
    subprocess.run([command, "generate_assignment", problems.name, "--CourseDirectory.course_id=x"], cwd=tmp_path, check=True)
    theirs = json.loads((tmp_path / "release" / problems.name / f"{problems.path.stem}.ipynb").read_text(encoding="utf-8"))
    ours = json.loads(release(problems.name, tmp_path).read_text(encoding="utf-8"))
    for one, other in zip(theirs["cells"], ours["cells"], strict=True):
        for added in ("checksum", "cell_type"):
            one["metadata"].get("nbgrader", {}).pop(added, None)
        assert ["".join(one["source"]), one["metadata"]] == ["".join(other["source"]), other["metadata"]]


def test_a_problem_set_must_fit_its_oracle(monkeypatch):
    assert [part.id for part in PS1.parts] == [f"ps1-{k}" for k in range(1, 13)]
    with pytest.raises(NotebookError, match="there are PS1"):
        load("PS0")
    real = assignments.oracle.checks("PS1")
    for broken in (
        {key: value for key, value in real.items() if key != "ps1-1"},
        real | {"ps1-1": [replace(real["ps1-1"][0], points=4.5)]},
        real | {"ps1-99": real["ps1-1"]},
    ):
        monkeypatch.setattr(assignments.oracle, "checks", lambda name, broken=broken: broken)
        with pytest.raises(NotebookError):
            load("PS1")


# -------------------------------------------------------------------------------------------------------- comparison


SQUARE = Check(
    "squares", 3, "f", lambda rng, d: (rng.standard_normal((4, d)),), lambda x: x**2, {"cubed": lambda x: x**3}, rows=0
)


def judged(function):
    asked = cases(SQUARE, np.random.default_rng(0))
    return judge(SQUARE, asked, [function(case.arguments[0]) for case in asked], [None] * len(asked))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x**2,
        lambda x: (x**2).tolist(),
        lambda x: (x**2)[:, None, :],
        lambda x: (x**2).astype(np.float32),
        lambda x: x**2 + 1e-6,
        lambda x: torch.from_numpy(x) ** 2,
    ],
)
def test_right_values_in_another_form_are_right(function):
    assert judged(function).earned == 3


@pytest.mark.parametrize(
    ("function", "remark"),
    [
        (lambda x: x**3, "these are the values one gets when cubed"),
        (lambda x: (x**2).T, "right shape: expected an array of shape (4, "),
        (lambda x: np.full_like(x, np.nan), "not finite"),
        (lambda x: np.full_like(x, np.inf), "not finite"),
        (lambda x: x**2 + 0.02, "wrong in 8 of 8 cases"),
        (lambda x: 0.0, "right shape"),
        (lambda x: x**2 if x.shape[1] == 2 else 0 * x, "wrong in 6 of 8"),
        (lambda x: "9" * 100, "right shape"),
        (lambda x: {"a": 1}, "right shape"),
        (lambda x: [[1.0], [1.0, 2.0]], "right shape"),
        (lambda x: 10**5000, "right shape"),
    ],
)
def test_other_values_are_wrong_and_told_why(function, remark):
    finding = judged(function)
    assert finding.earned == 0 and remark in finding.remark


def test_a_pair_of_values_must_be_a_pair():
    check = replace(SQUARE, answer=lambda x: (x, x.sum()), traps={}, rows=None)
    case = Case((np.ones((4, 2)),), [np.ones((4, 2)), np.array(8.0)])
    assert judge(check, [case], [[np.ones((4, 2)).tolist(), [8.0]]], [None]).earned == 3
    for value in (np.ones((4, 2)).tolist(), [8.0, np.ones((4, 2)).tolist()], 8.0, None):
        assert judge(check, [case], [value], ["broken"] if value is None else [None]).earned == 0
    assert distance([np.ones(1)], [np.ones(1), np.ones(1)]) == np.inf


def test_instances_that_cannot_tell_right_from_wrong_are_not_used():
    with pytest.raises(RuntimeError, match="tells right from wrong"):
        cases(replace(SQUARE, traps={"nothing is wrong": lambda x: x**2 + 1e-5}), np.random.default_rng(0))


# -------------------------------------------------------------------------------------------------------- submissions


def test_submissions_are_found_under_any_name(tmp_path):
    write(tmp_path / "ann.ipynb", PS1, {})
    write(tmp_path / "bob" / "PS1" / "Untitled.ipynb", PS1, {})
    write(tmp_path / "bob" / "older.ipynb", PS1, {}, drop=["ps1-1"])
    write(tmp_path / "bob" / ".ipynb_checkpoints" / "hidden.ipynb", PS1, {})
    (tmp_path / "carla").mkdir()
    (tmp_path / "carla" / "PS1.ipynb").symlink_to(tmp_path / "ann.ipynb")
    (tmp_path / "dora").symlink_to(tmp_path / "bob")
    (tmp_path / "eve.ipynb").write_text('{"nbformat": 4, "cells": [{"cell_type": "code"}]}', encoding="utf-8")
    (tmp_path / "fred.ipynb").write_text('{"nbformat": 3, "worksheets": []}', encoding="utf-8")
    (tmp_path / "gina.ipynb").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "notes.txt").write_text("not a submission", encoding="utf-8")
    found = {one.student: one for one in collect(tmp_path, "ps1-")}
    assert list(found) == ["ann", "bob", "carla", "dora", "eve", "fred", "gina", "notes"]
    assert found["bob"].path.name == "Untitled.ipynb"
    assert [name for name, one in found.items() if one.problem] == ["carla", "dora", "eve", "fred", "gina", "notes"]
    write(tmp_path / "ann" / "again.ipynb", PS1, {}, drop=["ps1-1"])
    file, other = (one for one in collect(tmp_path, "ps1-") if one.student == "ann")
    assert (other.path.name, other.status, file.status) == ("ann.ipynb", "", "not used")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotebookError, match="no submissions"):
        collect(tmp_path / "empty", "ps1-")


def test_the_released_tests_are_run_whatever_the_student_made_of_them(tmp_path):
    path = write(tmp_path / "ann.ipynb", PS1, {"ps1-1": "pass"}, drop=["ps1-3"])
    (submission,) = collect(path.parent, "ps1-")
    cells = program(submission, {"ps1-1": "released 1", "ps1-3": "released 3"})
    assert ["ps1-1", "released 1"] in cells and cells[-1] == ["ps1-3", "released 3"] and "pass" not in [c[1] for c in cells]


# ------------------------------------------------------------------------------------------------------ marks and tables


def test_grading_without_isolation_is_refused_unless_trusted_and_marks_survive_a_second_grading(tmp_path, monkeypatch):
    code = {"ps1-6-code": solutions(PS1)["ps1-6-code"], "ps1-2": "Proof.", "ps1-5": "Another."}
    write(tmp_path / "in" / "ann.ipynb", PS1, code)
    write(tmp_path / "in" / "bob" / "any.ipynb", PS1, {}, first="import os; os._exit(3)")
    monkeypatch.setattr(sandbox, "unavailable", lambda: "there are no user namespaces")
    with pytest.raises(NotebookError, match=r"(?s)there are no user namespaces.*--trust"):
        grading.grade(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(NotebookError, match="would be taken for a submission"):
        grading.grade(tmp_path / "in", tmp_path / "in" / "out", trust=True)

    ann, bob = grading.grade(tmp_path / "in", tmp_path / "out", seed=3, trust=True)
    assert (ann.points, ann.pending, bob.points, bob.status) == (4, ["ps1-2", "ps1-5"], 0, "failed")
    table = (tmp_path / "out" / "manual.csv").read_text(encoding="utf-8-sig")
    assert "ann,ps1-2,Two proofs about this velocity,,11," in table
    changed = table.replace("ann,ps1-2,Two proofs about this velocity,,11,", "ann,ps1-2,Two proofs,6.5,11,clear <b>proof</b>")
    changed = changed.replace("bob,ps1-5,Least energy,0,14,,", "bob,ps1-5,Least energy,2,14,on paper,")
    (tmp_path / "out" / "manual.csv").write_text(changed + "gone,ps1-2,x,3,8,\n", encoding="utf-8")
    ann, bob = grading.grade(tmp_path / "in", tmp_path / "out", seed=3, trust=True)
    assert (ann.points, ann.pending, bob.points) == (10.5, ["ps1-5"], 2)
    assert "clear &lt;b&gt;proof" in (tmp_path / "out" / "feedback" / "ann.html").read_text(encoding="utf-8")
    with open(tmp_path / "out" / "manual.csv", encoding="utf-8-sig", newline="") as stream:
        kept = {(row["student"], row["part"]): row["points"] for row in csv.DictReader(stream)}
    assert kept["ann", "ps1-2"] == "6.5" and kept["ann", "ps1-5"] == "" and kept["gone", "ps1-2"] == "3"
    assert json.loads((tmp_path / "out" / "grading.json").read_text(encoding="utf-8"))["trust"] is True


def test_a_folder_takes_one_grading_at_a_time_from_the_marks_to_the_tables(tmp_path, monkeypatch):
    write(tmp_path / "in" / "ann.ipynb", PS1, {"ps1-2": "Proof."})
    holder = rf"out is in use by process {os.getpid()} on .*, since .*: wait until it ends, or write to another folder"
    with holding(tmp_path / "out"), pytest.raises(NotebookError, match=holder):
        grading.grade(tmp_path / "in", tmp_path / "out", trust=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["lock"]
    steps = []

    def held(place, name: str, do):
        def step(*arguments):
            with pytest.raises(NotebookError, match=holder), holding(tmp_path / "out"):
                pass
            steps.append(name)
            return do(*arguments)

        monkeypatch.setattr(place, name, step)

    for place, name in ((by_hand, "read"), (feedback, "write_page"), (tables, "write_points"), (by_hand.Marks, "write")):
        held(place, name, getattr(place, name))
    grading.grade(tmp_path / "in", tmp_path / "out", trust=True)
    assert steps == ["read", "write_page", "write_points", "write"]
    with holding(tmp_path / "out"):
        pass


# -------------------------------------------------------------------------------------------------- sandbox, command line


@pytest.fixture
def box():
    if reason := sandbox.unavailable():
        pytest.skip(f"submissions cannot be isolated here: {reason}")
    with sandbox.Sandbox() as made:
        yield made


def test_a_program_is_given_its_input_and_says_something(box):
    outcome = box.run("import sys; print(sys.stdin.read().upper())", b"hello")
    assert (outcome.status, outcome.output) == ("finished", b"HELLO\n")
    outcome = box.run("1 / 0", b"")
    assert outcome.status == "failed" and "ZeroDivisionError" in outcome.message
    outcome = box.run("import os; os.write(1, b'x' * 5000)", b"", limits=sandbox.Limits(answer=1000))
    assert (outcome.status, len(outcome.output)) == ("output", 1000)


def test_nothing_of_one_program_reaches_the_next(box):
    box.run("import sys, os; sys.modules['os'].left = 1; open('/tmp/left', 'w').write('x'); os.environ['LEFT'] = '1'", b"")
    outcome = box.run("import os; print(hasattr(os, 'left'), os.path.exists('/tmp/left'), 'LEFT' in os.environ)", b"")
    assert outcome.output == b"False False False\n"


def test_a_sandbox_that_lost_its_server_gets_another(box):
    assert box.run("print(1)", b"").status == "finished"
    sandbox.end(box.server.pid)
    assert box.run("print(2)", b"").output == b"2\n"


def test_what_cannot_be_enforced_is_refused(box):
    box.visible["read_only"] = [*box.visible["read_only"], "/dev/null/not_there"]
    outcome = box.run("print('ran')", b"")
    assert outcome.status == "refused" and outcome.output == b"" and outcome.message.startswith("refused: ")


def test_other_systems_are_refused(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "needs Linux" in sandbox.unavailable()


def test_the_command_line(tmp_path, capsys, monkeypatch):
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers())
    options = parser.parse_args(["course", "release", "PS1", "--to", str(tmp_path)])
    assert options.run(options) == 0 and str(tmp_path) in capsys.readouterr().out
    monkeypatch.setattr(sandbox, "unavailable", lambda: "no")
    options = parser.parse_args(["course", "grade", str(tmp_path), "--to", str(tmp_path / ".." / "out"), "--seconds", "9"])
    with pytest.raises(NotebookError, match="--trust"):
        options.run(options)
    for wrong in (["--jobs", "0"], ["--memory", "-1"], ["--seconds", "nan"], ["--jobs", "1.5"]):
        with pytest.raises(SystemExit):
            parser.parse_args(["course", "grade", "x", "--to", "y", *wrong])


def test_the_end_of_the_grader_ends_what_it_started(tmp_path):
    if reason := sandbox.unavailable():
        pytest.skip(f"submissions cannot be isolated here: {reason}")
    program = "import time; print('started', flush=True); time.sleep(600)"
    code = f"import sys\nfrom dynot_lite.course.sandbox import Sandbox\nprint(Sandbox().run({program!r}, b''))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as grader:
        process = psutil.Process(grader.pid)
        deadline = time.monotonic() + 60
        while len(family := process.children(recursive=True)) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(family) >= 3  # the server, the child that waits, the first process of the namespace
        grader.kill()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive
