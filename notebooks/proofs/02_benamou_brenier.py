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
# # The theorem of Benamou and Brenier
#
# The story: [02_benamou_brenier](../02_benamou_brenier.ipynb)
#
# **Text covered.** The lecture notes *Dynamic Optimal Transport and Flow Matching* (2025-11-05): the summary, the energy of
# McCann's interpolation in *Dynamical Formulation*, and the section *Benamou–Brenier*.
#
# **What you will see.** Both directions of the theorem. The two inequalities of its proof turned into two numbers, computed for
# four competitors. A gap in the proof of the notes, and both ways to close it; four numbers that come in one order for every
# flow matching. Then the theorem as an algorithm: a solver on a grid that never sees a transport map and finds the Wasserstein
# distance and McCann's interpolation all the same, with a bracket for the distance that is proved, not estimated. At the end: a
# maze, and mass that may grow. What is marked **(ours)** is not in the notes.
#
# **Prerequisites.** The continuity equation, flows and McCann's interpolation
# ([proofs/01](01_continuity_equation.ipynb)), and Kantorovich duality as a fact ([proofs/00](00_start_here.ipynb)).
# **Running time.** Half a minute on one thread (preset `quick`).
#
# **Contents.** 1 The statement, and a pair that attains it · 2 Two inequalities, two numbers · 3 Without a flow; four numbers in
# order · 4 The theorem as an algorithm · 5 Obstacles, and mass that may grow

# %% tags=["parameters"]
preset = "quick"
seed = 0

# %%
import math

import numpy as np
import torch
from matplotlib import pyplot as plt
from scipy.linalg import sqrtm
from scipy.special import ndtr
from sklearn.mixture import GaussianMixture as MixtureFit

from dynot_lite.companion import claim, errata, largest, say, show, smallest, start
from dynot_lite.couplings.batches import exact_pairs
from dynot_lite.datasets.images import CREDIT, colour_sample, digit_density, luminance, maze, photographs
from dynot_lite.grids import back_and_forth, benamou_brenier
from dynot_lite.grids.operators import centres
from dynot_lite.laws.coupled import MixtureCoupling, fm_law, mccann_velocity
from dynot_lite.laws.gaussian import Gaussian, fm_flow, fm_velocity, geodesic, monge_map, w2_squared
from dynot_lite.laws.linear_algebra import geometric_mean
from dynot_lite.laws.mixtures import GaussianMixture
from dynot_lite.paths.continuity import gauss_legendre, kinetic_energy, path_quadrature, strong_residual, weak_residual
from dynot_lite.paths.flows import trajectory
from dynot_lite.plots import ROLES, bars

start("proofs/02_benamou_brenier", preset=preset, seed=seed)
full = preset == "full"
rng = np.random.default_rng(seed)

# %% [markdown]
# ## 1. The statement, and a pair that attains it
#
# *Idea: the squared distance is the least energy of a motion, and moving everybody straight to the optimal partner attains it.*
#
# Let $\alpha,\beta$ be probability measures on $\mathbb R^d$ with finite second moments, and $\mathcal V(\alpha,\beta)$ the set
# of pairs $(\mu_t,v_t)$ that solve the continuity equation $\partial_t\mu+\operatorname{div}(\mu v)=0$ with $\mu_0=\alpha$ and
# $\mu_1=\beta$: $t\mapsto\mu_t$ is narrowly continuous on $[0,1]$, $(t,x)\mapsto v_t(x)$ is Borel measurable, and
# $\int_0^1\!\int|v_t|\,d\mu_t\,dt<\infty$ ([proofs/01](01_continuity_equation.ipynb), section 1; without continuity the infimum
# would be 0). Its energy is $\mathcal E(\mu,v)=\int_0^1\!\int|v_t(x)|^2\,d\mu_t(x)\,dt$.
#
# **Theorem (Benamou–Brenier).**
#
# $$
# W_2^2(\alpha,\beta)=\min_{(\mu,v)\in\mathcal V(\alpha,\beta)}\mathcal E(\mu,v) ,
# $$
#
# and if $\alpha$ is absolutely continuous, McCann's pair $\mu_t=(T_t)_\#\alpha$, $v_t=(T-\mathrm{Id})\circ T_t^{-1}$ with
# $T_t=(1-t)\mathrm{Id}+tT$ is the only minimiser.
#
# **Remark.** The notes write an infimum, call McCann's interpolation "the solution" and assume $\alpha\ll\lambda^d$ throughout.
# The infimum is attained, so it is a minimum, as they imply. The hypothesis is needed for the map $T$ and for uniqueness, not
# for the formula: for any $\alpha,\beta\in\mathcal P_2$ and an optimal coupling $(X_0,X_1)$ the law of $X_t=(1-t)X_0+tX_1$ with
# $v_t(x)=\mathbb E[X_1-X_0\mid X_t=x]$ solves (CE) ([proofs/03](03_flow_matching.ipynb), section 1), and by the third
# inequality of section 3.4 its energy is at most $\mathbb E|X_1-X_0|^2=W_2^2$.
#
# **The direction $\ge$: some pair has the energy $W_2^2$.** McCann's pair lies in $\mathcal V(\alpha,\beta)$ and
# $v_t\circ T_t=T-\mathrm{Id}$ holds $\alpha$-almost everywhere for $t<1$ ([proofs/01](01_continuity_equation.ipynb), section
# 5). So $\mathcal E=\int_0^1\!\int|v_t\circ T_t|^2\,d\alpha\,dt=\int|T(x)-x|^2\,d\alpha(x)=W_2^2(\alpha,\beta)$.
#
# *Check.* The cell evaluates the energy by Gauss–Hermite nodes of $\mu_t$ and Gauss–Legendre nodes in time, and $W_2^2$ by the
# Bures formula, for two Gaussians with means and covariances that do not commute.

# %%
Sigma0 = torch.tensor([[2.0, 0.6], [0.6, 1.0]]).double()
Sigma1 = torch.tensor([[1.0, -0.5], [-0.5, 3.0]]).double()
p, q = Gaussian(torch.tensor([0.3, -1.0]).double(), Sigma0), Gaussian(torch.tensor([1.5, 0.7]).double(), Sigma1)
velocity = mccann_velocity(p, q)
energy = kinetic_energy(path_quadrature(lambda t: geodesic(p, q, t)), velocity)
claim("BB-1", abs(energy - w2_squared(p, q).item()))


def wave(t, x):
    return torch.sin(1.3 * t + x[:, 0]) * torch.cos(0.4 * x.sum(-1))


claim("BB-2", weak_residual(path_quadrature(lambda t: geodesic(p, q, t), 40), velocity, wave))

# %% [markdown]
# ## 2. Two inequalities, two numbers
#
# *Idea: whatever a competitor spends beyond $W_2^2$ it spends on bent or uneven trajectories, or on wrong partners.*
#
# Let $(\mu,v)\in\mathcal V(\alpha,\beta)$ and suppose for now that $v$ has a flow $\varphi_t$ with $\mu_t=(\varphi_t)_\#\alpha$
# (section 3 does without). The notes argue
#
# $$
# \mathcal E(\mu,v)=\int\!\int_0^1|\partial_t\varphi_t|^2dt\,d\alpha
# \;\overset{\text{Jensen}}\ge\;\int|\varphi_1(x)-x|^2d\alpha\;\overset{\varphi_{1\#}\alpha=\beta}\ge\;W_2^2(\alpha,\beta).
# $$
#
# **Proposition 1 (ours).** Both steps are equalities with a remainder:
#
# $$
# \mathcal E(\mu,v)=W_2^2+\mathcal E_J+\mathcal E_C,\qquad
# \mathcal E_J=\int\!\int_0^1\bigl|\partial_t\varphi_t-(\varphi_1-\mathrm{Id})\bigr|^2dt\,d\alpha\ge0,\qquad
# \mathcal E_C=\int|\varphi_1-\mathrm{Id}|^2d\alpha-W_2^2\ge0 .
# $$
#
# *Jensen's defect* $\mathcal E_J$ is the variance of the velocity along the trajectories: it vanishes if and only if almost every
# particle moves on a straight line at constant speed. The *defect of the coupling* $\mathcal E_C$ vanishes if and only if
# $\varphi_1$ is an optimal map. If $\alpha\ll\lambda^d$, both vanish for McCann's pair only.
#
# *Proof.* For a path $\gamma$ with mean velocity $\gamma(1)-\gamma(0)$, expanding the square gives
# $\int_0^1|\dot\gamma|^2=|\gamma(1)-\gamma(0)|^2+\int_0^1|\dot\gamma-(\gamma(1)-\gamma(0))|^2$. Integrate over the starting
# points. The last sentence is the case of equality in section 3.2. $\square$
#
# **Four competitors** between the centred laws $\mathcal N(0,\Sigma_0)$ and $\mathcal N(0,\Sigma_1)$, with
# $F=\operatorname{tr}(\Sigma_0^{1/2}\Sigma_1\Sigma_0^{1/2})^{1/2}$, so that
# $W_2^2=\operatorname{tr}\Sigma_0+\operatorname{tr}\Sigma_1-2F$:
#
# - **McCann**: $\mathcal E_J=\mathcal E_C=0$.
# - **Flow matching** with independent ends: $v_t(x)=\mathbb E[X_1-X_0\mid X_t=x]$. Its energy is
#   $\operatorname{tr}\Sigma_0+\operatorname{tr}\Sigma_1-\frac\pi2\operatorname{tr}(\Sigma_0\#\Sigma_1)$ with the geometric mean
#   $\Sigma_0\#\Sigma_1$ (proof: [proofs/04](04_gaussian_exercises.ipynb)), so the excess is
#   $2F-\frac\pi2\operatorname{tr}(\Sigma_0\#\Sigma_1)$.
# - **A rotated detour** **(ours)**: $X_t=R_{\omega(t)}Y_t$ with McCann's $Y_t$ and the rotation by
#   $\omega(t)=\omega_0\sin\pi t$, which is back at 0 when $t=1$. With the generator $J$ of rotations,
#   $|\dot X|^2=|\omega'JY+\dot Y|^2$. The mixed term is $2\omega'\,\mathbb E\langle JY_t,\dot Y_t\rangle$; the antisymmetric
#   part of $\mathbb E[Y_t\dot Y_t^\top]=(I+t(T-I))\Sigma_0(T-I)$ does not depend on $t$, so it integrates to a multiple of
#   $\int_0^1\omega'=0$. What remains is $\int_0^1\omega'^2\,\mathbb E|Y_t|^2dt$
#   $=\omega_0^2\pi^2\bigl[(\frac16+\frac1{4\pi^2})\operatorname{tr}(\Sigma_0+\Sigma_1)+2(\frac1{12}-\frac1{4\pi^2})F\bigr]$.
# - **A re-clocked geodesic**: $\mu_{\tau(t)}$ with $\tau=t^2$ has the energy $W_2^2\int_0^1\dot\tau^2dt=\frac43W_2^2$.

# %%
c0, c1 = Gaussian(torch.zeros(2).double(), Sigma0), Gaussian(torch.zeros(2).double(), Sigma1)
exact = w2_squared(c0, c1).item()
map_, straight = monge_map(c0, c1).matrix, mccann_velocity(c0, c1)
J = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).double()
omega0 = 0.25
identity = torch.eye(2).double()


def rotation(t):
    return torch.linalg.matrix_exp(omega0 * math.sin(math.pi * t) * J)


def rotated_velocity(t, x):
    spin = omega0 * math.pi * math.cos(math.pi * t)
    return spin * x @ J.T + straight(t, x @ rotation(t)) @ rotation(t).T


def rotated_law(t):
    cov = geodesic(c0, c1, t).cov
    return Gaussian(torch.zeros(2).double(), rotation(t) @ cov @ rotation(t).T)


# name: path of laws, velocity, matrix of the flow at time t
competitors = {
    "McCann": (lambda t: geodesic(c0, c1, t), straight, lambda t: (1 - t) * identity + t * map_),
    "flow matching": (
        lambda t: fm_law(c0, c1, t),
        lambda t, x: fm_velocity(c0, c1, t, x),
        lambda t: fm_flow(c0, c1, t).matrix,
    ),
    "rotated detour": (rotated_law, rotated_velocity, lambda t: rotation(t) @ ((1 - t) * identity + t * map_)),
    "clock t²": (
        lambda t: geodesic(c0, c1, t**2),
        lambda t, x: 2 * t * straight(t**2, x),
        lambda t: (1 - t**2) * identity + t**2 * map_,
    ),
}

# %% [markdown]
# *Check.* The energy is integrated over the laws $\mu_t$, Jensen's defect along the trajectories $t\mapsto\varphi_t(x)$, and
# $\mathcal E_C$ at the end of the flow: three computations that share nothing but the velocity.

# %%
x, weights = c0.quadrature(4)  # exact for quadratic functions of affine maps
defects = {}
for name, (path, v, flow) in competitors.items():
    total = kinetic_energy(path_quadrature(path, 4), v, times=32)
    move = x @ flow(1.0).T - x
    jensen = sum(
        w * (weights @ (v(t, x @ flow(t).T) - move).square().sum(1))
        for t, w in zip(*(n.tolist() for n in gauss_legendre(32)), strict=True)
    ).item()
    coupling = (weights @ move.square().sum(1)).item() - exact
    defects[name] = (total, jensen, coupling)
    print(f"{name:15s} energy {total:.4f} = W2² {exact:.4f} + {jensen + 0.0:.4f} + {abs(coupling):.4f}")
claim("BB-3", largest(abs(total - exact - j - c) for total, j, c in defects.values()))

root = sqrtm(Sigma0.numpy()).real
fidelity = np.trace(sqrtm(root @ Sigma1.numpy() @ root).real)
geometric = geometric_mean(Sigma0, Sigma1).trace().item()
traces = (Sigma0.trace() + Sigma1.trace()).item()
claim("BB-4", abs(defects["flow matching"][0] - exact - (2 * fidelity - math.pi / 2 * geometric)))
bracket = (1 / 6 + 1 / (4 * math.pi**2)) * traces + 2 * (1 / 12 - 1 / (4 * math.pi**2)) * fidelity
claim("BB-5", abs(defects["rotated detour"][0] - exact - (omega0 * math.pi) ** 2 * bracket))
claim("BB-6", abs(defects["clock t²"][0] - 4 / 3 * exact))
claim("BB-7", defects["flow matching"][0] - exact)
claim("BB-8", smallest((j, c) for _, j, c in defects.values()))

# %%
fig, ax = plt.subplots(figsize=(7.0, 2.7))
rows = {name: (exact, max(jensen, 0), max(coupling, 0)) for name, (_, jensen, coupling) in defects.items()}
parts = {"$W_2^2$": "truth", "Jensen's defect $\\mathcal{E}_J$": "independent"}
bars(ax, rows, {**parts, "defect of the coupling $\\mathcal{E}_C$": "wrong"}, digits=".3f")
ax.axvline(exact, color=ROLES["second"], linewidth=0.8)
ax.set(xlabel="energy $\\int_0^1\\int |v_t|^2 d\\mu_t\\,dt$")
fig.suptitle("Every competitor but McCann wastes energy")
alt = (
    "Four bars of energy. McCann has the squared distance alone, flow matching twice as much and a sliver for its "
    "coupling, the rotated detour nearly as much, the clock a third more."
)
show(fig, "competitors", alt=alt)

# %% [markdown]
# Flow matching loses little by its coupling (0.0141, a sliver) and much by its curved trajectories; the other two end at the
# optimal map and lose by Jensen only.

# %% [markdown]
# ## 3. Without a flow; four numbers in order
#
# *Idea: a competitor of finite energy is a mixture of trajectories, even where its field has no flow; what holds for a trajectory
# holds for the mixture.*
#
# ### 3.1 The gap
#
# The notes apply their theorem on flows to an *arbitrary* pair of $\mathcal V(\alpha,\beta)$. A competitor of finite energy need
# not be Lipschitz, nor bounded, and need not have a flow.

# %%
errata.box("N-05")

# %% [markdown]
# **Example (ours).** $X_0\sim\mathcal N(0,1)$ and $X_t=(1-2t)X_0$. All particles meet at the origin when $t=\frac12$. The pair
# $\mu_t=\mathcal N(0,(1-2t)^2)$, $v_t(x)=-2x/(1-2t)$ solves the continuity equation and has the energy
# $\int_0^1(1-2t)^2\cdot4/(1-2t)^2\,dt=4$, but the slope of $v_t$ is unbounded and the flow ends at $t=\frac12$: afterwards the
# lines $(1-2t)x$ and $|1-2t|x$ both follow the field, and with the same start two solutions of (CE) end in different laws
# ([proofs/01](01_continuity_equation.ipynb), on what happens without the hypotheses).

# %%
def crossing_velocity(t, x):
    return -2 * x / (1 - 2 * t)


point = torch.tensor([[0.0]], dtype=torch.float64, requires_grad=True)
claim("BB-9", torch.autograd.grad(crossing_velocity(0.4999, point).sum(), point)[0].abs().item())

# %% [markdown]
# ### 3.2 Repair A: superposition
#
# **Theorem 2 (superposition; Ambrosio, Gigli and Savaré, *Gradient Flows*, Theorem 8.2.1).** Let $t\mapsto\mu_t$ be a narrowly
# continuous path of probability measures on $[0,1]$, let $v$ be Borel measurable in $(t,x)$ with
# $\int_0^1\!\int|v_t|^2d\mu_t\,dt<\infty$, and let $(\mu,v)$ solve the continuity equation. Then there is a probability $\eta$ on
# $C([0,1];\mathbb R^d)$ such that
#
# 1. $\eta$-almost every $\gamma$ is absolutely continuous with $\dot\gamma(t)=v_t(\gamma(t))$ for almost every $t$;
# 2. if $\gamma\sim\eta$, then $\gamma(t)$ has the law $\mu_t$, for every $t\in[0,1]$.
#
# Trajectories may cross or branch; no flow is needed, and $\eta$ need not be unique. Each hypothesis has its part. Without
# narrow continuity a path may jump at no cost. Joint measurability is what gives a meaning to $\int_0^1v_t(\gamma(t))\,dt$
# along a line. And $\int\!\int|v|\,d\mu\,dt<\infty$ alone, which is all that (CE) needs, does not give the bound
# $\int_0^1|\dot\gamma|^2dt<\infty$ used below.
#
# **Proof of $W_2^2\le\mathcal E$ for every competitor.** With $\eta$ of Theorem 2, Fubini's theorem and Jensen's inequality give
#
# $$
# \mathcal E(\mu,v)=\int\!\int_0^1|\dot\gamma|^2dt\,d\eta(\gamma)\ge\int|\gamma(1)-\gamma(0)|^2d\eta(\gamma)\ge
# W_2^2(\alpha,\beta),
# $$
#
# because the law of $(\gamma(0),\gamma(1))$ under $\eta$ is a coupling of $\alpha$ and $\beta$. (A competitor of infinite
# energy needs no proof.) Proposition 1 holds with $\eta$ in the place of the flow. In the example $\eta$ lives on the lines
# $t\mapsto(1-2t)x$, and both sides of the first equality are 4. (So is the second expression; only $W_2^2=0$ is smaller.)
# $\square$
#
# **Equality.** If the energy is $W_2^2$, Jensen's inequality is an equality, so $\eta$-almost every path is straight with
# constant speed, and $(\gamma(0),\gamma(1))$ is an optimal coupling; for $\alpha\ll\lambda^d$ it is $(\mathrm{Id},T)_\#\alpha$,
# and $\mu$ is McCann's interpolation. As $T_t$ is injective for $t<1$, $v_t\circ T_t=T-\mathrm{Id}$ determines $v_t$
# $\mu_t$-almost everywhere, for almost every $t$. This proves uniqueness.
#
# **Corollary 3 (when there is a flow after all).** In the situation of Theorem 2, suppose that for $\alpha$-almost every $x$
# the equation $\dot\gamma=v_t(\gamma)$, $\gamma(0)=x$, has at most one absolutely continuous solution on $[0,1]$. Then it has
# one, $\varphi_t(x)$, for $\alpha$-almost every $x$, and $\mu_t=(\varphi_t)_\#\alpha$ for every $t$.
#
# *Proof.* Disintegrate $\eta=\int\eta_x\,d\alpha(x)$ with respect to $\gamma(0)=x$. For almost every $x$ the probability
# $\eta_x$ lives on solutions that start in $x$; there is at most one, so $\eta_x$ is the Dirac mass of $t\mapsto\varphi_t(x)$,
# and 2 says that $\mu_t=(\varphi_t)_\#\alpha$. $\square$
#
# This is the step from the field of flow matching to its end map ([proofs/03](03_flow_matching.ipynb), section 1), and the step
# of exercise 3 ([proofs/04](04_gaussian_exercises.ipynb)).
#
# *Check* of the first equality in the example.

# %%
normal, line_weights = Gaussian(torch.zeros(1).double(), torch.eye(1).double()).quadrature(30)
shrinking = path_quadrature(lambda t: Gaussian(torch.zeros(1).double(), torch.eye(1).double() * (1 - 2 * t) ** 2))
eulerian = kinetic_energy(shrinking, crossing_velocity)
lines = (line_weights @ ((-2 * normal) ** 2).sum(1)).item()  # each path has the constant velocity −2x
claim("BB-10", abs(eulerian - lines))

# %% [markdown]
# ### 3.3 Repair B: mollification
#
# Let $(\mu,v)\in\mathcal V(\alpha,\beta)$ have finite energy, let $g_\varepsilon$ be the density of
# $\mathcal N(0,\varepsilon I)$ and $\mu^\varepsilon_t=\mu_t*g_\varepsilon$,
# $v^\varepsilon_t=\dfrac{(v_t\mu_t)*g_\varepsilon}{\mu^\varepsilon_t}$.
#
# 1. *It solves the continuity equation*, because convolution commutes with $\partial_t$ and $\operatorname{div}$.
# 2. *It costs no more*: $(m,\rho)\mapsto|m|^2/\rho$ is jointly convex and 1-homogeneous, so Jensen gives
#    $|v^\varepsilon_t|^2\mu^\varepsilon_t\le(|v_t|^2\mu_t)*g_\varepsilon$ at every point; integrate over $x$ and $t$:
#    $\mathcal E(\mu^\varepsilon,v^\varepsilon)\le\mathcal E(\mu,v)$.
# 3. *It is locally Lipschitz in $x$.* A narrowly continuous path is tight: some ball $B_R$ has $\mu_t(B_R)\ge\frac12$ for all
#    $t$. So on a ball $B$, $\mu^\varepsilon_t\ge c_B>0$ at all times, and $(v_t\mu_t)*g_\varepsilon$ and its derivatives are at
#    most $C_\varepsilon\int|v_t|d\mu_t$. Hence
#    $\sup_B|v^\varepsilon_t|+\mathrm{Lip}(v^\varepsilon_t,B)\le C_{B,\varepsilon}\int|v_t|d\mu_t$, which is integrable in $t$.
#    Lines exist and are unique as long as they stay in a bounded set.
# 4. *Its lines do not run away.* Step 3 alone gives no flow up to time 1: $v=x^2$ is smooth, and its particles run to infinity
#    ([proofs/01](01_continuity_equation.ipynb)). The finite energy forbids it (Ambrosio, Gigli and Savaré, Proposition 8.1.8).
#    Let the line from $x$ exist up to the time $t_x\le1$. What the lines carry that exist at least up to time $t$ is a part of
#    the solution: $(\varphi_t)_\#(\mu^\varepsilon_0|_{\{t_x>t\}})\le\mu^\varepsilon_t$ (by comparison on bounded sets, where
#    step 3 applies). So the mean length of the lines is finite,
#
#    $$
#    \int\!\int_0^{t_x}|v^\varepsilon_t(\varphi_t(x))|\,dt\,d\mu^\varepsilon_0(x)
#    \le\int_0^1\!\int|v^\varepsilon_t|\,d\mu^\varepsilon_t\,dt\le\mathcal E(\mu^\varepsilon,v^\varepsilon)^{1/2}<\infty .
#    $$
#
#    Almost every line therefore has a finite length, stays in a bounded set and exists up to time 1. Then
#    $(\varphi_t)_\#\mu^\varepsilon_0\le\mu^\varepsilon_t$ are two probability measures, hence equal, and the argument of the
#    notes applies: $W_2^2(\mu^\varepsilon_0,\mu^\varepsilon_1)\le\mathcal E(\mu^\varepsilon,v^\varepsilon)$.
# 5. *Limit*: $W_2(\alpha*g_\varepsilon,\beta*g_\varepsilon)\to W_2(\alpha,\beta)$ since
#    $W_2(\alpha*g_\varepsilon,\alpha)\le\sqrt{\varepsilon d}$. Hence
#    $W_2^2(\alpha,\beta)=\lim W_2^2(\mu^\varepsilon_0,\mu^\varepsilon_1)$, which is at most
#    $\liminf\mathcal E(\mu^\varepsilon,v^\varepsilon)\le\mathcal E(\mu,v)$. $\square$
#
# In the example, with $\tau=1-2t$: $\mu^\varepsilon_t=\mathcal N(0,\tau^2+\varepsilon)$,
# $v^\varepsilon_t(x)=-2\tau x/(\tau^2+\varepsilon)$, of slope at most $1/\sqrt\varepsilon$, and the energy is
# $\int_0^1\frac{4\tau^2}{\tau^2+\varepsilon}dt=4\bigl(1-\sqrt\varepsilon\arctan\frac1{\sqrt\varepsilon}\bigr)<4$. Its flow is
# $\varphi_t(x)=x\sqrt{(\tau^2+\varepsilon)/(1+\varepsilon)}$: the mollified particles do not cross, they turn back, and
# $\varphi_1=\mathrm{Id}$.

# %%
strong, closed, energies = 0.0, 0.0, []
epsilons = (0.3, 0.1, 0.03, 0.01)
for eps in epsilons:
    def density(t, y, eps=eps):
        variance = (1 - 2 * t) ** 2 + eps
        return torch.exp(-(y[:, 0] ** 2) / (2 * variance)) / torch.sqrt(2 * math.pi * variance)

    def smooth_velocity(t, y, eps=eps):
        return -2 * (1 - 2 * t) * y / ((1 - 2 * t) ** 2 + eps)

    grid_points = torch.linspace(-2, 2, 41).double()[:, None]
    for t in (0.1, 0.45, 0.7):
        strong = largest(strong, strong_residual(density, smooth_velocity, t, grid_points).abs().max().item())
    mollified = lambda t, eps=eps: Gaussian(torch.zeros(1).double(), torch.eye(1).double() * ((1 - 2 * t) ** 2 + eps))
    energies.append(kinetic_energy(path_quadrature(mollified), smooth_velocity, times=400))
    closed = largest(closed, abs(energies[-1] - 4 * (1 - math.sqrt(eps) * math.atan(1 / math.sqrt(eps)))))
claim("BB-11", strong)
claim("BB-12", closed)
claim("BB-13", largest(energies) - 4)

# %%
fig, axes = plt.subplots(1, 2, figsize=(8.2, 2.9), sharey=True)
t = np.linspace(0, 1, 301)
for start_point in np.linspace(-1.8, 1.8, 9):
    role = "first" if start_point > 0 else "second"  # who starts above, and who below
    axes[0].plot(t, (1 - 2 * t) * start_point, color=ROLES[role], linewidth=1)
    axes[1].plot(t, start_point * np.sqrt(((1 - 2 * t) ** 2 + 0.03) / 1.03), color=ROLES[role], linewidth=1)
axes[0].set(xlabel="time $t$", ylabel="position $x$", title="superposition: the lines cross")
axes[1].set(xlabel="time $t$", title="mollified, $\\varepsilon=0.03$: they turn back")
alt = (
    "Left: straight lines that all cross in one point. Right: lines that approach each other and turn back, each to "
    "its start."
)
show(fig, "crossing", alt=alt)

# %% [markdown]
# ### 3.4 Four numbers in order
#
# *Idea: wrong partners, bent lines, crossing pairs – each inequality is one kind of waste.*
#
# **Theorem 4.** Let $(X_0,X_1)\sim\pi$ be any coupling of $\alpha,\beta\in\mathcal P_2$, $X_t=(1-t)X_0+tX_1$ of law $\mu_t$,
# and $v_t(x)=\mathbb E[X_1-X_0\mid X_t=x]$ (a version that is measurable in $(t,x)$). If $(\varphi_t)_\#\alpha=\mu_t$ for every
# $t$, these four numbers increase from left to right:
#
# $$
# W_2^2(\alpha,\beta)\ \le\ \mathbb E\lvert\varphi_1(X_0)-X_0\rvert^2
# \ \le\ \int_0^1\mathbb E\lvert v_t(X_t)\rvert^2dt\ \le\ \mathbb E\lvert X_1-X_0\rvert^2 .
# $$
#
# *Proof.* First: $(X_0,\varphi_1(X_0))$ couples $\alpha$ and $\beta$. Second:
# $\varphi_1(X_0)-X_0=\int_0^1v_t(\varphi_t(X_0))\,dt$, so by Jensen's inequality its square is at most
# $\int_0^1\lvert v_t(\varphi_t(X_0))\rvert^2dt$; take expectations, and $\varphi_t(X_0)$ has the law of $X_t$. Third: by
# Jensen's inequality for the conditional expectation, $\lvert v_t(X_t)\rvert^2\le\mathbb E[\lvert X_1-X_0\rvert^2\mid X_t]$.
# $\square$
#
# *Without a flow* the energy is finite by the third inequality, $(\mu,v)$ solves (CE) ([proofs/03](03_flow_matching.ipynb)),
# and the theorem holds with $\int|\gamma(1)-\gamma(0)|^2d\eta$ of Theorem 2 as its second number.
#
# *Equality.* The gaps are $\mathcal E_C$, $\mathcal E_J$ and $\int_0^1\mathbb E|X_1-X_0-v_t(X_t)|^2dt$, the floor of the loss
# ([proofs/03](03_flow_matching.ipynb)). The first closes if and only if $\varphi_1$ is optimal: on the line always, where a
# flow keeps the order of the points. The second closes if and only if the trajectories of the flow are straight at constant
# speed. The third closes if and only if $X_1-X_0$ is a function of $X_t$, for almost every $t$: the pairs do not cross. For an
# optimal coupling $W_2^2=\mathbb E|X_1-X_0|^2$, and all three close. In the example each inequality is strict.
#
# **An example: the colours of two photographs.** Each colour law is a Gaussian mixture of $K=5$ components, fitted by maximum
# likelihood. The independent coupling of two mixtures is a mixture of the $K^2$ pairs of components, with the products of the
# weights, and $v_t$ is a posterior mean of Gaussian velocities ([proofs/04](04_gaussian_exercises.ipynb), exercise 5).
#
# *How the numbers are computed.* $\mathbb E\lvert X_1-X_0\rvert^2$ from the moments of the mixtures. Colours drawn from the
# first mixture are carried along by the midpoint rule; their steps give $\mathbb E\lvert\varphi_1-\mathrm{Id}\rvert^2$ and the
# energy ($h\sum_k\lvert\Delta_k/h\rvert^2$ with steps $\Delta_k$ of length $h$ in time, for which Jensen's inequality holds
# exactly), and an exact assignment the $W_2^2$ of their two ends. The energy is computed a second time *without* the flow, from
# the same starting colours with a fresh independent $X_1$ at each of 25 times: the two agree only if the flow really has the
# law of $X_t$.

# %%
K = 5
size = {
    "quick": dict(image=(100, 150), ends=800, particles=2000),
    "full": dict(image=(200, 300), ends=2000, particles=20000),
}[preset]
generator = torch.Generator().manual_seed(seed)


def fit_mixture(image):
    colours = colour_sample(image, 4000, generator=generator).numpy()
    fit = MixtureFit(K, reg_covar=1e-4, max_iter=500, random_state=seed).fit(colours)
    return GaussianMixture(fit.weights_ / fit.weights_.sum(), fit.means_, fit.covariances_)


def moments(law):
    """The mean, and the trace of the covariance."""
    mean = law.weights @ law.means
    second = law.weights @ (law.covs.diagonal(dim1=-2, dim2=-1).sum(-1) + law.means.square().sum(-1))
    return mean, second - mean.square().sum()


def w2_points(x, y):
    """W₂² of two clouds of equally many points."""
    return (x - y[exact_pairs(x, y)]).square().sum(1).mean().item()


law0, law1 = (fit_mixture(image) for image in photographs(size=size["image"]))
pair_weights = torch.outer(law0.weights, law1.weights).flatten()
means0, covs0 = (z.repeat_interleave(K, 0) for z in (law0.means, law0.covs))
means1, covs1 = law1.means.repeat(K, 1), law1.covs.repeat(K, 1, 1)
independent = MixtureCoupling(pair_weights / pair_weights.sum(), means0, means1, covs0, covs1)

start_points = law0.sample(size["particles"], generator=generator)
_, path = trajectory(independent.velocity, start_points, steps=40)
power = 40**2 * path.diff(dim=0).square().sum(-1).mean(1)  # E|v_t|² on each of the 40 intervals
energy = power.mean().item()
moved = (path[-1] - start_points).square().sum(1).mean().item()
(mean0, spread0), (mean1, spread1) = moments(law0), moments(law1)
pairs = ((mean1 - mean0).square().sum() + spread0 + spread1).item()

clock = (torch.arange(25, dtype=torch.float64) + 0.5) / 25
positions = [(1 - t) * start_points + t * law1.sample(len(start_points), generator=generator) for t in clock]  # of X_t
velocities = [independent.velocity(t, x_t) for t, x_t in zip(clock, positions, strict=True)]
pair_power = torch.stack([v_t.square().sum(1).mean() for v_t in velocities])

# %%
n = size["ends"]
fresh = law1.sample(n, generator=generator)
ends_w2 = w2_points(start_points[:n], path[-1, :n])
ends_moved = (path[-1, :n] - start_points[:n]).square().sum(1).mean().item()
claim("OT-27", w2_points(path[-1, :n], fresh) / w2_points(start_points[:n], fresh))
claim("OT-28", abs(energy / pair_power.mean() - 1))
claim("OT-29", ends_w2 - ends_moved)
claim("OT-30", moved - energy)
claim("OT-31", energy - pairs)
claim("OT-32", ends_moved / ends_w2 - 1)
claim("OT-33", pairs / energy - 1)
say(f"W2² of the ends {ends_w2:.2f}, E|φ₁ − Id|² {moved:.2f}, energy {energy:.2f}, E|X₁ − X₀|² {pairs:.2f}")

# %%
fig, ax = plt.subplots(figsize=(7.2, 3.4))
ax.plot((torch.arange(40) + 0.5) / 40, power, color=ROLES["independent"], label=r"$\mathbb{E}|v_t|^2$ along the flow")
ax.plot(clock, pair_power, "o", ms=4, color=ROLES["second"], label=r"$\mathbb{E}|v_t(X_t)|^2$ from pairs, without the flow")
for value, text, style, place in (
    (pairs, r"$\mathbb{E}|X_1 - X_0|^2$", ":", "center"),
    (energy, r"energy, the mean of the curve", "-.", "bottom"),
    (moved, r"$\mathbb{E}|\varphi_1 - \mathrm{Id}|^2$", "--", "top"),
    (ends_w2, r"$W_2^2$", "-", "center"),
):
    ax.axhline(value, color=ROLES["optimal" if style == "-" else "truth"], lw=1.1, ls=style)
    ax.text(1.02, value, text, va=place, fontsize=9)
ax.set(xlabel="time $t$", ylabel="mean squared speed", xlim=(0, 1), title="Four numbers, in their order")
ax.legend(loc=(0.22, 0.2), fontsize=9)
alt = (
    "A curve, the mean squared speed of flow matching, with dots from pairs on it; four horizontal lines in the order "
    "of the theorem, the squared distance far below."
)
show(fig, "energies", alt=alt)

# %% [markdown]
# ## 4. The theorem as an algorithm
#
# *Idea: in density and momentum the problem is convex; what a solver returns is a competitor, and any prices bound it from
# below.*
#
# ### 4.1 What is solved, and what is returned
#
# In the variables $(\rho,m)=(\rho,\rho v)$ the problem is convex: minimise $\int\!\int|m|^2/\rho$ subject to the linear
# constraint $\partial_t\rho+\operatorname{div}m=0$, $\rho_0=\alpha$, $\rho_1=\beta$ (densities on the unit box).
# `benamou_brenier.solve` discretises it on
# space-time cells, with the density on time faces and each component of $m$ on the space faces across its axis, so that the
# divergence is exact in each cell. With `method="cold"` it starts from the linear path $(1-t)\alpha+t\beta$ and knows nothing of
# transport maps, potentials or geodesics: what it finds is evidence for the theorem.
#
# **What is returned is admissible.** A last projection in float64 makes the continuity equation hold to rounding; then
# neighbouring times are averaged, which keeps the pair admissible with the same ends (averages of solutions are solutions) and
# removes a mode that alternates in time and that the discrete energy does not see.
#
# ### 4.2 A bracket that is proved (ours)
#
# **Proposition 5.** Let $\alpha,\beta$ be constant on cells of length $h$.
#
# - *Upper bound.* Read the pair as the field with density constant in a cell and linear in time, and momentum linear across a
#   cell. It solves the continuity equation exactly, so its exact energy is at least $W_2^2$: it is a competitor of the theorem.
#   In a cell with face values $m_-,m_+$ and densities $\rho_-,\rho_+$ at the ends of a slab the energy is
#   $\frac{m_-^2+m_-m_++m_+^2}3\cdot\frac{\log(\rho_+/\rho_-)}{\rho_+-\rho_-}$ per unit of volume and time. It needs $\rho>0$.
# - *Lower bound.* Let $f,g$ be values on the corners of the grid with $f_i+g_j\le\frac12|x_i-y_j|^2$, and
#   $\overline f,\overline g$ their means over the corners of a cell. Then
#
# $$
# W_2^2\ge2h^d\sum_{\text{cells}}\bigl[\alpha\,\overline f+\beta\,\overline g\bigr]-d\,\frac{h^2}3 .
# $$
#
# *Proof of the lower bound.* Put $\Psi=\frac12|x|^2-f$ and $\Psi'=\frac12|y|^2-g$ at the corners; then
# $\Psi_i+\Psi'_j\ge\langle x_i,y_j\rangle$. Interpolating both sides multilinearly keeps the inequality, and
# $\langle x,y\rangle$ is its own interpolant. So $\Psi,\Psi'$ are admissible in the dual at *all* points, and
# $W_2^2\ge\int|x|^2d\alpha+\int|y|^2d\beta-2\int\Psi\,d\alpha-2\int\Psi'\,d\beta$. The mean of an interpolant over a cell is
# the mean of its corners, and that of $\frac12|x|^2$ is $\frac{h^2}{12}$ less per axis than the mean at the corners. $\square$
#
# No property of the potentials is used, so any solver's potential will do. (The code puts corners at half the cell length as
# well, for a quarter of the loss.)
#
# *Check.* Both bounds on rough random data in one dimension, where $W_2^2=\int_0^1|Q_\alpha-Q_\beta|^2$ with the quantile
# functions can be integrated exactly.

# %%
def w2_squared_1d(mu, nu):
    """W₂² of piecewise constant densities on [0, 1]: both quantile functions are piecewise affine."""
    cdfs = [np.concatenate([[0], np.cumsum(d)]) / d.sum() for d in (mu, nu)]
    levels = np.unique(np.concatenate(cdfs))
    levels = levels[np.concatenate([[True], np.diff(levels) > 1e-15])]  # cells of the far tails hold no mass to speak of
    ends = []
    for d, cdf in zip((mu, nu), cdfs, strict=True):
        n = len(d)
        cell = np.clip(np.searchsorted(cdf, (levels[1:] + levels[:-1]) / 2, side="right") - 1, 0, n - 1)
        ends.append([cell / n + (level - cdf[cell]) * d.sum() / (n * d[cell]) for level in (levels[:-1], levels[1:])])
    low, high = ends[0][0] - ends[1][0], ends[0][1] - ends[1][1]
    return np.diff(levels) @ (low**2 + low * high + high**2) / 3


def rough(n):
    blocks = np.repeat(rng.random(-(-n // 3)) ** 2, 3)[:n] + 0.1 * rng.random(n)
    return 0.1 + 0.9 * blocks / blocks.mean()


residuals, worst = [], -np.inf
for _ in range(50 if full else 12):
    n = int(rng.integers(20, 60))
    mu, nu = rough(n), rough(n)
    truth = w2_squared_1d(mu, nu)
    result = benamou_brenier.solve(mu, nu, steps=8, method="cold")
    residuals.append(result.residual)
    worst = largest(worst, result.lower - truth, truth - result.upper)
claim("BB-14", worst)

# %% [markdown]
# ### 4.3 Convergence
#
# Two Gaussians with covariances that do not commute, small enough for the walls of the box not to matter, on
# finer and finer grids with $K=N/2$ time slabs; a tighter tolerance than the default, since the error of the grid is what is
# measured.

# %%
means = torch.tensor([[0.36, 0.40], [0.62, 0.58]]).double()
covs = torch.tensor([[[0.0055, 0.0015], [0.0015, 0.0040]], [[0.0040, -0.0012], [-0.0012, 0.0060]]]).double()
laws = [Gaussian(m, c) for m, c in zip(means, covs, strict=True)]
exact = w2_squared(*laws).item()


def on_grid(gaussian, n, sub=4):
    """Cell averages of a density on the n × n grid, of mean 1."""
    axis = torch.as_tensor(centres(n * sub))
    values = gaussian.log_prob(torch.cartesian_prod(axis, axis)).exp().reshape(n, sub, n, sub).mean((1, 3))
    return values / values.mean()


sizes = (16, 24, 32, 48, 64) if full else (16, 24, 32, 48)
errors = {"energy": [], "density": [], "lower bound": []}
cold = {}
for n in sizes:
    options = {"steps": n // 2, "method": "cold", "tol": 2e-4, "max_iterations": 1000}
    result = cold[n] = benamou_brenier.solve(*(on_grid(g, n) for g in laws), **options)
    mccann = torch.stack([on_grid(geodesic(*laws, float(t)), n) for t in result.times])
    errors["energy"].append(abs(result.energy / exact - 1))
    errors["density"].append((result.density - mccann).abs().mean().item())
    errors["lower bound"].append(1 - result.lower / exact)
    residuals.append(result.residual)


def order(sizes, values):
    """Slope of the least squares line of log error against log cell length."""
    return -np.polyfit(np.log(sizes), np.log(values), 1)[0]


claim("BB-15", order(sizes, errors["energy"]))
claim("BB-16", order(sizes, errors["density"]))
claim("BB-17", order(sizes, errors["lower bound"]))
claim("BB-19", errors["energy"][-1])

# %% [markdown]
# The same for mixtures in one dimension, whose optimal map jumps, against the quantile formula of the cell averages themselves.

# %%
def mixture(n, *components):
    """Cell averages of a mixture of normal densities, given as (weight, mean, standard deviation)."""
    edges = np.arange(n + 1) / n
    density = sum(w * np.diff(ndtr((edges - m) / s)) for w, m, s in components)
    return density / density.mean()


left, right = ((0.6, 0.20, 0.05), (0.4, 0.45, 0.06)), ((0.3, 0.40, 0.04), (0.3, 0.60, 0.05), (0.4, 0.82, 0.05))
sizes_1d = (32, 64, 128, 256)
errors["energy, mixtures in 1-D"] = []
for n in sizes_1d:
    mu, nu = mixture(n, *left), mixture(n, *right)
    result = benamou_brenier.solve(mu, nu, steps=n // 4, method="cold", tol=2e-4, max_iterations=1000)
    errors["energy, mixtures in 1-D"].append(abs(result.energy / w2_squared_1d(mu, nu) - 1))
    residuals.append(result.residual)
claim("BB-18", order(sizes_1d, errors["energy, mixtures in 1-D"]))

# %%
fig, ax = plt.subplots(figsize=(6.2, 3.6))
marks = {"energy": "o", "density": "s", "lower bound": "v", "energy, mixtures in 1-D": "^"}
for (name, values), role in zip(errors.items(), ("optimal", "first", "second", "independent"), strict=True):
    at = sizes_1d if "1-D" in name else sizes
    ax.loglog(at, values, marker=marks[name], color=ROLES[role], label=f"{name} (order {order(at, values):.1f})")
ax.set(xlabel="cells along an axis, $N$", ylabel="relative error (density: L1)")
ax.set_title("The solver converges to what it does not know")
ax.set_xticks(sizes_1d + (16,), [str(n) for n in sizes_1d + (16,)])
ax.minorticks_off()
ax.legend(loc="upper right", fontsize=8.5)
alt = (
    "Four falling lines on logarithmic axes: errors of energy, density and lower bound of the cold solver against the "
    "number of cells."
)
show(fig, "orders", alt=alt)

# %% [markdown]
# The density found from the linear path (shades), with the contours of the exact McCann interpolation at 10, 50 and 90 % of its
# maximum:

# %%
n = sizes[-1]
result = cold[n]
fig, axes = plt.subplots(1, 5, figsize=(10, 2.8), sharey=True)
for ax, k in zip(axes, np.linspace(0, len(result.times) - 1, 5).round().astype(int), strict=True):
    ax.imshow(result.density[k].T, origin="lower", extent=(0, 1, 0, 1), cmap="Blues")
    reference = on_grid(geodesic(*laws, float(result.times[k])), n)
    levels = reference.max().item() * np.array([0.1, 0.5, 0.9])
    ax.contour(centres(n), centres(n), reference.T, levels=levels, colors=ROLES["second"], linewidths=0.9)
    ax.set(title=f"t = {result.times[k]:.2f}", xticks=[0, 1], yticks=[0, 1], xlabel="$x_1$")
axes[0].set(ylabel="$x_2$")
alt = "A blob moves and turns through five pictures; the level lines of the exact interpolation lie on its shades."
show(fig, "cold_gaussians", alt=alt)

# %% [markdown]
# *Check.* The weak form of [proofs/01](01_continuity_equation.ipynb) holds for the grid pair, with the slabs' midpoints as
# quadrature in time and the cells as quadrature in space; and the *lifted* solver, which starts from a static potential,
# arrives at the same energy.

# %%
nodes = (result.times[1:] + result.times[:-1]) / 2, result.times.diff()


def cosines(t, x):
    return torch.cos(math.pi * x[:, 0]) * torch.cos(2 * math.pi * x[:, 1]) * (1 + t)


claim("BB-21", weak_residual(result.measure, result.velocity_at, cosines, times=nodes))
lifted = benamou_brenier.solve(*(on_grid(g, n) for g in laws), steps=n // 2)
residuals.append(lifted.residual)
claim("BB-22", abs(lifted.energy / result.energy - 1))

# %% [markdown]
# ### 4.4 The bracket against iterations
#
# A positive mixture in two dimensions. The energy of the admissible pair comes down,
# the certified bounds close in from both sides, and a static value on a grid four times finer lies between them at every moment:
# a solver that is stopped early returns a wider bracket, never a wrong one. (The first iteration on this grid is good already,
# because the coarser grids come before it. What is left at the end is the error of the grid: the bounds are for the piecewise
# constant data.) The upper end of the bracket is the exact energy of the admissible pair.
#
# **Trap.** `energy` is that of the midpoint rule: close, but no bound. It can lie below $W_2^2$ and seem to refute the theorem (for
# the digits of [the story](../02_benamou_brenier.ipynb), section 4, it is less than a proved lower bound); so it is not drawn.

# %%
def plane_mixture(n, *components):
    """Cell averages of 0.2 + 0.8 × a mixture of products of two normal densities, (weight, means, deviations)."""
    edges = np.arange(n + 1) / n
    parts = [
        w * np.outer(*(np.diff(ndtr((edges - m) / s)) * n for m, s in zip(mean, deviations, strict=True)))
        for w, mean, deviations in components
    ]
    density = sum(parts)
    return 0.2 + 0.8 * density / density.mean()


first = ((0.5, (0.25, 0.30), (0.07, 0.07)), (0.5, (0.30, 0.70), (0.06, 0.09)))
second = ((0.3, (0.70, 0.20), (0.06, 0.06)), (0.4, (0.75, 0.55), (0.07, 0.06)), (0.3, (0.60, 0.80), (0.08, 0.06)))
n = 64 if full else 40
mu, nu = plane_mixture(n, *first), plane_mixture(n, *second)
truth = back_and_forth.solve(plane_mixture(4 * n, *first), plane_mixture(4 * n, *second)).w2_squared
stops = (1, 2, 4, 8, 16, 32, 64, 128)
brackets = []
for iterations in stops:
    result = benamou_brenier.solve(mu, nu, steps=n // 2, method="cold", max_iterations=iterations, tol=1e-6)
    brackets.append((result.lower, result.upper))
    residuals.append(result.residual)
lower, upper = np.array(brackets).T
claim("BB-23", largest((lower - truth).max(), (truth - upper).max()))
claim("BB-24", (upper[-1] - lower[-1]) / upper[-1])

# %%
fig, ax = plt.subplots(figsize=(6.2, 3.4))
ax.fill_between(stops, lower, upper, color=ROLES["optimal"], alpha=0.2, label="certified bracket")
ax.plot(stops, upper, "o-", color=ROLES["optimal"], label="exact energy of the admissible pair")
ax.plot(stops, lower, "v-", color=ROLES["optimal"], label="value of the potentials")
ax.axhline(truth, color=ROLES["truth"], linewidth=1.2, linestyle="--", label=f"static value on a {4 * n}² grid")
ax.set(xscale="log", xlabel="iterations on the finest grid", ylabel="$W_2^2$")
ax.set_title("Stopped early, the bracket is wide, never wrong")
ax.set_xticks(stops, [str(s) for s in stops])
ax.minorticks_off()
ax.legend()
alt = "A band between a falling and a rising curve, and a dashed line that stays inside from the first iteration on."
show(fig, "bracket", alt=alt)

# %% [markdown]
# ### 4.5 Real images
#
# An image with non-negative values is a density. **Digits**: two handwritten digits of the UCI collection (8 × 8 pixels,
# enlarged). Their background is vacuum, so that nothing can be certified from above; the density is reported to stay above −1 %
# of its maximum. (The film: [the story](../02_benamou_brenier.ipynb), section 1.)

# %%
n = 64 if full else 48
result = benamou_brenier.solve(digit_density(4, n), digit_density(7, n), steps=n // 2)
residuals.append(result.residual)
say(f"W2 between the digits: {math.sqrt(result.energy):.3f} of the side of the picture")
claim("BB-25", result.min_density)

# %% [markdown]
# **Photographs.** The luminance (linear light, ITU-R BT.709 weights) of two photographs, normalised to equal mass. These
# densities are positive: the bracket is finite, and the density of the returned path vanishes nowhere.

# %%
pair = [luminance(image) for image in photographs(size=(96, 144) if full else (48, 72))]
result = benamou_brenier.solve(*pair, steps=32 if full else 20)
residuals.append(result.residual)
say(f"certified bracket of W2: {math.sqrt(result.lower):.3f} to {math.sqrt(result.upper):.3f}")
claim("BB-26", result.min_density)
claim("BB-27", result.gap)

# %%
fig, axes = plt.subplots(2, 3, figsize=(9.6, 4.7))
height, width = result.density.shape[1:]
rows, columns = (torch.linspace(0, m, k + 2)[1:-1].long() for m, k in ((height, 4), (width, 7)))
i, j = (index.flatten() for index in torch.meshgrid(rows, columns, indexing="ij"))
for ax, k in zip(axes.flat, np.linspace(0, len(result.times) - 1, 6).round().astype(int), strict=True):
    # A root, so that dark parts show; rows are the first axis of the solver and run downwards in the picture.
    ax.imshow((result.density[k] / result.density.max()).sqrt(), cmap="gray", vmin=0, vmax=1)
    rest = (1 - result.times[k]) * result.velocity[min(k, len(result.velocity) - 1)][:, i, j]
    arrows = {"angles": "xy", "scale_units": "xy", "color": ROLES["optimal"], "width": 0.008}
    if k < len(result.times) - 1:  # where the light is going: an arrow ends where its start will end
        ax.quiver(j, i, rest[1] * width, rest[0] * height, scale=1, **arrows)
    ax.set(title=f"t = {result.times[k]:.2f}", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
alt = (
    "Six pictures: the light of a temple under a bright sky flows into the petals of a flower, arrows show how far it "
    "has to go."
)
show(fig, "photographs", alt=alt, photograph=CREDIT)

# %% [markdown]
# ## 5. Obstacles, and mass that may grow
#
# *Idea: the competitors may be restricted, or be allowed a source; the projection changes, the solver does not.*
#
# ### 5.1 A maze
#
# The competitors may be restricted: no momentum may cross a wall. On the free cells the Poisson problem of the projection is no
# longer diagonal in cosines, but it still is in time; for each time frequency a sparse factorisation in space is computed once.
# So the walls are honoured exactly: there is no mass inside them and no flux through them. Of the two ways round the mass takes
# the shorter one: crowding costs nothing, since the particles of optimal transport ignore each other. (The film: [the
# story](../02_benamou_brenier.ipynb), section 5.)

# %%
here, there, mask = maze()
result = benamou_brenier.solve(here, there, steps=24, method="cold", mask=mask)
residuals.append(result.residual)
distance = 0.88 * math.sqrt(2)
print(f"root of the energy {math.sqrt(result.energy):.2f}, straight distance {distance:.2f}, converged: {result.converged}")
claim("BB-28", result.density[:, mask].abs().max())
claim("BB-29", math.sqrt(result.energy) / distance)

# %% [markdown]
# ### 5.2 Unequal masses
#
# With a source, $\partial_t\rho+\operatorname{div}m=\kappa\rho$, and the cost
# $\int\!\int|m|^2/\rho+\delta^2\kappa^2\rho$,
# mass may be moved or grown (Wasserstein–Fisher–Rao). The length $\delta$ sets the price of growth: mass never travels farther
# than $\pi\delta$.
#
# **Proposition 6.** The least cost between masses $M_0,M_1$ with densities $\alpha,\beta$ lies between
# $4\delta^2(\sqrt{M_1}-\sqrt{M_0})^2$ and $4\delta^2\int(\sqrt\beta-\sqrt\alpha)^2dx$; for proportional densities both are equal.
#
# *Proof.* If only growth happens, $\rho_t(x)$ minimises
# $\delta^2\int(\partial_t\rho)^2/\rho\,dt=4\delta^2\int(\partial_t\sqrt\rho)^2dt$, which is
# $4\delta^2(\sqrt{\beta}-\sqrt{\alpha})^2$ at each point. Summed over points it is an upper bound (Hellinger). With the total
# mass $M_t$: $|\dot M|=|\int\kappa\rho|\le\bigl(\int\kappa^2\rho\bigr)^{1/2}M_t^{1/2}$, so the cost is at least
# $\delta^2\int\dot M^2/M\,dt\ge4\delta^2(\sqrt{M_1}-\sqrt{M_0})^2$, with equality for proportional densities. $\square$

# %%
length = 0.1
n = 48 if full else 32


def blob(row, column):
    return np.exp(-((centres(n)[:, None] - row) ** 2 + (centres(n)[None] - column) ** 2) / (2 * 0.08**2))


mu = blob(0.3, 0.25) + blob(0.7, 0.25) + 0.02
nu = 0.4 * blob(0.3, 0.45) + 1.8 * blob(0.7, 0.75) + 0.02
mu, nu = 1.5 * mu / nu.mean(), 1.5 * nu / nu.mean()
grown = benamou_brenier.solve(mu, 2.5 * mu, steps=16, method="cold", growth_length=length)
claim("BB-30", abs(grown.energy / (4 * length**2 * (math.sqrt(2.5) - 1) ** 2 * mu.mean()) - 1))
unbalanced = benamou_brenier.solve(mu, nu, steps=24, method="cold", growth_length=length)
residuals += [grown.residual, unbalanced.residual]
least = 4 * length**2 * (math.sqrt(nu.mean()) - math.sqrt(mu.mean())) ** 2
most = 4 * length**2 * ((np.sqrt(nu) - np.sqrt(mu)) ** 2).mean()
claim("BB-31", largest(least - unbalanced.energy, unbalanced.energy - most))
balanced = benamou_brenier.solve(mu / mu.mean(), nu / nu.mean(), steps=24)
residuals.append(balanced.residual)
claim("BB-20", largest(residuals))

# %% [markdown]
# In [the story](../02_benamou_brenier.ipynb), section 5, the balanced and the unbalanced film stand one above the other. With
# fixed masses the upper blob must send part of its mass across to the lower right. With growth it only shifts (by 0.2, less
# than $\pi\delta=0.31$) and shrinks; the lower blob would have to travel 0.5, so it fades where it is while another grows at
# the target, and the total mass dips on the way.
#
# **Where to go on.** [proofs/03](03_flow_matching.ipynb) gives up optimality for paths that are easy to sample;
# [proofs/05](05_am_ot_equivalence.ipynb) shows that action matching with optimal vector fields is the dual of this problem. The
# times, accuracies and memory of the solver stand in [10_benchmarks](../10_benchmarks.ipynb).
