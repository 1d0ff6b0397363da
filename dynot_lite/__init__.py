"""Executable companion to texts on dynamic optimal transport, flow matching and action matching.

Conventions (nowhere contradicted):

========================  ==============================================================================================
object                    convention
========================  ==============================================================================================
cost                      c(x, y) = ½‖x − y‖²; ``w2_squared`` is W₂² *without* the ½, so W₂² = 2 min E c
points, times             ``x0, x1`` are (n, ...): points (n, d), or images (n, c, h, w) wherever a method needs no vectors;
                          ``t`` a float or (n,); the order is (t, x), x0 before x1, ``weights0, weights1``;
                          a velocity is any callable v(t, x) of the shape of x
coupled Gaussians         ``cross_cov`` = Cov(X0, X1), shape (d, d), not symmetric in general; the notes' Σ₀₁ is Cov(X₁, X₀),
                          its transpose
kinetic energy            ∫E‖v_t(X_t)‖² dt, without ½
Brenier potential         Ψ convex, ∇Ψ pushes p0 to p1; Ψ* its conjugate; L_OT(Ψ) = E_p0 Ψ + E_p1 Ψ*
optimal action            s_t = Hopf–Lax of s_0 = Ψ − ½‖·‖²; ∂_t s + ½‖∇s‖² = 0; u_t = ∇s_t
action matching loss      L_AM(s) = E_p0 s_0 − E_p1 s_1 + ∫E_pt[∂_t s + ½‖∇s‖²] dt
optimal flow matching     no ½: L_OFM(Ψ) = 2 L_OT(Ψ) − 2 E_π⟨x0, x1⟩
entropic transport        E c + ε KL(π ‖ p0⊗p1), with the ½ in c; the bridge of variance σ² has ε = σ²
semidiscrete transport    maximise E min_j (c(x, y_j) − g_j) + ⟨b, g⟩; the cell of y_j has mass b_j
randomness                ``generator=`` on everything random, never a global seed; numbers are drawn where the generator
                          lives and moved to the device of the data
dtype, device             float64 for closed forms and proofs, float32 for training; dtype and device follow the data
solving                   data first, then keyword-only options of one vocabulary (CONTRIBUTING.md); what can fail to converge
                          has ``converged``, ``reason`` and ``require()``
========================  ==============================================================================================

Each folder is a noun of the theory and imports only from those before it: ``paths``, ``laws``, ``grids``, ``couplings``,
``potentials``, ``matching``, ``datasets``, then ``metrics`` and ``plots``, ``companion``, ``course``, ``train`` and ``cli``.
"""

from dynot_lite._base.rooms import lazily

__version__ = "0.2.0"
__getattr__ = lazily(
    __name__,
    "paths",
    "laws",
    "grids",
    "couplings",
    "potentials",
    "matching",
    "datasets",
    "metrics",
    "plots",
    "companion",
    "course",
    "train",
    "cli",
)
