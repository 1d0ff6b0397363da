"""Laws in the plane, real data, and the pairs of the Wasserstein-2 benchmark."""

from dynot_lite._base.rooms import lazily

__all__ = ["toy", "images", "files", "w2_benchmark"]
__getattr__ = lazily(__name__, __all__)
