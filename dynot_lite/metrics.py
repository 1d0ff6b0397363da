"""How good a flow or a map is: path energy, straightness; W₂², energy and Fréchet distance of samples, coverage, copies; L2-UVP.

Derivatives: none. All results are numbers of Python, also of points that require a gradient.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite.couplings.plans import exact_plan

__all__ = [
    "TEST_SIZE",
    "Memorisation",
    "PathEnergy",
    "cosine",
    "coverage",
    "energy_distance",
    "frechet_distance",
    "l2_uvp",
    "memorisation",
    "path_energy",
    "sample_w2_squared",
]

TEST_SIZE = 2**14
"""Points of the held-out test set of the Wasserstein-2 benchmark."""


@dataclass(frozen=True)
class PathEnergy:
    """What the trajectories of a flow cost, in mean squared distances (no ½).

    Attributes:
        energy: ∫E‖dX_t/dt‖² dt along the trajectories.
        displacement: E‖X_1 − X_0‖² ≤ energy, by Jensen's inequality.
    """

    energy: float
    displacement: float

    @property
    def straightness(self) -> float:
        """∫E‖dX_t/dt − (X_1 − X_0)‖² dt = energy − displacement ≥ 0: zero exactly for straight lines at constant speed."""
        return self.energy - self.displacement


def path_energy(times, positions) -> PathEnergy:
    """Energy, displacement and straightness of trajectories, as :func:`dynot_lite.paths.flows.trajectory` returns them.

    The energy is Σ_k E‖x_{k+1} − x_k‖²/(t_{k+1} − t_k), the exact one of the polygons through the positions. So
    W₂²(x_0, x_K) ≤ displacement ≤ energy holds on every sample, for every step size, up to rounding.

    Args:
        times: increasing from 0 to 1, shape (k + 1,).
        positions: shape (k + 1, n, d).

    Raises:
        ValueError: times that do not increase from 0 to 1, shapes that do not fit, values that are not finite.

    >>> path_energy([0, 0.5, 1], [[[0.0]], [[1.0]], [[4.0]]])
    PathEnergy(energy=20.0, displacement=16.0)
    """
    positions = check.points(positions, "positions")
    times = check.as_tensor(times, "times", like=positions)
    if positions.ndim != 3 or times.shape != positions.shape[:1] or len(times) < 2:
        raise ValueError(f"positions and times must be (k + 1, n, d) and (k + 1,), got {(*positions.shape,)}, {(*times.shape,)}")
    if times[0] != 0 or times[-1] != 1 or (times.diff() <= 0).any():
        raise ValueError(f"times must increase from 0 to 1, got {times.tolist()}")
    # In float64: near the equality of straight lines the rounding of float32 would decide the sign of the straightness.
    positions, times = positions.detach().double(), times.double()
    squares = positions.diff(dim=0).square().sum(-1).mean(-1)
    displacement = (positions[-1] - positions[0]).square().sum(-1).mean()
    return PathEnergy(_representable((squares / times.diff()).sum().item()), _representable(displacement.item()))


def sample_w2_squared(x0, x1, *, weights0=None, weights1=None) -> float:
    """The exact W₂² (no ½) between two samples, shapes (n, d) and (m, d), by the network simplex with its certificate.

    The ``weights0`` (n,) and ``weights1`` (m,) are uniform if None. Time about n²m, memory a few matrices (n, m).

    Raises:
        ValueError: samples of different dimensions or not finite, weights that are not a probability vector.
        RuntimeError: the solver did not reach the optimum up to rounding.

    >>> sample_w2_squared([[0.0], [1.0]], [[3.0], [2.0]])
    4.0
    """
    return 2 * exact_plan(x0, x1, weights0=weights0, weights1=weights1).require().cost


def energy_distance(x0, x1) -> float:
    """The energy distance 2E‖X − Y‖ − E‖X − X'‖ − E‖Y − Y'‖ between the laws of two independent samples, without bias.

    The distance is zero if and only if the laws agree (finite means). The estimate averages to the distance, so for equal laws it
    varies around zero and may be negative: compare it with its values for two samples that are known to have one law.
    Time (n + m)² d; the distances are summed in blocks: memory beyond a few copies of the samples is small.

    Args:
        x0, x1: shapes (n, d) and (m, d), n, m ≥ 2.

    Raises:
        ValueError: samples of different dimensions, of one point, not finite, or with distances whose squares are not.
    """
    x0, x1 = _samples(x0, x1)
    if len(x0) < 2 or len(x1) < 2:
        raise ValueError(f"x0 and x1 must have two points each, got {len(x0)} and {len(x1)}")
    within = sum(_distances(x, x) / (len(x) * (len(x) - 1)) for x in (x0, x1))
    return _representable(2 * _distances(x0, x1) / (len(x0) * len(x1)) - within)


def frechet_distance(features0, features1) -> float:
    """The Fréchet distance |m0 − m1|² + tr(S0 + S1 − 2(S0 S1)^½) of two samples: W₂² (no ½) of the Gaussians fitted to them.

    With the features of a classifier of images it is what "FID" is for one certain network; only numbers of one network and of
    one size of samples compare. It sees means and covariances alone, and is more than zero also for two samples of one law:
    by something like the trace of the covariance times d/n. So quote beside it the value of two samples of one law, the floor.
    Time (n + m)d² + d³; covariances may be singular.

    Args:
        features0, features1: shapes (n, d) and (m, d), n, m ≥ 2.

    Raises:
        ValueError: samples of different dimensions, of one point, or not finite.

    >>> round(frechet_distance([[0.0], [2.0]], [[3.0], [7.0]]), 6)  # the means differ by 4, the deviations by √2
    18.0
    """
    x0, x1 = _samples(features0, features1, "features0 and features1")
    if len(x0) < 2 or len(x1) < 2:
        raise ValueError(f"features0 and features1 must have two points each, got {len(x0)} and {len(x1)}")
    # S = RᵀR with R of d rows: tr (S0 S1)^½ is the sum of the singular values of R0 R1ᵀ, also where S0 or S1 is singular.
    roots = [torch.linalg.qr((x - x.mean(0)) / math.sqrt(len(x) - 1)).R for x in (x0, x1)]
    crossed = torch.linalg.svdvals(roots[0] @ roots[1].mT).sum()
    squares = sum(root.square().sum() for root in roots) + (x0.mean(0) - x1.mean(0)).square().sum()
    return _representable(max((squares - 2 * crossed).item(), 0.0))


def coverage(x0, x1) -> float:
    """The share of the points of ``x1`` that a sample ``x0`` comes near: nearer than the fifth nearest other point of ``x1``.

    Coverage of arXiv 2002.09797 with five neighbours. Samples that leave out a mode leave its points uncovered, and where they
    gather does not make up for it. For two samples of one law and of one size it is about 1 − 2⁻⁵ ≈ 0.97.

    Args:
        x0: generated points, shape (n, d), n ≥ 1.
        x1: data, shape (m, d), m ≥ 6, in the features that decide what is near.

    Raises:
        ValueError: samples of different dimensions, fewer than six data, values that are not finite.

    >>> data = [[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [20.0], [21.0], [22.0], [23.0], [24.0], [25.0]]
    >>> coverage([[2.5]], data)
    0.5
    """
    x0, x1 = _samples(x0, x1)
    if len(x1) < 6:
        raise ValueError(f"x1 must have six points, got {len(x1)}")
    radius = _nearest(x1, x1, 6)  # itself, and five more
    return (_nearest(x1, x0, 1) < radius).double().mean().item()


@dataclass(frozen=True)
class Memorisation:
    """Whether samples are copies of the data that a model was trained on; both numbers are near 1 for fresh points of its law.

    Attributes:
        closer: how often the nearest of all images, trained on and kept, is one that was trained on, over the share of these
            among all. Copies, with noise or without, have the inverse of this share: 2 if there are as many of both.
        farther: the mean distance to the nearest training point, over that of the kept points. Pure noise has more than 1;
            copies without noise have 0.
    """

    closer: float
    farther: float


def memorisation(x0, train, held_out) -> Memorisation:
    """Copies among samples ``x0`` of a model: who is nearer, points of ``train`` or of ``held_out``, and how near.

    For x0 of the law of the data the nearest of all N + M points is equally likely each of them. A copy with noise is *not*
    found by its distance to ``train`` alone: there is a noise level at which that equals the distance of kept points. And
    pure noise is as near to one set as to the other: it takes both numbers.

    Args:
        x0: samples, shape (n, d).
        train, held_out: shapes (N, d) and (M, d), of one law; most is seen with M ≥ N.

    Raises:
        ValueError: samples of different dimensions, values that are not finite.

    >>> memorisation([[0.25], [5.0]], [[0.0], [5.0]], [[1.0], [6.0]])
    Memorisation(closer=2.0, farther=0.125)
    """
    x0, train = _samples(x0, train, "x0 and train")
    x0, held_out = _samples(x0, held_out, "x0 and held_out")
    own = _nearest(x0, train, 1)
    closer = (own < _nearest(x0, held_out, 1)).double().mean().item() * (len(train) + len(held_out)) / len(train)
    kept = _nearest(held_out, train, 1).mean().item()
    if not kept:
        raise ValueError("held_out must have other points than train, got points of train only")
    return Memorisation(closer, _representable(own.mean().item() / kept))


def l2_uvp(mapped, truth, target_variance: float) -> float:
    """The unexplained variance percentage 100 E|T̂(x) − T(x)|² / Var(p1) of arXiv 2106.01954; 100 is what a constant map scores.

    Args:
        mapped, truth: T̂(x) and T(x) at the same points x of the source, shape (n, d).
        target_variance: the total variance of the target, the trace of its covariance (no ½).

    Raises:
        ValueError: shapes that differ, values that are not finite, a variance that is not positive.

    >>> l2_uvp([[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]], 2.0)
    25.0
    """
    mapped, truth = _images(mapped, truth)
    error = (mapped - truth).square().sum(1).mean().item()
    return _representable(100 * error / check.positive(target_variance, "target_variance"))


def cosine(x, mapped, truth) -> float:
    """The cosine E<T̂(x) − x, T(x) − x> / √(E|T̂(x) − x|² E|T(x) − x|²) between the displacements of two maps, in [−1, 1].

    The expectations are all over the given points. (The code of arXiv 2106.01954 estimates E|T(x) − x|² on 1024 other points.)

    Args:
        x, mapped, truth: points of the source, T̂(x) and T(x), shape (n, d).

    Raises:
        ValueError: shapes that differ, values that are not finite, or a map that moves nothing.

    >>> cosine([[0.0, 0.0]], [[1.0, 0.0]], [[1.0, 1.0]])
    0.7071067811865475
    """
    mapped, truth = _images(mapped, truth)
    x, _ = _images(x, truth, name="x")
    one, other = mapped - x, truth - x
    lengths = one.square().sum().item(), other.square().sum().item()
    if not min(lengths):
        raise ValueError("mapped and truth must move a point, got a map that is the identity on x")
    return _representable((one * other).sum().item() / math.sqrt(lengths[0]) / math.sqrt(lengths[1]))


def _distances(x0: Tensor, x1: Tensor) -> float:
    """Σ_ij ‖x0[i] − x1[j]‖, in blocks of a million distances."""
    centre = x0[(x0 - x0.mean(0)).square().sum(1).argmin()]  # far from the origin the products in cdist would cancel
    x0, x1 = x0 - centre, x1 - centre
    return sum(torch.cdist(block, x1).sum().item() for block in x0.split(max(2**20 // len(x1), 1)))


def _nearest(x0: Tensor, x1: Tensor, k: int) -> Tensor:
    """The distance of each point of x0 to its k-th nearest of x1, shape (n,), in blocks of a million distances."""
    blocks = x0.split(max(2**20 // len(x1), 1))
    return torch.cat([torch.cdist(block, x1).kthvalue(k, dim=1).values for block in blocks])


def _representable(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError("points must have finite squared distances, got values too large for float64")
    return number


def _samples(x0, x1, names: str = "x0 and x1") -> tuple[Tensor, Tensor]:
    first, second = names.split(" and ")
    x0 = check.points(x0, first).detach().double()
    x1 = check.points(x1, second, like=x0).detach()
    if x0.ndim != 2 or x1.ndim != 2 or x0.shape[1] != x1.shape[1]:
        raise ValueError(f"{names} must be samples (n, d) and (m, d) of one dimension, got {tuple(x0.shape)}, {tuple(x1.shape)}")
    return x0, x1


def _images(mapped, truth, *, name: str = "mapped") -> tuple[Tensor, Tensor]:
    mapped, truth = check.points(mapped, name).detach().double(), check.points(truth, "truth").detach().double()
    if mapped.ndim != 2 or mapped.shape != truth.shape:
        raise ValueError(f"{name} and truth must have one shape (n, d), got {tuple(mapped.shape)} and {tuple(truth.shape)}")
    return mapped, truth.to(mapped.device)
