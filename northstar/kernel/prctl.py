# SPDX-License-Identifier: Apache-2.0
"""prctl(2): attributes of the calling process or thread. EINVAL: value or option not known here."""

from __future__ import annotations

import ctypes

from northstar.kernel.libc import check, function

PR_SET_PDEATHSIG = 1
PR_GET_PDEATHSIG = 2
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_GET_KEEPCAPS = 7
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_GET_NAME = 16
PR_GET_SECCOMP = 21
PR_GET_SECUREBITS = 27
PR_SET_SECUREBITS = 28
PR_SET_TIMERSLACK = 29
PR_GET_TIMERSLACK = 30
PR_MCE_KILL = 33
PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39
PR_SET_THP_DISABLE = 41
PR_GET_THP_DISABLE = 42

_PR_MCE_KILL_CLEAR = 0

_arguments = (ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_prctl = function("prctl", ctypes.c_int, *_arguments)
_prctl_int = function("prctl", ctypes.c_int, ctypes.POINTER(ctypes.c_int), *_arguments[1:])
_prctl_text = function("prctl", ctypes.c_int, ctypes.c_char_p, *_arguments[1:])


def set_parent_death_signal(signal: int) -> None:
    """Signal sent to the caller when the *thread* that forked it ends; 0 for none.

    Cleared by fork and by every change of credentials, so set it after the last one; a parent that ended
    before is not noticed, so compare getppid afterwards.
    """
    check(_prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def get_parent_death_signal() -> int:
    """The signal set by `set_parent_death_signal`."""
    value = ctypes.c_int(0)
    check(_prctl_int(PR_GET_PDEATHSIG, value, 0, 0, 0), "prctl(PR_GET_PDEATHSIG)")
    return value.value


def set_dumpable(dumpable: bool) -> None:
    """False: no core dump, and /proc/<pid> belongs to root and is closed for processes of the same uid."""
    check(_prctl(PR_SET_DUMPABLE, int(dumpable), 0, 0, 0), "prctl(PR_SET_DUMPABLE)")


def get_dumpable() -> int:
    """0 no, 1 yes, 2 readable by root only (fs.suid_dumpable)."""
    return check(_prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), "prctl(PR_GET_DUMPABLE)")


def set_keep_caps(keep: bool) -> None:
    """Keep the permitted set when the uids change from 0 to others; cleared by execve."""
    check(_prctl(PR_SET_KEEPCAPS, int(keep), 0, 0, 0), "prctl(PR_SET_KEEPCAPS)")


def get_keep_caps() -> bool:
    """Whether `set_keep_caps` is in effect."""
    return check(_prctl(PR_GET_KEEPCAPS, 0, 0, 0, 0), "prctl(PR_GET_KEEPCAPS)") == 1


def set_name(name: str | bytes) -> None:
    """Thread name (comm); bytes after the 15th are cut off."""
    data = name.encode("utf-8", "replace") if isinstance(name, str) else name
    check(_prctl_text(PR_SET_NAME, data[:15], 0, 0, 0), "prctl(PR_SET_NAME)")


def get_name() -> bytes:
    """Thread name (comm)."""
    buffer = ctypes.create_string_buffer(16)
    check(_prctl_text(PR_GET_NAME, buffer, 0, 0, 0), "prctl(PR_GET_NAME)")
    return buffer.value


def set_child_subreaper(on: bool) -> None:
    """Orphaned descendants become children of the caller (Linux 3.4). Not inherited by fork."""
    check(_prctl(PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def get_child_subreaper() -> bool:
    """Whether the caller is a subreaper."""
    value = ctypes.c_int(0)
    check(_prctl_int(PR_GET_CHILD_SUBREAPER, value, 0, 0, 0), "prctl(PR_GET_CHILD_SUBREAPER)")
    return value.value != 0


def set_timer_slack(nanoseconds: int) -> None:
    """How late the caller's timers may be (Linux 2.6.28). Inherited; 0 stands for what was inherited."""
    check(_prctl(PR_SET_TIMERSLACK, nanoseconds, 0, 0, 0), "prctl(PR_SET_TIMERSLACK)")


def get_timer_slack() -> int:
    """The value of `set_timer_slack`."""
    return check(_prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0), "prctl(PR_GET_TIMERSLACK)")


def allow_huge_pages() -> None:
    """Take back PR_SET_THP_DISABLE (Linux 3.15), which is inherited."""
    check(_prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0), "prctl(PR_SET_THP_DISABLE)")


def clear_memory_failure_policy() -> None:
    """The system's policy for memory that has failed (Linux 2.6.32) instead of an inherited one."""
    check(_prctl(PR_MCE_KILL, _PR_MCE_KILL_CLEAR, 0, 0, 0), "prctl(PR_MCE_KILL)")


def clear_securebits() -> None:
    """No exceptions from the rules of root (capabilities(7)). EPERM: no CAP_SETPCAP, or they are locked."""
    check(_prctl(PR_SET_SECUREBITS, 0, 0, 0, 0), "prctl(PR_SET_SECUREBITS)")


def get_securebits() -> int:
    """SECBIT_* of the caller."""
    return check(_prctl(PR_GET_SECUREBITS, 0, 0, 0, 0), "prctl(PR_GET_SECUREBITS)")


def set_no_new_privs() -> None:
    """execve never gives privileges from now on (Linux 3.5). Inherited; cannot be taken back."""
    check(_prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")


def get_no_new_privs() -> bool:
    """Whether `set_no_new_privs` is in effect."""
    return check(_prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), "prctl(PR_GET_NO_NEW_PRIVS)") == 1


def get_seccomp() -> int:
    """Seccomp mode of the caller: 0 none, 2 filter (asking in strict mode kills)."""
    return check(_prctl(PR_GET_SECCOMP, 0, 0, 0, 0), "prctl(PR_GET_SECCOMP)")
