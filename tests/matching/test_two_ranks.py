"""Training on two processes under torchrun: the steps of one process with both batches, and one checkpoint for both."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import two_ranks
from two_ranks import at_its_time, both, generator, network

from dynot_lite.matching.training import fit

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or sys.platform == "win32", reason="torch.distributed with gloo is needed"
)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What the two processes found, rank by rank."""
    folder = tmp_path_factory.mktemp("ranks")
    interface = "lo0" if sys.platform == "darwin" else "lo"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command += ["--nproc-per-node", "2", two_ranks.__file__, str(folder)]
    roots = os.pathsep.join((str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": interface}
    run = subprocess.run(command, env=environment | {"PYTHONPATH": roots}, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def same(one, another):
    return all(torch.equal(part, another[name]) for name, part in one.items())


def test_two_ranks_make_the_steps_of_one_process_with_both_batches(ranks):
    parts = [generator(10), generator(11)]
    pairs = lambda n, *, generator=None: both(n, generator=parts)
    alone = fit(network(0), at_its_time, pairs, batch=8, **two_ranks.OPTIONS)
    for rank in ranks:
        torch.testing.assert_close(rank["exact"]["losses"], alone.losses, rtol=1e-7, atol=0)
        for name, part in alone.network.state_dict().items():
            torch.testing.assert_close(rank["exact"]["network"][name], part, rtol=1e-6, atol=1e-8)
    # One rank alone goes elsewhere: the tolerance tells them apart.
    other = fit(network(0), at_its_time, two_ranks.timed, batch=4, generator=generator(10), **two_ranks.OPTIONS)
    assert (other.losses - alone.losses).abs().max() > 1e-2


def test_a_killed_run_of_two_ranks_ends_with_the_same_bits(ranks):
    for rank in ranks:
        assert rank["killed"] == "Killed: "
        for part in ("losses", "generator"):
            assert torch.equal(rank["resumed"][part], rank["whole"][part])
        assert same(rank["resumed"]["network"], rank["whole"]["network"])
    assert same(ranks[0]["whole"]["network"], ranks[1]["whole"]["network"])
    assert torch.equal(ranks[0]["whole"]["losses"], ranks[1]["whole"]["losses"])
    assert not torch.equal(ranks[0]["whole"]["generator"], ranks[1]["whole"]["generator"])


def test_all_ranks_stop_together(ranks):
    """In words: a checkpoint of another run, generators of one state, a loss that one finds infinite; a budget of seconds."""
    for rank in ranks:
        assert "ValueError" in rank["other"] and "is of another run: learning_rate" in rank["other"]
        assert "ValueError: generator must be another one on each rank" in rank["same generator"]
        assert "RuntimeError: the loss is not finite" in rank["infinite"]
        assert len(rank["seconds"]["losses"]) > 2 and torch.equal(rank["seconds"]["losses"], ranks[0]["seconds"]["losses"])
    assert len(ranks[0]["seen"]) == 25 and ranks[0]["seen"][-1] == 30 and ranks[1]["seen"] == []
