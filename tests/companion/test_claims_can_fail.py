"""Claims whose wrong versions are data, not formulas: they must reject these."""

import pytest
import torch

from dynot_lite.companion.ledger import registry
from dynot_lite.datasets import images


@pytest.mark.parametrize("copies, memory", [("SD-31", "SD-31b"), ("FM-42", "FM-42b")])
def test_copies_of_digits_with_noise_and_pure_noise_are_rejected(copies, memory):
    generator = torch.Generator().manual_seed(0)
    digits, _ = images.digits()
    digits = ((digits - digits.mean()) / digits.std())[torch.randperm(len(digits), generator=generator)]
    train, kept, unseen = digits[:1197], digits[1197:1497], digits[1497:]
    noise = torch.randn(300, 64, generator=generator)

    def nearness(x):
        first, second = torch.cdist(x, train).topk(2, largest=False).values.T
        return (first / second).mean(), first.mean()

    def accepted(x):
        stands_out, far = (ours / theirs for ours, theirs in zip(nearness(x), nearness(kept), strict=True))
        return registry()[copies].accepts(stands_out), registry()[memory].accepts(far)

    assert accepted(unseen) == (True, True)
    for level in (0.0, 0.1, 0.35):
        assert accepted(train[:300] + level * noise) == (False, True)
    assert accepted(noise) == (True, False)
