"""Amortised optimal transport: potentials of new problems, predicted from one-dimensional ones (arXiv 2604.15114).

The features of a problem are the potentials of its projections on L directions, the same for all problems, at its own atoms:
φ_l(x_i) = f_l(⟨θ_l, x_i⟩). The model is f = Σ_l α_l φ_l, with L numbers for problems of any size. They come from a regression
on potentials of solved problems (RA-OT) or from maximising the dual objective (OA-OT). The potential of the other side is the
entropic c-transform of f, and the plan is a_i b_j exp((f_i + g_j − c_ij)/ε).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from dynot_lite._base import checkpoints, randomness
from dynot_lite._base import checks as check
from dynot_lite._base.differentiation import refuse_graph
from dynot_lite._base.results import Result
from dynot_lite._base.samplers import PairSampler, Sampler
from dynot_lite.couplings import batches, plans
from dynot_lite.couplings.sliced import potentials_1d, soft_c_transform, squared_cost

__all__ = [
    "Coefficients",
    "ObjectiveAmortization",
    "Prediction",
    "Problem",
    "RegressionAmortization",
    "pair_sampler",
    "predict_from",
    "semidual",
]

# Enough for a bound of the order of the true gap in the tasks of notebook 09; each costs two products with the plan.
_CERTIFICATE_SWEEPS = 20


@dataclass(frozen=True, eq=False)
class Problem:
    """A transport problem between Σ a_i δ_(x_i) and Σ b_j δ_(y_j).

    Attributes:
        x0, x1: the points x and y, (n, d) and (m, d).
        weights0, weights1: probability weights a and b, (n,) and (m,); uniform if left out. Zeros are fine.
        cost: (n, m); ½‖x_i − y_j‖² if left out. Give it if the cost is another one, or if many problems share it.

    Raises ValueError for empty or non-finite points, dimensions that differ, weights of other total mass than 1, and a cost of
    the wrong shape.
    """

    x0: Tensor
    x1: Tensor
    weights0: Tensor = None  # pyright: ignore  # tensors after the checks
    weights1: Tensor = None  # pyright: ignore
    cost: Tensor = None  # pyright: ignore

    def __post_init__(self):
        refuse_graph(self.weights0, "weights0")
        refuse_graph(self.weights1, "weights1")
        x0 = check.points(self.x0, "x0")
        x1 = check.points(self.x1, "x1", dim=x0.shape[-1], like=x0)
        if x0.ndim != 2 or x1.ndim != 2:
            raise ValueError(f"x0 and x1 must have shapes (n, d) and (m, d), got {tuple(x0.shape)} and {tuple(x1.shape)}")
        cost = squared_cost(x0, x1) if self.cost is None else check.as_tensor(self.cost, "cost", like=x0)
        if cost.shape != (len(x0), len(x1)):
            raise ValueError(f"cost must have shape {(len(x0), len(x1))}, got {tuple(cost.shape)}")
        a, b = (
            z.new_full((len(z),), 1 / len(z)) if w is None else check.weights(w, len(z), name, like=x0)
            for w, z, name in ((self.weights0, x0, "weights0"), (self.weights1, x1, "weights1"))
        )
        for name, value in (("x0", x0), ("x1", x1), ("weights0", a), ("weights1", b), ("cost", cost)):
            object.__setattr__(self, name, value)

    def exact_plan(self, **options) -> plans.TransportPlan:
        """:func:`dynot_lite.couplings.plans.exact_plan` of the problem, with its ``options``."""
        return plans.exact_plan(**vars(self), **options)

    def entropic_plan(self, epsilon: float, **options) -> plans.TransportPlan:
        """:func:`dynot_lite.couplings.plans.entropic_plan` of the problem, with its ``options``."""
        return plans.entropic_plan(**vars(self), epsilon=epsilon, **options)


@dataclass(frozen=True, eq=False)
class Prediction:
    """A pair of entropic potentials for a problem, its plan, and a certificate of how far from optimal it can be.

    Attributes:
        problem, epsilon: what was to be solved: min E c + ε KL(π ‖ a⊗b).
        potential0, potential1: f (n,) with a·f = 0, and its entropic c-transform g (m,).
        plan: a_i b_j exp((f_i + g_j − c_ij)/ε), (n, m); its columns sum to b.
    """

    problem: Problem
    epsilon: float
    potential0: Tensor
    potential1: Tensor
    plan: Tensor

    @cached_property
    def row_error(self) -> float:
        """Σ_i |Σ_j plan_ij − a_i|: what the plan lacks to be a coupling."""
        return (self.plan.sum(1) - self.problem.weights0).abs().sum().item()

    @cached_property
    def dual(self) -> float:
        """a·f + b·g, a lower bound of the minimum."""
        return (self.problem.weights0 @ self.potential0 + self.problem.weights1 @ self.potential1).item()

    @cached_property
    def gap(self) -> float:
        """An upper bound of the minimum, minus ``dual``: no potential raises the dual by more. It needs no solution.

        The upper bound is the objective of a coupling made of the plan. A few Sinkhorn sweeps scale it to exact columns and
        better rows; rows that are still too heavy are scaled down, which leaves (1−δ)Q below both marginals; a product fills
        what is missing, π = (1−δ)Q + δ u⊗v. As KL is convex, the objective of π is at most (1−δ) that of Q plus δ that of u⊗v,
        and both have closed forms in the marginals, for Q is of the form of the plan.
        """
        a, b, epsilon = self.problem.weights0, self.problem.weights1, self.epsilon
        left, right = torch.ones_like(a), torch.ones_like(b)
        for _ in range(_CERTIFICATE_SWEEPS):
            left = _ratio(a, self.plan @ right)
            right = _ratio(b, left @ self.plan)
        left = torch.minimum(left, _ratio(a, self.plan @ right))
        rows, columns = left * (self.plan @ right), (left @ self.plan) * right
        kept, u, v = rows.sum(), (a - rows).clamp(min=0), (b - columns).clamp(min=0)
        upper = (
            rows @ (self.potential0 + epsilon * left.log())
            + columns @ (self.potential1 + epsilon * right.log())
            - epsilon * torch.xlogy(kept, kept)
        )
        if min(u.sum(), v.sum()) > 0:
            delta, u, v = u.sum(), u / u.sum(), v / v.sum()
            upper = upper + delta * (u @ self.problem.cost @ v + epsilon * (_relative_entropy(u, a) + _relative_entropy(v, b)))
        return max(upper.item() - self.dual, 0.0)


def predict_from(problem: Problem, potential0, epsilon: float, *, sweeps: int = 0) -> Prediction:
    """What a potential f (n,) yields: ``sweeps`` Sinkhorn sweeps, then the entropic c-transform and the plan."""
    epsilon, f = check.positive(epsilon, "epsilon"), _potential(problem, potential0)
    for _ in range(check.count(sweeps, "sweeps", least=0)):
        f = _sweep(problem, f, epsilon)
    f = f - problem.weights0 @ f
    g, kernel, sums = _transform(problem, f, epsilon)
    scale = problem.weights1 / sums
    return Prediction(problem, epsilon, f, g, kernel * scale if kernel.requires_grad else kernel.mul_(scale))


def semidual(problem: Problem, potential0, epsilon: float) -> tuple[Tensor, Tensor]:
    """The concave semi-dual a·f + b·g, g the entropic c-transform of f, and its gradient in f, a − (row sums of the plan)."""
    f = _potential(problem, potential0)
    g, kernel, sums = _transform(problem, f, check.positive(epsilon, "epsilon"))
    return problem.weights0 @ f + problem.weights1 @ g, problem.weights0 - kernel @ (problem.weights1 / sums)


@dataclass(frozen=True, eq=False, kw_only=True)
class Coefficients(Result):
    """What a fit has found: α (L,), the three numbers of ``extrapolate``, and the iterations of L-BFGS, 0 for a regression."""

    coefficients: Tensor
    extrapolation: Tensor
    iterations: int


class _SlicedModel:
    """A linear model of the potential on sliced features; a subclass says how coefficients are found.

    Attributes:
        directions: (L, d), shared by all problems.
        epsilon: ε of all problems.
        result: what the last fit has found, None before it.
    """

    def __init__(self, directions, *, epsilon: float, ridge: float = 1e-4):
        self.directions = check.squares(check.cloud(directions, "directions"), "directions")
        refuse_graph(self.directions, "directions")
        self.epsilon, self.ridge = check.positive(epsilon, "epsilon"), check.positive(ridge, "ridge")
        self.result: Coefficients | None = None

    @property
    def coefficients(self) -> Tensor:
        """α (L,) of the last fit."""
        return self._fitted().coefficients

    def features(self, problem: Problem) -> Tensor:
        """φ_l(x_i), (n, L): potentials of the projections for ½|·|², each with a-mean zero."""
        dim = self.directions.shape[-1]
        if problem.x0.shape[-1] != dim:
            raise ValueError(f"problem must have points of dimension {dim}, as the directions, got {problem.x0.shape[-1]}")
        turned = self.directions.to(problem.x0).mT
        weights = {"weights0": problem.weights0, "weights1": problem.weights1}
        return potentials_1d(problem.x0 @ turned, problem.x1 @ turned, **weights)

    def predict(self, problem: Problem, *, sweeps: int = 0) -> Prediction:
        """The predicted potentials and plan, after ``sweeps`` Sinkhorn sweeps, with the duality gap that they leave."""
        return predict_from(problem, self._sliced(problem, self.coefficients), self.epsilon, sweeps=sweeps)

    def extrapolate(self, problem: Problem) -> Prediction:
        """The prediction after two sweeps f0 → f1 → f2 and a learned step c0 f2 + c1 (f1 − f0) + c2 (f2 − f1) beyond them."""
        found = self._fitted()
        features = self._sweep_features(problem, found.coefficients)
        return predict_from(problem, features @ found.extrapolation.to(problem.x0), self.epsilon)

    @torch.no_grad()
    def _fit(self, problems: Sequence[Problem], solve: Callable[[list[Tensor], Tensor], tuple[Tensor, int, str]]) -> Coefficients:
        """Both sets of coefficients from ``solve``(features of all problems, the metric of their penalty).

        It returns the coefficients, the number of iterations, and why they are not what was asked for, or nothing.
        """
        if not problems:
            raise ValueError("problems must not be empty")

        def solved(features: list[Tensor]) -> tuple[Tensor, int, str]:
            metrics = [phi.mT @ (p.weights0[:, None] * phi) for phi, p in zip(features, problems, strict=True)]
            metric = torch.stack(metrics).sum(0)
            # Relative to each feature's own size, so that no unit matters; the last term keeps a feature that vanishes harmless.
            return solve(features, metric + (self.ridge * metric.diagonal() + 1e-30).diag())

        coefficients, iterations, failure = solved([self.features(p) for p in problems])
        extrapolation, more, another = solved([self._sweep_features(p, coefficients) for p in problems])
        self.result = Coefficients(
            coefficients=coefficients,
            extrapolation=extrapolation,
            iterations=iterations + more,
            converged=not (failure or another),
            reason=failure or another or "the optimality conditions hold",
        )
        return self.result

    def _fitted(self) -> Coefficients:
        if self.result is None:
            raise ValueError("the model must be fitted first")
        return self.result

    def _sliced(self, problem: Problem, coefficients: Tensor) -> Tensor:
        return self.features(problem) @ coefficients.to(problem.x0)

    def _sweep_features(self, problem: Problem, coefficients: Tensor) -> Tensor:
        f0 = self._sliced(problem, coefficients)
        f1 = _sweep(problem, f0, self.epsilon)
        f2 = _sweep(problem, f1, self.epsilon)
        features = torch.stack([f2, f1 - f0, f2 - f1], -1)
        return features - problem.weights0 @ features

    def save(self, path: str | Path) -> None:
        """Write the fitted model to ``path``, as plain tensors and numbers."""
        options = {"directions": self.directions, "epsilon": self.epsilon, "ridge": self.ridge}
        checkpoints.save({"model": type(self).__name__, "options": options, "result": vars(self._fitted())}, path)

    @classmethod
    def load(cls, path: str | Path):
        """The model that :meth:`save` wrote. Raises ValueError if the file is damaged or holds another kind of model."""
        state = checkpoints.read(path)
        if state.get("model") != cls.__name__:
            raise ValueError(f"path must hold a saved {cls.__name__}, got {path}")
        model = cls(**state["options"])
        model.result = Coefficients(**state["result"])
        return model


class RegressionAmortization(_SlicedModel):
    """RA-OT: ridge regression of entropic potentials on sliced ones, rows weighted by a, penalty relative to the features.

    Args:
        directions: (L, d), from :func:`dynot_lite.couplings.sliced.directions`.
        epsilon: ε, a property of the model: of its training potentials and of its predictions.
        ridge: the penalty, in units of each feature's mean square.
    """

    def fit(self, problems: Sequence[Problem], *, potentials: Sequence[Tensor] | None = None) -> Coefficients:
        """Learn from ``problems``, whose entropic plans are solved unless their ``potentials`` f are given.

        Raises:
            RuntimeError: a problem was not solved.
        """
        if potentials is None:
            potentials = [problem.entropic_plan(self.epsilon).require().potential0 for problem in problems]
        if len(potentials) != len(problems):
            raise ValueError(f"potentials must be one per problem, {len(problems)}, got {len(potentials)}")
        targets = [_potential(p, f) for f, p in zip(potentials, problems, strict=True)]

        def solve(features: list[Tensor], metric: Tensor) -> tuple[Tensor, int, str]:
            # The features have a-mean zero: a constant in the response has no effect.
            moment = sum(phi.mT @ (p.weights0 * f) for phi, p, f in zip(features, problems, targets, strict=True))
            return torch.linalg.solve(metric, moment), 0, ""

        return self._fit(problems, solve)


class ObjectiveAmortization(_SlicedModel):
    """OA-OT: the coefficients that maximise the mean dual a·f + b·g, g the entropic c-transform of f; no problem is solved.

    The objective is concave in the coefficients, so L-BFGS finds its maximum. Arguments as in :class:`RegressionAmortization`;
    here ``ridge`` only bounds the condition number of the change of variables.
    """

    def fit(self, problems: Sequence[Problem], *, tol: float = 1e-4, max_iterations: int = 500) -> Coefficients:
        """Learn from ``problems``; no potentials are needed.

        Args:
            tol: largest entry of the gradient at which to stop; about tol² ε of the dual objective is then left.
            max_iterations: of L-BFGS, in each of the two fits.

        Returns:
            The coefficients, not converged if L-BFGS did not reach the tolerance.
        """
        size = check.positive(tol, "tol") * math.sqrt(self.epsilon)
        options = {"maxiter": check.count(max_iterations, "max_iterations"), "gtol": size, "ftol": 0}

        def solve(features: list[Tensor], metric: Tensor) -> tuple[Tensor, int, str]:
            # The dual is curved like 1/ε times the mean square RᵀR of the features: in the variables Rα/√ε, by about 1.
            root = torch.linalg.cholesky(metric / (len(problems) * self.epsilon)).mT
            scaled = [torch.linalg.solve_triangular(root, phi, upper=True, left=False) for phi in features]

            def negative(z: np.ndarray) -> tuple[float, np.ndarray]:
                point = torch.from_numpy(z).to(metric)
                value, gradient = torch.zeros(()).to(point), torch.zeros_like(point)
                for phi, problem in zip(scaled, problems, strict=True):
                    each, slope = semidual(problem, phi @ point, self.epsilon)
                    value, gradient = value - each, gradient - phi.mT @ slope
                return value.item() / len(problems), (gradient / len(problems)).to(torch.float64).numpy(force=True)

            found = minimize(negative, np.zeros(len(metric)), jac=True, method="L-BFGS-B", options=options)
            failure = "" if found.success else f"L-BFGS stopped after {found.nit} iterations: {found.message}"
            solution = torch.linalg.solve_triangular(root, torch.from_numpy(found.x).to(metric)[:, None], upper=True)[:, 0]
            return solution, int(found.nit), failure

        return self._fit(problems, solve)


def pair_sampler(model: _SlicedModel, source: Sampler, target: Callable, *, sweeps: int = 1) -> PairSampler:
    """Pairs for flow matching from predicted plans: a sampler ``pairs(n, generator=) -> (x0, x1, *conditions)``.

    A batch is drawn from ``source`` and ``target``, as in :mod:`dynot_lite.couplings.batches` (labels and further conditions,
    too); each x1 keeps its place and draws its x0 from its column of the predicted plan. The columns are exact, and so is the
    law of x1; that of x0 is exact up to the row error of the plan, which ``sweeps`` reduce.
    """
    check.count(sweeps, "sweeps", least=0)

    @torch.no_grad()
    def match(x0: Tensor, x1: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        plan = model.predict(Problem(x0, x1), sweeps=sweeps).plan
        return randomness.choices(plan.mT, 1, generator=generator)[:, 0], torch.arange(len(x1), device=x1.device)

    return batches.paired(source, target, match)


def _potential(problem: Problem, potential0) -> Tensor:
    f = check.as_tensor(potential0, "potential0", like=problem.weights0)
    if f.shape != problem.weights0.shape:
        raise ValueError(f"potential0 must have shape {tuple(problem.weights0.shape)}, got {tuple(f.shape)}")
    return f


def _transform(problem: Problem, f: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """The entropic c-transform g of f; the plan up to a factor per column; the sums of those columns. One exponential for all."""
    kernel = torch.sub((f / epsilon + problem.weights0.log())[:, None], problem.cost, alpha=1 / epsilon)
    largest = kernel.detach().amax(0)  # it cancels
    kernel = kernel.sub_(largest).exp_()
    sums = kernel.sum(0)
    return -epsilon * (largest + sums.log()), kernel, sums


def _sweep(problem: Problem, f: Tensor, epsilon: float) -> Tensor:
    g = soft_c_transform(problem.cost, f, epsilon, weights=problem.weights0)
    return soft_c_transform(problem.cost.mT, g, epsilon, weights=problem.weights1)


def _ratio(wanted: Tensor, sums: Tensor) -> Tensor:
    """wanted/sums, and 1 where there is nothing to scale."""
    return torch.where((wanted > 0) & (sums > 1e-200), wanted / sums, 1.0)


def _relative_entropy(u: Tensor, a: Tensor) -> Tensor:
    return (torch.xlogy(u, u) - torch.xlogy(u, a)).sum()
