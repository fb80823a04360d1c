# SPDX-License-Identifier: Apache-2.0
"""The C library and the `syscall` entry: prototypes and error conversion for the other modules.

Each prototype is an object of its own, made once at import. Changing the argtypes of a shared
function object while another thread calls it is a race, so nothing here is changed later.
Calls release the interpreter lock and are not repeated after EINTR.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

AT_FDCWD = -100
"""Stands for the current directory wherever a directory descriptor is expected."""
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
M_ARENA_MAX = -8
"""malloc.h"""

# System call numbers: x86-64 has its own table, 64-bit architectures added later share one.
_GENERIC_MACHINES = ("aarch64", "riscv64", "loongarch64")

libc = ctypes.CDLL(None, use_errno=True)


def _is_x86_64() -> bool:
    machine = os.uname().machine
    if sys.maxsize < 2**32 or machine not in ("x86_64", *_GENERIC_MACHINES):
        raise ImportError(f"northstar.kernel: machine {machine!r} is not supported (64-bit x86 or ARM only)")
    return machine == "x86_64"


_X86_64 = _is_x86_64()


def function(name: str, *argtypes: Any) -> Callable[..., int]:
    """Prototype of the C library function `name`, returning int."""
    pointer = libc[name]
    pointer.argtypes = argtypes
    pointer.restype = ctypes.c_int
    return pointer


def syscall(x86_64: int, generic: int, *argtypes: Any) -> Callable[..., int]:
    """Prototype of a system call without a C library function, by its numbers on x86-64 and aarch64."""
    number = x86_64 if _X86_64 else generic
    pointer = libc["syscall"]
    pointer.argtypes = (ctypes.c_long, *argtypes)
    pointer.restype = ctypes.c_long

    def call(*args: Any) -> int:
        result: int = pointer(number, *args)
        return result

    return call


def share_heap() -> None:
    """mallopt(3): threads allocate from the one heap that there is, instead of one each; glibc only."""
    mallopt = getattr(libc, "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)


def trim_heap() -> None:
    """malloc_trim(3): give free memory of the heap back to the kernel; glibc only, others keep none."""
    malloc_trim = getattr(libc, "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def error(what: str, filename: str | bytes | None = None, code: int | None = None) -> OSError:
    """The OSError for errno `code` (the last one of this thread if None) of the call `what`."""
    if code is None:
        code = ctypes.get_errno()
    text = f"{what}: {os.strerror(code)}"
    if code == errno.ENOSYS:
        text += " (kernel too old, or the call is forbidden by a seccomp filter)"
    if filename is None:
        return OSError(code, text)
    return OSError(code, text, filename)


def check(result: int, what: str, filename: str | bytes | None = None) -> int:
    """Return `result`, or raise the OSError of the call `what` if it is negative."""
    if result < 0:
        raise error(what, filename)
    return result


def encode(text: str | bytes | None, what: str) -> bytes | None:
    """A string argument as bytes; EINVAL if it holds a NUL, which C would silently cut at."""
    if text is None:
        return None
    data = os.fsencode(text)
    if b"\0" in data:
        raise OSError(errno.EINVAL, f"{what}: embedded NUL character", text)
    return data
