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

# Calls the kernel directly. denied() is whether the call was refused as such, whatever its arguments.
KERNEL = """
import ctypes, os
libc, done = ctypes.CDLL(None, use_errno=True), []
libc.mmap.restype = ctypes.c_void_p
def denied(numbers, *arguments):
    number = numbers[os.uname().machine == "aarch64"]
    if number is None: return True
    return libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)) == -1 and ctypes.get_errno() in (1, 38)
"""

# What a sandbox must withstand whatever the problem set: name: (code, a pattern of the error that it ends with, or the status).
# COPY stands for a folder among those that are shown, in which copies of the package lie in several forms.
SEALED = {
    "imports_a_second_copy": (
        """
import os, sys, zipfile
seen = []
for root, folders, files in os.walk("COPY"):
    found = [os.path.join(root, name) for name in files]
    for path in [root, *(path for path in found if path.endswith((".whl", ".zip", ".egg")))]:
        for name in [name for name in sys.modules if name.split(".")[0] == "dynot_lite"]: del sys.modules[name]
        sys.path.insert(0, path)
        try:
            import dynot_lite.course.oracle.ps1 as stolen
            globals().update({check.function: check.answer for checks in stolen.CHECKS.values() for check in checks})
            names, CONSTANT = [], False
            seen.append(path)
        except Exception: pass
        sys.path.remove(path)
    for path in found:
        data = open(path, "rb").read() if os.access(path, os.R_OK) else b""
        seen += [path] * any(word in data for word in (b"BEGIN SOLUTION", b"closed_forms", b"blob"))
print(seen)
if not seen: raise RuntimeError("seen []")
""",
        r"RuntimeError: seen \[\]",
    ),
    "hoards_unseen_memory": (
        KERNEL
        + """
import mmap
hoard = []
try:
    for _ in range(8):
        file = os.memfd_create("x"); os.truncate(file, 50 * 2**20)
        view = mmap.mmap(file, 50 * 2**20); view[::4096] = b"x" * 12800; view.close()
        hoard.append(file)
    done.append("memfd")
except OSError: pass
try:
    for _ in range(8):
        view = mmap.mmap(-1, 50 * 2**20); view[::4096] = b"x" * 12800; view.madvise(mmap.MADV_DONTNEED); hoard.append(view)
    done.append("shared")
except OSError: pass
if not denied((29, 194), 0, 2**20, 0o1600): done.append("shmget")
if not denied((447, 447), 0): done.append("memfd_secret")
if not denied((240, 180), 0, 0, 0, 0): done.append("mq_open")
if os.path.exists("/dev/zero"): done.append("/dev/zero")
if libc.mmap(None, ctypes.c_long(2**21), 3, 0x40022, -1, 0) not in (None, ctypes.c_void_p(-1).value): done.append("huge pages")
raise RuntimeError(f"done {done}")
""",
        r"done \[\]",
    ),
    "hoards_in_the_kernel": (
        """
import fcntl, os
done, (reading, writing) = [], os.pipe()
with open("/tmp/locked", "wb") as file:
    try: fcntl.lockf(file, fcntl.LOCK_EX, 1, 0); done.append("locks")
    except OSError: pass
try: fcntl.fcntl(writing, 1031, 2**20); done.append("pipes")
except OSError: pass
try: os.setxattr("/tmp/locked", "user.hoard", b"x" * 60000); done.append("attributes")
except OSError: pass
raise RuntimeError(f"done {done}")
""",
        r"done \[\]",
    ),
    "opens_sockets": (
        """
import socket
opened = []
for family in range(1, 50):
    for kind in (1, 2, 3, 5):
        try: socket.socket(family, kind, 0).close(); opened.append(family)
        except OSError: pass
    try: opened += [family] * (family != 1) * bool(socket.socketpair(family))
    except (OSError, ValueError): pass
raise RuntimeError(f"done {opened}")
""",
        r"done \[\]",
    ),
    "makes_namespaces": (
        KERNEL
        + """
for bit in (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
    if not denied((272, 97), bit): done.append(f"unshare {bit:x}")
    if not denied((56, 220), bit | 17, 0, 0, 0, 0): done.append(f"clone {bit:x}")
if not denied((435, 435), 0, 0): done.append("clone3")
if not denied((308, 268), 0, 0): done.append("setns")
for name, numbers in {"mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
                      "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
                      "mount_setattr": (442, 442)}.items():
    if not denied(numbers, 0, 0, 0, 0, 0): done.append(name)
raise RuntimeError(f"done {done}")
""",
        r"done \[\]",
    ),
    "asks_for_the_rest_of_the_kernel": (
        KERNEL
        + """
for name, numbers in {
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "kexec_load": (246, 104),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "personality": (135, 92), "seccomp": (317, 277), "swapon": (167, 224), "syslog": (103, 116),
    "quotactl": (179, 60),
    "fanotify_init": (300, 262), "inotify_init1": (294, 26), "init_module": (175, 105), "vmsplice": (278, 75),
    "mlock": (149, 228), "mbind": (237, 235), "sched_setaffinity": (203, 122), "sched_setattr": (314, 274),
    "setpriority": (141, 140),
    "setuid": (105, 146), "mknodat": (259, 33), "sendmsg": (46, 211), "acct": (163, 89), "not invented yet": (999, 999),
}.items():
    if not denied(numbers, -1, -1, -1, -1, -1): done.append(name)
raise RuntimeError(f"done {done}")
""",
        r"done \[\]",
    ),
    "speaks_another_convention": (
        KERNEL
        + """
if os.uname().machine != "x86_64": os.abort()
place = libc.mmap(None, ctypes.c_long(4096), 7, 0x22, -1, 0)
code = bytes.fromhex("53b814000000cd805bc3")  # getpid as 32-bit programs call it
ctypes.memmove(place, code, len(code))
ctypes.CFUNCTYPE(ctypes.c_int)(place)()
raise RuntimeError("done")
""",
        "failed",
    ),
    "speaks_x32": (
        KERNEL
        + """
if os.uname().machine != "x86_64": os.abort()
libc.syscall(ctypes.c_long(0x40000000 + 39))
raise RuntimeError("done")
""",
        "failed",
    ),
    "runs_thirty_busy_threads": (
        """
import hashlib, os, threading
try: os.sched_setaffinity(0, range(64)); raise RuntimeError("done")
except OSError: pass
def busy():
    while True: hashlib.sha256(bytes(2**22))
started = []
try:
    for _ in range(60): threading.Thread(target=busy, daemon=True).start(); started.append(1)
except RuntimeError: pass
if len(started) > 32: raise RuntimeError("done")
import time; time.sleep(1000)
""",
        "time or finished",  # the limit of the cell and that of the submission are near each other
    ),
    "signals_those_outside": (
        """
import ctypes, os, signal
if ctypes.CDLL(None).prctl(1, 0, 0, 0, 0) == 0: raise RuntimeError("done: the end of the grader is no longer its end")
for target in (os.getppid(), -1, 1 - os.getpid(), 2, 3):
    try: os.kill(target, signal.SIGTERM if target > 0 else 0)
    except OSError: pass
if os.getpgrp() != os.getpid(): raise RuntimeError("done: in the group of others")
os.killpg(0, signal.SIGKILL)
os.abort()
""",
        "failed",
    ),
    "leaves_daemons": (
        """
import os, subprocess, time
done = []
program, spawn = (lambda: subprocess.Popen(["/bin/sleep", "1000"]).pid), lambda: os.posix_spawn("/bin/sleep", ["x", "9"], {})
for start in (os.fork, os.forkpty, program, spawn):
    try: child = start()
    except OSError: continue
    if child == 0:
        os.setsid()
        os.fork()
        time.sleep(1000)
    done.append(child)
raise RuntimeError(f"done {done}")
""",
        r"done \[\]",
    ),
    "compiles_and_becomes_another_program": (
        """
import os, shutil
done = []
try:
    from torch.utils.cpp_extension import load_inline
    load_inline("x", "int f() { return 1; }", functions=["f"], build_directory="/tmp"); done.append("compiler")
except Exception: pass
if os.system("true") == 0: done.append("shell")
import ctypes, _ctypes
try: ctypes.CDLL(shutil.copy(_ctypes.__file__, "/tmp/native.so")); done.append("library")
except OSError: pass
try: shutil.copy("/bin/true", "/tmp/true"); os.chmod("/tmp/true", 0o755); os.execv("/tmp/true", ["true"])
except OSError: pass
try: os.execv("/bin/true", ["true"])
except OSError: pass
raise RuntimeError(f"done {done}")
""",
        r"done \[\]",
    ),
    "raises_its_limits": (
        """
import os, resource, sys
done = []
for name in dir(resource):
    if name.startswith("RLIMIT_"):
        try: resource.setrlimit(getattr(resource, name), (-1, -1)); done.append(name)
        except (OSError, ValueError): pass
try: os.nice(-5); done.append("nice")
except OSError: pass
harmless = ("RLIMIT_STACK", "RLIMIT_RSS", "RLIMIT_LOCKS", "RLIMIT_RTTIME")
raise RuntimeError(f"done {[name for name in done if name not in harmless]}")
""",
        r"done \[\]",
    ),
    "answers_before_it_is_asked": (
        """
import json, os, sys
frame, request = sys._getframe(), None
while frame:
    for value in frame.f_locals.values():
        if isinstance(value, dict) and "calls" in value: request = value
    frame = frame.f_back
lines = [json.dumps({"part": c["part"], "check": c["check"], "case": c["case"], "value": 0.0}) for c in request["calls"]]
for descriptor in range(3, 64):
    try: os.write(descriptor, "\\n".join(["", *lines, '{"ended": true}', ""]).encode())
    except OSError: pass
os._exit(0)
""",
        "finished",
    ),
    "hunts_expected_values": (
        """
import gc, linecache, sys
seen, frame = [], sys._getframe()
while frame:
    for name, value in list(frame.f_locals.items()):
        if isinstance(value, dict) and "calls" in value:
            seen += {key for call in value["calls"] for key in call} - {"part", "check", "case", "function", "arguments", "rows"}
        if isinstance(value, dict) and ("masked" in value or "read_only" in value): seen.append(name)
    frame = frame.f_back
for thing in gc.get_objects():
    try: module = getattr(thing, "__module__" if callable(thing) else "__name__", None)
    except Exception: continue
    if isinstance(module, str) and module.startswith("dynot_lite.course"): seen.append(module)
    if isinstance(thing, dict) and "traps" in set(map(str, list(thing)[:20])): seen.append("traps")
words = ("oracle", "lite.course", "grading", "/ps1")
seen += [name for name in [*sys.modules, *linecache.cache] if any(word in name for word in words)]
raise RuntimeError(f"seen {seen[:9]}")
""",
        r"seen \[\]",
    ),
    "returns_code": (
        """
import torch
class Loaded(float):
    def __reduce__(self): return (open, ("FOLDER/unpickled", "w"))
    def __float__(self): raise SystemExit
    def __str__(self): return "0"
    __repr__ = __str__
class Tensor(torch.Tensor):
    def detach(self): return self
    def cpu(self): return self
    def double(self): return self
    def numpy(self): return self
    def tolist(self): return [Loaded(1.0), {"py/object": "os.system"}, b"x"]
def value(*arguments): return Tensor([1.0])
globals().update({name: value for name in NAMES})
""",
        "finished",
    ),
    "writes_numbers_that_are_none": (
        """
import os
texts = ["NaN", "-Infinity", "1e999", "1" * 5000, "[" * 100000, '"' + "9" * 10**6 + '"', "[1, [2]]", "{}"]
texts += ["true", "null", "[" + "0," * 10**5 + "0]"]
places = ['"check": Infinity', '"check": NaN', '"check": 1e308', '"check": []', '"check": -1', '"check": "0"', '"check": 0']
lines = [f'{{"part": "ps1-1", {place}, "case": 0, "value": {text}}}' for place in places for text in texts]
lines += ['{"cell": [[]], "error": {}}', '{"cell": "1"}', "[]", "7", '"cell"', '{"part": {}, "check": 0, "case": 0}']
lines += ['{"ended": NaN}', "\\x00\\xff"]
for descriptor in range(3, 64):
    try: os.write(descriptor, ("\\n" + "\\n".join(lines) + "\\n").encode())
    except OSError: pass
""",
        "finished",
    ),
    "closes_the_descriptors": (
        "import os\nos.closerange(0, 64)\n[os.open('/tmp/answers', os.O_RDWR | os.O_CREAT) for _ in range(9)]",
        "failed",
    ),
    "holds_the_lock_of_the_answers": (
        """
import gc, _thread
for thing in gc.get_objects():
    for cell in getattr(thing, "__closure__", None) or ():
        if type(getattr(cell, "cell_contents", None)) is _thread.LockType: cell.cell_contents.acquire(False)
""",
        "time",
    ),
    "fills_the_inodes": (
        """
import os
count = 0
try:
    for count in range(10**5): os.symlink("x" * 4000, f"/tmp/{count}")
except OSError: pass
path = "/tmp"
try:
    while True: path += "/" + "d" * 200; os.mkdir(path)
except OSError: pass
raise RuntimeError("done []" if count < 5000 else f"done {count}")
""",
        r"done \[\]",
    ),
    "plays_with_links": (
        """
import os
done = []
for name in ("request", "config", "root", "matplotlib/x", "work.ipynb", "points.csv"):
    for target in ("FOLDER", "FOLDER/../graded", "/proc/1/root", "/../../..", "/etc"):
        try: os.remove(f"/tmp/{name}")
        except OSError: pass
        try:
            os.symlink(target, f"/tmp/{name}")
            inside = os.listdir(f"/tmp/{name}")
            if target.startswith("FOLD") or "passwd" in inside: done.append(target)
        except OSError: pass
if set(os.listdir("/../..")) != set(os.listdir("/")): done.append("..")
here = os.open(".", os.O_RDONLY)
for climb in ("../" * 40, "/proc/self/root", "/dev/fd/0"):
    try: done += [climb] * ("proc" in os.listdir(os.open(climb, os.O_RDONLY, dir_fd=here)))
    except OSError: pass
raise RuntimeError(f"done {done}")
""",
        r"done \[\]",
    ),
    "says_the_unprintable": ("raise RuntimeError('\\u202e\\x1b[2J\\x00\\r\\udcff\\ud800' + 'a' + '\\u0301' * 10**5)", ""),
    "has_bottomless_errors": (
        """
import sys
class Deep(Exception):
    def __str__(self): return str(self)
    def __repr__(self): return repr(self) + "x" * 10**6
    __class__ = property(lambda self: 1 / 0)
sys.excepthook = sys.unraisablehook = lambda *a: sys.exit(0)
error = Deep()
for _ in range(10**5): error = ExceptionGroup("x", [error]) if sys.version_info >= (3, 11) and _ % 100 == 0 else Deep(error)
raise error
""",
        "",
    ),
    "passes_notes": (
        """
import builtins, os, numpy, torch
notes, found = ("/tmp/note", "/dev/shm/note", "/var/tmp/note", os.path.dirname(os.__file__) + "/note"), []
found += [path for path in notes if os.path.exists(path)] + [m.__name__ for m in (builtins, numpy, torch) if hasattr(m, "note")]
for path in notes:
    try: open(path, "w").write("the answer")
    except OSError: pass
builtins.note = numpy.note = torch.note = "the answer"
raise RuntimeError(f"done {found}")
""",
        r"done \[\]",
    ),
}
SEALED["finds_notes"] = SEALED["passes_notes"]
