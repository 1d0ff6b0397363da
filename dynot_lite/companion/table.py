"""The table of claims: as text for a terminal, and as ``figures/claims.md``."""

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dynot_lite.companion import notebooks, record
from dynot_lite.companion.ledger import Claim

__all__ = ["escape", "markdown", "measured", "terminal", "write"]

HEAD = """\
# Claims

A notebook fails if what it measures is not as *required*; *measured* are the values of record, in the full preset ("–": none),
and benchmarks count in that preset only. Written by `python3 run.py claims --write`.
"""
Results = Mapping[str, Mapping[str, Any]]  # value and verdict by claim


def terminal(claims: Mapping[str, Claim], results: Results, *, absent: str = "NOT REACHED") -> str:
    """One line per claim with verdict, measured value, bound and statement, and the numbers of verdicts at the end.

    ``absent`` stands in place of the verdict of a claim without a result.
    """
    lines, verdicts = [], []
    for notebook, entries in _by_notebook(claims):
        lines += ["", notebook]
        for entry in entries:
            verdicts.append(results[entry.id]["verdict"] if entry.id in results else absent)
            value = measured(entry, results.get(entry.id))
            lines.append(f"  {verdicts[-1]:<12}  {entry.id:<8} {value:>10}  ({entry.bound})  {entry.statement}")
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in ("PASS", "SEEN", "SKIP", "FAIL", absent))
    return "\n".join([*lines, "", f"{len(verdicts)} claims: {counts}"])


def markdown(claims: Mapping[str, Claim], recorded: Results) -> str:
    """The text of ``figures/claims.md``, a table per notebook; values are those of record, "–" where none is."""
    lines, home = [HEAD], notebooks.root()
    for notebook, entries in _by_notebook(claims):
        path = notebooks.source_path(home / "notebooks", notebook).with_suffix(".ipynb").relative_to(home)
        lines += [f"## [{notebook}](../{path.as_posix()})", ""]
        lines += ["| claim | statement | kind | required | measured |", "|---|---|---|---|---|"]
        for entry in entries:
            cells = entry.id, escape(entry.statement), entry.kind, entry.bound, measured(entry, recorded.get(entry.id))
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def write(claims: Mapping[str, Claim], figures: Path) -> Path:
    """Write ``figures/claims.md`` with the values of record, and return it."""
    figures.mkdir(exist_ok=True)
    path = figures / "claims.md"
    path.write_text(markdown(claims, record.read(figures)), encoding="utf-8", newline="\n")
    return path


def _by_notebook(claims: Mapping[str, Claim]) -> Iterator[tuple[str, Iterator[Claim]]]:
    return itertools.groupby(claims.values(), key=lambda entry: entry.notebook)


def measured(claim: Claim, result: Mapping[str, Any] | None) -> str:
    """The value of a result in as few digits as show that it is within the bounds, "–" where there is none."""
    if result is None or result["verdict"] == "SKIP":
        return "–"
    return "not finite" if result["value"] is None else claim.rounded(result["value"])


def escape(text: str) -> str:
    """``text`` with the characters that Markdown would take for mark-up preceded by a backslash."""
    return re.sub(r"([\\|*_<`])", r"\\\1", text)
