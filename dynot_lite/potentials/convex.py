"""Convex potentials Ψ: values, gradients, Hessians, and conjugates solved point by point to a stated tolerance.

The gradient of a convex potential is the Brenier map between a law and its image. The displacement interpolation of that
map is the flow x -> (1 - t) x + t ∇Ψ(x), the gradient of Ψ_t = (1 - t)|·|²/2 + t Ψ. To invert the flow is a conjugate
problem: the point z with ∇Ψ_t(z) = y is the one that maximises <y, z> - Ψ_t(z).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from dynot_lite._base import checks as check
from dynot_lite._base import randomness
from dynot_lite._base.differentiation import gradient, refuse_graph, tangent
from dynot_lite._base.samplers import values
from dynot_lite.potentials.conjugates import ConjugateSolution, Equation, newton

__all__ = ["ICNN", "ConvexPotential", "LogSumExp", "Quadratic"]

ROWS = 128  # points whose scores are worked on at a time: they stay in the processor's cache


class ConvexPotential(nn.Module):
    """A convex function Ψ on R^dim.

    A subclass defines ``_value``; ``_gradient`` and ``_hessian`` come from automatic differentiation unless it knows better.
    Points have shape (n, dim) throughout and are taken to the dtype and device of the parameters.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.dim = check.count(dim, "dim")

    def _value(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _gradient(self, x: Tensor) -> Tensor:
        return gradient(self._value, x, name="_value")[1]

    def _hessian(self, x: Tensor) -> Tensor:
        gradient(self._value, x[:1], name="_value")  # refused without a graph: within vmap nothing can be compared
        return torch.func.vmap(torch.func.hessian(lambda point: self._value(point[None])[0]))(x)

    def _points(self, x, name: str) -> Tensor:
        return check.cloud(x, name, dim=self.dim, like=next(self.parameters(), None))

    def _representable(self, found: Tensor, whose: str) -> Tensor:
        if not check.finite(found) and not all(check.finite(parameter) for parameter in self.parameters()):
            raise RuntimeError("the parameters of the potential are not finite: its training diverged")
        return check.representable(found, whose)

    def forward(self, x) -> Tensor:
        """Ψ(x), shape (n,)."""
        x = self._points(x, "x")
        return self._representable(values(self._value(x), x[:, 0], "_value"), "x")

    def gradient(self, x) -> Tensor:
        """∇Ψ(x), shape (n, dim): the transport map, if Ψ is a Brenier potential."""
        return self._representable(self._gradient(self._points(x, "x")), "x")

    def hessian(self, x) -> Tensor:
        """∇²Ψ(x), shape (n, dim, dim)."""
        return self._representable(self._hessian(self._points(x, "x")), "x")

    def hessian_product(self, x, direction) -> Tensor:
        """∇²Ψ(x) times one direction per point, shape (n, dim), by forward differentiation of the gradient."""
        x = self._points(x, "x")
        direction = self._points(direction, "direction")
        if direction.shape != x.shape:
            raise ValueError(f"direction must have the shape of x, {tuple(x.shape)}, got {tuple(direction.shape)}")
        return tangent(self._gradient, (x,), (direction,), name="_gradient")[1]

    def solve(self, y, *, t=1.0, start=None, tol: float | None = None, max_iterations: int = 100) -> ConjugateSolution:
        """Solve ∇Ψ_t(z) = (1 - t) z + t ∇Ψ(z) = y for each point, by Newton's method safeguarded by backtracking.

        A step is halved until it shortens the residual, and the Newton direction always shortens it if the Hessian of Ψ_t
        is positive definite, which holds for t < 1 and every convex Ψ, and for t = 1 if Ψ is strongly convex.

        Args:
            y: points, shape (n, dim).
            t: a time in [0, 1], or one per point, shape (n,).
            start: first guess, shape (n, dim); ``y`` if left out.
            tol: the residual that is accepted, relative to max(1, |y|); 1e-11 in float64 and 1e-4 in float32 if left out.
            max_iterations: Newton steps per point.

        Returns:
            A ConjugateSolution, which says of each point whether it is solved.

        Raises:
            ValueError: bad input, or the solver met negative curvature: Ψ_t is not convex.
        """
        y = self._points(y, "y").detach()
        t = check.time(t, n=len(y), like=y).detach().expand(len(y))
        start = y if start is None else self._points(start, "start").detach()
        if start.shape != y.shape:
            raise ValueError(f"start must have the shape of y, {tuple(y.shape)}, got {tuple(start.shape)}")
        tol = (1e-11 if y.dtype == torch.float64 else 1e-4) if tol is None else check.positive(tol, "tol")
        max_iterations = check.count(max_iterations, "max_iterations", least=0)
        return newton(Equation(self._gradient, self._hessian, t, y), start, tol=tol, max_iterations=max_iterations)

    def conjugate(self, y, *, start=None, tol: float | None = None, max_iterations: int = 100) -> tuple[Tensor, Tensor]:
        """The conjugate Ψ*(y) = max_z <y, z> - Ψ(z) and its maximiser ∇Ψ*(y).

        The value carries exact first derivatives in y and in the parameters by the envelope theorem (the maximiser is held
        fixed); the maximiser carries none, see :meth:`inverse_flow`. An inexact maximiser would make the value too small.

        Returns:
            The value, shape (n,), and the maximiser, shape (n, dim).

        Raises:
            ValueError: bad input or negative curvature. RuntimeError: a point is not solved to ``tol`` (see :meth:`solve`).

        >>> value, argmax = Quadratic(1, matrix=[[4.0]], offset=[1.0]).conjugate([[3.0]])
        >>> round(value.item(), 3), round(argmax.item(), 3)    # (y - 1)²/8 and (y - 1)/4
        (0.5, 0.5)
        """
        y = self._points(y, "y")
        z = self.solve(y, start=start, tol=tol, max_iterations=max_iterations).require().argmax
        return self._representable((y * z).sum(-1) - self._value(z), "y"), z

    def flow(self, t, x) -> Tensor:
        """The displacement interpolation (1 - t) x + t ∇Ψ(x) = ∇Ψ_t(x), shape (n, dim)."""
        x = self._points(x, "x")
        t = check.time(t, n=len(x), like=x).reshape(-1, 1)
        return (1 - t) * x + t * self._gradient(x)

    def inverse_flow(self, t, x, *, start=None, tol: float | None = None, max_iterations: int = 100) -> Tensor:
        """The point z whose flow passes through x at time t, (1 - t) z + t ∇Ψ(z) = x; at t = 1 it is ∇Ψ*(x).

        It carries exact first derivatives in t, in x and in the parameters by the implicit function theorem.

        Returns:
            Points, shape (n, dim).

        Raises:
            ValueError: bad input or negative curvature. RuntimeError: a point is not solved to ``tol`` (see :meth:`solve`).
        """
        x = self._points(x, "x")
        t = check.time(t, n=len(x), like=x).expand(len(x))
        z = self.solve(x, t=t, start=start, tol=tol, max_iterations=max_iterations).require().argmax
        # One more Newton step from the solution: it changes z by rounding, but as a function of (t, x, parameters) with the
        # solution and the Hessian held fixed its derivative is that of the implicit function theorem.
        equation = Equation(self._gradient, self._hessian, t, x)
        return z + equation.newton_step(z, equation.residual(z))


class Quadratic(ConvexPotential):
    """The potential Ψ(x) = ½ <x, A x> + <b, x> of an affine map x -> A x + b, with A = R Rᵀ + strength·I for free R.

    Args:
        dim: dimension d.
        matrix: A at the start, symmetric with eigenvalues above ``strength``; the identity if left out.
        offset: b at the start, shape (d,); zero if left out.
        strength: the part of A that training cannot remove, so that the conjugate stays finite.

    >>> Quadratic(2, matrix=[[2.0, 1.0], [1.0, 3.0]], offset=[0.0, 5.0]).gradient([[1.0, 0.0]]).detach().round(decimals=3)
    tensor([[2., 6.]], dtype=torch.float64)
    """

    def __init__(self, dim: int, *, matrix=None, offset=None, strength: float = 1e-6):
        super().__init__(dim)
        self.strength = check.positive(strength, "strength")
        refuse_graph(matrix, "matrix")
        refuse_graph(offset, "offset")
        matrix = check.covariance(torch.eye(dim) if matrix is None else matrix, "matrix", dim=dim)
        offset = torch.zeros(dim) if offset is None else offset
        offset = check.as_tensor(offset, "offset", like=matrix)
        if matrix.ndim != 2 or offset.shape != (dim,):
            shapes = f"{tuple(matrix.shape)} and {tuple(offset.shape)}"
            raise ValueError(f"matrix and offset must have shapes {(dim, dim)} and {(dim,)}, got {shapes}")
        root, info = torch.linalg.cholesky_ex(matrix - self.strength * torch.eye(dim).to(matrix))
        if info > 0:
            raise ValueError(f"matrix must have eigenvalues above strength = {self.strength:g}")
        self.root = nn.Parameter(root)
        self.offset = nn.Parameter(offset.detach().clone())

    @property
    def matrix(self) -> Tensor:
        """A = R Rᵀ + strength·I, shape (dim, dim)."""
        return self.root @ self.root.T + self.strength * torch.eye(self.dim).to(self.root)

    def _value(self, x: Tensor) -> Tensor:
        return 0.5 * (x @ self.root).square().sum(-1) + 0.5 * self.strength * x.square().sum(-1) + x @ self.offset

    def _gradient(self, x: Tensor) -> Tensor:
        return (x @ self.root) @ self.root.T + self.strength * x + self.offset

    def _hessian(self, x: Tensor) -> Tensor:
        return self.matrix.expand(len(x), -1, -1)

    def curvature(self) -> tuple[float, float]:
        """(α, β) with α I ≤ ∇²Ψ(x) ≤ β I for every x; here the extreme eigenvalues of A."""
        eigenvalues = torch.linalg.eigvalsh(self.matrix.detach())
        return eigenvalues[0].item(), eigenvalues[-1].item()


class LogSumExp(ConvexPotential):
    """A quadratic plus soft maxima of affine functions, Ψ(x) = ½<x, Ax> + <b, x> + Σ_h τ_h log Σ_k exp((<w_hk, x> + c_hk)/τ_h).

    Convex for every value of the parameters, with A = R Rᵀ + strength·I and τ_h = exp(θ_h). One head is the plain
    log-sum-exp; several heads with learned temperatures are the structured one.

    Args:
        dim: dimension d.
        pieces: affine functions per head (K).
        heads: soft maxima (H).
        matrix, offset: the quadratic part at the start, as in :class:`Quadratic`.
        temperature: τ of every head at the start.
        scale: the initial slopes w are normal with deviation scale/√d, the heights c with deviation scale; both are
            divided by the number of heads.
        strength: smallest eigenvalue of A that training can reach.
        generator: source of the initial values.
    """

    def __init__(
        self,
        dim: int,
        pieces: int,
        *,
        heads: int = 1,
        matrix=None,
        offset=None,
        temperature: float = 1.0,
        scale: float = 1.0,
        strength: float = 1e-2,
        generator: torch.Generator | None = None,
    ):
        super().__init__(dim)
        shape = (check.count(heads, "heads"), check.count(pieces, "pieces"))
        temperature, scale = check.positive(temperature, "temperature"), check.positive(scale, "scale") / heads
        self.quadratic = Quadratic(dim, matrix=matrix, offset=offset, strength=strength)
        normal = partial(randomness.normal, generator=generator, like=self.quadratic.root)
        self.slopes = nn.Parameter(scale / dim**0.5 * normal(*shape, dim))
        self.heights = nn.Parameter(scale * normal(*shape))
        self.log_temperature = nn.Parameter(torch.full_like(self.heights[:, 0], math.log(temperature)))

    def _scores(self, x: Tensor) -> Tensor:
        # The parameters are divided by the temperatures, not the scores: a pass over the largest array less.
        precision = (-self.log_temperature).exp()[:, None]
        slopes, heights = self.slopes * precision[:, :, None], self.heights * precision
        affine = torch.addmm(heights.flatten(), x, slopes.flatten(0, 1).T)
        return affine.unflatten(-1, heights.shape)

    def _value(self, x: Tensor) -> Tensor:
        return self.quadratic._value(x) + self._scores(x).logsumexp(-1) @ self.log_temperature.exp()

    def _gradient(self, x: Tensor) -> Tensor:
        shares = self._scores(x).softmax(-1)
        return self.quadratic._gradient(x) + shares.flatten(-2) @ self.slopes.flatten(0, 1)

    def _gradients(self) -> Callable[[Tensor], Tensor]:
        """``_gradient`` for the present parameters, faster where it is asked for many times; without derivatives."""
        scores = _Scores(self)
        slopes = scores.order(self.slopes.detach()).flatten(0, 1).T.contiguous()
        matrix, offset = self.quadratic.matrix.detach(), self.quadratic.offset.detach()

        def gradient(x: Tensor) -> Tensor:
            found = torch.addmm(offset, x, matrix)
            for part, place in zip(x.split(ROWS), found.split(ROWS), strict=True):
                # A product with a matrix of few columns is slow, that of few rows is not.
                place.add_((slopes @ scores.softmax(part).flatten(1).T).T)
            return found

        return gradient

    @torch.no_grad()
    def _accumulate(self, x: Tensor, weight: float) -> Tensor:
        """Add weight Σ ∂Ψ(x)/∂parameters to the parameters' ``grad``, which are there; returns weight Σ Ψ(x).

        In closed form: the heights' derivatives are the shares of the pieces, the slopes' the shares times x, and that of θ_h is
        τ_h (log Σ_k exp) - Σ_k (share) (affine function), whose sum over x needs no more than the two others.
        """
        scores, temperature, quadratic = _Scores(self), self.log_temperature.exp(), self.quadratic
        logarithms, derivatives = x.new_zeros(len(self.heights)), x.new_zeros(self.dim + 1, self.heights.numel())
        for part in x.split(ROWS):
            shares, log_sums = scores.shares(part)
            logarithms += log_sums.sum(0)
            derivatives.addmm_(torch.cat((part, torch.ones_like(part[:, :1])), 1).T, shares.flatten(1))
        derivatives = scores.order(derivatives.T.unflatten(0, scores.shape))
        slopes, heights = derivatives[:, :, :-1], derivatives[:, :, -1]
        values = temperature * logarithms
        affine = (self.slopes * slopes).sum((1, 2)) + (self.heights * heights).sum(1)
        image, total = x @ quadratic.root, x.sum(0)
        found = [
            (self.slopes, slopes),
            (self.heights, heights),
            (self.log_temperature, values - affine),
            (quadratic.root, x.T @ image),
            (quadratic.offset, total),
        ]
        for parameter, derivative in found:
            parameter.grad.add_(derivative, alpha=weight)
        squares = 0.5 * image.square().sum() + 0.5 * quadratic.strength * x.square().sum()
        return weight * (values.sum() + squares + total @ quadratic.offset)

    def _hessian(self, x: Tensor) -> Tensor:
        # Σ_h (the covariance of the slopes of head h under its softmax) / τ_h
        precision = (-self.log_temperature).exp()
        shares = self._scores(x).softmax(-1)
        slopes = self.slopes.flatten(0, 1)
        squares = (slopes[:, :, None] * slopes[:, None, :]).flatten(1)
        second = torch.addmm(self.quadratic.matrix.flatten(), (shares * precision[:, None]).flatten(-2), squares)
        first = torch.einsum("nhk,hkd->nhd", shares, self.slopes) * precision.sqrt()[:, None]
        hessian = second.unflatten(-1, (self.dim, self.dim))
        for mean in first.unbind(1):  # faster than a batched product of matrices this thin
            hessian = torch.addcmul(hessian, mean[:, :, None], mean[:, None, :], value=-1)
        return hessian

    def curvature(self) -> tuple[float, float]:
        """(α, β) with α I ≤ ∇²Ψ(x) ≤ β I for every x: a variance is at most a quarter of the squared range."""
        low, high = self.quadratic.curvature()
        diameters = torch.cdist(self.slopes.detach(), self.slopes.detach()).amax((-2, -1))
        return low, high + (diameters.square() / (4 * self.log_temperature.detach().exp())).sum().item()


class _Scores:
    """The scores of the pieces and their softmax for fixed parameters, in the order that is quicker: many heads go last."""

    def __init__(self, potential: LogSumExp):
        self.axis = 1 if len(potential.heights) >= 32 else 2  # of the pieces
        precision = (-potential.log_temperature.detach()).exp()[:, None]
        heights = self.order(potential.heights.detach() * precision)
        self.rows = self.order(potential.slopes.detach() * precision[:, :, None]).flatten(0, 1).T
        self.heights, self.shape = heights.flatten(), heights.shape

    def order(self, tensor: Tensor) -> Tensor:
        """From (heads, pieces, …) to the order of the scores, or back."""
        return tensor.transpose(0, 1) if self.axis == 1 else tensor

    def __call__(self, x: Tensor) -> Tensor:
        return torch.addmm(self.heights, x, self.rows).unflatten(1, self.shape)

    def softmax(self, x: Tensor) -> Tensor:
        """The share of each piece, shape (n, pieces, heads) or (n, heads, pieces)."""
        return self(x).softmax(self.axis) if self.heights.numel() <= 1024 else self.shares(x)[0]  # the faster of the two

    def shares(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The shares, and log Σ_k exp(score), shape (n, heads)."""
        scores = self(x)
        largest = scores.amax(self.axis, keepdim=True)
        total = scores.sub_(largest).exp_().sum(self.axis, keepdim=True)
        scores.div_(total)
        return scores, largest.add_(total.log_()).squeeze(self.axis)


class ICNN(ConvexPotential):
    """A quadratic plus a network that is convex in its input, Ψ(x) = ½<x, Ax> + <b, x> + <w, z_L>.

    The layers are z_0 = σ(B_0 x + c_0) and z_l = σ(W_l z_{l-1} + B_l x + c_l), with σ the softplus, and W_l = exp(·) and
    w = exp(·) positive: convex for every value of the parameters.

    Args:
        dim: dimension d.
        widths: units of the layers z_0, ..., z_L.
        matrix, offset: the quadratic part at the start, as in :class:`Quadratic`.
        scale: size of the network's initial gradient, roughly.
        strength: smallest eigenvalue of A that training can reach.
        generator: source of the initial values.
    """

    def __init__(
        self,
        dim: int,
        widths: Sequence[int] = (64, 64, 32),
        *,
        matrix=None,
        offset=None,
        scale: float = 1.0,
        strength: float = 1e-2,
        generator: torch.Generator | None = None,
    ):
        super().__init__(dim)
        widths = [check.count(width, "widths") for width in widths]
        if not widths:
            raise ValueError("widths must name at least one layer")
        scale = check.positive(scale, "scale")
        self.quadratic = Quadratic(dim, matrix=matrix, offset=offset, strength=strength)
        normal = partial(randomness.normal, generator=generator, like=self.quadratic.root)
        self.inputs = nn.ParameterList(nn.Parameter(normal(width, dim) / dim**0.5) for width in widths)
        self.biases = nn.ParameterList(nn.Parameter(normal(width)) for width in widths)
        self.log_weights = nn.ParameterList(
            nn.Parameter(0.5 * normal(after, before) - math.log(before)) for before, after in pairwise(widths)
        )
        self.log_output = nn.Parameter(0.5 * normal(widths[-1]) + math.log(2 * scale / widths[-1] ** 0.5))

    def _layers(self, x: Tensor) -> list[Tensor]:
        """What enters the softplus of each layer."""
        inner = [x @ self.inputs[0].T + self.biases[0]]
        # Not self.inputs[1:]: a part of a ParameterList cuts the graph of what torch.func puts in its place.
        for direct, bias, weight in zip(list(self.inputs)[1:], list(self.biases)[1:], self.log_weights, strict=True):
            inner.append(_softplus(inner[-1]) @ weight.exp().T + x @ direct.T + bias)
        return inner

    def _value(self, x: Tensor) -> Tensor:
        return self.quadratic._value(x) + _softplus(self._layers(x)[-1]) @ self.log_output.exp()

    def _sensitivities(self, slopes: list[Tensor]) -> list[Tensor]:
        """The derivative of the output in each layer z_l, last to first, given σ' at each layer."""
        sensitivity = [self.log_output.exp().expand_as(slopes[-1])]
        for slope, weight in zip(slopes[:0:-1], reversed(self.log_weights), strict=True):
            sensitivity.append((sensitivity[-1] * slope) @ weight.exp())
        return sensitivity[::-1]

    def _gradient(self, x: Tensor) -> Tensor:
        slopes = [torch.sigmoid(inner) for inner in self._layers(x)]
        gradient = self.quadratic._gradient(x)
        for slope, sensitivity, direct in zip(slopes, self._sensitivities(slopes), self.inputs, strict=True):
            gradient = gradient + (sensitivity * slope) @ direct
        return gradient

    def _hessian(self, x: Tensor) -> Tensor:
        # Σ_l Jᵀ diag(sensitivity · σ'') J over the layers, J the Jacobian of what enters the softplus
        slopes = [torch.sigmoid(inner) for inner in self._layers(x)]
        hessian, jacobian = self.quadratic._hessian(x), None
        for layer, (slope, sensitivity, direct) in enumerate(zip(slopes, self._sensitivities(slopes), self.inputs, strict=True)):
            if layer == 0:
                jacobian = direct.expand(len(x), -1, -1)
            else:
                jacobian = self.log_weights[layer - 1].exp() @ (slopes[layer - 1][:, :, None] * jacobian) + direct
            curvature = sensitivity * slope * (1 - slope)
            hessian = hessian + jacobian.mT @ (curvature[:, :, None] * jacobian)
        return hessian

    def curvature(self) -> tuple[float, float]:
        """(α, β) with α I ≤ ∇²Ψ(x) ≤ β I for every x, from σ' ≤ 1 and σ'' ≤ ¼ layer by layer (β is a crude bound)."""
        with torch.no_grad():
            low, high = self.quadratic.curvature()
            sensitivities = self._sensitivities([torch.ones_like(bias) for bias in self.biases])
            lengths = self.inputs[0].norm(dim=-1)
            high += 0.25 * (sensitivities[0] @ lengths.square()).item()
            for weight, direct, sensitivity in zip(self.log_weights, self.inputs[1:], sensitivities[1:], strict=True):
                lengths = weight.exp() @ lengths + direct.norm(dim=-1)
                high += 0.25 * (sensitivity @ lengths.square()).item()
        return low, high


def _softplus(x: Tensor) -> Tensor:
    # torch's softplus turns linear beyond a threshold, a jump of 2e-9 that finite differences see.
    return torch.logaddexp(x, torch.zeros_like(x))
