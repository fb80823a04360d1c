# SPDX-License-Identifier: Apache-2.0
"""Strict reader of tar streams: ustar, GNU's long names and POSIX.1-2001 (pax), as layers use them.

Time and memory are bounded for any input, which tarfile of the standard library does not promise (it keeps
extended headers of any size, and some take time by the square of their size). Sparse files are refused.
Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block"; tar(5).
"""

from __future__ import annotations

from northstar.namedtuple import NamedTuple
from northstar.oci.blob import COPY_AGAIN, ImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

    from northstar.oci.blob import Stream

BLOCK = 512
MAX_EXTENDED = 1 << 20
"""Bytes of one extended header."""
MAX_ID = 0xFFFFFFFE
"""The next one is (uid_t) -1, nobody's."""
MAX_PATH = 4096

FILE, HARD_LINK, SYMLINK, DIRECTORY, FIFO = "file", "link", "symlink", "dir", "fifo"
CHARACTER, BLOCK_DEVICE = "char", "block"
_KINDS = {
    b"0": FILE,
    b"\0": FILE,
    b"7": FILE,
    b"1": HARD_LINK,
    b"2": SYMLINK,
    b"3": CHARACTER,
    b"4": BLOCK_DEVICE,
    b"5": DIRECTORY,
    b"6": FIFO,
}
_XATTR = "SCHILY.xattr."
_ZERO = bytes(BLOCK)


class Member(NamedTuple):
    """An entry of the archive; its `size` bytes of data, if any, come next in the stream."""

    name: str
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    target: str
    device: tuple[int, int]
    xattrs: dict[str, bytes]


def members(stream: Stream, name: str) -> Iterator[Member]:
    """The entries of an archive; `name` is for messages. Raises ImageError.

    The consumer may read the data of an entry from the stream before it asks for the next entry.
    """
    everywhere: dict[str, bytes] = {}
    extended: dict[str, bytes] = {}
    while True:
        block = stream.read(BLOCK)
        if not block or block == _ZERO:
            stream.drain()
            return
        if len(block) < BLOCK:
            _refuse(name, "it is cut off inside a header")
        kind, size = block[156:157], _header(block, name)
        if kind in (b"x", b"g", b"L", b"K"):
            data = _extended(stream, size, name)
            if kind == b"g":
                everywhere |= _records(data, name)
            elif kind == b"x":
                extended |= _records(data, name)
            else:
                extended["path" if kind == b"L" else "linkpath"] = data.rstrip(b"\0")
            continue
        member = _member(block, size, everywhere | extended, name)
        extended = {}
        end = stream.position + member.size
        yield member
        if not stream.skip(end - stream.position):
            _refuse(name, f"it is cut off inside {member.name[:200]!r}")
        stream.skip(-member.size % BLOCK)  # which some writers leave out at the end


def _refuse(name: str, reason: str) -> NoReturn:
    raise ImageError(f"{name} is no usable tar archive: {reason}", COPY_AGAIN)


def _header(block: bytes, name: str) -> int:
    """The size field of a header whose checksum is right."""
    stored = _number(block[148:156], name)
    if stored != sum(block) - sum(block[148:156]) + 8 * 32:
        _refuse(name, "the checksum of a header is wrong")
    return _number(block[124:136], name)


def _number(field: bytes, name: str) -> int:
    """An octal number, or a binary one as GNU tar writes them."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") - (0x80 << 8 * (len(field) - 1))
        if field[0] & 0x40:
            return 0 if len(field) == 12 else _refuse(name, "a header has a negative number")
        return value
    text = field.strip(b" \0")
    try:
        return int(text, 8) if text else 0
    except ValueError:
        _refuse(name, f"a header has the number {text!r}")


def _extended(stream: Stream, size: int, name: str) -> bytes:
    if size > MAX_EXTENDED:
        _refuse(name, f"an extended header has {size} bytes, at most {MAX_EXTENDED} are read")
    data = stream.read(size)
    if len(data) < size or not stream.skip(-size % BLOCK):
        _refuse(name, "it is cut off inside an extended header")
    return data


def _records(data: bytes, name: str) -> dict[str, bytes]:
    """Records `length keyword=value\\n` of a pax header."""
    records = {}
    position = 0
    while position < len(data):
        blank = data.find(b" ", position, position + 10)
        digits = data[position:blank] if blank > 0 else b""
        end = position + int(digits) if digits.isdigit() else 0
        equals = data.find(b"=", blank, end)
        if not blank < equals < end <= len(data) or data[end - 1 : end] != b"\n":
            _refuse(name, "an extended header is damaged")
        records[_text(data[blank + 1 : equals])] = data[equals + 1 : end - 1]
        position = end
    return records


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _member(block: bytes, size: int, extended: dict[str, bytes], name: str) -> Member:
    path, target = _paths(block, extended)
    kind = _KINDS.get(block[156:157])
    if block[156:157] == b"S" or any(key.startswith("GNU.sparse.") for key in extended):
        _refuse(name, f"{path[:200]!r} is a sparse file, which is not supported")
    if kind is None:
        _refuse(name, f"{path[:200]!r} is of the unknown type {block[156:157]!r}")
    if kind == FILE and path.endswith("/"):
        kind = DIRECTORY  # as before POSIX
    for text in (path, target):
        if len(text) > MAX_PATH or "\0" in text:
            _refuse(name, f"the path {text[:200]!r} has more than {MAX_PATH} characters, or a NUL")
    special = kind in (CHARACTER, BLOCK_DEVICE)
    return Member(
        path,
        kind,
        _number(block[100:108], name) & 0o7777,
        _owner(extended, "uid", name, block[108:116]),
        _owner(extended, "gid", name, block[116:124]),
        _size(extended, size, name) if kind == FILE else 0,
        _decimal(extended, "mtime", name, block[136:148]),
        target,
        (_number(block[329:337], name), _number(block[337:345], name)) if special else (0, 0),
        {key.removeprefix(_XATTR): value for key, value in extended.items() if key.startswith(_XATTR)},
    )


def _paths(block: bytes, extended: dict[str, bytes]) -> tuple[str, str]:
    path = extended.get("path")
    if path is None:
        path = block[:100].partition(b"\0")[0]
        if block[257:263] == b"ustar\0" and block[345] != 0:
            path = block[345:500].partition(b"\0")[0] + b"/" + path
    target = extended.get("linkpath")
    if target is None:
        target = block[157:257].partition(b"\0")[0]
    return _text(path), _text(target)


def _size(extended: dict[str, bytes], size: int, name: str) -> int:
    if "size" not in extended:
        return size
    value = extended["size"]
    if not value.isdigit() or len(value) > 19:
        _refuse(name, f"an extended header has the size {value[:40]!r}")
    return int(value)


def _owner(extended: dict[str, bytes], key: str, name: str, field: bytes) -> int:
    number = _decimal(extended, key, name, field)
    if number > MAX_ID:
        _refuse(name, f"the {key} {number} is too large")
    return number


def _decimal(extended: dict[str, bytes], key: str, name: str, field: bytes) -> int:
    """A number that a pax header may give, a time perhaps with fraction or sign."""
    value = extended.get(key)
    if value is None:
        return _number(field, name)
    whole = value.partition(b".")[0]
    digits = whole.removeprefix(b"-") if key == "mtime" else whole
    if not digits.isdigit() or len(digits) > 19:
        _refuse(name, f"an extended header has the {key} {value[:40]!r}")
    return max(0, int(whole))
