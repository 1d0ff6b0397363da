"""Whether an answer is right: the one comparison that the tests in a problem set, practice and grading all use.

**Forms.** An answer is a number, an array, or several of them. It may come as a torch tensor (of any type, on any device, with
or without a gradient), a NumPy array, a number, or lists of these; as complex numbers whose imaginary parts are rounding. Axes
of length one do not matter: (n,), (n, 1) and (1, n) are the same, and a number may be a 1×1 array. Everything else of the shape
does matter: nothing is broadcast. A function of points may be written for all rows at once or for one point, with tensors or with
arrays.

**Size.** Four digits: the largest difference of an entry is at most 1e-4 of the largest entry of the right array, or of ``scale``
where that is larger. So small entries beside large ones need not be right to four digits of their own, and an answer of 0 has
a tolerance: 1e-4 ``scale``, by default 1e-4. For data of another size, multiply ``scale`` with it: the verdict stays the same.
Values that are not finite are never right. Signs count: an answer that is defined up to a sign or a constant, such as an
eigenvector or a potential, must be asked for with a rule that fixes it.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["TOLERANCE", "ask", "call", "close", "distance", "plain"]

TOLERANCE = 1e-4


def ask(function: Callable, *arguments, rows: int | None = None, parts: int = 1) -> Any:
    """The value of a student's ``function``, as a tensor of type float64 without axes of length one.

    Args:
        arguments: tensors and numbers, of which the function gets copies.
        rows: the place of the argument that holds one point per row; such a function may be written for one point.
        parts: how many arrays or numbers are asked for; a tuple of them comes back if there are several.

    Raises what the function raises, TypeError if it does not return numbers, and ValueError for another number of parts or
    imaginary parts.
    """
    value = call(function, arguments, rows)
    several = [value] if parts == 1 else value
    if not isinstance(several, list) or len(several) != parts:
        raise ValueError(f"{getattr(function, '__name__', 'the function')} should return {parts} values")
    found = tuple(torch.tensor(part, dtype=torch.float64).squeeze() for part in several)
    return found[0] if parts == 1 else found


def close(found, expected, scale: float = 1.0) -> bool:
    """Whether ``found``, in any form, agrees with ``expected`` to four digits; several arrays are expected as a tuple.

    >>> close([[1.00001], [2.0]], np.array([1.0, 2.0])), close([1.0, 2.001], [1.0, 2.0]), close(0.001, 0.0, scale=10)
    (True, False, True)
    """
    return distance(found, expected, scale) <= TOLERANCE


def distance(found, expected, scale: float = 1.0) -> float:
    """The largest difference of an entry, in parts of the largest expected entry of its array or of ``scale`` (the larger).

    Infinite if ``found`` is not numbers of the expected shape, or not finite. Raises ValueError if ``expected`` is not finite,
    or ``scale`` is not positive and finite.
    """
    if not 0 < scale < np.inf:
        raise ValueError(f"scale must be positive and finite, got {scale}")
    several = isinstance(expected, tuple)
    right = [np.squeeze(np.asarray(plain(part), dtype=float)) for part in (expected if several else (expected,))]
    if not all(np.isfinite(part).all() for part in right):
        raise ValueError("the right value is not finite")
    try:
        value = plain(found)
        values = [np.squeeze(np.asarray(part, dtype=float)) for part in (value if several else [value])]
    except (TypeError, ValueError, RecursionError, OverflowError):
        return np.inf
    if [one.shape for one in values] != [other.shape for other in right] or not all(np.isfinite(one).all() for one in values):
        return np.inf
    return max((_gap(one, other, scale) for one, other in zip(values, right, strict=True)), default=0.0)


def _gap(one: np.ndarray, other: np.ndarray, scale: float) -> float:
    with np.errstate(over="ignore"):  # an infinite difference is far enough
        return float(np.abs(one - other).max() / max(scale, np.abs(other).max())) if other.size else 0.0


def call(function: Callable, arguments: Sequence[Any], rows: int | None = None) -> Any:
    """What the function returns, as nested lists of numbers.

    It is given tensors or else arrays, and all points at once or else one by one: the first way counts that gives a value, and as
    many of them as there are points. Raises the error of the first way if there is none.
    """
    arrays = [np.asarray(plain(one), dtype=float) if isinstance(one, np.ndarray | Tensor | list) else one for one in arguments]
    first, count = None, None if rows is None else len(arrays[rows])
    for single in (False, True)[: 1 if rows is None else 2]:
        for form in (torch.from_numpy, np.asarray):
            given = lambda form=form: [form(copy.copy(one)) if isinstance(one, np.ndarray) else one for one in arrays]
            try:
                if single:
                    return [plain(function(*_with(given(), rows, k))) for k in range(count)]
                found = plain(function(*given()))
                if rows is None or count == 1 or np.squeeze(np.asarray(found)).shape[:1] == (count,):
                    return found
                first = first or ValueError(f"{count} points gave a result of shape {np.asarray(found).shape}")
            except NotImplementedError:
                raise
            except Exception as error:
                first = first or error
    raise first


def _with(arguments: list, rows: int, k: int) -> list:
    """The arguments with one point, of shape (d,), in place of all."""
    return [*arguments[:rows], arguments[rows][k], *arguments[rows + 1 :]]


def plain(value) -> Any:
    """Nested lists of numbers, or a number, from an answer in any form.

    Raises TypeError for what is not numbers, and ValueError if imaginary parts exceed the tolerance.
    """
    if value is None:
        raise TypeError("the function returned nothing (None): is a return missing?")
    if isinstance(value, str | bytes | dict | set):
        raise TypeError(f"expected numbers, got a {type(value).__name__}")
    if isinstance(value, tuple | list):
        return [plain(entry) for entry in value]
    if isinstance(value, Tensor):
        wide = torch.complex128 if value.is_complex() else torch.float64
        value = value.detach().to_dense().to("cpu", wide).resolve_conj().resolve_neg().numpy()
    array = np.asarray(value.toarray() if hasattr(value, "toarray") else value)
    if array.dtype.kind == "c":
        size = max(1.0, float(np.abs(array).max(initial=0.0)))
        if not np.abs(array.imag).max(initial=0.0) <= TOLERANCE * size:
            raise ValueError(f"the values are complex, with imaginary parts up to {np.abs(array.imag).max():.2g}")
        array = array.real
    if array.dtype.kind in "biuf":
        return array.astype(float).tolist()
    if array.dtype.kind != "O":
        raise TypeError(f"expected numbers, got an array of type {array.dtype}")
    return float(array.item()) if array.ndim == 0 else [plain(entry) for entry in array.tolist()]
