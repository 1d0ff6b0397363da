"""Optimal transport on grids, static and dynamic, certified.

Derivatives: none. Densities may require a gradient; what is made of them has no graph.
"""

from dynot_lite._base.rooms import lazily

__getattr__ = lazily(__name__, "operators", "staggered", "certificates", "douglas_rachford", "back_and_forth", "benamou_brenier")
