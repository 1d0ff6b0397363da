"""The ledger of claims: what the notebooks assert, and the record of each assertion.

The registry is data: one TOML file per notebook in ``claims/``. A notebook calls :func:`start` once, after its parameter
cell, and then :func:`claim` for each statement that it has just computed.
"""

import datetime
import functools
import importlib.metadata
import json
import math
import os
import platform
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["KINDS", "PRESETS", "Claim", "claim", "read_registry", "registry", "say", "skip", "start"]

PRESETS = ("quick", "full")
KINDS = ("identity", "inequality", "rate", "counter-example", "reproduction", "benchmark")

# The runner names the folder that takes a notebook's raw numbers and figures; without it the notebook only prints.
RUN_DIR = "DYNOT_RUN_DIR"
STORE = "DYNOT_STORE"  # and the folder that takes the results of its learning runs until it has succeeded
CLAIMS_FILE = "claims.jsonl"
KERNEL_FILE = "kernel.json"  # which interpreter and which package the notebook ran with

PACKAGE = Path(__file__).resolve().parents[1]
# What a recording writes itself: a change of these does not make a tree whose results have no revision. "*" spans folders.
OUTPUTS = (":!notebooks/*.ipynb", ":!figures")

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
    catches: str = ""  # the wrong version that it would find

    @property
    def bound(self) -> str:
        """The acceptance interval in words, the same on every machine."""
        bounds = []
        if self.at_least > -math.inf:
            bounds.append(f"≥ {_exactly(self.at_least)}")
        if self.at_most < math.inf:
            bounds.append(f"≤ {_exactly(self.at_most)}")
        return ", ".join(bounds)

    def accepts(self, value: float) -> bool:
        """Whether the measured value is finite and within the bounds."""
        return math.isfinite(value) and self.at_least <= value <= self.at_most

    def asserted(self, preset: str) -> bool:
        """Whether a value outside the bounds is a failure in this preset; benchmarks count in the full one only."""
        return self.kind != "benchmark" or preset == "full"

    def verdict(self, value: float, preset: str) -> str:
        """What a measured value says in this preset: PASS, FAIL, or SEEN if nothing is asserted."""
        return ("PASS" if self.accepts(value) else "FAIL") if self.asserted(preset) else "SEEN"

    def rounded(self, value: float) -> str:
        """The value in two digits, or in as many more as it takes to see on which side of the bounds it is."""
        texts = (f"{value:.{digits}g}" for digits in range(2, 18))
        return next((text for text in texts if self.accepts(float(text)) == self.accepts(value)), repr(value))

    def line(self, verdict: str, value: float | None = None, missing: str = "") -> str:
        """What a notebook prints for this claim; ``missing`` is what a skipped one lacks."""
        measured = "" if value is None else f"  measured {self.rounded(value)}"
        remarks = {"SEEN": "  [asserted in the full preset]", "SKIP": f"  [{missing}]"}
        return f"{verdict} {self.id}  {self.statement}  ({self.bound})" + measured + remarks.get(verdict, "")


def _exactly(bound: float) -> str:
    text = f"{bound:g}"
    return text if float(text) == bound else repr(bound)


def read_registry(folder: Path) -> dict[str, Claim]:
    """Read the files NOTEBOOK.toml below ``folder`` (one table per claim) into ``{identifier: Claim}``.

    Raises ValueError naming the file for a malformed identifier, an unknown kind or key, an empty text, a bound that is
    missing or not a finite number, or an identifier used twice.
    """
    claims: dict[str, Claim] = {}
    for path in sorted(folder.rglob("*.toml")):
        try:
            for identifier, fields in tomllib.loads(path.read_text(encoding="utf-8")).items():
                if identifier in claims:
                    raise ValueError(f"{identifier} is already registered for {claims[identifier].notebook}")
                claims[identifier] = _read_claim(identifier, path.relative_to(folder).with_suffix("").as_posix(), fields)
        except ValueError as error:  # tomllib's errors are ValueErrors, too
            raise ValueError(f"{path.name}: {error}") from None
    return claims


def _read_claim(identifier: str, notebook: str, fields: dict[str, Any]) -> Claim:
    if not re.fullmatch(r"[A-Z][A-Z0-9]*-\d+[a-z]?", identifier):
        raise ValueError(f"{identifier!r} is not an identifier such as AM-3")
    # What "catches" names: the wrong version that the claim would find in the place of the right one.
    texts, bounds = {"statement", "source", "kind", "catches"}, {"at_most", "at_least"}
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
    return read_registry(PACKAGE / "companion" / "claims")


def start(notebook: str, *, preset: str, seed: int) -> None:
    """Begin a run of ``notebook``: validates the parameters, sets the plotting style, and prints what the outputs are of.

    Raises ValueError for a preset other than ``"quick"`` or ``"full"``, or a seed that is not a non-negative integer.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {PRESETS}, got {preset!r}")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"seed must be a non-negative integer, got {seed!r}")
    from dynot_lite import plots

    plots.set_style()
    session = {"notebook": notebook, "preset": preset, "seed": seed}
    if folder := run_dir():
        (folder / KERNEL_FILE).write_text(json.dumps([sys.executable, str(PACKAGE)]), encoding="utf-8")
    if _session != session:  # the hidden tests of a problem set start it part by part
        now = datetime.datetime.now(datetime.UTC).isoformat()
        packages = {name: importlib.metadata.version(name) for name in ("torch", "numpy")}
        told = {"revision": revision() or "unknown", "time": now, "python": platform.python_version(), "packages": packages}
        print("run: " + run_line({"preset": preset, "seed": seed, **told}))
    _session.update(session)


def run_line(origin: Mapping[str, Any]) -> str:
    """What outputs are of, in one line: parameters, revision, date and versions."""
    parts = ["preset {preset}", "seed {seed}", "revision {revision}", "{time:.10}", "Python {python}"]
    versions = [f"{name} {origin['packages'][name]}" for name in ("torch", "numpy")]
    return ", ".join([part.format(**origin) for part in parts] + versions)


def revision() -> str | None:
    """The short name of the revision of the package, with "+" if more than outputs is uncommitted; None without git."""
    head = git(PACKAGE.parent, "rev-parse", "--short", "HEAD")
    return head and head + ("+" if changes(PACKAGE.parent) else "")


def changes(home: Path) -> str | None:
    """What git says is changed or new in ``home``, the outputs of a recording aside; None where there is no git."""
    return git(home, "status", "--porcelain", "--", ".", *OUTPUTS)


def git(home: Path, *arguments: str) -> str | None:
    """What git prints, or None if it fails or is not there."""
    try:
        run = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(home), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return run.stdout.strip()


def passing() -> bool:
    """Whether the run is of the quick preset: its outputs are looked at, and never become those of record."""
    return _session.get("preset") == "quick"


def run_dir() -> Path | None:
    """The folder the runner gave this notebook, or None outside a run."""
    return Path(os.environ[RUN_DIR]) if os.environ.get(RUN_DIR) else None


def claim(identifier: str, value: float) -> None:
    """Assert that ``value`` (a number, or an array or tensor with one element) meets the registered claim.

    Prints one line, records the raw number with the run, and raises AssertionError if the value is outside the registered
    bounds or not finite. A benchmark is asserted in the full preset only. Raises KeyError if the identifier is not
    registered, ValueError if it belongs to another notebook or :func:`start` was not called.
    """
    entry = _entry(identifier)
    # .item() raises for more than one element, where float() would differ between NumPy and torch.
    value = float(value.item() if hasattr(value, "item") else value)
    verdict = entry.verdict(value, _session["preset"])
    _append(entry, value, verdict)
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


def say(*values: object) -> None:
    """Print numbers that depend on the preset or the clock: the tests do not compare these lines, which begin with "· "."""
    print("\n".join(f"· {line}" for line in " ".join(map(str, values)).split("\n")))


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
        # JSON has no infinities and no NaN: null stands for them.
        number = value if value is not None and math.isfinite(value) else None
        with open(folder / CLAIMS_FILE, "a", encoding="utf-8") as stream:
            stream.write(json.dumps({"id": entry.id, "value": number, "verdict": verdict}) + "\n")
    print(entry.line(verdict, value, missing))
