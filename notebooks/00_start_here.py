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
# # What does it mean to move one heap onto another as cheaply as possible?
#
# **You will see** a temple take on the colours of a flower, prices that prove a pairing to be the cheapest, a distance between
# clouds, and the straight way from one to the other.
#
# **You need** expectations, squared distances and some Python. No optimal transport.
#
# **It takes** twenty minutes to read and half a minute to run. Proofs and limits:
# [proofs/00_start_here](proofs/00_start_here.ipynb).

# %% [markdown]
# ![The photograph of a temple, that of a flower, and the temple in the flower's colours: its shape, and a teal and orange sky.](../figures/00_start_here/temple_and_flower.jpg)

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
import itertools
import math

import matplotlib.pyplot as plt
import torch

from dynot_lite.companion import claim, say, show, start
from dynot_lite.couplings.batches import exact_pairs
from dynot_lite.couplings.maps import cell_map, optimal_potentials
from dynot_lite.couplings.plans import exact_plan
from dynot_lite.couplings.sliced import squared_cost, w2_squared_1d, w2_squared_sliced
from dynot_lite.datasets.images import CREDIT, colour_sample, photographs
from dynot_lite.laws.gaussian import Gaussian, w2_squared
from dynot_lite.metrics import sample_w2_squared
from dynot_lite.plots import ROLES, draw_cells, draw_pairs, image_row

torch.set_default_dtype(torch.float64)
start("00_start_here", preset=preset, seed=seed)

# %% [markdown]
# ## 1. A temple in the colours of a flower
#
# A photograph, as far as its colours go, is a cloud of points in the cube of red, green and blue. *Optimal transport* pairs two
# clouds, one to one, with the least mean squared distance between partners. Each target then has a region of colours, its cell
# (section 2), and every colour goes to the target of its cell; `epsilon` blurs the borders of the cells.

# %% tags=["copy"]
g = torch.Generator().manual_seed(seed)
temple, flower = photographs(size=(160, 240))
x, y = (colour_sample(image, 800, generator=g) for image in (temple, flower))
y = y[exact_pairs(x, y)]  # x[i] goes with y[i]: the cheapest pairing
T = cell_map(x, y, epsilon=1e-3)  # … extended to every colour (section 2)
recoloured = T(temple.reshape(-1, 3)).reshape(temple.shape)

# %%
pictures = {"a temple": temple, "a flower": flower, "the temple in these colours": recoloured}
alt = "A temple, a flower, and the temple in the flower's colours: its sky is teal and orange."
show(image_row(pictures), "temple_and_flower", alt=alt, photograph=CREDIT)

# %% [markdown]
# Every colour of the flower is used as often as the flower has it. The sky tears in two where the flower has nothing between
# teal and orange; everywhere else similar colours stay similar.
#
# **Guess.** The best pairing has a cost, and part of it no pairing can avoid, because the two clouds have different means. How
# much of the cost is that: a tenth, a quarter, more than half?

# %%
mean_square = lambda a, b: (a - b).square().sum(1).mean().item()
anybody = y[torch.randperm(800, generator=g)]  # a random partner for each x[i]
shift = (x.mean(0) - y.mean(0)).square().sum().item()
claim("S00-1", mean_square(x, y))
say(f"mean squared distance: cheapest pairing {mean_square(x, y):.2f}")
say(f"random pairing {mean_square(x, anybody):.2f}; squared distance of the two means {shift:.2f}")

# %% [markdown]
# (Lines with a dot show numbers. `PASS S00-1` is a *claim*: a number that has to lie between two bounds in every run. You
# see the full preset; a run starts in the quick one.)
#
# More than half: 0.33 of 0.52. The mean of a square is at least the square of the mean, for every pairing. A random pairing
# costs 0.81.
#
# Does the map also work for colours that were not among the 800? We draw other pixels and ask how far their images are from
# fresh colours of the flower, as a share of the distance before. The floor is what two samples of the flower are apart.

# %%
x_new, y_new = (colour_sample(image, 800, generator=g) for image in (temple, flower))
before = sample_w2_squared(x_new, y_new)
left = {e: sample_w2_squared(cell_map(x, y, epsilon=e)(x_new), y_new) / before for e in (1e-3, 0.1)}
few = []
for _ in range(5):
    pair = (colour_sample(image, 50, generator=g) for image in (temple, flower))
    few.append(sample_w2_squared(cell_map(*pair, epsilon=1e-3)(x_new), y_new) / before)
claim("S00-2", left[1e-3])
floor = sample_w2_squared(y, y_new) / before
say(f"left of the distance: {left[1e-3]:.1%}, floor {floor:.1%}; epsilon 0.1 {left[0.1]:.0%}")
say(f"with 50 colours in the place of 800: {min(few):.0%} to {max(few):.0%} in five draws")

# %% [markdown]
# Of the squared distance 0.9 % is left; the floor is 0.5 %.
#
# **Change this.** Set `epsilon=0.1` in `cell_map`, so that every colour goes to a mean of many targets: the picture washes out,
# and 15 % of the distance is left.
#
# **Where it stops working.** With 50 colours in the place of 800, between 2 % and 21 % is left, depending on which 50 they are:
# between few colours the pairing does not say where the others should go.
#
# *Why: [proofs/00](proofs/00_start_here.ipynb), section 9.*

# %% [markdown]
# ## 2. Prices find the pairing
#
# Put a price $g_j$ on every target, paid *to* whoever serves it. Each point takes the target with the least cost minus price,
# $\tfrac12|x_i-y_j|^2-g_j$; this least value is $f_i$. At the right prices every target is served exactly once, by its partner
# in the cheapest pairing. (The ½ is a habit with prices; it changes no pairing.)

# %% tags=["copy"]
g = torch.Generator().manual_seed(seed + 60)  # a draw in which no line runs over another circle
x14 = 0.6 * torch.randn(14, 2, generator=g)
y14 = 2.5 * torch.rand(14, 2, generator=g) - torch.tensor([0.75, 0.95])
y14 = y14[exact_pairs(x14, y14)]
f, price = optimal_potentials(x14, y14)  # f[i] + price[j] ≤ cost[i, j], partners: equal
cost = squared_cost(x14, y14)  # ½|x14[i] − y14[j]|²
gap = f.mean() + price.mean() - cost.diagonal().mean()

# %% [markdown]
# The region in which a target is the best offer is its *cell*. The target need not lie in it itself: square and cell have one
# colour below. **Guess.** Raise the price $g_j$ of one target. Does its cell grow or shrink?

# %%
at_home = lambda prices: (prices - cost).argmax(1) == torch.arange(14)
box = (-1.7, 2.1, -1.3, 1.9)
figure, axes = plt.subplots(1, 2, figsize=(8.4, 4.1), sharex=True, sharey=True)
for ax, prices, title in ((axes[0], 0 * price, "price zero"), (axes[1], price, "the right prices")):
    home = at_home(prices)
    draw_pairs(ax, x14, y14, role="truth")
    draw_cells(ax, y14, prices, box)
    colours = [ROLES["optimal" if found else "wrong"] for found in home]
    ax.scatter(*x14.T, s=32, c=colours, edgecolors=ROLES["second"], linewidths=0.6, zorder=3)
    ax.set(title=f"{title}: {home.sum()} of 14 find their partner", xlabel="first coordinate")
axes[0].set_ylabel("second coordinate")
alt = """Cells of 14 squares in their colours, twice; 14 circles joined to partners. At price zero
most are in the cell of another square (vermilion), at the right prices in their own (green)."""
show(figure, "prices", alt=alt)

# %%
lost = [(~at_home(price + 0.3 * torch.eye(14)[j])).sum().item() for j in range(14)]
nearest = (-squared_cost(x, y)).argmax(1)
claim("S00-3", at_home(price).sum())
claim("S00-4", gap.abs())
say(f"in the cell of their partner: {at_home(0 * price).sum()} of 14 circles at price zero")
say(f"at the right prices {at_home(price).sum()} of 14")
say(f"one price raised by 0.3: {min(lost)} to {max(lost)} circles leave their partners for it")
say(f"colours of the flower that anybody takes at price zero: {len(nearest.unique())} of 800")

# %% [markdown]
# It grows: a higher price draws more points. (It is what a target pays, not what it costs.) Of 14 circles 3 find their partner
# at price zero, all of them at the right prices. Raise one price by 0.3, and 1 to 9 circles leave their partners for it.
#
# The prices do more than find the pairing: they *prove* that it is the cheapest. If $f_i+g_j\le\tfrac12|x_i-y_j|^2$ for all
# pairs, then no pairing can cost less than the mean of $f$ plus the mean of $g$. Here the cost of the pairing *is* that number,
# to the last digit.
#
# **Trap.** "Send each colour to the nearest colour of the flower." That is price zero: of the 800 colours of the flower only 69
# are taken by anybody, and the picture does not have the flower's colours.
#
# *Why: [proofs/00](proofs/00_start_here.ipynb), sections 6 and 7.*

# %% [markdown]
# ## 3. When no map will do
#
# Two heaps of one half each cannot fill three holes of one third each, unless a heap is split. A *coupling* may split mass; a
# map may not.

# %% tags=["copy"]
heaps = torch.tensor([[0.0, 0.6], [0.0, -0.6]])
holes = torch.tensor([[2.0, 1.0], [2.0, 0.0], [2.0, -1.0]])
plan = exact_plan(heaps, holes).require().plan  # plan[i, j]: the mass from heap i to hole j
maps = itertools.product(range(3), repeat=2)
filled = [torch.bincount(torch.tensor(m), minlength=3) / 2 for m in maps]
missed = min(0.5 * (image - 1 / 3).abs().sum() for image in filled)  # total variation

# %% [markdown]
# **Guess.** A plan between $n$ heaps and $m$ holes could use $nm$ arrows. How many does a cheapest one need?

# %%
figure, ax = plt.subplots(figsize=(6.0, 2.7))
for i, j in (plan > 1e-12).nonzero().tolist():
    line, width = torch.stack([heaps[i], holes[j]]), 24 * plan[i, j]
    ax.plot(*line.T, color=ROLES["optimal"], lw=width, alpha=0.6, zorder=1)
    ax.text(*(0.65 * line[0] + 0.35 * line[1]), f"{plan[i, j]:.2f}", ha="center", va="center")
ax.scatter(*heaps.T, s=900, color=ROLES["source"], zorder=2)
ax.scatter(*holes.T, s=600, color=ROLES["target"], marker="s", zorder=2)
for points, mass in ((heaps, "½"), (holes, "⅓")):
    for point in points:
        ax.text(*point, mass, ha="center", va="center", zorder=3)
ax.set(title="two heaps fill three holes only if each is split", xlim=(-0.4, 2.4), ylim=(-1.5, 1.5))
ax.set_axis_off()
alt = """Two discs of mass one half and three squares of mass one third; each disc sends a wide line
to the square on its side and a line of half that width to the square in the middle."""
show(figure, "split", alt=alt)

# %%
a, b = torch.rand(2, 40, generator=g) + 0.2  # unequal weights
many, others = torch.randn(40, 2, generator=g), torch.randn(40, 2, generator=g) + 1
big = exact_plan(many, others, weights0=a / a.sum(), weights1=b / b.sum()).require().plan
empty = 40 - len(big.argmax(1).unique())
claim("S00-5", missed)
say(f"the best map misses {missed:.2f} of the mass; the plan has {(plan > 1e-12).sum()} arrows")
say(f"40 heaps and 40 holes: {(big > 1e-12).sum()} arrows of {big.numel()}")
say(f"by the largest arrow of each heap {empty} holes stay empty")

# %% [markdown]
# At most $n+m-1$. Two heaps and three holes need 4 arrows, 40 heaps and 40 holes need 79 of 1600. With more there is a cycle of
# arrows. Mass can be sent round it either way; one of the two ways does not raise the cost, and we go on until an arrow is
# gone. And the best of all nine maps leaves 0.33 of the mass missing.
#
# **Trap.** "The largest entry of each row makes a map of a plan." For equal weights and equal numbers it does: a cheapest plan
# is then a pairing. With unequal weights it does not: of the 40 holes 10 stay empty.
#
# *Why: [proofs/00](proofs/00_start_here.ipynb), section 5.*

# %% [markdown]
# ## 4. A distance, and a cheap lower bound
#
# The root of the least mean squared distance, $W_2$, is a distance between laws: symmetric, zero for equal laws only, and no
# detour is shorter. (Its square is none: half-way is a quarter, and ¼ + ¼ is less than 1.) And shadows come closer: project on a
# line, where transport is nothing but sorting, and the distance can only shrink. A segment at the angle
# $\theta$ to a line has a shadow of squared length $\cos^2\theta\,|x-y|^2$, and the mean of $\cos^2$ is ½. So, in the plane,
#
# $$
# W_2^2\;\ge\;2\cdot\text{the mean, over all lines, of }W_2^2\text{ of the shadows}.
# $$
#
# A *law* is a probability measure; ours are two Gaussians in the plane, seen through 1000 points of each.

# %% tags=["copy"]
g = torch.Generator().manual_seed(seed)
p = Gaussian([0.3, -1.0], [[2.0, 0.6], [0.6, 1.0]])
q = Gaussian([1.5, 0.7], [[1.0, -0.5], [-0.5, 3.0]])
x0, x1 = p.sample(1000, generator=g), q.sample(1000, generator=g)
angle = torch.arange(64) * math.pi / 64  # evenly spaced
lines = torch.stack([angle.cos(), angle.sin()], 1)
lower = 2 * w2_squared_sliced(x0, x1, lines)  # twice the mean over the lines
exact = sample_w2_squared(x0, x1)

# %% [markdown]
# **Guess.** `lower` is never above `exact`. For which pairs of laws are they equal?

# %%
shadows = w2_squared_1d(x0 @ lines.T, x1 @ lines.T)  # one number per line
of_pairs = ((x0 - x1[exact_pairs(x0, x1)]) @ lines.T).square().mean(0)
figure, ax = plt.subplots(figsize=(6.4, 3.2))
ax.plot(angle.rad2deg(), of_pairs, "--", color=ROLES["optimal"], label="shadows of the best pairs")
ax.plot(angle.rad2deg(), shadows, color=ROLES["second"], label="best pairs of the shadows")
for curve, role in ((of_pairs, "optimal"), (shadows, "second")):
    ax.axhline(curve.mean(), color=ROLES[role], lw=0.8, ls=":")
ax.set(title="a shadow never costs more than the pairs that cast it", ylim=(0, None), xlim=(0, 180))
ax.set(xlabel="angle of the line (degrees)", ylabel="mean squared distance")
ax.legend(loc="best")
alt = """Mean squared distance on a line against its angle: the curve of the shadows, paired afresh,
stays below that of the shadows of the best pairs; dotted lines mark the two means."""
show(figure, "shadows", alt=alt)

# %%
claim("S00-6", lower / exact)
say(f"{lower:.2f} ≤ {exact:.2f} on the samples (the laws are at {w2_squared(p, q):.2f})")
say(f"twice one shadow is above the distance for {(2 * shadows > exact).sum()} of 64 angles")
noise = [torch.randn(1000, 20, generator=g) for _ in range(2)]
apart = sample_w2_squared(*noise)
claim("S00-7", apart)
say(f"two samples of one law in dimension 20: {apart:.1f}, random pairs {mean_square(*noise):.0f}")

# %% [markdown]
# For translations and dilations (by the same factor in all directions), and on one line: then every shadow of the best pairs is sorted already.
# Here the bound is 4.50, the squared distance of the samples 5.07: each is twice the height of a dotted line. For other powers
# than the square the factor is another.
#
# **Trap.** The two belongs to the *mean* over all lines. One shadow is a lower bound as it is; *twice* one shadow is none: for 31
# of the 64 angles it is above the distance.
#
# **Where it stops working.** Samples see the distance of laws only where there are enough of them. Two samples of 1000 points
# of one and the same law in dimension 20 are at 15.2 where the laws are at zero; random partners would be at 40.
#
# *Why: [proofs/00](proofs/00_start_here.ipynb), sections 4 and 8.*

# %% [markdown]
# ## 5. The straight way
#
# Let every colour walk straight to its partner, at constant speed. At time $t$ the crowd is at $(1-t)x_i+ty_i$, and that is a
# law in the middle: the temple can be painted in it. We do this for two crowds, with the cheapest partners and with random ones.
# Either way we *paint* by the cheapest map to the crowd as it stands at time $t$, whoever walked where; so at $t=1$ the two
# pictures are the same.

# %% tags=["copy"]
g = torch.Generator().manual_seed(seed)
times = (0.0, 0.25, 0.5, 0.75, 1.0)
pixels = temple.reshape(-1, 3)
crowd = lambda end, t: (1 - t) * x + t * end
stranger = y[torch.randperm(800, generator=g)]  # a random partner for each x[i]
paint = lambda cloud: cell_map(x, cloud, epsilon=1e-3)(pixels).reshape(temple.shape)
strips = [[paint(crowd(end, t)) for t in times] for end in (y, stranger)]

# %% [markdown]
# **Guess.** Start and end are the same in both. Which strip loses its colours on the way, and why?

# %%
figure, axes = plt.subplots(2, 5, figsize=(9.6, 2.9))
for row, name, strip in zip(axes, ("cheapest", "random"), strips, strict=True):
    for ax, t, image in zip(row, times, strip, strict=True):
        ax.imshow(image.clamp(0, 1))
        ax.set(xticks=[], yticks=[], title=f"$t={t:g}$" if row is axes[0] else None)
        ax.spines[:].set_visible(False)
    row[0].set_ylabel(f"{name}\npartners")
figure.suptitle("random partners fade on the way, the cheapest do not", fontsize=10.5)
alt = """Two strips of five temples, from the temple's colours to the flower's. With the cheapest
partners the colours stay strong; with random partners the pictures in the middle are greyer."""
show(figure, "two_ways", alt=alt, photograph=CREDIT)

# %%
variance = lambda z: z.var(0, correction=0).sum().item()
for t in (0.5, 0.25):
    cheapest, random = variance(crowd(y, t)), variance(crowd(stranger, t))
    say(f"variance at t = {t}: cheapest partners {cheapest:.3f}, random partners {random:.3f}")
say(f"variance at the ends: {variance(x):.2f} and {variance(y):.2f}")
claim("S00-8", variance(crowd(stranger, 0.5)) / variance(crowd(y, 0.5)))

# %% [markdown]
# The lower one greys out. Random partners walk through the middle from all sides, and there they are close together: the
# variance half-way is 0.118, with the cheapest partners 0.194. Let $X_0$ be a colour and $X_1$ its partner, $m_t$ the mean of the
# crowd at time $t$ and $\mathbb V_t$ the sum of the variances of its three coordinates. For every pairing
#
# $$
# \mathbb V_t=(1-t)\mathbb V_0+t\mathbb V_1-t(1-t)\big(\mathbb E|X_1-X_0|^2-|m_1-m_0|^2\big),
# $$
#
# and so the cheapest pairing, for which $\mathbb E|X_1-X_0|^2$ is least, keeps the most at every $t$. It is also the *straight*
# way in the space of laws: at time $t$ it has covered the share $t$ of the distance.
#
# **Change this.** Look at a quarter of the way: the variances are 0.244 and 0.187.
#
# *Why: [proofs/00](proofs/00_start_here.ipynb), section 9, and [proofs/01](proofs/01_continuity_equation.ipynb), section 6.*

# %% [markdown]
# ## 6. Where this goes
#
# Two families begin here. *Move optimally*: find the map, the prices, or the straight way (02, 05, 06, 07).
# *Move somehow, but so that it can be learned*: any partners, and the mean of their velocities (03, 04, 08).
#
# | notebook | its question |
# |---|---|
# | [00_start_here](00_start_here.ipynb) | What does it mean to move one heap onto another as cheaply as possible? |
# | [01_continuity_equation](01_continuity_equation.ipynb) | Which winds carry which crowds? |
# | [02_benamou_brenier](02_benamou_brenier.ipynb) | Of all ways to move in time, which is the cheapest? |
# | [03_flow_matching](03_flow_matching.ipynb) | How do you learn, from samples alone, a wind that turns noise into data? |
# | [04_gaussian_exercises](04_gaussian_exercises.ipynb) | What do all these objects look like when they can be computed by hand? |
# | [05_am_ot_equivalence](05_am_ot_equivalence.ipynb) | Why does the loss not care which film it is shown? |
# | [05b_given_snapshots](05b_given_snapshots.ipynb) | Given snapshots and no pairing: what can be said? |
# | [06_learning_brenier_maps](06_learning_brenier_maps.ipynb) | How do you learn the optimal map from samples? |
# | [07_limits_of_the_equivalence](07_limits_of_the_equivalence.ipynb) | What may you change before the theorem breaks? |
# | [08_semidiscrete_flow_matching](08_semidiscrete_flow_matching.ipynb) | Which noise should be paired with which data point? |
# | [09_amortized_ot](09_amortized_ot.ipynb) | Can you guess a transport plan before you solve it? |
# | [10_benchmarks](10_benchmarks.ipynb) | How does this compare with other libraries? |
# | assignments | [PS1](assignments/PS1_continuity_to_flow_matching.ipynb), [PS2](assignments/PS2_action_matching_to_duality.ipynb), [PS3](assignments/PS3_couplings_to_sliced_ot.ipynb): problem sets, graded by a program |
#
# Read 00 to 04 for a first course, then 05 to 07; 08 and 09 for large problems. Each story has its proofs in `proofs/`.
#
# *Why: [proofs/00](proofs/00_start_here.ipynb), section 10.*
#
# ## What to remember
#
# Optimal transport is a pairing: the one with the least mean squared distance, or, where mass must be split, a coupling. Prices
# certify it: their value is a lower bound of every cost, and the right ones reach it. Sorted shadows bound it from below, and
# straight walks to the cheapest partners make a path that loses least on the way.
#
# ## Change this
#
# 1. Exchange the photographs (`flower, temple = photographs(...)`). Does the cost change? The distance is symmetric: the number
#    moves by a few hundredths, because other pixels are drawn.
# 2. In section 2 add the same number to all prices. What happens to the cells? Nothing: only differences of prices count.
# 3. In section 4 add the line `q = Gaussian(q.mean, 4 * p.cov)`, a dilation by 2. How far is the bound from the distance? For
#    the laws there is no gap; on the samples 1 % is left, because one is no exact dilation of the other.
#
# ## Problems
#
# [PS3](assignments/PS3_couplings_to_sliced_ot.ipynb): parts 1 (weighted points on the line), 2 (how far pairs are from
# optimal), 3 (proofs about couplings), 9 (a map from slices), 10 (the best bound), 13 (a project).
#
# ## Proofs and limits
#
# [proofs/00_start_here](proofs/00_start_here.ipynb) proves what is told here: that a cheapest plan needs no more than $n+m-1$
# arrows, that the right prices exist (Brenier's theorem), that $W_2$ is a distance, that slices bound it for every exponent and
# when they reach it.
