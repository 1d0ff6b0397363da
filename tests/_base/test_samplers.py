"""What callables of users return is checked on every call, not on the first alone."""

import numpy as np
import pytest
import torch
from instances import generator

from dynot_lite._base import samplers


def returns(*values):
    """A sampler that gives these values, one after the other."""
    left = list(values)
    return lambda n, *, generator=None: left.pop(0) if len(left) > 1 else left[0]


GOOD = torch.ones(3, 2)


@pytest.mark.parametrize(
    "bad, words",
    [
        (GOOD[:2], r"shape \(3, d\)"), (GOOD[:, 0], "shape"), (GOOD.numpy(), "ndarray"), (None, "NoneType"),
        (GOOD.long(), "floating"), (GOOD * torch.nan, "finite"), (torch.ones(3, 0), "shape"),
    ],
)  # fmt: skip
def test_points(bad, words):
    draw = lambda sampler, **o: samplers.draw(sampler, 3, generator=None, name="noise", **o)
    assert draw(returns(GOOD)) is GOOD
    sampler = returns(GOOD, bad)
    draw(sampler)
    with pytest.raises(ValueError, match=f"noise.*{words}"):
        draw(sampler)
    assert draw(returns(GOOD * torch.nan), finite=False).isnan().all()
    with pytest.raises(ValueError, match=r"shape \(3, 4, 4\)"):
        draw(returns(GOOD), shape=(4, 4))
    assert draw(returns(torch.ones(3, 4, 4)), shape=(4, 4)).shape == (3, 4, 4)


def test_conditions_go_along_and_need_a_row_for_each_point():
    draw = lambda sampler: samplers.draw_conditional(sampler, 3, generator=None, name="target")
    assert len(draw(returns(GOOD))) == 1
    labels, images = torch.arange(3), torch.zeros(3, 1, 2, 2)
    assert [part.shape for part in draw(returns((GOOD, labels, images)))] == [(3, 2), (3,), (3, 1, 2, 2)]
    for bad in (torch.arange(2), [0, 1, 2], torch.tensor(1), np.arange(3)):
        with pytest.raises(ValueError, match="target must return conditions"):
            draw(returns((GOOD, bad)))


@pytest.mark.parametrize(
    "later, words",
    [
        ((GOOD, GOOD[:, :1]), r"x1.*\(3, 2\).*\(3, 1\)"), ((GOOD, GOOD, GOOD), "as many tensors"),
        ((GOOD, GOOD.double()), "float64"), ((GOOD[:2], GOOD), "x0"), ((GOOD, GOOD.to("meta")), "meta"),
        (GOOD, "tuple of tensors"), ((), "tuple of tensors"),
    ],
)  # fmt: skip
def test_a_batch_must_be_like_the_first_on_every_call(later, words):
    pairs = returns((GOOD, GOOD), (GOOD, GOOD), later)
    first = samplers.draw_batch(pairs, 3, generator=None)
    samplers.draw_batch(pairs, 3, generator=None, like=first)
    with pytest.raises(ValueError, match=f"pairs must.*{words}"):
        samplers.draw_batch(pairs, 3, generator=None, like=first)


@pytest.mark.parametrize(
    "bad", [(GOOD, GOOD[:2]), (GOOD, torch.full((3,), torch.inf)), (GOOD, torch.tensor(1.0)), (GOOD, torch.ones(3, 0))]
)
def test_the_first_batch_is_checked_in_full(bad):
    with pytest.raises(ValueError, match="x1"):
        samplers.draw_batch(returns(bad), 3, generator=None)


def test_the_generator_is_handed_on():
    gen, seen = generator(), []
    sampler = lambda n, *, generator=None: seen.append(generator) or GOOD
    samplers.draw(sampler, 3, generator=gen, name="noise")
    samplers.draw_conditional(sampler, 3, generator=gen, name="target")
    assert seen == [gen, gen]


def test_a_velocity_has_the_shape_of_x_on_every_call():
    assert samplers.evaluate(lambda t, x: t * x, 2.0, GOOD).sum() == 12
    assert samplers.evaluate(lambda t, x, label: x + label, 0.0, GOOD, 1).sum() == 12
    for bad in (GOOD[:, :1], 1.0, None):
        with pytest.raises(ValueError, match=r"field must return a tensor of the shape of x, \(3, 2\)"):
            samplers.evaluate(lambda t, x, bad=bad: bad, 0.0, GOOD, name="field")
