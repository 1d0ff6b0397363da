"""Checks of what users pass in: each returns the checked tensor or raises a ValueError that names the argument."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dynot_lite._base.differentiation import refuse_graph


def as_tensor(value, name: str, *, like: Tensor | None = None) -> Tensor:
    """``value`` as a finite real floating-point tensor, on the dtype and device of ``like``.

    Tensors, arrays of any layout and byte order, numbers and lists. Integers and booleans, and numbers without a dtype, become
    float64, half precision becomes float32 (linear algebra knows no less).
    """
    tensor = _dense(value, name)
    if like is not None:
        tensor = tensor.to(dtype=like.dtype, device=like.device)
    elif not tensor.is_floating_point():
        tensor = tensor.to(torch.float64)
    elif tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.to(torch.float32)
    if not finite(tensor):
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return tensor


def finite(tensor: Tensor) -> bool:
    """Whether all entries are finite: the sum tells at less cost, unless it overflows."""
    tensor = tensor.detach()
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def representable(found: Tensor, whose: str) -> Tensor:
    """``found``, refused if it overflows: finite points and laws have finite values, but their squares need not be floats."""
    if not finite(found):
        raise ValueError(f"{whose} must be of a size whose squares are floating-point numbers, got an overflow")
    return found


def squares(x: Tensor, name: str) -> Tensor:
    """Points whose squared lengths are :func:`representable`."""
    representable(x.detach().square().sum(-1), name)
    return x


def _dense(value, name: str) -> Tensor:
    tensor = value if isinstance(value, Tensor) else torch.from_numpy(_array(value, name))
    if tensor.is_complex() or tensor.layout != torch.strided:
        raise ValueError(f"{name} must be real and dense, got {tensor.dtype}, {tensor.layout}")
    return tensor


def _array(value, name: str) -> np.ndarray:
    """A writable array in native byte order without negative strides, as torch wants it, with the float64 of Python's numbers."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be an array of numbers, got {type(value).__name__}: {error}") from error
    if array.dtype.kind not in "biufc":
        raise ValueError(f"{name} must be an array of numbers, got {type(value).__name__} of {array.dtype}")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    # A copy where torch would refuse, or warn that it could write into what is read-only.
    native = array.dtype.newbyteorder("=")
    sound = array.flags.writeable and array.dtype == native and all(stride >= 0 for stride in array.strides)
    return array if sound else array.astype(native, order="C", copy=True)


def points(value, name: str, *, dim: int | None = None, like: Tensor | None = None) -> Tensor:
    """A non-empty set of points of shape (..., n, d), with d = ``dim`` if given."""
    tensor = as_tensor(value, name, like=like)
    if tensor.ndim < 2 or 0 in tensor.shape:
        raise ValueError(f"{name} must be a non-empty array of shape (n, d), got shape {tuple(tensor.shape)}")
    if dim is not None and tensor.shape[-1] != dim:
        raise ValueError(f"{name} must have dimension {dim}, got shape {tuple(tensor.shape)}")
    return tensor


def cloud(value, name: str, *, dim: int | None = None, like: Tensor | None = None) -> Tensor:
    """:func:`points` of shape (n, d), without further axes."""
    tensor = points(value, name, dim=dim, like=like)
    if tensor.ndim != 2:
        raise ValueError(f"{name} must have shape (n, {dim or 'd'}), got {tuple(tensor.shape)}")
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
    """Probability weights of shape (n,): non-negative, of sum 1 to 100 n units of rounding of the precision they come in."""
    given = as_tensor(value, name)
    if given.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), got {tuple(given.shape)}")
    if (given < 0).any():
        raise ValueError(f"{name} must be non-negative, got {given.min().item():g}")
    total = given.sum(dtype=torch.float64)
    if abs(total.item() - 1) > 100 * n * torch.finfo(given.dtype).eps:
        raise ValueError(f"{name} must sum to 1, got {total.item():.9g}")
    return given if like is None else (given.to(torch.float64) / total).to(dtype=like.dtype, device=like.device)


def covariance(value, name: str, *, dim: int, like: Tensor | None = None) -> Tensor:
    """A symmetric positive semi-definite matrix, or a batch (..., d, d) of them; rounding-level asymmetry is averaged out.

    Both are judged in the precision it comes in.
    """
    tensor = as_tensor(value, name)
    if tensor.ndim < 2 or tensor.shape[-2:] != (dim, dim):
        raise ValueError(f"{name} must have shape (..., {dim}, {dim}), got {tuple(tensor.shape)}")
    eps, scale = torch.finfo(tensor.dtype).eps, tensor.detach().abs().amax((-2, -1))
    asymmetry = (tensor - tensor.mT).detach().abs().amax((-2, -1))
    if (asymmetry > eps**0.5 * scale).any():
        raise ValueError(f"{name} must be symmetric, got entries that differ by {asymmetry.max().item():g} from their transpose")
    tensor = 0.5 * (tensor + tensor.mT)
    semidefinite(tensor.detach(), f"{name} must be positive semi-definite")
    return tensor if like is None else as_tensor(tensor, name, like=like)


def batch(names: str, *shapes: torch.Size) -> torch.Size:
    """The common shape of batches that must fit together."""
    if all(shape == shapes[0] for shape in shapes):
        return shapes[0]
    try:
        return torch.broadcast_shapes(*shapes)
    except RuntimeError as error:
        found = ", ".join(str(tuple(shape)) for shape in shapes)
        raise ValueError(f"{names} must have compatible batches, got {found}") from error


def semidefinite(matrix: Tensor, requirement: str) -> None:
    """Raise a ValueError that states ``requirement`` if an eigenvalue of the symmetric ``matrix`` is negative beyond rounding."""
    # Cholesky settles the common case at a fraction of the cost of the eigenvalues.
    suspects = matrix[torch.linalg.cholesky_ex(matrix).info > 0]
    if suspects.numel():
        eigenvalues = torch.linalg.eigvalsh(suspects)
        tolerance = 100 * matrix.shape[-1] * torch.finfo(matrix.dtype).eps * eigenvalues[..., -1:].abs()
        if (eigenvalues < -tolerance).any():
            raise ValueError(f"{requirement}, got smallest eigenvalue {eigenvalues.min().item():g}")


def rows(value, n: int | None, name: str, *, like: Tensor) -> Tensor:
    """What belongs to each of ``n`` points (labels, conditions), shape (n, ...), on the device of the points ``like``.

    Integers and floating-point numbers keep their dtype; numbers without a dtype take that of the points.
    """
    tensor = _dense(value, name)
    if tensor.ndim < 1 or (n is not None and len(tensor) != n):
        wanted = "per point" if n is None else f"for each of the {n} points"
        raise ValueError(f"{name} must have one row {wanted}, got shape {tuple(tensor.shape)}")
    if tensor.is_floating_point() and not finite(tensor):
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return tensor.to(like.device, like.dtype if tensor.is_floating_point() and not hasattr(value, "dtype") else tensor.dtype)


def number(value: float, name: str) -> float:
    """A finite number; no bool, and not one that requires a gradient, which would be cut off."""
    refuse_graph(value, name)
    if isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be a number, got {value!r}")
    tensor = as_tensor(value, name)
    if tensor.ndim:
        raise ValueError(f"{name} must be a number, got shape {tuple(tensor.shape)}")
    return tensor.item()


def positive(value: float, name: str, *, or_zero: bool = False) -> float:
    """A finite number greater than zero, or not less."""
    found = number(value, name)
    if found < 0 or (found == 0 and not or_zero):
        raise ValueError(f"{name} must be a {'non-negative' if or_zero else 'positive'} number, got {value!r}")
    return found


def count(value: int, name: str, *, least: int = 1) -> int:
    """An integer not smaller than ``least``."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be an integer ≥ {least}, got {value!r}")
    return int(value)


def share(value: float, name: str, *, below_one: bool = False) -> float:
    """A number in [0, 1], or in [0, 1)."""
    sound = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not (sound and 0 <= value <= 1 and not (below_one and value == 1)):
        raise ValueError(f"{name} must lie in [0, 1{')' if below_one else ']'}, got {value!r}")
    return float(value)


def choice(value: str, name: str, choices: Iterable[str]) -> str:
    """One of some words."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def path(value, name: str) -> Path:
    """The place of a file or folder."""
    try:
        return Path(value)
    except TypeError as error:
        raise TypeError(f"{name} must be a path, got {type(value).__name__}") from error
