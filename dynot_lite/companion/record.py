"""What is kept of a run: where its results come from, and the record of the full preset in ``figures/``."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynot_lite.companion.benchmark import PEERS

__all__ = ["Outcome", "as_json", "peers", "provenance", "read", "record"]

RESULTS = "results.json"


@dataclass(frozen=True)
class Outcome:
    """How one notebook ended: ``results`` has, per claim that was reached, its value and verdict."""

    notebook: str
    status: str  # "done", "unchanged" or "failed"
    path: Path
    seconds: float
    results: dict[str, dict[str, Any]]
    error: str = ""


def provenance(*, preset: str, seed: int) -> dict[str, Any]:
    """Where results come from: interpreter, platform, versions of all packages, preset, seed, git revision, UTC time."""
    distributions = {item.metadata["Name"]: item.version for item in importlib.metadata.distributions()}
    changed = _git("status", "--porcelain")
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "preset": preset,
        "seed": seed,
        "revision": _git("rev-parse", "HEAD"),
        "uncommitted_changes": None if changed is None else bool(changed),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "packages": dict(sorted(distributions.items(), key=lambda item: item[0].lower())),
        "peers": peers(),
    }


def peers() -> dict[str, str]:
    """The versions of the peers that are installed."""
    found = {item.metadata["Name"]: item.version for item in importlib.metadata.distributions(path=[str(PEERS)])}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def _git(*arguments: str) -> str | None:
    package = Path(__file__).resolve().parents[2]
    try:
        run = subprocess.run(["git", "-C", str(package), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return run.stdout.strip()


def read(figures: Path) -> dict[str, dict[str, Any]]:
    """The results of record, ``{claim: {"value", "verdict"}}``, of all notebooks in ``figures/results.json``."""
    return {identifier: result for notebook in _load(figures).values() for identifier, result in notebook["claims"].items()}


def record(outcomes: Sequence[Outcome], figures: Path) -> None:
    """Copy the figures, animations and tables of finished notebooks to ``figures/NAME``, their results to ``results.json``.

    What is recorded of other notebooks stays. ``results.json`` has, per notebook, the seconds it took, the provenance of
    its run (of the packages those that dynot_lite names itself) and the value and verdict of each of its claims.
    """
    named = {re.split(r"[^\w.-]", line)[0].lower() for line in importlib.metadata.requires("dynot_lite") or []}
    recorded = _load(figures)
    for outcome in outcomes:
        results = outcome.path.parents[1] / "results" / outcome.notebook
        shutil.rmtree(figures / outcome.notebook, ignore_errors=True)
        for kept in sorted(path for path in results.iterdir() if path.suffix in (".png", ".gif", ".csv")):
            (figures / outcome.notebook).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(kept, figures / outcome.notebook / kept.name)
        origin = json.loads((results / "provenance.json").read_text(encoding="utf-8"))
        origin["packages"] = {name: version for name, version in origin["packages"].items() if name.lower() in named}
        recorded[outcome.notebook] = {"seconds": round(outcome.seconds, 1), "provenance": origin, "claims": outcome.results}
    figures.mkdir(exist_ok=True)
    (figures / RESULTS).write_text(as_json(dict(sorted(recorded.items()))), encoding="utf-8")


def _load(figures: Path) -> dict[str, dict[str, Any]]:
    path = figures / RESULTS
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def as_json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
