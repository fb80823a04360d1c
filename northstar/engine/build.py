# SPDX-License-Identifier: Apache-2.0
"""Compiles the engine. Needs a C compiler and nothing else: no headers, no library.

    python3 northstar/engine/build.py [--output FILE]

`CC` names the compiler, with options of its own if it has any (default: cc), also one for another machine.
CFLAGS and LDFLAGS are not used: they are about programs with a C library.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
import tempfile

_DIRECTORY = os.path.dirname(os.path.abspath(__file__))
SOURCE = f"{_DIRECTORY}/engine.c"
SOURCES = (SOURCE, f"{_DIRECTORY}/program.h", f"{_DIRECTORY}/system.h")
_FLAGS = (
    "-std=c11",
    "-Os",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wconversion",
    "-Wno-unused-command-line-argument",
    "-ffreestanding",
    "-fno-builtin",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fno-pie",
    "-fno-lto",
    "-fcf-protection=none",
    "-nostdlib",
    "-static",
    "-no-pie",
    "-Wl,--build-id=none,-z,noexecstack,-z,norelro,--no-undefined",
)
_ONLY_X86_64 = ("-fcf-protection=none",)


class BuildFailed(Exception):
    """The compiler is missing or has refused; the text says which and why."""


def compiler() -> list[str]:
    """The compiler's command."""
    return shlex.split(os.environ.get("CC", "")) or ["cc"]


def compile_to(output: str, command: list[str] | None = None) -> None:
    """Compile with a compiler's command, by default that of the environment. Raises BuildFailed."""
    command = command or compiler()
    flags = [flag for flag in _FLAGS if flag not in _ONLY_X86_64 or machine(command) == "x86_64"]
    _run([*command, *flags, "-o", output, SOURCE])


def machine(command: list[str] | None = None) -> str:
    """The machine that a compiler compiles for, as uname(2) calls it. Raises BuildFailed."""
    return _run([*(command or compiler()), "-dumpmachine"]).partition("-")[0]


def cached() -> str:
    """The binary for this checkout and compiler in the user's cache, made if it is not there.

    Raises BuildFailed.
    """
    digest = hashlib.sha256(repr((compiler(), os.uname().machine)).encode())
    for path in (*SOURCES, f"{_DIRECTORY}/build.py"):
        with open(path, "rb") as file:
            digest.update(file.read())
    directory = os.path.join(_cache(), f"engine-{digest.hexdigest()[:16]}")
    path = os.path.join(directory, "northstar-engine")
    if not os.path.exists(path):
        os.makedirs(directory, 0o755, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory) as work:
            compile_to(f"{work}/engine")
            os.replace(f"{work}/engine", path)
    return path


def _cache() -> str:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.environ.get("NORTHSTAR_CACHE") or os.path.join(home, "northstar")


def _run(command: list[str]) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildFailed(
            f"the engine cannot be compiled: {command[0]}: {error.strerror}; "
            f"install {_debian_package(command[0])}, or set CC"
        ) from None
    if result.returncode:
        raise BuildFailed(f"the engine cannot be compiled: {' '.join(command)}:\n{result.stderr.strip()}")
    return result.stdout.strip()


def _debian_package(name: str) -> str:
    triplet, separator, _ = os.path.basename(name).rpartition("-gcc")
    return f"gcc-{triplet}" if separator else "gcc"


def main() -> int:
    """Compile for a package or an image; the exit code."""
    import argparse

    parser = argparse.ArgumentParser(description="Compile the engine; CC names the compiler.")
    parser.add_argument("--output", metavar="FILE", default="northstar-engine", help="default: %(default)s")
    try:
        compile_to(parser.parse_args().output)
    except BuildFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
