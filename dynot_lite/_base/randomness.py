"""The one rule for random numbers: draw where the generator lives, in the dtype of the data, then move to the data's device.

So a generator on the CPU serves data on a GPU, with the numbers that it gives for data on the CPU, and the reverse; without a
generator numbers come from torch's own generator of the data's device. ``like`` is any tensor of the data; without it numbers
have torch's default dtype and stay where the generator lives.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dynot_lite._base import checks as check

Generator = torch.Generator | None


def draw(make: Callable[..., Tensor], *arguments, generator: Generator, like: Tensor | None = None, **options) -> Tensor:
    """``make(*arguments, generator=, device=)`` by the rule; ``make`` is one of torch's functions, such as ``torch.randn``."""
    home = _home(generator, like)
    return make(*arguments, generator=generator, device=home, **options).to(home if like is None else like.device)


def normal(*shape: int, generator: Generator, like: Tensor | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """Standard normal numbers."""
    return draw(torch.randn, shape, generator=generator, like=like, dtype=_dtype(dtype, like))


def uniform(*shape: int, generator: Generator, like: Tensor | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """Uniform numbers in [0, 1)."""
    return draw(torch.rand, shape, generator=generator, like=like, dtype=_dtype(dtype, like))


def integers(high: int, *shape: int, generator: Generator, like: Tensor | None = None) -> Tensor:
    """Uniform integers 0, …, high − 1, int64."""
    return draw(torch.randint, high, shape, generator=generator, like=like)


def permutation(n: int, *, generator: Generator, like: Tensor | None = None) -> Tensor:
    """A uniform permutation of 0, …, n − 1."""
    return draw(torch.randperm, n, generator=generator, like=like)


def signs(*shape: int, generator: Generator, like: Tensor | None = None) -> Tensor:
    """Independent signs ±1 in the dtype of ``like``."""
    return 2 * integers(2, *shape, generator=generator, like=like).to(_dtype(None, like)) - 1


def choices(weights: Tensor, n: int, *, generator: Generator) -> Tensor:
    """``n`` independent indices with probabilities in proportion to ``weights``, (k,) -> (n,), or in rows, (m, k) -> (m, n)."""
    home = _home(generator, weights)
    chosen = torch.multinomial(weights.detach().to(home), check.count(n, "n"), replacement=True, generator=generator)
    return chosen.to(weights.device)


def linear(inputs: int, outputs: int, *, generator: Generator) -> nn.Linear:
    """A linear layer whose weights and biases are uniform on ±1/√inputs."""
    return _layer(nn.Linear, inputs, outputs, fan=inputs, generator=generator)


def convolution(inputs: int, outputs: int, side: int, *, generator: Generator, **options) -> nn.Conv2d:
    """A convolution by side × side pixels whose weights and biases are uniform on ±1/√(inputs · side²)."""
    return _layer(nn.Conv2d, inputs, outputs, side, fan=inputs * side**2, generator=generator, **options)


def _layer(kind: Callable, *sizes: int, fan: int, generator: Generator, **options):
    layer = kind(*sizes, device="meta", **options).to_empty(device="cpu")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_((2 * uniform(*parameter.shape, generator=generator, like=parameter) - 1) / fan**0.5)
    return layer


def own(generator: Generator, like: Tensor | None = None) -> torch.Generator:
    """The generator, or a new one with a random seed on the device of ``like``: for what must be saved and continued."""
    home = _home(generator, like)
    if generator is None:
        generator = torch.Generator(home)
        generator.seed()
    return generator


def _home(generator: Generator, like: Tensor | None) -> torch.device:
    if not (generator is None or isinstance(generator, torch.Generator)):
        raise TypeError(f"generator must be a torch.Generator or None, got {generator!r}")
    return generator.device if generator is not None else like.device if like is not None else torch.get_default_device()


def _dtype(dtype: torch.dtype | None, like: Tensor | None) -> torch.dtype:
    return dtype or (torch.get_default_dtype() if like is None else like.dtype)
