"""What arXiv 2510.27385 states, and what the texts about it ask, as data in ``paper.toml``: where each is proved and answered.

The statements make the page *paper ↔ code* of the book, the questions a table that a notebook shows with :func:`table`.
"""

import functools
import json
import posixpath
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from dynot_lite.companion import ledger, record
from dynot_lite.companion.figures import show_table
from dynot_lite.companion.notebooks import NotebookError, root

__all__ = ["Question", "Statement", "filled", "measured", "questions", "statements", "table"]

DATA = Path(__file__).with_name("paper.toml")
NUMBER = re.compile(r"\{([A-Z][A-Z0-9]*-\d+[a-z]?)\}")


@dataclass(frozen=True)
class Statement:
    """A statement of the paper: where it is made, its proof (NOTEBOOK, section k), what computes it."""

    text: str
    said: str
    proof: str
    claims: tuple[str, ...]
    functions: tuple[str, ...]  # of the package, without its name


@dataclass(frozen=True)
class Question:
    """A failure signature, check, limitation or open question: a quotation, the answer, and the claims that measure it."""

    asked: str
    said: str
    answer: str
    number: str  # {LIM-1} stands for what is measured
    cells: dict[str, tuple[str, ...]]  # claims by NOTEBOOK, section k


@functools.cache
def _data() -> dict:
    return tomllib.loads(DATA.read_text(encoding="utf-8"))


def statements() -> list[Statement]:
    """The statements, in the order of an introduction: what is recalled, the theorem, its consequences."""
    rows = _data()["statement"]
    return [Statement(**{**row, "claims": tuple(row["claims"]), "functions": tuple(row["functions"])}) for row in rows]


def questions() -> list[Question]:
    """The questions: the review's first, then the summary's."""
    rows = _data()["question"]
    return [Question(**{**row, "cells": {cell: tuple(names) for cell, names in row["cells"].items()}}) for row in rows]


def measured() -> dict[str, float]:
    """The values by claim: those of record, if there is a clone, and above them those of the notebook that runs."""
    try:
        results = list(record.read(root() / "figures").items())
    except NotebookError:
        results = []
    if (folder := ledger.run_dir()) and (folder / ledger.CLAIMS_FILE).exists():
        lines = (folder / ledger.CLAIMS_FILE).read_text(encoding="utf-8").splitlines()
        results += [(entry["id"], entry) for entry in map(json.loads, lines)]
    return {name: result["value"] for name, result in results if result["value"] is not None}


def filled(number: str, values: dict[str, float]) -> str:
    """The text of a number, with measured values in the places of the claims; without one, what is required of it."""

    def value(found: re.Match) -> str:
        claim = ledger.registry()[found[1]]
        return claim.rounded(values[claim.id]) if claim.id in values else claim.bound

    return NUMBER.sub(value, number)


def table() -> None:
    """Display all questions in a notebook: question, answer, number, cells."""
    here, values = str(ledger._session["notebook"] or ""), measured()
    rows = ["| question | answer | number | cells |", "|---|---|---|---|"]
    for entry in questions():
        cells = "; ".join(f"{_link(cell, here)}: {', '.join(names)}" for cell, names in entry.cells.items())
        rows.append(f"| “{entry.asked}” *({entry.said})* | {entry.answer} | {filled(entry.number, values)} | {cells or '–'} |")
    show_table(rows)


def _link(cell: str, here: str) -> str:
    """To a section, from the notebook ``here``; the name of a notebook without its title."""
    name, _, section = cell.partition(", section ")
    number = name.split("_")[0]
    return f"[{number}, {section}]({posixpath.relpath(f'{name}.ipynb', posixpath.dirname(here) or '.')})"
