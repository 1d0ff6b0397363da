"""What grading finds out about one submission."""

from dataclasses import dataclass

from dynot_lite.course.oracle.compare import Finding
from dynot_lite.course.submissions import Submission

__all__ = ["Report", "Score"]


@dataclass(frozen=True)
class Score:
    """The points of one part: ``earned`` is None as long as a person has not graded it."""

    part: str
    earned: float | None
    findings: tuple[Finding, ...] = ()
    visible: str = ""
    comment: str = ""


@dataclass(frozen=True)
class Report:
    """How the grading of one submission went; ``cells`` has the errors of cells, ``seconds`` its wall-clock time."""

    submission: Submission
    status: str
    message: str
    scores: tuple[Score, ...]
    cells: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0

    @property
    def points(self) -> float:
        """The points earned so far."""
        return sum(score.earned or 0.0 for score in self.scores)

    @property
    def pending(self) -> list[str]:
        """The parts that a person still has to grade."""
        return [score.part for score in self.scores if score.earned is None]
