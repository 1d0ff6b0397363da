"""Networks, one training loop, and the losses of flow matching and mean flow."""

from dynot_lite._base.rooms import lazily

__getattr__ = lazily(__name__, "networks", "training", "flow_matching", "mean_flow", "fields")
