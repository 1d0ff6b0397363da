"""Side-by-side timing: candidates run in turn in one process, on one thread each; and the peers that some of them need."""

import importlib
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import torch
from threadpoolctl import threadpool_limits

from dynot_lite._base import checks as check
from dynot_lite.companion.ledger import say

__all__ = ["PEERS", "install_peers", "medians", "peer", "peer_of_jax"]

PEERS = Path(__file__).resolve().parents[2] / ".peers"
"""Where the peers live that are no dependencies of ours: a folder that nothing but :func:`peer` looks into."""


def install_peers(pins: Path) -> int:
    """Make :data:`PEERS` anew with exactly the packages of the file ``pins``; returns pip's exit code.

    Without their dependencies, because those would replace ours: what else a peer needs is a line of its own in ``pins``.
    """
    partial = PEERS.with_suffix(".partial")
    for folder in (PEERS, partial):
        shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(partial), "-r", str(pins)]
    code = subprocess.call(command)
    if code == 0:
        partial.rename(PEERS)
    return code


def peer(module: str) -> ModuleType | None:
    """The module of a peer, or None where it is not installed; a line says which version it has, or how to get it.

    The folder of the peers comes last in the search path, so that none of them takes the place of a package of ours.
    """
    name = module.partition(".")[0]
    if PEERS.is_dir() and str(PEERS) not in sys.path:
        sys.path.append(str(PEERS))
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != name:  # the peer is there and lacks something: not the same as absent
            raise
        say(f"{name} is not installed: 'python3 run.py peers' installs it, the comparison with it is skipped")
        return None
    if module == name:
        say(f"{name} {getattr(found, '__version__', 'of unknown version')}")
    return found


def peer_of_jax(*modules: str) -> ModuleType | None:
    """The module jax on one thread of the processor, or None where one of its ``modules``, or jax itself, is not installed.

    jax makes as many threads as it sees processors when it first computes: that is done here, and where the system allows it
    jax sees one.
    """
    if any(peer(module) is None for module in ("jax", *modules)):
        return None
    jax = importlib.import_module("jax")
    jax.config.update("jax_platforms", "cpu")
    processors = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if processors:
        os.sched_setaffinity(0, {min(processors)})
    try:
        jax.numpy.zeros(1).block_until_ready()
    finally:
        if processors:
            os.sched_setaffinity(0, processors)
    return jax


def medians(candidates: Mapping[str, Callable[[], object]], *, repeats: int) -> dict[str, float]:
    """The median processor seconds of each candidate over ``repeats`` rounds, all taking turns, after one round to warm up.

    Torch and the BLAS libraries are held to one thread, where processor time is the time that passes on an idle machine; on
    a busy one the clock on the wall measures the neighbours. Report ratios of these medians, not the times.
    """
    check.count(repeats, "repeats")
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            for round_ in range(repeats + 1):
                for name, run in candidates.items():
                    start = time.process_time()
                    run()
                    if round_:
                        seconds[name].append(time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    return {name: statistics.median(values) for name, values in seconds.items()}
