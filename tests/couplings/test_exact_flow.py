import math

import numpy as np
import pytest
import torch
from clouds import F64, cloud, fitted, unequal, with_potentials
from instances import generator

from dynot_lite.couplings.exact_flow import ExactFlow
from dynot_lite.couplings.semidiscrete import SemidiscreteCoupling


@pytest.mark.parametrize("t", (0.3, 0.7))
@pytest.mark.parametrize("epsilon", (0.3, 2.0))
def test_velocity_and_score_on_the_line(t, epsilon):
    """Against derivatives of the distribution function P(X_t ≤ x), by quadrature over the noise."""
    y, b = torch.tensor([[-1.0], [0.5], [2.0]], dtype=F64), torch.tensor([0.2, 0.5, 0.3], dtype=F64)
    coupling, _ = fitted(y, b, epsilon=epsilon, tol=0.01)
    nodes = torch.linspace(-9, 9, 20_001, dtype=F64)
    shares = torch.softmax((coupling.potentials - 0.5 * (nodes[:, None] - y[:, 0]) ** 2) / epsilon + b.log(), 1)
    density = shares * torch.exp(-0.5 * nodes**2)[:, None] / math.sqrt(2 * math.pi)
    masses = torch.cumsum(density, 0) * (nodes[1] - nodes[0])

    def distribution(t, x):
        total = 0.0
        for j in range(3):
            u = (x - t * y[j].item()) / (1 - t)
            total = total + np.interp(u, (nodes + 0.5 * (nodes[1] - nodes[0])).numpy(), masses[:, j].numpy())
        return total

    x, h = np.linspace(-1.5, 2.0, 8), 0.004
    rho = lambda x: (distribution(t, x + h) - distribution(t, x - h)) / (2 * h)
    velocity = -(distribution(t + 1e-4, x) - distribution(t - 1e-4, x)) / 2e-4 / rho(x)
    score = (np.log(rho(x + h)) - np.log(rho(x - h))) / (2 * h)
    points = torch.tensor(x)[:, None]
    flow = ExactFlow(coupling)
    v, ours = flow.velocity(t, points)[:, 0].numpy(), flow.score(t, points)[:, 0].numpy()
    np.testing.assert_allclose(v, velocity, atol=0.02, rtol=0.02)
    np.testing.assert_allclose(ours, score, atol=0.05, rtol=0.02)
    # The quoted form (t v − x + (1−t)δ)/(1−t)² is another function.
    delta = (1 - t) * ours - t * v + x
    quoted = (t * v - x + (1 - t) * delta) / (1 - t) ** 2
    assert np.abs(quoted - score).max() > 10 * np.abs(ours - score).max()


def test_score_in_the_plane_is_a_gradient():
    """Curl zero and Tweedie's formula as ε → ∞; times per point; copies and points of weight zero change nothing."""
    base, b = cloud(5, 2), unequal(5)
    coupling, _ = fitted(base, b, epsilon=0.5)
    flow = ExactFlow(coupling)
    x, h = torch.randn(6, 2, generator=generator(1), dtype=F64), 1e-5
    step = h * torch.eye(2, dtype=F64)
    jacobian = torch.stack([(flow.score(0.4, x + e) - flow.score(0.4, x - e)) / (2 * h) for e in step], 2)
    torch.testing.assert_close(jacobian, jacobian.mT, rtol=1e-5, atol=1e-6)
    by_graph = torch.autograd.functional.jacobian(lambda z: flow.score(0.4, z[None])[0], x[0])
    torch.testing.assert_close(by_graph, jacobian[0], rtol=1e-5, atol=1e-6)
    wide = ExactFlow(fitted(base, b, epsilon=1e6)[0])
    times = torch.tensor([0.0, 0.2, 0.4, 0.5, 0.7, 0.9], dtype=F64)
    torch.testing.assert_close(
        wide.score(times, x), (times[:, None] * wide.velocity(times, x) - x) / (1 - times[:, None]), rtol=1e-3, atol=1e-3
    )
    split = torch.cat([b, torch.zeros(1, dtype=F64), 0.25 * b[:1]])
    split[0] *= 0.75
    copies = with_potentials(
        fitted(torch.cat([base, base[:1] + 9, base[:1]]), split, epsilon=0.5)[0], coupling.potentials[[*range(5), 0, 0]]
    )
    torch.testing.assert_close(ExactFlow(copies).score(times, x), flow.score(times, x), rtol=1e-5, atol=1e-5)
    uniform = lambda n, *, generator=None: torch.rand(n, 2, generator=generator)
    other = SemidiscreteCoupling(base, epsilon=0.5)
    other.fit(uniform, max_iterations=1, generator=generator())
    for bad in (lambda: flow.velocity(1.0, x), lambda: ExactFlow(fitted(base)[0]), lambda: ExactFlow(other)):
        with pytest.raises(ValueError, match="t must be less|epsilon > 0 and normal noise"):
            bad()
