"""What the tables of derivatives in the rooms' documentation are tested with."""

import inspect
import re

import torch
from torch import Tensor
from torch.autograd import gradcheck

F64 = torch.float64


def exact(function, *arguments: Tensor, given: dict | None = None) -> bool:
    """The derivatives of ``function(*arguments)``, by differences in double precision, in every floating-point argument."""
    leaves = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in arguments]
    parts = lambda found: tuple(found) if isinstance(found, (tuple, list)) else found
    return gradcheck(lambda *x: parts(function(*x, **(given or {}))), leaves, atol=1e-6, rtol=1e-5)


def exact_in_parameters(module: torch.nn.Module, function) -> bool:
    """The derivatives of ``function(module)`` in the parameters of the module, which is in double precision."""
    names, values = zip(*module.named_parameters(), strict=True)

    class Called(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module

        def forward(self):
            return function(self.inner)

    called = Called()

    def of_values(*given):
        return torch.func.functional_call(called, {f"inner.{name}": value for name, value in zip(names, given, strict=True)}, ())

    return gradcheck(
        of_values, [value.detach().clone().requires_grad_() for value in values], atol=1e-6, rtol=1e-5, fast_mode=True
    )


def has_graph(found) -> bool:
    """Whether some tensor in a result requires a gradient."""
    if isinstance(found, Tensor):
        return found.requires_grad
    if isinstance(found, (tuple, list)):
        return any(map(has_graph, found))
    return any(map(has_graph, vars(found).values())) if hasattr(found, "__dict__") else False


def rows(room) -> dict[str, str]:
    """The table in the documentation of a room: the first cell of each row, and the rest of it."""
    lines = re.split(r"^=+(?: +=+)+$", room.__doc__, flags=re.M)[2].strip("\n").splitlines()
    return {cells[0]: " | ".join(cells[1:]) for cells in (re.split(r"  +", line) for line in lines)}


def unnamed(room, *modules) -> list[str]:
    """Public functions that the table of a room does not name."""
    said = " ".join(rows(room))
    return [
        name
        for module in modules
        for name in module.__all__
        if callable(getattr(module, name))
        and not (inspect.isclass(getattr(module, name)) and issubclass(getattr(module, name), Exception))
        and not re.search(rf"\b{name}\b", said)
    ]
