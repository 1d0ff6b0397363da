"""The rule for random numbers: where they are drawn, in which dtype, where they end up; and that their laws are right."""

import math

import pytest
import torch
from instances import generator

from dynot_lite._base import randomness

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]
DRAWS = {
    "normal": lambda **o: randomness.normal(5, 3, **o),
    "uniform": lambda **o: randomness.uniform(5, 3, **o),
    "signs": lambda **o: randomness.signs(5, 3, **o),
    "integers": lambda **o: randomness.integers(7, 5, 3, **o),
    "permutation": lambda **o: randomness.permutation(15, **o),
    "choices": lambda generator, like: randomness.choices(
        torch.rand(4, dtype=like.dtype, device=like.device) + 0.1, 15, generator=generator
    ),
}


@pytest.mark.parametrize("home", [None, *DEVICES])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", DRAWS)
def test_every_combination_of_generator_and_data_gives_numbers_beside_the_data(name, dtype, device, home):
    given = None if home is None else torch.Generator(home).manual_seed(3)
    drawn = DRAWS[name](generator=given, like=torch.zeros(1, dtype=dtype, device=device))
    assert drawn.device.type == device and drawn.numel() == 15
    assert drawn.dtype == (dtype if name in ("normal", "uniform", "signs") else torch.int64)


def test_numbers_are_drawn_where_the_generator_lives_even_if_the_data_are_elsewhere():
    asked = []

    def make(*shape, device, **options):
        asked.append(torch.device(device).type)
        return torch.zeros(shape, device=device)

    elsewhere = torch.zeros(1, device="meta")
    assert randomness.draw(make, 3, generator=generator(), like=elsewhere).device.type == "meta"
    assert randomness.draw(make, 3, generator=None, like=elsewhere).device.type == "meta"
    assert randomness.draw(make, 3, generator=generator()).device.type == "cpu"
    assert asked == ["cpu", "meta", "cpu"]


def test_numbers_are_drawn_in_the_dtype_of_the_data_and_not_rounded_to_it():
    wide = randomness.uniform(1000, generator=generator(), like=torch.zeros(1, dtype=torch.float64))
    assert not torch.equal(wide, wide.float().double())
    assert randomness.normal(3, generator=generator()).dtype == torch.get_default_dtype()
    assert randomness.uniform(3, generator=generator(), like=torch.zeros(1), dtype=torch.float64).dtype == torch.float64


def test_one_generator_goes_on_and_none_is_torchs_own():
    gen = generator()
    assert not torch.equal(randomness.normal(4, generator=gen), randomness.normal(4, generator=gen))
    torch.manual_seed(5)
    first = randomness.normal(4, generator=None)
    torch.manual_seed(5)
    assert torch.equal(first, randomness.normal(4, generator=None))


def test_laws():
    gen, n = generator(1), 40_000
    assert abs(randomness.uniform(n, generator=gen).mean() - 0.5) < 4 / (12 * n) ** 0.5
    assert set(randomness.integers(3, 200, generator=gen).tolist()) == {0, 1, 2}
    signs = randomness.signs(n, generator=gen)
    assert set(signs.tolist()) == {-1.0, 1.0} and abs(signs.mean()) < 4 / n**0.5
    assert sorted(randomness.permutation(9, generator=gen).tolist()) == list(range(9))
    shares = randomness.choices(torch.tensor([0.2, 0.0, 0.8]), n, generator=gen).bincount(minlength=3) / n
    assert abs(shares[0] - 0.2) < 4 * (0.16 / n) ** 0.5 and shares[1] == 0
    rows = randomness.choices(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), 5, generator=gen)
    assert rows.tolist() == [[1] * 5, [0] * 5]


def test_linear_layers_are_uniform_on_one_over_the_root_of_their_inputs():
    layer = randomness.linear(16, 500, generator=generator())
    assert all(0.24 < parameter.abs().max() <= 0.25 for parameter in layer.parameters())
    assert abs(layer.weight.std() - 0.25 / math.sqrt(3)) < 0.005 and layer.weight.requires_grad
    assert torch.equal(layer.weight, randomness.linear(16, 500, generator=generator()).weight)


def test_own_keeps_a_generator_and_makes_one_with_another_seed_each_time():
    gen = generator()
    assert randomness.own(gen) is gen
    assert randomness.own(None).initial_seed() != randomness.own(None).initial_seed()
