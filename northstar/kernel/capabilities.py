# SPDX-License-Identifier: Apache-2.0
"""Capabilities of a thread: their names, capget(2), and the version of the sets in programs of the engine.

A set is an int bit mask: bit n is capability number n.
"""

from __future__ import annotations

import ctypes

from northstar.kernel.libc import check, function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

NAMES = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_FOWNER": 3,
    "CAP_FSETID": 4,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_LINUX_IMMUTABLE": 9,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_NET_BROADCAST": 11,
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_IPC_LOCK": 14,
    "CAP_IPC_OWNER": 15,
    "CAP_SYS_MODULE": 16,
    "CAP_SYS_RAWIO": 17,
    "CAP_SYS_CHROOT": 18,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_PACCT": 20,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYS_BOOT": 22,
    "CAP_SYS_NICE": 23,
    "CAP_SYS_RESOURCE": 24,
    "CAP_SYS_TIME": 25,
    "CAP_SYS_TTY_CONFIG": 26,
    "CAP_MKNOD": 27,
    "CAP_LEASE": 28,
    "CAP_AUDIT_WRITE": 29,
    "CAP_AUDIT_CONTROL": 30,
    "CAP_SETFCAP": 31,
    "CAP_MAC_OVERRIDE": 32,
    "CAP_MAC_ADMIN": 33,
    "CAP_SYSLOG": 34,
    "CAP_WAKE_ALARM": 35,
    "CAP_BLOCK_SUSPEND": 36,
    "CAP_AUDIT_READ": 37,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
    "CAP_CHECKPOINT_RESTORE": 40,
}
"""Names and numbers of linux/capability.h."""

VERSION_3 = 0x20080522
"""_LINUX_CAPABILITY_VERSION_3: sets of 64 bits."""
_PR_CAPBSET_READ = 23


class cap_user_header(ctypes.Structure):
    """Header of capget/capset, 8 bytes; pid 0 is the calling thread."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class cap_user_data(ctypes.Structure):
    """Lower and upper 32 bits of the three sets, 24 bytes."""

    _fields_ = (
        ("effective_low", ctypes.c_uint32),
        ("permitted_low", ctypes.c_uint32),
        ("inheritable_low", ctypes.c_uint32),
        ("effective_high", ctypes.c_uint32),
        ("permitted_high", ctypes.c_uint32),
        ("inheritable_high", ctypes.c_uint32),
    )


_capget = function("capget", ctypes.POINTER(cap_user_header), ctypes.POINTER(cap_user_data))
_prctl = function("prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)


def mask(names: Iterable[str]) -> int:
    """Bit mask of capability names ("CAP_KILL"). KeyError for an unknown one."""
    result = 0
    for name in names:
        result |= 1 << NAMES[name]
    return result


def get(pid: int = 0) -> tuple[int, int, int]:
    """capget(2): effective, permitted and inheritable set of a thread, 0 is the caller. ESRCH: gone."""
    data = cap_user_data()
    check(_capget(cap_user_header(VERSION_3, pid), data), "capget")
    return (
        data.effective_low | data.effective_high << 32,
        data.permitted_low | data.permitted_high << 32,
        data.inheritable_low | data.inheritable_high << 32,
    )


def last_cap() -> int:
    """Highest capability number this kernel knows; asked without procfs."""
    cap = max(NAMES.values())
    while cap > 0 and _prctl(_PR_CAPBSET_READ, cap, 0, 0, 0) < 0:
        cap -= 1
    while cap < 63 and _prctl(_PR_CAPBSET_READ, cap + 1, 0, 0, 0) >= 0:
        cap += 1
    return cap
