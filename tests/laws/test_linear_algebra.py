"""linear_algebra: square roots, polar factors and densities against SciPy, singular and badly scaled ones included."""

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from instances import generator, spd

from dynot_lite.laws import linear_algebra


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_square_roots(d, unit):
    cov = unit**2 * spd(d, generator(d))
    root, definite = linear_algebra.square_root(cov)
    assert definite and torch.allclose(root @ root.mT, cov, rtol=1e-12, atol=0)
    flat = cov.clone()
    flat[-1] = flat[0] if d > 1 else 0  # the last variable repeats the first
    flat[:, -1] = flat[-1].clone() if d > 1 else 0
    flat[-1, -1] = flat[0, 0] if d > 1 else 0
    root, definite = linear_algebra.square_root(flat)
    assert not definite and (root @ root.mT - flat).abs().max() <= 1e-12 * unit**2 * 20


def test_a_batch_knows_whether_all_of_it_is_definite():
    batch = torch.stack([torch.eye(2), torch.diag(torch.tensor([1.0, 0.0]))]).double()
    root, definite = linear_algebra.square_root(batch)
    assert not definite and torch.allclose(root @ root.mT, batch)


@pytest.mark.parametrize("d", [2, 3, 6])
@pytest.mark.parametrize("sign", [1, -1])
def test_polar_factors(d, sign):
    matrix = torch.randn(d, d, generator=generator(d), dtype=torch.float64)
    matrix[0] *= sign
    expected = scipy.linalg.polar(matrix.numpy())[0]
    if torch.linalg.det(matrix) > 0:  # as for the factors of two definite laws
        assert np.abs(linear_algebra.polar(matrix, definite=True).numpy() - expected).max() < 1e-10
    assert np.abs(linear_algebra.polar(1e9 * matrix, definite=False).numpy() - expected).max() < 1e-10


def test_log_density():
    x, cov = torch.randn(7, 3, generator=generator(), dtype=torch.float64), spd(3, generator(1))
    expected = scipy.stats.multivariate_normal(np.zeros(3), cov.numpy()).logpdf(x.numpy())
    assert np.abs(linear_algebra.log_normal(x, cov).numpy() - expected).max() < 1e-12
    each = linear_algebra.log_normal(x, cov.expand(7, 3, 3), per_point=True)
    assert np.abs(each.numpy() - expected).max() < 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_a_change_turns_nothing_within_the_kernel(seed):
    """Of M = UH of rank 2 the factor turns by UZ, Z the solution of HZ + ZH = UᵀdM − dMᵀU off the kernel of H, and zero on it."""
    gen = generator(seed)
    left, right = (torch.linalg.qr(torch.randn(4, 4, generator=gen, dtype=torch.float64)).Q for _ in range(2))
    scales = torch.tensor([0.0, 0.0, 1.0, 3.0], dtype=torch.float64)
    matrix, change = (left * scales) @ right.mT, torch.randn(4, 4, generator=gen, dtype=torch.float64)
    unitary, turn = torch.func.jvp(lambda m: linear_algebra.polar(m, definite=False), (matrix,), (change,))
    spin = right.mT @ unitary.mT @ turn @ right
    assert (spin + spin.mT).abs().max() < 1e-12 and spin[:2, :2].abs().max() < 1e-12
    skew = right.mT @ (unitary.mT @ change - change.mT @ unitary) @ right
    expected = skew[2:] / (scales[2:, None] + scales)
    assert (spin[2:] - expected).abs().max() < 1e-11
