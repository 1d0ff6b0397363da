"""What Sphinx is taught for the book: formulas, alternative texts, mathematics in docstrings, and links from names to entries."""

import ast
import re
from pathlib import Path

import myst_nb.core.render
import pages
from docutils import nodes
from sphinx.util.nodes import make_refnode
from sphinx.writers.html5 import HTML5Translator

HOME = Path(__file__).resolve().parents[1]
CODE = re.compile(r"(``.*?``|:\w+:`[^`]*`|`[^`\n]+`_?|(?<![\w*\\])\*(?=[A-Za-z])[^*\n]*[A-Za-z.]\*(?![\w*]))")
# A name in highlighted code, with what is reached through it: batches.exact.
DOTTED = re.compile(r'<span class="n">\w+</span>(?:<span class="o">\.</span><span class="n">\w+</span>)*')
USES: dict[str, list[pages.Page]] = {}


def write_pages(app):
    """Before anything is read, all sources are written."""
    USES.update(pages.write(HOME, Path(app.srcdir)))


# --------------------------------------------------------------------------------------------- formulas and pictures


def tex(tag, kind):
    """The visitors of a formula: its TeX, which maths.js sets in the browser, and which stays where there is no script."""

    def visit(self, node):
        self.body.append(f'<{tag} class="math" data-tex="{kind}">{self.encode(node.astext())}</{tag}>')
        raise nodes.SkipNode

    return visit, None


def with_alternative_text(render):
    """What myst-nb makes of a picture, with the text of its metadata instead of the file's name."""

    def render_image(self, data):
        found = render(self, data)
        if alt := data.output_metadata.get(data.mime_type, {}).get("alt"):
            found[0]["alt"] = alt
        return found

    return render_image


# -------------------------------------------------------------------------------------------------------- docstrings


def plain(app, what, name, obj, options, lines):
    """In docstrings | and * are mathematics (|x|, Ψ*), unless they stand in code, in a role or around *emphasis*."""
    doctest = False
    for i, line in enumerate(lines):
        doctest = line.lstrip().startswith((">>>", "...")) or (doctest and bool(line.strip()))
        if not doctest:
            parts = enumerate(CODE.split(line))
            lines[i] = "".join(part if k % 2 else re.sub(r"(?<!\\)([|*])", r"\\\1", part) for k, part in parts)


def say_where_used(app, what, name, obj, options, lines):
    """The notebooks that use it, below the docstring."""
    if found := USES.get(name):
        lines += [
            "",
            "*Used in* " + ", ".join(f":doc:`{page.label} </{page.path.with_suffix('').as_posix()}>`" for page in found) + ".",
        ]


# ------------------------------------------------------------------------------------------------------------- names


def imported(document):
    """What the code of a page imports, as long as no variable takes its name: the full name by the one that it uses."""
    found, taken = {}, set()
    for block in document.findall(nodes.literal_block):
        if block.get("language") not in ("ipython3", "python"):
            continue
        try:
            tree = ast.parse(block.astext())
        except SyntaxError:  # a fragment
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                taken.add(node.id)
            elif isinstance(node, ast.arg):
                taken.add(node.arg)
    return {name: whole for name, whole in found.items() if name not in taken}


def target(env, name, known):
    """The page and the anchor of what ``name`` stands for, where ``known`` is imported; None if it has no entry."""
    objects = env.domains.python_domain.objects
    first, dot, rest = name.partition(".")
    whole = known.get(first, "dynot_lite." + first) + dot + rest
    found = objects.get(whole) or (objects.get(pages.entry(whole)) if first in known else None)
    return found and (found.docname, found.node_id)


def link_names(app, doctree, docname):
    """Names in texts, between backticks: of notebooks, and of what the package has."""
    known, env = imported(doctree), app.env
    stems = {name.split("/")[-1]: name for name in sorted(env.found_docs, reverse=True) if name.startswith("notebooks/")}
    stems = {number: name for stem, name in stems.items() for number in (stem, stem.split("_")[0])}
    proofs = {name.removeprefix("notebooks/"): name for name in env.found_docs if name.startswith("notebooks/proofs/")}
    stems |= {short: name for stem, name in proofs.items() for short in (stem, stem.split("_")[0])}
    for node in list(doctree.findall(nodes.literal)):
        text = node.astext()
        code = text.split("(")[0].removeprefix("dynot_lite.")
        bare = docname.startswith("notebooks/") and "." not in code and code not in known  # a variable, it may be
        if isinstance(node.parent, nodes.reference) or not re.fullmatch(r"(?:proofs/)?[\w.]+", code):
            continue
        if text in stems and stems[text] != docname:
            node.replace_self(make_refnode(app.builder, docname, stems[text], None, node.deepcopy()))
        elif not bare and (found := target(env, code, known)) and found != (docname, ""):
            node.replace_self(make_refnode(app.builder, docname, *found, node.deepcopy()))


def visit_code(self, node):
    """Code, with a link from every name of the package to its entry."""
    try:
        HTML5Translator.visit_literal_block(self, node)
    except nodes.SkipNode:
        if not hasattr(self, "known"):
            self.known = imported(self.document)
        if self.known and node.get("language") in ("ipython3", "python"):
            self.body[-1] = DOTTED.sub(lambda found: linked(self, found[0]), self.body[-1])
        raise


def linked(self, spans):
    """The highlighted name as a link, if it or what it begins with has an entry."""
    parts = re.findall(r">(\w+)<", spans)
    builder, here = self.builder, self.builder.current_docname
    for length in range(len(parts), 0, -1) if parts[0] in self.known else ():
        if found := target(builder.env, ".".join(parts[:length]), self.known):
            pieces = re.findall(r"<span.*?</span>", spans)
            head, tail = "".join(pieces[: 2 * length - 1]), "".join(pieces[2 * length - 1 :])
            return f'<a class="entry" href="{builder.get_relative_uri(here, found[0])}#{found[1]}">{head}</a>{tail}'
    return spans


def setup(app):
    """Register all of it."""
    renderer = myst_nb.core.render.NbElementRenderer
    renderer.render_image = with_alternative_text(renderer.render_image)
    app.add_html_math_renderer("katex", inline_renderers=tex("span", "inline"), block_renderers=tex("div", "display"))
    app.add_node(nodes.literal_block, override=True, html=(visit_code, HTML5Translator.depart_literal_block))
    app.connect("builder-inited", write_pages, priority=100)
    app.connect("autodoc-process-docstring", plain, priority=400)  # before napoleon, at 500
    app.connect("autodoc-process-docstring", say_where_used, priority=600)
    app.connect("doctree-resolved", link_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
