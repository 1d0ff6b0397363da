"""Where results come from: the revision, the versions, and all that a notebook imports, as one hash."""

import ast
import datetime
import functools
import hashlib
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dynot_lite._base.folder import data_folder
from dynot_lite.companion.benchmark import PEERS
from dynot_lite.companion.ledger import PACKAGE, changes, git
from dynot_lite.companion.notebooks import FIXED, NUMERICAL, name_of

__all__ = ["fingerprint", "peers", "provenance", "reached", "sha256"]


def provenance(*, preset: str, seed: int) -> dict[str, Any]:
    """Where results come from: interpreter, platform, versions of all packages, preset, seed, git revision, UTC time."""
    changed = changes(PACKAGE.parent)
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "preset": preset,
        "seed": seed,
        "revision": git(PACKAGE.parent, "rev-parse", "HEAD"),
        "uncommitted_changes": None if changed is None else bool(changed),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "packages": _installed(),
        "peers": peers(),
    }


def peers() -> dict[str, str]:
    """The versions of the peers that are installed."""
    return _versions([str(PEERS)])


@functools.cache
def _installed() -> dict[str, str]:
    return _versions(sys.path)


def _versions(path: list[str]) -> dict[str, str]:
    found = {item.metadata["Name"]: item.version for item in importlib.metadata.distributions(path=path)}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


# ------------------------------------------------------------------------------------------------------- fingerprint


def sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(source: Path, *, preset: str, seed: int, package: Path = PACKAGE, text: bool = True) -> str:
    """The SHA-256 of all that the results of the notebook ``source`` depend on; without ``text``, its own and its claims aside.

    These are its source and claims, the files of the package that it imports and their data, the files in the folder of
    data if one of them reads that, the versions of what is imported or pinned, the interpreter, the peers, ``preset``,
    ``seed``, and the variables of the kernel's environment that can change a number.
    """
    files, modules = reached(source, package)
    code = source.read_text(encoding="utf-8")
    folders = {path.parent for path in files} - {package}
    data = {path for folder in folders for path in folder.rglob("*") if path.suffix not in (".py", ".pyc", ".toml")}
    claims = "**/*" if re.search(r"\bregistry\b", code) else name_of(source)
    pins = package.parent / "constraints.txt"
    named = set(re.findall(r"(?m)^[\w.-]+(?===)", pins.read_text(encoding="utf-8"))) if pins.exists() else set()
    named |= {name for module in modules for name in _distributions().get(module, ())}
    named = {_normal(name) for name in named}
    versions = [(name, version) for name, version in _installed().items() if _normal(name) in named]
    environment = FIXED | {name: os.environ.get(name, "") for name in NUMERICAL}
    parts = [preset, seed, sys.version, platform.machine(), sorted(environment.items()), peers(), versions]
    digest = hashlib.sha256(repr(parts).encode())
    listed = [(path.relative_to(package).as_posix(), path) for path in {*files, *data} if path.is_file()]
    if text:
        listed += [("source", source)]
        listed += [(path.name, path) for path in (package / "companion" / "claims").glob(f"{claims}.toml")]
    folder = data_folder()
    if folder and any("data_folder" in path.read_text(encoding="utf-8") for path in files):
        listed += [(path.name, path) for kind in ("*.pt", "*.npz") for path in folder.glob(kind)]
    for name, path in sorted(listed):
        digest.update(f"\0{name}\0{sha256(path)}".encode())
    return digest.hexdigest()


def reached(source: Path, package: Path = PACKAGE) -> tuple[set[Path], set[str]]:
    """The files of ``package`` that importing what ``source`` imports can execute, and the names of the other modules.

    A folder of the package that is itself given a name counts with all its files, because its modules are attributes that
    are imported when they are asked for; so does one whose ``__init__.py`` imports by computed names.
    """
    files: set[Path] = set()
    modules: set[str] = set()
    waiting = [source]
    while waiting:
        for name in _imports(waiting.pop().read_text(encoding="utf-8")):
            top, *parts = name.split(".")
            if top != package.name:
                modules.add(top)
                continue
            found = set(_files(package, parts)) - files
            files |= found
            waiting += found
    return files, modules


@functools.lru_cache(1000)
def _imports(text: str) -> tuple[str, ...]:
    """What a Python file imports, dotted; of ``from a import b`` that is ``a.b``, which may be a module or a name in it."""
    names: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(names)


def _files(package: Path, parts: list[str]) -> Iterator[Path]:
    """The files that importing ``package.part.part`` executes, or may execute later."""
    folder = package
    for part in parts:
        first = folder / "__init__.py"
        yield first
        if "import_module(" in first.read_text(encoding="utf-8"):
            yield from folder.rglob("*.py")
        if not (folder / part).is_dir():
            if (folder / f"{part}.py").exists():
                yield folder / f"{part}.py"
            return
        folder /= part
    yield from folder.rglob("*.py")


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
