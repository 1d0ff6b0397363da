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
# # Start here, the proofs: transport, its dual, its slices, and the colours of two photographs
#
# The story: [00_start_here](../00_start_here.ipynb), with the map of the notebooks.
#
# **Texts covered.** The summary of the lecture notes *Dynamic Optimal Transport and Flow Matching* ("up to this point we have
# studied": Monge, Kantorovich, duality, slicing), and a first look at what all five texts are about.
#
# **What you will see.** What the texts say; how a *claim* works; and static optimal transport, in which every statement is proved
# and then computed: the distance, maps and couplings, duality, Brenier's theorem, slicing with every exponent, and the colours of
# one photograph carried optimally onto those of another.
#
# **Prerequisites.** Linear algebra, expectations and conditional expectations, convex functions. No optimal transport.
#
# **Running time.** Under a minute on one thread in the quick preset.

# %% tags=["parameters"]
preset = "quick"
seed = 0

# %%
import itertools
import math
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import ot
import torch
from scipy.integrate import quad
from scipy.optimize import linprog
from scipy.spatial import cKDTree

from dynot_lite.companion import claim, largest, say, show, show_table, smallest, start
from dynot_lite.companion.ledger import KINDS, registry
from dynot_lite.couplings.sliced import squared_cost
from dynot_lite.datasets.images import CREDIT, colour_sample, photographs
from dynot_lite.laws.gaussian import Gaussian, geodesic, monge_map, random_gaussian, w2_squared
from dynot_lite.metrics import sample_w2_squared
from dynot_lite.plots import ROLES, draw_cells, draw_pairs

start("proofs/00_start_here", preset=preset, seed=seed)
size = {"quick": dict(image=(100, 150), colours=800, instances=1), "full": dict(image=(200, 300), colours=2000, instances=5)}[
    preset
]
generator = torch.Generator().manual_seed(seed)
randn = partial(torch.randn, generator=generator, dtype=torch.float64)


# %% [markdown]
# ## 1. The five texts
#
# * (1) **The lecture notes *Dynamic Optimal Transport and Flow Matching*** (2025). Optimal transport can be computed by moving
#   mass in time: the squared distance $W_2^2$ is the least kinetic energy of a flow from one law to the other (Benamou and
#   Brenier), reached by McCann's interpolation. Give up optimality, and any interpolation of a coupling yields a velocity field
#   that can be learned by regression: flow matching. The notes end with exercises on Gaussians and mixtures. Several proofs and
#   all solutions are left out, and some statements need a correction; the notebooks supply both.
# * (2, 3) **Two accounts of *On the Equivalence of Optimal Transport Problem and Action Matching with Optimal Vector Fields***
#   (Kornilov and Korotin, arXiv 2510.27385). If the potentials of action matching are restricted to those that generate
#   straight, optimal flows, its loss equals the dual loss of optimal transport up to a constant, whatever path of laws is
#   prescribed in between. The accounts are an abstract and summaries by third parties; the theorem and its hypotheses are
#   derived in the notebooks.
# * (4) **A summary of *Amortized Optimal Transport from Sliced Potentials*** (Truong and Nguyen, arXiv 2604.15114). The
#   potentials of one-dimensional projections are cheap; a regression on them predicts the potentials of new problems.
# * (5) **The abstract of *Flow Matching with Semidiscrete Couplings*** (Mousavi-Hosseini, Zhang, Klein and Cuturi, arXiv
#   2509.25519). A data set is finite, so one vector with an entry per data point encodes the optimal coupling between noise and
#   data; fit it once, then pair fresh noise with data by an inner-product search while training the flow.
#
# Of the three papers the texts give abstracts and summaries only. Where a notebook states one of their theorems it proves it;
# where it repeats an experiment it says what was measured, and on what.

# %% [markdown]
# ## 2. How a claim works
#
# Every statement that a cell checks is a **claim** with an identifier. The registry, one file per notebook in
# `dynot_lite/companion/claims/`, holds the statement, its source, its kind and the interval in which the measured number must
# lie. The cell computes the number and calls `claim("OT-1", value)`, which prints one line:
#
# * `PASS`: the number was computed in this run and lies in the interval. The line shows the interval and, to two digits, the
#   number; the tests compare all of the line but the number, whose last digits depend on the machine. If the number is
#   outside, or not finite, the line says `FAIL` and the notebook stops.
# * `SEEN`: a benchmark in the quick preset, recorded but asserted in the full preset only.
#
# `PASS` is evidence and not proof: it says that two independent computations agree on the instances that were tried. The proof
# stands in the text above the cell. The kinds:
#
# | kind | what the number is |
# |---|---|
# | identity | the discrepancy of two computations of the same thing; at most a tolerance |
# | inequality | the amount by which an inequality is violated, or a bounded ratio; at most a tolerance |
# | rate | an observed order of convergence |
# | counter-example | the amount by which a wrong or careless statement fails; *at least* a stated amount |
# | reproduction | the distance from a number printed in a text |
# | benchmark | a measured ratio of speed, memory or accuracy |
#
# A claim without a cell, or a cell without a registered claim, fails the tests. The registry at the moment:

# %%
notebooks = sorted({entry.notebook for entry in registry().values()})
lines = ["| notebook | " + " | ".join(KINDS) + " | all |", "|---|" + "--:|" * (len(KINDS) + 1)]
for name in [*notebooks, None]:
    kinds = [entry.kind for entry in registry().values() if name in (None, entry.notebook)]
    lines.append(f"| {name or '**all**'} | " + " | ".join(str(kinds.count(kind)) for kind in KINDS) + f" | {len(kinds)} |")
show_table(lines)

# %% [markdown]
# ## 3. Notation
#
# | symbol | meaning |
# |---|---|
# | $\alpha,\beta$; $\mathcal P_2(\mathbb R^d)$ | probability measures (the notes say "metrics" in places); those with a finite second moment |
# | $T_\#\alpha$ | image of $\alpha$: the law of $T(X)$ for $X\sim\alpha$ |
# | $\Pi(\alpha,\beta)$, $\pi$ | couplings: laws of pairs $(X_0,X_1)$ with $X_0\sim\alpha$, $X_1\sim\beta$ |
# | $c(x,y)=\tfrac12\lvert x-y\rvert^2$ | the cost, with the factor $\tfrac12$ |
# | $W_p^p(\alpha,\beta)=\min_\pi\mathbb E\lvert X_0-X_1\rvert^p$ | the Wasserstein distance of exponent $p\ge1$, on the measures with a finite moment of order $p$ |
# | $W_2^2(\alpha,\beta)=\min_\pi\mathbb E\lvert X_0-X_1\rvert^2$ | the squared distance, without it: $W_2^2=2\min_\pi\mathbb E\,c$ |
# | $f,g$ | potentials: $f(x)+g(y)\le c(x,y)$ |
# | $\Psi$, $\Psi^*$ | a convex function, $\Psi(x)=\tfrac12\lvert x\rvert^2-f(x)$, and its conjugate $\Psi^*(y)=\sup_x\langle x,y\rangle-\Psi(x)$ |
# | $T=\nabla\Psi$ | the optimal (Brenier) map |
# | $T_t=(1-t)\mathrm{Id}+tT$, $\mu_t=(T_t)_\#\alpha$ | McCann's interpolation |
# | $X_t=(1-t)X_0+tX_1$ | the linear path of a coupling |
# | $\theta$, $SW_p^p$ | a unit vector; the mean of $W_p^p$ between the projections on $\theta$, over uniform $\theta$ |
# | $\Sigma_0,\Sigma_1$ | covariances of the ends; the code's `cross_cov` is $\mathrm{Cov}(X_0,X_1)$, the notes' $\Sigma_{01}$ is its transpose |

# %% [markdown]
# ## 4. $W_2$ is a distance
#
# Two cheapest couplings can be chained along the law that they share; the chain is a coupling, and Minkowski's inequality bounds
# what it costs.
#
# > **Theorem 0.** (i) For $\alpha,\beta\in\mathcal P_2(\mathbb R^d)$ the infimum of $\mathbb E\lvert X_0-X_1\rvert^2$ over
# > $\Pi(\alpha,\beta)$ is finite and attained. (ii) $W_2$ is a metric on $\mathcal P_2(\mathbb R^d)$.
#
# *Proof.* (i) It is at most $2\,\mathbb E\lvert X_0\rvert^2+2\,\mathbb E\lvert X_1\rvert^2<\infty$. For compact $K,K'$ every
# coupling has $\pi((K\times K')^c)\le\alpha(K^c)+\beta(K'^c)$, so $\Pi(\alpha,\beta)$ is tight; it is closed under narrow
# convergence, because the marginals converge with the coupling. By Prokhorov's theorem it is compact. And $\pi\mapsto\int\lvert
# x-y\rvert^2d\pi$ is lower semicontinuous, as the supremum over $M$ of the continuous $\int\min(\lvert x-y\rvert^2,M)\,d\pi$. A
# lower semicontinuous function has a minimum on a compact set.
#
# (ii) *Symmetry*: exchange the entries of the pair. *Definiteness*: if $W_2(\alpha,\beta)=0$, an optimal pair has $X_0=X_1$
# almost surely, so $\alpha=\beta$; and $(X,X)$ costs nothing. *Triangle inequality*: let $(X,Y)$ be optimal for $(\mu,\nu)$ and
# $(Y',Z)$ for $(\nu,\eta)$. Glue them: draw $Y$ from $\nu$, and, given $Y$, independently an $X$ from the conditional law of
# the first pair and a $Z$ from that of the second. Then $(X,Y)$ and $(Y,Z)$ have the laws that they had, so $(X,Z)$ couples
# $\mu$ and $\eta$, and by Minkowski's inequality in $L^2$, for $X-Z=(X-Y)+(Y-Z)$,
#
# $$
# W_2(\mu,\eta)\le\big(\mathbb E\lvert X-Z\rvert^2\big)^{1/2}\le\big(\mathbb E\lvert X-Y\rvert^2\big)^{1/2}
# +\big(\mathbb E\lvert Y-Z\rvert^2\big)^{1/2}=W_2(\mu,\nu)+W_2(\nu,\eta).\qquad\square
# $$
#
# The same proof, with $L^p$ in the place of $L^2$, makes $W_p$ a metric for every $p\ge1$. Convergence in $W_2$ is narrow
# convergence together with that of the second moments (Villani, Theorem 6.9).
#
# The *square* $W_2^2$ is no metric: with the midpoint $\nu$ of a geodesic ([proofs/01](01_continuity_equation.ipynb), section
# 10), $W_2^2(\mu,\nu)+W_2^2(\nu,\eta)=\tfrac12W_2^2(\mu,\eta)$. The cell takes random triples of Gaussians, and triples with
# $\nu$ on the geodesic, where the triangle inequality is an equality.

# %%
rng = torch.Generator().manual_seed(seed)
excess, square_excess = [], []
for dim in range(1, 7):
    for _ in range(size["instances"]):
        p, q, r = (random_gaussian(dim, generator=rng) for _ in range(3))
        for middle in (r, geodesic(p, q, 0.3), geodesic(p, q, 0.5)):
            legs = [w2_squared(p, middle), w2_squared(middle, q), w2_squared(p, q)]
            excess.append(legs[2].sqrt() - legs[0].sqrt() - legs[1].sqrt())
        square_excess.append((legs[2] - legs[0] - legs[1]) / legs[2])
claim("CE-1", largest(excess))
claim("CE-2", smallest(square_excess))

# %% [markdown]
# ## 5. Monge and Kantorovich
#
# A map sends every point somewhere; a coupling may also split it, and in return it is a linear program.
#
# Let $\alpha=\sum_{i\le n}a_i\delta_{x_i}$ and $\beta=\sum_{j\le m}b_j\delta_{y_j}$ with positive weights of sum 1.
#
# * **Monge** (1781) asks for a *map*: minimise $\sum_ia_i\,c(x_i,T(x_i))$ over $T$ with $T_\#\alpha=\beta$.
# * **Kantorovich** (1942) asks for a *coupling*, and allows mass to be split: a linear program,
#
# $$
# \min_{P\ge0}\ \sum_{ij}c_{ij}P_{ij}\quad\text{subject to}\quad\sum_jP_{ij}=a_i,\quad\sum_iP_{ij}=b_j .
# $$
#
# A map is the special coupling $P_{ij}=a_i\mathbf 1[T(x_i)=y_j]$, so Kantorovich's minimum is never larger. It always exists:
# the feasible set is compact and contains $P_{ij}=a_ib_j$.
#
# > **Proposition 1.** Some minimiser has at most $n+m-1$ positive entries. If $n=m$ and all weights are $1/n$, some minimiser
# > is a permutation: Monge's and Kantorovich's minima agree.
#
# *Proof.* A linear function on a compact polytope attains its minimum at a vertex; let $P$ be one. Draw the bipartite graph
# whose edges are the pairs $(i,j)$ with $P_{ij}>0$. Suppose that it has a cycle. Its length is even, so we can add $+\delta$
# and $-\delta$ in turn to the entries along it: row and column sums do not change, and for small $\lvert\delta\rvert$ all
# entries stay non-negative. Then $P$ is the midpoint of two other feasible points and not a vertex. So the graph has no cycle:
# it is a forest on $n+m$ nodes, with at most $n+m-1$ edges.
#
# Let now $a_i=b_j=1/n$, and keep only the edges with $0<P_{ij}<1/n$. A row that has one such entry has a second one, because
# its sum is $1/n$; so has a column. A finite graph in which every node that has an edge has at least two contains a cycle,
# which was just excluded. So every entry is $0$ or $1/n$: $nP$ is a permutation matrix. $\square$


# %%
def marginal_constraints(n, m):
    """The matrix that takes a plan P, flattened, to its row sums and column sums."""
    return np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])


def kantorovich(a, b, c):
    """The minimum of the linear program, by a general-purpose solver (HiGHS)."""
    n, m = c.shape
    result = linprog(c.ravel(), A_eq=marginal_constraints(n, m), b_eq=np.concatenate([a, b]), method="highs")
    return result.fun


def random_weights(n):
    w = torch.rand(n, generator=generator, dtype=torch.float64) + 0.2
    return (w / w.sum()).numpy()


permutations = np.array(list(itertools.permutations(range(6))))
gap, excess = 0.0, -np.inf
for dim in range(1, 7):
    c = squared_cost(randn(6, dim), 1 + randn(6, dim) @ randn(dim, dim)).numpy()
    monge = c[np.arange(6), permutations].mean(1).min()  # all 720 of them
    gap = largest(gap, abs(monge - kantorovich(np.full(6, 1 / 6), np.full(6, 1 / 6), c)) / monge)
    plan = ot.emd(random_weights(9), random_weights(7), squared_cost(randn(9, dim), randn(7, dim)).numpy())
    excess = largest(excess, np.count_nonzero(plan > 1e-13) - (9 + 7 - 1))
claim("OT-1", gap)
claim("OT-2", excess)

# %% [markdown]
# Beyond equal weights, maps can fail in two ways. There may be **no map at all**: a map sends each atom whole, so two atoms of
# mass $\tfrac12$ cannot cover three atoms of mass $\tfrac13$. Whatever the map, at least one target atom receives nothing, and
# the image is at least $\tfrac13$ away from $\beta$ in total variation,
# $\mathrm{TV}=\tfrac12\sum_j\lvert b_j-(T_\#\alpha)_j\rvert$. Or maps exist and are **all bad**: let $\alpha$ have an atom of
# mass $\tfrac12$ near $0$ and two of mass $\tfrac14$ near $e_1$, and $\beta$ the reverse. A map must send the heavy atom to the
# heavy atom, across the gap; a coupling splits it and moves almost nothing.


# %%
def images(a, m):
    """For every map of n atoms to m atoms: the map, and the weights of the image of a."""
    for choice in itertools.product(range(m), repeat=len(a)):
        yield np.array(choice), np.bincount(choice, weights=a, minlength=m)


nearest = [min(0.5 * np.abs(image - 1 / (n + 1)).sum() for _, image in images(np.full(n, 1 / n), n + 1)) for n in (2, 3)]
claim("OT-3", smallest(nearest))

a, b, ratio = np.array([0.5, 0.25, 0.25]), np.array([0.5, 0.25, 0.25]), np.inf
for dim in range(1, 7):
    left, right = 0.05 * randn(3, dim), torch.eye(dim, dtype=torch.float64)[0] + 0.05 * randn(3, dim)
    c = squared_cost(torch.cat([left[:1], right[:2]]), torch.cat([right[2:], left[1:]])).numpy()
    monge = min((a * c[np.arange(3), t]).sum() for t, image in images(a, 3) if np.allclose(image, b))
    ratio = smallest(ratio, monge / kantorovich(a, b, c))
claim("OT-4", ratio)

# %% [markdown]
# ## 6. Duality
#
# Prices that nobody can undercut are a lower bound of every cost, and the right prices reach it. The **dual** of the linear
# program sets prices: $f_i$ for collecting a unit at $x_i$, $g_j$ for delivering it at $y_j$,
#
# $$
# \max_{f,g}\ \sum_ia_if_i+\sum_jb_jg_j\quad\text{subject to}\quad f_i+g_j\le c_{ij}\ \text{ for all }i,j.
# $$
#
# > **Proposition 2.** (i) *Weak duality*: the dual value of a feasible $(f,g)$ is at most the cost of any coupling $P$. (ii)
# > The two are equal if and only if $P_{ij}>0\Rightarrow f_i+g_j=c_{ij}$ (*complementary slackness*), and then $P$ and $(f,g)$
# > are both optimal. (iii) *Strong duality*: the maximum exists and equals the minimum.
#
# *Proof.* Since $P$ has marginals $a$ and $b$,
#
# $$
# \sum_{ij}P_{ij}c_{ij}-\sum_ia_if_i-\sum_jb_jg_j=\sum_{ij}P_{ij}\,(c_{ij}-f_i-g_j)\ \ge\ 0,
# $$
#
# because both factors are non-negative. That is (i); the sum vanishes if and only if each term does, which is (ii), and by (i)
# neither value can then be improved. (iii) is the strong duality theorem of linear programming: a linear program with a finite
# minimum has a dual solution of the same value. Section 7 builds such a solution by hand when $P$ is a permutation, so for
# equal weights nothing is taken on trust. $\square$
#
# The check solves the two programs separately, with two solvers, for unequal weights: the primal by POT's network simplex, the
# dual by HiGHS. The simplex also returns potentials, which are tested for feasibility and slackness.


# %%
def dual_value(a, b, c):
    """The maximum of the dual program, solved as a linear program of its own."""
    n, m = c.shape
    at_most_c = dict(A_ub=marginal_constraints(n, m).T, b_ub=c.ravel())  # f_i + g_j ≤ c_ij
    return -linprog(-np.concatenate([a, b]), **at_most_c, bounds=(None, None), method="highs").fun


gap = violation = slackness = 0.0
for dim in range(1, 7):
    a, b, c = random_weights(11), random_weights(8), squared_cost(randn(11, dim), 1 + randn(8, dim) @ randn(dim, dim)).numpy()
    plan, log = ot.emd(a, b, c, log=True)
    reduced = c - log["u"][:, None] - log["v"]  # c_ij − f_i − g_j
    gap = largest(gap, abs((plan * c).sum() - dual_value(a, b, c)) / (plan * c).sum())
    violation = largest(violation, -reduced.min() / c.max())
    slackness = largest(slackness, (plan * np.abs(reduced)).sum() / (plan * c).sum())
claim("OT-5", gap)
claim("OT-6", violation)
claim("OT-7", slackness)

# %% [markdown]
# ## 7. Cyclical monotonicity and Brenier's theorem
#
# A pairing is the cheapest if and only if no ring of people gains by passing its partners on; and then the prices are a convex
# function, whose gradient is the map. Pair $n$ points $x_i$ with $n$ points $y_i$ (the numbering *is* the pairing). The pairing
# is **cyclically monotone** if no cyclic exchange of partners lowers the cost: for all distinct $i_1,\dots,i_k$ and
# $i_{k+1}:=i_1$,
#
# $$
# \sum_{r=1}^k\big[c(x_{i_r},y_{i_{r+1}})-c(x_{i_r},y_{i_r})\big]\ge0 .
# $$
#
# > **Theorem 3** (Rockafellar's construction). For equal weights the following are equivalent: (a) the pairing is optimal among
# > all couplings; (b) it is cyclically monotone; (c) there are potentials with $f_i+g_j\le c(x_i,y_j)$ and
# > $f_i+g_i=c(x_i,y_i)$.
#
# *Proof.* (a)⇒(b): a cyclic exchange gives another permutation, and it cannot be cheaper. (b)⇒(c): put the weight
# $w_{ij}=c(x_i,y_j)-c(x_i,y_i)$ on the edge $i\to j$ of the complete directed graph. (b) says that no cycle has a negative
# weight; so the length $D(s,j)$ of the shortest path from $s$ to $j$ is finite, $D(s,s)=0$, and
#
# $$
# D(s,j)\le D(s,i)+w_{ij}\qquad\text{for all }i,j .
# $$
#
# Fix $s$ and put $g_j=D(s,j)$ and $f_i=c(x_i,y_i)-D(s,i)$. The inequality reads $f_i+g_j\le c(x_i,y_j)$, with equality for
# $i=j$ by definition. (c)⇒(a): complementary slackness, Proposition 2 (ii). $\square$
#
# So one shortest-path computation (Floyd's and Warshall's, three lines) tests all cycles of all lengths at once and returns
# potentials.


# %%
def shortest_paths(c):
    """D(s, j) for the edge weights c(x_i, y_j) − c(x_i, y_i) of the pairing i ↔ i; D(i, i) < 0 if a cycle is negative."""
    distance = c - np.diag(c)[:, None]
    for k in range(len(c)):
        np.minimum(distance, distance[:, k, None] + distance[None, k], out=distance)
    return distance


negative_cycle = gap = 0.0
for dim in range(1, 7):
    x, y = randn(40, dim), 1 + randn(40, dim) @ randn(dim, dim)
    value, log = ot.emd2(np.full(40, 1 / 40), np.full(40, 1 / 40), squared_cost(x, y).numpy(), return_matrix=True, log=True)
    c = squared_cost(x, y[log["G"].argmax(1)]).numpy()  # renumber: x_i goes with y_i
    distance = shortest_paths(c)
    g = distance[0]
    f = np.diag(c) - g
    negative_cycle = largest(negative_cycle, -np.diag(distance).min() / value)
    gap = largest(gap, abs(f.mean() + g.mean() - value) / value, (f[:, None] + g - c).max() / value)
claim("OT-8", negative_cycle)
claim("OT-9", gap)

# %% [markdown]
# Testing only *pairs* is not enough in dimension $d\ge2$. A rotation $R$ by an angle below 90° is **monotone**,
# $\langle Rx-Ry,x-y\rangle=\cos(\text{angle})\lvert x-y\rvert^2\ge0$, so no exchange of two partners pays. But turn a regular
# decagon by 72°, two corners on: it covers itself, the optimal cost is $0$, and the rotation pays
# $\lvert Rx-x\rvert^2=2(1-\cos72°)\approx1.38$.

# %%
corner = 2 * np.pi * torch.arange(10, dtype=torch.float64) / 10
x, y = (torch.stack([torch.cos(corner + turn), torch.sin(corner + turn)], 1) for turn in (0, 2 * np.pi / 5))
pairs = ((x[:, None] - x[None]) * (y[:, None] - y[None])).sum(-1)
claim("OT-10", -pairs.min())
claim(
    "OT-11", (x - y).square().sum(1).mean().item() - 2 * ot.emd2(np.full(10, 0.1), np.full(10, 0.1), squared_cost(x, y).numpy())
)

# %% [markdown]
# **From potentials to a convex function.** Fix optimal potentials of a pairing and set, for every $x\in\mathbb R^d$,
#
# $$
# f(x)=\min_j\,c(x,y_j)-g_j,\qquad\Psi(x)=\tfrac12\lvert x\rvert^2-f(x)=\max_j\ \langle x,y_j\rangle-h_j,
# \qquad h_j=\tfrac12\lvert y_j\rvert^2-g_j .
# $$
#
# $\Psi$ is a maximum of affine functions, hence convex; where the maximum is attained by one $j$ only, $\nabla\Psi(x)=y_j$. The
# regions on which a given $j$ wins are convex polyhedra, the **Laguerre cells**; with $g=0$ they are the Voronoi cells of the
# $y_j$, and the potentials shift the walls until each cell gets its due mass. This is Brenier's theorem in miniature:
#
# > **Theorem 4** (Brenier). Let $\alpha,\beta\in\mathcal P_2(\mathbb R^d)$ and let $\alpha$ have a density. There is exactly
# > one optimal coupling, it is given by a map, and the map is the gradient of a convex function:
# > $\pi=(\mathrm{Id},\nabla\Psi)_\#\alpha$.
#
# *Proof, given strong duality.* We use that the dual problem has a solution for general measures too (Villani, Theorem 5.10):
# there are $g$ and $f(x)=\inf_yc(x,y)-g(y)$ such that every optimal $\pi$ is concentrated on $\{f(x)+g(y)=c(x,y)\}$. As above,
# $\Psi=\tfrac12\lvert\cdot\rvert^2-f$ is a supremum of affine functions, hence convex, and it is finite $\alpha$-almost
# everywhere. On that set $\Psi(x)=\langle x,y\rangle-h(y)$, while $\Psi(z)\ge\langle z,y\rangle-h(y)$ for every $z$; so
# $\Psi(z)\ge\Psi(x)+\langle z-x,y\rangle$: $y$ is a subgradient of $\Psi$ at $x$. A convex function is differentiable at almost
# every point of the interior of the set where it is finite, and the boundary of that convex set has measure zero; since
# $\alpha$ has a density, $y=\nabla\Psi(x)$ for $\pi$-almost every $(x,y)$. The right-hand side does not depend on $\pi$, so
# $\pi$ is unique. $\square$
#
# The converse holds for every convex function and *every* law, without any density; it is the tool of section 9.
#
# > **Proposition 5.** Let $\Psi$ be convex and Lipschitz on $\mathbb R^d$, $T(x)$ a subgradient of $\Psi$ at $x$ for each $x$
# > (measurable in $x$), and $\mu\in\mathcal P_2(\mathbb R^d)$. Then $T$ is an optimal map from $\mu$ to $T_\#\mu$.
#
# *Proof.* Fenchel's inequality $\langle x,y\rangle\le\Psi(x)+\Psi^*(y)$ is an equality if $y=T(x)$. $T$ is bounded by the
# Lipschitz constant, so everything below is integrable. For any coupling $(X,Y)$ of $\mu$ and $T_\#\mu$,
#
# $$
# \mathbb E\langle X,Y\rangle\le\int\Psi\,d\mu+\int\Psi^*\,d(T_\#\mu)
# =\int\big[\Psi(x)+\Psi^*(T(x))\big]d\mu(x)=\int\langle x,T(x)\rangle\,d\mu(x).
# $$
#
# The marginals fix $\mathbb E\lvert X\rvert^2$ and $\mathbb E\lvert Y\rvert^2$, so $\mathbb E\lvert X-Y\rvert^2$ is smallest
# for $Y=T(X)$. $\square$
#
# The picture shows a pairing in the plane, and what its potentials do. A circle $x_i$ is green where it lies in the cell of its
# partner and vermilion where it does not: all are at home in the Laguerre cells, few in the Voronoi cells. The potentials are
# chosen so that each $x_i$ lies strictly inside the cell of its partner (Proposition 7 below says how). Segments of an optimal
# pairing may cross in the plane, but two particles that run along them in unit time never meet on the way:
# $(1-t)(x_1-x_2)+t(y_1-y_2)=0$ with $0<t<1$ and $x_1\ne x_2$ would give $\langle x_1-x_2,y_1-y_2\rangle<0$, and an exchange of
# partners would pay.

# %%
x, y = 0.6 * randn(14, 2), torch.tensor([0.5, 0.3]) + 2.5 * (torch.rand(14, 2, generator=generator).double() - 0.5)
cost = squared_cost(x, y).numpy()
y = y[ot.emd(np.full(14, 1 / 14), np.full(14, 1 / 14), cost).argmax(1)]
cost = squared_cost(x, y)
weights = torch.tensor(shortest_paths(cost.numpy()).mean(0))
both = torch.cat([x, y])
(left, bottom), (right, top) = (both.min(0).values - 0.3).tolist(), (both.max(0).values + 0.3).tolist()

figure, axes = plt.subplots(1, 3, figsize=(10.8, 4.3), sharex=True, sharey=True)
axes[0].plot(
    *torch.stack([x, y[torch.randperm(14, generator=generator)]]).permute(2, 0, 1), "--", color=ROLES["independent"], lw=0.8
)
draw_pairs(axes[0], x, y, size=42)
axes[0].set(title="cheapest (lines), random (dashed)", ylabel="second coordinate")
for axes_i, title, potential in ((axes[1], "Laguerre cells", weights), (axes[2], "Voronoi cells ($g=0$)", 0 * weights)):
    home = (potential - cost).argmax(1) == torch.arange(14)
    draw_cells(axes_i, y, potential, (left, right, bottom, top))
    draw_pairs(axes_i, x, y, role="truth")
    colours = [ROLES["optimal" if found else "wrong"] for found in home]
    axes_i.scatter(*x.T, s=42, c=colours, edgecolors="black", linewidths=0.6, zorder=3)
    axes_i.set(title=f"{title}: {home.sum()} of 14 at home")
for axes_i in axes:
    axes_i.set(xlabel="first coordinate")
show(
    figure,
    "pairing_and_cells",
    alt="Fourteen circles paired optimally with fourteen squares; each lies in the Laguerre cell of its partner, but most in a "
    "foreign Voronoi cell.",
)

# %% [markdown]
# ## 8. Slicing: a lower bound on $W_p$
#
# A shadow of a coupling is a coupling of the shadows, so shadows are closer than what casts them; and averaged over all
# directions a displacement loses a known share of its length. Project everything on a line: for a unit vector $\theta$ let
# $\theta_\#\alpha$ be the law of $\langle\theta,X\rangle$. In dimension one the optimal coupling sorts, so each slice is cheap.
# For $p\ge1$ let $SW_p^p(\alpha,\beta)=\mathbb E_\theta W_p^p(\theta_\#\alpha,\theta_\#\beta)$ with $\theta$ uniform on the
# sphere, and
#
# $$
# c_{d,p}=\mathbb E\lvert\theta_1\rvert^p=\frac{\Gamma(\frac d2)\,\Gamma(\frac{p+1}2)}{\sqrt\pi\,\Gamma(\frac{d+p}2)},
# \qquad c_{d,2}=\frac1d .
# $$
#
# (For the formula let $G\sim\mathcal N(0,I_d)$. Its length and its direction $\theta$ are independent, so
# $\mathbb E\lvert G_1\rvert^p=\mathbb E\lvert G\rvert^p\,c_{d,p}$, and
# $\mathbb E\lvert G\rvert^p=2^{p/2}\,\Gamma(\frac{d+p}2)/\Gamma(\frac d2)$, also for $d=1$.)
#
# > **Theorem 6.** Let $p\ge1$, and let $\alpha,\beta$ have finite moments of order $p$ on $\mathbb R^d$. (i)
# > $SW_p^p(\alpha,\beta)\le c_{d,p}\,W_p^p(\alpha,\beta)$; for $p=2$ this is $SW_2^2\le\tfrac1d\,W_2^2$. (ii) If $X_1=\kappa
# > X_0+e$ with $\kappa\ge0$, then $(X_0,X_1)$ is optimal for $\lvert x-y\rvert^p$, whatever $p\ge1$, and (i) is an equality:
# > the constant is best possible. (iii) For an orthonormal basis in the place of the sphere,
# > $\sum_kW_p^p\big((\theta_k)_\#\alpha,(\theta_k)_\#\beta\big)\le\max(1,d^{1-p/2})\,W_p^p(\alpha,\beta)$; for $p=2$ the mean
# > over the basis is at most $\tfrac1dW_2^2$.
#
# *Proof.* (i) Let $(X,Y)$ be an optimal coupling for $\lvert x-y\rvert^p$. Then $(\langle\theta,X\rangle,\langle\theta,Y\rangle)$
# couples the projections, so
#
# $$
# W_p^p(\theta_\#\alpha,\theta_\#\beta)\le\mathbb E\lvert\langle\theta,X-Y\rangle\rvert^p\qquad\text{for every }\theta .\tag{S}
# $$
#
# Average over $\theta$: by symmetry $\mathbb E_\theta\lvert\langle\theta,z\rangle\rvert^p=c_{d,p}\lvert z\rvert^p$ for every $z$.
#
# (ii) On the line a coupling that sorts is optimal for every cost $h(x-y)$ with $h$ convex: if $x\le x'$ and $y\le y'$, both
# $x-y$ and $x'-y'$ lie between $x-y'$ and $x'-y$, and the two sums agree; so $h(x-y)+h(x'-y')\le h(x-y')+h(x'-y)$, and no
# exchange pays (for all laws: Santambrogio, Theorem 2.9). Every projection of $(X_0,X_1)$ sorts, because
# $\langle\theta,X_1\rangle=\kappa\langle\theta,X_0\rangle+\langle\theta,e\rangle$. So
# $W_p^p(\theta_\#\alpha,\theta_\#\beta)=\mathbb E\lvert\langle\theta,X_0-X_1\rangle\rvert^p$ for every $\theta$, and with (i)
#
# $$
# c_{d,p}W_p^p\ \ge\ SW_p^p=c_{d,p}\,\mathbb E\lvert X_0-X_1\rvert^p\ \ge\ c_{d,p}W_p^p .
# $$
#
# All are equal; the last one says that $(X_0,X_1)$ is optimal.
#
# (iii) Sum (S) over the basis. The numbers $\langle\theta_k,z\rangle$ are the coordinates of $z$ in it, and
# $\sum_k\lvert z_k\rvert^p\le\lvert z\rvert^p$ for $p\ge2$, $\sum_k\lvert z_k\rvert^p\le d^{1-p/2}\lvert z\rvert^p$ for $p\le2$
# (Hölder's inequality). $\square$
#
# The notes announce slicing as a way to lower bound $W_p$, without a constant. Part (iii) is ours, for the sake of the check:
# with finitely many random directions $SW_p^p$ is only estimated, and the bound could be broken by chance; with a basis it
# holds exactly. First $p=2$; the samples have unequal weights and sizes.


# %%
def random_basis(dim):
    return torch.linalg.qr(randn(dim, dim)).Q  # its columns are the directions


def slices(x, y, directions, a=None, b=None):
    """W₂² of each projection, by sorting."""
    weights = [None if w is None else torch.tensor(w) for w in (a, b)]
    return ot.wasserstein_1d(x @ directions, y @ directions, *weights, p=2)


def slice_gaussian(p, directions):
    """The projections on the columns of ``directions``, a batch of one-dimensional Gaussians."""
    return Gaussian((p.mean @ directions).unsqueeze(-1), ((p.cov @ directions) * directions).sum(0)[:, None, None])


points = gaussians = -np.inf
for dim in range(2, 7):
    x, y, a, b = randn(30, dim), 0.5 + randn(41, dim) @ randn(dim, dim), random_weights(30), random_weights(41)
    p, q = (random_gaussian(dim, generator=generator) for _ in range(2))
    basis = random_basis(dim)
    points = largest(points, dim * slices(x, y, basis, a, b).mean().item() / sample_w2_squared(x, y, weights0=a, weights1=b) - 1)
    gaussians = largest(gaussians, dim * w2_squared(slice_gaussian(p, basis), slice_gaussian(q, basis)).mean() / w2_squared(p, q) - 1)
claim("OT-12", points)
claim("OT-13", gaussians)

# %% [markdown]
# **Every exponent.** The mean over the sphere is a quadrature: equal angles in the plane; in space equal angles times Gauss's
# rule in the third coordinate, which is uniform on $[-1,1]$. $W_p^p$ in $\mathbb R^d$ is a linear program, on the line it is
# sorting. The clouds are two without any relation, and one with its dilation plus a small disturbance, for which the bound is
# nearly tight: a constant that is a little too small would be found. For the exact dilation the bound is an equality, up to the
# quadrature.
#
# **Wrong constants.** Two come to mind, since $c_{d,2}=1/d$. The constant $1/d$ for every $p$ is too small for $p<2$, and
# $d^{-p/2}$ is too small for $p>2$ (by Jensen's inequality $c_{d,p}\ge c_{d,2}^{p/2}$ there). In the plane, with $p=1$ and
# $p=3$, a translation breaks them by the factors $\frac4\pi$ and $\frac{8\sqrt2}{3\pi}$.


# %%
def constant(dim, p):
    """c_{d,p} = E|θ_1|^p of a uniform unit vector."""
    return math.gamma(dim / 2) * math.gamma((p + 1) / 2) / (math.sqrt(math.pi) * math.gamma((dim + p) / 2))


def sphere(dim):
    """Directions, one a column, and their weights: a quadrature for the mean over the sphere in the plane or in space."""
    turn = 2 * np.pi * (np.arange(180) + 0.5) / 180
    circle = np.stack([np.cos(turn), np.sin(turn)])
    if dim == 2:
        return torch.tensor(circle), torch.full((180,), 1 / 180, dtype=torch.float64)
    height, weight = np.polynomial.legendre.leggauss(40)
    parts = [np.concatenate([np.sqrt(1 - z**2) * circle, np.full((1, 180), z)]) for z in height]
    return torch.tensor(np.concatenate(parts, 1)), torch.tensor(np.repeat(weight / 2, 180) / 180)


def wp_power(x, y, p):
    """W_p^p of two clouds of equal weights, by POT's exact solver."""
    return ot.emd2(np.full(len(x), 1 / len(x)), np.full(len(y), 1 / len(y)), (torch.cdist(x, y) ** p).numpy())


def sliced_power(x, y, p):
    """SW_p^p of two clouds, by sorting every projection."""
    directions, weight = sphere(x.shape[1])
    return (weight @ ot.wasserstein_1d(x @ directions, y @ directions, p=p)).item()


# %%
ratios, equality, optimal, bases = [], [], [], []
for dim, p in itertools.product((2, 3), (1, 2, 3)):
    x, e = randn(40, dim).abs() @ randn(dim, dim), randn(dim)
    dilated = 0.4 * x + e
    shuffle = torch.randperm(40, generator=generator)
    for y in (randn(40, dim) @ randn(dim, dim), (dilated + 0.5 * randn(40, dim))[shuffle]):
        whole, basis = wp_power(x, y, p), random_basis(dim)
        ratios.append(sliced_power(x, y, p) / (constant(dim, p) * whole))
        slices_of_basis = ot.wasserstein_1d(x @ basis, y @ basis, p=p).sum().item()
        bases.append(slices_of_basis / (max(1, dim ** (1 - p / 2)) * whole) - 1)
    paid = (x - dilated).norm(dim=1).pow(p).mean().item()
    equality.append(abs(sliced_power(x, dilated[shuffle], p) / (constant(dim, p) * paid) - 1))
    optimal.append(abs(wp_power(x, dilated[shuffle], p) / paid - 1))
density = lambda z, dim, p: abs(z) ** p * (1 - z * z) ** ((dim - 3) / 2)  # of a coordinate, up to a factor
integrals = [
    quad(density, -1, 1, (dim, p))[0] / quad(density, -1, 1, (dim, 0))[0] / constant(dim, p)
    for dim in (3, 4, 7)
    for p in (1, 2.5, 3)
]
claim("OT-34", largest(abs(ratio - 1) for ratio in integrals))
claim("OT-35", largest(ratios) - 1)
claim("OT-36", largest(equality))
claim("OT-37", largest(optimal))
claim("OT-38", largest(bases))
x = randn(40, 2)
moved = {p: sliced_power(x, x + torch.tensor([1.0, 0.5]), p) / wp_power(x, x + torch.tensor([1.0, 0.5]), p) for p in (1, 3)}
claim("OT-39", moved[1] * 2 - 1)
claim("OT-40", moved[3] * 2**1.5 - 1)
say(f"SW_p^p over its bound: {', '.join(f'{ratio:.3f}' for ratio in ratios)}")

# %% [markdown]
# **Gaussians.** The projection of $\mathcal N(m,\Sigma)$ is
# $\mathcal N(\langle\theta,m\rangle,\langle\theta,\Sigma\theta\rangle)$. In one dimension
# $W_2^2=(\text{difference of means})^2+(\text{difference of standard deviations})^2$, and
# $\mathbb E_\theta\langle\theta,m\rangle^2=\lvert m\rvert^2/d$, so
#
# $$
# SW_2^2=\frac{\lvert m_1-m_0\rvert^2}d+\mathbb E_\theta\big(\sigma_1^\theta-\sigma_0^\theta\big)^2,
# \qquad\sigma_k^\theta=\sqrt{\langle\theta,\Sigma_k\theta\rangle}.
# $$
#
# For the pair of Gaussians that the notebooks use as their example, $m_0=(0.3,-1)$, $m_1=(1.5,0.7)$,
# $\Sigma_0=\begin{pmatrix}2&0.6\\0.6&1\end{pmatrix}$, $\Sigma_1=\begin{pmatrix}1&-0.5\\-0.5&3\end{pmatrix}$, the mean over the
# circle is a trapezoidal sum, exponentially accurate for a smooth periodic function. Two slips are measured: taking the bound
# for an equality, and forgetting the $1/d$ on the means.
#
# **When is it an equality, for $p=2$?** Both sides of (S) are continuous in $\theta$ (projecting on $\theta'$ instead moves
# each law by at most $\lvert\theta-\theta'\rvert$ times the root of its second moment), so the averages agree if and only if
# equality holds for *every* $\theta$: each projection of the optimal coupling must itself be optimal, that is, sorted. For
# $Y=\kappa X+e$ with $\kappa\ge0$ it is (Theorem 6 (ii)): **equality holds for translations and dilations**, for any law
# $\alpha$. And only for these, at least if $d\ge2$, $\alpha$ has a positive density on $\mathbb R^d$ and the optimal map
# $T=\nabla\Psi$ is $C^1$: sorted means $\langle\theta,T(x)\rangle=k_\theta(\langle\theta,x\rangle)$ with a function $k_\theta$
# of one variable, for almost every $x$, hence for every $x$ as $T$ is continuous; and
# $k_\theta(r)=\langle\theta,T(r\theta)\rangle$ is $C^1$. Differentiate: $\nabla
# T(x)\,\theta=k_\theta'(\langle\theta,x\rangle)\,\theta$ ($\nabla T=\nabla^2\Psi$ is symmetric). Every $\theta$ is an
# eigenvector of $\nabla T(x)$, so $\nabla T(x)=\kappa(x)I$, and $\kappa(x)=k'_\theta(\langle\theta,x\rangle)$ for every
# $\theta$. Moving $x$ orthogonally to $\theta$ leaves $\kappa$ unchanged, for every $\theta$; since $d\ge2$, any displacement
# is orthogonal to some $\theta$. So $\kappa$ is constant, and $T=\kappa\mathrm{Id}+e$. $\square$

# %%
p = Gaussian([0.3, -1.0], [[2.0, 0.6], [0.6, 1.0]])
q = Gaussian([1.5, 0.7], [[1.0, -0.5], [-0.5, 3.0]])
angles = 2 * np.pi * torch.arange(400, dtype=torch.float64) / 400
circle = torch.stack([torch.cos(angles), torch.sin(angles)])
per_slice = w2_squared(slice_gaussian(p, circle), slice_gaussian(q, circle))
spread = (slice_gaussian(p, circle).cov.sqrt() - slice_gaussian(q, circle).cov.sqrt()).square().mean()
distance = w2_squared(p, q)
print(f"SW2² = {per_slice.mean():.4f},  W2²/d = {distance / 2:.4f}")
claim("OT-14", largest(abs(per_slice.mean() - 2.4581804230), abs(distance / 2 - 2.7243619542)))
claim("OT-15", distance / 2 - per_slice.mean())
claim("OT-16", (p.mean - q.mean).square().sum() + spread - per_slice.mean())

discrepancy = 0.0
for dim in range(2, 7):
    x = randn(50, dim).abs() @ randn(dim, dim)  # not a Gaussian cloud
    y = (0.3 + 2 * torch.rand(1, generator=generator)) * x + randn(dim)
    y = y[torch.randperm(50, generator=generator)]
    discrepancy = largest(discrepancy, abs(dim * slices(x, y, random_basis(dim)).mean().item() / sample_w2_squared(x, y) - 1))
claim("OT-17", discrepancy)

# %%
remainder = torch.eye(2, dtype=torch.float64) - monge_map(p, q).matrix  # X − Y is affine in X
bound = ((p.mean - q.mean) @ circle) ** 2 + ((remainder @ p.cov @ remainder.mT @ circle) * circle).sum(0)
figure, axes = plt.subplots(figsize=(6.4, 3.1))
axes.fill_between(angles.rad2deg(), per_slice, bound, color=ROLES["optimal"], alpha=0.15, lw=0)
upper, lower = r"$\mathbb{E}\langle\theta, X-Y\rangle^2$, $(X, Y)$ optimal", r"$W_2^2(\theta_\#\alpha, \theta_\#\beta)$"
axes.plot(angles.rad2deg(), bound, color=ROLES["optimal"], ls="--", label=upper)
axes.plot(angles.rad2deg(), per_slice, color=ROLES["second"], label=lower)
axes.set(title="a slice never costs more than the slice of the optimal coupling")
axes.set(xlabel=r"angle of $\theta$ (degrees)", xlim=(0, 180), xticks=range(0, 181, 30))
axes.set(ylabel="squared distance", ylim=(0, None))
axes.legend(loc="upper right")
show(figure, "slices", alt="Squared distance of the slices of two Gaussians against the angle, and its upper bound.")

# %% [markdown]
# ## 9. The first real thing: the colours of two photographs
#
# The potentials of a sample are a map of the whole space: so the pairing of some colours tells every colour where to go. A
# photograph, as far as its colours are concerned, is a probability measure on the cube $[0,1]^3$: the law of the colour (red,
# green, blue) of a random pixel. We carry the colours of a Chinese temple onto those of a flower. Colours are compared by the
# squared distance of their stored RGB values, which is not how an eye compares them; the mathematics does not depend on that
# choice.
#
# **Exact transport of samples.** Draw $n$ pixels of each picture, spread evenly over it. By Proposition 1 the optimal coupling
# of the two samples is a permutation; POT's network simplex finds it. A second pair of samples, drawn afresh, is put aside to
# judge the result on.

# %%
china, flower = photographs(size=size["image"])
n = size["colours"]
x, y, x_new, y_new = (colour_sample(image, n, generator=generator) for image in (china, flower, china, flower))
weights = np.full(n, 1 / n)
plan, log = ot.emd(weights, weights, squared_cost(x, y).numpy(), numItermax=10**7, log=True)
partner = plan.argmax(1)
y, solver_g = y[partner], torch.tensor(log["v"][partner])  # from here on x_i goes with y_i
w2_colours = (x - y).square().sum(1).mean().item()
say(f"W2²(temple, flower) = {w2_colours:.3f} from {n} colours each")

# %% [markdown]
# **From $n$ colours to all colours.** We need a map on the whole cube. The potentials offer one: $x\mapsto y_j$ with $j$ the
# Laguerre cell of $x$, a (sub)gradient of the convex function $\Psi$ of section 7. But *which* potentials? They are not unique.
# A simplex method returns a vertex of the set of optimal potentials (one value fixed: a common shift changes nothing), where
# many of the inequalities $f_i+g_j\le c_{ij}$ are equalities besides those for $i=j$: the samples then lie *on* the walls
# between cells, and rounding decides where they go. A point inside the set is better.
#
# > **Proposition 7** (ours). Let the optimal permutation be unique, $D$ the shortest-path lengths of Theorem 3 and
# > $g_j=\frac1n\sum_sD(s,j)$. Then each $x_i$ lies strictly inside the cell of its partner: $c(x_i,y_j)-g_j>c(x_i,y_i)-g_i$ for
# > all $j\ne i$.
#
# *Proof.* The difference of the two sides is the mean over $s$ of $D(s,i)+w_{ij}-D(s,j)\ge0$. The term $s=j$ is
# $D(j,i)+w_{ij}$: a shortest path from $j$ to $i$ closed by the edge $i\to j$. That is a cycle through at least two nodes,
# hence the extra cost of a permutation other than the optimal one, hence positive. $\square$

# %%
c = squared_cost(x, y)
g = torch.tensor(shortest_paths(c.numpy()).mean(0))
f = c.diagonal() - g


def second_best(g):
    """By how much each sample prefers its partner to the best other target."""
    margin = (c - g) - (c.diagonal() - g)[:, None]
    return margin.fill_diagonal_(np.inf).min(1).values


claim("OT-18", (second_best(g) <= 0).double().mean())
claim("OT-19", (second_best(solver_g) < 1e-12).double().mean())

# %% [markdown]
# The Laguerre map takes only $n$ values, so smooth skies come out posterised. We smooth the maximum instead: for
# $\varepsilon>0$
#
# $$
# \Psi_\varepsilon(x)=\varepsilon\log\sum_j\exp\frac{\langle x,y_j\rangle-h_j}\varepsilon,\qquad
# T_\varepsilon(x)=\nabla\Psi_\varepsilon(x)=\sum_jp_j(x)\,y_j,\qquad p_j(x)\propto\exp\frac{g_j-c(x,y_j)}\varepsilon .
# $$
#
# ($\tfrac12\lvert x\rvert^2$ is common to all $j$ and drops out.) A log-sum-exp of affine functions is convex, and
# $T_\varepsilon(x)$, a mean of the $y_j$, stays in the cube; $T_0$ is the Laguerre map. What is exact here, and what is an
# extension?
#
# * **Exact**: on the $n$ sampled colours $T_0$ *is* the optimal map of the samples. And for every $\varepsilon\ge0$,
#   $T_\varepsilon$ is an optimal map from *any* colour law to its own image (Proposition 5): whatever picture it is applied to,
#   no other map makes the same colours more cheaply.
# * **An extension**: that the image of *all* pixels has the colours of the flower. It is measured on the colours put aside.
#
# The obvious rival moves each colour like its **nearest sample**, $x\mapsto x+y_i-x_i$. It keeps fine detail and also agrees
# with the samples, but it is not the gradient of a convex function, not optimal onto its image, and leaves the cube. And
# without potentials ($g=0$) nothing works: sending each colour to the nearest target colour is no transport at all, a few
# colours receive most of the mass.


# %%
def recolour(colours, targets, g, epsilon):
    """T_ε: the Laguerre map for ε = 0, its smooth version otherwise."""
    out = []
    for part in colours.split(2000):
        score = g - squared_cost(part, targets)
        out.append(targets[score.argmax(1)] if epsilon == 0 else torch.softmax(score / epsilon, 1) @ targets)
    return torch.cat(out)


nearest = cKDTree(x.numpy()).query(x_new.numpy())[1]
rivals = {f"gradient, ε = {epsilon:g}": recolour(x_new, y, g, epsilon) for epsilon in (0, 1e-3, 1e-2)}
rivals |= {"nearest sample": x_new + (y - x)[nearest], "no potentials": recolour(x_new, y, 0 * g, 0)}
before, floor = sample_w2_squared(x_new, y_new), sample_w2_squared(y, y_new)
say(f"W2² of fresh colours to the flower's: {before:.4f} before the transport")
say(f"W2² between two samples of the flower: {floor:.4f}, {floor / before:.1%} of that")
say(f"{'map T':18}  W2²(T#temple, flower)   share  E|T − Id|²  E|T − Id|² / W2² − 1")
suboptimal, missed = {}, {}
for name, image in rivals.items():
    moved = (image - x_new).square().sum(1).mean().item()
    suboptimal[name], missed[name] = moved / sample_w2_squared(x_new, image) - 1, sample_w2_squared(image, y_new)
    say(f"{name:18}  {missed[name]:21.4f}  {missed[name] / before:6.1%}  {moved:10.3f}  {abs(suboptimal[name]):20.4f}")

# %% [markdown]
# Each gradient is optimal onto its image to rounding (also the one without potentials, whose image is wrong). With 2000 colours
# the maps with potentials leave between 0.3 % and 1.2 % of the original $W_2^2$; two samples of the flower itself are 0.1 %
# apart. With other samples (another `seed`) their order changes, and with the 800 colours of a quick run more is left: what
# limits them is the sampling of $n$ colours, not the way of extending. So the choice is made by structure: a gradient of a
# convex function, values inside the cube, a smooth map, and little shrinking. That is $T_\varepsilon$ with $\varepsilon=0.001$,
# which averages over targets whose scores differ by a few $\varepsilon$, that is over colours some
# $\sqrt{2\varepsilon}\approx0.045$ apart, eleven of the 255 grey levels.

# %%
epsilon = 1e-3
chosen = f"gradient, ε = {epsilon:g}"
claim("OT-20", largest(abs(suboptimal[name]) for name in rivals if name.startswith("gradient")))
claim("OT-21", suboptimal["nearest sample"])
claim("OT-22", missed[chosen] / before)
cell = (-squared_cost(x_new, y)).argmax(1)
claim("OT-23", 0.5 * (torch.bincount(cell, minlength=n) / n - 1 / n).abs().sum())

# %% [markdown]
# **McCann's interpolation.** Let $(X_0,X_1)$ be an optimal coupling, $X_t=(1-t)X_0+tX_1$ and $\mu_t$ the law of $X_t$. Then
# $W_2(\mu_s,\mu_t)=\lvert t-s\rvert\,W_2(\mu_0,\mu_1)$: the path is a geodesic of constant speed
# ([proofs/01](01_continuity_equation.ipynb), section 6, has the theorem and its proof). Here it is seen on colours.
#
# Optimality is needed. With *independent* $X_0,X_1$ the same straight lines give a path of laws that makes a detour: its two
# halves are together longer than the distance of the ends. The check solves every transport problem afresh, from the two point
# clouds alone.
#
# > **Proposition 9.** For any coupling, with $\mathbb V_t=\mathbb E\lvert X_t-\mathbb EX_t\rvert^2$: $\;\mathbb
# > V_t=(1-t)\mathbb V_0+t\mathbb V_1-t(1-t)\big(\mathbb E\lvert X_1-X_0\rvert^2-\lvert\mathbb EX_1-\mathbb EX_0\rvert^2\big)$.
# > So among all couplings the optimal one keeps the largest variance at every $t$.
#
# *Proof.* Expand $\lvert(1-t)a+tb\rvert^2=(1-t)\lvert a\rvert^2+t\lvert b\rvert^2-t(1-t)\lvert b-a\rvert^2$ with the centred
# $a=X_0-\mathbb EX_0$, $b=X_1-\mathbb EX_1$. Only $\mathbb E\lvert X_1-X_0\rvert^2$ depends on the coupling. $\square$
#
# For pictures: the in-between images of the independent coupling are greyer, those of the optimal one keep their contrast.

# %%
shuffled = y[torch.randperm(n, generator=generator)]
total = sample_w2_squared(x, y) ** 0.5


def cloud(t, end):
    return (1 - t) * x + t * end


def variance(cloud):
    return cloud.var(0, correction=0).sum().item()


times = (0.0, 0.25, 0.5, 0.75, 1.0)
steps = [(0, t) for t in times[1:]] + [(0.25, 0.5), (0.5, 1.0)]
claim("OT-24", largest(abs(sample_w2_squared(cloud(s, y), cloud(t, y)) ** 0.5 / (total * (t - s)) - 1) for s, t in steps))
detour = sample_w2_squared(x, cloud(0.5, shuffled)) ** 0.5 + sample_w2_squared(cloud(0.5, shuffled), y) ** 0.5
claim("OT-25", detour / total - 1)
shift = (x.mean(0) - y.mean(0)).square().sum().item()
formula = [(1 - t) * variance(x) + t * variance(y) - t * (1 - t) * (total**2 - shift) for t in times]
claim("OT-26", largest(abs(variance(cloud(t, y)) / v - 1) for t, v in zip(times, formula, strict=True)))
say(f"variance half-way: {variance(cloud(0.5, y)):.3f} optimal, {variance(cloud(0.5, shuffled)):.3f} independent coupling")
say(f"variance at the ends: {formula[0]:.3f} temple, {formula[-1]:.3f} flower")

# %% [markdown]
# **The pictures.** $T_\varepsilon$ is applied to every pixel of the temple. The way back uses the other potential, $y\mapsto$ the
# smooth maximum of $f_i-c(x_i,y)$.

# %%
pixels, petals = china.reshape(-1, 3), flower.reshape(-1, 3)
transported, returned = recolour(pixels, y, g, epsilon), recolour(petals, x, f, epsilon)
figure, axes = plt.subplots(1, 4, figsize=(11.0, 2.2))
pictures = {"temple": pixels, "in the flower's colours": transported, "flower": petals, "in the temple's colours": returned}
for axes_i, (title, colours) in zip(axes, pictures.items(), strict=True):
    axes_i.imshow(colours.reshape(china.shape).clamp(0, 1).numpy())
    axes_i.set(title=title, xticks=[], yticks=[])
    axes_i.spines[:].set_visible(False)
show(
    figure,
    "colour_transfer",
    photograph=CREDIT,
    alt="A temple and the same in the colours of a flower; the flower and the same in the colours of the temple.",
)

# %% [markdown]
# The same in the colour cube, for forty of the sampled colours, spread evenly over the temple's: each with its partner on the
# left, with a random one on the right. The optimal segments are shorter and run beside each other; two particles that run along
# them never meet on the way. The random ones all pass through the middle, where the cloud half-way is therefore denser.

# %%
figure = plt.figure(figsize=(9.0, 4.2))
some = slice(None, None, n // 40)
panels = (
    ("the cheapest partners run beside each other", y, "optimal"),
    ("random partners cross in the middle", shuffled, "independent"),
)
for column, (title, ends, role) in enumerate(panels):
    axes_i = figure.add_subplot(1, 2, column + 1, projection="3d")
    for line in torch.stack([x[some], ends[some]], 1):
        axes_i.plot(*line.T.numpy(), color=ROLES[role], lw=0.9, alpha=0.7)
    for cloud_i, marker, name in ((x[some], "o", "temple"), (ends[some], "s", "flower")):
        dots = dict(marker=marker, s=26, depthshade=False, edgecolors="black", linewidths=0.4)
        axes_i.scatter(*cloud_i.T.numpy(), c=cloud_i.clamp(0, 1).numpy(), **dots)
        axes_i.scatter([], [], [], color="white", label=name, **dots)
    axes_i.set(xlim=(0, 1), ylim=(0, 1), zlim=(0, 1), xticks=(0.25, 0.75), yticks=(0.25, 0.75), zticks=(0.25, 0.75))
    axes_i.set(xlabel="red", ylabel="green", zlabel="blue")
    axes_i.set_title(title, y=0.98)
    axes_i.view_init(elev=22, azim=-60)
    axes_i.set_box_aspect(None, zoom=0.85)
figure.legend(*axes_i.get_legend_handles_labels(), loc="outside lower center", ncols=2)
show(
    figure,
    "colour_cube",
    alt="Forty temple colours (circles) joined to flower colours (squares) in the RGB cube: by short segments that hardly cross "
    "for the cheapest partners, by long ones through the middle for random partners.",
)

# %% [markdown]
# ## 10. Where to go from here
#
# McCann's path turns the static number $W_2^2$ into the energy of a motion. Flow matching is another motion between the same
# laws, and its energy is larger: the chain of the four numbers, with the flow between two mixtures fitted to these colours, is
# in [proofs/02](02_benamou_brenier.ipynb), section 3. That the smallest energy of *all* motions is $W_2^2$ is the theorem of
# Benamou and Brenier, proved there; what "motion" means is the continuity equation, [proofs/01](01_continuity_equation.ipynb).
# The exercises of the notes, with Gaussians in place of photographs, are in [proofs/04](04_gaussian_exercises.ipynb).
#
# ## Bibliography
#
# *The texts.*
# * *Dynamic Optimal Transport and Flow Matching*, lecture notes, version of 5 November 2025.
# * N. Kornilov, A. Korotin. *On the Equivalence of Optimal Transport Problem and Action Matching with Optimal Vector Fields*.
#   arXiv 2510.27385.
# * M.-P. Truong, K. Nguyen. *Amortized Optimal Transport from Sliced Potentials*. arXiv 2604.15114.
# * A. Mousavi-Hosseini, S. Y. Zhang, M. Klein, M. Cuturi. *Flow Matching with Semidiscrete Couplings*. arXiv 2509.25519.
#
# *Optimal transport.*
# * C. Villani. *Optimal Transport: Old and New*. Springer, 2009.
# * F. Santambrogio. *Optimal Transport for Applied Mathematicians*. Birkhäuser, 2015.
# * L. Ambrosio, N. Gigli, G. Savaré. *Gradient Flows in Metric Spaces and in the Space of Probability Measures*. Birkhäuser,
#   2nd edition 2008.
# * G. Peyré, M. Cuturi. *Computational Optimal Transport*. arXiv 1803.00567.
# * Y. Brenier. *Polar factorization and monotone rearrangement of vector-valued functions*. Comm. Pure Appl. Math. 44, 1991.
# * R. J. McCann. *A convexity principle for interacting gases*. Adv. Math. 128, 1997.
# * J.-D. Benamou, Y. Brenier. *A computational fluid mechanics solution to the Monge–Kantorovich mass transfer problem*. Numer.
#   Math. 84, 2000.
# * N. Bonneel, J. Rabin, G. Peyré, H. Pfister. *Sliced and Radon Wasserstein barycenters of measures*. J. Math. Imaging Vision
#   51, 2015.
#
# *Flow matching and action matching.*
# * Y. Lipman, R. T. Q. Chen, H. Ben-Hamu, M. Nickel, M. Le. *Flow Matching for Generative Modeling*. arXiv 2210.02747.
# * X. Liu, C. Gong, Q. Liu. *Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow*. arXiv
#   2209.03003.
# * M. S. Albergo, E. Vanden-Eijnden. *Building Normalizing Flows with Stochastic Interpolants*. arXiv 2209.15571.
# * A. Tong et al. *Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport*. arXiv 2302.00482.
# * A.-A. Pooladian et al. *Multisample Flow Matching: Straightening Flows with Minibatch Couplings*. arXiv 2304.14772.
# * K. Neklyudov, R. Brekelmans, D. Severo, A. Makhzani. *Action Matching: Learning Stochastic Dynamics from Samples*. arXiv
#   2210.06662.
# * N. Kornilov, P. Mokrov, A. Gasnikov, A. Korotin. *Optimal Flow Matching: Learning Straight Trajectories in Just One Step*.
#   arXiv 2403.13117.
#
# *Software.* POT (Python Optimal Transport), SciPy, scikit-learn, PyTorch. The two photographs ship with scikit-learn.
