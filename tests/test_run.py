"""run.py, which needs nothing but Python: it sets up this folder's environment, and says in one sentence what stops it."""

import ast
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
unix = pytest.mark.skipif(sys.platform == "win32", reason="the interpreter is a shell script here")

# An interpreter that answers as one of a healthy environment would, and that fails as it is told.
PIP = """\
import sys
words = {words!r}
if words:
    print(words, file=sys.stderr)
    sys.exit(3)
"""
VENV = """\
import os, sys
folder = sys.argv[-1]
os.makedirs(os.path.join(folder, "bin"), exist_ok=True)
with open(os.path.join(folder, "bin", "python"), "w") as stream:
    stream.write({python!r})
os.chmod(os.path.join(folder, "bin", "python"), 0o755)
"""
PYTHON = """#!/bin/sh
case "$*" in
  *find_spec*) test ! -e {broken} && echo {package}/__init__.py ;;
  *sys.prefix*) echo {venv} ;;
  *install*) echo "$@" >> {log}; exec {real} {pip} ;;
  *) echo "$@ $PIP_EXAMPLE"; exit 7 ;;
esac
"""


FILES = ("pyproject.toml", "constraints.txt", "hashes.txt")


class Clone:
    """A folder with run.py, the files to install from, a package, and stand-ins for venv and pip that keep a log."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "dynot_lite").mkdir(parents=True)
        (folder / "dynot_lite" / "__init__.py").touch()
        shutil.copy(ROOT / "run.py", folder / "run.py")
        for name in FILES:
            (folder / name).write_text(name, encoding="utf-8")
        self.pip_says("")

    def pip_says(self, words: str) -> None:
        self.put("pip.py", PIP.format(words=words))

    def put(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    def run(self, *arguments: str, folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
        """run.py in a process of its own, whose "python -m venv" makes the stand-in."""
        here = folder or self.folder
        names = {
            "broken": here / "broken",
            "package": here / "dynot_lite",
            "venv": here / ".venv",
            "log": here / "log",
            "pip": here / "pip.py",
        }
        python = PYTHON.format(real=sys.executable, **names)
        modules = here / "modules" / "venv.py"
        modules.parent.mkdir(exist_ok=True)
        modules.write_text(VENV.format(python=python), encoding="utf-8")
        # Without compiled files: that of another checkout's stand-in, as old to the second and as long, would be taken for it.
        given = os.environ | {"PYTHONPATH": str(modules.parent), "PYTHONDONTWRITEBYTECODE": "1"} | environment
        return subprocess.run(
            [sys.executable, str(here / "run.py"), *arguments], capture_output=True, text=True, env=given, cwd=ROOT.anchor
        )

    def steps(self) -> list[str]:
        """What pip was called with since the last call of this."""
        log = self.folder / "log"
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    def installations(self) -> int:
        return sum("hashes.txt" in step for step in self.steps())


@pytest.fixture
def clone(tmp_path):
    return Clone((tmp_path / "clone").resolve())


def test_it_is_readable_for_old_versions_and_imports_the_standard_library_only():
    tree = ast.parse((ROOT / "run.py").read_text(encoding="utf-8"), feature_version=(3, 6))
    modules = [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    assert set(modules) <= sys.stdlib_module_names
    assert {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)} == {"__future__"}


def test_an_old_python_gets_a_clear_message_and_exit_code_2(monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("run_of_clone", ROOT / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.sys, "version_info", (3, 8, 10))
    assert module.main(["test"]) == 2
    assert "needs Python 3.11 or later" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["--help"], 0), (["-h"], 0)])
def test_it_explains_itself_without_installing(clone, arguments, code):
    done = clone.run(*arguments)
    assert done.returncode == code and "python3 run.py reproduce" in done.stdout
    assert not (clone.folder / ".venv").exists()


@unix
def test_it_hands_over_arguments_exit_code_and_environment(clone):
    done = clone.run("reproduce", "--preset", "full", PIP_EXAMPLE="kept")
    assert done.returncode == 7 and done.stdout.splitlines()[-1] == "-P -m dynot_lite reproduce --preset full kept"


@unix
def test_it_installs_once_and_again_after_a_change(clone):
    assert clone.run("test").returncode == 7 and clone.installations() == 1
    assert clone.run("claims").returncode == 7 and clone.installations() == 0
    for name in FILES:
        clone.put(name, "changed")
        assert clone.run("claims").returncode == 7 and clone.installations() == 1


@unix
def test_every_file_but_those_of_torch_is_compared_with_its_hash(clone):
    clone.run("claims")
    first, second, third = clone.steps()
    assert "--require-hashes" in first and "--no-deps" in first and first.endswith("-r hashes.txt")
    assert second.endswith("-c constraints.txt torch")  # all that it shares with the others is there by now
    assert "--no-deps" in third and "--no-build-isolation" in third and third.endswith("-e .")  # nothing is fetched


@unix
def test_a_file_that_is_not_the_one_of_the_list_is_refused_by_pip(tmp_path):
    """Not of run.py, but of what it relies on: pip, the option and the words that it is known by."""
    wheel = tmp_path / "tiny-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("tiny-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1\n")
        packed.writestr("tiny-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr("tiny-1.dist-info/RECORD", "")
    right = hashlib.sha256(wheel.read_bytes()).hexdigest()
    for digest, code in ((right, 0), ("0" * 64, 1)):
        (tmp_path / "hashes.txt").write_text(f"tiny==1 \\\n    --hash=sha256:{digest}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--no-index", "--find-links", str(tmp_path)]
        command += ["--target", str(tmp_path / "into"), "--require-hashes", "--no-deps", "-r", "hashes.txt"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert ("DO NOT MATCH THE HASHES" in done.stderr) == (code == 1)


@unix
def test_the_book_adds_its_extra_which_then_stays(clone):
    assert clone.run("test").returncode == 7 and not any("[book]" in step for step in clone.steps())
    for command, steps in {"book": 4, "test": 0, "claims": 0}.items():
        assert clone.run(command).returncode == 7
        told = clone.steps()
        assert len(told) == steps and (not told or told[-1].endswith("-e .[book]")), command
    clone.put("constraints.txt", "changed")
    assert clone.run("test").returncode == 7 and clone.steps()[-1].endswith("-e .[book]")


@unix
def test_a_failed_installation_is_tried_again(clone):
    clone.pip_says("ERROR: something else")
    done = clone.run("test")
    assert done.returncode == 1 and "the same command tries again" in done.stderr and "ERROR: something else" in done.stderr
    clone.pip_says("")
    assert clone.run("test").returncode == 7 and clone.installations() == 2


@unix
@pytest.mark.parametrize(
    "words, cause",
    [
        ("WARNING: Retrying ... NewConnectionError ...\nERROR: ResolutionImpossible: loosen the range", "no network"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "the disk is full"),
        ("ERROR: [Errno 30] Read-only file system: '/x'", "cannot be written to"),
        (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you",
            "not the file that hashes.txt names",
        ),
    ],
)
def test_the_cause_is_said_in_one_sentence_at_the_end(clone, words, cause):
    clone.pip_says(words)
    last = clone.run("test").stderr.splitlines()[-1]
    assert last.startswith("dynot_lite: the set-up failed: ") and cause in last


@unix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_checkout_is_named(clone):
    clone.folder.chmod(0o555)
    try:
        assert "read-only" in clone.run("test").stderr
    finally:
        clone.folder.chmod(0o755)


@unix
def test_a_copied_or_moved_checkout_makes_an_environment_of_its_own(clone, tmp_path):
    clone.run("test")
    clone.installations()
    copy = Clone.__new__(Clone)
    copy.folder = tmp_path.resolve() / "copy"
    shutil.copytree(clone.folder, copy.folder)
    done = copy.run("claims")
    assert done.returncode == 7 and "making the environment" in done.stdout and copy.installations() == 1
    clone.folder.rename(tmp_path / "moved")
    copy.folder = tmp_path.resolve() / "moved"
    done = copy.run("claims")
    assert "making the environment" in done.stdout and copy.installations() == 1


@unix
@pytest.mark.parametrize("harm", ["no interpreter", "an interpreter that does not start", "a package that does not import"])
def test_a_broken_environment_heals(clone, harm):
    clone.run("test")
    clone.installations()
    python = clone.folder / ".venv" / "bin" / "python"
    if harm == "no interpreter":
        python.unlink()
    elif harm == "an interpreter that does not start":
        python.write_bytes(b"\x7fELF no program")
    else:
        clone.put("broken", "")
    done = clone.run("claims")
    assert "installing packages" in done.stdout and clone.installations() == 1
    assert "Traceback" not in done.stderr
