"""Side-by-side timing: candidates run in turn in one process, on one thread each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from threadpoolctl import threadpool_limits

from dynot_lite import _validation as check

__all__ = ["medians"]


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
