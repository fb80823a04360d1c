# SPDX-License-Identifier: Apache-2.0
"""Namespaces: unshare(2), the type of a namespace file, and the flags of clone3(2).

EPERM: no CAP_SYS_ADMIN; ENOSPC: limit in /proc/sys/user/max_*_namespaces reached; EINVAL: flag
not supported by this kernel's configuration, or not allowed for a process with threads.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl

from northstar.kernel.libc import check, error, function

CLONE_FS = 0x200
"""Umask, root and working directory, which threads have in common otherwise."""
CLONE_PARENT = 0x8000
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000
"""Only clone3(2), Linux 5.7."""

SIOCSIFFLAGS = 0x8914
IFF_UP = 1
"""Of netdevice(7): a new network namespace has an interface that is down."""

NS_GET_NSTYPE = 0xB703

_unshare = function("unshare", ctypes.c_int)


def unshare(flags: int) -> None:
    """unshare(2): new namespaces (CLONE_NEW*) for the caller; CLONE_NEWPID counts for its next child."""
    check(_unshare(flags), "unshare")


def nstype(fd: int) -> int:
    """CLONE_NEW* type of a namespace file (Linux 4.11). EINVAL: no namespace file."""
    try:
        return fcntl.ioctl(fd, NS_GET_NSTYPE)
    except OSError as failure:
        code = errno.EINVAL if failure.errno == errno.ENOTTY else failure.errno
        raise error("NS_GET_NSTYPE", None, code) from None
