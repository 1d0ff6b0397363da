"""What grading finds out about one submission."""

from dataclasses import dataclass

from dynot_lite.course.deadlines import Lateness
from dynot_lite.course.oracle.compare import Finding
from dynot_lite.course.roster import Person
from dynot_lite.course.submissions import Submission

__all__ = ["GRADED", "Report", "Score"]

# A submission that was stopped half-way is graded too: the answers that it gave before count.
GRADED = ("finished", "failed", "time", "memory", "output")


@dataclass(frozen=True)
class Score:
    """The points of one part: ``earned`` is None as long as nobody has graded it."""

    part: str
    earned: float | None
    findings: tuple[Finding, ...] = ()
    visible: str = ""
    comment: str = ""


@dataclass(frozen=True)
class Report:
    """How the grading of one submission went.

    Attributes:
        status: one of ``GRADED``, or why nothing was graded: "unreadable", "not recognised", "other set", "not used" (another
            file of the same student counts), "missing", "refused" (by the sandbox) or "error" (of ours).
        message: the reason, in words.
        scores: of every part of the problem set, in order.
        cells: the errors of cells, by their names.
        seconds: wall-clock time.
        person: the row of the roster.
        late: when it was handed in, and what that costs.
        notes: what the lecturer should know although the submission is graded.
        unwritten: whether its page of feedback or its row of points could not be written.
    """

    submission: Submission
    status: str
    message: str
    scores: tuple[Score, ...]
    cells: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0
    person: Person | None = None
    late: Lateness | None = None
    notes: tuple[str, ...] = ()
    unwritten: bool = False

    @property
    def graded(self) -> bool:
        """Whether the points are a verdict: those of a submission that was not graded are not 0, they are unknown."""
        return self.status in GRADED

    @property
    def points(self) -> float:
        """The points earned so far."""
        return sum(score.earned or 0.0 for score in self.scores)

    @property
    def total(self) -> float:
        """The points less what lateness costs."""
        return round(self.points * (1 - self.late.percent / 100), 2) if self.late else self.points

    @property
    def pending(self) -> list[str]:
        """The parts that a person still has to grade."""
        return [score.part for score in self.scores if score.earned is None] if self.graded else []
