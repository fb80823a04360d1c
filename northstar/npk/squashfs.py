# SPDX-License-Identifier: Apache-2.0
"""Running mksquashfs(1) and unsquashfs(1) of squashfs-tools 4.5 or newer."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile

from northstar.errors import NorthstarError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

COMPRESSIONS = ("none", "gzip", "lzo", "xz", "zstd")
OLDEST_VERSION = (4, 5)
LABELS_VERSION = (4, 6)

_NOT_FATAL = 2
"""Exit status of unsquashfs: all has been read, but not all could be written."""
_NODE = re.compile(
    r"create_inode: (could not create|failed to create) (character|block) device .*, because "
    r"(you're not superuser!|Operation not permitted)"
)
_ATTRIBUTE = re.compile(
    r"write_xattr: failed to write xattr .* not supported by the destination filesystem"
    r"|Ignoring xattrs in filesystem|To avoid this error message, specify -no-xattrs"
)

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
    exclude: Sequence[str] = (),
    compression: str = "gzip",
    block_size: int | None = None,
    time: int | None = None,
    program: str = "mksquashfs",
) -> None:
    """Make an image of a directory in which everything belongs to `uid` and `gid`.

    `exclude` are paths below the directory that are left out. `time`, in seconds since the epoch, replaces
    all time stamps. Raises NorthstarError.
    """
    # Otherwise a file that cannot be read becomes an empty one, and a directory is left out.
    command = [program, root, image, "-noappend", "-no-progress", "-quiet", "-exit-on-error"]
    command += ["-force-uid", str(uid), "-force-gid", str(gid)]
    command += options(compression, block_size, time)
    with tempfile.NamedTemporaryFile("w", prefix="pseudo-", suffix=".txt") as file:
        file.writelines(f"{line}\n" for line in definitions)
        file.flush()
        _run([*command, "-pf", file.name, *(["-e", *exclude] if exclude else [])])


def options(compression: str, block_size: int | None, time: int | None) -> list[str]:
    """Options of mksquashfs for the image as a whole; see `make`."""
    chosen = [*_UNCOMPRESSED] if compression == "none" else ["-comp", compression]
    if block_size is not None:
        chosen += ["-b", str(block_size)]
    if time is not None:
        chosen += ["-mkfs-time", str(time), "-all-time", str(time)]
    return chosen


def extract(
    image: str,
    directory: str,
    program: str = "unsquashfs",
    *,
    warn: Callable[[str], None] = lambda text: None,
) -> None:
    """Extract an image into a directory that does not exist yet.

    `warn` is told of what cannot be had here: device nodes take root, and some attributes a file system that
    knows them. If anything else is missing, it raises NorthstarError, and the directory is removed.
    """
    command = [program, "-no-progress", "-dest", directory]
    command += [] if os.geteuid() == 0 else ["-user-xattrs"]
    done = _execute([*command, image])
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    if done.returncode not in (0, _NOT_FATAL) or not all(map(_is_harmless, lines)):
        shutil.rmtree(directory, ignore_errors=True)
        raise _failure(program, done)
    nodes = sum(_NODE.match(line) is not None for line in lines)
    if nodes:
        warn(f"{nodes} device nodes were left out: only root can make them")
    if len(lines) > nodes:
        warn(f"extended attributes were left out: the file system of {directory} does not take them")


def _is_harmless(line: str) -> bool:
    return _NODE.match(line) is not None or _ATTRIBUTE.match(line) is not None


def listing(image: str, program: str = "unsquashfs") -> str:
    """What is in an image, one line each. Raises NorthstarError."""
    return _run([program, "-ll", image])


def environment() -> dict[str, str]:
    """That of the tools, which refuse SOURCE_DATE_EPOCH together with options for times."""
    return {key: value for key, value in os.environ.items() if key != "SOURCE_DATE_EPOCH"}


def not_run(program: str, error: OSError) -> NorthstarError:
    """The error of a tool that could not be run."""
    hint = "install squashfs-tools" if isinstance(error, FileNotFoundError) else None
    return NorthstarError(f"failed to run {program}: {error.strerror}", hint)


def failed(program: str, code: int, output: str) -> NorthstarError:
    """The error of a tool that ended with an exit status and this output."""
    if "No space left on device" in output:
        return NorthstarError(
            f"{program} failed: no space left on the device", "make room, or choose another place with --out"
        )
    return NorthstarError(f"{program} failed with exit status {code}:\n{output.strip()}")


def _run(command: Sequence[str]) -> str:
    done = _execute(command)
    # mksquashfs -version exits with 1 in some releases
    if done.returncode and command[1:] != ["-version"]:
        raise _failure(command[0], done)
    return done.stdout


def _execute(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="backslashreplace",
            env=environment(),
        )
    except OSError as error:
        raise not_run(command[0], error) from None


def _failure(program: str, done: subprocess.CompletedProcess[str]) -> NorthstarError:
    return failed(program, done.returncode, f"{done.stdout.strip()}\n{done.stderr.strip()}")
