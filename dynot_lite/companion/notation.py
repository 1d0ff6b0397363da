"""The notation of the companion, as data in ``notation.toml``; ``notebooks/NOTATION.md`` is :func:`page`."""

import functools
import tomllib
from pathlib import Path
from typing import Any

__all__ = ["page", "read", "write"]

DATA = Path(__file__).with_name("notation.toml")
PAGE = Path("notebooks", "NOTATION.md")
HEAD = """\
# Notation

A symbol may carry an index; without it, it means only this. Exercises of the lecture notes keep the notes' letters. *Not for* is
what the letter stands for elsewhere, or another letter for the same thing: a test finds it in notebooks. Written by
`python3 run.py claims --write` from `notation.toml`.
"""


@functools.cache
def read() -> dict[str, Any]:
    """The data: ``symbol``, a list of rows, ``words`` by what they name, and patterns of ``programs`` by their rule.

    The patterns are for a test, which finds them in notebooks.
    """
    return tomllib.loads(DATA.read_text(encoding="utf-8"))


def page() -> str:
    """The text of ``notebooks/NOTATION.md``."""
    lines = [HEAD, "| symbol | meaning | in code | not for |", "|---|---|---|---|"]
    lines += [f"| {row['symbol']} | {row['meaning']} | {row['code']} | {row.get('never', '–')} |" for row in read()["symbol"]]
    lines += ["", "| word | meaning |", "|---|---|", *(f"| *{word}* | {meaning} |" for word, meaning in read()["words"].items())]
    return "\n".join(lines) + "\n"


def write(home: Path) -> Path:
    """Write the page of the clone ``home``, and return it."""
    path = home / PAGE
    path.parent.mkdir(exist_ok=True)
    path.write_text(page(), encoding="utf-8", newline="\n")
    return path
