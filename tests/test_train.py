"""The command ``train``: images in, a model, pictures and a table out; goes on after a kill; several processes; bad input."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torchrun
from instances import generator
from PIL import Image

from dynot_lite import cli, plots, train
from dynot_lite._base import checkpoints
from dynot_lite.companion.processes import holding
from dynot_lite.couplings.semidiscrete import SemidiscreteCoupling
from dynot_lite.metrics import energy_distance

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--width", "8", "--batch", "16", "--tol", "0.3"]


def pictures(n=60, *, side=8, channels=1):
    """Dark and bright squares on grey, which are the two classes, with a little noise."""
    labels = torch.arange(n) % 2
    images = torch.full((n, channels, side, side), 0.5)
    images[:, :, 2:6, 2:6] = torch.where(labels == 0, 0.1, 0.9)[:, None, None, None]
    images += 0.02 * torch.randn(images.shape, generator=generator())
    return images.clamp(0, 1), labels


@pytest.fixture
def data(tmp_path):
    images, labels = pictures()
    path = tmp_path / "data.npz"
    np.savez(path, images=(255 * images[:, 0]).round().to(torch.uint8).numpy(), labels=labels.numpy())
    return path


@pytest.fixture
def plain(tmp_path):
    """The same without labels: compared by their pixels, without a judge."""
    path = tmp_path / "data.npy"
    np.save(path, pictures()[0].numpy())
    return path


@pytest.fixture
def quick(monkeypatch):
    """A judge that is trained in a moment."""
    whole = train.classifier.fit
    monkeypatch.setattr(train.classifier, "fit", lambda *data, **options: whole(*data, **options, steps=20))


def run(*arguments):
    return cli.main(["train", *map(str, arguments)])


def table(folder):
    with open(folder / "table.csv", encoding="utf-8", newline="") as stream:
        (_, what), *rows = csv.reader(stream)
    return what, {name: float(value) for name, value in rows}


@pytest.mark.parametrize("coupling", train.COUPLINGS)
@pytest.mark.parametrize("by_class", [False, True])
def test_a_run_leaves_a_model_pictures_and_a_table(tmp_path, data, quick, capsys, coupling, by_class):
    out = tmp_path / "run"
    options = ["--coupling", coupling, "--steps", 10, *SMALL, *["--by-class"] * by_class]
    assert run(data, "--out", out, *options) == 0
    said = capsys.readouterr().out
    assert "54 images of 1 × 8 × 8 to train on, 6 held out" in said and "training: 10 steps" in said
    assert ("coupling: the upper bound of chi2" in said) == (coupling == "semidiscrete")
    what, distances = table(out)
    assert "Fréchet" in what and list(distances) == ["1", "2", "4", "8", "32", "images"]
    assert all(f"{value:.4g}" in said for value in list(distances.values())[:-1])
    with Image.open(out / "samples.png") as picture:
        assert picture.size == (2 * (10 * 9 - 1), 2 * (5 * 9 - 1)) and picture.mode == "L"
    with Image.open(out / "losses.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5  # something is drawn
    assert len(list((out / "samples").iterdir())) >= 2

    flow = train.load(out / "model.pt")
    labels = torch.tensor([0, 1, -1]) if by_class else None
    found = [flow.sample(3, steps=2, labels=labels, generator=generator()) for _ in range(2)]
    assert found[0].shape == (3, 1, 8, 8) and torch.equal(*found)
    assert found[0].dtype == torch.float32 and found[0].min() >= 0 and found[0].max() <= 1
    assert not any(parameter.requires_grad for parameter in flow.parameters()) and not flow.training
    if not by_class:
        with pytest.raises(ValueError, match="labels"):
            flow.sample(3, labels=[0, 1, 1])


def test_a_model_has_learnt_its_images_in_their_scale_and_the_table_is_of_them(tmp_path):
    images, _ = pictures(200, channels=3)
    np.save(tmp_path / "data.npy", images.movedim(1, 3).numpy())
    out = tmp_path / "run"
    assert run(tmp_path / "data.npy", "--out", out, "--steps", 250, "--learning-rate", "5e-3", *SMALL) == 0
    flow = train.load(out / "model.pt")
    assert flow.shape == (3, 8, 8)
    samples = flow.sample(180, steps=32, generator=torch.Generator().manual_seed(1))
    noise = torch.rand(180, 3, 8, 8, generator=generator())
    fresh = pictures(180, channels=3)[0]
    distance = energy_distance(samples.flatten(1), fresh.flatten(1))
    assert distance < 0.35 * energy_distance(noise.flatten(1), fresh.flatten(1))
    middle = samples[:, :, 3:5, 3:5].mean((1, 2, 3))
    assert samples[:, :, :2].mean() == pytest.approx(0.5, abs=0.05) and 0.3 < (middle > 0.5).double().mean() < 0.7
    for kind, value in ((middle > 0.5, 0.9), (middle < 0.5, 0.1)):
        assert middle[kind].mean() == pytest.approx(value, abs=0.1)
    what, distances = table(out)
    assert what == "energy distance of the pixels"
    assert distances["32"] < distances["1"] and abs(distances["32"] - distance) < 0.2 and distances["images"] < 0.2
    (last,) = sorted((out / "samples").iterdir())[-1:]
    assert last.name == "step_0000250.png"
    with Image.open(last) as picture:
        assert picture.mode == "RGB"


def test_classes_are_drawn_as_they_are_asked_for_with_guidance_too(tmp_path, data, quick):
    out = tmp_path / "run"
    assert run(data, "--out", out, "--by-class", "--steps", 250, "--learning-rate", "5e-3", *SMALL) == 0
    flow = train.load(out / "model.pt")
    labels = (torch.arange(200) >= 120).long()
    for scale in (1.0, 2.0):
        middle = flow.sample(200, steps=8, labels=labels, scale=scale, generator=generator())[:, 0, 3:5, 3:5].mean((1, 2))
        assert middle[labels == 1].mean() - middle[labels == 0].mean() > 0.4


class Stop(Exception):
    pass


def interrupted(monkeypatch, after, *arguments):
    """The command, stopped when it has written its ``after``-th checkpoint."""
    save, count = checkpoints.save, []

    def stopping(state, path):
        save(state, path)
        count.append(path)
        if len(count) == after:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", stopping)
        with pytest.raises(Stop):
            run(*arguments)
    return count


def test_an_interrupted_coupling_goes_on_and_a_finished_one_is_kept(tmp_path, data, quick, monkeypatch, capsys):
    out = tmp_path / "run"
    command = (data, "--out", out, "--by-class", "--steps", 2, *SMALL)
    fits, seeds, fit = [], [], SemidiscreteCoupling.fit

    def watched(self, *noise, **options):
        fits.append(self.iterations)
        seeds.append(options["generator"].initial_seed())
        return fit(self, *noise, **options)

    monkeypatch.setattr(SemidiscreteCoupling, "fit", watched)
    interrupted(monkeypatch, 4, *command)  # run.json, and three iterations
    capsys.readouterr()
    before = checkpoints.read(out / "coupling.pt")
    assert before["report"] == [] and list(before["parts"]) == [0]
    assert run(*command) == 0
    after = checkpoints.read(out / "coupling.pt")
    assert fits[1] == pytest.approx(before["parts"][0]["noises"] / 27, rel=0.3) and fits[0] == fits[2] == 0
    assert seeds[1] != seeds[0]  # no noise twice
    assert list(after["parts"]) == [0, 1] and after["parts"][0]["noises"] > before["parts"][0]["noises"]
    said = capsys.readouterr().out
    assert run(*command) == 0
    assert len(fits) == 3  # not fitted again
    assert capsys.readouterr().out.splitlines()[:4] == said.splitlines()[:4] and len(after["report"]) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_killed_training_goes_on_to_the_same_bits(tmp_path, plain):
    """Killed at a moment that nobody chose, once its first checkpoint is there."""
    options = ["--steps", "100", *SMALL]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-m", "dynot_lite", "train", str(plain), "--out", "killed", *options]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) as killed:
        end = time.monotonic() + 300
        while not (tmp_path / "killed" / "training.pt").exists():
            assert killed.poll() is None and time.monotonic() < end
            time.sleep(0.005)
        killed.send_signal(signal.SIGKILL)
        assert killed.wait(60) == -signal.SIGKILL
    reached = len(checkpoints.read(tmp_path / "killed" / "training.pt")["losses"])
    assert reached < 100 and not (tmp_path / "killed" / "model.pt").exists()
    for out in ("killed", "whole"):
        assert run(plain, "--out", tmp_path / out, *options) == 0
    first, second = (checkpoints.read(tmp_path / out / "model.pt")["state"] for out in ("killed", "whole"))
    assert all(torch.equal(first[name], second[name]) for name in second)
    assert table(tmp_path / "killed") == table(tmp_path / "whole")


def test_more_seconds_go_on_where_fewer_ended(tmp_path, plain):
    out, seconds, steps = tmp_path / "run", 0.2, []
    for _ in range(2):
        assert run(plain, "--out", out, "--seconds", seconds, "--coupling", "independent", *SMALL) == 0
        state = checkpoints.read(out / "training.pt")
        steps.append(len(state["losses"]))
        seconds = state["seconds"] + 1
    assert steps[1] > steps[0] > 0


def refused(capsys, *arguments):
    assert run(*arguments) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Traceback" not in said
    return said


def test_a_folder_of_another_run_or_of_other_files_or_in_use_is_refused(tmp_path, data, quick, capsys):
    out = tmp_path / "run"
    command = (data, "--out", out, "--steps", 2, *SMALL)
    assert run(*command, "--coupling", "independent") == 0
    assert "coupling independent there and semidiscrete here" in refused(capsys, *command)
    images, labels = pictures(70)
    np.savez(data, images=images.numpy(), labels=labels.numpy())
    assert "has another run: images" in refused(capsys, *command, "--coupling", "independent")
    assert "has other files" in refused(capsys, data, "--out", tmp_path, "--steps", 2)
    with holding(tmp_path / "held"):
        assert "is in use by process" in refused(capsys, data, "--out", tmp_path / "held", "--steps", 2)


def folder_of(path, sizes):
    path.mkdir(parents=True)
    for k, size in enumerate(sizes):
        Image.fromarray(np.random.default_rng(k).integers(0, 255, (size, size, 3), dtype=np.uint8)).save(path / f"{k}.png")
    return path


def test_a_folder_of_pictures_of_all_sizes_with_classes_and_a_size(tmp_path, quick, capsys):
    for name in ("cats", "dogs"):
        folder_of(tmp_path / "data" / name, [9, 12, 20] * 5)
    command = (tmp_path / "data", "--out", tmp_path / "run", "--by-class", "--steps", 2, *SMALL)
    assert re.search("of one size.* with --size PIXELS", refused(capsys, *command))
    assert run(*command, "--size", 8) == 0
    assert "27 images of 3 × 8 × 8 to train on, 3 held out" in capsys.readouterr().out


def with_nan(path):
    images = pictures()[0].numpy()
    images[3, 0, 2, 2] = np.nan
    np.save(path / "x.npy", images)
    return path / "x.npy"


def lonely(path):
    images, labels = pictures()
    labels[:] = 0
    labels[7] = 1
    np.savez(path / "x.npz", images=images.numpy(), labels=labels.numpy())
    return path / "x.npz"


def saved(path, array):
    np.save(path / "x.npy", array)
    return path / "x.npy"


BAD = {
    "nothing there": (lambda path: path / "none", [], "there is nothing at"),
    "a folder without images": (lambda path: folder_of(path / "x", []), [], "got none in"),
    "NaN": (with_nan, [], "images must be finite"),
    "few images": (lambda path: folder_of(path / "x", [8] * 5), [], "20 images or more, got 5"),
    "one image again and again": (lambda path: saved(path, np.ones((40, 8, 8)) * 0.5), [], "not all equal"),
    "no labels": (lambda path: saved(path, pictures()[0].numpy()), ["--by-class"], "--by-class needs labels"),
    "a class of one image": (lonely, ["--by-class"], "class"),
    "no image": (lambda path: saved(path, np.ones((40, 8))), [], "images must have shape"),
    "values of another range": (lambda path: saved(path, pictures()[0].numpy() - 0.5), [], r"in [0, 1]"),
    "no tolerance": (lambda path: saved(path, pictures()[0].numpy()), ["--tol", "0"], "tol must be a positive number"),
    "a size for mnist": (lambda path: "mnist", ["--size", "8"], "--size is for DATA in files"),
}


@pytest.mark.parametrize(("make", "options", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_in_a_sentence(tmp_path, capsys, make, options, words):
    assert words in refused(capsys, make(tmp_path), "--out", tmp_path / "run", "--steps", 2, *options)


@pytest.mark.parametrize(
    "options", ["", "x", "x --out y --coupling optimal", "x --out y --batch 0", "x --out y --steps 3 --seconds 3"]
)
def test_wrong_usage_ends_with_2(options):
    with pytest.raises(SystemExit) as stopped:
        run(*options.split())
    assert stopped.value.code == 2


def test_mnist_is_a_word(tmp_path, monkeypatch, quick, capsys):
    images, labels = pictures(40)
    small = train.mnist.Mnist(images, labels, *pictures(30), "Digits.")
    monkeypatch.setattr(train.mnist, "mnist", lambda: small)
    assert run("mnist", "--out", tmp_path / "run", "--steps", 2, *SMALL) == 0
    assert "Digits.\n40 images of 1 × 8 × 8 to train on, 30 held out" in capsys.readouterr().out


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        train.load(tmp_path / "model.pt")
    (tmp_path / "model.pt").write_bytes(b"0123")
    with pytest.raises(ValueError, match="damaged"):
        train.load(tmp_path / "model.pt")
    checkpoints.save({"network": {"channels": 1, "width": 8}, "shape": (1, 8, 8), "state": {}}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="no model of the command train"):
        train.load(tmp_path / "model.pt")


@torchrun.needed
def test_two_processes_of_torchrun_share_the_work(tmp_path, plain):
    command = torchrun.command("-m", "dynot_lite", "train", str(plain), "--out", "run", "--steps", "20", *SMALL)
    options = dict(cwd=tmp_path, env=torchrun.environment(PYTHONPATH=str(ROOT)), capture_output=True, text=True, timeout=300)
    done = subprocess.run(command, **options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("training: 20 steps") == 1  # one of them speaks
    assert train.load(tmp_path / "run" / "model.pt").sample(2).shape == (2, 1, 8, 8)
    assert json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["coupling"] == "semidiscrete"


# ---------------------------------------------------------------------------------------------------------- pictures


def test_images_in_a_grid_keep_their_places_and_colours(tmp_path):
    images = torch.arange(24.0).reshape(2, 3, 1, 4) / 24  # two images of one line, in colours
    grid = plots.image_grid(images, columns=1)
    assert grid.shape == (3, 4, 3) and np.isnan(grid[1]).all()
    assert np.array_equal(grid[0].T, images[0, :, 0].double().numpy()) and grid[2, 1, 2] == pytest.approx(21 / 24)
    grey = plots.image_grid(torch.stack([torch.zeros(2, 3), torch.ones(2, 3), 2 * torch.ones(2, 3)]), columns=2)
    assert grey.shape == (5, 7) and (grey[:2, 4:] == 1).all() and (grey[3:, :3] == 2).all() and np.isnan(grey[3:, 3:]).all()
    assert np.array_equal(plots.image_grid(grey[None, None, :2, :3], columns=1), grey[:2, :3])
    with pytest.raises(ValueError, match="images must have shape"):
        plots.image_grid(torch.zeros(2, 2, 4, 4), columns=1)
    plots.write_images(tmp_path / "x.png", images - 0.5, columns=2, enlarge=3)
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.size == (3 * 9, 3) and picture.getpixel((0, 0)) == (0, 0, 0)
        assert picture.getpixel((26, 2)) == tuple(round(255 * (k / 24 - 0.5)) for k in (15, 19, 23))


def test_losses_are_drawn_as_means_of_as_many_steps():
    figure, ax = plots.plt.subplots()
    plots.against_steps(ax, 1.0 + torch.arange(10), means=4)
    (line,) = ax.lines
    assert line.get_xdata().tolist() == [3, 6, 9] and line.get_ydata().tolist() == [2, 5, 8]  # the tenth step has no company
    assert ax.get_yscale() == "log"
    plots.plt.close(figure)
