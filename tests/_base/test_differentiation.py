"""No graph is not a derivative of zero."""

import numpy as np
import pytest
import torch

from dynot_lite._base import differentiation

X = torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=torch.float64)


def derivative(function):
    """Σ_i ∂f/∂x by ``gradients``, for a function (n, d) -> (n,)."""
    with differentiation.recording():
        x = differentiation.leaf(X)
        value = function(x)
        (found,) = differentiation.gradients(
            value, x, [torch.ones_like(value)], again=lambda: function(differentiation.elsewhere(x)), name="the function"
        )
    return found


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_a_derivative_is_the_same_under_every_mode_and_zero_where_nothing_depends(context):
    with context():
        assert torch.allclose(derivative(lambda x: x.square().sum(1)), 2 * X)
        assert not derivative(lambda x: torch.ones(len(x), dtype=x.dtype)).any()
        assert not derivative(lambda x: 0 * x.detach().sum(1)).any()


@pytest.mark.parametrize(
    "cut",
    [
        torch.no_grad()(lambda x: x.sum(1)), torch.inference_mode()(lambda x: x.sum(1)), lambda x: x.detach().sum(1),
        lambda x: torch.from_numpy(np.sin(x.detach().numpy())).sum(1),
    ],
)  # fmt: skip
def test_a_function_that_leaves_the_graph_is_refused(cut):
    with pytest.raises(ValueError, match="the function must be differentiable"):
        derivative(cut)


def test_other_points_differ_everywhere_and_have_the_size_of_x():
    for x in (X, 1e-9 * X, torch.zeros(2, 3)):
        moved = (differentiation.elsewhere(x) - x).abs()
        assert (moved > 0).all() and moved.max() <= max(x.abs().max(), 1.0 if not x.any() else 0.0)


def test_what_would_be_cut_off_is_refused():
    differentiation.refuse_graph(X, "x")
    with pytest.raises(ValueError, match="x must not require a gradient"):
        differentiation.refuse_graph(X.clone().requires_grad_(), "x")
    with torch.no_grad():
        differentiation.refuse_graph(X.clone().requires_grad_(), "x")


CUT = [
    torch.inference_mode()(lambda x: x.sum(1)), lambda x: x.detach().sum(1),
    lambda x: torch.from_numpy(np.sin(x.detach().numpy())).sum(1),
]  # fmt: skip


@pytest.mark.parametrize("cut", [torch.no_grad()(lambda x: x.sum(1)), *CUT])
def test_a_gradient_by_torch_func_is_refused_where_no_graph_leads(cut):
    with pytest.raises(ValueError, match="f must be differentiable"):
        differentiation.gradient(cut, X, name="f")


@pytest.mark.parametrize("cut", CUT)
def test_a_derivative_in_forward_mode_is_refused_where_no_graph_leads(cut):
    with pytest.raises(ValueError, match="f must be differentiable"):
        differentiation.tangent(cut, (X,), (torch.ones_like(X),), name="f")


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_torch_func_has_the_derivative_under_every_mode_also_of_a_constant(context):
    cube, constant = lambda x: (x**3).sum(1), lambda x: torch.ones(len(x), dtype=x.dtype)
    with context():
        value, found = differentiation.gradient(cube, X, name="f")
        assert torch.equal(value, cube(X)) and torch.allclose(found, 3 * X**2)
        value, found = differentiation.tangent(cube, (X,), (torch.ones_like(X),), name="f")
        assert torch.equal(value, cube(X)) and torch.allclose(found, (3 * X**2).sum(1))
        assert not differentiation.gradient(constant, X, name="f")[1].any()
        assert not differentiation.tangent(constant, (X,), (torch.ones_like(X),), name="f")[1].any()


def test_a_gradient_may_be_differentiated_again_and_mapped():
    cube = lambda x: (x**3).sum(1)
    row = lambda point: differentiation.gradient(cube, point[None], name="f")[1][0]
    assert torch.allclose(torch.func.vmap(torch.func.jacfwd(row))(X), torch.diag_embed(6 * X))
