"""The loader of an indexed coupling: what is in a batch, in which order, and what augmentation leaves as it is."""

import itertools

import pytest
import torch

from dynot_lite.couplings.conditional import ClassCouplings, JointCoupling
from dynot_lite.couplings.indexed import IndexedPairs
from dynot_lite.couplings.prepared import prepare
from dynot_lite.couplings.semidiscrete import SemidiscreteCoupling

IMAGES = torch.rand(40, 1, 3, 4, generator=torch.Generator().manual_seed(0))
KINDS = torch.arange(40) % 2


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def coupling():
    made = SemidiscreteCoupling(IMAGES)
    made.fit(tol=0.5, generator=seeded())
    return made


def flips(x1, *, generator=None):
    chosen = torch.rand(len(x1), 1, 1, 1, generator=generator) < 0.5
    return torch.where(chosen, x1.flip(-1), x1)


def first(batches, k=3):
    return list(itertools.islice(batches, k))


def test_batches_are_the_pairs_of_the_coupling_one_after_the_other(coupling):
    generator = seeded()
    expected = [coupling.pair(6, generator=generator) for _ in range(3)]
    for found, pair in zip(first(coupling.loader(6, generator=seeded())), expected, strict=True):
        assert len(found) == 2 and all(torch.equal(*both) for both in zip(found, pair, strict=True))
    labelled = first(coupling.loader(6, labels=KINDS.tolist(), generator=seeded()))
    for (x0, x1, labels), pair in zip(labelled, expected, strict=True):
        assert torch.equal(x0, pair[0]) and torch.equal(x1, pair[1])
        rows = [int((image == IMAGES).flatten(1).all(1).nonzero()) for image in x1]
        assert labels.dtype == torch.int64 and torch.equal(labels, KINDS[rows])


def test_augmentation_changes_the_points_and_neither_the_noise_nor_which_point_it_was_for(coupling):
    plain = first(coupling.loader(64, labels=KINDS, generator=seeded()), 1)[0]
    flipped = first(coupling.loader(64, labels=KINDS, augment=flips, generator=seeded()), 1)[0]
    assert torch.equal(plain[0], flipped[0]) and torch.equal(plain[2], flipped[2])
    as_it_was = (plain[1] == flipped[1]).flatten(1).all(1)
    mirrored = (plain[1].flip(-1) == flipped[1]).flatten(1).all(1)
    assert (as_it_was | mirrored).all() and 10 < mirrored.sum() < 54
    again = first(coupling.loader(64, augment=flips, generator=seeded()), 1)[0]
    assert torch.equal(again[1], flipped[1])  # its random numbers are those of the generator
    with torch.no_grad():
        assert torch.equal(coupling.points, IMAGES)


def test_what_a_coupling_has_beside_the_points_comes_along(coupling):
    classes = ClassCouplings(IMAGES, KINDS)
    classes.fit(tol=0.5, generator=seeded())
    small = torch.nn.functional.avg_pool2d(IMAGES, (3, 2))
    joint = JointCoupling(IMAGES, small, beta=1.0)
    joint.fit(tol=0.5, generator=seeded())
    for made, kind in ((classes, KINDS), (joint, small), (prepare(coupling, 300, generator=seeded()), None)):
        x0, x1, *conditions, place = next(made.loader(6, labels=torch.arange(40), generator=seeded()))
        assert x0.shape == x1.shape == (6, 1, 3, 4) and torch.equal(IMAGES[place], x1)
        assert len(conditions) == (kind is not None) and all(torch.equal(condition, kind[place]) for condition in conditions)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 0}, "n must be an integer"),
        ({"labels": [1, 2]}, "labels must have one row for each of the 40 points"),
        ({"augment": "flip"}, "augment must be a function"),
        ({"augment": lambda x, *, generator: x[1:]}, "augment must return a tensor of shape"),
        ({"augment": lambda x, *, generator: x.flatten(1)}, "augment must return a tensor of shape"),
        ({"augment": lambda x, *, generator: x.numpy()}, "augment must return a tensor of shape"),
        ({"augment": lambda x, *, generator: x * float("nan")}, "what augment returns must be finite"),
        ({"generator": 3}, "generator must be a torch.Generator"),
    ],
)
def test_what_is_refused(coupling, options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        next(coupling.loader(**{"n": 6} | options))


def test_counts_labels_and_functions_are_looked_at_before_the_first_batch():
    class Never(IndexedPairs):
        def pair_index(self, n, *, generator=None):
            raise AssertionError("nothing is drawn yet")

    for options in ({"n": 1.5}, {"n": 2, "labels": [1]}, {"n": 2, "augment": 3}):
        with pytest.raises((ValueError, TypeError)):
            Never(IMAGES).loader(**options)
