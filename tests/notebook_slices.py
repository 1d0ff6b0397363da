"""Notebooks run in part, in this process: a claim needs only some statements, and a wrong version only those from its change on.

Static and conservative: a statement is needed if it binds, or may change in place, a name that a needed one reads.
"""

import ast
import contextlib
import copy
import dataclasses
import functools
import os
import symtable
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from dynot_lite import companion
from dynot_lite.companion import ledger, notebooks

DRAWING = ("matplotlib", "dynot_lite.plots", "IPython")
FILLING = {"append", "extend", "add", "update", "insert", "pop", "remove", "clear", "setdefault", "sort"}
CHANGING = {*FILLING, "fit", "step"}
TALK = {"claim", "skip", "say", "show", "print", "start", "claim_part"}
# What changes no result but the random numbers, which do not depend on what else ran: see reseed.
GENERATORS = ("Generator()", "default_rng(")


@dataclass(eq=False)
class Statement:
    """A statement at the top level of a notebook, and the names it has to do with."""

    cell: int
    number: int
    node: ast.stmt
    binds: frozenset[str]  # gives a value to
    uses: frozenset[str]  # reads when it runs
    later: frozenset[str]  # reads when a function that it makes is called
    touches: frozenset[str]  # may change in place
    always: bool  # settings such as the default dtype
    replaces: bool  # what its names were before does not matter
    text: str = field(repr=False, default="")

    def claimed(self) -> set[str]:
        """The identifiers of its claims, "" for one that is known only when it runs."""
        calls = [node for node in ast.walk(self.node) if isinstance(node, ast.Call)]
        first = [node.args[0] for node in calls if getattr(node.func, "id", "") in ("claim", "claim_part")]
        return {node.value if isinstance(node, ast.Constant) else "" for node in first}


@functools.cache
def read_cell(cell: int, source: str, numbers: int = 0) -> list[Statement]:
    """The statements of a cell, numbered from ``numbers`` on."""
    return [read(cell, number, node) for number, node in enumerate(ast.parse(source).body, numbers)]


def read(cell: int, number: int, node: ast.stmt) -> Statement:
    binds, uses, free, later = set(), set(), set(), set()  # free: what functions read that the statement does not bind itself
    _scan([node], set(), binds, uses, free, later)
    touches = set()
    for part in ast.walk(node):
        if isinstance(part, ast.AugAssign):
            touches.add(_base(part.target))
        elif isinstance(part, (ast.Subscript, ast.Attribute)) and isinstance(part.ctx, (ast.Store, ast.Del)):
            touches.add(_base(part))
        elif isinstance(part, ast.Call):
            if isinstance(part.func, ast.Attribute) and (part.func.attr in CHANGING or part.func.attr.endswith("_")):
                touches.add(_base(part.func))
            touches.update(_base(keyword.value) for keyword in part.keywords if keyword.arg == "out")
    for part in ast.walk(node):  # for a, b in ((x, y), ...): a.append(b)
        if isinstance(part, ast.For) and touches & _loads(part.target):
            touches |= _loads(part.iter)
    call = node.value if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) else None
    # Called for what it changes, as x in x.to(float).load_state_dict(y).
    if call and _base(call.func) not in TALK and getattr(call.func, "attr", "") not in FILLING:
        touches.update(_base(part) for part in [call.func, *call.args])
        inner = call.func
        while isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Call):
            inner = inner.value.func
            touches.add(_base(inner))
    return Statement(
        *(cell, number, node, frozenset(binds), frozenset(uses | free), frozenset(later), frozenset(touches - {""})),
        always=bool(call) and _base(call.func) in ("torch", "np"),
        replaces=isinstance(node, (ast.Assign, ast.AnnAssign, ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)),
        text=ast.unparse(node),
    )


def _scan(body: list[ast.stmt], sure: set[str], binds: set[str], uses: set[str], free: set[str], later: set[str]) -> None:
    """Collect the names of a block; ``sure`` are those that it has bound itself by then, which it does not need from before."""
    for node in body:
        match node:
            case ast.For():
                _names(node.iter, sure, uses, free, later)
                inner = _loads(node.target)
                binds |= inner
                _names(node.target, sure | inner, uses, free, later)
                _scan(node.body, sure | inner, binds, uses, free, later)
                _scan(node.orelse, set(sure), binds, uses, free, later)
            case ast.With():
                for item in node.items:
                    _names(item.context_expr, sure, uses, free, later)
                    inner = _loads(item.optional_vars) if item.optional_vars else set()
                    binds |= inner
                    sure |= inner
                _scan(node.body, sure, binds, uses, free, later)
            case ast.If() | ast.While():
                _names(node.test, sure, uses, free, later)
                _scan(node.body, set(sure), binds, uses, free, later)
                _scan(node.orelse, set(sure), binds, uses, free, later)
            case _:
                new, reads, defers = _symbols(node)
                uses |= reads - sure
                later |= defers - sure
                free |= set() if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else defers - sure
                binds |= new
                if not isinstance(node, ast.Try):
                    sure |= new


def _names(node: ast.expr, sure: set[str], uses: set[str], free: set[str], later: set[str]) -> None:
    _, reads, defers = _symbols(node)
    uses |= reads - sure
    free |= defers - sure
    later |= defers - sure


def _symbols(node: ast.AST) -> tuple[set[str], set[str], set[str]]:
    """What a statement binds, what it reads at once, and what functions in it read when they are called."""
    binds, reads, defers = set(), set(), set()

    def visit(table: symtable.SymbolTable, inside: set[str]) -> None:
        for symbol in table.get_symbols():
            if table.get_type() == "module":
                if symbol.is_assigned() or symbol.is_imported():
                    binds.add(symbol.get_name())
                if symbol.is_referenced():
                    inside.add(symbol.get_name())
            elif symbol.is_global() and symbol.is_referenced():
                inside.add(symbol.get_name())
        for child in table.get_children():
            at_once = child.get_name() in ("listcomp", "genexpr", "dictcomp", "setcomp") or child.get_type() == "class"
            visit(child, inside if at_once else defers)

    visit(symtable.symtable(ast.unparse(node), "cell", "exec"), reads)
    reads |= {_base(part.target) for part in ast.walk(node) if isinstance(part, ast.AugAssign)} - {""}
    return binds, reads, defers


def _loads(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _base(node: ast.AST) -> str:
    """The name at the root of ``a.b[c].d``, or nothing."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Starred)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


class Program:
    """The statements of a notebook, or of a wrong version of it, and what each of them needs."""

    def __init__(self, cells: Iterable[str], before: Mapping[int, str] | None = None) -> None:
        self.statements: list[Statement] = []
        for index, source in enumerate(cells):
            # The numbers of the notebook's own statements, which seed their random numbers, stay.
            for text, numbers in (((before or {}).get(index, ""), -1000), (source, 0)):
                self.statements += [copy.copy(statement) for statement in read_cell(index, text, numbers)]
        self._sift()

    def _sift(self) -> None:
        """Take out what a statement is said to change, where it draws, and where it draws random numbers."""
        drawn, generators = {"show"}, set()
        for statement in self.statements:
            node = statement.node
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if any(module.startswith(DRAWING) for module in modules) or statement.uses & drawn:
                drawn |= statement.binds
                statement.touches = frozenset()
            else:
                drawn -= statement.binds
            if any(mark in statement.text for mark in GENERATORS) and isinstance(node, ast.Assign):
                generators |= statement.binds
            statement.touches -= generators

    def targets(self, identifier: str) -> list[int]:
        """The statements that make the claim, or else those that may."""
        claimed = [statement.claimed() for statement in self.statements]
        found = [[index for index, names in enumerate(claimed) if name in names] for name in (identifier, "")]
        assert any(found), f"{identifier} is claimed by no statement"
        return found[0] or found[1]

    def needed(self, identifier: str) -> list[int]:
        """The statements that the claim needs, in order."""
        targets = self.targets(identifier)
        found = {index for index, statement in enumerate(self.statements) if statement.always and index < max(targets)}
        seen: set[tuple[str, int]] = set()
        open_ = [(name, index) for index in {*found, *targets} for name in self._names(index)]
        found |= set(targets)
        while open_:
            name, position = open_.pop()
            if (name, position) in seen:
                continue
            seen.add((name, position))
            for index in self._definers(name, position):
                open_ += [(other, position) for other in self.statements[index].later]
                if index not in found:
                    found.add(index)
                    open_ += [(other, index) for other in self._names(index)]
        return sorted(found)

    def _names(self, index: int) -> frozenset[str]:
        statement = self.statements[index]
        names = statement.uses
        if "globals" in names:  # hands over all functions
            kinds = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
            names = names.union(*(other.binds for other in self.statements[:index] if isinstance(other.node, kinds)))
            names |= {"preset", "seed"}
        return names

    def _definers(self, name: str, position: int) -> Iterator[int]:
        for index in range(position - 1, -1, -1):
            statement = self.statements[index]
            if name in statement.binds or name in statement.touches:
                yield index
                if name in statement.binds and statement.replaces and name not in statement.touches:
                    return


class Kernel:
    """A namespace in which statements run, with the claims that they make."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {}
        self.claimed: dict[str, list[float]] = {}

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Claims are noted and nothing is shown or printed; what a notebook sets for the process is set back."""
        dtype, threads, gradients = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
        silent = lambda *values, **options: None
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), open(os.devnull, "w") as nowhere:
            for module in (companion, ledger):
                patch.setattr(module, "claim", self._claim)
                for name in ("say", "skip", "start", "show"):
                    patch.setattr(module, name, silent, raising=False)
            warnings.simplefilter("ignore")
            patch.setenv("TQDM_DISABLE", "1")
            patch.delenv(ledger.RUN_DIR, raising=False)
            with contextlib.redirect_stdout(nowhere):
                try:
                    yield
                finally:
                    torch.set_default_dtype(dtype)
                    torch.set_num_threads(threads)
                    torch.set_grad_enabled(gradients)

    def _claim(self, identifier: str, value: Any) -> None:
        self.claimed.setdefault(identifier, []).append(float(value.item() if hasattr(value, "item") else value))

    def run(self, statement: Statement) -> None:
        reseed(self.names, 1000 * statement.cell + max(statement.number, 0))
        exec(compile(ast.Module([statement.node], []), f"<cell {statement.cell}>", "exec"), self.names)

    def keep(self) -> dict[str, Any]:
        return {name: _kept(value) for name, value in self.names.items() if name != "__builtins__"}

    def restore(self, names: dict[str, Any]) -> None:
        # In place: functions of the notebook look their names up in this very dictionary.
        self.names.clear()
        self.names.update({name: _kept(value) for name, value in names.items()})
        self.claimed.clear()
        for value in self.names.values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()


def _kept(value: Any, depth: int = 3) -> Any:
    """A copy of containers, which statements fill, and of the containers in them."""
    if type(value) is list and depth:
        return [_kept(entry, depth - 1) for entry in value]
    if type(value) is dict and depth:
        return {key: _kept(entry, depth - 1) for key, entry in value.items()}
    return copy.copy(value) if type(value) is set else value


def reseed(names: Mapping[str, Any], seed: int) -> None:
    """Every statement begins with its own random numbers, so that they do not depend on which statements ran before it."""
    for value in names.values():
        if isinstance(value, torch.Generator):
            value.manual_seed(seed)
        elif isinstance(value, np.random.Generator):
            value.bit_generator.state = np.random.default_rng(seed).bit_generator.state


def cells_of(name: str) -> list[str]:
    """The code cells of a notebook of the repository."""
    source = notebooks.read_source(notebooks.source_path(notebooks.root() / "notebooks", name))
    return [cell.source for cell in source.cells if cell.cell_type == "code"]


@dataclass
class Wrong:
    """A wrong version: ``replace`` by ``by`` in the notebook, or ``before`` run first in the cell of the claim."""

    claim: str
    replace: list[str]
    by: list[str]
    before: str = ""
    raises: bool = False

    @classmethod
    def read(cls, claim: str, fields: Mapping[str, Any]) -> "Wrong":
        unknown = set(fields) - {"replace", "by", "before", "raises"}
        assert not unknown, f"{claim}: unknown keys {sorted(unknown)}"
        texts = {key: [value] if isinstance(value := fields.get(key, []), str) else value for key in ("replace", "by")}
        assert len(texts["replace"]) == len(texts["by"]), f"{claim}: replace and by are pairs"
        assert texts["replace"] or fields.get("before"), f"{claim}: a wrong version changes something"
        return cls(claim, texts["replace"], texts["by"], fields.get("before", ""), fields.get("raises", False))

    def program(self, cells: list[str]) -> Program:
        cells = list(cells)
        for old, new in zip(self.replace, self.by, strict=True):
            count = sum(cell.count(old) for cell in cells)
            assert count == 1, f"{self.claim}: {old!r} occurs {count} times in the code of the notebook, not once"
            cells = [cell.replace(old, new) for cell in cells]
        plain = Program(cells)
        return Program(cells, {plain.statements[plain.targets(self.claim)[0]].cell: self.before}) if self.before else plain


def complaints(cells: list[str], claims: Mapping[str, ledger.Claim], wrong: list[Wrong]) -> list[str]:
    """What is wrong with the claims: those that fail as they are, and those that hold for a wrong version."""
    right, kernel, found = Program(cells), Kernel(), []
    versions = []
    for version in wrong:
        program = version.program(cells)
        order = program.needed(version.claim)
        pairs = zip(program.statements, right.statements, strict=False)
        change = next((index for index, (new, old) in enumerate(pairs) if new.text != old.text), len(right.statements))
        texts = [[of.statements[index].text for index in of.needed(version.claim)] for of in (program, right)]
        assert texts[0] != texts[1], f"{version.claim}: the change is not part of what is claimed"
        versions.append((version, program, order, change))
    needed = {index for version in wrong for index in right.needed(version.claim)}
    needed |= {index for _, _, order, change in versions for index in order if index < change}
    stops, kept = {change for _, _, _, change in versions}, {}
    with kernel.running():
        for index, statement in enumerate(right.statements):
            if index in stops:
                kept[index] = kernel.keep()
            if index in needed:
                kernel.run(statement)
        kept[len(right.statements)] = kernel.keep()
        claims = dict(claims)
        for identifier in dict.fromkeys(version.claim for version in wrong):
            values = kernel.claimed.get(identifier, [])
            if values and claims[identifier].kind == "benchmark":
                claims[identifier] = in_quick(claims[identifier], values)
            if not values or not all(claims[identifier].accepts(value) for value in values):
                found.append(f"{identifier} does not hold as it stands: {values}, required {claims[identifier].bound}")
        for version, program, order, change in versions:
            kernel.restore(kept[change])
            try:
                for index in order:
                    if index >= change:
                        kernel.run(program.statements[index])
            except Exception as error:
                refused = str(ledger.PACKAGE) in traceback.extract_tb(error.__traceback__)[-1].filename
                if not (version.raises and refused):
                    found.append(f"{version.claim}: its wrong version {describe(version)} raised {type(error).__name__}: {error}")
                continue
            values = kernel.claimed.get(version.claim, [])
            if version.raises or not values or all(claims[version.claim].accepts(value) for value in values):
                found.append(f"{version.claim} holds for a wrong version: {values}, {describe(version)}")
    return found


def in_quick(claim: ledger.Claim, values: list[float]) -> ledger.Claim:
    """A benchmark is asserted in the full preset only: where it is missed here, what is half as good as the right one fails."""
    if all(claim.accepts(value) for value in values):
        return claim
    return dataclasses.replace(claim, at_most=max(claim.at_most, 2 * max(values)), at_least=min(claim.at_least, min(values) / 2))


def describe(version: Wrong) -> str:
    return " and ".join([*(repr(text) for text in version.by), *([repr(version.before)] if version.before else [])])
