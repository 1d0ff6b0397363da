"""Typeset formulas, in a process of its own: the library is native code, which a hostile formula can crash or keep busy.

Standard input has a JSON list of [formula, whether it is displayed]; each line of standard output is the MathML of one, or null.
Definitions of commands hold for the formulas that follow. It imports nothing of this package.
"""

import contextlib
import json
import sys

import math_core

LONGEST = 2**18
MACROS = {"mathds": r"\mathbb", "mathbbm": r"\mathbb", "bm": r"\boldsymbol", "qed": r"\blacksquare", "qedhere": r"\square"}


def main() -> None:
    """Write one line per formula, at once: what comes after one that ends the process can be asked for again."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
    converter = math_core.LatexToMathML(
        ignore_unknown_commands=True, allow_unreliable_rendering=True, fancy_error=False, global_group=True, macros=MACROS
    )
    for formula, display in json.load(sys.stdin):
        made = None
        with contextlib.suppress(Exception):
            made = converter.convert_with_global_state(formula, displaystyle=display)
        sys.stdout.write(json.dumps(made if made and len(made) <= LONGEST else None) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
