"""Paths between two laws: interpolants X_t, flows of velocities, the continuity equation."""

from dynot_lite._base.rooms import lazily

__all__ = ["interpolants", "flows", "continuity"]
__getattr__ = lazily(__name__, __all__)
