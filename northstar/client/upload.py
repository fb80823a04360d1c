# SPDX-License-Identifier: Apache-2.0
"""The bytes of a package on their way to the runtime."""

from __future__ import annotations

import os

from northstar.client.errors import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Any, Protocol

    Progress = Callable[[int, int], None]

    class Readable(Protocol):
        """A binary file, or anything else that bytes can be read from."""

        def read(self, size: int, /) -> bytes:
            """Up to `size` bytes, none at the end."""


_CHUNK = 1 << 18


class Upload:
    """A package that is read piece by piece."""

    def __init__(
        self, package: str | os.PathLike[str] | Readable, size: int | None, progress: Progress | None
    ) -> None:
        """From a path or a file. A file that cannot tell how long it is needs `size`. Raises OSError."""
        self._own = isinstance(package, (str, os.PathLike))
        self._file: Any = open(package, "rb") if self._own else package  # type: ignore[arg-type] # noqa: SIM115
        self.size = self._remaining() if size is None else size
        self._progress = progress

    def __enter__(self) -> Upload:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._own:
            self._file.close()

    def chunks(self) -> Iterator[bytes]:
        """The pieces to send. To ask for the next one means that the last one was sent.

        Raises OSError, and ClientError if there are fewer bytes than expected.
        """
        sent = 0
        while sent < self.size:
            chunk = self._file.read(min(_CHUNK, self.size - sent))
            if not chunk:
                raise ClientError(f"the package has only {sent} of {self.size} bytes")
            yield chunk
            sent += len(chunk)
            if self._progress is not None:
                self._progress(sent, self.size)

    def _remaining(self) -> int:
        try:
            begin: int = self._file.tell()
            end: int = self._file.seek(0, os.SEEK_END)
            self._file.seek(begin)
        except (AttributeError, OSError):
            raise ValueError("the size of the package is needed, as its file cannot tell it") from None
        return end - begin
