# SPDX-License-Identifier: Apache-2.0
"""Names of the constants in programs, for their text form; imported only where one is written."""

from __future__ import annotations

import fcntl
import mmap
import os
import resource
import signal
import socket
import termios

from northstar.kernel import capabilities as kernel_capabilities
from northstar.kernel import mount, namespaces, paths, prctl, process, scheduling
from northstar.kernel.libc import AT_EMPTY_PATH, AT_RECURSIVE


def _named(module: object, prefix: str) -> dict[int, str]:
    """The constants of a module, the value 0 left out."""
    found: dict[int, str] = {}
    for name in vars(module):
        value = getattr(module, name)
        if name.startswith(prefix) and isinstance(value, int) and value:
            found.setdefault(int(value), name)
    return found


_OPEN = {
    value: name
    for value, name in _named(os, "O_").items()
    if name in ("O_WRONLY", "O_RDWR", "O_PATH", "O_DIRECTORY", "O_CLOEXEC", "O_NOFOLLOW")
}
_TREE = {
    mount.OPEN_TREE_CLONE: "OPEN_TREE_CLONE",
    mount.OPEN_TREE_CLOEXEC: "OPEN_TREE_CLOEXEC",
    AT_EMPTY_PATH: "AT_EMPTY_PATH",
    AT_RECURSIVE: "AT_RECURSIVE",
}

FLAGS: dict[str, dict[int, str]] = {
    "open": _OPEN,
    "resolve": _named(paths, "RESOLVE_"),
    "tree": _TREE,
    "umount": _named(mount, "MNT_"),
    "mount_attr": _named(mount, "MOUNT_ATTR_"),
    "move": _named(mount, "MOVE_MOUNT_"),
    "clone": _named(namespaces, "CLONE_"),
    "signal": {number.value: number.name for number in signal.Signals},
    "fsconfig": {
        mount.FSCONFIG_SET_STRING: "FSCONFIG_SET_STRING",
        mount.FSCONFIG_CMD_CREATE: "FSCONFIG_CMD_CREATE",
    },
    "cloexec": {1: "CLOEXEC"},
    "prctl": _named(prctl, "PR_"),
    "rlimit": _named(resource, "RLIMIT_"),
    "fcntl": {fcntl.F_DUPFD_CLOEXEC: "F_DUPFD_CLOEXEC"},
    "ioctl": {termios.TIOCSCTTY: "TIOCSCTTY", namespaces.SIOCSIFFLAGS: "SIOCSIFFLAGS"},
    "keyctl": _named(process, "KEYCTL_"),
    "close_range": _named(process, "CLOSE_RANGE_"),
    "sched": {**_named(scheduling, "SCHED_"), 0: "SCHED_OTHER"},
    "seccomp": _named(prctl, "SECCOMP_"),
    "family": {socket.AF_UNIX: "AF_UNIX", socket.AF_INET: "AF_INET"},
    "socket": {
        socket.SOCK_CLOEXEC: "SOCK_CLOEXEC",
        socket.SOCK_STREAM: "SOCK_STREAM",
        socket.SOCK_DGRAM: "SOCK_DGRAM",
    },
    "access": {os.X_OK: "X_OK"},
    "protection": {mmap.PROT_READ: "PROT_READ", mmap.PROT_WRITE: "PROT_WRITE"},
    "map": {
        mmap.MAP_SHARED: "MAP_SHARED",
        mmap.MAP_ANONYMOUS: "MAP_ANONYMOUS",
        process.MAP_FIXED: "MAP_FIXED",
    },
    "wait": {os.WNOHANG: "WNOHANG", process.WEXITED: "WEXITED", process.WNOWAIT: "WNOWAIT"},
    "capability": {number: name for name, number in kernel_capabilities.NAMES.items()},
}
"""By kind of argument: the names of single bits, or of whole numbers."""

_ENUMERATIONS = frozenset(
    (
        "signal",
        "fsconfig",
        "prctl",
        "fcntl",
        "ioctl",
        "keyctl",
        "sched",
        "seccomp",
        "family",
        "rlimit",
        "capability",
    )
)

ARGUMENTS: dict[str, tuple[str, ...]] = {
    "capget": ("memory", "memory"),
    "capset": ("memory", "capability_sets"),
    "chdir": ("text",),
    "clone3": ("clone_args", "int"),
    "close": ("fd",),
    "close_range": ("int", "int", "close_range"),
    "dup3": ("fd", "int", "open"),
    "execve": ("text", "texts", "texts"),
    "faccessat": ("fd", "text", "access"),
    "fcntl": ("fd", "fcntl", "int"),
    "fsconfig": ("fd", "fsconfig", "text", "text", "int"),
    "fsmount": ("fd", "cloexec", "mount_attr"),
    "fsopen": ("text", "cloexec"),
    "fstat": ("fd", "memory"),
    "getgroups": ("int", "memory"),
    "getresgid": ("memory", "memory", "memory"),
    "getresuid": ("memory", "memory", "memory"),
    "ioctl": ("fd", "ioctl", "memory"),
    "keyctl": ("keyctl", "memory"),
    "mmap": ("memory", "int", "protection", "map", "int", "int"),
    "mount_setattr": ("fd", "text", "tree", "mount_attr_struct", "int"),
    "move_mount": ("fd", "text", "fd", "text", "move"),
    "open_tree": ("fd", "text", "tree"),
    "openat": ("fd", "text", "open", "octal"),
    "openat2": ("fd", "text", "open_how", "int"),
    "pivot_root": ("text", "text"),
    "ppoll": ("memory", "int", "memory", "memory", "int"),
    "prctl": ("prctl", "int", "int", "int", "int"),
    "prlimit64": ("int", "rlimit", "limits", "memory"),
    "read": ("fd", "memory", "int"),
    "rt_sigaction": ("signal", "memory", "memory", "int"),
    "rt_sigprocmask": ("int", "memory", "memory", "int"),
    "sched_setattr": ("int", "sched_attr", "int"),
    "seccomp": ("seccomp", "int", "filter"),
    "setgroups": ("int", "memory"),
    "setns": ("fd", "clone"),
    "socket": ("family", "socket", "int"),
    "socketpair": ("family", "socket", "int", "memory"),
    "statx": ("fd", "text", "open", "int", "memory"),
    "umask": ("octal",),
    "umount2": ("text", "umount"),
    "unshare": ("clone",),
    "wait4": ("int", "memory", "wait", "memory"),
    "waitid": ("int", "int", "memory", "wait", "memory"),
    "write": ("fd", "memory", "int"),
}
"""Kinds of the arguments of system calls: of `FLAGS`, or of the formatters in `listing`."""

PRCTL_ARGUMENTS: dict[object, tuple[str, ...]] = {
    prctl.PR_SET_PDEATHSIG: ("prctl", "signal"),
    prctl.PR_SET_NAME: ("prctl", "text"),
    prctl.PR_CAPBSET_DROP: ("prctl", "capability", "int", "int", "int"),
}
"""Of some options of prctl(2)."""


def flags(kind: str, number: int) -> str:
    """The names of a number of some kind; what has no name is shown as a number."""
    names = FLAGS[kind]
    if kind in _ENUMERATIONS:
        return names.get(number, str(number))
    found = [name for value, name in names.items() if number & value == value]
    rest = number & ~sum(value for value in names if number & value == value)
    if rest or not found:
        found.append(f"{rest:#x}" if rest else "0")
    return "|".join(found)


def capabilities(mask: int) -> str:
    """The names in a capability set; `all` and `none` are said as such."""
    names = FLAGS["capability"]
    found = [names.get(number, str(number)) for number in range(64) if mask >> number & 1]
    if len(found) >= len(names):
        return "all"
    return "|".join(found) or "none"
