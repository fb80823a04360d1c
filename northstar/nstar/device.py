# SPDX-License-Identifier: Apache-2.0
"""What `check` looks at on the device itself: memory, clock, and the storage of its runtime."""

from __future__ import annotations

import os
import socket
import struct
import time

from northstar import config
from northstar.errors import NorthstarError
from northstar.nstar import machine, table
from northstar.nstar.finding import Finding
from northstar.protocol.url import ConsoleUrl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from northstar.client import ContainerData
    from northstar.config import Config

CONFIGURATION = "/etc/northstar/northstar.toml"
LOW_SPACE, LOW_MEMORY = 0.05, 0.05
"""Shares of what there is in all."""

_CREDENTIALS = struct.Struct("3i")
_SUPERBLOCK = struct.Struct("<20xH")
"""The compressor's number in the superblock of squashfs."""
_COMPRESSORS = {1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}
_OPTIONS = {"gzip": "ZLIB", "lzo": "LZO", "xz": "XZ", "lz4": "LZ4", "zstd": "ZSTD"}


# --- the machine


def state() -> Iterator[Finding]:
    """Memory, time since boot and clock of this machine."""
    available, total = memory()
    low = available < LOW_MEMORY * total
    text = f"memory: {table.size(available)} of {table.size(total)} available"
    yield Finding("warning" if low else "ok", text)
    yield Finding("info", f"time since boot: {machine.uptime()}")
    yield clock(time.time())


def memory() -> tuple[int, int]:
    """Bytes that can be had without swapping (Linux 3.14, proc(5)), and bytes in all."""
    with open("/proc/meminfo", encoding="ascii") as file:
        values = dict(line.split(":", 1) for line in file)
    return tuple(int(values[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))  # type: ignore[return-value]


def clock(now: float) -> Finding:
    """Whether the clock can be right: it is not before this program was written."""
    made = os.stat(__file__).st_mtime
    shown = table.stamp(now)
    if now < made:
        text = f"clock: it says {shown}, before this program was installed: it is not set"
        return Finding("warning", text)
    return Finding("ok", f"clock: {shown}")


# --- the runtime's storage


def storage(url: str, containers: Collection[ContainerData], missing: Collection[str]) -> Iterator[Finding]:
    """Free space for the runtime behind `url`, and whether the kernel can read its packages.

    `missing` are options that the kernel does not have.
    """
    path = configuration(url)
    try:
        if path is None:
            raise NorthstarError("its process cannot be looked at")
        loaded = config.load(path)
    except NorthstarError as error:
        yield Finding("optional", f"storage: not checked, the runtime's configuration is unknown: {error}")
        return
    for name, directory in _directories(loaded):
        yield space(name, directory)
    yield from _compressors(loaded, containers, missing)


def _directories(loaded: Config) -> list[tuple[str, str]]:
    repositories = ((f"repository {r.id}", r.dir) for r in loaded.repositories.values())
    return [("data", loaded.data_dir), *((name, path) for name, path in repositories if path is not None)]


def space(name: str, directory: str) -> Finding:
    """Free space of a file system, and of its inodes if they are few."""
    try:
        found = os.statvfs(directory)
    except OSError as error:
        return Finding("warning", f"space for {name}: {directory}: {error.strerror}")
    free, total = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    text = f"space for {name}: {table.size(free)} of {table.size(total)} free in {directory}"
    if found.f_flag & os.ST_RDONLY:
        return Finding("info", f"{text}, read-only")
    if found.f_files and found.f_favail < LOW_SPACE * found.f_files:
        return Finding("warning", f"{text}, {found.f_favail} files can be made")
    return Finding("warning" if free < LOW_SPACE * total else "ok", text)


def configuration(url: str) -> str | None:
    """Path of the configuration of the daemon that listens at a unix socket; None if that is not known."""
    pid = _listener(url)
    if pid is None:
        return None
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = os.fsdecode(file.read()).split("\0")
        directory = os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return None
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in ("-c", "--config"):
            return os.path.join(directory, following)
        if word.startswith(("--config=", "-c")):
            return os.path.join(directory, word.removeprefix("--config=").removeprefix("-c"))
    return None


def _listener(url: str) -> int | None:
    """Who listens, by the socket's credentials: SO_PEERCRED, unix(7)."""
    where = ConsoleUrl.parse(url)
    if where.scheme != "unix":
        return None
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(where.path)
            size = _CREDENTIALS.size
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    except OSError:
        return None
    pid: int = _CREDENTIALS.unpack(credentials)[0]
    return pid or None


# --- compressors


def _compressors(
    loaded: Config, containers: Collection[ContainerData], missing: Collection[str]
) -> Iterator[Finding]:
    """Whether the kernel has what the images of installed packages are compressed with."""
    users: dict[str, list[str]] = {}
    for name, compressor in _installed(loaded, {data.container for data in containers}):
        users.setdefault(compressor, []).append(name)
    for compressor, names in sorted(users.items()):
        option = f"CONFIG_SQUASHFS_{_OPTIONS.get(compressor, compressor.upper())}"
        if option in missing:
            text = f"squashfs: {option} is missing, and needed by {', '.join(sorted(names))} ({compressor})"
            yield Finding("FAILED", text)
        else:
            yield Finding("ok", f"squashfs: {compressor}, used by {len(names)} packages")


def _installed(loaded: Config, containers: Collection[str]) -> Iterator[tuple[str, str]]:
    """Containers and the compressors of their images; packages in memory cannot be looked at."""
    from northstar.npk import package

    for repository in loaded.repositories.values():
        if repository.dir is None:
            continue
        for entry in os.scandir(repository.dir):
            if not entry.is_file():
                continue
            try:
                with open(entry.path, "rb") as file:
                    found = package.load(file.fileno(), None, entry.path)
                    header = os.pread(file.fileno(), _SUPERBLOCK.size, found.image_offset)
            except (OSError, NorthstarError):
                continue  # it is none; the runtime has told so in its log
            if str(found.container) in containers and len(header) == _SUPERBLOCK.size:
                yield str(found.container), _COMPRESSORS.get(_SUPERBLOCK.unpack(header)[0], "unknown")
