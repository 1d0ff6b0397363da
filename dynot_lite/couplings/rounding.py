"""Scores of reduced precision, for a GPU's fast matrix products, and a bound of what they are wrong by.

A product of rounded factors x̂ = x − δx, ŷ = y − δy differs from ⟨x, y⟩ by ⟨δx, y⟩ + ⟨x̂, δy⟩; so no score of x is wrong by
more than |δx| max|y| + |x̂| max|δy|, and by what is lost in the sums. The search (:mod:`dynot_lite.couplings.search`) uses the
bound to tell the assignments that rounding cannot have changed.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["PRECISIONS", "Rounded", "matmul"]

PRECISIONS = ("float32", "tf32", "bfloat16")
CUT = -(2**13)  # keeps of float32 the ten bits of TF32's mantissa
SUM = 2.0**-22  # per term of a sum, twice over: for tensor cores, which cut off, and for the sum in float32 compared with it


def matmul(device: torch.device, *, precision: str = "float32") -> contextlib.AbstractContextManager:
    """Products of float32 on a GPU in float32, or in TF32 if asked, whatever the program around has allowed for its networks.

    Mixed precision does not reach the search anyway: torch.autocast leaves alone what is written to a given tensor.
    """
    return _setting(precision == "tf32") if device.type == "cuda" else contextlib.nullcontext()


@contextlib.contextmanager
def _setting(tf32: bool) -> Iterator[None]:
    settings = torch.backends.cuda.matmul
    # Of the two names that torch has for this only the newer one can be read and put back in every state.
    newer = hasattr(settings, "fp32_precision")
    name, wanted = ("fp32_precision", "tf32" if tf32 else "ieee") if newer else ("allow_tf32", tf32)
    before = getattr(settings, name)
    setattr(settings, name, wanted)
    try:
        yield
    finally:
        setattr(settings, name, before)


class Rounded:
    """Atoms (K, d) as products of the given precision see them; a CPU multiplies the same numbers in float32.

    TF32 rounds within the product and needs no memory of its own; bfloat16 keeps a copy of half the size of the atoms.
    """

    def __init__(self, atoms: Tensor, precision: str):
        if precision == "bfloat16" and atoms.device.type == "cuda" and not torch.cuda.is_bf16_supported():
            raise ValueError('precision "bfloat16" needs a GPU that has it: choose "tf32" or "float32"')
        self.precision = precision
        self._points = atoms if precision == "tf32" and atoms.device.type == "cuda" else self._round(atoms)
        parts = [(y.norm(dim=1).amax(), self._lost(y).amax()) for y in atoms.split(2**16)]
        self._longest, self._lost_at_most = (torch.stack(column).amax() for column in zip(*parts, strict=True))

    def _round(self, x: Tensor) -> Tensor:
        return x.bfloat16() if self.precision == "bfloat16" else (x.view(torch.int32) & CUT).view(torch.float32)

    def _lost(self, x: Tensor) -> Tensor:
        """|δx|; for TF32 as if the bits were cut off, which is no less than what is lost where a GPU rounds."""
        return (x - self._round(x)).norm(dim=1)

    def noise(self, x: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Noise (n, d) as the products take it, and for each the bound of the error of all its scores, shape (n,)."""
        rounded, length, lost = self._round(x), x.norm(dim=1), self._lost(x)
        sums = SUM * (x.shape[1] + 2) * ((length + lost) * (self._longest + self._lost_at_most) + offsets.abs().amax())
        return rounded, lost * self._longest + (length + lost) * self._lost_at_most + sums

    def scores(self, x: Tensor, columns: slice, offsets: Tensor, out: Tensor) -> Tensor:
        """The scores of noise that :meth:`noise` gave and some atoms, in float32, written to ``out``."""
        y = self._points[columns]
        if self.precision == "tf32":
            with matmul(x.device, precision="tf32"):
                return torch.addmm(offsets[columns], x, y.T, out=out)
        with matmul(x.device):
            if x.device.type == "cuda":
                torch.mm(x, y.T, out_dtype=torch.float32, out=out)
            else:  # products of two numbers of bfloat16 are numbers of float32
                torch.mm(x.float(), y.T.float(), out=out)
        return out.add_(offsets[columns])
