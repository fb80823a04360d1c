# SPDX-License-Identifier: Apache-2.0
"""The file system as the program in a container sees it: the image, and what is mounted over it."""

from __future__ import annotations

import os
import stat

from northstar.lint import elf, files
from northstar.lint.files import Entry, Files, Program
from northstar.manifest import model
from northstar.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.manifest import Manifest

FOUND, MISSING, UNKNOWN = "found", "missing", "unknown"
_MAX_PROGRAM = 512 << 20


def components(path: str) -> tuple[str, ...]:
    """The components of a path; repeated `/` and `.` do not count."""
    return tuple(part for part in path.split("/") if part not in ("", "."))


class Place(NamedTuple):
    """Where a path leads. `unknown`: into something that only the device has."""

    state: str
    path: str
    entry: Entry | None = None


class View:
    """Looks up paths. Bind mounts lead below `host_root`, or into the unknown if that is None."""

    def __init__(self, found: Files, manifest: Manifest, host_root: str | None) -> None:
        self._files = found
        self._host_root = host_root
        self._mounts = {components(target): mount for target, mount in manifest.mounts.items()}
        self._programs: dict[str, Program | None] = {}

    def resolve(self, path: str) -> Place:
        """Follow a path, and links as the kernel does inside the container."""
        way: list[str] = []
        pending = path.split("/")[::-1]
        links = 0
        entry: Entry | None = Entry(files.DIRECTORY, 0o755)
        while pending:
            name = pending.pop()
            if name in ("", "."):
                continue
            if name == "..":
                del way[-1:]
                continue
            found = self._lookup((*way, name))
            if isinstance(found, Place):
                return found
            if found is None:
                return Place(MISSING, "/" + "/".join([*way, name, *pending[::-1]]))
            if found.kind == files.SYMLINK:
                links += 1
                if links > files.MAX_LINKS:
                    return Place(MISSING, path)
                if found.target.startswith("/"):
                    way.clear()
                pending += found.target.split("/")[::-1]
                continue
            way.append(name)
            entry = found
        return Place(FOUND, "/" + "/".join(way), entry)

    def program(self, place: Place) -> Program | None:
        """What the file at a place is, None if it is no program."""
        host = self._host_path(components(place.path))
        if host is None:
            return self._files.programs.get(place.path)
        if host not in self._programs:
            self._programs[host] = _program(host)
        return self._programs[host]

    def _lookup(self, parts: tuple[str, ...]) -> Entry | Place | None:
        mount = self._mount(parts)
        path = "/" + "/".join(parts)
        if mount is None:
            # Directories that mounts need are made when a root directory is packed.
            implied = any(target[: len(parts)] == parts for target in self._mounts)
            return self._files.entries.get(path) or (Entry(files.DIRECTORY, 0o755) if implied else None)
        host = self._host_path(parts)
        if host is None:
            return Place(UNKNOWN, path)
        try:
            status = os.lstat(host)
        except OSError:
            return None
        target = os.readlink(host) if stat.S_ISLNK(status.st_mode) else ""
        kind = files.kind_of(status.st_mode)
        return Entry(kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_size, target)

    def _mount(self, parts: tuple[str, ...]) -> tuple[tuple[str, ...], model.Mount] | None:
        """The innermost mount that a path is in."""
        for length in range(len(parts), 0, -1):
            mount = self._mounts.get(parts[:length])
            if mount is not None:
                return parts[:length], mount
        return None

    def _host_path(self, parts: tuple[str, ...]) -> str | None:
        """Where a path is on this machine, if it is in a bind mount and there is a root of the device."""
        target, mount = self._mount(parts) or ((), None)
        if not isinstance(mount, model.Bind) or self._host_root is None:
            return None
        return os.path.join(self._host_root, *components(mount.host), *parts[len(target) :])


def _program(path: str) -> Program | None:
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
            rest = file.read(_MAX_PROGRAM) if head.startswith(elf.MAGIC) else b""
    except OSError:
        return None
    return files.program(head, head + rest)
