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
# # Problem set 2: action matching, Hopf–Lax and duality
#
# **Goals.** After this problem set you can
#
# - find the action of a given path of Gaussian laws, and the least loss of action matching along it;
# - bound the transport cost from below with any action, and with the best potential of a family;
# - evolve a function by the formula of Hopf and Lax, forwards and backwards, and say until when it works;
# - compute the losses of action matching and optimal flow matching for a convex potential, whatever the path;
# - say what a restriction of the action, or a weight in time, changes;
# - add entropy: plans and Schrödinger bridges of Gaussian laws for any quadratic cost.
#
# **Prerequisites.** The notebooks `05_am_ot_equivalence`, `proofs/07_limits_of_the_equivalence` (sections 1, 2 and 7) and
# `04_gaussian_exercises`. **Time.** About nine and a half hours. **Points.** 100 in twelve parts, in proportion to the time that a
# part takes; none needs the code of an earlier one.
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
# **Conventions.** The cost is $\tfrac12|x-y|^2$; $W_2^2$ and energies are *without* a factor ½. Points are the rows of `x`, of
# shape $(n,d)$; values of a function at them have the shape $(n,)$. Means have the shape $(d,)$, matrices $(d,d)$; all of them
# are `torch` tensors of type `float64`. A time is a number. $\mathrm{Cov}(X,Y)=\mathbb E[(X-\mathbb EX)(Y-\mathbb EY)^\top]$ is
# not symmetric in general. For a path of laws $(p_t)_{0\le t\le1}$ and an action $s$,
#
# $$
# L_{AM}(s)=\mathbb E_{p_0}s_0-\mathbb E_{p_1}s_1+\int_0^1\mathbb E_{p_t}\big[\partial_ts_t+\tfrac12|\nabla s_t|^2\big]dt,
# \qquad L_{OT}(\Psi)=\mathbb E_{p_0}\Psi+\mathbb E_{p_1}\Psi^\ast .
# $$

# %% tags=["parameters"]
preset = "quick"
seed = 0

# %%
import math

import numpy as np
import torch
from matplotlib import pyplot as plt

from dynot_lite.potentials.action_matching import OptimalAction
from dynot_lite.companion import show
from dynot_lite.companion.answers import ask, close
from dynot_lite.companion.numerics import difference
from dynot_lite.paths.continuity import gauss_legendre
from dynot_lite.laws.gaussian import Gaussian, entropic_plan, fm_kinetic_energy, geodesic, schroedinger_bridge, w2_squared
from dynot_lite.plots import COLOURS, set_style
from dynot_lite.potentials.convex import ConvexPotential

set_style()
torch.set_default_dtype(torch.float64)


# ask(function, ...) calls a function of yours as the grading does, and close(found, expected) compares as it does: four digits,
# in any form. rows is the place of the points.
# Data for the examples: two laws whose covariances do not commute, some points, and an orthonormal basis.
m0, S0 = torch.tensor([0.3, -1.0]), torch.tensor([[2.0, 0.6], [0.6, 1.0]])
m1, S1 = torch.tensor([1.5, 0.7]), torch.tensor([[1.0, -0.5], [-0.5, 3.0]])
p, q = Gaussian(m0, S0), Gaussian(m1, S1)
some_points = torch.tensor([[0.7, -0.3], [-1.2, 0.8], [1.5, 1.0]])
I2, zero = torch.eye(2), torch.zeros(2)
turned = torch.tensor([[0.8, -0.6], [0.6, 0.8]])

# %% [markdown]
# ## Part 1. The action of a Gaussian path
#
# *8 points, graded automatically. About 45 minutes, difficulty 2 of 3.*
#
# Read first: [05_am_ot_equivalence](../05_am_ot_equivalence.ipynb), section 4, “Without the restriction”.
#
# Let $(X_0,X_1)$ be jointly Gaussian with means $m_0,m_1$, covariances $S_0,S_1$ and $C=\mathrm{Cov}(X_0,X_1)$, and let $p_t$
# be the law of $X_t=(1-t)X_0+tX_1$, with a definite covariance for all $t$. The *action of the path* is the function $s^\circ$
# whose gradient field moves it, $\partial_tp_t+\mathrm{div}(p_t\nabla s^\circ_t)=0$. It is unique up to a function of $t$: take
# the one with $\mathbb E_{p_t}s^\circ_t=0$ for every $t$.
#
# Code the values $s^\circ_t(x)$, and the minimum of $L_{AM}$ over *all* actions along this path. (40 Gauss–Legendre nodes are
# enough: `gauss_legendre(n)` returns nodes in $[0,1]$ and weights.)
#
# <details><summary>Hint 1</summary>
#
# The gradient of the action is an affine field, so the action is quadratic in $x-\mathbb EX_t$. Which symmetric slope moves
# the covariance as it must?
#
# <details><summary>Hint 2</summary>
#
# $B_t\Sigma_t+\Sigma_tB_t=\dot\Sigma_t$, with $\Sigma_t$ and $\dot\Sigma_t$ from the interpolant; solve it in an
# eigenbasis. For the loss: what is $L_{AM}$ at the action of the path itself?
#
# <details><summary>Hint 3</summary>
#
# Integrate the affine gradient to a quadratic function (here is a ½), then subtract its expectation, which is a trace. For
# the loss, use that $s^\circ$ moves the path: expectations of $s^\circ$ at the ends and its time derivative combine, and
# minus half an energy is left; the energy of an affine field is a trace plus the square of the mean's velocity.
#
# </details></details></details>

# %% nbgrader={"grade": false, "grade_id": "ps2-1-code", "locked": false, "schema_version": 3, "solution": true, "task": false}
def true_action(t, x, m0, S0, m1, S1, C):
    """The values at the points x, shape (n,), of the action of the path, of mean zero; C = Cov(X0, X1)."""
    ### BEGIN SOLUTION
    # ∇s = ṁ + B(x − m) with the symmetric solution of BΣ + ΣB = Σ', entrywise in the eigenbasis of Σ.
    mean = (1 - t) * m0 + t * m1
    cov = (1 - t) ** 2 * S0 + t**2 * S1 + t * (1 - t) * (C + C.T)
    d_cov = 2 * t * S1 - 2 * (1 - t) * S0 + (1 - 2 * t) * (C + C.T)
    values, basis = torch.linalg.eigh(cov)
    B = basis @ (basis.T @ d_cov @ basis / (values[:, None] + values)) @ basis.T
    y = x - mean
    return y @ (m1 - m0) + 0.5 * ((y @ B) * y).sum(1) - 0.5 * torch.trace(B @ cov)
    ### END SOLUTION


def least_loss(m0, S0, m1, S1, C):
    """The minimum of L_AM over all actions along the path; a number."""
    ### BEGIN SOLUTION
    # −½∫E|∇s°|²dt, and E|∇s°|² = |ṁ|² + tr(BΣB).
    total = 0.0
    for node, weight in zip(*gauss_legendre(40)):
        t = node.item()
        cov = (1 - t) ** 2 * S0 + t**2 * S1 + t * (1 - t) * (C + C.T)
        d_cov = 2 * t * S1 - 2 * (1 - t) * S0 + (1 - 2 * t) * (C + C.T)
        values, basis = torch.linalg.eigh(cov)
        B = basis @ (basis.T @ d_cov @ basis / (values[:, None] + values)) @ basis.T
        total += weight * ((m1 - m0).square().sum() + torch.trace(B @ cov @ B))
    return -0.5 * total
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "ps2-1", "locked": true, "schema_version": 3, "solution": false, "task": false, "points": 8}
# A translation, X1 = X0 + b: the action is ⟨b, x − E X_t⟩, and the least loss −½|b|².
b = torch.tensor([1.0, 2.0])
assert close(ask(true_action, 0.3, some_points, m0, S0, m0 + b, S0, S0, rows=1), (some_points - m0 - 0.3 * b) @ b)
assert close(ask(least_loss, m0, S0, m0 + b, S0, S0), -2.5)
# The mean is zero, here by quadrature at t = 0.3 for independent ends.
nodes, weights = Gaussian(0.7 * m0 + 0.3 * m1, 0.49 * S0 + 0.09 * S1).quadrature(4)
values = lambda x: ask(true_action, 0.3, x, m0, S0, m1, S1, 0 * I2, rows=1)
assert close(weights @ values(nodes), 0.0)
# The gradient field moves the mean of the square of the first coordinate as the path does, by differences (all is quadratic).
h, square = 0.5, lambda t: ((1 - t) * m0 + t * m1)[0] ** 2 + (1 - t) ** 2 * S0[0, 0] + t**2 * S1[0, 0]
along = (values(nodes + h * I2[0]) - values(nodes - h * I2[0])) / (2 * h)
assert close(2 * weights @ (nodes[:, 0] * along), (square(0.3 + h) - square(0.3 - h)) / (2 * h))
# Independent ends of variances 1 and 4 on the line.
line = torch.zeros(1), torch.ones(1, 1), torch.zeros(1), 4 * torch.ones(1, 1), torch.zeros(1, 1)
assert close(ask(true_action, 0.5, torch.tensor([[2.0], [-1.0]]), *line, rows=1), [1.65, -0.15])
assert close(ask(least_loss, *line), -0.5 * (5 - math.pi))
# No other field of the path has less energy than the gradient field.
assert ask(least_loss, m0, S0, m1, S1, 0 * I2) > -0.5 * fm_kinetic_energy(p, q) + 1e-3
### BEGIN HIDDEN TESTS
from dynot_lite.course.oracle import claim_part

claim_part("PS2-1", globals())
### END HIDDEN TESTS

# %% [markdown]
# ## Part 2. A bound from every action
#
# *14 points, graded by a person: (a) 7, (b) 4, (c) 3. About 80 minutes, difficulty 2 of 3.*
#
# Read first: [05_am_ot_equivalence](../05_am_ot_equivalence.ipynb), section 3, “The theorem in three lines”.
#
# Let $s:[0,1]\times\mathbb R^d\to\mathbb R$ be of class $C^1$ with $|s_t(x)|\le K(1+|x|^2)$, let
# $r_t=\partial_ts_t+\tfrac12|\nabla s_t|^2$ be its *residual* in the Hamilton–Jacobi equation, and suppose that
# $r_t(x)\le\rho(t)$ for all $t$ and $x$, with a continuous $\rho$.
#
# **(a)** Prove for all $p_0,p_1\in\mathcal P_2(\mathbb R^d)$:
# $\;\mathbb E_{p_1}s_1-\mathbb E_{p_0}s_0\le\tfrac12W_2^2(p_0,p_1)+\int_0^1\rho(t)\,dt$.
#
# **(b)** Let $(p_t)$ be any path of laws between $p_0$ and $p_1$ along which $L_{AM}(s)$ is defined. Prove that an action with
# $L_{AM}(s)<-\tfrac12W_2^2$ satisfies
#
# $$
# \int_0^1\big(\rho(t)-\mathbb E_{p_t}r_t\big)dt\;\ge\;-\tfrac12W_2^2-L_{AM}(s)\;>\;0,
# $$
#
# and that its residual $r_t(x)$ must depend on $x$.
#
# **(c)** Let $p_1$ be the image of $p_0$ under the translation $x\mapsto x+b$. Find an action with $\rho=0$ and equality in
# (a), and prove with it that $W_2^2(p_0,p_1)=|b|^2$.
#
# <details><summary>Hint 1</summary>
#
# Watch $s_t$ along the straight line between two coupled points.
#
# <details><summary>Hint 2</summary>
#
# $\frac{d}{dt}s_t(X_t)$ has two terms. Replace $\partial_ts$ by the residual, and estimate what remains with $\langle
# a,c\rangle\le\tfrac12|a|^2+\tfrac12|c|^2$.
#
# <details><summary>Hint 3</summary>
#
# (a) Integrate over $t$, then take the expectation over an *optimal* coupling, and say why both sides are integrable. (b)
# $L_{AM}$ is the left side of (a) with a minus sign plus an integral of $\mathbb E r_t$; if $r$ does not depend on $x$,
# which $\rho$ may you choose? (c) Try an action that is linear in $x$ with a term in $t$ only.
#
# </details></details></details>

# %% [markdown] nbgrader={"grade": true, "grade_id": "ps2-2", "locked": false, "schema_version": 3, "solution": true, "task": false, "points": 14}
# **(a)** Let $(X_0,X_1)$ be an optimal coupling and $X_t=(1-t)X_0+tX_1$. As $s$ is $C^1$ and $t\mapsto X_t$ is a straight line,
#
# $$
# \frac d{dt}s_t(X_t)=\partial_ts_t(X_t)+\langle\nabla s_t(X_t),X_1-X_0\rangle
# =r_t(X_t)-\tfrac12|\nabla s_t(X_t)|^2+\langle\nabla s_t(X_t),X_1-X_0\rangle\le\rho(t)+\tfrac12|X_1-X_0|^2,
# $$
#
# because $\langle a,c\rangle-\tfrac12|a|^2\le\tfrac12|c|^2$. Integrate over $[0,1]$:
# $s_1(X_1)-s_0(X_0)\le\tfrac12|X_1-X_0|^2+\int\rho$, for every pair of points. Both sides are integrable, the left one by
# $|s|\le K(1+|x|^2)$ and $p_0,p_1\in\mathcal P_2$. The expectation is the claim, as
# $\mathbb E|X_1-X_0|^2=W_2^2$. $\square$
#
# **(b)** By definition $L_{AM}(s)=-(\mathbb E_{p_1}s_1-\mathbb E_{p_0}s_0)+\int\mathbb E_{p_t}r_t\,dt$, and by (a) this is at
# least $-\tfrac12W_2^2-\int\rho+\int\mathbb E_{p_t}r_t\,dt$. Rearranged, that is the first inequality; the second is the
# assumption. If $r_t(x)=r(t)$ for all $t$ and $x$, then $\rho=r$ is allowed ($r$ is continuous) and the left side is 0: a
# contradiction. $\square$
#
# **(c)** $s_t(x)=\langle b,x\rangle-\tfrac t2|b|^2$ has the residual $-\tfrac12|b|^2+\tfrac12|b|^2=0$, and
# $\mathbb E_{p_1}s_1-\mathbb E_{p_0}s_0=\langle b,\mathbb E_{p_1}x-\mathbb E_{p_0}x\rangle-\tfrac12|b|^2=\tfrac12|b|^2$. By
# (a), $|b|^2\le W_2^2$. The coupling $(X,X+b)$ gives $W_2^2\le|b|^2$. So $W_2^2=|b|^2$, and (a) is an equality. $\square$
#
# ### BEGIN RUBRIC
#
# 2: (a) the derivative of the action along a straight line
#
# 1: (a) between the points of an optimal coupling, or of any with an infimum at the end
#
# 2: (a) the residual is inserted, and Young's inequality used
#
# 2: (a) both sides are integrable, and the expectation is taken
#
# 2: (b) the inequality
#
# 2: (b) a residual that does not depend on x gives a contradiction
#
# 1: (c) an action with its residual 0
#
# 1: (c) W₂² is at least |b|², by (a) with equality there
#
# 1: (c) W₂² is at most |b|², by the translation
#
# ### END RUBRIC

# %% [markdown]
# ## Part 3. Hopf–Lax with a metric
#
# *5 points, graded automatically. About 30 minutes, difficulty 2 of 3.*
#
# Read first: [05_am_ot_equivalence](../05_am_ot_equivalence.ipynb), section 2, “The price of straight walks”.
#
# Let $A\succ0$, and let $Q$ be symmetric with at least one negative eigenvalue. The solution of
# $\partial_ts+\tfrac12\langle\nabla s,A\nabla s\rangle=0$ that starts from
# $s_0(x)=\tfrac12\langle x,Qx\rangle+\langle q,x\rangle$ is
#
# $$
# s_t(x)=\inf_z\Big\{s_0(z)+\tfrac1{2t}\langle x-z,A^{-1}(x-z)\rangle\Big\}\qquad(t>0),
# $$
#
# as long as the infimum is attained at one point. Code the values $s_t(x)$ for $0\le t<T$ (at $t=0$, too), and the *lifespan*
# $T$: the first time at which the bracket is not strictly convex in $z$.
#
# <details><summary>Hint 1</summary>
#
# For fixed $x$ the bracket is a quadratic function of $z$: find where its gradient vanishes.
#
# <details><summary>Hint 2</summary>
#
# The minimiser solves $(A^{-1}/t+Q)z=\dots$; multiply by $tA$ so that nothing divides by $t$. The bracket is strictly
# convex as long as $A^{-1}+tQ\succ0$.
#
# <details><summary>Hint 3</summary>
#
# Insert the minimiser and simplify until $t=0$ is allowed: everything can be written with $R=(I+tAQ)^{-1}$, whose factors
# do not commute. For the lifespan make the condition symmetric, with $A^{1/2}$ on both sides of $Q$: only the most negative
# eigenvalue matters.
#
# </details></details></details>

# %% nbgrader={"grade": false, "grade_id": "ps2-3-code", "locked": false, "schema_version": 3, "solution": true, "task": false}
def metric_action(t, x, Q, q, A):
    """The values s_t(x), shape (n,), for a time before the lifespan."""
    ### BEGIN SOLUTION
    # Completing the square: ½⟨x, QRx⟩ + ⟨q, Rx⟩ − ½t⟨q, RAq⟩ with R = (I + tAQ)⁻¹.
    R = torch.linalg.inv(torch.eye(len(q)) + t * A @ Q)
    return 0.5 * ((x @ Q @ R) * x).sum(1) + x @ R.T @ q - 0.5 * t * q @ R @ A @ q
    ### END SOLUTION


def lifespan(Q, A):
    """The first time at which the bracket is not strictly convex; a number."""
    ### BEGIN SOLUTION
    # A⁻¹ + tQ ≻ 0 iff I + tA^½QA^½ ≻ 0.
    values, basis = torch.linalg.eigh(A)
    root = basis * values.sqrt() @ basis.T
    return -1 / torch.linalg.eigvalsh(root @ Q @ root)[0]
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "ps2-3", "locked": true, "schema_version": 3, "solution": false, "task": false, "points": 5}
# On the line with Q = −½ and A = 2 the lifespan is 1; with A = 1 it is 2, and s_1(x) = −x²/2.
one = torch.ones(1, 1)
assert close(ask(lifespan, -0.5 * one, 2 * one), 1.0)
assert close(ask(metric_action, 1.0, torch.tensor([[1.0], [3.0]]), -0.5 * one, torch.zeros(1), one, rows=1), [-0.5, -4.5])
# The larger of two moduli does not matter.
assert close(ask(lifespan, torch.diag(torch.tensor([-0.5, 2.0])), I2), 2.0)
# The beginning; and the equation holds, by differences in time and space, which magnify errors.
Q, q_, A, x = torch.tensor([[-0.6, 0.5], [0.5, 0.4]]), torch.tensor([0.2, -0.7]), S0, some_points
values = lambda t, x: ask(metric_action, t, x, Q, q_, A, rows=1)
assert close(values(0.0, x), 0.5 * ((x @ Q) * x).sum(1) + x @ q_)
slopes = torch.stack([(values(0.4, x + e) - values(0.4, x - e)) / 2 for e in I2], 1)
rate = difference(lambda h: values(0.4 + h, x), 0.05)
assert close(rate + 0.5 * ((slopes @ A) * slopes).sum(1), torch.zeros(3), scale=100)
### BEGIN HIDDEN TESTS
from dynot_lite.course.oracle import claim_part

claim_part("PS2-3", globals())
### END HIDDEN TESTS

# %% [markdown]
# ## Part 4. The optimal action of a convex potential
#
# *9 points, graded automatically. About 50 minutes, difficulty 2 of 3.*
#
# Read first: [05_am_ot_equivalence](../05_am_ot_equivalence.ipynb), section 2, “The price of straight walks”.
#
# For $M\succ0$, $c\in\mathbb R^d$ and $\kappa\ge0$ let
#
# $$
# \Psi(x)=\tfrac12\langle x,Mx\rangle+\kappa\sqrt{1+|x-c|^2},
# $$
#
# a smooth, strongly convex function. Let $s$ be its optimal action, the Hopf–Lax evolution of $s_0=\Psi-\tfrac12|\cdot|^2$.
# Code the velocity $\nabla s_t(x)$ and the values $s_t(x)$ for all $0\le t\le1$, both ends included. There is no closed form:
# solve for the point where the line through $x$ starts (by a method of yours, or with a subclass of `ConvexPotential` in
# `dynot_lite.potentials.convex`).
#
# <details><summary>Hint 1</summary>
#
# A particle that starts at $z$ moves on a straight line with velocity $\nabla\Psi(z)-z$.
#
# <details><summary>Hint 2</summary>
#
# So for given $x$ and $t$ solve $(1-t)z+t\nabla\Psi(z)=x$ for $z$. It is the gradient of a strongly convex function of $z$,
# also at $t=1$: Newton's method, or a subclass of `ConvexPotential`, finds it.
#
# <details><summary>Hint 3</summary>
#
# With $z$ known, the velocity is $\nabla\Psi(z)-z$: evaluated at $z$, not at $x$. Along the line the action starts with
# $s_0(z)$ and grows at a constant rate; which multiple of the squared speed is it? Put it together without a division by
# $t$, and compare $\nabla s_t$ with your velocity by differences.
#
# </details></details></details>

# %% nbgrader={"grade": false, "grade_id": "ps2-4-code", "locked": false, "schema_version": 3, "solution": true, "task": false}
def optimal_velocity(t, x, M, c, kappa):
    """The velocity ∇s_t(x), shape (n, d)."""
    ### BEGIN SOLUTION
    class Curved(ConvexPotential):
        def _value(self, x):
            return 0.5 * ((x @ M) * x).sum(1) + kappa * (1 + (x - c).square().sum(1)).sqrt()

        def _gradient(self, x):
            return x @ M + kappa * (x - c) / (1 + (x - c).square().sum(1, keepdim=True)).sqrt()

        def _hessian(self, x):
            # κ(I − nnᵀ)/w with w = √(1 + |x − c|²) and n = (x − c)/w.
            w = (1 + (x - c).square().sum(1)).sqrt()[:, None, None]
            n = (x - c)[:, :, None] / w
            return M + kappa * (torch.eye(len(c)) - n * n.mT) / w

    return OptimalAction(Curved(len(c))).velocity(t, x)
    ### END SOLUTION


def optimal_action(t, x, M, c, kappa):
    """The values s_t(x), shape (n,)."""
    ### BEGIN SOLUTION
    # The line started at z = x − tu; on it the action grows by ½|u|² per time. No division by t.
    u = optimal_velocity(t, x, M, c, kappa)
    z = x - t * u
    start = 0.5 * ((z @ M) * z).sum(1) + kappa * (1 + (z - c).square().sum(1)).sqrt() - 0.5 * z.square().sum(1)
    return start + 0.5 * t * u.square().sum(1)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "ps2-4", "locked": true, "schema_version": 3, "solution": false, "task": false, "points": 9}
# Without the root, and with M = 2I: the flow is x ↦ (1 + t)x, so u_t(x) = x/(1 + t) and s_t(x) = |x|²/(2(1 + t)).
assert close(ask(optimal_velocity, 0.5, some_points, 2 * I2, zero, 0.0, rows=1), some_points / 1.5)
assert close(ask(optimal_action, 0.5, some_points, 2 * I2, zero, 0.0, rows=1), some_points.square().sum(1) / 3)
# The beginning; then the velocity is the gradient, and the Hamilton–Jacobi equation holds: by differences, which magnify errors.
x, data = some_points, (0.5 * S0, m1, 2.0)
values = lambda t, x: ask(optimal_action, t, x, *data, rows=1)
psi = 0.25 * ((x @ S0) * x).sum(1) + 2 * (1 + (x - m1).square().sum(1)).sqrt()
assert close(values(0.0, x), psi - 0.5 * x.square().sum(1))
u = ask(optimal_velocity, 0.6, x, *data, rows=1)
slopes = torch.stack([difference(lambda h, e=e: values(0.6, x + h * e), 0.1) for e in I2], 1)
assert close(slopes, u, scale=100)
assert close(difference(lambda h: values(0.6 + h, x), 0.05) + 0.5 * u.square().sum(1), torch.zeros(3), scale=100)
### BEGIN HIDDEN TESTS
from dynot_lite.course.oracle import claim_part

claim_part("PS2-4", globals())
### END HIDDEN TESTS

# %% [markdown]
# ## Part 5. Forwards and backwards
#
# *16 points, graded by a person: (a) 6, (b) 7, (c) 3. About 90 minutes, difficulty 3 of 3.*
#
# Read first: [05_am_ot_equivalence](../05_am_ot_equivalence.ipynb), section 2, “The price of straight walks”.
#
# Let $\Psi$ be convex, finite and differentiable on $\mathbb R^d$, and $s$ its optimal action. You may use Propositions 1 and 2
# of the notebook `05_am_ot_equivalence`. Prove for $0\le r<t<1$ and all $x,z\in\mathbb R^d$:
#
# **(a)** $\displaystyle s_t(x)=\min_z\Big\{s_r(z)+\frac{|x-z|^2}{2(t-r)}\Big\}$ (one may stop on the way),
#
# **(b)** $\displaystyle s_r(z)=\max_x\Big\{s_t(x)-\frac{|x-z|^2}{2(t-r)}\Big\}$ (one may go back).
#
# **(c)** (a) needs no convexity, but (b) does: show that it fails for $d=1$, $r=0$ and the Hopf–Lax evolution of $s_0(z)=-|z|$.
#
# <details><summary>Hint 1</summary>
#
# (a) Two stretches of a path are never cheaper than the straight line through their ends. (b) One inequality is (a), read
# the other way.
#
# <details><summary>Hint 2</summary>
#
# (a) Minimise $\frac{|z-y|^2}{2r}+\frac{|x-z|^2}{2(t-r)}$ over $z$, for fixed $x$ and $y$. (b) For equality follow the
# particle through $z$: Proposition 1 says that there is one.
#
# <details><summary>Hint 3</summary>
#
# (a) Exchange the two infima, and say why they are attained. (b) The particle starts at some $y$, is at $z$ at time $r$ and
# at $x$ at time $t$; write both values of $s$ with $s_0(y)$ and its speed, and subtract. (c) Compute $s_t$ for $-|z|$ by
# the two half-lines, then go back to $z=0$ and compare with $s_0(0)$.
#
# </details></details></details>

# %% [markdown] nbgrader={"grade": true, "grade_id": "ps2-5", "locked": false, "schema_version": 3, "solution": true, "task": false, "points": 16}
# **(a)** For $r=0$ this is the definition. For $r>0$ and all $y,z$,
#
# $$
# \frac{|z-y|^2}{2r}+\frac{|x-z|^2}{2(t-r)}\ge\frac{|x-y|^2}{2t},
# $$
#
# with equality at $z=y+\tfrac rt(x-y)$: the left side is a strictly convex function of $z$ whose gradient vanishes there. So
#
# $$
# \inf_z\Big\{s_r(z)+\frac{|x-z|^2}{2(t-r)}\Big\}=\inf_y\inf_z\Big\{s_0(y)+\frac{|z-y|^2}{2r}+\frac{|x-z|^2}{2(t-r)}\Big\}
# =\inf_y\Big\{s_0(y)+\frac{|x-y|^2}{2t}\Big\}=s_t(x).
# $$
#
# By Proposition 2 the infimum over $y$ is attained, at $y=z_t(x)$; with it $z=y+\tfrac rt(x-y)$ attains the first one.
# $\square$
#
# **(b)** By (a), $s_t(x)\le s_r(z)+|x-z|^2/(2(t-r))$ for *all* $x$ and $z$, that is
# $s_r(z)\ge\sup_x\{s_t(x)-|x-z|^2/(2(t-r))\}$. For equality follow the particle through $z$: by Proposition 1 the flow
# $\phi_r$ is a bijection of $\mathbb R^d$, so $z=\phi_r(y)=y+rw$ for some $y$, $w=\nabla\Psi(y)-y$. Put $x=\phi_t(y)=y+tw$.
# Since $y=z_r(z)=z_t(x)$ is the minimiser in both Hopf–Lax formulas (for $r=0$, $y=z$), $s_r(z)=s_0(y)+\tfrac r2|w|^2$ and
# $s_t(x)=s_0(y)+\tfrac t2|w|^2$. Hence $s_t(x)-\frac{|x-z|^2}{2(t-r)}=s_0(y)+\tfrac t2|w|^2-\tfrac{t-r}2|w|^2=s_r(z)$: the
# supremum is attained at this $x$. $\square$
#
# **(c)** $s_t(x)=\min_z\{-|z|+(x-z)^2/(2t)\}$. Over $z\ge0$ the bracket is least at $z=x+t$ if $x\ge-t$, over $z\le0$ at
# $z=x-t$ if $x\le t$, with the values $-x-\tfrac t2$ and $x-\tfrac t2$; otherwise at $z=0$, with a value $\ge0$. So
# $s_t(x)=-|x|-\tfrac t2$. Going back to $z=0$: $\max_x\{-|x|-\tfrac t2-x^2/(2t)\}=-\tfrac t2<0=s_0(0)$. (Here
# $\Psi=\tfrac12z^2-|z|$ is not convex, and two particles arrive at each point $|x|<t$.) $\square$
#
# ### BEGIN RUBRIC
#
# 3: (a) the inequality for two stretches, with its case of equality
#
# 2: (a) the infima are exchanged
#
# 1: (a) they are attained
#
# 2: (b) one inequality, from (a) for all x and z
#
# 2: (b) there is a particle through z, by Proposition 1
#
# 3: (b) equality along it, also for r = 0
#
# 2: (c) the evolution of −|z|
#
# 1: (c) the value at 0 does not come back
#
# ### END RUBRIC

# %% [markdown]
# ## Part 6. Two losses along bent paths
#
# *6 points, graded automatically. About 35 minutes, difficulty 2 of 3.*
#
# Read first: [05_am_ot_equivalence](../05_am_ot_equivalence.ipynb), sections 1, “Twelve films, one number”, and 6, “Which loss should I descend?”.
#
# Given are pairs $(x_0^i,x_1^i)$, the rows of `x0` and `x1`, and the potential
# $\Psi(x)=\tfrac12\langle x,Mx\rangle+\langle b,x\rangle$, $M\succ0$, with its optimal action $s$ and velocity $u=\nabla s$.
# The pairs are joined by bent paths, $x_t=(1-t)x_0+tx_1+\sin(\pi t)\,h$ with a fixed vector $h$. Code
#
# $$
# L_{AM}(s)\text{ along the laws of }x_t,\qquad\text{and}\qquad\int_0^1\mathbb E|u_t(x_t)-\dot x_t|^2dt,
# $$
#
# where the expectation is the mean over the pairs. (Either can be integrated numerically; neither has to be.)
#
# <details><summary>Hint 1</summary>
#
# Is $L_{AM}$ of an *optimal* action sensitive to the path between the ends?
#
# <details><summary>Hint 2</summary>
#
# $L_{AM}(s)$ and $L_{OT}(\Psi)$ differ by halves of second moments. For the second loss expand the square: $|u|^2-2\langle
# u,\dot x\rangle+|\dot x|^2$.
#
# <details><summary>Hint 3</summary>
#
# The conjugate of a quadratic function is a quadratic function of $x_1-b$. In the second loss,
# $\int\big(\tfrac12|u|^2-\langle u,\dot x\rangle\big)dt$ is the loss of action matching path by path, by the
# Hamilton–Jacobi equation; so it is twice the first plus the kinetic energy of the bent paths, in which $\int_0^1\cos^2(\pi
# t)\,dt$ occurs and the mixed term vanishes. Or integrate numerically, and compare.
#
# </details></details></details>

# %% nbgrader={"grade": false, "grade_id": "ps2-6-code", "locked": false, "schema_version": 3, "solution": true, "task": false}
def am_loss(x0, x1, M, b, h):
    """The loss of action matching of the optimal action, along the bent paths; a number."""
    ### BEGIN SOLUTION
    # It does not depend on the path: L_OT(Ψ) minus half the second moments.
    conjugate = 0.5 * ((x1 - b) * torch.linalg.solve(M, (x1 - b).T).T).sum(1)
    dual = 0.5 * ((x0 @ M) * x0).sum(1) + x0 @ b + conjugate
    return (dual - 0.5 * x0.square().sum(1) - 0.5 * x1.square().sum(1)).mean()
    ### END SOLUTION


def bent_loss(x0, x1, M, b, h):
    """The mean squared distance of u_t(x_t) and dx_t/dt over pairs and time; a number."""
    ### BEGIN SOLUTION
    # 2L_AM + ∫E|ẋ|², and ∫|x1 − x0 + π cos(πt)h|²dt = |x1 − x0|² + ½π²|h|².
    conjugate = 0.5 * ((x1 - b) * torch.linalg.solve(M, (x1 - b).T).T).sum(1)
    dual = 0.5 * ((x0 @ M) * x0).sum(1) + x0 @ b + conjugate
    return 2 * (dual - (x0 * x1).sum(1)).mean() + 0.5 * math.pi**2 * h.square().sum()
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "ps2-6", "locked": true, "schema_version": 3, "solution": false, "task": false, "points": 6}
# Ψ = ½|x|² moves nothing: s = 0. What is left of the second loss is the kinetic energy of the paths.
start, end, bend = some_points, some_points.flip(0), torch.tensor([1.0, 0.0])
assert close(ask(am_loss, start, end, I2, zero, bend), 0.0)
assert close(ask(bent_loss, start, end, I2, zero, bend), (end - start).square().sum(1).mean() + math.pi**2 / 2)
# The pairs of the optimal map, on straight lines: both losses are at their minimum.
image = start @ S1 + m1
assert close(ask(bent_loss, start, image, S1, m1, zero), 0.0)
assert close(ask(am_loss, start, image, S1, m1, bend), -0.5 * (image - start).square().sum(1).mean())
### BEGIN HIDDEN TESTS
from dynot_lite.course.oracle import claim_part

claim_part("PS2-6", globals())
### END HIDDEN TESTS

# %% [markdown]
# ## Part 7. The best potential in a basis
#
# *5 points, graded automatically. About 30 minutes, difficulty 1 of 3.*
#
# Read first: [06_learning_brenier_maps](../06_learning_brenier_maps.ipynb), section 1, “One objective, three estimators”.
#
# The columns of $U$ are an orthonormal basis. Of two laws only the means $m_0,m_1$ and the definite covariances $S_0,S_1$ are
# known. Among the potentials $\Psi(x)=\tfrac12\langle x,Mx\rangle+\langle b,x\rangle$ with
# $M=U\,\mathrm{diag}(\lambda)\,U^\top$, $\lambda_i>0$, find the one with the least $L_{OT}(\Psi)$, and the lower bound for
# $W_2^2$ that it proves (for every pair of laws with these moments).
#
# <details><summary>Hint 1</summary>
#
# $L_{OT}$ of a quadratic potential depends on first and second moments only.
#
# <details><summary>Hint 2</summary>
#
# Minimise over $b$ first: what must the map $x\mapsto Mx+b$ do to the means? Then the problem splits into one for each
# $\lambda_i$.
#
# <details><summary>Hint 3</summary>
#
# Each $\lambda_i$ minimises $\lambda\,p_i+q_i/\lambda$ with $p_i=\langle u_i,S_0u_i\rangle$ and $q_i=\langle
# u_i,S_1u_i\rangle$. For the bound recall how $\tfrac12W_2^2$, the second moments and the minimum of $L_{OT}$ are related;
# collect the terms of each $i$ in a square.
#
# </details></details></details>

# %% nbgrader={"grade": false, "grade_id": "ps2-7-code", "locked": false, "schema_version": 3, "solution": true, "task": false}
def basis_potential(U, m0, S0, m1, S1):
    """The pair (M, b), shapes (d, d) and (d,), of the best potential of the family."""
    ### BEGIN SOLUTION
    # Stationary in b: b = m1 − M m0. Then λ_i⟨u_i, S0 u_i⟩ + ⟨u_i, S1 u_i⟩/λ_i is least at the ratio of the deviations.
    first, second = ((U.T @ S @ U).diagonal().sqrt() for S in (S0, S1))
    M = U * (second / first) @ U.T
    return M, m1 - M @ m0
    ### END SOLUTION


def basis_bound(U, m0, S0, m1, S1):
    """The lower bound for W₂² that this potential proves; a number."""
    ### BEGIN SOLUTION
    first, second = ((U.T @ S @ U).diagonal().sqrt() for S in (S0, S1))
    return (m1 - m0).square().sum() + (second - first).square().sum()
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "ps2-7", "locked": true, "schema_version": 3, "solution": false, "task": false, "points": 5}
# On the line, from mean 0 and variance 1 to mean 1 and variance 4: the map x ↦ 2x + 1, and W₂² = 2 for Gaussians.
line = torch.ones(1, 1), torch.zeros(1), torch.ones(1, 1), torch.ones(1), 4 * torch.ones(1, 1)
assert close(ask(basis_potential, *line, parts=2), ([[2.0]], [1.0])) and close(ask(basis_bound, *line), 2.0)
# In an eigenbasis of both covariances nothing is lost; in another one it is a bound.
R0, R1 = (turned @ torch.diag(torch.tensor(values)) @ turned.T for values in ([1.0, 4.0], [9.0, 0.25]))
assert close(ask(basis_bound, turned, m0, R0, m1, R1), w2_squared(Gaussian(m0, R0), Gaussian(m1, R1)))
assert ask(basis_bound, I2, m0, R0, m1, R1) < w2_squared(Gaussian(m0, R0), Gaussian(m1, R1)) - 0.1


def dual(M, b):
    """L_OT from the moments of the two laws."""
    first, second = R0 + torch.outer(m0, m0), R1 + torch.outer(m1 - b, m1 - b)
    return 0.5 * torch.trace(M @ first) + b @ m0 + 0.5 * torch.trace(torch.linalg.solve(M, second))


M, b = ask(basis_potential, I2, m0, R0, m1, R1, parts=2)
for step in 0.1 * torch.cat([I2, -I2]):
    assert dual(M, b) < min(dual(M + torch.diag(step), b), dual(M, b + step))
### BEGIN HIDDEN TESTS
from dynot_lite.course.oracle import claim_part

claim_part("PS2-7", globals())
### END HIDDEN TESTS

# %% [markdown]
# ## Part 8. The best action that stands still
#
# *9 points, graded automatically. About 50 minutes, difficulty 3 of 3.*
#
# Read first: [proofs/07_limits_of_the_equivalence](../proofs/07_limits_of_the_equivalence.ipynb), sections 1, “Fields that are not optimal”, and 2, “Weights in time”.
#
# Along the path of part 1, consider the loss with a weight in time, $w(t)=1-\kappa t$, $0\le\kappa\le1$,
#
# $$
# L_w(s)=w(0)\,\mathbb E_{p_0}s_0-w(1)\,\mathbb E_{p_1}s_1+\int_0^1\mathbb E_{p_t}\big[w\,(\partial_ts+\tfrac12|\nabla
# s|^2)+w's\big]dt .
# $$
#
# Over all actions its minimiser is $s^\circ$ (up to a function of $t$), whatever $\kappa$. Now let $s$ *not depend on time*:
# $s(x)=\tfrac12\langle x,Qx\rangle+\langle q,x\rangle$ with a symmetric $Q$. Find the minimiser, which does depend on $\kappa$.
#
# <details><summary>Hint 1</summary>
#
# For a quadratic $s$ the loss is a quadratic function of $(Q,q)$: set its gradient to zero.
#
# <details><summary>Hint 2</summary>
#
# You need moments at the ends, and the integrals of $w\,\mathbb EX_tX_t^\top$, $w\,\mathbb EX_t$ and of the same with
# $w'=-\kappa$. There is no $\partial_ts$.
#
# <details><summary>Hint 3</summary>
#
# Differentiate in $q$ first, and eliminate it. What is left is a Lyapunov equation for $Q$, because $\langle Q^2,P\rangle$
# has the gradient $QP+PQ$; its matrix is a weighted covariance over space and time. Check the two values for $X_1=2X_0$ by
# hand.
#
# </details></details></details>

# %% nbgrader={"grade": false, "grade_id": "ps2-8-code", "locked": false, "schema_version": 3, "solution": true, "task": false}
def best_stationary(kappa, m0, S0, m1, S1, C):
    """The pair (Q, q), shapes (d, d) and (d,), of the best action that does not depend on time."""
    ### BEGIN SOLUTION
    # With P_t = E X_tX_tᵀ the loss is ½⟨Q, D⟩ + ⟨q, δ⟩ + ½∫w(⟨Q², P⟩ + 2⟨Qm, q⟩ + |q|²)dt, where D and δ are the second and
    # first moments of w(0)X_0, −w(1)X_1 and w'X_t. Its gradient vanishes iff q = −(Qμ + δ)/W and QV + VQ is as below.
    plain, P = torch.zeros(2, *S0.shape)
    first, mu = torch.zeros(2, *m0.shape)
    for node, weight in zip(*gauss_legendre(20)):
        t = node.item()
        mean = (1 - t) * m0 + t * m1
        second = (1 - t) ** 2 * S0 + t**2 * S1 + t * (1 - t) * (C + C.T) + torch.outer(mean, mean)
        plain, first = plain + weight * second, first + weight * mean
        P, mu = P + weight * (1 - kappa * t) * second, mu + weight * (1 - kappa * t) * mean
    W = 1 - 0.5 * kappa
    D = S0 + torch.outer(m0, m0) - (1 - kappa) * (S1 + torch.outer(m1, m1)) - kappa * plain
    delta = m0 - (1 - kappa) * m1 - kappa * first
    values, basis = torch.linalg.eigh(P - torch.outer(mu, mu) / W)
    right = (torch.outer(delta, mu) + torch.outer(mu, delta)) / W - D
    Q = basis @ (basis.T @ right @ basis / (values[:, None] + values)) @ basis.T
    return Q, -(Q @ mu + delta) / W
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "ps2-8", "locked": true, "schema_version": 3, "solution": false, "task": false, "points": 9}
# A translation by b needs no clock: s(x) = ⟨b, x⟩ for every weight.
b = torch.tensor([1.0, 2.0])
assert close(ask(best_stationary, 0.7, m0, S0, m0 + b, S0, S0, parts=2), (torch.zeros(2, 2), b))
# X1 = 2X0 on the line, E X0 = 0 and E X0² = 1: Q = 9/14 without weights, 8/11 with w(t) = 1 − t.
dilation = torch.zeros(1), torch.ones(1, 1), torch.zeros(1), 4 * torch.ones(1, 1), 2 * torch.ones(1, 1)
for kappa, slope in ((0.0, 9 / 14), (1.0, 8 / 11)):
    assert close(ask(best_stationary, kappa, *dilation, parts=2)[0], slope)
Q, _ = ask(best_stationary, 0.0, m0, S0, m1, S1, 0.5 * turned, parts=2)
assert close(Q, Q.T)
### BEGIN HIDDEN TESTS
from dynot_lite.course.oracle import claim_part

claim_part("PS2-8", globals())
### END HIDDEN TESTS

# %% [markdown]
# ## Part 9. Autonomous fields and clocks
#
# *7 points, graded automatically. About 40 minutes, difficulty 2 of 3.*
#
# Read first: [02_benamou_brenier](../02_benamou_brenier.ipynb), section 2, “Two ways to waste energy”.
#
# **(a)** Let $T$ be symmetric and positive definite, and $X_0\sim\mathcal N(m,S)$. The autonomous field $v(x)=\log(T)\,x$ has a
# flow that ends at the optimal map $x\mapsto Tx$. Code its energy $\int_0^1\mathbb E|v(X_t)|^2dt$, which is not the least one.
#
# **(b)** Now the energy has a weight in time, $\int_0^1w(t)\int|v_t|^2dp_t\,dt$ with $w(t)=1+\kappa t$, $\kappa>0$. Among all
# solutions of the continuity equation from $\mathcal N(m_0,S_0)$ to $\mathcal N(m_1,S_1)$, code the least weighted energy, and
# the mean and covariance at time $t$ of the path that attains it.
#
# <details><summary>Hint 1</summary>
#
# (a) Solve $\dot x=\log(T)x$ exactly. (b) A path that attains it runs along a geodesic, but with which clock?
#
# <details><summary>Hint 2</summary>
#
# (a) $v(X_t)=LT^tX_0$ with $L=\log T$; everything is diagonal in the eigenbasis of $T$. (b) With a clock $\sigma(t)$ the
# energy is $W_2^2\int_0^1w\,\sigma'^2dt$ with $\sigma(0)=0$, $\sigma(1)=1$.
#
# <details><summary>Hint 3</summary>
#
# (a) $\int_0^1\lambda^{2t}dt$ is elementary; do not forget that the mean is not zero. (b) Minimise over $\sigma'$ by
# Cauchy–Schwarz: the best speed is proportional to a power of $w$. Normalise it, integrate it to get the clock, and insert
# it into `geodesic`.
#
# </details></details></details>

# %% nbgrader={"grade": false, "grade_id": "ps2-9-code", "locked": false, "schema_version": 3, "solution": true, "task": false}
def autonomous_energy(T, m, S):
    """The energy of the field log(T) x from N(m, S); a number."""
    ### BEGIN SOLUTION
    # X_t = exp(tL)X_0 with L = log T, and ∫L²exp(2tL)dt = ½L(T² − I).
    values, basis = torch.linalg.eigh(T)
    kernel = basis * (0.5 * values.log() * (values**2 - 1)) @ basis.T
    return torch.trace(kernel @ (S + torch.outer(m, m)))
    ### END SOLUTION


def weighted_energy(kappa, m0, S0, m1, S1):
    """The least weighted energy; a number."""
    ### BEGIN SOLUTION
    # A geodesic with a clock σ has the weighted energy W₂²∫wσ'²; by Cauchy–Schwarz ∫wσ'² ≥ 1/∫(1/w), with σ' ∝ 1/w.
    return w2_squared(Gaussian(m0, S0), Gaussian(m1, S1)) * kappa / math.log1p(kappa)
    ### END SOLUTION


def best_law(t, kappa, m0, S0, m1, S1):
    """The mean and the covariance at time t of the path that attains it: a pair of shapes (d,) and (d, d)."""
    ### BEGIN SOLUTION
    found = geodesic(Gaussian(m0, S0), Gaussian(m1, S1), math.log1p(kappa * t) / math.log1p(kappa))
    return found.mean, found.cov
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "ps2-9", "locked": true, "schema_version": 3, "solution": false, "task": false, "points": 7}
# From N(0, 1) under x ↦ 3x: 4 log 3, more than the W₂² = 4 of the straight lines.
assert close(ask(autonomous_energy, 3 * torch.ones(1, 1), torch.zeros(1), torch.ones(1, 1)), 4 * math.log(3))
# A heavier weight costs more, but waiting does not help: constant speed is not best.
w2 = w2_squared(p, q)
assert w2 < ask(weighted_energy, 2.0, m0, S0, m1, S1) < 2 * w2 - 0.1
assert close(ask(weighted_energy, 1e-9, m0, S0, m1, S1), w2)
# The ends, and a path that is ahead of constant speed in between.
law_at = lambda t, *laws: ask(best_law, t, 2.0, *laws, parts=2)
assert close(law_at(0.0, m0, S0, m1, S1)[1], S0) and close(law_at(1.0, m0, S0, m1, S1)[0], m1)
assert law_at(0.5, zero, I2, I2[0], I2)[0][0] > 0.6
### BEGIN HIDDEN TESTS
from dynot_lite.course.oracle import claim_part

claim_part("PS2-9", globals())
### END HIDDEN TESTS

# %% [markdown]
# ## Part 10. Entropic transport with a metric
#
# *5 points, graded automatically. About 30 minutes, difficulty 1 of 3.*
#
# Read first: [proofs/07_limits_of_the_equivalence](../proofs/07_limits_of_the_equivalence.ipynb), section 7, “Entropic regularisation”.
#
# Between $\mathcal N(m_0,S_0)$ and $\mathcal N(m_1,S_1)$ minimise over all couplings $\pi$
#
# $$
# \mathbb E_\pi\tfrac12\langle x-y,A(x-y)\rangle+\varepsilon\,\mathrm{KL}(\pi\,|\,p_0\otimes p_1),\qquad A\succ0,\
# \varepsilon>0 .
# $$
#
# Code $C=\mathrm{Cov}(X_0,X_1)$ of the minimiser, which is Gaussian, and the minimum. (`dynot_lite.laws.gaussian.entropic_plan`
# knows the case $A=I$.)
#
# <details><summary>Hint 1</summary>
#
# Is there a change of coordinates that turns the metric into the identity?
#
# <details><summary>Hint 2</summary>
#
# With $x'=A^{1/2}x$ the cost is $\tfrac12|x'-y'|^2$. Means and covariances change with it; relative entropy does not.
#
# <details><summary>Hint 3</summary>
#
# Transform both laws, ask `entropic_plan`, and transform the covariance of the plan back, with a matrix on each side. The
# minimum needs no way back. Its ε belongs to the cost *with* the ½: check that first.
#
# </details></details></details>

# %% nbgrader={"grade": false, "grade_id": "ps2-10-code", "locked": false, "schema_version": 3, "solution": true, "task": false}
def entropic_cross(S0, S1, A, epsilon):
    """Cov(X0, X1) of the minimiser, shape (d, d)."""
    ### BEGIN SOLUTION
    # In the coordinates A^½x the metric is the identity; KL does not depend on coordinates.
    values, basis = torch.linalg.eigh(A)
    root, inverse = basis * values.sqrt() @ basis.T, basis / values.sqrt() @ basis.T
    mean = torch.zeros(len(S0))
    plan = entropic_plan(Gaussian(mean, root @ S0 @ root), Gaussian(mean, root @ S1 @ root), epsilon)
    return inverse @ plan.cross_cov @ inverse
    ### END SOLUTION


def entropic_cost(m0, S0, m1, S1, A, epsilon):
    """The minimum; a number."""
    ### BEGIN SOLUTION
    values, basis = torch.linalg.eigh(A)
    root = basis * values.sqrt() @ basis.T
    return entropic_plan(Gaussian(root @ m0, root @ S0 @ root), Gaussian(root @ m1, root @ S1 @ root), epsilon).cost
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "ps2-10", "locked": true, "schema_version": 3, "solution": false, "task": false, "points": 5}
# For A = I it is what the package knows.
assert close(ask(entropic_cross, S0, S1, I2, 0.8), entropic_plan(p, q, 0.8).cross_cov)
assert close(ask(entropic_cost, m0, S0, m1, S1, I2, 0.8), entropic_plan(p, q, 0.8).cost)
# For diagonal matrices the coordinates do not see each other: a small weight lets the entropy win.
C = ask(entropic_cross, I2, 4 * I2, torch.diag(torch.tensor([0.1, 10.0])), 1.0)
assert close(C, torch.diag(torch.diag(C))) and C[0, 0] < 0.4 and C[1, 1] > 1.9
### BEGIN HIDDEN TESTS
from dynot_lite.course.oracle import claim_part

claim_part("PS2-10", globals())
### END HIDDEN TESTS

# %% [markdown]
# ## Part 11. A Schrödinger bridge with a diffusion matrix
#
# *6 points, graded automatically. About 35 minutes, difficulty 2 of 3.*
#
# Read first: [proofs/07_limits_of_the_equivalence](../proofs/07_limits_of_the_equivalence.ipynb), section 7, “Entropic regularisation”.
#
# Let $\Gamma\succ0$. Among the processes $X$ with $X_0\sim\mathcal N(m_0,S_0)$ and $X_1\sim\mathcal N(m_1,S_1)$, the
# *Schrödinger bridge* has the least relative entropy to the reference $dX=\Gamma^{1/2}dW$ started at $\mathcal N(m_0,S_0)$. It
# satisfies $dX=u_t(X)\,dt+\Gamma^{1/2}dW$ with a drift $u$. Its marginal laws $p_t$ are also moved by the *current velocity*
# $v_t=u_t-\tfrac12\Gamma\nabla\log p_t$, without noise. Code $u_t(x)$ and $v_t(x)$, for all $0\le t\le1$.
# (`dynot_lite.laws.gaussian.schroedinger_bridge` knows the case $\Gamma=\sigma^2I$.)
#
# <details><summary>Hint 1</summary>
#
# Again a change of coordinates: in which ones is the reference a standard Brownian motion?
#
# <details><summary>Hint 2</summary>
#
# $y=\Gamma^{-1/2}x$. In $y$ the bridge is that of the package with $\sigma=1$.
#
# <details><summary>Hint 3</summary>
#
# Transform means, covariances and points; ask for the drift at time $t$; a velocity is a vector, so it goes back with
# $\Gamma^{1/2}$. The current velocity goes the same way. Compare both in one dimension, where $\Gamma=\sigma^2$.
#
# </details></details></details>

# %% nbgrader={"grade": false, "grade_id": "ps2-11-code", "locked": false, "schema_version": 3, "solution": true, "task": false}
def bridge_drift(t, x, m0, S0, m1, S1, G):
    """The drift u_t(x) of the bridge, shape (n, d); G is Γ."""
    ### BEGIN SOLUTION
    # In the coordinates y = Γ^{-½}x the reference is a standard Brownian motion.
    values, basis = torch.linalg.eigh(G)
    root, inverse = basis * values.sqrt() @ basis.T, basis / values.sqrt() @ basis.T
    laws = Gaussian(inverse @ m0, inverse @ S0 @ inverse), Gaussian(inverse @ m1, inverse @ S1 @ inverse)
    return schroedinger_bridge(*laws, 1.0).drift(t, x @ inverse) @ root
    ### END SOLUTION


def bridge_velocity(t, x, m0, S0, m1, S1, G):
    """The current velocity v_t(x), shape (n, d)."""
    ### BEGIN SOLUTION
    values, basis = torch.linalg.eigh(G)
    root, inverse = basis * values.sqrt() @ basis.T, basis / values.sqrt() @ basis.T
    laws = Gaussian(inverse @ m0, inverse @ S0 @ inverse), Gaussian(inverse @ m1, inverse @ S1 @ inverse)
    return schroedinger_bridge(*laws, 1.0).velocity(t, x @ inverse) @ root
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "ps2-11", "locked": true, "schema_version": 3, "solution": false, "task": false, "points": 6}
# For Γ = σ²I it is what the package knows.
known = schroedinger_bridge(p, q, 0.6)
assert close(ask(bridge_drift, 0.3, some_points, m0, S0, m1, S1, 0.36 * I2, rows=1), known.drift(0.3, some_points))
assert close(ask(bridge_velocity, 0.3, some_points, m0, S0, m1, S1, 0.36 * I2, rows=1), known.velocity(0.3, some_points))
# For diagonal matrices the coordinates do not see each other.
both = ask(bridge_drift, 1.0, some_points, zero, I2, m1, 4 * I2, torch.diag(torch.tensor([0.36, 2.0])), rows=1)
alone = schroedinger_bridge(Gaussian(zero[:1], I2[:1, :1]), Gaussian(m1[:1], 4 * I2[:1, :1]), 0.6)
assert close(both[:, 0], alone.drift(1.0, some_points[:, :1])[:, 0])
### BEGIN HIDDEN TESTS
from dynot_lite.course.oracle import claim_part

claim_part("PS2-11", globals())
### END HIDDEN TESTS

# %% [markdown]
# ## Part 12. When lines cross
#
# *10 points, graded by a person: figure 5, explanation 5. About 55 minutes, difficulty 2 of 3.*
#
# Read first: [05_am_ot_equivalence](../05_am_ot_equivalence.ipynb), section 2, “The price of straight walks”.
#
# On the line take $s_0(z)=a\cos z$, that is $\Psi(z)=\tfrac12z^2+a\cos z$, once with $a=0.8$ and once with $a=2.5$. Draw *one*
# figure with a column for each: above, the lines $t\mapsto z+t\,s_0'(z)$, $0\le t\le1$, of some starting points $z$; below, the
# Hopf–Lax evolution $s_t$ (here a minimum over a fine grid will do) at the times $0$, $\tfrac12$ and $1$, together with the
# values $s_0(z)+\tfrac t2|s_0'(z)|^2$ that the lines carry. Label the axes. Then set the string `explanation` to three to six
# sentences: until when do the two agree, and why? What does Hopf–Lax do afterwards, does the Hamilton–Jacobi equation still
# hold, and is $z\mapsto z+s_0'(z)$ an optimal map?
#
# <details><summary>Hint 1</summary>
#
# The lines need no solver: choose starts, draw $z+t\,s_0'(z)$. For Hopf–Lax take a grid that is wider than the picture.
#
# <details><summary>Hint 2</summary>
#
# When is $z\mapsto z+t\,s_0'(z)$ increasing for all $z$? Compute the first time at which its derivative vanishes somewhere.
#
# <details><summary>Hint 3</summary>
#
# After that time several lines pass through one point, and each brings a value. Which of them does a minimum take, and what
# happens to the gradient where two of them are equal? For the last question recall what optimal maps on the line have in
# common.
#
# </details></details></details>

# %%
amplitudes = [0.8, 2.5]
places = torch.linspace(-math.pi, math.pi, 401)

# %% nbgrader={"grade": true, "grade_id": "ps2-12", "locked": false, "schema_version": 3, "solution": true, "task": false, "points": 10}
### BEGIN SOLUTION
fine = torch.linspace(-3 * math.pi, 3 * math.pi, 6001)
fig, axes = plt.subplots(2, 2, figsize=(8.8, 6.4), layout="constrained")
for column, a in zip(axes.T, amplitudes):
    starts = torch.linspace(-math.pi, math.pi, 33)
    column[0].plot([0, 1], torch.stack([starts, starts - a * torch.sin(starts)]), color=COLOURS["grey"], lw=0.8)
    column[0].set(title=f"$a={a}$", xlabel="$t$", ylabel="$x$", xlim=(0, 1), ylim=(-math.pi, math.pi))
    for t, colour in zip((0.0, 0.5, 1.0), ("blue", "green", "vermilion")):
        spread = (places[:, None] - fine) ** 2 / (2 * max(t, 1e-9))
        values = (a * torch.cos(fine) + spread).amin(1)
        column[1].plot(places, values, color=COLOURS[colour], lw=2.2, alpha=0.75, label=f"$s_t$, $t={t:g}$")
        arrived = fine - t * a * torch.sin(fine)
        carried = a * torch.cos(fine) + 0.5 * t * (a * torch.sin(fine)) ** 2
        column[1].plot(arrived, carried, color="black", lw=0.8, ls=":", label="on the lines" if t == 1 else None)
    column[1].set(xlabel="$x$", ylabel="$s_t(x)$", xlim=(-math.pi, math.pi))
axes[1, 0].legend(fontsize=8)
alt = "Lines that do not cross and lines that cross, and below them the Hopf–Lax evolution of two cosines"
show(fig, "crossing_lines", alt=alt)

explanation = """For a = 0.8 the potential is convex: z + t s_0'(z) is increasing in z for all t up to 1, the lines do not
cross, and the values on the lines are those of Hopf–Lax. For a = 2.5 the slope 1 + t s_0''(z) = 1 − t a cos z is positive
for all z only if t < 1/a = 0.4; after that several lines pass through a point near 0 and carry several values. Hopf–Lax
takes the least of them, so that s_t has a kink at 0, where the gradient jumps; away from the kink the Hamilton–Jacobi
equation still holds. The map z + s_0'(z) for a = 2.5 is not increasing, so it is not optimal, and s is not the action of a
convex potential: as in part 5 (c), it cannot be evolved back."""
print(explanation)
### BEGIN RUBRIC
# 2: figure: lines for both amplitudes
# 2: figure: Hopf–Lax and the carried values can be compared at three times
# 1: figure: labelled axes and a legend
# 2: explanation: they agree until time 1/a, or while Ψ is convex, with the reason
# 2: explanation: the least value is taken, there is a kink, and away from it the equation holds
# 1: explanation: the map is not increasing, hence not optimal
### END RUBRIC
### END SOLUTION
