"""Grading by hand: rubrics, rendered answers, marks that belong to an answer, tables of spreadsheets, and the local page."""

from __future__ import annotations

import base64
import csv
import http.client
import io
import json
import os
import queue
import re
import socket
import subprocess
import sys
import threading
import time
import unicodedata
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from course_bank import write
from PIL import Image, PngImagePlugin

from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.companion.processes import holding
from dynot_lite.course import answers, byhand, marks, rendering, submissions
from dynot_lite.course import assignment as assignments
from dynot_lite.course import grade as grading
from dynot_lite.course.assignment import load, names, solution, student_version
from dynot_lite.course.marks import CHANGED, Mark
from dynot_lite.course.outputs import attachments, printed
from dynot_lite.course.submissions import collect

SETS = [load(name) for name in names()]
PS1 = SETS[0]
PARTS = {part.id: part for part in PS1.parts}
MOST, ITEM = PARTS["ps1-2"].points, marks.rubric(PARTS["ps1-2"])[0][1]
needs_math = pytest.mark.skipif(not rendering.typesets(), reason="math-core is not installed (the extra [course])")


# ----------------------------------------------------------------------------------------------------------- the rubric


RUBRIC = f"""Proof.

### BEGIN RUBRIC
5: (a) the image: $\\mu_t=1:2$,
   with uniqueness
0.5: (b) symmetric

{MOST - 5.5:g}: (c) rest
### END RUBRIC"""
FIGURE = PARTS["ps1-12"].points
ITEMS = f"    ### BEGIN RUBRIC\n    # 4: figure\n    # {FIGURE - 4:g}: text\n    ### END RUBRIC\n"
IN_CODE = f"### BEGIN SOLUTION\nf = 1\n{ITEMS}### END SOLUTION"


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
            ((5, "(a) the image: $\\mu_t=1:2$, with uniqueness"), (0.5, "(b) symmetric"), (MOST - 5.5, "(c) rest")),
            "Proof.",
        ),
        ("ps1-12", IN_CODE, ((4, "figure"), (FIGURE - 4, "text")), "f = 1"),
    ):
        problems = with_source(monkeypatch, identifier, source)
        part = next(part for part in problems.parts if part.id == identifier)
        assert part.rubric == rubric and solution(problems, part) == shown
        assert not any("RUBRIC" in cell.source or "rest" in cell.source for cell in student_version(problems.notebook).cells)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("### BEGIN RUBRIC\n5: a\n2: b\n### END RUBRIC", "does not add up to"),
        ("### BEGIN RUBRIC\nfirst\n8: a\n### END RUBRIC", "begins with 'first'"),
        ("### BEGIN RUBRIC\n8: a", "not closed"),
        ("### BEGIN RUBRIC\n4: a\n### BEGIN RUBRIC\n4: b\n### END RUBRIC", "inside another"),
    ],
)
def test_a_rubric_that_does_not_fit_is_refused(monkeypatch, source, told):
    with pytest.raises(NotebookError, match=told):
        with_source(monkeypatch, "ps1-2", source)


def test_a_rubric_that_nbgrader_would_hand_out_is_refused(monkeypatch):
    source = f"### BEGIN SOLUTION\nf = 1\n### END SOLUTION\n### BEGIN RUBRIC\n# {FIGURE:g}: all\n### END RUBRIC"
    with pytest.raises(NotebookError, match="rubric outside of its solution"):
        student_version(with_source(monkeypatch, "ps1-12", source).notebook)


# ------------------------------------------------------------------------------------------------------ rendered answers


class Tags(HTMLParser):
    """The elements and attributes of a page, the text in it, and whether its elements are closed in order."""

    VOID = {"img", "br", "hr", "meta", "link", "input", "mspace"}

    def __init__(self, page: str):
        super().__init__()
        self.found, self.text, self.open, self.wrong = [], "", [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.text += data


PLAIN = "p div span code pre h1 h2 h3 h4 h5 h6 em strong s ul ol li table thead tbody tr th td blockquote img br hr".split()  # noqa: SIM905
HOSTILE = {
    "script": "<script>alert(1)</script>",
    "event": '<img src=x onerror="alert(1)">',
    "vector": '<svg onload="alert(1)"><a href="javascript:alert(1)">x</a></svg>',
    "link": "[x](javascript:alert(1)) [y](JaVaScRiPt:alert(1)) [z](vbscript:x) [w](data:text/html,<script>1</script>)",
    "outside": "[x](http://192.0.2.1/ 'title') <http://192.0.2.1> ![x](http://192.0.2.1/x.png) ![y](//192.0.2.1/y.png)",
    "reference": "[x][1] ![y][1]\n\n[1]: javascript:alert(1)\n[1]: http://192.0.2.1/",
    "picture": "![x](data:image/svg+xml;base64,PHN2Zz4=) ![y](data:image/png;base64,PHN2Zz4=) ![z](attachment:none.png)",
    "quotes": '![a"onerror="alert(1)](http://192.0.2.1/"onerror="alert(1))  <a href="x" style="position:fixed">',
    "closes": "</div></section></main></body><form action=http://192.0.2.1><input></form><!-- <![CDATA[ <?xml",
    "style": "<style>body{display:none}</style><link rel=stylesheet href=http://192.0.2.1/>",
    "formula": r"$\text{</math><script>alert(1)</script>}$ $<img src=x onerror=alert(1)>$ $\href{javascript:alert(1)}{x}$",
    "attributes": r"$\class{x}{y} \style{position:fixed}{z} \textcolor{red\"onclick=alert(1)}{x} \color{red;position:fixed}{x}$",
    "definitions": r"$\def\x{\x\x}\x$ $\newcommand{\q}[1]{#1#1}\q{\q{\q{\q{\q{\q{\q{\q{x}}}}}}}}$ $\def\sqrt{<script>}\sqrt$",
    "entities": "&lt;script&gt; &#60;script&#62; &amp;lt; &#x1F;",
    "code": "`<script>` \n\n```html\n<script>alert(1)</script>\n```\n\n```<script>\n```",
    "half a pair": "\ud800 $\udfff$ \x00 \x1b[31m \u202e",
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE)
def test_nothing_that_a_student_writes_becomes_part_of_the_page(source):
    page = Tags(rendering.markdown(source) + rendering.inline(source) + rendering.code(source))
    assert not page.wrong and not page.open
    for tag, attributes in page.found:
        assert tag in PLAIN or (tag.startswith("m") and tag not in ("meta", "marquee"))
        assert not any(name.startswith("on") or name in ("href", "action", "xlink:href") for name in attributes)
        assert tag != "img" or attributes["src"].startswith("data:image/png")
        assert "position" not in attributes.get("style", "")


def test_pictures_are_those_of_the_notebook_and_links_are_shown_not_followed():
    address = {"a.png": "/here/1.png"}.get
    source = "![one](attachment:a.png) ![two](attachment:b.png) [text](http://e.org/?a=1&b=2) <http://e.org>"
    page = rendering.markdown(source, address)
    assert [one["src"] for tag, one in Tags(page).found if tag == "img"] == ["/here/1.png"]
    assert "[a picture that is not in the notebook: attachment:b.png]" in page
    assert "text (http://e.org/?a=1&amp;b=2)" in page and ">http://e.org</span>" in page


def formulas_of(source):
    tokens = rendering._reader().parse(source)
    return [token for one in tokens for token in (one, *(one.children or ())) if token.type in rendering.FORMULAS]


@needs_math
@pytest.mark.parametrize("problems", SETS, ids=lambda problems: problems.name)
def test_every_formula_of_the_solved_problem_sets_is_typeset(problems):
    for cell in (cell for cell in problems.notebook.cells if cell.cell_type == "markdown"):
        page = rendering.markdown(cell.source)
        assert page.count("<math") == len(formulas_of(cell.source))
        assert "merror" not in page and 'class="tex"' not in page, cell.source
    for text in (text for part in problems.parts for _, text in part.rubric):
        assert "merror" not in rendering.inline(text)


@needs_math
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (r"$\mathbb E[X]$", "𝔼"),  # the sign itself: browsers ignore the older way to say it
        ("\\begin{align}\na&=b\\\\\n&=c\\tag{3}\\label{x}\n\\end{align}", "(3)"),
        (r"$\alpha*x$", "<mi>α</mi>"),
        (r"$$x=1 \tag{2}$$", "(2)"),
        ("$a,\\\nb$", "<mi>b</mi>"),
        (r"$\DeclareMathOperator{\Ent}{Ent}\Ent(\mu)$ and $\Ent$", "Ent"),
        (r"$\newcommand{\R}{\mathbf q}\R$", "𝐪"),
        (r"$\newcommand{\half}[1]{\frac{#1}{2}}$ $\half{x}$", "<mfrac>"),
        (r"$\sum_{\substack{i\\j}}$", "<mtable"),
        (r"$\mathds 1\ \bm x$", "𝟙"),
        (r"$$\begin{eqnarray*}a&=&b\end{eqnarray*}$$", "<mtable"),
    ],
)
def test_what_students_write_is_typeset(source, expected):
    page = rendering.markdown(source)
    assert expected in page and "merror" not in page and 'class="tex"' not in page


@needs_math
@pytest.mark.parametrize(
    "formula",
    ["{" * 9000, r"\left(" * 2000, "x^{" * 3000, r"\\left(" * 1000, r"\sqrt" * 2000, r"\begin{pmatrix}" * 600],
    ids=["braces", "brackets", "exponents", "lines", "roots", "matrices"],
)
def test_a_formula_that_would_end_the_program_or_hold_it_costs_itself_only(formula):
    begin = time.monotonic()
    page = rendering.markdown(f"$a$ ${formula}$ $b$")
    assert time.monotonic() - begin < 8
    assert formula[:60] in page and "<mi>a</mi>" in page and "<mi>b</mi>" in page


def test_an_answer_of_many_slow_cells_does_not_hold_up_the_others(monkeypatch):
    """A cell may be copied as often as one likes; each would have had its seconds."""
    monkeypatch.setattr(rendering, "SECONDS", 0.2)
    monkeypatch.setattr(rendering, "markdown", lambda *_: time.sleep(0.15) or "typeset")
    shown = rendering.answer([answers.Piece("markdown", f"{k}. $x$") for k in range(500)], {}.get)
    assert 1 <= shown.count("typeset") <= 2 and "<pre>499. $x$</pre>" in shown


def test_environments_without_end_are_shown_as_source():
    begin = time.monotonic()
    assert rendering.markdown("\\begin{align}\n" * 12_000).startswith("<pre>")
    assert time.monotonic() - begin < 2


def test_without_the_library_formulas_are_shown_as_source(monkeypatch):
    monkeypatch.setattr(rendering, "typesets", lambda: False)
    rendering._mathml.cache_clear()
    page = rendering.markdown("**Proof.** $x<y$\n\n$$\n\\int f\n$$")
    rendering._mathml.cache_clear()
    assert '<code class="tex">x&lt;y</code>' in page and r'<code class="tex">\int f</code>' in page and "<strong>" in page


# ------------------------------------------------------------------------------------- an answer, and the hash of an answer


def png(colour=(200, 30, 30), size=(40, 20), **texts) -> bytes:
    stream, header = io.BytesIO(), PngImagePlugin.PngInfo()
    for name, text in texts.items():
        header.add_text(name, text)
    Image.new("RGB", size, colour).save(stream, "PNG", pnginfo=header)
    return stream.getvalue()


def submitted(folder: Path, student: str, texts, *, attached=None, pictures=(), out="", line_end="\n"):
    """Write a submission and read it: ``attached`` pictures belong to ps1-2, ``pictures`` and ``out`` are shown by ps1-12."""
    path = write(folder / f"{student}.ipynb", PS1, texts)
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        name = cell["metadata"].get("nbgrader", {}).get("grade_id")
        if name == "ps1-2" and attached:
            cell["attachments"] = {key: {"image/png": base64.b64encode(one).decode()} for key, one in attached.items()}
        if name == "ps1-12":
            cell["outputs"] = [
                {"output_type": "display_data", "data": {"image/png": base64.b64encode(one).decode(), "text/plain": "<Figure>"}}
                for one in pictures
            ] + [{"output_type": "stream", "name": "stdout", "text": out}]
        cell["source"] = cell["source"].replace("\n", line_end)
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return next(one for one in collect(folder, "ps1-") if one.student == unicodedata.normalize("NFC", student))


RELEASED = {cell.metadata.get("nbgrader", {}).get("grade_id"): cell.source for cell in student_version(PS1.notebook).cells}
RELEASED.pop(None, None)


def answers_of(submission):
    return answers.answers_of(submission, PS1.parts, RELEASED)


PROOF = "Let $x$ be é.\n\nThen  so.\n"


def test_the_hash_is_of_what_was_answered_and_not_of_how_it_was_saved(tmp_path):
    def hashes(texts=PROOF, **options):
        found = answers_of(submitted(tmp_path, "ann", {"ps1-2": texts, "ps1-12": "plot()"}, **options))
        return found["ps1-2"].hash, found["ps1-12"].hash

    first = hashes(attached={"a.png": png()}, pictures=[png()], out="1 s")
    for same in (
        dict(texts="Let $x$ be e\u0301.   \n\nThen  so."),
        dict(line_end="\r\n"),
        dict(pictures=[png(Software="another")]),
        dict(attached={"image.png": png(Date="later")}),
        dict(out="2 s"),
    ):
        options = dict(attached={"a.png": png()}, pictures=[png()], out="1 s") | same
        assert hashes(**options) == first
    for other in (
        dict(texts="Let $x$ be é.\n\nThen so."),
        dict(attached={"a.png": png((200, 30, 31))}),
        dict(attached={}),
        dict(attached={"a.png": png(size=(20, 40))}),
    ):
        assert hashes(**(dict(attached={"a.png": png()}, pictures=[png()], out="1 s") | other))[0] != first[0]
    for other in (dict(pictures=[]), dict(pictures=[png((0, 0, 0))]), dict(pictures=[png(), png()])):
        assert hashes(**(dict(attached={"a.png": png()}, pictures=[png()]) | other))[1] != first[1]
    assert all(one[0] == "h" and len(one) == 16 for one in first)  # a spreadsheet must not take it for a number


def test_an_answer_is_empty_if_nothing_was_written_nor_attached(tmp_path):
    for text, options, empty in (
        ("YOUR ANSWER HERE", {}, True),
        ("  your answer here", {}, False),
        ("\n YOUR  ANSWER HERE\n", {}, True),
        ("", {}, True),
        ("YOUR ANSWER HERE", {"attached": {"a.png": png()}}, False),
        ("YOUR ANSWER HERE", {"attached": {"a.png": b"no picture"}}, True),
        ("x", {}, False),
    ):
        found = answers_of(submitted(tmp_path, "ann", {"ps1-2": text}, **options))
        assert found["ps1-2"].empty is empty and found["ps1-12"].empty


def test_what_is_kept_of_a_notebook_is_pictures_and_words_whatever_it_has_in_their_place():
    good = base64.b64encode(png()).decode()
    assert attachments({"attachments": {"a": {"image/png": good}, "b": {"image/png": 1}, "c": 2, "d": {}}}) == (("a", png()),)
    for wrong in (None, 1, [], "x", {"a": None}, {"a": {"image/png": ["\ud800"]}}):
        assert attachments({"attachments": wrong}) == ()
    stream, result = (
        {"output_type": "stream", "text": ["a\n", "b\n"]},
        {"output_type": "execute_result", "data": {"text/plain": "c"}},
    )
    assert printed([stream, result]) == "a\nb\nc"
    assert printed([{"output_type": "error", "ename": "E", "evalue": "no\ud800"}]) == "E: no?\n"
    for wrong in (None, 1, "x", [1, None, {}, {"output_type": "stream", "text": 3}, {"data": [], "text": {}}]):
        assert printed(wrong) == ""
    assert len(printed([{"output_type": "stream", "text": "x" * 10**6}])) <= 20_000


def test_a_picture_in_a_thousand_copies_is_looked_at_once_and_of_many_only_some(monkeypatch):
    looked = []
    monkeypatch.setattr(answers, "_pixels", lambda content: looked.append(content) or content.hex())
    picture = lambda k: b"GIF8" + bytes([k % 256, k // 256])
    cells = [submissions.Cell("code", "ps1-5", "x = 1", (picture(k // 2),)) for k in range(1000)]
    found = answers._answer(cells, "")
    assert len(looked) == len(found.files) == answers.MOST_PICTURES and len(found.pieces) == 1000


def test_answers_are_kept_with_their_pictures_and_no_others(tmp_path):
    one = answers_of(submitted(tmp_path / "in", "ann", {"ps1-2": "a\ud800b"}, attached={"a.png": png(), "b.svg": b"<svg>"}))
    answers.write(tmp_path, "PS1", {"ann": one})
    name, found = answers.read(tmp_path)
    assert name == "PS1" and found["ann"]["ps1-2"].hash == one["ps1-2"].hash and found["ann"]["ps1-5"].empty
    ((key, file),) = found["ann"]["ps1-2"].pieces[0].attachments
    assert key == "a.png" and (tmp_path / "answers" / file).read_bytes() == png()
    answers.write(tmp_path, "PS1", {})
    assert list((tmp_path / "answers").iterdir()) == []
    with pytest.raises(NotebookError, match="first grade into it"):
        answers.read(tmp_path / "nowhere")


# ------------------------------------------------------------------------------------------ marks, and the table of marks


@pytest.fixture
def graded(tmp_path):
    """What gives the reports of a grading of some answers, without running anything."""
    folder = tmp_path / "out"
    folder.mkdir()

    def grade(*, write_table=True, **texts):
        handed_in = {}
        for student, text in texts.items():
            handed_in[student] = answers_of(submitted(tmp_path / "in", student, {"ps1-2": text, "ps1-5": "five"}))
        found = marks.read(folder, PS1)
        every = [(who, part, one) for who, parts in handed_in.items() for part, one in parts.items()]
        scores = {(who, part): found.score(who, PARTS[part], one) for who, part, one in every}
        answers.write(folder, "PS1", handed_in)
        if write_table:
            found.write(handed_in)
        return scores

    grade.folder = folder
    return grade


def table(folder):
    with open(folder / "manual.csv", encoding="utf-8-sig", newline="") as stream:
        return {(row["student"], row["part"]): row for row in csv.DictReader(stream)}


def edit(folder, changes, *, drop=(), encoding="utf-8-sig", separator=",", comma=False, head=""):
    """Change cells of manual.csv as a person does in a spreadsheet, which saves it in its own way."""
    rows = table(folder)
    for (student, part, column), entry in changes.items():
        rows[student, part][column] = entry
    columns = [name for name in marks.COLUMNS if name not in drop]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, delimiter=separator, extrasaction="ignore", lineterminator="\r\n")
    writer.writeheader()
    for row in rows.values():
        writer.writerow({key: entry.replace(".", ",") if comma and key == "points" else entry for key, entry in row.items()})
    (folder / "manual.csv").write_bytes((head + stream.getvalue()).encode(encoding))


def test_a_mark_belongs_to_the_answer_it_was_given_for(graded):
    graded(ann="A proof.", bob="Another.")
    edit(graded.folder, {("ann", "ps1-2", "points"): "5.5", ("bob", "ps1-2", "points"): "3", ("bob", "ps1-2", "comment"): "good"})
    assert graded(ann="A proof.", bob="Another.")["ann", "ps1-2"].earned == 5.5
    found = graded(ann="A proof that is another one.", bob="Another.")  # C7: the points stayed, and nobody was told
    ann, bob = found["ann", "ps1-2"], found["bob", "ps1-2"]
    assert (ann.earned, ann.changed, bob.earned, bob.comment) == (None, True, 3, "good")
    row = table(graded.folder)["ann", "ps1-2"]
    assert (row["points"], row["state"]) == ("5.5", CHANGED)
    assert graded(ann="A proof that is another one.", bob="Another.")["ann", "ps1-2"].changed  # again: nothing confirms it
    edit(graded.folder, {("ann", "ps1-2", "comment"): "hm"})
    score = graded(ann="A proof that is another one.", bob="Another.")["ann", "ps1-2"]
    assert score.changed and score.comment == "hm"  # a comment does not confirm points
    assert graded(ann="A proof.", bob="Another.")["ann", "ps1-2"].earned == 5.5  # the first answer again: its mark


@pytest.mark.parametrize("change", [{"state": ""}, {"state": "ok"}, {"points": "6"}, {"points": "0"}], ids=str)
def test_a_flagged_mark_is_confirmed_in_the_table_by_its_state_or_by_other_points(graded, change):
    graded(ann="One.")
    edit(graded.folder, {("ann", "ps1-2", "points"): "5"})
    graded(ann="One.")
    graded(ann="Two.")
    edit(graded.folder, {("ann", "ps1-2", key): entry for key, entry in change.items()})
    assert graded(ann="Two.")["ann", "ps1-2"].earned == float(change.get("points", 5))
    assert graded(ann="Three.")["ann", "ps1-2"].changed


def test_points_for_an_answer_that_changed_since_the_table_was_written_are_flagged(graded):
    graded(ann="One.")
    edit(graded.folder, {("ann", "ps1-2", "points"): "5"})
    assert graded(ann="Two.")["ann", "ps1-2"].changed
    for drop in (["answer"], ["answer", "state"]):
        edit(graded.folder, {("ann", "ps1-2", "points"): "4"}, drop=drop)  # without the column: of the answer at the export
        assert graded(ann="Two.")["ann", "ps1-2"].earned == 4
        edit(graded.folder, {("ann", "ps1-2", "points"): "3"}, drop=drop)
        assert graded(ann="Three.")["ann", "ps1-2"].changed
        edit(graded.folder, {("ann", "ps1-2", "state"): ""})
        graded(ann="Two.")


def test_a_table_of_an_earlier_grading_is_of_the_answers_of_that_grading(graded):
    graded(ann="One.")
    early = (graded.folder / "manual.csv").read_text(encoding="utf-8-sig").replace(f"velocity,,{MOST:g}", f"velocity,5,{MOST:g}")
    graded(ann="Two.")
    (graded.folder / "manual.csv").write_text(early, encoding="utf-8")
    assert graded(ann="Two.")["ann", "ps1-2"].changed
    assert graded(ann="One.")["ann", "ps1-2"].earned == 5


def test_a_table_from_nowhere_is_not_believed_to_be_of_this_answer(graded):
    (graded.folder / "manual.csv").write_text(
        "student,part,title,points,out of,comment\nann,ps1-2,x,5.5,8,'=good\nann,ps1-10,x,0,6,not answered\n", encoding="utf-8"
    )
    found = graded(ann="One.")
    assert found["ann", "ps1-2"].changed and found["ann", "ps1-2"].comment == "=good"
    assert found["ann", "ps1-10"].earned == 0 and not found["ann", "ps1-10"].changed
    edit(graded.folder, {("ann", "ps1-2", "state"): ""})
    assert graded(ann="One.")["ann", "ps1-2"].earned == 5.5


@pytest.mark.parametrize(
    "way",
    [
        {},
        {"encoding": "utf-8"},
        {"separator": ";", "comma": True, "encoding": "cp1252"},
        {"separator": ";", "comma": True, "encoding": "utf-8-sig"},
        {"separator": "\t", "encoding": "utf-16"},
        {"separator": "\t", "encoding": "utf-16-le"},
        {"separator": "\t", "encoding": "utf-16-be", "comma": True},
        {"separator": ";", "head": "sep=;\r\n"},
        {"head": "\r\n"},
    ],
    ids=str,
)
def test_the_table_is_read_however_a_spreadsheet_saved_it(graded, way):
    comment = "gut; „so“ – aber\r\nwarum, 1,5?"
    graded(Müller="Eins.", ann="One.")
    changes = {("Müller", "ps1-2", "points"): "7.5", ("Müller", "ps1-2", "comment"): comment, ("ann", "ps1-5", "points"): "0"}
    edit(graded.folder, changes, **way)
    found = graded(Müller="Eins.", ann="One.")
    score = found["Müller", "ps1-2"]
    assert (score.earned, score.comment) == (7.5, comment.replace("\r\n", "\n"))
    assert found["ann", "ps1-5"].earned == 0 and found["ann", "ps1-2"].earned is None
    semicolons = way.get("separator") == ";"  # written back as it was
    text = (graded.folder / "manual.csv").read_bytes()
    assert (
        text.startswith(b"\xef\xbb\xbfstudent;" if semicolons else b"\xef\xbb\xbfstudent,") and (b";7,5;" in text) is semicolons
    )
    assert graded(Müller="Eins.", ann="One.")["Müller", "ps1-2"].earned == 7.5


def test_names_that_a_spreadsheet_takes_for_numbers_and_accents_in_pieces_are_found(graded):
    texts = {"00123": "One.", "12345678901234567": "Two.", "Mu\u0308ller": "Three."}
    graded(**texts)
    path = graded.folder / "manual.csv"
    text = path.read_text(encoding="utf-8-sig")
    for old, new, title in (("00123", "123", "5"), ("12345678901234567", "1,23457E+16", "6"), ("Mu\u0308ller", "Müller", "7")):
        new = f'"{new}"'
        text = text.replace(f"{old},ps1-2,{PARTS['ps1-2'].title},,", f"{new},ps1-2,{PARTS['ps1-2'].title},{title},")
    path.write_text(text, encoding="utf-8")
    found = graded(**texts)
    assert [found[name, "ps1-2"].earned for name in texts] == [5, 6, 7]


def test_names_and_comments_are_no_formulas(graded):
    graded(ann="One.")
    edit(graded.folder, {("ann", "ps1-2", "points"): "5", ("ann", "ps1-2", "comment"): "=HYPERLINK(1)"})
    graded(ann="One.")
    assert table(graded.folder)["ann", "ps1-2"]["comment"] == "'=HYPERLINK(1)"
    assert graded(ann="One.")["ann", "ps1-2"].comment == "=HYPERLINK(1)"


def test_the_later_of_two_marks_counts_and_marks_of_the_absent_stay(graded):
    graded(ann="One.", bob="Two.")
    store = marks.read(graded.folder, PS1)
    store.give("ann", "ps1-2", Mark(4.0, "on the page", (), answers.read(graded.folder)[1]["ann"]["ps1-2"].hash))
    assert graded(ann="One.", bob="Two.", write_table=False)["ann", "ps1-2"].earned == 4  # the table as it was says nothing
    edit(graded.folder, {("ann", "ps1-2", "points"): "6"})
    assert graded(ann="One.", bob="Two.")["ann", "ps1-2"].earned == 6
    edit(graded.folder, {("ann", "ps1-2", "points"): "2"})
    old = time.time() - 100
    os.utime(graded.folder / "manual.csv", (old, old))
    store = marks.read(graded.folder, PS1)
    store.give("ann", "ps1-2", Mark(7.0, "", (), store.given["ann", "ps1-2"].answer))
    assert graded(ann="One.", bob="Two.")["ann", "ps1-2"].earned == 7
    graded(bob="Two.")
    assert table(graded.folder)["ann", "ps1-2"]["state"] == "not in this folder"
    assert graded(ann="One.", bob="Two.")["ann", "ps1-2"].earned == 7
    edit(graded.folder, {("ann", "ps1-2", "points"): ""})
    assert graded(ann="One.", bob="Two.")["ann", "ps1-2"].earned is None


def test_a_table_that_a_spreadsheet_holds_costs_no_marks(graded, monkeypatch):
    """The store already knew the new rows, so that the old table looked as if somebody had removed the points."""
    graded(ann="One.")
    marks.read(graded.folder, PS1).give(
        "ann", "ps1-2", Mark(7.0, "well", (), answers.read(graded.folder)[1]["ann"]["ps1-2"].hash)
    )

    def held(path, *_, **__):
        raise NotebookError(f"{path} cannot be written: close it")

    with monkeypatch.context() as patch:
        patch.setattr(marks, "write_table", held)
        with pytest.raises(NotebookError, match="close it"):
            graded(ann="One.")
    with open(graded.folder / "manual.csv", "a", encoding="utf-8"):  # saved once more before it was closed
        os.utime(graded.folder / "manual.csv", (time.time() + 10, time.time() + 10))
    score = graded(ann="One.")["ann", "ps1-2"]
    assert (score.earned, score.comment) == (7, "well")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("student,part,points\nann,ps1-2,99\n", f"line 2: '99' is not between 0 and {MOST:g}"),
        ("student,part,points\n\nann,ps1-2,many\n", "line 3: 'many' is not between"),
        ("student,part,points\nann,ps1-2,nan\n", "'nan' is not between"),
        ("student,part,points\nann,ps1-2,-1\n", "'-1' is not between"),
        ("student,part,points\nann,ps1-2,05. Jul\n", "'05. Jul' is not between"),
        ("student,part,points\nann,ps1-1,1\n", "'ps1-1' is not a part of PS1 that a person grades"),
        ("student,part\nann,ps1-1\n", "no column 'points'"),
        ("", "no column 'student'"),
        ('student,part,points\nann,ps1-2,"' + "x" * 200_000, "field larger"),
    ],
)
def test_a_table_with_a_mistake_is_refused_in_a_sentence(graded, text, told):
    (graded.folder / "manual.csv").write_text(text, encoding="utf-8")
    with pytest.raises(NotebookError, match=told):
        marks.read(graded.folder, PS1)


def test_a_store_that_is_damaged_or_of_another_set_is_refused_in_a_sentence(graded):
    graded(ann="One.")
    store = graded.folder / "marks.json"
    text = store.read_text(encoding="utf-8")
    half = '{"assignment": "PS1", "key": "", "marks": {"a": {"b": {}}}, "exported": {}}'
    for broken in (text[:50], "[]", "null", '{"assignment": "PS1"}', half):
        store.write_text(broken, encoding="utf-8")
        with pytest.raises(NotebookError, match="put an older copy in its place"):
            marks.read(graded.folder, PS1)
    store.write_text(text.replace('"PS1"', '"PS2"'), encoding="utf-8")
    with pytest.raises(NotebookError, match="marks of PS2, not of PS1"):
        marks.read(graded.folder, PS1)


def test_a_first_table_has_the_separators_of_the_country(graded, monkeypatch):
    monkeypatch.setattr(marks.locale, "localeconv", lambda: {"decimal_point": ","})
    graded(ann="One.")
    assert (graded.folder / "manual.csv").read_text(encoding="utf-8-sig").startswith("student;part;")


def test_a_grading_says_everywhere_that_an_answer_changed_since_it_was_marked(tmp_path):
    def run(text):
        submitted(tmp_path / "in", "ann", {"ps1-2": text}, attached={"a.png": png()})
        (report,) = grading.grade(tmp_path / "in", tmp_path / "out", seed=1, trust=True)
        return report, (tmp_path / "out" / "feedback" / "ann.html").read_text(encoding="utf-8")

    report, page = run("The *proof*: $x^2$. ![sketch](attachment:a.png)")
    assert report.pending == ["ps1-2"] and "Waits to be graded" in page and "<em>proof</em>" in page
    assert [one["src"][:22] for tag, one in Tags(page).found if tag == "img"] == ["data:image/png;base64,"]
    assert ("<msup>" in page) is rendering.typesets()
    edit(tmp_path / "out", {("ann", "ps1-2", "points"): "5.5"})
    assert run("The *proof*: $x^2$. ![sketch](attachment:a.png)")[0].points == 5.5
    report, page = run("Another proof.")
    assert report.points == 0 and report.pending == ["ps1-2 (changed)"]
    assert "the answer changed since then" in page
    assert "ps1-2 (changed)" in (tmp_path / "out" / "points.csv").read_text(encoding="utf-8")
    assert table(tmp_path / "out")["ann", "ps1-2"]["state"] == CHANGED


# --------------------------------------------------------------------------------------------------------------- the page


CLASS = {"ann": "It is $x^2$.", "Béla": "Wrong.", "carl": "YOUR ANSWER HERE", "mallory": "".join(HOSTILE.values())}


@pytest.fixture
def course(graded):
    """A folder with the answers of a small class."""
    graded(**CLASS)
    return graded.folder


@contextmanager
def served(folder, blind=False):
    """The address of the page, and the thread in which the program runs as a lecturer starts it."""
    opened = queue.Queue()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byhand.webbrowser, "open", opened.put)
        program = threading.Thread(target=byhand.mark, args=(folder,), kwargs={"blind": blind}, daemon=True)
        program.start()
        address = opened.get(timeout=60)
    try:
        yield program, address
    finally:
        if program.is_alive():
            ask(address, "finish", body="")
        program.join(30)
        assert not program.is_alive()


def ask(address, path="", *, body=None, **headers):
    """A request as some program sends it; gives the status, the headers and the text."""
    host, root = re.fullmatch(r"http://([^/]+)(/[^/]+/)", address).groups()
    connection = http.client.HTTPConnection(host, timeout=20)
    where = path if path.startswith("/") else root + path
    sent = None if body is None else body if isinstance(body, (str, bytes)) else json.dumps(body)
    connection.request(
        "GET" if sent is None else "POST", where, sent, {key.replace("_", "-"): text for key, text in headers.items()}
    )
    reply = connection.getresponse()
    found = reply.status, dict(reply.headers), reply.read().decode()
    connection.close()
    return found


def links(page):
    """The addresses of the answers on a page, by the name that it shows."""
    return {name: url for url, name in re.findall(r'<li><a href="[^"]*/([\w-]+/\w+)"[^>]*><bdi>([^<]+)</bdi>', page)}


def answer_pages(address, part="ps1-2"):
    status, headers, _ = ask(address, part)
    assert status == 302
    return links(ask(address, headers["Location"])[2])


MARK = {"points": "", "items": [], "comment": "", "confirmed": False}


def test_the_page_is_for_its_starter_only_and_stores_what_is_sent_at_once(course):
    with served(course) as (_, address):
        status, headers, index = ask(address)
        policy = headers["Content-Security-Policy"]
        assert (
            status == 200 and policy.startswith("default-src 'none'") and "script-src 'self';" in policy and "http" not in policy
        )
        assert "unsafe-inline" not in policy.replace("style-src-attr 'unsafe-inline'", "") and "unsafe-eval" not in policy
        assert headers["Referrer-Policy"] == "no-referrer" and headers["X-Content-Type-Options"] == "nosniff"
        assert "Server" not in headers
        assert not re.search(r"<script(?! src)|<style|\son\w+=|javascript:", index)
        guessed = "/" + "x" * 22
        outside = ("/", "/ps1-2", "/mark.js", f"{guessed}/", f"{guessed}/ps1-2")
        for path in (*outside, "ps1-1", "ps1-2/AAAAA", "answers/../marks.json", "marks.json"):
            assert ask(address, path)[0] == 404, path
        for headers in ({"Host": "evil.example:80"}, {"Origin": "http://evil.example"}):
            assert ask(address, **headers)[0] == 403
        pages = answer_pages(address)
        assert list(pages) == ["ann", "Béla", "carl", "mallory"]
        assert ask(address, pages["ann"], body=MARK, Origin="http://evil.example")[0] == 403
        status, _, said = ask(
            address, pages["ann"], body=MARK | {"points": "7,5", "comment": "<b>good</b>", "items": ["none such"]}
        )
        assert status == 200 and json.loads(said)["kind"] == "marked"
        stored = json.loads((course / "marks.json").read_text(encoding="utf-8"))["marks"]["ann"]["ps1-2"]
        assert (stored["points"], stored["comment"], stored["items"]) == (7.5, "<b>good</b>", [])
        page = ask(address, pages["ann"])[2]
        assert "&lt;b&gt;good&lt;/b&gt;" in page and 'value="7.5"' in page
        out_of_range = [{"points": text} for text in ("99", "-1", "nan", "x")]
        for wrong in (*out_of_range, {"points": 5}, {"items": [1]}, {"items": 1}, {"comment": None}):
            status, _, said = ask(address, pages["ann"], body=MARK | wrong)
            assert status == 400 and json.loads(said)["problem"]
        for wrong in ("", "null", "[]", "{", b"\xff", "1"):
            assert ask(address, pages["ann"], body=wrong)[0] == 400
        assert json.loads((course / "marks.json").read_text(encoding="utf-8"))["marks"]["ann"]["ps1-2"] == stored
        with pytest.raises(NotebookError, match="in use by process"), holding(course):
            pass
        with pytest.raises(NotebookError, match="in use by process"):
            grading.grade(course.parent / "in", course, trust=True)
        page = ask(address, pages["mallory"])[2]
        hostile = Tags(re.search(r'<section id="rendered">(.*?)</section>\s*<section id="raw"', page, re.S)[1])
        assert not hostile.wrong and not {"script", "form", "style", "svg", "a", "input"} & {tag for tag, _ in hostile.found}
    row = table(course)["ann", "ps1-2"]
    assert (row["points"], row["comment"]) == ("7.5", "<b>good</b>")


def test_a_program_that_is_killed_has_lost_nothing_and_starts_again(course):
    command = [sys.executable, "-m", "dynot_lite", "course", "mark", str(course), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        address = re.search(r"http\S+/", program.stdout.readline())[0]
        ask(address, answer_pages(address)["ann"], body=MARK | {"points": "3"})
        program.kill()
    (course / "marks.json.partial").write_text("{", encoding="utf-8")  # half of a file that was not completed
    with served(course) as (_, address):
        assert 'value="3"' in ask(address, answer_pages(address)["ann"])[2]
    assert table(course)["ann", "ps1-2"]["points"] == "3"


def test_blind_names_are_nowhere_stay_the_same_and_each_question_has_its_own_order(course, graded):
    shown = []
    for _ in range(2):
        with served(course, blind=True) as (_, address):
            pages = {part: answer_pages(address, part) for part in ("ps1-2", "ps1-5", "ps1-10")}
            shown.append(pages)
            whole = ask(address)[2] + "".join(ask(address, url)[2] for url in pages["ps1-2"].values())
        for name in CLASS:
            assert not re.search(rf"\b{name}\b", whole)
    assert shown[0] == shown[1] and len({tuple(pages) for pages in shown[0].values()}) > 1
    assert {frozenset(pages) for pages in shown[0].values()} == {frozenset(shown[0]["ps1-2"])}
    assert all(re.fullmatch("[A-Z2-9]{5}", one) for one in shown[0]["ps1-2"])
    graded(**CLASS, dora="New.")  # who comes later changes nobody's name
    desk = byhand.Desk(course, blind=True)
    assert set(shown[0]["ps1-2"]) < set(desk.students)


def test_a_flagged_mark_waits_on_the_page_until_it_is_kept_or_given_anew(graded):
    graded(ann="One.")
    desk = byhand.Desk(graded.folder)
    desk.give("ann", "ps1-2", "5", [ITEM], "good", False)
    assert desk.state("ann", "ps1-2") == "marked" and desk.next_waiting("ps1-2") is None
    for confirm in ({"confirmed": True}, {"points": "5.5"}, {"items": []}):
        graded(ann="Two.")
        desk = byhand.Desk(graded.folder)
        assert desk.state("ann", "ps1-2") == "changed" and desk.next_waiting("ps1-2") == "ann"
        assert "changed since it was marked" in desk.page("/x", PARTS["ps1-2"], "ann")
        desk.give("ann", "ps1-2", "5", [ITEM], "a comment is no confirmation", False)
        assert desk.state("ann", "ps1-2") == "changed"
        mark = dict(points="5", items=[ITEM], comment="", confirmed=False) | confirm
        desk.give("ann", "ps1-2", **mark)
        assert desk.state("ann", "ps1-2") == "marked"
        graded(ann="One.")
        desk = byhand.Desk(graded.folder)
        desk.give("ann", "ps1-2", "5", [ITEM], "", True)


def test_feedback_says_which_items_were_found(tmp_path, monkeypatch):
    part = assignments.Part("ps1-2", "x", 8, (), False, ((5.0, "the image"), (3.0, "symmetric")))
    found = marks.Marks(tmp_path, PS1)
    found.parts["ps1-2"] = part
    answer = answers.Answer((), "h1", False, {})
    given = found.give("ann", "ps1-2", Mark(5.0, "", ("the image", "another"), "h1"))
    assert given.items == ("the image",)
    assert found.score("ann", part, answer).items == (("the image", 5.0, True), ("symmetric", 3.0, False))
    with pytest.raises(NotebookError, match="9 is not between 0 and 8"):
        found.give("ann", "ps1-2", Mark(9.0))


def test_a_part_that_is_new_since_the_grading_is_said_in_a_sentence(graded):
    graded(ann="One.")
    store = graded.folder / "answers.json"
    record = json.loads(store.read_text(encoding="utf-8"))
    record["students"]["ann"].pop("ps1-5")
    store.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(NotebookError, match="has other parts than when .* was graded: run course grade again first"):
        byhand.Desk(graded.folder)


def test_what_cannot_be_served_is_said_in_a_sentence(tmp_path, course):
    with pytest.raises(NotebookError, match="no folder"):
        byhand.mark(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotebookError, match="has no answers: first grade into it"):
        byhand.mark(tmp_path / "empty")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(NotebookError, match=r"port \d+ cannot be used"):
            byhand.mark(course, port=taken.getsockname()[1])
    with pytest.raises(NotebookError, match="port 70000 cannot be used"):
        byhand.mark(course, port=70_000)


# ------------------------------------------------------------------------------------------------------------- a browser


def test_a_lecturer_marks_a_class_in_a_browser(course, chrome):
    with served(course) as (program, address):
        tab = chrome.new_page(viewport={"width": 1300, "height": 900})
        wrong, asked = [], []
        tab.on("console", lambda message: wrong.append(message.text))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(address)
        assert tab.locator("tbody tr").count() == 4 and tab.locator("tbody tr .todo").first.inner_text() == "3"
        tab.click("text=Two proofs about this velocity")
        assert tab.locator("h2 bdi").inner_text() == "ann"
        if rendering.typesets():
            assert tab.locator("#rendered math msup").bounding_box()["width"] > 5

        def stored(student="ann"):
            tab.locator("#saved", has_text="Stored").wait_for()
            return json.loads((course / "marks.json").read_text(encoding="utf-8"))["marks"].get(student, {}).get("ps1-2", {})

        tab.keyboard.press("1")  # ticks the first item
        tab.locator(".all .marked[aria-current]").wait_for()
        first = float(tab.locator("#points").input_value())
        assert stored()["points"] == first and len(stored()["items"]) == 1
        tab.keyboard.press("p")
        tab.keyboard.type("6,5")
        tab.keyboard.press("Enter")
        tab.locator(".all [aria-current] span", has_text="6.5").wait_for()
        assert stored()["points"] == 6.5
        tab.keyboard.press("c")
        tab.keyboard.type("jump over <n> lines")  # letters are no shortcuts in a field
        tab.keyboard.press("Escape")
        tab.keyboard.press("ArrowRight")  # what was typed a moment ago is stored before the page is left
        tab.locator("h2 bdi", has_text="Béla").wait_for()
        assert stored_mark(course, "ann")["comment"] == "jump over <n> lines"
        tab.keyboard.press("0")
        tab.locator(".all .marked[aria-current]").wait_for()
        assert stored_mark(course, "Béla")["points"] == 0
        tab.keyboard.press("u")
        tab.locator(".all .waits[aria-current]").wait_for()
        assert stored_mark(course, "Béla") == {}
        tab.fill("#points", "99")
        tab.locator("#points").blur()
        assert f"from 0 to {MOST:g}" in tab.locator("#saved").inner_text()
        assert tab.locator("#points").get_attribute("aria-invalid") == "true"
        assert stored_mark(course, "Béla") == {}
        tab.fill("#points", "2")
        tab.keyboard.press("Escape")
        tab.locator(".all .marked[aria-current]").wait_for()
        tab.keyboard.press("n")
        tab.locator("h2 bdi", has_text="mallory").wait_for()
        assert tab.locator("#raw").is_hidden()
        tab.keyboard.press("s")
        assert "<script>alert(1)</script>" in tab.locator("#raw").inner_text() and tab.locator("#rendered").is_hidden()
        tab.keyboard.press("q")
        tab.keyboard.press("m")
        assert tab.locator("#question").get_attribute("open") is not None and tab.locator("#solution .answer").is_visible()
        assert wrong == [] and all(url.startswith(address) or url.startswith("data:,") for url in asked)
        tab.keyboard.press("i")
        tab.wait_for_selector("#finish")
        assert tab.locator("tbody tr .todo").first.inner_text() == "1"
        tab.click("#finish")
        tab.wait_for_selector("text=All marks are stored")
        program.join(20)
        assert not program.is_alive()
        tab.close()
    assert {student: row["points"] for (student, part), row in table(course).items() if part == "ps1-2"} == {
        "ann": "6.5",
        "Béla": "2",
        "carl": "0",
        "mallory": "",
    }


def stored_mark(folder, student, part="ps1-2"):
    return json.loads((folder / "marks.json").read_text(encoding="utf-8"))["marks"].get(student, {}).get(part, {})


def test_the_browser_says_that_a_mark_could_not_be_stored_and_sends_it_again(course, chrome):
    with served(course) as (_, address):
        tab = chrome.new_page()
        tab.goto(address + "ps1-2")
        tab.route("**/ps1-2/*", lambda route: route.abort() if route.request.method == "POST" else route.continue_())
        tab.keyboard.press("a")
        tab.wait_for_selector("#saved.bad")
        assert stored_mark(course, "ann") == {}
        tab.keyboard.press("j")
        tab.wait_for_timeout(300)
        assert tab.locator("h2 bdi").inner_text() == "ann"  # what is not stored is not left
        tab.unroute("**/ps1-2/*")
        tab.locator("#saved", has_text="Stored").wait_for(timeout=10_000)
        assert stored_mark(course, "ann")["points"] == MOST
        tab.close()


def test_a_flagged_mark_is_kept_by_a_key_in_the_browser(graded, chrome):
    graded(ann="One.")
    byhand.Desk(graded.folder).give("ann", "ps1-2", "5", [], "", False)
    graded(ann="Two.")
    with served(graded.folder) as (_, address):
        tab = chrome.new_page()
        tab.goto(address + "ps1-2")
        assert tab.locator("#changed").is_visible()
        tab.keyboard.press("y")
        tab.wait_for_selector("#changed", state="hidden")
        tab.close()
    assert table(graded.folder)["ann", "ps1-2"]["state"] == ""


def test_hostile_answers_do_nothing_on_the_page_nor_in_the_feedback(tmp_path, chrome):
    texts = {"ps1-2": "\n\n".join(HOSTILE.values()), "ps1-12": "x = '</pre><script>alert(1)</script>'"}
    submitted(tmp_path / "in", "mallory", texts, out="<script>")
    grading.grade(tmp_path / "in", tmp_path / "out", seed=1, trust=True)
    with served(tmp_path / "out") as (_, address):
        for url in (address + "ps1-2", address + "ps1-12", (tmp_path / "out" / "feedback" / "mallory.html").as_uri()):
            tab = chrome.new_page()
            wrong, asked = [], []
            tab.on("dialog", lambda dialog, wrong=wrong: (wrong.append(dialog.message), dialog.dismiss()))
            tab.on("console", lambda message, wrong=wrong: wrong.append(message.text))
            tab.on("request", lambda request, asked=asked: asked.append(request.url))
            tab.goto(url)
            tab.wait_for_timeout(100)
            assert wrong == [] and not any("192.0.2.1" in one for one in asked)
            assert tab.locator(".answer").first.is_visible()
            assert tab.locator(".answer script, .answer form, .answer style, .answer a").count() == 0
            tab.close()
