# SPDX-License-Identifier: Apache-2.0
"""Reading blobs: digests are checked, layers are decompressed, and neither can grow without limit."""

from __future__ import annotations

import contextlib
import hashlib
import re
import subprocess
import threading
import zlib

from northstar.errors import NorthstarError
from northstar.namedtuple import NamedTuple
from northstar.text import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import IO

CHUNK = 1 << 18
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}", re.ASCII)
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_FOREIGN = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x04\x22\x4d\x18": "lz4"}


COPY_AGAIN = "the image is incomplete or damaged: copy it again"


class ImageError(NorthstarError):
    """An image cannot be used; the message, which names it and says why, is one line."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(escape(message), hint)


class Blob(NamedTuple):
    """`size` bytes at `offset` of the file at `path`; `name` is for messages, `digest` None if unknown."""

    name: str
    path: str
    offset: int
    size: int
    digest: str | None


class Budget:
    """How many bytes may be decompressed for one image."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.left = limit

    def take(self, size: int) -> None:
        """Use some of it; raises ImageError if it is used up."""
        self.left -= size
        if self.left < 0:
            raise ImageError(
                f"the layers have more than {self.limit} bytes when they are decompressed",
                "allow more with --max-size if the image really is that large",
            )


def check_digest(text: object, name: str) -> str:
    """`text` if it is a digest that can be checked, else ImageError."""
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        raise ImageError(f"{name}: {str(text)[:80]!r} is no digest of sha256 or sha512")
    return text


def content(blob: Blob, limit: int) -> bytes:
    """A small blob as it is, checked against its digest. Raises ImageError."""
    if blob.size > limit:
        raise ImageError(f"{blob.name} has {blob.size} bytes, at most {limit} are read")
    return b"".join(_verified(_stored(blob), blob.digest, blob.name))


def layer(blob: Blob, diff_id: str | None, budget: Budget | None) -> Generator[bytes, None, None]:
    """The uncompressed bytes of a layer in pieces.

    Digest and `diff_id`, the digest of what is uncompressed, are checked at the end. Raises ImageError.
    """
    stored = _verified(_stored(blob), blob.digest, blob.name)
    return _verified(_limited(_plain(stored, blob.name), budget), diff_id, f"{blob.name}, uncompressed")


def _stored(blob: Blob) -> Iterator[bytes]:
    try:
        with open(blob.path, "rb") as file:
            file.seek(blob.offset)
            remaining = blob.size
            while remaining:
                chunk = file.read(min(CHUNK, remaining))
                if not chunk:
                    raise ImageError(
                        f"{blob.name} is cut off: {remaining} of {blob.size} bytes are missing", COPY_AGAIN
                    )
                remaining -= len(chunk)
                yield chunk
    except OSError as error:
        raise ImageError(f"failed to read {blob.path}: {error.strerror}") from None


def _verified(chunks: Iterator[bytes], digest: str | None, name: str) -> Generator[bytes, None, None]:
    if digest is None:
        yield from chunks
        return
    algorithm, _, expected = digest.partition(":")
    state = hashlib.new(algorithm)
    for chunk in chunks:
        state.update(chunk)
        yield chunk
    if state.hexdigest() != expected:
        raise ImageError(f"{name} has the digest {algorithm}:{state.hexdigest()}, not {digest}", COPY_AGAIN)


def _limited(chunks: Iterator[bytes], budget: Budget | None) -> Iterator[bytes]:
    for chunk in chunks:
        if budget is not None:
            budget.take(len(chunk))
        yield chunk


def _plain(stored: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Decompressed by what the bytes are, as all tools do, not by what the media type says."""
    first = next(stored, b"")
    chunks = _chain(first, stored)
    if first.startswith(_GZIP):
        return _gunzip(chunks, name)
    if first.startswith(_ZSTD):
        return _unzstd(chunks, name)
    for magic, what in _FOREIGN.items():
        if first.startswith(magic):
            raise ImageError(
                f"{name} is compressed with {what}; gzip and zstd are known",
                "skopeo copy --dest-compress-format gzip makes a copy that can be imported",
            )
    return chunks


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


def _gunzip(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """All members of a gzip file (RFC 1952)."""
    machine = zlib.decompressobj(31)
    try:
        for chunk in chunks:
            data = chunk
            while data:
                if machine.eof:
                    if not data.strip(b"\0"):
                        break  # padding, which gzip(1) ignores as well
                    machine = zlib.decompressobj(31)
                out = machine.decompress(data, CHUNK)
                data = machine.unused_data if machine.eof else machine.unconsumed_tail
                if out:
                    yield out
            while not machine.eof and (out := machine.decompress(b"", CHUNK)):
                yield out
    except zlib.error as error:
        raise ImageError(f"{name} is damaged: {error}", COPY_AGAIN) from None
    if not machine.eof:
        raise ImageError(f"{name} is cut off: its gzip data has no end", COPY_AGAIN)


def _unzstd(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """What zstd(1) makes of it. The standard library has had zstd only since Python 3.14."""
    try:
        process = subprocess.Popen(
            ["zstd", "-dcq"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except OSError as error:
        raise ImageError(
            f"{name} is compressed with zstd, and zstd could not be run: {error.strerror}", "install zstd"
        ) from None
    assert process.stdin and process.stdout and process.stderr
    failures: list[ImageError] = []
    feeder = threading.Thread(target=_feed, args=(process.stdin, chunks, failures), daemon=True)
    feeder.start()
    try:
        while out := process.stdout.read(CHUNK):
            yield out
        feeder.join()
        message = process.stderr.read(1000).decode(errors="replace").strip()
        if failures:
            raise failures[0]
        if process.wait():
            raise ImageError(f"{name} is damaged: {message}", COPY_AGAIN)
    finally:
        process.kill()
        process.wait()
        feeder.join()
        process.stdout.close()
        process.stderr.close()


def _feed(pipe: IO[bytes], chunks: Iterator[bytes], failures: list[ImageError]) -> None:
    try:
        with contextlib.suppress(BrokenPipeError), pipe:
            for chunk in chunks:
                pipe.write(chunk)
    except ImageError as error:
        failures.append(error)


class Stream:
    """Pieces of bytes, read by size; `position` counts what was read."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = b""
        self._used = 0
        self.position = 0

    def read(self, size: int) -> bytes:
        """`size` bytes, fewer only at the end."""
        end = self._used + size
        if end <= len(self._chunk):
            data = self._chunk[self._used : end]
            self._used = end
            self.position += size
            return data
        return b"".join(self.pieces(size))

    def pieces(self, size: int) -> Iterator[bytes]:
        """The same, as it comes."""
        while size:
            if self._used == len(self._chunk):
                self._chunk, self._used = next(self._chunks, b""), 0
                if not self._chunk:
                    return
            piece = self._chunk[self._used : self._used + size]
            self._used += len(piece)
            self.position += len(piece)
            size -= len(piece)
            yield piece

    def skip(self, size: int) -> bool:
        """Read and forget; whether all of it was there."""
        end = self.position + size
        while self.position < end:
            if self._used == len(self._chunk):
                self._chunk, self._used = next(self._chunks, b""), 0
                if not self._chunk:
                    return False
            step = min(end - self.position, len(self._chunk) - self._used)
            self._used += step
            self.position += step
        return True

    def drain(self) -> None:
        """Read to the end, so that the digests are checked."""
        self.position += len(self._chunk) - self._used
        self._chunk, self._used = b"", 0
        for chunk in self._chunks:
            self.position += len(chunk)
