# SPDX-License-Identifier: Apache-2.0
"""Headers of the tar stream that mksquashfs(1) reads: ustar, with pax headers for what does not fit."""

from __future__ import annotations

BLOCK = 512
END = bytes(2 * BLOCK)

FILE, HARD_LINK, SYMLINK, CHARACTER, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"5", b"6"
_MAX_ID = 0o7777777
_MAX_SIZE = 0o77777777777


def header(
    name: str,
    kind: bytes,
    *,
    mode: int,
    uid: int,
    gid: int,
    mtime: int,
    size: int = 0,
    target: str = "",
    device: tuple[int, int] = (0, 0),
    xattrs: dict[str, bytes] | None = None,
) -> bytes:
    """The header of an entry; `size` bytes of data and `padding` follow it."""
    path, link = _raw(name), _raw(target)
    records = b"".join(_record(f"SCHILY.xattr.{key}", value) for key, value in (xattrs or {}).items())
    if len(path) > 100:
        records += _record("path", path)
    if len(link) > 100:
        records += _record("linkpath", link)
    for key, value in (("uid", uid), ("gid", gid)):
        if value > _MAX_ID:
            records += _record(key, str(value).encode())
    if size > _MAX_SIZE:
        records += _record("size", str(size).encode())
    before = b""
    if records:
        before = _block(b"pax", b"x", 0o644, 0, 0, len(records), 0, b"", (0, 0))
        before += records + padding(len(records))
    fitting = size if size <= _MAX_SIZE else 0
    return before + _block(
        path[:100], kind, mode, min(uid, _MAX_ID), min(gid, _MAX_ID), fitting, mtime, link[:100], device
    )


def padding(size: int) -> bytes:
    """What fills the last block of `size` bytes of data."""
    return bytes(-size % BLOCK)


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _record(key: str, value: bytes) -> bytes:
    """`length keyword=value\\n`, where the length counts its own digits."""
    rest = b" " + _raw(key) + b"=" + value + b"\n"
    size = len(rest) + len(str(len(rest)))
    size = len(rest) + len(str(size))
    return str(size).encode() + rest


def _block(
    path: bytes,
    kind: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    link: bytes,
    device: tuple[int, int],
) -> bytes:
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, uid, gid, size, mtime)
    head = path.ljust(100, b"\0") + numbers
    tail = kind + link.ljust(100, b"\0") + b"ustar\x0000" + bytes(64) + b"%07o\0%07o\0" % device
    tail = tail.ljust(BLOCK - 156, b"\0")
    checksum = sum(head) + 8 * 32 + sum(tail)
    return head + b"%06o\0 " % checksum + tail
