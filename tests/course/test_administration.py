"""Rosters, due dates and exports: what a table may look like, what lateness costs, and the formats of other systems."""

from __future__ import annotations

import csv
import datetime
import json
import os
import random
import re
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from course_bank import write

from dynot_lite import cli
from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.course import deadlines, intake, roster, sandbox
from dynot_lite.course.assignment import load
from dynot_lite.course.deadlines import Deadline, moment
from dynot_lite.course.exports import export
from dynot_lite.course.intake import ledger
from dynot_lite.course.oracle.compare import Finding
from dynot_lite.course.reports import Report, Score
from dynot_lite.course.tables import write_points
from dynot_lite.course.texts import read_table

PS1 = load("PS1")
ZURICH = ZoneInfo("Europe/Zurich")


def table(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------------------------------------ the roster

ROSTERS = {
    "plain": ("login,email,name", "alee,ada.lee@x.org,Ada Lee"),
    "canvas": ("Student,ID,SIS User ID,SIS Login ID,Section,PS1 (77)", "    Points Possible,,,,,100", '"Lee, Ada",5,S-1,alee,A,'),
    "moodle": ("First name,Last name,ID number,Email address", "Ada,Lee,S-1,ada.lee@x.org"),
    "worksheet": ("Identifier,Full name,Email address,Status,Grade", "Participant 9,Ada Lee,ada.lee@x.org,,"),
    "nbgrader": ("id,first_name,last_name,email", "alee,Ada,Lee,ada.lee@x.org"),
}


@pytest.mark.parametrize("form", ROSTERS)
def test_a_person_is_found_in_the_tables_of_other_systems_by_any_name(form, tmp_path):
    (ada,) = roster.read(table(tmp_path / "r.csv", *ROSTERS[form]))
    assert {"Ada", "Lee"} <= set(re.findall(r"\w+", ada.name))
    called = [one for one in (ada.login, ada.identifier, ada.email, ada.name, "ADA LEE", "Lee Ada", "ada_lee") if one]
    called += ["Ada Lee_4711_assignsubmission_file_", "Ada Lee_4711_assignsubmission_file"]
    assert all(found is ada for found in roster.matches(called, [ada]).values()) and len(roster.matches(called, [ada])) >= 5
    assert roster.matches(["Ada", "Bob", "", "Ada Leeds", "_1_assignsubmission_file_"], [ada]) == {}


def test_a_name_that_two_people_share_names_neither(tmp_path):
    path = table(tmp_path / "r.csv", "login,name,email", "a1,Ada Lee,one@x.org", "a2,Ada Lee,two@x.org")
    people = roster.read(path)
    assert roster.matches(["Ada Lee", "a1", "two"], people) == {"a1": people[0], "two": people[1]}


def test_a_login_is_its_owners_and_who_is_in_two_sections_is_one(tmp_path):
    lines = ["login,name,email,section", "lee,Ada Lee,ada@x.org,A", "bob,Bob Ray,lee@y.org,A", "lee,Ada Lee,ada@x.org,B"]
    people = roster.read(table(tmp_path / "r.csv", *lines))
    assert [one.login for one in people] == ["lee", "bob"]
    assert {name: one.login for name, one in roster.matches(["lee", "Bob Ray"], people).items()} == {
        "lee": "lee",
        "Bob Ray": "bob",
    }


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["colour,size", "red,1"], "names no student"),
        (["login,email", ","], "names no student"),
        (["login,email", "a,x@y.z", "b,X@Y.Z"], "the same login, identifier or e-mail"),
        (["login"], "no rows"),
    ],
)
def test_a_roster_that_is_none_is_refused_in_a_sentence(lines, told, tmp_path):
    with pytest.raises(NotebookError, match=rf"r\.csv.*{told}"):
        roster.read(table(tmp_path / "r.csv", *lines))


def entries(tmp_path, *, roster=None, deadlines=None):
    return {one.submission.student: one for one in ledger(tmp_path / "in", PS1, roster, deadlines)}


def test_who_is_missing_and_who_is_a_stranger(tmp_path):
    for name in ("alee", "Bob Ray_12_assignsubmission_file_/x", "stranger"):
        write(tmp_path / "in" / f"{name}.ipynb", PS1, {})
    (tmp_path / "in" / "cleo.zip").write_bytes(b"PK")
    lines = ["login,name,email", "alee,Ada Lee,a@x.org", "bray,Bob Ray,b@x.org", "cleo,Cleo,c@x.org", "dan,Dan,d@x.org"]
    found = entries(tmp_path, roster=table(tmp_path / "r.csv", *lines))
    assert {name: one.submission.status for name, one in found.items()} == {
        "Bob Ray_12_assignsubmission_file_": "",
        "alee": "",
        "cleo": "not recognised",
        "dan": "missing",
        "stranger": "",
    }
    assert found["stranger"].submission.notes == ("not in the roster",) and found["stranger"].person is None
    assert found["Bob Ray_12_assignsubmission_file_"].person.login == "bray"


def test_two_entries_of_one_person_are_one_submission(tmp_path):
    write(tmp_path / "in" / "alee.ipynb", PS1, {}, drop=["ps1-1"])
    write(tmp_path / "in" / "Ada Lee.ipynb", PS1, {})
    found = entries(tmp_path, roster=table(tmp_path / "r.csv", "login,name", "alee,Ada Lee"))
    assert found["alee"].submission.status == "not used" and found["Ada Lee"].submission.status == ""
    assert "Ada Lee.ipynb of the same person" in found["alee"].submission.problem


def test_a_missing_person_never_takes_the_name_of_a_submission(tmp_path):
    write(tmp_path / "in" / "Ada Lee.ipynb", PS1, {})
    people = table(tmp_path / "r.csv", "name,email", "Ada Lee,one@x.org", "Ada Lee,two@x.org")
    found = entries(tmp_path, roster=people)
    assert sorted(found) == ["Ada Lee", "Ada Lee (roster)", "Ada Lee (roster) (roster)"]


# --------------------------------------------------------------------------------------------------------------- due dates


RULE = 'timezone = "Europe/Zurich"\n[PS1]\ndue = 2026-11-20T23:59:00\ngrace = 15\npercent = 10\ndays = 5\n'


def deadline(tmp_path, text: str) -> Deadline:
    return deadlines.read(table(tmp_path / "d.toml", text), "PS1")


def local(text: str, fold=0) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=ZURICH, fold=fold)


@pytest.mark.parametrize(
    ("handed_in", "days", "percent"),
    [
        ("2026-11-20T23:59:00", 0, 0),
        ("2026-11-21T00:14:00", 0, 0),  # the grace
        ("2026-11-21T00:14:01", 1, 10),  # and no more: the day began with the due date
        ("2026-11-21T23:59:00", 1, 10),
        ("2026-11-21T23:59:01", 2, 20),
        ("2026-11-25T23:59:00", 5, 50),
        ("2026-11-25T23:59:01", 6, 100),
        ("2027-11-20T00:00:00", 365, 100),
        ("2020-01-01T00:00:00", 0, 0),
    ],
)
def test_each_day_begun_costs_its_percent_and_later_there_are_no_points(handed_in, days, percent, tmp_path):
    late = deadline(tmp_path, RULE).lateness(local(handed_in), "file", ("ann",))
    assert (late.days, late.percent) == (days, percent)
    assert late.words == ("" if not days else f"{days} day{'s' if days > 1 else ''} late")


def test_times_are_the_same_moments_whatever_zone_they_are_given_in(tmp_path):
    rule = deadline(tmp_path, RULE)
    draw = random.Random(1)
    for _ in range(300):
        time = datetime.datetime(2026, 11, 20, tzinfo=datetime.UTC) + datetime.timedelta(seconds=draw.uniform(-1e5, 1e6))
        zones = [datetime.UTC, ZURICH, ZoneInfo("Asia/Kolkata"), datetime.timezone(datetime.timedelta(hours=-9))]
        found = {(late.days, late.percent) for late in (rule.lateness(time.astimezone(zone), "file", ()) for zone in zones)}
        assert len(found) == 1
    elsewhere = deadline(tmp_path, "[PS1]\ndue = 2026-11-20T22:59:00Z\ngrace = 15\npercent = 10\ndays = 5")
    assert elsewhere.due == rule.due


@pytest.mark.parametrize("night", ["2026-03-28", "2026-10-24"])
def test_a_day_across_a_change_of_clocks_is_one_day(night, tmp_path):
    rule = deadline(tmp_path, f'timezone = "Europe/Zurich"\n[PS1]\ndue = {night}T23:59:00\npercent = 10')
    next_day = (datetime.date.fromisoformat(night) + datetime.timedelta(days=1)).isoformat()
    assert rule.lateness(local(f"{next_day}T23:59:00"), "file", ()).days == 1
    assert rule.lateness(local(f"{next_day}T23:59:01"), "file", ()).days == 2


def test_an_hour_that_comes_twice_counts_for_the_student(tmp_path):
    rule = deadline(tmp_path, 'timezone = "Europe/Zurich"\n[PS1]\ndue = 2026-10-25T02:30:00\npercent = 10')
    for clock, fold, days in (("02:45", 0, 0), ("02:29", 1, 0), ("02:31", 1, 1)):
        time = local(f"2026-10-25T{clock}:00", fold)
        assert rule.lateness(time, "file", ()).days == rule.lateness(time.astimezone(datetime.UTC), "file", ()).days == days
    early = deadline(tmp_path, 'timezone = "Europe/Zurich"\n[PS1]\ndue = 2026-10-25T01:50:00\ngrace = 30\npercent = 10')
    assert [early.lateness(local("2026-10-25T02:10:00", fold), "file", ()).days for fold in (0, 1)] == [0, 1]


def test_who_has_more_time_has_it_under_any_name_and_never_less(tmp_path):
    rule = deadline(tmp_path, RULE + '[PS1.students]\n"Ada.Lee@x.org" = 2026-11-27\nbob = 2026-11-30T12:00:00+00:00')
    at = lambda text, *names: rule.lateness(local(text), "file", names).days
    assert at("2026-11-27T23:59:59", "ada", "ada.lee@x.org") == 0 and at("2026-11-28T00:15:01", "", "ADA.LEE@X.ORG") == 1
    assert at("2026-11-30T13:15:00", "Bob") == 0 and at("2026-11-27T23:59:00", "bobby", "") == 7


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[PS1]\ndue = 2026-11-20T23:59:00", "whose time is this"),
        ("[PS2]\ndue = 2026-11-20T23:59:00Z", "no due date for PS1"),
        ("PS1 = 3", "no due date for PS1"),
        ("[PS1]\ngrace = 3", "no due date for PS1"),
        ('[PS1]\ndue = "2026-11-20"', "without quotes"),
        ("[PS1]\ndue = 2026-11-20T23:59:00Z\nper_day = 3", "'per_day', which is none of due"),
        ("[PS1]\ndue = 2026-11-20T23:59:00Z\npercent = 101", "from 0 to 100"),
        ("[PS1]\ndue = 2026-11-20T23:59:00Z\ngrace = -1", "from 0 to"),
        ("[PS1]\ndue = 2026-11-20T23:59:00Z\ngrace = nan", "must be a number"),
        ("[PS1]\ndue = 2026-11-20T23:59:00Z\ngrace = 1e300", "from 0 to"),
        ("[PS1]\ndue = 2026-11-20T23:59:00Z\ndays = inf", "from 0 to"),
        ("[PS1]\ndue = 2026-11-20T23:59:00Z\ngrace = true", "must be a number"),
        ("[PS1]\ndue = 2026-11-20T23:59:00Z\nstudents = 3", "must be a table"),
        ("[PS1]\ndue = 2026-11-20T23:59:00Z\n[PS1.students]\nann = 3", r"PS1.students\] ann"),
        ('timezone = "Zurich"\n[PS1]\ndue = 2026-11-20', "'Zurich' is no time zone"),
        ("timezone = 3\n[PS1]\ndue = 2026-11-20", "3 is no time zone"),
        ("[PS1", "not a table in TOML"),
    ],
)
def test_a_rule_that_is_none_is_refused_in_a_sentence(text, told, tmp_path):
    with pytest.raises(NotebookError, match=rf"(?s)d\.toml.*{told}"):
        deadline(tmp_path, text)
    with pytest.raises(NotebookError, match="cannot be read"):
        deadlines.read(tmp_path / "none.toml", "PS1")


def test_the_time_is_the_rosters_or_else_the_files_and_said_to_be(tmp_path):
    for name in ("ann", "bob"):
        write(tmp_path / "in" / f"{name}.ipynb", PS1, {})
        os.utime(tmp_path / "in" / f"{name}.ipynb", (0, local("2026-11-22T12:00:00").timestamp()))
    people = table(tmp_path / "r.csv", "login,submitted", "ann,2026-11-20 23:00", "bob,")
    found = entries(tmp_path, roster=people, deadlines=table(tmp_path / "d.toml", RULE + "[PS1.students]\ncleo = 2026-12-01"))
    assert (found["ann"].late.source, found["ann"].late.days) == ("roster", 0)
    assert (found["bob"].late.source, found["bob"].late.days, found["bob"].late.submitted.hour) == ("file", 2, 12)
    assert found["cleo"].submission.status == "missing"  # more time for somebody who is nobody, or a slip of the pen
    for wrong in ("yesterday", "2026-13-01"):
        with pytest.raises(NotebookError, match=f"ann submitted '{wrong}'"):
            entries(tmp_path, roster=table(tmp_path / "r.csv", "login,submitted", f"ann,{wrong}"))
    with pytest.raises(ValueError, match="whose time"):
        moment("2026-11-20 23:00", None)


def test_a_file_from_the_year_ten_billion_is_graded_all_the_same(tmp_path, monkeypatch):
    write(tmp_path / "in" / "ann.ipynb", PS1, {})
    real = intake.collect
    changed = lambda *arguments: [intake.replace(one, modified=1e18) for one in real(*arguments)]
    monkeypatch.setattr(intake, "collect", changed)
    ann = entries(tmp_path)["ann"]
    assert ann.late is None and "makes no sense" in ann.submission.notes[0] and ann.submission.status == ""


# ------------------------------------------------------------------------------------------------------------------ exports


def graded(folder: Path, people: dict[str, dict], status=None, waiting=()) -> Path:
    """A grading in ``folder``: {student: {"points": share of all points, "days": late, columns of the roster}}."""
    reports = []
    status = status or {}
    for name, one in people.items():
        scores = [Score(part.id, None if part.id in waiting else one["points"] * part.points, (), "") for part in PS1.parts]
        late = Deadline(datetime.UTC, datetime.datetime(2026, 11, 20, tzinfo=datetime.UTC), percent=10).lateness(
            datetime.datetime(2026, 11, 20, tzinfo=datetime.UTC) + datetime.timedelta(days=one.get("days", 0)), "file", ()
        )
        person = roster.Person(**{key: value for key, value in one.items() if key not in ("points", "days")})
        kind = status.get(name, "finished")
        scores = scores if kind == "finished" else [Score(part.id, None) for part in PS1.parts]
        submission = intake.Submission(name, folder / f"{name}.ipynb")
        late = None if kind == "missing" else late
        reports.append(Report(submission, kind, "", tuple(scores), (), 3.4, person, late))
    folder.mkdir(exist_ok=True)
    write_points(reports, PS1, folder)
    (folder / "grading.json").write_text('{"assignment": "PS1"}', encoding="utf-8")
    return folder


CLASS = {
    "alee": dict(points=1, login="alee", identifier="S-1", email="a@x.org", name="Lee, Ada"),
    "bray": dict(points=0.5, days=2, login="bray", identifier="S-2", email="b@x.org", name='Ray "Bob"'),
    "=cmd": dict(points=0, name="=cmd", email=""),
    "cut": dict(points=0),
    "gone": dict(points=0, email="g@x.org"),
}
STATUS = {"cut": "unreadable", "gone": "missing"}


def rows(path: Path) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def canvas_takes(head: list[str]) -> int:
    """How many columns of student information Canvas's importer sees in this header; the rule of its gradebook_importer.rb."""
    assert len(head) > 3 and "Student" in head[0] and "ID" in head[1]
    count = 3
    if re.search(r"SIS\s+Login\s+ID", head[2]):
        count += 1
    elif re.search(r"SIS\s+User\s+ID", head[2]) and re.search(r"SIS\s+Login\s+ID", head[3]):
        integration = bool(re.search(r"Integration\s+ID", head[4]))
        count += 2 + integration + bool(re.search(r"Root\s+Account", head[4 + integration]))
    assert "Section" in head[count - 1]
    return count


def test_canvas_gets_a_gradebook_that_its_importer_takes(tmp_path):
    done = export(graded(tmp_path / "out", CLASS, STATUS), "canvas", tmp_path / "c.csv")
    head, possible, *students = rows(tmp_path / "c.csv")
    assert canvas_takes(head) == 5 and head[5:] == ["PS1"]
    assert "Points Possible" in possible[0] and possible[5] == "100" and {len(row) for row in students} == {6}
    assert students[0] == ["Lee, Ada", "", "S-1", "alee", "", "100.00"]
    assert students[1][5] == "40.00" and students[2][0] == "'=cmd" and students[2][5] == "0.00"
    assert done.written == 3 and done.left == ("cut: unreadable", "gone: missing") and done.pending == ()


@pytest.mark.parametrize(
    "info",
    [
        "Student,ID,SIS User ID,SIS Login ID,Section",
        "Student,ID,SIS Login ID,Section",
        "Student,ID,SIS User ID,SIS Login ID,Integration ID,Section",
        "Student,ID,SIS User ID,SIS Login ID,Root Account,Section",
    ],
)
def test_canvas_own_table_is_followed_to_the_column_section(info, tmp_path):
    head = info.split(",")
    values = {
        "Student": '"Lee, Ada"',
        "ID": "501",
        "SIS User ID": "S-1",
        "SIS Login ID": "alee",
        "Section": "A",
        "Root Account": "u",
    }
    possible = ",".join(["    Points Possible", *[""] * (len(head) - 1), "10", "100"])
    ada = ",".join([*(values.get(name, "i") for name in head), "7", ""])
    path = table(tmp_path / "canvas.csv", f"{info},Quiz (1),PS1 first set (77)", possible, ada)
    done = export(graded(tmp_path / "out", CLASS, STATUS), "canvas", tmp_path / "c.csv", roster=path)
    written = rows(tmp_path / "c.csv")
    assert written[0] == [*head, "PS1 first set (77)"] and canvas_takes(written[0]) == len(head)
    assert written[2] == [*(values.get(name, "i").strip('"') for name in head), "100.00"] and len(written) == 3
    assert f"bray: not in {path}" in done.left
    with pytest.raises(NotebookError, match="PS1 has 10 points in Canvas, and 100 here"):
        wrong = table(tmp_path / "w.csv", f"{info},PS1 (77)", possible.removesuffix(",100"), ada.removesuffix(","))
        export(tmp_path / "out", "canvas", tmp_path / "c.csv", roster=wrong)


def test_a_column_that_canvas_would_make_anew_is_told(tmp_path):
    head = "Student,ID,SIS User ID,SIS Login ID,Section"
    out = graded(tmp_path / "out", CLASS, STATUS)
    path = table(tmp_path / "canvas.csv", f"{head},Problem set 1 (77)", '"Lee, Ada",501,S-1,alee,A,')
    assert "Canvas will make a new assignment" in export(out, "canvas", tmp_path / "c.csv", roster=path).note
    path = table(tmp_path / "canvas.csv", f"{head},PS1 (77)", '"Lee, Ada",501,S-1,alee,A,')
    assert export(out, "canvas", tmp_path / "c.csv", roster=path).note == ""


def test_two_who_are_one_person_of_the_other_system_are_both_left_out(tmp_path):
    out = graded(tmp_path / "out", {"alee": dict(points=1), "Ada Lee": dict(points=0.5), "bob": dict(points=1)})
    path = table(tmp_path / "r.csv", "login,name", "alee,Ada Lee", "bob,Bob")
    done = export(out, "moodle", tmp_path / "m.csv", roster=path)
    assert done.written == 1 and [one.split(":")[0] for one in done.left] == ["alee", "Ada Lee"]


def test_moodle_gets_people_and_a_column_of_grades(tmp_path):
    export(graded(tmp_path / "out", CLASS, STATUS), "moodle", tmp_path / "m.csv")
    head, *students = rows(tmp_path / "m.csv")
    assert head == ["Username", "ID number", "Email address", "PS1"]
    assert students[:2] == [["alee", "S-1", "a@x.org", "100"], ["bray", "S-2", "b@x.org", "40"]]


def test_moodles_worksheet_comes_back_with_grades_and_nothing_else_changed(tmp_path):
    head = "Identifier,Full name,Email address,Status,Grade,Maximum Grade,Grade can be changed,Last modified (grade),"
    head += "Feedback comments"
    ada = 'Participant 9,Ada Lee,A@x.org,Submitted,,100.00,Yes,"Friday, 20 November 2026, 9:00 AM",-'
    eve = "Participant 7,Eve,e@x.org,No submission,55.00,100.00,Yes,-,"
    path = table(tmp_path / "w.csv", head, eve, ada)
    done = export(graded(tmp_path / "out", CLASS, STATUS), "moodle", tmp_path / "m.csv", roster=path)
    before, after = rows(path), rows(tmp_path / "m.csv")
    assert after[0] == before[0] and after[1] == before[1] and done.written == 1
    before[2][4] = "100"
    assert after[2] == before[2]
    with pytest.raises(NotebookError, match="PS1 has 10.00 points in Moodle"):
        export(
            tmp_path / "out", "moodle", tmp_path / "m.csv", roster=table(tmp_path / "v.csv", head, ada.replace("100.00", "10.00"))
        )


# The fields of Gradescope's "Autograder specifications"; of these, what a test may be.
GRADESCOPE = dict(score=float, execution_time=int, output=str, tests=list)
GRADESCOPE_TEST = dict(score=float, max_score=float, name=str, number=str, output=str)


def test_gradescope_gets_results_that_its_harness_takes(tmp_path):
    out = graded(tmp_path / "out", CLASS | {"ALEE": dict(points=0.25)}, STATUS, waiting=["ps1-2"])
    done = export(out, "gradescope", tmp_path / "g")
    found = {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in (tmp_path / "g").glob("*/results.json")}
    assert len(found) == 4 == len({name.casefold() for name in found}) and len(done.pending) == 4
    for results in found.values():
        assert all(isinstance(value, GRADESCOPE[name]) for name, value in results.items()) and "score" in results
        for test in results["tests"]:
            assert all(isinstance(value, GRADESCOPE_TEST[name] | int) for name, value in test.items())
            assert ("score" in test) != (test["number"] == "2") and test.get("score", 0) <= test["max_score"]
    rest = PS1.points - next(part.points for part in PS1.parts if part.id == "ps1-2")
    assert found["alee"]["score"] == rest == sum(test.get("score", 0) for test in found["alee"]["tests"])
    assert found["bray"]["score"] == 0.4 * rest and found["bray"]["output"] == f"2 days late, {0.1 * rest:g} points off"


def test_nbgrader_gets_the_columns_of_its_export(tmp_path):
    export(graded(tmp_path / "out", CLASS, STATUS), "nbgrader", tmp_path / "n.csv")
    head, ada, bob, _, gone = rows(tmp_path / "n.csv")
    assert ",".join(head) == (
        "assignment,duedate,timestamp,student_id,last_name,first_name,email,raw_score,late_submission_penalty,score,max_score"
    )
    due = "2026-11-20 00:00:00"
    assert ada == ["PS1", due, due, "alee", "", "", "a@x.org", "100.0", "0.0", "100.0", "100.0"]
    assert bob[2] == "2026-11-22 00:00:00" and bob[7:] == ["50.0", "10.0", "40.0", "100.0"]
    assert gone == ["PS1", "", "", "gone", "", "", "g@x.org", "0.0", "0.0", "0.0", "100.0"]
    spec = pytest.importorskip("nbgrader.plugins.export", reason="nbgrader is not installed")
    assert all(f'"{name}"' in Path(spec.__file__).read_text(encoding="utf-8") for name in head)


def test_an_export_of_nothing_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(NotebookError, match="has no grading"):
        export(tmp_path, "canvas", tmp_path / "c.csv")
    with pytest.raises(NotebookError, match="is a folder: name a file"):
        export(tmp_path, "canvas", tmp_path)
    with pytest.raises(NotebookError, match="is a file: name a folder"):
        export(tmp_path, "gradescope", table(tmp_path / "g", "x"))
    with pytest.raises(NotebookError, match="no export for 'blackboard'"):
        export(graded(tmp_path / "out", CLASS), "blackboard", tmp_path / "c.csv")
    table(tmp_path / "out" / "points.csv", "student,status", "ann,graded")
    with pytest.raises(NotebookError, match="has no column deduction: grade again"):
        export(tmp_path / "out", "canvas", tmp_path / "c.csv")


def test_points_that_a_spreadsheet_saved_are_exported_all_the_same_or_refused_in_a_sentence(tmp_path):
    """With semicolons and 7,5, as in countries with decimal commas: that ended in a traceback."""
    own = graded(tmp_path / "out", CLASS) / "points.csv"
    before = export(tmp_path / "out", "nbgrader", tmp_path / "before.csv")
    saved = [[entry.replace(".", ",") if re.fullmatch(r"\d+\.\d+", entry) else entry for entry in row] for row in rows(own)]
    with open(own, "w", encoding="utf-8-sig", newline="") as stream:
        csv.writer(stream, delimiter=";").writerows(saved)
    for system in ("canvas", "moodle", "gradescope", "nbgrader"):
        assert export(tmp_path / "out", system, tmp_path / f"{system}.out").written == before.written
    assert rows(tmp_path / "nbgrader.out") == rows(tmp_path / "before.csv")
    own.write_text(own.read_text(encoding="utf-8-sig").replace("2026-11-22 00:00:00+00:00", "22.11.2026 00:00"), encoding="utf-8")
    with pytest.raises(NotebookError, match=r"cannot be read \(of bray\): grade again"):
        export(tmp_path / "out", "canvas", tmp_path / "c.csv")


# ------------------------------------------------------------------------------------------------------- all of it, in one run


class Solver:
    """Stands for the sandbox; every submission ends without an answer."""

    def __init__(self, **_):
        pass

    def run(self, *_, **__):
        return sandbox.Outcome("finished", b'{"ended": true}\n', "", 0.1)

    def close(self):
        pass


def test_a_class_from_the_roster_to_the_export(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sandbox, "Sandbox", Solver)
    monkeypatch.setattr(sandbox, "unavailable", lambda: None)
    right = lambda check, *_: Finding(check.name, check.points, check.points, 1, 1, "")
    monkeypatch.setattr("dynot_lite.course.grade.judge", right)
    for name in ("ann", "bob"):
        path = write(tmp_path / "in" / f"{name}.ipynb", PS1, {})
        os.utime(path, (0, local("2026-11-22T12:00:00").timestamp()))
    people = [
        "login;name;email;submitted",
        "ann;Ann Müller;a@x.org;2026-11-20T20:00:00Z",
        "bob;Bob;b@x.org;",
        "cleo;Cleo;c@x.org;",
    ]
    (tmp_path / "r.csv").write_text("\n".join(people), encoding="cp1252")
    rule = table(tmp_path / "d.toml", RULE)
    options = ["--roster", str(tmp_path / "r.csv"), "--deadlines", str(rule)]
    assert cli.main(["course", "grade", str(tmp_path / "in"), "--to", str(tmp_path / "out"), *options]) == 1
    printed = capsys.readouterr().out
    points = sum(part.points for part in PS1.parts if part.checks)
    total = f"{points * 0.8:g}"
    assert "PS1: 2 entries in" in printed
    assert "1 not graded (cleo)" in printed and f"{points:g} points, 2 days late: {total}" in printed
    ann, bob, cleo = read_table(tmp_path / "out" / "points.csv")
    assert (ann["name"], ann["total"], ann["time of"], ann["late"]) == ("Ann Müller", f"{points:g}", "roster", "")
    assert (bob["points"], bob["deduction"], bob["total"], bob["time of"]) == (f"{points:g}", f"{points * 0.2:g}", total, "file")
    assert bob["submitted"] == "2026-11-22 12:00:00+01:00" and bob["due"] == "2026-11-20 23:59:00+01:00"
    assert (cleo["status"], cleo["total"], cleo["login"], cleo["email"]) == ("missing", "", "cleo", "c@x.org")
    page = (tmp_path / "out" / "feedback" / "bob.html").read_text(encoding="utf-8")
    assert f"{points:g} of 100 points, 20 % less because 2 days late: {total}" in page
    assert not (tmp_path / "out" / "feedback" / "cleo.html").exists()
    assert "<strong>Ann Müller (ann)</strong>" in (tmp_path / "out" / "feedback" / "ann.html").read_text(encoding="utf-8")
    for system in ("canvas", "moodle", "gradescope", "nbgrader"):
        to = str(tmp_path / "exports" / system)
        assert cli.main(["course", "export", str(tmp_path / "out"), "--as", system, "--to", to]) == 0
    assert rows(tmp_path / "exports" / "canvas")[2][3] == "ann" and rows(tmp_path / "exports" / "moodle")[2][0] == "bob"
    exported = capsys.readouterr().out
    assert exported.count("left out: cleo: missing") == 3 and exported.count("with 0, as nbgrader does: cleo") == 1
    assert cli.main(["course", "grade", str(tmp_path / "in"), "--to", str(tmp_path / "out")]) == 0
    assert "without --roster and --deadlines, which the last grading had" in capsys.readouterr().out
    assert cli.main(["course", "grade", str(tmp_path / "in"), "--to", str(tmp_path / "out")]) == 0
    assert "without --roster" not in capsys.readouterr().out
    assert cli.main(["course", "export", str(tmp_path), "--as", "canvas", "--to", "x"]) == 1
