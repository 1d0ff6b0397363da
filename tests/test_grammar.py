"""The grammar of solving (CONTRIBUTING): no public function leaves it, and the table there is the one that inspection gives."""

import dataclasses
import inspect
import typing

import grammar
import pytest

from dynot_lite._base.results import Result

ENTRIES = list(grammar.entries())
# Where a value has an obvious place, a default may stand there without its name.
POSITIONAL_DEFAULTS = {"noise", "labels", "order", "deviations", "widths", "directory", "device", "arguments"}


def complaints(item: grammar.Entry) -> list[str]:
    """What of the grammar a public function leaves."""
    found, names = [], [name.lstrip("*") for name in item.data + item.options]
    found += [f"{name}: said with another word in the vocabulary" for name in names if name in grammar.FORBIDDEN]
    found += [
        f"{name} is not in the vocabulary" for name in item.options if name not in grammar.SHARED and name not in grammar.SUBJECT
    ]
    if {"x", "y"} <= set(names):
        found.append("two clouds are x0 and x1")
    for first, second in (("x0", "x1"), ("weights0", "weights1"), ("source", "target"), ("t", "x")):
        if first in names and second in names and names.index(first) > names.index(second):
            found.append(f"{first} stands before {second}")
    for parameter in item.signature.parameters.values():
        if (
            parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            and parameter.name in grammar.SHARED
            and parameter.name not in ("weights", "steps")
        ):
            found.append(f"{parameter.name} must be keyword-only")
        if (
            parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            and parameter.default is not parameter.empty
            and parameter.name not in POSITIONAL_DEFAULTS
        ):
            found.append(f"{parameter.name} has a default and must be keyword-only")
    # A class method has no model yet: it makes one.
    if (
        item.name.split(".")[-1] == "fit"
        and "cls" not in item.signature.parameters
        and item.returns.strip("'\"") == item.name.split(".")[0]
    ):
        found.append("a fit returns its result, not the model")
    return found


@pytest.mark.parametrize("item", [pytest.param(item, id=f"{item.room}.{item.name}") for item in ENTRIES])
def test_no_public_function_leaves_the_grammar(item):
    assert complaints(item) == []


def test_the_inspection_finds_what_there_is_and_what_is_wrong():
    assert len(ENTRIES) > 150 and sum(grammar.solves(item) for item in ENTRIES) > 30

    def wrong(x, y, a=None, *, max_iter=3, tol=1e-3, flavour=1):
        pass

    def right(x0, x1, *, weights0=None, weights1=None, tol=1e-3, max_iterations=3):
        pass

    told = " ".join(complaints(grammar.entry("room", "wrong", wrong)))
    for words in ("max_iter: said", "flavour is not", "two clouds", "a has a default", "a: said"):
        assert words in told
    assert complaints(grammar.entry("room", "right", right)) == []


def test_no_word_of_the_vocabulary_is_unused():
    used = {name.lstrip("*") for item in ENTRIES for name in item.data + item.options}
    assert grammar.SUBJECT - used == set()


def test_what_can_fail_to_converge_is_a_frozen_result_with_a_reason():
    results = list(grammar.results())
    assert len(results) >= 6
    for kind in results:
        assert dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen
        assert "require" not in vars(kind), "require is one for all"
        assert {"converged", "reason"} <= {field.name for field in dataclasses.fields(kind)}
    # and nothing else has a flag of its own that nobody needs to look at
    for module in grammar.modules():
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if inspect.isclass(thing) and dataclasses.is_dataclass(thing) and not issubclass(thing, Result):
                assert "converged" not in {field.name for field in dataclasses.fields(thing)}, name


def test_no_return_type_is_a_choice():
    chosen = []
    for item in ENTRIES:
        annotation = typing.get_type_hints(inspect.unwrap(item.function)).get("return") if callable(item.function) else None
        if typing.get_origin(annotation) is typing.Union:
            chosen.append(f"{item.room}.{item.name}")
    assert chosen == []


def test_the_table_in_contributing_is_the_one_of_today():
    text = (grammar.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert grammar.refreshed(text) == text, "run: python tests/grammar.py"
