"""Data of mean 0 and variance 1 by one shift and one scale, which a model carries along."""

import torch
from torch import Tensor, nn

from dynot_lite._base import checks as check
from dynot_lite._base.differentiation import refuse_graph

__all__ = ["Standardize"]


class Standardize(nn.Module):
    """x ↦ (x − mean)/scale with one number each for all coordinates, so that distances keep their proportions.

    An optimal coupling of noise and standardised data depends on the scale; one scale for all of them is what changes its
    geometry least. Both numbers are buffers: ``state_dict`` of a model that has this module as an attribute saves them, and
    ``.to(device)`` moves them.

    Args:
        mean, scale: two numbers, the scale positive; usually those of :meth:`fit`, or of a state that is loaded.

    >>> levels = torch.tensor([[0.0, 255.0], [255.0, 0.0]])
    >>> standardize = Standardize.fit(levels)
    >>> standardize(levels), standardize.inverse(torch.tensor([1.0]))
    (tensor([[-1.,  1.],
            [ 1., -1.]]), tensor([255.]))
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, *, mean: float | Tensor = 0.0, scale: float | Tensor = 1.0):
        super().__init__()
        for name, value, checked in (("mean", mean, check.number), ("scale", scale, check.positive)):
            kind = value.dtype if isinstance(value, Tensor) and value.is_floating_point() else torch.get_default_dtype()
            place = value.device if isinstance(value, Tensor) else None
            self.register_buffer(name, torch.tensor(checked(value, name), dtype=kind, device=place))  # type: ignore[arg-type]

    @classmethod
    def fit(cls, x) -> "Standardize":
        """Of data of any shape: the mean of all their entries, and their standard deviation around it.

        Raises:
            ValueError: values that are not finite, or all equal; data that require a gradient, which would be cut off.
        """
        refuse_graph(x, "x")
        x = check.as_tensor(x, "x")
        if not x.numel() or x.min() == x.max():
            raise ValueError("x must hold numbers that are not all equal")
        scale, mean = torch.std_mean(x, correction=0)
        if not (0 < scale < torch.inf):
            raise ValueError("x must be of a size whose squares are floating-point numbers")
        return cls(mean=mean, scale=scale)

    def forward(self, x) -> Tensor:
        """(x − mean)/scale, in the shape and floating-point dtype of x."""
        return (check.as_tensor(x, "x") - self.mean) / self.scale

    def inverse(self, z) -> Tensor:
        """mean + scale z: the way back, for what a model has drawn."""
        return self.mean + self.scale * check.as_tensor(z, "z")

    def extra_repr(self) -> str:
        return f"mean={self.mean.item():.6g}, scale={self.scale.item():.6g}"
