# SPDX-License-Identifier: Apache-2.0
"""The system calls left to a container's init, and to the supervisor of a session, once they only wait.

Init runs inside the container's namespaces; whoever takes it over shall find nothing to work with.
Everything not listed here fails with EPERM.
"""

from __future__ import annotations

import functools
import os
import struct

from northstar.engine import syscalls

CALLS = ("close", "exit_group", "read", "setpgid", "wait4", "waitid", "write")
"""Wait for the application, report, end."""

_RESTART_SYSCALL = {"x86_64": 219, "aarch64": 128}
"""What the kernel goes on with after a stop; programs do not use it."""

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


@functools.cache
def program(machine: str | None = None) -> bytes:
    """The filter as `struct sock_filter` records (seccomp(2)); empty for an unknown machine."""
    machine = machine or os.uname().machine
    if machine not in AUDIT_ARCH:
        return b""
    known = syscalls.numbers(machine)
    numbers = sorted([_RESTART_SYSCALL[machine], *(known[name] for name in CALLS)])
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
