# SPDX-License-Identifier: Apache-2.0
"""Capabilities of the calling thread: capget(2), capset(2), bounding and ambient set.

A set is an int bit mask: bit n is capability number n.
"""

from __future__ import annotations

import ctypes
import errno

from northstar.kernel.libc import check, error, function

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

_VERSION_3 = 0x20080522
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_AMBIENT_IS_SET = 1
_AMBIENT_RAISE = 2
_AMBIENT_LOWER = 3
_AMBIENT_CLEAR_ALL = 4
_LOW = 0xFFFFFFFF


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
_capset = function("capset", ctypes.POINTER(cap_user_header), ctypes.POINTER(cap_user_data))
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
    check(_capget(cap_user_header(_VERSION_3, pid), data), "capget")
    return (
        data.effective_low | data.effective_high << 32,
        data.permitted_low | data.permitted_high << 32,
        data.inheritable_low | data.inheritable_high << 32,
    )


def set(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) for the calling thread; bits above `last_cap` are ignored by the kernel.

    EPERM: a permitted bit that is not permitted now, an effective one that is not in the new permitted
    set, or an inheritable one that is neither inheritable nor permitted now, or is not in the bounding set.
    """
    data = cap_user_data(
        effective & _LOW,
        permitted & _LOW,
        inheritable & _LOW,
        effective >> 32,
        permitted >> 32,
        inheritable >> 32,
    )
    check(_capset(cap_user_header(_VERSION_3, 0), data), "capset")


def bounding_has(cap: int) -> bool:
    """Whether the bounding set holds `cap`. EINVAL: unknown to this kernel."""
    return check(_prctl(_PR_CAPBSET_READ, cap, 0, 0, 0), "prctl(PR_CAPBSET_READ)") == 1


def last_cap() -> int:
    """Highest capability number this kernel knows; asked without procfs."""
    cap = max(NAMES.values())
    while cap > 0 and _prctl(_PR_CAPBSET_READ, cap, 0, 0, 0) < 0:
        cap -= 1
    while cap < 63 and _prctl(_PR_CAPBSET_READ, cap + 1, 0, 0, 0) >= 0:
        cap += 1
    return cap


def get_bounding() -> int:
    """The bounding set."""
    result = 0
    for cap in range(last_cap() + 1):
        if bounding_has(cap):
            result |= 1 << cap
    return result


def drop_bounding(cap: int) -> None:
    """Remove `cap` from the bounding set. EPERM: no CAP_SETPCAP; EINVAL: unknown to this kernel."""
    check(_prctl(_PR_CAPBSET_DROP, cap, 0, 0, 0), "prctl(PR_CAPBSET_DROP)")


def ambient_clear() -> None:
    """Empty the ambient set (Linux 4.3)."""
    check(_prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0), "prctl(PR_CAP_AMBIENT_CLEAR_ALL)")


def ambient_raise(cap: int) -> None:
    """Add `cap` to the ambient set. EPERM: not both permitted and inheritable, or forbidden by securebits."""
    check(_prctl(_PR_CAP_AMBIENT, _AMBIENT_RAISE, cap, 0, 0), "prctl(PR_CAP_AMBIENT_RAISE)")


def ambient_lower(cap: int) -> None:
    """Remove `cap` from the ambient set."""
    check(_prctl(_PR_CAP_AMBIENT, _AMBIENT_LOWER, cap, 0, 0), "prctl(PR_CAP_AMBIENT_LOWER)")


def get_ambient() -> int:
    """The ambient set."""
    result = 0
    for cap in range(last_cap() + 1):
        answer = _prctl(_PR_CAP_AMBIENT, _AMBIENT_IS_SET, cap, 0, 0)
        if answer < 0 and ctypes.get_errno() != errno.EINVAL:
            raise error("prctl(PR_CAP_AMBIENT_IS_SET)")
        if answer == 1:
            result |= 1 << cap
    return result
