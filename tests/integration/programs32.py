# SPDX-License-Identifier: Apache-2.0
"""Static 32-bit programs, i386 or 32-bit ARM, written by hand: no compiler is needed for them."""

from __future__ import annotations

import os
import struct
import subprocess
import tempfile
from pathlib import Path

X86_64 = os.uname().machine == "x86_64"
# Numbers of arch/x86/entry/syscalls/syscall_32.tbl and arch/arm/tools/syscall.tbl.
EXIT, GETPID, UMASK, SETHOSTNAME = 1, 20, 60, 74

_EM_386, _EM_ARM = 3, 40
_HEADERS = 52 + 32


def program(*calls: tuple[int, int]) -> bytes:
    """An ELF file that makes system calls: numbers, each below 256, and their first arguments."""
    code = b"".join(_i386(*call) if X86_64 else _arm(*call) for call in calls)
    machine, base, flags = (_EM_386, 0x8048000, 0) if X86_64 else (_EM_ARM, 0x10000, 0x5000000)
    size = _HEADERS + len(code)
    identification = b"\x7fELF\x01\x01\x01" + bytes(9)
    header = struct.pack("<HHIIIIIHHHHHH", 2, machine, 1, base + _HEADERS, 52, 0, flags, 52, 32, 1, 0, 0, 0)
    segment = struct.pack("<8I", 1, 0, base, base, size, size, 5, 0x1000)
    return identification + header + segment + code


def _i386(number: int, argument: int) -> bytes:
    return b"\xb8" + struct.pack("<I", number) + b"\xbb" + struct.pack("<I", argument) + b"\xcd\x80"


def _arm(number: int, argument: int) -> bytes:
    return struct.pack("<III", 0xE3A07000 | number, 0xE3A00000 | argument, 0xEF000000)


def cannot_run() -> str | None:
    """None if this machine runs such programs."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "program"
        path.write_bytes(program((EXIT, 7)))
        path.chmod(0o755)
        try:
            code = subprocess.run([path], check=False).returncode
        except OSError as error:
            return f"the kernel does not run 32-bit programs: {error.strerror}"
    return None if code == 7 else f"a 32-bit program ends with {code}"
