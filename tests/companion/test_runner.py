"""The runner: every way in which a notebook fails is told, what finished is not redone, an interruption leaves nothing."""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from dynot_lite import cli
from dynot_lite.companion import notebooks, origin, record, runner
from dynot_lite.companion.ledger import RUN_DIR, read_registry
from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.companion.runner import reproduce

REGISTRY = """
[{0}-1]
statement = "Small enough"
source = "nowhere"
catches = "a wrong version"
kind = "identity"
at_most = 1e-9

[{0}-2]
statement = "Fast enough"
source = "nowhere"
catches = "a wrong version"
kind = "benchmark"
at_least = 50
"""

# The claims in this order: one that holds, and a benchmark that does not, which the quick preset only reports.
BOTH = 'claim("{0}-1", 1e-12)\nclaim("{0}-2", 3)'


def cells_of(name: str, folder) -> list[str]:
    """The cells of one notebook per outcome."""
    picture = """
        from matplotlib import pyplot as plt
        figure, axes = plt.subplots()
        show(figure, "empty", alt="Axes with nothing in them")
        from dynot_lite.companion.ledger import run_dir
        from PIL import Image
        Image.new("L", (8, 8)).save(run_dir() / "film.gif")
        (run_dir() / "table.csv").write_text("dim,uvp")
    """
    return {
        "good": [BOTH.format("GOOD"), picture, f"open({str(folder / 'seen')!r}, 'w').write(f'{{preset}} {{seed}} {{seed + 1}}')"],
        "raises": ['claim("RAISES-1", 0)', "1 / 0"],
        "dies": ['claim("DIES-1", 0)', "import os\nos._exit(0)"],
        "sleeps": ['claim("SLEEPS-1", 0)', "import time\ntime.sleep(600)"],
        "forgets": ['claim("FORGETS-1", 0)'],
        "wrong": ['claim("WRONG-1", 1e-3)', 'claim("WRONG-2", 60)'],
        "hides": ['try:\n    claim("HIDES-1", float("nan"))\nexcept AssertionError:\n    pass', 'claim("HIDES-2", 60)'],
    }[name]


NAMES = ["dies", "forgets", "good", "hides", "raises", "sleeps", "wrong"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, write_notebook):
    """One run of all those notebooks: the folder it was in, its registry and the outcomes by name."""
    base = tmp_path_factory.mktemp("run")
    folder = base / "notebooks"
    for name in NAMES:
        write_notebook(folder, name, *cells_of(name, base), ledger=True)
        (folder / "claims").mkdir(exist_ok=True)
        (folder / "claims" / f"{name}.toml").write_text(REGISTRY.format(name.upper()), encoding="utf-8")
    claims = read_registry(folder / "claims")
    # Long enough for the imports on a busy machine, short of the sleep.
    outcomes = reproduce(folder, base / "build", claims, seed=4, timeout=12)
    return base, claims, {outcome.notebook: outcome for outcome in outcomes}


def test_the_truth_about_each(run):
    _, _, outcomes = run
    assert {name: outcome.status for name, outcome in outcomes.items()} == {
        name: "done" if name == "good" else "failed" for name in NAMES
    }
    for name, message in {
        "dies": "Kernel died",
        "forgets": "not exercised: FORGETS-2",
        "hides": "claims failed: HIDES-1",
        "raises": "ZeroDivisionError: division by zero",
        "sleeps": "Cell execution timed out",
        "wrong": "AssertionError: WRONG-1: measured 0.001, required ≤ 1e-09",
    }.items():
        assert message in outcomes[name].error, name


def test_partial_output_is_kept_under_a_clear_name(run):
    base, _, outcomes = run
    for name in NAMES:
        path = base / "build" / "quick" / "notebooks" / (f"{name}.ipynb" if name == "good" else f"{name}.failed.ipynb")
        assert outcomes[name].path == path
        assert any(cell.get("outputs") for cell in notebooks.read_executed(path).cells)
    stored = sorted(path.name for folder in ("notebooks", "results") for path in (base / "build" / "quick" / folder).iterdir())
    assert not [name for name in stored if "partial" in name]
    log = (base / "build" / "quick" / "results" / "raises.failed" / "papermill.log").read_text(encoding="utf-8")
    assert "ZeroDivisionError" in log


def test_claims_are_collected_as_far_as_they_were_reached(run):
    _, _, outcomes = run
    assert outcomes["good"].results == {
        "GOOD-1": {"value": 1e-12, "verdict": "PASS"},
        "GOOD-2": {"value": 3.0, "verdict": "SEEN"},
    }
    assert outcomes["raises"].results == {"RAISES-1": {"value": 0.0, "verdict": "PASS"}}
    assert outcomes["wrong"].results == {"WRONG-1": {"value": 1e-3, "verdict": "FAIL"}}
    assert outcomes["hides"].results["HIDES-1"] == {"value": None, "verdict": "FAIL"}


def test_parameters_figures_and_provenance_arrive(run):
    base, _, _ = run
    assert (base / "seen").read_text() == "quick 4 5"
    results = base / "build" / "quick" / "results" / "good"
    files = ["claims.jsonl", "empty.png", "film.gif", "kernel.json", "provenance.json", "result.json", "table.csv"]
    assert sorted(path.name for path in results.iterdir()) == files
    origin = json.loads((results / "provenance.json").read_text(encoding="utf-8"))
    assert (origin["preset"], origin["seed"]) == ("quick", 4)
    assert origin["packages"]["torch"].startswith("2.") and origin["time"].endswith("+00:00")
    assert {"python", "platform", "revision", "uncommitted_changes"} <= set(origin)


def test_the_sources_are_left_alone(run):
    base, _, _ = run
    assert sorted(path.name for path in (base / "notebooks").iterdir()) == sorted(["claims", *(f"{name}.py" for name in NAMES)])


def test_no_process_is_left(run):
    base, _, _ = run
    assert processes_under(base) == []


def processes_under(folder) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(RUN_DIR, "").startswith(str(folder)):
                found.append(process)
        except (psutil.Error, OSError):
            pass
    return found


def test_what_finished_is_run_again_only_if_something_changed(tmp_path, write_notebook, capsys):
    folder, log = tmp_path / "notebooks", tmp_path / "log"
    cell = f"with open({str(log)!r}, 'a') as stream:\n    stream.write('x')"
    source = write_notebook(folder, "one", cell)

    def statuses(**options) -> str:
        return reproduce(folder, tmp_path / "build", {}, **options)[0].status

    assert (statuses(), log.read_text()) == ("done", "x")
    assert (statuses(), log.read_text()) == ("unchanged", "x")
    assert "one: unchanged" in capsys.readouterr().out
    assert (statuses(force=True), log.read_text()) == ("done", "xx")
    good = tmp_path / "build" / "quick" / "notebooks" / "one.ipynb"
    before = good.read_bytes()
    text = source.read_text(encoding="utf-8")
    source.write_text(text + "\n# %%\n1 / 0\n", encoding="utf-8")
    assert (statuses(), log.read_text()) == ("failed", "xxx")
    assert good.read_bytes() == before
    source.write_text(text, encoding="utf-8")
    assert (statuses(), log.read_text()) == ("unchanged", "xxx")
    assert [path.name for path in good.parent.iterdir()] == ["one.ipynb"]


def test_further_seeds_run_beside_the_first_and_into_folders_of_their_own(tmp_path, write_notebook, capsys):
    write_notebook(tmp_path / "notebooks", "one", "print(preset, seed)")
    outcomes = reproduce(tmp_path / "notebooks", tmp_path / "build", {}, seed=3, seeds=2)
    base = tmp_path / "build" / "quick"
    assert [(outcome.seed, outcome.path) for outcome in outcomes] == [
        (3, base / "notebooks" / "one.ipynb"),
        (4, base / "seed-4" / "notebooks" / "one.ipynb"),
    ]
    said = [notebooks.read_executed(outcome.path).cells[-1].outputs[0].text for outcome in outcomes]
    assert said == ["quick 3\n", "quick 4\n"]
    assert "one (seed 4): finished in" in capsys.readouterr().out
    again = reproduce(tmp_path / "notebooks", tmp_path / "build", {}, seed=3, seeds=2)
    assert [(outcome.seed, outcome.status) for outcome in again] == [(3, "unchanged"), (4, "unchanged")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, write_notebook):
    """A run of one small notebook with a claim, a figure and a table."""
    base = tmp_path_factory.mktemp("finished")
    write_notebook(base / "notebooks", "good", *cells_of("good", base), ledger=True)
    (base / "notebooks" / "claims").mkdir()
    (base / "notebooks" / "claims" / "good.toml").write_text(REGISTRY.format("GOOD"), encoding="utf-8")
    claims = read_registry(base / "notebooks" / "claims")
    reproduce(base / "notebooks", base / "build", claims)
    return base, claims


def put(path, text):
    path.write_text(text, encoding="utf-8")


def edit_result(path, **fields):
    put(path, json.dumps(json.loads(path.read_text(encoding="utf-8")) | fields))


def false_claim(results):
    """A claim that fails, entered as if the run had left it so."""
    lines = (results / "claims.jsonl").read_text(encoding="utf-8").replace("1e-12", "1.0")
    put(results / "claims.jsonl", lines)
    files = json.loads((results / "result.json").read_text(encoding="utf-8"))["files"]
    edit_result(results / "result.json", files=files | {"claims.jsonl": origin.sha256(results / "claims.jsonl")})


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda results, notebook: None, "unchanged"),
        (lambda results, notebook: put(results / "result.json", "[]"), "cannot be read"),
        (lambda results, notebook: put(results / "result.json", "{"), "cannot be read"),
        (lambda results, notebook: edit_result(results / "result.json", schema=0), ""),
        (lambda results, notebook: edit_result(results / "result.json", files={}), "missing or changed"),
        (lambda results, notebook: put(notebook, ""), "missing or changed"),
        (lambda results, notebook: put(notebook, notebook.read_text(encoding="utf-8")[:-9]), "missing or changed"),
        (lambda results, notebook: notebook.unlink(), "is missing"),
        (lambda results, notebook: (results / "empty.png").unlink(), "missing or changed"),
        (lambda results, notebook: put(results / "table.csv", "dim,uvp\n2,1"), "missing or changed"),
        (lambda results, notebook: put(results / "claims.jsonl", "[]\n"), "cannot be read"),
        (lambda results, notebook: false_claim(results), "do not follow from the values: GOOD-1"),
    ],
)
def test_a_result_counts_only_as_the_run_left_it(finished, tmp_path, capsys, monkeypatch, harm, words):
    base, claims = finished
    shutil.copytree(base / "build", tmp_path / "build")
    folder = tmp_path / "build" / "quick"
    harm(folder / "results" / "good", folder / "notebooks" / "good.ipynb")
    monkeypatch.setattr(runner._Run, "start", lambda run, timeout: setattr(run, "begin", 0))
    monkeypatch.setattr(runner._Run, "new_cells", lambda run: 0)
    monkeypatch.setattr(runner._Run, "poll", lambda run: record.Outcome(run.name, "again", run.output, 0.0, {}))
    (outcome,) = reproduce(base / "notebooks", tmp_path / "build", claims)
    assert outcome.status == ("unchanged" if words == "unchanged" else "again")
    assert words in capsys.readouterr().out


def test_nothing_of_the_caller_reaches_the_kernel(tmp_path, write_notebook, monkeypatch):
    profile = tmp_path / "home" / ".ipython" / "profile_default"
    (profile / "startup").mkdir(parents=True)
    put(profile / "ipython_config.py", 'c.InteractiveShell.ast_node_interactivity = "all"')
    put(profile / "startup" / "a.py", "surprise = 1")
    put(tmp_path / "home" / "startup.py", "surprise = 1")
    put(tmp_path / "home" / "matplotlibrc", "axes.grid: True")
    kernel = tmp_path / "home" / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    put(kernel / "kernel.json", json.dumps({"argv": ["false"], "display_name": "another", "language": "python"}))
    for name, value in {
        "HOME": str(tmp_path / "home"),
        "IPYTHONDIR": str(profile.parent),
        "JUPYTER_PATH": str(kernel.parents[1]),
        "MATPLOTLIBRC": str(tmp_path / "home"),
        "PYTHONOPTIMIZE": "2",
        "PYTHONSTARTUP": str(tmp_path / "home" / "startup.py"),
        "PYTHONPATH": str(tmp_path / "home"),
        "MPLBACKEND": "pdf",
        "EXAMPLE": "1",
        "DYNOT_DATA": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    cell = """
        1
        import os, sys
        import matplotlib
        assert sys.flags.optimize == 0 and __debug__
        print("surprise" in globals(), os.environ.get("EXAMPLE"), "PYTHONSTARTUP" in os.environ, os.environ["DYNOT_DATA"])
        print(sys.executable, matplotlib.rcParams["axes.grid"], matplotlib.get_backend().endswith("inline"))
        2
    """
    source = write_notebook(tmp_path / "notebooks", "one", cell)
    (outcome,) = reproduce(tmp_path / "notebooks", tmp_path / "build", {})
    assert outcome.status == "done", outcome.error
    expected = f"False None False {tmp_path}\n{sys.executable} False True\n"
    for notebook in (notebooks.read_executed(outcome.path), notebooks.execute(source)):
        first, *others = notebook.cells[-1].outputs
        assert first.text == expected and [output.data["text/plain"] for output in others] == ["2"]
    assert sorted(path.name for path in (tmp_path / "home").iterdir() if path.name.startswith(".")) == [".ipython"]
    assert sorted(path.name for path in profile.iterdir()) == ["ipython_config.py", "startup"]


def test_a_notebook_that_ran_elsewhere_fails(tmp_path, write_notebook):
    cell = (
        "from dynot_lite.companion.ledger import run_dir\n(run_dir() / 'kernel.json').write_text('[\"/python\", \"/package\"]')"
    )
    write_notebook(tmp_path / "notebooks", "one", cell)
    (outcome,) = reproduce(tmp_path / "notebooks", tmp_path / "build", {})
    assert (outcome.status, outcome.error.partition(", not")[0]) == ("failed", "it ran with /python and /package")


def test_what_was_edited_during_the_run_is_run_again(tmp_path, write_notebook):
    source = tmp_path / "notebooks" / "one.py"
    write_notebook(source.parent, "one", f"open({str(source)!r}, 'a').write('#')")
    assert [reproduce(source.parent, tmp_path / "build", {})[0].status for _ in range(2)] == ["done", "done"]


# Each notebook says at both ends of its run which kernel it is.
STAMPED = """
import os, time
from pathlib import Path
stamp = os.urandom(8).hex()
Path(os.environ["DYNOT_RUN_DIR"], "first.csv").write_text(stamp)
print(stamp)
# %%
time.sleep(1)
Path(os.environ["DYNOT_RUN_DIR"], "second.csv").write_text(stamp)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_killed_at_any_moment_and_started_again_at_once_nothing_is_mixed_lost_or_left(tmp_path, write_notebook):
    folder, build = tmp_path / "notebooks", tmp_path / "build" / "quick"
    for name in ("one", "two"):
        write_notebook(folder, name, STAMPED)
    program = f"""
        from pathlib import Path
        from dynot_lite.companion.runner import reproduce
        reproduce(Path({str(folder)!r}), Path({str(tmp_path / "build")!r}), {{}}, jobs=1)
    """

    def stamp(name: str) -> str:
        notebook = notebooks.read_executed(build / "notebooks" / f"{name}.ipynb")
        said = {(build / "results" / name / f"{end}.csv").read_text() for end in ("first", "second")}
        said.add(notebook.cells[2].outputs[0].text.strip())
        assert len(said) == 1, said  # all of one run
        return said.pop()

    moments = random.Random(7)
    for _ in range(int(os.environ.get("DYNOT_KILLS", "3"))):
        shutil.rmtree(build, ignore_errors=True)
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
        process.stdout.readline()  # "one: started"
        time.sleep(moments.uniform(0, 9))
        process.kill()
        process.communicate()
        before = {name: stamp(name) for name in ("one", "two") if (build / "results" / name / "result.json").exists()}
        outcomes = reproduce(folder, tmp_path / "build", {})
        assert {outcome.notebook: outcome.status for outcome in outcomes if outcome.notebook in before} == dict.fromkeys(
            before, "unchanged"
        )
        assert not any(outcome.error for outcome in outcomes)
        assert before.items() <= {name: stamp(name) for name in ("one", "two")}.items()
        assert processes_under(tmp_path) == []
        assert list((build / "running").glob("*")) == []


def test_what_was_finished_but_not_yet_in_its_place_is_not_lost(finished, tmp_path):
    base, claims = finished
    shutil.copytree(base / "build", tmp_path / "build")
    folder = tmp_path / "build" / "quick"
    (folder / "running" / "good-0").mkdir(parents=True)
    (folder / "results" / "good").rename(folder / "running" / "good-0" / "results")
    (outcome,) = reproduce(base / "notebooks", tmp_path / "build", claims)
    assert outcome.status == "unchanged"
    assert list((folder / "running").glob("*")) == []


def test_a_folder_has_one_run_at_a_time(tmp_path, write_notebook):
    write_notebook(tmp_path / "notebooks", "one", "import time\ntime.sleep(3)")
    with ThreadPoolExecutor(2) as two:
        runs = [two.submit(reproduce, tmp_path / "notebooks", tmp_path / "build", {}) for _ in range(2)]
    errors = [run.exception() for run in runs if run.exception()]
    assert [str(error).partition(", since")[0] for error in errors] == [
        f"{tmp_path / 'build' / 'quick'} is in use by process {os.getpid()} on {platform.node()}"
    ]
    assert [run.result()[0].status for run in runs if not run.exception()] == ["done"]


def mounted(home, script: str) -> tuple[list[str], str]:
    """The lines that a shell script prints where it can mount, for itself only, and its errors; ``run`` is ``reproduce``."""
    program = f"""
        import sys
        from pathlib import Path
        from dynot_lite import cli
        from dynot_lite.companion import notebooks
        notebooks.root = lambda: Path({str(home)!r})
        sys.exit(cli.main(["reproduce", "--jobs", "1", *sys.argv[1:]]))
    """
    script = f'run() {{ "{sys.executable}" -B -c "$PROGRAM" "$@" && echo exit 0 || echo exit $?; }}\n{script}'
    given = os.environ | {"PROGRAM": textwrap.dedent(program)}
    done = subprocess.run(["unshare", "-rm", "sh", "-ec", script], capture_output=True, text=True, env=given)
    return done.stdout.splitlines(), done.stderr


def can_mount() -> bool:
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return (
        bool(sys.platform == "linux" and shutil.which("unshare"))
        and not subprocess.run(command, stderr=subprocess.DEVNULL).returncode
    )


needs_mounts = pytest.mark.skipif(not can_mount(), reason="mounts for itself only, as Linux with user namespaces allows")


@needs_mounts
def test_a_full_disk_is_told_and_the_same_command_goes_on_when_there_is_room(tmp_path, write_notebook):
    disk = tmp_path / "disk"
    disk.mkdir()
    write_notebook(tmp_path / "notebooks", "a", "1")
    filler = """
        from dynot_lite.companion.ledger import run_dir
        (run_dir() / "filler.csv").write_bytes(bytes(4_000_000))
    """
    write_notebook(tmp_path / "notebooks", "b", filler)
    script = f"""
        mount -t tmpfs -o size=1m tmpfs {disk}
        run --output {disk}
        mount -o remount,size=60m {disk}
        run --output {disk}
    """
    said, errors = mounted(tmp_path, script)
    assert errors.endswith(": the disk is full; what had finished stays, the same command goes on from there\n")
    assert errors.count("\n") == 1
    assert [line for line in said if line.startswith("exit")] == ["exit 1", "exit 0"], said
    assert any(line.startswith("a: finished") for line in said) and any(line.startswith("b: finished") for line in said)
    assert any(line.startswith("a: unchanged") for line in said)


@needs_mounts
def test_in_a_read_only_checkout_another_folder_must_be_named(tmp_path, write_notebook):
    home = tmp_path / "home"
    (tmp_path / "elsewhere").mkdir()
    write_notebook(home / "notebooks", "a", "1")
    script = f"""
        mount --bind {home} {home}
        mount -o remount,bind,ro {home}
        run
        run --output {tmp_path / "elsewhere"}
    """
    said, errors = mounted(home, script)
    assert (
        errors == f"{home / 'build'}: this is read-only: name a folder that can be written to (reproduce --output FOLDER), or "
        "work in a copy\n"
    )
    assert [line for line in said if line.startswith("exit")] == ["exit 1", "exit 0"], said
    assert (tmp_path / "elsewhere" / "quick" / "notebooks" / "a.ipynb").exists()


def test_misspelt_parameters_are_refused_before_anything_runs(tmp_path, write_notebook):
    source = write_notebook(tmp_path / "notebooks", "one", "1")
    source.write_text(source.read_text(encoding="utf-8").replace("preset =", "presets ="), encoding="utf-8")
    with pytest.raises(NotebookError, match="one: the parameters cell must be exactly"):
        reproduce(tmp_path / "notebooks", tmp_path / "build", {})
    assert not (tmp_path / "build").exists()


def test_unknown_names_are_refused(tmp_path, write_notebook):
    write_notebook(tmp_path, "one", "1")
    with pytest.raises(NotebookError, match="no notebook named two; there are one"):
        reproduce(tmp_path, tmp_path / "build", {}, names=["one", "two"])
    assert notebooks.find_notebooks(tmp_path, ["notebooks/one.ipynb", "one"]) == ["one"]


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_no_process_and_no_partial_file(tmp_path, write_notebook, number):
    folder, alive = tmp_path / "notebooks", tmp_path / "alive"
    write_notebook(folder, "a_quick", "1")
    # The kernel has a child of its own, which must end, too.
    write_notebook(
        folder,
        "b_slow",
        f"""
        import os, subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        open({str(alive)!r}, "w").write(f"{{os.getpid()}} {{child.pid}} ")
        time.sleep(600)
        """,
    )
    program = f"""
        import sys
        from pathlib import Path
        from dynot_lite import cli
        from dynot_lite.companion import notebooks
        notebooks.root = lambda: Path({str(tmp_path)!r})
        sys.exit(cli.main(["reproduce", "--jobs", "2"]))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As from a terminal: in the background of a script the signal would be ignored, and stay so.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    build = tmp_path / "build" / "quick"
    finished = build / "results" / "a_quick" / "result.json"
    deadline = time.monotonic() + 60
    while not (alive.exists() and alive.read_text().count(" ") == 2 and finished.exists()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    pids = [int(pid) for pid in alive.read_text().split()]
    assert all(psutil.pid_exists(pid) for pid in pids)
    assert len(processes_under(tmp_path)) >= 3  # papermill, the kernel and its child
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in errors and "Traceback" not in errors
    assert processes_under(tmp_path) == []
    assert not [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
    assert sorted(path.name for path in build.glob("*/*")) == ["a_quick", "a_quick.ipynb"]


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_a_papermill_that_was_killed_is_told(tmp_path, write_notebook):
    write_notebook(tmp_path / "notebooks", "one", "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)")
    (outcome,) = reproduce(tmp_path / "notebooks", tmp_path / "build", {})
    assert outcome.status == "failed" and "papermill was ended by signal 9" in outcome.error
    assert processes_under(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_a_bar_is_shown_in_a_terminal_only(tmp_path, write_notebook):
    write_notebook(tmp_path / "notebooks", "one", "1")
    program = f"""
        from pathlib import Path
        from dynot_lite.companion.runner import reproduce
        reproduce(Path({str(tmp_path / "notebooks")!r}), Path({str(tmp_path / "build")!r}), {{}}, force=True)
    """
    termios = pytest.importorskip("termios")
    terminal, child = os.openpty()
    termios.tcsetwinsize(child, (24, 80))
    shown = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, stderr=child, text=True, check=True
    ).stdout
    os.close(child)
    assert b"3/3" in os.read(terminal, 100_000)
    os.close(terminal)
    assert "one: finished in" in shown and "started" not in shown


def test_the_command_line_tells_a_failure_by_its_exit_code(run, monkeypatch, capsys):
    base, claims, _ = run
    monkeypatch.setattr(notebooks, "root", lambda: base)
    monkeypatch.setattr(cli, "registry", lambda: claims)
    key = json.loads((base / "build" / "quick" / "results" / "good" / "result.json").read_text(encoding="utf-8"))["key"]
    monkeypatch.setattr(runner, "fingerprint", lambda *_, **__: key)  # the package may be edited while its tests run
    assert cli.main(["reproduce", "good", "--seed", "4"]) == 0
    shown = capsys.readouterr().out
    assert "good: unchanged" in shown and "2 claims: 1 PASS, 1 SEEN, 0 SKIP, 0 FAIL, 0 NOT REACHED" in shown
    assert cli.main(["reproduce", "good", "raises", "--seed", "4"]) == 1
    shown = capsys.readouterr().out
    assert "raises: started" in shown and "raises: FAILED after" in shown and "raises.failed.ipynb" in shown
    assert "4 claims: 2 PASS, 1 SEEN, 0 SKIP, 0 FAIL, 1 NOT REACHED" in shown
    assert "2 notebooks: 1 FAILED (raises)" in shown
