"""The oracles: a module or package per problem set, whose ``CHECKS`` say, per graded part, what is asked and what is right.

Never imported by the process of a submission, whose sandbox does not even show this folder.
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from dynot_lite.companion import ledger
from dynot_lite.course.oracle.compare import Check, residual

__all__ = ["checks", "claim_part"]


def checks(name: str) -> Mapping[str, Sequence[Check]]:
    """The checks of the problem set ``name`` (PS1) by graded part; empty if it has no module here."""
    module = f"{__name__}.{name.lower()}"
    try:
        return importlib.import_module(module).CHECKS
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return {}


def claim_part(identifier: str, namespace: Mapping[str, Any]) -> None:
    """The hidden test of part ``identifier`` (PS1-3) inside a notebook: its residual, as a claim of the ledger.

    ``namespace`` is the notebook's ``globals()``; it must hold the part's functions, ``preset`` and ``seed``.
    """
    entry = ledger.registry()[identifier]
    ledger.start(entry.notebook, preset=namespace["preset"], seed=namespace["seed"])
    asked = checks(identifier.split("-")[0])[identifier.lower()]
    ledger.claim(identifier, residual(asked, namespace, namespace["seed"]))
