"""Semidiscrete couplings for flow matching (arXiv 2509.25519): potentials by averaged stochastic ascent, pairs by search.

The noise has any law that can be sampled, the data are N weighted points. With c = ½‖x − y‖² the semi-dual
F(g) = E min_j (c(x, y_j) − g_j) + ⟨b, g⟩ is concave and its gradient is b − m(g), m_j the probability that x falls in the
cell of y_j; so each noise lowers the potential of the point it hits. For ε > 0 the minimum is
−ε log Σ_j b_j exp((g_j − c)/ε), and m the mean of the b-weighted softmax. Potentials for the cost −⟨x, y⟩, which are what the
code iterates on, are g − ½‖y‖². Quick start::

    coupling = SemidiscreteCoupling(points)                 # or (points, weights=, epsilon=)
    coupling.fit(tol=0.05, generator=generator).require()
    x0, x1 = coupling.pair(256, generator=generator)        # coupling.pair is a pair sampler,
    pairs = coupling.pairs(labels)                          # and so is this one, of (x0, x1, labels)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base.differentiation import refuse_graph
from dynot_lite._base.progress import bar
from dynot_lite._base.results import Result
from dynot_lite._base.samplers import function
from dynot_lite.couplings.ascent import Ascent, start
from dynot_lite.couplings.atoms import Atoms, Noise, batch
from dynot_lite.couplings.certificate import Certificate, Estimate
from dynot_lite.couplings.indexed import IndexedPairs
from dynot_lite.couplings.search import Scores

__all__ = ["SemidiscreteCoupling", "SemidiscreteFit"]

LIMIT = 1e5  # iterations that are made without being asked for
AIM = 0.8  # the χ² that the solver aims at, in units of the tolerance: what is left is for the confidence bound


@dataclass(frozen=True, kw_only=True)
class SemidiscreteFit(Result):
    """What the solver found, measured on fresh noise with the averaged potentials; converged if ``chi2_upper`` ≤ the tolerance.

    Attributes:
        chi2, chi2_upper: the pooled unbiased estimate of Σ m_j²/b_j − 1 and its 99 % upper confidence bound.
        dual_value: the semi-dual E min_j (c − g_j) + ⟨b, g⟩, a lower bound of the optimal cost (for ε > 0, of E c + ε KL).
        dual_std: standard error of ``dual_value``.
        primal_cost: E c(x, y) over the pairs, with the ½. Below the optimum as long as the masses are not right.
        empty_cells: points that no noise of the last evaluation was assigned to (shares below half a noise, for ε > 0).
        iterations: noises used for the ascent, divided by the number of distinct points.
        scale: the unit of the steps: the mean gap between the two best scores at the start, plus ε.
        history: (iterations, χ², upper bound) of every evaluation.
    """

    chi2: float
    chi2_upper: float
    dual_value: float
    dual_std: float
    primal_cost: float
    empty_cells: int
    iterations: float
    scale: float
    history: tuple[tuple[float, float, float], ...]


class SemidiscreteCoupling(IndexedPairs):
    """The optimal coupling of noise and the weighted points Σ_j b_j δ_{y_j}, cost ½‖x − y‖² (+ ε KL).

    Points of weight zero are dropped, points that coincide (in float32, after centring) are merged into one atom and told
    apart again, at random by weight, when pairs are drawn; indices always refer to ``points`` as given.

    Args:
        points: shape (N, ...), points (N, d) or images (N, c, h, w), with at least two distinct ones of positive weight; noise
            and pairs have their shape, dtype and device. Half precision becomes float32, and the search itself runs in
            float32 on flattened, centred data.
        weights: shape (N,), non-negative, of sum 1; None for equal weights.
        epsilon: ≥ 0, fixed for the life of the object: a coupling is sampled with the ε it was solved for.
        precision: of the first search, "float32", or for ε = 0 "tf32" or "bfloat16", which a GPU multiplies faster: whatever
            rounding may have changed is searched for again in float32 (see :class:`.search.Scores`), so pairs and certificates
            are those of float32. On a CPU it gains nothing. "bfloat16" keeps a copy of the points of half their size.

    Attributes:
        points, weights: as given, the weights in float64.
        atoms: the distinct points.
        result: what the last :meth:`fit` returned, None before.

    Raises:
        ValueError: bad points, weights or ε; fewer than two distinct points of positive weight, or too far apart for float32.
    """

    def __init__(self, points, *, weights=None, epsilon: float = 0.0, precision: str = "float32"):
        self.atoms = Atoms(points, weights=weights, precision=precision)
        super().__init__(self.atoms.points)
        self.weights = self.atoms.weights
        self._epsilon = check.positive(epsilon, "epsilon", or_zero=True)
        if self._epsilon and not 1e-30 <= self._epsilon <= 1e30:
            raise ValueError(f"epsilon must be 0, or between 1e-30 and 1e30 (the search is in single precision), got {epsilon:g}")
        if self._epsilon and self.atoms.rounded is not None:
            raise ValueError(f'precision must be "float32" for epsilon > 0 (rounding changes every share), got {precision!r}')
        self._ascent: Ascent | None = None
        self.result: SemidiscreteFit | None = None

    @property
    def epsilon(self) -> float:
        """The regularisation that the coupling is solved and sampled with."""
        return self._epsilon

    @property
    def iterations(self) -> float:
        """Noises used for the ascent so far, divided by the number of distinct points of positive weight."""
        return 0.0 if self._ascent is None else self._ascent.iterations

    @property
    def potentials(self) -> Tensor:
        """g for c = ½‖x − y‖², float64, shape (N,), with ⟨b, g⟩ = 0 and −inf at points of weight zero; copies share a value."""
        g = self._fitted().potentials()
        return torch.where(self.atoms.of_point >= 0, self.atoms.to_points(g - self.atoms.mass @ g), -torch.inf)

    def scores(self) -> Scores:
        """The scores by which noise, ``scores().noise``, is assigned to ``atoms``."""
        return self._fitted().scores()

    def _fitted(self) -> Ascent:
        if self._ascent is None:
            raise RuntimeError("the coupling has no potentials yet: call fit (or load_state_dict) first")
        return self._ascent

    def fit(
        self,
        noise: str | Callable = "normal",
        *,
        tol: float = 0.05,
        max_iterations: float | None = None,
        group=None,
        callback: "Callable[[SemidiscreteCoupling], object] | None" = None,
        generator: torch.Generator | None = None,
        progress: bool | None = None,
    ) -> SemidiscreteFit:
        """Maximise the semi-dual by averaged stochastic ascent until χ² of the cell masses is certified to be small.

        There is no learning rate. The mean gap s between the two best scores is the change of a potential that changes the
        mass of its cell by a factor of about e; so a noise that hits cell j lowers g_j by s/(1 + iterations)^0.6 (divided by
        N b_j where that exceeds 1), with s measured on the data. The iterates are averaged with weights ∝ n. The start is that
        of 0, −½ yᵀAy with y ↦ Ay the optimal map of the data's Gaussian to the noise's, and −(2 ln N Var⟨x, y⟩)^½ with the
        best dual value.

        One iteration is as many noises as there are distinct points, and fractions of one count. The exact maximiser for n
        sampled noises has E χ² of about N/n: a tolerance needs 1/tol iterations at least. This solver takes about 1.3 times
        as many in dimension 64, twice as many in dimension 8 and several times as many in the plane. A fitted coupling resumes
        where it stopped: a smaller tolerance or more iterations continue the same ascent (with a generator that must not
        repeat).

        Args:
            noise: "normal" for N(0, I), or a sampler ``(n, generator=) -> (n, ...)`` of the shape of the points. ``pair`` and
                ``chi2`` use the same law.
            tol: the bound for Σ_j m_j²/b_j − 1.
            max_iterations: of all calls together; 20/tol, but no more than 10⁵, if left out.
            group: a ``torch.distributed`` process group: its ranks draw noise from generators that must differ, share the
                histograms, and end with the same potentials. All of them call ``fit`` with the same arguments.
            callback: called with the coupling about once per iteration (to save it, say).
            progress: show a bar; None shows it in a terminal only.

        Returns:
            A SemidiscreteFit, kept as ``result``. A solver that stopped early says so in ``converged`` and ``reason``;
            ``fit(...).require()`` raises then. An unconverged coupling can be used, but drops points in silence: look at χ².

        Raises:
            ValueError: noise of another shape or with NaN, a tolerance or a number of iterations that is not positive, a law
                of noise other than that of the potentials this coupling has.
        """
        tol = check.positive(tol, "tol")
        callback = callback and function(callback, "callback")
        limit = min(20 / tol, LIMIT) if max_iterations is None else check.positive(max_iterations, "max_iterations")
        if self._ascent is None:
            law = Noise(noise, like=self.points)
            self._ascent = start(self.atoms, law, self._epsilon, generator=generator, group=group)
        elif noise != self._ascent.noise.law:
            raise ValueError("noise must be the law that the coupling was fitted for; make a new coupling for another law")
        ascent, aim = self._ascent, AIM * tol
        target = max(1.25 / aim, ascent.iterations)  # the first look: where the law N/n says that the aim is met
        with bar(None, "semidiscrete ascent", progress, unit="noise", unit_scale=True, initial=ascent.noises) as shown:
            while True:
                stop, reached = min(target, limit), int(ascent.iterations)
                shown.total = math.ceil(stop * len(self.atoms))
                for noises in ascent.run(stop, generator=generator, group=group):
                    shown.update(noises)
                    if callback is not None and int(ascent.iterations) > reached:
                        reached = int(ascent.iterations)
                        callback(self)
                certificate = self._certify(tol, generator, group)
                chi2 = certificate.chi2()
                ascent.history.append((ascent.iterations, chi2.value, chi2.upper()))
                shown.set_postfix_str(f"χ² ≤ {chi2.upper():.3g}")
                if chi2.upper() <= tol or ascent.iterations >= limit:
                    break
                target = ascent.iterations * min(max(chi2.value / aim, 1.2), 2)
        upper, count = chi2.upper(), ascent.iterations
        reason = f"the upper bound of chi2 is {upper:.3g}, the tolerance {tol:g}, after {count:.4g} iterations"
        self.result = SemidiscreteFit(
            converged=upper <= tol, reason=reason if upper <= tol else f"{reason} (max_iterations)", chi2=chi2.value,
            chi2_upper=upper, iterations=count, scale=ascent.scale, history=tuple(ascent.history), **certificate.report(),
        )  # fmt: skip
        return self.result

    def _certify(self, tol: float, generator: torch.Generator | None, group) -> Certificate:
        """Enough noises for the bound to be 0.12 tol above the estimate; fewer if the verdict is clear before."""
        certificate = self._fitted().certificate()
        most = max(2.326 * (2 * len(self.atoms)) ** 0.5 / (0.12 * tol), 1024)
        most = min(most, max(16 * self._fitted().noises, 2**20))  # a tolerance out of reach is no reason to go on for ever
        for part in (0.25, 0.25, 0.5):
            certificate.add(math.ceil(part * most), generator=generator, group=group)
            chi2 = certificate.chi2()
            if chi2.upper() <= tol or chi2.lower() > tol:
                break
        return certificate

    def assign(self, x, *, generator: torch.Generator | None = None) -> Tensor:
        """The index of the point that each noise goes to: the exact argmin of ½‖x − y_j‖² − g_j, shape (n, ...) -> (n,).

        For ε > 0 the index is drawn from the b-weighted softmax; with ε = 0 the only randomness is the choice among copies
        of a point. Scores are compared in float32; the rare ties are settled by the order of the points.
        """
        scores = self.scores()
        return self.atoms.member(scores.assign(x, generator=generator), generator=generator)

    def pair_index(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """``n`` independent noises of the law of ``fit`` and the indices of their points, shapes (n, ...) and (n,)."""
        scores = self.scores()
        x0 = scores.noise.draw(check.count(n, "n"), generator=generator)
        return x0.to(self.points.dtype), self.atoms.member(scores.assign(x0, generator=generator), generator=generator)

    def c_transform(self, x) -> Tensor:
        """min_j (½‖x − y_j‖² − g_j), or −ε log Σ_j b_j exp((g_j − ½‖x − y_j‖²)/ε), shape (n, ...) -> (n,), with ⟨b, g⟩ = 0.

        An x that requires a gradient is refused: for ε = 0 it is x − y_j with j = ``assign(x)``.
        """
        ascent = self._fitted()
        x = batch(x, "x", like=self.points)
        refuse_graph(x, "x")
        value, x = ascent.scores().sums(x).value, x.flatten(1).double()
        return 0.5 * x.square().sum(1) - x @ self.atoms.mean - value + self.atoms.mass @ ascent.potentials()

    def chi2(self, n: int, *, generator: torch.Generator | None = None) -> Estimate:
        """The pooled unbiased estimate of χ²(cell masses ‖ weights) from ``n`` fresh noises, with its standard deviation."""
        certificate = self._fitted().certificate()
        certificate.add(check.count(n, "n", least=2), generator=generator)
        return certificate.chi2()

    def state_dict(self) -> dict:
        """All that is needed to go on, for ``torch.save``; ``torch.load(..., weights_only=True)`` reads it."""
        ascent = self._fitted()
        history = [list(row) for row in ascent.history]
        # Potentials are kept by point: the order of the atoms is an internal matter.
        return {
            "data": self.atoms.fingerprint(), "epsilon": self._epsilon, "noises": ascent.noises, "steps": ascent.steps,
            "noise": "normal" if ascent.noise.law == "normal" else "custom", "centre": ascent.noise.centre.cpu(),
            "average": self.atoms.to_points(ascent.average).cpu(), "iterate": self.atoms.to_points(ascent.iterate).cpu(),
            "scale": ascent.scale, "history": history,
        }  # fmt: skip

    def load_state_dict(self, state: dict, *, noise: str | Callable = "normal") -> None:
        """Take over what :meth:`state_dict` gave for the same points, weights and ε; ``fit`` goes on from there.

        Args:
            state: the dictionary.
            noise: the law of ``fit``; a sampler cannot be saved and must be given again.

        Raises:
            ValueError: other points or weights, another ε, "normal" noise in place of a sampler or the reverse.
        """
        keys = {"data", "epsilon", "noise", "average", "iterate", "centre", "scale", "noises", "steps", "history"}
        if not isinstance(state, dict) or set(state) != keys:
            raise ValueError("state must be what SemidiscreteCoupling.state_dict returned")
        if state["data"] != self.atoms.fingerprint():
            raise ValueError("state belongs to other points or weights")
        if state["epsilon"] != self._epsilon:
            raise ValueError(
                f"state was solved with epsilon = {state['epsilon']:g}, this coupling samples with {self._epsilon:g}"
            )
        law = Noise(noise, like=self.points)
        if (noise == "normal") != (state["noise"] == "normal"):
            raise ValueError(f"noise must be the law of the fit, {state['noise']!r}, got {noise!r}")
        law.centre = state["centre"].to(self.points.device)
        iterate, average = (self.atoms.from_points(state[name]) for name in ("iterate", "average"))
        history = [tuple(row) for row in state["history"]]
        self._ascent = Ascent(
            self.atoms, law, self._epsilon, iterate, average, state["scale"], state["noises"], state["steps"], history
        )
        self.result = None
