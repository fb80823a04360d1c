# SPDX-License-Identifier: Apache-2.0
"""A look at the squashfs superblock of an unverified image before the kernel gets to parse it.

The kernel's parser trusts some of these values further than it should when the image comes from an
attacker. A verified image needs none of this: nothing is read from it before verity has checked it.
"""

from __future__ import annotations

import os
import struct

_LAYOUT = struct.Struct("<5I6H8Q")
SIZE = _LAYOUT.size
MAGIC = 0x73717368
_ABSENT = 0xFFFFFFFFFFFFFFFF
_COMPRESSIONS = range(1, 7)  # gzip, lzma, lzo, xz, lz4, zstd


def problem(fd: int, offset: int, size: int) -> str | None:
    """What is wrong with the file system of `size` bytes at `offset` of file `fd`; None if plausible."""
    data = os.pread(fd, SIZE, offset)
    if len(data) < SIZE or size < SIZE:
        return "shorter than a superblock"
    fields = _LAYOUT.unpack(data)
    return _problem_of_header(fields[:11], size) or _problem_of_tables(fields[11:], size)


def _problem_of_header(fields: tuple[int, ...], size: int) -> str | None:
    magic, inodes, _time, block_size, _fragments, compression, block_log, _flags, ids, major, minor = fields
    if magic != MAGIC:
        return "no squashfs magic number"
    if (major, minor) != (4, 0):
        return f"squashfs version {major}.{minor}, not 4.0"
    if not 12 <= block_log <= 20 or block_size != 1 << block_log:
        return f"block size {block_size} (log {block_log}) is invalid"
    if compression not in _COMPRESSIONS:
        return f"unknown compression {compression}"
    if inodes == 0 or ids == 0:
        return "no inodes or no owner ids"
    return None


def _problem_of_tables(fields: tuple[int, ...], size: int) -> str | None:
    root, used, ids, xattrs, inodes, directories, fragments, exports = fields
    if not SIZE < used <= size:
        return f"{used} bytes used of {size}"
    for name, start in (("id", ids), ("inode", inodes), ("directory", directories)):
        if not SIZE <= start < used:
            return f"{name} table outside of the file system"
    for name, start in (("xattr", xattrs), ("fragment", fragments), ("export", exports)):
        if start != _ABSENT and not SIZE <= start < used:
            return f"{name} table outside of the file system"
    if not inodes < directories:
        return "inode table not before the directory table"
    if (root >> 16) >= directories - inodes or (root & 0xFFFF) >= 8192:
        return "root inode outside of the inode table"
    return None
