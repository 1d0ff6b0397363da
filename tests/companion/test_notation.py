"""The notation: the page is that of the data, and notebooks 00 to 05, 07 and 08 use no symbol for what it never means."""

import re
from pathlib import Path

import nbformat
import pytest

from dynot_lite.companion import notation, notebooks

ROOT = Path(__file__).resolve().parents[2]
NAMES = [name for name in notebooks.find_notebooks(ROOT / "notebooks") if re.match(r"(?:proofs/)?0[0-578][a-z]?_", name)]
EXERCISES = "04_gaussian_exercises"  # the notebooks that state and solve those of the notes


def faults(name, cells):
    """What the notebook ``name`` uses and should not, with the number of the cell; quotations are free."""
    found = []
    for number, cell in enumerate(cells, 1):
        text = re.sub(r"^>.*$", "", cell.source, flags=re.MULTILINE) if cell.cell_type == "markdown" else cell.source
        for rule, pattern in patterns(name, "text" if cell.cell_type == "markdown" else "program"):
            found += [f"cell {number}: {hit[0]} (see {rule})" for hit in re.finditer(pattern, text)]
    return found


def patterns(name, kind):
    for row in notation.read()["symbol"]:
        if not (row.get("exercises") and name.endswith(EXERCISES)):
            yield from ((row["symbol"], pattern) for pattern in row.get(kind, ()))
    for rule, patterns in notation.read()["programs"].items() if kind == "program" else ():
        yield from ((rule, pattern) for pattern in patterns)


def test_the_page_is_that_of_the_data():
    assert (ROOT / notation.PAGE).read_text(encoding="utf-8") == notation.page(), "python3 run.py claims --write"


def test_rows_are_complete_and_cells_of_the_table_have_no_bars():
    for row in notation.read()["symbol"]:
        assert set(row) - {"never", "text", "program", "exercises"} == {"symbol", "meaning", "code"}
        assert "never" in row or not (row.get("text") or row.get("program")), row["symbol"]
    assert all(line.count("|") in (0, 3, 5) for line in notation.page().splitlines())


@pytest.mark.parametrize("name", NAMES)
def test_no_symbol_is_used_for_what_it_never_means(name):
    cells = notebooks.read_source(notebooks.source_path(ROOT / "notebooks", name)).cells
    assert faults(name, cells) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("between $p_0$ and $p_{1}$, $p_t$", ["p_0", "p_{1}", "p_t"]),
        (r"$\exp_0$, $p_0^k$, $p_k$ and $\mu_t$", []),
        (r"for all $\psi$, and $\chi$, not $\chi^2$ or $\Psi$", [r"\psi", r"\chi"]),
        ("> the notes' $\\psi$\n\nours is $\\zeta$", []),
        (r"$T=\nabla\varphi$, $\varphi_t$, $\varphi_k$", [r"\nabla\varphi", r"\varphi_k"]),
        (r"$X_t=cX_0+sX_1$, $c=\cos\omega$, $s=\sin\omega$", [r"c=\cos", r"s=\sin"]),
        (r"$aX_0+bX_1$ but $a_tX_0$", ["aX_0", "bX_1"]),
        (r"$\alpha I\preceq\nabla^2\Psi$", [r"\alpha I\preceq"]),
        (r"$v_\theta$ and $E_\theta$, $R_\theta$, $\cos\theta$", [r"v_\theta", r"R_\theta", r"\cos\theta"]),
        ("Lipschitz with constant $L$, $e^{2L}$", ["Lipschitz with constant $L", "e^{2L"]),
        (r"weights $\pi_k$ of $\pi$", [r"\pi_k"]),
        ("in dimension $D=3$", ["dimension $D"]),
    ],
)
def test_what_it_never_means_is_found_in_text(text, found):
    cells = [nbformat.v4.new_markdown_cell("nothing"), nbformat.v4.new_markdown_cell(text)]
    hits = [fault.removeprefix("cell 2: ").rsplit(" (see ", 1)[0] for fault in faults("01_walk", cells)]
    assert sorted(hits) == sorted(found)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ('S0, S1 = p.cov, q.cov\nclaim("S01-1", S01.max())', ["S0", "S1", "S01"]),
        ("def law(t):\n    return p", ["def law("]),
        ('law["weights"]', ['law["']),
        ("psi = window", ["psi"]),
        ("law = Gaussian(m, C)", []),
    ],
)
def test_what_it_never_means_is_found_in_code(code, found):
    hits = [fault.removeprefix("cell 1: ").rsplit(" (see ", 1)[0] for fault in faults("x", [nbformat.v4.new_code_cell(code)])]
    assert sorted(hits) == sorted(found)


def test_the_exercises_keep_the_letters_of_the_notes():
    cells = [nbformat.v4.new_markdown_cell(r"$\pi_k$ and $cX_1$ and $\psi$")]
    assert len(faults("proofs/04_gaussian_exercises", cells)) == 1 and len(faults("01_x", cells)) == 3
