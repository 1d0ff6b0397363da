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
# # Problem set 1: continuity equation, Benamou–Brenier and Gaussian flow matching
#
# **Goals.** After this problem set you can
#
# - write a diffusion as a transport: a velocity that solves the continuity equation for a given path of measures;
# - say which part of a velocity the continuity equation does not see, and find the velocity of least energy;
# - compute kinetic energies, with their clocks, and compare them with $W_2^2$;
# - derive the velocity of flow matching for correlated ends and an interpolant with noise, and the least value of its loss;
# - rectify a coupling, and say what it gains and what it does not;
# - fit a velocity to samples and transport new samples with it.
#
# **Prerequisites.** The notebooks `01_continuity_equation`, `02_benamou_brenier` and `04_gaussian_exercises`. **Time.** About nine
# hours. **Points.** 100 in twelve parts, in proportion to the time that a part takes; none needs the code of an earlier one, except
# part 12, which uses part 11.
#
# **Hints.** Below the task of each part there are three, each inside the one before, from where to look to nearly the plan. Try for a
# quarter of an hour before each. “Read first” names a section of a notebook; its link works if this file is in a folder inside
# `notebooks/`.
#
# **How it works.** Replace what raises `NotImplementedError`, and write where it says YOUR ANSWER HERE. The cells of tests
# below your code are examples: run them as often as you like. They carry no points. For the points your *functions* are called
# with new random data in several dimensions, and what they return is compared with the right values to four digits. So keep the
# names and the arguments of the functions; add cells and helper functions as you like. You may use everything in `torch`,
# `numpy`, `scipy` and `dynot_lite`. Answers may be torch tensors or NumPy arrays.
#
# **Conventions.** Points are the rows of `x`, of shape $(n,d)$; a velocity has the same shape. Means have the shape $(d,)$,
# covariances and slopes $(d,d)$; all of them are `torch` tensors of type `float64`. A time is a number. $W_2^2$ and energies
# are *without* a factor ½: the energy of $(\mu_t,v_t)_{0\le t\le1}$ is $\int_0^1\int|v_t|^2\,d\mu_t\,dt$.
# $\mathrm{Cov}(X,Y)=\mathbb E[(X-\mathbb EX)(Y-\mathbb EY)^\top]$ is not symmetric in general.

# %% tags=["parameters"]
preset = "quick"
seed = 0

# %%
import math

import numpy as np
import torch
from matplotlib import pyplot as plt

from dynot_lite.companion import show
from dynot_lite.paths.continuity import gauss_legendre
from dynot_lite.laws.gaussian import Gaussian, fm_flow, fm_velocity, w2_squared
from dynot_lite.plots import COLOURS, set_style

set_style()
torch.set_default_dtype(torch.float64)


def close(found, expected, tolerance=1e-6):
    """Whether two arrays of one shape agree to the tolerance."""
    found, expected = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    return found.shape == expected.shape and bool(np.abs(found - expected).max() <= tolerance)


# Data for the examples: two laws whose covariances do not commute, and some points.
m0, S0 = torch.tensor([0.3, -1.0]), torch.tensor([[2.0, 0.6], [0.6, 1.0]])
m1, S1 = torch.tensor([1.5, 0.7]), torch.tensor([[1.0, -0.5], [-0.5, 3.0]])
some_points = torch.tensor([[0.7, -0.3], [-1.2, 0.8], [1.5, 1.0]])
I2 = torch.eye(2)

# %% [markdown]
# ## Part 1. A diffusion as a transport
#
# *5 points, graded automatically. About 25 minutes, difficulty 1 of 3.*
#
# Read first: [01_continuity_equation](../01_continuity_equation.ipynb), sections 1, “A crowd in the wind”, and 2, “Keeping the books”.
#
# Let $\Gamma\succ0$ and $c\in\mathbb R^d$. The Ornstein–Uhlenbeck process $dX=-(X-c)\,dt+\sqrt2\,\Gamma^{1/2}dW$ with
# $X_0\sim\mathcal N(m,S)$, $S\succ0$, has the laws $\mu_t=\mathcal N(m_t,\Sigma_t)$ with
#
# $$
# m_t=c+e^{-t}(m-c),\qquad\Sigma_t=e^{-2t}S+(1-e^{-2t})\,\Gamma,
# $$
#
# and their densities solve the Fokker–Planck equation
# $\partial_t\rho=\mathrm{div}\big(\rho\,(x-c)\big)+\mathrm{div}(\Gamma\nabla\rho)$. Write it as a continuity equation
# $\partial_t\rho+\mathrm{div}(\rho v)=0$ with a velocity $v_t$ that is an affine function of $x$, the one that this equation
# suggests, and code that velocity.
#
# <details><summary>Hint 1</summary>
#
# Look for one common factor: both divergences on the right are divergences of $\rho$ times something.
#
# <details><summary>Hint 2</summary>
#
# $\nabla\rho=\rho\,\nabla\log\rho$ turns the term with $\Gamma$ into one of the form $\mathrm{div}(\rho\,\cdot)$. Compare
# with $\partial_t\rho+\mathrm{div}(\rho v)=0$, and mind the sign.
#
# <details><summary>Hint 3</summary>
#
# What is left is the score of a Gaussian law, an affine function of $x$. Take it *at time $t$* and put $\Gamma$ on its
# left. Points are rows: for rows a matrix acts from the right, so think about the order of the two matrices before you
# multiply.
#
# </details></details></details>

# %% nbgrader={"grade": false, "grade_id": "ps1-1-code", "locked": false, "schema_version": 3, "solution": true, "task": false}
def heat_velocity(t, x, m, S, c, G):
    """The velocity v_t(x) of the Ornstein–Uhlenbeck path; G is Γ."""
    ### BEGIN SOLUTION
    # ρ(x − c) + Γ∇ρ = ρ (x − c + Γ∇log ρ), and ∇log ρ_t = −Σ_t⁻¹(x − m_t).
    mean = c + math.exp(-t) * (m - c)
    cov = math.exp(-2 * t) * S + (1 - math.exp(-2 * t)) * G
    return -(x - c) + (x - mean) @ torch.linalg.inv(cov) @ G
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "ps1-1", "locked": true, "schema_version": 3, "solution": false, "task": false, "points": 5}
# In the stationary law nothing moves.
assert close(heat_velocity(0.4, some_points, m0, S0, m0, S0), torch.zeros(3, 2))
# In one dimension, from N(0, 1) with Γ = 3, at time 0: v(x) = −x + 3x.
line = torch.tensor([[2.0], [-1.0]]), torch.zeros(1), torch.ones(1, 1), torch.zeros(1), 3 * torch.ones(1, 1)
assert close(heat_velocity(0.0, *line), [[4.0], [-2.0]])
### BEGIN HIDDEN TESTS
from dynot_lite.course.oracle import claim_part

claim_part("PS1-1", globals())
### END HIDDEN TESTS

# %% [markdown]
# ## Part 2. Two proofs about this velocity
#
# *11 points, graded by a person: (a) 7, (b) 4. About 60 minutes, difficulty 2 of 3.*
#
# Read first: [01_continuity_equation](../01_continuity_equation.ipynb), section 2, “Keeping the books”.
#
# **(a)** Prove that $(\mu_t,v_t)$ of part 1 satisfies the continuity equation on $[0,T]$ *with its end points*: for all
# $\psi\in C_c^\infty([0,T]\times\mathbb R^d)$,
#
# $$
# \int_0^T\!\!\int(\partial_t\psi+\langle\nabla\psi,v_t\rangle)\,d\mu_t\,dt=\int\psi_T\,d\mu_T-\int\psi_0\,d\mu_0 .
# $$
#
# You may not use that $\mu_t$ solves the Fokker–Planck equation; the formulas for $m_t$ and $\Sigma_t$ are given.
#
# **(b)** Prove that $v_t$ is the gradient of a function of $x$, for one (equivalently for every) $t>0$, if and only if $\Gamma$
# and $S$ commute.
#
# <details><summary>Hint 1</summary>
#
# For (a), write $v_t$ as $\dot m_t+A_t(x-m_t)$ first. For (b), when is an affine field a gradient?
#
# <details><summary>Hint 2</summary>
#
# (a) Compute $\dot\Sigma_t$ and compare it with $A_t\Sigma_t+\Sigma_tA_t^\top$. Then either follow the flow of $v$, which
# is affine, or verify the equation for the density pointwise. (b) A product of two symmetric matrices is symmetric exactly
# if they commute.
#
# <details><summary>Hint 3</summary>
#
# (a) Let $\Phi$ solve $\dot\Phi=A_t\Phi$, $\Phi_0=I$, and show by uniqueness for a linear equation that
# $\Phi_tS\Phi_t^\top$ and $\Sigma_t$ are the same. Then differentiate $\psi(t,\varphi_t(x))$ along a trajectory, integrate
# in $t$ and against $\mu_0$, and say why the two integrals may be exchanged. (b) Insert the formula for $\Sigma_t$: one of
# its two terms commutes with $\Gamma$ anyway.
#
# </details></details></details>

# %% [markdown] nbgrader={"grade": true, "grade_id": "ps1-2", "locked": false, "schema_version": 3, "solution": true, "task": false, "points": 11}
# **(a)** Put $A_t=-I+\Gamma\Sigma_t^{-1}$ and $y=x-m_t$. Then $v_t(x)=-(x-c)+\Gamma\Sigma_t^{-1}y=-(m_t-c)+A_ty=\dot m_t+A_ty$,
# since $\dot m_t=-e^{-t}(m-c)=-(m_t-c)$. Moreover
# $\dot\Sigma_t=-2e^{-2t}S+2e^{-2t}\Gamma=-2\Sigma_t+2\Gamma=A_t\Sigma_t+\Sigma_tA_t^\top$.
#
# Let $\Phi_t$ solve $\dot\Phi_t=A_t\Phi_t$, $\Phi_0=I$ (linear with continuous coefficients: a unique solution exists on
# $[0,T]$). Then $\varphi_t(x)=m_t+\Phi_t(x-m)$ satisfies $\dot\varphi_t=\dot m_t+A_t\Phi_t(x-m)=v_t(\varphi_t)$. The matrix
# $\Phi_tS\Phi_t^\top$ solves $\dot Z=A_tZ+ZA_t^\top$, $Z_0=S$, as $\Sigma_t$ does; by uniqueness they are equal. So the image
# of $\mathcal N(m,S)$ under the affine map $\varphi_t$ is $\mathcal N(m_t,\Sigma_t)$: $\mu_t=(\varphi_t)_\#\mu_0$.
#
# For $\psi\in C_c^\infty([0,T]\times\mathbb R^d)$, $\frac
# d{dt}\psi(t,\varphi_t(x))=(\partial_t\psi+\langle\nabla\psi,v_t\rangle)(t,\varphi_t(x))$. This is bounded, because $\psi$ has
# compact support and $v$ is continuous. Integrate over $t\in[0,T]$ and over $\mu_0$, exchange the integrals (Fubini), and use
# $\mu_t=(\varphi_t)_\#\mu_0$: that is the claim, with both end points. $\square$
#
# **(b)** An affine field with slope $A$ is a gradient if and only if $A$ is symmetric. $A_t$ is symmetric iff
# $\Gamma\Sigma_t^{-1}=\Sigma_t^{-1}\Gamma$, that is iff $\Sigma_t\Gamma=\Gamma\Sigma_t$; as
# $\Sigma_t=e^{-2t}S+(1-e^{-2t})\Gamma$, iff $S\Gamma=\Gamma S$ (for $t=0$ too). $\square$
#
# ### BEGIN RUBRIC
#
# 2: (a) the velocity has the derivative of the mean and the slope A = −I + ΓΣ⁻¹
#
# 1: (a) the derivative of Σ is AΣ + ΣAᵀ
#
# 2: (a) the law is the image under the flow, by uniqueness for a linear equation; or the pointwise equation is verified
#
# 1: (a) integrated against ψ along trajectories, with both end points (not if ψ vanishes at 0 and T)
#
# 1: (a) the exchange of the integrals is justified
#
# 1: (b) a field is a gradient if and only if its slope is symmetric
#
# 1: (b) the slope is symmetric if and only if Γ and Σ_t commute
#
# 2: (b) this is reduced to Γ and S, in both directions, for every t > 0
#
# ### END RUBRIC

# %% [markdown]
# ## Part 3. What the diffusion costs
#
# *6 points, graded automatically. About 30 minutes, difficulty 1 of 3.*
#
# Read first: [02_benamou_brenier](../02_benamou_brenier.ipynb), section 2, “Two ways to waste energy”.
#
# Run through the path of part 1 from time $0$ to $T>0$ in unit time: $\nu_s=\mu_{Ts}$, $0\le s\le1$. Compute the energy
# $\int_0^1\int|w_s|^2\,d\nu_s\,ds$ of this path with the velocity $w_s$ that belongs to part 1 (with its new clock). By the
# theorem of Benamou and Brenier it is at least $W_2^2(\mu_0,\mu_T)$. A sum over Gauss–Legendre nodes is precise enough:
# `gauss_legendre(n)` returns nodes in $[0,1]$ and weights.
#
# <details><summary>Hint 1</summary>
#
# Two things happen: time runs faster by a factor, and a velocity has to be squared and averaged over a Gaussian law.
#
# <details><summary>Hint 2</summary>
#
# If $\nu_s=\mu_{Ts}$, then $w_s=T\,v_{Ts}$. And $\mathbb E|a+A(X-\mathbb
# EX)|^2=|a|^2+\mathrm{tr}(A\,\mathrm{Cov}(X)A^\top)$.
#
# <details><summary>Hint 3</summary>
#
# Loop over the nodes $s$ with $t=Ts$: the mean part comes from $\dot m_t$, the other part from $A_t=-I+\Gamma\Sigma_t^{-1}$
# of part 2. How often does the factor $T$ occur in the end? Test in one dimension, where you can integrate by hand, or
# halve $T$ and see.
#
# </details></details></details>

# %% nbgrader={"grade": false, "grade_id": "ps1-3-code", "locked": false, "schema_version": 3, "solution": true, "task": false}
def heat_energy(m, S, c, G, T):
    """The energy of the Ornstein–Uhlenbeck path from 0 to T, run through in unit time; a number."""
    ### BEGIN SOLUTION
    # w_s = T v_{Ts}, and E|v_t|² = |m_t − c|² + tr(AΣ_tAᵀ) with A = −I + ΓΣ_t⁻¹, so AΣ_tAᵀ = Σ_t − 2Γ + ΓΣ_t⁻¹Γ.
    total = 0.0
    for node, weight in zip(*gauss_legendre(40)):
        t = T * node.item()
        cov = math.exp(-2 * t) * S + (1 - math.exp(-2 * t)) * G
        spread = torch.trace(cov - 2 * G + G @ torch.linalg.solve(cov, G))
        total += weight * (math.exp(-2 * t) * (m - c).square().sum() + spread)
    return T**2 * total
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "ps1-3", "locked": true, "schema_version": 3, "solution": false, "task": false, "points": 6}
# The stationary law costs nothing, and no path is cheaper than the geodesic.
assert close(heat_energy(m0, S0, m0, S0, 0.5), 0.0)
T = 0.5
end = Gaussian(m1 + math.exp(-T) * (m0 - m1), math.exp(-2 * T) * S0 + (1 - math.exp(-2 * T)) * S1)
assert heat_energy(m0, S0, m1, S1, T) >= w2_squared(Gaussian(m0, S0), end)
### BEGIN HIDDEN TESTS
from dynot_lite.course.oracle import claim_part

claim_part("PS1-3", globals())
### END HIDDEN TESTS

# %% [markdown]
# ## Part 4. What the continuity equation does not see
#
# *7 points, graded automatically. About 35 minutes, difficulty 2 of 3.*
#
# Read first: [01_continuity_equation](../01_continuity_equation.ipynb), section 3, “One crowd, many winds”.
#
# Let $\mu=\mathcal N(m,\Sigma)$, $\Sigma\succ0$, and let $v(x)=A(x-m)$ with any $A\in\mathbb R^{d\times d}$. There is exactly
# one pair of a symmetric $B$ and an antisymmetric $K$ (that is $K^\top=-K$) such that
#
# $$
# A=B+K\Sigma^{-1}.
# $$
#
# $B(x-m)$ is a gradient field; the other part satisfies $\mathrm{div}(\mu\,K\Sigma^{-1}(x-m))=0$, so that the continuity
# equation does not see it. Find an equation for $B$ without $K$, solve it numerically in any dimension, and return the two
# matrices.
#
# <details><summary>Hint 1</summary>
#
# Multiply by $\Sigma$ from the right; then you have an equation with $B\Sigma$ and $K$.
#
# <details><summary>Hint 2</summary>
#
# Add the transpose of this equation. $K$ drops out, and what is left is linear in $B$.
#
# <details><summary>Hint 3</summary>
#
# It is a Lyapunov equation. In an orthonormal eigenbasis of $\Sigma$ it decouples into one equation per entry; or look for
# a solver in `scipy.linalg`, and check its sign convention. With $B$ in hand, $K$ takes one line.
#
# </details></details></details>

# %% nbgrader={"grade": false, "grade_id": "ps1-4-code", "locked": false, "schema_version": 3, "solution": true, "task": false}
def gradient_part(A, S):
    """The symmetric B with A = B + K S⁻¹."""
    ### BEGIN SOLUTION
    # AΣ + ΣAᵀ = BΣ + ΣB, because KΣ⁻¹Σ + ΣΣ⁻¹Kᵀ = K + Kᵀ = 0; entrywise in the eigenbasis of Σ.
    values, basis = torch.linalg.eigh(S)
    right = basis.T @ (A @ S + S @ A.T) @ basis
    return basis @ (right / (values[:, None] + values)) @ basis.T
    ### END SOLUTION


def rotation_part(A, S):
    """The antisymmetric K with A = B + K S⁻¹."""
    ### BEGIN SOLUTION
    return (A - gradient_part(A, S)) @ S
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "ps1-4", "locked": true, "schema_version": 3, "solution": false, "task": false, "points": 7}
A = torch.tensor([[1.0, 2.0], [-0.5, 0.3]])
B, K = (torch.as_tensor(part) for part in (gradient_part(A, S0), rotation_part(A, S0)))
assert close(B, B.T) and close(K, -K.T)
assert close(B + K @ torch.linalg.inv(S0), A)
# For the standard normal law the gradient part is the symmetric part.
assert close(gradient_part(A, I2), 0.5 * (A + A.T))
### BEGIN HIDDEN TESTS
from dynot_lite.course.oracle import claim_part

claim_part("PS1-4", globals())
### END HIDDEN TESTS

# %% [markdown]
# ## Part 5. Least energy
#
# *14 points, graded by a person: (a) 4, (b) 4, (c) 6. About 75 minutes, difficulty 3 of 3.*
#
# Read first: [01_continuity_equation](../01_continuity_equation.ipynb), section 3, “One crowd, many winds”.
#
# With the notation of part 4:
#
# **(a)** Prove that $B$ and $K$ exist and are unique.
#
# **(b)** Prove that the two parts are orthogonal in $L^2(\mu)$, so that
# $\int|v|^2d\mu=\int|B(x-m)|^2d\mu+\int|K\Sigma^{-1}(x-m)|^2d\mu$.
#
# **(c)** Let $\mu_t=\mathcal N(m_t,\Sigma_t)$ be a path with $\Sigma_t\succ0$, $m$ and $\Sigma$ of class $C^1$ on $[0,1]$, and
# let $u_t(x)=\dot m_t+B_t(x-m_t)$ with the symmetric solution of $B_t\Sigma_t+\Sigma_tB_t=\dot\Sigma_t$. Prove: among *all*
# affine velocities $v_t(x)=a_t+A_t(x-m_t)$ (continuous in $t$) that satisfy the continuity equation with this path, $u$ is the
# only one of least energy. Use it to say when the velocity of part 1 has the least energy.
#
# <details><summary>Hint 1</summary>
#
# (a) is about invertibility of a linear map between symmetric matrices, (b) about the trace of a product of a symmetric and
# an antisymmetric matrix, (c) uses both.
#
# <details><summary>Hint 2</summary>
#
# (a) What does $B\mapsto B\Sigma+\Sigma B$ do to the entry $(i,j)$ in an eigenbasis of $\Sigma$? (b) $\int yy^\top
# d\mu=\Sigma$ for $y=x-m$. (c) Which equations for $m_t$ and $\Sigma_t$ follow if one tests the continuity equation with
# linear and quadratic functions?
#
# <details><summary>Hint 3</summary>
#
# (b) Compare $\mathrm{tr}(BK)$ with the trace of its transpose. (c) The equation for $\dot\Sigma_t$ fixes the symmetric
# part of $A_t$ by (a), so two velocities differ by some $K_t\Sigma_t^{-1}(x-m_t)$ only. Their energies differ by its
# square, by (b). Say where continuity in $t$ is used, and compare $A_t$ of part 1 with what (c) asks for.
#
# </details></details></details>

# %% [markdown] nbgrader={"grade": true, "grade_id": "ps1-5", "locked": false, "schema_version": 3, "solution": true, "task": false, "points": 14}
# **(a)** If $A=B+K\Sigma^{-1}$, then $A\Sigma+\Sigma A^\top=B\Sigma+\Sigma B+K+K^\top=B\Sigma+\Sigma B$. In an orthonormal
# eigenbasis of $\Sigma$, with eigenvalues $\sigma_i>0$, the map $B\mapsto B\Sigma+\Sigma B$ multiplies the entry $(i,j)$ by
# $\sigma_i+\sigma_j>0$: it is invertible, and it commutes with transposition. So the equation has exactly one solution $B$, and
# it is symmetric, as its right side is. This gives uniqueness of $B$, hence of $K=(A-B)\Sigma$. Existence: with this $B$,
# $K+K^\top=A\Sigma+\Sigma A^\top-B\Sigma-\Sigma B=0$. $\square$
#
# **(b)** With $y=x-m$ and $\int yy^\top d\mu=\Sigma$, $\int\langle By,K\Sigma^{-1}y\rangle
# d\mu=\mathrm{tr}(B\,K\Sigma^{-1}\Sigma)=\mathrm{tr}(BK)$, and $\mathrm{tr}(BK)=\mathrm{tr}((BK)^\top)=\mathrm{tr}(K^\top
# B)=-\mathrm{tr}(KB)=-\mathrm{tr}(BK)$, so it is 0. $\square$
#
# **(c)** Testing the continuity equation with (cut off) linear and quadratic functions gives the equations of the moments,
# $\dot m_t=a_t$ and $\dot\Sigma_t=A_t\Sigma_t+\Sigma_tA_t^\top$. By (a) the symmetric part in the decomposition of $A_t$ is
# $B_t$, and $A_t=B_t+K_t\Sigma_t^{-1}$ with $K_t^\top=-K_t$. Constants are orthogonal to functions of mean 0, so by (b)
# $\int|v_t|^2d\mu_t=|\dot
# m_t|^2+\int|B_ty|^2d\mu_t+\int|K_t\Sigma_t^{-1}y|^2d\mu_t=\int|u_t|^2d\mu_t+\mathrm{tr}(K_t\Sigma_t^{-1}K_t^\top)$. The last
# term is $\ge0$, and 0 only if $K_t=0$; it is continuous in $t$, so the energies agree only if $K_t=0$ for all $t$, that is
# $v=u$. ($u$ itself solves the equation: it has the right moments, as in part 2.)
#
# The velocity of part 1 is one of these, with $A_t=-I+\Gamma\Sigma_t^{-1}$. It has the least energy iff $A_t$ is symmetric for
# all $t$, by part 2 iff $\Gamma$ and $S$ commute. (Least among the velocities of *this* path; the path itself is not the
# geodesic.) $\square$
#
# ### BEGIN RUBRIC
#
# 2: (a) an equation for B without K
#
# 1: (a) it is invertible, because σ_i + σ_j > 0
#
# 1: (a) its solution is symmetric, and K = (A − B)Σ is antisymmetric: existence
#
# 2: (b) the product of the two parts is reduced to the trace of BK
#
# 2: (b) this trace is 0
#
# 2: (c) the equations for the mean and the covariance follow from the continuity equation
#
# 2: (c) the symmetric part of every velocity is B_t, and energies add
#
# 1: (c) strictness: equal energies only if K_t = 0 for all t, by continuity
#
# 1: (c) part 1 has the least energy if and only if Γ and S commute
#
# ### END RUBRIC

# %% [markdown]
# ## Part 6. A stopover
#
# *4 points, graded automatically. About 20 minutes, difficulty 1 of 3.*
#
# Read first: [02_benamou_brenier](../02_benamou_brenier.ipynb), section 2, “Two ways to waste energy”.
#
# Three Gaussian laws $\alpha=\mathcal N(m_0,S_0)$, $\nu=\mathcal N(m,S)$, $\beta=\mathcal N(m_1,S_1)$. Among all solutions of
# the continuity equation with $\mu_0=\alpha$, $\mu_s=\nu$ and $\mu_1=\beta$, what is the least energy? And if the moment
# $s\in\,]0,1[$ may be chosen, which one is best, and what is the energy then?
#
# <details><summary>Hint 1</summary>
#
# Both legs are problems of Benamou and Brenier of their own, but not in unit time.
#
# <details><summary>Hint 2</summary>
#
# A path that takes time $\tau$ in the place of 1 has $1/\tau$ of the energy: speed goes with $1/\tau$, its square is
# integrated over $\tau$.
#
# <details><summary>Hint 3</summary>
#
# So the energy is a sum of two terms of the form number over duration. For the best moment, minimise it over $s$: set the
# derivative to zero and read off the ratio of the two durations. What does it say about the speed on both legs?
#
# </details></details></details>

# %% nbgrader={"grade": false, "grade_id": "ps1-6-code", "locked": false, "schema_version": 3, "solution": true, "task": false}
def stopover_energy(m0, S0, m, S, m1, S1, s):
    """The least energy of a path from N(m0, S0) to N(m1, S1) that is N(m, S) at time s; a number."""
    ### BEGIN SOLUTION
    # A leg that lasts τ is a unit-time path at speed 1/τ: its energy is W₂²/τ² · τ.
    stop = Gaussian(m, S)
    return w2_squared(Gaussian(m0, S0), stop) / s + w2_squared(stop, Gaussian(m1, S1)) / (1 - s)
    ### END SOLUTION


def best_stopover(m0, S0, m, S, m1, S1):
    """The best moment of the stopover and the energy then: a pair of numbers."""
    ### BEGIN SOLUTION
    # a²/s + b²/(1 − s) is least where a/s = b/(1 − s): constant speed on the whole way.
    stop = Gaussian(m, S)
    first, second = w2_squared(Gaussian(m0, S0), stop).sqrt(), w2_squared(stop, Gaussian(m1, S1)).sqrt()
    return first / (first + second), (first + second) ** 2
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "ps1-6", "locked": true, "schema_version": 3, "solution": false, "task": false, "points": 4}
# Translations of the unit normal law by 1 and then by 2: the geodesic passes there at s = 1/3.
zero, one, three = (torch.tensor([shift, 0.0]) for shift in (0.0, 1.0, 3.0))
assert close(stopover_energy(zero, I2, one, I2, three, I2, 1 / 3), 9.0)
assert close(best_stopover(zero, I2, one, I2, three, I2), [1 / 3, 9.0])
### BEGIN HIDDEN TESTS
from dynot_lite.course.oracle import claim_part

claim_part("PS1-6", globals())
### END HIDDEN TESTS

# %% [markdown]
# ## Part 7. Flow matching with noise on the way
#
# *8 points, graded automatically. About 40 minutes, difficulty 2 of 3.*
#
# Read first: [03_flow_matching](../03_flow_matching.ipynb), section 2, “Why an average?”.
#
# Let $(X_0,X_1)$ be jointly Gaussian with means $m_0,m_1$, covariances $S_0,S_1$ and $C=\mathrm{Cov}(X_0,X_1)$, and let
# $Z\sim\mathcal N(0,I)$ be independent of both. For $\sigma\ge0$ take the interpolant
#
# $$
# X_t=(1-t)X_0+tX_1+\sigma\,t(1-t)\,Z .
# $$
#
# Code its velocity $v_t(x)=\mathbb E[\dot X_t\mid X_t=x]$. It must work at $t=0$ and $t=1$, too. (Careful with $C$ and
# $C^\top$: both choices solve the continuity equation with the same path, but only one of them is the conditional expectation.)
#
# <details><summary>Hint 1</summary>
#
# Everything is jointly Gaussian, so the conditional expectation is an affine regression of $\dot X_t$ on $X_t$.
#
# <details><summary>Hint 2</summary>
#
# $\mathbb E[Y\mid X=x]=\mathbb EY+\mathrm{Cov}(Y,X)\,\mathrm{Cov}(X)^{-1}(x-\mathbb EX)$. Write $X_t$ and $\dot X_t$ as
# combinations of $X_0$, $X_1$ and $Z$.
#
# <details><summary>Hint 3</summary>
#
# Expand both covariances term by term; $C$ and $C^\top$ appear with different coefficients in $\mathrm{Cov}(\dot X_t,X_t)$:
# keep the order of the two factors. $\sigma^2$ appears in both, with the derivative of $t(1-t)$ in one of them. Nothing
# divides by $t$ or $1-t$. Rows again: which side does the slope act from?
#
# </details></details></details>

# %% nbgrader={"grade": false, "grade_id": "ps1-7-code", "locked": false, "schema_version": 3, "solution": true, "task": false}
def noisy_velocity(t, x, m0, S0, m1, S1, C, sigma):
    """E[dX_t/dt | X_t = x] of the interpolant with noise; C = Cov(X0, X1)."""
    ### BEGIN SOLUTION
    # dX_t/dt = X1 − X0 + σ(1 − 2t)Z; regression of it on X_t.
    noise = sigma**2 * t * (1 - t) * torch.eye(len(m0))
    cov = (1 - t) ** 2 * S0 + t**2 * S1 + t * (1 - t) * (C + C.T) + t * (1 - t) * noise
    cross = t * S1 - (1 - t) * S0 + (1 - t) * C.T - t * C + (1 - 2 * t) * noise  # Cov(dX_t/dt, X_t)
    mean = (1 - t) * m0 + t * m1
    return m1 - m0 + (x - mean) @ torch.linalg.solve(cov, cross.T)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "ps1-7", "locked": true, "schema_version": 3, "solution": false, "task": false, "points": 8}
# Without noise, and with independent ends, it is the velocity of the package.
plain = fm_velocity(Gaussian(m0, S0), Gaussian(m1, S1), 0.3, some_points)
assert close(noisy_velocity(0.3, some_points, m0, S0, m1, S1, torch.zeros(2, 2), 0.0), plain)
# With X1 = X0 the noise alone moves the points: on the line, from N(0, 1), at t = 1/4 and σ = 4, v(x) = 0.96 x.
unit = torch.zeros(1), torch.ones(1, 1)
assert close(noisy_velocity(0.25, torch.tensor([[2.0]]), *unit, *unit, unit[1], 4.0), [[1.92]])
### BEGIN HIDDEN TESTS
from dynot_lite.course.oracle import claim_part

claim_part("PS1-7", globals())
### END HIDDEN TESTS

# %% [markdown]
# ## Part 8. What regression cannot remove
#
# *7 points, graded automatically. About 40 minutes, difficulty 2 of 3.*
#
# Read first: [03_flow_matching](../03_flow_matching.ipynb), section 3, “A loss that must not reach zero”.
#
# The loss of flow matching is $\mathcal L(u)=\int_0^1\mathbb E|u_t(X_t)-\dot X_t|^2dt$. Its minimum over all measurable $u$ is
# not zero in general. Code it for the interpolant of part 7. (40 Gauss–Legendre nodes are enough.)
#
# <details><summary>Hint 1</summary>
#
# For each $t$, which function $u_t$ is best, and what is left over then?
#
# <details><summary>Hint 2</summary>
#
# What is left is the conditional covariance of $\dot X_t$ given $X_t$; for Gaussian variables it does not depend on the
# value of $X_t$.
#
# <details><summary>Hint 3</summary>
#
# It is the Schur complement $\mathrm{Cov}(Y)-\mathrm{Cov}(Y,X)\mathrm{Cov}(X)^{-1}\mathrm{Cov}(X,Y)$ with $Y=\dot X_t$ and
# $X=X_t$: you have two of the three from part 7. Take the trace and sum over the nodes. Do means matter?
#
# </details></details></details>

# %% nbgrader={"grade": false, "grade_id": "ps1-8-code", "locked": false, "schema_version": 3, "solution": true, "task": false}
def loss_floor(m0, S0, m1, S1, C, sigma):
    """The minimum of the loss of flow matching for the interpolant of part 7; a number."""
    ### BEGIN SOLUTION
    # The minimum is ∫ E tr Cov(dX_t/dt | X_t) dt; for Gaussians the conditional covariance is a Schur complement.
    total, eye = 0.0, torch.eye(len(m0))
    for node, weight in zip(*gauss_legendre(60)):
        t = node.item()
        noise = sigma**2 * t * (1 - t) * eye
        cov = (1 - t) ** 2 * S0 + t**2 * S1 + t * (1 - t) * (C + C.T) + t * (1 - t) * noise
        cross = t * S1 - (1 - t) * S0 + (1 - t) * C.T - t * C + (1 - 2 * t) * noise
        own = S0 + S1 - C - C.T + sigma**2 * (1 - 2 * t) ** 2 * eye
        total += weight * torch.trace(own - cross @ torch.linalg.solve(cov, cross.T))
    return total
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "ps1-8", "locked": true, "schema_version": 3, "solution": false, "task": false, "points": 7}
# Independent ends of variances 1 and 4 on the line, no noise: π/2 · √(1 · 4).
line = torch.zeros(1), torch.ones(1, 1), torch.ones(1), 4 * torch.ones(1, 1)
assert close(loss_floor(*line, torch.zeros(1, 1), 0.0), math.pi)
# X1 = X0 and no noise: nothing is left to guess.
assert close(loss_floor(m0, S0, m0, S0, S0, 0.0), 0.0)
### BEGIN HIDDEN TESTS
from dynot_lite.course.oracle import claim_part

claim_part("PS1-8", globals())
### END HIDDEN TESTS

# %% [markdown]
# ## Part 9. Rectification
#
# *9 points, graded automatically. About 45 minutes, difficulty 2 of 3.*
#
# Read first: [03_flow_matching](../03_flow_matching.ipynb), section 4, “What pairs buy”.
#
# Let $X_0\sim\mathcal N(m_0,S_0)$ and $X_1\sim\mathcal N(m_1,S_1)$ be *independent*, and let $\varphi_1$ be the end of the flow
# of the velocity of flow matching (without noise). *Rectification* replaces the coupling $(X_0,X_1)$ by $(X_0,X_1')$ with
# $X_1'=\varphi_1(X_0)$. Code the velocity $v'_t(x)=\mathbb E[X_1'-X_0\mid(1-t)X_0+tX_1'=x]$ of the new coupling, for $0\le
# t\le1$, and its energy. The end map of the flow is not the optimal map in general; you may use `fm_flow(p, q, 1.0)`, whose
# attributes are `matrix` and `offset`.
#
# <details><summary>Hint 1</summary>
#
# After rectification, where a point is at time $t$ determines where it started.
#
# <details><summary>Hint 2</summary>
#
# On the line that starts at $z$, the point at time $t$ is $(1-t)z+t\varphi_1(z)$ and the velocity is $\varphi_1(z)-z$.
#
# <details><summary>Hint 3</summary>
#
# $\varphi_1$ is affine, with the matrix and offset of `fm_flow`: so for given $x$ the start $z$ solves one linear system.
# (The velocity is a function of $z$, not of $x$.) The energy is the expectation of $|\varphi_1(X_0)-X_0|^2$, again the
# second moment of an affine function of a Gaussian.
#
# </details></details></details>

# %% nbgrader={"grade": false, "grade_id": "ps1-9-code", "locked": false, "schema_version": 3, "solution": true, "task": false}
def rectified_velocity(t, x, m0, S0, m1, S1):
    """The velocity of flow matching for the rectified coupling."""
    ### BEGIN SOLUTION
    # The line through x at time t started at z with (1 − t)z + tφ₁(z) = x; on it, the velocity is φ₁(z) − z.
    end, eye = fm_flow(Gaussian(m0, S0), Gaussian(m1, S1), 1.0), torch.eye(len(m0))
    start = torch.linalg.solve((1 - t) * eye + t * end.matrix, (x - t * end.offset).T).T
    return end(start) - start
    ### END SOLUTION


def rectified_energy(m0, S0, m1, S1):
    """Its energy; a number."""
    ### BEGIN SOLUTION
    # ‖m1 − m0‖² + E|(M − I)Y|², Y ~ N(0, S0); with M S0 = S0 # S1 this is ‖m1 − m0‖² + tr S0 + tr S1 − 2 tr S0 # S1.
    move = fm_flow(Gaussian(m0, S0), Gaussian(m1, S1), 1.0).matrix - torch.eye(len(m0))
    return (m1 - m0).square().sum() + torch.trace(move @ S0 @ move.T)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "ps1-9", "locked": true, "schema_version": 3, "solution": false, "task": false, "points": 9}
# From N(0, I) to N(0, 4I) the end map is x ↦ 2x: a point at x at time t started at x/(1 + t).
zero = torch.zeros(2)
assert close(rectified_velocity(0.25, some_points, zero, I2, zero, 4 * I2), some_points / 1.25)
assert close(rectified_energy(zero, I2, zero, 4 * I2), 2.0)
# Not cheaper than the optimal coupling.
assert rectified_energy(m0, S0, m1, S1) >= w2_squared(Gaussian(m0, S0), Gaussian(m1, S1))
### BEGIN HIDDEN TESTS
from dynot_lite.course.oracle import claim_part

claim_part("PS1-9", globals())
### END HIDDEN TESTS

# %% [markdown]
# ## Part 10. What rectification gains
#
# *14 points, graded by a person: (a) 6, (b) 3, (c) 5. About 75 minutes, difficulty 3 of 3.*
#
# Read first: [03_flow_matching](../03_flow_matching.ipynb), section 4, “What pairs buy”.
#
# Let $(X_0,X_1)$ be any coupling of $\alpha,\beta\in\mathcal P_2(\mathbb R^d)$ whose velocity $v$ of flow matching has a flow
# $\varphi$ with $\mu_t=(\varphi_t)_\#\alpha$ for $0\le t\le1$, and let $X_1'=\varphi_1(X_0)$.
#
# **(a)** Prove $\mathbb E|X_1'-X_0|^2\le\int_0^1\mathbb E|v_t(X_t)|^2dt\le\mathbb E|X_1-X_0|^2$, and that $X_1'$ has the law
# $\beta$.
#
# **(b)** Prove that the second inequality is an equality if and only if the minimum of the loss of flow matching is zero.
#
# **(c)** In the Gaussian case of part 9, prove that rectifying once more changes nothing, although the rectified coupling need
# not be optimal.
#
# <details><summary>Hint 1</summary>
#
# Two inequalities of Jensen: one in time along a trajectory, one for conditional expectations.
#
# <details><summary>Hint 2</summary>
#
# (a) $\varphi_1(x)-x=\int_0^1v_t(\varphi_t(x))\,dt$; which law has $\varphi_t(X_0)$? (b) Compute $\mathbb
# E|X_1-X_0|^2-\mathbb E|v_t(X_t)|^2$ for one $t$. (c) Is $(1-t)I+tM$ invertible, $M$ the matrix of the end map?
#
# <details><summary>Hint 3</summary>
#
# (b) $v_t(X_t)$ is an orthogonal projection in $L^2$, so the difference is a square, and its integral over time is a loss
# that you know. (c) Show that $M$ is similar to a positive definite matrix, so that its eigenvalues are positive; then
# $X_t'$ determines $X_0$, the new velocity is constant along the lines, and the lines are its trajectories. When is an
# affine map with matrix $M$ a gradient?
#
# </details></details></details>

# %% [markdown] nbgrader={"grade": true, "grade_id": "ps1-10", "locked": false, "schema_version": 3, "solution": true, "task": false, "points": 14}
# **(a)** $(\varphi_1)_\#\alpha=\mu_1=\beta$ is the law of $X_1'$. By Jensen's inequality in time (Cauchy–Schwarz) on each
# trajectory, $|\varphi_1(x)-x|^2=\big|\int_0^1v_t(\varphi_t(x))dt\big|^2\le\int_0^1|v_t(\varphi_t(x))|^2dt$; integrate over
# $\alpha$ and use that $\varphi_t(X_0)$ and $X_t$ have the same law $\mu_t$. By Jensen's inequality for conditional
# expectations, $\mathbb E|v_t(X_t)|^2=\mathbb E|\mathbb E[X_1-X_0\mid X_t]|^2\le\mathbb E|X_1-X_0|^2$ for each $t$; integrate.
# $\square$
#
# **(b)** For each $t$, $\mathbb E|X_1-X_0|^2-\mathbb E|v_t(X_t)|^2=\mathbb E|X_1-X_0-v_t(X_t)|^2$ (Pythagoras: $v_t(X_t)$ is an
# orthogonal projection in $L^2$). Integrated over $t$ the right side is the loss at its minimiser $v$. So the difference of the
# two sides of the second inequality *is* the minimum of the loss. $\square$
#
# **(c)** $X_1'=m_1+M(X_0-m_0)$ with $M=(S_1S_0^{-1})^{1/2}$. As $S_1S_0^{-1}=S_0^{1/2}(S_0^{-1/2}S_1S_0^{-1/2})S_0^{-1/2}$,
# also $M=S_0^{1/2}(S_0^{-1/2}S_1S_0^{-1/2})^{1/2}S_0^{-1/2}$: it is similar to a positive definite matrix, so its eigenvalues
# are positive and $(1-t)I+tM$ is invertible for all $t\in[0,1]$. Hence $X_t'=(1-t)X_0+tX_1'$ determines $X_0$, and with it
# $X_1'-X_0$: the conditional expectation is $v'_t(X_t')=X_1'-X_0$. The lines $t\mapsto(1-t)x+t\varphi_1(x)$ are trajectories of
# the (affine, hence Lipschitz) field $v'$, so its flow ends at $\varphi_1(x)$ again, and the second rectification is
# $(X_0,\varphi_1(X_0))$. It is optimal only if $M$ is symmetric, that is if $S_0$ and $S_1$ commute. $\square$
#
# ### BEGIN RUBRIC
#
# 1: (a) the end of the flow has the law β
#
# 2: (a) Jensen in time along a trajectory
#
# 1: (a) the law of φ_t(X0) is that of X_t
#
# 2: (a) Jensen for conditional expectations
#
# 2: (b) the difference of both sides is a mean square (Pythagoras), for each t
#
# 1: (b) integrated it is the minimum of the loss: both directions
#
# 2: (c) X_t' determines X0, with the reason why (1 − t)I + tM is invertible
#
# 2: (c) the new velocity is constant along the lines, so that its flow ends where the old one did
#
# 1: (c) optimal only if M is symmetric, that is if S0 and S1 commute
#
# ### END RUBRIC

# %% [markdown]
# ## Part 11. A velocity from samples
#
# *7 points, graded automatically. About 40 minutes, difficulty 1 of 3.*
#
# Read first: [03_flow_matching](../03_flow_matching.ipynb), section 1, “Four steps”.
#
# Now only samples are given: pairs $(x_0^i,x_1^i)$, the rows of `x0` and `x1`. Take the *trigonometric* interpolant
# $X_t=\cos(\tfrac{\pi t}2)X_0+\sin(\tfrac{\pi t}2)X_1$ and, at a given time $t$, the affine field $u(x)=Mx+c$ that minimises
# $\sum_i|u(x_t^i)-\dot x_t^i|^2$. Then transport new points: $N$ steps of Euler's method from $t=0$, $x\leftarrow
# x+\frac1Nu_{k/N}(x)$, $k=0,\dots,N-1$, where the field is fitted anew at the *beginning* of each step.
#
# <details><summary>Hint 1</summary>
#
# First the derivative of the interpolant; then an ordinary least-squares problem in which the unknown has a slope *and* a
# constant.
#
# <details><summary>Hint 2</summary>
#
# $\dot X_t$ carries a factor from the chain rule. A column of ones in the design matrix takes care of the constant.
#
# <details><summary>Hint 3</summary>
#
# `torch.linalg.lstsq(design, target)` returns a matrix of $d+1$ rows: the slope stands there transposed, the constant in
# the row of your ones. In `push` fit at $k/N$, move all points by a step of length $1/N$, and go on with the moved points.
#
# </details></details></details>

# %% nbgrader={"grade": false, "grade_id": "ps1-11-code", "locked": false, "schema_version": 3, "solution": true, "task": false}
def fit_field(x0, x1, t):
    """The pair (M, c), shapes (d, d) and (d,), of the affine field u(x) = Mx + c of least squares at time t."""
    ### BEGIN SOLUTION
    angle = 0.5 * math.pi * t
    place = math.cos(angle) * x0 + math.sin(angle) * x1
    target = 0.5 * math.pi * (math.cos(angle) * x1 - math.sin(angle) * x0)
    design = torch.cat([place, torch.ones(len(place), 1)], 1)
    solution = torch.linalg.lstsq(design, target).solution
    return solution[:-1].T, solution[-1]
    ### END SOLUTION


def push(x, x0, x1, steps):
    """The points x, shape (n, d), carried from time 0 to 1 by Euler's method with the fitted fields."""
    ### BEGIN SOLUTION
    for k in range(steps):
        matrix, offset = fit_field(x0, x1, k / steps)
        x = x + (x @ matrix.T + offset) / steps
    return x
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "ps1-11", "locked": true, "schema_version": 3, "solution": false, "task": false, "points": 7}
# Pairs with x1 = 2 x0 + 1: at t = 0 the field is π/2 (2x + 1), and the flow ends near 2x + 1.
start = torch.linspace(-1, 1, 9)[:, None]
matrix, offset = fit_field(start, 2 * start + 1, 0.0)
assert close(matrix, [[math.pi]]) and close(offset, [math.pi / 2])
assert close(push(some_points[:, :1], start, 2 * start + 1, 400), 2 * some_points[:, :1] + 1, 0.05)
### BEGIN HIDDEN TESTS
from dynot_lite.course.oracle import claim_part

claim_part("PS1-11", globals())
### END HIDDEN TESTS

# %% [markdown]
# ## Part 12. What an affine field can and cannot do
#
# *8 points, graded by a person: figure 4, explanation 4. About 45 minutes, difficulty 2 of 3.*
#
# Read first: [03_flow_matching](../03_flow_matching.ipynb), section 2, “Why an average?”.
#
# The data below are three clusters; the noise is standard normal, and the pairs are independent. Transport fresh noise with
# `push` and draw *one* figure with two panels: on the left the data and the transported points, on the right some trajectories
# from $t=0$ to $t=1$. Label the axes. Then set the string `explanation` to three to six sentences: which features of the data
# does the transported cloud have, which not, and why (which law does it have as the number of samples and steps grows)?
#
# <details><summary>Hint 1</summary>
#
# Keep all positions, one array per step; then the right panel is a plot of the columns.
#
# <details><summary>Hint 2</summary>
#
# What does an affine map do to a normal law? What does a composition of affine maps do?
#
# <details><summary>Hint 3</summary>
#
# For the last question: which moments of the pairs does a least-squares fit of an affine function see? Think of jointly
# Gaussian pairs with the same moments, for which you know the flow of flow matching and where it ends. Compare mean and
# covariance of both clouds by numbers, and say what cannot be equal.
#
# </details></details></details>

# %%
rng = torch.Generator().manual_seed(seed)
centres = torch.tensor([[2.0, 0.0], [-1.5, 1.5], [-0.5, -2.0]])
data = centres[torch.arange(600) % 3] + 0.3 * torch.randn(600, 2, generator=rng)
noise, fresh = (torch.randn(600, 2, generator=rng) for _ in range(2))

# %% nbgrader={"grade": true, "grade_id": "ps1-12", "locked": false, "schema_version": 3, "solution": true, "task": false, "points": 8}
### BEGIN SOLUTION
steps = 50
positions = [fresh]
for k in range(steps):
    matrix, offset = fit_field(noise, data, k / steps)
    positions.append(positions[-1] + (positions[-1] @ matrix.T + offset) / steps)
assert close(positions[-1], push(fresh, noise, data, steps))
lines = torch.stack(positions)[:, :40]

fig, axes = plt.subplots(1, 2, figsize=(8.6, 4.7), sharex=True, sharey=True, layout="constrained")
axes[0].plot(*data.T, ".", ms=3, color=COLOURS["blue"], label="data")
axes[0].plot(*positions[-1].T, ".", ms=3, color=COLOURS["vermilion"], label="transported noise")
axes[1].plot(lines[:, :, 0], lines[:, :, 1], color=COLOURS["grey"], lw=0.8)
axes[1].plot(*lines[0].T, "o", ms=3, color=COLOURS["green"], label="$t=0$")
axes[1].plot(*lines[-1].T, "o", ms=3, color=COLOURS["vermilion"], label="$t=1$")
for ax in axes:
    ax.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
show(fig, "affine_transport", alt="Three clusters of data under a single Gaussian cloud of transported points, and forty trajectories")

explanation = """The transported cloud has the mean and the covariance of the data, but not their three clusters. The field is affine
at each time, so the flow is affine, and the image of the normal law is normal. The affine field of least squares depends on the joint
second moments of the pairs only, so it is the velocity of flow matching of the jointly Gaussian law with the same moments, and
its flow carries N(0, I) to the normal law with the mean and covariance of the data as samples and steps grow. To see the clusters,
the field must be allowed to be non-linear in x."""
print(explanation)
### BEGIN RUBRIC
# 2: figure: data and transported points can be compared in one panel
# 1: figure: trajectories from t = 0 to t = 1
# 1: figure: labelled axes and a legend
# 1: explanation: mean and covariance match, clusters do not
# 2: explanation: the flow is affine, hence the law is normal
# 1: explanation: which normal law, or why second moments suffice
### END RUBRIC
### END SOLUTION
