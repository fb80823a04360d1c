# SPDX-License-Identifier: Apache-2.0
"""The command `seccomp`: the part `seccomp` of a manifest out of a log of strace."""

from __future__ import annotations

import re

from northstar.errors import NorthstarError
from northstar.seccomp.profile import BASE, X86_64

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

_CALL = re.compile(r"\s*(?:\[[^\]]*\]\s*|[0-9]+\s*)?([A-Za-z_][A-Za-z0-9_]*)\(")


def seccomp(options: argparse.Namespace) -> int:
    """Make a system call filter out of a log of strace.

    Prints the part `seccomp` of a manifest, which permits the calls in the log. The log is what strace -f -o
    FILE writes. System calls of the profile `default` are not listed, unless --no-default-profile makes the
    list stand alone.
    """
    try:
        with open(options.log, encoding="utf-8", errors="replace") as file:
            names = system_calls(file)
    except OSError as error:
        raise NorthstarError(f"failed to open strace log: {options.log}: {error.strerror}") from None
    print(section(names, default_profile=not options.no_default_profile))
    return 0


def system_calls(lines: Iterable[str]) -> set[str]:
    """Names of the system calls that were made. Results that came later and signals do not count."""
    return {match[1] for line in lines if (match := _CALL.match(line))}


def section(names: set[str], *, default_profile: bool) -> str:
    """YAML, with a newline at the end."""
    if default_profile:
        names = names.difference(BASE, X86_64)
    lines = ["profile: default"] if default_profile else []
    if names:
        lines += ["allow:", *(f"  {name}: any" for name in sorted(names))]
    return "\n".join(lines or ["{}"]) + "\n"
