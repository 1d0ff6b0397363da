"""The notation of the companion, as data: what a symbol means, and what it is never used for.

``notation.toml`` has it, ``notebooks/NOTATION.md`` is :func:`page`, and :func:`faults` finds what a notebook should not use.
"""

import functools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

__all__ = ["faults", "page", "read", "write"]

DATA = Path(__file__).with_name("notation.toml")
PAGE = Path("notebooks", "NOTATION.md")
EXERCISES = "04_gaussian_exercises"  # the notebooks that state and solve those of the notes
HEAD = """\
# Notation

A symbol may carry an index; without it, it means only this. Exercises of the lecture notes keep the notes' letters. *Not for* is
what the letter stands for elsewhere, or another letter for the same thing: a test finds it in notebooks. Written by
`python3 run.py claims --write` from `notation.toml`.
"""


@functools.cache
def read() -> dict[str, Any]:
    """The data: ``symbol``, a list of rows, ``words`` by what they name, and patterns of ``programs`` by their rule."""
    return tomllib.loads(DATA.read_text(encoding="utf-8"))


def page() -> str:
    """The text of ``notebooks/NOTATION.md``."""
    lines = [HEAD, "| symbol | meaning | in code | not for |", "|---|---|---|---|"]
    lines += [f"| {row['symbol']} | {row['meaning']} | {row['code']} | {row.get('never', '–')} |" for row in read()["symbol"]]
    lines += ["", "| word | meaning |", "|---|---|", *(f"| *{word}* | {meaning} |" for word, meaning in read()["words"].items())]
    return "\n".join(lines) + "\n"


def faults(name: str, cells: list[NotebookNode]) -> list[str]:
    """What the notebook ``name`` uses and should not, with the number of the cell; quotations are free."""
    found = []
    for number, cell in enumerate(cells, 1):
        text = re.sub(r"^>.*$", "", cell.source, flags=re.MULTILINE) if cell.cell_type == "markdown" else cell.source
        for rule, pattern in _patterns(name, "text" if cell.cell_type == "markdown" else "program"):
            found += [f"cell {number}: {hit[0]} (see {rule})" for hit in re.finditer(pattern, text)]
    return found


def _patterns(name: str, kind: str) -> Iterator[tuple[str, str]]:
    for row in read()["symbol"]:
        if not (row.get("exercises") and name.endswith(EXERCISES)):
            yield from ((row["symbol"], pattern) for pattern in row.get(kind, ()))
    for rule, patterns in read()["programs"].items() if kind == "program" else ():
        yield from ((rule, pattern) for pattern in patterns)


def write(home: Path) -> Path:
    """Write the page of the clone ``home``, and return it."""
    path = home / PAGE
    path.parent.mkdir(exist_ok=True)
    path.write_text(page(), encoding="utf-8", newline="\n")
    return path
