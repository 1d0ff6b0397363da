"""The pages of the book, made of what is stored in the repository: notebooks, registry of claims, record, tables, docstrings.

:func:`write` puts them where their files stand in the repository, so that links between these hold. Nothing is executed.
"""

import ast
import csv
import itertools
import os
import pkgutil
import re
import shutil
import tomllib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import nbformat
import yaml
from nbformat import NotebookNode

import dynot_lite
from dynot_lite.companion import errata, notebooks, paper, record, table
from dynot_lite.companion.ledger import PACKAGE, registry
from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.course import assignment

# The texts that have a table of statements beside code, by what names them in the source of a claim.
TEXTS = {
    "lecture notes": (r"\bnotes\b|Dynamic Optimal Transport and Flow Matching", "*Dynamic Optimal Transport and Flow Matching*"),
    "arXiv 2510.27385": (r"2510\.27385", "[arXiv 2510.27385](https://arxiv.org/abs/2510.27385), action matching"),
    "arXiv 2604.15114": (r"2604\.15114", "[arXiv 2604.15114](https://arxiv.org/abs/2604.15114), amortised transport"),
    "arXiv 2509.25519": (r"2509\.25519", "[arXiv 2509.25519](https://arxiv.org/abs/2509.25519), semidiscrete couplings"),
}
NAMES = "|".join(pattern for pattern, _ in TEXTS.values())
OURS = re.compile(r"\bours\b|companion|^(?:section|Theorem|Proposition|Lemma) ")
BOX = re.compile(r"^> \*\*Erratum ([A-Z]+-\d\d) \(", re.MULTILINE)  # the first line of one
VERDICT = re.compile(r"^(?:PASS|SEEN|SKIP|FAIL) ([A-Z][A-Z0-9]*-\d+[a-z]?)  ", re.MULTILINE)
STUDENTS, INSTRUCTORS = (f"notebooks/assignments/{name}.md" for name in ("STUDENTS", "README"))
NOTATION, TRAPS = "notebooks/NOTATION.md", "figures/known_traps.md"


@dataclass
class Page:
    """A notebook of the book: where it stands, its cells, and what they claim and correct."""

    path: Path  # relative to the book, as to the repository
    notebook: NotebookNode
    cells: dict[str, NotebookNode] = field(default_factory=dict)  # by the claim that is made in it
    errata: dict[str, str] = field(default_factory=dict)  # the label of its box, by the entry

    @property
    def number(self) -> str:
        """01, PS1."""
        return self.path.stem.split("_")[0]

    @property
    def label(self) -> str:
        """01, proofs/01, PS1: of a story and its proofs the numbers are the same."""
        return f"proofs/{self.number}" if self.path.parent.name == "proofs" else self.number

    @cached_property
    def imported(self) -> dict[str, str]:
        """What the notebook imports: the full name by the one that it uses."""
        nodes = [node for cell in self.notebook.cells for node in ast.walk(_tree(cell)) if isinstance(node, ast.ImportFrom)]
        return {alias.asname or alias.name: f"{node.module}.{alias.name}" for node in nodes for alias in node.names}

    @property
    def graded(self) -> bool:
        """Whether it is a problem set."""
        return self.path.parent.name == "assignments"

    @property
    def opening(self) -> str:
        """The first cell: title, text covered, what is needed before."""
        return self.notebook.cells[0].source

    @property
    def title(self) -> str:
        """The heading of the page."""
        found = re.search(r"^# (.+)$", self.opening, re.MULTILINE)
        return found[1] if found else self.path.stem


def write(home: Path, target: Path) -> dict[str, list[Page]]:
    """Write all pages into the folder ``target``, and return the notebooks in which each function of the package is used."""
    shutil.copytree(home / "figures", target / "figures", ignore=shutil.ignore_patterns("*.json", "*.md"), dirs_exist_ok=True)
    for path in (home / "CITATION.cff", *home.glob("docs/theorem.py"), *home.glob("docs/images.py")):
        (target / path.relative_to(home)).parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target / path.relative_to(home))
    stories, proofs, sets = read(home, target / "download")
    pages, repository = [*stories, *proofs, *sets], _repository(home)
    uses: dict[str, list[Page]] = {}
    taken: set[str] = set()
    for page in pages:
        _mark(page, taken)
        for entry in {entry for cell in page.notebook.cells for entry in _entries(cell, page.imported)}:
            uses.setdefault(entry, []).append(page)
    for page in pages:
        _decorate(page, pages, repository=repository)
        _put(target / page.path, nbformat.writes(page.notebook))
    tables = _tables(home)
    texts = {"cite.md": _cite(home, repository), "papers.md": _papers(pages, home / "figures"), **tables, **_api()}
    texts |= {"figures/claims.md": _claims(pages, home / "figures"), errata.SHEET.as_posix(): _errata(pages)}
    extra = [name for name in (NOTATION, TRAPS) if (home / name).exists()]
    own = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "ATTRIBUTION.md", STUDENTS, INSTRUCTORS, *extra]
    texts |= {name: (home / name).read_text(encoding="utf-8").replace("](CITATION.cff)", "](cite.md)") for name in own}
    chapters = {
        "Stories": [f"{page.number} {page.title} <{page.path.with_suffix('').as_posix()}>" for page in stories],
        "Proofs": [page.path for page in proofs if not _beside(page, stories)],
        "Problem sets": [STUDENTS, *(page.path for page in sets), INSTRUCTORS],
        "Statements": ["figures/claims.md", errata.SHEET.as_posix(), "papers.md", *extra, *tables],
        "Package": ["api/index.md"],
        "About": ["cite.md", "CHANGELOG.md", "CONTRIBUTING.md", "ATTRIBUTION.md"],
    }
    texts["index.md"] = texts.pop("README.md") + "".join(_toctree(names, caption) for caption, names in chapters.items())
    for name, text in texts.items():
        _put(target / name, text)
    return uses


# --------------------------------------------------------------------------------------------------------- notebooks


def read(home: Path, files: Path) -> tuple[list[Page], list[Page], list[Page]]:
    """Stories, proofs, and problem sets without their solutions; ``files`` takes the notebooks as readers may download them."""
    found = []
    for pattern in ("notebooks/*.ipynb", "notebooks/proofs/*.ipynb", "notebooks/assignments/PS*.py"):
        found.append([])
        for path in sorted(home.glob(pattern)):
            own = path.relative_to(home).with_suffix(".ipynb")
            (files / own).parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".py":
                assignment.release(own.stem.split("_")[0], (files / own).parent)
            else:
                shutil.copyfile(path, files / own)
            found[-1].append(Page(own, notebooks.read_executed(files / own)))
    return tuple(found)


def _beside(page: Page, others: Iterable[Page]) -> list[Page]:
    """The pages of ``others`` of the same number: the proofs of a story, the story of a proof."""
    return [other for other in others if other.number == page.number]


def _mark(page: Page, taken: set[str]) -> None:
    """Find what the notebook claims and corrects, and give the cells and the boxes labels, none of those ``taken``."""
    cells = []
    for cell in page.notebook.cells:
        said = "".join(output.get("text", "") for output in cell.get("outputs", []) if output.output_type == "stream")
        graded = cell.metadata.get("nbgrader", {})
        part = graded["grade_id"] if graded.get("grade") else ""
        own = dict.fromkeys(VERDICT.findall(said) + [known for known in registry() if known.lower() == part])
        new = [identifier for identifier in own if identifier in registry() and identifier not in taken]
        taken.update(new)
        page.cells |= dict.fromkeys(new, cell)
        labels = [identifier.lower() for identifier in new]
        if cell.cell_type == "markdown":
            cell.source = BOX.sub(lambda found: f"({_label(page, found[1], taken)})=\n{{.erratum}}\n{found[0]}", cell.source)
        for data in (output.get("data", {}) for output in cell.get("outputs", [])):
            if found := BOX.match(data.get("text/markdown", "")):
                labels.append(_label(page, found[1], taken))
                data["text/markdown"] = "{.erratum}\n" + data["text/markdown"]
        if labels:
            cells.append(nbformat.v4.new_markdown_cell("\n".join(f"({label})=" for label in labels)))
        cells.append(cell)
    page.notebook.cells = cells


def _label(page: Page, entry: str, taken: set[str]) -> str:
    """A label for a box, of which an entry may have several: in a story, in its proofs, in a summary."""
    first = f"erratum-{entry.lower()}"
    labels = itertools.chain([first], (f"{first}-{k}" for k in itertools.count(2)))
    label = next(label for label in labels if label not in taken)
    taken.add(label)
    page.errata.setdefault(entry, label)
    return label


def _decorate(page: Page, pages: Sequence[Page], *, repository: str) -> None:
    """Add below the title what belongs to the notebook."""
    for cell in page.notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.metadata.tags = [*cell.metadata.tags, "hide-input"]
    links = [f"{{download}}`Download <{_relative('download' / page.path, page.path)}>`"]
    if page.graded:  # whose solutions are in the repository: no link there
        needed = [other for other in pages if not other.graded and f"`{other.path.stem}`" in page.opening]
    else:
        if repository:
            links.append(f"[Binder](https://mybinder.org/v2/gh/{repository}/HEAD?labpath={page.path.as_posix()})")
            links.append(f"[Colab](https://colab.research.google.com/github/{repository}/blob/main/{page.path.as_posix()})")
        needed = [other for other in pages if other.graded and f"`{page.path.stem}`" in other.opening]
        address = f"{_relative(Path('figures/claims.html'), page.path)}?cell={page.label}"
        links += (
            [f'<a class="reference internal" href="{address}">{_count(page.cells, "claim", "claims")}</a>'] if page.cells else []
        )
        first = next(iter(page.errata.values()), "")
        links += [f"[{_count(page.errata, 'erratum', 'errata')}](#{first})"] if page.errata else []
    beside = [other for other in _beside(page, pages) if other is not page]
    links += [f"[{other.title}]({_relative(other.path, page.path)})" for other in beside + needed]
    story = page.path.parent.name == "notebooks"
    text = "{.here}\n" + " · ".join(links) + "\n" + _toctree([_relative(other.path, page.path) for other in beside if story])
    page.notebook.cells.insert(1, nbformat.v4.new_markdown_cell(text))


# ------------------------------------------------------------------------------------------------- names of the package


def entry(name: str) -> str:
    """The name under which ``name`` has an entry in the reference; empty if it is no function, class or module of the package."""
    if not name.startswith("dynot_lite."):
        return ""
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError):
        return ""
    module, inner = getattr(found, "__module__", None), getattr(found, "__qualname__", "")
    return f"{module}.{inner}" if str(module).startswith("dynot_lite.") and inner and "<" not in inner else ""


def _tree(cell: NotebookNode) -> ast.AST:
    return _parsed(cell.source if cell.cell_type == "code" else "")


_parsed = lru_cache(maxsize=None)(ast.parse)


def _entries(cell: NotebookNode, imported: dict[str, str]) -> list[str]:
    """The entries of what a cell uses of the package."""
    nodes = [node for node in ast.walk(_tree(cell)) if isinstance(node, ast.Name | ast.Attribute)]
    names = sorted({name for node in nodes if re.fullmatch(r"[\w.]+", name := ast.unparse(node))})
    split = [name.partition(".") for name in names]
    found = {entry(imported[first] + dot + rest) for first, dot, rest in split if first in imported}
    return sorted(found - {""})


def _used(page: Page, identifier: str) -> list[str]:
    """The functions of the package in the cell of a claim, or, if it has none, in the last cell before that prepares it."""
    cells, needed = page.notebook.cells, set()
    for cell in reversed(cells[: cells.index(page.cells[identifier]) + 1]):
        nodes = [node for node in ast.walk(_tree(cell)) if isinstance(node, ast.Name)]
        if needed and not needed & {node.id for node in nodes if isinstance(node.ctx, ast.Store)}:
            continue
        found = [name for name in _entries(cell, page.imported) if name.split(".")[1] not in ("companion", "plots")]
        if found:
            return found
        needed |= {node.id for node in nodes} - set(page.imported)
    return []


# ------------------------------------------------------------------------------------------------------ generated pages


def _text_of(source: str) -> str:
    """Which text a claim is about: of :data:`TEXTS` the first named, another by its number, ours (a section, too), or other."""
    places = {found.start(): name for name, (pattern, _) in TEXTS.items() if (found := re.search(pattern, source))}
    found = [places[place] for place in sorted(places)]
    number = re.search(r"arXiv \d{4}\.\d{5}", source)
    return (found or [number[0] if number else "ours" if OURS.search(source) else "other"])[0]


def _where(pages: Iterable[Page]) -> dict[str, Page]:
    return {identifier: page for page in pages for identifier in page.cells}


def _claims(pages: Sequence[Page], figures: Path) -> str:
    """All claims in one table, with the values of record."""
    recorded, where = record.read(figures), _where(pages)
    rows = [["claim", "cell", "kind", "text", "statement", "required", "measured"]]
    for claim in registry().values():
        cell = f"[{where[claim.id].label}](#{claim.id.lower()})" if claim.id in where else claim.notebook.split("_")[0]
        mark = f'<span id="claim-{claim.id.lower()}"></span>{{index}}`{claim.id} <! {claim.id}>`'
        statement = f"{table.escape(claim.statement)} <small>{table.escape(claim.source)}</small>"
        measured = table.measured(claim, recorded.get(claim.id))
        rows.append([mark, cell, claim.kind, _text_of(claim.source), statement, claim.bound, measured])
    head = (
        "A notebook fails if what it measures is not as required. Measured are the values of record, in the full preset\n"
        "(–: none); the number of the notebook leads to the cell."
    )
    return f"---\nhide-toc: true\n---\n# Claims\n\n{head}\n\n" + _ledger(rows)


def _errata(pages: Sequence[Page]) -> str:
    """The sheet of errata, with a table that can be searched, and links to the claims and to the boxes in the notebooks."""
    where, lines = _where(pages), []
    for line in errata.sheet().splitlines():
        if line.startswith("| entry |"):
            lines.append("{.ledger}")
        if line.startswith("- claims: "):
            names = sorted(where, key=len, reverse=True)
            line = (
                re.sub(rf"\b({'|'.join(names)})\b(?!\])", lambda found: f"[{found[1]}](#{found[1].lower()})", line)
                if names
                else line
            )
        lines.append(line)
        if heading := re.fullmatch(r"### (\S+)", line):
            shown = [
                f"[{notebooks.name_of(page.path)}](#{page.errata[heading[1]]})" for page in pages if heading[1] in page.errata
            ]
            lines += ["", f"In the notebooks: {', '.join(shown)}."] if shown else []
    return "\n".join(lines) + "\n"


def _papers(pages: Sequence[Page], figures: Path) -> str:
    """Per text: its statements, the cells that compute them, and the functions that these cells use."""
    where = _where(pages)
    texts = ["# Paper ↔ code\n\nStatement of a text, the cell that computes it, and what of the package that cell uses."]
    for name, (_, title) in TEXTS.items():
        rows, last = [["place in the text", "statement", "cell", "functions"]], None
        for claim in registry().values():
            if _text_of(claim.source) != name or claim.id not in where:
                continue
            page = where[claim.id]
            place = re.sub(rf"^(?:(?:lecture |arXiv )?(?:{NAMES}))(?:, |$)", "", claim.source)
            first = "″" if place == last else table.escape(place) or "–"
            cell = _to_cells([claim.id], where)
            rows.append([first, table.escape(claim.statement), cell, _to_functions(_used(page, claim.id))])
            last = place
        head = f"## {name[0].upper()}{name[1:]}\n\n{title}.\n\n"
        own = _statements(pages, figures) + "### All claims about it\n\n" if "2510" in name else ""
        texts.append(head + own + _ledger(rows, kind="statements"))
    return "\n".join(texts)


def _statements(pages: Sequence[Page], figures: Path) -> str:
    """The paper of the theorem: each statement with its proof, cells and functions, and each question with its answer."""
    where = _where(pages)
    rows = [["statement", "said in", "proof", "cells", "functions"]]
    for stated in paper.statements():
        used = _to_functions([entry(f"dynot_lite.{name}") for name in stated.functions])
        text = stated.text.replace("|", r"\vert ")
        rows.append([text, stated.said, _to_section(stated.proof, pages), _to_cells(stated.claims, where), used])
    asked = [["question", "asked in", "answer", "number", "cells"]]
    results = record.read(figures)
    values = {name: result["value"] for name, result in results.items() if result["value"] is not None}
    for question in paper.questions():
        cells = [f"{_to_section(cell, pages)}: {_to_cells(names, where)}" for cell, names in question.cells.items()]
        number = paper.filled(question.number, values)
        asked.append([f"“{question.asked}”", question.said, question.answer, number, "; ".join(cells) or "–"])
    head = "The statements are those of its abstract and of two texts about it, a summary page and a review.\n\n"
    parts = ["Statement → proof → cell → function", "What the two texts ask, and the answers"]
    tables = zip(parts, (rows, asked), strict=True)
    return head + "".join(f"### {part}\n\n{_ledger(lines, kind='statements')}\n" for part, lines in tables)


def _to_section(place: str, pages: Iterable[Page]) -> str:
    """A link to the notebook of NOTEBOOK, section k."""
    name, _, section = place.partition(", section ")
    page = next((page for page in pages if notebooks.name_of(page.path) == name), None)
    return f"[{page.label}, section {section}]({page.path.as_posix()})" if page else place


def _to_cells(names: Iterable[str], where: dict[str, Page]) -> str:
    return ", ".join(f"[{name}](#{name.lower()})" if name in where else name for name in names)


def _to_functions(entries: Iterable[str]) -> str:
    return ", ".join(f"{{py:obj}}`{used.split('.', 2)[2]} <{used}>`" for used in entries) or "–"


def _tables(home: Path) -> dict[str, str]:
    """A page for every table of record, ``figures/NAME.csv``: the leaderboard, the tables of decisions."""
    pages = {}
    for path in sorted((home / "figures").glob("*.csv")):
        with open(path, encoding="utf-8", newline="") as stream:
            rows = [[table.escape(entry) for entry in row] for row in csv.reader(stream)]
        title = path.stem.replace("_", " ").capitalize()
        pages[f"figures/{path.stem}.md"] = f"# {title}\n\n{{download}}`{path.name}`\n\n" + _ledger(rows)
    return pages


def _ledger(rows: Sequence[Sequence[str]], *, kind: str = "ledger") -> str:
    """A table whose first row is its head; a ``ledger`` can be searched and sorted in the browser."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([f"{{.{kind}}}", lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def _cite(home: Path, repository: str) -> str:
    """How to cite, from ``CITATION.cff``, also as BibTeX."""
    known = yaml.safe_load((home / "CITATION.cff").read_text(encoding="utf-8"))
    parts = ("name", "given-names", "family-names")
    names = [" ".join(who[part] for part in parts if who.get(part)) for who in known["authors"]]
    fields = {"title": f"{{{known['title']}}}", "author": " and ".join(f"{{{name}}}" for name in names)}
    fields |= {"year": str(known.get("date-released", ""))[:4], "version": str(known["version"]), "license": known["license"]}
    fields["url"] = f"https://github.com/{repository}" if repository else ""
    entry = "".join(f",\n  {name} = {{{value}}}" for name, value in fields.items() if value)
    text = f"# How to cite\n\n{', '.join(names)}. *{known['title']}.* Version {known['version']}.\n\n"
    return f"{text}## BibTeX\n\n```bibtex\n@software{{dynot_lite{entry}\n}}\n```\n\nThe same as {{download}}`CITATION.cff`.\n"


def _api() -> dict[str, str]:
    """The reference: a page per module of every room, made of its docstrings."""
    about = str(dynot_lite.__doc__)
    rooms = [*re.findall(r"``(\w+)``", about[about.index("Each folder") :]), "_base"]
    pages, rows = {}, [["room", "what it has"]]
    for room in rooms:
        modules = [room, *(f"{room}.{path.stem}" for path in sorted((PACKAGE / room).glob("[a-z]*.py")))]
        for module in modules:
            members = "   :members:\n" if module.count(".") or not (PACKAGE / room).is_dir() else ""
            pages[f"api/{module}.md"] = f"# {module}\n\n```{{eval-rst}}\n.. automodule:: dynot_lite.{module}\n{members}```\n"
        pages[f"api/{room}.md"] += _toctree(modules[1:])
        rows.append([f"[{room}]({room}.md)", table.escape(_summary(room))])
        rows += [[f"[{module}]({module}.md)", table.escape(_summary(module))] for module in modules[1:]]
    head = "# The package\n\n```{eval-rst}\n.. automodule:: dynot_lite\n```\n\n"
    return pages | {"api/index.md": head + _ledger(rows, kind="statements") + _toctree(rooms)}


def _summary(module: str) -> str:
    """The first line of its documentation."""
    path = PACKAGE.joinpath(*module.split("."))
    text = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").split("\n")[0]


def _toctree(paths: Iterable[Path | str], caption: str = "") -> str:
    names = "\n".join(re.sub(r"\.(ipynb|md)$", "", path if isinstance(path, str) else path.as_posix()) for path in paths)
    return f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{names}\n```\n".replace(":caption: \n", "") if names else ""


def _count(things: Collection, one: str, several: str) -> str:
    return f"{len(things)} {one if len(things) == 1 else several}"


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _relative(path: Path, where: Path) -> str:
    return Path(os.path.relpath(path, where.parent)).as_posix()


def _repository(home: Path) -> str:
    """OWNER/NAME of the public repository, the one setting ``[tool.dynot_lite] repository`` of pyproject.toml; empty if unset."""
    tools = tomllib.loads((home / "pyproject.toml").read_text(encoding="utf-8")).get("tool", {})
    address = tools.get("dynot_lite", {}).get("repository", "")
    found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)/?", address)
    if address and not found:
        raise NotebookError(f"repository in pyproject.toml must be https://github.com/OWNER/NAME, got {address!r}")
    return found[1] if found else ""
