"""The errata of the five texts, as data: one entry per printed line, graded, with what to read instead and why.

The entries are in ``errata.toml``. Notebooks show one with :func:`box`, or all of a text with :func:`table`, so that grade and
wording cannot drift; ``figures/errata.md`` is :func:`sheet`.
"""

import functools
import importlib.metadata
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from IPython.display import Markdown, display

from dynot_lite.companion import ledger

__all__ = ["GRADES", "TEXTS", "Erratum", "box", "markdown", "parse", "read", "sheet", "table", "words", "write"]

# What a grade means, and what a reader should do.
GRADES = {
    "false": ("wrong as printed; the repair changes a formula or a statement", "do not use the printed line"),
    "gap": ("a hypothesis or a step of the proof is missing; with it, the conclusion stands", "add the hypothesis"),
    "imprecise": ("right in the reading that the context suggests, wrong in another natural one", "read it with the qualifier"),
    "typo": ("a slip that no reader would compute with", "none"),
}
TEXTS = {
    "notes": "the lecture notes *Dynamic Optimal Transport and Flow Matching*",
    "action matching, summary": "a summary page of arXiv 2510.27385",
    "action matching, review": "a review of arXiv 2510.27385",
    "amortised, summary": "a summary page of arXiv 2604.15114",
    "semidiscrete, summary": "a summary page of arXiv 2509.25519",
}
ASKED = {"false": "Correct", "gap": "Add", "imprecise": "Read", "typo": "Read"}
LONGEST = 25  # words of a quotation
DATA = Path(__file__).with_name("errata.toml")
SHEET = Path("figures", "errata.md")


@dataclass(frozen=True)
class Erratum:
    """A printed line that should be read otherwise."""

    id: str
    text: str  # one of TEXTS
    place: str
    grade: str  # one of GRADES
    printed: str  # a quotation, "…" where something is left out
    corrected: str
    claims: tuple[str, ...]  # what denies the printed line, or makes the counter-example
    proof: str  # NOTEBOOK, section k
    counter_example: str = ""
    withdrawn: str = ""  # why it is none after all

    @property
    def anchor(self) -> str:
        """Its place in the sheet."""
        return self.id.lower()

    @property
    def notebook(self) -> str:
        """The name of the notebook that discusses it."""
        return self.proof.split(",")[0]

    @property
    def section(self) -> str:
        """The number of the section that discusses it."""
        return self.proof.split("section ")[1]


@functools.cache
def read() -> dict[str, Erratum]:
    """All entries by identifier, in the order of the texts."""
    return parse(DATA.read_text(encoding="utf-8"))


def parse(data: str) -> dict[str, Erratum]:
    """The entries of a TOML document, one table each.

    Raises ValueError naming the entry for a malformed identifier, an unknown or missing key, text or grade, a quotation of more
    than 25 words, and, if its grade is false or gap, an entry without a claim or a counter-example.
    """
    return {identifier: _entry(identifier, fields) for identifier, fields in tomllib.loads(data).items()}


def _entry(identifier: str, fields: dict[str, Any]) -> Erratum:
    if not re.fullmatch(r"[A-Z]+-\d\d", identifier):
        raise ValueError(f"{identifier!r} is not an identifier such as N-03")
    needed = {"text", "place", "grade", "printed", "corrected", "claims", "proof"}
    unknown, missing = set(fields) - needed - {"counter_example", "withdrawn"}, needed - set(fields)
    if unknown or missing:
        raise ValueError(f"{identifier} has unknown keys {sorted(unknown)}, lacks {sorted(missing)}")
    for key, value in fields.items():
        if key != "claims" and (not isinstance(value, str) or not value.strip() or "\n" in value):
            raise ValueError(f"{identifier} needs one line of text as {key}, got {value!r}")
    if not isinstance(fields["claims"], list) or not all(isinstance(name, str) for name in fields["claims"]):
        raise ValueError(f"{identifier} needs a list of identifiers as claims, got {fields['claims']!r}")
    for key, known in (("text", TEXTS), ("grade", GRADES)):
        if fields[key] not in known:
            raise ValueError(f"{identifier} has {key} {fields[key]!r}, not one of {list(known)}")
    if not re.fullmatch(r"[\w/]+, section \d+(?:\.\d+)?", fields["proof"]):
        raise ValueError(f"{identifier} needs NOTEBOOK, section K as proof, got {fields['proof']!r}")
    if (length := words(fields["printed"])) > LONGEST:
        raise ValueError(f"{identifier} quotes {length} words, more than {LONGEST}")
    if fields["grade"] in ("false", "gap") and not (fields["claims"] and fields.get("counter_example")):
        raise ValueError(f"{identifier} is graded {fields['grade']} and needs a claim and a counter-example")
    return Erratum(id=identifier, **{**fields, "claims": tuple(fields["claims"])})


def words(text: str) -> int:
    """The number of words of a text, a formula counting as one."""
    return len(re.sub(r"\$[^$]*\$", " formula ", text).replace("…", " ").split())


# ---------------------------------------------------------------------------------------------------------- in notebooks


def box(identifier: str) -> None:
    """Display an entry in a notebook: what is printed, what to read, the smallest counter-example, and its claims."""
    display(Markdown(markdown(identifier, str(ledger._session["notebook"] or ""))))


def markdown(identifier: str, notebook: str) -> str:
    """The box of an entry in ``notebook``, which may also stand in a cell of text; raises KeyError for an unknown entry."""
    if identifier not in read():
        raise KeyError(f"{identifier} is not among the errata")
    entry = read()[identifier]
    if entry.withdrawn:
        raise KeyError(f"{identifier} is withdrawn: {entry.withdrawn}")
    lines = [f"**Erratum {identifier} ({entry.grade}).** {_place(entry)}: “{entry.printed}”."]
    lines.append(f"*{ASKED[entry.grade]}:* {entry.corrected}.")
    lines += [f"*Smallest counter-example:* {entry.counter_example}."] if entry.counter_example else []
    lines[-1] += f" ({'; '.join([*_joined(entry.claims), _link('the sheet', entry, notebook)])})"
    return "\n>\n".join(f"> {line}" for line in lines)


def table(of: str = "") -> None:
    """Display all entries of a text (all entries, if none is named) as a table. Raises KeyError for an unknown text."""
    if of and of not in TEXTS:
        raise KeyError(f"{of!r} is not one of {list(TEXTS)}")
    entries = [entry for entry in read().values() if of in ("", entry.text) and not entry.withdrawn]
    rows = ["| entry | grade | place | printed | read | claims |", "|---|---|---|---|---|---|"]
    for entry in entries:
        link = _link(entry.id, entry, str(ledger._session["notebook"] or ""))
        row = (link, entry.grade, entry.place, f"“{entry.printed}”", entry.corrected, ", ".join(entry.claims) or "–")
        rows.append("| " + " | ".join(_cell(part) for part in row) + " |")
    display(Markdown("\n".join(rows)))


def _place(entry: Erratum) -> str:
    name = "Notes" if entry.text == "notes" else f"{entry.text[0].upper()}{entry.text[1:]}"
    return f"{name}, *{entry.place}*"


def _joined(claims: Sequence[str]) -> list[str]:
    return [", ".join(claims)] if claims else []


def _link(shown: str, entry: Erratum, notebook: str) -> str:
    """To the sheet, from a notebook: a story is one folder deep, proofs and problem sets are two."""
    deep = 2 if notebook.startswith(("proofs/", "PS")) else 1
    return f"[{shown}]({'../' * deep}{SHEET.as_posix()}#{entry.anchor})"


def _cell(content: str) -> str:
    """In a table a bar would end the cell: in formulas it has another name."""
    return content.replace(r"\|", r"\Vert ").replace("|", r"\vert ")


# ------------------------------------------------------------------------------------------------------------ the sheet


def sheet() -> str:
    """The text of ``figures/errata.md``: totals, how to cite, a table of all entries, and one heading per entry."""
    entries = read()
    counted = {name: [entry.grade for entry in entries.values() if entry.text == name and not entry.withdrawn] for name in TEXTS}
    lines = ["# Errata", ""]
    lines += ["What the five texts should say instead: the printed line, what to read, the smallest counter-example, and the"]
    lines += ["claims of the notebooks that show it. Written by `python3 run.py claims --write` from `errata.toml`.", ""]
    lines += ["| text | " + " | ".join(GRADES) + " |", "|---|" + "---|" * len(GRADES)]
    for name, found in counted.items():
        lines.append(f"| {TEXTS[name]} | " + " | ".join(str(found.count(grade)) for grade in GRADES) + " |")
    every = [grade for found in counted.values() for grade in found]
    lines += ["| **all** | " + " | ".join(f"**{every.count(grade)}**" for grade in GRADES) + " |", ""]
    lines += ["| grade | meaning | what to do |", "|---|---|---|"]
    lines += [f"| **{grade}** | {meaning} | {todo} |" for grade, (meaning, todo) in GRADES.items()]
    lines += ["", "**How to cite.** Entries keep their identifiers for good; a withdrawn one stays, with the reason."]
    version = importlib.metadata.version("dynot_lite")
    lines += [f"Cite as: dynot_lite, Errata, entry N-13, version {version}.", ""]
    lines += ["| entry | grade | text | place |", "|---|---|---|---|"]
    lines += [
        f"| [{entry.id}](#{entry.anchor}) | {'withdrawn' if entry.withdrawn else entry.grade} | {entry.text} | {entry.place} |"
        for entry in entries.values()
    ]
    lines.append("")
    for name, title in TEXTS.items():
        if own := [entry for entry in entries.values() if entry.text == name]:
            lines += [f"## {title[0].upper()}{title[1:]}", ""]
            lines += [line for entry in own for line in _section(entry)]
    return "\n".join(lines)


def _section(entry: Erratum) -> list[str]:
    if entry.withdrawn:
        return [f"### {entry.id}", "", f"Withdrawn: {entry.withdrawn}", ""]
    parts = [f"**{entry.grade}** · *{entry.place}*", f"- printed: “{entry.printed}”"]
    parts.append(f"- {ASKED[entry.grade].lower()}: {entry.corrected}")
    parts += [f"- smallest counter-example: {entry.counter_example}"] if entry.counter_example else []
    folder = "../notebooks/" + (f"assignments/{entry.notebook}" if entry.notebook.startswith("PS") else entry.notebook)
    parts.append(f"- claims: {', '.join(entry.claims) or '–'}; discussed in [{entry.proof}]({folder}.ipynb)")
    return [f"### {entry.id}", "", parts[0], "", *parts[1:], ""]


def write(home: Path) -> Path:
    """Write the sheet of the clone ``home``, and return it."""
    path = home / SHEET
    path.parent.mkdir(exist_ok=True)
    path.write_text(sheet(), encoding="utf-8", newline="\n")
    return path
