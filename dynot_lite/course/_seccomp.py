"""Which system calls a submission may make: a filter in the kernel's language (classic BPF), for the launcher to install.

What numbers, threads, files in /tmp, signals to oneself and clocks need is allowed; everything else fails with ENOSYS, as in a
kernel that has not got it, so that libraries fall back: namespaces, mounts, keyrings, ptrace, memfd_create, io_uring, and what is
not invented yet. Another calling convention than the machine's own ends the process. Processes cannot be started at all: one
process has limits that the kernel holds for certain, a family of them has not.
"""

import struct

__all__ = ["MACHINES", "filter_for"]

# Of each machine: the kernel's name for its calling convention, and the column of its numbers below.
MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
X32 = 0x40000000  # the second calling convention that shares the name of x86_64
EPERM, ENOTTY, ENOSYS = 1, 25, 38
ALLOW, ERROR, KILL = 0x7FFF0000, 0x00050000, 0x80000000

# name, number on x86_64, number on aarch64 (- where there is none)
ALLOWED = """
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, preadv 295 69, pwritev 296 70, preadv2 327 286,
pwritev2 328 287, lseek 8 62, open 2 -, openat 257 56, creat 85 -, close 3 57, close_range 436 436, stat 4 -, fstat 5 80,
lstat 6 -, newfstatat 262 79, statx 332 291, statfs 137 43, fstatfs 138 44, access 21 -, faccessat 269 48, faccessat2 439 439,
readlink 89 -, readlinkat 267 78, getdents 78 -, getdents64 217 61, getcwd 79 17, chdir 80 49, fchdir 81 50, mkdir 83 -,
mkdirat 258 34, rmdir 84 -, unlink 87 -, unlinkat 263 35, rename 82 -, renameat 264 38, renameat2 316 276, link 86 -,
linkat 265 37, symlink 88 -, symlinkat 266 36, chmod 90 -, fchmod 91 52, fchmodat 268 53, utime 132 -, utimes 235 -,
utimensat 280 88, futimesat 261 -, truncate 76 45, ftruncate 77 46, fallocate 285 47, fadvise64 221 223, fsync 74 82,
fdatasync 75 83, umask 95 166, dup 32 23, dup2 33 -, dup3 292 24, flock 73 32, pipe 22 -, pipe2 293 59, poll 7 -, ppoll 271 73,
select 23 -, pselect6 270 72, epoll_create 213 -, epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22,
eventfd 284 -, eventfd2 290 19, sendfile 40 71, copy_file_range 326 285, getxattr 191 8, lgetxattr 192 9, fgetxattr 193 10,
listxattr 194 11, llistxattr 195 12, flistxattr 196 13, munmap 11 215, mprotect 10 226, mremap 25 216, madvise 28 233,
brk 12 214, msync 26 227, mincore 27 232, membarrier 324 283, get_mempolicy 239 236, futex 202 98, set_robust_list 273 99,
get_robust_list 274 100, set_tid_address 218 96, rseq 334 293, sched_yield 24 124, sched_getaffinity 204 123,
sched_getparam 143 121, sched_getscheduler 145 120, sched_get_priority_max 146 125, sched_get_priority_min 147 126,
getpriority 140 141, gettid 186 178, getcpu 309 168, exit 60 93, exit_group 231 94, arch_prctl 158 -, rt_sigaction 13 134,
rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136, rt_sigtimedwait 128 137, rt_sigsuspend 130 133,
sigaltstack 131 132, kill 62 129, tkill 200 130, tgkill 234 131, pause 34 -, restart_syscall 219 128, clock_gettime 228 113,
clock_getres 229 114, clock_nanosleep 230 115, nanosleep 35 101, gettimeofday 96 169, time 201 -, times 100 153,
getitimer 36 102, setitimer 38 103, alarm 37 -, timer_create 222 107, timer_settime 223 110, timer_gettime 224 108,
timer_getoverrun 225 109, timer_delete 226 111, getpid 39 172, getppid 110 173, getuid 102 174, geteuid 107 175, getgid 104 176,
getegid 108 177, getresuid 118 148, getresgid 120 150, getgroups 115 158, getpgrp 111 -, getpgid 121 155, getsid 124 156,
uname 63 160, sysinfo 99 179, getrusage 98 165, getrlimit 97 163, setrlimit 160 164, prlimit64 302 261, getrandom 318 278,
wait4 61 260, waitid 247 95, capget 125 90, sendto 44 206, recvfrom 45 207, shutdown 48 210, getsockname 51 204,
getpeername 52 205, getsockopt 55 209
"""
# These fail with EPERM: "not permitted" tells a student more than "not implemented".
REFUSED = "fork 57 -, vfork 58 -, execve 59 221, execveat 322 281, socket 41 198"
# These are allowed or not by one argument.
INSPECTED = "clone 56 220, mmap 9 222, fcntl 72 25, ioctl 16 29, prctl 157 167, socketpair 53 199"
# call: (the argument that decides, its values that are allowed, the error of all others)
VALUES = {
    # no locks of ranges, of which a million would be memory that nobody counts, and no larger pipes
    "fcntl": (1, {"DUPFD": 0, "GETFD": 1, "SETFD": 2, "GETFL": 3, "SETFL": 4, "DUPFD_CLOEXEC": 1030, "GETPIPE_SZ": 1032}, EPERM),
    "ioctl": (
        1,
        {"TCGETS": 0x5401, "TIOCGWINSZ": 0x5413, "FIONREAD": 0x541B, "FIONBIO": 0x5421, "FIO(N)CLEX": (0x5450, 0x5451)},
        ENOTTY,
    ),
    # names of threads and of memory; not the signal that comes when the grader ends
    "prctl": (0, {"SET_NAME": 15, "GET_NAME": 16, "SET_VMA": 0x53564D41}, EPERM),
    "socketpair": (0, {"AF_UNIX": 1}, EPERM),
}
CLONE_THREAD, CLONE_NAMESPACES = 0x00010000, 0x7E020000
MAP_SHARED, MAP_ANONYMOUS, MAP_HUGETLB = 0x01, 0x20, 0x40000

LOAD, EQUAL, AT_LEAST, ANY_BIT, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
NUMBER, CONVENTION, ARGUMENTS = 0, 4, 16  # where struct seccomp_data has them


def filter_for(machine: str) -> bytes:
    """The filter for a machine with this name (``os.uname().machine``), as an array of ``struct sock_filter``.

    Raises ValueError for a machine whose numbers of system calls are not known here.
    """
    if machine not in MACHINES:
        raise ValueError(f"no table of system calls for {machine}, only for {' and '.join(MACHINES)}")
    convention, column = MACHINES[machine]
    steps = [(LOAD, 0, 0, CONVENTION), (EQUAL, 1, 0, convention), (RETURN, 0, 0, KILL), (LOAD, 0, 0, NUMBER)]
    if machine == "x86_64":
        steps += [(AT_LEAST, 0, 1, X32), (RETURN, 0, 0, KILL)]
    for number in numbers(ALLOWED, column).values():
        steps += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    for number in numbers(REFUSED, column).values():
        steps += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ERROR | EPERM)]
    for name, number in numbers(INSPECTED, column).items():
        decision = _decision(name)
        steps += [(EQUAL, 0, len(decision), number), *decision]
    steps.append((RETURN, 0, 0, ERROR | ENOSYS))
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def numbers(table: str, column: int) -> dict[str, int]:
    """The numbers of the calls of a table on one machine."""
    rows = [row.split() for row in table.split(",")]
    return {row[0]: int(row[1 + column]) for row in rows if row[1 + column] != "-"}


def _decision(name: str) -> list[tuple[int, int, int, int]]:
    """The steps that end a call which one argument decides; what matters of it is in the low 32 bits, which come first."""
    if name == "clone":  # threads of this process only
        return [
            (LOAD, 0, 0, ARGUMENTS),
            (ANY_BIT, 2, 0, CLONE_NAMESPACES),
            (ANY_BIT, 0, 1, CLONE_THREAD),
            (RETURN, 0, 0, ALLOW),
            (RETURN, 0, 0, ERROR | EPERM),
        ]
    if name == "mmap":  # shared memory without a file stays when it is unmapped, where nobody sees it
        return [
            (LOAD, 0, 0, ARGUMENTS + 3 * 8),
            (ANY_BIT, 3, 0, MAP_HUGETLB),
            (AND, 0, 0, MAP_SHARED | MAP_ANONYMOUS),
            (EQUAL, 1, 0, MAP_SHARED | MAP_ANONYMOUS),
            (RETURN, 0, 0, ALLOW),
            (RETURN, 0, 0, ERROR | EPERM),
        ]
    place, allowed, error = VALUES[name]
    values = [one for value in allowed.values() for one in (value if isinstance(value, tuple) else (value,))]
    steps = [(LOAD, 0, 0, ARGUMENTS + 8 * place)]
    for value in values:
        steps += [(EQUAL, 0, 1, value), (RETURN, 0, 0, ALLOW)]
    return [*steps, (RETURN, 0, 0, ERROR | error)]
