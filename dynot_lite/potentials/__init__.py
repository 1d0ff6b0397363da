"""Brenier potentials and the three losses of one problem: semi-dual, action matching, optimal flow matching; and other costs.

Derivatives, first ones. "None": the result has no graph. "Refused": what requires a gradient raises a ValueError, since it would
be cut off. The parameters are those of the potential, or of the action.

==================================  =============  ===============================================
function                            points, times  parameters, and the rest
==================================  =============  ===============================================
Quadratic, LogSumExp, ICNN                         matrix, offset and all numbers: refused
forward, gradient                   exact          exact
hessian, hessian_product            exact          exact
flow, inverse_flow                  exact          exact
conjugate, value                    exact          exact
conjugate, maximiser                none           none: use inverse_flow at t = 1
solve, curvature                    none           none
OptimalAction.value                 exact          exact; t = 0: undefined in t
OptimalAction.velocity              exact          exact
OptimalAction.time_derivative       exact          exact
AutodiffAction.value                exact          exact
AutodiffAction.velocity             exact          exact
AutodiffAction.time_derivative      exact          exact
laplacian                           exact          exact
semidual_loss, ofm_loss             exact          exact
action_matching_loss, action_gap    exact          exact; quadrature: exact
entropic_action_matching_loss       exact          exact; quadrature: exact; sigma: refused
unbalanced_action_matching_loss     exact          exact; quadrature: exact
snapshot_loss                       exact          exact
SchroedingerAction.value            exact          exact: those of the mixture; sigma: refused
SchroedingerAction.velocity         exact          exact: those of the mixture
SchroedingerAction.time_derivative  exact          exact: those of the mixture
SchroedingerAction.mean             exact          exact: those of the mixture
SchroedingerAction.sample           none           none
dual_loss                           exact          exact: those of the mixture
PolyhedralAction.value              exact          exact: slopes, heights; t = 0: undefined in t
PolyhedralAction.velocity           exact          exact: slopes, heights; none at the rims of fans
PolyhedralAction.time_derivative    exact          exact: slopes, heights; none at the rims of fans
SeparableAction.value               exact          exact: centres and coefficients; width: refused
SeparableAction.velocity            exact          exact: centres and coefficients
SeparableAction.time_derivative     exact          exact: centres and coefficients
mixture_path, unrestricted_action   refused        refused: times
held_out_loss                       refused        refused: times
PowerCost                                          matrix, p: refused
PowerCost.value                     exact
PowerCost.gradient                  exact          infinite at 0 for p < 2
PowerCost.conjugate                 exact
PowerCost.displacement              exact          infinite at 0 for p > 2
PowerCost.pairwise                  none
hopf_lax, value                     exact          exact; t = 0: undefined in t
hopf_lax, argmin                    none           none
optimal_map                         exact          exact
certificate, endpoint_mismatch      none: numbers  none
lower_bound                         none: numbers  none
fit                                 none           none
==================================  =============  ===============================================
"""

from dynot_lite._base.rooms import lazily

__getattr__ = lazily(
    __name__,
    *("convex", "conjugates", "descent", "hopf_lax", "dual", "action_matching", "optimal_flow_matching"),
    *("polyhedral", "schroedinger", "snapshots", "costs", "bounds"),
)
