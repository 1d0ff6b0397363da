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
# # The continuity equation: proofs
#
# **The story:** [01_continuity_equation](../01_continuity_equation.ipynb). Here is everything that it says, with hypotheses and proofs.
#
# **Text covered.** The lecture notes *Dynamic Optimal Transport and Flow Matching* (2025-11-05), from *Dynamical Formulation* to
# *Flow of a vector field*, with the proof that they leave out: McCann's interpolation and its velocity solve the continuity
# equation. That the pair is the cheapest of all is proved in [proofs/02](02_benamou_brenier.ipynb); flow matching is the subject of
# [proofs/03](03_flow_matching.ipynb).
#
# **How it is written.** Each statement begins with its idea in one sentence, and has its hypotheses and its proof; then comes a cell
# that computes both sides in independent ways. For each hypothesis there is an example in which the statement fails without
# it. Where the notes need a correction there is a box marked **Erratum**. What is marked **(ours)** is not in the notes.
#
# **Prerequisites.** Calculus in several variables, ordinary differential equations (Picard–Lindelöf, Gronwall), weak convergence of
# probability measures, Brenier's theorem as a fact. **Running time.** About half a minute on one thread (preset `quick`).
#
# **Contents.** 0 The objects · 1 The equation, with its end points · 2 Weak and strong form · 3 One path, many velocities · 4 The flow of
# a velocity · 5 McCann's pair: its field, its energy, its equation, its flow · 6 Geodesics of constant speed · 7 What to change in
# the notes

# %% tags=["parameters"]
preset = "quick"
seed = 0

# %%
import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import ot
import torch
from matplotlib import pyplot as plt
from scipy.integrate import quad
from scipy.linalg import expm
from scipy.stats import ortho_group

from dynot_lite.companion import claim, errata, largest, say, show, smallest, start
from dynot_lite.laws.coupled import fm_law, mccann_velocity
from dynot_lite.laws.gaussian import Affine, Gaussian, fm_flow, fm_velocity, geodesic, monge_map, random_gaussian, w2_squared
from dynot_lite.laws.mixtures import GaussianMixture
from dynot_lite.paths.continuity import box_quadrature, bump, gauss_legendre, kinetic_energy, path_quadrature, strong_residual, weak_residual
from dynot_lite.paths.flows import integrate_adaptive, log_prob, trajectory
from dynot_lite.plots import ROLES

start("proofs/01_continuity_equation", preset=preset, seed=seed)
torch.set_default_dtype(torch.float64)
rng = torch.Generator().manual_seed(seed)
instances = 5 if preset == "full" else 1  # random instances per dimension
DIMENSIONS = range(1, 7)
# Gauss–Hermite nodes per axis: exact for polynomials everywhere, for cosines nearly to rounding in dimensions 1, 2, 3.
ORDER = {1: 40, 2: 24, 3: 16, 4: 5, 5: 4, 6: 3}

# %% [markdown]
# The cells below draw their data from one generator: Gaussian laws with a non-zero mean and a covariance without special
# structure (two of them do not commute), unit vectors, and two kinds of smooth test functions of time and space. The
# *example* is the pair of laws at which numbers are quoted in the prose.

# %%
gaussian = lambda d: random_gaussian(d, generator=rng)


def unit(d):
    direction = torch.randn(d, generator=rng)
    return direction / direction.norm()


def antisymmetric(d):
    matrix = torch.randn(d, d, generator=rng)
    return matrix - matrix.T


def polynomial(d):
    """A cubic in x with coefficients that depend on t; it vanishes at no time."""
    (a, b, c), r = (unit(d) for _ in range(3)), torch.rand(3, generator=rng)
    return lambda t, x: (1 + r[0] * t) * (x @ a) + (r[1] + t**2) * (x @ b) ** 2 + (1 - r[2] * t) * (x @ c) ** 3 / 3


def wave(d):
    """A plane wave in space-time; it vanishes at no time."""
    k, r = 0.6 * unit(d), torch.rand(2, generator=rng)
    return lambda t, x: torch.cos(x @ k + (1 + r[0]) * t + 6 * r[1])


def test_functions(d):
    return [polynomial(d), polynomial(d)] + ([wave(d), wave(d)] if d <= 3 else [])


example = Gaussian([0.3, -1.0], [[2.0, 0.6], [0.6, 1.0]]), Gaussian([1.5, 0.7], [[1.0, -0.5], [-0.5, 3.0]])

# %% [markdown]
# ## 0. The objects: measures, not metrics
#
# $\mathcal P_2(\mathbb R^d)$ is the set of probability measures with $\int |x|^2\,d\mu < \infty$, and
#
# $$
# W_2^2(\mu,\nu) = \min_{\pi\in\Pi(\mu,\nu)} \int |x-y|^2\,d\pi(x,y)
# $$
#
# (no factor ½). $W_2$ is a metric on $\mathcal P_2(\mathbb R^d)$, $W_2^2$ is none: [proofs/00](00_start_here.ipynb).
# $T_\#\mu$ is the law of $T(X)$ if $X$ has the law $\mu$. Paths $(\mu_t)_{0\le t\le 1}$ are *narrowly continuous* if
# $t\mapsto\int f\,d\mu_t$ is continuous for each bounded continuous $f$. A function of space alone is written $\xi$, a test function of
# time and space $\zeta$; "Lip" is a Lipschitz constant.

# %%
errata.box("N-01")

# %% [markdown]
# ## 1. The equation, with its end points
#
# The equation says that, for every window, the content changes by what the velocity carries in.
#
# **Definition.** Let $(\mu_t)_{t\in[0,1]}$ be a narrowly continuous path of probability measures on $\mathbb R^d$ and
# $v:[0,1]\times\mathbb R^d\to\mathbb R^d$ a Borel field with $\int_0^1\int |v_t|\,d\mu_t\,dt < \infty$. The pair satisfies **(CE)**,
# written $\partial_t\mu_t+\mathrm{div}(\mu_t v_t)=0$, if for all $\zeta\in C_c^\infty([0,1]\times\mathbb R^d)$
#
# $$
# \int_0^1\int \big(\partial_t\zeta + \langle\nabla\zeta, v_t\rangle\big)\,d\mu_t\,dt
# = \int\zeta(1,\cdot)\,d\mu_1 - \int\zeta(0,\cdot)\,d\mu_0 .
# \tag{1}
# $$
#
# The functions $\zeta$ are smooth up to $t=0$ and $t=1$, vanish for large $|x|$, and need *not* vanish at $t=0$ and $t=1$.
#
# The notes test only with $\zeta\in C_c^\infty(]0,1[\times\mathbb R^d)$ and do not ask for continuity in time. With continuity
# this makes no difference (Lemma 1); without it, everything is lost. Of a solution in the sense of the notes one may always
# choose a narrowly continuous representative, equal to it for almost every $t$ (Ambrosio, Gigli and Savaré, *Gradient Flows*,
# Lemma 8.1.2); its end points are those that count.
#
# **Lemma 1 (three forms).** *With a path that is continuous in time, it does not matter whether the test functions see the end
# points.* Let $(\mu_t)$ be narrowly continuous on $[0,1]$ and $\int_0^1\int|v_t|\,d\mu_t\,dt<\infty$. Equivalent are:
#
# 1. (1) holds for all $\zeta\in C_c^\infty(]0,1[\times\mathbb R^d)$ (then its right side is 0): the form of the notes;
# 2. for each $\xi\in C_c^\infty(\mathbb R^d)$ and $0\le a\le b\le 1$:
# $\int\xi\,d\mu_b-\int\xi\,d\mu_a=\int_a^b\int\langle\nabla\xi,v_t\rangle\,d\mu_t\,dt$;
# 3. (1) holds for all $\zeta\in C_c^\infty([0,1]\times\mathbb R^d)$.
#
# *Proof.* *3 ⇒ 1* is a restriction.
#
# *1 ⇒ 2.* Put $f(t)=\int\xi\,d\mu_t$, which is continuous on $[0,1]$, and $g(t)=\int\langle\nabla\xi,v_t\rangle\,d\mu_t$, which is
# integrable because $\nabla\xi$ is bounded. Test with $\zeta(t,x)=\eta(t)\xi(x)$, $\eta\in C_c^\infty(]0,1[)$:
# $\int_0^1(\eta' f+\eta g)\,dt=0$. So $g$ is the distributional derivative of $f$ on $]0,1[$, and
# $f(t)-\int_0^t g(s)\,ds$, whose distributional derivative is zero, is almost everywhere equal to a constant. It is continuous
# on the closed interval $[0,1]$, so it is that constant everywhere, the end points included. This is 2.
#
# *2 ⇒ 3.* Let $t_j=j/n$ and split
#
# $$
# \int\zeta_{t_{j+1}}d\mu_{t_{j+1}}-\int\zeta_{t_j}d\mu_{t_j}
# = \int(\zeta_{t_{j+1}}-\zeta_{t_j})\,d\mu_{t_{j+1}} + \Big(\int\zeta_{t_j}d\mu_{t_{j+1}}-\int\zeta_{t_j}d\mu_{t_j}\Big).
# $$
#
# The first term is $\int_{t_j}^{t_{j+1}}\int\partial_t\zeta(t,x)\,d\mu_{t_{j+1}}(x)\,dt$, the second, by 2 with $\xi=\zeta_{t_j}$, is
# $\int_{t_j}^{t_{j+1}}\int\langle\nabla\zeta_{t_j},v_t\rangle\,d\mu_t\,dt$. Sum over $j$: the left side is the right side of
# (1). On the right let $n\to\infty$. For fixed $t$, with $\tau_n(t)=t_{j+1}$ for $t\in[t_j,t_{j+1}[$, narrow continuity gives
# $\int\partial_t\zeta(t,\cdot)\,d\mu_{\tau_n(t)}\to\int\partial_t\zeta(t,\cdot)\,d\mu_t$, and these integrals are bounded, so the first sum
# converges to $\int_0^1\int\partial_t\zeta\,d\mu_t\,dt$ by dominated convergence. In the second,
# $\nabla\zeta_{t_j}\to\nabla\zeta_t$ uniformly in $x$ and $t$, and $\int\int|v_t|\,d\mu_t\,dt<\infty$: it converges to
# $\int_0^1\int\langle\nabla\zeta,v_t\rangle\,d\mu_t\,dt$. $\square$
#
# **Lemma 2 (test functions that grow).** *Polynomials may be used as test functions, if the moments allow it.* Let (CE) hold
# and, for some $k\ge1$, let $\sup_t\int|x|^k\,d\mu_t<\infty$ and $\int_0^1\int(1+|x|^{k-1})|v_t|\,d\mu_t\,dt<\infty$. Then (1)
# holds for all $\zeta\in C^\infty([0,1]\times\mathbb R^d)$ with $|\zeta|+|\partial_t\zeta|\le C(1+|x|^k)$ and
# $|\nabla\zeta|\le C(1+|x|^{k-1})$.
#
# *Proof.* Let $\kappa\in C_c^\infty(\mathbb R^d)$ be 1 on the unit ball, 0 outside the ball of radius 2, with values in $[0,1]$.
# Test with $\zeta(t,x)\kappa(x/R)$ and let $R\to\infty$. Everything converges by
# dominated convergence, including the extra term $\frac1R\zeta\,\langle\nabla\kappa(x/R),v_t\rangle$: it lives on $R\le|x|\le 2R$,
# where $\frac1R(1+|x|^k)\le\frac{2}{|x|}(1+|x|^k)\le 4(1+|x|^{k-1})$ for $R\ge1$, so it is dominated by an integrable function
# and tends to 0 pointwise. $\square$
#
# So Gaussian paths with a velocity of linear growth may be tested with polynomials and with waves. First check: for the field
# $v(x)=Ax+e$ the flow is known from the matrix exponential, and the law $\mu_t=N(m_t,A_t)$ with it. The residual below is the
# difference of the two sides of (1), relative to $\int\int(|\partial_t\zeta|+|\langle\nabla\zeta,v_t\rangle|)\,d\mu_t\,dt$; integrals over
# $\mu_t$ are Gauss–Hermite sums, integrals over $t$ Gauss–Legendre sums.

# %%
@dataclass
class AffinePair:
    """The field v(x) = Ax + e, ‖A‖ = 0.7, and the path that it makes of the law p."""

    p: Gaussian
    matrix: torch.Tensor
    offset: torch.Tensor

    def velocity(self, t, x):
        return x @ self.matrix.T + self.offset

    def flow(self, t):
        """x(t) = φ_t(x), the first d entries of exp(t [[A, e], [0, 0]]) (x, 1)."""
        generator = torch.nn.functional.pad(torch.cat([self.matrix, self.offset[:, None]], 1), (0, 0, 0, 1))
        exponential = torch.linalg.matrix_exp(t * generator)
        return Affine(exponential[:-1, :-1], exponential[:-1, -1])

    def law_at(self, t):
        return self.flow(t).push_forward(self.p)

    def path(self, t):
        return self.law_at(t).quadrature(ORDER[self.p.dim])


def affine_pair(d):
    matrix = torch.randn(d, d, generator=rng)
    return AffinePair(gaussian(d), 0.7 * matrix / torch.linalg.matrix_norm(matrix, 2), torch.randn(d, generator=rng))


affine_pairs = [affine_pair(d) for d in DIMENSIONS for _ in range(instances)]
residuals, doubled = [], []
for pair in affine_pairs:
    path = cache(pair.path)  # several test functions use it
    for zeta in test_functions(pair.p.dim):
        residuals.append(weak_residual(path, pair.velocity, zeta, times=20))
        doubled.append(weak_residual(path, lambda t, x: 2 * pair.velocity(t, x), zeta, times=20))
claim("CE-3", largest(residuals))

# %%
errata.box("N-02")

# %% [markdown]
# If $\frac{d\zeta}{dt}$ is read as the derivative $\partial_t\zeta+\langle\nabla\zeta,v_t\rangle$ along the motion, the transport term is
# counted twice, and the equation becomes (CE) for $2v$. The residual of the doubled field, computed above, shows the difference.

# %%
claim("CE-4", largest(doubled))

# %%
errata.box("N-03")

# %% [markdown]
# Test functions with support in $]0,1[\times\mathbb R^d$ do not see $\mu_0$ and $\mu_1$ at all. So $\mu_0=\alpha$,
# $\mu_1=\beta$ in the definition of $\mathcal V(\alpha,\beta)$ say nothing, and the Benamou–Brenier theorem is *false* as
# stated: $v=0$, $\mu_t=\alpha$ for $t<1$ and $\mu_1=\beta$ passes all tests of the notes with energy 0. Or go a fraction
# $\lambda$ of the way and jump at $t=1$: the energy is $\lambda^2W_2^2$.
#
# The cell takes a translation by $e$ that goes half the way and jumps at $t=1$ (so that $W_2^2=|e|^2$, and the energy is a
# quarter of it), and a pair as above with a wrong start. Test functions with support inside $]0,1[$ find nothing; a test
# function that does not vanish at the end points finds the jump.

# %%
def replace_end(path, *, at, law):
    """The path with another measure put in at one end point."""
    return lambda t: law.quadrature(ORDER[law.dim]) if t == at else path(t)


def ellipsoid(centre_time, centre, reach):
    """A bump of C_c^∞ around (centre_time, centre): radius ``reach`` in space; in time 0.45, or 0.9 for one at an end point."""
    radius = 0.9 if centre_time in (0, 1) else 0.45
    ball = bump([centre_time] + [0.0] * len(centre), radius)
    return lambda t, x: ball(t, (x - centre) * radius / reach)


hidden, seen, energies = [], [], []
for d in (1, 2, 3):
    moving, alpha, step = affine_pair(d), gaussian(d), 1.5 * unit(d)
    other = Gaussian(moving.p.mean + 1.5 * unit(d), gaussian(d).cov)
    beta, (y, masses), (x, mass) = Gaussian(alpha.mean + step, alpha.cov), alpha.quadrature(8), moving.p.quadrature(8)
    fake = [
        (replace_end(lambda t: (y + 0.5 * t * step, masses), at=1.0, law=beta), lambda t, x: 0.5 * step.expand_as(x)),
        (replace_end(lambda t: (moving.flow(t)(x), mass), at=0.0, law=other), moving.velocity),
    ]
    for path, velocity in fake:
        hidden.append(weak_residual(path, velocity, ellipsoid(0.5, path(0.5)[0].mean(0), 12.0), times=160))
        seen.append(largest(weak_residual(path, velocity, zeta, times=20) for zeta in test_functions(d)))
    energies.append(kinetic_energy(*fake[0]) / w2_squared(alpha, beta))
claim("CE-5", largest(hidden))
claim("CE-6", smallest(seen))
claim("CE-7", 1 - largest(energies))

# %% [markdown]
# ## 2. Weak and strong form
#
# **Lemma 3.** *Where everything is smooth, the equation holds at every point, and integration by parts is all there is to it.*
# Let $\mu_t=\rho_t\,dx$ with $\rho$ and $v$ of class $C^1$ on $[0,1]\times\mathbb R^d$ (and $(\mu_t,v_t)$ as in the
# definition). Then (CE) holds if and only if
#
# $$
# \partial_t\rho+\mathrm{div}(\rho v)=0 \qquad\text{at every point of } ]0,1[\times\mathbb R^d .
# \tag{2}
# $$
#
# *Proof.* For $\zeta\in C_c^\infty(]0,1[\times\mathbb R^d)$, integrate by parts in $t$ and in $x$; no boundary terms arise:
#
# $$
# \int_0^1\int(\partial_t\zeta+\langle\nabla\zeta,v\rangle)\,\rho\,dx\,dt = -\int_0^1\int\zeta\,\big(\partial_t\rho+\mathrm{div}(\rho v)\big)\,dx\,dt .
# \tag{3}
# $$
#
# If (2) holds, the left side is 0, and Lemma 1 gives (CE). Conversely, if the left side is 0 for all $\zeta$, the continuous function
# $\partial_t\rho+\mathrm{div}(\rho v)$ is zero: were it positive at a point, it would be positive in a ball around it, and a bump
# $\zeta\ge0$ in that ball would give a non-zero right side. $\square$
#
# Two checks: (2) for the Gaussian pairs of section 1, pointwise, by automatic differentiation and relative to $\rho$;
# and (3) for a pair that does **not** solve the equation ($\mu_t$ as before with the field $\sin$, coordinate by coordinate), where both
# sides are different from 0 and have to agree. A law is integrated against a bump on a box that contains the support of the bump;
# the mass outside the box is put on a point where $\zeta$ vanishes.

# %%
strong, by_parts = [], []
for pair in affine_pairs:
    rho = lambda t, x: pair.law_at(t).log_prob(x).exp()
    for t in (0.0, 0.4, 1.0):
        x = pair.law_at(t).sample(20, generator=rng)
        strong.append((strong_residual(rho, pair.velocity, t, x) / rho(torch.tensor(t), x)).abs().max())
for pair in (affine_pair(1), affine_pair(2)):
    centre = pair.law_at(0.5).mean
    zeta, wrong = ellipsoid(0.5, centre, 2.7), lambda t, x: torch.sin(x)
    path = box_quadrature(pair.law_at, centre, 2.7, {1: 400, 2: 80}[pair.p.dim])
    rho, sides, scale = (lambda t, x: pair.law_at(t).log_prob(x).exp()), torch.zeros(2), 0.0
    for t, weight in zip(*gauss_legendre(80)):
        x, mass = path(t)
        s, y = torch.full_like(mass, t).requires_grad_(), x.clone().requires_grad_()
        d_time, d_space = torch.autograd.grad(zeta(s, y).sum(), (s, y))
        weak = mass * (d_time + (d_space * wrong(t, x)).sum(-1))
        defect = mass * zeta(s, x).detach() * strong_residual(rho, wrong, t, x) / rho(t, x)
        sides += weight * torch.stack([weak.sum(), defect[:-1].sum()])
        scale += weight * weak.abs().sum()
    by_parts.append(sides.sum().abs() / scale)
    say(f"d = {pair.p.dim}: the two sides of (3), relative to the size of the terms: {sides[0] / scale:.4f}, {-sides[1] / scale:.4f}")
claim("CE-8", largest(strong))
claim("CE-9", largest(by_parts))

# %% [markdown]
# ## 3. One path, many velocities
#
# ### 3.1 Rotations
#
# **Proposition 1.** *A wind along the level lines of a Gaussian does not move it.* Let $\mu=N(m,\Sigma)$ with $\Sigma\succ0$,
# $d\ge2$, and $R\in\mathbb R^{d\times d}$
# *antisymmetric*, $R^\top=-R$. The constant path $\mu_t=\mu$ with $v(x)=R\,\Sigma^{-1}(x-m)$ satisfies (CE). For
# $\mu=N(0,\mathrm{Id})$: $v(x)=Rx$. Its flow $\varphi_t=e^{tR}$ consists of rotations.
#
# *Proof.* Let $\rho$ be the density, so $\nabla\rho=-\rho\,\Sigma^{-1}(x-m)$, and put $y=\Sigma^{-1}(x-m)$. Then
# $\mathrm{div}(\rho v)=\langle\nabla\rho,v\rangle+\rho\,\mathrm{div}\,v=\rho\,(-\langle y,Ry\rangle+\mathrm{tr}(R\Sigma^{-1}))$. The first term
# is zero because $\langle y,Ry\rangle=\langle R^\top y,y\rangle=-\langle y,Ry\rangle$, the second because
# $\mathrm{tr}(R\Sigma^{-1})=\mathrm{tr}((R\Sigma^{-1})^\top)=-\mathrm{tr}(\Sigma^{-1}R)=-\mathrm{tr}(R\Sigma^{-1})$. Also
# $\partial_t\rho=0$, so (2) holds. Finally $e^{tR}(e^{tR})^\top=e^{tR}e^{-tR}=\mathrm{Id}$ and
# $\det e^{tR}=e^{t\,\mathrm{tr}R}=1$. $\square$

# %%
stationary, spins = [], []
for d in range(2, 7):
    for p in (Gaussian(torch.zeros(d), torch.eye(d)), gaussian(d)):
        slope = antisymmetric(d) @ torch.linalg.inv(p.cov)
        field = lambda t, x: (x - p.mean) @ slope.T
        rho = lambda t, x: p.log_prob(x).exp()
        x, rule = p.sample(30, generator=rng), p.quadrature(ORDER[d])
        stationary.append((strong_residual(rho, field, 0.5, x) / rho(0.5, x)).abs().max())
        stationary += [weak_residual(lambda t: rule, field, zeta, times=20) for zeta in test_functions(d)]
    rotation = antisymmetric(d)
    moved = integrate_adaptive(lambda t, x: x @ rotation.T, torch.eye(d), rtol=1e-12)  # the rows are φ_1(e_i)
    spins.append((moved.T - torch.from_numpy(expm(rotation.numpy()))).abs().max())
    spins.append((moved @ moved.T - torch.eye(d)).abs().max())
claim("CE-10", largest(stationary))
claim("CE-11", largest(spins))

# %% [markdown]
# **Trap.** "Any rotation is a solution." The notes speak of a *velocity that performs a rotation*, which is $Rx$ with an
# antisymmetric $R$, the generator of rotations, and not $Qx$ with a rotation matrix $Q$. In the plane, for the angle $\omega$,
# $\mathrm{div}(\rho\,Qx)=\rho\cos\omega\,(2-|x|^2)$, which is 0.105 at $(0.7,-0.3)$ for $\omega=0.9$. Whoever moves with the
# velocity $Qx$ spirals outwards: $\frac{d}{dt}|x|^2=2\cos\omega\,|x|^2$, so after time 1 the law is
# $N(0,e^{2\cos\omega}\mathrm{Id})$. (For $\omega=\pm\frac\pi2$ the matrix $Q$ is both a rotation and antisymmetric.)

# %%
def turn(angle):
    return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


angle, J = 0.9, turn(math.pi / 2)
normal2, place = Gaussian(torch.zeros(2), torch.eye(2)), torch.tensor([[0.7, -0.3]])
divergence_of_map = strong_residual(lambda t, x: normal2.log_prob(x).exp(), lambda t, x: x @ turn(angle).T, 0.5, place)
claim("CE-12", divergence_of_map)
growth = []
for d in (2, 4, 6):
    basis = torch.from_numpy(ortho_group.rvs(d, random_state=np.random.default_rng(seed)))
    Q = basis @ torch.block_diag(*[turn(angle)] * (d // 2)) @ basis.T
    moved = integrate_adaptive(lambda t, x: x @ Q.T, torch.eye(d))
    growth.append(torch.linalg.matrix_norm(moved.T @ moved - torch.eye(d), 2))
claim("CE-13", smallest(growth))

# %%
fig, axes = plt.subplots(1, 2, figsize=(8.6, 4.4), sharex=True, sharey=True)
directions = lambda n: torch.stack([torch.cos(torch.arange(n) * 2 * math.pi / n), torch.sin(torch.arange(n) * 2 * math.pi / n)], 1)
grid, ring = torch.cartesian_prod(*[torch.linspace(-2.1, 2.1, 9)] * 2), directions(200)
titles = r"velocity $Rx$, $R=0.9\,J$: the law stays", r"velocity $Qx$, $Q$ the rotation by 0.9: it spreads"
for ax, matrix, title in zip(axes, (angle * J, turn(angle)), titles):
    field = lambda t, x: x @ matrix.T
    ax.quiver(*grid.T, *field(0, grid).T, color=ROLES["truth"], alpha=0.55, angles="xy", scale_units="xy", scale=4.5, width=0.004)
    ax.plot(*ring.T, color=ROLES["source"], label=r"one standard deviation, $t=0$")
    ax.plot(*integrate_adaptive(field, ring).T, "--", color=ROLES["target"], lw=2.4, label=r"the same, $t=1$")
    walks = trajectory(field, directions(4), steps=50, method="rk4")[1]
    ax.plot(*walks.permute(2, 0, 1), color=ROLES["first"], lw=2.6)
    ax.plot(*walks[0].T, "o", mfc="white", color=ROLES["first"], ms=5, zorder=3)
    ax.plot(*walks[-1].T, "o", color=ROLES["first"], ms=5, zorder=3, label="particles from $t=0$ (open) to $t=1$")
    ax.set(title=title, xlabel="$x_1$", aspect="equal", xlim=(-2.35, 2.35), ylim=(-2.35, 2.35))
axes[0].set_ylabel("$x_2$")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
show(fig, "rotation_field_against_map", alt="Two fields with the walks of four particles from the unit circle: with velocity Rx they stay on the circle, with velocity Qx they spiral outwards and the circle grows by the factor 1.86.")

# %% [markdown]
# **Remark (what "no divergence" means).** The notes say that this velocity "yields no divergence at all". For
# $N(0,\mathrm{Id})$ and $Rx$ that is true in both senses. What counts in general is $\mathrm{div}(\mu v)=0$, and not
# $\mathrm{div}\,v=0$: neither implies the other. The field $Jx$ has $\mathrm{div}\,v=0$ and does not
# preserve $N(0,\Sigma)$ unless $\Sigma$ is a multiple of the identity. The field $v(x)=(x_1x_2,\,1-x_1^2)$ has
# $\mathrm{div}\,v=x_2\ne0$ and preserves $N(0,\mathrm{Id})$, because
# $\mathrm{div}\,v-\langle x,v\rangle=x_2-x_1^2x_2-x_2+x_1^2x_2=0$. (ours)
#
# **Remark (loops cost energy).** These solutions are loops: $\mu_0=\mu_1$, so $W_2=0$, but their energy is
# $\int_0^1\int|Rx|^2\,d\mu\,dt=\mathrm{tr}(RR^\top)=\lVert R\rVert_F^2>0$: for $R=0.9\,J$ in the plane it is $1.62$. A solution of (CE) is
# in general not optimal.

# %%
law = Gaussian(torch.zeros(2), [[4.0, 0.0], [0.0, 1.0]])
claim("CE-14", weak_residual(lambda t: law.quadrature(), lambda t, x: x @ J.T, lambda t, x: (1 + t) * x.prod(-1)))
curl = lambda t, x: torch.stack([x[:, 0] * x[:, 1], 1 - x[:, 0] ** 2], -1)
x = normal2.sample(50, generator=rng)
rho = lambda t, x: normal2.log_prob(x).exp()
claim("CE-15", (strong_residual(rho, curl, 0.5, x) / rho(0.5, x)).abs().max())
loop = []
for d in range(2, 7):
    R, p = antisymmetric(d), Gaussian(torch.zeros(d), torch.eye(d))
    energy = kinetic_energy(lambda t: p.quadrature(ORDER[d]), lambda t, x: x @ R.T, times=4)
    loop.append(abs(energy / R.square().sum() - 1))
claim("CE-16", largest(loop))
claim("CE-17", kinetic_energy(lambda t: normal2.quadrature(), lambda t, x: angle * x @ J.T) - w2_squared(normal2, normal2))

# %% [markdown]
# ### 3.2 What a path leaves open
#
# **Proposition 2.** *A path determines its velocity up to fields that move no mass, and the gradient is the cheapest.* If
# $(\mu_t,v_t)$ satisfies (CE), then so does $(\mu_t,v_t+w_t)$ if and only if
# $\int\int\langle\nabla\zeta,w_t\rangle\,d\mu_t\,dt=0$ for all test functions, that is $\mathrm{div}(\mu_tw_t)=0$ for almost
# every $t$. If $v_t=\nabla s_t$ is a gradient (with Lemma 2 allowing $\zeta=s$), then it has the least energy of all:
#
# $$
# \int_0^1\int|v_t+w_t|^2\,d\mu_t\,dt=\int_0^1\int|v_t|^2\,d\mu_t\,dt+\int_0^1\int|w_t|^2\,d\mu_t\,dt .
# \tag{4}
# $$
#
# *Proof.* The first claim is the difference of the two equations. For (4), expand the square; the mixed term is
# $2\int\int\langle\nabla s_t,w_t\rangle\,d\mu_t\,dt=0$. $\square$
#
# For a Gaussian path, $w_t=R\,\Sigma_t^{-1}(x-m_t)$ with any antisymmetric $R$ does it (Proposition 1). So "the" velocity of a
# path is a choice. The cell takes McCann's velocity between Gaussians, which is a gradient and solves (CE) (section 5), plus
# such a $w_t$. The path stays, the velocity does not, nor does the flow.

# %%
unchanged, changed, pythagoras = [], [], []
for d in range(2, 7):
    for _ in range(instances):
        p, q, R = gaussian(d), gaussian(d), antisymmetric(d)
        R = R / R.norm()
        law_at = cache(lambda t: geodesic(p, q, t))
        v, path = mccann_velocity(p, q), cache(path_quadrature(law_at, ORDER[d]))
        w = lambda t, x: torch.linalg.solve(law_at(t).cov, (x - law_at(t).mean).mT).mT @ R.T
        both = lambda t, x: v(t, x) + w(t, x)
        unchanged += [weak_residual(path, both, zeta, times=20) for zeta in test_functions(d)]
        energy = [kinetic_energy(path, field, times=20) for field in (v, w, both)]
        changed.append(math.sqrt(energy[1]))
        pythagoras.append(abs(energy[2] - energy[0] - energy[1]) / energy[2])
claim("CE-47", largest(unchanged))
claim("CE-48", smallest(changed))
claim("CE-49", largest(pythagoras))

# %% [markdown]
# ## 4. The flow of a velocity
#
# ### 4.1 The theorem
#
# **Definition.** A *flow line* of $v$ is a solution of $\dot\gamma(t)=v(t,\gamma(t))$. Where there is exactly one through each
# starting point, defined on all of $[0,1]$, the *flow* $\varphi_t(x)$ is the place at time $t$ of the flow line that starts at $x$:
# $\partial_t\varphi_t(x)=v(t,\varphi_t(x))$ and $\varphi_0(x)=x$.

# %%
errata.box("N-04")

# %% [markdown]
# No Gaussian example in the notes has a bounded velocity, all are affine. A Lipschitz field grows at most linearly, and this suffices.

# %% [markdown]
# **Theorem 1.** *A Lipschitz velocity has one flow, and the flow decides the path of laws.* Let
# $v:[0,1]\times\mathbb R^d\to\mathbb R^d$ be continuous, with $|v(t,x)-v(t,y)|\le\mathrm{Lip}\,|x-y|$ for all $t,x,y$. Then
#
# - (a) the flow exists, each $\varphi_t$ is a bijection of $\mathbb R^d$, and
#   $e^{-\mathrm{Lip}\,t}|x-y|\le|\varphi_t(x)-\varphi_t(y)|\le e^{\mathrm{Lip}\,t}|x-y|$;
# - (b) for each probability measure $\alpha$, $\mu_t=(\varphi_t)_\#\alpha$ satisfies (1) for all
#   $\zeta\in C_c^\infty([0,1]\times\mathbb R^d)$;
# - (c) each narrowly continuous path of probability measures with $\mu_0=\alpha$ that satisfies (1) is this one;
# - (d) if $\alpha\ll\lambda^d$, then $\mu_t\ll\lambda^d$ for all $t$. If moreover $v$ is $C^1$ in $x$, with continuous
#   derivatives, then the densities satisfy $\log\rho_t(\varphi_t(x))=\log\alpha(x)-\int_0^t\mathrm{div}\,v(s,\varphi_s(x))\,ds$.
#
# *Proof of (a).* With $C=\max(\mathrm{Lip},\max_t|v(t,0)|)$, $|v(t,x)|\le C(1+|x|)$. Picard–Lindelöf gives a unique local
# solution through each point at each time. By Gronwall's inequality $1+|\gamma(t)|\le e^{C|t-s|}(1+|\gamma(s)|)$, so it stays
# bounded and exists on all of $[0,1]$. Write $\varphi_{t\to s}(x)$ for the place at time $s$ of the line that is at $x$ at time
# $t$: then $\varphi_{t\to s}$ and $\varphi_{s\to t}$ are inverse to each other. For two lines,
# $r(t)=|\varphi_t(x)-\varphi_t(y)|^2$ satisfies $|r'|\le 2\,\mathrm{Lip}\,r$, which gives both bounds.
#
# *Proof of (b).* For fixed $x$ the chain rule gives
# $\frac{d}{dt}\zeta(t,\varphi_t(x))=(\partial_t\zeta+\langle\nabla\zeta,v\rangle)(t,\varphi_t(x))$,
# a bounded function, since $v$ is bounded on the support of $\zeta$. Integrate over $t\in[0,1]$, then against $\alpha$
# (Fubini). The path is narrowly continuous by dominated convergence.
#
# *Proof of (c).* Let $\nu_t$ be the difference of two solutions with the same start; its total mass is at most 2. Fix
# $h\in C_c^\infty(]0,1[\times\mathbb R^d)$ and solve the transport equation backwards along the flow lines:
#
# $$
# \zeta(t,x)=-\int_t^1h\big(s,\varphi_{t\to s}(x)\big)\,ds,\qquad\text{so that}\qquad \zeta(t,\varphi_t(x))=-\int_t^1h(s,\varphi_s(x))\,ds .
# \tag{5}
# $$
#
# (i) *$\zeta$ has compact support and is Lipschitz.* If $h$ lives in the ball of radius $\varrho$, then $\zeta(t,x)=0$ as soon
# as $e^{-C}(1+|x|)-1>\varrho$. In $x$ the Lipschitz constant is at most $e^{\mathrm{Lip}}\,\mathrm{Lip}(h)$, by (a). In $t$:
# for $t < t'\le s$,
# $|\varphi_{t\to s}(x)-\varphi_{t'\to s}(x)|=|\varphi_{t'\to s}(\varphi_{t\to t'}(x))-\varphi_{t'\to s}(x)|\le e^{\mathrm{Lip}}|\varphi_{t\to t'}(x)-x|\le e^{\mathrm{Lip}}C'|t-t'|$ for $x$
# in a bounded set, and the shorter interval of integration costs at most $|t-t'|\max|h|$. Also $\zeta=0$ for $t$ near 1; put
# $\zeta=0$ for $t\ge1$.
#
# (ii) *$\partial_t\zeta+\langle v,\nabla\zeta\rangle=h$ at almost every $(t,x)$.* By Rademacher's theorem $\zeta$ is differentiable
# almost everywhere. At such a point $(t_0,x_0)$ the left side is the derivative at $t=t_0$ of
# $t\mapsto\zeta(t,\varphi_{t_0\to t}(x_0))=-\int_t^1h(s,\varphi_{t_0\to s}(x_0))\,ds$.
#
# (iii) *Smoothing.* $\zeta$ is not smooth, and $\nu_t$ may live on the null set that (ii) leaves out. So take a smooth
# probability density $\eta_\varepsilon(s,y)$ supported in $0\le s\le\varepsilon$, $|y|\le\varepsilon$, and
# $\zeta^\varepsilon(t,x)=\int\zeta(t+s,x-y)\,\eta_\varepsilon(s,y)\,ds\,dy$, which is smooth on $[0,1]\times\mathbb R^d$, has
# compact support, and vanishes at $t=1$. Averaging (ii), with $h^\varepsilon$ the average of $h$,
#
# $$
# \partial_t\zeta^\varepsilon+\langle v,\nabla\zeta^\varepsilon\rangle=h^\varepsilon+r^\varepsilon,\qquad
# r^\varepsilon(t,x)=\int\big\langle v(t,x)-v(t+s,x-y),\nabla\zeta(t+s,x-y)\big\rangle\,\eta_\varepsilon(s,y)\,ds\,dy .
# $$
#
# ($\zeta$ vanishes for times near 1 and beyond, so the values of $v$ there do not matter.) On compact sets $v$ is uniformly
# continuous, and $|\nabla\zeta|\le e^{\mathrm{Lip}}\,\mathrm{Lip}(h)$: hence $r^\varepsilon\to0$ uniformly, and
# $h^\varepsilon\to h$ uniformly. Test both solutions with $\zeta^\varepsilon$ and subtract. As $\nu_0=0$ and
# $\zeta^\varepsilon(1,\cdot)=0$,
#
# $$
# 0=\int_0^1\int(h^\varepsilon+r^\varepsilon)\,d\nu_t\,dt\;\longrightarrow\;\int_0^1\int h\,d\nu_t\,dt .
# $$
#
# This holds for every $h$. With $h=\eta(t)\xi(x)$ it says that $\int\xi\,d\nu_t=0$ for almost every $t$, and by continuity for
# every $t$, so $\nu=0$.
#
# *Proof of (d).* If $\lambda^d(N)=0$, then $\mu_t(N)=\alpha(\varphi_t^{-1}(N))=0$, because the Lipschitz map $\varphi_t^{-1}$
# takes null sets to null sets. If $v$ is $C^1$ in $x$, then so is $\varphi_t$, and
# $\rho_t(\varphi_t(x))\,\det\nabla\varphi_t(x)=\alpha(x)$ is the change of variables. From
# $\partial_t\nabla\varphi_t=\nabla v(t,\varphi_t)\nabla\varphi_t$ and Jacobi's formula,
# $\partial_t\log\det\nabla\varphi_t=\mathrm{div}\,v(t,\varphi_t)$. $\square$
#
# *More general.* The same proof works if $v$ is continuous and, in $x$, Lipschitz with a constant $\mathrm{Lip}(t)$ that is
# integrable in $t$; Ambrosio, Gigli and Savaré (*Gradient Flows*, Prop. 8.1.8) need only
# $\int_0^1(\sup_B|v_t|+\mathrm{Lip}_B(v_t))\,dt<\infty$ for each ball $B$, and $\int_0^1\int|v_t|\,d\mu_t\,dt<\infty$.
#
# ### 4.2 Checks of the theorem
#
# The field is $v(t,x)=Ax+A'\sin(A''x+2t)$: neither bounded nor linear, with
# $\mathrm{Lip}\le\lVert A\rVert+\lVert A'\rVert\,\lVert A''\rVert$. (a) is checked on pairs of points, (b) with *atoms* as
# initial law, because the theorem does not ask for a density: $\mu_t=\sum_iw_i\,\delta_{\varphi_t(x_i)}$, with the flow lines
# from an adaptive eighth-order solver.

# %%
def carried(velocity, x0, weights, times):
    """The path t -> Σ w_i δ_{φ_t(x0_i)}, at t = 0, at the given times and at t = 1."""
    positions, now, x = {0.0: x0}, 0.0, x0
    for t in [*times.tolist(), 1.0]:
        x = integrate_adaptive(velocity, x, t0=now, t1=t, rtol=1e-12)
        positions[t], now = x, t
    return lambda t: (positions[t], weights)


def nonlinear_field(d):
    A, A1, A2 = (0.8 * torch.randn(d, d, generator=rng) / math.sqrt(d) for _ in range(3))
    size = lambda matrix: torch.linalg.matrix_norm(matrix, 2).item()
    return lambda t, x: x @ A.T + torch.sin(x @ A2.T + 2 * t) @ A1.T, size(A) + size(A1) * size(A2)


stretch, residuals = [], []
for d in (1, 2, 3, 5):
    velocity, lipschitz = nonlinear_field(d)
    atoms, masses = 1.5 * torch.randn(12, d, generator=rng), torch.rand(12, generator=rng)
    times = gauss_legendre(24)[0]
    path = carried(velocity, atoms, masses / masses.sum(), times)
    for t in (times[7].item(), 1.0):
        ratio = torch.pdist(path(t)[0]) / torch.pdist(atoms)
        stretch.append(ratio.log().abs().max() / (lipschitz * t))
    residuals += [weak_residual(path, velocity, zeta, times=24) for zeta in test_functions(d)]
say(f"largest |log of the stretch of a distance| / (Lip t): {max(stretch):.3f}")
claim("CE-18", largest(stretch))
claim("CE-19", largest(residuals))

# %% [markdown]
# (c) The proof rests on the function $\zeta$ of (5): whatever solution $(\mu_t)$ with $\mu_0=\alpha$ one has, it must satisfy
# $\int_0^1\int h\,d\mu_t\,dt=-\int\zeta(0,\cdot)\,d\alpha$, and the right side is known from $v$ and $\alpha$ alone. For affine fields and
# $h(t,x)=\sin^2(\pi t)\cos\langle k,x\rangle$ (of bounded derivatives, which is enough here) both sides are computed: $\zeta$ by
# quadrature along the flow lines, its derivatives by automatic differentiation; the left side in closed form from
# $\mathbb E\cos\langle k,X\rangle=\cos\langle k,m\rangle\,e^{-\langle k,\Sigma k\rangle/2}$ for $X\sim N(m,\Sigma)$.

# %%
nodes, node_weights = gauss_legendre(30)
transport_equation, determined = [], []
for d in (1, 2, 3):
    pair, k = affine_pair(d), unit(d)
    h = lambda s, x: torch.sin(math.pi * s) ** 2 * torch.cos(x @ k)

    def zeta(t, x):
        terms = [(1 - t) * w * h(t + (1 - t) * u, pair.flow((1 - t) * u)(x)) for u, w in zip(nodes, node_weights)]
        return -torch.stack(terms).sum(0)

    for t in (0.1, 0.6):
        t, x = torch.tensor(t), 2 * torch.randn(10, d, generator=rng)
        along = torch.func.jvp(zeta, (t, x), (torch.ones(()), pair.velocity(t, x)))[1]
        transport_equation.append((along - h(t, x)).abs().max())
    left = 0.0
    for t, weight in zip(nodes, node_weights):
        law = pair.law_at(t)
        left += weight * torch.sin(math.pi * t) ** 2 * torch.cos(k @ law.mean) * torch.exp(-0.5 * k @ law.cov @ k)
    x, mass = pair.p.quadrature(ORDER[d])
    determined.append((left + mass @ zeta(torch.tensor(0.0), x)).abs())
claim("CE-20", largest(transport_equation))
claim("CE-21", largest(determined))

# %% [markdown]
# (d) The density is carried along, $\log\rho_1(\varphi_1(x))=\log\alpha(x)-\int_0^1\mathrm{div}\,v$; here along the field of flow
# matching between two Gaussians that do not commute, whose end law is known. And the density is a gift of $\alpha$, not of the
# flow: if $\alpha$ lives on a line, then $\rho_1$ gives all its mass to a null set (found here by a fit to the moved points).

# %%
densities, mass_on_line = [], []
for d in (1, 2, 3):
    p, q = gaussian(d), gaussian(d)
    x = q.sample(20, generator=rng)
    found = log_prob(lambda t, x: fm_velocity(p, q, t, x), x, p.log_prob, steps=50, method="rk4")
    densities.append((found - q.log_prob(x)).abs().max())
for d in range(2, 7):
    pair, (s, mass) = affine_pair(d), Gaussian([0.0], [[1.0]]).quadrature()
    moved = integrate_adaptive(pair.velocity, torch.randn(d, generator=rng) + s * unit(d))
    _, _, axes_ = torch.linalg.svd(moved - moved.mean(0))
    off_line = ((moved - moved.mean(0)) @ axes_[1:].T).norm(dim=-1)
    mass_on_line.append(mass[off_line < 1e-8].sum())
claim("CE-22", largest(densities))
claim("CE-23", smallest(mass_on_line))

# %% [markdown]
# ### 4.3 What happens without the hypotheses (ours)
#
# **No linear growth: mass is lost.** $v(x)=x^2$ on the line is smooth, and Lipschitz on bounded sets. The line from $x_0>0$ is
# $x_0/(1-tx_0)$, which reaches infinity at time $1/x_0$. Of $N(0,1)$, the part $x_0\ge1$ does not arrive at time 1. The density of
# what arrives is $\rho_1(y)=\alpha\big(\tfrac{y}{1+y}\big)(1+y)^{-2}$ for $y>-1$, of mass $\Phi(1)=0.841$.
#
# **Not Lipschitz: two flow lines from one point.** $v(x)=2\sqrt{|x|}$ is continuous and of linear growth. From $x_0=0$ both
# $\gamma=0$ and $\gamma(t)=t^2$ are flow lines, and both $\delta_0$ and $\delta_{t^2}$ solve (CE). From $x_0>0$ the line is
# unique, $(\sqrt{x_0}+t)^2$: an error of $10^{-16}$ in the start is an error of 1 at the end.
#
# **Lipschitz for each $t$, but with $\int_0^1\mathrm{Lip}(v_t)\,dt=\infty$: one field, two solutions.** Let $X_1=-X_0$. All lines
# $(1-2t)x$ meet at time $\frac12$, in the point 0. Their velocity is $v_t(x)=-\frac{2x}{1-2t}$ for $t\ne\tfrac12$, $v_{1/2}=0$,
# with $\mathrm{Lip}(v_t)=\frac2{|1-2t|}$. $\int\int|v_t|\,d\mu_t\,dt=2\,\mathbb E|X_0|$ and the energy $4\,\mathbb E|X_0|^2$
# are finite, and yet after time $\frac12$ the lines $(1-2t)x$ and $|1-2t|x$ *both* solve $\dot\gamma=v_t(\gamma)$: there is no
# flow on $[0,1]$. So $\mu_t=\mathrm{Law}((1-2t)X_0)$ and $\mu_t=\mathrm{Law}(|1-2t|X_0)$ both solve
# (CE), with the same $v$ and the same $\mu_0$. They end in the laws of $-X_0$ and of $X_0$, which are $2|m|$ apart for
# $X_0\sim N(m,\Sigma)$. What takes the place of the flow, superposition and mollification, and the energy of this pair:
# [proofs/02](02_benamou_brenier.ipynb), section 3.

# %%
arrived, _ = quad(lambda y: math.exp(-0.5 * (y / (1 + y)) ** 2) / math.sqrt(2 * math.pi) / (1 + y) ** 2, -1, math.inf)
claim("CE-24", 1 - arrived)

one, root_field = torch.ones(1), (lambda t, x: 2 * x.abs().sqrt())
lines = [lambda t: (torch.full((1, 1), 0.0 * t), one), lambda t: (torch.full((1, 1), t**2), one)]
claim("CE-25", largest(weak_residual(line, root_field, wave(1), times=24) for line in lines))
claim("CE-26", integrate_adaptive(root_field, [[0.0], [1e-16]], atol=1e-20).diff(dim=0).abs())

u, w = gauss_legendre(14)
halves = torch.cat([0.5 * u, 0.5 + 0.5 * u]), torch.cat([0.5 * w, 0.5 * w])
crossing, apart = [], []
for d in DIMENSIONS:
    p = gaussian(d)
    x, mass = p.quadrature(ORDER[d])
    blow_up = lambda t, x: -2 * x / (1 - 2 * t)
    paths = [lambda t: ((1 - 2 * t) * x, mass), lambda t: (abs(1 - 2 * t) * x, mass)]
    crossing += [weak_residual(path, blow_up, zeta, times=halves) for path in paths for zeta in test_functions(d)]
    ends = [Gaussian(sign * p.mean, p.cov) for sign in (-1, 1)]
    apart.append(w2_squared(*ends).sqrt() / p.mean.norm())
claim("CE-27", largest(crossing))
claim("CE-28", smallest(apart))

# %% [markdown]
# ![Walks in three winds against time: with x squared, who starts above 1 runs to infinity before time 1; with twice the root of |x|, many leave 0; with -2x/(1-2t), all meet in 0 at time one half and then pass it or turn back.](../../figures/01_continuity_equation/three_failures.png)

# %%
errata.box("N-05")

# %%
errata.box("N-07")

# %% [markdown]
# ## 5. McCann's pair
#
# ### 5.1 Its field
#
# From here on: $\alpha,\beta\in\mathcal P_2(\mathbb R^d)$, $\alpha\ll\lambda^d$, and $T=\nabla\Psi$ is the Brenier map from $\alpha$ to
# $\beta$: $\Psi$ is convex, $T_\#\alpha=\beta$ and $\int|T(x)-x|^2\,d\alpha=W_2^2(\alpha,\beta)$. $D$ is the set where $\Psi$ is
# differentiable, a Borel set with $\alpha(D)=1$. McCann's interpolation is
#
# $$
# T_t(x)=(1-t)\,x+t\,T(x),\qquad \mu_t=(T_t)_\#\alpha .
# $$
#
# A particle that starts in $x$ is in $T_t(x)$ at time $t$ and always has the velocity $T(x)-x$. To call this a *field*, one
# needs to know which particle is in the point $y$ at time $t$: that $T_t$ is injective.
#
# **Proposition 3.** *Before the end no two particles meet, so that each point has one velocity.* For $0\le t<1$:
#
# - (a) $\langle T_t(x)-T_t(y),x-y\rangle\ge(1-t)\,|x-y|^2$ for $x,y\in D$. So $T_t$ is injective on $D$, and
#   $T_t^{-1}:T_t(D)\to D$ is Lipschitz with constant $\frac1{1-t}$;
# - (b) $\mu_t\ll\lambda^d$;
# - (c) $v_t=(T-\mathrm{Id})\circ T_t^{-1}$ is defined on $T_t(D)$, hence $\mu_t$-almost everywhere, and
#   $v_t\circ T_t=T-\mathrm{Id}$ on $D$;
# - (d) (ours) for $0 < t < 1$, $v_t$ is Lipschitz on $T_t(D)$ with constant $\max\big(\frac1t,\frac1{1-t}\big)$.
#
# *Proof.* (a) Gradients of convex functions are monotone: add $\Psi(y)\ge\Psi(x)+\langle T(x),y-x\rangle$ and the same
# inequality with $x$ and $y$ exchanged to get $\langle T(x)-T(y),x-y\rangle\ge0$. So
# $\langle T_t(x)-T_t(y),x-y\rangle=(1-t)|x-y|^2+t\langle T(x)-T(y),x-y\rangle\ge(1-t)|x-y|^2$. By Cauchy–Schwarz
# $|T_t(x)-T_t(y)|\ge(1-t)|x-y|$, which is the rest.
#
# (b) If $\lambda^d(N)=0$, then $T_t^{-1}(N\cap T_t(D))$ is a null set, as the image of a null set by a Lipschitz map. $\alpha$
# gives it no mass, so $\mu_t(N)=0$.
#
# (c) $T_t(D)$ is a Borel set and $T_t^{-1}$ a Borel map, because $T_t$ is Borel and injective (Lusin–Souslin; applied to
# $(t,x)\mapsto(t,T_t(x))$, the same theorem gives that $v$ is Borel in $(t,x)$). $\mu_t(T_t(D))\ge\alpha(D)=1$. Outside of
# $T_t(D)$ put $v_t=0$.
#
# (d) Let $a,b\in T_t(D)$ and let $\Delta$ denote differences, $\Delta=a-b$, and
# $\Delta P=(1-t)\big(T_t^{-1}(a)-T_t^{-1}(b)\big)$. Then (a) reads $\langle\Delta,\Delta P\rangle\ge|\Delta P|^2$, so
# $|2\Delta P-\Delta|^2=4|\Delta P|^2-4\langle\Delta,\Delta P\rangle+|\Delta|^2\le|\Delta|^2$. From $a=x+t(T(x)-x)$ we get
# $v_t(a)=\frac1t(a-T_t^{-1}(a))$, so
#
# $$
# v_t(a)-v_t(b)=\frac1t\Big(\Delta-\frac{\Delta P}{1-t}\Big)=\frac1t\Big[\Big(1-\frac1{2(1-t)}\Big)\Delta-\frac1{2(1-t)}\,(2\Delta P-\Delta)\Big],
# $$
#
# of length at most $\frac1t\big(\big|1-\frac1{2(1-t)}\big|+\frac1{2(1-t)}\big)|\Delta|$. This is $\frac1t|\Delta|$ if $t\le\frac12$ and
# $\frac1t\big(\frac1{1-t}-1\big)|\Delta|=\frac1{1-t}|\Delta|$ if $t\ge\frac12$. $\square$

# %%
errata.box("N-06")

# %% [markdown]
# We keep three kinds of examples for the rest of the notebook, each with its own way to invert $T_t$:
#
# - *Gaussians* in dimensions 1 to 6: $T$ is affine, and $T_t^{-1}$ is a linear solve.
# - *Mixtures on the line*: $T=F_\beta^{-1}\circ F_\alpha$. Then $T_t^{-1}(y)=x$, where $(x,z)$ is the unique pair with
#   $F_\alpha(x)=F_\beta(z)$ and $(1-t)x+tz=y$: one equation with a monotone left side in one unknown ($z$ if $t\le\frac12$,
#   else $x$), solved by bisection. The velocity is $z-x$.
# - *A Brenier map that is not affine*, in dimensions 2, 3 and 5: $T=\nabla\Psi$ with
#   $\Psi(x)=\frac12\langle x,Mx\rangle+\log\sum_ke^{\langle w_k,x\rangle+e_k}$,
#   that is $T(x)=Mx+\sum_kp_k(x)\,w_k$ with $p=\mathrm{softmax}$. Being the gradient of a convex function, $T$ is optimal
#   between *any* $\alpha$ of $\mathcal P_2$ and $T_\#\alpha$. $T_t^{-1}$ is found by Newton's method.

# %%
@dataclass
class Interpolation:
    """McCann's interpolation: the map T, its law's quadrature, and inverse(t, y), the x with (1 − t)x + tT(x) = y."""

    transport: callable
    inverse: callable
    nodes: torch.Tensor
    masses: torch.Tensor

    def place(self, t, x):
        return (1 - t) * x + t * self.transport(x)

    def path(self, t):
        return self.place(t, self.nodes), self.masses

    def velocity(self, t, y):
        x = self.inverse(t, y)
        return self.transport(x) - x


def gaussian_interpolation(p, q):
    T, eye = monge_map(p, q), torch.eye(p.dim)
    inverse = lambda t, y: torch.linalg.solve((1 - t) * eye + t * T.matrix, (y - t * T.offset).mT).mT
    return Interpolation(T, inverse, *p.quadrature(ORDER[p.dim]))

# %%
def cdf(law, x):
    return law.cdf(x.reshape(-1, 1)).reshape(x.shape)


def pdf(law, x):
    return law.log_prob(x.reshape(-1, 1)).exp().reshape(x.shape)


def mirrored(law):
    """The law of −X, whose cdf has the right tail to rounding."""
    return GaussianMixture(law.weights, -law.means, law.covs)


def mixture(k):
    weights = 0.5 + torch.rand(k, generator=rng)
    means = torch.linspace(-1.2, 1.2, k) + 0.4 * torch.rand(k, generator=rng) - 0.2
    return GaussianMixture(weights / weights.sum(), means[:, None], (0.65 + 0.25 * torch.rand(k, 1, 1, generator=rng)).square())


def solve_pair(a, b, t, y):
    """The x and z = T(x) with (1 − t)x + tz = y, by bisection; t broadcasts with y."""
    t, y = torch.broadcast_tensors(torch.as_tensor(t), y)
    early, a_left, b_left = t <= 0.5, mirrored(a), mirrored(b)
    low, high = torch.full_like(y, -30.0), torch.full_like(y, 30.0)
    for _ in range(54):
        u = 0.5 * (low + high)
        x, z = torch.where(early, (y - t * u) / (1 - t).clamp_min(0.5), u), torch.where(early, u, (y - (1 - t) * u) / t.clamp_min(0.5))
        Fx, Fz = cdf(a, x), cdf(b, z)
        gap = torch.where(Fx < 0.5, Fz - Fx, cdf(a_left, -x) - cdf(b_left, -z))  # the tail with the smaller rounding error
        below = torch.where(early, gap, -gap) < 0
        low, high = torch.where(below, u, low), torch.where(below, high, u)
    return x, z


def line_interpolation(a, b, n=300, reach=9.0):
    transport = lambda x: solve_pair(a, b, 0.0, x)[1]
    cells = reach * (2 * torch.arange(n) + 1 - n) / n
    case = Interpolation(transport, lambda t, y: solve_pair(a, b, t, y)[0], cells[:, None], pdf(a, cells) * 2 * reach / n)
    case.velocity = lambda t, y: torch.sub(*reversed(solve_pair(a, b, t, y)))  # z − x: one bisection in the place of two
    return case

# %%
@dataclass
class SoftmaxMap:
    """T = ∇Ψ for Ψ(x) = ½⟨x, Mx⟩ + log Σ_k exp(⟨w_k, x⟩ + e_k)."""

    stretch: torch.Tensor
    slopes: torch.Tensor
    heights: torch.Tensor

    def __call__(self, x):
        return x @ self.stretch + torch.softmax(x @ self.slopes.T + self.heights, -1) @ self.slopes

    def jacobian(self, x):
        share = torch.softmax(x @ self.slopes.T + self.heights, -1)
        mean = share @ self.slopes
        return self.stretch + torch.einsum("nk,ki,kj->nij", share, self.slopes, self.slopes) - mean[:, :, None] * mean[:, None, :]

    def inverse(self, t, y):
        """T_t⁻¹(y) by Newton's method; of six step lengths the one with the smallest residual is taken."""
        x, lengths = y, 0.5 ** torch.arange(6.0)[:, None, None]
        for _ in range(40):
            matrix = (1 - t) * torch.eye(y.shape[1]) + t * self.jacobian(x)
            trial = x - lengths * torch.linalg.solve(matrix, (1 - t) * x + t * self(x) - y)
            miss = ((1 - t) * trial + t * self(trial) - y).norm(dim=-1)
            x = trial[miss.argmin(0), torch.arange(len(y))]
            if miss.amin(0).max() < 1e-14:
                break
        return x


def softmax_interpolation(d):
    M = gaussian(d).cov
    T = SoftmaxMap(0.3 * torch.eye(d) + 0.2 * M / torch.linalg.matrix_norm(M, 2), 1.3 * torch.randn(4, d, generator=rng), torch.randn(4, generator=rng))
    p = gaussian(d)
    return Interpolation(T, T.inverse, *p.quadrature({2: 14, 3: 8, 5: 3}[d]))

# %%
laws = [(gaussian(d), gaussian(d)) for d in DIMENSIONS for _ in range(instances)]
gaussians = [gaussian_interpolation(p, q) for p, q in laws]
mixtures = mixture(2), mixture(3)
line = line_interpolation(*mixtures)
softmaxes = [softmax_interpolation(d) for d in (2, 3, 5)]

defect, inverted, steepness = [], [], []
for case in (*gaussians, line, *softmaxes):
    for t in (0.1, 0.5, 0.8, 0.97):
        x, y = (case.nodes[torch.randint(len(case.nodes), (40,), generator=rng)] for _ in range(2))
        if case is line:  # midway, so that the tails of the law do not dominate
            x, y = 0.3 * x, 0.3 * y
        x, y = (points[(x - y).norm(dim=-1) > 1e-6] for points in (x, y))
        a, b = case.place(t, x), case.place(t, y)
        inner = ((a - b) * (x - y)).sum(-1) / (x - y).square().sum(-1)
        defect.append((1 - t - inner).max())
        va, vb = case.velocity(t, a), case.velocity(t, b)
        inverted.append(((va - (case.transport(x) - x)).norm(dim=-1) / (1 + x.norm(dim=-1))).max())
        steepness.append(((va - vb).norm(dim=-1) / (a - b).norm(dim=-1)).max() * min(t, 1 - t))
claim("CE-29", largest(defect))
claim("CE-30", largest(inverted))
claim("CE-31", largest(steepness))

# %% [markdown]
# **The bound (d) is sharp at every time, and $t=1$ is excluded with reason (ours).** *For $t\ge\frac12$ it is attained.* Let
# $\alpha=N(0,1)$ and $\beta=\frac12(\delta_{-1}+\delta_1)$, so $T(x)=\mathrm{sign}(x)$. For $|y|>t$ the particle in $y$ started
# from $\frac{y-t\,\mathrm{sign}(y)}{1-t}$, and $v_t(y)=\frac{\mathrm{sign}(y)-y}{1-t}$; no particle is in $]-t,t[$. On either
# side the Lipschitz constant is exactly $\frac1{1-t}$.
#
# *For $t\le\frac12$ it is approached.* $T(x)=kx$ has $v_t(y)=\frac{k-1}{1-t+tk}\,y$, whose slope tends to $\frac1t$ as
# $k\to\infty$; it is less than $\frac1t$ for every $k$.
#
# *At $t=1$*, for $T=\mathrm{sign}$, all particles with $x>0$ are in the point 1, with the velocities $1-x$: their variance
# is $1-\frac2\pi=0.363$, where a field $v_1$ would give one velocity, hence variance 0.

# %%
half_normal = lambda x: 2 * math.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
speed, speed2 = (quad(lambda x: (1 - x) ** power * half_normal(x), 0, math.inf)[0] for power in (1, 2))
claim("CE-32", speed2 - speed**2)

remaining = 0.5 ** torch.arange(1, 11)
steep = []
for t in 1 - remaining:
    x = torch.linspace(0.1, 3, 50)[:, None]
    y, moving = (1 - t) * x + t * torch.sign(x), torch.sign(x) - x
    steep.append((moving.diff(dim=0) / y.diff(dim=0)).abs().max())
claim("CE-33", float(np.polyfit(remaining.log(), torch.stack(steep).log(), 1)[0]))

early = []
for t in (0.1, 0.25, 0.5):
    shrunk, wide = Gaussian([0.0], [[1.0]]), Gaussian([0.0], [[1e8]])  # T(x) = 10⁴ x
    slope = mccann_velocity(shrunk, wide)(t, torch.ones(1, 1)).item()
    early.append(t * slope)
claim("CE-56", smallest(early))

# %% [markdown]
# **In pictures.** A Brenier map that moves a normal law towards three heaps. The density of $\mu_t$ is
# $\rho_t(T_t(x))=\alpha(x)/\det\nabla T_t(x)$; the arrows are the velocities of particles, the same for each particle at all times.

# %%
corners = torch.stack([torch.tensor([math.cos(a), math.sin(a)]) for a in (0.3, 2.5, 4.5)])
heaps = SoftmaxMap(0.25 * torch.eye(2), 2.4 * corners, torch.tensor([0.0, 0.3, -0.2]))
extent = (-3.4, 3.4)
grid = torch.cartesian_prod(*[torch.linspace(*extent, 110)] * 2)
dots = 0.9 * torch.randn(26, 2, generator=torch.Generator().manual_seed(3))
fig, axes = plt.subplots(1, 4, figsize=(11.5, 3.3), sharex=True, sharey=True)
titles = "$t=0$: one heap", r"$t=\frac{1}{3}$: it parts", r"$t=\frac{2}{3}$: everybody goes straight", "$t=1$: three heaps"
for ax, t, title in zip(axes, (0.0, 1 / 3, 2 / 3, 1.0), titles):
    x = heaps.inverse(t, grid)
    density = normal2.log_prob(x).exp() / torch.linalg.det((1 - t) * torch.eye(2) + t * heaps.jacobian(x))
    ax.imshow(density.reshape(110, 110).T, extent=extent * 2, origin="lower", cmap="Greys", vmin=0, vmax=float(density.max()) * 1.25)
    now = (1 - t) * dots + t * heaps(dots)
    ax.plot(*now.T, ".", color=ROLES["optimal"], ms=6)
    if t < 1:
        ax.quiver(*now.T, *(heaps(dots) - dots).T, color=ROLES["optimal"], angles="xy", scale_units="xy", scale=4, width=0.006)
    ax.set(title=title, xlabel="$x_1$", aspect="equal", xticks=(-2, 0, 2), yticks=(-2, 0, 2))
axes[0].set_ylabel("$x_2$")
show(fig, "mccann_path", alt="The density of McCann's interpolation at times 0, one third, two thirds and 1 in the plane, from a normal law to three heaps, with particles and their constant velocities as arrows.")

# %% [markdown]
# ### 5.2 Its energy, line by line
#
# **Proposition 4.** *Everybody walks at constant speed, so the energy is what the walks cost.*
# $\displaystyle\int_0^1\int|v_t|^2\,d\mu_t\,dt=W_2^2(\alpha,\beta)$.
#
# *Proof*, in the four lines of the notes:
#
# $$
# \begin{aligned}
# \int_0^1\int|v_t(x)|^2\,d\mu_t(x)\,dt&=\int_0^1\int|v_t(T_t(x))|^2\,d\alpha(x)\,dt &&\text{(1) change of variables, } \mu_t=(T_t)_\#\alpha\\
# &=\int_0^1\int|T(x)-x|^2\,d\alpha(x)\,dt &&\text{(2) } v_t\circ T_t=T-\mathrm{Id} \text{ on } D,\ t<1\\
# &=\int|T(x)-x|^2\,d\alpha(x) &&\text{(3) the integrand does not depend on } t\\
# &=W_2^2(\alpha,\beta) &&\text{(4) } T \text{ is optimal.}
# \end{aligned}
# $$
#
# $\square$ The computation in the notes is right. Each line has its reason, and each is checked with different means: line 1
# compares an integral over space with the density of $\mu_t$ (*Eulerian*: Gauss–Hermite nodes of $N(m_t,\Sigma_t)$; on the line a grid with
# $\rho_t(y)=\big(\frac{1-t}{\alpha(x)}+\frac t{\beta(z)}\big)^{-1}$, the notation of 5.1) with one over the particles (*Lagrangian*);
# lines 2 and 3 look at the energy of *each* time; line 4 compares with POT's Bures distance for Gaussians, with the
# quantile formula $W_2^2=\int_0^1|F_\beta^{-1}-F_\alpha^{-1}|^2du$ on the line, and with a linear program over all couplings
# for the softmax map of 5.1.

# %%
def eulerian_line(a, b, times, n, reach=9.0):
    """The path and the velocity of the mixture pair on a fixed grid, at t = 0, 1 and at the quadrature times."""
    cells = reach * (2 * torch.arange(n) + 1 - n) / n
    x, z = solve_pair(a, b, times[:, None], cells)
    density = 1 / ((1 - times[:, None]) / pdf(a, x) + times[:, None] / pdf(b, z))
    table = {t: (rho, v) for t, rho, v in zip(times.tolist(), density, z - x)} | {0.0: (pdf(a, cells), None), 1.0: (pdf(b, cells), None)}
    return lambda t: (cells[:, None], table[t][0] * 2 * reach / n), lambda t, y: table[t][1][:, None]


time_order = 240 if preset == "full" else 130
line_path, line_velocity = eulerian_line(*mixtures, gauss_legendre(time_order)[0], 1600 if preset == "full" else 450)

line1, line23, line4 = [], [], []
for (p, q), case in zip(laws, gaussians):
    transport_cost = case.masses @ (case.transport(case.nodes) - case.nodes).square().sum(-1)
    euler = kinetic_energy(path_quadrature(lambda t: geodesic(p, q, t), ORDER[p.dim]), case.velocity, times=12)
    line1.append(abs(euler / kinetic_energy(case.path, case.velocity, times=12) - 1))
    line23 += [abs(kinetic_energy(case.path, case.velocity, times=(torch.tensor([t]), one)) / transport_cost - 1) for t in (0.0, 0.2, 0.9)]
    pot = ot.gaussian.bures_wasserstein_distance(*(part.numpy() for part in (p.mean, q.mean, p.cov, q.cov)))
    line4.append(abs(transport_cost / float(pot) ** 2 - 1))

transport_cost = line.masses @ (line.transport(line.nodes) - line.nodes).square().sum(-1)
line1.append(abs(kinetic_energy(line_path, line_velocity, times=time_order) / kinetic_energy(line.path, line.velocity, times=4) - 1))
line23 += [abs(kinetic_energy(line.path, line.velocity, times=(torch.tensor([t]), one)) / transport_cost - 1) for t in (0.0, 0.2, 0.9)]
levels, standard = torch.linspace(-8.5, 8.5, 1500), GaussianMixture([1.0], [[0.0]], [[1.0]])
quantiles = [solve_pair(standard, law, 0.0, levels)[1] for law in mixtures]  # F⁻¹(Φ(level))
line4.append(abs(transport_cost / torch.trapezoid((quantiles[1] - quantiles[0]).square() * pdf(standard, levels), levels) - 1))

clouds = [1.2 * torch.randn(60, case.nodes.shape[1], generator=rng) for case in softmaxes]
uniform = np.full(60, 1 / 60)
for case, x in zip(softmaxes, clouds):
    z = case.transport(x)
    line23 += [abs(case.velocity(t, case.place(t, x)).square().sum() / (z - x).square().sum() - 1) for t in (0.0, 0.2, 0.9)]
    line4.append(abs((z - x).square().sum() / 60 / ot.emd2(uniform, uniform, ot.dist(x.numpy(), z.numpy())) - 1))
claim("CE-34", largest(line1))
claim("CE-35", largest(line23))
claim("CE-36", largest(line4))

# %% [markdown]
# Line 4 needs the optimality of $T$, and so does the definition of $v_t$ (for $T=-\mathrm{Id}$ all particles meet at
# $t=\frac12$). For another map $S$ with $S_\#\alpha=\beta$ line 3 ends at $\int|S(x)-x|^2\,d\alpha>W_2^2$. For the example and
# $S=\varphi_1$, the end map of flow matching with independent ends, the excess is 0.0141: small, because $\varphi_1$ is nearly
# symmetric there, but not 0 ([proofs/04](04_gaussian_exercises.ipynb), exercise 4).

# %%
S, (x, mass) = fm_flow(*example, 1.0), example[0].quadrature()
claim("CE-37", mass @ (S(x) - x).square().sum(-1) - w2_squared(*example))

# %% [markdown]
# ### 5.3 It solves the continuity equation
#
# The notes leave this proof as "…".
#
# **Proposition 5.** *Along a walk of the particle, the chain rule is the whole proof.*
# $\big((T_t)_\#\alpha,\;(T-\mathrm{Id})\circ T_t^{-1}\big)\in\mathcal V(\alpha,\beta)$: the pair satisfies (CE) as
# defined in section 1, with $\mu_0=\alpha$ and $\mu_1=\beta$.
#
# *Proof.* *The path.* $T_0=\mathrm{Id}$ and $T_1=T$, so $\mu_0=\alpha$ and $\mu_1=T_\#\alpha=\beta$. For $f$ bounded and continuous,
# $t\mapsto f(T_t(x))$ is continuous for each $x\in D$ and bounded by $\max|f|$, so
# $t\mapsto\int f\,d\mu_t=\int f(T_t(x))\,d\alpha(x)$ is continuous by dominated convergence: the path is narrowly continuous.
#
# *The field.* It is Borel and defined $\mu_t$-a.e. for $t<1$ (Proposition 3). By change of variables and Cauchy–Schwarz,
# $\int|v_t|\,d\mu_t=\int|T(x)-x|\,d\alpha\le W_2(\alpha,\beta)$ for each $t<1$, so $\int_0^1\int|v_t|\,d\mu_t\,dt<\infty$.
#
# *The equation.* Let $\zeta\in C_c^\infty([0,1]\times\mathbb R^d)$. For $t<1$, by $\mu_t=(T_t)_\#\alpha$ and
# $v_t\circ T_t=T-\mathrm{Id}=\partial_tT_t$ on $D$,
#
# $$
# \int\big(\partial_t\zeta+\langle\nabla\zeta,v_t\rangle\big)\,d\mu_t
# =\int\Big[\partial_t\zeta(t,T_t(x))+\big\langle\nabla\zeta(t,T_t(x)),\,\partial_tT_t(x)\big\rangle\Big]d\alpha(x)
# =\int\frac{d}{dt}\Big[\zeta\big(t,T_t(x)\big)\Big]d\alpha(x).
# $$
#
# The last integrand is bounded by $C(1+|T(x)-x|)$ with $C=\max(|\partial_t\zeta|+|\nabla\zeta|)$. This is integrable with respect to
# $\alpha\otimes dt$, so that Fubini's theorem applies when we integrate over $t\in[0,1]$ (the time $t=1$ does not matter for the integral):
#
# $$
# \int_0^1\int\big(\partial_t\zeta+\langle\nabla\zeta,v_t\rangle\big)\,d\mu_t\,dt
# =\int\int_0^1\frac{d}{dt}\Big[\zeta\big(t,T_t(x)\big)\Big]dt\,d\alpha(x)
# =\int\big[\zeta(1,T(x))-\zeta(0,x)\big]\,d\alpha(x)=\int\zeta_1\,d\beta-\int\zeta_0\,d\alpha .
# $$
#
# This is (1). For $\zeta$ supported in $]0,1[\times\mathbb R^d$ the right side is 0: the form of the notes. $\square$
#
# With Proposition 4 this gives the inequality of the notes,
# $W_2^2(\alpha,\beta)\ge\inf_{(\mu,v)\in\mathcal V(\alpha,\beta)}\int_0^1\int|v_t|^2\,d\mu_t\,dt$; that it is an equality is
# proved in [proofs/02](02_benamou_brenier.ipynb). Optimality of $T$ was used for one thing only: $T_t$ is injective, so that a
# field exists.
#
# **Checks.** Gaussians in dimensions 1 to 6 with smooth test functions (the nodes are those of the law $N(m_t,\Sigma_t)$, not
# moved particles); the same with bumps of compact support on a grid in the plane; the mixtures on the line with bumps, on a
# grid, with $\rho_t$ and $v_t$ from the pair $(x,z)$; the softmax map with particles, where $v_t$ has to find out by Newton's
# method which particle is where; and, for Gaussians, the strong form at random points. A bump centred at time $\frac12$
# vanishes near the ends; those centred at times 0 and 1 do not.

# %%
smooth, in_plane, strong = [], [], []
for (p, q), case in zip(laws, gaussians):
    path = cache(path_quadrature(lambda t: geodesic(p, q, t), ORDER[p.dim]))
    smooth += [weak_residual(path, case.velocity, zeta, times=20) for zeta in test_functions(p.dim)]
    rho = lambda t, x: geodesic(p, q, t).log_prob(x).exp()
    for t in (0.0, 0.3, 0.8, 1.0):
        x = geodesic(p, q, t).sample(20, generator=rng)
        strong.append((strong_residual(rho, case.velocity, t, x) / rho(torch.tensor(t), x)).abs().max())
claim("CE-38", largest(smooth))
claim("CE-39", largest(strong))

cells = 200 if preset == "full" else 100
for p, q, centre_times in ((*example, (0.0, 0.5)), (gaussian(2), gaussian(2), (1.0,))):
    case, centre = gaussian_interpolation(p, q), geodesic(p, q, 0.5).mean
    for time in centre_times:
        path = box_quadrature(lambda t: geodesic(p, q, t), centre, 3.2, cells)
        in_plane.append(weak_residual(path, case.velocity, ellipsoid(time, centre, 3.2), times=cells))
claim("CE-40", largest(in_plane))

# %%
on_line, by_particles = [], []
for time, centre in ((0.5, 0.0), (0.5, 0.8), (0.0, -0.5), (1.0, 0.4)):
    on_line.append(weak_residual(line_path, line_velocity, ellipsoid(time, torch.tensor([centre]), 3.6), times=time_order))
for case in softmaxes:
    found = cache(lambda t: case.velocity(t, case.path(t)[0]))  # by Newton's method, at the nodes of the path
    by_particles += [weak_residual(case.path, lambda t, x: found(t), zeta, times=24) for zeta in test_functions(case.nodes.shape[1])]
claim("CE-41", largest(on_line))
claim("CE-42", largest(by_particles))

# %% [markdown]
# **The wrong field.** A tempting mistake is to leave out $T_t^{-1}$ and to give the particle that *is* in $x$ the velocity $T(x)-x$ of the
# particle that *started* there. This is right at $t=0$ only.

# %%
forgotten = []
for (p, q), case in zip(laws, gaussians):
    path, frozen = cache(path_quadrature(lambda t: geodesic(p, q, t), ORDER[p.dim])), lambda t, x: case.transport(x) - x
    forgotten.append(largest(weak_residual(path, frozen, zeta, times=20) for zeta in test_functions(p.dim)))
claim("CE-43", largest(forgotten))

# %% [markdown]
# How do we know that a residual of $10^{-10}$ is the error of the quadrature, and one of $10^{-2}$ is not? Refine. For the true
# field the residual falls until it meets rounding, faster than any power of the number of nodes; for the wrong field it stays.

# %%
case, centre = gaussian_interpolation(*example), geodesic(*example, 0.5).mean
frozen = lambda t, x: case.transport(x) - x
plane_wave, small_bump = (lambda t, x: torch.cos(x @ torch.tensor([0.9, -0.5]) + 2 * t)), ellipsoid(0.5, centre, 3.2)
hermite, grids = (1, 2, 3, 4, 6, 8, 10, 12, 14, 16), (10, 14, 20, 28, 40, 56, 70)
fig, axes = plt.subplots(1, 2, figsize=(9.2, 3.6), sharey=True)
for ax, sizes, zeta in zip(axes, (hermite, grids), (plane_wave, small_bump)):
    found = []
    for n in sizes:
        law_at = lambda t: geodesic(*example, t)
        path = cache(box_quadrature(law_at, centre, 3.2, n) if sizes is grids else path_quadrature(law_at, n))
        found.append([weak_residual(path, velocity, zeta, times=n) for velocity in (case.velocity, frozen)])
    right, wrong = np.array(found).T
    ax.semilogy(sizes, right + 1e-17, "o-", color=ROLES["optimal"], ms=4, label=r"$(T-\mathrm{Id})\circ T_t^{-1}$")
    ax.semilogy(sizes, wrong, "s--", color=ROLES["wrong"], ms=4, label=r"$T-\mathrm{Id}$ (wrong)")
axes[0].set(xlabel="nodes per axis and in time (Gauss)", ylabel="relative residual of (1)", title="plane wave: the right field falls to rounding", ylim=(1e-17, 3))
axes[1].set(xlabel="cells per axis, nodes in time", title="bump of compact support: the wrong one stays")
axes[0].legend(loc="center right")
show(fig, "residual_against_quadrature", alt="Relative weak residual against quadrature order on a logarithmic scale, for a plane wave and for a bump: it falls to rounding level for McCann's velocity and stays near a few per cent for the wrong velocity.")

# %% [markdown]
# ### 5.4 $T_t$ is the flow of $v_t$
#
# **Proposition 6.** *The walks of the particles are the only flow lines of the field.* For $x\in D$, $t\mapsto T_t(x)$ is a
# flow line of $v_t$ on $[0,1[$. It is the only continuous curve $\gamma$ on $[0,1]$ with $\gamma(0)=x$ that is a flow line in
# $\lbrace(t,y):0 < t < 1,\ y\in T_t(D)\rbrace$ (uniqueness is ours).
#
# *Proof.* $\partial_tT_t(x)=T(x)-x=v_t(T_t(x))$ by Proposition 3(c). Uniqueness: at some time $t_0\in]0,1[$ we have
# $\gamma(t_0)=T_{t_0}(x')$ with an $x'\in D$. By Proposition 3(d), $r(t)=|\gamma(t)-T_t(x')|$ satisfies
# $|r(t)-r(t_0)|\le\big|\int_{t_0}^t\max(\frac1s,\frac1{1-s})\,r(s)\,ds\big|$, and $r(t_0)=0$.
# Gronwall's inequality on compact intervals in $]0,1[$ gives $r=0$ on $]0,1[$. As $t\to0$, $\gamma(t)=T_t(x')\to x'$, so
# $x'=x$; and $\gamma(1)=T(x)$ by continuity. $\square$
#
# Theorem 1 does not apply as it stands: $v_t$ need not be Lipschitz at $t=0$ and at $t=1$. But Proposition 3(d) holds for *every* pair
# $\alpha,\beta$, so McCann's field is as good as Theorem 1 asks on each $[\varepsilon,1-\varepsilon]$. Particles do not accelerate:
# if $v$ is $C^1$, $\frac{d}{dt}[v(t,T_t(x))]=\frac{d}{dt}[T(x)-x]=0$ reads
#
# $$
# \partial_tv+(\nabla v)\,v=0 .
# \tag{6}
# $$
#
# The velocity of flow matching with independent ends does not satisfy (6): its flow lines are bent. The picture shows both
# between two mixtures on the line.
#
# ![Density and walks of twenty people from two heaps to three on the line: straight for McCann, bent for flow matching, with the same ends.](../../figures/01_continuity_equation/straight_and_bent.png)

# %%
arrival, acceleration, bent = [], [], []
for number, case in enumerate((line, *gaussians, *softmaxes)):
    t = (1.0, 0.6)[number % 2]
    x = case.nodes[torch.randint(len(case.nodes), (8,), generator=rng)] * (0.3 if case is line else 1.0)
    arrived = integrate_adaptive(case.velocity, x, t1=t, rtol=1e-11)
    arrival.append(((arrived - case.place(t, x)).norm(dim=-1) / (1 + x.norm(dim=-1))).max())
for (p, q), case in zip(laws, gaussians):
    for v, found in ((case.velocity, acceleration), (lambda t, x: fm_velocity(p, q, t, x), bent)):
        x = geodesic(p, q, 0.4).sample(20, generator=rng)
        material = torch.func.jvp(v, (torch.tensor(0.4), x), (torch.ones(()), v(0.4, x)))[1]
        found.append(material.square().mean().sqrt())
claim("CE-44", largest(arrival))
claim("CE-45", largest(acceleration))
claim("CE-46", smallest(bent))

# %% [markdown]
# ## 6. Geodesics of constant speed
#
# **Definition.** A metric space $(\mathcal X,\mathsf d)$ is a *geodesic space* if any $x,y\in\mathcal X$ are joined by a curve
# $\gamma:[0,1]\to\mathcal X$ with $\gamma(0)=x$, $\gamma(1)=y$ and $\mathsf d(\gamma(s),\gamma(t))=|s-t|\,\mathsf d(x,y)$ for all $s,t$.
#
# **Proposition 7.** *Going straight and evenly, nobody gains or loses ground.* McCann's interpolation is such a curve in
# $(\mathcal P_2(\mathbb R^d),W_2)$: $W_2(\mu_s,\mu_t)=|s-t|\,W_2(\alpha,\beta)$.
#
# *Proof.* *At most:* $(T_s,T_t)_\#\alpha$ is a coupling of $\mu_s$ and $\mu_t$, of cost
# $\int|T_s-T_t|^2\,d\alpha=(s-t)^2\int|T(x)-x|^2\,d\alpha=(s-t)^2W_2^2(\alpha,\beta)$. *At least:* let $s < t$. By the triangle
# inequality ([proofs/00](00_start_here.ipynb)) and the bound just shown,
#
# $$
# W_2(\alpha,\beta)\le W_2(\mu_0,\mu_s)+W_2(\mu_s,\mu_t)+W_2(\mu_t,\mu_1)\le\big(s+(t-s)+(1-t)\big)W_2(\alpha,\beta)=W_2(\alpha,\beta).
# $$
#
# All inequalities are equalities, in each of the three terms. $\square$
#
# (If $\alpha$ has no density, $T$ is replaced by an optimal coupling $(X_0,X_1)$ and $\mu_t$ by the law of $(1-t)X_0+tX_1$; the
# proof is the same, so $\mathcal P_2$ is a geodesic space.)
#
# Checked with distances that know nothing of the map: Bures' formula of POT between $N(m_s,\Sigma_s)$ and $N(m_t,\Sigma_t)$ in
# dimensions 1 to 6; on the line the coupling by quantiles; a linear program over all couplings of 60 particles for the softmax map of 5.1.

# %%
on_gaussians, on_the_line, by_program = [], [], []
steps = ((0.0, 0.3), (0.25, 0.6), (0.4, 1.0), (0.9, 0.95))
for p, q in laws:
    for s, t in steps:
        ends = [geodesic(p, q, time) for time in (s, t)]
        pot = ot.gaussian.bures_wasserstein_distance(*(f.numpy() for f in (ends[0].mean, ends[1].mean, ends[0].cov, ends[1].cov)))
        on_gaussians.append(abs(float(pot) / ((t - s) * w2_squared(p, q).sqrt()) - 1))
distance = ((quantiles[1] - quantiles[0]).square() * pdf(standard, levels)).sum().mul(levels[1] - levels[0]).sqrt()
for s, t in steps:
    places = [line.place(time, line.nodes).flatten().numpy() for time in (s, t)]
    squared = ot.emd2_1d(*places, line.masses.numpy(), line.masses.numpy())
    on_the_line.append(abs(math.sqrt(squared) / ((t - s) * distance) - 1))
for case, x in zip(softmaxes, clouds):
    program = lambda s, t: math.sqrt(ot.emd2(uniform, uniform, ot.dist(case.place(s, x).numpy(), case.place(t, x).numpy())))
    by_program += [abs(program(s, t) / ((t - s) * program(0.0, 1.0)) - 1) for s, t in steps]
claim("CE-50", largest(on_gaussians))
claim("CE-51", largest(on_the_line))
claim("CE-52", largest(by_program))

# %% [markdown]
# **Other paths are not geodesics (ours).** The path of flow matching with independent ends, $X_t=(1-t)X_0+tX_1$, makes a detour
# through a smaller variance: for the covariances of the example, with means 0,
# $W_2(\mu_0,\mu_{1/2})-\frac12W_2(\mu_0,\mu_1)=0.0976$, and for random laws its two halves are not half as long as the whole.
# The blend $(1-t)\alpha+t\beta$ of the *measures* does not transport at all: for measures with a gap between their supports,
# mass $t$ has to cross the gap, so that $W_2(\mu_0,\mu_t)\ge\mathrm{gap}\,\sqrt t$, a curve of infinite speed at $t=0$.

# %%
centred = [Gaussian(torch.zeros(2), law.cov) for law in example]
claim("CE-53", w2_squared(centred[0], fm_law(*centred, 0.5)).sqrt() - 0.5 * w2_squared(*centred).sqrt())
uneven = []
for p, q in laws:
    middle, whole = fm_law(p, q, 0.5), w2_squared(p, q).sqrt()
    uneven.append(largest((w2_squared(end, middle).sqrt() / whole - 0.5).abs() for end in (p, q)))
claim("CE-54", largest(uneven))

left, right = 0.3 * torch.randn(30, 2, generator=rng), torch.tensor([4.0, 0.0]) + 0.3 * torch.randn(30, 2, generator=rng)
atoms, share = torch.cat([left, right]).numpy(), np.full(30, 1 / 30)
blended = lambda t: math.sqrt(ot.emd2(share, np.concatenate([(1 - t) * share, t * share]), ot.dist(left.numpy(), atoms)))
small = 0.5 ** np.arange(4, 13)
claim("CE-55", np.polyfit(np.log(small), np.log([blended(t) for t in small]), 1)[0])

# %%
close = Gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]]), Gaussian([1.0, 0.0], [[1.0, 0.6], [0.6, 1.0]])
times = torch.linspace(0, 1, 41) ** 2
fig, ax = plt.subplots(figsize=(5.4, 3.7))
relative = lambda path, p, q: [(w2_squared(p, path(p, q, float(t))) / w2_squared(p, q)).sqrt() for t in times]
ax.plot(times, relative(geodesic, *example), color=ROLES["optimal"], label="McCann's interpolation")
ax.plot(times, relative(fm_law, *example), "--", color=ROLES["independent"], label="flow matching, independent ends")
ax.plot(times, relative(fm_law, *close), ":", color=ROLES["independent"], label="the same, two laws that are closer")
ax.plot(times, [blended(float(t)) / blended(1.0) for t in times], "-.", color=ROLES["wrong"], label="blend of two separate heaps")
ax.set(title="only on a geodesic does distance grow evenly", xlabel="time $t$", ylabel=r"$W_2(\mu_0,\mu_t)\,/\,W_2(\mu_0,\mu_1)$", xlim=(0, 1), ylim=(0, None))
ax.legend()
show(fig, "distance_along_paths", alt="Distance from the start against time: a straight line for McCann's interpolation, curves above it for flow matching, and a square root for the blend of two separate heaps.")

# %% [markdown]
# ## 7. What to change in the notes
#
# | entry | grade | in short | section |
# |---|---|---|---|
# | N-01 | typo | "metrics $\alpha,\beta$": probability measures in $\mathcal P_2$ | 0 |
# | N-02 | typo | $\frac{d\zeta_t}{dt}$ in (CE): $\partial_t\zeta$ | 1 |
# | N-03 | gap | narrow continuity, or end-point terms | 1 |
# | N-04 | gap | Lipschitz suffices in the theorem; $\mu_t\ll\lambda^d$ follows from $\alpha\ll\lambda^d$ | 4 |
# | N-05, N-07 | gap | the flow of an arbitrary $v_t$ needs a hypothesis such as $\int_0^1\mathrm{Lip}(v_t)\,dt<\infty$ | 4.3 |
# | N-06 | imprecise | $v_t=(T-\mathrm{Id})\circ T_t^{-1}$ for $t<1$, $\mu_t$-almost everywhere | 5.1 |
#
# All entries, and how to cite them: [the sheet](../../figures/errata.md). Not errata, but easily misread: the rotations (3.1,
# trap), "no divergence at all" (3.1, remark). What the notes leave out is the proof of
# $(\mu_t,v_t)\in\mathcal V(\alpha,\beta)$: it is section 5.3.
#
# Next: [proofs/02](02_benamou_brenier.ipynb) proves that McCann's pair is the cheapest of all (Benamou–Brenier), and
# [proofs/04](04_gaussian_exercises.ipynb) solves the exercises.
