"""Properties of all public functions, over the calls of ``calls.py``.

Makes of arrays, bad and extreme values, units, translations, order, limits, threads, modes of differentiation, options, and
callables that return what they should not, at first or later.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import re
import signal
import warnings

import grammar
import numpy as np
import pytest
import torch
from calls import ROOMS, Call, calls, numbers, present
from torch import Tensor

CALLS = calls()
# What torch imports at its first use takes seconds, which are no case's.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.func.vmap(torch.func.hessian(torch.sum))(torch.zeros(1, 1))
UNITS = (1e-12, 1e-6, 1e6, 1e12)
SECONDS = 30
MARKS = {"result", "orders", "one"}  # of a group of axes, beside the names of its arrays
REFUSED = (ValueError, TypeError)

# Public functions without a call, and why.
WITHOUT = {
    "datasets.mnist.download_mnist": "needs the network",
    "datasets.w2_benchmark.download_w2_benchmark": "needs the network",
    "paths.interpolants.Interpolant.unchecked": "documented to be without checks; `at` is the same with them",
    "potentials.action_matching.Action": "a protocol: nothing to call",
    "potentials.action_matching.Action.value": "a protocol",
    "potentials.action_matching.Action.velocity": "a protocol",
    "potentials.action_matching.Action.time_derivative": "a protocol",
}


@pytest.fixture(autouse=True)
def within_seconds():
    """A case that hangs fails."""

    def late(*_):
        raise TimeoutError(f"no answer within {SECONDS} seconds")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def without_warnings():
    """No warning reaches a user."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Not of this package: torch's own use of what it has given up, when torch.func is used for the first time.
        warnings.filterwarnings("ignore", message=r".*torch\.jit", category=DeprecationWarning)
        yield


def strided(x: np.ndarray) -> np.ndarray:
    """The same numbers, laid out backwards."""
    return np.ascontiguousarray(x[::-1])[::-1]


def read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


def filled(x: np.ndarray, value: float) -> np.ndarray:
    x = x.copy()
    x.ravel()[-1] = value
    return x


MAKES = {
    "list": lambda x: x.tolist(),
    "numpy": lambda x: x,
    "negative strides": strided,
    "Fortran order": np.asfortranarray,
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "read-only": read_only,
    "long double": lambda x: x.astype(np.longdouble),
    "strided tensor": lambda x: torch.tensor(np.stack([x, x], -1))[..., 0],
    "tensor of float32": lambda x: torch.tensor(x, dtype=torch.float32),
    "requires a gradient": lambda x: torch.tensor(x, requires_grad=True),
}
# What has fewer values than float64: as good as float64 with these values.
COARSE = {
    "half precision": lambda x: torch.tensor(x).half(),
    "bfloat16": lambda x: torch.tensor(x).bfloat16(),
    "half precision of NumPy": lambda x: x.astype(np.float16),
    "integers": lambda x: np.round(x).astype(np.int64),
    "short unsigned integers": lambda x: np.round(abs(x)).astype(np.uint8),
    "booleans": lambda x: x > 0,
}
BAD = {
    "NaN": lambda x: filled(x, float("nan")),
    "infinity": lambda x: filled(x, float("inf")),
    "complex": lambda x: x + 1j,
    "text": lambda x: np.full(x.shape, "a"),
    "no array": lambda x: object(),
    "a wrong length": lambda x: np.concatenate([x, x[..., :1]], -1),
    "empty": lambda x: x[:0],
    "a sparse tensor": lambda x: torch.tensor(x).to_sparse(),
}
# Right, or refused by name.
EXTREME = {
    "1e300": lambda x: filled(x, 1e300),
    "-1e300": lambda x: filled(x, -1e300),
    "1e-300": lambda x: filled(x, 1e-300),
    "all times 1e300": lambda x: 1e300 * x,
    "all times 1e-300": lambda x: 1e-300 * x,
    "zero": lambda x: 0 * x,
    "all equal": lambda x: np.full_like(x, x.flat[0]),
    "a number": lambda x: x.ravel()[0],
    "one axis more": lambda x: x[None],
    "one axis less": lambda x: x[0] if x.ndim else x[None],
}
NAN, INF = float("nan"), float("inf")
OPTIONS = {
    "count": (0, -1, 1.5, NAN, INF, True, "3", [3], 1j),
    "count or none": (-1, 1.5, NAN, INF, True, "3", [3], 1j),
    "positive": (0.0, -1.0, NAN, INF, True, "1", [1.0, 2.0], 1j, object()),
    "number": (NAN, INF, True, "1", [1.0, 2.0], 1j, None, object()),
    "time": (-0.1, 1.1, NAN, INF, "1", [0.1, 0.2], 1j, None, object()),
    "share": (-0.1, 1.1, NAN, INF, True, "1", [0.1, 0.2], 1j, None, object()),
    "choice": ("nothing", None, 3, ["walls"], {}, True),
    "generator": (0, "seed", True, np.random.default_rng(0)),
    "path": (3, 1.5, object(), b"\0", NAN),
    "workers": (0, 1.5, NAN, "two", True),
    "mask": ("a", 3, [True], object(), np.zeros(7), NAN),
    "size": (3, (3,), "ab", (0, 5), (5.0, 5), (500, 5), (True, 5), NAN, object()),
    "dtype": ("float32", 3, torch.int64, np.float32),
}
NUMPY = {"count": np.int64, "count or none": np.int32, "positive": np.float64, "number": np.float64, "time": np.float64}
WRONG = {
    "nothing": lambda v: None,
    "a list": lambda v: v.tolist(),
    "a wrong count": lambda v: torch.cat([v, v[:1]]) if v.ndim else v.expand(2),
    "a wrong shape": lambda v: v[..., None],
    "NaN": lambda v: torch.where(torch.arange(v.numel()).reshape(v.shape) < v.numel() - 1, v, NAN),
    "infinity": lambda v: torch.where(torch.arange(v.numel()).reshape(v.shape) < v.numel() - 1, v, INF),
    "complex": lambda v: v + 1j,
}
CUT = {
    "no_grad": lambda f: torch.no_grad()(f),
    "inference_mode": lambda f: torch.inference_mode()(f),
    "detach": lambda f: lambda *given: f(*given).detach(),
    "NumPy": lambda f: lambda *given: torch.from_numpy(f(*given).detach().numpy().copy()),
}


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


def over(property_: str, *, where=lambda call: True):
    """(call) for every call of which the property is asked."""
    found = [call for call in CALLS if where(call) and property_ not in call.excused]
    return pytest.mark.parametrize("call", [pytest.param(call, id=call.name) for call in found])


def over_each(property_: str, arguments: str, which, kinds=("",)):
    """(call, argument, kind) for every argument that ``which`` gives of a call; what is excused is a property or a kind."""
    cases = [
        pytest.param(call, name, *([kind] if kind else []), id="-".join(filter(None, (call.name, name, kind))))
        for call in CALLS
        if property_ not in call.excused
        for name in which(call)
        for kind in kinds
        if not kind or not {kind, f"{name}: {kind}"} & call.excused.keys()
    ]
    return pytest.mark.parametrize(arguments, cases)


over_arrays = functools.partial(over_each, which=lambda call: call.arrays)
over_callables = functools.partial(over_each, which=lambda call: call.callables)


def outcome(call: Call, name: str, value) -> tuple[Tensor, ...] | None:
    """The results, finite, with one argument exchanged; None if it is refused by name."""
    try:
        found = call.results(**{name: value})
    except REFUSED as error:
        assert re.search(call.called(name), str(error)), f"{name} is not named in: {error}"
        return None
    assert all(torch.isfinite(part).all() for part in found), f"not finite: {found}"
    return found


# --- which functions ---


def public_functions() -> set[str]:
    """Functions, methods, and constructors of the rooms, from ``__all__``."""
    found = {f"{entry.room}.{entry.name}" for entry in grammar.entries()}
    for module in grammar.modules():
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if dataclasses.is_dataclass(thing) and inspect.isclass(thing) and "__post_init__" in vars(thing):
                found.add(f"{module.__name__.removeprefix('dynot_lite.')}.{name}")
    return found


def test_every_public_function_has_a_call_or_a_reason_to_have_none():
    functions, called = public_functions(), {call.name.partition(",")[0] for call in CALLS}
    assert len(functions) > 150
    # A method's call constructs its object, and the call of a network is its forward.
    called |= {name.rpartition(".")[0] for name in called} | {f"{name}.forward" for name in called}
    here = {name for name in functions if name.partition(".")[0] in present()}
    assert sorted(here - called - WITHOUT.keys()) == []
    assert sorted(WITHOUT.keys() - functions) == [] and sorted(WITHOUT.keys() & {call.name for call in CALLS}) == []


@pytest.mark.parametrize("name", sorted({call.name.partition(",")[0] for call in CALLS}))
def test_each_call_names_what_there_is(name: str):
    thing = importlib.import_module("dynot_lite")
    for part in name.split("."):
        thing = getattr(thing, part, None) or getattr(thing, "__dataclass_fields__", {}).get(part)
        assert thing is not None, f"{name}: there is no {part}"


def test_the_rooms_with_calls_are_those_of_the_grammar():
    assert set(ROOMS) == {*grammar.ROOMS, "metrics"}
    for room in present():
        assert importlib.import_module(f"calls_{room}").CALLS


def test_each_call_uses_all_that_it_names():
    for call in CALLS:
        named = {*call.arrays, *call.options, *call.callables}
        assert len(named) == len(call.arrays) + len(call.options) + len(call.callables), call.name
        for group in (*call.rows, call.dims or {}):
            assert group.keys() - MARKS <= call.arrays.keys(), call.name
        results = {f"result {k}" for k in range(len(call.expected))}
        assert {*call.differentiated, *call.moved} <= named and {*call.cut} <= named | results, call.name


# --- arrays ---


@over_arrays("makes", "call, array, make", kinds=MAKES)
def test_every_make_of_array_gives_the_same_result_without_a_warning(call: Call, array: str, make: str):
    try:
        found = call.results(**{array: MAKES[make](call.arrays[array].numpy())})
    except ValueError as error:
        # A derivative that would be cut off without a word is refused by name.
        assert "gradient" in make and re.search(f"({call.called(array)}).* must not require a gradient", str(error))
        return
    single = "float32" in make
    if not single or call.single is not None:
        assert close(found, call.expected, call.single if single else call.tolerance)


@over_arrays("coarse", "call, array, make", kinds=COARSE)
def test_coarse_arrays_count_as_what_they_hold_or_are_refused_by_name(call: Call, array: str, make: str):
    coarse = COARSE[make](call.arrays[array].numpy())
    same = outcome(call, array, torch.as_tensor(coarse).double())
    found = outcome(call, array, coarse)
    if same is not None and call.single is not None:
        assert found is not None and close(found, same, call.single, scale=1e-6)


@over_arrays("bad", "call, array, bad", kinds=BAD)
def test_every_bad_array_is_refused_by_name(call: Call, array: str, bad: str):
    with pytest.raises(REFUSED, match=call.called(array)):
        call.results(**{array: BAD[bad](call.arrays[array].numpy())})


@over_arrays("extreme", "call, array, extreme", kinds=EXTREME)
def test_an_extreme_array_gives_numbers_or_is_refused_by_name(call: Call, array: str, extreme: str):
    outcome(call, array, EXTREME[extreme](call.arrays[array].numpy()))


@over("units", where=lambda call: call.units is not None)
@pytest.mark.parametrize("unit", UNITS)
def test_units(call: Call, unit: float):
    expected = tuple(result * unit**power for result, power in zip(call.expected, call.result_units, strict=True))
    found = call.results(**{name: x * unit ** call.units.get(name, 0) for name, x in call.arrays.items()})
    assert close(found, expected, max(call.tolerance, 1e-9))


@over("translations", where=lambda call: call.moved)
def test_translations(call: Call):
    shift = 3.5
    found = call.results(**{name: x + shift * (name in call.moved) for name, x in call.arrays.items()})
    for one, other, moves in zip(found, call.expected, call.result_moved, strict=True):
        assert moves is None or close((one,), (other + shift * moves,), 1e3 * call.tolerance, scale=1.0)


def reordered(x: Tensor, axes, index) -> Tensor:
    """The entries ``index`` along an axis, or along each of some."""
    for axis in () if axes is None else axes if isinstance(axes, tuple) else (axes,):
        x = x.index_select(axis, torch.as_tensor(index))
    return x


def with_order(call: Call, group, index) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The results for another order (or a choice) of the entries along the axes of a group, and the results so ordered."""
    found = call.results(**{name: reordered(call.arrays[name], axes, index) for name, axes in group.items() if name not in MARKS})
    axes = group["result"] if isinstance(group["result"], list) else [group["result"]] * len(found)
    kept = [k for k, axis in enumerate(axes) if axis != "free"]
    return tuple(found[k] for k in kept), tuple(reordered(call.expected[k], axes[k], index) for k in kept)


def length(call: Call, group) -> int:
    name, axes = next((name, axes) for name, axes in group.items() if name not in MARKS)
    return call.arrays[name].shape[axes[0] if isinstance(axes, tuple) else axes]


def orders(call: Call, group) -> list[Tensor]:
    """Backwards, and one place on; a grid with walls can only be mirrored."""
    index = torch.arange(length(call, group))
    return [{"flip": index.flip(0), "roll": index.roll(1)}[order] for order in group.get("orders", ("flip", "roll"))]


ROWS = [pytest.param(call, group, id=f"{call.name}-{'+'.join(group)}") for call in CALLS for group in call.rows]


@pytest.mark.parametrize("call, group", ROWS)
def test_the_order_of_points_does_not_matter(call: Call, group):
    assert length(call, group) > 2, "two points that change places may hide a fault"
    for index in orders(call, group):
        assert close(*with_order(call, group, index), max(call.tolerance, 1e-12))


@pytest.mark.parametrize("call, group", ROWS)
def test_one_point_alone(call: Call, group):
    """What a point gets does not depend on the others; where it does, one point is enough or refused by name."""
    results = group["result"] if isinstance(group["result"], list) else [group["result"]]
    try:
        found, expected = with_order(call, group, [1])
    except REFUSED as error:
        assert not call.alone or None in results, str(error)
        assert any(re.search(call.called(name), str(error)) for name in group if name not in MARKS), str(error)
        return
    assert all(torch.isfinite(part).all() for part in found)
    if call.alone and None not in results:
        assert close(found, expected, max(call.tolerance, 1e-12))


DIMS = [pytest.param(call, id=call.name) for call in CALLS if call.dims]


@pytest.mark.parametrize("call", DIMS)
def test_the_order_of_coordinates_does_not_matter(call: Call):
    for index in orders(call, call.dims):
        assert close(*with_order(call, call.dims, index), max(call.tolerance, 1e-12))


@pytest.mark.parametrize("call", DIMS)
def test_one_dimension(call: Call):
    if not call.dims.get("one", True):
        return
    found, _ = with_order(call, call.dims, [0])
    assert all(torch.isfinite(part).all() for part in found)


LIMITS = [pytest.param(call, what, id=f"{call.name}-{what}") for call in CALLS for what in call.limits]


@pytest.mark.parametrize("call, what", LIMITS)
def test_a_limit_has_the_result_found_by_hand(call: Call, what: str):
    changed, expected = call.limits[what]
    if isinstance(expected, str):
        with pytest.raises(REFUSED, match=expected):
            call.results(**changed)
    else:
        assert close(call.results(**changed), numbers(expected if isinstance(expected, tuple) else (expected,)), 1e-9, scale=1e-3)


# --- the same call again ---


@over("threads")
def test_the_same_call_twice_and_on_two_threads(call: Call):
    first, threads = call.results(), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        second = call.results()
    finally:
        torch.set_num_threads(threads)
    assert close(second, first, 0.0 if call.exact else call.tolerance)


@over("given")
def test_no_call_changes_what_it_was_given(call: Call):
    given = {name: x.clone() for name, x in call.arrays.items()}
    call.results(**given)
    assert all(torch.equal(x, call.arrays[name]) for name, x in given.items())


@over("modes")
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_mode_without_gradients_changes_no_number(call: Call, mode):
    """Also if what is passed in was made in it."""
    with mode():
        try:
            found = call.results(**{name: x.clone() for name, x in call.arrays.items()})
        except ValueError as error:
            assert "inference" in str(error)
            return
    assert close(found, call.expected, call.tolerance)


@over("default dtype")
def test_the_default_dtype_of_torch_changes_no_number(call: Call):
    """Where the data have their own."""
    try:
        torch.set_default_dtype(torch.float64)
        found = call.results()
    finally:
        torch.set_default_dtype(torch.float32)
    assert close(found, call.expected, call.tolerance)


# --- derivatives ---


def direction(x: Tensor) -> Tensor:
    """A direction in which an array may change and stay what it is: symmetric, of the same sum, within [0, 1]."""
    d = torch.sin(1.0 + torch.arange(x.numel(), dtype=x.dtype)).reshape(x.shape)
    if x.ndim > 1 and x.shape[-1] == x.shape[-2] and torch.equal(x, x.mT):
        d = (d + d.mT) / 2
    if min(abs(x.sum() - 1), abs(x.mean() - 1)) < 1e-12 and x.numel() > 1:
        d = d - d.mean()
    if x.min() >= 0 and x.max() <= 1:
        d = torch.where((x == 0) | (x == 1), 0, d)
    return d


@over_arrays("gradient", "call, array")
def test_a_gradient_that_comes_out_is_the_derivative(call: Call, array: str):
    """Against differences; no graph comes out only where numbers do, where it is refused, or where the call says why."""
    x = call.arrays[array].clone().requires_grad_()
    try:
        found = call.raw(**{array: x})
    except ValueError as error:
        assert re.search(f"({call.called(array)}).* must not require a gradient", str(error))
        return
    smooth = [k for k, part in enumerate(found) if isinstance(part, Tensor) and part.requires_grad]
    weights = {k: torch.cos(torch.arange(found[k].numel(), dtype=torch.float64)).reshape(found[k].shape) for k in smooth}
    gradient = None
    if smooth:
        total = sum((weights[k] * found[k]).sum() for k in smooth)
        (gradient,) = torch.autograd.grad(total, x, allow_unused=True)
    x, d = x.detach(), direction(x.detach())
    step = 1e-6 * x.abs().max().clamp(min=1e-3)
    if gradient is None:
        floating = [k for k, part in enumerate(found) if isinstance(part, Tensor) and part.is_floating_point()]
        if array not in call.cut and floating:
            moved = call.results(**{array: x + step * d})
            assert all(close(moved[k : k + 1], call.expected[k : k + 1], 1e-12) for k in floating), "no gradient comes out"
        return
    assert array not in call.cut
    ends = [call.results(**{array: x + sign * step * d}) for sign in (1, -1)]
    for k in set(range(len(found))) - set(smooth) - {k for k in range(len(found)) if f"result {k}" in call.cut}:
        assert close(ends[0][k : k + 1], ends[1][k : k + 1], 1e-12), f"no gradient comes out of result {k}"
    difference = sum((weights[k] * (ends[0][k] - ends[1][k])).sum() for k in smooth) / (2 * step)
    size = sum((weights[k] * found[k]).abs().sum() for k in smooth).detach() / x.abs().max()
    assert abs((gradient * d).sum() - difference) <= 1e-5 * (difference.abs() + size)


# --- options ---

BAD_OPTIONS = [
    pytest.param(call, option, value, id=f"{call.name}-{option}-{k}")
    for call in CALLS
    for option, (kind, _) in call.options.items()
    for k, value in enumerate(OPTIONS[kind])
]


@pytest.mark.parametrize("call, option, value", BAD_OPTIONS)
def test_every_bad_option_is_refused_by_name(call: Call, option: str, value):
    with pytest.raises(REFUSED, match=call.called(option)):
        call.results(**{option: value})


@pytest.mark.parametrize(
    "call, option", [pytest.param(c, o, id=f"{c.name}-{o}") for c in CALLS for o, (kind, _) in c.options.items() if kind in NUMPY]
)
def test_an_option_may_be_a_number_of_numpy_or_torch(call: Call, option: str):
    kind, value = call.options[option]
    assert close(call.results(**{option: NUMPY[kind](value)}), call.expected, call.tolerance)
    if "count" not in kind:
        assert close(call.results(**{option: torch.tensor(value, dtype=torch.float64)}), call.expected, call.tolerance)


# --- callables ---


class Watched:
    """A callable with another one in its place from a certain call on; it counts."""

    def __init__(self, good, then=None, after: int = 0):
        self.good, self.then, self.after, self.calls = good, then, after, 0

    def __call__(self, *given, **options):
        self.calls += 1
        value = self.good(*given, **options)
        return self.then(value) if self.then is not None and self.calls > self.after else value


def parts(value, change):
    """The changes of ``change`` to each of the tensors of a value, one after the other."""
    return (
        [lambda v, k=k: (*v[:k], change(v[k]), *v[k + 1 :]) for k in range(len(value))] if isinstance(value, tuple) else [change]
    )


@over_callables("wrong callables", "call, name, wrong", kinds=WRONG)
@pytest.mark.parametrize("after", [0, 1], ids=["at first", "later"])
def test_what_a_callable_returns_is_checked_on_every_call(call: Call, name: str, wrong: str, after: int):
    values = []
    watched = Watched(call.callables[name], lambda value: values.append(value) or value)
    call.results(**{name: watched})
    if watched.calls <= after:
        return
    for change in parts(values[after], WRONG[wrong]):
        with pytest.raises(call.refusals, match=call.called(name)):
            call.results(**{name: Watched(call.callables[name], change, after)})


@over_callables("no callables", "call, name")
@pytest.mark.parametrize("value", [3, "f", torch.zeros(2)], ids=["number", "text", "tensor"])
def test_what_is_no_function_is_refused_by_name(call: Call, name: str, value):
    with pytest.raises(REFUSED, match=call.called(name)):
        call.results(**{name: value})


@over_callables("errors", "call, name")
def test_an_error_of_a_callable_is_what_the_caller_sees(call: Call, name: str):
    def broken(*given, **options):
        raise KeyError("my own fault")

    with pytest.raises(KeyError, match="my own fault"):
        call.results(**{name: broken})


@over_callables("inputs", "call, name")
def test_a_callable_may_change_its_input(call: Call, name: str):
    good = call.callables[name]
    shift = lambda part: part + 0.125 if isinstance(part, Tensor) and part.is_floating_point() and part.ndim > 1 else part

    def in_place(*given, **options):
        for part in given:
            if shift(part) is not part:
                part += 0.125
        return good(*given, **options)

    found = call.results(**{name: in_place})
    assert close(found, call.results(**{name: lambda *given, **options: good(*map(shift, given), **options)}), call.tolerance)
    assert close(call.results(), call.expected, call.tolerance), "what the callable was given belongs to somebody else"


@over_each("buffers", "call, name", lambda call: sorted(call.callables.keys() - set(call.differentiated)))
def test_a_callable_may_return_the_same_memory_again_and_again(call: Call, name: str):
    good, buffers = call.callables[name], {}

    def stored(k, part):
        if not isinstance(part, Tensor):
            return part
        part = part.detach()
        return buffers.setdefault((k, part.shape, part.dtype), torch.empty_like(part)).copy_(part)

    def buffered(*given, **options):
        value = good(*given, **options)
        return tuple(stored(k, v) for k, v in enumerate(value)) if isinstance(value, tuple) else stored(0, value)

    assert close(call.results(**{name: buffered}), call.expected, call.tolerance)


@over_callables("precision", "call, name")
def test_the_precision_is_that_of_the_data_and_not_of_what_a_callable_returns(call: Call, name: str):
    good = call.callables[name]
    lower = lambda part: part.float() if isinstance(part, Tensor) and part.dtype == torch.float64 else part
    other = lambda *given, **options: (
        tuple(map(lower, value)) if isinstance(value := good(*given, **options), tuple) else lower(value)
    )
    try:
        found, before = call.raw(**{name: other}), call.raw()
    except ValueError as error:
        assert re.search(call.called(name), str(error))
        return
    assert [getattr(part, "dtype", None) for part in found] == [getattr(part, "dtype", None) for part in before]
    assert call.single is None or close(numbers(found), call.expected, call.single)


@over_each("no graph", "call, name, cut", lambda call: call.differentiated, CUT)
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_no_graph_is_not_a_derivative_of_zero(call: Call, name: str, cut: str, mode):
    """A callable that cuts the graph is refused by name, unless its derivative is found all the same."""
    with mode():
        try:
            found = call.results(**{name: CUT[cut](call.callables[name])})
        except ValueError as error:
            assert re.search(f"({call.called(name)}).* must be differentiable by torch", str(error)), str(error)
            return
    assert close(found, call.expected, call.tolerance)
