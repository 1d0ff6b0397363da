"""What a solve or fit returns."""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, eq=False, kw_only=True)
class Result:
    """What was found, and whether it is what was asked for.

    Attributes:
        converged: whether the tolerance was met.
        reason: why the solver stopped, in words.
    """

    converged: bool
    reason: str

    def require(self) -> Self:
        """This result, if converged; raises RuntimeError with the reason if not."""
        if not self.converged:
            raise RuntimeError(f"not converged: {self.reason}")
        return self
