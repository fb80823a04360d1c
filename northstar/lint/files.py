# SPDX-License-Identifier: Apache-2.0
"""The files of a container: a root directory, or a squashfs image that is not extracted for it."""

from __future__ import annotations

import os
import re
import stat
import struct
import subprocess
import tempfile

from northstar.errors import NorthstarError
from northstar.lint import elf
from northstar.namedtuple import NamedTuple
from northstar.npk import squashfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

FILE, DIRECTORY, SYMLINK, FIFO, SOCKET = "file", "dir", "link", "fifo", "socket"
CHARACTER, BLOCK = "char", "block"
MAX_LINKS = 40
MAX_CONTENT = 8 << 30
"""Bytes of all files of an image; more are not looked into."""
_MAX_DEFINITIONS = 256 << 20
_MAX_PROGRAM = 512 << 20
_HEAD = 4096
_CHUNK = 1 << 20

_DATA = b"# START OF DATA - DO NOT MODIFY\n"
_DEFINITION = re.compile(rb"((?:[^\\ ]|\\.)+) ([DRSBCIL]) (.*)", re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_TYPES = {b"D": DIRECTORY, b"R": FILE, b"S": SYMLINK, b"B": BLOCK, b"C": CHARACTER, b"I": FIFO}
_INODES = struct.Struct("<4sI")


class Entry(NamedTuple):
    """A name in a container; `mode` are the permissions with the bits for set-id and sticky."""

    kind: str
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    target: str = ""


class Program(NamedTuple):
    """A file that can be executed: `#!` line or ELF header; `problem` if the latter is damaged."""

    script: str | None = None
    binary: elf.Elf | None = None
    problem: str | None = None


class Files(NamedTuple):
    """Entries and programs by absolute path; the root directory is `/`."""

    entries: dict[str, Entry]
    programs: dict[str, Program]


def program(head: bytes, content: bytes) -> Program | None:
    """What a file that begins with `head` is, None if it is data."""
    if head.startswith(b"#!"):
        line = head[2:].partition(b"\n")[0].strip()
        return Program(script=line.decode("utf-8", "replace"))
    if head.startswith(elf.MAGIC):
        try:
            return Program(binary=elf.read(content))
        except elf.ElfError as error:
            return Program(problem=str(error))
    return None


def of_directory(root: str) -> Files:
    """The files below a directory. Raises NorthstarError."""
    found = Files({}, {})
    try:
        for path, inside in _below(root):
            status = os.lstat(path)
            kind = kind_of(status.st_mode)
            target = os.readlink(path) if kind == SYMLINK else ""
            mode = stat.S_IMODE(status.st_mode)
            size = status.st_size if kind == FILE else 0
            found.entries[inside] = Entry(kind, mode, status.st_uid, status.st_gid, size, target)
            if kind == FILE:
                with open(path, "rb") as file:
                    head = file.read(_HEAD)
                    rest = file.read(_MAX_PROGRAM) if head.startswith(elf.MAGIC) else b""
                _add(found, inside, head, head + rest)
    except OSError as error:
        raise NorthstarError(f"failed to read {error.filename or root}: {error.strerror}") from None
    return found


def _below(root: str) -> Iterator[tuple[str, str]]:
    yield root, "/"
    stack = [(root, "")]
    while stack:
        directory, inside = stack.pop()
        with os.scandir(directory) as entries:
            for entry in entries:
                yield entry.path, f"{inside}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    stack.append((entry.path, f"{inside}/{entry.name}"))


def kind_of(mode: int) -> str:
    """The kind of an entry, from its st_mode."""
    for test, kind in (
        (stat.S_ISREG, FILE),
        (stat.S_ISDIR, DIRECTORY),
        (stat.S_ISLNK, SYMLINK),
        (stat.S_ISCHR, CHARACTER),
        (stat.S_ISBLK, BLOCK),
        (stat.S_ISFIFO, FIFO),
    ):
        if test(mode):
            return kind
    return SOCKET


def _add(found: Files, path: str, head: bytes, content: bytes) -> None:
    what = program(head, content)
    if what is not None:
        found.programs[path] = what


# --- images


def of_image(image: str, tool: str = "unsquashfs", offset: int = 0) -> Files:
    """The files of a squashfs image at `offset` of a file. Raises NorthstarError.

    unsquashfs(1) writes them into a pipe as a pseudo file: definitions, then the content of all files.
    """
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as pipe, tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                [tool, "-no-progress", "-offset", str(offset), "-pf", f"/dev/fd/{write_end}", image],
                pass_fds=(write_end,),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=squashfs.environment(),
            )
        except OSError as error:
            raise squashfs.not_run(tool, error) from None
        finally:
            os.close(write_end)
        try:
            found, complete = _read(pipe, image, offset)
        except BaseException:
            process.kill()
            raise
        finally:
            pipe.close()  # what was not read is not wanted
            code = process.wait()
        if code and complete:
            output.seek(0)
            raise squashfs.failed(tool, code, output.read().decode(errors="replace"))
    return found


def _read(pipe: IO[bytes], image: str, offset: int) -> tuple[Files, bool]:
    """The files, and whether all of it was read."""
    found = Files({}, {})
    contents: list[tuple[int, str, int]] = []
    links: list[tuple[str, str]] = []
    size = 0
    for line in pipe:
        size += len(line)
        if line in (b"#\n", _DATA):
            if line == _DATA:
                break
            continue
        match = _DEFINITION.fullmatch(line.rstrip(b"\n"))
        if match is None or size > _MAX_DEFINITIONS:
            raise NorthstarError(f"{image}: it has names with line breaks, or too many files")
        _define(found, contents, links, *match.groups())
    pipe.readline()  # another #
    _check_count(image, offset, len(found.entries))
    for path, target in links:
        found.entries[path] = found.entries.get(target, Entry(FILE, 0))
    if sum(length for _, _, length in contents) > MAX_CONTENT:
        return found, False
    _read_contents(pipe, found, contents)
    for path, target in links:
        if target in found.programs:
            found.programs[path] = found.programs[target]
    return found, True


def _define(
    found: Files,
    contents: list[tuple[int, str, int]],
    links: list[tuple[str, str]],
    name: bytes,
    kind: bytes,
    rest: bytes,
) -> None:
    path = _path(name)
    if kind == b"L":
        links.append((path, _path(rest)))
        return
    _, mode, uid, gid, *more = rest.split(b" ", 4)
    last = more[0] if more else b""
    what = SOCKET if kind == b"I" and last == b"s" else _TYPES[kind]
    entry = Entry(what, int(mode, 8), int(uid), int(gid))
    if what == SYMLINK:
        entry = entry._replace(target=os.fsdecode(last))
    elif what == FILE:
        length, offset = (int(number) for number in last.split()[:2])
        entry = entry._replace(size=length)
        contents.append((offset, path, length))
    found.entries[path] = entry


def _path(name: bytes) -> str:
    return "/" + os.fsdecode(_ESCAPED.sub(rb"\1", name)).strip("/")


def _check_count(image: str, offset: int, count: int) -> None:
    """As many as the superblock tells, so that no name looked like several lines."""
    with open(image, "rb") as file:
        file.seek(offset)
        magic, inodes = _INODES.unpack(file.read(_INODES.size))
    if magic == b"hsqs" and inodes != count:
        raise NorthstarError(f"{image}: it has {inodes} files, and the list of them has {count}")


def _read_contents(pipe: IO[bytes], found: Files, contents: list[tuple[int, str, int]]) -> None:
    for _, path, length in sorted(contents):
        head = pipe.read(min(length, _HEAD))
        left = length - len(head)
        if head.startswith(elf.MAGIC) and length <= _MAX_PROGRAM:
            _add(found, path, head, head + pipe.read(left))
            continue
        _add(found, path, head, head)
        while left > 0 and (chunk := pipe.read(min(left, _CHUNK))):
            left -= len(chunk)
