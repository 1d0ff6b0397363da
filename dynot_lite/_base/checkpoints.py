"""Checkpoints that a killed process cannot damage: the one writer and reader."""

import os
from collections.abc import Mapping

import torch

from dynot_lite._base import checks as check


def save(state: Mapping | bytes, path: str | os.PathLike) -> None:
    """Write tensors and plain values, or bytes as they are: a reader finds the old file or the new one, whole, at any moment."""
    path = check.path(path, "checkpoint")
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as stream:
        stream.write(state) if isinstance(state, bytes) else torch.save(dict(state), stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, path)


def read(path: str | os.PathLike) -> dict:
    """What :func:`save` wrote, tensors on the CPU; no code is run. Raises ValueError if the file is missing or damaged."""
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {path}") from error
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(f"{path} is damaged or no checkpoint; remove it to start afresh") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} is no checkpoint: it holds a {type(state).__name__}")
    return state


def resume(path: str | os.PathLike | None, fingerprint: Mapping) -> dict | None:
    """The state to go on from, whose entry "fingerprint" is ``fingerprint``; None if there is no path, or no file yet.

    Raises ValueError if the file is damaged, or of another run; the message names what differs.
    """
    if path is None or not check.path(path, "checkpoint").exists():
        return None
    state = read(path)
    found = state.get("fingerprint")
    if not isinstance(found, dict):
        raise ValueError(f"checkpoint {path} is not of a run that can be continued; remove it to start afresh")
    different = sorted(name for name in fingerprint.keys() | found.keys() if fingerprint.get(name) != found.get(name))
    if different:
        pairs = ", ".join(f"{name} {found.get(name)!r} there and {fingerprint.get(name)!r} here" for name in different)
        raise ValueError(f"checkpoint {path} is of another run: {pairs}")
    return state
