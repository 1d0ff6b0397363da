"""L2-UVP and cosine against the definitions of arXiv 2106.01954 written out, and what they must score by design."""

import numpy as np
import pytest
import torch
from instances import generator, pair

from dynot_lite.laws.gaussian import Gaussian, monge_map
from dynot_lite.metrics import cosine, l2_uvp


def test_against_the_definitions_written_out():
    random = np.random.RandomState(3)
    x, mapped, truth = random.normal(size=(3, 7, 4))
    errors = [sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) for one, other in zip(mapped, truth, strict=True)]
    assert l2_uvp(mapped, truth, 2.5) == pytest.approx(100 * sum(errors) / 7 / 2.5, rel=1e-13)
    inner = np.mean([np.dot(a - p, b - p) for p, a, b in zip(x, mapped, truth, strict=True)])
    norms = [np.mean([np.dot(a - p, a - p) for p, a in zip(x, images, strict=True)]) for images in (mapped, truth)]
    assert cosine(x, mapped, truth) == pytest.approx(inner / np.sqrt(norms[0] * norms[1]), rel=1e-13)


def test_a_constant_map_scores_one_hundred_and_the_truth_zero():
    p, q = pair(3)
    x = p.sample(4000, generator=generator())
    y = monge_map(p, q)(x)
    variance = y.var(0, correction=0).sum().item()  # the total variance, not its mean over coordinates
    assert l2_uvp(y.mean(0).expand_as(y), y, variance) == pytest.approx(100, rel=1e-12)
    assert l2_uvp(y, y, variance) == 0 and cosine(x, y, y) == pytest.approx(1, rel=1e-14)
    assert cosine(x, 2 * x - y, y) == pytest.approx(-1, rel=1e-14)


def test_a_shifted_gaussian_map_in_closed_form():
    p, q = pair(2, seed=4)
    nodes, weights = p.quadrature(3)
    x = nodes.repeat_interleave((weights / weights.min()).round().long(), 0)  # equal weights: 1, 4 and 16 times
    monge = monge_map(p, q)
    shift = torch.tensor([0.3, -0.4], dtype=torch.float64)
    assert l2_uvp(monge(x) + shift, monge(x), q.cov.trace().item()) == pytest.approx(100 * 0.25 / q.cov.trace().item(), rel=1e-9)
    identity = Gaussian([0.0], [[1.0]])
    x = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)  # E<2, x + 2>/√(4 · E(x + 2)²) = 4/√(4 · 5)
    map_to = monge_map(identity, Gaussian([2.0], [[4.0]]))
    assert cosine(x, x + 2, map_to(x)) == pytest.approx(4 / np.sqrt(20), rel=1e-12)


@pytest.mark.parametrize(
    "bad, name",
    [
        (lambda: l2_uvp([[np.nan]], [[0.0]], 1.0), "mapped"),
        (lambda: l2_uvp([[0.0]], [[np.inf]], 1.0), "truth"),
        (lambda: l2_uvp([[0.0]], [[0.0], [1.0]], 1.0), "one shape"),
        (lambda: l2_uvp([[0.0]], [[0.0]], 0.0), "target_variance"),
        (lambda: l2_uvp([[1e300]], [[0.0]], 1.0), "finite squared"),
        (lambda: cosine([[0.0]], [[1e300]], [[1e300]]), "finite squared"),
        (lambda: l2_uvp([[0.0]], [[0.0]], float("nan")), "target_variance"),
        (lambda: cosine([[0.0]], [[0.0]], [[1.0]]), "identity"),
        (lambda: cosine([[0.0, 1.0]], [[0.0]], [[1.0]]), "x"),
        (lambda: cosine(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((0, 2))), "mapped"),
    ],
)
def test_bad_input_is_named(bad, name):
    with pytest.raises(ValueError, match=name):
        bad()
