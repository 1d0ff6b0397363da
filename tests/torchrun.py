"""Two processes of torchrun on the processor of this machine."""

import os
import sys

import pytest
import torch

needed = pytest.mark.skipif(
    not torch.distributed.is_available() or sys.platform == "win32", reason="torch.distributed with gloo is needed"
)


def command(*arguments: str) -> list[str]:
    """Two processes on a free port, with the arguments of ``torch.distributed.run``."""
    here = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2"]
    return [sys.executable, "-m", "torch.distributed.run", *here, *arguments]


def environment(**more: str) -> dict[str, str]:
    """One thread each and no GPU."""
    # Gloo looks the machine's name up to find its own address, which fails or takes long where there is no such entry.
    interface = "lo0" if sys.platform == "darwin" else "lo"
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": interface, **more}
