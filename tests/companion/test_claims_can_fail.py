"""Claims that could not fail: those whose wrong versions are data, not formulas, and those that lose a NaN on their way."""

import ast

import pytest
import torch

from dynot_lite.companion import notebooks
from dynot_lite.companion.ledger import registry
from dynot_lite.datasets import images


@pytest.mark.parametrize("copies, memory", [("SD-31", "SD-31b"), ("FM-42", "FM-42b")])
def test_copies_of_digits_with_noise_and_pure_noise_are_rejected(copies, memory):
    generator = torch.Generator().manual_seed(0)
    digits, _ = images.digits()
    digits = ((digits - digits.mean()) / digits.std())[torch.randperm(len(digits), generator=generator)]
    train, kept, unseen = digits[:1197], digits[1197:1497], digits[1497:]
    noise = torch.randn(300, 64, generator=generator)

    def nearness(x):
        first, second = torch.cdist(x, train).topk(2, largest=False).values.T
        return (first / second).mean(), first.mean()

    def accepted(x):
        stands_out, far = (ours / theirs for ours, theirs in zip(nearness(x), nearness(kept), strict=True))
        return registry()[copies].accepts(stands_out), registry()[memory].accepts(far)

    assert accepted(unseen) == (True, True)
    for level in (0.0, 0.1, 0.35):
        assert accepted(train[:300] + level * noise) == (False, True)
    assert accepted(noise) == (True, False)


FOLDER = notebooks.root() / "notebooks"


def losing_nan(source: str) -> list[int]:
    """Lines on which Python's max or min, which pass over a NaN, decide what is claimed, accumulated, or kept in a list."""
    tree = ast.parse(source)
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "claim":
            inner = (part for argument in node.args for part in ast.walk(argument))
            found |= {part.lineno for part in inner if _extreme(part)}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "append":
            found |= {argument.lineno for argument in node.args if _extreme(argument)}
        elif isinstance(node, ast.Assign) and _extreme(node.value):
            accumulated = {name.id for name in node.targets if isinstance(name, ast.Name)}
            read = {name.id for argument in node.value.args for name in ast.walk(argument) if isinstance(name, ast.Name)}
            found |= {node.lineno} if accumulated & read else set()
    return sorted(found)


def _extreme(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("max", "min")


@pytest.mark.parametrize("name", notebooks.find_notebooks(FOLDER))
def test_no_claim_loses_a_nan(name):
    assert losing_nan(notebooks.source_path(FOLDER, name).read_text(encoding="utf-8")) == []


def test_the_ways_to_lose_a_nan_are_found():
    lines = ['claim("A-1", 1 - max(gaps))', "gap = min(gap, other)", "gaps.append(max(one, two))", 'claim("A-1", f(min(a)))']
    assert losing_nan("\n".join(lines)) == [1, 2, 3, 4]
    assert losing_nan('claim("A-1", worst(gaps))\nfirst = max(0, k - 3)\nlow[j] = max(low[j], wall)') == []
