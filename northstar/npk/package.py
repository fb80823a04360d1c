# SPDX-License-Identifier: Apache-2.0
"""Loading a package: from an open file to a checked description of it."""

from __future__ import annotations

import os
import re

from northstar import API_VERSION, manifest
from northstar.errors import ManifestError, PackageError
from northstar.manifest import Manifest
from northstar.namedtuple import NamedTuple
from northstar.names import Version
from northstar.npk import archive, signature, verity
from northstar.npk.archive import ArchiveError
from northstar.npk.digest import sha256
from northstar.npk.signature import SignatureError
from northstar.npk.verity import Verity, VerityError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.names import Container
    from northstar.npk.archive import Archive

__all__ = ["Package", "Verity", "format_version", "load"]

_SUPPORTED = Version.parse(API_VERSION)
# No two parts that can match the same blanks are neighbours: matching takes linear time.
_COMMENT = r"(?:\{\s*)?\"?version\"?\s*:\s*(['\"]?)([^\s'\"}]+)\1\s*(?:\}\s*)?"


class Package(NamedTuple):
    """A loaded package. `verity` is set if and only if it was checked with a key, `signer` is that key then.

    `digest`, 64 hex digits, tells packages apart also if they have the same name and version. Without a key
    it is no proof of anything.
    """

    manifest: Manifest
    format_version: Version
    image_offset: int
    image_size: int
    verity: Verity | None
    size: int
    digest: str = ""
    signer: bytes | None = None
    modified: int = 0
    """When the file was last written to, in nanoseconds since 1970, before it was looked at."""

    @property
    def container(self) -> Container:
        """Identity of the container."""
        return self.manifest.container


def load(fd: int, key: bytes | tuple[bytes, ...] | None, path: str) -> Package:
    """Load the package open as `fd`; `path` is for messages. Raises PackageError.

    With a public key, or several of which one has to fit, everything is checked against the signature before
    it is used.
    """
    try:
        return _load(fd, (key,) if isinstance(key, bytes) else key)
    except (ArchiveError, SignatureError, VerityError, ManifestError, ValueError) as error:
        raise PackageError(path, str(error), getattr(error, "hint", None)) from None
    except OSError as error:
        raise PackageError(path, error.strerror or str(error)) from None
    except Exception as error:
        # A mistake of ours; a file that meets it must not keep the runtime from its other packages.
        raise PackageError(path, f"internal error: {type(error).__name__}: {error}") from error


def _load(fd: int, keys: tuple[bytes, ...] | None) -> Package:
    found = os.fstat(fd)
    size = found.st_size
    contents = archive.read(fd, size)
    verified = None
    if keys is not None:
        entry = contents.entries.get(archive.SIGNATURE)
        if entry is None:
            raise SignatureError("it is not signed, and the repository has a key")
        verified = signature.verify_any(archive.content(fd, entry), keys)
        if sha256(contents.comment).hexdigest() != verified.hashes.comment:
            raise SignatureError("the format version does not match its signed hash")
    version = format_version(contents.comment)
    text = _manifest_text(fd, contents)
    if verified is not None and sha256(text).hexdigest() != verified.hashes.manifest:
        raise SignatureError("the manifest does not match its signed hash")
    description = manifest.parse(text)
    image = contents.entries.get(archive.IMAGE)
    if image is None:
        raise ArchiveError(f"it has no entry {archive.IMAGE}")
    if image.offset % archive.BLOCK:
        raise ArchiveError(f"{archive.IMAGE} is not aligned to {archive.BLOCK} bytes")
    known = (description, version, image.offset, image.size)
    if verified is None:
        digest = _unsigned_digest(text, image)
        return Package(*known, None, size, digest, None, found.st_mtime_ns)
    protection = _verity(fd, image, verified.hashes)
    return Package(*known, protection, size, verified.digest, verified.key, found.st_mtime_ns)


def _unsigned_digest(text: bytes, image: archive.Entry) -> str:
    """Of manifest and image; of the latter the checksum has to do, as nobody reads it all."""
    return str(sha256(b"%b\n%d %08x" % (text, image.size, image.crc)).hexdigest())


def _manifest_text(fd: int, contents: Archive) -> bytes:
    entry = contents.entries.get(archive.MANIFEST)
    if entry is None:
        raise ArchiveError(f"it has no entry {archive.MANIFEST}")
    return archive.content(fd, entry)


def format_version(comment: bytes) -> Version:
    """The version in an archive's comment, if it is one we can read. Raises ValueError."""
    try:
        text = comment.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    match = re.fullmatch(_COMMENT, text.lstrip())
    if match is None:
        raise ValueError("comment malformed: no format version")
    version = Version.parse(match[2])
    if version[:2] < _SUPPORTED[:2]:
        raise ValueError(
            f"format version {version} is too old, {_SUPPORTED.major}.{_SUPPORTED.minor} or newer expected"
        )
    return version


def _verity(fd: int, image: archive.Entry, hashes: signature.Hashes) -> Verity:
    offset = hashes.verity_offset
    if offset <= 0 or offset % verity.BLOCK:
        raise VerityError(f"the verity offset {offset} is no positive multiple of {verity.BLOCK}")
    blocks = offset // verity.BLOCK
    if image.size < offset + verity.BLOCK * (1 + verity.tree_blocks(blocks)):
        raise VerityError(f"{archive.IMAGE} is too short for its hash tree")
    data = os.pread(fd, verity.SUPERBLOCK_SIZE, image.offset + offset)
    return Verity(hashes.root_hash, verity.read_salt(data, blocks), blocks)
