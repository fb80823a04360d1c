# SPDX-License-Identifier: Apache-2.0
"""Lines out of a byte stream, with a limit on their length."""

from __future__ import annotations

from northstar.errors import ProtocolError


class LineBuffer:
    """Collects received bytes and hands out complete lines, or raw bytes behind a line."""

    __slots__ = ("_data", "_scanned", "limit")

    def __init__(self, limit: int | None = None) -> None:
        """`limit` is the longest line accepted, in bytes, without its newline; it may be changed later."""
        self._data = bytearray()
        self.limit = limit
        self._scanned = 0

    def feed(self, data: bytes) -> None:
        """Append received bytes."""
        self._data += data

    @property
    def pending(self) -> int:
        """Bytes that have not been handed out."""
        return len(self._data)

    def next_line(self) -> bytes | None:
        """The next line without its newline and one carriage return before it; None if incomplete.

        Raises ProtocolError as soon as a line is certain to exceed the limit.
        """
        end = self._data.find(b"\n", self._scanned)
        if self.limit is not None and (end if end >= 0 else len(self._data)) > self.limit:
            raise ProtocolError(f"a line exceeds the limit of {self.limit} bytes")
        if end < 0:
            self._scanned = len(self._data)
            return None
        line = self.take(end)
        del self._data[:1]
        return line[:-1] if line.endswith(b"\r") else line

    def take(self, count: int) -> bytes:
        """Up to `count` buffered bytes as they are."""
        taken = bytes(self._data[:count])
        del self._data[:count]
        self._scanned = 0
        return taken
