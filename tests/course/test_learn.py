"""What helps to learn: points and minutes, what to read, hints that open one by one, rubrics, the project, PS1's oracles."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

import numpy as np
import part_headings
import pytest
from markdown_it import MarkdownIt
from part_headings import FOLDER, STUDENTS, expected, refreshed, rubric, story, table
from scipy.linalg import solve_continuous_lyapunov

from dynot_lite.course.assignment import load, names, student_version
from dynot_lite.course.oracle import closed_forms as forms
from dynot_lite.course.oracle import ps1
from dynot_lite.course.oracle.compare import as_arrays
from dynot_lite.laws.gaussian import fm_flow

SETS = {name: load(name) for name in names()}
PARTS = [(name, part.id.split("-")[1]) for name, problems in SETS.items() for part in problems.parts]
NOTEBOOKS = sorted(path.stem for path in FOLDER.parent.glob("*.py"))
HINTS = 3


def cell_of(name, identifier):
    """The cell of the solved notebook with this identifier."""
    (cell,) = (c for c in SETS[name].notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == identifier)
    return cell


def task(name, number):
    """The text of a part in the student's version, from its heading on."""
    cells = student_version(SETS[name].notebook).cells
    (cell,) = (cell for cell in cells if cell.source.startswith(f"## Part {number}. "))
    return cell.source


# --------------------------------------------------------------------------------------------- points, minutes, what to read


@pytest.mark.parametrize(("name", "number"), PARTS)
def test_a_part_states_its_points_minutes_difficulty_and_what_to_read_as_the_data_have_them(name, number):
    heading, points, read, *_ = task(name, number).split("\n\n")
    assert f"{points}\n\n{read}" == expected(name)[number], "python tests/course/part_headings.py"
    assert heading.count("\n") == 0 and not re.search(r"\d+ points", task(name, number).replace(points, ""))


@pytest.mark.parametrize("name", SETS)
def test_points_add_up_to_100_and_are_in_proportion_to_work(name):
    parts, entries = SETS[name].parts, table()[name]
    assert [part.id.split("-")[1] for part in parts] == list(entries) and SETS[name].points == 100
    total = sum(entry.minutes for entry in entries.values())
    for part, entry in zip(parts, entries.values(), strict=True):
        assert abs(part.points - 100 * entry.minutes / total) <= 1, part.id
        assert entry.difficulty in (1, 2, 3) and 20 <= entry.minutes <= 180
    assert sum(part.points for part in parts if part.checks) <= 60  # what a person reads is work, too


def test_the_students_page_has_the_table():
    text = STUDENTS.read_text(encoding="utf-8")
    assert refreshed(text) == text, "python tests/course/part_headings.py"


def problems_named(stem):
    """The parts that the section “Problems” of a notebook names: (PS1, "3"), ..."""
    text = (FOLDER.parent / f"{stem}.py").read_text(encoding="utf-8")
    section = re.search(r"^# ## Problems\n([\s\S]*?)(?=^# ## |^# %%|\Z)", text, re.MULTILINE)
    plain = re.sub(r"\([^()]*\)", "", re.sub(r"\]\(\S+\)", "]", re.sub(r"\n# ?", " ", section[1]))) if section else ""
    found = re.split(r"\[(PS\d)\]", plain)
    return {(name, part) for name, rest in zip(found[1::2], found[2::2], strict=True) for part in re.findall(r"\d+", rest)}


@pytest.mark.parametrize("stem", NOTEBOOKS)
def test_notebooks_and_problem_sets_name_each_other(stem):
    users = {
        (name, n) for name, entries in table().items() for n, e in entries.items() if stem.split("_")[0] in (e.read, *e.also)
    }
    assert problems_named(stem) == users


@pytest.mark.parametrize(("name", "number"), PARTS)
def test_what_to_read_first_is_there(name, number):
    entry = table()[name][number]
    assert (FOLDER.parent / f"{story(entry.read)}.py").exists() and all(
        part_headings.section(entry.read, k) for k in entry.sections
    )


# ------------------------------------------------------------------------------------------------------- hints and rubrics


class Details(HTMLParser):
    """The ``details`` of a page, in order: depth, the words of the summary, and the words directly inside."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.part = [], [], 2
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "details":
            self.found.append([len(self.open) + 1, "", ""])
            self.open.append(self.found[-1])
        self.part = 1 if tag == "summary" else 2

    def handle_endtag(self, tag):
        if tag == "details":
            self.open.pop()
        self.part = 2

    def handle_data(self, data):
        if self.open:
            self.open[-1][self.part] += data


@pytest.mark.parametrize(("name", "number"), PARTS)
def test_a_part_has_three_hints_each_inside_the_one_before(name, number):
    text = task(name, number)
    page = Details(MarkdownIt("commonmark", {"html": True}).render(text))
    assert [(depth, title) for depth, title, _ in page.found] == [(k, f"Hint {k}") for k in range(1, HINTS + 1)]
    assert not page.open and text.endswith("</details>" * HINTS)
    lengths = [len(words.split()) for *_, words in page.found]
    assert 5 <= lengths[0] < lengths[2], lengths  # the last one is nearly the plan
    assert "Hint" not in text.split("<details>")[0]


@pytest.mark.parametrize(("name", "number"), PARTS)
def test_hints_have_no_line_of_the_solution(name, number):
    hints = " ".join(task(name, number).split("<details>", 1)[1].split())
    sources = [c.source for c in SETS[name].notebook.cells if c.metadata.get("nbgrader", {}).get("solution")]
    lines = {line.strip(" #") for source in sources for line in source.split("\n")}
    assert not [line for line in lines if len(line) > 24 and line in hints]


@pytest.mark.parametrize("name", SETS)
def test_what_a_person_grades_has_a_rubric_that_adds_up_and_that_students_do_not_see(name):
    for part in SETS[name].parts:
        items = rubric(cell_of(name, part.id).source)
        assert sum(points for points, *_ in items) == (part.points if part.manual else 0), part.id
        assert not part.manual or (len(items) >= 3 and max(points for points, *_ in items) <= 3), part.id
        written = "".join(re.findall(r"### BEGIN RUBRIC\n(.*?)### END RUBRIC", cell_of(name, part.id).source, re.DOTALL))
        assert len(items) == len([line for line in written.split("\n") if line.strip(" #")]), (
            f"{part.id}: an item has another form"
        )
    shown = "\n".join(cell.source for cell in student_version(SETS[name].notebook).cells)
    assert "RUBRIC" not in shown and "Rubric" not in shown
    solved = "\n".join(cell.source for cell in SETS[name].notebook.cells)
    assert solved.count("BEGIN RUBRIC") == sum(part.manual for part in SETS[name].parts)


# ------------------------------------------------------------------------------------------------------------- the project


def milestones_with(capsys, **changes):
    """What the cell of the milestones says, with the functions of the solution or with others."""
    code = [cell.source for cell in SETS["PS3"].notebook.cells if cell.cell_type == "code"]
    space = {}
    data = next(source for source in code if source.startswith("ink, kinds = digits()"))
    for source in (*code[:2], data, cell_of("PS3", "ps3-13-code").source):
        exec(source, space)
    space |= {name: change(space[name]) for name, change in changes.items()}
    exec(cell_of("PS3", "ps3-13-milestones").source, space)
    return re.findall(r"milestone \d is (reached|not)", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("changes", "reached"),
    [
        ({}, "111"),
        ({"ink_distance": lambda right: lambda a, b: 0.5 * right(a, b)}, "0.."),
        ({"ink_distance": lambda right: lambda a, b: right(a, b) ** 0.5}, "0.."),
        ({"ink_bound": lambda right: lambda a, b: 0.5 * right(a, b)}, "10."),
        ({"ink_bound": lambda right: lambda a, b: 1.6 * right(a, b)}, "10."),
        ({"nearest": lambda right: lambda query, images: (right(query, images)[0], len(images))}, "110"),
        ({"nearest": lambda right: lambda query, images: ((right(query, images)[0] + 1) % len(images), 1)}, "110"),
        ({"ink_distance": lambda right: lambda a, b: 1 / 0}, "000"),
    ],
    ids=["right", "half", "root", "weak bound", "no bound", "all solved", "another image", "an error"],
)
def test_milestones_are_reached_by_right_functions_only(capsys, changes, reached):
    found = ["1" if word == "reached" else "0" for word in milestones_with(capsys, **changes)]
    assert re.fullmatch(reached, "".join(found))


# ------------------------------------------------------------------------------- problem set 1: independent and precise oracles


def noisy_velocity(t, x, *data):
    return ps1.wrong_noise(t, x, *data, in_cov=1, in_cross=1)


def loss_floor(m0, S0, m1, S1, C, sigma):
    """The Schur complement, integrated."""

    def variance(t):
        noise = sigma**2 * t * (1 - t) * np.eye(len(m0))
        _, cov, _, gain = forms.path_moments(t, m0, S0, m1, S1, C)
        cov, gain = cov + t * (1 - t) * noise, gain + (1 - 2 * t) * noise
        own = np.trace(S0 + S1 - C - C.T) + sigma**2 * (1 - 2 * t) ** 2 * len(m0)
        return own - np.trace(gain @ np.linalg.solve(cov, gain.T))

    return forms.integral(variance, 120)


def end_matrix(*laws):
    return fm_flow(*forms.as_laws(*laws), 1.0).matrix.numpy()


def rectified_velocity(t, x, m0, S0, m1, S1):
    M, eye = end_matrix(m0, S0, m1, S1), np.eye(len(m0))
    start = np.linalg.solve((1 - t) * eye + t * M, (x - (1 - t) * m0 - t * m1).T).T
    return m1 - m0 + start @ (M - eye).T


def rectified_energy(m0, S0, m1, S1):
    return forms.squares(m1 - m0) + forms.second_moment(end_matrix(m0, S0, m1, S1) - np.eye(len(m0)), 0 * m0, S0)


def gradient_part(A, S):
    return solve_continuous_lyapunov(S, A @ S + S @ A.T)


def best_stopover(*three):
    first, second = (math.sqrt(leg) for leg in ps1.legs(*three))
    return first / (first + second), (first + second) ** 2


def heat_velocity(t, x, m, S, c, G):
    mean, cov = ps1.heat_law(t, m, S, c, G)
    return -(x - c) + (x - mean) @ np.linalg.solve(cov, G)


def heat_energy(m, S, c, G, T):
    def power(t):
        mean, cov = ps1.heat_law(t, m, S, c, G)
        return forms.squares(mean - c) + np.trace(cov - 2 * G + G @ np.linalg.solve(cov, G))

    return T**2 * forms.integral(lambda s: power(T * s))


def push(x, x0, x1, steps):
    for k in range(steps):
        matrix, offset = ps1.regress(x0, x1, k / steps)
        x = x + (x @ matrix.T + offset) / steps
    return x


# The formulas that students are asked for.
CLOSED = {
    "heat_velocity": heat_velocity,
    "heat_energy": heat_energy,
    "gradient_part": gradient_part,
    "rotation_part": lambda A, S: (A - gradient_part(A, S)) @ S,
    "stopover_energy": lambda *data: ps1.two_leg_energy(*ps1.legs(*data[:-1]), data[-1]),
    "best_stopover": best_stopover,
    "noisy_velocity": noisy_velocity,
    "loss_floor": loss_floor,
    "rectified_velocity": rectified_velocity,
    "rectified_energy": rectified_energy,
    "fit_field": ps1.regress,
    "push": push,
}
CHECKS = {f"{part}, {check.name}": check for part, checks in ps1.CHECKS.items() for check in checks}


def gap(found, expected):
    """The largest difference, relative to the largest entry of its array where that exceeds 1."""
    pairs = zip(as_arrays(found), as_arrays(expected), strict=True)
    return max(np.abs(one - other).max() / max(1.0, np.abs(other).max()) for one, other in pairs)


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_oracles_of_ps1_agree_with_the_formulas_far_below_the_tolerance(check):
    rng, worst = np.random.default_rng(7), 0.0
    for dimension in check.dimensions * 6:
        data = check.draw(rng, dimension)
        worst = max(worst, gap(check.answer(*data), CLOSED[check.function](*data)))
    assert worst < 1e-6 < check.tolerance / 20


def test_oracles_of_ps1_use_no_formula_that_students_are_asked_for(monkeypatch):
    def broken(*arguments, **options):
        raise AssertionError("a closed form is used")

    answers = {name: (check, check.draw(np.random.default_rng(3), 3)) for name, check in CHECKS.items()}
    for name in ("distance_squared", "monge_matrix", "path_moments", "straight_energy", "inverse", "fm_velocity",
                 "fm_kinetic_energy", "legs", "two_leg_energy", "regress", "wrong_noise", "mean_square"):  # fmt: skip
        monkeypatch.setattr(ps1, name, broken)
    for check, data in answers.values():
        assert np.isfinite(as_arrays(check.answer(*data))[0]).all()
