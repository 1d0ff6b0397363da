"""Semidiscrete couplings for flow matching (arXiv 2509.25519): potentials by averaged stochastic ascent, pairs by search.

The noise has any law that can be sampled, the data are N weighted points. With c = ½‖x − y‖² the semi-dual
F(g) = E min_j (c(x, y_j) − g_j) + ⟨b, g⟩ is concave and its gradient is b − m(g), m_j the probability that x falls in the
cell of y_j; so each noise lowers the potential of the point it hits. For ε > 0 the minimum is
−ε log Σ_j b_j exp((g_j − c)/ε), and m the mean of the b-weighted softmax. Potentials for the cost −⟨x, y⟩, which are what the
code iterates on, are g − ½‖y‖². Quick start::

    coupling = SemidiscreteCoupling(points)                 # or (points, weights, epsilon=0.1)
    fit = coupling.fit(tol_chi2=0.05, generator=generator).require()
    x0, x1 = coupling.pair(256, generator=generator)        # coupling.pair is a pair sampler
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite.couplings import search as kernels
from dynot_lite.couplings.search import Estimate, pooled_chi2
from dynot_lite.laws.gaussian import Gaussian, monge_map

__all__ = ["Estimate", "SemidiscreteCoupling", "SemidiscreteFit", "pooled_chi2"]

_DECAY, _AVERAGING = 0.6, 1  # exponents of the steps and of the weights of the averaged iterates
_CALIBRATION = 1024  # noises that choose the start; a quarter of them measure the gap
_AIM = 0.8  # the χ² that the solver aims at, in units of the tolerance: what is left is for the confidence bound


@dataclass(frozen=True)
class SemidiscreteFit:
    """What the solver found, measured on fresh noise with the averaged potentials.

    Attributes:
        converged: whether the upper confidence bound of χ² is at most the tolerance.
        reason: why the solver stopped, in words.
        chi2, chi2_upper: the pooled unbiased estimate of Σ m_j²/b_j − 1 and its 99 % upper confidence bound.
        dual_value: the semi-dual E min_j (c − g_j) + ⟨b, g⟩, a lower bound of the optimal cost (for ε > 0, of E c + ε KL).
        dual_std: standard error of ``dual_value``.
        primal_cost: E c(x, y) over the pairs, with the ½. Below the optimum as long as the masses are not right.
        empty_cells: points that no noise of the last evaluation was assigned to (shares below half a noise, for ε > 0).
        epochs: noises used for the ascent, divided by the number of distinct points.
        history: (epochs, χ², upper bound) of every evaluation.
    """

    converged: bool
    reason: str
    chi2: float
    chi2_upper: float
    dual_value: float
    dual_std: float
    primal_cost: float
    empty_cells: int
    epochs: float
    history: tuple[tuple[float, float, float], ...]

    def require(self) -> SemidiscreteFit:
        """This result, if converged; raises RuntimeError if not."""
        if not self.converged:
            raise RuntimeError(f"the semidiscrete potentials are not solved: {self.reason}")
        return self


class SemidiscreteCoupling:
    """The optimal coupling of noise and the weighted points Σ_j b_j δ_{y_j}, cost ½‖x − y‖² (+ ε KL).

    Points of weight zero are dropped, points that coincide (in float32, after centring) are merged into one atom and told
    apart again, at random by weight, when pairs are drawn; indices always refer to ``points`` as given.

    Args:
        points: shape (N, d) with at least two distinct points of positive weight; pairs have their dtype and device. The
            search itself runs in float32 on centred data.
        weights: shape (N,), non-negative, of sum 1; None for equal weights.
        epsilon: ≥ 0, fixed for the life of the object: a coupling is sampled with the ε it was solved for.

    Raises:
        ValueError: bad points, weights or ε; fewer than two distinct points of positive weight.
    """

    def __init__(self, points, weights=None, *, epsilon: float = 0.0):
        points = check.points(points, "points").detach()
        if points.ndim != 2 or len(points) < 2:
            raise ValueError(f"points must have shape (N, d) with N at least 2, got {tuple(points.shape)}")
        n = len(points)
        self.points = points
        weights = torch.full((n,), 1 / n, dtype=torch.float64) if weights is None else check.weights(weights, n).detach().double()
        self.weights = weights.to(points.device)
        value = check.as_tensor(epsilon, "epsilon")
        if value.ndim or value < 0:
            raise ValueError(f"epsilon must be a non-negative number, got {epsilon!r}")
        self._epsilon = float(value)
        self._merge()
        self._law: str | Callable | None = None

    def _merge(self) -> None:
        """Atoms (distinct points of positive weight, centred, float32), their weights, and the points each one stands for."""
        kept = torch.nonzero(self.weights > 0)[:, 0]
        given = self.points[kept]
        given = given if given.dtype == torch.float64 else given.float()
        mean = self.weights[kept].to(given) @ given  # a point near the mean will do, as long as it is the same everywhere
        self._mean = mean.double()
        atoms, inverse = torch.unique((given - mean).float() + 0.0, dim=0, return_inverse=True)
        if len(atoms) < 2:
            raise ValueError(f"points must have at least two distinct points of positive weight, got {len(atoms)}")
        order = torch.argsort(inverse, stable=True)
        self._members, self._atom_of = kept[order], torch.full((len(self.points),), -1, device=kept.device)
        self._atom_of[kept] = inverse
        self._first = torch.searchsorted(inverse[order], torch.arange(len(atoms) + 1, device=kept.device))
        self._atoms = atoms
        self._b = torch.zeros(len(atoms), dtype=torch.float64, device=kept.device).index_add_(0, inverse, self.weights[kept])
        self._b /= self._b.sum()
        self._log_b = self._b.log().float()
        self._cumulative = torch.cat([self.weights.new_zeros(1), self.weights[self._members].cumsum(0)])

    @property
    def epsilon(self) -> float:
        """The regularisation that the coupling is solved and sampled with."""
        return self._epsilon

    @property
    def dim(self) -> int:
        """d."""
        return self.points.shape[1]

    @property
    def potentials(self) -> Tensor:
        """g for c = ½‖x − y‖², float64, shape (N,), with ⟨b, g⟩ = 0 and −inf at points of weight zero; copies share a value."""
        g = self._potential_of_atoms()
        g = g - self._b @ g
        return torch.where(self._atom_of >= 0, g[self._atom_of], -torch.inf)

    def _potential_of_atoms(self) -> Tensor:
        """g of the atoms, in the gauge of the centred scores."""
        return self._centred_average() + self._own()

    def _own(self) -> Tensor:
        """½|y|² − ⟨y − mean, noise mean⟩ of the atoms: what the potentials for ½‖x − y‖² have beyond the centred scores."""
        blocks = (block.double() for block in self._atoms.split(2**16))
        return torch.cat([0.5 * (block + self._mean).square().sum(1) - block @ self._centre for block in blocks])

    def _centred_average(self) -> Tensor:
        self._require_fit()
        return self._average - self._average.mean()

    def _require_fit(self) -> None:
        if self._law is None:
            raise RuntimeError("the coupling has no potentials yet: call fit (or load_state_dict) first")

    # Noise is scored relative to its mean, in float32.

    def _draw(self, n: int, generator: torch.Generator | None, law=None) -> Tensor:
        law = self._law if law is None else law
        if law == "normal":
            return torch.randn(n, self.dim, generator=generator, device=kernels.device(generator, self.points)).to(
                self.points.device
            )
        x = check.points(law(n, generator=generator), "noise(n)", dim=self.dim)
        if x.shape != (n, self.dim):
            raise ValueError(f"noise(n) must have shape ({n}, {self.dim}), got {tuple(x.shape)}")
        return x.detach().to(self.points.device)

    def _centred(self, x: Tensor) -> Tensor:
        return x.float() if self._law == "normal" else (x - self._centre.to(x)).float()

    # The solver.

    def fit(
        self,
        noise="normal",
        *,
        tol_chi2: float = 0.05,
        max_epochs: float | None = None,
        group=None,
        on_epoch: Callable[[SemidiscreteCoupling], None] | None = None,
        generator: torch.Generator | None = None,
    ) -> SemidiscreteFit:
        """Maximise the semi-dual by averaged stochastic ascent until χ² of the cell masses is certified to be small.

        There is no learning rate. The mean gap s between the two best scores is the change of a potential that changes the
        mass of its cell by a factor of about e; so a noise that hits cell j lowers g_j by s/(1 + epochs)^0.6 (divided by N b_j
        where that exceeds 1), with s measured on the data. The iterates are averaged with weights ∝ n. The start is that of
        0, −½ yᵀAy with y ↦ Ay the optimal map of the data's Gaussian to the noise's, and −(2 ln N Var⟨x, y⟩)^½ with the best
        dual value.

        The exact maximiser for n sampled noises has E χ² of about N/n: a tolerance needs N/tol noises at least. This solver
        takes about 1.3 times as many in dimension 64, twice as many in dimension 8 and several times as many in the plane. A
        fitted coupling resumes where it stopped: a smaller tolerance or more epochs continue the same ascent (with a
        generator that must not repeat).

        Args:
            noise: "normal" for N(0, I), or a sampler ``(n, generator=) -> (n, d)``. ``pair`` and ``chi2`` use the same law.
            tol_chi2: the bound for Σ_j m_j²/b_j − 1.
            max_epochs: noises used in all, divided by the number of distinct points; 20/tol_chi2 if left out.
            group: a ``torch.distributed`` process group: its ranks draw noise from generators that must differ, share the
                histograms, and end with the same potentials. All of them call ``fit`` with the same arguments.
            on_epoch: called with the coupling about once per epoch (to save it, say).

        Returns:
            A SemidiscreteFit. A solver that stopped early says so in ``converged`` and ``reason``; ``fit(...).require()``
            raises then. An unconverged coupling can be used, but drops points in silence: look at χ².

        Raises:
            ValueError: noise of another dimension or with NaN, a tolerance or a number of epochs that is not positive, a
                law of noise other than that of the potentials this coupling has.
        """
        tol = check.positive(tol_chi2, "tol_chi2")
        limit = 20 / tol if max_epochs is None else check.positive(max_epochs, "max_epochs")
        if not (noise == "normal" or callable(noise)):
            raise ValueError(f'noise must be "normal" or a sampler (n, generator=) -> (n, d), got {noise!r}')
        if self._law is None:
            self._start(noise, generator, group)
        elif noise != self._law:
            raise ValueError("noise must be the law that the coupling was fitted for; make a new coupling for another law")
        n, aim = len(self._atoms), _AIM * tol
        # Enough noises for the bound to be 0.12 tol above the estimate; fewer if the verdict is clear before.
        most = max(2.326 * (2 * n) ** 0.5 / (0.12 * tol), 1024)
        target = max(1.25 / aim, self.epochs)  # the first look: where the law N/n says that the aim is met
        while True:
            self._ascend(min(target, limit), generator, group, on_epoch)
            sums = _Sums(self)
            for part in (0.25, 0.25, 0.5):
                sums.add(math.ceil(part * most), generator, group)
                estimate = sums.chi2()
                if estimate.upper() <= tol or estimate.lower() > tol:
                    break
            self._history.append((self.epochs, estimate.value, estimate.upper()))
            converged = estimate.upper() <= tol
            if converged or self.epochs >= limit:
                break
            target = self.epochs * min(max(estimate.value / aim, 1.2), 2)
        reason = f"the upper bound of chi2 is {estimate.upper():.3g}, the tolerance {tol:g}, after {self.epochs:.4g} epochs"
        return SemidiscreteFit(
            converged=converged, reason=reason if converged else f"{reason} (max_epochs)", chi2=estimate.value,
            chi2_upper=estimate.upper(), epochs=self.epochs, history=tuple(self._history), **sums.report(),
        )  # fmt: skip

    @property
    def epochs(self) -> float:
        """Noises used for the ascent so far, divided by the number of distinct points of positive weight."""
        return 0.0 if self._law is None else self._noises / len(self._atoms)

    def _start(self, noise, generator: torch.Generator | None, group) -> None:
        """The moments of the noise, the best of three initial potentials, and the mean gap there."""
        x, size = self._draw(_CALIBRATION, generator, noise).double(), _world(group)
        moments = _total(torch.cat([x.mean(0)[None], x.mT @ x / len(x)]), group) / size
        centre, cov_noise = moments[0], moments[1:] - moments[0].outer(moments[0])
        if noise == "normal":
            centre, cov_noise = torch.zeros_like(centre), torch.eye(self.dim).to(centre)
        elif not cov_noise.trace() > 0:
            raise ValueError("noise must vary: all the points it gave are the same")
        x, atoms, count = (x - centre).float(), self._atoms, len(self._atoms)
        blocks = (root[:, None] * block for root, block in zip(self._b.sqrt().split(2**16), atoms.split(2**16), strict=True))
        cov = sum(block.mT @ block for block in blocks)  # in float64, or rounding makes it indefinite
        cov = 0.5 * (cov + cov.mT)
        ridge = 1e-6 * torch.eye(self.dim).to(cov)
        data, source = (Gaussian(torch.zeros_like(centre), c + ridge * c.trace() / self.dim) for c in (cov, cov_noise))
        starts = [
            torch.zeros_like(self._b),
            -0.5 * (atoms @ monge_map(data, source).matrix.float() * atoms).sum(1).double(),
            # Of N normal variables of variance v the largest is about (2 v ln N)^½.
            -(2 * math.log(count) * (atoms @ cov_noise.float() * atoms).sum(1).clamp(min=0)).sqrt().double(),
        ]

        def mean(values: Tensor) -> float:
            return float(_total(values.double().mean(), group)) / size

        best = None
        for h in starts:
            gap = mean(kernels.runner_up_gap(x[: len(x) // 4], self._atoms, (h - h.mean()).float()))
            h = h + gap * (count * self._b).log()  # what sets the masses right to first order where the weights differ
            value = float(self._b @ (h - h.mean())) - mean(self._values((h - h.mean()).float(), x))
            if best is None or value > best[0]:
                best = value, h, gap
        _, self._iterate, gap = best
        # The scale on which the mass of a cell responds: the gap without regularisation, ε where that is larger.
        self._scale, self._average = gap + self._epsilon, self._iterate.clone()
        self._law, self._centre, self._noises, self._steps, self._history = noise, centre, 0, 0, []

    def _values(self, offsets: Tensor, x: Tensor) -> Tensor:
        """max_j of the scores (ε log Σ b exp(·/ε) for ε > 0), shape (n,)."""
        if self._epsilon:
            return kernels.soft_sums(x, self._atoms, offsets, self._log_b, self._epsilon).value
        return kernels.best(x, self._atoms, offsets)[0]

    def _ascend(self, stop: float, generator: torch.Generator | None, group, on_epoch) -> None:
        """Stochastic ascent until ``stop`` epochs."""
        count, size = len(self._atoms), _world(group)
        share = max(min(max(count // 2, 32), 1024) // size, 1)
        batch = share * size
        rate = self._scale / (count * self._b).clamp(min=1)
        while self._noises < stop * count:
            x, offsets = self._centred(self._draw(share, generator)), (self._iterate - self._iterate.mean()).float()
            if self._epsilon:
                hits = kernels.soft_sums(x, self._atoms, offsets, self._log_b, self._epsilon).shares.double()
            else:
                hits = torch.bincount(kernels.best(x, self._atoms, offsets)[1], minlength=count).double()
            hits = _total(hits, group)
            gain = min((1 + self.epochs) ** -_DECAY, count / batch)
            self._iterate.addcmul_(rate, batch * self._b - hits, value=gain)
            before, self._noises, self._steps = int(self.epochs), self._noises + batch, self._steps + 1
            self._average.lerp_(self._iterate, (_AVERAGING + 1) / (self._steps + _AVERAGING))
            if on_epoch is not None and int(self.epochs) > before:
                on_epoch(self)

    # What the potentials give.

    def _offsets(self) -> Tensor:
        return self._centred_average().float()

    def _assign_atoms(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        if self._epsilon:
            return kernels.categorical(self._centred(x), self._atoms, self._offsets(), self._log_b, self._epsilon, generator)
        return kernels.best(self._centred(x), self._atoms, self._offsets())[1]

    def _member(self, atom: Tensor, generator: torch.Generator | None) -> Tensor:
        """A point for each atom: where several coincide, one of them with probabilities in proportion to their weights."""
        if len(self._members) == len(self._atoms):
            return self._members[atom]
        low, high = self._cumulative[self._first[atom]], self._cumulative[self._first[atom + 1]]
        u = torch.rand(len(atom), generator=generator, dtype=torch.float64, device=kernels.device(generator, low)).to(low.device)
        place = torch.searchsorted(self._cumulative, low + u * (high - low), right=True) - 1
        return self._members[torch.minimum(torch.maximum(place, self._first[atom]), self._first[atom + 1] - 1)]

    def assign(self, x, *, generator: torch.Generator | None = None) -> Tensor:
        """The index of the point that each noise goes to: the exact argmin of ½‖x − y_j‖² − g_j, shape (n, d) -> (n,).

        For ε > 0 the index is drawn from the b-weighted softmax; with ε = 0 the only randomness is the choice among copies
        of a point. Scores are compared in float32; the rare ties are settled by the order of the points.
        """
        self._require_fit()
        x = check.points(x, "x", dim=self.dim).detach().to(self.points.device)
        return self._member(self._assign_atoms(x, generator), generator)

    def pair_index(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """``n`` noises and the index of the point each one goes to, shapes (n, d) and (n,)."""
        self._require_fit()
        x0 = self._draw(check.count(n, "n"), generator)
        return x0.to(self.points.dtype), self._member(self._assign_atoms(x0, generator), generator)

    def pair(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """``n`` independent pairs (x0, x1) of the coupling, both of shape (n, d), noise of the law of ``fit``."""
        x0, index = self.pair_index(n, generator=generator)
        return x0, self.points[index]

    def c_transform(self, x) -> Tensor:
        """min_j (½‖x − y_j‖² − g_j), or −ε log Σ_j b_j exp((g_j − ½‖x − y_j‖²)/ε), shape (n, d) -> (n,), with ⟨b, g⟩ = 0."""
        self._require_fit()
        x = check.points(x, "x", dim=self.dim).detach().to(self.points.device)
        shift = self._b @ self._potential_of_atoms()
        value = self._values(self._offsets(), self._centred(x)).double()
        x = x.double()
        return 0.5 * x.square().sum(1) - x @ self._mean - value + shift

    def chi2(self, n: int, *, generator: torch.Generator | None = None) -> Estimate:
        """The pooled unbiased estimate of χ²(cell masses ‖ weights) from ``n`` fresh noises, with its standard deviation."""
        self._require_fit()
        sums = _Sums(self)
        sums.add(check.count(n, "n", least=2), generator, None)
        return sums.chi2()

    # The exact flow.

    def _posterior(self, t, x) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """t and x as float64, u_ij = (x_i − t y_j)/(1−t), P(x1 = y_j | X_t = x_i), and Σ_k s_k(u_ij) y_k, shape (n, N, d)."""
        self._require_fit()
        if not self._epsilon or self._law != "normal":
            raise ValueError("the closed form of the flow needs epsilon > 0 and normal noise")
        x = check.points(x, "x", dim=self.dim).double()
        t = check.time(t, n=len(x), like=x).reshape(-1, 1)
        if (t == 1).any():
            raise ValueError("t must be less than 1: the velocity towards point masses is unbounded at t = 1")
        u = (x[:, None] - t[..., None] * self._points_of_atoms) / (1 - t[..., None])
        log_shares = torch.log_softmax((u @ self._atoms.double().T + self._centred_average()) / self._epsilon + self._b.log(), -1)
        own = log_shares.diagonal(dim1=1, dim2=2)  # log s_j(u_ij)
        return t, x, u, torch.softmax(own - 0.5 * u.square().sum(-1), 1), log_shares.exp() @ self._points_of_atoms

    @property
    def _points_of_atoms(self) -> Tensor:
        return self._atoms.double() + self._mean

    def velocity(self, t, x) -> Tensor:
        """The velocity E[x1 − x0 | X_t = x] of X_t = (1−t)x0 + t x1 for the pairs of this coupling, t < 1, ε > 0, in float64.

        X_t = x leaves N cases: x1 = y_j and x0 = u_j = (x − t y_j)/(1−t), with probabilities in proportion to φ(u_j) s_j(u_j),
        φ the normal density and s the softmax that assigns. Work and memory n N² : for small N.

        Raises:
            ValueError: ε = 0 (X_t then has no density between the images of the cells, and inside them the velocity is
                y_j − u_j), noise that is not normal, t = 1.
        """
        _, _, u, posterior, _ = self._posterior(t, x)
        return (posterior[..., None] * (self._points_of_atoms - u)).sum(1)

    def score(self, t, x) -> Tensor:
        """∇ log ρ_t(x) = (t v_t(x) − x + δ(x))/(1−t), with δ(x) = E[x1 − Σ_k s_k(x0) y_k | X_t = x]/ε; arguments of ``velocity``.

        From ρ_t(x) ∝ Σ_j φ(u_j) s_j(u_j): the gradient of log φ(u_j) is −u_j/(1−t), whose mean is (t v_t − x)/(1−t), and that
        of log s_j is δ. For independent pairs (ε → ∞) it is Tweedie's formula. The form quoted in notes on arXiv 2509.25519,
        (t v_t − x + (1−t)δ)/(1−t)², differs from this by factors of 1−t and is not the score.
        """
        t, x, u, posterior, mean = self._posterior(t, x)
        y, weight = self._points_of_atoms, posterior[..., None]
        delta = (weight * (y - mean)).sum(1) / self._epsilon
        return (t * (weight * (y - u)).sum(1) - x + delta) / (1 - t)

    # Saving.

    def state_dict(self) -> dict:
        """All that is needed to go on, for ``torch.save``; ``torch.load(..., weights_only=True)`` reads it."""
        self._require_fit()
        per_point = self._atom_of.clamp(min=0)  # by point: the order of the atoms is an internal matter
        return {
            "data": self._fingerprint(), "epsilon": self._epsilon, "noise": "normal" if self._law == "normal" else "custom",
            "average": self._average[per_point].cpu(), "iterate": self._iterate[per_point].cpu(), "centre": self._centre.cpu(),
            "scale": self._scale, "noises": self._noises, "steps": self._steps, "history": [list(row) for row in self._history],
        }  # fmt: skip

    def load_state_dict(self, state: dict, *, noise="normal") -> None:
        """Take over what :meth:`state_dict` gave for the same points, weights and ε.

        Args:
            state: the dictionary.
            noise: the law of ``fit``; a sampler cannot be saved and must be given again.

        Raises:
            ValueError: other points or weights, another ε, "normal" noise in place of a sampler or the reverse.
        """
        keys = {"data", "epsilon", "noise", "average", "iterate", "centre", "scale", "noises", "steps", "history"}
        if not isinstance(state, dict) or set(state) != keys:
            raise ValueError("state must be what SemidiscreteCoupling.state_dict returned")
        if state["data"] != self._fingerprint():
            raise ValueError("state belongs to other points or weights")
        if state["epsilon"] != self._epsilon:
            raise ValueError(
                f"state was solved with epsilon = {state['epsilon']:g}, this coupling samples with {self._epsilon:g}"
            )
        if (noise == "normal") != (state["noise"] == "normal") or not (noise == "normal" or callable(noise)):
            raise ValueError(f"noise must be the law of the fit, {state['noise']!r}, got {noise!r}")
        device, first = self.points.device, self._members[self._first[:-1]]
        self._average, self._iterate = (state[name].to(device)[first] for name in ("average", "iterate"))
        self._centre, self._scale = state["centre"].to(device), state["scale"]
        self._noises, self._steps, self._history = state["noises"], state["steps"], [tuple(row) for row in state["history"]]
        self._law = noise

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(str((tuple(self.points.shape), self.points.dtype)).encode())
        for tensor in (self.points, self.weights):
            digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy())
        return digest.hexdigest()


class _Sums:
    """Sums over fresh noise for χ², the dual value and the primal cost of a coupling, in bounded memory."""

    def __init__(self, coupling: SemidiscreteCoupling):
        self.coupling, self.offsets = coupling, coupling._offsets()
        self.counts, self.squares = torch.zeros_like(coupling._b), torch.zeros_like(coupling._b)
        self.scalars = coupling._b.new_zeros(4)  # noises, sum of c-transforms, of their squares, of costs but ½|y|²

    def add(self, n: int, generator: torch.Generator | None, group) -> None:
        """Add n noises, shared among the ranks of the group."""
        c, counts, squares, scalars = self.coupling, *map(torch.zeros_like, (self.counts, self.squares, self.scalars))
        remaining = math.ceil(n / _world(group))
        while remaining:
            noise = c._draw(min(remaining, 8192), generator)
            x, wide = c._centred(noise), noise.double()
            if c.epsilon:
                part = kernels.soft_sums(x, c._atoms, self.offsets, c._log_b, c.epsilon, product=True)
                value, hits, product = part.value.double(), part.shares.double(), part.product
                squares += part.squares
            else:
                value, index = kernels.best(x, c._atoms, self.offsets)
                hits, value = torch.bincount(index, minlength=len(counts)).double(), value.double()
                product = float(value.sum() - hits @ self.offsets.double())
                squares += hits
            counts += hits
            rest = 0.5 * wide.square().sum(1) - wide @ c._mean  # ½|x|² − ⟨x, mean⟩
            transform = rest - value
            scalars[0] += len(x)
            scalars[1:] += torch.stack([transform.sum(), transform.square().sum(), rest.sum() - product])
            remaining -= len(x)
        for total, part in ((self.counts, counts), (self.squares, squares), (self.scalars, scalars)):
            total += _total(part, group)

    def chi2(self) -> Estimate:
        return pooled_chi2(self.counts, self.coupling._b, squares=self.squares, samples=float(self.scalars[0]))

    def report(self) -> dict:
        c, (n, transform, square, cost) = self.coupling, self.scalars.tolist()
        mean = transform / n
        return {
            "dual_value": mean + float(c._b @ c._potential_of_atoms()),
            "dual_std": (max(square / n - mean**2, 0) / n) ** 0.5,
            "primal_cost": cost / n + float(self.counts / n @ c._own()),
            "empty_cells": int((self.counts < 0.5).sum()),
        }


def _world(group) -> int:
    return 1 if group is None else torch.distributed.get_world_size(group)


def _total(tensor: Tensor, group) -> Tensor:
    """The sum over the ranks of the group."""
    if group is not None:
        torch.distributed.all_reduce(tensor, group=group)
    return tensor
