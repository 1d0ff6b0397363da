"""Where a submission could find an answer: every copy of the oracles and of the solved notebooks below the folders that it sees.

They are found by their names from outside, and covered; then :data:`AUDIT` looks for them once more from inside the sandbox, by
other marks, before the first submission runs.
"""

import functools
import os
import re
import zipfile
from collections.abc import Iterable

__all__ = ["AUDIT", "around", "copies"]

SOLVED = re.compile(r"PS\d+_\w+\.(py|ipynb|html|md)$")
ARCHIVE = re.compile(r"\.(whl|egg|zip|pyz|tar|tgz|tar\.\w+)$", re.IGNORECASE)
INSIDE = re.compile(r"(^|/)(course/oracle/|assignments/PS\d)")

# Prints what it finds: solved notebooks, and modules of the oracles, as source or compiled, in a folder "oracle" or an archive.
AUDIT = r"""
import os, re, sys, zipfile
telling = re.compile(r"(^|/)(oracle/(__pycache__/|\w+/)*(closed_forms|ps\d\w*)\.[^/]*|PS\d+_\w+\.(py|ipynb))$")
found, folders = [], ["/"]
def members(path):
    try:
        return zipfile.ZipFile(path).namelist()
    except (OSError, zipfile.BadZipFile):
        return []
while folders:
    try:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                name = entry.name
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif name.startswith(("closed_forms", "ps", "PS")):
                    if telling.search(entry.path) and entry.stat().st_size:
                        found.append(entry.path)
                elif name.endswith((".whl", ".egg", ".zip", ".pyz")):
                    if any(map(telling.search, members(entry.path))):
                        found.append(entry.path)
    except OSError:
        pass
sys.stdout.buffer.write("\n".join(found[:5]).encode("utf-8", "backslashreplace"))
"""


@functools.cache
def copies(shown: tuple[str, ...]) -> tuple[str, ...]:
    """The folders and files with answers below ``shown``. No link is followed: it leads to what is shown, or nowhere."""
    found, waiting = [], [path for path in shown if os.path.isdir(path)]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                content = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        except OSError:
            continue
        for name, is_folder in content.items():
            path = os.path.join(folder, name)
            if _telling(folder, content, name) if is_folder else _solved(path):
                found.append(path)
            elif is_folder:
                waiting.append(path)
    return tuple(sorted(found, key=len))


def _telling(folder: str, siblings: Iterable[str], name: str) -> bool:
    """Whether a folder has answers: the course, the bounds of the claims, all but the package in a clone, and any history."""
    within = os.path.basename(folder)
    clone = "dynot_lite" in siblings and ("notebooks" in siblings or ".git" in siblings)
    return (
        (within == "dynot_lite" and name == "course")
        or (within == "companion" and name == "claims")
        or name.endswith(".git")
        or (name == "oracle" and os.path.exists(os.path.join(folder, name, "closed_forms.py")))
        or (clone and name in ("notebooks", "tests", "figures", "docs", "build"))
    )


def _solved(path: str) -> bool:
    name = os.path.basename(path)
    if not ARCHIVE.search(name):
        return bool(SOLVED.match(name))
    if re.match("dynot.?lite", name, re.IGNORECASE):
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return any(INSIDE.search(entry) for entry in archive.namelist())
    except (OSError, zipfile.BadZipFile, RuntimeError):
        return False


def around(path: str, kept: Iterable[str]) -> list[str]:
    """What to cover so that nothing at ``path`` is seen but the folders ``kept`` that lie in it."""
    inside = [other for other in kept if other == path or other.startswith(path.rstrip("/") + "/")]
    if path in inside:
        return []
    if not inside:
        return [path]
    return [part for entry in os.scandir(path) for part in around(entry.path, inside)]
