"""What users pass in: valid input of any make is taken as it is, everything else is refused by name."""

import warnings

import numpy as np
import pytest
import torch

from dynot_lite._base import checks as check

VALUES = np.arange(6.0).reshape(3, 2)
READ_ONLY = VALUES.copy()
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    "value",
    [
        VALUES.tolist(), VALUES, VALUES[::-1][::-1], READ_ONLY, np.asfortranarray(VALUES),
        *(VALUES.astype(kind) for kind in (">f8", np.float16, np.int64, np.uint8, ">i2", np.longdouble)),
        *(torch.tensor(VALUES).to(kind) for kind in (torch.float64, torch.float16, torch.bfloat16, torch.int32)),
        torch.tensor(VALUES, requires_grad=True),
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'dtype', '')}",
)  # fmt: skip
def test_every_make_of_array_gives_the_same_numbers_without_a_warning(value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = check.as_tensor(value, "x")
    assert np.array_equal(found.detach().double().numpy(), VALUES)
    assert found.dtype in (torch.float32, torch.float64) and found.requires_grad == getattr(value, "requires_grad", False)


def test_negative_strides_and_other_layouts_keep_their_order():
    assert check.as_tensor(VALUES[::-1], "x").tolist() == VALUES[::-1].tolist()
    assert check.as_tensor(VALUES.T, "x").tolist() == VALUES.T.tolist()


def test_pythons_numbers_are_not_rounded_and_a_read_only_array_is_not_written_to():
    assert check.as_tensor([0.1], "x").item() == 0.1 and check.as_tensor(0.1, "x").item() == 0.1
    check.as_tensor(READ_ONLY, "x").mul_(0)
    assert READ_ONLY[1, 1] == 3


@pytest.mark.parametrize(
    "value, words",
    [
        ("a", "array of numbers"), (None, "object"), ([[1.0], [1.0, 2.0]], "array of numbers"), (np.array(["a"]), "<U1"),
        (1j, "real"), (torch.tensor(1j), "real"), ([np.nan], "finite"), (torch.tensor([np.inf]), "finite"),
    ],
)  # fmt: skip
def test_what_is_no_array_of_finite_real_numbers_is_refused_with_the_reason(value, words):
    with pytest.raises(ValueError, match=f"x must be .*{words}"):
        check.as_tensor(value, "x")


def test_weights_are_judged_in_the_precision_they_come_in_then_renormalised():
    single = torch.tensor([0.1, 0.2, 0.7])  # their sum is 1 to single precision only
    found = check.weights(single, 3, like=torch.zeros(1, dtype=torch.float64))
    assert found.dtype == torch.float64 and abs(found.sum().item() - 1) < 1e-15
    with pytest.raises(ValueError, match="sum to 1, got 0.999999"):
        check.weights(single.double(), 3)
    for bad, words in (([0.5, 0.6], "sum to 1"), ([1.5, -0.5], "non-negative"), ([1.0], "shape")):
        with pytest.raises(ValueError, match=f"b must.*{words}"):
            check.weights(bad, 2, "b")


@pytest.mark.parametrize("good", [3, np.int64(3), np.uint8(3)])
def test_counts(good):
    assert check.count(good, "n") == 3 and type(check.count(good, "n")) is int
    for bad in (0, True, np.bool_(True), 3.0, "3", None):
        with pytest.raises(ValueError, match="n must be an integer"):
            check.count(bad, "n")


def test_shares():
    assert check.share(1, "s") == 1 and check.share(np.float32(0.5), "s") == 0.5
    for bad in (-0.1, 1.1, float("nan"), "a"):
        with pytest.raises(ValueError, match="s must lie"):
            check.share(bad, "s")
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        check.share(1.0, "s", below_one=True)
