"""A small classifier of images: the judge of generated ones, by the classes that it sees and by its features.

Samples are compared in the features, 64 numbers an image, by :func:`dynot_lite.metrics.frechet_distance` and
:func:`dynot_lite.metrics.coverage`. Values of two trained classifiers do not compare: train one, and keep it.
"""

import torch
from torch import Tensor, nn

from dynot_lite._base import checks as check
from dynot_lite._base import randomness
from dynot_lite.matching.training import Training, cosine
from dynot_lite.matching.training import fit as train

__all__ = ["Classifier", "fit"]


class Classifier(nn.Module):
    """Two convolutions of stride 2, a pool of 7 × 7, a layer of 64 features, and one number per class.

    Args:
        channels: of the images.
        classes: the number K of classes.
        generator: for the initial weights, uniform on ±1/√(inputs).

    >>> network = Classifier(1, classes=10, generator=torch.Generator().manual_seed(0))
    >>> network(torch.zeros(3, 1, 28, 28)).shape, network.features(torch.zeros(3, 1, 28, 28)).shape
    (torch.Size([3, 10]), torch.Size([3, 64]))
    """

    def __init__(self, channels: int, *, classes: int, generator: torch.Generator | None = None):
        super().__init__()
        self.channels = check.count(channels, "channels")
        self.first = randomness.convolution(channels, 16, 3, generator=generator, stride=2, padding=1)
        self.second = randomness.convolution(16, 32, 3, generator=generator, stride=2, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(7)
        self.hidden = randomness.linear(32 * 49, 64, generator=generator)
        self.last = randomness.linear(64, check.count(classes, "classes"), generator=generator)

    def features(self, images: Tensor) -> Tensor:
        """The 64 features of images (n, channels, h, w), non-negative, shape (n, 64)."""
        images = images if isinstance(images, Tensor) else check.as_tensor(images, "images")
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise ValueError(f"images must have shape (n, {self.channels}, h, w), got {tuple(images.shape)}")
        h = self.second(self.first(images.to(self.last.weight)).relu()).relu()
        return self.hidden(self.pool(h).flatten(1)).relu()

    def forward(self, images: Tensor) -> Tensor:
        """The logarithms of the probabilities of the classes, up to a constant for each image, shape (n, classes)."""
        return self.last(self.features(images))


def fit(
    images,
    labels,
    *,
    steps: int = 1500,
    batch: int = 128,
    learning_rate: float = 2e-3,
    generator: torch.Generator | None = None,
    progress: bool | None = None,
) -> Training:
    """Train a :class:`Classifier` on images by cross-entropy; the averaged network is the ``network`` of the result.

    Args:
        images: shape (N, channels, h, w).
        labels: integers 0, 1, …, shape (N,); of the highest one there are K − 1 below it.
        steps, batch, learning_rate, progress: as in :func:`dynot_lite.matching.training.fit`; the rate falls to zero.
        generator: for the initial weights and the batches.

    Raises:
        ValueError: images of another shape or not finite, labels that are no integers ≥ 0, another number of them.
    """
    images = check.points(images, "images")
    labels = check.rows(labels, len(images), "labels", like=images)
    if images.ndim != 4:
        raise ValueError(f"images must have shape (N, channels, h, w), got {tuple(images.shape)}")
    if labels.shape != images.shape[:1] or labels.is_floating_point() or labels.dtype == torch.bool or labels.min() < 0:
        raise ValueError(f"labels must be integers ≥ 0 of shape ({len(images)},), got {labels.dtype} {tuple(labels.shape)}")
    network = Classifier(images.shape[1], classes=int(labels.max()) + 1, generator=generator)

    def draw(n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        rows = randomness.integers(len(images), n, generator=generator, like=images)
        return images[rows], labels[rows].long()

    def cross_entropy(network: nn.Module, images: Tensor, labels: Tensor, *, generator=None) -> Tensor:
        return nn.functional.cross_entropy(network(images), labels)

    return train(
        network,
        cross_entropy,
        draw,
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        schedule=cosine(),
        generator=generator,
        progress=progress,
    )
