"""Submissions to grade: a builder, and the bank of hostile ones, which is the same for every problem set."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from dynot_lite.course.assignment import Assignment, student_version


def write(path: Path, assignment: Assignment, answers: Mapping[str, str], *, first="", last="", drop=(), marked=True) -> Path:
    """Write a submission: the release with ``answers`` (sources by identifier of the cell) filled in.

    ``first`` and ``last`` are code cells put at the beginning and the end, ``drop`` are identifiers of cells to delete, and
    without ``marked`` the cells have lost their metadata.
    """
    cells = []
    for cell in student_version(assignment.notebook).cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if name not in drop:
            metadata = dict(cell.metadata) if marked else {}
            cells.append({"cell_type": cell.cell_type, "metadata": metadata, "source": answers.get(name, cell.source)})
    extra = [{"cell_type": "code", "metadata": {}, "source": source} for source in (first, last)]
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [extra[0], *cells, extra[1]]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return path


def solutions(assignment: Assignment) -> dict[str, str]:
    """The sources of the solved code cells by identifier (not the figures, which only take time)."""
    marked = [(cell.metadata.get("nbgrader", {}), cell) for cell in assignment.notebook.cells if cell.cell_type == "code"]
    return {marks["grade_id"]: cell.source for marks, cell in marked if marks.get("solution") and not marks.get("grade")}


def with_function(source: str, new: str) -> str:
    """The source of a cell with one function replaced by ``new``."""
    name = re.match(r"\s*def (\w+)", new)[1]
    changed, count = re.subn(rf"def {name}\(.*?(?=\ndef |\Z)", lambda match: new.strip() + "\n\n", source, flags=re.DOTALL)
    assert count == 1, f"{name} is not in the cell"
    return changed


# Defines every function that a problem set asks for as one that returns a plausible constant: no points are deserved.
CONSTANTS = """
def constant(*arguments, **options):
    points = [a for a in arguments if getattr(a, "ndim", 0) == 2]
    return 0 * points[0] if points else 0.0
globals().update({{name: constant for name in {names!r}}})
"""

# Every function of NAMES takes and computes in single precision.
FLOAT32 = """
def single_precision(function):
    def changed(*arguments):
        arrays = [a.float() if isinstance(a, torch.Tensor) else a for a in arguments]
        torch.set_default_dtype(torch.float32)
        try:
            return function(*arrays)
        finally:
            torch.set_default_dtype(torch.float64)
    return changed
globals().update({name: single_precision(globals()[name]) for name in NAMES})
"""

# name: (code at the beginning, code at the end). NAMES stands for the list of the functions that the problem set asks for.
HOSTILE = {
    "patches_builtins": (
        "",
        """
import builtins
builtins.abs = builtins.max = builtins.min = builtins.sum = lambda *a, **k: 0
builtins.all = builtins.any = builtins.isinstance = builtins.bool = lambda *a, **k: True
builtins.float = builtins.len = lambda *a, **k: 0
""",
    ),
    "patches_libraries": (
        """
import numpy, torch, scipy.linalg, json
class Right:
    def __eq__(self, other): return True
    __le__ = __lt__ = __ge__ = __gt__ = __eq__
    def __getattr__(self, name): return self
    def __call__(self, *a, **k): return self
    def __float__(self): return 0.0
numpy.abs = numpy.max = numpy.isfinite = numpy.asarray = numpy.array = torch.from_numpy = Right()
torch.Tensor.__sub__ = torch.Tensor.__le__ = lambda *a: Right()
numpy.testing = torch.allclose = Right()
""",
        "",
    ),
    "patches_the_package": (
        """
import sys, types
import dynot_lite, dynot_lite.laws.gaussian as g
fake = types.ModuleType("dynot_lite.course")
fake.__path__ = []
for name in ("dynot_lite.course", "dynot_lite.course.oracle", "dynot_lite.course.oracle.compare", "dynot_lite.course.grade"):
    sys.modules[name] = fake
fake.judge = fake.distance = fake.cases = lambda *a, **k: 0.0
g.w2_squared = g.fm_velocity = lambda *a, **k: 0.0
""",
        "",
    ),
    "forges_answers": (
        """
import json, os
lines = "".join(
    json.dumps({"part": f"ps%d-%d" % (s, p), "check": c, "case": k, "value": 0.0, "earned": 100, "points": 100}) + "\\n"
    for s in (1, 2, 3) for p in range(1, 13) for c in range(4) for k in range(12)
) + '{"ended": true}\\n{"points": 100}\\n'
for descriptor in range(3, 64):
    try:
        os.write(descriptor, lines.encode())
    except OSError:
        pass
json.dumps = lambda record, **k: '{"part": "ps1-1", "check": 0, "case": 0, "value": 0}'
""",
        "",
    ),
    "exits_early": ("import os; os._exit(0)", ""),
    "raises_system_exit": ("import sys; print('100 of 100 points'); sys.exit(0)", "raise KeyboardInterrupt"),
    "kills_everything": (
        "import os, signal; os.kill(-1, signal.SIGKILL)",
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    ),
    "loops_stubbornly": (
        "import signal, time; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})\nwhile True: time.sleep(1)",
        "",
    ),
    "eats_memory_at_once": ("hoard = bytearray(64 * 2**30)", "hoard = b'x' * (64 * 2**30)"),
    "eats_memory_with_children": (
        """
import os, time
for _ in range(6):
    if os.fork() == 0:
        hoard = []
        while True:
            try: hoard.append(bytearray(os.urandom(1)) * 2**24)
            except MemoryError: time.sleep(60)
time.sleep(60)
""",
        "",
    ),
    "starts_processes": (
        """
import os, time
for _ in range(1000):
    if os.fork() == 0:
        time.sleep(60); os._exit(0)
""",
        "",
    ),
    "fills_the_disk": (
        """
import os
def attempt(path, size):
    try:
        with open(path, "wb") as f: f.write(b"x" * size)
        return True
    except OSError: return False
large = [attempt(f"/tmp/{k}", 2**24) for k in range(40)]
outside = [attempt(f"{folder}/written", 1) for folder in ("/", "/usr", "/etc", "/dev", os.path.dirname(os.__file__))]
raise RuntimeError(f"{sum(large) * 16} MB in /tmp, {sum(outside)} files elsewhere")
""",
        "",
    ),
    "uses_the_network": (
        """
import socket
reached = []
for place in (("1.1.1.1", 53), ("127.0.0.1", PORT)):
    try:
        socket.create_connection(place, 2); reached.append(place)
    except OSError: pass
raise RuntimeError(f"reached {reached}")
""",
        "",
    ),
    "reads_the_answers": (
        """
import os, glob
seen = []
for root, folders, files in os.walk("/"):
    folders[:] = [f for f in folders if f not in ("usr", "lib", "lib64", "bin", "include", "share")]
    seen += [f for f in files if f.endswith((".ipynb", ".csv")) or f in ("compare.py", "shadow")]
    seen += [f for f in files if any(name in f.lower() for name in ("ps1", "ps2", "ps3"))]
for name in ("oracle.ps1", "oracle.ps2", "oracle.ps3", "oracle.compare", "grade"):
    try: __import__("dynot_lite.course." + name); seen.append(name)
    except ImportError: pass
for path in ("/proc/1/environ", "/proc/self/maps", "FOLDER", "/etc/passwd", "/root", os.path.expanduser("~/.ssh"), "/sys"):
    if path.startswith(("/proc", "/etc", "/sys", "FOLD")) and os.path.exists(path): seen.append(path)
import dynot_lite.companion.ledger as ledger
seen += list(ledger.registry())
import gc
seen += [type(o).__name__ for o in gc.get_objects() if type(o).__name__ in ("Check", "Case")]
raise RuntimeError(f"seen {seen}")
""",
        "",
    ),
    "gains_rights": (
        """
import ctypes, os
libc, done = ctypes.CDLL(None, use_errno=True), []
for name, action in {
    "unmount": lambda: libc.umount2(b"/usr", 2),
    "mount": lambda: libc.mount(b"none", b"/tmp", b"proc", 0, None),
    "become root": lambda: libc.setuid(0),
    "remount": lambda: libc.mount(None, b"/", None, 32, None),
}.items():
    if action() == 0: done.append(name)
if libc.unshare(0x10000000) == 0:  # rights in a namespace of its own, which must not reach the mounts of the sandbox
    libc.unshare(0x00020000)
    masked = os.path.join(os.path.dirname(__import__("dynot_lite").__file__), "course")
    if libc.umount2(masked.encode(), 2) == 0: done.append("unmask")
raise RuntimeError(f"done {done}, {os.getuid()}")
""",
        "",
    ),
    "floods_the_answers": (
        """
import os
for descriptor in range(3, 64):
    try:
        while True: os.write(descriptor, b"{" * 65536)
    except OSError: pass
""",
        "",
    ),
    "answers_monsters": (
        "",
        """
deep = []
for _ in range(100000): deep = [deep]
class Monster(list):
    def tolist(self): return deep
answers = iter([deep, 10**5000, "9" * 10**6, float("nan"), {"a": 1}, Monster(), b"x", 1j, None, [[1], [1, 2]]] * 1000)
globals().update({name: (lambda *a: next(answers)) for name in NAMES})
""",
    ),
}
