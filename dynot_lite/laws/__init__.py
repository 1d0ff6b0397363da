"""Laws with closed forms: Gaussians and mixtures."""

from dynot_lite._base.rooms import lazily

__getattr__ = lazily(__name__, "linear_algebra", "gaussian", "mixtures")
