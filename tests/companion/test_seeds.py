"""Several seeds: what depends on the seed is told with median and range."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dynot_lite.companion import seeds
from dynot_lite.companion.ledger import Claim
from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.companion.record import Outcome

CLAIMS = {
    f"T-{k}": Claim(id=f"T-{k}", notebook="one", statement="Small", source="nowhere", kind="identity", at_most=9)
    for k in (1, 2, 3)
}


def outcome(seed: int, *values: float | None, notebook: str = "one", status: str = "done") -> Outcome:
    results = {f"T-{k}": {"value": value, "verdict": "PASS"} for k, value in enumerate(values, 1)}
    return Outcome(notebook, status, Path("one.ipynb"), 1.0, results, seed=seed)


def test_median_and_range_of_what_depends_on_the_seed_and_of_nothing_else():
    # Not in the order of the seeds; the median of four is between the inner two; an infinity is no number.
    runs = [outcome(2, 8.0, 1.0, None), outcome(0, 1.0, 1.0, 5.0), outcome(3, 2.0, 1.0, 4.0), outcome(1, 3.0, 1.0, 6.0)]
    found = seeds.summary(runs)
    assert found == {
        "one": {
            "seeds": [0, 1, 2, 3],
            "claims": {
                "T-1": {"values": [1.0, 3.0, 8.0, 2.0], "median": 2.5, "range": [1.0, 8.0]},
                "T-3": {"values": [5.0, 6.0, None, 4.0], "median": 5.0, "range": [4.0, 6.0]},
            },
        }
    }
    lines = [line.split() for line in seeds.terminal(CLAIMS, found).splitlines() if "T-" in line]
    assert lines == [["T-1", "2.5", "1", "…", "8", "(≤", "9)", "Small"], ["T-3", "5", "4", "…", "6", "(≤", "9)", "Small"]]


def test_a_notebook_that_failed_with_one_seed_has_no_spread():
    runs = [outcome(0, 1.0), outcome(1, 2.0, status="failed"), outcome(0, 1.0, notebook="two"), outcome(1, 2.0, notebook="two")]
    assert list(seeds.summary(runs)) == ["two"]


def test_what_is_kept_of_other_notebooks_stays(tmp_path):
    seeds.write({"two": {"seeds": [0, 1], "claims": {}}}, tmp_path / "new")
    path = seeds.write(seeds.summary([outcome(0, 1.0), outcome(1, 2.0)]), tmp_path / "new")
    assert list(json.loads(path.read_text(encoding="utf-8"))) == ["one", "two"]
    for text in ("{", "[]"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(NotebookError, match=r"seeds\.json is damaged"):
            seeds.write({}, tmp_path / "new")
