"""Laws in the plane, real data, and the pairs of the Wasserstein-2 benchmark."""

from dynot_lite._base.rooms import lazily

__getattr__ = lazily(__name__, "toy", "samplers", "images", "files", "mnist", "w2_benchmark")
