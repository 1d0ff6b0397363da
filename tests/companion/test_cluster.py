"""Notebooks on the workers of a scheduler: a lost worker's goes to another, what comes home is as of a local run."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from dynot_lite import cli
from dynot_lite.companion import cluster, notebooks, runner
from dynot_lite.companion.ledger import RUN_DIR, Claim
from dynot_lite.companion.notebooks import NotebookError

distributed = pytest.importorskip("distributed")
# Each notebook tells that it has begun, in a folder that the test reads, and says at both ends which kernel it is.
CELL = """
import os, time
from pathlib import Path
from dynot_lite.companion import claim, ledger, start
entry = ledger.Claim(id="ONE-1", notebook="{name}", statement="Small", source="nowhere", kind="identity", at_most=9)
ledger.registry = lambda: {{"ONE-1": entry}}
start("{name}", preset=preset, seed=seed)
here, stamp = Path(os.environ["DYNOT_RUN_DIR"]), os.urandom(8).hex()
(here / "first.csv").write_text(stamp)
print(stamp)
_ = Path({begun!r}, "{name}-" + stamp).write_text(str(here))
# %%
{wait}
# %%
claim("ONE-1", seed / 8)
(here / "second.csv").write_text(stamp)
"""


def wait_for(condition, seconds: float = 150):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)
    return found


class Cluster:
    """A scheduler and two workers of one thread, each a process."""

    def __init__(self, folder: Path):
        self.folder, self.processes = folder, []
        self.home = folder / "dask-scratch-space" / f"dynot_lite-{platform.node()}"
        # As in a test of its own: what pytest adds to the path is no part of the environment.
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "DASK_LOGGING__DISTRIBUTED": "error",
        }
        self._start(
            "dask_scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(folder / "file")
        )
        wait_for(lambda: (folder / "file").exists() and (folder / "file").read_text().strip().endswith("}"))
        self.address = json.loads((folder / "file").read_text())["address"]
        for _ in range(2):
            self.worker()

    def worker(self) -> None:
        options = ["--no-nanny", "--nthreads", "1", "--no-dashboard", "--local-directory", str(self.folder)]
        self._start("dask_worker", self.address, *options)

    def _start(self, name: str, *arguments: str) -> None:
        command = [sys.executable, "-P", "-m", f"distributed.cli.{name}", *arguments]
        with open(self.folder / "log", "ab") as log:
            self.processes.append(subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, cwd=self.folder))

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        with distributed.Client(made.address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=150)
        yield made
    finally:
        made.end()


@pytest.fixture
def write(tmp_path, write_notebook):
    """A function that writes a notebook of the kind above, and returns its claims."""
    (tmp_path / "begun").mkdir()

    def one(name: str, wait: str = "") -> dict[str, Claim]:
        write_notebook(tmp_path / "notebooks", name, CELL.format(name=name, begun=str(tmp_path / "begun"), wait=wait))
        return {"ONE-1": Claim(id="ONE-1", notebook=name, statement="Small", source="nowhere", kind="identity", at_most=9)}

    return one


def processes_under(folder) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(RUN_DIR, "").startswith(str(folder)):
                found.append(process)
        except (psutil.Error, OSError):
            pass
    return found


@pytest.mark.skipif(sys.platform == "win32", reason="kills with a POSIX signal")
def test_a_lost_workers_notebook_ends_on_the_other_and_nothing_is_mixed(two, tmp_path, write, capsys):
    go, begun = tmp_path / "go", tmp_path / "begun"
    # The first run of "one" never ends; "two" holds the other worker until the first is gone.
    claims = write("one", f"time.sleep(600 * (len(list(Path({str(begun)!r}).glob('one-*'))) == 1))")
    write("two", f"while not Path({str(go)!r}).exists():\n    time.sleep(0.1)")
    with ThreadPoolExecutor(1) as pool, cluster.connect(two.address) as place:
        run = pool.submit(runner.reproduce, tmp_path / "notebooks", tmp_path / "build", claims, jobs=None, place=place)
        wait_for(lambda: run.done() or [path for path in begun.iterdir() if path.read_text()][1:])
        first = next(begun.glob("one-*"))
        pid = int(Path(first.read_text()).relative_to(two.home).parts[0].partition("-")[0])
        victim = next(process for process in two.processes if process.pid == pid)
        victim.kill()
        victim.wait()
        assert len(processes_under(two.folder)) == 4  # papermill and kernel of both: one pair is an orphan
        go.touch()
        outcomes = run.result(timeout=150)
    assert [(outcome.notebook, outcome.status, outcome.error) for outcome in outcomes] == [
        ("one", "done", ""),
        ("two", "done", ""),
    ]
    assert outcomes[0].results == {"ONE-1": {"value": 0.0, "verdict": "PASS"}}
    for outcome in outcomes:
        results = tmp_path / "build" / "quick" / "results" / outcome.notebook
        said = {(results / f"{end}.csv").read_text() for end in ("first", "second")}
        said.add(notebooks.read_executed(outcome.path).cells[2].outputs[-1].text.split()[-1])
        assert len(said) == 1  # all of one run
        assert said.pop() == max(begun.glob(f"{outcome.notebook}-*"), key=lambda path: path.stat().st_mtime_ns).name[4:]
    assert len(list(begun.glob("one-*"))) == 2 and len(list(begun.glob("two-*"))) == 1
    assert processes_under(two.folder) == []
    assert list(two.home.iterdir()) == list((tmp_path / "build" / "quick" / "running").glob("*")) == []
    shown = capsys.readouterr().out
    assert "one: started" in shown and "two: finished in" in shown and ", 1 claims" in shown
    # As of a local run: hashes and key are right, so that nothing is run again here.
    again = runner.reproduce(tmp_path / "notebooks", tmp_path / "build", claims)
    assert [outcome.status for outcome in again] == ["unchanged", "unchanged"]
    two.worker()


def test_the_command_line_runs_seeds_there_and_tells_failures(two, tmp_path, write, monkeypatch, capsys):
    claims = write("one", "1 / (2 - seed)")
    monkeypatch.setattr(notebooks, "root", lambda: tmp_path)
    monkeypatch.setattr(cli, "registry", lambda: claims)
    assert cli.main(["reproduce", "--cluster", two.address, "--seeds", "2"]) == 0
    shown = capsys.readouterr().out
    assert "one (seed 1): finished in" in shown and "2 notebooks: all succeeded" in shown
    assert "1 claims: 1 PASS" in shown and "0.062  0 … 0.12" in shown
    base = tmp_path / "build" / "quick"
    kept = json.loads((base / "seeds.json").read_text(encoding="utf-8"))["one"]
    assert kept == {"seeds": [0, 1], "claims": {"ONE-1": {"values": [0, 0.125], "median": 0.0625, "range": [0, 0.125]}}}
    assert (base / "seed-1" / "results" / "one" / "result.json").exists()
    assert cli.main(["reproduce", "--cluster", two.address, "--seeds", "3"]) == 1
    shown = capsys.readouterr().out
    assert "one (seed 1): unchanged" in shown and "one (seed 2): FAILED after" in shown and "ZeroDivisionError" in shown
    assert "3 notebooks: 1 FAILED (one (seed 2))" in shown
    failed = base / "seed-2" / "notebooks" / "one.failed.ipynb"
    assert any(cell.get("outputs") for cell in notebooks.read_executed(failed).cells)
    assert "ZeroDivisionError" in (base / "seed-2" / "results" / "one.failed" / "papermill.log").read_text(encoding="utf-8")


def test_a_worker_that_differs_is_refused_before_and_after_the_start(two, tmp_path, write, monkeypatch):
    write("one")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    with cluster.connect(two.address) as place:
        with pytest.raises(
            NotebookError, match=r"worker tcp://\S+ would not run one as this machine does: .*environment differs"
        ):
            runner.reproduce(tmp_path / "notebooks", tmp_path / "build", {}, place=place)
        place.keywords["checked"].add("one")  # as if it differed only now
        (outcome,) = runner.reproduce(tmp_path / "notebooks", tmp_path / "build", {}, place=place)
    assert outcome.status == "failed" and "have changed meanwhile" in outcome.error
    assert list((tmp_path / "begun").iterdir()) == []


def test_what_is_given_up_ends_on_the_worker_too(two, tmp_path, write):
    write("one", "time.sleep(600)")
    with cluster.connect(two.address) as place:
        run = place(tmp_path / "notebooks" / "one.py", tmp_path / "build", "quick", 0, {})
        run.start(600)
        wait_for(lambda: list((tmp_path / "begun").iterdir()))
        assert len(processes_under(two.folder)) == 2 and wait_for(run.new_cells) >= 1
        run.abandon()
        wait_for(lambda: not processes_under(two.folder) and not list(two.home.iterdir()), 20)


def test_cells_that_a_second_worker_repeats_are_not_counted_twice(tmp_path, write):
    write("one")
    given = {"client": None, "topic": "", "told": {}, "checked": {"one"}}
    run = cluster._Remote(tmp_path / "notebooks" / "one.py", tmp_path / "build", "quick", 0, {}, **given)
    for told, new in ((1, 1), (3, 2), (3, 0), (1, 0), (4, 1)):
        run.told[run.folder.name] = told
        assert run.new_cells() == new


def test_what_is_damaged_on_its_way_has_failed(two, tmp_path, write):
    claims = write("one")
    with cluster.connect(two.address) as place:
        run = place(tmp_path / "notebooks" / "one.py", tmp_path / "build", "quick", 0, claims)
        run.start(600)
        outcome, files = run.future.result(timeout=150)
        assert set(files) >= {"executed.ipynb", "results/claims.jsonl", "results/result.json", "results/first.csv"}
        for damaged, status in [(files, "done"), (files | {"results/second.csv": b"another's"}, "failed")]:
            run.future = SimpleNamespace(done=lambda: True, result=lambda damaged=damaged: (outcome, damaged))
            assert run.poll().status == status
    assert outcome.status == "done"


def test_a_scheduler_that_is_not_there_or_has_no_workers_and_a_missing_package_are_told(monkeypatch, capsys):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    for address in ("tcp://127.0.0.1:1", "nowhere at all"):
        assert cli.main(["reproduce", "--cluster", address]) == 1
        assert capsys.readouterr().err.startswith(f"no dask scheduler answers at {address}")
    with distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as empty:
        assert cli.main(["reproduce", "--cluster", empty.scheduler_address]) == 1
        assert "has no workers" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert cli.main(["reproduce", "--cluster", "tcp://127.0.0.1:1"]) == 1
    assert ".[cluster]" in capsys.readouterr().err


def test_a_difference_is_named():
    ours = {"revision": "b", "uncommitted_changes": False, "python": "3.11.7", "processor": "x86_64", "peers": {}}
    ours["packages"] = {"numpy": "2.4", "torch": "2.13"}
    theirs = ours | {"python": "3.12.1", "packages": {"numpy": "2.5"}}
    assert cluster._difference(theirs, ours) == "python 3.12.1, here 3.11.7; numpy 2.5, here 2.4; torch missing, here 2.13"
    assert "differs" in cluster._difference(ours, ours)
