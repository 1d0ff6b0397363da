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
# # Of all ways to move α to β in time, which is the cheapest – and how would you find it without knowing the map?
#
# **You will see** a four become a seven, two ways to waste energy, four numbers that always come in one order, and a solver
# that proves its own error.
#
# **You need** what a velocity field does to a density (story [01](01_continuity_equation.ipynb)). **Time:** 20 minutes to
# read, one to run.
#
# Proofs and limits: [proofs/02_benamou_brenier](proofs/02_benamou_brenier.ipynb)

# %% [markdown]
# ![Two panels: left, the ink of a handwritten four flows into a seven; right, the four fades out while the seven fades in. Below, two dots on a line from 0 to 1; the right film's dot runs ahead.](../figures/02_benamou_brenier/digits.gif)

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
from sklearn.mixture import GaussianMixture as MixtureFit

from dynot_lite.companion import claim, say, show, start
from dynot_lite.companion.ledger import run_dir
from dynot_lite.couplings.batches import exact_pairs
from dynot_lite.datasets.images import colour_sample, digit_density, luminance, maze, photographs
from dynot_lite.grids import back_and_forth, benamou_brenier
from dynot_lite.laws.coupled import MixtureCoupling, mccann_velocity
from dynot_lite.laws.gaussian import Gaussian, fm_flow, fm_kinetic_energy, fm_velocity
from dynot_lite.laws.gaussian import geodesic, w2_squared
from dynot_lite.paths.continuity import kinetic_energy
from dynot_lite.paths.flows import trajectory
from dynot_lite.plots import ROLES, bars, draw_trajectories, rendered, strip, write_gif

start("02_benamou_brenier", preset=preset, seed=seed)
g = torch.Generator().manual_seed(seed)

# %% [markdown]
# ## 1. A four becomes a seven
#
# Ask a solver for the cheapest film between two pictures: it finds the straight way by itself.
#
# A *film* is a path of densities $\mu_t$ with a wind $v_t$ that carries it. Its price is the energy
# $\mathcal E(\mu,v)=\int_0^1\!\int|v_t|^2\,d\mu_t\,dt$: the squared speed, averaged over all ink and all moments. The solver gets
# two pictures and the rule that ink is neither made nor lost. Nobody tells it about maps or straight lines (`method="cold"`;
# otherwise it begins with the map).
#
# **Guess.** The simplest film is the cross-fade $(1-t)\alpha+t\beta$. At $t=\frac14$, which share of the way from the four to the
# seven has it covered, measured by $W_2$? (Less than a quarter – a quarter – more.)

# %% tags=["copy"]
four, seven = digit_density(4, 48), digit_density(7, 48)
morph = benamou_brenier.solve(four, seven, steps=24, method="cold")
slabs = zip(morph.density, morph.density[1:], morph.velocity, strict=False)
power = torch.stack([((a + b) / 2 * (v**2).sum(0)).mean() for a, b, v in slabs])

# %%
figure, axes = plt.subplots(2, 5, figsize=(8.6, 3.7))
rows, columns = np.indices((48, 48))[:, 3::6, 3::6]
arrows = {"angles": "xy", "scale_units": "xy", "scale": 1 / 24, "width": 0.014}
for (above, below), k in zip(axes.T, (0, 7, 13, 18, 25), strict=True):
    t = morph.times[k].item()
    for ax, picture in ((above, morph.density[k]), (below, torch.lerp(four, seven, t))):
        ax.imshow(picture, cmap="gray_r", vmin=0, vmax=7)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(True)
    above.set_title(f"$t={t:.2f}$")
    inked = morph.density[k][rows, columns] > 1
    i, j = rows[inked], columns[inked]
    wind = morph.velocity[min(k, 24)][:, i, j]
    if t < 1:
        above.quiver(j, i, wind[1], wind[0], color=ROLES["optimal"], **arrows)
axes[0, 0].set_ylabel("cheapest film")
axes[1, 0].set_ylabel("cross-fade")
figure.suptitle("Ink that moves (arrows: the way in half a unit of time), ink that is replaced")
alt = ("Upper row: the strokes of a four bend into a seven, arrows show where the ink goes. "
       "Lower row: the four grows pale while the seven appears on top of it.")
show(figure, "four_to_seven", alt=alt)

# %%
way = back_and_forth.solve(four, seven).w2_squared ** 0.5
clock = [0.1, 0.25, 0.5, 0.75]
fades = [torch.lerp(four, seven, t) for t in clock]
share = [back_and_forth.solve(four, fade).w2_squared ** 0.5 / way for fade in fades]
say(f"W2 from the four to the seven: {way:.3f} of the picture's side")
say(f"the digits have {torch.minimum(four, seven).mean():.0%} of their ink in common places")
say(f"share covered by the cross-fade at t = 1/4: {share[1]:.2f}, at t = 1/2: {share[2]:.2f}")
claim("S02-1", (power / power.mean() - 1).abs().max())
claim("S02-2", share[1])

# %% [markdown]
# More: after a quarter of the time the cross-fade has covered 0.30 of the way, after half of it 0.54. A quarter of its ink is
# at the goal already, and $W_2$ is the root of a mean square: could that quarter only go the whole way, the share would be
# $\sqrt{1/4}=\frac12$. It is less because the digits overlap, in 53 % of their ink: each piece of ink can move up into the place
# that its neighbour leaves, and many short steps are cheap when they are squared.
#
# The cheapest film covers a share $t$ at time $t$: its power, the energy spent per moment, is constant to one per cent. A film
# like this, straight and even, is the shortest way from α to β for $W_2$, a *geodesic*.
#
# *How is it found without the map?* The unknowns are numbers on a grid of places and moments: the density $\mu$ and the momentum
# $m=\mu v$. In them the rule, $\partial_t\mu+\mathrm{div}\,m=0$, is linear, and the energy $\int\!\int|m|^2/\mu$ is convex (in
# $\mu$ and $v$ neither is true). So there is nothing but the least value to get stuck in. An iteration has two halves: lower the
# energy in each cell by itself, then go to the nearest $(\mu,m)$ that makes and loses no ink.
#
# The animation at the top shows both films, with the share of the way as a dot.

# %%
frames, size = [], {"figsize": (4.8, 3.0), "dpi": 100, "height_ratios": [6, 1]}
covered = [0, *clock, 1], [0, *share, 1]
for k, t in enumerate(morph.times.tolist()):
    figure, axes = plt.subplot_mosaic([["film", "fade"], ["way", "way"]], **size)
    axes["film"].imshow(morph.density[k], cmap="gray_r", vmin=0, vmax=7)
    axes["fade"].imshow(torch.lerp(four, seven, t), cmap="gray_r", vmin=0, vmax=7)
    inked = morph.density[k][rows, columns] > 1
    i, j = rows[inked], columns[inked]
    wind, fading = morph.velocity[min(k, 24)][:, i, j], {**arrows, "alpha": 4 * t * (1 - t)}
    axes["film"].quiver(j, i, wind[1], wind[0], color=ROLES["optimal"], **fading)
    axes["film"].set_title("cheapest film", color=ROLES["optimal"])
    axes["fade"].set_title("cross-fade", color=ROLES["wrong"])
    axes["way"].plot([0, 1], [0, 0], color=ROLES["truth"], linewidth=1, zorder=1)
    dots = [t, np.interp(t, *covered)]
    axes["way"].scatter(dots, [0.3, -0.3], s=90, color=[ROLES["optimal"], ROLES["wrong"]])
    axes["way"].set(xlim=(-0.05, 1.05), ylim=(-1, 1), xlabel=f"share of the way at t = {t:.2f}")
    for ax in axes.values():
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(True)
    axes["way"].spines[:].set_visible(False)
    frames.append(rendered(figure))
if folder := run_dir():
    write_gif(folder / "digits.gif", frames, milliseconds=80)

# %% [markdown]
# **Change this.** Digits 0 and 1 instead of 4 and 7: they are nearer, 8 % of the side apart, and the cross-fade again has 30 % of
# the way behind it at $t=\frac14$.
#
# *Why: [proofs/02](proofs/02_benamou_brenier.ipynb), section 1.*

# %% [markdown]
# ## 2. Two ways to waste energy
#
# Whatever a film spends beyond $W_2^2$ it spends on trajectories that are bent or uneven, or on wrong partners:
#
# $$\mathcal E(\mu,v)=W_2^2(\alpha,\beta)+\mathcal E_J+\mathcal E_C,\qquad \mathcal E_J,\ \mathcal E_C\ge0.$$
#
# $\mathcal E_J$ (J for Jensen) is for each person the variance in time of the velocity, averaged over people: zero if and only
# if everybody walks straight at constant speed. $\mathcal E_C=\int|\varphi_1-\mathrm{Id}|^2d\alpha-W_2^2$ (C for coupling), where
# $\varphi_1$ takes everybody from the start to the end, is zero if and only if everybody ends at the optimal partner. They add
# up because a mean square is a squared mean plus a variance, and the mean velocity of a person is $\varphi_1(x)-x$.
#
# We look at two Gaussians around 0, where the optimal wind has a closed form. (In story 01 they have the same names and
# covariances, but their centres lie apart, and that costs more.)
#
# **Guess.** Take the cheapest film and run it by the clock $t^2$: a slow start, a fast end, the same roads. How much more does it
# cost? (Nothing – a third – double.)

# %% tags=["copy"]
p = Gaussian([0.0, 0.0], [[2.0, 0.6], [0.6, 1.0]])
q = Gaussian([0.0, 0.0], [[1.0, -0.5], [-0.5, 3.0]])
straight = mccann_velocity(p, q)                       # the wind of the cheapest film
late = lambda t, x: 2 * t * straight(t**2, x)          # the same roads by the clock t²
energy = kinetic_energy(lambda t: geodesic(p, q, t**2).quadrature(4), late, times=32)
claim("S02-3", energy / w2_squared(p, q))

# %% [markdown]
# A third: $\int_0^1(2t)^2dt=\frac43$. Who expects "nothing" thinks of the roads, but energy sees the clock, too. Two more
# competitors: *flow matching*, the mean velocity of people who choose their goals at random, and a *detour*: everybody walks as
# in the cheapest film, while the whole plane turns by up to 0.25 radians and back.

# %%
right_angle = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).double()
turn = lambda t: torch.matrix_exp(0.25 * math.sin(math.pi * t) * right_angle)
swing = lambda t: 0.25 * math.pi * math.cos(math.pi * t)
winds = {
    "McCann: straight, even": straight,
    "flow matching: bent": lambda t, x: fm_velocity(p, q, t, x),
    "detour: bent": lambda t, x: (
        swing(t) * x @ right_angle.T + straight(t, x @ turn(t)) @ turn(t).T
    ),
    "clock $t^2$: uneven": late,
}
x, weights = p.quadrature(4)  # exact for the squares of affine maps
waste = {}
for name, wind in winds.items():
    path = trajectory(wind, x, steps=200)[1]
    spent = weights @ (200 * path.diff(dim=0).square().sum(-1).sum(0))
    moved = weights @ (path[-1] - x).square().sum(1)
    least = w2_squared(p, q)
    waste[name] = torch.stack([least, spent - moved, moved - least]).abs()
    say(f"{name}: energy {spent:.3f} =", " + ".join(f"{part:.3f}" for part in waste[name]))

# %%
angle = torch.linspace(0, 2 * math.pi, 13).double()[:-1]
ring = 1.5 * torch.stack([angle.cos(), angle.sin()], 1) @ p.factor.T
figure, axes = plt.subplots(1, 4, figsize=(9.6, 2.8), sharex=True, sharey=True)
roles = ("optimal", "independent", "wrong", "wrong")
for ax, (name, wind), role in zip(axes, winds.items(), roles, strict=True):
    lines = trajectory(wind, ring, steps=200)[1]
    draw_trajectories(ax, lines, colour=ROLES[role])
    ax.scatter(*lines[::50].flatten(0, 1).T, s=7, color=ROLES[role])
    ax.scatter(*ring.T, s=16, color=ROLES["source"], zorder=4)
    ax.set(title=name, aspect="equal", xlabel="$x_1$")
axes[0].set_ylabel("$x_2$")
figure.suptitle("Two laws, four films (grey: start): only the first is straight and even")
alt = ("Twelve trajectories of each of four films between two Gaussians, a dot at every quarter "
       "of the time. McCann: straight, even dots. Flow matching and the detour: bent. Clock t "
       "squared: straight, with dots that grow apart.")
show(figure, "four_ways", alt=alt)

# %%
figure, ax = plt.subplots(figsize=(7.4, 2.9))
parts = {"$W_2^2$": "truth", "bent or uneven, $\\mathcal{E}_J$": "independent"}
bars(ax, waste, {**parts, "wrong partners, $\\mathcal{E}_C$": "wrong"})
ax.set(xlabel="energy $\\int_0^1\\int|v_t|^2d\\mu_tdt$")
figure.suptitle("Every film but one wastes energy")
alt = ("Four bars. McCann has the grey part alone; flow matching adds more than as much again "
       "for bent lines and a sliver for wrong partners; the detour nearly as much, the late "
       "start a third.")
show(figure, "waste", alt=alt)

# %% [markdown]
# The cheapest film costs 1.119, the late start 1.492, the detour 2.158, flow matching 2.392. Flow matching has nearly the right
# partners (its second waste is 0.014, a sliver) and pays for bent lines.
#
# **Trap.** "The lines are straight, so the film is a geodesic." The late start has straight lines to the right partners. The
# speed has to be constant as well.
#
# *Why: [proofs/02](proofs/02_benamou_brenier.ipynb), section 2.*

# %% [markdown]
# ## 3. Four numbers in order
#
# Wrong partners, bent lines, crossing pairs: whenever pairs $(X_0,X_1)$ are joined by straight lines and $v_t$ is the mean
# velocity at a place, $v_t(x)=\mathbb E[X_1-X_0\mid X_t=x]$, each inequality below is one kind of waste.
#
# $$W_2^2(\alpha,\beta)\ \le\ \mathbb E|\varphi_1(X_0)-X_0|^2\ \le\ \int_0^1\mathbb E|v_t(X_t)|^2dt\ \le\ \mathbb E|X_1-X_0|^2$$
#
# **Guess.** On the line, one of the three gaps closes for every choice of pairs. Which? And which close if the pairs are optimal?

# %% tags=["copy"]
M = fm_flow(p, q, 1.0).matrix - torch.eye(2)           # end map of flow matching minus the identity
chain = [w2_squared(p, q), torch.trace(M @ p.cov @ M.T)]
chain += [fm_kinetic_energy(p, q), torch.trace(p.cov + q.cov)]
say("Gaussians:", " ≤ ".join(f"{value:.4f}" for value in chain))

# %% [markdown]
# The same for the colours of two photographs, fitted by five Gaussians each: 1000 colours of the temple ride on the mean wind
# towards the flower.

# %% tags=["copy"]
clouds = [colour_sample(image, 4000, generator=g) for image in photographs(size=(100, 150))]
fit = MixtureFit(5, reg_covar=1e-4, max_iter=500, random_state=seed)
(w0, *law0), (w1, *law1) = [(f.weights_, f.means_, f.covariances_) for f in map(fit.fit, clouds)]
weights = np.outer(w0, w1).flatten() / np.outer(w0, w1).sum()    # each component with each other
means0, covs0 = (np.repeat(part, 5, 0) for part in law0)
means1, covs1 = (np.concatenate([part] * 5) for part in law1)

# %% tags=["copy"]
pairs = MixtureCoupling(weights, means0, means1, covs0, covs1)
x0, x1 = pairs.sample(1000, generator=g)
path = trajectory(pairs.velocity, x0, steps=40)[1]
end = path[-1]
square = lambda a, b: (a - b).square().sum(1).mean()
spent = 40 * path.diff(dim=0).square().sum(-1).mean(1).sum()
hues = [square(x0, end[exact_pairs(x0, end)]), square(x0, end), spent, square(x0, x1)]
say("colours:", " ≤ ".join(f"{value:.2f}" for value in hues))

# %%
claim("S02-4", chain[2] / chain[0])
claim("S02-5", hues[3] / hues[0])
slope = fm_flow(Gaussian([0.0], [[1.0]]), Gaussian([0.0], [[4.0]]), 1.0).matrix.item()
say(f"from N(0, 1) to N(0, 4) the flow ends at {slope:.0f} x, the optimal map")
cross_cov = p.cov @ (straight(0.0, torch.eye(2)) + torch.eye(2))      # X1 = T X0
say(f"optimal pairs: energy {fm_kinetic_energy(p, q, cross_cov=cross_cov):.4f}")

# %%
figure, axes = plt.subplots(2, 1, figsize=(8, 3.5))
gaps = {"wrong partners": "wrong", "bent lines": "independent", "crossing pairs": "first"}
for ax, values, title in zip(axes, (chain, hues), ("two Gaussians", "colours"), strict=True):
    values = [float(value) for value in values]
    for ends, (label, role) in zip(zip(values, values[1:]), gaps.items(), strict=True):
        ax.plot(ends, [0, 0], color=ROLES[role], linewidth=7, solid_capstyle="butt", label=label)
    for k, value in enumerate(values):
        side, anchor = ((0.4, "bottom"), (-0.4, "top"))[k % 2]
        ax.plot([value, value], [-0.3, 0.3], color=ROLES["truth"], linewidth=1.2)
        ax.text(value, side, f"{value:.2f}", ha="center", va=anchor, fontsize=9)
    ax.set(ylim=(-1, 1), yticks=[], xscale="log", ylabel=title, xticks=[])
    ax.minorticks_off()
    ax.spines["left"].set_visible(False)
axes[0].legend(ncols=3, loc="lower right", bbox_to_anchor=(1.0, 0.9))
axes[1].set_xlabel("the four numbers, logarithmic axis")
figure.suptitle("Three kinds of waste, one after the other")
alt = ("Two lines with four ticks each. For the Gaussians the first gap is a sliver and the last "
       "two are wide; for the colours the first gap, wrong partners, is the widest.")
show(figure, "chain", alt=alt)

# %% [markdown]
# On the line the first gap closes: a flow cannot change the order of the points, and the map that keeps the order is the optimal
# one. For optimal pairs all three close: the lines do not cross, so the mean wind *is* their velocity.
#
# For our Gaussians $1.1187\le1.1328\le2.3919\le7.0000$: the widest gap is the last, people who cross. A wind averages the
# crossing away, and random pairs are charged for it nevertheless. For the colours $0.45\le0.61\le0.65\le0.78$: there the widest
# gap is the first, wrong partners. (Story [00](00_start_here.ipynb) pairs the pixels themselves, here we pair fitted laws: hence
# another $W_2^2$.)
#
# *Why: [proofs/02](proofs/02_benamou_brenier.ipynb), section 3.*

# %% [markdown]
# ## 4. A bracket you can trust
#
# The film that the solver returns is one of the competitors, so its energy is an upper bound of $W_2^2$. For the lower bound the
# solver has prices: $\phi_t(x)$, what one more grain of ink at $x$ and $t$ would be worth, which it needs to keep the rule. Take
# those of the last moment as the $g$ of story [00](00_start_here.ipynb), and the largest $f$ with $f+g\le$ cost: these are
# admissible prices, and twice their value (the cost of story 00 has a ½) is at most $W_2^2$. Both bounds hold whatever the solver did before.
#
# It first works on coarse grids, and each hands its film to a finer one; below we count iterations on the finest. As a judge we
# take a solver of the *static* problem, prices without time (`back_and_forth`), on smaller cells.
#
# **Guess.** Stop the solver after one iteration. Is the interval wrong?

# %% tags=["copy"]
temple, flower = (luminance(image) for image in photographs(size=(48, 72)))
film = benamou_brenier.solve(temple, flower, steps=20, method="cold")
say(f"W2² of two photographs is between {film.lower:.4f} and {film.upper:.4f}")

# %%
stops = (1, 2, 4, 8, 16, 32)
early = {"steps": 20, "method": "cold", "tol": 1e-6}
films = [benamou_brenier.solve(temple, flower, max_iterations=stop, **early) for stop in stops]
fine = [torch.kron(image, torch.ones(3, 3)) for image in (temple, flower)]    # smaller cells
static = back_and_forth.solve(*fine).w2_squared
say(f"static solver on a grid three times finer: {static:.5f}")
widths = [f"{film.gap:.2%}" for film in films]
say("width of the bracket after 1, 2, 4, 8, 16, 32 iterations:", ", ".join(widths))
claim("S02-6", films[-1].gap)

# %%
figure, ax = plt.subplots(figsize=(6.6, 3.2))
lower, upper = [film.lower for film in films], [film.upper for film in films]
ax.fill_between(stops, lower, upper, color=ROLES["optimal"], alpha=0.2, label="certified bracket")
ax.plot(stops, upper, "o-", color=ROLES["optimal"], label="energy of the film")
ax.plot(stops, lower, "v-", color=ROLES["optimal"], label="value of the prices")
ax.axhline(static, color=ROLES["truth"], linestyle="--", label="problem without time, smaller cells")
ax.set(xscale="log", xlabel="iterations on the finest grid", ylabel="$W_2^2$")
ax.set(xticks=stops, xticklabels=stops, title="Stopped early, the bracket is wider, never wrong")
ax.minorticks_off()
ax.legend(fontsize=9, ncols=2, loc="center", bbox_to_anchor=(0.5, 0.62))
alt = ("A band between a falling and a rising curve; a dashed line, the value of another solver, "
       "stays inside from the first iteration on.")
show(figure, "bracket", alt=alt)

# %%
settled = benamou_brenier.solve(four, seven, steps=24, tol=1e-4, max_iterations=1000)
finest = back_and_forth.solve(*(torch.kron(digit, torch.ones(4, 4)) for digit in (four, seven)))
say(f"digits: midpoint energy {settled.energy:.6f}, lower bound of W2² {finest.lower:.6f}")
say(f"upper bound {morph.upper}, smallest density {morph.min_density:.2%} of the largest")

# %% [markdown]
# It is not wrong, only wider: 1.18 % of the energy after one iteration, 0.76 % after 32. One is good already because coarser
# grids come before it. What remains at the end is not the solver but the grid, and the bracket says so.
#
# **Trap.** "The energy that a solver prints is an upper bound." `film.energy` takes $|m|^2/\mu$ at the middle of each cell only:
# for the digits, with a tight tolerance, it is 0.020706, below the proved lower bound 0.020709. A bound is the integral over the
# whole cells, `film.upper`.
#
# **Where it stops working.** A finite upper bound needs positive densities. The digits stand on empty paper, and in $|m|^2/\mu$
# the least momentum where $\mu=0$ costs infinitely much: `upper` is infinite, and the film's density falls to −0.02 % of its
# maximum. The grid has one to three axes: this is no method for data in a hundred dimensions, which is what the next stories are
# about.
#
# **Change this.** `size=(96, 144)` and `steps=32`: four times the cells, and the bracket closes to a third of a per cent.
#
# *Why: [proofs/02](proofs/02_benamou_brenier.ipynb), section 4.*

# %% [markdown]
# ## 5. Walls, and mass that may grow
#
# The same solver obeys obstacles, and may create and destroy mass at a price.
#
# **Guess.** A crowd must leave a maze through a corridor three cells wide. Will it queue?

# %% tags=["copy"]
here, there, walls = maze()
film = benamou_brenier.solve(here, there, steps=24, method="cold", mask=walls)
claim("S02-7", film.energy**0.5 / (0.88 * 2**0.5))
say(f"mass inside the walls: {film.density[:, walls].abs().max():.0f}")

# %%
figure = strip(film.density.clamp(min=0).sqrt(), film.times, mask=walls, height=1.6)
squares = ((0, 0), (4, 0), (4, 4), (6, 4), (6, 0), (8, 0), (8, 6), (2, 6), (2, 8), (8, 8))
i, j = 3 * np.transpose(squares) + 1
figure.axes[0].plot(j, i, ":", color=ROLES["wrong"])
figure.suptitle("Nobody takes the longer way (dotted), and nobody waits")
alt = ("Six pictures of a maze: a cloud leaves the upper left corner, is drawn out along the "
       "corridors of one way, and gathers in the lower right corner; the other way is dotted.")
show(figure, "maze", alt=alt)

# %% [markdown]
# No: the particles of optimal transport ignore each other, and a crowded corridor costs no more than an empty one. (All six
# pictures have one scale, the root of the density: a queue would be a dark spot before the corridor.) The way is 1.5 times as
# long as the straight line, and no mass is inside a wall.
#
# Now let mass grow, $\partial_t\mu+\mathrm{div}(\mu v)=\kappa\mu$. Growth at the rate $\kappa$ costs $\delta^2\kappa^2$ per unit
# of mass and time. The *growth length* $\delta$ is ours to choose; no mass travels farther than $\pi\delta$.
#
# **Guess.** Two blobs become two others, one of them far away and heavier. The total mass grows a little. Is it on the way
# between what it is at the ends?

# %% tags=["copy"]
centres = (torch.arange(32).double() + 0.5) / 32
bump = lambda at: torch.exp(-((centres - at) ** 2) / (2 * 0.08**2))
blob = lambda row, column: bump(row)[:, None] * bump(column)
before = blob(0.3, 0.25) + blob(0.7, 0.25) + 0.02
after = 0.4 * blob(0.3, 0.45) + 1.8 * blob(0.7, 0.75) + 0.02
before, after = 1.5 * before / after.mean(), 1.5 * after / after.mean()
say(f"masses {before.mean():.2f} and {after.mean():.2f}")

# %% tags=["copy"]
lengths = (0.05, 0.1, 0.2, 0.4)
free = {"steps": 24, "method": "cold"}
grown = [benamou_brenier.solve(before, after, growth_length=delta, **free) for delta in lengths]
fixed = benamou_brenier.solve(before / before.mean(), after / after.mean(), steps=24)
halves = [film.measure(0.5)[1].sum().item() for film in grown]
say("δ, mass half-way:", "; ".join(f"{a}, {b:.2f}" for a, b in zip(lengths, halves, strict=True)))
claim("S02-8", halves[1])

# %%
figure, axes = plt.subplots(2, 5, figsize=(9.2, 4.1))
labels = "mass is fixed", "mass may grow, $\\delta=0.1$"
for row, film, label in zip(axes, (fixed, grown[1]), labels, strict=True):
    for ax, k in zip(row, (0, 6, 12, 19, 25), strict=True):
        ax.imshow(film.density[k], cmap="viridis", vmin=0, vmax=film.density.max())
        mass = film.density[k].mean()
        ax.set(xticks=[], yticks=[], title=f"$t={film.times[k]:.2f}$, mass {mass:.2f}")
    row[0].set_ylabel(label)
figure.suptitle("Carry it across, or let it fade here and grow there")
alt = ("Two blobs on the left become a faint upper and a strong lower one on the right. With "
       "fixed mass the upper blob sends a part down to the lower right; with growth it fades "
       "where it is, and a new blob grows where it is needed.")
show(figure, "unbalanced", alt=alt)

# %% [markdown]
# It is below both: from 1.39 to 1.50 by way of 1.18, for $\delta=0.1$. What is too far away fades out here and grows there, and
# the same rate is cheaper where there is little mass: at one place growth costs
# $\delta^2\kappa^2\mu=4\delta^2(\partial_t\sqrt\mu)^2$, so the root of the mass goes evenly. A heap that fades has half of its
# root left half-way, a quarter of its mass, and one that grows has a quarter of its own; two halves would keep the total, hence
# the dip. What is carried does not dip.
#
# The longer δ, the dearer growth, and the more is carried: 1.13, 1.18, 1.26, 1.37 half-way for δ from 0.05 to 0.4.
#
# *Why: [proofs/02](proofs/02_benamou_brenier.ipynb), section 5.*

# %% [markdown]
# ## What to remember
#
# The cheapest film moves everybody straight, at constant speed, to the optimal partner, and costs $W_2^2$. Every other film
# wastes energy in two ways, bent or uneven trajectories and wrong partners, and both wastes are numbers. A solver that knows
# nothing of maps finds it, and can prove how near it is.

# %% [markdown]
# ## Change this
#
# 1. The clock $t^3$ in section 2: `3 * t**2 * straight(t**3, x)` on `geodesic(p, q, t**3)`. → $\frac95$ instead of $\frac43$.
# 2. Close the short way through the maze: `walls[6:9, 9:12] = True`. → Everybody takes the other way, nearly three times as long
#    as the straight line instead of one and a half times.
# 3. Stop the film of the photographs after 200 iterations instead of 32. → The bracket hardly moves: the grid is the limit.

# %% [markdown]
# ## Problems
#
# [PS1](assignments/PS1_continuity_to_flow_matching.ipynb), parts 3 (what a diffusion costs) and 6 (a stopover);
# [PS2](assignments/PS2_action_matching_to_duality.ipynb), part 9 (autonomous fields and clocks).

# %% [markdown]
# ## Proofs and limits
#
# [proofs/02_benamou_brenier](proofs/02_benamou_brenier.ipynb) has both directions of the theorem, for films without a flow, too;
# the proof of the four numbers and of the bracket; orders of convergence; obstacles and growth with their closed forms. A quick
# run differs from the stored one in nothing but time.
