"""Relative links: in every notebook and every page, to files that exist, and in pages to headings that exist."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from dynot_lite.companion import notebooks

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (".", "figures", "notebooks", "notebooks/assignments", "notebooks/proofs")
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in FOLDERS
    for path in (ROOT / folder).iterdir()
    if path.suffix == ".md" or (path.suffix == ".py" and folder.startswith("notebooks"))
)
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?\s*\)")


def words_of(path):
    """The text of a page or of a notebook, without code and formulas."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        text = "\n\n".join(cell.source for cell in notebooks.read_source(path).cells if cell.cell_type == "markdown")
    text = re.sub(r"```.*?```|`[^`\n]*`", " ", text, flags=re.DOTALL)
    return re.sub(r"\$\$.*?\$\$|\$[^$]+\$", "x", text, flags=re.DOTALL)


def anchors(path):
    """The anchors of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", words_of(path), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def dead(path):
    """The links that lead nowhere."""
    found = []
    for link in LINK.findall(words_of(path)):
        name, _, anchor = unquote(link).partition("#")
        target = path.parent / name if name else path
        if re.match(r"\w+:", link):
            continue
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_relative_link_leads_somewhere(name):
    assert dead(ROOT / name) == []


def test_dead_links_are_found(tmp_path):
    (tmp_path / "b.md").write_text("# One: Two\n", encoding="utf-8")
    text = "[a](b.md) [b](b.md#one-two) [c](b.md#three) [d](absent.ipynb) [e](https://x.org/y) `[f](g)` [h](#here) $f[x](y)$"
    (tmp_path / "a.md").write_text(text + "\n\n## Here\n", encoding="utf-8")
    assert dead(tmp_path / "a.md") == ["b.md#three", "absent.ipynb"]
    (tmp_path / "c.py").write_text("# %% [markdown]\n# [x](gone.png)\n\n# %%\na = 1  # [y](none)\n", encoding="utf-8")
    assert dead(tmp_path / "c.py") == ["gone.png"]
