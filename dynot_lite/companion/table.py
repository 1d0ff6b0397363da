"""The table of claims: as text for a terminal, and as the generated part of README."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dynot_lite.companion import notebooks
from dynot_lite.companion.ledger import Claim

__all__ = ["markdown", "read_recorded", "refresh", "terminal"]

BEGIN, END = "<!-- claims:begin -->", "<!-- claims:end -->"
Results = Mapping[str, Mapping[str, Any]]  # value and verdict by claim


def read_recorded(figures: Path) -> dict[str, dict[str, Any]]:
    """The results of record, ``{claim: {"value", "verdict"}}``, of all notebooks in ``figures/results.json``."""
    path = figures / "results.json"
    if not path.exists():
        return {}
    recorded = json.loads(path.read_text(encoding="utf-8"))
    return {identifier: result for notebook in recorded.values() for identifier, result in notebook["claims"].items()}


def terminal(claims: Mapping[str, Claim], results: Results, *, absent: str = "NOT REACHED") -> str:
    """One line per claim with verdict, measured value, bound and statement, and the numbers of verdicts at the end.

    ``absent`` stands in place of the verdict of a claim without a result.
    """
    lines, verdicts = [], []
    for notebook, entries in _by_notebook(claims):
        lines += ["", notebook]
        for entry in entries:
            verdicts.append(results[entry.id]["verdict"] if entry.id in results else absent)
            measured = _measured(results.get(entry.id))
            lines.append(f"  {verdicts[-1]:<12}  {entry.id:<8} {measured:>10}  ({entry.bound})  {entry.statement}")
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in ("PASS", "SEEN", "SKIP", "FAIL", absent))
    return "\n".join([*lines, "", f"{len(verdicts)} claims: {counts}"])


def markdown(claims: Mapping[str, Claim], recorded: Results) -> str:
    """The table of claims for README, a part per notebook; values are those of record (full preset), "–" where none is."""
    lines, home = [], notebooks.root()
    for notebook, entries in _by_notebook(claims):
        path = notebooks.source_path(home / "notebooks", notebook).with_suffix(".ipynb").relative_to(home)
        lines += [f"**[{notebook}]({path.as_posix()})**", ""]
        lines += ["| claim | statement | kind | required | measured (full preset) |", "|---|---|---|---|---|"]
        lines += [
            f"| {entry.id} | {_escape(entry.statement)} | {entry.kind} | {entry.bound} | {_measured(recorded.get(entry.id))} |"
            for entry in entries
        ]
        lines.append("")
    return "\n".join(lines)


def refresh(text: str, block: str) -> str:
    """``text`` with ``block`` between its two marks, ``<!-- claims:begin -->`` and ``<!-- claims:end -->``.

    Raises ValueError unless each mark occurs once, in this order.
    """
    parts = re.split(f"{BEGIN}|{END}", text)
    if len(parts) != 3 or text.find(BEGIN) > text.find(END):
        raise ValueError(f"text must have one line {BEGIN} and after it one line {END}")
    return f"{parts[0]}{BEGIN}\n{block}{END}{parts[2]}"


def _by_notebook(claims: Mapping[str, Claim]) -> Iterator[tuple[str, Iterator[Claim]]]:
    return itertools.groupby(claims.values(), key=lambda entry: entry.notebook)


def _measured(result: Mapping[str, Any] | None) -> str:
    if result is None or result["verdict"] == "SKIP":
        return "–"
    return "not finite" if result["value"] is None else f"{result['value']:.2g}"


def _escape(text: str) -> str:
    """``text`` with the characters that Markdown would take for mark-up preceded by a backslash."""
    return re.sub(r"([\\|*_<`])", r"\\\1", text)
