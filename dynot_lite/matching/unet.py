"""U-Nets for velocities of images (n, channels, h, w), compact enough to train on a CPU.

An image is cut into patches, pixels to channels, and goes down a ladder of levels of half the side and twice the channels, and up
again; on the way up each level sees what it was on the way down. Every block is told the times and the label, which shift and
scale its channels. At the end a multiple of the image itself is added, by a factor that depends on the times: most of a velocity
from noise is of this kind, and the ladder need not learn it. Images of any height and width will do: they are padded by their
border to whole patches, and cut again.
"""

import math
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from dynot_lite._base import checks as check
from dynot_lite._base import randomness
from dynot_lite.matching.networks import label_rows, label_table, same_times

__all__ = ["MeanUNet", "UNet"]

Layer = TypeVar("Layer", bound=nn.Module)
WAVES = 16  # frequencies of a time, from one radian up


class _Norm(nn.GroupNorm):
    """Group normalisation in eight groups, or fewer, of at least four channels each.

    Torch's own has no derivative in forward mode where the channels of a pixel lie side by side; what is written out
    here has one, and is slower. ``forward_mode``: always take it, since a compiled network cannot ask which one is needed.
    """

    def __init__(self, channels: int, forward_mode: bool):
        super().__init__(next(groups for groups in (8, 4, 2, 1) if groups == 1 or channels % (4 * groups) == 0), channels)
        self.forward_mode = forward_mode

    def forward(self, x: Tensor) -> Tensor:
        if not self.forward_mode and (torch.compiler.is_compiling() or forward_ad.unpack_dual(x).tangent is None):
            return super().forward(x)
        x = x - self._groups(x)
        return torch.addcmul(self.bias[:, None, None], x, self.weight[:, None, None] * (self._groups(x * x) + self.eps).rsqrt())

    def _groups(self, x: Tensor) -> Tensor:
        """The means over groups of channels and all places, (n, channels, 1, 1)."""
        n, channels = x.shape[:2]
        mean = x.mean((2, 3)).view(n, self.num_groups, -1).mean(2, keepdim=True)
        return mean.expand(-1, -1, channels // self.num_groups).reshape(n, channels, 1, 1)


class _Block(nn.Module):
    """x + f(x, e): two 3×3 convolutions, e the embedding of times and label; f = 0 at first."""

    def __init__(self, inputs: int, outputs: int, embedding: int, forward_mode: bool, generator: torch.Generator | None):
        super().__init__()
        convolution = partial(randomness.convolution, generator=generator)
        self.norm1, self.norm2 = (_Norm(channels, forward_mode) for channels in (inputs, outputs))
        self.first = convolution(inputs, outputs, 3, padding=1)
        self.film = randomness.linear(embedding, 2 * outputs, generator=generator)
        self.second = _zero(convolution(outputs, outputs, 3, padding=1))
        self.skip = nn.Identity() if inputs == outputs else convolution(inputs, outputs, 1)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.first(nn.functional.silu(self.norm1(x)))
        scale, shift = self.film(e)[:, :, None, None].chunk(2, 1)
        h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        return self.skip(x) + self.second(nn.functional.silu(h))


class _Attention(nn.Module):
    """x + attention of all places of an image to all, in heads of 32 channels where they divide; the sum is x at first."""

    def __init__(self, channels: int, forward_mode: bool, generator: torch.Generator | None):
        super().__init__()
        self.heads = channels // 32 if channels % 32 == 0 else 1
        self.norm = _Norm(channels, forward_mode)
        self.inputs = randomness.convolution(channels, 3 * channels, 1, generator=generator)
        self.outputs = _zero(randomness.convolution(channels, channels, 1, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        q, k, v = self.inputs(self.norm(x)).reshape(n, 3, self.heads, -1, height * width).unbind(1)
        # Not torch's fused attention, which has no derivative in forward mode: mean flow needs it.
        share = (q.mT @ k / q.shape[2] ** 0.5).softmax(-1)
        return x + self.outputs((v @ share.mT).reshape(n, channels, height, width))


class _Ladder(nn.Module):
    """The network of both, at any number of times."""

    TIMES: int
    FASTEST: float  # radians per unit of time

    def __init__(
        self,
        channels: int,
        *,
        width: int = 32,
        levels: int = 2,
        patch: int = 1,
        attention: bool = False,
        classes: int | None = None,
        conditions: int = 0,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.channels, self.patch = check.count(channels, "channels"), check.count(patch, "patch")
        self.conditions = check.count(conditions, "conditions", least=0)
        self.classes = None if classes is None else check.count(classes, "classes")
        sizes = [check.count(width, "width") * 2**level for level in range(check.count(levels, "levels"))]
        embedding, pixels = 4 * width, self.patch**2
        convolution, linear = (
            partial(randomness.convolution, generator=generator),
            partial(randomness.linear, generator=generator),
        )
        block = partial(_Block, embedding=embedding, forward_mode=self.TIMES == 2, generator=generator)
        self.waves: Tensor
        self.register_buffer("waves", torch.logspace(0, math.log10(self.FASTEST), WAVES), persistent=False)
        self.gain = _zero(linear(2 * WAVES * self.TIMES, channels))
        self.times = linear(2 * WAVES * self.TIMES, embedding)
        self.mix = linear(embedding, embedding)
        if self.classes is not None:
            self.embedding = label_table(self.classes, embedding, generator=generator, like=self.mix.weight)
        self.first = convolution((channels + self.conditions) * pixels, width, 3, padding=1)
        self.before = nn.ModuleList(block(size, size) for size in sizes)
        self.down = nn.ModuleList(convolution(size, 2 * size, 2, stride=2) for size in sizes[:-1])
        self.middle = _Attention(sizes[-1], self.TIMES == 2, generator) if attention else nn.Identity()
        self.up = nn.ModuleList(convolution(2 * size, 4 * size, 1) for size in sizes[:-1])
        self.after = nn.ModuleList(block(2 * size, size) for size in sizes)
        self.last = _zero(convolution(width, channels * pixels, 3, padding=1))
        # Processors, like graphics cards, convolve faster with the channels of a pixel side by side.
        self.to(memory_format=torch.channels_last)  # pyright: ignore

    def _run(self, times: list[Tensor], x: Tensor, conditions: tuple) -> Tensor:
        waves = torch.cat([wave for t in times for wave in self._waves(t)], 1)
        e = self.mix(nn.functional.silu(self.times(waves)))
        linear, (height, width) = self.gain(waves)[:, :, None, None] * x, x.shape[-2:]
        labels, image = self._read(conditions)
        if self.classes is not None:
            e = e + label_rows(self.embedding, labels, x)
        if self.conditions:
            x = torch.cat([x, self._resized(image, x)], 1)
        e = nn.functional.silu(e)
        side = self.patch * 2 ** len(self.down)
        if height % side or width % side:
            x = nn.functional.pad(x, (0, -width % side, 0, -height % side), mode="replicate")
        x = nn.functional.pixel_unshuffle(x, self.patch)
        h = self.first(x.contiguous(memory_format=torch.channels_last))
        seen = []
        for k, block in enumerate(self.before):
            h = block(self.down[k - 1](h) if k else h, e)
            seen.append(h)
        h = self.middle(h)
        for k in reversed(range(len(self.after))):
            h = self.after[k](torch.cat([h, seen[k]], 1), e)
            h = nn.functional.pixel_shuffle(self.up[k - 1](h), 2) if k else h
        h = self.last(nn.functional.silu(h))
        return linear + nn.functional.pixel_shuffle(h, self.patch)[..., :height, :width]

    def _images(self, x) -> Tensor:
        x = x if isinstance(x, Tensor) else check.as_tensor(x, "x")
        if x.ndim != 4 or x.shape[1] != self.channels or 0 in x.shape:
            raise ValueError(f"x must be images of shape (n, {self.channels}, h, w), got {tuple(x.shape)}")
        return x.to(self.last.weight)

    def _waves(self, t: Tensor) -> tuple[Tensor, Tensor]:
        angle = t[:, None] * self.waves
        return angle.cos(), angle.sin()

    def _read(self, conditions: tuple) -> tuple:
        """(labels, image) of the conditions, each None where the network has no such condition."""
        names = ["labels"] * (self.classes is not None) + ["an image"] * bool(self.conditions)
        given = dict(zip(names, conditions, strict=False))
        if any(condition is not None for condition in conditions[len(names) :]) or (self.conditions and len(given) < len(names)):
            wanted = f"the conditions {' and '.join(names)}" if names else "no conditions, neither labels nor an image"
            raise ValueError(f"this network takes {wanted}, got {len(conditions)}: see classes= and conditions=")
        return given.get("labels"), given.get("an image")

    def _resized(self, image, x: Tensor) -> Tensor:
        image = image if isinstance(image, Tensor) else check.as_tensor(image, "the image of the condition", like=x)
        if image.ndim != 4 or image.shape[:2] != (len(x), self.conditions) or not image.is_floating_point():
            wanted = f"({len(x)}, {self.conditions}, h, w)"
            raise ValueError(
                f"the image of the condition must be of real numbers of shape {wanted}, got {image.dtype} {tuple(image.shape)}"
            )
        image = image.to(x)
        if image.shape[2:] == x.shape[2:]:
            return image
        return nn.functional.interpolate(image, x.shape[2:], mode="bilinear", antialias=True)


class UNet(_Ladder):
    """A velocity v(t, x) of images, with an optional class and an optional image as conditions.

    It starts at zero. On a CPU, ``patch=2`` makes a step four times as cheap.

    Args:
        channels: of the image: 1 for grey, 3 for colours.
        width: channels of the finest level; doubled at each coarser one.
        levels: the number of levels, each of half the side of the one before.
        patch: side of the squares of pixels that become the channels of one place at first.
        attention: let all places of the coarsest level attend to each other: memory grows with the square of their number.
        classes: the number of classes K, or None. The label -1 stands for "none", whose field is the unconditional one.
        conditions: channels of an image to be conditioned on (of any size: it is resized to that of x), 0 for none.
        generator: for the initial weights.

    >>> network = UNet(1, width=8, patch=2, classes=10, generator=torch.Generator().manual_seed(0))
    >>> network(0.5, torch.zeros(3, 1, 28, 28), torch.tensor([4, 9, -1])).shape
    torch.Size([3, 1, 28, 28])
    """

    TIMES = 1
    FASTEST = 64.0

    def forward(self, t, x: Tensor, *conditions) -> Tensor:
        """The velocity at images x, shape (n, channels, h, w), at a time or one time per image, (n,).

        Conditions: labels, integers (n,) or None, where the network has classes; then an image (n, conditions, h', w'), where it
        is conditioned on one. Images are taken to the dtype and device of the parameters; whether they are finite is not
        looked at.
        """
        x = self._images(x)
        return self._run([same_times(t, "t", x)], x, conditions)


class MeanUNet(_Ladder):
    """An average velocity u(r, t, x) of images: a :class:`UNet` that is told r and t − r, with its options.

    >>> network = MeanUNet(1, width=8, patch=2, generator=torch.Generator().manual_seed(0))
    >>> network(0.0, 1.0, torch.zeros(3, 1, 28, 28)).shape
    torch.Size([3, 1, 28, 28])
    """

    TIMES = 2
    FASTEST = 8.0  # the loss holds the derivative in time, which faster waves make large

    def forward(self, r, t, x: Tensor, *conditions) -> Tensor:
        """The average velocity over [r, t] from images x at time r, times scalar or (n,); conditions as of :class:`UNet`."""
        x = self._images(x)
        r, t = same_times(r, "r", x), same_times(t, "t", x)
        return self._run([r, t - r], x, conditions)


def _zero(layer: Layer) -> Layer:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
