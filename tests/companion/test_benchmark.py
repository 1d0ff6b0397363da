import os
import sys
import time

import pytest
import torch

from dynot_lite.companion import benchmark
from dynot_lite.companion.benchmark import install_peers, medians, peer, peer_of_jax


def test_medians_order_a_slow_and_a_fast_candidate_on_one_thread():
    threads, seen = torch.get_num_threads(), []

    def slow():
        seen.append(torch.get_num_threads())
        end = time.process_time() + 0.02
        while time.process_time() < end:
            pass

    found = medians({"slow": slow, "fast": lambda: None}, repeats=3)
    assert 0.019 < found["slow"] < 1 and found["fast"] < 0.01
    assert seen == [1] * 4  # one warm-up round
    assert torch.get_num_threads() == threads
    with pytest.raises(ValueError, match="repeats must be"):
        medians({}, repeats=0)


@pytest.fixture
def peers(tmp_path, monkeypatch):
    """An empty folder of peers, and the search path and modules as before afterwards."""
    folder = tmp_path / ".peers"
    monkeypatch.setattr(benchmark, "PEERS", folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield folder
    for name in ("some_peer", "broken_peer", "jax"):
        sys.modules.pop(name, None)


def test_a_peer_is_found_last_and_an_absent_one_is_named_with_what_to_do(peers, capsys):
    assert peer("some_peer") is None
    assert "some_peer is not installed: 'python3 run.py peers'" in capsys.readouterr().out
    peers.mkdir()
    (peers / "some_peer.py").write_text("import torch\nversion = torch.__version__\n")
    (peers / "torch.py").write_text("raise ImportError('a peer replaced a package of ours')\n")
    assert peer("some_peer").version == torch.__version__
    assert sys.path[-1] == str(peers)
    (peers / "broken_peer.py").write_text("import something_that_it_lacks\n")
    with pytest.raises(ModuleNotFoundError, match="something_that_it_lacks"):
        peer("broken_peer")


def test_peers_are_installed_whole_or_not_at_all(peers, tmp_path, monkeypatch):
    def pip(command):
        target = tmp_path / command[command.index("--target") + 1]
        target.mkdir()
        (target / "package.py").write_text("")
        return 0 if "--no-deps" in command and command[-1].endswith("good.txt") else 1

    monkeypatch.setattr(benchmark.subprocess, "call", pip)
    assert install_peers(tmp_path / "bad.txt") == 1 and not peers.exists()
    for _ in range(2):
        assert install_peers(tmp_path / "good.txt") == 0 and (peers / "package.py").exists()


FAKE_JAX = """
import os
from types import SimpleNamespace

config = SimpleNamespace(update=lambda key, value: None)
seen = []

def zeros(n):
    seen.append(len(os.sched_getaffinity(0)))
    return SimpleNamespace(block_until_ready=lambda: None)

numpy = SimpleNamespace(zeros=zeros)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system does not bind processes to processors")
def test_jax_starts_on_one_processor_and_the_process_has_all_of_them_afterwards(peers, capsys):
    assert peer_of_jax("some_peer") is None
    assert "jax is not installed" in capsys.readouterr().out
    peers.mkdir()
    (peers / "jax.py").write_text(FAKE_JAX)
    assert peer_of_jax("some_peer") is None
    assert "some_peer is not installed" in capsys.readouterr().out
    (peers / "some_peer.py").write_text("")
    before = os.sched_getaffinity(0)
    assert peer_of_jax("some_peer").seen == [1]
    assert os.sched_getaffinity(0) == before
