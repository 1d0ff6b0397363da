"""Images of folders and arrays: shapes, levels and colours as they are meant, classes by name, and a sentence for what is not."""

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from dynot_lite.datasets.files import as_images, load_images

RANDOM = np.random.default_rng(0)
LEVELS = RANDOM.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)  # no two of its sizes are equal


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path, **options)


# --- arrays ---


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x,
        lambda x: x.transpose(0, 3, 1, 2),
        lambda x: x / 255,
        lambda x: (x / 255).astype(np.float32).transpose(0, 3, 1, 2),
        lambda x: x.astype(np.float64),
        lambda x: x.astype(np.int64),
        lambda x: x.astype(">u2"),
        lambda x: torch.from_numpy(x),
        lambda x: torch.from_numpy(x).int().movedim(3, 1),
        lambda x: x.tolist(),
        lambda x: (x / 255).tolist(),
        lambda x: np.asfortranarray(x),
    ],
)
def test_levels_and_numbers_with_colours_last_or_second_are_the_same_images(make):
    found = as_images(make(LEVELS))
    assert found.shape == (6, 3, 5, 4) and found.dtype == torch.float32 and found.is_contiguous()
    assert np.allclose(found.numpy(), LEVELS.transpose(0, 3, 1, 2) / 255, rtol=0, atol=1e-7)


def test_images_of_one_colour():
    grey = LEVELS[..., 0]
    for array in (grey, grey[..., None], grey[:, None], grey / 255):
        found = as_images(array)
        assert found.shape == (6, 1, 5, 4) and np.allclose(found[:, 0], grey / 255, atol=1e-7)
    assert as_images(LEVELS[:1]).shape == (1, 3, 5, 4)


def test_black_and_white_is_not_divided_by_255():
    ink = np.eye(4)[None] > 0
    for kind in (bool, np.uint8, np.int64, np.float64):
        assert as_images(ink.astype(kind)).max() == 1
    assert as_images(np.zeros((2, 3, 5), dtype=np.uint8)).max() == 0  # a black image is black


def test_the_size_is_cut_from_the_middle_and_then_reduced_without_aliasing():
    stripes = np.zeros((1, 8, 12), dtype=np.uint8)
    stripes[:, :, ::2] = 255
    stripes[:, :, :2] = stripes[:, :, -2:] = 77  # what the cut to a square takes off
    found = as_images(stripes, size=4)
    assert found.shape == (1, 1, 4, 4) and (found - 0.5).abs().max() < 0.26  # every other pixel would be all white
    assert found.mean().item() == pytest.approx(0.5, abs=0.01)
    assert as_images(stripes, size=8)[0, 0, 0].tolist() == [1, 0, 1, 0, 1, 0, 1, 0]
    assert as_images(stripes, size=(8, 12)).equal(as_images(stripes))
    wide, tall = as_images(stripes, size=(2, 12)), as_images(stripes.swapaxes(1, 2), size=(12, 2))
    assert wide.shape == (1, 1, 2, 12) and torch.equal(wide, tall.mT)
    assert as_images(LEVELS, size=(9, 7)).shape == (6, 3, 9, 7)  # larger, too
    assert as_images(np.ones((1, 100, 2)) > 0, size=(1, 500)).shape == (1, 1, 1, 500)  # a rest of no pixel becomes one


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((5, 4, 3)), r"images must have shape .*got \(5, 4, 3\)"),  # one image in colours, not five of them
        (np.zeros((5, 4)), "images must have shape"),
        (np.zeros((2, 5, 4, 4)), "with C = 1 or 3"),
        (np.zeros((0, 5, 4)), "images must have shape"),
        (np.full((2, 5, 4), np.nan), "images must be finite"),
        (np.full((2, 5, 4), -0.5), r"got -0.5 to -0.5: of x in \[-1, 1\], say, take \(x \+ 1\) / 2"),
        (np.full((2, 5, 4), 1.5), "images must have values in"),
        (np.full((2, 5, 4), 256), "images must have values in"),
        (np.full((2, 5, 4), -1, dtype=np.int8), "images must have values in"),
        (np.full((2, 5, 4), "a"), "images must be an array of numbers"),
        ([np.zeros((2, 3)), np.zeros((3, 2))], "images must be an array of numbers"),
        (torch.zeros(2, 5, 4, requires_grad=True), "images must not require a gradient"),
    ],
)
def test_arrays_that_are_no_images(array, words):
    with pytest.raises(ValueError, match=words):
        as_images(array)


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "3", (3,), (0, 3), (3, 3, 3), (3.0, 3)])
def test_bad_sizes(size):
    with pytest.raises(ValueError, match="size must be"):
        as_images(LEVELS, size=size)


# --- files of arrays ---


def test_files_with_and_without_labels(tmp_path):
    np.save(tmp_path / "one.npy", LEVELS)
    np.savez(tmp_path / "only.npz", whatever=LEVELS)
    np.savez(
        tmp_path / "both.npz", images=LEVELS / 255, labels=np.array([0, 2, 1, 0, 1, 2], dtype=np.uint8), test_images=LEVELS[:2]
    )
    for name in ("one.npy", "only.npz", "both.npz"):
        images, labels = load_images(str(tmp_path / name))
        assert torch.allclose(images, as_images(LEVELS), atol=1e-7)
        assert (labels is None) == (name != "both.npz")
    assert labels.dtype == torch.int64 and labels.tolist() == [0, 2, 1, 0, 1, 2]
    assert load_images(tmp_path / "one.npy", size=3)[0].shape == (6, 3, 3, 3)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 1, 0, 1, 0], "labels must have one row for each of the 6 points"),
        ([0, 1, 3, 1, 0, 3], "got none of class 2: number the classes by np.unique"),
        ([1, 2, 1, 2, 1, 2], "got none of class 0"),
        ([0, 1, 0, -1, 0, 1], "labels must be 6 integers"),
        ([0, 0.5, 1, 1, 0, 0], "labels must be 6 integers"),
        ([0, np.nan, 1, 1, 0, 0], "labels must be finite"),
        (np.eye(6), "labels must be 6 integers"),
        (["a", "b", "a", "b", "a", "b"], "labels must be an array of numbers"),
    ],
)
def test_labels_that_are_none(labels, words, tmp_path):
    np.savez(tmp_path / "both.npz", images=LEVELS, labels=np.asarray(labels))
    with pytest.raises(ValueError, match=words):
        load_images(tmp_path / "both.npz")


def test_files_without_images(tmp_path):
    np.savez(tmp_path / "two.npz", x=LEVELS, y=LEVELS)
    np.savez(tmp_path / "none.npz")
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "empty.npy").touch()
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    whole = (tmp_path / "two.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    save(tmp_path / "one.png", LEVELS[0])
    for name, words in {
        "two.npz": "path must have an array 'images' .*got x, y in",
        "none.npz": "path must have an array 'images' .*got nothing in",
        **dict.fromkeys(("text.npy", "empty.npy", "objects.npy", "half.npz", "one.png"), "path must be an array of numbers"),
    }.items():
        with pytest.raises(ValueError, match=words):
            load_images(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="path must be a folder of images or a file of arrays, and there is nothing at"):
        load_images(tmp_path / "absent")
    with pytest.raises(TypeError, match="path must be a path"):
        load_images(3)


# --- folders ---


def test_a_folder_in_the_order_of_names(tmp_path):
    for k in (2, 0, 1):
        save(tmp_path / f"{k}.PNG", LEVELS[k])
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_text("no image")
    (tmp_path / "thumbnails").mkdir()
    images, labels = load_images(tmp_path)
    assert labels is None and images.dtype == torch.float32 and torch.allclose(images, as_images(LEVELS[:3]))


def test_sub_folders_are_classes_in_the_order_of_names_and_numbers(tmp_path):
    for place, k in (("10/a", 0), ("9/a", 1), ("10/b", 2), ("cat/a", 3), ("Dog/a", 4)):
        save(tmp_path / f"{place}.png", LEVELS[k])
    (tmp_path / ".cache").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    images, labels = load_images(tmp_path)
    assert torch.allclose(images, as_images(LEVELS[[1, 0, 2, 4, 3]])) and labels.tolist() == [0, 1, 1, 2, 3]
    assert labels.dtype == torch.int64


def test_kinds_of_pixels(tmp_path):
    """Grey stays grey unless something has colours; 16 bits, palettes and transparency are what they look like."""
    grey = np.array([[0, 51], [102, 255]], dtype=np.uint8)
    save(tmp_path / "grey" / "levels.png", grey)
    save(tmp_path / "grey" / "deep.png", grey.astype(np.uint16) * 257)
    save(tmp_path / "grey" / "with alpha.png", np.stack([grey, np.full_like(grey, 255)], -1))
    save(tmp_path / "grey" / "a bit.png", grey > 0)
    images, _ = load_images(tmp_path / "grey")
    assert images.shape == (4, 1, 2, 2)
    ink = torch.tensor([[0.0, 0.2], [0.4, 1.0]])
    assert torch.equal(images[0, 0], (ink > 0).float()) and all(torch.allclose(x[0], ink, atol=1e-6) for x in images[1:])
    colour = np.array([[[255, 0, 51], [0, 0, 0]]], dtype=np.uint8)
    save(tmp_path / "all" / "grey.png", grey[:1])
    Image.fromarray(colour).convert("P").save(tmp_path / "all" / "palette.png")
    save(tmp_path / "all" / "transparent.png", np.concatenate([colour, [[[255], [0]]]], -1).astype(np.uint8))
    grey_, palette, transparent = load_images(tmp_path / "all")[0]
    assert torch.allclose(grey_, torch.tensor([[0.0, 0.2]]).expand(3, 1, 2))
    assert torch.allclose(palette[:, 0], torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.2, 0.0]]), atol=0.1)  # a palette rounds
    assert torch.allclose(transparent[:, 0], torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.2, 1.0]]))


def test_a_photograph_is_turned_as_its_camera_notes(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    stream = io.BytesIO()
    picture = np.zeros((4, 6), dtype=np.uint8)
    picture[:, :3] = 255
    Image.fromarray(picture).save(stream, "PNG", exif=exif)
    (tmp_path / "turned.png").write_bytes(stream.getvalue())
    images, _ = load_images(tmp_path)
    assert images.shape == (1, 1, 6, 4) and images[0, 0, :3].min() == 1 and images[0, 0, 3:].max() == 0


def test_images_of_several_sizes_need_one(tmp_path):
    save(tmp_path / "a.png", LEVELS[0])
    save(tmp_path / "b.png", LEVELS[0].transpose(1, 0, 2))
    with pytest.raises(
        ValueError, match=r"got 5 × 4 \(a.png\) and 4 × 5 \(b.png\): with size=\(height, width\) they are cut to one"
    ):
        load_images(tmp_path)
    images, _ = load_images(tmp_path, size=4)
    assert images.shape == (2, 3, 4, 4)
    assert torch.allclose(images[0], as_images(LEVELS[:1], size=4)[0], atol=1e-6)


def test_folders_that_are_refused(tmp_path):
    (tmp_path / "empty" / "class").mkdir(parents=True)
    for place in ("empty", "empty/class"):
        with pytest.raises(ValueError, match=r"path must be a folder with images \(.png, .*, got none in"):
            load_images(tmp_path / place)
    save(tmp_path / "gap" / "a" / "1.png", LEVELS[0])
    (tmp_path / "gap" / "b").mkdir()
    with pytest.raises(ValueError, match="path must have images of every class, got none in the folder 'b'"):
        load_images(tmp_path / "gap")
    save(tmp_path / "mixed" / "a" / "1.png", LEVELS[0])
    save(tmp_path / "mixed" / "2.png", LEVELS[0])
    with pytest.raises(ValueError, match="got 2.png beside the folders and a/1.png in one"):
        load_images(tmp_path / "mixed")
    save(tmp_path / "damaged" / "1.png", LEVELS[0])
    whole = (tmp_path / "damaged" / "1.png").read_bytes()
    for content in (b"no image", b"", whole[:60]):
        (tmp_path / "damaged" / "2.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"path must hold images that can be read, but .*2.png cannot"):
            load_images(tmp_path / "damaged")


def test_a_large_image_is_no_attack(tmp_path, monkeypatch):
    save(tmp_path / "a.png", LEVELS[0])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"path must hold images that can be read, but .*a.png cannot"):
            load_images(tmp_path)
