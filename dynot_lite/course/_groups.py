"""Control groups: limits that the kernel holds for a submission as a whole, where this process may make some (Linux, version 2).

It may where it was started in a group of its own that was delegated to it, alone in it, with the controllers of memory and of
processes; for example by ``systemd-run --user --scope -p Delegate=yes``. Elsewhere nothing here does anything.
"""

import atexit
import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["delegated", "group", "reset"]

NEEDED = ("memory", "pids")
_lock = threading.Lock()
_base: list[Path | None] = []  # the group that this process was given, once it is known


def delegated(proc: Path = Path("/proc/self")) -> Path | None:
    """The folder of the group that this process is alone in and may divide, or None."""
    try:
        mounts = [line.split() for line in (proc / "mountinfo").read_text().splitlines()]
        point = next(fields[4] for fields in mounts if fields[fields.index("-") + 1] == "cgroup2")
        name = next(line[3:] for line in (proc / "cgroup").read_text().splitlines() if line.startswith("0::"))
        base = Path(point, name.lstrip("/"))
        able = set(NEEDED) <= set((base / "cgroup.controllers").read_text().split())
        alone = (base / "cgroup.procs").read_text().split() == [str(os.getpid())]
    except (OSError, StopIteration, ValueError, IndexError):
        return None
    ours = all(os.access(base / name, os.W_OK) for name in ("", "cgroup.procs", "cgroup.subtree_control"))
    return base if able and alone and ours else None


def _divide(base: Path) -> Path | None:
    """Move this process into a group below its own, which then may have others with limits beside it."""
    mine = base / "grader"
    try:
        mine.mkdir(exist_ok=True)
        (mine / "cgroup.procs").write_text(str(os.getpid()))
        available = (base / "cgroup.controllers").read_text().split()
        wanted = [f"+{name}" for name in (*NEEDED, "cpu") if name in available]
        (base / "cgroup.subtree_control").write_text(" ".join(wanted))
    except OSError:
        _leave(base)
        return None
    atexit.register(reset)
    return base


def _leave(base: Path) -> None:
    with contextlib.suppress(OSError):
        names = (base / "cgroup.subtree_control").read_text().split()
        (base / "cgroup.subtree_control").write_text(" ".join(f"-{name}" for name in names))
        (base / "cgroup.procs").write_text(str(os.getpid()))
        (base / "grader").rmdir()


def reset() -> None:
    """Go back to the group that this process was given."""
    with _lock:
        if _base and _base[0]:
            _leave(_base[0])
        _base.clear()


@contextlib.contextmanager
def group(memory: int, processes: int) -> Iterator[Path | None]:
    """A new group with these limits and one processor, or None; at the end whatever is in it ends, and it goes."""
    with _lock:
        if not _base:
            base = delegated()
            _base.append(base and _divide(base))
        base = _base[0]
    if base is None:
        yield None
        return
    made = base / f"submission-{os.getpid()}-{threading.get_native_id()}"
    made.mkdir()
    try:
        limits = {
            "memory.max": memory,
            "memory.swap.max": 0,
            "memory.oom.group": 1,
            "pids.max": processes,
            "cpu.max": "100000 100000",
        }
        for name, value in limits.items():
            if (made / name).exists() or name in ("memory.max", "pids.max"):
                (made / name).write_text(str(value))
        yield made
    finally:
        with contextlib.suppress(OSError):
            (made / "cgroup.kill").write_text("1")
        for _ in range(200):  # a group can be removed when the last process is gone
            with contextlib.suppress(OSError):
                made.rmdir()
                break
            time.sleep(0.01)


def passed(made: Path | None) -> bool:
    """Whether the kernel ended something in the group because of its memory."""
    if made is None:
        return False
    with contextlib.suppress(OSError):
        return any(
            line.split() != ["oom_kill", "0"] for line in (made / "memory.events").read_text().splitlines() if "oom_kill " in line
        )
    return False
