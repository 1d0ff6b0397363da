"""The data sets: against what scikit-learn stores, against Pillow's resampling, and by the properties of a sample."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chisquare, kstest
from sklearn.datasets import load_digits, load_sample_images

from dynot_lite.datasets.images import colour_sample, digits, patches, photographs
from dynot_lite.datasets.toy import checkerboard, eight_gaussians, moons, torchcfm_eight_gaussians, torchcfm_moons


@pytest.fixture(scope="module")
def stored():
    """The stored 8-bit images by file name, found by their names and not by their order."""
    bunch = load_sample_images()
    return {name.replace("\\", "/").split("/")[-1]: image for name, image in zip(bunch.filenames, bunch.images, strict=True)}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_photographs_are_the_stored_ones(stored):
    china, flower = photographs()
    for image, name in ((china, "china.jpg"), (flower, "flower.jpg")):
        assert image.dtype == torch.float64 and image.shape == (427, 640, 3)
        assert np.array_equal(np.rint(image.numpy() * 255), stored[name])
        assert image.min() >= 0 and image.max() <= 1


@pytest.mark.parametrize("size", [(100, 150), (61, 213), (427, 64), (1, 1)])
def test_reduction_is_pillows_antialiased_triangle_filter(stored, size):
    for image, name in zip(photographs(size=size), ("china.jpg", "flower.jpg"), strict=True):
        assert image.shape == (*size, 3) and image.dtype == torch.float64
        for channel in range(3):
            plane = Image.fromarray(stored[name][..., channel].astype(np.float32) / 255)
            expected = np.asarray(plane.resize(size[::-1], Image.Resampling.BILINEAR))
            assert np.abs(image[..., channel].numpy() - expected).max() < 2e-6  # Pillow computes in float32


def test_reduction_does_not_alias():
    """A mean over 100 blocks differs from the mean of every 30th pixel, which is what plain interpolation would take."""
    full, reduced = photographs()[0], photographs(size=(14, 21))[0]
    blocks = torch.nn.functional.adaptive_avg_pool2d(full.movedim(-1, 0), (14, 21)).movedim(0, -1)
    picked = full[15::31, 15::31][:14, :21]
    assert (reduced - blocks).square().mean() < 0.3 * (picked - blocks).square().mean()


def test_full_size_changes_nothing():
    for image, same in zip(photographs(), photographs(size=(427, 640)), strict=True):
        assert torch.allclose(image, same, rtol=0, atol=1e-15)


@pytest.mark.parametrize("size", [(0, 10), (10, -1), (428, 10), (10, 641), (10.0, 10), (True, 10), 10, (10,), (1, 2, 3), "ab"])
def test_bad_sizes(size):
    with pytest.raises(ValueError, match="size"):
        photographs(size=size)


def test_sample_of_all_pixels_has_each_once():
    image = torch.arange(5 * 7 * 3, dtype=torch.float64).reshape(5, 7, 3) / 105
    sample = colour_sample(image, 35, generator=seeded(0))
    assert torch.equal(sample[sample[:, 0].argsort()], image.reshape(-1, 3))


@pytest.mark.parametrize("n", [1, 5, 7, 11])
def test_pixels_are_different_and_equally_likely(n):
    """Sizes that do not divide the 12 pixels: the runs have unequal lengths, and only the random cut makes up for it."""
    image = (torch.arange(12, dtype=torch.float64) / 12).reshape(3, 4, 1).expand(3, 4, 3)
    counts = torch.zeros(12)
    generator = seeded(1)
    for _ in range(3000):
        drawn = (colour_sample(image, n, generator=generator)[:, 0] * 12).round().long()
        assert len(drawn.unique()) == n
        counts[drawn] += 1
    expected, deviation = 3000 * n / 12, (3000 * n / 12 * (1 - n / 12)) ** 0.5
    assert (counts - expected).abs().max() < 5 * deviation


def test_one_pixel_of_every_run():
    image = torch.linspace(0, 1, 60, dtype=torch.float64).reshape(6, 10, 1).expand(6, 10, 3)
    drawn = (colour_sample(image, 6, generator=seeded(2))[:, 0] * 59).round().long()
    # Runs of 10 pixels in order around the circle of 60: consecutive draws are 1 to 19 pixels apart.
    steps = (drawn.roll(-1) - drawn) % 60
    assert steps.min() >= 1 and steps.max() <= 19 and steps.sum() == 60


def test_stratified_means_vary_less_than_independent_ones():
    image = photographs(size=(60, 90))[0]
    generator = seeded(5)
    means = torch.stack([colour_sample(image, 200, generator=generator).mean(0) for _ in range(200)])
    truth, independent = image.reshape(-1, 3).mean(0), image.reshape(-1, 3).var(0) / 200
    assert (means.var(0) < 0.5 * independent).all()
    assert ((means.mean(0) - truth).abs() < 5 * (independent / 200).sqrt()).all()


def test_sample_follows_the_generator():
    image = photographs(size=(20, 30))[1]
    first, again, other = (colour_sample(image, 50, generator=seeded(seed)) for seed in (3, 3, 4))
    assert first.shape == (50, 3) and first.dtype == torch.float64
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert colour_sample(image.float(), 2, generator=seeded(0)).dtype == torch.float32


@pytest.mark.parametrize(
    "image",
    [torch.zeros(4, 3), torch.zeros(4, 4, 4), torch.zeros(0, 4, 3), torch.full((2, 2, 3), 1.1), torch.full((2, 2, 3), -0.1),
     torch.full((2, 2, 3), float("nan")), "image"],
)  # fmt: skip
def test_bad_images(image):
    with pytest.raises(ValueError, match="image"):
        colour_sample(image, 1)


@pytest.mark.parametrize("n", [0, -1, 5, 2.0, True])
def test_bad_sample_sizes(n):
    with pytest.raises(ValueError, match="n must"):
        colour_sample(torch.zeros(2, 2, 3), n)


LAWS = (eight_gaussians, torchcfm_eight_gaussians, moons, torchcfm_moons, checkerboard)


@pytest.mark.parametrize("law", LAWS)
def test_laws_follow_the_generator(law):
    state = torch.random.get_rng_state()
    first, again, other = (law(7, generator=seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.shape == (7, 2) and first.dtype == torch.float32
    assert torch.equal(first, again) and not torch.equal(first, other)
    for bad in (0, -1, 2.0):
        with pytest.raises(ValueError, match="n must"):
            law(bad)


@pytest.mark.parametrize(("law", "variance"), [(eight_gaussians, 0.1), (torchcfm_eight_gaussians, math.sqrt(0.1))])
def test_eight_gaussians(law, variance):
    x = law(20000, generator=seeded(0)).double().numpy()
    centres = 5 * np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], 1)
    nearest = ((x[:, None] - centres) ** 2).sum(-1).argmin(1)
    assert chisquare(np.bincount(nearest, minlength=8)).pvalue > 1e-3
    noise = (x - centres[nearest]) / math.sqrt(variance)
    assert kstest(noise[:, 0], "norm").pvalue > 1e-3 and kstest(noise[:, 1], "norm").pvalue > 1e-3
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.03


def test_moons():
    """The characteristic function, against quadrature along the two half circles; independent of the order of the points."""
    x = moons(40000, generator=seeded(0)).double().numpy()
    s = (np.arange(2000) + 0.5) * np.pi / 2000
    circles = 3 * np.stack([np.stack([np.cos(s), np.sin(s)], 1), np.stack([1 - np.cos(s), 0.5 - np.sin(s)], 1)]) - 1
    for wave in ((0.3, 0), (0, 0.3), (0.5, 0.5), (1, -0.7), (0.4, 2), (2.5, 0.2)):
        wave = np.array(wave)
        expected = np.exp(1j * circles @ wave).mean() * np.exp(-0.045 * wave @ wave)
        assert abs(np.exp(1j * x @ wave).mean() - expected) < 4 / 200
        assert abs(np.exp(1j * x[:20000] @ wave).mean() - expected) < 4 / 141


@pytest.mark.parametrize("n", (256, 7, 1))
def test_torchcfm_moons_is_that_librarys_law(n):
    x = torchcfm_moons(n, generator=seeded(0)).double().numpy()
    outer, inner = np.linspace(0, np.pi, n // 2), np.linspace(0, np.pi, n - n // 2)
    circles = np.concatenate([np.stack([np.cos(outer), np.sin(outer)], 1), np.stack([1 - np.cos(inner), 0.5 - np.sin(inner)], 1)])
    noise = (x + 1) / 3 - circles
    np.testing.assert_allclose(noise[:, 0], noise[:, 1], atol=1e-6)  # one number for both coordinates
    assert noise.min() > -1e-6 and noise.max() < 0.2 + 1e-6
    if n == 256:
        assert kstest(noise[:, 0] / 0.2, "uniform").pvalue > 1e-3


def test_checkerboard():
    x = checkerboard(20000, generator=seeded(0)).double().numpy()
    squares = np.floor(x / 2).astype(int)
    assert squares.min() == -2 and squares.max() == 1 and (squares.sum(1) % 2 == 0).all()
    counts = np.bincount((squares[:, 0] + 2) * 4 + squares[:, 1] + 2, minlength=16)
    assert (counts > 0).sum() == 8 and chisquare(counts[counts > 0]).pvalue > 1e-3
    within = x / 2 - squares
    assert kstest(within[:, 0], "uniform").pvalue > 1e-3 and kstest(within[:, 1], "uniform").pvalue > 1e-3


def test_digits_are_the_stored_ones():
    images, labels = digits()
    bunch = load_digits()
    assert images.dtype == torch.float32 and labels.dtype == torch.int64
    assert np.array_equal(images.reshape(-1, 8, 8).numpy() * 16, bunch.images) and np.array_equal(labels.numpy(), bunch.target)
    assert images.min() == 0 and images.max() == 1


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_one_pixel_outside_the_range_of_colours_is_refused(value):
    image = torch.full((4, 5, 3), 0.5)
    image[1, 2, 0] = value
    with pytest.raises(ValueError, match="image"):
        colour_sample(image, 3)


def test_patches_are_windows_of_the_image_without_a_copy():
    image = torch.arange(5 * 4 * 3, dtype=torch.float64).reshape(5, 4, 3)
    found = patches(image, size=2)
    assert found.shape == (4, 3, 3, 2, 2) and found.untyped_storage().data_ptr() == image.untyped_storage().data_ptr()
    for row, column in ((0, 0), (3, 2), (1, 0)):
        assert torch.equal(found[row, column], image[row : row + 2, column : column + 2].movedim(2, 0))
    for wrong, size in ((image, 5), (image[..., 0], 2), (image[..., :0], 2)):
        with pytest.raises(ValueError, match="image must have shape"):
            patches(wrong, size=size)
