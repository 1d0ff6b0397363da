"""Checks of what users pass in: each returns the checked tensor or raises a ValueError that names the argument."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["as_tensor", "count", "covariance", "points", "positive", "time", "weights"]


def as_tensor(value, name: str, *, like: Tensor | None = None) -> Tensor:
    """``value`` as a finite real floating-point tensor, on the dtype and device of ``like``; numbers, lists, integers become float64."""
    try:
        # torch would read Python numbers as float32 and lose digits of times and weights.
        tensor = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be an array of numbers, got {type(value).__name__}") from error
    if tensor.is_complex():
        raise ValueError(f"{name} must be real, got {tensor.dtype}")
    if like is not None:
        tensor = tensor.to(dtype=like.dtype, device=like.device)
    elif not tensor.is_floating_point():
        tensor = tensor.to(torch.float64)
    if not torch.isfinite(tensor.detach()).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return tensor


def points(value, name: str, *, dim: int | None = None, like: Tensor | None = None) -> Tensor:
    """A non-empty set of points of shape (..., n, d), with d = ``dim`` if given."""
    tensor = as_tensor(value, name, like=like)
    if tensor.ndim < 2 or 0 in tensor.shape:
        raise ValueError(f"{name} must be a non-empty array of shape (n, d), got shape {tuple(tensor.shape)}")
    if dim is not None and tensor.shape[-1] != dim:
        raise ValueError(f"{name} must have dimension {dim}, got shape {tuple(tensor.shape)}")
    return tensor


def time(value, name: str = "t", *, n: int | None = None, like: Tensor | None = None) -> Tensor:
    """A time in [0, 1]: a scalar, or one time per point, shape (n,)."""
    tensor = as_tensor(value, name, like=like)
    if tensor.ndim > 1 or (tensor.ndim == 1 and tensor.shape[0] != n):
        expected = "a scalar" if n is None else f"a scalar or of shape ({n},)"
        raise ValueError(f"{name} must be {expected}, got shape {tuple(tensor.shape)}")
    if ((tensor < 0) | (tensor > 1)).any():
        raise ValueError(f"{name} must lie in [0, 1], got {tensor.min().item():g} to {tensor.max().item():g}")
    return tensor


def weights(value, n: int, name: str = "weights", *, like: Tensor | None = None) -> Tensor:
    """Probability weights of shape (n,): non-negative, of sum 1 to 100 n units of rounding."""
    tensor = as_tensor(value, name, like=like)
    if tensor.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), got {tuple(tensor.shape)}")
    if (tensor < 0).any():
        raise ValueError(f"{name} must be non-negative, got {tensor.min().item():g}")
    if abs(tensor.sum().item() - 1) > 100 * n * torch.finfo(tensor.dtype).eps:
        raise ValueError(f"{name} must sum to 1, got {tensor.sum().item():.9g}")
    return tensor


def covariance(value, name: str, *, dim: int, like: Tensor | None = None) -> Tensor:
    """A symmetric positive semi-definite matrix, or a batch (..., d, d) of them; rounding-level asymmetry is averaged out."""
    tensor = as_tensor(value, name, like=like)
    if tensor.ndim < 2 or tensor.shape[-2:] != (dim, dim):
        raise ValueError(f"{name} must have shape (..., {dim}, {dim}), got {tuple(tensor.shape)}")
    eps, scale = torch.finfo(tensor.dtype).eps, tensor.detach().abs().amax((-2, -1))
    asymmetry = (tensor - tensor.mT).detach().abs().amax((-2, -1))
    if (asymmetry > eps**0.5 * scale).any():
        raise ValueError(f"{name} must be symmetric, got entries that differ by {asymmetry.max().item():g} from their transpose")
    tensor = 0.5 * (tensor + tensor.mT)
    semidefinite(tensor.detach(), f"{name} must be positive semi-definite")
    return tensor


def semidefinite(matrix: Tensor, requirement: str) -> None:
    """Raise a ValueError that states ``requirement`` if an eigenvalue of the symmetric ``matrix`` is negative beyond rounding."""
    # Cholesky settles the common case at a fraction of the cost of the eigenvalues.
    suspects = matrix[torch.linalg.cholesky_ex(matrix).info > 0]
    if suspects.numel():
        eigenvalues = torch.linalg.eigvalsh(suspects)
        tolerance = 100 * matrix.shape[-1] * torch.finfo(matrix.dtype).eps * eigenvalues[..., -1:].abs()
        if (eigenvalues < -tolerance).any():
            raise ValueError(f"{requirement}, got smallest eigenvalue {eigenvalues.min().item():g}")


def positive(value: float, name: str) -> float:
    """A finite number greater than zero."""
    number = as_tensor(value, name)
    if number.ndim or number <= 0:
        raise ValueError(f"{name} must be a positive number, got {value!r}")
    return float(number)


def count(value: int, name: str, *, least: int = 1) -> int:
    """An integer not smaller than ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer ≥ {least}, got {value!r}")
    return value
