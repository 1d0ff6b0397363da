"""The book: its pages, which are made without Sphinx, and, where Sphinx and a browser are installed, the site in that browser."""

import functools
import http.server
import importlib.util
import itertools
import re
import shutil
import sys
import threading
from pathlib import Path
from urllib.parse import unquote, urldefrag

import nbformat
import pytest

from dynot_lite.companion import book, errata, notebooks, paper
from dynot_lite.companion.ledger import registry
from dynot_lite.companion.notebooks import NotebookError

ROOT = Path(__file__).resolve().parents[1]


def load(name):
    spec = importlib.util.spec_from_file_location(f"book_{name}", ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


pages = load("pages")

# ---------------------------------------------------------------------------------------------------- what is written


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("book")
    uses = pages.write(ROOT, folder)
    return folder, uses


def text(folder, name):
    """A page as it is read; of a notebook the sources of its cells and what they printed."""
    path = folder / name
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = notebooks.read_executed(path).cells
    outputs = (output.get("text", "") for cell in cells for output in cell.get("outputs", []))
    return "\n".join([*(cell.source for cell in cells), *outputs])


def written(folder):
    """What a reader may find anywhere in the book: pages and downloads."""
    return "\n".join(text(folder, path) for path in folder.rglob("*") if path.suffix in (".md", ".ipynb"))


def test_no_solution_of_a_problem_set_is_in_the_book(staged):
    everything = written(staged[0])
    solved = sorted((ROOT / "notebooks" / "assignments").glob("PS*.py"))
    assert [path.stem for path in solved] == sorted(path.stem for path in staged[0].glob("notebooks/assignments/PS*.ipynb"))
    for path in solved:
        regions = re.findall(r"BEGIN (?:SOLUTION|HIDDEN TESTS)\n([\s\S]+?)END (?:SOLUTION|HIDDEN TESTS)", path.read_text("utf-8"))
        lines = {line.strip("# ") for region in regions for line in region.splitlines()}
        answers = {line for line in lines if len(line) > 50}
        assert len(answers) > 40 and not [line for line in answers if line in everything]


def test_every_claim_has_a_row_and_a_label_at_the_cell_that_makes_it(staged):
    folder, labels, known = staged[0], {}, {identifier.lower(): identifier for identifier in registry()}
    for path in folder.glob("notebooks/**/*.ipynb"):
        cells = notebooks.read_executed(path).cells
        for cell, following in itertools.pairwise(cells):
            for label in re.findall(r"^\((\S+)\)=$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else ():
                if label in known:
                    assert known[label] not in labels, label  # also where a claim is made twice
                    labels[known[label]] = following
    assert labels.keys() == registry().keys()
    for identifier, cell in labels.items():
        said = "".join(output.get("text", "") for output in cell.get("outputs", []))
        assert f" {identifier}  " in said or cell.metadata.nbgrader.grade_id == identifier.lower()
    rows = [line for line in text(folder, "figures/claims.md").splitlines() if line.startswith("| <span")]
    assert len(rows) == len(registry())
    assert all(f"](#{identifier.lower()})" in row for identifier, row in zip(registry(), rows, strict=True))
    assert sum(row.rstrip(" |").endswith("–") for row in rows) < len(rows) / 10  # the others have a measured value


def test_every_entry_of_the_errata_leads_to_its_boxes_and_claims(staged):
    page, notes = text(staged[0], "figures/errata.md"), written(staged[0] / "notebooks")
    for entry in errata.read().values():
        assert f"| [{entry.id}](#{entry.anchor}) |" in page and f"### {entry.id}\n" in page
        part = page.split(f"### {entry.id}\n")[1].split("\n### ")[0]
        labels = re.findall(r"\[[\w/]+\]\(#(erratum-\S+)\)", part)
        assert all(label.startswith(f"erratum-{entry.anchor}") and notes.count(f"({label})=") == 1 for label in labels)
        claims = re.findall(r"\[([A-Z0-9]+-\d+)\]\(#([a-z0-9]+-\d+)\)", part)
        assert claims == [(name, name.lower()) for name in entry.claims if name in registry()]
    marked = sum(path.read_text("utf-8").count("{.erratum}") for path in (staged[0] / "notebooks").rglob("*.ipynb"))
    assert marked == len(re.findall(r"^\(erratum-\S+\)=$", notes, re.MULTILINE)) > 28


def test_stories_proofs_and_problem_sets_lead_to_each_other(staged):
    story = text(staged[0], "notebooks/01_continuity_equation.ipynb")
    proof = text(staged[0], "notebooks/proofs/01_continuity_equation.ipynb")
    problems = text(staged[0], "notebooks/assignments/PS1_continuity_to_flow_matching.ipynb")
    assert "](assignments/PS1_continuity_to_flow_matching.ipynb)" in story and "](proofs/01_continuity_equation.ipynb)" in story
    assert "](../assignments/PS1_continuity_to_flow_matching.ipynb)" in proof and "](../01_continuity_equation.ipynb)" in proof
    assert "](../01_continuity_equation.ipynb)" in problems and "](../08_semidiscrete" not in problems


def test_statements_of_the_texts_stand_beside_cells_and_functions(staged):
    page = text(staged[0], "papers.md")
    rows = {row.split(" | ")[2]: row for row in page.splitlines() if row.startswith("| ")}
    named = [claim for claim in registry().values() if "2510.27385" in claim.source]
    assert all(f"[{claim.id}](#{claim.id.lower()})" in rows for claim in named) and len(named) > 20
    assert "dynot_lite.potentials.optimal_flow_matching.ofm_loss" in page
    assert "dynot_lite.companion" not in page and "dynot_lite.plots" not in page


def test_each_statement_of_the_paper_leads_to_its_proof_its_cells_and_its_functions(staged):
    page = text(staged[0], "papers.md").split("### Statement → proof → cell → function\n")[1]
    stated, asked = (part.split("\n### ")[0] for part in page.split("### What the two texts ask, and the answers\n"))
    rows = [line for line in stated.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == len(paper.statements()) >= 14
    for statement, row in zip(paper.statements(), rows, strict=True):
        name, section = statement.proof.split(", section ")
        assert f", section {section}](notebooks/{name}.ipynb)" in row and (staged[0] / "notebooks" / f"{name}.ipynb").exists()
        assert all(f"[{claim}](#{claim.lower()})" in row for claim in statement.claims)
        for function in statement.functions:
            assert f"<{pages.entry(f'dynot_lite.{function}')}>`" in row and pages.entry(f"dynot_lite.{function}")
        # The notebook of the proof uses one of them at least (of a method: its class).
        used = {entry for entry, where in staged[1].items() if any(notebooks.name_of(page.path) == name for page in where)}
        own = {pages.entry(f"dynot_lite.{function}") for function in statement.functions}
        assert own & used or {entry.rpartition(".")[0] for entry in own} & used, statement.text
    rows = [line for line in asked.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == len(paper.questions()) and all(row.count(" | ") == 4 for row in rows)


def test_uses_are_those_of_functions_that_notebooks_import(staged):
    uses = {name: [page.label for page in found] for name, found in staged[1].items()}
    assert "proofs/01" in uses["dynot_lite.paths.continuity.strong_residual"]
    assert "dynot_lite.companion.ledger.claim" in uses  # imported from the room, defined in a module
    assert all(name.startswith("dynot_lite.") and len(set(found)) == len(found) for name, found in uses.items())


def test_every_public_module_has_a_page_of_the_reference_and_the_oracles_have_none(staged):
    package = ROOT / "dynot_lite"
    modules = {path.relative_to(package).with_suffix("").as_posix().replace("/", ".") for path in package.glob("**/[a-z]*.py")}
    modules = {name for name in modules if not name.startswith("course.oracle")}
    found = {path.stem for path in (staged[0] / "api").glob("*.md")}
    assert modules <= found and not [name for name in found if "oracle" in name or "__" in name]


def test_citation_is_that_of_the_file(staged):
    page = text(staged[0], "cite.md")
    for words in ("@software{dynot_lite,", "version = {0.", "author = {{The dynot_lite developers}}", "license = {MIT}"):
        assert words in page
    assert "](cite.md)" in text(staged[0], "index.md")


def test_animations_are_shown_and_every_picture_of_a_text_is_in_the_book(staged):
    shown = {}
    for path in sorted((staged[0] / "notebooks").rglob("*.ipynb")):
        for cell in notebooks.read_executed(path).cells:
            for words, link in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", cell.source) if cell.cell_type == "markdown" else ():
                picture = (path.parent / link).resolve()
                assert picture.exists() and len(words.split()) > 3, f"{path.name}: {link}"
                shown[picture.relative_to(staged[0].resolve()).as_posix()] = path.name
    for name in ("02_benamou_brenier/digits", "03_flow_matching/flow", "03_flow_matching/crossing"):
        assert f"figures/{name}.gif" in shown


def small_clone(folder):
    """A clone with one story, its proofs and a leaderboard."""
    files = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "ATTRIBUTION.md", "CITATION.cff", pages.STUDENTS, pages.INSTRUCTORS)
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    (folder / "figures").mkdir()
    (folder / "notebooks" / "proofs").mkdir()
    (folder / "pyproject.toml").write_text("[tool.dynot_lite]\n", encoding="utf-8")
    for name in ("01_walk.ipynb", "02_run.ipynb", "proofs/01_walk.ipynb", "proofs/07_alone.ipynb"):
        words = f"# About {name}\n\n> **Erratum N-13 (false).** A box.\n> It goes on.\n\nNo more."
        shown = nbformat.v4.new_output("display_data", {"text/markdown": "> **Erratum N-12 (imprecise).** Shown."})
        cells = [nbformat.v4.new_markdown_cell(words), nbformat.v4.new_code_cell('errata.box("N-12")', outputs=[shown])]
        notebook = nbformat.v4.new_notebook(cells=cells)
        nbformat.write(notebook, folder / "notebooks" / name)
    return folder


@pytest.mark.parametrize("table", [True, False])
def test_a_proof_stands_beside_its_story_and_tables_have_pages_once_they_exist(tmp_path, table):
    home = small_clone(tmp_path / "clone")
    if table:
        (home / "figures" / "leaderboard.csv").write_text("map,L2-UVP\nours|mine,0.02\n", encoding="utf-8")
    pages.write(home, tmp_path / "book")
    story = text(tmp_path, "book/notebooks/01_walk.ipynb")
    assert "](proofs/01_walk.ipynb)" in story and "\nproofs/01_walk\n" in story
    assert "](../01_walk.ipynb)" in text(tmp_path, "book/notebooks/proofs/01_walk.ipynb")
    assert "proofs" not in text(tmp_path, "book/notebooks/02_run.ipynb")
    links = re.findall(r"\[([\w/]+)\]\(#(erratum-\S+)\)", text(tmp_path, "book/figures/errata.md"))
    where = {"01_walk": "", "02_run": "-2", "proofs/01_walk": "-3", "proofs/07_alone": "-4"}
    assert links == [(name, f"erratum-{entry}{end}") for entry in ("n-12", "n-13") for name, end in where.items()]
    assert "\n(erratum-n-13)=\n{.erratum}\n> **Erratum N-13" in story and "\n(erratum-n-12)=\n" in story
    index = text(tmp_path, "book/index.md")
    assert "notebooks/proofs/07_alone\n" in index and "proofs/01_walk\n" not in index
    assert ("figures/leaderboard\n" in index) == table == (tmp_path / "book" / "figures" / "leaderboard.md").exists()
    if table:
        assert "| ours\\|mine | 0.02 |" in text(tmp_path, "book/figures/leaderboard.md")


def test_hosted_notebooks_are_linked_where_the_repository_has_an_address_and_never_for_problem_sets(tmp_path, staged):
    hosts = re.compile("binder|colab", re.IGNORECASE)
    assert not [path for path in staged[0].rglob("*.ipynb") if hosts.search(text(path.parent, path.name))]
    home = small_clone(tmp_path / "clone")
    setting = '[tool.dynot_lite]\nrepository = "https://github.com/someone/walks"\n'
    (home / "pyproject.toml").write_text(setting, encoding="utf-8")
    pages.write(home, tmp_path / "book")
    story = text(tmp_path, "book/notebooks/01_walk.ipynb")
    assert "mybinder.org/v2/gh/someone/walks/HEAD?labpath=notebooks/01_walk.ipynb" in story
    assert "github/someone/walks/blob/main/notebooks/01_walk.ipynb" in story
    assert "url = {https://github.com/someone/walks}" in text(tmp_path, "book/cite.md")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# X")])
    problem = pages.Page(Path("notebooks/assignments/PS9_x.ipynb"), notebook)
    pages._decorate(problem, [problem], repository="someone/walks")
    assert not hosts.search(nbformat.writes(problem.notebook))


@pytest.mark.parametrize("address", ["someone/walks", "https://example.org/someone/walks", "https://github.com/someone"])
def test_an_address_that_hosts_cannot_use_is_refused(tmp_path, address):
    (tmp_path / "pyproject.toml").write_text(f'[tool.dynot_lite]\nrepository = "{address}"\n', encoding="utf-8")
    with pytest.raises(NotebookError, match="must be https://github.com/OWNER/NAME"):
        pages._repository(tmp_path)


def test_without_sphinx_the_command_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(book, "NEEDED", ("no_such_sphinx", "os"))
    with pytest.raises(NotebookError, match=r"needs no_such_sphinx: .*\[book\]"):
        book.build(tmp_path)
    assert not (tmp_path / "build").exists()


def test_formulas_need_no_network_and_what_is_shipped_is_complete():
    folder = ROOT / "docs" / "_static" / "katex"
    wanted = set(re.findall(r"url\(fonts/([\w-]+\.woff2)\)", (folder / "katex.min.css").read_text("utf-8")))
    assert wanted == {path.name for path in (folder / "fonts").iterdir()} and len(wanted) == 20
    assert "0.19.1" in (folder / "katex.min.js").read_text("utf-8") and "MIT" in (folder / "LICENSE").read_text("utf-8")


# --------------------------------------------------------------------------------------------------- the site, browsed

WINDOWS = {"desktop": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def site():
    """The site, built anew: a warning of Sphinx fails here."""
    if missing := [name for name in book.NEEDED if importlib.util.find_spec(name) is None]:
        pytest.skip(f"the extra [book] is not installed: {', '.join(missing)}")
    return book.build(ROOT).parent


@pytest.fixture(scope="module")
def bases(site):
    """Where the site is: in a folder, and on a host below a path."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {"folder": site.as_uri() + "/", "host": f"http://127.0.0.1:{server.server_port}/{site.name}/"}
    server.shutdown()
    server.server_close()


class Tab:
    """A page of the browser in a window of its own that keeps what went wrong in it."""

    def __init__(self, browser, base, window="desktop", scheme="light"):
        width, height = WINDOWS[window]
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.page, self.base, self.faults = self.context.new_page(), base, []
        note = self.faults.append
        self.page.on("request", lambda asked: asked.url.startswith((base, "data:", "blob:")) or note(f"leaves: {asked.url}"))
        # What is given up when the next page is asked for did not fail.
        self.page.on("requestfailed", lambda asked: asked.failure == "net::ERR_ABORTED" or note(f"failed: {asked.url}"))
        self.page.on("response", lambda came: came.status >= 400 and note(f"{came.status}: {came.url}"))
        self.page.on("console", lambda said: said.type in ("error", "warning") and note(f"console: {said.text}"))
        self.page.on("pageerror", lambda error: note(f"error: {error}"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()

    def go(self, name):
        self.page.goto(self.base + name, wait_until="load", timeout=120_000)

    def ask(self, script):
        return self.page.evaluate(script)


LOOK = """() => {
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const maths = all(".math[data-tex]");
  const prose = all("article p, article li, article td").filter(e => !e.querySelector("p, li, td")).map(e => {
    const copy = e.cloneNode(true);
    all("code, .math, pre, script", copy).forEach(part => part.remove());
    return copy.textContent;
  });
  return {
    maths: maths.length,
    unset: maths.filter(e => !e.querySelector(".katex")).map(e => e.textContent.slice(0, 60)),
    wrong: all(".katex-error").map(e => e.title.slice(0, 80)),
    wide: document.documentElement.scrollWidth - innerWidth,
    pictures: all("article img").filter(e => !e.complete || !e.naturalWidth).map(e => e.src),
    unsaid: all("article img").filter(e => e.alt.trim().split(/\\s+/).length < 4).map(e => e.alt + " " + e.src.slice(0, 90)),
    raw: prose.filter(words => /\\$[^$\\d][^$]*\\$|\\\\(frac|mathbb|int|sum|langle)\\b|\\{[\\w:]+\\}`/.test(words))
      .map(words => words.slice(0, 90)),
  };
}"""


@pytest.mark.parametrize(("base", "window"), [("host", "desktop"), ("folder", "phone")])
def test_every_page_stands_without_network(chrome, bases, site, base, window):
    names = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    names = [name for name in names if not name.startswith("_modules/")] + ["_modules/dynot_lite/laws/gaussian.html"]
    complaints, formulas = [], {}
    with Tab(chrome, bases[base], window) as tab:
        for name in names:
            tab.go(name)
            seen = tab.ask(LOOK)
            formulas[name] = seen.pop("maths")
            complaints += [f"{name}: {kind}: {found}" for kind, found in seen.items() if (found > 0 if kind == "wide" else found)]
        complaints += tab.faults
    print(f"\n{base}, {window}: {len(names)} pages, {sum(formulas.values())} formulas, {len(complaints)} faults")
    assert not complaints, "\n".join(complaints)
    stories = [name for name in names if re.match(r"notebooks/(proofs/)?\d", name)]
    assert len(stories) >= 17 and all(formulas[name] > 10 for name in stories)
    assert sum(formulas.values()) > 3500


@pytest.mark.parametrize("base", ["host", "folder"])
@pytest.mark.parametrize(
    ("words", "first"),
    [
        ("CE-7", "figures/claims.html"),
        ("monge_map", "api/laws.gaussian.html"),
        ("errata", "figures/errata.html"),
        ("Schrödinger", "notebooks/"),
        ("bibtex", "cite.html"),
    ],
)
def test_search_finds(chrome, bases, base, words, first):
    with Tab(chrome, bases[base]) as tab:
        tab.go(f"search.html?q={words}")
        tab.page.wait_for_selector("#search-results li a")
        tab.page.wait_for_timeout(1000)
        found = tab.page.eval_on_selector_all("#search-results li a", "links => links.map(link => link.getAttribute('href'))")
        best = found[:2] if words == "errata" else found[:1]  # the module of that name comes first
        assert any(first in link for link in best) and tab.faults == []


def test_all_links_within_the_site_resolve(site):
    whole = {path: path.read_text("utf-8") for path in site.rglob("*.html")}
    anchors = {path: set(re.findall(r'\sid="([^"]+)"', source)) for path, source in whole.items()}
    broken, count = [], 0
    for path, source in whole.items():
        for address in set(re.findall(r'<[a-z][^<>]*?\s(?:href|src)="([^"]+)"', source)):  # in a tag: code shows HTML, too
            if re.match(r"[a-z]+:", address):
                continue
            name, fragment = urldefrag(address.replace("&amp;", "&"))
            file = (path.parent / unquote(name.split("?")[0])).resolve() if name else path
            count += 1
            if not file.exists() or (fragment and file in anchors and unquote(fragment) not in anchors[file]):
                broken.append(f"{path.relative_to(site)}: {address}")
    print(f"\n{count} links")
    assert not broken, "\n".join(broken)
    assert count > 5000


def test_names_in_notebooks_lead_to_their_entries(site):
    story = (site / "notebooks" / "01_continuity_equation.html").read_text("utf-8")
    for name, module in {"w2_squared": "laws.gaussian", "weak_residual": "paths.continuity", "claim": "companion.ledger"}.items():
        assert f'href="../api/{module}.html#dynot_lite.{module}.{name}"' in story
    entry = (site / "api" / "paths.continuity.html").read_text("utf-8")
    assert re.search(r"Used in</em> <a[^>]+notebooks/01_continuity_equation.html", entry)


def test_ledgers_are_searched_narrowed_and_sorted(chrome, bases):
    with Tab(chrome, bases["folder"]) as tab:
        shown = "[...document.querySelectorAll('table.ledger tbody tr')].filter(row => !row.hidden)"
        rows, last = f"{shown}.map(row => row.textContent)", f"{shown}.map(row => row.cells[6].textContent)"
        tab.go("figures/claims.html?cell=proofs/01")
        own = [claim.id for claim in registry().values() if claim.notebook.startswith("proofs/01")]
        assert len(tab.ask(rows)) == len(own)
        tab.go("figures/claims.html")
        assert len(tab.ask(rows)) == len(registry())
        tab.page.fill(".ledger-bar input", "metric misses")
        assert len(tab.ask(rows)) == 1 and "CE-2" in tab.ask(rows)[0]
        tab.page.fill(".ledger-bar input", "")
        tab.page.select_option(".ledger-bar select[aria-label=kind]", "benchmark")
        assert len(tab.ask(rows)) == sum(claim.kind == "benchmark" for claim in registry().values())
        tab.page.click("th >> text=measured")
        values = [float(value) for value in tab.ask(last) if value != "–"]
        assert values == sorted(values) and len(values) > 10
        tab.page.click("th >> text=measured")
        assert [float(value) for value in tab.ask(last) if value != "–"] == sorted(values, reverse=True)
        assert tab.faults == []


def test_animations_play(chrome, bases):
    with Tab(chrome, bases["host"]) as tab:
        for name, animation in (("02_benamou_brenier", "digits"), ("03_flow_matching", "flow"), ("03_flow_matching", "crossing")):
            tab.go(f"notebooks/{name}.html")
            picture = tab.page.locator(f"img[src$='{animation}.gif']")
            picture.scroll_into_view_if_needed()
            shots = []
            for _ in range(5):
                shots.append(picture.screenshot())
                tab.page.wait_for_timeout(350)
            assert len(set(shots)) > 1


def test_the_theme_is_the_readers_and_paper_has_no_sidebar(chrome, bases):
    background = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    for scheme, fits in {"dark": lambda grey: grey < 60, "light": lambda grey: grey > 230}.items():
        with Tab(chrome, bases["folder"], scheme=scheme) as tab:
            tab.go("index.html")
            assert all(fits(grey) for grey in tab.ask(background))
    with Tab(chrome, bases["folder"]) as tab:
        tab.go("notebooks/proofs/02_benamou_brenier.html")
        assert tab.page.is_visible(".sidebar-drawer")
        tab.page.emulate_media(media="print")
        assert not tab.page.is_visible(".sidebar-drawer") and not tab.page.is_visible("p.here")
        assert tab.ask("document.querySelector('article').getBoundingClientRect().width") > 900


@pytest.mark.parametrize(("scheme", "window"), [("light", "desktop"), ("dark", "phone")])
def test_axe_finds_nothing(chrome, bases, scheme, window):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the extra [book] is not installed").Axe()
    names = ["index", "notebooks/proofs/02_benamou_brenier", "notebooks/assignments/PS1_continuity_to_flow_matching"]
    names += ["api/laws.gaussian", "figures/claims", "figures/errata", "papers", "cite"]
    found = {}
    with Tab(chrome, bases["folder"], window, scheme) as tab:
        for name in names:
            tab.go(f"{name}.html")
            # Formulas are KaTeX's; of long tables a dozen rows will do, the others are alike.
            parts = {"exclude": [[".katex"], ["tbody tr:nth-child(n+12)"]]}
            results = axe.run(tab.page, context=parts, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]})
            for fault in results.response["violations"]:
                found[f"{name}: {fault['id']}"] = [node["html"][:120] for node in fault["nodes"][:3]]
    assert found == {}
