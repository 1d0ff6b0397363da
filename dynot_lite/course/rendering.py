"""Answers as HTML: Markdown and mathematics, safe to show whatever a student wrote, without network or scripts.

Formulas become MathML by the package math-core (extra ``course``). Without it, or where it cannot read one, the source is shown.
"""

import base64
import html
import importlib.util
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.amsmath import amsmath_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin

from dynot_lite.course.answers import Piece, suffix_of

__all__ = ["STYLE", "answer", "code", "data_url", "inline", "markdown", "typesets"]

WORKER = Path(__file__).with_name("_mathml.py")
SECONDS, LONGEST_FORMULA, MOST_FORMULAS = 4.0, 10_000, 2_000
LONGEST_SOURCE = 200_000

# A font with a table of mathematics makes brackets grow; browsers bring none.
STYLE = """\
math { font-family: "STIX Two Math", "Latin Modern Math", "Cambria Math", "Libertinus Math", "DejaVu Math TeX Gyre", math }
math[display=block] { margin: .6rem 0; overflow-x: auto; overflow-y: hidden }
merror, .tex { color: #a33000 } .tex { font-family: ui-monospace, monospace; font-size: .9em; white-space: pre-wrap }
.answer { unicode-bidi: isolate } .answer summary { cursor: pointer; color: #0b5c8f }
.answer img { display: block; max-width: 100%; margin: .4rem 0 } .answer table { border-collapse: collapse; width: auto }
.answer td, .answer th { border: 1px solid #ccc; padding: .2rem .5rem }
.answer blockquote { border-left: 3px solid #ccc; margin-left: 0; padding-left: 1rem }
.answer code { background: #f3f3f3 } .answer pre code { background: none }
.answer pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f6f6f6; padding: .6rem }
.link { color: #555; overflow-wrap: anywhere }
"""


def typesets() -> bool:
    """Whether formulas are typeset here: the package math-core is there."""
    return importlib.util.find_spec("math_core") is not None


def markdown(source: str, picture: Callable[[str], str | None] = lambda name: None) -> str:
    """The HTML of a text in Jupyter's Markdown.

    HTML in the text is shown, not obeyed. Links are shown, not followed: no click leads out of the page. ``picture`` gives the
    address of an attachment by its name, or None; pictures from elsewhere are named, not loaded.
    """
    if source.count("\\begin") * len(source) > 5e7:  # the end of each is looked for in all that follows
        return code(source)
    reader = _reader()
    tokens = reader.parse(_text(source))
    every = [token for one in tokens for token in (one, *(one.children or ()))]
    formulas = [token for token in every if token.type in FORMULAS]
    texts = tuple((_prepared(token.content), "inline" not in token.type or "double" in token.type) for token in formulas)
    for token, made in zip(formulas, _mathml(texts), strict=True):
        token.meta = {"html": made or f'<code class="tex">{html.escape(token.content.strip())}</code>'}
        if token.block:
            token.meta["html"] = f"<p>{token.meta['html']}</p>\n"
    for token in every:
        if token.type == "image":
            token.meta = {"html": _image(token, picture)}
    more = "<p>…</p>" if len(source) > LONGEST_SOURCE else ""
    return reader.renderer.render(tokens, reader.options, {}) + more


def answer(pieces: Iterable[Piece], address: Callable[[str], str | None]) -> str:
    """The HTML of an answer: of a program first what it shows. ``address`` gives the address of each of its files.

    One that would take long is shown as source from there on, so that no answer holds up those of the others.
    """
    lines, begin = [], time.monotonic()
    for piece in pieces:
        named = dict(piece.attachments)
        shown = lambda name, named=named: address(named[name]) if name in named else None
        if piece.kind == "markdown":
            quick = time.monotonic() - begin < SECONDS
            lines.append(markdown(piece.source, shown) if quick else code(piece.source))
            continue
        results = [f'<img alt="figure of this answer" src="{html.escape(address(one) or "")}">' for one in piece.pictures]
        results += [code(piece.printed)] if piece.printed.strip() else []
        folded = "" if len(results) > 1 else " open"
        lines += [*results, f"<details{folded}><summary>Program</summary>{code(piece.source)}</details>"]
    return f'<div class="answer">{"".join(lines)}</div>'


def inline(source: str) -> str:
    """The HTML of a line of Markdown, such as an item of a rubric."""
    return re.sub(r"^<p>|</p>$", "", markdown(source.replace("\n", " ")).strip())


def code(source: str) -> str:
    """The HTML of a program or an output."""
    return f"<pre>{html.escape(_text(source))}</pre>"


def _text(source: str) -> str:
    """What can be written to a file: half a surrogate pair cannot."""
    return source[:LONGEST_SOURCE].encode("utf-8", "replace").decode("utf-8")


def data_url(content: bytes) -> str | None:
    """The address of a picture that a page carries in itself; None if it is no PNG, JPEG or GIF."""
    kind = suffix_of(content)[1:].replace("jpg", "jpeg")
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}" if kind else None


FORMULAS = ("math_inline", "math_inline_double", "math_block", "math_block_label", "amsmath")


@lru_cache(1)
def _reader() -> MarkdownIt:
    reader = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    reader.use(dollarmath_plugin, double_inline=True).use(amsmath_plugin)
    for name in (*FORMULAS, "image"):
        reader.add_render_rule(name, _stored)
    reader.add_render_rule("link_open", lambda self, tokens, k, options, env: '<span class="link">')
    reader.add_render_rule("link_close", _link_close)
    return reader


def _stored(self, tokens: Sequence[Token], k: int, options, env) -> str:
    return tokens[k].meta["html"]


def _link_close(self, tokens: Sequence[Token], k: int, options, env) -> str:
    start = next(j for j in range(k - 1, -1, -1) if tokens[j].type == "link_open")
    address, text = str(tokens[start].attrGet("href")), "".join(token.content for token in tokens[start:k])
    return "</span>" if address == text else f" ({html.escape(address)})</span>"


def _image(token: Token, picture: Callable[[str], str | None]) -> str:
    source = str(token.attrGet("src") or "")
    address = picture(re.sub("^attachment:", "", source)) if source.startswith("attachment:") else None
    if not address and source.startswith("data:image/"):
        try:
            address = data_url(base64.b64decode(source.partition(",")[2]))
        except ValueError:
            address = None
    if not address:
        return f'<span class="link">[a picture that is not in the notebook: {html.escape(source[:200])}]</span>'
    return f'<img alt="{html.escape(token.content)}" src="{html.escape(address)}">'


STARRED = ("operatorname", "hspace", "vspace", "tag", "DeclareMathOperator", "newcommand", "renewcommand", "providecommand")


def _prepared(formula: str) -> str:
    """The formula in the words that math-core knows, where MathJax, which students see, knows more."""
    text = formula.strip()[:LONGEST_FORMULA]
    text = re.sub(r"(?<!\\)\\\n", r"\\ ", text)  # a space that stands at the end of a line
    text = re.sub(r"\\DeclareMathOperator\*?\s*\{?\\([A-Za-z]+)\}?\s*\{([^{}]*)\}", r"\\def\\\1{\\operatorname{\2}}", text)
    text = re.sub(r"\\(?:re|provide)?newcommand\*?\s*\{?\\([A-Za-z]+)\}?\s*(?:\[(\d)\])?", _defined, text)
    text = re.sub(r"\\([A-Za-z]+)\*", lambda found: found[0] if found[1] in STARRED else rf"\{found[1]} *", text)
    text = re.sub(r"\\(?:label|ref|eqref)\s*\{[^{}]*\}|\\(?:nonumber|notag)(?![A-Za-z])", "", text)
    text = re.sub(r"\\tag\*?\s*\{([^{}]*)\}", r"\\qquad\\text{(\1)}", text)
    text = re.sub(r"\\(begin|end)\s*\{(?:align|eqnarray|flalign)\*?\}", r"\\\1{aligned}", text)
    text = re.sub(r"\\(begin|end)\s*\{(?:gather|multline)\*?\}", r"\\\1{gathered}", text)
    text = re.sub(r"\\(begin|end)\s*\{(?:equation|displaymath|math)\*?\}", "", text)
    text = re.sub(r"\\substack\s*\{([^{}]*)\}", r"\\begin{gathered}\1\\end{gathered}", text)
    return re.sub(r"\\(text|mbox|textrm)\s*\{([^{}]*\$[^{}]*)\}", _mixed, text)


def _defined(found: re.Match) -> str:
    return rf"\def\{found[1]}" + "".join(f"#{k + 1}" for k in range(int(found[2] or 0)))


def _mixed(found: re.Match) -> str:
    """Text with formulas in it, as pieces of text and formulas."""
    pieces = found[2].split("$")
    return "".join(piece if k % 2 else rf"\text{{{piece}}}" for k, piece in enumerate(pieces) if piece)


@lru_cache(512)
def _mathml(formulas: tuple[tuple[str, bool], ...]) -> list[str | None]:
    """The MathML of formulas that stand in one text; None for what cannot be read, or not in the time there is."""
    made: list[str | None] = []
    if not typesets():
        return [None] * len(formulas)
    rest, left = formulas[:MOST_FORMULAS], SECONDS
    for _ in range(3):  # what comes after one that ends the process is asked for again
        if len(made) >= len(rest):
            break
        try:
            arguments = [sys.executable, "-P", str(WORKER)]
            asked = json.dumps(rest[len(made) :]).encode()
            output = subprocess.run(arguments, input=asked, capture_output=True, timeout=left).stdout
        except subprocess.TimeoutExpired as stopped:
            output, left = stopped.stdout or b"", 1.0
        made += [json.loads(line) for line in output.split(b"\n")[:-1]]
        made += [None] if len(made) < len(rest) else []
    return made + [None] * (len(formulas) - len(made))
