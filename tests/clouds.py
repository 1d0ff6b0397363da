"""Clouds, and couplings fitted to them, for the tests of the semidiscrete coupling."""

import torch
from instances import generator

from dynot_lite.couplings.semidiscrete import SemidiscreteCoupling

F64 = torch.float64


def cloud(n, d, seed=0):
    """Three clusters off the origin, with unequal spread."""
    gen = generator(seed)
    centres = 2 * torch.randn(3, d, generator=gen) + 1
    return centres[torch.randint(3, (n,), generator=gen)] + torch.linspace(0.3, 1, d) * torch.randn(n, d, generator=gen)


def unequal(n, seed=0, low=0.4):
    b = low + torch.rand(n, generator=generator(seed), dtype=F64)
    return b / b.sum()


def fitted(points, weights=None, *, seed=0, epsilon=0.0, precision="float32", **options):
    coupling = SemidiscreteCoupling(points, weights=weights, epsilon=epsilon, precision=precision)
    return coupling, coupling.fit(generator=generator(seed), **options).require()


def with_potentials(coupling, g):
    """A coupling that has the potentials g, for ½‖x − y‖²."""
    state = coupling.state_dict()
    other = SemidiscreteCoupling(coupling.points, weights=coupling.weights, epsilon=coupling.epsilon)
    state["average"] = g - 0.5 * coupling.points.to(F64).square().sum(1)
    other.load_state_dict(state)
    return other
