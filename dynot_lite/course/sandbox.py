"""One submission's code in a process of its own, without network, with bounded time, memory and disk, and nothing to read.

What is enforced, on Linux with user namespaces: see :mod:`dynot_lite.course._launcher`. Time and the memory of all processes
together are watched from outside. Elsewhere nothing but time and memory is watched, and a caller must ask for that: ``trust``.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Limits", "Outcome", "Sandbox", "end", "unavailable"]

HERE = Path(__file__).resolve().parent
REFUSED = 97
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


@dataclass(frozen=True)
class Limits:
    """What one submission may use: wall-clock seconds, bytes of memory, of temporary files and of answers, and processes."""

    seconds: float = 120.0
    memory: int = 3 * 2**30
    disk: int = 64 * 2**20
    answer: int = 16 * 2**20
    processes: int = 32


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
        self.visible = {} if trust else _visible(masked)
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
            for _ in range(2):
                try:
                    with open(given, "rb") as stdin:
                        return (self._in_the_open if self.trust else self._isolated)(program, stdin, limits, Path(folder))
                except OSError as error:  # the server is gone, or could not start: once more with a new one
                    problem = str(error)
                    self._stop()
            return Outcome("refused", b"", problem, 0.0)

    def _in_the_open(self, program, stdin, limits, folder) -> Outcome:
        command = [sys.executable, "-I", "-c", program]
        pipes = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, **pipes, env=_environment(str(folder)), cwd=folder) as process:
            return self._watch(process.pid, process.stdout, process.stderr, limits, process.poll, process.wait)

    def _isolated(self, program, stdin, limits, folder) -> Outcome:
        (folder / "root").mkdir(exist_ok=True)
        description = {
            "root": str(folder / "root"),
            **self.visible,
            "files": self.files,
            "memory": limits.memory,
            "disk": limits.disk,
            "seconds": int(limits.seconds) + 1,
            "processes": limits.processes + _user_threads(),
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

            return self._watch(pid, output, messages, limits, poll, wait)

    def _start(self) -> None:
        self.channel, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        arguments = [str(other.fileno()), json.dumps(self.path), json.dumps(self.preload)]
        with other:
            self.server = subprocess.Popen(
                [sys.executable, "-I", *([] if self.preload else ["-S"]), str(HERE / "_launcher.py"), *arguments],
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

    def _watch(self, pid, stdout, stderr, limits: Limits, poll: Callable, wait: Callable) -> Outcome:
        begin, status, pause, code = time.monotonic(), "", 0.01, None
        self.current = pid
        output, errors = _Reader(stdout, limits.answer), _Reader(stderr, 4000)
        try:
            while not status and (code := poll()) is None:
                time.sleep(pause)
                pause = min(0.1, 1.3 * pause)
                if time.monotonic() - begin > limits.seconds:
                    status = "time"
                elif _memory(pid) > limits.memory:
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


def unavailable() -> str | None:
    """Why submissions cannot be isolated here, or None if they can: a program is started in the sandbox to find out."""
    if not sys.platform.startswith("linux"):
        return f"isolation needs Linux with user namespaces, not {sys.platform}"
    program = "import os; os.write(1, b'exposed' if os.path.exists('/proc/self') or os.path.exists('/etc/passwd') else b'ready')"
    with Sandbox() as sandbox:
        outcome = sandbox.run(program, b"", limits=Limits(seconds=20))
    if outcome.output == b"ready":
        return None
    return outcome.message.strip() or f"the sandbox did not start: {outcome.status}"


def _visible(masked: Sequence[Path]) -> dict[str, list]:
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
    hidden = [HERE, package / "companion" / "claims", *masked]
    covered = [str(Path(path).resolve()) for path in hidden]
    return {"read_only": kept, "links": inside, "masked": covered}


def _environment(home: str) -> dict[str, str]:
    """The variables of the process; nothing of the grader's own is handed on."""
    kept = {name: os.environ[name] for name in ("SYSTEMROOT", "PATHEXT") if name in os.environ}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    names = {"HOME": home, "USER": "student", "TMPDIR": home, "MPLCONFIGDIR": f"{home}/matplotlib", "MPLBACKEND": "Agg"}
    return kept | threads | names | {"PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONUTF8": "1", "TQDM_DISABLE": "1"}


def _user_threads() -> int:
    """The threads that the user of the submission has now: the limit of processes counts them on older kernels."""
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
