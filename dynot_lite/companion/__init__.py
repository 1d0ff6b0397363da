"""What makes the notebooks a companion: the ledger of claims, the runner, the notebook checks and the command line."""

from dynot_lite.companion.figures import show
from dynot_lite.companion.ledger import claim, skip, start

__all__ = ["claim", "show", "skip", "start"]
