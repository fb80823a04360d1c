# SPDX-License-Identifier: Apache-2.0
"""Path resolution that cannot be led astray: openat2(2), Linux 5.6."""

from __future__ import annotations

import ctypes
import errno
import os

from northstar.kernel.libc import encode, error, syscall

LEADS_NOWHERE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG))
"""What the kernel says of a path at which nothing is, nor can be."""

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# A rename or mount anywhere on the system during the look-up of ".." gives EAGAIN; the manual asks to
# repeat, a bound keeps a hostile renamer from holding us for ever.
_ATTEMPTS = 1000


class open_how(ctypes.Structure):
    """Argument of openat2(2), 24 bytes."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_openat2 = syscall(437, 437, ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(open_how), ctypes.c_size_t)


def openat2(dirfd: int, path: str | bytes, flags: int, resolve: int = 0, mode: int = 0) -> int:
    """openat2(2); the descriptor is close-on-exec.

    EXDEV: the path would leave the tree or mount (RESOLVE_BENEATH, RESOLVE_NO_XDEV); ELOOP: a symbolic
    link (RESOLVE_NO_SYMLINKS) or magic link (RESOLVE_NO_MAGICLINKS) in it; EINVAL: unknown flag, or a
    mode without O_CREAT/O_TMPFILE; EAGAIN: still renames going on after 1000 attempts.
    """
    how = open_how(flags | os.O_CLOEXEC, mode, resolve)
    name = encode(path, "openat2")
    for _ in range(_ATTEMPTS):
        fd = _openat2(dirfd, name, how, ctypes.sizeof(how))
        if fd >= 0:
            return fd
        if ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR):
            break
    raise error("openat2", path)


def leads_nowhere(path: str) -> bool:
    """Whether there is nothing at a path; what cannot be looked at (no right, no disk) is there."""
    try:
        os.stat(path)
    except OSError as failure:
        return failure.errno in LEADS_NOWHERE
    return False
