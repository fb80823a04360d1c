# SPDX-License-Identifier: Apache-2.0
"""Signing a package that is packed already, for instance with a new key. Manifest and image stay."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO, cast

from northstar import manifest as manifests
from northstar.errors import ManifestError, NorthstarError, PackageError
from northstar.namedtuple import NamedTuple
from northstar.npk import archive, pack, signature, verity

if TYPE_CHECKING:
    from northstar.npk.signature import Signer


class _Region:
    """Some bytes of a file, read as if they were all of it."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd, self._offset, self._size = fd, offset, size
        self._position = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As that of files; from the beginning or the end."""
        self._position = offset + (self._size if whence == os.SEEK_END else 0)
        return self._position

    def read(self, count: int) -> bytes:
        """As that of files."""
        wanted = min(count, max(0, self._size - self._position))
        data = os.pread(self._fd, wanted, self._offset + self._position)
        self._position += len(data)
        return data


class _Parts(NamedTuple):
    """What of a package is kept. The root hash is what its signature says, None if it has none."""

    manifest: bytes
    image: BinaryIO
    salt: bytes | None
    uuid: bytes | None
    root_hash: str | None


def sign(path: str, out: str, key: bytes | Signer) -> None:
    """Write the package to `out`, which may be the same file, signed by `key`. Raises NorthstarError.

    All that is signed is computed from the content. An image that is not the one that was signed before is
    refused: whoever has only changed that shall not get a signature for it.
    """
    try:
        with open(path, "rb") as file:
            parts = _parts(file.fileno())
            with pack.replaced(os.path.realpath(out)) as package:
                pack.write(package, parts.manifest, parts.image, key=key, salt=parts.salt, uuid=parts.uuid)
                package.flush()
                _check_root_hash(package.name, parts.root_hash)
    except OSError as error:
        raise NorthstarError(f"failed to sign {path}: {error.filename or path}: {error.strerror}") from None
    except (ValueError, archive.ArchiveError, ManifestError) as error:
        raise PackageError(path, str(error)) from None


def _parts(fd: int) -> _Parts:
    contents = archive.read(fd, os.fstat(fd).st_size)
    for name in (archive.MANIFEST, archive.IMAGE):
        if name not in contents.entries:
            raise archive.ArchiveError(f"it has no entry {name}")
    text = archive.content(fd, contents.entries[archive.MANIFEST])
    manifests.parse(text)
    image = contents.entries[archive.IMAGE]
    entry = contents.entries.get(archive.SIGNATURE)
    if entry is None:
        return _Parts(text, _region(fd, image.offset, image.size), None, None, None)
    hashes, _ = signature.read(archive.content(fd, entry))
    size = hashes.verity_offset
    if size % verity.BLOCK or size > image.size:
        raise verity.VerityError("the signature does not fit to the image")
    superblock = os.pread(fd, verity.SUPERBLOCK_SIZE, image.offset + size)
    salt, uuid = verity.read_salt(superblock, size // verity.BLOCK), superblock[16:32]
    return _Parts(text, _region(fd, image.offset, size), salt, uuid, hashes.root_hash)


def _region(fd: int, offset: int, size: int) -> BinaryIO:
    return cast("BinaryIO", _Region(fd, offset, size))


def _check_root_hash(path: str, expected: str | None) -> None:
    """Of the package that was just written."""
    if expected is None:
        return
    with open(path, "rb") as file:
        contents = archive.read(file.fileno(), os.fstat(file.fileno()).st_size)
        hashes, _ = signature.read(archive.content(file.fileno(), contents.entries[archive.SIGNATURE]))
    if hashes.root_hash != expected:
        raise ValueError("the image is not the one that was signed: its root hash is another one")
