# SPDX-License-Identifier: Apache-2.0
"""The system calls left to a container's init once it only waits for the application.

Init is the same program as the daemon and runs inside the container's namespaces; whoever takes it over
shall find nothing to work with. Everything not listed here fails with EPERM. The list is what the
interpreter needs to wait, to report and to end.
"""

from __future__ import annotations

import os
import struct

CALLS = {
    "x86_64": {
        "read": 0,
        "write": 1,
        "close": 3,
        "mmap": 9,
        "munmap": 11,
        "brk": 12,
        "rt_sigaction": 13,
        "rt_sigprocmask": 14,
        "rt_sigreturn": 15,
        "mremap": 25,
        "madvise": 28,
        "exit": 60,
        "wait4": 61,
        "futex": 202,
        "restart_syscall": 219,
        "exit_group": 231,
    },
    "aarch64": {
        "close": 57,
        "read": 63,
        "write": 64,
        "exit": 93,
        "exit_group": 94,
        "futex": 98,
        "restart_syscall": 128,
        "rt_sigaction": 134,
        "rt_sigprocmask": 135,
        "rt_sigreturn": 139,
        "brk": 214,
        "munmap": 215,
        "mremap": 216,
        "mmap": 222,
        "madvise": 233,
        "wait4": 260,
    },
}
"""System call numbers by machine (asm/unistd.h)."""

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""linux/audit.h"""

_LOAD_WORD = 0x20
_JUMP_EQUAL = 0x15
_RETURN = 0x06
_KILL_PROCESS = 0x80000000
_ALLOW = 0x7FFF0000
_EPERM = 0x00050000 | 1
_OFFSET_NUMBER = 0
_OFFSET_ARCHITECTURE = 4


def program(machine: str | None = None) -> bytes:
    """The filter as `struct sock_filter` records (seccomp(2)); empty for an unknown machine."""
    machine = machine or os.uname().machine
    if machine not in CALLS:
        return b""
    numbers = sorted(CALLS[machine].values())
    code = [
        _instruction(_LOAD_WORD, _OFFSET_ARCHITECTURE),
        _instruction(_JUMP_EQUAL, AUDIT_ARCH[machine], if_true=1),
        _instruction(_RETURN, _KILL_PROCESS),
        _instruction(_LOAD_WORD, _OFFSET_NUMBER),
    ]
    for index, number in enumerate(numbers):
        code.append(_instruction(_JUMP_EQUAL, number, if_true=len(numbers) - index))
    code += [_instruction(_RETURN, _EPERM), _instruction(_RETURN, _ALLOW)]
    return b"".join(code)


def _instruction(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, operand)
