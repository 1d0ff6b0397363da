"""The ledger of claims: what the notebooks assert, and the record of each assertion.

The registry is data: one TOML file per notebook in ``claims/``. A notebook calls :func:`start` once, after its parameter
cell, and then :func:`claim` for each statement that it has just computed.
"""

from __future__ import annotations

import functools
import json
import math
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["KINDS", "PRESETS", "Claim", "claim", "read_registry", "registry", "skip", "start"]

PRESETS = ("quick", "full")
KINDS = ("identity", "inequality", "rate", "counter-example", "reproduction", "benchmark")

# The runner names the folder that takes a notebook's raw numbers and figures; without it the notebook only prints.
RUN_DIR = "DYNOT_RUN_DIR"
CLAIMS_FILE = "claims.jsonl"

_session: dict[str, Any] = {"notebook": None, "preset": None, "seed": None}


@dataclass(frozen=True)
class Claim:
    """One statement of the companion: what is measured must be within ``[at_least, at_most]``."""

    id: str
    notebook: str
    statement: str
    source: str
    kind: str
    at_most: float = math.inf
    at_least: float = -math.inf

    @property
    def bound(self) -> str:
        """The acceptance interval in words, the same on every machine."""
        bounds = []
        if self.at_least > -math.inf:
            bounds.append(f"≥ {self.at_least:g}")
        if self.at_most < math.inf:
            bounds.append(f"≤ {self.at_most:g}")
        return ", ".join(bounds)

    def accepts(self, value: float) -> bool:
        """Whether the measured value is finite and within the bounds."""
        return math.isfinite(value) and self.at_least <= value <= self.at_most

    def asserted(self, preset: str) -> bool:
        """Whether a value outside the bounds is a failure in this preset; benchmarks count in the full one only."""
        return self.kind != "benchmark" or preset == "full"

    def line(self, verdict: str, missing: str = "") -> str:
        """What a notebook prints for this claim, the same on every machine; ``missing`` is what a skipped one lacks."""
        remarks = {"SEEN": "  [asserted in the full preset]", "SKIP": f"  [{missing}]"}
        return f"{verdict} {self.id}  {self.statement}  ({self.bound})" + remarks.get(verdict, "")


def read_registry(folder: Path) -> dict[str, Claim]:
    """Read ``folder/*.toml`` (one table per claim; the file is named after its notebook) into ``{identifier: Claim}``.

    Raises ValueError naming the file for a malformed identifier, an unknown kind or key, an empty text, a bound that is
    missing or not a finite number, or an identifier used twice.
    """
    claims: dict[str, Claim] = {}
    for path in sorted(folder.glob("*.toml")):
        try:
            for identifier, fields in tomllib.loads(path.read_text(encoding="utf-8")).items():
                if identifier in claims:
                    raise ValueError(f"{identifier} is already registered for {claims[identifier].notebook}")
                claims[identifier] = _read_claim(identifier, path.stem, fields)
        except ValueError as error:  # tomllib's errors are ValueErrors, too
            raise ValueError(f"{path.name}: {error}") from None
    return claims


def _read_claim(identifier: str, notebook: str, fields: dict[str, Any]) -> Claim:
    if not re.fullmatch(r"[A-Z][A-Z0-9]*-\d+[a-z]?", identifier):
        raise ValueError(f"{identifier!r} is not an identifier such as AM-3")
    texts, bounds = {"statement", "source", "kind"}, {"at_most", "at_least"}
    unknown, missing = set(fields) - texts - bounds, texts - set(fields)
    if unknown or missing:
        raise ValueError(f"{identifier} has unknown keys {sorted(unknown)}, lacks {sorted(missing)}")
    for key in texts:
        if not isinstance(fields[key], str) or not fields[key].strip() or "\n" in fields[key]:
            raise ValueError(f"{identifier} needs one line of text as {key}, got {fields[key]!r}")
    for key in bounds & set(fields):
        if type(fields[key]) not in (int, float) or not math.isfinite(fields[key]):
            raise ValueError(f"{identifier} needs a finite number as {key}, got {fields[key]!r}")
    if fields["kind"] not in KINDS:
        raise ValueError(f"{identifier} has kind {fields['kind']!r}, not one of {KINDS}")
    entry = Claim(id=identifier, notebook=notebook, **fields)
    if not entry.bound:
        raise ValueError(f"{identifier} has no bound: give at_most, at_least or both")
    if entry.at_least > entry.at_most:
        raise ValueError(f"{identifier} can never hold: {entry.bound}")
    if entry.kind == "counter-example" and entry.at_least <= 0:
        raise ValueError(f"{identifier} is a counter-example and needs at_least > 0")
    return entry


@functools.cache
def registry() -> dict[str, Claim]:
    """All registered claims by identifier, in the order of the notebooks."""
    return read_registry(Path(__file__).parent / "claims")


def start(notebook: str, *, preset: str, seed: int) -> None:
    """Begin a run of ``notebook``: validates the parameters and sets the plotting style.

    Raises ValueError for a preset other than ``"quick"`` or ``"full"``, or a seed that is not a non-negative integer.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {PRESETS}, got {preset!r}")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"seed must be a non-negative integer, got {seed!r}")
    from dynot_lite import plots

    plots.set_style()
    _session.update(notebook=notebook, preset=preset, seed=seed)


def run_dir() -> Path | None:
    """The folder the runner gave this notebook, or None outside a run."""
    return Path(os.environ[RUN_DIR]) if os.environ.get(RUN_DIR) else None


def claim(identifier: str, value: float) -> None:
    """Assert that ``value`` (a number, or an array or tensor with one element) meets the registered claim.

    Prints one line that is the same on every machine, records the raw number with the run, and raises AssertionError if
    the value is outside the registered bounds or not finite. A benchmark is asserted in the full preset only.
    Raises KeyError if the identifier is not registered, ValueError if it belongs to another notebook or :func:`start` was
    not called.
    """
    entry = _entry(identifier)
    # .item() raises for more than one element, where float() would differ between NumPy and torch.
    value = float(value.item() if hasattr(value, "item") else value)
    asserted, passed = entry.asserted(_session["preset"]), entry.accepts(value)
    verdict = ("PASS" if passed else "FAIL") if asserted else "SEEN"
    # JSON has no infinities and no NaN: null stands for them.
    _append(entry, value if math.isfinite(value) else None, verdict)
    if verdict == "FAIL":
        raise AssertionError(f"{identifier}: measured {value:.6g}, required {entry.bound}")


def skip(identifier: str, missing: str = "the peer is not installed") -> None:
    """Record that a benchmark was not measured, because the peer or the data that it needs is ``missing``.

    Results with a skipped claim cannot become results of record. Raises as :func:`claim`, and ValueError for any other kind
    of claim: only the comparison with a peer, or on data that cannot be shipped, can be left out.
    """
    entry = _entry(identifier)
    if entry.kind != "benchmark":
        raise ValueError(f"{identifier} is of kind {entry.kind!r}; only a benchmark can be skipped")
    _append(entry, None, "SKIP", missing)


def _entry(identifier: str) -> Claim:
    """The registered claim, which must be of the notebook that was started."""
    if _session["notebook"] is None:
        raise ValueError("call dynot_lite.companion.start(notebook, preset=, seed=) before the first claim")
    if identifier not in registry():
        raise KeyError(f"{identifier} is not in the registry of claims")
    entry = registry()[identifier]
    if entry.notebook != _session["notebook"]:
        raise ValueError(f"{identifier} is registered for {entry.notebook}, not for {_session['notebook']}")
    return entry


def _append(entry: Claim, value: float | None, verdict: str, missing: str = "") -> None:
    """Write the result to the run's record and print its line."""
    if folder := run_dir():
        with open(folder / CLAIMS_FILE, "a", encoding="utf-8") as stream:
            stream.write(json.dumps({"id": entry.id, "value": value, "verdict": verdict}) + "\n")
    print(entry.line(verdict, missing))
