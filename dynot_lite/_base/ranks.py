"""The exchanges between the processes of a ``torch.distributed`` group that work on one problem; none for no group, None.

Every rank of the group must make the same exchanges in the same order: what the first decides alone it tells the others.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, distributed


def count(group) -> int:
    """The number of ranks, 1 for None."""
    return 1 if group is None else distributed.get_world_size(group)


def is_first(group) -> bool:
    """Whether this is the first rank, which writes and shows for all."""
    return group is None or distributed.get_rank(group) == 0


def average_(tensors: Iterable[Tensor], group) -> None:
    """Replace tensors of one dtype by their means over the ranks, in one exchange."""
    tensors = list(tensors)
    if group is None or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    distributed.all_reduce(flat, group=group)
    parts = (flat / count(group)).split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view(tensor.shape))


def total(tensor: Tensor, group) -> Tensor:
    """The sum over the ranks, in place."""
    if group is not None:
        distributed.all_reduce(tensor, group=group)
    return tensor


def spread_(tensors: Iterable[Tensor], group) -> None:
    """Replace tensors by those of the first rank."""
    if group is not None:
        for tensor in tensors:
            whole = tensor.contiguous()
            distributed.broadcast(whole, distributed.get_global_rank(group, 0), group=group)
            tensor.copy_(whole)


def told(make: Callable, group):
    """What ``make`` returns to the first rank, or the ValueError it raises there, to all ranks."""
    if group is None:
        return make()
    box: list = [None]
    if is_first(group):
        try:
            box = [make()]
        except ValueError as error:
            box = [error]
    distributed.broadcast_object_list(box, distributed.get_global_rank(group, 0), group=group)
    if isinstance(box[0], ValueError):
        raise box[0]
    return box[0]


def gathered(value, group) -> list:
    """The values of all ranks, in their order, to all ranks."""
    if group is None:
        return [value]
    found: list = [None] * count(group)
    distributed.all_gather_object(found, value, group=group)
    return found
