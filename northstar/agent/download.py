# SPDX-License-Identifier: Apache-2.0
"""Downloading packages: resumed where it stopped, at a limited speed, checked as a whole.

A file that is not complete is `DIGEST.part`; it always is the beginning of the package, whether its bytes
were fetched or copied out of an older package. A complete one has been checked, synchronised and renamed to
`DIGEST.npk`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time

from northstar.agent import sources
from northstar.agent.actions import Fetched
from northstar.agent.http import RequestFailed, number, retry_after
from northstar.agent.store import rename_durably
from northstar.delta.plan import Segment
from northstar.kernel.filesystem import write_all
from northstar.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from northstar.agent.http import Http, Response
    from northstar.agent.state import Package

CHUNK = 1 << 16
SYNC_SIZE = 4 << 20
LOW_SPEED_TIME = 60.0
GONE = (404, 410)


class Limits(NamedTuple):
    """How fast a download may be, and how slow."""

    speed: int = 0
    """Bytes per second, 0 for no limit."""
    low_speed: int = 100
    """Bytes per second: what is slower for a minute is given up."""
    patience: float = 30.0
    """Seconds in which something has to come."""


NO_LIMITS = Limits()


class _Stop(Exception):
    """The download ends here for now."""

    def __init__(self, result: str, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.result, self.reason, self.wait = result, reason, wait


class Downloads:
    """The directory of downloads, and the one that is under way."""

    def __init__(
        self, http: Http, directory: str, packages: Sequence[str] = (), limits: Limits = NO_LIMITS
    ) -> None:
        """`packages` are directories with installed packages."""
        self._http = http
        self._directory = directory
        self._packages = packages
        self._limits = limits
        self._current: _Download | None = None
        self._whole: set[str] = set()
        """What could not be rebuilt."""

    def path(self, package: Package) -> str:
        """Where a package is when it is complete."""
        return os.path.join(self._directory, _file_name(package.digest) + ".npk")

    def fetch(self, package: Package, seconds: float) -> Fetched:
        """Go on for at most so many seconds."""
        if os.path.exists(self.path(package)):
            return Fetched("complete")
        end = time.monotonic() + seconds
        started = self._size(package)
        try:
            while True:
                done = self._begun(package).run(end)
                if done is None:
                    return Fetched("partial", progressed=self._size(package) > started)
                if done or not self._rebuilt(package):
                    break
            self.close()
            return Fetched("complete", progressed=True) if done else self._mismatch(package)
        except _Stop as stop:
            self.close()
            grown = self._size(package) > started
            return Fetched(stop.result, stop.reason, stop.wait, grown)
        except OSError as error:
            self.close()
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            return Fetched("failed" if full else "later", f"{self._directory}: {error.strerror}")

    def discard(self, keep: Sequence[str]) -> None:
        """Delete all files but those of some digests."""
        names = {_file_name(digest) for digest in keep}
        if self._current is not None and self._current.package.digest not in keep:
            self.close()
        with contextlib.suppress(OSError), os.scandir(self._directory) as entries:
            for entry in entries:
                if entry.name.rpartition(".")[0] not in names:
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)

    def used(self) -> int:
        """Bytes of all files."""
        with contextlib.suppress(OSError), os.scandir(self._directory) as entries:
            return sum(entry.stat().st_blocks * 512 for entry in entries)
        return 0

    def close(self) -> None:
        """Leave the download as it is."""
        if self._current is not None:
            self._current.close()
            self._current = None

    def _begun(self, package: Package) -> _Download:
        if self._current is not None and self._current.package != package:
            self.close()
        if self._current is None:
            source = None if package.digest in self._whole else self._source(package)
            part = os.path.join(self._directory, _file_name(package.digest) + ".part")
            self._current = _Download(self._http, package, part, self.path(package), source, self._limits)
        return self._current

    def _source(self, package: Package) -> sources.Source | None:
        if not package.index_url or not self._packages:
            return None
        try:
            return sources.find(package, self._index(package), self._packages)
        except RequestFailed:
            return None

    def _index(self, package: Package) -> bytes:
        response = self._http.file(package.index_url, {})
        data = bytearray()
        try:
            if response.status != 200:
                return b""
            end = time.monotonic() + 2 * self._limits.patience
            while chunk := response.read(CHUNK, end - time.monotonic()):
                data += chunk
                if len(data) > package.index_size:
                    return b""
        finally:
            response.close()
        return bytes(data)

    def _rebuilt(self, package: Package) -> bool:
        """Whether what was wrong had been rebuilt; then it is fetched as a whole."""
        rebuilt = self._current is not None and self._current.source is not None
        self.close()
        if rebuilt:
            self._whole.add(package.digest)
        return rebuilt

    def _mismatch(self, package: Package) -> Fetched:
        return Fetched(
            "mismatch", f"it is not what was announced ({package.digest[:15]}…, {package.size} bytes)"
        )

    def _size(self, package: Package) -> int:
        try:
            return os.stat(os.path.join(self._directory, _file_name(package.digest) + ".part")).st_size
        except OSError:
            return 0


class _Download:
    """One file."""

    def __init__(
        self,
        http: Http,
        package: Package,
        part: str,
        target: str,
        source: sources.Source | None,
        limits: Limits,
    ) -> None:
        self.package = package
        self.source = source
        self._http = http
        self._target = target
        self._part = part
        self._limits = limits
        self._segments = source.segments if source else [Segment(0, package.size)]
        self._response: Response | None = None
        self._etag_path = part.removesuffix(".part") + ".etag"
        self._file: BinaryIO = open(part, "a+b", buffering=0)  # noqa: SIM115
        self._hash = hashlib.new(package.digest.partition(":")[0])
        self._position = 0
        self._synced = 0
        self._read_what_is_there()

    def close(self) -> None:
        self._end_response()
        self._file.close()
        if self.source is not None:
            self.source.file.close()

    def run(self, end: float) -> bool | None:
        """Whether the file is what it should be; None if time is over before that is known."""
        self._pace = _Pace(self._limits, self._position)
        while self._position < self.package.size:
            if time.monotonic() >= end:
                return None
            segment = next(segment for segment in self._segments if segment.end > self._position)
            if segment.source is not None:
                self._copy(segment)
            else:
                self._receive(segment)
        return self._finished()

    def _read_what_is_there(self) -> None:
        self._file.seek(0)
        while data := self._file.read(CHUNK):
            self._hash.update(data)
            self._position += len(data)
        if self._position > self.package.size:
            self._start_over()

    def _start_over(self) -> None:
        self._file.truncate(0)
        self._position = self._synced = 0
        self._hash = hashlib.new(self._hash.name)
        with contextlib.suppress(OSError):
            os.unlink(self._etag_path)

    def _finished(self) -> bool:
        self._end_response()
        if self._hash.hexdigest() != self.package.digest.partition(":")[2]:
            self._start_over()
            return False
        os.fsync(self._file.fileno())
        rename_durably(self._part, self._target)
        with contextlib.suppress(OSError):
            os.unlink(self._etag_path)
        return True

    def _write(self, data: bytes) -> None:
        write_all(self._file.fileno(), data)
        self._hash.update(data)
        self._position += len(data)
        if self._position - self._synced >= SYNC_SIZE:
            os.fsync(self._file.fileno())
            self._synced = self._position

    def _copy(self, segment: Segment) -> None:
        assert self.source is not None and segment.source is not None
        self._end_response()
        done = self._position - segment.offset
        self.source.file.seek(segment.source + done)
        data = self.source.file.read(min(CHUNK, segment.length - done))
        # An old package that has become shorter gives a wrong file, which is found out in the end.
        self._write(data or bytes(min(CHUNK, segment.length - done)))
        self._pace.skip(len(data))

    def _receive(self, segment: Segment) -> None:
        if self._response is None:
            self._response = self._opened(segment)
        try:
            data = self._response.read(min(CHUNK, segment.end - self._position), self._limits.patience)
        except RequestFailed as error:
            raise _Stop("later", str(error)) from None
        if not data:
            self._cut(segment)
        self._write(data)
        self._pace.wait(self._position)
        if self._position == segment.end:
            self._end_response()

    def _cut(self, segment: Segment) -> None:
        """The answer has ended before the end: as it said it would, or because the connection was lost."""
        assert self._response is not None
        if self._announced < segment.end:
            self._wrong(f"the server has only {self._announced} bytes of {segment.end}")
        raise _Stop("later", "the connection was lost")

    def _wrong(self, reason: str) -> None:
        self._start_over()
        raise _Stop("mismatch", reason)

    def _opened(self, segment: Segment) -> Response:
        whole = self._position == 0 and segment.length == self.package.size
        headers = {}
        if not whole:
            last = "" if segment.end == self.package.size else str(segment.end - 1)
            headers["Range"] = f"bytes={self._position}-{last}"
            if etag := self._etag():
                headers["If-Match"] = etag
        try:
            response = self._http.file(self.package.url, headers)
        except RequestFailed as error:
            raise _Stop("later", str(error)) from None
        try:
            self._check(response, segment, whole)
        except BaseException:
            response.close()
            raise
        return response

    def _check(self, response: Response, segment: Segment, whole: bool) -> None:
        status = response.status
        length = number(response.headers.get("Content-Length", ""))
        if status in GONE:
            raise _Stop("failed", f"the server does not have it any more ({status})")
        if status in (412, 416):
            self._wrong("the file has changed on the server")
        if status == 200 and not whole:
            # No ranges here: all of it comes, from the beginning.
            self._start_over()
            self._segments = [Segment(0, self.package.size)]
        elif status == 206:
            begin = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0].strip()
            if begin != str(self._position):
                self._wrong(f"the server sends another range than {self._position}-")
        elif status != 200:
            raise _Stop("later", f"the server answers {status}", retry_after(response.headers))
        # Without a length the end of the answer is the end of the file.
        end = segment.end if status == 206 else self.package.size
        self._announced = end if length is None else self._position + length
        if self._announced > self.package.size or (status == 200 and self._announced != self.package.size):
            self._wrong(f"the server sends {length} bytes at {self._position} of {self.package.size}")
        self._keep_etag(response.headers.get("ETag", ""))

    def _etag(self) -> str:
        """As it was received: hawkBit's has no quotes, and matches only without them."""
        with (
            contextlib.suppress(OSError, UnicodeDecodeError),
            open(self._etag_path, encoding="ascii") as file,
        ):
            return file.read(1024)
        return ""

    def _keep_etag(self, etag: str) -> None:
        if etag and not etag.startswith("W/") and etag.isascii() and etag.isprintable() and len(etag) <= 1024:
            with open(self._etag_path, "w", encoding="ascii") as file:
                file.write(etag)

    def _end_response(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None


class _Pace:
    """Not too fast, and not too slow."""

    def __init__(self, limits: Limits, position: int) -> None:
        self._limits = limits
        self._since, self._from = time.monotonic(), position
        self._minute, self._minute_from = self._since, position

    def skip(self, size: int) -> None:
        """So many bytes were not fetched."""
        self._from += size
        self._minute_from += size

    def wait(self, position: int) -> None:
        """After bytes have come: sleep if they came too fast; give up if they come too slowly."""
        now = time.monotonic()
        if now - self._minute >= LOW_SPEED_TIME:
            if position - self._minute_from < self._limits.low_speed * (now - self._minute):
                raise _Stop("later", f"fewer than {self._limits.low_speed} bytes per second")
            self._minute, self._minute_from = now, position
        if self._limits.speed:
            time.sleep(max(0.0, (position - self._from) / self._limits.speed - (now - self._since)))


def _file_name(digest: str) -> str:
    return digest.replace(":", "-")
