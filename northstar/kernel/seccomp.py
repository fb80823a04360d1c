# SPDX-License-Identifier: Apache-2.0
"""seccomp(2): install a compiled system call filter."""

from __future__ import annotations

import ctypes
import errno

from northstar.kernel.libc import check, syscall

SECCOMP_SET_MODE_FILTER = 1
SECCOMP_GET_ACTION_AVAIL = 2
BPF_MAXINSNS = 4096
_INSTRUCTION_SIZE = 8


class sock_fprog(ctypes.Structure):
    """A classic BPF program: number of instructions and their address, 16 bytes."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


_seccomp = syscall(317, 277, ctypes.c_uint, ctypes.c_uint, ctypes.POINTER(sock_fprog))
_seccomp_action = syscall(317, 277, ctypes.c_uint, ctypes.c_uint, ctypes.POINTER(ctypes.c_uint32))


class Filter:
    """A program of `struct sock_filter` records, made ready so that `install` only makes the call."""

    __slots__ = ("_program",)

    def __init__(self, bpf: bytes) -> None:
        """EINVAL: not a whole number of instructions, none at all, or more than 4096."""
        count, rest = divmod(len(bpf), _INSTRUCTION_SIZE)
        if rest or not 0 < count <= BPF_MAXINSNS:
            raise OSError(errno.EINVAL, f"seccomp: {len(bpf)} bytes are not a filter program")
        self._program = sock_fprog(count, bpf)

    def install(self) -> None:
        """Filter the calling thread and its future children from now on (Linux 3.17).

        EACCES: neither CAP_SYS_ADMIN nor no_new_privs; EINVAL: program refused; ENOMEM: all filters of
        the thread together exceed 32768 instructions.
        """
        check(_seccomp(SECCOMP_SET_MODE_FILTER, 0, self._program), "seccomp")


def install_filter(bpf: bytes) -> None:
    """`Filter(bpf).install()`."""
    Filter(bpf).install()


def action_available(action: int) -> bool:
    """Whether the kernel knows the filter return value `action` (Linux 4.14)."""
    return _seccomp_action(SECCOMP_GET_ACTION_AVAIL, 0, ctypes.c_uint32(action)) == 0
