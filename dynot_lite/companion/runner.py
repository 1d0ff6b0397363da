"""The run of all notebooks with papermill: in parallel, resumable, judged by exit codes, and clean when interrupted."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil

from dynot_lite._base import progress
from dynot_lite.companion import notebooks
from dynot_lite.companion.ledger import CLAIMS_FILE, RUN_DIR, Claim
from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.companion.record import Outcome, as_json, peers, provenance

__all__ = ["CELL_SECONDS", "fingerprint", "reproduce"]

CELL_SECONDS = {"quick": 600, "full": 4 * 3600}


def reproduce(
    folder: Path,
    output: Path,
    claims: Mapping[str, Claim],
    *,
    names: list[str] | None = None,
    preset: str = "quick",
    seed: int = 0,
    jobs: int = 2,
    timeout: int | None = None,
    force: bool = False,
) -> list[Outcome]:
    """Run the notebooks of ``folder`` with papermill into ``output/preset``, ``jobs`` at a time, and tell how each ended.

    ``output/preset/notebooks`` takes the executed notebooks, ``output/preset/results/NAME`` the claims, figures and
    provenance. A notebook that finished before with the same inputs (see :func:`fingerprint`) is not run again unless
    ``force``. ``timeout`` is in seconds per cell. What a failed notebook produced is kept under ``NAME.failed``.
    Raises NotebookError for an unknown name or wrong parameters, KeyboardInterrupt if interrupted or told to terminate: all
    processes that were started have ended by then, and unfinished output is removed.
    """
    names = notebooks.find_notebooks(folder, names)
    base = output.resolve() / preset
    outcomes: dict[str, Outcome] = {}
    waiting: list[_Run] = []
    for name in names:
        run = _Run(notebooks.source_path(folder.resolve(), name), base, preset, seed, claims)
        if problems := notebooks.parameter_problems(run.notebook):
            raise NotebookError(f"{name}: {problems[0]}")
        run.remove(".partial")
        run.remove(".failed")
        finished = None if force else run.finished()
        if finished:
            outcomes[name] = finished
        else:
            waiting.append(run)
    running: list[_Run] = []
    with _signals() as stop, contextlib.closing(_Report(sum(run.cells for run in waiting))) as report:
        for name in outcomes:
            report.say(f"{name}: unchanged since it last finished, not run again (--force runs it)")
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    run = waiting.pop(0)
                    running.append(run)
                    report.started(run.name)
                    run.start(timeout or CELL_SECONDS[preset])
                time.sleep(0.1)
                if stop.is_set():
                    raise KeyboardInterrupt
                for run in list(running):
                    report.bar.update(run.new_cells())
                    outcome = run.poll()
                    if outcome:
                        running.remove(run)
                        outcomes[run.name] = outcome
                        report.finished(outcome)
        finally:
            _end_processes({str(run.results) for run in running})
            for run in running:
                run.remove(".partial")
    return [outcomes[name] for name in names]


def fingerprint(source: Path, *, preset: str, seed: int) -> str:
    """The SHA-256 of all that the results of a notebook depend on: its source, package, pins, peers, preset and seed."""
    package = Path(__file__).resolve().parents[1]
    files = [source, *sorted(path for path in package.rglob("*") if path.suffix in (".py", ".toml", ".npz"))]
    pins = package.parent / "constraints.txt"
    digest = hashlib.sha256(f"{preset}\0{seed}\0{sorted(peers().items())}".encode())
    for path in [*files, *([pins] if pins.exists() else [])]:
        digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------------------ one notebook


@dataclass
class _Run:
    """One notebook on its way: a papermill process that writes to ``NAME.partial`` names, renamed when it has ended."""

    source: Path
    base: Path
    preset: str
    seed: int
    claims: Mapping[str, Claim]

    def __post_init__(self) -> None:
        self.name = self.source.stem
        self.key = fingerprint(self.source, preset=self.preset, seed=self.seed)
        self.notebook = notebooks.read_source(self.source)
        self.cells = len(self.notebook.cells) + 1  # papermill adds one with the parameters
        self.output = self._output(".partial")
        self.results = self._results(".partial")
        self.log = self.results / "papermill.log"
        self.log_position = 0

    def _output(self, ending: str = "") -> Path:
        return self.base / "notebooks" / f"{self.name}{ending}.ipynb"

    def _results(self, ending: str = "") -> Path:
        return self.base / "results" / f"{self.name}{ending}"

    def remove(self, ending: str) -> None:
        self._output(ending).unlink(missing_ok=True)
        if self._results(ending).exists():
            shutil.rmtree(self._results(ending))

    def finished(self) -> Outcome | None:
        """The outcome of an earlier run of the same inputs, if there was one."""
        try:
            result = json.loads((self._results() / "result.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if result.get("key") != self.key or not self._output().exists():
            return None
        return Outcome(self.name, "unchanged", self._output(), result["seconds"], result["claims"])

    def start(self, timeout: int) -> None:
        self.begin = time.perf_counter()
        self.output.parent.mkdir(parents=True, exist_ok=True)
        self.results.mkdir(parents=True)
        # papermill reads no .py; built from the .py anew, the input cannot be an older .ipynb.
        given = self.results / "input.ipynb"
        given.write_text(nbformat.writes(self.notebook), encoding="utf-8")
        command = [sys.executable, "-m", "papermill", str(given), str(self.output), "--kernel", notebooks.KERNEL]
        command += ["--cwd", str(self.source.parent), "-r", "preset", self.preset, "-p", "seed", str(self.seed)]
        command += ["--execution-timeout", str(timeout), "--start-timeout", "120", "--log-output", "--no-progress-bar"]
        # A process group of its own: Ctrl-C in a terminal reaches this process alone, which then ends the others.
        apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if sys.platform == "win32" else {"start_new_session": True}
        environment = notebooks.kernel_environment() | {RUN_DIR: str(self.results)}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment, **apart
            )

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
        _end_processes({str(self.results)})
        results = self._read_claims()
        own = [entry for entry in self.claims.values() if entry.notebook == self.name]
        failed = [identifier for identifier, result in results.items() if result["verdict"] == "FAIL"]
        missing = [entry.id for entry in own if entry.id not in results]
        if code:
            error = _last_words(self.log.read_text(encoding="utf-8", errors="replace"))
        elif failed:  # the notebook caught the exception
            error = f"claims failed: {', '.join(failed)}"
        elif missing:
            error = f"registered claims were not exercised: {', '.join(missing)}"
        else:
            error = ""
        return self._keep(results, error)

    def _read_claims(self) -> dict[str, dict[str, Any]]:
        results: dict[str, dict[str, Any]] = {}
        path = self.results / CLAIMS_FILE
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            entry = json.loads(line)
            # A claim made more than once counts as failed if it failed once.
            if results.get(entry["id"], {}).get("verdict") != "FAIL":
                results[entry.pop("id")] = entry
        return results

    def _keep(self, results: dict[str, dict[str, Any]], error: str) -> Outcome:
        seconds = time.perf_counter() - self.begin
        ending = ".failed" if error else ""
        origin = provenance(preset=self.preset, seed=self.seed)
        (self.results / "provenance.json").write_text(as_json(origin), encoding="utf-8")
        (self.results / "input.ipynb").unlink(missing_ok=True)
        if not error:
            self.log.unlink()
            result = {"key": self.key, "seconds": round(seconds, 2), "claims": results}
            (self.results / "result.json").write_text(as_json(result), encoding="utf-8")
        # The results last: until they are there, with the new key, the run does not count as finished.
        self.remove(ending)
        path = self._output(ending)
        if self.output.exists():  # papermill may have failed before it wrote anything
            self.output.replace(path)
        self.results.rename(self._results(ending))
        return Outcome(self.name, "failed" if error else "done", path, seconds, results, error)


def _last_words(log: str) -> str:
    """The end of papermill's log that a reader needs: the traceback of the cell, or of papermill itself."""
    lines = [line for line in notebooks.plain(log).splitlines() if line.strip()]
    return "\n".join(lines[-20:])


# --------------------------------------------------------------------------------------------- processes and progress


def _end_processes(folders: set[str]) -> None:
    """End every process that was started for a run into one of ``folders``, children of children included."""
    # Found by their environment and not by their parents: a kernel whose papermill died has lost its parent.
    # Again, because one may have started another meanwhile; not for ever, because a hung disk makes some immortal.
    for _ in range(5):
        family = [process for process in psutil.process_iter() if _run_dir_of(process) in folders]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        for process in psutil.wait_procs(family, timeout=3)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=3)
        if not family:
            break


def _run_dir_of(process: psutil.Process) -> str | None:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process.environ().get(RUN_DIR)
    except (psutil.Error, OSError):
        return None


@contextlib.contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C, termination and the closing of the terminal set, so that none interrupts a step half-way."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # Python handles signals in the main thread alone
        yield stop
        return
    known = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # What is ignored stays so: a run under nohup, or in the background of a script, is not to be stopped.
    caught = [number for number in known if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in caught}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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

    def finished(self, outcome: Outcome) -> None:
        if not outcome.error:
            passed = f", {len(outcome.results)} claims" if outcome.results else ""
            self.say(f"{outcome.notebook}: finished in {outcome.seconds:.1f} s{passed}")
            return
        indented = "\n".join(f"    {line}" for line in outcome.error.splitlines())
        self.say(f"{outcome.notebook}: FAILED after {outcome.seconds:.1f} s; partial output in {outcome.path}\n{indented}")
