"""The stand-alone script of the theorem: thirty lines, torch only, right for the reader's own potential and path."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "docs" / "theorem.py"
TEXT = SCRIPT.read_text(encoding="utf-8")
NUMBER = r"-?\d+\.\d{8}"
# What a reader may put in the place of a line that begins like this.
OTHERS = {
    "as it stands": {},
    "another potential and path": {
        "psi =": "psi = lambda x: x.pow(4).sum(-1) / 4 + (x[..., 0] - 0.5 * x[..., 1]).exp() + x.square().sum(-1)",
        "path =": "path = lambda t: x0 @ torch.linalg.matrix_exp(2 * t * torch.tensor([[0.0, 1.0], [-1.0, 0.5]])) + t * y.exp()",
    },
    "one dimension": {
        "x0, y =": "x0, y = torch.randn(2, 50, 1, generator=torch.Generator().manual_seed(3))",
        "psi =": "psi = lambda x: 0.5 * x.square().sum(-1) + (4 * x[..., 0]).cosh().log()",
    },
}


def run(tmp_path, changes):
    text = TEXT
    for start, line in changes.items():
        text, found = re.subn(rf"^{re.escape(start)}.*$", lambda _, line=line: line, text, flags=re.MULTILINE)
        assert found == 1, start
    (tmp_path / "theorem.py").write_text(text, encoding="utf-8")
    command = [sys.executable, "-I", "theorem.py"]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", timeout=300)


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
def test_the_loss_is_the_semidual_along_every_path_and_that_of_a_wrong_action_is_not(tmp_path, changes):
    done = run(tmp_path, changes)
    assert done.returncode == 0, done.stderr
    semidual, *losses = done.stdout.splitlines()
    (expected,) = map(float, re.findall(NUMBER, semidual))
    right, wrong = zip(*(map(float, re.findall(NUMBER, line)) for line in losses), strict=True)
    assert len(right) == 3 and all(abs(value - expected) < 1e-6 * (1 + abs(expected)) for value in right)
    assert all(abs(value - expected) > 1e-3 for value in wrong) and max(wrong) - min(wrong) > 1e-3


def test_a_potential_that_is_not_convex_is_refused(tmp_path):
    done = run(tmp_path, {"psi =": "psi = lambda x: -x.square().sum(-1) - 0.1 * x.pow(4).sum(-1)"})
    assert done.returncode == 1 and "psi must be strongly convex and smooth" in done.stderr


def test_it_has_thirty_lines_and_needs_torch_only():
    body = ast.parse(TEXT).body
    assert {alias.name for node in body if isinstance(node, ast.Import) for alias in node.names} == {"torch"}
    assert not any(isinstance(node, ast.ImportFrom) for node in body)
    code = [line for line in TEXT.splitlines()[body[0].end_lineno :] if line.strip() and not line.strip().startswith("#")]
    assert len(code) <= 30
