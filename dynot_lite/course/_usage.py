"""What a submission may take of the machine's processors, and what it has taken: one of them, and its own time only.

A submission has one processor, on which no other submission runs while it does, whoever started it: what it does there slows
nobody. The time that it waits for the processor all the same, because of other programs, is not counted.
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

__all__ = ["Usage", "processor"]

PATIENCE = 900.0


@contextlib.contextmanager
def processor(given_up: Callable[[], bool] = lambda: False, patience: float = PATIENCE) -> Iterator[int]:
    """The number of a processor that no other submission on this machine has while the block lasts; waits until one is free.

    The claim is a name among the abstract sockets: the kernel frees it when this process ends, however it ends.
    Raises TimeoutError if none is free within ``patience`` seconds, or once ``given_up()`` is true.
    """
    begin, order = time.monotonic(), _processors()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as claim:
        while (number := next(filter(lambda one: _bound(claim, one), order), None)) is None:
            if given_up() or time.monotonic() - begin > patience:
                raise TimeoutError(f"none of {len(order)} processors was free: do other gradings run on this machine?")
            time.sleep(0.02)
        yield number


def _bound(claim: socket.socket, number: int) -> bool:
    try:
        claim.bind(f"\0dynot_lite: a submission on processor {number}")
    except OSError:
        return False
    return True


def _processors() -> list[int]:
    """The processors that this process may use, the second threads of a core last."""

    def second(number: int) -> bool:
        with contextlib.suppress(OSError):
            path = Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list")
            return path.read_text().replace("-", ",").split(",")[0].strip() != str(number)
        return False

    return sorted(os.sched_getaffinity(0), key=lambda number: (second(number), number))


class Usage:
    """What an isolated submission uses; ``pid`` is the process that waits for it, whose one child it is."""

    def __init__(self, pid: int):
        self.pid, self.child, self.begin, self.waited = pid, None, time.monotonic(), 0.0

    def _place(self) -> Path | None:
        if self.child is None:
            with contextlib.suppress(psutil.Error, OSError, KeyError):
                for process in psutil.Process(self.pid).children():
                    if len(_status(Path("/proc", str(process.pid)))["NSpid"]) > 1:  # not the one that maps the user
                        self.child = process.pid
        return None if self.child is None else Path("/proc", str(self.child))

    def memory(self) -> int:
        """Bytes of memory that belong to it alone, in memory or swapped out; the pages of libraries do not count."""
        with contextlib.suppress(OSError, KeyError, ValueError, IndexError):
            if place := self._place():
                status = _status(place)
                return sum(int(status[name][0]) for name in ("RssAnon", "RssShmem", "VmSwap")) << 10
        return 0

    def seconds(self) -> float:
        """The larger of its processor time and of the time on the clock, less what it waited for a processor."""
        used, clock = 0.0, time.monotonic() - self.begin
        with contextlib.suppress(OSError, ValueError, IndexError):
            if place := self._place():
                fields = (place / "stat").read_text().rpartition(")")[2].split()
                used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
                with contextlib.suppress(OSError):  # not every kernel counts it
                    self.waited = int((place / "schedstat").read_text().split()[1]) / 1e9
        return max(used, clock - min(self.waited, 2 / 3 * clock))


def _status(place: Path) -> dict[str, list[str]]:
    lines = (line.partition(":") for line in (place / "status").read_text(errors="replace").splitlines())
    return {name: value.split() for name, _, value in lines}
