"""Several seeds: the claims whose value depends on the seed, with median and range."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dynot_lite.companion.ledger import Claim
from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.companion.record import Outcome, as_json

__all__ = ["SEEDS", "summary", "terminal", "write"]

SEEDS = "seeds.json"


def summary(outcomes: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    """Per notebook that succeeded with every seed, the seeds, and per claim whose value is not always the same the values in
    the order of the seeds (None: not finite), their median and their range."""
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(outcome.notebook for outcome in outcomes):
        runs = sorted((outcome for outcome in outcomes if outcome.notebook == name), key=lambda outcome: outcome.seed)
        if any(outcome.status == "failed" for outcome in runs):
            continue
        claims = {}
        for identifier in runs[0].results:
            values = [outcome.results[identifier]["value"] for outcome in runs]
            if len(set(values)) > 1:
                numbers = [value for value in values if value is not None]
                spread = {"median": statistics.median(numbers), "range": [min(numbers), max(numbers)]}
                claims[identifier] = {"values": values, **spread}
        found[name] = {"seeds": [outcome.seed for outcome in runs], "claims": claims}
    return found


def terminal(claims: Mapping[str, Claim], found: Mapping[str, Mapping[str, Any]]) -> str:
    """One line per claim that depends on the seed: median, range, bound and statement."""
    lines = []
    for name, entry in found.items():
        lines += ["", f"{name}, seeds {', '.join(map(str, entry['seeds']))}: median, range of what depends on the seed"]
        for identifier, spread in entry["claims"].items():
            low, high = spread["range"]
            claim = claims[identifier]
            measured = f"{spread['median']:>8.2g}  {f'{low:.2g} … {high:.2g}':<20}"
            lines.append(f"  {identifier:<8} {measured}  ({claim.bound})  {claim.statement}")
    return "\n".join(lines)


def write(found: Mapping[str, Mapping[str, Any]], folder: Path) -> Path:
    """Write what was found to ``folder/seeds.json``; what stands there of other notebooks stays."""
    path = folder / SEEDS
    try:
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        text = as_json(dict(sorted((kept | found).items())))
    except (ValueError, TypeError):
        raise NotebookError(f"{path} is damaged: restore or remove it") from None
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    return path
