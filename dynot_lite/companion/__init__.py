"""What makes the notebooks a companion: the ledger of claims, the runner, the record, the notebook checks."""

from dynot_lite._base.rooms import lazily

try:
    from dynot_lite.companion.figures import show, show_table, slide
except ModuleNotFoundError as error:
    raise ImportError(f"dynot_lite.companion needs {error.name}: install dynot_lite[notebooks]") from error
from dynot_lite.companion.ledger import claim, say, skip, start
from dynot_lite.companion.numerics import largest, smallest, worst

__all__ = ["claim", "largest", "say", "show", "show_table", "skip", "slide", "smallest", "start", "worst"]
__getattr__ = lazily(
    __name__,
    *("answers", "benchmark", "book", "errata", "figures", "ledger", "notation", "notebooks", "numerics"),
    *("origin", "paper", "processes", "record", "runner", "stored", "table"),
)
