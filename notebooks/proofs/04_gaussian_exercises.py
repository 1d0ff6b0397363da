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
# # The exercises solved: Gaussians, mixtures and point masses
#
# The story: [04_gaussian_exercises](../04_gaussian_exercises.ipynb), with the statements, a picture and a hint for each.
#
# **Text.** The lecture notes *Dynamic Optimal Transport and Flow Matching*: exercises 1 (a, b, c), 2, 3, 4 (a, b), 5 and the
# closing question on Dirac masses; and the statements of the section *Flow Matching* (main idea, loss, extensions) that need a
# correction. The notes leave the solutions open; these are ours.
#
# **How to read it.** A cell with a statement is never a cell with its solution: the solutions are under the headings *Solution
# 1(a)* …, one cell each. After each solution come its check on fresh random instances (in dimensions up to 6 where that makes
# sense) and *counter-examples*: the plausible wrong answer, or the statement with one hypothesis dropped, with the number by
# which it fails.
#
# **Home of two results.** The floor of the loss and the energy of independent Gaussians in closed form (section 7.2), and the
# flow to point masses (section 6). What is proved elsewhere is cited: that conditional means solve the continuity equation, the
# identity of the loss and the one end map in [proofs/03](03_flow_matching.ipynb), the chain of energies in
# [proofs/02](02_benamou_brenier.ipynb).
#
# **Prerequisites.** Conditional expectation, covariance matrices, ordinary differential equations; Brenier's theorem (the
# optimal map for the quadratic cost is the gradient of a convex function). **Running time.** Half a minute to a minute on one
# thread in the quick preset.
#
# **Contents.** 0 Notation and an oracle · 1 Exercise 1: equivariance of the velocity · 2 Exercise 2: what becomes of the
# optimal map · 3 Exercise 3: one dimension · 4 Exercise 4: Gaussian couplings · 5 Exercise 5: mixtures · 6 Point masses · 7 The
# flow-matching section of the notes · 8 All errata of the notes

# %% tags=["parameters"]
preset = "quick"
seed = 0

# %%
import math
from functools import partial

import numpy as np
import torch
from matplotlib import pyplot as plt
from scipy.linalg import expm, sqrtm
from scipy.optimize import linear_sum_assignment, root
from torch.distributions import MultivariateNormal

from dynot_lite.companion import claim, errata, largest, say, show, smallest, start
from dynot_lite.laws.coupled import MixtureCoupling, fm_law
from dynot_lite.laws.gaussian import (
    Gaussian,
    fm_flow,
    fm_kinetic_energy,
    fm_velocity,
    geometric_mean,
    monge_map,
    random_gaussian,
    w2_squared,
)
from dynot_lite.laws.mixtures import GaussianMixture, fm_velocity_diracs
from dynot_lite.paths.continuity import box_quadrature, gauss_legendre, kinetic_energy, path_quadrature, weak_residual
from dynot_lite.paths.flows import integrate_adaptive, trajectory
from dynot_lite.paths.interpolants import LINEAR, TRIGONOMETRIC, Interpolant
from dynot_lite.plots import ROLES, draw_ellipse, draw_trajectories

start("proofs/04_gaussian_exercises", preset=preset, seed=seed)
torch.set_default_dtype(torch.float64)
rng = torch.Generator().manual_seed(seed)
instances = {"quick": 2, "full": 10}[preset]  # fresh random instances per dimension

# %% [markdown]
# ## 0. Notation and an oracle
#
# $(X_0,X_1)\sim\pi$ is a coupling of $\alpha$ and $\beta$ with finite first moments, $X_t=(1-t)X_0+tX_1$, $V=X_1-X_0$ and
# $\mu_t$ is the law of $X_t$. The flow-matching velocity $v_t(x)=\mathbb E[V\mid X_t=x]$ is the function, unique $\mu_t$-almost
# everywhere, such that
#
# $$
# \mathbb E\langle V,h(X_t)\rangle=\mathbb E\langle v_t(X_t),h(X_t)\rangle\qquad\text{for all bounded measurable }h .
# $$
#
# In the exercises, and in their solutions, the letters are those of the notes: $A$ and $b$ are a matrix and a shift, $c$ a
# dilation, $T^*$ the optimal map. The covariance of $(X_0,X_1)$ is
# $\Sigma=\begin{pmatrix}\Sigma_0&\Sigma_{10}\\\Sigma_{01}&\Sigma_1\end{pmatrix}$ there. Hence
# **$\Sigma_{01}=\mathrm{Cov}(X_1,X_0)$**, the lower left block, and $\Sigma_{10}=\Sigma_{01}^\top=\mathrm{Cov}(X_0,X_1)$. In
# the code `cross_cov` is $\mathrm{Cov}(X_0,X_1)$, that is $\Sigma_{10}$. Section 4 shows what happens if the two are confused.

# %% [markdown]
# **Lemma 0 (an oracle).** Idea: $(X_t,V)$ is a linear image of $(X_0,X_1)$ of determinant one, so a conditional mean is a
# quotient of two integrals of the joint density.
#
# *Let $(X_0,X_1)$ have a density $p$ on $\mathbb R^d\times\mathbb R^d$. For every $t\in[0,1]$, $X_t$ has the density
# $\rho_t(x)=\int p(x-tw,\,x+(1-t)w)\,dw$, and where it is positive*
#
# $$
# v_t(x)=\frac1{\rho_t(x)}\int w\;p\big(x-tw,\;x+(1-t)w\big)\,dw .
# $$
#
# *Proof.* The linear map $(x_0,x_1)\mapsto(x,w)=((1-t)x_0+tx_1,\;x_1-x_0)$ has the inverse $x_0=x-tw$, $x_1=x+(1-t)w$, since
# $(1-t)(x-tw)+t(x+(1-t)w)=x$ and $x_1-x_0=w$. Its determinant is
# $\det\begin{pmatrix}(1-t)I&tI\\-I&I\end{pmatrix}=\big((1-t)+t\big)^d=1$. By the change of variables $(X_t,V)$ has the density
# $(x,w)\mapsto p(x-tw,x+(1-t)w)$; the rest is the formula of conditional expectations for densities. $\square$
#
# The lemma uses no regression formula and no inverse of a covariance, and is valid at $t=0$ and $t=1$. It serves as the oracle:
# in $d\le3$ we do the integrals by the trapezoidal rule (which converges exponentially for these integrands); in $d\le6$, where
# $p$ is a mixture of Gaussians, each component's integrand is the exponential of a quadratic function of $w$, whose mode,
# curvature and hence integrals follow from automatic differentiation of the log-density. Densities come from
# `torch.distributions`, not from this package.

# %%
def joint_laws(pairs):
    """Weights and laws on R^2d of the components of (X0, X1)."""
    first, second = torch.cat([pairs.cov0, pairs.cross_cov], 2), torch.cat([pairs.cross_cov.mT, pairs.cov1], 2)
    means, covs = torch.cat([pairs.means0, pairs.means1], 1), torch.cat([first, second], 1)
    return list(zip(pairs.weights, [MultivariateNormal(mean, cov) for mean, cov in zip(means, covs)]))


def fm_by_quadrature(pairs, t, x, nodes):
    """Lemma 0 by the trapezoidal rule on nodes**d points w."""
    d, axis, rows, laws = x.shape[1], torch.linspace(-6, 6, nodes), [], joint_laws(pairs)
    grid = torch.cartesian_prod(*[axis] * d).reshape(-1, d)
    for point in x:
        centre, factor = pairs.weights @ (pairs.means1 - pairs.means0), 3 * torch.eye(d)
        for _ in range(2):  # a wide box first, then one that fits what was found in it
            w = centre + grid @ factor.T
            ends = torch.cat([point - t * w, point + (1 - t) * w], 1)
            density = sum(weight * law.log_prob(ends).exp() for weight, law in laws)
            mean = density @ w / density.sum()
            # The fourth root is wider, so that components of small weight stay inside the box.
            wide = density**0.25 / (density**0.25).sum()
            centre = wide @ w
            factor = torch.linalg.cholesky(((w - centre).T * wide) @ (w - centre))
        rows.append(mean)
    return torch.stack(rows)


def fm_by_modes(pairs, t, x):
    """Lemma 0, exactly: the integrals over w of each Gaussian component from the mode and curvature of its log-density."""
    rows, laws = [], joint_laws(pairs)
    for point in x:
        modes, evidence = [], []
        for weight, law in laws:
            f = lambda w: law.log_prob(torch.cat([point - t * w, point + (1 - t) * w]))
            zero = torch.zeros_like(point).requires_grad_()
            gradient, hessian = torch.autograd.functional.jacobian(f, zero), torch.autograd.functional.hessian(f, zero)
            mode = -torch.linalg.solve(hessian, gradient)
            modes.append(mode)
            evidence.append(weight * torch.exp(f(mode) - 0.5 * torch.logdet(-hessian)))
        rows.append(torch.stack(evidence) @ torch.stack(modes) / sum(evidence))
    return torch.stack(rows).detach()

# %% [markdown]
# Fresh instances. `random_coupling` draws a mixture of couplings with non-zero means, unequal weights, non-commuting
# covariances and non-symmetric cross-covariances; its `velocity` is that of the package, the formula of exercise 5. `image` is
# the coupling $(A_0X_0+b_0,\;A_1X_1+b_1)$. The *printed example* is a fixed pair of Gaussians that we use throughout:
# $\Sigma_0=\begin{pmatrix}2&.6\\.6&1\end{pmatrix}$, $\Sigma_1=\begin{pmatrix}1&-.5\\-.5&3\end{pmatrix}$, which do not commute,
# and where a correlation is wanted $\Sigma_{01}=\begin{pmatrix}.5&-.3\\.7&.2\end{pmatrix}$, which is not symmetric.

# %%
randn = partial(torch.randn, generator=rng)


def random_law(d):
    return random_gaussian(d, generator=rng)


def uniform(low, high):
    return low + (high - low) * torch.rand((), generator=rng).item()


def random_orthogonal(d):
    return torch.linalg.qr(randn(d, d)).Q


def random_invertible(d):
    return random_orthogonal(d) @ torch.diag(0.5 + 1.5 * torch.rand(d, generator=rng)) @ random_orthogonal(d)


def random_coupling(d, components):
    weights, means = 0.3 + torch.rand(components, generator=rng), randn(components, 2 * d)
    covs = torch.stack([random_law(2 * d).cov for _ in range(components)])
    ends = means[:, :d], means[:, d:], covs[:, :d, :d], covs[:, d:, d:], covs[:, :d, d:]
    return MixtureCoupling(weights / weights.sum(), *ends)


def image(pairs, matrix0, matrix1, offset0, offset1):
    means0, means1 = pairs.means0 @ matrix0.T + offset0, pairs.means1 @ matrix1.T + offset1
    blocks = ((matrix0, pairs.cov0, matrix0), (matrix1, pairs.cov1, matrix1), (matrix0, pairs.cross_cov, matrix1))
    return MixtureCoupling(pairs.weights, means0, means1, *(left @ block @ right.T for left, block, right in blocks))


def error(found, expected):
    """Largest difference, relative to the largest expected entry where that exceeds 1."""
    found, expected = (torch.as_tensor(a, dtype=torch.float64) for a in (found, expected))
    return ((found - expected).abs().max() / expected.abs().max().clamp_min(1.0)).item()


cov0, cov1 = torch.tensor([[2.0, 0.6], [0.6, 1.0]]), torch.tensor([[1.0, -0.5], [-0.5, 3.0]])
cov01 = torch.tensor([[0.5, -0.3], [0.7, 0.2]])  # Cov(X1, X0), as the notes write it
zero, eye = torch.zeros(2), torch.eye(2)
P, Q = Gaussian(zero, cov0), Gaussian(zero, cov1)
printed = MixtureCoupling([1.0], zero[None], zero[None], cov0, cov1, cov01.T)
probe = torch.tensor([[0.7, -0.3], [-1.2, 0.8], [1.5, 1.0], [0.2, -1.4]])
dimensions = [d for d in range(1, 7) for _ in range(instances)]

# %% [markdown]
# First the oracle against the package, then a property that every flow-matching velocity has: $(\mu_t,v_t)$ solves the
# continuity equation. The proof is in [proofs/03](03_flow_matching.ipynb), section 1; with a test function $\zeta$ that does
# not vanish at the ends, the same lines give
# $\int_0^1\!\int(\partial_t\zeta+\langle\nabla\zeta,v_t\rangle)\,d\mu_t\,dt=\int\zeta_1\,d\beta-\int\zeta_0\,d\alpha$, and that
# is what EX0-2 checks.

# %%
nodes = {1: 300, 2: 140, 3: 72}
gaps = []
for d in (1, 2, 3):
    for t in (0.0, 0.35, 1.0) if d < 3 else (0.35, 1.0):
        pairs, x = random_coupling(d, 3), randn({1: 4, 2: 2, 3: 1}[d], d)
        gaps.append(error(pairs.velocity(t, x), fm_by_quadrature(pairs, t, x, nodes[d])))
claim("EX0-1", largest(gaps))

pairs = random_coupling(1, 3)
zeta = lambda t, x: torch.sin(1.3 * x[:, 0] + 2 * t) + torch.exp(-t) * torch.cos(x[:, 0])
claim("EX0-2", weak_residual(box_quadrature(pairs.law, [0.0], 14.0, 1000), lambda t, x: pairs.velocity(t, x), zeta, times=40))

# %% [markdown]
# ## 1. Exercise 1: how the velocity changes with the coupling
#
# Flow matching sees only conditional means of displacements, so whatever acts linearly on both ends acts on the velocity.
#
# **The three forms.** For $t<1$, $X_1-X_t=(1-t)(X_1-X_0)$. Conditioning on $X_t$,
#
# $$
# v_t(x)=\mathbb E[X_1-X_0\mid X_t=x]=\frac1{1-t}\mathbb E[X_1-X_t\mid X_t=x]=\frac1{1-t}\big(\mathbb E[X_1\mid X_t=x]-x\big).
# $$
#
# Only the first form has a meaning at $t=1$, where it reads $v_1(x)=x-\mathbb E[X_0\mid X_1=x]$. In the same way $X_t-X_0=tV$
# gives $v_t(x)=\frac1t(x-\mathbb E[X_0\mid X_t=x])$ for $t>0$.

# %% [markdown]
# **A fourth form (ours; Tweedie's formula).** Idea: given $X_t=x$, the mean of Gaussian noise is read off from the score of
# $\mu_t$.
#
# Let $X_0\sim\mathcal N(m_0,\Sigma_0)$, $\Sigma_0\succ0$, be independent of $X_1$,
# and $0<t<1$. Then $\rho_t(x)=\mathbb E\,n(x-tX_1)$ with $n$ the density of $\mathcal N((1-t)m_0,(1-t)^2\Sigma_0)$, and
# differentiating under the expectation,
#
# $$
# (1-t)^2\,\Sigma_0\nabla\rho_t(x)=-\mathbb E\big[(x-tX_1-(1-t)m_0)\,n(x-tX_1)\big]=-\rho_t(x)\,\mathbb E\big[(1-t)(X_0-m_0)\mid X_t=x\big],
# $$
#
# because $x-tX_1=(1-t)X_0$ on $\{X_t=x\}$. So $\mathbb E[X_0\mid X_t=x]=m_0-(1-t)\Sigma_0\nabla\log\rho_t(x)$ and
#
# $$
# v_t(x)=\tfrac1t\big(x-m_0+(1-t)\,\Sigma_0\nabla\log\rho_t(x)\big).
# $$
#
# The velocity is a function of the score of $\mu_t$. We check it with the score obtained by automatic differentiation of the
# log-density of a mixture.

# %%
gaps = []
for d in dimensions:
    pairs, t = random_coupling(d, 3), uniform(0.15, 0.85)
    p = random_law(d)  # the common source; X1 is the mixture of the ends of the pairs
    one_source = MixtureCoupling(pairs.weights, p.mean.expand(3, d), pairs.means1, p.cov, pairs.cov1)
    x = randn(5, d).requires_grad_()
    (score,) = torch.autograd.grad(one_source.law(t).log_prob(x).sum(), x)
    x = x.detach()
    by_score = (x - p.mean + (1 - t) * score @ p.cov) / t
    gaps.append(error(by_score, one_source.velocity(t, x)))
claim("EX1-1", largest(gaps))

# %% [markdown]
# ### Exercise 1, statements
#
# Let $A$ be an invertible matrix, $b$ a vector, $c>0$; all formulas hold for $t\in[0,1]$.
#
# **(a)** *The velocity of the coupling $(AX_0+b,\,AX_1+b)$ is $v_t^{A,b}(x)=Av_t(A^{-1}(x-b))$.*
#
# **(b)** *The velocity of $(X_0,X_1+b)$ is $v^b_t(x)=v_t(x-tb)+b$.*
#
# **(c)** *With $\sigma_t=1-t+tc$ and $r_t=tc/\sigma_t$, the velocity of $(X_0,cX_1)$ is*
#
# $$
# v_t^c(x)=\frac c{\sigma_t}\,v_{r_t}\Big(\frac x{\sigma_t}\Big)+\frac{c-1}{\sigma_t}\,x .
# $$

# %%
errata.box("N-15")

# %% [markdown]
# ### Solution 1(a)
#
# An affine bijection changes the names of the places, not what is known. The interpolant is
# $X_t^{A,b}=(1-t)(AX_0+b)+t(AX_1+b)=AX_t+b$, and its derivative is $AV$. As $x\mapsto Ax+b$ is a bijection, conditioning on
# $AX_t+b=x$ is conditioning on $X_t=A^{-1}(x-b)$:
#
# $$
# v_t^{A,b}(x)=\mathbb E[AV\mid AX_t+b=x]=A\,\mathbb E[V\mid X_t=A^{-1}(x-b)]=Av_t(A^{-1}(x-b)).\qquad\square
# $$

# %% [markdown]
# ### Solution 1(b)
#
# At time $t$ the share $tb$ of the shift has happened. $X^b_t=(1-t)X_0+t(X_1+b)=X_t+tb$ has the derivative $V+b$, and
# $\{X^b_t=x\}=\{X_t=x-tb\}$. Hence $v_t^b(x)=\mathbb E[V+b\mid X_t=x-tb]=v_t(x-tb)+b$. $\square$

# %% [markdown]
# ### Solution 1(c)
#
# The path is the old one, re-timed and rescaled. Write $\sigma=\sigma_t$, $r=r_t$. As $c>0$, $\sigma\ge\min(1,c)>0$ and
# $r\in[0,1]$, with $1-r=(1-t)/\sigma$. Therefore $X^c_t=(1-t)X_0+tcX_1=\sigma\big((1-r)X_0+rX_1\big)=\sigma X_r$. From
# $X_0=X_r-rV$ and $X_1=X_r+(1-r)V$,
#
# $$
# cX_1-X_0=(c-1)X_r+\big(c(1-r)+r\big)V,\qquad c(1-r)+r=\frac{c(1-t)+tc}\sigma=\frac c\sigma .
# $$
#
# Condition on $X_t^c=x$, that is on $X_r=x/\sigma$: the first term becomes $(c-1)x/\sigma$ and the second
# $\frac c\sigma v_r(x/\sigma)$. $\square$

# %% [markdown]
# **The flows.** A change of coordinates carries trajectories to trajectories. *If the flow $\varphi_t$ of $v_t$ exists, the three
# velocities have the flows*
#
# $$
# \varphi_t^{A,b}(x)=A\varphi_t(A^{-1}(x-b))+b,\qquad\varphi_t^b(x)=\varphi_t(x)+tb,\qquad\varphi^c_t(x)=\sigma_t\,\varphi_{r_t}(x).
# $$
#
# *Proof.* All three are the identity at $t=0$ ($\sigma_0=1$, $r_0=0$). Differentiate. The first:
# $Av_t(\varphi_t(A^{-1}(x-b)))=v_t^{A,b}(\varphi^{A,b}_t(x))$. The second: $v_t(\varphi_t(x))+b=v^b_t(\varphi_t(x)+tb)$. The
# third: $\dot\sigma=c-1$ and $\dot r=\frac{c\sigma-tc(c-1)}{\sigma^2}=\frac c{\sigma^2}$, so the derivative is
# $(c-1)\varphi_r+\frac c\sigma v_r(\varphi_r)=v_t^c(\sigma\varphi_r)$. $\square$
#
# In particular $\varphi_1^c=c\,\varphi_1$.

# %%
gaps = {"a": [], "b": [], "c": [], "oracle": []}
for d in dimensions:
    pairs, x, b, t = random_coupling(d, 3), randn(5, d), randn(d), uniform(0, 1)
    A, c, one, null = random_invertible(d), uniform(0.3, 3.3), torch.eye(d), torch.zeros(d)
    s = 1 - t + t * c
    moved = image(pairs, A, A, b, b), image(pairs, one, one, null, b), image(pairs, one, c * one, null, null)
    formulas = (
        pairs.velocity(t, torch.linalg.solve(A, (x - b).T).T) @ A.T,
        pairs.velocity(t, x - t * b) + b,
        c / s * pairs.velocity(t * c / s, x / s) + (c - 1) / s * x,
    )
    for name, coupling, formula in zip("abc", moved, formulas):
        gaps[name].append(error(formula, coupling.velocity(t, x)))
        if d <= 2:
            gaps["oracle"].append(error(formula[:2], fm_by_quadrature(coupling, t, x[:2], nodes[d])))
claim("EX1-2", largest(gaps["a"]))
claim("EX1-3", largest(gaps["b"]))
claim("EX1-4", largest(gaps["c"]))
claim("EX1-5", largest(gaps["oracle"]))

# %% [markdown]
# The flows, by tight integration of the differential equations of both sides: a correlated mixture in $d=2$, for which no
# closed form exists, and correlated Gaussians in $d=6$ (in every $d\le6$ in the full preset).

# %%
def flow_of(pairs, t, x, **options):
    return integrate_adaptive(lambda time, y: pairs.velocity(time, y, **options), x, t1=t, rtol=1e-10, atol=1e-12)


def gaps_of_flows(pairs, flow, x, t):
    """How far the three flows, computed from their own couplings, are from the three formulas."""
    d = x.shape[1]
    A, b, c, one, null = random_invertible(d), randn(d), uniform(0.4, 2.4), torch.eye(d), torch.zeros(d)
    s = 1 - t + t * c
    from_pulled_back, from_x = flow(pairs, t, torch.cat([torch.linalg.solve(A, (x - b).T).T, x])).chunk(2)
    return [
        error(flow(image(pairs, A, A, b, b), t, x), from_pulled_back @ A.T + b),
        error(flow(image(pairs, one, one, null, b), t, x), from_x + t * b),
        error(flow(image(pairs, one, c * one, null, null), t, x), s * flow(pairs, t * c / s, x)),
    ]


def gaussian_flow(pairs, t, x):
    p, q = Gaussian(pairs.means0[0], pairs.cov0[0]), Gaussian(pairs.means1[0], pairs.cov1[0])
    return fm_flow(p, q, t, cross_cov=pairs.cross_cov[0])(x)


gaps = gaps_of_flows(random_coupling(2, 2), flow_of, randn(3, 2), 0.7)
for d in (range(1, 7) if preset == "full" else (6,)):
    gaps += gaps_of_flows(random_coupling(d, 1), gaussian_flow, randn(3, d), 0.6)
claim("EX1-6", largest(gaps))

# %% [markdown]
# **Plausible wrong answers**, on the printed example with $A=\begin{pmatrix}1&1\\0&2\end{pmatrix}$, $b=(2,-1.5)$, $c=2.5$,
# $t=.4$: in (a) the offset taken after the inverse, $Av_t(A^{-1}x-b)$; in (b) the full shift instead of $tb$, $v_t(x-b)+b$; in
# (c) the velocity at time $t$ instead of $r_t$. Each number is the largest difference over four points.
#
# **Remark ($c>0$ is needed).** With $c=-1$, $\sigma_t=1-2t$ vanishes at $t=\frac12$. This is not a defect of the formula alone:
# for $X_1=X_0$ the coupling $(X_0,cX_1)=(X_0,-X_0)$ has the velocity $-2x/(1-2t)$, which blows up (claim EX1-10).

# %%
A, b, c, t = torch.tensor([[1.0, 1.0], [0.0, 2.0]]), torch.tensor([2.0, -1.5]), 2.5, 0.4
s, x = 1 - t + t * c, probe
moved = image(printed, A, A, b, b), image(printed, eye, eye, zero, b), image(printed, eye, c * eye, zero, zero)
right = [coupling.velocity(t, x) for coupling in moved]
wrong = [
    printed.velocity(t, torch.linalg.solve(A, x.T).T - b) @ A.T,
    printed.velocity(t, x - b) + b,
    c / s * printed.velocity(t, x / s) + (c - 1) / s * x,
]
off = [(one - other).norm(dim=1).max() for one, other in zip(wrong, right)]
claim("EX1-7", off[0])
claim("EX1-8", off[1])
claim("EX1-9", off[2])
reflected = fm_velocity(P, P, 0.499, probe, cross_cov=-cov0)
claim("EX1-10", (reflected.norm(dim=1) / probe.norm(dim=1)).min())

# %% [markdown]
# ## 2. Exercise 2: what becomes of the optimal map
#
# Optimal maps are gradients of convex functions, so *"is this map optimal?"* means *"is its derivative symmetric and positive?"*.
#
# **Hypotheses.** $\alpha,\beta\in\mathcal P_2(\mathbb R^d)$ and $\alpha\ll\lambda^d$. By Brenier's theorem there is, up to
# $\alpha$-null sets, exactly one gradient of a convex function that pushes $\alpha$ to $\beta$, and it is the optimal map:
# $T^*=\nabla\Psi$.

# %%
errata.box("N-16")

# %% [markdown]
# **Without second moments.** For all $x,y$, $\lvert x-y\rvert^2\ge\frac12\lvert y\rvert^2-\lvert x\rvert^2$. So *every*
# coupling of $\mathcal N(0,1)$ with the Cauchy law has infinite cost: it is at least
# $\frac12\mathbb E[Y^2;\lvert Y\rvert\le R]-1$ for all $R$, and $\mathbb E[Y^2;\lvert Y\rvert\le R]=\frac2\pi(R-\arctan R)$.
# All maps that push the one to the other are then equally "optimal". The claim evaluates the bound at $R=10^6$, by quadrature.

# %%
places, weights = gauss_legendre(400)
y = 2e6 * (places - 0.5)
second_moment = 2e6 * weights @ (y**2 * torch.distributions.Cauchy(0.0, 1.0).log_prob(y).exp())
claim("EX2-13", 0.5 * second_moment - 1.0)

# %% [markdown]
# ### Exercise 2, statements
#
# Let $c>0$, $b$ a vector and $A$ an invertible matrix.
#
# **(b)** *If $\beta$ is translated by $b$, the optimal map becomes $T^*+b$, and
# $W_2^2(\alpha,\cdot)=W_2^2(\alpha,\beta)+2\langle b,m_1-m_0\rangle+\lvert b\rvert^2$.*
#
# **(c)** *If $\beta$ is dilated by $c$, the optimal map becomes $cT^*$, and
# $W_2^2(\alpha,(c\,\cdot)_\#\beta)=(1-c)\,\mathbb E\lvert X_0\rvert^2+(c^2-c)\,\mathbb E\lvert X_1\rvert^2+c\,W_2^2(\alpha,\beta)$.
# For $c<0$ the map $cT^*$ still pushes $\alpha$ to the right measure, but is not optimal, unless $\beta$ is a point mass.*
#
# **(a)** *If $x\mapsto Ax+b$ is applied to both measures, the candidate $T^{A,b}(y)=AT^*(A^{-1}(y-b))+b$ always pushes
# $(A\,\cdot+b)_\#\alpha$ to $(A\,\cdot+b)_\#\beta$: if $y=Ax+b$, then $T^{A,b}(y)=AT^*(x)+b$. Is it optimal?*
#
# *(i) If $A=\lambda R$ with $\lambda>0$ and $R$ orthogonal, it is, for all $\alpha$, $\beta$. (ii) Let $\alpha$ be carried by a
# convex open set $U$ where its density is positive, and let $\Psi\in C^2(U)$ with Hessian $H$. Then $T^{A,b}$ is optimal if and
# only if $H(x)$ commutes with $A^\top A$ for all $x\in U$. (iii) If $T^{A,b}$ is optimal for all $\alpha$, $\beta$, then
# $A=\lambda R$.*

# %% [markdown]
# ### Solution 2(b)
#
# A shift adds a linear function to the potential. $T^*+b$ pushes $\alpha$ to the translated measure, and
# $T^*+b=\nabla(\Psi+\langle b,\cdot\rangle)$ with a convex potential. The cost: with $X_1=T^*(X_0)$,
# $\mathbb E\lvert X_1+b-X_0\rvert^2=W_2^2(\alpha,\beta)+2\langle b,m_1-m_0\rangle+\lvert b\rvert^2$. $\square$

# %% [markdown]
# ### Solution 2(c)
#
# A dilation multiplies the potential. $cT^*=\nabla(c\Psi)$. The cost: expand
# $\lvert cX_1-X_0\rvert^2=(1-c)\lvert X_0\rvert^2+(c^2-c)\lvert X_1\rvert^2+c\lvert X_1-X_0\rvert^2$ (compare the coefficients
# of $\lvert X_0\rvert^2$, $\lvert X_1\rvert^2$ and $\langle X_0,X_1\rangle$), with $X_1=T^*(X_0)$.
#
# For $c<0$: let $X,X'$ be independent with law $\alpha$. Gradients of convex functions are monotone; if $T^*$ and $cT^*$ both
# are, $\langle T^*(X)-T^*(X'),X-X'\rangle$ is both $\ge0$ and $\le0$, hence $0$. Its expectation is
# $2\big(\mathbb E\langle T^*(X),X\rangle-\langle\mathbb ET^*(X),\mathbb EX\rangle\big)$; so the optimal plan and
# $\alpha\otimes\beta$ have the same $\mathbb E\langle X_0,X_1\rangle$, hence the same cost. As the optimal plan is unique,
# $(X,T^*(X))$ has the law $\alpha\otimes\beta$: $T^*(X)$ is independent of $X$, and a function of $X$, hence constant.
# $\square$

# %% [markdown]
# ### Solution 2(a)
#
# The derivative of $T^{A,b}$ is $AHA^{-1}$, whose eigenvalues are those of $H$: only its symmetry is in question.
#
# (i) $A^\top A=\lambda^2I$ means $\lambda^2A^{-\top}=A$. The function
# $\tilde\Psi(y)=\lambda^2\Psi(A^{-1}(y-b))+\langle b,y\rangle$ is convex, and
# $\nabla\tilde\Psi(y)=\lambda^2A^{-\top}\nabla\Psi(A^{-1}(y-b))+b=T^{A,b}(y)$.
#
# (ii) $T^{A,b}$ is $C^1$ on the convex open set $AU+b$ with Jacobian $AHA^{-1}$ (at $A^{-1}(y-b)$). If it is optimal it equals
# a gradient almost everywhere, hence everywhere by continuity, so its Jacobian is symmetric. Conversely, if the Jacobian is
# symmetric on this convex set, $T^{A,b}$ is a gradient $\nabla\tilde\Psi$ (Poincaré), and the Hessian $AHA^{-1}$ of
# $\tilde\Psi$ is symmetric with the eigenvalues of $H\succeq0$: $\tilde\Psi$ is convex. Finally
#
# $$
# AHA^{-1}-(AHA^{-1})^\top=A^{-\top}\big(A^\top AH-HA^\top A\big)A^{-1},
# $$
#
# so that symmetry of $AHA^{-1}$ is the same as $A^\top AH=HA^\top A$.
#
# (iii) Take $\alpha=\mathcal N(0,I)$ and $\beta=\mathcal N(0,H^2)$ with any $H\succ0$: $T^*=H$. By (ii) $A^\top A$ commutes
# with every positive definite matrix, in particular with all diagonal ones and all their rotations, so it is a multiple of the
# identity. $\square$

# %% [markdown]
# For Gaussians, $T^*$ is affine with matrix $H$, and everything can be computed: conjugate the optimal map of the package, and
# compare with the optimal map of the transformed Gaussians.

# %%
def affine_image(p, matrix, offset):
    return Gaussian(matrix @ p.mean + offset, matrix @ p.cov @ matrix.T)


def conjugate(T, A, b):
    """Matrix and offset of y ↦ A T(A⁻¹(y − b)) + b."""
    matrix = A @ T.matrix @ torch.linalg.inv(A)
    return matrix, A @ T.offset + b - matrix @ b


gaps = {name: [] for name in ("similar", "commutator", "shift", "dilation", "commuting")}
for d in dimensions:
    p, q, b, c = random_law(d), random_law(d), randn(d), uniform(0.3, 3.3)
    T, A, A_any = monge_map(p, q), c * random_orthogonal(d), random_invertible(d)
    H = T.matrix
    matrix, offset = conjugate(T, A, b)
    optimal = monge_map(affine_image(p, A, b), affine_image(q, A, b))
    gaps["similar"] += [error(matrix, optimal.matrix), error(offset, optimal.offset)]
    inverse, gram = torch.linalg.inv(A_any), A_any.T @ A_any
    conjugated = A_any @ H @ inverse
    gaps["commutator"].append(error(inverse.T @ (gram @ H - H @ gram) @ inverse, conjugated - conjugated.T))
    moved = Gaussian(q.mean + b, q.cov)
    gaps["shift"] += [error(monge_map(p, moved).matrix, H), error(monge_map(p, moved).offset, T.offset + b)]
    gaps["shift"].append(error(w2_squared(p, q) + 2 * b @ (q.mean - p.mean) + b @ b, w2_squared(p, moved)))
    scaled = affine_image(q, c * torch.eye(d), torch.zeros(d))
    moment0, moment1 = p.mean @ p.mean + p.cov.trace(), q.mean @ q.mean + q.cov.trace()
    gaps["dilation"] += [error(monge_map(p, scaled).matrix, c * H), error(monge_map(p, scaled).offset, c * T.offset)]
    gaps["dilation"].append(error((1 - c) * moment0 + (c**2 - c) * moment1 + c * w2_squared(p, q), w2_squared(p, scaled)))
    # An A that is far from orthogonal, with AᵀA in the eigenbasis of H.
    stretched = random_orthogonal(d) @ torch.diag(torch.logspace(-0.5, 0.5, d)) @ torch.linalg.eigh(H).eigenvectors.T
    optimal = monge_map(affine_image(p, stretched, b), affine_image(q, stretched, b))
    gaps["commuting"].append(error(conjugate(T, stretched, b)[0], optimal.matrix))
claim("EX2-1", largest(gaps["similar"]))
claim("EX2-2", largest(gaps["commutator"]))
claim("EX2-3", largest(gaps["commuting"]))
claim("EX2-4", largest(gaps["shift"]))
claim("EX2-5", largest(gaps["dilation"]))

# %% [markdown]
# The same statements have nothing to do with Gaussians or smoothness: the optimal *assignment* between two clouds of points
# keeps its pairs if both clouds undergo the same $\lambda R\,\cdot+b$, if one is translated, or if one is dilated by $c>0$. We
# re-use the assignment of the original clouds and compare its cost after the transformation with the optimum of the transformed
# problem (exact linear assignment).

# %%
def assignment_cost(x, y, index=None):
    """Mean squared distance of the pairs x[i], y[index[i]]; of the optimal ones if no index is given."""
    cost = torch.cdist(x, y).square().numpy()
    rows, columns = linear_sum_assignment(cost) if index is None else (range(len(x)), index)
    return cost[rows, columns].mean(), columns


n, gaps = {"quick": 150, "full": 600}[preset], []
for d in (2, 3, 5):
    x, y = randn(n, d), torch.tanh(randn(n, d) @ random_invertible(d)) + randn(n, d) ** 3 / 5
    b, A = randn(d), 1.7 * random_orthogonal(d)
    _, pairs = assignment_cost(x, y)
    for x_new, y_new in ((x @ A.T + b, y @ A.T + b), (x, y + b), (x, 2.5 * y)):
        gaps.append(error(assignment_cost(x_new, y_new, pairs)[0], assignment_cost(x_new, y_new)[0]))
claim("EX2-6", largest(gaps))

# %% [markdown]
# **Counter-example to "always optimal" in (a).** $\alpha=\mathcal N(0,I_2)$, $\beta=\mathcal N(0,\mathrm{diag}(4,1))$, so
# $T^*=\mathrm{diag}(2,1)$, and the shear $A=\begin{pmatrix}1&1\\0&1\end{pmatrix}$. Then
# $T^A=A\,\mathrm{diag}(2,1)A^{-1}=\begin{pmatrix}2&-1\\0&1\end{pmatrix}$, and $T^A-I=\begin{pmatrix}1&-1\\0&0\end{pmatrix}$
# sends $AX_0=(Z_1+Z_2,Z_2)$ to $(Z_1,0)$: the cost is $\mathbb EZ_1^2=1$. The optimal cost between $\mathcal N(0,AA^\top)$ and
# $\mathcal N(0,A\,\mathrm{diag}(4,1)A^\top)$ is $3+6-2\,\mathrm{tr}\,(\Sigma_0^{1/2}\Sigma_1\Sigma_0^{1/2})^{1/2}$; the matrix
# under the root has the trace
# $\mathrm{tr}\,\Sigma_0\Sigma_1=\mathrm{tr}\begin{pmatrix}2&1\\1&1\end{pmatrix}\begin{pmatrix}5&1\\1&1\end{pmatrix}=13$ and the
# determinant $4$, so the trace of its root is $\sqrt{13+2\sqrt4}=\sqrt{17}$. The gap is
# $1-(9-2\sqrt{17})=2\sqrt{17}-8=0.2462\ldots$
#
# The map $T^A$ has positive eigenvalues ($2$ and $1$), and is even monotone: $\langle T^Ah,h\rangle=2h_1^2-h_1h_2+h_2^2\ge0$.
# Neither makes it optimal. Optimality needs *cyclical* monotonicity, $\sum_i\langle T(x_i),x_{i+1}-x_i\rangle\le0$ for all
# cycles, and a regular decagon violates it. (Anti-clockwise round the unit circle, the antisymmetric part of $T^A$ contributes
# the enclosed area, $5\sin36°=2.939$, and the symmetric part subtracts
# $\frac12\cdot\frac{\mathrm{tr}\,T^A}2\cdot10\cdot(2-2\cos36°)=2.865$.)

# %% [markdown]
# **Counter-example to "never, unless $A$ is orthogonal"** (up to a factor). $A=\mathrm{diag}(1,3)$ commutes with
# $T^*=\mathrm{diag}(2,1)$, and $T^A=T^*$ is optimal. The claim records the distance of $A^\top A$ from the multiples of the
# identity, provided that $T^A$ attains the optimal cost.
#
# **Counter-example for $c<0$ in (c).** On the printed example, $c=-1$: the cost of $-T^*$ minus the optimal cost from $\alpha$
# to the reflected $\beta$ (which is $\beta$ itself, centred).

# %%
def cost_of(p, matrix):
    """E|MX − X|² for X ~ p centred, by Gauss–Hermite quadrature (exact: the integrand is quadratic)."""
    x, weights = p.quadrature(3)
    return weights @ (x @ matrix.T - x).square().sum(1)


A, T = torch.tensor([[1.0, 1.0], [0.0, 1.0]]), torch.diag(torch.tensor([2.0, 1.0]))
p, q = Gaussian(zero, A @ A.T), Gaussian(zero, A @ T @ T @ A.T)
T_A = A @ T @ torch.linalg.inv(A)
gap = cost_of(p, T_A) - w2_squared(p, q)
print(f"cost of T^A: {cost_of(p, T_A):.4f}   optimal cost: {w2_squared(p, q):.4f}   gap: {gap:.4f}")
claim("EX2-7", gap)
claim("EX2-8", error(gap, 2 * math.sqrt(17) - 8))
eigenvalues = torch.linalg.eigvals(T_A).real
claim("EX2-9", (T_A - T_A.T).abs().max() if eigenvalues.min() > 0 else 0.0)

angles = 2 * math.pi * torch.arange(10) / 10
cycle = torch.stack([angles.cos(), angles.sin()], 1)
violation = ((cycle @ T_A.T) * (cycle.roll(-1, 0) - cycle)).sum()
monotone = torch.linalg.eigvalsh(T_A + T_A.T).min() > 0
claim("EX2-10", violation if monotone else 0.0)

D = torch.diag(torch.tensor([1.0, 3.0]))
p_D, q_D = Gaussian(zero, D @ D), Gaussian(zero, D @ T @ T @ D)
attained = abs(cost_of(p_D, D @ T @ torch.linalg.inv(D)) - w2_squared(p_D, q_D)) < 1e-12
claim("EX2-11", (D @ D - (D @ D).trace() / 2 * eye).norm() if attained else 0.0)
claim("EX2-12", cost_of(P, -monge_map(P, Q).matrix) - w2_squared(P, Q))

# %% [markdown]
# The contrast: by exercise 1(a) the *flow-matching* map is equivariant under every invertible affine map, the *optimal* map
# only under similarities. So the two cannot agree in general; exercise 4 will say exactly when they do for Gaussians.

# %% [markdown]
# ## 3. Exercise 3: in one dimension the end map is optimal
#
# Trajectories on a line cannot overtake, and there is only one increasing map from $\alpha$ to $\beta$.
#
# ### Exercise 3, statement
#
# **Hypotheses.** $\alpha,\beta\in\mathcal P_2(\mathbb R)$, $(X_0,X_1)$ any coupling. *"$v_t$ has a unique flow on $[0,1]$"* is
# read as: for every $x$ there is exactly one absolutely continuous curve $\varphi_t(x)$ on $[0,1]$ with $\varphi_0(x)=x$ and
# $\partial_t\varphi_t(x)=v_t(\varphi_t(x))$ for almost all $t$.
#
# *Then $(\varphi_t)_\#\alpha=\mu_t$, and $\varphi_1$ is an optimal map from $\alpha$ to $\beta$. If $\alpha$ has no atom,
# $\varphi_1=F_\beta^{-1}\circ F_\alpha$, whatever the coupling.*

# %%
errata.box("N-17")

# %% [markdown]
# ### Solution 3
#
# *Step 0: $(\varphi_t)_\#\alpha=\mu_t$.* This is superposition ([proofs/02](02_benamou_brenier.ipynb), section 3; Ambrosio,
# Gigli and Savaré, theorem 8.2.1): as $\int_0^1\!\int\lvert v_t\rvert^2d\mu_t\,dt\le\mathbb E\lvert V\rvert^2<\infty$, the
# solution $\mu_t$ of the continuity equation is a mixture of integral curves of $v$, and since there is one curve for each
# starting point, $\mu_t=(\varphi_t)_\#\alpha$.
#
# *Step 1: $\varphi_1$ is non-decreasing.* Let $x<y$ and suppose $\varphi_1(x)>\varphi_1(y)$. The continuous function
# $t\mapsto\varphi_t(y)-\varphi_t(x)$ is positive at $0$ and negative at $1$, so it vanishes at some $s\in\,]0,1[$. The curve
# that equals $\varphi_t(x)$ for $t\le s$ and $\varphi_t(y)$ for $t\ge s$ is absolutely continuous, solves the differential
# equation, and starts at $x$; it ends at $\varphi_1(y)\ne\varphi_1(x)$. This contradicts uniqueness.
#
# *Step 2: a non-decreasing map $T$ with $T_\#\alpha=\beta$ is the quantile coupling.* Let $U$ be uniform on $]0,1[$ and
# $X_0=F_\alpha^{-1}(U)\sim\alpha$. Then $T\circ F_\alpha^{-1}$ is a non-decreasing function that pushes the uniform law to
# $\beta$. There is only one such function, up to a countable set: the quantile function $F_\beta^{-1}$. (If $f$ is
# non-decreasing with $f(U)\sim\beta$, then $\{u:f(u)\le z\}$ is an interval that starts at $0$ and has the length $F_\beta(z)$,
# for every $z$.) So $(X_0,T(X_0))=(F_\alpha^{-1}(U),F_\beta^{-1}(U))$ almost surely.
#
# *Step 3: the quantile coupling is optimal.* For square-integrable $X\sim\alpha$, $Y\sim\beta$, Hoeffding's formula reads
#
# $$
# \mathrm{Cov}(X,Y)=\int\!\!\int\big(\mathbb P(X\le x,Y\le y)-F_\alpha(x)F_\beta(y)\big)\,dx\,dy .
# $$
#
# (To prove it, take an independent copy $(X',Y')$, write $2\,\mathrm{Cov}(X,Y)=\mathbb E(X-X')(Y-Y')$ and
# $X-X'=\int(1_{X'\le x}-1_{X\le x})dx$, and exchange expectation and integrals.) Now
# $\mathbb P(X\le x,Y\le y)\le\min(F_\alpha(x),F_\beta(y))$ for every coupling, with equality for the quantile coupling, since
# $\{F_\alpha^{-1}(U)\le x\}=\{U\le F_\alpha(x)\}$. So the quantile coupling maximises $\mathbb EXY$ and minimises
# $\mathbb E(X-Y)^2$. $\square$

# %% [markdown]
# **What the flow conserves.** Step 1 holds at every $t$, so the flow keeps the mass to its left. If all $\mu_t$ have positive
# densities,
#
# $$
# F_{\mu_t}(\varphi_t(x))=F_\alpha(x)\qquad(0\le t\le1).
# $$
#
# We check both on random mixtures: three components at the source, two at the target; the six pairs of components have product
# weights, and within each pair the coupling is correlated at random (this leaves $\alpha$ and $\beta$ unchanged). Nothing but
# the velocity of the coupling is given to the integrator.

# %%
def random_mixture_1d(components):
    weights = 0.4 + torch.rand(components, generator=rng)
    means = torch.linspace(-2, 2, components) + 0.4 * torch.rand(components, generator=rng)
    stds = 0.6 + 0.3 * torch.rand(components, generator=rng)
    return GaussianMixture(weights / weights.sum(), means[:, None], stds[:, None, None] ** 2)


def pair_up(source, target, correlation):
    """All pairs of components with product weights; ``correlation`` (one per pair) within each."""
    i, j = torch.cartesian_prod(torch.arange(len(source.weights)), torch.arange(len(target.weights))).T
    cross = correlation[:, None, None] * (source.covs[i] * target.covs[j]).sqrt()
    ends = source.means[i], target.means[j], source.covs[i], target.covs[j]
    return MixtureCoupling(source.weights[i] * target.weights[j], *ends, cross)


source, target = random_mixture_1d(3), random_mixture_1d(2)
u = torch.linspace(0.01, 0.99, 25)
x0 = source.quantile(u)
monotone = target.quantile(u)
gaps = {"end": [], "invariant": [], "any": []}
independent = pair_up(source, target, torch.zeros(6))
correlated = pair_up(source, target, 1.8 * torch.rand(6, generator=rng) - 0.9)
x = x0
for t in (0.25, 0.5, 0.75, 1.0):
    x = integrate_adaptive(independent.velocity, x, t0=t - 0.25, t1=t, rtol=1e-10, atol=1e-12)
    gaps["invariant"].append(error(independent.law(t).cdf(x), u))
gaps["end"].append(error(x, monotone))
gaps["any"].append(error(flow_of(correlated, 1.0, x0), monotone))
gaps["any"].append(error(flow_of(independent, 1.0, x0, interpolant=TRIGONOMETRIC), monotone))
claim("EX3-1", largest(gaps["end"]))
claim("EX3-2", largest(gaps["invariant"]))
claim("EX3-3", largest(gaps["any"]))

# %% [markdown]
# **Remark: only the end map is optimal.** Halfway, the flow is not McCann's $T_{1/2}=\frac12(\mathrm{Id}+T^*)$, and the energy
# exceeds $W_2^2=\mathbb E\lvert T^*(X_0)-X_0\rvert^2$ (claims EX3-4, EX3-5).
#
# **Uniqueness of the flow is needed.** For $X_1=-X_0$ and a symmetric $\alpha$, $X_t=(1-2t)X_0$: all trajectories meet at $0$
# at $t=\frac12$, where $v_t(x)=-2x/(1-2t)$ is singular, and continuing each straight line leads to $x\mapsto-x$, which is not
# optimal from $\alpha$ to itself: its cost is $4\,\mathrm{Var}(X_0)$ where $W_2=0$ (claim EX3-8).
#
# **The energy of a correlated line.** Idea: for a correlation $r>-1$ the flow is unique, and by the exercise
# $\varphi_1=\mathrm{Id}$; but the closer $r$ is to $-1$, the narrower the neck through which the trajectories are squeezed.
# *Between $\mathcal N(0,1)$ and itself,*
#
# $$
# \int_0^1\mathbb E\lvert v_t(X_t)\rvert^2dt=2(1-r)-\sqrt{1-r^2}\,\arccos r ,
# $$
#
# *which tends to $4$ as $r\to-1$.*
#
# *Proof.* With $\sigma_t^2=(1-t)^2+t^2+2rt(1-t)$ and $C_t=\mathrm{Cov}(V,X_t)=\frac12\frac d{dt}\sigma_t^2$,
# $v_t(x)=C_tx/\sigma_t^2$ and $\mathbb E\lvert v_t\rvert^2=C_t^2/\sigma_t^2$. Put $t=\frac12+u$:
# $\sigma_t^2=\frac{1+r}2+2(1-r)u^2$ and $C_t=2(1-r)u$, so $C_t^2/\sigma_t^2=2(1-r)\big(1-\frac{(1+r)/2}{\sigma_t^2}\big)$, and
# $\int_{-1/2}^{1/2}\frac{(1+r)/2}{(1+r)/2+2(1-r)u^2}du=\sqrt{\frac{1+r}{1-r}}\arctan\sqrt{\frac{1-r}{1+r}}=\sqrt{\frac{1+r}{1-r}}\;\frac{\arccos r}2$.
# $\square$

# %%
half = flow_of(independent, 0.5, x0)
claim("EX3-4", (half - 0.5 * (x0 + monotone)).abs().max())
path = box_quadrature(independent.law, [0.0], 14.0, 1000)
grid, weights = path(0.0)
transported = target.quantile(source.cdf(grid).clamp(1e-15, 1 - 1e-15))
w2_1d = weights @ (transported - grid).square()[:, 0]
energy = kinetic_energy(path, independent.velocity, times=40)
claim("EX3-5", energy - w2_1d)

line = Gaussian([0.0], [[1.0]])
correlations = torch.tensor([-0.99, -0.9, -0.5, 0.0, 0.3, 0.8, 0.999])
found = [fm_kinetic_energy(line, line, cross_cov=[[r]]) for r in correlations.tolist()]
claim("EX3-6", error(torch.stack(found), 2 * (1 - correlations) - (1 - correlations**2).sqrt() * correlations.arccos()))
ends = [fm_flow(line, line, 1.0, cross_cov=[[r]]).matrix for r in (-0.9, 0.4)]
claim("EX3-7", error(torch.stack(ends), torch.ones(2, 1, 1)))
x_end = LINEAR.at(1.0, line.quadrature(8)[0], -line.quadrature(8)[0])[0]
claim("EX3-8", line.quadrature(8)[1] @ (x_end - line.quadrature(8)[0]).square()[:, 0] - w2_squared(line, line))

# %%
fixed = (
    GaussianMixture([0.5, 0.5], [[-2.0], [1.5]], [[[0.36]], [[0.25]]]),
    GaussianMixture([0.3, 0.4, 0.3], [[-3.0], [0.5], [3.0]], [[[0.25]], [[0.16]], [[0.36]]]),
)
pairs, levels = pair_up(*fixed, torch.zeros(6)), torch.linspace(0.02, 0.98, 33)
start_points, ends = fixed[0].quantile(levels), fixed[1].quantile(levels)
times, paths = trajectory(pairs.velocity, start_points, steps=60, method="rk4")
straight = start_points + times[:, None, None] * (ends - start_points)

figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.6), width_ratios=(1, 1, 0.9))
rows = (paths, "independent", "flow matching bends"), (straight, "optimal", "McCann's interpolation is straight")
for axis, (positions, role, title) in zip(axes, rows):
    axis.plot(times, positions[..., 0], color=ROLES[role], lw=0.9)
    axis.set(xlabel="time $t$", ylabel="position", title=title, xlim=(0, 1), ylim=(-4.6, 4.6))
dense = torch.linspace(-3.8, 3, 300)[:, None]
axes[2].plot(dense, fixed[1].quantile(fixed[0].cdf(dense)), color=ROLES["optimal"], label=r"$F_\beta^{-1}\circ F_\alpha$")
axes[2].plot(start_points, paths[-1], "o", ms=3, color=ROLES["independent"], label=r"$\varphi_1$ (integrated)")
axes[2].plot(start_points, paths[30], "--", lw=1.2, color=ROLES["independent"], label=r"$\varphi_{1/2}$")
axes[2].plot(start_points, straight[30], "--", lw=1.2, color=ROLES["optimal"], label=r"$T_{1/2}$")
axes[2].set(xlabel="start $x$", ylabel="image", title="the end map only is the same")
axes[2].legend(fontsize=8)
alt = (
    "Curved flow-matching trajectories beside straight McCann lines in one dimension: both end at the same points, "
    "but differ at intermediate times."
)
show(figure, "one_dimension", alt=alt)

# %% [markdown]
# ## 4. Exercise 4: Gaussian couplings
#
# Regression of Gaussians is linear, so the velocity is linear, and the flow solves a linear equation.
#
# ### Exercise 4(a), statement
#
# **Hypotheses.** $(X_0,X_1)\sim\mathcal N(0,\Sigma)$ and $\Sigma_t=\mathrm{Cov}(X_t)\succ0$ at the time $t<1$ considered.
#
# *The velocity is* $v_t(x)=\frac1{1-t}\Big(\big((1-t)\Sigma_{01}+t\Sigma_1\big)\Sigma_t^{-1}-I\Big)x$, *with*
# $\Sigma_t=(1-t)^2\Sigma_0+(1-t)t(\Sigma_{01}+\Sigma_{10})+t^2\Sigma_1$.

# %%
errata.box("N-18")

# %% [markdown]
# It suffices that $\Sigma\succ0$, or that $\Sigma_{01}=0$ and $\Sigma_0\succ0$ (for $t<1$).

# %% [markdown]
# ### Solution 4(a)
#
# $\mathrm{Cov}(X_1,X_t)=(1-t)\,\mathrm{Cov}(X_1,X_0)+t\,\mathrm{Cov}(X_1)=(1-t)\Sigma_{01}+t\Sigma_1$, and all
# means vanish, so the regression formula gives $\mathbb E[X_1\mid X_t=x]=((1-t)\Sigma_{01}+t\Sigma_1)\Sigma_t^{-1}x$. By the
# third form of exercise 1, for $t<1$,
#
# $$
# v_t(x)=\frac1{1-t}\Big(\big((1-t)\Sigma_{01}+t\Sigma_1\big)\Sigma_t^{-1}-I\Big)x .
# $$
#
# The covariance of $X_t$ is $\Sigma_t=(1-t)^2\Sigma_0+t^2\Sigma_1+(1-t)t\big(\mathrm{Cov}(X_0,X_1)+\mathrm{Cov}(X_1,X_0)\big)$,
# as stated. $\square$

# %% [markdown]
# **A form that is valid at $t=1$ (ours).** Idea: regress the displacement itself, not the end. Apply the regression formula to
# $V=X_1-X_0$ directly:
#
# $$
# v_t(x)=C_t\Sigma_t^{-1}x,\qquad C_t=\mathrm{Cov}(V,X_t)=t\Sigma_1-(1-t)\Sigma_0+(1-t)\Sigma_{01}-t\Sigma_{10},
# $$
#
# which has no division by $1-t$. The two agree: $(1-t)\Sigma_{01}+t\Sigma_1-\Sigma_t=(1-t)C_t$. Moreover
# $C_t+C_t^\top=\dot\Sigma_t$, so with $B_t=C_t\Sigma_t^{-1}$ we have $\dot\Sigma_t=B_t\Sigma_t+\Sigma_tB_t^\top$: this is the
# continuity equation for centred Gaussians and linear fields.

# %%
def path_cov(s0, s1, s01, t):
    return (1 - t) ** 2 * s0 + (1 - t) * t * (s01 + s01.T) + t**2 * s1


def notes_formula(s0, s1, s01, t, x):
    """Exercise 4(a) as printed in the notes."""
    regression = torch.linalg.solve(path_cov(s0, s1, s01, t), ((1 - t) * s01 + t * s1).T).T
    return (x @ regression.T - x) / (1 - t)


gaps = {"quadrature": [], "modes": [], "end": [], "continuity": []}
for d in dimensions:
    drawn, t, at_zero = random_coupling(d, 1), uniform(0, 0.9), torch.zeros(1, d)
    pairs = MixtureCoupling(drawn.weights, at_zero, at_zero, drawn.cov0, drawn.cov1, drawn.cross_cov)
    s0, s1, s01 = pairs.cov0[0], pairs.cov1[0], pairs.cross_cov[0].T  # Σ0, Σ1, Σ01 = Cov(X1, X0) of the notes
    x, p, q = randn(3, d), Gaussian(torch.zeros(d), s0), Gaussian(torch.zeros(d), s1)
    if d <= 2:
        gaps["quadrature"].append(error(notes_formula(s0, s1, s01, t, x), fm_by_quadrature(pairs, t, x, nodes[d])))
    gaps["modes"].append(error(notes_formula(s0, s1, s01, t, x), fm_by_modes(pairs, t, x)))
    for end in (0.0, 1.0):
        gaps["end"].append(error(fm_velocity(p, q, end, x, cross_cov=s01.T), fm_by_modes(pairs, end, x)))
    B = fm_velocity(p, q, t, torch.eye(d), cross_cov=s01.T).T
    cov, rate = torch.func.jvp(lambda t: path_cov(s0, s1, s01, t), (torch.tensor(t),), (torch.tensor(1.0),))
    gaps["continuity"].append(error(B @ cov + cov @ B.T, rate))
claim("EX4-1", largest(gaps["quadrature"]))
claim("EX4-2", largest(gaps["modes"]))
claim("EX4-3", largest(gaps["end"]))
claim("EX4-4", largest(gaps["continuity"]))

# %% [markdown]
# **$t\to1$ in floating point.** At $t=1$ the notes' formula is $0/0$, and close to $1$ it divides a rounding error by $1-t$.
# The regular form does not suffer. The claim EX4-5 records the loss at $1-t=10^{-12}$, on the printed example.

# %%
errata.box("N-14")

# %% [markdown]
# **Trap: the block convention.** Idea: exchange the blocks, and what changes is a swirl along the level lines, which no
# marginal sees. Exchange $\Sigma_{01}$ and $\Sigma_{10}$, the usual reading of the indices. $\Sigma_t$ is unchanged, and $C_t$
# changes by $(1-t)(\Sigma_{10}-\Sigma_{01})-t(\Sigma_{01}-\Sigma_{10})=\Sigma_{10}-\Sigma_{01}=:K$, an antisymmetric matrix.
# The field $K\Sigma_t^{-1}x$ is divergence-free for $\mu_t$: with $\rho_t\propto e^{-\frac12\langle x,\Sigma_t^{-1}x\rangle}$,
#
# $$
# \mathrm{div}(\rho_tK\Sigma_t^{-1}x)=\rho_t\big(\mathrm{tr}(K\Sigma_t^{-1})-\langle\Sigma_t^{-1}x,K\Sigma_t^{-1}x\rangle\big)=0,
# $$
#
# both terms being zero by antisymmetry. So the wrong field **still solves the continuity equation and still pushes $\alpha$ to
# $\beta$**: no test on the marginals can detect the mistake. The conditional expectation itself does, and so does $\varphi_1$.

# %%
close = 1 - 1e-12
claim("EX4-5", (notes_formula(cov0, cov1, cov01, close, probe) - fm_velocity(P, Q, close, probe, cross_cov=cov01.T)).abs().max())

t = 0.5
right, swapped = fm_velocity(P, Q, t, probe, cross_cov=cov01.T), fm_velocity(P, Q, t, probe, cross_cov=cov01)
residuals = []
for time in (0.0, 0.3, 0.7, 1.0):
    B = fm_velocity(P, Q, time, eye, cross_cov=cov01).T  # the blocks the wrong way round
    cov, rate = torch.func.jvp(lambda t: path_cov(cov0, cov1, cov01, t), (torch.tensor(time),), (torch.tensor(1.0),))
    residuals.append(error(B @ cov + cov @ B.T, rate))
claim("EX4-6", largest(residuals))
slopes = [fm_velocity(P, Q, time, eye, cross_cov=c).T for time in (0.0, 0.25, 0.5, 0.75, 1.0) for c in (cov01.T, cov01)]
claim("EX4-7", largest((a - b).abs().max() for a, b in zip(slopes[::2], slopes[1::2])))
end_right, end_swapped = (fm_flow(P, Q, 1.0, cross_cov=c) for c in (cov01.T, cov01))
pushed = max(error(end.push_forward(P).cov, cov1) for end in (end_right, end_swapped))
claim("EX4-8", (end_right.matrix - end_swapped.matrix).abs().max() if pushed < 1e-10 else 0.0)

# %% [markdown]
# ### Exercise 4(b), statement
#
# **Hypotheses.** $\Sigma_{01}=0$; $\Sigma_0,\Sigma_1\succ0$ can be jointly diagonalised in an *orthonormal* basis,
# $\Sigma_i=U\mathrm{diag}(s_i)U^\top$; that is, they commute.
#
# *Then $\varphi_t=\Sigma_t^{1/2}\Sigma_0^{-1/2}$, and $\varphi_1$ is the optimal map.*

# %%
errata.box("N-19")

# %% [markdown]
# ### Solution 4(b)
#
# In the common basis the coordinates move independently, each as on a line.
# $C_t=t\Sigma_1-(1-t)\Sigma_0=\frac12\dot\Sigma_t$ and
# $\Sigma_t=(1-t)^2\Sigma_0+t^2\Sigma_1=U\mathrm{diag}(\sigma_{t,i}^2)U^\top$ with $\sigma_{t,i}^2=(1-t)^2s_{0,i}+t^2s_{1,i}>0$.
# In the basis $U$ the differential equation $\dot y=v_t(y)$ decouples into
# $\dot y_i=\frac{(\sigma_{t,i}^2)'}{2\sigma_{t,i}^2}y_i=(\log\sigma_{t,i})'y_i$, whose solution is
# $y_i(t)=\frac{\sigma_{t,i}}{\sigma_{0,i}}y_i(0)$. Hence
#
# $$
# \varphi_t=\Sigma_t^{1/2}\Sigma_0^{-1/2},\qquad\varphi_1=\Sigma_1^{1/2}\Sigma_0^{-1/2}.
# $$
#
# $\varphi_1$ is symmetric positive definite, as a product of commuting ones, so it is the gradient of the convex function
# $\frac12\langle x,\varphi_1x\rangle$; and $\varphi_1\Sigma_0\varphi_1^\top=\Sigma_1$, so it pushes $\alpha$ to $\beta$. By
# Brenier's theorem it is the optimal map. $\square$

# %% [markdown]
# For $0<t<1$, $\varphi_t\ne T_t=(1-t)I+t\varphi_1$: the eigenvalues of the one are strictly below those of the other,
# $\sqrt{(1-t)^2+t^2\kappa_i^2}<(1-t)+t\kappa_i$, where $\kappa_i>0$ are those of $\varphi_1$.

# %% [markdown]
# ### The converse (ours), statement
#
# Idea: the flow is optimal in *some* basis always, but optimality is not invariant under a change to a basis that is not
# orthonormal.
#
# **Theorem.** *Let $\Sigma_{01}=0$ and $\Sigma_0,\Sigma_1\succ0$. Let $L$ be invertible and $D=\mathrm{diag}(\lambda_i)$ with
# $\Sigma_0=LL^\top$ and $\Sigma_1=LDL^\top$. Then*
#
# $$
# \varphi_t=L\,\mathrm{diag}\Big(\sqrt{(1-t)^2+t^2\lambda_i}\Big)L^{-1},
# \qquad \varphi_1=(\Sigma_1\Sigma_0^{-1})^{1/2}=(\Sigma_0\#\Sigma_1)\,\Sigma_0^{-1},
# $$
#
# *with the geometric mean $\Sigma_0\#\Sigma_1=\Sigma_0^{1/2}(\Sigma_0^{-1/2}\Sigma_1\Sigma_0^{-1/2})^{1/2}\Sigma_0^{1/2}$.
# $\varphi_1$ is the optimal map if and only if $\Sigma_0\Sigma_1=\Sigma_1\Sigma_0$, and in general*
#
# $$
# \mathbb E\lvert\varphi_1(X_0)-X_0\rvert^2-W_2^2(\alpha,\beta)=2\big(F-\mathrm{tr}\,\Sigma_0\#\Sigma_1\big)\ge0,
# \qquad F=\mathrm{tr}\,(\Sigma_0^{1/2}\Sigma_1\Sigma_0^{1/2})^{1/2}.
# $$

# %% [markdown]
# ### The converse, proof
#
# Such an $L$ exists: diagonalise $\Sigma_0^{-1/2}\Sigma_1\Sigma_0^{-1/2}=UDU^\top$ and take $L=\Sigma_0^{1/2}U$. Put
# $d_i(t)=(1-t)^2+t^2\lambda_i$. Then $\Sigma_t=L\,\mathrm{diag}(d_i)L^\top$, $C_t=\frac12L\,\mathrm{diag}(d_i')L^\top$ and
# $v_t(x)=L\,\mathrm{diag}(d_i'/2d_i)L^{-1}x$: in the coordinates $L^{-1}x$ the equation decouples as before, which gives
# $\varphi_t$. (This is exercise 1(a) with $A=L$.) Then $\varphi_1=LD^{1/2}L^{-1}$; its square is
# $LDL^{-1}=\Sigma_1\Sigma_0^{-1}$, and it is the root with positive eigenvalues. Also
# $\Sigma_0\#\Sigma_1=\Sigma_0^{1/2}UD^{1/2}U^\top\Sigma_0^{1/2}=LD^{1/2}L^\top$, so
# $(\Sigma_0\#\Sigma_1)\Sigma_0^{-1}=LD^{1/2}L^\top L^{-\top}L^{-1}=\varphi_1$.
#
# $\varphi_1$ pushes $\alpha$ to $\beta$, so it is optimal if and only if it is symmetric positive semi-definite; having
# positive eigenvalues, if and only if it is symmetric. Write $M=\Sigma_0\#\Sigma_1$. Symmetry of $M\Sigma_0^{-1}$ means that
# $M$ commutes with $\Sigma_0^{-1}$; then $\Sigma_1=LDL^\top=M\Sigma_0^{-1}M$ commutes with $\Sigma_0$. The converse is (b).
#
# Cost: $\mathbb E\lvert\varphi_1X_0-X_0\rvert^2=\mathrm{tr}\,\Sigma_1+\mathrm{tr}\,\Sigma_0-2\,\mathrm{tr}(\varphi_1\Sigma_0)$
# with $\varphi_1\Sigma_0=M$, and $W_2^2=\mathrm{tr}\,\Sigma_0+\mathrm{tr}\,\Sigma_1-2F$. The difference is non-negative since
# $W_2^2$ is the least cost. $\square$

# %%
def root_of(matrix):  # SciPy's root: an oracle that shares nothing with the package
    return torch.as_tensor(np.real(sqrtm(matrix.numpy())))


def commuting_triple(d):
    """Σ0, Σ1 and a symmetric Σ01 in one orthonormal basis, with correlations of either sign; and a Σ1 in another basis."""
    U, eigen = random_orthogonal(d), 0.3 + 3 * torch.rand(2, d, generator=rng)
    cross = (2 * torch.rand(d, generator=rng) - 1) * 0.9 * eigen.prod(0).sqrt()
    return *(U @ torch.diag(e) @ U.T for e in (*eigen, cross)), random_law(d).cov


gaps, excess = {"commuting": [], "optimal": [], "flow": [], "end": [], "cost": [], "symmetric": []}, []
for d in range(1, 7):
    for _ in range({"quick": 1, "full": 10}[preset]):
        s0, s1, s01, other = commuting_triple(d)
        p, q, q_other = (Gaussian(torch.zeros(d), cov) for cov in (s0, s1, other))
        # One integration for three flows: commuting, commuting and correlated, not commuting.
        ends = Gaussian(torch.zeros(d), torch.stack([s1, s1, other]))
        field = lambda time, y: fm_velocity(p, ends, time, y, cross_cov=torch.stack([0 * s0, s01, 0 * s0]))
        half = integrate_adaptive(field, torch.eye(d).expand(3, d, d), t1=0.5, rtol=1e-12, atol=1e-13)
        end = integrate_adaptive(field, half, t0=0.5, rtol=1e-12, atol=1e-13).mT
        gaps["commuting"].append(error(half[0].T, root_of(path_cov(s0, s1, 0 * s0, 0.5)) @ torch.linalg.inv(root_of(s0))))
        optimal = monge_map(p, q).matrix
        gaps["optimal"] += [error(end[0], optimal), error(root_of(s1) @ torch.linalg.inv(root_of(s0)), optimal)]
        gaps["symmetric"].append(error(end[1], optimal))
        closed_form = fm_flow(p, q_other, 1.0).matrix
        gaps["flow"].append(error(closed_form, end[2]))
        r, ri = root_of(s0), torch.linalg.inv(root_of(s0))
        mean, fidelity = r @ root_of(ri @ other @ ri) @ r, root_of(r @ other @ r).trace()
        inverse = torch.linalg.inv(s0)
        gaps["end"] += [error(closed_form, root_of(other @ inverse)), error(closed_form, mean @ inverse)]
        gaps["end"].append(error(geometric_mean(s0, other), mean))
        gaps["cost"].append(error(cost_of(p, closed_form) - w2_squared(p, q_other), 2 * (fidelity - mean.trace())))
        excess.append((fidelity - mean.trace()).item())
claim("EX4-9", largest(gaps["commuting"]))
claim("EX4-10", largest(gaps["optimal"]))
claim("EX4-11", largest(gaps["flow"]))
claim("EX4-12", largest(gaps["end"]))
claim("EX4-13", largest(gaps["cost"]))
claim("EX4-14", smallest(excess))
claim("EX4-15", largest(gaps["symmetric"]))

# %% [markdown]
# **The non-commuting pair**: the printed example, and a strong one: $\Sigma_0=\mathrm{diag}(100,1)$, and $\Sigma_1$ the same
# ellipse turned by 45°. In both cases $\varphi_1$ pushes $\alpha$ to $\beta$ exactly, but is not symmetric, and costs more than
# the optimal map.

# %%
turn = lambda angle: torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
stretched = torch.diag(torch.tensor([100.0, 1.0]))
p_strong, q_strong = Gaussian(zero, stretched), Gaussian(zero, turn(math.pi / 4) @ stretched @ turn(math.pi / 4).T)
end, end_strong = fm_flow(P, Q, 1.0).matrix, fm_flow(p_strong, q_strong, 1.0).matrix
costs = [cost_of(P, end), w2_squared(P, Q), cost_of(p_strong, end_strong), w2_squared(p_strong, q_strong)]
print(f"printed example: cost of φ1 {costs[0]:.4f}, optimal {costs[1]:.4f}")
print(f"condition number 100 at 45°: cost of φ1 {costs[2]:.3f}, optimal {costs[3]:.3f}")
claim("EX4-16", (end - end.T).abs().max())
claim("EX4-17", costs[0] - costs[1])
claim("EX4-18", error(costs[0] - costs[1], 0.0140816467))
claim("EX4-19", costs[2] / costs[3])
commuting = Gaussian(zero, torch.diag(torch.tensor([1.0, 4.0]))), Gaussian(zero, torch.diag(torch.tensor([9.0, 0.25])))
halfway = 0.5 * (eye + monge_map(*commuting).matrix)
claim("EX4-20", (fm_flow(*commuting, 0.5).matrix - halfway).abs().max())

# %%
figure, axes = plt.subplots(1, 4, figsize=(11.0, 3.1))
examples = (P, Q, 3.8, "printed example"), (p_strong, q_strong, 22, "condition 100, turned by 45°")
for (left, right), (p, q, limit, name) in zip((axes[:2], axes[2:]), examples):
    half_axes = 2 * (torch.linalg.eigh(p.cov).eigenvectors * torch.linalg.eigvalsh(p.cov).sqrt()).T  # short, long
    draw_ellipse(left, p.mean, p.cov, role="source")
    draw_ellipse(right, q.mean, q.cov, role="target")
    maps = (left, eye, "source", "the source"), (right, monge_map(p, q).matrix, "optimal", "optimal map")
    for axis, matrix, role, label in (*maps, (right, fm_flow(p, q, 1.0).matrix, "independent", "flow matching")):
        short, long = (torch.stack([zero, matrix @ half_axis]) for half_axis in half_axes)
        axis.plot(*long.T, "-o", markevery=[1], color=ROLES[role], lw=2, label=label)
        axis.plot(*short.T, ":s", markevery=[1], color=ROLES[role], lw=2)
    for axis, title in ((left, name), (right, "where its half-axes go")):
        axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xlabel="$x_1$", title=title)
axes[0].set_ylabel("$x_2$")
axes[3].legend(fontsize=8, loc="lower right")
alt = (
    "Two pairs of ellipses; in each target the images of the half-axes of the source under the optimal map and under flow "
    "matching. In the second pair flow matching pulls the long half-axis inside and pushes the short one to the tip."
)
show(figure, "non_commuting", alt=alt)

# %% [markdown]
# Both maps send the ellipse of $\alpha$ to the same ellipse of $\beta$, but not the same points to the same points (drawn: two
# standard deviations; circles and squares: the ends of the long and of the short half-axis of $\alpha$, and their images). They
# differ by a rotation *within* the law $\beta$: the optimal map leaves the half-axes where they were as nearly as possible;
# flow matching draws the end of the long one far towards the centre.
#
# **$\Sigma_{01}=0$ in (b) cannot be dropped.** Idea: an antisymmetric correlation is a swirl, and its flow is a rotation. The
# hypothesis can be weakened: if $\Sigma_{01}$ is symmetric and commutes with $\Sigma_0$ and $\Sigma_1$, all matrices share a
# basis, $C_t=\frac12\dot\Sigma_t$ again, and the proof of (b) goes through (claim EX4-15 above). But let
# $\Sigma_0=\Sigma_1=I_2$ and $\Sigma_{01}=kJ$, $J=\begin{pmatrix}0&-1\\1&0\end{pmatrix}$, $\lvert k\rvert<1$. Everything
# commutes, and yet: as $\Sigma_{01}+\Sigma_{10}=0$, $\Sigma_t=q_tI$ with $q_t=(1-t)^2+t^2$, and
# $C_t=(2t-1)I+(1-t)kJ+tkJ=\frac12\dot q_tI+kJ$. The matrices $v_t=\frac{\dot q_t}{2q_t}I+\frac k{q_t}J$ commute with each other
# at all times, so the flow is the exponential of their integral; $\int_0^1\frac{\dot q}{2q}dt=0$ and
# $\int_0^1\frac{dt}{q_t}=\big[\arctan(2t-1)\big]_0^1=\frac\pi2$ (as $1+(2t-1)^2=2q_t$). Hence
#
# $$
# \varphi_1=e^{\frac{k\pi}2J},
# $$
#
# a rotation by $k\pi/2$: a pure waste of $\mathbb E\lvert\varphi_1X_0-X_0\rvert^2=4\big(1-\cos\tfrac{k\pi}2\big)$, where
# $\alpha=\beta$ and $W_2=0$.

# %%
J, standard, gaps = torch.tensor([[0.0, -1.0], [1.0, 0.0]]), Gaussian(zero, eye), []
for k in (-0.9, 0.25, 0.6):
    rotation = fm_flow(standard, standard, 1.0, cross_cov=(k * J).T).matrix
    gaps += [error(rotation, torch.as_tensor(expm(0.5 * math.pi * k * J.numpy())))]
    gaps += [error(cost_of(standard, rotation), 4 * (1 - math.cos(0.5 * math.pi * k)))]
claim("EX4-21", largest(gaps))
rotation = fm_flow(standard, standard, 1.0, cross_cov=(0.6 * J).T).matrix
claim("EX4-22", cost_of(standard, rotation) - w2_squared(standard, standard))

# %% [markdown]
# ## 5. Exercise 5: mixtures
#
# Each component has its own velocity; at $(t,x)$ they vote, with the probability that $x$ came from them.
#
# ### Exercise 5, statement
#
# **Hypotheses.** $(X_0,X_1)\sim\sum_k\pi_k\mathcal N(m^k,\Sigma^k)$, and $\Sigma_t^k\succ0$ for all $k$ at the time $t$
# considered. Let $v_t^k$ be the velocity of exercise 4(a) for $\Sigma^k$, $w_t^k(x)=v_t^k(x-m_t^k)+m_1^k-m_0^k$ with
# $m_t^k=tm_1^k+(1-t)m_0^k$, and $p_t^k$ the density of $\mathcal N(m_t^k,\Sigma_t^k)$.
#
# *Then* $v_t(x)=\sum_k\alpha_t^k(x)\,w_t^k(x)$ *with* $\alpha_t^k(x)=\pi_kp_t^k(x)/\sum_j\pi_jp_t^j(x)$. (A weight; the law of
# $X_0$ has the same letter.)

# %%
errata.box("N-20")

# %%
errata.box("N-21")

# %%
errata.box("N-22")

# %% [markdown]
# ### Solution 5
#
# Let $Z$ be the label of the component: $\mathbb P(Z=k)=\pi_k$, and given $Z=k$ the pair has the law
# $\mathcal N(m^k,\Sigma^k)$. Given $Z=k$, the centred pair $(X_0-m_0^k,X_1-m_1^k)$ satisfies the hypotheses of exercise 4,
# $X_t$ has the density $p_t^k$, and since $X_t=(\text{centred }X_t)+m_t^k$ and $V=(\text{centred }V)+m_1^k-m_0^k$,
#
# $$
# \mathbb E[V\mid X_t=x,\,Z=k]=v_t^k(x-m_t^k)+m_1^k-m_0^k=w_t^k(x).
# $$
#
# For every bounded measurable $h$, split according to $Z$:
#
# $$
# \mathbb E\langle V,h(X_t)\rangle=\sum_k\pi_k\,\mathbb E\big[\langle V,h(X_t)\rangle\mid Z=k\big]=\sum_k\pi_k\int\langle w_t^k(x),h(x)\rangle\,p_t^k(x)\,dx=\int\Big\langle\sum_k\alpha_t^k(x)w_t^k(x),\,h(x)\Big\rangle\rho_t(x)\,dx,
# $$
#
# with $\rho_t=\sum_j\pi_jp_t^j$, the density of $X_t$, and $\alpha^k_t=\pi_kp_t^k/\rho_t$. This is the definition of
# $v_t=\sum_k\alpha_t^kw_t^k$. (By Bayes' formula, $\alpha_t^k(x)=\mathbb P(Z=k\mid X_t=x)$: a posterior mean of velocities.)
# $\square$

# %% [markdown]
# Claim EX0-1 has compared this formula with the quadrature of lemma 0 in $d\le3$. In $d\le6$ we use the exact integrals,
# component by component; here with the formula written out as in the exercise.

# %%
def exercise_5(pairs, t, x):
    """The formula of exercise 5 as corrected: posterior weights at time t times the velocities of the components."""
    velocities, log_weights = [], []
    components = zip(pairs.weights, pairs.means0, pairs.means1, pairs.cov0, pairs.cov1, pairs.cross_cov.mT)
    for weight, m0, m1, s0, s1, s01 in components:
        centre = t * m1 + (1 - t) * m0
        velocities.append(notes_formula(s0, s1, s01, t, x - centre) + m1 - m0)
        log_weights.append(weight.log() + MultivariateNormal(centre, path_cov(s0, s1, s01, t)).log_prob(x))
    return (torch.softmax(torch.stack(log_weights), 0)[..., None] * torch.stack(velocities)).sum(0)


gaps = {"modes": [], "package": []}
for d in dimensions:
    pairs, x, t = random_coupling(d, 3), randn(2, d), uniform(0, 0.9)
    gaps["modes"].append(error(exercise_5(pairs, t, x), fm_by_modes(pairs, t, x)))
    gaps["package"].append(error(pairs.velocity(t, x), exercise_5(pairs, t, x)))
claim("EX5-1", largest(gaps["modes"]))
claim("EX5-2", largest(gaps["package"]))

# %% [markdown]
# **Plausible wrong answers**: the prior weights $\pi_k$ in the place of $\alpha_t^k(x)$, and weights that do not depend on
# time, taken from $\alpha$, as the notation $\alpha^k(x)$ suggests. Two components of weights $.3$ and $.7$,
# $m^1=(-1,0,\,2,1)$, $m^2=(1,.5,\,-1,-2)$, both with the covariance of the printed example, $t=\frac12$.

# %%
two = MixtureCoupling([0.3, 0.7], [[-1.0, 0.0], [1.0, 0.5]], [[2.0, 1.0], [-1.0, -2.0]], cov0, cov1, cov01.T)
alone = [MixtureCoupling([1.0], two.means0[k : k + 1], two.means1[k : k + 1], cov0, cov1, cov01.T) for k in (0, 1)]
velocities = torch.stack([component.velocity(0.5, probe) for component in alone])
source_densities = torch.stack([MultivariateNormal(m, cov0).log_prob(probe) for m in two.means0]).exp()
source_weights = two.weights[:, None] * source_densities / (two.weights @ source_densities)
mixed = [(w[..., None] * velocities).sum(0) for w in (two.weights[:, None], source_weights)]
off = [(wrong - two.velocity(0.5, probe)).norm(dim=1).max() for wrong in mixed]
claim("EX5-3", off[0])
claim("EX5-4", off[1])

# %% [markdown]
# **Picture.** From $\mathcal N(0,I)$ to a mixture of four Gaussians with the independent coupling. Left: the straight paths of
# the coupling, which cross. Middle: the flow lines of the marginal velocity $v_t$, which do not cross, and bend. Right: the
# straight lines of the optimal assignment between the same starting points and the same end points.

# %%
centres = torch.tensor([[2.6, 2.2], [-2.8, 1.6], [-1.2, -2.8], [3.0, -1.6]])
pairs = MixtureCoupling([0.25] * 4, torch.zeros(4, 2), centres, eye, 0.35**2 * eye)
starts, goals = pairs.sample(90, generator=torch.Generator().manual_seed(4))
times, paths = trajectory(pairs.velocity, starts, steps=60, method="rk4")
_, pairing = assignment_cost(paths[0], paths[-1])
figure, axes = plt.subplots(1, 3, figsize=(10.2, 3.7), sharex=True, sharey=True)
panels = (
    (torch.stack([starts, goals]), "independent", "independent pairs cross"),
    (paths, "independent", "the flow lines of $v_t$ do not, and bend"),
    (torch.stack([paths[0], paths[-1][pairing]]), "optimal", "optimal pairs of the same ends"),
)
for axis, (lines, role, title) in zip(axes, panels):
    draw_trajectories(axis, lines, colour=ROLES[role], count=90)
    axis.scatter(*lines[0].T, s=6, color=ROLES["source"], zorder=3)
    axis.set(title=title, xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
alt = (
    "Three panels: crossing straight paths of the independent coupling, curved non-crossing flow lines of the "
    "marginal velocity, and the straight lines of the optimal assignment between the same points."
)
show(figure, "flow_lines", alt=alt)

# %% [markdown]
# ## 6. The closing question: point masses
#
# Noise that must end in finitely many points is drawn to the nearest one, faster and faster: the exact field copies its data.
#
# ### The closing question, statements
#
# *What happens if $X_0\sim\mathcal N(0,I)$ and $X_1$ is uniform on $K$ points $x_1,\dots,x_K$?* (Independent ends, as in the
# pipeline of the notes. Other masses $b_k$ would add $\log b_k$ to the exponents of the softmax, and be the masses of the
# basins.)
#
# **The velocity and its derivative.** *For $t<1$,*
#
# $$
# v_t(x)=\sum_kw_k(t,x)\,\frac{x_k-x}{1-t}=\frac{\bar x_w-x}{1-t},
# \qquad w_k(t,x)=\mathrm{softmax}_k\Big(-\frac{\lvert x-tx_k\rvert^2}{2(1-t)^2}\Big),
# \qquad \bar x_w=\sum_kw_kx_k ,
# $$
#
# $$
# \nabla v_t(x)=-\frac I{1-t}+\frac t{(1-t)^3}\,\mathrm{Cov}_w(x_k).
# $$
#
# **Memorisation.** *For almost every start the trajectory $\varphi_t(x)$ converges to one of the atoms as $t\to1$, and the
# basin of each atom has the $\alpha$-mass $1/K$.*
#
# **Where does a point go?** *In $d=1$, and for atoms on one line, the basins are quantile cells, and $\varphi_{1^-}$ is the
# optimal map. In general, in $d\ge2$, the basins are not the cells of optimal transport* (counter-example below).

# %% [markdown]
# ### Solution: the velocity and its derivative
#
# This is exercise 5 with $m_0^k=0$, $m_1^k=x_k$, $\Sigma_0^k=I$ and $\Sigma_1^k=\Sigma_{01}^k=0$. The hypothesis
# $\Sigma_1^k\succ0$ of the notes fails, but ours holds for $t<1$: $\Sigma_t^k=(1-t)^2I\succ0$. In the notation of section 4,
# $C_t=-(1-t)I$, so $v_t^k(y)=-y/(1-t)$, and $w_t^k(x)=-\frac{x-tx_k}{1-t}+x_k=\frac{x_k-x}{1-t}$. All densities $p_t^k$ have
# the same normalising constant, which leaves the softmax.
#
# With $\ell_k=-\lvert x-tx_k\rvert^2/2(1-t)^2$, $\nabla\ell_k=-\frac{x-tx_k}{(1-t)^2}$ and
# $\nabla w_k=w_k\big(\nabla\ell_k-\sum_jw_j\nabla\ell_j\big)=\frac{t}{(1-t)^2}\,w_k\,(x_k-\bar x_w)$. Therefore
# $\nabla\bar x_w=\frac t{(1-t)^2}\sum_kw_kx_k(x_k-\bar x_w)^\top=\frac t{(1-t)^2}\mathrm{Cov}_w(x_k)$. $\square$
#
# For two atoms at distance $D$ and $x=t\frac{x_1+x_2}2$, the weights are $\frac12$ and the covariance is $\frac{D^2}4$ in the
# direction of $x_2-x_1$: the Lipschitz constant grows like $\frac{D^2}4(1-t)^{-3}$. The Cauchy–Lipschitz theorem applies on
# $[0,1-\varepsilon]$ and fails at $t=1$.

# %% [markdown]
# ### Solution: memorisation
#
# Near an atom the other weights are exponentially small, so a ball around each atom is a trap; and the law of $X_t$ puts mass
# $1/K$ into each ball.
#
# Let $\delta$ be the least distance between atoms, $M=\max_k\lvert x_k\rvert$, and let $t$ be so close to $1$ that
# $(1-t)M\le\delta/16$. If $\lvert x-x_k\rvert\le\delta/4$, then $\lvert x-tx_k\rvert\le\frac{5}{16}\delta$ and, for $j\ne k$,
# $\lvert x-tx_j\rvert\ge\frac34\delta-\frac1{16}\delta=\frac{11}{16}\delta$. Hence
# $\ell_k-\ell_j\ge\frac{96}{256}\frac{\delta^2}{2(1-t)^2}$ and
# $1-w_k\le\varepsilon_t:=K\exp\big(-\frac{3\delta^2}{16(1-t)^2}\big)$. In the time $\tau=-\log(1-t)$ the equation reads
# $\frac{dx}{d\tau}=\bar x_w-x$, so the distance $r=\lvert x-x_k\rvert$ obeys $\frac{dr}{d\tau}\le-r+2M\varepsilon_t$. For $t$
# close enough to $1$ the right side is negative at $r=\delta/4$: a trajectory in the ball $B_k=B(x_k,\delta/4)$ stays there,
# and then $r\to0$. How much mass is in the balls? $X_t\to X_1$ almost surely as $t\to1$, so
# $\mathbb P(X_t\in B_k)\to\mathbb P(X_1=x_k)=\frac1K$; and $\mu_t=(\varphi_t)_\#\alpha$. The set of starts captured by $B_k$
# grows with $t$, and its mass tends to $1/K$; these sum to $1$. $\square$
#
# So with finitely many data, the exact minimiser of the flow-matching loss generates **only the training points**. If a trained
# network produces anything new, it is because it does *not* attain this minimum.

# %% [markdown]
# ### Solution: where does a point go?
#
# In one dimension nobody overtakes. In $d=1$ the trajectories do not cross and mass is conserved, so the basins are the
# quantile cells $\big]\Phi^{-1}(\frac{k-1}K),\Phi^{-1}(\frac kK)\big[$, and $\varphi_{1^-}$ is the optimal map. The same holds
# for atoms on a line $\{a+\ell e\}$ in $\mathbb R^d$ ($\lvert e\rvert=1$, $a\perp e$): the component of $x-tx_k$ orthogonal to
# $e$ does not depend on $k$ and cancels in the softmax; the component along $e$ follows the one-dimensional equation, and the
# orthogonal one obeys $\dot y=\frac{a-y}{1-t}$. $\square$

# %%
atoms = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.5]])
gaps = {"limit": [], "jacobian": []}
for d in dimensions:
    K = int(torch.randint(2, 6, (), generator=rng))
    points, x, t = 1.5 * randn(K, d), randn(5, d), uniform(0.1, 0.7)
    nearly = MixtureCoupling(torch.full((K,), 1 / K), torch.zeros(K, d), points, torch.eye(d), 1e-9 * torch.eye(d))
    gaps["limit"].append(error(nearly.velocity(t, x), fm_velocity_diracs(points, t, x)))
    jacobian = torch.autograd.functional.jacobian(lambda y: fm_velocity_diracs(points, t, y[None])[0], x[0])
    w = torch.softmax(-(x[0] - t * points).square().sum(1) / (2 * (1 - t) ** 2), 0)
    centred = points - w @ points
    gaps["jacobian"].append(error(jacobian, -torch.eye(d) / (1 - t) + t / (1 - t) ** 3 * (centred.T * w) @ centred))
claim("DIRAC-1", largest(gaps["limit"]))
claim("DIRAC-2", largest(gaps["jacobian"]))

gap = torch.tensor([1e-3, 1e-4, 1e-5])
pair = atoms[1:]
direction = (pair[1] - pair[0]) / (pair[1] - pair[0]).norm()
jacobian = lambda t, y: torch.autograd.functional.jacobian(lambda y: fm_velocity_diracs(pair, t, y[None])[0], y)
lipschitz = torch.stack([direction @ jacobian(t, t * pair.mean(0)) @ direction for t in 1 - gap])
slope = np.polyfit(gap.log(), lipschitz.log(), 1)[0]
print(f"the Lipschitz constant grows like (1 − t)^{slope:.2f}")
claim("DIRAC-3", abs(slope + 3))

# %%
def in_log_time(points):
    """The field (1 − t)v_t in the time τ = −log(1 − t), where it stays bounded near the atoms."""
    return lambda s, y: math.exp(-s) * fm_velocity_diracs(points, -math.expm1(-s), y)


def collapse(points, x, tau=9.0, steps=250):
    """The trajectories up to t = 1 − exp(−τ): times τ, and positions at all steps."""
    return trajectory(in_log_time(points), x, t1=tau, steps=steps, method="rk4")


def one_dimensional_gap(K):
    """How far F_t(φ_t(x)) is from Φ(x) on the way to K random points on the line."""
    points = torch.linspace(-2, 2, K)[:, None] + 0.3 * randn(K, 1)
    z = torch.special.ndtri(torch.linspace(0.03, 0.97, 19))[:, None]
    flow = integrate_adaptive(lambda t, y: fm_velocity_diracs(points, t, y), z, t1=0.9, rtol=1e-10, atol=1e-12)
    law = GaussianMixture(torch.full((K,), 1 / K), 0.9 * points, [[0.01]])
    return error(law.cdf(flow), torch.special.ndtr(z[:, 0]))


claim("DIRAC-4", largest(one_dimensional_gap(K) for K in (2, 3, 5)))

# Atoms on a line in space, sorted along it; starts in the middle of the quantile cells and elsewhere across the line.
K, e = 4, random_orthogonal(3)
heights = torch.linspace(-2, 2, K) + 0.2 * randn(K)
cells = torch.arange(K).repeat(5)
start_points = torch.special.ndtri((cells + 0.5) / K)[:, None] * e[0] + randn(5 * K, 2) @ e[1:]
line_atoms = heights[:, None] * e[0] + 0.7 * e[1]
claim("DIRAC-5", (collapse(line_atoms, start_points)[1][-1] - line_atoms[cells]).norm(dim=1).max())

side = {"quick": 41, "full": 101}[preset]
z = torch.special.ndtri((torch.arange(side) + 0.5) / side)
quantile_grid = torch.cartesian_prod(z, z)  # points of equal α-mass
final = collapse(atoms, quantile_grid)[1][-1]
distance, basin = torch.cdist(final, atoms).min(1)
claim("DIRAC-6", distance.quantile(0.99))
claim("DIRAC-7", (torch.bincount(basin, minlength=3) / len(basin) - 1 / 3).abs().max())

# %% [markdown]
# **Plausible wrong answers.** (A) "As $t\to1$ the field points to the mean of the data": the limit of $(1-t)v_t(x)+x=\bar x_w$
# is the nearest atom, not the empirical mean. (B) Forgetting $t$ in $tx_k$, that is, a softmax of
# $-\lvert x-x_k\rvert^2/2(1-t)^2$: at $t=\frac12$, $x=(.3,-.2)$.
#
# **The flow is not the optimal map** (atoms $(0,0)$, $(1,0)$, $(0,2.5)$). The optimal map sends $x$ to the atom that minimises
# $\frac12\lvert x-x_k\rvert^2-g_k$, with weights $g$ such that all three cells have the mass $\frac13$ (the dual of the
# semidiscrete problem). We solve for $g$ by integrating the Gaussian exactly along one coordinate. Then we follow the flow from
# the point $(-2.2509,\,.1845)$: optimal transport sends it to $(0,0)$, by a clear margin, and flow matching to $(0,2.5)$. The
# Voronoi cells (all $g_k$ equal) are wrong for both: that of $(0,0)$ has far more mass than $\frac13$.

# %%
def cell_masses(points, g, nodes=6001):
    """Masses under N(0, I_2) of the cells argmin_k ½|x − y_k|² − g_k: exact along one coordinate, by quadrature along the other."""
    points = points @ turn(0.3).T  # no wall parallel to the coordinate that is integrated exactly
    u = torch.linspace(-9, 9, nodes)
    density = torch.exp(-0.5 * u**2) / math.sqrt(2 * math.pi) * (u[1] - u[0])
    masses = []
    for j, y in enumerate(points):
        low, high = torch.full_like(u, -torch.inf), torch.full_like(u, torch.inf)
        for i, other in enumerate(points):
            if i != j:  # ⟨x, other − y⟩ ≤ level
                level = 0.5 * (other @ other - y @ y) + g[j] - g[i] - u * (other - y)[0]
                bound = level / (other - y)[1]
                low, high = (low, torch.minimum(high, bound)) if (other - y)[1] > 0 else (torch.maximum(low, bound), high)
        masses.append(density @ (torch.special.ndtr(high) - torch.special.ndtr(low)).clamp_min(0))
    return torch.stack(masses)


def scores(x, g):
    return 0.5 * torch.cdist(x, atoms).square() - g


near_end, x = 1 - 1e-3, torch.tensor([[0.3, -0.2]])
limit = x + (1 - near_end) * fm_velocity_diracs(atoms, near_end, x)
claim("DIRAC-8", error(limit, atoms[torch.cdist(x, atoms).argmin(1)]))
claim("DIRAC-9", (limit - atoms.mean(0)).norm())
without_t = torch.softmax(-(x - atoms).square().sum(1) / (2 * 0.5**2), 0)
claim("DIRAC-10", ((without_t @ atoms - x) / 0.5 - fm_velocity_diracs(atoms, 0.5, x)).norm())

solution = root(lambda h: (cell_masses(atoms, torch.tensor([0.0, *h])) - 1 / 3)[1:].numpy(), [0.4, 2.4], tol=1e-10)
g = torch.tensor([0.0, *solution.x])
print("weights of the optimal cells, g_k − g_1:", [round(value, 4) for value in g.tolist()])
claim("DIRAC-11", (cell_masses(atoms, g) - 1 / 3).abs().max())
claim("DIRAC-12", error(2 * g, torch.tensor([0.568558, 1.374266, 5.307176]) - 0.568558))

witness = torch.tensor([[-2.2509257, 0.18445244]])
end = integrate_adaptive(in_log_time(atoms), witness, t1=9.0, rtol=1e-12)
reached = torch.cdist(end, atoms).argmin(1).item()
score = scores(witness, g)[0]
claim("DIRAC-13", 2 * (score[reached] - score.min()))  # in the units of ‖x − y‖²
optimal_cell, voronoi_cell = scores(quantile_grid, g).argmin(1), scores(quantile_grid, 0 * g).argmin(1)
say(f"assigned otherwise than by optimal transport: {(basin != optimal_cell).double().mean():.1%} of the mass")
claim("DIRAC-14", (basin != optimal_cell).double().mean())
claim("DIRAC-15", cell_masses(atoms, 0 * g)[0] - 1 / 3)

# %%
palette = [ROLES[role] for role in ("first", "second", "target")]
mesh = torch.cartesian_prod(torch.linspace(-3, 3, 61), torch.linspace(-2.6, 3.4, 61))
arrows = torch.cartesian_prod(torch.linspace(-2.7, 2.7, 13), torch.linspace(-2.3, 3.1, 13))
figure, axes = plt.subplots(2, 3, figsize=(10.2, 7.0), sharex=True, sharey=True)
frame = {"extent": (-3, 3, -2.6, 3.4), "origin": "lower", "interpolation": "bilinear"}
rgb = torch.tensor([plt.matplotlib.colors.to_rgb(colour) for colour in palette])
for axis, t in zip(axes[0], (0.3, 0.7, 0.95)):
    weights = torch.softmax(-torch.cdist(mesh, t * atoms).square() / (2 * (1 - t) ** 2), 1)
    axis.imshow((1 - 0.35 * (1 - weights @ rgb)).reshape(61, 61, 3).transpose(0, 1), **frame)
    field = (1 - t) * fm_velocity_diracs(atoms, t, arrows)
    axis.quiver(*arrows.T, *field.T, angles="xy", scale_units="xy", scale=4.5, width=0.004, color=ROLES["truth"])
    axis.set(title=f"$(1-t)\\,v_t$ and the weights $w_k$, $t={t}$")
starts = torch.randn(60, 2, generator=torch.Generator().manual_seed(1))
_, lines = collapse(atoms, starts)
colours = torch.cdist(lines[-1], atoms).argmin(1)
for i in range(len(starts)):
    axes[1, 0].plot(*lines[:, i].T, color=palette[colours[i]], lw=0.9)
axes[1, 0].plot(*starts.T, ".", ms=3, color=ROLES["source"])
axes[1, 0].set_title("trajectories,\ncoloured by the atom they reach")
fine = torch.cartesian_prod(torch.linspace(-3, 3, 91), torch.linspace(-2.6, 3.4, 91))
reached = torch.cdist(collapse(atoms, fine, steps=150)[1][-1], atoms).argmin(1)
tint = 1 - 0.35 * (1 - rgb[reached])
panels = (axes[1, 1], g, "cells of optimal transport", "optimal"), (axes[1, 2], 0 * g, "Voronoi cells", "wrong")
for axis, weights, name, role in panels:
    axis.imshow(tint.reshape(91, 91, 3).transpose(0, 1), **frame)
    field = scores(fine, weights)
    for k in range(3):  # the wall: the score of k equals the best of the others
        wall = field[:, k] - field[:, [j for j in range(3) if j != k]].min(1).values
        axis.contour(wall.reshape(91, 91).T, [0.0], extent=(-3, 3, -2.6, 3.4), colors=ROLES[role], linewidths=1.6)
    axis.set_title(f"basins of the flow (colours),\n{name} (lines)")
axes[1, 1].plot(*witness.T, "X", ms=8, color=ROLES["wrong"], mec="white")
for axis in axes.flat:
    axis.scatter(*atoms.T, s=50, c=palette, marker="s", edgecolors=ROLES["truth"], zorder=3)
    axis.set(xlim=(-3, 3), ylim=(-2.6, 3.4), aspect="equal")
for axis in axes[1]:
    axis.set_xlabel("$x_1$")
for axis in axes[:, 0]:
    axis.set_ylabel("$x_2$")
alt = (
    "The softmax field towards three atoms at three times, its trajectories collapsing on the atoms, and its basins "
    "of attraction, which differ slightly from the cells of optimal transport and strongly from the Voronoi cells."
)
show(figure, "collapse_on_atoms", alt=alt)

# %% [markdown]
# The cross marks the witness: it lies in the optimal cell of $(0,0)$ and in the basin of $(0,2.5)$.

# %% [markdown]
# ## 7. The flow-matching section of the notes
#
# ### 7.1 The expectation is over the coupling
#
# The velocity depends on the coupling, not on $\alpha$ and $\beta$ alone.

# %%
errata.box("N-08")

# %% [markdown]
# On the printed example, the independent coupling and that with $\Sigma_{01}$ have the same marginals $\alpha$, $\beta$ and
# different velocities. And to average over $\alpha\otimes\beta$ *without* the condition gives the constant field $m_1-m_0$,
# whose flow is a translation: the image has the covariance $\Sigma_0$ instead of $\Sigma_1$.

# %%
claim("ERR-1", (fm_velocity(P, Q, 0.5, probe) - fm_velocity(P, Q, 0.5, probe, cross_cov=cov01.T)).abs().max())
p_shifted, q_shifted = Gaussian([0.3, -1.0], cov0), Gaussian([1.5, 0.7], cov1)
nodes, weights = p_shifted.quadrature(3)
nodes_end, weights_end = q_shifted.quadrature(3)
average = weights_end @ nodes_end - weights @ nodes
moved = integrate_adaptive(lambda t, x: average.expand_as(x), nodes)
centred = moved - weights @ moved
claim("ERR-2", ((centred.T * weights) @ centred - cov1).abs().max())

# %% [markdown]
# ### 7.2 The loss: time, and a minimum that is not zero
#
# The network needs $t$, and what it cannot know it pays for.

# %%
errata.box("N-09")

# %%
errata.box("N-10")

# %% [markdown]
# **The identity of the loss**, proved in [proofs/03](03_flow_matching.ipynb), section 2: for every field $u$ of finite loss,
# $\mathcal L(u)=\int_0^1\mathbb E\lvert u_t(X_t)-v_t(X_t)\rvert^2dt+\mathcal L_{\min}$ with
# $\mathcal L_{\min}=\mathbb E\lvert V\rvert^2-\int_0^1\mathbb E\lvert v_t(X_t)\rvert^2dt$. So
# $\mathcal L_{\min}=\int\mathbb E\,\mathrm{tr}\,\mathrm{Cov}(V\mid X_t)\,dt$ vanishes if and only if $V$ is a function of
# $X_t$ for almost all $t$, as for the optimal coupling $X_1=T(X_0)$, where $V=(T-\mathrm{Id})(T_t^{-1}(X_t))$ (claim ERR-5).
#
# **The energy in closed form, statement.** *For independent Gaussians with $\Sigma_0,\Sigma_1\succ0$,*
#
# $$
# \int_0^1\mathbb E\lvert v_t(X_t)\rvert^2dt=\lvert m_1-m_0\rvert^2+\mathrm{tr}\,\Sigma_0+\mathrm{tr}\,\Sigma_1-\frac\pi2\,\mathrm{tr}\,\Sigma_0\#\Sigma_1,
# \qquad \mathcal L_{\min}=\frac\pi2\,\mathrm{tr}\,\Sigma_0\#\Sigma_1>0 .
# $$

# %% [markdown]
# *Proof.* Idea: in the coordinates in which both covariances are diagonal, the energy is a sum of one-dimensional integrals,
# each an arctangent. Centred first. In the notation of section 4,
# $\mathbb E\lvert v_t\rvert^2=\mathrm{tr}\,C_t\Sigma_t^{-1}C_t=\sum_i(L^\top L)_{ii}\,\frac{d_i'^2}{4d_i}$. Expanding,
# $(1+\lambda)d-\frac14d'^2=\lambda$ for $d=(1-t)^2+t^2\lambda$, $\frac12d'=t\lambda-(1-t)$. So
# $\frac{d'^2}{4d}=1+\lambda-\frac\lambda d$, and with $u=t/(1-t)$,
# $\int_0^1\frac{dt}d=\int_0^\infty\frac{du}{1+\lambda u^2}=\frac\pi{2\sqrt\lambda}$. Sum:
# $\sum_i(L^\top L)_{ii}(1+\lambda_i-\frac\pi2\sqrt{\lambda_i})=\mathrm{tr}\,LL^\top+\mathrm{tr}\,LDL^\top-\frac\pi2\mathrm{tr}\,LD^{1/2}L^\top$.
# The means add the constant $m_1-m_0$ to $v_t$, and $\mathbb E v_t(X_t)-(m_1-m_0)=0$ for the centred part. Finally
# $\mathbb E\lvert V\rvert^2=\lvert m_1-m_0\rvert^2+\mathrm{tr}\,\Sigma_0+\mathrm{tr}\,\Sigma_1$. $\square$

# %% [markdown]
# **The order of the energies.** For every coupling with a well-posed flow,
#
# $$
# W_2^2(\alpha,\beta)\;\le\;\mathbb E\lvert\varphi_1(X_0)-X_0\rvert^2\;\le\;\int_0^1\mathbb E\lvert v_t(X_t)\rvert^2dt\;\le\;\mathbb E\lvert X_1-X_0\rvert^2 ,
# $$
#
# of which the first two are those of [proofs/02](02_benamou_brenier.ipynb), section 2, and the last is
# $\lvert\mathbb E[V\mid X_t]\rvert^2\le\mathbb E[\lvert V\rvert^2\mid X_t]$. We check the order (claim ERR-6) and the closed
# forms on random Gaussians.

# %%
def energy_by_quadrature(p, q, interpolant=LINEAR):
    field = lambda t, x: fm_velocity(p, q, t, x, interpolant=interpolant)
    return kinetic_energy(path_quadrature(lambda t: fm_law(p, q, t, interpolant=interpolant), 2), field, times=40)


def loss_by_quadrature(p, q, cross_cov, times=30):
    """The flow-matching loss of v itself, by Gauss–Hermite quadrature over the joint law of (X0, X1)."""
    d = p.dim
    blocks = torch.cat([torch.cat([p.cov, cross_cov], 1), torch.cat([cross_cov.T, q.cov], 1)])
    z, weights = Gaussian(torch.cat([p.mean, q.mean]), blocks).quadrature(2)
    x0, x1, loss = z[:, :d], z[:, d:], 0.0
    for t, dt in zip(*(a.tolist() for a in gauss_legendre(times))):
        x_t, v = LINEAR.at(t, x0, x1)
        loss += dt * (weights @ (fm_velocity(p, q, t, x_t, cross_cov=cross_cov) - v).square().sum(1)).item()
    return loss


gaps, order = {"energy": [], "loss": [], "optimal": []}, []
for d in range(1, 7):
    p, q = random_law(d), random_law(d)
    q = Gaussian(q.mean + 2.0, q.cov)
    energy, total = fm_kinetic_energy(p, q), (p.mean - q.mean).square().sum() + p.cov.trace() + q.cov.trace()
    gaps["energy"].append(error(energy_by_quadrature(p, q), energy))
    if d <= 4:
        floor = 0.5 * math.pi * geometric_mean(p.cov, q.cov).trace()
        gaps["loss"].append(error(loss_by_quadrature(p, q, torch.zeros(d, d)), floor))
        gaps["optimal"].append(loss_by_quadrature(p, q, p.cov @ monge_map(p, q).matrix, times=10))
    flow = fm_flow(p, q, 1.0)
    x, weights = p.quadrature(2)
    chain = [w2_squared(p, q), weights @ (flow(x) - x).square().sum(1), energy, total]
    order += [(right - left).item() for left, right in zip(chain, chain[1:])]
claim("ERR-3", largest(gaps["energy"]))
claim("ERR-4", largest(gaps["loss"]))
claim("ERR-5", largest(gaps["optimal"]))
claim("ERR-6", smallest(order))

# %% [markdown]
# The wrong answers, on the printed example: the minimum of the loss is $0$; the energy is $W_2^2$, "because flow matching
# solves the continuity equation"; the energy is $\mathbb E\lvert X_1-X_0\rvert^2$ (forgets the conditional expectation); and,
# subtly, the fidelity $F$ in the place of $\mathrm{tr}\,\Sigma_0\#\Sigma_1$, which is the same only for commuting covariances.

# %%
energy, optimal, total = fm_kinetic_energy(P, Q), w2_squared(P, Q), cov0.trace() + cov1.trace()
print(f"W2² = {optimal:.4f} ≤ cost of φ1 = {costs[0]:.4f} ≤ energy of v = {energy:.4f} ≤ E|X1 − X0|² = {total:.4f}")
claim("ERR-7", loss_by_quadrature(P, Q, torch.zeros(2, 2)))
claim("ERR-8", energy_by_quadrature(P, Q) - optimal)
claim("ERR-9", total - energy_by_quadrature(P, Q))
with_fidelity = total - 0.5 * math.pi * root_of(root_of(cov0) @ cov1 @ root_of(cov0)).trace()
claim("ERR-10", energy_by_quadrature(P, Q) - with_fidelity)
claim("ERR-11", error(torch.stack([optimal, energy, costs[0]]), [1.1187239084, 2.3919162587, 1.1328055551]))

# %% [markdown]
# **Without the time argument.** The best field $\bar v(x)$ that does not see $t$ is $\mathbb E[V\mid X_t=x]$ with $t$ random,
# uniform and independent of the coupling: $\bar v(x)=\int v_t(x)\rho_t(x)dt\,/\int\rho_t(x)dt$. From $\mathcal N(0,1)$ to
# $\mathcal N(3,\frac14)$ (independent ends), we compute it by quadrature in time, its excess loss, and the end of its flow. By
# exercise 3 the true end map is $x\mapsto3+\frac x2$.

# %%
def without_time(p, q, starts):
    """The best field that does not see t: its excess loss, and where its flow carries the starts."""
    nodes, weights = gauss_legendre(60)
    grid = torch.linspace(-12, 12, 2401)[:, None]
    densities = torch.stack([fm_law(p, q, t).log_prob(grid).exp() for t in nodes.tolist()])
    velocities = torch.stack([fm_velocity(p, q, t, grid)[:, 0] for t in nodes.tolist()])
    blind = (weights[:, None] * densities * velocities).sum(0) / (weights @ densities).clamp_min(1e-300)
    excess = (weights[:, None] * densities * (velocities - blind) ** 2).sum() * 0.01
    field = lambda t, x: torch.as_tensor(np.interp(x[:, 0], grid[:, 0], blind))[:, None]
    return excess, trajectory(field, starts, steps=200, method="rk4")[1][-1]


p_line, q_line, x_start = Gaussian([0.0], [[1.0]]), Gaussian([3.0], [[0.25]]), torch.tensor([[-1.0], [0.0], [1.0]])
excess, blind_end = without_time(p_line, q_line, x_start)
claim("ERR-12", excess)
print("without t, the images of −1, 0, 1 are", [round(v, 2) for v in blind_end[:, 0].tolist()], "instead of [2.5, 3.0, 3.5]")
claim("ERR-13", (blind_end - monge_map(p_line, q_line)(x_start)).abs().max())
excess, blind_end = without_time(p_line, Gaussian([0.0], [[4.0]]), torch.tensor([[1.0], [2.0]]))
ends = ", ".join(f"{end:.2f}" for end in blind_end[:, 0].tolist())
print(f"the pair of N-09, N(0, 1) to N(0, 4): excess {excess:.3f}, the images of 1 and 2 are {ends}")

# %% [markdown]
# ### 7.3 Which variance is preserved?
#
# Write $a_t=\cos\frac{\pi t}2$, $b_t=\sin\frac{\pi t}2$ for the trigonometric path $X_t=a_tX_0+b_tX_1$.

# %%
errata.box("N-11")

# %%
errata.box("N-12")

# %% [markdown]
# **Proposition.** *The trigonometric path preserves the covariance for all $t$ if and only if $\Sigma_0=\Sigma_1$ and
# $\Sigma_{01}+\Sigma_{10}=0$.* Idea: three independent functions of time must have coefficients that vanish.
#
# *Proof.*
# $\mathrm{Cov}(X_t)=a_t^2\Sigma_0+b_t^2\Sigma_1+a_tb_t(\Sigma_{01}+\Sigma_{10})=\frac{\Sigma_0+\Sigma_1}2+\cos(\pi t)\frac{\Sigma_0-\Sigma_1}2+\frac{\sin(\pi t)}2(\Sigma_{01}+\Sigma_{10})$.
# The functions $1$, $\cos\pi t$, $\sin\pi t$ are linearly independent on $[0,1]$, so this is constant if and only if the last
# two coefficients vanish. $\square$

# %%
def variance_between(interpolant, t, correlation):
    """Var(X_t) for standard ends of the given correlation, by Gauss–Hermite quadrature of the joint law."""
    z, weights = Gaussian(zero, [[1.0, correlation], [correlation, 1.0]]).quadrature(3)
    x = interpolant.at(t, z[:, :1], z[:, 1:])[0][:, 0]
    return weights @ x**2 - (weights @ x) ** 2


claim("ERR-14", abs(variance_between(LINEAR, 0.5, 0.5) - 0.5))
claim("ERR-15", abs(variance_between(TRIGONOMETRIC, 0.5, 0.5) - 1.0))
claim("ERR-16", largest((fm_law(P, Q, t, interpolant=TRIGONOMETRIC).cov - cov0).abs().max() for t in (0.0, 0.5)))
gaps = []
for d in range(1, 5):
    g = randn(d, d)
    antisymmetric = 0.2 * (g - g.T) / (g - g.T).norm().clamp_min(1.0)
    common = random_law(d).cov + 0.3 * torch.eye(d)
    blocks = torch.cat([torch.cat([common, antisymmetric], 1), torch.cat([antisymmetric.T, common], 1)])
    z, weights = Gaussian(torch.zeros(2 * d), blocks).quadrature(2)
    for t in (0.2, 0.5, 0.9):
        x = TRIGONOMETRIC.at(t, z[:, :d], z[:, d:])[0]
        gaps.append(error((x.T * weights) @ x, common))
claim("ERR-17", largest(gaps))

# %% [markdown]
# ### 7.4 The missing $\pi/2$
#
# The chain rule gives a factor that the notes lose; the flow then stops short.

# %%
errata.box("N-13")

# %% [markdown]
# With the notes' target the regression finds $\frac2\pi v_t$. Its flow does not arrive: from $\mathcal N(0,1)$ to
# $\mathcal N(0,4)$ (independent ends) $v_t(x)=\frac{\dot\eta_t}{\eta_t}x$ with $\eta_t^2=a_t^2+4b_t^2$, and
# $\dot y=\frac2\pi\frac{\dot\eta}\eta y$ has the end map $\eta_1^{2/\pi}x=2^{2/\pi}x=1.5547\ldots x$ instead of $2x$. (It
# is not a mere change of clock either: the path of laws is run through incompletely *and* the field at time $t$ still
# belongs to $\mu_t$.)

# %%
x0, x1, t = randn(6, 3), randn(6, 3), torch.rand(6, generator=rng)
step = 1e-5
position = lambda t: torch.cos(0.5 * math.pi * t)[:, None] * x0 + torch.sin(0.5 * math.pi * t)[:, None] * x1
notes_target = torch.cos(0.5 * math.pi * t)[:, None] * x1 - torch.sin(0.5 * math.pi * t)[:, None] * x0
difference = (position(t + step) - position(t - step)) / (2 * step)
claim("ERR-18", error(0.5 * math.pi * notes_target, difference))
claim("ERR-19", (notes_target - difference).norm() / difference.norm())

wide = Gaussian([0.0], [[4.0]])
x = torch.ones(1, 1)
short = integrate_adaptive(lambda t, y: 2 / math.pi * fm_velocity(line, wide, t, y, interpolant=TRIGONOMETRIC), x, rtol=1e-11)
full = integrate_adaptive(lambda t, y: fm_velocity(line, wide, t, y, interpolant=TRIGONOMETRIC), x, rtol=1e-11)
print(f"end map from N(0, 1) to N(0, 4): slope {full.item():.4f} with π/2, {short.item():.4f} without")
claim("ERR-20", abs(short - 2 ** (2 / math.pi)))
claim("ERR-21", (full - short).abs())

# %% [markdown]
# ### 7.5 All interpolants have one end map: what it says here
#
# In [proofs/03](03_flow_matching.ipynb), section 5: for $X_t=a_tX_0+b_tX_1$ with $a,b\ge0$, $\sigma=a+b>0$, $r=b/\sigma$, the
# velocity is $\sigma\dot r\,v_r(x/\sigma)+\frac{\dot\sigma}\sigma x$ and the flow $\sigma_t\varphi_{r_t}$, with $v$, $\varphi$
# those of the linear path; so $\varphi_1$ is the same map for all of them. Exercise 1(c) is the case $a=1-t$, $b=tc$. Linear
# and trigonometric interpolation generate *the same* samples from the same noise; they differ in energy and in how hard the
# field is to learn.
#
# **The trigonometric energy, statement.** *For independent Gaussians it is*
#
# $$
# \frac{\pi^2}8\big(\lvert m_0\rvert^2+\lvert m_1\rvert^2+\mathrm{tr}\,\Sigma_0+\mathrm{tr}\,\Sigma_1-2\,\mathrm{tr}\,\Sigma_0\#\Sigma_1\big)-\frac\pi2\langle m_0,m_1\rangle .
# $$

# %% [markdown]
# *Proof.* Idea: the same coordinates, and one more elementary integral. In the coordinates of section 4 with
# $d=a_t^2+\lambda b_t^2$, the centred part of $\mathbb E\lvert v_t\rvert^2$ is $\sum_i(L^\top L)_{ii}\frac{d_i'^2}{4d_i}$,
# $\frac12d'=\frac\pi2a_tb_t(\lambda-1)$. As $(\lambda-1)b_t^2=d-1$ and $(\lambda-1)a_t^2=\lambda-d$,
# $\frac{a_t^2b_t^2(\lambda-1)^2}d=\frac{(d-1)(\lambda-d)}d=1+\lambda-d-\frac\lambda d$. Integrate over
# $\omega=\frac{\pi t}2\in[0,\frac\pi2]$: $\int d\,d\omega=\frac\pi4(1+\lambda)$ and
# $\int\frac{d\omega}d=\frac\pi{2\sqrt\lambda}$, in total $\frac\pi4(1-\sqrt\lambda)^2$; with $dt=\frac2\pi d\omega$ and the
# factor $\frac{\pi^2}4$: $\frac{\pi^2}8(1-\sqrt\lambda)^2$. The means: $\dot m_t=\frac\pi2(a_tm_1-b_tm_0)$,
# $\int a_t^2dt=\int b_t^2dt=\frac12$, $\int a_tb_t\,dt=\frac1\pi$. $\square$

# %%
gaps = {"velocity": [], "end": []}
uneven = Interpolant(lambda t: (1 - t) ** 2, lambda t: t**3)
for d in dimensions:
    pairs, x, t = random_coupling(d, 3), randn(4, d), uniform(0.05, 0.95)
    for interpolant in (TRIGONOMETRIC, uneven):
        a, b, da, db = interpolant.coefficients(torch.tensor(t))
        s, ds = a + b, da + db
        r, dr = (b / s).item(), (db * s - b * ds) / s**2
        gaps["velocity"].append(error(s * dr * pairs.velocity(r, x / s) + ds / s * x, pairs.velocity(t, x, interpolant=interpolant)))
for d in (range(1, 7) if preset == "full" else (2, 6)):
    cov = random_law(2 * d).cov
    p, q = Gaussian(randn(d), cov[:d, :d]), Gaussian(randn(d), cov[d:, d:])
    ends = [fm_flow(p, q, 1.0, cross_cov=cov[:d, d:], interpolant=i) for i in (LINEAR, TRIGONOMETRIC)]
    gaps["end"] += [error(ends[0].matrix, ends[1].matrix), error(ends[0].offset, ends[1].offset)]
claim("ERR-22", largest(gaps["velocity"]))
claim("ERR-23", largest(gaps["end"]))
gaps = []
for d in range(1, 7):
    p, q = random_law(d), random_law(d)
    gaps.append(error(energy_by_quadrature(p, q, TRIGONOMETRIC), fm_kinetic_energy(p, q, interpolant=TRIGONOMETRIC)))
claim("ERR-24", largest(gaps))

# %% [markdown]
# **Pictures.** Left: the kinetic energy $\mathbb E\lvert v_t(X_t)\rvert^2$ against time for the printed (centred) example.
# McCann's path moves at constant speed and has the least area under the curve (the integrals are in the legend); the linear
# path has the energies $\mathrm{tr}\,\Sigma_0=3$ and $\mathrm{tr}\,\Sigma_1=4$ at its ends, where the particles head for
# independent goals; the trigonometric path starts and ends at rest. Centre: the variance between two standard ends, for the
# correlations $0$ and $\frac12$. Right: the energy between $\mathcal N(0,1)$ and itself against the correlation $r$ (linear
# path; claim EX3-6), where $W_2=0$.

# %%
times = torch.linspace(0, 1, 41)


def power(p, q, t, interpolant):
    x, weights = fm_law(p, q, t, interpolant=interpolant).quadrature(2)
    return weights @ fm_velocity(p, q, t, x, interpolant=interpolant).square().sum(1)


figure, axes = plt.subplots(1, 3, figsize=(10.4, 3.5))
for interpolant, name, role in ((LINEAR, "linear", "independent"), (TRIGONOMETRIC, "trigonometric", "second")):
    powers = [power(P, Q, t, interpolant) for t in times.tolist()]
    axes[0].plot(times, powers, color=ROLES[role], label=f"{name}: {fm_kinetic_energy(P, Q, interpolant=interpolant):.3f}")
    for r, style in ((0.0, "-"), (0.5, "--")):
        variances = [variance_between(interpolant, t, r) for t in times]
        axes[1].plot(times, variances, style, color=ROLES[role], label=f"{name}, $r={r:g}$")
axes[0].axhline(optimal, color=ROLES["optimal"], label=f"McCann: $W_2^2={optimal:.3f}$")
axes[0].set(xlabel="time $t$", ylabel=r"$\mathbb{E}|v_t(X_t)|^2$", title="McCann's speed is constant", ylim=(0, 6))
axes[0].legend(fontsize=8, loc="upper center")
axes[1].set(xlabel="time $t$", ylabel=r"$\mathrm{Var}(X_t)$", title="only one of four is constant", ylim=(0.4, 2.05))
axes[1].legend(fontsize=8, loc="upper center", ncols=2)
r = torch.linspace(-0.9999, 0.9999, 200)
formula = 2 * (1 - r) - (1 - r**2).sqrt() * r.arccos()
axes[2].plot(r, formula, color=ROLES["independent"], label="energy of $v$, closed form")
axes[2].plot(correlations, torch.stack(found), "o", ms=4, color=ROLES["second"], label="quadrature")
axes[2].plot(r, 2 * (1 - r), "--", lw=1.2, color=ROLES["truth"], label=r"$\mathbb{E}|X_1-X_0|^2$")
axes[2].set(xlabel="correlation $r$", ylabel="energy", title=r"$\mathcal{N}(0,1)$ to itself costs, unless $r=1$")
axes[2].legend(fontsize=8)
alt = (
    "Kinetic energy against time for linear, trigonometric and McCann paths; the variance of both interpolants for "
    "correlations 0 and one half; and the energy of flow matching between two equal Gaussians against the correlation "
    "of the coupling."
)
show(figure, "energies", alt=alt)

# %% [markdown]
# ## 8. All errata of the notes
#
# Graded, with what to read instead and the claims that show it; each is discussed where its proof is. Two points of the notes
# are right, but easily misread: $\Sigma_{01}=\mathrm{Cov}(X_1,X_0)$ (the trap of section 4), and exercise 3, which speaks of
# $\varphi_1$ only (the remark of section 3).

# %%
errata.table("notes")
