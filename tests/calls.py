"""One valid call of every public function, as data, for tests that run a property over all of them.

A call is a function of named arrays (what a user passes in) and says how its result answers to a change of units, a translation
or a new order of its data. Rooms add theirs in ``tests/ROOM/calls_ROOM.py``; a test fails for a public function without one.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent
ROOMS = ("paths", "laws", "grids", "couplings", "potentials", "matching", "datasets", "metrics")


@dataclass(frozen=True, eq=False)
class Call:
    """A valid call of a public function.

    Attributes:
        name: of the function, ``room.module.function`` or ``room.module.Class.method``; after a comma, what tells variants apart.
        run: takes arrays, options and callables by name, and gives a number, a tensor or a tuple of them; random numbers from a
            fixed seed.
        arrays: what a user passes in, float64 tensors with values that single precision holds.
        names: what messages about an array, an option or a callable may call it, where that is not its key.
        options: {option: (kind, valid value)}; the kinds, with the values that must be refused, stand in ``test_properties``.
        callables: {name: a valid one} of what a user brings: velocities, samplers, densities.
        differentiated: the callables of which a derivative is taken.
        refusals: the errors by which what callables return may be refused.
        units: the power with which each array scales with the unit of length; None: a unit has no meaning here.
        result_units: the power of the unit in each result.
        moved: arrays that a translation of space moves; empty: a translation has no meaning here.
        result_moved: whether each result moves along (True), stays (False), or changes otherwise (None: not compared).
        rows: groups of arrays whose points may be put into another order together: {array: axis, "result": axis}, the axis of a
            result (or one for each, in a list) being None where it does not change, and "free" where it is not compared;
            "orders": those that are possible.
        alone: whether the result of a point depends on this point only, so that one point alone has the same.
        dims: {array: axis or axes, "result": axis} of the coordinates, which may be put into another order, or be one.
        limits: {what: (arrays, expected)}, a call at a limit: one point, one dimension, and its result by hand.
        cut: {array, or "result k": why} where no gradient comes out although a tensor does.
        tolerance: relative, of a result from float64; single precision has its own.
        single: relative, of a result from float32; None: the function insists on its own precision, and need not be near.
        exact: whether results of one and of two threads are the same to the bit.
        excused: {property: why}, properties that have no meaning here.
    """

    name: str
    run: Callable[..., Any]
    arrays: Mapping[str, Tensor]
    names: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    callables: Mapping[str, Callable] = field(default_factory=dict)
    differentiated: tuple[str, ...] = ()
    refusals: tuple[type[Exception], ...] = (ValueError, TypeError)
    units: Mapping[str, float] | None = None
    result_units: tuple[float, ...] = (0,)
    moved: tuple[str, ...] = ()
    result_moved: tuple[bool | None, ...] = (False,)
    rows: Sequence[Mapping[str, Any]] = ()
    alone: bool = True
    dims: Mapping[str, Any] | None = None
    limits: Mapping[str, tuple[Mapping[str, Any], Any]] = field(default_factory=dict)
    cut: Mapping[str, str] = field(default_factory=dict)
    tolerance: float = 1e-9
    single: float | None = 2e-3
    exact: bool = True
    excused: Mapping[str, str] = field(default_factory=dict)

    def raw(self, **changed) -> tuple:
        """The results of the call as they come, with some arrays, options or callables exchanged."""
        valid = {name: value for name, (_, value) in self.options.items()}
        found = self.run(**{**self.arrays, **valid, **self.callables, **changed})
        return found if isinstance(found, tuple) else (found,)

    def results(self, **changed) -> tuple[Tensor, ...]:
        """The results as float64 tensors."""
        return numbers(self.raw(**changed))

    @functools.cached_property
    def expected(self) -> tuple[Tensor, ...]:
        """The results of the call as it stands."""
        return self.results()

    def called(self, name: str) -> str:
        """A pattern for the name of an array, option or callable in a message."""
        return self.names.get(name, name)


def numbers(results: tuple) -> tuple[Tensor, ...]:
    """Results as float64 tensors."""
    return tuple(torch.as_tensor(part, dtype=torch.float64).detach() for part in results)


def present() -> list[str]:
    """The rooms that have calls."""
    return [room for room in ROOMS if any(path.exists() for path in _places(room))]


NONE = "no gradient is passed on: the table of the room's documentation says so"
DRAWN = "the default dtype is the one of the numbers drawn, or of the parameters"
WHOLE = "the message names what overflows, the points that are made of it"
# {start of the names of calls: {property, or "argument: kind": why}}, beside what the calls say themselves.
EXCUSED = {
    "couplings.plans.": {"gradient": NONE},
    "couplings.plans.TransportPlan.require": {"extreme": "it raises RuntimeError where the solver did not converge, by design"},
    "couplings.batches.from_plan": {"gradient": NONE, "conditions: a sparse tensor": "conditions are handed on as they are"},
    "couplings.atoms.Atoms.": {"values: a sparse tensor": "values come from the package's own ascent"},
    "couplings.atoms.Noise.centred": {"gradient": NONE},
    "couplings.search.Scores.": {"gradient": NONE},
    "couplings.semidiscrete.SemidiscreteCoupling.fit": {"gradient": NONE},
    "couplings.amortized.": {"gradient": NONE},
    "couplings.conditional.JointCoupling.": {f"conditions: {kind}": WHOLE for kind in ("1e300", "-1e300", "all times 1e300")},
    "couplings.sliced.sphere_points": {"gradient": "a latitude of 90 degrees has no neighbour on one side"},
    "couplings.sliced.w2_squared_sliced": {
        f"directions: {kind}": WHOLE for kind in ("1e300", "-1e300", "all times 1e300", "one axis more")
    },
    "couplings.prepared.": {"default dtype": DRAWN},
    "matching.networks.": {"default dtype": DRAWN},
    "matching.unet.": {"default dtype": DRAWN},
    "matching.classifier.": {"default dtype": DRAWN},
    "matching.training.": {"default dtype": DRAWN},
    "matching.mean_flow.loss": {"gradient": "the target is held fixed: it is no derivative of the value"},
    "matching.mean_flow.sample": {"gradient": NONE},
    "matching.flow_matching.sample": {"gradient": NONE},
}


def calls() -> list[Call]:
    """The calls of all rooms."""
    found = [call for room in present() for call in importlib.import_module(f"calls_{room}").CALLS]
    shared = [{k: v for start, why in EXCUSED.items() if call.name.startswith(start) for k, v in why.items()} for call in found]
    return [dataclasses.replace(call, excused={**more, **call.excused}) for call, more in zip(found, shared, strict=True)]


def _places(room: str) -> tuple[Path, Path]:
    return ROOT / room / f"calls_{room}.py", ROOT / f"calls_{room}.py"
