"""Fixtures for the tests of the companion: small notebooks with a small registry, in a folder of their own."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import matplotlib
import pytest

matplotlib.use("Agg")
pytest.register_assert_rewrite("course_grading")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PARAMETERS = '# %% tags=["parameters"]\npreset = "quick"\nseed = 0\n'

# The registry of a test stands beside its notebooks, not in the package.
LEDGER = """
# %%
import functools
from pathlib import Path
from dynot_lite.companion import claim, ledger, show, start
ledger.registry = functools.partial(ledger.read_registry, Path("claims"))
start({name!r}, preset=preset, seed=seed)
"""


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """A figure that a test leaves open is none of the next one's, nor are modes of torch that a notebook's code has set."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")
    if torch := sys.modules.get("torch"):
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)


@pytest.fixture(scope="module")
def chrome():
    """A browser without network, if there is one."""
    api = pytest.importorskip("playwright.sync_api", reason="the extra [book] is not installed")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no browser: none of " + ", ".join(BROWSERS))
    arguments = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]  # no network
    with api.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def write_notebook() -> Callable[..., Path]:
    """A function that writes ``folder/NAME.py`` with a parameter cell, the ledger if wanted, and the given cells."""

    def write(folder: Path, name: str, *cells: str, ledger: bool = False) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        parts = [PARAMETERS, LEDGER.format(name=name) if ledger else "", *(f"# %%\n{textwrap.dedent(cell)}" for cell in cells)]
        path = folder / f"{name}.py"
        path.write_text("\n".join(parts), encoding="utf-8")
        return path

    return write
