"""Rooms whose results are numbers, or densities on grids: no derivatives, said in their documentation, and no warnings."""

import inspect
import warnings

import pytest
import torch
from derivatives import has_graph
from instances import generator

import dynot_lite.grids
from dynot_lite import metrics
from dynot_lite.grids import back_and_forth, benamou_brenier, certificates

X0, X1 = torch.randn(2, 6, 2, generator=generator(), dtype=torch.float64)
WEIGHTS = torch.full((6,), 1 / 6, dtype=torch.float64)
MU, NU = (torch.rand(8, 8, generator=generator(seed), dtype=torch.float64) + 0.5 for seed in (1, 2))
MU, NU = MU / MU.mean(), NU / NU.mean()


def leaf(x):
    return x.clone().requires_grad_()


METRICS = {
    "path_energy": lambda: metrics.path_energy([0.0, 0.5, 1.0], leaf(torch.stack([X0, 0.5 * (X0 + X1), X1]))),
    "sample_w2_squared": lambda: metrics.sample_w2_squared(leaf(X0), leaf(X1), weights0=leaf(WEIGHTS), weights1=leaf(WEIGHTS)),
    "energy_distance": lambda: metrics.energy_distance(leaf(X0), leaf(X1)),
    "frechet_distance": lambda: metrics.frechet_distance(leaf(X0), leaf(X1)),
    "coverage": lambda: metrics.coverage(leaf(X0), leaf(X1)),
    "memorisation": lambda: metrics.memorisation(leaf(X0), leaf(X1), leaf(X1 + 1)),
    "l2_uvp": lambda: metrics.l2_uvp(leaf(X0), leaf(X1), 2.0),
    "cosine": lambda: metrics.cosine(leaf(X0), leaf(X1), leaf(X1 - 1)),
}


@pytest.mark.parametrize("row", METRICS)
def test_metrics_are_numbers(row):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = METRICS[row]()
    assert isinstance(found, (float, metrics.PathEnergy, metrics.Memorisation)) and not has_graph(found)


def test_the_documentation_of_metrics_says_so():
    assert "Derivatives: none" in metrics.__doc__
    assert {name for name in metrics.__all__ if inspect.isfunction(getattr(metrics, name))} == set(METRICS)


GRIDS = {
    "back_and_forth.solve": lambda mu, nu: back_and_forth.solve(mu, nu, max_iterations=3),
    "certificates.lower_bound": lambda mu, nu: certificates.lower_bound(leaf(torch.zeros(8, 8)), mu, nu),
    "benamou_brenier.solve": lambda mu, nu: benamou_brenier.solve(mu, nu, steps=3, max_iterations=3),
}


@pytest.mark.parametrize("row", GRIDS)
def test_grids_pass_no_gradient_on(row):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not has_graph(GRIDS[row](leaf(MU), leaf(NU)))
    assert "Derivatives: none" in dynot_lite.grids.__doc__
