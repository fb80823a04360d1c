# SPDX-License-Identifier: Apache-2.0
"""Programs of the engine itself: its set-up, the birth of a process that waits for a program, and its
burial.
"""

from __future__ import annotations

import errno
import mmap
import os
import resource
import signal
import struct
from socket import AF_INET, SOCK_CLOEXEC, SOCK_DGRAM

from northstar.engine import instructions as isa
from northstar.engine.assembler import Label, Program
from northstar.kernel import namespaces, prctl, scheduling
from northstar.kernel.libc import AT_FDCWD
from northstar.kernel.process import KEYCTL_JOIN_SESSION_KEYRING, MAP_FIXED, MAX_FD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.engine.assembler import Register

NAMESPACES = (
    namespaces.CLONE_NEWPID | namespaces.CLONE_NEWIPC | namespaces.CLONE_NEWUTS | namespaces.CLONE_NEWNET
)
"""Those that an init is born with. It makes its mount namespace when it knows what to mount."""

READY = ord("E")
"""The engine is set up."""
BORN = ord("P")
"""A process is born; the value is its pid."""
BURIED = ord("B")
"""The answer to `burial`; the value is 0 if the process is not to be had yet."""

_CLONE_ARGS = struct.Struct("<11Q")
_CGROUP_OFFSET = 80
_SIGNALS = 64
_PROCESSORS = 1024
"""Bytes of a mask of all that there can be (CONFIG_NR_CPUS)."""
_IOPRIO_WHO_PROCESS, _IOPRIO_NONE = 1, 0
_MPOL_DEFAULT = 0
_IFREQ_SIZE = 40


def set_up(daemon: int, open_files: tuple[int, int], core_files: int, oom_score_adj: int | None) -> Program:
    """Make the engine, and so everything that comes of it, independent of whoever started the daemon.

    `daemon` is the pid of its parent, `open_files` are the limits of RLIMIT_NOFILE and `core_files` is the
    hard one of RLIMIT_CORE that containers get if they do not ask for others. The descriptor `null` becomes
    standard input, output and error.
    """
    p = Program(["null"])
    p.purpose = "set up the engine"
    p.call("prctl", prctl.PR_SET_PDEATHSIG, signal.SIGKILL)
    p.require(p.value("getppid", of="parent"), daemon, errno.ESRCH)
    p.call("prctl", prctl.PR_SET_NAME, "northstar-engine")
    for number in range(3):
        p.call("dup3", p.descriptors[0], number, 0)
    p.call("close_range", isa.CHANNEL + 1, MAX_FD, 0)
    p.call("setsid")
    p.call("chdir", "/")
    p.call("umask", 0o022)
    _reset_signals(p)
    _reset_scheduling(p)
    set_limit(p, resource.RLIMIT_CORE, 0, core_files)
    set_limit(p, resource.RLIMIT_NOFILE, *open_files)
    join_keyring(p)
    if oom_score_adj is not None:
        p.purpose = "set oom_score_adj of the engine"
        write_file(p, "/proc/self/oom_score_adj", str(oom_score_adj))
    report(p, READY)
    return p


def birth(flags: int) -> Program:
    """A child in new namespaces (CLONE_NEW*), which waits for programs on the descriptor `channel`."""
    p = Program(["channel"])
    child, end = Label(), Label()
    p.purpose = "fork"
    pid = p.clone(clone_arguments(p, flags), _CLONE_ARGS.size, child)
    report(p, BORN, pid)
    p.jump(end)
    p.place(child)
    p.purpose = "wait for a program"
    p.call("dup3", p.descriptors[0], isa.CHANNEL, os.O_CLOEXEC)
    p.call("close_range", isa.CHANNEL + 1, MAX_FD, 0)
    p.call("prctl", prctl.PR_SET_PDEATHSIG, signal.SIGKILL)
    p.call("prctl", prctl.PR_SET_NAME, "northstar-spare")
    p.call("setsid")
    # What it does takes long in the container's program alone, which has slices as others have.
    short = p.put(scheduling.attributes(slice_length=scheduling.SHORTEST_SLICE))
    p.call("sched_setattr", 0, short, 0, tolerate=errno.EPERM)
    if flags & namespaces.CLONE_NEWNET:
        set_up_loopback(p, isa.ANY_ERROR)
    share_board(p)
    p.place(end)
    p.call("getpid")
    return p


def burial(pid: int) -> Program:
    """Wait for a dead child; from then on its pid may be used again.

    While it is traced, it has not ended for anybody but its tracer (ptrace(2)): the value reported is 0 then.
    """
    p = Program()
    p.purpose = "wait for a dead process"
    report(p, BURIED, p.value("wait4", pid, None, os.WNOHANG, None, of="ended", tolerate=isa.ANY_ERROR))
    return p


def sign_of_life() -> Program:
    """Only answer."""
    p = Program()
    p.purpose = "answer"
    report(p, READY)
    return p


# --- what others use as well


def clone_arguments(p: Program, flags: int, cgroup: Register | None = None) -> int:
    """`struct clone_args` (clone3(2)) of a child that tells of its end by SIGCHLD; its address.

    With `cgroup` (Linux 5.7), a descriptor of a group of version 2, the child is born in it: a move would
    wait for an RCU grace period, which takes 10 ms.
    """
    if cgroup is not None:
        flags |= namespaces.CLONE_INTO_CGROUP
    exit_signal = 0 if flags & namespaces.CLONE_PARENT else signal.SIGCHLD
    address = p.put(_CLONE_ARGS.pack(flags, 0, 0, 0, exit_signal, 0, 0, 0, 0, 0, 0))
    if cgroup is not None:
        p.store(address + _CGROUP_OFFSET, cgroup)
    return address


CLONE_ARGS_SIZE = _CLONE_ARGS.size


def share_board(p: Program) -> None:
    """Share the board with the clones to come, so that they can leave there why they failed."""
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | MAP_FIXED
    p.call("mmap", isa.BOARD_ADDRESS, isa.BOARD_SIZE, protection, flags, -1, 0)


def set_up_loopback(p: Program, tolerate: int = 0) -> None:
    """Make the loopback interface work (netdevice(7)), if the kernel has IPv4."""
    p.purpose = "set up the loopback interface"
    after = Label()
    unknown = tolerate or errno.EAFNOSUPPORT
    socket = p.value("socket", AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0, of="socket", tolerate=unknown)
    p.jump_if_negative(socket, after)
    request = b"lo".ljust(16, b"\0") + namespaces.IFF_UP.to_bytes(2, "little")
    address = p.put(request.ljust(_IFREQ_SIZE, b"\0"))
    p.call("ioctl", socket, namespaces.SIOCSIFFLAGS, address, tolerate=tolerate)
    p.call("close", socket)
    p.place(after)


def report(p: Program, kind: int, value: int | Register = 0) -> None:
    """Tell the daemon."""
    address = p.put(isa.REPORT.pack(kind, 0, 0))
    if value:
        p.store(address + 4, value)
    p.call("write", isa.CHANNEL, address, isa.REPORT.size)


def join_keyring(p: Program) -> None:
    """A new session keyring (keyctl(2)); a kernel without keyrings has none to share."""
    p.call("keyctl", KEYCTL_JOIN_SESSION_KEYRING, None, tolerate=errno.ENOSYS)


def write_file(p: Program, path: str, text: str) -> None:
    """Write to a file of the kernel."""
    file = p.value("openat", AT_FDCWD, path, os.O_WRONLY | os.O_CLOEXEC, 0, of="file")
    p.call("write", file, p.text(text), len(text.encode()))
    p.call("close", file)


def _reset_signals(p: Program) -> None:
    """All dispositions and the mask: also those of signals that the C library does not let anybody touch."""
    default = p.reserve(32)
    for number in range(1, _SIGNALS + 1):
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            p.call("rt_sigaction", number, default, None, _SIGNALS // 8)
    p.call("rt_sigprocmask", signal.SIG_SETMASK, p.reserve(8), None, _SIGNALS // 8)


def _reset_scheduling(p: Program) -> None:
    """What a service manager may have set for the daemon holds for the daemon: not for containers.

    A kernel without NUMA or block devices lacks some of it; a daemon without privileges keeps what it has.
    """
    p.call("sched_setattr", 0, p.put(scheduling.attributes()), 0, tolerate=errno.EPERM)
    all_processors = p.put(b"\xff" * _PROCESSORS)
    p.call("sched_setaffinity", 0, _PROCESSORS, all_processors, tolerate=isa.ANY_ERROR)
    p.call("ioprio_set", _IOPRIO_WHO_PROCESS, 0, _IOPRIO_NONE, tolerate=isa.ANY_ERROR)
    p.call("set_mempolicy", _MPOL_DEFAULT, None, 0, tolerate=isa.ANY_ERROR)


def set_limit(p: Program, number: int, soft: int, hard: int) -> None:
    """prlimit(2) for the process itself; -1 is unlimited."""
    mask = (1 << 64) - 1
    p.call("prlimit64", 0, number, p.put(struct.pack("<2Q", soft & mask, hard & mask)), None)
