"""Pairs of points and plans: of batches, of noise and a data set, on lines, amortised.

Derivatives, first ones. "None": integers, numbers and plans that have no graph, whatever they were made of. "Refused": what
requires a gradient raises a ValueError, since it would be cut off. Results that are Python numbers have none.

===============================================  ==========================================================================
function                                         derivatives
===============================================  ==========================================================================
sorted_pairs, exact_pairs, entropic_pairs        none: indices
independent, exact, entropic, in_blocks          exact in the points drawn, which pairs hold as they are
from_plan                                        x0, x1, conditions: exact; plan: none
exact_plan, entropic_plan, sample_plan           none
nearest_map, cell_map                            x0, x1, epsilon: refused; x: none without epsilon, exact with it
entropic_map                                     x0, x1, epsilon: refused; x: exact
optimal_potentials                               refused
SemidiscreteCoupling                             points, weights, epsilon: refused; assign: none; c_transform: x refused
ClassCouplings, JointCoupling                    points, conditions, beta: refused
prepare, PairList                                none
ExactFlow.velocity, ExactFlow.score              x, t: exact
potentials_1d                                    refused
w2_squared_1d                                    x0, x1: exact, undefined where points of one sample coincide; weights: refused
w2_squared_sliced                                x0, x1, directions: exact, undefined as on the line; weights: refused
squared_cost                                     exact, where points coincide, too
c_transform                                      exact, undefined where the minimum is attained twice
soft_c_transform                                 cost, potential, weights: exact, where these are zero, too; epsilon: refused
sphere_points, stereographic                     exact (stereographic: undefined at the cap of the pole)
geodesic_cost                                    exact, undefined at antipodes
semidual, predict_from                           potential0, cost, x0, x1: exact (numbers: none); weights, epsilon: refused
RegressionAmortization, ObjectiveAmortization    directions: refused; of a problem refused, too; fit: none
pair_sampler                                     exact in the points drawn
===============================================  ==========================================================================
"""

from dynot_lite._base.rooms import lazily

__getattr__ = lazily(
    __name__, "plans", "maps", "batches", "atoms", "search", "certificate", "ascent", "indexed", "semidiscrete", "exact_flow",
    "prepared", "conditional", "distributed", "sliced", "amortized",
)  # fmt: skip
