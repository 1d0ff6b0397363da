"""Semidiscrete potentials on several processes or machines, started by ``torchrun``.

Noise is shared among the processes: each draws its part from a generator of its own, the histograms of the cells are added up
(``all_reduce``), and every process makes the same step; so the potentials are those of one process up to the sampling error.
Every process holds all the points. The output file is also the checkpoint, written after each iteration; a run that finds it goes
on from there::

    torchrun --standalone --nproc-per-node 4 -m dynot_lite.couplings.distributed points.npy potentials.pt --tol 0.05
    points, weights = load_points("points.npy")
    coupling = SemidiscreteCoupling(points, weights=weights)
    coupling.load_state_dict(checkpoints.read("potentials.pt"))

A process that dies makes the others fail at their next exchange and torchrun exit with an error; with ``--max-restarts 3`` it
starts them again instead, from the checkpoint. Computation is on the GPUs (nccl) where there are any, else on the CPU (gloo).
"""

import argparse
import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import distributed

from dynot_lite._base import checkpoints, ranks
from dynot_lite.couplings.semidiscrete import SemidiscreteCoupling

__all__ = ["load_points", "main"]


def load_points(path, device: str | torch.device = "cpu") -> tuple[torch.Tensor, torch.Tensor | None]:
    """Points (N, ...) as float32 and weights or None, of a .npy array or a .npz archive with "points" and, maybe, "weights"."""
    loaded = np.load(path, allow_pickle=False)
    arrays = {"points": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    if "points" not in arrays or arrays["points"].ndim < 2:
        raise ValueError(f"{path} must hold an array of shape (N, ...), in an archive under the name 'points'")
    points = torch.as_tensor(arrays["points"], device=device).float()
    weights = arrays.get("weights")
    return points, None if weights is None else torch.as_tensor(weights, device=device)


def main(arguments: list[str] | None = None) -> int:
    """Fit the potentials of an array file as one of the processes of torchrun; 0 if they converged, 1 if not."""
    parser = argparse.ArgumentParser(
        prog="torchrun ... -m dynot_lite.couplings.distributed", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("points", type=Path, help=".npy or .npz file (see load_points)")
    parser.add_argument("output", type=Path, help="file for the potentials, and checkpoint")
    parser.add_argument("--epsilon", type=float, default=0.0)
    parser.add_argument("--tol", type=float, default=0.05)
    parser.add_argument("--max-iterations", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds to wait for a silent process")
    options = parser.parse_args(arguments)
    if "RANK" not in os.environ:
        parser.error(
            "torchrun must start this, one process per device: see the documentation of dynot_lite.couplings.distributed"
        )
    with processes(timeout=options.timeout) as device:
        return _fit(options, device)


@contextlib.contextmanager
def processes(*, timeout: float = 300.0) -> Iterator[torch.device]:
    """Join the other processes that torchrun has started, one for each device, and leave them at the end.

    Gives the device of this process: its own GPU (the others are heard through nccl), or the CPU (gloo). ``timeout``: seconds
    to wait for a process that is silent. Without torchrun nothing is joined.
    """
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if gpu else torch.device("cpu")
    if "RANK" not in os.environ:
        yield device
        return
    if gpu:
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if gpu else "gloo", timeout=datetime.timedelta(seconds=timeout))
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def own_generator(device: torch.device, *key: object) -> torch.Generator:
    """A generator on ``device`` whose seed is a hash of ``key``: another rank, or another number of draws before, another one."""
    digest = hashlib.sha256(" ".join(map(str, key)).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "big"))


def _fit(options: argparse.Namespace, device: torch.device) -> int:
    rank = distributed.get_rank()
    points, weights = load_points(options.points, device)
    coupling = SemidiscreteCoupling(points, weights=weights, epsilon=options.epsilon)
    # The first process reads the checkpoint for all: they need not share a disk, and cannot read two versions of it.
    state = ranks.told(lambda: checkpoints.read(options.output) if options.output.exists() else None, distributed.group.WORLD)
    noises = 0
    if state is not None:
        coupling.load_state_dict(state)
        noises = state["noises"]
        if rank == 0:
            print(f"resumed from {options.output} at iteration {coupling.iterations:.4g}", file=sys.stderr, flush=True)
    # Neither another process nor the run before a restart may have drawn the same noise.
    generator = own_generator(device, options.seed, rank, noises)
    result = coupling.fit(
        tol=options.tol, max_iterations=options.max_iterations, generator=generator, group=distributed.group.WORLD,
        callback=(lambda c: checkpoints.save(c.state_dict(), options.output)) if rank == 0 else None,
        progress=None if rank == 0 else False,
    )  # fmt: skip
    if rank == 0:
        checkpoints.save(coupling.state_dict(), options.output)
        print(json.dumps(dataclasses.asdict(result)), flush=True)
    if rank == 0 and not result.converged:
        print(f"not converged: {result.reason}; the potentials so far are in {options.output}", file=sys.stderr, flush=True)
    return 0 if result.converged else 1


if __name__ == "__main__":
    sys.exit(main())
