"""Data that come in files: of this package, cities of the world and countries over the years; of yours, arrays and images."""

import warnings
import zipfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base.differentiation import refuse_graph

__all__ = ["as_images", "cities", "countries", "load_images", "load_points"]

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")


def cities() -> tuple[Tensor, Tensor, Tensor]:
    """The 33,961 cities of the world with at least 15,000 inhabitants, from GeoNames (CC BY 4.0; see ``data/cities.md``).

    Returns:
        Latitude and longitude in degrees north and east, and population; each float64 of shape (33961,).

    >>> latitude, longitude, population = cities()
    >>> len(latitude), population.max().item()
    (33961, 24874500.0)
    """
    with resources.files("dynot_lite.datasets").joinpath("data/cities.npz").open("rb") as stream, np.load(stream) as columns:
        latitude, longitude, population = (
            torch.from_numpy(columns[name].astype(np.float64)) for name in ("latitude", "longitude", "population")
        )
        return latitude, longitude, population


def countries() -> tuple[list[str], Tensor, Tensor]:
    """202 countries in the years from 1964 to 2013, from Gapminder (CC BY 2.0 as declared; see ``data/countries.md``).

    Fifty snapshots of a law in the plane, for which it is known who is who.

    Returns:
        Names; years, float64 of shape (50,); and children per woman and life expectancy in years, float64 of shape (202, 50, 2).

    >>> names, years, values = countries()
    >>> names[0], years[[0, -1]].tolist(), values[0, 0]
    ('Afghanistan', [1964.0, 2013.0], tensor([ 7.6710, 33.6390], dtype=torch.float64))
    """
    with resources.files("dynot_lite.datasets").joinpath("data/countries.npz").open("rb") as stream, np.load(stream) as columns:
        years, values = (torch.from_numpy(columns[name].astype(np.float64)) for name in ("years", "values"))
        return columns["names"].tobytes().decode("utf-8").split("\n"), years, values


def load_images(path: str | Path, *, size: int | tuple[int, int] | None = None) -> tuple[Tensor, Tensor | None]:
    """Images of a folder or of a file of arrays, and their classes if it has any.

    A folder has the images themselves, taken in the order of their names, or one sub-folder for each class; classes are
    numbered in the order of these names, numbers by their value. Images are in one colour if all of them are; transparent
    places are laid over white, and a photograph is turned as its camera notes. What lies deeper, or is no image, is left out.
    A file is ``.npy``, or ``.npz`` with ``images`` and, if it has them, ``labels``, as :func:`as_images` takes them.

    Args:
        size: (height, width), or one number for both: images are cut to this shape around their middle and then reduced or
            enlarged. None: they must have one size.

    Returns:
        Images, float32, shape (N, C, H, W) with C = 1 or 3 and values in [0, 1]; and labels 0, …, K − 1, int64, shape (N,),
        or None. Memory: 4 NCHW bytes, and for a file what it holds.

    Raises:
        ValueError: images of several sizes, a file that is no image or no array, values that are not finite, a folder without
            images, a class without images, images outside of the folders of classes. OSError: there is no such file.
    """
    path, size = check.path(path, "path"), _height_and_width(size)
    if path.is_dir():
        return _of_folder(path, size)
    if not path.exists():
        raise FileNotFoundError(f"path must be a folder of images or a file of arrays, and there is nothing at {path}")
    stored = _stored(path)
    array, labels = (stored, None) if isinstance(stored, np.ndarray) else _named(stored, path)
    images = as_images(array, size=size)
    return images, None if labels is None else _labels(labels, len(images))


def as_images(images, *, size: int | tuple[int, int] | None = None) -> Tensor:
    """An array of images as networks and couplings take them.

    Args:
        images: shape (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3; where both could be meant, the second axis is
            that of the colours. Integers are levels 0, …, 255, unless none exceeds 1; floating-point numbers lie in [0, 1],
            or are such levels.
        size: as in :func:`load_images`.

    Returns:
        float32, shape (N, C, H, W), values in [0, 1].

    Raises:
        ValueError: another shape, values that are not finite or in neither range; images that require a gradient.

    >>> as_images(torch.full((2, 5, 4, 3), 51, dtype=torch.uint8))[0, :, 0, 0]
    tensor([0.2000, 0.2000, 0.2000])
    """
    refuse_graph(images, "images")
    size = _height_and_width(size)
    x = check.rows(images, None, "images", like=images if isinstance(images, Tensor) else torch.empty(0))
    if x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        x = x.movedim(3, 1)
    elif x.ndim == 3 and x.shape[2] not in (1, 3):  # (H, W, 3) is one image
        x = x[:, None]
    if x.ndim != 4 or x.shape[1] not in (1, 3) or not x.numel():
        shapes = "(N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3"
        raise ValueError(f"images must have shape {shapes}, got {tuple(x.shape)}: use reshape, and [None] for one image")
    x = x if x.is_floating_point() or x.dtype == torch.uint8 else x.long()
    low, high = (float(end) for end in x.aminmax())
    levels = high > 1 and (not x.is_floating_point() or bool((x == x.round()).all()))
    if low < 0 or high > (255 if levels else 1):
        wanted = "values in [0, 1] or levels 0, …, 255"
        raise ValueError(f"images must have {wanted}, got {low:g} to {high:g}: of x in [-1, 1], say, take (x + 1) / 2")
    x = x.float() / 255 if levels else x.float()
    return _cut(x, size).contiguous()


def _height_and_width(size) -> tuple[int, int] | None:
    if size is None:
        return None
    if isinstance(size, (tuple, list)):
        if len(size) != 2:
            raise ValueError(f"size must be a number or a pair (height, width), got {size!r}")
        return check.count(size[0], "size"), check.count(size[1], "size")
    return check.count(size, "size"), size


def _cut(x: Tensor, size: tuple[int, int] | None) -> Tensor:
    """The largest middle part of images in the shape of ``size``, in that size: by a triangular filter as wide as needed."""
    if size is None or tuple(x.shape[2:]) == size:
        return x
    height, width = x.shape[2:]
    h, w = min(height, max(1, round(width * size[0] / size[1]))), min(width, max(1, round(height * size[1] / size[0])))
    top, left = (height - h) // 2, (width - w) // 2
    x = x[:, :, top : top + h, left : left + w]
    return torch.nn.functional.interpolate(x, size, mode="bilinear", antialias=True).clamp(0, 1)


def _of_folder(folder: Path, size: tuple[int, int] | None) -> tuple[Tensor, Tensor | None]:
    here, classes = _images_in(folder), {}
    by_value = lambda place: (0, int(place.name), "") if place.name.isdecimal() else (1, 0, place.name)
    for place in sorted((p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__"))), key=by_value):
        classes[place.name] = _images_in(place)
    inside = [file for files in classes.values() for file in files]
    if not here and not inside:
        kinds = ", ".join(IMAGES)
        raise ValueError(f"path must be a folder with images ({kinds}), or with a folder of them per class, got none in {folder}")
    if here and inside:
        found = f"{here[0].name} beside the folders and {inside[0].parent.name}/{inside[0].name} in one"
        raise ValueError(f"path must have its images in folders of classes, or no such folders, got {found}")
    if inside and not all(classes.values()):
        empty = next(name for name, files in classes.items() if not files)
        raise ValueError(f"path must have images of every class, got none in the folder {empty!r}: fill or remove it")
    images = _read(here or inside, size)
    labels = [k for k, files in enumerate(classes.values()) for _ in files]
    return images, torch.tensor(labels) if inside else None


def _images_in(folder: Path) -> list[Path]:
    files = (file for file in folder.iterdir() if file.suffix.lower() in IMAGES and not file.name.startswith("."))
    return sorted(file for file in files if file.is_file())


def _read(files: list[Path], size: tuple[int, int] | None) -> Tensor:
    """Image files as one tensor; first only their heads are read, to learn whether there are colours."""
    colours = any(_opened(file, _coloured) for file in files)
    images = torch.empty(0)
    for k, file in enumerate(files):
        array = _opened(file, _rgb if colours else _grey)
        image = _cut(torch.from_numpy(array)[None].movedim(3, 1), size)[0]
        if k == 0:
            images = image.new_empty(len(files), *image.shape)
        if image.shape != images.shape[1:]:
            (h, w), (height, width) = images.shape[2:], image.shape[1:]
            sizes = f"{h} × {w} ({files[0].name}) and {height} × {width} ({file.name})"
            raise ValueError(f"path must hold images of one size, got {sizes}: with size=(height, width) they are cut to one")
        images[k] = image
    return images


def _opened(file: Path, read: Callable):
    """``read(image)`` of an image file that is opened for it."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                return read(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"path must hold images that can be read, but {file} cannot: {error}") from error


def _coloured(image) -> bool:
    return not (image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I"))


def _grey(image) -> np.ndarray:
    """(H, W, 1), float32 in [0, 1]."""
    if image.mode.startswith("I"):  # 16 bits
        from PIL import ImageOps

        return np.asarray(ImageOps.exif_transpose(image), dtype=np.float32)[..., None] / 65535
    return _upright(image, "L")[..., None]


def _rgb(image) -> np.ndarray:
    """(H, W, 3), float32 in [0, 1]."""
    return _upright(image, "RGB") if _coloured(image) else _grey(image).repeat(3, -1)


def _upright(image, mode: str) -> np.ndarray:
    """As it is to be looked at: turned, and on white where it is transparent."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return np.asarray(image.convert(mode), dtype=np.float32) / 255


def _stored(path: Path):
    """The array of a ``.npy`` file, or the named ones of an ``.npz`` file."""
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"path must be an array of numbers (.npy, .npz), got {path}: {error}") from error


def _named(stored, path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    with stored:
        name = "images" if "images" in stored.files else stored.files[0] if len(stored.files) == 1 else None
        if name is None:
            found = ", ".join(stored.files) or "nothing"
            raise ValueError(f"path must have an array 'images' (and 'labels', if there are any), got {found} in {path}")
        try:
            return stored[name], stored["labels"] if "labels" in stored.files else None
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"path must be an array of numbers (.npy, .npz), got {path}: {error}") from error


def _labels(labels, n: int) -> Tensor:
    """Classes 0, …, K − 1 of n images, each of them with an image."""
    found = check.rows(labels, n, "labels", like=torch.empty(0))
    if found.ndim != 1 or found.dtype == torch.bool or (found != found.long()).any() or found.min() < 0:
        raise ValueError(f"labels must be {n} integers 0, …, K − 1, one for each image, got {found.dtype} {tuple(found.shape)}")
    found = found.long()
    missing = torch.nonzero(torch.bincount(found) == 0)[:, 0]
    if len(missing):
        how = "number the classes by np.unique(labels, return_inverse=True)[1]"
        raise ValueError(f"labels must be 0, …, K − 1 with images of every class, got none of class {missing[0].item()}: {how}")
    return found


def load_points(path: str | Path, *, size: int = 16) -> Tensor:
    """Points of a file or folder, float32 of shape (n, d), of mean 0, and divided by one number to a mean variance of 1.

    Args:
        path: a ``.npy`` or ``.npz`` file (of the latter the first array) of shape (n, ...); or a folder of images, taken in the
            order of their names, in grey from 0 to 1; or "" for :func:`dynot_lite.datasets.images.digits`, to have some.
        size: images become size × size pixels.

    Raises:
        ValueError: an array of fewer than two axes or rows, values that are not finite numbers or all equal, a folder without
            images. OSError: there is no such file, or it cannot be read.
    """
    size = check.count(size, "size")
    if path == "":
        from dynot_lite.datasets.images import digits

        array = digits()[0].numpy()
    elif (path := check.path(path, "path")).is_dir():
        from PIL import Image

        files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGES)
        if not files:
            raise ValueError(f"path must be a folder with images ({', '.join(IMAGES)}), got none in {path}")
        array = np.stack([np.asarray(Image.open(file).convert("L").resize((size, size))) / 255 for file in files])
    else:
        loaded = _stored(path)
        try:
            array = np.asarray(loaded[loaded.files[0]] if hasattr(loaded, "files") else loaded)
        except (ValueError, IndexError) as error:
            raise ValueError(f"path must be an array of numbers (.npy, .npz), got {path}: {error}") from error
    points = check.as_tensor(array, "path").float()
    if points.ndim < 2 or len(points) < 2 or not points.numel():
        raise ValueError(f"path must hold an array of shape (n, ...) with n ≥ 2, got {tuple(points.shape)}")
    points = points.flatten(1)
    points = points - points.mean(0)
    if not points.std() > 0:
        raise ValueError("path must hold points that are not all equal")
    return points / points.std()
