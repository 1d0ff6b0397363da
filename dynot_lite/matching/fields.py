"""Fields made of one flow-matching field v_t(x) = E[X1 − X0 | X_t = x] of the linear path: of another path, the score, an SDE."""

from collections.abc import Callable

import torch
from torch import Tensor

from dynot_lite._base import checks as check
from dynot_lite._base import randomness
from dynot_lite._base.samplers import Velocity, evaluate, function
from dynot_lite.matching.flow_matching import require_path
from dynot_lite.paths.interpolants import Interpolant

__all__ = ["change_path", "sample_sde", "score"]


def change_path(velocity: Velocity, interpolant: Interpolant) -> Velocity:
    """The field of the same coupling along another path, of the field along the linear one.

    With σ = α + β and r = β/σ, X'_t = α X0 + β X1 = σ X_r, so v'_t(x) = (β' − r σ') v_r(x/σ) + (σ'/σ) x. Since σ = 1 at both
    ends, both flows have one end map, whatever the path between.

    Args:
        velocity: callable (t, x) -> the shape of x, with a float t.
        interpolant: a path with α(t) + β(t) > 0 (one that does not pass through X_t = 0).

    Raises:
        TypeError: what is no function, or no path.
        ValueError: from the field, at a time at which α + β ≤ 0 or the path has no velocity; points or values of the velocity
            that are not finite, or of another shape.

    >>> from dynot_lite.paths.interpolants import TRIGONOMETRIC
    >>> field = change_path(lambda t, x: torch.ones_like(x), TRIGONOMETRIC)  # X1 = X0 + 1
    >>> round(field(0.0, torch.zeros(1, 1)).item(), 3)  # dX_t/dt = (π/2)(X1 − tan(πt/2) X0) at t = 0, x = X0 = 0
    1.571
    """

    require_path(interpolant)
    function(velocity, "velocity")

    def field(t: float, x: Tensor) -> Tensor:
        t, x = _time(t), check.points(x, "x")
        a, b, da, db = (c.item() for c in interpolant.coefficients(t))
        sigma, d_sigma = a + b, da + db
        if not sigma > 0 or d_sigma - d_sigma != 0:
            raise ValueError(
                f"t must be a time at which alpha + beta > 0 and the path has a velocity, got {t}: {sigma}, {d_sigma}"
            )
        r = min(max(b / sigma, 0.0), 1.0)
        return _finite((db - r * d_sigma) * evaluate(velocity, r, x / sigma) + d_sigma / sigma * x)

    return field


def score(velocity: Velocity) -> Callable[[float, Tensor], Tensor]:
    """The score ∇log ρ_t(x) = (t v_t(x) − x)/(1 − t) of the law of X_t, for X0 ~ N(0, I) independent of X1, 0 ≤ t < 1.

    (Tweedie's formula: E[X0 | X_t = x] = x − t v_t(x), and ∇log ρ_t = −E[X0 | X_t = x]/(1 − t).)

    Raises:
        TypeError: what is no function.
        ValueError: from the score, t = 1; points or values of the velocity that are not finite, or of another shape.

    >>> score(lambda t, x: torch.zeros_like(x))(0.0, torch.ones(1, 2))
    tensor([[-1., -1.]])
    """

    function(velocity, "velocity")

    def field(t: float, x: Tensor) -> Tensor:
        t, x = _time(t), check.points(x, "x")
        if t == 1:
            raise ValueError("t must be less than 1: the law of X1 need not have a density")
        return _finite((t * evaluate(velocity, t, x.clone()) - x) / (1 - t))

    return field


@torch.no_grad()
def sample_sde(velocity: Velocity, x0, sigma: float, *, steps: int = 200, generator: torch.Generator | None = None) -> Tensor:
    """Ends of dX = [v_t + ½σ²(t v_t(X) − X)] dt + σ √(1 − t) dW from x0 ~ N(0, I), by Euler–Maruyama; without gradients.

    For every σ ≥ 0 the law of X at time t is that of X_t: the drift is v + ½σ²(1 − t) ∇log ρ_t, and what the score adds to the
    Fokker–Planck equation the noise takes away. The factor 1 − t spares the singularity of the score at the data. With σ = 0 it
    is the flow.

    Args:
        velocity: the field of the linear path, X0 ~ N(0, I) independent of X1; callable (t, x) with a float t.
        x0: shape (n, d) or (n, ...).
        steps: of equal length, one evaluation each; a step should be short beside 2/σ².

    Raises:
        ValueError: σ < 0, steps < 1, points that are not finite, at the end, too; a velocity of another shape than x.
    """
    sigma, steps = check.positive(sigma, "sigma", or_zero=True), check.count(steps, "steps")
    x = check.points(x0, "x0")
    for k in range(steps):
        t = k / steps
        v = evaluate(velocity, t, x.clone())
        noise = randomness.normal(*x.shape, generator=generator, like=x)
        x = x + (v + 0.5 * sigma**2 * (t * v - x)) / steps + sigma * ((1 - t) / steps) ** 0.5 * noise
    return _finite(x)


def _time(t) -> float:
    return check.time(check.number(t, "t")).item()


def _finite(found: Tensor) -> Tensor:
    if not check.finite(found):
        raise ValueError("velocity must keep what is made of it and of the points x finite, got NaN or infinity")
    return found
