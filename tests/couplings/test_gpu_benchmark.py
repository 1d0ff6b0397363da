"""The benchmark of the search on a GPU, in small on a CPU: it runs, and its tables say what they should."""

import csv
import importlib.util
from pathlib import Path

import torch

from dynot_lite.couplings.rounding import PRECISIONS

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu_semidiscrete.py"


def test_the_tables_of_a_cpu(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("gpu_semidiscrete", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(script, "QUICK", ((600, 8), (200, 48)))
    script.main(["--output", str(tmp_path), "--quick"])
    tables = {}
    for name in ("rates", "fits", "scale"):
        with (tmp_path / f"gpu_semidiscrete_{name}_cpu.csv").open(encoding="utf-8") as file:
            tables[name] = list(csv.DictReader(file))
    assert [(row["N"], row["precision"]) for row in tables["rates"]] == [(n, p) for n in ("600", "200") for p in PRECISIONS]
    for row in tables["rates"]:
        rates = float(row["noises a second"]), float(row["product and maximum"])
        assert min(rates) > 0 and abs(float(row["ratio"]) - rates[1] / rates[0]) < 0.01
        assert 0 <= float(row["share left to float32"]) <= 1 and (
            row["precision"] != "float32" or row["share left to float32"] == "0.0"
        )
    assert all(row["converged"] == "True" and float(row["chi2 at most"]) <= 0.5 for row in tables["fits"])
    patches, random = tables["scale"]
    assert int(patches["N"]) > 1500 and patches["d"] == "48" and random["N"] == "3000"
    for row in (patches, random):
        hours = 25 * int(row["N"]) / float(row["noises a second"]) / 3600
        assert abs(float(row["hours of 25 iterations"]) - hours) <= 0.006
