# SPDX-License-Identifier: Apache-2.0
"""Runs programs of system call filters as the kernel would, and knows what is expected of them.

Numbers of calls are those of libseccomp.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable
from pathlib import Path

import pyseccomp
import pytest

from northstar.manifest.model import ArgRule, Seccomp
from northstar.seccomp import compile as compiler
from northstar.seccomp import syscalls

# include/uapi/linux/audit.h, seccomp.h, asm-generic/errno.h
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
AUDIT_ARCH_32 = {"i386": 0x40000003, "arm": 0x40000028}
MACHINE_OF = {"i386": "x86_64", "arm": "aarch64", "x86_64": "x86_64", "aarch64": "aarch64"}
FOREIGN = {**AUDIT_ARCH_32, "riscv64": 0xC00000F3, "none": 0}
LIBSECCOMP = {"x86_64": "X86_64", "i386": "X86", "aarch64": "AARCH64", "arm": "ARM"}
ALLOW, KILL_PROCESS, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
ENOSYS = ERRNO | errno.ENOSYS

HIGHEST = 600
"""Above all numbers of system calls there are."""
X32_BIT = 0x40000000
U64 = (1 << 64) - 1
CLONE_NEW = {
    "NS": 0x00020000,
    "CGROUP": 0x02000000,
    "UTS": 0x04000000,
    "IPC": 0x08000000,
    "USER": 0x10000000,
    "PID": 0x20000000,
    "NET": 0x40000000,
}
FORK = 0x01200011
THREAD = 0x003D0F00

both = pytest.mark.parametrize("machine", AUDIT_ARCH)


# --- the kernel's part


def action(program: bytes, machine: str, number: int, *arguments: int, arch: int | None = None) -> int:
    """What a program answers for a call: classic BPF over struct seccomp_data (seccomp(2))."""
    six = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("<IIQ6Q", number, AUDIT_ARCH[machine] if arch is None else arch, 0, *six)
    accumulator = position = 0
    while True:
        code, if_true, if_false, constant = struct.unpack_from("<HBBI", program, position * 8)
        position += 1
        match code:
            case 0x20:  # ld [constant]
                (accumulator,) = struct.unpack_from("<I", data, constant)
            case 0x54:  # and
                accumulator &= constant
            case 0x05:  # ja
                position += constant
            case 0x15:  # jeq
                position += if_true if accumulator == constant else if_false
            case 0x25:  # jgt
                position += if_true if accumulator > constant else if_false
            case 0x35:  # jge
                position += if_true if accumulator >= constant else if_false
            case 0x45:  # jset
                position += if_true if accumulator & constant else if_false
            case 0x06:  # ret
                return int(constant)
            case _:
                raise AssertionError(f"instruction {code:#x} is not known")


def number_of(machine: str, name: str) -> int:
    """Number of a call; negative if the architecture does not have it."""
    number: int = pyseccomp.resolve_syscall(getattr(pyseccomp.Arch, LIBSECCOMP[machine]), name)
    return number


def numbers_of(machine: str, names: Iterable[str]) -> set[int]:
    return {number for name in names if (number := number_of(machine, name)) >= 0}


def program_of(
    machine: str,
    allow: dict[str, ArgRule | None] | None = None,
    capabilities: Iterable[str] = (),
    *,
    default: bool = True,
) -> bytes:
    rules = Seccomp("default" if default else None, allow or {})
    return compiler.compile_filter(rules, capabilities, machine)


def allowed(program: bytes, machine: str) -> set[int]:
    """Calls that are allowed with arguments of 0."""
    return {number for number in range(HIGHEST) if action(program, machine, number) == ALLOW}


# --- what is expected


def described() -> dict[str, set[str]]:
    """The sections of data/seccomp-default.conf."""
    sections: dict[str, set[str]] = {}
    name = ""
    for line in (Path(__file__).parent / "data/seccomp-default.conf").read_text().splitlines():
        if line.startswith("["):
            name = line.strip("[]")
        elif line and not line.startswith("#"):
            sections.setdefault(name, set()).update(line.split())
    return sections


DESCRIBED = described()
CAPABILITIES = [name for name in DESCRIBED if name.startswith("CAP_")]
CONDITIONAL = {"clone", "personality"}
"""Allowed with an argument of 0."""


def base(machine: str) -> set[str]:
    return DESCRIBED["base"] | (DESCRIBED["x86_64"] if machine == "x86_64" else set()) | CONDITIONAL


def number_on(architecture: str, name: str) -> int | None:
    """The number of a call, also of those that libseccomp takes for socketcall and ipc of i386."""
    number = number_of(architecture, name)
    if number >= 0:
        return number
    return syscalls.numbers(architecture).get(name)
