"""The errata: what an entry may say, that it quotes, that its claims exist, that notebooks show it, and its numbers anew."""

import math
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from dynot_lite.companion import errata, ledger, notebooks
from dynot_lite.paths.flows import integrate

ROOT = Path(__file__).resolve().parents[2]
NAMES = notebooks.find_notebooks(ROOT / "notebooks")
TEXTS = "DYNOT_TEXTS"  # a folder with the five texts, which are not ours to ship: names in the order of errata.TEXTS
ORDER = ("action matching, summary", "action matching, review", "notes", "amortised, summary", "semidiscrete, summary")
BOX = re.compile(r"^(?:> .*\n?|>\n)*?> \*\*Errat[\s\S]*?(?=^(?!>)|\Z)", re.MULTILINE)
SHOWN = re.compile(r"errata\.box\(\s*[\"']([^\"']+)[\"']\s*\)")

ENTRY = """
[X-01]
text = "notes"
place = "somewhere"
grade = "false"
printed = "one is two"
corrected = "one is one"
counter_example = "one"
claims = ["X-1"]
proof = "proofs/00_start_here, section 1"
"""


def cells(name):
    return notebooks.read_source(notebooks.source_path(ROOT / "notebooks", name)).cells


def shown(name):
    """The entries that a notebook shows, each with the section it stands in."""
    section, found = "", []
    for cell in cells(name):
        if cell.cell_type == "code":
            found += [(identifier, section) for identifier in SHOWN.findall(cell.source)]
            continue
        for line in cell.source.splitlines():
            if heading := re.match(r"##+ (?:(\d+(?:\.\d+)?)\.? )?", line):
                section = heading[1] or section
            if entry := re.match(r"> \*\*Erratum ([A-Z]+-\d\d)\b", line):
                found.append((entry[1], section))
    return found


# ---------------------------------------------------------------------------------------------------------- the data


def test_the_sheet_has_28_entries_and_these_totals():
    grades = Counter(entry.grade for entry in errata.read().values() if not entry.withdrawn)
    assert grades == {"false": 3, "gap": 7, "imprecise": 13, "typo": 5}


def test_every_claim_that_an_entry_names_is_registered():
    named = {name: entry.id for entry in errata.read().values() for name in entry.claims}
    assert {name: entry for name, entry in named.items() if name not in ledger.registry()} == {}


def test_the_sheet_is_that_of_the_data():
    assert (ROOT / errata.SHEET).read_text(encoding="utf-8") == errata.sheet(), "python3 run.py claims --write"


def test_every_entry_has_its_anchor_and_the_links_of_the_sheet_lead_somewhere():
    sheet = errata.sheet()
    for entry in errata.read().values():
        assert sheet.count(f"### {entry.id}\n") == 1 and f"[{entry.id}](#{entry.anchor})" in sheet
    links = re.findall(r"\]\(([^#)][^)]*)\)", sheet)
    assert len(links) == len(errata.read()) and all((ROOT / "figures" / link).exists() for link in links)


def bare(text):
    """A text without its mark-up: of formulas the letters stay."""
    return re.sub(r"\\left|\\right|[\s${}*]", "", text)


@pytest.mark.skipif(not os.environ.get(TEXTS), reason=f"set {TEXTS} to the folder of the five texts")
def test_what_is_printed_is_a_quotation():
    files, wrong = sorted(Path(os.environ[TEXTS]).glob("*.txt")), []
    for entry in errata.read().values():
        rest = bare(files[ORDER.index(entry.text)].read_text(encoding="utf-8"))
        for part in map(bare, entry.printed.split("…")):
            wrong += [] if part in rest else [f"{entry.id} quotes what is not there: {part}"]
            rest = rest.partition(part)[2]
    assert wrong == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[X-01]", "[X-1]"), "identifier such as"),
        (('grade = "false"', 'grade = "wrong"'), "X-01 has grade 'wrong'"),
        (('text = "notes"', 'text = "a blog"'), "X-01 has text 'a blog'"),
        (('place = "somewhere"\n', ""), "lacks ['place']"),
        (('place = "somewhere"', 'place = ""'), "one line of text as place"),
        (('place = "somewhere"', 'where = "somewhere"'), "unknown keys ['where']"),
        (('claims = ["X-1"]', 'claims = "X-1"'), "list of identifiers"),
        (('claims = ["X-1"]', "claims = []"), "needs a claim and a counter-example"),
        (('counter_example = "one"\n', ""), "needs a claim and a counter-example"),
        (("section 1", "the end"), "NOTEBOOK, section K"),
        (("one is two", "two " * 26), "X-01 quotes 26 words"),
    ],
)
def test_a_malformed_entry_is_refused(change, message):
    assert errata.parse(ENTRY)["X-01"].section == "1"
    with pytest.raises(ValueError, match=re.escape(message)):
        errata.parse(ENTRY.replace(*change))


def test_a_formula_counts_as_one_word():
    assert errata.words("the field $v_t = x + 1$ … is odd") == 5


# ------------------------------------------------------------------------------------------------------- in notebooks


def test_a_box_has_three_lines_with_grade_claims_and_a_link_to_the_sheet(monkeypatch, capsys):
    told = []
    monkeypatch.setattr(errata, "display", lambda shown: told.append(shown.data))
    monkeypatch.setitem(ledger._session, "notebook", "proofs/04_gaussian_exercises")
    errata.box("N-13")
    first, _, second, _, third = told[0].splitlines()
    assert first.startswith("> **Erratum N-13 (false).** Notes, *Extensions, loss of the trigonometric path*: “$")
    assert second.startswith(r"> *Correct:* $\dot X_t=\frac\pi2")
    assert third.endswith("(ERR-18, ERR-19, ERR-20, ERR-21, FM-16, FM-17; [the sheet](../../figures/errata.md#n-13))")
    assert "](../figures/errata.md#n-13)" in errata.markdown("N-13", "04_gaussian_exercises")
    with pytest.raises(KeyError, match="N-99 is not among the errata"):
        errata.box("N-99")


def test_a_table_has_a_row_per_entry_of_the_text_and_no_bar_in_a_formula(monkeypatch):
    told = []
    monkeypatch.setattr(errata, "display", lambda shown: told.append(shown.data))
    errata.table("notes")
    errata.table()
    rows = [line for line in told[0].splitlines() if line.startswith("| [N-")]
    assert len(rows) == 24 and len(told[1].splitlines()) == 30
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 7 for line in told[1].splitlines())
    with pytest.raises(KeyError, match="'blog' is not one of"):
        errata.table("blog")


def test_every_box_names_an_entry_and_says_what_the_data_say():
    wrong = []
    for name in NAMES:
        wrong += [f"{name}: {found}" for found, _ in shown(name) if found not in errata.read()]
        for cell in cells(name):
            for box in BOX.findall(cell.source) if cell.cell_type == "markdown" else ():
                entry = re.search(r"Erratum ([A-Z]+-\d\d)", box)
                if not entry or box.strip() != errata.markdown(entry[1], name):
                    wrong.append(f"{name}: a box of free text: {box.strip().splitlines()[0][:80]}")
    assert wrong == []


def test_every_entry_is_shown_in_the_section_that_discusses_it():
    places = {name: shown(name) for name in NAMES}
    wrong = []
    for entry in (entry for entry in errata.read().values() if not entry.withdrawn):
        own = [section for found, section in places.get(entry.notebook, []) if found == entry.id]
        if not any(f"{section}.".startswith(f"{entry.section}.") for section in own):
            others = [f"{name} {section}" for name, found in places.items() for one, section in found if one == entry.id]
            wrong.append(f"{entry.id}: not in {entry.proof}; shown in {', '.join(others) or 'no notebook'}")
    assert wrong == []


# ---------------------------------------------------------------------- numbers of counter-examples that no claim measures


def said(identifier):
    return [float(number) for number in re.findall(r"\d+\.\d+", errata.read()[identifier].counter_example)]


def test_the_numbers_of_the_counter_examples():
    assert said("N-06") == [pytest.approx(1 - 2 / math.pi, abs=5e-4)]
    assert said("N-08") == [pytest.approx(math.sqrt(0.5), abs=5e-3)]
    assert said("N-11") == [0.5 * (1 + 0.5)]
    assert said("N-12") == [0.5 * (1 + 4), 1 + 0.5]
    assert said("N-13") == [pytest.approx(2 / math.pi, abs=5e-4), pytest.approx(2 ** (2 / math.pi), abs=5e-4)]
    votes = [math.exp(-((1 - 0.5 * y) ** 2) / (2 * 0.25)) for y in (1, -1)]
    assert said("N-21") == [0.5, pytest.approx(votes[0] / sum(votes), abs=5e-4)]
    assert said("N-19") == [pytest.approx(0.0140816467, abs=5e-5)]  # EX4-18


def test_the_best_field_without_a_time_from_a_gaussian_to_one_of_twice_the_spread():
    nodes, weights = np.polynomial.legendre.leggauss(200)
    t, weights = torch.as_tensor((nodes + 1) / 2), torch.as_tensor(weights / 2)
    variance = (1 - t) ** 2 + 4 * t**2
    slope = (5 * t - 1) / variance  # v_t(x) = slope x for independent ends

    def blind(_, x):
        density = torch.exp(-x.square() / (2 * variance)) / variance.sqrt()
        return x * ((weights * density * slope).sum(1) / (weights * density).sum(1))[:, None]

    def excess(x):
        density = torch.exp(-(x**2) / (2 * variance)) / (2 * math.pi * variance).sqrt()
        return float((weights * density * (slope * x - blind(0, torch.tensor([[x]], dtype=torch.float64))[0, 0]) ** 2).sum())

    loss, one, two = said("N-09")
    assert 2 * quad(excess, 0, 25)[0] == pytest.approx(loss, abs=5e-4)
    ends = integrate(blind, torch.tensor([[1.0], [2.0]], dtype=torch.float64), steps=400, method="rk4")
    assert ends[:, 0].tolist() == pytest.approx([one, two], abs=5e-3)
