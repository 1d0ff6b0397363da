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
# **Text covered.** The lecture notes *Dynamic Optimal Transport and Flow Matching* (2025-11-05): the summary, the energy of
# McCann's interpolation in *Dynamical Formulation*, and the section *Benamou–Brenier*.
#
# **What you will see.** Both directions of the theorem. The two inequalities of its proof turned into two numbers, computed for
# four competitors. A gap in the proof of the notes, and both ways to close it. Then the theorem as an algorithm: a solver on a
# grid that never sees a transport map and finds the Wasserstein distance and McCann's interpolation all the same, with a bracket
# for the distance that is proved, not estimated. At the end: digits, photographs, a maze, and mass that may grow. What is marked
# **(ours)** is not in the notes.
#
# **Prerequisites.** Notebook 01 (continuity equation, flows, McCann's interpolation) and Kantorovich duality as a fact.
# **Running time.** About a minute on one thread (preset `quick`).

# %% tags=["parameters"]
preset = "quick"
seed = 0

# %%
import math

import numpy as np
import torch
from matplotlib import pyplot as plt
from PIL import Image
from scipy.linalg import sqrtm
from scipy.special import ndtr
from sklearn.datasets import load_digits

from dynot_lite.grids import back_and_forth, benamou_brenier
from dynot_lite.companion import claim, say, show, start
from dynot_lite.companion.ledger import run_dir
from dynot_lite.paths.continuity import gauss_legendre, kinetic_energy, strong_residual, weak_residual
from dynot_lite.datasets.images import CREDIT, photographs
from dynot_lite.laws.gaussian import Affine, Gaussian, fm_flow, fm_velocity, geodesic, monge_map, w2_squared
from dynot_lite.plots import COLOURS

start("proofs/02_benamou_brenier", preset=preset, seed=seed)
full = preset == "full"
rng = np.random.default_rng(seed)

# %% [markdown]
# ## 1. The statement, and the easy direction
#
# Let $\alpha,\beta$ be probability measures on $\mathbb R^d$ with finite second moments, and $\mathcal V(\alpha,\beta)$ the set
# of pairs $(\mu_t,v_t)$ that solve the continuity equation $\partial_t\mu+\operatorname{div}(\mu v)=0$ with $\mu_0=\alpha$ and
# $\mu_1=\beta$ (for narrowly continuous $\mu$ with $\int_0^1\!\int|v_t|\,d\mu_t\,dt<\infty$; see the erratum in notebook 01).
#
# **Theorem (Benamou–Brenier).**
#
# $$
# W_2^2(\alpha,\beta)=\min_{(\mu,v)\in\mathcal V(\alpha,\beta)}\int_0^1\!\!\int|v_t(x)|^2\,d\mu_t(x)\,dt ,
# $$
#
# and if $\alpha$ is absolutely continuous, McCann's pair $\mu_t=(T_t)_\#\alpha$, $v_t=(T-\mathrm{Id})\circ T_t^{-1}$ with
# $T_t=(1-t)\mathrm{Id}+tT$ is the only minimiser.
#
# > **Erratum.** The notes write an infimum and call McCann's interpolation "the solution". The infimum is attained, so it is a
# > minimum. The hypothesis $\alpha\ll\lambda^d$ is needed for the map $T$ and for uniqueness, not for the formula.
#
# **The direction $\ge$: some pair has the energy $W_2^2$.** McCann's pair lies in $\mathcal V(\alpha,\beta)$ (proved in notebook
# 01). Since $v_t\circ T_t=T-\mathrm{Id}$ holds $\alpha$-almost everywhere for $t<1$,
#
# $$
# \int_0^1\!\!\int|v_t|^2\,d\mu_t\,dt=\int_0^1\!\!\int|v_t\circ
# T_t|^2\,d\alpha\,dt=\int|T(x)-x|^2\,d\alpha(x)=W_2^2(\alpha,\beta).
# $$
#
# The cell evaluates the left side by Gauss–Hermite nodes of $\mu_t$ and Gauss–Legendre nodes in time, and the right side by the
# Bures formula, for two Gaussians with means and covariances that do not commute.

# %%
A, B = torch.tensor([[2.0, 0.6], [0.6, 1.0]]).double(), torch.tensor([[1.0, -0.5], [-0.5, 3.0]]).double()
p, q = Gaussian(torch.tensor([0.3, -1.0]).double(), A), Gaussian(torch.tensor([1.5, 0.7]).double(), B)


def mccann_velocity(source, target):
    """The velocity (T − Id)∘T_t⁻¹ of McCann's interpolation between two Gaussians."""
    transport, identity = monge_map(source, target), torch.eye(source.dim).double()

    def velocity(t, x):
        matrix = (1 - t) * identity + t * transport.matrix
        start_point = torch.linalg.solve(matrix, (x - t * transport.offset).T).T
        return transport(start_point) - start_point

    return velocity


def law(path, order=20):
    """The path of measures t -> (points, weights) for a path of Gaussians."""
    return lambda t: path(t).quadrature(order)


velocity = mccann_velocity(p, q)
energy = kinetic_energy(law(lambda t: geodesic(p, q, t)), velocity)
claim("BB-1", abs(energy - w2_squared(p, q).item()))


def psi(t, x):
    return torch.sin(1.3 * t + x[:, 0]) * torch.cos(0.4 * x.sum(-1))


claim("BB-2", weak_residual(law(lambda t: geodesic(p, q, t), 40), velocity, psi))

# %% [markdown]
# ## 2. The other direction: two inequalities, two numbers
#
# Let $(\mu,v)\in\mathcal V(\alpha,\beta)$ and suppose for now that $v$ has a flow $\varphi_t$ with $\mu_t=(\varphi_t)_\#\alpha$.
# The notes argue
#
# $$
# \int_0^1\!\!\int|v_t|^2d\mu_t\,dt=\int\!\int_0^1|\partial_t\varphi_t|^2dt\,d\alpha
# \;\overset{\text{Jensen}}\ge\;\int|\varphi_1(x)-x|^2d\alpha\;\overset{\varphi_{1\#}\alpha=\beta}\ge\;W_2^2(\alpha,\beta).
# $$
#
# Both steps are equalities with a remainder **(ours)**. For a path $\gamma$ with mean velocity $\gamma(1)-\gamma(0)$, expanding
# the square gives $\int_0^1|\dot\gamma|^2=|\gamma(1)-\gamma(0)|^2+\int_0^1|\dot\gamma-(\gamma(1)-\gamma(0))|^2$. Hence
#
# $$
# \int_0^1\!\!\int|v_t|^2d\mu_t\,dt=W_2^2+J+C,\qquad
# J=\int\!\int_0^1\bigl|\partial_t\varphi_t-(\varphi_1-\mathrm{Id})\bigr|^2dt\,d\alpha\ge0,\qquad
# C=\int|\varphi_1-\mathrm{Id}|^2d\alpha-W_2^2\ge0 .
# $$
#
# *Jensen's defect* $J$ is the variance of the velocity along the trajectories: it vanishes if and only if almost every particle
# moves on a straight line at constant speed. The *defect of the coupling* $C$ vanishes if and only if $\varphi_1$ is an optimal
# map. Both vanish only for McCann's pair. Four competitors between the centred laws $\mathcal N(0,A)$ and $\mathcal N(0,B)$, with
# $F=\operatorname{tr}(A^{1/2}BA^{1/2})^{1/2}$, the geometric mean $A\#B=A^{1/2}(A^{-1/2}BA^{-1/2})^{1/2}A^{1/2}$ and
# $W_2^2=\operatorname{tr}A+\operatorname{tr}B-2F$:
#
# - **McCann**: $J=C=0$.
# - **Flow matching** with independent ends: $v_t(x)=\mathbb E[X_1-X_0\mid X_t=x]$. Its energy is
#   $\operatorname{tr}A+\operatorname{tr}B-\frac\pi2\operatorname{tr}(A\#B)$ (proof: write $A=LL^\top$, $B=LDL^\top$ with diagonal
#   $D$; the energy splits into $\int_0^1\frac{(d_i')^2}{4d_i}dt$ with $d_i=(1-t)^2+t^2D_{ii}$, which is
#   $1+D_{ii}-\frac\pi2\sqrt{D_{ii}}$, and $LD^{1/2}L^\top=A\#B$). The excess is $2F-\frac\pi2\operatorname{tr}(A\#B)$.
# - **A rotated detour** **(ours)**: $X_t=R_{\theta(t)}Y_t$ with McCann's $Y_t$ and the rotation by $\theta(t)=a\sin\pi t$, which
#   is back at 0 when $t=1$. With the generator $K$ of rotations, $|\dot X|^2=|\theta'KY+\dot Y|^2$. The mixed term is
#   $2\theta'\,\mathbb E\langle KY_t,\dot Y_t\rangle$; the antisymmetric part of $\mathbb E[Y_t\dot Y_t^\top]=(I+t(T-I))A(T-I)$
#   does not depend on $t$, so it integrates to a multiple of $\int_0^1\theta'=0$. What remains is
#   $\int_0^1\theta'^2\,\mathbb E|Y_t|^2dt$
#   $=a^2\pi^2\bigl[(\frac16+\frac1{4\pi^2})(\operatorname{tr}A+\operatorname{tr}B)+2(\frac1{12}-\frac1{4\pi^2})F\bigr]$.
# - **A re-clocked geodesic**: $\mu_{s(t)}$ with $s=t^2$ has the energy $W_2^2\int_0^1\dot s^2dt=\frac43W_2^2$.

# %%
c0, c1 = Gaussian(torch.zeros(2).double(), A), Gaussian(torch.zeros(2).double(), B)
exact = w2_squared(c0, c1).item()
map_, straight = monge_map(c0, c1).matrix, mccann_velocity(c0, c1)
generator = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).double()
a = 0.25
identity = torch.eye(2).double()


def rotation(t):
    return torch.linalg.matrix_exp(a * math.sin(math.pi * t) * generator)


def rotated_velocity(t, x):
    spin = a * math.pi * math.cos(math.pi * t)
    return spin * x @ generator.T + straight(t, x @ rotation(t)) @ rotation(t).T


def rotated_law(t):
    cov = geodesic(c0, c1, t).cov
    return Gaussian(torch.zeros(2).double(), rotation(t) @ cov @ rotation(t).T)


# name: path of laws, velocity, matrix of the flow at time t
competitors = {
    "McCann": (lambda t: geodesic(c0, c1, t), straight, lambda t: (1 - t) * identity + t * map_),
    "flow matching": (
        lambda t: Gaussian(torch.zeros(2).double(), (1 - t) ** 2 * A + t**2 * B),
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
# The energy is integrated over the laws $\mu_t$, Jensen's defect along the trajectories $t\mapsto\varphi_t(x)$, and $C$ at the
# end of the flow: three computations that share nothing but the velocity.

# %%
x, weights = c0.quadrature(4)  # exact for quadratic functions of affine maps
defects = {}
for name, (path, v, flow) in competitors.items():
    total = kinetic_energy(law(path, 4), v, times=32)
    move = x @ flow(1.0).T - x
    jensen = sum(
        w * (weights @ (v(t, x @ flow(t).T) - move).square().sum(1))
        for t, w in zip(*(n.tolist() for n in gauss_legendre(32)), strict=True)
    ).item()
    coupling = (weights @ move.square().sum(1)).item() - exact
    defects[name] = (total, jensen, coupling)
    print(f"{name:15s} energy {total:.4f} = W2² {exact:.4f} + J {jensen + 0.0:.4f} + C {abs(coupling):.4f}")
claim("BB-3", max(abs(total - exact - j - c) for total, j, c in defects.values()))

root = sqrtm(A.numpy()).real
inverse = np.linalg.inv(root)
fidelity = np.trace(sqrtm(root @ B.numpy() @ root).real)
geometric = np.trace(root @ sqrtm(inverse @ B.numpy() @ inverse).real @ root)
traces = (A.trace() + B.trace()).item()
claim("BB-4", abs(defects["flow matching"][0] - exact - (2 * fidelity - math.pi / 2 * geometric)))
bracket = (1 / 6 + 1 / (4 * math.pi**2)) * traces + 2 * (1 / 12 - 1 / (4 * math.pi**2)) * fidelity
claim("BB-5", abs(defects["rotated detour"][0] - exact - (a * math.pi) ** 2 * bracket))
claim("BB-6", abs(defects["clock t²"][0] - 4 / 3 * exact))
claim("BB-7", defects["flow matching"][0] - exact)
claim("BB-8", min(min(j, c) for _, j, c in defects.values()))

# %%
fig, ax = plt.subplots(figsize=(6.4, 2.8))
names = list(defects)
jensen, coupling = (np.maximum([defects[n][k] for n in names], 0) for k in (1, 2))
ax.barh(names, [exact] * len(names), color=COLOURS["grey"], label="$W_2^2$")
ax.barh(names, jensen, left=exact, color=COLOURS["blue"], label="Jensen's defect $J$")
ax.barh(names, coupling, left=exact + jensen, color=COLOURS["vermilion"], label="defect of the coupling $C$")
ax.axvline(exact, color="black", linewidth=0.8)
ax.set(xlabel="energy $\\int_0^1\\int |v_t|^2 d\\mu_t\\,dt$")
ax.invert_yaxis()
ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
show(fig, "competitors", alt="Energies of four competitors split into the squared Wasserstein distance and the two defects")

# %% [markdown]
# Flow matching loses little by its coupling (0.0141, too thin to see) and much by its curved trajectories; the other two end at
# the optimal map and lose by Jensen only.
#
# ## 3. A gap in the proof, and two repairs
#
# > **Erratum.** The proof applies the "main theorem" of the notes to an *arbitrary* pair of $\mathcal V(\alpha,\beta)$: it writes
# > $\mu_t$ as the push-forward of $\alpha$ by the flow of $v$. A competitor of finite energy need not be Lipschitz, nor bounded,
# > and need not have a flow.
#
# **Example (ours).** $X_0\sim\mathcal N(0,1)$ and $X_t=(1-2t)X_0$. All particles meet at the origin when $t=\frac12$. The pair
# $\mu_t=\mathcal N(0,(1-2t)^2)$, $v_t(x)=-2x/(1-2t)$ solves the continuity equation and has the energy
# $\int_0^1(1-2t)^2\cdot4/(1-2t)^2\,dt=4$, but the slope of $v_t$ is unbounded and the flow ends at $t=\frac12$.

# %%
def crossing_velocity(t, x):
    return -2 * x / (1 - 2 * t)


point = torch.tensor([[0.0]], dtype=torch.float64, requires_grad=True)
claim("BB-9", torch.autograd.grad(crossing_velocity(0.4999, point).sum(), point)[0].abs().item())

# %% [markdown]
# **Repair A: superposition** (Ambrosio, Gigli and Savaré, Theorem 8.2.1). If $(\mu,v)$ solves the continuity equation with finite
# energy, there is a probability $\eta$ on absolutely continuous paths such that $\gamma(t)$ has the law $\mu_t$ when
# $\gamma\sim\eta$, and $\dot\gamma(t)=v_t(\gamma(t))$ for almost every $t$, $\eta$-almost surely. Trajectories may cross or
# branch; no flow is needed. Then
#
# $$
# \int_0^1\!\!\int|v_t|^2d\mu_t\,dt=\int\!\int_0^1|\dot\gamma|^2dt\,d\eta(\gamma)\ge\int|\gamma(1)-\gamma(0)|^2d\eta(\gamma)\ge
# W_2^2(\alpha,\beta),
# $$
#
# because the law of $(\gamma(0),\gamma(1))$ under $\eta$ is a coupling of $\alpha$ and $\beta$. In the example $\eta$ lives on
# the lines $t\mapsto(1-2t)x$, and both sides of the first equality are 4. (So is the second expression; only $W_2^2=0$ is
# smaller.)
#
# **Equality.** If the energy is $W_2^2$, Jensen's inequality is an equality, so $\eta$-almost every path is straight with
# constant speed, and $(\gamma(0),\gamma(1))$ is an optimal coupling; for $\alpha\ll\lambda^d$ it is $(\mathrm{Id},T)_\#\alpha$,
# and $\mu$ is McCann's interpolation. As $T_t$ is injective for $t<1$, $v_t\circ T_t=T-\mathrm{Id}$ determines $v_t$
# $\mu_t$-almost everywhere. This proves uniqueness.

# %%
normal, line_weights = Gaussian(torch.zeros(1).double(), torch.eye(1).double()).quadrature(30)
shrinking = law(lambda t: Gaussian(torch.zeros(1).double(), torch.eye(1).double() * (1 - 2 * t) ** 2))
eulerian = kinetic_energy(shrinking, crossing_velocity)
lines = (line_weights @ ((-2 * normal) ** 2).sum(1)).item()  # each path has the constant velocity −2x
claim("BB-10", abs(eulerian - lines))

# %% [markdown]
# **Repair B: mollification.** Let $g_\varepsilon$ be the density of $\mathcal N(0,\varepsilon I)$ and
# $\mu^\varepsilon_t=\mu_t*g_\varepsilon$, $v^\varepsilon_t=\dfrac{(v_t\mu_t)*g_\varepsilon}{\mu^\varepsilon_t}$.
#
# 1. *It solves the continuity equation*, because convolution commutes with $\partial_t$ and $\operatorname{div}$.
# 2. *It is locally Lipschitz in $x$*: on a ball $B$, $\mu^\varepsilon_t\ge c_B>0$ at all times ($t\mapsto\mu_t$ is narrowly
#   continuous, hence tight), and $(v_t\mu_t)*g_\varepsilon$ and its derivatives are at most $C_\varepsilon\int|v_t|d\mu_t$; so
#   $\sup_B|v^\varepsilon_t|+\mathrm{Lip}(v^\varepsilon_t,B)$ is integrable in $t$. This alone gives no flow up to time 1:
#   $v=x^2$ is smooth, and its particles run to infinity (notebook 01). The finite energy, by step 3, forbids it:
#   $\int_0^1\!\int|v^\varepsilon_t|d\mu^\varepsilon_tdt<\infty$, so that $\mu^\varepsilon_0$-almost every line has a finite
#   length, exists up to time 1, and $\mu^\varepsilon_t=(\varphi_t)_\#\mu^\varepsilon_0$ (Ambrosio, Gigli and Savaré,
#   Proposition 8.1.8). So the argument of the notes applies to it.
# 3. *It costs no more*: $(m,\rho)\mapsto|m|^2/\rho$ is jointly convex and 1-homogeneous, so Jensen gives
#    $|v^\varepsilon_t|^2\mu^\varepsilon_t\le(|v_t|^2\mu_t)*g_\varepsilon$ at every point; integrate over $x$.
# 4. *Limit*: $W_2(\alpha*g_\varepsilon,\beta*g_\varepsilon)\to W_2(\alpha,\beta)$ since
#   $W_2(\alpha*g_\varepsilon,\alpha)\le\sqrt{\varepsilon d}$. Hence
#   $W_2^2(\alpha,\beta)=\lim W_2^2(\mu^\varepsilon_0,\mu^\varepsilon_1)$, which is at most
#   $\liminf\int\!\int|v^\varepsilon|^2d\mu^\varepsilon dt\le\int\!\int|v|^2d\mu\,dt$. $\square$
#
# In the example, with $s=1-2t$: $\mu^\varepsilon_t=\mathcal N(0,s^2+\varepsilon)$, $v^\varepsilon_t(x)=-2sx/(s^2+\varepsilon)$,
# of slope at most $1/\sqrt\varepsilon$, and the energy is
# $\int_0^1\frac{4s^2}{s^2+\varepsilon}dt=4\bigl(1-\sqrt\varepsilon\arctan\frac1{\sqrt\varepsilon}\bigr)<4$. Its flow is
# $\varphi_t(x)=x\sqrt{(s^2+\varepsilon)/(1+\varepsilon)}$: the mollified particles do not cross, they turn back, and
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
        strong = max(strong, strong_residual(density, smooth_velocity, t, grid_points).abs().max().item())
    mollified = law(lambda t, eps=eps: Gaussian(torch.zeros(1).double(), torch.eye(1).double() * ((1 - 2 * t) ** 2 + eps)))
    energies.append(kinetic_energy(mollified, smooth_velocity, times=400))
    closed = max(closed, abs(energies[-1] - 4 * (1 - math.sqrt(eps) * math.atan(1 / math.sqrt(eps)))))
claim("BB-11", strong)
claim("BB-12", closed)
claim("BB-13", max(energies) - 4)

# %%
fig, axes = plt.subplots(1, 2, figsize=(8.2, 2.9), sharey=True)
t = np.linspace(0, 1, 301)
for start_point in np.linspace(-1.8, 1.8, 9):
    axes[0].plot(t, (1 - 2 * t) * start_point, color=COLOURS["grey"], linewidth=1)
    axes[1].plot(t, start_point * np.sqrt(((1 - 2 * t) ** 2 + 0.03) / 1.03), color=COLOURS["blue"], linewidth=1)
axes[0].set(xlabel="time", ylabel="position", title="a law on crossing lines (superposition)")
axes[1].set(xlabel="time", title="flow of the mollified field, $\\varepsilon=0.03$")
show(fig, "crossing", alt="Crossing lines of the superposition and the non-crossing flow of the mollified velocity")

# %% [markdown]
# ## 4. The theorem as an algorithm
#
# In the variables $(\rho,m)=(\rho,\rho v)$ the problem is convex: minimise $\int\!\int|m|^2/\rho$ subject to the linear
# constraint $\partial_t\rho+\operatorname{div}m=0$, $\rho_0=\mu$, $\rho_1=\nu$. `benamou_brenier.solve` discretises it on
# space-time cells, with the density on time faces and each component of $m$ on the space faces across its axis, so that the
# divergence is exact in each cell. With `method="cold"` it starts from the linear path $(1-t)\mu+t\nu$ and knows nothing of
# transport maps, potentials or geodesics: what it finds is evidence for the theorem.
#
# **What is returned is admissible.** A last projection in float64 makes the continuity equation hold to rounding; then
# neighbouring times are averaged, which keeps the pair admissible with the same ends (averages of solutions are solutions) and
# removes a mode that alternates in time and that the discrete energy does not see.
#
# **A bracket that is proved (ours).** Let $\mu,\nu$ be constant on cells of length $h$.
#
# - *Upper bound.* Read the pair as the field with density constant in a cell and linear in time, and momentum linear across a
#   cell. It solves the continuity equation exactly, so its exact energy is at least $W_2^2$: it is a competitor of the theorem.
#   In a cell with face values $l,u$ and densities $\rho_0,\rho_1$ at the ends of a slab the energy is
#   $\frac{l^2+lu+u^2}3\cdot\frac{\log(\rho_1/\rho_0)}{\rho_1-\rho_0}$ per unit of volume and time. It needs $\rho>0$.
# - *Lower bound.* Let $f,g$ be values on the corners of the grid with $f_a+g_b\le\frac12|x_a-y_b|^2$. Put $u=\frac12|x|^2-f$ and
#   $v=\frac12|y|^2-g$; then $u_a+v_b\ge\langle x_a,y_b\rangle$. Interpolating both sides multilinearly keeps the inequality, and
#   $\langle x,y\rangle$ is its own interpolant. So $u,v$ are admissible in the dual at *all* points, and
#   $W_2^2\ge\int|x|^2d\mu+\int|y|^2d\nu-2\int u\,d\mu-2\int v\,d\nu$. The mean of an interpolant over a cell is the mean of its
#   corners, and that of $\frac12|x|^2$ is $\frac{h^2}{12}$ less per axis than the mean at the corners. With the corner means
#   $\overline f,\overline g$,
#
# $$
# W_2^2\ge2h^d\sum_{\text{cells}}\bigl[\mu\,\overline f+\nu\,\overline g\bigr]-d\,\frac{h^2}3 .
# $$
#
#   No property of the potentials is used, so any solver's potential will do. (The code puts corners at half the cell length as
#   well, for a quarter of the loss.)
#
# Both are tested here on rough random data in one dimension, where $W_2^2=\int_0^1|F_\mu^{-1}-F_\nu^{-1}|^2$ can be integrated
# exactly.

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
    worst = max(worst, result.lower - truth, truth - result.upper)
claim("BB-14", worst)

# %% [markdown]
# **Convergence.** Two Gaussians with covariances that do not commute, small enough for the walls of the box not to matter, on
# finer and finer grids with $K=N/2$ time slabs; a tighter tolerance than the default, since the error of the grid is what is
# measured.

# %%
means = torch.tensor([[0.36, 0.40], [0.62, 0.58]]).double()
covs = torch.tensor([[[0.0055, 0.0015], [0.0015, 0.0040]], [[0.0040, -0.0012], [-0.0012, 0.0060]]]).double()
laws = [Gaussian(m, c) for m, c in zip(means, covs, strict=True)]
exact = w2_squared(*laws).item()


def centres(n):
    return (np.arange(n) + 0.5) / n


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
for (name, values), colour in zip(errors.items(), list(COLOURS.values()), strict=False):
    at = sizes_1d if "1-D" in name else sizes
    ax.loglog(at, values, marker=marks[name], color=colour, label=f"{name} (order {order(at, values):.1f})")
ax.set(xlabel="cells along an axis, $N$", ylabel="relative error (density: L1)")
ax.set_xticks(sizes_1d + (16,), [str(n) for n in sizes_1d + (16,)])
ax.minorticks_off()
ax.legend(loc="upper right", fontsize=8.5)
show(fig, "orders", alt="Errors of the cold solver against the number of cells on logarithmic axes")

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
    ax.contour(centres(n), centres(n), reference.T, levels=levels, colors=COLOURS["vermilion"], linewidths=0.9)
    ax.set(title=f"t = {result.times[k]:.2f}", xticks=[0, 1], yticks=[0, 1], xlabel="$x_1$")
axes[0].set(ylabel="$x_2$")
show(fig, "cold_gaussians", alt="Density of the cold solver at five times with contours of the exact McCann interpolation")

# %% [markdown]
# **The same weak form as in notebook 01** holds for the grid pair, with the slabs' midpoints as quadrature in time and the cells
# as quadrature in space; and the *lifted* solver, which starts from a static potential, arrives at the same energy.

# %%
nodes = (result.times[1:] + result.times[:-1]) / 2, result.times.diff()


def cosines(t, x):
    return torch.cos(math.pi * x[:, 0]) * torch.cos(2 * math.pi * x[:, 1]) * (1 + t)


claim("BB-21", weak_residual(result.measure, result.velocity_at, cosines, times=nodes))
lifted = benamou_brenier.solve(*(on_grid(g, n) for g in laws), steps=n // 2)
residuals.append(lifted.residual)
claim("BB-22", abs(lifted.energy / result.energy - 1))

# %% [markdown]
# **Energy and bracket against iterations.** A positive mixture in two dimensions. The energy of the admissible pair comes down,
# the certified bounds close in from both sides, and a static value on a grid four times finer lies between them at every moment:
# a solver that is stopped early returns a wider bracket, never a wrong one. (The first iteration on this grid is good already,
# because the coarser grids come before it. What is left at the end is the error of the grid: the bounds are for the piecewise
# constant data. The upper end of the bracket is the exact energy of the admissible pair; `energy` is that of the midpoint rule,
# which is close, but no bound: it can lie below $W_2^2$, and is not drawn.)

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
claim("BB-23", max((lower - truth).max(), (truth - upper).max()))
claim("BB-24", (upper[-1] - lower[-1]) / upper[-1])

# %%
fig, ax = plt.subplots(figsize=(6.2, 3.4))
ax.fill_between(stops, lower, upper, color=COLOURS["sky"], alpha=0.3, label="certified bracket")
ax.plot(stops, upper, "o-", color=COLOURS["blue"], label="its upper end: the energy of the admissible pair")
ax.axhline(truth, color="black", linewidth=0.9, linestyle="--", label=f"static value on a {4 * n}² grid")
ax.set(xscale="log", xlabel="iterations on the finest grid", ylabel="$W_2^2$")
ax.set_xticks(stops, [str(s) for s in stops])
ax.minorticks_off()
ax.legend()
show(fig, "bracket", alt="Energy and certified bounds of the cold solver against the number of iterations")

# %% [markdown]
# ## 5. Real images
#
# An image with non-negative values is a density. **Digits**: two handwritten digits of the UCI collection (8 × 8 pixels,
# enlarged). Their background is vacuum, so that nothing can be certified from above; the density is reported to stay above −1 %
# of its maximum.

# %%
def enlarge(image, n, pad):
    """Interpolate an image bilinearly to (n − 2 pad)², with a margin, as a density of mean 1."""
    image = torch.as_tensor(image).double()[None, None]
    inner = torch.nn.functional.interpolate(image, size=(n - 2 * pad,) * 2, mode="bilinear", align_corners=False)[0, 0]
    density = np.pad(inner.numpy(), pad)
    return density / density.mean()


def strip(result, name, alt, *, times=6, cmap="gray_r", quiver=10, photograph=""):
    """Show the density at some times, with the velocity where there is mass (one arrow length for all times)."""
    shape = result.density.shape[1:]
    fig, axes = plt.subplots(1, times, figsize=(1.75 * times, 1.75 * shape[0] / shape[1] + 0.45))
    top = result.density.max()
    fastest = math.sqrt(result.energy) * 2
    for ax, k in zip(axes, np.linspace(0, len(result.times) - 1, times).round().astype(int), strict=True):
        ax.imshow(result.density[k], cmap=cmap, vmin=0, vmax=0.8 * top)
        slab = min(k, len(result.velocity) - 1)
        step = max(1, shape[1] // quiver)
        rows, columns = (np.arange(step // 2, m, step) for m in shape)
        i, j = np.meshgrid(rows, columns, indexing="ij")
        heavy = result.density[k][i, j] > 0.1 * top
        v = result.velocity[slab][:, i, j]
        # Rows are the first axis of the solver and run downwards in the picture.
        arrows = {"angles": "xy", "color": COLOURS["vermilion"], "scale": 10 * fastest, "width": 0.012}
        ax.quiver(j[heavy], i[heavy], v[1][heavy], v[0][heavy], **arrows)
        ax.set(title=f"t = {result.times[k]:.2f}", xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    show(fig, name, alt=alt, photograph=photograph)


digits = load_digits().images
n = 64 if full else 48
result = benamou_brenier.solve(enlarge(digits[4], n, n // 8), enlarge(digits[7], n, n // 8), steps=n // 2)
residuals.append(result.residual)
say(f"W2 between the digits: {math.sqrt(result.energy):.3f} of the side of the picture")
claim("BB-25", result.min_density)
strip(result, "digits", "A handwritten four turning into a seven along the geodesic, with the velocity field")

# %% [markdown]
# The morph as an animation: the runner keeps `digits.gif` next to the figures.

# %%
frames = (result.density / np.quantile(result.density, 0.995)).clamp(0, 1).numpy()
pictures = [Image.fromarray(np.uint8(255 * (1 - f))).resize((192, 192), Image.Resampling.BICUBIC) for f in frames]
if folder := run_dir():
    pictures[0].save(
        folder / "digits.gif", save_all=True, append_images=pictures[1:] + pictures[::-1], duration=60, loop=0
    )
say(f"{len(pictures)} frames of {pictures[0].width} × {pictures[0].height} pixels")

# %% [markdown]
# **Photographs.** The luminance (linear light, ITU-R BT.709 weights) of two photographs, normalised to equal mass. These
# densities are positive: the bracket is finite, and the density of the returned path vanishes nowhere.

# %%
def luminance(image):
    """Relative luminance of an sRGB image as a density; 5 % of the mean keeps black pixels positive."""
    linear = torch.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)
    values = (linear @ torch.tensor([0.2126, 0.7152, 0.0722]).double()).numpy()
    return (values / values.mean() + 0.05) / 1.05


pair = [luminance(image) for image in photographs(size=(96, 144) if full else (48, 72))]
result = benamou_brenier.solve(*pair, steps=32 if full else 20)
residuals.append(result.residual)
say(f"certified bracket of W2: {math.sqrt(result.lower):.3f} to {math.sqrt(result.upper):.3f}")
claim("BB-26", result.min_density)
claim("BB-27", result.gap)
alt = "The luminance of a photograph of a temple moving to that of a flower"
strip(result, "photographs", alt, cmap="gray", quiver=12, photograph=CREDIT)

# %% [markdown]
# ## 6. Obstacles, and mass that may grow
#
# **A maze.** The competitors may be restricted: no momentum may cross a wall. On the free cells the Poisson problem of the
# projection is no longer diagonal in cosines, but it still is in time; for each time frequency a sparse factorisation in space is
# computed once. So the walls are honoured exactly: there is no mass inside them and no flux through them. Of the two ways round
# the mass takes the shorter one: crowding costs nothing, since the particles of optimal transport ignore each other.

# %%
plan = """
...#.....
.#.#.###.
.#...#...
.#####.#.
.....#.#.
####.#.#.
.....#.#.
.#####.#.
.......#.
"""
walls = np.array([[c == "#" for c in line] for line in plan.split()])
mask = np.kron(walls, np.ones((3, 3))).astype(bool)
n = len(mask)


def corner(at):
    bump = np.exp(-((centres(n)[:, None] - at) ** 2 + (centres(n)[None] - at) ** 2) / (2 * 0.04**2))
    bump[mask] = 0
    return bump / bump.mean()


result = benamou_brenier.solve(corner(0.06), corner(0.94), steps=24, method="cold", mask=mask)
residuals.append(result.residual)
distance = 0.88 * math.sqrt(2)
print(f"root of the energy {math.sqrt(result.energy):.2f}, straight distance {distance:.2f}, converged: {result.converged}")
claim("BB-28", result.density[:, mask].abs().max())
claim("BB-29", math.sqrt(result.energy) / distance)

# %%
fig, axes = plt.subplots(1, 6, figsize=(10.5, 2.1))
for ax, k in zip(axes, np.linspace(0, len(result.times) - 1, 6).round().astype(int), strict=True):
    picture = result.density[k] / result.density[k].max()
    ax.imshow(picture.clamp(0, 1).sqrt(), cmap="Blues", vmin=0, vmax=1)
    ax.imshow(np.where(mask, 1.0, np.nan), cmap="Greys", vmin=0, vmax=1.6)
    ax.set(title=f"t = {result.times[k]:.2f}", xticks=[], yticks=[])
show(fig, "maze", alt="Mass moving through a maze from the upper left to the lower right corner at six times")

# %% [markdown]
# **Unequal masses.** With a source, $\partial_t\rho+\operatorname{div}m=s$, and the cost $\int\!\int(|m|^2+\delta^2s^2)/\rho$,
# mass may be moved or grown (Wasserstein–Fisher–Rao). The length $\delta$ sets the price of growth: mass never travels farther
# than $\pi\delta$.
#
# - If only growth happens, $\rho_t(x)$ minimises $\delta^2\int\dot\rho^2/\rho\,dt=4\delta^2\int(\partial_t\sqrt\rho)^2dt$, which
#   is $4\delta^2(\sqrt{\nu}-\sqrt{\mu})^2$ at each point. Summed over points it is an upper bound (Hellinger).
# - With the total mass $M_t$: $|\dot M|=|\int s|\le\bigl(\int s^2/\rho\bigr)^{1/2}M_t^{1/2}$, so the cost is at least
#   $4\delta^2(\sqrt{M_1}-\sqrt{M_0})^2$, with equality for proportional densities.

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
claim("BB-31", max(least - unbalanced.energy, unbalanced.energy - most))
balanced = benamou_brenier.solve(mu / mu.mean(), nu / nu.mean(), steps=24)
residuals.append(balanced.residual)
claim("BB-20", max(residuals))

# %%
fig, axes = plt.subplots(2, 5, figsize=(9.6, 4.1))
cases = (balanced, "balanced,\nmasses normalised"), (unbalanced, "unbalanced,\n$\\delta=0.1$")
for row, (case, title) in zip(axes, cases, strict=True):
    for ax, k in zip(row, np.linspace(0, len(case.times) - 1, 5).round().astype(int), strict=True):
        ax.imshow(case.density[k], cmap="viridis", vmin=0, vmax=case.density.max())
        ax.set(xticks=[], yticks=[], title=f"t = {case.times[k]:.2f}, mass {case.density[k].mean():.2f}")
    row[0].set_ylabel(title)
show(fig, "unbalanced", alt="Two blobs moving with their masses fixed above and free to grow or shrink below")

# %% [markdown]
# Above, the upper blob must send part of its mass across to the lower right. Below, it only shifts (by 0.2, less than
# $\pi\delta=0.31$) and shrinks; the lower blob would have to travel 0.5, so it fades where it is while another grows at the
# target, and the total mass dips on the way.
#
# **Where to go on.** Notebook 03 gives up optimality for paths that are easy to sample; notebook 05 shows that action matching
# with optimal vector fields is the dual of this problem. The times, accuracies and memory of the solver stand in `10_benchmarks`.
