"""Paths between two laws: interpolants X_t, flows of velocities, the continuity equation."""

from dynot_lite._base.rooms import lazily

__getattr__ = lazily(__name__, "interpolants", "flows", "continuity")
