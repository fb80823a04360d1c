# SPDX-License-Identifier: Apache-2.0
"""Strict reader of the zip that an NPK is.

It accepts what packers write and refuses everything that another reader could understand differently:
every entry is stored, listed once, described equally by its local and its central header, and nothing
overlaps. ZIP64, encryption and data descriptors are refused. (APPNOTE.TXT 6.3.10, sections 4.3 and 4.4)
"""

from __future__ import annotations

import os
import struct
from zlib import crc32

from northstar.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

MANIFEST = "manifest.yaml"
SIGNATURE = "signature.yaml"
IMAGE = "fs.img"

BLOCK = 4096
MAX_ENTRIES = 16
MAX_COMMENT = 4096
MAX_MANIFEST = 1 << 20
_MAX_SIZE = {MANIFEST: MAX_MANIFEST, SIGNATURE: 1 << 16}
_MAX_DIRECTORY = MAX_ENTRIES * (46 + 3 * 8192)

_END = struct.Struct("<IHHHHIIH")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_LOCAL = struct.Struct("<IHHHHHIIIHH")
_EXTRA = struct.Struct("<HH")
_ZIP64, _UNICODE_PATH = 0x0001, 0x7075
_END_MAGIC, _CENTRAL_MAGIC, _LOCAL_MAGIC = 0x06054B50, 0x02014B50, 0x04034B50
_MAX_VERSION_NEEDED = 45  # large files; stored entries need no more
_UTF8_NAME = 0x0800


class ArchiveError(Exception):
    """The file is no acceptable archive; the message says why."""


class Entry(NamedTuple):
    """A stored file: `size` bytes at `offset` of the archive."""

    name: str
    offset: int
    size: int
    crc: int


class Archive(NamedTuple):
    """Table of contents."""

    comment: bytes
    entries: dict[str, Entry]


class _Header(NamedTuple):
    """Central directory record."""

    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int


def is_one(fd: int) -> bool:
    """Whether a file begins like a package; a pipe is none."""
    try:
        return os.pread(fd, 2, 0) == b"PK"
    except OSError:
        return False


def read(fd: int, size: int) -> Archive:
    """The table of contents of the archive open as `fd`, `size` bytes long. Raises ArchiveError, OSError."""
    directory_size, directory_offset, count, comment = _end_record(fd, size)
    headers = _central_headers(_read(fd, directory_offset, directory_size), count)
    entries: dict[str, Entry] = {}
    folded: set[str] = set()
    extents: list[tuple[int, int]] = [(directory_offset, directory_offset + directory_size)]
    for header in headers:
        entry, begin = _entry(fd, header, directory_offset)
        if entry.name.lower() in folded:
            _refuse(f"entry {entry.name} occurs more than once")
        folded.add(entry.name.lower())
        entries[entry.name] = entry
        extents.append((begin, entry.offset + entry.size))
    _check_extents(extents)
    return Archive(comment, entries)


def content(fd: int, entry: Entry) -> bytes:
    """The bytes of a small entry, checked against its CRC. Raises ArchiveError, OSError."""
    limit = _MAX_SIZE.get(entry.name, 1 << 20)
    if entry.size > limit:
        _refuse(f"entry {entry.name} is larger than {limit} bytes")
    data = _read(fd, entry.offset, entry.size)
    if crc32(data) != entry.crc:
        _refuse(f"entry {entry.name} is damaged: CRC mismatch")
    return data


def _refuse(reason: str) -> NoReturn:
    raise ArchiveError(reason)


def _read(fd: int, offset: int, size: int) -> bytes:
    data = os.pread(fd, size, offset)
    if len(data) != size:
        _refuse(f"it is truncated: {size} bytes expected at offset {offset}")
    return data


def _end_record(fd: int, size: int) -> tuple[int, int, int, bytes]:
    """Size, offset and number of entries of the central directory, and the comment."""
    tail_size = min(size, _END.size + MAX_COMMENT)
    tail = os.pread(fd, tail_size, size - tail_size)
    for position in range(len(tail) - _END.size, -1, -1):
        if tail[position : position + 4] != b"PK\x05\x06":
            continue
        fields = _END.unpack_from(tail, position)
        _, disk, directory_disk, here, total, length, offset, comment_length = fields
        comment = tail[position + _END.size :]
        if comment_length != len(comment):
            _refuse("bytes follow the archive, or the comment is damaged")
        if disk or directory_disk or here != total:
            _refuse("archives on several disks are not supported")
        if total > MAX_ENTRIES:
            _refuse(f"more than {MAX_ENTRIES} entries")
        if offset + length != size - tail_size + position:
            _refuse("the central directory does not lie directly before the end record")
        if length > _MAX_DIRECTORY:
            _refuse("the central directory is too large")
        return length, offset, total, comment
    _refuse("it is no zip archive: no end record")


def _central_headers(data: bytes, count: int) -> list[_Header]:
    headers = []
    position = 0
    for _ in range(count):
        if position + _CENTRAL.size > len(data):
            _refuse("the central directory is truncated")
        fields = _CENTRAL.unpack_from(data, position)
        if fields[0] != _CENTRAL_MAGIC:
            _refuse("the central directory is damaged")
        needed, flags, method = fields[2:5]
        if needed & 0xFF > _MAX_VERSION_NEEDED:
            _refuse(f"version {needed & 0xFF} of the zip format is not supported")
        crc, packed, size, name_length, extra_length, comment_length, disk = fields[7:14]
        if disk:
            _refuse("archives on several disks are not supported")
        begin = position + _CENTRAL.size
        name = data[begin : begin + name_length]
        position = begin + name_length + extra_length + comment_length
        if position > len(data):
            _refuse("the central directory is truncated")
        _check_extra(data[begin + name_length : begin + name_length + extra_length])
        headers.append(_Header(name, flags, method, crc, packed, size, fields[16]))
    if position != len(data):
        _refuse("there is unknown data in the central directory")
    return headers


def _check_extra(extra: bytes) -> None:
    """Extra fields are of no use here; what gives an entry another name or size elsewhere is refused."""
    position = 0
    while position + _EXTRA.size <= len(extra):
        kind, length = _EXTRA.unpack_from(extra, position)
        if kind in (_ZIP64, _UNICODE_PATH):
            _refuse(f"an entry has the extra field {kind:#06x}, which is not supported")
        position += _EXTRA.size + length
        if position > len(extra):
            _refuse("an extra field is damaged")


def _entry(fd: int, header: _Header, limit: int) -> tuple[Entry, int]:
    """The entry, and where its local header begins."""
    try:
        name = header.name.decode("ascii")
    except UnicodeDecodeError:
        _refuse("an entry's name is not ASCII")
    if not name or not name.isprintable():
        _refuse("an entry's name is not printable ASCII")
    if header.flags & ~_UTF8_NAME:
        _refuse(f"entry {name} is encrypted or uses flags that are not supported")
    if header.method or header.packed != header.size:
        _refuse(f"entry {name} is compressed, stored data expected")
    local = _LOCAL.unpack(_read(fd, header.offset, _LOCAL.size))
    magic, _, flags, method, _, _, crc, packed, size, name_length, extra_length = local
    if magic != _LOCAL_MAGIC:
        _refuse(f"entry {name} has no local header")
    rest = _read(fd, header.offset + _LOCAL.size, name_length + extra_length)
    local_name = rest[:name_length]
    central = (header.name, header.flags, header.method, header.crc, header.packed, header.size)
    if (local_name, flags, method, crc, packed, size) != central:
        _refuse(f"local and central header of entry {name} differ")
    _check_extra(rest[name_length:])
    offset = header.offset + _LOCAL.size + name_length + extra_length
    if offset + size > limit:
        _refuse(f"entry {name} is not inside the file")
    return Entry(name, offset, size, crc), header.offset


def _check_extents(extents: list[tuple[int, int]]) -> None:
    position = 0
    for begin, end in sorted(extents):
        if begin < position:
            _refuse("entries overlap")
        if begin > position:
            _refuse("there is unknown data before or between the entries")
        position = end
