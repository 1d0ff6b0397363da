"""What grading finds out about one submission."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dynot_lite.course.answers import Answer
from dynot_lite.course.oracle.compare import Finding
from dynot_lite.course.submissions import Submission

__all__ = ["Report", "Score"]


@dataclass(frozen=True)
class Score:
    """The points of one part: ``earned`` is None as long as a person has not graded it.

    ``items`` are what its rubric gives points for, each with its points and whether it was found. ``changed`` says that there is
    a mark, but for another answer: it does not count until a person confirms it.
    """

    part: str
    earned: float | None
    findings: tuple[Finding, ...] = ()
    visible: str = ""
    comment: str = ""
    items: tuple[tuple[str, float, bool], ...] = ()
    changed: bool = False


@dataclass(frozen=True)
class Report:
    """How the grading of one submission went; ``cells`` has the errors of cells, ``seconds`` its wall-clock time.

    ``answers`` has those to the parts that a person grades.
    """

    submission: Submission
    status: str
    message: str
    scores: tuple[Score, ...]
    cells: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0
    answers: Mapping[str, Answer] = field(default_factory=dict)

    @property
    def points(self) -> float:
        """The points earned so far."""
        return sum(score.earned or 0.0 for score in self.scores)

    @property
    def pending(self) -> list[str]:
        """The parts that a person still has to grade, or to look at again because the answer is not the one that was graded."""
        return [f"{one.part} (changed)" if one.changed else one.part for one in self.scores if one.earned is None]
