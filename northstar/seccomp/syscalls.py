# SPDX-License-Identifier: Apache-2.0
"""Names and numbers of system calls, the same on every device, whatever its libraries know."""

from __future__ import annotations

from northstar.seccomp import tables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

COMPATIBLE = {"x86_64": "i386", "aarch64": "arm"}
"""The 32-bit architecture whose programs a machine can run as well."""

LAST_OF_GENERATION = 441
"""epoll_pwait2 of Linux 5.11, the newest call that the profile `default` knows.

From 424 on a call has the same number on all architectures, and later ones have higher numbers
(include/uapi/asm-generic/unistd.h).
"""

_FIRST_OF_ARM = 0xF0000
"""32-bit ARM has a few old calls of its own (arch/arm/include/uapi/asm/unistd.h)."""
_LATER = frozenset(("uretprobe", "uprobe"))
"""New calls with low numbers (arch/x86/entry/syscalls/syscall_64.tbl, Linux 6.11 and 6.17)."""


def numbers(architecture: str) -> dict[str, int]:
    """Number by name, of x86_64, i386, aarch64 or arm. KeyError for another architecture."""
    pairs = (pair.split("=") for pair in tables.NUMBERS[architecture].split())
    return {name: int(number) for name, number in pairs}


def unknown(names: Iterable[str]) -> list[str]:
    """Those names that no architecture has."""
    known = set(tables.OTHERS.split()).union(*map(numbers, tables.NUMBERS))
    return [name for name in names if name not in known]


def is_of_generation(name: str, number: int) -> bool:
    """Whether the call is old enough for the profile `default` to have an opinion about it."""
    return (number <= LAST_OF_GENERATION or number >= _FIRST_OF_ARM) and name not in _LATER
