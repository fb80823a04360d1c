# SPDX-License-Identifier: Apache-2.0
"""dm-verity: superblock and hash tree behind an image.

The format is that of `veritysetup format` with its defaults: version 1, sha256, blocks of 4096 bytes.
(veritysetup(8); kernel documentation, admin-guide/device-mapper/verity.rst)
"""

from __future__ import annotations

import struct

from northstar.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

BLOCK = 4096
DIGESTS_PER_BLOCK = BLOCK // 32
SALT_SIZE = 32
MAX_SALT_SIZE = 256

_SUPERBLOCK = struct.Struct("<8sII16s32sIIQH6x256s")
SUPERBLOCK_SIZE = _SUPERBLOCK.size
_MAGIC = b"verity\0\0"
_ALGORITHM = b"sha256".ljust(32, b"\0")


class VerityError(ValueError):
    """The superblock is unusable; the message says why."""


class Verity(NamedTuple):
    """Parameters of a verity target; the root hash is 64 hex digits."""

    root_hash: str
    salt: bytes
    data_blocks: int


def tree_blocks(data_blocks: int) -> int:
    """Number of blocks of the stored tree."""
    total = 0
    while data_blocks > 1:
        data_blocks = -(-data_blocks // DIGESTS_PER_BLOCK)
        total += data_blocks
    return total


def protection_size(size: int) -> int:
    """Bytes of superblock and tree of an image of `size` bytes."""
    return BLOCK * (1 + tree_blocks(-(-size // BLOCK)))


def superblock(salt: bytes, uuid: bytes, data_blocks: int) -> bytes:
    """The block that precedes the tree."""
    fields = (_MAGIC, 1, 1, uuid, _ALGORITHM, BLOCK, BLOCK, data_blocks, len(salt), salt)
    return _SUPERBLOCK.pack(*fields).ljust(BLOCK, b"\0")


def read_salt(data: bytes, data_blocks: int) -> bytes:
    """The salt in a superblock. Nothing else of it is used, as it is not signed. Raises VerityError.

    `data_blocks` is what the signature says.
    """
    if len(data) < SUPERBLOCK_SIZE:
        raise VerityError("the verity superblock is truncated")
    magic, version, kind, _, algorithm, data_size, hash_size, blocks, salt_size, salt = _SUPERBLOCK.unpack(
        data[:SUPERBLOCK_SIZE]
    )
    if magic != _MAGIC:
        raise VerityError("there is no verity superblock where the signature says")
    if (version, kind, algorithm) != (1, 1, _ALGORITHM):
        raise VerityError("the verity superblock has an unsupported version, hash type or algorithm")
    if (data_size, hash_size) != (BLOCK, BLOCK):
        raise VerityError(f"the verity block sizes are {data_size} and {hash_size}, not {BLOCK}")
    if blocks != data_blocks:
        raise VerityError(f"the verity superblock says {blocks} data blocks, the signature {data_blocks}")
    if salt_size > MAX_SALT_SIZE:
        raise VerityError(f"the verity salt of {salt_size} bytes is too long")
    return bytes(salt[:salt_size])


def hash_tree(image: BinaryIO, data_blocks: int, salt: bytes) -> tuple[str, bytes]:
    """Root hash and stored tree of the next `data_blocks` blocks of `image`."""
    # On the build host only, where OpenSSL's speed counts.
    from hashlib import sha256

    if data_blocks < 1:
        raise ValueError("an empty image cannot be protected")
    salted = sha256(salt)
    level = _digests(salted, (image.read(BLOCK) for _ in range(data_blocks)))
    levels: list[bytes] = []
    while len(level) > 32:
        level = level.ljust(-(-len(level) // BLOCK) * BLOCK, b"\0")
        levels.insert(0, level)
        level = _digests(salted, (level[i : i + BLOCK] for i in range(0, len(level), BLOCK)))
    return level.hex(), b"".join(levels)


def _digests(salted: object, blocks: Iterable[bytes]) -> bytes:
    result = bytearray()
    copy = salted.copy  # type: ignore[attr-defined]
    for block in blocks:
        if len(block) != BLOCK:
            raise ValueError(f"the size of the image is no multiple of {BLOCK}")
        digest = copy()
        digest.update(block)
        result += digest.digest()
    return bytes(result)
