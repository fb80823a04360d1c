# SPDX-License-Identifier: Apache-2.0
"""Running mksquashfs(1) and unsquashfs(1) of squashfs-tools 4.5 or newer."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from typing import TYPE_CHECKING

from northstar.errors import NorthstarError

if TYPE_CHECKING:
    from collections.abc import Sequence

COMPRESSIONS = ("none", "gzip", "lzo", "xz", "zstd")
OLDEST_VERSION = (4, 5)
LABELS_VERSION = (4, 6)

_UNCOMPRESSED = ("-noI", "-noD", "-noF", "-noX", "-no-fragments")


def version(program: str) -> tuple[int, int]:
    """Major and minor version of mksquashfs. Raises NorthstarError if it is missing or too old."""
    first, _, _ = _run([program, "-version"]).partition("\n")
    match = re.search(r"version (\d+)\.(\d+)", first)
    if match is None:
        raise NorthstarError(f"{program} does not tell its version: {first[:80]!r}")
    found = int(match[1]), int(match[2])
    if found < OLDEST_VERSION:
        raise NorthstarError(
            f"{program} {match[1]}.{match[2]} is too old",
            f"squashfs-tools {OLDEST_VERSION[0]}.{OLDEST_VERSION[1]} or newer is needed",
        )
    return found


def make(
    root: str,
    image: str,
    *,
    uid: int,
    gid: int,
    definitions: Sequence[str] = (),
    compression: str = "gzip",
    block_size: int | None = None,
    time: int | None = None,
    program: str = "mksquashfs",
) -> None:
    """Make an image of a directory in which everything belongs to `uid` and `gid`.

    `time`, in seconds since the epoch, replaces all time stamps. Raises NorthstarError.
    """
    command = [program, root, image, "-noappend", "-no-progress", "-quiet"]
    command += ["-force-uid", str(uid), "-force-gid", str(gid)]
    command += options(compression, block_size, time)
    with tempfile.NamedTemporaryFile("w", prefix="pseudo-", suffix=".txt") as file:
        file.writelines(f"{line}\n" for line in definitions)
        file.flush()
        _run([*command, "-pf", file.name])


def options(compression: str, block_size: int | None, time: int | None) -> list[str]:
    """Options of mksquashfs for the image as a whole; see `make`."""
    chosen = [*_UNCOMPRESSED] if compression == "none" else ["-comp", compression]
    if block_size is not None:
        chosen += ["-b", str(block_size)]
    if time is not None:
        chosen += ["-mkfs-time", str(time), "-all-time", str(time)]
    return chosen


def extract(image: str, directory: str, program: str = "unsquashfs") -> None:
    """Extract an image into a directory that does not exist yet. Raises NorthstarError."""
    _run([program, "-no-progress", "-dest", directory, image])


def listing(image: str, program: str = "unsquashfs") -> str:
    """What is in an image, one line each. Raises NorthstarError."""
    return _run([program, "-ll", image])


def environment() -> dict[str, str]:
    """That of the tools, which refuse SOURCE_DATE_EPOCH together with options for times."""
    return {key: value for key, value in os.environ.items() if key != "SOURCE_DATE_EPOCH"}


def not_run(program: str, error: OSError) -> NorthstarError:
    """The error of a tool that could not be run."""
    return NorthstarError(f"failed to run {program}: {error.strerror}", "install squashfs-tools")


def failed(program: str, code: int, output: str) -> NorthstarError:
    """The error of a tool that ended with an exit status and this output."""
    if "No space left on device" in output:
        return NorthstarError(f"{program} failed: no space left on the device")
    return NorthstarError(f"{program} failed with exit status {code}:\n{output.strip()}")


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment(),
        )
    except OSError as error:
        raise not_run(command[0], error) from None
    # mksquashfs -version exits with 1 in some releases
    if done.returncode and command[1:] != ["-version"]:
        raise failed(command[0], done.returncode, done.stdout)
    return done.stdout
