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
# # Why does the loss not care which film it is shown?
#
# **You will see** a loss that scores a motion by a film of moving crowds, and gives one number for twelve films: it was optimal
# transport all along.
# **You need** gradients and convex functions; [02](02_benamou_brenier.ipynb) helps, but is not assumed.
# **Time:** 20 minutes to read, under a minute to run.
#
# Proofs and limits: [proofs/05_am_ot_equivalence](proofs/05_am_ot_equivalence.ipynb)

# %% [markdown]
# ![The twelve films one after the other; of two needles the one of straight motion stands still, the other jumps from film to film](../figures/05_am_ot_equivalence/films.gif)

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

from dynot_lite.companion import claim, say, show, smallest, start
from dynot_lite.companion.ledger import run_dir
from dynot_lite.couplings.batches import exact_pairs
from dynot_lite.laws.gaussian import Gaussian, w2_squared
from dynot_lite.matching.training import cosine, fit
from dynot_lite.paths.flows import trajectory
from dynot_lite.plots import ROLES, draw_ellipse, draw_trajectories, rendered, write_gif
from dynot_lite.potentials.action_matching import AutodiffAction, OptimalAction
from dynot_lite.potentials.action_matching import action_matching_loss, action_network
from dynot_lite.potentials.action_matching import snapshot_loss
from dynot_lite.potentials.convex import LogSumExp, Quadratic
from dynot_lite.potentials.dual import semidual_loss
from dynot_lite.potentials.optimal_flow_matching import ofm_loss

start("05_am_ot_equivalence", preset=preset, seed=seed)
torch.set_default_dtype(torch.float64)
g = torch.Generator().manual_seed(seed)

# %% [markdown]
# ## 1. Twelve films, one number
#
# A *film*, here without a wind, is a crowd at every time $t$, from a crowd $\alpha$ to a crowd $\beta$; nobody says who goes where. A motion is given
# by an *action* $s_t(x)$, the price *paid to* who stands at $x$ at time $t$: its velocity is the gradient $\nabla s_t(x)$. *Action
# matching* scores an action by a film, with an average over all its frames. Our candidate is *straight motion*: from $z$ on a
# straight line to $\nabla\Psi(z)$, for a convex function $\Psi$.
#
# **Guess.** In the film "shuffled" all walk on segments too, but to a target drawn by lot. The film "jump" shows $\alpha$ until
# half-time and $\beta$ from then on. Is the candidate's loss along "jump" larger, smaller or the same?

# %% tags=["copy"]
def three_pulls(strength):
    """A convex function Ψ; its gradient shifts everybody and pulls in three directions."""
    options = {"matrix": 0.5 * torch.eye(2), "offset": [3.5, 0.5], "temperature": 0.3}
    convex = LogSumExp(2, 3, **options).requires_grad_(False)
    convex.slopes[0] = strength * torch.tensor([[-1.5, -1.0], [0.4, 2.0], [1.5, -1.2]])
    convex.heights.zero_()
    return convex


potential, x0 = three_pulls(1.0), 0.8 * torch.randn(60, 2, generator=g)
x1 = potential.gradient(x0)[torch.randperm(60, generator=g)]  # shuffled: nobody knows who is who

# %% tags=["copy"]
shuffled, J = lambda t: (1 - t) * x0 + t * x1, torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
films = {
    "shuffled": shuffled,
    "turning": lambda t: shuffled(t) @ torch.linalg.matrix_exp(8 * t * (1 - t) * J),
    "jump": lambda t: x0 if t < 0.5 else x1,
}
action = OptimalAction(potential)  # of straight motion, from z to ∇Ψ(z)
score = lambda action, film, **options: action_matching_loss(action, x0, x1, film, times, **options)
times = [0.1, 0.35, 0.6, 0.85]
losses = {name: score(action, film).item() for name, film in films.items()}

# %%
figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.2), sharex=True, sharey=True)
for ax, (name, film) in zip(axes, films.items(), strict=True):
    for t, top in ((0.0, 3), (0.25, 2), (0.5, 2), (0.75, 2), (1.0, 3)):
        ax.scatter(*film(t).T, s=4, color=plt.cm.viridis(0.9 * t), label=f"$t={t}$", zorder=top)
    ax.set(title=f"{name}: loss {losses[name]:.5f}", xlabel="$x_1$", aspect="equal")
axes[2].legend(loc="upper left", fontsize=8, markerscale=2)
alt = "Three films from one heap to three, coloured by time: shuffled, turning, a jump; one loss."
show(figure, "three_films", alt=alt)

# %% [markdown]
# The same, though the second film goes round and the third one shows nobody on the way. Nine more films (in "unshuffled" all
# walk as the candidate does), and a rival: an action that agrees with ours in $t=0$ and $t=1$ and is joined linearly in
# between.

# %% tags=["copy"]
turn = lambda angle: lambda t: shuffled(t) @ torch.linalg.matrix_exp(angle * t * (1 - t) * J)
detour = lambda x, y: lambda t: shuffled(t) + math.sin(math.pi * t) * torch.tensor([x, y])
noise, late = torch.randn(60, 2, generator=g), lambda t: shuffled(0.0 if t < 0.5 else 1.0)
cloud = lambda width: lambda t: shuffled(t) + width * math.sqrt(t * (1 - t)) * noise
films |= {"turning back": turn(-5.0), "cloud": cloud(2.0), "small cloud": cloud(0.8)}
films |= {"detour down": detour(-1.0, -2.0), "detour up": detour(0.0, 2.5)}
films["slow start"] = lambda t: shuffled(t**3)
films["collapse"] = lambda t: shuffled(t).mean(0) + abs(1 - 2 * t) * (late(t) - late(t).mean(0))
films["quarter circle"] = lambda t: math.cos(math.pi * t / 2) * x0 + math.sin(math.pi * t / 2) * x1
films["unshuffled"] = lambda t: potential.flow(t, x0)

# %% tags=["copy"]
joined = AutodiffAction(lambda t, x: (1 - t) * action.value(0.0, x) + t * action.value(1.0, x))
each = lambda action, **options: [score(action, film, **options) for film in films.values()]
along_all = lambda action, **options: torch.stack(each(action, **options)).detach()
optimal, rival = along_all(action), along_all(joined)
half_cost = 0.5 * (potential.gradient(x0) - x0).square().sum(1).mean()
claim("S05-1", (optimal + half_cost).abs().max() / half_cost)
claim("S05-2", rival.max() - rival.min())
say(f"straight motion: {optimal.mean():.2f}; joined: {rival.min():.2f} to {rival.max():.2f}")

# %%
figure, ax = plt.subplots(figsize=(6.4, 4))
rows = range(len(films))
ax.scatter(rival, rows, color=ROLES["wrong"], marker="s", label="the same ends, joined linearly")
ax.scatter(optimal, rows, color=ROLES["optimal"], label="straight motion")
ax.set(title="straight motion: twelve films, one loss", xlabel="loss", ylim=(14, -1))
ax.set_yticks(rows, films)
ax.legend(loc="lower left", fontsize=8)
alt = "Twelve rows, one per film: the losses of straight motion are equal, the rival's scattered."
show(figure, "twelve_films", alt=alt)

# %% [markdown]
# For straight motion every film gives −7.93, to rounding. That is $-\frac12W_2^2(\alpha,\beta)$, minus half the mean squared
# distance walked: $\nabla\Psi$ carries $\alpha$ to $\beta$, and gradients of convex functions do it at least cost. The rival's
# loss lies anywhere between −7.76 and −5.88.

# %%
other = along_all(OptimalAction(three_pulls(0.5)))
say(f"another Ψ, all films: {other.mean():.2f}, spread {other.max() - other.min():.0e}")

# %% [markdown]
# **Change this.** Halve the three pulls of $\Psi$, as in the last cell: $\nabla\Psi$ now misses $\beta$. Another number,
# −7.17, and again one for all films. It is larger, as it must be (section 3). It knows $\Psi$, $\alpha$ and $\beta$, and
# nothing of the film.

# %%
frames = []  # of the film at the top
for k, (name, film) in enumerate(films.items()):
    for t in (0.25, 0.5, 0.75):
        picture, (left, right) = plt.subplots(1, 2, figsize=(4.3, 2.3), width_ratios=[1.35, 1])
        left.scatter(*torch.cat([x0, x1]).T, s=3, color=ROLES["truth"], alpha=0.5)
        left.scatter(*film(t).T, s=5, color=ROLES["second"])
        left.set(title=f"{name}, t = {t}", xticks=[], yticks=[], xlim=(-3.2, 6.6), ylim=(-4.6, 5.2))
        for place, losses, role in ((0, optimal, "optimal"), (1, rival, "wrong")):
            right.scatter([place] * 12, losses, s=8, color=ROLES["truth"], alpha=0.4)
            right.plot([place - 0.3, place + 0.3], [losses[k]] * 2, color=ROLES[role], lw=4)
            right.text(place, -5.45, f"{losses[k]:.2f}", ha="center", color=ROLES[role])
        right.set(title="loss", ylim=(-8.2, -5.1), xlim=(-0.6, 1.6), yticks=[])
        right.set_xticks([0, 1], ["straight", "joined"])
        frames.append(rendered(picture))
if run_dir():
    write_gif(run_dir() / "films.gif", frames, milliseconds=300)

# %% [markdown]
# *Why: [proofs/05](proofs/05_am_ot_equivalence.ipynb), section 4.*
#
# ## 2. The price of straight walks
#
# The crowd walks up the gradient of the price, $\dot X_t=\nabla s_t(X_t)$. Along a walk the velocity changes by
#
# $$\frac{d}{dt}\nabla s_t(X_t)=\big(\partial_t\nabla s_t+\nabla^2s_t\,\nabla s_t\big)(X_t)=\nabla\big[\partial_ts_t+\tfrac12|\nabla s_t|^2\big](X_t).$$
#
# So walks are straight, at constant speed, if the price falls in every place at half the squared speed. The price that does it is
#
# $$\partial_ts_t+\tfrac12|\nabla s_t|^2=0:\qquad s_t(x)=\min_z\Big\{s_0(z)+\frac{|x-z|^2}{2t}\Big\},\qquad s_0=\Psi-\tfrac12|\cdot|^2 .$$
#
# It reads: who stands at $x$ at time $t$ came from some $z$, and has paid for the way. Why does this minimum solve the
# equation? At the best $z$ the derivative in $z$ is 0, so we may hold $z$ fixed: then $\nabla s_t(x)=(x-z)/t$, the velocity of
# the walk from $z$, and $\partial_ts_t(x)=-|x-z|^2/(2t^2)$, minus half its square. And derivative 0 in $z$ says
# $x=(1-t)z+t\nabla\Psi(z)$: straight motion.
#
# **Guess.** Take $\Psi=\frac12z^2+\frac52\cos z$, which is not convex. What happens to the walks?

# %% tags=["copy"]
line = LogSumExp(1, 3, matrix=[[0.4]], temperature=0.3).requires_grad_(False)
line.slopes[0, :, 0], line.heights[0] = torch.tensor([[-2.0, 0.0, 2.0], [-0.6, 0.0, -0.6]])
walk = OptimalAction(line)
z = torch.linspace(-2, 2, 41)[:, None]
t, x = 0.7, line.flow(0.7, z)  # where those who started in z are at time 0.7
drift = walk.velocity(t, x) - walk.velocity(0.0, z)
balance = walk.time_derivative(t, x) + 0.5 * walk.velocity(t, x).square().sum(1)
claim("S05-3", torch.maximum(drift.abs().max(), balance.abs().max()))

# %%
figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.3))
places, starts = torch.linspace(-3, 3, 300)[:, None], torch.linspace(-2, 2, 17)
s0 = lambda z: line(z) - 0.5 * z.square().sum(1)
parabolas = s0(starts[:, None]) + (places - starts) ** 2 / 1.4
axes[0].plot(places, parabolas, color=ROLES["truth"], lw=0.6)
axes[0].plot(places, s0(places), color=ROLES["second"], ls="--", label="$s_0$")
axes[0].plot(places, walk.value(0.7, places), color=ROLES["optimal"], lw=3, label="$s_{0.7}$")
axes[0].set(title="below all parabolas: the price later", xlabel="$x$", ylabel="price")
axes[0].set(ylim=(-0.4, 2.4), xlim=(-2.6, 2.6))
axes[0].legend(loc="lower left")
bad = lambda z: z - 2.5 * torch.sin(z)
ends = {"optimal": line.gradient(starts[:, None])[:, 0], "wrong": bad(starts)}
for ax, (role, image) in zip(axes[1:], ends.items(), strict=True):
    ax.plot(torch.stack([starts, image]), [[0.0] * 17, [1.0] * 17], color=ROLES[role], lw=1)
    ax.set(xlabel="$x$", ylabel="time $t$", xlim=(-3, 3))
axes[1].set(title="Ψ convex: no two walks meet")
axes[2].set(title="Ψ not convex: they cross")
alt = """Left: parabolas and their lower envelope, the price at time 0.7. Middle: straight lines
of a convex potential, which never meet. Right: lines of another potential, which cross."""
show(figure, "prices_and_walks", alt=alt)

# %%
fine = torch.linspace(-3, 3, 2001)
ordered = lambda t: (((1 - t) * fine + t * bad(fine)).diff() > 0).all()
when = [t for t in torch.linspace(0, 1, 1001).tolist() if not ordered(t)]
say(f"the walks of the potential that is not convex cross from t = {when[0]:.2f} on")

# %% [markdown]
# They cross (right), from $t=0.40$ on: the place at time $t$ of the walk from $z$ has the slope $1-\frac52t\cos z$ in $z$,
# which is negative at $z=0$ once $t>\frac25$. Then one place has two visitors, and no price directs both.
#
# For convex $\Psi$ (left and middle: a smoothed $\frac15z^2+\max(0,2|z|-\frac35)$) every place has one visitor before $t=1$:
# $z\mapsto(1-t)z+t\nabla\Psi(z)$ is strictly monotone, since $\nabla\Psi$ is monotone.
# Velocities along the walks are constant to rounding.
#
# **Change this.** `temperature=0.03`: the map becomes a staircase, the walks leave in three bundles that fan out – and still do
# not cross.
#
# *Why: [proofs/05](proofs/05_am_ot_equivalence.ipynb), sections 2 and 3.*
#
# ## 3. The theorem in three lines
#
# The loss of an action along a film $(\mu_t)$ is
#
# $$L_{AM}(s)=\mathbb E_\alpha s_0-\mathbb E_\beta s_1+\int_0^1\mathbb E_{\mu_t}\big[\partial_ts_t+\tfrac12|\nabla s_t|^2\big]dt .$$
#
# Why is it a loss? Let a gradient field $v_t$ move the film (none moves "jump"; the theorem below needs none). Differentiate $\mathbb E_{\mu_t}s_t$ in time:
# $\mathbb E_\beta s_1-\mathbb E_\alpha s_0=\int_0^1\mathbb E_{\mu_t}[\partial_ts_t+\langle\nabla s_t,v_t\rangle]dt$, and,
# completing the square,
#
# $$L_{AM}(s)=\tfrac12\int_0^1\mathbb E_{\mu_t}|\nabla s_t-v_t|^2dt-\tfrac12\int_0^1\mathbb E_{\mu_t}|v_t|^2dt .$$
#
# Among *all* actions the film's own field is best, and the loss is then minus half the film's energy.
#
# Now let $s^\Psi$ be the action of straight motion, the price of section 2: we call it the *optimal action* of $\Psi$.
#
# 1. Its bracket is zero in *every place at every time*: no film can see anything in it.
# 2. Only the two ends are left: $s_0=\Psi-\frac12|\cdot|^2$, and the minimum of section 2 at $t=1$,
#    $s_1(x)=\min_z\{\Psi(z)-\frac12|z|^2+\frac12|x-z|^2\}=\frac12|x|^2-\Psi^*(x)$ with the conjugate
#    $\Psi^*(x)=\max_z\{\langle x,z\rangle-\Psi(z)\}$.
# 3. So, with $m_2(\alpha)=\mathbb E_\alpha|x|^2$, for every finite convex $\Psi$, kinks included, and every film,
#
# $$L_{AM}(s^\Psi)=\underbrace{\mathbb E_\alpha\Psi+\mathbb E_\beta\Psi^*}_{L_{OT}(\Psi)}-\tfrac12\big(m_2(\alpha)+m_2(\beta)\big)\;\ge\;-\tfrac12W_2^2(\alpha,\beta).$$
#
# The inequality is duality: $\Psi(x)+\Psi^*(y)\ge\langle x,y\rangle$ by the definition of $\Psi^*$, averaged over a cheapest
# pairing of $\alpha$ and $\beta$. Equality holds exactly if it takes each $x$ to a slope of $\Psi$ there: to
# $\nabla\Psi(x)$ but at kinks, which open into fans of walks. $L_{OT}$ is the *dual* of optimal transport, the loss that one
# would minimise without any film (`semidual_loss`).
#
# **Guess.** What do random times and frames of the film add to the *gradient* of the loss?

# %% tags=["copy"]
student = LogSumExp(2, 8, generator=g)
acting, weights = OptimalAction(student), list(student.parameters())
t, x = 0.3, films["turning"](0.3)
inside = acting.time_derivative(t, x) + 0.5 * acting.velocity(t, x).square().sum(1)
largest = lambda loss: max(part.abs().max() for part in torch.autograd.grad(loss, weights))
claim("S05-4", largest(inside.mean()) / largest(semidual_loss(student, x0, x1)))

# %% [markdown]
# Nothing: zero to rounding. *Training action matching restricted to optimal actions is training the dual*; the film only costs
# time.
#
# **Where it stops working.** Every time must count the same. One of the public implementations of action matching has the
# weight $1-t$ as its default. For its loss to be the weighted square of above, up to a constant, it needs one term more, from
# the derivative of the weight:
#
# $$L_{1-t}(s)=\mathbb E_\alpha s_0+\int_0^1\mathbb E_{\mu_t}\big[(1-t)\big(\partial_ts_t+\tfrac12|\nabla s_t|^2\big)-s_t\big]dt .$$
#
# For an optimal action the bracket is zero as before, but $\mathbb E_\alpha s_0-\int\mathbb E_{\mu_t}s_t\,dt$ is left: the
# film's mean price.

# %% tags=["copy"]
weighted = along_all(action, time_weight=lambda t: 1 - t)
claim("S05-5", weighted.max() - weighted.min())
say(f"with the weight 1 − t: {weighted.min():.2f} to {weighted.max():.2f}")

# %% [markdown]
# From −5.64 to 4.33, depending on the film; the potential that minimises it depends on the film, too
# ([07](07_limits_of_the_equivalence.ipynb) has twelve such switches).
#
# *Why: [proofs/05](proofs/05_am_ot_equivalence.ipynb), section 4.*
#
# ## 4. Without the restriction
#
# An unrestricted action learns the film, not the transport. Our film: a long Gaussian crowd turns by 90°.
#
# **Guess.** A network is free to be any action. Is its best loss above or below that of the best straight motion?


# %% tags=["copy"]
def turning(t, z):
    """The film: rows of z (standard normal) carried to the law at time t."""
    c, s = torch.cos(math.pi / 2 * t), torch.sin(math.pi / 2 * t)
    return torch.stack([c * 2 * z[:, 0] - s * z[:, 1] / 2, s * 2 * z[:, 0] + c * z[:, 1] / 2], 1)


def shots(n, *, generator):
    times = torch.zeros(n), torch.ones(n), torch.rand(n, generator=generator)
    return *(turning(t, torch.randn(n, 2, generator=generator)) for t in times), times[2]


# %% tags=["copy"]
def loss(net, x0, x1, x, t, *, generator):
    return action_matching_loss(net, x0, x1, x, t)


options = {"steps": 500, "batch": 256, "learning_rate": 1e-2, "schedule": cosine(), "ema": 0}
free = fit(action_network(2, (48, 48), generator=g), loss, shots, generator=g, **options).network

# %%
z = torch.randn(4000, 2, generator=g)
filmed = lambda times: torch.stack([turning(t, z) for t in times])
times, ends = (torch.arange(20) + 0.5) / 20, filmed(torch.tensor([0.0, 1.0]))
learned = action_matching_loss(free, *ends, filmed(times), times).detach()
energy, half_w2 = math.pi**2 / 8 * (2**2 - 0.5**2) ** 2 / (2**2 + 0.5**2), (2 - 0.5) ** 2
claim("S05-6", -half_w2 - learned)
say(f"network {learned:.2f}; least of all actions {-energy:.2f}, of straight ones {-half_w2:.2f}")

# %%
start_points = turning(torch.tensor(0.0), torch.randn(60, 2, generator=g))
round_ = trajectory(free.velocity, start_points, steps=40)[1].detach()
squeeze = Quadratic(2, matrix=torch.diag(torch.tensor([0.25, 4.0]))).requires_grad_(False)
lines = torch.stack([start_points, squeeze.gradient(start_points)])
figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.8), sharex=True, sharey=True)
titles = ("the network learns the film: round", "the optimal action: straight")
for ax, paths, role, title in zip(axes, (round_, lines), ("wrong", "optimal"), titles, strict=True):
    ax.plot(*paths.permute(2, 0, 1), color=ROLES[role], lw=0.7, alpha=0.7)
    ax.scatter(*start_points.T, s=9, color=ROLES["source"], label="$t=0$", zorder=3)
    ax.scatter(*paths[-1].T, s=9, color=ROLES["target"], marker="s", label="$t=1$", zorder=3)
    ax.set(title=title, aspect="equal", xlabel="$x_1$", xlim=(-6, 6), ylim=(-6, 6))
axes[0].set_ylabel("$x_2$")
axes[1].legend(loc="upper right")
alt = """Left: the particles of an unrestricted network go round with the turning crowd. Right:
those of the optimal action between the same two crowds walk on straight lines."""
show(figure, "free_and_optimal", alt=alt)

# %% [markdown]
# Below. The network comes to −3.91, near the least loss of all actions, −4.08, which is minus half the film's energy
# (section 3); straight motion stops at −2.25, which is $-\frac12W_2^2$. The particles of the network take the film's way round.
#
# **Trap.** "The loss fell below $-\frac12W_2^2$: we have beaten optimal transport." No: this film is not the cheapest between
# its ends, and the network has learned the film. The difference is half the energy that the film wastes.
#
# *Why: [proofs/05](proofs/05_am_ot_equivalence.ipynb), section 5.*

# %% [markdown]
# ## 5. Only snapshots
#
# In applications the film is known at $K$ moments only, from samples that nobody has paired. Put the moments into the loss as
# they are, with $\partial_ts$, and there is a hole.
#
# **Guess.** Three snapshots, at $t=0,\frac12,1$. How low can the loss of section 3 go?

# %% tags=["copy"]
draw = lambda t: turning(t, torch.randn(1000, 2, generator=g))
snapshots = lambda count: torch.stack([draw(t) for t in torch.linspace(0, 1, count)])  # unpaired
seen, times, rule = snapshots(3), torch.tensor([0.0, 0.5, 1.0]), [0.25, 0.5, 0.25]
clock = lambda t: t - torch.sin(4 * math.pi * t) / (4 * math.pi)  # from 0 to 1, at rest when seen
for c in (1.0, 10.0, 100.0):
    cheat = AutodiffAction(lambda t, x, c=c: c * clock(t) + 0 * x[:, 0])
    value = action_matching_loss(cheat, seen[0], seen[2], seen, times, quadrature=rule)
    difference = snapshot_loss(cheat, seen).abs()
    say(f"nobody moves, c = {c:.0f}: loss {value:.1f}, with differences {difference:.1f}")

# %% [markdown]
# Without bound, and by an action that moves nobody: $c$ times a clock from 0 to 1. The two ends give $0-c$; the bracket would
# pay $c$ back, but the clock runs between the snapshots only, where nobody looks. *Differences* of $s$, in the place of the
# derivative, close this hole. With $\mathbb E_k$ the mean over snapshot $k$, at time $t_k$, and trapezoidal weights $w_k$, the
# loss is now
#
# $$\mathbb E_1s_0-\mathbb E_Ks_1+\sum_{k<K}\tfrac12(\mathbb E_k+\mathbb E_{k+1})\big[s_{t_{k+1}}-s_{t_k}\big]+\sum_{k\le K}w_k\mathbb E_k\tfrac12|\nabla s_{t_k}|^2 ,$$
#
# and what a clock gains at the ends it pays back in the differences.


# %% tags=["copy"]
def learn(seen):
    """An unrestricted action from K snapshots, shape (K, n, 2), of which nothing is paired."""
    net = action_network(2, (48, 48), generator=g)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    for step in range(200):
        optimiser.param_groups[0]["lr"] = 1e-2 * cosine()(step / 200)
        optimiser.zero_grad()
        snapshot_loss(net, seen[:, torch.randperm(1000, generator=g)[:128]]).backward()
        optimiser.step()
    return net


# %%
law = lambda frame: Gaussian(torch.zeros(2), frame.T @ frame)  # of the images of the unit vectors
truth = lambda t: law(turning(t, torch.eye(2)))
crowd, walked, errors = draw(torch.tensor(0.0)), {}, {}
for count in (9, 3):
    times, paths = trajectory(learn(snapshots(count)).velocity, crowd, steps=32)
    walked[count] = paths.detach()
    fitted = [Gaussian(x.mean(0), torch.cov(x.T)) for x in walked[count]]
    errors[count] = [w2_squared(p, truth(t)).item() ** 0.5 for t, p in zip(times, fitted)]
worst = {count: max(error) for count, error in errors.items()}
claim("S05-7", worst[3] / worst[9])
say(f"largest W₂: nine snapshots {worst[9]:.2f}, three {worst[3]:.2f}; sampling {errors[9][0]:.2f}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.9), sharex=True, sharey=True)
for ax, count, seen in zip(axes, (9, 3), ("follow the film", "lose it"), strict=True):
    for t in torch.linspace(0, 1, count):
        draw_ellipse(ax, [0.0, 0.0], truth(t).cov, role="target")
        ax.lines[-1].set_linewidth(0.8)
    draw_trajectories(ax, walked[count], colour=ROLES["wrong"], count=40)
    title = f"{count} snapshots: the paths {seen}"
    ax.set(title=title, xlabel="$x_1$", aspect="equal", xlim=(-6, 6), ylim=(-6, 6))
axes[0].set_ylabel("$x_2$")
alt = """Rings of nine snapshots of a turning crowd, and learned paths that follow them; beside it
rings of three snapshots, and learned paths that leave them."""
show(figure, "snapshots", alt=alt)

# %% [markdown]
# From nine snapshots the learned crowd stays within 0.35 of the film (0.06 is sampling); from three it is off by 2.21: each
# snapshot sees the gradient of $s$ only where its own points are.
#
# **Change this.** Train twice as long (`range(400)`, `step / 400`): from nine snapshots the crowd is off by 0.28, from three by
# 11.93, and S05-7, which bounds the ratio by 40, stops the run.
#
# *Optimal* actions see no inner snapshot at all. Fifty years of 202 countries show what that means:
# [05b](05b_given_snapshots.ipynb).
#
# ![Restricted action matching is right at both ends only; unrestricted, it bends](../figures/05b_given_snapshots/four_views.png)
#
# *Why: [proofs/05](proofs/05_am_ot_equivalence.ipynb), section 5.*

# %% [markdown]
# ## 6. Which loss should I descend?
#
# *Optimal flow matching* minimises $\mathbb E|u_t(X_t)-(X_1-X_0)|^2$ over $\Psi$, with the velocity $u_t=\nabla s_t^\Psi$,
# pairs $(X_0,X_1)$, a random time and $X_t=(1-t)X_0+tX_1$. Along such a segment
# $\frac{d}{dt}s^\Psi_t(X_t)=\langle u_t,\dot X_t\rangle-\frac12|u_t|^2$, as the bracket is zero; so
# $|u_t-\dot X_t|^2=|\dot X_t|^2-2\frac{d}{dt}s^\Psi_t(X_t)$, and its integral over $t$ knows $\Psi$ by the ends only: twice the
# dual, plus what does not depend on $\Psi$.
#
# Three losses, one expected gradient, up to the factor 2. Restricted action matching even has the noise of the dual
# (section 3), for more work. Flow matching samples the time that the dual integrates, and is noisier.
#
# **Guess.** Good pairs (a transport plan of each batch) help flow matching. Do they help the dual, too?

# %% tags=["copy"]
student = LogSumExp(2, 8, matrix=0.3 * torch.eye(2), generator=g)
best = LogSumExp(2, 8, scale=2, matrix=0.3 * torch.eye(2), generator=g).requires_grad_(False)
weights = list(student.parameters())
flat = lambda loss: torch.cat([part.flatten() for part in torch.autograd.grad(loss, weights)])


def gradients(x0, x1):
    """One gradient, estimated twice from one batch: by flow matching, and by the dual."""
    t = torch.rand(len(x0), generator=g)
    return flat(ofm_loss(student, x0, x1, t)), 2 * flat(semidual_loss(student, x0, x1))


# %%
mix, quiet, ratios, curves = torch.linspace(-0.5, 1.2, 60), {}, {}, {}
for pairing in ("independent", "minibatch", "optimal"):
    both = []
    for _ in range(120):
        x0 = torch.randn(32, 2, generator=g)
        x1 = best.gradient(x0 if pairing == "optimal" else torch.randn(32, 2, generator=g))
        both.append(gradients(x0, x1[exact_pairs(x0, x1)] if pairing == "minibatch" else x1))
    matching, dual = (torch.stack(part) for part in zip(*both, strict=True))
    mixed = dual + mix[:, None, None] * (matching - dual)
    quiet[pairing] = dual.var(0).sum().item()
    curves[pairing] = mixed.var(1).sum(1) / quiet[pairing]
    ratios[pairing] = matching.var(0).sum().item() / quiet[pairing]
claim("S05-8", smallest(ratios.values()))
say(", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))
say(f"variance of the dual: independent {quiet['independent']:.2f}, optimal {quiet['optimal']:.2f}")

# %%
figure, ax = plt.subplots(figsize=(6.2, 3.6))
for pairing, curve in curves.items():
    ax.plot(mix, curve, color=ROLES[pairing], label=f"{pairing} pairs")
ax.set(title="the dual is the quiet end of the mixture", ylabel="variance / that of the dual")
ax.set(ylim=(0, None), xlabel="share $a$ of flow matching in the mixture")
ax.set_xticks([-0.5, 0, 0.5, 1], ["−½", "0\nthe dual alone", "½", "1\nflow matching alone"])
ax.legend()
alt = "Three parabolas, one per way of pairing: the variance of a mixture is least at the dual."
show(figure, "quiet_estimator", alt=alt)

# %% [markdown]
# No: the dual's gradient is a sum over $x_0$ plus a sum over $x_1$, and does not see how a batch is paired. With independent
# pairs the gradient of flow matching has 3.19 times its variance, with those of a plan of the batch still 2.26 times. With
# optimal pairs it is 3.01 times, in smaller units: $x_1$ follows from $x_0$, the two sums partly cancel, and the dual itself
# has the variance 18.69 in the place of 24.69.
#
# The picture mixes the two estimates, the dual plus $a$ times the difference; a negative $a$ steps away from flow matching. Flow
# matching's mean over $t$ *is* twice the dual, pair by pair, so the exact curves are parabolas with their least value, 1, at $a=0$.
# That some dip a little beside it is sampling error.
#
# **Change this.** A well-conditioned problem, `matrix=torch.eye(2)` in both lines: with minibatch and optimal pairs the lead of
# the dual shrinks to a tenth or less. It may be thin, never negative.
#
# *Why: [proofs/05](proofs/05_am_ot_equivalence.ipynb), section 6.*
#
# ## What to remember
#
# - Restricted to optimal actions, every film gives one loss, and it is the dual of optimal transport, minus a constant.
# - Without the restriction the film decides: the loss goes lower, and the motion is the film's.
# - Restricted action matching, optimal flow matching and the dual have one expected gradient, up to a factor; the dual is the
#   quiet estimator, and needs no film.
#
# ## Change this
#
# - In section 1 let the film "jump" jump at $t=\frac15$: the loss of straight motion stays, that of the rival falls from −6.92
#   to −7.37.
# - In section 4 let the crowd turn by 180°: $\alpha=\beta$, the best straight motion stands still and its loss is 0, and the
#   network goes round all the same: its least loss is four times that of 90°.
# - In section 6 give both estimates one batch of 64 in the place of 32: both variances halve, the ratio stays.
#
# ## Problems
#
# [PS2](assignments/PS2_action_matching_to_duality.ipynb), parts 1 (the action of a Gaussian path), 2 (a bound from every
# action), 3 and 4 (Hopf–Lax and the optimal action), 5 (forwards and backwards), 6 (two losses along bent paths), 12 (when
# lines cross).
#
# ## Proofs and limits
#
# [proofs/05](proofs/05_am_ot_equivalence.ipynb): all proofs, the identity path by path, bounds on the map's error by the loss,
# snapshots, the first experiments. What breaks the theorem: [07](07_limits_of_the_equivalence.ipynb). How to learn the map:
# [06](06_learning_brenier_maps.ipynb).
