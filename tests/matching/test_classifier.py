"""The classifier that judges images."""

import pytest
import torch
from instances import generator

from dynot_lite.matching.classifier import Classifier, fit


def bars(n, seed, side=12):
    """Pictures with a bright bar that lies (0), stands (1) or is not there (2), in noise."""
    gen = generator(seed)
    images, labels = 0.3 * torch.randn(n, 1, side, side, generator=gen), torch.randint(3, (n,), generator=gen)
    place = torch.randint(side, (n,), generator=gen)
    for image, label, k in zip(images, labels, place, strict=True):
        if label < 2:
            (image[0] if label == 0 else image[0].T)[k] += 1.5
    return images, labels


def test_it_learns_what_can_be_seen_and_starts_by_the_generator():
    images, labels = bars(600, 1)
    options = dict(steps=120, batch=64)
    trained = fit(images, labels, generator=generator(3), **options)
    test_images, test_labels = bars(300, 2)
    with torch.no_grad():
        right = (trained.network(test_images).argmax(1) == test_labels).double().mean()
        features = trained.network.features(test_images)
    assert right > 0.9
    assert features.shape == (300, 64) and features.min() == 0
    again = fit(images, labels, generator=generator(3), **options)
    assert torch.equal(trained.losses, again.losses)


def test_images_of_any_size_and_colour():
    network = Classifier(3, classes=2, generator=generator())
    assert network(torch.zeros(2, 3, 9, 33)).shape == (2, 2)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(4, 9), torch.zeros(4, dtype=torch.long), r"images must have shape \(N, channels, h, w\)"),
        (torch.zeros(4, 1, 9, 9), torch.zeros(4), "labels must be integers"),
        (torch.zeros(4, 1, 9, 9), torch.tensor([0, 1, -1, 0]), "labels must be integers"),
        (torch.zeros(4, 1, 9, 9), torch.tensor([0, 1]), "labels must have one row for each of the 4"),
        (torch.full((4, 1, 9, 9), torch.nan), torch.zeros(4, dtype=torch.long), "images must be finite"),
    ],
)
def test_what_fit_refuses(images, labels, message):
    with pytest.raises(ValueError, match=message):
        fit(images, labels, steps=1)


def test_features_refuse_other_channels():
    with pytest.raises(ValueError, match=r"images must have shape \(n, 1, h, w\)"):
        Classifier(1, classes=2, generator=generator()).features(torch.zeros(2, 3, 9, 9))
