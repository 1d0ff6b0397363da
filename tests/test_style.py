"""Form: ruff's format and rules everywhere, types in the rooms that pyproject.toml lists."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("command", [["check", "--output-format=concise"], ["format", "--check"]], ids=["rules", "format"])
def test_ruff(command):
    run = subprocess.run([sys.executable, "-m", "ruff", *command, "--no-cache", "."], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_types():
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    report = json.loads(run.stdout)
    assert report["summary"]["filesAnalyzed"] > 20
    assert [
        f"{entry['file']}:{entry['range']['start']['line'] + 1}: {entry['message']}" for entry in report["generalDiagnostics"]
    ] == []
