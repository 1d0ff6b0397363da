"""Claims can fail: of each kind at least a third are tried with a wrong version, and must find it.

The wrong versions are data: ``wrong/NOTEBOOK.toml`` has, per claim, texts of the notebook's code and what replaces them
(``replace``, ``by``), or code that runs first in the cell of the claim (``before``). The claim's bound must then be missed. Where
the package refuses the wrong version, ``raises = true``. What ``small`` replaces makes the right and the wrong versions of a
notebook smaller. A benchmark that the right version misses in this preset must be missed by a factor of two more.
"""

import dataclasses
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import torch
from notebook_slices import Program, Wrong, cells_of, complaints

from dynot_lite.companion.ledger import KINDS, Claim, registry

FOLDER = Path(__file__).parent / "wrong"
FILES = {path.relative_to(FOLDER).with_suffix("").as_posix(): path for path in sorted(FOLDER.rglob("*.toml"))}


def wrong_versions(name: str) -> list[Wrong]:
    return [Wrong.read(claim, fields) for claim, versions in read(name).items() if claim != "small" for fields in versions]


def read(name: str) -> dict:
    return tomllib.loads(FILES[name].read_text(encoding="utf-8"))


def small_cells(name: str) -> list[str]:
    """The code of a notebook with what ``small`` in its file replaces, so that right and wrong versions take seconds."""
    cells, small = cells_of(name), read(name).get("small", {"replace": [], "by": []})
    for old, new in zip(small["replace"], small["by"], strict=True):
        assert sum(cell.count(old) for cell in cells) == 1, f"{name}: {old!r} does not occur once"
        cells = [cell.replace(old, new) for cell in cells]
    return cells


@pytest.mark.parametrize("name", FILES)
def test_claims_fail_for_wrong_versions(name):
    claims = {identifier: entry for identifier, entry in registry().items() if entry.notebook == name}
    wrong = wrong_versions(name)
    assert {version.claim for version in wrong} <= set(claims)
    assert complaints(small_cells(name), claims, wrong) == []


def test_a_third_of_each_kind_is_tried():
    tried = {version.claim for name in FILES for version in wrong_versions(name)}
    everything = Counter(entry.kind for entry in registry().values())
    found = Counter(entry.kind for entry in registry().values() if entry.id in tried)
    assert {kind: f"{found[kind]} of {everything[kind]}" for kind in KINDS if 3 * found[kind] < everything[kind]} == {}


# ------------------------------------------------------------------------------------------------------- the check itself
CELLS = [
    "import math\nimport torch\nfrom matplotlib import pyplot as plt\nfrom dynot_lite.companion import claim, show",
    "rng = torch.Generator().manual_seed(0)\nnever = 1 / 0\nvalues, others = [], []\nsquare = lambda x: x * scale(x)",
    "scale = lambda x: x\nfor x in torch.randn(5, generator=rng):\n    values.append(x - x ** 2)\n    others.append(1 / 0)",
    "values = []\nfor x in (1.0, 2.0):\n    values.append(square(x) - x ** 2)\nfigure = plt.figure(never)\nfigure.plot(values)",
    'claim("T-1", max(abs(v) for v in values))\nclaim("T-2", never)',
]
CLAIMS = {"T-1": Claim("T-1", "tiny", "squares", "here", "identity", at_most=1e-9)}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"replace": "scale = lambda x: x", "by": "scale = lambda x: x + 1"}, None),
        ({"before": "values.append(1.0)"}, None),
        ({"replace": "x * scale(x)", "by": "scale(x) * x"}, "T-1 holds for a wrong version"),
        ({"replace": "scale = lambda x: x", "by": "scale = lambda x: math.sqrt(-x)"}, "raised ValueError"),
        ({"replace": "scale = lambda x: x", "by": "scale = lambda x: math.sqrt(-x)", "raises": True}, "raised ValueError"),
        ({"replace": "scale = lambda x: x", "by": "scale = lambda x: x + 1", "raises": True}, "holds for a wrong version"),
    ],
)
def test_what_a_wrong_version_must_do(change, complaint):
    found = complaints(CELLS, CLAIMS, [Wrong.read("T-1", change)])
    assert (len(found) == 1 and complaint in found[0]) if complaint else found == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"replace": "x ** 2", "by": "x"}, "occurs 2 times"),
        ({"replace": "x ** 3", "by": "x"}, "occurs 0 times"),
        ({"replace": "others.append(1 / 0)", "by": "others.append(2 / 0)"}, "not part of what is claimed"),
        ({"replace": "x", "by": ["y", "z"]}, "pairs"),
        ({"by": []}, "changes something"),
        ({"replaces": "x"}, "unknown keys"),
    ],
)
def test_stale_wrong_versions_are_refused(change, message):
    with pytest.raises(AssertionError, match=message):
        complaints(CELLS, CLAIMS, [Wrong.read("T-1", change)])


def test_only_what_a_claim_needs_is_run():
    program = Program(CELLS)
    needed = {program.statements[index].text.split("\n")[0] for index in program.needed("T-1")}
    assert {"values = []", "for x in (1.0, 2.0):", "square = lambda x: x * scale(x)", "scale = lambda x: x"} <= needed
    assert not {"never = 1 / 0", "figure.plot(values)", "values, others = ([], [])"} & needed


def test_identifiers_may_be_known_only_when_the_statement_runs():
    cells = [*CELLS[:-1], 'names = {1: "T-1"}', "for k, name in names.items():\n    claim(name, k * max(values))"]
    assert complaints(cells, CLAIMS, [Wrong.read("T-1", {"replace": "x * scale(x)", "by": "2 * x"})]) == []


def test_a_claim_that_fails_as_it_stands_is_reported():
    cells = [*CELLS[:-1], 'claim("T-1", 1.0 + len(values))']
    found = complaints(cells, CLAIMS, [Wrong.read("T-1", {"before": "values.append(1.0)"})])
    assert "T-1 does not hold as it stands" in found[0]


@pytest.mark.parametrize(("value", "holds"), [(1.9, True), (2.1, False)])
def test_a_benchmark_missed_here_finds_what_is_half_as_good(value, holds):
    cells = [
        "import torch\nfrom dynot_lite.companion import claim\nvalue = 1.0",
        'torch.set_grad_enabled(False)\nclaim("T-1", value)',
    ]
    claims = {"T-1": dataclasses.replace(CLAIMS["T-1"], kind="benchmark")}
    found = complaints(cells, claims, [Wrong.read("T-1", {"replace": "value = 1.0", "by": f"value = {value}"})])
    assert len(found) == holds
    assert torch.is_grad_enabled()


def test_blocks_bind_names_and_chained_calls_change_their_root():
    program = Program(
        ["x = 1\ny = 2\nz = [0]", "with x as file:\n    y = file\n    w = y\nz.view().load()", 'claim("T-1", w + z[0])']
    )
    needed = {program.statements[index].text for index in program.needed("T-1")}
    assert {"x = 1", "z = [0]", "z.view().load()"} <= needed
    assert "y = 2" not in needed
