"""Brenier potentials and the three losses of one problem: semi-dual, action matching, optimal flow matching."""

from dynot_lite._base.rooms import lazily

__getattr__ = lazily(__name__, "convex", "conjugates", "descent", "dual", "action_matching", "optimal_flow_matching")
