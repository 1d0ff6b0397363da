"""Clouds of points, and their cost by its definition."""

import numpy as np
import torch
from instances import generator


def cloud(n, d, seed=0, shift=0.0):
    return torch.randn(n, d, generator=generator(seed), dtype=torch.float64) * (1 + 0.5 * torch.arange(d)) + shift


def half_squared(x, y):
    """The cost by its definition."""
    return 0.5 * (x.unsqueeze(1) - y).square().sum(-1)


def random_weights(n, seed=0, *, zeros=0):
    weights = torch.rand(n, generator=generator(seed), dtype=torch.float64) + 0.1
    weights[:zeros] = 0.0
    return weights / weights.sum()


def eight_gaussians_and_moons(n, seed=0):
    """Data like the peers': 8 Gaussians of radius 5 and standard deviation 0.56, and two moons three times their usual size."""
    rng = np.random.default_rng(seed)
    angle, arc = rng.integers(8, size=n) * np.pi / 4, rng.uniform(0, np.pi, n)
    upper = rng.integers(2, size=n)[:, None]
    arcs = np.where(upper, np.stack([np.cos(arc), np.sin(arc)], 1), np.stack([1 - np.cos(arc), 0.5 - np.sin(arc)], 1))
    x0 = 5 * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.1**0.25 * rng.normal(size=(n, 2))
    return torch.tensor(x0), torch.tensor(3 * (arcs + 0.2 * rng.uniform(size=(n, 1))) - 1)
