"""The inside of the sandbox: a warm process that forks one isolated child per submission (Linux).

Started by :mod:`dynot_lite.course.sandbox` with the number of a socket. It imports the libraries once, and nothing of this
package that knows an answer; then, for every request, it forks a child, which isolates itself and runs the given program. It
needs user namespaces and Linux 5.12. Whatever cannot be enforced ends the child with status 97 and the reason on its error
stream, before a line of the submission has run.

1. The control group that it was given, if any, and one processor.
2. New user, mount, network (no interface is up), process, IPC, host-name and control-group namespaces.
3. A root folder of its own: the given folders read-only, what could tell an answer masked, a small writable /tmp, a few
   devices. The old root is detached: nothing else of the machine has a name any more. There is no /proc. No oracle imports.
4. Limits of memory, processor time, file size, open files and threads; no core dumps, queues, locked memory or priorities.
5. No capabilities, no way to gain one, and a user without rights if the grader is root.
6. A filter of system calls: see :mod:`dynot_lite.course._seccomp`.
"""

import contextlib
import ctypes
import functools
import importlib.util
import json
import os
import socket
import sys

NEW_NAMESPACES = 0x10000000 | 0x00020000 | 0x40000000 | 0x20000000 | 0x08000000 | 0x04000000 | 0x02000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x8, 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
ATTR_READ_ONLY, ATTR_NOSUID, ATTR_NODEV, AT_RECURSIVE, AT_FDCWD = 0x1, 0x2, 0x4, 0x8000, -100
MOUNT_SETATTR = 442  # the same number on all architectures
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 22, 24, 38
SECCOMP_MODE_FILTER = 2
ORACLES = ("oracle", "grade", "assignment")  # of the package's folder course
NOBODY = 65534
REFUSED = 97


@functools.cache
def libc():
    return ctypes.CDLL(None, use_errno=True)


def call(name, *arguments):
    """A function of the C library that returns -1 on failure."""
    prepared = [ctypes.c_char_p(a.encode()) if isinstance(a, str) else a for a in arguments]
    prepared = [ctypes.c_ulong(a) if isinstance(a, int) and a >= 0 else a for a in prepared]
    if getattr(libc(), name)(*prepared) == -1:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def write(path, text):
    with open(path, "w", encoding="ascii") as stream:
        stream.write(text)


def enter_namespaces():
    """Leave the namespaces of the grader; a helper that stays behind maps the user."""
    root = os.getuid() == 0
    ready, done = os.pipe(), os.pipe()
    parent, helper = os.getpid(), os.fork()
    if helper == 0:
        os.close(ready[1])
        if os.read(ready[0], 1):
            # Inside, everybody is nobody. Root keeps itself for the mounts, and gives itself up before the submission runs.
            for name, number in (("uid", os.getuid()), ("gid", os.getgid())):
                if name == "gid" and not root:
                    write(f"/proc/{parent}/setgroups", "deny")
                write(f"/proc/{parent}/{name}_map", f"0 0 1\n{NOBODY} {NOBODY} 1\n" if root else f"{NOBODY} {number} 1\n")
            os.write(done[1], b"!")
        os._exit(0)
    os.close(done[1])
    call("unshare", NEW_NAMESPACES)
    os.write(ready[1], b"!")
    if not os.read(done[0], 1):
        raise OSError("the user could not be mapped into a namespace")
    os.waitpid(helper, 0)
    for end in (*ready, done[0]):
        os.close(end)


def restrict(path, attributes, *, recursive):
    request = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    if libc().syscall(MOUNT_SETATTR, AT_FDCWD, path.encode(), flags, request, ctypes.c_size_t(32)) == -1:
        raise OSError(ctypes.get_errno(), f"mount_setattr {path}: {os.strerror(ctypes.get_errno())}")


def tmpfs(path, options):
    os.makedirs(path, exist_ok=True)
    call("mount", "tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)


def build_root(root, config):
    """Make the folder ``root`` the root of the file system."""
    call("mount", "none", "/", None, MS_REC | MS_PRIVATE, None)
    tmpfs(root, "size=4m,nr_inodes=4096,mode=755")
    # Before the folders that are shown: a clone of the repository may itself lie below /tmp.
    tmpfs(root + "/tmp", f"size={config['disk']},nr_inodes=4096,mode=1777")
    for link, target in config["links"]:
        os.makedirs(os.path.dirname(root + link), exist_ok=True)
        os.symlink(target, root + link)
    for path in config["read_only"]:
        place = root + path
        if os.path.isdir(path):
            os.makedirs(place, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            open(place, "x").close()
        call("mount", path, place, None, MS_BIND | MS_REC, None)
        restrict(place, ATTR_READ_ONLY | ATTR_NOSUID | (0 if path.startswith("/dev/") else ATTR_NODEV), recursive=True)
    nothing = root + "/nothing"
    open(nothing, "x").close()
    for path in config["masked"]:
        if os.path.isdir(root + path):
            tmpfs(root + path, "size=4k,nr_inodes=2,mode=755")
            restrict(root + path, ATTR_READ_ONLY, recursive=False)
        elif os.path.isfile(root + path):
            call("mount", nothing, root + path, None, MS_BIND, None)
            restrict(root + path, ATTR_READ_ONLY, recursive=False)
    os.makedirs(root + "/dev", exist_ok=True)
    os.symlink("/tmp", root + "/dev/shm")
    for name, text in config["files"].items():
        os.makedirs(os.path.dirname(root + name), exist_ok=True)
        with open(root + name, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(root + name, 0o644)
        os.chmod(os.path.dirname(root + name), 0o777)
    restrict(root, ATTR_READ_ONLY, recursive=False)
    os.chdir(root)
    # With both arguments the same, the old root is mounted on top of the new one, and comes off.
    if libc().syscall(PIVOT_ROOT[os.uname().machine], b".", b".") == -1:
        raise OSError(ctypes.get_errno(), f"pivot_root: {os.strerror(ctypes.get_errno())}")
    call("umount2", ".", MNT_DETACH)
    os.chdir("/tmp")


def check_masks(config):
    """Nothing that is masked shows anything, and no module that knows an answer can be imported, from wherever."""
    for path in config["masked"]:
        if os.listdir(path) if os.path.isdir(path) else os.path.isfile(path) and os.path.getsize(path):
            raise OSError(f"{path} is not masked")
    importlib.invalidate_caches()
    before = set(sys.modules)
    if told := {"dynot_lite.course", *(f"dynot_lite.course.{name}" for name in ORACLES)} & before:
        raise OSError(f"the process that starts submissions knows {', '.join(sorted(told))}")
    for name in ORACLES:
        with contextlib.suppress(ModuleNotFoundError):
            if found := importlib.util.find_spec(f"dynot_lite.course.{name}"):
                raise OSError(f"a submission could import an answer: {found.origin or found.name}; remove this copy")
    for name in set(sys.modules) - before:  # the empty folder passes for a package
        parent, _, child = name.rpartition(".")
        vars(sys.modules.get(parent, sys)).pop(child, None)
        del sys.modules[name]


def memory_in_use():
    """The bytes of addresses and of private data in use: of the libraries, which some builds reserve by the gigabyte."""
    with open("/proc/self/statm", encoding="ascii") as stream:
        fields = [int(field) * os.sysconf("SC_PAGE_SIZE") for field in stream.read().split()]
    return fields[0], fields[5]


def limit(config):
    import resource  # not on every system, and every module can be imported everywhere

    addresses, data = config["in_use"]
    for name, value in (
        ("AS", addresses + config["memory"]),
        ("DATA", data + config["memory"]),
        ("CPU", config["seconds"]),
        ("FSIZE", config["disk"]),
        ("NOFILE", 64),
        ("NPROC", config["threads"]),
        *dict.fromkeys(("CORE", "MSGQUEUE", "MEMLOCK", "NICE", "RTPRIO"), 0).items(),
        ("SIGPENDING", 256),
    ):
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


def give_up_rights():
    for capability in range(64):
        if libc().prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) == -1:
            break  # the last one was dropped
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    call("capset", header, none)
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("prctl", PR_SET_PDEATHSIG, 9, 0, 0, 0)
    if os.getuid() != NOBODY or os.geteuid() != NOBODY:
        raise OSError("the user without rights could not be taken on")


def filter_calls(instructions):
    """From here on only the system calls that the filter allows; the array has 8 bytes per instruction."""

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]

    program = Program(len(instructions) // 8, instructions)
    call("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)


def isolated(config):
    """Isolate this process; returns in the first and only process of a new process namespace."""
    call("prctl", PR_SET_PDEATHSIG, 9, 0, 0, 0)
    if config["group"]:
        write(config["group"] + "/cgroup.procs", "0")
    os.sched_setaffinity(0, {config["processor"]})
    write("/proc/self/oom_score_adj", "1000")  # where memory runs out all the same, this goes first, not the grader
    config["in_use"] = memory_in_use()
    enter_namespaces()
    if child := os.fork():
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else 128 - code)
    os.setsid()  # a signal to the process group would reach the processes outside
    build_root(config["root"], config)
    check_masks(config)
    limit(config)
    give_up_rights()
    filter_calls(bytes.fromhex(config["filter"]))


def become(config, descriptors):
    """What a child does: isolation, then the program, with the descriptors as its three streams. Never returns."""
    try:
        for stream, descriptor in enumerate(descriptors):
            os.dup2(descriptor, stream)
        os.closerange(3, 4096)  # the socket among them
        try:
            isolated(config)
        except (OSError, KeyError, ValueError) as error:
            os.write(2, f"refused: {error}".encode())
            os._exit(REFUSED)
        program = config["program"]
        config.clear()  # the names of folders are nobody's business
        exec(compile(program, "<driver>", "exec"), {"__name__": "__main__"})
        sys.stdout.flush()
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}"[:2000].encode())
    finally:
        os._exit(1)


def main():
    call("prctl", PR_SET_PDEATHSIG, 9, 0, 0, 0)
    channel = socket.socket(fileno=int(sys.argv[1]))
    sys.path[:0] = json.loads(sys.argv[2])
    for name in json.loads(sys.argv[3]):
        with contextlib.suppress(ImportError):
            __import__(name)
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, 4096, 3)
        if not message:
            break
        with open(message, encoding="utf-8") as stream:
            config = json.load(stream)
        child = os.fork()
        if child == 0:
            become(config, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        channel.send(str(child).encode())
        _, status = os.waitpid(child, 0)
        channel.send(str(os.waitstatus_to_exitcode(status)).encode())


if __name__ == "__main__":
    main()
