"""One valid call of every public function, as data, for tests that run a property over all of them.

A call is a function of named arrays (what a user passes in) and says how its result answers to a change of units or a translation
of its data. Rooms add theirs in ``tests/ROOM/calls_ROOM.py``; a test fails for a public function of which there is none.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent
ROOMS = ("paths", "laws", "grids", "couplings", "potentials", "matching", "datasets")


@dataclass(frozen=True, eq=False)
class Call:
    """A valid call of a public function.

    Attributes:
        name: of the function, ``room.module.function`` or ``room.module.Class.method``.
        run: takes the arrays by name, and gives a number, a tensor or a tuple of them; random numbers from a fixed seed.
        arrays: what a user passes in, float64 tensors with values that single precision holds.
        names: what messages about an array may call it, where that is not its key.
        units: the power with which each array scales with the unit of length; None: a unit has no meaning here.
        result_units: the power of the unit in each result.
        moved: arrays that a translation of space moves; empty: a translation has no meaning here.
        result_moved: whether each result moves along (True), stays (False), or changes otherwise (None: not compared).
        tolerance: relative, of a result from float64; single precision has its own.
        single: relative, of a result from float32; None: the function insists on its own precision, and need not be near.
        exact: whether results of one and of two threads are the same to the bit.
        bad: extra arguments that must be refused: {argument: values}.
    """

    name: str
    run: Callable[..., Any]
    arrays: Mapping[str, Tensor]
    names: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, float] | None = None
    result_units: tuple[float, ...] = (0,)
    moved: tuple[str, ...] = ()
    result_moved: tuple[bool | None, ...] = (False,)
    tolerance: float = 1e-9
    single: float | None = 2e-3
    exact: bool = True

    def results(self, **changed) -> tuple[Tensor, ...]:
        """The results of the call, with some arrays exchanged, as float64 tensors."""
        found = self.run(**{**self.arrays, **changed})
        return tuple(torch.as_tensor(part).detach().double() for part in (found if isinstance(found, tuple) else (found,)))

    def called(self, array: str) -> str:
        """A pattern for the name of an array in a message."""
        return self.names.get(array, array)


def calls() -> list[Call]:
    """The calls of all rooms."""
    found = []
    for room in ROOMS:
        if (ROOT / room / f"calls_{room}.py").exists():
            found += importlib.import_module(f"calls_{room}").CALLS
    return found
