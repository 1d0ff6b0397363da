"""The paper as data: the claims that statements and questions name are made in the sections named, quotations are quotations."""

import json
import os
import re
from pathlib import Path

import pytest

from dynot_lite.companion import ledger, notebooks, paper

ROOT = Path(__file__).resolve().parents[2]
TEXTS = "DYNOT_TEXTS"  # a folder with the texts, which are not ours to ship: the summary first, then the review


def made(name):
    """The claims that the code of a notebook makes, by the number of the section."""
    section, found = "", {}
    for cell in notebooks.read_source(notebooks.source_path(ROOT / "notebooks", name)).cells:
        if cell.cell_type == "markdown":
            headings = re.findall(r"^## (\d+)\. ", cell.source, re.MULTILINE)
            section = headings[-1] if headings else section
            found.setdefault(section, set())
        else:
            found.setdefault(section, set()).update(re.findall(r"\b[A-Z][A-Z0-9]*-\d+[a-z]?\b", cell.source))
    return found


def misplaced(places):
    """The claims that are not made where ``places``, by NOTEBOOK, section k, says."""
    wrong = []
    for place, claims in places:
        name, section = place.split(", section ")
        sections = made(name)
        if section not in sections:
            wrong.append(f"{name} has no section {section}")
        wrong += [f"{claim} is not in {place}" for claim in claims if claim not in sections.get(section, ())]
        wrong += [f"{claim} is not a claim of {name}" for claim in claims if ledger.registry()[claim].notebook != name]
    return wrong


def test_the_claims_of_every_question_are_made_in_the_cells_that_it_names():
    assert misplaced(place for question in paper.questions() for place in question.cells.items()) == []


def test_the_claims_of_every_statement_are_made_in_the_notebook_of_its_proof():
    for statement in paper.statements():
        name = statement.proof.split(", section ")[0]
        assert {ledger.registry()[claim].notebook for claim in statement.claims} == {name}
        assert statement.claims and statement.functions


def test_a_claim_in_another_section_and_a_section_that_is_not_there_are_found():
    assert misplaced([("proofs/05_am_ot_equivalence, section 2", ["AM-20"])]) == [
        "AM-20 is not in proofs/05_am_ot_equivalence, section 2"
    ]
    assert "no section 77" in misplaced([("proofs/05_am_ot_equivalence, section 77", [])])[0]


def test_every_claim_whose_number_is_shown_is_among_the_cells_of_its_question():
    for question in paper.questions():
        named = {claim for claims in question.cells.values() for claim in claims}
        assert set(paper.NUMBER.findall(question.number)) <= named, question.asked
        assert paper.NUMBER.search(question.number) or not named, f"no number: {question.asked}"


def test_all_failure_signatures_experiments_checks_limitations_and_directions_have_a_row():
    said = [question.said for question in paper.questions()]
    for kind, number in {"failure signatures": 3, "first experiments": 3, "next checks": 3, "limitations": 4}.items():
        assert {f"review, {kind} ({k})" for k in range(1, number + 1)} <= set(said)
    assert {f"summary, {kind} ({k})" for kind in ("limitations", "directions") for k in (1, 2, 3)} <= set(said)


@pytest.mark.skipif(TEXTS not in os.environ, reason=f"{TEXTS} is not set: a folder with the texts")
def test_questions_are_quotations():
    texts = [path.read_text(encoding="utf-8") for path in sorted(Path(os.environ[TEXTS]).glob("*.txt"))[:2]]
    bare = lambda text: re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()
    for question in paper.questions():
        source = texts[question.said.startswith("review")]
        assert bare(question.asked) in bare(source), question.asked
        assert len(question.asked.split()) <= 25, question.asked


def test_numbers_are_those_of_the_run_or_of_the_record_or_what_is_required(tmp_path, monkeypatch):
    assert paper.filled("off by {AM-20}, {AM-33}", {"AM-20": 3.14159e-13}) == "off by 3.1e-13, ≥ 0.5"
    line = json.dumps({"id": "AM-20", "value": 1.5e-14, "verdict": "PASS"})
    (tmp_path / ledger.CLAIMS_FILE).write_text(line + "\n", encoding="utf-8")
    monkeypatch.setenv(ledger.RUN_DIR, str(tmp_path))
    values = paper.measured()
    assert values["AM-20"] == 1.5e-14 and len(values) > 400  # the others of record


def test_the_table_links_from_where_it_is_shown(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(paper, "show_table", shown.extend)
    monkeypatch.setitem(ledger._session, "notebook", "proofs/07_limits_of_the_equivalence")
    paper.table()
    assert len(shown) == 2 + len(paper.questions()) and all(row.count(" | ") == 3 for row in shown[2:])
    links = {link for row in shown for link in re.findall(r"\]\(([^)]+\.ipynb)\)", row)}
    folder = ROOT / "notebooks" / "proofs"
    assert {"05_am_ot_equivalence.ipynb", "../06_learning_brenier_maps.ipynb"} <= links
    assert all((folder / link).exists() for link in links)
