"""What single faults showed to be untested: ends that are allowed, the generator of a permutation, tuples that mix kinds."""

import io

import pytest
import torch

from dynot_lite._base import checks, differentiation, progress, randomness, samplers


def test_both_ends_of_the_time_interval_are_times():
    assert checks.time(torch.tensor([0.0, 1.0]), n=2).tolist() == [0.0, 1.0]


def test_a_permutation_comes_from_the_generator():
    first, second = (randomness.permutation(50, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second) and sorted(first.tolist()) == list(range(50))


def test_one_part_of_a_batch_that_is_no_tensor_is_refused():
    with pytest.raises(ValueError, match="pairs must return a tuple of tensors"):
        samplers.draw_batch(lambda n, *, generator: (torch.zeros(n, 2), "a"), 3, generator=None)


@pytest.mark.parametrize("dim", [1, 2, 7])
def test_semidefinite_to_rounding_that_grows_with_the_dimension(dim):
    eps = torch.finfo(torch.float64).eps
    largest = torch.ones(dim + 1, dtype=torch.float64)
    for negative, accepted in ((50 * (dim + 1) * eps, True), (200 * (dim + 1) * eps, False)):
        largest[-1] = -negative
        try:
            checks.semidefinite(largest.diag(), "cov must be positive semi-definite")
            assert accepted
        except ValueError:
            assert not accepted


def test_elsewhere_is_near():
    x = torch.full((40,), 5.0)
    moved = differentiation.elsewhere(x) - x
    assert 4 < moved.abs().max() <= 5 and len(moved.unique()) == 40


@pytest.mark.parametrize(
    ("terminal", "show", "hidden"), [(True, None, False), (False, None, True), (False, True, False), (True, False, True)]
)
def test_a_bar_is_shown_in_a_terminal_or_when_asked_for(terminal, show, hidden):
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    with progress.bar(3, "x", show, file=stream) as bar:
        assert bool(bar.disable) is hidden
