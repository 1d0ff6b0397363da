"""The runner on several machines: notebooks go as text to the workers of a dask.distributed scheduler, and what they made comes
home as bytes. No file system is shared, and a worker runs only what it runs as this machine would."""

import contextlib
import functools
import os
import platform
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from dynot_lite.companion import origin, runner
from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.companion.processes import end_processes
from dynot_lite.companion.record import Outcome

__all__ = ["connect"]

CONNECT_SECONDS = 10


@contextlib.contextmanager
def connect(address: str) -> Iterator[Callable[..., runner._Run]]:
    """The place to give to :func:`runner.reproduce`, for notebooks to run on the workers of the scheduler at ``address``.

    A worker runs as many at a time as it has threads. The notebook of a worker that is lost goes to another one, from its
    beginning; one that loses four has failed. Raises NotebookError if dask.distributed is not installed, if no scheduler
    answers or it has no workers, and, from the place, if the package, the versions or the data of a worker differ from ours.
    """
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise NotebookError(f'--cluster needs {error.name}: pip install -e ".[cluster]" -c constraints.txt') from None
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise NotebookError(f"no dask scheduler answers at {address} ({type(error).__name__})") from None
    with client:
        if not client.scheduler_info(n_workers=-1)["workers"]:
            raise NotebookError(f"the scheduler at {address} has no workers: start one with dask worker {address} --nthreads 1")
        topic, cells = f"dynot_lite-{secrets.token_hex(4)}", {}
        client.subscribe_topic(topic, lambda event: cells.update([event[1]]))
        yield functools.partial(_Remote, client=client, topic=topic, told=cells, checked=set())


@dataclass
class _Remote(runner._Run):
    """One notebook that a worker runs: ``told`` has how many cells have ended, ``checked`` what all workers would run alike."""

    client: Any = field(kw_only=True)
    topic: str = field(kw_only=True)
    told: dict[str, int] = field(kw_only=True)
    checked: set[str] = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.future, self.seen = None, 0
        text = self.source.read_text(encoding="utf-8")
        self.job = {"name": self.name, "text": text, "preset": self.preset, "seed": self.seed}
        answers = {} if self.name in self.checked else self.client.run(_origin, **self.job, on_error="return")
        for worker, theirs in answers.items():
            if isinstance(theirs, Exception):
                raise NotebookError(f"worker {worker} cannot run notebooks of this version: {type(theirs).__name__}: {theirs}")
            if theirs[0] != self.key:
                why = _difference(theirs[1], origin.provenance(preset=self.preset, seed=self.seed))
                raise NotebookError(f"worker {worker} would not run {self.name} as this machine does: {why}")
        self.checked.add(self.name)

    def start(self, timeout: int) -> None:
        self.begin, label = time.perf_counter(), self.folder.name
        own = {identifier: entry for identifier, entry in self.claims.items() if entry.notebook == self.name}
        self.future = self.client.submit(_work, self.job, self.key, own, timeout, self.topic, label, key=label, pure=False)

    def abandon(self) -> None:
        if self.future:
            self.future.cancel()  # the worker sees it, and ends what it started
        shutil.rmtree(self.folder, ignore_errors=True)

    def new_cells(self) -> int:
        before, self.seen = self.seen, max(self.seen, self.told.get(self.folder.name, 0))  # another worker begins anew
        return self.seen - before

    def poll(self) -> Outcome | None:
        """The outcome, if a worker has told it; what it made is then in its place here."""
        if not self.future.done():
            return None
        try:
            outcome, files = self.future.result()
        except Exception as error:  # of whatever kind: a full disk there, no scheduler any more, four workers lost
            words, seconds = f"{type(error).__name__}: {error}", time.perf_counter() - self.begin
            outcome, files = Outcome(self.name, "failed", self.output, seconds, {}, words), {}
        self.results.mkdir(parents=True)
        for name in sorted(files, key=f"results/{runner.RESULT}".__eq__):  # last what says that all is there
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(files[name])
        self.remove(".failed")
        ending = ".failed" if outcome.error else ""
        runner._publish(self.folder, self.base, ending)
        shutil.rmtree(self.folder, ignore_errors=True)
        if not (outcome.error or self.finished()) and self.damage:
            outcome = replace(outcome, status="failed", error=f"what came home is not what the worker made: {self.damage}")
        return replace(outcome, path=runner._output(self.base, self.name, ending), seed=self.seed)


def _difference(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """What is known to differ between the provenance of a worker and ours."""
    names = ("revision", "uncommitted_changes", "python", "processor", "peers")
    theirs, ours = ({name.replace("_", " "): made[name] for name in names} | made["packages"] for made in (theirs, ours))
    pairs = [(name, theirs.get(name, "missing"), ours.get(name, "missing")) for name in ours | theirs]
    found = [f"{name} {there}, here {here}" for name, there, here in pairs if there != here]
    return "; ".join(found[:4]) or "a file, the data or the environment differs"


# ------------------------------------------------------------------------------------------------------ on the worker


def _origin(name: str, text: str, preset: str, seed: int) -> tuple[str, dict[str, Any]]:
    """The fingerprint of a notebook on this machine, and where its results would come from."""
    origin._installed.cache_clear()  # a worker lives for long
    with tempfile.TemporaryDirectory() as folder:
        source = _source(Path(folder), name, text)
        return origin.fingerprint(source, preset=preset, seed=seed), origin.provenance(preset=preset, seed=seed)


def _source(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def _work(job: dict[str, Any], key: str, claims: dict, timeout: int, topic: str, label: str) -> tuple[Outcome, dict[str, bytes]]:
    """Run a notebook on this machine; returns its outcome and the files that it made, by name."""
    from distributed import Status, get_worker

    worker = get_worker()
    task = worker.get_current_task()
    home = Path(worker.local_directory).parent / f"dynot_lite-{platform.node()}"
    for left in home.glob("*-*"):  # by a worker that was killed
        if not psutil.pid_exists(int(left.name.partition("-")[0])):
            end_processes(left)
            shutil.rmtree(left, ignore_errors=True)
    folder = home / f"{os.getpid()}-{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    try:
        run = runner._Run(_source(folder, job["name"], job["text"]), folder, job["preset"], job["seed"], claims)
        if run.key != key:
            raise NotebookError(f"the package, the versions or the data of {worker.address} have changed meanwhile")
        run.start(timeout)
        cells, outcome = 0, None
        while outcome is None:
            time.sleep(0.2)
            state = worker.state.tasks.get(task)
            if state is None or state.state != "executing" or worker.status not in (Status.running, Status.paused):
                raise NotebookError("cancelled")  # nobody waits for it any more
            if new := run.new_cells():
                cells += new
                worker.log_event(topic, [label, cells])
            outcome = run.poll()
        results = folder / "results" / outcome.path.relative_to(folder / "notebooks").with_suffix("")
        files = {f"results/{path.relative_to(results).as_posix()}": path for path in results.rglob("*")}
        files[runner.EXECUTED] = outcome.path
        return outcome, {name: path.read_bytes() for name, path in files.items() if path.is_file()}
    finally:
        end_processes(folder)
        shutil.rmtree(folder, ignore_errors=True)
