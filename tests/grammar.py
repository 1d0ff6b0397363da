"""The grammar of solving, read off the package: the table in CONTRIBUTING, and what leaves the vocabulary.

``python tests/grammar.py`` writes the table between the two marks in CONTRIBUTING.md.
"""

import dataclasses
import importlib
import inspect
import re
from pathlib import Path

from dynot_lite._base.results import Result

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- grammar:begin (python tests/grammar.py) -->", "<!-- grammar:end -->"
ROOMS = ("paths", "laws", "grids", "couplings", "potentials", "matching", "datasets")

# What every fit and solve may be told, under one name and with one meaning.
SHARED = {
    "weights0": "probability weights of x0",
    "weights1": "probability weights of x1",
    "weights": "probability weights of the one cloud there is",
    "tol": "the error that is accepted; what error, the function says",
    "max_iterations": "the budget of what runs to a tolerance; what an iteration is, the function says",
    "steps": "of an integrator or of training: their number, which is the request",
    "seconds": "a budget of time; the function says of which clock",
    "batch": "points or pairs per step",
    "learning_rate": "of the optimiser, at its largest",
    "start": "a first guess",
    "generator": "source of all random numbers",
    "progress": "show a bar: True, False, None for a terminal only",
    "checkpoint": "a file to save to and to go on from",
    "callback": "called from time to time with what there is so far",
}
# What only one subject has. A new name here is a decision: look first whether an old one means the same.
SUBJECT = {
    "atol", "augment", "beta", "boundary", "classes", "clip", "compile", "components", "conditions", "cost", "cross_cov",
    "degree", "depth", "dtype", "ema", "epsilon", "folder", "folds", "group", "growth_length", "heads", "interpolant",
    "labels", "like", "loss", "margin", "mask", "mass", "matrix", "mean", "method", "noise", "offset", "pole",
    "potential", "potentials", "precision", "probes", "product", "quadrature", "ridge", "rtol", "samples", "scale",
    "schedule", "sigma", "size", "squares", "strength", "sweeps", "t", "t0", "t1", "temperature", "time_weight", "times",
    "warm_up", "width", "workers",
}  # fmt: skip
# Names that mean what one of the names above means.
FORBIDDEN = {
    "max_iter", "max_steps", "max_epochs", "n_iter", "niter", "maxiter", "numItermax", "iterations", "epochs", "n_steps",
    "num_steps",
    "evaluations", "nfe", "lr", "rate", "batch_size", "tol_chi2", "tolerance", "eps", "reg", "on_epoch", "on_step", "rng",
    "verbose", "show_progress", "a", "b", "weights_x", "weights_y", "init", "initial",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Entry:
    """A public function or method: its data (positional), options (keyword-only), and what it returns."""

    room: str
    name: str
    data: tuple[str, ...]
    options: tuple[str, ...]
    returns: str
    function: object
    signature: inspect.Signature


def modules():
    """Every public module of the rooms, and of metrics."""
    for room in ROOMS:
        for path in sorted((ROOT / "dynot_lite" / room).glob("[a-z]*.py")):
            yield importlib.import_module(f"dynot_lite.{room}.{path.stem}")
    yield importlib.import_module("dynot_lite.metrics")


def entries():
    """All public functions, classes (their constructors) and methods of what ``__all__`` names."""
    for module in modules():
        place = module.__name__.removeprefix("dynot_lite.")
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if inspect.isclass(thing):
                if "__init__" in vars(thing) and not dataclasses.is_dataclass(thing):
                    yield entry(place, name, thing.__init__, thing.__name__)
                for method, function in vars(thing).items():
                    if method.startswith("_") and method != "__call__":
                        continue
                    if isinstance(function, (staticmethod, classmethod)):
                        function = function.__func__
                    if inspect.isfunction(function):
                        yield entry(place, name if method == "__call__" else f"{name}.{method}", function)
            elif inspect.isfunction(thing):
                yield entry(place, name, thing)


def entry(place: str, name: str, function, returns: str | None = None) -> Entry:
    signature = inspect.signature(inspect.unwrap(function))
    parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    data = tuple(("*" if p.kind is p.VAR_POSITIONAL else "") + p.name for p in parameters if p.kind < p.KEYWORD_ONLY)
    options = tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
    if returns is None and signature.return_annotation is not signature.empty:
        # A name as a name, whether the module keeps its annotations as text or not.
        returns = re.sub(r"[\w.]+\.(\w+)", r"\1", inspect.formatannotation(signature.return_annotation)).strip("'\"")
    return Entry(place, name, data, options, returns or "?", function, signature)


def solves(item: Entry) -> bool:
    """Whether it belongs in the table: it runs to a tolerance or a budget, fits, or is a loss."""
    last = item.name.split(".")[-1]
    words = {"fit", "solve", "loss", "certificate", "prepare", "sample", "reflow"}
    return last in words or last.endswith(("_loss", "_plan")) or bool({"tol", "max_iterations", "checkpoint"} & set(item.options))


def table() -> str:
    lines = ["| where | function | data | options | gives |", "|---|---|---|---|---|"]
    for item in entries():
        if solves(item):
            more = [parameter.name for parameter in item.signature.parameters.values() if parameter.kind is parameter.VAR_KEYWORD]
            names = [f"**{name}**" if name in SHARED else name for name in item.options] + [f"*further {name}*" for name in more]
            options = ", ".join(names) or "–"
            returns = item.returns.replace("|", "\\|")
            lines.append(
                f"| `{item.room}` | `{item.name}` | {', '.join(item.data)} | {options} | {returns} |".replace(
                    "*conditions", "\\*conditions"
                )
            )
    return "\n".join(lines) + "\n"


def refreshed(text: str) -> str:
    """``text`` with the table of today between the two marks."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table()}{END}{after}"


def results():
    """Every public result class."""
    for module in modules():
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if inspect.isclass(thing) and issubclass(thing, Result):
                yield thing


if __name__ == "__main__":
    path = ROOT / "CONTRIBUTING.md"
    path.write_text(refreshed(path.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
