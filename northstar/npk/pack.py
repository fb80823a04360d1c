# SPDX-License-Identifier: Apache-2.0
"""Packing: manifest, root directory or image, and a key become a package.

The package appears under its name only when it is complete. If SOURCE_DATE_EPOCH is set
(https://reproducible-builds.org/specs/source-date-epoch/), equal input gives equal bytes.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from hashlib import sha256
from zlib import crc32

from northstar import manifest as manifests
from northstar.errors import NorthstarError
from northstar.npk import archive, pseudo, signature, squashfs, verity, writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from northstar.manifest import Manifest
    from northstar.npk.signature import Signer


def pack_root(
    manifest: Manifest,
    root: str | None,
    out: str,
    *,
    key: bytes | Signer | None = None,
    compression: str = "gzip",
    block_size: int | None = None,
    mksquashfs: str = "mksquashfs",
    warn: Callable[[str], None] = lambda text: None,
) -> str:
    """Pack a root directory, an empty one if None; the path of the package.

    `out` is a file, or a directory in which the name is made of the container's name and version. `key` is
    an Ed25519 seed, or a function that signs. `warn` is told what may not be as it was meant. Raises
    NorthstarError.
    """
    labels = squashfs.version(mksquashfs) >= squashfs.LABELS_VERSION
    if root is not None and not os.path.isdir(root):
        raise NorthstarError(f"{root} is no directory")
    path = output_path(manifest, out)
    with tempfile.TemporaryDirectory(prefix="sextant-") as work:
        if root is None:
            root = os.path.join(work, "root")
            os.mkdir(root, 0o755)
        image = os.path.join(work, "fs.img")
        root = os.path.realpath(root)  # mksquashfs would pack a link as such
        squashfs.make(
            root,
            image,
            exclude=[os.path.relpath(path, root)] if path.startswith(f"{root}/") else [],
            uid=manifest.uid,
            gid=manifest.gid,
            definitions=pseudo.definitions(manifest, root, labels=labels, warn=warn),
            compression=compression,
            block_size=block_size,
            time=source_date_epoch(),
            program=mksquashfs,
        )
        return pack_image(manifest, image, out, key=key)


def pack_image(manifest: Manifest, image: str, out: str, *, key: bytes | Signer | None = None) -> str:
    """Pack an image as it is; the path of the package. The image is not changed. Raises NorthstarError."""
    path = output_path(manifest, out)
    check_file(image)
    try:
        with open(image, "rb") as file, replaced(path) as package:
            write(package, manifests.to_text(manifest), file, key=key)
    except OSError as error:
        name = error.filename or path
        raise NorthstarError(f"failed to pack {manifest.container}: {name}: {error.strerror}") from None
    except ValueError as error:
        raise NorthstarError(f"failed to pack {manifest.container}: {image}: {error}") from None
    return path


def check_file(image: str) -> None:
    """A device or pipe may have no end. Raises NorthstarError."""
    if os.path.exists(image) and not os.path.isfile(image):
        raise NorthstarError(f"{image} is no file")


def output_path(manifest: Manifest, out: str) -> str:
    """Where the package goes: the file itself if `out` is a link. Raises NorthstarError if it is none."""
    name = f"{manifest.name}-{manifest.version}.npk"
    path = os.path.realpath(os.path.join(out, name) if os.path.isdir(out) else out)
    if not os.path.isdir(out) and not os.path.basename(out):
        raise NorthstarError(f"there is no directory {out!r}")
    if os.path.lexists(path) and not os.path.isfile(path):
        raise NorthstarError(f"{path} exists and is no file", "a package replaces what is there")
    if not os.path.isdir(os.path.dirname(path)):
        raise NorthstarError(f"there is no directory {os.path.dirname(path)}")
    return path


def write(
    package: BinaryIO,
    manifest: bytes,
    image: BinaryIO,
    *,
    key: bytes | Signer | None = None,
    salt: bytes | None = None,
    uuid: bytes | None = None,
) -> None:
    """Write a package to an empty file; `salt` and `uuid` are random by default. Raises ValueError."""
    if len(manifest) > archive.MAX_MANIFEST:
        raise ValueError(
            f"the manifest has {len(manifest)} bytes as JSON, the limit is {archive.MAX_MANIFEST}"
        )
    out = writer.Writer(package)
    out.add(archive.MANIFEST, manifest)
    protection = b""
    size = image.seek(0, os.SEEK_END)
    # Before gigabytes are read.
    out.check_image(size if key is None else size + verity.protection_size(size))
    if key is not None:
        protection, root_hash = _protection(image, size, salt, uuid)
        comment, text = sha256(writer.COMMENT).hexdigest(), sha256(manifest).hexdigest()
        hashes = signature.Hashes(comment, text, root_hash, size)
        out.add(archive.SIGNATURE, signature.sign(hashes, key))
    checksum = 0
    for chunk in _chunks(image, protection):
        checksum = crc32(chunk, checksum)
    out.add_image(_chunks(image, protection), size + len(protection), checksum)
    out.finish()


def _protection(image: BinaryIO, size: int, salt: bytes | None, uuid: bytes | None) -> tuple[bytes, str]:
    """Superblock and tree, and the root hash."""
    if not size or size % verity.BLOCK:
        raise ValueError(f"the size of the image, {size}, is no positive multiple of {verity.BLOCK}")
    blocks = size // verity.BLOCK
    if salt is None or uuid is None:
        salt, uuid = _salt_and_uuid(image)
    image.seek(0)
    root_hash, tree = verity.hash_tree(image, blocks, salt)
    return verity.superblock(salt, uuid, blocks) + tree, root_hash


def _salt_and_uuid(image: BinaryIO) -> tuple[bytes, bytes]:
    """Random, or derived from the image if the result is to be reproducible. The UUID is of version 4."""
    if source_date_epoch() is None:
        salt, raw = os.urandom(verity.SALT_SIZE), os.urandom(16)
    else:
        digest = sha256()
        for chunk in _chunks(image, b""):
            digest.update(chunk)
        salt = sha256(b"salt" + digest.digest()).digest()
        raw = sha256(b"uuid" + digest.digest()).digest()[:16]
    uuid = bytearray(raw)
    uuid[6] = uuid[6] & 0x0F | 0x40
    uuid[8] = uuid[8] & 0x3F | 0x80
    return salt, bytes(uuid)


def _chunks(image: BinaryIO, rest: bytes) -> Iterator[bytes]:
    image.seek(0)
    yield from writer.chunks_of(image)
    if rest:
        yield rest


@contextlib.contextmanager
def replaced(path: str) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when it is complete. Raises OSError."""
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename == temporary:
            error.filename = path  # the name that is known to the user
        raise


def source_date_epoch() -> int | None:
    """The time stamp that the environment asks for, None if it does not. Raises NorthstarError."""
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if text is None:
        return None
    if not text.isdigit():
        raise NorthstarError(f"SOURCE_DATE_EPOCH is no number of seconds: {text!r}")
    return int(text)
