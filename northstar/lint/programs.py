# SPDX-License-Identifier: Apache-2.0
"""Whether programs can be executed: interpreters, shared libraries, architecture (ld.so(8), execve(2))."""

from __future__ import annotations

import posixpath

from northstar.lint import files
from northstar.lint.rules import ERROR, WARNING, finding
from northstar.lint.view import FOUND, MISSING, UNKNOWN, Place, View
from northstar.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from northstar.lint.elf import Elf
    from northstar.lint.files import Entry, Files, Program
    from northstar.lint.rules import Finding
    from northstar.manifest import Manifest

_PATH = "/usr/local/bin:/usr/bin:/bin"
_LIBRARY_DIRECTORIES = ("/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib")
_TRIPLETS = {
    ("x86_64", 64): "x86_64-linux-gnu",
    ("i386", 32): "i386-linux-gnu",
    ("aarch64", 64): "aarch64-linux-gnu",
    ("arm", 32): "arm-linux-gnueabihf",
    ("riscv", 64): "riscv64-linux-gnu",
    ("powerpc64", 64): "powerpc64le-linux-gnu",
    ("s390x", 64): "s390x-linux-gnu",
}
_CACHE = "/etc/ld.so.cache"
_NAMES = {
    "amd64": "x86_64",
    "arm64": "aarch64",
    "386": "i386",
    "i686": "i386",
    "armv7l": "arm",
    "riscv64": "riscv",
}
_MAX_LIBRARIES = 1000


def check(
    manifest: Manifest, found: Files, view: View, machine: str | None, *, everybody_owns: bool
) -> Iterator[Finding]:
    """What keeps programs from being executed; init's troubles are errors, others' are warnings."""
    checker = _Checker(manifest, found, view, machine)
    init = ""
    if manifest.init is not None:
        place = view.resolve(manifest.init)
        init = place.path
        yield from _init(manifest, place, everybody_owns=everybody_owns)
        if place.state == FOUND:
            yield from checker.program(place, ERROR)
    for path in sorted(found.programs):
        entry = found.entries[path]
        if path != init and entry.kind == files.FILE and entry.mode & 0o111:
            yield from checker.program(Place(FOUND, path, entry), WARNING)


def machine_name(text: str) -> str:
    """An architecture under its name of uname(2), from that or from the name that images use."""
    return _NAMES.get(text, text)


def _init(manifest: Manifest, place: Place, *, everybody_owns: bool) -> Iterator[Finding]:
    init = str(manifest.init)
    if not init.startswith("/"):
        yield finding("missing-init", init, "it is no absolute path, and PATH is not searched", WARNING)
    if place.state == MISSING:
        yield finding("missing-init", init, f"{place.path} does not exist")
    elif place.entry is not None and place.entry.kind != files.FILE:
        yield finding("missing-init", init, f"{place.path} is no file")
    elif place.entry is not None and not _executable(place.entry, manifest, everybody_owns):
        yield finding("init-not-executable", init, f"its mode {place.entry.mode:04o} does not allow it")


def _executable(entry: Entry, manifest: Manifest, everybody_owns: bool) -> bool:
    """`everybody_owns`: packing makes the container's user the owner."""
    if everybody_owns or entry.uid == manifest.uid:
        return bool(entry.mode & 0o100)
    return bool(entry.mode & (0o010 if entry.gid == manifest.gid else 0o001))


class _Needed(NamedTuple):
    """A library that a file needs."""

    name: str
    by: str
    search: tuple[str, ...]


class _Checker:
    def __init__(self, manifest: Manifest, found: Files, view: View, machine: str | None) -> None:
        self._manifest = manifest
        self._view = view
        self._names: dict[str, list[str]] = {}
        for path, program in found.programs.items():
            if program.binary is not None:
                self._names.setdefault(posixpath.basename(path), []).append(path)
        self._cached = _CACHE in found.entries
        self._machine = machine or self._of_init()

    def _of_init(self) -> str | None:
        """The architecture of init, or of the platform that the image was imported for."""
        if self._manifest.init is not None:
            program = self._view.program(self._view.resolve(self._manifest.init))
            if program is not None and program.binary is not None:
                return program.binary.machine
        custom = self._manifest.custom
        oci = custom.get("oci") if isinstance(custom, dict) else None
        platform = oci.get("platform") if isinstance(oci, dict) else None
        return machine_name(platform.split("/")[1]) if isinstance(platform, str) and "/" in platform else None

    def program(self, place: Place, severity: str) -> Iterator[Finding]:
        """What keeps the file at a place from being executed."""
        program = self._view.program(place)
        if program is None:
            return
        if program.problem is not None:
            yield finding("damaged-program", place.path, program.problem, severity)
        elif program.script is not None:
            yield from self._script(place.path, program.script, severity)
        elif program.binary is not None:
            yield from self._binary(place.path, program.binary, severity)

    def _script(self, path: str, line: str, severity: str) -> Iterator[Finding]:
        if self._manifest.init is None:
            return  # others run it, with what they have
        words = line.split()
        if not words:
            yield finding("missing-interpreter", path, "its first line names none", severity)
            return
        place = self._view.resolve(words[0])
        if place.state == MISSING:
            yield finding("missing-interpreter", path, f"{words[0]} does not exist", severity)
        elif posixpath.basename(words[0]) == "env" and len(words) > 1 and not words[1].startswith("-"):
            directories = self._manifest.env.get("PATH", _PATH).split(":")
            places = [self._view.resolve(posixpath.join(directory, words[1])) for directory in directories]
            if all(candidate.state == MISSING for candidate in places):
                yield finding("missing-interpreter", path, f"{words[1]} is nowhere in PATH", severity)

    def _binary(self, path: str, binary: Elf, severity: str) -> Iterator[Finding]:
        if self._machine is not None and binary.machine != self._machine:
            message = f"it is for {binary.machine}, not for {self._machine}"
            yield finding("wrong-architecture", path, message, severity)
            return
        if binary.interpreter is None or self._manifest.init is None:
            return  # static, or a library, looked at where it is needed, or run by others with what they have
        if self._view.resolve(binary.interpreter).state == MISSING:
            yield finding("missing-interpreter", path, f"{binary.interpreter} does not exist", severity)
        for needed in self._missing(path, binary):
            by = "" if needed.by == path else f", which {needed.by} needs"
            yield finding("missing-library", path, f"{needed.name}{by} is not found", severity)

    def _missing(self, path: str, binary: Elf) -> Iterator[_Needed]:
        """Libraries that are not found, of the program and of its libraries."""
        pending = [_Needed(name, path, _expanded(binary.search, path)) for name in binary.needed]
        seen: set[str] = set()
        while pending and len(seen) < _MAX_LIBRARIES:
            needed = pending.pop(0)
            if needed.name in seen:
                continue
            seen.add(needed.name)
            place = self._library(needed, binary)
            if place.state == MISSING:
                yield needed
            elif place.state == FOUND:
                program = self._view.program(place)
                library = program.binary if program is not None else None
                if library is not None:
                    search = (*_expanded(library.search, place.path), *needed.search)
                    pending += [_Needed(name, place.path, search) for name in library.needed]

    def _library(self, needed: _Needed, binary: Elf) -> Place:
        if "/" in needed.name:
            return self._view.resolve(needed.name)
        unknown = None
        for directory in (*needed.search, *self._environment(), *_directories(binary)):
            place = self._view.resolve(posixpath.join(directory, needed.name))
            if place.state == FOUND and _same_kind(self._view.program(place), binary):
                return place
            if place.state == UNKNOWN:
                unknown = unknown or place
        if unknown is None and self._cached:
            # The cache may name any directory; it is not read here.
            for path in self._names.get(needed.name, ()):
                place = self._view.resolve(path)
                if place.state == FOUND and _same_kind(self._view.program(place), binary):
                    return place
        return unknown or Place(MISSING, needed.name)

    def _environment(self) -> list[str]:
        return [path for path in self._manifest.env.get("LD_LIBRARY_PATH", "").split(":") if path]


def _expanded(search: tuple[str, ...], path: str) -> tuple[str, ...]:
    origin = posixpath.dirname(path)
    return tuple(entry.replace("${ORIGIN}", origin).replace("$ORIGIN", origin) for entry in search)


def _directories(binary: Elf) -> list[str]:
    triplet = _TRIPLETS.get((binary.machine, binary.bits))
    multiarch = [f"/lib/{triplet}", f"/usr/lib/{triplet}"] if triplet else []
    return [*multiarch, *_LIBRARY_DIRECTORIES]


def _same_kind(program: Program | None, binary: Elf) -> bool:
    return (
        program is not None
        and program.binary is not None
        and (program.binary.machine, program.binary.bits) == (binary.machine, binary.bits)
    )
