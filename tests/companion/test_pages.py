"""Pages that are written by hand: what they say of other files and of libraries holds."""

import importlib.metadata
import re
from pathlib import Path

import numpy as np
import ot
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from dynot_lite.companion.ledger import registry

ROOT = Path(__file__).resolve().parents[2]
TRAPS = (ROOT / "figures" / "known_traps.md").read_text(encoding="utf-8")


def test_every_trap_has_a_version_an_example_and_what_detects_its_repair():
    entries = re.split(r"^## ", TRAPS, flags=re.MULTILINE)[1:]
    wanted = {line.split("==")[0].lower(): line.split("==")[1] for line in _pins()}
    for entry in entries:
        library, version = re.search(r"^(POT|ott-jax|torchcfm) ([\w.]+\w)\. ", entry, re.MULTILINE).groups()
        assert wanted[library.lower()] == version, library
        assert all(f"- **{word}" in entry for word in ("Smallest example.**", "Instead.**", "Detected by**"))
        assert all(name in registry() for name in re.findall(r"[A-Z]+-\d+", entry.split("**Detected by**")[1]))
    assert len(entries) == 4


def _pins():
    text = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in ("constraints.txt", "peers.txt"))
    return re.findall(r"^[\w-]+==[\w.]+", text, re.MULTILINE)


def test_pots_potentials_of_tied_levels_are_still_none():
    x, y = torch.tensor([[0.0], [1.0]]).double(), torch.tensor([[2.0], [4.0]]).double()
    f, g, cost = ot.lp.emd_1d_dual_backprop(x, y, p=2)
    found = f.flatten().tolist(), g.flatten().tolist()
    repaired = f"repaired in POT {importlib.metadata.version('pot')}: figures/known_traps.md"
    assert found == ([3.25, 3.25], [0.75, 5.75]) and (f.mean() + g.mean()).item() == cost.item() == 6.5, repaired


def test_pots_exact_solver_still_stops_early_in_small_units():
    rng = np.random.default_rng(0)
    weights, excess = np.full(50, 1 / 50), {}
    for unit in (1, 1e-6, 1e-8):
        x, y = rng.normal(size=(50, 2)) * unit, rng.normal(size=(50, 2)) * unit + unit
        cost = ot.dist(x, y)
        excess[unit] = (ot.emd(weights, weights, cost) * cost).sum() / cost[linear_sum_assignment(cost)].mean()
    repaired = f"repaired in POT {importlib.metadata.version('pot')}: figures/known_traps.md"
    assert excess[1] == pytest.approx(1) and excess[1e-6] == pytest.approx(1) and excess[1e-8] > 1.5, repaired
