"""results, progress and rooms."""

import sys
import time
from dataclasses import FrozenInstanceError, dataclass

import pytest

from dynot_lite._base import progress, rooms
from dynot_lite._base.results import Result


@dataclass(frozen=True, eq=False, kw_only=True)
class Found(Result):
    value: float


def test_a_result_is_given_back_if_converged_and_raises_its_reason_if_not():
    good, bad = (Found(value=1.0, converged=c, reason="after 3 iterations") for c in (True, False))
    assert good.require() is good
    with pytest.raises(RuntimeError, match="not converged: after 3 iterations"):
        bad.require()
    with pytest.raises(FrozenInstanceError):
        good.value = 2.0


def test_a_bar_is_shown_if_asked_hidden_if_not_and_by_default_in_a_terminal_only(capsys):
    for show in (True, False, None):
        with progress.bar(3, "fitting", show) as bar:
            bar.delay, bar.mininterval = 0, 0
            for _ in range(3):
                time.sleep(0.01)
                bar.update()
        assert ("fitting" in capsys.readouterr().err) == (show is True)
    assert not sys.stderr.isatty()


def test_a_door_imports_on_first_use_and_knows_its_modules():
    door = rooms.lazily("dynot_lite.laws", "gaussian")
    assert door("gaussian").__name__ == "dynot_lite.laws.gaussian"
    with pytest.raises(AttributeError, match="'dynot_lite.laws' has no attribute 'nothing'; its modules are gaussian"):
        door("nothing")
