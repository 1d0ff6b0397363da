"""Course work: problem sets that are released to students and graded in isolation.

A problem set is a solved notebook in nbgrader's conventions (``notebooks/assignments/PS1_*.py``) and one module or package of
:mod:`dynot_lite.course.oracle`. The student's version is made from the notebook; the points of the automatic parts come from
values that a submission's isolated process returns and that this process compares with the oracle.
"""

from dynot_lite._base.rooms import lazily

__getattr__ = lazily(
    __name__,
    *("answers", "assignment", "byhand", "cli", "deadlines", "exports", "feedback", "grade", "intake", "marks", "oracle"),
    *("outputs", "practice", "recovery", "regrade", "rendering", "reports", "roster", "sandbox", "submissions", "tables"),
    "texts",
)
