"""The form of a story: what its sources may look like, as rules that each return complaints. From the command line with names:
``python tests/story_form.py 03_flow_matching`` prints sizes and complaints.

A story is a notebook for reading: a question, a hero picture, four to seven sections with a guess, a cell to copy, a picture and
the number in words, and an end that answers. Its proofs have the same name in ``notebooks/proofs``.
"""

import ast
import builtins
import math
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nbformat import NotebookNode
from PIL import Image

from dynot_lite.companion import errata, ledger, notebooks
from dynot_lite.companion.ledger import Claim

ROOT = Path(__file__).resolve().parents[1]
RUNS = "DYNOT_RUNS"  # a folder of executed notebooks, such as build/full/notebooks, whose outputs stand for the stored ones

WORDS, LINES = 1800, 250  # in all
FIRST_WORDS, FIRST_LINES = 300, 30  # before the first picture is drawn, without parameters, installation and imports
LONGEST_CELL, LONGEST_COPY, LONGEST_FUNCTION, LONGEST_DRAWING = 25, 10, 5, 15
SECTIONS, GUESSES, CHANGES, CLAIMS = (4, 7), 3, 2, 8
BYTES, FRAMES, WIDTH = 400_000, 40, 480
ENDS = ["What to remember", "Change this", "Problems", "Proofs and limits"]
CONSTANTS = {"0.5", "1.5", "0.25"}  # halves and a quarter may be named without being printed
DRAWN = re.compile(r"\b(?:show|slide)\(")
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
INSTALL = """\
# Where the package is absent (a hosted notebook): install it, from the clone around this notebook or from the index.
import importlib.util
import subprocess
import sys
from pathlib import Path

if importlib.util.find_spec("dynot_lite") is None:
    source = ".." if Path("../pyproject.toml").exists() else "dynot_lite[notebooks]"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", source], check=True)"""


@dataclass
class Story:
    """A story in ``home``, by its sources."""

    name: str
    home: Path = ROOT

    @cached_property
    def cells(self) -> list[NotebookNode]:
        """Its cells, without outputs."""
        return notebooks.read_source(self.home / "notebooks" / f"{self.name}.py").cells

    @property
    def number(self) -> str:
        """03, or 05B of 05b_…, a second story of that number: claims are S05B-1 and on."""
        return self.name.split("_")[0].upper()

    @property
    def text(self) -> list[NotebookNode]:
        """The cells of text."""
        return [cell for cell in self.cells if cell.cell_type == "markdown"]

    @property
    def code(self) -> list[NotebookNode]:
        """The cells of code, without parameters and installation."""
        return [cell for cell in self.cells if cell.cell_type == "code" and not {"parameters", "install"} & set(tags(cell))]

    @property
    def prose(self) -> str:
        """All text."""
        return "\n\n".join(cell.source for cell in self.text)

    @property
    def sections(self) -> list[tuple[str, str]]:
        """Heading and text of every section of the second level."""
        parts = re.split(r"^## (.+)$", self.prose, flags=re.MULTILINE)
        return list(zip(parts[1::2], parts[2::2], strict=True))

    @property
    def proof(self) -> Path:
        """Where its proofs are: in the file of its name, or, of a second story of a number, in that of the first."""
        folder = self.home / "notebooks" / "proofs"
        own, first = folder / f"{self.name}.py", sorted(folder.glob(f"{self.name[:2]}_*.py"))
        return first[0] if first and not own.exists() and self.name[2].isalpha() else own

    @cached_property
    def outputs(self) -> list[str] | None:
        """What each cell of code prints in a full run; None if no outputs of this code are at hand."""
        folder = os.environ.get(RUNS)
        path = Path(folder, f"{self.name}.ipynb") if folder else self.home / "notebooks" / f"{self.name}.ipynb"
        if not path.exists():
            return None
        executed = notebooks.read_executed(path)
        if not folder and executed.metadata.get(notebooks.RECORD, {}).get("preset") != "full":
            return None
        ran = [cell for cell in executed.cells if cell.cell_type == "code" and "injected-parameters" not in tags(cell)]
        if [cell.source for cell in ran] != [cell.source for cell in self.cells if cell.cell_type == "code"]:
            return None
        return ["\n".join(_said(output) for output in cell.get("outputs", [])) for cell in ran]


def _said(output: NotebookNode) -> str:
    data = output.get("data", {})
    return output.get("text", "") or data.get("text/markdown", "") or data.get("text/plain", "")


def tags(cell: NotebookNode) -> list[str]:
    """The tags of a cell."""
    return list(cell.metadata.get("tags", []))


def words(text: str) -> int:
    """Words of a text: a formula is one, code and addresses are none."""
    text = re.sub(r"```.*?```", " ", text, flags=re.DOTALL)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"\$\$.*?\$\$|\$[^$]+\$|`[^`]+`", " formula ", text, flags=re.DOTALL)
    return len(re.findall(r"[^\W_](?:[\w'’.,%-]*\w)?", text))


def lines(source: str) -> int:
    """Lines of code that are not empty."""
    return sum(bool(line.strip()) for line in source.splitlines())


def defined(source: str) -> set[str]:
    """The names that code binds at its top level."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def needed(source: str) -> set[str]:
    """The names that code reads and does not bind."""
    tree = ast.parse(source)
    own = defined(source) | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return read - own - set(dir(builtins))


def before_the_first_picture(story: Story) -> tuple[int, int]:
    """Words and lines up to the first picture that the story draws."""
    read = counted = 0
    own = {id(cell) for cell in story.code[1:]}  # the first one imports
    for cell in story.cells:
        if cell.cell_type == "markdown":
            read += words(cell.source)
        elif id(cell) in own:
            counted += lines(cell.source)
            if DRAWN.search(cell.source):
                break
    return read, counted


# ---------------------------------------------------------------------------------------------------------------- rules


def opening(story: Story) -> list[str]:
    """Title, three lines, link to the proofs and back."""
    first = story.cells[0]
    if first.cell_type != "markdown":
        return ["the first cell is no text"]
    found = []
    title = first.source.splitlines()[0]
    if not re.fullmatch(r"# .+\?", title):
        found.append(f"the title is no question: {title}")
    if f"](proofs/{story.proof.stem}.ipynb)" not in first.source:
        found.append(f"the first cell does not link to proofs/{story.proof.stem}.ipynb")
    if not re.search(r"\b(?:minutes?|hour)\b", first.source, re.IGNORECASE):
        found.append("the first cell does not say how many minutes it takes")
    if not story.proof.exists():
        return [*found, f"notebooks/proofs/{story.proof.name} does not exist"]
    if f"](../{story.name}.ipynb)" not in notebooks.read_source(story.proof).cells[0].source:
        found.append(f"the first cell of proofs/{story.proof.stem} does not link back to ../{story.name}.ipynb")
    return found


def hero(story: Story) -> list[str]:
    """The second cell is the hero picture, which the story makes, or one of its proofs does, where that takes too long here."""
    cell = story.cells[1]
    found = PICTURE.fullmatch(re.sub(r"\s*\n\s*", " ", cell.source.strip())) if cell.cell_type == "markdown" else None
    proofs = rf"proofs/{story.name[:2]}[a-z]?_\w+"
    name = found and re.fullmatch(rf"\.\./figures/({story.name}|{proofs})/([a-z0-9_]+)\.(png|gif|jpg)", found[2])
    if not name:
        return [f"the second cell is not ![…](../figures/{story.name}/NAME.png) alone, or of its proofs"]
    maker = story if name[1] == story.name else Story(name[1], story.home)
    if not (maker.home / "notebooks" / f"{maker.name}.py").exists():
        return [f"the hero picture is of a notebook that does not exist: {maker.name}"]
    code = "\n".join(cell.source for cell in maker.code)
    made = f'"{name[2]}.gif"' if name[3] == "gif" else f'"{name[2]}"'
    where = "here" if maker is story else f"in {maker.name}"
    return [] if made in code else [f"the hero picture is not made {where}: {made} is in no cell of code"]


def installation(story: Story) -> list[str]:
    """Parameters, the cell that installs, imports with start, in this order."""
    code = [cell for cell in story.cells if cell.cell_type == "code"]
    found = [] if "parameters" in tags(code[0]) else ["the first cell of code is not that of the parameters"]
    if len(code) < 3 or tags(code[1]) != ["install"] or code[1].source != INSTALL:
        found.append("the second cell of code is not the cell that installs, word for word, tagged install")
    elif f'start("{story.name}", preset=preset, seed=seed)' not in code[2].source:
        found.append(f'the third cell of code does not call start("{story.name}", preset=preset, seed=seed)')
    return found


def outline(story: Story) -> list[str]:
    """Four to seven numbered sections, then the four that end a story, nothing else."""
    names = [heading for heading, _ in story.sections]
    numbered = [name for name in names if re.match(r"\d", name)]
    found = []
    if not SECTIONS[0] <= len(numbered) <= SECTIONS[1]:
        found.append(f"it has {len(numbered)} numbered sections, not {SECTIONS[0]} to {SECTIONS[1]}")
    if [name.split(" ")[0] for name in numbered] != [f"{k}." for k in range(1, len(numbered) + 1)]:
        found.append(f"its sections are not numbered 1., 2., …: {numbered}")
    if names[len(numbered) :] != ENDS:
        found.append(f"it does not end with {ENDS}, but with {names[len(numbered) :]}")
    return found


def guesses(story: Story) -> list[str]:
    """At least three guesses, each before the cell that answers it."""
    found, count = [], 0
    for cell, following in zip(story.cells, [*story.cells[1:], None], strict=True):
        own = re.findall(r"\*\*Guess\.\*\*", cell.source) if cell.cell_type == "markdown" else []
        count += len(own)
        if own and (following is None or following.cell_type != "code"):
            found.append(f"no code follows the guess: {cell.source[cell.source.index('**Guess.**') :][:60]}")
    return found + ([] if count >= GUESSES else [f"it has {count} guesses, fewer than {GUESSES}"])


def changes(story: Story) -> list[str]:
    """At least two changes to try on the way, three at the end."""
    count = len(re.findall(r"\*\*Change this\.\*\*", story.prose))
    end = dict(story.sections).get("Change this", "")
    exercises = len(re.findall(r"^(?:\d+\.|-|\*) ", end, re.MULTILINE))
    return [
        *([] if count >= CHANGES else [f"it has {count} times **Change this.**, fewer than {CHANGES}"]),
        *([] if exercises == 3 else [f"the section “Change this” has {exercises} exercises, not 3"]),
    ]


def ending(story: Story) -> list[str]:
    """Three sentences to remember, parts of problem sets that exist, a link to the proofs."""
    sections, found = dict(story.sections), []
    plain = re.sub(r"\$[^$]+\$|`[^`]+`|\d\.\d", "x", sections.get("What to remember", ""))
    sentences = len(re.findall(r"[.?!](?=\s|$|\*)", re.sub(r"^\d+\. ", "", plain, flags=re.MULTILINE)))
    if sentences != 3:
        found.append(f"“What to remember” has {sentences} sentences, not 3")
    problems = sections.get("Problems", "")
    links = re.split(r"\]\(assignments/(PS\d_\w+)\.ipynb\)", problems)
    if len(links) == 1:
        found.append("“Problems” links to no problem set")
    for name, rest in zip(links[1::2], links[2::2], strict=True):
        path = story.home / "notebooks" / "assignments" / f"{name}.py"
        if not path.exists():
            found.append(f"there is no problem set {name}")
            continue
        existing = set(re.findall(r"^# ## Part (\d+)\.", path.read_text(encoding="utf-8"), re.MULTILINE))
        named = re.findall(r"\d+", re.sub(r"\([^)]*\)|\[[^\]]*$", "", rest))
        if not named or (unknown := [part for part in named if part not in existing]):
            found.append(f"{name} has no part {', '.join(unknown) if named else '(none is named)'}")
    if f"](proofs/{story.proof.stem}.ipynb)" not in sections.get("Proofs and limits", ""):
        found.append(f"“Proofs and limits” does not link to proofs/{story.proof.stem}.ipynb")
    return found


def reasons(story: Story) -> list[str]:
    """Every section that computes links to its proofs, and the sections that it names exist there."""
    found, computing, last = [], set(), ""
    for cell in story.cells:
        last = (re.findall(r"^## (.+)$", cell.source, re.MULTILINE) or [last])[-1] if cell.cell_type == "markdown" else last
        computing |= {last} if cell.cell_type == "code" else set()
    for heading, text in story.sections:
        if not re.match(r"\d", heading) or heading not in computing:
            continue
        flat = re.sub(r"\s+", " ", text)
        if "](proofs/" not in flat:
            found.append(
                f"section {heading} does not say where its proof is: *Why: [proofs/NN](proofs/NN_name.ipynb), section k.*"
            )
        for name, rest in re.findall(r"\]\(proofs/(\w+)\.ipynb\)(,? sections? [^\[*]*)", flat):
            path = story.home / "notebooks" / "proofs" / f"{name}.py"
            if path.exists():
                existing = set(re.findall(r"^# ##+ (\d+(?:\.\d+)?)\.? ", path.read_text(encoding="utf-8"), re.MULTILINE))
                named = re.findall(r"\d+(?:\.\d+)?", rest.split(":")[0].split(". ")[0])
                found += [f"section {heading}: proofs/{name} has no section {k}" for k in named if k not in existing]
    return found


def limits(story: Story) -> list[str]:
    """Where it stops working, with a number."""
    found = re.search(r"where it stops working(.*?)(?:\n\n|\Z)", story.prose, re.IGNORECASE | re.DOTALL)
    if not found:
        return ["it does not say “Where it stops working”"]
    return [] if re.search(r"\d", found[1]) else ["“Where it stops working” has no number"]


def sizes(story: Story) -> list[str]:
    """Not too long, and the first picture soon."""
    read, counted = words(story.prose), sum(lines(cell.source) for cell in story.cells if cell.cell_type == "code")
    first = before_the_first_picture(story)
    limits = [
        (read, WORDS, "words"),
        (counted, LINES, "lines of code"),
        (first[0], FIRST_WORDS, "words before the first picture that it draws"),
        (first[1], FIRST_LINES, "lines of code up to the first picture that it draws"),
    ]
    return [f"{size} {what}, more than {most}" for size, most, what in limits if size > most]


def cells(story: Story) -> list[str]:
    """Short cells; those to copy are very short, use public names, and run after the imports and the cells to copy above."""
    found, known = [], defined(story.code[0].source) | {"preset", "seed"}
    for cell in story.code[1:]:
        head = cell.source.strip().splitlines()[0] if cell.source.strip() else ""
        most = LONGEST_COPY if "copy" in tags(cell) else LONGEST_CELL
        if lines(cell.source) > most:
            found.append(f"a cell{' to copy' * ('copy' in tags(cell))} has {lines(cell.source)} lines, more than {most}: {head}")
        if "copy" in tags(cell):
            if missing := needed(cell.source) - known:
                found.append(f"a cell to copy needs {sorted(missing)} from cells that are not: {head}")
            if private := re.findall(r"(?:\.|import )(_[a-zA-Z]\w*)", cell.source):
                found.append(f"a cell to copy uses {private}: {head}")
            known |= defined(cell.source)
    return found + ([] if any("copy" in tags(cell) for cell in story.code) else ["it has no cell to copy"])


def functions(story: Story) -> list[str]:
    """No function of more than five lines, but in a cell to copy, where it is the subject; one that draws may have fifteen."""
    found = []
    for cell in story.code:
        if "copy" in tags(cell):
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                size = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
                most = LONGEST_DRAWING if node.name.startswith("draw_") else LONGEST_FUNCTION
                if size > most:
                    found.append(f"{node.name} has {size} lines, more than {most}, and is in no cell to copy")
    return found


COLOURS = (
    r"\bCOLOURS\b|[\"']#[0-9a-fA-F]{3,8}[\"']|[\"'](?:tab:\w+|C\d)[\"']",
    r"\b(?:face|marker\w*)?colou?rs?=[\"'](?!none|white)[^\"']*[\"']|\bc=[\"']\w+[\"']",
    r"\bedgecolors?=[\"'](?!none|face|white|black)[^\"']*[\"']",
)
RANDOM = {f"torch.{name}" for name in ("rand", "randn", "randint", "randperm", "normal", "multinomial", "bernoulli")}


def colours(source: str) -> list[str]:
    """The colours that code names itself, not by their role."""
    return [hit[0] for pattern in COLOURS for hit in re.finditer(pattern, source)]


def conduct(story: Story) -> list[str]:
    """Draws have a generator, nothing is timed or asserted, colours have roles."""
    found = []
    for cell in story.code:
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Assert):
                found.append(f"an assert: {ast.unparse(node)[:60]}")
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func) in RANDOM
                and not any(w.arg == "generator" for w in node.keywords)
            ):
                found.append(f"a draw without a generator: {ast.unparse(node)[:60]}")
        found += [f"a literal colour: {colour}" for colour in colours(cell.source)]
        for pattern, what in {
            r"\bperf_counter\b|\bimport time\b|%time": "a clock",
            r"\burlopen\b|\brequests\b|\bdownload\b": "the network",
            r"\bnp\.random\.\w+|\bmanual_seed\((?!seed)(?![^)]*seed)": "random numbers of another source",
        }.items():
            if hit := re.search(pattern, cell.source):
                found.append(f"{what}: {hit[0]}")
    return found


def phrases(story: Story) -> list[str]:
    """Plain English, and no box but those of the errata."""
    found = [f"“{word}”" for word in re.findall(r"\b(?:trivially|clearly|obviously|note that)\b", story.prose, re.IGNORECASE)]
    for cell in story.text:
        blocks = [block.strip() for block in re.split(r"\n\s*\n", cell.source) if "$$" in block]
        alone = [block.startswith("$$") and block.endswith("$$") and block.count("$$") == 2 for block in blocks]
        found += [
            f"a displayed formula without empty lines around it: {block[:60]}"
            for block, good in zip(blocks, alone, strict=True)
            if not good and not block.startswith(">")
        ]
        boxes = re.findall(r"(?m)^> \*\*.*", cell.source)  # a quoted exercise is none
        found += [f"a box that is no erratum: {box[:60]}" for box in boxes if not box.startswith("> **Erratum ")]
    names = re.findall(r"errata\.box\(\s*[\"']([^\"']+)", "\n".join(cell.source for cell in story.code))
    return found + [f"there is no erratum {name}" for name in names if name not in errata.read()]


def claims(story: Story, registered: dict[str, Claim] | None = None) -> list[str]:
    """At most eight, S03-1 and on, with bounds on both sides."""
    known = ledger.registry() if registered is None else registered
    own = [claim for claim in known.values() if claim.notebook == story.name]
    return [
        *([] if len(own) <= CLAIMS else [f"it has {len(own)} claims, more than {CLAIMS}"]),
        *(f"{claim.id} is not of the form S{story.number}-k" for claim in own if not claim.id.startswith(f"S{story.number}-")),
        *(f"{claim.id} has no bound on both sides" for claim in own if math.inf in (claim.at_most, -claim.at_least)),
    ]


def pictures(story: Story) -> list[str]:
    """Linked pictures exist and are described; animations are small and stand alone."""
    found = []
    for cell in story.text:
        for alt, link in PICTURE.findall(re.sub(r"\s*\n\s*", " ", cell.source)):
            path = (story.home / "notebooks" / link).resolve()
            if len(alt.split()) < 6:
                found.append(f"{link} has no alternative text of a sentence: {alt!r}")
            if not path.exists():
                found.append(f"{link} does not exist")
            elif path.suffix == ".gif":
                with Image.open(path) as picture:
                    sizes = (
                        (path.stat().st_size, BYTES, "bytes"),
                        (picture.n_frames, FRAMES, "frames"),
                        (picture.width, WIDTH, "pixels"),
                    )
                found += [f"{link} has {size} {what}, more than {most}" for size, most, what in sizes if size > most]
            if path.suffix == ".gif" and len(re.sub(r"\s*\n\s*", " ", cell.source.strip())) > len(alt) + len(link) + 5:
                found.append(f"{link} does not stand in a cell of its own")
    return found


# ------------------------------------------------------------------------------------------------------------- decimals

DECIMAL = re.compile(r"(?<![\w.,^])(\d+(?:\.\d+)?e[+-]?\d+|\d+\.\d+|\d+(?=(?:\s|\\,|\\;)?\\?%))(?![\w.]*\d)")
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def quoted(text: str) -> list[str]:
    """The decimals and percentages of a prose: not those of guesses, of changes to try, of code, of addresses and of sections."""
    text = re.sub(r"^## Change this$.*?(?=^## |\Z)", "", text, flags=re.MULTILINE | re.DOTALL)
    blocks = re.split(r"\n\s*\n|(?=\*\*(?:Guess|Change this|Trap|Where it stops working)\.\*\*)", text)
    kept = [block for block in blocks if not block.lstrip().startswith(("**Guess.**", "**Change this.**"))]
    text = re.sub(r"```.*?```|`[^`]+`|!?\[[^\]]*\]\([^)]*\)", " ", "\n\n".join(kept), flags=re.DOTALL)
    text = re.sub(r"\b(?:[Ss]ections?|[Pp]arts?|Python|version)\s+\d[\d., and–-]*", " ", text)
    text = re.sub(r"^#+ .*$|^\d+\. ", " ", text, flags=re.MULTILINE)
    return DECIMAL.findall(re.sub(r"\\[a-zA-Z]+|\\[,;!]", " ", text))


def is_printed(decimal: str, said: str) -> bool:
    """Whether a number of what was said is this decimal, or is rounded to it; a percentage may have been said as a share."""
    mantissa, _, power = decimal.partition("e")
    digits = len(mantissa.partition(".")[2])
    near = 0.5 * 10.0 ** (int(power or 0) - digits) * (1 + 1e-6)
    values = [float(number) for number in NUMBER.findall(said)]
    share = () if digits or power else (100,)
    return any(abs(value * factor - float(decimal)) <= near for value in values for factor in (1, *share))


def decimals(story: Story) -> list[str]:
    """Every decimal of the prose is printed by a cell above it in the full run, or stands in code above it."""
    outputs, said, found = iter(story.outputs or ()), "", []
    for cell in story.cells:
        if cell.cell_type == "code":
            said += f"\n{next(outputs)}\n{cell.source}"
            continue
        for decimal in quoted(cell.source):
            if decimal not in CONSTANTS and not is_printed(decimal, said):
                at = re.search(rf"[^\n]*(?<![\d.]){re.escape(decimal)}[^\n]*", cell.source)
                found.append(f"{decimal} is printed by no cell above: {at[0].strip() if at else ''}")
    return found


RULES: dict[str, Callable[[Story], list[str]]] = {
    rule.__name__: rule
    for rule in (
        *(opening, hero, installation, outline, guesses, changes, ending, reasons, limits, sizes, cells, functions, conduct),
        *(phrases, claims, pictures),
    )
}


def main(names: list[str]) -> None:
    """Print sizes and complaints of stories."""
    for name in names:
        story = Story(name)
        read, counted = words(story.prose), sum(lines(cell.source) for cell in story.cells if cell.cell_type == "code")
        print(f"{name}: {read} words, {counted} lines; first picture after {before_the_first_picture(story)}")
        rules = RULES | ({"decimals": decimals} if story.outputs is not None else {})
        for rule, check in rules.items():
            print("\n".join(f"  {rule}: {complaint}" for complaint in check(story)) or f"  {rule}: –")
        if story.outputs is None:
            print(f"  decimals: no outputs of a full run of these cells ({RUNS})")


if __name__ == "__main__":
    main(sys.argv[1:])
