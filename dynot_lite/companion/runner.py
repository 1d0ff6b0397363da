"""The run of all notebooks with papermill: in parallel, resumable, judged by exit codes, and clean when interrupted."""

import contextlib
import json
import math
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from dynot_lite._base import progress
from dynot_lite.companion import notebooks
from dynot_lite.companion.ledger import CLAIMS_FILE, KERNEL_FILE, PACKAGE, RUN_DIR, STORE, Claim
from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.companion.origin import fingerprint, provenance, sha256
from dynot_lite.companion.processes import end_processes, holding, signals
from dynot_lite.companion.record import Outcome, as_json

__all__ = ["CELL_SECONDS", "reproduce"]

CELL_SECONDS = {"quick": 600, "full": 4 * 3600}
RUNNING, EXECUTED, RESULT, SCHEMA = "running", "executed.ipynb", "result.json", 1
HERE = [sys.executable, str(PACKAGE)]  # what a notebook must say that it ran with


def reproduce(
    folder: Path,
    output: Path,
    claims: Mapping[str, Claim],
    *,
    names: list[str] | None = None,
    preset: str = "quick",
    seed: int = 0,
    seeds: int = 1,
    jobs: int | None = 2,
    timeout: int | None = None,
    force: bool = False,
    place: Callable[..., "_Run"] | None = None,
) -> list[Outcome]:
    """Run the notebooks of ``folder`` with papermill into ``output/preset``, ``jobs`` at a time, and tell how each ended.

    ``output/preset/notebooks`` takes the executed notebooks, ``output/preset/results/NAME`` the claims, figures and
    provenance. A notebook that finished before with the same inputs (see :func:`origin.fingerprint`), and whose files are
    as it left them, is not run again unless ``force``. ``timeout`` is in seconds per cell. What a failed notebook produced
    is kept under ``NAME.failed``. Processes that an earlier run left behind are ended first. With several ``seeds``, the
    others are ``seed + 1`` and so on, and run into ``output/preset/seed-K``. ``place`` is where notebooks run: None is here,
    otherwise :func:`cluster.connect` gives it, and ``jobs`` may be None, all at a time.
    Raises NotebookError for an unknown name, wrong parameters, or a folder that another process holds; KeyboardInterrupt if
    interrupted or told to terminate: all processes that were started have ended by then, and unfinished output is removed.
    """
    base = output.resolve() / preset
    bases = {seed + k: base / f"seed-{seed + k}" if k else base for k in range(seeds)}
    sources = [notebooks.source_path(folder.resolve(), name) for name in notebooks.find_notebooks(folder, names)]
    for source in sources:
        if problems := notebooks.parameter_problems(notebooks.read_source(source)):
            raise NotebookError(f"{notebooks.name_of(source)}: {problems[0]}")
    runs = [(place or _Run)(source, bases[number], preset, number, claims) for number in bases for source in sources]
    for run in runs[len(sources) :]:
        run.title += f" (seed {run.seed})"
    with holding(base):
        # Only the holder may touch what lies here, and only after those that an earlier run left have ended.
        end_processes(base)
        for inner in bases.values():
            for left in (inner / RUNNING).glob("*/results/result.json"):
                _publish(left.parents[1], inner)
            shutil.rmtree(inner / RUNNING, ignore_errors=True)
        return _run(runs, jobs or len(runs), timeout or CELL_SECONDS[preset], force)


def _run(runs: list["_Run"], jobs: int, timeout: int, force: bool) -> list[Outcome]:
    """Run those that did not finish before, ``jobs`` at a time."""
    outcomes: dict[str, Outcome] = {}
    waiting, running = [], []
    for run in runs:
        run.remove(".failed")
        if force:
            shutil.rmtree(run.base / "stored" / run.name, ignore_errors=True)
        finished = None if force else run.finished()
        if finished:
            outcomes[run.title] = finished
        else:
            waiting.append(run)
    with signals() as stop, contextlib.closing(_Report(sum(run.cells for run in waiting))) as report:
        for name in outcomes:
            report.say(f"{name}: unchanged since it last finished, not run again (--force runs it)")
        for run in waiting:
            if run.damage:
                report.say(f"{run.title}: {run.damage}, so it runs again")
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    run = waiting.pop(0)
                    running.append(run)
                    report.started(run.title)
                    run.start(timeout)
                time.sleep(0.1)
                if stop.is_set():
                    raise KeyboardInterrupt
                for run in list(running):
                    report.bar.update(run.new_cells())
                    outcome = run.poll()
                    if outcome:
                        running.remove(run)
                        outcomes[run.title] = outcome
                        report.finished(run.title, outcome)
        finally:
            for run in running:
                run.abandon()
    return [outcomes[run.title] for run in runs]


# ------------------------------------------------------------------------------------------------------ one notebook


@dataclass
class _Run:
    """One notebook on its way: a papermill process in a folder of its own, whose parts get their names when it has ended."""

    source: Path
    base: Path
    preset: str
    seed: int
    claims: Mapping[str, Claim]

    def __post_init__(self) -> None:
        self.name = self.title = notebooks.name_of(self.source)
        self.key = fingerprint(self.source, preset=self.preset, seed=self.seed)
        self.notebook = notebooks.read_source(self.source)
        self.cells = len(self.notebook.cells) + 1  # papermill adds one with the parameters
        # Another name for every run: what cannot be ended, on another machine, say, writes to where nobody looks.
        self.folder = self.base / RUNNING / f"{self.name.replace('/', '+')}-{secrets.token_hex(4)}"
        self.output, self.results = self.folder / EXECUTED, self.folder / "results"
        self.log = self.results / "papermill.log"
        self.log_position = 0
        self.damage = ""

    def remove(self, ending: str) -> None:
        _output(self.base, self.name, ending).unlink(missing_ok=True)
        shutil.rmtree(_results(self.base, self.name, ending), ignore_errors=True)

    def finished(self) -> Outcome | None:
        """The outcome of an earlier run of the same inputs, if there was one and all that it made is as it left it."""
        output, results = _output(self.base, self.name), _results(self.base, self.name)
        if not (results / RESULT).exists():
            return None
        try:
            result = json.loads((results / RESULT).read_text(encoding="utf-8"))
            if (result["schema"], result["key"]) != (SCHEMA, self.key):
                return None
            self.damage = "" if result["files"] == _hashes(output, results) else "a file that it made is missing or changed"
            measured = self._read_claims(results)
            self.damage = self.damage or self._objection(measured)
            outcome = Outcome(self.name, "unchanged", output, float(result["seconds"]), measured, seed=self.seed)
        except FileNotFoundError:
            self.damage = "the notebook that it made is missing"
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            self.damage = "its earlier result cannot be read"
        return None if self.damage else outcome

    def start(self, timeout: int) -> None:
        self.begin = time.perf_counter()
        self.origin = provenance(preset=self.preset, seed=self.seed)
        self.results.mkdir(parents=True)
        # papermill reads no .py; built from the .py anew, the input cannot be an older .ipynb.
        given = self.folder / "input.ipynb"
        given.write_text(nbformat.writes(self.notebook), encoding="utf-8")
        command = [sys.executable, "-P", "-m", "papermill", str(given), str(self.output), "--kernel", notebooks.KERNEL]
        command += ["--cwd", str(self.source.parent), "-r", "preset", self.preset, "-p", "seed", str(self.seed)]
        command += ["--execution-timeout", str(timeout), "--start-timeout", "120", "--log-output", "--no-progress-bar"]
        # A process group of its own: Ctrl-C in a terminal reaches this process alone, which then ends the others.
        apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if sys.platform == "win32" else {"start_new_session": True}
        environment = notebooks.kernel_environment(self.folder / "jupyter")
        environment |= {RUN_DIR: str(self.results), STORE: str(self.stored())}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment, **apart
            )

    def stored(self) -> Path:
        """Where results of learning runs are kept until the notebook has succeeded; those of other code are removed."""
        key = fingerprint(self.source, preset=self.preset, seed=self.seed, text=False)[:16]
        folder = self.base / "stored" / self.name / key
        for other in folder.parent.glob("*"):
            if other != folder:
                shutil.rmtree(other)
        return folder

    def abandon(self) -> None:
        """End what runs, and remove what it wrote."""
        end_processes(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    def new_cells(self) -> int:
        """How many cells have ended since the last call, as papermill's log tells."""
        with open(self.log, "rb") as log:
            log.seek(self.log_position)
            text = log.read()
        complete = text.rfind(b"\n") + 1
        self.log_position += complete
        return len(re.findall(rb"(?m)^Ending Cell \d+-", text[:complete]))

    def poll(self) -> Outcome | None:
        """The outcome, if the process has ended; the output then has its final name."""
        code = self.process.poll()
        if code is None:
            return None
        # A killed papermill, or a notebook that started processes, may leave some behind.
        end_processes(self.folder)
        results, error = {}, _last_words(self.log.read_text(encoding="utf-8", errors="replace")) if code else ""
        if code < 0:  # it could say nothing
            error += f"\npapermill was ended by signal {-code}, for want of memory perhaps"
        try:
            results = self._read_claims(self.results)
            kernel = self.results / KERNEL_FILE
            ran = json.loads(kernel.read_text(encoding="utf-8")) if kernel.exists() else HERE
            elsewhere = "" if ran == HERE else f"it ran with {' and '.join(ran)}, not with {' and '.join(HERE)}"
            error = error or self._objection(results) or elsewhere
        except (ValueError, TypeError, KeyError, AttributeError):
            error = error or "its claims cannot be read: the disk may have been full"
        return self._keep(results, error)

    def _read_claims(self, folder: Path) -> dict[str, dict[str, Any]]:
        results: dict[str, dict[str, Any]] = {}
        path = folder / CLAIMS_FILE
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            entry = json.loads(line)
            # A claim made more than once counts as failed if it failed once.
            if results.get(entry["id"], {}).get("verdict") != "FAIL":
                results[entry["id"]] = {"value": entry["value"], "verdict": entry["verdict"]}
        return results

    def _objection(self, results: Mapping[str, Mapping[str, Any]]) -> str:
        """Why a notebook that ran to its end has not succeeded; empty if it has."""
        own = [entry for entry in self.claims.values() if entry.notebook == self.name]
        failed, other = [], []
        for entry in own:
            result = results.get(entry.id, {"value": None, "verdict": "SKIP"})
            value = math.nan if result["value"] is None else float(result["value"])
            if result["verdict"] == "FAIL":
                failed.append(entry.id)
            elif result["verdict"] not in ("SKIP", entry.verdict(value, self.preset)):
                other.append(entry.id)
        missing = [entry.id for entry in own if entry.id not in results]
        if failed:  # the notebook caught the exception
            return f"claims failed: {', '.join(failed)}"
        if missing:
            return f"registered claims were not exercised: {', '.join(missing)}"
        return f"verdicts that do not follow from the values: {', '.join(other)}" if other else ""

    def _keep(self, results: dict[str, dict[str, Any]], error: str) -> Outcome:
        seconds = time.perf_counter() - self.begin
        (self.results / "provenance.json").write_text(as_json(self.origin), encoding="utf-8")
        if error:
            self.remove(".failed")
        else:
            self.log.unlink()
            # What was edited while the notebook ran may be in its results or not.
            key = self.key if self.key == fingerprint(self.source, preset=self.preset, seed=self.seed) else "edited meanwhile"
            result = {"schema": SCHEMA, "key": key, "seconds": round(seconds, 2), "files": _hashes(self.output, self.results)}
            (self.results / "result.partial").write_text(as_json(result), encoding="utf-8")
            (self.results / "result.partial").replace(self.results / RESULT)
            shutil.rmtree(self.base / "stored" / self.name, ignore_errors=True)
        ending = ".failed" if error else ""
        _publish(self.folder, self.base, ending)
        shutil.rmtree(self.folder, ignore_errors=True)
        path = _output(self.base, self.name, ending)
        return Outcome(self.name, "failed" if error else "done", path, seconds, results, error, seed=self.seed)


def _output(base: Path, name: str, ending: str = "") -> Path:
    return base / "notebooks" / f"{name}{ending}.ipynb"


def _results(base: Path, name: str, ending: str = "") -> Path:
    return base / "results" / f"{name}{ending}"


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _publish(folder: Path, base: Path, ending: str = "") -> None:
    """Give what lies in ``folder`` its final names. Interrupted anywhere, it can be called again."""
    name = folder.name.rpartition("-")[0].replace("+", "/")
    shutil.rmtree(_results(base, name, ending), ignore_errors=True)
    if (folder / EXECUTED).exists():  # papermill may have failed before it wrote anything
        (folder / EXECUTED).replace(_made(_output(base, name, ending)))
    (folder / "results").rename(_made(_results(base, name, ending)))


def _hashes(output: Path, results: Path) -> dict[str, str]:
    """The SHA-256 of the executed notebook, and of everything beside the file that these are written to."""
    files = {path.relative_to(results).as_posix(): path for path in results.rglob("*") if path.is_file()}
    files = {EXECUTED: output} | {name: path for name, path in sorted(files.items()) if name != RESULT}
    return {name: sha256(path) for name, path in files.items()}


def _last_words(log: str) -> str:
    """The end of papermill's log that a reader needs: the traceback of the cell, or of papermill itself."""
    lines = [line for line in notebooks.plain(log).splitlines() if line.strip()]
    return "\n".join(lines[-20:])


class _Report:
    """A bar over the cells of all notebooks in a terminal, plain lines elsewhere."""

    def __init__(self, cells: int) -> None:
        self.bar = progress.bar(cells, "notebooks", None if cells else False, unit="cell", mininterval=0)
        self.close = self.bar.close

    def say(self, text: str) -> None:
        if self.bar.disable:
            print(text, flush=True)
        else:
            self.bar.write(text)

    def started(self, name: str) -> None:
        if self.bar.disable:
            self.say(f"{name}: started")

    def finished(self, title: str, outcome: Outcome) -> None:
        if not outcome.error:
            passed = f", {len(outcome.results)} claims" if outcome.results else ""
            self.say(f"{title}: finished in {outcome.seconds:.1f} s{passed}")
            return
        indented = "\n".join(f"    {line}" for line in outcome.error.splitlines())
        self.say(f"{title}: FAILED after {outcome.seconds:.1f} s; partial output in {outcome.path}\n{indented}")
