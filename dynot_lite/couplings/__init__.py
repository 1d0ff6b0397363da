"""Pairs of points and plans: of batches, of noise and a data set, on lines, amortised."""

from dynot_lite._base.rooms import lazily

__getattr__ = lazily(__name__, "plans", "batches", "search", "semidiscrete", "conditional", "distributed", "sliced", "amortized")
