# SPDX-License-Identifier: Apache-2.0
"""Where the files of an image are: in a directory, or in an archive that is read in place."""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat
import tempfile
from typing import TYPE_CHECKING, Protocol

from northstar.oci import blob, tarreader
from northstar.oci.blob import Blob, ImageError, Stream

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_FILES = 10_000
_MAX_LINKS = 8


class Store(Protocol):
    """Files by the name that they have in the image."""

    def find(self, name: str, digest: str | None = None) -> Blob | None:
        """A file, None if there is none. Raises ImageError."""


class Directory:
    """An OCI layout in a directory."""

    def __init__(self, path: str) -> None:
        self._path = path

    def find(self, name: str, digest: str | None = None) -> Blob | None:
        """A file, None if there is none. Raises ImageError."""
        if name.startswith("/") or ".." in name.split("/"):
            raise ImageError(f"{self._path}: the name {name[:200]!r} leads out of the image")
        path = os.path.join(self._path, name)
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise ImageError(f"failed to read {path!r}: {getattr(error, 'strerror', error)}") from None
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{path} is no file")
        return Blob(name, path, 0, status.st_size, digest)


class Archive:
    """A tar file, whose table of contents is made once."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._files: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            stream = _FileStream(file.fileno(), size)
            for count, member in enumerate(tarreader.members(stream, path)):
                if count >= MAX_FILES:
                    raise ImageError(f"{path} has more than {MAX_FILES} files")
                name = posixpath.normpath(member.name)
                if member.kind == tarreader.FILE:
                    self._files[name] = (stream.position, member.size)
                elif member.kind in (tarreader.SYMLINK, tarreader.HARD_LINK):
                    base = posixpath.dirname(name) if member.kind == tarreader.SYMLINK else ""
                    self._links[name] = posixpath.normpath(posixpath.join(base, member.target))

    def find(self, name: str, digest: str | None = None) -> Blob | None:
        """A file, None if there is none."""
        inside = posixpath.normpath(name)
        for _ in range(_MAX_LINKS):
            if inside not in self._links:
                break
            inside = self._links[inside]
        if inside not in self._files:
            return None
        offset, size = self._files[inside]
        return Blob(name, self._path, offset, size, digest)


class _FileStream(Stream):
    """A file of which only what is asked for is read."""

    def __init__(self, fd: int, size: int) -> None:
        super().__init__(iter(()))
        self._fd = fd
        self._size = size

    def read(self, size: int) -> bytes:
        data = os.pread(self._fd, size, self.position)
        self.position += len(data)
        return data

    def skip(self, size: int) -> bool:
        self.position += size
        return self.position <= self._size

    def drain(self) -> None:
        self.position = self._size


@contextlib.contextmanager
def opened(path: str, budget: blob.Budget) -> Iterator[Store]:
    """The files of the image at `path`, a directory or an archive. Raises ImageError."""
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            yield Directory(path)
            return
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{path} is neither a directory nor a file")
        with open(path, "rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
    except OSError as error:
        raise ImageError(f"failed to read {path}: {error.strerror}") from None
    if not compressed:
        yield Archive(path)
        return
    # As of `docker save | gzip`. Layers are read twice and in their own order, so it is decompressed once.
    with tempfile.NamedTemporaryFile(prefix="sextant-", suffix=".tar") as plain:
        stored = Blob(path, path, 0, status.st_size, None)
        try:
            for chunk in blob.layer(stored, None, blob.Budget(budget.limit)):
                plain.write(chunk)
            plain.flush()
        except OSError as error:
            raise ImageError(
                f"failed to decompress {path} to {tempfile.gettempdir()}: {error.strerror}",
                "set TMPDIR to a directory with more space, or decompress the archive",
            ) from None
        yield Archive(plain.name)
