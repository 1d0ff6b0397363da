"""Standardize: one shift and one scale, kept with a model, on any kind of data."""

import numpy as np
import pytest
import torch
from torch import nn

from dynot_lite.matching.standardize import Standardize


def images(dtype=torch.float64):
    """Images whose colours differ in mean and scale, so that a scale for each would give other numbers."""
    noise = torch.rand(7, 3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (noise * torch.tensor([0.1, 0.5, 1.0])[:, None, None] + torch.tensor([0.5, 0.2, 0.0])[:, None, None]).to(dtype)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_one_mean_and_one_scale_for_all(dtype):
    x = images(dtype)
    found = Standardize.fit(x)
    numbers = x.double().numpy()
    assert found.mean.item() == pytest.approx(numbers.mean(), rel=1e-6) and found.scale.item() == pytest.approx(
        numbers.std(), rel=1e-6
    )
    z = found(x)
    assert z.dtype == dtype and z.shape == x.shape
    assert z.mean().abs() < 1e-6 and z.square().mean().item() == pytest.approx(1, rel=1e-6)
    assert torch.allclose(found.inverse(z), x, rtol=1e-6, atol=1e-7)
    # Distances keep their proportions: that is what a scale for each pixel or colour would change.
    first, second = torch.pdist(x.flatten(1)), torch.pdist(z.flatten(1))
    assert torch.allclose(first / second, found.scale.to(dtype).expand_as(first), rtol=1e-4)


def test_many_values_far_from_zero_lose_no_digits():
    x = 1000 + images(torch.float32).repeat(2000, 1, 1, 1)
    assert Standardize.fit(x).scale.item() == pytest.approx(x.double().numpy().std(), rel=1e-4)


def test_levels_and_lists_are_data_too():
    levels = (255 * images()).to(torch.uint8)
    found = Standardize.fit(levels)
    assert found.scale.item() == pytest.approx(levels.double().numpy().std()) and found(levels).is_floating_point()
    assert Standardize.fit([1.0, 3.0])(np.array([1, 3, 5])).tolist() == [-1, 1, 3]


def test_it_is_saved_with_the_model_and_moves_with_it(tmp_path):
    class Model(nn.Module):
        def __init__(self, standardize):
            super().__init__()
            self.standardize, self.layer = standardize, nn.Linear(2, 2)

    model = Model(Standardize.fit(images(torch.float32)))
    torch.save(model.state_dict(), tmp_path / "model.pt")
    other = Model(Standardize())
    assert other.standardize(torch.tensor(3.0)) == 3
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert torch.equal(other.standardize(images()), model.standardize(images()))
    assert not list(model.standardize.parameters())  # nothing for an optimiser to change
    assert model.double().standardize.scale.dtype == torch.float64
    assert model.to("meta").standardize.mean.device.type == "meta"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: Standardize.fit(torch.full((3, 2), 0.1)), "x must hold numbers that are not all equal"),
        (lambda: Standardize.fit(torch.zeros(0, 2)), "x must hold numbers"),
        (lambda: Standardize.fit(torch.tensor([1.0, float("nan")])), "x must be finite"),
        (lambda: Standardize.fit(torch.tensor([1e300, -1e300], dtype=torch.float64)), "x must be of a size"),
        (lambda: Standardize.fit(torch.zeros(2).requires_grad_()), "x must not require a gradient"),
        (lambda: Standardize(scale=0.0), "scale must be a positive number"),
        (lambda: Standardize(mean=float("nan")), "mean must be finite"),
        (lambda: Standardize()(["a"]), "x must be an array of numbers"),
    ],
)
def test_what_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()
