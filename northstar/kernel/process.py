# SPDX-License-Identifier: Apache-2.0
"""Processes: pidfds, descriptor ranges, session keyring, schedulers and a prepared execve."""

from __future__ import annotations

import ctypes
import os

from northstar.kernel.libc import check, encode, error, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

CLOSE_RANGE_UNSHARE = 2
CLOSE_RANGE_CLOEXEC = 4
MAX_FD = 0xFFFFFFFF
"""Upper end of a descriptor range that means "all"."""

SCHED_OTHER = 0
SCHED_FIFO = 1
SCHED_RR = 2
SCHED_BATCH = 3
SCHED_IDLE = 5
SCHED_DEADLINE = 6
SCHED_FLAG_RESET_ON_FORK = 1

PER_LINUX = 0
"""The personality of a Linux program, without any of its flags such as ADDR_NO_RANDOMIZE."""

_KEYCTL_JOIN_SESSION_KEYRING = 1


class sched_attr(ctypes.Structure):
    """Argument of sched_setattr(2), first version, 48 bytes; times in nanoseconds."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


_pidfd_open = syscall(434, 434, ctypes.c_int, ctypes.c_uint)
_pidfd_send_signal = syscall(424, 424, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint)
_close_range = syscall(436, 436, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint)
_keyctl = syscall(250, 219, ctypes.c_int, ctypes.c_char_p)
_personality = syscall(135, 92, ctypes.c_ulong)
_sched_setattr = syscall(314, 274, ctypes.c_int, ctypes.POINTER(sched_attr), ctypes.c_uint)
_sched_getattr = syscall(315, 275, ctypes.c_int, ctypes.POINTER(sched_attr), ctypes.c_uint, ctypes.c_uint)


def pidfd_open(pid: int, flags: int = 0) -> int:
    """pidfd_open(2), Linux 5.3: descriptor of a process, readable (poll) once it has ended; close-on-exec.

    ESRCH: no such process, or reaped already. Only for a child not reaped yet, or a process that tells
    its pid itself, is it certain that the pid has not been reused before the call.
    """
    return check(_pidfd_open(pid, flags), "pidfd_open", f"pid {pid}")


def pidfd_send_signal(pidfd: int, number: int) -> None:
    """pidfd_send_signal(2), Linux 5.1. ESRCH: the process has ended and was reaped."""
    check(_pidfd_send_signal(pidfd, number, None, 0), "pidfd_send_signal")


def close_range(first: int, last: int = MAX_FD, flags: int = 0) -> None:
    """close_range(2), Linux 5.9: close all descriptors from `first` to `last` inclusive.

    With CLOSE_RANGE_CLOEXEC (Linux 5.11) they are only marked close-on-exec.
    """
    check(_close_range(first, last, flags), "close_range")


def join_session_keyring(name: str | None = None) -> int:
    """Replace the caller's session keyring by the one of that name, or a new anonymous one; its serial.

    ENOSYS: kernel without CONFIG_KEYS (then there is no keyring to share either); EDQUOT: key quota.
    """
    return check(
        _keyctl(_KEYCTL_JOIN_SESSION_KEYRING, encode(name, "keyctl")), "keyctl(JOIN_SESSION_KEYRING)"
    )


def set_personality(persona: int) -> None:
    """personality(2). Inherited by what is forked and executed. ENOSYS: kernel without it."""
    check(_personality(persona), "personality")


def sched_setattr(
    policy: int,
    *,
    nice: int = 0,
    priority: int = 0,
    runtime: int = 0,
    deadline: int = 0,
    period: int = 0,
    flags: int = 0,
    pid: int = 0,
) -> None:
    """sched_setattr(2), Linux 3.14: policy with all its parameters; `pid` 0 is the calling thread.

    `nice` counts for OTHER and BATCH, `priority` (1-99) for FIFO and RR, the times (nanoseconds,
    runtime <= deadline <= period) for DEADLINE. EPERM: no CAP_SYS_NICE, or the CPU affinity does not cover
    the whole root domain (DEADLINE); EBUSY: not enough bandwidth left (DEADLINE); EINVAL: value out
    of range; EAGAIN on a later fork: a DEADLINE thread needs SCHED_FLAG_RESET_ON_FORK to fork.
    """
    attr = sched_attr(ctypes.sizeof(sched_attr), policy, flags, nice, priority, runtime, deadline, period)
    check(_sched_setattr(pid, attr, 0), "sched_setattr")


def sched_getattr(pid: int = 0) -> sched_attr:
    """sched_getattr(2), Linux 3.14."""
    attr = sched_attr()
    check(_sched_getattr(pid, attr, ctypes.sizeof(sched_attr), 0), "sched_getattr", f"pid {pid}")
    return attr


def sched_setscheduler(policy: int, priority: int = 0, pid: int = 0) -> None:
    """Policy and static priority; a nice value set before is kept. Errors as `sched_setattr`."""
    nice = sched_getattr(pid).nice if policy in (SCHED_OTHER, SCHED_BATCH) else 0
    sched_setattr(policy, nice=nice, priority=priority, pid=pid)


def killpg(pgid: int, number: int) -> None:
    """killpg(3). ESRCH: no such group; EPERM: no process of it may be signalled."""
    try:
        os.killpg(pgid, number)
    except OSError as failure:
        raise error("killpg", f"process group {pgid}", failure.errno) from None
