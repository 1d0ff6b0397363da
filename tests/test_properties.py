"""Properties of all public functions, over the calls of ``calls.py``: makes, bad values, units, translations, threads."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch
from calls import Call, calls

CALLS = calls()
UNITS = (1e-12, 1e-6, 1e6, 1e12)


def strided(x: np.ndarray) -> np.ndarray:
    """The same numbers, laid out backwards."""
    return np.ascontiguousarray(x[::-1])[::-1]


def read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


MAKES = {
    "list": lambda x: x.tolist(),
    "numpy": lambda x: x,
    "negative strides": strided,
    "Fortran order": np.asfortranarray,
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "read-only": read_only,
    "tensor of float32": lambda x: torch.tensor(x, dtype=torch.float32),
    "requires a gradient": lambda x: torch.tensor(x, requires_grad=True),
}
BAD = {
    "NaN": lambda x: filled(x, float("nan")),
    "infinity": lambda x: filled(x, float("inf")),
    "complex": lambda x: x + 1j,
    "text": lambda x: np.full(x.shape, "a"),
    "no array": lambda x: object(),
    "a wrong length": lambda x: np.concatenate([x, x[..., :1]], -1),
    "empty": lambda x: x[:0],
}


def filled(x: np.ndarray, value: float) -> np.ndarray:
    x = x.copy()
    x.ravel()[-1] = value
    return x


def close(found, expected, tolerance, scale=None) -> bool:
    """Agreement relative to the largest entry of each expected result."""
    for one, other in zip(found, expected, strict=True):
        size = other.abs().max().item() if other.numel() else 0.0
        if (
            one.shape != other.shape
            or not torch.isfinite(one).all()
            or (one - other).abs().max().item() > tolerance * max(size, scale or 0)
        ):
            return False
    return True


def cases():
    """(call, array) for every array of every call."""
    return [pytest.param(call, array, id=f"{call.name}-{array}") for call in CALLS for array in call.arrays]


@pytest.mark.parametrize("call, array", cases())
@pytest.mark.parametrize("make", MAKES)
def test_every_make_of_array_gives_the_same_result_without_a_warning(call: Call, array: str, make: str):
    expected = call.results()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            found = call.results(**{array: MAKES[make](call.arrays[array].numpy())})
        except ValueError as error:
            # A derivative that would be cut off without a word is refused by name.
            assert "gradient" in make and re.search(f"({call.called(array)}).* must not require a gradient", str(error))
            return
    single = "float32" in make
    if not single or call.single is not None:
        assert close(found, expected, call.single if single else call.tolerance)


@pytest.mark.parametrize("call, array", cases())
@pytest.mark.parametrize("bad", BAD)
def test_every_bad_array_is_refused_by_name(call: Call, array: str, bad: str):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((ValueError, TypeError), match=call.called(array)):
            call.results(**{array: BAD[bad](call.arrays[array].numpy())})


@pytest.mark.parametrize("call", [pytest.param(call, id=call.name) for call in CALLS if call.units is not None])
@pytest.mark.parametrize("unit", UNITS)
def test_units(call: Call, unit: float):
    expected = tuple(result * unit**power for result, power in zip(call.results(), call.result_units, strict=True))
    found = call.results(**{name: x * unit ** call.units.get(name, 0) for name, x in call.arrays.items()})
    assert close(found, expected, max(call.tolerance, 1e-9))


@pytest.mark.parametrize("call", [pytest.param(call, id=call.name) for call in CALLS if call.moved])
def test_translations(call: Call):
    shift = 3.5
    expected = call.results()
    found = call.results(**{name: x + shift * (name in call.moved) for name, x in call.arrays.items()})
    for one, other, moves in zip(found, expected, call.result_moved, strict=True):
        assert moves is None or close((one,), (other + shift * moves,), 1e3 * call.tolerance, scale=1.0)


@pytest.mark.parametrize("call", [pytest.param(call, id=call.name) for call in CALLS])
def test_the_same_call_twice_and_on_two_threads(call: Call):
    first, threads = call.results(), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        second = call.results()
    finally:
        torch.set_num_threads(threads)
    assert close(second, first, 0.0 if call.exact else call.tolerance)


@pytest.mark.parametrize("call", [pytest.param(call, id=call.name) for call in CALLS])
def test_no_call_changes_what_it_was_given(call: Call):
    given = {name: x.clone() for name, x in call.arrays.items()}
    call.results(**given)
    assert all(torch.equal(x, call.arrays[name]) for name, x in given.items())
