"""What stands below the heading of each part of a problem set, and the table of the students' page: both of one table of data.

``python tests/course/part_headings.py`` writes them: run it after a change of points, of a rubric or of ``reading.toml``.
"""

import re
import tomllib
from dataclasses import dataclass

from dynot_lite.course.assignment import folder, load, names

FOLDER = folder()
STUDENTS = FOLDER / "STUDENTS.md"
BEGIN, END = "<!-- parts:begin (python tests/course/part_headings.py) -->", "<!-- parts:end -->"
# An item of a rubric: points, and the label that they count for: (a), figure, ...
ITEM = re.compile(r"^(?:# )?(\d+(?:\.5)?): (\(\w\)|\w+(?=:))(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    """A row of the table: minutes, difficulty (1 to 3), the notebook and sections to read first, others that name the part."""

    minutes: int
    difficulty: int
    read: str
    sections: list[int]
    also: tuple[str, ...] = ()


def table() -> dict[str, dict[str, Entry]]:
    """The table of data by problem set and number of the part."""
    data = tomllib.loads((FOLDER / "reading.toml").read_text(encoding="utf-8"))
    return {name: {part: Entry(**entry) for part, entry in parts.items()} for name, parts in data.items()}


def story(number: str) -> str:
    """The name of the notebook with this number: that of a story (05), or of proofs (proofs/07)."""
    (path,) = FOLDER.parent.glob(f"{number}_*.py")
    return path.relative_to(FOLDER.parent).with_suffix("").as_posix()


def section(number: str, k: int) -> str:
    """The title of a section of a notebook."""
    return re.search(rf"^# ## {k}\. (.+)$", (FOLDER.parent / f"{story(number)}.py").read_text(encoding="utf-8"), re.MULTILINE)[1]


def rubric(source: str) -> list[tuple[float, str, str]]:
    """The items of the rubric in a solution: points, what they count for, and what must be there."""
    found = re.search(r"^### BEGIN RUBRIC\n(.*?)^### END RUBRIC", source, re.MULTILINE | re.DOTALL)
    return [(float(points), label, text.lstrip(": ")) for points, label, text in ITEM.findall(found[1])] if found else []


def lines_of(part, entry: Entry, source: str) -> str:
    """The two paragraphs below the heading of a part, whose graded cell has this source."""
    shares: dict[str, float] = {}
    for points, label, _ in rubric(source):
        shares[label] = shares.get(label, 0) + points
    share = ", ".join(f"{label} {points:g}" for label, points in shares.items())
    by = f"by a person: {share}" if part.manual else "automatically"
    where = ", and ".join(f"{k}, “{section(entry.read, k)}”" for k in entry.sections)
    link = f"[{story(entry.read)}](../{story(entry.read)}.ipynb)"
    plural = "s" if len(entry.sections) > 1 else ""
    return (
        f"*{part.points:g} points, graded {by}. About {entry.minutes} minutes, difficulty {entry.difficulty} of 3.*\n\n"
        f"Read first: {link}, section{plural} {where}."
    )


def expected(name: str) -> dict[str, str]:
    """These paragraphs for every part of a problem set, by number."""
    problems, entries = load(name), table()[name]
    sources = {cell.metadata.get("nbgrader", {}).get("grade_id"): cell.source for cell in problems.notebook.cells}
    return {part.id.split("-")[1]: lines_of(part, entries[part.id.split("-")[1]], sources[part.id]) for part in problems.parts}


def students_table() -> str:
    """The table of the students' page."""
    rows = ["| part | asks for | points | minutes | difficulty | read first |", "|---|---|---|---|---|---|"]
    for name in names():
        for part in load(name).parts:
            number = part.id.split("-")[1]
            entry = table()[name][number]
            sections = f"section{'s' if len(entry.sections) > 1 else ''} {' and '.join(map(str, entry.sections))}"
            where = f"[{entry.read}](../{story(entry.read)}.ipynb), {sections}"
            rows.append(f"| {name}, {number} | {part.title} | {part.points:g} | {entry.minutes} | {entry.difficulty} | {where} |")
    return "\n".join(rows) + "\n"


def refreshed(text: str) -> str:
    """The students' page with the table of today between its two marks."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{students_table()}{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    for name in names():
        path = load(name).path
        source = path.read_text(encoding="utf-8")
        for number, lines in expected(name).items():
            commented = "".join(f"# {line}".rstrip() + "\n" for line in lines.split("\n"))
            old = rf"(^# ## Part {number}\. .+\n#\n)# \*\d+ points[^*]*\*\n#\n(?:# Read first: .+\n#\n)?"
            source, count = re.subn(old, lambda found: f"{found[1]}{commented}#\n", source, flags=re.MULTILINE)
            assert count == 1, f"{name}, part {number}: its heading has another form"
        path.write_text(source, encoding="utf-8", newline="\n")
    STUDENTS.write_text(refreshed(STUDENTS.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
