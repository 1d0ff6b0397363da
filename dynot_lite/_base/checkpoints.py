"""Checkpoints that a killed process cannot damage."""

from __future__ import annotations

import os
from pathlib import Path

import torch


def save(state: dict, path: str | Path) -> None:
    """Write tensors and plain values so that a reader finds the old file or the new one, whole, at any moment."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    torch.save(state, partial)
    os.replace(partial, path)
