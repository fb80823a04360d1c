# SPDX-License-Identifier: Apache-2.0
"""prctl(2): attributes of the calling process or thread, and the numbers that programs of the engine use.

EINVAL: value or option not known here.
"""

from __future__ import annotations

import ctypes

from northstar.kernel.libc import check, function

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_TIMERSLACK = 29
PR_MCE_KILL = 33
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_SET_THP_DISABLE = 41
PR_CAP_AMBIENT = 47
PR_SET_IO_FLUSHER = 57
PR_SET_MEMORY_MERGE = 67

AMBIENT_RAISE = 2
AMBIENT_CLEAR_ALL = 4
"""Of PR_CAP_AMBIENT."""

SECCOMP_SET_MODE_FILTER = 1
"""Of seccomp(2)."""

_PR_MCE_KILL_CLEAR = 0

_arguments = (ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_prctl = function("prctl", ctypes.c_int, *_arguments)


def set_parent_death_signal(number: int) -> None:
    """The caller gets this signal when the thread that made it ends (Linux 2.1.57). Not inherited by fork."""
    check(_prctl(PR_SET_PDEATHSIG, number, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def set_child_subreaper(on: bool) -> None:
    """Orphaned descendants become children of the caller (Linux 3.4). Not inherited by fork."""
    check(_prctl(PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def set_timer_slack(nanoseconds: int) -> None:
    """How late the caller's timers may be (Linux 2.6.28). Inherited; 0 stands for what was inherited."""
    check(_prctl(PR_SET_TIMERSLACK, nanoseconds, 0, 0, 0), "prctl(PR_SET_TIMERSLACK)")


def allow_huge_pages() -> None:
    """Take back PR_SET_THP_DISABLE (Linux 3.15), which is inherited."""
    check(_prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0), "prctl(PR_SET_THP_DISABLE)")


def clear_memory_failure_policy() -> None:
    """The system's policy for memory that has failed (Linux 2.6.32) instead of an inherited one."""
    check(_prctl(PR_MCE_KILL, _PR_MCE_KILL_CLEAR, 0, 0, 0), "prctl(PR_MCE_KILL)")


def clear_io_flusher() -> None:
    """No exceptions from waiting for memory (Linux 5.6), which are inherited. EPERM: no CAP_SYS_RESOURCE."""
    check(_prctl(PR_SET_IO_FLUSHER, 0, 0, 0, 0), "prctl(PR_SET_IO_FLUSHER)")


def clear_memory_merge() -> None:
    """Pages are not merged with equal ones (Linux 6.4); inherited, and a way to guess what others have."""
    check(_prctl(PR_SET_MEMORY_MERGE, 0, 0, 0, 0), "prctl(PR_SET_MEMORY_MERGE)")


def clear_securebits() -> None:
    """No exceptions from the rules of root (capabilities(7)). EPERM: no CAP_SETPCAP, or they are locked."""
    check(_prctl(PR_SET_SECUREBITS, 0, 0, 0, 0), "prctl(PR_SET_SECUREBITS)")
