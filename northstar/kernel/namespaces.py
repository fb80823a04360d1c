# SPDX-License-Identifier: Apache-2.0
"""Namespaces: unshare(2), setns(2) and the type of a namespace file.

EPERM: no CAP_SYS_ADMIN; ENOSPC: limit in /proc/sys/user/max_*_namespaces reached; EINVAL: flag
not supported by this kernel's configuration, or not allowed for a process with threads.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl

from northstar.kernel.libc import check, error, function

CLONE_NEWTIME = 0x80
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

NS_GET_NSTYPE = 0xB703

_unshare = function("unshare", ctypes.c_int)
_setns = function("setns", ctypes.c_int, ctypes.c_int)


def unshare(flags: int) -> None:
    """unshare(2): new namespaces (CLONE_NEW*) for the caller; CLONE_NEWPID counts for its next child."""
    check(_unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """setns(2): enter the namespace `fd`; `kind` is its CLONE_NEW* type, EINVAL if it is another one.

    CLONE_NEWPID counts for the next child only. With a pidfd (Linux 5.8) `kind` may be several types.
    """
    check(_setns(fd, kind), "setns")


def nstype(fd: int) -> int:
    """CLONE_NEW* type of a namespace file (Linux 4.11). EINVAL: no namespace file."""
    try:
        return fcntl.ioctl(fd, NS_GET_NSTYPE)
    except OSError as failure:
        code = errno.EINVAL if failure.errno == errno.ENOTTY else failure.errno
        raise error("NS_GET_NSTYPE", None, code) from None
