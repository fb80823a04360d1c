# SPDX-License-Identifier: Apache-2.0
"""Writing the zip that an NPK is. Nothing in it depends on the time or on the machine."""

from __future__ import annotations

import struct
from zlib import crc32

from northstar import API_VERSION
from northstar.npk import archive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

COMMENT = f"version: {API_VERSION}\n".encode()
MAX_SIZE = (1 << 32) - 1

_VERSION_NEEDED, _MADE_BY = 10, 0x030A
_DATE = 0x0021  # 1980-01-01, the first day of the format
_REGULAR_FILE_0644 = 0o100644 << 16
_ALIGNMENT_ID = 0xA11E
_CHUNK = 1 << 20
_RESERVED = 4 * archive.BLOCK
"""For headers, signature and padding before the image."""

_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_LOCAL = struct.Struct("<IHHHHHIIIHH")
_END = struct.Struct("<IHHHHIIH")


class Writer:
    """Appends stored entries to an empty file, and at last the directory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._offset = 0
        self._directory = bytearray()
        self._count = 0

    def add(self, name: str, data: bytes) -> None:
        """A small entry."""
        self._header(name, crc32(data), len(data), b"")
        self._write(data)

    def check_image(self, size: int) -> None:
        """Raises ValueError if there is no room for an image of `size` bytes and a signature before it.

        Every offset has 32 bits, and the directory, which lies behind the image, has the last one.
        """
        if self._offset + _RESERVED + size > MAX_SIZE:
            raise ValueError(f"the image is too large: the package would exceed 4 GiB with its {size} bytes")

    def add_image(self, chunks: Iterable[bytes], size: int, crc: int) -> None:
        """The image, aligned to a block. `size` and `crc` are those of all chunks. Raises ValueError."""
        end_of_name = self._offset + _LOCAL.size + len(archive.IMAGE)
        self._header(archive.IMAGE, crc, size, _padding(end_of_name))
        begin = self._offset
        for chunk in chunks:
            self._write(chunk)
        if self._offset != begin + size:
            raise ValueError("it has changed while it was packed")

    def finish(self) -> None:
        """Write directory, end record and comment."""
        end = _END.pack(
            0x06054B50,
            0,
            0,
            self._count,
            self._count,
            len(self._directory),
            self._offset,
            len(COMMENT),
        )
        self._write(bytes(self._directory) + end + COMMENT)

    def _header(self, name: str, crc: int, size: int, extra: bytes) -> None:
        encoded = name.encode("ascii")
        common = (_VERSION_NEEDED, 0, 0, 0, _DATE, crc, size, size, len(encoded), len(extra))
        self._directory += _CENTRAL.pack(
            0x02014B50, _MADE_BY, *common, 0, 0, 0, _REGULAR_FILE_0644, self._offset
        )
        self._directory += encoded + extra
        self._count += 1
        self._write(_LOCAL.pack(0x04034B50, *common) + encoded + extra)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._offset += len(data)


def _padding(offset: int) -> bytes:
    """Extra field that moves what follows `offset` to a block boundary."""
    missing = -offset % archive.BLOCK
    if not missing:
        return b""
    if missing < 6:
        missing += archive.BLOCK
    return struct.pack("<HHH", _ALIGNMENT_ID, missing - 4, archive.BLOCK).ljust(missing, b"\0")


def chunks_of(file: BinaryIO) -> Iterable[bytes]:
    """The rest of a file in pieces."""
    while chunk := file.read(_CHUNK):
        yield chunk
