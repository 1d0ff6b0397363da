"""Learning runs of a notebook: each is kept as soon as it ends, so that a record that fails later goes on from it."""

import hashlib
import itertools
import os
import sys
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import joblib

from dynot_lite.companion.ledger import STORE

__all__ = ["runs"]

Name = TypeVar("Name", bound=Hashable)
_calls = itertools.count()  # two calls in one cell may use the same names


def runs(function: Callable[..., Any], jobs: Mapping[Name, Mapping[str, Any]], *, processes: int = 1) -> dict[Name, Any]:
    """The results of ``function(**job)`` by the names of the ``jobs``; ``processes`` at a time, each on one thread.

    Under the runner a result is written to the disk as soon as it is there, and a later run of the notebook reads it: if
    nothing has changed that it can depend on, which is the code of all cells up to this one, and what the package, its data
    and the versions of the libraries are. What is learned must be determined by that, so draw from seeds.
    """
    call = next(_calls)
    kept = {name: _place(call, name) for name in jobs}
    results = {name: joblib.load(path) for name, path in kept.items() if path and path.exists()}
    left = {name: job for name, job in jobs.items() if name not in results}
    with joblib.parallel_config(backend="loky" if processes > 1 else "sequential", inner_max_num_threads=_threads(processes)):
        parallel = joblib.Parallel(n_jobs=processes, return_as="generator_unordered")
        for name, result in parallel(joblib.delayed(_named)(name, function, job) for name, job in left.items()):
            results[name] = result
            if path := kept[name]:
                path.parent.mkdir(parents=True, exist_ok=True)
                joblib.dump(result, path.with_suffix(".partial"))
                path.with_suffix(".partial").replace(path)
    return {name: results[name] for name in jobs}


def _named(name: Name, function: Callable[..., Any], job: Mapping[str, Any]) -> tuple[Name, Any]:
    return name, function(**job)


def _threads(processes: int) -> int | None:
    return 1 if processes > 1 else None


def _place(call: int, name: Hashable) -> Path | None:
    """Where a result is kept, by the code so far, the number of the call and its name; None outside a run."""
    if not (folder := os.environ.get(STORE)):
        return None
    shell = sys.modules["IPython"].get_ipython()
    cells = shell.user_ns["In"] if shell else []
    return Path(folder) / (hashlib.sha256("\0".join([*cells, repr((call, name))]).encode()).hexdigest()[:32] + ".pkl")
