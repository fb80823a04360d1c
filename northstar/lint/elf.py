# SPDX-License-Identifier: Apache-2.0
"""What a program asks of its surroundings: architecture, interpreter, shared libraries (elf(5)).

Only what the dynamic linker looks at is read, so a program without section headers is understood as well. The
file may be hostile: every offset is checked and every table has a limit.
"""

from __future__ import annotations

import struct

from northstar.namedtuple import NamedTuple

MAGIC = b"\x7fELF"

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 15, 29
_MAX_SEGMENTS = 512
_MAX_DYNAMIC = 8192
_MAX_TEXT = 4096

_MACHINES = {
    3: "i386",
    8: "mips",
    20: "powerpc",
    21: "powerpc64",
    22: "s390x",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    243: "riscv",
    258: "loongarch",
}


class ElfError(ValueError):
    """The file begins like an ELF file but is none; the message says why."""


class Elf(NamedTuple):
    """`machine` is named as by uname(2); `interpreter` is None for static programs and libraries."""

    machine: str
    bits: int
    interpreter: str | None
    needed: tuple[str, ...]
    search: tuple[str, ...]
    """DT_RPATH or DT_RUNPATH, not expanded."""


class _Segment(NamedTuple):
    kind: int
    offset: int
    address: int
    size: int


def read(data: bytes) -> Elf:
    """The ELF file whose content is `data`. Raises ElfError."""
    try:
        return _read(data)
    except (struct.error, OverflowError):
        raise ElfError("the ELF file is cut off") from None


def _read(data: bytes) -> Elf:
    if data[:4] != MAGIC or len(data) < 20:
        raise ElfError("no ELF file")
    wide, order = data[4] == 2, {1: "<", 2: ">"}.get(data[5])
    if data[4] not in (1, 2) or order is None:
        raise ElfError(f"unknown ELF class {data[4]} or byte order {data[5]}")
    machine = struct.unpack_from(f"{order}H", data, 18)[0]
    segments = _segments(data, order, wide)
    interpreter = None
    for segment in segments:
        if segment.kind == _PT_INTERP:
            interpreter = _text(data, segment.offset)
    needed, search = _dynamic(data, order, wide, segments)
    name = _MACHINES.get(machine, f"machine {machine}")
    return Elf(name, 64 if wide else 32, interpreter, needed, search)


def _segments(data: bytes, order: str, wide: bool) -> list[_Segment]:
    (table,) = struct.unpack_from(f"{order}Q" if wide else f"{order}I", data, 32 if wide else 28)
    size, count = struct.unpack_from(f"{order}HH", data, 54 if wide else 42)
    if count > _MAX_SEGMENTS:
        raise ElfError(f"{count} program headers, at most {_MAX_SEGMENTS} are read")
    segments = []
    for index in range(count):
        position = table + index * size
        if wide:
            kind, _, offset, address, _, length = struct.unpack_from(f"{order}IIQQQQ", data, position)
        else:
            kind, offset, address, _, length = struct.unpack_from(f"{order}IIIII", data, position)
        segments.append(_Segment(kind, offset, address, length))
    return segments


def _dynamic(
    data: bytes, order: str, wide: bool, segments: list[_Segment]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the libraries, and where the file itself says they are."""
    entry = struct.Struct(f"{order}QQ" if wide else f"{order}II")
    tags: list[tuple[int, int]] = []
    for segment in segments:
        if segment.kind == _PT_DYNAMIC:
            for index in range(min(segment.size // entry.size, _MAX_DYNAMIC)):
                tag, value = entry.unpack_from(data, segment.offset + index * entry.size)
                if tag == _DT_NULL:
                    break
                tags.append((tag, value))
    strings = next((value for tag, value in tags if tag == _DT_STRTAB), None)
    if strings is None:
        return (), ()
    base = _file_offset(segments, strings)
    needed = tuple(_text(data, base + value) for tag, value in tags if tag == _DT_NEEDED)
    paths = {tag: _text(data, base + value) for tag, value in tags if tag in (_DT_RPATH, _DT_RUNPATH)}
    search = paths.get(_DT_RUNPATH, paths.get(_DT_RPATH, ""))
    return needed, tuple(path for path in search.split(":") if path)


def _file_offset(segments: list[_Segment], address: int) -> int:
    for segment in segments:
        if segment.kind == _PT_LOAD and segment.address <= address < segment.address + segment.size:
            return segment.offset + address - segment.address
    raise ElfError("the string table of the dynamic section is not in the file")


def _text(data: bytes, offset: int) -> str:
    end = data.find(b"\0", offset, offset + _MAX_TEXT)
    if end < 0:
        raise ElfError("a text in the ELF file has no end")
    return data[offset:end].decode("utf-8", "replace")
