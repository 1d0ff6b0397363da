"""Perceptrons for velocities of points (n, d). Training and sampling take any callable; images: ``unet``."""

import itertools

import torch
from torch import Tensor, nn

from dynot_lite._base import checks as check
from dynot_lite._base import randomness

__all__ = ["MeanVelocityNetwork", "VelocityNetwork"]


class VelocityNetwork(nn.Module):
    """A time-conditioned velocity v(t, x): a perceptron with SELU units on (t, x), with an optional class label.

    Args:
        dim: the dimension d.
        width: units per hidden layer.
        depth: number of hidden layers.
        classes: the number of classes K, or None. The label -1 stands for "none", whose field is the unconditional one.
        generator: for the initial weights, uniform on ±1/√(inputs).

    >>> network = VelocityNetwork(2, classes=10, generator=torch.Generator().manual_seed(0))
    >>> network(0.5, torch.zeros(3, 2), torch.tensor([4, 9, -1])).shape
    torch.Size([3, 2])
    """

    def __init__(
        self, dim: int, *, width: int = 64, depth: int = 3, classes: int | None = None, generator: torch.Generator | None = None
    ):
        super().__init__()
        sizes = [check.count(dim, "dim") + 1, *[check.count(width, "width")] * check.count(depth, "depth")]
        self.hidden = nn.ModuleList(randomness.linear(*pair, generator=generator) for pair in itertools.pairwise(sizes))
        self.last = randomness.linear(width, dim, generator=generator)
        self.dim, self.classes = dim, classes
        if classes is not None:
            self.embedding = label_table(check.count(classes, "classes"), width, generator=generator, like=self.last.weight)

    def forward(self, t, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The velocity at points x, shape (n, d), at a time or one time per point, (n,), for integer labels (n,) if given.

        Points are taken to the dtype and device of the parameters; whether they are finite is not looked at.
        """
        x = _points(x, self.dim, self.last.weight)
        t = same_times(t, "t", x)
        first, *rest = self.hidden
        h = first(torch.cat([t[:, None], x], 1))
        if self.classes is not None:
            h = h + label_rows(self.embedding, labels, x)
        elif labels is not None:
            raise ValueError("labels need a network with classes, got a network without")
        h = nn.functional.selu(h)
        for layer in rest:
            h = nn.functional.selu(layer(h))
        return self.last(h)


class MeanVelocityNetwork(nn.Module):
    """An average velocity u(r, t, x): a :class:`VelocityNetwork` at time r on the points (t − r, x), with its options.

    >>> network = MeanVelocityNetwork(2, generator=torch.Generator().manual_seed(0))
    >>> network(0.0, 1.0, torch.zeros(3, 2)).shape
    torch.Size([3, 2])
    """

    def __init__(self, dim: int, **options):
        super().__init__()
        self.field = VelocityNetwork(check.count(dim, "dim") + 1, **options)

    def forward(self, r, t, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The average velocity over [r, t] from points x at time r, shape (n, d); times scalar or (n,)."""
        x = _points(x, self.field.dim - 1, self.field.last.weight)
        r, t = same_times(r, "r", x), same_times(t, "t", x)
        return self.field(r, torch.cat([(t - r)[:, None], x], 1), labels)[:, 1:]  # the component of t − r has no meaning


def label_table(classes: int, width: int, *, generator: torch.Generator | None, like: Tensor) -> nn.Embedding:
    """A row for each class and one more, for "none": it starts at zero, so that labels are shifts of the unconditional field."""
    rows = randomness.normal(classes, width, generator=generator, like=like)
    return nn.Embedding.from_pretrained(torch.cat([rows, torch.zeros_like(rows[:1])]), freeze=False)


def label_rows(table: nn.Embedding, labels: Tensor | None, x: Tensor) -> Tensor:
    """The rows of integer labels (n,) of points x, refused if there are other labels than -1, …, K − 1; the last row for None."""
    if labels is None:
        return table.weight[-1:]
    classes = table.num_embeddings - 1
    labels = check.rows(labels, len(x), "labels", like=x)
    if labels.shape != x.shape[:1] or labels.is_floating_point():
        raise ValueError(f"labels must be integers of shape ({x.shape[0]},), got {labels.dtype} {tuple(labels.shape)}")
    labels = labels.long()
    # Training on a GPU would wait for this comparison in every step; there the embedding itself stops on other labels.
    if not (table.training and labels.is_cuda) and (labels.min() < -1 or labels.max() >= classes):
        raise ValueError(f"labels must lie in -1..{classes - 1}, got {labels.min()} to {labels.max()}")
    return table(torch.where(labels == -1, classes, labels))


def _points(x, dim: int, weight: Tensor) -> Tensor:
    x = x if isinstance(x, Tensor) else check.as_tensor(x, "x")
    if x.ndim != 2 or x.shape[1] != dim:
        raise ValueError(f"x must have shape (n, {dim}), got {tuple(x.shape)}")
    return x.to(weight)


def same_times(t, name: str, x: Tensor) -> Tensor:
    t = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    if t.shape not in ((), (1,), x.shape[:1]):
        raise ValueError(f"{name} must be a number or of shape ({len(x)},), got shape {tuple(t.shape)}")
    return t.expand(len(x))
