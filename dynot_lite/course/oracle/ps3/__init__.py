"""What is right, and what is known to go wrong, in problem set 3: couplings, semidiscrete and sliced transport.

Right values come from linear programs, ordinary differential equations, quadrature in other variables, whitening, or automatic
differentiation: never from the formula that a student is asked for.
"""

from dynot_lite.course.oracle.ps3 import couplings, semidiscrete, sliced

__all__ = ["CHECKS"]

CHECKS = couplings.CHECKS | semidiscrete.CHECKS | sliced.CHECKS
