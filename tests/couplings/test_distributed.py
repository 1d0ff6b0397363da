"""Two processes under torchrun: the potentials of one process, a clear failure when one dies, a restart from the checkpoint."""

import contextlib
import json
import subprocess
import time

import numpy as np
import psutil
import pytest
import torch
import torchrun
from instances import generator

from dynot_lite._base import checkpoints
from dynot_lite.couplings import distributed
from dynot_lite.couplings.semidiscrete import SemidiscreteCoupling

pytestmark = torchrun.needed


def started(folder, *options):
    """Two processes on a free port of this machine."""
    command = torchrun.command("-m", "dynot_lite.couplings.distributed", "points.npz", "state.pt", "--timeout", "60", *options)
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(command, cwd=folder, env=torchrun.environment(), **pipes)


def workers(launcher):
    found = []
    for child in psutil.Process(launcher.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found += [child] if "dynot_lite.couplings.distributed" in child.cmdline() else []
    return found


def wait_for(condition, launcher, seconds=180):
    end = time.monotonic() + seconds
    while not condition():
        assert launcher.poll() is None, launcher.communicate()[1]
        assert time.monotonic() < end, "the processes did not get going"
        time.sleep(0.02)


def test_two_processes_one_killed(tmp_path):
    gen = generator()
    points = torch.randn(400, 6, generator=gen) * torch.linspace(0.5, 1.5, 6)
    b = 0.5 + torch.rand(400, generator=gen, dtype=torch.float64)
    b = b / b.sum()
    np.savez(tmp_path / "points.npz", points=points.numpy(), weights=b.numpy())
    checkpoint = tmp_path / "state.pt"

    # A tolerance out of reach, so that it runs until the second process is killed, after a few iterations.
    launcher = started(tmp_path, "--tol", "1e-6", "--max-iterations", "1e7")
    try:
        wait_for(checkpoint.exists, launcher)
        victims = workers(launcher)
        assert len(victims) == 2
        victims[-1].kill()
        _, errors = launcher.communicate(timeout=180)
    finally:
        for process in [*workers(launcher), launcher] if launcher.poll() is None else []:
            process.kill()
    assert launcher.returncode != 0
    assert "SIGKILL" in errors and "FAILED" in errors
    state = checkpoints.read(checkpoint)
    reached = state["noises"] / 400
    assert reached >= 1

    # The checkpoint goes on where the run ended, to a result that agrees with one process up to the sampling error.
    limit = reached + 150
    launcher = started(tmp_path, "--tol", "0.02", "--max-iterations", str(limit))
    output, errors = launcher.communicate(timeout=300)
    assert launcher.returncode == 0, errors
    result = json.loads(output)
    assert "resumed" in errors and result["converged"] and reached < result["iterations"] <= limit + 5
    together = SemidiscreteCoupling(points, weights=b)
    together.load_state_dict(checkpoints.read(checkpoint))
    assert together.iterations == pytest.approx(result["iterations"])
    alone = SemidiscreteCoupling(points, weights=b)
    fit = alone.fit(tol=0.02, generator=generator(1)).require()
    assert together.chi2(50_000, generator=generator(2)).value < 0.02
    assert abs(result["dual_value"] - fit.dual_value) < 5 * (fit.dual_std + result["dual_std"])
    difference = (together.potentials - alone.potentials).square().mean().sqrt()
    # Each has the error of about √(N/n) mean gaps: a few percent of the spread of the potentials.
    assert difference < 0.1 * alone.potentials.std()


def test_it_wants_torchrun(capsys, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(SystemExit):
        distributed.main(["points.npy", "state.pt"])
    assert "torchrun must start this" in capsys.readouterr().err


def test_array_files(tmp_path):
    images = np.random.default_rng(0).random((5, 4, 3))
    np.save(tmp_path / "images.npy", images)
    points, weights = distributed.load_points(tmp_path / "images.npy", "cpu")
    assert points.shape == (5, 4, 3) and points.dtype == torch.float32 and weights is None
    np.savez(tmp_path / "other.npz", data=images)
    np.save(tmp_path / "line.npy", images[:, 0, 0])
    for name in ("other.npz", "line.npy"):
        with pytest.raises(ValueError, match="points"):
            distributed.load_points(tmp_path / name, "cpu")
