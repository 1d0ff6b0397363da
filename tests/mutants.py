"""Mutants: plausible one-line faults, put into the numerical modules one at a time; the tests of the room must find each.

    python tests/mutants.py --count 300                # a seeded choice over all modules, results in build/mutants.jsonl
    python tests/mutants.py --module grids.certificates --count 1000 --list

A mutant is named ``module:kind:source line with {old -> new}``, by the text and not by line numbers, so that names last while
the line does. The choice takes the smallest hashes of seed and name: another mutant elsewhere does not change it. A run goes
on where the last one stopped; mutants whose module has changed run again, and so do survivors if the room's tests have.

The libraries for this (mutmut, cosmic-ray) have generic operators only: they know no transposes, axes, halves, ends of a
coupling or detached values. And they start an interpreter for each mutant, where importing torch alone takes longer than most
tests here. This process loads what the tests import, but nothing of the package, and forks for each mutant; the child imports
the package with the mutated source in the place of one module, and runs the tests of the room that reach the mutated line, the
quickest first, until one fails. Which these are, one run of the room under ``coverage`` tells (kept in build/ until a source or
a test changes). A mutant that hangs counts as found. Not run, because of their time: tests that take more than ``SLOW`` seconds.

``tests/mutants.toml`` lists mutants that are always chosen, what is called certified, and with its reason each mutant that no
test can find (``equivalent``, not run) or that survives, since no promised result changes (``survives``, counted as such).
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import math
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import tomllib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, TESTS, BUILD, LIST = ROOT / "dynot_lite", ROOT / "tests", ROOT / "build", ROOT / "tests" / "mutants.toml"
ROOMS = ("_base", "paths", "laws", "grids", "couplings", "potentials", "matching", "datasets", "metrics")
SLOW = 6.0  # seconds of a processor, under coverage
MEMORY = 6 * 2**30  # bytes of data of a child
LEAST = 4  # mutants of a module, if it has as many
PYTEST = ["-x", "-q", "-p", "no:cacheprovider", "--no-header", "--no-summary"]

OPPOSITE = {ast.Add: "-", ast.Sub: "+"}
SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**", ast.MatMult: "@", ast.FloorDiv: "//"}
EDGES = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">"}
ENDS = ("x0 x1", "weights0 weights1", "mu nu", "p q", "source target", "a b", "f g", "phi psi", "t0 t1", "r t", "lower upper")
ENDS += ("means0 means1", "covs0 covs1", "start end", "alpha beta", "low high", "potential0 potential1", "costs.mT costs", "x y")
SWAPS = {pair for ends in ENDS for pair in (tuple(ends.split()), tuple(reversed(ends.split())))}
OTHERS = {"min": "max", "amin": "amax", "minimum": "maximum", "argmin": "argmax", "floor": "ceil", "any": "all", "sub": "add"}
OTHERS |= {"logical_and": "logical_or", "sum": "mean", "zeros_like": "ones_like"}
OTHERS |= {other: name for name, other in OTHERS.items()} | {"cumsum": "cumprod", "sqrt": "abs"}
REDUCTIONS = {"sum", "mean", "amin", "amax", "min", "max", "prod", "norm", "logsumexp", "softmax", "log_softmax", "cumsum", "any"}
REDUCTIONS |= {"all", "std", "var", "argmin", "argmax", "diff", "unsqueeze", "squeeze", "flatten", "sort", "argsort", "take"}
REDUCTIONS |= {"gather", "stack", "cat", "concatenate", "movedim", "eye", "median"}
DROPPED = {"detach", "clone", "contiguous", "sqrt", "square", "abs", "clamp", "log", "exp"}
ARGUMENTS = {"start", "weights", "weights0", "weights1", "like", "dim", "cross_cov", "generator", "least"}
AXES = {"-1": "0", "0": "-1", "1": "0", "2": "1", "-2": "-1", "-3": "-2"}
SKIPPED = (ast.Raise, ast.JoinedStr, ast.arguments, ast.AnnAssign, ast.Import, ast.ImportFrom)
ATOMS = (ast.Name, ast.Constant, ast.Call, ast.Attribute, ast.Subscript, ast.Tuple, ast.List)


@dataclass(frozen=True)
class Mutant:
    """A module with one change: its name, where it is (``module.function`` or ``module.Class.method``), old and new source, and
    the lines of the statement that the change is in.
    """

    name: str
    module: str
    place: str
    original: str
    source: str
    lines: range

    def rank(self, seed: int) -> str:
        return hashlib.sha256(f"{seed} {self.name}".encode()).hexdigest()

    def sound(self) -> bool:
        """Whether the change is one, and can be compiled."""
        with contextlib.suppress(SyntaxError):
            return bool(compile(self.source, self.module, "exec")) and self.source != self.original
        return False


def changes(node: ast.AST, text: Callable[[ast.AST], str]) -> Iterator[tuple[str, ast.AST, str]]:
    """(kind, part of the source, what is put there) for each plausible fault in one node."""
    if isinstance(node, ast.BinOp) and not isinstance(node.op, ast.Mod) and type(node.op) in SIGNS:
        left, right, op = text(node.left), text(node.right), type(node.op)
        numbers = [isinstance(side, ast.Constant) for side in (node.left, node.right)]
        if any(isinstance(getattr(side, "value", None), str) for side in (node.left, node.right)):
            return
        if op in OPPOSITE:
            yield "sign", node, f"({left} {OPPOSITE[op]} {right})"
            yield "term", node, left
            yield "term", node, right if op is ast.Add else f"(-{right})"
        elif op is ast.MatMult:
            yield "transpose", node, f"({left}.mT @ {right})"
            yield "transpose", node, f"({right} @ {left})"
        elif op is ast.Mult:
            for dropped, kept, rest in ((numbers[0], numbers[1], right), (numbers[1], numbers[0], left)):
                if not kept:
                    yield "half" if dropped else "factor", node, rest
        elif op is ast.Div:
            yield "half" if numbers[1] else "factor", node, left
            yield "factor", node, f"({left} * {right})"
        elif op is ast.Pow:
            yield "power", node, left
        for side, other in ((node.left, node.right), (node.right, node.left)):
            if _number(side) and op is not ast.Pow and not _number(other):
                yield "constant", side, repr(2 * side.value)
    elif isinstance(node, ast.AugAssign) and type(node.op) in SIGNS:
        wrong = {ast.Add: "-=", ast.Sub: "+=", ast.Mult: "/=", ast.Div: "*="}.get(type(node.op))
        if wrong:
            yield "sign", node, f"{text(node.target)} {wrong} {text(node.value)}"
        yield "term", node, "pass"
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant):
        if isinstance(node.op, (ast.USub, ast.Not)):
            yield "sign", node, text(node.operand)
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in EDGES:
        yield "edge", node, f"({text(node.left)} {EDGES[type(node.ops[0])]} {text(node.comparators[0])})"
    elif isinstance(node, ast.BoolOp):
        word = " or " if isinstance(node.op, ast.And) else " and "
        yield "logic", node, f"({word.join(map(text, node.values))})"
    elif isinstance(node, ast.If) and all(isinstance(part, ast.Raise) for part in node.body):
        yield "guard", node.test, "False"
    elif isinstance(node, ast.IfExp):
        yield "branch", node, text(node.body)
        yield "branch", node, text(node.orelse)
    elif isinstance(node, ast.Attribute) and node.attr in ("mT", "T"):
        yield "transpose", node, text(node.value)
    elif isinstance(node, ast.Return) and node.value is not None:
        parts = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
        parts = [inner for part in parts for inner in (part.args if isinstance(part, ast.Call) else [part])]
        for part in parts:
            if isinstance(part, ast.BinOp):
                yield "half", part, f"(0.5 * {text(part)})"
    elif isinstance(node, ast.Subscript):
        entries = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        for entry in entries:
            if isinstance(entry, ast.Slice):
                for end in (entry.lower, entry.upper):
                    if end is not None:
                        yield "off by one", end, f"{text(end)} + 1"
            elif text(entry) in ("0", "-1", "1"):
                yield "off by one", entry, {"0": "-1", "-1": "0", "1": "0"}[text(entry)]
    if isinstance(node, (ast.Call, ast.Tuple)):
        parts = node.args if isinstance(node, ast.Call) else node.elts
        symmetric = isinstance(node, ast.Call) and text(node.func).split(".")[-1] in ("min", "max", "minimum", "maximum")
        if isinstance(getattr(node, "ctx", ast.Load()), ast.Load) and not symmetric:
            for one, other in pairwise(parts):
                words = re.sub(r"\b(self|model|static|run)\.", "", text(one)), re.sub(r"\b(self|model)\.", "", text(other))
                if words in SWAPS:
                    yield "swap", (one, other), f"{text(other)}, {text(one)}"
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        begin = f"{text(node.func.value)}." if isinstance(node.func, ast.Attribute) else ""
        if name in OTHERS and (isinstance(node.func, ast.Attribute) or name in ("min", "max", "any", "all")):
            yield "other", node.func, begin + OTHERS[name]
        plain = name == "clamp" or not node.args
        if name in DROPPED and plain and begin not in ("", "torch.", "np.", "math."):
            yield "detach" if name == "detach" else "call", node, text(node.func.value)
        if name == "range" and node.args:
            yield "off by one", node.args[-1 if len(node.args) < 3 else 1], f"{text(node.args[min(len(node.args), 2) - 1])} - 1"
        if name == "where" and len(node.args) == 3:
            yield "swap", (node.args[1], node.args[2]), f"{text(node.args[2])}, {text(node.args[1])}"
        axes = [word.value for word in node.keywords if word.arg in ("dim", "axis")]
        axes += [part for part in node.args if begin and name in REDUCTIONS and text(part) in AXES]
        for axis in axes:
            if text(axis) in AXES:
                yield "axis", axis, AXES[text(axis)]
        for word in node.keywords:
            if isinstance(word.value, ast.Constant) and isinstance(word.value.value, bool) and word.arg not in ("strict", "copy"):
                yield "flag", word.value, str(not word.value.value)
            elif word.arg in ARGUMENTS and text(word.value) not in AXES and not isinstance(word.value, ast.Constant):
                yield "argument", word.value, "None"


def _number(node: ast.AST) -> bool:
    """Whether it is a constant of a formula: a number near one, and no power of ten for rounding."""
    value = getattr(node, "value", None) if isinstance(node, ast.Constant) else None
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0.01 < value < 1000


def mutants(module: str, source: str) -> Iterator[Mutant]:
    """All mutants of a module, in the order of the source."""
    raw, tree = source.encode(), ast.parse(source)
    starts = [0]
    for line in raw.split(b"\n"):
        starts.append(starts[-1] + len(line) + 1)
    begin = lambda node: starts[node.lineno - 1] + node.col_offset
    stop = lambda node: starts[node.end_lineno - 1] + node.end_col_offset
    seen: Counter = Counter()

    def text(node: ast.AST) -> str:
        found = raw[begin(node) : stop(node)].decode()
        return found if isinstance(node, ATOMS) or (isinstance(node, ast.UnaryOp) and _number(node.operand)) else f"({found})"

    def walk(node: ast.AST, lines: range, where: str) -> Iterator[Mutant]:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            where = f"{where}.{node.name}"
        if isinstance(node, ast.stmt):
            last = node.end_lineno if not hasattr(node, "body") else max(node.lineno, node.body[0].lineno - 1)
            lines = range(node.lineno, last + 1)
        for kind, place, new in changes(node, text):
            first, last = (place, place) if isinstance(place, ast.AST) else place
            low, high = begin(first), stop(last)
            changed = (raw[:low] + new.encode() + raw[high:]).decode()
            before, after = starts[first.lineno - 1], starts[last.end_lineno] - 1
            inline = f"{{{raw[low:high].decode()} -> {new}}}"
            shown = re.sub(r"\s+", " ", raw[before:low].decode() + inline + raw[high:after].decode()).strip()
            name = f"{module}:{kind}:{shown}"
            seen[name] += 1
            yield Mutant(name + (f" #{seen[name]}" if seen[name] > 1 else ""), module, where, source, changed, lines)
        apart = [*getattr(node, "decorator_list", []), getattr(node, "returns", None)]
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, SKIPPED) and child not in apart:
                yield from walk(child, lines, where)

    yield from walk(tree, range(0), module)


def sources() -> dict[str, Path]:
    """The modules that are mutated: all numerical ones, but not the program for ``torchrun``, which tests run in processes of its
    own, and which only hands its arguments on.
    """
    files = [
        path for room in ROOMS for path in ([PACKAGE / "metrics.py"] if room == "metrics" else (PACKAGE / room).glob("*.py"))
    ]
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in sorted(files)
        if "__" not in path.name and path.stem != "distributed"
    }


def chosen(everything: list[Mutant], count: int, seed: int, always: set[str], places: list[str]) -> list[Mutant]:
    """``count`` mutants, in proportion over the modules, and those that are always chosen; of these, what lies in ``places``."""
    found = []
    for _, here in groupby(everything, key=lambda mutant: mutant.module):
        ranked = sorted(here, key=lambda mutant: mutant.rank(seed))
        quota = max(LEAST, round(count * len(ranked) / len(everything)))
        first = {mutant.name for mutant in ranked[:quota]} | always
        found += [mutant for mutant in ranked if mutant.name in first and inside(mutant, places) and mutant.sound()]
    return found


def inside(mutant: Mutant, places: list[str]) -> bool:
    """Whether a mutant lies in one of the places, rooms, modules or functions; always if there are none."""
    return not places or any(f"{mutant.place}.".startswith(f"{place}.") for place in places)


def digest(*paths: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(paths))).hexdigest()[:16]


def room_files(room: str) -> tuple[list[Path], list[Path]]:
    """The tests of a room, and its modules (for the examples of their documentation)."""
    if room == "metrics":
        return sorted(TESTS.glob("test_metrics*.py")), [PACKAGE / "metrics.py"]
    return sorted((TESTS / room).glob("test_*.py")), sorted((PACKAGE / room).glob("*.py"))


class Mutated(importlib.abc.MetaPathFinder):
    """Serves the mutated source of one module to whoever imports it."""

    def __init__(self, mutant: Mutant):
        self.name, self.path = f"dynot_lite.{mutant.module}", str(sources()[mutant.module])
        self.code = compile(mutant.source, self.path, "exec", dont_inherit=True)

    def find_spec(self, fullname, path=None, target=None):
        if fullname != self.name:
            return None
        loader = importlib.machinery.SourceFileLoader(fullname, self.path)
        loader.get_code = lambda _: self.code
        return importlib.util.spec_from_file_location(fullname, self.path, loader=loader)


class Selection:
    """A plugin for pytest: puts the mutant in place; only these tests, in this order, each within several times its seconds;
    remembers the first that fails.
    """

    def __init__(self, mutant: Mutant, tests: dict[str, float], tell: Callable[[str], object]):
        self.mutated, self.tests, self.tell = Mutated(mutant), tests, tell
        self.place = {name: k for k, name in enumerate(tests)}

    def pytest_runtest_logstart(self, nodeid, location):
        signal.setitimer(signal.ITIMER_PROF, 5 + 5 * self.tests[nodeid])  # its signal ends the process

    def pytest_sessionstart(self):
        # Not sooner: before it would stand pytest's own importer, which serves the modules whose examples are tests.
        sys.meta_path.insert(0, self.mutated)

    def pytest_collection_modifyitems(self, items):
        items[:] = sorted((item for item in items if item.nodeid in self.place), key=lambda item: self.place[item.nodeid])

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.tell(report.nodeid)


class Survey:
    """A plugin for pytest: how many seconds of a processor each test takes, and which lines it reaches."""

    def __init__(self, coverage):
        self.coverage, self.seconds, self.failed, self.began = coverage, {}, set(), 0.0

    def pytest_runtest_logstart(self, nodeid, location):
        self.coverage.switch_context(nodeid)
        self.began = sum(os.times()[:4])

    def pytest_runtest_logfinish(self, nodeid, location):
        self.seconds[nodeid] = sum(os.times()[:4]) - self.began
        self.coverage.switch_context("")

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.add(report.nodeid)


def fork(work: Callable[[], object], seconds: float = math.inf) -> int:
    """A child, leader of a group of its own, that does ``work`` without a word, within so many seconds of a processor."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        if seconds < math.inf:
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), math.ceil(seconds) + 1))
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        code = int(work() or 0)
    except BaseException:
        code = 70
    finally:
        os._exit(code)


def survey(room: str) -> dict:
    """The map of a room, file by file of its tests: what it depended on, its ``tests`` with their seconds, the ``lines`` they
    reach (module to line to tests), and what it imports. Only files that changed, or all if a module did, run again.
    """
    tests, modules = room_files(room)
    shared = [path for path in TESTS.glob("*.py") if not path.name.startswith("test_") and path.name != "mutants.py"]
    shared += [*modules, *(path for path in (TESTS / room).glob("*.py") if not path.name.startswith("test_"))]
    target, name = BUILD / f"mutants-{room}.json", lambda path: str(path.relative_to(ROOT))
    known = json.loads(target.read_text()) if target.exists() else {}
    keys = {name(path): digest(path, *shared) for path in (*tests, *modules)}
    known = {file: entry for file, entry in known.items() if entry["key"] == keys.get(file)}
    missing = [file for file in keys if file not in known]

    def work():
        import coverage
        import pytest

        collector = coverage.Coverage(data_file=None, source=[str(PACKAGE)], messages=False)
        collector.start()
        plugin = Survey(collector)
        options = [option for option in PYTEST if option != "-x"]
        with tempfile.TemporaryDirectory() as folder:
            pytest.main([*options, f"--basetemp={folder}/t", *missing], plugins=[plugin])
        collector.stop()
        loaded = [name for name, module in sys.modules.items() if not _ours(module) and name != "__main__"]
        found = {file: {"key": keys[file], "tests": {}, "failed": [], "lines": {}, "imports": loaded} for file in missing}
        for test, seconds in plugin.seconds.items():
            entry = found[test.partition("::")[0]]
            if test in plugin.failed:
                entry["failed"].append(test)
            elif seconds <= SLOW:
                entry["tests"][test] = seconds
        data = collector.get_data()
        for path in modules:
            module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
            for line, names in data.contexts_by_lineno(str(path)).items():
                for test in set(names) - {""}:
                    found[test.partition("::")[0]]["lines"].setdefault(module, {}).setdefault(line, []).append(test)
        target.write_text(json.dumps(known | found))

    if missing:
        BUILD.mkdir(exist_ok=True)
        print(f"survey of {room}: {len(missing)} files …", flush=True)
        target.unlink(missing_ok=True)
        os.waitpid(fork(work), 0)
        known = json.loads(target.read_text())
    if failed := [test for entry in known.values() for test in entry["failed"]]:
        print("fails without any mutant, left out:", *failed, sep="\n  ")
    return known


def _ours(module) -> bool:
    """Whether a module is of this repository, or of a test: what children must import themselves."""
    file = getattr(module, "__file__", None)
    return not file or Path(file).is_relative_to(PACKAGE) or Path(file).is_relative_to(TESTS) or "pytest" in file


def preload(names: list[str]) -> None:
    """Import, once for all children, what the tests import beside the package."""
    for name in names:
        if name not in sys.modules:
            with contextlib.suppress(BaseException):
                importlib.import_module(name)
    if any(name.partition(".")[0] == "dynot_lite" for name in sys.modules):
        raise RuntimeError("the package is loaded already: no mutant would be seen")


def selected(mutant: Mutant, found: dict, passed: dict[str, str]) -> dict[str, float]:
    """The tests that reach the mutated statement (if it runs at import, the module), with their seconds, the quickest first; then
    the other quick ones of the same files, for what a fixture or a cache computes is reached by the first test only. Files that
    the mutant has survived, ``passed``, are left out.
    """
    lines = [(entry, entry["lines"].get(mutant.module, {})) for entry in found.values()]
    reach = lambda of: {name for number in mutant.lines for name in of.get(str(number), ())}
    if not any(reach(of) for _, of in lines):
        reach = lambda of: {name for names in of.values() for name in names}
    tests = {}
    for file, (entry, of) in zip(found, lines, strict=True):
        if passed.get(file) != entry["key"] and (near := reach(of)):
            kept = {name: seconds for name, seconds in entry["tests"].items() if name in near or seconds < 1}
            tests |= {name: (name not in near, seconds, name) for name, seconds in kept.items()}
    return {name: tests[name][1] for name in sorted(tests, key=tests.__getitem__)}


def launch(mutant: Mutant, tests: dict[str, float], out: Path) -> int:
    """Start the child of a mutant; the first test that fails goes to ``out``."""

    def work():
        import pytest

        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        files = list(dict.fromkeys(name.partition("::")[0] for name in tests))
        plugin = Selection(mutant, tests, lambda name: out.exists() or out.write_text(name))
        return pytest.main([*PYTEST, f"--basetemp={out}.t", *files], plugins=[plugin])

    return fork(work, 20 + 4 * sum(tests.values()))


def run(todo: list[tuple[Mutant, dict[str, float]]], jobs: int, report: Callable[[Mutant, str, str, float], None]) -> None:
    """Run mutants, ``jobs`` at a time; each ends as found, hung (found, too), survived or untested."""
    waiting, running = list(todo), {}
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            while waiting and len(running) < jobs:
                mutant, tests = waiting.pop(0)
                if tests:
                    out, limit = Path(folder) / str(len(waiting)), 300 + 40 * sum(tests.values())
                    running[launch(mutant, tests, out)] = (mutant, out, time.monotonic(), limit)
                else:
                    report(mutant, "untested", "", 0.0)
            for child, (mutant, out, began, limit) in list(running.items()):
                ended, status = os.waitpid(child, os.WNOHANG)
                spent = time.monotonic() - began
                if not ended and spent < limit:
                    continue
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
                if not ended:
                    os.waitpid(child, 0)
                del running[child]
                shutil.rmtree(f"{out}.t", ignore_errors=True)
                by = out.read_text() if out.exists() else ""
                # 1: a test failed, 2: a module did not import; negative: a crash. Else pytest itself ran nothing.
                code = os.waitstatus_to_exitcode(status) if ended else -signal.SIGXCPU
                hung = code in (-signal.SIGPROF, -signal.SIGXCPU, -signal.SIGKILL)
                report(mutant, "hung" if hung else "survived" if code == 0 else "found" if code < 3 else "untested", by, spent)
            time.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--module", action="append", help="a room, module or function: grids, grids.certificates.lower_bound; may repeat"
    )
    parser.add_argument("--all", action="store_true", help="all mutants there, not a choice")
    parser.add_argument("--count", type=int, default=300, help="so many over all modules")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="print the names and run nothing")
    parser.add_argument("--results", type=Path, default=BUILD / "mutants.jsonl")
    options = parser.parse_args()
    os.chdir(ROOT)
    warnings.simplefilter("ignore", SyntaxWarning)  # of mutants
    known = tomllib.loads(LIST.read_text(encoding="utf-8"))
    same, reasons = ({entry["mutant"]: entry["reason"] for entry in known.get(kind, ())} for kind in ("equivalent", "survives"))
    files = sources()
    everything = [mutant for module, path in files.items() for mutant in mutants(module, path.read_text(encoding="utf-8"))]
    stale = (same.keys() | reasons.keys() | set(known["always"])) - {mutant.name for mutant in everything}
    if stale:
        print("no longer in the source, to be taken out of tests/mutants.toml:", *sorted(stale), sep="\n  ")
    places = options.module or []
    todo = chosen(everything, options.count, options.seed, set(known["always"]), places)
    if options.all:
        todo = [mutant for mutant in everything if inside(mutant, places) and mutant.sound()]
    if options.list:
        print(*(mutant.name for mutant in todo), sep="\n")
        return
    sys.path[:0] = [str(ROOT), str(TESTS)]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    maps = {room: survey(room) for room in dict.fromkeys(mutant.module.split(".")[0] for mutant in todo)}
    imports = {name for found in maps.values() for entry in found.values() for name in entry["imports"]}
    preload(sorted(imports, key=lambda name: (name.count("."), name)))
    done: dict[str, dict] = {}
    for line in options.results.read_text(encoding="utf-8").splitlines() if options.results.exists() else ():
        entry = json.loads(line)
        done[entry["mutant"]] = entry
    files_of = lambda mutant: {file: entry["key"] for file, entry in maps[mutant.module.split(".")[0]].items()}

    def report(mutant: Mutant, verdict: str, by: str, seconds: float) -> None:
        survived = files_of(mutant) if verdict == "survived" else {}
        entry = {"mutant": mutant.name, "verdict": verdict, "by": by, "seconds": round(seconds, 2)}
        done[mutant.name] = entry | {"source": digest(files[mutant.module]), "survived": survived}
        with options.results.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(done[mutant.name], ensure_ascii=False) + "\n")
        print(f"{verdict:9} {seconds:5.1f} s  {mutant.name}", flush=True)

    left = []
    for mutant in todo:
        entry = done.get(mutant.name, {"source": None})
        if mutant.name in same:
            continue
        if entry["source"] != digest(files[mutant.module]) or entry["verdict"] == "untested":
            left.append((mutant, selected(mutant, maps[mutant.module.split(".")[0]], {})))
        elif entry["verdict"] == "survived":
            tests = selected(mutant, maps[mutant.module.split(".")[0]], entry["survived"])
            left += [(mutant, tests)] if tests else []
    run(left, options.jobs, report)
    print(f"\n{'module':38} mutants  found  equivalent  survive")
    score: dict[str, Counter] = {module: Counter() for module in (*dict.fromkeys(mutant.module for mutant in todo), "all")}
    for mutant in todo:
        verdict = "" if mutant.name in same else done[mutant.name]["verdict"]
        result = "found" if verdict in ("found", "hung") else "survive" if verdict else "equivalent"
        score[mutant.module][result] += 1
        score["all"][result] += 1
    for module, count in score.items():
        print(f"{module:38} {count.total():7} {count['found']:6} {count['equivalent']:11} {count['survive']:8}")
    bounds = [mutant for mutant in todo if inside(mutant, known["certified"])]
    print(f"in bounds called certified: {len(bounds)}")
    for mutant in todo:
        if mutant.name not in same and done[mutant.name]["verdict"] in ("survived", "untested"):
            reason = reasons.get(mutant.name, "no reason is listed")
            print(f"survives{' in a certified bound' * (mutant in bounds)}: {mutant.name}\n    {reason}")


if __name__ == "__main__":
    main()
