"""The sandbox is sealed: the hostile bank wins nothing and leaves nothing, and every defence is needed for that."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from functools import partial
from pathlib import Path

import psutil
import pytest
from course_bank import CONSTANTS, SEALED, solutions, write

from dynot_lite.course import _copies, _groups, _seccomp, _usage, sandbox
from dynot_lite.course.assignment import load
from dynot_lite.course.grade import grade
from dynot_lite.course.sandbox import Limits, Sandbox

PS1 = load("PS1")
PACKAGE, SECONDS = sandbox.HERE.parent, 6
REASON = sandbox.unavailable()
isolated = pytest.mark.skipif(REASON is not None, reason=f"submissions cannot be isolated here: {REASON}")


def forget():
    """What is known of the folders that are shown."""
    sandbox._visible.cache_clear()
    _copies.copies.cache_clear()
    sandbox._audited.clear()


@pytest.fixture
def fresh():
    forget()
    yield
    forget()


def environment(place: Path) -> list[str]:
    """A folder as environments may be: copies of the package and of the problem sets in it; what must be masked of them."""
    place.mkdir(mode=0o755)
    place.parent.chmod(0o755)  # a submission must be able to read it
    package = place / "lib" / "site-packages" / "dynot_lite"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("data", "*.npz"))
    shutil.copytree(package, place / "build" / "lib" / "dynot_lite")
    (place / "pycache" / "dynot_lite" / "course" / "oracle").mkdir(parents=True)
    (place / "pycache" / "dynot_lite" / "course" / "oracle" / "closed_forms.cpython-311.pyc").write_bytes(b"closed_forms")
    clone = place / "src" / "dynot-lite"
    (clone / ".git" / "objects").mkdir(parents=True)
    (clone / ".git" / "objects" / "pack").write_bytes(b"blob")
    (clone / "notebooks" / "assignments").mkdir(parents=True)
    (clone / "notebooks" / "assignments" / "notes.txt").write_text("closed_forms")
    shutil.copytree(package, clone / "dynot_lite")
    (place / "share").mkdir()
    (place / "share" / "PS1_solved.ipynb").write_text("### BEGIN SOLUTION")
    (place / "bin").mkdir()
    for name in ("dynot_lite-9-py3-none-any.whl", "renamed.zip"):
        with zipfile.ZipFile(place / name, "w") as archive:
            for path in package.rglob("*.py"):
                archive.write(path, path.relative_to(package.parent))
    return [
        "lib/site-packages/dynot_lite/course", "lib/site-packages/dynot_lite/companion/claims", "build/lib/dynot_lite/course",
        "build/lib/dynot_lite/companion/claims", "pycache/dynot_lite/course", "src/dynot-lite/.git", "src/dynot-lite/notebooks",
        "src/dynot-lite/dynot_lite/course", "src/dynot-lite/dynot_lite/companion/claims", "share/PS1_solved.ipynb",
        "dynot_lite-9-py3-none-any.whl", "renamed.zip",
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- the bank


def state(place: Path) -> dict[str, object]:
    """What a submission could leave behind on the machine: processes of ours, files, mounts, groups, shared memory."""
    return {
        "processes": [process.pid for process in psutil.Process().children(recursive=True)],
        "files": sorted(str(path) for path in place.rglob("*")),
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "groups": sorted(str(path) for path in [_groups.delegated()] if path for path in path.iterdir()),
        "shared": [Path("/proc/sysvipc", name).read_text().count("\n") for name in ("shm", "sem", "msg")],
    }


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The reports of one grading of the bank, over one that defines every function as a constant, and what was left of it."""
    if REASON:
        pytest.skip(f"submissions cannot be isolated here: {REASON}")
    place, out, copies = (tmp_path_factory.mktemp(name) for name in ("sealed", "graded", "environment"))
    names = sorted({check.function for part in PS1.parts for check in part.checks})
    environment(copies / "prefix")
    for name, (code, *_) in SEALED.items():
        code = code.replace("COPY", str(copies)).replace("FOLDER", str(place)).replace("NAMES", repr(names))
        write(place / name / "work.ipynb", PS1, {}, first=CONSTANTS.format(names=names), last=code)
    for k in range(2):
        write(place / f"honest{k}.ipynb", PS1, solutions(PS1))
    temporary, patch = tmp_path_factory.mktemp("temporary"), pytest.MonkeyPatch()
    patch.setattr(tempfile, "tempdir", str(temporary))
    patch.setattr(sandbox, "SYSTEM", (*sandbox.SYSTEM, str(copies)))
    forget()
    before = state(temporary)
    try:
        limits = Limits(seconds=SECONDS, memory=1200 * 2**20)
        reports = grade(place, out, jobs=2, seed=7, limits=limits, cell_seconds=4, call_seconds=3)
    finally:
        patch.undo()
        forget()
    return {report.submission.student: report for report in reports}, (before, state(temporary)), place


@pytest.mark.parametrize("attack", SEALED)
def test_a_hostile_submission_wins_nothing_and_ends_within_its_limits(graded, attack):
    report, wanted = graded[0][attack], SEALED[attack][1]
    assert report.points == 0
    assert report.seconds < 3 * SECONDS + 5
    if (ends := set(wanted.split(" or "))) <= {"finished", "failed", "time"}:
        assert report.status in ends, report
        assert not any("done" in error for _, error in report.cells), report.cells
    else:
        assert any(re.search(wanted, error) for _, error in report.cells), (report.status, report.message, report.cells)


def test_nobody_loses_anything_beside_it(graded):
    for k in range(2):
        report = graded[0][f"honest{k}"]
        assert report.status == "finished" and report.points == sum(part.points for part in PS1.parts if part.checks)


def test_nothing_is_left_behind(graded):
    before, after = graded[1]
    assert after == before
    assert not list(graded[2].rglob("unpickled"))


# ----------------------------------------------------------------------------------------- every defence is needed, and does it


def run(code: str, limits: Limits = Limits(seconds=6, memory=1200 * 2**20), **options) -> sandbox.Outcome:
    with Sandbox(**options) as box:
        return box.run(code, b"", limits=limits)


def without(name: str):
    """The filter with these calls allowed, as x86_64 and aarch64 number them."""
    return lambda patch: patch.setattr(_seccomp, "ALLOWED", f"{_seccomp.ALLOWED}, {name}")


def without_rule(call: str):
    usual = _seccomp._decision
    return lambda patch: patch.setattr(_seccomp, "_decision", lambda name: ALL if name == call else usual(name))


def instead(old: str, new: str):
    """A launcher with one text exchanged."""

    def change(patch):
        text = sandbox.LAUNCHER.read_text(encoding="utf-8")
        assert text.count(old) == 1, old
        LAUNCHERS.append(tempfile.TemporaryDirectory(prefix="dynot-launcher-"))
        changed = Path(LAUNCHERS[-1].name, "launcher.py")
        changed.write_text(text.replace(old, new), encoding="utf-8")
        patch.setattr(sandbox, "LAUNCHER", changed)

    return change


LAUNCHERS: list[tempfile.TemporaryDirectory] = []  # they go when Python ends
ALL = [(_seccomp.RETURN, 0, 0, _seccomp.ALLOW)]
NO_FILTER = instead('    filter_calls(bytes.fromhex(config["filter"]))\n', "")
# defence: (how to switch it off, the attack of the bank that it stops, what that says then)
DEFENCES = {
    "no memfd": (without("memfd_create 319 279"), "hoards_unseen_memory", r"done \['memfd'\]"),
    "no shared memory without a file": (without_rule("mmap"), "hoards_unseen_memory", r"done \['shared'"),
    "no queues of System V": (without("shmget 29 194"), "hoards_unseen_memory", "shmget"),
    "no locks of ranges, no larger pipes": (without_rule("fcntl"), "hoards_in_the_kernel", "locks.*pipes"),
    "no attributes of files": (without("setxattr 188 5"), "hoards_in_the_kernel", "attributes"),
    "no sockets": (without("socket 41 198"), "opens_sockets", r"done \[1,"),
    "no namespaces": (NO_FILTER, "makes_namespaces", "unshare 10000000.*clone 20000000.*clone3.*mount"),
    "threads only": (without_rule("clone"), "leaves_daemons", r"done \[\d"),
    "the rest of the kernel": (NO_FILTER, "asks_for_the_rest_of_the_kernel", "keyctl.*ptrace.*process_vm_readv"),
    "one processor": (without("sched_setaffinity 203 122"), "runs_thirty_busy_threads", "done"),
    "the end of the grader is its end": (without_rule("prctl"), "signals_those_outside", "no longer its end"),
    "a process group of its own": (instead("    os.setsid()", "    #"), "signals_those_outside", "in the group of others"),
    "no other programs": (without("execve 59 221"), "compiles_and_becomes_another_program", "^$"),
    "hard limits": (instead("    limit(config)\n", ""), "raises_its_limits", "RLIMIT_AS"),
    "no native code from /tmp": (
        instead("MS_NODEV | MS_NOEXEC, options", "MS_NODEV, options"),
        "compiles_and_becomes_another_program",
        r"done \['library'\]",
    ),
    "nothing of the set-up": (instead("        config.clear()", "        #"), "hunts_expected_values", r"seen \['config'"),
    "few inodes": (instead("size={config['disk']},nr_inodes=4096", "size={config['disk']}"), "fills_the_inodes", r"done \d{4}"),
}


@isolated
@pytest.mark.parametrize("defence", DEFENCES)
def test_each_defence_is_needed(defence, monkeypatch):
    off, attack, told = DEFENCES[defence]
    code = SEALED[attack][0]
    assert not re.search(told if told != "^$" else "(?!)", run(code).message)
    off(monkeypatch)
    outcome = run(code)
    assert re.search(told, outcome.message), outcome


@isolated
def test_another_convention_of_calls_ends_the_process(monkeypatch):
    if os.uname().machine != "x86_64":
        pytest.skip("only x86_64 has two")
    for attack in ("speaks_another_convention", "speaks_x32"):
        assert "done" not in run(SEALED[attack][0]).message
    monkeypatch.setitem(_seccomp.MACHINES, "x86_64", (0xC000003E, 0))
    steps = _seccomp.filter_for("x86_64")
    NO_FILTER(monkeypatch)
    assert "done" in run(SEALED["speaks_another_convention"][0]).message and len(steps) % 8 == 0


@isolated
def test_copies_are_masked_and_looked_for_from_inside(tmp_path, monkeypatch, fresh):
    masked = environment(tmp_path / "prefix")
    assert sorted(_copies.copies((str(tmp_path / "prefix"),))) == sorted(str(tmp_path / "prefix" / path) for path in masked)
    monkeypatch.setattr(sandbox, "SYSTEM", (*sandbox.SYSTEM, str(tmp_path)))
    code = SEALED["imports_a_second_copy"][0].replace("COPY", str(tmp_path))
    assert "seen []" in run(code).message
    # What follows looks at this folder only, to be quick.
    monkeypatch.setattr(_copies, "AUDIT", _copies.AUDIT.replace('["/"]', repr([str(tmp_path)])))
    alone = _copies.copies((str(tmp_path),))
    # Each of them that is not masked is found from inside, or else in reach (a history, notes).
    for path in masked:
        sandbox._visible.cache_clear()
        sandbox._audited.clear()
        whole = str(tmp_path / "prefix" / path)
        with monkeypatch.context() as patch:
            patch.setattr(_copies, "copies", lambda shown, left=whole: [one for one in alone if one != left])
            outcome = run(code)
            if path.endswith((".git", "notebooks")):
                assert whole in outcome.output.decode()
            elif not path.endswith("claims"):
                assert outcome.status == "refused" and whole in outcome.message and "remove these copies" in outcome.message


@isolated
def test_what_could_be_imported_is_refused_before_anything_runs(tmp_path, monkeypatch):
    loop = '    for path in config["masked"]:\n        if os.path.isdir(root'
    instead(loop, loop.replace('config["masked"]', "[]"))(monkeypatch)
    monkeypatch.setattr(sandbox, "_audited", [(Sandbox().visible["read_only"], set())])
    outcome = run("print('ran')", path=[str(PACKAGE.parent)])
    assert outcome.status == "refused" and "is not masked" in outcome.message
    instead("        if os.listdir(path) if", "        if False and os.listdir(path) if")(monkeypatch)
    with Sandbox(path=[str(PACKAGE.parent)]) as box:
        box.visible = box.visible | {"masked": []}
        outcome = box.run("print('ran')", b"")
    assert outcome.status == "refused" and "could import an answer" in outcome.message and not outcome.output


def test_a_folder_with_what_is_needed_is_masked_around_it(tmp_path):
    for name in ("answers", "env/lib", "env/bin", "more/secret"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("x")
    inside = lambda *names: sorted(str(tmp_path / name) for name in names)
    assert sorted(_copies.around(str(tmp_path), inside("env"))) == inside("answers", "more", "notes.txt")
    assert sorted(_copies.around(str(tmp_path / "env"), inside("env/lib"))) == inside("env/bin")
    assert _copies.around(str(tmp_path / "more"), inside("env")) == inside("more")
    assert _copies.around(str(tmp_path / "env"), inside("env")) == []


# ---------------------------------------------------------------------------------------------------------------- the filter


def test_the_numbers_of_calls_are_those_of_the_kernels_headers():
    names = {"x86_64": "x86_64-linux-gnu/asm/unistd_64.h", "aarch64": "asm-generic/unistd.h"}
    headers = {machine: Path("/usr/include", name) for machine, name in names.items()}
    if not any(path.exists() for path in headers.values()):
        pytest.skip("no headers of the kernel here")
    for machine, path in headers.items():
        if path.exists():
            found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text())
            known = {name: int(number) for name, number in found}
            known.setdefault("newfstatat", known.get("fstatat"))
            for table in (_seccomp.ALLOWED, _seccomp.REFUSED, _seccomp.INSPECTED):
                for name, number in _seccomp.numbers(table, _seccomp.MACHINES[machine][1]).items():
                    assert known[name] == number, (machine, name)


def test_a_machine_without_a_table_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="no table of system calls for riscv64, only for x86_64 and aarch64"):
        _seccomp.filter_for("riscv64")
    if not REASON:
        monkeypatch.setattr(_seccomp, "MACHINES", {})
        assert "no table of system calls" in sandbox.unavailable()


def simulated(machine: str, number: int, *arguments: int, convention: int | None = None) -> int:
    """What the filter of a machine says to a call, by an interpreter of the few instructions that it has."""
    import struct

    steps = list(struct.iter_unpack("=HBBI", _seccomp.filter_for(machine)))
    convention = _seccomp.MACHINES[machine][0] if convention is None else convention
    data = struct.pack("=IIQ6Q", number, convention, 0, *(a % 2**64 for a in (*arguments, *[0] * (6 - len(arguments)))))
    place = value = 0
    while True:
        code, yes, no, k = steps[place]
        place += 1
        if code == _seccomp.LOAD:
            value = struct.unpack_from("=I", data, k)[0]
        elif code == _seccomp.AND:
            value &= k
        elif code == _seccomp.RETURN:
            return k
        else:
            held = {_seccomp.EQUAL: value == k, _seccomp.AT_LEAST: value >= k, _seccomp.ANY_BIT: bool(value & k)}
            place += yes if held[code] else no


@pytest.mark.parametrize("machine", _seccomp.MACHINES)
def test_the_filter_decides_as_it_says_on_every_machine(machine):
    column = _seccomp.MACHINES[machine][1]
    allowed, refused, looked = (_seccomp.numbers(t, column) for t in (_seccomp.ALLOWED, _seccomp.REFUSED, _seccomp.INSPECTED))
    denied, missing, allow = 0x50001, 0x50000 | 38, 0x7FFF0000
    for number in range(1100):
        if number not in looked.values():
            wanted = allow if number in allowed.values() else denied if number in refused.values() else missing
            assert simulated(machine, number) == wanted, number
    thread = 0x3D0F00  # as the C library asks for one
    namespaces = dict.fromkeys((thread | 0x10000000, thread | 0x20000), denied)
    for flags, wanted in {thread: allow, 17: denied, 0x4111: denied, **namespaces}.items():
        assert simulated(machine, looked["clone"], flags) == wanted, hex(flags)
    for flags, wanted in {0x22: allow, 0x02: allow, 0x01: allow, 0x21: denied, 0x23: denied, 0x40022: denied}.items():
        assert simulated(machine, looked["mmap"], 0, 4096, 3, flags) == wanted, hex(flags)
    assert simulated(machine, looked["socketpair"], 1) == allow and simulated(machine, looked["socketpair"], 40) == denied
    assert simulated(machine, looked["prctl"], 15) == allow and simulated(machine, looked["prctl"], 1) == denied
    assert [simulated(machine, looked["ioctl"], 0, request) for request in (0x5401, 0x5412)] == [allow, 0x50000 | 25]
    assert simulated(machine, 39, convention=0x40000003) == 0x80000000
    assert machine != "x86_64" or simulated(machine, 0x40000000 | 39) == 0x80000000


@isolated
def test_honest_work_is_not_hindered():
    program = """
import asyncio, concurrent.futures, ctypes, json, locale, logging, os, pickle, queue, random, shutil, sqlite3, tempfile, threading
import numpy, scipy.linalg, torch, matplotlib.pyplot as plt
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "x.npz"); numpy.savez(path, a=numpy.ones(9)); assert numpy.load(path)["a"].sum() == 9
    memory = numpy.memmap(os.path.join(folder, "m"), shape=1000, mode="w+"); memory[:] = 1; memory.flush()
    torch.save(torch.ones(3), path); assert torch.load(path).sum() == 3
    figure = plt.figure(); plt.plot([1, 2]); figure.savefig(os.path.join(folder, "x.png")); shutil.copy(path, path + "2")
    shutil.copytree(folder, folder + "2")
with concurrent.futures.ThreadPoolExecutor(4) as pool: assert sum(pool.map(abs, range(-9, 0))) == 45
async def two(): await asyncio.gather(asyncio.sleep(0.01), asyncio.sleep(0.01)); return 2
assert asyncio.run(two()) == 2
torch.set_num_threads(4); assert torch.randn(300, 300).matmul(torch.randn(300, 300)).shape == (300, 300)
torch.linalg.eigh(torch.eye(50)); scipy.linalg.expm(numpy.eye(5)); x = torch.ones(3, requires_grad=True); (x**2).sum().backward()
torch.jit.script(torch.nn.Linear(2, 2)); callback = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 7); assert callback() == 7
import platform, uuid, getpass; platform.platform(); uuid.uuid4(); uuid.getnode(); os.cpu_count()
print("done")
"""
    preload = ("scipy.linalg", "torch", "matplotlib.pyplot")
    outcome = run(program, Limits(seconds=60), preload=preload)
    assert (outcome.status, outcome.output) == ("finished", b"done\n"), outcome


# ------------------------------------------------------------------------------------------------- nobody is slowed by another


@isolated
def test_each_has_a_processor_of_its_own_whoever_asks():
    with _usage.processor() as one:
        if len(os.sched_getaffinity(0)) > 1:
            with _usage.processor() as other:
                assert one != other
        code = "from dynot_lite.course._usage import processor\nwith processor() as one: print(one)"
        if len(os.sched_getaffinity(0)) == 2:
            with _usage.processor():
                with pytest.raises(TimeoutError, match="none of 2 processors was free"), _usage.processor(patience=0.1):
                    pass
                waiting = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
                time.sleep(1)
                assert waiting.poll() is None
            assert int(waiting.communicate(timeout=30)[0]) != one
    with pytest.raises(OSError, match="mine"), _usage.processor():
        raise OSError("mine")


@isolated
def test_time_that_others_take_is_not_counted():
    with _usage.processor() as number:
        pass
    hog = f"import os\nos.sched_setaffinity(0, {{{number}}})\nprint(1, flush=True)\nwhile True: pass"
    # Each in a session of its own: the scheduler may give all processes of one session the share of one.
    start = partial(subprocess.Popen, stdout=subprocess.PIPE, start_new_session=True)
    hogs = [start([sys.executable, "-c", hog]) for _ in range(3)]
    try:
        for process in hogs:
            process.stdout.readline()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_usage, "_processors", lambda: [number])
            begin = time.monotonic()
            work = "import time\nwhile time.process_time() < 1.2: pass\nprint(1)"
            outcome = run(work, Limits(seconds=3.5))
            assert outcome.status == "finished", outcome
            assert time.monotonic() - begin > 3.5  # it was slowed, and had its time
            assert run("while True: pass", Limits(seconds=0.5)).status == "time"
    finally:
        for process in hogs:
            process.kill()
            process.communicate()


@isolated
def test_where_memory_runs_out_it_goes_before_the_grader(monkeypatch):
    seen = set()

    def look(usage):
        with contextlib.suppress(OSError):  # it ended
            if place := usage._place():
                seen.add((place / "oom_score_adj").read_text().strip())
        return 0

    monkeypatch.setattr(_usage.Usage, "memory", look)
    assert run("import time; time.sleep(0.5)").status == "finished" and seen == {"1000"}


@isolated
def test_memory_and_time_are_held():
    assert run("import time; time.sleep(60)", Limits(seconds=0.5)).status == "time"
    outcome = run("x = bytearray(b'x' * (400 * 2**20))", Limits(memory=200 * 2**20))
    assert outcome.status == "failed" and "MemoryError" in outcome.message
    # What is not counted from outside in time is refused by the kernel: libraries that are unmapped make no room.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_usage.Usage, "memory", lambda self: 0)
        patch.setattr(_groups, "delegated", lambda: None)
        _groups.reset()
        assert "MemoryError" in run("x = [bytearray(b'x' * 2**20) for _ in range(400)]", Limits(memory=200 * 2**20)).message
        instead("    limit(config)\n", "")(patch)
        assert run("x = [bytearray(b'x' * 2**20) for _ in range(400)]", Limits(memory=200 * 2**20)).status == "finished"
    _groups.reset()


# -------------------------------------------------------------------------------------------------------------- control groups


def tree(place: Path, controllers="cpu memory pids", processes=None) -> Path:
    """A delegated group as files, and what /proc says of it."""
    base = place / "sys" / "mine.scope"
    base.mkdir(parents=True)
    own = f"{os.getpid()}\n"
    for name, text in {"controllers": controllers, "procs": own, "subtree_control": ""}.items():
        (base / f"cgroup.{name}").write_text(text)
    if processes:
        (base / "cgroup.procs").write_text(processes)
    (place / "proc").mkdir()
    (place / "proc" / "mountinfo").write_text(f"30 23 0:27 / {place / 'sys'} rw,nosuid shared:9 - cgroup2 cgroup2 rw\n")
    (place / "proc" / "cgroup").write_text("0::/mine.scope\n")
    return base


def test_a_delegated_group_is_recognised(tmp_path):
    base = tree(tmp_path / "a")
    assert _groups.delegated(tmp_path / "a" / "proc") == base
    tree(tmp_path / "b", controllers="cpu")
    tree(tmp_path / "c", processes=f"1\n{os.getpid()}\n")
    for other in ("b", "c", "not_there"):
        assert _groups.delegated(tmp_path / other / "proc") is None


@isolated
def test_a_control_group_holds_memory_and_threads():
    if _groups.delegated() is None:
        pytest.skip("no control group (version 2) of this process alone to divide: systemd-run --user --scope -p Delegate=yes")
    try:
        with pytest.MonkeyPatch.context() as patch:  # the other limits are off
            patch.setattr(_usage.Usage, "memory", lambda self: 0)
            instead("    limit(config)\n", "")(patch)
            outcome = run("x = [bytearray(b'x' * 2**20) for _ in range(900)]", Limits(seconds=60, memory=200 * 2**20))
            assert outcome.status == "memory"
            code = "import threading, time\nfor _ in range(60): threading.Thread(target=time.sleep, args=(9,)).start()"
            assert "can't start new thread" in run(code, Limits(seconds=60)).message
        with Sandbox() as box:
            assert box.run("print(1)", b"").status == "finished"
    finally:
        _groups.reset()
    assert _groups.delegated() is not None  # as before
