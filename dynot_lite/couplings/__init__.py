"""Pairs of points and plans: of batches, of noise and a data set, on lines, amortised."""

from dynot_lite._base.rooms import lazily

__getattr__ = lazily(
    __name__, "plans", "maps", "batches", "atoms", "search", "certificate", "ascent", "indexed", "semidiscrete", "exact_flow",
    "prepared", "conditional", "distributed", "sliced", "amortized",
)  # fmt: skip
