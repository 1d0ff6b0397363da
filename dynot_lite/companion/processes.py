"""Processes and the folders that they own: a lock that names its holder, and the end of what an earlier run left behind."""

import contextlib
import datetime
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from dynot_lite.companion.ledger import RUN_DIR
from dynot_lite.companion.notebooks import NotebookError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["end_processes", "holding", "signals"]


@contextlib.contextmanager
def holding(folder: Path, *, inherited: bool = False) -> Iterator[None]:
    """Hold ``folder``, which is made if need be, against every other process; its file ``lock`` names the holder.

    The lock is the system's: it ends with the process, however that ends. ``inherited`` keeps it in a program that takes
    the place of this one. Raises NotebookError that names the process which holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a+", encoding="utf-8") as stream:
        try:
            if sys.platform == "win32":
                stream.seek(2**30)  # what is locked cannot be read there, and the name must be
                msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            for _ in range(20):  # it may have the lock and not yet have written its name
                stream.seek(0)
                if holder := stream.read():
                    break
                time.sleep(0.05)
            holder = holder or "another process"
            raise NotebookError(f"{folder} is in use by {holder}: wait until it ends, or write to another folder") from None
        os.set_inheritable(stream.fileno(), inherited)
        started = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {platform.node()}, since {started}")
        stream.flush()
        try:
            yield
        finally:
            stream.truncate(0)


def end_processes(folder: Path) -> None:
    """End every process that was started for a run into ``folder`` or below, children of children included."""
    # Found by their environment and not by their parents: a kernel whose papermill died has lost its parent.
    # Again, because one may have started another meanwhile; not for ever, because a hung disk makes some immortal.
    for _ in range(5):
        family = [process for process in psutil.process_iter() if _runs_in(process, folder)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        for process in psutil.wait_procs(family, timeout=3)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=3)
        if not family:
            break


def _runs_in(process: psutil.Process, folder: Path) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        where = process.environ().get(RUN_DIR)
    except (psutil.Error, OSError):
        return False
    return bool(where) and Path(where).is_relative_to(folder)


@contextlib.contextmanager
def signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C, termination and the closing of the terminal set, so that none interrupts a step half-way."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # Python handles signals in the main thread alone
        yield stop
        return
    known = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # What is ignored stays so: a run under nohup, or in the background of a script, is not to be stopped.
    caught = [number for number in known if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in caught}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
