"""One comparison: answers in any form, instances away from the edge of acceptance, practice, and a second grading."""

from __future__ import annotations

import argparse
import csv
import json
import math
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from course_bank import solutions, with_function, write

from dynot_lite.companion import answers
from dynot_lite.companion.answers import TOLERANCE, ask, call, close, distance, plain
from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.course import cli, oracle, regrade, sandbox
from dynot_lite.course import grade as grading
from dynot_lite.course.assignment import load, names, student_version
from dynot_lite.course.oracle.compare import ROOM, SEPARATION, Check, cases, judge
from dynot_lite.course.practice import practice

SETS = {name: load(name) for name in names()}
CHECKS = {f"{part}: {check.name}": check for name in SETS for part, several in oracle.checks(name).items() for check in several}

# ------------------------------------------------------------------------------------------------- the comparison itself


RIGHT = np.array([[1.0, -2.0], [0.5, 3.0], [0.0, 1e-9]])
COLUMN = np.array([1.0, -2.0, 3.0])


@pytest.mark.parametrize(
    "found, expected",
    [
        (RIGHT, RIGHT),
        (RIGHT.tolist(), RIGHT),
        (tuple(map(tuple, RIGHT)), RIGHT),
        (list(RIGHT), RIGHT),
        (torch.from_numpy(RIGHT), RIGHT),
        (torch.from_numpy(RIGHT).float(), RIGHT),
        (RIGHT.astype(np.float32), torch.from_numpy(RIGHT)),
        (np.asfortranarray(RIGHT), RIGHT),
        (np.matrix(RIGHT), RIGHT),
        (scipy.sparse.csr_matrix(RIGHT), RIGHT),
        (torch.from_numpy(RIGHT).to_sparse(), RIGHT),
        (RIGHT + 0j, RIGHT),
        (RIGHT + 1e-9j, RIGHT),
        (torch.from_numpy(RIGHT).to(torch.complex64).conj(), RIGHT),
        (torch.from_numpy(RIGHT).requires_grad_(), RIGHT),
        (torch.nn.Parameter(torch.from_numpy(RIGHT)), RIGHT),
        (torch.tensor([1.0, -2.0, 3.0], dtype=torch.bfloat16), COLUMN),
        (RIGHT[None, :, :, None], RIGHT),
        (COLUMN[:, None], COLUMN),
        (COLUMN[None], COLUMN[:, None]),
        ([torch.tensor(1.0), np.float32(-2), 3], COLUMN),
        ([Fraction(1), Decimal(-2), 3.0], COLUMN),
        ([1, -2, 3], COLUMN),
        (np.array([1, -2, 3]), [1.0, -2.0, 3.0]),
        (torch.tensor([1, -2, 3]), COLUMN),
        ([True, False], [1.0, 0.0]),
        (np.array([[7.0]]), 7.0),
        ([[7]], 7.0),
        (7, torch.tensor([[[7.0]]])),
        (np.float64(7.0), 7),
        ([], []),
        (np.zeros((0, 2)), np.zeros((0, 2))),
        (([1.0], 2), (1.0, 2.0)),
        (np.array([1.0, 2.0]), (1.0, 2.0)),
        (torch.tensor([1.0, 2.0]), (1.0, 2.0)),
        ([RIGHT, [[2.0]]], (RIGHT, 2.0)),
        (1e-5, 0.0),
        (1e9 + 1e4, 1e9),
        (1e200 + 1e195, 1e200),
        ([1e6, 1.0], [1e6, 0.0]),  # a digit that nobody can see beside 1e6
    ],
)
def test_a_right_value_is_right_in_any_form(found, expected):
    assert close(found, expected)


@pytest.mark.parametrize(
    "found, expected",
    [
        (RIGHT.T, RIGHT),
        (RIGHT[:2], RIGHT),
        (RIGHT.ravel(), RIGHT),
        (-RIGHT, RIGHT),  # signs count
        (RIGHT + 2e-3, RIGHT),
        (RIGHT + 0.01j, RIGHT),
        (np.where(RIGHT == 3, np.nan, RIGHT), RIGHT),
        (np.where(RIGHT == 3, np.inf, RIGHT), RIGHT),
        (np.inf, 1e308),
        (-1e308, 1e308),
        (np.nan, 0.0),
        (np.full((3, 3), 1.0), np.ones(3)),  # what (n,) and (n, 1) broadcast to
        (1.0, np.ones(3)),  # nothing is broadcast
        (np.ones(3), 1.0),
        ([], [1.0]),
        ([], 0.0),
        ([1.0], []),
        (np.zeros((2, 0)), np.zeros((0, 3))),
        ("7", 7.0),
        (b"7", 7.0),
        (None, 0.0),
        ({"a": 7.0}, 7.0),
        (lambda: 7.0, 7.0),
        (np.array(["7"]), 7.0),
        (10**400, 1.0),
        ([[1.0], [1.0, 2.0]], [1.0, 2.0]),
        ((1.0, 2.0, 3.0), (1.0, 2.0)),
        (1.0, (1.0, 2.0)),
        ((1.0, np.nan), (1.0, 2.0)),
        ((np.inf, 2.0), (1.0, 2.0)),
        ([2.0, 1.0], (1.0, 2.0)),
        (2e-4, 0.0),
        (1e9 + 2e5, 1e9),
        ([1e6, 1.0, 200.0], [1e6, 1.0, 0.0]),
    ],
)
def test_a_wrong_value_is_wrong_in_any_form(found, expected):
    assert not close(found, expected)


def test_the_verdict_does_not_depend_on_the_unit():
    rng = np.random.default_rng(0)
    for shape in ((), (3,), (4, 2)):
        right = rng.standard_normal(shape)
        wrong = right + 0.3 * rng.standard_normal(shape)
        for unit in (1e-150, 1e-12, 1e-3, 1e7, 1e150):
            assert distance(unit * wrong, unit * right, unit) == pytest.approx(distance(wrong, right), rel=1e-12)
            assert close(unit * right * (1 + 0.9e-4), unit * right, unit) and not close(unit * wrong, unit * right, unit)
            assert close(0.9e-4 * unit, 0.0, unit) and not close(1.1e-4 * unit, 0.0, unit)
    big = 5 + rng.standard_normal(6) ** 2  # above the scale it is relative, whatever the scale
    assert distance(big + 1, big) == pytest.approx(distance(1e8 * (big + 1), 1e8 * big))


def test_what_a_test_expects_must_make_sense():
    for expected in (np.nan, [1.0, np.inf], (1.0, np.nan)):
        with pytest.raises(ValueError, match="right value is not finite"):
            close(1.0, expected)
    for scale in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="scale must be positive"):
            close(1.0, 1.0, scale)


def test_a_function_is_asked_in_every_way_and_cannot_change_what_it_is_given():
    x, A = torch.arange(6.0).reshape(3, 2), torch.tensor([[1.0, 2.0], [0.0, 1.0]])
    right = x @ A.T
    one_point = lambda x, A: A.dot(x)  # arrays only, and one point only

    def careless(x, A):
        x -= x.clone() - x @ A.T
        A *= 0
        return x

    def spoils(x, A):
        x *= 2
        if not isinstance(x, np.ndarray) or x.ndim > 1:
            raise ValueError("one point, please")
        return A @ (x / 2)

    for function in (lambda x, A: x @ A.T, one_point, careless, spoils, lambda x, A: (x @ A.T)[None, :, :, None]):
        found = ask(function, x, A, rows=0)
        assert isinstance(found, torch.Tensor) and found.dtype == torch.float64 and close(found, right)
    assert A[0, 0] == 1 and x[1, 0] == 2
    pair = ask(lambda x: [x.sum(), x.float()], x, parts=2)
    assert close(pair[0], 15.0) and pair[1].shape == (3, 2)
    with pytest.raises(ValueError, match="should return 2 values"):
        ask(lambda x: x, x, parts=2)
    with pytest.raises(NotImplementedError):
        ask(lambda x: (_ for _ in ()).throw(NotImplementedError()), x)
    with pytest.raises(ValueError, match=r"3 points gave a result of shape \(2,\)"):
        call(lambda x: x.sum(0) if x.ndim == 2 else 1 / 0, [x], 0)
    with pytest.raises(ZeroDivisionError):
        call(lambda x: 1 / 0, [x], 0)


@pytest.mark.parametrize(
    "value, told", [(None, "is a return missing"), ("1", "got a str"), ({1}, "got a set"), (1j, "imaginary parts up to 1"),
                    (np.array(["a"]), "array of type <U1"), (print, "not 'builtin")]
)  # fmt: skip
def test_what_is_no_number_is_told_in_words(value, told):
    with pytest.raises((TypeError, ValueError), match=told):
        ask(lambda: value)


# ------------------------------------------------------------------- right forms, in the notebooks and in the grading


def single(function, rows):
    """Written for one point, with arrays: fails for what is not a vector."""

    def changed(*arguments):
        if rows is None:
            return function(*arguments)
        if not isinstance(arguments[rows], np.ndarray) or arguments[rows].ndim != 1:
            raise ValueError("one point, please")
        tensors = [torch.as_tensor(one) if isinstance(one, np.ndarray) else one for one in arguments]
        return function(*tensors[:rows], tensors[rows][None], *tensors[rows + 1 :])[0]

    return changed


def each(change):
    """A form of the values: ``change`` applied to each part."""

    def form(function, rows):
        def changed(*arguments):
            value = function(*arguments)
            return tuple(map(change, value)) if isinstance(value, tuple) else change(value)

        return changed

    return form


def single_precision(function, rows):
    def changed(*arguments):
        torch.set_default_dtype(torch.float32)
        try:
            value = function(*(one.float() if isinstance(one, torch.Tensor) else one for one in arguments))
        finally:
            torch.set_default_dtype(torch.float64)
        return value

    return changed


def careless(function, rows):
    """Writes into its arguments."""

    def changed(*arguments):
        value = function(*arguments)
        kept = (
            plain(value)
            if isinstance(value, torch.Tensor)
            else [plain(part) for part in value]
            if isinstance(value, tuple)
            else value
        )
        for one in arguments:
            if isinstance(one, torch.Tensor):
                one.zero_()
        return kept

    return changed


tensor = lambda value: torch.as_tensor(np.asarray(plain(value), dtype=float))
FORMS = {
    "as solved": lambda function, rows: function,
    "arrays": each(lambda value: tensor(value).numpy()),
    "lists": each(lambda value: tensor(value).tolist()),
    "single precision": single_precision,
    "one point at a time": single,
    "axes of length one": each(lambda value: tensor(value)[None, ..., None]),
    "with a gradient": each(lambda value: tensor(value).requires_grad_() * 1.0),
    "complex": each(lambda value: tensor(value).numpy() * (1 + 1e-12j)),
    "four decimals": each(lambda value: np.round(tensor(value).numpy(), 4)),
    "a list of parts": lambda function, rows: lambda *a: list(v) if isinstance(v := function(*a), tuple) else v,
    "not contiguous": each(lambda value: np.repeat(tensor(value).numpy()[..., None], 2, -1)[..., 0]),
    "writes into its arguments": careless,
}
WRONG = {
    "one percent off": each(lambda value: 1.01 * tensor(value) + 0.01),
    "the sign": each(lambda value: -tensor(value)),
    "not a number": each(lambda value: tensor(value) * math.nan),
    "repeated": each(lambda value: torch.stack([tensor(value)] * 2)),
    "nothing": lambda function, rows: lambda *a: None,
}


@pytest.fixture(scope="module", params=SETS)
def run_once(request):
    """The solved functions of a problem set, its visible tests, and instances for each of its checks; and torch's mode then."""
    problems, space = SETS[request.param], {}
    kind = lambda cell: cell.metadata.get("nbgrader", {})
    for cell in problems.notebook.cells[
        : next(k for k, cell in enumerate(problems.notebook.cells) if kind(cell).get("solution"))
    ]:
        if cell.cell_type == "code":
            exec(cell.source, space)
    for source in solutions(problems).values():
        exec(source, space)
    released = student_version(problems.notebook).cells
    tests = {kind(cell)["grade_id"]: cell.source for cell in released if kind(cell).get("grade") and not kind(cell)["solution"]}
    small = {
        part: [replace(one, dimensions=one.dimensions[:2]) for one in checks]
        for part, checks in oracle.checks(problems.name).items()
    }
    asked = {part: [(one, cases(one, np.random.default_rng(5))) for one in checks] for part, checks in small.items()}
    return (space, tests, asked), torch.get_default_dtype()


@pytest.fixture
def solved(run_once):
    """The same in the mode that the notebook has set, which does not outlast a test."""
    found, dtype = run_once
    torch.set_default_dtype(dtype)
    return found


def in_form(form, space, asked):
    rows = {check.function: check.rows for checks in asked.values() for check, _ in checks}
    return space | {name: form(space[name], place) for name, place in rows.items()}


def verdict(check, instances, function):
    """What grading does, the lines that the process writes included."""
    values, errors = [], []
    for case in instances:
        try:
            values.append(json.loads(json.dumps(call(function, case.arguments, check.rows))))
            errors.append(None)
        except Exception as error:
            values.append(None)
            errors.append(str(error))
    return judge(check, instances, values, errors)


@pytest.mark.parametrize("form", FORMS)
def test_a_right_answer_passes_the_visible_tests_and_has_full_points_in_any_form(solved, form):
    space, tests, asked = solved
    changed = in_form(FORMS[form], space, asked)
    for part, source in tests.items():
        try:
            exec(source, dict(changed))
        except Exception as error:
            raise AssertionError(f"{part} in the form {form!r}: {type(error).__name__} {error}") from error
    for check, instances in (one for checks in asked.values() for one in checks):
        finding = verdict(check, instances, changed[check.function])
        assert finding.earned == check.points, (check.function, finding)


@pytest.mark.parametrize("error", WRONG)
def test_a_wrong_answer_passes_neither(solved, error):
    space, tests, asked = solved
    changed = in_form(WRONG[error], space, asked)
    for source in tests.values():
        with pytest.raises((AssertionError, TypeError, ValueError, RuntimeError, IndexError)):
            exec(source, dict(changed))
    for check, instances in (one for checks in asked.values() for one in checks):
        right_too = error == "the sign" and not any(part.any() for case in instances for part in case.expected)
        assert right_too or verdict(check, instances, changed[check.function]).earned == 0, check.function


def test_the_answers_module_knows_no_right_answer_and_the_released_notebooks_import_it():
    assert "oracle" not in Path(answers.__file__).read_text(encoding="utf-8")
    for problems in SETS.values():
        text = "\n".join(cell.source for cell in student_version(problems.notebook).cells)
        assert "from dynot_lite.companion.answers import ask, close" in text and "dynot_lite.course" not in text


# ------------------------------------------------------------------------------------ away from the edge of acceptance


@pytest.mark.parametrize("name", CHECKS)
def test_no_declared_answer_is_near_the_edge_of_acceptance(name):
    check = CHECKS[name]
    for case in cases(check, np.random.default_rng(11)):
        expected = tuple(case.expected) if len(case.expected) > 1 else case.expected[0]
        assert all(not part.any() or np.abs(part).max() > SEPARATION * check.tolerance for part in case.expected)
        for told, function in check.approximations.items():
            assert distance(function(*case.arguments), expected) <= (ROOM + 1e-6) * check.tolerance, told


def hundred(m0, S0, m1, S1, C, sigma):
    """The answer of part 8 by the trapezoid rule with 100 intervals."""
    t = np.linspace(0, 1, 101)[:, None, None]
    eye = np.eye(len(m0))
    noise = sigma**2 * t * (1 - t) * eye
    cov = (1 - t) ** 2 * S0 + t**2 * S1 + t * (1 - t) * (C + C.T + noise)
    mixed = t * S1 - (1 - t) * S0 + (1 - t) * C.T - t * C + (1 - 2 * t) * noise
    own = S0 + S1 - C - C.T + sigma**2 * (1 - 2 * t) ** 2 * eye
    values = np.trace(own - mixed @ np.linalg.solve(cov, np.swapaxes(mixed, 1, 2)), axis1=1, axis2=2)
    return np.trapezoid(values, dx=0.01) if hasattr(np, "trapezoid") else np.trapz(values, dx=0.01)


def verdicts(check: Check, function, seeds) -> set[bool]:
    found = set()
    for seed in seeds:
        asked = cases(check, np.random.default_rng(seed))
        found.add(judge(check, asked, [plain(function(*case.arguments)) for case in asked], [None] * len(asked)).earned > 0)
    return found


def test_a_trapezoid_rule_has_the_same_points_with_every_seed():
    for check in oracle.checks("PS1")["ps1-8"]:
        assert verdicts(check, hundred, range(4)) == {True}
    before = replace(check, approximations={})  # what the rule is for
    assert verdicts(before, hundred, range(9)) == {True, False}


def test_an_answer_that_cannot_be_kept_away_from_the_edge_is_told():
    draw = lambda rng, d: (rng.uniform(0.5, 1.0, (3, d)),)
    check = Check("x", 1, "f", draw, lambda x: x)
    for changed in (
        {"approximations": {"nearly": lambda x: x + 0.9e-4}},
        {"approximations": {"not finite": lambda x: x * np.nan}},
        {"approximations": {"of another shape": lambda x: x[:2]}},
        {"traps": {"wrong": lambda x: x + 1e-3}},
        {"answer": lambda x: 1e-3 + 0 * x},
        {"answer": lambda x: x * np.inf},
    ):
        with pytest.raises(RuntimeError, match="tells right from wrong"):
            cases(replace(check, **changed), np.random.default_rng(0))
    assert cases(replace(check, answer=lambda x: 0 * x), np.random.default_rng(0))  # 0 may be the right answer
    assert check.tolerance == TOLERANCE


# ------------------------------------------------------------------------------------------------------------- practice


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    problems, place = SETS["PS1"], tmp_path_factory.mktemp("practice")
    code = solutions(problems)
    legs = """
def stopover_energy(m0, S0, m, S, m1, S1, s):
    return w2_squared(Gaussian(m0, S0), Gaussian(m, S)) + w2_squared(Gaussian(m, S), Gaussian(m1, S1))"""
    answers = {"ps1-4-code": code["ps1-4-code"], "ps1-6-code": with_function(code["ps1-6-code"], legs)}
    path = write(place / "mine.ipynb", problems, answers, last="1 / 0")
    return path, practice("PS1", path, parts=[1, 4, 6], seed=7)


def test_practice_names_the_error_and_gives_no_points_and_no_answers(tried):
    _, found = tried
    lines = found.lines()
    assert [(trial.part, trial.right) for trial in found.trials] == [
        ("ps1-1", False), ("ps1-1", False), ("ps1-4", True), ("ps1-4", True), ("ps1-6", False), ("ps1-6", True),
    ]  # fmt: skip
    text = "\n".join(lines)
    assert "Part 6. A stopover" in lines and "  gradient_part, the gradient part: right" in lines
    assert "these are the values one gets when the two squared distances are added without their clocks" in text
    assert (
        "heat_velocity, any noise: not solved" in text
        and "ZeroDivisionError" in text
        and "unsolved" not in text
        and "--seed 7" in text
    )
    assert "point" not in text.replace("points", "point").replace("stopover", "")
    shown = "\n".join(found.lines(show=True))
    assert "stopover_energy(\n" in shown and "torch.tensor(" in shown
    wrong = next(trial.wrong for trial in found.trials if trial.wrong)
    call_, gave = wrong.split("# gave ")
    space = {"torch": torch, "stopover_energy": lambda *a: a}
    exec(f"arguments = {call_}", space)
    check = oracle.checks("PS1")["ps1-6"][0]
    right = check.answer(*(one.numpy() if isinstance(one, torch.Tensor) else one for one in space["arguments"]))
    assert not close(float(gave), right) and f"{float(right):.6g}"[:6] not in shown


def test_practice_repeats_with_its_seed_whatever_parts_are_tried(tried):
    path, found = tried
    again = practice("PS1", path, parts=[6], seed=7)
    assert again.trials == found.trials[-2:]
    fresh = practice("PS1", path, parts=[4])
    assert fresh.right and fresh.seed != 7


def test_practice_tells_what_is_wrong_with_the_call(tmp_path, capsys):
    (tmp_path / "text.ipynb").write_text("[1, 2", encoding="utf-8")
    write(tmp_path / "ends.ipynb", SETS["PS1"], {}, first="import os; os._exit(0)")
    for name, file, parts, told in (
        ("PS9", "ends", None, "no checks for a problem set 'PS9'"),
        ("../PS1", "ends", None, "no checks"),
        ("PS1", "absent", None, "no file"),
        ("PS1", "text", None, "is not a notebook"),
        ("PS1", "ends", [2], "the parts of PS1 with functions are 1, 3"),
    ):
        with pytest.raises(NotebookError, match=told):
            practice(name, tmp_path / f"{file}.ipynb", parts=parts)
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers())
    options = parser.parse_args(["course", "practice", "PS1", str(tmp_path / "ends.ipynb"), "--part", "6"])
    assert options.run(options) == 1
    assert "ended early" in (said := capsys.readouterr().out) and "0 of 2 checks right" in said


# ------------------------------------------------------------------------------------------------------ a second grading


@pytest.fixture
def graded(tmp_path, monkeypatch):
    """A folder with two submissions, and a function that grades it: a proof and the part with a stopover only."""
    problems = SETS["PS1"]
    few = replace(problems, parts=tuple(part for part in problems.parts if part.id in ("ps1-2", "ps1-6")))
    monkeypatch.setattr(grading, "load", lambda name: few)
    write(tmp_path / "in" / "ann.ipynb", problems, {"ps1-6-code": solutions(problems)["ps1-6-code"], "ps1-2": "Proof."})
    guess = with_function(
        solutions(problems)["ps1-6-code"], "def best_stopover(*a):\n    import random\n    return 99 + random.random(), 0.0"
    )
    write(tmp_path / "in" / "bob.ipynb", problems, {"ps1-6-code": guess})

    def again(**options):
        grading.grade(tmp_path / "in", tmp_path / "out", jobs=1, trust=bool(sandbox.unavailable()), assignment="PS1", **options)
        with open(tmp_path / "out" / "points.csv", encoding="utf-8", newline="") as stream:
            rows = [{**row, "seconds": ""} for row in csv.DictReader(stream)]
        pages = {path.name: path.read_bytes() for path in (tmp_path / "out" / "feedback").iterdir()}
        return rows, pages, json.loads((tmp_path / "out" / "grading.json").read_text(encoding="utf-8"))

    return tmp_path, again


def test_a_second_grading_is_identical_and_what_changes_is_listed(graded):
    folder, again = graded
    rows, pages, record = again()
    assert regrade.told(folder / "out") == [] and record["same_instances"] is None
    assert again()[:2] == (rows, pages)
    assert regrade.told(folder / "out") == ["no points have changed since the last grading"]
    code = solutions(SETS["PS1"])["ps1-6-code"]
    write(folder / "in" / "bob.ipynb", SETS["PS1"], {"ps1-6-code": code})
    write(folder / "in" / "carl.ipynb", SETS["PS1"], {"ps1-6-code": code})
    (folder / "in" / "ann.ipynb").unlink()
    new = again()[2]
    assert (new["seed"], new["instances"], new["same_instances"]) == (record["seed"], record["instances"], True)
    with open(folder / "out" / "changes.csv", encoding="utf-8", newline="") as stream:
        assert list(csv.reader(stream)) == [
            ["student", "part", "before", "after"],
            ["ann", "points", "4", ""],
            ["bob", "ps1-6", "2", "4"],
            ["bob", "points", "2", "4"],
            ["carl", "points", "", "4"],
        ]
    assert "  bob: ps1-6 2 → 4, points 2 → 4" in regrade.told(folder / "out")
    fresh = again(fresh=True)[2]
    assert fresh["seed"] != record["seed"] and fresh["instances"] != record["instances"] and fresh["same_instances"] is None


def test_a_released_test_does_not_overwrite_a_helper_of_the_same_name(graded):
    folder, again = graded
    code = "zero = w2_squared\n" + solutions(SETS["PS1"])["ps1-6-code"].replace("= w2_squared(", "= zero(")
    assert "= zero(" in code  # and the tests of this part call a vector zero
    write(folder / "in" / "bob.ipynb", SETS["PS1"], {"ps1-6-code": code})
    assert [row["points"] for row in again()[0]] == ["4", "4"]
    assert practice("PS1", folder / "in" / "bob.ipynb", parts=[6]).right


def test_a_table_that_the_last_grading_had_and_this_one_lacks_is_said(tmp_path):
    assert regrade.without(tmp_path, []) == []
    for content, told in (("{", []), ('{"seed": 3}', []), ('{"tables": ["roster", "deadlines"]}', ["roster"])):
        (tmp_path / "grading.json").write_text(content, encoding="utf-8")
        assert regrade.without(tmp_path, ["deadlines"]) == told
    (tmp_path / "grading.json").write_text('{"same_instances": true, "without": ["roster"]}', encoding="utf-8")
    (tmp_path / "changes.csv").write_text("student,part,before,after\n", encoding="utf-8")
    assert "without --roster, which the last grading had: give the same options again" in regrade.told(tmp_path)


def test_the_seed_is_kept_for_the_same_problem_set_only(tmp_path):
    path = tmp_path / "grading.json"
    assert regrade.seed_for(tmp_path, "PS1", 5, False) == (5, None)
    assert regrade.seed_for(tmp_path, "PS1", None, False) != regrade.seed_for(tmp_path, "PS1", None, False)
    path.write_text('{"assignment": "PS1", "seed": 12, "instances": "ab"}', encoding="utf-8")
    assert regrade.seed_for(tmp_path, "PS1", None, False) == (12, "ab")
    assert regrade.seed_for(tmp_path, "PS1", 12, False) == (12, "ab") and regrade.seed_for(tmp_path, "PS1", 3, False) == (3, None)
    assert regrade.seed_for(tmp_path, "PS1", None, True)[0] != 12 and regrade.seed_for(tmp_path, "PS2", None, False)[0] != 12
    with pytest.raises(NotebookError, match="choose one of --seed and --fresh"):
        regrade.seed_for(tmp_path, "PS1", 3, True)
    for text in ("{", "[]", "{}", '{"seed": "12"}', '{"seed": -1}', '{"seed": true}', "null"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(NotebookError, match="has no seed: give one with --seed, or draw new instances with --fresh"):
            regrade.seed_for(tmp_path, "PS1", None, False)
        assert regrade.seed_for(tmp_path, "PS1", 4, False) == (4, None) and regrade.seed_for(tmp_path, "PS1", None, True)


def test_an_oracle_that_changed_is_noticed(tmp_path):
    check = oracle.checks("PS1")["ps1-6"][0]
    one = [cases(check, np.random.default_rng(0))]
    assert regrade.digest(one) == regrade.digest([cases(check, np.random.default_rng(0))])
    other = replace(check, answer=lambda *a: 1.001 * check.answer(*a))
    assert regrade.digest(one) != regrade.digest([cases(other, np.random.default_rng(0))])
    (tmp_path / "changes.csv").write_text("student,part,before,after\n", encoding="utf-8")
    (tmp_path / "grading.json").write_text('{"same_instances": false}', encoding="utf-8")
    assert "an oracle or a library has changed" in regrade.told(tmp_path)[0]


def test_tables_that_cannot_be_compared_are_not():
    row = {"student": "ann", "ps1-1": "3", "points": "3", "status": "graded"}
    assert regrade.changes({}, {"ann": row}, ["ps1-1"]) == []
    assert regrade.changes({"ann": {"student": "ann", "ps2-1": "3"}}, {"ann": row}, ["ps1-1"]) == []
    assert regrade.changes({"ann": row}, {"ann": row | {"ps1-1": "", "status": "time"}}, ["ps1-1"]) == [
        ("ann", "status", "graded", "time"), ("ann", "ps1-1", "3", ""),
    ]  # fmt: skip
    assert regrade.changes({"ann": row | {"points": "7,5"}}, {"ann": row | {"points": "7.5"}}, ["ps1-1"]) == []
    late = [row | {"total": total} for total in ("3", "2")]
    assert regrade.changes({"ann": late[0]}, {"ann": late[1]}, ["ps1-1"]) == [("ann", "total", "3", "2")]
