"""Samplers of data: what is drawn, from where, and what is refused; densities made of pictures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from dynot_lite.datasets.files import load_points
from dynot_lite.datasets.images import digit_density, digits, luminance, maze, photographs
from dynot_lite.datasets.samplers import clusters, from_colours, from_points, normal


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_points_come_with_their_labels_each_equally_often():
    points, labels = torch.arange(12.0).reshape(6, 2), torch.arange(6)
    x, y = from_points(points, labels)(6000, generator=seeded())
    assert torch.equal(x, points[y]) and (y.bincount(minlength=6) - 1000).abs().max() < 150
    images = torch.rand(5, 1, 4, 4, generator=seeded())
    assert from_points(images)(3, generator=seeded()).shape == (3, 1, 4, 4)
    assert normal(7)(5, generator=seeded()).shape == (5, 7)


def test_colours_are_those_of_pixels_smeared_by_one_level_at_most():
    image = torch.tensor([[[0.0, 0.5, 1.0], [0.2, 0.4, 0.6]]])
    exact = from_colours(image, scale=0.0)(500, generator=seeded())
    assert set(map(tuple, exact.tolist())) == {tuple(pixel) for pixel in image.reshape(-1, 3).tolist()}
    smeared = from_colours(image)(500, generator=seeded())
    away = smeared - exact
    assert away.abs().max() <= 0.5 / 255 + 1e-7 and away.abs().mean() == pytest.approx(0.25 / 255, rel=0.1)
    assert len({tuple(colour) for colour in smeared.tolist()}) == 500


def test_clusters_have_a_decaying_spectrum_and_unit_variance():
    points = clusters(4000, 64, generator=seeded())
    deviations = points.std(0)
    assert points.mean(0).abs().max() < 1e-5 and points.square().mean() == pytest.approx(1, abs=1e-5)
    slope = np.polyfit(np.log(np.arange(1, 65)), np.log(deviations.numpy()), 1)[0]
    assert -0.65 < slope < -0.35
    nearest = torch.cdist(points[:300], points[:300]).fill_diagonal_(math.inf).amin(1)
    shuffled = torch.stack([column[torch.randperm(300, generator=seeded(k))] for k, column in enumerate(points[:300].T)], 1)
    assert nearest.mean() < 0.9 * torch.cdist(shuffled, shuffled).fill_diagonal_(math.inf).amin(1).mean()  # clusters, not noise


def test_a_digit_as_a_density():
    density = digit_density(4, 48)
    assert density.shape == (48, 48) and density.mean().item() == pytest.approx(1) and density.dtype == torch.float64
    assert (density[:6] == 0).all() and (density[:, -6:] == 0).all() and density[6:-6, 6:-6].sum() > 0
    small = torch.nn.functional.avg_pool2d(digit_density(4, 8, margin=0)[None, None], 1)[0, 0]
    image = digits()[0][4].double().reshape(8, 8)
    assert torch.allclose(small, image / image.mean())  # not its transpose


def test_luminance_is_that_of_the_standard():
    image = photographs(size=(30, 40))[1]
    values = luminance(image)
    assert values.shape == (30, 40) and values.mean().item() == pytest.approx(1) and values.min() > 0.047
    # Grey stays in order; green counts most, blue least.
    greys = torch.tensor([[[v, v, v] for v in (0.0, 0.3, 1.0)]], dtype=torch.float64)
    assert luminance(greys)[0].diff().min() > 0
    primaries = luminance(torch.eye(3, dtype=torch.float64)[None])[0] * 1.05 - 0.05
    assert torch.allclose(primaries / primaries.sum(), torch.tensor([0.2126, 0.7152, 0.0722], dtype=torch.float64))
    # The level 188 of 255 has half the light of white.
    half = luminance(torch.tensor([[[188 / 255] * 3, [1.0] * 3]], dtype=torch.float64))[0] * 1.05 - 0.05
    assert (half[0] / half[1]).item() == pytest.approx(0.5, abs=0.005)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: from_points(torch.zeros(0, 2)), "points"),
        (lambda: from_points(torch.full((2, 2), math.nan)), "points"),
        (lambda: from_points(torch.zeros(3, 2), [1, 2]), "labels"),
        (lambda: from_points(torch.zeros(3, 2))(0), "n must"),
        (lambda: normal(0), "dim"),
        (lambda: normal(2)(1.5), "n must"),
        (lambda: from_colours(torch.zeros(4, 4)), "image"),
        (lambda: from_colours(torch.full((2, 2, 3), 200.0)), "image"),
        (lambda: luminance(torch.zeros(4, 4)), "image"),
        (lambda: luminance(torch.zeros(4, 4, 3)), "image must not be black"),
        (lambda: luminance(torch.zeros(0, 4, 3)), "image"),
        (lambda: from_colours(torch.zeros(0, 4, 3)), "image"),
        (lambda: from_colours(torch.zeros(2, 4, 3), scale=-1.0), "scale"),
        (lambda: from_points(torch.zeros(3, 2), ["a", "b", "c"]), "labels"),
        (lambda: from_points(torch.zeros(2, 2), [0.0, math.nan]), "labels"),
        (lambda: digit_density(2000, 32), "index"),
        (lambda: digit_density(0, 8), "n must"),
        (lambda: digit_density(0, 32, margin=2.0), "margin"),
        (lambda: clusters(10, 0), "dim"),
        (lambda: clusters(0, 3), "n must"),
    ],
)
def test_what_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()


# The maze of the first edition, square by square.
DRAWN = """
...#.....
.#.#.###.
.#...#...
.#####.#.
.....#.#.
####.#.#.
.....#.#.
.#####.#.
.......#.
"""


@pytest.mark.parametrize("size", (1, 3, 4))
def test_the_maze_has_two_ways_and_two_heaps_outside_its_walls(size):
    start, goal, walls = maze(size=size)
    assert start.shape == goal.shape == walls.shape == (9 * size, 9 * size) and start.dtype == goal.dtype == torch.float64
    squares = np.array([[c == "#" for c in line] for line in DRAWN.split()])
    assert np.array_equal(walls.numpy(), np.kron(squares, np.ones((size, size))).astype(bool))
    y, x = np.meshgrid(*[(np.arange(9 * size) + 0.5) / (9 * size)] * 2, indexing="ij")
    for density, corner in ((start, 0.06), (goal, 0.94)):
        heap = np.exp(-((x - corner) ** 2 + (y - corner) ** 2) / (2 * 0.04**2)) * (walls.numpy() == 0)
        assert np.allclose(density, heap / heap.mean(), rtol=1e-12) and density.mean().item() == pytest.approx(1)


def ways(free, here, goal, seen=()):
    """The number of ways that visit no square twice."""
    if here == goal:
        return 1
    steps = [(here[0] + a, here[1] + b) for a, b in ((0, 1), (1, 0), (0, -1), (-1, 0))]
    return sum(ways(free, step, goal, (*seen, here)) for step in steps if step in free and step not in seen)


def test_two_ways_lead_through_the_maze():
    walls = maze(size=1)[2]
    free = {(i, j) for i in range(9) for j in range(9) if not walls[i, j]}
    assert ways(free, (0, 0), (8, 8)) == 2


# --- files -------------------------------------------------------------------------------------------------------------------


def test_points_of_files_have_mean_zero_and_one_scale_for_all(tmp_path):
    array = np.random.default_rng(0).normal(size=(50, 2, 3)) * [1.0, 2.0, 5.0] + 7
    np.save(tmp_path / "one.npy", array)
    np.savez(tmp_path / "some.npz", first=array, second=np.zeros(3))
    for name in ("one.npy", "some.npz"):
        points = load_points(tmp_path / name)
        assert (
            points.shape == (50, 6) and points.dtype == torch.float32 and torch.equal(points, load_points(str(tmp_path / name)))
        )
        centred = array.reshape(50, 6) - array.reshape(50, 6).mean(0)
        assert np.allclose(points, centred / np.sqrt((centred**2).mean()), rtol=1e-2, atol=1e-5)
        assert points.mean(0).abs().max() < 1e-6 and points.var().item() == pytest.approx(1, abs=1e-5)
    assert load_points("").shape == (1797, 64)


def test_points_of_a_folder_are_its_images_in_grey_by_name(tmp_path):
    for name, colour in (("b.PNG", (255, 255, 255)), ("a.png", (0, 0, 0)), ("c.jpg", (100, 100, 100))):
        Image.new("RGB", (5, 7), colour).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    points = load_points(tmp_path, size=3)
    assert points.shape == (3, 9)
    greys = np.array([0, 255, 100]) / 255
    ratios = (points[:, 4] - points[0, 4]) / (points[1, 4] - points[0, 4])
    assert np.allclose(ratios, greys, atol=0.01)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros(4), r"path must hold an array of shape \(n, ...\) with n ≥ 2, got \(4,\)"),
        (np.zeros((1, 4)), "with n ≥ 2"),
        (np.zeros((3, 0)), "with n ≥ 2"),
        (np.ones((3, 4)), "not all equal"),
        (np.full((3, 4), np.nan), "path must be finite"),
        (np.array([["a", "b"]] * 2), "path must be an array of numbers"),
        (np.array([{}, []], dtype=object), "path must be an array of numbers"),
    ],
)
def test_files_without_points_are_refused(array, words, tmp_path):
    np.save(tmp_path / "points.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=words):
        load_points(tmp_path / "points.npy")


def test_folders_without_images_and_absent_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="path must be a folder with images"):
        load_points(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_points(tmp_path / "absent.npy")
    (tmp_path / "text.npy").write_text("no array")
    with pytest.raises(ValueError, match="path must be an array of numbers"):
        load_points(tmp_path / "text.npy")
    with pytest.raises(TypeError, match="path must be a path"):
        load_points(3)
