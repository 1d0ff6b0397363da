"""What every problem set must pass: right answers in any form, its catalogue of wrong ones and the hostile bank, all graded."""

from __future__ import annotations

import csv
import html
import json
import re
import socket
from collections.abc import Mapping

import numpy as np
import pytest
from course_bank import CONSTANTS, FLOAT32, HOSTILE, solutions, with_function, write

from dynot_lite.course import sandbox
from dynot_lite.course.assignment import Assignment, folder
from dynot_lite.course.grade import grade
from dynot_lite.course.oracle.compare import cases
from dynot_lite.course.sandbox import Limits

REASON = sandbox.unavailable()
FORMS = ["full", "renamed", "without_metadata", "magics", "float32"]
# name: (status, a pattern that the error of one of its cells matches)
OUTCOMES = {
    "exits_early": ("failed", ""),
    "kills_everything": ("", ""),
    "loops_stubbornly": ("time", ""),
    "eats_memory_at_once": ("", "MemoryError"),
    "eats_memory_with_children": ("finished", "PermissionError"),
    "starts_processes": ("finished", "PermissionError"),
    "fills_the_disk": ("finished", r"RuntimeError: (16|32|48|64) MB in /tmp, 0 files elsewhere"),
    "uses_the_network": ("finished", r"RuntimeError: reached \[\]"),
    "reads_the_answers": ("finished", r"RuntimeError: seen \[\]"),
    "gains_rights": ("finished", r"RuntimeError: done \[\], 65534"),
    "floods_the_answers": ("output", ""),
    "a_link": ("unreadable", ""),
    "not_a_notebook": ("unreadable", ""),
    "an_empty_folder": ("unreadable", ""),
}


class ProblemSetTests:
    """The tests of one problem set, which a subclass whose name begins with Test binds.

    No part may need the code of another one that is graded automatically, and at least two proofs are graded by a person.

    Attributes:
        problems: the problem set.
        wrong: the catalogue, ``{error: (part, points lost, source of the function with the error)}``: the rows of the table
            in the instructor's page.
        equivalent: other right answers, ``{name: {identifier of a cell: its source}}``; solved as released elsewhere.
        silent: how many errors of the catalogue the feedback need not name.
    """

    problems: Assignment
    wrong: Mapping[str, tuple[str, float, str]]
    equivalent: Mapping[str, Mapping[str, str]]
    silent = 3

    def pytest_generate_tests(self, metafunc):
        values = {"form": [*FORMS, *self.equivalent], "error": list(self.wrong), "attack": list(HOSTILE), "outcome": OUTCOMES}
        for argument in set(values) & set(metafunc.fixturenames):
            metafunc.parametrize(argument, values[argument])

    # ---------------------------------------------------------------------------------------- what the tests are about

    @property
    def automatic(self) -> dict[str, float]:
        """The points of the parts that are graded automatically, by identifier."""
        return {part.id: part.points for part in self.problems.parts if part.checks}

    @property
    def functions(self) -> list[str]:
        """The names of the functions that are asked for."""
        return sorted({check.function for part in self.problems.parts for check in part.checks})

    @property
    def proofs(self) -> list[str]:
        """The parts that are answered in words."""
        return [part.id for part in self.problems.parts if part.manual and not part.code]

    @property
    def drawings(self) -> list[str]:
        """The parts that are answered in code and graded by a person."""
        return [part.id for part in self.problems.parts if part.manual and part.code]

    @property
    def looping(self) -> tuple[str, str]:
        """The last part that asks for one function only, and this function."""
        asked = {part.id: {check.function for check in part.checks} for part in self.problems.parts}
        part = [name for name, functions in asked.items() if len(functions) == 1][-1]
        return part, *asked[part]

    def points(self, report) -> dict[str, float]:
        """The points that were given automatically."""
        return {score.part: score.earned for score in report.scores if score.part in self.automatic}

    def only(self, *parts: str) -> dict[str, float]:
        """Full points for these parts, and none for the others."""
        return {name: points if name in parts else 0 for name, points in self.automatic.items()}

    # ---------------------------------------------------------------------------------------- one grading of each kind

    @pytest.fixture(scope="class")
    @classmethod
    def honest(cls, tmp_path_factory):
        """The reports of one grading of everything that means well, by name, and the folder it wrote."""
        self, problems, solved = cls(), cls.problems, solutions(cls.problems)
        parts, (proof, blank) = list(self.automatic), self.proofs[:2]
        place, out = tmp_path_factory.mktemp("honest"), tmp_path_factory.mktemp("graded")
        write(place / "full.ipynb", problems, solved)
        write(place / "untouched.ipynb", problems, {})
        write(place / "renamed" / problems.name / "Untitled (3) copy.ipynb", problems, solved)
        write(place / "renamed" / "other.ipynb", problems, {}, drop=parts, marked=False)
        write(place / "without_metadata.ipynb", problems, solved, marked=False)
        kept = {f"{part}-code": solved[f"{part}-code"] for part in (parts[0], parts[len(parts) // 2])}
        write(place / "deleted_cells.ipynb", problems, kept, drop=[*parts, f"{parts[1]}-code", proof, *self.drawings])
        forgiving = dict.fromkeys(parts, "print('10 of 10 points')")
        write(place / "edited_tests.ipynb", problems, forgiving | {f"{parts[3]}-code": solved[f"{parts[3]}-code"]})
        magic = "%%time\n%matplotlib inline\n!pip list\nvalue = (7\n  % 4)\n"
        answers = solved | {proof: "Because of the chain rule.", blank: "YOUR ANSWER HERE \n"}
        write(place / "magics.ipynb", problems, answers, first=magic, last="import antigravity_that_is_not_there")
        write(place / "float32.ipynb", problems, solved, last=FLOAT32.replace("NAMES", repr(self.functions)))
        for name, changed in cls.equivalent.items():
            assert set(changed) <= set(solved), f"{name} has cells that are not in {problems.name}"
            write(place / f"{name}.ipynb", problems, solved | changed)
        for k, (part, _, new) in enumerate(cls.wrong.values()):
            source = with_function(solved[f"{part}-code"], new)
            write(place / f"wrong{k}.ipynb", problems, solved | {f"{part}-code": source})
        reports = grade(place, out, jobs=2, trust=REASON is not None)
        return {report.submission.student: report for report in reports}, out

    @pytest.fixture(scope="class")
    @classmethod
    def hostile(cls, tmp_path_factory):
        """The same for the hostile bank, over one that defines every function as a constant, and for what loops."""
        if REASON:
            pytest.skip(f"submissions cannot be isolated here: {REASON}")
        self, problems, solved = cls(), cls.problems, solutions(cls.problems)
        names, parts, proof = repr(self.functions), list(self.automatic), self.proofs[0]
        place, out = tmp_path_factory.mktemp("hostile"), tmp_path_factory.mktemp("graded")
        with socket.create_server(("127.0.0.1", 0)) as server:
            known = {"PORT": str(server.getsockname()[1]), "FOLDER": str(place), "NAMES": names}
            for name, (first, last) in HOSTILE.items():
                for word, value in known.items():
                    first, last = first.replace(word, value), last.replace(word, value)
                write(place / name / "work.ipynb", problems, {}, first=first, last=CONSTANTS.format(names=names) + last)
            write(place / "loops_in_one_part.ipynb", problems, solved | {f"{parts[3]}-code": "while True: pass"})
            part, function = self.looping
            slow = with_function(solved[f"{part}-code"], f"def {function}(*a):\n    while True: pass")
            write(place / "loops_in_a_function.ipynb", problems, solved | {f"{part}-code": slow})
            (place / "a_link.ipynb").symlink_to(place / "loops_in_one_part.ipynb")
            (place / "not_a_notebook.ipynb").write_text("[" * 100000, encoding="utf-8")
            (place / "an_empty_folder").mkdir()
            script = {proof: "<script>alert(1)</script>"}
            write(place / "=1+1.ipynb", problems, solved | script, last="raise ValueError('<b>')")
            limits = Limits(seconds=20, memory=1200 * 2**20)
            reports = grade(place, out, jobs=2, limits=limits, cell_seconds=5, call_seconds=3)
        return {report.submission.student: report for report in reports}, out

    # ------------------------------------------------------------------------------------------------------- what means well

    def test_the_points_and_the_parts(self):
        problems = self.problems
        assert 60 <= problems.points <= 100 and 8 <= len(problems.parts) <= 13
        assert self.proofs and self.drawings and len({part.title for part in problems.parts}) == len(problems.parts)
        assert len(self.wrong) >= 10 and len(self.equivalent) >= 2  # and the solution in single precision

    def test_a_right_answer_has_all_points_in_any_form(self, honest, form):
        report = honest[0][form]
        assert report.status == "finished" and self.points(report) == self.automatic, [s.findings for s in report.scores]

    def test_an_untouched_release_has_none_and_runs_to_the_first_unsolved_part(self, honest):
        report = honest[0]["untouched"]
        assert report.points == 0 and report.pending == [] and report.status == "finished"
        # Only the figures are unsolved: the other cells of code define functions, or what the examples need.
        assert [error for _, error in report.cells] == ["unsolved"] * len(self.drawings)
        assert {score.visible for score in report.scores if score.findings} == {"unsolved"}

    def test_a_wrong_answer_of_the_catalogue_loses_its_points(self, honest, error):
        part, lost, _ = self.wrong[error]
        report = honest[0][f"wrong{list(self.wrong).index(error)}"]
        assert self.points(report) == self.automatic | {part: self.automatic[part] - lost}

    def test_the_instructors_page_has_the_table_of_errors(self):
        page = (folder() / "README.md").read_text(encoding="utf-8")
        number, of = (lambda part: part.split("-")[1]), self.automatic
        rows = [f"| {error} | {number(part)} | {lost} of {of[part]} |" for error, (part, lost, _) in self.wrong.items()]
        assert "\n".join(rows) in page
        whole = f"{len(self.problems.parts)} | {self.problems.points} | {sum(of.values())} points"
        assert re.search(rf"^\| {self.problems.name} \| [^|]+ \| {re.escape(whole)} \|", page, re.MULTILINE)

    def test_feedback_names_the_error(self, honest):
        told = {}
        for k in range(len(self.wrong)):
            found = [finding.remark for score in honest[0][f"wrong{k}"].scores for finding in score.findings]
            if named := [remark for remark in found if remark.startswith("these are the values one gets when")]:
                told[k] = named[0]
        assert len(told) >= len(self.wrong) - self.silent
        for k, remark in told.items():
            page = (honest[1] / "feedback" / f"wrong{k}.html").read_text(encoding="utf-8")
            assert html.escape(remark) in page

    def test_deleted_and_edited_cells_cost_what_is_missing(self, honest):
        parts = list(self.automatic)
        assert self.points(honest[0]["deleted_cells"]) == self.only(parts[0], parts[len(parts) // 2])
        assert self.points(honest[0]["edited_tests"]) == self.only(parts[3])

    def test_what_a_person_grades_waits_only_if_there_is_an_answer(self, honest):
        proof, blank = self.proofs[:2]
        assert honest[0]["magics"].pending == [proof]
        with open(honest[1] / "manual.csv", encoding="utf-8-sig", newline="") as stream:
            rows = {(row["student"], row["part"]): row for row in csv.DictReader(stream)}
        assert rows["magics", proof]["points"] == "" and rows["magics", blank]["state"] == "not answered"

    def test_the_table_and_the_record(self, honest):
        with open(honest[1] / "points.csv", encoding="utf-8", newline="") as stream:
            rows = {row["student"]: row for row in csv.DictReader(stream)}
        assert set(rows) == set(honest[0]) and {part.id for part in self.problems.parts} < set(rows["full"])
        assert float(rows["full"]["points"]) == sum(self.automatic.values())
        assert rows["full"]["of"] == str(self.problems.points)
        record = json.loads((honest[1] / "grading.json").read_text(encoding="utf-8"))
        assert record["assignment"] == self.problems.name and record["seed"] > 0

    def test_instances_are_fresh_and_keep_wrong_answers_away(self):
        for check in (check for part in self.problems.parts for check in part.checks):
            one, other = (cases(check, np.random.default_rng(seed)) for seed in (1, 2))
            assert not any(np.array_equal(a.expected[0], b.expected[0]) for a in one for b in other if a.expected[0].any())
            assert len(one) == 2 * len(check.dimensions)

    # --------------------------------------------------------------------------------------------------------------- hostile

    def test_a_hostile_submission_wins_nothing(self, hostile, attack):
        assert hostile[0][attack].points == 0

    def test_it_is_stopped_and_reported_as_such(self, hostile, outcome):
        report, (status, told) = hostile[0][outcome], OUTCOMES[outcome]
        assert not status or report.status == status, report
        assert report.status == "finished" or report.message
        assert not told or any(re.search(told, error) for _, error in report.cells), report.cells

    def test_a_loop_costs_its_part_only(self, hostile):
        assert self.points(hostile[0]["loops_in_one_part"]) == self.automatic | {list(self.automatic)[3]: 0}
        assert self.points(hostile[0]["loops_in_a_function"]) == self.automatic | {self.looping[0]: 0}

    def test_what_students_write_cannot_run_in_the_feedback_or_in_a_spreadsheet(self, hostile):
        report = hostile[0]["=1+1"]
        assert self.points(report) == self.automatic
        page = (hostile[1] / "feedback" / "=1+1.html").read_text(encoding="utf-8")
        assert "<script>" not in page and "<b>" not in page and "&lt;script&gt;" in page
        assert "\n'=1+1," in (hostile[1] / "points.csv").read_text(encoding="utf-8")
