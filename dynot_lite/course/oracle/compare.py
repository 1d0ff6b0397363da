"""What an oracle is made of, how instances are chosen, and the judgement of a submission's values.

The comparison itself is :func:`dynot_lite.companion.answers.distance`, which the tests in the notebooks use, too.

**Instances are not near the edge of acceptance**, so that a grading with other instances gives the same points. An instance
is used only if

- each known wrong answer (``traps``) is more than ``SEPARATION`` = 20 tolerances away from the right one (except in one
  dimension, where many coincide with it), and so is the answer 0, unless it is exactly right;
- each approximation that deserves the points (``approximations``: a sum of 100 terms for an integral, say) is at most ``ROOM`` =
  ½ tolerance away, in every dimension.

What a student computes is often neither. Whatever approximation is common and can fall on both sides should be declared.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dynot_lite.companion.answers import TOLERANCE, call, distance

__all__ = ["Case", "Check", "Finding", "altered", "cases", "judge", "residual", "zero"]

ATTEMPTS = 400
SEPARATION, ROOM = 20.0, 0.5


@dataclass(frozen=True)
class Check:
    """One thing that is asked of a function in a graded part, worth ``points``.

    Attributes:
        name: what is checked, in words the student reads in the feedback.
        points: of this check; those of all checks of a part are the points of its cell.
        function: the name of the student's function.
        draw: ``draw(rng, d) -> tuple`` of arguments (arrays and floats), fresh random ones at each grading.
        answer: the right value (an array, a number, or a tuple of them) for these arguments.
        traps: wrong answers that are known, ``{what went wrong: function}``; instances that do not tell the right answer from
            each of them are not used. A trap may raise ValueError where it makes no sense.
        approximations: answers that are not exact but count as right, ``{how they are made: function}``; instances where one of
            them is not clearly right are not used.
        dimensions: one instance is drawn for each.
        rows: the place of the argument that holds one point per row, or None.
        tolerance: relative to the largest entry of the right value where that exceeds 1, absolute elsewhere.
    """

    name: str
    points: float
    function: str
    draw: Callable[[np.random.Generator, int], tuple]
    answer: Callable[..., Any]
    traps: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    dimensions: Sequence[int] = (1, 2, 3, 5)
    rows: int | None = None
    tolerance: float = TOLERANCE
    approximations: Mapping[str, Callable[..., Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """An instance of a check: the arguments and the right value, as a list of arrays."""

    arguments: tuple
    expected: list[np.ndarray]


@dataclass(frozen=True)
class Finding:
    """The outcome of a check: the points, and for the student how many cases were right, and what may have gone wrong."""

    check: str
    earned: float
    possible: float
    right: int
    asked: int
    remark: str


def altered(function: Callable[..., Any], **changes: Callable[[Any], Any]) -> Callable[..., Any]:
    """A trap: the value of ``function`` for changed arguments, such as ``altered(loss, C=np.transpose)``."""
    names = list(inspect.signature(function).parameters)
    places = {names.index(name): change for name, change in changes.items()}

    def trap(*arguments):
        return function(*(places[k](one) if k in places else one for k, one in enumerate(arguments)))

    return trap


zero = lambda value: 0 * value


def cases(check: Check, rng: np.random.Generator) -> list[Case]:
    """Fresh instances, one per dimension, each followed by the same one with its points in another order.

    Raises RuntimeError if none can be drawn that keeps every declared answer away from the edge of acceptance.
    """
    drawn = []
    for dimension in check.dimensions:
        for _ in range(ATTEMPTS):
            arguments = check.draw(rng, dimension)
            expected = as_arrays(check.answer(*arguments))
            if _decisive(check, arguments, expected, dimension):
                break
        else:
            raise RuntimeError(f"no instance of {check.function} in dimension {dimension} tells right from wrong")
        again = arguments
        if check.rows is not None:
            order = rng.permutation(len(arguments[check.rows]))
            again = (*arguments[: check.rows], arguments[check.rows][order], *arguments[check.rows + 1 :])
        drawn += [Case(arguments, expected), Case(again, as_arrays(check.answer(*again)))]
    return [drawn[i] for i in rng.permutation(len(drawn))]


def _decisive(check: Check, arguments: tuple, expected: list[np.ndarray], dimension: int) -> bool:
    """Whether no declared answer, and not the answer 0, is near the edge of acceptance."""
    if not all(np.isfinite(part).all() for part in expected):
        return False
    far, near = SEPARATION * check.tolerance, ROOM * check.tolerance
    if not all(not part.any() or np.abs(part).max() > far for part in expected):
        return False
    if dimension > 1 and not all(_gap(_value(trap, arguments), expected) > far for trap in check.traps.values()):
        return False
    return all(_gap(_value(one, arguments), expected) <= near for one in check.approximations.values())


def _value(trap: Callable, arguments: tuple) -> list[np.ndarray] | None:
    """What the trap gives; None where it makes no sense."""
    try:
        return as_arrays(trap(*arguments))
    except ValueError:  # a LinAlgError is one
        return None


def judge(check: Check, asked: Sequence[Case], found: Sequence[Any], errors: Sequence[str | None]) -> Finding:
    """Compare what a submission returned (nested lists; None where there is an ``error``) with the right values.

    The points are earned if every case is right: a formula that is right for some instances only is a wrong formula.
    """
    gaps = [np.inf if value is None else _gap(value, case.expected) for case, value in zip(asked, found, strict=True)]
    right = sum(gap <= check.tolerance for gap in gaps)
    earned = check.points if asked and right == len(asked) else 0.0
    return Finding(check.name, earned, check.points, right, len(asked), _remark(check, asked, found, errors, gaps))


def _remark(check: Check, asked, found, errors, gaps) -> str:
    wrong = [k for k, gap in enumerate(gaps) if gap > check.tolerance]
    if not wrong:
        return ""
    if told := [errors[k] for k in wrong if errors[k]]:
        return "not solved" if told[0] == "unsolved" else told[0]
    for name, trap in check.traps.items():
        values = {k: _value(trap, asked[k].arguments) for k in wrong}
        if all(value is not None and _gap(found[k], value) <= check.tolerance for k, value in values.items()):
            return f"these are the values one gets when {name}"
    finite = [gaps[k] for k in wrong if np.isfinite(gaps[k])]
    if len(finite) < len(wrong):
        shapes = [list(entry.shape) for entry in asked[wrong[0]].expected]
        expected = " and ".join("a number" if shape == [] else f"an array of shape {tuple(shape)}" for shape in shapes)
        return f"the value is not finite or does not have the right shape: expected {expected}"
    return f"wrong in {len(wrong)} of {len(asked)} cases, by up to {max(finite):.2g} of the largest entry"


def _gap(value, expected: list[np.ndarray]) -> float:
    """The distance of a value, in any form, from the expected arrays; infinite where there is none."""
    try:
        return distance(value, tuple(expected) if len(expected) > 1 else expected[0])
    except ValueError:  # a trap that is not finite
        return np.inf


def as_arrays(value) -> list[np.ndarray]:
    """The value of an answer (array, tensor, number, or a tuple of them) as float arrays."""
    return [np.asarray(part, dtype=float) for part in (value if isinstance(value, tuple) else (value,))]


def residual(checks: Sequence[Check], namespace: Mapping[str, Any], seed: int) -> float:
    """The largest distance of the functions of ``namespace`` from the oracle on fresh instances: for tests inside a notebook."""
    worst = 0.0
    for check in checks:
        for case in cases(check, np.random.default_rng(seed)):
            worst = max(worst, _gap(call(namespace[check.function], case.arguments, check.rows), case.expected))
    return worst
