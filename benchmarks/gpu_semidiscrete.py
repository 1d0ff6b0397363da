"""The semidiscrete coupling on this machine's GPU: rates, times to a certified χ², and what ImageNet-32 would take.

    python benchmarks/gpu_semidiscrete.py [--output DIRECTORY] [--quick]

Three tables, as CSV files whose names carry the card's:

- rates: noises a second in the ascent, beside those of nothing but the matrix product and the maximum of each row, for each
  precision, and the share of noises that reduced precision left to float32. The aim is a ratio of 2 at most.
- fits: seconds to χ² ≤ 0.05, certified, the start included. The noises a fit takes are those of any machine.
- scale: a part of the ascent at N = 1 281 167, d = 3072 (random points of the size of ImageNet-32) and of the patches of 32 × 32
  pixels of scikit-learn's two photographs: noises a second, memory, and the hours of 25 iterations.

Without a GPU it runs on the CPU, with sizes that a CPU can do in a minute (``--quick``).

This script has not been run on a card yet. The last known figures are a prototype's, on one H100: 2.7 seconds to χ² ≤ 0.05
at N = 100 000, d = 64 (2.0 in TF32), 2.2 seconds at N = 50 000, d = 3072, where one matrix product and maximum alone make
1.6 (2.6 in TF32) and, in TF32, 1.1 million noises a second. One thread of a CPU makes 454 noises a second among 30 294 of
the patches (every fourth in each direction; 85 GFlop/s): for all of them 25 iterations would take about 117 hours.
"""

import argparse
import csv
import re
import time
from pathlib import Path

import torch

from dynot_lite.couplings import ascent
from dynot_lite.couplings.atoms import Atoms, Noise
from dynot_lite.couplings.rounding import PRECISIONS, matmul
from dynot_lite.couplings.semidiscrete import SemidiscreteCoupling
from dynot_lite.datasets.images import patches, photographs

SIZES = ((100_000, 64), (50_000, 3072))
QUICK = ((2_000, 16), (500, 192))


def card(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return re.sub(r"\W+", "-", name).strip("-").lower()


def wait(device: torch.device) -> float:
    """The time on the clock when the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def cloud(n: int, d: int, device: torch.device) -> torch.Tensor:
    """Ten clusters with a decaying spectrum, total variance d."""
    generator = torch.Generator(device).manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, device=device)
    scale = torch.arange(1, d + 1, device=device) ** -0.5
    scale *= (d / (2 * scale.square().sum())) ** 0.5
    points = draw(n, d)
    points += draw(10, d)[torch.randint(10, (n,), generator=generator, device=device)]
    return points.mul_(scale)


def bare(points: torch.Tensor, precision: str, batch: int, seconds: float) -> float:
    """Noises a second of the least that a search can be: one product and one maximum for each batch."""
    device = points.device
    y = points.bfloat16() if precision == "bfloat16" else points
    bias = torch.zeros(len(points), device=device)
    x = torch.randn(batch, points.shape[1], device=device).to(y)
    out = torch.empty(batch, len(points), device=device)

    def once() -> None:
        with matmul(device, precision=precision):
            if precision != "bfloat16":
                torch.addmm(bias, x, y.T, out=out)
            elif device.type == "cuda":
                torch.mm(x, y.T, out_dtype=torch.float32, out=out)
            else:
                torch.mm(x.float(), y.T.float(), out=out)
        out.max(1)

    return repeat(once, batch, device, seconds)


def repeat(once, noises: int, device: torch.device, seconds: float) -> float:
    once()
    begin, runs = wait(device), 0
    while wait(device) - begin < seconds:
        for _ in range(5):
            once()
        runs += 5
    return runs * noises / (wait(device) - begin)


def begun(points: torch.Tensor, precision: str) -> ascent.Ascent:
    atoms = Atoms(points, precision=precision)
    generator = torch.Generator(points.device).manual_seed(1)
    return ascent.start(atoms, Noise("normal", like=atoms.points), 0.0, generator=generator)


def rate(state: ascent.Ascent, seconds: float) -> float:
    """Noises a second of an ascent under way."""
    device = state.iterate.device
    generator = torch.Generator(device).manual_seed(2)
    steps = state.run(1e9, generator=generator)
    for _ in range(5):
        next(steps)
    begin, before = wait(device), state.noises
    while wait(device) - begin < seconds:
        for _ in range(5):
            next(steps)
    return (state.noises - before) / (wait(device) - begin)


def open_share(state: ascent.Ascent) -> float:
    """The share of noises whose assignment rounding may have changed."""
    scores = state.scores()
    if scores.rounded is None:
        return 0.0
    x = scores.noise.draw(4096, generator=torch.Generator(state.iterate.device).manual_seed(3))
    return 1 - scores.settle(scores.noise.flat(x))[2].double().mean().item()


def rates(device, sizes, seconds):
    for n, d in sizes:
        points = cloud(n, d, device)
        for precision in PRECISIONS:
            state = begun(points, precision)
            batch = 1024 if device.type == "cuda" else 512
            found, least = rate(state, seconds), bare(points, precision, batch, seconds)
            yield {"N": n, "d": d, "precision": precision, "noises a second": round(found), "product and maximum": round(least),
                   "ratio": round(least / found, 2), "share left to float32": round(open_share(state), 5)}  # fmt: skip


def fits(device, sizes, tol):
    for n, d in sizes:
        points = cloud(n, d, device)
        for precision in PRECISIONS:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            begin = wait(device)
            coupling = SemidiscreteCoupling(points, precision=precision)
            fit = coupling.fit(tol=tol, generator=torch.Generator(device).manual_seed(4), progress=False)
            taken = wait(device) - begin
            yield {"N": n, "d": d, "precision": precision, "seconds": round(taken, 2), "converged": fit.converged, "iterations":
                   round(fit.iterations, 1), "chi2 at most": round(fit.chi2_upper, 4), "GiB": memory(device)}  # fmt: skip


def memory(device) -> float | str:
    return round(torch.cuda.max_memory_allocated(device) / 2**30, 2) if device.type == "cuda" else "–"


def scale(device, quick, seconds):
    size, stride = (4, 16) if quick else (32, 1)
    photograph = torch.cat([patches(image.float(), size=size)[::stride, ::stride].flatten(0, 1) for image in photographs()])
    data = {"patches of photographs": lambda: (photograph - photograph.mean()) / photograph.std()}
    shape = (3000, 48) if quick else (1_281_167, 3072)
    data["random, the size of ImageNet-32"] = lambda: cloud(*shape, device)
    for name, make in data.items():
        for precision in ("float32",) if quick else ("tf32", "bfloat16"):
            try:
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats(device)
                state = begun(make().to(device), precision)
                found, count = rate(state, seconds), len(state.atoms)
            except torch.OutOfMemoryError:
                yield {"data": name, "precision": precision, "noises a second": "not enough memory"}
                continue
            yield {"data": name, "N": count, "d": state.atoms.centred.shape[1], "precision": precision, "noises a second":
                   round(found), "GiB": memory(device), "hours of 25 iterations": round(25 * count / found / 3600, 2),
                   "share left to float32": round(open_share(state), 5)}  # fmt: skip
            del state


def write(path: Path, rows) -> None:
    """Row by row: what has been measured is kept if a later size does not fit."""
    rows = iter(rows)
    first = next(rows)
    fields = list(first) + [
        name for name in ("N", "d", "GiB", "hours of 25 iterations", "share left to float32") if name not in first
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fields)
        table.writeheader()
        for row in (first, *()):
            table.writerow(row)
            print(row, flush=True)
        for row in rows:
            table.writerow(row)
            file.flush()
            print(row, flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(), help="folder for the tables")
    parser.add_argument("--quick", action="store_true", help="sizes for a CPU, and for a test")
    options = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    quick = options.quick or device.type == "cpu"
    sizes, seconds = (QUICK, 0.1) if quick else (SIZES, 5.0)
    options.output.mkdir(parents=True, exist_ok=True)
    for name, rows in (
        ("rates", rates(device, sizes, seconds)),
        ("fits", fits(device, sizes, 0.5 if quick else 0.05)),
        ("scale", scale(device, quick, seconds if quick else 60.0)),
    ):
        write(options.output / f"gpu_semidiscrete_{name}_{card(device)}.csv", rows)


if __name__ == "__main__":
    main()
