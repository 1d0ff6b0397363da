"""What grading finds out about one submission."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dynot_lite.course.answers import Answer
from dynot_lite.course.deadlines import Lateness
from dynot_lite.course.oracle.compare import Finding
from dynot_lite.course.roster import Person
from dynot_lite.course.submissions import Submission

__all__ = ["GRADED", "Report", "Score"]

# A submission that was stopped half-way is graded too: the answers that it gave before count.
GRADED = ("finished", "failed", "time", "memory", "output")


@dataclass(frozen=True)
class Score:
    """The points of one part: ``earned`` is None as long as nobody has graded it.

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
        answers: those to the parts that a person grades.
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
    answers: Mapping[str, Answer] = field(default_factory=dict)

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
        """The parts that a person still has to grade, or to look at again because the answer is not the one that was graded."""
        waiting = [f"{one.part} (changed)" if one.changed else one.part for one in self.scores if one.earned is None]
        return waiting if self.graded else []
