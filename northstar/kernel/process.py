# SPDX-License-Identifier: Apache-2.0
"""Processes: pidfds, descriptor ranges, process groups, and numbers for programs of the engine."""

from __future__ import annotations

import ctypes
import os

from northstar.kernel.libc import check, error, syscall

CLOSE_RANGE_CLOEXEC = 4
MAX_FD = 0xFFFFFFFF
"""Upper end of a descriptor range that means "all"."""

PER_LINUX = 0
"""The personality of a Linux program, without any of its flags such as ADDR_NO_RANDOMIZE."""

KEYCTL_JOIN_SESSION_KEYRING = 1
MAP_FIXED = 0x10
"""mmap(2); the module `mmap` does not have it."""
P_PID = 1
WEXITED = 0x4
WNOWAIT = 0x01000000
"""Of waitid(2)."""

_pidfd_open = syscall(434, 434, ctypes.c_int, ctypes.c_uint)
_pidfd_send_signal = syscall(424, 424, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint)
_close_range = syscall(436, 436, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint)
_personality = syscall(135, 92, ctypes.c_ulong)


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


def set_personality(persona: int) -> None:
    """personality(2). Inherited by what is forked and executed. ENOSYS: kernel without it."""
    check(_personality(persona), "personality")


def killpg(pgid: int, number: int) -> None:
    """killpg(3). ESRCH: no such group; EPERM: no process of it may be signalled."""
    try:
        os.killpg(pgid, number)
    except OSError as failure:
        raise error("killpg", f"process group {pgid}", failure.errno) from None
