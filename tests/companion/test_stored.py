"""Learning runs: what has ended is not run again after a later failure, and nothing is taken that other code made."""

from __future__ import annotations

import pytest

from dynot_lite.companion import notebooks
from dynot_lite.companion.runner import reproduce
from dynot_lite.companion.stored import runs

# A run writes its name where the test counts, and returns something new each time.
LEARN = """
import os
from dynot_lite.companion.stored import runs
def learn(name):
    with open({log!r}, "a") as stream:
        stream.write(name)
    return name, os.urandom(4).hex()
"""
CALLS = """
found = runs(learn, {{name: dict(name=name) for name in "ab"}}, processes={processes})
again = runs(learn, {{"a": dict(name="A")}})["a"]
print(list(found), again[0], found["a"][1])
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_that_failed_later_goes_on_from_what_was_learned(tmp_path, write_notebook, processes):
    folder, log = tmp_path / "notebooks", tmp_path / "log"
    learn, calls = LEARN.format(log=str(log)), CALLS.format(processes=processes)

    def run(*cells, force=False):
        """The outcome, what was learned in this run, and what the notebook printed of it."""
        log.write_text("")
        write_notebook(folder, "one", *cells)
        (outcome,) = reproduce(folder, tmp_path / "build", {}, force=force)
        (cell,) = [cell for cell in notebooks.read_executed(outcome.path).cells if "print(list(found)" in cell.source]
        return outcome.status, "".join(sorted(log.read_text())), cell.outputs[0].text

    status, learned, first = run(learn, calls, "1 / 0")
    assert (status, learned, first[:15]) == ("failed", "Aab", "['a', 'b'] A " + first[13:15])
    status, learned, second = run(learn, calls, "1 / 0  # not mended")
    assert (status, learned, second) == ("failed", "", first)
    status, learned, third = run(learn, calls.replace("print", "other = 1\nprint"), "1 / 0")
    assert (status, learned, third != first) == ("failed", "Aab", True)
    status, learned, fourth = run(learn, calls, "1 / 1")
    assert (status, learned, fourth) == ("done", "", first)
    # What has succeeded is kept as a whole, and no longer in parts; what is forced is learned anew.
    assert not list((tmp_path / "build" / "quick" / "stored").glob("*"))
    status, learned, fifth = run(learn, calls, "1 / 1", force=True)
    assert (status, learned, fifth != first) == ("done", "Aab", True)


def test_outside_a_run_nothing_is_kept(monkeypatch):
    monkeypatch.delenv("DYNOT_STORE", raising=False)
    assert runs(lambda n: 2 * n, {"x": {"n": 1}, ("y", 2): {"n": 3}}) == {"x": 2, ("y", 2): 6}
