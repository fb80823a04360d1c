# SPDX-License-Identifier: Apache-2.0
"""Writes the table of system calls, northstar/seccomp/tables.py.

    go mod download golang.org/x/sys@latest
    python3 -m tools.syscalls "$(go env GOMODCACHE)"/golang.org/x/sys@vVERSION/unix

The source is Go's module golang.org/x/sys: its files zsysnum_linux_ARCHITECTURE.go are made from the kernel's
own headers (asm/unistd.h), one for each architecture, and follow each release of the kernel.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

OUTPUT = Path(__file__).resolve().parent.parent / "northstar/seccomp/tables.py"
ARCHITECTURES = {"x86_64": "amd64", "i386": "386", "aarch64": "arm64", "arm": "arm"}
"""Ours, and Go's name of each."""

NO_CALL = re.compile(r"syscall_mask|arch_specific_syscall|(reserved|unused)[0-9]+")
"""What the headers define besides."""
ARM_PRIVATE = {
    "breakpoint": 0xF0001,
    "cacheflush": 0xF0002,
    "usr26": 0xF0003,
    "usr32": 0xF0004,
    "set_tls": 0xF0005,
    "get_tls": 0xF0006,
}
"""__ARM_NR_*, which Go does not list (arch/arm/include/uapi/asm/unistd.h)."""
ARM_ALIASES = {"sync_file_range2": "arm_sync_file_range"}
"""Two names of one call (the same file)."""

_CALL = re.compile(r"^\s*SYS_([A-Z0-9_]+)\s*=\s*([0-9]+)$", re.MULTILINE)


def calls(path: Path) -> dict[str, int]:
    """Number of each call that a file of Go's lists, by the kernel's name."""
    found = {name.lower(): int(number) for name, number in _CALL.findall(path.read_text())}
    return {name: number for name, number in found.items() if not NO_CALL.fullmatch(name)}


def module(directory: Path) -> str:
    """Text of the module."""
    tables = {ours: calls(directory / f"zsysnum_linux_{go}.go") for ours, go in ARCHITECTURES.items()}
    tables["arm"] |= ARM_PRIVATE
    tables["arm"] |= {alias: tables["arm"][name] for alias, name in ARM_ALIASES.items()}
    known = set().union(*tables.values())
    others = set().union(*map(calls, directory.glob("zsysnum_linux_*.go"))) - known
    version = directory.resolve().parent.name.partition("@")[2]
    kernel = re.search(r"--branch v([0-9.]+) .*linux", (directory / "linux/Dockerfile").read_text())
    parts = [
        # REUSE-IgnoreStart
        "# SPDX-License-Identifier: Apache-2.0\n"
        # REUSE-IgnoreEnd
        f'"""System calls of Linux {kernel[1] if kernel else "?"}: made by tools/syscalls.py, '
        f'from golang.org/x/sys {version}."""\n\n'
        "from __future__ import annotations\n",
        "NUMBERS = {\n" + "".join(_entry(name, table) for name, table in tables.items()) + "}",
        '"""By architecture: names and numbers."""\n',
        f'OTHERS = """\n{_filled(" ".join(sorted(others)))}\n"""',
        '"""Names that only further architectures have."""',
    ]
    return "\n".join(parts) + "\n"


def _entry(architecture: str, table: dict[str, int]) -> str:
    pairs = " ".join(f"{name}={number}" for name, number in sorted(table.items(), key=lambda pair: pair[1]))
    return f'    "{architecture}": """\n{_filled(pairs)}\n""",\n'


def _filled(text: str) -> str:
    return textwrap.fill(text, 108, break_on_hyphens=False, break_long_words=False)


if __name__ == "__main__":
    OUTPUT.write_text(module(Path(sys.argv[1])))
