"""What is right, and what is known to go wrong, in problem set 2: action matching, Hopf–Lax and duality.

Right values come from characteristics, root finding, quadrature, Riccati equations and regression on exact quadrature nodes:
never from the formula that a student is asked for.
"""

from dynot_lite.course.oracle.ps2 import action_matching, duality, entropy, hopf_lax

__all__ = ["CHECKS"]

CHECKS = action_matching.CHECKS | hopf_lax.CHECKS | duality.CHECKS | entropy.CHECKS
