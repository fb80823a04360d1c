# SPDX-License-Identifier: Apache-2.0
"""The index of a package: its size, its SHA-256, and the chunks that it consists of.

8 bytes   "NPKIDX1\\n"
8         size of the package, little endian as all numbers
32        SHA-256 of the package
4         number of chunks
then for each chunk, in the order of the file:
4         length
16        the first half of its SHA-256
"""

from __future__ import annotations

import hashlib
import mmap
import struct

from northstar.delta import chunks
from northstar.errors import NorthstarError
from northstar.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

SUFFIX = ".idx"
MAGIC = b"NPKIDX1\n"
DIGEST_SIZE = 16
_HEADER = struct.Struct("<8sQ32sI")
_CHUNK = struct.Struct(f"<I{DIGEST_SIZE}s")


class IndexInvalid(NorthstarError):
    """A file is no index; the message says why."""


class Chunk(NamedTuple):
    """A chunk of a package."""

    length: int
    digest: bytes


class Index(NamedTuple):
    """What an index says."""

    size: int
    sha256: bytes
    chunks: tuple[Chunk, ...]


def make(file: BinaryIO) -> Index:
    """The index of an open file."""
    whole = hashlib.sha256()
    found = []
    with _mapped(file) as data:
        for offset, length in chunks.cut(data):
            chunk = data[offset : offset + length]
            whole.update(chunk)
            found.append(Chunk(length, digest(chunk)))
        return Index(len(data), whole.digest(), tuple(found))


def positions(file: BinaryIO) -> dict[bytes, tuple[int, int]]:
    """Where the chunks of an open file are: (offset, length) by digest."""
    with _mapped(file) as data:
        return {
            digest(data[offset : offset + length]): (offset, length) for offset, length in chunks.cut(data)
        }


def digest(chunk: bytes) -> bytes:
    """What stands for a chunk."""
    return hashlib.sha256(chunk).digest()[:DIGEST_SIZE]


def encode(index: Index) -> bytes:
    """The bytes of an index."""
    header = _HEADER.pack(MAGIC, index.size, index.sha256, len(index.chunks))
    return header + b"".join(_CHUNK.pack(*chunk) for chunk in index.chunks)


def decode(data: bytes) -> Index:
    """The index in some bytes, which come from anywhere; IndexInvalid."""
    if len(data) < _HEADER.size or not data.startswith(MAGIC):
        raise IndexInvalid("no index of a package")
    _, size, sha256, count = _HEADER.unpack_from(data)
    if len(data) != _HEADER.size + count * _CHUNK.size:
        raise IndexInvalid("an index of another length than it says")
    found = tuple(Chunk(*fields) for fields in _CHUNK.iter_unpack(data[_HEADER.size :]))
    if any(not 0 < chunk.length <= chunks.MAX_SIZE for chunk in found):
        raise IndexInvalid("an index with a chunk of a length that there is not")
    if sum(chunk.length for chunk in found) != size:
        raise IndexInvalid("an index whose chunks are not the whole package")
    return Index(size, sha256, found)


def _mapped(file: BinaryIO) -> mmap.mmap:
    try:
        return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    except ValueError:
        raise IndexInvalid("the package is empty") from None
