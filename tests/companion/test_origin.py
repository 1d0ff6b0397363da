"""The hash that decides whether a notebook runs again: all that its numbers depend on, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynot_lite.companion import origin
from dynot_lite.companion.ledger import PACKAGE

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "dynot_lite/__init__.py": "",
    "dynot_lite/laws/__init__.py": "",
    "dynot_lite/laws/gaussian.py": "def f():\n    from dynot_lite.paths import flows",
    "dynot_lite/laws/mixtures.py": "",
    "dynot_lite/paths/__init__.py": "",
    "dynot_lite/paths/flows.py": "import json",
    "dynot_lite/datasets/__init__.py": "",
    "dynot_lite/datasets/toy.py": "",
    "dynot_lite/datasets/files.py": "data_folder()",
    "dynot_lite/datasets/data/cities.npz": "numbers",
    "dynot_lite/oracle/__init__.py": "importlib.import_module(name)",
    "dynot_lite/oracle/ps1.py": "",
    "dynot_lite/companion/claims/one.toml": "",
    "dynot_lite/companion/claims/two.toml": "",
    "data/2_v1.pt": "weights",
    "data/mnist.npz": "images",
    "constraints.txt": "numpy==1\ntorch==2\n",
    "one.py": "from dynot_lite.laws.gaussian import Gaussian",
}


@pytest.fixture
def key(tmp_path, monkeypatch):
    """A function that writes the package above, changed, and returns the hash of the notebook ``one.py``."""
    monkeypatch.setenv("DYNOT_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(origin, "_installed", lambda: {"numpy": "1", "Torch": "2", "pip": "3"})
    monkeypatch.setattr(origin, "peers", dict)

    def write(change: dict[str, str], preset: str = "quick", seed: int = 0) -> str:
        for name, text in {**FILES, **change}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text, encoding="utf-8")
        return origin.fingerprint(tmp_path / "one.py", preset=preset, seed=seed, package=tmp_path / "dynot_lite")

    return write


@pytest.mark.parametrize(
    ("imports", "matter"),
    [
        ("", {"dynot_lite/companion/claims/one.toml"}),
        ("import dynot_lite", set(FILES) - {"dynot_lite/companion/claims/two.toml", "constraints.txt", "one.py"}),
        (
            "from dynot_lite.laws.gaussian import Gaussian",
            {f"dynot_lite/{name}.py" for name in ("__init__", "laws/__init__", "laws/gaussian", "paths/__init__", "paths/flows")},
        ),
        ("from dynot_lite.laws import gaussian", {"dynot_lite/laws/gaussian.py", "dynot_lite/paths/flows.py"}),
        ("from dynot_lite import laws", {f"dynot_lite/laws/{name}.py" for name in ("__init__", "gaussian", "mixtures")}),
        ("import dynot_lite.datasets.toy", {"dynot_lite/datasets/toy.py", "dynot_lite/datasets/data/cities.npz"}),
        ("from dynot_lite.datasets import files", {"dynot_lite/datasets/files.py", "data/2_v1.pt", "data/mnist.npz"}),
        ("from dynot_lite.oracle import claim_part", {"dynot_lite/oracle/ps1.py"}),
        ("registry()", {"dynot_lite/companion/claims/one.toml", "dynot_lite/companion/claims/two.toml"}),
    ],
)
def test_a_file_counts_if_and_only_if_it_is_reached(key, imports, matter):
    source = {"one.py": imports}
    before = key(source)
    changed = {name for name in set(FILES) - {"one.py"} if key({**source, name: FILES[name] + "\n"}) != before}
    assert matter <= changed
    if "gaussian import" in imports:
        assert changed == matter | {"dynot_lite/companion/claims/one.toml"}
    assert key({"one.py": imports + "\n"}) != before


def test_parameters_versions_peers_and_the_arithmetic_count(key, monkeypatch):
    keys = [key({}), key({}, preset="full"), key({}, seed=1), key({"data/2_v1.pt": "others"})]
    assert len(set(keys[:3])) == 3 and keys[3] == keys[0]  # nothing here reads the data
    monkeypatch.setattr(origin, "_installed", lambda: {"numpy": "1", "Torch": "2", "pip": "4"})
    assert key({}) == keys[0]  # neither imported nor pinned
    monkeypatch.setattr(origin, "_installed", lambda: {"numpy": "1", "Torch": "2.1", "pip": "4"})
    assert key({}) not in keys
    monkeypatch.setattr(origin, "_installed", lambda: {"numpy": "1", "Torch": "2", "pip": "3"})
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    assert key({}) not in keys
    monkeypatch.delenv("ATEN_CPU_CAPABILITY")
    assert key({}) == keys[0]
    monkeypatch.setattr(origin, "peers", lambda: {"ott": "1"})
    assert key({}) not in keys


def test_a_notebook_does_not_depend_on_the_course_and_a_problem_set_does():
    def rooms(name: str) -> set[str]:
        files, _ = origin.reached(ROOT / "notebooks" / name)
        return {path.relative_to(PACKAGE).parts[0] for path in files}

    assert "course" not in rooms("proofs/01_continuity_equation.py")
    assert {"laws", "paths", "companion", "plots.py"} <= rooms("proofs/01_continuity_equation.py")
    assert "course" in rooms("assignments/PS1_continuity_to_flow_matching.py")


def test_provenance_names_revision_versions_and_time():
    made = origin.provenance(preset="full", seed=3)
    assert (made["preset"], made["seed"]) == ("full", 3)
    assert made["packages"]["torch"].startswith("2.") and made["time"].endswith("+00:00")
