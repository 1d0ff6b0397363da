"""The book: the site that ``python3 run.py book`` builds of what is stored here. What its pages say is in ``docs/pages.py``."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from dynot_lite.companion.ledger import PACKAGE
from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.companion.processes import holding

__all__ = ["build"]

NEEDED = ("sphinx", "myst_nb", "furo")


def build(home: Path) -> Path:
    """Build the site ``build/book`` of the clone ``home`` anew, and return its first page; nothing is executed.

    Its sources are left in ``build/book-source``. Raises NotebookError if Sphinx is missing or finds a fault: every warning
    is one.
    """
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise NotebookError(f"the book needs {', '.join(missing)}: pip install -c constraints.txt -e .[book]")
    source, site, work = (home / "build" / name for name in ("book-source", "book", "book-work"))
    with holding(work):
        for folder in (source, site, work / "doctrees"):
            shutil.rmtree(folder, ignore_errors=True)
        source.mkdir(parents=True)
        command = [sys.executable, "-P", "-m", "sphinx", "-q", "-W", "--keep-going", "-j", "2", "-b", "html"]
        command += ["-c", str(home / "docs"), "-d", str(work / "doctrees"), str(source), str(site)]
        # Of this clone: also where another one is installed.
        environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent), "PYTHONUTF8": "1"}
        if subprocess.run(command, env=environment).returncode:
            raise NotebookError("the book has faults: see the warnings above")
    return site / "index.html"
