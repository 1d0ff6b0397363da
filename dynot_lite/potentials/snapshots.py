"""Unrestricted action matching along given snapshots, solved as one linear system.

Between two snapshots the laws are joined by mixing, μ_t = (1 − λ) μ_k + λ μ_{k+1}: a path of laws that asks for no pairing. For
an action that is linear in its coefficients, s = Σ a_ij T_i(t) q_j(x), the loss along it is a quadratic, ⟨e, a⟩ + ½⟨a, G a⟩. Its
properties are Proposition 7b of notebook proofs/05, section 5.
"""

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base import randomness
from dynot_lite._base.differentiation import refuse_graph
from dynot_lite.paths.continuity import gauss_legendre

__all__ = ["SeparableAction", "held_out_loss", "mixture_path", "unrestricted_action"]


class SeparableAction:
    """s_t(x) = Σ_ij a_ij T_i(2t − 1) q_j(x): Chebyshev polynomials in time; coordinates and Gaussian bumps in space.

    q is x, then width · exp(−|x − c|²/(2 width²)) for each centre c: gradients have no unit and are bounded, so that the flow
    cannot run away between the data. Derivatives in t and x are formulas; first derivatives of all methods in t, x and the three
    tensors are exact. n(d + B) numbers for values, n(d + B)d for velocities.

    Args:
        centres: c, shape (B, d), B ≥ 1.
        width: of the bumps, positive, in the unit of x.
        coefficients: a, shape (degree + 1, d + B).

    Raises:
        ValueError: shapes that do not fit, a width that is not positive.

    >>> action = SeparableAction([[0.0]], 1.0, [[3.0, 0.0], [0.5, 0.0]])  # (3 + ½(2t − 1)) x
    >>> action.value(1.0, [[2.0]]), action.velocity(0.5, [[2.0]]), action.time_derivative(0.5, [[2.0]])
    (tensor([7.], dtype=torch.float64), tensor([[3.]], dtype=torch.float64), tensor([2.], dtype=torch.float64))
    """

    def __init__(self, centres, width: float, coefficients):
        self.centres = check.squares(check.cloud(centres, "centres"), "centres")
        self.width = check.positive(width, "width")
        features = sum(self.centres.shape)
        self.coefficients = check.cloud(coefficients, "coefficients", dim=features, like=self.centres)

    def value(self, t, x) -> Tensor:
        """s_t(x), shape (n,)."""
        t, x = self._arguments(t, x)
        return self._found(self._mixed(_chebyshev(t, self.degree)[0], _features(x, self.centres, self.width)))

    def velocity(self, t, x) -> Tensor:
        """∇s_t(x), shape (n, d)."""
        t, x = self._arguments(t, x)
        slopes = _gradients(x, self.centres, self.width)
        return self._found(self._mixed(_chebyshev(t, self.degree)[0].unsqueeze(-2), slopes.mT))

    def time_derivative(self, t, x) -> Tensor:
        """∂_t s_t(x) at fixed x, shape (n,)."""
        t, x = self._arguments(t, x)
        return self._found(self._mixed(_chebyshev(t, self.degree)[1], _features(x, self.centres, self.width)))

    @property
    def degree(self) -> int:
        """Of the polynomials in time."""
        return len(self.coefficients) - 1

    def _arguments(self, t, x) -> tuple[Tensor, Tensor]:
        x = check.squares(check.cloud(x, "x", dim=self.centres.shape[1], like=self.centres), "x")
        return check.time(t, n=len(x), like=x).expand(len(x)), x

    def _mixed(self, times: Tensor, features: Tensor) -> Tensor:
        return (times @ self.coefficients * features).sum(-1)

    def _found(self, value: Tensor) -> Tensor:
        return check.representable(value, "the numbers of the action and x")


def mixture_path(snapshots, order: int = 3, *, times=None) -> tuple[Tensor, Tensor, Tensor]:
    """The mixtures between neighbouring snapshots as an argument of the losses of any action, optimal, network or linear.

    ``action_matching_loss(action, snapshots[0], snapshots[-1], path, times, quadrature=quadrature)`` integrates in time *between*
    the snapshots: no function of time alone lowers it. Exact for actions that are polynomials of degree < ``order`` in t.

    Args:
        snapshots: shape (K, n, d), K ≥ 2; point i of one has nothing to do with point i of the next.
        order: Gauss–Legendre nodes between two snapshots.
        times: of the snapshots, increasing from 0 to 1, shape (K,); equally spaced if left out.

    Returns:
        path, shape (2m, n, d), times and quadrature, shape (2m,), with m = order (K − 1): at each node the two snapshots around
        it, with their weights.

    Raises:
        ValueError: snapshots of another shape, times that do not increase from 0 to 1.
    """
    x, times = _snapshots(snapshots, times)
    nodes, weights = (part.to(x) for part in gauss_legendre(check.count(order, "order")))
    spacing = times.diff()[:, None]
    at = times[:-1, None] + spacing * nodes
    shares = torch.stack([spacing * weights * (1 - nodes), spacing * weights * nodes], -1)
    path = torch.stack([x[:-1], x[1:]], 1).repeat_interleave(len(nodes), 0)
    return path.flatten(0, 1), at.flatten().repeat_interleave(2), shares.flatten()


def unrestricted_action(
    snapshots,
    *,
    width: float,
    times=None,
    components: int = 20,
    degree: int = 5,
    ridge: float = 1e-6,
    generator: torch.Generator | None = None,
) -> SeparableAction:
    """The action of least loss along the mixtures of the snapshots, among :class:`SeparableAction` with given bumps.

    One linear system of (degree + 1)(d + components) unknowns, no iteration. Its loss along :func:`mixture_path` is exact; its
    minimum over all smooth actions is −∞ for finite samples (proofs/05, section 5), so that the class is the regularisation:
    choose it by :func:`held_out_loss`. What it learns is the path of the laws, not who is who.

    Args:
        snapshots: shape (K, n, d), K ≥ 2, unpaired; no graph is passed on.
        width: of the bumps, in the unit of the snapshots.
        times: of the snapshots, increasing from 0 to 1, shape (K,); equally spaced if left out.
        components: number of bumps; their centres are points of the snapshots, spread by the rule of k-means++.
        degree: in time.
        ridge: ½ ridge · tr(G)/N |a|² is added to the loss, N being the number of unknowns: no unit.

    Raises:
        ValueError: snapshots of another shape, times that do not increase from 0 to 1, fewer different points than bumps, options
            out of range. RuntimeError: a singular system, which only a ridge below rounding gives.

    >>> g = torch.Generator().manual_seed(0)
    >>> snapshots = torch.randn(3, 500, 1, generator=g) + torch.tensor([0.0, 1.0, 2.0])[:, None, None]  # they shift by 2
    >>> action = unrestricted_action(snapshots, width=1.0, components=4, degree=1, generator=g)
    >>> action.coefficients.shape, (action.velocity(0.5, snapshots[1]).mean() - 2).abs() < 0.3
    (torch.Size([2, 5]), tensor(True))
    """
    x, times = _snapshots(snapshots, times)
    centres = _spread(x.flatten(0, 1), check.count(components, "components"), generator)
    return _solved(x, times, centres, check.positive(width, "width"), check.count(degree, "degree", least=0), ridge)


def held_out_loss(
    snapshots,
    *,
    width: float,
    times=None,
    components: int = 20,
    degree: int = 5,
    ridge: float = 1e-6,
    folds: int = 5,
    generator: torch.Generator | None = None,
) -> float:
    """The mean loss of :func:`unrestricted_action` on rows that it has not seen: what to choose its options by.

    The rows (the same of all snapshots, so that a unit that is seen at several times is held out at all of them) are dealt into
    ``folds`` parts; each is scored by the action of the others, along its own mixtures. The loss is linear in the laws, so for
    independent rows this is an unbiased estimate of the loss along the true mixtures, up to the constant −½ energy the squared
    error of the velocity. Other arguments and errors as for :func:`unrestricted_action`; one solve for each fold.
    """
    x, times = _snapshots(snapshots, times)
    count = check.count(folds, "folds", least=2)
    if count > x.shape[1]:
        raise ValueError(f"folds must be at most the number of points of a snapshot, {x.shape[1]}, got {count}")
    fold = randomness.permutation(x.shape[1], generator=generator, like=x) % count
    losses = []
    for k in range(count):
        seen, rest = x[:, fold != k], x[:, fold == k]
        options = {"width": width, "components": components, "degree": degree, "ridge": ridge}
        action = unrestricted_action(seen, times=times, generator=generator, **options)
        linear, square = _quadratic(rest, times, action.centres, action.width, action.degree)
        numbers = action.coefficients.flatten()
        losses.append((linear @ numbers + 0.5 * numbers @ square @ numbers).item() * rest.shape[1] / x.shape[1])
    return sum(losses)


def _snapshots(snapshots, times) -> tuple[Tensor, Tensor]:
    refuse_graph(snapshots, "snapshots")
    x = check.squares(check.points(snapshots, "snapshots"), "snapshots")
    if x.ndim != 3 or len(x) < 2:
        raise ValueError(f"snapshots must have shape (K, n, d) with K ≥ 2, got {tuple(x.shape)}")
    if times is None:
        return x, torch.linspace(0, 1, len(x), dtype=x.dtype, device=x.device)
    refuse_graph(times, "times")
    times = check.as_tensor(times, "times", like=x)
    if times.shape != x.shape[:1] or times[0] != 0 or times[-1] != 1 or not (times.diff() > 0).all():
        raise ValueError(f"times must increase from 0 to 1, one for each of the {len(x)} snapshots, got {times.tolist()}")
    return x, times


def _spread(points: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """``count`` of the points, each drawn with a probability proportional to the squared distance from those before it."""
    chosen, nearest = [], torch.ones_like(points[:, 0])
    for k in range(count):
        if not nearest.max() > 0:
            raise ValueError(f"snapshots must have as many different points as there are components, {count}, got {k}")
        row = randomness.choices((nearest / nearest.sum())[None], 1, generator=generator)[0, 0]
        chosen.append(points[row])
        distances = (points - points[row]).square().sum(1)
        nearest = distances if k == 0 else torch.minimum(nearest, distances)
    return torch.stack(chosen)


def _chebyshev(t: Tensor, degree: int) -> tuple[Tensor, Tensor]:
    """T_i(2t − 1) and its derivative in t for i ≤ degree, shape (..., degree + 1), by the recurrence of both."""
    u = 2 * t - 1
    values, slopes = [torch.ones_like(u), u], [torch.zeros_like(u), torch.full_like(u, 2.0)]
    for _ in range(degree - 1):
        slopes.append(4 * values[-1] + 2 * u * slopes[-1] - slopes[-2])
        values.append(2 * u * values[-1] - values[-2])
    return tuple(torch.stack(part[: degree + 1], -1) for part in (values, slopes))


def _features(x: Tensor, centres: Tensor, width: float) -> Tensor:
    """q(x), shape (..., d + B)."""
    squared = (x.unsqueeze(-2) - centres).square().sum(-1)
    return torch.cat([x, width * torch.exp(-squared / (2 * width**2))], -1)


def _gradients(x: Tensor, centres: Tensor, width: float) -> Tensor:
    """∇q(x), shape (..., d + B, d)."""
    away = (x.unsqueeze(-2) - centres) / width
    bumps = -away * torch.exp(-0.5 * away.square().sum(-1, keepdim=True))
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device).expand(*x.shape[:-1], -1, -1)
    return torch.cat([eye, bumps], -2)


def _quadratic(x: Tensor, times: Tensor, centres: Tensor, width: float, degree: int) -> tuple[Tensor, Tensor]:
    """e and G of the loss along the mixtures, the coefficients in the order of ``SeparableAction.coefficients``.

    By parts in time e_ij = −Σ_k ∫T_i dt (E_{k+1} − E_k) q_j / Δ_k, and G has the entries ∫T_i T_l E_{μ_t}⟨∇q_j, ∇q_m⟩ dt.
    """
    means = torch.stack([_features(cloud, centres, width).mean(0) for cloud in x])
    slopes = [_gradients(cloud, centres, width) for cloud in x]
    squares = torch.stack([torch.einsum("nji,nmi->jm", part, part) / len(part) for part in slopes])
    nodes, weights = (part.to(x) for part in gauss_legendre(degree + 1))  # T_i T_l λ has the degree 2 degree + 1
    linear = square = 0.0
    for k, spacing in enumerate(times.diff()):
        basis = _chebyshev(times[k] + spacing * nodes, degree)[0]
        linear = linear - torch.einsum("p,pi,j->ij", weights, basis, means[k + 1] - means[k])
        for part, share in ((squares[k], 1 - nodes), (squares[k + 1], nodes)):
            in_time = torch.einsum("p,pi,pl->il", spacing * weights * share, basis, basis)
            square = square + torch.einsum("il,jm->ijlm", in_time, part)
    return linear.flatten(), square.flatten(0, 1).flatten(1)


def _solved(x: Tensor, times: Tensor, centres: Tensor, width: float, degree: int, ridge: float) -> SeparableAction:
    ridge = check.positive(ridge, "ridge")
    linear, square = _quadratic(*(part.double() for part in (x, times, centres)), width, degree)
    square = square + ridge * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype, device=square.device)
    factor, info = torch.linalg.cholesky_ex(square)
    if info:
        raise RuntimeError(f"the system is singular to rounding with a ridge of {ridge:g}: take a larger one")
    coefficients = -torch.cholesky_solve(linear[:, None], factor)
    return SeparableAction(centres, width, coefficients.to(x).reshape(degree + 1, -1))
