"""What single faults showed to be untested: ends that are allowed, the generator of a permutation, tuples that mix kinds."""

import pytest
import torch

from dynot_lite._base import checks, randomness, samplers


def test_both_ends_of_the_time_interval_are_times():
    assert checks.time(torch.tensor([0.0, 1.0]), n=2).tolist() == [0.0, 1.0]


def test_a_permutation_comes_from_the_generator():
    first, second = (randomness.permutation(50, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second) and sorted(first.tolist()) == list(range(50))


def test_one_part_of_a_batch_that_is_no_tensor_is_refused():
    with pytest.raises(ValueError, match="pairs must return a tuple of tensors"):
        samplers.draw_batch(lambda n, *, generator: (torch.zeros(n, 2), "a"), 3, generator=None)
