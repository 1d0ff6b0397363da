"""Paths between two laws: interpolants X_t, flows of velocities, the continuity equation.

Derivatives. "None": the result has no graph. "Refused": what requires a gradient raises a ValueError, since it would be cut off.

=================================  =====================================  ==================
function                           points, and what the velocity holds    times and the rest
=================================  =====================================  ==================
Interpolant.at                     exact                                  t: exact
Interpolant.coefficients                                                  t: exact
integrate, trajectory              exact, of the steps that are taken     t0, t1: refused
integrate_adaptive                 x0: refused; the velocity: none        t0, t1: refused
divergence, hutchinson_divergence  exact                                  t: exact
log_prob                           exact, of the steps; log_prob0: exact  t0, t1: refused
weak_residual, kinetic_energy      none: numbers                          none
strong_residual                    x: refused; density, velocity: none    t: refused
path_quadrature                    as the law's
box_quadrature                     centre, and what the law holds: exact  radius: refused
bump                               t, x, centre: exact                    radius: refused
gauss_legendre                                                            none
=================================  =====================================  ==================
"""

from dynot_lite._base.rooms import lazily

__getattr__ = lazily(__name__, "interpolants", "flows", "continuity")
