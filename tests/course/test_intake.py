"""The ledger of intake: whatever is in a folder of submissions, each entry is its own affair, and none goes unmentioned."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import random
import socket
import sys
import time
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from course_bank import solutions, write

from dynot_lite import cli
from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.course import feedback, intake, sandbox, submissions, tables, texts
from dynot_lite.course import grade as grading
from dynot_lite.course import marks as by_hand
from dynot_lite.course.assignment import load, student_version
from dynot_lite.course.intake import guess, ledger
from dynot_lite.course.recovery import recovered, release_of
from dynot_lite.course.reports import GRADED
from dynot_lite.course.submissions import collect
from dynot_lite.course.texts import distinct, file_name, key, printable, read_table, write_table

PS1, PS2 = load("PS1"), load("PS2")
SOLVED = solutions(PS1)
AUTOMATIC = {part.id: part.points for part in PS1.parts if part.checks}
PROOF = "ps1-2"
REASON = sandbox.unavailable()
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="bytes in names, FIFOs and sockets are Linux's")


def without(*parts: str) -> dict[str, str]:
    """All answers but those of these parts."""
    return {name: source for name, source in SOLVED.items() if name.removesuffix("-code") not in parts}


def edited(path: Path, change) -> Path:
    """The notebook in ``path`` with ``change`` applied to its content."""
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def identified(content, forget_marks=True, names=None):
    """Give the cells the identifiers that a release has, or ``names``, and take nbgrader's metadata away."""
    released = [cell.metadata.get("nbgrader", {}).get("grade_id", f"ps1-cell-{k}") for k, cell in enumerate(PS1.notebook.cells)]
    for cell, name in zip(content["cells"][1:-1], names or released, strict=True):
        cell["id"] = name
        if forget_marks:
            cell["metadata"].pop("nbgrader", None)


# ---------------------------------------------------------------------------------- thirty submissions, twelve of them spoiled


def honest(place: Path) -> dict[str, tuple[str, str]]:
    """Write eighteen submissions that mean well; gives {student: (the part that it left unsolved, its row's remark)}."""
    parts, made = list(AUTOMATIC), {}

    def hand_in(name: str | bytes, student: str, remark: str = "", **options) -> Path:
        left = parts[len(made) % len(parts)]
        made[student] = left, remark
        answers = (
            without(left) | {PROOF: f"The proof of {student.encode('ascii', 'replace').decode()}."} | options.pop("answers", {})
        )
        write(place / "written.ipynb", PS1, answers, **options)
        target = Path(os.fsdecode(os.fsencode(place) + b"/" + os.fsencode(name)))
        target.parent.mkdir(parents=True, exist_ok=True)
        return (place / "written.ipynb").replace(target)

    hand_in("ann.ipynb", "ann")
    hand_in("Ann.ipynb", "Ann")
    hand_in("folder/PS1/mine/Untitled (3).ipynb", "folder")
    path = hand_in("bom.ipynb", "bom")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    path = hand_in("utf16.ipynb", "utf16", "UTF-16")
    path.write_bytes(path.read_text(encoding="utf-8").encode("utf-16"))
    path = hand_in("utf16be.ipynb", "utf16be", "UTF-16")
    path.write_bytes(path.read_text(encoding="utf-8").encode("utf-16-be"))
    path = hand_in("latin.ipynb", "latin", "cp1252", answers={PROOF: "D\N{LATIN SMALL LETTER U WITH DIAERESIS}nn."})
    path.write_bytes(json.dumps(json.loads(path.read_bytes()), ensure_ascii=False).encode("cp1252", "xmlcharrefreplace"))
    hand_in("M\N{LATIN SMALL LETTER U WITH DIAERESIS}ller.ipynb", "Müller")
    digest = distinct(["M\udcfcller"], ["x"], alike=len)  # alone it keeps its name
    assert digest == ["x"]
    hand_in(b"M\xfcller.ipynb", "latin Müller")
    hand_in(unicodedata.normalize("NFD", "Zoë Müller") + ".ipynb", "Zoë Müller")
    hand_in("half.ipynb", "half", answers={PROOF: "Half a pair: \ud83d, and a bell: \x07."})
    hand_in("told.ipynb", "told", last='raise ValueError("\\ud800 and \\x1b[31m")')
    edited(hand_in("kept_ids.ipynb", "kept_ids", "identifiers of the cells"), identified)
    committed = json.loads(PS1.path.with_suffix(".ipynb").read_text(encoding="utf-8"))
    names = [cell["id"] for cell in committed["cells"]]
    edited(hand_in("nbgraders_ids.ipynb", "nbgraders_ids", "identifiers of the cells"), lambda one: identified(one, names=names))
    hand_in("no_ids.ipynb", "no_ids", "the text around them", marked=False)
    hand_in("new\nline\x1b[2J.ipynb", "new line�[2J")
    hand_in("CON.ipynb", "CON")
    hand_in("x" * 200 + "é" * 20 + ".ipynb", "x" * 119 + "…")
    return made


def spoiled(place: Path) -> dict[str, tuple[str, str]]:
    """Write twelve entries that cannot be graded; gives {student: (status, a word of the reason)}."""
    whole = write(place / "whole.ipynb", PS1, SOLVED)
    text = whole.read_bytes()
    (place / "ben.IPYNB").write_bytes(text)
    (place / "carl.ipynb.txt").write_bytes(text)
    (place / "dora.zip").write_bytes(b"PK\3\4")
    (place / "emil.py").write_text("pass", encoding="utf-8")
    os.mkfifo(place / "fifo.ipynb")
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(place):
        server.bind("sock.ipynb")
    (place / "link.ipynb").symlink_to(place / "ann.ipynb")
    write(place / "other_set.ipynb", PS2, solutions(PS2))
    (place / "cut.ipynb").write_bytes(text[: len(text) // 2])
    with open(place / "huge.ipynb", "wb") as stream:
        stream.truncate(submissions.LARGEST + 1)
    (place / "deep.ipynb").write_text('{"nbformat": 4, "cells": ' + "[" * 200_000, encoding="utf-8")
    stranger = {"nbformat": 4, "cells": [{"cell_type": "code", "source": "print(1)", "metadata": {}}]}
    (place / "stranger.ipynb").write_text(json.dumps(stranger), encoding="utf-8")
    whole.unlink()
    return {
        "ben": ("not recognised", "rename it"),
        "carl": ("not recognised", "rename it"),
        "dora": ("not recognised", "an archive (.zip): unpack it"),
        "emil": ("not recognised", "a Python file"),
        "fifo": ("unreadable", "a named pipe"),
        "sock": ("unreadable", "a socket"),
        "link": ("unreadable", "a link"),
        "other_set": ("other set", "this is PS2, not PS1"),
        "cut": ("unreadable", "cut off"),
        "huge": ("unreadable", "larger than 30 MB"),
        "deep": ("unreadable", "nested too deeply"),
        "stranger": ("other set", "no cell of PS1"),
    }


@pytest.fixture(scope="module")
def thirty(tmp_path_factory):
    """One grading of them by the command line: what was handed in, the tables, the exit code, what was printed, the folder."""
    if sys.platform != "linux":
        pytest.skip("bytes in names, FIFOs and sockets are Linux's")
    place, out = tmp_path_factory.mktemp("in"), tmp_path_factory.mktemp("out")
    good, bad = honest(place), spoiled(place)
    (place / ".DS_Store").write_bytes(b"\0")
    printed = io.StringIO()
    trust = ["--trust"] if REASON else []
    with contextlib.redirect_stdout(printed):
        code = cli.main(["course", "grade", str(place), "--to", str(out), "--seed", "3", *trust])
    rows = {name: {row["student"]: row for row in read_rows(out / name)} for name in ("points.csv", "intake.csv")}
    renamed = {row["file"]: row["student"] for row in rows["points.csv"].values()}
    assert renamed["Müller.ipynb"].startswith("Müller")
    good[next(name for name in rows["points.csv"] if name.startswith("Müller~"))] = good.pop("latin Müller")
    return good, bad, rows, code, printed.getvalue(), out


def read_rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_honest_one_has_its_right_points(thirty):
    good, _, rows, *_ = thirty
    assert len(good) == 18
    for student, (left, remark) in good.items():
        row = rows["points.csv"][student]
        points = {part: float(row[part]) for part in AUTOMATIC}
        assert points == AUTOMATIC | {left: 0}, student
        assert row["status"] == "graded" and remark in row["reason"] and row["waiting"] == PROOF, row
        assert float(row["points"]) == float(row["total"]) == sum(AUTOMATIC.values()) - AUTOMATIC[left]


def test_every_spoiled_one_has_a_row_with_its_reason_and_no_points(thirty):
    good, bad, rows, *_ = thirty
    assert len(bad) == 12 and set(rows["points.csv"]) == {*good, *bad}
    for student, (status, reason) in bad.items():
        row = rows["points.csv"][student]
        assert row["status"] == status and reason in row["reason"], row
        assert {row[part] for part in AUTOMATIC} == {""} and row["points"] == row["total"] == row["waiting"] == ""
        entry = rows["intake.csv"][student]
        assert entry["status"] == status and reason in entry["reason"]
    assert rows["intake.csv"][".DS_Store"]["status"] == "ignored" and len(rows["intake.csv"]) == 31


def test_the_set_is_named_and_the_exit_code_says_that_not_all_was_graded(thirty):
    *_, code, printed, out = thirty
    assert code == 1 and printed.startswith("PS1: 30 entries")
    assert "12 not graded" in printed and "\x1b" not in printed
    record = json.loads((out / "grading.json").read_text(encoding="utf-8"))
    assert (record["assignment"], record["submissions"], record["graded"]) == ("PS1", 30, 18)


def test_everybody_has_a_page_of_their_own_and_the_answers_are_on_it(thirty):
    good, *_, out = thirty
    pages = {path.name: path.read_text(encoding="utf-8") for path in (out / "feedback").iterdir()}
    assert len(pages) == 30 and len({name.casefold() for name in pages}) == 30
    shown = [student for student in good if any(f"<strong>{student}</strong>" in page for page in pages.values())]
    assert len(shown) == 18
    for name in ("kept_ids", "nbgraders_ids", "no_ids"):
        assert f"The proof of {name}." in pages[f"{name}.html"]
    assert "Half a pair: �, and a bell: �." in pages["half.html"] and "and �[31m" in pages["told.html"]
    assert "Dünn." in pages["latin.html"] and "<strong>CON</strong>" in pages["_CON.html"]
    assert "<strong>ben</strong>: not graded." in pages["ben.html"]


# ------------------------------------------------------------------------------------- a fault in any step is one submission's


class Stub:
    """Stands for the sandbox: it runs nothing, and gives the answer of one function, so that rows differ from empty ones."""

    def __init__(self, **_):
        self.closed = False

    def run(self, program, request, *, limits):
        assert not self.closed
        return sandbox.Outcome("finished", b'{"cell": "1", "error": "seen"}\n{"ended": true}\n', "", 0.1)

    def close(self):
        self.closed = True


@pytest.fixture
def stubbed(monkeypatch):
    monkeypatch.setattr(sandbox, "Sandbox", Stub)
    monkeypatch.setattr(grading, "cases", lambda check, rng: [])  # nothing is asked: instances take seconds to draw
    monkeypatch.setattr(sandbox, "unavailable", lambda: None)


def failing(function, name: str):
    """``function``, which fails for the student of this name."""

    def changed(*arguments, **options):
        texts = [getattr(getattr(one, "submission", one), "student", one) for one in arguments]
        if any(isinstance(one, str | bytes) and (name if isinstance(one, str) else name.encode()) in one for one in texts):
            raise RuntimeError("a fault \ud800 of ours\nin two lines")
        return function(*arguments, **options)

    return changed


STEPS = {
    "reading": (submissions, "_read", "unreadable", "RuntimeError: a fault"),
    "recovering": (intake, "recovered", "graded", "could not be told apart"),
    "running": (Stub, "run", "error", "could not be run"),
    "judging": (grading._Work, "_judged", "error", "could not be judged"),
    "writing the page": (
        feedback,
        "write_page",
        "graded",
        "page of feedback (RuntimeError: a fault � of ours in two lines) could not",
    ),
    "writing the row": (tables, "_row", "error", "row could not be written"),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_fault_in_one_step_costs_one_submission_and_is_said(step, tmp_path, stubbed, monkeypatch, capsys):
    for name in ("ann", "bob", "cleo"):
        write(tmp_path / "in" / f"{name}.ipynb", PS1, {PROOF: f"By {name}."}, last=f"# {name}")
    arguments = ["course", "grade", str(tmp_path / "in"), "--to", str(tmp_path / "out"), "--jobs", "1"]
    assert cli.main(arguments) == 0
    before = {row["student"]: row for row in read_rows(tmp_path / "out" / "points.csv")}
    place, function, status, reason = STEPS[step]
    monkeypatch.setattr(place, function, failing(getattr(place, function), "bob"))
    code = cli.main(arguments)
    after = {row["student"]: row for row in read_rows(tmp_path / "out" / "points.csv")}
    assert list(after) == ["ann", "bob", "cleo"] and after["ann"] == before["ann"] and after["cleo"] == before["cleo"]
    assert after["bob"]["status"] == status and reason in after["bob"]["reason"]
    assert code == (0 if step in ("recovering",) else 1)
    assert "\ud800" not in capsys.readouterr().out


def test_after_a_fault_the_next_submission_gets_a_fresh_sandbox(tmp_path, stubbed, monkeypatch):
    made = []
    monkeypatch.setattr(Stub, "__init__", lambda self, **_: (made.append(self), setattr(self, "closed", False))[0])
    monkeypatch.setattr(Stub, "run", failing(Stub.run, "bob"))
    for name in ("ann", "bob", "cleo"):
        write(tmp_path / "in" / f"{name}.ipynb", PS1, {}, last=f"# {name}")
    reports = grading.grade(tmp_path / "in", tmp_path / "out", jobs=1)
    assert [report.status for report in reports] == ["finished", "error", "finished"] and len(made) == 2 and made[0].closed


def test_a_submission_that_the_sandbox_refuses_has_no_points_rather_than_0(tmp_path, stubbed, monkeypatch):
    monkeypatch.setattr(Stub, "run", lambda *_, **__: sandbox.Outcome("refused", b"", "refused: no\x1b[1m", 0.0))
    write(tmp_path / "in" / "ann.ipynb", PS1, {PROOF: "Proof."})
    (report,) = grading.grade(tmp_path / "in", tmp_path / "out")
    assert report.status == "refused" and not report.graded and {score.earned for score in report.scores} == {None}
    assert "\x1b" not in report.message
    assert read_rows(tmp_path / "out" / "manual.csv") == []


def test_a_table_that_cannot_be_written_does_not_cost_the_seed(tmp_path, stubbed, monkeypatch):
    write(tmp_path / "in" / "ann.ipynb", PS1, {PROOF: "Proof."})

    def held(*_):
        raise PermissionError(13, "held")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda self, target: held() if target.name == "points.csv" else os.replace(self, target))
        with pytest.raises(NotebookError, match=r"points\.csv cannot be written: close it in the spreadsheet"):
            grading.grade(tmp_path / "in", tmp_path / "out")
    seed = json.loads((tmp_path / "out" / "grading.json").read_text(encoding="utf-8"))["seed"]
    grading.grade(tmp_path / "in", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "grading.json").read_text(encoding="utf-8"))["seed"] == seed


def test_marks_follow_a_person_of_the_roster_who_hands_in_under_another_name(tmp_path, stubbed):
    """They stayed with the old name, which no longer counted, and the same proof waited to be marked again."""
    (tmp_path / "r.csv").write_text("login,name\nalee,Ada Lee\n", encoding="utf-8")
    write(tmp_path / "in" / "alee.ipynb", PS1, {PROOF: "Proof."})
    (report,) = grading.grade(tmp_path / "in", tmp_path / "out", roster=tmp_path / "r.csv")
    by_hand.read(tmp_path / "out", PS1).give("alee", PROOF, by_hand.Mark(5.0, answer=report.answers[PROOF].hash))
    write(tmp_path / "in" / "Ada Lee.ipynb", PS1, {PROOF: "Proof."}, last="# once more")
    os.utime(tmp_path / "in" / "alee.ipynb", (1, 1))
    reports = {one.submission.student: one for one in grading.grade(tmp_path / "in", tmp_path / "out", roster=tmp_path / "r.csv")}
    assert reports["alee"].status == "not used"
    assert {score.part: score.earned for score in reports["Ada Lee"].scores}[PROOF] == 5
    assert {row["student"] for row in read_table(tmp_path / "out" / "manual.csv")} == {"Ada Lee"}


def test_points_that_a_person_gave_count_for_what_could_not_be_read(tmp_path, stubbed):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "ann.ipynb").write_bytes(b"{")
    (tmp_path / "out").mkdir()
    marks = f"student,part,title,points,out of,comment\nann,{PROOF},x,5,8,on paper\n"
    (tmp_path / "out" / "manual.csv").write_text(marks, encoding="utf-8")
    (report,) = grading.grade(tmp_path / "in", tmp_path / "out", assignment="PS1")
    (row,) = read_rows(tmp_path / "out" / "points.csv")
    assert (report.points, row["status"], row["total"], row[PROOF], row["ps1-1"]) == (5, "unreadable", "5", "5", "")


# ------------------------------------------------------------------------------------------------------ what an entry may be


def statuses(folder: Path) -> dict[str, tuple[str, str]]:
    return {one.file: (one.status, one.problem) for one in collect(folder, "ps1-")}


@LINUX
def test_only_regular_files_are_opened_and_none_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "pipe"), (Path("/dev/zero"), "device"), (tmp_path, "folder")):
        assert kind in submissions._read(path, "x").problem
    (tmp_path / "ann").mkdir()
    os.mkfifo(tmp_path / "ann" / "work.ipynb")
    (tmp_path / "pipe").unlink()
    assert statuses(tmp_path)["work.ipynb"][0] == "unreadable"
    write(tmp_path / "ann" / "real.ipynb", PS1, {})
    assert statuses(tmp_path) == {"real.ipynb": ("", "")}


@LINUX
def test_a_file_that_becomes_a_pipe_or_a_link_between_two_looks_is_not_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "a.ipynb")
    write(tmp_path / "secret.txt", PS1, {})
    (tmp_path / "b.ipynb").symlink_to(tmp_path / "secret.txt")
    regular = (tmp_path / "secret.txt").stat()
    monkeypatch.setattr(Path, "lstat", lambda self: regular)  # what the first look saw
    monkeypatch.setattr(Path, "is_symlink", lambda self: False)
    assert "named pipe" in submissions._read(tmp_path / "a.ipynb", "a").problem
    one = submissions._read(tmp_path / "b.ipynb", "b")
    assert one.status == "unreadable" and not one.cells


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (b" \n", "an empty file"),
        (b"{", "cut off"),
        (b"PK\3\4", "not in JSON"),
        (b"[]", "no cells"),
        (b'{"nbformat": 4}', "no cells"),
        (b'{"nbformat": 4, "cells": {}}', "no cells"),
        (b'{"nbformat": 3, "worksheets": []}', "format is 3"),
        (b'{"nbformat": "\\ud800", "cells": []}', "format is"),
        (b'{"nbformat": 4, "cells": [1]}', "not a notebook"),
        (b'{"nbformat": 4, "cells": [{"cell_type": "code"}]}', "not a notebook"),
        (b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": [1]}]}', "not a notebook"),
        (b'{"nbformat": 4, "cells": [' + b"[" * 50_000, "nested too deeply"),
        (b'{"nbformat": 4, "cells": [' + b"{}," * 2001 + b"{}]}", "more than 2000 cells"),
        (b'{"nbformat": ' + b"9" * 5000 + b', "cells": []}', "not a notebook"),
        (b"\xff\xfe{", "not a notebook"),
    ],
)
def test_what_is_no_notebook_is_unreadable_and_told_why(content, reason, tmp_path):
    (tmp_path / "ann.ipynb").write_bytes(content)
    status, problem = statuses(tmp_path)["ann.ipynb"]
    assert status == "unreadable" and reason in problem


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("a.tar.gz", "not recognised", "archive"),
        ("a.7z", "not recognised", "archive"),
        ("a.ipynb.zip", "not recognised", "archive"),
        ("a.Ipynb", "not recognised", "rename"),
        ("a.ipynb.part", "not recognised", "something after .ipynb"),
        ("a.pdf", "not recognised", "not a notebook (.pdf)"),
        ("a", "not recognised", "without suffix"),
        (".a.ipynb", "not recognised", "hidden"),
        ("Thumbs.db", "ignored", "system"),
        ("._a.ipynb", "ignored", "system"),
    ],
)
def test_a_name_that_is_no_notebooks_is_told_what_it_is(name, status, reason, tmp_path):
    (tmp_path / name).write_bytes(b"x")
    (tmp_path / "z.ipynb").write_bytes(b"{")
    found = statuses(tmp_path)[name]
    assert found[0] == status and reason in found[1]
    (tmp_path / "folder").mkdir()
    (tmp_path / name).rename(tmp_path / "folder" / name)
    status, problem = statuses(tmp_path)["folder"]
    assert status in ("not recognised", "unreadable") and problem.startswith("no notebook")


def test_a_folder_without_end_does_not_hold_up_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(submissions, "MOST_FILES", 20)
    (tmp_path / "many").mkdir()
    for k in range(21):
        (tmp_path / "many" / f"{k}.csv").touch()
    deep = tmp_path / "deep" / "/".join("d" * 20)
    deep.mkdir(parents=True)
    write(deep / "work.ipynb", PS1, {})
    write(tmp_path / "ann.ipynb", PS1, {})
    found = statuses(tmp_path)
    assert "more than 20 files" in found["many"][1] and "no notebook" in found["deep"][1] and found["ann.ipynb"] == ("", "")


def test_a_folder_that_cannot_be_listed_is_one_entry_of_many(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    write(tmp_path / "ann.ipynb", PS1, {})

    def scandir(path, real=os.scandir):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert statuses(tmp_path)["closed"] == ("unreadable", "cannot be read: Permission denied")


def test_several_files_of_a_student_are_one_submission_and_the_others_are_named(tmp_path, stubbed, capsys):
    write(tmp_path / "in" / "ann.ipynb", PS1, {})
    write(tmp_path / "in" / "ann" / "short.ipynb", PS1, {}, drop=["ps1-1"])
    (tmp_path / "in" / "ann.zip").write_bytes(b"PK")
    assert cli.main(["course", "grade", str(tmp_path / "in"), "--to", str(tmp_path / "out")]) == 1
    assert [row["status"] for row in read_rows(tmp_path / "out" / "points.csv")] == ["graded"]
    ledger = {row["entry"]: row for row in read_rows(tmp_path / "out" / "intake.csv")}
    assert {name: row["status"] for name, row in ledger.items()} == {
        "ann.ipynb": "graded",
        "ann.zip": "not used",
        "short.ipynb": "not used",
    }
    assert "ann.ipynb of the same student counts" in ledger["ann.zip"]["reason"]


# ------------------------------------------------------------------------------------------------------- which problem set


def test_the_set_that_most_handed_in_is_graded_and_a_draw_is_for_a_person(tmp_path, stubbed, capsys):
    for name, problems in (("ann", PS1), ("bob", PS2)):
        write(tmp_path / "in" / f"{name}.ipynb", problems, {})
    with pytest.raises(NotebookError, match="1 of PS1 and of PS2: choose one with --assignment"):
        guess(tmp_path / "in")
    write(tmp_path / "in" / "cleo" / "PS2.ipynb", PS2, {})
    write(tmp_path / "in" / "cleo" / "PS1.ipynb", PS1, {PROOF: "Cleo's."})
    write(tmp_path / "in" / "dan" / "PS1.ipynb", PS1, {})
    assert guess(tmp_path / "in") == "PS1"
    assert cli.main(["course", "grade", str(tmp_path / "in"), "--to", str(tmp_path / "out")]) == 1
    rows = {row["student"]: row for row in read_rows(tmp_path / "out" / "points.csv")}
    assert {name: row["status"] for name, row in rows.items()} == dict(ann="graded", bob="other set", cleo="graded", dan="graded")
    assert rows["cleo"]["file"] == "PS1.ipynb" and rows["cleo"]["waiting"] == PROOF and rows["bob"]["points"] == ""
    assert "PS1" in capsys.readouterr().out


def test_a_set_that_nobody_names_must_be_chosen(tmp_path):
    write(tmp_path / "ann.ipynb", PS1, SOLVED, marked=False)
    with pytest.raises(NotebookError, match=r"--assignment \(PS1, PS2"):
        guess(tmp_path)
    assert [entry.submission.status for entry in ledger(tmp_path, PS1)] == [""]
    assert [entry.submission.status for entry in ledger(tmp_path, PS2)] == ["other set"]


# -------------------------------------------------------------------------------------------------- lost metadata, lost cells


def submission_of(path: Path):
    (one,) = collect(path.parent, "ps1-")
    return recovered(one, release_of(PS1))


@pytest.mark.parametrize("problems", [PS1, PS2, load("PS3")], ids=lambda problems: problems.name)
def test_every_cell_is_told_by_the_texts_alone(problems, tmp_path):
    answers = {part.id: f"The answer to {part.id}." for part in problems.parts if part.manual}
    code = solutions(problems)
    write(tmp_path / "ann.ipynb", problems, answers | code, marked=False)
    (one,) = collect(tmp_path, f"{problems.name.lower()}-")
    found = recovered(one, release_of(problems))
    assert {cell.id: cell.source for cell in found.cells if cell.id in answers | code} == answers | code
    assert {cell.id for cell in found.cells if cell.id} == set(release_of(problems).sources)


def test_what_is_not_lost_is_not_touched_and_what_cannot_be_told_is_not_guessed(tmp_path):
    whole = write(tmp_path / "a" / "x.ipynb", PS1, {PROOF: "Mine."})
    (read,) = collect(tmp_path / "a", "ps1-")
    assert submission_of(whole) == read
    path = write(tmp_path / "b" / "x.ipynb", PS1, {PROOF: "Mine."}, marked=False)

    def rewrite(content):  # the question is changed and the answer has no identifier: it could be anything
        k = next(k for k, cell in enumerate(content["cells"]) if cell["source"] == "Mine.")
        content["cells"][k - 1]["source"] += " (see the lecture)"

    one = submission_of(edited(path, rewrite))
    assert all(cell.id != PROOF for cell in one.cells) and "19 found by the text" in one.notes[0]
    marked = edited(write(tmp_path / "d" / "x.ipynb", PS1, {"ps1-5": "Mine."}, drop=[PROOF]), swapped)
    assert [cell.id for cell in submission_of(marked).cells if cell.source == "Mine."] == ["ps1-5"]  # nbgrader's word counts
    twice = write(tmp_path / "c" / "x.ipynb", PS1, {}, marked=False)
    copy = submission_of(edited(twice, lambda content: content["cells"].extend(content["cells"])))
    assert [cell.id for cell in copy.cells if cell.id] == []  # two of each: neither is the one


def swapped(content):
    """Give the answer to part 5 the notebook's own identifier of part 2, which is lost."""
    next(cell for cell in content["cells"] if cell["source"] == "Mine.")["id"] = PROOF


def waiting(path: Path, out: Path) -> tuple[list[str], dict[str, str]]:
    (report,) = grading.grade(path.parent, out, assignment="PS1")
    return report.pending, {score.part: score.comment for score in report.scores}


def test_an_absent_answer_is_not_taken_for_none(tmp_path, stubbed):
    gone = write(tmp_path / "a" / "x.ipynb", PS1, {}, drop=[PROOF])
    assert waiting(gone, tmp_path / "out1")[0] == []  # deleted, and nothing else was written
    extra = {"cell_type": "markdown", "metadata": {}, "source": "My proof, in a cell of its own."}
    edited(gone, lambda content: content["cells"].append(extra))
    pending, comments = waiting(gone, tmp_path / "out2")
    assert pending == [PROOF] and "its cell is missing" in comments[PROOF]
    beside = write(tmp_path / "b" / "x.ipynb", PS1, {})

    def insert(content):
        marks = [cell["metadata"].get("nbgrader", {}).get("grade_id") for cell in content["cells"]]
        content["cells"].insert(marks.index(PROOF) + 1, extra)

    pending, comments = waiting(edited(beside, insert), tmp_path / "out3")
    assert pending == [PROOF] and "its cell is empty, the next one is not" in comments[PROOF]


# ------------------------------------------------------------------------------------------------------------- names and texts


def test_every_sign_becomes_printable_in_names_and_storable_in_texts():
    everything = [chr(k) for k in range(0x110000)]
    for begin in range(0, len(everything), 4096):
        block = "a" + "a".join(everything[begin : begin + 4096]) + "a"
        for lines in (False, True):
            shown = printable(block, most=len(block), lines=lines)
            assert shown.encode("utf-8") and unicodedata.is_normalized("NFC", shown)
            assert printable(shown, most=len(block), lines=lines) == shown
            if lines:
                assert {one for one in shown if unicodedata.category(one) in ("Cc", "Cs")} <= set("\n\t")
            else:
                assert "\n" not in shown and all(one.isprintable() or one in texts.JOINERS for one in shown)


@pytest.mark.parametrize("marks", ["\u0300\u0316", "\u0f73"])
def test_marks_without_end_on_one_letter_take_no_time(marks):
    """To put them in order takes time in the square of their number: a quarter of an hour for what a cell may hold."""
    begin = time.monotonic()
    assert len(printable("a" + marks * 400_000, most=200_000, lines=True)) <= 64
    assert time.monotonic() - begin < 5
    assert printable("e\u0301\u0316") == unicodedata.normalize("NFC", "e\u0301\u0316")


def test_texts_are_cut_and_lines_are_kept():
    assert printable("x" * 500, most=10) == "x" * 9 + "…" and len(printable("e\u0301" * 500)) == 120
    assert printable("a\r\nb\rc\td", lines=True) == "a\nb\nc\td" and printable(" a \u2028\n b ") == "a b"
    assert printable("M\udcfcller") == "Müller" and printable("e\u0301") == "é" and printable(7) == "7"


def test_names_of_files_suit_every_system():
    for name in (
        "a/b",
        "a\\b",
        "..",
        "CON",
        "nul.txt",
        "a:b*?",
        " a. ",
        "é" * 300,
        "字" * 300,
        "😀" * 300,
        "",
        "\udcff",
        "a\x00b",
        "\ud800",
    ):
        made = file_name(name)
        assert made and not set(made) & set('<>:"/\\|?*\0') and len(f"{made}.html".encode()) <= 255
        assert made == made.strip(" .") and made.split(".")[0].upper() not in texts.RESERVED


def test_names_are_told_apart_whoever_else_hands_in():
    draw = random.Random(0)
    pool = [
        "Müller",
        "Mu\u0308ller",
        "M\udcfcller",
        "ann",
        "Ann",
        "ANN",
        "a b",
        "a  b",
        "a\nb",
        "Müller~000000",
        "\ud800",
        "\ud801",
    ]
    for _ in range(300):
        origins = draw.sample(pool, draw.randint(1, len(pool)))
        shown = [printable(one) for one in origins]
        for alike in (str, str.casefold):
            made = distinct(origins, shown, alike)
            assert len({alike(one) for one in made}) == len(made)
            assert dict(zip(origins, made, strict=True)) == dict(zip(*reordered(origins, shown, alike, draw), strict=True))
    assert distinct(["Müller", "M\udcfcller"], ["Müller", "Müller"])[0] == "Müller"
    assert distinct(["Ann", "ann"], ["Ann", "ann"], str.casefold)[1] == "ann"
    first = distinct(["Müller", "M\udcfcller"], ["Müller", "Müller"])[1]  # and somebody who calls himself so
    assert len(set(distinct(["Müller", first, "M\udcfcller"], ["Müller", first, "Müller"]))) == 3


def reordered(origins, shown, alike, draw):
    order = draw.sample(range(len(origins)), len(origins))
    return [origins[k] for k in order], distinct([origins[k] for k in order], [shown[k] for k in order], alike)


# ----------------------------------------------------------------------------------------------------------------- the tables

TABLE = [{"student": "Zoë", "points": "7,5", "comment": "a; b"}, {"student": "=1+1", "points": "", "comment": "two\nlines"}]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_table_is_read_in_whatever_form_a_spreadsheet_saves_it(encoding, separator, end, tmp_path):
    stream = io.StringIO()
    writer = csv.DictWriter(stream, TABLE[0], delimiter=separator, lineterminator=end)
    writer.writeheader()
    writer.writerows(TABLE)
    (tmp_path / "t.csv").write_bytes(stream.getvalue().encode(encoding))
    assert read_table(tmp_path / "t.csv") == TABLE


def test_a_table_that_was_written_is_read_back_and_has_no_formulas(tmp_path):
    rows = [["=1+1", "-5", "@x"], ["'=1+1", "a,b", 'say "x"']]
    write_table(tmp_path / "t.csv", ["a", "b", "c"], rows)
    assert [list(row.values()) for row in read_table(tmp_path / "t.csv")] == [["=1+1", "-5", "@x"], ["=1+1", "a,b", 'say "x"']]
    assert "\n'=1+1,'-5,'@x\n" in (tmp_path / "t.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("content", [None, b"", b"a,b\n", b"a,b\n" + b'"' + b"x" * 200_000 + b'"\n', b"\xff\xfea"])
def test_a_table_that_is_none_is_said_in_a_sentence(content, tmp_path):
    if content is not None:
        (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(NotebookError, match=r"t\.csv"):
        read_table(tmp_path / "t.csv")


def test_a_key_compares_names_as_people_do():
    assert key("Zoe\u0308 Müller") == key("ZOË  MÜLLER.") == "zoëmüller" and key("_-.") == ""


def test_the_statuses_that_give_points_are_those_of_a_submission_that_ran():
    assert set(GRADED) == set(grading.STATUS) - {"refused"}
    report = grading.Report(submissions.Submission("a", Path("a")), "finished", "", ())
    assert report.graded and not replace(report, status="error").graded
    assert len(student_version(PS1.notebook).cells) == len(release_of(PS1).cells)
