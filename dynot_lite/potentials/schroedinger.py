"""Actions of Schrödinger bridges whose potential is a Gaussian mixture, and their fit to samples.

The reference is σ times a Brownian motion that starts with the law of x0, and ε = σ². For a density v put
s_1 = ε log v + ½|·|² and s_t(x) = ε log E exp(s_1(x + σ√(1 − t) ξ)/ε), ξ standard normal. Then ∂_t s + ½|∇s|² + ½εΔs = 0: the
interior of the entropic action matching loss vanishes whatever the path, and E s_0(x0) − E s_1(x1) is left, the twin of the
semi-dual. Its minimum is −½∫E|u|² dt, u being the drift of the bridge, and what is above it ε KL(π ‖ π_s) for the entropic plan
π. For a mixture v all of it has a closed form (Korotin, Gushchin, Burnaev, *Light Schrödinger Bridge*, 2024).
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base import randomness
from dynot_lite._base.differentiation import recording
from dynot_lite._base.results import Result
from dynot_lite.laws.linear_algebra import posterior
from dynot_lite.laws.mixtures import GaussianMixture

__all__ = ["BridgeFit", "SchroedingerAction", "dual_loss", "fit"]

PART = 2**22
"""So many numbers are held at once where components and points are paired."""
FLOOR = 1e-3
"""Least eigenvalue of the covariances of a fit, in units of ε: no component falls onto a sample, where the loss has no bound."""


class SchroedingerAction:
    """The action of the Schrödinger bridge with v = Σ_k w_k N(r_k, S_k): an action at all times from 0 to 1 inclusive.

    Its velocity ∇s_t is the drift of the bridge, dX = ∇s_t(X) dt + σ dW; from x at time 0 the bridge ends with the law
    Σ_k w_k(x) N(r_k + S_k x/ε, S_k), w_k(x) ∝ w_k exp(⟨x, r_k⟩/ε + ⟨x, S_k x⟩/2ε²). A factor of v adds a constant to s, which
    changes no derivative and no loss: the mixture is normalised. Methods take a time, or one for each point, and hold K d numbers
    for each point (K d² with times of their own), in parts. First derivatives in t, x and the mixture's tensors are exact.

    Args:
        mixture: v, with definite covariances.
        sigma: σ > 0, not differentiated.

    Raises:
        ValueError: a singular covariance, a sigma that is not positive.

    >>> one = GaussianMixture([1.0], [[1.0]], [[[2.0]]])
    >>> SchroedingerAction(one, 1.0).velocity(0.0, [[0.0], [3.0]])  # x1 given x0 is N(1 + 2 x0, 2)
    tensor([[1.],
            [4.]], dtype=torch.float64)
    """

    def __init__(self, mixture: GaussianMixture, sigma: float):
        if not mixture.components.definite:
            raise ValueError("mixture must have definite covariances")
        self.mixture, self.sigma = mixture, check.positive(sigma, "sigma")

    def value(self, t, x) -> Tensor:
        """s_t(x), shape (n,)."""
        return self._in_parts(lambda terms: self.sigma**2 * self._posterior(terms)[1], t, x)

    def velocity(self, t, x) -> Tensor:
        """∇s_t(x), shape (n, d): the drift."""

        def drift(terms):
            _, to_mean, to_point, _, _ = terms
            return (self._posterior(terms)[0].unsqueeze(-1) * (self.sigma**2 * to_mean + to_point)).sum(1)

        return self._in_parts(drift, t, x)

    def time_derivative(self, t, x) -> Tensor:
        """∂_t s_t(x) at fixed x, shape (n,)."""

        def slope(terms):
            # With C = ε(1 − t) I + tS and D = S − εI: ∂_t C⁻¹ = −C⁻¹ D C⁻¹, and all of these commute.
            _, to_mean, to_point, trace, t = terms
            bent = 0.5 * t * (to_mean * torch.einsum("kij,nkj->nki", self._excess, to_mean)).sum(-1)
            means = (to_mean * (0.5 * self.mixture.means + to_point)).sum(-1)
            points = to_point.square().sum(-1) / (2 * self.sigma**2) + 0.5 * trace
            return self.sigma**2 * (self._posterior(terms)[0] * (bent - means - points)).sum(1)

        return self._in_parts(slope, t, x)

    def mean(self, x0) -> Tensor:
        """E[x1 | x0] under the plan of this action, shape (n, d) -> (n, d)."""
        return self._cloud(x0, "x0") + self.velocity(0.0, x0)

    def sample(self, x0, *, generator: torch.Generator | None = None) -> Tensor:
        """For each point an x1 from the plan of this action, shape (n, d) -> (n, d); no graph."""
        with torch.no_grad():
            x, t = self._cloud(x0, "x0"), torch.zeros(()).to(self.mixture.means)
            shares = torch.cat([self._posterior(self._terms(t, part))[0] for part in x.split(self._rows(t))])
            chosen = randomness.choices(shares, 1, generator=generator)[:, 0]
            spread, noise = self.mixture.components.factor[chosen], randomness.normal(*x.shape, generator=generator, like=x)
            moved = (self.mixture.covs[chosen] @ x.unsqueeze(-1) / self.sigma**2 + spread @ noise.unsqueeze(-1)).squeeze(-1)
            return check.representable(self.mixture.means[chosen] + moved, "the numbers of mixture and x0")

    @property
    def _excess(self) -> Tensor:
        """S_k − εI."""
        covs = self.mixture.covs
        return covs - self.sigma**2 * torch.eye(covs.shape[-1]).to(covs)

    def _terms(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """log of the K integrals without their weights, (n, K); C⁻¹r and C⁻¹Dx, (n, K, d); tr C⁻¹D; and t, to be multiplied.

        With C = ε(1 − t) I + tS the k-th integral is exp(⟨x, C⁻¹r⟩ − t⟨r, C⁻¹r⟩/2 + ⟨x, C⁻¹Dx⟩/2ε) / √det 2πC, at all times.
        """
        means, covs, variance = self.mixture.means, self.mixture.covs, self.sigma**2
        each = t.reshape(-1, 1, 1, 1)  # matrices for each component, or for each point and component
        spread = (1 - each) * variance * torch.eye(covs.shape[-1]).to(covs) + each * covs
        factor = torch.linalg.cholesky(spread)
        inverse = torch.cholesky_inverse(factor)
        moved = torch.einsum("kij,nj->nki", self._excess, x)
        to_point = torch.einsum("nkij,nkj->nki", inverse, moved)
        to_mean = (inverse @ means.unsqueeze(-1)).squeeze(-1)
        t = t.reshape(-1, 1)
        value = (x.unsqueeze(1) * (to_mean + to_point / (2 * variance))).sum(-1) - 0.5 * t * (means * to_mean).sum(-1)
        logdet = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) + x.shape[1] * math.log(2 * math.pi)
        trace = (inverse * self._excess).sum((-2, -1))
        return value - 0.5 * logdet, to_mean, to_point, trace, t

    def _posterior(self, terms) -> tuple[Tensor, Tensor]:
        shares, total = posterior(self.mixture.weights, terms[0].mT)
        return shares.mT, total

    def _arguments(self, t, x) -> tuple[Tensor, Tensor]:
        x = self._cloud(x, "x")
        return check.time(t, n=len(x), like=x), x

    def _cloud(self, x, name: str) -> Tensor:
        return check.squares(check.cloud(x, name, dim=self.mixture.means.shape[1], like=self.mixture.means), name)

    def _rows(self, t: Tensor) -> int:
        return max(1, PART // (self.mixture.covs.numel() if t.ndim else self.mixture.means.numel()))

    def _in_parts(self, function, t, x) -> Tensor:
        t, x = self._arguments(t, x)
        rows = self._rows(t)
        parts = zip(t.split(rows) if t.ndim else itertools.repeat(t), x.split(rows), strict=False)
        return check.representable(torch.cat([function(self._terms(*part)) for part in parts]), "the numbers of mixture and x")


def dual_loss(action: SchroedingerAction, x0, x1) -> Tensor:
    """E s_0(x0) − E s_1(x1), a scalar: the entropic action matching loss of the action along every path from x0 to x1.

    In the field's terms ε L_LightSB − ½(E|x0|² + E|x1|²) − (dε/2) log 2πε, with L_LightSB = E log c(x0) − E log v(x1). Samples
    (n, d) and (m, d), unpaired; differentiable as the values are.
    """
    return action.value(0.0, x0).mean() - action.value(1.0, x1).mean()


@dataclass(frozen=True, eq=False, kw_only=True)
class BridgeFit(Result):
    """A learnt Schrödinger bridge.

    Attributes:
        action: the bridge.
        loss: :func:`dual_loss` at the samples of the fit.
        iterations: of L-BFGS.
    """

    action: SchroedingerAction
    loss: float
    iterations: int


@recording()
def fit(
    x0,
    x1,
    *,
    sigma: float,
    components: int = 10,
    tol: float = 1e-5,
    max_iterations: int = 500,
    generator: torch.Generator | None = None,
) -> BridgeFit:
    """Learn the Schrödinger bridge between two laws from unpaired samples (n, d) and (m, d), by L-BFGS on :func:`dual_loss`.

    Computed in float64, on the CPU; nK numbers and nKd for each evaluation. Too many components fit the samples, not the laws.

    Args:
        sigma: of the reference; below about a fifth of the distance between neighbouring modes the fit becomes hard.
        components: K; they start at points of x1, with covariance ½ε I and equal weights.
        tol: of the largest derivative of the loss by a parameter, in units in which σ is 1.

    Returns:
        The bridge; ``converged`` says whether the tolerance was met in ``max_iterations``.

    Raises:
        ValueError: samples that are no clouds of one dimension, fewer points in x1 than components, options out of range.
    """
    x1 = check.cloud(x1, "x1")
    x0 = check.cloud(x0, "x0", dim=x1.shape[1], like=x1)
    sigma, count, tol = check.positive(sigma, "sigma"), check.count(components, "components"), check.positive(tol, "tol")
    if count > len(x1):
        raise ValueError(f"components must be at most the number of points of x1, got {count} and {len(x1)}")
    kind, dim = x1, x1.shape[1]
    # In units of σ, where ε = 1: the numbers of the optimiser have no unit.
    x0, x1 = (check.squares(x.detach().cpu().double() / sigma, name) for x, name in ((x0, "x0"), (x1, "x1")))
    start = x1[torch.as_tensor(randomness.permutation(len(x1), generator=generator))[:count].cpu()]
    shapes = ((count,), (count, dim), (count, dim, dim))
    guess = (torch.zeros(count).double(), start, (0.5**0.5 * torch.eye(dim).double()).expand(count, dim, dim))

    def action(numbers: Tensor, unit: float = 1.0) -> SchroedingerAction:
        logits, means, roots = (
            part.reshape(shape)
            for part, shape in zip(numbers.split([np.prod(shape).item() for shape in shapes]), shapes, strict=True)
        )
        covs = roots @ roots.mT + FLOOR * torch.eye(dim).double()
        mixture = GaussianMixture(logits.softmax(0).to(kind), (unit * means).to(kind), (unit**2 * covs).to(kind))
        return SchroedingerAction(mixture, unit)

    def loss(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        at = torch.tensor(numbers, requires_grad=True)
        found = dual_loss(action(at), x0, x1)
        return found.item(), torch.autograd.grad(found, at)[0].numpy()

    begin = torch.cat([part.flatten() for part in guess]).numpy()
    options = {"maxiter": check.count(max_iterations, "max_iterations"), "gtol": tol, "ftol": 0.0, "maxfun": 10**9}
    found = minimize(loss, begin, jac=True, method="L-BFGS-B", options=options)
    steep = float(np.abs(found.jac).max())
    reason = f"the largest derivative is {steep:.3g} after {found.nit} iterations, tol is {tol:g}"
    learnt = action(torch.tensor(found.x), sigma)
    return BridgeFit(
        action=learnt, loss=float(found.fun) * sigma**2, iterations=int(found.nit), converged=steep <= tol, reason=reason
    )
