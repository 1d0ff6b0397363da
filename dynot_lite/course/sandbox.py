"""One submission's code in a process of its own, without network, with bounded time, memory and disk, and nothing to read.

What is enforced, on Linux with user namespaces: see :mod:`dynot_lite.course._launcher`. Time and memory are watched from outside,
too. Elsewhere nothing but time and memory is watched, and a caller must ask for that: ``trust``.
"""

import contextlib
import functools
import json
import os
import re
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from dynot_lite.course import _copies, _groups, _seccomp, _usage

__all__ = ["Limits", "Outcome", "Sandbox", "end", "unavailable"]

HERE = Path(__file__).resolve().parent
LAUNCHER = HERE / "_launcher.py"
REFUSED = 97
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives")
DEVICES = ("/dev/null", "/dev/urandom", "/dev/random")  # not /dev/zero, which can be mapped as memory that nobody counts
# What a submission must not be able to do, tried from inside.
PROBE = """
import ctypes, os, socket
libc, done = ctypes.CDLL(None, use_errno=True), []
for name, attempt in {
    "see processes": lambda: os.listdir("/proc/self"),
    "read /etc": lambda: os.stat("/etc/passwd"),
    "start processes": lambda: os.fork() or os._exit(0),
    "open sockets": lambda: socket.socket(socket.AF_UNIX),
    "take another processor": lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)),
}.items():
    try: attempt()
    except OSError: continue
    done.append(name)
if os.getpgrp() != 1: done.append("signal others")
if libc.unshare(0x10000000) == 0: done.append("make namespaces")
if len(os.sched_getaffinity(0)) != 1: done.append("use several processors")
os.write(1, ("a program could " + ", ".join(done) if done else "ready").encode())
"""


@dataclass(frozen=True)
class Limits:
    """What one submission may use: seconds, bytes of memory, of temporary files and of answers, and threads.

    Where it is isolated, ``seconds`` are its own: of processor time, and on the clock without the time that it had to wait.
    """

    seconds: float = 120.0
    memory: int = 3 * 2**30
    disk: int = 64 * 2**20
    answer: int = 16 * 2**20
    threads: int = 32


@dataclass(frozen=True)
class Outcome:
    """How the process ended, and what it wrote.

    ``status`` is "finished", "failed" (another exit code than 0, or a signal), "time", "memory" or "output" (the limit that was
    passed; what was written before is in ``output``), or "refused" (it was never started; ``message`` says why).
    """

    status: str
    output: bytes
    message: str
    seconds: float


class Sandbox:
    """Runs programs one after the other, each isolated from everything; a context manager, to be used by one thread.

    Args:
        masked: folders that must not be visible even where a folder of the Python environment contains them.
        files: texts to put below /tmp before a program starts, by absolute name (isolated runs only).
        preload: modules to import before the programs, once for all of them (isolated runs only).
        path: folders to search for modules first.
        trust: run without isolation, each program in a new Python process.
    """

    def __init__(
        self,
        *,
        masked: Sequence[Path] = (),
        files: dict[str, str] | None = None,
        preload: Sequence[str] = (),
        path: Sequence[str] = (),
        trust: bool = False,
    ):
        self.trust, self.files, self.preload, self.path = trust, files or {}, list(preload), list(path)
        self.visible = {} if trust else dict(_visible(tuple(masked)))
        self.server = self.channel = None
        self.current: int | None = None
        self.closed = False

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """End what runs; may be called from another thread."""
        self.closed = True
        if self.current:
            end(self.current)
        self._stop()

    def _stop(self) -> None:
        if self.server:
            self.channel.close()
            end(self.server.pid)
            self.server.wait()
            self.server = None

    def run(self, program: str, request: bytes, *, limits: Limits = Limits()) -> Outcome:
        """Run the Python ``program`` (source text) with ``request`` on its standard input; what it writes comes back."""
        with tempfile.TemporaryDirectory(prefix="dynot-course-") as folder:
            given = Path(folder, "request")
            given.write_bytes(request)
            if not self.trust and (found := self._audit()):
                return Outcome("refused", b"", found, 0.0)
            for _ in range(2):
                try:
                    with open(given, "rb") as stdin:
                        return (self._in_the_open if self.trust else self._alone)(program, stdin, limits, Path(folder))
                except (OSError, ValueError) as error:  # the server is gone, or could not start: once more with a new one
                    problem = str(error)
                    self._stop()
            return Outcome("refused", b"", problem, 0.0)

    def _audit(self) -> str:
        """What a submission could find of the answers, looked for from inside; once for the same folders."""
        shown, masked = self.visible["read_only"], set(self.visible["masked"])
        with _auditing:
            if any(shown == folders and covered <= masked for folders, covered in _audited):
                return ""
            with tempfile.TemporaryDirectory(prefix="dynot-course-") as folder, open(os.devnull, "rb") as nothing:
                try:
                    outcome = self._alone(_copies.AUDIT, nothing, Limits(seconds=300), Path(folder))
                except (OSError, ValueError) as error:
                    return str(error)
            if outcome.status == "finished" and not outcome.output:
                _audited.append((shown, masked))
                return ""
        found = outcome.output.decode("utf-8", "replace").replace("\n", ", ")
        return f"a submission could read answers in {found}: remove these copies" if found else outcome.message

    def _alone(self, program, stdin, limits, folder) -> Outcome:
        """Isolated, on a processor and in a control group of its own."""
        with _usage.processor(lambda: self.closed) as number, _groups.group(limits.memory + limits.disk, limits.threads) as group:
            outcome = self._isolated(program, stdin, limits, folder, {"processor": number, "group": group and str(group)})
            passed = outcome.status == "failed" and _groups.passed(group)
        return replace(outcome, status="memory", message="") if passed else outcome

    def _in_the_open(self, program, stdin, limits, folder) -> Outcome:
        command = [sys.executable, "-I", "-c", program]
        pipes = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, **pipes, env=_environment(str(folder)), cwd=folder) as process:
            memory, begin = functools.partial(_memory, process.pid), time.monotonic()
            clock = lambda: time.monotonic() - begin
            return self._watch(process.pid, process.stdout, process.stderr, limits, process.poll, process.wait, memory, clock)

    def _isolated(self, program, stdin, limits, folder, place) -> Outcome:
        (folder / "root").mkdir(exist_ok=True)
        description = {
            "root": str(folder / "root"),
            **self.visible,
            **place,
            "files": self.files,
            "memory": limits.memory,
            "disk": limits.disk,
            "seconds": int(limits.seconds) + 1,
            "threads": limits.threads + _user_threads(),
            "filter": _seccomp.filter_for(os.uname().machine).hex(),
            "program": program,
        }
        (folder / "config").write_text(json.dumps(description), encoding="utf-8")
        if not self.server:
            self._start()
        (out, out_end), (errors, errors_end) = os.pipe(), os.pipe()
        try:
            socket.send_fds(self.channel, [str(folder / "config").encode()], [stdin.fileno(), out_end, errors_end])
        finally:
            os.close(out_end)
            os.close(errors_end)
        with open(out, "rb") as output, open(errors, "rb") as messages:
            pid = self._hear(None)
            if pid is None:
                raise OSError("the process that starts submissions ended")
            codes = []

            def poll():
                if not codes and (code := self._hear(0.0)) is not None:
                    codes.append(code)
                return codes[0] if codes else None

            def wait():
                while not codes:
                    code = self._hear(None)
                    codes.append(1 if code is None else code)
                return codes[0]

            usage = _usage.Usage(pid)
            return self._watch(pid, output, messages, limits, poll, wait, usage.memory, usage.seconds)

    def _start(self) -> None:
        self.channel, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        arguments = [str(other.fileno()), json.dumps(self.path), json.dumps(self.preload)]
        with other:
            self.server = subprocess.Popen(
                [sys.executable, "-I", *([] if self.preload else ["-S"]), str(LAUNCHER), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_environment("/tmp"),
                pass_fds=[other.fileno()],
                start_new_session=True,  # an interrupt from the keyboard is for the grader, which ends this
            )

    def _hear(self, timeout: float | None) -> int | None:
        """The next number from the server; None if there is none within the time, or the server is gone."""
        try:
            self.channel.settimeout(timeout)
            return int(self.channel.recv(64) or b"none")
        except (OSError, ValueError):
            return None

    def _watch(
        self, pid, stdout, stderr, limits: Limits, poll: Callable, wait: Callable, memory: Callable, seconds: Callable
    ) -> Outcome:
        begin, status, pause, code = time.monotonic(), "", 0.01, None
        self.current = pid
        output, errors = _Reader(stdout, limits.answer), _Reader(stderr, 4000)
        try:
            while not status and (code := poll()) is None:
                time.sleep(pause)
                pause = min(0.1, 1.3 * pause)
                if seconds() > limits.seconds:
                    status = "time"
                elif memory() > limits.memory:
                    status = "memory"
                elif output.full:
                    status = "output"
                elif self.closed:
                    status = "failed"
        finally:
            if code is None:
                end(pid)
                wait()
            self.current = None
            output.join(2)
            errors.join(2)
        message = bytes(errors.data).decode("utf-8", "replace")
        if not status:
            refused = code == REFUSED and message.startswith("refused: ")
            status = "output" if output.full else "refused" if refused else "failed" if code else "finished"
            if status == "failed":
                message = f"exit code {code}\n{message}"
        return Outcome(status, bytes(output.data), message, time.monotonic() - begin)


_auditing = threading.Lock()
_audited: list[tuple[list[str], set[str]]] = []  # the folders shown, and what was masked, when no answer was found


def unavailable() -> str | None:
    """Why submissions cannot be isolated here, or None if they can: a program is started in the sandbox to find out."""
    if not sys.platform.startswith("linux"):
        return f"isolation needs Linux with user namespaces, not {sys.platform}"
    with Sandbox() as sandbox:
        outcome = sandbox.run(PROBE, b"", limits=Limits(seconds=20))
    if outcome.output == b"ready":
        return None
    return (outcome.message or outcome.output.decode()).strip() or f"the sandbox did not start: {outcome.status}"


@functools.cache
def _visible(masked: tuple[Path, ...]) -> dict[str, list]:
    """The paths the sandbox gets, read-only, the symbolic links among them, and what must be covered."""
    package = HERE.parent
    wanted = [*SYSTEM, *DEVICES, sys.prefix, sys.base_prefix, sys.exec_prefix, sysconfig.get_path("stdlib"), str(package)]
    links, read_only = [], []
    for name in wanted:
        path = os.path.abspath(name)
        if os.path.islink(path):
            links.append([path, os.readlink(path)])
            path = os.path.realpath(path)
        if os.path.exists(path):
            read_only.append(path)
    # A folder inside one that is already there would be mounted twice; the shortest come first.
    kept: list[str] = []
    for path in sorted(set(read_only), key=len):
        if not any(path == other or path.startswith(other + "/") for other in kept):
            kept.append(path)
    inside = [link for link in links if not any(link[0].startswith(other + "/") for other in kept)]
    needed = [str(package), *(os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, sys.exec_prefix))]
    hidden = [str(HERE), str(package / "companion" / "claims"), *_copies.copies(tuple(kept)), *map(os.path.realpath, masked)]
    covered = {part for path in hidden for part in _copies.around(path, [other for other in needed if other != path])}
    covered = {path for path in covered if any(path.startswith(other + "/") for other in kept)}  # nothing else is there
    return {"read_only": kept, "links": inside, "masked": sorted(covered, key=len)}


def _environment(home: str) -> dict[str, str]:
    """The variables of the process; nothing of the grader's own is handed on."""
    kept = {name: os.environ[name] for name in ("SYSTEMROOT", "PATHEXT") if name in os.environ}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    names = {"HOME": home, "USER": "student", "TMPDIR": home, "MPLCONFIGDIR": f"{home}/matplotlib", "MPLBACKEND": "Agg"}
    return kept | threads | names | {"PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONUTF8": "1", "TQDM_DISABLE": "1"}


def _user_threads() -> int:
    """The threads that the user of the submission has now, which the limit counts before Linux 5.14."""
    if [int(number) for number in re.findall(r"\d+", os.uname().release)[:2]] >= [5, 14]:
        return 0
    user = os.getuid() or 65534
    total = 0
    for process in psutil.process_iter(["uids", "num_threads"]):
        if process.info["uids"] and process.info["uids"].real == user:
            total += process.info["num_threads"] or 0
    return total


def end(pid: int) -> None:
    """End the process and all that it started; in the sandbox they end together with its first process."""
    try:
        family = [psutil.Process(pid)]
        family = [*family[0].children(recursive=True), *family]
    except psutil.NoSuchProcess:
        return
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _memory(pid: int) -> int:
    total = 0
    try:
        family = psutil.Process(pid)
        for process in [family, *family.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
    except psutil.Error:
        pass
    return total


class _Reader(threading.Thread):
    """Reads a pipe to its end, but keeps no more than ``most`` bytes; ``full`` says that there were more."""

    def __init__(self, stream, most: int):
        super().__init__(daemon=True)
        self.stream, self.most, self.data, self.full = stream, most, bytearray(), False
        self.start()

    def run(self) -> None:
        try:
            while chunk := self.stream.read1(65536):
                room = self.most - len(self.data)
                self.data += chunk[:room]
                self.full = self.full or len(chunk) > room
        except (OSError, ValueError):  # closed under our hands
            pass
