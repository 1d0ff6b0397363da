"""Amortised optimal transport: potentials of new problems, predicted from one-dimensional ones (arXiv 2604.15114).

The features of a problem are the potentials of its projections on L directions, the same for all problems, at its own atoms:
φ_l(x_i) = f_l(⟨θ_l, x_i⟩). The model is f = Σ_l α_l φ_l, with L numbers for problems of any size. They come from a regression
on potentials of solved problems (RA-OT) or from maximising the dual objective (OA-OT). The potential of the other side is the
entropic c-transform of f, and the plan is a_i b_j exp((f_i + g_j − c_ij)/ε).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import ot
import torch
from scipy.optimize import minimize
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite.couplings.sliced import c_transform, potentials_1d, soft_c_transform, squared_cost

__all__ = [
    "ObjectiveAmortization",
    "Prediction",
    "Problem",
    "RegressionAmortization",
    "SinkhornResult",
    "pair_sampler",
    "predict_from",
    "semidual",
    "sinkhorn",
    "solve_exact",
]

# Enough for a bound of the order of the true gap in the tasks of notebook 09; each costs two products with the plan.
_CERTIFICATE_SWEEPS = 20


@dataclass(frozen=True, eq=False)
class Problem:
    """A transport problem between Σ a_i δ_(x_i) and Σ b_j δ_(y_j).

    Attributes:
        x, y: points, (n, d) and (m, d).
        a, b: probability weights, (n,) and (m,); uniform if left out. Zeros are fine.
        cost: (n, m); ½‖x_i − y_j‖² if left out. Give it if the cost is another one, or if many problems share it.

    Raises ValueError for empty or non-finite points, dimensions that differ, weights of other total mass than 1, and a cost of
    the wrong shape.
    """

    x: Tensor
    y: Tensor
    a: Tensor | None = None
    b: Tensor | None = None
    cost: Tensor | None = None

    def __post_init__(self):
        x = check.points(self.x, "x")
        y = check.points(self.y, "y", dim=x.shape[-1], like=x)
        if x.ndim != 2 or y.ndim != 2:
            raise ValueError(f"x and y must have shapes (n, d) and (m, d), got {tuple(x.shape)} and {tuple(y.shape)}")
        cost = squared_cost(x, y) if self.cost is None else check.as_tensor(self.cost, "cost", like=x)
        if cost.shape != (len(x), len(y)):
            raise ValueError(f"cost must have shape {(len(x), len(y))}, got {tuple(cost.shape)}")
        a, b = (
            z.new_full((len(z),), 1 / len(z)) if w is None else check.weights(w, len(z), name, like=x)
            for w, z, name in ((self.a, x, "a"), (self.b, y, "b"))
        )
        for name, value in (("x", x), ("y", y), ("a", a), ("b", b), ("cost", cost)):
            object.__setattr__(self, name, value)


@dataclass(frozen=True, eq=False)
class Prediction:
    """A pair of entropic potentials for a problem, its plan, and a certificate of how far from optimal it can be.

    Attributes:
        problem, epsilon: what was to be solved: min E c + ε KL(π ‖ a⊗b).
        f, g: potentials, (n,) and (m,), with a·f = 0 and g the entropic c-transform of f.
        plan: a_i b_j exp((f_i + g_j − c_ij)/ε), (n, m); its columns sum to b.
    """

    problem: Problem
    epsilon: float
    f: Tensor
    g: Tensor
    plan: Tensor

    @cached_property
    def row_error(self) -> float:
        """Σ_i |Σ_j plan_ij − a_i|: what the plan lacks to be a coupling."""
        return (self.plan.sum(1) - self.problem.a).abs().sum().item()

    @cached_property
    def dual(self) -> float:
        """a·f + b·g, a lower bound of the minimum."""
        return (self.problem.a @ self.f + self.problem.b @ self.g).item()

    @cached_property
    def gap(self) -> float:
        """An upper bound of the minimum, minus ``dual``: no potential raises the dual by more. It needs no solution.

        The upper bound is the objective of a coupling made of the plan. A few Sinkhorn sweeps scale it to exact columns and
        better rows; rows that are still too heavy are scaled down, which leaves (1−δ)Q below both marginals; a product fills
        what is missing, π = (1−δ)Q + δ u⊗v. As KL is convex, the objective of π is at most (1−δ) that of Q plus δ that of u⊗v,
        and both have closed forms in the marginals, for Q is of the form of the plan.
        """
        a, b, epsilon = self.problem.a, self.problem.b, self.epsilon
        left, right = torch.ones_like(a), torch.ones_like(b)
        for _ in range(_CERTIFICATE_SWEEPS):
            left = _ratio(a, self.plan @ right)
            right = _ratio(b, left @ self.plan)
        left = torch.minimum(left, _ratio(a, self.plan @ right))
        rows, columns = left * (self.plan @ right), (left @ self.plan) * right
        kept, u, v = rows.sum(), (a - rows).clamp(min=0), (b - columns).clamp(min=0)
        upper = (
            rows @ (self.f + epsilon * left.log())
            + columns @ (self.g + epsilon * right.log())
            - epsilon * torch.xlogy(kept, kept)
        )
        if min(u.sum(), v.sum()) > 0:
            delta, u, v = u.sum(), u / u.sum(), v / v.sum()
            upper = upper + delta * (u @ self.problem.cost @ v + epsilon * (_relative_entropy(u, a) + _relative_entropy(v, b)))
        return max(upper.item() - self.dual, 0.0)


def predict_from(problem: Problem, f, epsilon: float, *, sweeps: int = 0) -> Prediction:
    """What the potential f (n,) yields: ``sweeps`` Sinkhorn sweeps, then the entropic c-transform and the plan."""
    epsilon = check.positive(epsilon, "epsilon")
    a, b = problem.a, problem.b
    f = check.as_tensor(f, "f", like=a)
    if f.shape != a.shape:
        raise ValueError(f"f must have shape {tuple(a.shape)}, got {tuple(f.shape)}")
    for _ in range(check.count(sweeps, "sweeps", least=0)):
        f = _sweep(problem, f, epsilon)
    f = f - a @ f
    g, kernel, sums = _transform(problem, f, epsilon)
    return Prediction(problem, epsilon, f, g, kernel.mul_(b / sums))


@dataclass(frozen=True, eq=False)
class SinkhornResult:
    """Entropic potentials of a solved problem: a·f = 0, columns of the plan exact, rows to ``row_error`` in L1."""

    f: Tensor
    g: Tensor
    iterations: int
    row_error: float


def sinkhorn(problem: Problem, epsilon: float, *, start=None, tol: float = 1e-6, max_iterations: int = 20000) -> SinkhornResult:
    """Solve E c + ε KL(π ‖ a⊗b) to an L1 row error of ``tol``, from the potential ``start`` (n,) (zeros if left out).

    The iteration scales a kernel. Before a scaling can under- or overflow, one iteration in the log domain takes its place and
    the kernel is computed anew: every ε > 0 is safe. An iteration updates both potentials; the first c-transform is not counted.

    Raises:
        ValueError: bad input. RuntimeError: the tolerance is not met after ``max_iterations``.
    """
    epsilon, tol = check.positive(epsilon, "epsilon"), check.positive(tol, "tol")
    a, b, cost = problem.a, problem.b, problem.cost
    f = torch.zeros_like(a) if start is None else check.as_tensor(start, "start", like=a)
    if f.shape != a.shape:
        raise ValueError(f"start must have shape {tuple(a.shape)}, got {tuple(f.shape)}")
    g = soft_c_transform(cost, f, a, epsilon)
    kernel = None
    for iteration in range(check.count(max_iterations, "max_iterations") + 1):
        if kernel is None:
            kernel, u, v = ((f[:, None] + g - cost) / epsilon).exp(), torch.ones_like(a), torch.ones_like(b)
            to_rows, to_columns = kernel * b, (kernel * a[:, None]).mT.contiguous()
        rows = to_rows @ v
        error = (a @ (u * rows - 1).abs()).item()
        if error <= tol:
            f, g = f + epsilon * u.log(), g + epsilon * v.log()
            shift = a @ f
            return SinkhornResult(f - shift, g + shift, iteration, error)
        smallest, largest = (end.item() for end in torch.aminmax(rows))
        if smallest > 1e-30 and largest < 1e30:
            # Then v is as safe as u: the columns of ``kernel`` have the weighted sum 1.
            u = rows.reciprocal()
            v = (to_columns @ u).reciprocal()
        else:
            f = soft_c_transform(cost.mT, g + epsilon * v.log(), b, epsilon)
            g = soft_c_transform(cost, f, a, epsilon)
            kernel = None
    raise RuntimeError(f"Sinkhorn's iteration has a row error of {error:.1e} after {max_iterations} iterations, not {tol:.1e}")


def solve_exact(problem: Problem, *, start=None, max_iterations: int = 1_000_000) -> tuple[Tensor, float]:
    """An optimal plan (n, m) without entropy and its cost Σ c π, by network simplex, from the potential ``start`` (n,) if given.

    Raises:
        RuntimeError: the solver did not finish.
    """
    a, b, cost = (w.to(torch.float64).numpy(force=True) for w in (problem.a, problem.b, problem.cost))
    if start is not None:
        start = check.as_tensor(start, "start", like=problem.a)
        start = tuple(w.to(torch.float64).numpy(force=True) for w in (start, c_transform(problem.cost, start)))
    with warnings.catch_warnings():  # what it warns of is raised below
        warnings.simplefilter("ignore")
        plan, log = ot.emd(a, b, cost, numItermax=max_iterations, log=True, check_marginals=False, potentials_init=start)
    if log["warning"] is not None:
        raise RuntimeError(f"the exact solver did not finish: {log['warning']}")
    return torch.from_numpy(plan).to(problem.cost), float(log["cost"])


class _SlicedModel:
    """A linear model of the potential on sliced features; a subclass says how coefficients are found.

    Attributes:
        directions: (L, d), shared by all problems.
        epsilon: ε of all problems.
        coefficients: α (L,), None before ``fit``.
        extrapolation: three numbers for :meth:`extrapolate`, None before ``fit``.
    """

    def __init__(self, directions, *, epsilon: float, ridge: float = 1e-4):
        self.directions = check.points(directions, "directions")
        if self.directions.ndim != 2:
            raise ValueError(f"directions must have shape (L, d), got {tuple(self.directions.shape)}")
        self.epsilon, self.ridge = check.positive(epsilon, "epsilon"), check.positive(ridge, "ridge")
        self.coefficients: Tensor | None = None
        self.extrapolation: Tensor | None = None

    def features(self, problem: Problem) -> Tensor:
        """φ_l(x_i), (n, L): potentials of the projections for ½|·|², each with a-mean zero."""
        dim = self.directions.shape[-1]
        if problem.x.shape[-1] != dim:
            raise ValueError(f"problem must have points of dimension {dim}, as the directions, got {problem.x.shape[-1]}")
        turned = self.directions.to(problem.x).mT
        return potentials_1d(problem.x @ turned, problem.y @ turned, problem.a, problem.b)

    def predict(self, problem: Problem, *, sweeps: int = 0) -> Prediction:
        """The predicted potentials and plan, after ``sweeps`` Sinkhorn sweeps, with the duality gap that they leave."""
        return predict_from(problem, self._potential(problem), self.epsilon, sweeps=sweeps)

    def extrapolate(self, problem: Problem) -> Prediction:
        """The prediction after two sweeps f0 → f1 → f2 and a learned step c0 f2 + c1 (f1 − f0) + c2 (f2 − f1) beyond them."""
        return predict_from(problem, self._sweep_features(problem) @ self.extrapolation.to(problem.x), self.epsilon)

    def _fit(self, problems: Sequence[Problem], solve: Callable[[list[Tensor], Tensor], Tensor]) -> None:
        """Both sets of coefficients from ``solve``(features of all problems, the metric of their penalty)."""
        if not problems:
            raise ValueError("problems must not be empty")

        def coefficients(features: list[Tensor]) -> Tensor:
            metric = sum(phi.mT @ (p.a[:, None] * phi) for phi, p in zip(features, problems, strict=True))
            # Relative to each feature's own size, so that no unit matters; the last term keeps a feature that vanishes harmless.
            penalty = self.ridge * metric.diagonal() + 1e-30
            return solve(features, metric + penalty.diag())

        self.coefficients = coefficients([self.features(p) for p in problems])
        self.extrapolation = coefficients([self._sweep_features(p) for p in problems])

    def _potential(self, problem: Problem) -> Tensor:
        if self.coefficients is None:
            raise ValueError("the model must be fitted first")
        return self.features(problem) @ self.coefficients.to(problem.x)

    def _sweep_features(self, problem: Problem) -> Tensor:
        f0 = self._potential(problem)
        f1 = _sweep(problem, f0, self.epsilon)
        f2 = _sweep(problem, f1, self.epsilon)
        features = torch.stack([f2, f1 - f0, f2 - f1], -1)
        return features - problem.a @ features

    def save(self, path: str | Path) -> None:
        """Write the fitted model to ``path``, as plain tensors and numbers."""
        names = ("directions", "epsilon", "ridge", "coefficients", "extrapolation")
        torch.save({"model": type(self).__name__} | {name: getattr(self, name) for name in names}, path)

    @classmethod
    def load(cls, path: str | Path):
        """The model that :meth:`save` wrote. Raises ValueError if the file holds another kind of model."""
        state = torch.load(path, weights_only=True)
        if not isinstance(state, dict) or state.get("model") != cls.__name__:
            raise ValueError(f"path must hold a saved {cls.__name__}, got {path}")
        model = cls(state["directions"], epsilon=state["epsilon"], ridge=state["ridge"])
        model.coefficients, model.extrapolation = state["coefficients"], state["extrapolation"]
        return model


class RegressionAmortization(_SlicedModel):
    """RA-OT: ridge regression of entropic potentials on sliced ones, rows weighted by a, penalty relative to the features.

    Args:
        directions: (L, d), from :func:`dynot_lite.couplings.sliced.directions`.
        epsilon: ε, a property of the model: of its training potentials and of its predictions.
        ridge: the penalty, in units of each feature's mean square.
    """

    def fit(self, problems: Sequence[Problem], *, potentials: Sequence[Tensor] | None = None) -> RegressionAmortization:
        """Learn from ``problems``, solved by :func:`sinkhorn` unless their ``potentials`` f are given; returns the model."""
        if potentials is None:
            potentials = [sinkhorn(problem, self.epsilon).f for problem in problems]
        if len(potentials) != len(problems):
            raise ValueError(f"potentials must be one per problem, {len(problems)}, got {len(potentials)}")
        targets = [check.as_tensor(f, "potentials", like=p.a) for f, p in zip(potentials, problems, strict=True)]

        def solve(features: list[Tensor], metric: Tensor) -> Tensor:
            # The features have a-mean zero: a constant in the response has no effect.
            moment = sum(phi.mT @ (p.a * f) for phi, p, f in zip(features, problems, targets, strict=True))
            return torch.linalg.solve(metric, moment)

        self._fit(problems, solve)
        return self


class ObjectiveAmortization(_SlicedModel):
    """OA-OT: the coefficients that maximise the mean dual a·f + b·g, g the entropic c-transform of f; no problem is solved.

    The objective is concave in the coefficients, so L-BFGS finds its maximum. Arguments as in :class:`RegressionAmortization`;
    here ``ridge`` only bounds the condition number of the change of variables.
    """

    def fit(self, problems: Sequence[Problem], *, tol: float = 1e-4, max_iterations: int = 500) -> ObjectiveAmortization:
        """Learn from ``problems`` (no potentials are needed); returns the model.

        Args:
            tol: largest entry of the gradient at which to stop; about tol² ε of the dual objective is then left.

        Raises:
            RuntimeError: L-BFGS did not reach the tolerance.
        """

        def solve(features: list[Tensor], metric: Tensor) -> Tensor:
            # The dual is curved like 1/ε times the mean square RᵀR of the features: in the variables Rα/√ε, by about 1.
            root = torch.linalg.cholesky(metric / (len(problems) * self.epsilon)).mT
            scaled = [torch.linalg.solve_triangular(root, phi, upper=True, left=False) for phi in features]

            def negative(z: np.ndarray) -> tuple[float, np.ndarray]:
                z = torch.from_numpy(z).to(metric)
                value, gradient = torch.zeros(()).to(z), torch.zeros_like(z)
                for phi, problem in zip(scaled, problems, strict=True):
                    each, slope = semidual(problem, phi @ z, self.epsilon)
                    value, gradient = value - each, gradient - phi.mT @ slope
                return value.item() / len(problems), (gradient / len(problems)).to(torch.float64).numpy(force=True)

            found = minimize(
                negative,
                np.zeros(len(metric)),
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": max_iterations, "gtol": tol * self.epsilon**0.5, "ftol": 0},
            )
            if not found.success:
                raise RuntimeError(f"L-BFGS did not converge in {found.nit} iterations: {found.message}")
            return torch.linalg.solve_triangular(root, torch.from_numpy(found.x).to(metric)[:, None], upper=True)[:, 0]

        self._fit(problems, solve)
        return self


def semidual(problem: Problem, f: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The concave semi-dual a·f + b·g, g the entropic c-transform of f, and its gradient in f, a − (row sums of the plan)."""
    g, kernel, sums = _transform(problem, f, epsilon)
    return problem.a @ f + problem.b @ g, problem.a - kernel @ (problem.b / sums)


def pair_sampler(model, source: Callable, target: Callable, *, sweeps: int = 1) -> Callable[..., tuple[Tensor, Tensor]]:
    """Pairs for flow matching from predicted plans: a sampler ``pairs(n, generator=) -> (x0, x1)``, both (n, d).

    A batch is drawn from ``source`` and ``target`` (callables ``(n, generator=) -> (n, d)``); each x1 keeps its place and draws
    its x0 from its column of the predicted plan. The columns are exact, and so is the law of x1; that of x0 is exact up to
    the row error of the plan, which ``sweeps`` reduce.
    """

    def pairs(n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        x0, x1 = source(n, generator=generator), target(n, generator=generator)
        plan = model.predict(Problem(x0, x1), sweeps=sweeps).plan
        return x0[torch.multinomial(plan.mT, 1, generator=generator)[:, 0]], x1

    return pairs


def _transform(problem: Problem, f: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """The entropic c-transform g of f; the plan up to a factor per column; the sums of those columns. One exponential for all."""
    kernel = torch.sub((f / epsilon + problem.a.log())[:, None], problem.cost, alpha=1 / epsilon)
    largest = kernel.amax(0)
    kernel = kernel.sub_(largest).exp_()
    sums = kernel.sum(0)
    return -epsilon * (largest + sums.log()), kernel, sums


def _sweep(problem: Problem, f: Tensor, epsilon: float) -> Tensor:
    g = soft_c_transform(problem.cost, f, problem.a, epsilon)
    return soft_c_transform(problem.cost.mT, g, problem.b, epsilon)


def _ratio(wanted: Tensor, sums: Tensor) -> Tensor:
    """wanted/sums, and 1 where there is nothing to scale."""
    return torch.where((wanted > 0) & (sums > 1e-200), wanted / sums, 1.0)


def _relative_entropy(u: Tensor, a: Tensor) -> Tensor:
    return (torch.xlogy(u, u) - torch.xlogy(u, a)).sum()
