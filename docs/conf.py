"""The settings of the book. "python3 run.py book" runs Sphinx with them; its pages are made by pages.py, beside this file."""

import sys
from pathlib import Path

import dynot_lite

sys.path.insert(0, str(Path(__file__).parent))

project, author, language = "dynot_lite", "the dynot_lite developers", "en"
project_copyright = f"{author}, MIT licence"
version = release = dynot_lite.__version__
# What githubpages adds is a file .nojekyll: folders whose names begin with an underscore must be served.
extensions = ["myst_nb", *(f"sphinx.ext.{name}" for name in ("autodoc", "napoleon", "viewcode", "githubpages")), "extension"]
exclude_patterns = ["download"]

# Of notebooks what is stored, and nothing executed; tables that a cell makes are Markdown, too.
nb_execution_mode, nb_render_markdown_format, nb_merge_streams = "off", "myst", True
nb_code_prompt_show = nb_code_prompt_hide = "Parameters"  # the only cells that are folded
myst_enable_extensions, myst_heading_anchors = ["dollarmath", "amsmath", "attrs_block"], 3

napoleon_numpy_docstring, autodoc_member_order, autodoc_typehints = False, "bysource", "signature"
add_module_names, toc_object_entries_show_parents = False, "hide"
viewcode_follow_imported_members = False  # the source of what another module defines would link to missing entries

html_theme, html_title, html_favicon, html_static_path = "furo", "dynot_lite", "_static/favicon.svg", ["_static"]
pygments_dark_style = "github-dark"  # the theme's own underlines what is imported, as if it were a link
html_math_renderer = "katex"
html_css_files = ["katex/katex.min.css", "book.css"]
# book.js must come after Sphinx's own scripts, which it mends: no priority of its own.
html_js_files = ["book.js", ("katex/katex.min.js", {"defer": "defer"}), ("maths.js", {"defer": "defer"})]
html_show_sourcelink = html_copy_source = html_domain_indices = False
