# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Which winds carry which crowds?
#
# **What you will see.** A crowd in a wind; a bookkeeping that tells whether wind and crowd belong together; many winds for one
# crowd, winds that lose people, and the one wind in which everybody walks straight.
# **What you need.** Gaussian laws, ordinary differential equations, and that optimal transport pairs two laws at the least mean
# squared distance (story [00](00_start_here.ipynb)).
# **Minutes.** Fifteen to read, half a one to run. Proofs and limits:
# [proofs/01_continuity_equation](proofs/01_continuity_equation.ipynb).

# %% [markdown]
# ![A crowd of points is carried by a field of arrows from one tilted Gaussian to another; the ellipse of the law moves with it.](../figures/01_continuity_equation/crowd.gif)

# %% tags=["parameters"]
preset = "quick"
seed = 0

# %% tags=["install"]
# Where the package is absent (a hosted notebook): install it, from the clone around this notebook or from the index.
import importlib.util
import subprocess
import sys
from pathlib import Path

if importlib.util.find_spec("dynot_lite") is None:
    source = ".." if Path("../pyproject.toml").exists() else "dynot_lite[notebooks]"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", source], check=True)

# %%
import math

import numpy as np
import torch
from matplotlib import pyplot as plt

from dynot_lite.companion import claim, say, show, slide, start
from dynot_lite.companion.ledger import run_dir
from dynot_lite.laws.coupled import MixtureCoupling, fm_law, mccann_velocity
from dynot_lite.laws.gaussian import Gaussian, fm_velocity, geodesic, w2_squared
from dynot_lite.laws.mixtures import GaussianMixture
from dynot_lite.metrics import sample_w2_squared
from dynot_lite.paths.continuity import kinetic_energy, weak_residual
from dynot_lite.paths.flows import integrate_adaptive, trajectory
from dynot_lite.plots import ROLES, draw_ellipse, draw_field, rendered, write_gif

start("01_continuity_equation", preset=preset, seed=seed)
torch.set_default_dtype(torch.float64)
g = torch.Generator().manual_seed(seed)

# %% [markdown]
# ## 1. A crowd in the wind
#
# A velocity field moves every particle, and the law of the crowd moves with it.
#
# Our crowd starts with the law $\alpha=N(m_0,\Sigma_0)$. The wind $v_t(x)$ is the one of flow matching (story
# [03](03_flow_matching.ipynb)). Let people walk straight from a point $X_0$ of $\alpha$ to an independent point $X_1$ of
# $\beta=N(m_1,\Sigma_1)$, and take the mean velocity of those who pass $x$ at time $t$:
# $v_t(x)=\mathbb E[X_1-X_0\mid X_t=x]$, $X_t=(1-t)X_0+tX_1$.
#
# **Guess.** Does a Gaussian crowd stay Gaussian in it?

# %% tags=["copy"]
p = Gaussian([0.3, -1.0], [[2.0, 0.6], [0.6, 1.0]])
q = Gaussian([1.5, 0.7], [[1.0, -0.5], [-0.5, 3.0]])
wind = lambda t, x: fm_velocity(p, q, t, x)
times, crowd = trajectory(wind, p.sample(20_000, generator=g), steps=100)
cov = torch.cov(crowd[-1].T)

# %%
say("covariance of the crowd at the end:", [[round(c, 2) for c in row] for row in cov.tolist()])
box = (-4.0, 5.5, -5.0, 6.0)
figure, axes = plt.subplots(1, 3, figsize=(9.2, 4.2), sharey=True)
titles = ("the crowd sets out (t = 0)", "is squeezed (t = ½)", "and arrives, turned (t = 1)")
for ax, k, title in zip(axes, (0, 50, 100), titles):
    law = fm_law(p, q, k / 100)
    draw_field(ax, wind, k / 100, box)
    ax.plot(*crowd[k, :300].T, ".", color=ROLES["independent"], markersize=2.5)
    draw_ellipse(ax, law.mean, law.cov, role="independent")
    ax.set(title=title, xlabel="$x_1$")
axes[0].set_ylabel("$x_2$")
show(
    figure,
    "crowd_strip",
    alt="Three panels, at the times 0, one half and 1: arrows of the wind, 300 people, and the "
    "ellipse at two standard deviations of their law, from a formula. The people fill it as "
    "it shrinks and turns.",
)
claim("S01-1", (cov - q.cov).abs().max())

# %% [markdown]
# It does. $X_1-X_0$ and $X_t$ are jointly Gaussian, so the mean of the one, given the other, is affine: the wind is affine in
# $x$, and the affine map to which it adds up keeps Gaussians Gaussian. The ellipses come from a formula that has never seen the
# people, and the covariance of 20,000 people agrees with $\Sigma_1$ to 0.024, the noise of a sample.
#
# **Change this.** Follow the wind in ten steps of Euler's method, `steps=10, method="euler"`. → The crowd arrives
# with a quarter of its variance missing.

# %%
frames = []
for k in [0, *range(3, 100, 3), 100]:
    law = fm_law(p, q, k / 100)
    figure, ax = plt.subplots(figsize=(3.7, 4.1), dpi=100)
    draw_field(ax, wind, k / 100, box, n=11)
    draw_ellipse(ax, q.mean, q.cov, role="target", label="where it is to end")
    ax.plot(*crowd[k, :300].T, ".", color=ROLES["independent"], markersize=3)
    draw_ellipse(ax, law.mean, law.cov, role="independent", label="law of the crowd")
    ax.set(title=f"a crowd in the wind, t = {k / 100:.2f}", xticks=[], yticks=[])
    ax.legend(loc="upper left", fontsize=8, frameon=True, framealpha=1, edgecolor="white")
    frames.append(rendered(figure))
if folder := run_dir():
    write_gif(folder / "crowd.gif", frames, milliseconds=80)

# %% [markdown]
# *Why: [proofs/01](proofs/01_continuity_equation.ipynb), section 4: a Lipschitz wind has one flow, and the flow decides the law.*

# %% [markdown]
# ## 2. Keeping the books
#
# The share of people in a window changes exactly by what the wind carries over its edge.
#
# A window is a smooth function $\zeta$, about 1 inside and 0 outside; $\int\zeta\,d\mu_t$ is the share inside. A person at $x$
# sees $\zeta$ change at the rate $\langle\nabla\zeta(x),v_t(x)\rangle$. The mean over the crowd, added up in time, is what is
# carried in:
#
# $$
# \int\zeta\,d\mu_t=\int\zeta\,d\mu_0+\int_0^t\int\langle\nabla\zeta,v_s\rangle\,d\mu_s\,ds .
# $$
#
# If this holds for every window, we write $\partial_t\mu_t+\mathrm{div}(\mu_tv_t)=0$, the continuity equation; for measures it
# has no other meaning.
#
# **Guess.** It is the same crowd, but somebody claims that the wind is half as strong. Can bookkeeping tell?

# %% tags=["copy"]
window = lambda x: torch.exp(-0.5 * x.square().sum(-1))
slope = lambda x: -x * window(x)[:, None]
inside = window(crowd).mean(1)
inflow = torch.stack([(slope(x) * wind(t.item(), x)).sum(1).mean() for t, x in zip(times, crowd)])
carried = torch.cat([torch.zeros(1), torch.cumulative_trapezoid(inflow, times)])
books, half = inside[0] + carried, inside[0] + 0.5 * carried

# %%
say("share inside at t = 0, 1/2, 1:", *(f"{inside[k]:.2f}" for k in (0, 50, 100)))
say(f"highest {inside.max():.2f} at t = {times[inside.argmax()]:.2f}")
say(f"off with half the wind, at worst: {(inside - half).abs().max():.3f}")
figure, ax = plt.subplots(figsize=(5.6, 3.6))
ax.plot(times, books, color=ROLES["truth"], label="start + what the wind carries in")
ax.plot(times, half, "--", color=ROLES["wrong"], label="the same with half the wind")
ax.plot(times[::5], inside[::5], "o", color=ROLES["independent"], markersize=5, label="counted")
ax.set(title="counting and bookkeeping give one curve", xlabel="time $t$", ylim=(0, 0.5))
ax.set_ylabel("share inside the window")
ax.legend(loc="lower left")
show(
    figure,
    "books",
    alt="Share of the crowd inside a soft window against time: the counted people lie on the "
    "curve of start plus inflow, which rises and then falls; the curve for half the wind "
    "leaves them.",
)
claim("S01-2", (inside - books).abs().max())

# %% [markdown]
# It can. The share rises from 0.30 to 0.44 at $t=0.38$ and falls to 0.18, and the books follow, but for the error of
# adding up in a hundred steps. With half the wind they are off by 0.067, although that wind blows in the right direction
# everywhere.
#
# The package keeps the books at all times at once, with `path` any quadrature of $\mu_t$ and the window allowed to
# change in time:

# %% tags=["copy"]
path = lambda t: fm_law(p, q, t).quadrature(20)
zeta = lambda t, x: window(x)
right = weak_residual(path, wind, zeta, times=20)
wrong = weak_residual(path, lambda t, x: 0.5 * wind(t, x), zeta, times=20)
say(f"missing, as a share of the traffic, in and out: {right:.0e}; half the wind {wrong:.2f}")

# %% [markdown]
# The traffic is all that the given wind carries over the edge, in *plus* out. Half the wind leaves out as much as it carries, but
# missing arrivals and missing departures cancel in the books, all but 0.24.
#
# **Trap.** A window that is closed at $t=0$ and $t=1$ checks the way and not the ends: with such windows alone, a crowd that
# stays at home and is *declared* to be at $\beta$ at $t=1$ passes. Keep some windows open at both ends, or ask that nobody
# jump.
#
# **Change this.** Move the window to $(2,-1)$, in `window` and in `slope`. → The share
# goes from 25 to 31 and back to 25 per cent; the books agree even better.
#
# *Why: [proofs/01](proofs/01_continuity_equation.ipynb), sections 1 and 2.*

# %% [markdown]
# ## 3. One crowd, many winds
#
# A swirl along the level lines of the law is invisible to the books, and costs energy.
#
# Let everybody, in addition, walk round the mean on an ellipse of constant density. With $J$ the rotation by 90°, that is
# the wind $v_t+k\,J\Sigma_t^{-1}(x-m_t)$. The energy $\mathcal E(\mu,v)=\int_0^1\int|v_t|^2d\mu_t\,dt$ is what the walk costs.
#
# **Guess.** Everybody swirls with $k=4$. Where does the crowd end?

# %% tags=["copy"]
J = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
def swirling(k):
    """The wind plus k J Σ_t⁻¹ (x − m_t): the same crowd, other trajectories."""
    def field(t, x):
        law = fm_law(p, q, t)
        return wind(t, x) + torch.linalg.solve(law.cov, (x - law.mean).T).T @ (k * J).T
    return field
law_at = lambda t: fm_law(p, q, t).quadrature(3)
cost = {k: kinetic_energy(law_at, swirling(k), times=40) for k in (0, 1, 2, 4)}

# %%
say("energy:", {k: round(value, 1) for k, value in cost.items()})
bend = cost[2] / 2 - cost[1] + cost[0] / 2  # the energy is a parabola in k
say(f"least at k = {0.5 - (cost[1] - cost[0]) / (2 * bend):.2f}")
say(f"the books with k = 4 agree to {weak_residual(path, swirling(4), zeta, times=20):.0e}")
angle = torch.arange(6) * math.pi / 3
starts = p.mean + torch.stack([angle.cos(), angle.sin()], 1) @ p.factor.T
figure, axes = plt.subplots(1, 2, figsize=(8.0, 4.4), sharey=True)
for ax, k in zip(axes, (0, 4)):
    for t, role in ((0.0, "source"), (0.5, "independent"), (1.0, "target")):
        law = fm_law(p, q, t)
        draw_ellipse(ax, law.mean, law.cov, role=role, deviations=1.0, label=f"law at t = {t:g}")
    walks = trajectory(swirling(k), starts, steps=100)[1]
    ax.plot(*walks.permute(2, 0, 1), color=ROLES["first"], lw=1.3)
    ax.plot(*walks[-1].T, "o", color=ROLES["first"], markersize=5)
    ax.set(title=f"swirl {k}: energy {cost[k]:.1f}", xlabel="$x_1$", aspect="equal")
axes[0].set_ylabel("$x_2$")
axes[0].legend(loc="upper left", fontsize=8)
show(
    figure,
    "swirl",
    alt="Walks of six people between the same three ellipses: without swirl short arcs, with "
    "swirl 4 long arcs round the mean; in both panels they start and end on the same "
    "ellipses.",
)
claim("S01-3", cost[4] / cost[0])

# %% [markdown]
# The crowd ends in the same law: the books agree as before, and the six end on the same ellipse, at other places. What is added blows
# along lines of constant density, so as much leaves each window as enters it. But it is paid for: the energy is 6.7 without
# swirl and 8.6, 14.9, 40.4 for $k=1,2,4$.
#
# Of all winds for one path, the cheapest is the gradient of a function, $v_t=\nabla\varphi_t$: what the books do not see is
# orthogonal to all gradients, in the mean over the crowd, so adding it can only cost. Ours is no gradient, but nearly: it has a
# little swirl of its own, and the least energy is at $k=0.06$, not at 0.
#
# **Change this.** Swirl the other way, $k=-4$. → It costs five per cent more than $k=4$, for the same reason.
#
# **Trap.** The *velocity* of a rotation is $Rx$ with $R^\top=-R$, such as $J$, and not $Qx$ with a rotation matrix $Q$.

# %% tags=["copy"]
Q = torch.linalg.matrix_exp(0.9 * J)  # the rotation by the angle 0.9
size = integrate_adaptive(lambda t, x: x @ Q.T, [[1.0, 0.0]]).norm()
say(f"Q turns by 0.9; who starts at distance 1 and moves with Qx ends at distance {size:.2f}")

# %% [markdown]
# With $Jx$, orthogonal to $x$, everybody walks in circles. $Qx$ points outwards, $\langle x,Qx\rangle=\cos(0.9)\,|x|^2$, and
# the crowd grows by the factor $e^{\cos0.9}=1.86$.
#
# *Why: [proofs/01](proofs/01_continuity_equation.ipynb), section 3.*

# %% [markdown]
# ## 4. Winds that lose people
#
# A smooth wind can blow people to infinity in finite time, and a continuous one can leave it open where they go.
#
# **Guess.** In the wind $v(x)=x^2$ on the line, people with the law $N(0,1)$ set out at time 0. Who is nowhere at time 1?

# %% tags=["copy"]
square = lambda t, x: x**2
x0 = torch.linspace(-2.0, 1.05, 62)[:, None]
agree = (integrate_adaptive(square, x0, t1=0.9) - x0 / (1 - 0.9 * x0)).abs().max()
y = torch.logspace(-12, 12, 200_001) - 1  # everybody who is still somewhere at t = 1, with density
density = torch.exp(-0.5 * (y / (1 + y)) ** 2) / math.sqrt(2 * math.pi) / (1 + y) ** 2
lost = 1 - torch.trapezoid(density, y)

# %%
say(f"solver and x / (1 − t x) agree at t = 0.9 to {agree:.0e}; lost at t = 1: {lost:.1%}")
figure, axes = plt.subplots(1, 3, figsize=(10.2, 3.6))
t = torch.linspace(0, 1, 201)
for x in torch.linspace(-1.5, 2.4, 14):
    place = torch.where(t * x < 0.999, x / (1 - t * x).clamp_min(1e-3), torch.nan)
    axes[0].plot(t, place, color=ROLES["wrong" if x >= 1 else "truth"], lw=1.3)
for wait in torch.linspace(0, 1, 6):
    axes[1].plot(t, (t - wait).clamp_min(0) ** 2, color=ROLES["truth"], lw=1.3)
for x in torch.linspace(0.4, 1.6, 4):
    axes[2].plot(t, (1 - 2 * t) * x, color=ROLES["first"], lw=1.3)
    axes[2].plot(t, (1 - 2 * t).abs() * x, "--", color=ROLES["second"], lw=1.3)
titles = ["$x^2$: gone before $t=1$", r"$2\sqrt{|x|}$: wait, then go"]
titles.append("$-2x/(1-2t)$: pass or turn back")
for ax, title, low, high in zip(axes, titles, (-1.7, -0.1, -1.8), (6.2, 1.1, 1.8)):
    ax.set(title=title, xlabel="time $t$", ylim=(low, high))
axes[0].set_ylabel("place $x$")
show(
    figure,
    "three_failures",
    alt="Walks in three winds against time. With x squared, who starts above 1 runs to infinity "
    "before time 1. With twice the root of |x|, many leave 0, each at its own time. With "
    "-2x/(1-2t), all meet in 0 at time one half, and then pass it (purple) or turn back "
    "(dashed, black).",
)
claim("S01-4", lost)

# %% [markdown]
# Those from above 1: the one from $x_0$ is at $x_0/(1-tx_0)$, which is infinite at time $1/x_0$. The density of all who are
# still somewhere lacks 15.9 % of the mass. The usual guess, nobody, trusts that the wind is smooth.
#
# In the middle the wind is continuous, and people at 0 may wait as long as they like. On the right, everybody meets in 0 at
# $t=\frac12$; those who pass and those who turn back follow one and the same wind, at finite energy. If all have started on the
# positive side, they end in different laws.
#
# **Where it stops working.** A wind decides the crowd if it is Lipschitz in $x$, with a constant that is integrable in time.
# $x^2$ has no such constant for the whole line, the root none at 0, and that of the third wind, $2/|1-2t|$, is not integrable.
#
# *Why: [proofs/01](proofs/01_continuity_equation.ipynb), section 4; winds without a flow:
# [proofs/02](proofs/02_benamou_brenier.ipynb), section 3.*

# %% [markdown]
# ## 5. The straight wind
#
# Let $T$ be the optimal map from $\alpha$ to $\beta$: $T(x)$ is the partner of $x$. Give the one who is *now* at $y$ the
# velocity $T(x)-x$ of the one who started at $x=T_t^{-1}(y)$, where $T_t=(1-t)\mathrm{Id}+tT$.
#
# Then everybody walks straight and at constant speed: this is McCann's interpolation,
# $\mu_t=(T_t)_\#\alpha$, the law of $T_t(X)$ if $X$ has the law $\alpha$.
#
# **Guess.** Somebody forgets $T_t^{-1}$ and takes $v(x)=T(x)-x$ at all times. From $N(0,1)$ to $N(0,4)$ we have $T(x)=2x$: where
# does the one from $x=1$ end?

# %% tags=["copy"]
straight = mccann_velocity(p, q)  # (T − Id)∘T_t⁻¹
energy = kinetic_energy(lambda t: geodesic(p, q, t).quadrature(3), straight, times=10)
end = integrate_adaptive(lambda t, x: 2 * x - x, [[1.0]]).item()

# %%
say(f"energy of the straight wind {energy:.4f}, W₂² {w2_squared(p, q):.4f}")
say(f"energy of the first wind {cost[0]:.2f}, {100 * (cost[0] / energy - 1):.0f} % more")
claim("S01-5", energy / w2_squared(p, q))
claim("S01-6", cost[0] / energy)
say(f"without the inverse, 1 goes to {end:.2f}")

# %% [markdown]
# At $e=2.72$ and not at 2: whoever is on the way already moves too fast for the place. The energy of the straight wind
# is $W_2^2=5.4487$, to all digits printed; the first wind needs 6.72 from the same crowd to the same crowd, a good fifth more.
#
# On the line everything fits into one picture, in which no curve crosses another: between neighbours there is always the same
# share of the crowd, so the density is that share over their distance.

# %% tags=["copy"]
m0, m1 = [[-0.9], [-0.9], [1.0]], [[-2.6], [0.2], [2.5]]
heaps = MixtureCoupling([0.3, 0.25, 0.45], m0, m1, [[0.2]], [[0.16]]).product()  # independent ends
levels = torch.linspace(0.001, 0.999, 999)
ends = [heaps.law(t).quantile(levels) for t in (0.0, 1.0)]  # the optimal map joins equal levels
bent = trajectory(heaps.velocity, ends[0], steps=100, method="rk4")[1][..., 0]
direct = torch.lerp(ends[0].T, ends[1].T, times[:, None])
price = [100 * walks.diff(dim=0).square().sum(0).mean() for walks in (direct, bent)]

# %%
say(f"energy: straight {price[0]:.2f}, bent {price[1]:.2f}")
say(f"the two walks of a person end within {(bent[-1] - direct[-1]).abs().max():.0e}")
apart = torch.stack([trajectory(field, starts, steps=100)[1][-1] for field in (wind, straight)])
say(f"in the plane, the six of section 3: up to {apart.diff(dim=0).norm(dim=-1).max():.2f} apart")
figure, axes = plt.subplots(1, 2, figsize=(9.4, 3.9), sharey=True)
panels = [(direct, "optimal", "McCann: straight")]
panels.append((bent, "independent", "flow matching: bent, same ends"))
for ax, (places, role, title) in zip(axes, panels):
    share = np.gradient(levels) / np.gradient(places, axis=1)
    clock = times[:, None].expand(places.shape)
    options = {"cmap": "Greys", "vmin": 0, "vmax": 0.6, "shading": "gouraud", "rasterized": True}
    picture = ax.pcolormesh(clock, places, share, **options)
    ax.plot(times, places[:, 24::50], color=ROLES[role], lw=1.0)
    ax.set(title=title, xlabel="time $t$", ylim=(-3.8, 3.8))
axes[0].set_ylabel("place $x$")
figure.colorbar(picture, ax=axes, label="density", extend="max")
show(
    figure,
    "straight_and_bent",
    alt="Density in grey and the walks of twenty people against time, from two heaps to three on "
    "the line: straight green lines for McCann's wind, bent blue lines for flow matching, "
    "which bunch together on the way; both have the same ends.",
)

# %% [markdown]
# The two winds carry each person to the same place, and the bent walk costs 3.20 instead of 1.72. On the line that is so for any
# two such winds: nobody overtakes, and only one increasing map takes the first law to the last. Flow matching first draws the
# crowd together and then parts it; McCann's people part at once. In the plane people can turn round one another: of the six of
# section 3, the two winds take one to places that are 0.12 apart.
#
# **Change this.** In the plane, take $m_0=m_1=0$ and $\Sigma_1=4\Sigma_0$. Where do the two winds take $x$? → Both to $2x$; the
# first wind then costs 86 % more.
#
# *Why: [proofs/01](proofs/01_continuity_equation.ipynb), section 5; that no wind is cheaper:
# [proofs/02](proofs/02_benamou_brenier.ipynb).*

# %% [markdown]
# ## 6. How far along?
#
# On a shortest path the distance grows evenly.
#
# Two heaps lie far apart. One film lets all people walk across (McCann); the other one fades: at time $t$ a share $t$ of the
# first heap has been swapped for people of the second, $(1-t)\alpha+t\beta$.
#
# The picture shows these two on the left. On the right it adds a third path, flow matching, between another pair of laws, which
# are close (between heaps so far apart and so narrow, it hardly differs from McCann's).
#
# **Guess.** At $t=\frac12$, half of the people are in each heap. How far is that from the start, if the whole way is 1?

# %% tags=["copy"]
heap = 0.15 * torch.randn(120, 2, generator=g)
there = heap + torch.tensor([5.0, 0.0])  # a shift is optimal: W₂ = 5
shares = lambda t: torch.cat([torch.full((120,), (1 - t) / 120), torch.full((120,), t / 120)])
faded = lambda t: sample_w2_squared(heap, torch.cat([heap, there]), weights1=shares(t)) ** 0.5 / 5
close = Gaussian([0.0, 0.0], torch.eye(2)), Gaussian([1.0, 0.0], [[1.0, 0.6], [0.6, 1.0]])
mixed = lambda t: (w2_squared(close[0], fm_law(*close, t)) / w2_squared(*close)).sqrt().item()
walked = lambda t: (w2_squared(close[0], geodesic(*close, t)) / w2_squared(*close)).sqrt().item()

# %%
say(f"at t = ½: McCann {walked(0.5):.2f}, flow matching {mixed(0.5):.2f}, fading {faded(0.5):.2f}")
values, moments, figures = [k / 10 for k in range(11)], torch.linspace(0, 1, 41) ** 2, []
films = [(faded, "wrong", "fading"), (mixed, "independent", "flow matching, close laws")]
films.append((walked, "optimal", "McCann"))
curves = [[distance(s) for s in moments.tolist()] for distance, _, _ in films]
claim("S01-7", faded(0.5))
claim("S01-8", mixed(0.5))

# %%
for t in values:
    figure, axes = plt.subplots(1, 2, figsize=(7.8, 3.0), width_ratios=(4, 3))
    swapped = torch.where(torch.arange(120)[:, None] < 120 * t, there, heap)
    walking = torch.lerp(heap, there, t)
    for height, people, role in ((1.0, walking, "optimal"), (-1.0, swapped, "wrong")):
        axes[0].plot(people[:, 0], people[:, 1] + height, ".", color=ROLES[role], markersize=3)
    axes[0].set(title=f"t = {t:.1f}: everybody walks – some are swapped", yticks=[])
    axes[0].set(xlim=(-1, 6), ylim=(-2, 2), xlabel="$x_1$")
    for curve, (distance, role, name) in zip(curves, films):
        axes[1].plot(moments, curve, color=ROLES[role], label=name)
        axes[1].plot(t, distance(t), "o", color=ROLES[role])
    axes[1].set(title="only McCann's path is even", xlabel="time $t$", ylabel="share of the way")
    axes[1].legend(loc="lower right", fontsize=8)
    figures.append(figure)
slide(
    figures,
    values,
    name="how_far",
    still=5,
    alt="Left, two films: in the upper one the whole heap walks across, in the lower one people "
    "are swapped from one end to the other. Right, distance from the start against time: a "
    "straight line for McCann, a curve above it for flow matching between close laws, a "
    "square root for fading.",
)

# %% [markdown]
# At 0.69. Half of the people would have to cross the whole gap; that is half of $W_2^2$, and $\frac1{\sqrt2}$ of $W_2$. The
# heaps have some width, which saves a little. The usual guess, one half, is McCann's. Flow matching between two *close*
# laws, the blue curve, is at 0.61: it goes by a narrower crowd, which is a detour.
#
# **Change this.** Let the heaps overlap: `heap + torch.tensor([0.3, 0.0])`, and `/ 0.3` instead of `/ 5`. → 57 %: who is
# already where another should be need not walk.
#
# *Why: [proofs/01](proofs/01_continuity_equation.ipynb), section 6.*

# %% [markdown]
# ## What to remember
#
# The continuity equation is bookkeeping: wind and crowd belong together if, for every window, the count changes by what the
# wind carries in. The path of the crowd does not determine the wind; of all winds for one path a gradient is the cheapest.
# The optimal wind lets everybody walk straight and evenly, its energy is $W_2^2$, and the distance from the start grows evenly.

# %% [markdown]
# ## Change this
#
# 1. Section 1: let the crowd end where it starts, `q = p`. What do the two winds do? → The straight wind does not blow. The
#    first one squeezes the crowd to half its variance and lets it out again, at an energy of 43 % of the trace of $\Sigma_0$.
# 2. Section 2: count 200 people instead of 20,000. Do the books still agree? → Just as well: each person's books agree, so
#    there is no sampling noise. Ten steps in time instead of a hundred make the error a hundred times as large.
# 3. Section 3: replace $J$ by the identity, `J = torch.eye(2)`. → The crowd is blown apart, and with $k=4$ 72 % of the
#    traffic over the edge of the window is missing in the books.

# %% [markdown]
# ## Problems
#
# [PS1](assignments/PS1_continuity_to_flow_matching.ipynb): part 1 (a diffusion as a transport), part 2 (two proofs about its
# velocity), part 4 (what the equation does not see), part 5 (least energy).

# %% [markdown]
# ## Proofs and limits
#
# [proofs/01_continuity_equation](proofs/01_continuity_equation.ipynb) has the exact definition with its end points, the theorem
# on flows with its proof, McCann's pair for every pair of laws, and an example against each statement whose hypothesis is
# dropped.
