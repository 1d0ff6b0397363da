"""Laws with closed forms: Gaussians and mixtures."""

from dynot_lite._base.rooms import lazily

__all__ = ["gaussian", "mixtures"]
__getattr__ = lazily(__name__, __all__)
