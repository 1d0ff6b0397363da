"""Rooms whose modules are attributes, imported when they are first asked for: ``import dynot_lite`` stays quick."""

import importlib
from collections.abc import Callable
from types import ModuleType


def lazily(package: str, *modules: str) -> Callable[[str], ModuleType]:
    """The ``__getattr__`` of ``package``, which imports one of its ``modules`` on first use."""

    def attribute(name: str) -> ModuleType:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; its modules are {', '.join(modules)}")
        return importlib.import_module(f"{package}.{name}")

    return attribute
