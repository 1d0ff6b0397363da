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
# # What do all these objects look like when they can be computed by hand?
#
# A workbook: the five exercises of the lecture notes *Dynamic Optimal Transport and Flow Matching*, each with a guess, a picture,
# a number and a hint. The solutions are in the proof notebook, one cell each, so that you can try first.
#
# **You will see** where flow matching and optimal transport give the same map, where they do not, and what the least loss would
# produce. **You need** conditional expectation and covariance matrices. **Minutes:** 25 to read, less than one to run.
# Proofs and limits: [proofs/04_gaussian_exercises](proofs/04_gaussian_exercises.ipynb).

# %% [markdown]
# ![A ball of twelve sectors in a narrow ellipse, and its images under the optimal map and under flow matching: the same
# ellipse, but the marked sectors lie elsewhere; beside them the ratio of the costs against the
# angle.](../figures/04_gaussian_exercises/inside_the_ellipse.png)

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

import torch
from matplotlib import pyplot as plt

from dynot_lite import datasets
from dynot_lite.companion import claim, errata, say, show, slide, start
from dynot_lite.companion.ledger import run_dir
from dynot_lite.couplings.plans import exact_plan
from dynot_lite.laws.coupled import MixtureCoupling
from dynot_lite.laws.gaussian import Gaussian, fm_flow, fm_kinetic_energy, monge_map, w2_squared
from dynot_lite.laws.mixtures import fm_velocity_diracs
from dynot_lite.paths.flows import integrate_adaptive, trajectory
from dynot_lite.plots import ROLES, draw_trajectories, image_grid, rendered, write_gif

start("04_gaussian_exercises", preset=preset, seed=seed)
torch.set_default_dtype(torch.float64)
g = torch.Generator().manual_seed(seed)

# %% [markdown]
# ## 1. Exercise 1: stretch, shift, rescale
#
# > Starting from a coupling $(X_0,X_1)$, we define $X_t=tX_1+(1-t)X_0$ and
# > $v_t(x)=\mathbb E[X_1-X_0\mid X_t=x]=\frac1{1-t}(\mathbb E[X_1\mid X_t=x]-x)$. Let
# > $A\in\mathbb R^{d\times d}$ be invertible, $b\in\mathbb R^d$, $c\in\mathbb R_+^*$. Show: **(a)** the velocity of
# > $(AX_0+b,AX_1+b)$ is $Av_t(A^{-1}(x-b))$; **(b)** that of $(X_0,X_1+b)$ is $v_t(x-tb)+b$; **(c)** that of $(X_0,cX_1)$ is
# > $\frac c{1-t+tc}v_r\big(\frac x{1-t+tc}\big)+\frac{c-1}{1-t+tc}x$ with $r=\frac{tc}{1-t+tc}$.
#
# Flow matching does not care in which affine coordinates we do it.
#
# **Guess.** Shear noise and data, integrate, undo the shear. What is left of the difference? And in (b): somebody writes
# $v_t(x-b)+b$ and forgets the $t$. Is that field wrong by much?

# %% tags=["copy"]
means0, means1 = torch.zeros(3, 2), torch.tensor([[2.5, 1.0], [-2.0, 1.8], [0.3, -2.4]])
pairs = MixtureCoupling([0.5, 0.3, 0.2], means0, means1, torch.eye(2), 0.1 * torch.eye(2))
A = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
sheared = MixtureCoupling(pairs.weights, means0 @ A.T, means1 @ A.T, A @ A.T, 0.1 * A @ A.T)
x0 = pairs.sample(200, generator=g)[0]
lines = trajectory(pairs.velocity, x0)[1]
lines_sheared = trajectory(sheared.velocity, x0 @ A.T)[1]
undone = lines_sheared @ torch.linalg.inv(A).T

# %%
figure, axes = plt.subplots(1, 3, figsize=(9.6, 2.8), sharex=True, sharey=True)
titles = "flow lines", "noise and data sheared", "the shear undone: the first again"
for ax, found, title in zip(axes, (lines, lines_sheared, undone), titles):
    draw_trajectories(ax, found, colour=ROLES["independent"], count=120)
    ax.set(title=title, xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
show(figure, "sheared", alt="Flow lines towards three clusters; those of the sheared laws; undone, "
     "the first picture again.")
b, t = torch.tensor([2.0, -1.5]), 0.4
shifted = MixtureCoupling(pairs.weights, means0, means1 + b, torch.eye(2), 0.1 * torch.eye(2))
x = shifted.law(t).sample(500, generator=g)
right, forgotten = shifted.velocity(t, x), pairs.velocity(t, x - b) + b
claim("S04-1", (undone - lines).abs().max())
claim("S04-2", (forgotten - right).norm() / right.norm())
tripled = MixtureCoupling(pairs.weights, means0, 3 * means1, torch.eye(2), 0.9 * torch.eye(2))
size, true = 1 - t + 3 * t, tripled.velocity(t, x)
scaled = lambda clock: 3 / size * pairs.velocity(clock, x / size) + 2 / size * x
off = [(scaled(clock) - true).norm() / true.norm() for clock in (3 * t / size, t)]
say(f"(c), c = 3, at t = {t}: {off[0]:.0e} off by the clock r, {off[1]:.0%} by the clock t")

# %% [markdown]
# Nothing is left but rounding. The field without the $t$ is wrong by 89 % of its own size (at $t=0.4$, for this $b$): at time $t$
# only the share $tb$ of the shift has happened. In (c) the clock changes, too: larger data are felt earlier, and $r$ is the time
# at which the old problem has the same mixture of noise and data. With $t$ for $r$ the field is 52 % off.
#
# **Hint.** What is $X_t$ after the change, in terms of the old $X_t$?
#
# *Why: [proofs/04](proofs/04_gaussian_exercises.ipynb), Solutions 1(a), 1(b), 1(c).*

# %% [markdown]
# ## 2. Exercise 2: optimal maps are pickier
#
# > Assume that $\alpha$ is absolutely continuous. Write $T^*$ the optimal transport map between $\alpha$ and $\beta$ for the
# > squared Euclidean cost. Can we say something on what $T^*$ becomes in the cases considered in Exercise 1?
#
# The optimal map is the one that is the gradient of a convex function: its derivative is symmetric, without negative eigenvalues.
# That survives every shift and every change of size of the target, but of the matrices $A$ only some.
#
# **Guess.** $T^*=\mathrm{diag}(2,1)$ becomes $AT^*A^{-1}$ under the shear $A$. It pushes the sheared noise to the sheared data,
# and its eigenvalues are 2 and 1, both positive. Is it optimal?

# %% tags=["copy"]
T = torch.diag(torch.tensor([2.0, 1.0]))
p, q = Gaussian(torch.zeros(2), A @ A.T), Gaussian(torch.zeros(2), A @ T @ T @ A.T)
conjugated, optimal = A @ T @ torch.linalg.inv(A), monge_map(p, q).matrix
move = conjugated - torch.eye(2)
cost, least = torch.trace(move @ p.cov @ move.T), w2_squared(p, q)
print(f"cost of the conjugated map {cost:.3f}, optimal cost {least:.3f}")
say(f"flow matching minus conjugated map: {(fm_flow(p, q, 1.0).matrix - conjugated).norm():.0e}")

# %%
def draw_ball(ax, matrix):
    """A ball of twelve sectors under x ↦ matrix x; two sectors are marked."""
    for k, role in enumerate(("first", *["truth"] * 2, "second", *["truth"] * 8)):
        angle = math.pi / 6 * (k - 0.5 + torch.linspace(0, 1, 20))
        rim = torch.cat([torch.zeros(1, 2), 2 * torch.stack([angle.cos(), angle.sin()], 1)])
        alpha = (0.2, 0.4)[k % 2] if role == "truth" else 1.0
        ax.fill(*(rim @ matrix.T).T, color=ROLES[role], alpha=alpha)


figure, axes = plt.subplots(1, 3, figsize=(9.6, 2.1), sharex=True, sharey=True)
titles = "the sheared noise", "conjugated map = flow matching", "optimal map of the sheared laws"
for ax, matrix, title in zip(axes, (A, conjugated @ A, optimal @ A), titles):
    draw_ball(ax, matrix)
    ax.set(title=title, xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
show(figure, "sheared_map", alt="A sheared ball and its images under two maps: one ellipse, but "
     "the marked sectors lie elsewhere in it.")
claim("S04-3", cost - least)

# %% [markdown]
# No: it costs 1.000 where 0.754 is enough, a gap of $2\sqrt{17}-8$. Positive eigenvalues are not enough: $AT^*A^{-1}$ is not
# *symmetric*. It is the end map of flow matching, though: that commutes with every invertible $A$. Optimal transport commutes,
# for every $T^*$ at once, only with similarities (rotations and reflections, times one factor in all directions); for one given
# $T^*$, exactly if $A^\top A$ commutes with its derivative.
#
# **Change this.** `A = torch.diag(torch.tensor([1.0, 3.0]))` as the first line of the cell that begins with `T =`: no similarity,
# but it commutes with this $T$, and both costs are 1.
#
# **Hint.** When is $AHA^{-1}$ symmetric for a symmetric $H$?
#
# *Why: [proofs/04](proofs/04_gaussian_exercises.ipynb), Solutions 2(a), 2(b), 2(c).*

# %% [markdown]
# ## 3. Exercise 3: on a line all roads lead to one place
#
# > Assume that $\alpha$ and $\beta$ are probability measures on $\mathbb R$. Let $(X_0,X_1)$ be a coupling such that
# > $v_t(x)=\mathbb E[X_1-X_0\mid X_t=x]$ has a unique flow on $[0,1]$. Show that the flow $\varphi_t$ is such that $\varphi_1$
# > is an optimal transport map between $\alpha$ and $\beta$.
#
# Trajectories on a line cannot overtake. So the end map is increasing. Only one increasing map carries $\alpha$ to $\beta$, and
# on a line this is the optimal one.
#
# **Guess.** From $\mathcal N(0,1)$ to itself, with noise and data correlated by −0.9: is the end map another one than for
# independent ones? Is the energy?

# %% tags=["copy"]
means = torch.tensor([[-2.0], [1.5]]), torch.tensor([[-3.0], [2.5]])
pairs = MixtureCoupling([0.4, 0.6], *means, [[0.36]], [[0.25]]).product()
source, target = pairs.law(0.0), pairs.law(1.0)
begin = source.quantile(torch.linspace(0.02, 0.98, 33))
goal = target.quantile(source.cdf(begin))  # the increasing map
end = integrate_adaptive(pairs.velocity, begin)
line, correlations = Gaussian([0.0], [[1.0]]), (-0.9, 0.0, 0.9)
energies = [fm_kinetic_energy(line, line, cross_cov=[[c]]) for c in correlations]
end_maps = [fm_flow(line, line, 1.0, cross_cov=[[c]]).matrix for c in correlations]

# %%
times, bent = trajectory(pairs.velocity, begin, steps=60, method="rk4")
straight = begin + times[:, None, None] * (goal - begin)
figure, axes = plt.subplots(1, 3, figsize=(10.2, 3.2))
rows = (bent, "independent", "the flow", "bends"), (straight, "optimal", "McCann", "is straight")
for ax, (found, role, name, what) in zip(axes, rows):
    ax.plot(times, found[..., 0], color=ROLES[role], lw=0.9)
    ax.set(title=f"{name} {what}", xlabel="time $t$", ylabel="position")
    axes[2].plot(begin, found[30], "--", color=ROLES[role], lw=1.2, label=f"{name}, $t=1/2$")
axes[2].plot(begin, goal, color=ROLES["optimal"], label="the increasing map")
axes[2].plot(begin, end, ".", color=ROLES["independent"], label=r"end $\varphi_1$ of the flow")
axes[2].set(title="one end map, two ways", xlabel="start", ylabel="image", ylim=(-4, 6.5))
axes[2].legend(fontsize=8)
show(figure, "one_dimension", alt="Bent flow lines and straight lines of McCann: the end maps "
     "agree, those half-way do not.")
claim("S04-4", (end - goal).abs().max())
say(f"half-way flow and McCann differ by up to {(bent[30] - straight[30]).abs().max():.2f}")
for c, slope, energy in zip(correlations, end_maps, energies):
    say(f"correlation {c:g}: end map x ↦ {slope.item():.3f} x, energy {energy.item():.3f}")

# %% [markdown]
# One end map, $x\mapsto x$, but three energies: 2.627, 0.429 and 0.003. A stubborn pairing costs energy on the way, and the end
# does not show it. In the picture, too, only the ends agree: half-way the two films differ by up to 1.46.
#
# **Change this.** `rtol=1e-3` in `integrate_adaptive`: the end is off by a thousandth instead of the 1.1e-11 above.
#
# **Hint.** Suppose that two trajectories change their order. What happens when they meet?
#
# *Why: [proofs/04](proofs/04_gaussian_exercises.ipynb), Solution 3.*

# %%
errata.box("N-17")

# %% [markdown]
# ## 4. Exercise 4: Gaussians that do not commute
#
# > Assume that $(X_0,X_1)\sim\mathcal N(0,\Sigma)$ with
# > $\Sigma=\begin{pmatrix}\Sigma_0&\Sigma_{10}\\\Sigma_{01}&\Sigma_1\end{pmatrix}$, for positive definite $\Sigma_0$ and
# > $\Sigma_1$. **(a)** Show that $v_t(x)=\frac1{1-t}\big(((1-t)\Sigma_{01}+t\Sigma_1)\Sigma_t^{-1}-\mathrm{Id}\big)x$, where
# > $\Sigma_t=\mathrm{Cov}(X_t)=(1-t)^2\Sigma_0+(1-t)t(\Sigma_{01}+\Sigma_{10})+t^2\Sigma_1$. **(b)** Let
# > $\Sigma_{01}=\Sigma_{10}=0$ and assume that $\Sigma_0$ and $\Sigma_1$ can be jointly diagonalized. Show that $\varphi_1$ is
# > an optimal transport map.
#
# Without noise–data correlation, $\varphi_1=(\Sigma_1\Sigma_0^{-1})^{1/2}$. (The product need not be symmetric, but its
# eigenvalues are positive; meant is the root with positive eigenvalues.) It is optimal exactly if
# $\Sigma_0\Sigma_1=\Sigma_1\Sigma_0$; otherwise it fills the right ellipse, but turns the points inside.
#
# The *cost* is here that of the end map, $\mathbb E|\varphi_1(X_0)-X_0|^2$, not the energy of the way.
#
# **Guess.** A long ellipse (condition number 100) and the same one turned by an angle between 0° and 90°. At which angle is the
# *ratio* of the cost of flow matching to the least cost $W_2^2$ largest: near 0°, at 45°, or near 90°?


# %% tags=["copy"]
def turned(degrees, condition=100.0):
    """A long ellipse, the same one turned, and the costs of φ₁ and of the optimal map."""
    a, cov = math.radians(degrees), torch.diag(torch.tensor([condition, 1.0]))
    R = torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
    p, q = Gaussian(torch.zeros(2), cov), Gaussian(torch.zeros(2), R @ cov @ R.T)
    move = fm_flow(p, q, 1.0).matrix - torch.eye(2)
    return p, q, torch.trace(move @ p.cov @ move.T).item(), w2_squared(p, q).item()


# %%
angles = (5, 10, 15, 20, 30, 45, 60, 75, 90)
table = {degrees: turned(degrees) for degrees in angles}
ratio = [flow / least for _, _, flow, least in table.values()]
figures = []
for degrees, (p, q, flow, least) in table.items():
    figure, axes = plt.subplots(1, 4, figsize=(10.4, 2.8))
    maps = torch.eye(2), monge_map(p, q).matrix, fm_flow(p, q, 1.0).matrix
    titles = "the noise", f"the optimal map, {degrees}°", "flow matching turns inside"
    for ax, matrix, title in zip(axes, maps, titles):
        draw_ball(ax, matrix @ p.cov.sqrt())
        ax.set(title=title, xlabel="$x_1$", ylabel="$x_2$", xlim=(-21, 21), ylim=(-21, 21))
        ax.set_aspect("equal")
    axes[3].plot(angles, ratio, "o-", ms=3, color=ROLES["independent"])
    axes[3].plot(degrees, flow / least, "o", ms=9, color=ROLES["independent"])
    axes[3].axhline(1, color=ROLES["optimal"], ls="--")
    axes[3].set(title="and pays", xlabel="angle in degrees", ylabel=r"cost of $\varphi_1/W_2^2$")
    figures.append(figure)
slide(figures, angles, name="inside_the_ellipse", label="angle", still=5, alt="In a long ellipse "
      "the optimal map leaves the marked sectors where they are; flow matching pulls the sector "
      "at the tip inside. The ratio of the costs falls from 22 to 1.")
# %%
for degrees, (_, _, flow, least) in table.items():
    numbers = f"cost of φ₁ {flow:.1f}, W₂² {least:.1f}"
    say(f"{degrees}°: {numbers}, ratio {flow / least:.2f}, excess {flow - least:.1f}")
_, _, flow, least = turned(5, condition=4.0)
say(f"condition number 4, 5°: ratio {flow / least:.2f}")
claim("S04-5", table[45][2] / table[45][3])

# %%
p = Gaussian(torch.zeros(2), [[2.0, 0.6], [0.6, 1.0]])
q = Gaussian(torch.zeros(2), [[1.0, -0.5], [-0.5, 3.0]])
C = torch.tensor([[0.5, 0.7], [-0.3, 0.2]])  # Cov(X0, X1); the notes' Σ01 is its transpose
right, swapped = (fm_flow(p, q, 1.0, cross_cov=c) for c in (C, C.T))
off = [(flow.push_forward(p).cov - q.cov).abs().max() for flow in (right, swapped)]
say(f"covariance at the end off by {off[0]:.0e}; with the blocks swapped by {off[1]:.0e}")
claim("S04-6", (right.matrix - swapped.matrix).abs().max())

# %% [markdown]
# The ratio is worst at small angles, where hardly anything has to move: 22.38 at 5°. (At 0° nothing has, and it is 0/0.) The
# *excess*, cost minus $W_2^2$, is largest near 30°: of 126, 100 are wasted. At 90° the matrices commute, and nothing is lost. The
# usual guess, 45°, has 2.60. (Where scripts run, the slider turns the ellipse.)
#
# **Trap.** "The end map of flow matching is the optimal map." On a line and for commuting covariances it is; here it is not.
#
# **Trap.** In the notes $\Sigma_{01}$ is $\mathrm{Cov}(X_1,X_0)$, the lower left block. Take the transpose and the crowd is
# right at every time, as $\Sigma_t$ contains only the sum $\Sigma_{01}+\Sigma_{10}$: no test of marginals objects. Yet the end
# map is another one, by 1.1 in one entry.
#
# **Hint.** (a) Regress $X_1$ on $X_t$. (b) In the common basis the equation is $\dot y_i=(\log\sigma_i)'y_i$, with
# $\sigma_i^2(t)$ the variance of $X_t$ along the $i$-th axis.
#
# *Why: [proofs/04](proofs/04_gaussian_exercises.ipynb), Solutions 4(a), 4(b) and the converse.*

# %%
errata.box("N-19")

# %% [markdown]
# ## 5. Exercise 5: a mixture is a vote
#
# > Assume that $(X_0,X_1)\sim\sum_{k=1}^K\pi_k\mathcal N(m^k,\Sigma^k)$ with blocks $m_0^k,m_1^k$ and
# > $\Sigma_0^k,\Sigma_{10}^k,\Sigma_{01}^k,\Sigma_1^k$ as above. Write $v_t^k$ the velocity field of exercise 4(a) for
# > $\Sigma^k$ and $w_t^k(x)=v_t^k(x-tm_1^k-(1-t)m_0^k)+m_1^k-m_0^k$. Show that $v_t(x)=\sum_k\alpha^k(x)w_t^k(x)$, where
# > $\alpha^k(x)=\pi_kp_t^k(x)/\sum_j\pi_jp_t^j(x)$ and $p_t^j$ is the density of $\mathcal N(m_t^j,\Sigma_t^j)$ with
# > $m_t^j=tm_1^j+(1-t)m_0^j$, $\Sigma_t^j=t^2\Sigma_1^j+(1-t)^2\Sigma_0^j+t(1-t)(\Sigma_{10}^j+\Sigma_{01}^j)$.
#
# Each component has its own velocity. At $(t,x)$ they vote; the *weight* of a voter is the probability that $x$ came from it.
#
# **Guess.** The notes write $\alpha^k(x)$, without a $t$. May we compute the weights once and for all?

# %% tags=["copy"]
data, x = torch.tensor([[-1.0], [1.0]]), torch.linspace(-3, 3, 301)[:, None]


def weights(t):
    """The weights of −1 and of +1 at (t, x), for noise N(0, 1)."""
    return torch.softmax(-((x - t * data.T) ** 2) / (2 * (1 - t) ** 2), 1)

# %%
noise = torch.special.ndtri(torch.linspace(0.01, 0.99, 50))[:, None]
unequal = torch.tensor([0.9, 0.1])
field = lambda t, x: fm_velocity_diracs(data, t, x, weights=unequal)
times, paths = trajectory(field, noise, t1=0.99, steps=99)
figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.1))
for t, style in ((0.0, ":"), (0.5, "--"), (0.9, "-")):
    axes[0].plot(x, weights(t)[:, 1], style, color=ROLES["second"], label=f"$t={t:g}$")
    say(f"weight of +1 at x = {x[200].item():g}, t = {t:g}: {weights(t)[200, 1]:.3f}")
axes[0].set(title="the weight of $+1$ sharpens with $t$", xlabel="$x$", ylabel="weight of $+1$")
axes[0].legend()
up = paths[-1, :, 0] > 0
for role, chosen in (("first", ~up), ("second", up)):
    axes[1].plot(times, paths[:, chosen, 0], color=ROLES[role], lw=0.8)
title = "masses 0.9 and 0.1: the top tenth goes up"
axes[1].set(title=title, xlabel="time $t$", ylabel="position")
show(figure, "votes", alt="The weight of the point +1 along a line, flat at time 0 and a step at "
     "time 0.9; and trajectories of which the top tenth goes to +1.")
say(f"masses 0.9 and 0.1: up to {noise[~up].max():.2f} goes down, from {noise[up].min():.2f} up")

# %% [markdown]
# No: at $x=1$ the point $+1$ has the weight 0.500 at the start and 0.982 half-way. At the start $X_t$ is noise and knows nothing
# of its component.
#
# **Change this.** Masses $\pi_k$ of 0.9 and 0.1 (right panel): the noises split between 1.23 and 1.34, at the 90 % quantile. On a
# line the flow is the optimal map, whatever the masses.
#
# **Hint.** Condition on the label of the component first, then average with Bayes' formula.
#
# *Why: [proofs/04](proofs/04_gaussian_exercises.ipynb), Solution 5.*

# %%
errata.box("N-21")

# %% [markdown]
# ## 6. A data set is a mixture of points
#
# > What happens if $X_0$ is a standard centered Gaussian and $X_1$ follows a discrete distribution of $K$ equal Dirac masses?
#
# The loss $\int_0^1\mathbb E|u_t(X_t)-(X_1-X_0)|^2dt$ is least (not zero) for $u=v$. On finitely many data this exact minimiser
# generates the data, and decides early which. *How many images still vote?* If $w_k$ are their weights, we count
# $1/\sum_kw_k^2$ voters: $n$ for $n$ equal weights, 1 if one image has all.
#
# **Guess.** 1197 handwritten digits, noise in 64 dimensions. From which time on is it settled which digit a noise becomes?

# %% tags=["copy"]
images = datasets.images.digits()[0].double()
digits = ((images - images.mean()) / images.std())[torch.randperm(1797, generator=g)[:1197]]

def voters(x, t, data):
    """How many data points still vote at (t, x)."""
    w = torch.softmax(-torch.cdist(x, t * data).square() / (2 * (1 - t) ** 2), 1)
    return 1 / w.square().sum(1)

drift = lambda data: lambda t, x: fm_velocity_diracs(data, t, x)
journey = lambda data, x: trajectory(drift(data), x, t1=0.99, steps=99)[1]  # 100 times

# %%
noise = torch.randn(64, 64, generator=g)
moments, sizes = (0, 20, 40, 50, 60, 99), (3, 12, 100, 400, 1197)
films = {size: journey(digits[:size], noise) for size in sizes}
left = lambda n, k: voters(films[n][k], k / 100, digits[:n]).median().item()
figures = []
for size, film in films.items():
    figure, axes = plt.subplots(3, 6, figsize=(7.6, 4.2))
    for column, k in zip(axes.T, moments):
        column[0].set_title(f"$t={k / 100:g}$\n{left(size, k):.4g} voters", fontsize=9)
        for ax, picture in zip(column, film[k]):
            ax.imshow(picture.reshape(8, 8), cmap="gray_r", vmin=-1, vmax=2)
            ax.axis("off")
    figures.append(figure)
slide(figures, sizes, name="digits_decide", label="images", still=4, alt="Three noises become "
      "digits; above, how many images still vote: of 1197 one at time 0.6, still a noise.")
# %%
film = films[1197]
agreed = film[-1] + 0.01 * drift(digits)(0.99, film[-1])  # the mean of the voters at t = 0.99
distance, which = torch.cdist(agreed, digits).min(1)
for n in (12, 1197):
    say(f"{n} images, voters:", *[f"{left(n, k):.2f} at t = {k / 100:g};" for k in moments])
claim("S04-7", left(1197, 40))
claim("S04-8", distance.max())
for push in (0.1, 1.0):
    other = torch.cdist(journey(digits, noise + push * torch.eye(64)[27])[-1], digits).argmin(1)
    share = (other != which).double().mean()
    say(f"add {push:g} to one pixel of the noise: {share:.0%} end at another image")

# %%
atoms = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.5]])
paths = journey(atoms, torch.randn(60, 2, generator=g))
ends = torch.cdist(paths[-1], atoms).argmin(1)
three = [ROLES[role] for role in ("first", "second", "target")]
mesh = torch.cartesian_prod(torch.linspace(3.4, -2.6, 121), torch.linspace(-3, 3, 121)).flip(1)


def tinted(k):
    """The colour of the atom with more than half of the weight at time k/100, else white."""
    squares = torch.cdist(mesh, k / 100 * atoms).square()
    weight, owner = torch.softmax(-squares / (2 * (1 - k / 100) ** 2), 1).max(1)
    tint = torch.tensor([plt.matplotlib.colors.to_rgb(colour) for colour in three])[owner]
    return (1 - 0.24 * (weight > 0.5).double()[:, None] * (1 - tint)).reshape(121, 121, 3)


def draw_atoms(ax, k):
    """The tints, and the trajectories up to time k/100 in the colour of their end."""
    ax.imshow(tinted(k), extent=(-3, 3, -2.6, 3.4))
    for j, colour in enumerate(three):
        draw_trajectories(ax, paths[: k + 1, ends == j], colour=colour)
    ax.scatter(*atoms.T, s=60, c=three, marker="s", edgecolors=ROLES["truth"], zorder=4)
    ax.set(xlim=(-3, 3), ylim=(-2.6, 3.4), title=f"$t={k / 100:g}$", xticks=[], yticks=[])


figure, axes = plt.subplots(1, 4, figsize=(11.0, 3.0))
for ax, k in zip(axes, (0, 30, 60, 99)):
    draw_atoms(ax, k)
show(figure, "atoms", alt="Three atoms divide the plane: at time 0 nobody leads, at the end each "
     "place has one owner, and the trajectories have gathered in the atoms.")

# %%
frames = []
for k in range(0, 100, 3):
    figure, (top, below) = plt.subplots(2, 1, figsize=(3.6, 4.6), dpi=100, height_ratios=(4, 1))
    draw_atoms(top, k)
    top.set_title(f"t = {k / 100:.2f}, digits that vote: {left(1197, k):.0f}", fontsize=9)
    below.imshow(image_grid(film[k, :4], columns=4), cmap="gray_r", vmin=-1, vmax=2)
    below.axis("off")
    frames.append(rendered(figure))
if folder := run_dir():
    write_gif(folder / "atoms.gif", frames)

# %% [markdown]
# ![Three atoms and the trajectories of sixty noises, which grow in the colour of the atom that they reach; below, four noises
# become digits, with the number of digits that still vote.](../figures/04_gaussian_exercises/atoms.gif)

# %%
side = torch.special.ndtri((torch.arange(101) + 0.5) / 101)
turn = torch.tensor([[math.cos(0.3), math.sin(0.3)], [-math.sin(0.3), math.cos(0.3)]])
grid = torch.cartesian_prod(side, side) @ turn  # points of equal share of the noise
reached = torch.cdist(journey(atoms, grid)[-1], atoms).argmin(1)
nearest = torch.cdist(grid, atoms).argmin(1)
optimal = exact_plan(grid, atoms).require().plan.argmax(1)
first, cell = ((where == 0).double().mean() for where in (reached, nearest))
say(f"the corner atom: {first:.2f} of the noise reaches it, {cell:.2f} starts nearest to it")
say(f"sent elsewhere by optimal transport: {(reached != optimal).double().mean():.1%}")
slope = torch.autograd.functional.jacobian(lambda x: drift(data)(0.99, x), torch.zeros(1, 1))
say(f"slope of the field between −1 and +1 at t = 0.99: {slope.item():.0f}")

# %% [markdown]
# Between 0.4 and 0.6. The median noise has 7.78 voters at $t=0.4$, 1.77 half-way and 1.00 at $t=0.6$; from then on it goes
# straight. The pictures at $t=0.6$ still look like noise: nobody sees a digit, and it is settled which. What the voters agree on
# at the end is a training image, up to 3.4e-07. **The least loss means copies**: a network that draws anything new has *not*
# attained it.
#
# Early does not mean robust: add 1 to *one* pixel of the noise and 27 % end at another image; add 0.1, and 5 % do.
#
# **Trap.** "A noise goes to the nearest data point." That holds for the *current* point near $t=1$. Of the noise 0.33 reaches the
# atom in the corner, but 0.62 starts nearest to it. Nor is this optimal transport, in two dimensions: 2.8 % go elsewhere.
#
# **Where it stops working.** At $t=1$ the field has no value. Between $-1$ and $+1$ the weights change over a length of
# $(1-t)^2$ and the field is divided by $1-t$, so its slope grows like $(1-t)^{-3}$: at $t=0.99$ it is 989900. A solver that goes
# to the end in equal steps jumps across. Stop early, or take equal steps of $-\log(1-t)$, each of which shortens the time that
# is left by the same factor.
#
# **Hint.** Put $\Sigma_1^k=0$ into exercise 5; why is $t<1$ then needed?
#
# *Why: [proofs/04](proofs/04_gaussian_exercises.ipynb), section 6, the closing question.*

# %%
errata.box("N-22")

# %% [markdown]
# ## What to remember
#
# 1. Flow matching commutes with every affine change of coordinates; optimal transport wants symmetric derivatives, and pays for
#    it.
# 2. They give the same map on a line and for independent Gaussians whose covariances commute, and in general not.
# 3. On finitely many data the exact field is a vote of the data points, decided on the way (here before $t=0.6$), and it returns copies.

# %% [markdown]
# ## Change this
#
# 1. **Section 3:** drop `.product()`, so that each heap of noise has its own heap of data. The end map is the same, the lines are
#    nearly straight, and half-way the films differ four times less.
# 2. **Section 4:** `condition=4.0`, a rounder ellipse. The ratio at 5° falls from 22.38 to 1.56; at 90° it stays 1.
# 3. **Section 6:** `digits[:12]` for `digits`. The choice falls sooner: 4.11 voters at $t=0.2$, 1.00 at $t=0.4$.

# %% [markdown]
# ## Problems
#
# [PS1](assignments/PS1_continuity_to_flow_matching.ipynb), parts 7 (noise on the way) and 8 (what regression cannot remove);
# [PS3](assignments/PS3_couplings_to_sliced_ot.ipynb), parts 5 (from any Gaussian to weighted points), 6 (when is this flow
# optimal?), 7 (what the flow pays) and 8 (the least loss, from a channel).

# %% [markdown]
# ## Proofs and limits
#
# [proofs/04_gaussian_exercises](proofs/04_gaussian_exercises.ipynb): every solution with its hypotheses, checks on random
# instances in up to six dimensions, the counter-examples, the floor of the loss and the energy of Gaussians in closed form, and
# the errata.
