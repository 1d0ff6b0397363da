"""Exchanges of one rank with itself, and of none; those of two are tested where they train together (``test_two_ranks``)."""

import sys

import pytest
import torch
from torch import distributed

from dynot_lite._base import ranks


@pytest.fixture(params=("no group", "one rank"))
def group(request, monkeypatch):
    if request.param == "no group":
        yield None
        return
    if not distributed.is_available() or sys.platform == "win32":
        pytest.skip("torch.distributed with gloo is needed")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield distributed.group.WORLD
    distributed.destroy_process_group()


def test_one_rank_keeps_what_it_has(group):
    assert ranks.count(group) == 1 and ranks.is_first(group)
    row, image = torch.arange(3.0), torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    copies = row.clone(), image.clone()
    for exchange in (ranks.average_, ranks.spread_):
        exchange(iter([row, image]), group)
        exchange([], group)
        assert torch.equal(row, copies[0]) and torch.equal(image, copies[1])
    assert torch.equal(ranks.total(row, group), copies[0])
    assert ranks.told(lambda: {"a": row}, group)["a"].tolist() == [0, 1, 2]
    assert ranks.gathered("a", group) == ["a"]

    def refuse():
        raise ValueError("no such file")

    with pytest.raises(ValueError, match="no such file"):
        ranks.told(refuse, group)
