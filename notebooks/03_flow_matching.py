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
# # How do you learn, from samples alone, a wind that turns noise into data?
#
# **You will see** a generator in ten lines, why its loss must not reach zero, and what a good pairing of noise and data
# buys. **You need** conditional means, and what a velocity field is ([01](01_continuity_equation.ipynb)). **Time:**
# half an hour to read, a minute to run. Proofs and limits: [proofs/03_flow_matching](proofs/03_flow_matching.ipynb).

# %% [markdown]
# ![Eight coloured crowds flow to two moons, left along bent, right along straight lines](../figures/03_flow_matching/flow.gif)

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
from functools import partial

import torch
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection
from sklearn.svm import SVC

from dynot_lite import datasets, plots
from dynot_lite.companion import claim, say, show, slide, start
from dynot_lite.companion.ledger import run_dir
from dynot_lite.couplings import batches
from dynot_lite.laws.coupled import MixtureCoupling
from dynot_lite.laws.gaussian import Gaussian, fm_velocity, geometric_mean
from dynot_lite.matching.fields import change_path, sample_sde
from dynot_lite.matching.flow_matching import FlowMatching, guided, loss, sample
from dynot_lite.matching.networks import VelocityNetwork
from dynot_lite.matching.training import fit
from dynot_lite.metrics import energy_distance, path_energy, sample_w2_squared
from dynot_lite.paths.flows import integrate, trajectory
from dynot_lite.paths.interpolants import LINEAR, TRIGONOMETRIC, Interpolant
from dynot_lite.plots import ROLES, draw_trajectories, image_grid, rendered, write_gif

start("03_flow_matching", preset=preset, seed=seed)
g = torch.Generator().manual_seed(seed)

# %% [markdown]
# ## 1. Four steps
#
# Least squares and a solver of differential equations make a generator. (1) Take a law α that is easy to sample, here
# eight Gaussians, and samples of the law β that you want, here two moons. (2) Draw a pair $(X_0,X_1)$, a time $t$ and
# the point $X_t=(1-t)X_0+tX_1$ on the segment between them; let a network $v(t,x)$ guess, from $t$ and $X_t$ alone, the
# velocity $X_1-X_0$. This is the step with all the work in it. (3) Follow $v$ from $t=0$ to 1. (4) Do so from fresh
# points of α.
#
# **Guess.** What does the loss $\mathbb E|v(t,X_t)-(X_1-X_0)|^2$ end at if all goes well: 0.01, 1 or 17?

# %% tags=["copy"]
pairs = batches.independent(datasets.toy.eight_gaussians, datasets.toy.moons)  # 1
network = VelocityNetwork(2, generator=g)
optimiser = torch.optim.Adam(network.parameters())
for k in range(2000):  # 2
    value = loss(network, *pairs(256, generator=g), torch.rand(256, generator=g))
    optimiser.param_groups[0]["lr"] = 5e-3 * (1 - k / 2000)  # shorter and shorter steps
    optimiser.zero_grad()
    value.backward()
    optimiser.step()
generated = sample(network, datasets.toy.eight_gaussians(700, generator=g), steps=20)  # 3, 4

# %%
moons, others = (datasets.toy.moons(700, generator=g) for _ in range(2))
starts = datasets.toy.eight_gaussians(700, generator=g)
before, after, twin = (sample_w2_squared(x, moons) ** 0.5 for x in (starts, generated, others))
say(f"loss of the last batch: {value.item():.0f}")
say(f"W₂ to the moons: noise {before:.1f}, generated {after:.1f}, other moons {twin:.1f}")

figure, axes = plt.subplots(1, 3, figsize=(9, 2.8), sharex=True, sharey=True)
parts = {"noise": starts, "generated": generated, "data": moons}
for ax, (title, x), role in zip(axes, parts.items(), ("source", "independent", "target")):
    ax.scatter(*x.T, s=3, color=ROLES[role])
    ax.set(title=title, xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
show(figure, "four_steps", alt="Eight clusters of noise; two generated moons; the moons of the data.")

# %% [markdown]
# Near 17, and yet the moons are there, with some strays: two thousand steps are few. The noise is 2.7 away from the data,
# the generated points 0.4. Our yardstick is two samples of the data, 0.5 apart. It is no lower bound: both of them
# scatter, and points that a smooth flow has made can scatter less. Why a loss of 17 is no failure is section 3.
#
# **Change this.** Exchange `eight_gaussians` and `moons` in the first and the last line: the same ten lines find the
# eight modes, and are as near to them as a second sample is.
#
# *Why the flow of $v$ carries α to β: [proofs/03](proofs/03_flow_matching.ipynb), section 1.*

# %% [markdown]
# ## 2. Why an average?
#
# Two crowds walk through each other, each to the opposite corner. A field has one velocity per place and time, so where
# the crowds meet it cannot serve both. The best it can do is the mean of the velocities present, $v_t(x)=\mathbb
# E[X_1-X_0\mid X_t=x]$.
#
# To compute this mean we would need the density of β, and all that we have are samples. But least squares finds
# conditional means from samples alone: that is why step 2 is a regression. For two Gaussian crowds the mean is known,
# and we can look at it.
#
# **Guess.** Everybody follows the *mean* velocity of those around. Which share of the upper crowd changes sides: all,
# half, nobody?

# %% tags=["copy"]
m0 = torch.tensor([[-2.0, 1.0], [-2.0, -1.0]])
m1 = torch.tensor([[2.0, -1.0], [2.0, 1.0]])
spread = 0.3**2 * torch.eye(2)
share = torch.tensor([0.5, 0.5])  # of the upper crowd, of the lower crowd
crowds = MixtureCoupling(share, m0, m1, spread, spread, cross_cov=spread)  # each walks by m1 − m0
upper = m0[0] + 0.3 * torch.randn(4000, 2, generator=g)
walked = upper + m1[0] - m0[0]
moved = integrate(crowds.velocity, upper, steps=100)
walkers, flow = ((end[:, 1] * upper[:, 1] < 0).double().mean().item() for end in (walked, moved))

# %%
say(f"of the upper crowd change sides: {walkers:.1%} of the walkers, {flow:.0%} in the flow")
claim("S03-1", walkers)
claim("S03-2", flow)
begin = torch.cat([m + 0.3 * torch.randn(150, 2, generator=g) for m in m0])
times, flowing = trajectory(crowds.velocity, begin, steps=72)
walking = begin + times[:, None, None] * (m1 - m0).repeat_interleave(150, 0)
figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.5), sharex=True, sharey=True)
for ax, lines, title in zip(axes, (walking, flowing), ("the walkers cross", "the flow cannot")):
    for half, role in ((slice(0, 150), "first"), (slice(150, 300), "second")):
        draw_trajectories(ax, lines[:, half], colour=ROLES[role], count=40)
    ax.set(title=title, xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
arrow = {"arrowprops": {"arrowstyle": "->", "color": ROLES["truth"], "lw": 3}}
axes[1].annotate("", (1, 0), (-1, 0), **arrow)
axes[1].text(0, 1.3, "grey: the mean\nvelocity at t = ½", ha="center", fontsize=8)
show(figure, "two_crowds", alt="Two crowds cross on straight lines; in the flow both turn back.")

# %% [markdown]
# ![Two crowds walk through each other; below, in the mean velocity, they turn back](../figures/03_flow_matching/crossing.gif)

# %% [markdown]
# Nobody. At every moment the two rows show the same density of people, but not the same people: in the flow the crowds
# meet, turn back and swap roles. On the axis the mean velocity is horizontal, and no trajectory crosses it. This is
# enough if only the *final crowd* matters. The price: the trajectories bend (section 4).
#
# **Trap.** "The network failed to learn the crossing." No field has two velocities at one place.
#
# **Change this.** Make the upper crowd 70 % of all; guess first. The axis is no barrier now: there the mean velocity
# leans to where the larger crowd goes.

# %%
unequal = MixtureCoupling(torch.tensor([0.7, 0.3]), m0, m1, spread, spread, cross_cov=spread)
moved = integrate(unequal.velocity, upper, steps=100)
changed = (moved[:, 1] * upper[:, 1] < 0).double().mean()
say(f"upper crowd 70 % of all: {changed:.0%} of it change sides")

# %%
frames = []
for k in range(0, 73, 2):
    figure, axes = plt.subplots(2, 1, figsize=(3.6, 3.7), dpi=100)
    for ax, lines, word in zip(axes, (walking, flowing), ("walkers", "flow")):
        for half, role in ((slice(0, 150), "first"), (slice(150, 300), "second")):
            ax.scatter(*lines[k, half].T, s=3, color=ROLES[role])
        if word == "flow" and abs(k - 36) <= 8:
            ax.annotate("", (1, 0), (-1, 0), **arrow)
        changed = (lines[k, :, 1] * begin[:, 1] < 0).double().mean()
        ax.set(xlim=(-3.2, 3.2), ylim=(-2.1, 2.1), xticks=[], yticks=[], aspect="equal")
        ax.set_title(f"{word}, t = {k / 72:.2f}: changed sides {changed:.0%}", fontsize=8)
    frames.append(rendered(figure))
if folder := run_dir():
    write_gif(folder / "crossing.gif", frames, milliseconds=80)

# %% [markdown]
# With 70 % above, 57 % of them change sides. Bookkeeping says that no fewer can: below, 70 % have to arrive and 30 % are
# there, so 40 of 70 must come. The flow takes just these.
#
# *Why: [proofs/03](proofs/03_flow_matching.ipynb), section 1.*

# %% [markdown]
# ## 3. A loss that must not reach zero
#
# As $v_t$ is the conditional mean of $X_1-X_0$, the loss is a sum of two squares (fields at $(t,X_t)$):
#
# $$\underbrace{\mathbb E|v-(X_1-X_0)|^2}_{\mathcal L(v)}=\mathbb E|v-v_t|^2+\underbrace{\mathbb
# E|v_t-(X_1-X_0)|^2}_{\mathcal L_{\min}}.$$
#
# The first part can be trained away, the second is a *floor*. It is 0 only if no two pairs meet at one place and time.
# From $N(0,1)$ to an independent $N(0,1)$, what $X_t$ leaves open of $X_1-X_0$ has the variance $1/((1-t)^2+t^2)$, and
# its integral over time is $\frac\pi2$. In general, for independent Gaussians, the floor is
# $\frac\pi2\operatorname{tr}\Sigma_0\#\Sigma_1$; the geometric mean $\Sigma_0\#\Sigma_1$ of two covariances is,
# if they commute, the root of their product.
#
# **Guess.** Your loss falls for a while and levels off above 2. Is something broken?

# %% tags=["copy"]
p = Gaussian(torch.tensor([0.5, -1.0]), torch.tensor([[1.0, 0.5], [0.5, 0.6]]))
q = Gaussian(torch.tensor([1.5, 0.7]), torch.tensor([[0.5, -0.4], [-0.4, 2.0]]))
floor = math.pi / 2 * geometric_mean(p.cov, q.cov).trace().item()
gaussians = batches.independent(p.sample, q.sample)
seen = []
options = {"steps": 2000, "generator": g, "callback": seen.append}
training = fit(VelocityNetwork(2, generator=g), FlowMatching(), gaussians, **options)

# %%
t = torch.rand(20_000, generator=g)
x_t, _ = LINEAR.at(t, *gaussians(20_000, generator=g))
mean = fm_velocity(p, q, t, x_t)
with torch.no_grad():
    excess = [(run.network(t, x_t) - mean).square().sum(1).mean().item() for run in seen]
say(f"floor of the loss: {floor:.3f}; above it: {100 * excess[-1] / floor:.1f} % of that")
claim("S03-3", training.losses[-1000:].mean() / floor)

figure, axes = plt.subplots(1, 2, figsize=(8.4, 2.8), sharex=True)
smooth = training.losses.unfold(0, 20, 20).mean(1)
axes[0].plot(range(10, 2000, 20), smooth, color=ROLES["independent"])
axes[0].axhline(floor, color=ROLES["truth"], linestyle="--")
axes[0].set(title="the loss stops at its floor …", xlabel="step", ylabel="loss", ylim=(0, None))
axes[1].plot([run.steps for run in seen], excess, "o-", markersize=4, color=ROLES["independent"])
axes[1].set(title="… the network still improves", xlabel="step", ylabel="loss − floor", yscale="log")
show(figure, "floor", alt="The loss stays at a dashed line at 2.4; the excess goes on falling.")

# %% [markdown]
# No: 2.378 is the floor just printed. What the curve cannot show is the distance to it, which is smaller than the noise
# of a batch. And only that distance, $\mathcal L(w)-\mathcal L_{\min}$, counts in the end. If the network $w$ has the
# Lipschitz constant Lip and carries $X_0$ to $\varphi^w_1(X_0)$,
#
# $$W_2^2\big(\beta,\ \text{law of }\varphi^w_1(X_0)\big)\le e^{2\mathrm{Lip}}\,\big(\mathcal L(w)-\mathcal L_{\min}\big).$$
#
# It says what to watch, not how far to train: for Lip = 3 the factor is above 400.
#
# **Trap.** "A velocity needs no clock." Without $t$, the best field averages over all times, too. From $N(0,1)$ to an
# independent $N(0,4)$, $v_t(x)=(5t-1)\,x/((1-t)^2+4t^2)$; what the average of this makes of two points:

# %% tags=["copy"]
times = torch.linspace(0, 1, 2001).double()[:, None]


def blind(_, x):
    """The best field without time: the mean of v_t(x), weighted by the density of X_t at x."""
    variance = (1 - times) ** 2 + 4 * times**2
    density = (-(x[:, 0] ** 2) / (2 * variance)).exp() / variance.sqrt()
    return x * ((5 * times - 1) / variance * density).mean(0)[:, None] / density.mean(0)[:, None]


ends = integrate(blind, torch.tensor([[1.0], [2.0]], dtype=torch.float64))
say(f"1 and 2 go to {ends[0].item():.2f} and {ends[1].item():.2f}; with the clock to 2 and 4")

# %% [markdown]
# *Why: [proofs/03](proofs/03_flow_matching.ipynb), section 2.*

# %% [markdown]
# ## 4. What pairs buy
#
# Any pairing of noise and data will do in step 2. Pair the points of each batch at least total cost, and the
# trajectories straighten: fewer evaluations, not better samples. With the flow φ of $v_t$,
#
# $$W_2^2(\alpha,\beta)\le\mathbb E|\varphi_1(X_0)-X_0|^2\le\int_0^1\mathbb E|v_t(X_t)|^2dt\le\mathbb E|X_1-X_0|^2:$$
#
# the cheapest way, where the flow takes its points, the energy that it spends, what the pairs would cost
# ([02](02_benamou_brenier.ipynb)). The reasons, in turn: $X_0$ and $\varphi_1(X_0)$ are one pairing of α and β; to its end
# nobody gets at less energy than straight ahead; a mean is, in the mean square, no longer than what it averages.
#
# **Guess.** With 2 evaluations of the network, which pairing gives the better moons? And with 64?

# %% tags=["copy"]
exact = batches.exact(datasets.toy.eight_gaussians, datasets.toy.moons)
fields, bills = {}, {}
x0, x1 = datasets.toy.eight_gaussians(700, generator=g), datasets.toy.moons(700, generator=g)
for name, sampler in {"independent": pairs, "minibatch": exact}.items():
    options = {"steps": 2000, "learning_rate": 2e-3, "generator": g}
    fields[name] = fit(VelocityNetwork(2, generator=g), FlowMatching(), sampler, **options).network
    bills[name] = path_energy(*trajectory(fields[name], x0, steps=50))

# %%
evaluations = [2, 4, 8, 16, 32, 64]  # the midpoint rule evaluates twice a step
curves, costs = {}, {}
for name, field in fields.items():
    ends = [sample(field, x0, steps=k // 2) for k in evaluations]
    curves[name] = [sample_w2_squared(end, x1) ** 0.5 for end in ends]
    costs[name] = [sample_w2_squared(x0, ends[-1]), bills[name].displacement, bills[name].energy]
    say(f"{name}: W₂ {curves[name][0]:.2f} with 2 evaluations, {curves[name][-1]:.2f} with 64")
claim("S03-4", curves["minibatch"][0] / curves["independent"][0])
claim("S03-5", costs["independent"][2] / costs["independent"][0])
claim("S03-6", costs["minibatch"][2] / costs["minibatch"][0])

# %%
labels = {"independent": "independent pairs", "minibatch": "pairs of least cost in a batch"}
errors = {labels[name]: dict(zip(evaluations, curve)) for name, curve in curves.items()}
figure, axes = plt.subplots(1, 2, figsize=(9, 3.1))
roles = {label: name for name, label in labels.items()}
plots.against_evaluations(axes[0], errors, roles, floor=twin)
axes[0].set(title="two evaluations do for pairs of least cost", ylabel="$W_2$ to the target")
axes[0].set_yticks([0.4, 0.5, 0.7, 1.0], [0.4, 0.5, 0.7, 1.0])
for k, name in enumerate(fields):
    axes[1].bar([i + 0.4 * k for i in range(3)], costs[name], 0.38, color=ROLES[name])
axes[1].set(title="bent lines cost energy", ylabel="mean square")
axes[1].set_xticks([0.2, 1.2, 2.2], ["$W_2^2$ to\nthe ends", "displacement", "energy"])
show(figure, "pairs", alt="With pairs of least cost the error is flat and the energy is least.")

# %%
mode = (torch.atan2(x0[:, 1], x0[:, 0]) / (math.pi / 4)).round().long() % 8
tracks = {name: trajectory(field, x0[:300], steps=64)[1].detach() for name, field in fields.items()}
frames = []
for k in range(0, 65, 2):
    figure, axes = plt.subplots(1, 2, figsize=(4.8, 2.6), dpi=100)
    for ax, (name, track) in zip(axes, tracks.items()):
        ax.scatter(*x1[:300].T, s=2, color=ROLES["target"], alpha=0.35)
        trail = track[max(0, k - 12) : k + 1 : 2]
        ax.add_collection(LineCollection(trail.transpose(0, 1), colors=ROLES[name], lw=0.4))
        ax.scatter(*track[k].T, s=3, c=mode[:300], cmap="turbo", zorder=3)
        ax.set(xlim=(-6.5, 7.5), ylim=(-6.5, 6.5), xticks=[], yticks=[], aspect="equal")
        ax.set_title(labels[name], fontsize=8)
    figure.suptitle(f"t = {k / 64:.2f}", fontsize=8)
    frames.append(rendered(figure))
if folder := run_dir():
    write_gif(folder / "flow.gif", frames, milliseconds=80)

# %% [markdown]
# With two, pairs of least cost (0.43 against 1.01). With 64, neither: both are as near as two samples. (`fit` averages
# the weights of the last steps; no falling rate.) What pairing buys is straightness (the animation at the top): the energy
# falls from more than twice $W_2^2$ to $W_2^2$ itself.
#
# **Change this.** Pair batches of 1, 4, 16, 64, 256 points and look at the mean of $|X_1-X_0|^2$:

# %% tags=["copy"]
for n in (1, 4, 16, 64, 256):
    drawn = [exact(n, generator=g) for _ in range(1024 // n)]
    cost = torch.cat([(b - a).square().sum(1) for a, b in drawn]).mean()
    say(f"batches of {n}: the pairs cost {cost:.1f}")

# %% [markdown]
# *Why: [proofs/03](proofs/03_flow_matching.ipynb), sections 3, 7 and 8.*

# %% [markdown]
# ## 5. Other roads to the same law
#
# Mix noise and data in other proportions on the way, $X_t=a_tX_0+b_tX_1$. Divided by $a_t+b_t$ it is the old segment:
# only the ratio $b:a$ matters, so the motion is the same, rescaled and on another clock, and the same noise ends in the
# same place, unless the path $(a_t,b_t)$ winds round the origin. The new field is a formula in the old one
# (`change_path`); nothing is trained.
#
# **Guess.** A diffusion model mixes with $a_t=\sqrt{1-b_t^2}$, from noise to data along a quarter of a circle. Does its
# deterministic sampler draw another picture from the same noise?

# %% tags=["copy"]
turn = 0.2 * torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
turning = MixtureCoupling(share, m0, m1, 0.3 * torch.eye(2), 0.3 * torch.eye(2), cross_cov=turn)
turns = 2.5 * math.pi  # a quarter of a turn, and one more turn
winding = Interpolant(lambda t: torch.cos(turns * t), lambda t: torch.sin(turns * t))
roads = {"linear": turning.velocity}
roads["trigonometric"] = change_path(turning.velocity, TRIGONOMETRIC)
roads["winding"] = partial(turning.velocity, interpolant=winding)
begin, _ = turning.sample(50, generator=g)
lines = {name: trajectory(v, begin, steps=200, method="rk4") for name, v in roads.items()}

# %%
end = lines["linear"][1][-1]
apart = {}
for name, (times, line) in lines.items():
    apart[name] = ((line[-1] - end).square().sum() / (end - begin).square().sum()).sqrt().item()
    say(f"{name}: ends {apart[name]:.1g} away, energy {path_energy(times, line).energy:.0f}")
claim("S03-7", apart["trigonometric"])
figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.4))
t = torch.linspace(0, 1, 200)
paths = {"winding": winding, "trigonometric": TRIGONOMETRIC, "linear": LINEAR}
for (name, path), role in zip(paths.items(), ("wrong", "first", "second")):
    a, b, _, _ = path.coefficients(t)
    radius = 1 + 0.25 * torch.sin(math.pi * t) if name == "winding" else 1  # apart, to be seen
    axes[0].plot(radius * a, radius * b, color=ROLES[role], label=name)
    axes[1].plot(*lines[name][1][:, 0].T, color=ROLES[role])
    axes[1].plot(*lines[name][1][-1, 0], "o", color=ROLES[role], ms=4 if name == "linear" else 8)
axes[0].set(title="one path winds round the origin\n(radius enlarged on the way)", xlabel="$a$", ylabel="$b$", aspect="equal")
axes[0].legend(fontsize=8)
axes[1].set(title="the same start: it has another end", xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
show(figure, "roads", alt="Three paths; of one start two have one end, the winding one another.")

# %% [markdown]
# No. A quarter of a circle does not wind, so the sampler and this flow draw the same picture. The winding path ends
# elsewhere, 0.5 times as far away as the flow moves its points (root mean squares), at seventeen times the energy.
#
# **Trap.** The velocity of the trigonometric path $\cos(\frac{\pi t}2)X_0+\sin(\frac{\pi t}2)X_1$ has a factor
# $\frac\pi2$. Without it the walk from 0 to 1 ends at $\frac2\pi$.
#
# One may also leave the flow and keep the law. The velocity tells the mean of the noise, $\mathbb E[X_0\mid
# X_t=x]=x-tv_t(x)$. If the noise is standard normal and independent of the data, this mean tells the score:
# $\nabla\log\rho_t(x)=-\mathbb E[X_0\mid X_t=x]/(1-t)$, Tweedie's formula. Shake the points by $dW$, fresh normal
# noise of variance $dt$: the crowd spreads, and a push along the score, towards the crowd, gathers it as fast:
#
# $$dX=\big[v_t+\tfrac{\sigma^2}2(tv_t-X)\big]\,dt+\sigma\sqrt{1-t}\,dW$$
#
# has the same laws for every $\sigma$.
#
# **Guess.** Does more noise blur the result?

# %% tags=["copy"]
eye = torch.eye(2)
towns = MixtureCoupling([0.6, 0.4], torch.zeros(2, 2), [[2.0, 1.5], [2.0, -1.5]], eye, 0.1 * eye)
noise = torch.randn(600, 2, generator=g)
shaken = {sigma: sample_sde(towns.velocity, noise, sigma, generator=g) for sigma in (0, 1, 4)}

# %%
upwards = shaken[0][:, 1] > 0
figure, axes = plt.subplots(1, 3, figsize=(9, 2.8), sharex=True, sharey=True)
for ax, (sigma, end) in zip(axes, shaken.items()):
    blur = torch.cdist(end, towns.means1).amin(1).square().mean() / 2  # around the nearer town
    other = ((end[:, 1] > 0) != upwards).double().mean()
    say(f"σ = {sigma}: variance {blur:.3f} (data: 0.1), {other:.0%} in the other town")
    ax.scatter(*noise.T, s=1, color=ROLES["source"], alpha=0.4)
    ax.scatter(*end[upwards].T, s=4, color=ROLES["first"])
    ax.scatter(*end[~upwards].T, s=4, color=ROLES["second"])
    ax.set(title=f"$\\sigma={sigma}$", xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
claim("S03-8", blur)
show(figure, "shaken", alt="Two clusters; with more noise their colours mix, the clusters stay.")

# %% [markdown]
# No: it reshuffles. The clusters stay as wide as those of the data, whose variance is 0.1; the people in them change,
# for σ = 4 nearly half of them; after a full exchange it would be 2 · 60 % · 40 %. For dependent pairs, such as
# those of least cost, $x-tv_t$ is still the mean of the noise, but no longer tells the score.
#
# **Change this.** Take σ = 12: with 50 steps the points explode, with 800 they do not. A step $h$ of the push alone
# multiplies errors by $1-ch\sigma^2/2$, $c=1$ at the start and about 2 on the way; below $-1$ they explode.

# %% tags=["copy"]
for steps in (50, 800):
    far = sample_sde(towns.velocity, noise, 12, steps=steps, generator=g).norm(dim=1).max()
    say(f"σ = 12, {steps} steps: the farthest point is at {far:.1e}")

# %% [markdown]
# *Why: [proofs/03](proofs/03_flow_matching.ipynb), sections 4, 5 and 6.*

# %% [markdown]
# ## 6. Digits, and what a label can do
#
# The same loss draws handwritten digits: points of $\mathbb R^{64}$, two thirds of 1797 images to learn from, the
# others kept. The network is also told the class, and in three of ten cases nothing. Then we may go beyond the class:
# *guidance* follows $v_\varnothing+s\,(v_y-v_\varnothing)$, the field without a class plus $s$ times what the class
# adds.
#
# **Guess.** Does guidance with $s=3$ sample the digits of a class?

# %% tags=["copy"]
images, classes = datasets.images.digits()
scaled = (images - images.mean()) / images.std()
order = torch.randperm(len(scaled), generator=g)
seen, kept = order[:1197], order[1197:]
noise = datasets.samplers.normal(64)
pairs = batches.independent(noise, datasets.samplers.from_points(scaled[seen], classes[seen]))
network = VelocityNetwork(64, width=256, classes=10, generator=g)
options = {"steps": 12_000 if preset == "full" else 2000, "generator": g}
network = fit(network, FlowMatching(label_dropout=0.3), pairs, **options).network

# %% tags=["copy"]
labels, z = torch.arange(600) % 10, noise(600, generator=g)
scales = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0]
drawn = {s: sample(guided(network, labels, scale=s), z, steps=20) for s in scales}

# %%
judge = SVC(C=10).fit(scaled[seen], classes[seen])
for s, x in drawn.items():
    right, away = judge.score(x, labels), energy_distance(x, scaled[kept])
    say(f"s = {s}: recognised {right:.0%}, energy distance to the kept digits {away:.3f}")
right, away = judge.score(scaled[kept], classes[kept]), energy_distance(scaled[seen], scaled[kept])
say(f"real digits: recognised {right:.0%}, energy distance {away:.3f}")
near, near_kept = (torch.cdist(x, scaled[seen]).amin(1).mean() for x in (drawn[1.0], scaled[kept]))
say(f"distance to the nearest training image, over that of kept digits: {near / near_kept:.2f}")


def sheet(x):
    figure, ax = plt.subplots(figsize=(4.6, 1.95))
    ax.imshow(image_grid(x, columns=10), cmap="gray_r", vmin=0, vmax=1)
    ax.set(xticks=range(4, 90, 9), xticklabels=range(10), xlabel="class asked for")
    ax.set_yticks([9, 27], ["s = 1", "this s"])
    return figure


sheets = (torch.cat([drawn[1.0][:20], x[:20]]) * images.std() + images.mean() for x in drawn.values())
alt = "Digits, a column for each class: two rows with s = 1, two with another s; with 3 more alike."
slide(map(sheet, sheets), scales, name="guidance", label="s", still=5, alt=alt)

# %% [markdown]
# No. With $s=2$ the judge, a classifier trained on real digits, recognises every one, more than of real digits; with
# $s=3$, too (the lower rows of the picture), but the digits are too much of a kind. The energy distance, a
# distance of laws made of mean distances between their points, sees it: many times that of real digits, the last line but
# one. Also $s=\frac12$ is farther than no class: half a class is the field of no law.
#
# **Where it stops working.** At $s=1$ the energy distance sees no difference (an estimate, it may be below 0). But a
# network that reached the floor on 1197 images would draw these 1197 images and no others
# ([04](04_gaussian_exercises.ipynb), section 6). It draws new ones because it stays above: their distance to the
# nearest training image is about that of digits it has never seen.
#
# **Change this.** Ask with $s=0$: the label is ignored, one digit in ten is right by chance.
#
# *Why, with digits never seen: [proofs/03](proofs/03_flow_matching.ipynb), sections 9 and 10.*

# %% [markdown]
# ## What to remember
#
# Regression on random segments finds the mean wind, from samples alone, and the mean wind carries the right crowd. Its
# loss has a floor that it must not pass; only what is above the floor counts. Pairs, paths and noise change how a point
# travels, not the law that arrives.
#
# ## Change this
#
# 1. In section 1 take `datasets.toy.checkerboard` as the target. The loop is the same, the result as near as two samples
#    of the data are to each other.
# 2. In section 2 take `share = torch.tensor([0.9, 0.1])`. Of the upper crowd 89 % change sides, 8 of 9.
# 3. In section 4 train a second field on `reflow(fields["independent"], datasets.toy.eight_gaussians, 10_000, generator=g)`, from
#    `dynot_lite.matching.flow_matching`: pairs of noise and what the first flow makes of it. With two evaluations it halves the
#    distance to the moons of the first.
#
# ## Problems
#
# [PS1](assignments/PS1_continuity_to_flow_matching.ipynb): parts 7 (noise on the way), 8 (the floor), 9 and 10
# (rectification), 11 and 12 (an affine field).
#
# ## Proofs and limits
#
# [proofs/03_flow_matching](proofs/03_flow_matching.ipynb): every statement with its hypotheses, the bound of section 3,
# the paths that wind, score and noise. What optimal pairs are, and how to have them once and for all, is
# [08](08_semidiscrete_flow_matching.ipynb); what the objects look like by hand, [04](04_gaussian_exercises.ipynb).
